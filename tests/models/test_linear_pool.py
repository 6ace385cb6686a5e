"""LinearPool fitted at once and with free weights: density, maximum likelihood beside others' solvers, posterior, predictions."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import scoringrules
import statsmodels.api as sm
import xarray as xr
from scipy import optimize
from scipy.stats import norm

import bayesens as be
from bayesens import LinearPool, Prior
from bayesens.inference.fit_tree import write_fit
from bayesens.inference.log_density import compile_target
from shared_data import shared_data

MEMBERS = ["a", "b", "c"]
JOINT = {"correction": "joint"}  # everything fitted at once
FLAT = {"intercept_prior": Prior("Normal", mu=0, sigma=1000), "coefficient_prior": Prior("Normal", mu=0, sigma=1000),
        "sigma_prior": Prior("LogNormal", mu=0, sigma=20)}  # fmt: skip


def members(n, seed, missing=0.0, shift=0.0):
    """Three members around one truth, with biases, errors that they share, and gaps."""
    rng = np.random.default_rng(seed)
    truth = 3.0 + shift + rng.normal(size=n)
    f = truth[:, None] + 0.4 * rng.normal(size=n)[:, None] + np.array([0.2, 0.4, 0.7]) * rng.normal(size=(n, 3))
    f = f + np.array([0.3, -0.2, 0.8])
    y = truth + 0.3 * rng.normal(size=n)
    f[rng.random((n, 3)) < missing] = np.nan
    f[np.isnan(f).all(axis=1), 0] = 0.0 + shift
    return f, y


def ensemble(f, y, names=MEMBERS):
    return be.Ensemble.from_frame(
        pd.DataFrame(f, columns=names).assign(y=y), members=list(names), observation="y", units="mm"
    )


def quiet(model, rows, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return be.fit(model, rows, progressbar=False, **kwargs)


def point(tree):
    """Parameters of a fit of one point."""
    return {str(name): v.values for name, v in tree["posterior"].to_dataset().squeeze(drop=True).data_vars.items()}


def mean_by_hand(p, f, center, bias=True):
    """The mean of the docstring, row by row."""
    out = []
    for row in f:
        there = np.isfinite(row)
        b = p["bias"][there] if bias else 0.0
        share = p["weight"][there] / p["weight"][there].sum()
        out.append(share @ (center - b + p.get("slope", 1.0) * (row[there] - center)))
    return np.array(out)


# ---------------------------------------------------------------------------------------------------------- the density
@pytest.mark.parametrize(("missing", "shift"), [(0.0, 0.0), (0.4, 0.0), (0.4, 1e6)])
@pytest.mark.parametrize("bias", ["linear", "additive", "none"])
def test_log_likelihood_is_that_of_every_row_by_hand(missing, shift, bias):
    """Patterns with fewer rows than columns among them; and values so far from zero that plain sums of squares fail."""
    f, y = members(60, 1, missing, shift)
    model = LinearPool(bias=bias, **JOINT).resolve(ensemble(f, y))
    target = compile_target(model.build(ensemble(f, y)))
    x = target.start + 0.3 * np.random.default_rng(2).normal(size=(5, len(target.start)))
    draws = target.expand(x[None])[0]
    for i, loglik in enumerate(target.logp_and_loglik(x)[1]):
        p = {str(name): v.values[0, i] for name, v in draws.data_vars.items()}
        expected = norm.logpdf(y, mean_by_hand(p, f, model.center, bias != "none"), p["sigma"]).sum()
        assert loglik == pytest.approx(expected, rel=1e-10 if shift == 0.0 else 1e-6)


def test_corrected_members_agree_on_average_and_their_weighted_bias_is_that_of_the_pool():
    f, y = members(300, 3, 0.3)
    model = LinearPool(**JOINT).resolve(ensemble(f, y))
    target = compile_target(model.build(ensemble(f, y)))
    x = target.start + 0.3 * np.random.default_rng(3).normal(size=len(target.start))
    draws = target.expand(x[None, None])[0].squeeze(drop=True)
    errors = []
    for k in range(3):
        there = np.isfinite(f[:, k])
        bias = draws["bias"].values[k]
        errors.append(np.mean(y[there] - (model.center - bias + float(draws["slope"]) * (f[there, k] - model.center))))
    assert np.ptp(errors) < 1e-12
    assert float((draws["weight"] * draws["bias"]).sum()) == pytest.approx(float(draws["bias_pool"]), abs=1e-12)


def test_one_member_is_a_regression():
    f, y = members(50, 4)
    tree = quiet(LinearPool(**JOINT), ensemble(f[:, :1], y, ["a"]), method="em")
    ols = sm.OLS(y, sm.add_constant(f[:, 0])).fit()
    p = point(tree)
    assert p["slope"] == pytest.approx(ols.params[1], rel=1e-9)
    assert p["sigma"] == pytest.approx(np.sqrt(ols.ssr / 50), rel=1e-9)
    auto = quiet(LinearPool(**JOINT), ensemble(f[:, :1], y, ["a"]), random_seed=1)
    assert float(auto["posterior"]["slope"].mean()) == pytest.approx(ols.params[1], abs=0.02)
    np.testing.assert_array_equal(auto["posterior"]["weight"], 1.0)


# --------------------------------------------------------------------------------------------------- maximum likelihood
def test_free_weights_by_maximum_likelihood_are_least_squares():
    f, y = members(80, 5)
    tree = quiet(LinearPool(weights="free"), ensemble(f, y), method="em")
    ols = sm.OLS(y, sm.add_constant(f)).fit()
    p = point(tree)
    np.testing.assert_allclose(p["linear_weight"], ols.params[1:], rtol=1e-10)
    center = np.mean(y)
    assert center + p["intercept"] - center * p["linear_weight"].sum() == pytest.approx(ols.params[0], rel=1e-9)
    assert p["sigma"] == pytest.approx(np.sqrt(ols.ssr / 80), rel=1e-10)
    assert tree.attrs["loglik"] == pytest.approx(ols.llf, rel=1e-12)


def test_simplex_weights_by_maximum_likelihood_are_nonnegative_least_squares():
    """Slope times weights is any positive vector, so that with an intercept this is Lawson and Hanson's problem."""
    zeros = 0
    for seed in range(10):
        f, y = members(60, seed)
        f[:, 2] = f[:, 0] + 0.3 * (f[:, 0] - y)  # worse in the same direction: least squares gives it a negative weight
        f[:, 2] += 0.05 * np.random.default_rng(seed).normal(size=60)
        p = point(quiet(LinearPool(**JOINT), ensemble(f, y), method="em"))
        expected, norm_2 = optimize.nnls(f - f.mean(axis=0), y - y.mean())
        zeros += (expected == 0.0).sum()
        np.testing.assert_allclose(p["linear_weight"], expected, atol=2e-6)
        assert p["sigma"] == pytest.approx(norm_2 / np.sqrt(60), rel=1e-9)
    assert zeros >= 5


