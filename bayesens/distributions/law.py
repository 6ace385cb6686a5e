"""A predictive law of a mixture of normals on some scale: what all of them can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from bayesens.arithmetic import LOG_2PI
from bayesens.ensemble.transforms import Transform
from bayesens.threads import CORES, share_out

__all__ = [
    "BY",
    "DIFFERENCE",
    "EXPONENTIAL",
    "GREATEST",
    "ITSELF",
    "LOG_ROOT_2PI",
    "SQUARE",
    "Array",
    "Component",
    "Distribution",
    "of_pairs",
]

Array = NDArray[np.float64]


Component = tuple[Array, ...]  # the rows' parameters of one component


LOG_ROOT_2PI = 0.5 * LOG_2PI
# What a kernel is asked for, and of what.
DIFFERENCE, GREATEST = range(2)
ITSELF, SQUARE, EXPONENTIAL = range(3)
BY = {"identity": ITSELF, "sqrt": SQUARE, "log": EXPONENTIAL}
PAIRS_FOR_THREADS = 20_000
NUMBERS = 100_000  # of components and rows at a time, so that memory stays small


@dataclass(frozen=True, eq=False, repr=False)
class Distribution:
    """Law of ``Y = g^-1(Z)`` with ``Z`` a mixture of normals in each row: what the three classes share.

    Parameters
    ----------
    weight : array (..., component)
        Weights that sum to one over the last axis. A component of weight 0 or NaN is absent, whatever its ``mu`` and
        ``sigma`` are (a missing member); a row without any component gives NaN everywhere.
    mu, sigma : array (..., component)
        Means and standard deviations of the components, on the scale of the transform. A row with NaN in a component
        that counts gives NaN everywhere.

    Raises
    ------
    ValueError
        If weights are negative or do not sum to one (to 1e-5; they are then divided by their sum), or if a standard
        deviation is not positive.

    Notes
    -----
    The three arrays are broadcast against each other. Arguments ``y`` have the shape of the rows or broadcast to it,
    and a NaN in ``y`` gives NaN there.

    Examples
    --------
    >>> from bayesens.distributions.mixtures import NormalMixture
    >>> two = NormalMixture(weight=[0.5, 0.5], mu=[[-1.0, 1.0], [4.0, 8.0]], sigma=1.0)
    >>> two
    NormalMixture(shape=(2,), components=2)
    >>> two.mean(), two.variance_between(), two.variance_within()
    (array([0., 6.]), array([1., 4.]), array([1., 1.]))
    >>> two[1].quantile(0.5)
    np.float64(6.0)
    """

    weight: Array
    mu: Array
    sigma: Array

    transform: ClassVar[Transform]

    def __post_init__(self) -> None:
        # Absent components are given weight 0, mu 0 and sigma 1, so that the formulas need no masks.
        weight, mu, sigma = (np.atleast_1d(np.asarray(x, np.float64)) for x in (self.weight, self.mu, self.sigma))
        components = np.broadcast_shapes(weight.shape[-1:], mu.shape[-1:], sigma.shape[-1:])
        weight = _normalised(np.broadcast_to(weight, weight.shape[:-1] + components))
        weight, mu, sigma = np.broadcast_arrays(weight, mu, sigma)
        absent = weight == 0.0
        if absent.any():
            mu, sigma = np.where(absent, 0.0, mu), np.where(absent, 1.0, sigma)
        lost = np.isnan(weight + mu + sigma).any(axis=-1, keepdims=True)
        if lost.any():
            weight, mu, sigma = (np.where(lost, np.nan, x) for x in (weight, mu, sigma))
        _refuse(np.any(sigma <= 0.0, axis=-1), "a standard deviation that is not positive; check the fitted sigma")
        for name, array in zip(("weight", "mu", "sigma"), (weight, mu, sigma), strict=True):
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, components={self.weight.shape[-1]})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the rows."""
        return self.weight.shape[:-1]

    def __getitem__(self, rows: Any) -> Self:
        index = (*(rows if isinstance(rows, tuple) else (rows,)), slice(None))
        return type(self)(self.weight[index], self.mu[index], self.sigma[index])

    # ------------------------------------------------------------------------------------ densities and probabilities
    def _latent(self, y: ArrayLike) -> Array:
        """Return ``g(y)``, with minus infinity below the domain."""
        y, lower = np.asarray(y, dtype=np.float64), self.transform.lower
        with np.errstate(divide="ignore"):
            return np.asarray(np.where(y < lower, -np.inf, self.transform.forward(np.maximum(y, lower))))

    def _standardised(self, y: ArrayLike) -> Array:
        return np.asarray((self._latent(y)[..., None] - self.mu) / self.sigma)

    def logpdf(self, y: ArrayLike) -> Array:
        """Log density at ``y``, with the Jacobian of the transform; it does not underflow.

        Parameters
        ----------
        y : array (...)
            Observations.

        Returns
        -------
        array (...)
            Per unit of ``y``; minus infinity outside the support.
        """
        with np.errstate(divide="ignore", over="ignore"):
            term = np.log(self.weight) - np.log(self.sigma) - 0.5 * self._standardised(y) ** 2
            top = term.max(axis=-1)
            top = np.where(np.isneginf(top), 0.0, top)
            latent = top + np.log(np.exp(term - top[..., None]).sum(axis=-1)) - LOG_ROOT_2PI
        y = np.asarray(y, dtype=np.float64)
        return np.asarray(latent + self.transform.log_jacobian(np.where(y > self.transform.lower, y, 1.0)))

    def pdf(self, y: ArrayLike) -> Array:
        """Density at ``y``: the exponential of :meth:`logpdf`."""
        return np.exp(self.logpdf(y))

    def cdf(self, y: ArrayLike) -> Array:
        """Return ``P(Y <= y)``."""
        # Weights sum to one up to rounding, and a probability above one would be NaN to whoever inverts it.
        return np.minimum(np.einsum("...c,...c->...", self.weight, scipy.special.ndtr(self._standardised(y))), 1.0)

    def sf(self, y: ArrayLike) -> Array:
        """Return ``P(Y > y)``, exact in the upper tail too."""
        return np.minimum(np.einsum("...c,...c->...", self.weight, scipy.special.ndtr(-self._standardised(y))), 1.0)

    def mass_at_zero(self) -> Array:
        """Return ``P(Y = 0)``; 0 for a continuous distribution."""
        return 0.0 * self.weight[..., 0]

    def pit(self, y: ArrayLike, rng: np.random.Generator | None = None) -> Array:
        """Probability integral transform: uniform where ``y`` follows the distribution.

        Parameters
        ----------
        y : array (...)
            Observations.
        rng : numpy.random.Generator, optional
            Needed where ``y`` meets a point mass, see :meth:`SquaredNormalMixture.pit`; not used otherwise.

        Returns
        -------
        array (...)
        """
        return self.cdf(y)

    def quantile(self, p: ArrayLike) -> Array:
        """Quantiles, to about 1e-12 of the least sigma and not decreasing in ``p``.

        Parameters
        ----------
        p : float or array (p)
            Probabilities inside (0, 1), in any order.

        Returns
        -------
        array (...) or (..., p)
            The rows alone for a scalar ``p``.

        Raises
        ------
        ValueError
            If ``p`` is not inside (0, 1), or has more than one axis.

        Examples
        --------
        >>> from bayesens.distributions.mixtures import NormalMixture
        >>> NormalMixture(1.0, [[5.0]], 2.0).quantile([0.5, 0.975]).round(2)
        array([[5. , 8.92]])
        """
        from bayesens.distributions.loops import mixture_quantile  # importing numba takes longer than all else here

        p = np.asarray(p, dtype=np.float64)
        if p.ndim > 1 or not np.all((p > 0.0) & (p < 1.0)):
            raise ValueError(f"A quantile needs a probability inside (0, 1), or a list of them; got {p!r}.")
        left, inverse = np.unique(p, return_inverse=True)
        right = 1.0 - left
        z = np.where(left <= 0.5, scipy.special.ndtri(left), -scipy.special.ndtri(right))
        # Writable copies: numba would compile the kernel once more for arrays that are read-only.
        flat = [np.array(x, order="C").reshape(-1, x.shape[-1]) for x in (self.weight, self.mu, self.sigma)]
        out = np.empty((flat[0].shape[0], left.size))
        mixture_quantile(*flat, left, right, z, out)
        out = np.asarray(self.transform.inverse(out))[:, inverse.reshape(-1)]
        return out.reshape(self.shape + p.shape)[()]

    def interval(self, level: float) -> tuple[Array, Array]:
        """Central interval that holds ``Y`` with probability ``level``.

        Parameters
        ----------
        level : float
            Inside (0, 1), such as 0.9.

        Returns
        -------
        lower, upper : array (...)

        Examples
        --------
        >>> from bayesens.distributions.mixtures import NormalMixture
        >>> lower, upper = NormalMixture(1.0, [[5.0]], 2.0).interval(0.95)
        >>> lower.round(2), upper.round(2)
        (array([1.08]), array([8.92]))
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"The level of an interval lies inside (0, 1), such as 0.9; got {level!r}.")
        both = self.quantile([0.5 * (1.0 - level), 0.5 * (1.0 + level)])
        return both[..., 0], both[..., 1]

    def sample(self, size: int, rng: np.random.Generator) -> Array:
        """Draw independent values of each row.

        Parameters
        ----------
        size : int
            Number of draws.
        rng : numpy.random.Generator
            Source of randomness.

        Returns
        -------
        array (size, ...)
        """
        edge = np.cumsum(self.weight, axis=-1)
        edge = edge[..., :-1] / edge[..., -1:]  # an absent last component must not be reached by rounding
        uniform = rng.random((size, *self.shape))
        index = np.zeros(uniform.shape, dtype=np.intp)
        for c in range(edge.shape[-1]):
            index += uniform >= edge[..., c]
        mu, sigma = (np.take_along_axis(x[None], index[..., None], axis=-1)[..., 0] for x in (self.mu, self.sigma))
        return np.asarray(self.transform.inverse(mu + sigma * rng.standard_normal(uniform.shape)))

    # ---------------------------------------------------------------------------------------------- moments and scores
    def _component_moments(self) -> tuple[Array, Array]:
        """Mean and variance of each component of ``Y``."""
        raise NotImplementedError

    def _parts(self) -> Sequence[Array]:
        """Arrays (component, ...) of what the two expectations below need of a component: mu, sigma and more."""
        return [np.ascontiguousarray(np.moveaxis(x, -1, 0)) for x in (self.mu, self.sigma)]

    @staticmethod
    def _deviation(y: Array, one: Component) -> Array:
        """Return ``E|Y_k - y|`` for ``y`` in the closed domain of the transform."""
        raise NotImplementedError

    def mean(self) -> Array:
        """Mean of ``Y``."""
        return np.einsum("...c,...c->...", self.weight, self._component_moments()[0])

    def variance_within(self) -> Array:
        """Mean of the components' variances."""
        return np.einsum("...c,...c->...", self.weight, self._component_moments()[1])

    def variance_between(self) -> Array:
        """Variance of the components' means: the members' disagreement."""
        mean = self._component_moments()[0]
        centre = np.einsum("...c,...c->...", self.weight, mean)
        return np.einsum("...c,...c->...", self.weight, (mean - centre[..., None]) ** 2)

    def variance(self) -> Array:
        """Variance of ``Y``: :meth:`variance_between` plus :meth:`variance_within`."""
        return self.variance_between() + self.variance_within()

    def sd(self) -> Array:
        """Standard deviation of ``Y``."""
        return np.sqrt(self.variance())

    def crps(self, y: ArrayLike) -> Array:
        """Continuous ranked probability score, in closed form.

        Parameters
        ----------
        y : array (...)
            Observations.

        Returns
        -------
        array (...)
            In units of ``y``; smaller is better, 0 for certainty at ``y``.

        Examples
        --------
        A standard normal at its centre scores ``2 phi(0) - 1 / sqrt(pi)``.

        >>> from bayesens.distributions.mixtures import NormalMixture
        >>> NormalMixture(1.0, [0.0], 1.0).crps(0.0).round(4)
        np.float64(0.2337)
        """
        y = np.asarray(y, dtype=np.float64)
        inside = np.maximum(y, self.transform.lower)
        score = inside - y  # an observation below the domain is that much farther from all of Y
        weight = np.moveaxis(self.weight, -1, 0)
        parts = self._parts()
        for w, *one in zip(weight, *parts, strict=True):
            score = score + w * self._deviation(inside, tuple(one))
        return np.maximum(score - 0.5 * self._spread(weight, parts), 0.0)  # rounding only: the score is not negative

    def _spread(self, weight: Array, parts: Sequence[Array]) -> Array:
        """Return ``E|Y - Y'|`` of two independent draws."""
        flat = [np.reshape(part, (len(weight), -1)) for part in (weight, *parts)]
        by, (components, rows) = BY[self.transform.name], flat[0].shape
        return of_pairs(DIFFERENCE, by, lambda some: [a[:, some] for a in flat], (rows, components)).reshape(
            weight.shape[1:]
        )


