"""Folds by place where rows are held out: compare, cross_fit and what they say of the map."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import wasserstein_distance
from sklearn.linear_model import LinearRegression

import bayesens as be
from bayesens.comparison.folds.held_out_rows import splits
from bayesens.ensemble.places import RowPlaces
from shared_data import shared_data

CELLS = pd.DataFrame(np.stack(np.meshgrid(np.linspace(0, 60, 13), np.linspace(0, 60, 13)), -1).reshape(-1, 2),
                     columns=["x", "y"])  # fmt: skip


def rows(n_times=6, seed=1, names=("x", "y")):
    """Ten pairs of stations in a plane 60 wide."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(5.0, 55.0, (10, 2))
    at = np.repeat(np.repeat(center, 2, axis=0) + rng.normal(size=(20, 2)), n_times, axis=0)
    frame = pd.DataFrame(
        {names[0]: at[:, 0], names[1]: at[:, 1], "site": np.repeat([f"s{i:02d}" for i in range(20)], n_times)}
    )
    frame["time"] = np.tile(pd.date_range("2020-01-01", periods=n_times), 20)
    frame["sm"] = 0.3 + 0.02 * np.sin(at[:, 0] / 9) + rng.normal(scale=0.02, size=len(frame))
    return frame.assign(
        rf=frame.sm + rng.normal(scale=0.02, size=len(frame)), mlr=frame.sm + rng.normal(scale=0.03, size=len(frame))
    )


def table(frame, **more):
    return be.Ensemble.from_frame(
        frame, members=["rf", "mlr"], observation="sm", site="site", time="time", **({"covariates": ["x", "y"]} | more)
    )


def columns(frame):
    places = RowPlaces(("x", "y"), (frame["x"].to_numpy(), frame["y"].to_numpy()))
    return {"site": frame["site"].to_numpy(dtype=str), "group": None, "time": frame["time"].to_numpy(), "places": places,
            "observed": frame["sm"].notna().to_numpy()}  # fmt: skip


@pytest.mark.parametrize("estimand", ["site", "site-time"])
@pytest.mark.parametrize("folds", ["knndm", "blocks 4", 5])
def test_folds_by_place_hold_every_row_out_once_and_keep_the_buffer(estimand, folds):
    frame = rows()
    parts = splits(estimand, folds=folds, map_points=CELLS, buffer=1.5, random_seed=1, **columns(frame))
    assert (np.sum([part.test for part in parts], axis=0) == 1).all()
    at = frame[["x", "y"]].to_numpy()
    for part in parts:
        apart = np.hypot(*(at[part.train][:, None] - at[part.test][None]).transpose(2, 0, 1))
        assert apart.min() >= 1.5
        assert not set(frame["site"][part.train]) & set(frame["site"][part.test])
        # And no more is left out than the buffer asks for.
        plain = splits(estimand, folds=folds, map_points=CELLS, random_seed=1, **columns(frame))
        whole = next(one for one in plain if (one.test == part.test).all())
        near = np.hypot(*(at[:, None] - at[part.test][None]).transpose(2, 0, 1)).min(axis=1) < 1.5
        assert (part.train == (whole.train & ~near)).all()


def test_distances_are_those_of_all_pairs_and_the_buffer_lengthens_them():
    frame = rows()
    ensemble = table(frame)
    site = frame.groupby("site")[["x", "y"]].first()
    at = site.to_numpy()
    pair = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
    away = np.hypot(*(CELLS.to_numpy()[:, None] - at[None]).transpose(2, 0, 1)).min(axis=1)
    found = be.fold_distances(ensemble, map_points=CELLS, folds="knndm")
    fold = found["fold"].values
    held = np.where(fold[:, None] != fold[None, :], pair, np.inf).min(axis=1)
    own = (pair + np.diag(np.full(20, np.inf))).min(axis=1)
    assert found["station"].values.tolist() == site.index.tolist()
    assert np.allclose(found["held_out_to_training"], held)
    assert np.allclose(found["station_to_station"], own)
    assert np.allclose(np.sort(found["map_to_station"]), np.sort(away))
    assert np.allclose(found["wasserstein"], [wasserstein_distance(own, away), wasserstein_distance(held, away)])
    assert found["wasserstein"].values[1] < found["wasserstein"].values[0]
    again = be.fold_distances(ensemble, map_points=CELLS, folds=found["fold"].values.repeat(6))
    assert again["held_out_to_training"].equals(found["held_out_to_training"])
    far = be.fold_distances(ensemble, map_points=CELLS, folds=5, buffer=5.0)
    assert far["held_out_to_training"].min() >= 5.0


