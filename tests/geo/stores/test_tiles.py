"""Tiles: whole chunks, within memory, all of the grid once; and what they take."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import bayesens as be
from bayesens.geo.stores import engine
from bayesens.geo.stores.tiles import Tiles, bytes_in, choose_tiles, inner_chunk
from bayesens.geo.stores.watch import watching
from map_runs import CHUNK, COLUMNS, DAYS, EPOCH, ROWS, contents, lazy_maps

SIZES = st.tuples(st.integers(1, 7), st.integers(1, 500), st.integers(1, 500))


def empty(sizes, chunks=None):
    values = np.broadcast_to(np.float32(0), sizes)
    maps = xr.Dataset({"mean": (("time", "lat", "lon"), values)})
    return maps if chunks is None else maps.chunk(dict(zip(("time", "lat", "lon"), chunks, strict=True)))


@settings(deadline=None, max_examples=60)
@given(
    SIZES,
    st.none() | st.tuples(st.integers(1, 3), st.integers(20, 90), st.integers(20, 90)),
    st.integers(10**5, 10**8),
    st.integers(1, 8),
)
def test_tiles_cover_the_grid_once_within_memory(sizes, chunks, memory, workers):
    maps, cell = empty(sizes, chunks), 40
    smallest = math.prod(min(a, b) for a, b in zip(sizes, chunks or (1, 1, 1), strict=True)) * cell
    if smallest > memory:
        with pytest.raises(ValueError, match="One chunk of the maps"):
            choose_tiles(maps, ("time", "lat", "lon"), ("lat", "lon"), memory=memory, workers=workers, cell_bytes=cell)
        return
    tiles, at_a_time = choose_tiles(
        maps, ("time", "lat", "lon"), ("lat", "lon"), memory=memory, workers=workers, cell_bytes=cell
    )
    assert 1 <= at_a_time <= workers
    assert math.prod(tiles.shape.values()) * cell * at_a_time <= memory
    if chunks is not None:
        for (dim, side), chunk in zip(tiles.shape.items(), chunks, strict=True):
            assert side % min(chunk, sizes[list(tiles.sizes).index(dim)]) == 0 or side == tiles.sizes[dim]
    if len(tiles) < 300:
        seen = np.zeros(sizes, int)
        for region in tiles.regions():
            seen[tuple(region.values())] += 1
        assert (seen == 1).all()
        assert sum(tiles.cells_of(number) for number in range(len(tiles))) == tiles.cells


def test_numbers_of_tiles_and_places_agree():
    tiles = Tiles({"a": 5, "b": 7, "c": 3}, {"a": 2, "b": 3, "c": 3})
    assert len(tiles) == 3 * 3 * 1
    assert [tuple(tiles.places(number).values()) for number in range(len(tiles))] == list(np.ndindex(3, 3, 1))


@pytest.mark.parametrize("side", [1, 100, 256, 257, 300, 1000, 2000, 2003, 4096])
def test_chunks_divide_tiles(side):
    assert side % inner_chunk(side) == 0


@pytest.mark.parametrize(("text", "amount"), [("2GB", 2 * 10**9), (1e6, 10**6), ("0.5 GiB", 2**29), ("100kb", 10**5)])
def test_amounts_of_memory(text, amount):
    assert bytes_in(text) == amount


@pytest.mark.parametrize("text", ["much", "2 XB", "-1GB", "0", ""])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(ValueError, match="memory is"):
        bytes_in(text)


def test_chunks_that_are_too_large_are_told_with_the_next_move(tmp_path):
    maps = empty((1, 4000, 4000), (1, 4000, 4000))
    words = r"One chunk of the maps \(time: 1, lat: 4000, lon: 4000\) takes about .* MB .*; chunk the grid finer, to"
    with pytest.raises(ValueError, match=words):
        be.write_map(maps, tmp_path / "maps.zarr", crs="unknown", memory="50MB")
    assert not list(tmp_path.iterdir())


def test_a_tile_without_values_takes_no_place(tmp_path):
    """Sea: nothing is stored but the flags, and all formats read it back as missing."""
    be.write_map(lazy_maps(), tmp_path / "maps.zarr", crs="EPSG:4326", memory=80_000, workers=2, progressbar=False)
    files = sorted(
        one.relative_to(tmp_path / "maps.zarr/mean").as_posix()
        for one in (tmp_path / "maps.zarr/mean/c").rglob("*")
        if one.is_file()
    )
    expected = [
        (t, y, x)
        for t in range(DAYS)
        for y in range(ROWS // CHUNK)
        for x in range(COLUMNS // CHUNK)
        if (y, x) != (0, 0)
    ]
    assert files == sorted(f"c/{t}/{y}/{x}" for t, y, x in expected)
    be.write_map(lazy_maps(), tmp_path / "maps.nc", crs="EPSG:4326", memory=80_000, workers=2, progressbar=False)
    for name, reader in (("maps.zarr", "zarr"), ("maps.nc", "h5netcdf")):
        with xr.open_dataset(tmp_path / name, engine=reader) as back:
            assert np.isnan(back["mean"][:, :CHUNK, :CHUNK]).all()
            assert (back["quality"][:, :CHUNK, :CHUNK] == 8).all()
            np.testing.assert_array_equal(back["mean"], lazy_maps()["mean"])


def test_variables_in_other_chunks(tmp_path):
    maps = lazy_maps().compute()
    lazy = maps.assign(mean=maps["mean"].chunk(lat=13, lon=60), sd=maps["sd"].chunk(time=2, lat=20))
    be.write_map(lazy, tmp_path / "maps.zarr", crs="EPSG:4326", memory=200_000, workers=2, progressbar=False)
    with xr.open_zarr(tmp_path / "maps.zarr") as back:
        for name in maps.data_vars:
            np.testing.assert_array_equal(back[name], maps[name])


def test_the_bar_says_rate_and_time_left(monkeypatch):
    import io

    import rich.console

    told = io.StringIO()
    own = rich.console.Console
    monkeypatch.setattr(rich.console, "Console", lambda **_: own(file=told, force_terminal=True, width=100))
    with watching(1000, 200, shown=True) as advance:
        advance(300)
        advance(300)
    assert "cells/s" in told.getvalue()
    assert "80%" in told.getvalue()


MEMORY = """
import sys
sys.path.insert(0, {here!r})
import re, numpy as np, xarray as xr, dask.array as da
import bayesens as be
def status(key):
    return int(re.search(key + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
def maps(n, side=500):
    def block(block_info=None):
        (y0, y1), (x0, x1) = block_info[None]["array-location"]
        return np.random.default_rng(y0 + x0).random((y1 - y0, x1 - x0), dtype="f4")
    mean = da.map_blocks(block, chunks=((side,) * (n // side),) * 2, dtype="f4", meta=np.empty((0, 0), "f4"))
    out = xr.Dataset({{"mean": (("lat", "lon"), mean)}}, {{"lat": np.arange(n) * -0.001, "lon": np.arange(n) * 0.001}})
    return out.assign(sd=out["mean"] * 0.1)
options = dict(crs="EPSG:4326", progressbar=False, memory="150MB", workers=2)
be.write_map(maps(1000), {folder!r} + "/warm" + {suffix!r}, **options)
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
be.write_map(maps(6000), {folder!r} + "/maps" + {suffix!r}, **options)
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("suffix", [".zarr", ".nc", ""])
def test_memory_is_bounded(tmp_path, suffix):
    """The maps are 288 MB, and 150 MB may be taken: 47 MB are, and 197 MB where memory is 2 GB."""
    code = MEMORY.format(here=str(Path(__file__).parent), folder=str(tmp_path), suffix=suffix)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150e6


def test_compression_is_the_same_in_the_main_thread(tmp_path, monkeypatch):
    """There Blosc has threads, which put blocks in the order in which they end; processes compute tiles in their main thread."""
    from numcodecs import blosc

    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    monkeypatch.setattr(engine, "work", lambda call, jobs, *_: map(call, jobs))
    threads = blosc.set_nthreads(4)
    values = np.random.default_rng(0).normal(size=(1000, 1000)).cumsum(axis=1)
    maps = xr.Dataset({"mean": (("y", "x"), values)}, {"y": -np.arange(1000.0), "x": np.arange(1000.0)})
    found = []
    for k in range(4):
        be.write_map(maps, tmp_path / f"{k}.zarr", crs="unknown", progressbar=False)
        found.append(contents(tmp_path / f"{k}.zarr"))
    blosc.set_nthreads(threads)
    assert found[0] == found[1] == found[2] == found[3]
