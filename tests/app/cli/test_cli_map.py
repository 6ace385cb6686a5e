"""`bayesens map`: grids in, maps out, equal to what the library predicts; what is refused, and how it goes on after a stop."""

import shutil
from functools import partial
from types import SimpleNamespace

import commands
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from typer.testing import CliRunner

import bayesens as be
from bayesens.app.cli.main import app
from bayesens.geo.stores import engine, read, zarr_store

pytestmark = [
    pytest.mark.filterwarnings("ignore:EM found"),
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
]
LEVELS = [0.05, 0.5, 0.95]


run = partial(commands.run, "map")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A fit with groups, and a grid of its members with two time steps, a region and a mask."""
    place = tmp_path_factory.mktemp("map")
    rng = np.random.default_rng(4)
    y = rng.gamma(4.0, 0.06, 120)
    frame = pd.DataFrame({"rf": y + rng.normal(0, 0.02, 120), "svr": y + rng.normal(0, 0.04, 120), "sm": y})
    frame["net"] = np.repeat(["north", "south"], 60)
    ensemble = be.Ensemble.from_frame(frame, members=["rf", "svr"], observation="sm", group="net", units="m3 m-3")
    be.write_fit(be.fit(be.BMA(group=True), ensemble, method="em"), place / "fit.nc")
    shape, dims = (2, 20, 30), ("time", "lat", "lon")
    grid = xr.Dataset(
        {name: (dims, rng.gamma(4.0, 0.06, shape).astype(np.float32), {"units": "m3 m-3"}) for name in ("rf", "svr")},
        {"time": pd.date_range("2020-01-01", periods=2), "lat": -34 - 0.01 * np.arange(20), "lon": 146 + 0.01 * np.arange(30)},
    )  # fmt: skip
    grid["svr"][1, 2, 3] = np.nan
    grid["net"] = ("lat", "lon"), np.where(np.arange(30) < 15, "north", "south")[None].repeat(20, 0)
    grid["land"] = ("lat", "lon"), (np.arange(20) > 3).astype(np.int8)[:, None].repeat(30, 1)
    grid["dry"] = ("lat", "lon"), np.full((20, 30), 0.12, np.float32)
    grid.to_zarr(place / "grid.zarr", zarr_format=2)
    grid.to_netcdf(place / "grid.nc", engine="h5netcdf")
    return place


def expected(folder):
    with xr.open_dataset(folder / "grid.nc") as grid:
        grid.load()
    below = [0.1, grid["dry"]]
    fit = be.read_fit(folder / "fit.nc")
    return be.predict(fit, grid, quantiles=LEVELS, below=below, group="net", where=grid["land"] != 0)


@pytest.mark.parametrize(("source", "out"), [("grid.zarr", "maps.zarr"), ("grid.nc", "maps.nc")])
def test_maps_are_what_the_library_predicts(folder, tmp_path, source, out):
    name = "volume_fraction_of_condensed_water_in_soil"
    result = run(folder / "fit.nc", folder / source, "--out", tmp_path / out, "--below", "0.1,dry", "--where", "land",
                 "--applicable", "land", "--crs", "EPSG:4326", "--standard-name", name)  # fmt: skip
    assert "1,200 cells predicted by BMA" in result.stdout
    engine = "zarr" if out == "maps.zarr" else "h5netcdf"
    with xr.open_dataset(tmp_path / out, engine=engine, decode_coords="all") as back:
        wanted = expected(folder)
        for each in wanted.data_vars:
            np.testing.assert_allclose(back[each], wanted[each], rtol=2e-5, atol=1e-6, err_msg=each)
        assert back["mean"].attrs["standard_name"] == name
        assert "fit" in back.attrs["source"]
        quality = back["quality"].values
        assert (quality[:, :4] & (2 | 4 | 8) == 14).all()
        assert quality[1, 2, 3] & 1
        assert quality[1, 5, 3] == 0
        assert back["spatial_ref"].attrs["grid_mapping_name"] == "latitude_longitude"


def test_geotiffs_in_and_out(folder, tmp_path):
    """Members as a folder of GeoTIFFs, one a date, and packed maps as another one."""
    members = xr.open_dataset(folder / "grid.nc")
    (tmp_path / "members").mkdir()
    profile = {"driver": "GTiff", "height": 20, "width": 30, "count": 2, "dtype": "float32", "crs": "EPSG:4326",
               "transform": rasterio.transform.from_origin(145.995, -33.995, 0.01, 0.01)}  # fmt: skip
    for step, day in enumerate(("20200101", "20200102")):
        with rasterio.open(tmp_path / f"members/m_{day}.tif", "w", **profile) as file:
            for number, name in enumerate(("rf", "svr"), start=1):
                file.write(members[name].values[step], number)
                file.set_band_description(number, name)
    out = tmp_path / "maps"
    result = run(
        folder / "fit.nc", tmp_path / "members", "--out", out, "--packed", "--quantiles", "0.05,0.95", "--below", "0.1"
    )
    assert "has effects of groups and the grid is given none" in result.stderr
    plain = members[["rf", "svr"]].load().assign(net=("time", ["?", "?"]))
    wanted = be.predict(be.read_fit(folder / "fit.nc"), plain, group="net", quantiles=[0.05, 0.95], below=0.1)
    members.close()
    with rasterio.open(out / "maps_2020-01-02.tif") as file:
        assert file.crs.to_epsg() == 4326
        assert file.descriptions == (
            "mean",
            "sd",
            "sd_within",
            "sd_between",
            "sd_parameter",
            "q05",
            "q95",
            "below_0.1",
            "quality",
        )
        mean = file.read(1) * file.scales[0] + file.offsets[0]
        np.testing.assert_allclose(mean, wanted["mean"][1], atol=file.scales[0] * 0.51)
        assert file.units[0] == "m3 m-3"
        assert file.read(9)[2, 3] == 1  # svr is missing there


@pytest.mark.slow
def test_trained_members_over_covariates(tmp_path):
    """Members in a folder and a grid of their covariates give what be.map gives."""
    from sklearn.linear_model import LinearRegression
    from sklearn.tree import DecisionTreeRegressor

    rng = np.random.default_rng(5)
    rows = pd.DataFrame({"rain": rng.gamma(2.0, 1.0, 80), "dem": rng.uniform(0, 9, 80)})
    truth = 0.1 * rows["rain"] + 0.01 * rows["dem"] + rng.normal(0, 0.02, 80)
    estimators = {"mlr": LinearRegression(), "tree": DecisionTreeRegressor(max_depth=3, random_state=0)}
    members = be.Members(estimators, rows, truth, site=[f"s{k % 10}" for k in range(80)])
    fit = be.fit(be.BMA(), be.cross_fit(members, progressbar=False), method="em")
    fitted = members.fit(progressbar=False)
    fitted.save(tmp_path / "members")
    be.write_fit(fit, tmp_path / "fit.nc")
    grid = xr.Dataset(
        {"rain": (("time", "lat", "lon"), rng.gamma(2.0, 1.0, (2, 8, 9))), "dem": (("lat", "lon"), rng.uniform(0, 9, (8, 9)))},
        {"lat": 50.0 - np.arange(8), "lon": np.arange(9.0)},
    )  # fmt: skip
    grid.to_netcdf(tmp_path / "grid.nc", engine="h5netcdf")
    run(tmp_path / "fit.nc", tmp_path / "grid.nc", "--members", tmp_path / "members", "--out", tmp_path / "maps.nc",
        "--crs", "EPSG:4326", "--quantiles", "0.1,0.9")  # fmt: skip
    wanted = be.map(fitted, fit, grid, quantiles=[0.1, 0.9], progressbar=False)
    with xr.open_dataset(tmp_path / "maps.nc", engine="h5netcdf") as back:
        for name in wanted.data_vars:
            np.testing.assert_allclose(back[name], wanted[name], rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_stopped_maps_go_on(folder, tmp_path, monkeypatch):
    out = tmp_path / "maps.zarr"
    call = (
        folder / "fit.nc",
        folder / "grid.zarr",
        "--out",
        out,
        "--crs",
        "EPSG:4326",
        "--group",
        "net",
        "--memory",
        "100kB",
    )
    calls = []

    def interrupted(job):
        calls.append(job.number)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return zarr_store.write_tile(job)

    monkeypatch.setattr(engine, "write_tile", interrupted)
    monkeypatch.setattr(read, "CELLS", 200)
    result = run(*call, "--workers", "1", code=130)
    assert "finished tiles are kept; the same command with --resume goes on" in result.stderr
    monkeypatch.setattr(engine, "write_tile", zarr_store.write_tile)
    result = run(*call, code=1)
    assert "1 tiles are finished. Go on with it: --resume; or begin anew: --overwrite" in result.stderr
    result = run(*call, "--resume", "--crs", "EPSG:4283", code=1)
    assert "begun with another 'crs'" in result.stderr
    assert "1 of" in run(*call, "--resume").stdout
    assert "is there already; name another output, or replace it: --overwrite" in run(*call, code=1).stderr
    assert "was finished before" in run(*call, "--resume").stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "maps.grib"], "has the suffix '.grib'; wanted .zarr, .nc, or none"),
        (["--out", "maps.zarr", "--group", "nett"], "no variable 'nett' in the grid; did you mean 'net'?"),
        (["--out", "maps.zarr", "--where", "sea"], "no variable (--where) 'sea' in the grid"),
        (["--out", "maps.zarr", "--below", "wet"], "--below got 'wet'; wanted numbers separated by commas"),
        (["--out", "maps.zarr", "--crs", "EPSG:99999"], "--crs is 'EPSG:99999', which pyproj does not know"),
        (["--out", "maps.zarr", "--memory", "lots"], "--memory is 'lots'; wanted bytes, or a number with a unit"),
        (["--out", "maps.zarr", "--scheduler", "cluster"], "--scheduler is 'cluster'; wanted 'threads', 'processes'"),
        (["--out", "maps.zarr", "--dims", "row,col"], "--dims is ('row', 'col'); wanted two of the dimensions"),
    ],
)
def test_what_is_refused(folder, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    extra = [] if "--crs" in options else ["--crs", "EPSG:4326"]
    result = run(folder / "fit.nc", folder / "grid.nc", *options, *extra, code=1)
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_grid_that_is_not_there(folder, tmp_path):
    result = run(folder / "fit.nc", tmp_path / "no.zarr", "--out", tmp_path / "maps.zarr", code=1)
    assert "there is no grid" in result.stderr


CRS = ("--crs", "EPSG:4326", "--group", "net", "--no-progress")


def edited(folder, path, change, **encoding):
    with xr.open_dataset(folder / "grid.nc", engine="h5netcdf") as grid:
        change(grid.load()).to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return path


def test_packed_numbers_in_a_file_are_unpacked(folder, tmp_path):
    """Of 16 bits with a scale, an offset and a fill value; the largest error is half a step, and the weights sum to one."""
    how = {"dtype": "int16", "scale_factor": 1e-4, "add_offset": 0.5, "_FillValue": -32768}
    path = edited(folder, tmp_path / "packed.nc", lambda grid: grid, rf=how, svr=how)
    found = []
    for grid in (path, folder / "grid.nc"):
        run(folder / "fit.nc", grid, "--out", out := tmp_path / f"{grid.stem}_maps.nc", *CRS)
        found.append(xr.load_dataset(out, engine="h5netcdf"))
    np.testing.assert_allclose(found[0]["mean"], found[1]["mean"], atol=1e-4)
    assert (found[0]["quality"].values == found[1]["quality"].values).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: g.assign(rf=100 * g["rf"].drop_attrs(), svr=g["svr"].drop_attrs()),
         "member 'rf' is far outside of the range that the fit has seen, "),
        (lambda g: g.assign(rf=100 * g["rf"].drop_attrs(), svr=g["svr"].drop_attrs()),
         "; if it is in another unit here, convert it by 'rf' * 0.01"),
        (lambda g: g.assign(net=(g["net"].dims, np.full(g["net"].shape, "west"))),
         "Some labels of a group are of one that the fit has not seen: their cells are predicted as in a new group."),
        (lambda g: g.rename(rf="RF"), "The grid lacks 'rf': predictions treat it as missing in all cells. It has 'RF', which"),
    ],
)  # fmt: skip
def test_what_only_the_cells_show_is_told(folder, tmp_path, change, words):
    path = edited(folder, tmp_path / "odd.nc", change)
    result = run(folder / "fit.nc", path, "--out", tmp_path / "maps.zarr", *CRS)
    text = " ".join(result.stderr.split())
    assert text.count(words) == 1
    assert "1,200 cells predicted" in result.stdout


def test_a_code_is_refused_and_the_call_repeated_as_the_message_says(folder, tmp_path):
    path = edited(folder, tmp_path / "coded.nc", lambda g: g.assign(svr=g["svr"].fillna(-9999.0)))
    call = (folder / "fit.nc", path, "--out", tmp_path / "maps.zarr", *CRS)
    assert "read it as missing by --missing -9999, or" in " ".join(run(*call, code=1).stderr.split())
    run(*call, "--missing", "-9999")


def test_a_file_that_is_damaged_is_named(folder, tmp_path):
    (tmp_path / "half.nc").write_bytes((folder / "grid.nc").read_bytes()[:100])
    result = run(folder / "fit.nc", tmp_path / "half.nc", "--out", tmp_path / "maps.zarr", *CRS, code=1)
    assert "half.nc cannot be read as what its name says" in " ".join(result.stderr.split())


def test_a_grid_that_the_disk_cannot_hold_is_told_before_the_work(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
    monkeypatch.setattr(engine, "write_tile", lambda _: pytest.fail("the work began"))
    result = run(folder / "fit.nc", folder / "grid.nc", "--out", tmp_path / "maps.zarr", *CRS, code=1)
    text = " ".join(result.stderr.split())
    assert (
        "GB are free there: too little even if they take half of that. Make room, name another disk, take --packed"
        in text
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_days_that_no_station_observed_are_those_of_the_other_fit(tmp_path):
    rng, stations, days = np.random.default_rng(1), 6, 20
    at, level = rng.uniform(10.0, 11.0, stations), rng.normal(size=days)
    obs = (level[:, None] + 0.3 * rng.normal(size=(days, stations))).ravel()
    frame = pd.DataFrame({"station": np.tile([f"s{k}" for k in range(stations)], days), "lon": np.tile(at, days), "lat": 50.0,
                          "day": np.repeat(pd.date_range("2020-01-01", periods=days), stations), "obs": obs,
                          "rf": 0.5 * obs + rng.normal(size=len(obs))})  # fmt: skip
    roles = {
        role: frame[column] for role, column in (("site", "station"), ("time", "day"), ("lon", "lon"), ("lat", "lat"))
    }
    made = [
        be.Members({}, frame[["rf"]], frame["obs"], **roles, products=["rf"], neighbours=one) for one in (True, None)
    ]
    for name, members in zip(("fit", "other"), made, strict=True):
        ensemble = be.cross_fit(members, folds=3, progressbar=False)
        be.write_fit(be.fit(be.BMA(site=False), ensemble, method="em"), tmp_path / f"{name}.nc")
    made[0].fit(progressbar=False).save(tmp_path / "members")
    grid = {"time": pd.to_datetime(["2020-01-03", "2021-07-01"]), "lat": [49.5, 50.0, 50.5], "lon": [10.0, 10.5, 11.0]}
    xr.Dataset({"rf": (("time", "lat", "lon"), np.zeros((2, 3, 3)))}, grid).to_netcdf(tmp_path / "grid.nc")
    command = ["map", str(tmp_path / "fit.nc"), str(tmp_path / "grid.nc"), "--members", str(tmp_path / "members"), "--crs",
               "EPSG:4326", "--out"]  # fmt: skip
    told = CliRunner().invoke(app, [*command, str(tmp_path / "told.nc")])
    assert "on 1 of 2 days of the grid no station has an observation" in told.stderr
    assert "for these days: --without" in told.stderr
    both = CliRunner().invoke(app, [*command, str(tmp_path / "both.nc"), "--without", str(tmp_path / "other.nc")])
    assert both.exit_code == 0, both.output
    assert "Warning" not in both.stderr
    found = xr.load_dataset(tmp_path / "both.nc", engine="h5netcdf")
    assert found["day_observed"].values.tolist() == [1, 0]
    wrong = CliRunner().invoke(app, [*command, str(tmp_path / "no.nc"), "--without", str(tmp_path / "fit.nc")])
    assert wrong.exit_code == 1
    assert "wanted a fit to the other members alone: --without" in wrong.stderr
