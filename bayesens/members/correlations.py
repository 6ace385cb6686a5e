"""How much covariates say of one another: correlations, pooled and within stations, and variance inflation factors."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble.collinear import ROUNDING
from bayesens.messages import listed
from bayesens.tables.columns import labels, numbers

__all__ = ["covariate_correlations", "inflation_factors"]

LEAST_ROWS = 3  # rows of a station below which its correlation is always 1, -1 or undefined
EXACT = 1e-10  # share of a covariate's variance that the others leave, below which they determine it


def covariate_correlations(
    X: pd.DataFrame, *, site: ArrayLike | str, products: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Pearson correlations of all pairs of covariates, over the rows that have both.

    Correlation within stations is that of variation in time; the pooled one mixes it with differences between
    stations, and `between` is that of station means.

    Parameters
    ----------
    X : pandas.DataFrame (obs, covariate)
        Numbers, NaN where missing.
    site : array_like (obs) or str
        Stations, or their column in `X`, which then is no covariate.
    products : pandas.DataFrame (obs, product), optional
        Further columns to correlate with, such as other soil moisture products.

    Returns
    -------
    pandas.DataFrame (pair)
        ``first``, ``second``; ``n`` rows that have both; ``pooled``; ``within``: the mean over stations of each
        station's own correlation, ``within_sd`` its standard deviation over stations and ``stations`` their number
        (those with 3 rows at least in which both vary); ``between``: of station means over the rows that have both, from 3
        stations on. NaN where one of the two does not vary.

    Raises
    ------
    TypeError, ValueError
        Columns that are not numbers or of another length, names that come twice, rows without a station.

    Examples
    --------
    >>> X = pd.DataFrame({"rain": [0.0, 1, 2, 10, 11, 12], "heat": [2.0, 1, 0, 12, 11, 10]})
    >>> covariate_correlations(X, site=list("aaabbb")).round(2).T[0]
    first        rain
    second       heat
    n               6
    pooled       0.95
    within       -1.0
    within_sd     0.0
    stations        2
    between       NaN
    Name: 0, dtype: object
    """
    table, station = _door(X, site, products)
    names, values = list(table), table.to_numpy()
    codes = pd.factorize(station, sort=True)[0]
    # One pandas pass a station: its correlations are pairwise complete, and numerically safe for offsets such as 300 K.
    own = np.stack([_nan_safe(part, LEAST_ROWS) for _, part in table.groupby(codes, sort=True)])
    pooled = _nan_safe(table, 2)
    rows = []
    for i, j in combinations(range(len(names)), 2):
        both = np.isfinite(values[:, i]) & np.isfinite(values[:, j])
        each = own[:, i, j][np.isfinite(own[:, i, j])]
        rows.append({
            "first": names[i], "second": names[j], "n": int(both.sum()), "pooled": pooled[i, j],
            "within": each.mean() if len(each) else np.nan,
            "within_sd": each.std(ddof=1) if len(each) > 1 else np.nan,
            "stations": len(each), "between": _between(values[both][:, [i, j]], codes[both]),
        })  # fmt: skip
    columns = ["first", "second", "n", "pooled", "within", "within_sd", "stations", "between"]
    return pd.DataFrame(rows, columns=columns)


