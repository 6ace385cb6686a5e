"""How much a map varies, beside a draw from its predictive distribution and the stations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble.ensemble import Ensemble
from bayesens.plots.axes import bare_axes, labelled, look, with_legend
from bayesens.plots.given import numbers_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["variability"]


def variability(
    mean: xr.Dataset | ArrayLike,
    draw: ArrayLike | None = None,
    stations: Ensemble | ArrayLike | None = None,
    *,
    bins: int = 30,
    label: str = "",
    units: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Histograms of a map of predictive means, of one draw from the predictive distribution, and of the stations.

    A map of means is smoother than the truth, so that its histogram is too narrow, and extremes counted on it are too few;
    that of a draw is as wide as the values themselves should be. Areas are one, whatever the numbers of cells; the legend has
    the coefficients of variation (CV, standard deviation divided by the mean; where a mean is not above zero, the standard
    deviations, SD).

    Parameters
    ----------
    mean : Dataset or array
        Maps from `bayesens.predict`, of which the mean is drawn, or a map.
    draw : array, optional
        One draw of the values of the same cells: drawn together, if cells near each other are to vary together.
    stations : Ensemble or array, optional
        Observations.
    bins : int
        Of the histograms, between the lowest and the highest value of all.
    label, units : str, optional
        Of the values; without `units` those in the attributes of the mean.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        What holds no numbers, or none that is finite; a draw of other cells.

    Examples
    --------
    >>> ax = variability(np.array([2.0, 2.0, 4.0, 4.0]), np.array([1.0, 2.0, 3.0, 6.0]), [1.0, 5.0])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['mean (4 cells), CV 0.33', 'one draw (4 cells), CV 0.62', 'stations (2 values), CV 0.67']
    """
    wanted = "maps that be.predict(fit, grid) returns, or a map"
    given: object = mean
    if isinstance(given, xr.Dataset) and "mean" in given:
        units = units or str(given["mean"].attrs.get("units", given.attrs.get("units", "")))
        given = given["mean"]
    elif isinstance(given, xr.DataArray):
        units = units or str(given.attrs.get("units", ""))
    parts = {"mean": numbers_of(given, wanted)}
    if draw is not None:
        parts["one draw"] = numbers_of(draw, "a draw of the values of the cells")
        if parts["one draw"].size != parts["mean"].size:
            raise ValueError(
                f"the draw has {parts['one draw'].size} cells and the mean {parts['mean'].size}; wanted one of the "
                "same cells"
            )
    if stations is not None:
        seen = stations.require_observation() if isinstance(stations, Ensemble) else stations
        parts["stations"] = numbers_of(seen, "observations")
    finite = {name: one[np.isfinite(one)] for name, one in parts.items()}
    if empty := [name for name, one in finite.items() if not one.size]:
        raise ValueError(f"{empty[0]} has no finite number; wanted some to count")
    every = np.concatenate(list(finite.values()))
    edges = np.histogram_bin_edges(every, bins)
    ratio = all(one.mean() > 0 for one in finite.values())
    ax = bare_axes(ax, (4.4, 3.0))
    for i, (name, values) in enumerate(finite.items()):
        color, _, line = look(i)
        what = "values" if name == "stations" else "cells"
        # Few values make no fine histogram.
        steps = edges if len(values) > 20 * bins else np.histogram_bin_edges(every, _few(len(values), bins))
        density = np.histogram(values, steps, density=True)[0]
        text = f"{name} ({len(values):,} {what}), {_spread(values, ratio)}"
        ax.stairs(density, steps, color=color, ls=line, lw=1.5, label=text, zorder=3 - i)
    ax.set(ylabel="Density", xlabel=labelled(label or "Value", units))
    ax.set_ylim(bottom=0)
    return with_legend(ax)


def _few(size: int, bins: int) -> int:
    """Bins for few values: as the square root of their number."""
    return int(np.clip(np.sqrt(size), 1, bins))


def _spread(values: NDArray[Any], ratio: bool) -> str:
    """How much values vary, in words."""
    return f"CV {values.std() / values.mean():.2f}" if ratio else f"SD {values.std():.3g}"
