"""Value and uncertainty in one map, by a value-suppressing uncertainty palette with its wedge as a legend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.plots.maps.layers import check_maps, layer_of, moment_of
from bayesens.plots.maps.layout import SMALL, TEXT, broken, canvas, named
from bayesens.plots.maps.palette import LAYERS, bin_of, layers_of_bins, palette, plain_ends
from bayesens.plots.maps.panels import draw_moment, explain, limits_of, units_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["vsup"]

WIDTH = 125 / 25.4  # inches: map and wedge
WEDGE = 1.75  # of the wedge with its words
HALF = 32.0  # degrees of the wedge, to each side
WORDS = {"sd": "standard deviation", "width": "width of the 90 % interval"}


def vsup(
    maps: xr.Dataset,
    *,
    uncertainty: str = "sd",
    limits: tuple[float, float] | None = None,
    uncertainty_limits: tuple[float, float] | None = None,
    inside: xr.DataArray | None = None,
    time: Any = None,
    label: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Map of mean and uncertainty in one: the less certain a cell is, the fewer and the greyer are the colours for its mean.

    The palette has 8, 4, 2 and 1 colours in four layers of equal steps of uncertainty, so that means that cannot be told
    apart are not. A wedge to the right of the map is its legend. Of more than 1,000 cells a side, the bins are those of means
    of blocks.

    Parameters
    ----------
    maps : Dataset
        From `bayesens.predict` of a grid, or `bayesens.map`.
    uncertainty : str
        Variable of the maps such as "sd" or "sd_between", or "width": that of the 90 % interval.
    limits, uncertainty_limits : (float, float), optional
        Between which mean and uncertainty are binned [units of the maps]; what lies beyond is in the first or the last bin.
        Without them about the middle 98 % of large maps, between plain numbers: the layers then say which cells are less
        certain than others of this map, and no more. Give limits where several maps are compared, or a width that is too
        wide for your purpose.
    inside, time
        As in `map`.
    label : str, optional
        Name of what is mapped.
    ax : Axes, optional
        Where to draw; the wedge stands to the right of it and is about half as wide.

    Returns
    -------
    Axes
        Cells without a value are white here, as the palette ends in grey.

    Raises
    ------
    TypeError, KeyError, ValueError
        No maps; variables, quantiles or times that are not there.

    References
    ----------
    Correll, Moritz & Heer (2018), Value-suppressing uncertainty palettes, CHI Conference on Human Factors in Computing
    Systems, paper 642.

    Examples
    --------
    >>> maps = xr.Dataset({"mean": (("y", "x"), [[0.0, 0.9], [0.0, 0.9]]), "sd": (("y", "x"), [[0.1, 0.1], [0.9, 0.9]])})
    >>> ax = vsup(maps, limits=(0, 1), uncertainty_limits=(0, 1))
    >>> ax.collections[0].get_array().tolist()
    [[0.0, 7.0], [14.0, 14.0]]
    """
    from matplotlib.colors import BoundaryNorm, ListedColormap

    maps, cells = check_maps(maps)
    mean, unsure = maps["mean"], layer_of(maps, uncertainty)
    found = moment_of(cells, time, inside, mean=mean, unsure=unsure)
    ends, unsure_ends = limits_of(limits, found.values["mean"]), limits_of(uncertainty_limits, found.values["unsure"])
    ends = plain_ends(*ends, 2 ** (LAYERS - 1)) if limits is None else ends
    unsure_ends = plain_ends(*unsure_ends, LAYERS) if uncertainty_limits is None else unsure_ends
    bins = bin_of(found.values["mean"], found.values["unsure"], ends, unsure_ends)
    if ax is None:
        figure, wide = canvas(cells, 1, 1, width=WIDTH, right=WEDGE + 0.1, least=2.5)
        figure.set_layout_engine("constrained")  # two axes of their own shapes: "compressed" would make both small
        ax, beside = figure.subplots(1, 2, width_ratios=[wide, WEDGE])
        beside.set_anchor("W")
    else:  # half as much as the map, to its right
        beside = ax.inset_axes((1.05, 0.05, 0.6, 0.9))
    colors = palette()
    norm = BoundaryNorm(np.arange(len(colors) + 1) - 0.5, len(colors))
    draw_moment(ax, cells, maps, bins, found.inside, ListedColormap(colors), norm, missing="white")
    words = WORDS.get(uncertainty, str(unsure.attrs.get("long_name", uncertainty.replace("_", " "))))
    _wedge(
        beside,
        colors,
        ends,
        unsure_ends,
        named(label, "mean" if label else "predictive mean", units_of(mean, maps)),
        named("", words, units_of(unsure, maps)),
    )
    ax.set_title(found.title, loc="left", fontsize=TEXT)
    explain(ax, [bins], [found.inside], missing="white")
    return ax


