"""A Gaussian multilevel model with its effects integrated out: likelihood, gradient and the effects' distribution.

With the rows of a site summed into information form, sites and groups are the same step: for information ``(P, h)`` about
an effect with prior covariance ``B``, and a root ``P = R R'``, ``h = R q``, what is left about the effect's mean is the
information ``R C^-1 R'`` and ``R C^-1 q`` with ``C = I + R' B R``. Nothing is inverted that may be singular: a member that
a site never has leaves a zero row in ``R``, and an effect of zero variance leaves ``C = I``. The gradient needs one more
pass, from the groups down to the rows, with the smoothed effects.
"""

from __future__ import annotations

import numba
import numpy as np

from bayesens.sufficient import Statistics

__all__ = [
    "collapsed_flat",
    "collapsed_many",
    "collapsed_packed",
    "collapsed_values",
    "effect_draws",
    "group_moments",
    "site_moments",
]

LOG_2PI = float(np.log(2.0 * np.pi))


# Small matrices are multiplied in plain loops: a call to BLAS costs more than it does, and ten seconds to compile.
@numba.njit(cache=True, nogil=True)
def _dot(a, b):  # type: ignore[no-untyped-def]
    """Matrix product ``a b``."""
    out = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            for j in range(b.shape[1]):
                out[i, j] += a[i, k] * b[k, j]
    return out


@numba.njit(cache=True, nogil=True)
def _gram(a, b):  # type: ignore[no-untyped-def]
    """Matrix product ``a' b``."""
    out = np.zeros((a.shape[1], b.shape[1]))
    for k in range(a.shape[0]):
        for i in range(a.shape[1]):
            for j in range(b.shape[1]):
                out[i, j] += a[k, i] * b[k, j]
    return out


@numba.njit(cache=True, nogil=True)
def _apply(a, x):  # type: ignore[no-untyped-def]
    """Matrix times vector."""
    out = np.zeros(a.shape[0])
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[i] += a[i, j] * x[j]
    return out


@numba.njit(cache=True, nogil=True)
def _add_outer(out, x, factor):  # type: ignore[no-untyped-def]
    """Add ``factor x x'`` to ``out``."""
    for i in range(len(x)):
        for j in range(len(x)):
            out[i, j] += factor * x[i] * x[j]


@numba.njit(cache=True, nogil=True)
def _add(out, a, factor):  # type: ignore[no-untyped-def]
    """Add ``factor a`` to the matrix ``out``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] += factor * a[i, j]


@numba.njit(cache=True, nogil=True)
def _root(a):  # type: ignore[no-untyped-def]
    """Lower Cholesky root; columns without a positive pivot stay zero. Returns the root and whether all were positive."""
    p = a.shape[0]
    r = np.zeros((p, p))
    positive = True
    for j in range(p):
        pivot = a[j, j]
        for k in range(j):
            pivot -= r[j, k] ** 2
        if not pivot > 1e-14 * abs(a[j, j]):
            positive = False
            continue
        r[j, j] = np.sqrt(pivot)
        for i in range(j + 1, p):
            value = a[i, j]
            for k in range(j):
                value -= r[i, k] * r[j, k]
            r[i, j] = value / r[j, j]
    return r, positive


@numba.njit(cache=True, nogil=True)
def _forward(r, b):  # type: ignore[no-untyped-def]
    """Solve ``r x = b`` for a lower triangle; components without a pivot are zero."""
    x = np.zeros(len(b))
    for i in range(len(b)):
        if r[i, i] > 0.0:
            value = b[i]
            for k in range(i):
                value -= r[i, k] * x[k]
            x[i] = value / r[i, i]
    return x


@numba.njit(cache=True, nogil=True)
def _backward(r, b):  # type: ignore[no-untyped-def]
    """Solve ``r' x = b`` for a lower triangle with positive diagonal."""
    p = len(b)
    x = np.zeros(p)
    for i in range(p - 1, -1, -1):
        value = b[i]
        for k in range(i + 1, p):
            value -= r[k, i] * x[k]
        x[i] = value / r[i, i]
    return x


@numba.njit(cache=True, nogil=True)
def _plus_identity(a):  # type: ignore[no-untyped-def]
    for i in range(a.shape[0]):
        a[i, i] += 1.0
    return a


