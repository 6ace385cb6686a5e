"""Probabilities of an event against what happened: Brier score and its parts, reliability, ROC, and rates of a warning.

References
----------
Dimitriadis, Gneiting & Jordan (2021), PNAS 118, e2016191118: reliability by isotonic regression (CORP).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.bootstrap import (
    CLUSTERS_FOR_PERCENTILES,
    Clusters,
    block_words,
    cluster_interval,
    interval,
    leave_out,
    pigeonhole,
    time_blocks,
)
from bayesens.tables.columns import labels

__all__ = ["brier", "reliability", "roc", "warning_scores"]

Array = NDArray[np.float64]


def brier(probability: ArrayLike, event: ArrayLike) -> pd.Series:
    """Brier score with its exact decomposition by isotonic regression.

    Parameters
    ----------
    probability : array (obs)
        Forecast probabilities.
    event : array (obs)
        Whether it happened: 0 or 1, True or False. Rows with NaN in either are left out.

    Returns
    -------
    pandas.Series
        ``brier`` = ``miscalibration`` - ``discrimination`` + ``uncertainty``; ``skill``, 1 - brier / uncertainty; ``n`` rows,
        ``events``, and ``rate``, their share.

    Raises
    ------
    ValueError
        Probabilities outside [0, 1], events that are neither 0 nor 1, no rows.

    Notes
    -----
    Where all rows are events or none is, uncertainty is 0 and skill is NaN.

    Examples
    --------
    >>> brier([0.2, 0.6, 0.8, 0.4], [0, 0, 1, 1])[["brier", "uncertainty"]].round(4).tolist()
    [0.2, 0.25]
    """
    p, y = _checked(probability, event)
    fitted = _isotonic(p, y)
    score, rate = float(np.mean((p - y) ** 2)), float(y.mean())
    recalibrated, uncertainty = float(np.mean((fitted - y) ** 2)), rate * (1 - rate)
    return pd.Series({
        "brier": score, "miscalibration": score - recalibrated, "discrimination": uncertainty - recalibrated,
        "uncertainty": uncertainty, "skill": 1 - score / uncertainty if uncertainty > 0 else np.nan, "n": len(y),
        "events": int(y.sum()), "rate": rate,
    })  # fmt: skip


def reliability(
    probability: ArrayLike,
    event: ArrayLike,
    *,
    site: ArrayLike | None = None,
    time: ArrayLike | None = None,
    block: float | None = 30.0,
    replicates: int = 1000,
    level: float = 0.9,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """Reliability curve: how often it happened where a probability was forecast, by isotonic regression.

    Parameters
    ----------
    probability, event : array (obs)
        As in `brier`.
    site : array (obs), optional
        Stations to resample as wholes, for the band. Without site and time rows are independent.
    time : array (obs), optional
        With it blocks of time are resampled, as well or alone.
    block : float, optional
        Days (or units of numeric times) of a block; None: stations alone.
    replicates : int
        Of the bootstrap; 0 for no band.
    level : float
        Of the band.
    random_seed : int, optional
        The same seed gives the same band.

    Returns
    -------
    pandas.DataFrame (forecast)
        One line a different forecast: ``forecast``, ``frequency``, ``n`` rows, and ``low``, ``high``: where the curve would lie
        (`level` of the replicates) if the forecasts were reliable, events drawn again with their probabilities where rows are
        independent; with stations or blocks, the interval of the curve itself over these, by `cluster_interval` and so NaN
        where there are fewer than five. ``attrs["band"]`` says which.

    Raises
    ------
    ValueError
        As in `brier`; sites or times of another length, or missing; options out of range.

    Examples
    --------
    >>> reliability([0.1, 0.1, 0.9, 0.9], [0, 1, 1, 1], replicates=0)[["forecast", "frequency", "n"]].to_numpy().tolist()
    [[0.1, 0.5, 2.0], [0.9, 1.0, 2.0]]
    """
    p, y, keep = _checked_rows(probability, event)
    if replicates < 0 or int(replicates) != replicates or not 0.0 < level < 1.0:
        raise ValueError("replicates is a whole number, 0 for no band, and level lies inside (0, 1), such as 0.9; got "
                         f"{replicates!r}, {level!r}")  # fmt: skip
    station, blocks = _codes(np.shape(probability)[0], keep, site, time, block)
    value, code = np.unique(p, return_inverse=True)
    n, hits = np.bincount(code).astype(np.float64), np.bincount(code, y)
    options: dict[str, Any] = {"replicates": int(replicates), "level": level, "random_seed": random_seed}
    if not replicates:
        low = high = np.full(len(value), np.nan)
        band = "none: no replicates"
    elif station is None and blocks is None:
        low, high = _of_reliable(value, n, **options)
        band = "events drawn again, rows independent"
    else:
        kind = "" if time is None or block is None else block_words(np.asarray(time)[keep], block)
        low, high, band = _of_clusters(code, y, station, blocks, block_kind=kind, **options)
    curve = pd.DataFrame({"forecast": value, "frequency": _pav(hits, n), "n": n.astype(int), "low": low, "high": high})
    curve.attrs["band"] = band
    return curve


def roc(probability: ArrayLike, event: ArrayLike) -> pd.DataFrame:
    """Receiver operating characteristic: hit rate against false-alarm rate for every threshold of the probability.

    Parameters
    ----------
    probability, event : array (obs)
        As in `brier`.

    Returns
    -------
    pandas.DataFrame (threshold)
        ``threshold`` (a warning where the probability is at least that; infinite first), ``false_alarm_rate``, ``hit_rate``;
        ``attrs["auc"]`` is the area under the curve, NaN where all rows are events or none is.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> roc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).attrs["auc"]
    0.75
    """
    from sklearn.exceptions import UndefinedMetricWarning
    from sklearn.metrics import auc, roc_curve

    p, y = _checked(probability, event)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # rates of no row are NaN, as said above
        false, hit, threshold = roc_curve(y, p, drop_intermediate=False)
    curve = pd.DataFrame({"threshold": threshold, "false_alarm_rate": false, "hit_rate": hit})
    curve.loc[0, ["false_alarm_rate", "hit_rate"]] = 0.0  # no warning at all, also where there is nothing to warn of
    curve.attrs["auc"] = float(auc(false, hit)) if 0 < y.sum() < len(y) else np.nan
    return curve


def warning_scores(probability: ArrayLike, event: ArrayLike, *, threshold: float = 0.5) -> pd.Series:
    """Rates of a warning that is given where the probability is at least a threshold.

    Parameters
    ----------
    probability, event : array (obs)
        As in `brier`.
    threshold : float
        In [0, 1]; choose it on training rows, never on these.

    Returns
    -------
    pandas.Series
        ``hit_rate`` (warned events of all events), ``false_alarm_rate`` (warnings of all rows without event),
        ``false_alarm_ratio`` (warnings without event of all warnings), ``csi`` (warned events of all that were warned or
        happened), ``bias`` (warnings over events), and the counts ``hits``, ``misses``, ``false_alarms``, ``rejections``. NaN
        where the divisor is 0.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> warning_scores([0.9, 0.8, 0.2, 0.1], [1, 0, 1, 0])[["hit_rate", "false_alarm_ratio"]].tolist()
    [0.5, 0.5]
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold is {threshold!r}; wanted a probability in [0, 1]")
    p, y = _checked(probability, event)
    warned, happened = p >= threshold, y == 1
    hits, misses = int((warned & happened).sum()), int((~warned & happened).sum())
    false, rejections = int((warned & ~happened).sum()), int((~warned & ~happened).sum())

    def share(one: int, other: int) -> float:
        return one / other if other else np.nan

    return pd.Series({
        "hit_rate": share(hits, hits + misses), "false_alarm_rate": share(false, false + rejections),
        "false_alarm_ratio": share(false, hits + false), "csi": share(hits, hits + misses + false),
        "bias": share(hits + false, hits + misses), "hits": hits, "misses": misses, "false_alarms": false,
        "rejections": rejections,
    })  # fmt: skip


