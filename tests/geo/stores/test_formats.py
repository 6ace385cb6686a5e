"""What xarray, rioxarray, GDAL and netCDF read back from written maps: values, places, systems, names, units and flags."""

import json

import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import rioxarray  # noqa: F401  (the accessor rio)
import xarray as xr

import bayesens as be
from shared_data import shared_data

# rioxarray, of a newer affine.
pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")

ROWS, COLUMNS = 30, 50
SYSTEMS = {"geographic": "EPSG:4326", "projected": "EPSG:28355", "wkt": pyproj.CRS("EPSG:32755").to_wkt()}
OWN = "+proj=laea +lat_0=-25 +lon_0=134 +datum=WGS84 +units=m"  # of no authority


def maps(crs="geographic", days=2, lon=146.0, up=False, dtype=np.float32):
    rng = np.random.default_rng(1)
    flat = crs == "geographic"
    y, x = ("lat", "lon") if flat else ("y", "x")
    ys = -34.0 - 0.01 * np.arange(ROWS) if flat else 6_200_000.0 - 250.0 * np.arange(ROWS)
    xs = lon + 0.02 * np.arange(COLUMNS) if flat else 400_000.0 + 250.0 * np.arange(COLUMNS)
    dims, shape = ("time", y, x), (days, ROWS, COLUMNS)
    values = rng.normal(0.25, 0.05, shape).astype(dtype)
    values[:, 3:6, :4] = np.nan
    return xr.Dataset(
        {"mean": (dims, values, {"units": "m3 m-3", "long_name": "predictive mean"}),
         "sd": (dims, np.abs(values) * 0.2, {"units": "m3 m-3"}),
         "quantile_value": (("quantile", *dims), np.stack([values - 0.1, values + 0.1]), {"units": "m3 m-3"}),
         "probability_below": (("threshold", *dims), (values < 0.2).astype(dtype)[None])},
        {"time": pd.date_range("2020-01-01", periods=days), y: ys[::-1] if up else ys, x: xs, "quantile": [0.05, 0.95],
         "threshold": [0.2]},
    )  # fmt: skip


def written(path, given, **options):
    be.write_map(given, path, **{"progressbar": False} | options)
    return path


def reopened(path):
    if path.suffix == ".zarr":
        return xr.open_zarr(path, decode_coords="all")
    return xr.open_dataset(path, decode_coords="all", engine="h5netcdf")


def expected_transform(given):
    y, x = given["mean"].dims[-2:]
    dy, dx = (float(given[dim][1] - given[dim][0]) for dim in (y, x))
    return (dx, 0.0, float(given[x][0]) - dx / 2, 0.0, dy, float(given[y][0]) - dy / 2)


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
@pytest.mark.parametrize("kind", SYSTEMS)
def test_xarray_reads_back_values_and_system(tmp_path, suffix, kind):
    given = maps(kind)
    with reopened(written(tmp_path / f"maps{suffix}", given, crs=SYSTEMS[kind])) as back:
        for name in given.data_vars:
            xr.testing.assert_equal(back[name].drop_vars("spatial_ref").compute(), given[name])
            assert back[name].dtype == given[name].dtype
        assert back.rio.crs == rasterio.crs.CRS.from_user_input(SYSTEMS[kind])
        assert np.allclose(tuple(back["mean"].rio.transform())[:6], expected_transform(given), rtol=1e-12)


@pytest.mark.parametrize("kind", SYSTEMS)
def test_gdal_reads_netcdf(tmp_path, kind):
    given = maps(kind)
    path = written(tmp_path / "maps.nc", given, crs=SYSTEMS[kind])
    with rasterio.open(f"netcdf:{path}:mean") as file:
        assert file.crs.to_epsg() == pyproj.CRS(SYSTEMS[kind]).to_epsg()
        assert np.allclose(tuple(file.transform)[:6], expected_transform(given), rtol=1e-9)
        assert file.count == 2
        np.testing.assert_array_equal(file.read(2), given["mean"].values[1])
        assert file.units[0] == "m3 m-3"


