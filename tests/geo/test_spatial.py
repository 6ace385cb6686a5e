"""Moran's I, variograms and variances of maps and stations against esda, brute force and closed forms."""

import time
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter
from scipy.stats import t as student
from sklearn.metrics.pairwise import haversine_distances

from bayesens.comparison.bands import BANDS
from bayesens.ensemble.sphere import EARTH_RADIUS, great_circle
from bayesens.geo.spatial import map_table, morans_i
from bayesens.geo.station_patterns import station_morans_i, variance_ratio
from bayesens.geo.variogram import grid_variogram, station_variogram

QUIET = {"bands": ["all"], "progressbar": False}


def neighbours_of(inside):
    """Rook neighbours of the cells of a set, by number in row order: the plain double loop."""
    cells = list(zip(*np.nonzero(inside), strict=True))
    return {
        i: [j for j, b in enumerate(cells) if abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1] for i, a in enumerate(cells)
    }


def esda_of(x, inside, transformation="b"):
    esda, weights = pytest.importorskip("esda"), pytest.importorskip("libpysal.weights")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of islands
        w = weights.W(neighbours_of(inside), silence_warnings=True)
        return esda.Moran(x[inside], w, transformation=transformation, permutations=0)


def brute_force(x, weight):
    z = x - x.mean()
    top = sum(weight[i, j] * z[i] * z[j] for i in range(len(z)) for j in range(len(z)))
    return len(z) / weight.sum() * top / (z @ z)


def weights_of(inside, row_standardised=False):
    near = neighbours_of(inside)
    weight = np.zeros((len(near), len(near)))
    for i, others in near.items():
        for j in others:
            weight[i, j] = 1.0 / len(others) if row_standardised else 1.0
    return weight


def rough(shape, seed, gaps=0.0):
    rng = np.random.default_rng(seed)
    x = gaussian_filter(rng.normal(size=shape), 1.0) + 0.2 * rng.normal(size=shape) + 3.0
    return np.where(rng.random(shape) < gaps, np.nan, x)


# --------------------------------------------------------------------------------------------------- Moran's I on grids
@pytest.mark.parametrize("row_standardised", [False, True])
@pytest.mark.parametrize(("shape", "gaps"), [((9, 7), 0.0), ((12, 15), 0.3), ((14, 11), 0.65), ((1, 30), 0.1)])
def test_morans_i_equals_esda_by_band(shape, gaps, row_standardised):
    x = rough(shape, 3, gaps)
    found = morans_i(x, row_standardised=row_standardised)
    for k, (low, high) in enumerate([(0, 1), (0, 0.15), (0.15, 0.85), (0.85, 1)]):
        one = found.isel(band=k)
        inside = (x >= np.nanquantile(x, low)) & (x <= np.nanquantile(x, high))
        assert one["cells"] == inside.sum()
        if not weights_of(inside).any():
            assert one["undefined"] == 3
            assert np.isnan(one["i"])
            continue
        expected = esda_of(x, inside, "r" if row_standardised else "b")
        got = [float(one[name]) for name in ("i", "expected", "var_normal", "var_random")]
        assert_allclose(got, [expected.I, expected.EI, expected.VI_norm, expected.VI_rand], rtol=1e-10, atol=1e-12)
        assert_allclose(one["neighbours"], weights_of(inside).sum() / inside.sum())
        assert_allclose([one["mean"], one["sd"]], [x[inside].mean(), x[inside].std()])
        assert_allclose(one["cv"], x[inside].std() / x[inside].mean())


def test_masked_grids_of_the_test_above_have_islands():
    x = rough((14, 11), 3, 0.65)
    degrees = weights_of(np.isfinite(x)).sum(axis=0)
    assert (degrees == 0).sum() > 3
    assert (degrees > 0).sum() > 20


