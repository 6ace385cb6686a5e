"""Many maps of one kind side by side, on one scale of colours: a month of days, or the parts of the variance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.plots.maps.cells import MOST, Cells
from bayesens.plots.maps.layers import check_inside, check_maps, layer_of, moment_of, said, step_dim
from bayesens.plots.maps.layout import DOUBLE, LOW, SMALL, TEXT, bar_of_all, canvas, named, size_of
from bayesens.plots.maps.mean_and_width import MEAN, WIDTH
from bayesens.plots.maps.panels import draw_moment, explain, limits_of, units_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["columns_for", "maps_by_time", "small_multiples", "variance_parts"]

PANELS = 100  # of a figure; smaller ones are not seen
TICKS = 12  # panels up to which every outer one has ticks
PARTS = {"sd_within": "within members", "sd_between": "between members", "sd_parameter": "parameters"}


def maps_by_time(
    maps: xr.Dataset,
    variable: str = "mean",
    *,
    inside: xr.DataArray | None = None,
    limits: tuple[float, float] | None = None,
    columns: int | None = None,
    label: str = "",
    figure: Figure | None = None,
) -> NDArray[np.object_]:
    """Maps of every time, such as the days of a month, side by side on one scale of colours.

    The more maps there are, the larger are the blocks of cells whose means are drawn: about 1,000 cells across the figure.

    Parameters
    ----------
    maps : Dataset
        From `bayesens.predict` of a grid, or `bayesens.map`, with one dimension beside rows and columns, of 1 to 100 steps.
    variable : str
        Variable of the maps, or "width": that of the 90 % interval.
    inside : DataArray, optional
        The area of applicability, as in `map`; it may change with time.
    limits : (float, float), optional
        Ends of the colours; without them the middle 98 % of all maps.
    columns : int, optional
        Maps side by side.
    label : str, optional
        Name of what is mapped.
    figure : Figure, optional
        An empty one to draw in.

    Returns
    -------
    array of Axes (time)

    Raises
    ------
    TypeError, KeyError, ValueError
        No maps, a variable that is not there, no dimension of time or more than one beside it, more than 100 steps.

    Examples
    --------
    >>> days = np.array(["2016-02-05", "2016-02-06"], "datetime64[ns]")
    >>> maps = xr.Dataset({"mean": (("time", "y", "x"), np.arange(8.0).reshape(2, 2, 2))}, {"time": days})
    >>> [ax.get_title(loc="left") for ax in maps_by_time(maps)]
    ['2016-02-05', '2016-02-06']
    """
    given: object = maps
    held = variable if isinstance(given, xr.Dataset) and variable in given else "mean"
    maps, cells = check_maps(maps, held)
    field = layer_of(maps, variable)
    dim = step_dim(field, cells)
    if not dim:
        raise ValueError("the maps have no time, or one alone; draw it by be.plots.map(maps)")
    size = field.sizes[dim]
    if size > PANELS:
        raise ValueError(
            f"the maps have {size} steps of {dim}, and a figure shows up to {PANELS}; select some: "
            f"maps.isel({dim}=slice(0, None, {-(-size // PANELS)}))"
        )
    columns = columns or columns_for(size, cells.shape)
    _, cells = check_maps(maps, held, most=max(MOST // columns, 60))
    area = check_inside(inside, field, cells)
    steps = field[dim].to_numpy() if dim in field.coords else np.arange(size)
    every = cells.means(**{str(k): field.isel({dim: k}) for k in range(size)})
    outside = [None] * size if area is None else _areas(cells, area, dim, size)
    text = named(label, _name(field, variable), units_of(field, maps))
    return small_multiples(
        cells,
        maps,
        list(every.values()),
        [said(step) for step in steps],
        text,
        limits=limits,
        areas=outside,
        columns=columns,
        cmap=MEAN if variable == "mean" else WIDTH,
        figure=figure,
    )


def variance_parts(
    maps: xr.Dataset,
    *,
    shares: bool = True,
    inside: xr.DataArray | None = None,
    time: Any = None,
    limits: tuple[float, float] | None = None,
    figure: Figure | None = None,
) -> NDArray[np.object_]:
    """Maps of the parts of the predictive variance on one scale: within members, between members, and of the parameters.

    Parameters
    ----------
    maps : Dataset
        From `bayesens.predict` of a grid, or `bayesens.map`.
    shares : bool
        Shares of the variance [%], which add up to 100; or else standard deviations [units of the maps].
    inside, time, limits
        As in `map`.
    figure : Figure, optional
        An empty one to draw in.

    Returns
    -------
    array of Axes (3)

    Raises
    ------
    TypeError, KeyError, ValueError
        No maps, parts or times that are not there.

    Examples
    --------
    >>> dims, parts = ("y", "x"), {"sd_within": 4.0, "sd_between": 3.0, "sd_parameter": 0.0}
    >>> maps = xr.Dataset({name: (dims, np.full((2, 2), sd)) for name, sd in ({"mean": 1.0} | parts).items()})
    >>> [ax.collections[0].get_array().mean().item() for ax in variance_parts(maps)]
    [64.0, 36.0, 0.0]
    """
    maps, _ = check_maps(maps)
    fields = [layer_of(maps, name) for name in PARTS]
    _, cells = check_maps(maps, most=MOST // len(PARTS))
    parts, units, text = dict(zip(PARTS, fields, strict=True)), units_of(fields[0], maps), "standard deviation"
    if shares:
        total = fields[0] ** 2 + fields[1] ** 2 + fields[2] ** 2
        parts = {name: 100 * one**2 / total.where(total > 0) for name, one in parts.items()}
        units, text = "%", "share of the variance"
        limits = limits or (0.0, 100.0)
    found = moment_of(cells, time, inside, instead="be.plots.maps_by_time(maps, 'sd_between')", **parts)
    return small_multiples(
        cells,
        maps,
        list(found.values.values()),
        list(PARTS.values()),
        named("", text, units),
        limits=limits,
        areas=[found.inside] * len(PARTS),
        columns=len(PARTS),
        cmap=WIDTH,
        figure=figure,
    )


def small_multiples(
    cells: Cells,
    maps: xr.Dataset,
    values: Sequence[NDArray[np.float64]],
    titles: Sequence[str],
    label: str,
    *,
    limits: tuple[float, float] | None,
    areas: Sequence[NDArray[np.float64] | None],
    columns: int,
    cmap: str,
    figure: Figure | None,
) -> NDArray[np.object_]:
    """Draw maps of the same cells side by side: one scale, one colour bar, and axes of the outer ones alone."""
    from matplotlib.colors import Normalize

    rows = -(-len(values) // columns)
    norm = Normalize(*limits_of(limits, *values))
    made = figure or canvas(cells, rows, columns, width=DOUBLE, side=0.7)[0]
    upright = made.get_size_inches()[1] >= LOW
    if figure is None and not upright:
        made.set_figheight(made.get_figheight() + 0.5)
    every = made.subplots(rows, columns, squeeze=False).ravel()
    small, wide = len(values) > TICKS, size_of(every[0], cells)[0]
    drawn: Any = None
    for k, (ax, one, title, area) in enumerate(zip(every, values, titles, areas, strict=False)):
        drawn = draw_moment(ax, cells, maps, one, area, cmap, norm)
        # As wide as the map at most.
        ax.set_title(title, loc="left", fontsize=min(SMALL if small else TEXT, 115 * wide / max(len(title), 10)), pad=2)
        # Of many panels one alone has ticks: numbers beside each would take the room of the maps.
        outer = (
            (k == columns * (rows - 1), k == columns * (rows - 1))
            if small
            else (k % columns == 0, k + columns >= len(values))
        )
        ax.tick_params(left=outer[0], labelleft=outer[0], bottom=outer[1], labelbottom=outer[1])
        if small:
            ax.locator_params(nbins=2)
        ax.set_ylabel(ax.get_ylabel() if outer[0] else "")
        ax.set_xlabel(ax.get_xlabel() if outer[1] else "")
    for ax in every[len(values) :]:
        ax.remove()
    panels = every[: len(values)]
    bar_of_all(made, panels, drawn, label, *values, upright=upright)
    explain(panels[0], values, areas)
    return panels


def columns_for(size: int, shape: float) -> int:
    """Maps side by side, so that all of them make a page that is somewhat wider than high.

    Examples
    --------
    >>> [columns_for(size, 1.0) for size in (1, 2, 3, 12, 30, 100)]
    [1, 2, 3, 4, 6, 10]
    """
    if size <= 3 and shape < 2:
        return size
    wide = min(size, max(1, round(float(np.sqrt(1.2 * size * shape)))))
    return -(-size // -(-size // wide))


def _areas(cells: Cells, area: xr.DataArray, dim: str, size: int) -> list[NDArray[np.float64] | None]:
    if dim not in area.dims:
        return [cells.means(inside=area)["inside"]] * size
    return list(cells.means(**{str(k): area.isel({dim: k}) for k in range(size)}).values())


def _name(field: xr.DataArray, variable: str) -> str:
    return str(field.attrs.get("long_name", variable.replace("_", " ")))
