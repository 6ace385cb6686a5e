"""What each column of a table is to a study: observation, site, time, member and so on, guessed and said with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens.messages import listed
from bayesens.tables.unit_checks import conversion_of

__all__ = ["TableRoles", "column_roles"]

# Names are compared in small letters, words joined by "_"; the first one that the table has is taken.
USUAL = {
    "observation": (
        "observation", "observations", "observed", "obs", "insitu", "in_situ", "insitu_sm", "in_situ_sm", "sm_insitu", "measured",
        "measurement", "measurements", "station_value", "gauge_value", "ground_truth", "truth_value", "y_true", "actual",
        "target", "reference", "ref", "sm", "soil_moisture", "discharge", "streamflow", "flow", "truth", "y",
    ),
    "site": (
        "site", "station", "gauge", "monitor", "location", "stn", "sitename", "site_name", "station_name", "station_id",
        "site_id", "gauge_id", "monitor_id",
    ),
    "group": ("group", "network", "cluster", "basin", "subregion", "region"),
    "time": ("time", "date", "datetime", "day", "timestamp"),
    "lon": ("lon", "longitude", "long"),
    "lat": ("lat", "latitude"),
}  # fmt: skip
# A word of a longer name that says as much: obs_pm25, q_observed.
MARKS = frozenset({"obs", "observed", "observation", "insitu", "measured"})
NO_MARKS = frozenset(
    {"n", "num", "count", "error", "err", "sd", "se", "var", "flag", "qc", "quality", "id", "time", "date"}
)
LEAST_R, LEAST_SD, MOST_SD, MOST_SHIFT = 0.3, 0.1, 5.0, 1.5  # what a prediction of the observation has


@dataclass(frozen=True, eq=False)
class TableRoles:
    """Which column of a table is what.

    Attributes
    ----------
    roles : dict of role to column
        ``observation``, and where there are any ``site``, ``group``, ``time``, ``lon``, ``lat``.
    members : tuple of str
        Columns of predictions; none: members are to be trained.
    covariates : tuple of str
        Columns of numbers that such members would learn from.
    table : pandas.DataFrame
        One line a column of the table: ``column``, ``role`` ("-" where it is not used), ``range`` of its values, ``missing``
        (share in percent), ``r`` (correlation with the observation, NaN where there is none) and ``why``.
    other_units : dict of column to (scale, offset, unit)
        Columns that would look like predictions in the observation's unit: value * scale + offset.
    """

    roles: dict[str, str]
    members: tuple[str, ...]
    covariates: tuple[str, ...]
    table: pd.DataFrame
    other_units: dict[str, tuple[float, float, str]]


def column_roles(frame: pd.DataFrame, *, given: Mapping[str, Any] | None = None) -> TableRoles:
    """Guess what each column of a table is, and say why.

    `frame` is the table, or its first rows; `given` has columns that need no guess, by role, and ``members``, a list.

    Examples
    --------
    >>> frame = pd.DataFrame({"obs": [0.1, 0.2, 0.4], "rf": [0.1, 0.25, 0.3], "dem": [9.0, 8, 7]})
    >>> found = column_roles(frame)
    >>> found.roles, found.members
    ({'observation': 'obs'}, ('rf',))
    >>> found.table[["column", "role", "range", "why"]].values.tolist()
    [['obs', 'observation', '0.1 to 0.4', 'by its name'], ['rf', 'member', '0.1 to 0.3', 'like the observation'], ['dem', '-',
    '7 to 9', 'mean 62 sd away']]
    """
    asked = dict(given or {})
    for name in [*(asked.get(role) for role in USUAL), *(asked.get("members") or ())]:
        if name is not None and name not in frame.columns:
            raise ValueError(f"the table has no column {name!r}; it has {listed(map(str, frame.columns), limit=40)}")
    why: dict[str, str] = {}
    roles = _named(frame, asked, why)
    y = pd.to_numeric(frame[roles["observation"]], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    members, rest = _members(frame, roles, asked.get("members"), y, why)
    unasked = [] if asked.get("members") else rest
    converted = {name: conversion_of(frame[name].to_numpy(dtype=np.float64, na_value=np.nan), y) for name in unasked}
    other = {name: how for name, how in converted.items() if how is not None}
    why |= {name: _as_if(*how[:2]) for name, how in other.items()}
    covariates = () if members else tuple(rest)
    used = {column: role for role, column in roles.items()} | dict.fromkeys(members, "member")
    used |= dict.fromkeys(covariates, "covariate")
    lines = [_line(frame[name], str(name), used.get(str(name), "-"), y, why) for name in frame.columns]
    table = pd.DataFrame(lines, columns=["column", "role", "range", "missing", "r", "why"])
    return TableRoles(roles, tuple(members), covariates, table, other)


# ---------------------------------------------------------------------------------------------------------------- guesses
def _named(frame: pd.DataFrame, asked: Mapping[str, Any], why: dict[str, str]) -> dict[str, str]:
    """Roles by name; what is asked for comes first."""
    roles = {role: str(asked[role]) for role in USUAL if asked.get(role) is not None}
    why |= {column: f"named by --{role}" for role, column in roles.items()}
    taken = {*roles.values(), *map(str, asked.get("members") or ())}
    for role in USUAL:
        if role in roles:
            continue
        fitting = [name for name in _candidates(frame, role) if name not in taken and _can_be(frame, role, name, why)]
        if fitting:
            roles[role], why[fitting[0]] = fitting[0], "by its name"
            taken.add(fitting[0])
            why |= {name: f"like the {role}'s name" for name in fitting[1:] if name not in why}
        elif role == "observation":
            raise ValueError(f"no column looks like the observation; name it: --observation. The table has "
                             f"{listed(map(str, frame.columns), limit=40)}")  # fmt: skip
    return {role: roles[role] for role in USUAL if role in roles}


def _candidates(frame: pd.DataFrame, role: str) -> list[str]:
    """Columns with a usual name, the most usual first; then those that a word of the name marks as observed."""
    have: dict[str, str] = {}
    for name in map(str, frame.columns):
        have.setdefault(_plain(name), name)
    found = [have[name] for name in USUAL[role] if name in have]
    if role == "observation":
        words = {name: set(plain.split("_")) for plain, name in have.items() if name not in found}
        marked = [name for name, each in words.items() if MARKS & each and not NO_MARKS & each]
        marked = [name for name in marked if pd.api.types.is_numeric_dtype(frame[name])]
        # "y" and other short names say less than a word such as obs.
        clear = [name for name in found if _plain(name) not in ("sm", "flow", "truth", "y")]
        found = [*clear, *marked, *(name for name in found if name not in clear)]
    return found


def _plain(name: str) -> str:
    return "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _can_be(frame: pd.DataFrame, role: str, name: str, why: dict[str, str]) -> bool:
    """Whether values allow what the name says: an observation is a number that varies within a site."""
    if role != "observation":
        return True
    values = pd.to_numeric(frame[name], errors="coerce")
    if not values.notna().any():
        why[name] = "no numbers"
        return False
    if _plain(name) == "y" and any(_plain(str(other)) == "x" for other in frame.columns):
        site = _candidates(frame, "site")
        if site and len(frame) > frame[site[0]].nunique() and (values.groupby(frame[site[0]]).nunique() <= 1).all():
            why[name] = "a place: one value a site"
            return False
    return True


def _members(
    frame: pd.DataFrame, roles: Mapping[str, str], asked: Any, y: NDArray[np.float64], why: dict[str, str]
) -> tuple[list[str], list[str]]:
    """Columns of the size of the observation and correlated with it, and the other columns of numbers."""
    found, rest = list(map(str, asked or ())), []
    why |= dict.fromkeys(found, "named by --members")
    for name in map(str, frame.select_dtypes("number").columns):
        if name in roles.values() or name in found:
            continue
        reason = _unlike(frame[name].to_numpy(dtype=np.float64, na_value=np.nan), y)
        if asked is None and not reason and name not in why:
            found.append(name)
            why[name] = "like the observation"
        else:
            rest.append(name)
            why.setdefault(name, reason or "not in --members")
    if not found:
        for name in rest:
            why[name] = f"to train members; {why[name]}"
    return found, rest


def _as_if(scale: float, offset: float) -> str:
    """A conversion in as few words as a column of the table has room for."""
    return "like it" + (f" x {scale:.4g}" if scale != 1.0 else "") + (f" {offset:+.5g}" if offset else "")


def _unlike(f: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Why a column is no prediction of the observation; nothing if it looks like one."""
    both = np.isfinite(f) & np.isfinite(y)
    if not np.isfinite(f).any():
        return "empty"
    if both.sum() < 3:
        return f"{int(both.sum())} rows with both"
    f, y = f[both], y[both]
    if f.min() == f.max():
        return "constant"
    if y.min() == y.max():
        return "observation constant"
    shift, ratio = abs(f.mean() - y.mean()) / y.std(), f.std() / y.std()
    if not shift < MOST_SHIFT:
        return f"mean {shift:.2g} sd away"
    if not LEAST_SD < ratio < MOST_SD:
        return f"sd {ratio:.2g} times"
    r = np.corrcoef(y, f)[0, 1]
    return "" if r > LEAST_R else f"r not above {LEAST_R:g}"


