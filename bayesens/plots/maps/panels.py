"""How a map is drawn: cells in colours, hatching, missing cells, stations, colour bars, legends and sizes of figures."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.plots.axes import INK
from bayesens.plots.maps.cells import Cells, axis_labels, in_km
from bayesens.plots.maps.layout import SMALL, TEXT, size_of
from bayesens.plots.maps.station_points import StationPoints

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize

__all__ = [
    "draw_cells",
    "draw_moment",
    "draw_stations",
    "explain",
    "hatch",
    "limits_of",
    "map_axes",
    "units_of",
]

Array = NDArray[np.float64]
MISSING = "0.86"
LEGEND = "explained"
HATCH = "////"
SPOTS = 1000  # values from which on the colours end at the middle 98 %


def limits_of(limits: tuple[float, float] | None, *values: Array, stations: Array | None = None) -> tuple[float, float]:
    """Ends of the colours: as given, or the middle 98 % of large maps and of stations, so that no wild cell takes them all.

    Examples
    --------
    >>> limits_of(None, np.array([1.0, 3.0, np.nan]))
    (1.0, 3.0)
    """
    if limits is not None:
        ends = np.asarray(limits, dtype=object)
        if ends.shape != (2,) or not all(isinstance(end, Real) for end in ends) or not ends[0] < ends[1]:
            raise ValueError(f"limits is {limits!r}; wanted the lowest and the highest value of the colours")
        return float(ends[0]), float(ends[1])
    every = np.concatenate([one.ravel() for one in values])
    every = every[np.isfinite(every)]
    if not len(every):
        raise ValueError(
            "the maps have no value in any cell at this time; nothing can be drawn: give other maps or another time"
        )
    low, high = np.quantile(every, [0.01, 0.99]) if len(every) >= SPOTS else (every.min(), every.max())
    if stations is not None and len(own := stations[np.isfinite(stations)]):
        low, high = min(low, np.quantile(own, 0.02)), max(high, np.quantile(own, 0.98))
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    return float(low), float(high)


def map_axes(ax: Axes, cells: Cells, maps: xr.Dataset | xr.DataArray) -> Axes:
    """Axes of a map: true shape, a thin frame, few ticks, labels with units."""
    left, right, bottom, top = cells.extent
    ax.set(xlim=(left, right), ylim=(top, bottom) if cells.counted else (bottom, top))
    ax.set_aspect(cells.aspect, adjustable="box")
    ax.spines[:].set(linewidth=0.5, color="0.4")
    ax.tick_params(direction="out", length=2.5, width=0.5, labelsize=SMALL)
    wide, high = size_of(ax, cells)
    ax.locator_params(axis="x", nbins=4 if wide > 1.9 else 2 if wide > 0.8 else 1)
    ax.locator_params(axis="y", nbins=5 if high > 1.2 else 3)
    if in_km(cells):
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(lambda at, _: f"{at / 1000:g}")
    else:
        ax.ticklabel_format(useOffset=False, style="plain")
    x, y = axis_labels(cells, maps)
    ax.set_xlabel(x, fontsize=TEXT)
    ax.set_ylabel(y, fontsize=TEXT)
    return ax


def draw_moment(
    ax: Axes,
    cells: Cells,
    maps: xr.Dataset | xr.DataArray,
    values: Array,
    inside: Array | None,
    cmap: str | Colormap,
    norm: Normalize,
    missing: str = MISSING,
) -> Any:
    """One map on its axes: cells in colours, hatched outside of an area."""
    map_axes(ax, cells, maps)
    drawn = draw_cells(ax, cells, values, cmap, norm, missing)
    if inside is not None:
        hatch(ax, cells, inside)
    return drawn


def draw_cells(
    ax: Axes, cells: Cells, values: Array, cmap: str | Colormap, norm: Normalize, missing: str = MISSING
) -> Any:
    """Cells in colours, those without a value in light grey."""
    import matplotlib as mpl

    colors = (mpl.colormaps[cmap] if isinstance(cmap, str) else cmap).with_extremes(bad=missing)
    across, up = cells.corners
    return ax.pcolormesh(across, up, np.ma.masked_invalid(values), cmap=colors, norm=norm, rasterized=True, zorder=0)


def hatch(ax: Axes, cells: Cells, inside: Array) -> None:
    """Hatch the cells outside of an area: dark lines with a white edge, which are seen on every colour.

    Runs of cells in a row are one outline, and all outlines one shape, which is drawn in a moment.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    outside = np.pad(inside < 0.5, ((0, 0), (1, 1))).astype(np.int8)
    row, begin = np.nonzero(np.diff(outside, axis=1) == 1)
    end = np.nonzero(np.diff(outside, axis=1) == -1)[1]
    if not len(row):
        return
    across, up = cells.corners
    if up.ndim == 1:
        across, up = np.meshgrid(across, up)
    around = [(row, begin), (row, end), (row + 1, end), (row + 1, begin), (row, begin)]
    points = np.stack([np.column_stack([across[at], up[at]]) for at in around], axis=1).reshape(-1, 2)
    codes = np.tile([Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY], len(row)).astype(np.uint8)
    shape = Path(points, codes)
    small = size_of(ax, cells)[0] < 1.3
    lines, edge = (HATCH[1:] * 2, 1.0) if small else (HATCH, 1.5)  # closer on small maps
    for color, lw, order in (("white", edge, 1.0), (INK, 0.5, 1.1)):
        patch = PathPatch(shape, facecolor="none", edgecolor=color, lw=0, hatch=lines, zorder=order)
        patch.set_hatch_linewidth(lw)
        patch.set_in_layout(False)
        ax.add_artist(patch)  # add_patch would walk along all outlines: 30 s for 100,000


