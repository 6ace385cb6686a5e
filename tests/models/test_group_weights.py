"""Weights by group: their prior, their posterior beside quadrature, groups with few rows, new groups, what is refused."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.integrate import quad
from scipy.special import expit, logsumexp, softmax
from scipy.stats import halfnorm, norm

import bayesens as be
from bayesens import BMA, Prior
from bayesens.inference.fit_tree import write_fit
from bayesens.inference.log_density import compile_target
from bayesens.inference.sampling.laplace import find_modes

JOINT = {"correction": "joint", "group": False, "site": False}  # the mixture of regressions

MEMBERS = ["a", "b", "c"]
REGIMES = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])


def regimes(rows, weight=REGIMES, seed=1, sigma=0.3):
    """In each group, so many rows of a mixture around independent members with its own weights."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(rows)), rows)
    f = rng.normal(size=(len(group), weight.shape[1]))
    kernel = np.array([rng.choice(weight.shape[1], p=weight[g]) for g in group])
    y = f[np.arange(len(group)), kernel] + sigma * rng.normal(size=len(group))
    return pd.DataFrame(f, columns=MEMBERS[: f.shape[1]]).assign(y=y, g=[f"g{g}" for g in group])


def ensemble(frame, members=MEMBERS, **columns):
    return be.Ensemble.from_frame(frame, members=members, observation="y", **({"group": "g"} | columns))


def near(value, relative=0.001):
    """A prior that holds a positive quantity at a value."""
    return Prior("LogNormal", mu=np.log(value), sigma=relative)


