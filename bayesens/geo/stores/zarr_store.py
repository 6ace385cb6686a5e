"""Maps as a sharded Zarr store: one file a tile and variable, so that tiles are written side by side and on their own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.geo.stores.ledger import Ledger, sync, sync_folder
from bayesens.geo.stores.packing import FILL, Packing
from bayesens.geo.stores.quality import QUALITY, Conditions, flags_of
from bayesens.geo.stores.tiles import Tiles, inner_chunk

__all__ = ["Job", "begin_store", "close_store", "read_block", "write_tile"]

LEVEL = 3  # of zstd
Slices = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Job:
    """One tile: what is computed and where it goes. It is sent to other processes as it is.

    Attributes
    ----------
    number : int
    region : dict of str to slice
        Cells of the grid.
    place : dict of str to int
        Which tile along each dimension.
    maps : Dataset
        Of these cells, lazy or not.
    conditions : Conditions
    packed : dict of str to Packing
    folder : str
        Of the ledger.
    """

    number: int
    region: dict[str, slice]
    place: dict[str, int]
    maps: xr.Dataset
    conditions: Conditions
    packed: Mapping[str, Packing]
    folder: str


def begin_store(
    maps: xr.Dataset, store: Path, tiles: Tiles, packed: Mapping[str, Packing], streamed: list[str]
) -> None:
    """Make an empty store: metadata, coordinates, and variables that are not streamed.

    Parameters
    ----------
    maps : Dataset
        Described (see `cf.described`); only names, shapes and types of streamed variables are read.
    store : Path
    tiles : Tiles
    packed : mapping of str to Packing
    streamed : list of str
        Variables that tiles will fill.
    """
    import zarr

    kept = maps.drop_vars(streamed).load()
    for name in kept.variables:
        own = kept[name].encoding
        kept[name].encoding = {key: own[key] for key in ("grid_mapping", "units", "calendar") if key in own}
        if name in kept.coords or str(name).endswith("_bnds"):
            kept[name].encoding["_FillValue"] = None  # CF: coordinates have no missing values
    _as_v3(kept).to_zarr(store, mode="w", zarr_format=3, consolidated=False)
    group = zarr.open_group(store, mode="r+")
    beside = _coordinate_names(maps)
    for name in streamed:
        one = maps[name]
        shape = [tiles.shape.get(str(dim), size) for dim, size in one.sizes.items()]
        chunks = [inner_chunk(side) if dim in tiles.shape else 1 for dim, side in zip(one.dims, shape, strict=True)]
        packing = packed.get(name)
        dtype, fill = _stored(one.dtype, packing)
        attrs = {key: _json(value) for key, value in one.attrs.items()} | {"grid_mapping": one.encoding["grid_mapping"]}
        if held := [other for other in beside if set(maps[other].dims) <= set(one.dims)]:
            attrs["coordinates"] = " ".join(held)
        if packing is not None:
            attrs |= {"scale_factor": packing.scale, "add_offset": packing.offset, "_FillValue": FILL}
        elif dtype.kind == "f":
            attrs["_FillValue"] = _encoded_nan(dtype)
        group.create_array(
            name, shape=one.shape, dtype=dtype, chunks=tuple(chunks), shards=tuple(shape), fill_value=fill,
            compressors=_codec(dtype), dimension_names=[str(dim) for dim in one.dims], attributes=attrs,
        )  # fmt: skip


def _stored(dtype: np.dtype[Any], packing: Packing | None) -> tuple[np.dtype[Any], Any]:
    """The type on the disk, and what an empty cell holds."""
    if packing is not None:
        return np.dtype(np.int16), FILL
    return dtype, np.nan if dtype.kind == "f" else 0


def _codec(dtype: np.dtype[Any]) -> Any:
    from zarr.codecs import BloscCodec

    return BloscCodec(cname="zstd", clevel=LEVEL, shuffle="shuffle", typesize=dtype.itemsize)


def _encoded_nan(dtype: np.dtype[Any]) -> str:
    from xarray.backends.zarr import FillValueCoder

    return str(FillValueCoder.encode(float("nan"), dtype))


def _coordinate_names(maps: xr.Dataset) -> list[str]:
    """Coordinates that are no dimension's own and no grid mapping: CF has variables name them."""
    mappings = {one.encoding.get("grid_mapping") for one in maps.data_vars.values()}
    return [str(name) for name in maps.coords if name not in maps.dims and name not in mappings]


