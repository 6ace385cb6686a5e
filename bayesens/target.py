"""The posterior density of a PyMC model on the unconstrained space, compiled once and used by every method."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["Target", "compile_target"]


@dataclass(frozen=True)
class Target:
    """A compiled posterior density.

    Attributes
    ----------
    model : pymc.Model
    start : array (parameter)
        PyMC's initial point, unconstrained.
    names : tuple of str
        Variable of each unconstrained parameter.
    logp_and_gradient : callable
        Maps an array (parameter) to the log density and its gradient.
    outputs : tuple of str
        Names of the variables on their natural scale.
    prior_outputs : tuple of str
        Names of the top-level priors.
    """

    model: pm.Model
    start: np.ndarray
    names: tuple[str, ...]
    logp_and_gradient: Any
    outputs: tuple[str, ...]
    prior_outputs: tuple[str, ...]
    _expand: Any

    def logp(self, x: np.ndarray) -> np.ndarray:
        """Log density of each of many points, (point)."""
        return np.array([self.logp_and_gradient(np.ascontiguousarray(row))[0] for row in x])

    def expand(self, x: np.ndarray) -> tuple[xr.Dataset, xr.Dataset, np.ndarray]:
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
        log_joint : array (chain, draw)
            Log likelihood of everything that is observed.
        """
        chains, draws, _ = x.shape
        columns = [
            [np.array(value) for value in self._expand(np.ascontiguousarray(row))] for row in x.reshape(-1, x.shape[-1])
        ]
        arrays = [np.stack(values).reshape(chains, draws, *values[0].shape) for values in zip(*columns, strict=True)]
        split = len(self.outputs)
        dims = self.model.named_vars_to_dims
        variables = {}
        for name, array in zip(self.outputs, arrays[:split], strict=True):
            own = tuple(str(d) for d in dims.get(name) or ())
            if len(own) == array.ndim - 2:
                variables[name] = (("chain", "draw", *own), array)
        coords: dict[str, Any] = {
            str(d): _labels(self.model.coords[d]) for d in {d for _, (dd, _) in variables.items() for d in dd[2:]}
        }
        coords |= {"chain": np.arange(chains), "draw": np.arange(draws)}
        prior = {
            name: (("chain", "draw", *(f"{name}_dim_{i}" for i in range(array.ndim - 2))), array)
            for name, array in zip(self.prior_outputs, arrays[split:-1], strict=True)
        }
        return (
            xr.Dataset(variables, coords=coords),
            xr.Dataset(prior, coords={"chain": coords["chain"], "draw": coords["draw"]}),
            arrays[-1],
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
    """
    with warnings.catch_warnings():
        # PyTensor looks for a BLAS for its C compiler, which nothing here uses.
        warnings.filterwarnings("ignore", message="PyTensor could not link to a BLAS")
        return _compile(model)


def _compile(model: pm.Model) -> Target:
    import pymc as pm
    import pytensor.tensor as pt
    from pymc.blocking import DictToArrayBijection
    from pymc.pytensorf import join_nonshared_inputs
    from pytensor.graph.traversal import ancestors

    point = model.initial_point(random_seed=0)
    start = DictToArrayBijection.map(point)
    function = model.logp_dlogp_function(ravel_inputs=True, mode="NUMBA")._pytensor_function
    function.trust_input = True
    # A compiled function writes into its own storage: one call at a time, and the caller gets a copy.
    lock = threading.Lock()

    def logp_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        with lock:
            value, gradient = function(x)
            return float(value), np.array(gradient)

    top = [
        rv for rv in model.free_RVs
        if not any(other in set(ancestors([rv])) for other in model.free_RVs if other is not rv)
    ]  # fmt: skip
    priors = model.logp(vars=top, jacobian=False, sum=False)
    variables = [*model.free_RVs, *model.deterministics]
    values = model.replace_rvs_by_values(variables)
    observed = [*model.potentials, *model.observed_RVs]
    joint = pt.as_tensor(0.0)
    for variable in observed:
        joint = joint + model.logp(vars=[variable]) if variable in model.observed_RVs else joint + pt.sum(variable)
    [joint] = model.replace_rvs_by_values([joint])
    outputs, x = join_nonshared_inputs(point, [*values, *priors, joint], model.value_vars)
    expand = pm.compile([x], outputs, on_unused_input="ignore", mode="NUMBA")
    expand.trust_input = True
    names = tuple(
        str(model.values_to_rvs[v].name) for v in model.value_vars for _ in range(int(np.size(point[v.name])))
    )
    return Target(model, np.asarray(start.data, dtype=float), names, logp_and_gradient, tuple(str(v.name) for v in variables),
                  tuple(str(v.name) for v in top), expand)  # fmt: skip
