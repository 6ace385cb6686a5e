"""The No-U-Turn sampler of nutpie, from an optimum and in coordinates in which its curvature is the identity."""

from __future__ import annotations

import os
from functools import cache
from types import SimpleNamespace
from typing import Any

import numba
import numpy as np
import nutpie
import pyarrow
from nutpie.compile_pymc import CompiledPyMCModel
from nutpie.compiled_pyfunc import from_pyfunc

from bayesens.inference.log_density import Target

__all__ = ["nuts"]

STATISTICS = {  # our names, which are ArviZ's, and nutpie's
    "diverging": "diverging", "n_steps": "n_steps", "lp": "logp", "tree_depth": "depth", "step_size": "step_size",
    "energy": "energy",
}  # fmt: skip


def nuts(
    target: Target, center: np.ndarray, root: np.ndarray | None, *, draws: int, tune: int, chains: int,
    rng: np.random.Generator, target_accept: float, progressbar: bool,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:  # fmt: skip
    """Sample a density.

    Parameters
    ----------
    target : Target
    center : array (parameter)
    root : array (parameter, parameter) or None
        Points are ``center + root @ u``; None leaves them as they are.
    draws, tune, chains : int
    rng : numpy.random.Generator
    target_accept : float
    progressbar : bool

    Returns
    -------
    x : array (chain, draw, parameter)
    stats : dict of array (chain, draw)
    """
    scale = np.eye(len(center)) if root is None else np.ascontiguousarray(root)
    model = _python(target, center, scale) if target.tape is None else _native(target.tape, center, scale)
    sampler = nutpie.sample(model, draws=draws, tune=tune, chains=chains, seed=int(rng.integers(2**31)),
                            cores=min(chains, os.cpu_count() or 1), progress_bar=progressbar, save_warmup=False,
                            target_accept=target_accept, blocking=False, return_raw_trace=True)  # fmt: skip
    try:
        batches, statistics = sampler.wait().get_arrow_trace()
    except BaseException:  # waiting for it here, an interrupted run is no shorter run
        sampler.cancel()
        raise
    kept = [~_column(batch, "tuning") for batch in statistics]
    u = [_column(batch, "u").reshape(-1, len(center))[k] for batch, k in zip(batches, kept, strict=True)]
    stats = {
        ours: np.stack([_column(batch, theirs)[k] for batch, k in zip(statistics, kept, strict=True)])
        for ours, theirs in STATISTICS.items()
    }
    return center + np.stack(u) @ scale.T, stats


def _column(batch: Any, name: str) -> np.ndarray:
    """A column of a chain's table, draw by draw."""
    column = pyarrow.array(batch.column(name))
    return np.asarray((column.flatten() if hasattr(column, "flatten") else column).to_numpy(zero_copy_only=False))


def _native(tape: Any, center: np.ndarray, scale: np.ndarray) -> CompiledPyMCModel:
    """The density as a C function: the sampler's threads call it without the interpreter."""
    size = len(center)
    address, plan, kept = tape.plan(center, scale)

    def start(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).uniform(-2.0, 2.0, size)

    return CompiledPyMCModel(
        dims={}, compiled_logp_func=SimpleNamespace(address=address), compiled_expand_func=_copy(), initial_point_func=start,
        shared_data={"kept": kept}, shared_var_keys={}, user_data=plan, n_expanded=size,
        shape_info=(["u"], [slice(0, size)], [(size,)]), logp_func=None, expand_func=None, _n_dim=size,
        _shapes={"u": (size,)}, _coords={},
    )  # fmt: skip


@cache
def _copy() -> Any:
    pointer = "CPointer(float64)"
    return numba.cfunc(f"int64(uint64, uint64, {pointer}, {pointer}, voidptr)", cache=True)(_packed_copy)


def _packed_copy(size, expanded, x, out, plan):  # type: ignore[no-untyped-def]
    """What the sampler stores of a point: the point."""
    n = np.int64(size)
    a, b = numba.carray(x, n), numba.carray(out, n)
    for i in range(n):
        b[i] = a[i]
    return 0


def _python(target: Target, center: np.ndarray, scale: np.ndarray) -> Any:
    """The density as a Python function, which its chains take turns to call."""
    size, density = len(center), target.functions.one

    def make_density() -> Any:
        def value_and_gradient(u: np.ndarray, **_: Any) -> tuple[float, np.ndarray]:
            value, gradient = density(center + scale @ u)
            return value, scale.T @ gradient

        return value_and_gradient

    def make_expand(*_: Any) -> Any:
        return lambda u, **__: {"u": np.asarray(u)}

    return from_pyfunc(size, make_density, make_expand, [np.dtype("float64")], [(size,)], ["u"])
