"""Maps written tile by tile to Zarr, NetCDF or Cloud-Optimised GeoTIFF: in bounded memory, and gone on with after a stop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from bayesens.geo.stores.cf import moment
from bayesens.geo.stores.engine import begin, check_same, digest_in, put_in_place, told_when_full, write_tiles
from bayesens.geo.stores.ledger import ledger_of
from bayesens.geo.stores.outputs import Output, cell_bytes, check_place, check_space, form_of, prepared
from bayesens.geo.stores.packing import Packed
from bayesens.geo.stores.schedulers import connected, tiles_at_a_time
from bayesens.geo.stores.tiles import bytes_in, choose_tiles
from bayesens.messages import warn

__all__ = ["WrittenMaps", "write_map"]


@dataclass(frozen=True)
class WrittenMaps:
    """What `write_map` wrote.

    Attributes
    ----------
    path : Path
    cells : int
        Of the grid.
    tiles, kept : int
        All tiles, and those that a former run had finished; no tiles where it had finished the output.
    clipped : dict of str to int
        Packed numbers that lay beyond their limits, by variable.
    seconds : dict of str to float
        ``compute``, ``write`` (packing and compression included) and ``sync``, summed over tiles that ran side by side;
        ``assemble`` and ``all`` by the clock.
    """

    path: Path
    cells: int
    tiles: int
    kept: int = 0
    clipped: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def write_map(
    maps: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    fit: xr.DataTree | None = None,
    crs: Any = None,
    packed: Packed = False,
    applicable: xr.DataArray | None = None,
    where: xr.DataArray | None = None,
    members: xr.Dataset | xr.DataArray | None = None,
    standard_name: str | None = None,
    dims: tuple[str, str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    memory: str | float = "2GB",
    scheduler: Any = "threads",
    workers: int | None = None,
    progressbar: bool = True,
) -> WrittenMaps:
    """Write maps to a file, tile by tile, so that a grid of any size goes through bounded memory.

    While it is written, the output is the folder ``PATH.unfinished`` beside `path`; it takes its place, whole, at the end. A run
    that was stopped, or killed, or met a full disk, leaves it, and the same call with ``resume=True`` goes on: no finished tile
    is computed again, and the file is the one that an unbroken run would have written, byte for byte.

    Parameters
    ----------
    maps : Dataset
        What `bayesens.predict` returned for a grid; computed tile by tile where it is lazy.
    path : str or path
        The suffix says the form: ``.zarr`` (Zarr 3, one shard a tile), ``.nc`` (NetCDF-4), or none: a folder of Cloud-Optimised
        GeoTIFFs, one a time step, with a band for each variable, quantile and threshold.
    fit : DataTree, optional
        The fit of the maps: the file names it, ``packed=True`` takes ranges from it, and another one cannot go on.
    crs : optional
        Coordinate reference system: anything that pyproj takes, such as ``"EPSG:4326"``; ``"unknown"``. Left out: that of the
        maps, or unknown with a warning.
    packed : bool or mapping of str to (scale, offset)
        Whether numbers are packed into 16 bits, value = number * scale + offset. True: over the ranges that the fit has
        seen, widened by half to both sides. The error, half a step, stands in the attributes; values beyond the range are
        set to its limit, counted and flagged.
    applicable : bool DataArray, optional
        Area of applicability, on some or all dimensions of the grid: cells outside are flagged.
    where : bool DataArray, optional
        Cells that were wanted, as `bayesens.predict` had it: all others are flagged as masked.
    members : Dataset or DataArray, optional
        The grid that was predicted from: cells in which a member is missing are flagged.
    standard_name : str, optional
        Of the predicted quantity in CF's table, such as ``"volume_fraction_of_condensed_water_in_soil"``. Left out: that of
        ``maps["mean"]``, or the one that all `members` have.
    dims : (str, str), optional
        Dimensions of rows and columns, where their names do not say it.
    overwrite : bool
        Whether a former output, finished or not, is replaced; a finished one stays until the new one is complete.
    resume : bool
        Whether an unfinished output is gone on with. One chunk of it is computed again, to see that the maps are the same.
    memory : str or float
        Bytes that tiles in work may take together, such as ``"2GB"``: the shape of tiles follows from it.
    scheduler : str or distributed.Client
        ``"threads"``, ``"processes"``, or the address of a dask scheduler, ``"tcp://host:port"``, whose workers must see the
        folder of `path`. One that does not answer in 20 s is an error.
    workers : int, optional
        Tiles that are computed side by side. Left out: as many as cores or, of a dask scheduler, as its threads.
    progressbar : bool
        Whether a bar shows cells a second and the time left.

    Returns
    -------
    WrittenMaps

    Raises
    ------
    FileExistsError
        If the output is there, finished or not, and neither `overwrite` nor `resume` says what to do.
    ValueError
        If the unfinished output is of another fit or grid; for a GeoTIFF, if the grid is not even; if a chunk of the maps takes
        more than `memory`.
    OSError
        If the disk cannot hold the output, or is full: what was finished is kept.
    TimeoutError
        If the scheduler does not answer, or loses its last worker.

    Notes
    -----
    The variable ``quality`` has a bit for each condition of a cell: a member is missing (1), outside of the area of applicability
    (2), masked (4), no value (8), clipped (16). GeoTIFFs lie with north up; Zarr and NetCDF keep the order of the maps. GDAL 3.12
    does not read shards of Zarr; xarray and rioxarray do. The date of the history is SOURCE_DATE_EPOCH, where that is set.

    References
    ----------
    CF conventions, https://cfconventions.org; GeoZarr's ``proj:`` and ``spatial:``, https://github.com/zarr-conventions;
    Cloud-Optimised GeoTIFF, https://cogeo.org.

    Examples
    --------
    >>> import tempfile
    >>> maps = xr.Dataset({"mean": (("lat", "lon"), [[1.0, 2.0]] * 2)}, {"lat": [51.0, 50.0], "lon": [4.0, 5.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = write_map(maps, f"{folder}/maps.zarr", crs="unknown", progressbar=False)
    ...     with xr.open_zarr(written.path, decode_coords="all") as back:
    ...         back["mean"].values.tolist(), back["spatial_ref"].attrs["GeoTransform"]
    ([[1.0, 2.0], [1.0, 2.0]], '3.5 1.0 0.0 51.5 0.0 -1.0')
    """
    began = time.perf_counter()
    target, room = Path(os.path.realpath(path)), bytes_in(memory)
    form = form_of(target)
    check_place(target, form, replace=overwrite or resume)
    ledger = ledger_of(target)
    goes_on = ledger.goes_on(overwrite=overwrite, resume=resume)
    begun = ledger.plan["begun"] if goes_on else moment()
    output = prepared(
        maps, target, form, fit=fit, crs=crs, packed=packed, applicable=applicable, where=where, members=members,
        standard_name=standard_name, dims=dims, begun=begun,
    )  # fmt: skip
    if goes_on and ledger.arrived:
        ledger.remove()
        return _finished_before(output)
    if target.exists() and not overwrite and not goes_on:
        return _finished_before(output)
    with connected(scheduler) as workforce:
        tiles, at_a_time = choose_tiles(
            output.maps, output.grid, (output.axes.y, output.axes.x), memory=room,
            workers=tiles_at_a_time(workforce, workers), cell_bytes=cell_bytes(output, fit),
        )  # fmt: skip
        if goes_on:
            tiles = check_same(output, ledger)
        kept = len(ledger.done()) if goes_on else 0
        check_space(output, tiles, kept)
        with ledger.held(), told_when_full(output, ledger):
            if goes_on:
                ledger.sweep()
            else:
                begin(output, ledger, tiles, begun)
            parts, clipped = write_tiles(output, ledger, tiles, workforce, at_a_time, progressbar)
            parts["assemble"] = put_in_place(output, ledger, tiles, clipped, room)
    for name, count in clipped.items():
        warn(f"{count} of {output.maps[name].size} numbers of {name!r} lay beyond what they are packed into, and are set to its "
             f"limit and flagged; give it a wider packed={{{name!r}: (scale, offset)}}.")  # fmt: skip
    return WrittenMaps(target, tiles.cells, len(tiles), kept, clipped, parts | {"all": time.perf_counter() - began})


def _finished_before(output: Output) -> WrittenMaps:
    """Nothing to do where resume finds the output finished; refused where it is another one."""
    if digest_in(output.path, output.form) != output.digest:
        raise FileExistsError(f"{output.path} is there, finished, and of another fit, grid or version: there is nothing to go on "
                              "with. Name another output, or replace it: overwrite=True")  # fmt: skip
    cells = math.prod(output.maps.sizes[dim] for dim in output.grid)
    return WrittenMaps(output.path, cells, 0)
