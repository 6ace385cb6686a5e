"""Leave-one-out densities by Pareto-smoothed importance sampling, row by row, compiled by numba at first use.

The draws of a posterior given all rows become draws of the posterior given all rows but one by weights proportional to
1 / p(y_i | draw), or to its power where the likelihood was raised to one: what a row gave is what has to be taken out. The
largest weights are replaced by the quantiles of a generalised Pareto distribution fitted to them, whose shape k says whether
they can be trusted.

References
----------
Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling, JMLR 25(72).
Vehtari, Gelman and Gabry (2017), Statistics and Computing 27, 1413-1432.
Zhang and Stephens (2009), Technometrics 51, 316-325: the fit of the generalised Pareto distribution.
"""

from __future__ import annotations

import math

import numba
import numpy as np

__all__ = ["LEAST_TAIL", "good_k", "leave_one_out", "tail_length"]

LEAST_TAIL = 5  # a Pareto tail is fitted to no fewer draws
NEGLIGIBLE = 10.0 * np.finfo(float).eps


def tail_length(draws: int, r_eff: float) -> int:
    """Number of largest weights to smooth: 3 sqrt(draws / r_eff), and a fifth of the draws where these are few.

    Examples
    --------
    >>> tail_length(1000, 1.0), tail_length(100, 1.0)
    (94, 20)
    """
    return int(3.0 * math.sqrt(draws / r_eff)) if draws * r_eff > 225.0 else draws // 5


