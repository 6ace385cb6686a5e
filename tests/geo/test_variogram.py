"""Variograms of maps and of stations against loops over pairs, closed forms and scikit-learn's distances."""

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from rough_maps import rough
from sklearn.metrics.pairwise import haversine_distances

from bayesens.ensemble.sphere import EARTH_RADIUS, great_circle
from bayesens.geo.variogram import grid_variogram, station_variogram


def estimate(differences, robust):
    n = len(differences)
    if robust:
        return np.mean(np.sqrt(np.abs(differences))) ** 4 / (0.457 + 0.494 / n) / 2
    return np.mean(np.square(differences)) / 2


@pytest.mark.parametrize("robust", [False, True])
def test_grid_variogram_equals_a_loop_over_pairs(robust):
    x = rough((9, 6), 2, 0.3)
    found = grid_variogram(x, max_lag=8, robust=robust)
    cells = [tuple(at) for at in np.argwhere(np.isfinite(x))]
    for way, direction in enumerate(("y", "x")):
        for h in range(1, 9):
            step = (h, 0) if way == 0 else (0, h)
            pairs = [x[b] - x[a] for a in cells for b in cells if (b[0] - a[0], b[1] - a[1]) == step]
            one = found.sel(direction=direction, lag=h)
            assert one["pairs"] == len(pairs)
            if pairs:
                assert_allclose(one["semivariance"], estimate(np.array(pairs), robust))
            else:
                assert np.isnan(one["semivariance"])


def test_grid_variogram_of_white_noise_is_its_variance_by_either_estimator():
    # 40,000 values: the classical one has a standard error below 1 %, the robust one is biased by less than 1 %.
    x = np.random.default_rng(1).normal(size=(200, 200))
    for robust in (False, True):
        found = grid_variogram(x, max_lag=5, robust=robust)
        assert_allclose(found["semivariance"], 1.0, atol=0.05)
    x[::20, ::20] += 100.0  # a few outliers
    assert grid_variogram(x, max_lag=5)["semivariance"].min() > 10
    assert grid_variogram(x, max_lag=5, robust=True)["semivariance"].max() < 2


def test_grid_variogram_of_many_maps_and_of_dask():
    cube = xr.DataArray(np.stack([rough((8, 7), s, 0.1) for s in range(3)]), dims=("time", "lat", "lon"))
    expected = xr.concat([grid_variogram(cube.isel(time=t)) for t in range(3)], "time")
    xr.testing.assert_allclose(grid_variogram(cube, progressbar=False), expected)
    xr.testing.assert_allclose(grid_variogram(cube.chunk(time=1, lat=4), progressbar=False), expected)
    assert expected["direction"].values.tolist() == ["lat", "lon"]
    assert expected.sizes["lag"] == 3


def test_great_circle_equals_scikit_learn():
    rng = np.random.default_rng(1)
    lon, lat = rng.uniform(-180, 180, 40), rng.uniform(-90, 90, 40)
    radians = np.radians(np.column_stack([lat, lon]))
    expected = haversine_distances(radians) * EARTH_RADIUS
    assert_allclose(great_circle(lon[:, None], lat[:, None], lon, lat), expected, rtol=1e-9, atol=1e-6)
    assert_allclose(great_circle(0.0, 0.0, 1e-6, 0.0), np.radians(1e-6) * EARTH_RADIUS, rtol=1e-6)  # 11 cm


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("times", [None, 6])
def test_station_variogram_equals_a_loop_over_pairs(robust, times):
    rng = np.random.default_rng(4)
    lon, lat = rng.uniform(100, 104, 14), rng.uniform(30, 33, 14)
    values = rng.normal(size=14) if times is None else rng.normal(size=(times, 14))
    values[..., 3] = np.nan
    values.ravel()[::7] = np.nan
    found = station_variogram(values, lon=lon, lat=lat, bins=[0, 60, 150, 400, 4000, 5000], robust=robust)
    distance = haversine_distances(np.radians(np.column_stack([lat, lon]))) * EARTH_RADIUS
    for k in range(5):
        d, far = [], []
        for i in range(14):
            for j in range(i):
                if found["lower"][k] <= distance[i, j] < found["upper"][k]:
                    for row in np.atleast_2d(values):
                        if np.isfinite(row[i] - row[j]):
                            d.append(row[i] - row[j])
                            far.append(distance[i, j])
        assert found["pairs"][k] == len(d)
        if d:
            assert_allclose(found["semivariance"][k], estimate(np.array(d), robust))
            assert_allclose(found["distance"][k], np.mean(far))
        else:
            assert np.isnan(found["semivariance"][k])


def test_default_bins_reach_half_of_the_greatest_distance():
    found = station_variogram([0.0, 1.0, 5.0], lon=[0, 1, 4], lat=[0, 0, 0], bins=2)
    assert_allclose(found["upper"], [EARTH_RADIUS * np.radians(1.0), EARTH_RADIUS * np.radians(2.0)])
    assert found["pairs"].values.sum() == 1


def test_bins_hold_their_lower_edge_and_the_last_one_both():
    near, far = (float(great_circle(0.0, 0.0, degrees, 0.0)) for degrees in (1.0, 3.0))
    found = station_variogram([0.0, 2.0, 8.0], lon=[0, 1, 3], lat=[0, 0, 0], bins=[0.0, near, far])
    assert found["pairs"].values.tolist() == [0, 3]
    assert np.isnan(found["semivariance"].values[0])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: station_variogram([[1.0, np.nan], [np.nan, 1.0]], lon=[0, 1], lat=[0, 0], bins=[0, 200]),
            "at the same time",
        ),
        (lambda: grid_variogram(np.eye(3), max_lag=3), "max_lag is 3 for a map of 3 x 3 cells; wanted .* from 1 to 2"),
        (lambda: grid_variogram(np.full((3, 3), np.nan)), "no two values of the map"),
        (lambda: grid_variogram(np.array([[1.0, np.inf]])), "infinite"),
        (lambda: grid_variogram(np.ones((1, 1))), "max_lag is 1 for a map of 1 x 1"),
        (lambda: station_variogram([1.0], lon=[0], lat=[0]), "two stations at least"),
        (lambda: station_variogram([1.0, 2.0], lon=[0], lat=[0, 1]), r"lon has shape \(1,\) for 2 stations"),
        (lambda: station_variogram([1.0, 2.0], lon=[0, 1], lat=[0, 91]), "lat is 91.0 at station 1"),
        (lambda: station_variogram([1.0, 2.0], lon=[0, np.nan], lat=[0, 1]), "lon is nan at station 1"),
        (lambda: station_variogram([1.0, 2.0], lon=[0, 1], lat=[0, 0], bins=[3, 2]), "increasing"),
        (lambda: station_variogram([1.0, 2.0], lon=[0, 1], lat=[0, 0], bins=0), "whole number of at least 1"),
        (
            lambda: station_variogram([1.0, 2.0], lon=[0, 1], lat=[0, 0], bins=[0, 9]),
            "0 to 9 km apart; distances are 111",
        ),
        (lambda: station_variogram([1.0, 2.0], lon=[1, 1], lat=[0, 0]), "all stations are in one place"),
        (lambda: station_variogram([1.0, np.inf], lon=[0, 1], lat=[0, 0]), "infinite"),
    ],
)
def test_variograms_that_are_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()
