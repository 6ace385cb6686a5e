"""A Gaussian multilevel model with its effects integrated out: likelihood, gradient and the effects' distribution.

With the rows of a site summed into information form, sites and groups are the same step: for information ``(P, h)`` about
an effect with prior covariance ``B``, and a root ``P = R R'``, ``h = R q``, what is left about the effect's mean is the
information ``R C^-1 R'`` and ``R C^-1 q`` with ``C = I + R' B R``. Nothing is inverted that may be singular: a member that
a site never has leaves a zero row in ``R``, and an effect of zero variance leaves ``C = I``. The gradient needs one more
pass, from the groups down to the rows, with the smoothed effects.
"""

from __future__ import annotations

import numba
import numpy as np

from bayesens.c_functions import INNER, ONCE, beyond
from bayesens.likelihoods.multilevel.small_matrices import (
    add_matrix,
    add_outer,
    backward,
    cholesky,
    copy_matrix,
    forward,
    multiply,
    row_products,
    sandwich,
)
from bayesens.likelihoods.multilevel.upward import site_products, unpack, unpack_parameters, upward

__all__ = ["collapsed_packed", "effects_packed", "groups_packed"]

LOG_2PI = float(np.log(2.0 * np.pi))


# -------------------------------------------------------------------------------------------------------------- downward
@ONCE
def _group_effect(group, group_p, group_h, mean, covariance, work):  # type: ignore[no-untyped-def]
    """Mean and covariance of a group's effect, given what its rows say about it."""
    multiply(group, group_h, mean)
    copy_matrix(group, covariance)
    sandwich(covariance, group, group_p, -1.0, work)


@ONCE
def _site_effect(  # type: ignore[no-untyped-def]
    site, site_p, site_h, group_mean, group_cov, still, mean, covariance, residual, work
):
    """Mean and covariance of a site's own effect plus its group's, and what the site says beyond its group.

    ``still`` says that the group's has no variance.
    """
    p = len(site_h)
    multiply(site_p, group_mean, residual)
    for i in range(p):
        residual[i] = site_h[i] - residual[i]
    multiply(site, residual, mean)
    for i in range(p):
        mean[i] += group_mean[i]
    copy_matrix(site, covariance)
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
    mean, site, statistics, site_p, site_h, effect_mean, effect_cov, expected, rows, d_site, work
):
    """Count rows and add their expected squares given all rows, for each pattern; add the sites' part of ``d_site``."""
    _, _, n, cell_mean, cell_pattern, cell_site, site_group, place, _, _ = statistics
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
            )
            # Derivative by the site level: what the smoothed effects say beyond their prior.
            add_outer(d_site, residual, 0.5)
            add_matrix(d_site, site_p[k], -0.5)
            if not still:
                sandwich(d_site, site_p[k], effect_cov[g], 0.5, work[0])
        for i in range(p):
            residual[i] = cell_mean[c, i] - mean[i] - effect[i]
        add_outer(expected[q], residual, n[c])
        add_matrix(expected[q], spread, n[c])


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
        multiply(turn, effect_mean[g], turned_mean[g])
        sandwich(turned_cov[g], turn.T, effect_cov[g], 1.0, work)
    site_products(u, r, each, start, turned_mean, turned_cov, by_site, by_within)
    sandwich(d_site, turn, by_site, 1.0, work)
    sandwich(d_within, turn, by_within, 1.0, work)


def collapsed_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Value and gradient."""
    statistics = unpack(data, index)
    pattern, scatter, _, _, _, _, _, _, cells, start = statistics
    p, n_groups = scatter.shape[1], len(start) - 1
    parameters = unpack_parameters(theta, p)
    mean, _, site, group = parameters
    d_mean, d_within, d_site, d_group = unpack_parameters(beyond(out, -1), p)
    out = numba.carray(out, 1 + p + 3 * p * p)
    value, inverse, levels, (turn, _, shorter, u, r) = upward(parameters, statistics)
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
        add_matrix(d_group, group_p[g], -0.5)
        for i in range(p):
            d_mean[i] += group_h[g, i]
    expected, rows = np.zeros(scatter.shape), np.zeros(len(pattern))
    _rows_downward(mean, site, statistics, site_p, site_h, effect_mean, effect_cov, expected, rows, d_site, work)
    for q in range(len(pattern)):
        add_matrix(expected[q], scatter[q], 1.0)
        sandwich(d_within, inverse[q], expected[q], 0.5, work[0])
        add_matrix(d_within, inverse[q], -0.5 * rows[q])
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
    multiply(r, half, out)
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
        multiply(turn, groups[g], about)
        for s in range(start[g], start[g + 1]):
            site = cell_site[cells[s]]
            log_density += each
            for j in range(p):
                open_share = 1.0 / (1.0 + rows[s] * l[j])
                z = noise[site, j]
                effect[j] = l[j] * open_share * rows[s] * (u[j, s] - about[j]) + np.sqrt(l[j] * open_share) * z
                log_density -= 0.5 * (np.log(open_share) + z * z)
            multiply(back, effect, drawn[site])
    return log_density


def effects_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Log density of drawn effects, and those of groups and sites, from noise that follows the parameters."""
    statistics = unpack(data, index)
    pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, place, cells, start = statistics
    p, sites, n_groups = scatter.shape[1], len(site_group), len(start) - 1
    parameters = unpack_parameters(theta, p)
    _, within, site, group = parameters
    noise = numba.carray(beyond(theta, 2 + p + 3 * p * p), (n_groups + sites, p))
    drawn = numba.carray(beyond(out, 1), (n_groups + sites, p))
    left, prior, work = np.empty(p), np.empty((p, p)), np.empty((4, p, p))
    _, _, levels, (turn, l, rows, u, _) = upward(parameters, statistics)
    if len(cells) > 0 and not l.min() > 1e-12 * l.max():
        # Some combination of columns has no effect: the long route for all.
        place, cells, start = np.arange(sites), np.zeros(0, np.int64), np.zeros(n_groups + 1, np.int64)
        statistics = pattern, scatter, n, cell_mean, cell_pattern, cell_site, site_group, place, cells, start
        _, _, levels, (turn, l, rows, u, _) = upward(parameters, statistics)
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
            multiply(raw_p[k], drawn[site_group[s]], left)
            for i in range(p):
                left[i] = raw_h[k, i] - left[i]
            log_density += _effects(prior, raw_p[k], left, noise[n_groups + s], drawn[n_groups + s], work)
    numba.carray(out, 1)[0] = log_density


def groups_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Means of the groups' effects given all rows, then their covariances."""
    statistics = unpack(data, index)
    p, n_groups = statistics[1].shape[1], len(statistics[9]) - 1
    parameters = unpack_parameters(theta, p)
    means, covariances = numba.carray(out, (n_groups, p)), numba.carray(beyond(out, n_groups * p), (n_groups, p, p))
    levels, work = upward(parameters, statistics)[2], np.empty((p, p))
    for g in range(n_groups):
        _group_effect(parameters[3], levels[6][g], levels[7][g], means[g], covariances[g], work)