@numba.njit(cache=True, nogil=True)
def _transposed(a):  # type: ignore[no-untyped-def]
    out = np.empty((a.shape[1], a.shape[0]))
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[j, i] = a[i, j]
    return out


@numba.njit(cache=True, nogil=True)
def _columns(pattern):  # type: ignore[no-untyped-def]
    """Number of columns that each pattern has; NumPy's sum along an axis takes two seconds to compile."""
    out = np.zeros(len(pattern), dtype=np.int64)
    for q in range(len(pattern)):
        for j in range(pattern.shape[1]):
            out[q] += pattern[q, j]
    return out


@numba.njit(cache=True, nogil=True)
def _integrate(precision, information, covariance):  # type: ignore[no-untyped-def]
    """Integrate an effect with the given prior covariance out of ``exp(h'e - e'Pe/2)``.

    Returns the information that is left about its mean, the log determinant and what the quadratic form gains.
    """
    p = len(information)
    r, _ = _root(precision)
    q = _forward(r, information)
    c, ok = _root(_plus_identity(_gram(r, _dot(covariance, r))))
    if not ok:
        return precision, information, np.inf, 0.0
    half = np.empty((p, p))
    for i in range(p):
        column = _forward(c, r[i])
        for j in range(p):
            half[j, i] = column[j]
    qc = _forward(c, q)
    log_determinant, gain = 0.0, 0.0
    left = np.zeros(p)
    for i in range(p):
        log_determinant += np.log(c[i, i])
        gain += qc[i] ** 2 - q[i] ** 2
        for j in range(p):
            left[j] += half[i, j] * qc[i]
    return _gram(half, half), left, log_determinant, gain


@numba.njit(cache=True, nogil=True)
def _pattern_inverses(pattern, within):  # type: ignore[no-untyped-def]
    """Inverse (padded with zeros) and log determinant of the rows' covariance for each pattern of missing columns."""
    patterns, p = pattern.shape
    inverse = np.zeros((patterns, p, p))
    log_determinant = np.zeros(patterns)
    for q in range(patterns):
        index = np.nonzero(pattern[q])[0]
        m = len(index)
        block = np.empty((m, m))
        for i in range(m):
            for j in range(m):
                block[i, j] = within[index[i], index[j]]
        r, ok = _root(block)
        if not ok:
            return inverse, log_determinant, False
        for i in range(m):
            log_determinant[q] += 2.0 * np.log(r[i, i])
            unit = np.zeros(m)
            unit[i] = 1.0
            column = _backward(r, _forward(r, unit))
            for j in range(m):
                inverse[q, index[j], index[i]] = column[j]
    return inverse, log_determinant, True


@numba.njit(cache=True, nogil=True)
def _deviation(pattern, cell_mean, mean):  # type: ignore[no-untyped-def]
    out = np.zeros(len(mean))
    for j in range(len(mean)):
        if pattern[j]:
            out[j] = cell_mean[j] - mean[j]
    return out


# fmt: off
@numba.njit(cache=True, nogil=True)
def _sites_upward(  # type: ignore[no-untyped-def]
    mean, site, inverse, log_determinant, alone, pattern, n, cell_mean, cell_pattern, cell_site, site_group, group_p, group_h
):
    # fmt: on
    """Information of rows about their site, and of sites about their group, which is added to the last two; and the value.

    Sites that stand alone, by the index of their only cell, are left out.
    """
    p, sites = len(mean), len(site_group)
    raw_p, raw_h = np.zeros((sites, p, p)), np.zeros((sites, p))
    site_p, site_h = np.zeros((sites, p, p)), np.zeros((sites, p))
    quadratic = np.zeros(sites)
    columns = _columns(pattern)
    value = 0.0
    for c in range(len(n)):
        q, s = cell_pattern[c], cell_site[c]
        if alone[s] >= 0:
            continue
        deviation = _deviation(pattern[q], cell_mean[c], mean)
        weighted = _apply(inverse[q], deviation)
        value -= 0.5 * n[c] * (log_determinant[q] + LOG_2PI * columns[q])
        _add(raw_p[s], inverse[q], n[c])
        for i in range(p):
            raw_h[s, i] += n[c] * weighted[i]
            quadratic[s] += n[c] * deviation[i] * weighted[i]
    for s in range(sites):
        if alone[s] >= 0:
            continue
        left_p, left_h, logdet, gain = _integrate(raw_p[s], raw_h[s], site)
        value -= logdet + 0.5 * (quadratic[s] + gain)
        _add(site_p[s], left_p, 1.0)
        _add(group_p[site_group[s]], left_p, 1.0)
        for i in range(p):
            site_h[s, i] = left_h[i]
            group_h[site_group[s], i] += left_h[i]
    return value, raw_p, raw_h, site_p, site_h


