"""The steps of `write_map`: a ledger begun or gone on with, tiles computed and written, the file put in its place."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesens.geo.stores.cf import quality_attributes
from bayesens.geo.stores.crs import GRID_MAPPING, geozarr_attributes
from bayesens.geo.stores.ledger import Ledger, differences
from bayesens.geo.stores.outputs import DIGEST, Output
from bayesens.geo.stores.quality import QUALITY
from bayesens.geo.stores.schedulers import work
from bayesens.geo.stores.tiles import Tiles
from bayesens.geo.stores.watch import watching
from bayesens.geo.stores.zarr_store import Job, begin_store, close_store, read_block, write_tile

__all__ = ["begin", "check_same", "digest_in", "put_in_place", "told_when_full", "write_tiles"]

FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))  # Windows has no quota
LIKE = 64  # cells of a side that are compared with a former run's, where the maps lie in memory
ALIKE = 1e-4  # relative: another number of threads may change last digits


def begin(output: Output, ledger: Ledger, tiles: Tiles, begun: str) -> None:
    """Begin anew: an empty store, and the plan."""
    ledger.clear()
    maps = output.maps.assign_attrs({DIGEST: output.digest})
    shape = tuple(maps.sizes[dim] for dim in output.grid)
    maps[QUALITY] = xr.Variable(output.grid, np.broadcast_to(np.uint8(0), shape), quality_attributes())
    maps[QUALITY].encoding = {"grid_mapping": GRID_MAPPING}
    begin_store(maps, ledger.store, tiles, output.packed, [*output.streamed, QUALITY])
    ledger.begin(output.plan | {"tile": dict(tiles.shape), "begun": begun})


def check_same(output: Output, ledger: Ledger) -> Tiles:
    """Refuse to go on with an output of another fit or other maps, and give the tiles that it has.

    The plans are compared and, as coordinates do not say whose values a lazy map has, so is one chunk of a finished tile.
    """
    plan = ledger.plan
    if other := differences(plan, output.plan):
        raise ValueError(f"{ledger.folder} was begun with another {other} than this call has: it cannot be gone on with. Repeat "
                         "the call that began it, name another output, or begin anew: overwrite=True")  # fmt: skip
    tiles = Tiles({dim: output.maps.sizes[dim] for dim in output.grid}, plan["tile"])
    done = ledger.done()
    if done:
        number = max(done, key=lambda one: (done[one]["cells"], -one))
        _check_values(output, ledger, tiles.region(number))
    return tiles


def _check_values(output: Output, ledger: Ledger, region: dict[str, slice]) -> None:
    mean = output.maps["mean"]
    sides = {dim: mean.chunksizes[dim][0] if dim in mean.chunksizes else LIKE for dim in output.grid}
    part = {dim: slice(one.start, min(one.start + sides[dim], one.stop)) for dim, one in region.items()}
    now = mean.isel(part).values
    then = read_block(ledger.store, "mean", tuple(part.values()))
    if (packing := output.packed.get("mean")) is not None:
        same = bool(np.all(np.abs(packing.pack(now)[0].astype(int) - then) <= 1))
    else:
        spread = float(np.nanmax(now) - np.nanmin(now)) if np.isfinite(now).any() else 0.0
        same = np.allclose(now, then, rtol=ALIKE, atol=ALIKE * spread, equal_nan=True)
    if not same:
        raise ValueError(f"{ledger.folder} has other values than these maps where a tile was finished: it was made of "
                         "other members. Repeat the call that began it, name another, or begin anew: overwrite=True")  # fmt: skip


def write_tiles(
    output: Output, ledger: Ledger, tiles: Tiles, workforce: Any, at_a_time: int, progressbar: bool
) -> tuple[dict[str, float], dict[str, int]]:
    """Compute and write all tiles that are not finished.

    Returns
    -------
    seconds : dict of str to float
    clipped : dict of str to int
        Of all tiles, those of former runs too.
    """
    done = ledger.done()
    maps = output.maps[list(output.streamed)].drop_vars([name for name in output.maps.coords if name != "member"])
    todo = [number for number in range(len(tiles)) if number not in done]
    seconds, clipped = np.zeros(3), _clipped({}, done.values())
    finished = sum(tiles.cells_of(number) for number in done)
    jobs = (_job(output, ledger, tiles, maps, number) for number in todo)
    with watching(tiles.cells, finished, progressbar) as advance:
        for number, said in work(write_tile, jobs, workforce, at_a_time):
            seconds += said["seconds"]
            clipped = _clipped(clipped, [said])
            advance(tiles.cells_of(number))
    if lost := [number for number in range(len(tiles)) if number not in ledger.done()]:
        raise OSError(f"{len(lost)} tiles were written by workers and are not in {ledger.folder}: the workers must see the same "
                      "folder as this process, a network drive under the same path.")  # fmt: skip
    return dict(zip(("compute", "write", "sync"), seconds.tolist(), strict=True)), clipped


def _clipped(so_far: dict[str, int], said: Any) -> dict[str, int]:
    found = dict(so_far)
    for one in said:
        for name, count in one["clipped"].items():
            found[name] = found.get(name, 0) + count
    return dict(sorted(found.items()))


def _job(output: Output, ledger: Ledger, tiles: Tiles, maps: xr.Dataset, number: int) -> Job:
    region = tiles.region(number)
    cut, conditions = maps.isel(region), output.conditions.cut(region)
    if cut.chunks or conditions.lazy:
        import dask

        cut, *arrays = dask.optimize(cut, *conditions.arrays)  # what other tiles need stays here
        conditions = conditions.of(arrays)
    return Job(number, region, tiles.places(number), cut, conditions, output.packed, str(ledger.folder))


def put_in_place(output: Output, ledger: Ledger, tiles: Tiles, clipped: dict[str, int], memory: int) -> float:
    """Make the file from the tiles, and move it to where it belongs; seconds that it took."""
    began = time.perf_counter()
    sizes = {dim: output.maps.sizes[dim] for dim in (output.axes.y, output.axes.x)}
    if output.form == "zarr":
        close_store(ledger.store, clipped, geozarr_attributes(output.crs, output.axes, sizes))
        made = ledger.store
    elif output.form == "netcdf":
        from bayesens.geo.stores.netcdf import assemble

        made = assemble(output, ledger, tiles, clipped)
    else:
        from bayesens.geo.stores.geotiff import assemble_steps

        made = assemble_steps(output, ledger, tiles, clipped, memory)
    ledger.move(made, output.path)
    ledger.remove()
    return time.perf_counter() - began


@contextmanager
def told_when_full(output: Output, ledger: Ledger) -> Iterator[None]:
    """Say of a full disk what is kept, and how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        kept = f"{len(ledger.done())} finished tiles are kept" if ledger.begun else "nothing was finished"
        free = shutil.disk_usage(output.path.parent).free
        raise OSError(
            error.errno,
            f"The disk of {output.path} is full ({free / 1e6:,.0f} MB are free): {kept} in {ledger.folder.name}. Make room and "
            "repeat the call with resume=True; or begin anew with packed=True, 16 bits a number.",
        ) from error


def digest_in(path: Path, form: str) -> str:
    """The plan's digest that a finished output holds; nothing where it has none."""
    if form == "zarr":
        import zarr

        return str(zarr.open_group(path, mode="r").attrs.get(DIGEST, ""))
    if form == "netcdf":
        import h5netcdf  # type: ignore[import-untyped]

        with h5netcdf.File(path, "r") as file:
            return str(file.attrs.get(DIGEST, ""))
    from bayesens.geo.stores.geotiff import digest_of_steps

    return digest_of_steps(path)
