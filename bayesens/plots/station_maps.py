"""Where the stations are, and how far they stand for their cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.sphere import check_places
from bayesens.messages import check_known
from bayesens.plots.axes import COLOR, INK, axes_width, bare_axes, labelled, look, raised, with_legend
from bayesens.plots.given import check_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["representativeness", "stations"]

COUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)


def stations(
    table: pd.DataFrame | Ensemble,
    *,
    group: str | None = None,
    value: str | None = None,
    background: xr.DataArray | None = None,
    label: str = "",
    units: str = "",
    size: float = 6.0,
    lon: str = "lon",
    lat: str = "lat",
    ax: Axes | None = None,
) -> Axes:
    """Map of stations: groups by marker and colour, or values by colour, over a map if one is given.

    Parameters
    ----------
    table : DataFrame or Ensemble
        One line a station; degrees in the columns `lon` and `lat`. Of an ensemble, the places of its sites, with their groups.
    group : str, optional
        Column of labels; stations without one are "no group".
    value : str, optional
        Column of numbers: colour then shows them, and markers alone the groups. Stations without a number are open.
    background : DataArray (lat, lon), optional
        Values of a regular grid, with coordinates called as the columns `lon` and `lat`. It is drawn in grey; with `value`
        both share one scale of colours, so that a map can be held against its stations: give them in the same units.
    label : str, optional
        Of the colour bar; without it the name of the column or of the background.
    units : str, optional
        Of the values; without them those in the attributes of the background.
    size : float, optional
        Of the markers [points].
    lon, lat : str, optional
        Columns.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, KeyError
        What is no table and no ensemble, or a table that lacks a column.
    ValueError
        An ensemble without sites or places, no stations, places off the globe, or a background without these coordinates.

    Examples
    --------
    >>> table = pd.DataFrame({"lon": [114.0, 115.0, 116.0], "lat": [40.0, 40.5, 41.0], "net": ["a", "a", "b"]})
    >>> [text.get_text() for text in stations(table, group="net").get_legend().get_texts()]
    ['a (2)', 'b (1)']
    """
    if isinstance(table, Ensemble):
        table, lon, lat = _sites(table), "lon", "lat"
        group = "group" if group is None and "group" in table else group
    check_table(table, [], "a file of stations, read by pandas,")
    named = [name for name in (lon, lat, group, value) if name is not None]
    check_known(named, table.columns, kind="column", where="the table")
    if not len(table):
        raise ValueError("the table has no stations; wanted one line a station")
    _, degrees = check_places(table[lon].to_numpy(), table[lat].to_numpy(), len(table))
    shown = table[value].to_numpy(float) if value else np.empty(0)
    scale = _scale(shown, background if value is None else None, background)
    ax = bare_axes(ax, (4.6, 3.8))
    drawn: Any = None
    if background is not None:
        field = _on_map(background, lon, lat)
        drawn = ax.pcolormesh(field[lon].values, field[lat].values, field.values, rasterized=True, zorder=0, **scale)
    code, names = _groups(table, group)
    for i, name in enumerate(names):
        own = code == i
        marker = look(i).marker
        place = table[lon].to_numpy(float)[own], degrees[own]
        text = f"{name} ({own.sum()})" if group else "_"
        if value:
            drawn = ax.scatter(*place, c=shown[own], s=size**2, marker=marker, edgecolors=INK, linewidths=0.7,
                               plotnonfinite=False, zorder=3, **scale)  # fmt: skip
            ax.plot(*place, marker, mfc="none", mec=INK, mew=0.7, ms=size, label=text, zorder=2.9)
        else:
            ax.plot(*place, marker, color=look(i).color, ms=size, mec="white", mew=0.6, label=text, zorder=3)
    # A degree of longitude is shorter than one of latitude by the cosine of the latitude.
    shape = 1 / max(np.cos(np.radians(float(degrees.mean()))), 0.05)
    if background is None:
        ax.margins(0.08)
        ax.set_aspect(shape, adjustable="datalim")
        ax.grid(color="0.92", lw=0.6, zorder=0)
    else:
        ax.set_aspect(shape, adjustable="box")  # no margin around the map
    if drawn is not None:
        name = label or value or str(getattr(background, "long_name", None) or getattr(background, "name", None) or "")
        units = units or ("" if background is None else str(background.attrs.get("units", "")))
        bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.8, pad=0.02)
        bar.set_label(labelled(name, units), fontsize=9)
        bar.ax.tick_params(labelsize=8, length=2)
        bar.outline.set_visible(False)
    ax.locator_params(axis="x", nbins=5 if axes_width(ax) > 200 else 3)
    ax.locator_params(axis="y", nbins=5)
    ax.ticklabel_format(useOffset=False)
    ax.set(xlabel="Longitude [°]", ylabel="Latitude [°]")
    return with_legend(ax)


def _sites(ensemble: Ensemble) -> pd.DataFrame:
    """One line a site: its label, place and group."""
    coords = ensemble.dataset.coords
    if lacking := [role for role in ("site", "lon", "lat") if role not in coords]:
        raise ValueError(
            f"the ensemble has no {' and no '.join(lacking)}; name the columns in Ensemble.from_frame: "
            + ", ".join(f"{role}=..." for role in lacking)
        )
    roles = [role for role in ("site", "lon", "lat", "group") if role in coords]
    frame = pd.DataFrame({role: coords[role].values for role in roles})
    return frame.drop_duplicates("site", ignore_index=True)


def _groups(table: pd.DataFrame, group: str | None) -> tuple[NDArray[np.intp], list[str]]:
    """Number of each station's group, and the names of the groups in order, those without one last."""
    if group is None:
        return np.zeros(len(table), np.intp), [""]
    names = table[group].astype(object).where(table[group].notna(), "").astype(str).to_numpy()
    known = sorted(set(names) - {""})
    code = np.array([known.index(name) if name else len(known) for name in names], np.intp)
    return code, known + (["no group"] if "" in names else [])


