"""Evaluation tables against brute-force resampling of rows, numpy, scikit-learn, scoringrules and numerical integration."""

import warnings
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import scoringrules
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.stats import t as student_t
from sklearn import metrics as sk
from statsmodels.stats.meta_analysis import combine_effects

import bayesens as be
from bayesens.app.result_tables import mean_scores
from bayesens.comparison.bands import band_limits, in_band, select_band, threshold_crps
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
from bayesens.comparison.common_rows import add_threshold_crps, common_rows, season
from bayesens.comparison.skill import _weighted_median, skill
from bayesens.comparison.tables import _shrunk, paired_differences, product_table, score_table
from bayesens.distributions.mixtures import LogNormalMixture, NormalMixture, SquaredNormalMixture
from bayesens.inference.predict import distribution


def table(seed=0, *, stations=8, days=40, networks=3):
    """Observations of stations in networks, with a good and a bad product, ragged in time."""
    rng = np.random.default_rng(seed)
    site, day = (a.ravel() for a in np.meshgrid(np.arange(stations), np.arange(days), indexing="ij"))
    keep = rng.random(site.size) < 0.8
    site, day = site[keep], day[keep]
    level, wave = rng.normal(0.25, 0.05, stations)[site], 0.05 * np.sin(day / 6.0)
    y = level + wave + rng.normal(0, 0.02, site.size)
    return pd.DataFrame({
        "sm": y,
        "good": 0.7 * y + 0.07 + rng.normal(0, 0.03, stations)[site] + rng.normal(0, 0.02, y.size),
        "bad": 0.3 * y + 0.2 + rng.normal(0, 0.05, y.size),
        "station": [f"s{s}" for s in site],
        "network": [f"n{s % networks}" for s in site],
        "date": pd.Timestamp("2020-01-01") + pd.to_timedelta(5 * day, unit="D"),
    })  # fmt: skip


def ensemble_of(frame, **roles):
    roles = {"site": "station", "group": "network", "time": "date"} | roles
    return be.Ensemble.from_frame(frame, members=["good", "bad"], observation="sm", **roles)


def point_rows(frame, **kwargs):
    products = {"good": frame["good"], "bad": frame["bad"]}
    return common_rows({}, ensemble_of(frame), estimand="site", products=products, **kwargs)


@pytest.fixture(scope="module")
def fitted():
    frame = table(1)
    ensemble = ensemble_of(frame)
    fits = {
        "BMA": be.fit(be.SingleMember(), ensemble, method="em"),
        "Equal": be.fit(be.EqualWeights(), ensemble, method="em"),
    }
    return frame, ensemble, fits, {name: be.score(fit, ensemble) for name, fit in fits.items()}


# ------------------------------------------------------------------------------------------------ metrics and replicates
def by_hand(frame, name):
    """Metrics of a table of rows, one by one."""
    f, y = frame[name].to_numpy(), frame["sm"].to_numpy()
    r = np.corrcoef(f, y)[0, 1]
    out = {"rmse": np.sqrt(sk.mean_squared_error(y, f)), "mae": sk.mean_absolute_error(y, f), "bias": np.mean(f - y)}
    out |= {"ubrmse": np.std(f - y), "r": r}
    out["kge"] = 1 - np.sqrt((r - 1) ** 2 + (np.std(f) / np.std(y) - 1) ** 2 + (np.mean(f) / np.mean(y) - 1) ** 2)
    return out


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


# ------------------------------------------------------------------------------------------------------------ the tables
def test_columns_stand_in_the_published_order():
    wanted = ["model", "estimand", "group", "n", "stations", "crps", "log_score", "rmse", "ubrmse", "mae", "bias", "r",
              "coverage90", "width90"]  # fmt: skip
    got = score_table(point_rows(table(stations=24)), by="group", replicates=10, random_seed=1)
    assert list(got)[:14] == wanted
    assert got["group"].tolist() == ["all", "n0", "n1", "n2", "macro"] * 2
    assert got["estimand"].unique().tolist() == ["site"]
    assert {"rmse_low", "rmse_high", "r_temporal_low", "kge_high"} < set(got)
    assert_array_equal(got["rmse_low"] <= got["rmse_high"], True)
    assert got.loc[got["model"] == "good", "log_score"].isna().all()


