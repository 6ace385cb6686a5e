"""Uncertainty of weights under clusters: bootstraps against closed forms, and the power of a likelihood by brute force."""

from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import optimize
from scipy.stats import norm

import bayesens as be
from bayesens.inference.fit import _describe
from bayesens.sensitivity.clusters import _Draw, clustered_weights, weights_table
from bayesens.sensitivity.likelihood_power import effective_rows

JOINT = {"correction": "joint", "group": False, "site": False}  # the mixture of regressions

DATES, EACH = 30, 40
VAGUE = {"bias_prior": be.Prior("Normal", mu=0, sigma=100), "sigma_prior": be.Prior("LogNormal", mu=0, sigma=10)}


def ensemble(frame, members=("m1", "m2"), **columns):
    known = {name: name for name in ("site", "group", "time") if name in frame}
    return be.Ensemble.from_frame(frame, members=list(members), observation="y", **(known | columns))


def dated(seed=1):
    """On every date one member is right in all rows: the weight is the share of dates, known from 30 of them."""
    rng = np.random.default_rng(seed)
    date = np.repeat(np.arange(DATES), EACH)
    first = (rng.random(DATES) < 0.6)[date]
    y, right, wrong = rng.normal(0, 3, len(date)), rng.normal(0, 0.1, len(date)), rng.normal(0, 3, len(date))
    frame = pd.DataFrame({"m1": y + np.where(first, right, wrong), "m2": y + np.where(first, wrong, right), "y": y})
    frame["time"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(5 * date, "D")
    return frame.assign(site=np.char.add("s", np.tile(np.arange(EACH), DATES).astype(str)))


def sited(seed=2, sites=25, each=8):
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(sites), each)
    y = rng.normal(5, 1, len(site))
    shared = rng.normal(0, 0.8, sites)[site]
    frame = pd.DataFrame({"m1": y + shared + rng.normal(0, 0.3, len(y)), "m2": y + rng.normal(0, 0.7, len(y)), "y": y})
    return frame.assign(site=np.char.add("s", site.astype(str)), group=np.where(site % 2, "odd", "even"))


# ------------------------------------------------------------------------------------------------------- the bootstrap
def test_weights_of_members_that_are_right_by_dates():
    """Members are told apart without doubt, so a replicate's weight is its share of dates (of rows).

    Over 200 replicates an sd has 5 %, so correct code misses 20 % in fewer than 1 of 10,000 runs.
    """
    frame = dated()
    found = clustered_weights(be.BMA(**JOINT, bias="none", sigma="shared"), ensemble(frame), cluster="time", block=5.0,
                              random_seed=1, progressbar=False)  # fmt: skip
    share = float(((frame["m1"] - frame["y"]).abs() < (frame["m2"] - frame["y"]).abs()).groupby(frame["time"]).mean()
                  .gt(0.5).mean())  # fmt: skip
    assert found.sizes == {"replicate": 200, "member": 2}
    assert found["weight_estimate"].values[0] == pytest.approx(share, abs=0.03)
    np.testing.assert_allclose(found["weight_sd"], np.sqrt(share * (1 - share) / (DATES - 1)), rtol=0.2)
    np.testing.assert_allclose(found["weight_sd_rows"], np.sqrt(share * (1 - share) / (DATES * EACH)), rtol=0.35)
    assert float((found["weight_sd"] / found["weight_sd_rows"]).min()) > 2.0  # what clusters are about
    assert found.attrs["clusters"] == DATES
    assert found.attrs["clustered_by"] == "time blocks of 5 days"


def test_clusters_that_share_nothing_change_nothing():
    """Labels at random: both sds estimate the same, each from 100 replicates with 7 %; 40 % is 4 sds of their ratio."""
    frame = (
        sited()
        .drop(columns="group")
        .assign(site=np.random.default_rng(4).permutation(np.repeat(np.arange(50).astype(str), 4)))
    )
    found = clustered_weights(be.LinearPool(weights="free"), ensemble(frame), replicates=100, random_seed=1,
                              progressbar=False)  # fmt: skip
    np.testing.assert_allclose(found["linear_weight_sd"] / found["linear_weight_sd_rows"], 1.0, atol=0.4)


