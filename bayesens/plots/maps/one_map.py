"""Any one map, such as the dissimilarity index or the error to expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from bayesens.plots.maps.cells import cells_of
from bayesens.plots.maps.layers import moment_of
from bayesens.plots.maps.layout import SINGLE, TEXT, bar_beside, bar_room, canvas, named
from bayesens.plots.maps.mean_and_width import MEAN
from bayesens.plots.maps.panels import draw_moment, draw_stations, explain, limits_of, units_of
from bayesens.plots.maps.station_points import station_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["map_of"]


def map_of(
    values: xr.DataArray,
    *,
    stations: Any = None,
    value: str | None = None,
    inside: xr.DataArray | None = None,
    time: Any = None,
    limits: tuple[float, float] | None = None,
    label: str = "",
    cmap: str = MEAN,
    ax: Axes | None = None,
) -> Axes:
    """Map of any one variable: an expected error, a dissimilarity index, a standard deviation, a covariate, one draw.

    Of more than 1,000 cells a side, means of blocks are drawn.

    Parameters
    ----------
    values : DataArray
        With rows and columns, as in `map`: ``profile.predict(index)["expected_error"]``, ``area.grid(cells)["dissimilarity"]``.
    stations, value, inside, time, limits
        As in `map`.
    label : str, optional
        Of the colour bar; without it the ``long_name`` or name of the variable.
    cmap : str
        Scale of matplotlib; those that rise or fall in lightness throughout are read by all: viridis, cividis, magma.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, KeyError, ValueError
        No map; as in `map`.

    Examples
    --------
    >>> index = xr.DataArray([[0.1], [0.4]], dims=("y", "x"), attrs={"long_name": "dissimilarity index", "units": "1"})
    >>> map_of(index).child_axes[0].get_ylabel()
    'Dissimilarity index'
    """
    from matplotlib.colors import Normalize

    given: object = values
    if not isinstance(given, xr.DataArray):
        raise TypeError(f"got {type(given).__name__}; wanted one map, a DataArray with rows and columns: maps['sd']")
    cells = cells_of(values)
    found = moment_of(cells, time, inside, instead="be.plots.maps_by_time(maps, variable)", map=values)
    points = station_points(stations, cells, value, found.time)
    observed = [] if points is None else [points.value]
    norm = Normalize(*limits_of(limits, found.values["map"], stations=observed[0] if observed else None))
    if ax is None:
        ax = canvas(cells, 1, 1, width=SINGLE, **bar_room(cells, 0.7))[0].subplots()
    drawn = draw_moment(ax, cells, values, found.values["map"], found.inside, cmap, norm)
    draw_stations(ax, points, cmap, norm)
    units = units_of(values, values.to_dataset(name="map"))
    name = str(label or values.attrs.get("long_name") or values.name or "value").replace("_", " ")
    bar_beside(ax, cells, drawn, named("", name, "" if units == "1" else units), found.values["map"], *observed)
    ax.set_title(found.title, loc="left", fontsize=TEXT)
    explain(ax, [found.values["map"]], [found.inside], points)
    return ax
