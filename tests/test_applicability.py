"""Area of applicability against brute force, coverage against scipy, weights against known density ratios."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.cbook import boxplot_stats
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from bayesens import applicability as module
from bayesens.applicability import (
    DomainWeights,
    applicability,
    covariate_coverage,
    domain_weights,
    weighted_scores,
)

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
    with pytest.raises(TypeError, match=r"'clay' hold.s. no numbers.*get_dummies"):
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
    fails(ValueError, "lie in one fold", fold=np.zeros(12))
    fails(ValueError, "fold has 3 labels; wanted one for each of the 12", fold=[1, 2, 3])
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


# Coverage ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.lists(st.integers(-8, 8), min_size=1, max_size=30))
@settings(derandomize=True, max_examples=50, deadline=None)
def test_coverage_is_that_of_scipy(a, b):
    stations, domain = (pd.DataFrame({"x": np.array(values, dtype=float) / 2}) for values in (a, b))
    found = covariate_coverage(stations, domain).loc["x"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_allclose(found["ks"], stats.ks_2samp(stations["x"], domain["x"]).statistic, atol=1e-12)
    assert_allclose(found["wasserstein"], stats.wasserstein_distance(stations["x"], domain["x"]), atol=1e-12)
    assert_allclose(found["outside"], np.mean([not min(a) <= value <= max(a) for value in b]))


def test_coverage_passes_over_missing_values_and_names_what_is_empty():
    stations, domain = pd.DataFrame({"x": [0.0, np.nan, 1.0]}), pd.DataFrame({"x": [0.0, 1.0, np.nan]})
    assert covariate_coverage(stations, domain).loc["x"].tolist() == [0.0, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="'x' is missing in the domain throughout"):
        covariate_coverage(stations, domain * np.nan)


# Weights -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "worst"), [("logistic", 0.1), ("boosting", 0.35)])
def test_weights_are_the_known_density_ratio(method, worst):
    """N(0, 1) at 4,000 rows against N(.5, .8): mean absolute error of the weights, whose mean is 1. Over seeds 0 to 19 it stayed
    below .06 (logistic) and .25 (boosting)."""
    rng = np.random.default_rng(1)
    stations, domain = pd.DataFrame({"x": rng.normal(size=4000)}), pd.DataFrame({"x": rng.normal(0.5, 0.8, 4000)})
    found = domain_weights(stations, domain, method=method, random_seed=1)
    truth = stats.norm.pdf(stations["x"], 0.5, 0.8) / stats.norm.pdf(stations["x"])
    assert np.abs(found.weight - truth / truth.mean()).mean() < worst
    assert_allclose(found.weight.mean(), 1.0)
    assert_allclose(found.ess, found.weight.sum() ** 2 / (found.weight**2).sum())
    # The weighted mean of x is that of the domain; unweighted it is 0.
    score = weighted_scores(stations.rename(columns={"x": "score"}), found).loc["score"]
    assert_allclose(score["weighted"], 0.5, atol=0.1)
    assert_allclose(score["mean"], stations["x"].mean())
    assert 0.6 < found.auc < 0.75


def test_weights_are_repeatable_and_rows_of_a_station_stay_together():
    rng = np.random.default_rng(2)
    stations, domain = covariates(rng, 300), covariates(rng, 300)
    stations["site"] = np.repeat([f"s{i}" for i in range(30)], 10)
    first, again = (domain_weights(stations, domain, site="site", random_seed=4) for _ in range(2))
    pd.testing.assert_series_equal(first.weight, again.weight)
    assert first.n == 30
    sums = first.weight.groupby(stations["site"]).sum()
    assert_allclose(first.ess, sums.sum() ** 2 / (sums**2).sum())
    folds = [
        first.weight.to_numpy(),
        domain_weights(stations, domain, random_seed=5, covariates=IMPORTANCE).weight.to_numpy(),
    ]
    assert not np.allclose(*folds)


def test_held_out_stations_are_unseen(monkeypatch):
    """Each row's weight comes from a classifier that was fitted without its station."""
    seen = []

    class Spy:
        def fit(self, x, y):
            self.stations = set(x[y == 0, 0])

        def decision_function(self, x):
            seen.append(self.stations & set(x[:, 0]))
            return np.zeros(len(x))

    monkeypatch.setattr(module, "_classifier", lambda method, seed: Spy())
    stations = pd.DataFrame({"x": np.repeat(np.arange(20.0), 5), "site": np.repeat(np.arange(20), 5)})
    domain_weights(stations, pd.DataFrame({"x": 100.0 + np.arange(50)}), site="site", random_seed=1)
    assert seen
    assert not any(seen)


def test_few_effective_rows_are_warned_of():
    rng = np.random.default_rng(3)
    stations, domain = pd.DataFrame({"x": rng.normal(size=200)}), pd.DataFrame({"x": rng.normal(1.7, 0.5, 400)})
    with pytest.warns(UserWarning, match=r"effective \d+\.\d of 200 rows.*covariate_coverage"):
        found = domain_weights(stations, domain, random_seed=1)
    with pytest.warns(UserWarning, match=r"weighted mean.s. of 'crps' rest on an effective"):
        weighted_scores(pd.DataFrame({"crps": np.ones(200)}), found)


def test_a_domain_out_of_reach_is_warned_of_although_the_effective_number_is_large():
    rng = np.random.default_rng(3)
    with pytest.warns(UserWarning, match=r"told apart nearly always .AUC 1.00.*do not reach"):
        found = domain_weights(covariates(rng, 200), covariates(rng, 200, shift=2.0), random_seed=1)
    assert found.ess > 20


def test_weighted_scores_by_hand():
    weights = DomainWeights(pd.Series([1.0, 3.0, np.nan, 2.0]), np.array(["a", "a", "b", "b"]), 2.0, 2, 0.5)
    with pytest.warns(UserWarning, match="take them for a rough hint"):
        found = weighted_scores(pd.DataFrame({"crps": [1.0, 2.0, 9.0, 4.0], "mae": [1.0, np.nan, 1.0, 4.0]}), weights)
    assert_allclose(found.loc["crps"], [7 / 3, (1 + 6 + 8) / 6, 3, 36 / (16 + 4)])
    assert_allclose(found.loc["mae"], [2.5, 3.0, 2, 9 / 5])
    with pytest.raises(ValueError, match="no row has both a score 'crps' and a weight"):
        weighted_scores(pd.DataFrame({"crps": [np.nan, np.nan, 1.0, np.nan]}), weights)
    with pytest.raises(ValueError, match="scores have 2 rows and weights 4"):
        weighted_scores(pd.DataFrame({"crps": [1.0, 2.0]}), weights)


def test_bad_domains_are_refused():
    rng = np.random.default_rng(6)
    table = covariates(rng, 8)
    with pytest.raises(ValueError, match="method='forest'; wanted 'logistic' or 'boosting'"):
        domain_weights(table, table, method="forest")
    with pytest.raises(ValueError, match="8 rows and 8 rows of the domain are complete, for folds=9"):
        domain_weights(table, table, folds=9)
    with pytest.raises(TypeError, match="'soil' hold no numbers"):
        domain_weights(table.assign(soil="loam"), table)