def _scale(shown: NDArray[np.float64], alone: xr.DataArray | None, background: xr.DataArray | None) -> dict[str, Any]:
    """Colours and their ends: of the stations and the map behind them together, or of that map in grey."""
    parts = [shown] if background is None else [shown, np.asarray(background.values, float).ravel()]
    every = np.concatenate(parts)
    every = every[np.isfinite(every)]
    if not len(every):
        return {}
    # The middle 98 % of a large map: one wild cell would leave no colours to the others.
    low, high = np.quantile(every, [0.01, 0.99]) if len(every) > 1000 else (every.min(), every.max())
    # Greys that leave room for markers at both ends; viridis prints in grey in the order of its values.
    return {"cmap": "Greys" if alone is not None else "viridis_r", "vmin": low,
            "vmax": high + (0.6 * (high - low) if alone is not None else 0)}  # fmt: skip


def _on_map(background: xr.DataArray, lon: str, lat: str) -> xr.DataArray:
    if set(background.dims) != {lon, lat} or not {lon, lat} <= set(background.coords):
        raise ValueError(
            f"the background has dimensions {background.dims} and coordinates {list(background.coords)}; wanted a grid with "
            f"{lat!r} and {lon!r} in degrees"
        )
    return background.transpose(lat, lon)


def representativeness(components: Any, *, error: float | None = None, units: str = "", ax: Axes | None = None) -> Axes:
    """Error of the mean of several stations, taken for their cell, against their number.

    Parameters
    ----------
    components : Components
        From `bayesens.geo.representativeness.variance_components`.
    error : float, optional
        Absolute error that is wanted at one time [units of the values]: marks how many stations it takes for their mean to be
        within it with a probability of 95 %, with the interval of that number.
    units : str, optional
        Of the values.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        What are no components.
    ValueError
        An error that is not positive.

    Examples
    --------
    >>> from bayesens.geo.representativeness import variance_components
    >>> table = pd.DataFrame({"station": list("aaabbb"), "day": [1, 2, 3] * 2, "sm": [5.0, 3.0, 8.0, 1.0, 1.0, 2.0]})
    >>> found = variance_components(table, value="sm", station="station", time="day", errors="independent")
    >>> ax = representativeness(found, units="m3 m-3")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['90 % interval', 'one time', 'lasting part']
    """
    if not hasattr(components, "stations_needed"):
        raise TypeError(
            f"got {type(components).__name__} in place of components of variance; wanted what "
            "be.representativeness.variance_components(table, ...) returns"
        )
    needed = None if error is None else components.stations_needed(error).iloc[0]
    most = COUNTS[-1] if needed is None else max(COUNTS[-1], int(1.3 * needed["stations"]))
    further = np.unique(np.geomspace(COUNTS[-1], most, 6).astype(int))[1:]
    curve = components.upscaled([*COUNTS, *further])
    n = curve.index.to_numpy()
    ax = bare_axes(ax, (4.4, 3.2))
    ends = curve[["sd", "sd_high"]].to_numpy()
    top = 1.08 * float(ends[np.isfinite(ends)].max())
    # An interval without an upper end goes beyond the axes.
    ax.fill_between(n, curve["sd_low"], np.minimum(curve["sd_high"], 2 * top), color=COLOR[0], alpha=0.18, lw=0,
                    label=f"{100 * components.level:.4g} % interval", zorder=1)  # fmt: skip
    ax.plot(n, curve["sd"], "o-", color=COLOR[0], ms=5, lw=1.3, mec="white", mew=0.6, label="one time", zorder=3)
    ax.plot(n, curve["lasting_sd"], "--", color=COLOR[1], lw=1.4, label="lasting part", zorder=2)
    if needed is not None:
        count = int(needed["stations"])
        height = float(components.upscaled(count)["sd"].iloc[0])
        ax.hlines(height, needed["low"], min(needed["high"], 2 * most), color=INK, lw=1.2, zorder=4)
        ax.plot(count, height, "D", color=INK, ms=5.5, mec="white", mew=0.6, zorder=5)
        within = f"{count} {'station' if count == 1 else 'stations'}: within {error:g} {raised(units)}".rstrip()
        text = f"{within}\nwith 95 % probability"
        # A falling curve leaves the corner above it to words.
        ax.annotate(text, (count, height), (0.98, 0.8), textcoords="axes fraction", ha="right", va="center", fontsize=8,
                    arrowprops={"arrowstyle": "-", "color": "0.4", "lw": 0.7, "shrinkB": 4})  # fmt: skip
    ax.set(xlabel="Stations in the cell", ylabel=labelled("Error of their mean", units), xlim=(0.5, n[-1] + 0.5))
    ax.set_ylim(0, top)
    return with_legend(ax)
