"""Calls from compiled code to compiled code by address, which keeps the one out of what is compiled for the other."""

from __future__ import annotations

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

__all__ = ["call_at"]


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
