"""A disk that is really full: a small one in memory, which takes rights of the system to make."""

import os
import subprocess

import numpy as np
import pytest
import xarray as xr

import bayesens as be
from bayesens.geo.stores import outputs

SIDE = 900


@pytest.fixture
def disk(tmp_path):
    """Forty megabytes."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40M", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no right to mount a disk in memory")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*it may not do:UserWarning")
@pytest.mark.parametrize(("suffix", "ballast"), [(".zarr", 33), (".nc", 33), (".nc", 24), ("", 33), ("", 24)])
def test_a_full_disk_keeps_what_is_finished(disk, monkeypatch, suffix, ballast):
    """Ballast leaves room for some tiles, or for all of them and not for the file that is put together from them."""
    monkeypatch.setattr(outputs, "COMPRESSED", 0.0)  # it is let try
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    values = np.random.default_rng(0).normal(size=(3, SIDE, SIDE)).astype(np.float32)
    maps = xr.Dataset(
        {"mean": (("time", "lat", "lon"), values)},
        {"time": [0, 1, 2], "lat": 50 - np.arange(SIDE) * 0.01, "lon": np.arange(SIDE) * 0.01},
    )
    (disk / "ballast").write_bytes(os.urandom(ballast * 2**20))
    path, options = disk / f"maps{suffix}", {"crs": "EPSG:4326", "memory": "8MB", "progressbar": False}
    with pytest.raises(OSError, match=r"is full \(\d+ MB are free\): \d+ finished tiles are kept in maps") as caught:
        be.write_map(maps, path, **options)
    assert caught.value.errno == 28
    assert sorted(one.name for one in disk.iterdir()) == ["ballast", f"maps{suffix}.unfinished"]
    (disk / "ballast").unlink()
    found = be.write_map(maps, path, resume=True, **options)
    assert found.kept > 0
    assert [one.name for one in disk.iterdir()] == [path.name]
    if suffix:
        with xr.open_dataset(path, engine="zarr" if suffix == ".zarr" else "h5netcdf") as back:
            np.testing.assert_array_equal(back["mean"], values)
