"""A Gaussian multilevel model with its effects integrated out: likelihood, gradient and the effects' distribution.

With the rows of a site summed into information form, sites and groups are the same step: for information ``(P, h)`` about
an effect with prior covariance ``B``, and a root ``P = R R'``, ``h = R q``, what is left about the effect's mean is the
information ``R C^-1 R'`` and ``R C^-1 q`` with ``C = I + R' B R``. Nothing is inverted that may be singular: a member that
a site never has leaves a zero row in ``R``, and an effect of zero variance leaves ``C = I``. The gradient needs one more
pass, from the groups down to the rows, with the smoothed effects.

A site whose rows all have all columns says no more than its number of rows ``n`` and their mean, with covariance
``S + W/n`` about the group. One basis ``T`` makes all of these diagonal, ``T W T' = I`` and ``T S T' = diag(l)``, so that
such sites cost a few vector operations instead of a few matrices each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numba
import numpy as np

from bayesens.c_functions import INNER, ONCE, address_of, beyond, over_draws
from bayesens.ensemble.sufficient import Statistics
from bayesens.likelihoods.multilevel.site_sums import (
    add_sites,
    columns,
    deviation_from,
    deviations,
    integrate,
    pattern_inverses,
    site_precisions,
    site_products,
)
from bayesens.likelihoods.multilevel.small_matrices import (
    add,
    add_outer,
    apply,
    backward,
    cholesky,
    common_basis,
    copy,
    forward,
    row_products,
    sandwich,
)

__all__ = [
    "collapsed_packed",
    "effect_draws",
    "effects_address",
    "group_moments",
]

LOG_2PI = float(np.log(2.0 * np.pi))
NOISE = 4_000_000  # random numbers at a time: 32 MB


# ------------------------------------------------------------------------------------------------------ small matrices


# -------------------------------------------------------------------------------------------- sites in one common basis


# ---------------------------------------------------------------------------------------------------------------- upward


@INNER
def _rows_upward(  # type: ignore[no-untyped-def]
    mean, site, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, inverse, log_determinant, place,
    raw_p, raw_h, site_p, site_h, group_raw_p, group_raw_h, work,
):  # fmt: skip
    """Fill the information about sites on the long route and add it to their groups'; the rows' part of the value."""
    p = len(mean)
    value, deviation, weighted = 0.0, np.empty(p), np.empty(p)
    constant = np.empty(len(pattern))
    for q in range(len(pattern)):
        constant[q] = log_determinant[q] + LOG_2PI * columns(pattern[q])
        for i in range(p):
            for j in range(p):
                value -= 0.5 * inverse[q, i, j] * scatter[q, i, j]
    quadratic = np.zeros(len(raw_p))
    for c in range(len(n)):
        q, s = cell_pattern[c], place[cell_site[c]]
        value -= 0.5 * n[c] * constant[q]
        if s >= 0:
            deviation_from(pattern[q], cell_mean[c], mean, deviation)
            apply(inverse[q], deviation, weighted)
            add(raw_p[s], inverse[q], n[c])
            for i in range(p):
                raw_h[s, i] += n[c] * weighted[i]
                quadratic[s] += n[c] * deviation[i] * weighted[i]
    for s in range(len(site_group)):
        if place[s] >= 0:
            g, k = site_group[s], place[s]
            logdet, gain = integrate(raw_p[k], raw_h[k], site, site_p[k], site_h[k], work)
            value -= logdet + 0.5 * (quadratic[k] + gain)
            add(group_raw_p[g], site_p[k], 1.0)
            for i in range(p):
                group_raw_h[g, i] += site_h[k, i]
    return value


@INNER
def _upward(  # type: ignore[no-untyped-def]
    mean, within, site, group, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, place, cells, start
):
    """Information of rows about their site, of sites about their group, of groups about the mean; and the value."""
    p, n_groups, long = len(mean), len(start) - 1, len(site_group) - len(cells)
    work = np.empty((4, p, p))
    raw_p, raw_h = np.zeros((long, p, p)), np.zeros((long, p))
    site_p, site_h = np.zeros((long, p, p)), np.zeros((long, p))
    group_raw_p, group_raw_h = np.zeros((n_groups, p, p)), np.zeros((n_groups, p))
    group_p, group_h = np.zeros((n_groups, p, p)), np.zeros((n_groups, p))
    rows, u, r = np.empty(len(cells)), np.empty((p, len(cells))), np.empty((p, len(cells)))
    turn, l = np.empty((p, p)), np.zeros(p)
    inverse, log_determinant, ok = pattern_inverses(pattern, within)
    value = 0.0 if ok else -np.inf
    if ok:
        value = _rows_upward(
            mean, site, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, inverse, log_determinant, place,
            raw_p, raw_h, site_p, site_h, group_raw_p, group_raw_h, work,
        )  # fmt: skip
        if len(cells) > 0:
            for s in range(len(cells)):
                rows[s] = n[cells[s]]
            turn, l = common_basis(within, site, work)
            deviations(turn, cell_mean, cells, mean, u)
            value -= 0.5 * site_precisions(rows, l, r)
            if value > -np.inf:
                value -= 0.5 * add_sites(turn, u, r, start, group_raw_p, group_raw_h)
        for g in range(n_groups):
            logdet, gain = integrate(group_raw_p[g], group_raw_h[g], group, group_p[g], group_h[g], work)
            value -= logdet + 0.5 * gain
    if not np.isfinite(value):
        value = -np.inf
    levels = raw_p, raw_h, site_p, site_h, group_raw_p, group_raw_h, group_p, group_h
    return value, inverse, levels, (turn, l, rows, u, r)


# -------------------------------------------------------------------------------------------------------------- downward
@ONCE
def _group_effect(group, group_p, group_h, mean, covariance, work):  # type: ignore[no-untyped-def]
    """Mean and covariance of a group's effect, given what its rows say about it."""
    apply(group, group_h, mean)
    copy(group, covariance)
    sandwich(covariance, group, group_p, -1.0, work)