def test_the_bias_of_a_member_has_the_clustered_error_of_a_mean():
    """Uneven sites. Ratio estimator: sd² is about C / (C - 1) sum_c (sum_{i in c} (d_i - dbar))² / n². 4 sds are 20 %."""
    frame = sited().drop(index=range(3, 8))
    d = frame["m1"] - frame["y"]
    wanted = np.sqrt(25 / 24 * ((d - d.mean()).groupby(frame["site"]).sum() ** 2).sum()) / len(d)
    found = clustered_weights(be.SingleMember(**JOINT, member="m1", bias="additive"), ensemble(frame), random_seed=1,
                              progressbar=False)  # fmt: skip
    assert float(found["bias_sd"].squeeze()) == pytest.approx(wanted, rel=0.2)
    assert float(found["bias_sd_rows"].squeeze()) == pytest.approx(d.std() / np.sqrt(len(d)), rel=0.2)
    assert float(found["bias_estimate"].squeeze()) == pytest.approx(d.mean(), rel=1e-9)


def test_the_order_and_names_of_clusters_do_not_matter():
    frame, options = sited(), {"replicates": 20, "random_seed": 3, "progressbar": False}
    one = clustered_weights(be.EMOS(), ensemble(frame), **options)
    other = clustered_weights(be.EMOS(), ensemble(frame), cluster=frame["site"].str.upper().to_numpy(), **options)
    np.testing.assert_array_equal(one["linear_weight"], other["linear_weight"])
    again = clustered_weights(be.EMOS(), ensemble(frame), **options)
    xr.testing.assert_identical(one, again)


def test_optimum_is_em_where_priors_are_vague():
    frame, options = dated().iloc[: 10 * EACH], {"replicates": 10, "random_seed": 1, "progressbar": False,
                                                "cluster": "time", "block": 5.0}  # fmt: skip
    model = be.BMA(**JOINT, bias="none", sigma="shared", sigma_prior=VAGUE["sigma_prior"])
    em, mode = (clustered_weights(model, ensemble(frame), method=method, **options) for method in ("em", "optimum"))
    # In logits the prior Dirichlet(1) is worth one row for each member.
    expected = (em["weight"] * 10 * EACH + 1.0) / (10 * EACH + 2.0)
    np.testing.assert_allclose(mode["weight"], expected, atol=2e-3)
    np.testing.assert_allclose(mode["sigma"], em["sigma"], rtol=5e-3)


def test_copies_of_a_site_are_sites_of_their_own():
    frame = sited(sites=6, each=3)
    ens = ensemble(frame)
    codes = pd.factorize(frame["site"])[0]
    drawn = _Draw(ens, codes, apart=True).clusters(np.random.default_rng(1))
    names = pd.Series(drawn.labels("site"))
    assert names.nunique() == 6
    assert set(names.value_counts()) == {3}
    assert drawn.labels("group").tolist() == ["odd" if int(n[1]) % 2 else "even" for n in names]  # groups span sites
    assert {n.partition("#")[0] for n in names} < set(frame["site"])  # one at least was drawn twice
    by_time = _Draw(ens, np.arange(18) % 3, apart=True).clusters(np.random.default_rng(1))
    assert set(by_time.labels("site")) <= set(frame["site"])  # sites span such clusters


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The posterior of HBM has")
def test_hbm_by_its_optimum():
    """Levels of sites absorb what sites share: the weight, of variation within, is as sure as rows have it."""
    found = clustered_weights(be.HBM(group=False), ensemble(sited(sites=8, each=5)), method="optimum", replicates=10,
                              random_seed=1, progressbar=False)  # fmt: skip
    assert found["linear_weight"].dims == ("replicate", "member")
    assert np.isfinite(found["linear_weight"]).all()
    assert found.attrs["model"] == "HBM"
    assert (found["linear_weight_sd"] > 0).all()


class Brittle(be.SingleMember):
    """A model whose fit fails at times."""

    calls: ClassVar[list[int]] = []

    def em(self, ensemble, **options):
        self.calls.append(len(self.calls))
        if self.calls[-1] in (3,):
            raise ArithmeticError("it broke.")
        return super().em(ensemble, **options)


def test_refits_that_fail_are_counted():
    """The third of 20 replicates of clusters: 5 %, which is allowed. The first call is the fit to all rows."""
    Brittle.calls.clear()
    model, options = (
        Brittle(**JOINT, member="m1"),
        {"replicates": 20, "random_seed": 9, "progressbar": False},
    )
    with pytest.warns(UserWarning, match=r"1 of 20 refits to clusters drawn .* do not count; the first: it broke"):
        found = clustered_weights(model, ensemble(sited().iloc[:120]), cluster="site", **options)
    assert (found.attrs["failed_clusters"], found.attrs["failed_rows"]) == (1, 0)
    np.testing.assert_array_equal(np.flatnonzero(found["bias"].isnull().squeeze()), [2])
    assert np.isfinite(found["bias_sd"]).all()


