"""A proposal that follows the skewness of a posterior around its optimum.

The normal approximation has the optimum and the curvature right and knows nothing of third derivatives, which is what makes
its importance weights fail: weights near zero, scales of members with little weight, locations that are known the less the
smaller that weight is. Here coordinates are rotated to the axes of largest skewness; along each, in turn, stands a log-gamma
variable of the right skewness (the exact answer for the logarithm of a weight), shifted and stretched by those before it.
To third order the density is that of the posterior; it is an ordinary proposal, with an exact density, otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from bayesens.arithmetic import LOG_2PI
from bayesens.inference.log_density import Target

__all__ = ["SkewMap", "skew_map"]

STEP = 1.0  # of the differences, in standard deviations: skewness where the mass is, not at the optimum alone
STRETCH = 0.6  # largest logarithm of a scale that one variable gives to those after it
LARGEST = 1.0  # skewness of the most skewed log-gamma variable, the logarithm of an exponential one
SMALLEST = 0.01  # below it the variable is normal


@dataclass(frozen=True)
class SkewMap:
    """Distribution of ``center + z @ basis``, where ``z`` is made of independent log-gamma variables one after the other.

    Attributes
    ----------
    center : array (parameter)
    basis : array (axis, parameter)
    skewness : array (axis)
        Third derivatives of the log density along each axis, where the second ones are -1.
    bend : array (axis, axis, axis)
        ``bend[j, i, k]`` times the variables i and k before j is added to z_j.
    stretch : array (axis, axis)
        Logarithm of the scale of z_j by the variables i before it.
    shift : array (axis)
    """

    center: np.ndarray
    basis: np.ndarray
    skewness: np.ndarray
    bend: np.ndarray
    stretch: np.ndarray
    shift: np.ndarray

    def sample(self, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw points (draw, parameter) and their log density up to a constant of the basis."""
        f, log_density = self._variables(size, rng)
        z, log_determinant = self._push(f)
        return self.center + z @ self.basis, log_density - log_determinant

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log density of points (point, parameter), up to the same constant as that of `sample`."""
        with np.errstate(over="ignore", invalid="ignore"):  # far from here it is zero, by way of infinity
            z = np.linalg.solve(self.basis.T, (x - self.center).T).T - self.shift
            f, stretch = np.zeros_like(z), np.zeros_like(z)
            for j, bend in enumerate(self.bend):  # each variable is moved and stretched by those before it alone
                stretch[:, j] = STRETCH * np.tanh(f @ self.stretch[j] / STRETCH)
                f[:, j] = (z[:, j] - np.einsum("ni,ik,nk->n", f, bend, f, optimize=True)) * np.exp(-stretch[:, j])
            log_density = sum(self._log_density(j, f[:, j]) for j in range(f.shape[1])) - stretch.sum(axis=1)
        return np.where(np.isnan(log_density), -np.inf, log_density)

    def _log_density(self, j: int, f: np.ndarray) -> np.ndarray:
        """Of one of the independent variables."""
        skewness = self.skewness[j]
        if abs(skewness) < SMALLEST:
            return np.asarray(-0.5 * f**2 - 0.5 * LOG_2PI)
        shape = skewness**-2.0
        x = np.log(shape) - np.sign(skewness) * f / np.sqrt(shape)
        return np.asarray(shape * x - np.exp(x) - gammaln(shape) - 0.5 * np.log(shape))

    def _variables(self, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Independent variables with mode zero and curvature one there, and their log density."""
        f, log_density = np.empty((size, len(self.skewness))), np.zeros(size)
        for j, skewness in enumerate(self.skewness):
            if abs(skewness) < SMALLEST:
                f[:, j] = rng.standard_normal(size)
            else:
                shape = skewness**-2.0
                x = np.log(rng.standard_gamma(shape, size))
                f[:, j] = -np.sign(skewness) * np.sqrt(shape) * (x - np.log(shape))
            log_density += self._log_density(j, f[:, j])
        return f, log_density

    def _push(self, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From the variables to z, and the log determinant of this change."""
        d = len(self.shift)
        products = (f[:, :, None] * f[:, None, :]).reshape(len(f), -1)
        bent = products @ self.bend.reshape(d, -1).T
        stretch = STRETCH * np.tanh(f @ self.stretch.T / STRETCH)
        return self.shift + bent + f * np.exp(stretch), stretch.sum(axis=1)


def skew_map(target: Target, mode: np.ndarray, root: np.ndarray, *, rng: np.random.Generator) -> SkewMap | None:
    """Fit the map to the third derivatives of a log density.

    Parameters
    ----------
    target : Target
    mode : array (parameter)
    root : array (parameter, parameter)
        Root of the covariance that the curvature at the mode implies.
    rng : numpy.random.Generator
        For the search of the axes.

    Returns
    -------
    SkewMap or None
        None where the density or its gradient is not finite within two standard deviations.

    References
    ----------
    Durante, Pozza and Szabo (2024), Annals of Statistics 52, 2714-2737, on what third derivatives add to the normal
    approximation; Anandkumar et al. (2014), JMLR 15, 2773-2832, for the axes by power iteration.
    """
    third = _third_derivatives(target, mode, root)
    if not np.all(np.isfinite(third)):
        return None
    axes = _axes(third, rng)
    t = _rotated(third, axes.T)
    d = len(t)
    before = np.tri(d, k=-1)  # [j, i]: i comes before j
    squares = np.einsum("ijj->ji", t)
    return SkewMap(
        center=mode, basis=axes.T @ root.T, skewness=np.clip(np.einsum("jjj->j", t), -LARGEST, LARGEST),
        bend=0.5 * t * before[:, :, None] * before[:, None, :], stretch=0.5 * squares * before,
        shift=0.5 * np.sum(squares * before, axis=0),
    )  # fmt: skip


def _third_derivatives(target: Target, mode: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Of the log density in whitened coordinates, by second differences of the gradient."""
    d = len(mode)
    unit = STEP * np.eye(d)
    i, j = np.triu_indices(d, 1)
    both = unit[i] + unit[j]
    points = np.concatenate([np.zeros((1, d)), unit, -unit, both, -both])
    gradient = target.logp_and_gradient(mode + points @ root.T)[1] @ root
    origin, rest = gradient[0], gradient[1:]
    single = rest[:d] + rest[d : 2 * d]
    pair = rest[2 * d : 2 * d + len(i)] + rest[2 * d + len(i) :]
    out = np.zeros((d, d, d))
    out[np.arange(d), np.arange(d)] = (single - 2.0 * origin) / STEP**2
    out[i, j] = out[j, i] = (pair - single[i] - single[j] + 2.0 * origin) / (2.0 * STEP**2)
    return (out + out.transpose(1, 2, 0) + out.transpose(2, 0, 1)) / 3.0


def _rotated(third: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """The array of third derivatives in other coordinates, the rows of ``axes``."""
    for _ in range(3):
        third = np.moveaxis(np.tensordot(axes, third, axes=(1, 0)), 0, 2)
    return third


def _axes(third: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Orthonormal axes as columns, each of the largest skewness at right angles to those before."""
    d = len(third)
    rest, found = np.eye(d), []
    while len(third) > 1:
        axis = _most_skewed(third, rng)
        found.append(rest @ axis)
        if abs(np.einsum("ijk,i,j,k", third, axis, axis, axis, optimize=True)) < 0.1:
            break
        others = np.linalg.qr(np.column_stack([axis, np.eye(len(axis))]))[0][:, 1:]
        rest, third = rest @ others, _rotated(third, others.T)
    basis = np.linalg.qr(np.column_stack([*found, np.eye(d)]))[0]
    signs = [np.sign(basis[:, k] @ axis) for k, axis in enumerate(found)]
    basis[:, : len(found)] *= signs
    return np.asarray(basis)


def _most_skewed(third: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Direction in which the third derivative is largest, by power iteration from several starts."""
    d = len(third)
    start = np.argsort(-np.abs(np.einsum("iii->i", third)))[:8]
    v = np.concatenate([np.eye(d)[start], rng.standard_normal((4, d))])
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    for _ in range(30):
        w = np.einsum("nij,nj->ni", np.tensordot(v, third, axes=(1, 0)), v)
        size = np.linalg.norm(w, axis=1, keepdims=True)
        v = np.where(size > 0.0, w / np.where(size > 0.0, size, 1.0), v)
    skewness = np.einsum("ni,ni->n", np.einsum("nij,nj->ni", np.tensordot(v, third, axes=(1, 0)), v), v)
    return np.asarray(v[np.argmax(np.abs(skewness))])
