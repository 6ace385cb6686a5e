"""Support vectors with a radial kernel: sums over all of them by blocks that stay in the cache.

The exponential is ``2^-y`` with y a distance of scaled rows: its whole part goes into the exponent of the number, the rest is a
polynomial. Loops over support vectors have nothing in them that a compiler could not do for eight or sixteen at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import log, sqrt
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

__all__ = ["Radial", "radial_of"]

BLOCK = 256  # support vectors whose kernels are summed up in the table's precision; the sums themselves are doubles
AT_ONCE = 4  # columns whose squares are added in one pass
DEGREE = {
    np.dtype(np.float32): 6,
    np.dtype(np.float64): 11,
}  # of the polynomial, whose errors are those of the last digit
LARGEST = {np.dtype(np.float32): 126.0, np.dtype(np.float64): 1000.0}  # y above which a kernel is nothing

# Every operation may be done in another order, but infinities and NaN are what they are.
REORDERED = {"reassoc", "contract", "nsz", "arcp"}


@dataclass(frozen=True, eq=False)
class Radial:
    """Support vectors of ``sum(weight * exp(-gamma * distance^2)) + intercept``.

    Attributes
    ----------
    vector : numpy.ndarray (column, support vector)
        Times `scale`; zero in columns and vectors that fill up the last block.
    weight : numpy.ndarray (support vector)
    scale : float
    intercept : float
    """

    vector: NDArray[Any]
    weight: NDArray[Any]
    scale: float
    intercept: float

    @property
    def precision(self) -> str:
        """Of its sums: single or double."""
        return "single" if self.vector.dtype == np.float32 else "double"

    def in_single(self) -> Radial:
        """The same in single precision."""
        return replace(self, vector=self.vector.astype(np.float32), weight=self.weight.astype(np.float32))

    def vectors(self, most: int) -> NDArray[np.float64]:
        """Some of the support vectors (vector, column), spread over all."""
        used = np.flatnonzero(self.weight)
        return np.ascontiguousarray(self.vector[:, used[:: -(-len(used) // most)]].T / self.scale)

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predict rows (row, column) without missing values."""
        rows = np.zeros((len(x), len(self.vector)), dtype=self.vector.dtype)
        with np.errstate(over="ignore"):  # so far away that the kernel is zero
            rows[:, : x.shape[1]] = x * self.scale
        out = np.empty(len(x))
        _sums(rows, self.vector, self.weight, *_numbers(self.vector.dtype), out)
        return out + self.intercept


def radial_of(vectors: NDArray[Any], weights: NDArray[Any], gamma: float, intercept: float, dtype: Any) -> Radial:
    """Lay out support vectors (vector, column), their weights (vector) and the factor of the squared distance.

    Examples
    --------
    >>> found = radial_of(np.array([[0.0], [2.0]]), np.array([1.0, -3.0]), 0.5, 10.0, np.float64)
    >>> found.predict(np.array([[0.0], [1.0]])).round(6).tolist()  # 10 + 1 - 3 exp(-2), 10 + exp(-0.5) - 3 exp(-0.5)
    [10.593994, 8.786939]
    """
    scale = sqrt(gamma / log(2.0))
    n_vectors, n_columns = vectors.shape
    vector = np.zeros((-(-n_columns // AT_ONCE) * AT_ONCE, -(-n_vectors // BLOCK) * BLOCK), dtype=dtype)
    vector[:n_columns, :n_vectors] = (vectors * scale).T
    weight = np.zeros(vector.shape[1], dtype=dtype)
    weight[:n_vectors] = weights
    return Radial(vector, weight, scale, float(intercept))


@cache
def _numbers(dtype: np.dtype[Any]) -> tuple[Any, tuple[Any, ...]]:
    """What the kernel needs, in its precision: the largest y, one half; and the polynomial of 2^r for r from -1/2 to 1/2."""
    cheb = np.polynomial.chebyshev.Chebyshev.interpolate(np.exp2, DEGREE[dtype], domain=[-0.5, 0.5])
    powers = cheb.convert(kind=np.polynomial.Polynomial).coef
    return np.array([LARGEST[dtype], 0.5], dtype=dtype), tuple(powers.astype(dtype))


@intrinsic
def _half_to_the(typingctx, whole):  # type: ignore[no-untyped-def]
    """Two to the power of minus a whole number that stands in a float: its bits."""
    single = whole == types.float32

    def codegen(context, builder, signature, values):  # type: ignore[no-untyped-def]
        word = ir.IntType(32 if single else 64)
        count = builder.fptosi(values[0], ir.IntType(32))
        count = count if single else builder.sext(count, word)
        exponent = builder.sub(ir.Constant(word, 127 if single else 1023), count)
        bits = builder.shl(exponent, ir.Constant(word, 23 if single else 52))
        return builder.bitcast(bits, ir.FloatType() if single else ir.DoubleType())

    return whole(whole), codegen


@numba.njit(cache=True, nogil=True, fastmath=REORDERED)
def _sums(rows, vector, weight, numbers, powers, out):  # type: ignore[no-untyped-def]
    """Sum of weight * 2^-distance over the support vectors (column, vector), for each of the rows (row, column)."""
    top, half, last = numbers[0], numbers[1], len(powers) - 1
    y = np.empty(BLOCK, dtype=rows.dtype)
    for i in range(len(rows)):
        total = 0.0
        for start in range(0, len(weight), BLOCK):
            y[:] = 0
            for k in range(0, len(vector), AT_ONCE):
                x0, x1, x2, x3 = rows[i, k], rows[i, k + 1], rows[i, k + 2], rows[i, k + 3]
                v0, v1 = vector[k, start : start + BLOCK], vector[k + 1, start : start + BLOCK]
                v2, v3 = vector[k + 2, start : start + BLOCK], vector[k + 3, start : start + BLOCK]
                for j in range(BLOCK):
                    d0, d1, d2, d3 = v0[j] - x0, v1[j] - x1, v2[j] - x2, v3[j] - x3
                    y[j] += d0 * d0 + d1 * d1 + d2 * d2 + d3 * d3
            own = weight[start : start + BLOCK]
            part = numbers[0] - numbers[0]
            for j in range(BLOCK):
                far = min(y[j], top)
                whole = np.floor(far + half)
                r = whole - far
                power = powers[last]
                for k in range(last):
                    power = powers[last - 1 - k] + r * power
                part += own[j] * power * _half_to_the(whole)
            total += part
        out[i] = total