def test_models_score_as_mean_scores_says(fitted):
    frame, ensemble, _, scores = fitted
    rows = common_rows(scores, ensemble, estimand="in-sample", products={"CCI": frame["bad"]})
    got = score_table(rows, by="group").set_index(["model", "group"])
    for name, each in scores.items():
        wanted = mean_scores(each, by="group").set_index("group")
        names = {"crps": "crps", "log_score": "log_score", "rmse": "rmse", "bias": "bias", "coverage90": "coverage_90",
                 "width90": "width_90"}  # fmt: skip
        for mine, theirs in names.items():
            assert_allclose(got.loc[name].loc[wanted.index, mine], wanted[theirs], rtol=1e-10, atol=1e-14)
    assert got.loc["CCI", ["coverage90", "width90", "log_score"]].isna().all().all()
    assert got.loc[("CCI", "all"), "crps"] == pytest.approx(np.abs(frame["bad"] - frame["sm"]).mean())


def test_the_pooled_row_that_the_source_study_left_out():
    # RMSE by network and numbers of samples of its Table 4; sqrt(sum n r^2 / sum n) is .1408 for MLR and .1415 for BMA, so
    # that the single member does better over all samples.
    n, mlr, bma = [5044, 263, 1204], [0.136, 0.073, 0.169], [0.137, 0.071, 0.169]
    error = {name: np.repeat(each, n) * (-1.0) ** np.arange(sum(n)) for name, each in (("mlr", mlr), ("bma", bma))}
    frame = pd.DataFrame({"sm": 0.25, "network": np.repeat(["NZW", "CERN", "QXZ"], n), "m": 0.25 + error["mlr"]})
    ensemble = be.Ensemble.from_frame(frame, members=["m"], observation="sm", group="network")
    products = {name: 0.25 + each for name, each in error.items()}
    got = score_table(common_rows({}, ensemble, estimand="site", products=products), by="group").set_index(
        ["model", "group"]
    )
    assert got.loc[[("mlr", "all"), ("bma", "all")], "rmse"].round(4).tolist() == [0.1408, 0.1415]
    assert got.loc[[("bma", "NZW"), ("bma", "CERN"), ("bma", "QXZ")], "rmse"].round(3).tolist() == bma


def test_several_labels_and_seasons():
    frame = table()
    rows = point_rows(frame, labels={"season": season(frame["date"])})
    got = score_table(rows, by=["group", "season"], replicates=20, random_seed=1).query("model == 'good'")
    assert got["group"].tolist() == ["all", "n0", "n1", "n2", "macro", "DJF", "MAM", "JJA", "macro"]
    assert got["by"].tolist() == [""] + ["group"] * 4 + ["season"] * 4


def test_paired_differences():
    frame = table(2, stations=24, days=130)
    rows = point_rows(frame)
    got = paired_differences(rows, "bad", replicates=200, random_seed=1).set_index("metric")
    values = score_table(rows).set_index("model")
    for name in ("crps", "rmse", "ubrmse", "mae"):
        assert_allclose(got.loc[name, "difference"], 100 * (values.loc["good", name] / values.loc["bad", name] - 1))
        assert got.loc[name, "unit"] == "percent"
    for name in ("r", "kge", "bias", "r_temporal", "r_spatial"):  # never a percentage of a correlation
        assert_allclose(got.loc[name, "difference"], values.loc["good", name] - values.loc["bad", name])
        assert got.loc[name, "unit"] == "absolute"
    assert got.loc["mae", "low"] < got.loc["mae", "difference"] < got.loc["mae", "high"]
    assert np.isnan(got.loc["log_score", "difference"])
    assert not got.loc["log_score", "clear"]
    # By hand, from the rows that one replicate repeats.
    station, block = pd.factorize(frame["station"], sort=True)[0], time_blocks(frame["date"].to_numpy(), 30)
    drawn = pigeonhole(station, block, replicates=200, random_seed=1)
    error = (frame[["good", "bad"]].sub(frame["sm"], axis=0)).abs().to_numpy()
    total = np.einsum("ir,ik->kr", drawn.station[station, 1:] * drawn.block[block, 1:], error)
    assert_allclose(
        np.quantile(100 * (total[0] / total[1] - 1), [0.05, 0.95]), got.loc["mae", ["low", "high"]].astype(float)
    )


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning:statsmodels")
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_groups_are_drawn_towards_their_mean(spread):
    rng = np.random.default_rng(4)
    d, v = rng.normal(-5, spread, 6), rng.uniform(0.5, 2.0, 6)
    wanted = combine_effects(d, v, method_re="dl")
    assert (wanted.tau2 > 0) == (spread == 3.0)
    tau2, mean = max(wanted.tau2, 0.0), wanted.mean_effect_re if wanted.tau2 > 0 else wanted.mean_effect_fe
    assert_allclose(
        _shrunk(np.r_[d, 9.0], np.r_[v, np.nan]), np.r_[(tau2 * d + v * mean) / (tau2 + v), np.nan], rtol=1e-10
    )
    assert np.isnan(_shrunk(d[:2], v[:2])).all()


