"""What an ensemble refuses or warns of: names, roles, units, sites in two groups.

Every message says what came (the column and how many rows), what was wanted, and what to do next. Nothing behind
the door checks again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens.messages import UnknownName, check_known, listed, warn
from bayesens.tables.columns import check_text

__all__ = [
    "check_columns",
    "check_groups",
    "common_units",
    "covariate_names",
    "member_names",
    "warn_empty",
    "warn_rows",
]


# Names ---------------------------------------------------------------------------------------------------------------


def member_names(members: Iterable[str]) -> list[str]:
    """Return member names as a list, refusing none, duplicates and names that are not text.

    Examples
    --------
    >>> member_names(("rf", "mlr"))
    ['rf', 'mlr']
    """
    names = _column_names(members, "members")
    if not names:
        raise ValueError("members is empty; wanted at least one column name: members=['rf', 'mlr', ...]")
    return names


def covariate_names(covariates: Iterable[str], what: str = "covariates") -> list[str]:
    """Return covariates' names as a list, refusing duplicates, names that are not text and those that models give to others.

    `what` is the argument, for messages.

    Examples
    --------
    >>> covariate_names(["elevation", "spread"])
    Traceback (most recent call last):
    ...
    ValueError: a covariate is called 'spread', which to models is the spread of the members; copy the column under another ...
    """
    names = _column_names(covariates, what)
    if name := next((name for name in names if name in RESERVED), None):
        raise ValueError(f"a covariate is called {name!r}, which to models is {RESERVED[name]}")
    return names


_COPY = "; copy the column under another name"
# Names that scale= and bias_covariates= of models take for something else than a covariate.
RESERVED = {
    "mean": f"the mean of the members{_COPY}", "spread": f"the spread of the members{_COPY}",
    "season": f"the season{_COPY}", "season_sin": f"the season{_COPY}", "season_cos": f"the season{_COPY}",
    "lon": "the longitude of the row; name it by lon='lon'", "lat": "the latitude of the row; name it by lat='lat'",
}  # fmt: skip


def _column_names(given: Iterable[str], what: str) -> list[str]:
    """Names of several columns as a list."""
    if isinstance(given, str):
        raise TypeError(f"{what} is the text {given!r}; wanted a list of column names: {what}=[{given!r}]")
    names: list[object] = list(given)
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise TypeError(
            f"{what} has {len(odd)} name(s) that are not text ({listed(map(repr, odd))}); wanted strings: "
            "rename the columns first, e.g. frame.rename(columns=str)"
        )
    texts = [str(name) for name in names]
    twice = [name for name, count in Counter(texts).items() if count > 1]
    if twice:
        raise ValueError(
            f"{what} names {listed(twice)} more than once; wanted each name once: {listed(dict.fromkeys(texts), limit=20)}"
        )
    for text in texts:
        check_text(text, what)
    return texts


def check_columns(
    frame: pd.DataFrame, members: Sequence[str], columns: Mapping[str, str], covariates: Sequence[str] = ()
) -> None:
    """Check that a table has rows and every column asked for, once, each in one role.

    `columns` are the other columns by role (observation, site, ...).
    """
    came: object = frame
    if not isinstance(came, pd.DataFrame):
        raise TypeError(f"got {type(came).__name__}; wanted a pandas.DataFrame (a dataset goes to from_dataset)")
    roles_given: Mapping[str, object] = columns
    odd = [f"{role}={name!r}" for role, name in roles_given.items() if not isinstance(name, str)]
    if odd:
        raise TypeError(f"got {', '.join(odd)}; wanted the name of one column, as text")
    wanted = [*members, *columns.values(), *covariates]
    levels = [name for name in wanted if name not in frame.columns and name in frame.index.names]
    if levels:
        raise UnknownName(
            f"{listed(levels)} is in the index of the table ({len(frame)} rows), not a column: frame.reset_index()"
        )
    _check_long(frame, members)
    check_known(wanted, frame.columns, kind="column", where=f"the table ({len(frame)} rows)")
    roles: dict[str, list[str]] = {name: ["a member"] for name in members}
    for role, name in columns.items():
        roles.setdefault(name, []).append(f"the {role}")
    for name in covariates:
        roles.setdefault(name, []).append("a covariate")
    for name, given in roles.items():
        if len(given) > 1:
            raise ValueError(
                f"column {name!r} ({len(frame)} rows) is named both as {' and as '.join(given)}; a column has one "
                "role: leave it out of one, or copy it under another name"
            )
    twice = sorted({str(name) for name in frame.columns[frame.columns.duplicated()] if name in roles})
    if twice:
        raise ValueError(
            f"the table ({len(frame)} rows) has more than one column called {listed(twice)}; wanted one of each: "
            "rename or drop the others"
        )
    if len(frame) == 0:
        raise ValueError(f"the table has zero rows in columns {listed(wanted)}; wanted at least one row")


def _check_long(frame: pd.DataFrame, members: Sequence[str]) -> None:
    """Name the column that holds the members as values, which makes the table a long one."""
    lacking = [name for name in members if name not in frame.columns]
    if not lacking:
        return
    for name, column in frame.items():
        if (column.dtype == object or isinstance(column.dtype, (pd.StringDtype, pd.CategoricalDtype))) and set(
            lacking
        ) <= set(column.dropna().unique()):
            raise UnknownName(
                f"no column {listed(lacking)} in the table ({len(frame)} rows): they are values of its column {name!r}, so it "
                f"is a long table, one row a model and case; read it by Ensemble.from_long(frame, model={name!r}, value=...) "
                f"(--long {name}:VALUE)"
            )


# Across columns ------------------------------------------------------------------------------------------------------


def common_units(units: str | Mapping[str, str] | None, columns: Sequence[str], n_rows: int) -> str:
    """Return the one unit of all columns, ``""`` if none is known.

    One text speaks for all columns; columns that a mapping leaves out are taken to agree.

    Examples
    --------
    >>> common_units({"rf": "m3 m-3", "sm": "m3 m-3"}, ["rf", "mlr", "sm"], 10)
    'm3 m-3'
    """
    if units is None:
        return ""
    if isinstance(units, str):
        return units.strip()
    if not isinstance(units, Mapping):
        raise TypeError(f"units is {units!r}; wanted one string for all columns, or a mapping of column to unit")
    check_known(units, columns, kind="column", where=f"the members and the observation ({n_rows} rows)")
    by_unit: dict[str, list[str]] = {}
    for name in columns:
        unit = str(units.get(name) or "").strip()
        if unit:
            by_unit.setdefault(unit, []).append(name)
    if len(by_unit) > 1:
        found = "; ".join(f"{unit!r} in {listed(names)}" for unit, names in by_unit.items())
        raise ValueError(
            f"mixed units ({n_rows} rows): {found}; wanted one unit for all: convert the values, or, if these are one "
            "unit written in two ways, say which: units='...' (--units)"
        )
    return next(iter(by_unit), "")


def check_groups(
    site: NDArray[np.str_], group: NDArray[np.str_], columns: Mapping[str, str], n_rows: int | None = None
) -> None:
    """Refuse sites that belong to two groups, and warn of sites whose group is missing in some rows.

    ``""`` is missing. `n_rows` is for messages, where the labels are not those of every row.
    """
    pairs = pd.DataFrame({"site": site, "group": group}).drop_duplicates()
    pairs = pairs[pairs["site"] != ""]
    names = f"columns {columns['site']!r} and {columns['group']!r} ({len(site) if n_rows is None else n_rows} rows)"
    known = pairs[pairs["group"] != ""]
    split = known[known["site"].duplicated(keep=False)]
    if len(split):
        sites = list(split["site"].unique())
        shown = [f"{name!r} in {listed(sorted(split['group'][split['site'] == name]))}" for name in sites[:3]]
        rest = f" and {len(sites) - 3} more" if len(sites) > 3 else ""
        raise ValueError(
            f"{names}: {len(sites)} site(s) belong to more than one group: {'; '.join(shown)}{rest}; wanted each site "
            "in one group: correct the labels, or make site names unique, e.g. group + '/' + site"
        )
    partly = pairs["site"][pairs["site"].duplicated()]
    if len(partly):
        warn(f"{names}: {len(partly)} site(s) have a group in some rows and none in others: {listed(partly)}")


def warn_empty(n_empty: int, n_rows: int, members: Sequence[str]) -> None:
    """Warn, with the count, of rows without any member."""
    if n_empty:
        warn(
            f"all members ({listed(members)}) are missing in {n_empty} of {n_rows} rows; those rows are kept: "
            "mixtures such as BMA pass them over, HBM gives them its climatology"
        )


def warn_rows(
    prediction: NDArray[np.float64],
    site: NDArray[np.str_] | None,
    time: NDArray[Any] | None,
    members: Sequence[str],
    columns: Mapping[str, str],
) -> None:
    """Warn, with counts, of rows without any member and of rows that repeat a site and time."""
    n_rows = len(prediction)
    warn_empty(int(np.isnan(prediction).all(axis=1).sum()), n_rows, members)
    if site is None or time is None:
        return
    known = (site != "") & ~pd.isna(time)
    repeated = int(pd.DataFrame({"site": site[known], "time": time[known]}).duplicated().sum())
    if repeated:
        warn(
            f"columns {columns['site']!r} and {columns['time']!r}: {repeated} of {n_rows} rows repeat the site and "
            "time of an earlier row; they count as separate observations: drop or average them if they are not"
        )


def degenerate(member: str, rows: int, how: str) -> str:
    """Say that a member leaves no residual, so that nothing bounds its sigma from below.

    Examples
    --------
    >>> degenerate("rf", 20, "bias correction")
    "member 'rf' reproduces the observation exactly, up to a bias correction, in all 20 training rows that have it: ..."
    """
    return (
        f"member {member!r} reproduces the observation exactly, up to a {how}, in all {rows} training rows that have it: its "
        "residual variance is zero, and the truth has leaked into it; leave it out, or predict each row by a model that has "
        "not seen it (scikit-learn's cross_val_predict)"
    )
