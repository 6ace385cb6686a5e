"""BMA in two steps where a fit at once goes wrong: correlated members, large biases, zeros, ties, members that have seen it."""

import json
import warnings
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy import optimize
from scipy.stats import norm

import bayesens as be
from bayesens.likelihoods.corrected.correction import Correction

mpl.use("Agg")


def quiet(model, ensemble, *, but="no other", **options):
    """A fit that may not warn, but of what is named."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=but)
        return be.fit(model, ensemble, random_seed=1, progressbar=False, log_likelihood=False, **options)


def crps(tree, ensemble):
    return float(be.score(tree, ensemble)["crps"].mean())


def skewed(seed, n=500, k=8):
    """Members that share most of their errors, which grow with the value."""
    rng = np.random.default_rng(seed)
    y = np.exp(rng.normal(-1.0, 1.2, n))
    shared = rng.normal(0.0, 0.3, n)
    frame = pd.DataFrame({f"m{j}": y * np.exp(shared + rng.normal(0.0, 0.1 + 0.08 * j, n)) for j in range(k)})
    return be.Ensemble.from_frame(frame.assign(y=y), members=[f"m{j}" for j in range(k)], observation="y")


@pytest.mark.parametrize("sigma", ["shared", "member"])
def test_correlated_members_of_a_skewed_quantity_converge_without_a_warning(sigma):
    ensemble = skewed(0)
    tree = quiet(be.BMA(sigma=sigma), ensemble)
    assert tree.attrs.get("rhat_max", 1.0) <= 1.01
    assert tree.attrs["method"] == "nuts" or tree.attrs["pareto_k"] < 0.7
    em = be.fit(be.BMA(sigma=sigma), ensemble, method="em")
    assert crps(tree, ensemble) == pytest.approx(crps(em, ensemble), rel=0.02)


def biased(n, shift, seed=0):
    rng = np.random.default_rng(seed)
    t = rng.normal(size=n)
    frame = pd.DataFrame({m: t + 0.4 * rng.normal(size=n) for m in "abc"}).assign(y=t + 0.2 * rng.normal(size=n))
    frame["c"] += shift
    return frame


def ensemble_of(frame):
    return be.Ensemble.from_frame(frame, members=list("abc"), observation="y")


@pytest.mark.parametrize(("n", "shift"), [(50, 0), (50, 3), (100, 4), (200, 6)])
@pytest.mark.parametrize("model", [be.BMA(sigma="shared"), be.BMA(), be.EqualWeights()])
def test_a_bias_of_several_standard_deviations_is_reported_as_it_is_and_auto_agrees_with_em(n, shift, model):
    train, test = ensemble_of(biased(n, shift)), ensemble_of(biased(1000, shift, seed=99))
    auto, em = quiet(model, train), be.fit(model, train, method="em")
    assert crps(auto, test) == pytest.approx(crps(em, test), rel=0.01)
    # Member minus observation, at the member's mean: the bias is that at the common centre, from which the slope leads there.
    posterior = auto["posterior"].to_dataset().sel(member="c")
    centre = json.loads(auto.attrs["bayesens_options"])["center"]
    away = train.prediction[:, 2].mean() - centre
    found = posterior["bias"] + (1.0 - posterior["slope"]) * away
    exact = float(np.mean(train.prediction[:, 2] - train.require_observation()))
    assert abs(float(found.mean()) - exact) < 0.05 * max(1.0, shift)
    assert abs(exact - shift) < 0.3


@pytest.mark.parametrize(("factor", "offset"), [(100.0, 0.0), (1.0, 273.15), (3.0, 0.0)])
@pytest.mark.filterwarnings("ignore:member 'b' .* looks as if it were in percent")
def test_another_unit_of_a_member_costs_nothing(factor, offset):
    tables = biased(80, 0), biased(1000, 0, seed=99)
    changed = [f.assign(b=factor * f["b"] + offset) for f in tables]
    (train, test), (other_train, other_test) = map(ensemble_of, tables), map(ensemble_of, changed)
    em = [be.fit(be.BMA(), ensemble, method="em") for ensemble in (train, other_train)]
    assert crps(em[1], other_test) == pytest.approx(crps(em[0], test), rel=1e-6)
    # The CRPS of a posterior of 1,000 draws has a Monte Carlo standard deviation of .05 % (eight seeds), a difference of .07 %.
    auto = [quiet(be.BMA(), ensemble, but="member 'b' .* looks as if it were in") for ensemble in (train, other_train)]
    assert crps(auto[1], other_test) == pytest.approx(crps(auto[0], test), rel=4e-3)


@pytest.mark.slow
def test_the_ladders_verdict_does_not_hang_on_the_method():
    rng = np.random.default_rng(1)
    frame = biased(144, 3, seed=1).assign(s=np.repeat([f"s{i}" for i in range(24)], 6))
    frame["y"] += 0.01 * rng.normal(size=144)
    ensemble = be.Ensemble.from_frame(frame, members=list("abc"), observation="y", site="s")
    models = {"Equal weights": be.EqualWeights(sigma="shared"), "BMA": be.BMA(sigma="shared")}
    verdicts, values = [], []
    for method in ("em", "auto"):
        rows = be.compare(models, ensemble, estimand="site", method=method, random_seed=1, progressbar=False)
        verdicts.append(be.ladder_effects(rows, random_seed=1)["verdict"].tolist())
        values.append(be.score_table(rows)["crps"].to_numpy())
    assert verdicts[0] == verdicts[1]
    np.testing.assert_allclose(values[0], values[1], rtol=0.01)


# ----------------------------------------------------------------------------------------------------------- heavy tails
def tailed(n, seed, degrees):
    rng = np.random.default_rng(seed)
    signal, shared = rng.normal(0.0, 2.0, n), 0.3 * rng.standard_t(degrees, n)
    frame = pd.DataFrame({name: signal + shared + rng.normal(0.0, 0.3, n) for name in "abc"})
    return ensemble_of(frame.assign(y=signal + 0.3 * rng.standard_t(degrees, n)))


@pytest.mark.parametrize("model", [be.BMA, be.EqualWeights, be.SingleMember])
def test_t_kernels_predict_heavy_tails_better_and_cost_nothing_without(model):
    """Log scores of 4,000 new rows: .05 and more apart with 2.5 degrees of freedom, and hardly with 100."""
    gains = []
    for degrees in (2.5, 100.0):
        train, test = tailed(500, 0, degrees), tailed(4000, 1, degrees)
        score = {}
        for kernel in ("normal", "student_t"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # normal kernels warn of the outliers
                fit = be.fit(model(kernel=kernel), train, method="em")
            score[kernel] = float(be.score(fit, test)["log_score"].mean())
            assert ("nu" in fit["posterior"]) == (kernel == "student_t")
        gains.append(score["normal"] - score["student_t"])
    assert gains[0] > 0.02
    assert abs(gains[1]) < 0.003


@pytest.mark.slow
def test_t_kernels_have_one_posterior_and_no_warning_of_outliers():
    train, test = tailed(300, 0, 3.0), tailed(1000, 1, 3.0)
    model = be.BMA(kernel="student_t", sigma="member")
    auto, em = quiet(model, train), be.fit(model, train, method="em")
    assert auto.attrs["method"] == "nuts"
    assert "no single optimum" in auto.attrs["reason"]
    assert auto.attrs["rhat_max"] <= 1.01
    assert crps(auto, test) == pytest.approx(crps(em, test), rel=0.01)
    assert float(auto["posterior"]["nu"].min()) > 2.0
    model = be.BMA(kernel="student_t")
    assert model.sigma == "shared"
    found, sampled = (quiet(model, train, draws=2500, method=method) for method in ("auto", "nuts"))
    assert found.attrs["method"] == "laplace"
    ranks = [np.quantile(np.log(tree["posterior"]["nu"].values - 2.0), [0.1, 0.5, 0.9]) for tree in (found, sampled)]
    np.testing.assert_allclose(*ranks, atol=0.1)  # with 2,500 draws that count a difference has an sd of .03 at most


def test_what_t_kernels_refuse():
    dry_days = dry(0, 0.5, n=200)
    zeros = be.Ensemble.from_frame(dry_days, members=["a"], observation="y")
    with pytest.raises(
        ValueError, match=r"has no density of observations of zero, and \d+ of 200 training rows are zero"
    ):
        be.fit(be.BMA(kernel="student_t", transform="sqrt"), zeros)
    with pytest.raises(ValueError, match="Leave kernel out, or use correction='own'"):
        be.BMA(kernel="student_t", correction="joint")


# --------------------------------------------------------------------------------------------- priors of the optimum
@pytest.mark.parametrize("model", [be.BMA, be.LinearPool])
def test_em_follows_a_prior_and_says_which_it_does_not_know(model):
    ensemble, narrow = skewed(0, n=120, k=3), be.Prior("Normal", mu=1.0, sigma=0.01)
    fit = be.fit(model(scale_slope_prior=narrow), ensemble, method="em")
    np.testing.assert_allclose(fit["posterior"]["scale_slope"], 1.0, atol=0.05)
    other = be.Prior("HalfNormal", sigma=2.0)
    with pytest.warns(
        UserWarning, match=r"default in place of sigma_prior=Prior\(\"HalfNormal\", sigma=2.0\)"
    ) as heard:
        told = be.fit(model(sigma_prior=other), ensemble, method="em")
    assert sum("method='em'" in str(one.message) for one in heard) == 1
    plain = be.fit(model(), ensemble, method="em")
    np.testing.assert_array_equal(told["posterior"]["sigma"], plain["posterior"]["sigma"])


# ---------------------------------------------------------------------------------------------------------------- zeros
def dry(seed, level, n=1500):
    rng = np.random.default_rng(seed)
    latent = rng.normal(level, 1.0, n)
    square = [np.maximum(latent + 0.3 * rng.normal(size=n), 0.0) ** 2 for _ in range(2)]
    return pd.DataFrame({"a": square[0], "y": square[1]})


@pytest.mark.parametrize("level", [1.4, 1.0, 0.5])
def test_zeros_under_the_square_root_are_fitted_as_they_are_predicted(level):
    """About 8, 16 and 30 % zeros: the share within .02, the log score within 1 % of a Tobit fit by maximum likelihood."""
    frame = dry(0, level)
    train, test = (be.Ensemble.from_frame(part.reset_index(drop=True), members=["a"], observation="y")
                   for part in (frame[:750], frame[750:]))  # fmt: skip
    tree = be.fit(be.SingleMember(transform="sqrt", scale=()), train, random_seed=1, progressbar=False)
    mass = float(be.predict(tree, test)["mass_at_zero"].mean())
    z, f = np.sqrt(frame["y"].to_numpy()), np.sqrt(frame["a"].to_numpy())

    def loss(p, rows):
        mean, sd = p[0] + p[1] * f[rows], np.exp(p[2])
        seen = norm.logpdf(z[rows], mean, sd) - np.log(2.0 * np.maximum(z[rows], 1e-9))
        return -np.where(z[rows] > 0, seen, norm.logcdf(0.0, mean, sd))

    tobit = optimize.minimize(lambda p: loss(p, slice(0, 750)).sum(), [0.0, 1.0, 0.0], method="Nelder-Mead",
                              options={"maxiter": 4000}).x  # fmt: skip
    expected = norm.cdf(0.0, tobit[0] + tobit[1] * f[750:], np.exp(tobit[2])).mean()
    assert mass == pytest.approx(expected, abs=0.02)
    assert mass == pytest.approx(np.mean(z[750:] == 0.0), abs=0.02)
    score = float(be.score(tree, test)["log_score"].mean())
    assert score == pytest.approx(loss(tobit, slice(750, 1500)).mean(), rel=0.01)


# ------------------------------------------------------------------------------------------------------ ties and leaks
def test_more_ties_than_a_density_can_hold_are_refused_by_name_and_share():
    rng = np.random.default_rng(3)
    y = np.where(rng.random(600) < 0.6, 0.0, rng.gamma(1.5, 4.0, 600))
    frame = pd.DataFrame({"y": y})
    for name, sd in {"a": 2, "b": 3, "c": 4}.items():
        tie = (y == 0.0) & (rng.random(600) < 0.8)
        frame[name] = np.where(tie, 0.0, np.maximum(0.0, y + sd * rng.standard_normal(600)))
    for method in ("em", "auto"):
        with pytest.raises(ValueError, match=r"'a' in 5\d%.*no density describes"):
            be.fit(be.BMA(bias="none"), ensemble_of(frame), method=method, progressbar=False)


@pytest.mark.parametrize("method", ["em", "auto"])
def test_ties_in_some_rows_leave_sigma_at_the_size_of_rounding_or_above(method):
    frame = biased(400, 0)
    frame["y"] = frame["y"].round(2)
    frame.loc[:79, "a"] = frame["y"][:80]
    with pytest.warns(UserWarning, match="'a'"):
        tree = be.fit(be.BMA(bias="none"), ensemble_of(frame), method=method, random_seed=1, progressbar=False)
    assert float(tree["posterior"]["sigma"].min()) > 0.9 * 0.01 / np.sqrt(12.0)


def test_a_member_that_has_seen_the_rows_is_named():
    rng = np.random.default_rng(0)
    y = rng.normal(0.2, 0.08, 600)
    frame = pd.DataFrame(
        {m: y + rng.normal(0.0, sd, 600) for m, sd in {"a": 0.05, "b": 0.06, "c": 0.003}.items()}
    ).assign(y=y)
    with pytest.warns(UserWarning, match="Member 'c' looks as if it has seen the observations of these rows"):
        be.fit(be.BMA(sigma="shared"), ensemble_of(frame), method="em")


@pytest.mark.parametrize("method", ["em", "laplace"])
def test_one_member_has_weight_one_and_a_figure(method):
    frame = biased(100, 0)
    ensemble = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    tree = be.fit(be.BMA(), ensemble, method=method, random_seed=1, progressbar=False)
    assert np.all(tree["posterior"]["weight"].values == 1.0)
    assert be.plots.weights(tree).get_xlabel() == "Weight"


# --------------------------------------------------------------------------------------------------------------- levels
def sites(seed, sites=120, days=12, k=4):
    """Every member has its own offset at every site, of half the standard deviation of its errors."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(sites), days)
    y, shared = rng.normal(10.0, 4.0, site.size), rng.normal(size=site.size)
    noise = [0.8 * shared + 0.6 * rng.normal(size=site.size) for _ in range(k)]
    offset = rng.normal(0.0, 0.5, (sites, k))
    frame = pd.DataFrame({f"m{j}": y + noise[j] + offset[site, j] for j in range(k)})
    return frame.assign(y=y, s=[f"s{i:03d}" for i in site], day=np.tile(np.arange(days), sites)), offset[site], site


