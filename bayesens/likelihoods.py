"""Likelihoods in one pass: value and gradient by numba, wrapped as PyTensor operations that any PyMC sampler can use.

Both operations return the value first and then the derivative with respect to each input, so that the gradient costs
no second pass over the data; the pullback only multiplies what the forward pass has left. Data enter as shared
variables: as constants they would be compiled into the code, anew for every table.

The collapsed likelihood integrates the group and site effects out of a multilevel Gaussian exactly. With the rows of a
site summed into information form, both levels are the same step: for information ``(L, h)`` about an effect with prior
covariance ``B`` and a root ``L = R R'``, ``h = R q``, the marginal information is ``R C^-1 R'`` and ``R C^-1 q`` with
``C = I + R' B R``. Nothing is inverted that may be singular: a member that a site never has leaves a zero row in ``R``,
and an effect of zero variance leaves ``C = I``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key

__all__ = ["Statistics", "collapsed_loglik", "effect_draws", "mixture_loglik", "statistics"]

LOG_2PI = float(np.log(2.0 * np.pi))


class _ValueAndGradient(Op):
    """An operation whose outputs are a scalar and its derivative with respect to each of the first inputs."""

    __props__ = ()
    n_parameters: int
    kernel: Any

    def make_node(self, *inputs: Any) -> Apply:
        tensors = [pt.as_tensor_variable(x) for x in inputs]
        return Apply(self, tensors, [pt.dscalar(), *(x.type() for x in tensors[: self.n_parameters])])

    def perform(self, node: Apply, inputs: Any, output_storage: Any) -> None:
        value, *gradient = type(self).kernel(*inputs)
        output_storage[0][0] = np.asarray(value)
        for storage, array in zip(output_storage[1:], gradient, strict=True):
            storage[0] = array

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[i < self.n_parameters] * (self.n_parameters + 1) for i in range(len(node.inputs))]

    def pullback(self, inputs: Any, outputs: Any, cotangents: Any) -> list[Any]:
        if any(not isinstance(g.type, DisconnectedType) for g in cotangents[1:]):
            raise NotImplementedError("Second derivatives of this likelihood are not available; difference the gradient.")
        first = [cotangents[0] * outputs[i + 1] for i in range(self.n_parameters)]
        return first + [DisconnectedType()() for _ in inputs[self.n_parameters :]]


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


class MixtureLogLik(_ValueAndGradient):
    n_parameters = 5
    kernel = _mixture


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
    data = [pytensor.shared(np.ascontiguousarray(x), borrow=True) for x in (y, f, available)]
    return MixtureLogLik()(log_weight, intercept, slope, log_sigma, offset, *data)[0]


# -------------------------------------------------------------------------------------------------- collapsed levels
@dataclass(frozen=True)
class Statistics:
    """What a Gaussian multilevel likelihood needs of the rows: one cell per site and pattern of missing columns.

    Attributes
    ----------
    pattern : bool array (pattern, column)
        Which columns of ``z = (y, members)`` a pattern has.
    scatter : array (pattern, column, column)
        Sum over cells of the products of deviations from the cell's mean.
    n, mean : array (cell), (cell, column)
        Number of rows and means; 0 where a column is missing.
    cell_pattern, cell_site : int array (cell)
        Cells are sorted by site.
    site_group : int array (site)
        Sites are sorted by group.
    """

    pattern: np.ndarray
    scatter: np.ndarray
    n: np.ndarray
    mean: np.ndarray
    cell_pattern: np.ndarray
    cell_site: np.ndarray
    site_group: np.ndarray
    n_groups: int

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Return the arrays in the order of the kernels."""
        count = np.zeros(1) + self.n_groups
        return (self.pattern, self.scatter, self.n, self.mean, self.cell_pattern, self.cell_site, self.site_group, count)


