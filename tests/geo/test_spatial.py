"""Moran's I of maps, by band, and its table against esda, brute force and closed forms."""

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
from rough_maps import rough
from scipy.ndimage import gaussian_filter
from scipy.stats import t as student

from bayesens.comparison.bands import BANDS
from bayesens.geo.spatial import map_table, morans_i

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