def test_only_stations_with_observations_count():
    frame = rows()
    frame.loc[frame["site"].isin(["s00", "s07"]), "sm"] = np.nan
    found = be.fold_distances(table(frame), map_points=CELLS, folds="knndm")
    assert found.sizes["station"] == 18
    assert sorted(set(found["fold"].values)) == [0, 1, 2, 3, 4]


def test_a_warning_says_by_how_much_held_out_sites_are_too_near():
    ensemble = table(rows())
    text = r"held-out sites are much nearer .*: median [12]\.\d+ against 8\.\d+ units of x and y.* Try folds='knndm', fewer"
    with pytest.warns(UserWarning, match=text):
        be.fold_distances(ensemble, map_points=CELLS, folds=5)
    models = {"RF": be.SingleMember(member="rf")}
    with pytest.warns(UserWarning, match=text):
        be.compare(models, ensemble, estimand="site", map_points=CELLS, method="em", progressbar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        be.compare(models, ensemble, estimand="site", folds="knndm", map_points=CELLS, method="em", progressbar=False)
        be.compare(models, ensemble, estimand="time", map_points=CELLS, method="em", progressbar=False)


def test_places_come_from_where_the_table_has_them():
    """Degrees, covariates of the ensemble, covariates of the members, or columns given beside."""
    frame = rows()
    fold = be.fold_distances(table(frame), map_points=CELLS, folds="knndm")["fold"].values.tolist()
    bare = table(frame, covariates=[])
    given = be.fold_distances(bare, map_points=CELLS, folds="knndm", places=frame[["x", "y"]])
    assert given["fold"].values.tolist() == fold
    members = be.Members(
        {"mlr": LinearRegression()}, frame[["rf", "x", "y", "site", "time"]], frame.sm, site="site", time="time"
    )
    assert be.fold_distances(members, map_points=CELLS, folds="knndm")["fold"].values.tolist() == fold
    with pytest.raises(
        ValueError, match="fold_distances needs the place of every site, and the table has none; name its col"
    ):
        be.fold_distances(bare, map_points=CELLS)
    degrees = rows(names=("lon", "lat"))
    found = be.fold_distances(table(degrees, lon="lon", lat="lat", covariates=[]), folds="knndm",
                              map_points=CELLS.rename(columns={"x": "longitude", "y": "latitude"}))  # fmt: skip
    assert found["map_to_station"].attrs["units"] == "km"
    assert found["map_to_station"].median() > 500  # degrees are a hundred km long


@pytest.mark.slow
def test_members_are_cross_fitted_by_folds_by_place(tmp_path):
    frame = rows()
    members = be.Members(
        {"mlr": LinearRegression()}, frame[["rf", "x", "y", "site", "time"]], frame.sm, site="site", time="time"
    )
    by_place = {"map_points": CELLS, "progressbar": False, "random_seed": 1}
    crossed = be.cross_fit(members, folds="knndm", buffer=1.0, **by_place)
    assert (
        crossed.dataset["prediction"].attrs["trained"] == "cross-fitted, 5 folds by site, distances matched to the map"
    )
    by_site = pd.Series(crossed.dataset["fold"].values).groupby(frame["site"]).nunique()
    assert (by_site == 1).all()
    with pytest.warns(
        UserWarning, match="held-out sites are much nearer to training sites than the map is to its stations"
    ):
        be.cross_fit(members, folds=5, **by_place)
    with pytest.warns(UserWarning, match="held-out sites are much nearer"):
        be.cross_fit(members, scheme=np.arange(120) % 4, **by_place)
    with pytest.raises(
        ValueError, match="map_points is about sites that are held out, and scheme='time' holds out none"
    ):
        be.cross_fit(members, scheme="time", **by_place)
    blocks = be.cross_fit(members, folds="blocks 3", progressbar=False)
    assert set(blocks.dataset["fold"].values) == {0, 1, 2}
    options = {
        "estimand": "site",
        "folds": "knndm",
        "inner_folds": "knndm 4",
        "method": "em",
        "cache": tmp_path,
        **by_place,
    }
    once = be.compare({"RF": be.BMA()}, members, **options)
    assert be.compare({"RF": be.BMA()}, members, **options).identical(once)  # as it was kept
    plain = be.compare({"RF": be.BMA()}, members, **(options | {"inner_folds": 4}))
    assert (plain["fold"] == once["fold"]).all()
    assert abs(plain["crps"] - once["crps"]).max() > 0  # the models have learnt from other members


def test_a_buffer_leaves_rows_out_of_the_training_of_members():
    frame = rows()
    members = be.Members(
        {"mlr": LinearRegression()}, frame[["rf", "x", "y", "site", "time"]], frame.sm, site="site", time="time"
    )
    far = be.cross_fit(members, folds=5, buffer=3.0, progressbar=False)
    held = (far.dataset["fold"] == 0).values
    at = frame[["x", "y"]].to_numpy()
    near = np.hypot(*(at[:, None] - at[held][None]).transpose(2, 0, 1)).min(axis=1) < 3.0
    X = frame[["rf", "x", "y"]]
    fit = LinearRegression().fit(X[~near], frame["sm"][~near])
    assert np.allclose(far.prediction[held, 0], fit.predict(X[held]))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"estimand": "time", "folds": "knndm"}, "folds='knndm' deals sites, for the estimands 'site' and 'site-time'"),
        ({"estimand": "row", "folds": "blocks 3"}, "folds='blocks 3' deals sites.*for 'row'"),
        ({"estimand": "time", "buffer": 3.0}, "buffer=3.0 goes with the estimands 'site', 'site-time' and 'group'"),
        ({"estimand": "site", "folds": 4, "buffer": 500.0},
         r"fold 1 of 4: buffer=500 leaves no observed row to learn from; 15 sites are not held out, and the one furthest from "
         r"those held out is [\d.]+ units of x and y away: wanted a smaller buffer"),
        ({"estimand": "site", "folds": "knndm 21", "map_points": CELLS}, "21 folds of 20 sites with observations"),
        ({"estimand": "site", "folds": "knndm"}, "no map is given; pass its cells, map_points=grid"),
        ({"estimand": "site", "folds": "blocks", "buffer": -1}, "buffer is -1; wanted a length above zero"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(options, text):
    with pytest.raises(ValueError, match=text):
        splits(**options, **columns(rows()))


def test_cross_fit_refuses_what_does_not_go_together():
    frame = rows()
    members = be.Members({"mlr": LinearRegression()}, frame[["rf", "site", "time"]], frame.sm, site="site", time="time")
    with pytest.raises(ValueError, match="folds='knndm' goes with scheme='site' only"):
        be.cross_fit(members, folds="knndm", scheme="time", progressbar=False)
    with pytest.raises(ValueError, match="buffer is about sites that are held out, and scheme='row' holds out none"):
        be.cross_fit(members, buffer=2, scheme="row", progressbar=False)
    with pytest.raises(ValueError, match="gap='2D' goes with scheme='time' only"):
        be.cross_fit(members, folds="blocks", gap="2D", progressbar=False)
    with pytest.raises(ValueError, match="folds='blocks' needs the place of every site, and the table has none"):
        be.cross_fit(members, folds="blocks", progressbar=False)
    with pytest.raises(ValueError, match="inner_folds is 'blocks'; wanted a number here"):
        be.sensitivity.fewer_stations({"RF": be.BMA()}, members, shares=[0.2], inner_folds="blocks")


def test_the_folds_of_oznet_are_the_furthest_that_its_stations_allow():
    """Medians [km] of 4 folds: held-out stations 1.9 at random and 16.6 matched, cells of the map 30.9."""
    frame = pd.read_csv(
        shared_data("oznet", "oznet_daily.csv.gz"), usecols=["station", "lon", "lat", "time", "insitu_sm"]
    )
    frame = frame[~frame["station"].isin(["y8", "y9"]) & frame["time"].str.endswith("-15")].dropna()
    ensemble = be.Ensemble.from_frame(frame.assign(none=0.2), members=["none"], observation="insitu_sm", site="station",
                                      time="time", lon="lon", lat="lat")  # fmt: skip
    grid = xr.open_dataset(shared_data("oznet", "grid_20160205_1km.nc"))
    found = be.fold_distances(ensemble, map_points=grid, folds="knndm 4")
    assert float(found["held_out_to_training"].median()) == pytest.approx(16.6, abs=0.1)
    with pytest.warns(UserWarning, match=r"median 1.\d+ against 3\d(\.\d)? km"):
        be.fold_distances(ensemble, map_points=grid, folds=4)
