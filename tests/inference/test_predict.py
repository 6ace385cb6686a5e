"""predict, score, draw and add against formulas of the mixture and each other, and tables that lack something."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from regressions import JOINT, MEMBERS
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import kstest, norm

import bayesens as be
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.predict import distribution


# ------------------------------------------------------------------------------------------ predict, score, draw agree
def flow(n=240, seed=1, zeros=12):
    """Positive flows with some zeros, three members, one of them missing now and then."""
    rng = np.random.default_rng(seed)
    truth = np.maximum(rng.gamma(2.0, 1.0, size=n) - 0.3, 0.0)
    frame = pd.DataFrame({"q": np.where(np.arange(n) < zeros, 0.0, truth + 0.02)})
    for name, size in zip(MEMBERS, (0.2, 0.3, 0.4)):
        frame[name] = np.maximum(np.sqrt(truth) * 0.9 + 0.1 + size * rng.normal(size=n), 0.0) ** 2
    frame.loc[rng.random(n) < 0.1, "m2"] = np.nan
    return frame


def wide_posterior(model, ensemble, draws=60, seed=2):
    """A tree whose draws scatter around the fit by EM."""
    tree = be.fit(model, ensemble, method="em")
    rng = np.random.default_rng(seed)
    point = tree["posterior"].to_dataset().isel(chain=0, draw=0, drop=True)
    weight = rng.dirichlet(60 * point["weight"].values + 0.1, size=draws)
    variables = {"weight": weight} | {
        name: point[name].values * np.exp(0.1 * rng.normal(size=(draws, 3))) for name in ("bias", "slope", "sigma")
    }
    posterior = xr.Dataset({n: (("chain", "draw", "member"), v[None]) for n, v in variables.items()}, point.coords)
    out = xr.DataTree.from_dict({"posterior": posterior})
    out.attrs = tree.attrs | {"point_estimate": 0}
    return out


@pytest.fixture(scope="module", params=["identity", "sqrt", "log"])
def fitted(request):
    frame = flow(zeros=0 if request.param == "log" else 12)
    frame[MEMBERS] = frame[MEMBERS].clip(lower=1e-3) if request.param == "log" else frame[MEMBERS]
    ens = Ensemble.from_frame(frame, members=MEMBERS, observation="q", units="m3 s-1")
    return wide_posterior(be.BMA(**JOINT, transform=request.param, sigma="shared"), ens), ens


def latent(tree, f):
    """Weights, means and standard deviations of one row on the transformed scale, (draw, member), by the formula."""
    options = json.loads(tree.attrs["bayesens_options"])
    post = tree["posterior"].to_dataset().isel(chain=0)
    there = np.isfinite(f)
    c, w = options["center"], post["weight"].values[:, there]
    mean = (
        c
        - post["bias"].values[:, there]
        + post["slope"].values[:, there] * (SCALE[options["transform"]](f[there])[0] - c)
    )
    return options["transform"], w / w.sum(axis=1, keepdims=True), mean, post["sigma"].values[:, there]


def back(name, z):
    return {"identity": lambda x: x, "sqrt": lambda x: np.maximum(x, 0.0) ** 2, "log": np.exp}[name](z)


SCALE = {  # y on the scale of the model, and the derivative there
    "identity": lambda y: (y, 1.0),
    "sqrt": lambda y: (np.sqrt(y), 0.5 / np.sqrt(y)),
    "log": lambda y: (np.log(y), 1 / y),
}
ROWS = [0, 20, 100, 150, 200]


def test_mean_and_sd_are_those_of_the_full_mixture(fitted):
    tree, ens = fitted
    out = be.predict(tree, ens)
    node, mass = np.polynomial.hermite_e.hermegauss(80)
    for i in ROWS:
        name, w, mean, sd = latent(tree, ens.prediction[i])
        if name == "sqrt":  # moments of max(Z, 0)^2 in closed form
            z, m, s = mean / sd, mean, sd
            first = (m**2 + s**2) * ndtr(z) + m * s * norm.pdf(z)
            second = (m**4 + 6 * m**2 * s**2 + 3 * s**4) * ndtr(z) + (m**3 * s + 5 * m * s**3) * norm.pdf(z)
        else:
            values = back(name, mean[..., None] + sd[..., None] * node)
            first, second = (np.sum(v * mass, axis=-1) / np.sqrt(2 * np.pi) for v in (values, values**2))
        expected = np.sum(w * first) / len(w)
        spread = np.sqrt(np.sum(w * second) / len(w) - expected**2)
        # After a transform the moments are those of the matched mixture.
        assert float(out["mean"][i]) == pytest.approx(expected, rel=1e-10 if name == "identity" else 2e-3)
        assert float(out["sd"][i]) == pytest.approx(spread, rel=1e-10 if name == "identity" else 3e-2)


def test_parts_of_the_sd_add_up(fitted):
    tree, ens = fitted
    out = be.predict(tree, ens)
    parts = sum(out[f"sd_{name}"] ** 2 for name in ("within", "between", "parameter"))
    np.testing.assert_allclose(np.sqrt(parts), out["sd"], rtol=1e-12)
    assert all((out[f"sd_{name}"] > 0.0).all() for name in ("within", "between", "parameter"))


def test_log_score_is_the_log_of_the_mean_density_with_the_jacobian(fitted):
    tree, ens = fitted
    out = be.score(tree, ens)
    for i in ROWS:
        name, w, mean, sd = latent(tree, ens.prediction[i])
        y = ens.observation[i]
        if name == "sqrt" and y == 0.0:
            expected = np.sum(w * ndtr(-mean / sd)) / len(w)
        else:
            z, jacobian = SCALE[name](y)
            expected = np.sum(w * norm.pdf(z, mean, sd)) / len(w) * jacobian
        assert float(out["log_score"][i]) == pytest.approx(-np.log(expected), rel=1e-10)


def test_density_that_is_scored_integrates_to_one_less_the_mass_at_zero(fitted):
    """The log score of one row for many observations, summed by quadrature."""
    tree, ens = fitted
    frame = ens.select(rows=[100]).to_frame()
    name, w, mean, sd = latent(tree, ens.prediction[100])

    def density(t):
        # Over t = g(y), where the integrand is smooth: p(y) dy/dt.
        y = back(name, np.atleast_1d(t))
        table = Ensemble.from_frame(frame.loc[[0] * len(y)].assign(q=y), members=MEMBERS, observation="q")
        return np.exp(-be.score(tree, table)["log_score"].values) / SCALE[name](y)[1]

    node, weight = np.polynomial.legendre.leggauss(400)
    low, high = (mean - 9 * sd).min(), (mean + 9 * sd).max()
    low = max(low, 1e-9) if name == "sqrt" else low
    total = np.sum(density(0.5 * (high - low) * node + 0.5 * (high + low)) * weight) * 0.5 * (high - low)
    zero = np.sum(w * ndtr(-mean / sd)) / len(w) if name == "sqrt" else 0.0
    assert total == pytest.approx(1.0 - zero, abs=1e-6)
    if name == "sqrt":
        assert float(be.predict(tree, ens)["mass_at_zero"][100]) == pytest.approx(zero, abs=5e-3)


def test_draws_follow_the_predictive_distribution(fitted):
    # Kolmogorov-Smirnov at 1e-4 for the continuous part; the mass at zero within four standard errors.
    tree, ens = fitted
    sample = be.draw(tree, ens.select(rows=ROWS), size=6000, random_seed=3)
    assert sample.dims == ("sample", "obs")
    for j, i in enumerate(ROWS):
        name, w, mean, sd = latent(tree, ens.prediction[i])
        values = sample.values[:, j]
        zero = np.sum(w * ndtr(-mean / sd)) / len(w) if name == "sqrt" else 0.0
        assert abs(np.mean(values == 0.0) - zero) <= 4.0 * np.sqrt(zero * (1 - zero) / 6000) + 1e-12
        g = SCALE[name]

        def cdf(y, g=g, w=w, mean=mean, sd=sd, zero=zero):
            full = np.sum(w * ndtr((g(y)[0][:, None, None] - mean) / sd), axis=(1, 2)) / len(w)
            return (full - zero) / (1.0 - zero)

        assert kstest(values[(values > 0.0) | (name == "identity")], cdf).pvalue > 1e-4
    again = be.draw(tree, ens.select(rows=ROWS), size=6000, random_seed=3)
    np.testing.assert_array_equal(again, sample)
    assert not np.array_equal(be.draw(tree, ens.select(rows=ROWS), size=6000, random_seed=4), sample)


def test_predict_score_and_distribution_agree(fitted):
    tree, ens = fitted
    law = distribution(tree, ens)
    scored, predicted = (
        be.score(tree, ens, levels=(0.5, 0.9)),
        be.predict(tree, ens, quantiles=(0.05, 0.25, 0.75, 0.95)),
    )
    y = ens.observation
    np.testing.assert_allclose(scored["crps"], law.crps(y), rtol=1e-12)
    np.testing.assert_allclose(scored["error"], predicted["mean"] - y, atol=1e-12)
    low, high = predicted["quantile_value"].values[:, [0, 3]].T
    nine = scored.sel(level=0.9)
    np.testing.assert_allclose(nine["width"], high - low, rtol=1e-12)
    np.testing.assert_array_equal(nine["covered"], (low <= y) & (y <= high))
    penalty = np.maximum(low - y, 0.0) + np.maximum(y - high, 0.0)
    np.testing.assert_allclose(nine["interval_score"], high - low + 2 / 0.1 * penalty, rtol=1e-10)
    pit = scored["pit"].values
    np.testing.assert_allclose(pit[y > 0], law.cdf(y)[y > 0], rtol=1e-12)
    assert np.all(pit[y == 0] <= law.cdf(y)[y == 0] + 1e-12)


def test_crps_is_the_integral_of_the_squared_distance_of_the_cdfs(fitted):
    tree, ens = fitted
    law, y = distribution(tree, ens), ens.observation
    scored = be.score(tree, ens)["crps"].values
    for i in (20, 150):
        one = law[np.array([i])]
        least = -99.0 if json.loads(tree.attrs["bayesens_options"])["transform"] == "identity" else 0.0
        low, middle, high = one.quantile([1e-9, 0.5, 1 - 1e-9])[0]
        edges = sorted({max(low - 1.0, least), y[i], middle, 2.0 * high + 1.0})

        def square(x, one=one, y=y[i]):
            return (float(one.cdf(np.array([x]))[0]) - (x >= y)) ** 2

        total = sum(quad(square, a, b, epsabs=1e-9, limit=400)[0] for a, b in pairwise(edges))
        assert scored[i] == pytest.approx(total, abs=1e-6)


def test_observed_zeros_under_sqrt_are_scored_by_their_probability_and_log_refuses_them():
    frame = flow()
    frame[MEMBERS] = frame[MEMBERS].clip(lower=1e-3)
    ens = Ensemble.from_frame(frame, members=MEMBERS, observation="q")
    with pytest.raises(
        ValueError, match=r"Column 'q' has 12 of 240 values not above 0.*row.* 0, 1, 2.*transform='sqrt'"
    ):
        be.fit(be.BMA(**JOINT, transform="log"), ens, method="em")
    tree = be.fit(be.BMA(**JOINT, transform="sqrt", sigma="shared"), ens, method="em")
    scored = be.score(tree, ens, random_seed=1)
    np.testing.assert_allclose(scored["log_score"][:12], -np.log(be.predict(tree, ens)["mass_at_zero"][:12]), rtol=1e-9)
    assert not np.array_equal(scored["pit"][:12], be.score(tree, ens, random_seed=2)["pit"][:12])
    np.testing.assert_array_equal(scored["pit"][12:], be.score(tree, ens, random_seed=2)["pit"][12:])


def test_add_gives_what_a_fit_left_out_and_refuses_other_rows(fitted):
    tree, ens = fitted
    with_both = be.add(be.add(tree, ens, "log_likelihood"), ens, "posterior_predictive", random_seed=1)
    assert "log_likelihood" not in tree
    each = with_both["log_likelihood"]["y"]
    assert each.dims == ("chain", "draw", "obs")
    scored = -np.log(np.exp(each).mean(("chain", "draw")))
    np.testing.assert_allclose(scored, be.score(tree, ens)["log_score"], rtol=1e-9)
    assert with_both["posterior_predictive"]["y"].shape == each.shape
    with pytest.raises(ValueError, match="not the one that was fitted"):
        be.add(tree, ens.select(rows=slice(0, 100)), "log_likelihood")
    with pytest.raises(ValueError, match="group is one of 'log_likelihood', 'posterior_predictive'; got 'loglik'"):
        be.add(tree, ens, "loglik")


# ----------------------------------------------------------------------------------------- tables that lack something
@pytest.fixture(scope="module")
def soil():
    """A BMA fit by EM."""
    frame = flow(zeros=0)
    ens = Ensemble.from_frame(frame, members=MEMBERS, observation="q", units="m3 s-1")
    return be.fit(be.BMA(**JOINT, sigma="shared"), ens, method="em"), frame


@pytest.mark.filterwarnings("ignore:member 'm2' is empty")
def test_a_table_that_lacks_a_member_is_predicted_with_the_others_and_warns(soil):
    tree, frame = soil
    short = Ensemble.from_frame(frame, members=["m3", "m1"], units="m3 s-1")
    with pytest.warns(UserWarning, match="lacks 'm2': predictions treat it as missing in all 240 rows"):
        out = be.predict(tree, short)
    empty = Ensemble.from_frame(frame.assign(m2=np.nan), members=MEMBERS)
    for name in ("mean", "sd", "quantile_value"):
        np.testing.assert_array_equal(out[name], be.predict(tree, empty)[name])


def test_the_order_of_members_in_a_table_does_not_matter(soil, recwarn):
    tree, frame = soil
    one, other = (be.predict(tree, Ensemble.from_frame(frame, members=m)) for m in (MEMBERS, MEMBERS[::-1]))
    xr.testing.assert_identical(one, other)
    assert not recwarn.list


def test_a_table_without_any_of_the_members_is_an_error(soil):
    tree, frame = soil
    with pytest.raises(ValueError, match="none of the members of the fit, 'm1', 'm2', 'm3'; it has 'q'"):
        be.predict(tree, Ensemble.from_frame(frame, members=["q"]))


def test_further_members_of_a_table_are_left_alone(soil):
    tree, frame = soil
    more = Ensemble.from_frame(frame.assign(x=1.0 + frame.m1**2), members=["x", *MEMBERS])
    np.testing.assert_array_equal(
        be.predict(tree, more)["mean"], be.predict(tree, Ensemble.from_frame(frame, members=MEMBERS))["mean"]
    )


def test_rows_without_any_member_are_nan_and_counted(soil):
    tree, frame = soil
    frame = frame.copy()
    frame.loc[[4, 9], MEMBERS] = np.nan
    with pytest.warns(UserWarning, match="missing in 2 of 240 rows"):
        ens = Ensemble.from_frame(frame, members=MEMBERS, observation="q")
    for call in (be.predict, be.score, be.draw):
        with pytest.warns(UserWarning, match="2 of 240 rows have no member at all: their predictions are NaN"):
            out = call(tree, ens)
        for values in [out] if isinstance(out, xr.DataArray) else [out["crps" if "crps" in out else "sd"]]:
            lost = np.isnan(values.transpose("obs", ...)).values.reshape(240, -1)
            np.testing.assert_array_equal(np.nonzero(lost.all(axis=1))[0], [4, 9])
            assert lost.sum() == 2 * lost.shape[1]


def test_another_unit_is_an_error_that_names_both(soil):
    tree, frame = soil
    with pytest.raises(ValueError, match="table is in 'l s-1' and the fit in 'm3 s-1'; convert the table to 'm3 s-1'"):
        be.predict(tree, Ensemble.from_frame(frame, members=MEMBERS, units="l s-1"))


def test_scoring_needs_observations(soil):
    tree, frame = soil
    with pytest.raises(ValueError, match="no observation column"):
        be.score(tree, Ensemble.from_frame(frame, members=MEMBERS))
    with pytest.raises(ValueError, match=r"Column .q. has no value in any of the 240 rows"):
        be.score(tree, Ensemble.from_frame(frame.assign(q=np.nan), members=MEMBERS, observation="q"))


def test_rows_without_an_observation_are_left_out_of_the_scores(soil):
    tree, frame = soil
    half = frame.assign(q=frame.q.where(np.arange(240) % 2 == 0))
    some = be.score(tree, Ensemble.from_frame(half, members=MEMBERS, observation="q"))
    every = be.score(tree, Ensemble.from_frame(frame, members=MEMBERS, observation="q"))
    np.testing.assert_array_equal(some["obs"], np.arange(0, 240, 2))
    np.testing.assert_array_equal(some["crps"], every["crps"].sel(obs=some["obs"]))


@pytest.mark.parametrize("quantiles", [[0.0, 0.5], [1.5], [], [np.nan]])
def test_bad_quantiles_are_an_error(soil, quantiles):
    tree, frame = soil
    with pytest.raises(ValueError, match="quantiles must be numbers between 0 and 1; got"):
        be.predict(tree, Ensemble.from_frame(frame, members=MEMBERS), quantiles=quantiles)


@pytest.mark.parametrize("size", [0, -3, 2.5])
def test_bad_sizes_are_an_error(soil, size):
    tree, frame = soil
    with pytest.raises(ValueError, match="size must be a whole number of at least 1; got"):
        be.draw(tree, Ensemble.from_frame(frame, members=MEMBERS), size=size)
