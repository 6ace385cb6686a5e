"""What priors imply: closed forms of entropy, correlation and width, and words for what is hard to believe."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.special import digamma
from scipy.stats import norm

import bayesens as be
from bayesens import Prior
from bayesens.likelihoods.priors import prior_draws
from bayesens.sensitivity.implied import MEANING, prior_predictive, prior_table, prior_words

JOINT = {"correction": "joint", "group": False, "site": False}  # the mixture of regressions

FIXED = {"mu": 0.0, "sigma": 1e-7}


def table(members=3, n=80, seed=1, **columns):
    rng = np.random.default_rng(seed)
    y = 2.0 + 0.5 * rng.normal(size=n)
    frame = pd.DataFrame({f"m{k}": y + 0.3 * rng.normal(size=n) for k in range(members)} | {"y": y} | columns)
    names = {"s": {"site": "s"}} if "s" in columns else {}
    return be.Ensemble.from_frame(
        frame, members=[f"m{k}" for k in range(members)], observation="y", **names.get("s", {})
    )


def stations(n=80):
    return np.repeat([f"s{i}" for i in range(8)], n // 8)


# -------------------------------------------------------------------------------------------------------- closed forms
@pytest.mark.parametrize("a", [0.5, 1.0, 5.0])
def test_entropy_of_weights_is_that_of_a_dirichlet(a):
    result = prior_predictive(
        be.BMA(**JOINT, weight_prior=Prior("Dirichlet", a=a)),
        table(4),
        draws=2000,
        random_seed=1,
    )
    entropy = np.log(result["effective_members"].values)
    # The mean over 2000 draws, within five standard errors: below 1e-6 each.
    wanted = digamma(4 * a + 1) - digamma(a + 1)
    assert abs(entropy.mean() - wanted) < 5 * entropy.std() / np.sqrt(2000)


def test_lkj_alone_on_eight_members_all_but_rules_dependence_out():
    model = be.HBM(errors="lkj", group=False, site=False, correlation_prior=Prior("LKJCorr", eta=2),
                   slope_prior=Prior("Normal", mu=1, sigma=1e-7),
                   slope_rest_prior=Prior("Normal", mu=0, sigma=1e-7))  # fmt: skip
    result = prior_predictive(model, table(8), draws=500, random_seed=1)
    r = result["residual_corr"].values
    # A correlation is 2 Beta(a, a) - 1 with a = eta - 1 + K / 2 = 5, of variance 1 / 11; pairs are uncorrelated by symmetry.
    sd = np.sqrt(1 / 11 / 28)
    assert abs(r.mean()) < 5 * sd / np.sqrt(500)
    assert_allclose(r.std(), sd, rtol=0.2)  # five standard errors of an sd of 500 draws with some more kurtosis
    assert_allclose(result["error_corr"], r, atol=1e-6)  # slopes of one: f - y has no part of the truth
    assert_allclose(result["k_eff"], 8 / (1 + 7 * r), rtol=1e-5)
    assert "the prior all but rules them out" in prior_words(result)


def test_a_common_factor_makes_errors_dependent_before_the_data():
    result = prior_predictive(be.HBM(group=False, site=False), table(4), draws=500, random_seed=1)
    r = result["residual_corr"].values
    # common + (1 - common) R0 with Beta(2, 2) and R0 centred on zero: mean .5; five standard errors.
    assert abs(r.mean() - 0.5) < 5 * r.std() / np.sqrt(500)
    assert "rules them out" not in prior_words(result)


def test_the_width_of_climatology_is_the_convolution_of_its_priors():
    model = be.Climatology(mean_prior=Prior("Normal", mu=0, sigma=1), sd_prior=Prior("LogNormal", **FIXED))
    ensemble = table()
    y = ensemble.require_observation()
    result = prior_predictive(model, ensemble, draws=4000, random_seed=1)
    wanted = 2 * norm.ppf(0.95) * np.sqrt(2) * np.std(y)
    # A width has a relative standard error of about 1.4 % at 4000 draws, and rows share half of the variance.
    assert_allclose(result["width90"].mean(), wanted, rtol=0.06)
    climatology = np.quantile(y, 0.95) - np.quantile(y, 0.05)
    assert_allclose(result["climatology_width90"], climatology)
    assert_allclose(result["relative_width"], result["width90"] / climatology)
    assert_allclose(result["relative_sd"], 1.0, rtol=1e-6)
    inside = np.abs(y - y.mean()) < wanted / 2
    assert abs(float(result["coverage90"]) - inside.mean()) <= 0.03


def test_the_sd_of_a_kernel_is_exact_under_each_draw():
    fixed = Prior("LogNormal", **FIXED)
    result = prior_predictive(
        be.SingleMember(**JOINT, bias="none", member="m1", sigma_scale=0.25, sigma_prior=fixed),
        table(),
        draws=100,
        random_seed=1,
    )
    assert_allclose(result["relative_sd"], 0.25 / np.std(table().require_observation()), rtol=1e-5)
    two = be.EqualWeights(**JOINT, bias="none", sigma="shared", sigma_scale=0.25, sigma_prior=fixed)
    f = table().prediction
    wanted = np.sqrt(0.25**2 + np.mean(np.var(f, axis=1))) / np.std(table().require_observation())
    assert_allclose(prior_predictive(two, table(), draws=100, random_seed=1)["relative_sd"], wanted, rtol=1e-5)


@pytest.mark.parametrize("site", [False, True])
def test_hbm_with_fixed_parameters_is_a_regression_at_a_new_site(site):
    one, small = Prior("LogNormal", **FIXED), Prior("Normal", mu=1, sigma=1e-7)
    model = be.HBM(group=False, site=site, unit=1.0, truth_sd_prior=one, error_sd_prior=one, slope_prior=small,
                   truth_site_sd_prior=one, slope_site_prior=small, bias_site_sd_prior=one)  # fmt: skip
    ensemble = table(1, s=stations())
    result = prior_predictive(model, ensemble, draws=100, random_seed=1)
    variance = 2.0 if site else 1.0  # of the truth, and of the error: 1 within and 1 between sites
    wanted = np.sqrt(variance * variance / (variance + variance)) / np.std(ensemble.require_observation())
    assert_allclose(result["relative_sd"], wanted, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------- shapes and words
@pytest.mark.parametrize(
    "model",
    [
        be.BMA(correction="joint", group=False, site=True, effects="source"),
        be.BMA(**JOINT, transform="sqrt"),
        be.EqualWeights(**JOINT),
        be.SingleMember(**JOINT),
        be.Climatology(site=True),
        be.LinearPool(),
        be.EMOS(),
        be.HBM(transform="sqrt", errors="independent"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_every_model_has_a_prior_predictive(model):
    ensemble = table(2, n=400, s=stations(400))
    result = prior_predictive(model, ensemble, draws=200, random_seed=1)
    assert result.sizes == {"draw": 200, "obs": 300}
    assert all(np.isfinite(v.values).all() for v in result.data_vars.values())
    assert set(prior_table(result)["quantity"]) <= {*MEANING, "coverage90"}
    assert (result["width90"] > 0).all()
    y = ensemble.require_observation()
    assert y[result["obs"].values].min() == y.min()
    assert y[result["obs"].values].max() == y.max()
    xr.testing.assert_identical(result, prior_predictive(model, ensemble, draws=200, random_seed=1))


def test_draws_carry_the_labels_of_the_model():
    ensemble = table(2, s=stations())
    prior = prior_draws(be.BMA(correction="joint", group=False, site=True).build(ensemble), draws=50, random_seed=1)
    assert prior["weight"].dims == ("chain", "draw", "member")
    assert prior["member"].values.tolist() == ["m0", "m1"]
    assert prior["offset_site"].sizes["site"] == 8
    assert_allclose(prior["weight"].sum("member"), 1.0)
    assert prior_draws(be.BMA(**JOINT).build(ensemble), draws=1, random_seed=1)["weight"].shape == (1, 1, 2)


def test_rows_without_an_observation_or_any_member_do_not_count():
    frame = pd.DataFrame({"a": [1.0, np.nan, 3.0, 4.0, 5.0], "y": [1.5, 1.5, np.nan, 4.5, 4.0]})
    ensemble = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    result = prior_predictive(be.Climatology(), ensemble, draws=100, random_seed=1)
    assert result["obs"].values.tolist() == [0, 3, 4]


def test_words_say_what_is_hard_to_believe():
    vague = prior_predictive(
        be.BMA(**JOINT, bias_prior=Prior("Normal", mu=0, sigma=5)),
        table(),
        draws=300,
        random_seed=1,
    )
    assert "implausibly wide" in prior_words(vague)
    equal = prior_predictive(
        be.BMA(**JOINT, weight_prior=Prior("Dirichlet", a=500)),
        table(),
        draws=300,
        random_seed=1,
    )
    assert "3.0 of 3 members" in prior_words(equal)
    assert "nearly equal whatever the data say" in prior_words(equal)
    alone = prior_predictive(
        be.BMA(**JOINT, weight_prior=Prior("Dirichlet", a=0.01)),
        table(),
        draws=300,
        random_seed=1,
    )
    assert "the prior has one member take all" in prior_words(alone)
    wrong = be.BMA(
        **JOINT,
        bias_prior=Prior("Normal", mu=4, sigma=0.01),
        slope_prior=Prior("Normal", mu=1, sigma=0.01),
    )
    assert "look for a bias or a wrong unit" in prior_words(prior_predictive(wrong, table(), draws=300, random_seed=1))
    sure = be.SingleMember(**JOINT, bias="none", member="m0", sigma_scale=0.01)
    assert "narrow: the priors already promise" in prior_words(
        prior_predictive(sure, table(), draws=300, random_seed=1)
    )


def test_classes_tables_and_few_draws_are_refused():
    with pytest.raises(TypeError, match="wanted a model, got the class BMA"):
        prior_predictive(be.BMA, table())
    with pytest.raises(TypeError, match="wanted an Ensemble, got DataFrame"):
        prior_predictive(be.BMA(**JOINT), pd.DataFrame())
    with pytest.raises(ValueError, match="draws is 50; wanted 100 or more"):
        prior_predictive(be.BMA(**JOINT), table(), draws=50)