def draw_stations(
    ax: Axes, points: StationPoints | None, cmap: str, norm: Normalize | None, *, size: float = 4.0
) -> None:
    """Stations in the colours of the map, with a white edge; without observations, or without a norm, white dots."""
    from matplotlib.patheffects import withStroke

    if points is None:
        return
    value = points.value if norm is not None else np.full(len(points.x), np.nan)
    known = np.isfinite(value)
    place: dict[str, Any] = {"ls": "", "clip_on": False, "zorder": 2}
    if known.any():
        # A dark rim around the white edge: on light colours the edge alone is not seen.
        ax.scatter(
            points.x[known],
            points.y[known],
            c=value[known],
            s=size**2,
            cmap=cmap,
            norm=norm,
            edgecolors="white",
            linewidths=0.9,
            path_effects=[withStroke(linewidth=1.8, foreground=INK)],
            clip_on=False,
            zorder=2.1,
        )
    if not known.all():
        ax.plot(points.x[~known], points.y[~known], "o", ms=size * 0.7, mfc="white", mec=INK, mew=0.5, **place)


def explain(
    ax: Axes,
    values: Sequence[Array],
    insides: Sequence[Array | None] = (),
    points: StationPoints | None = None,
    missing: str = MISSING,
) -> None:
    """A legend below the maps of what their colours do not say; one for all maps of a figure.

    Parameters
    ----------
    ax : Axes
        One of its figure.
    values : sequence of array (row, column)
        The maps.
    insides : sequence of array (row, column) or None
        Their areas of applicability.
    points : StationPoints, optional
    missing : color
        Of cells without a value.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    if points is not None:
        color = "0.55" if np.isfinite(points.value).any() else "white"
        handles.append(Line2D([], [], ls="", marker="o", ms=5, mfc=color, mec=INK, mew=0.5, label=points.label))
    if any(one is not None and bool((one < 0.5).any()) for one in insides):
        box = Patch(facecolor="white", edgecolor=INK, lw=0.4, hatch="//////", label="outside the area of applicability")
        box.set_hatch_linewidth(0.5)
        handles.append(box)
    if any(bool(np.isnan(one).any()) for one in values):
        handles.append(Patch(facecolor=missing, edgecolor="0.4", lw=0.4, label="no value"))
    figure: Any = ax.get_figure(root=True)
    for old in [
        one for one in figure.legends if one.get_gid() == LEGEND
    ]:  # of maps drawn before, in axes of the caller's
        said = {handle.get_label() for handle in handles}
        handles = [handle for handle in old.legend_handles if handle.get_label() not in said] + handles
        old.remove()
    if not handles:
        return
    if figure.get_layout_engine() is None:
        figure.set_layout_engine("constrained")  # the legend stands outside of all axes
    columns = len(handles) if figure.get_size_inches()[0] > 4.5 else max(1, len(handles) // 2)
    made = figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
        handlelength=1.6,
        columnspacing=1.4,
    )
    made.set_gid(LEGEND)


def units_of(field: xr.DataArray, maps: xr.Dataset) -> str:
    """Units of a map, or of the whole prediction."""
    return str(field.attrs.get("units", maps.attrs.get("units", "")))
