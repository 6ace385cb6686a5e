"""The functions of a graph that PyTensor compiles: for densities that cannot be written out as tapes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.mode import NUMBA, Mode
from pytensor.graph.replace import graph_replace, vectorize_graph
from pytensor.graph.rewriting.utils import rewrite_graph
from pytensor.graph.traversal import toposort
from pytensor.link.numba.dispatch.basic import numba_njit
from pytensor.link.numba.linker import NumbaLinker
from pytensor.tensor.rewriting.ofg import inline_ofg_node

from bayesens.likelihoods.ops import with_gradients

__all__ = ["Compiled"]

LARGE = 250  # operations of a density that NumPy takes longer to go through than compiling it is worth


class Compiled:
    """Functions of many points by NumPy, an operation at a time for all of them; and of one point by machine code.

    Parameters
    ----------
    x : tensor (parameter)
    outputs : list of tensor
        Log density, log likelihood, and the variables.
    shared : list of shared variables
        What the graph depends on beside the parameters; their values may change.
    """

    def __init__(self, x: Any, outputs: list[Any], shared: list[Any]) -> None:
        many = pt.tensor("x", dtype="float64", shape=(None, x.type.shape[0]))
        self.x, self.shared = x, shared
        outputs = _without_inner_graphs(outputs)
        # What is simplified here need not be simplified with a dimension of draws, which takes ten times as long.
        outputs = _without_inner_graphs(rewrite_graph(outputs, include=("canonicalize", "stabilize"), clone=True))
        self._logp = outputs[0]
        batched = vectorize_graph(outputs, {x: many})
        # What does not depend on the parameters still gets a dimension of draws in front.
        batched = [b if b.ndim > o.ndim else pt.expand_dims(b, 0) for b, o in zip(batched, outputs, strict=True)]
        self.values = _function([many], batched[:2])
        self.expand = _function([many], batched[2:])
        # A point's density depends on its own row only: the gradient of the sum holds all gradients.
        self._gradients = lambda: _function([many], with_gradients([batched[0], pt.grad(batched[0].sum(), many)]))
        self.large = len(self.values.maker.fgraph.apply_nodes) > LARGE

    @property
    def size(self) -> int:
        """Numbers that one point takes if it needs as many as the largest of the data."""
        return max((int(np.size(s.get_value(borrow=True))) for s in self.shared), default=1)

    @cached_property
    def gradients(self) -> Callable[[np.ndarray], list[np.ndarray]]:
        """Log densities and gradients of many points; of a large graph one by one, by compiled code."""
        if not self.large:
            return self._gradients()

        def one_by_one(x: np.ndarray) -> list[np.ndarray]:
            values, gradients = zip(*(self.one(point) for point in x), strict=True)
            return [np.array(values), np.array(gradients)]

        return one_by_one

    @cached_property
    def one(self) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """Log density and gradient of one point; compiling it takes seconds, at the first use."""
        function = pytensor.function([self.x], [self._logp, pt.grad(self._logp, self.x)], mode=_compiling())
        jitted, containers = function.vm.jit_fn, function.input_storage[1:]

        def logp_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
            # Past PyTensor's own storage, of which there is one: chains run side by side.
            value, gradient = jitted(x, *(c.storage[0] for c in containers))
            return float(value), gradient

        return logp_and_gradient


def _without_inner_graphs(outputs: list[Any]) -> list[Any]:
    """Put the content of operations that are graphs themselves in their place: they would be run point by point."""
    while inner := [node for node in toposort(outputs) if isinstance(node.op, OpFromGraph)]:
        content = inline_ofg_node(inner[0])
        outputs = graph_replace(outputs, dict(zip(inner[0].outputs, content, strict=True)), strict=False)
    return outputs


def _function(inputs: list[Any], outputs: list[Any]) -> Any:
    # Each operation by NumPy: nothing is compiled.
    plain = Mode(linker="py", optimizer="fast_compile")
    function = pytensor.function(inputs, outputs, mode=plain, on_unused_input="ignore")
    function.trust_input = True
    return function


def _compiling() -> Mode:
    """PyTensor's numba mode, with the interpreter's lock released while a function runs."""

    class Linker(NumbaLinker):
        def jit_compile(self, fn_and_cache: Any) -> Any:
            function, key = fn_and_cache
            return numba_njit(function.py_func, final_function=True, cache=key is not None, nogil=True)

    return Mode(linker=Linker(), optimizer=NUMBA.provided_optimizer)
