"""Predictive distributions against scipy, scoringrules, quadrature and Monte Carlo, and how they behave as values."""

import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
import scoringrules
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from random_mixtures import P, every_class, mixture, parameters, repeatable
from scipy import stats
from scipy.integrate import quad

from bayesens.distributions.mixtures import (
    LogNormalMixture,
    NormalMixture,
    SquaredNormalMixture,
    concatenate,
)
from bayesens.distributions.scores import crps_sample


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
