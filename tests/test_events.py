"""Droughts: thresholds and runs against loops by hand, trajectories that keep their marginals, durations that are calibrated."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm, rankdata

from bayesens.distributions import NormalMixture
from bayesens.events import area_below, find_events, runs
from bayesens.thresholds import probability_below, threshold_at, thresholds
from bayesens.trajectory import Persistence, persistence, trajectories

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


# Trajectories ---------------------------------------------------------------------------------------------------------


def test_trajectories_keep_every_row_and_the_autocorrelation():
    """20,000 draws: correlations within .03, four standard errors."""
    rng = np.random.default_rng(1)
    draws = rng.gamma(2.0, [1.0, 2.0, 0.5, 1.0], size=(20_000, 4))
    joint = trajectories(draws, persistence=0.8, site=["a", "a", "a", "b"], time=[0, 1, 3, 0], random_seed=1, **QUIET)
    np.testing.assert_array_equal(np.sort(joint.values, axis=0), np.sort(draws, axis=0))
    score = norm.ppf((rankdata(joint.values, axis=0) - 0.5) / 20_000)
    found = np.corrcoef(score.T)
    np.testing.assert_allclose(found[0, 1:], [0.8, 0.8**3, 0.0], atol=0.03)
    assert found[1, 2] == pytest.approx(0.8**2, abs=0.03)


def test_a_distribution_gives_its_quantiles():
    law = normal([0.2, 0.3], [0.05, 0.1])
    joint = trajectories(law, persistence=0.5, site=["a", "a"], time=[0, 1], size=100, random_seed=1, **QUIET)
    level = (np.arange(100) + 0.5) / 100
    np.testing.assert_allclose(np.sort(joint.values, axis=0)[:, 1], norm.ppf(level, 0.3, 0.1), atol=1e-6)


def test_persistence_is_found_with_gaps_and_is_that_of_all_where_rows_are_few():
    """4,000 days with a third missing: rho within .03 of .8 (standard error below .01)."""
    rng = np.random.default_rng(1)
    z = np.empty(4000)
    z[0] = rng.normal()
    for i in range(1, 4000):
        z[i] = 0.8 * z[i - 1] + 0.6 * rng.normal()
    keep = rng.random(4000) > 1 / 3
    pit = norm.cdf(z[keep])
    found = persistence(
        np.r_[pit, 0.4, 0.6], site=["a"] * keep.sum() + ["b"] * 2, time=np.r_[np.flatnonzero(keep), 0, 1]
    )
    assert found.table.loc["a", "rho"] == pytest.approx(0.8, abs=0.03)
    assert not found.table.loc["b", "own"]
    assert found.of(["b", "new"]).tolist() == [found.pooled] * 2
    with pytest.raises(ValueError, match=r"wanted \(obs\) in \[0, 1\]"):
        persistence([1.2, 0.1], site="a", time=[0, 1])
    with pytest.raises(ValueError, match="nothing tells how errors persist"):
        persistence([0.2, 0.1], site=["a", "b"], time=[0, 0])
    with pytest.raises(ValueError, match="persistence is an autocorrelation"):
        trajectories(np.ones((3, 2)), persistence=1.0, site="a", time=[0, 1])


@pytest.mark.parametrize(("rho", "calibrated"), [(0.9, True), (0.0, False)])
def test_durations_of_an_autoregressive_truth_are_calibrated(rho, calibrated):
    """Longest event of 60 days at 200 sites: its randomised rank among 199 trajectories is uniform.

    The truth is an AR(1) of .9 around a known forecast. Kolmogorov and Smirnov at .5 %: a correct program fails with a
    chance of .5 % over seeds, and with this one it does not; independent days make every duration too short.
    """
    rng = np.random.default_rng(5)
    sites, days, size = 200, 60, 199
    site, time = np.repeat([f"s{i:03d}" for i in range(sites)], days), np.tile(np.arange(days), sites)
    error = np.empty((sites, days))
    error[:, 0] = rng.normal(size=sites)
    for t in range(1, days):
        error[:, t] = 0.9 * error[:, t - 1] + np.sqrt(1 - 0.81) * rng.normal(size=sites)
    mean = rng.normal(0, 0.5, sites * days)
    truth = mean + error.ravel()
    law = normal(mean, np.ones(len(mean)))
    drawn = trajectories(law, persistence=rho or 1e-9, site=site, time=time, size=size, random_seed=6, **QUIET)
    both = xr.concat([xr.DataArray(truth[None], dims=("sample", "obs")), drawn.drop_vars(["site", "time"])], "sample")
    found = find_events(both, -0.5, site=site, time=time, **QUIET).table
    longest = (
        found.groupby(["site", "sample"])["duration"].max().unstack("sample").reindex(columns=range(size + 1)).fillna(0)
    )
    own, others = longest[0].to_numpy(), longest.drop(columns=0).to_numpy()
    lower, ties = (others < own[:, None]).sum(axis=1), (others == own[:, None]).sum(axis=1)
    rank = (lower + rng.random(sites) * (ties + 1)) / (size + 1)
    assert bool(kstest(rank, "uniform").pvalue > 0.005) is calibrated


def test_persistence_is_a_value():
    table = pd.DataFrame({"rho": [0.5], "pairs": [90], "own": [True]}, index=pd.Index(["y1"], name="site"))
    assert Persistence(table, 0.7).of(["y1", "z"]).tolist() == [0.5, 0.7]
