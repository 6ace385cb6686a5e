"""Functions of 128 cells at a time: exponentials, logarithms, normal probabilities, linear and quadratic forms.

Numbers of the cells lie side by side, one number after the other, in arrays of one dimension. Every loop is one over the cells,
without branches inside, over few arrays: the compiler turns such loops into vector operations. (Of rows of arrays of two
dimensions it does not know that they are apart, and gives up where more than three are written and read.)
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from bayesens.c_functions import BARE, ONCE, kernel

__all__ = [
    "CELLS",
    "HERE",
    "LANES",
    "exponential",
    "forms",
    "functions",
    "linear",
    "logarithm",
    "normal_below",
    "quadratic",
    "row_of",
]

CELLS = 128  # side by side; their components stay in the second cache
LOG2E = 1.4426950408889634074
LN2 = 0.6931471805599453
ROUND = 6755399441055744.0  # 1.5 * 2**52: adding it leaves the nearest whole number in the last bits
ROOT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
# Half of (1 + 2 x) erfcx(x) as a polynomial of (x - MIDDLE) / (x + MIDDLE), fitted at Chebyshev nodes: relative error below 1e-9.
MIDDLE = 2.75
# Each has a name of its own: a loop that reads them from a tuple does not become vector operations.
T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, T10, T11, T12 = (
    0.6294018126075507, -0.06523124014179005, -0.03565307592085269, 0.07245312255857589, -0.057247032474883615,
    0.026160166090618057, -0.005247522921453448, -0.0013123857830709138, 0.0009588827731899662, 2.198755159216201e-05,
    -0.0001315128702614467, 3.141634515046338e-06, 1.3240816706071997e-05,
)  # fmt: skip
# Polynomials through Chebyshev nodes: of the exponential within half of log 2, and of log(1 + t) / t from root 1/2 to root 2.
E0, E1, E2, E3, E4, E5, E6, E7 = (
    0.9999999999595622, 0.9999999999955115, 0.5000000107728596, 0.16666666786284912, 0.041666218320566495,
    0.008333283543121286, 0.0013948578255139582, 0.00019907567086439802,
)  # fmt: skip
L0, L1, L2, L3, L4, L5, L6, L7, L8, L9, L10 = (
    1.0000000006010195, -0.49999999414016244, 0.33333302661019404, -0.25000062374568427, 0.20002535640051844,
    -0.16666555569931482, 0.142122912494728, -0.12420821356624033, 0.11945878323684742, -0.11620647886033192,
    0.06572326323525465,
)  # fmt: skip
LANES = numba.njit(**BARE, _nrt=False, error_model="numpy", fastmath={"contract"})
# For short ones: arrays handed over are written out and read back, word by word, at every call.
HERE = numba.njit(**BARE, _nrt=False, error_model="numpy", fastmath={"contract"}, forceinline=True)


def _cast(kind):  # type: ignore[no-untyped-def]
    return lambda context, builder, signature, arguments: builder.bitcast(arguments[0], kind)


@intrinsic
def _bits_of(typingctx, x):  # type: ignore[no-untyped-def]
    """A float's bits as a whole number."""
    return types.int64(types.float64), _cast(ir.IntType(64))


@intrinsic
def _float_of(typingctx, bits):  # type: ignore[no-untyped-def]
    """The float that has these bits."""
    return types.float64(types.int64), _cast(ir.DoubleType())


# --------------------------------------------------------------------------------------------------------------- functions
@ONCE
def exponential(x):  # type: ignore[no-untyped-def]
    """Exponential; relative error below 1e-10."""
    value = min(max(x, -700.0), 700.0)
    scale = value * LOG2E + ROUND
    r = value - (scale - ROUND) * LN2
    p = E7 * r + E6
    p = p * r + E5
    p = p * r + E4
    p = p * r + E3
    p = p * r + E2
    p = p * r + E1
    p = p * r + E0
    return p * _float_of((_bits_of(scale) + np.int64(1023)) << np.int64(52))


@ONCE
def logarithm(x):  # type: ignore[no-untyped-def]
    """Logarithm of a positive number; relative error below 1e-9, without a division."""
    bits = _bits_of(x)
    power = (bits - ROOT_HALF_BITS) >> np.int64(52)
    t = _float_of(bits - (power << np.int64(52))) - 1.0
    p = L10 * t + L9
    p = p * t + L8
    p = p * t + L7
    p = p * t + L6
    p = p * t + L5
    p = p * t + L4
    p = p * t + L3
    p = p * t + L2
    p = p * t + L1
    p = p * t + L0
    return power * LN2 + t * p


@ONCE
def normal_below(t, bell):  # type: ignore[no-untyped-def]
    """The standard normal's probability below, from ``exp(-t^2 / 2)``."""
    x = abs(t) * 0.7071067811865476
    inverse = 1.0 / ((x + MIDDLE) * (1.0 + 2.0 * x))
    y = (x - MIDDLE) * (1.0 + 2.0 * x) * inverse
    p = T12 * y + T11
    p = p * y + T10
    p = p * y + T9
    p = p * y + T8
    p = p * y + T7
    p = p * y + T6
    p = p * y + T5
    p = p * y + T4
    p = p * y + T3
    p = p * y + T2
    p = p * y + T1
    p = p * y + T0
    p = p * bell * (x + MIDDLE) * inverse
    return p if t < 0.0 else 1.0 - p


