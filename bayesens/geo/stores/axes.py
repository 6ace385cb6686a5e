"""Where the cells of a map lie: its two horizontal axes, their transform and the bounds of cells."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.messages import listed

__all__ = ["Axes", "find_axes"]

Transform = tuple[float, float, float, float, float, float]
X_NAMES = ("x", "lon", "longitude", "easting", "projection_x_coordinate", "grid_longitude", "col", "column")
Y_NAMES = ("y", "lat", "latitude", "northing", "projection_y_coordinate", "grid_latitude", "row")
EVEN = 1e-3  # of a step: coordinates in single precision, or written with few decimals, are even to this


@dataclass(frozen=True, eq=False)
class Axes:
    """The horizontal axes of a map.

    Attributes
    ----------
    y, x : str
        Dimensions: rows and columns.
    rows, columns : array (y,) and array (x,), or None
        Centres of cells. None where the dimensions have no coordinates of one dimension.
    flat : tuple of str
        Names of coordinates that lie on both dimensions (longitudes and latitudes of a curvilinear grid).
    """

    y: str
    x: str
    rows: NDArray[np.float64] | None
    columns: NDArray[np.float64] | None
    flat: tuple[str, ...]

    @property
    def transform(self) -> Transform | None:
        """The affine transform (a, b, c, d, e, f) from (column, row) to (x, y), corners of cells; None where there is none.

        Examples
        --------
        >>> Axes("lat", "lon", np.array([2.0, 1.0]), np.array([10.0, 10.5]), ()).transform
        (0.5, 0.0, 9.75, 0.0, -1.0, 2.5)
        """
        if self.rows is None or self.columns is None:
            return None
        dy, dx = _step(self.rows), _step(self.columns)
        if dy is None or dx is None:
            return None
        left, top = float(self.columns[0]) - dx / 2, float(self.rows[0]) - dy / 2
        return (dx, 0.0, left, 0.0, dy, top)

    @property
    def bounds(self) -> dict[str, NDArray[np.float64]]:
        """Bounds (cell, 2) of cells along each axis that has coordinates, half way between the centres."""
        pairs = ((self.y, self.rows), (self.x, self.columns))
        return {name: _bounds(one) for name, one in pairs if one is not None and len(one) > 1}


def find_axes(maps: xr.Dataset, grid: tuple[str, ...], dims: tuple[str, str] | None = None) -> Axes:
    """Find which dimensions of a map are its rows and columns.

    Parameters
    ----------
    maps : Dataset
    grid : tuple of str
        Dimensions of the grid.
    dims : (str, str), optional
        The dimensions of rows and columns, where their names do not say it.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the two are not among the dimensions, or cannot be told.
    """
    if dims is not None:
        if len({*dims}) != 2 or not set(dims) <= set(grid):
            raise ValueError(
                f"dims is {dims}; wanted two of the dimensions of the maps, {listed(grid)}: (rows, columns)"
            )
        y, x = dims
    else:
        y, x = _told(maps, grid, "Y", Y_NAMES), _told(maps, grid, "X", X_NAMES)
    if not y or not x:
        raise ValueError(
            f"The maps have the dimensions {listed(grid) or 'none'}, and none of them is known to be that of "
            f"{'rows' if not y else 'columns'}; say which by dims=(rows, columns)."
        )
    flat = tuple(str(name) for name, one in maps.coords.items() if set(map(str, one.dims)) == {y, x})
    return Axes(y, x, _line(maps, y), _line(maps, x), flat)


def _told(maps: xr.Dataset, grid: tuple[str, ...], axis: str, names: tuple[str, ...]) -> str:
    """The dimension that says which axis it is, by its attributes or by its name."""
    for dim in grid:
        attrs = maps[dim].attrs if dim in maps.coords else {}
        if attrs.get("axis") == axis or attrs.get("standard_name") in names:
            return dim
    return next((dim for dim in grid if dim.lower() in names), "")


def _line(maps: xr.Dataset, dim: Hashable) -> NDArray[np.float64] | None:
    if dim not in maps.coords or maps[dim].dtype.kind not in "iuf":
        return None
    return np.asarray(maps[dim].values, dtype=np.float64)


def _step(centres: NDArray[np.float64]) -> float | None:
    """Width of cells, signed; None where they are not even, or where one cell alone does not say it."""
    if len(centres) < 2:
        return None
    step = float(centres[-1] - centres[0]) / (len(centres) - 1)
    rounding = np.finfo(np.float32).eps * float(np.abs(centres).max())
    even = step != 0 and bool(np.all(np.abs(np.diff(centres) - step) <= EVEN * abs(step) + 2 * rounding))
    return step if even else None


def _bounds(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    inner = (centres[:-1] + centres[1:]) / 2
    edges = np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])
    return np.stack([edges[:-1], edges[1:]], axis=1)
