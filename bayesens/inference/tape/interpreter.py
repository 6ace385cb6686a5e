"""The interpreter of tapes: elementary operations on numbered slots, in machine code that is compiled once for all models.

A graph of small arrays costs an ordinary compiler seconds to minutes for every new model, and its result microseconds a
call. Written out as elementary operations on numbered slots, the same graph is data: one interpreter, compiled once and
kept on disk, evaluates any model at once, with derivatives by going through the instructions backwards (reverse mode).
An instruction is a whole vector of one operation, so that the interpreter's own time is small against the arithmetic.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from bayesens.c_functions import BARE, ONCE, address_of, call_at, kernel, pointer_at
from bayesens.distributions.special import digamma, erfcx, trigamma

__all__ = ["OPS", "addresses", "density_addresses", "scatter_many"]

# Of each operation the number of its arguments. Reductions take the length of a row in place of a second argument.
_ARITY = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "pow": 2, "max": 2, "min": 2, "switch": 3,
    "neg": 1, "exp": 1, "log": 1, "log1p": 1, "expm1": 1, "sqrt": 1, "sqr": 1, "abs": 1, "recip": 1, "sigmoid": 1,
    "softplus": 1, "log1mexp": 1, "tanh": 1, "sin": 1, "cos": 1, "atan": 1, "gammaln": 1, "psi": 1, "erf": 1, "erfc": 1,
    "erfcx": 1, "gt": 2, "ge": 2, "eq": 2, "not": 1, "isnan": 1, "isinf": 1, "sign": 1, "floor": 1, "ceil": 1,
    "total": 1, "product": 1, "largest": 1, "smallest": 1, "call": 1,
}  # fmt: skip
OPS = {name: (number, arity) for number, (name, arity) in enumerate(_ARITY.items())}

(ADD, SUB, MUL, DIV, POW, MAX, MIN, SWITCH, NEG, EXP, LOG, LOG1P, EXPM1, SQRT, SQR, ABS, RECIP, SIGMOID, SOFTPLUS, LOG1MEXP,
 TANH, SIN, COS, ATAN, GAMMALN, PSI, ERF, ERFC, ERFCX, GT, GE, EQ, NOT, ISNAN, ISINF, SIGN, FLOOR, CEIL, TOTAL, PRODUCT,
 LARGEST, SMALLEST, CALL) = range(len(_ARITY))  # fmt: skip

TWO_OVER_ROOT_PI = 2.0 / math.sqrt(math.pi)

njit = numba.njit(**BARE, error_model="numpy")  # called by the interpreter; a call from Python ends the process


@njit
def _softplus(x):  # type: ignore[no-untyped-def]
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@njit
def _sigmoid(x):  # type: ignore[no-untyped-def]
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


@njit
def _log1mexp(x):  # type: ignore[no-untyped-def]
    """log(1 - exp(x)) for negative x."""
    if x > -0.6931471805599453:
        return math.log(-math.expm1(x))
    return math.log1p(-math.exp(x))


@njit
def _unary(op, x):  # type: ignore[no-untyped-def]
    if op == EXP:
        return math.exp(x)
    elif op == LOG:
        return math.log(x) if x > 0.0 else (-math.inf if x == 0.0 else math.nan)
    elif op == NEG:
        return -x
    elif op == SQR:
        return x * x
    elif op == RECIP:
        return 1.0 / x
    elif op == SQRT:
        return math.sqrt(x) if x >= 0.0 else math.nan
    elif op == ABS:
        return abs(x)
    elif op == LOG1P:
        return math.log1p(x) if x > -1.0 else (-math.inf if x == -1.0 else math.nan)
    elif op == EXPM1:
        return math.expm1(x)
    elif op == SIGMOID:
        return _sigmoid(x)
    elif op == SOFTPLUS:
        return _softplus(x)
    elif op == LOG1MEXP:
        return _log1mexp(x)
    elif op == TANH:
        return math.tanh(x)
    elif op == SIN:
        return math.sin(x)
    elif op == COS:
        return math.cos(x)
    elif op == ATAN:
        return math.atan(x)
    elif op == GAMMALN:
        return math.lgamma(x)
    elif op == PSI:
        return digamma(x)
    elif op == ERF:
        return math.erf(x)
    elif op == ERFC:
        return math.erfc(x)
    elif op == ERFCX:
        return erfcx(x)
    elif op == NOT:
        return 1.0 - x
    elif op == ISNAN:
        return 1.0 if math.isnan(x) else 0.0
    elif op == ISINF:
        return 1.0 if math.isinf(x) else 0.0
    elif op == SIGN:
        return np.sign(x)
    elif op == FLOOR:
        return np.floor(x)
    return np.ceil(x)


@njit
def _slope(op, x, y):  # type: ignore[no-untyped-def]
    """Derivative of a function of one number, from its argument and its value."""
    if op == EXP:
        return y
    elif op == LOG:
        return 1.0 / x
    elif op == NEG:
        return -1.0
    elif op == SQR:
        return 2.0 * x
    elif op == RECIP:
        return -y * y
    elif op == SQRT:
        return 0.5 / y
    elif op == ABS:
        return np.sign(x)
    elif op == LOG1P:
        return 1.0 / (1.0 + x)
    elif op == EXPM1:
        return y + 1.0
    elif op == SIGMOID:
        return y * (1.0 - y)
    elif op == SOFTPLUS:
        return _sigmoid(x)
    elif op == LOG1MEXP:
        return -1.0 / math.expm1(-x)
    elif op == TANH:
        return 1.0 - y * y
    elif op == SIN:
        return math.cos(x)
    elif op == COS:
        return -math.sin(x)
    elif op == ATAN:
        return 1.0 / (1.0 + x * x)
    elif op == GAMMALN:
        return digamma(x)
    elif op == PSI:
        return trigamma(x)
    elif op == ERF:
        return TWO_OVER_ROOT_PI * math.exp(-x * x)
    elif op == ERFC:
        return -TWO_OVER_ROOT_PI * math.exp(-x * x)
    elif op == ERFCX:
        return 2.0 * x * y - TWO_OVER_ROOT_PI
    return 0.0  # steps


@njit
def _binary(op, x, y):  # type: ignore[no-untyped-def]
    if op == ADD:
        return x + y
    elif op == SUB:
        return x - y
    elif op == MUL:
        return x * y
    elif op == DIV:
        return x / y
    elif op == POW:
        return x**y
    elif op == MAX:
        return x if x >= y or math.isnan(x) else y
    elif op == MIN:
        return x if x <= y or math.isnan(x) else y
    elif op == GT:
        return 1.0 if x > y else 0.0
    elif op == GE:
        return 1.0 if x >= y else 0.0
    return 1.0 if x == y else 0.0


@njit
def _reduce(op, v, row):  # type: ignore[no-untyped-def]
    if op == TOTAL:
        out = 0.0
        for i in row:
            out += v[i]
        return out
    out = v[row[0]]
    for i in row[1:]:
        if op == PRODUCT:
            out *= v[i]
        elif op == LARGEST:
            out = max(out, v[i])
        else:
            out = min(out, v[i])
    return out


@ONCE
def _run(code, pool, v):  # type: ignore[no-untyped-def]
    """Carry out instructions ``(op, length, out, a, b, c)`` on the slots of one point; kernels are not among them."""
    for line in code:
        op, n, out, a, b, c = line
        x = pool[a : a + n]
        if op == TOTAL:
            for i in range(n):
                value = 0.0
                for j in range(a + i * b, a + (i + 1) * b):
                    value += v[pool[j]]
                v[out + i] = value
        elif op == MUL:
            for i in range(n):
                v[out + i] = v[pool[a + i]] * v[pool[b + i]]
        elif op == ADD:
            for i in range(n):
                v[out + i] = v[pool[a + i]] + v[pool[b + i]]
        elif op > TOTAL:
            for i in range(n):
                v[out + i] = _reduce(op, v, pool[a + i * b : a + (i + 1) * b])
        elif op == SWITCH:
            for i in range(n):
                v[out + i] = v[pool[b + i]] if v[x[i]] != 0.0 else v[pool[c + i]]
        elif op < NEG or GT <= op <= EQ:
            y = pool[b : b + n]
            for i in range(n):
                v[out + i] = _binary(op, v[x[i]], v[y[i]])
        else:
            for i in range(n):
                v[out + i] = _unary(op, v[x[i]])


@njit
def _adjoint_binary(op, x, y, v, d, at, each):  # type: ignore[no-untyped-def]
    """Add to the derivatives of the two arguments of one operation, of value ``at`` and derivative ``each``."""
    if op == ADD:
        d[x] += each
        d[y] += each
    elif op == SUB:
        d[x] += each
        d[y] -= each
    elif op == MUL:
        d[x] += each * v[y]
        d[y] += each * v[x]
    elif op == DIV:
        d[x] += each / v[y]
        d[y] -= each * at / v[y]
    elif op == POW:
        d[x] += each * v[y] * v[x] ** (v[y] - 1.0)
        d[y] += each * at * math.log(v[x]) if v[x] > 0.0 else 0.0
    elif op in (MAX, MIN):
        d[x if at == v[x] else y] += each


@njit
def _adjoint_reduce(op, row, v, d, at, each):  # type: ignore[no-untyped-def]
    for i in row:
        if op == TOTAL:
            d[i] += each
        elif op == PRODUCT:
            rest = 1.0
            for j in row:
                if j != i:
                    rest *= v[j]
            d[i] += each * rest
        elif v[i] == at:
            d[i] += each
            return


@ONCE
def _adjoint(code, pool, v, d):  # type: ignore[no-untyped-def]
    """Carry derivatives ``d`` back from the results of instructions to their arguments."""
    for k in range(len(code) - 1, -1, -1):
        op, n, out, a, b, c = code[k]
        if GT <= op <= CEIL:  # steps have no slope
            continue
        if op == TOTAL:
            for i in range(n):
                each = d[out + i]
                for j in range(a + i * b, a + (i + 1) * b):
                    d[pool[j]] += each
            continue
        if op == MUL:
            for i in range(n):
                x, y, each = pool[a + i], pool[b + i], d[out + i]
                if each != 0.0:
                    d[x] += each * v[y]
                    d[y] += each * v[x]
            continue
        for i in range(n):
            each = d[out + i]
            if each == 0.0:  # also where the other branch of a switch is infinite
                continue
            x = pool[a + i]
            if op >= TOTAL:
                _adjoint_reduce(op, pool[a + i * b : a + (i + 1) * b], v, d, v[out + i], each)
            elif op == SWITCH:
                d[pool[b + i] if v[x] != 0.0 else pool[c + i]] += each
            elif op < NEG:
                _adjoint_binary(op, x, pool[b + i], v, d, v[out + i], each)
            else:
                d[x] += each * _slope(op, v[x], v[out + i])


def _packed_run(code, lines, pool, size, v, points, slots):  # type: ignore[no-untyped-def]
    code, pool = numba.carray(code, (lines, 6)), numba.carray(pool, size)
    v = numba.carray(v, (points, slots))
    for p in range(points):
        _run(code, pool, v[p])


def _packed_adjoint(code, lines, pool, size, v, d, points, slots):  # type: ignore[no-untyped-def]
    code, pool = numba.carray(code, (lines, 6)), numba.carray(pool, size)
    v, d = numba.carray(v, (points, slots)), numba.carray(d, (points, slots))
    for p in range(points):
        _adjoint(code, pool, v[p], d[p])


def addresses() -> tuple[int, int]:
    """Addresses of the two, which are compiled apart from what calls them: a caller's code is optimised anew with its own."""
    start, end = "void(int64*, int64, int64*, int64, float64*", ", int64, int64)"
    return (
        address_of(_packed_run, start + end, error_model="numpy"),
        address_of(_packed_adjoint, f"{start}, float64*{end}", error_model="numpy"),
    )


