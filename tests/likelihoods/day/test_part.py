"""The part of a large table that a covariance is fitted to: how much of it, where, and what it changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import bayesens.members.day.fitted as fitting
from bayesens.ensemble.places import Places
from bayesens.likelihoods.day.part import part_of
from bayesens.likelihoods.day.table import DayTable
from bayesens.members.day.fitted import FittedNeighbours
from bayesens.models.neighbours import Neighbours


def large(seed=1, stations=40, days=120, gaps=0.2):
    """Stations in a plane with a field each day, a static one, and gaps."""
    rng = np.random.default_rng(seed)
    xy = rng.random((stations, 2))
    x = np.sqrt(3.0) * np.linalg.norm(xy[:, None] - xy, axis=-1)[None] / np.array([0.25, 0.4])[:, None, None]
    day, place = np.linalg.cholesky((1.0 + x) * np.exp(-x) + 1e-9 * np.eye(stations))
    y = (
        0.7 * rng.normal(size=(days, 1))
        + 0.6 * rng.normal(size=(days, stations)) @ day.T
        + 0.5 * place @ rng.normal(size=stations)
    )
    y += 0.3 * rng.normal(size=y.shape)
    y[rng.random(y.shape) < gaps] = np.nan
    site = np.array([f"s{k:03d}" for k in range(stations)])
    return DayTable(site, site, Places(("x", "y"), xy), np.zeros((stations, 0)), np.arange(days), y)


def work(table):
    return float(np.sum(np.diff(table.patterns.start) ** 3.0))


def test_little_work_is_done_whole():
    table = large()
    assert part_of(table) is table
    complete = large(stations=400, days=600, gaps=0.0)  # one set of stations, one inverse
    assert part_of(complete) is complete


@pytest.mark.parametrize(("stations", "days"), [(150, 300), (60, 900), (500, 4)])
def test_much_work_is_cut_to_what_is_allowed(stations, days):
    table = large(stations=stations, days=days)
    part = part_of(table, work=1e7)
    assert 0.2e7 < work(part) < 1.3e7
    assert len(part.site) == (min(stations, 100) if days > 10 else 135)
    # Days reach from end to end; stations lie everywhere, and some beside each other.
    np.testing.assert_array_equal(part.time[[0, -1]], table.time[[0, -1]])
    assert np.abs(np.diff(part.time) - np.diff(part.time).mean()).max() <= 1.0
    gap = np.linalg.norm(table.places.values[:, None] - part.places.values, axis=-1).min(axis=1)
    assert gap.max() < 3.0 / np.sqrt(len(part.site))
    for name, station in zip(part.site, range(len(part.site)), strict=True):
        was = table.site.searchsorted(name)
        np.testing.assert_array_equal(part.y[:, station], table.y[part.time, was])
        np.testing.assert_array_equal(part.places.values[station], table.places.values[was])


def test_the_part_does_not_depend_on_chance_or_the_unit_of_places():
    table = large(stations=150, days=300)
    scaled = replace(table, places=Places(("x", "y"), 64.0 * table.places.values + 8.0))
    one, same, other = (part_of(given, work=1e7) for given in (table, table, scaled))
    assert one.site.tolist() == same.site.tolist() == other.site.tolist()
    assert one.time.tolist() == same.time.tolist() == other.time.tolist()


def test_without_places_the_stations_are_those_with_most_observations():
    table = replace(large(stations=150, days=300), places=None)
    part = part_of(table, work=1e7)
    count = np.isfinite(table.y).sum(axis=0)
    assert count[np.isin(table.site, part.site)].min() >= count[~np.isin(table.site, part.site)].max()


@pytest.mark.slow
def test_predictions_hardly_know_that_the_fit_was_to_a_part(monkeypatch):
    table, model = large(stations=60, days=150), Neighbours(transform="identity")
    whole = FittedNeighbours.of(model, table).left_out()
    monkeypatch.setattr(fitting, "part_of", lambda given: part_of(given, work=2e6))
    part = FittedNeighbours.of(model, table)
    assert part.table.y.shape == table.y.shape
    said = part.left_out()
    seen = np.isfinite(table.y)
    assert np.sqrt(np.mean(((said.mean - whole.mean) / whole.sd)[seen] ** 2)) < 0.15
    np.testing.assert_allclose(said.sd, whole.sd, rtol=0.2)
    error = [np.sqrt(np.mean((one.mean - table.y)[seen] ** 2)) for one in (said, whole)]
    assert error[0] < 1.02 * error[1]
