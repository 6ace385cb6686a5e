"""Odd tables of stations for neighbours: what is refused, what is said, and what comes out of the rest."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from day_tables import IDENTITY, ensemble, members, said, table

import bayesens as be

NO_PLACE = "neighbours have no coordinates: the mean of each day is all that they tell, .* give lon=.* or coordinates in a plane"


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
    (lambda f: f[f["site"] == "s0"], "'s0' alone has observations, and neighbours tell a row of other"),
    (lambda f: f.assign(obs=2.0), "the observations that neighbours may learn from are 2 in all 60 rows of 5 station"),
    (lambda f: f.assign(obs=0.1 + 0.2), "are 0.3 in all 60 rows"),
    (lambda f: f.assign(x=f["x"].where(f["site"] != "s1")), "1 of 5 sites have no x or y in any row: 's1'; neighbours need"),
    (lambda f: f.assign(x=f["x"].where(f["site"] != "s1"), obs=f["obs"].where(f["site"] != "s1")), "1 of 5 sites have no x or y"),
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
    with pytest.raises(ValueError, match=r"Neighbours has no optimum on these rows: .* leave copies out$"):
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


def test_a_station_under_two_names_is_named():
    frame = table()
    copy = frame[frame["site"] == "s0"].assign(site="twin")
    with pytest.raises(
        ValueError, match="leave copies out: 's0' and 'twin' have the same observations at all 12 times of both"
    ):
        be.neighbours(ensemble(pd.concat([frame, copy], ignore_index=True)), IDENTITY)


def test_stations_with_nobody_to_ask_are_refused_or_told_of():
    frame = table()
    far = frame.assign(x=frame["x"].where(frame["site"] != "s2", 1e4), net="n" + (frame["site"] == "s4").astype(str))
    for door in both_doors(far, model=be.Neighbours(transform="identity", buffer=2e4)):
        with pytest.raises(
            ValueError, match=r"Neighbours.buffer=20000. sets aside all other stations for each of the 5"
        ):
            door()
    line = table(stations=3).assign(y=0.0)
    line["x"] = line["site"].map({"s0": 0.0, "s1": 60.0, "s2": 100.0})
    for door in both_doors(line, ("x", "y"), be.Neighbours(transform="identity", buffer=65.0)):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="covariate.* constant in")
            with pytest.warns(
                UserWarning, match="1 of 3 stations have no other that may be asked: 's1'; .* a smaller buffer"
            ):
                door()
    groups = be.Neighbours(transform="identity", leave_out="group")
    with pytest.raises(ValueError, match=r"leave_out=.group.. sets aside all other stations for each of the 5"):
        be.neighbours(ensemble(far.assign(net="one"), group="net"), groups)
    with pytest.raises(ValueError, match=r"Neighbours.buffer=3. needs coordinates, and there are none; give lon"):
        be.neighbours(ensemble(frame, ()), be.Neighbours(transform="identity", buffer=3.0))
