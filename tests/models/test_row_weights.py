"""Weights that follow covariates: their density, what they find and cost, tables and grids, what is missing and refused."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import expit, k0, logsumexp
from scipy.stats import halfnorm, norm

import bayesens as be
from bayesens import BMA, Prior
from bayesens.distributions.mixtures import NormalMixture
from bayesens.inference.fit_tree import model_of, read_fit, write_fit
from bayesens.inference.log_density import compile_target
from bayesens.likelihoods.corrected.row_weights.mixture import RowWeighted

FOLLOWS = BMA(weights="covariates", weight_covariates=("elevation",))


def valleys(slope, sites=40, times=25, seed=1, first=0):
    """Two members, each a mixture of a sharp and a blunt view; which of them is sharp depends on the station's elevation."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=sites).repeat(times)
    y = rng.normal(10.0, 1.0, sites * times)
    sharp = rng.random(len(y)) < expit(2.0 * slope * z)
    f = y[:, None] + np.where(sharp[:, None], [0.3, 1.0], [1.0, 0.3]) * rng.normal(size=(len(y), 2))
    return pd.DataFrame({"station": np.array([f"s{first + i:03d}" for i in range(sites)]).repeat(times), "y": y, "a": f[:, 0],
                         "b": f[:, 1], "elevation": 1000.0 + 300.0 * z, "sand": rng.random(len(y))})  # fmt: skip


def ensemble(frame, **options):
    known = {"members": ["a", "b"], "observation": "y", "site": "station", "covariates": ["elevation", "sand"]}
    return be.Ensemble.from_frame(frame, **(known | options))


