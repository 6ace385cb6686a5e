"""A function as a list of instructions on numbers, with its gradient, for many points or for a sampler written in C."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from bayesens.inference.tape.interpreter import OPS, addresses, density_addresses, scatter_many
from bayesens.threads import share_out

__all__ = ["OPS", "Kernel", "Tape"]


class Kernel(Protocol):
    """A likelihood of its own machine code."""

    def address(self) -> int:
        """Address of the C function ``void f(double* theta, double* data, int64* index, double* out)``."""

    def at_many(
        self, theta: np.ndarray, data: np.ndarray, index: np.ndarray, head: int, *, gradients: bool
    ) -> np.ndarray:
        """Values, and derivatives if wanted, for many draws ``theta (draw, head + parameter)``."""


@dataclass(frozen=True)
class Tape:
    """Instructions with their constants.

    Attributes
    ----------
    size : int
        Number of parameters, which are the first slots.
    code : int array (instruction, 6)
        Operation, length, first slot of the result, and where the arguments' slots begin in the pool.
    pool : int array
    template : array (slot)
        Constants at their slots.
    kernels : list of (likelihood, data, index, head)
        ``head`` counts the numbers that come before the parameters.
    outputs : list of int array
        Slots of the results, in their shapes.
    """

    size: int
    code: np.ndarray
    pool: np.ndarray
    template: np.ndarray
    kernels: list[tuple[Kernel, np.ndarray, np.ndarray, int]]
    outputs: list[np.ndarray]

    def values(self, x: np.ndarray) -> list[np.ndarray]:
        """All results at many points ``x (point, parameter)``, each with the points in front."""
        v, _ = self._forward(x, gradients=False)
        return [v[:, slots] for slots in self.outputs]

    def gradients(self, x: np.ndarray) -> list[np.ndarray]:
        """Values (point) and gradients (point, parameter) of the first result, a number."""
        v, kernels = self._forward(x, gradients=True)
        d = np.zeros_like(v)
        d[:, int(self.outputs[0])] = 1.0
        for code, number in reversed(list(self._segments())):
            if number is not None:
                line = self.code[number]
                head, slots = self.kernels[line[4]][3], self._arguments(line)
                scatter_many(slots[head:], kernels[number], line[2], d)
            share_out(lambda part, code=code: _call(addresses()[1], code, self.pool, v[part], d[part]), len(v))  # type: ignore[misc]
        return [v[:, int(self.outputs[0])].copy(), d[:, : self.size].copy()]

    def function(self) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """The first result and its gradient as a function of one point, which releases the interpreter's lock."""
        address, plan, kept = self.plan(np.zeros(self.size), np.eye(self.size))
        call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_uint64, *[ctypes.c_void_p] * 4)(address)

        def value_and_gradient(x: np.ndarray, kept: Any = kept) -> tuple[float, np.ndarray]:
            x, gradient, value = np.ascontiguousarray(x, dtype=float), np.empty(self.size), np.empty(1)
            call(self.size, x.ctypes.data, gradient.ctypes.data, value.ctypes.data, plan.ctypes.data)
            return float(value[0]), gradient

        return value_and_gradient

    def plan(self, center: np.ndarray, root: np.ndarray) -> tuple[int, np.ndarray, list[np.ndarray]]:
        """What a sampler written in C needs to evaluate the first result at ``center + root @ u``.

        Returns
        -------
        address : int
            Of the C function.
        plan : int array
            Its last argument, which holds addresses.
        kept : list of array
            What must live as long as the plan is in use.
        """
        tables = np.zeros((max(len(self.kernels), 1), 4), dtype=np.int64)
        affine = np.vstack([center, root]).astype(float)
        kept = [self.code, self.pool, tables, self.template, affine]
        for row, (likelihood, data, index, head) in zip(tables, self.kernels, strict=False):
            kept += [data, index]
            row[:] = likelihood.address(), data.ctypes.data, index.ctypes.data, head
        address, *called = density_addresses()
        plan = [self.code.ctypes.data, len(self.code), self.pool.ctypes.data, len(self.pool), tables.ctypes.data, len(tables),
                self.template.ctypes.data, len(self.template), int(self.outputs[0]), affine.ctypes.data, *called]  # fmt: skip
        return address, np.array(plan, dtype=np.int64), kept

    def _forward(self, x: np.ndarray, *, gradients: bool) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Slots of many points, and what the kernels gave."""
        v = np.repeat(self.template[None], len(x), axis=0)
        v[:, : self.size] = x
        kernels = {}
        for code, number in self._segments():
            share_out(lambda part, code=code: _call(addresses()[0], code, self.pool, v[part]), len(v))  # type: ignore[misc]
            if number is not None:
                line = self.code[number]
                likelihood, data, index, head = self.kernels[line[4]]
                theta = np.ascontiguousarray(v[:, self._arguments(line)])
                kernels[number] = likelihood.at_many(theta, data, index, head, gradients=gradients)
                v[:, line[2]] = kernels[number][:, 0]
        return v, kernels

    def _arguments(self, line: np.ndarray) -> np.ndarray:
        return self.pool[line[3] : line[3] + line[1]]

    def _segments(self) -> list[tuple[np.ndarray, int | None]]:
        """Instructions up to each kernel, with its line; and those after the last."""
        lines = np.nonzero(self.code[:, 0] == OPS["call"][0])[0]
        starts = [0, *(lines + 1)]
        return [
            (self.code[a:b], int(k) if k is not None else None)
            for a, b, k in zip(starts, [*lines, len(self.code)], [*lines, None], strict=True)
        ]


def _call(address: int, code: np.ndarray, pool: np.ndarray, *slots: np.ndarray) -> None:
    """Carry instructions out, or derivatives back, at many points; ctypes lets go of Python's lock meanwhile."""
    arrays = [array.ctypes.data for array in slots]
    arguments = [code.ctypes.data, len(code), pool.ctypes.data, len(pool), *arrays, *slots[0].shape]
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(arguments))(address)(*arguments)
