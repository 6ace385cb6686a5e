"""The door of the members: covariates, observations, stations and regions of a training table, checked once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble.checks import check_groups, covariate_names, member_names
from bayesens.members.covariates import (
    check_membership,
    check_table,
    given_covariates,
    given_products,
    taken,
    without_codes,
)
from bayesens.messages import check_known, listed, warn
from bayesens.tables.columns import labels, numbers, times, where_in
from bayesens.tables.missing_codes import Missing

__all__ = ["TrainingTable", "check_blend", "check_estimators", "check_kept", "check_names", "check_rows"]

ROLES = ("site", "group", "time", "lon", "lat")
SAME_PLACE = 1e-4  # degrees, about 10 m: what rounding does to the coordinates of one station


@dataclass(frozen=True, eq=False)
class TrainingTable:
    """The checked columns of a training table.

    Attributes
    ----------
    X : pandas.DataFrame (obs, covariate), float64
    y : numpy.ndarray (obs)
        NaN where there is no observation.
    site, group, time, lon, lat, region : numpy.ndarray (obs), or None where not given
        Without stations every row is one: `site` then numbers the rows, and `columns` has none.
    membership : pandas.DataFrame (obs, region) or None
    products : dict of str to numpy.ndarray (obs)
    columns : dict of role to the user's own name
    units : str
    order : numpy.ndarray (obs), int
        Positions sorted by station, time and contents: fits in this order do not depend on the order of the table.
    bare : numpy.ndarray (obs), bool
        Rows without any covariate.
    covariate_units : dict of covariate to str
        Those that the table told of itself, in ``X.attrs["units"]``.
    """

    X: pd.DataFrame
    y: NDArray[np.float64]
    site: NDArray[np.str_]
    group: NDArray[np.str_] | None
    time: NDArray[Any] | None
    lon: NDArray[np.float64] | None
    lat: NDArray[np.float64] | None
    region: NDArray[np.str_] | None
    membership: pd.DataFrame | None
    products: dict[str, NDArray[np.float64]]
    columns: dict[str, str]
    units: str
    order: NDArray[np.int64]
    bare: NDArray[np.bool_]
    covariate_units: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.y)

    def where(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return what `Regions.weight` wants to know of some rows."""
        parts = {"label": self.region, "lon": self.lon, "lat": self.lat}
        found = {name: None if values is None else values[rows] for name, values in parts.items()}
        return found | {"membership": None if self.membership is None else self.membership.iloc[rows]}

    def labelled(self, rows: NDArray[np.int64], members: Iterable[str]) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Return observation, labels and places of some rows, and the column of each role, clear of member names."""
        values = {"observation": self.y} | {role: getattr(self, role) for role in ROLES}
        taken, roles, table = set(members), {}, {}
        for role, column in values.items():
            if column is not None and role in self.columns:
                name = next(name for name in (self.columns[role], role, f"{role}_") if name not in taken)
                taken.add(name)
                roles[role], table[name] = name, column[rows]
        return pd.DataFrame(table), roles


def check_estimators(estimators: Mapping[str, Any]) -> dict[str, Any]:
    """Return the estimators as a dict, refusing what cannot be fitted and predicted."""
    if not isinstance(estimators, Mapping):
        raise TypeError(
            f"estimators is {type(estimators).__name__}; wanted a mapping of name to regressor: {{'rf': ...}}"
        )
    for name, estimator in estimators.items():
        if isinstance(estimator, type) or not all(
            hasattr(estimator, part) for part in ("fit", "predict", "get_params")
        ):
            shown = f"the class {estimator.__name__}" if isinstance(estimator, type) else type(estimator).__name__
            hint = (
                f"{estimator.__name__}()"
                if isinstance(estimator, type)
                else "an object with fit, predict and get_params"
            )
            raise TypeError(f"member {name!r} is {shown}; wanted a scikit-learn regressor: {hint}")
    return dict(estimators)


def check_kept(keep: Iterable[str], rows: TrainingTable, members: Iterable[str]) -> tuple[str, ...]:
    """Return the covariates that ensembles keep, refusing what the members do not learn from and names of members."""
    names = covariate_names(keep, "keep")
    where = f"the covariates of the members ({len(rows)} rows)"
    check_known(names, rows.X.columns, kind="column", where=where)
    if both := sorted(set(names) & set(members)):
        raise ValueError(
            f"keep names {listed(both)}, and members have that name; wanted different names: rename the members"
        )
    return tuple(names)


def check_names(names: list[str]) -> list[str]:
    """Return names of members and products, each of them once."""
    if not names:
        raise ValueError("there are no estimators and no products; wanted at least one member")
    return member_names(names)


def check_blend(blend: float, rows: TrainingTable) -> None:
    """Refuse a blending length without regions by label or without places."""
    labelled = rows.region is not None and rows.membership is None
    if not (blend > 0 and labelled and rows.lon is not None and rows.lat is not None):
        raise ValueError(f"blend is {blend!r}; wanted a length in km above zero, with by=labels, lon=... and lat=...")
    if not (np.isfinite(rows.lon) & np.isfinite(rows.lat)).all():
        raise ValueError(
            f"blend={blend!r} needs lon and lat in all {len(rows)} rows; complete them, or leave blend out"
        )


def check_rows(
    X: pd.DataFrame,
    y: ArrayLike | str,
    roles: Mapping[str, ArrayLike | str | None],
    *,
    by: ArrayLike | str | pd.DataFrame | None,
    products: Iterable[str] | pd.DataFrame | None,
    units: str,
    missing: Missing = None,
    time_format: str | None = None,
) -> TrainingTable:
    """Check a training table and take it apart; the arguments are those of `Members`.

    Examples
    --------
    >>> X = pd.DataFrame({"rain": [0.0, 1.0], "station": ["a", "b"]})
    >>> rows = check_rows(X, [0.1, 0.2], {"site": "station"}, by=None, products=None, units="")
    >>> list(rows.X), rows.site.tolist()
    (['rain'], ['a', 'b'])
    """
    check_table(X)
    soft = by if isinstance(by, pd.DataFrame) else None
    wanted = {"observation": y, **roles, "by": None if soft is not None else by}
    said = {"observation": "y"}
    found = {role: taken(X, value, said.get(role, role)) for role, value in wanted.items() if value is not None}
    product = given_products(X, products)
    used = {value for value in wanted.values() if isinstance(value, str)} | (
        {*product} if not isinstance(products, pd.DataFrame) else set()
    )
    inputs = given_covariates(X.drop(columns=[name for name in X.columns if name in used]), needed=products is None)
    observed = numbers(found["observation"])
    labelled = {role: labels(found[role]) if role in found else None for role in ("site", "group", "by")}
    place = {role: numbers(found[role]) if role in found else None for role in ("lon", "lat")}
    time = times(found["time"], time_format) if "time" in found else None
    columns = {role: _name(found[role], role) for role in found}
    coordinates = {role: {columns[role]: values} for role, values in place.items() if values is not None}
    without_codes(
        {"covariate": inputs, "measured": {columns["observation"]: observed} | product, **coordinates}, missing
    )
    table = pd.DataFrame(
        np.column_stack(list(inputs.values())) if inputs else np.empty((len(X), 0)), columns=list(inputs)
    )
    # Without stations every row is one of its own, so that folds of stations are folds of rows.
    sited, site = labelled["site"], np.arange(len(X)).astype(np.str_)
    site, region = site if sited is None else sited, labelled["by"]
    membership = None if soft is None else check_membership(soft, X, "by")
    if membership is not None:
        region = membership.columns.to_numpy(dtype=np.str_)[membership.to_numpy().argmax(axis=1)]
    _check_observed(observed, columns["observation"])
    if sited is not None:
        _check_sites(found["site"], site, labelled["group"], time, place, columns)
    _check_covariates(table, np.isfinite(observed), region if region is not None else labelled["group"],
                      "region" if region is not None else "group")  # fmt: skip
    order = _order(np.zeros(len(X)) if sited is None else site, time, observed, table)
    bare = table.isna().to_numpy().all(axis=1) & bool(inputs)  # nothing is lacking where nothing is learnt
    return TrainingTable(table, observed, site, labelled["group"], time, place["lon"], place["lat"], region, membership, product,
                columns, units, order, bare, _told_units(X, inputs))  # fmt: skip


def _told_units(X: pd.DataFrame, covariates: Iterable[str]) -> dict[str, str]:
    """Units of covariates, as a table read from a file with units has them."""
    told = X.attrs.get("units")
    given = {str(name): str(unit) for name, unit in told.items()} if isinstance(told, Mapping) else {}
    return {name: given[name] for name in covariates if given.get(name)}


# Parts ---------------------------------------------------------------------------------------------------------------


def _name(column: pd.Series, role: str) -> str:
    return column.name if isinstance(column.name, str) else role


def _check_observed(y: NDArray[np.float64], name: str) -> None:
    if not np.isfinite(y).any():
        raise ValueError(f"{name!r} is missing in all {len(y)} rows; wanted observations to learn from")


def _check_sites(
    given: pd.Series,
    site: NDArray[np.str_],
    group: NDArray[np.str_] | None,
    time: NDArray[Any] | None,
    place: Mapping[str, NDArray[np.float64] | None],
    columns: Mapping[str, str],
) -> None:
    without = site == ""
    if without.any():
        raise ValueError(
            f"column {columns['site']!r} is missing in {where_in(given, without)}; wanted a station in every row"
        )
    if group is not None:
        check_groups(site, group, columns)
    for role, values in place.items():
        if values is not None:
            by_site = pd.Series(values).groupby(site)
            spread = by_site.max() - by_site.min()
            moved = spread.index[spread > SAME_PLACE]
            if len(moved):
                both = sorted(set(values[(site == moved[0]) & np.isfinite(values)]))
                raise ValueError(
                    f"{len(moved)} station(s) stand in two places: {listed(moved)} ({columns[role]!r} of {moved[0]!r} is "
                    f"{listed(both, 3)}); wanted one place each: correct them, or give two stations two names"
                )
    if time is not None:
        repeated = pd.DataFrame({"site": site, "time": time}).duplicated().to_numpy() & ~pd.isna(time)
        if repeated.any():
            raise ValueError(
                f"columns {columns['site']!r} and {columns['time']!r}: {where_in(given, repeated)} repeat the station and time "
                f"of an earlier row (station {str(site[repeated][0])!r}); wanted one row each: drop or average them"
            )


def _check_covariates(X: pd.DataFrame, observed: NDArray[np.bool_], region: NDArray[np.str_] | None, kind: str) -> None:
    seen = X[observed]
    empty = [name for name in X.columns if seen[name].isna().all()]
    if empty:
        raise ValueError(
            f"covariate(s) {listed(empty)} are missing in all {len(seen)} rows with an observation; leave them out"
        )
    constant = [name for name in X.columns if seen[name].min() == seen[name].max()]
    if constant:
        warn(f"covariate(s) {listed(constant)} are constant in the {len(seen)} rows with an observation; nothing can be learnt "
             "from them: leave them out")  # fmt: skip
    if region is None or X.shape[1] == 0:
        return
    known = seen.notna().groupby(region[observed]).any()
    known = known[known.index != ""]
    holes = [f"{name!r} in {listed(known.index[~known[name]])}" for name in X.columns if not known[name].all()]
    if holes:
        warn(f"covariates are missing throughout whole {kind}s: {'; '.join(holes[:5])}"
             f"{f' and {len(holes) - 5} more' if len(holes) > 5 else ''}; members there rest on filled-in values: leave the "
             "covariate out, or complete it")  # fmt: skip


def _order(site: NDArray[Any], time: NDArray[Any] | None, y: NDArray[Any], X: pd.DataFrame) -> NDArray[np.int64]:
    """Rows by station, time and contents; rows that tie in all of it are the same row."""
    keys = [site, *([] if time is None else [time]), y, *(X[name].to_numpy() for name in X.columns)]
    return np.lexsort(keys[::-1]).astype(np.int64)