def quiet(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return function(*args, **options)


def fitted_to(rows, model=FOLLOWS, **options):
    return quiet(be.fit, model, rows, **({"random_seed": 1, "progressbar": False, "draws": 250} | options))


def slope_of(fit, member="a", covariate="elevation"):
    return fit["posterior"]["weight_slope"].sel(member=member, weight_covariate=covariate)


@pytest.fixture(scope="module")
def fit():
    return fitted_to(ensemble(valleys(1.0)))


# ---------------------------------------------------------------------------------------------------------- the density
def known_kernels(weight, slope, n, seed, sigma=0.3):
    """Rows of the mixture itself: members, covariates in standard units, and an observation around one member."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, len(slope)))
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    f = rng.normal(size=(n, len(weight)))
    odds = weight * np.exp(z @ slope)
    edges = np.cumsum(odds / odds.sum(axis=1, keepdims=True), axis=1)
    kernel = np.minimum((rng.random(n)[:, None] > edges).sum(axis=1), len(weight) - 1)
    y = f[np.arange(n), kernel] + np.broadcast_to(sigma, len(weight))[kernel] * rng.normal(size=n)
    members, columns = list("abcdef"[: len(weight)]), [f"z{c}" for c in range(len(slope))]
    frame = pd.DataFrame(np.column_stack([f, z]), columns=members + columns).assign(y=y)
    return frame, be.Ensemble.from_frame(frame, members=members, observation="y", covariates=columns)


def of_kernels(covariates, **options):
    """The mixture whose members need no correction."""
    bare = {"bias": "none", "scale": (), "site": False, "group": False, "sigma_floor": 0.0, "center": 0.0, "unit": 1.0}
    return BMA(weights="covariates", weight_covariates=covariates, sigma_scale=0.3, **(bare | options))


def test_log_likelihood_is_that_of_the_docstring():
    frame = valleys(1.0, sites=6, times=5)
    frame.loc[[1, 4, 12], "b"] = np.nan
    model = BMA(weights="covariates", weight_covariates=("elevation", "sand"), scale=(), site=False)
    table = quiet(model.prepare, ensemble(frame))
    target = compile_target(model.build(table))
    x = target.start + np.random.default_rng(2).normal(size=(12, len(target.start)))
    draw = {str(n): v.values[0] for n, v in target.expand(x[None])[0].data_vars.items()}
    z = frame[["elevation", "sand"]].to_numpy()
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    for i, found in enumerate(target.logp_and_loglik(x)[1]):
        logit = np.where(table.rows.available, np.log(draw["weight"][i]) + z @ draw["weight_slope"][i], -np.inf)
        sd = draw["sigma"][i] * np.sqrt(1.0 + table.mixture.excess)
        rows = logsumexp(logit + norm.logpdf(table.mixture.residual, 0.0, sd), axis=1) - logsumexp(logit, axis=1)
        assert found == pytest.approx(rows.sum(), abs=1e-8)
    np.testing.assert_allclose(draw["weight_slope"].sum(axis=-1), 0.0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("slope", "method"), [(0.0, "auto"), (0.0, "nuts"), (1.2, "auto")])
def test_posterior_of_a_slope_is_that_of_quadrature(slope, method):
    """Weights and sigma held: p(d | y) ~ L(d) p(d), where d = s u / sqrt(2) is the product of two normals of sd .5 and .71."""
    frame, rows = known_kernels(np.full(2, 0.5), np.array([[slope, -slope]]), 120, seed=4)
    model = of_kernels(("z0",), sigma="shared", weight_prior=Prior("Dirichlet", a=1e7),
                       sigma_prior=Prior("LogNormal", mu=0, sigma=1e-3))  # fmt: skip
    fit = fitted_to(rows, model, method=method, draws=1000)
    density = norm.pdf(frame.y.to_numpy()[:, None], frame[["a", "b"]], 0.3)
    grid = np.linspace(-3.0, 3.0, 1501)
    share = expit(2.0 * np.outer(grid, frame["z0"]))
    loglik = np.log(share * density[:, 0] + (1.0 - share) * density[:, 1]).sum(axis=1)
    c = 0.5 / np.sqrt(2.0)
    prior = k0(np.maximum(np.abs(grid), 5e-4) / c) / (np.pi * c)
    p = np.exp(loglik - loglik.max()) * prior
    p /= p.sum()
    mean = p @ grid
    sd = np.sqrt(p @ (grid - mean) ** 2)
    draws = slope_of(fit, covariate="z0")
    # An importance or effective sample of 1,000 at least: five standard errors.
    assert float(draws.mean()) == pytest.approx(mean, abs=0.16 * sd)
    assert float(draws.std()) == pytest.approx(sd, rel=0.12)
    assert fit.attrs.get("divergences", 0) <= 4


# ------------------------------------------------------------------------------------------------------- what it is for
@pytest.mark.slow
def test_the_better_member_is_found_by_elevation_and_new_stations_are_predicted_better(fit):
    new = ensemble(valleys(1.0, seed=2, first=100))
    plain = fitted_to(ensemble(valleys(1.0)), BMA())
    both = [quiet(be.score, one, new) for one in (fit, plain)]
    gain = both[1]["log_score"] - both[0]["log_score"]
    by_station = gain.groupby("site").mean()
    assert float(by_station.mean()) > 3.0 * float(by_station.std()) / np.sqrt(by_station.size)
    assert float(both[0]["crps"].mean()) < 0.99 * float(both[1]["crps"].mean())
    assert float(slope_of(fit).quantile(0.01)) > 0.2


@pytest.mark.slow
def test_covariates_that_tell_nothing_cost_little():
    """Five covariates of noise, at new stations: .3 % of the CRPS at the most on average over eight worlds."""
    rng = np.random.default_rng(5)
    ratio = []
    for seed in range(8):
        tables = [valleys(0.0, seed=100 + 2 * seed + part, first=100 * part) for part in range(2)]
        noise = [f"n{c}" for c in range(4)]
        tables = [t.assign(**{c: rng.normal(size=40).repeat(25) for c in noise}) for t in tables]
        train, new = (ensemble(t, covariates=["elevation", *noise]) for t in tables)
        model = BMA(weights="covariates", weight_covariates=("elevation", *noise))
        crps = [float(quiet(be.score, fitted_to(train, one), new)["crps"].mean()) for one in (model, BMA())]
        ratio.append(crps[0] / crps[1])
    assert np.mean(ratio) < 1.003, ratio


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
def test_intervals_of_slopes_hold_what_made_the_rows(broken):
    """Everything drawn from the prior, 60 times: 90 % intervals hold the slope 47 times or more, or a correct program fails in
    .2 % of the runs. A twin that pairs rows with other rows' covariates fails.
    """
    rng, held = np.random.default_rng(6), 0
    for seed in range(60):
        slope = halfnorm.rvs(scale=0.5, random_state=rng) * rng.normal(size=(1, 3))
        slope -= slope.mean(axis=1, keepdims=True)
        sigma = 0.3 * np.exp(0.5 * rng.normal() + 0.3 * rng.normal(size=3))
        frame, rows = known_kernels(rng.dirichlet(np.ones(3)), slope, 400, seed, sigma)
        if broken:
            rows = ensemble(
                frame.assign(z0=np.roll(frame["z0"], 1)), members=["a", "b", "c"], site=None, covariates=["z0"]
            )
        low, high = slope_of(fitted_to(rows, of_kernels(("z0",))), covariate="z0").quantile([0.05, 0.95]).values
        held += low <= slope[0, 0] <= high
    assert (held >= 47) is not broken, held


# ----------------------------------------------------------------------------------------------------------- predictions
def mixture_of(fit, rows):
    return model_of(fit).predictive(fit["posterior"].to_dataset(), rows, fit["history"].to_dataset())


def test_slopes_of_zero_are_the_law_of_all_rows(fit):
    rows = ensemble(valleys(1.0, sites=4, seed=3, first=38))
    posterior = fit["posterior"].to_dataset()
    flat = posterior.assign(weight_slope=0.0 * posterior["weight_slope"])
    tilted, plain = (model_of(fit).predictive(p, rows, fit["history"].to_dataset())
                     for p in (flat, posterior.drop_vars("weight_slope")))  # fmt: skip
    assert isinstance(tilted, RowWeighted)
    assert not isinstance(plain, RowWeighted)
    for name in ("mean", "within", "between", "parameter"):
        np.testing.assert_allclose(
            getattr(tilted.moments(), name), getattr(plain.moments(), name), rtol=1e-9, atol=1e-12
        )
    y = rows.observation
    np.testing.assert_allclose(tilted.log_likelihood(y), plain.log_likelihood(y), rtol=1e-9, atol=1e-12)
    levels = np.array([0.05, 0.5, 0.95])
    np.testing.assert_allclose(tilted.matched().quantile(levels), plain.matched().quantile(levels), rtol=1e-9)
    one, other = (m.sample(50, np.random.default_rng(1)) for m in (tilted, plain))
    np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("kernel", ["normal", "student_t"])
def test_matched_mixture_has_the_moments_and_quantiles_of_all_draws(kernel):
    model = BMA(weights="covariates", weight_covariates=("elevation",), kernel=kernel)
    fit = fitted_to(ensemble(valleys(1.0, sites=12)), model)
    rows = ensemble(valleys(1.0, sites=6, times=2, seed=3, first=9))  # known and new stations
    mixture = mixture_of(fit, rows)
    matched, moments = mixture.matched(), mixture.moments()
    np.testing.assert_allclose(matched.mean(), moments.mean, atol=0.002)
    np.testing.assert_allclose(matched.variance(), moments.variance, rtol=0.02)
    every = np.arange(len(mixture.draws))
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    for rows_of_class in mixture.parts(1000):
        weight, mean, sd = mixture.components(rows_of_class, every)
        weight, mean, sd = (np.moveaxis(a, 1, 0).reshape(len(rows_of_class), -1) for a in (weight, mean, sd))
        exact = NormalMixture(weight / len(every), mean, sd)
        np.testing.assert_allclose(exact.cdf(matched.quantile(levels)[rows_of_class].T), levels[:, None] + 0.0 * weight[:, 0],
                                   atol=0.004)  # fmt: skip
        np.testing.assert_allclose(exact.mean(), moments.mean[rows_of_class], rtol=1e-9)


def test_what_a_row_gets_does_not_depend_on_the_rows_beside_it(fit):
    rows = ensemble(valleys(1.0, sites=4, seed=3, first=38))
    some = [3, 40, 77]
    whole, part = (quiet(be.predict, fit, table) for table in (rows, rows.select(rows=some)))
    # Products of matrices sum in blocks that follow the number of rows, on some processors: the last digit may differ.
    for name in whole.data_vars:
        np.testing.assert_allclose(whole[name].isel(obs=some).values, part[name].values, rtol=1e-12, atol=1e-12)


def test_beyond_the_training_rows_weights_stay_and_a_missing_covariate_is_a_mean_one(fit):
    frame = valleys(1.0, sites=4, seed=3, first=38)

    def predicted(elevation):
        return quiet(be.predict, fit, ensemble(frame.assign(elevation=elevation)))

    known = valleys(1.0)["elevation"]
    xr.testing.assert_identical(predicted(known.max()), predicted(9e4))
    xr.testing.assert_allclose(predicted(np.nan), predicted(known.mean()))
    assert not predicted(known.max()).equals(predicted(known.min()))


def test_a_grid_is_predicted_as_its_table(fit):
    rng = np.random.default_rng(4)
    grid = xr.Dataset({"a": (("time", "y", "x"), rng.normal(10.0, 1.0, (2, 3, 4))),
                       "b": (("time", "y", "x"), rng.normal(10.0, 1.0, (2, 3, 4))),
                       "elevation": (("y", "x"), rng.uniform(500.0, 1500.0, (3, 4)))})  # fmt: skip
    grid["a"][0, 0, 0] = np.nan
    found = quiet(be.predict, fit, grid)
    table = grid.to_dataframe().reset_index()
    of_rows = quiet(be.predict, fit, be.Ensemble.from_frame(table, members=["a", "b"], covariates=["elevation"]))
    for name in ("mean", "sd"):
        laid = found[name].to_dataframe().reset_index().merge(table, on=["time", "y", "x"], how="right")[name]
        np.testing.assert_allclose(laid, of_rows[name], rtol=1e-9)
    field = be.ResidualField(range=2.0, places=("x", "y"))
    placed = grid.assign_coords(x=np.arange(4.0), y=np.arange(3.0), time=pd.date_range("2020-01-01", periods=2))
    assert np.isfinite(quiet(be.draw, fit, placed, field=field, size=3, random_seed=1)).all()


def test_the_season_and_the_members_own_values_are_covariates_too():
    frame = valleys(1.0, sites=8).assign(day=pd.date_range("2020-01-01", periods=200))
    model = BMA(weights="covariates", weight_covariates=("season", "mean", "spread"))
    fit = fitted_to(ensemble(frame, time="day"), model)
    assert fit["posterior"]["weight_covariate"].values.tolist() == ["season_sin", "season_cos", "mean", "spread"]
    assert np.isfinite(quiet(be.predict, fit, ensemble(frame, time="day"))["mean"]).all()
    with pytest.raises(ValueError, match="'season' needs the dates of the rows"):
        fitted_to(ensemble(frame), model)


@pytest.mark.slow
def test_everything_else_takes_it(fit, tmp_path):
    rows = ensemble(valleys(1.0))
    write_fit(fit, tmp_path / "fit.nc")
    again = read_fit(tmp_path / "fit.nc")
    xr.testing.assert_identical(quiet(be.predict, again, rows), quiet(be.predict, fit, rows))
    assert json.loads(again.attrs["bayesens_options"])["weight_covariates"] == ["elevation"]
    assert np.isfinite(float(quiet(be.loo, fit, rows).elpd))
    assert np.isfinite(quiet(be.draw, fit, rows, size=5, random_seed=1)).all()
    plain = BMA(weights="covariates", weight_covariates=("elevation",))
    compared = quiet(be.compare, {"BMA": BMA(), "follows": plain}, rows, estimand="site", folds=3, draws=50, random_seed=1,
                     progressbar=False)  # fmt: skip
    crps = compared["crps"].mean("obs")
    assert float(crps.sel(model="follows")) < float(crps.sel(model="BMA"))
    implied = be.sensitivity.prior_predictive(plain, rows, draws=100, random_seed=1)
    assert float(implied["coverage90"]) > 0.8


def test_words_say_where_weights_are_and_how_far_they_move(fit):
    told = be.summary(fit)
    (title,) = (t for t in told.columns if t.startswith("Weights where a covariate is one standard deviation below"))
    assert list(told.columns[title]) == ["member", "elevation low", "elevation high"]
    odds = fit["posterior"]["weight"] * np.exp(slope_of(fit, ["a", "b"]))
    high = float((odds / odds.sum("member")).sel(member="a").median())
    assert float(told.columns[title]["elevation high"][0].split()[0]) == pytest.approx(high, abs=0.001)
    assert "weight_spread of elevation" in told.columns["In common"]["parameter"]
    assert be.plots.weights(fit).get_xlabel() == "Weight"


# ---------------------------------------------------------------------------------------------------------------- refused
@pytest.mark.parametrize(("options", "error", "text"), [
    ({"weights": "covariates"}, ValueError, r"got no weight_covariates; name what the weights follow, such as weight_cov"),
    ({"weight_covariates": ("elevation",)}, ValueError, "needs weights='covariates'; got weights='global'"),
    ({"weights": "covariates", "weight_covariates": "elevation"}, TypeError, "is a sequence of names"),
    ({"weights": "covariates", "weight_covariates": ("sand", "sand")}, ValueError, "names something twice"),
    ({"weights": "covariates", "weight_covariates": ("sand",), "correction": "joint"}, ValueError,
     "has weights of all rows or of groups; got weights='covariates'. Use correction='own', or weights='global'"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_refused(options, error, text):
    with pytest.raises(error, match=text):
        BMA(**options)


def test_data_that_tell_nothing_and_methods_that_do_not_know_it_are_refused(fit):
    frame = valleys(1.0, sites=4)
    with pytest.raises(
        ValueError, match="method='em' has no weights that follow covariates; use method='auto' or 'nuts'"
    ):
        fitted_to(ensemble(frame), method="em")
    with pytest.raises(
        ValueError, match=r"Covariate 'elevation' is 3 in all 100 training rows; .* out of weight_covariates"
    ):
        fitted_to(ensemble(frame.assign(elevation=3.0)))
    with pytest.raises(ValueError, match="column 'elevation', and the table has 'sand'; name it with"):
        fitted_to(ensemble(frame, covariates=["sand"]))
    with pytest.raises(ValueError, match="column 'elevation', and the table has no covariates"):
        be.predict(fit, ensemble(frame, covariates=[]))


def test_one_member_has_nothing_to_follow():
    fit = fitted_to(ensemble(valleys(1.0, sites=6), members=["a"]))
    assert "weight_slope" not in fit["posterior"]
