"""Weights that follow a smooth field over places: the field, what it finds, coordinates in a plane, grids, what is refused."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.special import expit

import bayesens as be
from bayesens import BMA
from bayesens.likelihoods.corrected.row_weights.fields import columns, names_of, wave_numbers
from bayesens.likelihoods.corrected.widths import Widths

SPACE = BMA(weights="space")


def region(size, seed, sites=60, times=20, first=0):
    """Two members, each a mixture of a sharp and a blunt view; which of them is sharp depends on where a station stands."""
    rng = np.random.default_rng(seed)
    lon, lat = rng.uniform(0.0, 4.0, sites), rng.uniform(44.0, 47.0, sites)
    logit = 2.0 * size * np.sin(1.2 * lon) * np.cos(1.5 * (lat - 45.5))
    y = rng.normal(10.0, 1.0, sites * times)
    sharp = rng.random(len(y)) < expit(logit.repeat(times))
    f = y[:, None] + np.where(sharp[:, None], [0.3, 1.0], [1.0, 0.3]) * rng.normal(size=(len(y), 2))
    return pd.DataFrame({"station": np.array([f"s{first + i:03d}" for i in range(sites)]).repeat(times), "y": y, "a": f[:, 0],
                         "b": f[:, 1], "lon": lon.repeat(times), "lat": lat.repeat(times)})  # fmt: skip


def ensemble(frame, **options):
    known = {"members": ["a", "b"], "observation": "y", "site": "station", "lon": "lon", "lat": "lat"}
    return be.Ensemble.from_frame(frame, **(known | options))


def quiet(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return function(*args, **options)


def fitted_to(rows, model=SPACE, **options):
    return quiet(be.fit, model, rows, **({"random_seed": 1, "progressbar": False, "draws": 250} | options))


@pytest.fixture(scope="module")
def fit():
    return fitted_to(ensemble(region(1.5, seed=0)))


def area(names=("x", "y"), size=(3.0, 1.0), center=(0.0, 0.0)):
    one = np.ones(2)
    return Widths(names, np.nan * one, np.array(center), np.array(size), -1.5 * one, 1.5 * one)


@pytest.mark.parametrize("length", [0.4, 0.6, 0.85, 1.2])
def test_waves_have_the_correlation_of_the_field(length):
    """Beside exp(-d^2 / 2 l^2), d in halves of the wider side."""
    places, rng = area(), np.random.default_rng(1)
    z = rng.uniform(-1.5, 1.5, (80, 2))
    at = columns(places, z)
    found = (at * 2.0 * np.pi * length**2 * np.exp(-0.5 * length**2 * wave_numbers(places))) @ at.T
    plane = z * [3.0, 1.0] / 4.5
    apart = np.square(plane[:, None] - plane).sum(axis=2)
    variance = np.diag(found)
    assert 0.7 < variance.mean() < 1.01
    assert np.abs(found / np.sqrt(np.outer(variance, variance)) - np.exp(-0.5 * apart / length**2)).mean() < 0.04
    assert len(names_of(places)) == len(set(names_of(places))) == at.shape[1]


def test_longitudes_count_by_the_cosine_of_the_latitude():
    """At 60 degrees a degree of longitude is half of one of latitude: waves are those of a plane of half the width."""
    z = np.random.default_rng(1).uniform(-1.5, 1.5, (20, 2))
    globe = area(("lon", "lat"), size=(6.0, 1.0), center=(10.0, 60.0))
    assert_allclose(columns(globe, z), columns(area(), z), rtol=1e-9)


def test_the_better_member_is_found_by_place_and_new_stations_are_predicted_better(fit):
    train, new = ensemble(region(1.5, seed=0)), ensemble(region(1.5, seed=1, first=500))
    space, plain = (quiet(be.score, one, new) for one in (fit, fitted_to(train, BMA())))
    by_station = (plain["log_score"] - space["log_score"]).groupby("site").mean()
    assert float(by_station.mean()) > 2.0 * float(by_station.std()) / np.sqrt(by_station.size)
    assert float(space["crps"].mean()) < 0.995 * float(plain["crps"].mean())
    assert {"weight_length", "weight_spread"} <= set(be.summary(fit).columns["In common"]["parameter"])


@pytest.mark.slow
def test_places_that_tell_nothing_cost_little():
    """At new stations: .3 % of the CRPS at the most on average over eight worlds."""
    ratio = []
    for seed in range(8):
        train, new = (ensemble(region(0.0, seed=50 + 2 * seed + part, first=500 * part)) for part in range(2))
        crps = [float(quiet(be.score, fitted_to(train, one), new)["crps"].mean()) for one in (SPACE, BMA())]
        ratio.append(crps[0] / crps[1])
    assert np.mean(ratio) < 1.003, ratio


def test_a_grid_is_predicted_as_its_table_in_the_box_of_the_fit(fit):
    rng = np.random.default_rng(4)
    grid = xr.Dataset({name: (("lat", "lon"), rng.normal(10.0, 1.0, (3, 4))) for name in "ab"},
                      {"lat": [44.5, 45.0, 46.0], "lon": [0.5, 1.0, 2.0, 3.0]})  # fmt: skip
    found = quiet(be.predict, fit, grid).transpose("lat", "lon", ...)
    table = grid.to_dataframe().reset_index()
    of_rows = quiet(be.predict, fit, be.Ensemble.from_frame(table, members=["a", "b"], lon="lon", lat="lat"))
    for name in ("mean", "sd"):
        assert_allclose(found[name].values.ravel(), of_rows[name], rtol=1e-9)
    corner = quiet(be.predict, fit, grid.isel(lat=[0], lon=[0, 1]))
    assert_allclose(corner["sd"].values.ravel(), found["sd"].values[0, :2], rtol=1e-12)


def test_other_coordinates_and_rows_without_any(fit):
    frame = region(1.5, seed=0, sites=20)
    plane = frame.assign(x=frame["lon"] * np.cos(np.deg2rad(frame["lat"].mean())), north=frame["lat"])
    model = BMA(weights="space", weight_covariates=("x", "north"))
    rows = ensemble(plane, covariates=["x", "north"])
    one, other = (quiet(m.prepare, rows).mixture.z for m in (model, SPACE))
    assert_allclose(one, other, atol=1e-9)
    holes = ensemble(frame.assign(lon=np.nan))
    assert np.isfinite(quiet(be.predict, fit, holes)["sd"]).all()


def test_what_does_not_go_together_is_refused():
    assert SPACE.weight_covariates == ("lon", "lat")
    with pytest.raises(
        ValueError, match=r"is a field over two coordinates; got weight_covariates=\('lon',\). Leave them out"
    ):
        BMA(weights="space", weight_covariates=("lon",))
    with pytest.raises(ValueError, match=r"got weights='space'. Use correction='own'"):
        BMA(weights="space", correction="joint")
    frame = region(1.5, seed=0, sites=5)
    with pytest.raises(ValueError, match=r"column 'lon', .*name it with Ensemble.from_frame\(..., lon=...\)"):
        fitted_to(ensemble(frame, lon=None, lat=None))
    with pytest.raises(ValueError, match="method='em' has no weights by place"):
        fitted_to(ensemble(frame), method="em")


@pytest.mark.parametrize("model", [SPACE, BMA(weights="covariates", weight_covariates=("lat",))])
def test_few_places_of_many_rows_are_told(model):
    with pytest.warns(UserWarning, match="200 training rows have only 8: rows that share one often err alike"):
        be.fit(model, ensemble(region(0.0, seed=2, sites=8, times=25)), random_seed=1, progressbar=False, draws=50)