def quiet(model, rows, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return be.fit(model, rows, progressbar=False, random_seed=1, **kwargs)


@pytest.fixture(scope="module")
def fitted():
    return quiet(BMA(**JOINT, weights="group", bias="none"), ensemble(regimes([200] * 3)))


# ---------------------------------------------------------------------------------------------------------- the density
def test_density_is_that_of_the_docstring_with_normals_on_the_zero_sum_plane():
    """By hand from the weights alone, constants included. The formula knows no order of the members."""
    frame = regimes([9, 5, 2])
    frame.loc[[1, 4, 12], "b"] = np.nan
    model = BMA(**JOINT, weights="group", bias="none", sigma="shared", sigma_scale=0.4)
    target = compile_target(model.build(ensemble(frame)))
    x = target.start + 0.5 * np.random.default_rng(2).normal(size=(10, len(target.start)))
    draws = target.expand(x[None])[0].isel(chain=0)
    got, loglik = target.logp_and_loglik(x)
    f, group = frame[MEMBERS].to_numpy(), frame["g"].map({"g0": 0, "g1": 1, "g2": 2})
    for i in range(10):
        d = {str(name): v.values[i] for name, v in draws.data_vars.items()}
        mu, eta = (np.log(d[n]) - np.log(d[n]).mean(axis=-1, keepdims=True) for n in ("weight", "weight_group"))
        tau, sigma, rows = d["weight_spread"], d["sigma_mean"], 0.0
        for y, member, g in zip(frame["y"], f, group, strict=True):
            there = np.isfinite(member)
            share = d["weight_group"][g][there] / d["weight_group"][g][there].sum()
            rows += logsumexp(np.log(share) + norm.logpdf(y, member[there], sigma))
        assert loglik[i] == pytest.approx(rows, rel=1e-10)
        plane = 2 * norm.logpdf(0) - 0.5 * np.sum(mu**2)
        plane += 6 * norm.logpdf(0) - 0.5 * np.sum(((eta - mu) / tau) ** 2)
        scales = halfnorm.logpdf(tau, scale=0.5) + np.log(tau) + norm.logpdf(np.log(sigma / 0.4), scale=0.5)
        assert got[i] == pytest.approx(rows + plane + scales, rel=1e-10)


@pytest.mark.parametrize("options", [
    {}, {"group": True, "site": True}, {"exchangeable": (("a", "c"),)}, {"effects": "source", "group": True},
])  # fmt: skip
def test_fits_go_through_the_tape(options):
    """Another path would be compiled anew for up to minutes."""
    frame = regimes([20, 20, 20]).assign(s=[f"s{i // 10}" for i in range(60)])
    target = compile_target(BMA(correction="joint", weights="group", **options).build(ensemble(frame, site="s")))
    assert target.tape is not None


def test_order_of_members_changes_no_optimum():
    frame, found = regimes([60, 40, 20]), []
    for order in (MEMBERS, ["c", "a", "b"]):
        target = compile_target(BMA(**JOINT, weights="group").build(ensemble(frame, order)))
        mode = find_modes(target, start=target.start, starts=0, rng=np.random.default_rng(1))[0]
        found.append((mode.logp, target.expand(mode.x[None, None])[0].sel(member=MEMBERS)))
    (one, here), (other, there) = found
    assert one == pytest.approx(other, abs=1e-6)
    for name in ("weight", "weight_group", "weight_spread", "sigma"):
        np.testing.assert_allclose(here[name], there[name], rtol=2e-3)


# -------------------------------------------------------------------------------------------------------- the posterior
def by_quadrature(frame, tau, sigma):
    """Posterior means of the first of two members' weight, typical and by group, all but the weights known.

    The difference of two members' logits has variance 2, its departure by group 2 tau^2.
    """
    mu = np.linspace(-6, 6, 241)
    z = np.linspace(-6, 6, 241)
    kernel = norm.logpdf(frame["y"].to_numpy()[:, None], frame[MEMBERS[:2]].to_numpy(), sigma)
    log_mass, means = norm.logpdf(mu, scale=np.sqrt(2)), []
    for index in frame.groupby("g").indices.values():
        first = expit(mu[:, None] + np.sqrt(2) * tau * z)
        terms = norm.logpdf(z) + np.zeros_like(first)
        for one, other in kernel[index]:
            terms += np.logaddexp(np.log(first) + one, np.log1p(-first) + other)
        log_mass = log_mass + logsumexp(terms, axis=1)
        means.append((softmax(terms, axis=1) * first).sum(axis=1))
    mass = softmax(log_mass)
    return mass @ expit(mu), np.array([mass @ mean for mean in means])


@pytest.mark.parametrize("tau", [0.02, 0.6, 3.0])
def test_posterior_is_that_of_quadrature_at_every_spread(tau):
    """Pooled, partially pooled and apart. Four means within 5 Monte Carlo errors (sd / 20, an ESS of 400): fails once in 1e6."""
    frame = regimes([80, 80, 6], np.array([[0.8, 0.2], [0.7, 0.3], [0.1, 0.9]]))
    typical, each = by_quadrature(frame, tau, 0.3)
    model = BMA(**JOINT, weights="group", bias="none", sigma="shared", sigma_scale=0.3, sigma_prior=near(1),
                weight_spread_prior=near(tau))  # fmt: skip
    draws = quiet(model, ensemble(frame, MEMBERS[:2]), draws=1500)["posterior"].sel(member="a")
    for name, expected in (("weight", typical), ("weight_group", each)):
        mean, sd = draws[name].mean(("chain", "draw")).values, draws[name].std(("chain", "draw")).values
        assert np.all(np.abs(mean - expected) < 5 * sd / 20), (name, mean, expected)
    alone = [by_quadrature(part, 3.0, 0.3)[1][0] for _, part in frame.groupby("g")]
    if tau < 1.0:  # the group with six rows is drawn to the others, all the way where there is no spread
        assert alone[2] + 0.1 < each[2] < max(alone[:2])
    assert (np.ptp(each) < 0.01) == (tau == 0.02)


def test_regimes_are_recovered(fitted):
    """Nine weights within 4 posterior standard deviations of the truth: a correct program fails once in 1,000 times."""
    draws = fitted["posterior"]["weight_group"].transpose("group", "member", ...)
    assert draws["group"].values.tolist() == ["g0", "g1", "g2"]
    mean, sd = draws.mean(("chain", "draw")).values, draws.std(("chain", "draw")).values
    assert np.all(np.abs(mean - REGIMES) < 4 * sd)
    assert np.all(sd < 0.06)
    np.testing.assert_array_equal(mean.argmax(axis=1), [0, 1, 2])
    assert float(fitted["posterior"]["weight_spread"].quantile(0.05)) > 0.5  # three regimes are three, not one


def test_without_spread_the_posterior_is_that_of_global_weights():
    """The priors of the two differ, by less than .1 standard deviations here; Monte Carlo errors are at most .05."""
    rows = ensemble(regimes([200] * 3, np.tile([0.5, 0.3, 0.2], (3, 1))))
    pooled = quiet(BMA(**JOINT, weights="group", weight_spread_prior=near(0.01)), rows)["posterior"]
    plain = quiet(BMA(**JOINT), rows)["posterior"]
    for name in ("weight", "bias", "slope", "sigma"):
        sd = plain[name].std(("chain", "draw"))
        for values in [pooled[name], *(pooled["weight_group"].sel(group=g) for g in ("g0", "g2") if name == "weight")]:
            assert np.all(np.abs(values.mean(("chain", "draw")) - plain[name].mean(("chain", "draw"))) < 0.35 * sd), (
                name
            )
            np.testing.assert_allclose(values.std(("chain", "draw")) / sd, 1.0, atol=0.15)


# ----------------------------------------------------------------------------------------------------------- new groups
def known(draws, weight, spread, group, sigma=0.3):
    """A posterior of so many equal draws."""
    k = len(weight)
    values = {"weight": (("member",), weight), "bias": (("member",), np.zeros(k)), "slope": (("member",), np.ones(k)),
              "sigma": (("member",), np.full(k, sigma)), "weight_spread": ((), spread),
              "weight_group": (("group", "member"), group)}  # fmt: skip
    one = xr.Dataset(values, {"member": MEMBERS[:k], "group": [f"g{i}" for i in range(len(group))]})
    return one.expand_dims(chain=[0], draw=np.arange(draws))


def rows_at(f, y, group):
    return ensemble(pd.DataFrame(np.asarray(f, dtype=float), columns=MEMBERS[: len(f[0])]).assign(y=y, g=group))


MODEL = BMA(**JOINT, weights="group", center=0.0, unit=1.0, sigma_scale=0.3)


def test_density_in_a_new_group_is_the_integral_over_its_weights():
    """20,000 draws, within 5 of their errors at four rows: a correct program fails once in 1e5 times."""
    spread, weight, draws = 1.2, np.array([0.3, 0.7]), 20_000
    frame = pd.DataFrame({"a": [0.0] * 4, "b": [1.0] * 4, "y": [0.0, 0.4, 0.9, -0.5], "g": "new"})
    rows = ensemble(frame, ["a", "b"])
    posterior = MODEL.complete(known(draws, weight, spread, [[0.5, 0.5]]), rows, np.random.default_rng(1))
    got = np.exp(MODEL.predictive(posterior, rows).log_density(frame["y"].to_numpy()))
    each = MODEL.predictive(posterior, rows).log_likelihood(frame["y"].to_numpy())
    error = np.exp(each).std(axis=0) / np.sqrt(draws)
    for i, y in enumerate(frame["y"]):
        density = norm.pdf(y, [0.0, 1.0], 0.3)

        def at(z, density=density):
            first = expit(np.log(0.3 / 0.7) + np.sqrt(2) * spread * z)
            return norm.pdf(z) * (first * density[0] + (1 - first) * density[1])

        expected = quad(at, -9, 9)[0]
        assert abs(got[i] - expected) < 5 * error[i]
        assert abs(weight @ density - expected) > 5 * error[i]  # the typical weights are another answer


def test_each_group_has_its_own_weights_and_missing_members_leave_theirs_to_the_others():
    group = np.array([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]])
    rows = rows_at([[0, 1, 2], [0, 1, 2], [0, np.nan, 2], [np.nan, 1, np.nan]], 0.5, ["g0", "g1", "g1", "other"])
    posterior = MODEL.complete(known(3, np.array([0.2, 0.3, 0.5]), 1.0, group), rows, np.random.default_rng(1))
    got = MODEL.predictive(posterior, rows).log_likelihood(np.full(4, 0.5))
    density = norm.pdf(0.5, [0, 1, 2], 0.3)
    expected = [group[0] @ density, group[1] @ density, (0.1 * density[0] + 0.6 * density[2]) / 0.7, density[1]]
    np.testing.assert_allclose(got, np.tile(np.log(expected), (3, 1)), rtol=1e-12)