def test_shrunk_differences_of_networks():
    got = paired_differences(point_rows(table(2, stations=12)), "bad", by="group", replicates=300, random_seed=1)
    rmse = got.query("metric == 'rmse'").set_index("group")
    groups = ["n0", "n1", "n2"]
    assert np.isnan(rmse.loc[["all", "macro"], "shrunk"]).all()
    assert np.ptp(rmse.loc[groups, "shrunk"]) < np.ptp(rmse.loc[groups, "difference"])


def test_paired_difference_is_shorter_than_the_intervals_apart():
    frame = table(2)
    frame["close"] = frame["good"] * 1.001
    rows = common_rows(
        {}, ensemble_of(frame), estimand="site", products={"good": frame["good"], "close": frame["close"]}
    )
    alone = score_table(rows, replicates=100, random_seed=1).set_index("model").loc["good"]
    pair = paired_differences(rows, "good", replicates=100, random_seed=1).set_index("metric").loc["rmse"]
    assert pair["high"] - pair["low"] < 0.1 * 100 * (alone["rmse_high"] - alone["rmse_low"]) / alone["rmse"]


# ------------------------------------------------------------------------------------------------------------ common rows
def test_rows_that_one_lacks_are_left_out_for_all():
    frame = table()
    frame.loc[[3, 4], "good"] = np.nan
    frame.loc[[5, 9], "bad"] = np.nan
    with pytest.warns(UserWarning, match=r"4 of .* observed rows are left out for all.*'good' 2, 'bad' 2"):
        rows = point_rows(frame)
    assert rows.attrs["rows_dropped"] == 4
    assert not set(rows["obs"].values) & {3, 4, 5, 9}
    assert score_table(rows)["n"].tolist() == [len(frame) - 4] * 2


@given(st.lists(st.tuples(*[st.sampled_from([0.5, 1.0, np.nan])] * 3), min_size=2, max_size=12))
@settings(derandomize=True, deadline=None)
@pytest.mark.filterwarnings("ignore:all members", "ignore:.*left out for all")
def test_common_rows_are_those_that_all_have(values):
    y, one, two = np.array(values).T
    wanted = np.flatnonzero(~np.isnan(y + one + two))
    ensemble = be.Ensemble.from_frame(pd.DataFrame({"m": one, "y": y}), members=["m"], observation="y")
    if not wanted.size:
        with pytest.raises(ValueError, match="no row is common to all"):
            common_rows({}, ensemble, estimand="site", products={"one": one, "two": two})
        return
    rows = common_rows({}, ensemble, estimand="site", products={"one": one, "two": two})
    assert_array_equal(rows["obs"], wanted)
    assert rows.attrs["rows_dropped"] == np.count_nonzero(~np.isnan(y)) - len(wanted)
    assert_array_equal(rows["prediction"], np.stack([one, two])[:, wanted])
    assert_array_equal(rows["observation"], y[wanted])


def test_scores_of_a_table_with_gaps_in_the_observations(fitted):
    frame, _, fits, scores = fitted
    gaps = frame.assign(sm=frame["sm"].where(np.arange(len(frame)) % 3 > 0))
    ensemble = ensemble_of(gaps)
    rows = common_rows(
        {"BMA": be.score(fits["BMA"], ensemble)}, ensemble, estimand="site", products={"CCI": gaps["bad"]}
    )
    assert rows.attrs["rows_dropped"] == 0
    assert_array_equal(rows["obs"], np.flatnonzero(np.arange(len(frame)) % 3 > 0))
    assert_allclose(rows["crps"].sel(model="BMA"), scores["BMA"]["crps"][rows["obs"].values])
    assert_allclose(rows["prediction"].sel(model="BMA"), be.predict(fits["BMA"], ensemble)["mean"][rows["obs"].values])


