"""EMOS whose width follows the members' mean, the season or a column: density, optimum, posterior, files and options."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from emos_tables import MEMBERS, by_hand, covariates, ensemble, point, quiet, simulated, skewed
from scipy import optimize
from scipy.special import log_ndtr
from scipy.stats import norm

import bayesens as be
from bayesens import EMOS, Prior
from bayesens.app.option_text import option_from_words
from bayesens.inference.fit_tree import model_of, write_fit
from bayesens.inference.log_density import compile_target
from bayesens.likelihoods.corrected.widths import Widths, columns_asked
from bayesens.likelihoods.options import options_from_json, options_to_json
from bayesens.sensitivity.prior_points import usual_grid


def plain(n, seed):
    """Members and observation with errors of one size."""
    rng = np.random.default_rng(seed)
    truth = 5.0 + rng.normal(size=n)
    frame = pd.DataFrame(truth[:, None] + 0.5 * rng.normal(size=(n, 3)), columns=MEMBERS)
    return frame.assign(y=truth + 0.3 * rng.normal(size=n))


# ---------------------------------------------------------------------------------------------------------- the density
@pytest.mark.parametrize("n", [5, 60, 1100])
@pytest.mark.parametrize("scale", [("mean",), ("mean", "season"), ("elevation", "noise", "mean")])
def test_log_likelihood_is_that_of_every_row_by_hand(n, scale):
    """Fewer rows than a block of the kernel, and more."""
    frame = skewed(n, 1)
    rows, f = ensemble(frame), frame[MEMBERS].to_numpy()
    model = EMOS(scale=scale).resolve(rows)
    names = [part for name in scale for part in (["season_sin", "season_cos"] if name == "season" else [name])]
    x = covariates(frame, frame, names)
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-12)
    target = compile_target(model.build(rows))
    assert target.tape is not None
    at = target.start + 0.3 * np.random.default_rng(2).normal(size=(5, len(target.start)))
    draws = target.expand(at[None])[0]
    assert list(draws["scale_covariate"].values) == names
    for i, loglik in enumerate(target.logp_and_loglik(at)[1]):
        p = {str(name): v.values[0, i] for name, v in draws.data_vars.items()}
        expected = norm.logpdf(frame["y"], *by_hand(p, f, x, model.center)).sum()
        assert loglik == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("transform", "accuracy"), [("identity", 1e-12), ("sqrt", 1e-8)])
def test_both_forms_have_one_density_and_its_gradient(transform, accuracy):
    """The fused density, the plain PyMC model, whose censored normal has less accuracy, and central differences."""
    frame = skewed(80, 3)
    if transform == "sqrt":
        frame["y"] = np.maximum(frame["y"] - 0.5, 0.0)
        assert 10 < (frame["y"] == 0.0).sum() < 40
    rows = ensemble(frame)
    model = EMOS(transform=transform, scale=("mean", "elevation"))
    target = compile_target(model.build(rows))
    with model.build(rows, likelihood="rows") as plain_model:
        logp = plain_model.compile_logp()
    at = target.start + 0.3 * np.random.default_rng(4).normal(size=(4, len(target.start)))
    unconstrained, jacobian = target.unconstrained(at)
    values = []
    for i in range(4):
        named, edge = {}, 0
        for variable in target.model.value_vars:
            size = int(np.prod(target.model.initial_point()[variable.name].shape, dtype=int))
            shape = target.model.initial_point()[variable.name].shape
            named[variable.name] = unconstrained[i, edge : edge + size].reshape(shape)
            edge += size
        values.append(float(logp(named)))
    np.testing.assert_allclose(target.logp(at) - jacobian, values, rtol=accuracy)
    _, gradients = target.logp_and_gradient(at)
    for j in range(at.shape[1]):
        step = 1e-5 * np.eye(at.shape[1])[j]
        up, down = target.logp(np.stack([at[0] + step, at[0] - step]))
        assert gradients[0, j] == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-5)


def test_covariates_are_standardised_as_those_of_bma():
    """The same values: BMA's, with members that are not corrected."""
    frame = skewed(60, 5)
    rows = ensemble(frame)
    scale = ("mean", "season", "elevation")
    mine = EMOS(scale=scale).resolve(rows).widths
    theirs = be.BMA(bias="none", scale=scale, site=False, group=False).prepare(rows)
    wanted = Widths.of(
        theirs.widths.names, frame[MEMBERS].to_numpy(), np.ones((60, 3), bool), rows, np.arange(60), positive=True
    )
    assert mine == wanted.to_tuples()
    assert theirs.widths.to_tuples() == mine
    again = Widths.from_tuples(mine)
    np.testing.assert_array_equal(again.center, wanted.center)
    np.testing.assert_array_equal(np.isnan(again.start), [False, True, True, True])


