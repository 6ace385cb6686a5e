"""Studies with models that are told what neighbours observed on the day, beside models that are not; and their maps."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayesens as be
from bayesens.app.study.file import read_study
from bayesens.inference.fit_tree import read_fit
from studies import run_quietly

TEXT = """
[data]
table = "t.csv"
observation = "obs"
site = "station"
time = "day"
lon = "lon"
lat = "lat"
covariates = ["slope"]

[members]
columns = ["rf", "lm"]
neighbours = true
folds = 3

[models.BMA]
model = "bma"
site = false
neighbours = false

[models."BMA of the day"]
model = "bma"
site = false
scale = ["mean", "neighbours_sd", "slope"]

[recalibration]
prior = 30

[evaluation]
method = "em"
folds = 3
replicates = 200

[map]
grid = "grid.nc"
crs = "EPSG:4326"
"""


@pytest.fixture(scope="module")
def world():
    rng, stations, days = np.random.default_rng(1), 9, 40
    lon, lat, day = rng.uniform(10, 11, stations), rng.uniform(50, 51, stations), rng.normal(size=days)
    y = 5.0 + day[:, None] + 0.3 * rng.normal(size=stations) + 0.3 * rng.normal(size=(days, stations))
    frame = pd.DataFrame({
        "station": np.tile([f"s{k}" for k in range(stations)], days), "lon": np.tile(lon, days), "lat": np.tile(lat, days),
        "day": np.repeat(np.datetime64("2020-01-01") + np.arange(days), stations), "obs": y.ravel(),
    })  # fmt: skip
    for name in ("rf", "lm"):
        frame[name] = 5.0 + 0.6 * (frame["obs"] - 5.0) + 0.8 * rng.normal(size=len(frame))
    frame["slope"] = np.tile(rng.normal(size=stations), days)
    times = pd.to_datetime(["2020-01-03", "2021-07-01"])
    field = "time", "lat", "lon"
    cells = {name: (field, 5.0 + rng.normal(size=(2, 12, 15))) for name in ("rf", "lm")}
    cells["slope"] = field[1:], rng.normal(size=(12, 15))
    grid = xr.Dataset(cells, {"time": times, "lat": np.linspace(50, 51, 12), "lon": np.linspace(10, 11, 15)})
    return frame, grid


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    world[0].to_csv(folder / "t.csv", index=False)
    world[1].to_netcdf(folder / "grid.nc")
    done, page = run_quietly(folder, TEXT)
    return folder / "out", done, page


def test_the_day_is_worth_what_it_is(done):
    out, *_ = done
    scores = pd.read_csv(out / "tables" / "scores.csv")
    scores = scores[scores["group"] == "all"].set_index("model")
    assert scores.loc["BMA of the day", "crps"] < 0.8 * scores.loc["BMA", "crps"]
    assert scores.loc["BMA of the day", "observations"] == "day of"


def test_recalibration_is_tried_at_other_stations_and_its_maps_lie_beside_the_fits(done):
    out, finished, page = done
    table = pd.read_csv(out / "tables" / "recalibration.csv", keep_default_na=False)
    scores = pd.read_csv(out / "tables" / "scores.csv")
    before = scores[scores["group"] == "all"].set_index("model")["crps"]
    of_all = table[table["group"] == "all"].set_index("model")
    pd.testing.assert_series_equal(of_all["crps_before"].astype(float), before[of_all.index], check_names=False)
    assert of_all.index.tolist() == ["BMA", "BMA of the day"]
    laws = {name: be.Recalibration.load(out / "fits" / f"{name}.json") for name in ("bma", "bma_of_the_day")}
    assert {(law.model, law.estimand, law.stations) for law in laws.values()} == {
        ("BMA", "site", 9),
        ("BMA of the day", "site", 9),
    }
    assert {"fits/bma.json", "tables/recalibration.csv"} <= set(finished.files)
    assert "The files beside the fits, such as fits/bma.json, hold the maps of all rows held out" in page


def test_fits_have_the_members_that_they_are_told(done):
    out, *_ = done
    members = {path.stem: read_fit(path).attrs["bayesens_members"] for path in (out / "fits").glob("*.nc")}
    assert members == {"bma": '["rf", "lm"]', "bma_of_the_day": '["rf", "lm", "neighbours"]'}


def test_days_of_the_map_that_nobody_observed_are_those_of_the_model_that_is_not_told(done):
    out, *_ = done
    maps = {path.stem: xr.open_dataset(path) for path in (out / "maps").glob("bma*.nc")}
    told, not_told = (next(one for name, one in maps.items() if ("day" in name) == asked) for asked in (True, False))
    np.testing.assert_array_equal(told["mean"].isel(time=1), not_told["mean"].isel(time=1))
    assert (told["sd"].isel(time=0) < 0.9 * not_told["sd"].isel(time=0)).all()


def test_recalibration_of_two_stations_is_refused_before_anything_is_fitted(world, tmp_path):
    world[0][world[0]["station"].isin(["s1", "s2"])].to_csv(tmp_path / "t.csv", index=False)
    world[1].to_netcdf(tmp_path / "grid.nc")
    with pytest.raises(ValueError, match="2 of them have observations; wanted 3 at least"):
        run_quietly(tmp_path, TEXT)


@pytest.mark.parametrize(("old", "new", "words"), [
    ('time = "day"\n', "", "members.neighbours needs data.time: name the column"),
    ("folds = 3\nreplicates", 'estimands = ["time"]\nfolds = 3\nreplicates', "neighbours know nothing of days that nobody has"),
    ("neighbours = true", "neighbour_features = true", "neighbour_features needs neighbours = true, and members to train"),
    ("neighbours_sd", "neighbour_sd", "neighbour_sd"),
    ("prior = 30", "prior = 0", "recalibration.prior: .* greater than or equal to 1; got 0"),
    ("prior = 30", 'method = "isotone"', "recalibration.method: .*'beta' or 'isotonic'"),
])  # fmt: skip
def test_refused(world, tmp_path, old, new, words):
    from bayesens.app.study.data import study_models

    world[0].to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "study.toml").write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ValueError, match=words):
        study_models(read_study(tmp_path / "study.toml"))
