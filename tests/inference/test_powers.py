"""Fits at a power against those of doubled tables and other priors; rows left out at a power against a formula and refits."""

import arviz as az
import numpy as np
import pandas as pd
import pytest
from regressions import JOINT, MEMBERS, quiet
from scipy.special import logsumexp
from scipy.stats import norm

import bayesens as be
from bayesens import simulate
from bayesens.inference.sampling.psis import leave_one_out, tail_length


# ----------------------------------------------------------------------------------------------------------------- fits
def test_a_likelihood_to_the_power_of_two_is_that_of_every_row_twice():
    frame = simulate.region(8, 2, 12, random_seed=4).frame
    columns = {"members": ["rf", "mlr"], "observation": "sm"}
    once = be.Ensemble.from_frame(frame, **columns)
    twice = be.Ensemble.from_frame(pd.concat([frame, frame]), **columns)
    options = {"method": "laplace", "random_seed": 1, "progressbar": False, "log_likelihood": False}
    model = be.LinearPool(correction="joint")  # corrections of single members would know that rows stand twice
    squared = be.fit(model, once, likelihood_power=2.0, **options)
    doubled = be.fit(model, twice, **options)
    for name in ("weight", "bias", "slope", "sigma"):
        np.testing.assert_allclose(squared["posterior"][name], doubled["posterior"][name], rtol=1e-5, atol=1e-7)
    assert squared.attrs["likelihood_power"] == 2.0
    # What is kept is the log likelihood itself, whatever power was sampled.
    np.testing.assert_allclose(
        2.0 * squared["sample_stats"]["log_joint"], doubled["sample_stats"]["log_joint"], rtol=1e-7
    )


def test_priors_to_a_power_are_those_of_that_density():
    """N(m, s) to the power of four is N(m, s / 2); LogNormal(0, s) is LogNormal(-3 s^2 / 4, s / 2), its 1 / x included."""
    frame = simulate.region(8, 2, 12, random_seed=4).frame
    ens = be.Ensemble.from_frame(frame, members=["rf"], observation="sm")
    options = {"method": "laplace", "random_seed": 1, "progressbar": False, "log_likelihood": False}
    wide = be.BMA(**JOINT, bias_prior=be.Prior("Normal", mu=0, sigma=0.02), slope_prior=be.Prior("Normal", mu=1, sigma=0.2),
                  sigma_prior=be.Prior("LogNormal", mu=0, sigma=0.5))  # fmt: skip
    tight = be.BMA(**JOINT, bias_prior=be.Prior("Normal", mu=0, sigma=0.01), slope_prior=be.Prior("Normal", mu=1, sigma=0.1),
                   sigma_prior=be.Prior("LogNormal", mu=-0.1875, sigma=0.25))  # fmt: skip
    raised, given = be.fit(wide, ens, prior_power=4.0, **options), be.fit(tight, ens, **options)
    for name in ("bias", "slope", "sigma"):  # draw by draw, but for ties that rounding may break in another way
        one, other = raised["posterior"][name].values, given["posterior"][name].values
        assert np.mean(np.abs(one - other) > 1e-4 * other.std()) < 0.01


@pytest.mark.parametrize(("options", "text"), [
    ({"likelihood_power": 0.0}, "likelihood_power is a power above zero, 1 for none; got 0.0"),
    ({"prior_power": float("nan")}, "prior_power is a power above zero"),
    ({"likelihood_power": 0.5, "method": "em"}, "method='em' maximises the likelihood, and likelihood_power=0.5"),
])  # fmt: skip
def test_powers_that_are_none_are_refused(options, text):
    ens = be.Ensemble.from_frame(simulate.region(4, 1, 5, random_seed=1).frame, members=["rf"], observation="sm")
    with pytest.raises(ValueError, match=text):
        be.fit(be.BMA(**JOINT), ens, **options)


