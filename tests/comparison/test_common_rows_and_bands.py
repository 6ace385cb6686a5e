"""Rows that all models share, and bands of them, against pandas; threshold CRPS against scoringrules and integration."""

import warnings
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import scoringrules
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from product_rows import by_hand, ensemble_of, point_rows, table
from scipy.integrate import quad

import bayesens as be
from bayesens.app.result_tables import mean_scores
from bayesens.comparison.bands import band_limits, in_band, select_band, threshold_crps
from bayesens.comparison.common_rows import add_threshold_crps, common_rows, season
from bayesens.comparison.tables import product_table, score_table
from bayesens.distributions.mixtures import LogNormalMixture, NormalMixture, SquaredNormalMixture
from bayesens.inference.predict import distribution


@pytest.fixture(scope="module")
def fitted():
    frame = table(1)
    ensemble = ensemble_of(frame)
    fits = {
        "BMA": be.fit(be.SingleMember(), ensemble, method="em"),
        "Equal": be.fit(be.EqualWeights(), ensemble, method="em"),
    }
    return frame, ensemble, fits, {name: be.score(fit, ensemble) for name, fit in fits.items()}


def test_models_score_as_mean_scores_says(fitted):
    frame, ensemble, _, scores = fitted
    rows = common_rows(scores, ensemble, estimand="in-sample", products={"CCI": frame["bad"]})
    got = score_table(rows, by="group").set_index(["model", "group"])
    for name, each in scores.items():
        wanted = mean_scores(each, by="group").set_index("group")
        names = {"crps": "crps", "log_score": "log_score", "rmse": "rmse", "bias": "bias", "coverage90": "coverage_90",
                 "width90": "width_90"}  # fmt: skip
        for mine, theirs in names.items():
            assert_allclose(got.loc[name].loc[wanted.index, mine], wanted[theirs], rtol=1e-10, atol=1e-14)
    assert got.loc["CCI", ["coverage90", "width90", "log_score"]].isna().all().all()
    assert got.loc[("CCI", "all"), "crps"] == pytest.approx(np.abs(frame["bad"] - frame["sm"]).mean())


# ------------------------------------------------------------------------------------------------------------ common rows
def test_rows_that_one_lacks_are_left_out_for_all():
    frame = table()
    frame.loc[[3, 4], "good"] = np.nan
    frame.loc[[5, 9], "bad"] = np.nan
    with pytest.warns(UserWarning, match=r"4 of .* observed rows are left out for all.*'good' 2, 'bad' 2"):
        rows = point_rows(frame)
    assert rows.attrs["rows_dropped"] == 4
    assert not set(rows["obs"].values) & {3, 4, 5, 9}
    assert score_table(rows)["n"].tolist() == [len(frame) - 4] * 2


@given(st.lists(st.tuples(*[st.sampled_from([0.5, 1.0, np.nan])] * 3), min_size=2, max_size=12))
@settings(derandomize=True, deadline=None)
@pytest.mark.filterwarnings("ignore:all members", "ignore:.*left out for all")
def test_common_rows_are_those_that_all_have(values):
    y, one, two = np.array(values).T
    wanted = np.flatnonzero(~np.isnan(y + one + two))
    ensemble = be.Ensemble.from_frame(pd.DataFrame({"m": one, "y": y}), members=["m"], observation="y")
    if not wanted.size:
        with pytest.raises(ValueError, match="no row is common to all"):
            common_rows({}, ensemble, estimand="site", products={"one": one, "two": two})
        return
    rows = common_rows({}, ensemble, estimand="site", products={"one": one, "two": two})
    assert_array_equal(rows["obs"], wanted)
    assert rows.attrs["rows_dropped"] == np.count_nonzero(~np.isnan(y)) - len(wanted)
    assert_array_equal(rows["prediction"], np.stack([one, two])[:, wanted])
    assert_array_equal(rows["observation"], y[wanted])