def statistics(z: np.ndarray, site: np.ndarray, site_group: np.ndarray) -> Statistics:
    """Sum rows into :class:`Statistics`.

    Parameters
    ----------
    z : array (obs, column)
        Observation and members; NaN where missing.
    site : int array (obs)
        Index of each row's site.
    site_group : int array (site)
        Index of each site's group, non-decreasing.

    Returns
    -------
    Statistics

    Examples
    --------
    >>> s = statistics(np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([0, 0]), np.array([0]))
    >>> s.mean.tolist(), s.scatter[0].tolist()
    ([[2.0, 2.0]], [[2.0, 0.0], [0.0, 0.0]])
    """
    present = np.isfinite(z)
    pattern, code = np.unique(present, axis=0, return_inverse=True)
    key = site.astype(np.int64) * len(pattern) + code.ravel()
    cells, cell = np.unique(key, return_inverse=True)
    filled = np.where(present, z, 0.0)
    n = np.bincount(cell).astype(float)
    mean = np.stack([np.bincount(cell, filled[:, j]) for j in range(z.shape[1])], axis=1) / n[:, None]
    deviation = np.where(present, filled - mean[cell], 0.0)
    scatter = np.stack([deviation[code.ravel() == q].T @ deviation[code.ravel() == q] for q in range(len(pattern))])
    return Statistics(pattern, scatter, n, mean, cells % len(pattern), cells // len(pattern), site_group.astype(np.int64),
                      int(site_group.max()) + 1)  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _root(a):  # type: ignore[no-untyped-def]
    """Lower Cholesky root; columns without a positive pivot stay zero. Returns the root and whether all were positive."""
    p = a.shape[0]
    r = np.zeros((p, p))
    positive = True
    for j in range(p):
        pivot = a[j, j]
        for k in range(j):
            pivot -= r[j, k] ** 2
        if not pivot > 1e-14 * abs(a[j, j]):
            positive = False
            continue
        r[j, j] = np.sqrt(pivot)
        for i in range(j + 1, p):
            value = a[i, j]
            for k in range(j):
                value -= r[i, k] * r[j, k]
            r[i, j] = value / r[j, j]
    return r, positive


@numba.njit(cache=True, nogil=True)
def _forward(r, b):  # type: ignore[no-untyped-def]
    """Solve ``r x = b`` for a lower triangle; components without a pivot are zero."""
    x = np.zeros(len(b))
    for i in range(len(b)):
        if r[i, i] > 0.0:
            value = b[i]
            for k in range(i):
                value -= r[i, k] * x[k]
            x[i] = value / r[i, i]
    return x


@numba.njit(cache=True, nogil=True)
def _backward(r, b):  # type: ignore[no-untyped-def]
    """Solve ``r' x = b`` for a lower triangle with positive diagonal."""
    p = len(b)
    x = np.zeros(p)
    for i in range(p - 1, -1, -1):
        value = b[i]
        for k in range(i + 1, p):
            value -= r[k, i] * x[k]
        x[i] = value / r[i, i]
    return x


@numba.njit(cache=True, nogil=True)
def _integrate(precision, information, covariance):  # type: ignore[no-untyped-def]
    """Integrate an effect with the given prior covariance out of ``exp(h'e - e'Pe/2)``.

    Returns the information that is left about its mean, the log determinant and what the quadratic form gains.
    """
    p = len(information)
    r, _ = _root(precision)
    q = _forward(r, information)
    c, ok = _root(np.eye(p) + r.T @ covariance @ r)
    if not ok:
        return precision, information, np.inf, 0.0
    half = np.empty((p, p))
    for i in range(p):
        half[:, i] = _forward(c, r[i])
    qc = _forward(c, q)
    log_determinant = 0.0
    for i in range(p):
        log_determinant += np.log(c[i, i])
    return half.T @ half, half.T @ qc, log_determinant, qc @ qc - q @ q


@numba.njit(cache=True, nogil=True)
def _pattern_inverses(pattern, within):  # type: ignore[no-untyped-def]
    """Inverse (padded with zeros) and log determinant of the rows' covariance for each pattern of missing columns."""
    patterns, p = pattern.shape
    inverse = np.zeros((patterns, p, p))
    log_determinant = np.zeros(patterns)
    for q in range(patterns):
        index = np.nonzero(pattern[q])[0]
        m = len(index)
        block = np.empty((m, m))
        for i in range(m):
            for j in range(m):
                block[i, j] = within[index[i], index[j]]
        r, ok = _root(block)
        if not ok:
            return inverse, log_determinant, False
        for i in range(m):
            log_determinant[q] += 2.0 * np.log(r[i, i])
            unit = np.zeros(m)
            unit[i] = 1.0
            column = _backward(r, _forward(r, unit))
            for j in range(m):
                inverse[q, index[j], index[i]] = column[j]
    return inverse, log_determinant, True


