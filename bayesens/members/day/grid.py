"""Neighbours on the cells of a grid: what the stations of each day say of every cell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.arithmetic import plain_arithmetic
from bayesens.ensemble.places import LON_LAT, Places, check_degrees
from bayesens.likelihoods.day.table import distances
from bayesens.likelihoods.day.tiles import Tile
from bayesens.members.day.chain import FEATURES, NAME
from bayesens.members.day.fitted import FittedNeighbours
from bayesens.members.day.places import tell_far
from bayesens.members.day.times import day_of, tell_strange_times
from bayesens.messages import listed
from bayesens.threads import share_out

__all__ = ["UNOBSERVED", "check_without", "neighbours_on_grid", "observed_days", "observed_on", "tell_unobserved"]

Array = NDArray[np.float64]
CELLS = 4096  # at a time
MANY = 200  # stations from which cells are computed in single precision: .001 of the standard deviation, in half of the time
SAID = "said"
UNOBSERVED = (
    "on {} of {} days of the grid no station has an observation: neighbours are missing there, and what is left of a mixture is "
    "no fit of its own; give a fit of the other members for these days: without=FIT"
)


def neighbours_on_grid(
    fitted: FittedNeighbours, grid: xr.Dataset, *, names: Sequence[str], time: Any = None, lon: Any = None, lat: Any = None
) -> xr.Dataset:  # fmt: skip
    """Return mean, standard deviation and distance for every cell and time of a grid.

    Parameters
    ----------
    fitted : FittedNeighbours
    grid : Dataset
        With times and coordinates as in the table of the stations, and the columns of a trend; in memory or of dask.
    names : sequence of str
        Of the three variables.
    time, lon, lat : str or DataArray, optional
        Variables of the grid, or arrays on some of its dimensions, in place of those of these names.

    Returns
    -------
    Dataset
        In single precision; NaN on days without an observation, the distance where no place is known.
    """
    table = fitted.table
    places = table.places.names if table.places is not None else ()
    given = {"time": time, "lon": lon, "lat": lat}
    arrays = [_array(grid, name, given.get(name)) for name in ("time", *places)]
    arrays += [_array(grid, name, None) for name in fitted.model.trend]
    at = [np.asarray(one.values, dtype=np.float64).ravel() for one in arrays[1:3]] if places else []
    if places == LON_LAT:
        check_degrees(at[0], at[1], "the grid")
    elif table.places is not None:
        tell_far(table.places, at, "the grid")
    tell_strange_times(table.time, arrays[0].values, "the grid")
    if both := [dim for dim in arrays[0].dims if any(dim in one.dims for one in arrays[1:])]:
        raise ValueError(f"time and place of the grid both go along {listed(both)}; wanted dimensions of their own")
    law = _GridLaw(fitted, names=tuple(places))
    found = xr.apply_ufunc(
        law.of_cells, *arrays, output_core_dims=[[SAID]], dask="parallelized", output_dtypes=[np.float32],
        dask_gufunc_kwargs={"output_sizes": {SAID: 3}}, keep_attrs=False,
    )  # fmt: skip
    return xr.Dataset({name: found.isel({SAID: k}, drop=True) for k, name in enumerate(names)})


def observed_days(
    fitted: FittedNeighbours | None, fit: xr.DataTree, grid: xr.Dataset, time: Any
) -> xr.DataArray | None:
    """Whether some station has an observation, on the dimension of a grid's times; None of fits without neighbours."""
    if fitted is None or NAME not in json.loads(fit.attrs["bayesens_members"]) or NAME in grid:
        return None
    return observed_on(fitted, grid, time)


def observed_on(fitted: FittedNeighbours, grid: xr.Dataset, time: Any = None) -> xr.DataArray:
    """Whether some station has an observation, on the dimension of a grid's times."""
    times = _array(grid, "time", time)
    if times.ndim > 1:
        raise ValueError(f"the times of the grid go along {listed(times.dims)}; wanted one dimension for neighbours")
    days = (day_of(fitted.table.time, times.values) >= 0).reshape(times.shape)
    name = "whether a station has an observation of that day"
    return xr.DataArray(days, dims=times.dims, name="day_observed", attrs={"long_name": name})


def tell_unobserved(fitted: FittedNeighbours | None, grid: xr.Dataset, time: Any) -> None:
    """Say that no time of a grid is one of the stations'."""
    if fitted is not None:
        tell_strange_times(fitted.table.time, _array(grid, "time", time).values, "the grid")


def check_without(without: xr.DataTree, members: Any) -> None:
    """Refuse a fit for days without observations that has neighbours after all."""
    if NAME in json.loads(without.attrs["bayesens_members"]):
        raise ValueError("the fit for days without an observation has neighbours among its members; wanted a fit to the other "
                         "members alone: without=FIT")  # fmt: skip
    if set(FEATURES) & set(members.covariates):
        raise ValueError("days without an observation need members that do not learn from neighbours, and these do: map them by "
                         "members of their own, without neighbour_features")  # fmt: skip


def _array(grid: xr.Dataset, name: str, given: Any) -> xr.DataArray:
    """A variable of the grid, in its chunks."""
    if isinstance(given, str) or given is None:
        asked = given or name
        if asked not in grid.variables:
            how = f"name it: {name}=..., or " if name in ("time", *LON_LAT) else ""
            raise KeyError(
                f"neighbours need the {name} of every cell, as their stations have it, and the grid has no variable {asked!r}; "
                f"{how}give the grid a variable of that name"
            )
        given = grid[asked]
    plain = xr.DataArray(given.variable.to_base_variable())
    chunks = {dim: sizes for dim, sizes in grid.chunksizes.items() if dim in plain.dims}
    return plain.chunk(chunks) if chunks and plain.chunks is None else plain