# ----------------------------------------------------------------------------------------------------- leaving rows out
def known_variance(power, n=60, draws=4000, seed=4):
    """A normal mean of known variance, flat prior, at a power: N(mean(y), 1 / (power n)). Log densities (row, draw), and y."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n)
    mean = rng.normal(y.mean(), 1.0 / np.sqrt(power * n), draws)
    return norm.logpdf(y[:, None], mean, 1.0), y


@pytest.mark.parametrize("power", [0.05, 0.3, 1.0, 2.5])
def test_left_out_at_a_power_is_the_posterior_of_the_other_rows_at_that_power(power):
    """Closed form: N(y_i; mean of the others, 1 + 1 / (power (n - 1))).

    4,000 draws; the sum of the 60 has a Monte Carlo sd of at most .065 over 200 seeds (at .05; .023 at the others), a fifth
    of what is allowed, so a correct program fails with a chance below 1e-5. Weights at a power of one miss it by 24, 2.4 and
    .6 at powers of .05, .3 and 2.5.
    """
    loglik, y = known_variance(power)
    out = np.empty((len(y), 3))
    leave_one_out(loglik, tail_length(loglik.shape[1], 1.0), out, power)
    others = (y.sum() - y) / (len(y) - 1)
    exact = norm.logpdf(y, others, np.sqrt(1.0 + 1.0 / (power * (len(y) - 1))))
    assert out[:, 0].sum() == pytest.approx(exact.sum(), abs=0.35)


def test_densities_far_apart_do_not_overflow_at_a_power():
    """Two groups of draws 3,000 apart: at a power of .5 those of the low density have all of the weight, and give little."""
    loglik = np.concatenate([np.linspace(-3001.0, -3000.0, 50), np.linspace(-1.0, 0.0, 50)])[None]
    out = np.empty((1, 3))
    leave_one_out(loglik, 20, out, 0.5)
    weight = -0.5 * loglik[0]
    assert np.isfinite(out[0, 0])
    assert out[0, 0] == pytest.approx(logsumexp(weight + loglik[0]) - logsumexp(weight), abs=1.0)


def tempered_fit(power, n=120, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    frame = pd.DataFrame({m: truth + 0.5 * rng.normal(size=n) for m in MEMBERS}).assign(
        y=truth + 0.3 * rng.normal(size=n)
    )
    ens = be.Ensemble.from_frame(frame, members=MEMBERS, observation="y")
    model = be.BMA(**JOINT, sigma="shared").resolve(ens)
    return ens, model, quiet(be.fit, model, ens, random_seed=1, progressbar=False, likelihood_power=power)


@pytest.mark.slow
@pytest.mark.parametrize("power", [0.1, 0.05])
def test_loo_of_a_tempered_fit_is_that_of_refits_at_its_power(power):
    """30 rows of 120, each left out and the rest fitted again at the same power.

    Over six seeds of the fit the sums differ by .14 sd .1 (power .1) and -.1 sd .1 (.05): 1.0 is more than six of these.
    Weights at a power of one are 7.5 to 16 too low.
    """
    ens, model, tree = tempered_fit(power)
    rows = np.arange(0, ens.n_obs, 4)
    again = []
    for i in rows:
        rest = ens.select(rows=np.delete(np.arange(ens.n_obs), i))
        part = quiet(be.fit, model, rest, random_seed=int(i), progressbar=False, likelihood_power=power)
        again.append(-float(be.score(part, ens.select(rows=[i]))["log_score"].values[0]))
    found = quiet(be.loo, tree, ens, progressbar=False).elpd_i.values[rows]
    assert found.sum() == pytest.approx(np.sum(again), abs=1.0)


def test_a_tempered_fit_has_nothing_that_arviz_would_misread():
    ens, model, tree = tempered_fit(0.1)
    assert "log_likelihood" not in tree.children
    assert "arviz.loo would take rows out of it at a power of one" in tree.attrs["no_log_likelihood"]
    with pytest.raises(TypeError, match="log likelihood not found"):
        az.loo(tree)
    with pytest.raises(
        ValueError, match=r"likelihood_power=0.1, .* Use be.loo\(tree, ensemble\), which knows the power"
    ):
        be.add(tree, ens, "log_likelihood")
    with pytest.raises(ValueError, match="Leave log_likelihood=True out"):
        be.fit(model, ens, likelihood_power=0.1, log_likelihood=True)
    assert "posterior_predictive" in be.add(tree, ens, "posterior_predictive", random_seed=1).children
