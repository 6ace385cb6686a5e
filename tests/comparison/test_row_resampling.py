"""Clusters by estimand: groups for rows held out by group, blocks of time at one gauge; against t intervals of means by hand."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import t as student_t

import bayesens as be
from bayesens.app.study.chapters.scores import _verdict
from bayesens.comparison.bootstrap import Clusters, why_none
from bayesens.comparison.ladder import ladder_effects, ladder_words
from bayesens.comparison.row_resampling import resampling
from bayesens.comparison.tables import paired_differences, score_table


def networks(seed, groups, *, stations=3, times=6, days=0):
    """Two members of equal skill; every network moves each of them at random, and its stations share that."""
    rng = np.random.default_rng(seed)
    size = groups * stations * times
    group, station = np.repeat(np.arange(groups), stations * times), np.repeat(np.arange(groups * stations), times)
    frame = pd.DataFrame({"y": rng.normal(size=size), "net": [f"n{i:02d}" for i in group],
                          "station": [f"s{i:03d}" for i in station]})  # fmt: skip
    for name in "ab":
        frame[name] = frame["y"] + rng.normal(0, 0.5, groups)[group] + rng.normal(0, 0.5, size)
    if days:
        frame["date"] = np.tile(pd.date_range("2020-01-01", periods=times, freq=f"{days}D"), groups * stations)
    return frame


def rows_of(frame, estimand, names=("A", "B")):
    roles = {"site": "station", "group": "net", "time": "date"}
    given = {role: column for role, column in roles.items() if column in frame}
    ensemble = be.Ensemble.from_frame(frame, members=["a", "b"], observation="y", **given)
    return be.common_rows({}, ensemble, estimand=estimand, products=dict(zip(names, (frame["a"], frame["b"]))))


def crps(rows, **options):
    table = paired_differences(rows, rows["model"].values[0], **({"replicates": 2, "random_seed": 1} | options))
    return table[table["metric"] == "crps"].iloc[0]


# ------------------------------------------------------------------------------------------------------------------ groups
def test_an_interval_over_groups_is_the_t_interval_of_their_means():
    """Groups of equal size: the difference in bias is a mean of group means, and leaving one out gives its t interval."""
    frame = networks(1, 8)
    table = paired_differences(rows_of(frame, "group"), "A", replicates=2, random_seed=1).set_index("metric")
    mean = (frame["b"] - frame["a"]).groupby(frame["net"]).mean()
    wanted = student_t.interval(0.9, 7, mean.mean(), mean.std() / np.sqrt(8))
    assert_allclose(table.loc["bias", ["difference", "low", "high"]].astype(float), [mean.mean(), *wanted])
    assert set(table["interval"]) == {"t with 7 degrees of freedom, 8 groups"}
    shown = score_table(rows_of(frame, "group"), replicates=2, random_seed=1).set_index("model")
    own = (frame["a"] - frame["y"]).groupby(frame["net"]).mean()
    ends = student_t.interval(0.9, 7, own.mean(), own.std() / np.sqrt(8))
    assert_allclose(shown.loc["A", ["bias_low", "bias_high"]].astype(float), ends)
    assert shown["stations"].tolist() == [24, 24]


def test_groups_are_drawn_whole_and_metrics_stay_those_of_stations():
    frame = networks(2, 6, times=12, days=30)
    rows = rows_of(frame, "group")
    found = resampling(rows, replicates=20, block=30.0)
    drawn = found.drawn(1)
    group = frame.groupby("station")["net"].first().to_numpy()
    for name in np.unique(group):
        assert (drawn.station[group == name] == drawn.station[group == name][0]).all()
    assert drawn.station.shape == (18, 1 + 20 + 6 + 12)
    assert_array_equal(drawn.station[:, 21:27].sum(axis=0), 15)  # each of six groups of three stations left out once
    assert found.clusters().how == "t with 5 degrees of freedom, 6 groups and 12 blocks of 30 days"
    one, other = (score_table(rows_of(frame, estimand)) for estimand in ("group", "site"))
    pd.testing.assert_frame_equal(one.drop(columns="estimand"), other.drop(columns="estimand"))


@pytest.mark.slow
@pytest.mark.parametrize("groups", [8, 25])
def test_equal_members_are_seldom_called_different_by_groups(groups):
    """200 simulations, nominal 10 %: more than 34 clear verdicts have a chance of .08 % where 10 % are promised.

    The broken twin takes stations for the clusters: half of its verdicts are clear.
    """
    clear = sum(bool(crps(rows_of(networks(seed, groups), "group"))["clear"]) for seed in range(200))
    assert clear <= 34
    twin = sum(bool(crps(rows_of(networks(seed, groups), "site"))["clear"]) for seed in range(60))
    assert twin > 0.17 * 60  # what the rule above allows at most


@pytest.mark.slow
def test_blocks_of_time_are_drawn_beside_groups():
    """100 simulations, nominal 10 % or less, for the two variances are added: more than 21 have a chance of .03 %."""
    clear = sum(bool(crps(rows_of(networks(seed, 8, times=8, days=30), "group"))["clear"]) for seed in range(100))
    assert clear <= 21


def test_three_groups_give_no_interval_and_all_words_say_so():
    """Case: two equally good members at 20 stations of each of three networks; 24 of 30 were called clearly different."""
    for seed in range(3):
        frame = networks(seed, 3, stations=20, times=12, days=30)
        ensemble = be.Ensemble.from_frame(frame, members=["a", "b"], observation="y", site="station", group="net",
                                          time="date")  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = be.compare({"A": be.SingleMember(member="a"), "B": be.SingleMember(member="b")}, ensemble,
                              estimand="group", method="em", random_seed=1, progressbar=False)  # fmt: skip
        line = crps(rows, replicates=300)
        assert np.isnan([line["low"], line["high"], line["p_better"]]).all()
        assert not line["clear"]
        assert line["verdict"] == "no interval: 3 groups are too few"
        assert line["interval"] == "none: 3 groups and 12 blocks of 30 days"
    study = SimpleNamespace(study=SimpleNamespace(methods={}), held={"group": SimpleNamespace(rows=rows)})
    said = _verdict(study, line.to_dict())
    assert "without an interval (3 groups are too few: an interval takes five or more)" in said
    assert "do not say which of the two is better" in said


def test_words_of_the_ladder_without_intervals_claim_nothing():
    effects = ladder_effects(rows_of(networks(1, 3), "group", ("Equal weights", "BMA")), replicates=10, random_seed=1)
    assert effects["verdict"].tolist() == ["no interval: 3 groups are too few"]
    assert ladder_words(effects) == (
        "There is no interval (3 groups are too few: an interval takes five or more). These rows do not say whether a change of "
        "the ladder helps or hurts."
    )


def test_lines_of_one_group_have_no_interval():
    """Of rows held out by group, what is true of one group says nothing of the next."""
    table = paired_differences(rows_of(networks(1, 6), "group"), "A", by="group", replicates=5, random_seed=1)
    table = table[table["metric"] == "crps"].set_index("group")
    assert set(table.loc[["all", "macro"], "interval"]) == {"t with 5 degrees of freedom, 6 groups"}
    lines = table.drop(index=["all", "macro"])
    assert set(lines["interval"]) == {"none: 1 group"}
    assert set(lines["verdict"]) == {"no interval: 1 group is too few"}
    assert lines["shrunk"].isna().all()
    by_site = paired_differences(rows_of(networks(1, 6), "site"), "A", by="group", replicates=5, random_seed=1)
    assert set(by_site["interval"]) == {"t with 17 degrees of freedom, 18 stations", "none: 3 stations"}


def test_the_mean_over_groups_held_out_has_the_t_interval_of_their_means():
    """Groups of unequal size: the mean over groups counts each once, and so does its interval."""
    frame = networks(1, 8)
    frame = frame.drop(index=frame.index[frame["net"].eq("n03") & (np.arange(len(frame)) % 3 > 0)])
    table = paired_differences(rows_of(frame, "group"), "A", by="group", replicates=2, random_seed=1)
    found = table[(table["metric"] == "bias") & (table["group"] == "macro")].iloc[0]
    mean = (frame["b"] - frame["a"]).groupby(frame["net"]).mean()
    wanted = student_t.interval(0.9, 7, mean.mean(), mean.std() / np.sqrt(8))
    assert_allclose(found[["difference", "low", "high"]].astype(float), [mean.mean(), *wanted])


def test_rows_held_out_by_group_need_groups():
    frame = networks(1, 6)
    rows = rows_of(frame, "group")
    with pytest.raises(ValueError, match=r"resampled by group, and these have none; give the ensemble group="):
        crps(rows.drop_vars("group"))
    assert len(paired_differences(rows.drop_vars("group"), "A", replicates=0))
    lacking = rows.assign_coords(group=("obs", np.where(np.arange(len(frame)) < 4, "", rows["group"].values)))
    with pytest.raises(ValueError, match="4 of 108 rows have no group, and would count as one"):
        crps(lacking)


def test_rows_held_out_by_group_need_no_stations():
    frame = networks(1, 8)
    bare = score_table(rows_of(frame.drop(columns="station"), "group"), replicates=2, random_seed=1)
    full = score_table(rows_of(frame, "group"), replicates=2, random_seed=1)
    assert_allclose(bare[["crps_low", "crps_high"]], full[["crps_low", "crps_high"]])
    assert bare["stations"].tolist() == [0, 0]


# --------------------------------------------------------------------------------------------------------------- one gauge
def gauge(days, seed=3, **more):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=days)
    return pd.DataFrame({"y": y, "a": y + rng.normal(size=days), "b": y + rng.normal(size=days),
                         "date": pd.date_range("2020-01-01", periods=days)} | more)  # fmt: skip


@pytest.mark.parametrize("site", [{}, {"station": "gauge"}])
def test_one_gauge_is_resampled_over_blocks_of_time(site):
    """Case: a time column, one station or none. Blocks of equal length: the t interval of their means."""
    frame = gauge(300, **site)
    table = paired_differences(rows_of(frame, "time"), "A", replicates=2, random_seed=1).set_index("metric")
    mean = (frame["b"] - frame["a"]).groupby(np.arange(300) // 30).mean()
    wanted = student_t.interval(0.9, 9, mean.mean(), mean.std() / np.sqrt(10))
    assert_allclose(table.loc["bias", ["low", "high"]].astype(float), wanted)
    assert set(table["interval"]) == {"t with 9 degrees of freedom, 10 blocks of 30 days"}
    assert (
        crps(rows_of(gauge(1200, **site), "time"), replicates=50)["interval"] == "bootstrap over 40 blocks of 30 days"
    )
    few = crps(rows_of(gauge(100, **site), "time"))
    assert few[["interval", "verdict"]].tolist() == ["none: 4 blocks of 30 days", "no interval"]
    assert why_none(few["interval"]) == "4 blocks of 30 days are too few: an interval takes five or more"


def test_one_gauge_is_compared_without_a_column_of_sites():
    frame = gauge(400)
    ensemble = be.Ensemble.from_frame(frame, members=["a", "b"], observation="y", time="date")
    rows = be.compare({"EW": be.EqualWeights(), "BMA": be.BMA(sigma="shared")}, ensemble, estimand="time", method="em",
                      random_seed=1, progressbar=False)  # fmt: skip
    line = crps(rows)
    assert line["interval"] == "t with 13 degrees of freedom, 14 blocks of 30 days"
    assert line["low"] < line["difference"] < line["high"]
    by = score_table(rows.assign_coords(half=("obs", np.where(np.arange(400) < 210, "first", "second"))), by="half",
                     replicates=2, random_seed=1).set_index(["model", "group"])  # fmt: skip
    assert by.loc[("BMA", "first"), "interval"] == "t with 6 degrees of freedom, 7 blocks of 30 days"


def test_blocks_of_time_say_nothing_of_new_sites():
    bare, one = gauge(300), gauge(300, station="gauge")
    with pytest.raises(ValueError, match="intervals resample stations, and these rows have none"):
        crps(rows_of(bare, "site"))
    assert crps(rows_of(one, "site"))["interval"] == "none: 1 station and 10 blocks of 30 days"
    with pytest.raises(
        ValueError, match=r"have none; .* Blocks of time serve as well: time=\.\.\., and a length for block"
    ):
        crps(rows_of(bare, "time"), block=None)


def test_many_sites_without_times_are_resampled_as_they_were():
    frame = networks(1, 8)
    assert crps(rows_of(frame, "site"), replicates=20)["interval"] == "bootstrap over 24 stations"
    assert crps(rows_of(frame, "time"), replicates=20)["interval"] == "bootstrap over 24 stations"
    assert Clusters(24).how == "bootstrap over 24 stations"