def test_new_weights_of_exchangeable_members_are_those_of_their_set():
    """40,000 draws: mean and standard deviation of the logit within 5 errors; fails once in 1e6 times."""
    model, n = (
        BMA(
            **JOINT,
            weights="group",
            exchangeable=(("a", "c"),),
            center=0.0,
            unit=1.0,
            sigma_scale=0.3,
        ),
        40_000,
    )
    posterior = known(n, np.array([0.2, 0.6, 0.2]), 0.7, [[0.2, 0.6, 0.2]])
    new = model.complete(posterior, rows_at([[0, 1, 2]], 0.0, ["g0"]), np.random.default_rng(1))["weight_new"]
    np.testing.assert_allclose(new.sum("member"), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(new.sel(member="a"), new.sel(member="c"))
    logit = (np.log(new.sel(member="b")) - np.log(2 * new.sel(member="a"))).values.ravel()
    sd = 0.7 * np.sqrt(2)
    assert abs(logit.mean() - np.log(0.6 / 0.4)) < 5 * sd / np.sqrt(n)
    assert abs(logit.std() - sd) < 5 * sd / np.sqrt(2 * n)


def test_predictions_of_new_groups_are_the_same_each_time_and_from_a_file(fitted, tmp_path):
    new = ensemble(regimes([5, 5, 5], seed=3).assign(g=["g0", "new", "newer"] * 5))
    one = be.predict(fitted, new)
    xr.testing.assert_identical(one, be.predict(fitted, new))
    write_fit(fitted, tmp_path / "fit.nc")
    again = be.predict(xr.open_datatree(tmp_path / "fit.nc"), new)
    np.testing.assert_array_equal(one["quantile_value"], again["quantile_value"])
    score = be.score(fitted, new)
    assert bool(np.isfinite(score["log_score"]).all())


# ------------------------------------------------------------------------------------------------------ doors and sides
def test_em_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"method='em' has no weights by group; use method='auto' or 'nuts', or weights="
    ):
        be.fit(BMA(**JOINT, weights="group"), ensemble(regimes([20] * 3)), method="em")


