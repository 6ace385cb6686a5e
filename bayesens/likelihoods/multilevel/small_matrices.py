"""Small matrices in compiled code.

Multiplied in plain loops: a call to BLAS costs more than it does, and ten seconds to compile. Results go into arrays that the
caller has, because allocating one costs as much as filling it.
"""

from __future__ import annotations

import numpy as np

from bayesens.c_functions import INNER

__all__ = [
    "add_matrix",
    "add_outer",
    "backward",
    "cholesky",
    "copy_matrix",
    "diagonalise",
    "forward",
    "inverse_root",
    "multiply",
    "row_products",
    "sandwich",
]


@INNER
def multiply(a, x, out):  # type: ignore[no-untyped-def]
    """Matrix times vector."""
    for i in range(a.shape[0]):
        value = 0.0
        for j in range(a.shape[1]):
            value += a[i, j] * x[j]
        out[i] = value


@INNER
def add_outer(out, x, factor):  # type: ignore[no-untyped-def]
    """Add ``factor x x'`` to ``out``."""
    for i in range(len(x)):
        for j in range(len(x)):
            out[i, j] += factor * x[i] * x[j]


@INNER
def add_matrix(out, a, factor):  # type: ignore[no-untyped-def]
    """Add ``factor a`` to the matrix ``out``."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] += factor * a[i, j]


@INNER
def copy_matrix(a, out):  # type: ignore[no-untyped-def]
    """Copy a matrix. Assignment to a slice would do, and take a second to compile its error message."""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            out[i, j] = a[i, j]


@INNER
def sandwich(out, a, m, factor, work):  # type: ignore[no-untyped-def]
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
def cholesky(a, r):  # type: ignore[no-untyped-def]
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
def forward(r, x):  # type: ignore[no-untyped-def]
    """Solve ``r z = x`` for a lower triangle, in place; components without a pivot are zero."""
    for i in range(len(x)):
        value = x[i]
        for k in range(i):
            value -= r[i, k] * x[k]
        x[i] = value / r[i, i] if r[i, i] > 0.0 else 0.0


@INNER
def row_products(a, out):  # type: ignore[no-untyped-def]
    """Matrix product ``a a'``."""
    p = len(a)
    for i in range(p):
        for j in range(i + 1):
            value = 0.0
            for k in range(p):
                value += a[i, k] * a[j, k]
            out[i, j] = out[j, i] = value


@INNER
def inverse_root(a, root, out):  # type: ignore[no-untyped-def]
    """Transposed inverse of the Cholesky root, so that ``out out'`` is the inverse; whether ``a`` is positive definite."""
    positive = cholesky(a, root)
    for i in range(len(a)):
        for j in range(len(a)):
            out[i, j] = 1.0 if i == j else 0.0
        forward(root, out[i])
    return positive


@INNER
def diagonalise(a, turn):  # type: ignore[no-untyped-def]
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


@INNER
def backward(r, x):  # type: ignore[no-untyped-def]
    """Solve ``r' z = x`` for a lower triangle with positive diagonal, in place."""
    for i in range(len(x) - 1, -1, -1):
        for k in range(i + 1, len(x)):
            x[i] -= r[k, i] * x[k]
        x[i] /= r[i, i]
