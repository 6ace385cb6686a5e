"""The covariance of a day: against one dense normal of all rows, PyMC's model of it, and tables without the station."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from pytensor.compile.mode import Mode

from bayesens.ensemble.places import Places, RowPlaces
from bayesens.likelihoods.day.scales import moments
from bayesens.likelihoods.day.table import DayTable, day_table
from bayesens.members.day.fitted import FittedNeighbours
from bayesens.members.day.grid import neighbours_on_grid
from bayesens.models.neighbours import PARTS, Neighbours

VARIANCE = dict(zip(PARTS, (0.5, 0.8, 0.3, 0.2, 0.15), strict=True))
REACH = {"field": 0.4, "place": 0.6}
MODEL = Neighbours(transform="identity", center=0.1, unit=0.9, distance=0.5)


def table_of(rng, stations=6, days=9, *, places=True, covariates=1):
    """Random observations with gaps, a day without any, and one of a single station."""
    y = rng.normal(size=(days, stations))
    y[rng.random(y.shape) < 0.3] = np.nan
    y[3], y[4] = np.nan, np.nan
    y[4, 1] = 0.7
    site = np.array([f"s{k}" for k in range(stations)])
    where = Places(("x", "y"), rng.random((stations, 2))) if places else None
    trend = rng.normal(size=(stations, covariates))
    return DayTable(site, site, where, trend, np.arange(days), y)


def dense(fitted, new=None):
    """Covariance of all observations by the formula, and with those of new places (place and trend), a day each."""
    table, v, reach = fitted.table, fitted.variance, fitted.reach
    day, station = np.nonzero(np.isfinite(table.y))
    xy, x = table.places.values[station], table.trend[station]
    if new is not None:
        day, station = np.append(day, new[0]), np.append(station, new[1])
        xy, x = np.vstack([xy, new[2]]), np.vstack([x, new[3]])
    u = np.linalg.norm(xy[:, None] - xy, axis=-1)

    def matern(name):
        r = np.sqrt(3.0) * u / reach[name]
        return (1.0 + r) * np.exp(-r)

    same_day, same = np.equal.outer(day, day), np.equal.outer(station, station)
    static = fitted.model.unit**2 * (1.0 + 0.25 * x @ x.T) + v["place"] * matern("place") + v["nugget"] * same
    return static + same_day * (v["day"] + v["field"] * matern("field") + v["own"] * same)


@pytest.fixture
def fitted():
    return FittedNeighbours(MODEL, table_of(np.random.default_rng(1)), VARIANCE, REACH)


@pytest.mark.parametrize("places", [True, False], ids=["places", "no places"])
def test_both_likelihoods_are_one_density(places):
    table = table_of(np.random.default_rng(2), places=places)
    fused, rows = (MODEL.build(table, likelihood) for likelihood in ("fused", "rows"))
    rng, start = np.random.default_rng(3), fused.initial_point()
    plain = {"mode": Mode(linker="py", optimizer=None)}  # compiling takes longer than running
    both = [(model.compile_logp(**plain), model.compile_dlogp(**plain)) for model in (fused, rows)]
    for _ in range(4):
        point = {name: value + 0.7 * rng.normal(size=np.shape(value)) for name, value in start.items()}
        (a, da), (b, db) = ((logp(point), dlogp(point)) for logp, dlogp in both)
        np.testing.assert_allclose(a, b, rtol=1e-8)
        np.testing.assert_allclose(da, db, rtol=1e-6, atol=1e-7)


def test_the_density_is_that_of_one_normal_of_all_rows(fitted):
    table = fitted.table
    z = table.y[np.isfinite(table.y)] - MODEL.center
    total = sum(VARIANCE.values())
    point = {"sd": total**0.5, "share": np.array(list(VARIANCE.values())) / total, "range": np.array([0.4, 0.6])}
    model = MODEL.build(table)
    loglik = pm.compile(model.free_RVs, model.potentials[0])
    wanted = pm.logp(pm.MvNormal.dist(np.zeros(len(z)), dense(fitted)), z).eval()
    np.testing.assert_allclose(loglik(*(point[rv.name] for rv in model.free_RVs)), wanted, rtol=1e-10)


@pytest.mark.parametrize("buffer", [0.0, 0.5])
def test_a_station_left_out_is_predicted_by_the_rows_of_others(fitted, buffer):
    fitted = replace(fitted, model=replace(MODEL, buffer=buffer))
    table, said = fitted.table, fitted.left_out()
    day, station = np.nonzero(np.isfinite(table.y))
    z = table.y[day, station] - MODEL.center
    far = table.distance >= buffer
    assert buffer == 0.0 or (~far).sum() > len(far)  # some neighbour is set aside
    for s in range(len(table.site)):
        for t in range(len(table.time)):
            covariance = dense(fitted, (t, s, table.places.values[s], table.trend[s]))
            keep = np.append((station != s) & far[s, station], True)
            v = covariance[np.ix_(keep, keep)]
            weight = np.linalg.solve(v[:-1, :-1], v[:-1, -1])
            np.testing.assert_allclose(said.mean[t, s], MODEL.center + weight @ z[keep[:-1]], atol=1e-10)
            np.testing.assert_allclose(said.sd[t, s] ** 2, v[-1, -1] - weight @ v[:-1, -1], rtol=1e-10)


def test_left_out_equals_a_table_without_the_station(fitted):
    table, said = fitted.table, fitted.left_out()
    for s in range(len(table.site)):
        rest = np.arange(len(table.site)) != s
        less = DayTable(table.site[rest], table.unit[rest], table.places.at(rest), table.trend[rest], table.time,
                        table.y[:, rest])  # fmt: skip
        other = replace(fitted, table=less).elsewhere(
            table.places.at([s]), table.trend[[s]], table.site[[s]], table.unit[[s]]
        )
        for one, two in zip(said.columns, other.columns, strict=True):
            np.testing.assert_allclose(one[:, s], two[:, 0], rtol=1e-8)


def test_units_leave_together(fitted):
    table = fitted.table
    pairs = replace(table, unit=np.array(list("aabbcc")))
    said = replace(fitted, table=pairs).left_out()
    rest = np.arange(6) > 1
    less = DayTable(table.site[rest], pairs.unit[rest], table.places.at(rest), table.trend[rest], table.time,
                    table.y[:, rest])  # fmt: skip
    other = replace(fitted, table=less).elsewhere(
        table.places.at([0, 1]), table.trend[:2], table.site[:2], pairs.unit[:2]
    )
    np.testing.assert_allclose(said.mean[:, :2], other.mean, rtol=1e-8)


def test_days_without_others_know_what_the_place_is(fitted):
    table, said = fitted.table, fitted.left_out()
    assert np.isnan(said.distance[4, 1])
    assert np.isnan(said.distance[3]).all()
    np.testing.assert_allclose(said.mean[4, 1], said.mean[3, 1])
    seen = np.isfinite(table.y[4])
    assert seen.sum() == 1
    assert np.isfinite(said.distance[4, ~seen]).all()


def test_moments_of_the_observations():
    rng = np.random.default_rng(4)
    mean, variance = np.array([0.2, 1.0]), np.array([0.3, 0.05])
    z = mean + np.sqrt(variance) * rng.normal(size=(1_000_000, 2))
    for name, back in (("identity", z), ("log", np.exp(z)), ("sqrt", z**2)):
        found = moments(name, mean, variance)
        np.testing.assert_allclose(found[0], back.mean(axis=0), rtol=0.005)  # seven standard errors of a million draws
        np.testing.assert_allclose(found[1], back.std(axis=0), rtol=0.02)


def test_rows_become_a_table_of_days_and_stations():
    site, time = np.array(["b", "a", "b", "c"]), np.array([1, 1, 2, 2])
    places = RowPlaces(("x", "y"), (np.array([1.0, 0.0, 1.0, 5.0]), np.zeros(4)))
    table = day_table(np.array([0.5, 0.2, 0.1, np.nan]), site=site, time=time, places=places)
    assert table.site.tolist() == ["a", "b"]
    assert table.time.tolist() == [1, 2]
    np.testing.assert_array_equal(table.y, [[0.2, 0.5], [np.nan, 0.1]])
    assert table.places.values.tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert table.typical_distance() == 1.0


def test_cells_of_many_stations_are_those_of_rows_to_a_thousandth_of_the_sd():
    rng, stations = np.random.default_rng(7), 210
    site = np.array([f"s{k:03d}" for k in range(stations)])
    where = Places(("x", "y"), rng.uniform(0.0, 2.0, (stations, 2)))
    days = np.arange("2020-01-01", "2020-01-04", dtype="datetime64[D]").astype("datetime64[ns]")
    table = DayTable(site, site, where, np.zeros((stations, 0)), days, rng.normal(size=(3, stations)))
    fitted = FittedNeighbours(MODEL, table, VARIANCE, REACH)
    x, y = np.meshgrid(np.linspace(0.0, 2.0, 7), np.linspace(0.0, 2.0, 5))
    grid = xr.Dataset(coords={"time": days[1:], "y": y[:, 0], "x": x[0]})
    names = np.array([f"cell {k}" for k in range(x.size)])
    rows = fitted.elsewhere(
        Places(("x", "y"), np.column_stack([x.ravel(), y.ravel()])), np.zeros((x.size, 0)), names, names
    )
    cells = neighbours_on_grid(fitted, grid, names=("mean", "sd", "distance")).transpose("time", "y", "x")
    for name, one in zip(("mean", "sd", "distance"), rows.columns, strict=True):
        error = cells[name].values.reshape(2, -1) - one[1:]
        assert np.abs(error / rows.sd[1:]).max() < 1e-3, name