@ONCE
def _site_effect(  # type: ignore[no-untyped-def]
    site, site_p, site_h, group_mean, group_cov, still, mean, covariance, residual, work
):
    """Mean and covariance of a site's own effect plus its group's, and what the site says beyond its group.

    ``still`` says that the group's has no variance.
    """
    p = len(site_h)
    apply(site_p, group_mean, residual)
    for i in range(p):
        residual[i] = site_h[i] - residual[i]
    apply(site, residual, mean)
    for i in range(p):
        mean[i] += group_mean[i]
    copy(site, covariance)
    sandwich(covariance, site, site_p, -1.0, work[1])
    if not still:
        keep = work[0]
        for i in range(p):  # I - site_p site
            for j in range(p):
                keep[i, j] = 1.0 if i == j else 0.0
            for k in range(p):
                value = site_p[i, k]
                for j in range(p):
                    keep[i, j] -= value * site[k, j]
        sandwich(covariance, keep, group_cov, 1.0, work[1])


@INNER
def _rows_downward(  # type: ignore[no-untyped-def]
    mean, site, n, cell_mean, cell_pattern, cell_site, site_group, place, site_p, site_h, effect_mean, effect_cov,
    expected, rows, d_site, work,
):  # fmt: skip
    """Count rows and add their expected squares given all rows, for each pattern; add the sites' part of ``d_site``."""
    p = len(mean)
    effect, spread, residual = np.empty(p), np.empty((p, p)), np.empty(p)
    last, still = -1, not effect_cov.any()
    for c in range(len(n)):
        q, s = cell_pattern[c], cell_site[c]
        k = place[s]
        rows[q] += n[c]
        if k < 0:
            rows[q] -= 1.0  # the one that is the site's mean
            continue
        if s != last:
            last, g = s, site_group[s]
            _site_effect(
                site, site_p[k], site_h[k], effect_mean[g], effect_cov[g], still, effect, spread, residual, work
            )  # fmt: skip
            # Derivative by the site level: what the smoothed effects say beyond their prior.
            add_outer(d_site, residual, 0.5)
            add(d_site, site_p[k], -0.5)
            if not still:
                sandwich(d_site, site_p[k], effect_cov[g], 0.5, work[0])
        for i in range(p):
            residual[i] = cell_mean[c, i] - mean[i] - effect[i]
        add_outer(expected[q], residual, n[c])
        add(expected[q], spread, n[c])


