"""What all figures share: colours that stay apart in grey, bare axes, names of rows, legends, labels with units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "COLOR",
    "INK",
    "LINE",
    "MARKER",
    "bare_axes",
    "concise_dates",
    "forest",
    "labelled",
    "name_rows",
    "raised",
    "with_legend",
]

# Okabe and Ito's colours, ordered so that neighbours differ in lightness too; their yellow is too faint for lines.
COLOR = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKER = ("o", "s", "^", "D", "v", "P", "X")
LINE = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
INK = "0.15"


def forest(series: Mapping[str, xr.DataArray], xlabel: str, ax: Axes | None) -> Axes:
    """Medians with 50 and 90 % intervals (member rows, one offset per series), with a line at zero."""
    member = list(dict.fromkeys(str(name) for draws in series.values() for name in draws["member"].to_numpy()))
    ax = bare_axes(ax, (4.6, 0.9 + (0.18 + 0.2 * len(series)) * len(member)))
    ax.axvline(0, color="0.6", lw=0.8, zorder=1)
    step = min(0.26, 0.75 / len(series))
    for i, (label, draws) in enumerate(series.items()):
        y = np.array([member.index(str(name)) for name in draws["member"].to_numpy()], float)
        y += step * (i - (len(series) - 1) / 2)
        q05, q25, q50, q75, q95 = np.nanquantile(draws.to_numpy(), [0.05, 0.25, 0.5, 0.75, 0.95], axis=(0, 1))
        color = COLOR[i % 7]
        ax.hlines(y, q05, q95, color=color, lw=1.2, ls=LINE[i % 7], zorder=2)
        ax.hlines(y, q25, q75, color=color, lw=3.2, zorder=2)
        ax.plot(q50, y, MARKER[i % 7], color=color, ms=7.5, mec="white", mew=0.9, label=label or "_", zorder=3)
    ax.set_xlabel(xlabel)
    return with_legend(name_rows(ax, member))


def bare_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Bare axes, new ones of ``size`` [inches] where none are given."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=size, layout="constrained")[1]
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(direction="out", length=3, labelsize=9)
    ax.xaxis.label.set_fontsize(10)
    ax.yaxis.label.set_fontsize(10)
    return ax


def name_rows(ax: Axes, names: list[str]) -> Axes:
    """Name the rows from top to bottom."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return ax


def with_legend(ax: Axes) -> Axes:
    """Legend above the axes, where it covers nothing; none without names."""
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        ncols = min(len(labels), 2 if ax.get_window_extent().width < 330 else 4)
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.01), "borderaxespad": 0}
        ax.legend(
            handles, labels, **place, ncols=ncols, frameon=False, fontsize=8.5, handlelength=1.8, columnspacing=1.2
        )
    return ax


def concise_dates(ax: Axes) -> None:
    """Dates without what the neighbouring tick already says."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(maxticks=8)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def labelled(name: str, units: str) -> str:
    """Axis label with units in brackets, exponents raised: "m3 m-3" becomes m³ m⁻³."""
    units = raised(units)
    return f"{name} [{units}]" if units else name


def raised(units: str) -> str:
    """Units with their exponents raised.

    Examples
    --------
    >>> raised("m3 m-3")
    'm³ m⁻³'
    """
    signs = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return re.sub(r"(?<=[A-Za-z])-?\d+", lambda found: found.group().translate(signs), units)