@pytest.mark.parametrize("bias", ["linear", "additive", "none"])
def test_maximum_likelihood_with_missing_members_is_found_by_a_general_optimiser_too(bias):
    f, y = members(120, 7, 0.3)
    rows = ensemble(f, y)
    tree = quiet(LinearPool(bias=bias, **JOINT), rows, method="em")
    center, there = float(np.mean(y)), np.isfinite(f)
    f_mean, y_mean = np.nanmean(f, axis=0) - center, np.array([y[there[:, k]].mean() for k in range(3)]) - center

    def parameters(u):
        slope = u[3] if bias == "linear" else 1.0
        common = u[4] if bias != "none" else 0.0
        offset = slope * f_mean - y_mean if bias != "none" else np.zeros(3)
        return {"weight": np.exp(u[:3] - u[:3].max()), "slope": slope, "bias": common + offset}

    def square(u):
        return np.mean((y - mean_by_hand(parameters(u), f, center)) ** 2)

    found = optimize.minimize(square, [0.0, 0.0, 0.0, 1.0, 0.0], method="BFGS", options={"gtol": 1e-9})
    p = point(tree)
    assert p["sigma"] == pytest.approx(np.sqrt(found.fun), rel=1e-7)
    weight = parameters(found.x)["weight"]
    np.testing.assert_allclose(p["weight"], weight / weight.sum(), atol=2e-3)
    assert tree.attrs["loglik"] == pytest.approx(
        norm.logpdf(y, mean_by_hand(p, f, center, bias != "none"), p["sigma"]).sum()
    )