def _wedge(
    ax: Axes,
    colors: NDArray[np.float64],
    ends: tuple[float, float],
    unsure_ends: tuple[float, float],
    name: str,
    unsure: str,
) -> None:
    """The legend: values along the arc, the most certain layer outside and the least certain at the point."""
    from matplotlib.patches import Wedge

    left, right = 90 + HALF, 90 - HALF
    for (layer, place, size), color in zip(layers_of_bins(), colors, strict=True):
        turn = (left - right) / size
        outer = 1 - layer / LAYERS
        ax.add_patch(
            Wedge(
                (0, 0),
                outer,
                left - (place + 1) * turn,
                left - place * turn,
                width=1 / LAYERS,
                facecolor=color,
                edgecolor="white",
                lw=0.5,
            )
        )
    most = 2 ** (LAYERS - 1)
    values = _short(np.linspace(*ends, most + 1)[::2])
    every = 2 if max(map(len, values)) <= 4 else 4  # edges between two that have room for their numbers
    turned: dict[str, Any] = {"rotation_mode": "anchor", "ha": "center"}
    for place in range(most + 1):
        angle = left - place * (left - right) / most
        x, y = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        ax.plot([x, 1.03 * x], [y, 1.03 * y], color="0.4", lw=0.5, clip_on=False)
        if place % every == 0:
            ax.text(1.06 * x, 1.06 * y, values[place // 2], fontsize=SMALL, va="bottom", rotation=angle - 90, **turned)
    # Along the right edge, (x, y) leads up it and (y, -x) away from it.
    x, y = np.cos(np.radians(right)), np.sin(np.radians(right))
    for layer, value in enumerate(_short(np.linspace(*unsure_ends[::-1], LAYERS + 1))):
        up = layer / LAYERS
        ax.plot([up * x, up * x + 0.04 * y], [up * y, up * y - 0.04 * x], color="0.4", lw=0.5, clip_on=False)
        at = (up * x + 0.07 * y, up * y - 0.07 * x)
        ax.text(at[0], at[1], value, fontsize=SMALL, ha="left", va="top" if layer == LAYERS else "center")
    ax.text(0, 1.25, broken(name, 22), fontsize=TEXT, ha="center", va="bottom")
    ax.text(
        0.5 * x + 0.56 * y, 0.5 * y - 0.56 * x, broken(unsure, 22), fontsize=TEXT, va="center", rotation=right, **turned
    )
    ax.set(xlim=(-0.65, 0.95), ylim=(-0.15, 1.5), aspect="equal")
    ax.axis("off")


def _short(values: NDArray[np.float64]) -> list[str]:
    """Numbers with as few decimals as they need, and not more than tell neighbours apart by two digits.

    Examples
    --------
    >>> _short(np.array([0.1, 0.15, 0.2])), _short(np.array([0.0, 1 / 3, 2 / 3]))
    (['0.10', '0.15', '0.20'], ['0.00', '0.33', '0.67'])
    """
    step = abs(values[1] - values[0])
    most = max(0, int(np.ceil(-np.log10(step))) + 1)
    enough = (d for d in range(most + 1) if np.allclose(values, np.round(values, d), rtol=0, atol=1e-3 * step))
    decimals = next(enough, most)
    return [f"{value:.{decimals}f}" for value in values]
