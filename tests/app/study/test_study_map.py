"""Maps of a study: several dates and files, names of their own, the forms that are written, and what is refused at the door."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayesens as be
from bayesens import simulate
from bayesens.app.demo_grid import region_grid
from bayesens.app.study.file import study_from_text
from bayesens.app.study.maps import grid as study_grids
from bayesens.app.study.run import run_study
from studies import run_quietly

pytestmark = pytest.mark.filterwarnings("ignore:EM found", "ignore:.* that the fit has not seen")

TEXT = """
[data]
table = "t.csv"
observation = "sm"
site = "station"
time = "date"
units = "m3 m-3"
[members]
columns = ["rf", "mlr", "xgb"]
[models.BMA]
model = "bma"
site = false
method = "em"
[evaluation]
folds = 3
places = ["x", "y"]
replicates = 20
[map]
grid = ["a.nc", "b.zarr"]
covariates = { rf = "forest" }
time = "day"
places = ["east", "north"]
below = 0.2
quantiles = [0.5]
bands = ["all"]
out = "zarr"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of stations in a plane, and its grid in two files: 3 dates, coordinates of two dimensions."""
    folder = tmp_path_factory.mktemp("map")
    region = simulate.region(9, 1, 20, random_seed=2)
    frame = region.frame
    frame = frame.assign(x=100 * (frame["lon"] - 115), y=111 * (frame["lat"] - 40))
    frame.drop(columns=["lon", "lat", "truth", "svr"]).to_csv(folder / "t.csv", index=False)
    grid = (
        region_grid(region, random_seed=2)
        .fillna(0.3)
        .isel(date=slice(-3, None), lat=slice(None, None, 3), lon=slice(None, None, 4))
    )
    east, north = np.meshgrid(100 * (grid["lon"].values - 115), 111 * (grid["lat"].values - 40))
    plain = grid.drop_vars(["lon", "lat"]).rename(lat="row", lon="col", date="day", rf="forest")
    plain = plain.assign_coords(east=(("row", "col"), east), north=(("row", "col"), north))
    plain["forest"][0, 0, 0] = np.nan
    for name in ("forest", "mlr", "xgb"):
        plain[name][1, 2, 3] = np.nan
    plain[["forest", "mlr"]].to_netcdf(folder / "a.nc", engine="h5netcdf")
    plain[["xgb", "truth"]].to_zarr(folder / "b.zarr", consolidated=False)
    return folder


@pytest.fixture(scope="module")
def done(folder):
    return run_quietly(folder, TEXT)


def test_the_map_of_several_dates_is_what_the_library_predicts(folder, done):
    found = xr.open_zarr(folder / "out" / "maps" / "bma.zarr").load()
    grid = xr.open_dataset(folder / "a.nc", engine="h5netcdf")
    grid = grid.assign(xgb=xr.open_zarr(folder / "b.zarr", consolidated=False)["xgb"]).load()
    tree = be.read_fit(folder / "out" / "fits" / "bma.nc")
    wanted = be.predict(tree, grid.rename(forest="rf"), quantiles=[0.05, 0.5, 0.95], below=0.2)
    assert found["mean"].dims == ("day", "row", "col")
    empty = np.isnan(found["mean"].values)
    assert np.argwhere(empty).tolist() == [[1, 2, 3]]  # without a member there is no map, whatever the model
    np.testing.assert_allclose(found["mean"].values[~empty], wanted["mean"].values[~empty])
    np.testing.assert_allclose(
        found["quantile_value"], wanted["quantile_value"]
    )  # the ends of the interval are always there
    np.testing.assert_allclose(found["probability_below"], wanted["probability_below"].where(found["mean"].notnull()))
    assert found["quality"].values[0, 0, 0] & 1  # a member is missing
    assert set(found.coords) >= {"day", "x", "y"}


def test_the_chapter_shows_dates_a_draw_and_how_much_places_differ(folder, done):
    finished, page = done
    figures = {name for name in finished.files if name.startswith("figures/") and name.endswith(".svg")}
    assert figures >= {f"figures/{name}.svg" for name in ("map_bma", "map_days", "map_draw", "map_variability")}
    assert "Means over 3 dates." in page
    drawn = xr.load_dataset(folder / "out" / "maps" / "draws-bma.nc", engine="h5netcdf")["draw"]
    assert drawn.sizes == {"sample": 1, "day": 3, "row": 12, "col": 14}
    table = pd.read_csv(folder / "out" / "tables" / "map_variation.csv").set_index("of")["cv"]
    last = pd.read_csv(folder / "t.csv").dropna().query("date >= '2020-04-12'").groupby("date")["sm"]
    days = xr.open_dataset(folder / "a.nc", engine="h5netcdf")["day"].dt.strftime("%Y-%m-%d").values
    wanted = (last.std() / last.mean()).loc[days].mean()
    assert table["stations"] == pytest.approx(wanted)
    assert table["one draw"] > table["map of the mean"]


@pytest.mark.slow
def test_without_places_the_report_says_why_there_is_no_draw(folder, tmp_path):
    for name in ("t.csv", "a.nc"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    xr.open_zarr(folder / "b.zarr", consolidated=False).to_zarr(tmp_path / "b.zarr", consolidated=False)
    text = (
        TEXT.replace('places = ["x", "y"]\n', "").replace('places = ["east", "north"]\n', "").replace('"zarr"', '"nc"')
    )
    finished, page = run_quietly(tmp_path, text.replace("below = 0.2\n", ""))
    assert "No draw of the map is shown: the table or the grid has no places" in page
    assert "maps/bma.nc" in finished.files
    assert not any(name.startswith("maps/draws") for name in finished.files)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            'out = "zarr"',
            'out = "tif"',
            "map.out is 'tif', and the cells of a.nc, b.zarr are not even rows and columns",
        ),
        ('time = "day"', 'time = "dya"', "no variable 'dya' in the grid a.nc, b.zarr; did you mean 'day'"),
        ('rf = "forest"', 'rf = "forst"', "no variable 'forst' in the grid a.nc, b.zarr; did you mean 'forest'"),
        ('covariates = { rf = "forest" }', "", "no variable 'rf' in the grid a.nc, b.zarr"),
        ('"b.zarr"', '"t.csv"', "map.grid: t.csv has the suffix '.csv'; wanted a .zarr store"),
        ('"b.zarr"', '"c.nc"', "map.grid names 2 files that do not lie on the same cells"),
        (
            '"b.zarr"',
            '"d.nc"',
            r"not lie on the same cells \(its 'day' are the same ones in another order: sort them as",
        ),
        ('time = "day"', "", "at most one of times: name it in map.time"),
    ],
)
def test_a_grid_that_cannot_be_mapped_is_refused_before_the_work(folder, tmp_path, monkeypatch, old, new, text):
    monkeypatch.chdir(folder)
    if not (folder / "c.nc").exists():
        data = xr.load_dataset(folder / "a.nc", engine="h5netcdf")[["mlr"]].rename(mlr="xgb")
        data.isel(row=slice(5)).to_netcdf(folder / "c.nc", engine="h5netcdf")
        data.isel(day=slice(None, None, -1)).to_netcdf(folder / "d.nc", engine="h5netcdf")
    study = study_from_text(TEXT.replace(old, new), folder=".")
    with pytest.raises((ValueError, KeyError), match=text):
        run_study(study, tmp_path / "out", say=lambda _: pytest.fail("the work began"), progressbar=False)


def test_a_grid_that_memory_cannot_hold_is_told_before_the_work(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(study_grids, "_memory", lambda: 10_000.0)
    text = r"map.grid: the maps of 504 cells by 1 models take about 0.0 GB, and .* tile by tile by the command bayesens map"
    with pytest.raises(ValueError, match=text):
        run_study(study_from_text(TEXT, folder="."), tmp_path / "out", say=lambda _: pytest.fail("the work began"))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("rf =", "rv =", "no column 'rv' in the study, in map.covariates; did you mean 'rf'"),
        ('out = "zarr"', 'out = "png"', "map.out: Input should be 'nc', 'zarr' or 'tif'; got 'png'"),
        ("below = 0.2", "draws = -1", "map.draws: Input should be greater than or equal to 0; got -1"),
        ("below = 0.2", "belw = 0.2", "map.belw: is no key; did you mean 'below'"),
        ("[0.5]", "[1.5]", "map.quantiles.0: Input should be less than 1; got 1.5"),
        ('["a.nc", "b.zarr"]', "[]", "map.grid: "),
        ('places = ["x", "y"]\n', "", "map.places says where cells lie, and no columns say where sites do"),
    ],
)
def test_keys_of_a_map_are_checked(old, new, text):
    with pytest.raises(ValueError, match=text):
        study_from_text(TEXT.replace(old, new))


def test_one_grid_needs_no_brackets():
    study = study_from_text(TEXT.replace('["a.nc", "b.zarr"]', json.dumps("a.nc")))
    assert [str(path) for path in study.map.grid] == ["a.nc"]
    assert study.map.below == (0.2,)
