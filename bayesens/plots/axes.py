"""What all figures share: colours that stay apart in grey, bare axes, names of rows, legends, labels with units."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "COLOR",
    "INK",
    "LINE",
    "MARKER",
    "Look",
    "axes_width",
    "bare_axes",
    "beside",
    "blank_gaps",
    "concise_dates",
    "curve",
    "dots",
    "forest",
    "gaps",
    "labelled",
    "legend_columns",
    "look",
    "name_rows",
    "quantile_rows",
    "raised",
    "three_axes",
    "with_legend",
]

# Okabe and Ito's colours, ordered so that neighbours differ in lightness too; their yellow is too faint for lines.
COLOR = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKER = ("o", "s", "^", "D", "v", "P", "X")
LINE = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
INK = "0.15"
GAP = 10.0  # usual steps without a row that a line does not cross


class Look(NamedTuple):
    """Colour, marker and line of a series."""

    color: str
    marker: str
    line: Any


def look(i: int) -> Look:
    """Look of the i-th series: 49 of them differ, the first seven in everything.

    Examples
    --------
    >>> look(0), look(7)
    (Look(color='#0072B2', marker='o', line='-'), Look(color='#0072B2', marker='s', line='--'))
    """
    turned = (i + i // 7) % 7
    return Look(COLOR[i % 7], MARKER[turned], LINE[turned])


def forest(series: Mapping[str, xr.DataArray], xlabel: str, ax: Axes | None) -> Axes:
    """Medians with 50 and 90 % intervals (member rows, one offset per series), with a line at zero."""
    member = list(dict.fromkeys(str(name) for draws in series.values() for name in draws["member"].to_numpy()))
    ax = bare_axes(ax, (4.6, 0.9 + (0.18 + 0.2 * len(series)) * len(member)))
    ax.axvline(0, color="0.6", lw=0.8, zorder=1)
    for i, (label, draws) in enumerate(series.items()):
        y = np.array([member.index(str(name)) for name in draws["member"].to_numpy()], float)
        y += beside(i, len(series), 0.26, 0.75)
        q05, q25, q50, q75, q95 = np.nanquantile(draws.to_numpy(), [0.05, 0.25, 0.5, 0.75, 0.95], axis=(0, 1))
        color, marker, line = look(i)
        ax.hlines(y, q05, q95, color=color, lw=1.2, ls=line, zorder=2)
        ax.hlines(y, q25, q75, color=color, lw=3.2, zorder=2)
        ax.plot(q50, y, marker, color=color, ms=7.5, mec="white", mew=0.9, label=label or "_", zorder=3)
    ax.set_xlabel(xlabel)
    return with_legend(name_rows(ax, member))


def beside(i: int, n: int, step: float, room: float = 0.7) -> float:
    """How far the i-th of n series stands from the middle of its row: a step apart, or less where they are many."""
    return min(step, room / n) * (i - (n - 1) / 2)


def curve(ax: Axes, i: int, x: Any, y: Any, label: str) -> str:
    """Draw the i-th series as a line with markers, and return its colour."""
    color, marker, line = look(i)
    ax.plot(x, y, color=color, ls=line, marker=marker, ms=5, lw=1.4, mec="white", mew=0.6, label=label or "_", zorder=3)
    return color


def dots(ax: Axes, value: NDArray[Any], low: NDArray[Any], high: NDArray[Any]) -> None:
    """Rows of dots with intervals about a line at zero; full ones leave it out."""
    y = np.arange(len(value))
    ax.axvline(0, color="0.5", lw=0.8, zorder=1)
    ax.hlines(y, low, high, color=COLOR[0], lw=1.4, zorder=2)
    clear, none = (low > 0) | (high < 0), np.isnan(low) | np.isnan(high)
    kinds = (
        (clear, "o", COLOR[0], "interval leaves out 0"),
        (~clear & ~none, "o", "white", "interval holds 0"),
        (none, "X", "0.6", "no interval"),
    )
    for which, marker, fill, label in kinds:
        if (which := which & np.isfinite(value)).any():
            ax.plot(value[which], y[which], marker, ms=6.5, mfc=fill, mec=COLOR[0], label=label, zorder=3)


def three_axes(axes: Sequence[Axes] | None, wanted: str, size: tuple[float, float], **options: Any) -> list[Axes]:
    """Three axes, those given or new ones of a size [inches] side by side."""
    if axes is None:
        import matplotlib.pyplot as plt

        axes = plt.subplots(1, 3, figsize=size, layout="constrained", **options)[1]
    found = list(np.ravel(np.asarray(axes, dtype=object)))
    if len(found) != 3:
        raise ValueError(f"got {len(found)} axes; wanted three: {wanted}")
    return found


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
        ncols = legend_columns(labels, axes_width(ax))
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.01), "borderaxespad": 0}
        ax.legend(
            handles, labels, **place, ncols=ncols, frameon=False, fontsize=8.5, handlelength=1.8, columnspacing=1.2
        )
    return ax


def legend_columns(labels: list[str], width: float) -> int:
    """Columns of a legend that fit into a width [points], four at most.

    Examples
    --------
    >>> legend_columns(["BMA", "HBM"], 240), legend_columns(["interval leaves out 0", "interval holds 0"], 180)
    (2, 1)
    """
    for ncols in range(min(len(labels), 4), 1, -1):
        longest = [max(len(label) for label in part) for part in np.array_split(labels, ncols)]
        # Letters of 8.5 points, the handle, and what parts columns.
        if sum(4.5 * n + 32 for n in longest) - 10 <= width:
            return ncols
    return 1


def axes_width(ax: Axes) -> float:
    """Width [points] that the axes will have: the layout comes later, and makes room for the names of rows."""
    cell = 1.27 * ax.get_window_extent().width * 72 / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    names = max((len(tick.get_text()) for tick in ax.get_yticklabels()), default=0)
    return cell - 5.0 * max(names, 6) - 15


def concise_dates(ax: Axes) -> None:
    """Dates without what the neighbouring tick already says."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(maxticks=8)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def gaps(time: NDArray[Any]) -> NDArray[np.intp]:
    """Places in sorted times before which more than ten usual steps lack.

    Examples
    --------
    >>> gaps(np.array([0.0, 1, 2, 3, 20, 21])).tolist()
    [4]
    """
    if time.dtype.kind not in "iufM":  # names in a row have no distance
        return np.empty(0, np.intp)
    step = np.diff(time).astype(float)
    usual = np.median(step[step > 0]) if (step > 0).any() else np.inf
    return np.flatnonzero(step > GAP * usual) + 1


