"""Predictive distributions against scipy, scoringrules, quadrature, Monte Carlo and their own symmetries."""

import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.integrate import quad

from bayesens.distributions.law import Distribution
from bayesens.distributions.mixtures import (
    LogNormalMixture,
    NormalMixture,
    SquaredNormalMixture,
    concatenate,
    transformed,
)
from bayesens.distributions.scores import crps_sample

CLASSES = [NormalMixture, SquaredNormalMixture, LogNormalMixture]
# The first quantile compiles its kernel, so no deadline.
repeatable = settings(derandomize=True, deadline=None)
every_class = pytest.mark.parametrize("cls", CLASSES)
P = np.array([1e-6, 0.005, 0.05, 0.3, 0.5, 0.8, 0.95, 0.995, 1 - 1e-6])


@st.composite
def parameters(draw, rows=1, largest_mean=6.0):
    """Weights, means and standard deviations that differ by up to a factor of 100, some weights nearly zero."""
    components = draw(st.integers(1, 5))
    number = st.floats(-largest_mean, largest_mean).map(lambda x: round(x, 3))
    cells = rows * components
    shape = (rows, components)
    weight = np.array(draw(st.lists(st.floats(1e-4, 1.0), min_size=cells, max_size=cells))).reshape(shape)
    mu = np.array(draw(st.lists(number, min_size=cells, max_size=cells))).reshape(shape)
    sigma = 10 ** np.array(draw(st.lists(st.floats(-1.0, 1.0), min_size=cells, max_size=cells))).reshape(shape)
    return weight / weight.sum(axis=1, keepdims=True), mu, sigma


def mixture(cls, seed=0, rows=4, components=3, spread=1.5) -> Distribution:
    rng = np.random.default_rng(seed)
    weight = rng.dirichlet(np.ones(components), rows)
    return cls(weight, rng.normal(0.5, spread, (rows, components)), rng.uniform(0.2, 0.9, (rows, components)))


def pieces(dist, *more):
    """Breakpoints at which an integrand of one row is smooth, and between which quad loses nothing."""
    p = np.concatenate(
        [[1e-14, 1e-10, 1e-6, 1e-3], np.linspace(0.01, 0.99, 25), 1 - np.array([1e-3, 1e-6, 1e-10, 1e-14])]
    )
    return np.unique(np.concatenate([dist.quantile(p).ravel(), more]))


def integral(f, breaks):
    return sum(quad(f, a, b, epsabs=1e-13, epsrel=1e-11)[0] for a, b in pairwise(breaks) if b > a)


def crps_by_quadrature(dist, y):
    breaks = pieces(dist, y)
    low, high = breaks[breaks <= y], breaks[breaks >= y]
    return integral(lambda x: float(dist.cdf(x)[0]) ** 2, low) + integral(lambda x: float(dist.sf(x)[0]) ** 2, high)


