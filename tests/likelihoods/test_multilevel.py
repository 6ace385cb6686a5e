"""The collapsed likelihood's short route, for sites whose rows are complete, against its long route and multivariate normals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from bayesens.ensemble.sufficient import statistics
from bayesens.likelihoods.multilevel.effects import effect_draws
from bayesens.likelihoods.ops import CollapsedLogLik
from collapsed import collapsed, split


def covariance(rng, p, rank=None):
    root = rng.normal(size=(p, p + 2 if rank is None else rank))
    return root @ root.T / p


def short_sites(data):
    return int(data.packed()[1][5])


def problem(seed, p=5, groups=3, sites=7, missing=0.0, most=9, kind="full"):
    """Parameters and rows of sites of unequal size, the first of a single row, groups not empty."""
    rng = np.random.default_rng(seed)
    site_group = np.sort(np.concatenate([np.arange(groups), rng.integers(0, groups, sites - groups)]))
    site = np.repeat(np.arange(sites), np.concatenate([[1], rng.integers(1, most, sites - 1)]))
    z = rng.normal(1.0, 2.0, size=(len(site), p))
    gone = rng.random(sites)[site] < missing  # whole sites stay complete, so that groups have both kinds
    z[:, 1:][gone[:, None] & (rng.random((len(site), p - 1)) < 0.4)] = np.nan
    site_cov = {"zero": np.zeros((p, p)), "one": covariance(rng, p, 1)}.get(kind, covariance(rng, p))
    group_cov = np.zeros((p, p)) if kind == "no group" else 0.4 * covariance(rng, p)
    return (rng.normal(size=p), covariance(rng, p), site_cov, group_cov), (z, site, site_group)


def check_routes_agree(args, rows):
    data = statistics(*rows)
    assert short_sites(data) > 0
    assert short_sites(split(data)) == 0
    value, *gradient = collapsed(*args, data)
    expected, *expected_gradient = collapsed(*args, split(data))
    assert np.isfinite(value)
    assert value == pytest.approx(expected, rel=1e-10)
    for one, other in zip(gradient, expected_gradient):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10 * np.max(np.abs(other)))


# ---------------------------------------------------------------------------------------------------------- two routes
@pytest.mark.parametrize("missing", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["full", "one", "zero", "no group"])
@pytest.mark.parametrize(("p", "groups", "sites"), [(5, 3, 7), (2, 1, 5), (6, 4, 40), (12, 2, 5), (3, 1, 1), (4, 5, 5)])
def test_short_and_long_route_agree(p, groups, sites, kind, missing):
    check_routes_agree(*problem(p, p, groups, sites, missing if sites > 1 else 0.0, kind=kind))


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("kind", ["full", "zero", "no group"])
def test_routes_agree_at_extreme_ratios_of_the_levels(kind, scale):
    (mean, within, site, group), rows = problem(3, kind=kind)
    check_routes_agree((mean, scale * within, site, group), rows)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), p=st.integers(2, 9), groups=st.integers(1, 5), more=st.integers(0, 20),
    missing=st.sampled_from([0.0, 0.3, 0.7]), kind=st.sampled_from(["full", "one", "zero", "no group"]),
)  # fmt: skip
def test_routes_agree_whatever_the_sizes(seed, p, groups, more, missing, kind):
    args, (z, site, site_group) = problem(seed, p, groups, groups + more, missing, kind=kind)
    z[0] = 1.0  # the first site has one row, complete
    check_routes_agree(args, (z, site, site_group))


def test_order_of_the_groups_does_not_matter():
    args, (z, site, site_group) = problem(4, groups=3, sites=9)
    shuffled = np.random.default_rng(0).permutation(site_group)
    check_routes_agree(args, (z, site, shuffled))


# --------------------------------------------------------------------------------------- against what scipy and algebra say
def stacked(args, z, site, site_group):
    """Mean and covariance of all observed values as one vector."""
    mean, within, level_site, level_group = args
    row, column = np.nonzero(np.isfinite(z))
    pick = np.ix_(column, column)
    total = np.equal.outer(row, row) * within[pick] + np.equal.outer(site[row], site[row]) * level_site[pick]
    group = site_group[site[row]]
    return z[row, column], mean[column], total + np.equal.outer(group, group) * level_group[pick]


@pytest.mark.parametrize("missing", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["full", "one", "zero", "no group"])
def test_value_is_the_multivariate_normal_of_all_rows(kind, missing):
    for seed in range(4):
        args, rows = problem(seed, 3, 2, 5, missing, most=5, kind=kind)
        data = statistics(*rows)
        x, mean, total = stacked(args, *rows)
        value = collapsed(*args, data)[0]
        assert short_sites(data) > 0
        assert value == pytest.approx(multivariate_normal(mean, total).logpdf(x), rel=1e-11)


@pytest.mark.parametrize("kind", ["full", "one", "zero", "no group"])
def test_gradient_is_that_of_central_differences(kind):
    rng = np.random.default_rng(6)
    args, rows = problem(6, 4, 2, 6, 0.3, kind=kind)
    data = statistics(*rows)
    gradient = collapsed(*args, data)[1:]
    for i, argument in enumerate(args):
        direction = rng.normal(size=argument.shape)
        direction = direction + direction.T  # a covariance moves symmetrically; from zero it becomes indefinite
        up, down = (
            collapsed(*(a + side * 1e-6 * direction if j == i else a for j, a in enumerate(args)), data)[0]
            for side in (1, -1)
        )
        assert np.sum(gradient[i] * direction) == pytest.approx((up - down) / 2e-6, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("unit", [1e-6, 1e6])
@pytest.mark.parametrize("kind", ["full", "one", "zero"])
def test_units_shift_the_value_by_a_constant(kind, unit):
    """With all columns in other units every density gets a factor a column, whether variances are 1e-12 or 1e12."""
    args, (z, site, site_group) = problem(8, 5, 3, 20, kind=kind)
    value, *gradient = collapsed(*args, statistics(z, site, site_group))
    mean, *covariances = args
    moved = unit * mean, *(unit**2 * c for c in covariances)
    shifted, *moved_gradient = collapsed(*moved, statistics(unit * z, site, site_group))
    assert shifted + z.size * np.log(unit) == pytest.approx(value, rel=1e-11)
    for one, other, power in zip(gradient, moved_gradient, (1, 2, 2, 2)):
        np.testing.assert_allclose(other * unit**power, one, rtol=1e-9, atol=1e-10 * np.max(np.abs(one)))


def test_columns_in_units_far_apart():
    """As in a table with one member in metres and another in micrometres."""
    args, (z, site, site_group) = problem(9, 4, 2, 12)
    unit = np.array([1.0, 1e6, 1e-6, 1e3])
    value, *gradient = collapsed(*args, statistics(z, site, site_group))
    moved = args[0] * unit, *(c * np.outer(unit, unit) for c in args[1:])
    shifted, *moved_gradient = collapsed(*moved, statistics(z * unit, site, site_group))
    assert shifted + len(z) * np.log(unit).sum() == pytest.approx(value, rel=1e-11)
    for one, other in zip(gradient, moved_gradient):
        back = other * (unit if one.ndim == 1 else np.outer(unit, unit))
        np.testing.assert_allclose(back, one, rtol=1e-9, atol=1e-10 * np.max(np.abs(one)))


@pytest.mark.parametrize("rows", [1, 10**6])
def test_a_singular_covariance_of_sites_stays_one_however_many_rows(rows):
    """Rounding makes eigenvalues of a rank-one covariance negative; with a million rows no covariance would be left."""
    rng = np.random.default_rng(10)
    args, (z, site, site_group) = problem(10, 6, 2, 8)
    data = statistics(z, site, site_group)
    data = replace(data, n=np.full(len(data.n), float(rows)))
    for _ in range(50):
        level = 1e3 * covariance(rng, 6, 1)
        value, *gradient = collapsed(args[0], 1e-8 * args[1], level, args[3], data)
        assert np.isfinite(value)
        assert all(np.all(np.isfinite(g)) for g in gradient)


@pytest.mark.parametrize("bad", [-np.eye(3), np.ones((3, 3)), np.full((3, 3), np.nan), np.zeros((3, 3))])
def test_no_likelihood_where_within_is_not_positive_definite(bad):
    (mean, _, site, group), rows = problem(11, 3)
    value, *gradient = collapsed(mean, bad, site, group, statistics(*rows))
    assert value == -np.inf
    assert all(np.all(g == 0.0) for g in gradient)


@pytest.mark.parametrize("bad", [-10.0 * np.eye(3), np.full((3, 3), np.nan), np.diag([1.0, np.inf, 1.0])])
def test_no_likelihood_where_that_of_sites_is_far_from_a_covariance(bad):
    (mean, within, _, group), rows = problem(12, 3)
    value, *gradient = collapsed(mean, within, bad, group, statistics(*rows))
    assert value == -np.inf
    assert all(np.all(g == 0.0) for g in gradient)


def test_values_alone_are_those_with_a_gradient():
    sets = [problem(seed, 4, 2, 6)[0] for seed in range(4)]
    data = statistics(*problem(0, 4, 2, 6, 0.4)[1])
    theta = np.array([np.concatenate([(4, 4), *map(np.ravel, args)]) for args in sets])
    out = CollapsedLogLik().at_many(theta, *data.packed(), 2, gradients=False)
    np.testing.assert_allclose(out[:, 0], [collapsed(*args, data)[0] for args in sets], rtol=1e-14)


# ------------------------------------------------------------------------------------------------------------ effects drawn
def drawn(args, data, rng=None):
    return effect_draws(*(np.asarray(a)[None] for a in args), data=data, rng=rng)


@pytest.mark.parametrize("kind", ["full", "one", "zero", "no group"])
def test_most_likely_effects_are_those_of_the_long_route(kind):
    args, rows = problem(7, sites=12, missing=0.5, kind=kind)
    data = statistics(*rows)
    assert 0 < short_sites(data) < len(data.site_group)
    # Densities are taken over the columns of a root where the covariance is singular, the same ones on both routes.
    for one, other in zip(drawn(args, data), drawn(args, split(data)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)


def test_effects_of_the_short_route_spread_as_their_conditional_covariance():
    # Group effects are zero, so that each site's rows alone tell its effect: covariance (S^-1 + n W^-1)^-1.
    args, rows = problem(8, p=3, sites=4, kind="no group")
    data, (_, within, site, _) = statistics(*rows), args
    rng, draws = np.random.default_rng(9), 40_000
    _, effects, _ = effect_draws(*(np.repeat(a[None], draws, axis=0) for a in args), data=data, rng=rng)
    for s in range(4):
        wanted = np.linalg.inv(np.linalg.inv(site) + data.n[s] * np.linalg.inv(within))
        root = np.linalg.inv(np.linalg.cholesky(wanted))
        # 24 entries, each with a standard error of at most sqrt(2 / draws) = .007: six of them are exceeded by chance in 1e-7
        np.testing.assert_allclose(root @ np.cov(effects[:, s].T) @ root.T, np.eye(3), atol=0.043)
