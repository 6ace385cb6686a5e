"""From the scale on which observations are normal back to their mean and standard deviation; normal scores are one such scale.

Normal scores make observations of any distribution normal: the line through their quantiles at 25 levels, those of the scores
-3, -2.75, ..., 3, and straight on beyond them. Observations that many rows share, such as no rain, have the mean score of their
range. Where no observation is below zero, none is predicted there.

References
----------
Deutsch & Journel (1998), GSLIB, chapter V: the normal score transform.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

__all__ = ["NORMAL_SCORES", "NormalScores", "moments", "score_quantiles"]

Array = NDArray[np.float64]
NORMAL_SCORES = "normal_scores"
SCORES = np.linspace(-3.0, 3.0, 25)
FEWEST = 5  # different quantiles


def score_quantiles(y: Array) -> tuple[float, ...]:
    """Quantiles of observations at the levels of the normal scores.

    Examples
    --------
    >>> import numpy as np
    >>> found = score_quantiles(np.arange(1001.0))
    >>> len(found), found[12]  # the median
    (25, 500.0)
    """
    found = np.quantile(y[np.isfinite(y)], ndtr(SCORES), method="hazen")
    if (number := len(np.unique(found))) < FEWEST:
        raise ValueError(
            f"the observations have {number} different quantiles, too few for normal scores; wanted {FEWEST} or more: take "
            "transform='identity'"
        )
    return tuple(float(value) for value in found)


@dataclass(frozen=True)
class NormalScores:
    """An increasing line through quantiles and their normal scores.

    Attributes
    ----------
    quantiles : tuple of float (25)
        From `score_quantiles`; those of one value count as one.

    Examples
    --------
    >>> scores = NormalScores(tuple(10.0 + 2.0 * z for z in SCORES))
    >>> scores.forward(np.array([10.0, 14.0, 20.0]))
    array([0., 2., 5.])
    >>> scores.moments(np.array([1.0]), np.array([0.25]))  # 10 + 2 (1), 2 (.5)
    (array([12.]), array([1.]))
    """

    quantiles: tuple[float, ...]

    @property
    def knots(self) -> tuple[Array, Array]:
        """Observations and scores, both increasing."""
        y, first, count = np.unique(self.quantiles, return_index=True, return_counts=True)
        half = 0.5 * (SCORES[1] - SCORES[0])
        low, high = SCORES[first] - half, SCORES[first + count - 1] + half
        tied = (_density(low) - _density(high)) / (ndtr(high) - ndtr(low))  # a normal's mean in the range
        return y, np.where(count > 1, tied, SCORES[first])

    @property
    def lines(self) -> tuple[Array, Array, Array]:
        """Ends of the pieces of the inverse, on the scale of the scores, and each one's intercept and slope."""
        y, z = self.knots
        slope = np.diff(y) / np.diff(z)
        intercept = y[:-1] - slope * z[:-1]
        ends = np.concatenate([[-np.inf], z[1:-1], [np.inf]])
        if y[0] < 0.0:
            return ends, intercept, slope
        zero = -intercept[0] / slope[0]
        return np.insert(ends, 1, zero), np.insert(intercept, 0, 0.0), np.insert(slope, 0, 0.0)

    def forward(self, y: Array) -> Array:
        """Scores of observations."""
        known, z = self.knots
        piece = np.clip(np.searchsorted(known, y) - 1, 0, len(known) - 2)
        share = (y - known[piece]) / (known[piece + 1] - known[piece])
        return np.asarray(z[piece] + share * (z[piece + 1] - z[piece]))

    def moments(self, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of observations whose scores are normal: sums of truncated normals' moments.

        Pieces are taken about the mean's own line, so that a narrow normal keeps its digits.
        """
        ends, intercept, slope = self.lines
        sd = np.sqrt(variance)
        own = np.clip(np.searchsorted(ends, mean) - 1, 0, len(slope) - 1)
        middle = intercept[own] + slope[own] * mean
        first, second = np.zeros_like(mean), np.zeros_like(mean)
        below, density = np.zeros_like(mean), np.zeros_like(mean)
        edge = np.zeros_like(mean)  # the end's distance times its density
        for k in range(len(slope)):
            u = (ends[k + 1] - mean) / sd
            share, next_density = ndtr(u), _density(u)
            next_edge = u * next_density if np.isfinite(ends[k + 1]) else np.zeros_like(mean)
            mass, shift = share - below, density - next_density
            square = mass + edge - next_edge
            a, b = intercept[k] + slope[k] * mean - middle, slope[k] * sd
            first += a * mass + b * shift
            second += a**2 * mass + 2.0 * a * b * shift + b**2 * square
            below, density, edge = share, next_density, next_edge
        return middle + first, np.sqrt(np.maximum(second - first**2, 0.0))


def _density(z: Array) -> Array:
    return np.asarray(np.exp(-0.5 * np.square(z)) / np.sqrt(2.0 * np.pi))


def moments(transform: str, mean: Array, variance: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of observations whose identity, square root or logarithm is normal."""
    if transform == "log":
        middle = np.exp(mean + 0.5 * variance)
        return middle, middle * np.sqrt(np.expm1(variance))
    if transform == "sqrt":
        return mean**2 + variance, np.sqrt(4.0 * mean**2 * variance + 2.0 * variance**2)
    return mean, np.sqrt(variance)
