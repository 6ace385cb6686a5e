"""Neighbours with a known covariance: what they say of stations, of rows and of other places."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.ensemble.places import Places, RowPlaces, site_places
from bayesens.inference.sampling.point import posterior_point
from bayesens.likelihoods.day.elsewhere import DayLaw, Targets
from bayesens.likelihoods.day.part import part_of
from bayesens.likelihoods.day.table import DayTable, distances
from bayesens.likelihoods.day.tiles import Tiles
from bayesens.likelihoods.options import options_from_json, options_to_json
from bayesens.members.day.times import day_of
from bayesens.models.neighbours import FIELDS, PARTS, Neighbours

__all__ = ["FittedNeighbours", "Said"]
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Said:
    """What neighbours say of rows, in the units of the observations.

    Attributes
    ----------
    mean, sd : array (row)
    distance : array (row)
        To the nearest station that was asked and has an observation of that time; NaN where none has.
    """

    mean: Array
    sd: Array
    distance: Array

    @property
    def columns(self) -> tuple[Array, Array, Array]:
        """Mean, standard deviation and distance."""
        return self.mean, self.sd, self.distance


@dataclass(frozen=True, eq=False)
class FittedNeighbours:
    """Neighbours with their covariance, at the optimum.

    Attributes
    ----------
    model : Neighbours
        Resolved: a Neighbours.
    table : DayTable
    variance : dict of part to float
    reach : dict of field to float
    standard : array (2, covariate)
        Mean and standard deviation of the trend's columns.
    """

    model: Any
    table: DayTable
    variance: dict[str, float]
    reach: dict[str, float]
    standard: Array = field(default_factory=lambda: np.zeros((2, 0)))

    @classmethod
    def of(
        cls, model: Neighbours, table: DayTable, standard: Array | None = None, *, random_seed: int = 0
    ) -> FittedNeighbours:
        """Fit the covariance to the observations of a table, to a part of a large one."""
        standard = np.zeros((2, 0)) if standard is None else standard
        table = replace(table, trend=_in_units(table.trend, standard))
        model = model.resolve(table)
        try:
            found = posterior_point(model, part_of(table), random_seed=random_seed)
        except ValueError as error:
            raise ValueError(f"{error}{_copies(table)}") from error
        parts = model.parts(table)
        share = zip(parts, float(found["sd"]) ** 2 * found["share"].values, strict=True)
        variance = dict.fromkeys(PARTS, 0.0) | {part: float(value) for part, value in share}
        reach = {f: float(found["range"].values[k]) if "range" in found else 1.0 for k, f in enumerate(FIELDS)}
        return cls(model, table, variance, reach, standard)

    def to_dataset(self) -> xr.Dataset:
        """Return all of it as arrays and JSON, for a file."""
        table = self.table
        data: dict[str, Any] = {
            "observation": (("time", "station"), table.y), "unit": ("station", table.unit.astype(object)),
            "trend": (("station", "trend_column"), table.trend), "standard": (("moment", "trend_column"), self.standard),
        }  # fmt: skip
        names = () if table.places is None else table.places.names
        for k, name in enumerate(names):
            assert table.places is not None
            data[f"place_{name}"] = "station", table.places.values[:, k]
        facts = {
            "options": options_to_json(self.model),
            "variance": self.variance,
            "reach": self.reach,
            "places": names,
        }
        coords = {"time": table.time, "station": table.site.astype(object)}
        return xr.Dataset(data, coords, {"neighbours": json.dumps(facts)})

    @classmethod
    def from_dataset(cls, data: xr.Dataset) -> FittedNeighbours:
        """Make it again from what `to_dataset` returned."""
        facts = json.loads(data.attrs["neighbours"])
        names = facts["places"]
        places = None
        if names:
            places = Places((names[0], names[1]), np.column_stack([data[f"place_{name}"].values for name in names]))
        site, unit = (data[name].values.astype(np.str_) for name in ("station", "unit"))
        table = DayTable(site, unit, places, data["trend"].values, data["time"].values, data["observation"].values)
        model = options_from_json(Neighbours, facts["options"])
        return cls(model, table, facts["variance"], facts["reach"], data["standard"].values)

    def standardised(self, trend: Array) -> Array:
        """Columns of a trend (place, covariate) as the fit has them; zero where one is missing."""
        return _in_units(trend, self.standard)

    def covariances(self, u: Array) -> tuple[Array, Array]:
        """Of a day given the static part, and of the static part, at distances; own error and nugget aside."""
        v = self.variance
        x, y = (np.minimum(u * (3.0**0.5 / self.reach[f]), 80.0) for f in FIELDS)  # beyond, nothing is left
        return v["day"] + v["field"] * (1.0 + x) * np.exp(-x), v["place"] * (1.0 + y) * np.exp(-y)

    @cached_property
    def law(self) -> DayLaw:
        """The law of all stations and days."""
        day, static = self.covariances(self.table.distance)
        one = np.eye(len(day))
        static = static + self.model.known(self.table) + self.variance["nugget"] * one
        return DayLaw(
            self.table, self.model.forward(self.table.y) - self.model.center, day + self.variance["own"] * one, static
        )

    @cached_property
    def tiles(self) -> Tiles:
        """The same, of many stations in tiles."""
        return Tiles.cut(self.law, self._aside)

    @property
    def _aside(self) -> NDArray[np.bool_]:
        """Stations that are not asked for each of the stations."""
        table = self.table
        aside = np.equal.outer(table.unit, table.unit) | (table.distance < self.model.buffer)
        np.fill_diagonal(aside, val=True)
        return aside

    def left_out(self) -> Said:
        """What the other stations say of each station and day of the table, (day, station)."""
        law, aside, own = self.law, self._aside, np.diag_indices(len(self.table.site))
        targets = Targets(law.day, law.static, law.day[own], law.static[own], aside)
        return self._said(*self.tiles.at(targets, own[0]), aside, self.table.distance)

    def elsewhere(self, places: Places | None, trend: Array, site: NDArray[np.str_], unit: NDArray[np.str_]) -> Said:
        """What the stations say of other places on each day of the table, (day, place)."""
        table, v = self.table, self.variance
        u, nearest = np.full((len(site), len(table.site)), np.inf), np.zeros(len(site), dtype=np.int64)
        if places is not None and table.places is not None:
            u, nearest = distances(places, table.places), table.places.nearest_of(places)
        day, static = self.covariances(u)
        static = static + self.model.known_between(trend, table.trend)
        static_variance = v["place"] + v["nugget"] + np.array([self.model.known_between(x, x) for x in trend])
        aside = (site[:, None] == table.site) | (unit[:, None] == table.unit) | (u < self.model.buffer)
        targets = Targets(day, static, np.full(len(site), v["day"] + v["field"] + v["own"]), static_variance, aside)
        return self._said(*self.tiles.at(targets, nearest), aside, u)

    def of_rows(self, site: Any, time: Any, unit: Any, places: RowPlaces | None, trend: Array) -> Said:
        """What the stations say of rows, each without the row's own station; NaN at times without any observation."""
        table = self.table
        own = table.site.searchsorted(site).clip(max=len(table.site) - 1)
        known = table.site[own] == site
        day = day_of(table.time, time)
        out = Said(*(np.full(len(site), np.nan) for _ in range(3)))

        def put(rows: NDArray[np.int64], said: Said, column: NDArray[np.int64]) -> None:
            rows, column = rows[day[rows] >= 0], column[day[rows] >= 0]
            for values, found in zip(out.columns, said.columns, strict=True):
                values[rows] = found[day[rows], column]

        if known.any():
            put(np.flatnonzero(known), self.left_out(), own[known])
        if not known.all():
            new = np.flatnonzero(~known)
            names, first, column = np.unique(site[new], return_index=True, return_inverse=True)
            some = new[first]
            where = None if places is None else site_places(places.take(new), site[new], why="neighbours need")[1]
            put(new, self.elsewhere(where, self.standardised(trend[some]), names, unit[some]), column.ravel())
        return out

    def _said(self, mean: Array, variance: Array, aside: Any, u: Array) -> Said:
        mean, sd = self.model.moments(mean + self.model.center, variance)
        seen = np.isfinite(self.table.y)
        near = np.where(aside, np.inf, u)
        distance = np.full(mean.shape, np.inf)
        for s in range(seen.shape[1]):
            distance[seen[:, s]] = np.minimum(distance[seen[:, s]], near[:, s])
        return Said(mean, sd, np.where(np.isfinite(distance), distance, np.nan))


def _copies(table: DayTable) -> str:
    """Name a pair of stations of which one is a copy, for a message."""
    for k, one in enumerate(table.y.T):
        both = np.isfinite(table.y) & np.isfinite(one)[:, None]
        same = ((table.y == one[:, None]) | ~both).all(axis=0) & (both.sum(axis=0) > 1)
        for other in np.flatnonzero(same[k + 1 :]) + k + 1:
            pair = f"{str(table.site[k])!r} and {str(table.site[other])!r}"
            return f": {pair} have the same observations at all {int(both[:, other].sum())} times of both"
    return ""


def _in_units(trend: Array, standard: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        out = (trend - standard[0]) / standard[1]
    return np.where(np.isfinite(out), out, 0.0)
