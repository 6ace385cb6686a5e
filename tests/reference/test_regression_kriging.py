"""Regression kriging, the rival of the table of the day, against one dense normal of all errors."""

import json

import numpy as np
import pandas as pd
import scoringrules
from numpy.testing import assert_allclose
from regression_kriging import RegressionKriging

import bayesens as be

RADIUS = 6371.0088  # km


def tables():
    """Errors of member a hang together on a day; b is worse. Six stations to learn from, two held out."""
    rng = np.random.default_rng(3)
    stations, days = 8, 30
    place = rng.uniform(0.0, 1.0, (stations, 2))
    truth = rng.normal(0.0, 2.0, (days, stations))
    error = (
        rng.normal(0.0, 1.0, (days, 1)) + rng.normal(0.0, 0.3, (1, stations)) + rng.normal(0.0, 0.3, (days, stations))
    )
    frame = pd.DataFrame({
        "y": truth.ravel(), "a": (truth - 0.5 - error).ravel(), "b": (truth + rng.normal(0.0, 3.0, truth.shape)).ravel(),
        "site": np.tile([f"s{k}" for k in range(stations)], days), "lon": np.tile(place[:, 0], days),
        "lat": np.tile(place[:, 1], days), "time": np.repeat(pd.date_range("2020-01-01", periods=days), stations),
    })  # fmt: skip
    names = {"members": ["a", "b"], "observation": "y", "site": "site", "time": "time", "lon": "lon", "lat": "lat"}
    new = frame["site"].isin(["s6", "s7"])
    return frame, *(be.Ensemble.from_frame(frame[rows], **names) for rows in (~new, new))


def covariance(history, stations, days, place):
    """Of errors at stations and days, by the formula of `be.Neighbours`."""
    facts = json.loads(history.attrs["neighbours"])
    v, reach, unit = facts["variance"], facts["reach"], facts["options"]["unit"]
    lon, lat = np.deg2rad(place).T
    xyz = RADIUS * np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    u = np.linalg.norm(xyz[:, None] - xyz, axis=-1)[np.ix_(stations, stations)]
    field, static = ((1.0 + x) * np.exp(-x) for x in (np.sqrt(3.0) * u / reach[f] for f in ("field", "place")))
    same, day = np.equal.outer(stations, stations), np.equal.outer(days, days)
    always = unit**2 + v["place"] * static + v["nugget"] * same
    return always + day * (v["day"] + v["field"] * field + v["own"] * same), facts["options"]["center"]


def test_it_is_the_best_member_and_the_normal_of_its_errors_given_those_of_the_others():
    frame, train, test = tables()
    kriging = RegressionKriging()
    history = kriging.history(train)
    assert history.attrs["best"] == "a"
    law = kriging.predictive(None, test, history)
    station = frame["site"].str[1:].astype(int).to_numpy()
    day = frame["time"].dt.day.to_numpy()
    place = frame.groupby("site")[["lon", "lat"]].first().to_numpy()
    whole, center = covariance(history, station, day, place)
    error = (frame["y"] - frame["a"]).to_numpy() - center
    old, new = np.flatnonzero(station < 6), np.flatnonzero(station >= 6)
    for k in (0, 1, 20, 59):
        one = new[k]
        # What other days say of a place that has no station: its static part, through the stations that stand there always.
        gain = np.linalg.solve(whole[np.ix_(old, old)], whole[old, one])
        assert_allclose(law.mean[k], frame["a"].iloc[one] + center + gain @ error[old], rtol=1e-6)
        assert_allclose(law.sd[k] ** 2, whole[one, one] - gain @ whole[old, one], rtol=1e-6)
    y = test.require_observation()
    assert_allclose(law.matched().crps(y), scoringrules.crps_normal(y, law.mean, law.sd), rtol=1e-9)
    assert_allclose(law.log_density(y), -scoringrules.logs_normal(y, law.mean, law.sd), rtol=1e-9)


def test_errors_of_the_day_are_worth_most_of_the_error_and_nothing_held_out_is_seen():
    _, train, test = tables()
    kriging = RegressionKriging()
    history = kriging.history(train)
    law = kriging.predictive(None, test, history)
    other = be.Ensemble.from_dataset(test.dataset.assign(observation=test.dataset["observation"] + 100.0))
    assert_allclose(kriging.predictive(None, other, history).mean, law.mean)
    y = test.require_observation()
    assert np.std(law.mean - y) < 0.6 * np.std(test.prediction[:, 0] - y)
