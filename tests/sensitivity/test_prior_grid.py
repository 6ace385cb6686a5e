"""Grids of priors: reweighted posteriors against refits and integrals, scores against compare, refusals before anything runs."""

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.stats import beta
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor

import bayesens as be
from bayesens import Prior
from bayesens import models as every
from bayesens.sensitivity import prior_points, prior_ratios, priors
from bayesens.sensitivity.prior_points import usual_grid
from bayesens.sensitivity.prior_tables import grid_table, grid_words
from simulated import hierarchy, mixture

JOINT = {"correction": "joint", "group": False, "site": False}  # the mixture of regressions

SAMPLE = ("chain", "draw")
QUIET = {"random_seed": 1, "progressbar": False}


def grid(*args, **kwargs):
    return be.sensitivity.prior_grid(*args, **{**QUIET, **kwargs})


# ------------------------------------------------------------------------------------------- posteriors given all rows
def test_weights_of_a_coin_are_those_of_beta_posteriors():
    """Kernels so far apart that each row shows its member: the weights' posterior is a Dirichlet in closed form."""
    rng = np.random.default_rng(1)
    n, heads = 30, 12
    f = np.column_stack([np.zeros(n), np.full(n, 50.0)]) + 0.1 * rng.normal(size=(n, 2))
    y = np.where(np.arange(n) < heads, f[:, 0], f[:, 1]) + 0.1 * rng.normal(size=n)
    ensemble = be.Ensemble.from_frame(
        pd.DataFrame({"a": f[:, 0], "b": f[:, 1], "y": y}), members=["a", "b"], observation="y"
    )
    model = be.BMA(**JOINT, bias="none", sigma="shared", sigma_scale=0.1)
    values = [Prior("Dirichlet", a=a) for a in (0.5, 2.0, 10.0)]
    result = grid(model, ensemble, {"weight_prior": values}, method="nuts")
    assert result["how"].values.tolist()[:3] == ["base", "reweighted", "reweighted"]
    for point, a in zip(result["point"].values, (1.0, 0.5, 2.0, 10.0), strict=True):
        exact = beta(heads + a, n - heads + a)
        one = result.sel(point=point, member="a")
        # 4000 draws, worth more than 700 however correlated and weighted: five standard errors, below 1e-5 for each of eight.
        assert abs(float(one["weight_mean"]) - exact.mean()) < 5 * exact.std() / np.sqrt(700)
        assert abs(float(one["weight_sd"]) - exact.std()) < 5 * exact.std() / np.sqrt(2 * 700)


CASES = [
    (be.BMA(**JOINT), mixture, {"weight_prior": [Prior("Dirichlet", a=3.0)]}),
    (be.BMA(**JOINT), mixture, {"bias_prior": [Prior("Normal", mu=0.1, sigma=0.2)],
                                "slope_prior": [Prior("Normal", mu=1, sigma=0.15)],
                         "sigma_prior": [Prior("LogNormal", mu=0.3, sigma=0.4)]}),
    (be.BMA(correction="joint", group=False, site=True), hierarchy, {"site_sd_prior": [Prior("HalfNormal", sigma=1.0)]}),
    (be.HBM(), hierarchy, {"correlation_prior": [Prior("LKJCorr", eta=3.0)], "common_prior": [Prior("Beta", alpha=3, beta=2)]}),
    (be.HBM(errors="lkj"), hierarchy, {"correlation_prior": [Prior("LKJCorr", eta=3.0)],
                                       "truth_mean_prior": [Prior("Normal", mu=0.3, sigma=0.8)],
                                       "error_sd_prior": [Prior("LogNormal", mu=-0.5, sigma=0.5)]}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "data", "options"), CASES)
