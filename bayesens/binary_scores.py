"""Probabilities of an event against what happened: Brier score and its parts, reliability, ROC, and rates of a warning.

References
----------
Dimitriadis, Gneiting & Jordan (2021), PNAS 118, e2016191118: reliability by isotonic regression (CORP).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.resample import interval, pigeonhole, time_blocks

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
        Stations to resample as wholes, for the band. None: rows are independent.
    time : array (obs), optional
        With it blocks of time are resampled as well.
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
        independent; with stations, the interval of the curve itself over resampled stations and blocks.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> reliability([0.1, 0.1, 0.9, 0.9], [0, 1, 1, 1], replicates=0)[["forecast", "frequency", "n"]].to_numpy().tolist()
    [[0.1, 0.5, 2.0], [0.9, 1.0, 2.0]]
    """
    p, y, keep = _checked_rows(probability, event)
    value, code = np.unique(p, return_inverse=True)
    n, hits = np.bincount(code).astype(np.float64), np.bincount(code, y)
    drawn = _replicated(value, code, y, keep, site, time, block, replicates, random_seed)
    low, high = interval(drawn, level) if replicates else (np.full(len(value), np.nan),) * 2
    return pd.DataFrame({"forecast": value, "frequency": _pav(hits, n), "n": n.astype(int), "low": low, "high": high})


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
    p, y = _checked(probability, event)
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
    hit, false = np.cumsum(y[order])[last], np.cumsum(1 - y[order])[last]
    with np.errstate(invalid="ignore"):
        rates = {"false_alarm_rate": np.append(0.0, false / false[-1]), "hit_rate": np.append(0.0, hit / hit[-1])}
    curve = pd.DataFrame({"threshold": np.append(np.inf, p[order][last])} | rates)
    curve.attrs["auc"] = float(np.trapezoid(curve["hit_rate"], curve["false_alarm_rate"]))
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
    keep = np.flatnonzero(np.isfinite(p) & np.isfinite(y))
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


def _replicated(
    value: Array, code: NDArray[np.intp], y: Array, keep: NDArray[np.intp], site: Any, time: Any, block: float | None,
    replicates: int, random_seed: int | None,
) -> Array:  # fmt: skip
    """Curves (forecast, replicate)."""
    rng, n = np.random.default_rng(random_seed), np.bincount(code).astype(np.float64)
    if not replicates:
        return np.empty((len(value), 0))
    if site is None:
        drawn_hits = rng.binomial(n.astype(int)[:, None], value[:, None], size=(len(value), replicates))
        return np.stack([_pav(hits.astype(np.float64), n) for hits in drawn_hits.T], axis=-1)
    station = np.unique(np.asarray(site)[keep], return_inverse=True)[1]
    blocks = (
        time_blocks(np.asarray(time)[keep], block) if time is not None and block is not None else np.zeros_like(station)
    )
    drawn = pigeonhole(station, blocks, replicates=replicates, random_seed=random_seed)
    curves = []
    for r in range(1, replicates + 1):
        weight = drawn.station[station, r] * drawn.block[blocks, r]
        curves.append(_pav(np.bincount(code, weight * y, len(value)), np.bincount(code, weight, len(value))))
    return np.stack(curves, axis=-1)
