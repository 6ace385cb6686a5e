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
from typing import Any, Protocol

import numpy as np
import scipy
import xarray as xr
from numpy.typing import ArrayLike

from bayesens.distributions.law import LOG_ROOT_2PI, Array, Component, Distribution
from bayesens.ensemble.transforms import TRANSFORMS, transform

__all__ = ["LogNormalMixture", "NormalMixture", "SquaredNormalMixture", "concatenate", "transformed"]

ROOT_2 = np.sqrt(2.0)


def _phi(x: Any) -> Any:
    """Density of the standard normal."""
    with np.errstate(over="ignore"):
        return np.exp(-0.5 * np.square(x) - LOG_ROOT_2PI)


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
        # T(h, b / h) has a limit at h = 0, and the limit is what is wanted; squares of smaller numbers are no numbers.
        mu = np.where(np.abs(mu) < 1e-100 * s, 1e-100 * s, mu)
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
        below = getattr(predictive, "cdf_below", None)  # of steps, any of which may be a threshold
        p = np.asarray(predictive.cdf(limit) if below is None else below(limit), dtype=np.float64)
        if below is None and hasattr(predictive, "mass_at_zero"):
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