def test_offsets_of_known_sites_are_found_as_well_as_by_who_knows_them():
    """CRPS within 4 % of the mixture that is told the offsets: eight days a site leave 1 / 8 of their variance open."""
    frame, offset, _ = sites(0, days=16)
    members = [f"m{j}" for j in range(4)]
    told = frame.copy()
    told[members] -= offset
    early = frame["day"] < 8

    def halves(table, site):
        return [be.Ensemble.from_frame(table[part].reset_index(drop=True), members=members, observation="y",
                                       site="s" if site else None) for part in (early, ~early)]  # fmt: skip

    train, test = halves(frame, True)
    oracle_train, oracle_test = halves(told, False)
    own = crps(be.fit(be.BMA(), train, method="em"), test)
    oracle = crps(be.fit(be.BMA(), oracle_train, method="em"), oracle_test)
    without = crps(be.fit(be.BMA(site=False), train, method="em"), test)
    assert own < 1.04 * oracle < without


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_the_correlation_of_members_effects_is_found(shared):
    """200 sites of 20 rows, errors with a correlation of .64: a standard error of .05 (20 seeds)."""
    rng, n, k = np.random.default_rng(2), 200, 4
    site = np.repeat(np.arange(n), 20)
    y, common = rng.normal(0.0, 2.0, site.size), rng.normal(size=site.size)
    offset = 0.5 * (np.sqrt(shared) * rng.normal(size=(n, 1)) + np.sqrt(1.0 - shared) * rng.normal(size=(n, k)))
    frame = pd.DataFrame(
        {f"m{j}": y + 0.8 * common + 0.6 * rng.normal(size=site.size) + offset[site, j] for j in range(k)}
    )
    ensemble = be.Ensemble.from_frame(frame.assign(y=y, s=[f"s{i}" for i in site]), members=list(frame), observation="y",
                                      site="s")  # fmt: skip
    model = be.BMA().resolve(ensemble)
    alike = model.history(ensemble)["effects_alike"].values
    assert np.all(alike[0][np.eye(k, dtype=bool)] == 1.0)
    np.testing.assert_allclose(alike[0][~np.eye(k, dtype=bool)], shared, atol=0.2)
    assert np.all(replace(model, effects="common").history(ensemble)["effects_alike"] == 1.0)


