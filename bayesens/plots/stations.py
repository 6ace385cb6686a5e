"""Where the stations are, and how far they stand for their cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayesens.plots.axes import COLOR, MARKER, bare_axes, labelled, with_legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["representativeness", "stations"]

COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)


def stations(
    table: pd.DataFrame, *, group: str | None = None, lon: str = "lon", lat: str = "lat", ax: Axes | None = None
) -> Axes:
    """Map of stations, groups by marker and colour.

    Parameters
    ----------
    table : DataFrame
        One line a station; degrees in the columns `lon` and `lat`.
    group : str, optional
        Column of labels.
    lon, lat : str, optional
        Columns.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    KeyError
        If the table lacks a column.

    Examples
    --------
    >>> table = pd.DataFrame({"lon": [114.0, 115.0, 116.0], "lat": [40.0, 40.5, 41.0], "net": ["a", "a", "b"]})
    >>> [text.get_text() for text in stations(table, group="net").get_legend().get_texts()]
    ['a (2)', 'b (1)']
    """
    if lacking := [name for name in (lon, lat, group) if name is not None and name not in table]:
        raise KeyError(f"the table has no column {lacking[0]!r}, only {list(table.columns)}")
    ax = bare_axes(ax, (4.6, 3.8))
    parts = [("", table)] if group is None else [(str(name), part) for name, part in table.groupby(group, sort=True)]
    for i, (name, part) in enumerate(parts):
        ax.plot(part[lon], part[lat], MARKER[i % 7], color=COLOR[i % 7], ms=6, mec="white", mew=0.6,
                label=f"{name} ({len(part)})" if name else "_", zorder=3)  # fmt: skip
    ax.margins(0.08)
    # A degree of longitude is shorter than one of latitude by the cosine of the latitude.
    ax.set_aspect(1 / max(np.cos(np.radians(float(table[lat].mean()))), 0.05), adjustable="datalim")
    ax.grid(color="0.92", lw=0.6, zorder=0)
    ax.locator_params(nbins=5)
    ax.ticklabel_format(useOffset=False)
    ax.set(xlabel="Longitude [°]", ylabel="Latitude [°]")
    return with_legend(ax)


def representativeness(components: Any, *, units: str = "", ax: Axes | None = None) -> Axes:
    """Error of the mean of several stations, taken for their cell, against their number.

    Parameters
    ----------
    components : Components
        From `bayesens.representativeness.variance_components`.
    units : str, optional
        Of the values.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from bayesens.representativeness import variance_components
    >>> table = pd.DataFrame({"station": list("aaabbb"), "day": [1, 2, 3] * 2, "sm": [5.0, 3.0, 8.0, 1.0, 1.0, 2.0]})
    >>> found = variance_components(table, value="sm", station="station", time="day", errors="independent")
    >>> ax = representativeness(found, units="m3 m-3")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['90 % interval', 'one time', 'lasting part']
    """
    curve = components.upscaled(COUNTS)
    n = curve.index.to_numpy()
    ax = bare_axes(ax, (4.4, 3.2))
    high = curve["sd_high"].where(np.isfinite(curve["sd_high"]))
    ax.fill_between(n, curve["sd_low"], high, color=COLOR[0], alpha=0.18, lw=0,
                    label=f"{100 * components.level:.4g} % interval", zorder=1)  # fmt: skip
    ax.plot(n, curve["sd"], "o-", color=COLOR[0], ms=5, lw=1.3, mec="white", mew=0.6, label="one time", zorder=3)
    ax.plot(n, curve["lasting_sd"], "--", color=COLOR[1], lw=1.4, label="lasting part", zorder=2)
    ax.set(xlabel="Stations in the cell", ylabel=labelled("Error of their mean", units), xlim=(0.5, n[-1] + 0.5))
    ax.set_ylim(bottom=0)
    return with_legend(ax)
