"""A loop over rows and draws of EMOS's predictive distribution, compiled at first use."""

from __future__ import annotations

import numba
import numpy as np

from bayesens.c_functions import INNER
from bayesens.likelihoods.corrected.loops import _width
from bayesens.likelihoods.mixture import FAST

__all__ = ["BINS", "matched_rows"]

# Draws of a row are cut at these quantiles of its own standard deviation: finer where it is large, which decides outer quantiles.
BINS = np.array([0.0, 0.25, 0.5, 0.7, 0.85, 0.95, 0.99, 1.0])
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


@INNER
def _bucket(variance, place):  # type: ignore[no-untyped-def]
    """Number of each draw's bucket, which are of equal width in the logarithm of the variance."""
    low, high = np.log(variance.min()), np.log(variance.max())
    step = BUCKETS / (high - low) if high > low else 0.0
    for d in range(len(variance)):
        place[d] = min(max(int((np.log(variance[d]) - low) * step), 0), BUCKETS - 1)


@numba.njit(cache=True, nogil=True)
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
    variance, centre, total = np.empty(draws), np.empty(draws), np.empty((BUCKETS, 4))
    for i in range(len(design)):
        _width(x[i], slope, inverse, bits)
        _moments(design[i], spread[i], coefficient, sigma, factor, inverse, variance, centre)
        _bucket(variance, place)
        total[:] = 0.0
        for d in range(draws):
            one = total[place[d]]
            one[0] += 1.0
            one[1] += centre[d]
            one[2] += centre[d] ** 2
            one[3] += variance[d]
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