# ------------------------------------------------------------------------------------------------- one known component
class TestOneComponent:
    y = np.array([-3.0, 0.1, 1.0, 4.0])

    @pytest.mark.parametrize(
        ("dist", "reference"),
        [
            (NormalMixture(1.0, [[0.7]], 1.3), stats.norm(0.7, 1.3)),
            (LogNormalMixture(1.0, [[0.7]], 0.6), stats.lognorm(s=0.6, scale=np.exp(0.7))),
        ],
        ids=["normal", "lognormal"],
    )
    def test_equals_scipy(self, dist, reference):
        assert_allclose(dist.pdf(self.y), reference.pdf(self.y), rtol=1e-13)
        assert_allclose(dist.logpdf(self.y), reference.logpdf(self.y), rtol=1e-13)
        assert_allclose(dist.cdf(self.y), reference.cdf(self.y), rtol=1e-13)
        assert_allclose(dist.sf(self.y), reference.sf(self.y), rtol=1e-13)
        assert_allclose(dist.quantile(P)[0], reference.ppf(P), rtol=1e-12)
        assert_allclose(dist.mean(), reference.mean(), rtol=1e-13)
        assert_allclose(dist.variance(), reference.var(), rtol=1e-13)
        assert_array_equal(dist.variance_between(), 0.0)

    def test_squared_normal_without_cut_is_scaled_noncentral_chi2(self):
        mu, sigma = 12.0, 0.8  # 15 sigma from 0: the cut changes nothing
        dist = SquaredNormalMixture(1.0, [[mu]], sigma)
        reference = stats.ncx2(df=1, nc=(mu / sigma) ** 2, scale=sigma**2)
        y = reference.ppf([0.01, 0.5, 0.99])
        assert_allclose(dist.cdf(y), reference.cdf(y), rtol=1e-9)
        assert_allclose(dist.logpdf(y), reference.logpdf(y), rtol=1e-9)
        assert_allclose(dist.mean(), reference.mean(), rtol=1e-12)
        assert_allclose(dist.variance(), reference.var(), rtol=1e-12)

    def test_squared_normal_at_standard_values(self):
        dist = SquaredNormalMixture(1.0, [[0.0]], 2.0)  # half of 4 chi2(1): E = 2, E Y^2 = 24
        assert_allclose(dist.mass_at_zero(), 0.5)
        assert_allclose(dist.mean(), 2.0)
        assert_allclose(dist.variance(), 24.0 - 4.0)

    @repeatable
    @given(st.floats(-8, 8), st.floats(-8, 8), st.floats(0.05, 5))
    def test_crps_equals_scoringrules(self, y, mu, sigma):
        assert_allclose(
            NormalMixture(1.0, [mu], sigma).crps(y), scoringrules.crps_normal(y, mu, sigma), rtol=1e-9, atol=1e-12
        )

    @repeatable
    @given(st.floats(0.01, 20), st.floats(-2, 2), st.floats(0.05, 1.5))
    def test_lognormal_crps_equals_scoringrules(self, y, mu, sigma):
        expected = scoringrules.crps_lognormal(y, mu, sigma)
        assert_allclose(LogNormalMixture(1.0, [mu], sigma).crps(y), expected, rtol=1e-9, atol=1e-11)


# ------------------------------------------------------------------------------------------------------------ mixtures
@repeatable
@given(parameters(rows=3), st.floats(-10, 10))
def test_normal_mixture_crps_equals_scoringrules(par, y):
    weight, mu, sigma = par
    expected = scoringrules.crps_mixnorm(np.full(3, y), mu, sigma, weight)
    assert_allclose(NormalMixture(*par).crps(y), expected, rtol=1e-9, atol=1e-11)


@every_class
@pytest.mark.parametrize("seed", range(4))
def test_crps_equals_quadrature(cls, seed):
    spread = [0.3, 1.5, 6.0, 1.0][seed] if cls is not LogNormalMixture else 0.7
    dist = mixture(cls, seed, rows=1, components=1 + seed, spread=spread)
    for y in [*dist.quantile([1e-6, 0.2, 0.9])[0], 0.0, 30.0]:
        assert_allclose(dist.crps(y)[0], crps_by_quadrature(dist, y), rtol=0, atol=1e-9 * float(dist.sd()[0]))


@every_class
def test_crps_below_the_support_adds_the_distance(cls):
    dist = mixture(cls, 1)
    far = dist.crps(-2e3) - dist.crps(-1e3)
    assert_allclose(far, 1e3, rtol=1e-9)


@pytest.mark.parametrize(("mu", "nu"), [(0.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.7, 0.7), (-0.7, -0.7), (0.0, -1.0)])
def test_squared_crps_is_continuous_where_owens_t_is_not(mu, nu):
    def crps(shift):
        return SquaredNormalMixture([0.3, 0.7], [mu + shift, nu - 2 * shift], [0.5, 1.5]).crps(0.4)

    assert_allclose(crps(0.0), crps(1e-9), rtol=1e-7)
    assert_allclose(crps(0.0), crps(-1e-9), rtol=1e-7)


