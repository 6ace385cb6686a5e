"""Writing a tape: every element a numbered slot, nothing computed twice, and nothing that is a plain zero or one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bayesens.inference.tape.condense import condense
from bayesens.inference.tape.tape import OPS, Kernel, Tape

__all__ = ["Recorder"]

SHARED = 5000  # elements of an instruction up to which each is looked up: of a table's rows no two are alike


@dataclass
class Recorder:
    """A tape that is being written; operations take and return arrays of slots.

    Parameters
    ----------
    size : int
        Number of parameters, which are the first slots.
    """

    size: int
    code: list[tuple[int, ...]] = field(default_factory=list)
    pool: list[np.ndarray] = field(default_factory=list)
    pooled: int = 0
    template: list[np.ndarray] = field(default_factory=list)
    used: int = 0
    kernels: list[Any] = field(default_factory=list)
    made: dict[int, tuple[str, int, int]] = field(
        default_factory=dict
    )  # of exp, sigmoid and div: operation and arguments
    fixed: dict[int, float] = field(default_factory=dict)  # slots of constants
    done: dict[tuple[Any, ...], int] = field(default_factory=dict)  # slots of what was computed before

    def __post_init__(self) -> None:
        self._new(np.zeros(self.size))

    def tape(self, outputs: Sequence[np.ndarray]) -> Tape:
        """The tape whose results are in those slots."""
        code = np.array(self.code, dtype=np.int64).reshape(-1, 6)
        pool = np.concatenate([np.zeros(0, dtype=np.int64), *self.pool])
        code, pool, template, found = condense(self.size, code, pool, np.concatenate(self.template), outputs)
        return Tape(self.size, code, pool, template, self.kernels, found)

    def constant(self, value: Any) -> np.ndarray:
        """Slots that hold a constant."""
        value = np.asarray(value, dtype=float)
        slots = self._new(value.ravel()) + np.arange(value.size).reshape(value.shape)
        if value.size <= SHARED:
            self.fixed.update(zip(slots.ravel().tolist(), value.ravel().tolist(), strict=True))
        return slots

    def emit(self, name: str, *arguments: np.ndarray) -> np.ndarray:
        """An elementwise operation."""
        shape = np.broadcast_shapes(*(a.shape for a in arguments))
        flat = [np.broadcast_to(a, shape).ravel() for a in arguments]
        if flat[0].size > SHARED:
            return (self._write(name, flat) + np.arange(flat[0].size)).reshape(shape)
        keys = [(name, *each) for each in zip(*(a.tolist() for a in flat), strict=True)]
        found = {key: slot for key in keys if (slot := self._spared(*key)) is not None}
        new = [key for key in dict.fromkeys(keys) if key not in found]
        if new:
            first = self._write(name, [np.array(a) for a in list(zip(*new, strict=True))[1:]])
            found |= {key: first + i for i, key in enumerate(new)}
            self.done |= found
        return np.array([found[key] for key in keys], dtype=np.int64).reshape(shape)

    def reduce(self, name: str, a: np.ndarray, axis: tuple[int, ...] | None) -> np.ndarray:
        """A reduction over axes."""
        axes = tuple(range(a.ndim)) if axis is None else tuple(x % a.ndim for x in axis)
        kept = [x for x in range(a.ndim) if x not in axes]
        shape = tuple(a.shape[x] for x in kept)
        rows = a.transpose(*kept, *axes).reshape(int(np.prod(shape)), -1).tolist()
        if name == "total":
            rows = [[slot for slot in row if self.fixed.get(slot) != 0.0] for row in rows]
        keys = [(name, *row) for row in rows]
        found = {key: slot for key in keys if (slot := self._trivial(key)) is not None}
        new = [key for key in dict.fromkeys(keys) if key not in found]
        for length in {len(key) for key in new}:
            alike = [key for key in new if len(key) == length]
            first = self._new(np.zeros(len(alike)))
            place = self._pool(np.array([key[1:] for key in alike]))
            self.code.append((OPS[name][0], len(alike), first, place, length - 1, 0))
            found |= {key: first + i for i, key in enumerate(alike)}
        self.done |= found
        return np.array([found[key] for key in keys], dtype=np.int64).reshape(shape)

    def log(self, a: np.ndarray) -> np.ndarray:
        """The logarithm, past an exponential, a quotient or a sigmoid that may underflow before it."""
        makers = [self.made.get(int(s)) for s in a.ravel()]
        if not a.size or any(m is None for m in makers):
            return self.emit("log", a)
        kinds = {m[0] for m in makers if m is not None}
        first = np.array([m[1] for m in makers if m is not None]).reshape(a.shape)
        second = np.array([m[2] for m in makers if m is not None]).reshape(a.shape)
        if kinds == {"exp"}:
            return first
        if kinds == {"sigmoid"}:
            return self.emit("neg", self.emit("softplus", self.emit("neg", first)))
        if kinds == {"div"} and all(self.made.get(int(s), ("",))[0] == "exp" for s in first.ravel()):
            return self.emit("sub", self.log(first), self.emit("log", second))
        return self.emit("log", a)

    def kernel(
        self, kernel: Kernel, data: np.ndarray, index: np.ndarray, parameters: Sequence[np.ndarray]
    ) -> np.ndarray:
        """A likelihood of its own machine code, whose parameters are preceded by the shape of the last one."""
        head = self.constant(np.array(parameters[-1].shape, dtype=float))
        theta = np.concatenate([head, *(slots.ravel() for slots in parameters)])
        out = self._new(np.zeros(1))
        self.code.append((OPS["call"][0], len(theta), out, self._pool(theta), len(self.kernels), 0))
        self.kernels.append((kernel, data, index, len(head)))
        return np.array(out)

    def _new(self, values: np.ndarray) -> int:
        first, self.used = self.used, self.used + len(values)
        self.template.append(np.asarray(values, dtype=float))
        return first

    def _pool(self, slots: np.ndarray) -> int:
        first, self.pooled = self.pooled, self.pooled + slots.size
        self.pool.append(np.ravel(slots).astype(np.int64))
        return first

    def _write(self, name: str, arguments: list[np.ndarray]) -> int:
        """Write an elementwise instruction; returns the first slot of its result."""
        count = len(arguments[0])
        first, places = self._new(np.zeros(count)), [self._pool(a) for a in arguments]
        self.code.append((OPS[name][0], count, first, *places, *[0] * (3 - len(places))))
        if name in ("exp", "sigmoid", "div"):
            each = zip(arguments[0].tolist(), arguments[-1].tolist(), strict=True)
            self.made |= {first + i: (name, a, b) for i, (a, b) in enumerate(each)}
        return first

    def _spared(self, name: str, a: int, b: int = -1, c: int = -1) -> int | None:
        """Slot of a result that needs no instruction: there already, or an argument plus zero, times one, or times zero."""
        if b >= 0 and name in ("add", "sub", "mul", "div"):
            left, right = self.fixed.get(a), self.fixed.get(b)
            neutral = 0.0 if name in ("add", "sub") else 1.0
            if right == neutral or (name == "mul" and left == 0.0):
                return a
            if (name in ("add", "mul") and left == neutral) or (name == "mul" and right == 0.0):
                return b
        return self.done.get((name, *(each for each in (a, b, c) if each >= 0)))

    def _trivial(self, key: tuple[Any, ...]) -> int | None:
        """Slot of a reduction that needs no instruction: of no element or of one, or there already."""
        if len(key) == 1:
            return int(self.constant({"product": 1.0, "smallest": 1.0}.get(key[0], 0.0)))
        return int(key[1]) if len(key) == 2 else self.done.get(key)
