"""Loops over rows and draws of :mod:`bayesens.likelihoods.corrected.row_weights.mixture`: every row has weights of its own.

Those of a row are kept for the next one where its covariates are the same: callers have such rows one after the other.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from bayesens.c_functions import BARE, kernel
from bayesens.likelihoods.corrected.loops import _below, _height, _mixture, _width
from bayesens.likelihoods.mixture import FAST, _exp

__all__ = ["mean_weights", "row_densities", "row_moments"]


@numba.njit(**BARE, fastmath=FAST)
def _shares(z, log_weight, slope, share, top, bits):  # type: ignore[no-untyped-def]
    """A row's weights under every draw, (member, draw)."""
    members, draws = log_weight.shape
    for k in range(members):
        own = share[k]
        for d in range(draws):
            own[d] = log_weight[k, d]
        for c in range(len(z)):
            by = slope[c, k]
            for d in range(draws):
                own[d] += z[c] * by[d]
        for d in range(draws):
            top[d] = own[d] if k == 0 else max(top[d], own[d])
    for k in range(members):
        for d in range(draws):
            share[k, d] -= top[d]
        _exp(share[k], bits, bits.view(np.float64))
    for d in range(draws):
        top[d] = 0.0
    for k in range(members):
        for d in range(draws):
            top[d] += share[k, d]
    for k in range(members):
        for d in range(draws):
            share[k, d] /= top[d]


@numba.njit(**BARE)
def _as_before(z, i):  # type: ignore[no-untyped-def]
    """Whether a row has the covariates of the row before."""
    same = i > 0
    for c in range(z.shape[1] if same else 0):
        same = same and z[i, c] == z[i - 1, c]
    return same


@numba.njit(**BARE, fastmath=FAST)
def _added(share, products, squares, size, least, added, whole):  # type: ignore[no-untyped-def]
    """One and what effects of new levels add to the kernels' variance, (draw); see `CorrectedMixture.added`."""
    members, draws = share.shape
    for d in range(draws):
        added[d] = 0.0
        whole[d] = 0.0
    if len(products) == 0:
        for d in range(draws):
            added[d] = 1.0
        return
    for k in range(members):
        for d in range(draws):
            added[d] -= share[k, d] * squares[k, d]
            whole[d] += share[k, d] * size[k, d]
        for j in range(members):
            for d in range(draws):
                added[d] += share[k, d] * share[j, d] * products[k, j, d]
    for d in range(draws):
        added[d] = max(1.0 + added[d] / whole[d], least)


@kernel
def mean_weights(z, log_weight, slope, products, squares, size, least, out, more):  # type: ignore[no-untyped-def]
    """Means over draws of rows' weights and of one and what new levels add.

    Parameters
    ----------
    z : float array (row, covariate)
    log_weight : float array (member, draw)
    slope : float array (covariate, member, draw)
    products : float array (member, member, draw) or (0, 0, 0)
        Of the members' new effects: covariances, one and a half times; empty where no level is new.
    squares : float array (member, draw)
        Half of their variances.
    size : float array (member, draw)
        Variances of the kernels; for t kernels what stands in their place.
    least : float
    out : float array (row, member)
    more : float array (row)
        Filled.
    """
    members, draws = log_weight.shape
    share, top, bits = np.empty((members, draws)), np.empty(draws), np.empty(draws, dtype=np.int64)
    added = np.empty(draws)
    for i in range(len(z)):
        _shares(z[i], log_weight, slope, share, top, bits)
        for k in range(members):
            out[i, k] = share[k].mean()
        _added(share, products, squares, size, least, added, top)
        more[i] = added.mean()


@kernel
def row_densities(  # type: ignore[no-untyped-def]
    target, below, x, left, covariate, z, log_weight, slope, products, squares, size, least, coefficient,
    precision, width, nu, out,
):  # fmt: skip
    """Log densities of rows under all draws, or of normal kernels their log probability below the target.

    Parameters are those of `log_densities` and `mean_weights`; ``out`` (row, draw) is filled.
    """
    members, draws = log_weight.shape
    inverse, bits = np.empty(draws), np.empty(draws, dtype=np.int64)
    variance, exponent = np.empty((members, draws)), np.empty((members, draws))
    share, widening, top = np.empty((members, draws)), np.empty((members, draws)), np.empty(draws)
    height = _height(nu, draws)
    for i in range(len(target)):
        if not _as_before(z, i):
            _shares(z[i], log_weight, slope, share, top, bits)
            _added(share, products, squares, size, least, widening[0], top)
            for k in range(members):
                widening[k] = widening[0]
                for d in range(draws):
                    share[k, d] = math.log(share[k, d]) if share[k, d] > 0.0 else -np.inf
        _width(covariate[i], width, inverse, bits)
        if below[i]:
            _below(target[i], x[i], left[i], share, coefficient, precision, widening, inverse, out[i])
        else:
            _mixture(target[i], x[i], left[i], share, coefficient, precision, widening, inverse, nu, height, variance, exponent,
                     bits, out[i])  # fmt: skip


@kernel
def row_moments(  # type: ignore[no-untyped-def]
    x, left, covariate, z, log_weight, slope, products, squares, size, least, coefficient, variance, width, out,
):  # fmt: skip
    """Means over draws: of the rows' means, of the variance within kernels, of that between them, and the means' variance.

    Parameters are those of `log_densities` and `mean_weights`, with the kernels' variances (member, draw); ``out`` (4, row) is
    filled.
    """
    members, draws = log_weight.shape
    inverse, bits, mean = np.empty(draws), np.empty(draws, dtype=np.int64), np.empty((members, draws))
    share, added, top = np.empty((members, draws)), np.empty(draws), np.empty(draws)
    for i in range(len(z)):
        if not _as_before(z, i):
            _shares(z[i], log_weight, slope, share, top, bits)
            _added(share, products, squares, size, least, added, top)
        _width(covariate[i], width, inverse, bits)
        within, between, middle, square = 0.0, 0.0, 0.0, 0.0
        for k in range(members):
            for d in range(draws):
                mean[k, d] = 0.0
            for c in range(x.shape[2]):
                for d in range(draws):
                    mean[k, d] += x[i, k, c] * coefficient[k, c, d]
            for d in range(draws):
                within += share[k, d] * variance[k, d] * (added[d] + left[i, k]) / inverse[d]
        for d in range(draws):
            first = 0.0
            for k in range(members):
                first += share[k, d] * mean[k, d]
            for k in range(members):
                between += share[k, d] * (mean[k, d] - first) ** 2
            top[d] = first
            middle += first
        middle /= draws
        for d in range(draws):
            square += (top[d] - middle) ** 2
        out[0, i], out[1, i], out[2, i], out[3, i] = middle, within / draws, between / draws, square / draws
