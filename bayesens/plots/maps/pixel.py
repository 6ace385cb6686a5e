"""One cell of the maps through time, with a station that was held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.ensemble.ensemble import Ensemble
from bayesens.plots.axes import with_legend
from bayesens.plots.maps.cells import Cells
from bayesens.plots.maps.layers import check_maps, quantile_of, said, step_dim
from bayesens.plots.maps.panels import units_of
from bayesens.plots.predictions import intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["pixel_series"]

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def pixel_series(
    maps: xr.Dataset,
    place: Mapping[str, float] | None = None,
    observation: pd.Series | Ensemble | None = None,
    *,
    label: str = "Prediction",
    ax: Axes | None = None,
) -> Axes:
    """Predictive median with 50 and 90 % intervals through time in the cell nearest to a place, with a station's observations.

    The legend says how many observations lie in the intervals. Draw a station that was held out: one that the fit has seen
    flatters the map.

    Parameters
    ----------
    maps : Dataset
        From `bayesens.predict` of a grid, or `bayesens.map`, with a dimension of time and the quantiles .05, .25, .5, .75 and
        .95; only the cell is computed of maps of dask.
    place : mapping of coordinate to float, optional
        As the maps call them: ``{"lon": 146.3, "lat": -34.8}``. Without it the place of the one site of the ensemble.
    observation : Series or Ensemble, optional
        Observations by time [units of the maps], or an ensemble of one site.
    label : str, optional
        Name of what is mapped.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Below it stands which cell is drawn, and how far its centre is from the place.

    Raises
    ------
    TypeError
        No maps, or observations without times.
    ValueError
        No place, or one off the map; no time; quantiles that are not there; several sites; no observation at a time of the
        maps.

    Examples
    --------
    >>> days = pd.date_range("2016-02-05", periods=2)
    >>> mean = xr.DataArray([[[1.0, 5.0]], [[2.0, 6.0]]], {"time": days, "y": [0.0], "x": [0.0, 1.0]}, ("time", "y", "x"))
    >>> quantile = xr.concat([mean - 2, mean - 1, mean, mean + 1, mean + 2], "quantile")
    >>> quantile = quantile.assign_coords(quantile=[0.05, 0.25, 0.5, 0.75, 0.95])
    >>> maps = xr.Dataset({"mean": mean, "quantile_value": quantile})
    >>> ax = pixel_series(maps, {"x": 0.9, "y": 0.0}, pd.Series([5.5, 7.5], days))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['median', '90 % interval', '50 % interval', 'observation (2 of 2 within 90 %, 1 within 50 %)']
    """
    maps, cells = check_maps(maps)
    dim = step_dim(maps["mean"], cells)
    if not dim:
        raise ValueError(
            "the maps have no time; wanted several: be.predict(fit, grid), of a grid with a dimension of time"
        )
    fields = quantile_of(maps, LEVELS)
    values = _series(observation)
    row, column, far = cells.nearest(_place(observation, cells) if place is None else place)
    at = {cells.dims[0]: row, cells.dims[1]: column}
    here = xr.concat([one.isel(at).drop_vars("quantile") for one in fields], "quantile")
    cell = here.assign_coords(quantile=list(LEVELS)).transpose(dim, "quantile").compute()
    times = cell[dim].to_numpy() if dim in cell.coords else np.arange(len(cell))
    seen = None if values is None else _at(values, times)
    ax = intervals(cell, seen, times, label=label, units=units_of(maps["quantile_value"], maps), ax=ax)
    if seen is not None:
        inside = [_within(cell, seen, low, high) for low, high in ((0, 4), (1, 3))]
        text = f"observation ({inside[0]} of {np.isfinite(seen).sum()} within 90 %, {inside[1]} within 50 %)"
        next(line for line in ax.lines if line.get_label() == "observation").set_label(text)
        with_legend(ax)
    ax.set_xlabel(_words(cells, row, column, far), fontsize=8.5)
    return ax


def _series(observation: Any) -> pd.Series | None:
    """Observations by time."""
    if observation is None:
        return None
    if isinstance(observation, Ensemble):
        site, data = observation.labels("site"), observation.dataset
        if site is not None and len(names := np.unique(site)) > 1:
            raise ValueError(
                f"the ensemble has {len(names)} sites, and one is drawn; select it: "
                f"ensemble.select(rows=ensemble.labels('site') == {str(names[0])!r})"
            )
        if "time" not in data.coords:
            raise ValueError("the ensemble has no times; name the column in Ensemble.from_frame: time=...")
        observation = pd.Series(observation.require_observation(), data["time"].to_numpy())
    if not isinstance(observation, pd.Series):
        raise TypeError(
            f"observation is a {type(observation).__name__}; wanted a Series with times as its index, "
            "frame.set_index('time')['sm'], or an ensemble of one site"
        )
    return observation[observation.notna()]


def _at(values: pd.Series, times: NDArray[Any]) -> NDArray[np.float64]:
    """Observations at the times of the maps; NaN where there is none."""
    if values.index.has_duplicates:
        twice = values.index[values.index.duplicated()].to_numpy()[0]
        raise ValueError(
            f"observation has two values at {said(twice)}; wanted one at a "
            "time: a station alone, or the mean of several"
        )
    found = values.reindex(pd.Index(times)).to_numpy(np.float64)
    if not np.isfinite(found).any():
        raise ValueError(
            f"none of {len(values)} observations is at a time of the maps, which go from {said(times[0])} to "
            f"{said(times[-1])}; wanted some: bring them to these times"
        )
    return found


def _place(observation: Any, cells: Cells) -> dict[str, float]:
    """Of the one site of an ensemble."""
    if not isinstance(observation, Ensemble) or not set(cells.names) <= set(map(str, observation.dataset.variables)):
        wanted = ", ".join(f"{name!r}: ..." for name in cells.names)
        raise ValueError(f"no place was given; wanted that of a cell: place={{{wanted}}}")
    return {name: float(observation.dataset[name].to_numpy()[0]) for name in cells.names}


def _within(cell: xr.DataArray, seen: NDArray[np.float64], low: int, high: int) -> int:
    value = cell.to_numpy()
    return int(((seen >= value[:, low]) & (seen <= value[:, high])).sum())


def _words(cells: Cells, row: int, column: int, far: float) -> str:
    """Which cell, and how far it is."""
    across, up = cells.centres
    at = (across[column], up[row]) if up.ndim == 1 else (across[row, column], up[row, column])
    here = ", ".join(
        f"{name} {value:.6g}{'°' if cells.on_sphere else ''}" for name, value in zip(cells.names, at, strict=True)
    )
    units = "km" if cells.on_sphere else cells.units
    return f"cell at {here}; its centre is {far:.2g} {units} from the place".replace("  ", " ")