@pytest.mark.parametrize("row_standardised", [False, True])
def test_morans_i_equals_a_double_loop_on_20_by_20_cells(row_standardised):
    x = rough((20, 20), 8, 0.2)
    inside = np.isfinite(x)
    expected = brute_force(x[inside], weights_of(inside, row_standardised))
    got = morans_i(x, bands=["all"], row_standardised=row_standardised)["i"]
    assert_allclose(got, [expected], rtol=1e-12)


@given(arrays(np.float64, (5, 4), elements=st.one_of(st.just(np.nan), st.floats(-1e3, 1e3).map(lambda v: round(v, 2)))))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_any_small_map_equals_the_double_loop_and_forgets_shift_scale_and_orientation(x):
    inside = np.isfinite(x)
    assume(inside.sum() > 1 and np.ptp(x[inside]) > 0 and weights_of(inside).any())
    expected = brute_force(x[inside], weights_of(inside))
    for view in (x, x.T, x[::-1], 7.0 - 3.0 * x, 1e150 * x, 1e-150 * x):
        assert_allclose(morans_i(view, **QUIET)["i"], [expected], rtol=1e-9, atol=1e-9)


def test_a_map_without_pattern_has_the_expectation_and_variance_stated():
    # The mean of 2000 values differs from -1 / 79 by more than 4 of its standard errors with chance 6e-5; the ratio of
    # variances has a standard error of 3.2 %, and 13 % is 4 of them.
    rng = np.random.default_rng(5)
    maps = xr.DataArray(rng.normal(size=(2000, 8, 10)), dims=("draw", "y", "x"))
    found = morans_i(maps, **QUIET).isel(band=0)
    stated = float(found["var_normal"][0])
    assert abs(float(found["i"].mean()) + 1 / 79) < 4 * np.sqrt(stated / 2000)
    assert_allclose(found["i"].var(), stated, rtol=0.13)
    permuted = rng.permuted(np.tile(np.exp(maps[0].values).ravel(), (2000, 1)), axis=1).reshape(2000, 8, 10)
    found = morans_i(maps.copy(data=permuted), **QUIET).isel(band=0)
    assert_allclose(found["i"].var(), found["var_random"][0], rtol=0.13)