def test_squared_crps_far_from_zero_and_far_below_it():
    mu, sigma = 1e5, 1.0  # nearly normal around 1e10 with sd 2e5
    dist = SquaredNormalMixture([0.5, 0.5], [[mu, mu]], sigma)
    expected = scoringrules.crps_normal(mu**2 + 1e5, mu**2 + 1.0, 2e5)
    assert_allclose(dist.crps(mu**2 + 1e5), expected, rtol=1e-4)
    none = SquaredNormalMixture([0.5, 0.5], [[-50.0, -60.0]], 1.0)
    assert_allclose(none.crps([0.0]), 0.0, atol=1e-12)
    assert_allclose(none.crps([3.0]), 3.0)


@every_class
@pytest.mark.parametrize("seed", range(3))
def test_moments_equal_quadrature_of_the_density(cls, seed):
    dist = mixture(cls, seed, rows=1, spread=0.7)
    breaks = pieces(dist)
    breaks = breaks[breaks > 0] if cls is not NormalMixture else breaks
    if cls is SquaredNormalMixture:  # y = z^2 takes the singular density at 0 away
        roots = np.concatenate([[0.0], np.sqrt(breaks)])
        moment = [
            integral(lambda z, k=k: z ** (2 * k) * float(dist.pdf(z * z)[0]) * 2 * z if z > 0 else 0.0, roots)
            for k in range(3)
        ]
        assert_allclose(moment[0], 1.0 - dist.mass_at_zero()[0], rtol=1e-9)
    else:
        moment = [integral(lambda x, k=k: x**k * float(dist.pdf(x)[0]), breaks) for k in range(3)]
        assert_allclose(moment[0], 1.0, rtol=1e-9)
    assert_allclose(dist.mean()[0], moment[1], rtol=1e-8)
    assert_allclose(dist.variance()[0], moment[2] - moment[1] ** 2, rtol=1e-6)


@every_class
def test_parts_of_the_variance(cls):
    dist = mixture(cls, 3)
    assert_allclose(dist.variance_between() + dist.variance_within(), dist.variance())
    assert_allclose(dist.sd() ** 2, dist.variance())
    same = cls([0.4, 0.6], [[0.5, 0.5]], 0.3)
    assert_allclose(same.variance_between(), 0.0, atol=1e-15)
    means = np.array([cls(1.0, dist.mu[..., [k]], dist.sigma[..., [k]]).mean() for k in range(3)]).T
    assert_allclose(dist.variance_between(), np.einsum("rc,rc->r", dist.weight, (means - dist.mean()[:, None]) ** 2))


@pytest.mark.parametrize("z", [8.9, 9.1, 1e4, 1e7])
def test_variance_of_the_square_keeps_its_digits(z):
    # Far from the cut: 4 mu^2 s^2 + 2 s^4, where the difference of the moments would leave no digit.
    sigma = 0.5
    dist = SquaredNormalMixture(1.0, [z * sigma], sigma)
    assert_allclose(dist.variance(), sigma**4 * (4 * z**2 + 2), rtol=1e-12)


# ----------------------------------------------------------------------------------------------- densities, cdf, tails
@every_class
def test_density_is_the_derivative_of_the_cdf(cls):
    dist = mixture(cls, 5)
    y = dist.quantile(0.7) + 0.01
    h = 1e-5 * y
    assert_allclose(dist.pdf(y), (dist.cdf(y + h) - dist.cdf(y - h)) / (2 * h), rtol=1e-7)
    assert_allclose(dist.cdf(y) + dist.sf(y), 1.0)


