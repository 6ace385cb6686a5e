"""Student's t as a mixture of few normals, for everything that a predictive distribution has in closed form with normals.

A t with nu degrees of freedom is a normal whose variance is divided by a Gamma(nu/2, nu/2) variable. Gauss quadrature over the
logarithm of that variable, in which the tails of the t are analytic, makes it a mixture of four normals: its CRPS is off by
at most .02 % at nu = 3 and by .2 % near nu = 2, and its distribution function by .0002 and .002.

References
----------
Golub and Welsch (1969), Mathematics of Computation 23, 221-230: Gauss rules of any weight function.
"""

from __future__ import annotations

import numpy as np
from scipy.special import digamma, polygamma, stdtr, stdtrit

__all__ = ["log_below", "mean_rule", "normal_rule", "scale_gain", "t_variables"]

NORMALS = 4
GRID, FINE, DRAWS = np.linspace(-25.0, 8.0, 1500), 8, 64


def normal_rule(nu: np.ndarray, size: int = NORMALS) -> tuple[np.ndarray, np.ndarray]:
    """Weights and relative variances of the normals that make up a t.

    Parameters
    ----------
    nu : array (draw)
        Degrees of freedom, above 2.
    size : int

    Returns
    -------
    weight, variance : array (draw, normal)

    Examples
    --------
    >>> weight, variance = normal_rule(np.array([10.0]))
    >>> float((weight * variance).sum().round(3))  # nu / (nu - 2)
    1.25
    """
    half = 0.5 * np.asarray(nu, dtype=float)[:, None]
    sd = np.sqrt(polygamma(1, half))
    u = digamma(half) + sd * GRID  # logarithms of a Gamma variable with rate one
    log_density = half * u - np.exp(u)
    density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    nodes, weight = _gauss(sd * GRID, density, size)
    return weight, np.exp(-nodes - digamma(half) + np.log(half))


def mean_rule(nu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and relative variances for the mean of the t distributions of all draws, (normal)."""
    some = np.sort(nu)[np.linspace(0, len(nu) - 1, min(len(nu), DRAWS)).round().astype(int)]
    weight, variance = normal_rule(some, FINE)
    nodes, mean = _gauss(np.log(variance).reshape(1, -1), weight.reshape(1, -1), NORMALS)
    return mean[0], np.exp(nodes[0])


def scale_gain(nu: np.ndarray, *, inside: float = 0.9) -> np.ndarray:
    """What the squared scale of a t grows by for each unit of variance of an independent error that is added to it.

    To first order the sum has as much of its probability inside the interval as before. The tails stay those of the t, so that
    less than one unit is needed.

    Examples
    --------
    >>> scale_gain(np.array([2.5, 10.0, 1e6])).round(3).tolist()
    [0.387, 0.828, 1.0]
    """
    limit = stdtrit(nu, 0.5 * (1.0 + inside))
    return np.asarray((nu + 1.0) / (nu + limit**2))


def t_variables(nu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Independent t variables of unit scale, of the shape of ``nu``."""
    return np.asarray(rng.standard_normal(nu.shape) / np.sqrt(rng.chisquare(nu) / nu))


def log_below(log_weight: np.ndarray, z: np.ndarray, nu: np.ndarray) -> np.ndarray:
    """Log probability of values below, (draw).

    Parameters
    ----------
    log_weight, z : array (member, draw)
        ``z`` is the standardised distance of the limit from the member.
    nu : array (draw)
    """
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.sum(np.exp(log_weight) * stdtr(nu, z), axis=0)))


def _gauss(u: np.ndarray, p: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss rule of a discrete law, from the recurrence of its orthogonal polynomials; (law, node)."""
    p = p / p.sum(axis=1, keepdims=True)
    before, now, norm = np.zeros_like(u), np.ones_like(u), np.ones(len(u))
    jacobi = np.zeros((len(u), size, size))
    ratio = np.zeros(len(u))
    for j in range(size):
        jacobi[:, j, j] = np.einsum("du,du->d", p * u, now**2) / norm
        after = (u - jacobi[:, j, j, None]) * now - ratio[:, None] * before
        before, now = now, after
        following = np.einsum("du,du->d", p, now**2)
        ratio, norm = following / norm, following
        if j + 1 < size:
            jacobi[:, j, j + 1] = jacobi[:, j + 1, j] = np.sqrt(ratio)
    nodes, vectors = np.linalg.eigh(jacobi)
    return nodes, vectors[:, 0] ** 2
