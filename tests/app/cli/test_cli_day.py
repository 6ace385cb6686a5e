"""Commands with neighbours and with recalibration: what they write equals the Python calls, and what they refuse."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from commands import refused, run

import bayesens as be
from bayesens.app.study.data import study_data
from bayesens.app.study.file import read_study
from bayesens.comparison.folds.runs import OnMembers
from bayesens.members.day.fitted import FittedNeighbours

ROLES = {"observation": "sm", "site": "station", "time": "date", "lon": "lon", "lat": "lat"}
MEMBERS = ["rf", "mlr"]
COLUMNS = ["--members", "rf,mlr", *(word for role, name in ROLES.items() for word in (f"--{role}", name))]
EM = ["--method", "em"]
# The standard start's optimum is what --method em gives, whatever else there is.
pytestmark = [
    pytest.mark.filterwarnings("ignore:EM found"),
    pytest.mark.filterwarnings("ignore:.* that the fit has not"),
]


@pytest.fixture(scope="module")
def frame():
    made = be.simulate.region(n_sites=9, n_times=18, random_seed=1).frame
    return made[made["sm"].notna()].reset_index(drop=True)


@pytest.fixture(scope="module")
def parts(frame):
    """Rows to learn from; two stations that are new; what the other stations observed later."""
    new, late = frame["station"].isin(["s03", "s06"]), frame["date"] >= sorted(frame["date"].unique())[13]
    return frame[~new & ~late], frame[new], frame[~new & late]


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    place = tmp_path_factory.mktemp("day")
    for name, one in zip(("train", "new", "later"), parts, strict=True):
        one.to_csv(place / f"{name}.csv", index=False)
    parts[1][["date", "lon", "lat", *MEMBERS]].to_csv(place / "mute.csv", index=False)
    run("fit", place / "train.csv", *COLUMNS, "--neighbours", *EM, "--option", 'scale=["mean","neighbours_sd"]',
        "--out", place / "fit.nc")  # fmt: skip
    run("fit", place / "train.csv", *COLUMNS, *EM, "--out", place / "plain.nc")
    return place


@pytest.fixture(scope="module")
def members(parts):
    """The same in Python."""
    train = parts[0]
    return be.Members({}, train[MEMBERS], train["sm"], site=train["station"], time=train["date"], lon=train["lon"],
                      lat=train["lat"], products=MEMBERS, neighbours=True)  # fmt: skip


def ensemble(frame, members, **options):
    roles = {role: name for role, name in ROLES.items() if name in frame}
    return be.Ensemble.from_frame(frame, members=members, **roles, **options)


def test_predictions_of_new_stations_equal_the_library(folder, parts, members, tmp_path):
    tree = be.read_fit(folder / "fit.nc")
    own = be.fit(be.BMA(scale=("mean", "neighbours_sd")), be.neighbours(ensemble(parts[0], MEMBERS)), method="em")
    np.testing.assert_allclose(tree["posterior"]["weight"], own["posterior"]["weight"], rtol=1e-6)
    said = run("predict", folder / "fit.nc", folder / "new.csv", "--out", tmp_path / "p.csv").stderr
    assert "no other station has an observation: neighbours are missing there" in said
    made = pd.read_csv(tmp_path / "p.csv")
    new = members.fit(progressbar=False).with_neighbours(parts[1], site="station", time="date")
    np.testing.assert_allclose(made["neighbours"], new["neighbours"], rtol=1e-6)
    beside = ["neighbours_sd", "neighbours_distance"]
    expected = be.predict(own, ensemble(new, [*MEMBERS, "neighbours"], covariates=beside))
    np.testing.assert_allclose(made["mean"], expected["mean"], rtol=1e-5)
    np.testing.assert_allclose(made["sd"], expected["sd"], rtol=1e-4)


def test_later_days_are_told_by_a_table_of_observations(folder, parts, tmp_path):
    run("predict", folder / "fit.nc", folder / "new.csv", "--out", tmp_path / "without.csv")
    said = run("predict", folder / "fit.nc", folder / "new.csv", "--observations", folder / "later.csv", "--out",
               tmp_path / "with.csv").stderr  # fmt: skip
    assert "neighbours are missing" not in said
    without, told = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("without", "with"))
    late = without["neighbours"].isna()
    assert 0 < late.sum() < len(late)
    assert told["neighbours"].notna().all()
    # As if the fit had been told these days, but for the covariance, which is that of the first ones.
    tree = be.read_fit(folder / "fit.nc")
    first = FittedNeighbours.from_dataset(tree["neighbours"].to_dataset())
    whole = pd.concat([parts[0], parts[2]])
    again = be.Members({}, whole[MEMBERS], whole["sm"], site=whole["station"], time=whole["date"], lon=whole["lon"],
                       lat=whole["lat"], products=MEMBERS, neighbours=first.model).fit(progressbar=False)  # fmt: skip
    all_days = replace(first, table=again.neighbours.table)
    expected = replace(again, neighbours=all_days).with_neighbours(parts[1], site="station", time="date")
    np.testing.assert_allclose(told["neighbours"], expected["neighbours"], rtol=1e-6)
    np.testing.assert_allclose(told["neighbours_sd"], expected["neighbours_sd"], rtol=1e-6)


def test_a_station_s_own_observation_is_not_told_to_it(folder, parts, tmp_path):
    parts[1].to_csv(tmp_path / "own.csv", index=False)
    parts[1].assign(sm=parts[1]["sm"] + 5.0 * parts[1]["station"].eq("s03")).to_csv(
        tmp_path / "spiked.csv", index=False
    )
    made = []
    for name in ("own", "spiked"):
        said = run("predict", folder / "fit.nc", folder / "new.csv", "--observations", tmp_path / f"{name}.csv",
                   "--out", tmp_path / f"p-{name}.csv").stderr  # fmt: skip
        assert "each is predicted without its own station" in said
        made.append(pd.read_csv(tmp_path / f"p-{name}.csv").set_index("station")["mean"])
    np.testing.assert_allclose(made[0].loc["s03"], made[1].loc["s03"], rtol=1e-9)
    assert np.abs(made[0].loc["s06"] - made[1].loc["s06"]).max() > 0.1


@pytest.mark.slow
def test_scores_and_maps_interpolate_too(folder, parts, members, tmp_path):
    run("score", folder / "fit.nc", folder / "new.csv", "--out", tmp_path / "s.csv")
    new = members.fit(progressbar=False).with_neighbours(parts[1], site="station", time="date")
    rows = ensemble(new, [*MEMBERS, "neighbours"], covariates=["neighbours_sd", "neighbours_distance"])
    expected = be.score(be.read_fit(folder / "fit.nc"), rows)["crps"].mean().item()
    assert pd.read_csv(tmp_path / "s.csv")["crps"].item() == pytest.approx(expected, rel=1e-6)
    times = pd.to_datetime([min(members.rows.time)])
    grid = xr.Dataset({name: (("date", "lat", "lon"), np.full((1, 2, 3), 0.2)) for name in MEMBERS},
                      {"date": times, "lat": [50.0, 51.0], "lon": [10.0, 10.5, 11.0]})  # fmt: skip
    grid.to_netcdf(tmp_path / "grid.nc")
    run("map", folder / "fit.nc", tmp_path / "grid.nc", "--crs", "EPSG:4326", "--out", tmp_path / "maps.nc")
    tree = be.read_fit(folder / "fit.nc")
    expected = be.map(members.fit(progressbar=False), tree, grid, time="date", quantiles=[0.5], progressbar=False)
    np.testing.assert_allclose(xr.load_dataset(tmp_path / "maps.nc")["mean"], expected["mean"], rtol=1e-5)


def test_planar_places(folder, parts, tmp_path):
    """The same stations in kilometres of a plane: nearly the same neighbours."""
    for name, one in (("train", parts[0]), ("new", parts[1])):
        plane = one.assign(px=one["lon"] * 111.0 * np.cos(np.deg2rad(parts[0]["lat"].mean())), py=one["lat"] * 111.0)
        plane.drop(columns=["lon", "lat"]).to_csv(tmp_path / f"{name}.csv", index=False)
    run(
        "fit",
        tmp_path / "train.csv",
        *COLUMNS[:8],
        "--places",
        "px,py",
        "--neighbours",
        *EM,
        "--out",
        tmp_path / "fit.nc",
    )
    run("predict", tmp_path / "fit.nc", tmp_path / "new.csv", "--out", tmp_path / "plane.csv")
    run("predict", folder / "fit.nc", folder / "new.csv", "--out", tmp_path / "sphere.csv")
    plane, sphere = (pd.read_csv(tmp_path / f"{name}.csv")["neighbours"].dropna() for name in ("plane", "sphere"))
    assert np.abs(plane - sphere).max() < 0.1 * sphere.std()


@pytest.mark.parametrize(("arguments", "words"), [
    (["fit", "train.csv", *COLUMNS[:6], "--neighbours", *EM, "--out", "x.nc"],
     "neighbours need the site and the time of every row, and the table has no 'time': give --time, or leave neighbours out"),
    (["fit", "train.csv", *COLUMNS, "--places", "lon,lat", "--out", "x.nc"], "which neighbours alone ask here: --neighbours"),
    (["compare", "train.csv", *COLUMNS, "--neighbours", "--estimand", "time", *EM],
     "the estimand 'time' asks for days that nobody has observed; wanted 'site' or 'group'"),
    (["compare", "train.csv", *COLUMNS, "--neighbours", "--spread", "rf=svr", *EM], "leave it out, or --neighbours"),
    (["compare", "train.csv", *COLUMNS, "--ladder", "--option", "sigma=shared", *EM], "rungs of the ladder have options of"),
    (["compare", "train.csv", *COLUMNS, "--models", "bma", "--option", "sigmas=shared", *EM], "sigmas"),
    (["compare", "train.csv", *COLUMNS[:4], "--recalibrate", "beta", "--estimand", "time", "--time", "date", *EM],
     "recalibration learns from some sites and is tried at others, and the table has no site: name the column: --site"),
    (["compare", "new.csv", *COLUMNS, "--recalibrate", "beta", *EM], "and 2 of them have observations; wanted 3 at least"),
    (["predict", "plain.nc", "new.csv", "--observations", "later.csv", "--out", "x.csv"],
     "this one has none; fit with: bayesens fit TABLE --neighbours"),
    (["predict", "fit.nc", "new.csv", "--observations", "mute.csv", "--out", "x.csv"],
     "mute.csv has no column 'sm', 'station', observation and site of the fit"),
    (["map", "fit.nc", "grid.nc", "--members", ".", "--observations", "later.csv", "--out", "x.nc"], "leave one out"),
    (["init", "new.csv", "--members", "rf", "--observation", "sm", "--neighbours", "--out", "x.toml"], None),
])  # fmt: skip
def test_refused(folder, monkeypatch, arguments, words):
    monkeypatch.chdir(folder)
    if arguments[0] == "init":
        pd.read_csv("new.csv").drop(columns=["date"]).to_csv("undated.csv", index=False)
        arguments, words = (
            [arguments[0], "undated.csv", *arguments[2:]],
            "no column looks like 'time': name the column, --time",
        )
    if arguments[0] == "map":
        xr.Dataset({"rf": ("x", [0.1])}).to_netcdf("grid.nc")
    assert words in refused(*arguments)
    assert not any((folder / name).exists() for name in ("x.nc", "x.csv", "x.toml"))


@pytest.mark.parametrize(("change", "words"), [
    (lambda new, _: new.drop(columns="date"), "neighbours need the time of every row"),
    (lambda new, _: new.drop(columns="lon"), "neighbours need the lon of every row"),
    (lambda new, _: new.rename(columns={"svr": "neighbours_sd"}), "which neighbours add, and not 'neighbours' itself"),
    (lambda new, _: new.assign(date="2031-01-01"), "no other station has an observation at the time of any of the"),
    (lambda _, train: train.drop(columns="station"), "do not say whose they are: a row of that station would be told of its own"),
    (lambda new, _: new.assign(neighbours=0.2), ""),
])  # fmt: skip
def test_rows_that_cannot_be_told(folder, parts, tmp_path, change, words):
    change(parts[1], parts[0]).to_csv(tmp_path / "new.csv", index=False)
    arguments = ["predict", folder / "fit.nc", tmp_path / "new.csv", "--out", tmp_path / "p.csv"]
    if not words:  # the column is there, and its standard deviation, which the fit follows, is not
        words = "neighbours_sd"
    assert words in refused(*arguments)


def test_a_name_that_differs_is_told_of(folder, parts, tmp_path):
    parts[0][parts[0]["station"] == "s01"].assign(station="S01").to_csv(tmp_path / "new.csv", index=False)
    said = run("predict", folder / "fit.nc", tmp_path / "new.csv", "--out", tmp_path / "p.csv").stderr
    assert "S01 lies at the very place of s01" in said


@pytest.mark.slow
def test_comparisons_with_the_day_and_recalibration_equal_the_library(folder, frame, tmp_path):
    frame.to_csv(tmp_path / "all.csv", index=False)
    done = run("compare", tmp_path / "all.csv", *COLUMNS, *EM, "--models", "bma,climatology", "--option", "site=false",
               "--option", 'scale=["neighbours_sd"]', "--neighbours", "--folds", 3, "--recalibrate", "beta",
               "--out", tmp_path / "d.csv", "--rows", tmp_path / "rows.nc")  # fmt: skip
    assert "BMA of the day" in done.stdout
    made = xr.load_dataset(tmp_path / "rows.nc", engine="h5netcdf")
    members = be.Members({}, frame[MEMBERS], frame["sm"], site=frame["station"], time=frame["date"], lon=frame["lon"],
                         lat=frame["lat"], products=MEMBERS, neighbours=True)  # fmt: skip
    models = {"BMA": OnMembers(be.BMA(site=False, scale=()), MEMBERS),
              "Climatology": OnMembers(be.Climatology(site=False), MEMBERS),
              "BMA of the day": be.BMA(site=False, scale=("neighbours_sd",))}  # fmt: skip
    expected = be.compare(models, members, estimand="site", folds=3, method="em", random_seed=1, progressbar=False)
    assert made["model"].values.tolist() == list(models)
    np.testing.assert_allclose(made["crps"], expected["crps"], rtol=1e-9)
    table = pd.read_csv(tmp_path / "d-recalibration.csv")
    law = be.recalibration_table(expected, random_seed=1)
    np.testing.assert_allclose(table["crps_after"], law["crps_after"], rtol=1e-9)
    np.testing.assert_allclose(table["crps_change"], 100 * (law["crps_after"] / law["crps_before"] - 1), atol=1e-9)
    kept = be.Recalibration.load(tmp_path / "d-bma_of_the_day.json")
    assert kept == be.recalibrate(expected, "BMA of the day")

    arguments = ["predict", folder / "fit.nc", folder / "new.csv", "--recalibration"]
    run(*arguments, tmp_path / "d-bma_of_the_day.json", "--out", tmp_path / "p.csv")
    run("predict", folder / "fit.nc", folder / "new.csv", "--out", tmp_path / "q.csv", "--quantiles",
        ",".join(map(str, kept.quantile([0.05, 0.95]))))  # fmt: skip
    recalibrated, moved = pd.read_csv(tmp_path / "p.csv"), pd.read_csv(tmp_path / "q.csv")
    np.testing.assert_allclose(recalibrated[["q05", "q95"]], moved.iloc[:, -2:], rtol=1e-6)
    (tmp_path / "broken.json").write_text('{"method": "beta"}', encoding="utf-8")
    for name, words in (("d-climatology.json", "recalibrates Climatology, and the fit is of BMA"),
                        ("broken.json", "broken.json: it has no 'parameters'; wanted a map of levels"),
                        ("none.json", "there is no file")):  # fmt: skip
        assert words in refused(*arguments, tmp_path / name, "--out", tmp_path / "r.csv")
    assert "and the fit is not told the day" in refused(
        "predict", folder / "plain.nc", folder / "new.csv", "--recalibration", tmp_path / "d-bma_of_the_day.json",
        "--out", tmp_path / "r.csv",
    )  # fmt: skip


def test_init_writes_a_study_with_neighbours(folder, tmp_path):
    said = run("init", folder / "train.csv", "--members", "rf,mlr", "--observation", "sm", "--neighbours", "--out",
               tmp_path / "study.toml").stderr  # fmt: skip
    assert "Neighbours: what other stations observed, interpolated by lon and lat." in said
    study = read_study(tmp_path / "study.toml")
    assert study.members.neighbours
    assert study.not_told == ("BMA without the day",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert study_data(study).source.names == ("rf", "mlr", "neighbours")
