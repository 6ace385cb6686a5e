"""LinearPool in two steps: its optimum, its stretch, what sites are worth, and its law where members are missing."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import optimize
from scipy.stats import norm

import bayesens as be
from bayesens import LinearPool, Prior
from bayesens.distributions.mixtures import NormalMixture
from bayesens.inference.fit_tree import history_of, model_of
from bayesens.inference.log_density import compile_target
from bayesens.inference.sampling.laplace import find_modes
from bayesens.likelihoods.corrected.pool import standing

MEMBERS = ["a", "b", "c"]


def quiet(model, ensemble, **options):
    """A fit that may not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return be.fit(model, ensemble, progressbar=False, **options)


def crps(tree, ensemble):
    return float(be.score(tree, ensemble)["crps"].mean())


def ensemble_of(frame, site=None):
    return be.Ensemble.from_frame(frame.reset_index(drop=True), members=MEMBERS, observation="y", site=site)


def plain(n, seed):
    """Members with errors of their own, all rows alike."""
    rng = np.random.default_rng(seed)
    t = rng.normal(size=n)
    return ensemble_of(
        pd.DataFrame({m: t + 0.4 * rng.normal(size=n) for m in MEMBERS}).assign(y=t + 0.2 * rng.normal(size=n))
    )


def sited(seed, sites=60, days=16, own=0.5, missing=0.0, zeros=False):
    """Errors that members share, and offsets of sites, in part common to all members."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(sites), days)
    t, shared = rng.normal(2.0, 1.5, site.size), 0.5 * rng.normal(size=site.size)
    offset = own * (rng.normal(size=(sites, 1)) + rng.normal(size=(sites, 3)))
    f = t[:, None] + shared[:, None] + 0.4 * rng.normal(size=(site.size, 3)) + offset[site]
    f[rng.random(f.shape) < missing] = np.nan
    f[np.isnan(f).all(axis=1), 0] = 2.0
    y = t + 0.1 * rng.normal(size=site.size)
    if zeros:
        f, y = np.maximum(f, 0.0) ** 2, np.maximum(y, 0.0) ** 2
    return pd.DataFrame(f, columns=MEMBERS).assign(
        y=y, s=[f"s{i:02d}" for i in site], day=np.tile(np.arange(days), sites)
    )


# ---------------------------------------------------------------------------------------------------------- the optimum
@pytest.mark.parametrize("options", [
    {}, {"scale": ()}, {"bias": "additive"}, {"bias": "none", "site": False}, {"transform": "sqrt"},
    {"weight_prior": Prior("Dirichlet", a=[1, 2, 3]), "scale": ("mean",)},
])  # fmt: skip
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_em_is_the_highest_point_of_the_posterior_that_auto_samples(options, missing):
    ensemble = ensemble_of(sited(1, sites=10, missing=missing, zeros="transform" in options), "s")
    model = LinearPool(**options)
    table = model.prepare(ensemble)
    found, (optimum,) = table.model.em(table)
    target = compile_target(model.build(table))
    (mode, *_) = find_modes(target, start=target.start, starts=2, rng=np.random.default_rng(0))
    best = target.expand(mode.x[None, None])[0].squeeze(drop=True)
    assert optimum.converged
    for name in ("weight", "sigma", "stretch", "scale_slope"):
        assert (name in found) == (name in best)
        if name in best:
            np.testing.assert_allclose(found[name], best[name], atol=2e-4)
    assert optimum.loglik == pytest.approx(float(target.logp_and_loglik(mode.x[None])[1][0]), abs=1e-3)


def test_open_shares_have_the_weights_of_least_squares():
    table = LinearPool(bias="none").prepare(ensemble_of(sited(2, missing=0.2), "s"))
    residual, there = table.mixture.residual, table.rows.available

    def square(u):
        weight = np.exp(u - u.max()) * there
        return np.mean(((weight / weight.sum(axis=1, keepdims=True)) * residual).sum(axis=1) ** 2)

    found = optimize.minimize(square, np.zeros(3), method="BFGS", options={"gtol": 1e-10}).x
    weight = np.exp(found - found.max())
    np.testing.assert_allclose(standing(table), weight / weight.sum(), atol=1e-4)


def test_auto_agrees_with_em():
    train, test = plain(200, 3), plain(1000, 4)
    auto, em = quiet(LinearPool(), train, random_seed=1), quiet(LinearPool(), train, method="em")
    assert crps(auto, test) == pytest.approx(crps(em, test), rel=0.01)


def test_one_member_has_weight_one():
    frame = sited(5, sites=6)
    ensemble = be.Ensemble.from_frame(frame, members=["a"], observation="y", site="s")
    for method in ("em", "laplace"):
        assert np.all(
            be.fit(LinearPool(), ensemble, method=method, random_seed=1, progressbar=False)["posterior"]["weight"] == 1
        )


# ---------------------------------------------------------------------------------------------------------- the stretch
@pytest.mark.parametrize("seed", range(4))
def test_where_all_rows_are_alike_two_steps_cost_nothing_thanks_to_the_stretch(seed):
    """Within .5 % of the joint fit on 4,000 new rows (worst of six tables: .3 %); without a stretch they cost 2.5 to 9 %."""
    train, test = plain(500, seed), plain(4000, seed + 100)
    joint = crps(quiet(LinearPool(correction="joint"), train, method="em"), test)
    assert crps(quiet(LinearPool(), train, method="em"), test) < 1.005 * joint
    none = LinearPool(stretch_prior=Prior("Normal", mu=1, sigma=1e-4))
    assert crps(quiet(none, train, method="em"), test) > 1.02 * joint


# ------------------------------------------------------------------------------------------------------ sites and widths
@pytest.mark.parametrize("seed", range(3))
def test_known_sites_are_better_predicted_than_by_the_joint_fit_and_not_without_their_effects(seed):
    frame = sited(seed)
    train, test = (ensemble_of(frame[part], "s") for part in (frame["day"] < 8, frame["day"] >= 8))
    joint = crps(quiet(LinearPool(correction="joint"), train, method="em"), test)
    assert crps(quiet(LinearPool(), train, method="em"), test) < 0.93 * joint
    assert crps(quiet(LinearPool(site=False), train, method="em"), test) > 0.98 * joint


def test_widths_that_grow_with_the_value_are_found():
    rng = np.random.default_rng(7)
    y = np.exp(rng.normal(0.0, 0.8, 800))
    frame = pd.DataFrame({m: y * np.exp(0.2 * rng.normal(size=800)) for m in MEMBERS}).assign(y=y)
    train, test = ensemble_of(frame[:400]), ensemble_of(frame[400:])
    one, other = (be.score(quiet(LinearPool(scale=scale), train, random_seed=1), test)["log_score"].mean()
                  for scale in (None, ()))  # fmt: skip
    assert float(one) < float(other) - 0.2


# -------------------------------------------------------------------------------------------------------------- the law
@pytest.mark.parametrize("zeros", [False, True])
def test_the_log_likelihood_that_is_kept_is_the_density_that_was_sampled(zeros):
    ensemble = ensemble_of(sited(8, sites=10, missing=0.2, zeros=zeros), "s")
    tree = be.fit(
        LinearPool(transform="sqrt" if zeros else "identity"), ensemble, draws=100, random_seed=1, progressbar=False
    )
    loglik = tree["log_likelihood"]["y"]
    if zeros:  # in the units of the observations
        y = ensemble.require_observation()
        loglik = loglik + np.where(y == 0.0, 0.0, np.log(2.0 * np.sqrt(np.where(y == 0.0, 1.0, y))))
    np.testing.assert_allclose(loglik.sum("obs"), tree["sample_stats"]["log_joint"], rtol=1e-9)
    assert np.isfinite(be.loo(tree, ensemble, progressbar=False).elpd)


@pytest.fixture(scope="module")
def small():
    """A wide posterior of rows with missing members, at known sites and at new ones, and all its normals."""
    frame = sited(9, sites=8, days=6, missing=0.3)
    known = frame["s"] < "s06"
    tree = be.fit(LinearPool(), ensemble_of(frame[known], "s"), random_seed=1, progressbar=False)
    posterior, rows = tree["posterior"].to_dataset(), ensemble_of(frame, "s")
    law = model_of(tree).predictive(posterior, rows, history_of(tree))
    mean, sd = np.empty((len(law.draws), len(law))), np.empty((len(law.draws), len(law)))
    for part in law.parts(1000):
        _, means, sds = law.components(part, np.arange(len(law.draws)))
        mean[:, part], sd[:, part] = means[:, :, 0], sds[:, :, 0]
    return tree, rows, law, mean, sd


@pytest.mark.filterwarnings("ignore:.*that the fit has not seen")
def test_predictions_are_the_mixture_over_draws_of_one_normal_each(small):
    tree, rows, law, mean, sd = small
    y = rows.require_observation()
    np.testing.assert_allclose(law.log_likelihood(y), norm.logpdf(y, mean, sd), rtol=1e-9, atol=1e-9)
    got, moments = be.predict(tree, rows), law.moments()
    np.testing.assert_allclose(got["mean"], mean.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(moments.parameter, mean.var(axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments.within, np.mean(sd**2, axis=0), rtol=0.02)  # widths of draws are taken as normal
    np.testing.assert_allclose(moments.between, 0.0, atol=1e-9)
    every = NormalMixture(np.full((len(y), len(mean)), 1.0 / len(mean)), mean.T, sd.T)
    exact = every.quantile([0.05, 0.5, 0.95])
    found = be.predict(tree, rows, quantiles=[0.05, 0.5, 0.95])["quantile_value"].values
    assert np.max(np.abs(found - exact) / (exact[:, 2:] - exact[:, :1])) < 0.015


def test_some_rows_of_a_law_are_the_rows_of_the_whole(small):
    _, rows, law, _, _ = small
    pick = np.array([40, 3, 17, 28])
    y = rows.require_observation()
    np.testing.assert_allclose(law.select(pick).log_likelihood(y[pick]), law.log_likelihood(y)[:, pick], rtol=1e-9)
    assert law.select(pick).design.strides[1] == 0  # patterns of members share the rows' design


# ------------------------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(("options", "text"), [
    ({"weights": "free", "correction": "own"}, "is a regression on the members as they are; got correction='own'"),
    ({"weights": "free", "site": True}, r"weights='free'\) has one width and no covariates or effects; got site=True"),
    ({"correction": "joint", "scale": ("mean",)}, r"LinearPool\(correction='joint'\) has one width"),
    ({"correction": "joint", "bias_covariates": ("lon",)}, "got bias_covariates=.*use correction='own'"),
    ({"scale": 0.5}, "names what the widths follow.*unit of the priors is unit="),
    ({"correction": "both"}, "is one of 'own', 'joint'"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_refused(options, text):
    with pytest.raises((TypeError, ValueError), match=text):
        LinearPool(**options)


def test_a_model_without_a_correction_takes_that_of_its_weights():
    assert (LinearPool().correction, LinearPool(weights="free").correction) == ("own", "joint")
    resolved = LinearPool(weights="free").resolve(ensemble_of(sited(11, sites=4), "s"))
    assert (resolved.scale, resolved.site, resolved.group, resolved.bias_covariates) == ((), False, False, ())


# ------------------------------------------------------------------------------------------------------------- heavy tails
def heavy(n, seed, nu=2.5):
    """Members with errors of their own, and an error in all of them that is at times far larger."""
    rng = np.random.default_rng(seed)
    t = rng.normal(size=n)
    return ensemble_of(
        pd.DataFrame({m: t + 0.1 * rng.normal(size=n) for m in MEMBERS}).assign(y=t + 0.1 * rng.standard_t(nu, n))
    )


def test_a_t_kernel_is_the_optimum_and_posterior_of_heavy_tails():
    train, test = heavy(500, 1), heavy(4000, 2)
    model = LinearPool(kernel="student_t")
    em, auto, normal = (
        quiet(model, train, method="em"),
        quiet(model, train, random_seed=1),
        be.fit(LinearPool(), train, method="em"),
    )
    assert 2.0 < em["posterior"]["nu"].item() < 6.0
    draws = auto["posterior"]["nu"]
    assert draws.quantile(0.005) < em["posterior"]["nu"].item() < draws.quantile(0.995)
    score = {
        name: float(be.score(fit, test)["log_score"].mean())
        for name, fit in [("em", em), ("auto", auto), ("normal", normal)]
    }
    assert score["em"] == pytest.approx(score["auto"], abs=0.005)
    assert score["em"] < score["normal"] - 0.02
    levels = be.score(em, test, levels=[0.9])["covered"].mean()
    assert float(levels) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("options", [{}, {"bias": "none", "site": False, "scale": ()}])
def test_em_of_a_t_kernel_is_the_highest_point_of_the_posterior(options):
    ensemble = ensemble_of(sited(1, sites=10, missing=0.2), "s")
    model = LinearPool(kernel="student_t", **options)
    table = model.prepare(ensemble)
    found, (optimum,) = table.model.em(table)
    target = compile_target(model.build(table))
    (mode, *_) = find_modes(target, start=target.start, starts=2, rng=np.random.default_rng(0))
    best = target.expand(mode.x[None, None])[0].squeeze(drop=True)
    assert optimum.converged
    for name in ("weight", "sigma", "nu"):
        np.testing.assert_allclose(found[name], best[name], rtol=1e-3)


def test_refusals_of_a_t_kernel():
    with pytest.raises(ValueError, match="have a normal kernel; got kernel='student_t'"):
        LinearPool(weights="free", kernel="student_t")
    with pytest.raises(ValueError, match=r"no density of observations of zero, and \d+ of 960 training rows are zero"):
        be.fit(LinearPool(kernel="student_t", transform="sqrt"), ensemble_of(sited(1, zeros=True), "s"))