@kernel
def scatter_many(slots, derivatives, at, d):  # type: ignore[no-untyped-def]
    """Add a kernel's derivatives, times that of its value at slot ``at``, to those of its arguments, at many points."""
    for p in range(len(d)):
        each = d[p, at]
        if each != 0.0:
            for i in range(len(slots)):
                d[p, slots[i]] += each * derivatives[p, 1 + i]


# ---------------------------------------------------------------------------------------- one point, with its kernels
@ONCE
def _call_kernel(line, pool, table, v, out):  # type: ignore[no-untyped-def]
    """Call the likelihood of an instruction; ``table`` holds its address, its data, and the length of its head."""
    count, address, data, index = line[1], table[0], table[1], table[2]
    theta = np.empty(count)
    for i in range(count):
        theta[i] = v[pool[line[3] + i]]
    call_at(address, theta.ctypes.data, data, index, out.ctypes.data)
    v[line[2]] = out[0]
    if theta.size == 0:  # a use after the call: an array is freed after its last one, address or no address
        out[0] = 0.0


@ONCE
def _run_at(address, code, pool, v):  # type: ignore[no-untyped-def]
    call_at(address, code.ctypes.data, len(code), pool.ctypes.data, len(pool), v.ctypes.data, 1, len(v))


@ONCE
def _adjoint_at(address, code, pool, v, d):  # type: ignore[no-untyped-def]
    call_at(address, code.ctypes.data, len(code), pool.ctypes.data, len(pool), v.ctypes.data, d.ctypes.data, 1, len(v))