# Inside ---------------------------------------------------------------------------------------------------------------


def _checked(probability: ArrayLike, event: ArrayLike) -> tuple[Array, Array]:
    p, y, _ = _checked_rows(probability, event)
    return p, y


def _checked_rows(probability: ArrayLike, event: ArrayLike) -> tuple[Array, Array, NDArray[np.intp]]:
    """Probabilities and events of the rows that have both, and which these are."""
    p, y = (np.asarray(values, dtype=np.float64) for values in (probability, event))
    if p.ndim != 1 or p.shape != y.shape:
        raise ValueError(f"probability has shape {p.shape} and event {y.shape}; wanted both (obs)")
    keep = np.flatnonzero(~(np.isnan(p) | np.isnan(y)))
    if not len(keep):
        raise ValueError(f"none of {len(p)} rows has a probability and an event; there is nothing to score")
    p, y = p[keep], y[keep]
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"probabilities go from {p.min():.3g} to {p.max():.3g}; wanted numbers in [0, 1]")
    if odd := sorted(set(y) - {0.0, 1.0}):
        raise ValueError(f"event has the value {odd[0]:.3g}; wanted 0 or 1, True or False")
    return p, y, keep


def _isotonic(p: Array, y: Array) -> Array:
    """The recalibrated probability of every row."""
    code = np.unique(p, return_inverse=True)[1]
    return _pav(np.bincount(code, y), np.bincount(code).astype(np.float64))[code]


