"""The predictive law around corrected members against sums over all draws, written out."""

import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline
from scipy.special import logsumexp
from scipy.stats import kstest, norm, t

from bayesens.distributions.mixtures import NormalMixture
from bayesens.likelihoods.corrected.matched import component_match
from bayesens.likelihoods.corrected.predictive import CorrectedDraws, CorrectedMixture


def law(seed=0, n=30, k=3, draws=400, p=2, missing=True, spread=0.1, tail=None):
    rng = np.random.default_rng(seed)
    parameters = CorrectedDraws(
        rng.dirichlet(np.full(k, 30.0), size=(draws, 2)), np.exp(-0.5 + spread * rng.normal(size=(draws, k))),
        0.3 + 0.5 * spread * rng.normal(size=(draws, p)), [0.5, 0.9] + spread * rng.normal(size=(draws, k, 2)),
        0.4 * np.exp(3.0 * spread * rng.normal(size=(draws, k, 2))),
        np.stack([r + (1.0 - r) * np.eye(k) for r in (0.2, 0.8)]),
        None if tail is None else 2.0 + (tail - 2.0) * np.exp(3.0 * spread * np.random.default_rng(9).normal(size=draws)),
    )  # fmt: skip
    available = rng.random((n, k)) >= 0.3 * missing
    design = np.stack([np.ones((n, k)), rng.normal(size=(n, 1)) + 0.3 * rng.normal(size=(n, k))], axis=2)
    return CorrectedMixture(parameters, design, 1e5 + 0.2 * rng.normal(size=(n, k)), 0.1 * rng.random((n, k)),
                            rng.random((n, 2)) < 0.4, rng.normal(size=(n, p)), available, rng.integers(2, size=n))  # fmt: skip


def parts(mixture, i):
    """Weights, means and standard deviations of a row, (draw, member present)."""
    d, there = mixture.draws, np.flatnonzero(mixture.available[i])
    weight = d.weight[:, mixture.kind[i]][:, there]
    mean = mixture.offset[i, there] + np.einsum("kc,skc->sk", mixture.design[i, there], d.coefficient[:, there])
    share = weight / weight.sum(axis=1, keepdims=True)
    extra = added(d, share, there, np.flatnonzero(mixture.new[i]))[:, None] + mixture.left[i, there]
    return share, mean, d.sigma[:, there] * np.exp(d.width @ mixture.x[i])[:, None] * np.sqrt(extra)


def added(d, share, there, levels):
    """One and what new effects add: the error of the weighted mean, less half of the spread, draw by draw."""
    out = np.ones(len(share))
    if d.nu is not None:
        tail = (d.nu + t.ppf(0.95, d.nu) ** 2) / (d.nu + 1.0)
    for i, w in enumerate(share):
        for level in levels:
            sd = d.new[i, there, level]
            covariance = np.diag(sd) @ d.alike[level][np.ix_(there, there)] @ np.diag(sd)
            error = w @ covariance @ w
            size = w @ d.sigma[i, there] ** 2
            if d.nu is not None:
                size *= tail[i]
            out[i] += (error - 0.5 * (w @ np.diag(covariance) - error)) / size
    return np.maximum(out, 0.25)


def kernel(mixture):
    nu = mixture.draws.nu
    return norm if nu is None else t(nu[:, None])


def scaled(function, kernel, z, mean, scale):
    """A method of scipy's laws, which take location and scale after parameters that a frozen one has already."""
    return getattr(kernel, function)((z - mean) / scale) - (np.log(scale) if function == "logpdf" else 0.0)


TAILS = pytest.mark.parametrize("tail", [None, 4.0, 12.0])