@numba.njit(cache=True, nogil=True)
def _groups_upward(group, raw_p, raw_h):  # type: ignore[no-untyped-def]
    """Information of groups about the mean, from that of their sites about them; and the value."""
    n_groups, p = raw_h.shape
    group_p, group_h = np.zeros((n_groups, p, p)), np.zeros((n_groups, p))
    value = 0.0
    for g in range(n_groups):
        left_p, left_h, logdet, gain = _integrate(raw_p[g], raw_h[g], group)
        value -= logdet + 0.5 * gain
        _add(group_p[g], left_p, 1.0)
        for i in range(p):
            group_h[g, i] = left_h[i]
    return value, group_p, group_h


@numba.njit(cache=True, nogil=True)
def _scatter_value(inverse, scatter):  # type: ignore[no-untyped-def]
    value = 0.0
    for q in range(len(inverse)):
        for i in range(inverse.shape[1]):
            for j in range(inverse.shape[1]):
                value -= 0.5 * inverse[q, i, j] * scatter[q, i, j]
    return value


@numba.njit(cache=True, nogil=True)
def _upward(mean, within, site, group, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, n_groups):  # type: ignore[no-untyped-def]
    """Information of rows about their site, of sites about their group, of groups about the mean; and the value."""
    p = len(mean)
    inverse, log_determinant, ok = _pattern_inverses(pattern, within)
    group_raw_p, group_raw_h = np.zeros((n_groups, p, p)), np.zeros((n_groups, p))
    alone = np.full(len(site_group), -1)
    value, raw_p, raw_h, site_p, site_h = _sites_upward(
        mean, site, inverse, log_determinant, alone, pattern, n, cell_mean, cell_pattern, cell_site, site_group,
        group_raw_p, group_raw_h,
    )  # fmt: skip
    of_groups, group_p, group_h = _groups_upward(group, group_raw_p, group_raw_h)
    value += of_groups + _scatter_value(inverse, scatter)
    if not (ok and np.isfinite(value)):
        value = -np.inf
    return value, inverse, raw_p, raw_h, site_p, site_h, group_raw_p, group_raw_h, group_p, group_h


# ----------------------------------------------------------------------------------------- sites whose rows are complete
# The mean of n complete rows of a site has covariance S + W / n about its group. In coordinates in which W is the identity
# and S diagonal all such sites are diagonal, whatever their n: no factorisation, and next to no work, for each.
@numba.njit(cache=True, nogil=True)
def _alone(pattern, cell_pattern, cell_site, sites):  # type: ignore[no-untyped-def]
    """Index of the only cell of each site whose rows are all complete; -1 for other sites."""
    p = pattern.shape[1]
    out = np.full(sites, -1)
    cells = np.zeros(sites, dtype=np.int64)
    complete = _columns(pattern)
    for c in range(len(cell_site)):
        cells[cell_site[c]] += 1
        if complete[cell_pattern[c]] == p:
            out[cell_site[c]] = c
    for s in range(sites):
        if cells[s] > 1:
            out[s] = -1
    return out


