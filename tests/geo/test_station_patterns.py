"""Moran's I at stations against esda and all permutations; ratios of variances against pandas and known truths."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from sklearn.metrics.pairwise import haversine_distances

from bayesens.geo.station_patterns import station_morans_i, variance_ratio


def scattered(n, seed):
    rng = np.random.default_rng(seed)
    lon, lat = rng.uniform(-10, 10, n), rng.uniform(40, 60, n)
    return rng.normal(size=n) + 0.1 * lon, lon, lat


@pytest.mark.parametrize("k", [1, 4])
def test_station_morans_i_equals_esda_with_its_own_neighbours(k):
    esda, weights = pytest.importorskip("esda"), pytest.importorskip("libpysal.weights")
    values, lon, lat = scattered(40, 1)
    distance = haversine_distances(np.radians(np.column_stack([lat, lon])))
    near = {i: np.argsort(distance[i])[1 : k + 1].tolist() for i in range(40)}
    for transformation in ("b", "r"):  # with as many neighbours everywhere it makes no difference
        w = weights.W(near, silence_warnings=True)
        expected = esda.Moran(values, w, transformation=transformation, permutations=0)
        found = station_morans_i(values, lon=lon, lat=lat, k=k, permutations=0)
        got = [float(found[name]) for name in ("i", "expected", "var_normal", "var_random")]
        assert_allclose(got, [expected.I, expected.EI, expected.VI_norm, expected.VI_rand], rtol=1e-10)
        assert np.isnan(found["p_value"])


def test_the_p_value_is_that_of_all_permutations():
    # 7 stations have 5040 orders. 20,000 of them drawn: a standard error of at most .0035, and .015 is more than 4 of them.
    from itertools import permutations

    values, lon, lat = scattered(7, 6)
    distance = haversine_distances(np.radians(np.column_stack([lat, lon])))
    near = np.argsort(distance, axis=1)[:, 1:3]
    z = values - values.mean()
    every = np.array([z[list(order)] for order in permutations(range(7))])
    top = np.einsum("ri,rik->r", every, every[:, near])
    exact = (top >= top[0] - 1e-9).mean()
    assert 0.05 < exact < 0.95
    found = station_morans_i(values, lon=lon, lat=lat, k=2, permutations=20_000, random_seed=3)
    assert abs(float(found["p_value"]) - exact) < 0.015


def test_p_values_are_small_for_structure_and_uniform_without_it():
    rng = np.random.default_rng(9)
    _, lon, lat = scattered(30, 2)
    p = [float(station_morans_i(rng.normal(size=30), lon=lon, lat=lat, permutations=99, random_seed=s)["p_value"])
         for s in range(300)]  # fmt: skip
    # 300 p values: the share below .2 has a standard error of .023, and .1 is more than 4 of them; so has the mean (.017).
    assert abs(np.mean(np.array(p) <= 0.2) - 0.2) < 0.1
    assert abs(np.mean(p) - 0.505) < 0.07
    assert station_morans_i(np.sin(lon / 3), lon=lon, lat=lat, random_seed=1)["p_value"] == 0.001


def test_station_morans_i_is_seeded_and_leaves_out_missing_stations():
    values, lon, lat = scattered(25, 3)
    with_gap = np.insert(values, 4, np.nan)
    one = station_morans_i(with_gap, lon=np.insert(lon, 4, 0.0), lat=np.insert(lat, 4, 50.0), random_seed=7)
    xr.testing.assert_identical(one, station_morans_i(values, lon=lon, lat=lat, random_seed=7))
    assert one["stations"] == 25


def test_many_stations_in_one_place_are_neighbours_of_each_other_and_never_of_themselves():
    values = np.array([1.0, 1.0, 1.0, 1.0, -2.0, -2.0, -2.0, -2.0])
    found = station_morans_i(values, lon=[0.0] * 4 + [90.0] * 4, lat=[0.0] * 8, k=2, random_seed=1)
    assert_allclose(found["i"], 1.0)
    alternating = station_morans_i([1.0, -1.0], lon=[0.0, 0.0], lat=[0.0, 0.0], k=1, permutations=0)
    assert_allclose(alternating["i"], -1.0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"residual": np.ones((2, 2))}, "one number a station"),
        ({"residual": np.ones(4)}, "all 4 residuals are 1"),
        ({"residual": [1.0, np.inf, 0.0, 2.0]}, "infinite"),
        ({"residual": [1.0, np.nan, np.nan, 2.0]}, "k is 2 for 2 stations with values"),
        ({"k": 0}, "at least 1"),
        ({"permutations": -1}, "whole number, 0 for none"),
        ({"lat": [0.0] * 3}, r"lat has shape \(3,\) for 4 stations"),
    ],
)
def test_residuals_that_are_refused(change, text):
    given_ = {"residual": [1.0, 2.0, 4.0, 3.0], "lon": [0.0, 1, 2, 3], "lat": [0.0] * 4, "k": 2} | change
    with pytest.raises(ValueError, match=text):
        station_morans_i(given_.pop("residual"), **given_)


def at_stations(seed=0, stations=12, rows=200):
    rng = np.random.default_rng(seed)
    site = rng.integers(0, stations, rows)
    observed = rng.normal(size=stations)[site] + rng.normal(size=rows) + 5.0
    return 0.6 * observed + 0.3 * rng.normal(size=rows), observed, site


def test_variance_ratio_equals_group_by():
    predicted, observed, site = at_stations()
    frame = pd.DataFrame({"p": predicted, "y": observed})
    mean = frame.groupby(site).transform("mean")
    temporal, spatial, total = (one.var(ddof=0) for one in (frame - mean, mean, frame))
    found = variance_ratio(predicted, observed, site=site, replicates=0)
    assert_allclose(found["ratio"], [one["p"] / one["y"] for one in (total, temporal, spatial)])
    assert_allclose(found["observed_variance"], [one["y"] for one in (total, temporal, spatial)])
    for name in ("predicted_variance", "observed_variance"):
        assert_allclose(found[name].sel(part="total"), found[name].sel(part=["temporal", "spatial"]).sum())
    assert np.isnan(found["low"]).all()


def test_variance_ratio_bootstraps_whole_stations():
    predicted, observed, site = at_stations(1, stations=8, rows=60)
    found = variance_ratio(predicted, observed, site=site, replicates=300, random_seed=2, level=0.8)
    count = np.random.default_rng(2).multinomial(8, np.full(8, 1 / 8), size=300)
    order = pd.factorize(site)[1]  # stations are numbered as they come
    ratios = []
    for drawn in count:
        rows = np.concatenate(
            [np.flatnonzero(site == s) for s, times in zip(order, drawn, strict=True) for _ in range(times)]
        )
        copy = np.concatenate(
            [np.full((site == s).sum(), s) for s, m in zip(order, drawn, strict=True) for _ in range(m)]
        )
        one = variance_ratio(predicted[rows], observed[rows], site=copy, replicates=0)
        ratios.append(one["ratio"].values)
    low, high = np.quantile(ratios, [0.1, 0.9], axis=0)
    assert_allclose(found["low"], low)
    assert_allclose(found["high"], high)


def test_a_conditional_mean_has_the_explained_variance_and_draws_have_all_of_it():
    # y = f + e with variances 1 and 1, 40,000 rows at 400 stations: standard errors of the ratios are below 1 %.
    rng = np.random.default_rng(3)
    site = np.repeat(np.arange(400), 100)
    f = rng.normal(size=40_000)
    observed = f + rng.normal(size=40_000)
    of_mean = variance_ratio(f, observed, site=site, random_seed=1).sel(part="temporal")
    assert_allclose(of_mean["ratio"], 0.5, atol=0.03)
    of_draw = variance_ratio(f + rng.normal(size=40_000), observed, site=site, random_seed=1).sel(part="temporal")
    assert_allclose(of_draw["ratio"], 1.0, atol=0.05)
    assert of_mean["low"] < of_mean["ratio"] < of_mean["high"] < of_draw["low"]


def test_the_interval_of_the_variance_ratio_covers_the_truth():
    # 40 stations of 30 rows, 200 tables: intervals that cover at 88 % do so for fewer than 79 % or more than 96 % of 200
    # with chance below 1e-3 for each of three parts.
    rng = np.random.default_rng(4)
    n, site, inside = 30, np.repeat(np.arange(40), 30), np.zeros(3)
    of_rows, of_sites = np.array([0.6, 1.0]), np.array([0.5, 1.0])  # variances predicted and observed
    temporal, spatial = of_rows * (1 - 1 / n), of_sites + of_rows / n
    truth = [one[0] / one[1] for one in (temporal + spatial, temporal, spatial)]
    for seed in range(200):
        y_site, y = rng.normal(size=40), rng.normal(size=1200)
        f_site = 0.6 * y_site + np.sqrt(0.5 - 0.36) * rng.normal(size=40)
        f = 0.7 * y + np.sqrt(0.6 - 0.49) * rng.normal(size=1200)
        one = variance_ratio(f_site[site] + f, y_site[site] + y, site=site, replicates=200, random_seed=seed)
        inside += (one["low"].values <= truth) & (truth <= one["high"].values)
    assert (inside > 0.79 * 200).all()
    assert (inside < 0.96 * 200).all()


def test_variance_ratio_forgets_units_and_leaves_out_incomplete_rows():
    predicted, observed, site = at_stations(5)
    expected = variance_ratio(predicted, observed, site=site, random_seed=1)
    far = variance_ratio(1e6 + 10 * predicted, 1e6 + 10 * observed, site=site, random_seed=1)
    assert_allclose(far["ratio"], expected["ratio"], rtol=1e-6)
    predicted, observed = np.append(predicted, [np.nan, 3.0]), np.append(observed, [2.0, np.nan])
    xr.testing.assert_identical(
        variance_ratio(predicted, observed, site=np.append(site, [0, 99]), random_seed=1), expected
    )


def test_variance_ratio_without_variance_in_a_part():
    with pytest.warns(UserWarning, match=r"no temporal variance \(3 rows of 3 stations\)"):
        found = variance_ratio([1.0, 2.0, 3.0], [1.1, 2.3, 0.7], site=["a", "b", "c"], random_seed=1)
    assert np.isnan(found["ratio"].sel(part="temporal"))
    with pytest.warns(UserWarning, match="no spatial variance"):
        variance_ratio([1.0, 2.0, 5.0, 6.0], [0.1, 0.3, 0.3, 0.1], site=["a", "a", "b", "b"], random_seed=1)
    rng = np.random.default_rng(1)  # the same numbers at each station, added up in other orders
    observed = rng.permuted(np.tile(np.r_[rng.normal(size=19), 0.1], (9, 1)), axis=1).ravel()
    with pytest.warns(UserWarning, match="no spatial variance"):
        variance_ratio(rng.normal(size=180), observed, site=np.repeat(np.arange(9), 20), random_seed=1)
    for args, text in [
        (([1.0, 2.0], [1.0, 2.0], ["a", "a"]), "two stations at least"),
        (([1.0, 2.0], [1.0, 1.0], ["a", "b"]), "all 2 observations are 1"),
        (([1.0, 2.0], [1.0, 1.0, 3.0], ["a", "b"]), "one value a row in each"),
        (([1.0, np.inf], [1.0, 1.0], ["a", "b"]), "infinite"),
        (([1.0, 2.0], [1.0, 2.0], [None, "b"]), "have no station"),
        (([np.nan, 2.0], [1.0, np.nan], ["a", "b"]), "0 of 2 rows have both values"),
    ]:
        with pytest.raises(ValueError, match=text):
            variance_ratio(*args[:2], site=args[2])
