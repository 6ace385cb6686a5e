"""Sizes of figures of maps, and where their colour bars are: sizes of a journal, whatever the shape of the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesens.plots.axes import labelled
from bayesens.plots.maps.cells import Cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

__all__ = [
    "DOUBLE",
    "LOW",
    "SINGLE",
    "SMALL",
    "TEXT",
    "bar_beside",
    "bar_of_all",
    "bar_room",
    "broken",
    "canvas",
    "named",
    "size_of",
]

Array = NDArray[np.float64]
SINGLE, DOUBLE = 85 / 25.4, 180 / 25.4  # inches: one and two columns of a journal
TALLEST = 235 / 25.4  # of a page
TEXT, SMALL = 8.0, 7.0  # points
FLAT = 0.65  # height by width below which colour bars lie below their maps
LOW = 2.6  # inches: a figure that is too low for a colour bar that stands
LETTER = 0.06  # inches


def canvas(
    cells: Cells,
    rows: int,
    columns: int,
    *,
    width: float,
    right: float = 0.1,
    side: float = 0.0,
    below: float = 0.0,
    above: float = 0.2,
    least: float = 0.0,
) -> tuple[Figure, float]:
    """An empty figure for maps side by side, as high as they are; and how wide each is.

    Parameters
    ----------
    cells : Cells
    rows, columns : int
    width : float
        Of the figure [inches], as all others; less, if maps would be higher than a page.
    right, below, above : float
        Room beside each map.
    side : float
        Room to the right of all maps.
    least : float
        Height.
    """
    import matplotlib.pyplot as plt

    wide = (width - 0.6 - side) / columns - right
    highest = (TALLEST - 0.75) / rows - above - below
    if wide * cells.shape > highest:
        wide = highest / cells.shape
        width = columns * (wide + right) + 0.6 + side
    height = max(rows * (wide * cells.shape + above + below) + 0.75, least)
    return plt.figure(figsize=(width, height), layout="compressed"), wide


def size_of(ax: Axes, cells: Cells) -> tuple[float, float]:
    """About how wide and high [inches] the map will be on its axes: the layout comes later."""
    box, dots = ax.get_window_extent(), ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    wide = min(box.width, box.height / cells.shape) / dots
    return wide, wide * cells.shape


def bar_room(cells: Cells, right: float) -> dict[str, float]:
    """Room that `canvas` keeps for the colour bar of each map."""
    return {"below": 0.55} if cells.shape < FLAT else {"right": right}


def bar_beside(ax: Axes, cells: Cells, drawn: Any, label: str, *values: Array) -> Any:
    """A colour bar as high as the map, or below a flat one; its ends are pointed where values lie beyond them."""
    wide, high = size_of(ax, cells)
    look: dict[str, Any] = {"extend": extend(drawn.norm, *values), "extendfrac": 0.04}
    if cells.shape < FLAT:
        bar = ax.figure.colorbar(drawn, ax=ax, location="bottom", aspect=28, shrink=0.85, pad=0.04, **look)
        return finished(bar, label)
    bar = ax.figure.colorbar(drawn, cax=ax.inset_axes((1 + 0.08 / wide, 0.0, 0.11 / wide, 1.0)), **look)
    return finished(bar, broken(label, int(0.9 * high / LETTER)))


def bar_of_all(
    figure: Figure, panels: NDArray[np.object_], drawn: Any, label: str, *values: Array, upright: bool
) -> Any:
    """One colour bar for all maps of a figure, to their right, or below where the figure is low."""
    look: dict[str, Any] = {"extend": extend(drawn.norm, *values), "extendfrac": 0.04}
    if upright:
        high = float(figure.get_size_inches()[1])
        look |= {"shrink": min(1.0, 4.0 / high), "aspect": 22, "pad": 0.015}  # of a page as long as its numbers need
        return finished(
            figure.colorbar(drawn, ax=list(panels), **look), broken(label, int(0.7 * min(high, 4.0) / LETTER))
        )
    bar = figure.colorbar(drawn, ax=list(panels), location="bottom", shrink=0.5, aspect=30, pad=0.04, **look)
    return finished(bar, label)


def finished(bar: Any, label: str) -> Any:
    """A colour bar with its label, in the sizes of a map."""
    bar.set_label(label, fontsize=TEXT)
    bar.ax.tick_params(labelsize=SMALL, length=2, width=0.5)
    bar.outline.set_linewidth(0.4)
    return bar


def extend(norm: Normalize, *values: Array) -> str:
    """Which ends of a colour bar values lie beyond."""
    every = np.concatenate([one[np.isfinite(one)].ravel() for one in values] or [np.empty(0)])
    if not len(every) or norm.vmin is None or norm.vmax is None:
        return "neither"
    slack = 1e-9 * (norm.vmax - norm.vmin)
    below, above = every.min() < norm.vmin - slack, every.max() > norm.vmax + slack
    return {(True, True): "both", (True, False): "min", (False, True): "max"}.get((bool(below), bool(above)), "neither")


def named(label: str, name: str, units: str) -> str:
    """Label of a colour bar: of what is mapped, and which number of it."""
    text = f"{label}: {name}" if label else name
    return labelled(text[0].upper() + text[1:], units)


def broken(text: str, letters: int) -> str:
    """A label that is longer than so many letters with its units on a line of their own.

    Examples
    --------
    >>> broken("Standard deviation [mm]", 20).splitlines()
    ['Standard deviation', '[mm]']
    """
    return text.replace(" [", "\n[") if len(text) > letters else text
