"""Stations on a map: their places in its coordinates, and what they observed at the time that is drawn."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens.ensemble.ensemble import Ensemble
from bayesens.messages import check_known
from bayesens.plots.maps.cells import Cells
from bayesens.plots.maps.layers import said

__all__ = ["StationPoints", "station_points"]

Array = NDArray[np.float64]


class StationPoints(NamedTuple):
    """Places of stations on the map, across and up, their observations (NaN without), and how many lie off the map."""

    x: Array
    y: Array
    value: Array
    beyond: int

    @property
    def label(self) -> str:
        """For the legend.

        Examples
        --------
        >>> StationPoints(np.zeros(2), np.zeros(2), np.zeros(2), 1).label
        'stations (2; 1 off the map)'
        """
        return f"stations ({len(self.x)}" + (f"; {self.beyond} off the map)" if self.beyond else ")")


def station_points(stations: Any, cells: Cells, value: str | None, time: Any) -> StationPoints | None:
    """Places and observations of stations.

    Parameters
    ----------
    stations : Ensemble or DataFrame, optional
        Of an ensemble, the means of the observations of each site, at the time of the map where both have times. A table has
        one line a station.
    cells : Cells
    value : str, optional
        Column of a table with its observations.
    time : datetime64 or other label, optional
        Of the map.

    Raises
    ------
    TypeError, KeyError, ValueError
        No such table; columns that are not there; no row at this time; no station on the map.
    """
    if stations is None:
        return None
    table = _sites(stations, cells, time) if isinstance(stations, Ensemble) else stations
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"stations is a {type(stations).__name__}; wanted an ensemble, or a table with one line a station"
        )
    column = "observation" if isinstance(stations, Ensemble) else value
    check_known(
        [*cells.names, *([column] if column else [])], table.columns, kind="column", where="the table of stations"
    )
    x, y = (table[name].to_numpy(np.float64) for name in cells.names)
    shown = table[column].to_numpy(np.float64) if column else np.full(len(table), np.nan)
    left, right, bottom, top = cells.extent
    if cells.on_sphere:  # 359 degrees are -1 of a map that begins at -180
        x = x + 360 * np.round(((left + right) / 2 - x) / 360)
    on = (x >= left) & (x <= right) & (y >= bottom) & (y <= top)
    if not on.any():
        raise ValueError(
            f"none of {len(x)} stations is on the map, with {cells.names[0]} from {left:.6g} to {right:.6g} and "
            f"{cells.names[1]} from {bottom:.6g} to {top:.6g}; wanted their places in these coordinates"
        )
    return StationPoints(x[on], y[on], shown[on], int((~on).sum()))


def _sites(ensemble: Ensemble, cells: Cells, time: Any) -> pd.DataFrame:
    """One line a site: its place, and the mean of its observations."""
    data = ensemble.dataset
    lacking = [name for name in ("site", *cells.names) if name not in data.variables]
    if lacking:
        roles = (
            ", ".join(f"{name}=..." for name in ("site", "lon", "lat"))
            if cells.on_sphere
            else f"site=..., covariates={[*cells.names]}"
        )
        raise ValueError(
            f"the ensemble has no {' and no '.join(map(repr, lacking))}; name the columns in Ensemble.from_frame: {roles}"
        )
    frame = pd.DataFrame({name: data[name].to_numpy() for name in ("site", *cells.names)})
    frame["observation"] = np.nan if ensemble.observation is None else ensemble.observation
    if time is not None and "time" in data.coords:
        times = data["time"].to_numpy()
        now = times == time
        if not now.any():
            raise ValueError(
                f"the ensemble has no rows at {said(time)}, the time of the map; its times go from {said(times.min())} to "
                f"{said(times.max())}; give an ensemble of that time, or a table: one line a station"
            )
        frame = frame[now]
    return frame.groupby("site", as_index=False, sort=False).mean()
