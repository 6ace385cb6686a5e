"""Weights that follow the rows, as parts of the kernel of :mod:`bayesens.likelihoods.corrected.mixture`.

    w_ik = w_k exp(z_i' slope_k) / sum_{j in A_i} w_j exp(z_i' slope_j)

Slopes stand covariate by covariate, and in them member by member. Rows with the same covariates z and the same members A have the
same weights: they are one profile, and stand together. What a member's log terms gain, z' slope_k, and the sum of the weights are
computed once a profile, and so is the gradient by the slopes. A station of thousands of days costs as one row does.
"""

from __future__ import annotations

import numba
import numpy as np

from bayesens.c_functions import BARE, INNER
from bayesens.likelihoods.mixture import FAST, _mixed

__all__ = ["add_slopes", "log_total", "profile_of", "tilt", "tilt_gradient"]


@numba.njit(**BARE)
def profile_of(ends, row):  # type: ignore[no-untyped-def]
    """Number of the profile that has a row: the first whose rows end behind it."""
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high) // 2
        if ends[middle] > row:
            high = middle
        else:
            low = middle + 1
    return low


@numba.njit(**BARE, fastmath=FAST)
def _sum(slope, k, j, data, at, u, first, gain):  # type: ignore[no-untyped-def]
    """What one member's log weights gain in some profiles."""
    for i in range(len(gain)):
        gain[i] = 0.0
    for c in range(len(slope) // k):
        z, by = data[at + c * u + first : at + c * u + first + len(gain)], slope[c * k + j]
        for i in range(len(gain)):
            gain[i] += by * z[i]


@numba.njit(**BARE, fastmath=FAST)
def _add(gain, ends, start, term):  # type: ignore[no-untyped-def]
    """Add what profiles gain to the terms of a block's rows."""
    if len(gain) == len(term):  # a row each: in one vector operation
        for i in range(len(term)):
            term[i] += gain[i]
        return
    begin = 0
    for g in range(len(gain)):
        end = min(ends[g] - start, len(term))
        for i in range(begin, end):
            term[i] += gain[g]
        begin = end


@INNER
def tilt(slope, log_weight, data, at, ends, k, missing, start, m, scratch, own, bits):  # type: ignore[no-untyped-def]
    """Add to the terms in scratch[k:], and return the sum of the rows' log total weights.

    The terms of the profiles' totals are left in own[k:], and one over their sums in own[2 * k].
    """
    first, u = profile_of(ends, start), len(ends)
    n = profile_of(ends, start + m - 1) - first + 1
    top, mass = own[2 * k + 1][:n], own[2 * k][:n]
    for j in range(k):
        gain, total = own[j][:n], own[k + j][:n]
        _sum(slope, k, j, data, at, u, first, gain)
        _add(gain, ends[first : first + n], start, scratch[k + j][:m])
        for g in range(n):
            total[g] = gain[g] + log_weight[j]
    value, begin = _mixed(data, at + len(slope) // k * u, u, k, missing, first, n, own, bits, top, mass), start
    for g in range(n if n < m else 0):  # the first row of each is counted
        end = min(ends[first + g], start + m)
        value += (end - begin - 1) * (top[g] + np.log(mass[g]))
        begin = end
    for g in range(n):
        mass[g] = 1.0 / mass[g]
    return value


@numba.njit(**BARE, fastmath=FAST)
def _apart(term, inverse_mass, own, inverse_total, ends, start, more):  # type: ignore[no-untyped-def]
    """Sums of responsibilities less weights over the rows of each profile; returns the sum of all rows' weights."""
    total, begin = 0.0, 0
    if len(own) == len(term):
        for i in range(len(term)):
            weight = own[i] * inverse_total[i]
            total += weight
            more[i] = term[i] * inverse_mass[i] - weight
        return total
    for g in range(len(own)):
        end, share = min(ends[g] - start, len(term)), 0.0
        for i in range(begin, end):
            share += term[i] * inverse_mass[i]
        weights = (end - begin) * own[g] * inverse_total[g]
        total += weights
        more[g] = share - weights
        begin = end
    return total


@numba.njit(**BARE, fastmath=FAST)
def _product(z, more):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(z)):
        total += z[i] * more[i]
    return total


@INNER
def tilt_gradient(data, at, ends, k, start, m, scratch, inverse_mass, own, d_slope, d_log_weight):  # type: ignore[no-untyped-def]
    """Add to the gradient by slopes, and what the totals add to that by log weights; terms are those over the largest one."""
    first, u = profile_of(ends, start), len(ends)
    n = profile_of(ends, start + m - 1) - first + 1
    for j in range(k):
        more = own[j][:n]
        d_log_weight[j] -= _apart(scratch[k + j][:m], inverse_mass, own[k + j][:n], own[2 * k][:n], ends[first : first + n],
                                  start, more)  # fmt: skip
        for c in range(len(d_slope) // k):
            d_slope[c * k + j] += _product(data[at + c * u + first : at + c * u + first + n], more)


@INNER
def log_total(slope, log_weight, data, at, u, k, missing, profile, gain, weight):  # type: ignore[no-untyped-def]
    """Log total weight of one profile; leaves what each member's log weight gains, and its weight."""
    top, total, there = -np.inf, 0.0, at + len(slope) // k * u + profile
    for j in range(k):
        gain[j] = 0.0
        for c in range(len(slope) // k):
            gain[j] += slope[c * k + j] * data[at + c * u + profile]
        if not missing or data[there + j * u] > 0.0:
            top = max(top, log_weight[j] + gain[j])
    for j in range(k):
        present = not missing or data[there + j * u] > 0.0
        weight[j] = np.exp(log_weight[j] + gain[j] - top) if present else 0.0
        total += weight[j]
    for j in range(k):
        weight[j] /= total
    return top + np.log(total)


@INNER
def add_slopes(data, at, u, k, profile, more, d_slope):  # type: ignore[no-untyped-def]
    """Add to the gradient by slopes what the rows of one profile have of responsibilities less weights."""
    for c in range(len(d_slope) // k):
        for j in range(k):
            d_slope[c * k + j] += data[at + c * u + profile] * more[j]
