"""Probabilities against events: scikit-learn, the parts that add up, bands that hold what they should."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student_t
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, confusion_matrix, roc_auc_score

from bayesens.geo.event_scores import brier, reliability, roc, warning_scores


def forecasts(n=400, seed=1, digits=None):
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 2, size=n)
    y = (rng.random(n) < p).astype(float)
    return (p if digits is None else p.round(digits)), y


@pytest.mark.parametrize("digits", [None, 1])
def test_scores_are_those_of_scikit_learn(digits):
    p, y = forecasts(digits=digits)
    assert brier(p, y)["brier"] == pytest.approx(brier_score_loss(y, p))
    curve = roc(p, y)
    assert curve.attrs["auc"] == pytest.approx(roc_auc_score(y, p))
    threshold = [np.inf, *sorted(set(p), reverse=True)]
    rates = [[np.mean(p[y == happened] >= at) for happened in (0, 1)] for at in threshold]
    np.testing.assert_allclose(curve, np.column_stack([threshold, rates]))
    (rejections, false_alarms), (misses, hits) = confusion_matrix(y, p >= 0.3)
    found = warning_scores(p, y, threshold=0.3)
    assert found[["hits", "misses", "false_alarms", "rejections"]].tolist() == [hits, misses, false_alarms, rejections]
    assert found["hit_rate"] == pytest.approx(hits / (hits + misses))
    assert found["false_alarm_rate"] == pytest.approx(false_alarms / (false_alarms + rejections))
    assert found["false_alarm_ratio"] == pytest.approx(false_alarms / (hits + false_alarms))
    assert found["csi"] == pytest.approx(hits / (hits + misses + false_alarms))


@pytest.mark.parametrize("digits", [None, 1])
def test_the_curve_is_isotonic_regression_of_the_rows(digits):
    p, y = forecasts(digits=digits)
    curve = reliability(p, y, replicates=0)
    fitted = IsotonicRegression(y_min=0, y_max=1).fit(p, y).predict(curve["forecast"])
    np.testing.assert_allclose(curve["frequency"], fitted, atol=1e-12)
    assert curve["n"].sum() == len(y)
    assert curve[["low", "high"]].isna().all(axis=None)


@given(st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=30))
def test_parts_add_up_and_none_is_negative(rows):
    p, y = np.array([a / 10 for a, _ in rows]), np.array([b for _, b in rows], dtype=float)
    found = brier(p, y)
    total = found["miscalibration"] - found["discrimination"] + found["uncertainty"]
    assert found["brier"] == pytest.approx(total, abs=1e-12)
    assert min(found["miscalibration"], found["discrimination"]) > -1e-12
    curve = reliability(p, y, replicates=0)
    assert (np.diff(curve["frequency"]) >= -1e-12).all()


def test_perfect_and_useless_forecasts():
    y = np.array([0, 1, 1, 0, 1])
    assert brier(y, y)[["brier", "miscalibration", "skill"]].tolist() == [0, 0, 1]
    assert roc(y, y).attrs["auc"] == 1.0
    flat = brier(np.full(5, 0.6), y)
    assert flat["discrimination"] == pytest.approx(0)
    assert flat["skill"] == pytest.approx(0)
    assert roc(np.full(5, 0.6), y).attrs["auc"] == 0.5


def test_bands_of_a_reliable_forecast_hold_its_curve():
    """90 % bands, 40 draws of 400 forecasts: .92 of the curve on average with a standard error of .015 (of 300 draws; counts
    are whole, so the bands hold a little more). Outside .865 to .975 a correct program is with a chance below .1 %.
    """
    rng = np.random.default_rng(1)
    inside = []
    for seed in range(40):
        p = rng.beta(1, 2, 400).round(1)
        curve = reliability(p, rng.random(400) < p, replicates=100, random_seed=seed)
        inside.append(np.average(curve["frequency"].between(curve["low"], curve["high"]), weights=curve["n"]))
    assert 0.865 < np.mean(inside) < 0.975
    p, y = forecasts(digits=1)
    wrong = reliability(p, (np.random.default_rng(2).random(400) < p**2).astype(float), random_seed=1)
    assert np.average(wrong["frequency"].between(wrong["low"], wrong["high"]), weights=wrong["n"]) < 0.5
    pd.testing.assert_frame_equal(reliability(p, y, random_seed=1), reliability(p, y, random_seed=1))


def stations(number, seed=3):
    """60 days at stations where the frequency is off by .15, one standard deviation."""
    rng = np.random.default_rng(seed)
    p, site = np.round(rng.beta(1, 2, 60 * number), 1), np.repeat(np.arange(number), 60)
    y = rng.random(60 * number) < np.clip(p + rng.normal(0, 0.15, number)[site], 0, 1)
    return p, y.astype(float), site, np.tile(np.arange(60), number)


def test_bands_over_few_stations_are_t_intervals_from_leaving_one_out():
    p, y, site, _ = stations(8)
    curve = reliability(p, y, site=site, replicates=50, random_seed=1)
    at = curve["forecast"]

    def fitted(rows):
        return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(p[rows], y[rows]).predict(at)

    whole, apart = fitted(site >= 0), np.stack([fitted(site != k) for k in range(8)])
    half = student_t.ppf(0.95, 7) * np.sqrt(7 / 8 * np.sum((apart - whole) ** 2, axis=0))
    common = np.all([np.isin(at, p[site != k]) for k in range(8)], axis=0)
    assert common.sum() > 5
    np.testing.assert_allclose(curve["low"][common], np.clip(whole - half, 0, 1)[common], atol=1e-12)
    np.testing.assert_allclose(curve["high"][common], np.clip(whole + half, 0, 1)[common], atol=1e-12)
    assert curve.attrs["band"] == "t with 7 degrees of freedom, 8 stations"
    few = reliability(p, y, site=site % 4, random_seed=1)
    assert few[["low", "high"]].isna().all(axis=None)
    assert few.attrs["band"] == "none: 4 stations"


def test_blocks_of_time_alone_are_resampled_like_stations():
    p, y, _, time = stations(10)
    alone = reliability(p, y, time=time, block=2, replicates=50, random_seed=1)
    named = reliability(p, y, site=[f"{t // 2:02d}" for t in time], replicates=50, random_seed=1)
    pd.testing.assert_frame_equal(alone, named, check_names=False)
    assert alone.attrs["band"] == "bootstrap over 30 blocks of 2 time steps"
    assert not alone.equals(reliability(p, y, replicates=50, random_seed=1))


def test_stations_that_err_together_widen_the_band():
    p, y, site, time = stations(10)
    alone = reliability(p, y, site=np.arange(600), random_seed=1)
    together = reliability(p, y, site=site, time=time, block=2, random_seed=1)
    assert together.attrs["band"] == "t with 9 degrees of freedom, 10 stations and 30 blocks of 2 time steps"
    assert not together.equals(reliability(p, y, site=site, random_seed=1))
    many = alone["n"] > 20
    assert ((together["high"] - together["low"])[many].mean()) > 1.5 * (alone["high"] - alone["low"])[many].mean()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_class_alone_has_no_area_and_no_skill(value):
    p = np.array([0.2, 0.5, 0.9])
    y = np.full(3, value)
    assert np.isnan(roc(p, y).attrs["auc"])
    assert np.isnan(brier(p, y)["skill"])
    assert np.isnan(warning_scores(p, y)["hit_rate" if value == 0 else "false_alarm_rate"])


def test_rows_without_either_are_left_out():
    assert brier([0.2, np.nan, 0.4, 0.3], [0, 1, np.nan, 1])["n"] == 2


@pytest.mark.parametrize(
    ("p", "y", "text"),
    [
        ([0.2, np.inf], [0, 1], "probabilities go from 0.2 to inf"),
        ([0.2, 0.3], [0, np.inf], "event has the value inf; wanted 0 or 1"),
        ([0.2, 1.2], [0, 1], "probabilities go from 0.2 to 1.2"),
        ([0.2, 0.3], [0, 2], "event has the value 2; wanted 0 or 1"),
        ([0.2], [0, 1], r"probability has shape \(1,\) and event \(2,\)"),
        ([np.nan], [1.0], "none of 1 rows has a probability and an event"),
    ],
)
def test_bad_input(p, y, text):
    for function in (brier, reliability, roc, warning_scores):
        with pytest.raises(ValueError, match=text):
            function(p, y)
    with pytest.raises(ValueError, match="threshold is 2"):
        warning_scores([0.5], [1], threshold=2)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"site": ["a", "b", "c"]}, r"site has shape \(3,\) for 2 rows"),
        ({"site": "a"}, r"site has shape \(\) for 2 rows"),
        ({"time": [1]}, r"time has shape \(1,\) for 2 rows"),
        ({"site": ["a", None]}, "1 of 2 rows have no site, and would count as one"),
        ({"site": ["a", "b"], "time": [1, np.nan]}, "1 of 2 rows have no time"),
        ({"replicates": -1}, "replicates is a whole number"),
        ({"replicates": 0, "level": 90}, "level lies inside"),
    ],
)
def test_bad_bands(options, text):
    with pytest.raises(ValueError, match=text):
        reliability([0.2, 0.3], [0, 1], **options)
