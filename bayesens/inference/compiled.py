"""Graphs that PyTensor compiles: how they are built, and the density of a model with an operation that tapes do not know."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import NUMBA, Mode
from pytensor.link.numba.dispatch.basic import numba_njit
from pytensor.link.numba.linker import NumbaLinker

__all__ = ["Compiled", "lean"]


@contextmanager
def lean() -> Iterator[None]:
    """Build and compile graphs in double precision, without notes on where each operation was written.

    The densities take double precision whatever PyTensor's ``floatX`` says. Notes multiply as graphs are rewritten. It also
    leaves out PyTensor's remarks that it found no BLAS for its C compiler, which nothing here uses, and that it calls Python
    where a likelihood is compiled code of its own.
    """
    flags = {"floatX": "float64", "traceback__limit": 0, "traceback__compile_limit": 0}
    with warnings.catch_warnings(), pytensor.config.change_flags(**flags):
        warnings.filterwarnings("ignore", message="PyTensor could not link to a BLAS")
        warnings.filterwarnings("ignore", message="Numba will use object mode to run")
        yield


class Compiled:
    """Functions of one point by PyTensor's numba mode, called point by point; each is compiled at its first use, for seconds.

    Parameters
    ----------
    x : tensor (parameter)
    outputs : list of tensor
        Log density, log likelihood, and the variables.
    """

    size = 1  # no numbers of several points are held at a time

    def __init__(self, x: Any, outputs: list[Any]) -> None:
        self.x, self.outputs = x, outputs

    def values(self, x: np.ndarray) -> list[np.ndarray]:
        """Log density and log likelihood (point)."""
        return _each(self._values, x)

    def gradients(self, x: np.ndarray) -> list[np.ndarray]:
        """Log density (point) and gradient (point, parameter)."""
        return _each(self._gradient, x)

    def expand(self, x: np.ndarray) -> list[np.ndarray]:
        """Variables and priors, each with the points in front."""
        return _each(self._variables, x)

    def one(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Log density and gradient of a single point, from any thread."""
        value, gradient = self._gradient(x)
        return float(value), gradient

    @cached_property
    def _values(self) -> Callable[[np.ndarray], Any]:
        return self._function(self.outputs[:2])

    @cached_property
    def _gradient(self) -> Callable[[np.ndarray], Any]:
        return self._function([self.outputs[0], pt.grad(self.outputs[0], self.x)])

    @cached_property
    def _variables(self) -> Callable[[np.ndarray], Any]:
        return self._function(self.outputs[2:])

    def _function(self, outputs: list[Any]) -> Callable[[np.ndarray], Any]:
        with lean():
            function = pytensor.function([self.x], outputs, mode=_compiling(), on_unused_input="ignore")
        jitted, containers = function.vm.jit_fn, function.input_storage[1:]
        # Past PyTensor's own storage, of which there is one: chains run side by side.
        return lambda x: jitted(x, *(c.storage[0] for c in containers))


def _each(function: Callable[[np.ndarray], Any], x: np.ndarray) -> list[np.ndarray]:
    return [np.stack(values) for values in zip(*(function(point) for point in x), strict=True)]


def _compiling() -> Mode:
    """PyTensor's numba mode, with the interpreter's lock released while a function runs."""

    class Linker(NumbaLinker):
        def jit_compile(self, fn_and_cache: Any) -> Any:
            function, key = fn_and_cache
            return numba_njit(function.py_func, final_function=True, cache=key is not None, nogil=True)

    return Mode(linker=Linker(), optimizer=NUMBA.provided_optimizer)