def inflation_factors(X: pd.DataFrame) -> pd.Series:
    """Variance inflation factors: how much of each covariate the others determine linearly.

    ``1 / (1 - R^2)`` of the regression of one covariate on all others with an intercept, over the rows that have all
    of them. One that is a linear combination of others, to ten digits, has an infinite factor.

    Parameters
    ----------
    X : pandas.DataFrame (obs, covariate)
        Numbers, NaN where missing.

    Returns
    -------
    pandas.Series (covariate)
        1 for a covariate that no other tells of; NaN for one that does not vary. ``attrs["n"]`` is the number of rows.

    Raises
    ------
    TypeError, ValueError
        Columns that are not numbers, or no more complete rows than covariates.

    References
    ----------
    Belsley, Kuh & Welsch (1980), Regression Diagnostics, Wiley.

    Examples
    --------
    >>> inflation_factors(pd.DataFrame({"rain": [0.0, 1, 0, 1], "heat": [0.0, 0, 1, 1]})).tolist()
    [1.0, 1.0]
    >>> inflation_factors(pd.DataFrame({"rain": [0.0, 1, 2], "wet": [3.0, 5, 7]})).tolist()
    [inf, inf]
    """
    table = _numeric(X)
    values = table.to_numpy()
    values = values[np.isfinite(values).all(axis=1)]
    n_rows, n_columns = values.shape
    if n_rows <= n_columns:
        raise ValueError(
            f"{n_rows} of {len(X)} rows have all {n_columns} covariates; wanted more rows than covariates: leave out those "
            f"that are missing most ({listed(table.isna().mean().sort_values(ascending=False, kind='stable').index[:3])})"
        )
    spread = values.std(axis=0)
    flat = spread <= ROUNDING * np.abs(values).max(axis=0)
    found = np.full(n_columns, np.nan)
    found[~flat] = _inflation((values[:, ~flat] - values[:, ~flat].mean(axis=0)) / spread[~flat] / np.sqrt(n_rows))
    result = pd.Series(found, index=list(table), name="inflation_factor")
    result.attrs["n"] = n_rows
    return result


def _inflation(unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of centred columns of length one: the squared length of what the others leave, inverted."""
    # The triangular factor has the columns' lengths and angles, in as many rows as there are columns.
    small = np.linalg.qr(unit, mode="r")
    left = np.empty(small.shape[1])
    for k in range(len(left)):
        others = np.delete(small, k, axis=1)
        rest = small[:, k] - others @ np.linalg.lstsq(others, small[:, k], rcond=None)[0]
        left[k] = rest @ rest
    return np.divide(1.0, left, out=np.full(len(left), np.inf), where=left > EXACT)


def _door(X: pd.DataFrame, site: ArrayLike | str, products: pd.DataFrame | None) -> tuple[pd.DataFrame, NDArray]:
    if isinstance(site, str):
        if site not in X.columns:
            raise ValueError(f"site is {site!r}, which is no column of X ({len(X)} rows); it has {listed(X.columns)}")
        X, station = X.drop(columns=site), labels(X[site])
    else:
        station = labels(pd.Series(np.asarray(site), name="site"))
    if len(station) != len(X):
        raise ValueError(f"site has {len(station)} values and X {len(X)} rows; wanted as many")
    if missing := int((station == "").sum()):
        raise ValueError(f"{missing} of {len(X)} rows have no station; drop them, or label them")
    table = _numeric(X)
    if products is not None:
        if not products.index.equals(X.index):
            raise ValueError(
                f"products ({len(products)} rows) have other row labels than X ({len(X)} rows); wanted the same: "
                "products.reindex(X.index)"
            )
        table = _once(pd.concat([table, _numeric(products)], axis=1))
    if table.shape[1] < 2:
        raise ValueError(f"there is {table.shape[1]} column to correlate; wanted two at least")
    return table.reset_index(drop=True), station


def _numeric(X: pd.DataFrame) -> pd.DataFrame:
    if not isinstance(X, pd.DataFrame):
        raise TypeError(f"got {type(X).__name__}; wanted a pandas.DataFrame with one column a covariate")
    _once(X)
    if X.empty:
        raise ValueError(f"the table has {len(X)} rows and {X.shape[1]} columns; wanted one of each at least")
    return pd.DataFrame({str(name): numbers(X[name]) for name in X.columns}, index=X.index)


def _once(table: pd.DataFrame) -> pd.DataFrame:
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise ValueError(f"there is more than one column called {listed(twice)}; rename or drop the others")
    return table


def _nan_safe(table: pd.DataFrame, least: int) -> NDArray[np.float64]:
    """Correlations; NaN also for a column that varies by rounding alone."""
    spread, size = table.std(ddof=0).to_numpy(), table.abs().max().to_numpy()
    found = table.corr(min_periods=least).to_numpy(copy=True)
    flat = ~(spread > ROUNDING * size)
    found[flat], found[:, flat] = np.nan, np.nan
    return found


def _between(pair: NDArray[np.float64], codes: NDArray[np.intp]) -> float:
    """Correlation of the station means of two columns without gaps."""
    means = pd.DataFrame(pair).groupby(codes).mean()
    return float(_nan_safe(means, LEAST_ROWS)[0, 1]) if len(means) > 1 else np.nan