@pytest.mark.parametrize("row_standardised", [False, True])
def test_the_jackknife_leaves_out_blocks_as_recomputing_does(row_standardised):
    x, side, level = rough((13, 9), 11, 0.25), 4, 0.8
    inside = np.isfinite(x)
    where = np.nonzero(inside)
    label = (where[0] // side) * 100 + where[1] // side
    weight, values = weights_of(inside, row_standardised), x[inside]
    i, n, blocks = brute_force(values, weight), len(values), np.unique(label)
    theta, pseudo, h = [], [], []
    for b in blocks:
        rest = label != b
        z = values - values[rest].mean()
        top = sum(weight[p, q] * z[p] * z[q] for p in np.flatnonzero(rest) for q in range(n))
        theta.append(rest.sum() / weight[rest].sum() * top / (z[rest] @ z[rest]))
        h.append(n / (label == b).sum())
        pseudo.append(h[-1] * i - (h[-1] - 1) * theta[-1])
    h, g = np.array(h), len(blocks)
    center = g * i - sum((1 - 1 / h) * theta)
    half = student.ppf(0.5 + level / 2, g - 1) * np.sqrt(np.mean((np.array(pseudo) - center) ** 2 / (h - 1)))
    found = morans_i(x, bands=["all"], block=side, level=level, row_standardised=row_standardised).isel(band=0)
    assert_allclose([found["low"], found["high"]], [i - half, i + half], rtol=1e-9)


def test_the_interval_covers_the_value_of_the_field_behind_the_map():
    # 300 maps of smoothed white noise, in 16 blocks of 15 cells. Of 300 intervals that cover at 88 to 90 %, fewer than 81 %
    # or more than 96 % cover with chance below 1e-3; the sd of 300 values has a standard error of 4 %.
    rng = np.random.default_rng(2)
    maps = gaussian_filter(rng.normal(size=(300, 80, 80)), (0, 1.5, 1.5))[:, 10:70, 10:70]
    point = np.zeros((61, 61))
    point[30, 30] = 1.0
    kernel = gaussian_filter(point, 1.5)
    truth = (kernel[:, 1:] * kernel[:, :-1]).sum() / (kernel**2).sum()  # the field's correlation at one cell, I's limit
    found = morans_i(xr.DataArray(maps, dims=("draw", "y", "x")), bands=["all"], block=15, progressbar=False)
    covered = ((found["low"] <= truth) & (truth <= found["high"])).mean()
    assert 0.81 < covered < 0.96
    half = float((found["high"] - found["low"]).mean()) / 2
    assert_allclose(half / student.ppf(0.95, 15), found["i"].std(), rtol=0.2)


def test_bands_of_a_fixed_cell_set():
    x, y = rough((15, 12), 1, 0.1), rough((15, 12), 2, 0.1)
    found = morans_i(x, band_of=y, bands=["low", (0.85, 1.0)])
    for k, (low, high) in enumerate([(0, 0.15), (0.85, 1)]):
        inside = np.isfinite(x) & (y >= np.nanquantile(y, low)) & (y <= np.nanquantile(y, high))
        assert found["cells"][k] == inside.sum()
        assert_allclose(found["i"][k], brute_force(x[inside], weights_of(inside)))
    xr.testing.assert_identical(morans_i(x, band_of=x), morans_i(x))


@pytest.mark.parametrize("chunks", [{"time": 2, "y": 5, "x": 4}, {"time": -1, "y": -1, "x": -1}])
def test_dask_gives_what_numpy_gives_one_map_at_a_time(chunks):
    cube = xr.DataArray(
        np.stack([rough((12, 9), s, 0.1) for s in range(5)]), dims=("time", "y", "x"), coords={"time": range(5)}
    )
    reference = cube.isel(time=0, drop=True)
    for band_of in (None, reference, cube + 1.0):
        by_chunk = None if band_of is None else band_of.chunk({d: chunks[d] for d in band_of.dims})
        expected = morans_i(cube, band_of=band_of, progressbar=False)
        got = morans_i(cube.chunk(chunks).transpose("y", "time", "x"), band_of=by_chunk, progressbar=False)
        assert got["i"].dims == ("time", "band")
        assert got["i"].chunks is None
        xr.testing.assert_identical(expected, got)
    xr.testing.assert_equal(
        morans_i(cube.isel(time=3, drop=True), progressbar=False),
        morans_i(cube, progressbar=False).isel(time=3, drop=True),
    )


def test_the_progress_bar_changes_nothing(capsys):
    cube = xr.DataArray(np.stack([rough((6, 5), s) for s in range(3)]), dims=("time", "y", "x"))
    for each in (cube, cube.chunk(time=1)):
        xr.testing.assert_identical(morans_i(each), morans_i(each, progressbar=False))


def test_single_precision_far_from_zero_gives_the_double_precision_answer():
    x = 280.0 + rough((300, 200), 4, 0.05)
    single, double = (morans_i(x.astype(kind), progressbar=False) for kind in (np.float32, np.float64))
    assert_allclose(single["i"], double["i"], atol=1e-6)
    assert_allclose(single["cv"], double["cv"], atol=1e-6)
    x = x.astype(np.float32)  # the very same numbers
    xr.testing.assert_identical(morans_i(x), morans_i(x.astype(np.float64)))


def test_masked_arrays_and_whole_numbers():
    x = np.arange(12).reshape(3, 4)
    masked = np.ma.masked_greater(x, 9)
    assert_allclose(morans_i(masked, **QUIET)["i"], morans_i(np.where(x > 9, np.nan, x), **QUIET)["i"])
    assert morans_i(masked, **QUIET)["cells"] == 10


def test_undefined_bands_are_missing_and_say_why():
    x = np.array([[0.0, 0, 0, 0, 0, 5], [9, 1, 2, 3, 4, 6]])
    found = morans_i(x, bands=[(0, 0.3), (0.97, 1), (0.9, 1), "all"])
    assert found["undefined"].values.tolist() == [2, 1, 3, 0]  # zeros; the 9 alone; 9 and 6 apart
    assert np.isnan(found["i"].values[:3]).all()
    assert np.isnan(found["low"].values[:3]).all()
    assert found["cells"].values.tolist() == [5, 1, 2, 12]
    assert found["sd"].values[0] == 0.0
    assert found["undefined"].attrs["flag_meanings"].split()[3] == "no_neighbours"


def test_a_day_without_values_is_missing_and_the_others_stay():
    cube = xr.DataArray(np.stack([rough((6, 5), 1), np.full((6, 5), np.nan)]), dims=("time", "lat", "lon"))
    found = morans_i(cube, progressbar=False)
    assert found["undefined"].sel(band="0-100 %").values.tolist() == [0, 1]
    assert np.isfinite(found["i"].values[0]).all()
    assert found["cells"].values[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("field", "options", "error", "text"),
    [
        (np.full((3, 4), np.nan), {}, ValueError, "undefined in every band .*fewer than two cells; 0 cells"),
        (np.full((3, 4), 0.1), {}, ValueError, "undefined in every band .*0-100 %: constant.*; 12 cells"),
        (np.array([[1.0, np.nan], [np.nan, 2.0]]), {"bands": ["all"]}, ValueError, "0-100 %: no neighbours"),
        (np.arange(5.0), {}, ValueError, r"has shape \(5,\); wanted \(y, x\)"),
        (np.zeros((2, 3, 4)), {}, ValueError, "a DataArray whose dimensions have names"),
        (np.zeros((0, 3)), {}, ValueError, "has no cells: 'y' has length 0"),
        (np.array([["a", "b"]]), {}, TypeError, "wanted numbers"),
        (np.array([[1.0, np.inf], [0.0, 1.0]]), {}, ValueError, "infinite values"),
        (
            xr.DataArray(np.eye(3), dims=("row", "col")),
            {},
            ValueError,
            "'row', 'col'; wanted 'y' and 'x': say which two",
        ),
        (np.eye(3), {"band_of": np.eye(4)}, ValueError, r"band_of has the sizes .*; give maps on one grid"),
        (np.eye(3), {"bands": (0.0, 1.0)}, ValueError, "wanted a list of bands"),
        (np.eye(3), {"bands": []}, ValueError, "wanted a list of bands"),
        (np.eye(3), {"bands": [(0.5, 0.2)]}, ValueError, "levels of a band increase"),
        (np.eye(3), {"bands": ["middle"]}, KeyError, "there is no band 'middle'"),
        (np.eye(3), {"level": 90}, ValueError, r"inside \(0, 1\)"),
        (np.eye(3), {"block": 0}, ValueError, "at least 1"),
    ],
)
def test_maps_that_are_refused(field, options, error, text):
    with pytest.raises(error, match=text):
        morans_i(field, **options)


def test_references_that_are_refused():
    x = xr.DataArray(np.eye(3), dims=("y", "x"), coords={"x": [0.0, 1.0, 2.0]})
    with pytest.raises(ValueError, match=r"other coordinates than the first map.*interp_like"):
        morans_i(x, band_of=x.assign_coords(x=[0.0, 1.0, 2.5]))
    with pytest.raises(ValueError, match="'time' that the first map lacks"):
        morans_i(x, band_of=x.expand_dims(time=2))
    renamed = x.rename(x="east", y="north")
    assert_allclose(morans_i(renamed, dims=("north", "east"), bands=["all"])["i"], morans_i(x, bands=["all"])["i"])


# ------------------------------------------------------------------------------------------------------------ the table
def test_the_table_has_the_layout_of_table_s3():
    maps = {"ESA CCI": gaussian_filter(rough((30, 20), 1), 3) + 1, "RF": rough((30, 20), 1), "BMA": rough((30, 20), 2)}
    table = map_table(maps)
    assert table.columns.tolist() == list(maps)
    assert table.index.tolist()[:5] == [
        ("CV", "0-100 %"), ("Moran's I", "0-100 %"), ("Moran's I", "0-15 %"), ("Moran's I", "15-85 %"),
        ("Moran's I", "85-100 %"),
    ]  # fmt: skip
    for name, x in maps.items():
        assert_allclose(table[name]["CV"], x.std() / x.mean())
        assert_allclose(table[name]["Moran's I"], morans_i(x)["i"])
        assert_allclose(table[name]["neighbours"], morans_i(x)["neighbours"])
        assert (table[name]["low"] < table[name]["high"]).all()
    assert table.index.get_level_values(0).unique().tolist() == [
        "CV",
        "Moran's I",
        "low",
        "high",
        "cells",
        "neighbours",
    ]


def test_the_table_takes_cells_that_all_products_have_and_one_products_bands():
    x, y = rough((20, 20), 1, 0.2), rough((20, 20), 2, 0.2)
    both = np.isfinite(x + y)
    table = map_table({"x": x, "y": y}, band_of="y")
    assert (table["x"]["cells"] == table["y"]["cells"]).all()
    inside = both & (y <= np.quantile(y[both], 0.15))
    assert_allclose(table.loc[("Moran's I", "0-15 %"), "x"], brute_force(x[inside], weights_of(inside)))
    assert_allclose(table.loc[("CV", "0-100 %"), "x"], x[both].std() / x[both].mean())
    pd.testing.assert_frame_equal(table, map_table({"x": x, "y": y}, band_of=y))


def test_the_table_goes_on_where_a_band_has_no_value():
    x = rough((6, 6), 1)
    flat = np.where(x > np.median(x), x, 0.0)
    with pytest.warns(UserWarning, match="the map 'flat' has no Moran's I in the band 0-15 %: constant"):
        table = map_table({"x": x, "flat": flat})
    assert np.isnan(table.loc[("Moran's I", "0-15 %"), "flat"])
    assert table["x"].loc[["Moran's I"]].notna().all()


def test_tables_that_are_refused():
    x = np.eye(4)
    with pytest.raises(ValueError, match="maps is empty"):
        map_table({})
    with pytest.raises(KeyError, match="no map 'BMB' in maps; did you mean 'BMA'"):
        map_table({"BMA": x}, band_of="BMB")
    with pytest.raises(ValueError, match="the map 'b' has the sizes"):
        map_table({"a": x, "b": np.eye(5)})
    with pytest.raises(ValueError, match="'b' has the further dimensions 'time'"):
        map_table({"a": x, "b": xr.DataArray(np.ones((2, 4, 4)), dims=("time", "y", "x"))})
    with pytest.raises(ValueError, match="no cell of 4 has a value in every map"):
        map_table({"a": np.array([[1.0, np.nan]] * 2), "b": np.array([[np.nan, 1.0]] * 2)})
    with pytest.raises(ValueError, match="the map 'flat': Moran's I is undefined in every band"):
        map_table({"a": x, "flat": np.ones((4, 4))}, bands=["all"])


def test_the_bands_are_those_of_the_other_tables():
    assert morans_i(rough((9, 9), 1), bands=list(BANDS))["band"].values.tolist() == [
        "0-100 %", "0-15 %", "15-85 %", "85-100 %",
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- variograms
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


# ------------------------------------------------------------------------------------------------- patterns at stations
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


@pytest.mark.benchmark
def test_three_million_cells_in_four_bands_within_a_second():
    x = rough((3000, 1000), 1, 0.05)
    morans_i(x[:50, :50])  # compiled
    start = time.perf_counter()
    morans_i(x)
    assert time.perf_counter() - start < 1.0


def test_bands_of_a_map_and_of_its_copy_in_other_units_hold_the_same_cells():
    x = rough((25, 25), 3, 0.1)
    one, other = morans_i(x), morans_i(100.0 * x)
    assert_array_equal(one["cells"], other["cells"])
    assert_allclose(one["i"], other["i"])
