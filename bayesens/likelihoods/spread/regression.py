"""Log likelihood of a regression whose variance is linear in a row's spread, and its gradient, in one pass over the rows.

The standard deviation may also be log-linear in covariates of the row.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from bayesens.c_functions import BARE, INNER
from bayesens.likelihoods.ops import Likelihood

__all__ = ["spread_loglik"]

LOG_2PI = float(np.log(2.0 * np.pi))
BLOCK = 512
LANES = 8  # relative variances are multiplied so many at a time before their logarithm is taken
FAST = {"reassoc", "contract", "nsz", "arcp"}  # sums in any order; infinities keep their meaning


@numba.njit(**BARE, fastmath=FAST)
def _residuals(y, f, slope, residual):  # type: ignore[no-untyped-def]
    for i in range(len(residual)):
        residual[i] = y[i] - slope * f[i]


@numba.njit(**BARE, fastmath=FAST, error_model="numpy")  # a variance of zero gives infinity, and in the end -inf
def _sums(residual, excess, share, inverse):  # type: ignore[no-untyped-def]
    """Sum of squares over relative variances, and derivatives of it and of the logarithms; leaves residuals divided."""
    squares, bend, lean = 0.0, 0.0, 0.0
    for i in range(len(residual)):
        inverse[i] = 1.0 / (1.0 + share * excess[i])
    for i in range(len(residual)):
        scaled = residual[i] * inverse[i]
        squares += residual[i] * scaled
        bend += scaled * scaled * excess[i]
        lean += excess[i] * inverse[i]
        residual[i] = scaled
    return squares, bend, lean


@numba.njit(**BARE, fastmath=FAST)
def _product(f, residual):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(residual)):
        total += f[i] * residual[i]
    return total


@numba.njit(**BARE, fastmath=FAST)
def _total(values):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(values)):
        total += values[i]
    return total


@INNER
def _log_sum(inverse):  # type: ignore[no-untyped-def]
    """Sum of minus the logarithms."""
    total, whole = 0.0, len(inverse) // LANES * LANES
    for start in range(0, whole, LANES):
        product = 1.0
        for i in range(LANES):
            product *= inverse[start + i]
        total -= np.log(product)
    for i in range(whole, len(inverse)):
        total -= np.log(inverse[i])
    return total


@INNER
def _narrow(theta, data, n, k, p, start, narrow):  # type: ignore[no-untyped-def]
    """One over the width of each row of a block into ``narrow``; returns the sum of the log widths."""
    total = 0.0
    narrow[:] = 0.0
    for c in range(p):
        at = n * (2 + k + c) + start
        _residuals(narrow, data[at : at + len(narrow)], theta[3 + k + c], narrow)
    for i in range(len(narrow)):
        total -= narrow[i]
        narrow[i] = np.exp(narrow[i])
    return total


@numba.njit(**BARE, fastmath=FAST)
def _times(residual, factor):  # type: ignore[no-untyped-def]
    for i in range(len(residual)):
        residual[i] *= factor[i]


@INNER
def _one(theta, data, n, k, p, out):  # type: ignore[no-untyped-def]
    """Value, and its gradient into ``out``, at ``theta``: intercept, slopes, log sd, share, widths."""
    log_sd, share = theta[1 + k], theta[2 + k]
    residual, inverse, ones = np.empty(BLOCK), np.empty(BLOCK), np.ones(BLOCK)
    narrow, square = np.empty(BLOCK), np.empty(BLOCK)
    for j in range(k + 3 + p):
        out[j] = 0.0
    squares, bend, lean, logs = 0.0, 0.0, 0.0, 0.0
    for start in range(0, n, BLOCK):
        m = min(BLOCK, n - start)
        r = residual[:m]
        _residuals(data[start : start + m], ones[:m], theta[0], r)
        for j in range(k):
            at = n * (1 + j) + start
            _residuals(r, data[at : at + m], theta[1 + j], r)
        if p > 0:  # in units of the row's own width the rest is as without
            logs += 2.0 * _narrow(theta, data, n, k, p, start, narrow[:m])
            _times(r, narrow[:m])
            square[:m] = r
        at = n * (1 + k) + start
        a, b, c = _sums(r, data[at : at + m], share, inverse[:m])
        squares += a
        bend += b
        lean += c
        logs += _log_sum(inverse[:m])
        if p > 0:
            _times(square[:m], r)
            _times(r, narrow[:m])
            for q in range(p):
                at = n * (2 + k + q) + start
                out[3 + k + q] += _product(data[at : at + m], square[:m])
        out[0] += _product(ones[:m], r)
        for j in range(k):
            at = n * (1 + j) + start
            out[1 + j] += _product(data[at : at + m], r)
    precision = np.exp(-2.0 * log_sd)
    value = -n * (log_sd + 0.5 * LOG_2PI) - 0.5 * logs - 0.5 * precision * squares
    for j in range(k + 1):
        out[j] *= precision
    out[1 + k] = precision * squares - n
    out[2 + k] = 0.5 * (precision * bend - lean)
    for q in range(p):
        at = n * (2 + k + q)
        out[3 + k + q] = precision * out[3 + k + q] - _total(data[at : at + n])
    if np.isfinite(value):
        return value
    for j in range(k + 3 + p):
        out[j] = 0.0
    return -np.inf


def spread_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Value and gradient for a C function, from and into flat arrays: the number of parameters, then the parameters."""
    n, k, p = index[0], index[1], index[2]
    out = numba.carray(out, 4 + k + p)
    theta = numba.carray(theta, 4 + k + p)
    out[0] = _one(theta[1:], numba.carray(data, n * (k + 2 + p)), n, k, p, out[1:])


class SpreadLogLik(Likelihood):
    n_parameters = 1

    packed = staticmethod(spread_packed)


def spread_loglik(parameters: Any, *, y: np.ndarray, f: np.ndarray, excess: np.ndarray, x: np.ndarray) -> Any:
    """Log likelihood of ``y_i ~ Normal(intercept + f_i slope, sd^2 (1 + share excess_i) exp(2 x_i width))``.

    ``parameters`` are intercept, slopes, log sd, share and widths, end to end. ``excess`` (row) is a row's spread over the mean
    spread, less one; ``f`` are (row, member), and ``x`` (row, covariate) is what the widths follow.
    """
    data = np.concatenate([y, np.ravel(f.T), excess, np.ravel(x.T)]).astype(float)
    return SpreadLogLik().at(parameters, data=data, index=np.array([*f.shape, x.shape[1]], dtype=np.int64))