@dataclass(frozen=True, eq=False)
class _GridLaw:
    """What the stations say of cells."""

    fitted: FittedNeighbours
    names: tuple[str, ...]
    tiles: dict[int, _TileCells] = field(default_factory=dict)

    @plain_arithmetic  # lazy grids are computed after the call has returned
    def of_cells(self, time: NDArray[Any], *arrays: NDArray[Any]) -> NDArray[np.float32]:
        """What is said of cells whose times and other numbers broadcast to one shape (...), as (..., 3)."""
        space = np.broadcast_shapes(*(one.shape for one in arrays))
        columns = [np.broadcast_to(one, space).astype(np.float64).ravel() for one in arrays]
        shape = np.broadcast_shapes(time.shape, space)
        day = day_of(self.fitted.table.time, time)
        out = np.full((len(day), int(np.prod(space)), 3), np.nan, dtype=np.float32)
        blocks = self._blocks(columns, out.shape[1])
        for k in {k for k, _ in blocks}:
            self._tile(k).prepare(day)

        def some(part: slice) -> None:
            for k, cells in blocks[part]:
                out[:, cells] = self._tile(k).say([one[cells] for one in columns], day)

        share_out(some, len(blocks))
        return out.reshape(*shape, 3)

    def _blocks(self, columns: list[Array], n: int) -> list[tuple[int, Any]]:
        """Cells of one tile that are computed together."""
        tiles, places = self.fitted.tiles, self.fitted.table.places
        if len(tiles.tile) == 1 or places is None:
            return [(0, slice(start, start + CELLS)) for start in range(0, n, CELLS)]
        nearest = np.zeros(n, dtype=np.int64)

        def some(part: slice) -> None:
            nearest[part] = places.nearest_of(
                Places(places.names, np.stack([one[part] for one in columns[:2]], axis=1))
            )

        share_out(some, n)
        tile = tiles.of[nearest]
        order = np.argsort(tile, kind="stable")
        ends = np.append(0, np.cumsum(np.bincount(tile, minlength=len(tiles.tile))))
        return [
            (k, order[start : min(start + CELLS, ends[k + 1])])
            for k in range(len(tiles.tile)) for start in range(ends[k], ends[k + 1], CELLS)
        ]  # fmt: skip

    def _tile(self, k: int) -> _TileCells:
        if k not in self.tiles:
            self.tiles[k] = _TileCells(self.fitted, self.fitted.tiles.tile[k], len(self.names))
        return self.tiles[k]


@dataclass(frozen=True, eq=False)
class _TileCells:
    """Coefficients of the days of a grid; see :mod:`bayesens.likelihoods.day.elsewhere` for the formulas."""

    fitted: FittedNeighbours
    tile: Tile
    coordinates: int
    days: dict[int, tuple[Any, ...]] = field(default_factory=dict)

    def prepare(self, day: NDArray[np.int64]) -> None:
        """Find the stations of each day, and the forms of mean and variance."""
        law = self.tile.law
        b, _, c, m = law.informed
        for d in set(day[day >= 0].tolist()) - set(self.days):
            here = np.flatnonzero(np.isfinite(law.z[d]))
            q = np.linalg.inv(law.day[np.ix_(here, here)])
            pull = q @ (law.z[d, here] - m[here])
            twice = q - q @ c[np.ix_(here, here)] @ q
            cross = 2.0 * q @ (np.eye(len(m)) - c @ b)[here]
            self.days[d] = here, pull, twice, cross

    def say(self, columns: list[Array], day: NDArray[np.int64]) -> NDArray[np.float32]:
        """Mean, standard deviation and distance (day, cell, 3) of cells with these coordinates and columns of the trend."""
        fitted, law, table = self.fitted, self.tile.law, self.tile.law.table
        model, v, n = fitted.model, fitted.variance, len(columns[0]) if columns else 1
        out = np.full((len(day), n, 3), np.nan, dtype=np.float32)
        trend = np.zeros((n, 0))
        if model.trend:
            trend = fitted.standardised(np.stack(columns[self.coordinates :], axis=1))
        u = np.full((n, len(table.site)), np.inf, dtype=self.dtype)
        if table.places is not None:
            u = distances(Places(table.places.names, np.stack(columns[:2], axis=1)), table.places).astype(self.dtype)
        r, a = fitted.covariances(u)
        a = a + model.known_between(trend, table.trend).astype(self.dtype)
        level, spread = law.informed.forms
        own = np.array([model.known_between(x, x) for x in trend]) if model.trend else model.unit**2
        middle = a @ level + model.center
        variance = sum(v.values()) + own - self._products(a, spread, a)
        for t, d in enumerate(day.tolist()):
            if d < 0:
                continue
            here, pull, twice, cross = self.days[d]
            some = r if len(here) == r.shape[1] else r[:, here]
            left = variance - self._products(some, twice, some) - self._products(some, cross, a)
            left = np.maximum(left, v["own"])  # the observation's error: only rounding goes below
            out[t, :, 0], out[t, :, 1] = model.moments(middle + some @ pull, left)
            nearest = u[:, here].min(axis=1, initial=np.inf)
            out[t, :, 2] = np.where(np.isfinite(nearest), nearest, np.nan)
        return out

    @property
    def dtype(self) -> type[np.floating[Any]]:
        """Precision of the covariances of cells with stations."""
        return np.float32 if len(self.fitted.table.site) > MANY else np.float64

    def _products(self, x: NDArray[Any], form: Array, y: NDArray[Any]) -> Array:
        """Of each row's ``x' form y``."""
        return np.asarray(np.einsum("ij,ij->i", x @ form.astype(self.dtype), y, dtype=np.float64))