def test_log_density_does_not_underflow():
    dist = NormalMixture([0.5, 0.5], [[0.0, 1.0]], 1.0)
    assert_allclose(dist.logpdf(41.0), np.log(0.5) - 0.5 * 40**2 - 0.5 * np.log(2 * np.pi), rtol=1e-12)
    assert dist.logpdf(41.0)[0] < -800
    assert_allclose(dist.logpdf(1e6), np.log(0.5) - 0.5 * (1e6 - 1) ** 2 - 0.5 * np.log(2 * np.pi), rtol=1e-12)
    assert_allclose(SquaredNormalMixture([0.5, 0.5], [[0.0, 1.0]], 1.0).logpdf(41.0**2),
                    dist.logpdf(41.0) - np.log(2 * 41.0), rtol=1e-12)  # fmt: skip
    assert_allclose(
        LogNormalMixture([0.5, 0.5], [[0.0, 1.0]], 1.0).logpdf(np.exp(41.0)), dist.logpdf(41.0) - 41.0, rtol=1e-12
    )


@every_class
def test_at_and_beyond_the_ends(cls):
    dist = mixture(cls, 2)
    assert_array_equal(dist.logpdf(np.inf), -np.inf)
    assert_allclose(dist.cdf(np.inf), 1.0, rtol=1e-15)
    assert_allclose(dist.sf(-np.inf), 1.0, rtol=1e-15)
    assert_array_equal(dist.cdf(-np.inf), 0.0)
    assert_array_equal(dist.sf(np.inf), 0.0)
    assert np.all(np.isnan(dist.logpdf(np.nan)))
    assert np.all(np.isnan(dist.cdf(np.nan)))
    assert np.all(np.isnan(dist.crps(np.nan)))
    if cls is not NormalMixture:
        assert_array_equal(dist.logpdf(-1.0), -np.inf)
        assert_array_equal(dist.pdf(-1.0), 0.0)
        assert_array_equal(dist.cdf(-1.0), 0.0)


def test_probabilities_do_not_exceed_one_by_rounding():
    dist = mixture(NormalMixture, rows=2000, components=7)
    assert dist.weight.sum(axis=1).max() > 1.0
    assert dist.cdf(1e3).max() == 1.0
    assert dist.sf(-1e3).max() == 1.0


def test_mass_at_zero():
    dist = mixture(SquaredNormalMixture, 7)
    expected = np.einsum("rc,rc->r", dist.weight, stats.norm.cdf(-dist.mu / dist.sigma))
    assert_allclose(dist.mass_at_zero(), expected)
    assert_allclose(dist.logpdf(0.0), np.log(expected))
    assert_allclose(dist.cdf(0.0), expected)
    assert_array_equal(dist.quantile(0.9 * expected.min()), 0.0)
    assert_array_equal(dist.quantile(0.5) > 0.0, expected < 0.5)
    for other in (NormalMixture, LogNormalMixture):
        assert_array_equal(mixture(other).mass_at_zero(), 0.0)


# ----------------------------------------------------------------------------------------------------------- quantiles
@every_class
@repeatable
@given(par=parameters(rows=2, largest_mean=3.0))
def test_quantile_inverts_the_cdf(cls, par):
    dist = cls(*par)
    q = dist.quantile(P)
    assert np.all(np.diff(q, axis=1) >= 0.0)
    for j, p in enumerate(P):
        inside = q[:, j] > 0.0 if cls is SquaredNormalMixture else np.ones(2, dtype=bool)
        tail, target = (dist.cdf(q[:, j]), p) if p < 0.5 else (dist.sf(q[:, j]), 1.0 - p)
        assert_allclose(tail[inside], target, rtol=1e-8)
        assert np.all(dist.mass_at_zero()[~inside] >= p * (1 - 1e-12))


