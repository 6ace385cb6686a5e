"""Where it is likely that a value lies below a threshold, as in a drought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from bayesens.plots.axes import raised
from bayesens.plots.maps.layers import check_maps, moment_of, probability_of
from bayesens.plots.maps.layout import SINGLE, TEXT, bar_beside, bar_room, canvas
from bayesens.plots.maps.panels import draw_moment, draw_stations, explain
from bayesens.plots.maps.station_points import station_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["probability_map"]

DIVERGING, SEQUENTIAL = "BrBG_r", "YlOrBr"


def probability_map(
    maps: xr.Dataset,
    *,
    threshold: float | str | None = None,
    center: float | None = 0.5,
    stations: Any = None,
    inside: xr.DataArray | None = None,
    time: Any = None,
    label: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Map of the probability of lying below a threshold, such as that of a drought.

    Of more than 1,000 cells a side, means of blocks are drawn.

    Parameters
    ----------
    maps : Dataset
        From `bayesens.predict` of a grid, or `bayesens.map`, with ``below=``.
    threshold : float or str, optional
        Which of the thresholds [units of the maps]; the only one where there is one.
    center : float, optional
        Probability at which the colours change from green, less likely, to brown, more likely: .5, or the probability that the
        climate has. None: one hue, from 0 to 1, for rare events.
    stations : Ensemble or DataFrame, optional
        Places of stations, as in `map`; white dots.
    inside, time
        As in `map`.
    label : str, optional
        Of the colour bar.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        No probabilities, thresholds or times that are not there, a centre that is no probability.

    Examples
    --------
    >>> below = xr.DataArray([[[0.1], [0.9]]], {"threshold": [0.15]}, ("threshold", "y", "x"))
    >>> maps = xr.Dataset({"probability_below": below}, attrs={"units": "m3 m-3"})
    >>> probability_map(maps).child_axes[0].get_ylabel()
    'Probability of less than 0.15 m³ m⁻³'
    """
    from matplotlib.colors import Normalize, TwoSlopeNorm

    given: object = maps
    if isinstance(given, xr.Dataset) and "probability_below" not in maps and "mean" in maps:
        raise ValueError(
            "the maps have no probabilities; wanted a threshold: be.predict(fit, grid, below="
            f"{0.1 if threshold is None else threshold!r})"
        )
    maps, cells = check_maps(maps, "probability_below")
    field, words = probability_of(maps, threshold)
    if center is not None and not 0 < center < 1:
        raise ValueError(f"center is {center!r}; wanted a probability between 0 and 1, or None for one hue")
    found = moment_of(cells, time, inside, instead="be.plots.maps_by_time(maps, 'probability_below')", below=field)
    points = station_points(stations, cells, None, found.time)
    if ax is None:
        ax = canvas(cells, 1, 1, width=SINGLE, **bar_room(cells, 0.7))[0].subplots()
    norm = Normalize(0, 1) if center is None else TwoSlopeNorm(center, 0, 1)
    drawn = draw_moment(
        ax, cells, maps, found.values["below"], found.inside, SEQUENTIAL if center is None else DIVERGING, norm
    )
    draw_stations(ax, points, "", None)
    units = str(maps.attrs.get("units") or maps.get("mean", field).attrs.get("units", ""))
    bar = bar_beside(ax, cells, drawn, label or f"Probability of less than {words} {raised(units)}".strip())
    bar.set_ticks(sorted({0.0, 0.25, 0.5, 0.75, 1.0, center or 0.0}))
    ax.set_title(found.title, loc="left", fontsize=TEXT)
    explain(ax, list(found.values.values()), [found.inside], points)
    return ax
