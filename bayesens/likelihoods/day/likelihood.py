"""Log density of all days and its gradient, in one pass: days with the same stations share one matrix.

With R the covariance of a day given the static part, A that of the static part over the stations, and E_p the stations of a
pattern p with n_p days, what all rows say of the static part is the information

    B = sum_p n_p E_p' R_p^-1 E_p,    h = sum_t E_p' R_p^-1 z_t,    with covariance C = (A^-1 + B)^-1 and mean m = C h,

    -2 log p(z) = N log 2 pi + sum_p n_p log|R_p| + log|I + L' B L| + sum_t z_t' R_p^-1 z_t - h' m,    A = L L'.

Derivatives by R and A are those of the complete rows in expectation (Fisher's identity): nothing is inverted that may be
singular, and B - B C B stands for (A + B^-1)^-1.
"""

from __future__ import annotations

import numba
import numpy as np

from bayesens.c_functions import BARE, INNER, beyond
from bayesens.likelihoods.multilevel.small_matrices import cholesky

__all__ = ["day_packed", "informed"]

ROOT_3 = float(np.sqrt(3.0))
LOG_2PI = float(np.log(2.0 * np.pi))
FAST = numba.njit(fastmath={"reassoc", "contract", "nsz"}, error_model="numpy", **BARE)
DAY, FIELD, PLACE, NUGGET, OWN = range(5)


@FAST
def _lower(row, pivot, factor, n):  # type: ignore[no-untyped-def]
    for j in range(n):
        row[j] -= factor * pivot[j]


@INNER
def invert(a):  # type: ignore[no-untyped-def]
    """Turn a positive definite matrix into its inverse, in place (Gauss and Jordan); the log of its determinant, or NaN."""
    n, total = len(a), 0.0
    for k in range(n):
        pivot = a[k, k]
        if not pivot > 0.0:
            return np.nan
        total += np.log(pivot)
        inverse = 1.0 / pivot
        a[k, k] = 1.0
        for j in range(n):
            a[k, j] *= inverse
        for i in range(n):
            if i != k:
                factor = a[i, k]
                a[i, k] = 0.0
                _lower(a[i], a[k], factor, n)
    return total


@INNER
def product(a, b, out):  # type: ignore[no-untyped-def]
    """Matrix product."""
    n, inner, columns = a.shape[0], a.shape[1], b.shape[1]
    for i in range(n):
        row = out[i]
        for j in range(columns):
            row[j] = 0.0
        for k in range(inner):
            _lower(row, b[k], -a[i, k], columns)


@INNER
def _covariances(variance, reach, distance, fixed, day, static):  # type: ignore[no-untyped-def]
    """Covariances of a day given the static part, and of the static part."""
    for i in range(len(distance)):
        for j in range(len(distance)):
            x, y = ROOT_3 * distance[i, j] / reach[0], ROOT_3 * distance[i, j] / reach[1]
            field = (1.0 + x) * np.exp(-x) if x < 700.0 else 0.0
            place = (1.0 + y) * np.exp(-y) if y < 700.0 else 0.0
            day[i, j] = variance[0] + variance[1] * field
            static[i, j] = fixed[i, j] + variance[2] * place
        day[i, i] += variance[4]
        static[i, i] += variance[3]


@INNER
def _derivatives(variance, reach, distance, by_day, by_static, out):  # type: ignore[no-untyped-def]
    """From the derivatives by both covariances to those by variances and ranges."""
    for i in range(len(distance)):
        for j in range(len(distance)):
            x, y = ROOT_3 * distance[i, j] / reach[0], ROOT_3 * distance[i, j] / reach[1]
            field, place = np.exp(-x) if x < 700.0 else 0.0, np.exp(-y) if y < 700.0 else 0.0
            out[0] += by_day[i, j]
            if field > 0.0:
                out[1] += by_day[i, j] * (1.0 + x) * field
                out[5] += by_day[i, j] * variance[1] * x * x * field / reach[0]
            if place > 0.0:
                out[2] += by_static[i, j] * (1.0 + y) * place
                out[6] += by_static[i, j] * variance[2] * y * y * place / reach[1]
        out[3] += by_static[i, i]
        out[4] += by_day[i, i]


@INNER
def informed(static, b, h, root, c, m, work):  # type: ignore[no-untyped-def]
    """Covariance and mean of the static part given all rows; log|I + L' B L|."""
    s = len(static)
    cholesky(static, root)
    product(b, root, work)
    for i in range(s):
        for j in range(s):
            value = 0.0
            for k in range(s):
                value += root[k, i] * work[k, j]
            c[i, j] = value + (1.0 if i == j else 0.0)
    log_det = invert(c)
    product(root, c, work)
    for i in range(s):
        for j in range(s):
            value = 0.0
            for k in range(j + 1):
                value += work[i, k] * root[j, k]
            c[i, j] = value
    for i in range(s):
        m[i] = 0.0
        for j in range(s):
            m[i] += c[i, j] * h[j]
    return log_det


