"""Metrics of predictions from sums over stations and time blocks: those of a sample and of all its bootstrap replicates at once.

Every metric here is a function of sums over rows. A replicate only changes how often a station and a block count, so sums by
station and block give its metrics exactly, without copying a row.

References
----------
Gupta, Kling, Yilmaz & Martinez (2009), J. Hydrol. 377, 80: KGE. Entekhabi et al. (2010), J. Hydrometeorol. 11, 832: ubRMSE.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from bayesens.comparison.bootstrap import Replicates
from bayesens.ensemble.collinear import ROUNDING

__all__ = ["MIN_ROWS", "MIN_STATIONS", "replicate_means", "skill"]

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
MIN_ROWS = 10  # of a station, for its correlation over time
MIN_STATIONS = 3  # for a correlation over station means; that of two is +1 or -1 whatever they are
CHUNK = 256  # replicates at a time: keeps the sums of a thousand stations at a few MB
CONSTANT = 1e-12  # share of a second moment below which a variance is rounding


def skill(
    prediction: Array, y: Array, means: Mapping[str, Array], station: Codes, block: Codes, drawn: Replicates
) -> dict[str, Array]:
    """Metrics of one product in every replicate.

    Parameters
    ----------
    prediction, y : array (obs)
        Predicted and observed values; none missing.
    means : mapping of str to array (obs)
        Scores of rows, of which the mean is wanted.
    station, block : int array (obs)
        Into the rows of ``drawn``.
    drawn : Replicates
        How often each replicate counts a station and a block.

    Returns
    -------
    dict of str to array (replicate)
        The mean of each of ``means``; ``rmse``, ``ubrmse``, ``mae``, ``bias``; ``r`` over all rows; ``kge``;
        ``r_temporal`` the median over stations of the correlation over time, of stations with 10 rows or more;
        ``r_temporal_z`` their mean after Fisher's z, weighted by rows minus 3; ``r_spatial`` that of the means of
        stations, three or more. NaN where undefined.

    Examples
    --------
    >>> one = Replicates(np.ones((1, 1)), np.ones((1, 1)))
    >>> zero = np.zeros(3, dtype=int)
    >>> found = skill(np.array([1.0, 2.0, 6.0]), np.array([0.0, 2.0, 4.0]), {}, zero, zero, one)
    >>> {name: found[name].round(3).tolist() for name in ("bias", "mae", "r_spatial")}
    {'bias': [1.0], 'mae': [1.0], 'r_spatial': [nan]}
    """
    size = drawn.station.shape[1]
    parts = [slice(start, start + CHUNK) for start in range(0, size, CHUNK)]
    rows = _cells(prediction, y, means, station, block, drawn)
    shift = np.array([prediction.mean(), y.mean()])
    floor = ROUNDING**2 * np.array([np.square(prediction).max(), np.square(y).max()])
    found = [_of_replicates(rows, drawn.station[:, part], drawn.block[:, part], shift, floor) for part in parts]
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def replicate_means(means: Mapping[str, Array], station: Codes, block: Codes, drawn: Replicates) -> dict[str, Array]:
    """Means of scores of rows in every replicate, where nothing else of `skill` is wanted.

    Parameters
    ----------
    means, station, block, drawn
        As in `skill`.

    Returns
    -------
    dict of str to array (replicate)
        NaN where a replicate has no row.

    Examples
    --------
    >>> drawn = Replicates(np.array([[1.0, 2.0], [1.0, 0.0]]), np.ones((1, 2)))
    >>> replicate_means({"inside": np.array([1.0, 0.0])}, np.array([0, 1]), np.zeros(2, dtype=int), drawn)["inside"].tolist()
    [0.5, 1.0]
    """
    shape, size = (len(drawn.station), len(drawn.block)), drawn.station.shape[1]
    ones = {"": np.ones(len(station))}  # no score has an empty name
    cells = {name: csr_array((each, (station, block)), shape=shape) for name, each in (ones | dict(means)).items()}
    total = {name: np.empty(size) for name in cells}
    for start in range(0, size, CHUNK):
        part = slice(start, start + CHUNK)
        for name, cell in cells.items():
            total[name][part] = np.einsum("sr,sr->r", drawn.station[:, part], cell @ drawn.block[:, part])
    some = np.where(total[""] > 0, total[""], np.nan)
    return {name: total[name] / some for name in means}


def _cells(prediction: Array, y: Array, means: Mapping[str, Array], station: Codes, block: Codes,
           drawn: Replicates) -> dict[str, Any]:  # fmt: skip
    """Sums (station, block) of everything that the metrics need; values are centred, so that no digits are lost."""
    f, o, error = prediction - prediction.mean(), y - y.mean(), prediction - y
    values = {"n": np.ones(len(y)), "f": f, "o": o, "ff": f * f, "oo": o * o, "fo": f * o, "e": error, "ee": error**2,
              "ae": np.abs(error)} | {f"mean {name}": each for name, each in means.items()}  # fmt: skip
    shape = (len(drawn.station), len(drawn.block))
    return {name: csr_array((each, (station, block)), shape=shape) for name, each in values.items()}


def _of_replicates(cells: dict[str, Any], station: Array, block: Array, shift: Array, floor: Array) -> dict[str, Array]:
    by_station = {name: cells[name] @ block for name in ("n", "f", "o", "ff", "oo", "fo")}
    total = {name: np.einsum("sr,sr->r", station, by_station[name]) for name in by_station}
    total |= {name: np.einsum("sr,sr->r", station, cells[name] @ block) for name in cells if name not in by_station}
    some = np.where(total["n"] > 0, total["n"], np.nan)
    mean = {name: value / some for name, value in total.items()}
    r, var_f, var_o = _correlation(total, floor)
    out = {name.removeprefix("mean "): value for name, value in mean.items() if name.startswith("mean ")}
    out |= {"rmse": np.sqrt(mean["ee"]), "ubrmse": np.sqrt(np.maximum(mean["ee"] - mean["e"] ** 2, 0.0)),
            "mae": mean["ae"], "bias": mean["e"], "r": r}  # fmt: skip
    center_f, center_o = mean["f"] + shift[0], mean["o"] + shift[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = center_f / np.where(center_o == 0.0, np.nan, center_o)
        out["kge"] = 1.0 - np.sqrt((r - 1.0) ** 2 + (np.sqrt(var_f / var_o) - 1.0) ** 2 + (ratio - 1.0) ** 2)
    rows = np.asarray(cells["n"].sum(axis=1)).ravel()
    out |= _temporal(by_station, station, rows, floor)
    out["r_spatial"] = _spatial(by_station, station, floor)
    return out


def _correlation(sums: Mapping[str, Array], floor: Array) -> tuple[Array, Array, Array]:
    """Correlation and both variances from sums; the correlation is NaN where either variable is constant."""
    n = np.where(sums["n"] > 0, sums["n"], np.nan)
    f, o = sums["f"] / n, sums["o"] / n
    ff, oo = sums["ff"] / n, sums["oo"] / n
    var_f, var_o = np.maximum(ff - f * f, 0.0), np.maximum(oo - o * o, 0.0)
    varies = (var_f > np.maximum(CONSTANT * ff, floor[0])) & (var_o > np.maximum(CONSTANT * oo, floor[1]))
    root = np.sqrt(np.where(varies, var_f * var_o, np.nan))
    return np.clip((sums["fo"] / n - f * o) / root, -1.0, 1.0), var_f, var_o


def _temporal(sums: Mapping[str, Array], station: Array, rows: Array, floor: Array) -> dict[str, Array]:
    """Median over stations, and mean after Fisher's z, of the correlation over time."""
    long = rows >= MIN_ROWS
    r = _correlation({name: value[long] for name, value in sums.items()}, floor)[0]
    weight = np.where(np.isnan(r), 0.0, station[long])
    fisher = weight * (rows[long, None] - 3.0)
    total = fisher.sum(axis=0)
    z = np.arctanh(np.clip(np.where(np.isnan(r), 0.0, r), -1.0 + 1e-12, 1.0 - 1e-12))
    mean = (fisher * z).sum(axis=0) / np.where(total > 0, total, np.nan)
    return {"r_temporal": _weighted_median(r, weight), "r_temporal_z": np.tanh(mean)}


