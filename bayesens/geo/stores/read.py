"""Grids as files, read lazily: Zarr, NetCDF, a GeoTIFF or a folder of them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.messages import listed
from bayesens.tables.atomic import full_suffix

__all__ = ["read_grid"]

CELLS = 2**20  # of a chunk, all members of them
LEAST = 2**10
CELL = 2000  # bytes of a cell in work, by eight workers
DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?:T?(\d{2}):?(\d{2}):?(\d{2})?)?")
TIFS = (".tif", ".tiff")


def read_grid(path: str | os.PathLike[str], *, memory: int | None = None) -> xr.Dataset:
    """Open a grid, as dask arrays of about a million cells a chunk, along the chunks of the file.

    Parameters
    ----------
    path : str or path
        A Zarr store, a NetCDF file, a GeoTIFF whose bands have names, or a folder of GeoTIFFs. Of a folder, files with a date in
        their names are time steps, and their bands variables by name; other files are variables, by the names of the files.
    memory : int, optional
        Bytes that maps of it may take while they are made: chunks are smaller where a million cells would take too many.

    Returns
    -------
    Dataset
        Packed numbers and fill values are decoded, and the grid mapping is a coordinate.

    Raises
    ------
    FileNotFoundError
    ValueError
        If it is none of these, if bands have no names, or if files lie on other grids than the first.

    Examples
    --------
    >>> read_grid("no/such.zarr")
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no grid no/such.zarr; wanted a .zarr store, a .nc file, a .tif or a folder of them
    """
    place = Path(path).absolute()  # workers elsewhere have another working folder
    wanted = "wanted a .zarr store, a .nc file, a .tif or a folder of them"
    if not place.exists():
        raise FileNotFoundError(f"there is no grid {path}; {wanted}")
    try:
        return _chunked(_opened(place, path, wanted), memory)
    except OSError as error:  # of HDF5, Zarr or GDAL, which name neither the file nor what to do
        raise OSError(f"{path} cannot be read as what its name says ({str(error).splitlines()[0]}): it may be damaged, or "
                      f"of another kind; {wanted}") from error  # fmt: skip


def _opened(place: Path, path: Any, wanted: str) -> xr.Dataset:
    """The grid in the chunks of its file, or in none."""
    suffix = full_suffix(place).lower()
    if suffix in TIFS:
        return _of_bands(place)
    if suffix == ".zarr" or (place / "zarr.json").exists() or (place / ".zgroup").exists():
        return _of_zarr(place)
    if place.is_dir():
        files = sorted(one for one in place.iterdir() if one.suffix.lower() in TIFS)
        if not files:
            raise ValueError(f"the folder {path} has no GeoTIFFs (.tif); {wanted}")
        return _of_folder(files)
    if suffix not in (".nc", ".nc4"):
        raise ValueError(f"{path} has the suffix {suffix!r}; {wanted}")
    return xr.open_dataset(place, engine="h5netcdf", decode_coords="all")


def _of_zarr(place: Path) -> xr.Dataset:
    whole = (place / ".zmetadata").exists() or b'"consolidated_metadata"' in _head(place / "zarr.json")
    return xr.open_zarr(place, chunks=None, consolidated=whole, decode_coords="all")


def _head(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def _chunked(grid: xr.Dataset, memory: int | None) -> xr.Dataset:
    """All variables in the same chunks: those of the largest, by as many as make a million cells."""
    most = CELLS if memory is None else min(CELLS, max(LEAST, memory // CELL))
    sizes = dict(grid.sizes)
    members = sizes.pop("member", 1)
    own: dict[str, int] = {}
    for one in sorted(grid.data_vars.values(), key=lambda one: one.size):
        own |= {str(dim): size for dim, size in one.encoding.get("preferred_chunks", {}).items()}
    sides = {dim: min(own.get(str(dim), size), size) for dim, size in sizes.items()}
    order = list(max(grid.data_vars.values(), key=lambda one: one.size).dims)[::-1] if grid.data_vars else []
    cells = int(np.prod(list(sides.values())))
    for dim in (dim for dim in order if dim in sides):  # small chunks of a file are read together, large ones in parts
        while cells * 2 <= most and sides[dim] < sizes[dim]:
            cells = cells // sides[dim]
            sides[dim] = min(2 * sides[dim], sizes[dim])
            cells *= sides[dim]
    for dim in (dim for dim in order[::-1] if dim in sides):
        while cells > most and sides[dim] > 1:
            cells = cells // sides[dim]
            sides[dim] = -(-sides[dim] // 2)
            cells *= sides[dim]
    return grid.chunk({**sides, **({"member": -1} if members > 1 else {})})


# ------------------------------------------------------------------------------------------------------------- GeoTIFFs
def _of_folder(files: list[Path]) -> xr.Dataset:
    dates = [_date(one) for one in files]
    if all(date is None for date in dates):
        named = {one.stem: _open(one) for one in files}
        first = next(iter(named.values()))
        for name, one in named.items():
            _check_grid(first, one, name)
        return xr.Dataset({name: one.isel(band=0, drop=True) for name, one in named.items()})
    if lacking := [one.name for one, date in zip(files, dates, strict=True) if date is None]:
        raise ValueError(f"of the GeoTIFFs in {files[0].parent}, {listed(lacking)} have no date in their names, and others have; "
                         "wanted files such as members_2020-01-31.tif, or such as rf.tif")  # fmt: skip
    steps = [_of_bands(one) for one in files]
    for file, step in zip(files, steps, strict=True):
        _check_grid(steps[0], step, file.name)
    return xr.concat(steps, pd.DatetimeIndex(dates, name="time"), join="override", coords="minimal", compat="override")


def _date(file: Path) -> pd.Timestamp | None:
    found = DATE.search(file.stem)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
    try:
        return pd.Timestamp(year, month, day, hour, minute, second).as_unit("ns")
    except ValueError:
        return None


def _of_bands(file: Path) -> xr.Dataset:
    """A file whose bands are variables."""
    array = _open(file)
    names = array.attrs.get("long_name", ())
    names = (names,) if isinstance(names, str) else tuple(names)
    if len(names) != array.sizes["band"] or len(set(names)) != len(names) or not all(names):
        raise ValueError(f"the bands of {file} are called {listed(names) or 'nothing'}; wanted a name of its own for each of the "
                         f"{array.sizes['band']}: members, and what else the fit looks at (gdal_edit, or rasterio's "
                         "set_band_description)")  # fmt: skip
    plain = array.drop_attrs(deep=False).drop_vars("band")
    return xr.Dataset({name: plain.isel(band=k) for k, name in enumerate(names)})


def _open(file: Path) -> Any:
    try:
        import rioxarray
    except ImportError as error:
        raise ImportError(
            "GeoTIFFs are read with the extra geo: pip install 'bayesens[geo]'; or write the grid as .zarr or .nc"
        ) from error
    # Without a lock each thread opens the file for itself; with one, a file that stays open is an error when Python ends.
    return rioxarray.open_rasterio(file, mask_and_scale=True, chunks=None, cache=False, lock=False)


def _check_grid(first: Any, other: Any, name: str) -> None:
    same = all(first.sizes[dim] == other.sizes[dim] and np.array_equal(first[dim], other[dim]) for dim in ("y", "x"))
    if not same or first.rio.crs != other.rio.crs:
        raise ValueError(f"{name} lies on another grid than the first GeoTIFF; bring all to one grid first (gdalwarp)")
