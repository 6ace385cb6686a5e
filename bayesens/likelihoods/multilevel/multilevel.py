"""A Gaussian multilevel model with its effects integrated out: likelihood, gradient and the effects' distribution.

With the rows of a site summed into information form, sites and groups are the same step: for information ``(P, h)`` about
an effect with prior covariance ``B``, and a root ``P = R R'``, ``h = R q``, what is left about the effect's mean is the
information ``R C^-1 R'`` and ``R C^-1 q`` with ``C = I + R' B R``. Nothing is inverted that may be singular: a member that
a site never has leaves a zero row in ``R``, and an effect of zero variance leaves ``C = I``. The gradient needs one more
pass, from the groups down to the rows, with the smoothed effects.

A site whose rows all have all columns says no more than its number of rows ``n`` and their mean, with covariance
``S + W/n`` about the group. One basis ``T`` makes all of these diagonal, ``T W T' = I`` and ``T S T' = diag(l)``, so that
such sites cost a few vector operations instead of a few matrices each.

All stands in one file: compiled code that is kept on disk is made anew when its own file changes, and sees no other.
"""

from __future__ import annotations

import numba
import numpy as np

from bayesens.c_functions import BARE, INNER, ONCE, beyond

__all__ = ["collapsed_packed", "effects_packed", "groups_packed"]

LOG_2PI = float(np.log(2.0 * np.pi))
BLOCK = 256  # sites whose deviations from the mean stay in the first cache
FAST = {"reassoc", "contract", "nsz"}  # sums in any order, so that they become vector operations


# ------------------------------------------------------------------------------------------------------ small matrices
# Multiplied in plain loops: a call to BLAS costs more than it does, and ten seconds to compile. Results go into arrays
# that the caller has, because allocating one costs as much as filling it.
@INNER
def _apply(a, x, out):  # type: ignore[no-untyped-def]
    """Matrix times vector."""
    for i in range(a.shape[0]):
        value = 0.0
        for j in range(a.shape[1]):
            value += a[i, j] * x[j]
        out[i] = value


@INNER
def _add_outer(out, x, factor):  # type: ignore[no-untyped-def]
    """Add ``factor x x'`` to ``out``."""
    for i in range(len(x)):
        for j in range(len(x)):
            out[i, j] += factor * x[i] * x[j]


@INNER
def _add(out, a, factor):  # type: ignore[no-untyped-def]
    """Add ``factor a`` to the matrix ``out``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] += factor * a[i, j]


@INNER
def _copy(a, out):  # type: ignore[no-untyped-def]
    """Copy a matrix. Assignment to a slice would do, and take a second to compile its error message."""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[i, j] = a[i, j]


@INNER
def _sandwich(out, a, m, factor, work):  # type: ignore[no-untyped-def]
    """Add ``factor a' m a`` to ``out``, both it and ``m`` symmetric; row by row, so that these are vector operations."""
    p = len(m)
    for i in range(p):
        for j in range(p):
            work[i, j] = 0.0
        for k in range(p):
            value = factor * m[i, k]
            for j in range(p):
                work[i, j] += value * a[k, j]
    for k in range(p):
        for i in range(p):
            value = a[k, i]
            for j in range(i + 1):
                out[i, j] += value * work[k, j]
    for i in range(p):
        for j in range(i):
            out[j, i] = out[i, j]


@INNER
def _root(a, r):  # type: ignore[no-untyped-def]
    """Lower Cholesky root into ``r``, which may be ``a``; columns without a positive pivot are zero. Whether all were."""
    p = len(a)
    positive = True
    for j in range(p):
        pivot, least = a[j, j], 1e-14 * abs(a[j, j])
        for k in range(j):
            pivot -= r[j, k] * r[j, k]
            r[k, j] = 0.0
        good = pivot > least
        positive = positive and good
        r[j, j] = np.sqrt(pivot) if good else 0.0
        for i in range(j + 1, p):
            value = a[i, j]
            for k in range(j):
                value -= r[i, k] * r[j, k]
            r[i, j] = value / r[j, j] if good else 0.0
    return positive


