"""Where the cells of maps lie on paper: their corners, the true shape of the map, and block means of large ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.ensemble.sphere import great_circle
from bayesens.geo.stores.axes import find_axes
from bayesens.messages import listed
from bayesens.plots.axes import labelled

__all__ = ["MOST", "Cells", "axis_labels", "cells_of", "in_km"]

Array = NDArray[np.float64]
MOST = 1000  # cells a side that are drawn: a page of 180 mm at 300 dots an inch has 2,100 dots
# Names of coordinates, by which two on both dimensions are told apart; lengths in a plane, and degrees.
PLANE = (("x", "easting", "projection_x_coordinate", "xc"), ("y", "northing", "projection_y_coordinate", "yc"))
DEGREES = (("lon", "longitude", "grid_longitude"), ("lat", "latitude", "grid_latitude"))
LON_LAT = ("Longitude [°]", "Latitude [°]")


@dataclass(frozen=True, eq=False)
class Cells:
    """Where the cells of maps lie.

    Attributes
    ----------
    dims : (str, str)
        Rows and columns.
    names : (str, str)
        Coordinates, across and up; those of stations are called the same.
    centres : (array, array)
        Across and up: (x,) and (y,), or both (y, x).
    units : str
        Of the coordinates; "°" on the sphere, empty where nobody says.
    counted : bool
        The maps have no coordinates: rows are counted from the top.
    step : (int, int)
        Rows and columns of which a block mean is drawn.
    """

    dims: tuple[str, str]
    names: tuple[str, str]
    centres: tuple[Array, Array]
    units: str
    counted: bool
    step: tuple[int, int]

    @property
    def on_sphere(self) -> bool:
        """Whether the coordinates are degrees."""
        return self.units == "°"

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows and columns of the maps."""
        across, up = self.centres
        return (len(up), len(across)) if up.ndim == 1 else (up.shape[0], up.shape[1])

    @cached_property
    def corners(self) -> tuple[Array, Array]:
        """Corners of what is drawn, across and up: edges of columns and of rows, or both (y + 1, x + 1)."""
        rows, columns = (np.append(np.arange(0, n, k), n) for n, k in zip(self.sizes, self.step, strict=True))
        across, up = self.centres
        if up.ndim == 1:
            wide, high = _edges(across), _edges(up)
            # One column or one row alone does not say how wide it is: as the other side's cells are.
            if len(across) == 1 and len(up) > 1:
                wide = across[0] + abs(up[1] - up[0]) * np.array([-0.5, 0.5])
            if len(up) == 1 and len(across) > 1:
                high = up[0] + abs(across[1] - across[0]) * np.array([-0.5, 0.5])
            return wide[columns], high[rows]
        return _corners(across)[np.ix_(rows, columns)], _corners(up)[np.ix_(rows, columns)]

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of the map."""
        across, up = self.corners
        return float(across.min()), float(across.max()), float(up.min()), float(up.max())

    @property
    def aspect(self) -> float:
        """Length of a unit upwards in units across: a degree of longitude shrinks by the cosine of the latitude."""
        _, _, bottom, top = self.extent
        return 1 / max(float(np.cos(np.radians((bottom + top) / 2))), 0.05) if self.on_sphere else 1.0

    @property
    def shape(self) -> float:
        """Height of the map divided by its width, on paper."""
        left, right, bottom, top = self.extent
        return self.aspect * (top - bottom) / (right - left)

    def means(self, **layers: xr.DataArray) -> dict[str, Array]:
        """Block means (row, column) of maps with these dimensions alone; a block without any value is NaN.

        All are computed in one go, so that what lazy maps share is computed once.
        """
        row, column = self.dims
        size = {row: self.step[0], column: self.step[1]}
        plain = {
            name: one.astype(np.float64).drop_vars(list(one.coords)).transpose(row, column)
            for name, one in layers.items()
        }
        found = xr.Dataset(plain)
        if max(self.step) > 1:
            found = found.coarsen(size, boundary="pad").mean()
        found = found.compute()
        return {name: found[name].to_numpy() for name in layers}

    def nearest(self, place: Mapping[str, float]) -> tuple[int, int, float]:
        """Row and column of the cell whose centre is nearest to a place, and how far it is.

        Raises
        ------
        ValueError
            A place without these coordinates, or off the map.
        """
        given: object = place
        across, up = np.broadcast_arrays(*self.centres) if self.centres[0].ndim == 2 else np.meshgrid(*self.centres)
        if not isinstance(given, Mapping) or set(place) != set(self.names):
            wanted = "{" + ", ".join(f"{name!r}: ..." for name in self.names) + "}"
            raise ValueError(f"place is {place!r}; wanted the coordinates of one place: place={wanted}")
        x, y = (float(place[name]) for name in self.names)
        left, right, bottom, top = self.extent
        if not (left <= x <= right and bottom <= y <= top):
            raise ValueError(
                f"the place {dict(place)} is off the map, which has {self.names[0]} from {left:.6g} to {right:.6g} "
                f"and {self.names[1]} from {bottom:.6g} to {top:.6g}; give a place within"
            )
        far = great_circle(across, up, x, y) if self.on_sphere else np.hypot(across - x, up - y)
        row, column = np.unravel_index(int(np.argmin(far)), far.shape)
        return int(row), int(column), float(far[row, column])


def cells_of(maps: xr.Dataset | xr.DataArray, *, most: int = MOST) -> Cells:
    """Find where the cells of maps lie.

    Parameters
    ----------
    maps : Dataset or DataArray
        Rows and columns are found by their names or CF attributes: y and x, lat and lon, row and col.
    most : int
        Cells a side that are drawn: of more, block means.

    Raises
    ------
    ValueError
        Rows and columns cannot be told, there are no cells, or coordinates do not rise or fall or are not finite.

    Examples
    --------
    >>> found = cells_of(xr.DataArray(np.zeros((2, 3)), {"lat": [1.0, 0.0], "lon": [5.0, 6.0, 7.0]}, ("lat", "lon")))
    >>> found.extent, found.on_sphere
    ((4.5, 7.5, -0.5, 1.5), True)
    """
    dims = tuple(str(dim) for dim in maps.dims)
    data = maps if isinstance(maps, xr.Dataset) else maps.to_dataset(name="map")
    try:
        axes = find_axes(data, dims)
    except ValueError:
        raise ValueError(
            f"the maps have the dimensions {listed(dims) or 'none'}; wanted rows and columns with names that say so, y and x or "
            "lat and lon: maps.rename(northing_m='y', easting_m='x')"
        ) from None
    if not (data.sizes[axes.y] and data.sizes[axes.x]):
        raise ValueError(f"the maps have no cells: {axes.y} {data.sizes[axes.y]} by {axes.x} {data.sizes[axes.x]}")
    step = (-(-data.sizes[axes.y] // most), -(-data.sizes[axes.x] // most))
    if axes.rows is not None and axes.columns is not None:
        found = (axes.columns, axes.rows)
        for name, one in zip((axes.x, axes.y), found, strict=True):
            turns = np.diff(one)
            if not (np.isfinite(one).all() and ((turns > 0).all() or (turns < 0).all())):
                raise ValueError(
                    f"the coordinate {name!r} neither rises nor falls throughout; sort it: maps.sortby({name!r})"
                )
        units = _units(data, axes.x, axes.x.lower() in DEGREES[0])
        return Cells((axes.y, axes.x), (axes.x, axes.y), found, units, False, step)
    for names, degrees in ((PLANE, False), (DEGREES, True)):  # a plane is drawn without distortion
        across, up = (next((one for one in axes.flat if _is(data, one, side)), "") for side in names)
        if across and up:
            both = tuple(data[one].transpose(axes.y, axes.x).to_numpy().astype(np.float64) for one in (across, up))
            if not all(np.isfinite(one).all() for one in both):
                raise ValueError(
                    f"some cells have no {across!r} or no {up!r}; wanted places of all cells, also of empty ones"
                )
            return Cells((axes.y, axes.x), (across, up), (both[0], both[1]), _units(data, across, degrees), False, step)
    counted = (np.arange(data.sizes[axes.x], dtype=np.float64), np.arange(data.sizes[axes.y], dtype=np.float64))
    return Cells((axes.y, axes.x), (axes.x, axes.y), counted, "", True, step)


def _is(maps: xr.Dataset, name: str, side: tuple[str, ...]) -> bool:
    return name.lower() in side or maps[name].attrs.get("standard_name") in side


def _units(maps: xr.Dataset, name: str, degrees: bool) -> str:
    units = str(maps[name].attrs.get("units", ""))
    return "°" if degrees or units.startswith("degree") else units


def _edges(centres: Array) -> Array:
    """Edges half way between centres, as far beyond the first and last of them as within."""
    if len(centres) == 1:
        return centres[0] + np.array([-0.5, 0.5])
    beyond = np.pad(centres, 1, mode="reflect", reflect_type="odd")
    return (beyond[:-1] + beyond[1:]) / 2


def _corners(centres: Array) -> Array:
    """Corners in the middle of four centres, with a rim that goes on as the cells do."""
    along = [_edges(column) for column in centres.T]
    return np.stack([_edges(row) for row in np.stack(along, axis=1)])


def axis_labels(cells: Cells, maps: xr.Dataset | xr.DataArray) -> tuple[str, str]:
    """Labels of the axes, with units."""
    if cells.on_sphere:
        return LON_LAT
    if cells.counted:
        return "Column", "Row"
    units = "km" if in_km(cells) else cells.units
    x, y = (str(maps[name].attrs.get("long_name", name)) for name in cells.names)
    return labelled(x, units), labelled(y, units)


def in_km(cells: Cells) -> bool:
    """Whether metres are so many that the axes count in kilometres."""
    left, right, _, _ = cells.extent
    return cells.units in ("m", "metre", "meter", "metres", "meters") and right - left >= 5000
