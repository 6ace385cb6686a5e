"""Droughts: thresholds against pandas, runs against a loop by hand, events and areas against counting."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from bayesens.distributions.mixtures import NormalMixture, probability_below
from bayesens.geo.events import area_below, find_events, runs
from bayesens.geo.thresholds import threshold_at, thresholds

QUIET = {"progressbar": False}
DAYS = pd.date_range("2017-01-01", "2020-12-31", freq="D").to_numpy()


def normal(mean, sd):
    """One normal distribution a row."""
    mean, sd = (np.asarray(values, dtype=float)[:, None] for values in (mean, sd))
    return NormalMixture(weight=np.ones_like(mean), mu=mean, sigma=sd)


# Thresholds -----------------------------------------------------------------------------------------------------------


def climatology(sites=("a", "b"), seed=1):
    rng = np.random.default_rng(seed)
    site, time = np.repeat(sites, len(DAYS)), np.tile(DAYS, len(sites))
    values = (
        0.2
        + 0.05 * np.cos(2 * np.pi * pd.DatetimeIndex(time).day_of_year.to_numpy() / 365)
        + rng.normal(0, 0.02, len(time))
    )
    values[rng.random(len(values)) < 0.1] = np.nan
    return values, site, time


@pytest.mark.parametrize("by", ["month", "season", "all"])
def test_thresholds_are_percentiles_of_the_rows_of_each_period(by):
    values, site, time = climatology()
    table = thresholds(values, percentile=0.2, by=by, site=site, time=time)
    when = pd.DatetimeIndex(time)
    names = {12: "DJF", 3: "MAM", 6: "JJA", 9: "SON"}
    period = {"month": when.month, "season": [names[m - m % 3 or 12] for m in when.month], "all": np.ones(len(time))}[
        by
    ]
    frame = pd.DataFrame({"v": values, "site": site, "period": period})
    wanted = frame.groupby(["site", "period"])["v"].quantile(0.2)
    rows = threshold_at(table, site=site, time=time).values
    np.testing.assert_allclose(rows, wanted.loc[list(zip(site, period, strict=True))].to_numpy())


def test_day_of_year_windows_wrap_around_the_year():
    values, site, time = climatology()
    table = thresholds(values, by="dayofyear", site=site, time=time, half_window=10)
    when = pd.DatetimeIndex(time)
    plain = pd.DatetimeIndex(
        [t.replace(year=2019, day=28) if (t.month, t.day) == (2, 29) else t.replace(year=2019) for t in when]
    )
    day = plain.day_of_year.to_numpy()
    for wanted_day in (1, 59, 365):
        away = np.abs(day - wanted_day)
        near = (site == "a") & (np.minimum(away, 365 - away) <= 10)
        assert table.sel(site="a", dayofyear=wanted_day).item() == pytest.approx(np.nanquantile(values[near], 0.2))
    leap = threshold_at(table, site="a", time=np.array(["2020-02-29"], dtype="datetime64[D]"))
    assert leap.item() == table.sel(site="a", dayofyear=59).item()


def test_too_few_rows_give_no_threshold_and_say_so():
    values, site, time = climatology()
    with pytest.warns(UserWarning, match=r"24 of 24 thresholds \(site by month\) have fewer than 500 rows"):
        table = thresholds(values, by="month", site=site, time=time, min_count=500)
    assert table.isnull().all()
    with pytest.raises(KeyError, match="no threshold for site 'c'"):
        threshold_at(table, site="c", time=DAYS[:1])
    with pytest.raises(ValueError, match="percentile lies inside"):
        thresholds(values, percentile=20, site=site, time=time)
    with pytest.raises(ValueError, match=r"(?i)repeat|twice|same"):
        thresholds(np.r_[values, values[:1]], site=np.r_[site, site[:1]], time=np.r_[time, time[:1]])
    with pytest.raises(ValueError, match=r"values have shape \(2, 3, 4\); wanted \(obs\) or \(sample, obs\)"):
        thresholds(np.zeros((2, 3, 4)), by="all", site="a", time=range(4))


def test_probability_below_is_that_of_the_distribution_and_of_draws():
    law = normal([0.2, 0.3], [0.05, 0.1])
    limit = np.array([0.15, 0.3])
    exact = probability_below(law, limit)
    np.testing.assert_allclose(exact, norm.cdf(limit, [0.2, 0.3], [0.05, 0.1]))
    draws = np.random.default_rng(1).normal([0.2, 0.3], [0.05, 0.1], size=(40_000, 2))
    np.testing.assert_allclose(probability_below(draws, limit), exact, atol=0.01)
    assert np.isnan(probability_below(draws, [np.nan, 0.3]).values[0])


# Runs -----------------------------------------------------------------------------------------------------------------


def by_hand(deficit, min_duration, pool, bridge):
    """One step after the other."""
    found, current, above, lost = [], None, 0, 0
    for i, d in enumerate(deficit):
        if np.isnan(d):
            lost += 1
        elif d <= 0:
            above += 1
        else:
            if current is not None and above <= pool and lost <= bridge:
                current = [current[0], i, current[2] + d]
            else:
                if current is not None:
                    found.append(current)
                current = [i, i, d]
            above = lost = 0
    found += [current] if current is not None else []
    return [(a, b, b - a + 1, s) for a, b, s in found if b - a + 1 >= min_duration]


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, float("nan")]), min_size=1, max_size=25),
    st.integers(1, 3), st.integers(0, 2), st.integers(0, 2),
)  # fmt: skip
def test_runs_are_those_of_a_walk_by_hand(deficit, min_duration, pool, bridge):
    found = runs(deficit, min_duration=min_duration, pool=pool, bridge=bridge)
    wanted = by_hand(deficit, min_duration, pool, bridge)
    np.testing.assert_allclose(found[["onset", "end", "duration", "severity"]].to_numpy(), np.reshape(wanted, (-1, 4)))
    twice = runs([deficit, deficit], min_duration=min_duration, pool=pool, bridge=bridge)
    assert len(twice) == 2 * len(found)
    assert twice["trajectory"].tolist() == [0] * len(found) + [1] * len(found)


def test_runs_of_no_steps_and_bad_options():
    assert runs([]).empty
    assert runs(np.empty((0, 5))).empty
    with pytest.raises(ValueError, match=r"deficit is the number 1.0; wanted an array \(..., step\)"):
        runs(1.0)
    for name, value in (("pool", -1), ("bridge", 0.5), ("min_duration", 0), ("pool", np.nan)):
        with pytest.raises(ValueError, match=f"{name} is a whole number of steps"):
            runs([1.0], **{name: value})


def test_events_of_sites_in_any_order_with_units_of_time():
    time = DAYS[[3, 0, 1, 2, 4]]
    found = find_events([0.3, 0.3, 0.1, 0.15, 0.1], 0.2, site="y1", time=time, **QUIET)
    assert found.table["onset"].tolist() == [pd.Timestamp(DAYS[1]), pd.Timestamp(DAYS[4])]
    assert found.table["severity"].tolist() == pytest.approx([0.15, 0.1])
    none = find_events([0.3, 0.4], 0.2, site="y1", time=DAYS[:2], **QUIET)
    assert none.probability().tolist() == [0.0]
    assert none.summary()["number"].values.tolist() == [0.0]
    assert none.summary()["duration"].isnull().all()
    six = find_events([0.1, 0.1], 0.2, site="y1", time=DAYS[[0, 6]], step=6, **QUIET)
    assert six.table["duration"].tolist() == [12.0]
    with pytest.raises(ValueError, match="not whole steps of 4 days"):
        find_events([0.1, 0.1], 0.2, site="y1", time=DAYS[[0, 6]], step=4, **QUIET)
    with pytest.raises(ValueError, match="nearly all are missing"):
        find_events([0.1, 0.1], 0.2, site="y1", time=DAYS[[0, 1400]], **QUIET)


def test_area_below_is_the_share_of_sites():
    draws = np.array([[0.1, 0.1, 0.3, np.nan], [0.1, 0.3, 0.3, 0.1]])
    found = area_below(draws, 0.2, site=["a", "b", "a", "b"], time=[1, 1, 2, 2])
    np.testing.assert_allclose(found["mean"], [0.75, 0.25])
    assert found["sites"].values.tolist() == [2, 2]
    by_site = {"site": ["a", "a", "b", "b"], "time": [1, 2, 1, 2], "weight": [3.0, 3.0, 1.0, 1.0]}
    np.testing.assert_allclose(area_below([[0.3, 0.1, 0.1, 0.3]], 0.2, **by_site)["mean"], [0.25, 0.75])


def test_area_and_summary_are_those_of_counting():
    """40 trajectories of three sites, one of which is never dry."""
    rng = np.random.default_rng(2)
    site, time = np.repeat(["a", "b", "c"], 20), np.tile(DAYS[:20], 3)
    draws = rng.random((40, 60)) + (site == "c")
    area = area_below(draws, 0.4, site=site, time=time, quantiles=[0.1, 0.5])
    share = (draws < 0.4).reshape(40, 3, 20).mean(axis=1)
    np.testing.assert_allclose(area["mean"], share.mean(axis=0))
    np.testing.assert_allclose(area["fraction"].T, np.quantile(share, [0.1, 0.5], axis=0))
    found = find_events(draws, 0.4, site=site, time=time, **QUIET)
    first, longest, several = [], [], 0
    for one in draws[:, site == "b"]:
        events = by_hand(0.4 - one, 1, 0, 0)
        several += len(events)
        first += [events[0][0]]
        longest += [max(duration for _, _, duration, _ in events)]
    level = [0.05, 0.5, 0.9]
    table = found.summary(level).sel(site="b")
    np.testing.assert_array_equal(table["duration"], np.quantile(longest, level, method="inverted_cdf"))
    np.testing.assert_array_equal(table["onset"], DAYS[np.quantile(first, level, method="inverted_cdf").astype(int)])
    assert table["number"].item() == pytest.approx(several / 40)
    assert found.probability(duration=3)["b"] == pytest.approx(np.mean(np.array(longest) >= 3))
    assert found.probability()["c"] == 0.0
    assert found.summary([0.5])["onset"].sel(site="c").isnull().all()


def test_thresholds_of_a_table_are_those_of_its_rows():
    values, site, time = climatology()
    table = thresholds(values, by="month", site=site, time=time)
    by_row = threshold_at(table, site=site, time=time).values
    one, other = (find_events(values, limit, site=site, time=time, **QUIET).table for limit in (table, by_row))
    pd.testing.assert_frame_equal(one, other)
    assert one["open_end"].any()  # missing days end an event, which then lasted at least so long
    with pytest.raises(KeyError, match="no threshold for site 'elsewhere'"):
        find_events([0.1], table, site="elsewhere", time=DAYS[:1], **QUIET)


def test_bad_rows_of_events():
    with pytest.raises(ValueError, match="1 of 2 rows repeat the site and time of another"):
        find_events([0.1, 0.1], 0.2, site="a", time=DAYS[[0, 0]], **QUIET)
    with pytest.raises(ValueError, match="threshold has shape"):
        find_events([0.1, 0.1], [0.2, 0.2, 0.2], site="a", time=DAYS[:2], **QUIET)
    with pytest.raises(ValueError, match=r"time has shape \(3,\) for 2 rows"):
        find_events([0.1, 0.1], 0.2, site="a", time=DAYS[:3], **QUIET)
    with pytest.raises(ValueError, match="none negative or missing"):
        area_below([[0.1]], 0.2, site="a", time=DAYS[:1], weight=[-1.0])