@INNER
def _short_downward(turn, rows, u, r, start, effect_mean, effect_cov, d_within, d_site):  # type: ignore[no-untyped-def]
    """Add the derivatives that sites on the short route give, except for their rows' scatter."""
    p = len(turn)
    work = np.empty((p, p))
    turned_mean, turned_cov = np.empty(effect_mean.shape), np.zeros(effect_cov.shape)
    by_site, by_within, each = np.empty((p, p)), np.empty((p, p)), np.empty(len(rows))
    for s in range(len(rows)):
        each[s] = 1.0 / rows[s]
    for g in range(len(start) - 1):
        apply(turn, effect_mean[g], turned_mean[g])
        sandwich(turned_cov[g], turn.T, effect_cov[g], 1.0, work)
    site_products(u, r, each, start, turned_mean, turned_cov, by_site, by_within)
    sandwich(d_site, turn, by_site, 1.0, work)
    sandwich(d_within, turn, by_within, 1.0, work)


# --------------------------------------------------------------------------------------------------- functions for C
# They take the shape of a covariance and then all parameters, the statistics' numbers, and where results go.
@ONCE
def _unpack(data, index):  # type: ignore[no-untyped-def]
    """Statistics from the addresses of their numbers; :meth:`Statistics.packed` has their order."""
    head = numba.carray(index, 6)
    p, patterns, cells, sites, groups, short = head[0], head[1], head[2], head[3], head[4], head[5]
    by_cell = beyond(index, 6 + patterns * p)
    by_site = beyond(by_cell, 2 * cells)
    return (
        numba.carray(beyond(index, 6), (patterns, p)),
        numba.carray(data, (patterns, p, p)),
        numba.carray(beyond(data, patterns * p * p), cells),
        numba.carray(beyond(data, patterns * p * p + cells), (cells, p)),
        numba.carray(by_cell, cells),
        numba.carray(beyond(by_cell, cells), cells),
        numba.carray(by_site, sites),
        numba.carray(beyond(by_site, sites), sites),
        numba.carray(beyond(by_site, 2 * sites), short),
        numba.carray(beyond(by_site, 2 * sites + short), groups + 1),
    )


@ONCE
def _parameters(theta, p):  # type: ignore[no-untyped-def]
    """Mean and the three covariances."""
    x = beyond(theta, 2)
    return (
        numba.carray(x, p), numba.carray(beyond(x, p), (p, p)), numba.carray(beyond(x, p + p * p), (p, p)),
        numba.carray(beyond(x, p + 2 * p * p), (p, p)),
    )  # fmt: skip