# --------------------------------------------------------------------------------------------------------------- one line
def _line(column: pd.Series, name: str, role: str, y: NDArray[np.float64], why: Mapping[str, str]) -> dict[str, Any]:
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    r = np.nan
    if numeric and role in ("member", "covariate", "-"):
        r = _correlation(column.to_numpy(dtype=np.float64, na_value=np.nan), y)
    return {
        "column": name, "role": role, "range": _range(column, numeric), "missing": 100.0 * float(column.isna().mean()),
        "r": r, "why": why.get(name, _no_number(column)),
    }  # fmt: skip


def _no_number(column: pd.Series) -> str:
    if pd.api.types.is_bool_dtype(column):
        return "true or false"
    return "other times" if pd.api.types.is_datetime64_any_dtype(column) else "text"


def _range(column: pd.Series, numeric: bool) -> str:
    known = column.dropna()
    if not len(known):
        return "none"
    if numeric or pd.api.types.is_datetime64_any_dtype(column):
        ends = [f"{v:.4g}" if numeric else str(v).removesuffix(" 00:00:00") for v in (known.min(), known.max())]
        return " to ".join(ends)
    texts = known.astype(str)
    count = texts.nunique()
    if count == 1:
        return texts.iloc[0]
    # Dates of a text file are still text here; as other labels they are counted, with the first and the last one.
    return f"{count}: {texts.min()} to {texts.max()}"


def _correlation(f: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    both = np.isfinite(f) & np.isfinite(y)
    f, y = f[both], y[both]
    return float(np.corrcoef(f, y)[0, 1]) if len(f) > 2 and min(np.ptp(f), np.ptp(y)) > 0 else np.nan