def test_values_below_zero_are_taken_without_a_logarithm():
    frame = skewed(60, 6)
    frame[[*MEMBERS, "y"]] -= 1.0
    ((name, start, center, size, _, _),) = EMOS().resolve(ensemble(frame)).widths
    mean = frame[MEMBERS].mean(axis=1)
    assert (name, start) == ("mean", None)
    assert (center, size) == pytest.approx((mean.mean(), mean.std(ddof=0)))


# --------------------------------------------------------------------------------------------------------- the optimum
def objective(frame, scale, transform="identity", prior=(0.0, 0.3)):
    """Minus log likelihood less the log prior of the widths, by all parameters."""
    g = np.sqrt if transform == "sqrt" else np.asarray
    f, y = g(frame[MEMBERS].to_numpy()), g(frame["y"].to_numpy())
    table = frame.assign(**dict(zip(MEMBERS, f.T, strict=True)))
    x, low, center = covariates(table, table, scale), y == 0.0, y.mean()
    low = low if transform == "sqrt" else np.zeros(len(y), dtype=bool)

    def loglik(u):
        p = {"intercept": u[0], "linear_weight": u[1:4], "sigma": u[4], "spread": u[5], "scale_slope": u[6:]}
        mean, sd = by_hand(p, f, x, center)
        return norm.logpdf(y[~low], mean[~low], sd[~low]).sum() + log_ndtr(-mean[low] / sd[low]).sum()

    return loglik, lambda u: -loglik(u) + 0.5 * np.sum(((u[6:] - prior[0]) / prior[1]) ** 2)


@pytest.mark.parametrize("transform", ["identity", "sqrt"])
@pytest.mark.parametrize("seed", [0, 1])
def test_em_is_the_optimum_that_a_general_optimiser_finds(transform, seed):
    frame = skewed(300, 10 + seed)
    if transform == "sqrt":
        frame["y"] = np.maximum(frame["y"] - 0.4, 0.0)
        assert (frame["y"] == 0.0).any()
    tree = quiet(EMOS(transform=transform, scale=("mean", "elevation")), ensemble(frame), method="em")
    loglik, negative = objective(frame, ("mean", "elevation"), transform)
    p = point(tree)
    here = np.concatenate([[p["intercept"]], p["linear_weight"], [p["sigma"], p["spread"]], p["scale_slope"]])
    assert tree.attrs["loglik"] == pytest.approx(loglik(here), rel=1e-9)
    starts = [np.array([0.0, 0.3, 0.3, 0.3, one, other, 0.3, 0.1]) for one, other in ((0.3, 0.3), (0.5, 0.05))]
    found = min(
        (optimize.minimize(negative, u, method="BFGS", options={"gtol": 1e-6}) for u in starts), key=lambda r: r.fun
    )
    assert negative(here) <= found.fun + 1e-5
    np.testing.assert_allclose(here[6:], found.x[6:], atol=2e-3)


def test_em_takes_the_prior_of_the_widths_and_says_where_it_cannot():
    frame = skewed(100, 13)
    rows = ensemble(frame)
    priors = [Prior("Normal", mu=m, sigma=0.02) for m in (0.1, -0.3)]
    trees = [quiet(EMOS(scale_slope_prior=prior), rows, method="em") for prior in priors]
    near, far = (float(point(tree)["scale_slope"][0]) for tree in trees)
    assert 0.1 < near < 0.3
    assert -0.3 < far < 0.0
    with pytest.warns(UserWarning, match="method='em' of EMOS knows Normal priors of the widths' coefficients alone"):
        odd = be.fit(EMOS(scale_slope_prior=Prior("StudentT", nu=4, mu=0, sigma=0.3)), rows, method="em")
    usual = quiet(EMOS(), rows, method="em")
    assert point(odd)["scale_slope"] == pytest.approx(point(usual)["scale_slope"])


def test_a_row_that_the_regression_can_meet_alone_does_not_take_all_width():
    """Without the prior the likelihood has no bound here: one row far from all others, and widths that follow its distance."""
    frame = plain(40, 14)
    frame.loc[0, [*MEMBERS, "y"]] = [60.0, 75.0, 40.0, 55.0]
    tree = quiet(EMOS(), ensemble(frame), method="em")
    assert abs(float(point(tree)["scale_slope"][0])) < 2.5
    assert np.isfinite(tree.attrs["loglik"])


