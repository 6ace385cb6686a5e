"""A folder of Cloud-Optimised GeoTIFFs put together from finished tiles: one a time step, a band for each number of a cell."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesens.geo.stores.ledger import Ledger, sync
from bayesens.geo.stores.outputs import DIGEST, Output
from bayesens.geo.stores.packing import FILL
from bayesens.geo.stores.quality import FLAGS, QUALITY
from bayesens.geo.stores.tiles import Tiles
from bayesens.geo.stores.zarr_store import read_block

__all__ = ["assemble_steps", "band_name", "digest_of_steps"]

SIDE = 512  # of a block
SPARE = 2**22  # bytes beside what is known to be wanted


@dataclass(frozen=True)
class Band:
    """A band: which variable, and where along its own dimensions."""

    variable: str
    place: dict[str, int]
    name: str


def band_name(variable: str, dim: str = "", label: Any = None) -> str:
    """Name of a band.

    Examples
    --------
    >>> band_name("quantile_value", "quantile", 0.05), band_name("probability_below", "threshold", 0.12), band_name("sd")
    ('q05', 'below_0.12', 'sd')
    """
    if dim == "quantile":
        digits = f"{float(label):.10f}".split(".")[1].rstrip("0")
        return f"q{digits.ljust(2, '0')}"
    if dim == "threshold":
        return f"below_{label:g}" if isinstance(label, float) else f"below_{label}"
    return f"{variable}_{label}" if dim else variable


def bands_of(output: Output) -> list[Band]:
    """Bands of a file, the flags last."""
    found = []
    for name in output.streamed:
        one = output.maps[name]
        extra = [str(dim) for dim in one.dims if dim not in output.grid]
        for place in np.ndindex(*(one.sizes[dim] for dim in extra)):
            at = dict(zip(extra, place, strict=True))
            labels = {dim: one[dim].values[k].item() if dim in one.coords else k for dim, k in at.items()}
            told = "_".join(band_name(name, dim, label) for dim, label in labels.items()) or name
            found.append(Band(name, at, told))
    return [*found, Band(QUALITY, {}, QUALITY)]


def assemble_steps(output: Output, ledger: Ledger, tiles: Tiles, clipped: dict[str, int], memory: int) -> Path:
    """Write the files beside their place; those that a former run has finished stay.

    Parameters
    ----------
    output : Output
    ledger : Ledger
        With all tiles finished.
    tiles : Tiles
    clipped : dict of str to int
        Packed numbers beyond their limits, by variable.
    memory : int
        Bytes that GDAL may keep in memory.

    Returns
    -------
    Path
        A folder.
    """
    rasterio = _rasterio()
    folder, bands = ledger.folder / "steps", bands_of(output)
    folder.mkdir(exist_ok=True)
    inner = [dim for dim in output.grid if dim not in (output.axes.y, output.axes.x)]
    # GDAL takes a number below 100,000 for megabytes. More threads of it hold 50 MB more, whatever the cache is.
    with rasterio.Env(GDAL_CACHEMAX=max(16, memory // 8 // 2**20), GDAL_NUM_THREADS="1"):
        for place in np.ndindex(*(output.maps.sizes[dim] for dim in inner)):
            step = dict(zip(inner, place, strict=True))
            target = folder / f"{_step_name(output, step)}.tif"
            if not target.exists():
                _write_step(output, ledger, tiles, bands, step, target, clipped)
    return folder


def _rasterio() -> Any:
    try:
        import rasterio
        import rasterio.shutil
    except ImportError as error:
        raise ImportError("GeoTIFFs need rasterio: pip install 'bayesens[geo]'; or write .zarr or .nc") from error
    return rasterio


def _step_name(output: Output, step: dict[str, int]) -> str:
    """Name of a file: that of the output, and where it is along each other dimension, a date where it is one."""
    parts = [output.path.name]
    for dim, k in step.items():
        values = output.maps[dim].values if dim in output.maps.coords else np.arange(output.maps.sizes[dim])
        parts.append(_label(values, k))
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", "_".join(parts))


def _label(values: NDArray[Any], k: int) -> str:
    if values.dtype.kind != "M":
        return str(values[k])
    days = bool((values == values.astype("datetime64[D]")).all())
    text = np.datetime_as_string(values[k], unit="D" if days else "s")
    return str(text).replace(":", "")


def _write_step(
    output: Output,
    ledger: Ledger,
    tiles: Tiles,
    bands: list[Band],
    step: dict[str, int],
    target: Path,
    clipped: dict[str, int],
) -> None:
    """A plain tiled file first, as the cloud-optimised one can only be made from a whole one."""
    rasterio = _rasterio()
    plain, aside = target.with_name(f".{target.stem}.plain.tif"), target.with_name(f".{target.stem}.cog.tif")
    north_up = output.axes.transform is not None and output.axes.transform[4] < 0
    profile = _profile(output, bands, north_up)
    needed = len(bands) * profile["height"] * profile["width"] * np.dtype(profile["dtype"]).itemsize
    _check_room(target, needed)
    try:
        with _full_disk_told(target, needed):
            with rasterio.open(plain, "w", **profile) as file:
                _describe(file, output, bands, step, clipped)
                for number in range(len(tiles)):
                    _fill(file, output, ledger, tiles, bands, step, number, north_up)
            _check_room(target, needed // 4)
            rasterio.shutil.copy(plain, aside, driver="COG", COMPRESS="DEFLATE", PREDICTOR="YES", BLOCKSIZE=SIDE,
                                 INTERLEAVE="BAND", OVERVIEW_RESAMPLING="NEAREST", BIGTIFF="IF_SAFER")  # fmt: skip
        sync(aside)
        os.replace(aside, target)
    finally:
        plain.unlink(missing_ok=True)
        aside.unlink(missing_ok=True)


def _profile(output: Output, bands: list[Band], north_up: bool) -> dict[str, Any]:
    from rasterio.transform import Affine

    a, _, left, _, e, top = output.axes.transform or (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    rows, columns = (output.maps.sizes[dim] for dim in (output.axes.y, output.axes.x))
    transform = Affine(a, 0.0, left, 0.0, e, top) if north_up else Affine(a, 0.0, left, 0.0, -e, top + e * rows)
    kinds = {
        np.dtype(np.int16) if one.variable in output.packed else output.maps[one.variable].dtype for one in bands[:-1]
    }
    dtype = np.result_type(*kinds)  # a file has one type: whole numbers where all are packed
    return {
        "driver": "GTiff", "height": rows, "width": columns, "count": len(bands), "dtype": dtype.name, "transform": transform,
        "crs": None if output.crs is None else output.crs.to_wkt("WKT2_2019"), "tiled": True, "blockxsize": SIDE,
        "blockysize": SIDE, "interleave": "band", "bigtiff": "IF_SAFER", "sparse_ok": True,
        "nodata": FILL if dtype.kind == "i" else np.nan,
    }  # fmt: skip


def _describe(file: Any, output: Output, bands: list[Band], step: dict[str, int], clipped: dict[str, int]) -> None:
    """Names, units, scales and offsets of bands, and what the file says of itself."""
    whole = np.dtype(file.dtypes[0]).kind == "i"
    packings = [output.packed.get(one.variable) if whole else None for one in bands]
    file.scales = [1.0 if one is None else one.scale for one in packings]
    file.offsets = [0.0 if one is None else one.offset for one in packings]
    file.units = [
        "" if one.variable == QUALITY else str(output.maps[one.variable].attrs.get("units", "")) for one in bands
    ]
    for number, (band, packing) in enumerate(zip(bands, packings, strict=True), start=1):
        file.set_band_description(number, band.name)
        tags = {"flag_masks": " ".join(map(str, FLAGS.values())), "flag_meanings": " ".join(FLAGS)}
        if band.variable != QUALITY:
            own = output.maps[band.variable].attrs
            tags = {key: str(own[key]) for key in ("long_name", "standard_name") if key in own}
            tags |= {"clipped_cells": str(clipped[band.variable])} if band.variable in clipped else {}
            tags |= {} if packing is None else {"packing_error": f"{packing.scale / 2:g}"}
        file.update_tags(number, **tags)
    at = {dim: _label(output.maps[dim].values, k) for dim, k in step.items() if dim in output.maps.coords}
    said = {
        key: str(output.maps.attrs[key])
        for key in ("title", "source", "history", "bayesens_fit_digest")
        if key in output.maps.attrs
    }
    file.update_tags(**said | at | {DIGEST: output.digest})


def _fill(
    file: Any,
    output: Output,
    ledger: Ledger,
    tiles: Tiles,
    bands: list[Band],
    step: dict[str, int],
    number: int,
    north_up: bool,
) -> None:
    """One tile, if it has cells of this time step."""
    from rasterio.windows import Window

    region = tiles.region(number)
    if not all(region[dim].start <= k < region[dim].stop for dim, k in step.items()):
        return
    rows, columns = region[output.axes.y], region[output.axes.x]
    top = rows.start if north_up else file.height - rows.stop
    window = Window(columns.start, top, columns.stop - columns.start, rows.stop - rows.start)
    where = region | {dim: slice(k, k + 1) for dim, k in step.items()}
    for index, band in enumerate(bands, start=1):
        values = _band_values(output, ledger, band, where, np.dtype(file.dtypes[0]))
        file.write(values if north_up else values[::-1], index, window=window)


def _band_values(
    output: Output, ledger: Ledger, band: Band, where: dict[str, slice], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Rows and columns of a band."""
    dims = output.grid if band.variable == QUALITY else tuple(map(str, output.maps[band.variable].dims))
    place = {dim: slice(k, k + 1) for dim, k in band.place.items()}
    values = read_block(ledger.store, band.variable, tuple((where | place)[dim] for dim in dims))
    kept = [dim for dim in dims if dim in (output.axes.y, output.axes.x)]
    flat = values.reshape([values.shape[dims.index(dim)] for dim in kept])
    packing = output.packed.get(band.variable)
    if packing is not None and dtype.kind == "f":
        flat = packing.unpack(flat)
    return (flat if kept[0] == output.axes.y else flat.T).astype(dtype)


def _check_room(target: Path, wanted: float) -> None:
    """Look for room before: GDAL says of a full disk, if at all, when a file is closed."""
    if shutil.disk_usage(target.parent).free < wanted + SPARE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _full_disk_told(target: Path, needed: float) -> Iterator[None]:
    from rasterio.errors import RasterioError

    try:
        yield
    except RasterioError as error:
        if shutil.disk_usage(target.parent).free < max(SPARE, needed / 10):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def digest_of_steps(path: Path) -> str:
    """The plan's digest that a folder of GeoTIFFs holds; nothing where it has none."""
    rasterio = _rasterio()
    for one in sorted(path.glob("*.tif")):
        with rasterio.open(one) as file:
            return str(file.tags().get(DIGEST, ""))
    return ""
