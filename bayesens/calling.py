"""How compiled code is compiled and called.

Compiling costs its time by function and by what calls it, because what is called is optimised again with every caller.
So only what Python calls is kept on disk and can be called by it, what is called in one place is written out there, and
kernels are called by address, which keeps the one out of what is compiled for the other.
"""

from __future__ import annotations

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

__all__ = ["BARE", "INNER", "KERNEL", "ONCE", "call_at", "call_each"]

BARE = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
KERNEL = numba.njit(cache=True, nogil=True)  # called from Python
INNER = numba.njit(**BARE)  # called by kernels; a call from Python ends the process
ONCE = numba.njit(nogil=True, inline="always")  # called by kernels, each in one place


@intrinsic
def call_at(typingctx, address, parameters, data, index, out):  # type: ignore[no-untyped-def]
    """Call the C function ``void f(double*, double*, int64*, double*)`` at an address; all arguments are addresses."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [pointer] * 4)
        callee = builder.inttoptr(arguments[0], function.as_pointer())
        builder.call(callee, [builder.inttoptr(a, pointer) for a in arguments[1:]])
        return context.get_dummy_value()

    return types.void(types.int64, *[types.uintp] * 4), codegen


@KERNEL
def call_each(address, theta, data, index, out):  # type: ignore[no-untyped-def]
    """Call a kernel at many points ``theta (draw, parameter)``, into ``out (draw, 1 + derivative)``."""
    for d in range(len(theta)):
        call_at(address, theta[d].ctypes.data, data.ctypes.data, index.ctypes.data, out[d].ctypes.data)
    if theta.size == 0:  # uses after the calls: an array is freed after its last one, address or no address
        out[:, 0] = data[0] + index[0]
