"""Maps as they come: which dimensions are the grid's, whether two lie on one grid, and kernels applied map by map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.console import progress
from bayesens.messages import listed
from bayesens.threads import CORES, share_out

__all__ = ["as_map", "border_jumps", "on_grid_of", "over_maps"]

Array = NDArray[np.float64]
SPACE = (("y", "x"), ("lat", "lon"), ("latitude", "longitude"))  # dimensions of a map that need not be named


def as_map(values: ArrayLike | xr.DataArray, dims: tuple[str, str] | None, name: str = "the map") -> xr.DataArray:
    """Return a map as a DataArray of real numbers whose last two dimensions are those of the grid.

    Masked cells of a masked array become NaN. Without `dims` they are (y, x), (lat, lon) or (latitude, longitude),
    whichever is there.

    Examples
    --------
    >>> as_map(np.zeros((2, 3)), None).dims
    ('y', 'x')
    """
    if not isinstance(values, xr.DataArray):
        plain = np.ma.filled(values.astype(np.float64), np.nan) if np.ma.isMaskedArray(values) else np.asarray(values)
        if plain.ndim != 2:
            raise ValueError(
                f"{name} has shape {plain.shape}; wanted (y, x), or a DataArray whose dimensions have names"
            )
        values = xr.DataArray(plain, dims=dims or SPACE[0])
    if values.dtype.kind not in "iuf":
        raise TypeError(f"{name} has dtype {values.dtype}; wanted numbers: convert them first, e.g. .astype(float)")
    found = [pair for pair in ([dims] if dims else SPACE) if set(pair) <= set(values.dims) and len(set(pair)) == 2]
    if not found:
        have, wanted = listed(map(str, values.dims)) or "none", " and ".join(map(repr, dims or SPACE[0]))
        raise ValueError(
            f"{name} has the dimensions {have}; wanted {wanted}: say which two the grid has by dims=(row, column)"
        )
    empty = [str(dim) for dim, size in values.sizes.items() if size == 0]
    if empty:
        raise ValueError(f"{name} has no cells: {listed(empty)} has length 0; wanted at least one of each dimension")
    return values.transpose(..., *found[0])


def on_grid_of(field: xr.DataArray, values: ArrayLike | xr.DataArray, name: str) -> xr.DataArray:
    """Return a map that must lie on the grid of another, such as the one that decides the bands.

    `field` is the other, from `as_map`.

    Examples
    --------
    >>> on_grid_of(as_map(np.zeros((2, 3)), None), np.ones((2, 2)), "band_of")
    Traceback (most recent call last):
    ...
    ValueError: band_of has the sizes {'y': 2, 'x': 2} and the first map {'y': 2, 'x': 3}; give maps on one grid
    """
    reference = as_map(values, (str(field.dims[-2]), str(field.dims[-1])), name)
    beyond = [str(dim) for dim in reference.dims if dim not in field.dims]
    if beyond:
        raise ValueError(
            f"{name} has the dimension {listed(beyond)} that the first map lacks; take one of it, or its mean"
        )
    sizes, wanted = dict(reference.sizes), {dim: field.sizes[dim] for dim in reference.dims}
    if sizes != wanted:
        raise ValueError(f"{name} has the sizes {sizes} and the first map {wanted}; give maps on one grid")
    try:
        xr.align(reference, field, join="exact")
    except ValueError as error:
        raise ValueError(f"{name} has other coordinates than the first map; give maps on one grid "
                         "(xarray's interp_like, or assign_coords where they differ by rounding)") from error  # fmt: skip
    return reference


def over_maps(
    kernel: Callable[..., Array], *fields: xr.DataArray, core: Sequence[str], sizes: Sequence[int], progressbar: bool
) -> xr.DataArray:
    """Apply a kernel of one map, or of one of each field, to all of them; from dask, chunk by chunk of whole maps.

    The kernel takes float64 arrays (y, x) and returns an array of `sizes`, whose dimensions are called `core`. Further
    dimensions of the first field are those of the result. The bar is shown if there are many maps.
    """
    space = list(fields[0].dims[-2:])
    maps = int(np.prod(fields[0].shape[:-2]))
    dask = any(field.chunks is not None for field in fields)
    with _progress(maps, dask=dask, shown=progressbar and maps > 1) as advance:

        def run(*arrays: NDArray[Any]) -> Array:
            stacked = np.broadcast_shapes(*(a.shape[:-2] for a in arrays))
            parts = [np.broadcast_to(a, stacked + a.shape[-2:]) for a in arrays]
            out = np.empty((*stacked, *sizes))
            every = list(np.ndindex(stacked))

            def some(share: slice) -> None:
                for at in every[share]:
                    out[at] = kernel(*(np.ascontiguousarray(part[at], dtype=np.float64) for part in parts))
                    advance()

            share_out(some, len(every), parts=1 if dask else CORES)  # dask has threads of its own
            return out

        whole = [field.chunk(dict.fromkeys(space, -1)) if field.chunks is not None else field for field in fields]
        result = xr.apply_ufunc(
            run, *whole, input_core_dims=[space] * len(fields), output_core_dims=[list(core)], dask="parallelized",
            output_dtypes=[np.float64], dask_gufunc_kwargs={"output_sizes": dict(zip(core, sizes, strict=True))},
        )  # fmt: skip
        return result.compute()  # numbers, not maps: nothing is gained by leaving them for later


@contextmanager
def _progress(total: int, *, dask: bool, shown: bool) -> Iterator[Callable[[], None]]:
    """A bar that counts maps, or the tasks of a dask scheduler of this process, whose workers know of no bar."""
    if not (dask and shown):
        with progress(total, "Maps", shown) as advance:
            yield advance
        return
    from dask.callbacks import Callback
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Maps", total=total)

        def start(_: Any, state: Any) -> None:
            bar.update(task, total=len(state["ready"]) + len(state["waiting"]), completed=0)

        with Callback(start_state=start, posttask=lambda *_: bar.advance(task)):
            yield lambda: None


def border_jumps(
    values: ArrayLike | xr.DataArray, label: ArrayLike | xr.DataArray, *, dims: tuple[str, str] | None = None
) -> pd.DataFrame:
    """How much neighbouring cells differ across borders, against inside of what these enclose: a seam shows as a ratio above one.

    Borders may be those of regions with members of their own, or the edges of clouds where a member is missing.

    Parameters
    ----------
    values : DataArray (..., y, x), or array (y, x)
        A map, or several; NaN is left out.
    label : DataArray (..., y, x), or array (y, x)
        What cells belong to: text, numbers or truth values; two neighbours of different labels lie across a border.
    dims : (str, str), optional
        Rows and columns, where they are not (y, x), (lat, lon) or (latitude, longitude).

    Returns
    -------
    pandas.DataFrame (place)
        ``across`` and ``inside``: ``pairs`` of neighbours, ``mean_jump`` and ``median_jump``, the mean and median absolute
        difference, in the units of the map, and ``ratio``, the mean jump against that inside.

    Raises
    ------
    ValueError
        Without any border, or shapes that differ.

    Examples
    --------
    >>> border_jumps([[1.0, 1.1, 3.0, 3.1]], [["a", "a", "b", "b"]])["ratio"].round(1).to_dict()
    {'across': 19.0, 'inside': 1.0}
    """
    maps = as_map(values if isinstance(values, xr.DataArray) else np.asarray(values, dtype=np.float64), dims)
    names = label if isinstance(label, xr.DataArray) else xr.DataArray(np.asarray(label), dims=maps.dims[-2:])
    names = names.transpose(..., *maps.dims[-2:])
    try:
        maps, names = xr.align(maps, names, join="exact")
        field, kinds = (one.values for one in xr.broadcast(maps, names))
    except ValueError as error:
        raise ValueError(f"the map has the sizes {dict(maps.sizes)} and the labels {dict(names.sizes)}; wanted labels of the "
                         "same cells") from error  # fmt: skip
    jumps, across = [], []
    for axis in (-1, -2):
        difference = np.abs(np.diff(field, axis=axis))
        first, second = (np.take(kinds, range(a, kinds.shape[axis] - 1 + a), axis=axis) for a in (0, 1))
        there = np.isfinite(difference)
        jumps.append(difference[there])
        across.append((first != second)[there])
    size, crossed = np.concatenate(jumps), np.concatenate(across)
    if crossed.all() or not crossed.any():
        raise ValueError(f"{int(crossed.sum())} of {crossed.size} pairs of neighbours have different labels; wanted some pairs "
                         "across borders and some inside")  # fmt: skip
    inside = float(size[~crossed].mean())
    rows = [(len(one), float(one.mean()), float(np.median(one)), float(one.mean()) / inside)
            for one in (size[crossed], size[~crossed])]  # fmt: skip
    place = pd.Index(["across", "inside"], name="place")
    return pd.DataFrame(rows, place, ["pairs", "mean_jump", "median_jump", "ratio"])
