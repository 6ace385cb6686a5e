"""Predictive distributions that are step functions: of every row, a mixture of two neighbours among a few of them.

Everything is exact and takes a few numbers a row, whatever the number of steps: with F = (1 - s) F_k + s F_{k + 1}, integrals of
F are linear, and those of F^2 a quadratic form, in (1 - s, s), with coefficients that are found once for all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesens.distributions.posterior_mixture import Moments

__all__ = ["Steps"]

Array = NDArray[np.float64]
SAME = 1e-12  # of a probability: a level that a sum of shares reaches up to rounding is reached


@dataclass(frozen=True, eq=False, repr=False)
class Steps:
    """Step functions of rows; a row without a prediction has a share of NaN.

    Attributes
    ----------
    value : array (threshold)
        Where the steps are, increasing.
    at : array (knot, threshold)
        Distribution functions there; the last column is one.
    left : int array (row)
        Of the knots that a row lies between, the lower one.
    share : array (row)
        Of the upper one.

    Examples
    --------
    >>> law = Steps(np.array([0.0, 4.0]), np.array([[0.5, 1.0], [0.0, 1.0]]), np.array([0, 0]), np.array([0.0, 0.5]))
    >>> law.mean(), law.crps(4.0), law.quantile(0.5)
    (array([2., 3.]), array([1.  , 0.25]), array([0., 4.]))
    """

    value: Array
    at: Array
    left: NDArray[np.intp]
    share: Array

    no_density = "a step function has no density"

    def __len__(self) -> int:
        return len(self.left)

    def __repr__(self) -> str:
        return f"Steps(shape={self.shape}, thresholds={len(self.value)})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the rows."""
        return self.left.shape

    @property
    def n_draws(self) -> int:
        """Number of posterior draws: one, for nothing is drawn."""
        return 1

    # -------------------------------------------------------------------------------------------- as a fit's prediction
    def select(self, rows: Any) -> Steps:
        """The same, of some rows."""
        return replace(self, left=self.left[rows], share=self.share[rows])

    __getitem__ = select

    def matched(self) -> Steps:
        """Itself: it has no posterior to be summed up."""
        return self

    def matched_parts(self, size: int = 0) -> Iterator[tuple[NDArray[np.intp], Steps]]:
        """All rows at once, which take little memory."""
        yield np.arange(len(self)), self

    def moments(self) -> Moments:
        """Mean and variance, all of which is within the one kernel."""
        mean, none = self.mean(), np.where(np.isnan(self.share), np.nan, 0.0)
        return Moments(mean, self.variance(), none, none)

    def log_density(self, z: Array, below: NDArray[np.bool_] | None = None) -> Array:
        """NaN: there is no density."""
        return np.full(len(self), np.nan)

    def log_likelihood(self, z: Array, below: NDArray[np.bool_] | None = None) -> Array:
        """NaN, (1, row)."""
        return self.log_density(z)[None]

    def sample(self, size: int, rng: np.random.Generator) -> Array:
        """Draw independent values of each row, (size, row)."""
        return np.stack([self._first(rng.random(len(self))) for _ in range(size)])

    def sample_each(self, rng: np.random.Generator) -> Array:
        """Draw once, (1, row)."""
        return self.sample(1, rng)

    # ------------------------------------------------------------------------------------------------------- as a law
    def cdf(self, y: ArrayLike) -> Array:
        """Return ``P(Y <= y)``."""
        return self._reached(y, "right")

    def cdf_below(self, y: ArrayLike) -> Array:
        """Return ``P(Y < y)``."""
        return self._reached(y, "left")

    def sf(self, y: ArrayLike) -> Array:
        """Return ``P(Y > y)``."""
        return 1.0 - self.cdf(y)

    def logpdf(self, y: ArrayLike) -> Array:
        """NaN: there is no density."""
        return np.full(self._rows(y).shape, np.nan)

    pdf = logpdf

    def mass_at_zero(self) -> Array:
        """Return ``P(Y = 0)``."""
        return self.cdf(0.0) - self.cdf_below(0.0)

    def pit(self, y: ArrayLike, rng: np.random.Generator | None = None) -> Array:
        """Probability integral transform: drawn uniformly from ``P(Y < y)`` to ``P(Y <= y)``; the middle without ``rng``."""
        below, upto = self.cdf_below(y), self.cdf(y)
        return below + (upto - below) * (0.5 if rng is None else rng.random(below.shape))

    def quantile(self, p: ArrayLike) -> Array:
        """Quantiles: the least value whose distribution function reaches ``p``, (row) or (row, p)."""
        p = np.asarray(p, dtype=np.float64)
        if p.ndim > 1 or not np.all((p > 0.0) & (p < 1.0)):
            raise ValueError(f"A quantile needs a probability inside (0, 1), or a list of them; got {p!r}.")
        found = [self._first(np.full(len(self), one)) for one in np.atleast_1d(p)]
        return np.stack(found, axis=1) if p.ndim else found[0]

    def interval(self, level: float) -> tuple[Array, Array]:
        """Central interval that holds ``Y`` with this probability at least."""
        return self.quantile(0.5 * (1.0 - level)), self.quantile(0.5 * (1.0 + level))

    def mean(self) -> Array:
        """Mean of ``Y``."""
        return self._mixed(self._mass @ self.value)

    def variance(self) -> Array:
        """Variance of ``Y``."""
        center = float(self.value.mean())
        first, square = (self._mixed(self._mass @ (self.value - center) ** power) for power in (1, 2))
        return np.maximum(square - first**2, 0.0)

    def sd(self) -> Array:
        """Standard deviation of ``Y``."""
        return np.sqrt(self.variance())

    def crps(self, y: ArrayLike) -> Array:
        """Continuous ranked probability score, exact."""
        return self.threshold_crps(y, -np.inf, np.inf)

    def threshold_crps(self, y: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> Array:
        """Integral of the squared difference between two thresholds; see `bayesens.comparison.bands.threshold_crps`."""
        y, first, last = self._rows(y), self.value[0], self.value[-1]
        low = np.maximum(self._rows(lower), np.minimum(y, first))  # farther out there is no difference
        high = np.maximum(np.minimum(self._rows(upper), np.maximum(y, last)), low)
        v = np.clip(y, low, high)
        square = self._square_upto(high) - self._square_upto(low)
        return np.maximum(square - 2.0 * (self._upto(high) - self._upto(v)) + high - v, 0.0)

    # --------------------------------------------------------------------------------------------------- what they use
    def _rows(self, y: ArrayLike) -> Array:
        return np.broadcast_to(np.asarray(y, dtype=np.float64), self.shape)

    @cached_property
    def _right(self) -> NDArray[np.intp]:
        return np.minimum(self.left + 1, len(self.at) - 1)

    def _mixed(self, of_knots: Array, step: NDArray[np.intp] | None = None) -> Array:
        """What is linear in the distribution, of every row: a number of each knot, or one of each of its steps."""
        low, high = (of_knots[k] if step is None else of_knots[k, step] for k in (self.left, self._right))
        return (1.0 - self.share) * low + self.share * high

    def _reached(self, y: ArrayLike, side: Literal["left", "right"]) -> Array:
        """Probability of the values up to ``y``, without it or with it."""
        y = self._rows(y)
        count = np.searchsorted(self.value, y, side=side)
        found = np.where(count > 0, self._mixed(self.at, np.maximum(count - 1, 0)), 0.0 * self.share)
        return np.where(np.isnan(y), np.nan, found)

    def _first(self, p: Array) -> Array:
        """The first value at which the distribution function reaches ``p``, by bisection."""
        low, high = np.zeros(len(self), dtype=np.intp), np.full(len(self), len(self.value) - 1)
        while np.any(low < high):
            middle = (low + high) // 2
            there = self._mixed(self.at, middle) >= p - SAME
            low, high = np.where(there, low, np.minimum(middle + 1, high)), np.where(there, middle, high)
        return np.where(np.isnan(self.share), np.nan, self.value[high])

    @cached_property
    def _mass(self) -> Array:
        return np.diff(self.at, axis=1, prepend=0.0)

    @cached_property
    def _area(self) -> Array:
        """Integrals of the distribution functions up to each value, (knot, threshold)."""
        return self._integrals(self.at)

    @cached_property
    def _squares(self) -> tuple[Array, Array]:
        """Those of their squares, and of the products with the next."""
        after = self.at[np.minimum(np.arange(len(self.at)) + 1, len(self.at) - 1)]
        return self._integrals(self.at**2), self._integrals(self.at * after)

    def _integrals(self, function: Array) -> Array:
        found = np.zeros_like(function)
        np.cumsum(function[:, :-1] * np.diff(self.value), axis=1, out=found[:, 1:])
        return found

    def _upto(self, x: Array) -> Array:
        """Integral of the distribution function up to a value of each row."""
        step, over = self._place(x)
        return self._mixed(self._area, step) + self._mixed(self.at, step) * over

    def _square_upto(self, x: Array) -> Array:
        (step, over), s = self._place(x), self.share
        alone, beside = self._squares
        here = (1.0 - s) ** 2 * alone[self.left, step] + s**2 * alone[self._right, step]
        return here + 2.0 * s * (1.0 - s) * beside[self.left, step] + self._mixed(self.at, step) ** 2 * over

    def _place(self, x: Array) -> tuple[NDArray[np.intp], Array]:
        """The last step up to a value, and how far the value is beyond it; not at all before the first."""
        step = np.maximum(np.searchsorted(self.value, x, side="right") - 1, 0)
        return step, np.maximum(x - self.value[step], 0.0)
