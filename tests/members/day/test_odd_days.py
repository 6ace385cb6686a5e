"""Odd tables, places and times for neighbours: what is refused, what is said, and what changes nothing."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import bayesens as be

IDENTITY = be.Neighbours(transform="identity")
NO_PLACE = "neighbours have no coordinates: the mean of each day is all that they tell, .* give lon=.* or coordinates in a plane, places="


def table(seed=1, stations=5, days=12):
    """Stations in a plane on the same days."""
    rng = np.random.default_rng(seed)
    xy, day = rng.uniform(0.0, 100.0, (stations, 2)), rng.normal(size=days)
    y = day[:, None] + 0.3 * rng.normal(size=stations) + 0.4 * rng.normal(size=(days, stations))
    return pd.DataFrame({
        "site": np.tile([f"s{k}" for k in range(stations)], days), "x": np.tile(xy[:, 0], days), "y": np.tile(xy[:, 1], days),
        "time": np.repeat(pd.date_range("2020-01-01", periods=days), stations), "obs": y.ravel(),
        "rf": (y + rng.normal(size=y.shape)).ravel(),
    })  # fmt: skip


def ensemble(frame, covariates=("x", "y"), **options):
    roles = {"members": ["rf"], "observation": "obs", "site": "site", "time": "time", "covariates": list(covariates)}
    return be.Ensemble.from_frame(frame, **roles | options)


def members(frame, covariates=("x", "y"), neighbours=IDENTITY, **options):
    return be.Members({}, frame[["rf", *covariates]], frame["obs"], site=frame["site"], time=frame["time"], products=["rf"],
                      neighbours=neighbours, **options)  # fmt: skip


def said(frame, model=IDENTITY, **options):
    """The member, its standard deviation and the distance, in columns."""
    made = be.neighbours(ensemble(frame, **options), model).dataset
    beside = made["covariate"].sel(covariate_name=["neighbours_sd", "neighbours_distance"])
    return np.column_stack([made["prediction"].sel(member="neighbours").values, beside.values])


def both_doors(frame, covariates=("x", "y"), model=IDENTITY):
    """`be.neighbours`, then the members that are to be trained."""
    yield lambda: be.neighbours(ensemble(frame, covariates), model)
    yield lambda: be.cross_fit(members(frame, covariates, model), folds=3, random_seed=1, progressbar=False)


# Of the training table ------------------------------------------------------------------------------------------------


def test_without_coordinates_the_day_is_all_and_it_is_said_once():
    frame = table()
    models = {"BMA": be.BMA(site=False, group=False)}
    with pytest.warns(UserWarning, match=NO_PLACE):
        given = members(frame, covariates=())
    # A second warning would be an error here.
    be.compare(models, given, estimand="site", folds=3, inner_folds=2, method="em", random_seed=1, progressbar=False)
    fitted = given.fit(progressbar=False)
    grid = fitted.with_neighbours(xr.Dataset(coords={"time": frame["time"].unique()[:2], "y": [0.0], "x": [1.0, 9.0]}))
    assert grid["neighbours"].dims == ("time",)
    with pytest.warns(UserWarning, match=NO_PLACE):
        own = said(frame, covariates=())
    assert np.isnan(own[:, 2]).all()
    assert np.ptp(own[:, 1]) < 1e-9


def test_coordinates_that_cross_fit_is_given_are_those_of_neighbours_too():
    frame = table()
    columns = {"site": frame["site"], "time": frame["time"], "products": ["rf"], "neighbours": IDENTITY}
    made = be.cross_fit({}, frame[["rf"]], frame["obs"], places=frame[["x", "y"]], folds=3, random_seed=1, progressbar=False,
                        **columns)  # fmt: skip
    wanted = be.cross_fit(members(frame), folds=3, random_seed=1, progressbar=False)
    np.testing.assert_array_equal(made.prediction, wanted.prediction)


@pytest.mark.parametrize(("change", "words"), [
    (lambda f: f[f["site"] == "s0"].assign(x=f["rf"][f["site"] == "s0"] * 0 + 1.0), "neighbours have 1 station.s. with obs"),
    (lambda f: f.assign(obs=2.0), "the observations that neighbours may learn from are 2 in all 60 rows of 5 station"),
    (lambda f: f.assign(obs=0.1 + 0.2), "are 0.3 in all 60 rows"),
    (lambda f: f.assign(x=f["x"].where(f["site"] != "s1")), "1 of 5 sites have no x or y in any row: 's1'; neighbours need"),
    (lambda f: f.assign(x=f["x"].where(f.index > 4, 0.0)), "5 of 5 sites move.*neighbours need one place a site"),
])  # fmt: skip
def test_tables_that_are_refused(change, words):
    frame = change(table())
    for door in both_doors(frame):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="covariate.* constant in")
            with pytest.raises(ValueError, match=words):
                door()


def test_constant_observations_leave_no_warning_of_numpy():
    with pytest.raises(ValueError, match="are 0 in all 60 rows"):
        be.neighbours(ensemble(table().assign(obs=0.0)))  # the transform is chosen after


def test_observations_without_any_noise_are_refused():
    frame = table()
    level = frame["time"].dt.day + frame["site"].str[1:].astype(float)
    with pytest.raises(ValueError, match=r"Neighbours has no optimum on these rows: .* leave copies out"):
        be.neighbours(ensemble(frame.assign(obs=level)))


def test_all_stations_at_one_place_are_one_another_s_twins():
    frame = table().assign(x=3.0, y=4.0)
    own = said(frame)
    day = frame.groupby("time")["obs"].transform("mean")
    assert np.corrcoef(own[:, 0], day)[0, 1] > 0.95
    assert (own[:, 2] == 0.0).all()


def test_two_stations_of_one_place_ask_each_other():
    frame = table()
    first = frame[frame["site"] == "s0"][["x", "y"]].to_numpy()[0]
    frame.loc[frame["site"] == "s1", ["x", "y"]] = first
    own, beyond = said(frame), said(frame, be.Neighbours(transform="identity", buffer=1.0))
    twins = frame["site"].isin(["s0", "s1"]).to_numpy()
    assert (own[twins, 2] == 0.0).all()
    assert (beyond[twins, 2] > 1.0).all()
    assert (own[twins, 1] < beyond[twins, 1]).all()


@pytest.mark.parametrize("shift", [5e6, 90.0])
def test_lengths_given_as_degrees_are_refused(shift):
    frame = table().rename(columns={"x": "lon", "y": "lat"})
    frame["lat"] += shift
    with pytest.raises(ValueError, match=r"lat of the table is .*; wanted degrees from -90 to 90: "):
        be.neighbours(ensemble(frame, (), lon="lon", lat="lat"), IDENTITY)
    with pytest.raises(ValueError, match=r"lat of the table is .*; wanted degrees from -90 to 90: "):
        members(frame, (), lon=frame["lon"], lat=frame["lat"]).fit(progressbar=False)


def test_days_with_one_observation_tell_others_and_are_told_nothing():
    frame = table()
    alone = frame["time"].lt("2020-01-06")
    frame["obs"] = frame["obs"].where(~alone | (frame["site"] == "s0"))
    own = said(frame)
    single = (alone & (frame["site"] == "s0")).to_numpy()
    assert np.isnan(own[single, 2]).all()
    assert np.ptp(own[single, 0]) < 1e-9
    others = (alone & (frame["site"] != "s0")).to_numpy()
    assert np.isfinite(own[others]).all()
    assert np.ptp(own[others & (frame["site"] == "s1").to_numpy(), 0]) > 0.1


def test_stations_that_never_meet_are_told_of():
    frame = table(stations=5, days=10)
    frame["time"] += pd.to_timedelta(frame["site"].str[1:].astype(int), unit="h")
    for door in both_doors(frame):
        with pytest.warns(
            UserWarning, match=r"no two of the 5 stations have an observation at the same time .2020-01-01 00"
        ):
            door()


def test_repeated_rows_count_by_their_mean():
    frame = table()
    repeated = pd.concat(
        [frame.assign(obs=frame["obs"] - 0.2), frame.assign(obs=frame["obs"] + 0.2)], ignore_index=True
    )
    with pytest.warns(UserWarning, match="repeat the site and time"):
        own = said(repeated)
    np.testing.assert_allclose(own, np.tile(said(frame), (2, 1)), rtol=1e-6)


@pytest.mark.parametrize(("transform", "words"), [
    ("log", r"has 1 of 60 values not above 0, which transform='log' cannot take: row 7 .*transform='identity'"),
    ("sqrt", r"has 1 of 60 values below 0, which transform='sqrt' cannot take: row 7 .*transform='identity'"),
])  # fmt: skip
def test_observations_below_the_transform_are_told_by_row(transform, words):
    frame = table()
    frame["obs"] = np.exp(frame["obs"])
    frame.loc[7, "obs"] = -0.1
    for door in both_doors(frame, model=be.Neighbours(transform=transform)):
        with pytest.raises(ValueError, match=words):
            door()
    assert np.isfinite(said(frame, be.Neighbours())).all()


def test_zeros_are_taken_under_the_root():
    frame = table()
    frame["obs"] = np.maximum(frame["obs"], 0.0) ** 2
    own = said(frame, be.Neighbours(transform="sqrt"))
    assert np.isfinite(own).all()
    assert (own[:, 0] > 0.0).all()


@pytest.mark.parametrize("name", ["neighbours", "neighbours_sd", "neighbours_distance", "neighbours_mean"])
def test_names_of_theirs_are_refused(name):
    frame = table()
    frame[name] = frame["rf"]
    for door in both_doors(frame, ("x", "y", name)):
        with pytest.raises(
            ValueError, match=rf"column.s. '{name}' have a name that neighbours give to columns of theirs; rename"
        ):
            door()


def test_neighbours_are_not_put_beside_neighbours():
    made = be.neighbours(ensemble(table()), IDENTITY)
    with pytest.raises(ValueError, match="have a name that neighbours give to columns of theirs"):
        be.neighbours(made, IDENTITY)


@pytest.mark.parametrize(("dem", "words"), [
    (lambda f: 0.1, "column 'dem' of the trend is 0.1 wherever there is an observation: neighbours learn nothing"),
    (lambda f: f["x"].where(f["site"] != "s1"), "column 'dem' of the trend is missing at 1 station.s.: 's1'; the mean of"),
])  # fmt: skip
def test_poor_columns_of_a_trend_are_told_of(dem, words):
    frame = table()
    frame["dem"] = dem(frame)
    model = be.Neighbours(transform="identity", trend=("dem",))
    for door in both_doors(frame, ("x", "y", "dem"), model):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="covariate.* constant in")
            with pytest.warns(UserWarning, match=words):
                door()


def test_a_constant_trend_changes_nothing_here_or_elsewhere():
    frame = table().assign(dem=0.1)
    model = be.Neighbours(transform="identity", trend=("dem",))
    with pytest.warns(UserWarning, match=r"constant|wherever there is an observation"):
        fitted = members(frame, ("x", "y", "dem"), model).fit(progressbar=False)
    new = frame.iloc[:6].assign(x=1.0, y=2.0)
    plain = members(frame).fit(progressbar=False).with_neighbours(new)
    np.testing.assert_allclose(
        fitted.with_neighbours(new.assign(dem=0.2))["neighbours"], plain["neighbours"], rtol=1e-5
    )


def test_a_trend_without_numbers_is_refused():
    frame = table().assign(dem=np.nan)
    with pytest.raises(
        ValueError, match="column 'dem' of the trend is missing in all 60 rows with an observation; leave it"
    ):
        be.neighbours(ensemble(frame, ("x", "y", "dem")), be.Neighbours(trend=("dem",)))


def test_many_stations_of_three_days():
    frame = table(stations=120, days=3)
    own = said(frame)
    assert np.isfinite(own).all()
    assert np.corrcoef(own[:, 0], frame["obs"])[0, 1] > 0.3


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


# What changes nothing -------------------------------------------------------------------------------------------------

SEEDS = st.integers(0, 1000)
FEW = settings(max_examples=6, deadline=None)


@FEW
@given(SEEDS)
def test_order_of_rows_and_rows_without_observation_change_nothing(seed):
    frame = table(seed)
    order = np.random.default_rng(seed).permutation(len(frame))
    np.testing.assert_allclose(said(frame.iloc[order]), said(frame)[order], rtol=1e-6)
    more = table(seed + 1).assign(obs=np.nan, time=lambda t: t["time"] + pd.Timedelta("7D"))
    more["site"] = "new" + more["site"]
    both = pd.concat([frame, more], ignore_index=True)
    np.testing.assert_allclose(said(both)[: len(frame)], said(frame), rtol=1e-6)


@FEW
@given(SEEDS)
def test_names_of_stations_change_nothing(seed):
    frame = table(seed)
    names = dict(zip([f"s{k}" for k in range(5)], "dbeca", strict=True))
    np.testing.assert_allclose(said(frame.assign(site=frame["site"].map(names))), said(frame), rtol=1e-6, atol=1e-6)


@FEW
@given(SEEDS, st.floats(-1e3, 1e3), st.floats(0.01, 1e3))
def test_origin_and_unit_of_coordinates_change_nothing(seed, shift, unit):
    frame = table(seed)
    own, moved = said(frame), said(frame.assign(x=(frame["x"] + shift) * unit, y=(frame["y"] - shift) * unit))
    np.testing.assert_allclose(moved[:, :2], own[:, :2], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moved[:, 2], own[:, 2] * unit, rtol=1e-9)


@FEW
@given(SEEDS, st.sampled_from(["s", "ms", "us", "ns"]))
def test_unit_of_time_changes_nothing(seed, unit):
    frame = table(seed)
    np.testing.assert_array_equal(said(frame.assign(time=frame["time"].astype(f"datetime64[{unit}]"))), said(frame))
