"""From the rows up to the sites and the groups: what they say about the effects, and the log density.

A site whose rows all have all columns says no more than its number of rows ``n`` and their mean, with covariance
``S + W/n`` about the group. One basis ``T`` makes all of these diagonal, ``T W T' = I`` and ``T S T' = diag(l)``, so that
such sites cost a few vector operations instead of a few matrices each.
"""

from __future__ import annotations

import numba
import numpy as np

from bayesens.c_functions import BARE, INNER, ONCE, beyond
from bayesens.likelihoods.multilevel.small_matrices import (
    add_matrix,
    add_outer,
    cholesky,
    copy_matrix,
    diagonalise,
    forward,
    inverse_root,
    multiply,
    row_products,
    sandwich,
)

__all__ = ["site_products", "unpack", "unpack_parameters", "upward"]

LOG_2PI = float(np.log(2.0 * np.pi))
BLOCK = 256  # sites whose deviations from the mean stay in the first cache
FAST = {"reassoc", "contract", "nsz"}  # sums in any order, so that they become vector operations


# -------------------------------------------------------------------------------------------- sites in one common basis
@INNER
def _common_basis(within, site, work):  # type: ignore[no-untyped-def]
    """``T`` and ``l`` with ``T within T' = I`` and ``T site T' = diag(l)``."""
    p = len(within)
    root, turn, level, l = work[0], np.empty((p, p)), np.zeros((p, p)), np.empty(p)
    inverse_root(within, root, turn)
    sandwich(level, turn, site, 1.0, root)
    for i in range(p):  # to the inverse root itself
        for j in range(i):
            turn[i, j], turn[j, i] = turn[j, i], turn[i, j]
    diagonalise(level, turn)
    largest = 0.0
    for j in range(p):
        largest = max(largest, abs(level[j, j]))
    for j in range(p):
        l[j] = level[j, j]
        if -1e-15 * p * largest <= l[j] < 0.0:  # a singular covariance, but for rounding
            l[j] = 0.0
    return turn, l


@numba.njit(fastmath=FAST, **BARE)
def _deviations(turn, cell_mean, cells, mean, u):  # type: ignore[no-untyped-def]
    """Sites' means less the mean in the common basis, ``u (column, site)``."""
    p = len(mean)
    deviation = np.empty((p, BLOCK))
    for start in range(0, len(cells), BLOCK):
        block = cells[start : start + BLOCK]
        for k in range(p):
            for s in range(len(block)):
                deviation[k, s] = cell_mean[block[s], k] - mean[k]
        for j in range(p):
            out = u[j][start : start + BLOCK]
            for s in range(len(out)):
                out[s] = 0.0
            for k in range(p):
                for s in range(len(out)):
                    out[s] += turn[j, k] * deviation[k, s]


@numba.njit(fastmath=FAST, error_model="numpy", **BARE)
def _site_precisions(rows, l, r):  # type: ignore[no-untyped-def]
    """Precisions ``1 / (l + 1/n)`` of sites' means about their group, ``r (column, site)``; and ``log |I + n l|``."""
    sites, p = len(rows), len(l)
    product, most, total = np.empty(sites), 0.0, 0.0
    for s in range(sites):
        product[s] = 1.0
        most = max(most, rows[s])
    for j in range(p):
        if not 1.0 + most * l[j] > 0.0:
            return np.inf
        # Relative to a single row, between 1 and n whatever the units: eight factors cannot overflow.
        single = 1.0 / (1.0 + l[j])
        total -= sites * np.log(single)
        for s in range(sites):
            x = 1.0 + rows[s] * l[j]
            r[j, s] = rows[s] / x
            product[s] *= x * single
        if j % 8 == 7 or j == p - 1:
            for s in range(sites):
                total += np.log(product[s])
                product[s] = 1.0
    return total


# The sums below take one-dimensional parts: only of those does the compiler know that their elements lie side by side.
@numba.njit(fastmath=FAST, **BARE)
def _moments(r, u):  # type: ignore[no-untyped-def]
    zero, one, two = 0.0, 0.0, 0.0
    for s in range(len(r)):
        x = r[s] * u[s]
        zero += r[s]
        one += x
        two += x * u[s]
    return zero, one, two


@numba.njit(fastmath=FAST, **BARE)
def _products(r_i, r_j, u_i, u_j, mean_i, mean_j, covariance, each):  # type: ignore[no-untyped-def]
    plain, weighted = 0.0, 0.0
    for s in range(len(each)):
        x = r_i[s] * r_j[s] * ((u_i[s] - mean_i) * (u_j[s] - mean_j) + covariance)
        plain += x
        weighted += x * each[s]
    return plain, weighted