def test_a_copy_of_a_member_changes_no_prediction_of_maximum_likelihood():
    f, y = members(100, 8)
    twice = np.column_stack([f, f[:, 0]])
    one = quiet(LinearPool(**JOINT), ensemble(f, y), method="em")
    other = quiet(LinearPool(**JOINT), ensemble(twice, y, [*MEMBERS, "d"]), method="em")
    new, _ = members(50, 9)
    first = be.predict(one, ensemble(new, np.full(50, np.nan)))
    second = be.predict(other, ensemble(np.column_stack([new, new[:, 0]]), np.full(50, np.nan), [*MEMBERS, "d"]))
    np.testing.assert_allclose(first["quantile_value"], second["quantile_value"], atol=1e-5)


# -------------------------------------------------------------------------------------------------------- the posterior
@pytest.mark.parametrize("method", ["auto", "nuts"])
def test_posterior_under_flat_priors_is_students_of_least_squares(method):
    """Mean and sd of a multivariate t with n - p degrees of freedom.

    With an ESS of at least 1,000 a mean has a Monte Carlo error of .032 sd and an sd one of 2.3 %: nine quantities within
    five of these fail a correct program with a chance below 1e-5.
    """
    f, y = members(40, 10)
    rows = ensemble(f, y)
    tree = quiet(LinearPool(weights="free", **FLAT), rows, method=method, draws=1000, random_seed=1)
    assert float(tree.attrs["ess_min" if tree.attrs["method"] == "nuts" else "importance_ess"]) > 1000
    ols = sm.OLS(y, sm.add_constant(f - y.mean())).fit()
    spread = ols.bse * np.sqrt(ols.df_resid / (ols.df_resid - 2))
    posterior = tree["posterior"].to_dataset().stack(s=("chain", "draw"))
    draws = np.vstack([posterior["intercept"].values + y.mean(), posterior["linear_weight"].values])
    assert np.max(np.abs(draws.mean(axis=1) - ols.params) / spread) < 0.16
    np.testing.assert_allclose(draws.std(axis=1), spread, rtol=0.12)


def test_published_weights_of_granger_and_ramanathan():
    """Least squares without an intercept on eight bias-corrected watershed models, as MODELAVG has it, by a prior at zero.

    With an ESS of at least 1,000 a mean has a Monte Carlo error of .032 sd: eight within five of these fail a correct
    program with a chance below 1e-5.
    """
    table = np.loadtxt(shared_data("modelavg", "discharge_data.txt"), max_rows=500)
    published = json.loads(shared_data("modelavg", "point_methods_formulas.json").read_text())
    y = table[:, 8]
    f = np.column_stack([sm.OLS(y, sm.add_constant(table[:, k])).fit().fittedvalues for k in range(8)])
    model = LinearPool(**{**FLAT, "intercept_prior": Prior("Normal", mu=0, sigma=1e-6)}, weights="free", center=0.0)
    tree = quiet(model, ensemble(f, y, list("abcdefgh")), random_seed=1)
    assert float(tree.attrs["importance_ess"]) > 1000
    draws = tree["posterior"]["linear_weight"]
    apart = draws.mean(("chain", "draw")) - np.array(published["GRA"])
    assert np.max(np.abs(apart / draws.std(("chain", "draw")))) < 0.16


def test_known_parameters_are_recovered():
    """Weights, slope, sigma and the weighted bias within 4.5 posterior sds of the truth: failure below 1e-4 over all seeds."""
    rng = np.random.default_rng(1011)
    f, _ = members(2000, 11)
    weight, bias, slope, sigma, center = np.array([0.5, 0.3, 0.2]), np.array([0.2, -0.1, 0.4]), 0.9, 0.35, 3.0
    y = (center - bias + slope * (f - center)) @ weight + sigma * rng.normal(size=2000)
    tree = quiet(LinearPool(center=center, **JOINT), ensemble(f, y), random_seed=1)
    assert tree.attrs["method"] == "laplace"
    posterior = tree["posterior"].to_dataset().stack(s=("chain", "draw"))
    for draws, true in ((posterior["weight"], weight), (posterior["slope"], slope), (posterior["sigma"], sigma),
                        (posterior["bias_pool"], weight @ bias), (posterior["linear_weight"], slope * weight)):  # fmt: skip
        assert np.all(np.abs(draws.mean("s") - true) < 4.5 * draws.std("s"))
        assert np.all(draws.std("s") < 0.05)


def test_the_prior_of_free_coefficients_is_centred_at_one_over_the_number_of_members():
    f, y = members(12, 12)
    tight = Prior("Normal", mu=0, sigma=1e-4)
    tree = quiet(LinearPool(weights="free", coefficient_prior=tight), ensemble(f, y), draws=200, random_seed=1)
    np.testing.assert_allclose(tree["posterior"]["linear_weight"].mean(("chain", "draw")), 1 / 3, atol=1e-4)