@INNER
def _forward(r, x):  # type: ignore[no-untyped-def]
    """Solve ``r z = x`` for a lower triangle, in place; components without a pivot are zero."""
    for i in range(len(x)):
        value = x[i]
        for k in range(i):
            value -= r[i, k] * x[k]
        x[i] = value / r[i, i] if r[i, i] > 0.0 else 0.0


@INNER
def _row_products(a, out):  # type: ignore[no-untyped-def]
    """Matrix product ``a a'``."""
    p = len(a)
    for i in range(p):
        for j in range(i + 1):
            value = 0.0
            for k in range(p):
                value += a[i, k] * a[j, k]
            out[i, j] = out[j, i] = value


@INNER
def _inverse_root(a, root, out):  # type: ignore[no-untyped-def]
    """Transposed inverse of the Cholesky root, so that ``out out'`` is the inverse; whether ``a`` is positive definite."""
    positive = _root(a, root)
    for i in range(len(a)):
        for j in range(len(a)):
            out[i, j] = 1.0 if i == j else 0.0
        _forward(root, out[i])
    return positive


@INNER
def _diagonalise(a, turn):  # type: ignore[no-untyped-def]
    """Make the symmetric ``a`` diagonal by Jacobi's rotations, in place; the rows of ``turn`` turn with it."""
    p = len(a)
    scale = 0.0
    for i in range(p):
        scale = max(scale, abs(a[i, i]))
    for _ in range(30):  # six are many; matrices with NaN end after one
        still = True
        for i in range(p):
            for j in range(i + 1, p):
                if not abs(a[i, j]) > 1e-18 * scale:
                    continue
                still = False
                x = 0.5 * (a[j, j] - a[i, i]) / a[i, j]
                t = (1.0 if x >= 0.0 else -1.0) / (abs(x) + np.sqrt(x * x + 1.0))
                c = 1.0 / np.sqrt(t * t + 1.0)
                s = t * c
                a[i, i] -= t * a[i, j]
                a[j, j] += t * a[i, j]
                a[i, j] = a[j, i] = 0.0
                for k in range(p):
                    if k != i and k != j:
                        left, right = a[k, i], a[k, j]
                        a[k, i] = a[i, k] = c * left - s * right
                        a[k, j] = a[j, k] = s * left + c * right
                    left, right = turn[i, k], turn[j, k]
                    turn[i, k], turn[j, k] = c * left - s * right, s * left + c * right
        if still:
            break


# -------------------------------------------------------------------------------------------- sites in one common basis
@INNER
def _common_basis(within, site, work):  # type: ignore[no-untyped-def]
    """``T`` and ``l`` with ``T within T' = I`` and ``T site T' = diag(l)``."""
    p = len(within)
    root, turn, level, l = work[0], np.empty((p, p)), np.zeros((p, p)), np.empty(p)
    _inverse_root(within, root, turn)
    _sandwich(level, turn, site, 1.0, root)
    for i in range(p):  # to the inverse root itself
        for j in range(i):
            turn[i, j], turn[j, i] = turn[j, i], turn[i, j]
    _diagonalise(level, turn)
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
            _add_outer(group_raw_p[g], turn[j], precision)
            for i in range(p):
                group_raw_h[g, i] += turn[j, i] * information
    return total


@INNER
def _site_products(u, r, each, start, effect_mean, effect_cov, d_site, d_within):  # type: ignore[no-untyped-def]
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
    _root(precision, r)
    for i in range(p):
        q[i] = information[i]
    _forward(r, q)
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
    if not _root(c, c):
        _copy(precision, left_p)
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
    _forward(c, q)
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
        ok = ok and _inverse_root(block, root, half)
        if ok:
            _row_products(half, inverse[q])
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
            _apply(inverse[q], deviation, weighted)
            _add(raw_p[s], inverse[q], n[c])
            for i in range(p):
                raw_h[s, i] += n[c] * weighted[i]
                quadratic[s] += n[c] * deviation[i] * weighted[i]
    for s in range(len(site_group)):
        if place[s] >= 0:
            g, k = site_group[s], place[s]
            logdet, gain = _integrate(raw_p[k], raw_h[k], site, site_p[k], site_h[k], work)
            value -= logdet + 0.5 * (quadratic[k] + gain)
            _add(group_raw_p[g], site_p[k], 1.0)
            for i in range(p):
                group_raw_h[g, i] += site_h[k, i]
    return value