@numba.njit(cache=True, nogil=True)
def _eigen(a):  # type: ignore[no-untyped-def]
    """Eigenvalues and eigenvectors (rows) of a small symmetric matrix, by Jacobi's rotations; ``a`` is overwritten."""
    p = len(a)
    values, vectors = np.empty(p), np.zeros((p, p))
    for i in range(p):
        vectors[i, i] = 1.0
    for _ in range(50):
        off, size = 0.0, 0.0
        for i in range(p):
            size += a[i, i] ** 2
            for j in range(i):
                off += a[i, j] ** 2
        if off <= 1e-32 * size or off == 0.0:
            break
        for i in range(p - 1):
            for j in range(i + 1, p):
                if a[i, j] == 0.0:
                    continue
                ratio = 0.5 * (a[j, j] - a[i, i]) / a[i, j]
                t = 1.0 / (abs(ratio) + np.sqrt(1.0 + ratio**2))
                t = t if ratio >= 0.0 else -t
                c = 1.0 / np.sqrt(1.0 + t * t)
                s = t * c
                for k in range(p):
                    x, y = a[k, i], a[k, j]
                    a[k, i], a[k, j] = c * x - s * y, s * x + c * y
                for k in range(p):
                    x, y = a[i, k], a[j, k]
                    a[i, k], a[j, k] = c * x - s * y, s * x + c * y
                    x, y = vectors[i, k], vectors[j, k]
                    vectors[i, k], vectors[j, k] = c * x - s * y, s * x + c * y
    for i in range(p):
        values[i] = a[i, i]
    return values, vectors


@numba.njit(cache=True, nogil=True)
def _diagonalising(within, site):  # type: ignore[no-untyped-def]
    """T with T W T' = I and T S T' diagonal, and this diagonal."""
    p = len(within)
    root, _ = _root(within)
    half, a = np.empty((p, p)), np.empty((p, p))
    for i in range(p):
        column = _forward(root, site[i])
        for j in range(p):
            half[j, i] = column[j]
    for i in range(p):
        column = _forward(root, half[i])
        for j in range(i + 1):
            a[i, j] = a[j, i] = column[j]
    values, vectors = _eigen(a)
    t = np.empty((p, p))
    for i in range(p):
        column = _backward(root, vectors[i])
        for j in range(p):
            t[i, j] = column[j]
    return t, values


@numba.njit(cache=True, nogil=True)
def _alone_upward(mean, t, spread, log_determinant, cells, n, cell_mean, u, precision):  # type: ignore[no-untyped-def]
    """Means of sites in diagonal coordinates, ``u (column, site)``, their precisions about their group, and the value."""
    p = len(mean)
    value = 0.0
    for s in range(len(cells)):
        c = cells[s]
        product, logarithm, quadratic = 1.0, 0.0, 0.0
        for j in range(p):
            total = 0.0
            for i in range(p):
                total += t[j, i] * (cell_mean[c, i] - mean[i])
            u[j, s] = total
            relative = 1.0 + n[c] * spread[j]
            if not relative > 0.0:  # no covariance
                return -np.inf
            precision[j, s] = n[c] / relative
            quadratic += total * total * precision[j, s]
            product *= relative
            if product > 1e200:
                logarithm += np.log(product)
                product = 1.0
        value -= 0.5 * (n[c] * (p * LOG_2PI + log_determinant) + logarithm + np.log(product) + quadratic)
    return value


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _products(a, b, x, y, weight, omega):  # type: ignore[no-untyped-def]
    """Sums over sites of ``a b + omega x y``, and of that times a weight."""
    one, weighted = 0.0, 0.0
    for s in range(len(a)):
        each = a[s] * b[s] + omega * x[s] * y[s]
        one += each
        weighted += each * weight[s]
    return one, weighted


@numba.njit(cache=True, nogil=True)
def _alone_downward(u, precision, first, end, cells, n, center, spread, plain, weighted):  # type: ignore[no-untyped-def]
    """Add the derivatives by S and by W / n of the sites of one group, in diagonal coordinates, given its effect."""
    p, sites = len(u), end - first
    residual, weight = np.empty((p, sites)), np.empty(sites)
    for s in range(sites):
        weight[s] = 1.0 / n[cells[first + s]]
        for j in range(p):
            residual[j, s] = (u[j, first + s] - center[j]) * precision[j, first + s]
    for i in range(p):
        x = precision[i, first:end]
        for j in range(i + 1):
            one, two = _products(residual[i], residual[j], x, precision[j, first:end], weight, spread[i, j])
            plain[i, j] += 0.5 * one
            weighted[i, j] += 0.5 * two
        for s in range(sites):
            plain[i, i] -= 0.5 * x[s]
            weighted[i, i] -= 0.5 * x[s] * weight[s]