@pytest.mark.parametrize(
    ("kind", "up"), [("geographic", True), ("geographic", False), ("projected", False), ("wkt", True)]
)
def test_gdal_reads_geotiffs(tmp_path, kind, up):
    """North is up in every file, whichever way the latitudes of the maps go."""
    given = maps(kind, up=up)
    folder = written(tmp_path / "soil", given, crs=SYSTEMS[kind])
    assert sorted(one.name for one in folder.iterdir()) == ["soil_2020-01-01.tif", "soil_2020-01-02.tif"]
    north = given.sortby(given["mean"].dims[-2], ascending=False)
    with rasterio.open(folder / "soil_2020-01-02.tif") as file:
        assert file.crs.to_epsg() == pyproj.CRS(SYSTEMS[kind]).to_epsg()
        assert np.allclose(tuple(file.transform)[:6], expected_transform(north), rtol=1e-9)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.descriptions == ("mean", "sd", "q05", "q95", "below_0.2", "quality")
        assert np.isnan(file.nodata)
        assert file.units[:3] == ("m3 m-3", "m3 m-3", "m3 m-3")
        np.testing.assert_array_equal(file.read(1), north["mean"].values[1])
        np.testing.assert_array_equal(file.read(4), north["quantile_value"].values[1, 1])
        assert file.tags(1)["long_name"] == "predictive mean"
        assert file.tags()["time"] == "2020-01-02"
        assert "bayesens" in file.tags()["source"]


def test_a_system_of_no_authority(tmp_path):
    given = maps("projected")
    for suffix in (".zarr", ".nc", ""):
        path = written(tmp_path / f"maps{suffix}", given, crs=OWN)
        if suffix:
            with reopened(path) as back:
                found = back.rio.crs
        else:
            with rasterio.open(path / "maps_2020-01-01.tif") as file:
                found = file.crs
        assert rasterio.crs.CRS.from_wkt(found.to_wkt()) == rasterio.crs.CRS.from_user_input(OWN)
    attrs = json.loads((tmp_path / "maps.zarr" / "zarr.json").read_text())["attributes"]
    assert "proj:code" not in attrs
    assert pyproj.CRS(attrs["proj:wkt2"]) == pyproj.CRS(OWN)


def test_the_system_of_the_maps_is_taken(tmp_path):
    given = maps().rio.write_crs("EPSG:7844")
    with reopened(written(tmp_path / "maps.zarr", given)) as back:
        assert back.rio.crs.to_epsg() == 7844
    named = maps().assign_coords(crs=xr.DataArray(0, attrs=pyproj.CRS("EPSG:7844").to_cf()))
    del named["crs"].attrs["crs_wkt"]  # as files have it that know CF's words alone
    with reopened(written(tmp_path / "named.zarr", named)) as back:
        assert back.rio.crs.to_dict()["ellps"] == "GRS80"
        assert "crs" not in back.variables


def test_a_system_that_is_not_known(tmp_path):
    with pytest.warns(UserWarning, match=r'written as unknown. Say which, such as crs="EPSG:4326"'):
        be.write_map(maps(), tmp_path / "a.zarr", progressbar=False)
    for suffix in (".zarr", ".nc"):
        with reopened(written(tmp_path / f"b{suffix}", maps(), crs="unknown")) as back:
            assert back.rio.crs is None
            assert np.allclose(tuple(back["mean"].rio.transform())[:6], expected_transform(maps()))
            assert back["spatial_ref"].attrs["long_name"] == "coordinate reference system: unknown"
    folder = written(tmp_path / "c", maps(), crs="unknown")
    with rasterio.open(folder / "c_2020-01-01.tif") as file:
        assert file.crs is None


def test_longitudes_are_kept(tmp_path):
    lon = 346.0
    given = maps(lon=lon)
    with reopened(written(tmp_path / "maps.nc", given, crs="EPSG:4326")) as back:
        np.testing.assert_array_equal(back["lon"], given["lon"])
    folder = written(tmp_path / "maps", given, crs="EPSG:4326")
    with rasterio.open(folder / "maps_2020-01-01.tif") as file:
        assert file.bounds.left == pytest.approx(lon - 0.01)
        assert file.bounds.right == pytest.approx(lon - 0.01 + 0.02 * COLUMNS)