def _as_v3(kept: xr.Dataset) -> xr.Dataset:
    """Coordinates in types that the third version of Zarr knows."""
    for name, one in kept.variables.items():
        if one.dtype.kind == "U":
            kept[name] = kept[name].astype(object)
    return kept


def _json(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


# ---------------------------------------------------------------------------------------------------------------- tiles
def write_tile(job: Job) -> tuple[int, dict[str, Any]]:
    """Compute a tile, write it, and say in the ledger that it is finished.

    Returns
    -------
    number, what is said of the tile
        ``cells`` with a value, ``clipped`` of each variable, and seconds of its parts.
    """
    began = time.perf_counter()
    maps, members = _in_memory(job)
    computed = time.perf_counter()
    ledger = Ledger(Path(job.folder))
    grid = tuple(job.region)
    mean = maps["mean"].transpose(*grid)
    clipped, outside = np.zeros(mean.shape, dtype=np.bool_), {}
    for name, one in maps.data_vars.items():
        values = one.values
        if (packing := job.packed.get(str(name))) is not None:
            values, beyond = packing.pack(values)
            if beyond.any():
                outside[str(name)] = int(beyond.sum())
                extra = [dim for dim in one.dims if dim not in grid]
                clipped |= xr.DataArray(beyond, dims=one.dims).any(extra).transpose(*grid).values
        _write(ledger.store, str(name), values, _slices(one, job.region))
    flags = flags_of(members, mean, clipped)
    _write(ledger.store, QUALITY, flags, tuple(job.region.values()))
    written = time.perf_counter()
    for name, one in (*maps.data_vars.items(), (QUALITY, mean)):
        _sync_shard(ledger.store, str(name), [job.place.get(str(dim), 0) for dim in one.dims])
    said = {"cells": int(np.isfinite(mean.values).sum()), "clipped": outside}
    ledger.finish(job.number, said)
    ended = time.perf_counter()
    return job.number, said | {"seconds": (computed - began, written - computed, ended - written)}


def _in_memory(job: Job) -> tuple[xr.Dataset, Conditions]:
    """The values of a tile and its conditions, computed in this thread: others compute other tiles."""
    if not job.maps.chunks and not job.conditions.lazy:
        return job.maps, job.conditions
    import dask

    maps, *arrays = dask.compute(job.maps, *job.conditions.arrays, scheduler="synchronous")
    return maps, job.conditions.of(arrays)


def _slices(one: xr.DataArray, region: Mapping[str, slice]) -> Slices:
    return tuple(region.get(str(dim), slice(None)) for dim in one.dims)


def _write(store: Path, name: str, values: NDArray[Any], where: Slices) -> None:
    import zarr

    zarr.open_array(store / name, mode="r+")[where] = values


def _sync_shard(store: Path, name: str, place: list[int]) -> None:
    """Have a tile of a variable on the disk; one without values has no file."""
    path = store / name / "c" / "/".join(map(str, place))
    if path.exists():
        sync(path)
        for folder in list(path.parents)[: len(place) + 1]:
            sync_folder(folder)


def read_block(store: Path, name: str, where: Slices) -> NDArray[Any]:
    """Numbers of some cells, as they are stored."""
    import zarr

    return np.asarray(zarr.open_array(store / name, mode="r")[where])


def close_store(store: Path, clipped: Mapping[str, int], geo: Mapping[str, Any]) -> None:
    """Say in the store what is known at the end, clipped cells and where it lies, and put all metadata in one file.

    xarray warns of a store that has no such file, though the third version of Zarr has no word for it yet; of that zarr warns.
    """
    import zarr
    from zarr.errors import ZarrUserWarning

    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    for name, count in sorted(clipped.items()):
        group[name].update_attributes({"clipped_cells": count})
    group.update_attributes(dict(geo))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(store)
    for path in (store / "zarr.json", *(store / name / "zarr.json" for name in clipped)):
        sync(path)