def collapsed_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Value and gradient."""
    pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, place, cells, start = _unpack(data, index)
    p, n_groups = scatter.shape[1], len(start) - 1
    mean, within, site, group = _parameters(theta, p)
    d_mean, d_within, d_site, d_group = _parameters(beyond(out, -1), p)
    out = numba.carray(out, 1 + p + 3 * p * p)
    value, inverse, levels, (turn, _, shorter, u, r) = _upward(
        mean,
        within,
        site,
        group,
        pattern,
        scatter,
        n,
        cell_mean,
        cell_pattern,
        cell_site,
        site_group,
        place,
        cells,
        start,
    )
    out[0] = value
    for i in range(1, len(out)):
        out[i] = 0.0
    if value == -np.inf:
        return
    _, _, site_p, site_h, _, _, group_p, group_h = levels
    work, effect_mean, effect_cov = np.empty((2, p, p)), np.empty((n_groups, p)), np.empty((n_groups, p, p))
    for g in range(n_groups):
        _group_effect(group, group_p[g], group_h[g], effect_mean[g], effect_cov[g], work[0])
        add_outer(d_group, group_h[g], 0.5)
        add(d_group, group_p[g], -0.5)
        for i in range(p):
            d_mean[i] += group_h[g, i]
    expected, rows = np.zeros(scatter.shape), np.zeros(len(pattern))
    _rows_downward(
        mean, site, n, cell_mean, cell_pattern, cell_site, site_group, place, site_p, site_h, effect_mean, effect_cov,
        expected, rows, d_site, work,
    )  # fmt: skip
    for q in range(len(pattern)):
        add(expected[q], scatter[q], 1.0)
        sandwich(d_within, inverse[q], expected[q], 0.5, work[0])
        add(d_within, inverse[q], -0.5 * rows[q])
    if len(cells) > 0:
        _short_downward(turn, shorter, u, r, start, effect_mean, effect_cov, d_within, d_site)


@INNER
def _effects(r, precision, information, z, out, work):  # type: ignore[no-untyped-def]
    """Draw an effect of prior covariance ``r r'`` with information (precision, information) from z; its log density."""
    p = len(z)
    c, half = work[0], work[1, 0]
    for i in range(p):
        for j in range(p):
            c[i, j] = 1.0 if i == j else 0.0
    sandwich(c, r, precision, 1.0, work[2])
    cholesky(c, c)
    for i in range(p):
        half[i] = 0.0
        for k in range(p):
            half[i] += r[k, i] * information[k]
    forward(c, half)
    log_density = 0.0
    for i in range(p):
        half[i] += z[i]
        if r[i, i] > 0.0:
            log_density += np.log(c[i, i]) - np.log(r[i, i]) - 0.5 * (LOG_2PI + z[i] ** 2)
    backward(c, half)
    apply(r, half, out)
    return log_density


@INNER
def _short_effects(within, turn, l, rows, u, cells, cell_site, start, groups, noise, drawn):  # type: ignore[no-untyped-def]
    """Draw the effects of sites on the short route, column by column in the common basis; their log density.

    There the effect has the variance ``l`` before and ``l / (1 + n l)`` after the ``n`` rows, whose mean less the group's is
    ``u``; ``within turn'`` turns back.
    """
    p, log_density = len(l), 0.0
    back, about, effect = np.zeros((p, p)), np.empty(p), np.empty(p)
    each = -0.5 * p * LOG_2PI
    for j in range(p):
        each -= 0.5 * np.log(l[j])
        for i in range(p):
            for k in range(p):
                back[i, j] += within[i, k] * turn[j, k]
    root = back.copy()  # its determinant is the inverse of the basis's
    row_products(back, root)
    cholesky(root, root)
    for j in range(p):
        each -= np.log(root[j, j])
    for g in range(len(start) - 1):
        apply(turn, groups[g], about)
        for s in range(start[g], start[g + 1]):
            site = cell_site[cells[s]]
            log_density += each
            for j in range(p):
                open_share = 1.0 / (1.0 + rows[s] * l[j])
                z = noise[site, j]
                effect[j] = l[j] * open_share * rows[s] * (u[j, s] - about[j]) + np.sqrt(l[j] * open_share) * z
                log_density -= 0.5 * (np.log(open_share) + z * z)
            apply(back, effect, drawn[site])
    return log_density