def test_ratios_of_priors_are_those_that_pymc_gives_two_models(model, data, options):
    """Log prior of one fit's draws, from its own group, against the same option's density: they differ by a constant."""
    tree = be.fit(model, data(), method="laplace", draws=100, random_seed=1, log_likelihood=False, progressbar=False)
    for option in options:
        found = prior_ratios._variables(prior_ratios.model_of(tree), option, tree)
        mine = sum(prior_ratios._summed(v, prior_ratios._log_density(getattr(model, option), v.values)) for v in found)
        special = {"sigma_prior": "sigma_mean", "site_sd_prior": "offset_site_sd", "error_sd_prior": "error_sd_mean"}
        ends = {"correlation_prior": "_rest", "common_prior": "_common"}
        top = tree["log_prior"].to_dataset()
        names = [n for n in top if str(n).endswith(ends[option])] if option in ends else [
            special.get(option, option.removesuffix("_prior"))]  # fmt: skip
        pymc = sum(top[n].sum([d for d in top[n].dims if d not in SAMPLE]) for n in names)
        if (
            option == "correlation_prior"
        ):  # PyMC's is the density of a Cholesky factor; of two members it is (1 - r^2)^(eta - 1)
            posterior, eta = tree["posterior"].to_dataset(), dict(model.correlation_prior.parameters)["eta"]
            pymc = 0.0
            for part in ("residual", "bias_site"):
                common = posterior.get(f"{part}_common", 0.0)
                r = (posterior[f"{part}_corr"][..., 0, 1] - common) / (1.0 - common)
                pymc = pymc + (eta - 1.0) * np.log1p(-(r**2))
        difference = (mine - pymc).values
        assert_allclose(difference, difference[0, 0], atol=1e-8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("model", "data", "options"), CASES)
def test_reweighted_posteriors_are_those_of_refits(model, data, options):
    ensemble = data()
    result = grid(model, ensemble, options, method="nuts")
    assert "reweighted" in result["how"].values
    for point in result["point"].values[result["how"].values == "reweighted"]:
        option = str(result["option"].sel(point=point).values)
        changed = dataclasses.replace(model, **{option: options[option][0]})
        tree = be.fit(changed, ensemble, method="nuts", random_seed=7, log_likelihood=False, progressbar=False)
        name = "weight" if "weight" in tree["posterior"] else "linear_weight"
        refit = tree["posterior"][name]
        mean, sd = refit.mean(SAMPLE).values, refit.std(SAMPLE).values
        # Both sides are worth 1000 draws at least: five standard errors, below 1e-4 for all of these together.
        assert (np.abs(result["weight_mean"].sel(point=point).values - mean) < 5 * sd * np.sqrt(2 / 1000)).all()
        assert_allclose(result["weight_sd"].sel(point=point).values, sd, rtol=5 * np.sqrt(1 / 1000) * 1.3)


def test_priors_too_far_away_are_fitted_again_and_say_so():
    far = {"bias_prior": [Prior("Normal", mu=-3, sigma=0.02)]}
    result = grid(be.BMA(**JOINT), mixture(), far, draws=300)
    assert result["how"].values.tolist() == ["base", "refit"]
    assert float(result["pareto_k"][1]) > 0.5
    assert np.isnan(float(result["pareto_k"][0]))
    other = grid(
        be.BMA(**JOINT),
        mixture(),
        {"sigma": ["shared"], "bias_prior": [Prior("Laplace", mu=0, b=0.3)]},
        draws=300,
    )
    assert other["how"].values.tolist() == ["base", "refit", "refit"]


def test_every_point_can_be_fitted_and_draws_that_have_not_converged_are_not_reweighted(monkeypatch):
    values = {"weight_prior": [Prior("Dirichlet", a=2)]}
    assert grid(be.BMA(**JOINT), mixture(), values, draws=200, reweight=False)["how"].values.tolist() == [
        "base",
        "refit",
    ]
    monkeypatch.setattr(priors, "RHAT", 0.5)
    result = grid(be.BMA(**JOINT), mixture(), values, draws=200, method="nuts")
    assert result["how"].values.tolist() == ["base", "refit"]
    result["warned"][1] = "The fit has not converged: ..."
    assert "1 did not converge, and their weights should not be believed: weight_prior = Dirichlet(a=2)" in grid_words(
        result
    )


def test_chains_are_worth_their_draws_and_not_an_approximation_that_was_not_kept():
    model = be.BMA(**JOINT)
    tree = be.fit(model, mixture(), method="nuts", draws=300, log_likelihood=False, **QUIET)
    point = prior_points.points_of(model, {"weight_prior": [Prior("Dirichlet", a=1.2)]}, 3, full=False)[-1]
    tree.attrs["importance_ess"] = 7.0  # as method="auto" tells of what it tried before chains
    assert priors._reweighted(tree, point)[0] is not None
    tree.attrs["method"] = "importance"
    assert priors._reweighted(tree, point)[0] is None


