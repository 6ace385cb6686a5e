"""Predictive distributions of rows: mixtures of normals on the scale of a transform, with everything in closed form.

With ``Z`` a mixture of normals, row by row, the three classes are the laws of ``Y = Z``, of ``Y = max(Z, 0)^2`` and of
``Y = exp(Z)``. All share one body; a class adds the moments and mean differences of its components:
``CRPS(y) = sum_k w_k E|Y_k - y| - 1/2 sum_kl w_k w_l E|Y_k - Y_l'|``.

References
----------
Grimit, Gneiting, Berrocal & Johnson (2006), Q. J. R. Meteorol. Soc. 132, 2925: CRPS of normal mixtures.
Gneiting & Raftery (2007), JASA 102, 359: the form of the CRPS above. Owen (1956), Ann. Math. Stat. 27, 1075: T(h, a).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import scipy
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble.transforms import TRANSFORMS, Transform, transform

__all__ = ["Distribution", "LogNormalMixture", "NormalMixture", "SquaredNormalMixture", "concatenate", "transformed"]

Array = NDArray[np.float64]
Component = tuple[Array, ...]  # the rows' parameters of one component
LOG_ROOT_2PI = 0.5 * np.log(2.0 * np.pi)
ROOT_2 = np.sqrt(2.0)


def _phi(x: Any) -> Any:
    """Density of the standard normal."""
    with np.errstate(over="ignore"):
        return np.exp(-0.5 * np.square(x) - LOG_ROOT_2PI)


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

    @staticmethod
    def _difference(one: Component, other: Component) -> Array:
        """Return ``E|Y_k - Y_l'|`` for independent components."""
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

        >>> NormalMixture(1.0, [0.0], 1.0).crps(0.0).round(4)
        np.float64(0.2337)
        """
        y = np.asarray(y, dtype=np.float64)
        inside = np.maximum(y, self.transform.lower)
        score = inside - y  # an observation below the domain is that much farther from all of Y
        weight = np.moveaxis(self.weight, -1, 0)
        component: list[Component] = list(zip(*self._parts(), strict=True))
        # A loop over pairs keeps the memory at a few rows' worth.
        for k, one in enumerate(component):
            score = score + weight[k] * self._deviation(inside, one) - 0.5 * weight[k] ** 2 * self._difference(one, one)
            for l in range(k):
                score = score - weight[k] * weight[l] * self._difference(one, component[l])
        return np.maximum(score, 0.0)  # rounding only: the score is not negative


class NormalMixture(Distribution):
    """Mixture of normals in each row: ``F(y) = sum_k w_k Phi((y - mu_k) / sigma_k)``.

    See :class:`Distribution` for the parameters and the methods.

    Examples
    --------
    >>> NormalMixture(weight=[0.25, 0.75], mu=[0.0, 4.0], sigma=1.0).mean()
    np.float64(3.0)
    """

    transform = TRANSFORMS["identity"]

    def _component_moments(self) -> tuple[Array, Array]:
        return self.mu, self.sigma**2

    @staticmethod
    def _deviation(y: Array, one: Component) -> Array:
        mu, sigma = one
        return _mean_modulus(y - mu, sigma)

    @staticmethod
    def _difference(one: Component, other: Component) -> Array:
        (mu, s), (nu, t) = one, other
        return _mean_modulus(mu - nu, np.hypot(s, t))


class LogNormalMixture(Distribution):
    """Mixture of lognormals in each row: ``Y = exp(Z)``.

    See :class:`Distribution` for the parameters, which are those of ``log Y``, and the methods.

    Examples
    --------
    >>> LogNormalMixture(weight=1.0, mu=[0.0], sigma=1.0).mean().round(4)  # exp(1 / 2)
    np.float64(1.6487)
    """

    transform = TRANSFORMS["log"]

    def _component_moments(self) -> tuple[Array, Array]:
        mean = np.exp(self.mu + 0.5 * self.sigma**2)
        return mean, mean**2 * np.expm1(self.sigma**2)

    def _parts(self) -> Sequence[Array]:
        mu, sigma = super()._parts()
        return mu, sigma, np.exp(mu + 0.5 * sigma**2)

    @staticmethod
    def _deviation(y: Array, one: Component) -> Array:
        mu, sigma, mean = one
        with np.errstate(divide="ignore"):
            t = (np.log(y) - mu) / sigma
        return np.asarray(y * scipy.special.erf(t / ROOT_2) - mean * scipy.special.erf((t - sigma) / ROOT_2))

    @staticmethod
    def _difference(one: Component, other: Component) -> Array:
        # E max(Y, Y') = E Y P(Z > Z') + E Y' P(Z' > Z), each P with its own Z moved up by its variance.
        (mu, s, mean), (nu, t, mean_) = one, other
        root = ROOT_2 * np.hypot(s, t)
        return np.asarray(
            mean * scipy.special.erf((mu - nu + s**2) / root) + mean_ * scipy.special.erf((nu - mu + t**2) / root)
        )


class SquaredNormalMixture(Distribution):
    """Law of ``Y = max(Z, 0)^2`` with ``Z`` a mixture of normals: the back-transform of ``sqrt``.

    ``P(Y = 0) = sum_k w_k Phi(-mu_k / sigma_k)``; over ``y > 0`` there is a density, unbounded towards 0.
    See :class:`Distribution` for the parameters, which are those of ``Z``, and the methods.

    Notes
    -----
    At ``y = 0``, ``logpdf`` is the logarithm of the mass there and ``pdf`` the mass: a log score over all rows mixes
    densities (per unit of ``y``) with probabilities, so rows of zero are to be scored apart.

    Examples
    --------
    With ``Z`` standard normal, half of ``Y`` is 0 and the mean is a half of ``E Z^2``.

    >>> half = SquaredNormalMixture(weight=1.0, mu=[0.0], sigma=1.0)
    >>> half.mass_at_zero(), half.mean()
    (np.float64(0.5), np.float64(0.5))
    """

    transform = TRANSFORMS["sqrt"]

    def logpdf(self, y: ArrayLike) -> Array:
        """Log density at ``y > 0`` with the Jacobian; log of the mass at ``y = 0``; minus infinity below."""
        y = np.asarray(y, dtype=np.float64)
        with np.errstate(divide="ignore"):
            return np.where(y == 0.0, np.log(self.mass_at_zero()), super().logpdf(y))

    def mass_at_zero(self) -> Array:
        """Return ``P(Y = 0)``."""
        return self.cdf(0.0)

    def pit(self, y: ArrayLike, rng: np.random.Generator | None = None) -> Array:
        """Probability integral transform, drawn uniformly from ``[0, P(Y = 0)]`` where ``y`` is 0.

        Parameters
        ----------
        y : array (...)
            Observations.
        rng : numpy.random.Generator, optional
            Needed if there are zeros in ``y``.

        Returns
        -------
        array (...)

        Raises
        ------
        ValueError
            If there are zeros in ``y`` and no ``rng``.

        References
        ----------
        Czado, Gneiting & Held (2009), Biometrics 65, 1254.
        """
        value, zero = self.cdf(y), np.asarray(y) == 0.0
        if not zero.any():
            return value
        if rng is None:
            raise ValueError(f"{int(zero.sum())} values are 0, where the distribution has a point mass and its PIT is "
                             "random; pass rng=numpy.random.default_rng(seed).")  # fmt: skip
        return np.where(zero, value * rng.random(value.shape), value)

    def _component_moments(self) -> tuple[Array, Array]:
        mu, s = self.mu, self.sigma
        z = mu / s
        above, density = scipy.special.ndtr(z), _phi(z)
        mean = (mu**2 + s**2) * above + mu * s * density
        square = (mu**4 + 6 * mu**2 * s**2 + 3 * s**4) * above + (mu**3 * s + 5 * mu * s**3) * density
        # Beyond 9 sigma nothing is cut off, and the difference of the moments would lose digits.
        return mean, np.where(z > 9.0, 4 * mu**2 * s**2 + 2 * s**4, np.maximum(square - mean**2, 0.0))

    def _parts(self) -> Sequence[Array]:
        mu, s = super()._parts()
        mu = np.where(mu == 0.0, 1e-100 * s, mu)  # T(h, b / h) has a limit at h = 0, and the limit is what is wanted
        density, below = _phi(mu / s), scipy.special.ndtr(-mu / s)
        return mu, s, density, below, (mu**2 + s**2) * (1.0 - below) + mu * s * density

    @staticmethod
    def _deviation(y: Array, one: Component) -> Array:
        # E|Y - y| = E Y - y + 2 E(y - Y)+, and E(y - Y)+ = y Phi(t) - E[Z^2; 0 < Z < a] with a = sqrt(y).
        mu, s, density, below, mean = one
        a = np.sqrt(y)
        t = (a - mu) / s
        under = scipy.special.ndtr(t)
        inside = (mu**2 + s**2) * (under - below) - s * ((mu + a) * _phi(t) - mu * density)
        return np.asarray(mean - y + 2.0 * (y * under - inside))

    @staticmethod
    def _difference(one: Component, other: Component) -> Array:
        # |Y - Y'| = 2 max(Y, Y') - Y - Y', and max(Y, Y') = max(Z, Z', 0)^2 has Clark's moment of the greater of two
        # normals, cut off at 0. The weights of mu^2 and nu^2 in it are the probabilities that Z or Z' is the greatest
        # of the three: a quadrant of the bivariate normal law of (Z, Z - Z'), by Owen's T.
        (mu, s, density, below, mean), (nu, t, density_, below_, mean_) = one, other
        z, v, root = mu / s, nu / t, np.hypot(s, t)
        h, q = (mu - nu) / root, (z * t + v * s) / root
        above, neither = scipy.special.ndtr(h), below * below_
        if one is other:
            first = 0.5 * (1.0 - neither)
        else:
            h = np.where(h == 0.0, 1e-100, h)
            with np.errstate(over="ignore"):
                first = (
                    0.5 * (1.0 - below + above - (z * h < 0.0))
                    - scipy.special.owens_t(z, -v / z)
                    - scipy.special.owens_t(h, q / h)
                )
        greatest = (mu**2 + s**2) * first + (nu**2 + t**2) * (1.0 - neither - first) + s * t * density * density_
        greatest += (
            mu * s * density * below_ + nu * t * density_ * below + (mu + nu) * root * _phi(h) * scipy.special.ndtr(q)
        )
        return np.asarray(2.0 * greatest - mean - mean_)


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


def _mean_modulus(mu: Array, sigma: Array) -> Array:
    """Return ``E|X|`` of a normal."""
    z = mu / sigma
    return np.asarray(2.0 * sigma * _phi(z) + mu * scipy.special.erf(z / ROOT_2))


CLASSES: dict[str, type[Distribution]] = {
    c.transform.name: c for c in (NormalMixture, SquaredNormalMixture, LogNormalMixture)
}


def transformed(mixture: NormalMixture, name: str) -> Distribution:
    """Law of ``Y`` where ``g(Y)`` follows a mixture of normals.

    Parameters
    ----------
    mixture : NormalMixture
        On the scale of the transform.
    name : {"identity", "sqrt", "log"}
        The transform ``g``.

    Returns
    -------
    NormalMixture, SquaredNormalMixture or LogNormalMixture

    Examples
    --------
    >>> transformed(NormalMixture(1.0, [[2.0]], 0.1), "sqrt").quantile(0.5)
    array([4.])
    """
    return CLASSES[transform(name).name](mixture.weight, mixture.mu, mixture.sigma)


def concatenate[D: Distribution](distributions: Sequence[D]) -> D:
    """Join distributions of one class along their first axis of rows.

    Parameters
    ----------
    distributions : sequence of distributions
        Those with fewer components get absent ones.

    Returns
    -------
    distribution

    Raises
    ------
    TypeError
        If the classes differ.

    Examples
    --------
    >>> one = NormalMixture(1.0, [[2.0]], 0.1)
    >>> two = NormalMixture([0.5, 0.5], [[1.0, 2.0]], 0.1)
    >>> concatenate([one, two])
    NormalMixture(shape=(2,), components=2)
    """
    kinds = {type(d) for d in distributions}
    if len(kinds) != 1:
        names = sorted(kind.__name__ for kind in kinds)
        raise TypeError(f"Distributions of one class can be joined; got {', '.join(names) if names else 'none'}.")
    most = max(d.weight.shape[-1] for d in distributions)
    parts = []
    for name, absent in (("weight", 0.0), ("mu", 0.0), ("sigma", 1.0)):
        arrays = [getattr(d, name) for d in distributions]
        pads = [[(0, 0)] * (a.ndim - 1) + [(0, most - a.shape[-1])] for a in arrays]
        parts.append(np.concatenate([np.pad(a, pad, constant_values=absent) for a, pad in zip(arrays, pads)], axis=0))
    return kinds.pop()(*parts)


class Law(Protocol):
    """What a predictive distribution needs to have."""

    def cdf(self, y: Array) -> Array:
        """Return ``P(Y <= y)`` of every row."""
        ...


def probability_below(
    predictive: ArrayLike | xr.DataArray | Law, threshold: float | ArrayLike | xr.DataArray
) -> xr.DataArray:
    """Predictive probability that a row is strictly below its threshold.

    Parameters
    ----------
    predictive : array (sample, obs), or a distribution of shape (obs)
        Draws, or an object with ``cdf(y)``, such as ``bayesens.inference.predict.distribution`` gives; a point mass at a
        threshold of zero is not below it.
    threshold : float or array (obs)
        Of every row, as `threshold_at` gives.

    Returns
    -------
    DataArray (obs)
        NaN where there is no prediction or no threshold. With the coordinates of draws or threshold where these have some.

    Raises
    ------
    ValueError
        Shapes that do not fit.

    Examples
    --------
    >>> probability_below([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0], [4.0, 8.0]], [2.5, 5.0]).values
    array([0.5, 0. ])
    """
    limit = np.asarray(threshold, dtype=np.float64)
    if hasattr(predictive, "cdf"):
        p = np.asarray(predictive.cdf(limit), dtype=np.float64)
        if hasattr(predictive, "mass_at_zero"):
            p = np.where(limit == 0.0, p - predictive.mass_at_zero(), p)
    else:
        draws = np.asarray(predictive, dtype=np.float64)
        if draws.ndim != 2 or limit.shape not in ((), draws.shape[1:]):
            raise ValueError(f"got draws of shape {draws.shape} and thresholds of shape {limit.shape}; wanted (sample, obs) and "
                             "(obs) or one number")  # fmt: skip
        p = np.where(np.isnan(draws + limit).any(axis=0), np.nan, np.mean(draws < limit, axis=0))
    if p.ndim != 1:
        raise ValueError(
            f"the probability has shape {p.shape}; wanted a distribution of shape (obs) and thresholds (obs)"
        )
    labelled = [x for x in (threshold, predictive) if isinstance(x, xr.DataArray) and x.dims[-1:] == ("obs",)]
    coords = {name: c for x in labelled[:1] for name, c in x.coords.items() if c.dims == ("obs",)}
    return xr.DataArray(p, coords, ("obs",), name="probability", attrs={"long_name": "probability below the threshold"})
