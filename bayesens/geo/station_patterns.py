"""What stations say of a map's patterns: whether residuals still cluster in space, and how much of the variance it has.

The variance ratio is that of predicted over observed anomalies. Rows are split exactly: the squared deviations from the
mean over all rows are those from the station's mean (temporal) plus those of the stations' means (spatial), each station
counting with its rows.

A ratio below 1 is no fault by itself. The mean of a perfectly calibrated prediction has the share of the variance that it
explains, ``Var(E[y | f]) / Var(y)``, and noise of the observations adds to the denominator: draws from the predictive
distribution of the observations are what should come near 1.

References
----------
Cliff & Ord (1981), Spatial Processes: Moran's I of residuals and its moments.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.bootstrap import interval, pigeonhole
from bayesens.ensemble.sphere import check_places, on_sphere
from bayesens.geo.spatial import moran_moments
from bayesens.messages import warn

__all__ = ["station_morans_i", "variance_ratio"]

Array = NDArray[np.float64]
PARTS = ("total", "temporal", "spatial")
AT_ONCE = 4_000_000  # numbers in one batch of permutations


def station_morans_i(
    residual: ArrayLike,
    *,
    lon: ArrayLike,
    lat: ArrayLike,
    k: int = 5,
    permutations: int = 999,
    random_seed: int | None = None,
) -> xr.Dataset:
    """Moran's I of one value a station, with the k nearest stations as neighbours, to see whether spatial structure is left.

    Take one residual a station, such as its mean (``residual.groupby(site).mean()``): rows of one station are not
    independent, and the permutations would take them for that.

    Parameters
    ----------
    residual : array (station)
        Stations with NaN are left out.
    lon, lat : array (station)
        Degrees.
    k : int
        Neighbours of each station, by great-circle distance. Of several at the same distance any may be taken.
    permutations : int
        For the p value; 0 for none.
    random_seed : int, optional
        The same seed gives the same p value.

    Returns
    -------
    Dataset
        Numbers: ``i``; ``expected``, ``var_normal``, ``var_random``; ``p_value``, the share of permutations, this one
        included, whose I is as great (NaN without permutations): small where near stations err alike; ``stations``.

    Raises
    ------
    ValueError
        For shapes that do not fit, infinite values, coordinates out of range, no more than k stations, or equal residuals.

    Notes
    -----
    Permuting assumes that residuals could be swapped between stations; those of a model fitted to these very stations are
    a little too smooth for that, so take residuals of stations held out.

    Examples
    --------
    Two pairs of stations far from each other, alike within the pairs; one of three ways to pair them is as alike, so p is
    near 1/3:

    >>> found = station_morans_i([1.0, 1.0, -1.0, -1.0], lon=[0, 1, 50, 51], lat=[0, 0, 0, 0], k=1, random_seed=1)
    >>> found["i"].item(), round(found["p_value"].item(), 1)
    (1.0, 0.3)
    """
    values = np.asarray(residual, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"residual has shape {values.shape}; wanted one number a station: take the mean of its rows")
    if np.isinf(values).any():
        raise ValueError("residual holds infinite values; wanted finite numbers, NaN where there is none")
    lon, lat = check_places(lon, lat, len(values))
    if permutations < 0 or int(permutations) != permutations:
        raise ValueError(f"permutations is {permutations!r}; wanted a whole number, 0 for none")
    has = ~np.isnan(values)
    z, n = values[has], int(has.sum())
    if k < 1 or int(k) != k or n <= k:
        raise ValueError(
            f"k is {k!r} for {n} stations with values; wanted a whole number of at least 1, and more stations"
        )
    if z.min() == z.max():
        raise ValueError(f"all {n} residuals are {z[0]:g}; without differences Moran's I is undefined")
    z = z - z.mean()
    near = _nearest(on_sphere(lon[has], lat[has]), int(k))
    square = z @ z
    i = _lagged(z[None], near)[0] / (k * square)  # n / W is 1 / k
    mutual = sum(int((near[near[:, j]] == np.arange(n)[:, None]).sum()) for j in range(int(k)))
    taken = k + np.bincount(near.ravel(), minlength=n)
    s1 = float(n * k + mutual)  # 1 for each weight, and 1 more where it goes both ways
    moments = moran_moments(n, float(n * k), s1, float(taken @ taken), float(n * (z**4).sum() / square**2))
    p_value = _p_value(z, near, i * k * square, int(permutations), random_seed)
    names = ("i", "expected", "var_normal", "var_random", "p_value")
    numbers = dict(zip(names, (i, *moments, p_value), strict=True))
    attrs = {"neighbours": int(k), "permutations": int(permutations)}
    return xr.Dataset({name: float(value) for name, value in numbers.items()} | {"stations": n}, attrs=attrs)


def _nearest(points: Array, k: int) -> NDArray[np.intp]:
    """Numbers of the nearest other points, (point, k)."""
    from scipy.spatial import cKDTree

    _, found = cKDTree(points).query(points, k=k + 1)
    self = found == np.arange(len(points))[:, None]
    # Among more than k others in one place a point may not find itself: then the last one found is left out.
    self[~self.any(axis=1), -1] = True
    return np.asarray(found[~self].reshape(len(points), k), dtype=np.intp)


def _lagged(z: Array, near: NDArray[np.intp]) -> Array:
    """Sum over stations of the value times the neighbours' sum, for each row of z (row, station)."""
    lag = sum(z[:, near[:, j]] for j in range(near.shape[1]))
    return np.asarray((z * lag).sum(axis=1))


