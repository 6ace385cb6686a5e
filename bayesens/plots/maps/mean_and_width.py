"""The two maps that every paper needs: the predictive mean, and how wide the 90 % interval is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.plots.maps.layers import check_maps, moment_of, width_of
from bayesens.plots.maps.layout import DOUBLE, TEXT, bar_beside, bar_room, canvas, named
from bayesens.plots.maps.panels import draw_moment, draw_stations, explain, limits_of, units_of
from bayesens.plots.maps.station_points import station_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MEAN", "WIDTH", "map"]

MEAN, WIDTH = "viridis_r", "magma_r"  # two scales, so that no one reads one off the other; both fall in lightness


def map(  # noqa: A001  # as bayesens.map, whose maps it draws
    maps: xr.Dataset,
    *,
    stations: Any = None,
    value: str | None = None,
    inside: xr.DataArray | None = None,
    time: Any = None,
    limits: tuple[float, float] | None = None,
    width_limits: tuple[float, float] | None = None,
    label: str = "",
    axes: Sequence[Axes] | None = None,
) -> NDArray[np.object_]:
    """Map of the predictive mean beside that of the width of the 90 % interval, with stations in the colours of the map.

    Of more than 1,000 cells a side, means of blocks are drawn. Colours end at the middle 98 % of large maps (with their
    stations), and the colour bar is pointed where values lie beyond.

    Parameters
    ----------
    maps : Dataset
        From `bayesens.predict` of a grid, or `bayesens.map`, with the quantiles .05 and .95; in memory or of dask. Rows and
        columns may rise or fall; x and y may have one dimension or two.
    stations : Ensemble or DataFrame, optional
        Stations on top: of an ensemble the mean observation of each site, at the time of the map where both have times; or a
        table with one line a station. Their coordinates are called as those of the map.
    value : str, optional
        Column of the table with observations; without it stations are white dots.
    inside : DataArray, optional
        The area of applicability on the cells of the map, 1 inside and 0 outside, as ``area.grid(covariates)["inside"]``; cells
        outside are hatched.
    time : date or label, optional
        Which map, where there are several.
    limits, width_limits : (float, float), optional
        Ends of the colours of mean and width, so that several figures can be compared [units of the maps].
    label : str, optional
        Name of what is mapped.
    axes : two Axes, optional
        Where to draw.

    Returns
    -------
    array of Axes (2)

    Raises
    ------
    TypeError
        No maps, stations or area.
    KeyError, ValueError
        Quantiles, times or columns that are not there; cells of other maps; stations that are all off the map.

    Examples
    --------
    >>> dims = ("lat", "lon")
    >>> maps = xr.Dataset({"mean": (dims, [[0.1, 0.2], [0.3, 0.4]], {"units": "m3 m-3"})}, {"lat": [1.0, 0.0], "lon": [5.0, 6.0]})
    >>> ends = [maps["mean"] - 0.1, maps["mean"] + 0.1]
    >>> maps["quantile_value"] = xr.concat(ends, "quantile").assign_coords(quantile=[0.05, 0.95])
    >>> [ax.child_axes[0].get_ylabel() for ax in map(maps, label="Soil moisture")]
    ['Soil moisture: mean [m³ m⁻³]', 'Width of the 90 % interval [m³ m⁻³]']
    """
    from matplotlib.colors import Normalize

    maps, cells = check_maps(maps)
    mean, width = maps["mean"], width_of(maps)
    found = moment_of(cells, time, inside, mean=mean, width=width)
    points = station_points(stations, cells, value, found.time)
    if axes is None:
        both = np.asarray(
            canvas(cells, 1, 2, width=DOUBLE, **bar_room(cells, 0.85))[0].subplots(1, 2, sharex=True, sharey=True),
            dtype=object,
        )
    else:
        both = np.ravel(np.asarray(axes, dtype=object))
        if len(both) != 2:
            raise ValueError(f"got {len(both)} axes; wanted two: mean and width of the 90 % interval")
    observed = [] if points is None else [points.value]
    of_mean = Normalize(*limits_of(limits, found.values["mean"], stations=observed[0] if observed else None))
    of_width = Normalize(*limits_of(width_limits, found.values["width"]))
    drawn = draw_moment(both[0], cells, maps, found.values["mean"], found.inside, MEAN, of_mean)
    draw_stations(both[0], points, MEAN, of_mean)
    text = named(label, "mean" if label else "predictive mean", units_of(mean, maps))
    bar_beside(both[0], cells, drawn, text, found.values["mean"], *observed)
    both[0].set_title(found.title, loc="left", fontsize=TEXT)
    drawn = draw_moment(both[1], cells, maps, found.values["width"], found.inside, WIDTH, of_width)
    draw_stations(both[1], points, WIDTH, None)
    text = named("", "width of the 90 % interval", units_of(width, maps))
    bar_beside(both[1], cells, drawn, text, found.values["width"])
    if axes is None:
        both[1].set_ylabel("")
    explain(both[0], list(found.values.values()), [found.inside], points)
    return both
