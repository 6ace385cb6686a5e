"""How unlike values are with their distance: empirical semivariograms of maps and of stations.

The semivariance at a distance h is half the mean squared difference of the pairs that lie h apart, or, less moved by
outliers, Cressie and Hawkins's ``(mean |d|^(1/2))^4 / (2 (0.457 + 0.494 / N))`` for N pairs.

References
----------
Cressie & Hawkins (1980), Math. Geol. 12, 115. Cressie (1993), Statistics for Spatial Data, section 2.4.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble.sphere import check_places, great_circle
from bayesens.geo.maps import as_map, over_maps

__all__ = ["grid_variogram", "station_variogram"]

Array = NDArray[np.float64]
MOST_LAGS = 50


def _semivariance(total: Array, pairs: Array, robust: bool) -> Array:
    """From the sum of squared differences, or of the roots of absolute ones; NaN where there are no pairs."""
    count = np.where(pairs > 0, pairs, np.nan)
    mean = total / count
    return 0.5 * mean**4 / (0.457 + 0.494 / count) if robust else 0.5 * mean


def grid_variogram(
    field: ArrayLike | xr.DataArray,
    *,
    max_lag: int | None = None,
    dims: tuple[str, str] | None = None,
    robust: bool = False,
    progressbar: bool = True,
) -> xr.Dataset:
    """Semivariogram of a map along its rows and along its columns.

    Parameters
    ----------
    field : array (y, x) or DataArray (..., y, x)
        NaN where there is no value; in numpy or dask arrays. Each map of further dimensions has a variogram of its own.
    max_lag : int, optional
        Largest lag, in cells; half of the shorter side, 50 at most, if not given.
    dims : (str, str), optional
        The grid's dimensions, if they are not (y, x), (lat, lon) or (latitude, longitude).
    robust : bool
        Take Cressie and Hawkins's estimator.
    progressbar : bool
        Show one, if there are many maps.

    Returns
    -------
    Dataset (..., direction, lag)
        ``semivariance``, in squared units of the field, NaN at lags without pairs, and ``pairs``. ``direction`` names the
        dimension along which the pairs lie; ``lag`` counts cells.

    Raises
    ------
    TypeError, ValueError
        For a field that is no map or is infinite, a lag that does not fit in, or if no map has a pair.

    Examples
    --------
    A slope of 1 a column: half of 1, half of 4, and nothing along columns' length.

    >>> found = grid_variogram([[0.0, 1, 2], [0, 1, 2], [0, 1, 2]], max_lag=2)
    >>> found["semivariance"].sel(direction="x").values.tolist(), found["semivariance"].sel(direction="y").values.tolist()
    ([0.5, 2.0], [0.0, 0.0])
    >>> found["pairs"].sel(direction="x").values.tolist()
    [6, 3]
    """
    field = as_map(field, dims)
    rows, columns = field.shape[-2:]
    if max_lag is None:
        max_lag = max(1, min(MOST_LAGS, min(rows, columns) // 2))
    if int(max_lag) != max_lag or not 1 <= max_lag < max(rows, columns):
        raise ValueError(f"max_lag is {max_lag!r} for a map of {rows} x {columns} cells; wanted a whole number from 1 to "
                         f"{max(rows, columns) - 1}")  # fmt: skip

    def kernel(x: Array) -> Array:
        from bayesens.geo.grid_loops import lag_sums

        if np.isinf(x).any():
            raise ValueError("the map holds infinite values; wanted finite numbers, NaN where there is none")
        out = np.zeros((2, int(max_lag), 2))
        lag_sums(x, robust, out)
        return out

    sums = over_maps(
        kernel, field, core=("direction", "lag", "part"), sizes=(2, int(max_lag), 2), progressbar=progressbar
    )
    total, pairs = sums.isel(part=0), sums.isel(part=1)
    if not (pairs > 0).any():
        raise ValueError(f"no two values of the map lie within {max_lag} cells of each other along a row or a column; "
                         "give a map with neighbouring cells, or a greater max_lag")  # fmt: skip
    semivariance = pairs.copy(data=_semivariance(total.values, pairs.values, robust))
    coords = {"direction": [str(dim) for dim in field.dims[-2:]], "lag": np.arange(1, int(max_lag) + 1)}
    found = xr.Dataset({"semivariance": semivariance, "pairs": pairs.astype(np.int64)}).assign_coords(coords)
    found["lag"].attrs["units"] = "cells"
    return found.assign_attrs(estimator="Cressie-Hawkins" if robust else "classical")


def station_variogram(
    values: ArrayLike | xr.DataArray,
    *,
    lon: ArrayLike,
    lat: ArrayLike,
    bins: int | ArrayLike = 10,
    robust: bool = False,
) -> xr.Dataset:
    """Semivariogram of stations by great-circle distance.

    Parameters
    ----------
    values : array (station) or (time, station)
        NaN where there is no value. With times, pairs are made at the same time and pooled: give residuals or anomalies,
        unless differences between the stations' means are to count.
    lon, lat : array (station)
        Degrees.
    bins : int or array (edge)
        Edges of the bins [km], increasing; a bin holds its lower edge, the last one both. A number makes so many of equal
        width up to half of the greatest distance, beyond which few pairs, of few stations, are left.
    robust : bool
        Take Cressie and Hawkins's estimator.

    Returns
    -------
    Dataset (bin)
        ``semivariance``, in squared units of the values, NaN in bins without pairs; ``pairs``; ``distance``, the mean of
        the pairs [km]; with coordinates ``lower`` and ``upper`` [km].

    Raises
    ------
    ValueError
        For shapes that do not fit, infinite values, coordinates out of range, edges that do not increase, or if no pair lies
        in any bin.

    Examples
    --------
    Stations a degree apart on the equator (111.2 km), and two (222.4 km):

    >>> found = station_variogram([0.0, 1.0, 3.0], lon=[0, 1, 2], lat=[0, 0, 0], bins=[0, 150, 300])
    >>> found["semivariance"].values.tolist(), found["pairs"].values.tolist()  # (1 + 4) / 2 / 2 and 9 / 2
    ([1.25, 4.5], [2, 1])
    >>> found["distance"].values.round(1).tolist()
    [111.2, 222.4]
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim not in (1, 2) or table.shape[-1] < 2:
        raise ValueError(
            f"values has shape {table.shape}; wanted (station) or (time, station) with two stations at least"
        )
    if np.isinf(table).any():
        raise ValueError("values holds infinite values; wanted finite numbers, NaN where there is none")
    table = np.atleast_2d(table)
    lon, lat = check_places(lon, lat, table.shape[1])
    first, second = np.triu_indices(table.shape[1], k=1)
    distance = great_circle(lon[first], lat[first], lon[second], lat[second])
    edges = _edges(bins, distance)
    total, pairs = _pair_sums(table, robust)
    where = np.searchsorted(edges, distance, side="right") - 1
    where[distance == edges[-1]] = len(edges) - 2
    kept = (where >= 0) & (where < len(edges) - 1) & (pairs > 0)
    if not kept.any():
        raise ValueError(f"no pair of stations with values at the same time lies {edges[0]:g} to {edges[-1]:g} km apart; "
                         f"distances are {distance.min():g} to {distance.max():g} km: give other bins")  # fmt: skip

    def binned(weight: Array) -> Array:
        return np.bincount(where[kept], weights=weight[kept], minlength=len(edges) - 1)

    count = binned(pairs)
    data = {
        "semivariance": ("bin", _semivariance(binned(total), count, robust)),
        "pairs": ("bin", count.astype(np.int64)),
        "distance": ("bin", binned(distance * pairs) / np.where(count > 0, count, np.nan), {"units": "km"}),
    }
    km = {"units": "km"}
    coords = {"lower": ("bin", edges[:-1], km), "upper": ("bin", edges[1:], km)}
    return xr.Dataset(data, coords, {"estimator": "Cressie-Hawkins" if robust else "classical"})


def _edges(bins: int | ArrayLike, distance: Array) -> Array:
    if np.ndim(bins) == 0:
        number = float(np.asarray(bins, dtype=np.float64))
        if number < 1 or number != int(number):
            raise ValueError(f"bins is {bins!r}; wanted a whole number of at least 1, or edges in km")
        if distance.max() == 0.0:
            raise ValueError("all stations are in one place; give their own coordinates")
        return np.linspace(0.0, 0.5 * distance.max(), int(number) + 1)
    edges = np.asarray(bins, dtype=np.float64)
    if edges.ndim != 1 or edges.size < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(f"bins is {bins!r}; wanted two edges in km at least, increasing")
    return edges


def _pair_sums(table: Array, robust: bool) -> tuple[Array, Array]:
    """For each pair of stations, in the order of triu_indices, the sum over times and the number of times."""
    total, pairs = [], []
    for i in range(table.shape[1] - 1):
        d = np.abs(table[:, i + 1 :] - table[:, i, None])
        pairs.append(np.count_nonzero(~np.isnan(d), axis=0))
        total.append(np.nansum(np.sqrt(d) if robust else np.square(d), axis=0))
    return np.concatenate(total), np.concatenate(pairs).astype(np.float64)