@INNER
def _pick(full, station, out):  # type: ignore[no-untyped-def]
    for i in range(len(station)):
        for j in range(len(station)):
            out[i, j] = full[station[i], station[j]]


@INNER
def _pattern(stations, sums, n):  # type: ignore[no-untyped-def]
    """Stations of a pattern, and sums over its days of observations and of their products."""
    return numba.carray(stations, n), numba.carray(sums, n), numba.carray(beyond(sums, n), (n, n))


@INNER
def _of_pattern(inverse, expected, days, by_day, station, work, other):  # type: ignore[no-untyped-def]
    """Add a pattern's derivative by its covariance."""
    n = len(station)
    product(inverse, expected, work)
    product(work, inverse, other)
    for i in range(n):
        for j in range(n):
            by_day[station[i], station[j]] += 0.5 * (other[i, j] - days * inverse[i, j])


def day_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Value and gradient, of five variances and two ranges."""
    s, patterns = numba.carray(index, 2)
    parameters = numba.carray(beyond(theta, 1), 7)
    variance, reach = parameters[:5], parameters[5:]
    result = numba.carray(out, 8)
    square = s * s
    floats = numba.carray(data, 2 * square)
    distance, fixed = floats[:square].reshape((s, s)), floats[square:].reshape((s, s))
    day, static, b, c = np.empty((s, s)), np.empty((s, s)), np.zeros((s, s)), np.empty((s, s))
    root, work, by_day, by_static = np.empty((s, s)), np.empty((s, s)), np.zeros((s, s)), np.empty((s, s))
    h, m = np.zeros(s), np.empty(s)
    _covariances(variance, reach, distance, fixed, day, static)
    head = numba.carray(beyond(index, 2), 2 * patterns)
    counts, days = head[:patterns], head[patterns:]
    total, most = 0, 0
    for p in range(patterns):
        total += counts[p] * counts[p]
        most = max(most, counts[p])
    stations = beyond(index, 2 + 2 * patterns)
    sums = beyond(data, 2 * square)
    inverses, at, place, place_sums = np.empty(total), 0, 0, 0
    twice = 0.0
    for p in range(patterns):
        n = counts[p]
        station, first, scatter = _pattern(beyond(stations, place), beyond(sums, place_sums), n)
        inverse = inverses[at : at + n * n].reshape((n, n))
        _pick(day, station, inverse)
        twice += days[p] * (n * LOG_2PI + invert(inverse))
        for i in range(n):
            value = 0.0
            for j in range(n):
                twice += inverse[i, j] * scatter[i, j]
                value += inverse[i, j] * first[j]
                b[station[i], station[j]] += days[p] * inverse[i, j]
            h[station[i]] += value
        at, place, place_sums = at + n * n, place + n, place_sums + n + n * n
    twice += informed(static, b, h, root, c, m, work)
    for i in range(s):
        twice -= h[i] * m[i]
    result[0] = -0.5 * twice if np.isfinite(twice) else -np.inf
    for i in range(1, 8):
        result[i] = 0.0
    if result[0] == -np.inf:
        return
    left, right, expected = np.empty((most, most)), np.empty((most, most)), np.empty((most, most))
    at, place, place_sums = 0, 0, 0
    for p in range(patterns):
        n = counts[p]
        station, first, scatter = _pattern(beyond(stations, place), beyond(sums, place_sums), n)
        inverse = inverses[at : at + n * n].reshape((n, n))
        some = expected[:n, :n]
        for i in range(n):
            for j in range(n):
                u, v = station[i], station[j]
                some[i, j] = scatter[i, j] - first[i] * m[v] - m[u] * first[j] + days[p] * (m[u] * m[v] + c[u, v])
        _of_pattern(inverse, some, days[p], by_day, station, left[:n, :n], right[:n, :n])
        at, place, place_sums = at + n * n, place + n, place_sums + n + n * n
    product(b, c, work)
    product(work, b, by_static)
    for i in range(s):
        for k in range(s):
            h[i] -= b[i, k] * m[k]
    for i in range(s):
        for j in range(s):
            by_static[i, j] = 0.5 * (by_static[i, j] - b[i, j] + h[i] * h[j])
    _derivatives(variance, reach, distance, by_day, by_static, result[1:])
