"""Coverage of a domain against scipy and counting, weights against known density ratios."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from bayesens.members import domain as module
from bayesens.members.domain import DomainWeights, covariate_coverage, domain_weights, weighted_scores
from shared_data import shared_data


def covariates(rng, n, shift=0.0):
    return pd.DataFrame(
        {"dem": rng.normal(500 + 200 * shift, 100, n), "rain": rng.gamma(2.0, 3.0, n), "clay": rng.random(n) + shift}
    )


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
    assert_allclose(found["within"], np.mean([min(a) <= value <= max(a) for value in b]))


def test_coverage_of_all_together_is_that_of_counting_cell_by_cell():
    rng = np.random.default_rng(1)
    stations, domain = covariates(rng, 9), covariates(rng, 200)
    domain = domain.mask(rng.random(domain.shape) < 0.1)
    found = covariate_coverage(stations, domain)
    complete = [row for _, row in domain.iterrows() if row.notna().all()]
    inside = [all(stations[name].min() <= row[name] <= stations[name].max() for name in row.index) for row in complete]
    assert_allclose(found.loc["all", "within"], np.mean(inside))
    assert found.loc["all", "within"] < found.drop("all")["within"].min()
    assert found.index.tolist() == ["dem", "rain", "clay", "all"]
    assert found.loc["all", ["ks", "wasserstein", "wasserstein_sd"]].isna().all()


@pytest.mark.parametrize("chunks", [None, 2])
def test_a_grid_covers_as_its_table_of_cells(chunks):
    rng = np.random.default_rng(2)
    grid = xr.Dataset(
        {"dem": (("y", "x"), rng.normal(500, 200, (3, 4))), "rain": (("time", "y", "x"), rng.gamma(2, 3, (5, 3, 4)))}
    )
    stations = covariates(rng, 8)[["rain", "dem"]]
    cells = grid.to_dataframe()[["rain", "dem"]]
    found = covariate_coverage(stations, grid if chunks is None else grid.chunk(chunks))
    pd.testing.assert_frame_equal(found, covariate_coverage(stations, cells), rtol=1e-12)
    with pytest.raises(KeyError, match="no covariate 'clay' in the dataset of the domain"):
        covariate_coverage(covariates(rng, 8), grid)


def test_coverage_passes_over_missing_values_and_names_what_is_empty():
    stations, domain = pd.DataFrame({"x": [0.0, np.nan, 1.0]}), pd.DataFrame({"x": [0.0, 1.0, np.nan]})
    assert covariate_coverage(stations, domain).loc["x"].tolist() == [1.0, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="'x' are missing in the domain throughout"):
        covariate_coverage(stations, domain * np.nan)
    with pytest.raises(ValueError, match="'x' are missing at the stations throughout"):
        covariate_coverage(stations * np.nan, domain)
    with pytest.raises(ValueError, match="a covariate is called 'all'"):
        covariate_coverage(stations.rename(columns={"x": "all"}), domain)


def test_the_hills_of_oznet_lie_beyond_its_stations():
    table = pd.read_csv(shared_data("oznet", "oznet_daily.csv.gz"))
    table = table[~table["insitu_is_copy_of_y7"]]
    grid = xr.load_dataset(shared_data("oznet", "grid_20160205_1km.nc"))
    found = covariate_coverage(table, grid, covariates=["dem", "tavg", "vpd"])
    dem = grid["dem"].values
    assert_allclose(found.loc["dem", "within"], np.mean((dem >= table["dem"].min()) & (dem <= table["dem"].max())))
    assert 0.2 < found.loc["dem", "within"] < 0.35
    assert found.loc["tavg", "within"] == 1.0
    assert_allclose(found.loc["all", "within"], found.loc["dem", "within"])


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
    # n over the mean of the squared ratio of two normal densities.
    assert_allclose(found.ess, 4000 * 0.8 * np.sqrt(2 - 0.8**2) * np.exp(-(0.5**2) / (2 - 0.8**2)), rtol=0.1)


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
        domain_weights(stations, domain, random_seed=5, covariates=["dem", "rain", "clay"]).weight.to_numpy(),
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


def test_few_effective_rows_are_warned_of(monkeypatch):
    """11 rows of N(0, 1) for N(.8, .7), weighted by the true ratio: worth 11 / 1.8 = 6. Of seeds 0 to 999, 5 gave no such
    warning."""

    class Exact:
        def fit(self, x, y):
            pass

        def decision_function(self, x):
            return (stats.norm.logpdf(x, 0.8, 0.7) - stats.norm.logpdf(x))[:, 0]

    monkeypatch.setattr(module, "_classifier", lambda method, seed: Exact())
    rng = np.random.default_rng(3)
    stations, domain = pd.DataFrame({"x": rng.normal(size=11)}), pd.DataFrame({"x": rng.normal(0.8, 0.7, 400)})
    with pytest.warns(UserWarning, match=r"effective \d\.\d of 11 rows.*covariate_coverage"):
        found = domain_weights(stations, domain, random_seed=1)
    with pytest.warns(UserWarning, match=r"weighted mean.s. of 'crps' rest on an effective"):
        weighted_scores(pd.DataFrame({"crps": np.ones(11)}), found)


def test_large_weights_are_clipped_and_counted():
    ratio = np.array([1.0, 1.0, 1.0, 17.0])  # mean 5
    weight, n = module._clipped(ratio, 2.0)
    assert_allclose(weight, np.array([0.2, 0.2, 0.2, 2.0]) / 0.65)
    assert n == 1
    rng = np.random.default_rng(4)
    stations, domain = pd.DataFrame({"x": rng.normal(size=100)}), pd.DataFrame({"x": rng.normal(1.0, 0.7, 400)})
    free, held = (domain_weights(stations, domain, clip=clip, random_seed=1) for clip in (np.inf, 1.5))
    assert free.n_clipped == 0
    assert held.n_clipped == (free.weight > 1.5).sum() > 0
    assert_allclose(held.weight, (w := free.weight.clip(upper=1.5)) / w.mean())
    assert held.ess > free.ess


def test_a_domain_out_of_reach_is_warned_of_although_the_effective_number_is_large():
    rng = np.random.default_rng(3)
    with pytest.warns(UserWarning, match=r"told apart nearly always .AUC 1.00.*hardly ever see"):
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
    with pytest.raises(ValueError, match=r"clip=0\.5; wanted 1 or more"):
        domain_weights(table, table, clip=0.5)
    with pytest.raises(ValueError, match="1 of 8 rows have no station"):
        domain_weights(table.assign(site=[None, *"abcdefg"]), table, site="site")


@pytest.mark.filterwarnings("ignore:the weights leave an effective")
def test_folds_of_uneven_stations_have_their_own_prior(monkeypatch):
    """A classifier that knows nothing but the shares of its training rows gives every row the same weight."""

    class Shares:
        def fit(self, x, y):
            self.log_odds = np.log(y.sum() / (1 - y).sum())

        def decision_function(self, x):
            return np.full(len(x), self.log_odds)

    monkeypatch.setattr(module, "_classifier", lambda method, seed: Shares())
    size = np.arange(1, 13) ** 2  # rows of a station: 1 to 144
    stations = pd.DataFrame({"x": np.arange(size.sum()), "site": np.repeat(np.arange(12), size)})
    found = domain_weights(stations, pd.DataFrame({"x": np.arange(100.0)}), site="site", random_seed=1)
    assert_allclose(found.weight, 1.0)
    assert_allclose(found.auc, 0.5)
