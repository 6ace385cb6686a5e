"""Flags of cells: what stands behind the value of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.messages import listed
from bayesens.tables.grids import other_cells

__all__ = ["FLAGS", "QUALITY", "Conditions", "conditions_of", "flags_of", "said_by_members"]

QUALITY = "quality"
FLAGS = {"missing_members": 1, "outside_area_of_applicability": 2, "masked": 4, "no_value": 8, "clipped": 16}


@dataclass(frozen=True, eq=False)
class Conditions:
    """What flags are made from.

    Attributes
    ----------
    applicable, where : bool DataArray, optional
        Maps, on some or all dimensions of the grid: the area of applicability, and the cells that were wanted.
    members : DataArray (..., member), optional
    """

    applicable: xr.DataArray | None
    where: xr.DataArray | None
    members: xr.DataArray | None

    @property
    def arrays(self) -> list[xr.DataArray]:
        """Those that there are."""
        return [one for one in (self.applicable, self.where, self.members) if one is not None]

    @property
    def lazy(self) -> bool:
        """Whether any is of dask."""
        return any(one.chunks for one in self.arrays)

    def of(self, arrays: Iterable[xr.DataArray]) -> Conditions:
        """The same ones, of other arrays, in the order of `arrays`."""
        given = iter(arrays)
        kept = (self.applicable, self.where, self.members)
        return Conditions(*(None if one is None else next(given) for one in kept))

    def cut(self, region: dict[str, slice]) -> Conditions:
        """Those of some cells."""
        return Conditions(*(_cut(one, region) for one in (self.applicable, self.where, self.members)))


def _cut(one: xr.DataArray | None, region: dict[str, slice]) -> xr.DataArray | None:
    return None if one is None else one.isel({dim: part for dim, part in region.items() if dim in one.dims})


def conditions_of(
    maps: xr.Dataset,
    grid: tuple[str, ...],
    *,
    applicable: xr.DataArray | None,
    where: xr.DataArray | None,
    members: xr.Dataset | xr.DataArray | None,
    names: list[str] | None,
) -> Conditions:
    """Check what flags are made from.

    Parameters
    ----------
    maps : Dataset
    grid : tuple of str
        Its dimensions.
    applicable, where : bool DataArray, optional
    members : Dataset or DataArray, optional
        The grid that was predicted from: an array with the dimension ``member``, or a variable a member.
    names : list of str, optional
        Members of the fit.

    Raises
    ------
    TypeError, ValueError
    """
    came_in: tuple[tuple[str, Any], ...] = (("applicable", applicable), ("where", where))
    for name, one in came_in:
        if one is not None and (not isinstance(one, xr.DataArray) or one.dtype != bool):
            came = f"a DataArray of {one.dtype}" if isinstance(one, xr.DataArray) else type(one).__name__
            raise TypeError(f"{name}= is a DataArray of True and False on the grid; got {came}.")
    array = None if members is None else _members(members, names)
    for name, one in (("applicable", applicable), ("where", where), ("members", array)):
        if one is None:
            continue
        if extra := [str(dim) for dim in one.dims if dim not in (*grid, "member")]:
            raise ValueError(
                f"{name!r} has the dimension {listed(extra)}; wanted some of those of the maps, {listed(grid)}"
            )
        try:
            xr.align(maps, one, join="exact", exclude=["member"])
        except ValueError as error:
            raise ValueError(f"{name!r} has other coordinates than the maps; {other_cells(one, maps)}") from error
    return Conditions(applicable, where, array)


def _members(members: xr.Dataset | xr.DataArray, names: list[str] | None) -> xr.DataArray:
    if isinstance(members, xr.Dataset):
        if "prediction" in members and "member" in members["prediction"].dims:
            members = members["prediction"]
        else:
            kept = [name for name in members.data_vars if names is None or name in names]
            if not kept:
                raise ValueError(f"members= has none of the members of the fit, {listed(names or [])}; it has "
                                 f"{listed(map(str, members.data_vars)) or 'no variable'}.")  # fmt: skip
            members = members[kept].to_dataarray("member")
    if "member" not in members.dims:
        raise ValueError(f"members= has the dimensions {listed(map(str, members.dims))}; wanted one called 'member'")
    return members


def said_by_members(members: xr.Dataset | xr.DataArray | None, names: list[str] | None) -> str | None:
    """The standard name that all members of a grid have, if they have one and the same."""
    if members is None:
        return None
    if isinstance(members, xr.DataArray):
        every = [members]
    elif "prediction" in members:
        every = [members["prediction"]]
    else:
        every = [one for name, one in members.data_vars.items() if names is None or name in names]
    said = {one.attrs.get("standard_name") for one in every}
    return str(said.pop()) if len(said) == 1 and None not in said else None


def flags_of(conditions: Conditions, mean: xr.DataArray, clipped: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Flags of the cells of a tile.

    Parameters
    ----------
    conditions : Conditions
        Of these cells, in memory.
    mean : DataArray (dimensions of the grid)
    clipped : bool array of the same shape
    """
    found = clipped * np.uint8(FLAGS["clipped"])
    found |= np.isnan(mean.values) * np.uint8(FLAGS["no_value"])

    def on_cells(one: xr.DataArray) -> NDArray[Any]:
        return one.broadcast_like(mean).transpose(*mean.dims).values

    if conditions.applicable is not None:
        found |= ~on_cells(conditions.applicable) * np.uint8(FLAGS["outside_area_of_applicability"])
    if conditions.where is not None:
        found |= ~on_cells(conditions.where) * np.uint8(FLAGS["masked"])
    if conditions.members is not None:
        found |= on_cells(conditions.members.isnull().any("member")) * np.uint8(FLAGS["missing_members"])
    return found.astype(np.uint8)
