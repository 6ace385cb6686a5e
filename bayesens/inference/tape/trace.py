"""From a graph of PyTensor to a tape: every element a numbered slot, every operation a vector of elementary ones.

All shapes are known once the data are, so that whatever only moves numbers about (indexing, joining, reshaping) is done
here, once, by the operation itself on arrays of slot numbers. What does not depend on the parameters is computed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import toposort

from bayesens.inference.tape.tape import Tape
from bayesens.inference.tape.write import Recorder
from bayesens.likelihoods.ops import Likelihood

__all__ = ["Untraceable", "trace"]


class Untraceable(Exception):
    """The graph has an operation that tapes do not know."""


def trace(outputs: Sequence[Any], parameters: Any) -> Tape:
    """Write a graph out as a tape.

    Parameters
    ----------
    outputs : sequence of tensor
        The first one is a number if gradients are wanted.
    parameters : tensor (parameter)
        Of known length.

    Returns
    -------
    Tape

    Raises
    ------
    Untraceable
        If the graph has an operation that tapes do not know, or an index that depends on the parameters.
    """
    (size,) = parameters.type.shape
    tracer = _Tracer(int(size))
    tracer.slots[parameters] = np.arange(size)
    for node in toposort(outputs):
        tracer.step(node)
    return tracer.tape([tracer.slots_of(output) for output in outputs])


@dataclass
class _Tracer(Recorder):
    """What is known so far: variables as constants or as arrays of slots."""

    slots: dict[Any, np.ndarray] = field(default_factory=dict)
    constants: dict[Any, Any] = field(default_factory=dict)

    def step(self, node: Any) -> None:
        """Take one operation of the graph."""
        if all(self._constant(x) for x in node.inputs) and not isinstance(node.op, OpFromGraph):
            for variable, value in zip(node.outputs, _perform(node, [self.value(x) for x in node.inputs]), strict=True):
                self.constants[variable] = value
            return
        kind = type(getattr(node.op, "core_op", node.op)).__name__
        if isinstance(node.op, Likelihood):
            self._likelihood(node)
        elif isinstance(node.op, OpFromGraph):
            self._inner(node)
        elif kind == "Elemwise":
            self.slots[node.outputs[0]] = self._elemwise(node)
        elif kind in _SPECIAL:
            _SPECIAL[kind](self, node)
        elif kind in _MOVES:
            self.slots[node.outputs[0]] = self._move(node, _MOVES[kind])
        else:
            raise Untraceable(f"{node.op}")

    def _constant(self, variable: Any) -> bool:
        return variable in self.constants or isinstance(variable, (Constant, SharedVariable))

    def value(self, variable: Any) -> Any:
        """Value of a variable that does not depend on the parameters."""
        if variable in self.constants:
            return self.constants[variable]
        if isinstance(variable, Constant):
            return variable.data
        if isinstance(variable, SharedVariable):
            return variable.get_value(borrow=True)
        raise Untraceable(f"an index or a shape that depends on the parameters: {variable}")

    def slots_of(self, variable: Any) -> np.ndarray:
        """Slots of a variable; constants get theirs at the first use."""
        if variable not in self.slots:
            self.slots[variable] = self.constant(self.value(variable))
        return self.slots[variable]

    def _move(self, node: Any, which: Sequence[int] | None) -> np.ndarray:
        """Let an operation that moves numbers about move their slots."""
        inputs = [self.slots_of(x) if which is None or i in which else self.value(x) for i, x in enumerate(node.inputs)]
        return np.asarray(_perform(node, inputs)[0]).astype(np.int64, copy=False)

    def _elemwise(self, node: Any) -> np.ndarray:
        name = type(node.op.scalar_op).__name__
        if name not in _ELEMWISE:
            raise Untraceable(f"{node.op}")
        if name == "Cast" and node.outputs[0].type.dtype not in ("float64", "bool"):
            raise Untraceable(f"a cast of parameters to {node.outputs[0].type.dtype}")
        if name == "Invert" and node.inputs[0].type.dtype != "bool":
            raise Untraceable(f"{node.op}")
        if name == "Pow" and (power := self._power(node)) is not None:
            return power
        return _ELEMWISE[name](self, *(self.slots_of(x) for x in node.inputs))

    def _power(self, node: Any) -> np.ndarray | None:
        """A square, a root or a reciprocal by its own operation."""
        base, exponent = node.inputs
        known = np.unique(self.value(exponent)) if self._constant(exponent) else np.zeros(0)
        name = {2.0: "sqr", 0.5: "sqrt", -1.0: "recip"}.get(float(known[0])) if len(known) == 1 else None
        shape = np.broadcast_shapes(self.slots_of(base).shape, np.shape(self.value(exponent)) if name else ())
        return self.emit(name, np.broadcast_to(self.slots_of(base), shape)) if name else None

    def _inner(self, node: Any) -> None:
        """Go through an operation that is a graph itself, which may stand in several places with other inputs."""
        nodes = list(toposort(node.op.inner_outputs))
        for variable in (*node.op.inner_inputs, *(out for inner in nodes for out in inner.outputs)):
            self.slots.pop(variable, None)
            self.constants.pop(variable, None)
        for inside, outside in zip(node.op.inner_inputs, node.inputs, strict=True):
            known, of = (self.constants, self.value) if self._constant(outside) else (self.slots, self.slots_of)
            known[inside] = of(outside)
        for inner in nodes:
            self.step(inner)
        for inside, outside in zip(node.op.inner_outputs, node.outputs, strict=True):
            known, of = (self.constants, self.value) if self._constant(inside) else (self.slots, self.slots_of)
            known[outside] = of(inside)

    def _likelihood(self, node: Any) -> None:
        parameters, (data, index) = node.inputs[: node.op.n_parameters], node.inputs[node.op.n_parameters :]
        slots = [self.slots_of(x) for x in parameters]
        self.slots[node.outputs[0]] = self.kernel(node.op, self.value(data), self.value(index), slots)


def _perform(node: Any, inputs: list[Any]) -> list[Any]:
    storage: list[list[Any]] = [[None] for _ in node.outputs]
    prepare = getattr(node.op, "prepare_node", None)
    if prepare is not None:
        prepare(node, {}, {}, "py")
    node.op.perform(node, inputs, storage)
    return [cell[0] for cell in storage]


# ------------------------------------------------------------------------------------------------ operations one by one
def _chain(name: str) -> Callable[..., np.ndarray]:
    def apply(t: _Tracer, first: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        for other in rest:
            first = t.emit(name, first, other)
        return first

    return apply


def _plain(name: str) -> Callable[..., np.ndarray]:
    return lambda t, *arguments: t.emit(name, *arguments)


def _turned(name: str) -> Callable[..., np.ndarray]:
    return lambda t, a, b: t.emit(name, b, a)


_PLAIN = {  # operations that a tape has as they are
    "Sub": "sub", "TrueDiv": "div", "Pow": "pow", "Switch": "switch", "Neg": "neg", "Exp": "exp", "Log1p": "log1p",
    "Expm1": "expm1", "Sqrt": "sqrt", "Sqr": "sqr", "Abs": "abs", "Reciprocal": "recip", "Sigmoid": "sigmoid",
    "Softplus": "softplus", "Log1mexp": "log1mexp", "Tanh": "tanh", "Sin": "sin", "Cos": "cos", "ArcTan": "atan",
    "GammaLn": "gammaln", "Psi": "psi", "Erf": "erf", "Erfc": "erfc", "Erfcx": "erfcx", "GT": "gt", "GE": "ge",
    "EQ": "eq", "Invert": "not", "IsNan": "isnan", "IsInf": "isinf", "Sign": "sign", "Floor": "floor", "Ceil": "ceil",
}  # fmt: skip
_ELEMWISE: dict[str, Callable[..., np.ndarray]] = {name: _plain(op) for name, op in _PLAIN.items()}
_ELEMWISE |= {
    "Add": _chain("add"), "Mul": _chain("mul"), "AND": _chain("mul"), "OR": _chain("max"),
    "Maximum": _chain("max"), "ScalarMaximum": _chain("max"), "Minimum": _chain("min"), "ScalarMinimum": _chain("min"),
    "LT": _turned("gt"), "LE": _turned("ge"), "NEQ": lambda t, a, b: t.emit("not", t.emit("eq", a, b)),
    "Log": lambda t, a: t.log(a), "Identity": lambda t, a: a, "Cast": lambda t, a: a,
    "Second": lambda t, a, b: np.broadcast_arrays(a, b)[1],
    "Clip": lambda t, x, low, high: t.emit("min", t.emit("max", x, low), high),
}  # fmt: skip

# Which inputs of an operation are numbers that it moves; None: all. The others say where.
_MOVES: dict[str, Sequence[int] | None] = {
    "DimShuffle": None, "Join": None, "ViewOp": None, "DeepCopyOp": None, "TensorFromScalar": None,
    "Reshape": (0,), "Subtensor": (0,), "AdvancedSubtensor": (0,),
    "AdvancedSubtensor1": (0,), "Alloc": (0,), "ExtractDiag": (0,), "SpecifyShape": (0,),
}  # fmt: skip


def _reduction(name: str) -> Callable[[_Tracer, Any], None]:
    def apply(t: _Tracer, node: Any) -> None:
        t.slots[node.outputs[0]] = t.reduce(name, t.slots_of(node.inputs[0]), node.op.axis)

    return apply


def _vector(t: _Tracer, node: Any) -> None:
    t.slots[node.outputs[0]] = np.array([int(t.slots_of(x)) for x in node.inputs], dtype=np.int64)


def _shape(t: _Tracer, node: Any) -> None:
    shape = t.slots_of(node.inputs[0]).shape
    t.constants[node.outputs[0]] = np.asarray(shape[node.op.i] if hasattr(node.op, "i") else shape, dtype=np.int64)


def _scalar(t: _Tracer, node: Any) -> None:
    t.slots[node.outputs[0]] = t.slots_of(node.inputs[0])


def _check(t: _Tracer, node: Any) -> None:
    """Parameters out of their domain have no density, as PyMC has it when it compiles a model."""
    value, *conditions = node.inputs
    every = t.slots_of(value)
    for condition in conditions:
        if t._constant(condition) and bool(np.all(t.value(condition))):
            continue
        every = t.emit("switch", t.slots_of(condition), every, t.constant(-np.inf))
    t.slots[node.outputs[0]] = every


def _set(t: _Tracer, node: Any) -> None:
    """Set a part of an array, or add to it."""
    from pytensor.tensor.subtensor import indices_from_subtensor

    base, part, *index = node.inputs
    out = t.slots_of(base).copy()
    where = tuple(indices_from_subtensor([t.value(i) for i in index], node.op.idx_list))
    places = np.arange(out.size).reshape(out.shape)[where]
    new = np.broadcast_to(t.slots_of(part), places.shape)
    if not node.op.set_instead_of_inc:
        if len(np.unique(places)) < places.size:
            raise Untraceable("an addition to one element more than once")
        new = t.emit("add", out.ravel()[places], new)
    out.ravel()[places] = new
    t.slots[node.outputs[0]] = out


def _diagonal(t: _Tracer, node: Any) -> None:
    """A matrix with the given diagonal: the operation fills the rest with zeros."""
    slots = np.asarray(_perform(node, [1 + t.slots_of(node.inputs[0])])[0]).astype(np.int64)
    t.slots[node.outputs[0]] = np.where(slots == 0, t.constant(0.0), slots - 1)


def _dot(t: _Tracer, node: Any) -> None:
    a, b = (t.slots_of(x) for x in node.inputs)
    left = a if a.ndim == 2 else a[None]
    right = b if b.ndim == 2 else b[:, None]
    products = t.emit("mul", left[:, None, :], right.T[None])
    t.slots[node.outputs[0]] = t.reduce("total", products, (2,)).reshape(a.shape[:-1] + b.shape[1:])


def _softmax(t: _Tracer, node: Any) -> None:
    a, axis = t.slots_of(node.inputs[0]), node.op.axis
    axes = tuple(range(a.ndim)) if axis is None else tuple(np.atleast_1d(axis).tolist())
    shifted = t.emit("sub", a, np.expand_dims(t.reduce("largest", a, axes), axes))
    power = t.emit("exp", shifted)
    mass = np.expand_dims(t.reduce("total", power, axes), axes)
    logarithm = type(node.op).__name__ == "LogSoftmax"
    t.slots[node.outputs[0]] = t.emit("sub", shifted, t.emit("log", mass)) if logarithm else t.emit("div", power, mass)


def _cholesky(t: _Tracer, node: Any) -> None:
    a = _one_matrix(t, node)
    zero, out = t.constant(0.0), np.zeros_like(a)
    for j in range(len(a)):
        column = a[j:, j]
        if j:
            column = t.emit("sub", column, t.reduce("total", t.emit("mul", out[j:, :j], out[j, :j]), (1,)))
        root = t.emit("sqrt", column[0])
        out[:j, j], out[j, j] = zero, root
        out[j + 1 :, j] = t.emit("div", column[1:], root)
    t.slots[node.outputs[0]] = out


def _solve_triangular(t: _Tracer, node: Any) -> None:
    op = node.op.core_op
    if not op.lower or op.unit_diagonal or op.b_ndim != 1:
        raise Untraceable(f"{node.op}")
    a, b = _one_matrix(t, node), t.slots_of(node.inputs[1])
    out = np.zeros_like(b)
    for i in range(len(b)):
        right = b[i]
        if i:
            right = t.emit("sub", right, t.reduce("total", t.emit("mul", a[i, :i], out[:i]), (0,)))
        out[i] = t.emit("div", right, a[i, i])
    t.slots[node.outputs[0]] = out


def _one_matrix(t: _Tracer, node: Any) -> np.ndarray:
    """Slots of an operation's first argument; stacks of matrices are left to PyTensor."""
    a = t.slots_of(node.inputs[0])
    if a.ndim != 2 or not getattr(node.op.core_op, "lower", True):
        raise Untraceable(f"{node.op}")
    return a


_SPECIAL: dict[str, Callable[[_Tracer, Any], None]] = {
    "Sum": _reduction("total"), "Prod": _reduction("product"), "Max": _reduction("largest"), "Min": _reduction("smallest"),
    "All": _reduction("smallest"), "Any": _reduction("largest"), "MakeVector": _vector, "Shape": _shape,
    "Shape_i": _shape, "ScalarFromTensor": _scalar, "CheckParameterValue": _check, "IncSubtensor": _set,
    "AdvancedIncSubtensor": _set, "AdvancedIncSubtensor1": _set,
    "Dot": _dot, "AllocDiag": _diagonal, "Cholesky": _cholesky, "SolveTriangular": _solve_triangular,
    "Softmax": _softmax, "LogSoftmax": _softmax,
}  # fmt: skip
