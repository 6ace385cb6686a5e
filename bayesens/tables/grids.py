"""Grids as they were written: packed numbers decoded, and arrays beside others on the same cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.messages import listed

__all__ = ["MEMBER", "check_beside", "decoded", "other_cells", "same_elsewhere", "turned"]

MEMBER = "member"
HALF = 180.0  # degrees of longitude that only those who count from 0 to 360 go beyond


def decoded(source: xr.Dataset) -> xr.Dataset:
    """Return the grid with packed numbers and fill values decoded, where the file was read without that; lazily.

    Examples
    --------
    >>> packed = xr.Dataset({"rain": ("x", [5, -1], {"scale_factor": 0.1, "_FillValue": -1})})
    >>> decoded(packed)["rain"].values
    array([0.5, nan])
    """
    packed = ("scale_factor", "add_offset", "_FillValue", "missing_value")
    if not any(key in variable.attrs for variable in source.variables.values() for key in packed):
        return source
    return xr.decode_cf(source, decode_times=False, decode_coords=False)


def check_beside(name: str, one: xr.DataArray, array: xr.DataArray | xr.Dataset) -> None:
    """Refuse an array that has other dimensions or coordinates than a grid.

    Examples
    --------
    >>> check_beside("where", xr.DataArray([True], dims="z"), xr.DataArray([[1.0]], dims=("y", "x")))
    Traceback (most recent call last):
    ...
    ValueError: 'where' has the dimension 'z'; wanted some of those of the grid, 'y', 'x'
    """
    if extra := [dim for dim in one.dims if dim not in array.dims or dim == MEMBER]:
        dims = [dim for dim in array.dims if dim != MEMBER]
        raise ValueError(
            f"{name!r} has the dimension {listed(extra)}; wanted some of those of the grid, {listed(dims)}"
        )
    try:
        xr.align(array, one, join="exact")
    except ValueError as error:
        raise ValueError(f"{name!r} has other coordinates than the grid; {other_cells(one, array)}") from error


def other_cells(one: xr.DataArray | xr.Dataset, grid: xr.DataArray | xr.Dataset) -> str:
    """Say how to bring an array with other coordinates to a grid.

    Examples
    --------
    >>> grid = xr.DataArray([1.0, 2.0], {"lat": [51.0, 50.0]})
    >>> other_cells(grid[::-1], grid)
    "its 'lat' are the same ones in another order: sort them as the grid's, sel(lat=grid['lat'])"
    """
    how = "bring it to the grid first (xarray's interp_like, or assign_coords where they differ by rounding)"
    return same_elsewhere(one, grid) or how


def same_elsewhere(one: xr.DataArray | xr.Dataset, grid: xr.DataArray | xr.Dataset) -> str:
    """Say of coordinates that are the grid's in another order, or counted in another way; nothing of any others."""
    for dim in (str(dim) for dim in one.dims if dim in one.coords and dim in grid.coords):
        own, wanted = one[dim].values, grid[dim].values
        if np.array_equal(own, wanted):
            continue
        if np.array_equal(np.sort(own), np.sort(wanted)):
            return f"its {dim!r} are the same ones in another order: sort them as the grid's, sel({dim}=grid[{dim!r}])"
        if how := turned(dim, own, wanted):
            return how
    return ""


def turned(name: str, own: NDArray[Any], wanted: NDArray[Any]) -> str:
    """Say of longitudes that are counted from 0 to 360 where -180 to 180 are wanted, or the other way, what to do; or nothing.

    Examples
    --------
    >>> turned("lon", np.array([350.0, 355.0]), np.array([-12.0, -4.0]))
    "its 'lon' are 350 to 355 and wanted are -12 to -4, the other way to count: turn them, (lon + 180) % 360 - 180, ..."
    >>> turned("lon", np.array([9.0, 16.0]), np.array([-12.0, -4.0]))
    ''
    """
    if not name.lower().startswith("lon") or own.dtype.kind not in "iuf" or not own.size or not wanted.size:
        return ""
    low, high, first, last = (float(f(one)) for one in (own, wanted) for f in (np.nanmin, np.nanmax))
    if high > HALF and first < 0.0:
        how = f"({name} + 180) % 360 - 180"
    elif low < 0.0 and last > HALF:
        how = f"{name} % 360"
    else:
        return ""
    return (f"its {name!r} are {low:g} to {high:g} and wanted are {first:g} to {last:g}, the other way to count: turn them, "
            f"{how}, and sort by them")  # fmt: skip
