"""A commented study file from the columns of a table: what was guessed stands there to be checked."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bayesens.app.study.file import Study, class_of
from bayesens.comparison.folds.held_out_rows import usual_estimand
from bayesens.messages import listed
from bayesens.tables.columns import numbers, times
from bayesens.tables.long_tables import long_columns, model_and_value, widened
from bayesens.tables.missing_codes import Missing, check_codes, clear_codes
from bayesens.tables.table_roles import TableRoles, column_roles

__all__ = ["study_roles", "study_template"]

MODELS = """\
# One table for each model; any option or prior of the model may stand here as well, such as
# level_prior = {family = "Normal", mu = 0, sigma = 5}. The first one is the reference of comparisons.
# All are fitted by one method, that of [evaluation]: a model fitted by EM beside one fitted by its posterior differs by its
# method, too. Kinds: bma, hbm, linear_pool, emos, and as baselines equal (weights), single (the best member), climatology.
[models.BMA]
model = "bma"

[models.HBM]
model = "hbm"

[models."Equal weights"]
model = "equal"

[models."Best member"]
model = "single"

[models.Climatology]
model = "climatology"
"""
NOT_TOLD = """\
# What the day is worth: the same model, which is not told it.
[models."BMA without the day"]
model = "bma"
neighbours = false

