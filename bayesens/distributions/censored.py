"""Regression of values that are known only to lie below a bound: the Tobit model by maximum likelihood.

A transform such as the square root cannot tell zeros apart from what would lie below zero, and predictions give an observed
zero the probability of all of that. These functions let a fit by least squares do the same.
"""

from __future__ import annotations

import numpy as np
import scipy

from bayesens.arithmetic import LOG_2PI

__all__ = ["censored_regression", "expected_below"]

STEPS, HALVINGS = 200, 60
EXACT = (
    1e-10  # of the largest, below which a direction of the columns is that of copies: the least coefficients are taken
)
DONE = 1e-12  # of the log likelihood a row that Newton's next step would gain


def censored_regression(x: np.ndarray, y: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, float, float, bool]:
    """Maximum likelihood of ``y ~ Normal(x coefficient, sigma^2)``, where some rows only say that ``y`` is below a bound.

    In the coefficients over sigma and one over sigma the log likelihood is concave (Olsen 1978), and Newton's steps find its
    one maximum.

    Parameters
    ----------
    x : array (row, column)
    y : array (row)
        The value, or the bound where ``below``.
    below : bool array (row)

    Returns
    -------
    coefficient : array (column)
    sigma, loglik : float
    converged : bool

    References
    ----------
    Tobin (1958), Econometrica 26, 24-36. Olsen (1978), Econometrica 46, 1211-1215.

    Examples
    --------
    >>> y = np.array([1.0, 2.0, 4.0, 5.0])  # nothing is censored: mean and standard deviation
    >>> coefficient, sigma, loglik, converged = censored_regression(np.ones((4, 1)), y, np.zeros(4, dtype=bool))
    >>> round(float(coefficient[0]), 6), round(sigma, 6), converged
    (3.0, 1.581139, True)
    """
    # About least squares, and in orthogonal columns of one size, Newton's equations lose no digits.
    left, size, right = np.linalg.svd(x, full_matrices=False)
    apart = size > EXACT * size[0]
    left, back = left[:, apart], right[apart].T / size[apart]
    first = left.T @ y
    rest = y - left @ first
    sd = float(np.sqrt(np.mean(rest**2)))
    design = np.column_stack([-left * np.sqrt(len(y)), rest / sd])
    known = int(np.count_nonzero(~below))
    theta = np.append(np.zeros(len(first)), 1.0)
    value, gradient, hessian = _olsen(theta, design, below, known)
    converged = False
    for _ in range(STEPS):
        step = np.linalg.lstsq(-hessian, gradient, rcond=None)[0]
        if converged := bool(gradient @ step <= DONE * len(y)):
            break
        for _ in range(HALVINGS):
            after = theta + step
            if after[-1] > 0.0 and (new := _olsen(after, design, below, known))[0] >= value:
                break
            step = step / 2.0
        else:
            break
        theta, (value, gradient, hessian) = after, new
    sigma = sd / float(theta[-1])
    coefficient = back @ (first + np.sqrt(len(y)) * sigma * theta[:-1])
    return coefficient, sigma, value - known * float(np.log(sd)), converged


def _olsen(
    theta: np.ndarray, design: np.ndarray, below: np.ndarray, known: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Log likelihood, gradient and Hessian at coefficients over sigma and one over sigma."""
    u = design @ theta
    low = u[below]
    log_mass = scipy.special.log_ndtr(low)
    hazard = np.exp(-0.5 * low**2 - 0.5 * LOG_2PI - log_mass)
    value = known * (np.log(theta[-1]) - 0.5 * LOG_2PI) - 0.5 * float(np.sum(u[~below] ** 2)) + float(log_mass.sum())
    slope, bend = -u, np.full(len(u), -1.0)
    slope[below], bend[below] = hazard, -hazard * (hazard + low)
    gradient, hessian = design.T @ slope, (design * bend[:, None]).T @ design
    gradient[-1] += known / theta[-1]
    hessian[-1, -1] -= known / theta[-1] ** 2
    return float(value), gradient, hessian


def expected_below(mean: np.ndarray, sigma: float, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of normals given that they are below a bound.

    Parameters
    ----------
    mean : array (row)
    sigma, bound : float

    Returns
    -------
    mean, variance : array (row)

    Examples
    --------
    >>> mean, variance = expected_below(np.array([0.0]), 1.0, 0.0)  # half a normal
    >>> mean.round(4).tolist(), variance.round(4).tolist()
    ([-0.7979], [0.3634])
    """
    u = (bound - mean) / sigma
    hazard = np.exp(-0.5 * u**2 - 0.5 * LOG_2PI - scipy.special.log_ndtr(u))
    return mean - sigma * hazard, np.maximum(sigma**2 * (1.0 - hazard * (u + hazard)), 0.0)
