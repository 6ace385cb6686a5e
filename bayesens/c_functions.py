"""How compiled code is compiled and called.

Compiling costs its time by function and by what calls it, because what is called is optimised again with every caller.
So only what Python calls is kept on disk and can be called by it, what is called in one place is written out there, and
kernels are called by address, which keeps the one out of what is compiled for the other.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from llvmlite.binding import Linkage  # type: ignore[import-untyped]
from numba.core import cgutils, sigutils, types
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.extending import intrinsic

from bayesens.threads import share_out

__all__ = [
    "BARE",
    "INNER",
    "ONCE",
    "address_of",
    "beyond",
    "bring",
    "call_at",
    "compiled_beside",
    "kernel",
    "numbers_at",
    "over_draws",
    "pointer_at",
]

# Compiled functions call each other by address, and Python's have none.
if numba.config.DISABLE_JIT:
    raise OSError(
        "NUMBA_DISABLE_JIT is set, and bayesens computes densities in compiled code alone: unset it (del "
        "os.environ['NUMBA_DISABLE_JIT']) and start Python again"
    )


class _KernelCache(FunctionCache):
    """A compiled function on disk, made anew when any file changes that it stands in or calls into; numba asks the first."""

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        files = sorted(_files(self._py_func, set()) | {__file__})  # this one says how all are compiled
        return *super()._index_key(sig, codegen), tuple((stat.st_mtime, stat.st_size) for stat in map(os.stat, files))


def _files(function: Any, seen: set[Any]) -> set[str]:
    """Files of a function and of all compiled functions that it calls."""
    seen.add(function)
    named = (getattr(function.__globals__.get(name), "py_func", None) for name in function.__code__.co_names)
    below = [_files(other, seen) for other in named if other is not None and other not in seen]
    return {function.__code__.co_filename}.union(*below)


class _OwnCopies(JITCodeLibrary):
    """Machine code that calls its own copies of other functions.

    Each kernel holds a copy of what it calls, optimised with it, and a process links all copies of a name to the one that it
    loaded first. Sums in any order differ in their last digit between copies: a fit would depend on what ran before it, and the
    process that compiles a kernel would draw another chain than the next one. Functions of its own are linked to nothing else.
    They are private and not internal: an internal one still has its name in the table of symbols, and other code that is compiled
    later and calls a function of that name would be linked to it, whose arguments the optimiser may have changed.
    """

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.linkonce_odr:
                function.linkage = Linkage.private
        super()._optimize_final_module()


class OwnCopies(Compiler):
    """Numba's compiler for what is called from outside: what it compiles calls its own copies of other functions."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *rest: Any) -> None:
        if library is None:
            library = _OwnCopies(targetctx.codegen(), "kernel")
            library.enable_object_caching()
        super().__init__(typingctx, targetctx, library, *rest)


def kernel(function: Any) -> Any:
    """Compile a function that Python calls, and keep it on disk."""
    compiled = numba.njit(nogil=True, pipeline_class=OwnCopies)(function)
    compiled._cache = _KernelCache(function)  # as cache=True does, with numba's own
    return compiled


BARE = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# A division by zero gives infinity, as in numpy: C cannot raise what Python would, and what calls refuses what is not finite.
INNER = numba.njit(**BARE, error_model="numpy")  # called by kernels; a call from Python ends the process
ONCE = numba.njit(nogil=True, inline="always")  # called by kernels, each in one place


@cache
def address_of(
    function: Callable[..., Any], signature: str = "void(float64*, float64*, int64*, float64*)", **options: Any
) -> int:
    """Address of a function that takes numbers and addresses, compiled for C at its first use and cached on disk."""
    arguments, result = sigutils.normalize_signature(re.sub(r"(\w+)\*", r"CPointer(\1)", signature))
    compiled = CFunc(function, (arguments, result), locals={}, options=options, pipeline_class=OwnCopies)
    compiled._cache = _KernelCache(function)  # type: ignore[attr-defined]  # as enable_caching does, with numba's own
    compiled.compile()
    _KEEP.append(compiled)
    return int(compiled.address or 0)


@contextmanager
def compiled_beside(function: Callable[..., Any], *others: str) -> Iterator[None]:
    """Let a second process compile what will be needed next while this one compiles a function, the first time ever.

    Parameters
    ----------
    function : callable
        Nothing is done if it is on disk.
    others : str
        Functions without arguments, ``"package.module:function"``, after which something compiled is on disk.
    """
    if _on_disk(function) or getattr(sys, "frozen", False):  # a frozen program would start itself
        yield
        return
    calls = [f"import {module}; {module}.{name}()" for module, name in (other.split(":") for other in others)]
    with ExitStack() as stack:
        with suppress(OSError):  # where none can be started, this process compiles all, later
            process = subprocess.Popen([sys.executable, "-c", "; ".join(calls)], **SILENT)
            stack.callback(process.wait)
        yield


def _on_disk(function: Callable[..., Any]) -> bool:
    """Whether some version of a function is kept on disk; an answer that is wrong costs time and nothing else."""
    module, name = function.__module__.rpartition(".")[2], function.__qualname__
    folder = Path(FunctionCache(function).cache_path)
    return any(folder.glob(f"{module}.{name}-{function.__code__.co_firstlineno}.*.nbi"))


SILENT: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
_KEEP: list[Any] = []  # compiled functions whose addresses are in use


@intrinsic
def beyond(typingctx, pointer, count):  # type: ignore[no-untyped-def]
    """Pointer to the element that comes after so many."""

    def codegen(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.gep(values[0], [values[1]])

    return pointer(pointer, types.intp), codegen


@intrinsic
def pointer_at(typingctx, address):  # type: ignore[no-untyped-def]
    """Turn an address into a pointer."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), codegen


@intrinsic
def numbers_at(typingctx, address, kind):  # type: ignore[no-untyped-def]
    """Turn an address into a pointer to numbers of a kind; unlike an array, it counts no references."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(kind.dtype)(address, kind), codegen  # type: ignore[attr-defined]


@intrinsic
def bring(typingctx, address):  # type: ignore[no-untyped-def]
    """Have what stands at an address brought to the caches; it may be anywhere, as nothing is read."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        flag, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(fetch, [builder.inttoptr(arguments[0], byte), *(ir.Constant(flag, n) for n in (0, 2, 1))])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


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
