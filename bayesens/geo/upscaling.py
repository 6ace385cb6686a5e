"""Stations taken for their cell: how steadily each stands to the mean, and scores against a mean that has an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bayesens.geo.station_cells import paired_cells, station_cells

if TYPE_CHECKING:
    from bayesens.geo.representativeness import Components

__all__ = ["cell_means", "rmse_to_truth", "temporal_stability"]


def temporal_stability(
    table: pd.DataFrame, *, value: str, station: str, time: str, cell: str | None = None
) -> pd.DataFrame:
    """How each station stands to the mean of its cell, and how steadily.

    The relative difference of a station at one time is ``(y - mean) / mean``, over the stations of its cell at that time.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a station and time; rows without a value, and times with one station only, are passed over.
    value, station, time : str
        Columns; values are positive on average, such as soil moisture.
    cell : str, optional
        Column of the cell. None: one cell.

    Returns
    -------
    pandas.DataFrame (cell, station)
        ``mean`` and ``sd`` of the relative difference over time (sd with n - 1), ``index = sqrt(mean^2 + sd^2)``, ``rank``
        within the cell (1: the smallest index, the station that represents the cell best), ``order`` of the means (1: the
        driest) and ``times``.

    Raises
    ------
    ValueError
        As in `variance_components`; a cell whose mean is not positive at some time.

    References
    ----------
    Vachaud et al. (1985), Soil Sci. Soc. Am. J. 49, 822. Jacobs et al. (2004), Remote Sens. Environ. 92, 436 (the index).

    Examples
    --------
    >>> table = pd.DataFrame({"station": list("aabb"), "day": [1, 2, 1, 2], "sm": [1.0, 3.0, 3.0, 5.0]})
    >>> temporal_stability(table, value="sm", station="station", time="day")[["mean", "index", "times"]]
                   mean index times
    cell station
    all  a       -0.375 0.414     2
         b        0.375 0.414     2
    """
    frames, parts = [], paired_cells(table, value, station, time, cell)
    for part in parts:
        mean = np.nanmean(part.y, axis=1, keepdims=True)
        low = int((mean <= 0.0).sum())
        if low:
            raise ValueError(
                f"the mean of cell {part.name!r} is not positive at {low} of {len(mean)} times; a relative difference needs "
                "positive values: drop those times, or use another unit"
            )
        apart = pd.DataFrame(part.y / mean - 1.0, columns=pd.Index(part.station, name="station"))
        found = pd.DataFrame({"mean": apart.mean(), "sd": apart.std()})
        found["index"] = np.sqrt(found["mean"] ** 2 + found["sd"] ** 2)
        found["rank"] = found["index"].rank(method="min").astype("Int64")
        found["order"] = found["mean"].rank(method="min").astype(np.int64)
        frames.append(found.assign(times=apart.count()))
    return pd.concat(frames, keys=[part.name for part in parts], names=["cell"])


def cell_means(
    table: pd.DataFrame, components: Components, *, value: str, station: str, time: str, cell: str | None = None
) -> pd.DataFrame:
    """Mean of the stations of every cell and time, with the variance of its error.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a station and time; rows without a value are passed over.
    components : Components
        From `variance_components`.
    value, station, time, cell : str
        Columns, as there.

    Returns
    -------
    pandas.DataFrame
        ``cell``, ``time``, ``mean``, ``stations`` (how many) and ``variance = total / stations``.

    Raises
    ------
    ValueError
        As in `variance_components`.

    Examples
    --------
    >>> from bayesens.geo.representativeness import NAMES, Components
    >>> found = pd.DataFrame({"variance": [3.0, 1.0, 4.0], "low": [2.0, 1.0, 4.0], "high": [9.0, 1.0, 9.0]}, index=NAMES)
    >>> components = Components(found, (), 0.0, 1, 5, 9, 45, 0.9)
    >>> table = pd.DataFrame({"station": ["a", "a", "b"], "day": [1, 2, 1], "sm": [1.0, 3.0, 3.0]})
    >>> cell_means(table, components, value="sm", station="station", time="day")
      cell time mean stations variance
    0  all    1  2.0        2      2.0
    1  all    2  3.0        1      4.0
    """
    frames = []
    for part in station_cells(table, value, station, time, cell):
        n = np.isfinite(part.y).sum(axis=1)
        mean = np.nansum(part.y, axis=1) / n
        columns = {"cell": part.name, "time": part.time, "mean": mean, "stations": n, "variance": components.total / n}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def rmse_to_truth(prediction: ArrayLike, *, reference: ArrayLike, variance: ArrayLike) -> pd.Series:
    """RMSE of predictions to the truth, from that to an uncertain reference: ``rmse_truth^2 = rmse^2 - mean(variance)``.

    The errors of the two must be independent: predictions of a model that was trained on the same stations are too close to
    them, and the result too small. With few cells the offsets in the reference are few draws, and the subtraction is right
    on average only.

    Parameters
    ----------
    prediction, reference : array_like (obs)
        Rows where one is missing are passed over.
    variance : array_like (obs) or float
        Of the reference's error, such as ``variance`` of `cell_means`.

    Returns
    -------
    pandas.Series
        ``rmse`` (to the reference), ``rmse_truth``, ``reference_sd`` (root of the mean variance) and ``n``.

    Raises
    ------
    ValueError
        No rows; negative variances; a reference whose error is larger than the whole difference.

    Examples
    --------
    >>> rmse_to_truth([5.0, -5.0], reference=[0.0, 0.0], variance=9.0).tolist()  # 25 - 9 = 16
    [5.0, 4.0, 3.0, 2.0]
    """
    try:
        arrays = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (prediction, reference, variance)))
    except ValueError as error:
        shapes = [np.shape(x) for x in (prediction, reference, variance)]
        raise ValueError(f"prediction, reference and variance have shapes {shapes}; wanted one length") from error
    f, y, v = arrays
    known = np.isfinite(f) & np.isfinite(y)
    if not known.any():
        raise ValueError(f"no row has both a prediction and a reference ({f.size} rows); do their times match?")
    if not np.all(v[known] >= 0.0):
        raise ValueError("the variance of the reference is negative or missing in some rows; wanted zero or more")
    square, noise = float(np.mean((f - y)[known] ** 2)), float(v[known].mean())
    if noise > square:
        raise ValueError(
            f"the mean square difference {square:.4g} is smaller than the variance of the reference's error {noise:.4g}: "
            "either the predictions were trained on these stations, or the variance does not hold for them; there is no RMSE to "
            "the truth then"
        )
    names = ["rmse", "rmse_truth", "reference_sd", "n"]
    return pd.Series([np.sqrt(square), np.sqrt(square - noise), np.sqrt(noise), float(known.sum())], index=names)