def test_levels_are_those_that_the_ensemble_has():
    frame, *_ = sites(1, sites=6)
    members = [f"m{j}" for j in range(4)]
    with_sites = be.Ensemble.from_frame(frame, members=members, observation="y", site="s")
    without = be.Ensemble.from_frame(frame, members=members, observation="y")
    assert be.BMA().resolve(with_sites).site is True
    assert be.BMA().resolve(with_sites).group is False
    assert be.BMA().resolve(without).site is False
    assert be.BMA(site=False).resolve(with_sites).site is False


# --------------------------------------------------------------------------------------------------------------- widths
def test_where_all_rows_are_alike_the_widths_follow_nothing():
    frame = biased(600, 0, seed=5)
    tree = quiet(be.BMA(), ensemble_of(frame))
    slope = tree["posterior"]["scale_slope"]
    assert np.all(np.abs(slope.mean(("chain", "draw"))) < 3.5 * slope.std(("chain", "draw")))
    later = ensemble_of(biased(2000, 0, seed=6))
    plain = crps(quiet(be.BMA(scale=()), ensemble_of(frame)), later)
    assert crps(tree, later) < 1.003 * plain


def test_widths_that_grow_with_the_value_are_found():
    rng = np.random.default_rng(7)
    y = np.exp(rng.normal(0.0, 0.8, 800))
    frame = pd.DataFrame({m: y * np.exp(0.2 * rng.normal(size=800)) for m in "abc"}).assign(y=y)
    train, test = ensemble_of(frame[:400]), ensemble_of(frame[400:].reset_index(drop=True))
    one, other = (be.score(quiet(be.BMA(scale=scale), train), test)["log_score"].mean() for scale in (None, ()))
    assert float(one) < float(other) - 0.2


