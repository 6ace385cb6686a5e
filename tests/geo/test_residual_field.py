"""Fields of normal scores: their correlation by many draws, their estimate from stations, and draws of maps from them."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import ndtr

import bayesens as be
from bayesens.ensemble.sphere import great_circle

PLANE = be.ResidualField(range=40.0, nugget=0.2, persistence=0.6, places=("x", "y"))


def stations(seed=0, n=30):
    return np.random.default_rng(seed).uniform(0.0, 100.0, (2, n))


@pytest.mark.parametrize("field", [PLANE, be.ResidualField(range=300.0, persistence=0.3)])
def test_scores_have_the_correlation_of_the_field_within_monte_carlo_error(field):
    # 1,500 draws of 8 places and 3 days: a correlation of 24 x 24 pairs is off by at most 1 / sqrt(1500) x 4.9 with a chance of
    # about 276 x 1e-6 < .1 %.
    if field is PLANE:
        x, y = stations(n=8)
        distance = np.hypot(x[:, None] - x, y[:, None] - y)
    else:
        x, y = np.random.default_rng(1).uniform([[140.0], [-38.0]], [[148.0], [-32.0]], (2, 8))
        distance = great_circle(x[:, None], y[:, None], x, y)
    day = np.array([0.0, 1.0, 3.5])
    z = np.stack([field.scores(x, y, day, random_seed=[3, n]) for n in range(1500)]).reshape(1500, -1)
    wanted = field.correlation(np.repeat(np.repeat(distance, 3, 0), 3, 1), np.tile(day[:, None] - day, (8, 8)))
    assert np.abs(z.T @ z / 1500 - wanted).max() < 4.9 / np.sqrt(1500) * 1.5  # the variance of a product is at most two
    assert abs(z.mean()) < 0.1
    assert abs((z**4).mean() - 3.0) < 0.35


def test_a_place_has_the_same_scores_whatever_other_places_and_times_are_asked_for():
    x, y = stations()
    day = np.datetime64("2004-06-01") + np.arange(5)
    whole = PLANE.scores(x, y, day, random_seed=7)
    some = PLANE.scores(x[4:9], y[4:9], day, random_seed=7, keep=[1, 3])
    np.testing.assert_allclose(some, whole[4:9][:, [1, 3]], atol=1e-12)
    np.testing.assert_allclose(PLANE.scores(x, y, day[::-1], random_seed=7), whole[:, ::-1], atol=1e-12)
    assert not np.allclose(PLANE.scores(x, y, day, random_seed=8), whole)


@pytest.mark.parametrize("nugget", [0.0, 0.3])
def test_range_nugget_and_persistence_are_found_again(nugget):
    truth = be.ResidualField(range=40.0, nugget=nugget, persistence=0.6, places=("x", "y"))
    x, y = stations()
    z = truth.scores(x, y, np.arange(150.0), random_seed=3)
    s, t = np.meshgrid(np.arange(30), np.arange(150.0), indexing="ij")
    pit = ndtr(z).ravel()
    pit[np.random.default_rng(4).random(pit.size) < 0.3] = np.nan
    found = be.residual_field(pit, site=s.ravel().astype(str), time=t.ravel(), x=x[s].ravel(), y=y[s].ravel())
    # Over 100 seeds the standard errors were 3.1, .02 and .02: bounds at five of them.
    assert abs(found.range - 40.0) < 16.0
    assert abs(found.nugget - nugget) < 0.1
    assert abs(found.persistence - 0.6) < 0.1
    assert found.places == ("x", "y")


def test_what_does_not_fit_is_refused():
    x, y = stations(n=6)
    names = [f"s{k}" for k in range(6)]
    pit = np.full(6, 0.4)
    with pytest.raises(ValueError, match="no places; pass lon= and lat="):
        be.residual_field(pit, site=names, time=np.zeros(6))
    with pytest.raises(ValueError, match="4 sites; wanted at least 5"):
        be.residual_field(pit[:4], site=names[:4], time=np.zeros(4), x=x[:4], y=y[:4])
    with pytest.raises(ValueError, match="no time has PIT values of two sites"):
        be.residual_field(pit, site=names, time=np.arange(6.0), x=x, y=y)
    with pytest.raises(ValueError, match="'s0' have several places"):
        be.residual_field(
            np.full(7, 0.4), site=[*names, "s0"], time=np.r_[np.zeros(6), 1.0], x=np.append(x, 3.0), y=np.append(y, 3.0)
        )
    with pytest.raises(ValueError, match="'y' must be one finite number"):
        be.residual_field(pit, site=names, time=np.zeros(6), x=x, y=np.full(6, np.nan))
    with pytest.raises(ValueError, match="wanted a positive range"):
        be.ResidualField(range=-1.0)


# ------------------------------------------------------------------------------------------------------------- draws of maps
MEMBERS = ["a", "b"]
SIZE = 400


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(5)
    truth = rng.normal(10.0, 2.0, 400)
    frame = pd.DataFrame({name: truth + rng.normal(0.0, 1.0, 400) for name in MEMBERS} | {"y": truth})
    return be.fit(be.HBM(), be.Ensemble.from_frame(frame, members=MEMBERS, observation="y"), random_seed=1)


def region(days=3):
    rng = np.random.default_rng(6)
    coords = {
        "time": pd.date_range("2004-06-01", periods=days),
        "x": np.arange(10) * 5.0,
        "y": np.arange(10)[::-1] * 5.0,
    }
    values = {name: (("time", "y", "x"), rng.normal(10.0, 2.0, (days, 10, 10))) for name in MEMBERS}
    return xr.Dataset(values, coords)


def test_an_area_mean_varies_as_the_field_says_and_independent_cells_would_say_too_little(fit):
    # The sd of 400 draws has a standard error of 3.5 %; bounds at four of them and the Monte Carlo error of the cells' own sd.
    field = be.ResidualField(range=30.0, nugget=0.1, persistence=0.5, places=("x", "y"))
    grid = region(1)
    draws = be.draw(fit, grid, size=SIZE, random_seed=1, field=field)
    found = be.predict(fit, grid)
    x, y = (one.ravel() for one in np.meshgrid(grid["x"], grid["y"]))
    correlation = field.correlation(np.hypot(x[:, None] - x, y[:, None] - y))
    sd = found["sd"].values.ravel()
    wanted = np.sqrt(sd @ correlation @ sd) / 100
    assert abs(draws.mean(("y", "x")).std().item() / wanted - 1.0) < 0.15
    alone = np.sqrt(np.sum(sd**2)) / 100
    assert wanted / alone > 5.0  # what independent draws would err by
    np.testing.assert_allclose(draws.mean("sample"), found["mean"], atol=5.5 * sd.max() / np.sqrt(SIZE))
    np.testing.assert_allclose(draws.std("sample"), found["sd"], rtol=0.2)


def test_draws_are_the_same_in_any_chunks_and_of_any_part_of_the_grid(fit):
    grid, asked = region(), {"size": 5, "random_seed": 3, "field": PLANE}
    whole = be.draw(fit, grid, **asked)
    assert whole.dims == ("sample", "time", "y", "x")
    assert whole.attrs["units"] == fit.attrs["units"]
    xr.testing.assert_allclose(be.draw(fit, grid.chunk(x=4, y=3), **asked).compute(), whole, rtol=1e-12)
    with pytest.warns(UserWarning, match="cut into chunks along its time"):
        lazy = be.draw(fit, grid.chunk(time=1), **asked)
    xr.testing.assert_allclose(lazy.compute(scheduler="threads"), whole, rtol=1e-12)
    part = be.draw(fit, grid.isel(x=slice(2, 5)), **asked)
    np.testing.assert_allclose(part.values, whole.isel(x=slice(2, 5)).values, rtol=1e-12)
    turned = be.draw(fit, grid.transpose("x", "time", "y"), **asked)
    np.testing.assert_allclose(turned.transpose("sample", "time", "y", "x").values, whole.values, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BMA", "LinearPool", "EMOS", "Climatology"])
@pytest.mark.parametrize("scale", ["identity", "log"])
def test_draws_of_every_model_have_its_quantiles(name, scale, monkeypatch):
    rng = np.random.default_rng(8)
    truth = rng.gamma(9.0, 1.0, 300)
    frame = pd.DataFrame({m: truth * np.exp(rng.normal(0.0, 0.2, 300)) for m in MEMBERS} | {"y": truth})
    model = getattr(be, name)(transform=scale)
    fit = be.fit(model, be.Ensemble.from_frame(frame, members=MEMBERS, observation="y"), draws=300, random_seed=1)
    values = {m: (("y", "x"), rng.gamma(9.0, 1.0, (3, 3))) for m in MEMBERS}
    values["b"][1][0, 0] = np.nan if name != "EMOS" else 4.0
    grid = xr.Dataset(values, {"x": np.arange(3.0), "y": np.arange(3.0)})
    asked = {"random_seed": 1, "field": be.ResidualField(range=0.1, places=("x", "y"))}
    draws, few = (be.draw(fit, grid, size=size, **asked) for size in (600, 5))
    found = be.predict(fit, grid, quantiles=[0.1, 0.5, 0.9])["quantile_value"]
    # A share of 600 draws has a standard error of at most .0204: bounds at 4.5 of them, 27 of them at once.
    share = (draws < found).mean("sample")
    assert np.abs(share - share["quantile"]).max() < 0.092
    monkeypatch.setattr("bayesens.inference.grid_draws.PART_ROWS", 4)  # large grids go through as rows some at a time
    xr.testing.assert_allclose(be.draw(fit, grid, size=5, **asked), few, rtol=1e-12)


def test_a_grid_that_does_not_fit_the_field_is_refused(fit):
    grid = region()
    with pytest.raises(TypeError, match=r"field=be.residual_field\(pit\)"):
        be.draw(fit, grid)
    with pytest.raises(ValueError, match="one of 'lon', and the grid has no such coordinate"):
        be.draw(fit, grid, field=be.ResidualField(range=3.0))
    with pytest.raises(ValueError, match="'time' without coordinates"):
        be.draw(fit, grid.drop_vars("time"), field=PLANE)
    moving = grid.drop_vars("x").assign_coords(x=(("time", "x"), np.zeros((3, 10))))
    with pytest.raises(ValueError, match=r"dimension|changes with the time"):
        be.draw(fit, moving, field=PLANE)
    with pytest.raises(TypeError, match="field is of grids"):
        be.draw(fit, be.Ensemble.from_frame(pd.DataFrame({"a": [1.0], "b": [2.0]}), members=MEMBERS), field=PLANE)


def test_scores_of_many_places_take_little_memory(monkeypatch):
    """Waves of 1e5 places would take 800 MB at once; places go through them some at a time, to the same scores."""
    field = be.ResidualField(range=50.0, nugget=0.2, persistence=0.5)
    x = np.linspace(140.0, 150.0, 100_000)
    tracemalloc.start()
    found = field.scores(x, x - 180.0, [0.0, 1.0], random_seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6, f"{peak / 1e6:.0f} MB"
    monkeypatch.setattr("bayesens.geo.residual_field.PLACES", 7)
    np.testing.assert_allclose(field.scores(x[:50], x[:50] - 180.0, [0.0, 1.0], random_seed=1), found[:50], atol=1e-12)
