"""What the sites of a group add to its precision and information, in compiled code."""

from __future__ import annotations

import numba
import numpy as np

from bayesens.c_functions import BARE, INNER, ONCE
from bayesens.likelihoods.multilevel.small_matrices import (
    add_outer,
    cholesky,
    copy,
    forward,
    inverse_root,
    row_products,
)

__all__ = [
    "add_sites",
    "columns",
    "deviation_from",
    "deviations",
    "integrate",
    "pattern_inverses",
    "site_precisions",
    "site_products",
]

BLOCK = 256  # sites whose deviations from the mean stay in the first cache


FAST = {"reassoc", "contract", "nsz"}  # sums in any order, so that they become vector operations


@numba.njit(fastmath=FAST, **BARE)
def deviations(turn, cell_mean, cells, mean, u):  # type: ignore[no-untyped-def]
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
def site_precisions(rows, l, r):  # type: ignore[no-untyped-def]
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
def add_sites(turn, u, r, start, group_raw_p, group_raw_h):  # type: ignore[no-untyped-def]
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


@INNER
def integrate(precision, information, covariance, left_p, left_h, work):  # type: ignore[no-untyped-def]
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
        copy(precision, left_p)
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
def pattern_inverses(pattern, within):  # type: ignore[no-untyped-def]
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
def deviation_from(pattern, cell_mean, mean, out):  # type: ignore[no-untyped-def]
    """A row less the mean, zero where a member is missing."""
    for j in range(len(mean)):
        out[j] = cell_mean[j] - mean[j] if pattern[j] else 0.0


@INNER
def columns(pattern):  # type: ignore[no-untyped-def]
    """How many members of a pattern are there."""
    count = 0
    for j in range(len(pattern)):
        count += 1 if pattern[j] else 0
    return count
