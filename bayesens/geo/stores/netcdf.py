"""A NetCDF-4 file put together from finished tiles.

HDF5 has one writer and cannot be gone on with after a kill; and a full disk takes its process down. So tiles wait in the Zarr
store until all are there, chunks are compressed in threads of ours and given to HDF5 as they are, and room is looked for before.
"""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.geo.stores.ledger import Ledger, sync
from bayesens.geo.stores.outputs import Output
from bayesens.geo.stores.quality import QUALITY
from bayesens.geo.stores.tiles import Tiles
from bayesens.geo.stores.zarr_store import read_block
from bayesens.threads import share_out

__all__ = ["assemble"]

LEVEL = 4  # of zlib
OWN_TYPE = ("flag_masks", "valid_range")  # attributes of the type of their variable, which JSON does not know
SPARE = 2**22  # bytes beside what is known to be wanted
Place = tuple[int, ...]


def assemble(output: Output, ledger: Ledger, tiles: Tiles, clipped: dict[str, int]) -> Path:
    """Write the file beside its place.

    Parameters
    ----------
    output : Output
    ledger : Ledger
        With all tiles finished.
    tiles : Tiles
    clipped : dict of str to int
        Packed numbers beyond their limits, by variable.

    Returns
    -------
    Path
    """
    import h5py  # type: ignore[import-untyped]
    import zarr

    path = ledger.folder / "data.nc"
    store = zarr.open_group(ledger.store, mode="r", use_consolidated=False)
    names = [*output.streamed, QUALITY]
    _begin(ledger.store, path, names)
    _add_variables(path, store, names, clipped)
    with h5py.File(path, "r+") as file:
        for number in range(len(tiles)):
            for name in names:
                _copy(file[name], ledger, store[name], name, tiles.region(number), path)
    sync(path)
    return path


def _begin(store: Path, path: Path, names: list[str]) -> None:
    """Coordinates and attributes, as the store has them."""
    with xr.open_zarr(store, consolidated=False, chunks=None, decode_coords="all", drop_variables=names) as small:
        small = small.load()
    small = small[sorted(map(str, small.variables))]  # a folder lists its files in any order
    for one in small.variables.values():
        own = one.encoding
        one.encoding = {key: own[key] for key in ("grid_mapping", "bounds", "units", "calendar", "dtype") if key in own}
        if np.issubdtype(one.dtype, np.floating):
            one.encoding["_FillValue"] = None
    small.to_netcdf(path, engine="h5netcdf")


def _add_variables(path: Path, store: Any, names: list[str], clipped: dict[str, int]) -> None:
    import h5netcdf  # type: ignore[import-untyped]

    with h5netcdf.File(path, "a") as file:
        for name in names:
            one = store[name]
            dims = one.metadata.dimension_names
            for dim, size in zip(dims, one.shape, strict=True):
                if dim not in file.dimensions:
                    file.dimensions[dim] = size
            fill = one.dtype.type(one.fill_value) if "_FillValue" in one.attrs else None
            made = file.create_variable(
                name, dims, one.dtype, chunks=one.chunks, compression="gzip", compression_opts=LEVEL, shuffle=True,
                fillvalue=fill,
            )  # fmt: skip
            attrs = {key: value for key, value in one.attrs.items() if key != "_FillValue"}
            attrs |= {"clipped_cells": clipped[name]} if name in clipped else {}
            for key, value in attrs.items():
                made.attrs[key] = np.asarray(value, dtype=one.dtype) if key in OWN_TYPE else _attribute(value)


def _attribute(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, list) else value


def _copy(dataset: Any, ledger: Ledger, array: Any, name: str, region: dict[str, slice], path: Path) -> None:
    """The chunks of a tile of a variable."""
    where = tuple(
        region.get(dim, slice(0, size)) for dim, size in zip(array.metadata.dimension_names, array.shape, strict=True)
    )
    values = read_block(ledger.store, name, where)
    places = list(_places(where, array.chunks))
    packed: list[bytes | None] = [None] * len(places)

    def compress(part: slice) -> None:
        for k in range(*part.indices(len(places))):
            packed[k] = _compressed(values, places[k], where, array.chunks, array.fill_value)

    share_out(compress, len(places))
    for place, chunk in zip(places, packed, strict=True):
        if chunk is not None:
            _check_room(path, len(chunk))
            dataset.id.write_direct_chunk(place, chunk)


def _places(where: tuple[slice, ...], chunks: Place) -> Iterator[Place]:
    starts = [range(one.start, one.stop, side) for one, side in zip(where, chunks, strict=True)]
    counts = [len(one) for one in starts]
    return (tuple(one[k] for one, k in zip(starts, place, strict=True)) for place in np.ndindex(*counts))


def _compressed(values: NDArray[Any], place: Place, where: tuple[slice, ...], chunks: Place, fill: Any) -> bytes | None:
    """A chunk as HDF5's shuffle and deflate make it; nothing where it holds no value."""
    starts = [at - one.start for at, one in zip(place, where, strict=True)]
    part = values[tuple(slice(start, start + side) for start, side in zip(starts, chunks, strict=True))]
    if np.all(np.isnan(part) if part.dtype.kind == "f" else part == fill):
        return None
    if part.shape != chunks:  # at the far ends of the grid: HDF5 has whole chunks
        whole = np.full(chunks, fill, dtype=part.dtype)
        whole[tuple(map(slice, part.shape))] = part
        part = whole
    shuffled = np.ascontiguousarray(part).view(np.uint8).reshape(-1, part.dtype.itemsize).T
    return zlib.compress(np.ascontiguousarray(shuffled).tobytes(), LEVEL)


def _check_room(path: Path, wanted: int) -> None:
    """HDF5 cannot go on from a full disk, and takes the process with it: it is not let come to that."""
    if shutil.disk_usage(path.parent).free < wanted + SPARE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