def test_too_many_refits_that_fail_are_refused():
    """A member that one of 25 sites has is missing in a third of the replicates."""
    only = sited().assign(m2=lambda frame: frame["m2"].where(frame["site"] == "s1"))
    with pytest.raises(
        ValueError, match=r"of 40 refits to clusters .* failed, the first with: .*'m2'.* larger clusters"
    ):
        clustered_weights(
            be.BMA(**JOINT),
            ensemble(only),
            replicates=40,
            random_seed=1,
            progressbar=False,
        )


# ------------------------------------------------------------------------------------------------------------- the table
def test_weights_table():
    frame = dated().iloc[: 8 * EACH]
    ens, model = ensemble(frame), be.BMA(**JOINT, bias="none", sigma="shared")
    clustered = clustered_weights(
        model, ens, cluster="time", block=5.0, replicates=20, random_seed=1, progressbar=False
    )
    first = np.concatenate([np.full(30, 0.995), np.full(70, 0.5)])
    draws = np.column_stack([first, 1 - first])[None]
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"weight": (("chain", "draw", "member"), draws)},
                                                          {"member": ["m1", "m2"]})})  # fmt: skip
    tree.attrs = _describe(model.resolve(ens), ens)
    table = weights_table(tree, clustered).set_index("member")
    assert table.loc["m2", "below_1_percent"] == pytest.approx(0.3)
    assert table.loc["m1", "mean"] == pytest.approx(0.6485)
    assert table.loc["m1", "posterior_sd"] == pytest.approx(np.std(first, ddof=1))
    np.testing.assert_allclose(table["ratio"], clustered["weight_sd"] / clustered["weight_sd_rows"])
    np.testing.assert_allclose(table["below_1_percent_clustered"], (clustered["weight"] < 0.01).mean("replicate"))
    tree.attrs["point_estimate"] = 1
    with pytest.raises(ValueError, match="has no posterior sd"):
        weights_table(tree, clustered)
    with pytest.raises(ValueError, match="the fit is of BMA and the bootstrap of EMOS"):
        weights_table(tree, clustered.assign_attrs(model="EMOS"))


