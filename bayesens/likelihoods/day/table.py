"""Observations by day and station, and the days that have the same stations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens.ensemble.places import Places, RowPlaces, site_places

__all__ = ["DayTable", "Patterns", "day_table", "distances"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Patterns:
    """Days that have the same stations, pattern after pattern.

    Attributes
    ----------
    start : int array (pattern + 1)
        Where the stations of each begin in `station`.
    station : int array
        Those of the first pattern, increasing, then of the second, and so on.
    first : int array (pattern + 1)
        Where the days of each begin in `day`.
    day : int array (day)
    """

    start: NDArray[np.int64]
    station: NDArray[np.int64]
    first: NDArray[np.int64]
    day: NDArray[np.int64]

    @classmethod
    def of(cls, seen: NDArray[np.bool_]) -> Patterns:
        """Days with some station, by which they have.

        Parameters
        ----------
        seen : bool array (day, station)
        """
        some = np.flatnonzero(seen.any(axis=1))
        which, pattern = np.unique(seen[some], axis=0, return_inverse=True)
        count = np.bincount(pattern.ravel(), minlength=len(which))
        ends = np.cumsum(which.sum(axis=1))
        return cls(
            np.append(0, ends), np.nonzero(which)[1], np.append(0, np.cumsum(count)),
            some[np.argsort(pattern.ravel(), kind="stable")],
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.start) - 1

    def of_pattern(self, p: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stations and days of one pattern."""
        return self.station[self.start[p] : self.start[p + 1]], self.day[self.first[p] : self.first[p + 1]]


@dataclass(frozen=True, eq=False)
class DayTable:
    """Observations of stations at common times.

    Attributes
    ----------
    site : str array (station)
        Sorted.
    unit : str array (station)
        What leaves together with a station: its own label, or its group's.
    places : Places or None
    trend : array (station, covariate)
        Standardised.
    time : array (day)
        Sorted.
    y : array (day, station)
        NaN where there is none.
    """

    site: NDArray[np.str_]
    unit: NDArray[np.str_]
    places: Places | None
    trend: Array
    time: NDArray[Any]
    y: Array

    @cached_property
    def patterns(self) -> Patterns:
        """Days that have the same stations."""
        return Patterns.of(np.isfinite(self.y))

    def some(self, stations: NDArray[np.int64], days: NDArray[np.int64] | slice = slice(None)) -> DayTable:
        """Some of the stations and days."""
        places = None if self.places is None else self.places.at(stations)
        y = self.y[days][:, stations]
        return DayTable(self.site[stations], self.unit[stations], places, self.trend[stations], self.time[days], y)

    @cached_property
    def distance(self) -> Array:
        """Of stations from each other, (station, station); infinite where places are not known."""
        if self.places is not None:
            return distances(self.places, self.places)
        return np.where(np.eye(len(self.site), dtype=bool), 0.0, np.inf)

    def typical_distance(self) -> float:
        """Median of the distances of stations that stand apart; one if none do."""
        d = self.distance[np.triu_indices(len(self.site), 1)]
        d = d[(d > 0.0) & np.isfinite(d)]
        return float(np.median(d)) if d.size else 1.0


def day_table(
    y: Array, *, site: NDArray[np.str_], time: NDArray[Any], unit: NDArray[np.str_] | None = None,
    places: RowPlaces | None = None, trend: Array | None = None,
) -> DayTable:  # fmt: skip
    """Return the observations of rows by time and site.

    Parameters
    ----------
    y : array (obs)
        NaN where there is none; a site without any is left out. Of rows that repeat a site and time the mean is taken.
    site, unit : str array (obs)
        Station, and what leaves together with it; None for the station itself.
    time : array (obs)
    places : RowPlaces, optional
    trend : array (obs, covariate), optional
        Of the place: the mean of a station's rows is taken.

    Examples
    --------
    >>> site, time = np.array(["b", "a", "b"]), np.array([1, 1, 2])
    >>> table = day_table(np.array([0.5, 0.2, 0.1]), site=site, time=time)
    >>> table.site.tolist(), table.y.tolist()
    (['a', 'b'], [[0.2, 0.5], [nan, 0.1]])
    """
    seen = np.isfinite(y) & ~pd.isna(time)
    names, station = np.unique(site[seen], return_inverse=True)
    times, day = np.unique(time[seen], return_inverse=True)
    cell, shape = day * len(names) + station, (len(times), len(names))
    sums, counts = (np.bincount(cell, weights, minlength=shape[0] * shape[1]) for weights in (y[seen], None))
    values = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0).reshape(shape)
    first = np.unique(station, return_index=True)[1]
    units = names if unit is None else unit[seen][first]
    where = None if places is None else site_places(places.take(seen), site[seen], why="neighbours need")[1]
    static = np.zeros((len(names), 0))
    if trend is not None and trend.shape[1]:
        static = pd.DataFrame(trend[seen]).groupby(station).mean().to_numpy()
    return DayTable(names, units, where, static, times, values)


def distances(places: Places, others: Places) -> Array:
    """Straight-line distances (place, other) [km on the sphere], of which Matern covariances are valid everywhere.

    Examples
    --------
    >>> plane = Places(("x", "y"), np.array([[0.0, 0.0], [3.0, 4.0]]))
    >>> distances(plane, plane).tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    """
    from scipy.spatial.distance import cdist

    from bayesens.ensemble.sphere import EARTH_RADIUS

    return np.asarray(cdist(places.points, others.points)) * (EARTH_RADIUS if places.on_sphere else 1.0)
