"""The door of `write_map`: what is written, where and in what form, checked before the work."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesens import __version__
from bayesens.geo.stores.axes import Axes, find_axes
from bayesens.geo.stores.cf import described, file_attributes, fit_digest
from bayesens.geo.stores.crs import crs_of
from bayesens.geo.stores.packing import Packed, Packing, packings
from bayesens.geo.stores.quality import QUALITY, Conditions, conditions_of, said_by_members
from bayesens.geo.stores.tiles import Tiles
from bayesens.messages import listed, warn
from bayesens.tables.atomic import check_writable, full_suffix

__all__ = ["DIGEST", "FORMS", "Output", "cell_bytes", "check_place", "check_space", "form_of", "prepared"]

FORMS = {".zarr": "zarr", ".nc": "netcdf", "": "geotiff"}
DIGEST = "bayesens_map_digest"  # the attribute, or tag, by which a finished output is known again
COPIES = 3  # of a tile's numbers: as they are computed, as variables, and packed or compressed
MEMBERS = 4  # where the fit does not say how many are read
TWICE = {"zarr": 1.0, "netcdf": 2.0, "geotiff": 2.0}  # tiles, and the file that is put together from them
COMPRESSED = 0.5  # of its bytes, at best, is what noisy numbers take on the disk


@dataclass(frozen=True, eq=False)
class Output:
    """What is written.

    Attributes
    ----------
    path : Path
    form : str
        ``"zarr"``, ``"netcdf"`` or ``"geotiff"``.
    maps : Dataset
        With the attributes of CF; lazy or not.
    streamed : tuple of str
        Variables that are written tile by tile; the others are small.
    grid : tuple of str
        Dimensions of the grid.
    axes : Axes
    crs : pyproj.CRS or None
    packed : dict of str to Packing
    conditions : Conditions
    plan : dict
        All that decides what the file will hold, but for the values of the maps.
    """

    path: Path
    form: str
    maps: xr.Dataset
    streamed: tuple[str, ...]
    grid: tuple[str, ...]
    axes: Axes
    crs: Any
    packed: Mapping[str, Packing]
    conditions: Conditions
    plan: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the plan."""
        return hashlib.sha256(json.dumps(self.plan, sort_keys=True).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Bytes of all streamed variables before they are compressed."""
        cells = sum(self.maps[name].size * self.itemsize(name) for name in self.streamed)
        return cells + int(np.prod([self.maps.sizes[dim] for dim in self.grid]))

    def itemsize(self, name: str) -> int:
        """Bytes of a number on the disk, before it is compressed."""
        return 2 if name in self.packed else self.maps[name].dtype.itemsize


def form_of(path: Path) -> str:
    """Tell the form of an output from its suffix.

    Examples
    --------
    >>> form_of(Path("soil.zarr")), form_of(Path("soil.nc")), form_of(Path("soil"))
    ('zarr', 'netcdf', 'geotiff')
    """
    suffix = full_suffix(path).lower()
    if suffix in (".tif", ".tiff"):
        raise ValueError(f"{path} names one GeoTIFF, and maps are a folder of them, one a time step: write_map(maps, "
                         f"{str(path.with_suffix(''))!r})")  # fmt: skip
    if suffix not in FORMS:
        raise ValueError(f"{path} has the suffix {suffix!r}; wanted .zarr, .nc, or none for a folder of GeoTIFFs")
    return FORMS[suffix]


def check_place(path: Path, form: str, *, replace: bool) -> None:
    """Refuse a place that cannot be written, or where something is that was not to be replaced.

    Parameters
    ----------
    path : Path
    form : str
    replace : bool
        Whether a former output may be replaced.

    Raises
    ------
    OSError
    """
    if form != "geotiff" or not path.is_dir():
        check_writable(path)
    if not path.exists():
        return
    if not replace:
        raise FileExistsError(f"{path} is there already; name another output, or replace it: overwrite=True")
    if form == "geotiff" and (others := [one.name for one in path.iterdir() if one.suffix != ".tif"]):
        raise FileExistsError(
            f"{path} is a folder that holds {listed(others)} too, and is not replaced; name another one"
        )


def prepared(
    maps: xr.Dataset,
    path: Path,
    form: str,
    *,
    fit: xr.DataTree | None,
    crs: Any,
    packed: Packed,
    applicable: xr.DataArray | None,
    where: xr.DataArray | None,
    members: xr.Dataset | xr.DataArray | None,
    standard_name: str | None,
    dims: tuple[str, str] | None,
    begun: str,
) -> Output:
    """Check everything, and put it together; see `bayesens.write_map` for the parameters.

    `begun` is the moment of the file's history.
    """
    came: object = maps
    if not isinstance(came, xr.Dataset) or "mean" not in maps.data_vars:
        what = (
            f"a dataset with {listed(map(str, maps.data_vars))}"
            if isinstance(came, xr.Dataset)
            else type(came).__name__
        )
        raise TypeError(
            f"maps is {what}; wanted what be.predict returned for a grid, a Dataset with the variable 'mean'"
        )
    grid = tuple(str(dim) for dim in maps["mean"].dims)
    if empty := [dim for dim in grid if not maps.sizes[dim]]:
        raise ValueError(f"the maps have no cells: {listed(empty)} has length 0; wanted at least one of each dimension")
    if QUALITY in maps:
        raise ValueError(f"the maps have a variable {QUALITY!r}, which write_map makes; rename it")
    axes = find_axes(maps, grid, dims)
    if form == "geotiff":
        _check_even(axes, path)
    found = crs_of(maps, crs, axes)
    plain = maps.assign({name: one.astype(np.uint8) for name, one in maps.data_vars.items() if one.dtype == bool})
    plain = _same_chunks(plain)
    streamed = tuple(str(name) for name, one in plain.data_vars.items() if set(grid) <= set(map(str, one.dims)))
    floats = [name for name in streamed if plain[name].dtype.kind == "f"]
    packing = packings(plain, floats, packed, fit)
    names = json.loads(fit.attrs["bayesens_members"]) if fit is not None else None
    conditions = conditions_of(plain, grid, applicable=applicable, where=where, members=members, names=names)
    standard_name = standard_name or plain["mean"].attrs.get("standard_name") or said_by_members(members, names)
    out = described(plain, axes, found, packing, standard_name).assign_attrs(file_attributes(plain, fit, begun))
    plan = _plan(out, form, streamed, grid, packing, conditions, found, fit)
    return Output(path, form, out, streamed, grid, axes, found, packing, conditions, plan)


def _same_chunks(maps: xr.Dataset) -> xr.Dataset:
    """Variables of dask cut at the same places, so that tiles can be whole chunks of all."""
    try:
        _ = maps.chunks
    except ValueError:
        return maps.unify_chunks()
    return maps


def _check_even(axes: Axes, path: Path) -> None:
    if axes.transform is not None:
        return
    why = (f"its coordinates {listed(axes.flat)} lie on ({axes.y}, {axes.x})" if axes.flat and axes.rows is None
           else f"the coordinates of {axes.y!r} and {axes.x!r} are not evenly spaced, or are not there")  # fmt: skip
    raise ValueError(f"A GeoTIFF has one corner and one size of cell, and this grid has none: {why}. Write it as "
                     f"{path.name}.zarr or {path.name}.nc, or bring it to an even grid first (gdalwarp).")  # fmt: skip


def _plan(
    maps: xr.Dataset, form: str, streamed: tuple[str, ...], grid: tuple[str, ...], packed: Mapping[str, Packing],
    conditions: Conditions, crs: Any, fit: xr.DataTree | None,
) -> dict[str, Any]:  # fmt: skip
    """What a run that goes on must find as it was, part by part, so that a refusal can name the part."""
    plan: dict[str, Any] = {"version": __version__, "form": form, "fit": "" if fit is None else fit_digest(fit)}
    plan["grid"] = {dim: maps.sizes[dim] for dim in grid}
    plan["variables"] = {name: [list(map(str, maps[name].dims)), maps[name].dtype.str] for name in streamed}
    plan["packing"] = {name: [one.scale, one.offset] for name, one in packed.items()}
    plan["crs"] = "" if crs is None else crs.to_wkt()
    plan["conditions"] = [one is not None for one in (conditions.applicable, conditions.where, conditions.members)]
    plan["attributes"] = _sha({str(name): one.attrs for name, one in maps.data_vars.items()})
    kept = [name for name in maps.variables if name not in streamed]
    plan["coordinates"] = {str(name): _values_sha(maps[name]) for name in kept}
    return plan


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _values_sha(one: xr.DataArray) -> str:
    values = np.asarray(one.values)
    digest = hashlib.sha256(f"{one.dims}{values.shape}{values.dtype}".encode())
    digest.update(values.astype(str).tobytes() if values.dtype.kind in "OU" else np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def cell_bytes(output: Output, fit: xr.DataTree | None) -> int:
    """Bytes of memory that a cell takes until its tile is written: its numbers some times over, and the members."""
    each = sum(output.maps[name].size // _cells(output) * output.maps[name].dtype.itemsize for name in output.streamed)
    members = len(json.loads(fit.attrs["bayesens_members"])) if fit is not None else MEMBERS
    read = 0 if output.conditions.members is None else members * output.conditions.members.dtype.itemsize
    lazy = 2 * members * output.maps["mean"].dtype.itemsize if output.maps["mean"].chunks else 0
    return COPIES * each + read + lazy


def _cells(output: Output) -> int:
    return int(np.prod([output.maps.sizes[dim] for dim in output.grid]))


def check_space(output: Output, tiles: Tiles, done: int) -> None:
    """Refuse an output that the disk cannot hold, and warn of one that it may not hold.

    Parameters
    ----------
    output : Output
    tiles : Tiles
    done : int
        Finished tiles.

    Raises
    ------
    OSError
    """
    left = 1 - done / len(tiles)
    needed = output.bytes * (left + TWICE[output.form] - 1)
    free = shutil.disk_usage(output.path.absolute().parent).free
    said = (f"{output.path} needs up to {needed / 1e9:,.2f} GB ({tiles.cells:,} cells, before they are compressed), and "
            f"{free / 1e9:,.2f} GB are free there")  # fmt: skip
    if needed * COMPRESSED > free:
        raise OSError(f"{said}: too little even if they take half of that. Make room, name another disk, take packed=True "
                      "(16 bits a number), or fewer quantiles.")  # fmt: skip
    if needed > free:
        warn(f"{said}: it may not do. If the disk is full, finished tiles are kept, and resume=True goes on.")
