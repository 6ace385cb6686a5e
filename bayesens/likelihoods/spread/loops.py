"""A loop over rows and draws of EMOS's predictive distribution, compiled at first use."""

from __future__ import annotations

import numba
import numpy as np

from bayesens.c_functions import kernel
from bayesens.distributions.cell_lanes import logarithm
from bayesens.likelihoods.corrected.loops import _width
from bayesens.likelihoods.mixture import FAST

__all__ = ["BINS", "matched_rows"]

# Draws of a row are cut at these quantiles of its own standard deviation: finer where it is large, which decides outer quantiles.
BINS = np.array([0.0, 0.25, 0.5, 0.7, 0.85, 0.95, 0.99, 0.998, 1.0])
BUCKETS = 512  # in which draws are counted; a cut lies between two of them


@numba.njit(nogil=True, fastmath=FAST)
def _moments(design, spread, coefficient, sigma, factor, inverse, variance, mean):  # type: ignore[no-untyped-def]
    """Variance and mean of a row under every draw."""
    for d in range(len(sigma)):
        variance[d] = (sigma[d] + factor[d] * spread) / inverse[d]
        mean[d] = 0.0
    for c in range(len(design)):
        for d in range(len(sigma)):
            mean[d] += design[c] * coefficient[c, d]


@numba.njit(nogil=True, fastmath=FAST)
def _bucket(variance, size, place):  # type: ignore[no-untyped-def]
    """Number of each draw's bucket, which are of equal width in the logarithm of the variance."""
    for d in range(len(variance)):
        size[d] = logarithm(variance[d])
    low, high = size[0], size[0]
    for d in range(len(variance)):
        low, high = min(low, size[d]), max(high, size[d])
    step = BUCKETS / (high - low) if high > low else 0.0
    for d in range(len(variance)):
        place[d] = min(int((size[d] - low) * step), BUCKETS - 1)


@numba.njit(nogil=True)
def _fill(variance, centre, place, total):  # type: ignore[no-untyped-def]
    """Number of draws in each bucket, and sums over them: of means, of their squares, of variances."""
    for b in range(len(total)):
        total[b] = 0.0
    for d in range(len(variance)):
        at, value = 4 * place[d], centre[d]
        total[at] += 1.0
        total[at + 1] += value
        total[at + 2] += value * value
        total[at + 3] += variance[d]


@kernel
def matched_rows(design, x, spread, coefficient, sigma, factor, slope, edges, weight, mean, sd):  # type: ignore[no-untyped-def]
    """Share of each bin of draws, and mean and standard deviation of the normal with its moments.

    Parameters
    ----------
    design : float array (row, column)
    x : float array (row, covariate)
    spread : float array (row)
    coefficient : float array (column, draw)
        About their means.
    sigma, factor : float array (draw)
    slope : float array (covariate, draw)
        A row's variance is ``(sigma + factor * spread) * exp(2 * x @ slope)``.
    edges : float array (bin + 1)
        Quantiles of the standard deviation.
    weight, mean, sd : float array (row, bin)
        Filled.
    """
    draws, bins = len(sigma), len(edges) - 1
    inverse, bits, place = np.empty(draws), np.empty(draws, dtype=np.int64), np.empty(draws, dtype=np.int64)
    variance, centre, size, flat = np.empty(draws), np.empty(draws), np.empty(draws), np.empty(4 * BUCKETS)
    total = flat.reshape(BUCKETS, 4)
    for i in range(len(design)):
        _width(x[i], slope, inverse, bits)
        _moments(design[i], spread[i], coefficient, sigma, factor, inverse, variance, centre)
        _bucket(variance, size, place)
        _fill(variance, centre, place, flat)
        at, passed = 0, 0.0
        for b in range(bins):
            count, first, second, within = 0.0, 0.0, 0.0, 0.0
            while at < BUCKETS and (b == bins - 1 or passed + 0.5 * total[at, 0] < edges[b + 1] * draws):
                count += total[at, 0]
                first += total[at, 1]
                second += total[at, 2]
                within += total[at, 3]
                passed += total[at, 0]
                at += 1
            weight[i, b] = count / draws
            if count > 0.0:
                first /= count
                mean[i, b] = first
                sd[i, b] = np.sqrt(within / count + max(second / count - first * first, 0.0))
            else:  # an empty bin has no share, and any normal
                mean[i, b], sd[i, b] = 0.0, np.sqrt(variance[0])