@INNER
def _upward(parameters, statistics):  # type: ignore[no-untyped-def]
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


# -------------------------------------------------------------------------------------------------------------- downward
@ONCE
def _group_effect(group, group_p, group_h, mean, covariance, work):  # type: ignore[no-untyped-def]
    """Mean and covariance of a group's effect, given what its rows say about it."""
    _apply(group, group_h, mean)
    _copy(group, covariance)
    _sandwich(covariance, group, group_p, -1.0, work)


@ONCE
def _site_effect(  # type: ignore[no-untyped-def]
    site, site_p, site_h, group_mean, group_cov, still, mean, covariance, residual, work
):
    """Mean and covariance of a site's own effect plus its group's, and what the site says beyond its group.

    ``still`` says that the group's has no variance.
    """
    p = len(site_h)
    _apply(site_p, group_mean, residual)
    for i in range(p):
        residual[i] = site_h[i] - residual[i]
    _apply(site, residual, mean)
    for i in range(p):
        mean[i] += group_mean[i]
    _copy(site, covariance)
    _sandwich(covariance, site, site_p, -1.0, work[1])
    if not still:
        keep = work[0]
        for i in range(p):  # I - site_p site
            for j in range(p):
                keep[i, j] = 1.0 if i == j else 0.0
            for k in range(p):
                value = site_p[i, k]
                for j in range(p):
                    keep[i, j] -= value * site[k, j]
        _sandwich(covariance, keep, group_cov, 1.0, work[1])


@INNER
def _rows_downward(  # type: ignore[no-untyped-def]
    mean, site, statistics, site_p, site_h, effect_mean, effect_cov, expected, rows, d_site, work
):
    """Count rows and add their expected squares given all rows, for each pattern; add the sites' part of ``d_site``."""
    _, _, n, cell_mean, cell_pattern, cell_site, site_group, place, _, _ = statistics
    p = len(mean)
    effect, spread, residual = np.empty(p), np.empty((p, p)), np.empty(p)
    last, still = -1, not effect_cov.any()
    for c in range(len(n)):
        q, s = cell_pattern[c], cell_site[c]
        k = place[s]
        rows[q] += n[c]
        if k < 0:
            rows[q] -= 1.0  # the one that is the site's mean
            continue
        if s != last:
            last, g = s, site_group[s]
            _site_effect(
                site, site_p[k], site_h[k], effect_mean[g], effect_cov[g], still, effect, spread, residual, work
            )
            # Derivative by the site level: what the smoothed effects say beyond their prior.
            _add_outer(d_site, residual, 0.5)
            _add(d_site, site_p[k], -0.5)
            if not still:
                _sandwich(d_site, site_p[k], effect_cov[g], 0.5, work[0])
        for i in range(p):
            residual[i] = cell_mean[c, i] - mean[i] - effect[i]
        _add_outer(expected[q], residual, n[c])
        _add(expected[q], spread, n[c])


@INNER
def _short_downward(turn, rows, u, r, start, effect_mean, effect_cov, d_within, d_site):  # type: ignore[no-untyped-def]
    """Add the derivatives that sites on the short route give, except for their rows' scatter."""
    p = len(turn)
    work = np.empty((p, p))
    turned_mean, turned_cov = np.empty(effect_mean.shape), np.zeros(effect_cov.shape)
    by_site, by_within, each = np.empty((p, p)), np.empty((p, p)), np.empty(len(rows))
    for s in range(len(rows)):
        each[s] = 1.0 / rows[s]
    for g in range(len(start) - 1):
        _apply(turn, effect_mean[g], turned_mean[g])
        _sandwich(turned_cov[g], turn.T, effect_cov[g], 1.0, work)
    _site_products(u, r, each, start, turned_mean, turned_cov, by_site, by_within)
    _sandwich(d_site, turn, by_site, 1.0, work)
    _sandwich(d_within, turn, by_within, 1.0, work)