@numba.njit(cache=True, nogil=True)
def _from_diagonal(out, t, lower):  # type: ignore[no-untyped-def]
    """Add ``T' A T`` for the symmetric matrix of a lower triangle."""
    a = np.zeros(lower.shape)
    for i in range(len(a)):
        for j in range(i + 1):
            a[i, j] = a[j, i] = lower[i, j]
    _add(out, _gram(t, _dot(a, t)), 1.0)


@numba.njit(cache=True, nogil=True)
def _complete_pattern(pattern):  # type: ignore[no-untyped-def]
    """Index of the pattern without missing columns."""
    columns = _columns(pattern)
    for q in range(len(pattern)):
        if columns[q] == pattern.shape[1]:
            return q
    return 0


@numba.njit(cache=True, nogil=True)
def _cells_alone(alone, count):  # type: ignore[no-untyped-def]
    """Cells of the sites that stand alone, in the order of the sites."""
    out = np.empty(count, dtype=np.int64)
    at = 0
    for cell in alone:
        if cell >= 0:
            out[at] = cell
            at += 1
    return out


@numba.njit(cache=True, nogil=True)
def _first_of_group(alone, site_group, n_groups):  # type: ignore[no-untyped-def]
    """Where each group begins among the sites that stand alone, which are sorted by group, and the end."""
    start = np.zeros(n_groups + 1, dtype=np.int64)
    for s in range(len(alone)):
        if alone[s] >= 0:
            start[site_group[s] + 1] += 1
    for g in range(n_groups):
        start[g + 1] += start[g]
    return start


@numba.njit(cache=True, nogil=True)
def _both_upward(mean, within, site, group, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, n_groups):  # type: ignore[no-untyped-def]
    """The value, and what the derivatives need, with sites of complete rows in diagonal coordinates."""
    p = len(mean)
    inverse, log_determinant, ok = _pattern_inverses(pattern, within)
    alone = _alone(pattern, cell_pattern, cell_site, len(site_group)) if ok else np.full(len(site_group), -1)
    group_raw_p, group_raw_h = np.zeros((n_groups, p, p)), np.zeros((n_groups, p))
    value, _, _, site_p, site_h = _sites_upward(
        mean, site, inverse, log_determinant, alone, pattern, n, cell_mean, cell_pattern, cell_site, site_group,
        group_raw_p, group_raw_h,
    )  # fmt: skip
    start = _first_of_group(alone, site_group, n_groups)
    cells = _cells_alone(alone, start[n_groups])
    u, precision = np.empty((p, len(cells))), np.empty((p, len(cells)))
    t, spread = np.zeros((p, p)), np.zeros(p)
    if len(cells):
        t, spread = _diagonalising(within, site)
        value += _alone_upward(mean, t, spread, log_determinant[_complete_pattern(pattern)], cells, n, cell_mean, u,
                               precision)  # fmt: skip
        for g in range(n_groups):
            for j in range(p):
                about, information = 0.0, 0.0
                for s in range(start[g], start[g + 1]):
                    about += precision[j, s]
                    information += precision[j, s] * u[j, s]
                for i in range(p):
                    group_raw_h[g, i] += t[j, i] * information
                    for k in range(p):
                        group_raw_p[g, i, k] += t[j, i] * about * t[j, k]
    of_groups, group_p, group_h = _groups_upward(group, group_raw_p, group_raw_h)
    value += of_groups + _scatter_value(inverse, scatter)
    if not (ok and np.isfinite(value)):
        value = -np.inf
    return value, inverse, alone, site_p, site_h, group_p, group_h, start, cells, t, u, precision


@numba.njit(cache=True, nogil=True)
def _group_effect(group, group_p, group_h):  # type: ignore[no-untyped-def]
    """Mean and covariance of a group's effect, given what its rows say about it."""
    covariance = group.copy()
    _add(covariance, _dot(group, _dot(group_p, group)), -1.0)
    return _apply(group, group_h), covariance