@INNER
def _add_sites(turn, u, r, start, group_raw_p, group_raw_h):  # type: ignore[no-untyped-def]
    """Add what the sites say to their groups' information; the sum of squares about the mean."""
    p = len(turn)
    total = 0.0
    for g in range(len(start) - 1):
        part = slice(start[g], start[g + 1])
        for j in range(p):
            precision, information, square = _moments(r[j][part], u[j][part])
            total += square
            add_outer(group_raw_p[g], turn[j], precision)
            for i in range(p):
                group_raw_h[g, i] += turn[j, i] * information
    return total


@INNER
def site_products(u, r, each, start, effect_mean, effect_cov, d_site, d_within):  # type: ignore[no-untyped-def]
    """Derivatives by ``T S T'`` and, through the sites' means alone, by ``T W T'``, given the effects in that basis."""
    p = len(u)
    for i in range(p):
        for j in range(i + 1):
            by_site, by_within = 0.0, 0.0
            for g in range(len(start) - 1):
                part = slice(start[g], start[g + 1])
                plain, weighted = _products(
                    r[i][part], r[j][part], u[i][part], u[j][part], effect_mean[g, i], effect_mean[g, j],
                    effect_cov[g, i, j], each[part],
                )  # fmt: skip
                by_site += plain
                by_within += weighted
            if i == j:
                plain, weighted, _ = _moments(r[i], each)
                by_site -= plain
                by_within -= weighted
            d_site[i, j] = d_site[j, i] = 0.5 * by_site
            d_within[i, j] = d_within[j, i] = 0.5 * by_within


# ---------------------------------------------------------------------------------------------------------------- upward
@INNER
def _integrate(precision, information, covariance, left_p, left_h, work):  # type: ignore[no-untyped-def]
    """Integrate an effect with the given prior covariance out of ``exp(h'e - e'Pe/2)``.

    Fills the information that is left about its mean; returns the log determinant and what the quadratic form gains.
    """
    p = len(information)
    r, c, half, q, column = work[0], work[1], work[2], work[3, 0], work[3, 1]
    cholesky(precision, r)
    for i in range(p):
        q[i] = information[i]
    forward(r, q)
    for j in range(p):
        for i in range(p):
            half[j, i] = r[i, j]
            column[i] = 0.0
        for k in range(j, p):
            value = r[k, j]
            for i in range(j, p):
                column[i] += value * covariance[k, i]
        for i in range(j, p):
            c[i, j] = 1.0 if i == j else 0.0
            for k in range(i, p):
                c[i, j] += r[k, i] * column[k]
    if not cholesky(c, c):
        copy_matrix(precision, left_p)
        for i in range(p):
            left_h[i] = information[i]
        return np.inf, 0.0
    log_determinant, gain = 0.0, 0.0
    for i in range(p):
        log_determinant += np.log(c[i, i])
        gain -= q[i] * q[i]
        for k in range(i):  # half becomes the inverse of c times the transposed root, row by row
            value = c[i, k]
            for j in range(p):
                half[i, j] -= value * half[k, j]
        value = 1.0 / c[i, i]
        for j in range(p):
            half[i, j] *= value
    forward(c, q)
    for i in range(p):
        gain += q[i] * q[i]
        left_h[i] = 0.0
        for j in range(p):
            left_p[i, j] = 0.0
    for k in range(p):
        for i in range(p):
            value = half[k, i]
            left_h[i] += value * q[k]
            for j in range(p):
                left_p[i, j] += value * half[k, j]
    return log_determinant, gain


@ONCE
def _pattern_inverses(pattern, within):  # type: ignore[no-untyped-def]
    """Inverse (padded with zeros) and log determinant of the rows' covariance for each pattern of missing columns."""
    patterns, p = pattern.shape
    inverse, log_determinant = np.zeros((patterns, p, p)), np.zeros(patterns)
    block, root, half = np.empty((p, p)), np.empty((p, p)), np.empty((p, p))
    ok = True
    for q in range(patterns):
        for i in range(p):  # a column that is missing stands alone, with variance one
            for j in range(p):
                both = pattern[q, i] and pattern[q, j]
                block[i, j] = within[i, j] if both else (1.0 if i == j else 0.0)
        ok = ok and inverse_root(block, root, half)
        if ok:
            row_products(half, inverse[q])
            for i in range(p):
                log_determinant[q] += 2.0 * np.log(root[i, i])
                if not pattern[q, i]:
                    inverse[q, i, i] = 0.0
    return inverse, log_determinant, ok


