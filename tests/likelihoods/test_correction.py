"""A member's correction against dense matrices, refits and PyMC's sampler."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import gammaln
from scipy.stats import multivariate_t

import bayesens as be
from bayesens.likelihoods.corrected.correction import Coefficients, Sums, correct, given_ratios, places

PRIOR = Coefficients(np.array([0.2, 0.7]), np.array([3.0, 0.5]), 0.8)


def log_ratio(r):
    """A half Student t prior with three degrees of freedom, up to a constant."""
    return -2.0 * np.log1p(r**2 / 3.0)


def problem(seed, n=40, sites=7, groups=3, weighted=False):
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.arange(sites) % groups)
    site = rng.permutation(np.arange(n) % sites)
    x = np.column_stack([np.ones(n), rng.normal(size=n)])
    y = (
        x @ [0.3, 0.8]
        + 0.7 * rng.normal(size=sites)[site]
        + 0.4 * rng.normal(size=groups)[group][site]
        + rng.normal(size=n)
    )
    weight = rng.uniform(0.3, 2.0, size=n) if weighted else np.ones(n)
    return x, y, weight, site, group


def sums_of(x, y, weight, site, group):
    return Sums.of(np.column_stack([x, y]), weight, site, group, int(group.max()) + 1)


def covariance(weight, site, group, a, b):
    """Of y about its regression, in units of tau^2."""
    same_site, same_group = np.equal.outer(site, site), np.equal.outer(group[site], group[site])
    return np.diag(1.0 / weight) + a**2 * same_site + b**2 * same_group


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ratios", [(0.0, 0.0), (0.7, 0.0), (0.0, 0.5), (1.3, 0.4)])
def test_the_posterior_given_ratios_is_that_of_a_dense_regression(ratios, weighted):
    x, y, weight, site, group = problem(1, weighted=weighted)
    found = given_ratios(sums_of(x, y, weight, site, group), PRIOR, *(np.array([r]) for r in ratios))
    inverse = np.linalg.inv(covariance(weight, site, group, *ratios))
    precision = x.T @ inverse @ x + np.diag((PRIOR.scale / PRIOR.sd) ** 2)
    mean = np.linalg.solve(precision, x.T @ inverse @ y + PRIOR.precision * PRIOR.mean)
    np.testing.assert_allclose(found.mean[0], mean, rtol=1e-10)
    np.testing.assert_allclose(found.root[0] @ found.root[0].T, np.linalg.inv(precision), rtol=1e-9)
    rest = y - x @ mean
    squares = rest @ inverse @ rest + PRIOR.precision @ (mean - PRIOR.mean) ** 2
    assert found.rate[0] == pytest.approx(0.5 * (PRIOR.scale**2 + squares), rel=1e-10)
    assert found.shape == pytest.approx(0.5 * (1 + len(y)))


def test_the_marginal_likelihood_of_ratios_is_a_multivariate_t():
    """y | ratios is Student's t with one degree of freedom, by definition of the prior."""
    x, y, weight, site, group = problem(2, weighted=True)
    a, b = np.array([0.0, 0.5, 2.0, 1.0]), np.array([0.0, 0.0, 0.3, 1.5])
    found = given_ratios(sums_of(x, y, weight, site, group), PRIOR, a, b).log_marginal
    exact = []
    for one, other in zip(a, b):
        shape = PRIOR.scale**2 * (
            covariance(weight, site, group, one, other) + x @ np.diag((PRIOR.sd / PRIOR.scale) ** 2) @ x.T
        )
        exact.append(multivariate_t.logpdf(y, x @ PRIOR.mean, shape, df=1))
    np.testing.assert_allclose(found - found[0], np.array(exact) - exact[0], atol=1e-8)
    assert np.isfinite(gammaln(1.0))


@pytest.mark.parametrize("site_effects", [False, True])
def test_leaving_a_row_out_in_closed_form_is_a_refit_without_it(site_effects):
    x, y, weight, site, group = problem(3, weighted=True)
    found = correct(
        sums_of(x, y, weight, site, group), PRIOR, site=log_ratio if site_effects else None, group=log_ratio
    )
    mean, excess = found.left_out(x, y, weight, site, np.arange(len(y)))
    for i in (0, 5, 17, 31):
        rest = np.arange(len(y)) != i
        sums = sums_of(x[rest], y[rest], weight[rest], site[rest], group)
        given, place = (
            given_ratios(sums, PRIOR, np.array(found.at[:1]), np.array(found.at[1:])),
            places(sums, *found.at),
        )
        apart = x[i] - place.site[site[i], :-1]
        assert mean[i] == pytest.approx(place.site[site[i], -1] + apart @ given.mean[0], rel=1e-9)
        spread = given.root[0].T @ apart
        assert excess[i] == pytest.approx(weight[i] * (place.site_open[site[i]] + spread @ spread), rel=1e-9)


