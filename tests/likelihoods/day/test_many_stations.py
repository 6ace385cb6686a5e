"""Many stations in tiles, against the law of all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from bayesens.ensemble.places import Places
from bayesens.likelihoods.day import elsewhere, tiles
from bayesens.likelihoods.day.table import DayTable
from bayesens.members.day.fitted import FittedNeighbours
from bayesens.members.day.grid import neighbours_on_grid
from bayesens.models.neighbours import PARTS, Neighbours

VARIANCE = dict(zip(PARTS, (0.3, 0.5, 0.2, 0.1, 0.15), strict=True))
REACH = {"field": 0.3, "place": 0.4}
STATIONS, DAYS = 200, 12


def fitted_of(model=None, seed=0):
    """A fit whose observations are drawn from its own covariance, a fifth of them missing."""
    rng = np.random.default_rng(seed)
    xy, site = rng.random((STATIONS, 2)), np.array([f"s{k:03d}" for k in range(STATIONS)])
    model = model or Neighbours(transform="identity", center=0.0, unit=1.0, distance=0.5)
    times = np.arange("2020-01-01", "2020-01-13", dtype="datetime64[D]").astype("datetime64[ns]")
    blank = DayTable(site, site, Places(("x", "y"), xy), np.zeros((STATIONS, 0)), times, np.zeros((DAYS, STATIONS)))
    law = FittedNeighbours(model, blank, VARIANCE, REACH).law
    roots = [np.linalg.cholesky(one) for one in (law.static, law.day)]
    y = roots[0] @ rng.normal(size=STATIONS) + rng.normal(size=(DAYS, STATIONS)) @ roots[1].T
    y[rng.random(y.shape) < 0.2] = np.nan
    return FittedNeighbours(model, replace(blank, y=y), VARIANCE, REACH)


def anew(fitted, **changes):
    return FittedNeighbours(
        **({"model": fitted.model, "table": fitted.table, "variance": VARIANCE, "reach": REACH} | changes)
    )


def distance_to_exact(fitted, monkeypatch, nearest=tiles.NEAREST):
    """Root mean square of what tiles move the means left out by, in standard deviations, and the ratio of these."""
    exact = anew(fitted).left_out()
    monkeypatch.setattr(tiles, "EXACT", 50)
    monkeypatch.setattr(tiles, "NEAREST", nearest)
    some = anew(fitted)
    assert len(some.tiles.tile) == 16
    found = some.left_out()
    np.testing.assert_array_equal(found.distance, exact.distance)
    return np.sqrt(np.mean(((found.mean - exact.mean) / exact.sd) ** 2)), found.sd / exact.sd


def test_tiles_say_nearly_what_all_stations_say(monkeypatch):
    moved, ratio = distance_to_exact(fitted_of(), monkeypatch)
    assert moved < 0.04
    assert ratio.min() > 0.999  # fewer stations know no more
    assert ratio.max() < 1.02


def test_tiles_of_a_few_stations_do_not(monkeypatch):
    moved, ratio = distance_to_exact(fitted_of(), monkeypatch, nearest=2)
    assert moved > 0.1
    assert ratio.max() > 1.05


def test_a_whole_group_that_leaves_is_told_by_the_stations_beyond(monkeypatch):
    fitted = fitted_of()
    east = fitted.table.places.values[:, 0] > 0.5
    halves = replace(fitted.table, unit=np.where(east, "east", "west"))
    moved, ratio = distance_to_exact(anew(fitted, table=halves), monkeypatch)
    assert moved < 0.1
    assert ratio.max() < 1.05


@pytest.mark.parametrize("buffer", [0.0, 0.1])
def test_inverses_that_memory_does_not_hold_are_made_again(monkeypatch, buffer):
    fitted = fitted_of()
    model = replace(fitted.model, buffer=buffer)
    whole = anew(fitted, model=model).left_out()
    monkeypatch.setattr(elsewhere, "MEMORY", 5 * 8 * STATIONS**2)
    for one, two in zip(whole.columns, anew(fitted, model=model).left_out().columns, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-11)


def test_cells_and_rows_of_tiles_are_told_alike(monkeypatch):
    monkeypatch.setattr(tiles, "EXACT", 50)
    fitted = fitted_of()
    x, y = np.meshgrid(np.linspace(0.0, 1.0, 9), np.linspace(0.0, 1.0, 7))
    grid = xr.Dataset(coords={"time": fitted.table.time[[2, 5]], "y": y[:, 0], "x": x[0]})
    cells = neighbours_on_grid(fitted, grid, names=("mean", "sd", "distance")).transpose("time", "y", "x")
    lazy = neighbours_on_grid(fitted, grid.chunk(x=4), names=("mean", "sd", "distance")).transpose("time", "y", "x")
    names = np.array([f"cell {k}" for k in range(x.size)])
    rows = fitted.elsewhere(
        Places(("x", "y"), np.column_stack([x.ravel(), y.ravel()])), np.zeros((x.size, 0)), names, names
    )
    for name, one in zip(("mean", "sd", "distance"), rows.columns, strict=True):
        np.testing.assert_allclose(cells[name].values.reshape(2, -1), one[[2, 5]], atol=2e-6)
        np.testing.assert_allclose(lazy[name].values, cells[name].values, atol=1e-6)


def test_sites_without_places_are_one_tile():
    fitted = fitted_of()
    assert (
        len(
            tiles.Tiles.cut(
                anew(fitted, table=replace(fitted.table, places=None)).law, np.eye(STATIONS, dtype=bool)
            ).tile
        )
        == 1
    )
