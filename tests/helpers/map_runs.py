"""Maps to write, and a run that writes them in a process of its own, slowly enough to be killed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

EPOCH = "1700000000"  # of the history, so that files of two runs can be equal
ROWS, COLUMNS, DAYS = 40, 60, 2
CHUNK = 20


def law(lat, lon, day):
    """A value of each cell that is known without the file."""
    return np.sin(lat * 0.7) + 0.01 * lon + 0.1 * day


def lazy_maps(pause=0.0, chunk=CHUNK):
    """Maps of dask whose chunks take `pause` seconds each; some cells have no value, and one tile has none at all."""
    import dask.array as da

    def block(block_info=None):
        if pause:
            time.sleep(pause)
        (t0, t1), (y0, y1), (x0, x1) = block_info[None]["array-location"]
        day, row, column = np.meshgrid(np.arange(t0, t1), np.arange(y0, y1), np.arange(x0, x1), indexing="ij")
        values = law(row, column, day).astype(np.float32)
        values[(row < CHUNK) & (column < CHUNK) | (row % 7 == 0)] = np.nan
        return values

    chunks = ((1,) * DAYS, (chunk,) * (ROWS // chunk), (chunk,) * (COLUMNS // chunk))
    mean = da.map_blocks(block, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))
    dims = ("time", "lat", "lon")
    maps = xr.Dataset(
        {"mean": (dims, mean), "sd": (dims, abs(mean) * 0.1)},
        {"time": pd.date_range("2020-01-01", periods=DAYS), "lat": -34.0 - 0.01 * np.arange(ROWS),
         "lon": 146.0 + 0.01 * np.arange(COLUMNS), "quantile": [0.05, 0.95]},
    )  # fmt: skip
    maps["quantile_value"] = xr.concat([maps["mean"] - 1, maps["mean"] + 1], "quantile")
    units = {"units": "m3 m-3"}
    for name in maps.data_vars:
        maps[name].attrs = units | {"long_name": f"predictive {name}"}
    return maps


SCRIPT = """
import sys, warnings
sys.path.insert(0, {here!r})
from map_runs import lazy_maps
from bayesens.geo.stores.write import write_map
write_map(lazy_maps(pause={pause}), {path!r}, crs="EPSG:4326", resume={resume}, memory=80_000, workers=2, progressbar=False,
          scheduler={scheduler!r})
"""


def start(path, *, pause=0.0, resume=False, scheduler="threads"):
    """Begin to write in another process."""
    code = SCRIPT.format(
        here=str(Path(__file__).parent), path=str(path), pause=pause, resume=resume, scheduler=scheduler
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"SOURCE_DATE_EPOCH": EPOCH}, stderr=subprocess.PIPE
    )


def contents(path):
    """Digest of every file under a path, by its name there."""
    path = Path(path)
    if path.is_file():
        return {"": hashlib.sha256(path.read_bytes()).hexdigest()}
    files = sorted(one for one in path.rglob("*") if one.is_file())
    return {str(one.relative_to(path)): hashlib.sha256(one.read_bytes()).hexdigest() for one in files}


def finished(path):
    """How many tiles an unfinished output has."""
    return len(list(Path(f"{path}.unfinished", "done").glob("*.json")))
