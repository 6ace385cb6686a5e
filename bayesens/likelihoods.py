"""Likelihoods in one pass: value and gradient by numba, wrapped as PyTensor operations that any PyMC sampler can use.

Both operations return the value first and then the derivative with respect to each input, so that the gradient costs
no second pass over the data; the pullback only multiplies what the forward pass has left. Data enter as shared
variables: as constants they would be compiled into the code, anew for every table.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytensor
import pytensor.tensor as pt
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key

from bayesens.multilevel import LOG_2PI, collapsed_flat, collapsed_packed
from bayesens.sufficient import Statistics

__all__ = ["collapsed_loglik", "mixture_loglik"]

# PyTensor caches what calls the kernels by the operation's name alone; the version makes an edit of this file a new name.
_VERSION = int.from_bytes(sha256(Path(__file__).read_bytes()).digest()[:6])


@intrinsic
def _call_at(typingctx, address, parameters, data, index, out):  # type: ignore[no-untyped-def]
    """Call the C function ``void f(double*, double*, int64*, double*)`` at an address."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        pointer = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [pointer] * 4)
        callee = builder.inttoptr(arguments[0], function.as_pointer())
        builder.call(callee, [builder.inttoptr(a, pointer) for a in arguments[1:]])
        return context.get_dummy_value()

    return types.void(types.int64, *[types.uintp] * 4), codegen


class _ValueAndGradient(Op):
    """An operation whose outputs are a scalar and its derivative with respect to each of its parameters.

    A kernel takes the shape of the last parameter and all parameters end to end, and returns the value and the
    derivatives end to end. The operation's inputs are the parameters, then the data packed into one array of floats and
    one of integers, then the address of the compiled kernel. Calling by address keeps the kernel out of the graph's own
    code, which the compiler would otherwise optimise anew, for ten seconds and more, with every model.
    """

    __props__ = ()
    n_parameters: int

    def make_node(self, *inputs: Any) -> Apply:
        tensors = [pt.as_tensor_variable(x) for x in inputs]
        return Apply(self, tensors, [pt.dscalar(), *(x.type() for x in tensors[: self.n_parameters])])

    def perform(self, node: Apply, inputs: Any, output_storage: Any) -> None:
        parameters, (data, index, _) = inputs[: self.n_parameters], inputs[self.n_parameters :]
        head = np.array(parameters[-1].shape, dtype=float)
        theta = np.concatenate([head, *(np.ravel(x) for x in parameters)])
        out = np.empty(1 + len(theta) - len(head))
        type(self).kernel()(theta, data, index, out)
        output_storage[0][0] = np.asarray(out[0])
        edges = np.cumsum([1] + [x.size for x in parameters])
        for i, x in enumerate(parameters):
            output_storage[i + 1][0] = out[edges[i] : edges[i + 1]].reshape(x.shape)

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[i < self.n_parameters] * (self.n_parameters + 1) for i in range(len(node.inputs))]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        if any(not isinstance(g.type, DisconnectedType) for g in cotangents[1:]):
            raise NotImplementedError(
                "Second derivatives of this likelihood are not available; difference the gradient."
            )
        first = [cotangents[0] * outputs[i + 1] for i in range(self.n_parameters)]
        return first + [DisconnectedType()() for _ in inputs[self.n_parameters :]]

    @staticmethod
    def kernel() -> Any:
        """Return the packed kernel as a function of arrays."""
        raise NotImplementedError

    def at(self, *parameters: Any, data: np.ndarray, index: np.ndarray) -> Any:
        """Return the value as a tensor."""
        address = np.array([_address(type(self).__name__)], dtype=np.int64)
        shared = [pytensor.shared(x, borrow=True) for x in (data, index, address)]
        return self(*parameters, *shared)[0]