def test_sums_of_two_tables_are_those_of_both():
    x, y, weight, site, group = problem(4)
    half = np.arange(len(y)) < 15
    parts = [sums_of(x[h], y[h], weight[h], site[h], group) for h in (half, ~half)]
    one, other = parts[0].merge(parts[1]), sums_of(x, y, weight, site, group)
    for name in ("gram", "site", "count", "n"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)


def test_drawn_effects_have_the_moments_of_the_smoothed_columns():
    """Four standard errors of 40,000 draws: a right sampler fails one of these 20 in 1e-3 of all seeds."""
    x, y, weight, site, group = problem(5)
    found = correct(sums_of(x, y, weight, site, group), PRIOR, site=log_ratio, group=log_ratio)
    rng = np.random.default_rng(0)
    drawn = found.draws(40_000, rng)
    at_site, at_group = found.effects(drawn, rng)
    total = at_site + at_group[:, group]
    expected = np.zeros_like(total)
    for pair in np.unique(drawn.pair):
        d = drawn.pair == pair
        place = places(found.sums, found.site[pair], found.group[pair])
        contrast = np.column_stack([-drawn.coefficient[d], np.ones(d.sum())])
        expected[d] = contrast @ place.site[:-1].T
        if d.sum() > 500:
            scaled = (total[d] - expected[d]) / drawn.tau[d, None]
            np.testing.assert_allclose(scaled.var(axis=0), place.site_open[:-1], rtol=4.0 * np.sqrt(2.0 / d.sum()))
    error = (total - expected).std(axis=0) / np.sqrt(len(total))
    assert np.all(np.abs((total - expected).mean(axis=0)) < 4.0 * error)


def table(n=240, sites=12, seed=6):
    rng = np.random.default_rng(seed)
    site = np.arange(n) % sites
    truth = rng.normal(size=n)
    frame = pd.DataFrame(
        {"s": [f"s{i:02d}" for i in site], "g": [f"g{i % 4}" for i in site], "elevation": (site % 5) * 100.0}
    )
    frame["a"] = 20.0 + 3.0 * (truth + 0.4 * rng.normal(size=n))
    frame["y"] = truth + 0.002 * frame["elevation"] + 0.5 * rng.normal(size=sites)[site] + 0.3 * rng.normal(size=n)
    return be.Ensemble.from_frame(frame, members=["a"], observation="y", site="s", group="g", lon="elevation")


@pytest.mark.slow
def test_the_closed_form_is_the_posterior_of_the_plain_model_by_nuts():
    """Three quantiles of 8,000 draws of each: five Monte Carlo errors at about 80 comparisons, a chance below 1e-4."""
    import nutpie

    model = be.BMA(bias_covariates=("lon",), scale=())
    corrected = model.prepare(table())
    plain = nutpie.compile_pymc_model(model.build_correction(corrected, "a"))
    exact = nutpie.sample(plain, draws=4000, tune=1000, chains=2, seed=1, progress_bar=False).posterior.to_dataset()
    fit = be.fit(model, table(), random_seed=1, draws=4000, chains=2, progressbar=False, log_likelihood=False)
    own = fit["posterior"].to_dataset().squeeze("member", drop=True)
    import arviz_stats as azs

    for name in ("bias", "slope", "residual_sd", "offset_site", "offset_group", "offset_site_sd", "offset_group_sd",
                 "covariate_slope"):  # fmt: skip
        one, other = (a[name].transpose("chain", "draw", ...).values.reshape(8000, -1) for a in (exact, own))
        ess = np.ravel(np.maximum(np.asarray(azs.ess(exact[[name]])[name]), 100.0))
        for p in (0.1, 0.5, 0.9):  # shares below the other's quantiles: effects of few groups have heavy tails
            share = np.mean(other < np.quantile(one, p, axis=0), axis=0)
            assert np.all(np.abs(share - p) < 5.0 * np.sqrt(p * (1.0 - p) * (1.0 / ess + 1.0 / 8000))), name
