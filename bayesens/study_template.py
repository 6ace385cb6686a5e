"""A commented study file from the columns of a table: what was guessed stands there to be checked."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bayesens.columns import listed, numbers, times
from bayesens.long_tables import long_columns, model_and_value, widened
from bayesens.missing_codes import Missing, check_codes, clear_codes
from bayesens.study_file import Study

__all__ = ["study_template"]

USUAL = {
    "observation": (
        "observation",
        "observed",
        "obs",
        "insitu_sm",
        "insitu",
        "in_situ",
        "sm",
        "discharge",
        "flow",
        "truth",
        "y",
    ),
    "site": ("site", "station", "gauge", "location", "stn", "sitename", "station_id", "site_id"),
    "group": ("group", "network", "cluster", "basin", "subregion", "region"),
    "time": ("time", "date", "datetime", "day", "timestamp"),
    "lon": ("lon", "longitude", "long"),
    "lat": ("lat", "latitude"),
}
NEEDED = ("observation", "site")
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
EXAMPLES = {
    "drought": "percentile = 0.2", "importance": "repeats = 5", "ladder": 'transform = "identity"',
    "sensitivity": 'members = ["member", "cluster"]', "representativeness": 'cell = "cell"',
    "map": 'grid = "grid.nc"',
}  # fmt: skip


def study_template(
    frame: pd.DataFrame, table: str | Path, *, given: Mapping[str, Any] | None = None, missing: Missing = None
) -> str:
    """Write a study file for a table, every key with its comment.

    Parameters
    ----------
    frame : pandas.DataFrame
        The table, or its first rows.
    table : path
        As the file should name it.
    given : mapping, optional
        Columns that need no guess: ``observation``, ``site``, ``group``, ``time``, ``lon``, ``lat``, and ``members``, a list; and
        how the table is read: ``time_format``, ``decimal``, ``long``.
        Columns that need no guess: ``observation``, ``site``, ``group``, ``time``, ``lon``, ``lat``, and ``members``, a list.
    missing : optional
        Codes for missing values, as in `Ensemble.from_frame`; they go into the file.

    Returns
    -------
    str
        TOML. Columns that look like predictions of the observation (of its size, correlated with it) are taken for members;
        without any, four members are trained on the other columns of numbers.

    Raises
    ------
    ValueError
        No column looks like the observation or the site, or one that is given is not there; a long table, where ``long`` is
        not given; times that have two readings.
        No column looks like the observation or the site, one that is given is not there, or values look like codes for missing
        ones.

    Examples
    --------
    >>> frame = pd.DataFrame({"sm": [0.1, 0.2, 0.4], "rf": [0.1, 0.25, 0.3], "station": ["a", "b", "b"], "dem": [9.0, 8, 7]})
    >>> text = study_template(frame, "t.csv")
    >>> [line for line in text.splitlines() if line.startswith(("table", "observation", "site", "columns"))]
    ['table = "t.csv"', 'observation = "sm"', 'site = "station"', 'columns = ["rf"]']
    """
    reading = {key: given[key] for key in ("decimal", "time_format", "long") if given and key in given}
    frame, models = _one_row_a_case(frame, given or {})
    roles = _roles(frame, dict(given or {}))
    _check_times(frame, roles, reading.get("time_format"))
    frame = _without_codes(frame, roles, missing)
    members = models or list((given or {}).get("members") or _members(frame, roles))
    rest = [str(name) for name in frame.select_dtypes("number") if name not in {*roles.values(), *members}]
    values: dict[str, dict[str, Any]] = {
        "study": {"title": f"Combining predictions of {roles['observation']}"},
        "data": {"table": str(table)}
        | roles
        | reading
        | ({} if missing is None else {"missing": _plain_codes(missing)}),
        "members": {"columns": members} if members else {"train": ["rf", "mlr", "svr", "xgb"], "covariates": rest},
        "evaluation": {"estimands": ["site"]},
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
    roles = _roles(frame.drop(columns=[name for name in (model, value) if name in frame]), dict(given))
    wide, names = widened(
        frame, model=model, value=value, by=[roles[role] for role in ("site", "time") if role in roles]
    )
    return wide, [name for name in names if name in (given.get("members") or names)]


def _check_times(frame: pd.DataFrame, roles: Mapping[str, str], time_format: str | None) -> None:
    """Ask now for a format that the study would ask for."""
    if "time" in roles:
        times(frame[roles["time"]], time_format)


def _without_codes(frame: pd.DataFrame, roles: Mapping[str, str], missing: Missing) -> pd.DataFrame:
    """The table as a study will see it: a code in a member would hide that it is one."""
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


def _roles(frame: pd.DataFrame, given: dict[str, Any]) -> dict[str, str]:
    have = {str(name).lower(): str(name) for name in frame.columns}
    roles: dict[str, str] = {}
    for role, usual in USUAL.items():
        asked = given.get(role)
        if asked is not None and asked not in frame.columns:
            raise ValueError(f"the table has no column {asked!r}; it has {listed(map(str, frame.columns), limit=40)}")
        found = asked or next((have[name] for name in usual if name in have and have[name] not in roles.values()), None)
        if found is None and role in NEEDED:
            raise ValueError(f"no column looks like the {role}; name it: --{role}. The table has "
                             f"{listed(map(str, frame.columns), limit=40)}")  # fmt: skip
        if found is not None:
            roles[role] = found
    return roles


def _members(frame: pd.DataFrame, roles: Mapping[str, str]) -> list[str]:
    """Columns of the size of the observation, and correlated with it."""
    y = pd.to_numeric(frame[roles["observation"]], errors="coerce")
    found = []
    for name in frame.select_dtypes("number"):
        if name in roles.values():
            continue
        both = pd.DataFrame({"y": y, "f": frame[name]}).dropna()
        y_, f = both["y"].to_numpy(float), both["f"].to_numpy(float)
        if len(both) > 2 and min(y_.std(), f.std()) > 0:
            alike = abs(f.mean() - y_.mean()) < 1.5 * y_.std() and 0.1 < f.std() / y_.std() < 5
            if alike and np.corrcoef(y_, f)[0, 1] > 0.3:
                found.append(str(name))
    return found


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
