"""The cells of a map as places, from a grid or a table, sampled where they are many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.ensemble.places import LON_LAT, Places, check_degrees
from bayesens.messages import listed

__all__ = ["MAP_SAMPLE", "map_places"]

MAP_SAMPLE = 5000  # cells: their distances to stations are then known to about 1 % in distribution
type Draw = Callable[[NDArray[np.int64]], NDArray[np.int64]]
SPELLINGS = {"lon": ("lon", "longitude", "long"), "lat": ("lat", "latitude")}


def map_places(given: Any, sites: Places, *, sample: int = MAP_SAMPLE, random_seed: int | None = None) -> Places:
    """Return the places of a map, in the coordinates of its stations.

    Parameters
    ----------
    given : xarray.Dataset, xarray.DataArray, pandas.DataFrame or mapping of name to array_like
        A grid whose coordinates (or variables) are ``lon`` and ``lat`` (also ``longitude``, ``latitude``), or have the names
        of the stations' planar coordinates; they may have one dimension each or two. Cells do not count where every
        variable is missing, of variables with further dimensions such as time in the first slice of these, or where a
        mask (a DataArray of booleans) is False. Or a table with these columns, one row a point.
    sites : Places
        The stations.
    sample : int
        Of more cells so many are drawn, without replacement; all count alike, however large a cell is.
    random_seed : int, optional
        Of the draw. None: one draw, always the same.

    Raises
    ------
    TypeError, ValueError
        No grid and no table, coordinates that it lacks or that are missing, no degrees, no cell left, a map elsewhere.

    Examples
    --------
    >>> grid = xr.Dataset({"rain": (("lat", "lon"), [[1.0, np.nan], [2.0, 3.0]])}, {"lat": [50.0, 51.0], "lon": [9.0, 10.0]})
    >>> map_places(grid, Places(("lon", "lat"), np.array([[9.5, 50.5]]))).values.tolist()
    [[9.0, 50.0], [9.0, 51.0], [10.0, 51.0]]
    """
    if isinstance(given, Places):
        return given
    if sample != int(sample) or sample < 1:
        raise ValueError(f"map_sample is {sample!r}; wanted a whole number of cells, 1 or more")
    rng = np.random.default_rng(0 if random_seed is None else random_seed)

    def some(cells: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(cells) == 0:
            raise ValueError("the map has no cell that counts: every variable is missing everywhere, or the mask is False; "
                             "give map_points= a grid with values")  # fmt: skip
        return cells if len(cells) <= sample else np.sort(rng.choice(cells, int(sample), replace=False))

    of = _of_grid if isinstance(given, xr.Dataset | xr.DataArray) else _of_table
    values = of(given, sites, some)
    if sites.on_sphere:
        check_degrees(values[:, 0], values[:, 1], "the map")
    found = Places(sites.names, values)
    _check_overlap(found, sites)
    return found


def _of_grid(given: xr.Dataset | xr.DataArray, sites: Places, some: Draw) -> NDArray[np.float64]:
    """Coordinates (cell, 2) of some of the cells that count."""
    where = given if isinstance(given, xr.Dataset) else given.to_dataset(name=str(given.name or "map"))
    names = _names(list(map(str, where.variables)), sites, "the map")
    columns = [where[name].astype(np.float64) for name in names]
    first, second = xr.broadcast(*columns)
    known = [xr.apply_ufunc(np.isfinite, column, dask="allowed") for column in columns]
    placed = known[0] & known[1]
    there = _there(where, names, tuple(map(str, first.dims)))
    counts = (xr.ones_like(placed) if there is None else there).transpose(*first.dims).values
    _check_complete(counts & ~placed.transpose(*first.dims).values, int(counts.sum()), names, "cells")
    at = np.unravel_index(some(np.flatnonzero(counts)), first.shape)
    # Of a large grid only the cells drawn are copied: broadcast coordinates are views.
    return np.column_stack([first.values[at], second.values[at]])


def _there(where: xr.Dataset, names: tuple[str, str], dims: tuple[str, ...]) -> xr.DataArray | None:
    """Where some variable is known; None where no variable has the dimensions of the map."""
    found: xr.DataArray | None = None
    for name, one in where.data_vars.items():
        if name in names or not set(dims) <= set(one.dims) or one.size == 0:
            continue
        one = one.isel({dim: 0 for dim in one.dims if dim not in dims}, drop=True)
        there = one if one.dtype == bool else one.notnull()
        found = there if found is None else found | there
        if bool(found.all()):
            break
    return found


def _of_table(given: Any, sites: Places, some: Draw) -> NDArray[np.float64]:
    if not isinstance(given, pd.DataFrame | Mapping):
        raise TypeError(f"map_points is {type(given).__name__}; wanted a grid (xarray Dataset or DataArray) or a table (pandas "
                        f"DataFrame) with {sites.names[0]} and {sites.names[1]}")  # fmt: skip
    names = _names([str(name) for name in given], sites, "map_points")
    columns = [np.asarray(given[name], dtype=np.float64).ravel() for name in names]
    if len(columns[0]) != len(columns[1]):
        raise ValueError(f"map_points has {len(columns[0])} values of {names[0]} and {len(columns[1])} of {names[1]}; wanted "
                         "one pair a point")  # fmt: skip
    values = np.column_stack(columns)
    _check_complete(~np.isfinite(values).all(axis=1), len(values), names, "points")
    return values[some(np.arange(len(values)))]


def _names(have: list[str], sites: Places, whose: str) -> tuple[str, str]:
    """What the map calls the coordinates that the stations have."""
    plain = {name.lower(): name for name in have}
    found = [
        next((plain[word] for word in SPELLINGS.get(name, (name.lower(),)) if word in plain), None)
        for name in sites.names
    ]
    if found[0] is None or found[1] is None:
        lacking = [name for name, one in zip(sites.names, found, strict=True) if one is None]
        other = "" if sites.names == LON_LAT else " (planar coordinates are called alike in table and map)"
        raise ValueError(f"{whose} has no {listed(lacking)}, which the sites have; it has {listed(have, 20)}: rename its "
                         f"coordinates, or pass places=... of the table in the coordinates of the map{other}")  # fmt: skip
    return found[0], found[1]


def _check_complete(lacking: NDArray[np.bool_], size: int, names: tuple[str, str], what: str) -> None:
    if number := int(lacking.sum()):
        raise ValueError(
            f"{number} of {size} {what} of the map have no {names[0]} or {names[1]}; complete them, or leave them out"
        )


def _check_overlap(cells: Places, sites: Places) -> None:
    """Refuse a map whose coordinates are others than those of the sites."""
    if _near(cells, sites):
        return
    ranges = [
        "; ".join(
            f"{name} {each.values[:, k].min():.6g} to {each.values[:, k].max():.6g}"
            for k, name in enumerate(each.names)
        )
        for each in (sites, cells)
    ]
    swapped = Places(sites.names, cells.values[:, ::-1])
    can_be = not sites.on_sphere or np.abs(swapped.values[:, 1]).max() <= 90.0
    hint = "give table and map in one coordinate system"
    if can_be and _near(swapped, sites):
        hint = f"{sites.names[0]} and {sites.names[1]} of one of them look swapped"
    raise ValueError(f"the map lies elsewhere than the sites (sites: {ranges[0]}; map: {ranges[1]}); {hint}")


def _near(cells: Places, sites: Places) -> bool:
    """Whether the map lies no further from the sites than one of them is wide."""
    (low, high), (bottom, top) = [(each.points.min(axis=0), each.points.max(axis=0)) for each in (cells, sites)]
    gap = float(np.linalg.norm(np.maximum(0.0, np.maximum(low - top, bottom - high))))
    return gap <= max(float(np.linalg.norm(high - low)), float(np.linalg.norm(top - bottom)))
