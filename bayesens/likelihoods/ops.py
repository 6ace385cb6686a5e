"""Likelihoods in one pass: value and gradient by numba, wrapped as PyTensor operations that any PyMC sampler can use.

All operations return the value first and then the derivative with respect to each input, so that the gradient costs
no second pass over the data; the pullback only multiplies what the forward pass has left. Data enter as shared
variables: as constants they would be compiled into the code, anew for every table.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from bayesens.c_functions import address_of, compiled_beside, over_draws
from bayesens.ensemble.sufficient import Statistics
from bayesens.likelihoods.corrected.mixture import CorrectedRows, corrected_packed, corrected_values
from bayesens.likelihoods.corrected.pool import PooledRows, pooled_packed
from bayesens.likelihoods.mixture import mixture_packed, mixture_values, pack
from bayesens.likelihoods.multilevel.multilevel import collapsed_packed
from bayesens.threads import share_out

__all__ = [
    "Likelihood",
    "collapsed_loglik",
    "corrected_loglik",
    "log_below_zero",
    "log_normal",
    "mixture_loglik",
    "pooled_loglik",
]


class Likelihood(Op):
    """An operation whose outputs are a scalar and its derivative with respect to each of its parameters.

    A kernel takes the shape of the last parameter and all parameters end to end, and returns the value and the
    derivatives end to end. The operation's inputs are the parameters, then the data packed into one array of floats and
    one of integers. The kernel is called by its address, by tapes at once and by what PyTensor compiles through Python: part
    of a graph's own code, the compiler would optimise it anew, for ten seconds and more, with every model.
    """

    __props__ = ()
    n_parameters: int
    packed: Callable[..., Any]  # of addresses: value and derivatives
    # What every fit compiles beside the kernel.
    besides: tuple[str, ...] = ("bayesens.inference.tape.interpreter:density_addresses",)
    values: Callable[..., Any] | None = None  # (draws' parameters, data, index, out (draw, 1)): values alone, if faster

    def make_node(self, *inputs: Any) -> Apply:
        """Apply to the parameters and the packed data."""
        tensors = [pt.as_tensor_variable(x) for x in inputs]
        return Apply(self, tensors, [pt.dscalar(), *(x.type() for x in tensors[: self.n_parameters])])

    def perform(self, node: Apply, inputs: Any, output_storage: Any) -> None:
        """Compute value and derivatives."""
        parameters, (data, index) = inputs[: self.n_parameters], inputs[self.n_parameters :]
        head = np.array(parameters[-1].shape, dtype=float)
        theta = np.concatenate([head, *(np.ravel(x) for x in parameters)])
        out = self.at_many(theta[None], data, index, len(head), gradients=True)[0]
        output_storage[0][0] = np.asarray(out[0])
        edges = np.cumsum([1] + [x.size for x in parameters])
        for i, x in enumerate(parameters):
            output_storage[i + 1][0] = out[edges[i] : edges[i + 1]].reshape(x.shape)

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """All outputs depend on the parameters, and not on the data."""
        return [[i < self.n_parameters] * (self.n_parameters + 1) for i in range(len(node.inputs))]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        """Multiply the derivatives that the forward pass has left."""
        if any(not isinstance(g.type, DisconnectedType) for g in cotangents[1:]):
            raise NotImplementedError(
                "Second derivatives of this likelihood are not available; difference the gradient."
            )
        first = [cotangents[0] * outputs[i + 1] for i in range(self.n_parameters)]
        return first + [DisconnectedType()() for _ in inputs[self.n_parameters :]]

    def at_many(
        self, theta: np.ndarray, data: np.ndarray, index: np.ndarray, head: int, *, gradients: bool
    ) -> np.ndarray:
        """Values, and derivatives if wanted, for many draws of the flat parameters ``theta (draw, head + parameter)``."""
        values = self.values
        if not gradients and values is not None:
            out = np.empty((len(theta), 1))
            share_out(lambda part: values(theta[part], data, index, out[part]), len(theta))
            return out
        out = over_draws(self.address(), theta, data, index, 1 + theta.shape[1] - head)
        return out if gradients else out[:, :1]

    @classmethod
    def address(cls) -> int:
        """Address of the C function for one draw."""
        return _address(cls.packed, cls.besides)

    def at(self, *parameters: Any, data: np.ndarray, index: np.ndarray) -> Any:
        """Return the value as a tensor."""
        self.address()  # the first time ever the kernel is compiled now, and beside it what comes next
        shared = [pytensor.shared(x, borrow=True) for x in (data, index)]
        return self(*parameters, *shared)[0]


@cache
def _address(packed: Callable[..., Any], besides: tuple[str, ...]) -> int:
    with compiled_beside(packed, *besides):
        return address_of(packed)


# ---------------------------------------------------------------------------------------------------------- mixture
class MixtureLogLik(Likelihood):
    n_parameters = 5

    packed, values = staticmethod(mixture_packed), staticmethod(mixture_values)


def mixture_loglik(log_weight: Any, intercept: Any, slope: Any, log_sigma: Any, offset: Any, *, y: Any, f: Any,
                   available: Any) -> Any:  # fmt: skip
    """Log likelihood of a mixture of normal kernels around ``intercept_k + slope_k f_ik + offset_i``.

    Parameters
    ----------
    log_weight, intercept, slope, log_sigma : tensor (member)
        Weights in logarithms, up to a constant; they are renormalised over the members that a row has.
    offset : tensor (obs, 1), (obs, member) or (0, 1)
        Shift of the kernel means; an empty one stands for none.
    y : array (obs)
    f, available : array (obs, member)
        Member predictions, finite everywhere, and whether each counts.

    Returns
    -------
    tensor ()
    """
    data, index = pack(y, f, available)
    return MixtureLogLik().at(log_weight, intercept, slope, log_sigma, offset, data=data, index=index)


class CorrectedLogLik(Likelihood):
    n_parameters = 5

    packed, values = staticmethod(corrected_packed), staticmethod(corrected_values)


def corrected_loglik(
    log_weight: Any, log_sigma: Any, width: Any, nu: Any, *, rows: CorrectedRows, slope: Any = None
) -> Any:
    """Log likelihood of a mixture of kernels around corrected members.

    Parameters
    ----------
    log_weight, log_sigma : tensor (member)
        Weights in logarithms, up to a constant; they are renormalised over the members that a row has.
    width : tensor (covariate)
        Coefficients of the log widths.
    nu : tensor (1) or (0)
        Degrees of freedom of t kernels; an empty one for normal kernels.
    rows : CorrectedRows
    slope : tensor (covariate, member), optional
        Of the log weights, by the rows' covariates ``z``.

    Returns
    -------
    tensor ()
    """
    data, index = rows.packed
    slope = pt.zeros((0, rows.residual.shape[1])) if slope is None else slope
    return CorrectedLogLik().at(slope, log_weight, log_sigma, width, nu, data=data, index=index)


class PooledLogLik(Likelihood):
    n_parameters = 3

    packed = staticmethod(pooled_packed)


def pooled_loglik(log_weight: Any, width: Any, scale: Any, *, rows: PooledRows) -> Any:
    """Log likelihood of one kernel around a weighted mean of corrected members.

    Parameters
    ----------
    log_weight : tensor (member)
        Weights in logarithms, up to a constant; they are renormalised over the members that a row has.
    width : tensor (covariate)
        Coefficients of the log widths.
    scale : tensor (2) or (3)
        Logarithm of sigma, the stretch, and the degrees of freedom of a t kernel.
    rows : PooledRows

    Returns
    -------
    tensor ()
    """
    data, index = rows.packed
    return PooledLogLik().at(log_weight, width, scale, data=data, index=index)


def log_below_zero(mean: Any, sigma: Any) -> Any:
    """Log probability that a normal is below zero; PyMC's has a root of two in single precision."""
    u = -mean / sigma
    t = -u * np.sqrt(0.5)
    return pt.switch(pt.lt(u, -1.0), pt.log(0.5 * pt.erfcx(t)) - t**2, pt.log1p(-0.5 * pt.erfc(-t)))


def log_normal(y: Any, mean: Any, sigma: Any) -> Any:
    """Log density of a normal."""
    return -0.5 * ((y - mean) / sigma) ** 2 - pt.log(sigma) - 0.5 * np.log(2.0 * np.pi)


# -------------------------------------------------------------------------------------------------- collapsed levels
class CollapsedLogLik(Likelihood):
    n_parameters = 4

    packed = staticmethod(collapsed_packed)
    besides = (*Likelihood.besides, "bayesens.likelihoods.multilevel.effects:effects_address")


def collapsed_loglik(mean: Any, within: Any, site: Any, group: Any, *, data: Statistics) -> Any:
    """Log likelihood of ``z_i = mean + G_group + H_site + e_i`` with both effects integrated out.

    Parameters
    ----------
    mean : tensor (column)
    within, site, group : tensor (column, column)
        Covariances of ``e``, ``H`` and ``G``; ``site`` and ``group`` may be singular or zero.
    data : Statistics

    Returns
    -------
    tensor ()
        Minus infinity where ``within`` is not positive definite.
    """
    floats, index = data.packed()
    return CollapsedLogLik().at(mean, within, site, group, data=floats, index=index)
