"""Metrics against numpy and scikit-learn; their intervals against resampled rows, the t distribution and simulations."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from product_rows import by_hand, point_rows, table
from scipy.stats import t as student_t

from bayesens.comparison.bootstrap import (
    Clusters,
    Replicates,
    cluster_interval,
    cluster_probability,
    interval,
    leave_out,
    pigeonhole,
    time_blocks,
)
from bayesens.comparison.skill import _weighted_median, skill
from bayesens.comparison.tables import paired_differences, score_table


def test_metrics_of_the_sample_are_those_of_numpy_and_scikit_learn():
    frame = table()
    got = score_table(point_rows(frame), by="group").set_index(["model", "group"])
    for name in ("good", "bad"):
        for group, part in [("all", frame), *frame.groupby("network")]:
            for metric, value in by_hand(part, name).items():
                assert_allclose(got.loc[(name, group), metric], value, rtol=1e-10)
            assert got.loc[(name, group), "n"] == len(part)
            assert got.loc[(name, group), "stations"] == part["station"].nunique()
            assert_allclose(got.loc[(name, group), "crps"], got.loc[(name, group), "mae"], rtol=1e-12)
        groups = got.loc[name].drop(index=["all", "macro"])
        assert_allclose(got.loc[(name, "macro"), "rmse"], groups["rmse"].mean(), rtol=1e-12)
        assert got.loc[(name, "macro"), "n"] == len(frame)


def test_correlation_over_time_and_over_space():
    frame = table()
    short = frame.groupby("station").head(9).query("station == 's0'")
    frame = pd.concat([frame.query("station != 's0'"), short], ignore_index=True)  # 9 rows: no correlation of its own
    got = score_table(point_rows(frame)).set_index("model")
    r = {
        s: (np.corrcoef(part["good"], part["sm"])[0, 1], len(part))
        for s, part in frame.groupby("station")
        if len(part) >= 10
    }
    assert len(r) == 7
    assert_allclose(got.loc["good", "r_temporal"], np.median([value for value, _ in r.values()]), rtol=1e-10)
    z = np.average([np.arctanh(value) for value, _ in r.values()], weights=[n - 3 for _, n in r.values()])
    assert_allclose(got.loc["good", "r_temporal_z"], np.tanh(z), rtol=1e-10)
    means = frame.groupby("station")[["good", "sm"]].mean()
    assert_allclose(got.loc["good", "r_spatial"], np.corrcoef(means["good"], means["sm"])[0, 1], rtol=1e-10)


def test_every_replicate_equals_the_rows_that_it_repeats():
    frame = table(3)
    station, block = pd.factorize(frame["station"])[0], time_blocks(frame["date"].to_numpy(), 30)
    drawn = pigeonhole(station, block, replicates=25, random_seed=2)
    score = np.random.default_rng(0).gamma(2.0, size=len(frame))
    got = skill(frame["good"].to_numpy(), frame["sm"].to_numpy(), {"crps": score}, station, block, drawn)
    for i in range(26):
        copies = (drawn.station[station, i] * drawn.block[block, i]).astype(int)
        rows = frame.loc[np.repeat(frame.index, copies)]
        for name, value in by_hand(rows, "good").items():
            assert_allclose(got[name][i], value, rtol=1e-9, err_msg=name)
        assert_allclose(got["crps"][i], np.repeat(score, copies).mean(), rtol=1e-12)
        # Each drawn copy of a station is a station of its own.
        parts = []
        for s in range(8):
            mine = np.flatnonzero(station == s)
            parts.append(
                (int(drawn.station[s, i]), frame.loc[np.repeat(mine, drawn.block[block[mine], i].astype(int))])
            )
        r = np.concatenate([np.repeat(np.corrcoef(part["good"], part["sm"])[0, 1], n) for n, part in parts])
        assert_allclose(got["r_temporal"][i], np.median(r), rtol=1e-8)
        means = np.concatenate([np.repeat([[part["good"].mean(), part["sm"].mean()]], n, axis=0) for n, part in parts])
        assert_allclose(got["r_spatial"][i], np.corrcoef(means.T)[0, 1], rtol=1e-8)


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 4)), min_size=1, max_size=12))
@settings(derandomize=True)
def test_weighted_median_is_the_median_of_copies(pairs):
    values, weight = np.array(pairs).T
    copies = np.repeat(values, weight.astype(int))
    expected = np.median(copies) if copies.size else np.nan
    assert_allclose(_weighted_median(values[:, None], weight[:, None])[0], expected)


def test_replicates_by_stratum_keep_the_number_of_stations():
    station, block = np.repeat(np.arange(10), 6), np.tile(np.arange(6), 10)
    network = np.where(station < 3, "a", "b")
    drawn = pigeonhole(station, block, replicates=200, random_seed=1, strata=network)
    assert_array_equal(drawn.station[:3].sum(axis=0), 3)
    assert_array_equal(drawn.station[3:].sum(axis=0), 7)
    assert_array_equal(drawn.block.sum(axis=0), 6)
    by_season = pigeonhole(station, block, replicates=50, random_seed=1, strata=np.where(block < 2, "dry", "wet"))
    assert_array_equal(by_season.block[:2].sum(axis=0), 2)
    assert_array_equal(by_season.station.sum(axis=0), 10)
    again = pigeonhole(station, block, replicates=200, random_seed=1, strata=network)
    assert_array_equal(again.station, drawn.station)


def test_multiplicities_have_the_moments_of_the_bootstrap():
    # Mean 1 and variance 1 - 1/n of a multinomial; 20,000 draws: the tolerances are above 5 standard errors.
    drawn = pigeonhole(np.arange(5), np.zeros(5, dtype=int), replicates=20_000, random_seed=1).station[:, 1:]
    assert_allclose(drawn.mean(axis=1), 1.0, atol=0.035)
    assert_allclose(drawn.var(axis=1), 0.8, atol=0.06)


def test_intervals_cover_under_errors_shared_by_stations_and_blocks():
    # 200 simulations of 20 stations by 15 blocks by 4 rows. Two-way resampling covers about 88 % with so few levels; a correct
    # program falls below 160 of 200 with probability below .001. Resampling rows covers about 30 %.
    rng, held, held_by_rows = np.random.default_rng(0), 0, 0
    station, block = np.repeat(np.arange(20), 60), np.tile(np.repeat(np.arange(15), 4), 20)
    for seed in range(200):
        y = rng.normal(size=1200)
        error = rng.normal(size=20)[station] + rng.normal(size=15)[block] + rng.normal(size=1200)
        drawn = pigeonhole(station, block, replicates=300, random_seed=seed)
        low, high = interval(skill(y + error, y, {}, station, block, drawn)["bias"][1:], 0.9)
        held += low <= 0 <= high
        half = 1.645 * error.std() / np.sqrt(error.size)
        held_by_rows += abs(error.mean()) < half
    assert held >= 160
    assert held_by_rows < 100


@pytest.mark.parametrize("n", [5, 8])
def test_t_intervals_cover_where_stations_and_blocks_are_few(n):
    """400 simulations of n stations by n blocks: a program of 90 % or more falls below 335 with a chance below .001.

    The two variances are added, which errs on the long side. Percentiles of the bootstrap hold the truth less often.
    """
    rng, held, by_bootstrap = np.random.default_rng(n), 0, 0
    station, block = np.repeat(np.arange(n), 3 * n), np.tile(np.repeat(np.arange(n), 3), n)
    for seed in range(400):
        y = rng.normal(size=3 * n * n)
        error = rng.normal(size=n)[station] + rng.normal(size=n)[block] + rng.normal(size=y.size)
        drawn = leave_out(pigeonhole(station, block, replicates=100, random_seed=seed))
        values = skill(y + error, y, {}, station, block, drawn)["bias"]
        low, high = cluster_interval(values, 0.9, Clusters(n, n), replicates=100, stations=n)
        held += low <= 0 <= high
        low, high = interval(values[1:101], 0.9)
        by_bootstrap += low <= 0 <= high
    assert held >= 335
    assert by_bootstrap < held


def test_the_jackknife_of_a_mean_is_the_t_interval_of_station_means():
    rng = np.random.default_rng(1)
    station, zero = np.repeat(np.arange(9), 10), np.zeros(90, dtype=int)
    y, error = rng.normal(size=90), rng.normal(size=9)[station] + rng.normal(size=90)
    drawn = leave_out(pigeonhole(station, zero, replicates=1, random_seed=1))
    values = skill(y + error, y, {}, station, zero, drawn)["bias"]
    means = pd.Series(error).groupby(station).mean()
    wanted = student_t.interval(0.9, 8, means.mean(), means.std() / 3)
    assert_allclose(cluster_interval(values, 0.9, Clusters(9), replicates=1, stations=9), wanted)


def test_how_an_interval_was_made_stands_in_the_table():
    frame = table(stations=24, days=130)
    frame.loc[frame["station"].isin(["s1", "s2"]), "network"] = "two"
    got = (
        score_table(point_rows(frame), by="group", replicates=10, random_seed=1)
        .query("model == 'good'")
        .set_index("group")
    )
    assert got.loc["all", "interval"] == "bootstrap over 24 stations and 22 blocks of 30 days"
    assert got.loc["n0", "interval"] == "t with 7 degrees of freedom, 8 stations and 22 blocks of 30 days"
    assert got.loc["two", "interval"] == "none: 2 stations and 22 blocks of 30 days"
    assert got.loc["two", ["rmse_low", "rmse_high"]].isna().all()
    pair = paired_differences(point_rows(frame), "bad", by="group", replicates=10, random_seed=1)
    assert set(pair["interval"]) == set(got["interval"])
    assert not pair.loc[pair["group"] == "two", "clear"].any()


def test_time_blocks():
    assert time_blocks([2001.0, 2001.5, 2003.2], 1.0).tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match="1 of 2 rows have no time"):
        time_blocks(np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"), 30)
    with pytest.raises(ValueError, match="needs a length above 0"):
        time_blocks([1.0], 0)


def test_interval_without_enough_replicates_is_missing():
    values = np.arange(100.0)
    values[:6] = np.nan
    assert np.isnan(interval(values, 0.9)).all()
    with pytest.raises(ValueError, match="lies inside"):
        interval(values, 90)


def test_replicates_of_one_are_the_sample():
    one = Replicates(np.ones((1, 1)), np.ones((1, 1)))
    got = skill(np.array([1.0, 3.0]), np.array([1.0, 2.0]), {}, np.zeros(2, dtype=int), np.zeros(2, dtype=int), one)
    assert got["r"][0] == pytest.approx(1.0)


def test_probabilities_are_shares_of_the_bootstrap_or_of_the_t_distribution():
    rng = np.random.default_rng(2)
    for stations in (8, 30):
        values = rng.normal(0.3, 1.0, stations)
        station = np.arange(stations)
        drawn = leave_out(pigeonhole(station, np.zeros(stations, int), replicates=4000, random_seed=1))
        means = values @ drawn.station / drawn.station.sum(axis=0)
        design = {"replicates": 4000, "stations": stations}
        found = cluster_probability(means, Clusters(stations), low=0.0, **design)
        error = values.std(ddof=1) / np.sqrt(stations)
        by_t = student_t.sf(-values.mean() / error, stations - 1)
        if stations < 20:
            assert found == pytest.approx(by_t, abs=1e-12)
        else:
            assert found == np.mean(means[1:4001] > 0.0)
            assert found == pytest.approx(by_t, abs=0.03)  # 4,000 replicates, and a t with 29 degrees of freedom
    assert np.isnan(cluster_probability(means, Clusters(4), low=0.0, **design))
    assert cluster_probability(np.ones(10), Clusters(8), low=0.0, replicates=0, stations=8) == 1.0