@repeatable
@given(parameters(rows=2))
def test_normal_quantile_is_exact_to_the_least_sigma(par):
    dist = NormalMixture(*par)
    q = dist.quantile(P)
    for j, p in enumerate(P):
        residual = dist.cdf(q[:, j]) - p if p < 0.5 else (1.0 - p) - dist.sf(q[:, j])
        # Where the cdf is flat (between far components), x is known no better than rounding of p allows.
        limit = 1e-12 * dist.sigma.min(axis=1) + 1e-15 * (min(p, 1 - p) / dist.pdf(q[:, j]) + np.abs(q[:, j]))
        assert np.all(np.abs(residual / dist.pdf(q[:, j])) <= limit)


@every_class
def test_quantile_returns_to_where_it_came_from(cls):
    dist = mixture(cls, 11, rows=200)
    y = dist.sample(1, np.random.default_rng(2))[0]
    y = np.where(y == 0.0, 0.01, y)
    back = np.array([dist[i].quantile(dist[i].cdf(y[i])) for i in range(200)])
    assert_allclose(back, y, rtol=1e-9)


def test_quantiles_in_far_tails_and_degenerate_mixtures():
    p = np.array([1e-300, 1e-12, 1e-6, 0.3, 1 - 1e-6, 1 - 1e-12])
    z = np.where(p < 0.5, stats.norm.ppf(p), stats.norm.isf(1 - p))
    nearly_equal = NormalMixture([0.3, 0.7], [[1.0, 1.0 + 1e-13]], [2.0, 2.0 * (1 + 1e-14)])
    assert_allclose(nearly_equal.quantile(p)[0], 1.0 + 2.0 * z, rtol=1e-11)
    equal = NormalMixture([0.3, 0.7], [[1.0, 1.0]], 2.0)
    assert_allclose(equal.quantile(p)[0], 1.0 + 2.0 * z, rtol=1e-13)
    apart = NormalMixture([0.5, 0.5], [[0.0, 100.0]], 1.0)  # the far component only halves the weight
    assert_allclose(apart.quantile(p[:3])[0], stats.norm.ppf(2 * p[:3]), rtol=1e-12)
    assert_allclose(apart.quantile(p[4:])[0], 100.0 + stats.norm.isf(2 * (1 - p[4:])), rtol=1e-12)
    # In units of the narrow component the quantile of the wide one's tail lies at 1e10.
    scales = NormalMixture([1 - 2.0**-20, 2.0**-20], [[0.0, 1e4]], [1e-6, 1e3])
    assert_allclose(scales.quantile(1 - 2.0**-23)[0], 1e4 + 1e3 * stats.norm.isf(0.125), rtol=1e-12)


def test_quantile_between_far_components_is_monotone():
    dist = NormalMixture([0.5, 0.5], [[0.0, 1000.0]], 1.0)  # F is 1/2 to the last digit from 9 to 991
    p = 0.5 + np.arange(-20, 21) * 2.0**-53
    q = dist.quantile(p)[0]
    assert np.all(np.diff(q) >= 0.0)
    assert 5.0 < q[20] < 995.0
    # And where neighbouring probabilities differ by less than the rounding of the cdf.
    many = mixture(NormalMixture, rows=300).quantile(0.3 + np.arange(20) * 2.0**-54)
    assert np.all(np.diff(many, axis=1) >= 0.0)


def test_quantile_takes_any_order_and_shape():
    dist = mixture(NormalMixture, rows=6)[np.arange(6).reshape(2, 3)]
    assert dist.shape == (2, 3)
    p = np.array([0.9, 0.1, 0.5, 0.9])
    q = dist.quantile(p)
    assert q.shape == (2, 3, 4)
    for j in range(4):
        assert_array_equal(q[..., j], dist.quantile(p[j]))
    assert dist.quantile([]).shape == (2, 3, 0)
    assert dist[0, 0].quantile(0.5).shape == ()
    assert dist[:0].quantile(p).shape == (0, 3, 4)
    lower, upper = dist.interval(0.8)
    assert_allclose(lower, dist.quantile(0.1))
    assert_allclose(upper, dist.quantile(0.9))


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, np.nan, [0.5, 2.0], [[0.5]]])
def test_quantile_refuses(p):
    with pytest.raises(ValueError, match=r"probability inside \(0, 1\), or a list of them; got"):
        mixture(NormalMixture).quantile(p)