def test_groups_are_needed():
    frame = regimes([20] * 3)
    bare = be.Ensemble.from_frame(frame, members=MEMBERS, observation="y")
    with pytest.raises(ValueError, match=r"weights='group' needs the rows' groups .* or use weights='global'"):
        BMA(**JOINT, weights="group").build(bare)
    frame.loc[[1, 5], "g"] = None
    with pytest.raises(ValueError, match=r"2 of 60 training rows have no group label, and weights='group' needs one"):
        BMA(**JOINT, weights="group").build(ensemble(frame))


def test_sides_of_the_model():
    rows = ensemble(regimes([20] * 3))
    assert BMA(**JOINT, weights="group").n_parameters(rows) == BMA(**JOINT).n_parameters(rows) == 12
    assert BMA(**JOINT, weights="group", exchangeable=(("a", "b"),)).n_parameters(rows) == 8
    vague, sceptical = (BMA.preset(name, weights="group") for name in ("vague", "sceptical"))
    assert dict(vague.weight_spread_prior.parameters)["sigma"] > 0.5
    assert dict(sceptical.weight_spread_prior.parameters)["sigma"] < 0.5
    for other in (be.EqualWeights, be.SingleMember):
        with pytest.raises(ValueError, match=r"weights=...\) is one of 'equal'; got 'group'"):
            other(weights="group")


def test_copies_of_a_member_are_told():
    frame = regimes([20] * 3).assign(c=lambda d: d["a"])
    with pytest.warns(UserWarning, match="exact copies"):
        BMA(**JOINT, weights="group").check(ensemble(frame))


def test_one_member_has_all_the_weight_in_every_group():
    rows = ensemble(regimes([20] * 3), ["a"])
    tree = quiet(BMA(**JOINT, weights="group"), rows)
    assert [name for name in tree["posterior"] if str(name).startswith("weight")] == ["weight"]
    assert np.all(tree["posterior"]["weight"].values == 1.0)
    assert bool(np.isfinite(be.predict(tree, rows)["mean"]).all())


def test_optima_show_the_typical_weights(fitted):
    optimum = json.loads(fitted.attrs["modes"])[0]
    assert sum(optimum["weight"]) == pytest.approx(1.0)
    assert {str(name) for name in fitted["log_prior"]} == {"weight_logit", "weight_spread", "sigma_mean"}