def test_rows_without_observation_are_no_loss():
    frame = table()
    frame.loc[0, "sm"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert point_rows(frame).attrs["rows_dropped"] == 0


def test_scores_of_folds_come_together_by_obs(fitted):
    _, ensemble, fits, scores = fitted
    first = np.arange(ensemble.n_obs) % 2 == 0
    parts = []
    for mask in (first, ~first):
        part = be.score(fits["BMA"], ensemble.select(rows=mask))
        parts.append(part.assign_coords(obs=np.flatnonzero(mask)))
    joined = xr.concat(parts, "obs")
    rows = common_rows({"folds": joined, "whole": scores["BMA"]}, ensemble, estimand="site")
    got = score_table(rows).set_index("model")
    assert_allclose(got.loc["folds", "crps"], got.loc["whole", "crps"], rtol=1e-12)


def test_scores_of_other_rows_are_refused(fitted):
    frame, ensemble, fits, scores = fitted
    shifted = scores["BMA"].assign_coords(obs=scores["BMA"]["obs"].values[::-1].copy())
    with pytest.raises(ValueError, match=r"scores of 'off' .* in \d+ rows the site differs \(first: row"):
        common_rows({"BMA": scores["BMA"], "off": shifted}, ensemble, estimand="site")
    with pytest.raises(ValueError, match=r"scores of 'BMA' .* obs goes from 0 to"):
        common_rows(scores, ensemble.select(rows=slice(0, 5)), estimand="site")
    with pytest.raises(ValueError, match="stand twice"):
        common_rows({"BMA": scores["BMA"].isel(obs=[0, 0])}, ensemble, estimand="site")
    with pytest.raises(ValueError, match="only one of the two has a time"):
        common_rows({"BMA": scores["BMA"].drop_vars("time")}, ensemble, estimand="site")
    with pytest.raises(ValueError, match=r"levels 0.5; wanted 0.9"):
        common_rows({"BMA": be.score(fits["BMA"], ensemble, levels=[0.5])}, ensemble, estimand="site")
    with pytest.raises(ValueError, match="'BMA' stand both"):
        common_rows(scores, ensemble, estimand="site", products={"BMA": frame["bad"]})
    with pytest.raises(ValueError, match="'CCI' has 3 values; wanted one for each"):
        common_rows(scores, ensemble, estimand="site", products={"CCI": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="nothing to compare"):
        common_rows({}, ensemble, estimand="site")
    with pytest.raises(ValueError, match=r"no row is common to all.*'CCI'"):
        common_rows(scores, ensemble, estimand="site", products={"CCI": np.full(len(frame), np.nan)})
    with pytest.raises(ValueError, match="infinite in 1 rows"):
        common_rows({}, ensemble, estimand="site", products={"CCI": np.r_[np.inf, frame["bad"][1:]]})
    with pytest.raises(ValueError, match="names that the rows use"):
        common_rows(scores, ensemble, estimand="site", labels={"group": frame["network"]})


# --------------------------------------------------------------------------------------------------------------- bad input
@pytest.mark.filterwarnings("error")
def test_a_network_of_one_station_a_single_row_and_constants():
    frame = table(networks=2)
    frame.loc[frame["station"] == "s7", "network"] = "one"
    single = frame.iloc[[0]].assign(station="lone", network="row")
    frame = pd.concat([frame, single], ignore_index=True)
    frame["bad"] = 0.25
    got = score_table(point_rows(frame), by="group", replicates=50, random_seed=1).set_index(["model", "group"])
    assert np.isnan(got.loc[("good", "one"), "r_spatial"])
    assert np.isfinite(got.loc[("good", "one"), "r"])
    assert np.isnan(got.loc[("good", "one"), "rmse_low"])  # one station says nothing of others
    assert got.loc[("good", "row"), "n"] == 1
    assert np.isnan(got.loc[("good", "row"), ["r", "kge", "r_temporal"]].astype(float)).all()
    assert np.isfinite(got.loc[("good", "row"), "rmse"])
    assert np.isnan(got.loc["bad", ["r", "kge", "r_temporal", "r_temporal_z", "r_spatial"]].to_numpy(dtype=float)).all()
    # The single row has no R whatever the model: left out of the macro R; but a constant product has none at all.
    groups = got.loc["good"].loc[["n0", "n1", "one"], "r"]
    assert got.loc[("good", "macro"), "r"] == pytest.approx(groups.mean())
    assert got.loc[("good", "macro"), "rmse"] == pytest.approx(
        got.loc["good"].loc[["n0", "n1", "one", "row"], "rmse"].mean()
    )


@pytest.mark.filterwarnings("error")
def test_a_constant_by_station_has_no_correlation_over_time():
    frame = table()
    frame["bad"] = frame.groupby("station")["sm"].transform("mean") + 1e3  # and a far centre costs no digits
    got = score_table(point_rows(frame)).set_index("model").loc["bad"]
    assert np.isnan(got["r_temporal"])
    assert got["r_spatial"] == pytest.approx(1.0)


def test_missing_labels_count_in_all_alone():
    frame = table()
    cover = np.where(np.arange(len(frame)) < 7, None, "crop")
    with pytest.warns(UserWarning, match=r"7 of .* rows have no cover: they count in 'all' alone"):
        got = score_table(point_rows(frame, labels={"cover": cover}), by="cover")
    assert got.query("model == 'bad'")["n"].tolist() == [len(frame), len(frame) - 7, len(frame) - 7]


def test_labels_that_the_table_uses_itself():
    frame = table()
    with pytest.raises(ValueError, match="hold 'all', which the table uses itself"):
        score_table(point_rows(frame, labels={"cover": ["all"] * len(frame)}), by="cover")
    with pytest.raises(KeyError, match=r"no label 'grup' .* did you mean 'group'"):
        score_table(point_rows(frame), by="grup")
    with pytest.raises(KeyError, match="no model or product 'best'"):
        paired_differences(point_rows(frame), "best")
    with pytest.raises(ValueError, match="nothing to compare with 'good'"):
        paired_differences(point_rows(frame).sel(model=["good"]), "good")
    with pytest.raises(ValueError, match="replicates is a whole number"):
        score_table(point_rows(frame), replicates=-1)


def test_without_stations_there_are_no_intervals():
    frame = table()
    ensemble = ensemble_of(frame, site=None, group=None)
    rows = common_rows({}, ensemble, estimand="site", products={"good": frame["good"]})
    got = score_table(rows)
    assert got.loc[0, "stations"] == 0
    assert got[["r_temporal", "r_spatial"]].isna().all().all()
    with pytest.raises(ValueError, match="intervals resample stations, and these rows have none"):
        score_table(rows, replicates=10)
    frame.loc[:4, "station"] = None
    with pytest.raises(ValueError, match=r"5 of .* rows have no station"):
        score_table(point_rows(frame))


def test_season():
    days = pd.to_datetime(["2020-01-05", "2020-04-05", "2020-10-05", None])
    assert season(days).tolist() == ["DJF", "MAM", "SON", ""]
    assert season(days, lat=[-30, -30, 30, 30]).tolist() == ["summer", "autumn", "autumn", ""]
    every = pd.date_range("2020-01-15", periods=12, freq="MS")
    opposite = {"winter": "summer", "summer": "winter", "spring": "autumn", "autumn": "spring"}
    south, north = season(every, lat=np.full(12, -1.0)), season(every, lat=np.full(12, 1.0))
    assert [opposite[name] for name in south] == north.tolist()
    assert season(days, months={"wet": [4, 5]}).tolist() == ["", "wet", "", ""]
    with pytest.raises(ValueError, match="each in one season"):
        season(days, months={"wet": [4, 5], "dry": [5]})
    with pytest.raises(ValueError, match="either lat"):
        season(days, months={"wet": [4]}, lat=[1.0] * 4)
    with pytest.raises(ValueError, match="seasons need datetimes"):
        season([1, 2])


# ------------------------------------------------------------------------------------------------------------------ bands
def test_bands_by_observation_forecast_and_climatology():
    frame = table()
    rows = point_rows(frame)
    low, high = np.quantile(frame["sm"], [0.15, 0.85])
    assert band_limits(rows, "mid") == (low, high)
    with pytest.warns(UserWarning, match="forecaster's dilemma"):
        mid = select_band(rows, "mid")
    assert_array_equal(mid["observation"], frame["sm"][(frame["sm"] >= low) & (frame["sm"] <= high)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select_band(rows, "all").sizes == rows.sizes
        by_forecast = select_band(rows, "Mid", by="good")
        by_site = select_band(rows, (0.0, 0.5), by="climatology")
    f = frame["good"]
    assert_array_equal(by_forecast["obs"], np.flatnonzero((f >= f.quantile(0.15)) & (f <= f.quantile(0.85))))
    means = frame.groupby("station")["sm"].transform("mean")
    assert_array_equal(by_site["obs"], np.flatnonzero(means <= np.quantile(means, 0.5)))
    covariate = rows.assign_coords(ndvi=("obs", np.linspace(0, 1, rows.sizes["obs"])))
    assert in_band(covariate, "high", by="ndvi").mean() == pytest.approx(0.15, abs=0.01)


def test_unknown_bands():
    rows = point_rows(table())
    with pytest.raises(KeyError, match="there is no band 'middle'; known: 'all', 'low', 'mid', 'high'"):
        select_band(rows, "middle")
    with pytest.raises(KeyError, match="no value to make bands by 'obs'"):
        select_band(rows, "mid", by="obs")
    with pytest.raises(ValueError, match="increase inside"):
        select_band(rows, (15, 85))


def integral(law, y, lower, upper):
    """Numerical integration of (F - 1{y <= x})^2, broken where the integrand turns."""
    levels = (1e-13, 1e-6, 1e-3, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999, 1 - 1e-6, 1 - 1e-13)
    turns = np.array([float(law.quantile(p)) for p in levels] + [0.0, y])
    a, b = max(lower, turns.min() - 1.0), min(upper, turns.max() + 1.0)
    if a >= b:
        return 0.0
    ends = np.unique(np.clip([a, b, *turns], a, b))
    f = lambda x: (float(law.cdf(x)) - (y <= x)) ** 2  # noqa: E731
    return sum(quad(f, left, right, epsabs=1e-10)[0] for left, right in pairwise(ends))


@pytest.mark.parametrize("cls", [NormalMixture, SquaredNormalMixture, LogNormalMixture])
@given(data=st.data())
@settings(derandomize=True, max_examples=25, deadline=None)
def test_threshold_crps_is_the_integral(cls, data):
    size = data.draw(st.integers(1, 3))
    number = st.floats(-2.0, 2.0)
    draw = lambda one: data.draw(st.lists(one, min_size=size, max_size=size))  # noqa: E731
    weight = np.array(draw(st.floats(0.1, 1.0)))
    law = cls(weight / weight.sum(), draw(number), draw(st.floats(0.05, 1.5)))
    lower, upper = sorted((data.draw(number), data.draw(number)))
    upper = upper + 0.1
    open_end = data.draw(st.sampled_from(["none", "lower", "upper", "both"]))
    lower = -np.inf if open_end in ("lower", "both") else lower
    upper = np.inf if open_end in ("upper", "both") else upper
    y = data.draw(st.floats(-1.0, 4.0))
    assert_allclose(
        threshold_crps(law, y, lower=lower, upper=upper), integral(law, y, lower, upper), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("cls", [NormalMixture, SquaredNormalMixture, LogNormalMixture])
def test_threshold_crps_without_thresholds_is_the_crps(cls):
    rng = np.random.default_rng(5)
    law = cls(rng.dirichlet(np.ones(4), 50), rng.normal(0.5, 0.5, (50, 4)), rng.uniform(0.1, 1, (50, 4)))
    y = law.sample(1, rng)[0]
    y[:5] = -0.3  # outside the domain of two of them
    assert_allclose(threshold_crps(law, y), law.crps(y), rtol=1e-9, atol=1e-12)
    assert_allclose(
        threshold_crps(law, y, lower=-0.1)[:5], [integral(law[i], -0.3, -0.1, np.inf) for i in range(5)], rtol=1e-6
    )
    parts = threshold_crps(law, y, upper=0.8) + threshold_crps(law, y, lower=0.8)  # weights that add up to one
    assert_allclose(parts, law.crps(y), rtol=1e-9, atol=1e-12)
    assert np.isnan(threshold_crps(law, np.full(50, np.nan), lower=0.0)).all()


def test_threshold_crps_of_draws_is_that_of_scoringrules():
    rng = np.random.default_rng(6)
    draws, y = rng.normal(size=(60, 30)), rng.normal(size=30)
    expected = scoringrules.twcrps_ensemble(y, draws, a=-0.4, b=0.9, m_axis=0, estimator="nrg")
    assert_allclose(threshold_crps(draws, y, lower=-0.4, upper=0.9), expected, rtol=1e-9, atol=1e-12)
    # Many evenly spaced quantiles come to the closed form; thresholds may differ by row.
    law = NormalMixture(1.0, np.zeros((30, 1)), 1.0)
    many = law.quantile((np.arange(2000) + 0.5) / 2000).T
    lower = rng.normal(-0.5, 0.2, 30)
    assert_allclose(threshold_crps(many, y, lower=lower), threshold_crps(law, y, lower=lower), atol=2e-4)
    assert_array_equal(threshold_crps(law, y, lower=1.0, upper=1.0), 0.0)
    with pytest.raises(ValueError, match="above its upper one, or missing"):
        threshold_crps(law, y, lower=1.0, upper=0.5)


def test_threshold_crps_is_proper_where_selecting_rows_is_not():
    # y = N(m, 1) with m known. The forecaster who says N(2 m, 1) does better on the rows with the greatest observations, and
    # worse by the threshold-weighted score. 4,000 rows; both differences are above 8 standard errors.
    rng = np.random.default_rng(7)
    m = rng.normal(size=4000)
    y = m + rng.normal(size=4000)
    true, bold = NormalMixture(1.0, m[:, None], 1.0), NormalMixture(1.0, 2 * m[:, None], 1.0)
    top = y > np.quantile(y, 0.95)
    assert bold.crps(y)[top].mean() < true.crps(y)[top].mean()
    limit = np.quantile(y, 0.95)
    assert threshold_crps(bold, y, lower=limit).mean() > threshold_crps(true, y, lower=limit).mean()


def test_threshold_crps_of_rows(fitted):
    frame, ensemble, fits, scores = fitted
    rows = common_rows(scores, ensemble, estimand="in-sample", products={"CCI": frame["bad"]}).isel(obs=slice(3, None))
    laws = {name: distribution(fit, ensemble) for name, fit in fits.items()}
    got = add_threshold_crps(rows, laws, band="mid")
    low, high = got["twcrps"].attrs["lower"], got["twcrps"].attrs["upper"]
    y = frame["sm"].to_numpy()
    assert_allclose(got["twcrps"].sel(model="BMA"), threshold_crps(laws["BMA"], y, lower=low, upper=high)[3:])
    assert_allclose(
        got["twcrps"].sel(model="CCI"), np.abs(np.clip(frame["bad"], low, high) - np.clip(y, low, high))[3:]
    )
    assert_allclose(add_threshold_crps(rows, laws, band="all")["twcrps"], rows["crps"], rtol=1e-8)
    assert "twcrps_low" in score_table(got, replicates=5, random_seed=1)
    with pytest.raises(ValueError, match="no predictive distribution of 'Equal'"):
        add_threshold_crps(rows, {"BMA": laws["BMA"]})
    with pytest.raises(ValueError, match="predictive distribution of 'BMA' has the shape"):
        add_threshold_crps(rows, laws | {"BMA": laws["BMA"][:5]})


# ------------------------------------------------------------------------------------------------------- product by product
def test_product_table(fitted):
    frame, ensemble, fits, scores = fitted
    rows = common_rows(scores, ensemble, estimand="in-sample", products={"CCI": frame["bad"]})
    laws = {name: distribution(fit, ensemble) for name, fit in fits.items()}
    with pytest.warns(UserWarning, match="forecaster's dilemma") as caught:
        got = product_table(rows, bands=["all", "mid", "high"], predictive=laws, replicates=20, random_seed=1)
    assert len([w for w in caught if "dilemma" in str(w.message)]) == 1
    groups = ["n0", "n1", "n2", "all", "macro"]
    assert got.index.tolist() == [(metric, group) for metric in ("r", "rmse", "mae", "twcrps") for group in groups]
    assert got.columns.get_level_values("model").unique().tolist() == ["number", "BMA", "Equal", "CCI"]
    assert got[("number", "mid", "rows")].dtype == int
    y = frame["sm"]
    mid = (y >= y.quantile(0.15)) & (y <= y.quantile(0.85))
    assert got.loc[("rmse", "all"), ("number", "mid", "rows")] == mid.sum()
    assert got.loc[("rmse", "all"), ("CCI", "mid", "estimate")] == pytest.approx(by_hand(frame[mid], "bad")["rmse"])
    part = frame[mid & (frame["network"] == "n1")]
    assert got.loc[("r", "n1"), ("CCI", "mid", "estimate")] == pytest.approx(by_hand(part, "bad")["r"])
    crps = float(scores["BMA"]["crps"].mean())
    assert got.loc[("twcrps", "all"), ("BMA", "all", "estimate")] == pytest.approx(crps)
    assert got.loc[("twcrps", "all"), ("number", "mid", "rows")] == len(frame)  # proper: over all rows
    ends = got.xs("low", axis=1, level="part"), got.xs("high", axis=1, level="part")
    assert (ends[0] < ends[1]).loc[("rmse", "all")].all()


def test_product_table_of_other_choices():
    rows = point_rows(table())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = product_table(rows, by=None, metrics=["kge"], bands=["all", "low"], band_by="good", replicates=0)
    assert got.index.tolist() == [("kge", "all")]
    dry = product_table(rows, by=None, metrics=["kge"], bands={"dry": (0.0, 0.15)}, band_by="good", replicates=0)
    assert_array_equal(dry.xs("dry", axis=1, level="band"), got.xs("low", axis=1, level="band"))
    assert got.xs("low", axis=1, level="part").isna().all().all()
    with pytest.raises(KeyError, match=r"no metric 'RMSE' .* 'rmse'"):
        product_table(rows, metrics=["RMSE"])
    with pytest.raises(KeyError, match="no band 'middle'"):
        product_table(rows, bands=["middle"])


def test_a_network_without_rows_in_a_band_has_none():
    frame = table()
    frame.loc[frame["network"] == "n0", "sm"] += 5.0
    with pytest.warns(UserWarning, match="dilemma"):
        got = product_table(point_rows(frame), bands=["all", "low"], replicates=0)
    assert got.loc[("mae", "n0"), ("number", "low", "rows")] == 0
    assert np.isnan(got.loc[("mae", "n0"), ("good", "low", "estimate")])


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


def test_differences_say_what_their_interval_allows():
    """Products whose errors are known multiples of one another, at 24 stations."""
    rng = np.random.default_rng(5)
    station = np.repeat(np.arange(24), 30)
    y, error = rng.normal(size=720), rng.normal(size=720)
    frame = pd.DataFrame({"good": y + error, "bad": y, "sm": y, "station": station.astype(str)})
    ensemble = be.Ensemble.from_frame(frame, members=["good"], observation="sm", site="station")
    products = {"base": y + error, "half": y + 0.5 * error, "same": y + 1.004 * error, "worse": y + 1.3 * error,
                "like": y + error[::-1]}  # fmt: skip
    rows = common_rows({}, ensemble, estimand="site", products=products)
    table = paired_differences(rows, "base", replicates=400, random_seed=1).set_index(["model", "metric"])
    crps = table.xs("crps", level="metric")
    assert crps["verdict"].to_dict() == {
        "half": "better", "same": "equivalent", "worse": "worse", "like": "not told apart"
    }  # fmt: skip
    assert crps.loc[["half", "same", "worse"], "p_better"].tolist() == [1.0, 0.0, 0.0]
    assert 0.02 < crps.loc["like", "p_better"] < 0.98
    assert crps["equivalent"].tolist() == [False, True, False, False]
    assert table.loc[("half", "r"), ["verdict", "p_better"]].tolist() == ["better", 1.0]
    assert np.isnan(table.loc[("half", "bias"), "p_better"])
    none = paired_differences(rows.sel(obs=station < 4), "base", replicates=100).set_index(["model", "metric"])
    assert none.loc[("half", "crps"), "verdict"] == "no interval"
    with pytest.raises(ValueError, match="equivalent is a number of percent, such as 1; got -1"):
        paired_differences(rows, "base", equivalent=-1)