def _weighted_median(values: Array, weight: Array) -> Array:
    """Median along the first axis of values that count a whole number of times."""
    if not len(values):
        return np.full(values.shape[1], np.nan)
    order = np.argsort(values, axis=0)  # NaN last, and its weight is 0
    ordered = np.take_along_axis(values, order, axis=0)
    count = np.cumsum(np.take_along_axis(weight, order, axis=0), axis=0)
    half = 0.5 * count[-1]
    low, high = np.argmax(count >= half, axis=0), np.argmax(count > half, axis=0)
    low = np.where(half > 0, low, 0)
    pick = [np.take_along_axis(ordered, index[None], axis=0)[0] for index in (low, high)]
    return np.where(half > 0, 0.5 * (pick[0] + pick[1]), np.nan)


def _spatial(sums: Mapping[str, Array], station: Array, floor: Array) -> Array:
    """Correlation over the means of stations, each counted as often as its station."""
    there = sums["n"] > 0
    n = np.where(there, sums["n"], 1.0)
    weight = np.where(there, station, 0.0)
    weight = np.where((weight > 0).sum(axis=0) >= MIN_STATIONS, weight, 0.0)
    f, o = sums["f"] / n, sums["o"] / n
    products = {"n": np.ones_like(f), "f": f, "o": o, "ff": f * f, "oo": o * o, "fo": f * o}
    return _correlation({name: np.asarray((weight * value).sum(axis=0)) for name, value in products.items()}, floor)[0]