@ONCE
def _density(run, adjoint, code, pool, tables, v, d, out):  # type: ignore[no-untyped-def]
    """Value and derivatives of the slot ``out`` at one point, whose parameters are the first slots of ``v``."""
    lines = np.nonzero(code[:, 0] == CALL)[0]
    size = 0
    for k in lines:
        size += 1 + code[k, 1]
    buffer = np.empty(size)
    start, at = 0, 0
    for k in lines:
        _run_at(run, code[start:k], pool, v)
        _call_kernel(code[k], pool, tables[code[k, 4]], v, buffer[at : at + 1 + code[k, 1]])
        start, at = k + 1, at + 1 + code[k, 1]
    _run_at(run, code[start:], pool, v)
    d[out] = 1.0
    end = len(code)
    for k in lines[::-1]:
        at -= 1 + code[k, 1]
        _adjoint_at(adjoint, code[k + 1 : end], pool, v, d)
        head = tables[code[k, 4], 3]
        for i in range(head, code[k, 1]):
            d[pool[code[k, 3] + i]] += d[code[k, 2]] * buffer[at + 1 + i - head]
        end = k
    _adjoint_at(adjoint, code[:end], pool, v, d)
    return v[out]


def _packed_density(size, x, gradient, value, plan):  # type: ignore[no-untyped-def]
    """The density in the coordinates ``center + root @ x``, for samplers that call C functions; 0, or a code for not finite.

    ``plan`` holds addresses and sizes: instructions, pool, kernels, slots, the slot of the density, center and
    root, and of what carries instructions out and back.
    """
    p = numba.carray(plan, 12, np.int64)
    n = np.int64(size)
    code = numba.carray(pointer_at(p[0]), (p[1], 6), np.int64)
    pool = numba.carray(pointer_at(p[2]), p[3], np.int64)
    tables = numba.carray(pointer_at(p[4]), (p[5], 4), np.int64)
    template = numba.carray(pointer_at(p[6]), p[7], np.float64)
    affine = numba.carray(pointer_at(p[9]), (1 + n, n), np.float64)
    u, g = numba.carray(x, n), numba.carray(gradient, n)
    v, d = template.copy(), np.zeros(len(template))
    for i in range(n):
        v[i] = affine[0, i]
        for j in range(n):
            v[i] += affine[1 + i, j] * u[j]
    at = _density(p[10], p[11], code, pool, tables, v, d, p[8])
    numba.carray(value, 1)[0] = at
    finite = math.isfinite(at)
    for j in range(n):
        g[j] = 0.0
    for i in range(n):
        for j in range(n):
            g[j] += affine[1 + i, j] * d[i]
    for j in range(n):
        finite = finite and math.isfinite(g[j])
    return 0 if finite else 3


def density_addresses() -> tuple[int, int, int]:
    """Addresses of ``int64 f(uint64 size, double* x, double* gradient, double* value, void* plan)`` and of two that it calls."""
    signature = "int64(uint64, float64*, float64*, float64*, voidptr)"
    return address_of(_packed_density, signature), *addresses()
