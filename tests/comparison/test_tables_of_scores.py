"""Tables of scores and of paired differences against numpy, statsmodels and a published table, and what they refuse."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from product_rows import ensemble_of, point_rows, table
from statsmodels.stats.meta_analysis import combine_effects

import bayesens as be
from bayesens.comparison.bootstrap import pigeonhole, time_blocks
from bayesens.comparison.common_rows import common_rows, season
from bayesens.comparison.tables import _shrunk, paired_differences, score_table


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
