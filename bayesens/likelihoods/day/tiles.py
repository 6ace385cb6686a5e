"""Many stations in tiles: each place is told by the stations around it.

The law of all stations inverts, for every set of stations that some day has, a matrix of them all. Of more than `EXACT` stations
those near each other are put into tiles, and a tile knows the law of its own stations and of the nearest ones of each: exact but
for stations farther off, which the nearer ones stand before. Places are told by the tile of the station that is nearest to them.

Of 300 simulated stations on 60 days, with ranges of a tenth to all of the domain and shares of the day from .02 to .5, means of
stations left out moved by .02 to .04 of their standard deviation (root mean square), their error grew by .01 to .1 percent. On a
day on which no station of a tile has an observation its places are told by what they are on other days, though others observed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesens.likelihoods.day.elsewhere import DayLaw, Targets

__all__ = ["EXACT", "Tile", "Tiles"]

EXACT = 250  # stations up to which all of them tell every place
STATIONS = 16  # of a tile, at most
NEAREST = 64  # stations around each that have an observation on a day, on average; four times as many stations at most
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tile:
    """The law of some stations.

    Attributes
    ----------
    station : int array
        Increasing.
    law : DayLaw
    """

    station: Index
    law: DayLaw


@dataclass(frozen=True, eq=False)
class Tiles:
    """Stations by tiles, with the law of each.

    Attributes
    ----------
    of : int array (station)
        The tile of each.
    tile : list of Tile
    """

    of: Index
    tile: list[Tile]

    @classmethod
    def cut(cls, law: DayLaw, aside: NDArray[np.bool_]) -> Tiles:
        """Tiles of a law.

        Parameters
        ----------
        law : DayLaw
            Of all stations.
        aside : bool array (station, station)
            Which are not asked for each: as many others are.
        """
        stations = len(law.static)
        if stations <= EXACT or law.table.places is None:
            return cls(np.zeros(stations, dtype=np.int64), [Tile(np.arange(stations), law)])
        own = _halves(law.table.places.points, np.arange(stations))
        of = np.empty(stations, dtype=np.int64)
        for k, some in enumerate(own):
            of[some] = k
        share = np.isfinite(law.z).mean()
        n = min(stations - 1, int(NEAREST / max(share, 0.25)))
        u = law.table.distance
        around = np.argpartition(u, n, axis=1)[:, : n + 1]
        others = np.argpartition(np.where(aside, np.inf, u), n, axis=1)[:, : n + 1]
        return cls(of, [_tile(law, np.unique(np.concatenate([around[some], others[some]]))) for some in own])

    def at(self, targets: Targets, nearest: Index) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance (day, place) of places, given the station that each is nearest to."""
        if len(self.tile) == 1:
            return self.tile[0].law.at(targets)
        mean, variance = np.empty((2, len(self.tile[0].law.z), len(nearest)))
        for k, tile in enumerate(self.tile):
            places = np.flatnonzero(self.of[nearest] == k)
            if len(places):
                mean[:, places], variance[:, places] = tile.law.at(targets.at(places, tile.station))
        return mean, variance


def _tile(law: DayLaw, station: Index) -> Tile:
    here = np.ix_(station, station)
    return Tile(station, DayLaw(law.table.some(station), law.z[:, station], law.day[here], law.static[here]))


def _halves(points: NDArray[np.float64], index: Index) -> list[Index]:
    """Stations in tiles: halved along the direction in which they reach farthest, until few are left."""
    if len(index) <= STATIONS:
        return [index]
    along = points[index, np.ptp(points[index], axis=0).argmax()]
    order = index[np.argsort(along, kind="stable")]
    half = len(order) // 2
    return _halves(points, order[:half]) + _halves(points, order[half:])