def _effects_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Log density of drawn effects, and those of groups and sites, from noise that follows the parameters."""
    pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, place, cells, start = _unpack(data, index)
    p, sites, n_groups = scatter.shape[1], len(site_group), len(start) - 1
    mean, within, site, group = _parameters(theta, p)
    noise = numba.carray(beyond(theta, 2 + p + 3 * p * p), (n_groups + sites, p))
    drawn = numba.carray(beyond(out, 1), (n_groups + sites, p))
    left, prior, work = np.empty(p), np.empty((p, p)), np.empty((4, p, p))
    _, _, levels, (turn, l, rows, u, _) = _upward(
        mean, within, site, group, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, place, cells, start
    )  # fmt: skip
    if (
        len(cells) > 0 and not l.min() > 1e-12 * l.max()
    ):  # some combination of columns has no effect: the long route for all
        place, cells, start = np.arange(sites), np.zeros(0, np.int64), np.zeros(n_groups + 1, np.int64)
        _, _, levels, (turn, l, rows, u, _) = _upward(
            mean, within, site, group, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, place, cells,
            start,
        )  # fmt: skip
    raw_p, raw_h, _, _, group_raw_p, group_raw_h, _, _ = levels
    log_density = 0.0
    cholesky(group, prior)
    for g in range(n_groups):
        log_density += _effects(prior, group_raw_p[g], group_raw_h[g], noise[g], drawn[g], work)
    if len(cells) > 0:
        log_density += _short_effects(
            within, turn, l, rows, u, cells, cell_site, start, drawn, noise[n_groups:], drawn[n_groups:]
        )
    cholesky(site, prior)
    for s in range(sites):
        k = place[s]
        if k >= 0:
            apply(raw_p[k], drawn[site_group[s]], left)
            for i in range(p):
                left[i] = raw_h[k, i] - left[i]
            log_density += _effects(prior, raw_p[k], left, noise[n_groups + s], drawn[n_groups + s], work)
    numba.carray(out, 1)[0] = log_density


def effects_address() -> int:
    """Address of the C function that draws effects."""
    return address_of(_effects_packed)


def _groups_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Means of the groups' effects given all rows, then their covariances."""
    pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, place, cells, start = _unpack(data, index)
    p, n_groups = scatter.shape[1], len(start) - 1
    mean, within, site, group = _parameters(theta, p)
    means, covariances = numba.carray(out, (n_groups, p)), numba.carray(beyond(out, n_groups * p), (n_groups, p, p))
    levels = _upward(
        mean, within, site, group, pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, place, cells, start
    )[2]  # fmt: skip
    work = np.empty((p, p))
    for g in range(n_groups):
        _group_effect(group, levels[6][g], levels[7][g], means[g], covariances[g], work)


# -------------------------------------------------------------------------------------------------- for many draws
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
    draws, p = mean.shape
    count = (data.n_groups + len(data.site_group)) * p
    out = np.empty((draws, 1 + count))
    step = max(1, NOISE // count)
    for part in (slice(i, i + step) for i in range(0, draws, step)):
        size = len(mean[part]), count
        noise = np.zeros(size) if rng is None else rng.standard_normal(size)
        out[part] = _over_draws(
            _effects_packed, (mean[part], within[part], site[part], group[part], noise), data, 1 + count
        )
    effects = out[:, 1:].reshape(draws, -1, p)
    return effects[:, : data.n_groups], effects[:, data.n_groups :], out[:, 0]


def group_moments(mean: np.ndarray, within: np.ndarray, site: np.ndarray, group: np.ndarray, *,
                  data: Statistics) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Mean and covariance of the groups' effects given all rows, for each set of parameters.

    Parameters
    ----------
    mean : array (draw, column)
    within, site, group : array (draw, column, column)
    data : Statistics

    Returns
    -------
    array (draw, group, column), array (draw, group, column, column)
    """
    draws, p = mean.shape
    out = _over_draws(_groups_packed, (mean, within, site, group), data, data.n_groups * (p + p * p))
    first = data.n_groups * p
    return out[:, :first].reshape(draws, -1, p), out[:, first:].reshape(draws, -1, p, p)


def _over_draws(
    packed: Callable[..., Any], parameters: Iterable[np.ndarray], data: Statistics, size: int
) -> np.ndarray:
    """Call a function for C with each draw's parameters, into (draw, size)."""
    flat = [np.reshape(x, (len(x), -1)) for x in parameters]
    p = data.pattern.shape[1]
    theta = np.concatenate([np.full((len(flat[0]), 2), float(p)), *flat], axis=1)
    return over_draws(address_of(packed), theta, *data.packed(), size)
