"""Loops over rows that numpy would do slowly or with much memory, compiled by numba at first use.

Kept apart because importing numba takes longer than most of what is asked of a distribution.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from bayesens.arithmetic import LOG_2PI
from bayesens.distributions.special import log_ndtr

__all__ = ["log_densities", "log_means", "mixture_quantile", "mixture_values"]

ROOT_HALF = math.sqrt(0.5)
ROOT_2PI = math.sqrt(2.0 * math.pi)


@numba.njit(cache=True, nogil=True)
def _tail(sign, x, weight, mu, sigma):  # type: ignore[no-untyped-def]
    """Probability on the left of x (sign 1) or on its right (sign -1), and the density there."""
    mass, density = 0.0, 0.0
    for k in range(weight.size):
        if weight[k] > 0.0:
            t = (x - mu[k]) / sigma[k]
            mass += weight[k] * math.erfc(-sign * t * ROOT_HALF)
            density += weight[k] * math.exp(-0.5 * t * t) / sigma[k]
    return 0.5 * mass, density / ROOT_2PI


@numba.njit(cache=True, nogil=True)
def _root(left, right, floor, z, weight, mu, sigma):  # type: ignore[no-untyped-def]
    """One quantile. A mixture's quantile lies between the least and the greatest of its components' quantiles."""
    low, high, least_sigma, mean, square = np.inf, -np.inf, np.inf, 0.0, 0.0
    for k in range(weight.size):
        if weight[k] > 0.0:
            low, high = min(low, mu[k] + z * sigma[k]), max(high, mu[k] + z * sigma[k])
            least_sigma = min(least_sigma, sigma[k])
            mean += weight[k] * mu[k]
    for k in range(weight.size):
        if weight[k] > 0.0:
            square += weight[k] * ((mu[k] - mean) ** 2 + sigma[k] ** 2)
    if not high > low:
        return max(low, floor)
    x = min(max(mean + z * math.sqrt(square), low), high)
    # Room for rounding: a root that touches the bracket must not send Newton's steps into bisection.
    room = 1e-9 * least_sigma + 1e-15 * max(abs(low), abs(high))
    low, high = low - room, high + room
    sign, target = (1.0, left) if left <= right else (-1.0, right)
    step = high - low
    for _ in range(200):
        mass, density = _tail(sign, x, weight, mu, sigma)
        # The logarithm of the smaller tail is nearly linear where the tail itself is nearly flat.
        excess = sign * math.log(mass / target) if mass > 0.0 else -sign * np.inf
        if excess < 0.0:
            low = x
        else:
            high = x
        newton = x - excess * mass / density if density > 0.0 and mass > 0.0 else np.nan
        # Bisect where Newton leaves the bracket or does not at least halve its step: at worst 2 x 50 passes.
        if low <= newton <= high and abs(newton - x) <= 0.5 * abs(step):
            step = newton - x
            done = 1e-8 * least_sigma  # the next error is of the order of the square of this one
            x = newton
        else:
            middle = 0.5 * (low + high)
            step = high - low
            done = 1e-13 * least_sigma
            x = middle
        if abs(step) <= done + 4e-16 * abs(x):
            break
    return max(x, floor)


@numba.njit(cache=True, nogil=True)
def mixture_quantile(weight, mu, sigma, left, right, z, out):  # type: ignore[no-untyped-def]
    """Quantiles of normal mixtures, row by row, by safeguarded Newton steps on the logarithm of the smaller tail.

    Parameters
    ----------
    weight, mu, sigma : float array (row, component)
        Components of zero weight are skipped; a NaN weight makes the row NaN.
    left, right, z : float array (p)
        Increasing probabilities, their complements, and the quantiles of the standard normal at them.
    out : float array (row, p)
        Filled; not decreasing along ``p``, because each root is the floor of the next.
    """
    for i in range(weight.shape[0]):
        floor = -np.inf
        for j in range(left.size):
            if np.isnan(weight[i, 0]):
                out[i, j] = np.nan
            else:
                floor = _root(left[j], right[j], floor, z[j], weight[i], mu[i], sigma[i])
                out[i, j] = floor


@numba.njit(cache=True, nogil=True)
def mixture_values(score, weight, mu, sigma, out):  # type: ignore[no-untyped-def]
    """The value of each row's normal mixture at its own normal score.

    Parameters
    ----------
    score : float array (row)
    weight, mu, sigma : float array (row, component)
    out : float array (row)
        Filled.
    """
    for i in range(len(score)):
        left, right = 0.5 * math.erfc(-score[i] * ROOT_HALF), 0.5 * math.erfc(score[i] * ROOT_HALF)
        out[i] = _root(left, right, -np.inf, score[i], weight[i], mu[i], sigma[i])


@numba.njit(cache=True, nogil=True)
def log_densities(z, below, x, log_weight, coefficient, variance, out):  # type: ignore[no-untyped-def]
    """Log densities of rows under normal mixtures whose means are linear in the rows' values, or their log mass below zero.

    Parameters
    ----------
    z : float array (row)
        Where the density is taken.
    below : bool array (row)
        Rows whose log probability of values below zero is wanted instead.
    x : float array (row, column)
    log_weight, variance : float array (draw, component)
    coefficient : float array (draw, component, column)
    out : float array (row, draw)
        Filled.
    """
    draws, components, columns = coefficient.shape
    term = np.empty(components)
    constant, precision = np.empty((draws, components)), np.empty((draws, components))
    for s in range(draws):
        for c in range(components):
            precision[s, c] = 1.0 / variance[s, c]
            constant[s, c] = log_weight[s, c] - 0.5 * (LOG_2PI + math.log(variance[s, c]))
    for i in range(len(z)):
        for s in range(draws):
            top = -np.inf
            for c in range(components):
                mean = 0.0
                for j in range(columns):
                    mean += coefficient[s, c, j] * x[i, j]
                if below[i]:
                    term[c] = log_weight[s, c] + log_ndtr(-mean * math.sqrt(precision[s, c]))
                else:
                    term[c] = constant[s, c] - 0.5 * precision[s, c] * (z[i] - mean) ** 2
                top = max(top, term[c])
            if components == 1 or top == -np.inf:
                out[i, s] = top
                continue
            mass = 0.0
            for c in range(components):
                mass += math.exp(term[c] - top)
            out[i, s] = top + math.log(mass)


@numba.njit(cache=True, nogil=True)
def log_means(values, out):  # type: ignore[no-untyped-def]
    """Log of the mean of exponentials of each row, (row, draw) to (row)."""
    for i in range(values.shape[0]):
        top = -np.inf
        for s in range(values.shape[1]):
            top = max(top, values[i, s])
        mean = 0.0
        for s in range(values.shape[1]):
            mean += math.exp(values[i, s] - top)
        out[i] = top + math.log(mean / values.shape[1]) if top > -np.inf else top
