"""Grids as they were written: packed numbers decoded, and arrays beside others on the same cells."""

from __future__ import annotations

import xarray as xr

from bayesens.messages import listed

__all__ = ["MEMBER", "check_beside", "decoded"]

MEMBER = "member"


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
        raise ValueError(f"{name!r} has other coordinates than the grid; bring it to the grid first (xarray's interp_like, or "
                         "assign_coords where they differ by rounding)") from error  # fmt: skip