def _p_value(z: Array, near: NDArray[np.intp], observed: float, permutations: int, random_seed: int | None) -> float:
    if permutations == 0:
        return np.nan
    rng = np.random.default_rng(random_seed)
    batch = max(1, AT_ONCE // len(z))
    least = observed - 1e-12 * near.shape[1] * (z @ z)  # rounding must not break ties
    as_great, left = 0, permutations
    while left:
        size = min(batch, left)
        as_great += int((_lagged(rng.permuted(np.tile(z, (size, 1)), axis=1), near) >= least).sum())
        left -= size
    return (1.0 + as_great) / (1.0 + permutations)


def variance_ratio(
    predicted: ArrayLike,
    observed: ArrayLike,
    *,
    site: ArrayLike,
    level: float = 0.9,
    replicates: int = 1000,
    random_seed: int | None = None,
) -> xr.Dataset:
    """Variance of predicted over observed anomalies at stations, in all, through time and between stations.

    Parameters
    ----------
    predicted, observed : array (obs)
        A map's or a product's values at the stations, and what they observed. Rows that lack either are left out.
    site : array (obs)
        The station of every row.
    level : float
        Of the interval.
    replicates : int
        Bootstrap replicates of the stations; 0 for none.
    random_seed : int, optional
        The same seed gives the same interval.

    Returns
    -------
    Dataset (part)
        For ``part`` total, temporal and spatial: ``ratio``; ``low``, ``high``, NaN where more than 5 % of the replicates
        have no ratio, as with very few stations; ``predicted_variance`` and ``observed_variance``, in squared units of
        ``observed``, of which temporal and spatial add up to the total.

    Raises
    ------
    ValueError
        For shapes that do not fit, infinite values, missing stations, fewer than two stations with both values, or equal
        observations.

    Warns
    -----
    UserWarning
        Where the observations have no variance in one part, whose ratio is then NaN: one row a station, or stations with
        equal means.

    Notes
    -----
    The mean of few rows still varies through time, and that counts as spatial. The stations' bootstrap is a little short for
    few stations: simulated 90 % intervals covered 81 to 85 % with 10, 84 to 89 % with 20, and 86 to 92 % with 40 or more.

    Examples
    --------
    Half of the anomalies through time, all of the difference between the stations:

    >>> found = variance_ratio([9.5, 10.5, 19.5, 20.5], [9.0, 11.0, 19.0, 21.0], site=["a", "a", "b", "b"], random_seed=1)
    >>> found["ratio"].sel(part=["temporal", "spatial"]).values.tolist()
    [0.25, 1.0]
    >>> found["observed_variance"].values.tolist()  # 26 = 1 + 25
    [26.0, 1.0, 25.0]
    """
    both, codes = _common_rows(predicted, observed, site)
    stations = int(codes.max()) + 1
    center = both.mean(axis=1, keepdims=True)
    if both[1].min() == both[1].max():
        raise ValueError(f"all {both.shape[1]} observations are {both[1, 0]:g}; without variance there is no ratio")
    both = both - center  # variances as differences of sums of squares then lose nothing
    rows = np.bincount(codes).astype(np.float64)
    sums = np.stack([np.bincount(codes, weights=x) for x in both])
    means = sums / rows
    within = np.stack([np.bincount(codes, weights=(x - m[codes]) ** 2) for x, m in zip(both, means, strict=True)])
    drawn = pigeonhole(
        np.arange(stations), np.zeros(stations, dtype=np.intp), replicates=replicates, random_seed=random_seed
    )
    count = drawn.station
    n = rows @ count
    temporal = within @ count / n
    spatial = np.maximum(
        (rows * means**2) @ count / n - (sums @ count / n) ** 2, 0.0
    )  # about each replicate's own mean
    variance = np.stack([temporal + spatial, temporal, spatial], axis=1)  # (predicted and observed, part, replicate)
    noise = 1e-24 * (center**2 + both.var(axis=1, keepdims=True))  # of the rounding of equal values
    variance[variance < noise[..., None]] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(variance[1] > 0.0, variance[0] / variance[1], np.nan)
    missing = [part for part, value in zip(PARTS, ratio[:, 0], strict=True) if np.isnan(value)]
    if missing:
        warn(f"the observations have no {' and no '.join(missing)} variance ({both.shape[1]} rows of {stations} stations), so "
             "its ratio is NaN; that part needs more rows a station, or stations that differ")  # fmt: skip
    low, high = interval(ratio[:, 1:], level) if replicates else np.full((2, len(PARTS)), np.nan)
    data = {"ratio": ratio[:, 0], "low": low, "high": high,
            "predicted_variance": variance[0, :, 0], "observed_variance": variance[1, :, 0]}  # fmt: skip
    attrs = {"stations": stations, "rows": both.shape[1], "level": level, "replicates": replicates}
    return xr.Dataset({name: ("part", value) for name, value in data.items()}, {"part": list(PARTS)}, attrs)


def _common_rows(predicted: ArrayLike, observed: ArrayLike, site: ArrayLike) -> tuple[Array, NDArray[np.intp]]:
    """Both values, (2, obs), and the number of the station of the rows that have both."""
    x, y, label = np.asarray(predicted, dtype=np.float64), np.asarray(observed, dtype=np.float64), np.asarray(site)
    if not x.ndim == y.ndim == label.ndim == 1 or not len(x) == len(y) == len(label):
        raise ValueError(f"predicted, observed and site have shapes {x.shape}, {y.shape} and {label.shape}; wanted one value "
                         "a row in each")  # fmt: skip
    if np.isinf(x).any() or np.isinf(y).any():
        raise ValueError("predicted or observed holds infinite values; wanted finite numbers, NaN where there is none")
    has = ~np.isnan(x) & ~np.isnan(y)
    codes, labels = pd.factorize(label[has])
    if (codes < 0).any():
        raise ValueError(f"{int((codes < 0).sum())} rows with both values have no station; name it, or drop them")
    if len(labels) < 2:
        raise ValueError(f"{int(has.sum())} of {len(has)} rows have both values, of {len(labels)} station(s); wanted two "
                         "stations at least")  # fmt: skip
    return np.stack([x[has], y[has]]), codes