@cache
def _address(name: str) -> int:
    """Address of a kernel, compiled for C at its first use and cached on disk."""
    packed = {"MixtureLogLik": _mixture_packed, "CollapsedLogLik": collapsed_packed}[name]
    signature = "void(CPointer(float64), CPointer(float64), CPointer(int64), CPointer(float64))"
    function = numba.cfunc(signature, cache=True)(packed)
    _KEEP.append(function)
    return int(function.address)


_KEEP: list[Any] = []  # compiled functions whose addresses are in use


# ---------------------------------------------------------------------------------------------------------- mixture
@numba.njit(cache=True, nogil=True)
def _mixture(log_weight, intercept, slope, log_sigma, offset, y, f, available):  # type: ignore[no-untyped-def]
    n, k = f.shape
    rows, columns = offset.shape
    d_log_weight, d_intercept = np.zeros(k), np.zeros(k)
    d_slope, d_log_sigma = np.zeros(k), np.zeros(k)
    d_offset = np.zeros((rows, columns))
    term, standardised = np.empty(k), np.empty(k)
    inverse = np.exp(-log_sigma)
    weight = np.exp(log_weight - log_weight.max())
    total = 0.0
    for i in range(n):
        top = -np.inf
        present = 0.0
        for j in range(k):
            if not available[i, j]:
                continue
            present += weight[j]
            mean = intercept[j] + slope[j] * f[i, j]
            if rows > 0:
                mean += offset[i, j if columns > 1 else 0]
            standardised[j] = (y[i] - mean) * inverse[j]
            term[j] = log_weight[j] - log_sigma[j] - 0.5 * standardised[j] ** 2
            top = max(top, term[j])
        if present == 0.0 or not np.isfinite(top):
            return -np.inf, d_log_weight * 0, d_intercept * 0, d_slope * 0, d_log_sigma * 0, d_offset * 0
        mass = 0.0
        for j in range(k):
            if available[i, j]:
                term[j] = np.exp(term[j] - top)
                mass += term[j]
        total += top + np.log(mass) - np.log(present) - log_weight.max()
        for j in range(k):
            if not available[i, j]:
                continue
            share = term[j] / mass
            step = share * standardised[j] * inverse[j]
            d_log_weight[j] += share - weight[j] / present
            d_intercept[j] += step
            d_slope[j] += step * f[i, j]
            d_log_sigma[j] += share * (standardised[j] ** 2 - 1.0)
            if rows > 0:
                d_offset[i, j if columns > 1 else 0] += step
    return total - 0.5 * n * LOG_2PI, d_log_weight, d_intercept, d_slope, d_log_sigma, d_offset


@numba.njit(cache=True, nogil=True)
def _mixture_flat(theta, data, index, out):  # type: ignore[no-untyped-def]
    n, k, rows, columns = index[0], index[1], int(theta[0]), int(theta[1])
    y, f = data[:n], data[n : n + n * k].reshape((n, k))
    available = index[2 : 2 + n * k].reshape((n, k))
    x = theta[2:]
    offset = x[4 * k :].reshape((rows, columns))
    value, a, b, c, d, e = _mixture(x[:k], x[k : 2 * k], x[2 * k : 3 * k], x[3 * k : 4 * k], offset, y, f, available)
    out[0] = value
    for j in range(k):
        out[1 + j], out[1 + k + j], out[1 + 2 * k + j], out[1 + 3 * k + j] = a[j], b[j], c[j], d[j]
    for i in range(rows):
        for j in range(columns):
            out[1 + 4 * k + i * columns + j] = e[i, j]


def _mixture_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    n, k = index[0], index[1]
    size = 4 * k + int(theta[0]) * int(theta[1])
    _mixture_flat(
        numba.carray(theta, 2 + size),
        numba.carray(data, n + n * k),
        numba.carray(index, 2 + n * k),
        numba.carray(out, 1 + size),
    )


class MixtureLogLik(_ValueAndGradient):
    n_parameters = 5

    @staticmethod
    def kernel() -> Any:
        return _mixture_flat


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
    index = np.concatenate([np.shape(f), np.ravel(available)]).astype(np.int64)
    data = np.concatenate([np.ravel(y), np.ravel(f)]).astype(float)
    return MixtureLogLik().at(log_weight, intercept, slope, log_sigma, offset, data=data, index=index)


