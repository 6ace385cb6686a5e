"""Neighbours that are kept in a fit: asked for new rows, and told new observations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.from_table import COVARIATE, COVARIATE_NAME
from bayesens.ensemble.places import LON_LAT, SAME_PLACE, Places, RowPlaces
from bayesens.likelihoods.day.table import DayTable, day_table
from bayesens.members.day.beside import with_member
from bayesens.members.day.chain import BESIDE, NAME
from bayesens.members.day.fitted import FittedNeighbours
from bayesens.members.day.new import with_neighbours
from bayesens.members.day.times import day_of
from bayesens.messages import listed, warn

__all__ = ["GROUP", "keep_in", "kept_in", "neighbours_at", "places_in", "with_observations"]

GROUP = "neighbours"  # of a fit: covariance and observations

Array = NDArray[np.float64]


def keep_in(tree: xr.DataTree, fitted: FittedNeighbours) -> xr.DataTree:
    """Return a fit with its neighbours in a group of their own."""
    return tree.assign({GROUP: xr.DataTree(fitted.to_dataset())})


def kept_in(tree: xr.DataTree) -> FittedNeighbours | None:
    """The neighbours that a fit keeps, if it keeps any."""
    return FittedNeighbours.from_dataset(tree[GROUP].to_dataset()) if GROUP in tree.children else None


def with_observations(
    fitted: FittedNeighbours, y: Array, *, site: NDArray[np.str_], time: NDArray[Any], places: RowPlaces | None
) -> FittedNeighbours:
    """Return neighbours with the same covariance that know more observations: new times, new stations, or both.

    Parameters
    ----------
    y : array (row)
        Those of a station and time that are known already count in the place of the old ones.
    site, time : array (row)
    places : RowPlaces or None
        None where the stations have none.
    """
    table = fitted.table
    if fitted.model.trend:
        raise ValueError(
            f"these neighbours have a trend by {listed(fitted.model.trend)}, which observations of new stations lack; fit them "
            "again with all observations"
        )
    seen = np.isfinite(y) & ~pd.isna(time)
    if not seen.any():
        raise ValueError(f"none of {len(y)} rows has an observation and a time; wanted one at least")
    if (time.dtype.kind == "M") != (table.time.dtype.kind == "M"):
        was, came = ("dates", "numbers") if table.time.dtype.kind == "M" else ("numbers", "dates")
        raise ValueError(
            f"the times of the observations are {came}, and those of the fit {was}; bring both to the same"
        )
    day, station = np.nonzero(np.isfinite(table.y))
    old = pd.MultiIndex.from_arrays([table.site[station], day])
    rest = ~old.isin(pd.MultiIndex.from_arrays([site[seen], day_of(table.time, time[seen])]))
    day, station = day[rest], station[rest]
    own = table.site.searchsorted(site).clip(max=len(table.site) - 1)
    unit = np.where(table.site[own] == site, table.unit[own], site)
    both = None
    if table.places is not None:
        assert places is not None
        known = table.places.values[station]
        both = RowPlaces(
            table.places.names,
            (np.append(places.columns[0][seen], known[:, 0]), np.append(places.columns[1][seen], known[:, 1])),
        )
    more = day_table(
        np.append(y[seen], table.y[day, station]),
        site=np.append(site[seen], table.site[station]),
        time=np.append(time[seen], table.time[day]),
        unit=np.append(unit[seen], table.unit[station]),
        places=both,
    )
    fitted.model.forward(more.y)  # a logarithm takes no zero: say so here
    return replace(fitted, table=more)


def neighbours_at(fitted: FittedNeighbours, rows: Ensemble, places: RowPlaces | None) -> Ensemble:
    """Return new rows with what neighbours say of them, each without the row's own station.

    Parameters
    ----------
    rows : Ensemble
        With times, and labels of sites where a row may be one of the stations.
    places : RowPlaces or None
        None where the stations have none.
    """
    site, table = rows.labels("site"), fitted.table
    X = pd.DataFrame({"time": rows.dataset["time"].values})
    if table.places is not None:
        assert places is not None
        X = X.assign(**dict(zip(places.names, places.columns, strict=True)))
        own = np.full(len(rows), "") if site is None else site
        _check_targets(table, table.places, own, places)
    said = with_neighbours(fitted, (), X, site=site, time=None, lon=None, lat=None)
    return with_member(rows, [said[name].to_numpy() for name in (NAME, *BESIDE)], "")


def _check_targets(table: DayTable, stations: Places, own: NDArray[np.str_], places: RowPlaces) -> None:
    """Refuse rows that may be stations without saying so, for they would be told of their own observation."""
    at = np.column_stack(places.columns)
    where = np.flatnonzero(np.isfinite(at).all(axis=1) & ~np.isin(own, table.site))
    if not len(where):
        return
    nearest = stations.nearest_of(Places(places.names, at[where]))
    extent = 1.0 if places.names == LON_LAT else float(np.ptp(stations.values, axis=0).max())
    same = (np.abs(at[where] - stations.values[nearest]) <= SAME_PLACE * extent).all(axis=1)
    where, nearest = where[same], nearest[same]
    if not len(where):
        return
    mute = own[where] == ""
    if mute.any():
        raise ValueError(
            f"{int(mute.sum())} of {len(own)} rows lie at the very place of a station that has observations, such as "
            f"{str(table.site[nearest[mute][0]])!r}, and do not say whose they are: a row of that station would be told of its "
            "own observation. Name the column of stations, site=...: a row is predicted without its own station"
        )
    pairs = dict.fromkeys(zip(own[where].tolist(), table.site[nearest].tolist(), strict=True))
    warn(f"{listed(f'{new} lies at the very place of {old}' for new, old in pairs)}: it is told of what {next(iter(pairs))[1]} "
         "observed, as a second instrument there would be; if the two are one station, give it one name")  # fmt: skip


def places_in(fitted: FittedNeighbours, rows: Ensemble) -> RowPlaces | None:
    """Coordinates of new rows, as the stations have theirs."""
    if fitted.table.places is None:
        return None
    names, data = fitted.table.places.names, rows.dataset
    kept = {name: data[COVARIATE].sel({COVARIATE_NAME: name}).values for name in rows.covariates}
    first, second = (data[name].values if name in LON_LAT and name in data.coords else kept[name] for name in names)
    return RowPlaces(names, (first, second))