@numba.njit(cache=True, nogil=True)
def _site_effect(site, site_p, site_h, group_mean, group_cov):  # type: ignore[no-untyped-def]
    """Mean and covariance of a site's own effect plus its group's, and what the site says beyond its group."""
    p = len(site_h)
    residual = site_h - _apply(site_p, group_mean)
    keep = _dot(site, site_p)
    for i in range(p):
        for j in range(p):
            keep[i, j] = (1.0 if i == j else 0.0) - keep[i, j]
    covariance = _dot(keep, site)
    carried = _dot(keep, group_cov)
    for i in range(p):
        for j in range(p):
            for k in range(p):
                covariance[i, j] += carried[i, k] * keep[j, k]
    return group_mean + _apply(site, residual), covariance, residual


@numba.njit(cache=True, nogil=True)
def _collapsed(mean, within, site, group, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, count):  # type: ignore[no-untyped-def]
    p = len(mean)
    n_groups = int(count[0])
    d_mean = np.zeros(p)
    d_within, d_site, d_group = np.zeros((p, p)), np.zeros((p, p)), np.zeros((p, p))
    value, inverse, alone, site_p, site_h, group_p, group_h, start, cells, t, u, precision = _both_upward(
        mean, within, site, group, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, n_groups
    )
    if value == -np.inf:
        return value, d_mean, d_within, d_site, d_group
    effect_mean, effect_cov = np.zeros((n_groups, p)), np.zeros((n_groups, p, p))
    plain, weighted = np.zeros((p, p)), np.zeros((p, p))
    for g in range(n_groups):
        center, effect_cov[g] = _group_effect(group, group_p[g], group_h[g])
        _add_outer(d_group, group_h[g], 0.5)
        _add(d_group, group_p[g], -0.5)
        for i in range(p):
            effect_mean[g, i] = center[i]
            d_mean[i] += group_h[g, i]
        if start[g] < start[g + 1]:
            spread = _dot(t, _dot(effect_cov[g], _transposed(t)))
            _alone_downward(u, precision, start[g], start[g + 1], cells, n, _apply(t, center), spread, plain, weighted)
    _from_diagonal(d_site, t, plain)
    _from_diagonal(d_within, t, weighted)
    expected = scatter.copy()
    rows = np.zeros(len(pattern))
    shift, spread = np.zeros(p), np.zeros((p, p))
    last = -1
    for c in range(len(n)):
        q, s = cell_pattern[c], cell_site[c]
        if alone[s] >= 0:  # its mean stands apart from its other n - 1 rows
            rows[q] += n[c] - 1.0
            continue
        if s != last:
            last = s
            g = site_group[s]
            effect, spread, residual = _site_effect(site, site_p[s], site_h[s], effect_mean[g], effect_cov[g])
            shift = mean + effect
            # Derivative by the site level: what the smoothed effects say beyond their prior.
            _add_outer(d_site, residual, 0.5)
            _add(d_site, site_p[s], -0.5)
            _add(d_site, _dot(site_p[s], _dot(effect_cov[g], site_p[s])), 0.5)
        rows[q] += n[c]
        for i in range(p):
            for j in range(p):
                expected[q, i, j] += n[c] * ((cell_mean[c, i] - shift[i]) * (cell_mean[c, j] - shift[j]) + spread[i, j])
    for q in range(len(pattern)):
        _add(d_within, _dot(inverse[q], _dot(expected[q], inverse[q])), 0.5)
        _add(d_within, inverse[q], -0.5 * rows[q])
    return value, d_mean, d_within, d_site, d_group


# What calls the kernel stays in this file: numba compiles them into one and looks for edits in the caller's file only.
@numba.njit(cache=True, nogil=True)
def _unpack(data, index):  # type: ignore[no-untyped-def]
    """Statistics from flat arrays."""
    p, patterns, cells, sites = index[0], index[1], index[2], index[3]
    square = p * p
    place = 5 + patterns * p
    return (
        index[5:place].reshape((patterns, p)),
        data[: patterns * square].reshape((patterns, p, p)),
        data[patterns * square : patterns * square + cells],
        data[patterns * square + cells :].reshape((cells, p)),
        index[place : place + cells],
        index[place + cells : place + 2 * cells],
        index[place + 2 * cells : place + 2 * cells + sites],
    )