@pytest.mark.slow
def test_the_likelihood_can_be_tempered_as_in_fit():
    values = {"weight_prior": [Prior("Dirichlet", a=10)]}
    whole, tempered = (
        grid(be.BMA(**JOINT), mixture(), values, likelihood_power=power, draws=500) for power in (1.0, 0.2)
    )
    tree = be.fit(
        be.BMA(**JOINT),
        mixture(),
        likelihood_power=0.2,
        draws=500,
        log_likelihood=False,
        **QUIET,
    )
    assert_allclose(tempered["weight_mean"].sel(point="base"), tree["posterior"]["weight"].mean(SAMPLE), rtol=1e-9)
    moved = [float(grid_table(result)["weight_moved"].iloc[1]) for result in (whole, tempered)]
    assert moved[1] > 1.5 * moved[0]  # with a fifth of the data a prior has more to say
    assert tempered.attrs["likelihood_power"] == 0.2


# ------------------------------------------------------------------------------------------------------- rows held out
@pytest.fixture(scope="module")
def scored():
    values = {"weight_prior": [Prior("Dirichlet", a=10)], "sigma_spread": [1.0, 0.3]}
    options = {"estimand": "site", "folds": 3, "draws": 300}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        result = grid(
            be.BMA(**JOINT),
            hierarchy(),
            values,
            against=be.EqualWeights(**JOINT),
            replicates=200,
            **options,
        )
        rows = be.compare(
            {"base": be.BMA(**JOINT), "wide": be.BMA(**JOINT, sigma_spread=1.0), "against": be.EqualWeights(**JOINT)},
            hierarchy(),
            **options,
            **QUIET,
        )
    return result, rows


def test_scores_and_differences_are_those_of_compare(scored):
    result, rows = scored
    assert result["point"].values.tolist() == ["base", "weight_prior = Dirichlet(a=10)", "sigma_spread = 1"]
    mean = {name: rows[name].mean("obs").to_series() for name in ("crps", "log_score", "coverage90", "width90")}
    wide = result.sel(point="sigma_spread = 1")
    for name, values in mean.items():
        assert_allclose(wide[name], values["wide"], rtol=1e-9)
        change = values["wide"] - values["base"]
        assert_allclose(
            wide[f"{name}_change"], 100 * change / values["base"] if name in ("crps", "width90") else change, atol=1e-9
        )
        assert float(result[f"{name}_change"][0]) == 0.0
        assert float(wide[f"{name}_change_low"]) <= float(wide[f"{name}_change"]) <= float(wide[f"{name}_change_high"])
    crps = mean["crps"]
    assert_allclose(wide["difference"], 100 * (crps["wide"] / crps["against"] - 1), atol=1e-9)
    assert_allclose(wide["difference_change"], 100 * (crps["wide"] - crps["base"]) / crps["against"], atol=1e-9)
    paired = be.paired_differences(rows, "against", replicates=200, random_seed=1)
    line = paired[(paired["metric"] == "crps") & (paired["model"] == "wide")].iloc[0]
    assert_allclose([wide["difference_low"], wide["difference_high"]], [line["low"], line["high"]], atol=1e-9)