# -------------------------------------------------------------------------------------------------------- the posterior
def test_auto_and_nuts_agree():
    """Means within .16 sd and sds within 12 %: five Monte Carlo errors at an ESS of 1,000 on both sides."""
    rows = ensemble(skewed(150, 20))
    auto, nuts = (quiet(EMOS(scale=("mean", "elevation")), rows, method=m) for m in ("laplace", "nuts"))
    assert float(nuts.attrs["ess_min"]) > 1000
    assert nuts.attrs["divergences"] == 0
    for name in ("linear_weight", "sd", "scale_slope"):
        a, b = (tree["posterior"].to_dataset()[name].stack(s=("chain", "draw")) for tree in (auto, nuts))
        assert np.all(np.abs(a.mean("s") - b.mean("s")) / b.std("s") < 0.16), name
        assert np.all(np.abs(a.std("s") / b.std("s") - 1.0) < 0.12), name


@pytest.mark.parametrize("method", ["auto", "em"])
def test_widths_of_the_simulated_world_are_found(method):
    """Means within four sds of the truth, three numbers: failure below 2e-4."""
    frame = simulated(2000, 21)
    tree = quiet(EMOS(scale=("mean", "elevation", "noise")), ensemble(frame), method=method)
    slope = tree["posterior"]["scale_slope"].stack(s=("chain", "draw"))
    # The information of a log width is 2 a row, and the covariates are nearly independent: sd = 1 / sqrt(2 n) = .016.
    np.testing.assert_allclose(slope.mean("s"), [0.4, -0.3, 0.0], atol=4 * 0.017)
    if method == "auto":
        np.testing.assert_allclose(slope.std("s"), 0.016, atol=0.003)


@pytest.mark.slow
def test_where_errors_have_one_size_widths_stay_and_cost_nothing():
    """Eight tables: zero inside of the 90 % interval in at least five (of 8 with .9: .995), CRPS up by .3 % at most."""
    inside, change = [], []
    later = ensemble(plain(2000, 99))
    for seed in range(8):
        rows = ensemble(plain(500, 30 + seed))
        trees = [quiet(EMOS(scale=scale), rows, draws=400) for scale in ((), ("mean",))]
        low, high = np.quantile(trees[1]["posterior"]["scale_slope"], [0.05, 0.95])
        inside.append(low <= 0.0 <= high)
        one, other = (float(be.score(tree, later)["crps"].mean()) for tree in trees)
        change.append(other / one - 1.0)
    assert sum(inside) >= 5
    assert np.mean(change) < 0.003


def test_where_errors_grow_with_the_value_the_score_is_better():
    train, later = skewed(500, 40), ensemble(skewed(2000, 41))
    trees = [quiet(EMOS(scale=scale), ensemble(train), draws=400) for scale in ((), ("mean",))]
    one, other = (be.score(tree, later)[["crps", "log_score"]].mean() for tree in trees)
    assert other["crps"] < 0.98 * one["crps"]
    assert other["log_score"] < one["log_score"] - 0.1


def test_large_errors_of_large_values_are_not_called_far_out():
    rng = np.random.default_rng(42)
    truth = np.exp(1.5 * rng.normal(size=400))
    frame = pd.DataFrame(truth[:, None] * np.exp(0.3 * rng.normal(size=(400, 3))), columns=MEMBERS)
    rows = ensemble(frame.assign(y=truth * np.exp(0.2 * rng.normal(size=400))))
    with pytest.warns(UserWarning, match="lie more than 20 median absolute deviations"):
        be.fit(EMOS(scale=()), rows, method="em")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        be.fit(EMOS(), rows, method="em")


# ---------------------------------------------------------------------------------------------------- files and options
def test_a_fit_read_from_a_file_predicts_the_same(tmp_path):
    frame = skewed(60, 70)
    tree = quiet(EMOS(scale=("mean", "season", "elevation")), ensemble(frame), draws=100)
    write_fit(tree, tmp_path / "fit.nc")
    again = be.read_fit(tmp_path / "fit.nc")
    new = ensemble(skewed(40, 71))
    for name, values in be.predict(tree, new).data_vars.items():
        np.testing.assert_array_equal(values, be.predict(again, new)[name])
    assert model_of(again) == model_of(tree)
    assert [line[0] for line in model_of(again).widths] == ["mean", "season_sin", "season_cos", "elevation"]
    assert np.isfinite(be.loo(again, ensemble(frame), progressbar=False).elpd)