def of_pairs(what: int, by: int, numbers: Callable[[slice], Sequence[Array]], shape: tuple[int, ...]) -> Array:
    """What `over_pairs` says of all rows, by several threads.

    Parameters
    ----------
    what, by : int
        As there.
    numbers : callable
        Takes a slice of rows; returns their weights (component, row) and what else is said of the components.
    shape : (row, component)

    Returns
    -------
    array (row)
    """
    from bayesens.distributions.loops import over_pairs  # loads numba

    rows, components = shape
    out = np.empty(rows)

    def of_rows(some: slice) -> None:
        weight, *parts = numbers(some)
        over_pairs(
            what, by, np.ascontiguousarray(weight), np.concatenate([np.ravel(part) for part in parts]), out[some]
        )

    many = rows * components**2 >= PAIRS_FOR_THREADS
    share_out(of_rows, rows, max(CORES, rows * components // NUMBERS) if many else 1)
    return out


def _normalised(weight: Array) -> Array:
    """Weights that sum to one exactly, NaN for a row without any."""
    weight = np.where(np.isnan(weight), 0.0, weight)
    _refuse((weight < 0.0).any(axis=-1), "a negative weight; weights lie on the simplex")
    total = weight.sum(axis=-1, keepdims=True)
    off = (np.abs(total - 1.0) > 1e-5) & (total != 0.0)
    _refuse(off[..., 0], "weights that do not sum to one; divide them by their sum over the members that the row has")
    return weight / np.where(total == 0.0, np.nan, total)


def _refuse(bad: NDArray[np.bool_], what: str) -> None:
    rows = np.flatnonzero(bad)
    if rows.size:
        raise ValueError(f"{rows.size} of {bad.size} rows of a mixture (first: row {rows[0]}) have {what}.")