def good_k(draws: int) -> float:
    """Largest Pareto k at which this many draws still give a useful estimate.

    Examples
    --------
    >>> good_k(100), good_k(4000)
    (0.5, 0.7)
    """
    return min(1.0 - 1.0 / math.log10(draws), 0.7)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _select(a, k):  # type: ignore[no-untyped-def]
    """Partition in place: a[k] is the k-th smallest, nothing before it is larger and nothing after it smaller."""
    low, high = 0, a.size - 1
    while low < high:
        middle = (low + high) // 2
        pivot = max(min(a[low], a[high]), min(max(a[low], a[high]), a[middle]))  # the median of the three
        i, j = low, high
        while i <= j:
            while a[i] < pivot:
                i += 1
            while a[j] > pivot:
                j -= 1
            if i <= j:
                a[i], a[j] = a[j], a[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            return


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _mean_log1p(theta, x):  # type: ignore[no-untyped-def]
    """Mean of log(1 - theta x) over increasing x of which theta x < 1."""
    total, start = 0.0, 0
    if 0.01 < abs(theta) * x[x.size - 1] < 1e30:  # eight factors a logarithm, where none is lost in 1 or overflows
        start = x.size - x.size % 8
        for j in range(0, start, 8):
            product = 1.0
            for l in range(j, j + 8):
                product *= 1.0 - theta * x[l]
            total += math.log(product)
    for j in range(start, x.size):
        total += math.log1p(-theta * x[j])
    return total / x.size


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _pareto(x):  # type: ignore[no-untyped-def]
    """Shape and scale of a generalised Pareto distribution from increasing exceedances; NaN where it has no such form.

    The posterior mean of theta = -shape / scale under the prior of Zhang and Stephens, on a grid; the shape is then drawn
    towards .5 as if by ten more observations.
    """
    n = x.size
    quartile = x[int(n / 4.0 + 0.5) - 1]
    if not quartile > x[0]:
        return np.nan, np.nan
    m = 30 + int(math.sqrt(n))
    theta, profile = np.empty(m), np.empty(m)
    for i in range(m):
        theta[i] = 1.0 / x[n - 1] + (1.0 - math.sqrt(m / (i + 0.5))) / (3.0 * quartile)
        k = _mean_log1p(theta[i], x)
        ratio = -theta[i] / k if k != 0.0 else np.nan
        profile[i] = n * (math.log(ratio) - k - 1.0) if ratio > 0.0 else -np.inf
    top, total = profile.max(), 0.0
    for i in range(m):
        profile[i] = math.exp(profile[i] - top)
        total += profile[i]
    mass, mean = 0.0, 0.0
    for i in range(m):
        if profile[i] >= NEGLIGIBLE * total:
            mass += profile[i]
            mean += profile[i] * theta[i]
    mean /= mass
    k = _mean_log1p(mean, x)
    return (n * k + 5.0) / (n + 10.0), -k / mean


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _smooth(tail, cutoff):  # type: ignore[no-untyped-def]
    """Pareto k of increasing log weights above a cutoff, and their smoothed values; no value exceeds the largest."""
    n = tail.size
    floor = math.exp(cutoff)
    x, smoothed = np.empty(n), tail.copy()
    for j in range(n):
        x[j] = math.exp(tail[j]) - floor
    if not tail[n - 1] > tail[0]:
        return np.inf, smoothed
    k, sigma = _pareto(x)
    if math.isfinite(k):
        for j in range(n):
            side = math.log1p(-(j + 0.5) / n)
            quantile = floor - sigma * side if k == 0.0 else floor + sigma * math.expm1(-k * side) / k
            smoothed[j] = min(math.log(quantile), tail[n - 1])
    return k, smoothed


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _one(loglik, tail_size, power, a):  # type: ignore[no-untyped-def]
    """Log density left out, Pareto k, and log density under all draws, of one row; `a` is room for its weights."""
    draws = loglik.size
    least, largest = loglik[0], loglik[0]
    for s in range(draws):
        if math.isnan(loglik[s]):
            return np.nan, np.nan, np.nan
        least, largest = min(least, loglik[s]), max(largest, loglik[s])
    if least == largest:  # all weights are equal: nothing is learnt from the row, and there is no tail
        return least, -np.inf, least
    mean = 0.0
    for s in range(draws):
        mean += math.exp(loglik[s] - largest)
    everything = largest + math.log(mean / draws)
    if least == -np.inf:  # a draw that rules the row out is infinitely more likely without it
        return -np.inf, np.inf, everything
    for s in range(draws):
        a[s] = power * (least - loglik[s])
    body = draws - tail_size
    _select(a, body - 1)
    a[body:].sort()
    tail = a[body:]
    k, smoothed = _smooth(tail, a[body - 1])
    # The log density of a draw, above the least, is -a / power: times its weight it is (1 - 1 / power) a where it is not
    # smoothed, which is the same for all draws at a power of one.
    rest = 1.0 - 1.0 / power
    total, top = 0.0, 0.0
    for s in range(body):
        total += math.exp(a[s])
        top = max(top, rest * a[s])
    for j in range(tail_size):
        total += math.exp(smoothed[j])
        top = max(top, smoothed[j] - tail[j] / power)
    weighted = body * math.exp(-top) if rest == 0.0 else 0.0
    if rest != 0.0:
        for s in range(body):
            weighted += math.exp(rest * a[s] - top)
    for j in range(tail_size):
        weighted += math.exp(smoothed[j] - tail[j] / power - top)
    return least + top + math.log(weighted) - math.log(total), k, everything


@numba.njit(cache=True, nogil=True, error_model="numpy")
def leave_one_out(loglik, tail_size, out, power=1.0):  # type: ignore[no-untyped-def]
    """Leave-one-out log densities of rows.

    Parameters
    ----------
    loglik : float array (row, draw)
    tail_size : int
        Number of largest weights to smooth, at least five.
    out : float array (row, 3)
        Filled with the log density left out, the Pareto k, and the log density under all draws. k is minus infinity
        where all weights are equal, infinity where those of the tail are equal or a draw has density zero (whose weight
        is infinite), and NaN where the weights of the tail do not look like a Pareto tail at all.
    power : float
        That the likelihood of the posterior was raised to, above zero.
    """
    room = np.empty(loglik.shape[1])
    for i in range(loglik.shape[0]):
        out[i, 0], out[i, 1], out[i, 2] = _one(loglik[i], tail_size, power, room)