@TAILS
def test_log_densities_under_every_draw(tail):
    mixture = law(tail=tail)
    z = mixture.offset[:, 0] + np.random.default_rng(1).normal(size=len(mixture))
    below = np.arange(len(mixture)) % 5 == 0
    got = mixture.log_likelihood(z, below)
    for i in range(len(mixture)):
        if not mixture.available[i].any():
            assert np.isnan(got[:, i]).all()
            continue
        w, m, s = parts(mixture, i)
        of = "logcdf" if below[i] else "logpdf"
        term = scaled(of, kernel(mixture), 0.0 if below[i] else z[i], m, s)
        np.testing.assert_allclose(got[:, i], logsumexp(np.log(w) + term, axis=1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mixture.log_density(z, below), logsumexp(got, axis=0) - np.log(400), rtol=1e-9)


@TAILS
def test_moments_are_exact_and_add_up(tail):
    mixture = law(tail=tail)
    moments = mixture.moments()
    for i in np.flatnonzero(mixture.available.any(axis=1)):
        w, m, s = parts(mixture, i)
        line, s = (w * m).sum(axis=1), s * kernel(mixture).std()
        assert moments.mean[i] == pytest.approx(line.mean(), rel=1e-12)
        assert moments.within[i] == pytest.approx((w * s**2).sum(axis=1).mean(), rel=1e-9)
        assert moments.between[i] == pytest.approx((w * (m - line[:, None]) ** 2).sum(axis=1).mean(), rel=1e-6)
        assert moments.parameter[i] == pytest.approx(line.var(), rel=1e-6)
    assert np.isnan(moments.mean[~mixture.available.any(axis=1)]).all()


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.15])
def test_matched_quantiles_are_within_one_percent_of_the_width_of_the_full_mixture(spread):
    mixture = law(seed=2, draws=1500, spread=spread)
    levels = np.array([0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995])
    got = mixture.matched().quantile(levels)
    for i in np.flatnonzero(mixture.available.any(axis=1)):
        w, m, s = (a.reshape(1, -1) for a in parts(mixture, i))
        exact = NormalMixture(w / w.sum(), m, s).quantile(levels)[0]
        assert np.max(np.abs(got[i] - exact)) < 0.01 * (exact[5] - exact[1])


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.02, 0.1])
@pytest.mark.parametrize("tail", [3.0, 8.0])
def test_matched_quantiles_of_t_kernels_and_draws_of_them(spread, tail):
    mixture = law(seed=2, n=8, draws=1500, spread=spread, tail=tail, missing=False)
    levels = np.array([0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995])
    got, drawn = mixture.matched().quantile(levels), mixture.sample(300, np.random.default_rng(0))
    shape = kernel(mixture)
    for i in range(len(mixture)):
        w, m, s = parts(mixture, i)

        def summed(of, z, w=w, m=m, s=s):
            return np.mean(np.sum(w * np.exp(scaled(of, shape, z, m, s)), axis=1))

        # All sums at 181 points, close together where the mass is, and a curve through values and slopes.
        z = m.mean() + 0.5 * np.sinh(np.linspace(-6.0, 6.0, 181))
        cdf = CubicHermiteSpline(z, *([summed(of, each) for each in z] for of in ("logcdf", "logpdf")))
        exact = np.array([cdf.solve(p, extrapolate=False)[0] for p in levels])
        np.testing.assert_allclose([summed("logcdf", each) for each in exact], levels, rtol=0, atol=2e-6)
        apart = np.abs(got[i] - exact) / (exact[5] - exact[1])
        assert np.max(apart[1:-1]) < 0.01
        assert np.max(apart) < 0.05
        # Of 32 tests a correct program fails one with a chance of .3 %.
        assert kstest(drawn[:, i], cdf).pvalue > 1e-4
        weight, mean, sd = mixture.components(np.array([i]), np.arange(1500))
        normals = np.mean(np.sum(weight * norm.cdf(exact[:, None, None, None], mean, sd), axis=3), axis=(1, 2))
        np.testing.assert_allclose(normals, levels, atol=3e-3)


def test_parts_of_rows_are_the_whole():
    mixture = law(n=60)
    whole = mixture.matched()
    seen = np.zeros(len(mixture), dtype=int)
    for rows, part in mixture.matched_parts(size=7):
        seen[rows] += 1
        np.testing.assert_allclose(part.quantile(0.3), whole[rows].quantile(0.3), rtol=1e-12)
    assert np.all(seen == 1)


def test_some_rows_are_the_same_alone():
    mixture = law()
    pick = np.array([3, 11, 7])
    z = mixture.offset[:, 0]
    np.testing.assert_array_equal(mixture.select(pick).log_density(z[pick]), mixture.log_density(z)[pick])


def test_draws_have_the_moments_of_the_law():
    """Five standard errors of 20,000 draws in 30 rows: a right sampler fails with probability 2e-5."""
    mixture = law(n=30, missing=False)
    sample, moments = mixture.sample(20_000, np.random.default_rng(3)), mixture.moments()
    error = np.sqrt(moments.variance / 20_000)
    assert np.all(np.abs(sample.mean(axis=0) - moments.mean) < 5.0 * error)
    np.testing.assert_allclose(sample.var(axis=0), moments.variance, rtol=0.08)


def test_a_coefficient_that_does_not_vary_is_no_direction_in_which_draws_are_cut():
    """Its rounding errors once were: two directions were as good, and those of rows and cells another one each."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        share, size = rng.uniform(0.2, 0.8, 400), np.exp(rng.normal(0.0, 0.3, 400))
        coefficient = np.column_stack([rng.normal(0.3, 0.1, 400), np.ones(400)])
        found = component_match(share, coefficient, size, np.ones(400), np.zeros((400, 0)))
        strength = np.sort((found.forms @ np.ones(2)) ** 2)
        assert strength[0] < 1e-20 * strength[1]
