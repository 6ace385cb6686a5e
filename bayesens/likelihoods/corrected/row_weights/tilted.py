"""Weights that follow the rows, as parts of the kernel of :mod:`bayesens.likelihoods.corrected.mixture`.

    w_ik = w_k exp(z_i' slope_k) / sum_{j in A_i} w_j exp(z_i' slope_j)

Slopes stand covariate by covariate, and in them member by member. What the members' log terms gain, z_i' slope_k, is added where
they are; the sum of the weights is a mixture itself, whose terms have no kernels.
"""

from __future__ import annotations

import numba
import numpy as np

from bayesens.c_functions import BARE, INNER
from bayesens.likelihoods.mixture import FAST, _mixed

__all__ = ["log_total", "tilt", "tilt_gradient"]


@numba.njit(**BARE, fastmath=FAST)
def _sum(slope, k, j, data, at, n, start, gain):  # type: ignore[no-untyped-def]
    """What one member's log weights gain in a block's rows."""
    for i in range(len(gain)):
        gain[i] = 0.0
    for c in range(len(slope) // k):
        z, by = data[at + c * n + start : at + c * n + start + len(gain)], slope[c * k + j]
        for i in range(len(gain)):
            gain[i] += by * z[i]


@INNER
def tilt(slope, log_weight, data, there, at, n, k, missing, start, m, scratch, own, bits):  # type: ignore[no-untyped-def]
    """Add to the terms in scratch[k:], and return the sum of the rows' log total weights.

    The terms of these totals are left in own[k:], and one over their sums in own[2 * k].
    """
    top, mass = own[2 * k + 1][:m], own[2 * k][:m]
    for j in range(k):
        term, gain = scratch[k + j][:m], own[k + j][:m]
        _sum(slope, k, j, data, at, n, start, gain)
        for i in range(m):
            term[i] += gain[i]
            gain[i] += log_weight[j]
    value = _mixed(data, there, n, k, missing, start, m, own, bits, top, mass)
    for i in range(m):
        mass[i] = 1.0 / mass[i]
    return value


@numba.njit(**BARE, fastmath=FAST)
def _apart(term, inverse_mass, own, inverse_total, more):  # type: ignore[no-untyped-def]
    """Responsibilities less weights; returns the sum of the weights."""
    total = 0.0
    for i in range(len(term)):
        weight = own[i] * inverse_total[i]
        total += weight
        more[i] = term[i] * inverse_mass[i] - weight
    return total


@numba.njit(**BARE, fastmath=FAST)
def _product(z, more):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(z)):
        total += z[i] * more[i]
    return total


@INNER
def tilt_gradient(data, at, n, k, start, m, scratch, inverse_mass, own, d_slope, d_log_weight):  # type: ignore[no-untyped-def]
    """Add to the gradient by slopes, and what the totals add to that by log weights; terms are those over the largest one."""
    more = own[0][:m]
    for j in range(k):
        d_log_weight[j] -= _apart(scratch[k + j][:m], inverse_mass, own[k + j][:m], own[2 * k][:m], more)
        for c in range(len(d_slope) // k):
            d_slope[c * k + j] += _product(data[at + c * n + start : at + c * n + start + m], more)


@INNER
def log_total(slope, log_weight, data, there, at, n, k, missing, i, gain, weight):  # type: ignore[no-untyped-def]
    """Log total weight of one row; leaves what each member's log weight gains, and its weight."""
    top, total = -np.inf, 0.0
    for j in range(k):
        gain[j] = 0.0
        for c in range(len(slope) // k):
            gain[j] += slope[c * k + j] * data[at + c * n + i]
        if not missing or data[there + j * n + i] > 0.0:
            top = max(top, log_weight[j] + gain[j])
    for j in range(k):
        present = not missing or data[there + j * n + i] > 0.0
        weight[j] = np.exp(log_weight[j] + gain[j] - top) if present else 0.0
        total += weight[j]
    for j in range(k):
        weight[j] /= total
    return top + np.log(total)
