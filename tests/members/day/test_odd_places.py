"""Odd times and places of new rows and grids for neighbours: what is refused, and what is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from day_tables import members, said, table

import bayesens as be

# Of new rows and grids ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    return members(table()).fit(progressbar=False)


def cells(fitted, time, **more):
    return fitted.with_neighbours(xr.Dataset(more, {"time": time, "y": [50.0], "x": [20.0]}))[
        "neighbours"
    ].values.ravel()


def rows(fitted, **columns):
    return fitted.with_neighbours(pd.DataFrame({"x": [20.0, 20.0], "y": [50.0, 50.0]} | columns))[
        "neighbours"
    ].to_numpy()


DAYS = np.array(["2020-01-03", "2020-01-04"], dtype="datetime64[ns]")


@pytest.mark.parametrize("time", [
    DAYS.astype("datetime64[s]"), DAYS.astype("datetime64[D]"), np.array(["2020-01-03", "2020-01-04"]),
    np.array([20200103, 20200104]), xr.date_range("2020-01-03", periods=2, use_cftime=True).values,
], ids=["seconds", "days", "text", "numbers", "cftime"])  # fmt: skip
def test_times_of_any_writing_are_the_same_days(fitted, time):
    np.testing.assert_array_equal(cells(fitted, time), cells(fitted, DAYS))


@pytest.mark.parametrize("time", [
    DAYS.astype("datetime64[s]"), ["2020-01-03", "2020-01-04"], [20200103, 20200104], pd.DatetimeIndex(DAYS, tz="UTC"),
    pd.PeriodIndex(DAYS, freq="D"), pd.DatetimeIndex(DAYS).tz_localize("UTC").tz_convert("Australia/Sydney"),
], ids=["seconds", "text", "numbers", "utc", "periods", "sydney"])  # fmt: skip
def test_times_of_rows_of_any_writing_are_the_same_days(fitted, time):
    np.testing.assert_array_equal(rows(fitted, time=time), rows(fitted, time=DAYS))


@pytest.mark.parametrize("time", [DAYS + np.timedelta64(12, "h"), np.array([3, 4]), DAYS + np.timedelta64(3650, "D")],
                         ids=["noon", "numbers", "other years"])  # fmt: skip
def test_times_that_no_station_has_are_told_of(fitted, time):
    words = "no station has an observation at any of the times of {}, .*those of the stations: 2020-01-01 00:00:00 to 2020-01-12"
    with pytest.warns(UserWarning, match=words.format("the grid")):
        assert np.isnan(cells(fitted, time)).all()
    with pytest.warns(UserWarning, match=words.format("X")):
        assert np.isnan(rows(fitted, time=time)).all()


def test_one_strange_time_is_missing_alone(fitted):
    time = np.append(DAYS[:1], DAYS[:1] + np.timedelta64(3650, "D"))
    assert np.isnan(cells(fitted, time)).tolist() == np.isnan(rows(fitted, time=time)).tolist() == [False, True]
    assert np.isnan(rows(fitted, time=[DAYS[0], None])).tolist() == [False, True]


def test_integer_times():
    frame = table()
    steps = frame.assign(time=(frame["time"] - frame["time"].min()).dt.days)
    np.testing.assert_allclose(said(steps), said(frame), rtol=1e-10)
    fitted = members(steps).fit(progressbar=False)
    np.testing.assert_array_equal(cells(fitted, [2, 3]), cells(fitted, [2.0, 3.0]))
    with pytest.warns(UserWarning, match=r"at any of the times of the grid, 2020-.* .those of the stations: 0 to 11"):
        cells(fitted, DAYS)


def test_a_row_at_a_station_s_place_is_told_of_it_unless_it_is_that_station(fitted):
    frame = table()
    new = frame[frame["site"] == "s0"].iloc[2:4].drop(columns="site")
    with pytest.warns(
        UserWarning, match=r"2 row.s. of X lie at the very place of a station .*; give site=... to leave a row's"
    ):
        second = fitted.with_neighbours(new)
    own = fitted.with_neighbours(new.assign(name="s0"), site="name")
    assert (second["neighbours_sd"] < own["neighbours_sd"]).all()
    assert (second["neighbours_distance"] == 0.0).all()
    assert (own["neighbours_distance"] > 1.0).all()
    np.testing.assert_allclose(own["neighbours"], said(frame)[frame["site"] == "s0", 0][2:4], rtol=1e-9)
    some = fitted.with_neighbours(new.assign(name=["s0", None], x=[new["x"].iloc[0], 1.0]), site="name")
    assert np.isfinite(some["neighbours"]).all()
    none = new.assign(name=[None, ""], x=[1.0, 9.0])  # two places
    pd.testing.assert_frame_equal(fitted.with_neighbours(none, site="name"), fitted.with_neighbours(none))


def test_a_station_may_be_called_row_0():
    frame = table()
    named = members(frame.assign(site=frame["site"].replace("s0", "row 0"))).fit(progressbar=False)
    new = pd.DataFrame({"time": DAYS, "x": [1.0, 1.0], "y": [2.0, 2.0]})
    wanted = members(frame).fit(progressbar=False).with_neighbours(new)
    pd.testing.assert_frame_equal(named.with_neighbours(new), wanted, rtol=1e-6)


def test_other_units_and_places_far_off_are_told_of(fitted):
    new = pd.DataFrame({"time": DAYS, "x": [20e3, 80e3], "y": [50e3, 10e3]})
    with pytest.warns(
        UserWarning, match=r"of X goes from .*, and that of the stations from .*; check the unit and the proj"
    ):
        far = fitted.with_neighbours(new)
    with pytest.warns(UserWarning, match="x of the grid goes from 20000 to 80000, and that of the stations"):
        grid = fitted.with_neighbours(xr.Dataset(coords={"time": DAYS, "y": [50.0], "x": [20e3, 80e3]}))
    total = sum(fitted.neighbours.variance.values()) ** 0.5
    assert (far["neighbours_sd"] < total + fitted.neighbours.model.unit).all()
    np.testing.assert_allclose(grid["neighbours"].isel(x=0, y=0), far["neighbours"], rtol=1e-6)


def test_a_station_far_off_is_told_the_day():
    frame = table()
    far = frame.assign(x=frame["x"].where(frame["site"] != "s2", 1e5))
    own = said(far)
    assert np.isfinite(own).all()
    alone = (frame["site"] == "s2").to_numpy()
    day = frame[~alone].groupby("time")["obs"].mean().to_numpy()
    assert np.corrcoef(own[alone, 0], day)[0, 1] > 0.99


def test_places_that_are_missing_or_contradict_a_station(fitted):
    with pytest.raises(
        ValueError, match=r"1 of 2 rows of X have no x or y .first: row 1; counted from 0.; .*complete the col"
    ):
        rows(fitted, time=DAYS, x=[1.0, np.nan])
    with pytest.raises(ValueError, match=r"1 of 5 sites move: 's0' .*neighbours need one place a site"):
        fitted.with_neighbours(pd.DataFrame({"time": DAYS[:1], "x": [1.0], "y": [2.0], "name": ["s0"]}), site="name")
    curved = xr.Dataset(coords={"time": DAYS, "y": ("cell", [50.0, np.nan]), "x": ("cell", [20.0, 3.0])})
    assert np.isnan(fitted.with_neighbours(curved)["neighbours"]).values.tolist() == [[False, True]] * 2


def test_columns_that_new_tables_lack_are_named():
    frame = table()
    frame["dem"] = frame["x"]
    fitted = members(frame, ("x", "y", "dem"), be.Neighbours(transform="identity", trend=("dem",))).fit(
        progressbar=False
    )
    with pytest.raises(KeyError, match=r"need the dem of every row, .* X has no column 'dem'; add the column"):
        rows(fitted, time=DAYS)
    with pytest.raises(
        KeyError, match=r"need the dem of every cell, .* no variable 'dem'; give the grid a variable of that name"
    ):
        cells(fitted, DAYS)
    mean = frame["dem"].mean()  # what stands in for a missing one
    np.testing.assert_allclose(rows(fitted, time=DAYS, dem=np.nan), rows(fitted, time=DAYS, dem=mean), rtol=1e-9)


def test_maps_of_days_that_nobody_observed_say_why(fitted):
    frame = table(stations=6, days=30)
    given = members(frame)
    made = be.cross_fit(given, folds=3, random_seed=1, progressbar=False)
    trees = [be.fit(be.BMA(site=False, group=False), one, method="em") for one in (made, made.select(members=["rf"]))]
    noon = DAYS + np.timedelta64(12, "h")
    grid = xr.Dataset({"rf": (("time", "y", "x"), np.zeros((2, 1, 1)))}, {"time": noon, "y": [50.0], "x": [20.0]})
    with pytest.warns(UserWarning, match="at any of the times of the grid, 2020-01-03 12:00:00 to") as told:
        be.map(given.fit(progressbar=False), trees[0], grid, without=trees[1], progressbar=False)
    assert len(told) == 1


def test_widths_without_coordinates_have_nothing_to_follow():
    with pytest.warns(UserWarning, match="neighbours have no coordinates"):
        given = members(table(stations=6, days=30), covariates=())
    made = be.cross_fit(given, folds=3, random_seed=1, progressbar=False)
    with pytest.raises(ValueError, match=r"Covariate 'neighbours_sd' is .* leave it out of scale"):
        be.fit(be.BMA(site=False, group=False, scale=("neighbours_sd",)), made, method="em")


def test_widths_that_follow_neighbours(fitted):
    frame = table(stations=6, days=30)
    gaps = frame["obs"].where(np.random.default_rng(1).random(len(frame)) < 0.7)
    made = be.cross_fit(members(frame.assign(obs=gaps)), folds=3, random_seed=1, progressbar=False)
    model = be.BMA(site=False, group=False, scale=("neighbours_sd",))
    tree = be.fit(model, made, method="em")
    plain = made.dataset.copy(deep=True)
    at = list(made.covariates).index("neighbours_sd")
    plain["covariate"].values[0, at] = np.nan  # missing at prediction: as wide as rows are on average
    assert np.isfinite(be.predict(tree, be.Ensemble(plain))["sd"]).all()
    plain["covariate"].values[:, at] = 0.5
    with pytest.raises(ValueError, match=r"Covariate 'neighbours_sd' is 0.5 in all .* leave it out of scale"):
        be.fit(model, be.Ensemble(plain), method="em")