# ------------------------------------------------------------------------------------------------- the honest likelihood
def by_differences(loglik, theta, codes, step=1e-4):
    """p / tr(A⁻¹ J) and the design effect of a density of rows, by differences at the maximum of its sum."""
    options = {"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000}
    with np.errstate(invalid="ignore"):
        theta = optimize.minimize(lambda t: -np.nan_to_num(loglik(t).sum(), nan=-1e9), theta, method="Nelder-Mead",
                                  options=options).x  # fmt: skip
    p, eye = len(theta), step * np.eye(len(theta))
    scores = np.column_stack([(loglik(theta + e) - loglik(theta - e)) / (2 * step) for e in eye])
    total = lambda t: loglik(t).sum()  # noqa: E731
    a = np.array([[-(total(theta + e + f) - total(theta + e - f) - total(theta - e + f) + total(theta - e - f))
                   for e in eye] for f in eye]) / (4 * step**2)  # fmt: skip

    def covariance(labels):
        sums = np.stack([scores[labels == c].sum(axis=0) for c in np.unique(labels)])
        return len(sums) / (len(sums) - 1) * sums.T @ sums

    traces = [np.trace(np.linalg.solve(a, covariance(labels))) for labels in (codes, np.arange(len(scores)))]
    return p / traces[0], traces[0] / traces[1]


def test_power_of_a_mixture_is_that_of_another_parametrisation():
    """Scipy's maximum of the likelihood, other parameters and other derivatives; the priors are worth a row or two."""
    frame = dated().iloc[: 20 * EACH].reset_index(drop=True)
    y, f = frame["y"].to_numpy(), frame[["m1", "m2"]].to_numpy()
    codes = pd.factorize(frame["time"])[0]

    def loglik(theta):  # a weight, two biases, one sd, none of them transformed as in PyMC
        weight = np.array([theta[0], 1 - theta[0]])
        return np.log(np.sum(weight * norm.pdf(y[:, None], f - theta[1:3], theta[3]), axis=1))

    power, effect = by_differences(loglik, np.array([0.5, 0.0, 0.0, 0.2]), codes)
    model = be.BMA(**JOINT, bias="additive", sigma="shared", **VAGUE)
    found = effective_rows(model, ensemble(frame), cluster="time", block=5.0)
    assert (found.rows, found.clusters) == (800, 20)
    assert found.parameters == pytest.approx(4.0, abs=0.05)
    assert found.power == pytest.approx(power, rel=0.03)
    assert found.design_effect == pytest.approx(effect, rel=0.03)
    assert found.power < 0.2  # it matters


def test_power_of_a_normal_in_closed_form():
    """Scores of mean and log sd: r / s and r² / s² - 1, in units of their information: 1 and 2."""
    rng = np.random.default_rng(5)
    site = np.repeat(np.arange(40), rng.integers(1, 12, 40))
    y = rng.normal(size=40)[site] + rng.standard_t(5, len(site))
    frame = pd.DataFrame({"m1": rng.normal(size=len(y)), "y": y, "site": site})
    model = be.Climatology(mean_prior=be.Prior("Normal", mu=0, sigma=1000), sd_prior=be.Prior("HalfNormal", sigma=1000))
    found = effective_rows(model, ensemble(frame, ["m1"]))
    r = (y - y.mean()) / y.std()
    scores = np.column_stack([r, (r**2 - 1.0) / np.sqrt(2.0)])
    sums = np.stack([scores[site == c].sum(axis=0) for c in range(40)])
    wanted = 40 / 39 * np.sum(sums**2) / len(y)
    assert found.power == pytest.approx(2.0 / wanted, rel=0.01)
    rows = len(y) / (len(y) - 1) * np.sum(scores**2) / len(y)
    assert found.design_effect == pytest.approx(wanted / rows, rel=0.01)


def test_rows_m_times_are_worth_one_mth():
    """Exact but for the factors C / (C - 1) and n / (n - 1), and, for the power, what the priors are worth."""
    rng, m = np.random.default_rng(6), 5
    once = sited(sites=60, each=1).assign(m1=lambda f: f["y"] + rng.normal(0, 0.5, 60), site=np.arange(60).astype(str))
    copies = once.loc[once.index.repeat(m)].reset_index(drop=True)
    model = be.BMA(**JOINT, sigma="shared", **VAGUE)
    one, many = effective_rows(model, ensemble(once)), effective_rows(model, ensemble(copies))
    assert one.design_effect == pytest.approx(1.0, rel=1e-12)
    assert many.design_effect == pytest.approx(m * (60 / 59) / (300 / 299), rel=1e-9)
    assert many.power == pytest.approx(one.power / m, rel=0.05)
    assert many.effective == pytest.approx(300 / many.design_effect)


@pytest.mark.parametrize("model", [be.LinearPool(), be.LinearPool(weights="free"), be.EMOS(), be.EqualWeights(**JOINT),
                                   be.SingleMember(**JOINT)], ids=lambda model: f"{type(model).__name__}")  # fmt: skip
def test_rows_without_clusters_keep_their_likelihood(model):
    """Independent rows in 50 random clusters, of a world with normal errors about the mean of the members.

    The trace over p parameters has a relative sd of about sqrt(2 / (50 p)), 14 % for two: over 8 worlds the mean has 5 %,
    so correct code misses 25 % in fewer than 1 of 10,000 runs. Errors of a mixture of equal weights are others: it keeps
    its rows, but not its likelihood.
    """
    rng, found = np.random.default_rng(7), []
    for _ in range(8):
        f = rng.normal(size=(400, 2)) + rng.normal(size=(400, 1))
        frame = pd.DataFrame({"m1": f[:, 0], "m2": f[:, 1], "y": f.mean(axis=1) + rng.normal(0, 0.3, 400)})
        found.append(effective_rows(model, ensemble(frame), cluster=rng.permutation(np.arange(400) % 50)))
    assert np.mean([one.design_effect for one in found]) == pytest.approx(1.0, abs=0.25)
    if not isinstance(model, be.EqualWeights):
        assert np.mean([one.power for one in found]) == pytest.approx(1.0, abs=0.25)


def test_a_tempered_posterior_is_as_wide_as_clusters_have_it():
    """Every normal quantile 6 times: the mean's clustered sd is sd / sqrt(60). 4,000 draws tell an sd to 1.1 %."""
    y = np.repeat(norm.ppf((np.arange(60) + 0.5) / 60), 6)
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"m1": rng.normal(size=len(y)), "y": y, "site": np.repeat(np.arange(60), 6)})
    ens, vague = ensemble(frame, ["m1"]), be.Climatology(mean_prior=be.Prior("Normal", mu=0, sigma=100))
    found = effective_rows(vague, ens)
    tree = be.fit(vague, ens, likelihood_power=found.power, random_seed=1, progressbar=False)
    clustered = np.sqrt(60 / 59) * y.std() / np.sqrt(60)
    assert float(tree["posterior"]["mean"].std()) == pytest.approx(clustered, rel=0.08)
    plain = be.fit(vague, ens, random_seed=1, progressbar=False)
    assert float(plain["posterior"]["mean"].std()) < 0.5 * clustered