"""
EXAMPLES = {
    "drought": "percentile = 0.2", "importance": "repeats = 5", "ladder": 'transform = "identity"',
    "sensitivity": 'members = ["member", "cluster"]', "representativeness": 'cell = "cell"',
    "map": 'grid = "grid.nc"', "recalibration": 'method = "beta"',
}  # fmt: skip


def study_template(
    frame: pd.DataFrame, table: str | Path, *, given: Mapping[str, Any] | None = None, missing: Missing = None,
    neighbours: bool = False,
) -> str:  # fmt: skip
    """Write a study file for a table, every key with its comment.

    Parameters
    ----------
    frame : pandas.DataFrame
        The table, or its first rows.
    table : path
        As the file should name it.
    given : mapping, optional
        Columns that need no guess: ``observation``, ``site``, ``group``, ``time``, ``lon``, ``lat``, and ``members``, a list; and
        how the table is read: ``time_format``, ``decimal``, ``separator``, ``sheet``, ``long``.
    missing : optional
        Codes for missing values, as in `Ensemble.from_frame`; they go into the file.
    neighbours : bool
        Whether what other stations observed on the day is one more member, which a second BMA is not told.

    Returns
    -------
    str
        TOML. Columns that look like predictions of the observation (of its size, correlated with it) are taken for members;
        without any, four members are trained on the other columns of numbers. Rows are held out by site; where the table has none
        by time, and without times one by one.

    Raises
    ------
    ValueError
        No column looks like the observation, or one that is given is not there; a long table, where ``long`` is not given;
        times that have two readings; values that look like codes for missing ones.

    Examples
    --------
    >>> frame = pd.DataFrame({"sm": [0.1, 0.2, 0.4], "rf": [0.1, 0.25, 0.3], "station": ["a", "b", "b"], "dem": [9.0, 8, 7]})
    >>> text = study_template(frame, "t.csv")
    >>> [line for line in text.splitlines() if line.startswith(("table", "observation", "site", "columns"))]
    ['table = "t.csv"', 'observation = "sm"', 'site = "station"', 'columns = ["rf"]']
    """
    reading = {
        key: given[key] for key in ("decimal", "separator", "sheet", "time_format", "long") if given and key in given
    }
    found = study_roles(frame, given=given, missing=missing)
    roles, members, rest = found.roles, list(found.members), list(found.covariates)
    if neighbours and (lacking := [role for role in ("site", "time") if role not in roles]):
        raise ValueError(
            f"neighbours need the site and the time of every row, and no column looks like {listed(lacking)}: name the column, "
            f"{' '.join(f'--{role}' for role in lacking)}, or leave neighbours out"
        )
    values: dict[str, dict[str, Any]] = {
        "study": {"title": f"Combining predictions of {roles['observation']}"},
        "data": {"table": str(table)}
        | roles
        | reading
        | ({} if missing is None else {"missing": _plain_codes(missing)}),
        "members": {"columns": members} if members else {"train": ["rf", "mlr", "svr", "xgb"], "covariates": rest},
        "evaluation": {"estimands": [usual_estimand(site="site" in roles, time="time" in roles)]},
    }
    if not members and not rest:
        raise ValueError(
            f"the table has no column of numbers beside {listed(roles.values())}: there is nothing to combine"
        )
    if neighbours:
        values["members"]["neighbours"] = True
    lines = ["# A study of bayesens: run it with `bayesens run FILE --out DIR`. Columns were guessed: check them.",
             "# Lines that begin with # show a key with its default, or a part that is not asked for.", ""]  # fmt: skip
    for name, field in Study.model_fields.items():
        if name == "models":
            lines += [MODELS.replace("[models.HBM]", f"{NOT_TOLD}[models.HBM]") if neighbours else MODELS]
        elif name == "products":
            lines += [f"# {field.description}", "[products]", '# "Coarse input" = "column"', ""]
        elif name != "folder":
            lines += [*_part(name, field, values.get(name, {})), ""]
    return "\n".join(lines)


def study_roles(frame: pd.DataFrame, *, given: Mapping[str, Any] | None = None, missing: Missing = None) -> TableRoles:
    """Guess what each column is in the table as a study sees it: long made wide, codes for missing values set to NaN.

    Examples
    --------
    >>> frame = pd.DataFrame({"sm": [0.1, 0.2, 0.4, 0.3], "rf": [0.1, 0.25, 0.3, -99.0]})
    >>> study_roles(frame, missing=-99).members
    ('rf',)
    """
    asked = dict(given or {})
    frame, models = _one_row_a_case(frame, asked)
    if models and not asked.get("members"):
        asked["members"] = models
    # A code in a member would hide that it is one, so codes go before members are looked for; roles have names.
    roles = column_roles(frame, given=asked).roles
    if "time" in roles:  # ask now for a format that the study would ask for
        frame = frame.assign(**{roles["time"]: times(frame[roles["time"]], asked.get("time_format"))})
    return column_roles(_without_codes(frame, roles, missing), given=asked)


def _one_row_a_case(frame: pd.DataFrame, given: Mapping[str, Any]) -> tuple[pd.DataFrame, list[str]]:
    """A long table made wide, and its models; another table as it is."""
    if given.get("long") is None:
        if (found := long_columns(frame)) is not None and not given.get("members"):
            raise ValueError(
                f"the table ({len(frame)} rows) looks like a long one, one row a model and case: column {found[0]!r} has "
                f"{listed(sorted(frame[found[0]].astype(str).unique()))}; say so: --long {found[0]}:{found[1]}, or name "
                "the columns of predictions: --members"
            )
        return frame, []
    model, value = model_and_value(given["long"])
    rest = frame.drop(columns=[name for name in (model, value) if name in frame])
    roles = column_roles(rest, given={**given, "members": None}).roles
    return widened(frame, model=model, value=value, by=[roles[role] for role in ("site", "time") if role in roles])


def _without_codes(frame: pd.DataFrame, roles: Mapping[str, str], missing: Missing) -> pd.DataFrame:
    """The table as a study will see it."""
    role_of = {name: role for role, name in roles.items()}
    names = [
        str(name) for name in frame.select_dtypes("number") if role_of.get(str(name)) not in ("site", "group", "time")
    ]
    kinds = {name: role_of.get(name, "covariate").replace("observation", "measured") for name in names}
    columns = {name: numbers(frame[name]) for name in names}
    clear_codes(columns, missing)
    check_codes(columns, kinds, missing)
    return frame.assign(**columns)


def _plain_codes(missing: Any) -> Any:
    """Codes as a study file takes them."""
    if isinstance(missing, Mapping):
        every = {name: _plain_codes(codes) for name, codes in missing.items()}
        return every["*"] if set(every) == {"*"} else every
    return missing if isinstance(missing, str) else (np.atleast_1d(missing).tolist() or "none")


def _part(name: str, field: FieldInfo, values: Mapping[str, Any]) -> Iterator[str]:
    cls = class_of(field)
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