@kernel
def functions(x, out):  # type: ignore[no-untyped-def]
    """Exponential, logarithm of the size, and normal probability of numbers, (3, number): for tests."""
    for i in range(len(x)):
        out[0, i] = exponential(x[i])
        out[1, i] = logarithm(abs(x[i]))
        bell = exponential(-0.5 * x[i] * x[i])
        out[2, i] = normal_below(x[i], bell)


@intrinsic
def row_of(typingctx, values, n):  # type: ignore[no-untyped-def]
    """The cells' ``n``-th number; unlike a slice, it looks at no bounds and counts no references."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        make = context.make_array(values)
        whole, row, word = (
            make(context, builder, arguments[0]),
            make(context, builder),
            context.get_value_type(types.intp),
        )
        here = builder.gep(whole.data, [builder.mul(arguments[1], word(CELLS))])
        populate_array(row, here, [word(CELLS)], [whole.itemsize], whole.itemsize, None)
        return row._getvalue()

    return values(values, types.intp), codegen


@LANES
def _sum(u, values, p, out):  # type: ignore[no-untyped-def]
    """Add up to four numbers of ``u``, from the ``p``-th on, times values; what is read and written once costs most."""
    n = len(values)
    v0, v1 = values[p], values[p + 1] if p + 1 < n else 0.0
    v2, v3 = values[p + 2] if p + 2 < n else 0.0, values[p + 3] if p + 3 < n else 0.0
    r0, r1, r2, r3 = (
        row_of(u, p),
        row_of(u, min(p + 1, n - 1)),
        row_of(u, min(p + 2, n - 1)),
        row_of(u, min(p + 3, n - 1)),
    )
    for i in range(CELLS):
        out[i] += v0 * r0[i] + v1 * r1[i] + v2 * r2[i] + v3 * r3[i]


@LANES
def linear(u, form, out):  # type: ignore[no-untyped-def]
    """A linear form of the numbers ``u``, of which the first is one."""
    value = form[0]
    for i in range(CELLS):
        out[i] = value
    for p in range(1, len(form), 4):
        _sum(u, form, p, out)


@LANES
def _triangle(u, form, p, ones, out):  # type: ignore[no-untyped-def]
    """Add all products of four numbers, from the ``p``-th on, among themselves and with one."""
    n = len(form)
    q, r, s = min(p + 1, n - 1), min(p + 2, n - 1), min(p + 3, n - 1)
    b, c, d = 1.0 if p + 1 < n else 0.0, 1.0 if p + 2 < n else 0.0, 1.0 if p + 3 < n else 0.0
    k0, k1, k2, k3 = (2.0 * form[0, p], 2.0 * b * form[0, q], 2.0 * c * form[0, r], 2.0 * d * form[0, s]) if ones else (
        0.0, 0.0, 0.0, 0.0)  # fmt: skip
    a00, a11, a22, a33 = form[p, p], b * form[q, q], c * form[r, r], d * form[s, s]
    a01, a02, a03 = 2.0 * b * form[p, q], 2.0 * c * form[p, r], 2.0 * d * form[p, s]
    a12, a13, a23 = 2.0 * c * form[q, r], 2.0 * d * form[q, s], 2.0 * d * form[r, s]
    r0, r1, r2, r3 = row_of(u, p), row_of(u, q), row_of(u, r), row_of(u, s)
    for i in range(CELLS):
        x, y, z, w = r0[i], r1[i], r2[i], r3[i]
        out[i] += (
            x * (k0 + a00 * x + a01 * y + a02 * z + a03 * w) + y * (k1 + a11 * y + a12 * z + a13 * w)
            + z * (k2 + a22 * z + a23 * w) + w * (k3 + a33 * w)
        )  # fmt: skip


@LANES
def _beside(u, form, p, q, out):  # type: ignore[no-untyped-def]
    """Add the ``p``-th number times up to four others, from the ``q``-th on."""
    n = len(form)
    v0, v1 = 2.0 * form[p, q], 2.0 * form[p, q + 1] if q + 1 < n else 0.0
    v2, v3 = 2.0 * form[p, q + 2] if q + 2 < n else 0.0, 2.0 * form[p, q + 3] if q + 3 < n else 0.0
    row, r0, r1 = row_of(u, p), row_of(u, q), row_of(u, min(q + 1, n - 1))
    r2, r3 = row_of(u, min(q + 2, n - 1)), row_of(u, min(q + 3, n - 1))
    for i in range(CELLS):
        out[i] += row[i] * (v0 * r0[i] + v1 * r1[i] + v2 * r2[i] + v3 * r3[i])


@LANES
def quadratic(u, form, ones, out):  # type: ignore[no-untyped-def]
    """A quadratic form of numbers, at least zero; of ``u``, whose first number is one, or of others."""
    first, constant = (1, form[0, 0]) if ones else (0, 0.0)
    for i in range(CELLS):
        out[i] = constant
    for p in range(first, len(form), 4):
        _triangle(u, form, p, ones, out)
        for q in range(p + 4, len(form), 4):
            for k in range(p, p + 4):
                _beside(u, form, k, q, out)
    for i in range(CELLS):
        out[i] = max(out[i], 0.0)


@kernel
def forms(u, form, out):  # type: ignore[no-untyped-def]
    """A quadratic form of numbers that begin with one, and the same of any numbers, (2, cell): for tests."""
    quadratic(u, form, True, out[0])
    quadratic(u, form, False, out[1])
