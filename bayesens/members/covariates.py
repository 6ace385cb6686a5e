"""Covariates of the members, in training tables and in new ones: found, read, and without codes for missing values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble.checks import member_names
from bayesens.members.regions import Regions
from bayesens.messages import check_known, listed
from bayesens.tables.columns import labels, numbers, where_in
from bayesens.tables.missing_codes import OTHERS, Counts, Missing, check_codes, clear_codes

__all__ = [
    "check_membership",
    "check_new",
    "check_table",
    "given_covariates",
    "given_products",
    "row_mask",
    "taken",
    "without_codes",
]


def taken(X: pd.DataFrame, value: ArrayLike | str, role: str) -> pd.Series:
    """Return a column of X by its name, or values that were given beside X."""
    if isinstance(value, str):
        check_known([value], X.columns, kind="column", where=f"X ({len(X)} rows)")
        return X[value]
    if isinstance(value, pd.Series):
        if len(value) == len(X) and not value.index.equals(X.index):
            raise ValueError(
                f"{role} has other row labels than X ({len(X)} rows), or in another order; wanted the same: "
                f"{role}.reindex(X.index), or {role}.to_numpy() where the rows do correspond"
            )
        values: pd.Series = value
    else:
        array = np.asarray(value)
        if array.ndim != 1:
            raise ValueError(f"{role} has shape {array.shape}; wanted one value for each of the {len(X)} rows of X")
        values = pd.Series(array, name=role)
    if len(values) != len(X):
        raise ValueError(f"{role} has {len(values)} values and X {len(X)} rows; wanted as many")
    return values.set_axis(X.index)


def check_membership(membership: pd.DataFrame, X: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return soft memberships (obs, region) that are numbers from 0 to 1 and sum to one."""
    if len(membership) != len(X):
        raise ValueError(f"{name} has {len(membership)} rows and X {len(X)}; wanted as many")
    table = pd.DataFrame({str(column): numbers(membership[column]) for column in membership.columns}, index=X.index)
    values = table.to_numpy()
    bad = ~((values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < 1e-6))
    if bad.any():
        raise ValueError(
            f"{name} is no membership in {where_in(pd.Series(0, index=X.index), bad)}; wanted numbers of at least 0 "
            "that sum to one in every row: membership.div(membership.sum(axis=1), axis=0)"
        )
    return table


def row_mask(rows: ArrayLike, n_rows: int, name: str) -> NDArray[np.bool_]:
    """Return a mask of rows given as a mask or as positions."""
    index = np.asarray(rows)
    if index.dtype == bool:
        if index.shape != (n_rows,):
            raise ValueError(f"{name} has shape {index.shape}; wanted a mask of the {n_rows} rows")
        mask = index.copy()
    else:
        if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
            raise TypeError(f"{name} is {index.dtype} of shape {index.shape}; wanted a mask or positions of rows")
        if index.size and not (index.min() >= 0 and index.max() < n_rows):
            raise IndexError(f"{name} goes from {index.min()} to {index.max()}; wanted positions within {n_rows} rows")
        mask = np.zeros(n_rows, dtype=bool)
        mask[index.astype(np.int64)] = True
    if not mask.any():
        raise ValueError(f"{name} has no row; wanted at least one of {n_rows}")
    return mask


def check_new(
    X: pd.DataFrame,
    covariates: Iterable[str],
    products: Iterable[str],
    regions: Regions,
    places: Mapping[str, Any],
    missing: Missing = None,
) -> tuple[pd.DataFrame, dict[str, NDArray[np.float64]], dict[str, Any]]:
    """Check new rows; return their covariates in the order of the fit, the products, and what `Regions.weight` wants.

    `places` are the region, membership, lon and lat that `FittedMembers.predict` was given.
    """
    check_table(X, grid=True)
    X = X.set_axis([str(name) for name in X.columns], axis=1)
    check_known([*covariates, *products], X.columns, kind="column", where=f"X ({len(X)} rows)")
    inputs, product = ({name: numbers(X[name]) for name in names} for names in (covariates, products))
    without_codes({"covariate": inputs, "measured": product}, missing)
    table = pd.DataFrame(inputs, index=X.index)
    return table, product, _regions_of_new(X, regions, **places)


def _regions_of_new(
    X: pd.DataFrame,
    regions: Regions,
    *,
    region: ArrayLike | str | None,
    membership: pd.DataFrame | None,
    lon: ArrayLike | str | None,
    lat: ArrayLike | str | None,
) -> dict[str, Any]:
    """What `Regions.weight` wants to know of new rows."""
    if not regions.names:
        return {}
    if regions.length:
        if lon is None or lat is None:
            raise ValueError(
                "the fits of regions are blended by distance; wanted the places of the rows: lon=..., lat=..."
            )
        return {"lon": numbers(taken(X, lon, "lon")), "lat": numbers(taken(X, lat, "lat"))}
    if membership is not None:
        return {"membership": check_membership(membership, X, "membership")}
    if region is None:
        raise ValueError(
            f"the members have fits of {len(regions.names)} regions ({listed(regions.names)}); wanted region=... for the rows "
            "(a label that is not among them takes the fit to all regions)"
        )
    return {"label": labels(taken(X, region, "region"))}


def check_table(X: object, *, grid: bool = False) -> None:
    """Refuse what is no table, has no rows, or has two columns of one name."""
    if not isinstance(X, pd.DataFrame):
        raise TypeError(
            f"X is {type(X).__name__}; wanted a pandas.DataFrame with one column a covariate"
            f"{', or an xarray.Dataset with one variable a covariate' * grid}"
        )
    if len(X) == 0:
        raise ValueError("X has zero rows; wanted at least one")
    twice = X.columns[X.columns.duplicated()]
    if len(twice):
        raise ValueError(
            f"X ({len(X)} rows) has more than one column called {listed(twice)}; rename or drop the others"
        )


def given_products(X: pd.DataFrame, products: Iterable[str] | pd.DataFrame | None) -> dict[str, NDArray[np.float64]]:
    """Return members that need no training: columns of X by their names, or another table with the rows of X."""
    if products is None:
        return {}
    if isinstance(products, pd.DataFrame):
        return {str(name): numbers(taken(X, products[name], f"product {name!r}")) for name in products.columns}
    names = member_names(products)
    check_known(names, X.columns, kind="column", where=f"X ({len(X)} rows)")
    return {name: numbers(X[name]) for name in names}


def given_covariates(X: pd.DataFrame, *, needed: bool) -> dict[str, NDArray[np.float64]]:
    """Return all columns of X as numbers."""
    if needed and X.shape[1] == 0:
        raise ValueError(f"X ({len(X)} rows) has no column that is a covariate; wanted at least one")
    return {str(name): numbers(X[name]) for name in X.columns}


def without_codes(tables: Mapping[str, Mapping[str, NDArray[np.float64]]], missing: Missing) -> Counts:
    """Set codes that were named to NaN, in place, and refuse others; return their counts by column.

    `tables` has columns by kind ("covariate", "measured", "lon", "lat"); a column may be of two kinds.
    """
    named = {name for each in tables.values() for name in each}
    counts: Counts = {}
    if isinstance(missing, Mapping):
        check_known([name for name in missing if name != OTHERS], named, kind="column", where="X and y")
    for kind, each in tables.items():
        own = (
            {k: code for k, code in missing.items() if k in each or k == OTHERS}
            if isinstance(missing, Mapping)
            else missing
        )
        counts |= clear_codes(each, own)
        check_codes(each, dict.fromkeys(each, kind), own)
    return counts