# ------------------------------------------------------------------------------------------------------------ bad input
def test_bad_input_says_what_to_do():
    frame = sited()
    ens = ensemble(frame)
    bare = ensemble(frame.drop(columns=["site", "group"]))
    for function, model, one, options, text in [
        (clustered_weights, be.HBM(), ens, {}, "HBM has no fit by EM; use method='optimum'"),
        (
            clustered_weights,
            be.BMA(correction="joint", group=False, site=True),
            ens,
            {"method": "optimum"},
            "BMA has site effects: the highest density",
        ),
        (
            clustered_weights,
            be.BMA(correction="joint", group=False, site=True),
            ens,
            {},
            "method='em' has no site effects",
        ),
        (
            clustered_weights,
            be.BMA(**JOINT),
            ens,
            {"method": "nuts"},
            "method is 'em' or 'optimum'; got 'nuts'",
        ),
        (
            clustered_weights,
            be.BMA(**JOINT),
            ens,
            {"replicates": 2},
            "replicates is a whole number of at least 10",
        ),
        (clustered_weights, be.Climatology(), ens, {}, "Climatology has none of weight, linear_weight"),
        (
            clustered_weights,
            be.BMA(**JOINT),
            ens,
            {"cluster": "group"},
            "there are 2 groups, .* below 5",
        ),
        (
            clustered_weights,
            be.BMA(**JOINT),
            bare,
            {},
            "cluster='site' needs the rows' sites",
        ),
        (
            effective_rows,
            be.BMA(**JOINT),
            ens,
            {"cluster": "time"},
            "cluster='time' needs the rows' times",
        ),
        (
            effective_rows,
            be.BMA(**JOINT),
            ens,
            {"cluster": "station"},
            "cluster is 'site', 'group', 'time' or one label",
        ),
        (
            effective_rows,
            be.BMA(**JOINT),
            ens,
            {"cluster": [1, 2]},
            "one label for each of the 200 rows",
        ),
        (
            effective_rows,
            be.BMA(**JOINT),
            ens,
            {"cluster": frame["site"].where(frame["site"] != "s1")},
            "8 of 200 rows",
        ),
        (effective_rows, be.HBM(), ens, {}, "HBM is a joint model .* levels: their clusters are in the model"),
        (
            effective_rows,
            be.BMA(correction="joint", site=False, group=True),
            ens,
            {},
            "BMA has group effects: clusters of that kind are in the model",
        ),
        (
            effective_rows,
            be.BMA(**JOINT, weights="group"),
            ens,
            {},
            "BMA has weights by group: clusters",
        ),
    ]:
        quiet = {"progressbar": False} if function is clustered_weights else {}
        with pytest.raises(ValueError, match=text):
            function(model, one, **quiet, **options)


def test_scores_of_rows_at_sites_add_up_to_the_derivative_of_the_likelihood():
    """Each row at its own site: at another one its density, and so its score, would be another."""
    from bayesens.inference.sampling.laplace import curvature
    from bayesens.sensitivity import likelihood_power as module

    rng = np.random.default_rng(5)
    site = np.repeat(np.arange(12), 10)
    y = rng.normal(size=120)
    f = y[:, None] + 0.3 * rng.normal(size=(120, 2)) + rng.normal(size=(12, 2))[site]
    frame = pd.DataFrame(f, columns=["a", "b"]).assign(y=y, site=site)
    rows = be.Ensemble.from_frame(frame, members=["a", "b"], observation="y", site="site")
    for model in (be.BMA(), be.LinearPool()):
        resolved = model.resolve(rows)
        target, modes, data = module.find_optima(resolved, rows, None, 1)
        step = module.STEP * curvature(target, modes[0].x).T
        both = np.concatenate([modes[0].x + step, modes[0].x - step])
        loglik = target.logp_and_loglik(both)[1]
        each = module._scores(resolved, target.expand(both[None])[0], rows, data)
        expected = (loglik[: len(step)] - loglik[len(step) :]) / (2.0 * module.STEP)
        np.testing.assert_allclose(each.sum(axis=0), expected, rtol=1e-4, atol=1e-4)