def blank_gaps(time: NDArray[Any], *values: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
    """Sorted times and their values with NaN inside every gap, so that no line crosses it.

    Examples
    --------
    >>> time, value = blank_gaps(np.array([0.0, 1, 2, 22, 23]), np.array([5.0, 5, 5, 7, 7]))
    >>> value.tolist()
    [5.0, 5.0, 5.0, nan, 7.0, 7.0]
    """
    at = gaps(time)
    between = time[at - 1] + (time[at] - time[at - 1]) / 2
    return np.insert(time, at, between), *(np.insert(v, at, np.nan) for v in values)


def quantile_rows(prediction: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Quantiles (row, quantile) of a prediction of rows."""
    given: object = prediction
    if not isinstance(given, xr.Dataset | xr.DataArray):
        kind = "fit" if isinstance(given, xr.DataTree) else type(given).__name__
        raise TypeError(f"got a {kind}; wanted a prediction: be.predict(fit, ensemble)")
    if isinstance(prediction, xr.Dataset):
        found = [v for v in prediction.data_vars.values() if "quantile" in v.dims]
        if not found:
            raise ValueError("the prediction has no quantiles; predict with quantiles=(0.05, 0.25, 0.5, 0.75, 0.95)")
        prediction = found[0]
    if "model" in prediction.dims and "quantile" in prediction.dims:
        name = str(prediction["model"].values[0])
        raise ValueError(f"the prediction holds several models; select one: rows.sel(model={name!r})")
    if "quantile" not in prediction.dims or prediction.ndim != 2:
        raise ValueError(
            f"quantiles have dimensions {prediction.dims}; select one station, so that one stands beside 'quantile'"
        )
    return prediction.transpose(..., "quantile")


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
