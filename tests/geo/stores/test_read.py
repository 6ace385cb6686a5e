"""Grids come from files as they were written, lazily, in chunks that hold all members of a cell."""

import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray  # noqa: F401  (the accessor rio)
import xarray as xr

import bayesens as be
from bayesens.geo.stores.read import read_grid

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")


def grid(shape=(2, 12, 15)):
    rng = np.random.default_rng(2)
    dims = ("time", "y", "x")
    return xr.Dataset(
        {name: (dims, rng.gamma(4.0, 1.0, shape).astype(np.float32)) for name in ("rf", "svr")},
        {"time": pd.date_range("2020-01-01", periods=2), "y": 600.0 - 10.0 * np.arange(shape[1]),
         "x": 100.0 + 10.0 * np.arange(shape[2])},
    ).rio.write_crs("EPSG:32755")  # fmt: skip


def same(found, given):
    for name in ("rf", "svr"):
        np.testing.assert_array_equal(found[name].transpose("time", "y", "x"), given[name])
        np.testing.assert_array_equal(found["x"], given["x"])
        np.testing.assert_array_equal(found["y"], given["y"])
        assert found[name].chunks is not None
    assert found.rio.crs.to_epsg() == 32755


def test_zarr_and_netcdf(tmp_path):
    given = grid()
    given.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    same(read_grid(tmp_path / "a.nc"), given)
    for form, whole in ((3, False), (2, True)):
        path = tmp_path / f"a{form}.zarr"
        given.to_zarr(path, zarr_format=form, consolidated=whole)
        same(read_grid(path), given)


def write_tif(path, bands, given, step=None):
    arrays = [given[name] if step is None else given[name].isel(time=step) for name in bands]
    with rasterio.open(
        path, "w", driver="GTiff", height=given.sizes["y"], width=given.sizes["x"], count=len(bands), dtype="float32",
        crs="EPSG:32755", transform=rasterio.transform.from_origin(95.0, 605.0, 10.0, 10.0), nodata=-9999.0,
    ) as file:  # fmt: skip
        for number, (name, one) in enumerate(zip(bands, arrays, strict=True), start=1):
            file.write(one.fillna(-9999.0).values, number)
            file.set_band_description(number, name)


def test_folders_of_geotiffs(tmp_path):
    given = grid()
    given["rf"][0, 3, 4] = np.nan
    for step, day in enumerate(("2020-01-01", "20200102")):
        write_tif(tmp_path / f"members_{day}.tif", ["rf", "svr"], given, step)
    same(read_grid(tmp_path), given)
    one = read_grid(tmp_path / "members_2020-01-01.tif")
    np.testing.assert_array_equal(one["rf"], given["rf"].isel(time=0))
    (tmp_path / "each").mkdir()
    for name in ("rf", "svr"):
        write_tif(tmp_path / "each" / f"{name}.tif", [name], given, 1)
    each = read_grid(tmp_path / "each")
    np.testing.assert_array_equal(each["svr"], given["svr"].isel(time=1))


def test_written_maps_are_read_as_they_were(tmp_path):
    maps = grid().rename(rf="mean", svr="sd")
    be.write_map(maps, tmp_path / "soil", progressbar=False)
    found = read_grid(tmp_path / "soil")
    np.testing.assert_array_equal(found["mean"].transpose("time", "y", "x"), maps["mean"])
    np.testing.assert_array_equal(found["time"], maps["time"])
    be.write_map(maps, tmp_path / "packed.zarr", packed={"mean": (1e-3, 0.0)}, progressbar=False)
    assert float(abs(read_grid(tmp_path / "packed.zarr")["mean"] - maps["mean"]).max()) <= 0.5001e-3


def test_chunks_hold_all_members_and_about_a_million_cells(tmp_path):
    values = np.zeros((3, 8, 1200, 900), np.float32)
    given = xr.Dataset({"prediction": (("member", "time", "y", "x"), values)}, {"member": ["a", "b", "c"]})
    given.to_zarr(
        tmp_path / "a.zarr", zarr_format=3, encoding={"prediction": {"chunks": (1, 2, 200, 300)}}, consolidated=False
    )
    given.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    for name in ("a.zarr", "a.nc"):
        chunks = read_grid(tmp_path / name)["prediction"].chunksizes
        assert chunks["member"] == (3,)
        cells = np.prod([max(chunks[dim]) for dim in ("time", "y", "x")])
        assert 2**18 <= cells <= 2**20
    found = read_grid(tmp_path / "a.zarr").chunksizes
    assert all(size % side == 0 for dim, side in (("time", 2), ("y", 200), ("x", 300)) for size in found[dim])


def test_chunks_are_smaller_where_memory_is(tmp_path):
    xr.Dataset({"rf": (("y", "x"), np.zeros((900, 1200), np.float32))}).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    chunks = read_grid(tmp_path / "a.nc", memory=100_000_000).chunksizes
    assert 25_000 <= max(chunks["y"]) * max(chunks["x"]) <= 50_000


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"has no GeoTIFFs \(.tif\)"):
        read_grid(tmp_path / "none")
    (tmp_path / "a.csv").write_text("a")
    with pytest.raises(ValueError, match=r"has the suffix '.csv'; wanted a .zarr store"):
        read_grid(tmp_path / "a.csv")
    given = grid()
    write_tif(tmp_path / "none/rf_2020-01-01.tif", ["rf"], given, 0)
    write_tif(tmp_path / "none/other.tif", ["rf"], given, 0)
    with pytest.raises(ValueError, match=r"'other.tif' have no date in their names"):
        read_grid(tmp_path / "none")
    with rasterio.open(tmp_path / "plain.tif", "w", driver="GTiff", height=2, width=2, count=2, dtype="float32",
                       transform=rasterio.transform.from_origin(5, 5, 1, 1)) as file:  # fmt: skip
        file.write(np.zeros((2, 2, 2), np.float32))
    with pytest.raises(ValueError, match="wanted a name of its own for each of the 2"):
        read_grid(tmp_path / "plain.tif")
    (tmp_path / "two").mkdir()
    write_tif(tmp_path / "two/rf.tif", ["rf"], given, 0)
    write_tif(tmp_path / "two/svr.tif", ["svr"], given.isel(x=slice(0, 5)), 0)
    with pytest.raises(ValueError, match="svr lies on another grid than the first GeoTIFF"):
        read_grid(tmp_path / "two")


@pytest.mark.parametrize("name", ["a.nc", "a.zarr", "a.tif"])
def test_a_damaged_file_is_named(tmp_path, name):
    path = tmp_path / name
    if name == "a.zarr":
        path.mkdir()
    else:
        path.write_bytes(b"half of a file" * 50)
    with pytest.raises(
        OSError, match=rf"{name} cannot be read as what its name says .* it may be damaged, or of another"
    ):
        read_grid(path)