# --------------------------------------------------------------------------------------------------- functions for C
# They take the shape of a covariance and then all parameters, the statistics' numbers, and where results go.
@ONCE
def _unpack(data, index):  # type: ignore[no-untyped-def]
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
def _parameters(theta, p):  # type: ignore[no-untyped-def]
    """Mean and the three covariances."""
    x = beyond(theta, 2)
    return (
        numba.carray(x, p), numba.carray(beyond(x, p), (p, p)), numba.carray(beyond(x, p + p * p), (p, p)),
        numba.carray(beyond(x, p + 2 * p * p), (p, p)),
    )  # fmt: skip


def collapsed_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Value and gradient."""
    statistics = _unpack(data, index)
    pattern, scatter, _, _, _, _, _, _, cells, start = statistics
    p, n_groups = scatter.shape[1], len(start) - 1
    parameters = _parameters(theta, p)
    mean, _, site, group = parameters
    d_mean, d_within, d_site, d_group = _parameters(beyond(out, -1), p)
    out = numba.carray(out, 1 + p + 3 * p * p)
    value, inverse, levels, (turn, _, shorter, u, r) = _upward(parameters, statistics)
    out[0] = value
    for i in range(1, len(out)):
        out[i] = 0.0
    if value == -np.inf:
        return
    _, _, site_p, site_h, _, _, group_p, group_h = levels
    work, effect_mean, effect_cov = np.empty((2, p, p)), np.empty((n_groups, p)), np.empty((n_groups, p, p))
    for g in range(n_groups):
        _group_effect(group, group_p[g], group_h[g], effect_mean[g], effect_cov[g], work[0])
        _add_outer(d_group, group_h[g], 0.5)
        _add(d_group, group_p[g], -0.5)
        for i in range(p):
            d_mean[i] += group_h[g, i]
    expected, rows = np.zeros(scatter.shape), np.zeros(len(pattern))
    _rows_downward(mean, site, statistics, site_p, site_h, effect_mean, effect_cov, expected, rows, d_site, work)
    for q in range(len(pattern)):
        _add(expected[q], scatter[q], 1.0)
        _sandwich(d_within, inverse[q], expected[q], 0.5, work[0])
        _add(d_within, inverse[q], -0.5 * rows[q])
    if len(cells) > 0:
        _short_downward(turn, shorter, u, r, start, effect_mean, effect_cov, d_within, d_site)


@INNER
def _backward(r, x):  # type: ignore[no-untyped-def]
    """Solve ``r' z = x`` for a lower triangle with positive diagonal, in place."""
    for i in range(len(x) - 1, -1, -1):
        for k in range(i + 1, len(x)):
            x[i] -= r[k, i] * x[k]
        x[i] /= r[i, i]


@INNER
def _effects(r, precision, information, z, out, work):  # type: ignore[no-untyped-def]
    """Draw an effect of prior covariance ``r r'`` with information (precision, information) from z; its log density."""
    p = len(z)
    c, half = work[0], work[1, 0]
    for i in range(p):
        for j in range(p):
            c[i, j] = 1.0 if i == j else 0.0
    _sandwich(c, r, precision, 1.0, work[2])
    _root(c, c)
    for i in range(p):
        half[i] = 0.0
        for k in range(p):
            half[i] += r[k, i] * information[k]
    _forward(c, half)
    log_density = 0.0
    for i in range(p):
        half[i] += z[i]
        if r[i, i] > 0.0:
            log_density += np.log(c[i, i]) - np.log(r[i, i]) - 0.5 * (LOG_2PI + z[i] ** 2)
    _backward(c, half)
    _apply(r, half, out)
    return log_density