def test_models_of_other_numbers_of_members_do_not_share_a_graph():
    """Compiled graphs are used again for tables of the same structure."""
    for k in (3, 2, 3):
        f, y = members(40, 13)
        tree = quiet(LinearPool(weights="free"), ensemble(f[:, :k], y, MEMBERS[:k]), draws=100, random_seed=1)
        assert tree["posterior"].sizes["member"] == k


# -------------------------------------------------------------------------------------------------------- the prediction
def test_predictions_of_a_point_are_a_normal_in_closed_form():
    f, y = members(100, 14, 0.2)
    tree = quiet(LinearPool(**JOINT), ensemble(f, y), method="em")
    p, center = point(tree), float(np.mean(y))
    new, truth = members(40, 15, 0.3)
    rows = ensemble(new, truth)
    mean = mean_by_hand(p, new, center)
    got, scored = be.predict(tree, rows, quantiles=[0.05, 0.5, 0.95]), be.score(tree, rows)
    np.testing.assert_allclose(got["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(got["sd"], p["sigma"], rtol=1e-12)
    np.testing.assert_allclose(got["sd_between"], 0.0, atol=1e-12)
    np.testing.assert_allclose(got["quantile_value"], norm.ppf([0.05, 0.5, 0.95], mean[:, None], p["sigma"]), rtol=1e-9)
    np.testing.assert_allclose(scored["crps"], scoringrules.crps_normal(truth, mean, p["sigma"]), rtol=1e-9)
    np.testing.assert_allclose(scored["log_score"], -norm.logpdf(truth, mean, p["sigma"]), rtol=1e-10)


def test_predictions_over_a_posterior_are_the_mixture_over_its_draws():
    f, y = members(60, 16, 0.2)
    tree = quiet(LinearPool(**JOINT), ensemble(f, y), draws=500, random_seed=1)
    new, truth = members(20, 17)
    rows = ensemble(new, truth)
    center = float(np.mean(y))
    posterior = tree["posterior"].to_dataset().stack(s=("chain", "draw"))
    draws = [{str(n): v.values[..., i] for n, v in posterior.data_vars.items()} for i in range(posterior.sizes["s"])]
    mean = np.array([mean_by_hand(p, new, center) for p in draws])
    sigma = np.array([p["sigma"] for p in draws])
    got, scored = be.predict(tree, rows), be.score(tree, rows)
    np.testing.assert_allclose(got["mean"], mean.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(got["sd"], np.sqrt(mean.var(axis=0) + np.mean(sigma**2)), rtol=1e-10)
    density = np.exp(norm.logpdf(truth, mean, sigma[:, None])).mean(axis=0)
    np.testing.assert_allclose(scored["log_score"], -np.log(density), rtol=1e-10)


@pytest.mark.parametrize("model", [LinearPool(), LinearPool(**JOINT), LinearPool(weights="free")])
def test_a_fit_read_from_a_file_predicts_the_same(model, tmp_path):
    f, y = members(60, 18)
    tree = quiet(model, ensemble(f, y), draws=100, random_seed=1)
    write_fit(tree, tmp_path / "fit.nc")
    again = be.read_fit(tmp_path / "fit.nc")
    xr.testing.assert_identical(be.predict(tree, ensemble(f, y)), be.predict(again, ensemble(f, y)))
    assert tree["log_likelihood"]["y"].sum("obs").values == pytest.approx(tree["sample_stats"]["log_joint"].values)


def test_predictions_come_back_in_the_units_of_the_observation():
    f, y = members(80, 19)
    f, y = np.exp(0.2 * f), np.exp(0.2 * y)
    tree = quiet(LinearPool(transform="log", **JOINT), ensemble(f, y), method="em")
    ols_free = quiet(LinearPool(transform="log", weights="free"), ensemble(f, y), method="em")
    ols = sm.OLS(np.log(y), sm.add_constant(np.log(f))).fit()
    np.testing.assert_allclose(point(ols_free)["linear_weight"], ols.params[1:], rtol=1e-9)
    middle = be.predict(ols_free, ensemble(f, y), quantiles=[0.5])["quantile_value"].values[:, 0]
    np.testing.assert_allclose(middle, np.exp(ols.fittedvalues), rtol=1e-8)
    assert np.all(be.predict(tree, ensemble(f, y))["mean"] > 0)


@pytest.mark.filterwarnings("ignore:members 'a', 'b' are empty")
def test_a_row_whose_only_members_have_no_weight_averages_them():
    f, y = members(60, 20)
    f[:, 2] = f[:, 0] + 0.5 * (f[:, 0] - y) + 0.05 * f[:, 1]
    f[:, 2] += 0.05 * np.random.default_rng(20).normal(size=60)
    tree = quiet(LinearPool(**JOINT), ensemble(f, y), method="em")
    assert point(tree)["weight"][2] < 1e-8
    only = np.array([[np.nan, np.nan, 4.0]])
    p, center = point(tree), float(np.mean(y))
    expected = center - p["bias"][2] + p["slope"] * (4.0 - center)
    assert be.predict(tree, ensemble(only, [np.nan]))["mean"].item() == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------------------ bad input
def test_free_weights_that_fill_in_nothing_refuse_training_rows_that_lack_a_member():
    f, y = members(30, 21, 0.0)
    f[:4, 1], f[2:5, 2] = np.nan, np.nan
    wanted = (r"LinearPool\(weights='free'\) regresses on all members, and 5 of 30 training rows lack some: "
              r"'b' in 4, 'c' in 3\. Leave out member_moments=\(\), and missing members are filled in; or leave out")  # fmt: skip
    for method in ("em", "auto"):
        with pytest.raises(ValueError, match=wanted):
            be.fit(LinearPool(weights="free", member_moments=()), ensemble(f, y), method=method)


def test_free_weights_that_fill_in_nothing_have_no_prediction_where_a_member_is_missing_and_say_so():
    f, y = members(30, 22)
    tree = quiet(LinearPool(weights="free", member_moments=()), ensemble(f, y), method="em")
    f[:4, 1] = np.nan
    with pytest.warns(UserWarning, match=r"4 of 30 rows lack some member \('b'\), .* their predictions are NaN"):
        got = be.predict(tree, ensemble(f, y))
    np.testing.assert_array_equal(np.isnan(got["mean"]), np.arange(30) < 4)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": "simplx"}, r"LinearPool\(weights=...\) is one of 'simplex', 'free'; got 'simplx'. Did you mean 'simplex'"),
        ({"bias": "quadratic"}, r"LinearPool\(bias=...\) is one of 'linear', 'additive', 'none'; got 'quadratic'"),
        ({"weights": "free", "bias": "additive"}, "leave no bias to correct; got bias='additive'. Leave bias out"),
        ({"unit": -1.0}, r"LinearPool\(unit=...\) must be positive; got -1.0"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        LinearPool(**options)


def test_a_preset_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="LinearPool has the presets weak, vague, sceptical; got 'strong'"):
        LinearPool.preset("strong")


def test_members_into_which_the_truth_has_leaked_are_refused():
    f, y = members(30, 23)
    f[:, 0] = 2.0 * y + 1.0
    with pytest.raises(ValueError, match="member 'a' reproduces the observation exactly"):
        be.fit(LinearPool(), ensemble(f, y), method="em")
    f, y = members(30, 23)
    f[:, 0] = y - 0.5 * f[:, 1]
    with pytest.raises(ValueError, match="A linear combination of the members reproduces the observation exactly"):
        be.fit(LinearPool(), ensemble(f, y), method="em")


@pytest.mark.parametrize(
    ("bias", "copy", "told"),
    [
        ("linear", lambda a: 2 * a + 1, True),
        ("additive", lambda a: a + 1, True),
        ("additive", lambda a: 2 * a, False),
        ("none", lambda a: a + 1, False),
        ("none", lambda a: a + 0, True),
    ],
)
def test_copies_are_warned_of_where_the_bias_correction_makes_them_one(bias, copy, told):
    f, y = members(40, 24, 0.1)
    f[:, 1] = copy(f[:, 0])
    f[np.isnan(f).all(axis=1), 2] = 3.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        be.fit(LinearPool(bias=bias), ensemble(f, y), method="em")
    found = [str(w.message) for w in caught if "exact copies" in str(w.message)]
    assert len(found) == int(told)


def test_too_few_rows_are_refused():
    f, y = members(4, 25)
    with pytest.raises(ValueError, match="the model has 5 parameters"):
        be.fit(LinearPool(weights="free"), ensemble(f, y), method="em")
