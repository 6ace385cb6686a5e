"""The posterior density of a PyMC model on the unconstrained space, compiled once and used by every method.

Compiled functions are kept for the next model of the same structure: data, centre and scales are shared variables, so that a
fit of another table only puts new values into them.

Many points are evaluated by NumPy, a graph's operation at a time for all of them: that takes no compiling, and the fused
likelihood is one call. One point after the other, as NUTS needs them, are evaluated by compiled code.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["Target", "compile_target", "lean"]

LARGE = 250  # operations of a density that NumPy takes longer to go through than compiling it is worth
KEPT = 4  # compiled structures
CHUNK = 20_000_000  # numbers that the evaluation of many points may hold by rough count


@dataclass(frozen=True)
class Target:
    """A compiled posterior density.

    Attributes
    ----------
    model : pymc.Model
    start : array (parameter)
        PyMC's initial point, unconstrained and divided by ``unit``.
    unit : array (parameter)
        Size of each parameter in the units of the data: points are unconstrained parameters divided by it, so that a step
        of one is of the order of the prior, be the data in metres a second or in millimetres a day.
    """

    model: pm.Model
    start: np.ndarray
    unit: np.ndarray
    _compiled: _Compiled

    @property
    def compiled(self) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """Function of one point that returns the log density and its gradient, in machine code.

        Compiling it takes seconds, at the first use; it may be called from several threads at a time.
        """
        return self._compiled.one

    def logp_and_gradient(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log density (point) and gradient (point, parameter) of each of many points."""
        return tuple(self._chunks(self._compiled.gradients, x))  # type: ignore[return-value]

    def logp(self, x: np.ndarray) -> np.ndarray:
        """Log density of each of many points, (point)."""
        return self.logp_and_loglik(x)[0]

    def logp_and_loglik(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log density and log likelihood of each of many points, (point)."""
        logp, loglik = self._chunks(self._compiled.values, x)
        return logp, loglik

    def _chunks(self, function: Callable[[np.ndarray], list[np.ndarray]], x: np.ndarray) -> list[np.ndarray]:
        """Apply a function to a part of the points at a time."""
        step = self._compiled.chunk()
        parts = [
            [np.broadcast_to(a, (len(block), *a.shape[1:])) for a in function(np.ascontiguousarray(block))]
            for block in (x[i : i + step] for i in range(0, len(x), step))
        ]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def expand(self, x: np.ndarray) -> tuple[xr.Dataset, xr.Dataset]:
        """Variables on their natural scale.

        Parameters
        ----------
        x : array (chain, draw, parameter)

        Returns
        -------
        posterior : Dataset
            Free variables and deterministic ones, without those that only serve the parametrisation.
        log_prior : Dataset
            Log density of each top-level prior.
        """
        chains, draws, _ = x.shape
        compiled = self._compiled
        arrays = [
            np.broadcast_to(a, (chains * draws, *a.shape[1:])).reshape(chains, draws, *a.shape[1:])
            for a in compiled.expand(np.ascontiguousarray(x.reshape(-1, x.shape[-1])))
        ]
        split = len(compiled.outputs)
        dims = self.model.named_vars_to_dims
        variables = {}
        for name, array in zip(compiled.outputs, arrays[:split], strict=True):
            own = tuple(str(d) for d in dims.get(name) or ())
            if len(own) == array.ndim - 2:
                variables[name] = (("chain", "draw", *own), array)
        coords: dict[str, Any] = {
            str(d): _labels(self.model.coords[d]) for d in {d for _, (dd, _) in variables.items() for d in dd[2:]}
        }
        coords |= {"chain": np.arange(chains), "draw": np.arange(draws)}
        prior = {
            name: (("chain", "draw", *(f"{name}_dim_{i}" for i in range(array.ndim - 2))), array)
            for name, array in zip(compiled.priors, arrays[split:], strict=True)
        }
        return (
            xr.Dataset(variables, coords=coords),
            xr.Dataset(prior, coords={"chain": coords["chain"], "draw": coords["draw"]}),
        )


def _labels(values: Any) -> np.ndarray:
    return np.array([str(v) for v in values])


def compile_target(model: pm.Model) -> Target:
    """Compile the density of a model, its gradient, and the way back to the natural scale.

    Parameters
    ----------
    model : pymc.Model
        All of its free variables are continuous.

    Returns
    -------
    Target
        While it lives, its compiled functions are its own; afterwards another model of the same structure may have them.
    """
    structure, shared = _structure(model)
    compiled = _POOL.take(structure)
    if compiled is None:
        with lean():
            compiled = _Compiled(model, shared)
    else:
        for old, new in zip(compiled.shared, shared, strict=True):
            old.set_value(new.get_value(borrow=True), borrow=True)
    unit = np.repeat([_unit(model, rv) for rv in model.free_RVs], compiled.sizes)
    compiled.unit.set_value(unit)
    target = Target(model, compiled.start() / unit, unit, compiled)
    weakref.finalize(target, _POOL.put, structure, compiled).atexit = False
    return target


def _unit(model: pm.Model, rv: Any) -> float:
    """Unit of a variable that is not transformed; a transformed one is free of units."""
    return 1.0 if model.rvs_to_transforms[rv] is not None else float(getattr(rv.tag, "unit", 1.0))


class _Pool:
    """Compiled functions that nobody uses, by structure; the oldest go first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: OrderedDict[Any, _Compiled] = OrderedDict()

    def take(self, structure: Any) -> _Compiled | None:
        with self.lock:
            return self.kept.pop(structure, None)

    def put(self, structure: Any, compiled: _Compiled) -> None:
        with self.lock:
            self.kept[structure] = compiled
            while len(self.kept) > KEPT:
                self.kept.popitem(last=False)


_POOL = _Pool()


class _Compiled:
    """The functions of one structure, for one user at a time."""

    def __init__(self, model: pm.Model, shared: list[Any]) -> None:
        import pytensor
        import pytensor.tensor as pt
        from pymc.initial_point import make_initial_point_expression
        from pytensor.graph.replace import graph_replace, vectorize_graph
        from pytensor.graph.rewriting.utils import rewrite_graph
        from pytensor.graph.traversal import ancestors

        from bayesens.likelihoods import with_gradients

        self.model, self.shared = model, shared
        start = make_initial_point_expression(
            free_rvs=model.free_RVs, rvs_to_transforms=model.rvs_to_transforms,
            initval_strategies=model.rvs_to_initial_values, return_transformed=True,
        )  # fmt: skip
        self._start = pytensor.function([], start, mode=_plain(), on_unused_input="ignore")
        shapes = [np.shape(value) for value in self._start()]
        sizes = [int(np.prod(shape)) for shape in shapes]
        self.sizes, self.unit = sizes, pytensor.shared(np.ones(sum(sizes)), shape=(sum(sizes),))
        variables = [*model.free_RVs, *model.deterministics]
        likelihood = [model.logp(vars=[v], sum=True) for v in model.observed_RVs]
        [*potentials] = model.replace_rvs_by_values([pt.sum(v) for v in model.potentials])
        total = pt.as_tensor(0.0)
        for term in (*likelihood, *potentials):
            total = total + term
        top = [
            rv for rv in model.free_RVs
            if not any(other in set(ancestors([rv])) for other in model.free_RVs if other is not rv)
        ]  # fmt: skip
        self.outputs, self.priors = tuple(str(v.name) for v in variables), tuple(str(v.name) for v in top)
        priors = model.logp(vars=top, jacobian=False, sum=False)
        logp = total + model.logp(vars=model.free_RVs)
        wanted = [logp, total, *model.replace_rvs_by_values(variables), *priors]
        # Known sizes keep the shapes of all parts known, and the graph small.
        self._x = pt.tensor("x", dtype="float64", shape=(sum(sizes),))
        many = pt.tensor("x", dtype="float64", shape=(None, sum(sizes)))
        ends = np.cumsum(sizes)
        place = {
            model.rvs_to_values[rv]: _piece(self._x * self.unit, int(end), size, shape)
            for rv, end, size, shape in zip(model.free_RVs, ends, sizes, shapes, strict=True)
        }
        outputs = _without_inner_graphs(graph_replace(wanted, place, strict=False))
        # What is simplified here need not be simplified with a dimension of draws, which takes ten times as long.
        outputs = _without_inner_graphs(rewrite_graph(outputs, include=("canonicalize", "stabilize"), clone=True))
        self._logp = outputs[0]
        batched = vectorize_graph(outputs, {self._x: many})
        # What does not depend on the parameters still gets a dimension of draws in front.
        batched = [b if b.ndim > o.ndim else pt.expand_dims(b, 0) for b, o in zip(batched, outputs, strict=True)]
        self.values = _function([many], batched[:2])
        self.expand = _function([many], batched[2:])
        # A point's density depends on its own row only: the gradient of the sum holds all gradients.
        self._gradients = lambda: _function([many], with_gradients([batched[0], pt.grad(batched[0].sum(), many)]))
        self.large = len(self.values.maker.fgraph.apply_nodes) > LARGE

    @cached_property
    def gradients(self) -> Callable[[np.ndarray], list[np.ndarray]]:
        """Log densities and gradients of many points; of a large graph one by one, by compiled code."""
        if not self.large:
            with lean():
                return self._gradients()

        def one_by_one(x: np.ndarray) -> list[np.ndarray]:
            values, gradients = zip(*(self.one(point) for point in x), strict=True)
            return [np.array(values), np.array(gradients)]

        return one_by_one

    def start(self) -> np.ndarray:
        """Initial point, which may depend on the data."""
        return np.concatenate([np.ravel(np.asarray(x, dtype=float)) for x in self._start()])

    def chunk(self) -> int:
        """Points that fit into memory at a time if every one needs as much as the largest of the data."""
        largest = max((np.size(s.get_value(borrow=True)) for s in self.shared), default=1)
        return int(np.clip(CHUNK // largest, 1, 2000))

    @cached_property
    def one(self) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        import pytensor
        import pytensor.tensor as pt

        with lean():
            function = pytensor.function([self._x], [self._logp, pt.grad(self._logp, self._x)], mode=_compiling())
        jitted, containers = function.vm.jit_fn, function.input_storage[1:]

        def logp_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
            # Past PyTensor's own storage, of which there is one: chains run side by side.
            value, gradient = jitted(x, *(c.storage[0] for c in containers))
            return float(value), gradient

        return logp_and_gradient


def _piece(x: Any, end: int, size: int, shape: tuple[int, ...]) -> Any:
    """The part of the vector of all parameters that belongs to a variable."""
    if not shape:
        return x[end - 1]
    part = x[end - size : end]
    return part if len(shape) == 1 else part.reshape(shape)


def _without_inner_graphs(outputs: list[Any]) -> list[Any]:
    """Put the content of operations that are graphs themselves in their place: they would be run point by point."""
    from pytensor.compile.builders import OpFromGraph
    from pytensor.graph.replace import graph_replace
    from pytensor.graph.traversal import toposort
    from pytensor.tensor.rewriting.ofg import inline_ofg_node

    while inner := [node for node in toposort(outputs) if isinstance(node.op, OpFromGraph)]:
        content = inline_ofg_node(inner[0])
        outputs = graph_replace(outputs, dict(zip(inner[0].outputs, content, strict=True)), strict=False)
    return outputs


def _function(inputs: list[Any], outputs: list[Any]) -> Any:
    import pytensor

    function = pytensor.function(inputs, outputs, mode=_plain(), on_unused_input="ignore")
    function.trust_input = True
    return function


def _plain() -> Any:
    """Each operation by NumPy: nothing is compiled."""
    from pytensor.compile.mode import Mode

    return Mode(linker="py", optimizer="fast_compile")


def _compiling() -> Any:
    """PyTensor's numba mode, with the interpreter's lock released while a function runs."""
    from pytensor.compile.mode import NUMBA, Mode
    from pytensor.link.numba.dispatch.basic import numba_njit
    from pytensor.link.numba.linker import NumbaLinker

    class Linker(NumbaLinker):
        def jit_compile(self, fn_and_cache: Any) -> Any:
            function, key = fn_and_cache
            return numba_njit(function.py_func, final_function=True, cache=key is not None, nogil=True)

    return Mode(linker=Linker(), optimizer=NUMBA.optimizer)


@contextmanager
def lean() -> Iterator[None]:
    """Build and compile graphs without notes on where each operation was written, which multiply as graphs are rewritten.

    It also leaves out PyTensor's remark that it found no BLAS for its C compiler, which nothing here uses.
    """
    import pytensor

    with warnings.catch_warnings(), pytensor.config.change_flags(traceback__limit=0, traceback__compile_limit=0):
        warnings.filterwarnings("ignore", message="PyTensor could not link to a BLAS")
        yield


def _structure(model: pm.Model) -> tuple[Any, list[Any]]:
    """What a model's graph is apart from the values of its shared variables, and these variables in the graph's order."""
    from pytensor.compile.sharedvalue import SharedVariable
    from pytensor.graph.basic import Constant
    from pytensor.graph.traversal import toposort

    named = [*model.basic_RVs, *model.potentials, *model.deterministics]
    transforms = [_transform(model, rv) for rv in model.free_RVs]
    roots = [*named, *(graph for _, graphs in transforms for graph in graphs)]
    number: dict[Any, int] = {}
    tokens: list[Any] = []
    shared: list[Any] = []

    def of(variable: Any) -> int:
        if variable not in number:
            number[variable] = len(number)
            if isinstance(variable, Constant):
                data = np.asarray(variable.data)
                content = data.tobytes() if data.dtype != object else id(variable.data)
                tokens.append((variable.type, data.shape, content))
            elif isinstance(variable, SharedVariable):
                tokens.append(variable.type)
                if isinstance(variable.get_value(borrow=True), np.ndarray):
                    shared.append(variable)
            else:
                tokens.append((variable.type, variable.name))
        return number[variable]

    for node in toposort(roots):
        tokens.append((node.op, tuple(of(x) for x in node.inputs), tuple(o.type for o in node.outputs)))
        for output in node.outputs:
            number.setdefault(output, len(number))
    names = tuple((v.name, number.get(v)) for v in named)
    changes = tuple((kind, tuple(number[graph] for graph in graphs)) for kind, graphs in transforms)
    dims = tuple((k, tuple(v)) for k, v in sorted(model.named_vars_to_dims.items()))
    return (tuple(tokens), names, changes, dims), shared


def _transform(model: pm.Model, rv: Any) -> tuple[Any, list[Any]]:
    """What tells a variable's transform from others: its type and plain options, or what it does to the variable's value."""
    transform = model.rvs_to_transforms[rv]
    options = vars(transform) if hasattr(transform, "__dict__") else {}
    if all(isinstance(option, (bool, int, float, str, type(None))) for option in options.values()):
        return (type(transform), tuple(sorted(options.items()))), []
    value = model.rvs_to_values[rv]
    return type(transform), [
        transform.backward(value, *rv.owner.inputs),
        transform.log_jac_det(value, *rv.owner.inputs),
    ]