@numba.njit(cache=True, nogil=True)
def _upward(mean, within, site, group, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, n_groups):  # type: ignore[no-untyped-def]
    """Information of rows about their site, of sites about their group, of groups about the mean; and the value."""
    p = len(mean)
    sites = len(site_group)
    inverse, log_determinant, ok = _pattern_inverses(pattern, within)
    raw_p, raw_h = np.zeros((sites, p, p)), np.zeros((sites, p))
    site_p, site_h = np.zeros((sites, p, p)), np.zeros((sites, p))
    group_raw_p, group_raw_h = np.zeros((n_groups, p, p)), np.zeros((n_groups, p))
    group_p, group_h = np.zeros((n_groups, p, p)), np.zeros((n_groups, p))
    value = -np.inf
    if ok:
        value = 0.0
        for q in range(len(pattern)):
            value -= 0.5 * np.sum(inverse[q] * scatter[q])
        quadratic = np.zeros(sites)
        for c in range(len(n)):
            q, s = cell_pattern[c], cell_site[c]
            deviation = np.where(pattern[q], cell_mean[c] - mean, 0.0)
            weighted = inverse[q] @ deviation
            value -= 0.5 * n[c] * (log_determinant[q] + LOG_2PI * np.sum(pattern[q]))
            raw_p[s] += n[c] * inverse[q]
            raw_h[s] += n[c] * weighted
            quadratic[s] += n[c] * (deviation @ weighted)
        for s in range(sites):
            site_p[s], site_h[s], logdet, gain = _integrate(raw_p[s], raw_h[s], site)
            value -= logdet + 0.5 * (quadratic[s] + gain)
            group_raw_p[site_group[s]] += site_p[s]
            group_raw_h[site_group[s]] += site_h[s]
        for g in range(n_groups):
            group_p[g], group_h[g], logdet, gain = _integrate(group_raw_p[g], group_raw_h[g], group)
            value -= logdet + 0.5 * gain
    if not np.isfinite(value):
        value = -np.inf
    return value, inverse, raw_p, site_p, site_h, group_raw_p, group_p, group_h


@numba.njit(cache=True, nogil=True)
def _collapsed(mean, within, site, group, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, count):  # type: ignore[no-untyped-def]
    p = len(mean)
    n_groups = int(count[0])
    d_mean = np.zeros(p)
    d_within, d_site, d_group = np.zeros((p, p)), np.zeros((p, p)), np.zeros((p, p))
    value, inverse, _, site_p, site_h, _, group_p, group_h = _upward(
        mean, within, site, group, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, n_groups
    )
    if value == -np.inf:
        return value, d_mean, d_within, d_site, d_group
    effect_mean, effect_cov = np.empty((n_groups, p)), np.empty((n_groups, p, p))
    for g in range(n_groups):
        effect_mean[g] = group @ group_h[g]
        effect_cov[g] = group - group @ group_p[g] @ group
        d_mean += group_h[g]
        d_group += 0.5 * (np.outer(group_h[g], group_h[g]) - group_p[g])
    expected = scatter.copy()
    rows = np.zeros(len(pattern))
    shift, spread = np.empty(p), np.empty((p, p))
    last = -1
    for c in range(len(n)):
        q, s = cell_pattern[c], cell_site[c]
        if s != last:
            last = s
            g = site_group[s]
            residual = site_h[s] - site_p[s] @ effect_mean[g]
            d_site += 0.5 * (np.outer(residual, residual) - site_p[s] + site_p[s] @ effect_cov[g] @ site_p[s])
            keep = np.eye(p) - site @ site_p[s]
            shift = mean + effect_mean[g] + site @ residual
            spread = keep @ effect_cov[g] @ keep.T + keep @ site
        deviation = cell_mean[c] - shift
        rows[q] += n[c]
        expected[q] += n[c] * (np.outer(deviation, deviation) + spread)
    for q in range(len(pattern)):
        d_within += 0.5 * (inverse[q] @ expected[q] @ inverse[q] - rows[q] * inverse[q])
    return value, d_mean, d_within, d_site, d_group


class CollapsedLogLik(_ValueAndGradient):
    n_parameters = 4
    kernel = _collapsed


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
    arrays = [pytensor.shared(np.ascontiguousarray(x), borrow=True) for x in data.arrays()]
    return CollapsedLogLik()(mean, within, site, group, *arrays)[0]