@pytest.mark.parametrize("level", [0.0, 1.0, 90])
def test_interval_refuses(level):
    with pytest.raises(ValueError, match=f"inside \\(0, 1\\), such as 0.9; got {level}"):
        mixture(NormalMixture).interval(level)


# ------------------------------------------------------------------------------------------------------ missing members
def everything(dist, y):
    return [
        dist.pdf(y), dist.logpdf(y), dist.cdf(y), dist.sf(y), dist.pit(y), dist.crps(y), dist.mean(), dist.variance(),
        dist.sd(), dist.variance_between(), dist.variance_within(), dist.quantile(0.05), dist.quantile(0.9),
        dist.mass_at_zero(),
    ]  # fmt: skip


@every_class
@pytest.mark.parametrize("absent", [0.0, np.nan])
def test_a_missing_component_counts_for_nothing(cls, absent):
    full = mixture(cls, 4)
    weight, mu, sigma = (np.insert(x, 1, np.nan, axis=1) for x in (full.weight, full.mu, full.sigma))
    weight[:, 1] = absent
    holed = cls(weight, mu, sigma)
    for with_hole, without in zip(everything(holed, 1.3), everything(full, 1.3), strict=True):
        assert_allclose(with_hole, without, rtol=1e-13)
    assert np.all(np.isfinite(holed.sample(500, np.random.default_rng(1))))


@every_class
def test_rows_without_a_component_are_nan_and_leave_the_others_alone(cls):
    full = mixture(cls, 6)
    weight, mu = full.weight.copy(), full.mu.copy()
    weight[1] = 0.0
    weight[2] = np.nan
    mu[3, 0] = np.nan  # a component that counts
    dist = cls(weight, mu, full.sigma)
    for value in [*everything(dist, 0.7), dist.sample(3, np.random.default_rng(1))[0]]:
        assert_array_equal(np.isnan(value), [False, True, True, True])
    for value, expected in zip(everything(dist[0], 0.7), everything(full[0], 0.7), strict=True):
        assert_array_equal(value, expected)


# ---------------------------------------------------------------------------------------------------------- symmetries
@repeatable
@given(parameters(rows=2), st.floats(-50, 50), st.floats(0.01, 100))
def test_normal_mixture_moves_with_its_units(par, shift, scale):
    weight, mu, sigma = par
    one, other = NormalMixture(*par), NormalMixture(weight, shift + scale * mu, scale * sigma)
    y = np.array([0.3, -2.0])
    moved = shift + scale * y
    room = 1e-10 * scale * (1 + abs(shift / scale))
    assert_allclose(other.quantile(P), shift + scale * one.quantile(P), rtol=1e-10, atol=room)
    assert_allclose(other.crps(moved), scale * one.crps(y), rtol=1e-9, atol=room)
    assert_allclose(other.cdf(moved), one.cdf(y), rtol=1e-7)
    assert_allclose(other.logpdf(moved), one.logpdf(y) - np.log(scale), rtol=1e-7, atol=1e-7)
    assert_allclose(other.sd(), scale * one.sd(), rtol=1e-9)


@repeatable
@given(parameters(rows=2, largest_mean=3.0), st.floats(0.1, 10))
def test_transformed_mixtures_move_with_their_units(par, scale):
    weight, mu, sigma = par
    y = np.array([0.3, 2.0])
    for one, other in [
        (SquaredNormalMixture(*par), SquaredNormalMixture(weight, np.sqrt(scale) * mu, np.sqrt(scale) * sigma)),
        (LogNormalMixture(weight, mu, sigma / 10), LogNormalMixture(weight, mu + np.log(scale), sigma / 10)),
    ]:
        assert_allclose(other.quantile(P), scale * one.quantile(P), rtol=1e-8, atol=1e-12)
        assert_allclose(other.crps(scale * y), scale * one.crps(y), rtol=1e-8, atol=1e-12 * scale)
        assert_allclose(other.mean(), scale * one.mean(), rtol=1e-9)
        assert_allclose(other.logpdf(scale * y), one.logpdf(y) - np.log(scale), rtol=1e-8, atol=1e-10)


