"""The posterior density of a PyMC model on the unconstrained space, prepared once and used by every method.

The model's graph is written out as a tape for an interpreter in machine code, which takes milliseconds; a graph with an
operation that tapes do not know is compiled by PyTensor, which takes up to minutes. Graphs are kept for the next model of the
same structure: data, centre and scales are shared variables, so that a fit of another table only puts new values into them.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytensor
import pytensor.tensor as pt
import xarray as xr
from pymc.initial_point import make_initial_point_expression
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors, toposort

from bayesens.inference.compiled import Compiled, lean
from bayesens.inference.tape.tape import Tape
from bayesens.inference.tape.trace import Untraceable, trace
from bayesens.likelihoods.parametrisation import FactorCoordinates

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["Target", "compile_target"]

KEPT = 4  # graphs
CHUNK = 20_000_000  # numbers that the evaluation of many points may hold by rough count


class Functions(Protocol):
    """The ways to evaluate a density; points stand in rows."""

    @property
    def size(self) -> int:
        """Numbers that one point takes, by rough count."""

    def values(self, x: np.ndarray) -> list[np.ndarray]:
        """Log density and log likelihood (point)."""

    def gradients(self, x: np.ndarray) -> list[np.ndarray]:
        """Log density (point) and gradient (point, parameter)."""

    def expand(self, x: np.ndarray) -> list[np.ndarray]:
        """Variables and priors, each with the points in front, or one for all of them."""

    def one(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Log density and gradient of a single point, from any thread."""


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
    functions: Functions
    _graph: _Graph

    @property
    def tape(self) -> Tape | None:
        """The density's tape, or None where PyTensor has compiled it."""
        return self.functions.density if isinstance(self.functions, _Taped) else None

    def logp_and_gradient(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log density (point) and gradient (point, parameter) of each of many points."""
        return tuple(self._chunks(self.functions.gradients, x))  # type: ignore[return-value]

    def logp(self, x: np.ndarray) -> np.ndarray:
        """Log density of each of many points, (point)."""
        return self.logp_and_loglik(x)[0]

    def logp_and_loglik(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log density and log likelihood of each of many points, (point)."""
        logp, loglik = self._chunks(self.functions.values, x)
        return logp, loglik

    def _chunks(self, function: Callable[[np.ndarray], list[np.ndarray]], x: np.ndarray) -> list[np.ndarray]:
        """Apply a function to a part of the points at a time."""
        step = int(np.clip(CHUNK // self.functions.size, 1, 2000))
        parts = [
            [np.broadcast_to(a, (len(block), *a.shape[1:])) for a in function(np.ascontiguousarray(block))]
            for block in (x[i : i + step] for i in range(0, len(x), step))
        ]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def named(self, x: np.ndarray) -> dict[str, list[float]]:
        """The parts of one point in the units of the data, by the names of their variables."""
        parts = np.split(x * self.unit, np.cumsum(self._graph.sizes)[:-1])
        return {str(rv.name): part.tolist() for rv, part in zip(self.model.free_RVs, parts, strict=True)}

    def begin(self, named: Mapping[str, Sequence[float]]) -> np.ndarray:
        """A point from the parts of another density's; parts that lack or have another size are those of the start."""
        own = self.named(self.start)
        parts = [named[name] if len(named.get(name, ())) == len(part) else part for name, part in own.items()]
        return np.concatenate([np.asarray(part, dtype=float) for part in parts]) / self.unit

    def unconstrained(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """PyMC's unconstrained parameters (point, parameter), and the log determinant of their derivative by ``x`` in units.

        They are ``x * unit``, but for pairs of a common factor and the rest of a correlation, which have coordinates of
        their own: there the log density is PyMC's plus that determinant.
        """
        values, jacobian = trace(self._graph.point, self._graph.x).values(x)
        return values, jacobian

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
        arrays = [
            a.reshape(chains, draws, *a.shape[1:])
            for a in self._chunks(self.functions.expand, x.reshape(-1, x.shape[-1]))
        ]
        graph = self._graph
        split = len(graph.variables)
        dims = self.model.named_vars_to_dims
        variables = {}
        for name, array in zip(graph.variables, arrays[:split], strict=True):
            own = tuple(str(d) for d in dims.get(name) or ())
            if len(own) == array.ndim - 2:
                variables[name] = (("chain", "draw", *own), array)
        coords: dict[str, Any] = {
            str(d): _labels(self.model.coords[d]) for d in {d for _, (dd, _) in variables.items() for d in dd[2:]}
        }
        coords |= {"chain": np.arange(chains), "draw": np.arange(draws)}
        prior = {
            name: (("chain", "draw", *(f"{name}_dim_{i}" for i in range(array.ndim - 2))), array)
            for name, array in zip(graph.priors, arrays[split:], strict=True)
        }
        return (
            xr.Dataset(variables, coords=coords),
            xr.Dataset(prior, coords={"chain": coords["chain"], "draw": coords["draw"]}),
        )


def _labels(values: Any) -> np.ndarray:
    return np.array([str(v) for v in values])


def compile_target(model: pm.Model, *, likelihood_power: float = 1.0, prior_power: float = 1.0) -> Target:
    """Prepare the density of a model, its gradient, and the way back to the natural scale.

    Parameters
    ----------
    model : pymc.Model
        All of its free variables are continuous.
    likelihood_power, prior_power : float
        Powers that the likelihood and the top-level priors are raised to; priors given other parameters stay as they are.

    Returns
    -------
    Target
        While it lives, its graph is its own; afterwards another model of the same structure may have it.
    """
    structure, shared = _structure(model)
    scaled = prior_power != 1.0  # a power of one would turn a prior density of zero into NaN
    structure = structure, scaled
    graph = _POOL.take(structure)
    if graph is None:
        with lean():
            graph = _Graph(model, shared, scaled)
    else:
        for old, new in zip(graph.shared, shared, strict=True):
            old.set_value(new.get_value(borrow=True), borrow=True)
    unit = np.repeat([_unit(model, rv) for rv in model.free_RVs], graph.sizes)
    graph.unit.set_value(unit)
    graph.powers.set_value(np.array([likelihood_power, prior_power]))
    target = Target(model, graph.start() / unit, unit, graph.functions(), graph)
    weakref.finalize(target, _POOL.put, structure, graph).atexit = False
    return target


def _unit(model: pm.Model, rv: Any) -> float:
    """Unit of a variable that is not transformed; a transformed one is free of units."""
    return 1.0 if model.rvs_to_transforms[rv] is not None else float(getattr(rv.tag, "unit", 1.0))


class _Pool:
    """Graphs that nobody uses, by structure; the oldest go first."""

    def __init__(self) -> None:
        self.kept: OrderedDict[Any, _Graph] = OrderedDict()
        self.unlock()

    def unlock(self) -> None:
        """Make a new lock; one that this thread may hold already, as the collector gives graphs back at any moment."""
        self.lock = threading.RLock()

    def take(self, structure: Any) -> _Graph | None:
        with self.lock:
            return self.kept.pop(structure, None)

    def put(self, structure: Any, graph: _Graph) -> None:
        with self.lock:
            self.kept[structure] = graph
            while len(self.kept) > KEPT:
                self.kept.popitem(last=False)


_POOL = _Pool()
# A lock that another thread holds at a fork is never released in the process that is forked off.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.unlock)


class _Graph:
    """The graph of one structure as a function of one vector of parameters, for one user at a time."""

    def __init__(self, model: pm.Model, shared: list[Any], scaled: bool) -> None:
        self.model, self.shared = model, shared
        self._start = make_initial_point_expression(
            free_rvs=model.free_RVs, rvs_to_transforms=model.rvs_to_transforms,
            initval_strategies=model.rvs_to_initial_values, return_transformed=True,
        )  # fmt: skip
        number = {model.rvs_to_values[rv]: i for i, rv in enumerate(model.free_RVs)}
        for coordinates, common, rest in _factors(model):
            i, j = number[common], number[rest]
            self._start[i], self._start[j] = coordinates.forward(self._start[i], self._start[j])
        self._started = self._initial()
        shapes = [np.shape(value) for value in self._started]
        sizes = [int(np.prod(shape)) for shape in shapes]
        self.sizes, self.unit = sizes, pytensor.shared(np.ones(sum(sizes)), shape=(sum(sizes),))
        self.powers = pytensor.shared(np.ones(2), shape=(2,))  # of the likelihood, and of the top-level priors
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
        self.variables, self.priors = tuple(str(v.name) for v in variables), tuple(str(v.name) for v in top)
        priors = model.logp(vars=top, jacobian=False, sum=False)
        logp = self.powers[0] * total + model.logp(vars=model.free_RVs)
        for prior in priors if scaled else []:  # the change of variables keeps its power of one
            logp = logp + (self.powers[1] - 1.0) * prior.sum()
        wanted = [logp, total, *model.replace_rvs_by_values(variables), *priors]
        # Known sizes keep the shapes of all parts known, and the graph small.
        self.x = pt.tensor("x", dtype="float64", shape=(sum(sizes),))
        place = {
            model.rvs_to_values[rv]: _piece(self.x * self.unit, int(end), size, shape)
            for rv, end, size, shape in zip(model.free_RVs, np.cumsum(sizes), sizes, shapes, strict=True)
        }
        jacobian = pt.zeros(())
        for coordinates, common, rest in _factors(model):
            place[common], place[rest], own = coordinates.backward(place[common], place[rest])
            jacobian = jacobian + own
        wanted[0] = wanted[0] + jacobian
        self.outputs = graph_replace(wanted, place, strict=False)
        self.point = [pt.concatenate([place[model.rvs_to_values[rv]].ravel() for rv in model.free_RVs]), jacobian]
        self.compiled: Compiled | None = None

    def start(self) -> np.ndarray:
        """Initial point, which may depend on the data."""
        values, self._started = self._started or self._initial(), []  # the first time it is known already
        return np.concatenate([np.ravel(np.asarray(x, dtype=float)) for x in values])

    def _initial(self) -> list[np.ndarray]:
        nothing = pt.tensor("x", dtype="float64", shape=(0,))
        return [value[0] for value in trace(self._start, nothing).values(np.zeros((1, 0)))]

    def functions(self) -> Functions:
        """The functions for the present values of the shared variables."""
        if self.compiled is None:
            try:
                return _Taped(trace(self.outputs[:2], self.x), trace(self.outputs[2:], self.x))
            except Untraceable:
                self.compiled = Compiled(self.x, self.outputs)
        return self.compiled


class _Taped:
    """The functions of a graph that could be written out as tapes: of the density, and of the variables."""

    def __init__(self, density: Tape, variables: Tape) -> None:
        self.density, self.variables = density, variables
        self.values, self.gradients, self.expand = density.values, density.gradients, variables.values
        self.size = max(len(density.template), len(variables.template))

    @cached_property
    def one(self) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        return self.density.function()


def _factors(model: pm.Model) -> Iterator[tuple[FactorCoordinates, Any, Any]]:
    """Coordinates of each pair of a common factor and the rest of a correlation, and the pair's values."""
    transform = model.rvs_to_transforms.get
    for common in model.free_RVs:
        rest = getattr(common.tag, "rest", None)
        if rest is not None and transform(common) is not None and transform(rest) is not None:
            inputs = common.owner.inputs, rest.owner.inputs
            coordinates = FactorCoordinates(transform(common), transform(rest), *inputs)
            yield coordinates, model.rvs_to_values[common], model.rvs_to_values[rest]


def _piece(x: Any, end: int, size: int, shape: tuple[int, ...]) -> Any:
    """The part of the vector of all parameters that belongs to a variable."""
    if not shape:
        return x[end - 1]
    part = x[end - size : end]
    return part if len(shape) == 1 else part.reshape(shape)


def _structure(model: pm.Model) -> tuple[Any, list[Any]]:
    """What a model's graph is apart from the values of its shared variables, and these variables in the graph's order."""
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
    for value in model.rvs_to_initial_values.values():  # from the data, where they are shared variables
        if isinstance(value, SharedVariable):
            of(value)
    names = tuple((v.name, number.get(v)) for v in named)
    changes = tuple((kind, tuple(number[graph] for graph in graphs)) for kind, graphs in transforms)
    dims = tuple((k, tuple(v)) for k, v in sorted(model.named_vars_to_dims.items()))
    # Lengths of dimensions are values of shared variables: graphs of other lengths are written alike and have other sizes.
    lengths = tuple(len(model.coords[d]) for rv in model.free_RVs for d in model.named_vars_to_dims.get(rv.name) or ())
    pairs = tuple(getattr(rv.tag, "rest", None) is not None for rv in model.free_RVs)
    return (tuple(tokens), names, changes, dims, lengths, pairs), shared


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
