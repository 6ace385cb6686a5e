"""EMOS: its density, its maximum likelihood beside general optimisers, its posterior and its predictions.

The covariates of its width are the matter of test_emos_widths and test_emos_width_predictions.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
import scoringrules
import statsmodels.api as sm
import xarray as xr
from scipy import optimize
from scipy.stats import norm
from statsmodels.regression.linear_model import WLS

import bayesens as be
from bayesens import EMOS, Prior
from bayesens.distributions.mixtures import NormalMixture
from bayesens.inference.fit_tree import model_of, write_fit
from bayesens.inference.log_density import compile_target

MEMBERS = ["a", "b", "c", "d"]


def world(n, seed, sigma=0.3, spread=0.8, weight=(0.4, 0.3, 0.2, 0.0), shift=0.0):
    """Members that disagree more in some rows than in others, and an observation as the model has it."""
    rng = np.random.default_rng(seed)
    apart = rng.gamma(2.0, 0.3, size=n)
    f = 3.0 + shift + rng.normal(size=n)[:, None] + apart[:, None] * rng.normal(size=(n, 4))
    mean = 0.2 + 0.1 * (3.0 + shift) + f @ np.array(weight)
    y = mean + np.sqrt(sigma**2 + spread**2 * f.var(axis=1, ddof=1)) * rng.normal(size=n)
    return f, y


def ensemble(f, y, names=MEMBERS):
    return be.Ensemble.from_frame(pd.DataFrame(f, columns=names).assign(y=y), members=list(names), observation="y")


def quiet(model, rows, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return be.fit(model, rows, progressbar=False, **kwargs)


def point(tree):
    """Parameters of a fit of one point."""
    return {str(name): v.values for name, v in tree["posterior"].to_dataset().squeeze(drop=True).data_vars.items()}


def by_hand(p, f, center):
    """Mean and standard deviation of the docstring."""
    mean = center + p["intercept"] + (f - center) @ p["linear_weight"]
    return mean, np.sqrt(p["sigma"] ** 2 + p["spread"] ** 2 * f.var(axis=1, ddof=1))


# ---------------------------------------------------------------------------------------------------------- the density
@pytest.mark.parametrize(("n", "shift"), [(3, 0.0), (60, 0.0), (1100, 0.0), (60, 1e6)])
def test_log_likelihood_is_that_of_every_row_by_hand(n, shift):
    """Fewer rows than a block of the kernel, and more; and values far from zero."""
    f, y = world(n, 1, shift=shift)
    rows = ensemble(f, y)
    model = EMOS(scale=()).resolve(rows)
    target = compile_target(model.build(rows))
    assert target.tape is not None
    x = target.start + 0.3 * np.random.default_rng(2).normal(size=(5, len(target.start)))
    draws = target.expand(x[None])[0]
    for i, loglik in enumerate(target.logp_and_loglik(x)[1]):
        p = {str(name): v.values[0, i] for name, v in draws.data_vars.items()}
        assert p["sigma"] ** 2 + p["spread"] ** 2 * model.spread_scale**2 == pytest.approx(p["sd"] ** 2)
        expected = norm.logpdf(y, *by_hand(p, f, model.center)).sum()
        assert loglik == pytest.approx(expected, rel=1e-10 if shift == 0.0 else 1e-6)


@pytest.mark.slow
def test_a_prior_that_no_tape_holds_goes_to_pytensor_with_the_same_density():
    f, y = world(50, 3)
    rows, odd = ensemble(f, y), EMOS(scale=(), sd_prior=Prior("Rice", nu=1, sigma=0.3))
    compiled, taped = compile_target(odd.build(rows)), compile_target(EMOS(scale=()).build(rows))
    assert compiled.tape is None
    x = taped.start[None] + 0.2 * np.random.default_rng(4).normal(size=(3, len(taped.start)))
    np.testing.assert_allclose(compiled.logp_and_loglik(x)[1], taped.logp_and_loglik(x)[1], rtol=1e-12)
    logp, gradient = compiled.logp_and_gradient(x[:1])
    value, one = compiled.functions.one(x[0])
    assert value == pytest.approx(logp[0])
    np.testing.assert_allclose(one, gradient[0], rtol=1e-10)
    for j in range(x.shape[1]):
        step = 1e-5 * np.eye(x.shape[1])[j]
        up, down = compiled.logp(np.stack([x[0] + step, x[0] - step]))
        assert gradient[0, j] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-4)


# --------------------------------------------------------------------------------------------------- maximum likelihood
@pytest.mark.parametrize("seed", range(4))
def test_maximum_likelihood_is_what_a_general_optimiser_finds(seed):
    """Over intercept, coefficients, c and d of the variance c^2 + d^2 S^2, from the parameters of the simulation."""
    f, y = world(150, seed)
    tree = quiet(EMOS(scale=()), ensemble(f, y), method="em")
    spread = f.var(axis=1, ddof=1)

    def negative(u):
        return -norm.logpdf(y, u[0] + f @ u[1:5], np.sqrt(u[5] ** 2 + u[6] ** 2 * spread)).sum()

    found = optimize.minimize(negative, [0.5, 0.4, 0.3, 0.2, 0.0, 0.3, 0.8], method="BFGS", options={"gtol": 1e-7})
    p, center = point(tree), float(np.mean(y))
    assert tree.attrs["loglik"] >= -found.fun - 1e-7
    assert tree.attrs["loglik"] == pytest.approx(-found.fun, abs=1e-4)
    np.testing.assert_allclose(p["linear_weight"], found.x[1:5], atol=2e-4)
    np.testing.assert_allclose([p["sigma"], p["spread"]], np.abs(found.x[5:]), atol=2e-4)
    weighted = WLS(y, sm.add_constant(f), weights=1.0 / by_hand(p, f, center)[1] ** 2).fit()
    np.testing.assert_allclose(p["linear_weight"], weighted.params[1:], rtol=1e-8)


def test_without_any_use_of_the_spread_maximum_likelihood_is_least_squares():
    """Errors that shrink where members differ leave nothing to the spread, and regression with one sigma remains."""
    f, y = world(200, 5, sigma=0.5, spread=0.0)
    excess = f.var(axis=1, ddof=1)
    ols = sm.OLS(y, sm.add_constant(f)).fit()
    y = ols.fittedvalues + ols.resid / (1.0 + excess)
    ols = sm.OLS(y, sm.add_constant(f)).fit()
    tree = quiet(EMOS(scale=()), ensemble(f, y), method="em")
    p = point(tree)
    assert p["spread"] == 0.0
    np.testing.assert_allclose(p["linear_weight"], ols.params[1:], rtol=1e-9)
    assert p["sigma"] == pytest.approx(np.sqrt(ols.ssr / 200), rel=1e-10)
    assert tree.attrs["loglik"] == pytest.approx(ols.llf, rel=1e-12)
    pool = quiet(be.LinearPool(weights="free"), ensemble(f, y), method="em")
    np.testing.assert_allclose(be.predict(tree, ensemble(f, y))["sd"], be.predict(pool, ensemble(f, y))["sd"])


# -------------------------------------------------------------------------------------------------------- the posterior
def test_known_parameters_are_recovered():
    """Everything within 4.5 posterior sds of the truth: failure below 1e-4 over all seeds."""
    f, y = world(3000, 6)
    tree = quiet(EMOS(scale=()), ensemble(f, y), random_seed=1)
    assert tree.attrs["method"] == "laplace"
    posterior = tree["posterior"].to_dataset().stack(s=("chain", "draw"))
    for name, true, least in (("linear_weight", np.array([0.4, 0.3, 0.2, 0.0]), 0.02), ("sigma", 0.3, 0.02),
                              ("spread", 0.8, 0.03)):  # fmt: skip
        draws = posterior[name]
        assert np.all(np.abs(draws.mean("s") - true) < 4.5 * draws.std("s")), name
        assert np.all(draws.std("s") < least), name


def test_auto_and_nuts_agree():
    """Means within .16 sd and sds within 12 %: five Monte Carlo errors at an ESS of 1,000 on both sides, nine pairs."""
    f, y = world(80, 7)
    auto, nuts = (quiet(EMOS(scale=()), ensemble(f, y), method=m, random_seed=1) for m in ("auto", "nuts"))
    assert auto.attrs["method"] == "laplace"
    assert float(auto.attrs["importance_ess"]) > 1000
    assert float(nuts.attrs["ess_min"]) > 1000
    assert nuts.attrs["divergences"] == 0
    for name in ("intercept", "linear_weight", "sd", "spread_share", "sigma", "spread"):
        a, b = (tree["posterior"].to_dataset()[name].stack(s=("chain", "draw")) for tree in (auto, nuts))
        assert np.all(np.abs(a.mean("s") - b.mean("s")) / b.std("s") < 0.16), name
        assert np.all(np.abs(a.std("s") / b.std("s") - 1.0) < 0.12), name


def test_the_share_of_the_spread_follows_its_prior_where_spread_tells_nothing():
    """Members that differ by the same everywhere: sigma and spread cannot be told apart, and the prior of the share stays.

    Its mean has a Monte Carlo error of .016 at an ESS of 400, and is within five of these.
    """
    f, _ = world(60, 8)
    f = f[:, :1] + np.array([0.0, 0.5, 1.0])[None] * np.where(np.arange(60) % 2, 1.0, -1.0)[:, None]
    y = f[:, 0] + 0.3 * np.random.default_rng(8).normal(size=60)
    tree = quiet(EMOS(scale=()), ensemble(f, y, MEMBERS[:3]), random_seed=1)
    share = tree["posterior"]["spread_share"]
    assert float(share.mean()) == pytest.approx(0.5, abs=0.08)
    assert float(share.std()) == pytest.approx(12**-0.5, abs=0.05)


def test_log_likelihood_is_the_density_that_was_sampled():
    f, y = world(60, 9)
    tree = quiet(EMOS(scale=()), ensemble(f, y), draws=100, random_seed=1)
    np.testing.assert_allclose(
        tree["log_likelihood"]["y"].sum("obs").values, tree["sample_stats"]["log_joint"].values, rtol=1e-9
    )


# -------------------------------------------------------------------------------------------------------- the prediction
def test_predictions_of_a_point_are_a_normal_in_closed_form():
    f, y = world(100, 10)
    tree = quiet(EMOS(scale=()), ensemble(f, y), method="em")
    new, truth = world(150, 11)
    rows = ensemble(new, truth)
    mean, sd = by_hand(point(tree), new, float(np.mean(y)))
    got, scored = be.predict(tree, rows, quantiles=[0.05, 0.5, 0.95]), be.score(tree, rows)
    np.testing.assert_allclose(got["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(got["sd"], sd, rtol=1e-12)
    assert np.ptp(sd) > 0.3
    np.testing.assert_allclose(
        got["quantile_value"], norm.ppf([0.05, 0.5, 0.95], mean[:, None], sd[:, None]), rtol=1e-8
    )
    np.testing.assert_allclose(scored["crps"], scoringrules.crps_normal(truth, mean, sd), rtol=1e-9)
    np.testing.assert_allclose(scored["log_score"], -norm.logpdf(truth, mean, sd), rtol=1e-10)
    np.testing.assert_allclose(scored["pit"], norm.cdf(truth, mean, sd), atol=1e-10)


@pytest.fixture(scope="module")
def small():
    """A posterior that is wide: 25 rows."""
    f, y = world(25, 12)
    tree = quiet(EMOS(scale=()), ensemble(f, y), method="nuts", random_seed=1)
    posterior = tree["posterior"].to_dataset().stack(s=("chain", "draw"))
    draws = [{str(n): v.values[..., i] for n, v in posterior.data_vars.items()} for i in range(posterior.sizes["s"])]
    new, truth = world(60, 13)
    parts = [by_hand(p, new, float(np.mean(y))) for p in draws]
    mean, sd = (np.array([part[j] for part in parts]) for j in (0, 1))
    return tree, ensemble(new, truth), truth, mean, sd


def test_moments_and_log_scores_over_a_posterior_are_exact(small):
    tree, rows, truth, mean, sd = small
    got, scored = be.predict(tree, rows), be.score(tree, rows)
    np.testing.assert_allclose(got["mean"], mean.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(got["sd_within"], np.sqrt(np.mean(sd**2, axis=0)), rtol=1e-10)
    np.testing.assert_allclose(got["sd_parameter"], mean.std(axis=0), rtol=1e-8)
    np.testing.assert_allclose(got["sd_between"], 0.0, atol=1e-9)
    np.testing.assert_allclose(got["sd"], np.sqrt(mean.var(axis=0) + np.mean(sd**2, axis=0)), rtol=1e-10)
    density = np.exp(norm.logpdf(truth, mean, sd)).mean(axis=0)
    np.testing.assert_allclose(scored["log_score"], -np.log(density), rtol=1e-10)


def test_quantiles_and_crps_are_within_a_hundredth_of_those_of_all_draws(small):
    tree, rows, truth, mean, sd = small
    levels = [0.005, 0.05, 0.5, 0.95, 0.995]
    every = NormalMixture(np.full((1, len(mean)), 1.0 / len(mean)), mean.T, sd.T)
    exact, got = every.quantile(levels), be.predict(tree, rows, quantiles=levels)["quantile_value"].values
    width = (exact[:, 3] - exact[:, 1])[:, None]
    assert np.max(np.abs(got - exact) / width) < 0.01
    scored = be.score(tree, rows)["crps"].values
    for i in range(8):
        grid = np.linspace(mean[:, i].mean() - 12.0 * sd[:, i].mean(), mean[:, i].mean() + 12.0 * sd[:, i].mean(), 801)
        below = norm.cdf(grid[:, None], mean[::2, i], sd[::2, i]).mean(axis=1)
        integral = np.trapezoid((below - (grid >= truth[i])) ** 2, grid)
        assert scored[i] == pytest.approx(integral, abs=0.01 * width[i, 0])


def test_draws_have_the_moments_of_the_prediction(small):
    """20,000 draws of 60 rows: means within 5 and sds within 6 standard errors; failure below 1e-4."""
    tree, rows, _, _, _ = small
    sample, got = be.draw(tree, rows, size=20_000, random_seed=2), be.predict(tree, rows)
    assert np.max(np.abs(sample.mean("sample") - got["mean"]) / got["sd"]) < 5 / np.sqrt(20_000)
    np.testing.assert_allclose(sample.std("sample"), got["sd"], rtol=6 / np.sqrt(2 * 20_000) * 1.3)


def test_each_draw_keeps_its_own_mean_and_variance():
    """Two draws, one near 0 with hardly any variance and one near 100 with a variance of 25 times the spread."""
    f, _ = world(200, 31)
    one = {"intercept": [0.0, 100.0], "sigma": [1e-6, 1e-6], "spread": [0.0, 5.0]}
    posterior = xr.Dataset({name: (("chain", "draw"), [values]) for name, values in one.items()})
    posterior["linear_weight"] = (("chain", "draw", "member"), np.zeros((1, 2, 4)))
    model = EMOS(scale=(), center=0.0, unit=1.0, sigma_scale=1.0, spread_scale=1.0)
    mixture = model.predictive(posterior, ensemble(f, np.full(200, np.nan)))
    low, high = mixture.sample_each(np.random.default_rng(1))
    np.testing.assert_allclose(low, 0.0, atol=1e-4)
    standard = (high - 100.0) / (5.0 * f.std(axis=1, ddof=1))
    assert 0.7 < standard.std() < 1.3
    sample = mixture.sample(100, np.random.default_rng(2))
    near = np.abs(sample) < 1e-4
    assert 0.45 < near.mean() < 0.55
    assert np.all(near == near[:, :1])


def test_posterior_predictive_has_one_draw_for_each_of_the_posterior():
    f, y = world(30, 14)
    tree = quiet(EMOS(scale=()), ensemble(f, y), draws=200, random_seed=1)
    added = be.add(tree, ensemble(f, y), "posterior_predictive", random_seed=2)["posterior_predictive"]["y"]
    assert added.dims == ("chain", "draw", "obs")
    assert added.shape == (4, 200, 30)
    assert np.isfinite(be.loo(tree, ensemble(f, y), progressbar=False).elpd)


def test_rows_in_any_order_and_number_have_the_same_prediction(small):
    """Rows are handled in the order of their spread, some at a time."""
    tree, rows, _, _, _ = small
    whole = be.predict(tree, rows)
    order = np.random.default_rng(15).permutation(rows.n_obs)[:40]
    part = be.predict(tree, rows.select(rows=order))
    for name in ("mean", "sd"):
        np.testing.assert_allclose(part[name], whole[name].values[order], rtol=1e-12)
    np.testing.assert_allclose(part["quantile_value"], whole["quantile_value"].values[order], atol=0.01)


def test_a_fit_read_from_a_file_predicts_the_same(tmp_path):
    f, y = world(60, 16)
    tree = quiet(EMOS(scale=()), ensemble(f, y), draws=100, random_seed=1)
    write_fit(tree, tmp_path / "fit.nc")
    again = be.read_fit(tmp_path / "fit.nc")
    xr.testing.assert_identical(be.predict(tree, ensemble(f, y)), be.predict(again, ensemble(f, y)))
    assert model_of(again).spread_scale == pytest.approx(np.sqrt(f.var(axis=1, ddof=1).mean()))


@pytest.mark.parametrize("name", ["sqrt", "log"])
def test_predictions_come_back_in_the_units_of_the_observation(name):
    f, y = world(80, 17)
    forward, back = {"sqrt": (np.sqrt, np.square), "log": (np.log, np.exp)}[name]
    f, y = np.abs(f) + 0.1, np.abs(y) + 0.1
    tree = quiet(EMOS(scale=(), transform=name), ensemble(f, y), method="em")
    mean, sd = by_hand(point(tree), forward(f), float(np.mean(forward(y))))
    got, scored = be.predict(tree, ensemble(f, y), quantiles=[0.5, 0.9]), be.score(tree, ensemble(f, y))
    expected = back(np.maximum(mean[:, None] + sd[:, None] * norm.ppf([0.5, 0.9]), 0.0 if name == "sqrt" else -np.inf))
    np.testing.assert_allclose(got["quantile_value"], expected, rtol=1e-7, atol=1e-12)
    slope = 0.5 / np.sqrt(y) if name == "sqrt" else 1.0 / y
    np.testing.assert_allclose(scored["log_score"], -norm.logpdf(forward(y), mean, sd) - np.log(slope), rtol=1e-9)
    if name == "log":
        np.testing.assert_allclose(got["mean"], np.exp(mean + sd**2 / 2), rtol=1e-9)
    else:
        draws = np.maximum(mean + sd * norm.ppf((np.arange(20_000) + 0.5)[:, None] / 20_000), 0.0) ** 2
        np.testing.assert_allclose(got["mean"], draws.mean(axis=0), rtol=1e-3)
    parts = got["sd_within"] ** 2 + got["sd_between"] ** 2 + got["sd_parameter"] ** 2
    np.testing.assert_allclose(parts, got["sd"] ** 2, rtol=1e-10)


def test_an_observation_of_zero_under_the_square_root_scores_its_probability():
    f, y = world(60, 18)
    f, y = np.abs(f) + 0.1, np.maximum(y - 2.5, 0.0)
    tree = quiet(EMOS(scale=(), transform="sqrt"), ensemble(f, y), method="em")
    mean, sd = by_hand(point(tree), np.sqrt(f), float(np.mean(np.sqrt(y))))
    zero = y == 0.0
    assert 5 < zero.sum() < 40
    scored = be.score(tree, ensemble(f, y))["log_score"].values
    np.testing.assert_allclose(scored[zero], -norm.logcdf(-mean[zero] / sd[zero]), rtol=1e-9)


# ------------------------------------------------------------------------------------------------------------ bad input
def test_training_rows_that_lack_a_member_are_refused_where_nothing_is_filled_in():
    f, y = world(30, 19)
    f[:4, 1], f[2:5, 2] = np.nan, np.nan
    wanted = (r"EMOS regresses on all members, and 5 of 30 training rows lack some: 'b' in 4, 'c' in 3\. Leave out "
              r"member_moments=\(\), and missing members are filled in; or leave out these rows or members")  # fmt: skip
    for method in ("em", "auto"):
        with pytest.raises(ValueError, match=wanted):
            be.fit(EMOS(scale=(), member_moments=()), ensemble(f, y), method=method)


@pytest.mark.filterwarnings("ignore:The table lacks 'd'")
def test_rows_that_lack_a_member_have_no_prediction_where_nothing_is_filled_in_and_say_so():
    f, y = world(30, 20)
    tree = quiet(EMOS(scale=(), member_moments=()), ensemble(f, y), method="em")
    f[:4, 1] = np.nan
    with pytest.warns(UserWarning, match=r"4 of 30 rows lack some member \('b'\), .* their predictions are NaN"):
        got = be.predict(tree, ensemble(f, y))
    np.testing.assert_array_equal(np.isnan(got["mean"]), np.arange(30) < 4)
    np.testing.assert_array_equal(np.isnan(got["quantile_value"]).all("quantile"), np.arange(30) < 4)
    with pytest.warns(UserWarning, match="30 of 30 rows lack some member"):
        got = be.predict(tree, ensemble(f[:, :3], y, MEMBERS[:3]))
    assert np.isnan(got["sd"]).all()


def test_one_member_has_no_spread():
    f, y = world(30, 21)
    with pytest.raises(
        ValueError, match="from how the members differ, and the ensemble has only 'a'; use SingleMember"
    ):
        be.fit(EMOS(scale=()), ensemble(f[:, :1], y, ["a"]), method="em")


def test_members_that_always_agree_have_no_spread():
    f, y = world(30, 22)
    with pytest.raises(ValueError, match="The members agree in all 30 training rows, and EMOS takes its variance"):
        quiet(EMOS(scale=()), ensemble(np.repeat(f[:, :1], 4, axis=1), y), method="em")


def test_members_into_which_the_truth_has_leaked_are_refused():
    f, y = world(30, 23)
    f[:, 0] = 2.0 * y + 1.0
    with pytest.raises(ValueError, match="member 'a' reproduces the observation exactly"):
        be.fit(EMOS(scale=()), ensemble(f, y), method="em")


def test_copies_are_warned_of():
    f, y = world(40, 24)
    f[:, 1] = 2.0 * f[:, 0] + 1.0
    with pytest.warns(
        UserWarning, match="Members 'a' and 'b' are exact copies of each other up to the bias correction"
    ):
        be.fit(EMOS(scale=()), ensemble(f, y), method="em")


@pytest.mark.parametrize("options", [{"spread_scale": 0.0}, {"spread_scale": np.nan}, {"sigma_scale": -1.0}])
def test_scales_that_are_not_positive_are_refused(options):
    with pytest.raises(ValueError, match=r"EMOS\(\w+_scale=...\) must be positive; got"):
        EMOS(scale=(), **options)


def test_a_preset_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="EMOS has the presets weak, vague, sceptical; got 'strong'"):
        EMOS.preset("strong")
