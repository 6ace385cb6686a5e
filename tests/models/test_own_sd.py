"""BMA whose kernels follow members' own standard deviations, against densities written out row by row."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.stats import norm
from scipy.stats import t as student_t

import bayesens as be
from bayesens.likelihoods.corrected.widths import Widths, columns_asked
from bayesens.likelihoods.spread.own_sds import OwnSds

MEMBERS, SPREAD = ["krig", "net", "rf"], {"krig": "krig_sd", "net": "net_sd"}


def table(n=300, seed=1, *, word="right"):
    """Kriging and two others; its own standard deviation is that of its error, half of it, part of it, or nothing."""
    rng = np.random.default_rng(seed)
    sd, truth, common = 0.7 * np.exp(0.6 * rng.normal(size=n)), rng.normal(5.0, 1.5, n), 0.4 * rng.normal(size=n)
    error = {"right": sd, "half": 2.0 * sd, "part": np.hypot(sd, 0.5), "nothing": np.full(n, 0.8)}[word]
    return pd.DataFrame({
        "y": truth, "krig": truth + common + error * rng.normal(size=n), "net": truth + common + 0.9 * rng.normal(size=n),
        "rf": 0.8 * truth + common + 0.9 * rng.normal(size=n), "krig_sd": sd, "net_sd": np.exp(0.3 * rng.normal(size=n)),
        "site": rng.integers(0, 6, n),
    })  # fmt: skip


def ensemble_of(frame, spread=SPREAD, **roles):
    return be.Ensemble.from_frame(frame, members=MEMBERS, observation="y", spread=spread, **roles)


def quietly(make, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return make(*args, **options)


def fitted(model, ensemble, **options):
    return quietly(be.fit, model, ensemble, **({"method": "em", "progressbar": False, "random_seed": 1} | options))


@pytest.fixture(scope="module")
def ensemble():
    frame = table()
    frame.loc[:9, ["krig", "krig_sd"]] = np.nan
    return ensemble_of(frame)


@pytest.fixture(scope="module")
def held_out():
    return ensemble_of(table(60, 2))


def variances(fit, ensemble, x):
    """h of every row and member, by the formula of the docstring."""
    history, frame = fit["history"], ensemble.to_frame()
    out = np.ones((len(frame), 3))
    for k, column in ((0, "krig_sd"), (1, "net_sd")):
        a, m, c = (history[f"own_{name}"].values[k] for name in ("share", "size", "slope"))
        v = frame[column] ** 2 * np.exp(-2.0 * x @ c)
        out[:, k] = np.where(frame[MEMBERS[k]].notna(), 1.0 - a + a * v / m**2, 1.0)
    return out


def kernel_densities(model, ensemble, plain, fit, log_weight, sigma, slope, nu=None):
    """Log density of every training row under parameters, from corrections that know nothing of own standard deviations."""
    without = replace(model, own_sd=()).prepare(plain)
    rows = without.mixture
    sd = sigma * np.exp(rows.x @ slope)[:, None] * np.sqrt(variances(fit, ensemble, rows.x) + rows.excess)
    z, kernel = rows.residual / sd, norm if nu is None else student_t(nu)
    log_weight = np.where(rows.available, log_weight, -np.inf)
    return logsumexp(log_weight + kernel.logpdf(z) - np.log(sd), axis=1) - logsumexp(log_weight, axis=1)


def check_rows(model, ensemble):
    """Log likelihoods that a fit stores, which loo takes, are those written out."""
    fit = fitted(model, ensemble, method="auto", draws=5, chains=4)
    posterior = fit["posterior"].to_dataset().stack(sample=("chain", "draw"))
    stored = fit["log_likelihood"]["y"].stack(sample=("chain", "draw"))
    plain = ensemble_of(ensemble.to_frame(), None)
    for s in (0, 7):
        one = posterior.isel(sample=s)
        nu = float(one["nu"]) if "nu" in one else None
        by_hand = kernel_densities(model, ensemble, plain, fit, np.log(one["weight"].values), one["sigma"].values,
                                   one["scale_slope"].values, nu)  # fmt: skip
        assert_allclose(stored.isel(sample=s).values, by_hand, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", ["normal", "student_t"])
def test_training_rows_have_the_density_of_the_docstring(ensemble, kernel):
    check_rows(be.BMA(kernel=kernel), ensemble)


def test_kernels_that_forget_it_would_be_seen(ensemble, monkeypatch):
    """The broken twin."""
    monkeypatch.setattr(OwnSds, "at", lambda self, squares, x: np.ones(squares.shape))
    with pytest.raises(AssertionError):
        check_rows(be.BMA(), ensemble)


@pytest.mark.slow
def test_both_forms_are_the_model_that_a_statistician_would_write(ensemble):
    model = be.BMA().resolve(ensemble)
    fit = fitted(be.BMA(), ensemble)
    without = replace(model, own_sd=()).prepare(ensemble_of(ensemble.to_frame(), None))
    rows, y = without.mixture, without.rows.y
    h = variances(fit, ensemble, rows.x)
    with pm.Model() as plain:
        weight = pm.Dirichlet("weight", np.ones(3))
        sigma_mean = pm.LogNormal("sigma_mean", np.log(model.sigma_scale), 0.5)
        sigma = pm.LogNormal("sigma", pm.math.log(sigma_mean), 0.3, shape=3)
        slope = pm.Normal("scale_slope", 0.0, 0.3, shape=2)
        share = weight * rows.available
        share = share / share.sum(axis=1, keepdims=True)
        sd = sigma * pm.math.exp(pm.math.dot(rows.x, slope))[:, None] * np.sqrt(h + rows.excess)
        pm.NormalMixture("y", w=share, mu=np.where(rows.available, without.corrected, y[:, None]), sigma=sd, observed=y)
    three = [plain, model.build(ensemble, "rows"), model.build(ensemble, "fused")]
    names = {v.name for v in plain.value_vars}
    logps = [one.compile_logp() for one in three]
    rng, found = np.random.default_rng(1), []
    for _ in range(4):
        point = {
            name: np.asarray(value) + 0.3 * rng.normal(size=np.shape(value))
            for name, value in plain.initial_point().items()
        }
        assert all({v.name for v in one.value_vars} == names for one in three)
        found.append([float(logp(point)) for logp in logps])
    apart = np.diff(np.array(found), axis=1)
    assert_allclose(apart, np.broadcast_to(apart[0], apart.shape), atol=1e-7)
    assert_allclose(apart[:, 0], 0.0, atol=1e-7)


@pytest.mark.parametrize("scale", ["identity", "log", "sqrt"])
def test_new_rows_have_the_mixture_of_the_docstring(scale):
    frame, new = table(200, 3), table(25, 4)
    for one in (frame, new):
        one[MEMBERS + ["y"]] = np.exp(0.3 * one[MEMBERS + ["y"]])
        one["krig_sd"] *= 0.3 * one["krig"]
    g = {"identity": lambda v: v, "log": np.log, "sqrt": np.sqrt}[scale]
    ensemble, held_out = ensemble_of(frame, {"krig": "krig_sd"}), ensemble_of(new, {"krig": "krig_sd"})
    fit = fitted(be.BMA(transform=scale), ensemble, method="auto", draws=50, chains=4)
    posterior = fit["posterior"].to_dataset().stack(sample=("chain", "draw")).transpose("sample", ...)
    history, options = fit["history"].to_dataset(), be.BMA(transform=scale).resolve(ensemble)
    f, c = g(new[MEMBERS].to_numpy()), options.center
    there = np.ones(f.shape, dtype=bool)
    means = (
        c - posterior["bias"].values[:, None] + posterior["slope"].values[:, None] * (f - c)
    )  # (sample, row, member)
    point = c - posterior["bias"].values.mean(axis=0) + posterior["slope"].values.mean(axis=0) * (f - c)
    x = Widths.from_dataset(history).at(point, there, held_out, np.arange(len(new)))
    sd = (g(new["krig"] + new["krig_sd"]) - g(new["krig"])).to_numpy()
    a, m, slope = (history[f"own_{name}"].values[0] for name in ("share", "size", "slope"))
    h = np.ones(f.shape)
    h[:, 0] = 1.0 - a + a * sd**2 * np.exp(-2.0 * x @ slope) / m**2
    assert a > 0.2
    width = np.exp(posterior["scale_slope"].values @ x.T)[:, :, None]
    sigma = posterior["sigma"].values[:, None] * width * np.sqrt(h)
    weight = posterior["weight"].values[:, None]
    said = quietly(be.predict, fit, held_out, quantiles=[0.05, 0.5, 0.95])
    for level, q in zip((0.05, 0.5, 0.95), said["quantile_value"].transpose("quantile", "obs").values, strict=True):
        below = (weight * norm.cdf((g(np.maximum(q, 1e-9))[:, None] - means) / sigma)).sum(axis=2).mean(axis=0)
        assert_allclose(below, level, atol=0.01)
    if scale == "identity":
        mean = (weight * means).sum(axis=2).mean(axis=0)
        assert_allclose(said["mean"], mean, rtol=1e-3)
        square = (weight * (sigma**2 + means**2)).sum(axis=2).mean(axis=0)
        assert_allclose(said["sd"], np.sqrt(square - mean**2), rtol=0.01)


def test_methods_agree_and_leave_one_out_takes_them(ensemble, held_out):
    fits = {method: fitted(be.BMA(), ensemble, method=method, draws=500) for method in ("em", "auto", "nuts")}
    crps = [float(quietly(be.score, fit, held_out)["crps"].mean()) for fit in fits.values()]
    assert_allclose(crps, crps[0], rtol=0.01)
    shares = [fit["history"]["own_share"].values for fit in fits.values()]
    assert_allclose(shares, [shares[0]] * 3)
    told, untold = (quietly(be.loo, fit, one) for fit, one in (
        (fits["auto"], ensemble), (fitted(be.BMA(own_sd=()), ensemble, method="auto", draws=500), ensemble)))  # fmt: skip
    assert told.elpd > untold.elpd


@pytest.mark.parametrize("model", [be.BMA(site=True), be.BMA(kernel="student_t", transform="log")])
def test_cells_of_a_grid_are_rows_of_a_table(model):
    frame = table(seed=5).assign(**{name: lambda t, name=name: np.abs(t[name]) + 0.1 for name in [*MEMBERS, "y"]})
    fit = fitted(model, ensemble_of(frame, site="site"), method="auto", draws=100)
    new = frame[:24]
    grid = xr.Dataset(
        {name: (("lat", "lon"), new[name].to_numpy().reshape(4, 6)) for name in [*MEMBERS, *SPREAD.values()]}
    )
    rows = quietly(be.predict, fit, ensemble_of(new), quantiles=[0.05, 0.5, 0.95])
    for chunked in (grid, grid.chunk({"lat": 2})):
        cells = quietly(be.predict, fit, chunked, quantiles=[0.05, 0.5, 0.95]).compute()
        for name in ("mean", "sd"):
            assert_allclose(cells[name].values.ravel(), rows[name].values)
        assert_allclose(
            cells["quantile_value"].values.reshape(3, -1), rows["quantile_value"].transpose("quantile", "obs")
        )
    with pytest.raises(KeyError, match="krig_sd"):
        be.predict(fit, grid.drop_vars("krig_sd"))


def test_a_table_needs_the_column_and_may_lack_values_without_its_name(ensemble, held_out):
    fit, frame = fitted(be.BMA(), ensemble), held_out.to_frame()
    assert columns_asked(be.BMA().resolve(ensemble)) == ("krig_sd", "net_sd")
    beside = be.Ensemble.from_frame(frame, members=MEMBERS, covariates=[*SPREAD.values()])
    assert_allclose(quietly(be.predict, fit, beside)["sd"], quietly(be.predict, fit, held_out)["sd"])
    with pytest.raises(ValueError, match="asks for the column 'krig_sd', and the table has no covariates"):
        be.predict(fit, ensemble_of(frame, None))
    frame.loc[3, "krig_sd"] = np.nan
    with pytest.warns(UserWarning, match="1 of 60 rows have 'krig' and no value of 'krig_sd', its standard deviation"):
        be.predict(fit, be.Ensemble.from_frame(frame, members=MEMBERS, covariates=[*SPREAD.values()]))
    frame.loc[3, "krig_sd"] = -0.1
    with pytest.raises(
        ValueError, match="'krig_sd', the standard deviation of member 'krig', is below zero in 1 of 60 rows"
    ):
        be.predict(fit, be.Ensemble.from_frame(frame, members=MEMBERS, covariates=[*SPREAD.values()]))


def test_none_is_the_model_of_before(ensemble, held_out):
    plain = ensemble_of(ensemble.to_frame(), None)
    one, other = fitted(be.BMA(own_sd=()), ensemble), fitted(be.BMA(), plain)
    for name in ("weight", "sigma", "scale_slope"):
        assert np.array_equal(one["posterior"][name], other["posterior"][name])
    assert np.array_equal(quietly(be.predict, one, held_out)["sd"], quietly(be.predict, other, held_out)["sd"])
    assert be.BMA(own_sd={"krig": "krig_sd"}).own_sd == (("krig", "krig_sd"),)
    some = fitted(
        be.BMA(own_sd=[["krig", "krig_sd"]]), plain.__class__(ensemble.dataset.assign_attrs(bayesens_spread="{}"))
    )
    assert some["history"]["own_share"].values[0] > 0.3
    assert some["history"]["own_share"].values[1] == 0.0


def test_models_that_do_not_use_it_say_so(ensemble):
    plain = ensemble_of(ensemble.to_frame(), None)
    joint = be.BMA(correction="joint")
    assert joint.resolve(ensemble).own_sd == ()
    for model in (be.HBM(), be.EMOS(), be.LinearPool()):
        assert "own_sd" not in {*vars(model)}
    one, other = fitted(be.LinearPool(), ensemble), fitted(be.LinearPool(), plain)
    assert np.array_equal(one["posterior"]["weight"], other["posterior"]["weight"])
    with pytest.raises(
        ValueError, match=r"has no standard deviations of members; got own_sd=\(\('krig', 'krig_sd'\),\)"
    ):
        be.BMA(correction="joint", own_sd={"krig": "krig_sd"})
    with pytest.raises(TypeError, match=r"own_sd=\.\.\.\) has members with the column"):
        be.BMA(own_sd="krig_sd")
    wide = fitted(
        be.EMOS(scale=("krig_sd",)), ensemble.select(rows=slice(10, None))
    )  # which follow it as a covariate, as those of LinearPool do
    assert "krig_sd" in columns_asked(be.EMOS(scale=("krig_sd",)))
    assert "scale_slope" in wide["posterior"]


@pytest.mark.parametrize("model", [be.EqualWeights(), be.SingleMember(), be.SingleMember(member="krig"),
                                   be.SingleMember(member="rf")])  # fmt: skip
def test_baselines_are_kernels_too(ensemble, held_out, model):
    fit = fitted(model, ensemble)
    said = quietly(be.predict, fit, held_out)
    untold = quietly(be.predict, fitted(replace(model, own_sd=()), ensemble), held_out)
    follows = getattr(model, "member", None) != "rf"
    assert np.allclose(said["sd"], untold["sd"]) != follows
    grid = xr.Dataset({name: ("x", held_out.to_frame()[name].to_numpy()) for name in [*MEMBERS, *SPREAD.values()]})
    assert_allclose(quietly(be.predict, fit, grid)["sd"], said["sd"])


def test_exchangeable_members_have_one_share(ensemble):
    fit = fitted(be.BMA(exchangeable=(("krig", "net"),)), ensemble)
    share = fit["history"]["own_share"].values
    assert share[0] == share[1] > 0.0 == share[2]
    with pytest.raises(
        ValueError, match="'krig' and 'rf' are exchangeable, and 'rf' has no standard deviation of its own"
    ):
        fitted(be.BMA(exchangeable=(("krig", "rf"),)), ensemble)


@pytest.mark.parametrize(
    ("word", "least", "most"), [("right", -np.inf, -0.2), ("part", -np.inf, 0.0), ("nothing", -0.2, 0.3)]
)
def test_a_word_that_is_right_helps_and_one_that_says_nothing_costs_next_to_nothing(word, least, most):
    """Change of the CRPS in percent, six tables of 300 rows."""
    change = []
    for seed in range(6):
        train, new = (
            ensemble_of(table(n, seed + s, word=word), {"krig": "krig_sd"}) for n, s in ((300, 0), (3000, 50))
        )
        told, untold = (
            float(quietly(be.score, fitted(model, train), new)["crps"].mean())
            for model in (be.BMA(), be.BMA(own_sd=()))
        )
        change.append(100.0 * (told / untold - 1.0))
    assert least < np.mean(change) < most, change