def test_scores_of_a_table_with_gaps_in_the_observations(fitted):
    frame, _, fits, scores = fitted
    gaps = frame.assign(sm=frame["sm"].where(np.arange(len(frame)) % 3 > 0))
    ensemble = ensemble_of(gaps)
    rows = common_rows(
        {"BMA": be.score(fits["BMA"], ensemble)}, ensemble, estimand="site", products={"CCI": gaps["bad"]}
    )
    assert rows.attrs["rows_dropped"] == 0
    assert_array_equal(rows["obs"], np.flatnonzero(np.arange(len(frame)) % 3 > 0))
    assert_allclose(rows["crps"].sel(model="BMA"), scores["BMA"]["crps"][rows["obs"].values])
    assert_allclose(rows["prediction"].sel(model="BMA"), be.predict(fits["BMA"], ensemble)["mean"][rows["obs"].values])


def test_rows_without_observation_are_no_loss():
    frame = table()
    frame.loc[0, "sm"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert point_rows(frame).attrs["rows_dropped"] == 0


def test_scores_of_folds_come_together_by_obs(fitted):
    _, ensemble, fits, scores = fitted
    first = np.arange(ensemble.n_obs) % 2 == 0
    parts = []
    for mask in (first, ~first):
        part = be.score(fits["BMA"], ensemble.select(rows=mask))
        parts.append(part.assign_coords(obs=np.flatnonzero(mask)))
    joined = xr.concat(parts, "obs")
    rows = common_rows({"folds": joined, "whole": scores["BMA"]}, ensemble, estimand="site")
    got = score_table(rows).set_index("model")
    assert_allclose(got.loc["folds", "crps"], got.loc["whole", "crps"], rtol=1e-12)


def test_scores_of_other_rows_are_refused(fitted):
    frame, ensemble, fits, scores = fitted
    shifted = scores["BMA"].assign_coords(obs=scores["BMA"]["obs"].values[::-1].copy())
    with pytest.raises(ValueError, match=r"scores of 'off' .* in \d+ rows the site differs \(first: row"):
        common_rows({"BMA": scores["BMA"], "off": shifted}, ensemble, estimand="site")
    with pytest.raises(ValueError, match=r"scores of 'BMA' .* obs goes from 0 to"):
        common_rows(scores, ensemble.select(rows=slice(0, 5)), estimand="site")
    with pytest.raises(ValueError, match="stand twice"):
        common_rows({"BMA": scores["BMA"].isel(obs=[0, 0])}, ensemble, estimand="site")
    with pytest.raises(ValueError, match="only one of the two has a time"):
        common_rows({"BMA": scores["BMA"].drop_vars("time")}, ensemble, estimand="site")
    with pytest.raises(ValueError, match=r"levels 0.5; wanted 0.9"):
        common_rows({"BMA": be.score(fits["BMA"], ensemble, levels=[0.5])}, ensemble, estimand="site")
    with pytest.raises(ValueError, match="'BMA' stand both"):
        common_rows(scores, ensemble, estimand="site", products={"BMA": frame["bad"]})
    with pytest.raises(ValueError, match="'CCI' has 3 values; wanted one for each"):
        common_rows(scores, ensemble, estimand="site", products={"CCI": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="nothing to compare"):
        common_rows({}, ensemble, estimand="site")
    with pytest.raises(ValueError, match=r"no row is common to all.*'CCI'"):
        common_rows(scores, ensemble, estimand="site", products={"CCI": np.full(len(frame), np.nan)})
    with pytest.raises(ValueError, match="infinite in 1 rows"):
        common_rows({}, ensemble, estimand="site", products={"CCI": np.r_[np.inf, frame["bad"][1:]]})
    with pytest.raises(ValueError, match="names that the rows use"):
        common_rows(scores, ensemble, estimand="site", labels={"group": frame["network"]})


def test_season():
    days = pd.to_datetime(["2020-01-05", "2020-04-05", "2020-10-05", None])
    assert season(days).tolist() == ["DJF", "MAM", "SON", ""]
    assert season(days, lat=[-30, -30, 30, 30]).tolist() == ["summer", "autumn", "autumn", ""]
    every = pd.date_range("2020-01-15", periods=12, freq="MS")
    opposite = {"winter": "summer", "summer": "winter", "spring": "autumn", "autumn": "spring"}
    south, north = season(every, lat=np.full(12, -1.0)), season(every, lat=np.full(12, 1.0))
    assert [opposite[name] for name in south] == north.tolist()
    assert season(days, months={"wet": [4, 5]}).tolist() == ["", "wet", "", ""]
    with pytest.raises(ValueError, match="each in one season"):
        season(days, months={"wet": [4, 5], "dry": [5]})
    with pytest.raises(ValueError, match="either lat"):
        season(days, months={"wet": [4]}, lat=[1.0] * 4)
    with pytest.raises(ValueError, match="seasons need datetimes"):
        season([1, 2])


# ------------------------------------------------------------------------------------------------------------------ bands
def test_bands_by_observation_forecast_and_climatology():
    frame = table()
    rows = point_rows(frame)
    low, high = np.quantile(frame["sm"], [0.15, 0.85])
    assert band_limits(rows, "mid") == (low, high)
    with pytest.warns(UserWarning, match="forecaster's dilemma"):
        mid = select_band(rows, "mid")
    assert_array_equal(mid["observation"], frame["sm"][(frame["sm"] >= low) & (frame["sm"] <= high)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select_band(rows, "all").sizes == rows.sizes
        by_forecast = select_band(rows, "Mid", by="good")
        by_site = select_band(rows, (0.0, 0.5), by="climatology")
    f = frame["good"]
    assert_array_equal(by_forecast["obs"], np.flatnonzero((f >= f.quantile(0.15)) & (f <= f.quantile(0.85))))
    means = frame.groupby("station")["sm"].transform("mean")
    assert_array_equal(by_site["obs"], np.flatnonzero(means <= np.quantile(means, 0.5)))
    covariate = rows.assign_coords(ndvi=("obs", np.linspace(0, 1, rows.sizes["obs"])))
    assert in_band(covariate, "high", by="ndvi").mean() == pytest.approx(0.15, abs=0.01)


def test_unknown_bands():
    rows = point_rows(table())
    with pytest.raises(KeyError, match="there is no band 'middle'; known: 'all', 'low', 'mid', 'high'"):
        select_band(rows, "middle")
    with pytest.raises(KeyError, match="no value to make bands by 'obs'"):
        select_band(rows, "mid", by="obs")
    with pytest.raises(ValueError, match="increase inside"):
        select_band(rows, (15, 85))


def integral(law, y, lower, upper):
    """Numerical integration of (F - 1{y <= x})^2, broken where the integrand turns."""
    levels = (1e-13, 1e-6, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999, 1 - 1e-6, 1 - 1e-13)
    turns = np.array([float(law.quantile(p)) for p in levels] + [0.0, y])
    a, b = max(lower, turns.min() - 1.0), min(upper, turns.max() + 1.0)
    if a >= b:
        return 0.0
    ends = np.unique(np.clip([a, b, *turns], a, b))
    f = lambda x: (float(law.cdf(x)) - (y <= x)) ** 2  # noqa: E731
    return sum(quad(f, left, right, epsabs=1e-10)[0] for left, right in pairwise(ends))


@pytest.mark.parametrize(("middle", "moved"), [(0.0, 0.0), (1.0, 0.0), (0.0, 3e-237), (0.0, -1e-150), (0.0, 1e-90)])
@pytest.mark.parametrize("width", [1.0, 1e-6])
@pytest.mark.parametrize("cls", [NormalMixture, SquaredNormalMixture, LogNormalMixture])
def test_threshold_crps_where_all_components_have_their_mean_at_the_threshold(cls, width, middle, moved):
    law = cls([0.3, 0.3, 0.4], [middle, middle, middle + moved], width * np.array([1.0, 1.0, 0.5]))
    at = float(law.transform.inverse(np.array(middle)))
    for lower, upper, y in ((at, at + 0.4, at), (at - 0.5, at, 0.2), (-np.inf, at, 2.0), (at, np.inf, 0.0)):
        found = threshold_crps(law, y, lower=lower, upper=upper)
        assert_allclose(found, integral(law, y, lower, upper), rtol=1e-6, atol=1e-8)
    assert_allclose(law.crps(0.3), integral(law, 0.3, -np.inf, np.inf), rtol=1e-6)


@pytest.mark.parametrize("cls", [NormalMixture, SquaredNormalMixture, LogNormalMixture])
@given(data=st.data())
@settings(derandomize=True, max_examples=25, deadline=None)
def test_threshold_crps_is_the_integral(cls, data):
    size = data.draw(st.integers(1, 3))
    number = st.floats(-2.0, 2.0)
    draw = lambda one: data.draw(st.lists(one, min_size=size, max_size=size))  # noqa: E731
    weight = np.array(draw(st.floats(0.1, 1.0)))
    law = cls(weight / weight.sum(), draw(number), draw(st.floats(0.05, 1.5)))
    lower, upper = sorted((data.draw(number), data.draw(number)))
    upper = upper + 0.1
    open_end = data.draw(st.sampled_from(["none", "lower", "upper", "both"]))
    lower = -np.inf if open_end in ("lower", "both") else lower
    upper = np.inf if open_end in ("upper", "both") else upper
    y = data.draw(st.floats(-1.0, 4.0))
    assert_allclose(
        threshold_crps(law, y, lower=lower, upper=upper), integral(law, y, lower, upper), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("cls", [NormalMixture, SquaredNormalMixture, LogNormalMixture])
def test_threshold_crps_without_thresholds_is_the_crps(cls):
    rng = np.random.default_rng(5)
    n = 3000  # which several threads share
    law = cls(rng.dirichlet(np.ones(4), n), rng.normal(0.5, 0.5, (n, 4)), rng.uniform(0.1, 1, (n, 4)))
    y = law.sample(1, rng)[0]
    y[:5] = -0.3  # outside the domain of two of them
    assert_allclose(threshold_crps(law, y), law.crps(y), rtol=1e-9, atol=1e-12)
    assert_allclose(
        threshold_crps(law, y, lower=-0.1)[:5], [integral(law[i], -0.3, -0.1, np.inf) for i in range(5)], rtol=1e-6
    )
    parts = threshold_crps(law, y, upper=0.8) + threshold_crps(law, y, lower=0.8)  # weights that add up to one
    assert_allclose(parts, law.crps(y), rtol=1e-9, atol=1e-12)
    assert np.isnan(threshold_crps(law, np.full(n, np.nan), lower=0.0)).all()


def test_threshold_crps_of_draws_is_that_of_scoringrules():
    rng = np.random.default_rng(6)
    draws, y = rng.normal(size=(60, 30)), rng.normal(size=30)
    expected = scoringrules.twcrps_ensemble(y, draws, a=-0.4, b=0.9, m_axis=0, estimator="nrg")
    assert_allclose(threshold_crps(draws, y, lower=-0.4, upper=0.9), expected, rtol=1e-9, atol=1e-12)
    # Many evenly spaced quantiles come to the closed form; thresholds may differ by row.
    law = NormalMixture(1.0, np.zeros((30, 1)), 1.0)
    many = law.quantile((np.arange(2000) + 0.5) / 2000).T
    lower = rng.normal(-0.5, 0.2, 30)
    assert_allclose(threshold_crps(many, y, lower=lower), threshold_crps(law, y, lower=lower), atol=2e-4)
    assert_array_equal(threshold_crps(law, y, lower=1.0, upper=1.0), 0.0)
    with pytest.raises(ValueError, match="above its upper one, or missing"):
        threshold_crps(law, y, lower=1.0, upper=0.5)


def test_threshold_crps_is_proper_where_selecting_rows_is_not():
    # y = N(m, 1) with m known. The forecaster who says N(2 m, 1) does better on the rows with the greatest observations, and
    # worse by the threshold-weighted score. 4,000 rows; both differences are above 8 standard errors.
    rng = np.random.default_rng(7)
    m = rng.normal(size=4000)
    y = m + rng.normal(size=4000)
    true, bold = NormalMixture(1.0, m[:, None], 1.0), NormalMixture(1.0, 2 * m[:, None], 1.0)
    top = y > np.quantile(y, 0.95)
    assert bold.crps(y)[top].mean() < true.crps(y)[top].mean()
    limit = np.quantile(y, 0.95)
    assert threshold_crps(bold, y, lower=limit).mean() > threshold_crps(true, y, lower=limit).mean()


def test_threshold_crps_of_rows(fitted):
    frame, ensemble, fits, scores = fitted
    rows = common_rows(scores, ensemble, estimand="in-sample", products={"CCI": frame["bad"]}).isel(obs=slice(3, None))
    laws = {name: distribution(fit, ensemble) for name, fit in fits.items()}
    got = add_threshold_crps(rows, laws, band="mid")
    low, high = got["twcrps"].attrs["lower"], got["twcrps"].attrs["upper"]
    y = frame["sm"].to_numpy()
    assert_allclose(got["twcrps"].sel(model="BMA"), threshold_crps(laws["BMA"], y, lower=low, upper=high)[3:])
    assert_allclose(
        got["twcrps"].sel(model="CCI"), np.abs(np.clip(frame["bad"], low, high) - np.clip(y, low, high))[3:]
    )
    assert_allclose(add_threshold_crps(rows, laws, band="all")["twcrps"], rows["crps"], rtol=1e-8)
    assert "twcrps_low" in score_table(got, replicates=5, random_seed=1)
    with pytest.raises(ValueError, match="no predictive distribution of 'Equal'"):
        add_threshold_crps(rows, {"BMA": laws["BMA"]})
    with pytest.raises(ValueError, match="predictive distribution of 'BMA' has the shape"):
        add_threshold_crps(rows, laws | {"BMA": laws["BMA"][:5]})


# ------------------------------------------------------------------------------------------------------- product by product
def test_product_table(fitted):
    frame, ensemble, fits, scores = fitted
    rows = common_rows(scores, ensemble, estimand="in-sample", products={"CCI": frame["bad"]})
    laws = {name: distribution(fit, ensemble) for name, fit in fits.items()}
    with pytest.warns(UserWarning, match="forecaster's dilemma") as caught:
        got = product_table(rows, bands=["all", "mid", "high"], predictive=laws, replicates=20, random_seed=1)
    assert len([w for w in caught if "dilemma" in str(w.message)]) == 1
    groups = ["n0", "n1", "n2", "all", "macro"]
    assert got.index.tolist() == [(metric, group) for metric in ("r", "rmse", "mae", "twcrps") for group in groups]
    assert got.columns.get_level_values("model").unique().tolist() == ["number", "BMA", "Equal", "CCI"]
    assert got[("number", "mid", "rows")].dtype == int
    y = frame["sm"]
    mid = (y >= y.quantile(0.15)) & (y <= y.quantile(0.85))
    assert got.loc[("rmse", "all"), ("number", "mid", "rows")] == mid.sum()
    assert got.loc[("rmse", "all"), ("CCI", "mid", "estimate")] == pytest.approx(by_hand(frame[mid], "bad")["rmse"])
    part = frame[mid & (frame["network"] == "n1")]
    assert got.loc[("r", "n1"), ("CCI", "mid", "estimate")] == pytest.approx(by_hand(part, "bad")["r"])
    crps = float(scores["BMA"]["crps"].mean())
    assert got.loc[("twcrps", "all"), ("BMA", "all", "estimate")] == pytest.approx(crps)
    assert got.loc[("twcrps", "all"), ("number", "mid", "rows")] == len(frame)  # proper: over all rows
    ends = got.xs("low", axis=1, level="part"), got.xs("high", axis=1, level="part")
    assert (ends[0] < ends[1]).loc[("rmse", "all")].all()


def test_product_table_of_other_choices():
    rows = point_rows(table())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = product_table(rows, by=None, metrics=["kge"], bands=["all", "low"], band_by="good", replicates=0)
    assert got.index.tolist() == [("kge", "all")]
    dry = product_table(rows, by=None, metrics=["kge"], bands={"dry": (0.0, 0.15)}, band_by="good", replicates=0)
    assert_array_equal(dry.xs("dry", axis=1, level="band"), got.xs("low", axis=1, level="band"))
    assert got.xs("low", axis=1, level="part").isna().all().all()
    with pytest.raises(KeyError, match=r"no metric 'RMSE' .* 'rmse'"):
        product_table(rows, metrics=["RMSE"])
    with pytest.raises(KeyError, match="no band 'middle'"):
        product_table(rows, bands=["middle"])


def test_a_network_without_rows_in_a_band_has_none():
    frame = table()
    frame.loc[frame["network"] == "n0", "sm"] += 5.0
    with pytest.warns(UserWarning, match="dilemma"):
        got = product_table(point_rows(frame), bands=["all", "low"], replicates=0)
    assert got.loc[("mae", "n0"), ("number", "low", "rows")] == 0
    assert np.isnan(got.loc[("mae", "n0"), ("good", "low", "estimate")])