def test_folds_are_tempered_too():
    """The same folds with a tempered likelihood have the scores that compare gives them."""
    options = {"estimand": "site", "folds": 2, "draws": 200, "likelihood_power": 0.3, "method": "laplace"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        result = grid(
            be.BMA(**JOINT),
            hierarchy(),
            {"sigma_spread": [1.0]},
            replicates=50,
            **options,
        )
        rows = be.compare(
            {
                "base": be.BMA(**JOINT),
                "wide": be.BMA(**JOINT, sigma_spread=1.0),
            },
            hierarchy(),
            **options,
            **QUIET,
        )
    assert_allclose(result["crps"], rows["crps"].mean("obs"), rtol=1e-9)


def test_words_set_the_effect_on_weights_beside_that_on_predictions(scored):
    words = grid_words(scored[0])
    moved = scored[0]["weight_mean"] - scored[0]["weight_mean"].sel(point="base")
    assert words.startswith(
        f"Over 2 other priors of BMA, mean weights move by up to {np.abs(moved).max().item():.2f} ("
    )
    assert "the CRPS of rows held out by up to" in words
    assert "The CRPS of BMA differs from that of EqualWeights by" in words
    table = grid_table(scored[0])
    assert table["weight_moved"].iloc[0] == 0.0
    assert_allclose(table["weight_moved"], np.abs(moved).max("member"))


def test_a_point_that_fails_is_reported_and_the_others_go_on(monkeypatch):
    fit = priors.fit

    def failing(model, rows, **kwargs):
        if model.sigma_spread == 1.0:
            raise RuntimeError("no optimum")
        return fit(model, rows, **kwargs)

    monkeypatch.setattr(priors, "fit", failing)
    result = grid(be.BMA(**JOINT), mixture(), {"sigma_spread": [1.0, 0.1]}, draws=200)
    assert result["how"].values.tolist() == ["base", "failed", "refit"]
    assert result["failed"].values.tolist() == ["", "no optimum", ""]
    assert np.isnan(result["weight_mean"].sel(point="sigma_spread = 1")).all()
    assert "1 failed and say nothing: sigma_spread = 1" in grid_words(result)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_point_that_fails_in_a_fold_is_reported_and_the_others_go_on(monkeypatch):
    from bayesens.comparison.folds import runs as comparison

    fit = comparison.fit

    def failing(model, rows, **kwargs):
        if getattr(model, "sigma_spread", 0) == 1.0:
            raise RuntimeError("no optimum")
        return fit(model, rows, **kwargs)

    monkeypatch.setattr(comparison, "fit", failing)
    result = grid(
        be.BMA(**JOINT),
        hierarchy(),
        {"sigma_spread": [1.0, 0.1]},
        estimand="site",
        folds=2,
        draws=200,
        replicates=50,
    )
    assert np.isnan(float(result["crps"].sel(point="sigma_spread = 1")))
    assert "no optimum" in str(result["failed"].sel(point="sigma_spread = 1").values)
    assert np.isfinite(float(result["crps_change"].sel(point="sigma_spread = 0.1")))
    assert np.isfinite(
        float(result["weight_mean"].sel(point="sigma_spread = 1", member="m1"))
    )  # all rows could be fitted


# -------------------------------------------------------------------------------------------------------------- the grid
def test_all_combinations_have_a_point_each_and_the_base_stands_once():
    values = {"weight_prior": [Prior("Dirichlet", a=1), Prior("Dirichlet", a=2)], "sigma_spread": [0.3, 1.0]}
    points = prior_points.points_of(be.BMA(**JOINT), values, 3, full=True)
    assert [one.label for one in points] == [
        "base", "sigma_spread = 1", "weight_prior = Dirichlet(a=2)", "weight_prior = Dirichlet(a=2), sigma_spread = 1",
    ]  # fmt: skip
    assert points[3].model == be.BMA(**JOINT, weight_prior=Prior("Dirichlet", a=2), sigma_spread=1.0)
    assert len(prior_points.points_of(be.BMA(**JOINT), values, 3, full=False)) == 3


@pytest.mark.parametrize("name", [name for name in every.__all__ if getattr(getattr(every, name), "sampled", True)])
def test_usual_grids_and_every_prior_of_every_model_are_possible(name):
    model = getattr(every, name)()
    prior_points.points_of(model, usual_grid(model), 3, full=False)
    for preset in ("weak", "vague", "sceptical") if hasattr(model, "preset") else ():
        other = type(model).preset(preset)
        priors = {item.name: [getattr(other, item.name)] for item in dataclasses.fields(other)}
        for option, (value,) in priors.items():
            if isinstance(value, Prior):
                prior_points._check_value(model, option, value, 3)


def test_usual_grids_have_what_the_model_has():
    assert "site_sd_prior" in usual_grid(be.BMA(correction="joint", group=False, site=True))
    assert not {"site_sd_prior", "group_sd_prior"} & set(usual_grid(be.BMA(**JOINT)))
    assert "weight_prior" not in usual_grid(be.EqualWeights(**JOINT))
    assert not {"correlation_prior", "common_prior"} & set(usual_grid(be.HBM(errors="independent")))
    eta = [dict(prior.parameters)["eta"] for prior in usual_grid(be.HBM())["correlation_prior"]]
    assert eta == [1.0, 2.0, 20.0]  # 4 is the model's own
    sd = [dict(prior.parameters)["sigma"] for prior in usual_grid(be.HBM())["bias_site_sd_prior"]]
    assert sd == [0.125, 0.25, 1.0, 2.0]


IMPOSSIBLE = [
    ({"bias_prior": [Prior("Normal", mu=0, sigma=-0.1)]}, r"BMA\(bias_prior=.*\): sigma is -0.1, and must be above zero"),
    ({"weight_prior": [Prior("Dirichlet", a=0)]}, r"weight_prior=.*a is 0, and must be above zero"),
    ({"weight_prior": [Prior("Normal", mu=0, sigma=1)]}, "weight must be on the simplex: a Dirichlet, and Normal is not"),
    ({"weight_prior": [Prior("Dirichlet", a=[1, 2])]}, "a has 2 numbers, and there are 3 members"),
    ({"sigma_prior": [Prior("Normal", mu=0, sigma=1)]}, "sigma must be positive, and Normal is not"),
    ({"site_sd_prior": [Prior("Uniform", lower=-1, upper=1)]}, "site_sd must be positive, and Uniform is not"),
    ({"bias_prior": [Prior("Uniform", lower=1, upper=0)]}, "lower is 1, and must be below upper, 0"),
    ({"bias_prior": [Prior("Dirichlet", a=1)]}, "bias must be a number, and Dirichlet is not"),
    ({"sigma_spread": [-1.0]}, r"the grid holds an impossible value: BMA\(sigma_spread=...\) must be positive; got -1.0"),
    ({"weights": ["gloabl"]}, "the grid holds an impossible value: .*Did you mean 'global'"),
    ({"bias_prior": [0.3]}, r"the grid holds an impossible value: BMA\(bias_prior=...\) is a Prior such as"),
    ({"wieght_prior": [Prior("Dirichlet", a=2)]}, "no option 'wieght_prior' in BMA; did you mean 'weight_prior'"),
    ({"weight_prior": Prior("Dirichlet", a=2)}, "wanted a list of values, even of one"),
    ({"sigma_spread": [0.3]}, "every value of the grid is the model's own"),
    ({}, "the grid is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "text"), IMPOSSIBLE)
def test_impossible_values_are_refused_before_anything_runs(values, text, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("something ran")

    monkeypatch.setattr(priors, "fit", never)
    monkeypatch.setattr(priors, "compare", never)
    if values and "sigma_spread" not in values:
        values = {"sigma_spread": [0.2, 0.4], **values}  # a good option before the bad one
    with pytest.raises((ValueError, TypeError, KeyError), match=text):
        grid(be.BMA(**JOINT), mixture(), values, estimand="time")


def test_hbm_priors_have_their_own_supports():
    with pytest.raises(ValueError, match="correlation must be a correlation: an LKJCorr, and Beta is not"):
        grid(be.HBM(), hierarchy(), {"correlation_prior": [Prior("Beta", alpha=1, beta=1)]})
    with pytest.raises(ValueError, match="common must be between 0 and 1, and Normal is not"):
        grid(be.HBM(), hierarchy(), {"common_prior": [Prior("Normal", mu=0, sigma=1)]})
    with pytest.raises(ValueError, match="eta is -1, and must be above zero"):
        grid(be.HBM(), hierarchy(), {"correlation_prior": [Prior("LKJCorr", eta=-1)]})


def test_another_model_needs_rows_held_out():
    with pytest.raises(ValueError, match="against follows a difference on rows held out; give the estimand"):
        grid(be.BMA(**JOINT), mixture(), {"sigma_spread": [1.0]}, against=be.HBM())


def test_models_without_weights_have_scores_alone():
    result = grid(be.Climatology(), hierarchy(), {"sd_prior": [Prior("HalfNormal", sigma=1)]}, draws=300)
    assert "weight_mean" not in result
    assert isinstance(result, xr.Dataset)
    assert "nothing can be compared" in grid_words(result)


def test_members_that_are_trained_have_a_grid_too():
    """The posterior is then that of the members' predictions of rows held out, as a table by hand has it."""
    frame = be.simulate.region(8, 2, 12, random_seed=3).frame
    X = frame.assign(wet=frame["truth"].round(2), half=frame["rf"])[["wet", "half"]]
    place = {"site": frame["station"], "group": frame["network"], "time": frame["date"]}
    members = be.Members({"ols": LinearRegression(), "near": KNeighborsRegressor(5)}, X, frame["sm"], **place)
    options = {"estimand": "site", "folds": 2, "inner_folds": 2, "random_seed": 1, "progressbar": False}
    grid = {"weight_prior": [be.Prior("Dirichlet", a=20.0)]}
    found = be.sensitivity.prior_grid(
        be.BMA(**JOINT, sigma="shared"),
        members,
        grid,
        draws=200,
        method="laplace",
        **options,
    )
    assert found["failed"].values.tolist() == ["", ""]
    held = be.compare({"BMA": be.EqualWeights(**JOINT)}, members, method="em", **options)
    by_hand = be.Ensemble.from_frame(
        pd.DataFrame(held["member_prediction"].values, columns=held["member"].values).assign(y=held["observation"].values),
        members=list(held["member"].values), observation="y",
    )  # fmt: skip
    tree = be.fit(
        be.BMA(**JOINT, sigma="shared"),
        by_hand,
        method="laplace",
        draws=200,
        random_seed=1,
        progressbar=False,
    )
    np.testing.assert_allclose(
        found["weight_mean"].values[0], tree["posterior"]["weight"].mean(("chain", "draw")), atol=0.05
    )
