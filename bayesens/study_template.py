"""A commented study file from the columns of a table: what was guessed stands there to be checked."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bayesens.columns import listed
from bayesens.splits import usual_estimand
from bayesens.study_file import Study
from bayesens.table_roles import column_roles

__all__ = ["study_template"]

MODELS = """\
# One table for each model; any option or prior of the model may stand here as well, such as
# level_prior = {family = "Normal", mu = 0, sigma = 5}. The first one is the reference of comparisons.
# Kinds: bma, hbm, linear_pool, emos, and as baselines equal (weights), single (the best member), climatology.
[models.BMA]
model = "bma"

[models.HBM]
model = "hbm"

[models."Equal weights"]
model = "equal"
method = "em"

[models."Best member"]
model = "single"
method = "em"

[models.Climatology]
model = "climatology"
method = "em"
"""
EXAMPLES = {
    "drought": "percentile = 0.2", "importance": "repeats = 5", "ladder": 'transform = "identity"',
    "sensitivity": 'members = ["member", "cluster"]', "representativeness": 'cell = "cell"',
    "map": 'grid = "grid.nc"',
}  # fmt: skip


def study_template(frame: pd.DataFrame, table: str | Path, *, given: Mapping[str, Any] | None = None) -> str:
    """Write a study file for a table, every key with its comment.

    Parameters
    ----------
    frame : pandas.DataFrame
        The table, or its first rows.
    table : path
        As the file should name it.
    given : mapping, optional
        Columns that need no guess: ``observation``, ``site``, ``group``, ``time``, ``lon``, ``lat``, and ``members``, a list.

    Returns
    -------
    str
        TOML. Columns that look like predictions of the observation (of its size, correlated with it) are taken for members;
        without any, four members are trained on the other columns of numbers. Rows are held out by site; where the table has none
        by time, and without times one by one.

    Raises
    ------
    ValueError
        No column looks like the observation, or one that is given is not there.

    Examples
    --------
    >>> frame = pd.DataFrame({"sm": [0.1, 0.2, 0.4], "rf": [0.1, 0.25, 0.3], "station": ["a", "b", "b"], "dem": [9.0, 8, 7]})
    >>> text = study_template(frame, "t.csv")
    >>> [line for line in text.splitlines() if line.startswith(("table", "observation", "site", "columns"))]
    ['table = "t.csv"', 'observation = "sm"', 'site = "station"', 'columns = ["rf"]']
    """
    found = column_roles(frame, given=given)
    roles, members, rest = found.roles, list(found.members), list(found.covariates)
    values: dict[str, dict[str, Any]] = {
        "study": {"title": f"Combining predictions of {roles['observation']}"},
        "data": {"table": str(table)} | roles,
        "members": {"columns": members} if members else {"train": ["rf", "mlr", "svr", "xgb"], "covariates": rest},
        "evaluation": {"estimands": [usual_estimand(site="site" in roles, time="time" in roles)]},
    }
    if not members and not rest:
        raise ValueError(
            f"the table has no column of numbers beside {listed(roles.values())}: there is nothing to combine"
        )
    lines = ["# A study of bayesens: run it with `bayesens run FILE --out DIR`. Columns were guessed: check them.",
             "# Lines that begin with # show a key with its default, or a part that is not asked for.", ""]  # fmt: skip
    for name, field in Study.model_fields.items():
        if name == "models":
            lines += [MODELS]
        elif name == "products":
            lines += [f"# {field.description}", "[products]", '# "Coarse input" = "column"', ""]
        elif name != "folder":
            lines += [*_part(name, field, values.get(name, {})), ""]
    return "\n".join(lines)


def _part(name: str, field: FieldInfo, values: Mapping[str, Any]) -> Iterator[str]:
    cls = next(kind for kind in (field.annotation, *get_args(field.annotation))
               if isinstance(kind, type) and issubclass(kind, BaseModel))  # fmt: skip
    off = "" if name not in EXAMPLES else "# "
    yield f"# {str(cls.__doc__).strip()}"
    yield f"{off}[{name}]"
    for key, one in cls.model_fields.items():
        yield f"# {one.description}"
        if key in values:
            yield f"{key} = {_toml(values[key])}"
        elif off and EXAMPLES[name].startswith(f"{key} ="):
            yield f"# {EXAMPLES[name]}"
        else:
            yield f"# {key} = {_toml(_default(one))}"


def _default(field: FieldInfo) -> Any:
    made = field.get_default(call_default_factory=True, validated_data={})
    return "..." if made is None or made is PydanticUndefined else made


def _toml(value: Any) -> str:
    """A value as TOML writes it; JSON's text and lists are TOML's."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dt.date):
        return value.isoformat()
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