@numba.njit(cache=True, nogil=True)
def _parameters(theta, p):  # type: ignore[no-untyped-def]
    """Mean and the three covariances, which the shape of the last precedes."""
    square, x = p * p, theta[2:]
    return (
        x[:p], x[p : p + square].reshape((p, p)), x[p + square : p + 2 * square].reshape((p, p)),
        x[p + 2 * square :].reshape((p, p)),
    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def collapsed_flat(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Value and gradient, from and into flat arrays."""
    p, square = index[0], index[0] * index[0]
    count = np.zeros(1)
    count[0] = index[4]
    mean, within, site, group = _parameters(theta, p)
    pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group = _unpack(data, index)
    value, m, w, s, g = _collapsed(
        mean, within, site, group, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, count
    )
    out[0] = value
    for i in range(p):
        out[1 + i] = m[i]
        for j in range(p):
            out[1 + p + i * p + j] = w[i, j]
            out[1 + p + square + i * p + j] = s[i, j]
            out[1 + p + 2 * square + i * p + j] = g[i, j]


@numba.njit(cache=True, nogil=True)
def collapsed_many(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Values and gradients for many sets of parameters ``theta (draw, parameter)``."""
    for d in range(len(theta)):
        collapsed_flat(theta[d], data, index, out[d])


@numba.njit(cache=True, nogil=True)
def collapsed_values(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Values alone, for many sets of parameters ``theta (draw, parameter)``, into ``out (draw, 1)``."""
    pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group = _unpack(data, index)
    for d in range(len(theta)):
        mean, within, site, group = _parameters(theta[d], index[0])
        out[d, 0] = _both_upward(
            mean, within, site, group, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, index[4]
        )[0]


def collapsed_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """The same from pointers, for a C function."""
    p, patterns, cells, sites = index[0], index[1], index[2], index[3]
    size = p + 3 * p * p
    collapsed_flat(
        numba.carray(theta, 2 + size), numba.carray(data, patterns * p * p + cells + cells * p),
        numba.carray(index, 5 + patterns * p + 2 * cells + sites), numba.carray(out, 1 + size),
    )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _effects(precision, information, covariance, z):  # type: ignore[no-untyped-def]
    """Draw of an effect with information (precision, information) and prior covariance, from z; and its log density."""
    p = len(z)
    r, _ = _root(covariance)
    c, _ = _root(_plus_identity(_gram(r, _dot(precision, r))))
    pulled = np.zeros(p)
    for i in range(p):
        for j in range(p):
            pulled[i] += r[j, i] * information[j]
    half = _forward(c, pulled)
    log_density = 0.0
    for i in range(p):
        half[i] += z[i]
        if r[i, i] > 0.0:
            log_density += np.log(c[i, i]) - np.log(r[i, i]) - 0.5 * (LOG_2PI + z[i] ** 2)
    return _apply(r, _backward(c, half)), log_density


# fmt: off
@numba.njit(cache=True, nogil=True)
def _effect_draws(  # type: ignore[no-untyped-def]
    means, withins, sites, groups, noise_g, noise_s, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, count
):
    # fmt: on
    draws, p = means.shape
    n_groups = int(count[0])
    out_g, out_s = np.zeros((draws, n_groups, p)), np.zeros((draws, len(site_group), p))
    log_density = np.zeros(draws)
    for d in range(draws):
        _, _, raw_p, raw_h, _, _, group_raw_p, group_raw_h, _, _ = _upward(
            means[d],
            withins[d],
            sites[d],
            groups[d],
            pattern,
            scatter,
            n,
            cell_mean,
            cell_pattern,
            cell_site,
            site_group,
            n_groups,
        )
        for g in range(n_groups):
            effect, part = _effects(group_raw_p[g], group_raw_h[g], groups[d], noise_g[d, g])
            log_density[d] += part
            for i in range(p):
                out_g[d, g, i] = effect[i]
        for s in range(len(site_group)):
            left = _apply(raw_p[s], out_g[d, site_group[s]])
            for i in range(p):
                left[i] = raw_h[s, i] - left[i]
            effect, part = _effects(raw_p[s], left, sites[d], noise_s[d, s])
            log_density[d] += part
            for i in range(p):
                out_s[d, s, i] = effect[i]
    return out_g, out_s, log_density


def effect_draws(mean: np.ndarray, within: np.ndarray, site: np.ndarray, group: np.ndarray, *, data: Statistics,
                 rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Draw the effects of groups and sites from their exact conditional distribution, one draw per set of parameters.

    Parameters
    ----------
    mean : array (draw, column)
    within, site, group : array (draw, column, column)
    data : Statistics
    rng : numpy.random.Generator or None
        None puts every effect at its conditional mean.

    Returns
    -------
    group : array (draw, group, column)
    site : array (draw, site, column)
    log_density : array (draw)
        Log density of the drawn effects given parameters and data, over the effects whose variance is not zero.
    """
    shape = (len(mean), data.n_groups, mean.shape[1]), (len(mean), len(data.site_group), mean.shape[1])
    noise = [np.zeros(s) if rng is None else rng.standard_normal(s) for s in shape]
    arrays = [np.ascontiguousarray(x, dtype=float) for x in (mean, within, site, group)]
    return _effect_draws(*arrays, *noise, *data.arrays())


@numba.njit(cache=True, nogil=True)
def _group_moments(  # type: ignore[no-untyped-def]
    means, withins, sites, groups, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, count
):
    draws, p = means.shape
    n_groups = int(count[0])
    out, spread = np.zeros((draws, n_groups, p)), np.zeros((draws, n_groups, p, p))
    for d in range(draws):
        parts = _upward(
            means[d], withins[d], sites[d], groups[d], pattern, scatter, n, cell_mean, cell_pattern, cell_site,
            site_group, n_groups,
        )  # fmt: skip
        for g in range(n_groups):
            out[d, g], spread[d, g] = _group_effect(groups[d], parts[8][g], parts[9][g])
    return out, spread


@numba.njit(cache=True, nogil=True)
def _site_moments(means, withins, sites, group_means, group_covs, pattern, n, cell_mean):  # type: ignore[no-untyped-def]
    draws, p = means.shape
    out, spread = np.zeros((draws, p)), np.zeros((draws, p, p))
    for d in range(draws):
        inverse, _, _ = _pattern_inverses(pattern, withins[d])
        precision, information = np.zeros((p, p)), np.zeros(p)
        for c in range(len(n)):
            _add(precision, inverse[c], n[c])
            information += n[c] * _apply(inverse[c], _deviation(pattern[c], cell_mean[c], means[d]))
        site_p, site_h, _, _ = _integrate(precision, information, sites[d])
        out[d], spread[d], _ = _site_effect(sites[d], site_p, site_h, group_means[d], group_covs[d])
    return out, spread


def group_moments(mean: np.ndarray, within: np.ndarray, site: np.ndarray, group: np.ndarray, *,
                  data: Statistics) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Mean and covariance of the groups' effects given all rows, for each set of parameters.

    Parameters
    ----------
    mean : array (draw, column)
    within, site, group : array (draw, column, column)
    data : Statistics

    Returns
    -------
    array (draw, group, column), array (draw, group, column, column)
    """
    arrays = [np.ascontiguousarray(x, dtype=float) for x in (mean, within, site, group)]
    return _group_moments(*arrays, *data.arrays())


def site_moments(which: int, mean: np.ndarray, within: np.ndarray, site: np.ndarray, group_mean: np.ndarray,
                 group_cov: np.ndarray, *, data: Statistics) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Mean and covariance of one site's own effect plus its group's given all rows, for each set of parameters.

    Parameters
    ----------
    which : int
        Index of the site.
    mean : array (draw, column)
    within, site : array (draw, column, column)
    group_mean, group_cov : array (draw, column), array (draw, column, column)
        Of the site's group, from :func:`group_moments`.
    data : Statistics

    Returns
    -------
    array (draw, column), array (draw, column, column)
    """
    cells = data.cell_site == which
    arrays = [np.ascontiguousarray(x, dtype=float) for x in (mean, within, site, group_mean, group_cov)]
    return _site_moments(*arrays, data.pattern[data.cell_pattern[cells]], data.n[cells], data.mean[cells])