def test_words_of_cf(tmp_path):
    given = maps()
    given["mean"].attrs["ancillary_variables"] = "sd sd_within"
    given.attrs["history"] = "2019: read"
    name = "volume_fraction_of_condensed_water_in_soil"
    for suffix in (".zarr", ".nc"):
        path = written(tmp_path / f"maps{suffix}", given, crs="EPSG:4326", standard_name=name)
        with xr.open_dataset(path, decode_cf=False, engine="zarr" if suffix == ".zarr" else "h5netcdf") as raw:
            assert raw.attrs["Conventions"] == "CF-1.11"
            assert raw.attrs["history"].splitlines()[1] == "2019: read"
            mean = raw["mean"].attrs
            assert mean["ancillary_variables"] == "sd quality"  # sd_within is not there
            assert (mean["grid_mapping"], mean["standard_name"]) == ("spatial_ref", name)
            assert raw["sd"].attrs["standard_name"] == f"{name} standard_error"
            assert "standard_name" not in raw["quantile_value"].attrs
            assert raw["probability_below"].attrs["units"] == "1"
            assert "coordinates" not in mean  # all of them are dimensions
            mapping = raw["spatial_ref"].attrs
            assert mapping["grid_mapping_name"] == "latitude_longitude"
            assert pyproj.CRS(mapping["crs_wkt"]).to_epsg() == 4326
            assert np.allclose(
                [float(one) for one in mapping["GeoTransform"].split()], [145.99, 0.02, 0, -33.995, 0, -0.01]
            )
            assert raw["lat"].attrs["standard_name"] == "latitude"
            assert (raw["lon"].attrs["units"], raw["lon"].attrs["axis"]) == ("degrees_east", "X")
            assert raw["time"].attrs["standard_name"] == "time"
            bounds = raw[raw["lat"].attrs["bounds"]]
            np.testing.assert_allclose(bounds.mean("bnds"), given["lat"], rtol=1e-12)
            np.testing.assert_allclose(bounds[1:, 0], bounds[:-1, 1])
            flags = raw["quality"].attrs
            assert np.asarray(flags["flag_masks"]).tolist() == [1, 2, 4, 8, 16]
            assert len(flags["flag_meanings"].split()) == 5
            if suffix == ".nc":
                assert np.asarray(flags["flag_masks"]).dtype == raw["quality"].dtype == np.uint8
                assert "_FillValue" not in raw["lat"].attrs


def test_the_standard_name_of_all_members_is_that_of_the_maps(tmp_path):
    given, name = maps(), "mass_concentration_of_pm2p5_ambient_aerosol_particles_in_air"
    members = xr.Dataset({one: given["mean"].assign_attrs(standard_name=name) for one in ("a", "b")})
    with reopened(written(tmp_path / "one.zarr", given, crs="unknown", members=members)) as back:
        assert back["mean"].attrs["standard_name"] == name
    members["b"].attrs["standard_name"] = "air_temperature"
    with reopened(written(tmp_path / "two.zarr", given, crs="unknown", members=members)) as back:
        assert "standard_name" not in back["mean"].attrs


def test_words_of_geozarr(tmp_path):
    path = written(tmp_path / "maps.zarr", maps("projected"), crs="EPSG:28355")
    attrs = json.loads((path / "zarr.json").read_text())["attributes"]
    uuids = {one["name"]: one["uuid"] for one in attrs["zarr_conventions"]}
    assert uuids == {
        "proj:": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "spatial:": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    }
    assert attrs["proj:code"] == "EPSG:28355"
    assert attrs["spatial:dimensions"] == ["y", "x"]
    assert attrs["spatial:shape"] == [ROWS, COLUMNS]
    assert attrs["spatial:transform"] == [250.0, 0.0, 399_875.0, 0.0, -250.0, 6_200_125.0]
    assert attrs["spatial:bbox"] == [399_875.0, 6_200_125.0 - 250 * ROWS, 399_875.0 + 250 * COLUMNS, 6_200_125.0]
    array = json.loads((path / "mean" / "zarr.json").read_text())
    assert array["codecs"][0]["name"] == "sharding_indexed"
    assert array["zarr_format"] == 3


