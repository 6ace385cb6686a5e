"""The regression of y on the members at sites that a fit has seen, with their effects integrated out given their history.

Rows of a site are ``z_i = (y_i, f_i) = m + g + h + v_i`` with the group's effect ``g ~ Normal(g0, G)`` given all rows, the site's
``h ~ Normal(0, B)`` and ``v_i ~ Normal(0, W)``. Its cells, rows with the same columns, have told of h by their averages zbar_c:
with ``A = sum_c n_c W_c^-1`` (zero outside the columns of c), ``C = (B^-1 + A)^-1`` and ``k = I - C A``,

    g + h | history ~ Normal(k g0 + sum_c C n_c W_c^-1 (zbar_c - m), C + k G k')

Slopes and variance depend on the cells' counts, not on what they have averaged, which the intercept alone takes, linearly:
sites with equal counts share everything but a product. Sites whose rows are complete share a basis ``T`` besides, ``T W T' = I``
and ``T B T' = diag(l)``: if nothing is open of the group, there are neither matrices to invert nor counts to be equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from bayesens.ensemble.sufficient import Statistics
from bayesens.likelihoods.multilevel.new_site import root

__all__ = ["KnownSites", "Line", "regression"]

KEPT = 48  # laws and inverses at a time, each of a few matrices a draw


@dataclass(frozen=True)
class Line:
    """Regression of y on the members that are present: intercept (draw), slopes (draw, present), variance (draw)."""

    intercept: np.ndarray
    slope: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class _Law:
    """A line whose intercept is ``constant (draw)`` and, for each cell, its averages times ``gain (draw, column)``."""

    constant: np.ndarray
    slope: np.ndarray
    variance: np.ndarray
    gain: tuple[np.ndarray, ...]


def regression(covariance: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of y on the members that are present, and the variance that they leave, for each draw.

    Parameters
    ----------
    covariance : array (draw, column, column)
        Of (y, f).
    present : int array (present)
        Columns of the members; the first is 1.

    Returns
    -------
    array (draw, present), array (draw)

    Examples
    --------
    >>> slope, variance = regression(np.array([[[1.0, 1.0], [1.0, 2.0]]]), np.array([1]))
    >>> slope.tolist(), variance.tolist()
    ([[0.5]], [0.5])
    """
    if len(present) == 0:
        return np.zeros((len(covariance), 0)), covariance[:, 0, 0]
    cross = covariance[:, present, 0]
    slope = np.linalg.solve(covariance[:, present[:, None], present], cross[:, :, None])[:, :, 0]
    return slope, covariance[:, 0, 0] - np.sum(slope * cross, axis=1)


class KnownSites:
    """Lines at the sites of a fit, for each posterior draw of the other parameters.

    Parameters
    ----------
    mean : array (draw, column)
    within, site : array (draw, column, column)
    group_mean, group_cov : array (draw, group, column), array (draw, group, column, column)
        Of the groups' effects given all rows.
    data : Statistics
        Of the training rows.
    """

    def __init__(
        self, mean: np.ndarray, within: np.ndarray, site: np.ndarray, group_mean: np.ndarray, group_cov: np.ndarray, *,
        data: Statistics,
    ) -> None:  # fmt: skip
        self.mean, self.within, self.site, self.data = mean, within, site, data
        self.group_mean, self.group_cov = group_mean, group_cov
        self.grouped = bool(group_mean.any() or group_cov.any())
        order = np.argsort(data.cell_site, kind="stable")
        self.cells = np.split(order, np.cumsum(np.bincount(data.cell_site, minlength=len(data.site_group)))[:-1])
        self.law, self.precision = lru_cache(maxsize=KEPT)(self._law), lru_cache(maxsize=KEPT)(self._precision)

    def line(self, unit: int, present: Iterable[int]) -> Line:
        """Return the line of a site, by its number among the statistics, for members that stand in these columns."""
        cells = self.cells[unit]
        counts = tuple((int(self.data.cell_pattern[c]), float(self.data.n[c])) for c in cells)
        group = int(self.data.site_group[unit]) if self.grouped else 0
        law = self.law(counts, group, tuple(int(j) for j in present))
        told = sum((gain @ self.data.mean[c] for gain, c in zip(law.gain, cells, strict=True)), law.constant)
        return Line(told, law.slope, law.variance)

    @cached_property
    def _root(self) -> np.ndarray:
        return root(self.site)

    @cached_property
    def _basis(self) -> tuple[np.ndarray, np.ndarray]:
        """``T (draw, row, column)`` and ``l (draw, row)``."""
        turn = np.linalg.inv(np.linalg.cholesky(self.within))
        l, vector = np.linalg.eigh(turn @ self.site @ turn.swapaxes(1, 2))
        return vector.swapaxes(1, 2) @ turn, np.maximum(l, 0.0)

    def _precision(self, pattern: int) -> np.ndarray:
        """Inverse of the rows' covariance, zero in the columns that a pattern lacks."""
        columns = np.flatnonzero(self.data.pattern[pattern])
        block = np.ix_(np.arange(len(self.within)), columns, columns)
        out = np.zeros_like(self.within)
        out[block] = np.linalg.inv(self.within[block])
        return out

    def _law(self, counts: tuple[tuple[int, float], ...], group: int, present: tuple[int, ...]) -> _Law:
        p = self.mean.shape[1]
        complete = len(counts) == 1 and self.data.pattern[counts[0][0]].all() and len(present) == p - 1
        if complete and not self.grouped:
            return self._complete_law(counts[0][1])
        columns = np.array(present, dtype=np.int64)
        information = np.zeros_like(self.within)
        for pattern, n in counts:
            information += n * self.precision(pattern)
        across = self._root.swapaxes(1, 2)
        spread = self._root @ np.linalg.solve(np.eye(p) + across @ information @ self._root, across)
        covariance, mean = self.within + spread, self.mean
        if self.grouped:
            keep = np.eye(p) - spread @ information
            covariance = covariance + keep @ self.group_cov[:, group] @ keep.swapaxes(1, 2)
            mean = mean + np.einsum("sij,sj->si", keep, self.group_mean[:, group])
        slope, variance = regression(covariance, columns)
        contrast = np.zeros_like(self.mean)
        contrast[:, 0], contrast[:, columns] = 1.0, -slope
        reach = np.einsum("si,sij->sj", contrast, spread)
        gain = tuple(n * np.einsum("si,sij->sj", reach, self.precision(pattern)) for pattern, n in counts)
        constant = np.sum(contrast * mean, axis=1) - np.sum(sum(gain) * self.mean, axis=1)
        return _Law(constant, slope, variance, gain)

    def _complete_law(self, n: float) -> _Law:
        """The same for complete rows at a site with ``n`` of them: the inverse of the covariance has what a line needs."""
        turn, l = self._basis
        open_of_site = l / (1.0 + n * l)
        first = turn[:, :, 0] / (1.0 + open_of_site)
        row = np.einsum("sk,skj->sj", first, turn)  # of y, of the inverse of W + C
        gain = np.einsum("sk,skj->sj", first * (n * open_of_site), turn) / row[:, :1]
        contrast = row / row[:, :1]
        constant = np.sum((contrast - gain) * self.mean, axis=1)
        return _Law(constant, -contrast[:, 1:], 1.0 / row[:, 0], (gain,))