def test_a_fit_that_was_saved_before_there_were_widths_has_none():
    old = {
        k: v
        for k, v in options_to_json(EMOS(scale=(), center=1.0)).items()
        if k not in ("scale", "widths", "scale_slope_prior")
    }
    assert options_from_json(EMOS, old) == EMOS(scale=(), widths=(), center=1.0)


def test_a_resolved_model_keeps_its_scales_on_other_rows():
    resolved = EMOS(scale=("mean", "elevation")).resolve(ensemble(skewed(60, 72)))
    assert resolved.resolve(ensemble(skewed(30, 73))) == resolved
    assert EMOS(scale=()).resolve(ensemble(skewed(60, 72))).widths == ()


def test_the_command_line_and_describe_know_the_widths(tmp_path):
    from typer.testing import CliRunner

    from bayesens.app.cli.main import app

    frame = skewed(80, 74)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.drop(columns="y").head(9).to_csv(tmp_path / "new.csv", index=False)
    runner, fit = CliRunner(), str(tmp_path / "fit.nc")
    asked = ["fit", str(tmp_path / "rows.csv"), "--members", "a,b,c", "--observation", "y", "--model", "emos", "--method", "em",
             "--covariates", "elevation", "--option", 'scale=["mean", "elevation"]', "--out", fit]  # fmt: skip
    result = runner.invoke(app, asked)
    assert result.exit_code == 0, result.output
    told = runner.invoke(app, ["describe", fit])
    assert told.exit_code == 0, told.output
    assert "scale_slope" in told.output
    made = runner.invoke(app, ["predict", fit, str(tmp_path / "new.csv"), "--out", str(tmp_path / "out.csv")])
    assert made.exit_code == 0, made.output
    assert np.isfinite(pd.read_csv(tmp_path / "out.csv")["sd"]).all()


def test_options_in_words_are_lists_and_name_the_columns_of_a_study():
    name, value = option_from_words(EMOS, 'scale=["mean", "elevation"]')
    assert columns_asked(EMOS(**{name: value})) == ("elevation",)
    with pytest.raises(ValueError, match=r"option scale of EMOS got 'mean'; .* written as a list: scale=\[\"mean\"\]"):
        option_from_words(EMOS, "scale=mean")


def test_the_usual_grid_of_priors_has_that_of_the_widths_where_there_are_any():
    assert "scale_slope_prior" in usual_grid(EMOS())
    assert "scale_slope_prior" not in usual_grid(EMOS(scale=()))


@pytest.mark.parametrize(("scale", "error", "message"), [
    (("mean", "spread"), ValueError, r"EMOS\(scale=...\) names 'mean', 'season' or columns .*; got \('mean', 'spread'\). Leave "
     r"'spread' out: the variance has it already, by spread\^2 s_i\^2"),
    (("mean", "mean"), ValueError, r"EMOS\(scale=...\) names something twice: \('mean', 'mean'\). Name each once"),
    ("mean", TypeError, r"EMOS\(scale=...\) is a sequence of names, such as .*; got 'mean'"),
    (0.3, TypeError, r"EMOS\(scale=...\) names what the widths follow.*; got 0.3"),
    (None, TypeError, r"EMOS\(scale=...\) is a sequence of names, .*; got None. Write \(\) for"),
])  # fmt: skip
def test_options_that_are_no_names_are_refused(scale, error, message):
    with pytest.raises(error, match=message):
        EMOS(scale=scale)


def test_scales_of_other_columns_are_refused():
    resolved = EMOS().resolve(ensemble(skewed(40, 75)))
    with pytest.raises(
        ValueError, match=r"EMOS\(widths=...\) standardises \['mean'\], and scale=\(\) has the columns \[\]"
    ):
        replace(resolved, scale=())


@pytest.mark.parametrize(("scale", "change", "message"), [
    (("clay",), {}, r"asks for the column 'clay', and the table has 'elevation', 'noise'; name it with Ensemble.from_frame"),
    (("elevation",), {"elevation": 3.0}, r"Covariate 'elevation' is 3 in all 40 training rows; .* leave it out of scale"),
    (("elevation",), {"elevation": np.nan}, r"Covariate 'elevation' is missing in all 40 training rows"),
])  # fmt: skip
def test_columns_that_say_nothing_are_refused(scale, change, message):
    frame = skewed(40, 76).assign(**change)
    for method in ("em", "auto"):
        with pytest.raises(ValueError, match=message):
            quiet(EMOS(scale=scale), ensemble(frame), method=method)


def test_the_season_needs_dates():
    with pytest.raises(ValueError, match="'season' needs the dates of the rows"):
        quiet(EMOS(scale=("season",)), ensemble(skewed(40, 77).drop(columns="date")), method="em")
