"""Scores of predictions against observations: arrays in, one score a row out.

References
----------
Gneiting & Raftery (2007), JASA 102, 359; Fricker, Ferro & Stephenson (2013), Meteorol. Appl. 20, 246 (fair CRPS).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["covered", "crps_sample", "interval_score", "width"]

Array = NDArray[np.float64]


def _inside_unit(name: str, value: ArrayLike) -> Array:
    number = np.asarray(value, dtype=np.float64)
    if not np.all((number > 0.0) & (number < 1.0)):
        raise ValueError(f"{name} must lie inside (0, 1); got {value!r}.")
    return number


def width(lower: ArrayLike, upper: ArrayLike) -> Array:
    """Width of an interval.

    Parameters
    ----------
    lower, upper : array (...)
        Its ends, in units of the observations.

    Returns
    -------
    array (...)

    Examples
    --------
    >>> width([1.0, 2.0], [4.0, 2.5])
    array([3. , 0.5])
    """
    return np.subtract(upper, lower, dtype=np.float64)


def covered(lower: ArrayLike, upper: ArrayLike, y: ArrayLike) -> Array:
    """Whether an interval holds the observation, its ends included.

    Parameters
    ----------
    lower, upper : array (...)
        Ends of the interval.
    y : array (...)
        Observations.

    Returns
    -------
    array (...)
        1 or 0, and NaN where an end or the observation is missing, so that ``nanmean`` is the coverage.

    Examples
    --------
    >>> covered([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.5, 2.0, float("nan")])
    array([ 1.,  0., nan])
    """
    lower, upper, y = (np.asarray(x, dtype=np.float64) for x in (lower, upper, y))
    return np.where(np.isnan(lower + upper + y), np.nan, (lower <= y) & (y <= upper))


def interval_score(lower: ArrayLike, upper: ArrayLike, y: ArrayLike, level: float) -> Array:
    """Interval (Winkler) score of a central interval: its width plus ``2 / (1 - level)`` times the miss.

    Parameters
    ----------
    lower, upper : array (...)
        Ends of the interval.
    y : array (...)
        Observations.
    level : float
        Nominal coverage, inside (0, 1).

    Returns
    -------
    array (...)
        In units of ``y``; smaller is better.

    Raises
    ------
    ValueError
        If ``level`` is not inside (0, 1).

    Examples
    --------
    >>> interval_score([0.0, 0.0], [1.0, 1.0], [0.5, 1.5], level=0.5)  # a miss of 0.5 costs 0.5 * 2 / 0.5
    array([1., 3.])
    """
    alpha = 1.0 - _inside_unit("level", level)
    lower, upper, y = (np.asarray(x, dtype=np.float64) for x in (lower, upper, y))
    miss = np.maximum(lower - y, 0.0) + np.maximum(y - upper, 0.0)
    return np.asarray(upper - lower + 2.0 / alpha * miss)


def crps_sample(draws: ArrayLike, y: ArrayLike, *, fair: bool = False) -> Array:
    """CRPS of a sample: ``mean |x - y| - 1/2 mean |x - x'|``, from the sorted draws.

    Parameters
    ----------
    draws : array (draw, ...)
        Draws of each row along the first axis.
    y : array (...)
        Observations.
    fair : bool
        Leave out the pairs of a draw with itself: the expected score is then that of the distribution behind the draws;
        otherwise the score is that of the draws as they are.

    Returns
    -------
    array (...)
        In units of ``y``; smaller is better.

    Raises
    ------
    ValueError
        If there are no draws, or one alone and ``fair``.

    Examples
    --------
    >>> crps_sample([[0.0], [2.0]], [1.0]), crps_sample([[0.0], [2.0]], [1.0], fair=True)
    (array([0.5]), array([0.]))
    """
    error = np.sort(np.asarray(draws, dtype=np.float64) - np.asarray(y, dtype=np.float64), axis=0)
    size = error.shape[0]
    if size < 1 + fair:
        raise ValueError(f"The CRPS of a sample needs {'two draws' if fair else 'a draw'} at least; got {size}.")
    rank = 2.0 * np.arange(1, size + 1) - size - 1.0
    spread = np.tensordot(rank, error, axes=1) / (size * (size - fair))
    return np.asarray(np.abs(error).mean(axis=0) - spread)
