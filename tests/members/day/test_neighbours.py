"""Neighbours in the chain of members: what leaks, what does not, grids against rows, files, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayesens as be
from bayesens.models.neighbours import Neighbours

FIXED = Neighbours(transform="identity")


def world(seed=1, stations=8, days=40, *, shared=1.0):
    """Stations in a plane, whose days have something in common, and one poor product."""
    rng = np.random.default_rng(seed)
    xy, place = rng.uniform(0.0, 100.0, (stations, 2)), 0.3 * rng.normal(size=stations)
    day = shared * rng.normal(size=days)
    y = day[:, None] + place + 0.4 * rng.normal(size=(days, stations))
    frame = pd.DataFrame({
        "station": np.tile([f"s{k}" for k in range(stations)], days), "net": np.tile(np.arange(stations) % 3, days),
        "day": np.repeat(np.datetime64("2020-01-01") + np.arange(days), stations),
        "x": np.tile(xy[:, 0], days), "y": np.tile(xy[:, 1], days), "obs": y.ravel(),
    })  # fmt: skip
    frame["net"] = "n" + frame["net"].astype(str)
    return frame.assign(rf=0.5 * frame["obs"] + rng.normal(size=len(frame)))


def members_of(frame, neighbours=FIXED, **options):
    return be.Members({}, frame[["rf", "x", "y"]], frame["obs"], site=frame["station"], group=frame["net"], time=frame["day"],
                      products=["rf"], neighbours=neighbours, **options)  # fmt: skip


def column(ensemble, name="neighbours"):
    if name == "neighbours":
        return ensemble.select(members=[name]).prediction.ravel()
    return ensemble.dataset["covariate"].sel(covariate_name=name).values


def crossed(frame, **options):
    return be.cross_fit(members_of(frame, **options), folds=4, random_seed=1, progressbar=False)


def test_a_spike_that_only_the_target_shows_is_not_seen():
    frame = world()
    spike = frame["station"].eq("s3") & frame["day"].eq(pd.Timestamp("2020-01-11"))
    plain, spiked = crossed(frame), crossed(frame.assign(obs=frame["obs"] + 0.1 * spike))
    own = frame["station"].eq("s3").to_numpy()
    moved = np.abs(column(spiked) - column(plain))
    # The covariance is fitted to all stations, and hardly moves; others of the day see the spike itself.
    assert moved[own].max() < 2e-3
    same_day = frame["day"].eq(pd.Timestamp("2020-01-11")).to_numpy()
    assert moved[same_day & ~own].min() > 5e-3


def test_rows_held_out_reach_nothing_that_is_learnt_from():
    frame = world()
    held = frame["station"].isin(["s1", "s5"]).to_numpy()
    changed = frame.assign(obs=frame["obs"].where(~held, 3.0 * frame["obs"] + 1.0))
    halves = [members_of(one).split(~held, held, folds=3, random_seed=1, progressbar=False) for one in (frame, changed)]
    (train, test), (other_train, other_test) = halves
    np.testing.assert_array_equal(column(train), column(other_train))
    np.testing.assert_array_equal(column(test), column(other_test))
    assert test.origin == "held-out"


def test_a_station_alone_on_its_days_is_told_nothing_of_them():
    frame = world()
    alone = frame["day"].lt(pd.Timestamp("2020-01-06"))
    few = frame.assign(obs=frame["obs"].where(~alone | frame["station"].eq("s2")))
    made = crossed(few)
    own = (alone & frame["station"].eq("s2")).to_numpy()
    assert np.ptp(column(made)[own]) < 1e-9  # the same for each of its days
    assert np.isnan(column(made, "neighbours_distance")[own]).all()


def test_a_twin_tells_all_and_is_set_aside_by_a_buffer():
    frame = world(days=60)
    twin = frame[frame["station"].eq("s0")].assign(station="twin", x=lambda t: t["x"] + 0.5)
    twin["obs"] += 0.02 * np.random.default_rng(2).normal(size=len(twin))
    both = pd.concat([frame, twin], ignore_index=True)
    own = both["station"].eq("twin").to_numpy()
    error = {}
    for buffer in (0.0, 1.0):
        model = Neighbours(transform="identity", buffer=buffer, range_prior=be.Prior("LogNormal", mu=-3.0, sigma=1.0))
        error[buffer] = np.std(column(crossed(both, neighbours=model))[own] - both["obs"][own])
    assert error[0.0] < 0.6 * error[1.0]
    assert error[1.0] > 0.35  # no less than the noise of a station of its own


def test_groups_leave_together():
    frame = world()
    model = Neighbours(transform="identity", leave_out="group")
    plain = crossed(frame, neighbours=model)
    first = frame["net"].eq("n0") & frame["station"].ne("s0")
    changed = crossed(
        frame.assign(obs=frame["obs"] + first * np.where(frame["day"].dt.day == 5, 0.05, 0.0)), neighbours=model
    )
    own = (frame["station"].eq("s0") & frame["day"].dt.day.eq(5)).to_numpy()
    assert np.abs(column(changed) - column(plain))[own].max() < 1e-3
    rows = be.compare({"BMA": be.BMA(site=False, group=False)}, members_of(frame), estimand="group", method="em",
                      random_seed=1, progressbar=False)  # fmt: skip
    assert rows.attrs["day_of"] == '["BMA"]'


@pytest.mark.parametrize("estimand", ["time", "site-time"])
def test_new_times_are_refused(estimand):
    with pytest.raises(
        ValueError, match=f"{estimand!r} asks for days that nobody has observed; wanted 'site' or 'group'"
    ):
        be.compare({"BMA": be.BMA()}, members_of(world()), estimand=estimand, progressbar=False)


def test_the_day_gains_and_tables_say_who_was_told_it():
    frame = world(stations=12, days=60)
    models = {"rf": be.OnMembers(be.BMA(site=False, group=False), ["rf"]), "day": be.BMA(site=False, group=False)}
    rows = be.compare(
        models, members_of(frame), estimand="site", folds=4, method="em", random_seed=1, progressbar=False
    )
    table = be.score_table(rows).set_index("model")
    assert table.loc["day", "crps"] < 0.8 * table.loc["rf", "crps"]
    assert table["observations"].to_dict() == {"rf": "", "day": "day of"}
    by_distance = be.coverage_table(rows, by="distance", levels=[0.9]).query("by == 'distance' and model == 'day'")
    assert len(by_distance) >= 3  # stations of one distance lie in one class
    assert by_distance["n"].sum() == rows.sizes["obs"]
    assert by_distance["group"].str.contains("up to|beyond").all()


SCORES = Neighbours(transform="normal_scores")


@pytest.mark.parametrize("model", [FIXED, SCORES], ids=["identity", "normal scores"])
def test_rows_of_new_places_and_cells_of_a_grid_are_told_the_same(model):
    frame = world()
    fitted = members_of(frame, model).fit()
    grid = xr.Dataset(coords={"time": frame["day"].unique()[[3, 7]], "y": [10.0, 50.0], "x": [0.0, 40.0, 90.0]})
    cells = fitted.with_neighbours(grid)
    table = grid.to_dataframe().reset_index()
    rows = fitted.with_neighbours(table)
    for name in ("neighbours", "neighbours_sd", "neighbours_distance"):
        np.testing.assert_allclose(cells[name].transpose("time", "y", "x").values.ravel(), rows[name], rtol=1e-6)
    lazy = fitted.with_neighbours(grid.assign(a=(("time", "y", "x"), np.zeros((2, 2, 3)))).chunk({"time": 1, "x": 2}))
    assert lazy["neighbours"].chunks is not None
    xr.testing.assert_equal(lazy["neighbours"].compute(), cells["neighbours"].transpose(*lazy["neighbours"].dims))


def test_days_that_nobody_observed_are_those_of_the_fit_without(recwarn):
    frame = world()
    members, crossed_ = members_of(frame), crossed(frame)
    models = [be.fit(be.BMA(site=False, group=False), table, method="em") for table in
              (crossed_, crossed_.select(members=["rf"]))]  # fmt: skip
    times = np.array(["2020-01-05", "2021-01-05"], dtype="datetime64[ns]")
    grid = xr.Dataset(
        {"rf": (("time", "y", "x"), np.zeros((2, 1, 2)))}, {"time": times, "y": [50.0], "x": [20.0, 60.0]}
    )
    found = be.map(members.fit(), models[0], grid, without=models[1], progressbar=False)
    assert found["day_observed"].values.tolist() == [True, False]
    plain = be.map(members_of(frame, None).fit(), models[1], grid, progressbar=False)
    day = be.map(members.fit(), models[0], grid.isel(time=[0]), progressbar=False)
    np.testing.assert_array_equal(found["quantile_value"].isel(time=1), plain["quantile_value"].isel(time=1))
    np.testing.assert_array_equal(found["quantile_value"].isel(time=0), day["quantile_value"].isel(time=0))
    assert (found["sd"].isel(time=1) > 1.3 * found["sd"].isel(time=0)).all()
    assert not [one for one in recwarn if "nobody" in str(one.message)]
    with pytest.warns(UserWarning, match="on 1 of 2 days of the grid no station has an observation: .* without=FIT"):
        be.map(members.fit(), models[0], grid, progressbar=False)
    lazy = be.map(members.fit(), models[0], grid.chunk({"time": 1}), without=models[1], progressbar=False)
    xr.testing.assert_allclose(lazy.compute(), found)


@pytest.mark.parametrize("model", [FIXED, SCORES], ids=["identity", "normal scores"])
def test_members_are_written_and_read_with_their_neighbours(tmp_path, model):
    frame = world()
    fitted = members_of(frame, model).fit()
    fitted.save(tmp_path / "members")
    again = be.FittedMembers.load(tmp_path / "members")
    grid = xr.Dataset(coords={"time": frame["day"].unique()[[3]], "y": [10.0], "x": [0.0, 40.0]})
    xr.testing.assert_identical(fitted.with_neighbours(grid), again.with_neighbours(grid))


def test_estimators_learn_from_neighbours():
    from sklearn.ensemble import HistGradientBoostingRegressor

    frame = world(stations=10)
    members = be.Members({"xgb": HistGradientBoostingRegressor(random_state=1)}, frame[["rf"]], frame["obs"],
                         site=frame["station"], time=frame["day"], places=frame[["x", "y"]], neighbours=FIXED,
                         neighbour_features=True)  # fmt: skip
    made = be.cross_fit(members, folds=5, random_seed=1, progressbar=False)
    held_out = made.select(members=["xgb"]).prediction.ravel()
    assert np.std(held_out - frame["obs"]) < 0.75 * np.std(frame["obs"] - frame["rf"])
    fitted = members.fit()
    assert "neighbours_mean" in fitted.covariates
    new = fitted.with_neighbours(frame.drop(columns="obs").rename(columns={"day": "time"}), site="station")
    assert np.isfinite(fitted.predict(new)["xgb"]).all()


@pytest.mark.parametrize(("options", "words"), [
    ({"time": None}, "neighbours need the site and the time of every row, and the table has no 'time'"),
    ({"neighbours": "yes"}, "neighbours is 'yes'; wanted True, or be.Neighbours"),
    ({"neighbours": None, "neighbour_features": True}, "neighbour_features=True needs neighbours=True"),
    ({"neighbours": Neighbours(leave_out="group"), "group": None}, "needs the group of every row"),
    ({"neighbours": Neighbours(trend=("dem",))}, "no column 'dem' among the covariates, where the trend looks|dem"),
])  # fmt: skip
def test_refused(options, words):
    frame = world(days=5)
    given = {
        "site": frame["station"],
        "group": frame["net"],
        "time": frame["day"],
        "products": ["rf"],
        "neighbours": FIXED,
    }
    with pytest.raises((TypeError, ValueError, KeyError), match=words):
        be.Members({}, frame[["rf", "x", "y"]], frame["obs"], **given | options)


def test_grids_without_a_day_or_a_place_are_refused():
    fitted = members_of(world(days=5)).fit()
    with pytest.raises(KeyError, match="neighbours need the time of every cell"):
        fitted.with_neighbours(xr.Dataset(coords={"y": [0.0], "x": [1.0]}))
    with pytest.raises(KeyError, match="neighbours need the x of every row, as their stations have it"):
        fitted.with_neighbours(pd.DataFrame({"time": ["2020-01-01"], "y": [0.0]}))
    with pytest.raises(ValueError, match="these members have no neighbours"):
        members_of(world(days=5), None).fit().with_neighbours(pd.DataFrame({"time": ["2020-01-01"]}))


@pytest.mark.parametrize("seed", [0, 3])
def test_where_neighbours_tell_nothing_they_cost_next_to_nothing(seed):
    """Stations that have nothing in common: measured in four worlds, the CRPS changes by -.04 to .20 % (auto, and by EM)."""
    rng, stations, days = np.random.default_rng(seed), 20, 80
    y = 0.5 * rng.normal(size=stations) + rng.normal(size=(days, stations))
    xy = rng.uniform(0, 100, (stations, 2))
    frame = pd.DataFrame({"station": np.tile([f"s{k:02d}" for k in range(stations)], days), "x": np.tile(xy[:, 0], days),
                          "y": np.tile(xy[:, 1], days), "obs": y.ravel()})  # fmt: skip
    for name, error in (("a", 0.5), ("b", 0.7)):
        frame[name] = 0.8 * frame["obs"] + error * rng.normal(size=len(frame))
    members = be.Members({}, frame[["a", "b"]], frame["obs"], site=frame["station"], time=np.repeat(np.arange(days), stations),
                         products=["a", "b"], places=frame[["x", "y"]], neighbours=True)  # fmt: skip
    model = be.BMA(site=False, group=False)
    rows = be.compare({"without": be.OnMembers(model, ("a", "b")), "with": model}, members, estimand="site", method="em",
                      random_seed=1, progressbar=False)  # fmt: skip
    crps = rows["crps"].mean("obs")
    assert crps.sel(model="with") < 1.005 * crps.sel(model="without")
