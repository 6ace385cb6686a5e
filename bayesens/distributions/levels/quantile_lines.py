"""Predictive distributions known by some quantiles: straight between them, and beyond, on the scale of normal scores.

A normal distribution is such a line. With x(z) the quantile at the level Phi(z), and the level G(Phi(z)) in place of Phi(z),

    CRPS = int (G(Phi(z)) - 1[x(z) >= y])^2 x'(z) dz,

a sum over the pieces of slopes times integrals that all rows share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

__all__ = ["QuantileLines"]

Array = NDArray[np.float64]
FURTHEST = 8.0  # normal score beyond which nothing counts
GRID = np.linspace(-FURTHEST, FURTHEST, 3201)


@dataclass(frozen=True, eq=False)
class QuantileLines:
    """Quantiles of every row at common levels.

    Attributes
    ----------
    level : array (quantile)
        Inside (0, 1), increasing; two or more.
    value : array (obs, quantile)

    Examples
    --------
    >>> from bayesens.distributions.levels.recalibration import Recalibration
    >>> normal = QuantileLines(np.array([0.05, 0.5, 0.95]), np.array([[-1.645, 0.0, 1.645]]))
    >>> normal.quantiles([0.975]).round(2), normal.mean_change(Recalibration("beta", (2.0, 1.0)).cdf).round(2)
    (array([[1.96]]), array([0.56]))
    """

    level: Array
    value: Array

    def quantiles(self, level: ArrayLike) -> Array:
        """Quantiles at other levels, (obs, level); those beyond the known ones follow the outermost pieces.

        Parameters
        ----------
        level : array (level)

        Returns
        -------
        array (obs, level)
        """
        z = ndtri(np.asarray(level, dtype=np.float64))
        piece = np.clip(np.searchsorted(self._score, z) - 1, 0, len(self._score) - 2)
        return np.asarray(self.value[:, piece] + self._slope[:, piece + 1] * (z - self._score[piece]))

    def mean_change(self, law: Callable[[Array], Array]) -> Array:
        """Mean under the levels that ``law`` makes of the first ones, minus the mean as it is; (obs)."""
        moved = _up_to(ndtr(GRID) - law(ndtr(GRID)))
        return np.asarray(self._slope @ np.diff(np.interp(self._ends, GRID, moved)))

    def crps_change(self, law: Callable[[Array], Array], pit: Array) -> Array:
        """CRPS under the levels that ``law`` makes of the first ones, minus the CRPS as it is.

        Parameters
        ----------
        law : callable
            G, from levels to levels.
        pit : array (obs)
            Levels of the observations, as they are.

        Returns
        -------
        array (obs)
        """
        level, new = ndtr(GRID), law(ndtr(GRID))
        below, above = _up_to(new**2 - level**2), _up_to((1.0 - new) ** 2 - (1.0 - level) ** 2)
        y = np.clip(ndtri(pit), -FURTHEST, FURTHEST)[:, None]
        left, right = np.minimum(self._ends, y), np.maximum(self._ends, y)
        pieces = np.diff(np.interp(left, GRID, below) + np.interp(right, GRID, above), axis=1)
        return np.asarray((self._slope * pieces).sum(axis=1))

    @cached_property
    def _score(self) -> Array:
        return np.asarray(ndtri(self.level))

    @cached_property
    def _ends(self) -> Array:
        return np.r_[-FURTHEST, self._score, FURTHEST]

    @cached_property
    def _slope(self) -> Array:
        """Of the pieces, with the outermost ones once more beyond them."""
        inner = np.diff(self.value, axis=1) / np.diff(self._score)
        return np.concatenate([inner[:, :1], inner, inner[:, -1:]], axis=1)


def _up_to(values: Array) -> Array:
    """Integral of values on the grid from its beginning."""
    middle = 0.5 * (values[1:] + values[:-1]) * np.diff(GRID)
    return np.r_[0.0, np.cumsum(middle)]
