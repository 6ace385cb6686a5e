"""Loops over rows and draws of :mod:`bayesens.likelihoods.corrected.predictive`, compiled at first use."""

from __future__ import annotations

import math

import numba
import numpy as np

from bayesens.c_functions import INNER, kernel
from bayesens.distributions.special import log_ndtr, log_t_constant
from bayesens.likelihoods.mixture import FAST, _exp

__all__ = ["log_densities", "mean_width"]

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
STEEP = 600.0


@numba.njit(nogil=True, fastmath=FAST)
def _width(x, width, out, bits):  # type: ignore[no-untyped-def]
    """Exp of minus twice a row's log width under every draw."""
    for d in range(len(out)):
        out[d] = 0.0
    for p in range(len(x)):
        for d in range(len(out)):
            out[d] += x[p] * width[p, d]
    for d in range(len(out)):
        out[d] = min(max(-2.0 * out[d], -STEEP), STEEP)
    _exp(out, bits, bits.view(np.float64))


@numba.njit(nogil=True, fastmath=FAST)
def _exponents(target, x, coefficient, precision, widening, left, inverse, nu, variance, exponent):  # type: ignore[no-untyped-def]
    """One over the variances, and exponents, of one component under every draw."""
    for d in range(len(inverse)):
        exponent[d] = target
    for c in range(len(x)):
        for d in range(len(inverse)):
            exponent[d] -= x[c] * coefficient[c, d]
    for d in range(len(inverse)):
        variance[d] = precision[d] * inverse[d] / (widening[d] + left)
        exponent[d] = exponent[d] * exponent[d] * variance[d]
    if len(nu):
        for d in range(len(inverse)):
            exponent[d] = -0.5 * (nu[d] + 1.0) * np.log1p(exponent[d] / nu[d])
    else:
        for d in range(len(inverse)):
            exponent[d] *= -0.5


@INNER
def _below(target, x, left, log_weight, coefficient, precision, widening, inverse, out):  # type: ignore[no-untyped-def]
    """Log probability of values below the target."""
    members = len(log_weight)
    term = np.empty(members)
    for d in range(len(out)):
        top = -np.inf
        for k in range(members):
            apart = target
            for c in range(x.shape[1]):
                apart -= x[k, c] * coefficient[k, c, d]
            scale = math.sqrt(precision[k, d] * inverse[d] / (widening[k, d] + left[k]))
            term[k] = log_weight[k, d] + log_ndtr(apart * scale)
            top = max(top, term[k])
        mass = 0.0
        for k in range(members):
            mass += math.exp(term[k] - top)
        out[d] = top + math.log(mass) if top > -np.inf else top


@INNER
def _mixture(  # type: ignore[no-untyped-def]
    target, x, left, log_weight, coefficient, precision, widening, inverse, nu, height, variance, exponent, bits, top
):
    """Log densities of one row under all draws, into ``top``."""
    members, draws = log_weight.shape
    for d in range(draws):
        top[d] = -np.inf
    for k in range(members):
        _exponents(
            target, x[k], coefficient[k], precision[k], widening[k], left[k], inverse, nu, variance[k], exponent[k]
        )
        for d in range(draws):
            exponent[k, d] += log_weight[k, d]
            top[d] = max(top[d], exponent[k, d])
    if members == 1:
        for d in range(draws):
            top[d] += 0.5 * math.log(variance[0, d]) + height[d]
        return
    for k in range(members):
        for d in range(draws):
            exponent[k, d] = exponent[k, d] - top[d] if top[d] > -np.inf else 0.0
        _exp(exponent[k], bits, bits.view(np.float64))
    for d in range(draws):
        mass = 0.0
        for k in range(members):
            mass += exponent[k, d] * math.sqrt(variance[k, d]) if log_weight[k, d] > -np.inf else 0.0
        top[d] += math.log(mass) + height[d]


@INNER
def _height(nu, draws):  # type: ignore[no-untyped-def]
    """Logarithms of a kernel's height at its middle, for a scale of one."""
    height = np.full(draws, -HALF_LOG_2PI)
    for d in range(len(nu)):
        height[d] += log_t_constant(nu[d])
    return height


@kernel
def log_densities(target, below, x, left, covariate, log_weight, coefficient, precision, widening, width, nu, out):  # type: ignore[no-untyped-def]
    """Log densities of rows under all draws, or their log probability below the target.

    Parameters
    ----------
    target : float array (row)
    below : bool array (row)
    x : float array (row, member, column)
    left : float array (row, member)
    covariate : float array (row, covariate)
    log_weight, precision, widening : float array (member, draw)
    coefficient : float array (member, column, draw)
    width : float array (covariate, draw)
    nu : float array (draw) or (0)
        Degrees of freedom of t kernels; these have no probability below a target here.
    out : float array (row, draw)
        Filled.
    """
    members, draws = log_weight.shape
    inverse, bits = np.empty(draws), np.empty(draws, dtype=np.int64)
    variance, exponent = np.empty((members, draws)), np.empty((members, draws))
    height = _height(nu, draws)
    for i in range(len(target)):
        _width(covariate[i], width, inverse, bits)
        if below[i]:
            _below(target[i], x[i], left[i], log_weight, coefficient, precision, widening, inverse, out[i])
            continue
        _mixture(target[i], x[i], left[i], log_weight, coefficient, precision, widening, inverse, nu, height, variance, exponent,
                 bits, out[i])  # fmt: skip


@kernel
def mean_width(x, left, width, constant, slope, out):  # type: ignore[no-untyped-def]
    """Mean over draws of ``exp(2 x' width) (constant + left' slope)``.

    Parameters
    ----------
    x : float array (row, covariate)
    left : float array (row, member)
    width : float array (covariate, draw)
    constant : float array (draw)
    slope : float array (member, draw)
    out : float array (row)
        Filled.
    """
    draws = len(constant)
    inverse, bits = np.empty(draws), np.empty(draws, dtype=np.int64)
    for i in range(len(x)):
        _width(x[i], width, inverse, bits)
        total = 0.0
        for d in range(draws):
            each = constant[d]
            for k in range(len(slope)):
                each += left[i, k] * slope[k, d]
            total += each / inverse[d]
        out[i] = total / draws