@INNER
def _short_effects(within, turn, l, rows, u, cells, cell_site, start, groups, noise, drawn):  # type: ignore[no-untyped-def]
    """Draw the effects of sites on the short route, column by column in the common basis; their log density.

    There the effect has the variance ``l`` before and ``l / (1 + n l)`` after the ``n`` rows, whose mean less the group's is
    ``u``; ``within turn'`` turns back.
    """
    p, log_density = len(l), 0.0
    back, about, effect = np.zeros((p, p)), np.empty(p), np.empty(p)
    each = -0.5 * p * LOG_2PI
    for j in range(p):
        each -= 0.5 * np.log(l[j])
        for i in range(p):
            for k in range(p):
                back[i, j] += within[i, k] * turn[j, k]
    root = back.copy()  # its determinant is the inverse of the basis's
    _row_products(back, root)
    _root(root, root)
    for j in range(p):
        each -= np.log(root[j, j])
    for g in range(len(start) - 1):
        _apply(turn, groups[g], about)
        for s in range(start[g], start[g + 1]):
            site = cell_site[cells[s]]
            log_density += each
            for j in range(p):
                open_share = 1.0 / (1.0 + rows[s] * l[j])
                z = noise[site, j]
                effect[j] = l[j] * open_share * rows[s] * (u[j, s] - about[j]) + np.sqrt(l[j] * open_share) * z
                log_density -= 0.5 * (np.log(open_share) + z * z)
            _apply(back, effect, drawn[site])
    return log_density


def effects_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Log density of drawn effects, and those of groups and sites, from noise that follows the parameters."""
    statistics = _unpack(data, index)
    pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, place, cells, start = statistics
    p, sites, n_groups = scatter.shape[1], len(site_group), len(start) - 1
    parameters = _parameters(theta, p)
    _, within, site, group = parameters
    noise = numba.carray(beyond(theta, 2 + p + 3 * p * p), (n_groups + sites, p))
    drawn = numba.carray(beyond(out, 1), (n_groups + sites, p))
    left, prior, work = np.empty(p), np.empty((p, p)), np.empty((4, p, p))
    _, _, levels, (turn, l, rows, u, _) = _upward(parameters, statistics)
    if len(cells) > 0 and not l.min() > 1e-12 * l.max():
        # Some combination of columns has no effect: the long route for all.
        place, cells, start = np.arange(sites), np.zeros(0, np.int64), np.zeros(n_groups + 1, np.int64)
        statistics = pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, place, cells, start
        _, _, levels, (turn, l, rows, u, _) = _upward(parameters, statistics)
    raw_p, raw_h, _, _, group_raw_p, group_raw_h, _, _ = levels
    log_density = 0.0
    _root(group, prior)
    for g in range(n_groups):
        log_density += _effects(prior, group_raw_p[g], group_raw_h[g], noise[g], drawn[g], work)
    if len(cells) > 0:
        log_density += _short_effects(
            within, turn, l, rows, u, cells, cell_site, start, drawn, noise[n_groups:], drawn[n_groups:]
        )
    _root(site, prior)
    for s in range(sites):
        k = place[s]
        if k >= 0:
            _apply(raw_p[k], drawn[site_group[s]], left)
            for i in range(p):
                left[i] = raw_h[k, i] - left[i]
            log_density += _effects(prior, raw_p[k], left, noise[n_groups + s], drawn[n_groups + s], work)
    numba.carray(out, 1)[0] = log_density


def groups_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Means of the groups' effects given all rows, then their covariances."""
    statistics = _unpack(data, index)
    p, n_groups = statistics[1].shape[1], len(statistics[9]) - 1
    parameters = _parameters(theta, p)
    means, covariances = numba.carray(out, (n_groups, p)), numba.carray(beyond(out, n_groups * p), (n_groups, p, p))
    levels, work = _upward(parameters, statistics)[2], np.empty((p, p))
    for g in range(n_groups):
        _group_effect(parameters[3], levels[6][g], levels[7][g], means[g], covariances[g], work)
