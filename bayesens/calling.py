"""How compiled code is compiled and called.

Compiling costs its time by function and by what calls it, because what is called is optimised again with every caller.
So only what Python calls is kept on disk and can be called by it, what is called in one place is written out there, and
kernels are called by address, which keeps the one out of what is compiled for the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic

from bayesens.threads import share_out

__all__ = ["BARE", "INNER", "KERNEL", "ONCE", "address_of", "beyond", "call_at", "over_draws"]

BARE = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
KERNEL = numba.njit(cache=True, nogil=True)  # called from Python
INNER = numba.njit(**BARE)  # called by kernels; a call from Python ends the process
ONCE = numba.njit(nogil=True, inline="always")  # called by kernels, each in one place


@cache
def address_of(
    function: Callable[..., Any], signature: str = "void(float64*, float64*, int64*, float64*)", **options: Any
) -> int:
    """Address of a function that takes numbers and addresses, compiled for C at its first use and cached on disk."""
    compiled = numba.cfunc(re.sub(r"(\w+)\*", r"CPointer(\1)", signature), cache=True, **options)(function)
    _KEEP.append(compiled)
    return int(compiled.address)


_KEEP: list[Any] = []  # compiled functions whose addresses are in use


@intrinsic
def beyond(typingctx, pointer, count):  # type: ignore[no-untyped-def]
    """Pointer to the element that comes after so many."""

    def codegen(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.gep(values[0], [values[1]])

    return pointer(pointer, types.intp), codegen


@intrinsic
def call_at(typingctx, address, *arguments):  # type: ignore[no-untyped-def]
    """Call the C function ``void f(...)`` at an address, with whole numbers and addresses for its arguments."""

    def codegen(context, builder, signature, values):  # type: ignore[no-untyped-def]
        word = ir.IntType(64)
        parts = cgutils.unpack_tuple(builder, values[1], len(arguments))
        function = ir.FunctionType(ir.VoidType(), [word] * len(parts))
        builder.call(builder.inttoptr(values[0], function.as_pointer()), parts)
        return context.get_dummy_value()

    return types.void(types.int64, types.StarArgTuple(arguments)), codegen  # type: ignore[attr-defined]


@numba.njit(cache=True, nogil=True)
def _call_each(address, theta, data, index, out):  # type: ignore[no-untyped-def]
    for d in range(len(theta)):
        call_at(address, theta[d].ctypes.data, data.ctypes.data, index.ctypes.data, out[d].ctypes.data)
    if theta.size == 0:  # uses after the calls: an array is freed after its last one, address or no address
        out[:, 0] = data[0] + index[0]


def over_draws(address: int, theta: np.ndarray, data: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
    """Call a kernel with each draw of ``theta (draw, parameter)``, on all cores; what it gives is (draw, size)."""
    out = np.empty((len(theta), size))
    share_out(lambda part: _call_each(address, theta[part], data, index, out[part]), len(theta))
    return out