def test_a_curvilinear_grid(tmp_path):
    lon, lat = np.meshgrid(np.linspace(-88, -80, COLUMNS), np.linspace(30, 36, ROWS))
    values = np.random.default_rng(0).normal(size=(ROWS, COLUMNS))
    given = xr.Dataset(
        {"mean": (("row", "col"), values)}, {"lon": (("row", "col"), lon + lat / 10), "lat": (("row", "col"), lat)}
    )
    with pytest.raises(
        ValueError, match=r"'lon', 'lat' lie on \(row, col\). Write it as soil.zarr or soil.nc, or bring it"
    ):
        be.write_map(given, tmp_path / "soil", crs="EPSG:4326", progressbar=False)
    for suffix in (".zarr", ".nc"):
        with reopened(written(tmp_path / f"soil{suffix}", given, crs="EPSG:4326")) as back:
            xr.testing.assert_equal(back["lon"].drop_vars("spatial_ref"), given["lon"])
            np.testing.assert_array_equal(back["mean"], values)
            assert set(back["mean"].coords) >= {"lon", "lat"}
            assert "GeoTransform" not in back["spatial_ref"].attrs


def test_an_uneven_grid(tmp_path):
    given = maps().assign_coords(lat=np.geomspace(1.0, 60.0, ROWS)[::-1])
    with pytest.raises(ValueError, match="not evenly spaced"):
        be.write_map(given, tmp_path / "soil", crs="EPSG:4326", progressbar=False)
    with reopened(written(tmp_path / "soil.nc", given, crs="EPSG:4326")) as back:
        assert back["lat_bnds"].shape == (ROWS, 2)


def test_coordinates_in_other_units_are_refused(tmp_path):
    given = maps("projected")
    given["x"].attrs["units"] = "km"
    with pytest.raises(ValueError, match=r"'x' is in 'km' and the axes of .* are in 'metre'; convert 'x'"):
        be.write_map(given, tmp_path / "soil.nc", crs="EPSG:28355", progressbar=False)


def test_flags(tmp_path):
    given = maps(days=1)
    dims = given["mean"].dims
    inside = xr.ones_like(given["mean"].isel(time=0, drop=True), dtype=bool)
    inside[:, 10:] = False
    where = xr.ones_like(inside)
    where[20:] = False
    members = xr.concat([given["mean"].fillna(1.0)] * 2, pd.Index(["a", "b"], name="member")).copy()
    members[1, 0, 8, 8] = np.nan
    path = written(tmp_path / "soil.zarr", given, crs="EPSG:4326", applicable=inside, where=where, members=members)
    lazy = given.chunk(lat=10, lon=10)
    other = written(tmp_path / "lazy.zarr", lazy, crs="EPSG:4326", applicable=inside.chunk(lat=10), where=where,
                    members=members.chunk(lat=10, member=1))  # fmt: skip
    expected = np.zeros((1, ROWS, COLUMNS), int)
    expected[:, :, 10:] += 2
    expected[:, 20:] += 4
    expected[:, 3:6, :4] += 8
    expected[0, 8, 8] += 1
    for one in (path, other):
        with reopened(one) as back:
            assert back["quality"].dims == dims
            np.testing.assert_array_equal(back["quality"], expected)


def test_flags_are_checked(tmp_path):
    given = maps()
    with pytest.raises(
        TypeError, match="applicable= is a DataArray of True and False on the grid; got a DataArray of float32"
    ):
        be.write_map(given, tmp_path / "a.zarr", crs="unknown", applicable=given["mean"])
    over = given["mean"].notnull().isel(lat=slice(None, None, -1))
    with pytest.raises(
        ValueError, match=r"'where' has other coordinates than the maps; its 'lat' are the same ones in another"
    ):
        be.write_map(given, tmp_path / "a.zarr", crs="unknown", where=over)
    moved = given["mean"].notnull().assign_coords(lat=given["lat"] + 1e-9)
    with pytest.raises(ValueError, match="'where' has other coordinates than the maps"):
        be.write_map(given, tmp_path / "a.zarr", crs="unknown", where=moved)


