"""Area of applicability against brute force, the box plot of matplotlib, and the stations and grid of OzNet."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.cbook import boxplot_stats
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist, pdist

from bayesens.members import applicability as module
from bayesens.members.applicability import applicability
from shared_data import shared_data

IMPORTANCE = {"dem": 2.0, "rain": 0.5, "clay": 1.0}


def covariates(rng, n, shift=0.0):
    return pd.DataFrame(
        {"dem": rng.normal(500 + 200 * shift, 100, n), "rain": rng.gamma(2.0, 3.0, n), "clay": rng.random(n) + shift}
    )


def by_loops(train, fold, importance, new):
    """Index of new points, index of training points to other folds: every distance one by one."""
    names = list(importance.index)
    x, z = (((table - train.mean()) / train.std() * importance)[names].to_numpy() for table in (train, new))

    def distance(a, b):
        return np.sqrt(np.sum((a - b) ** 2))

    mean = np.mean([distance(x[i], x[j]) for i in range(len(x)) for j in range(i)])
    index = [min(distance(a, b) for b in x) / mean for a in z]
    own = [min(distance(x[i], x[j]) for j in range(len(x)) if fold[i] != fold[j]) / mean for i in range(len(x))]
    return np.array(index), np.array(own)


@pytest.mark.parametrize("block", [7, 2048])
def test_index_is_that_of_brute_force(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    rng = np.random.default_rng(1)
    train, new, fold = covariates(rng, 41), covariates(rng, 30, shift=0.4), rng.integers(0, 5, 41)
    area = applicability(train, fold=fold, importance=IMPORTANCE, progressbar=False)
    index, own = by_loops(train, fold, pd.Series(IMPORTANCE), new)
    found = area.table(new)
    assert_allclose(found["dissimilarity"], index, rtol=1e-12, atol=1e-12)
    assert_allclose(area.train_index, own, rtol=1e-12, atol=1e-12)
    # With 4 k + 1 values, Tukey's hinges are the quartiles that matplotlib's whiskers start from.
    assert_allclose(area.threshold, boxplot_stats(own)[0]["whishi"], rtol=1e-12)
    assert_array_equal(found["inside"], (index <= area.threshold).astype(float))
    assert 0.0 < found["inside"].mean() < 1.0


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=40).filter(lambda x: len(x) % 4 == 1))
@settings(derandomize=True, max_examples=50, deadline=None)
def test_whisker_is_that_of_a_box_plot(values):
    assert_allclose(module.whisker(values), boxplot_stats(values)[0]["whishi"])


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
@settings(derandomize=True, max_examples=20, deadline=None)
def test_units_and_the_scale_of_importance_do_not_matter(seed, scale, shift):
    rng = np.random.default_rng(seed)
    train, new, fold = covariates(rng, 20), covariates(rng, 9), np.arange(20) % 4
    first = applicability(train, fold=fold, importance=IMPORTANCE, progressbar=False)
    other = applicability(
        train.assign(dem=scale * train["dem"] + shift),
        fold=fold, importance={name: 7.0 * value for name, value in IMPORTANCE.items()}, progressbar=False,
    )  # fmt: skip
    moved = new.assign(dem=scale * new["dem"] + shift)
    assert_allclose(other.table(moved)["dissimilarity"], first.table(new)["dissimilarity"], rtol=1e-7)
    assert_allclose(other.threshold, first.threshold, rtol=1e-7)


def test_training_rows_are_similar_to_themselves_and_missing_stays_missing():
    train = covariates(np.random.default_rng(2), 30)
    area = applicability(train, fold=np.arange(30) % 3, progressbar=False)
    assert_allclose(area.table(train)["dissimilarity"], 0.0, atol=1e-12)
    new = train.iloc[:3].assign(rain=[np.nan, 1.0, 2.0]).set_axis(["p", "q", "r"])
    found = area.table(new)
    assert found.isna().all(axis=1).tolist() == [True, False, False]
    assert found.index.tolist() == ["p", "q", "r"]


@pytest.mark.parametrize("chunks", [None, {"time": 1, "y": 2}])
def test_grid_is_the_table_cell_by_cell(chunks):
    rng = np.random.default_rng(3)
    area = applicability(covariates(rng, 50), fold=np.arange(50) % 5, importance=IMPORTANCE, progressbar=False)
    grid = xr.Dataset(
        {
            "clay": (("y", "x"), rng.random((3, 4)).astype(np.float32)),
            "dem": (("y", "x"), rng.normal(500, 300, (3, 4))),
            "rain": (("time", "y", "x"), rng.gamma(2.0, 3.0, (2, 3, 4))),
        },
        {"time": [1, 2], "y": [3.0, 2.0, 1.0], "x": np.arange(4)},
    )
    grid["rain"][0, 1, 2] = np.nan
    found = area.grid(grid if chunks is None else grid.chunk(chunks))
    assert (found["dissimilarity"].chunks is None) == (chunks is None)
    assert found["dissimilarity"].dims == ("time", "y", "x")
    expected = area.table(grid.to_dataframe(dim_order=["time", "y", "x"])[list(IMPORTANCE)])
    for name in ("dissimilarity", "inside"):
        assert_allclose(found[name].values.ravel(), expected[name].to_numpy(), rtol=1e-12)
    assert np.isnan(found["inside"].values[0, 1, 2])
    with pytest.raises(KeyError, match="no covariate 'rain' in the dataset"):
        area.grid(grid.drop_vars("rain"))
    with pytest.raises(TypeError, match=r"'clay' hold no numbers.*get_dummies"):
        area.grid(grid.assign(clay=grid["clay"].astype(str)))


def test_constant_and_unimportant_covariates_do_not_count():
    rng = np.random.default_rng(4)
    train, new, fold = covariates(rng, 25), covariates(rng, 10), np.arange(25) % 5
    plain = applicability(train, fold=fold, importance={"dem": 1.0, "rain": 3.0}, progressbar=False)
    more = {"dem": 1.0, "rain": 3.0, "clay": 0.0, "albedo": 5.0}
    with pytest.warns(UserWarning, match="'albedo' are constant in the training data and left out"):
        other = applicability(train.assign(albedo=0.2), fold=fold, importance=more, progressbar=False)
    assert other.covariates == ("dem", "rain")
    assert_allclose(other.table(new), plain.table(new))
    with pytest.warns(UserWarning, match="importance of 'clay' is below zero"):
        applicability(train, fold=fold, importance=IMPORTANCE | {"clay": -0.1}, progressbar=False)
    with pytest.raises(ValueError, match="both varies and has an importance above zero"):
        applicability(train, fold=fold, importance={"dem": 0.0}, progressbar=False)


def test_bad_training_data_are_refused():
    train = covariates(np.random.default_rng(5), 12)

    def fails(kind, text, table=train, **options):
        with pytest.raises(kind, match=text):
            applicability(table, **{"fold": np.arange(12) % 3, "progressbar": False} | options)

    fails(TypeError, "'soil' hold no numbers.*get_dummies", train.assign(soil="loam"))
    fails(TypeError, "'soil' hold no numbers", train.assign(soil=pd.Categorical([1] * 12)))
    fails(TypeError, "'soil' hold no numbers", train.assign(soil=True))
    fails(ValueError, "'dem' is infinite in 12 of 12 rows", train.assign(dem=np.inf))
    fails(ValueError, "the 12 complete training rows lie in one fold", fold=np.zeros(12))
    with pytest.warns(UserWarning, match="12 of 12 training rows have a missing covariate"):
        fails(ValueError, "the 0 complete training rows lie in one fold or none", train.assign(dem=np.nan))
    fails(ValueError, "fold has 3 values and X 12 rows", fold=[1, 2, 3])
    fails(ValueError, "fold has other row labels than X", fold=pd.Series(np.arange(12), index=np.arange(1, 13)))
    fails(KeyError, "no column 'folds'", fold="folds")
    fails(TypeError, "names that are no text; rename them", train.rename(columns={"dem": 3}))
    fails(ValueError, "there are no covariates", covariates=[])
    fails(ValueError, "1 of 12 training rows have no fold", fold=[None, *"abcdabcdabc"])
    fails(KeyError, "no importance of covariate 'clay'", covariates=["clay"], importance={"dem": 1.0})
    fails(ValueError, "missing or infinite values", importance={"dem": np.nan})
    fails(KeyError, "no column 'den'", covariates=["den"])
    fails(TypeError, "covariates is the text 'dem'", covariates="dem")
    with pytest.warns(UserWarning, match="2 of 12 training rows have a missing covariate"):
        area = applicability(
            train.assign(dem=train["dem"].where(train.index > 1), fold=np.arange(12) % 3),
            fold="fold",
            progressbar=False,
        )
    assert area.train_index.index.tolist() == list(range(2, 12))
    assert area.covariates == ("dem", "rain", "clay")


def test_a_distributed_grid_is_not_computed_before_it_is_asked_for():
    area = applicability(covariates(np.random.default_rng(6), 20), fold=np.arange(20) % 4, progressbar=False)
    dask = pytest.importorskip("dask.array")

    def refuse(block):
        raise AssertionError("computed")

    values = dask.ones((4, 4), chunks=2).map_blocks(refuse, dtype=float, meta=np.ones((0, 0)))
    found = area.grid(xr.Dataset(dict.fromkeys(area.covariates, (("y", "x"), values))))
    assert found["inside"].chunks == ((2, 2), (2, 2))
    with pytest.raises(AssertionError, match="computed"):
        found["inside"].compute()


def test_cells_of_oznet_are_those_of_brute_force():
    """Every tenth day of the stations, the folds of the data's authors; a map of one day, with hills that no station sees."""
    table = pd.read_csv(shared_data("oznet", "oznet_daily.csv.gz"), parse_dates=["time"])
    table = table[
        ~table["insitu_is_copy_of_y7"] & table["insitu_sm"].notna() & (table["time"].dt.day_of_year % 10 == 0)
    ]
    table = table.rename(columns={"et_100m": "et", "lst_interp_1km": "lst"})
    names = ["rain", "srad", "tavg", "vpd", "et", "lst", "awc", "dem"]
    table = table.dropna(subset=names)
    grid = xr.load_dataset(shared_data("oznet", "grid_20160205_1km.nc")).isel(lat=slice(None, None, 2))
    weight = pd.Series([1.0, 2.0, 1.0, 0.5, 1.0, 3.0, 1.0, 4.0], index=names)
    area = applicability(table, fold="spatial_fold", importance=weight, progressbar=False)
    found = area.grid(grid.chunk(lat=20))

    train, cells = (
        table[names].to_numpy(float),
        grid[names].to_dataframe(dim_order=["lat", "lon"])[names].to_numpy(float),
    )
    center, scale = train.mean(axis=0), weight.to_numpy() / train.std(axis=0, ddof=1)
    train, cells = (train - center) * scale, (cells - center) * scale
    mean, fold = pdist(train).mean(), table["spatial_fold"].to_numpy()
    expected = np.concatenate([cdist(part, train).min(axis=1) for part in np.array_split(cells, 20)]) / mean
    assert_allclose(found["dissimilarity"].values.ravel(), expected, rtol=1e-9, atol=1e-9)
    own = np.array([cdist(train[i : i + 1], train[fold != fold[i]]).min() for i in range(len(train))]) / mean
    assert_allclose(area.train_index, own, rtol=1e-9)
    # Quartiles by hinges and by interpolation differ by less than one gap between neighbours among these many.
    low, high = np.quantile(own, [0.25, 0.75])
    assert_allclose(area.threshold, own[own <= high + 1.5 * (high - low)].max(), rtol=0.01)
    assert_array_equal(np.isnan(expected), found["inside"].isnull().values.ravel())
    highest = table["dem"].max()
    assert highest < 140.0
    assert not found["inside"].where(grid["dem"] > 250.0, 0.0).any()
    assert 0.05 < float(found["inside"].mean()) < 0.6