@numba.njit(cache=True, nogil=True)
def _effects(mean, precision, information, covariance, z):  # type: ignore[no-untyped-def]
    """Mean plus root times z of an effect with information (precision, information) and prior covariance; log density."""
    p = len(z)
    r, _ = _root(covariance)
    c, _ = _root(np.eye(p) + r.T @ precision @ r)
    inner = _backward(c, _forward(c, r.T @ information) + z)
    log_density = 0.0
    for i in range(p):
        if r[i, i] > 0.0:
            log_density += np.log(c[i, i]) - np.log(r[i, i]) - 0.5 * (LOG_2PI + z[i] ** 2)
    return mean + r @ inner, log_density


@numba.njit(cache=True, nogil=True)
def _effect_draws(means, withins, sites, groups, noise_g, noise_s, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, count):  # type: ignore[no-untyped-def]
    draws, p = means.shape
    n_groups = int(count[0])
    out_g, out_s = np.empty((draws, n_groups, p)), np.empty((draws, len(site_group), p))
    log_density = np.zeros(draws)
    nothing = np.zeros(p)
    for d in range(draws):
        _, inverse, raw_p, site_p, site_h, group_raw_p, _, _ = _upward(
            means[d], withins[d], sites[d], groups[d], pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, n_groups
        )
        group_raw_h = np.zeros((n_groups, p))
        raw_h = np.zeros((len(site_group), p))
        for s in range(len(site_group)):
            group_raw_h[site_group[s]] += site_h[s]
        for c in range(len(n)):
            q = cell_pattern[c]
            raw_h[cell_site[c]] += n[c] * (inverse[q] @ np.where(pattern[q], cell_mean[c] - means[d], 0.0))
        for g in range(n_groups):
            out_g[d, g], part = _effects(nothing, group_raw_p[g], group_raw_h[g], groups[d], noise_g[d, g])
            log_density[d] += part
        for s in range(len(site_group)):
            left = raw_h[s] - raw_p[s] @ out_g[d, site_group[s]]
            out_s[d, s], part = _effects(nothing, raw_p[s], left, sites[d], noise_s[d, s])
            log_density[d] += part
    return out_g, out_s, log_density


def effect_draws(mean: np.ndarray, within: np.ndarray, site: np.ndarray, group: np.ndarray, *, data: Statistics,
                 rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Draw the effects of groups and sites from their exact conditional distribution, one draw per set of parameters.

    Parameters
    ----------
    mean : array (draw, column)
    within, site, group : array (draw, column, column)
    data : Statistics
    rng : numpy.random.Generator or None
        None puts every effect at its conditional mean.

    Returns
    -------
    group : array (draw, group, column)
    site : array (draw, site, column)
    log_density : array (draw)
        Log density of the drawn effects given parameters and data, over the effects whose variance is not zero.
    """
    shape = (len(mean), data.n_groups, mean.shape[1]), (len(mean), len(data.site_group), mean.shape[1])
    noise = [np.zeros(s) if rng is None else rng.standard_normal(s) for s in shape]
    arrays = [np.ascontiguousarray(x, dtype=float) for x in (mean, within, site, group)]
    return _effect_draws(*arrays, *noise, *data.arrays())


def _register(op: type[_ValueAndGradient]) -> None:
    """Let PyTensor's numba backend call the kernel itself, cached on disk, instead of going through Python."""

    @register_funcify_default_op_cache_key(op)
    def funcify(op_: Any, node: Any, **kwargs: Any) -> Any:
        kernel = type(op_).kernel
        if op_.n_parameters == 5:

            @numba_njit
            def mixture(a, b, c, d, e, y, f, available):  # type: ignore[no-untyped-def]
                value, ga, gb, gc, gd, ge = kernel(a, b, c, d, e, y, f, available)
                return np.asarray(value), ga, gb, gc, gd, ge

            return mixture

        @numba_njit
        def collapsed(m, w, s, g, x1, x2, x3, x4, x5, x6, x7, x8):  # type: ignore[no-untyped-def]
            value, gm, gw, gs, gg = kernel(m, w, s, g, x1, x2, x3, x4, x5, x6, x7, x8)
            return np.asarray(value), gm, gw, gs, gg

        return collapsed


_register(MixtureLogLik)
_register(CollapsedLogLik)
