"""Log likelihood of a mixture of normal kernels, and its gradient, in one pass over the rows.

Rows are taken in blocks that stay in the first cache, member by member, so that every inner loop is one vector operation:
an exponential function written out as a polynomial costs a quarter of a call to the library's. Exponents are taken
relative to a row's largest term: nothing underflows.
"""

from __future__ import annotations

import numba
import numpy as np

from bayesens.c_functions import BARE, INNER, kernel

__all__ = ["em_pass", "mixture_packed", "mixture_values", "pack"]

LOG_2PI = float(np.log(2.0 * np.pi))
BLOCK = 512
LANES = 32  # a block's masses are multiplied down to so many before their logarithm is taken
LOG2E = 1.4426950408889634074
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
ROUND = 6755399441055744.0  # 1.5 * 2**52: adding it leaves the nearest whole number in the last bits
EXPONENT = np.int64(52)
FAST = {"reassoc", "contract", "nsz", "arcp"}  # sums in any order; infinities keep their meaning


def pack(y: np.ndarray, f: np.ndarray, available: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arrange the data for the kernels.

    Parameters
    ----------
    y : array (obs)
    f, available : array (obs, member)
        Member predictions, finite everywhere, and whether each counts.

    Returns
    -------
    data : array
        ``y``, ``f`` member by member, and, where any is missing, ``available`` likewise.
    index : int array
        Numbers of rows, members and patterns of missing members (0: none is missing), then every pattern with its count.
    """
    available = np.asarray(available, dtype=bool)
    parts = [np.ravel(y), np.ravel(np.transpose(f))]
    patterns, count = np.zeros((0, 0), dtype=int), np.zeros(0, dtype=int)
    if not available.all():
        patterns, count = np.unique(available, axis=0, return_counts=True)
        parts.append(np.ravel(available.T))
    index = np.concatenate([[len(y), np.shape(f)[1], len(patterns)], np.ravel(patterns), count]).astype(np.int64)
    return np.concatenate(parts).astype(float), index


@numba.njit(**BARE, fastmath={"contract"})
def _exp(x, bits, scale):  # type: ignore[no-untyped-def]
    """Exponential of numbers that are not positive, in place, to the last bit or two; ``scale`` is ``bits`` seen as floats."""
    for i in range(len(x)):
        x[i] = max(x[i], -700.0)
        scale[i] = x[i] * LOG2E + ROUND
    for i in range(len(x)):
        whole = scale[i] - ROUND
        r = (x[i] - whole * LN2_HIGH) - whole * LN2_LOW
        p = r / 6227020800.0 + 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
        p = p * r + 1.0 / 120.0
        p = p * r + 1.0 / 24.0
        p = p * r + 1.0 / 6.0
        p = p * r + 0.5
        p = p * r + 1.0
        x[i] = p * r + 1.0
    for i in range(len(x)):
        bits[i] = (bits[i] + np.int64(1023)) << EXPONENT
    for i in range(len(x)):
        x[i] *= scale[i]


@numba.njit(**BARE, fastmath=FAST)
def _terms(y, f, shift, intercept, slope, inverse, constant, z, term):  # type: ignore[no-untyped-def]
    """Standardised residuals and log densities."""
    for i in range(len(y)):
        z[i] = (y[i] - shift[i] - intercept - slope * f[i]) * inverse
        term[i] = constant - 0.5 * z[i] * z[i]


@numba.njit(**BARE, fastmath=FAST)
def _log_masses(mass, top):  # type: ignore[no-untyped-def]
    """Sum of ``top + log mass``; masses lie between 1 and the number of members."""
    total = 0.0
    for i in range(len(top)):
        total += top[i]
    product = np.empty(LANES)
    for i in range(LANES):
        product[i] = 1.0
    whole = len(mass) // LANES
    for b in range(whole):
        for i in range(LANES):
            product[i] *= mass[b * LANES + i]
    for i in range(whole * LANES, len(mass)):
        product[i - whole * LANES] *= mass[i]
    for i in range(LANES):
        total += np.log(product[i])
    return total


@numba.njit(**BARE, fastmath=FAST)
def _shares(f, z, term, inverse_mass, inverse, d_shift):  # type: ignore[no-untyped-def]
    """Sums over a block that make the gradient of one member's parameters."""
    weight, intercept, slope, log_sigma = 0.0, 0.0, 0.0, 0.0
    for i in range(len(f)):
        share = term[i] * inverse_mass[i]
        step = share * z[i]
        weight += share
        intercept += step
        slope += step * f[i]
        log_sigma += step * z[i] - share
        d_shift[i] += step * inverse
    return weight, intercept * inverse, slope * inverse, log_sigma


@INNER
def _mixed(data, there, n, k, missing, start, m, scratch, bits, top, mass):  # type: ignore[no-untyped-def]
    """Sum of the log densities of m rows, whose members' log terms are in scratch[k:]: they become terms over the largest one.

    Their sum is then in `mass`; `data` has from `there` on which members are present.
    """
    for i in range(m):
        top[i] = -np.inf
        mass[i] = 0.0
    for j in range(k):
        term = scratch[k + j][:m]
        if missing:
            present = data[there + j * n + start : there + j * n + start + m]
            for i in range(m):
                term[i] = term[i] if present[i] > 0.0 else -np.inf
        for i in range(m):
            top[i] = max(top[i], term[i])
    for j in range(k):
        term = scratch[k + j][:m]
        for i in range(m):
            term[i] -= top[i]
        _exp(term, bits[:m], bits.view(np.float64)[:m])
        if missing:
            present = data[there + j * n + start : there + j * n + start + m]
            for i in range(m):
                term[i] *= present[i]
        for i in range(m):
            mass[i] += term[i]
    return _log_masses(mass, top)


@INNER
def _block(x, data, n, k, missing, start, m, shift, d_shift, scratch, bits, out):  # type: ignore[no-untyped-def]
    """Log likelihood of ``m`` rows before weights are renormalised; adds its gradient to ``out`` unless that is empty.

    ``x`` holds log weights, intercepts, slopes and log sigmas; ``shift`` and ``d_shift`` have one row, or one a member.
    Arrays are cut from one dimension only, which tells the compiler that their elements lie side by side.
    """
    y = data[start : start + m]
    top, mass = scratch[2 * k][:m], scratch[2 * k + 1][:m]
    for j in range(k):
        f = data[n * (1 + j) + start : n * (1 + j) + start + m]
        term, inverse = scratch[k + j][:m], np.exp(-x[3 * k + j])
        _terms(y, f, shift[j if len(shift) > 1 else 0][:m], x[k + j], x[2 * k + j], inverse, x[j] - x[3 * k + j],
               scratch[j][:m], term)  # fmt: skip
    value = _mixed(data, n * (1 + k), n, k, missing, start, m, scratch, bits, top, mass)
    if len(out):
        for i in range(m):
            mass[i] = 1.0 / mass[i]
        for j in range(k):
            f = data[n * (1 + j) + start : n * (1 + j) + start + m]
            parts = _shares(f, scratch[j][:m], scratch[k + j][:m], mass, np.exp(-x[3 * k + j]),
                            d_shift[j if len(shift) > 1 else 0][:m])  # fmt: skip
            for c in range(4):
                out[c * k + j] += parts[c]
    return value


@INNER
def _renormalisation(log_weight, index, out):  # type: ignore[no-untyped-def]
    """Minus the log of each row's sum of weights over the members present, summed; its gradient is added to ``out``."""
    n, k, patterns = index[0], index[1], index[2]
    top, value, weight = -np.inf, 0.0, np.empty(k)
    for j in range(k):
        top = max(top, log_weight[j])
    for q in range(max(patterns, 1)):
        present = index[3 + q * k : 3 + (q + 1) * k]
        count = index[3 + patterns * k + q] if patterns else n
        total = 0.0
        for j in range(k):
            weight[j] = np.exp(log_weight[j] - top) if patterns == 0 or present[j] else 0.0
            total += weight[j]
        if total == 0.0 and count > 0:
            return -np.inf
        value -= count * (np.log(total) + top)
        if len(out):
            for j in range(k):
                out[j] -= count * weight[j] / total
    return value


@INNER
def _one(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Log likelihood of all rows; its gradient goes into ``out`` unless that is empty."""
    n, k, rows, columns = index[0], index[1], int(theta[0]), int(theta[1])
    x, offset, d_offset = theta[2:], theta[2 + 4 * k :], out[4 * k :]
    scratch, bits = np.empty((2 * k + 2, BLOCK)), np.empty(BLOCK, dtype=np.int64)
    shift, d_shift = np.zeros((columns, BLOCK)), np.zeros((columns, BLOCK))
    for i in range(len(out)):
        out[i] = 0.0
    value = _renormalisation(x, index, out) - 0.5 * n * LOG_2PI
    for start in range(0, n, BLOCK):
        m = min(BLOCK, n - start)
        if rows:
            for i in range(m):
                for j in range(columns):
                    shift[j, i] = offset[(start + i) * columns + j]
                    d_shift[j, i] = 0.0
        value += _block(x, data, n, k, index[2] > 0, start, m, shift, d_shift, scratch, bits, out)
        if rows and len(d_offset):
            for i in range(m):
                for j in range(columns):
                    d_offset[(start + i) * columns + j] = d_shift[j, i]
    if np.isfinite(value):
        return value
    for i in range(len(out)):
        out[i] = 0.0
    return -np.inf


def mixture_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Value and gradient for a C function, from and into flat arrays: the offset's shape, then all parameters end to end."""
    n, k, patterns = index[0], index[1], index[2]
    size = 4 * k + int(theta[0]) * int(theta[1])
    missing = n * k if patterns else 0
    out = numba.carray(out, 1 + size)
    out[0] = _one(
        numba.carray(theta, 2 + size), numba.carray(data, n + n * k + missing), numba.carray(index, 3 + patterns * (k + 1)),
        out[1:],
    )  # fmt: skip


@kernel
def mixture_values(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Values alone, for many sets of parameters ``theta (draw, parameter)``; without offsets each block is read once.

    Into ``out (draw, 1)``.
    """
    n, k = index[0], index[1]
    none = np.empty(0)
    if len(theta) and theta[0, 0] > 0:
        for d in range(len(theta)):
            out[d, 0] = _one(theta[d], data, index, none)
        return
    scratch, bits = np.empty((2 * k + 2, BLOCK)), np.empty(BLOCK, dtype=np.int64)
    nothing = np.zeros((1, BLOCK))
    for d in range(len(theta)):
        out[d, 0] = _renormalisation(theta[d, 2:], index, none) - 0.5 * n * LOG_2PI
    for start in range(0, n, BLOCK):
        m = min(BLOCK, n - start)
        for d in range(len(theta)):
            out[d, 0] += _block(theta[d, 2:], data, n, k, index[2] > 0, start, m, nothing, nothing, scratch, bits, none)
    for d in range(len(theta)):
        if not np.isfinite(out[d, 0]):
            out[d, 0] = -np.inf


@numba.njit(**BARE, fastmath=FAST)
def _responsibilities(term, squares, inverse_mass):  # type: ignore[no-untyped-def]
    """Sums of one member's responsibilities, and of them times the squares."""
    share, scaled = 0.0, 0.0
    for i in range(len(term)):
        each = term[i] * inverse_mass[i]
        share += each
        scaled += each * squares[i]
    return share, scaled


@kernel
def em_pass(squares, available, constant, half, begin, end, out):  # type: ignore[no-untyped-def]
    """The expectation step over the rows from ``begin`` to ``end``.

    ``squares`` and ``available`` are (member, row), the latter empty where none is missing; log densities are
    ``constant - half * squares``. Leaves the log likelihood before weights are renormalised, then by member the sums of
    responsibilities, and of them times squares.
    """
    k = len(constant)
    scratch, bits = np.empty((k + 2, BLOCK)), np.empty(BLOCK, dtype=np.int64)
    out[:] = 0.0
    for start in range(begin, end, BLOCK):
        m = min(BLOCK, end - start)
        top, mass = scratch[k][:m], scratch[k + 1][:m]
        for i in range(m):
            top[i] = -np.inf
            mass[i] = 0.0
        for j in range(k):
            term, square = scratch[j][:m], squares[j][start : start + m]
            for i in range(m):
                term[i] = constant[j] - half[j] * square[i]
            if len(available):
                present = available[j][start : start + m]
                for i in range(m):
                    term[i] = term[i] if present[i] > 0.0 else -np.inf
            for i in range(m):
                top[i] = max(top[i], term[i])
        for j in range(k):
            term = scratch[j][:m]
            for i in range(m):
                term[i] -= top[i]
            _exp(term, bits[:m], bits.view(np.float64)[:m])
            if len(available):
                present = available[j][start : start + m]
                for i in range(m):
                    term[i] *= present[i]
            for i in range(m):
                mass[i] += term[i]
        out[0] += _log_masses(mass, top)
        for i in range(m):
            mass[i] = 1.0 / mass[i]
        for j in range(k):
            share, scaled = _responsibilities(scratch[j][:m], squares[j][start : start + m], mass)
            out[1 + j] += share
            out[1 + k + j] += scaled