def _pav(hits: Array, n: Array) -> Array:
    """Isotonic regression of shares ``hits / n``; weights of 0 take the value of their neighbours."""
    from sklearn.isotonic import isotonic_regression

    there = n > 0
    if not there.any():
        return np.full(len(n), np.nan)
    fitted = isotonic_regression(hits[there] / n[there], sample_weight=n[there], y_min=0.0, y_max=1.0)
    place = np.arange(len(n))
    return np.interp(place, place[there], fitted)


def _codes(
    size: int, keep: NDArray[np.intp], site: ArrayLike | None, time: ArrayLike | None, block: float | None
) -> tuple[NDArray[np.intp] | None, NDArray[np.intp] | None]:
    """Numbers of the station and of the time block of the rows kept; None for what is not resampled."""
    for name, given in (("site", site), ("time", time)):
        if given is not None and np.shape(given) != (size,):
            raise ValueError(f"{name} has shape {np.shape(given)} for {size} rows; wanted one entry a row")
    station = blocks = None
    if site is not None:
        names = labels(pd.Series(np.asarray(site)[keep], name="site"))
        if missing := int((names == "").sum()):
            raise ValueError(f"{missing} of {len(keep)} rows have no site, and would count as one; drop them")
        station = np.unique(names, return_inverse=True)[1]
    if time is not None and block is not None:
        blocks = time_blocks(np.asarray(time)[keep], block)
    return station, blocks


def _of_reliable(
    value: Array, n: Array, *, replicates: int, level: float, random_seed: int | None
) -> tuple[Array, Array]:
    """Ends of the band of a reliable forecast whose rows are independent."""
    rng = np.random.default_rng(random_seed)
    hits = rng.binomial(n.astype(int)[:, None], value[:, None], size=(len(value), replicates)).astype(np.float64)
    return interval(np.stack([_pav(each, n) for each in hits.T], axis=-1), level)


def _of_clusters(
    code: NDArray[np.intp], y: Array, station: NDArray[np.intp] | None, blocks: NDArray[np.intp] | None, *,
    block_kind: str, replicates: int, level: float, random_seed: int | None,
) -> tuple[Array, Array, str]:  # fmt: skip
    """Ends of the curve's interval over stations and blocks, and how it is made."""
    first = blocks if station is None else station  # blocks alone take the place of stations
    assert first is not None
    second = np.zeros_like(first) if blocks is None or station is None else blocks
    kinds = (block_kind if station is None else "station", block_kind)
    clusters, size = Clusters(int(first.max()) + 1, int(second.max()) + 1, kinds), int(code.max()) + 1
    drawn = pigeonhole(first, second, replicates=replicates, random_seed=random_seed)
    drawn = drawn if clusters.least >= CLUSTERS_FOR_PERCENTILES else leave_out(drawn)
    curves = np.empty((size, drawn.station.shape[1]))
    for r in range(curves.shape[1]):
        weight = drawn.station[first, r] * drawn.block[second, r]
        curves[:, r] = _pav(np.bincount(code, weight * y, size), np.bincount(code, weight, size))
    options: dict[str, int] = {"replicates": replicates, "stations": clusters.stations}
    low, high = np.clip(np.transpose([cluster_interval(each, level, clusters, **options) for each in curves]), 0.0, 1.0)
    return low, high, clusters.how