@INNER
def _rows_upward(mean, site, statistics, inverse, log_determinant, levels, work):  # type: ignore[no-untyped-def]
    """Fill the information about sites on the long route and add it to their groups'; the rows' part of the value."""
    pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, place, _, _ = statistics
    raw_p, raw_h, site_p, site_h, group_raw_p, group_raw_h, _, _ = levels
    p = len(mean)
    value, deviation, weighted = 0.0, np.empty(p), np.empty(p)
    constant = np.empty(len(pattern))
    for q in range(len(pattern)):
        columns = 0
        for i in range(p):
            columns += 1 if pattern[q, i] else 0
            for j in range(p):
                value -= 0.5 * inverse[q, i, j] * scatter[q, i, j]
        constant[q] = log_determinant[q] + LOG_2PI * columns
    quadratic = np.zeros(len(raw_p))
    for c in range(len(n)):
        q, s = cell_pattern[c], place[cell_site[c]]
        value -= 0.5 * n[c] * constant[q]
        if s >= 0:
            for i in range(p):
                deviation[i] = cell_mean[c, i] - mean[i] if pattern[q, i] else 0.0
            multiply(inverse[q], deviation, weighted)
            add_matrix(raw_p[s], inverse[q], n[c])
            for i in range(p):
                raw_h[s, i] += n[c] * weighted[i]
                quadratic[s] += n[c] * deviation[i] * weighted[i]
    for s in range(len(site_group)):
        if place[s] >= 0:
            g, k = site_group[s], place[s]
            logdet, gain = _integrate(raw_p[k], raw_h[k], site, site_p[k], site_h[k], work)
            value -= logdet + 0.5 * (quadratic[k] + gain)
            add_matrix(group_raw_p[g], site_p[k], 1.0)
            for i in range(p):
                group_raw_h[g, i] += site_h[k, i]
    return value


@INNER
def upward(parameters, statistics):  # type: ignore[no-untyped-def]
    """Information of rows about their site, of sites about their group, of groups about the mean; and the value."""
    mean, within, site, group = parameters
    pattern, _, n, cell_mean, _, _, site_group, _, cells, start = statistics
    p, n_groups, long = len(mean), len(start) - 1, len(site_group) - len(cells)
    work = np.empty((4, p, p))
    raw_p, raw_h = np.zeros((long, p, p)), np.zeros((long, p))
    site_p, site_h = np.zeros((long, p, p)), np.zeros((long, p))
    group_raw_p, group_raw_h = np.zeros((n_groups, p, p)), np.zeros((n_groups, p))
    group_p, group_h = np.zeros((n_groups, p, p)), np.zeros((n_groups, p))
    levels = raw_p, raw_h, site_p, site_h, group_raw_p, group_raw_h, group_p, group_h
    rows, u, r = np.empty(len(cells)), np.empty((p, len(cells))), np.empty((p, len(cells)))
    turn, l = np.empty((p, p)), np.zeros(p)
    inverse, log_determinant, ok = _pattern_inverses(pattern, within)
    value = 0.0 if ok else -np.inf
    if ok:
        value = _rows_upward(mean, site, statistics, inverse, log_determinant, levels, work)
        if len(cells) > 0:
            for s in range(len(cells)):
                rows[s] = n[cells[s]]
            turn, l = _common_basis(within, site, work)
            _deviations(turn, cell_mean, cells, mean, u)
            value -= 0.5 * _site_precisions(rows, l, r)
            if value > -np.inf:
                value -= 0.5 * _add_sites(turn, u, r, start, group_raw_p, group_raw_h)
        for g in range(n_groups):
            logdet, gain = _integrate(group_raw_p[g], group_raw_h[g], group, group_p[g], group_h[g], work)
            value -= logdet + 0.5 * gain
    if not np.isfinite(value):
        value = -np.inf
    return value, inverse, levels, (turn, l, rows, u, r)


# Functions for C take the shape of a covariance and then all parameters, the statistics' numbers, and where results go.
@ONCE
def unpack(data, index):  # type: ignore[no-untyped-def]
    """Statistics from the addresses of their numbers; :meth:`Statistics.packed` has their order."""
    head = numba.carray(index, 6)
    p, patterns, cells, sites, groups, short = head[0], head[1], head[2], head[3], head[4], head[5]
    by_cell = beyond(index, 6 + patterns * p)
    by_site = beyond(by_cell, 2 * cells)
    return (
        numba.carray(beyond(index, 6), (patterns, p)),
        numba.carray(data, (patterns, p, p)),
        numba.carray(beyond(data, patterns * p * p), cells),
        numba.carray(beyond(data, patterns * p * p + cells), (cells, p)),
        numba.carray(by_cell, cells),
        numba.carray(beyond(by_cell, cells), cells),
        numba.carray(by_site, sites),
        numba.carray(beyond(by_site, sites), sites),
        numba.carray(beyond(by_site, 2 * sites), short),
        numba.carray(beyond(by_site, 2 * sites + short), groups + 1),
    )


@ONCE
def unpack_parameters(theta, p):  # type: ignore[no-untyped-def]
    """Mean and the three covariances."""
    x = beyond(theta, 2)
    return (
        numba.carray(x, p), numba.carray(beyond(x, p), (p, p)), numba.carray(beyond(x, p + p * p), (p, p)),
        numba.carray(beyond(x, p + 2 * p * p), (p, p)),
    )  # fmt: skip