@pytest.mark.parametrize(("options", "text"), [
    ({"scale": 0.5}, "names what the widths follow.*unit of the priors is unit="),
    ({"scale": "mean"}, "is a sequence of names"),
    ({"correction": "joint", "scale": ("mean",)}, "has one width for all rows"),
    ({"correction": "joint", "bias_covariates": ("lon",)}, "has no covariates of the bias"),
    ({"correction": "both"}, "is one of 'own', 'joint'"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_refused(options, text):
    with pytest.raises((TypeError, ValueError), match=text):
        be.BMA(**options)


def test_columns_that_the_table_lacks_are_named():
    with pytest.raises(ValueError, match="asks for the column 'elevation', and the table has no covariates"):
        be.fit(be.BMA(bias_covariates=("elevation",)), ensemble_of(biased(50, 0)), method="em")
    with pytest.raises(ValueError, match="'season' needs the dates of the rows"):
        be.fit(be.BMA(scale=("season",)), ensemble_of(biased(50, 0)), method="em")


# ------------------------------------------------------------------------------------------------------------- coverage
def coverage(seed, tables=30):
    """Share of new rows at known and at new sites in 90 % intervals: 20 sites of 3 rows, offsets as large as the errors."""
    rng, held = np.random.default_rng(seed), []
    for _ in range(tables):
        site = np.repeat(np.arange(40), 6)
        y = rng.normal(size=240)
        frame = pd.DataFrame({"a": y + 0.5 * rng.normal(size=40)[site] + 0.5 * rng.normal(size=240), "y": y})
        frame["s"] = [f"s{i:02d}" for i in site]
        known, early = site < 20, np.tile(np.arange(6), 40) < 3
        parts = [frame[known & early], frame[known & ~early], frame[~known]]
        train, *tests = (be.Ensemble.from_frame(part.reset_index(drop=True), members=["a"], observation="y", site="s")
                         for part in parts)  # fmt: skip
        tree = be.fit(be.SingleMember(), train, method="em")
        held.append([float(be.score(tree, test, levels=[0.9])["covered"].mean()) for test in tests])
    return np.mean(held, axis=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*rows are at a site that the fit has not seen")
def test_intervals_cover_at_known_and_new_sites_and_not_with_residuals_of_the_fit_itself(monkeypatch):
    """30 tables at a nominal 90 %: a standard error of .008 (known) and .009 (new), so that the bounds are four of them away."""
    known, new = coverage(1)
    assert 0.865 < known < 0.935
    assert 0.865 < new < 0.935

    def in_sample(self, x, y, weight, site, row):
        return self.fitted(x, self.places.site[site], self.places.site_open[site])[0], np.zeros(len(y))

    monkeypatch.setattr(Correction, "left_out", in_sample)
    assert coverage(1)[0] < 0.865


def test_weights_by_group_without_effects_of_groups():
    """The groups of the weights are no places of the corrections."""
    rng = np.random.default_rng(3)
    n, group = 160, np.repeat(["a", "b", "c", "d"], 40)
    y = rng.normal(size=n)
    frame = pd.DataFrame({"m1": y + 0.3 * rng.normal(size=n), "m2": y + 0.6 * rng.normal(size=n), "y": y, "g": group})
    ensemble = be.Ensemble.from_frame(frame, members=["m1", "m2"], observation="y", group="g")
    for bias in ("none", "linear"):
        model = be.BMA(weights="group", scale=(), bias=bias, group=False)
        fit = be.fit(model, ensemble, method="laplace", random_seed=1, progressbar=False)
        assert np.isfinite(be.score(fit, ensemble)["crps"]).all()
        new = be.Ensemble.from_frame(frame.assign(g="new"), members=["m1", "m2"], observation="y", group="g")
        assert np.isfinite(be.score(fit, new)["crps"]).all()