# -------------------------------------------------------------------------------------------------- collapsed levels
class CollapsedLogLik(_ValueAndGradient):
    n_parameters = 4

    @staticmethod
    def kernel() -> Any:
        return collapsed_flat


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
    head = [data.pattern.shape[1], len(data.pattern), len(data.n), len(data.site_group), data.n_groups]
    index = np.concatenate([head, np.ravel(data.pattern), data.cell_pattern, data.cell_site, data.site_group])
    floats = np.concatenate([np.ravel(data.scatter), data.n, np.ravel(data.mean)]).astype(float)
    return CollapsedLogLik().at(mean, within, site, group, data=floats, index=index.astype(np.int64))


@register_funcify_default_op_cache_key(MixtureLogLik)
def _funcify_mixture(op: Any, node: Any, **kwargs: Any) -> Any:
    @numba_njit
    def mixture(a, b, c, d, e, data, index, address):  # type: ignore[no-untyped-def]
        k = index[1]
        if not (len(a) == len(b) == len(c) == len(d) == k) or (
            e.shape[0] > 0 and (e.shape[0] != index[0] or e.shape[1] not in (1, k))
        ):
            raise ValueError("The parameters of the mixture do not have the shapes of its data.")
        theta = np.empty(2 + 4 * k + e.size)
        theta[0], theta[1] = e.shape[0], e.shape[1]
        for j in range(k):
            theta[2 + j], theta[2 + k + j], theta[2 + 2 * k + j], theta[2 + 3 * k + j] = a[j], b[j], c[j], d[j]
        theta[2 + 4 * k :] = np.ascontiguousarray(e).reshape(-1)
        out = np.empty(len(theta) - 1)
        _call_at(address[0], theta.ctypes.data, data.ctypes.data, index.ctypes.data, out.ctypes.data)
        if theta.size == 0:  # a use after the call: numba frees an array after the last one, address or no address
            out[0] = 0.0
        g = out[1 : 1 + 4 * k].copy()
        return (
            np.asarray(out[0]), g[:k].copy(), g[k : 2 * k].copy(), g[2 * k : 3 * k].copy(), g[3 * k :].copy(),
            out[1 + 4 * k :].copy().reshape(e.shape),
        )  # fmt: skip

    return mixture, _VERSION


@register_funcify_default_op_cache_key(CollapsedLogLik)
def _funcify_collapsed(op: Any, node: Any, **kwargs: Any) -> Any:
    @numba_njit
    def collapsed(m, w, s, g, data, index, address):  # type: ignore[no-untyped-def]
        p = index[0]
        square = p * p
        if len(m) != p or w.shape != (p, p) or s.shape != (p, p) or g.shape != (p, p):
            raise ValueError("The parameters of the collapsed likelihood do not have the shapes of its statistics.")
        theta = np.empty(2 + p + 3 * square)
        theta[0] = theta[1] = p
        for i in range(p):
            theta[2 + i] = m[i]
            for j in range(p):
                at = 2 + p + i * p + j
                theta[at], theta[at + square], theta[at + 2 * square] = w[i, j], s[i, j], g[i, j]
        out = np.empty(len(theta) - 1)
        _call_at(address[0], theta.ctypes.data, data.ctypes.data, index.ctypes.data, out.ctypes.data)
        if theta.size == 0:  # a use after the call: numba frees an array after the last one, address or no address
            out[0] = 0.0
        gm = out[1 : 1 + p].copy()
        gw, gs, gg = np.empty((p, p)), np.empty((p, p)), np.empty((p, p))
        for i in range(p):
            for j in range(p):
                at = 1 + p + i * p + j
                gw[i, j], gs[i, j], gg[i, j] = out[at], out[at + square], out[at + 2 * square]
        return np.asarray(out[0]), gm, gw, gs, gg

    return collapsed, _VERSION