def test_coordinates_of_odd_kinds(tmp_path):
    """Thresholds that are names of maps, hours, a scalar coordinate, a dimension without coordinates, true and false."""
    given = maps().isel(threshold=[0, 0]).assign_coords(threshold=["dry", "wilting point"], level=2.0)
    given["time"] = given["time"] + np.timedelta64(6, "h")
    given["inside"] = given["mean"] > 0.2
    given["soil"] = ("lat", "lon"), np.ones((ROWS, COLUMNS), np.int16)
    for suffix in (".zarr", ".nc"):
        with reopened(written(tmp_path / f"maps{suffix}", given, crs="EPSG:4326")) as back:
            assert back["threshold"].values.tolist() == ["dry", "wilting point"]
            assert float(back["level"]) == 2.0
            np.testing.assert_array_equal(back["inside"], given["inside"])
            np.testing.assert_array_equal(back["time"], given["time"])
            np.testing.assert_array_equal(back["soil"], given["soil"])
    folder = written(tmp_path / "maps", given, crs="EPSG:4326")
    with rasterio.open(folder / "maps_2020-01-01T060000.tif") as file:
        assert file.descriptions[4:6] == ("below_dry", "below_wilting point")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("soil.tif", "names one GeoTIFF, and maps are a folder of them"),
        ("soil.grib", "has the suffix '.grib'; wanted .zarr, .nc, or none"),
        ("none/soil.nc", "does not exist; create it first"),
    ],
)
def test_places(tmp_path, name, words):
    with pytest.raises((ValueError, OSError), match=words):
        be.write_map(maps(), tmp_path / name, crs="unknown")


def test_a_map_of_one_moment_is_one_file(tmp_path):
    folder = written(tmp_path / "soil", maps(days=1).isel(time=0, drop=True), crs="EPSG:4326")
    assert [one.name for one in folder.iterdir()] == ["soil.tif"]


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    folder = tmp_path / "soil"
    folder.mkdir()
    (folder / "thesis.docx").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"holds 'thesis.docx' too, and is not replaced"):
        be.write_map(maps(), folder, crs="unknown", overwrite=True)


def test_what_is_no_map(tmp_path):
    with pytest.raises(TypeError, match=r"maps is a dataset with 'sd'.*; wanted what be.predict returned for a grid"):
        be.write_map(maps().drop_vars("mean"), tmp_path / "a.nc", crs="unknown")
    with pytest.raises(ValueError, match="none of them is known to be that of rows; say which by dims"):
        be.write_map(maps().rename(lat="north"), tmp_path / "a.nc", crs="unknown")
    given = maps().rename(lat="north", lon="east")
    with reopened(written(tmp_path / "b.nc", given, crs="EPSG:4326", dims=("north", "east"))) as back:
        assert back["north"].attrs["axis"] == "Y"


def test_grids_of_real_data(tmp_path):
    """OzNet's grid is even but for the rounding of its degrees; Atlanta's is that of a weather model, with x and y of cells."""
    with xr.open_dataset(shared_data("oznet", "grid_20160205_1km.nc")) as grid:
        given = grid[["lst"]].rename(lst="mean").load()
    folder = written(tmp_path / "lst", given, crs="EPSG:4326")
    with rasterio.open(folder / "lst.tif") as file:
        np.testing.assert_array_equal(file.read(1), given["mean"])
        row, column = file.index(float(given["lon"][70]), float(given["lat"][30]))
        assert (row, column) == (30, 70)
        assert file.bounds.right == pytest.approx(float(given["lon"][-1]) + 0.005, abs=1e-4)
    with xr.open_dataset(shared_data("atlanta", "grid_200406.nc")) as grid:
        given = grid[["ctm", "x", "y"]].rename(ctm="mean").set_coords(["x", "y"]).load()
    with pytest.raises(ValueError, match=r"its coordinates 'x', 'y' lie on \(row, col\)"):
        be.write_map(given, tmp_path / "ctm", crs="unknown", progressbar=False)
    with reopened(written(tmp_path / "ctm.zarr", given, crs="unknown")) as back:
        np.testing.assert_array_equal(back["mean"], given["mean"])
        assert back["x"].attrs["units"] == "km"
        np.testing.assert_array_equal(back["time"], given["time"])