@every_class
def test_order_of_components_and_splitting_one_change_nothing(cls):
    dist = mixture(cls, 8)
    turned = cls(dist.weight[:, ::-1], dist.mu[:, ::-1], dist.sigma[:, ::-1])
    weight, mu, sigma = (np.concatenate([x, x[:, :1]], axis=1) for x in (dist.weight, dist.mu, dist.sigma))
    weight[:, 0], weight[:, -1] = 0.25 * dist.weight[:, 0], 0.75 * dist.weight[:, 0]
    for other in (turned, cls(weight, mu, sigma)):
        for value, expected in zip(everything(other, 0.9), everything(dist, 0.9), strict=True):
            assert_allclose(value, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "inverse"), [("identity", lambda z: z), ("sqrt", lambda z: max(z, 0.0) ** 2), ("log", np.exp)]
)
def test_transformed_is_the_law_of_the_inverse(name, inverse):
    latent = mixture(NormalMixture, 9)
    dist = transformed(latent, name)
    assert dist.transform.name == name
    assert_allclose(dist.quantile(P), np.vectorize(inverse)(latent.quantile(P)), rtol=1e-13)
    with pytest.raises(ValueError, match="Unknown transform 'cube'; use one of 'identity', 'sqrt', 'log'"):
        transformed(latent, "cube")


# --------------------------------------------------------------------------------------------------------- Monte Carlo
@every_class
def test_draws_have_the_moments_the_cdf_and_the_crps(cls):
    # Sixteen comparisons at 4 standard errors fail by chance in 0.1 % of seeds; the seed is fixed.
    size = 40_000
    dist = mixture(cls, 21, spread=0.7)
    draws = dist.sample(size, np.random.default_rng(22))
    assert draws.shape == (size, 4)

    def agrees(sample, value):
        assert np.all(np.abs(sample.mean(axis=0) - value) < 4 * sample.std(axis=0) / np.sqrt(size))

    agrees(draws, dist.mean())
    agrees((draws - dist.mean()) ** 2, dist.variance())
    agrees(draws <= 1.0, dist.cdf(1.0))
    # The sampling error of a CRPS of draws is below that of the mean |x - y|.
    error = 4 * np.abs(draws - 1.0).std(axis=0) / np.sqrt(size)
    assert np.all(np.abs(crps_sample(draws, np.full(4, 1.0), fair=True) - dist.crps(1.0)) < error)


@every_class
def test_pit_of_draws_is_uniform(cls):
    dist = mixture(cls, 31, rows=3000)
    rng = np.random.default_rng(32)
    pit = dist.pit(dist.sample(1, rng)[0], rng)
    assert stats.kstest(pit, "uniform").pvalue > 0.003  # fails by chance in 0.3 % of seeds; the seed is fixed


def test_pit_at_the_point_mass():
    dist = SquaredNormalMixture(1.0, np.zeros((2, 1)), 1.0)
    with pytest.raises(ValueError, match=r"1 values are 0, .* pass rng=numpy.random.default_rng"):
        dist.pit([0.0, 1.0])
    assert_allclose(dist.pit([4.0, 1.0]), stats.norm.cdf([2.0, 1.0]))
    many = dist[np.zeros(2000, dtype=int)].pit(np.zeros(2000), np.random.default_rng(1))
    assert stats.kstest(many, stats.uniform(0, 0.5).cdf).pvalue > 0.003


# ------------------------------------------------------------------------------------------------------------- values
def test_rows_are_picked_and_joined():
    dist = mixture(LogNormalMixture, 12, rows=6)
    assert repr(dist) == "LogNormalMixture(shape=(6,), components=3)"
    picked = dist[[4, 1]]
    assert isinstance(picked, LogNormalMixture)
    assert_array_equal(picked.mean(), dist.mean()[[4, 1]])
    assert_array_equal(dist[dist.mean() > 1].mean(), dist.mean()[dist.mean() > 1])
    assert_array_equal(concatenate([dist[:2], dist[2:]]).mu, dist.mu)
    with pytest.raises(IndexError):
        dist[0, 0]


def test_joining_fills_up_with_absent_components():
    one, three = mixture(NormalMixture, components=1), mixture(NormalMixture, components=3)
    both = concatenate([one, three])
    assert both.shape == (8,)
    for value, a, b in zip(everything(both, 0.2), everything(one, 0.2), everything(three, 0.2), strict=True):
        assert_allclose(value, np.concatenate([a, b]), rtol=1e-13, atol=1e-15)
    with pytest.raises(TypeError, match="got LogNormalMixture, NormalMixture"):
        concatenate([one, mixture(LogNormalMixture)])
    with pytest.raises(TypeError, match="got none"):
        concatenate([])


def test_parameters_broadcast_and_y_too():
    dist = NormalMixture([0.5, 0.5], np.zeros((4, 3, 1)) + [0.0, 2.0], 1.0)
    assert dist.shape == (4, 3)
    assert dist.cdf(np.ones(3)).shape == (4, 3)
    assert dist.crps(np.ones((5, 1, 1))).shape == (5, 4, 3)
    assert_allclose(NormalMixture(0.5, [0.0, 2.0], 1.0).mean(), 1.0)  # half each


def test_values_are_frozen():
    dist = mixture(NormalMixture)
    with pytest.raises(AttributeError):
        dist.mu = 0.0
    with pytest.raises(ValueError, match="read-only"):
        dist.mu[0] = 0.0


def test_single_precision_is_taken_in():
    weight = np.full((3, 7), 1 / 7, dtype=np.float32)
    dist = NormalMixture(weight, np.arange(7, dtype=np.float32), np.float32(1.0))
    assert_allclose(dist.mean(), 3.0, rtol=1e-7)
    assert dist.quantile(0.5).dtype == np.float64


@pytest.mark.parametrize(
    ("weight", "sigma", "message"),
    [
        ([[0.5, 0.5], [0.5, 0.4]], 1.0, r"1 of 2 rows .* \(first: row 1\) have weights that do not sum to one"),
        ([[1.5, -0.5], [0.5, 0.5]], 1.0, r"1 of 2 rows .* \(first: row 0\) have a negative weight"),
        ([[0.5, 0.5], [0.5, 0.5]], 0.0, r"2 of 2 rows .* have a standard deviation that is not positive"),
        ([[0.5, 0.5], [0.5, 0.5]], [[1.0, 1.0], [1.0, -1.0]], r"1 of 2 rows .* \(first: row 1\) have a standard"),
    ],
)
def test_what_is_refused(weight, sigma, message):
    with pytest.raises(ValueError, match=message):
        NormalMixture(weight, np.zeros((2, 2)), sigma)


def test_importing_does_not_load_numba():
    code = "import sys, bayesens.distributions.mixtures; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.benchmark
@every_class
def test_time_of_a_hundred_thousand_rows(cls):
    dist = mixture(cls, 1, rows=100_000, components=4)
    y = dist.sample(1, np.random.default_rng(1))[0]
    dist[:2].quantile(P)
    for name, limit, call in [
        ("crps", 0.6, lambda: dist.crps(y)),
        ("three quantiles", 1.0, lambda: dist.quantile([0.05, 0.5, 0.95])),
    ]:
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        print(f"{cls.__name__} {name}: {seconds:.2f} s")
        assert seconds < limit
