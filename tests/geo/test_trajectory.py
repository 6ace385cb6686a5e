"""Trajectories: marginals kept value by value, persistence against a plain likelihood, durations that are calibrated."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.optimize import minimize
from scipy.stats import kstest, multivariate_normal, norm, rankdata

import bayesens as be
from bayesens.distributions.mixtures import NormalMixture, probability_below
from bayesens.geo import trajectory
from bayesens.geo.events import find_events
from bayesens.geo.trajectory import Persistence, persistence, trajectories
from bayesens.inference.predict import distribution

QUIET = {"progressbar": False}


def normal(mean, sd):
    """One normal distribution a row."""
    mean, sd = (np.asarray(values, dtype=float)[:, None] for values in (mean, sd))
    return NormalMixture(weight=np.ones_like(mean), mu=mean, sigma=sd)


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
    """Longest and most severe event of 60 days at 200 sites: the randomised rank among 199 trajectories is uniform.

    The truth is an AR(1) of .9 around a known forecast. Kolmogorov and Smirnov at .25 % each: a correct program fails with a
    chance of at most .5 % over seeds (0 of 30 seeds); independent days, whose events are too short, fail (30 of 30).
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
    drawn = trajectories(law, persistence=rho, site=site, time=time, size=size, random_seed=6, **QUIET)
    both = xr.concat([xr.DataArray(truth[None], dims=("sample", "obs")), drawn.drop_vars(["site", "time"])], "sample")
    found = find_events(both, -0.5, site=site, time=time, **QUIET).table
    for measure in ("duration", "severity"):
        greatest = found.groupby(["site", "sample"])[measure].max().unstack("sample")
        greatest = greatest.reindex(index=np.unique(site), columns=range(size + 1)).fillna(0)
        own, others = greatest[0].to_numpy(), greatest.drop(columns=0).to_numpy()
        lower, ties = (others < own[:, None]).sum(axis=1), (others == own[:, None]).sum(axis=1)
        rank = (lower + rng.random(sites) * (ties + 1)) / (size + 1)
        assert bool(kstest(rank, "uniform").pvalue > 0.0025) is calibrated


def test_persistence_is_a_value():
    table = pd.DataFrame({"rho": [0.5], "pairs": [90], "own": [True]}, index=pd.Index(["y1"], name="site"))
    assert Persistence(table, 0.7).of(["y1", "z"]).tolist() == [0.5, 0.7]


def test_persistence_is_the_most_likely_of_a_plain_multivariate_normal():
    """80 days of 200, at uneven gaps, one site and two: the covariance written out and handed to an optimiser."""
    rng = np.random.default_rng(3)
    time = np.sort(rng.choice(200, 80, replace=False)).astype(float)
    half = time[:40]
    z = [rng.multivariate_normal(np.zeros(len(t)), 1.3 * 0.85 ** np.abs(t[:, None] - t)) for t in (time, half)]

    def loss(x, sites):
        rho, variance = 1 / (1 + np.exp(-x[0])), np.exp(x[1])
        return -sum(
            multivariate_normal.logpdf(each, np.zeros(len(t)), variance * rho ** np.abs(t[:, None] - t))
            for each, t in sites
        )

    for sites in ([(z[0], time)], [(z[0], time), (z[1], half)]):
        best = minimize(loss, [1.0, 0.0], args=(sites,), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9})
        found = persistence(
            norm.cdf(np.concatenate([each for each, _ in sites])),
            site=np.repeat(["a", "b"][: len(sites)], [len(t) for _, t in sites]),
            time=np.concatenate([t for _, t in sites]),
        )
        assert found.pooled == pytest.approx(1 / (1 + np.exp(-best.x[0])), abs=1e-5)


def test_batches_change_nothing_and_the_seed_decides(monkeypatch):
    draws = np.random.default_rng(1).normal(size=(20, 50))
    options = {"persistence": 0.7, "site": np.repeat(list("abcde"), 10), "time": np.tile(np.arange(10), 5)} | QUIET
    whole = trajectories(draws, random_seed=4, **options)
    xr.testing.assert_identical(trajectories(draws, random_seed=4, **options), whole)
    assert not whole.equals(trajectories(draws, random_seed=5, **options))
    monkeypatch.setattr(trajectory, "BATCH", 20 * 23)  # two sites at a time
    xr.testing.assert_identical(trajectories(draws, random_seed=4, **options), whole)


def test_rows_without_prediction_stay_so_and_halves_of_one_are_refused():
    draws = np.array([[1.0, np.nan], [5.0, np.nan], [3.0, np.nan]])
    joint = trajectories(draws, persistence=0.5, site="a", time=[1, 2], **QUIET)
    assert sorted(joint.values[:, 0]) == [1.0, 3.0, 5.0]
    assert np.isnan(joint.values[:, 1]).all()
    draws[0, 1] = 2.0
    with pytest.raises(ValueError, match="1 rows lack some of their draws; wanted all draws of a row, or none"):
        trajectories(draws, persistence=0.5, site="a", time=[1, 2], **QUIET)
    table = pd.DataFrame({"rho": [1.0]}, index=pd.Index(["a"], name="site"))
    with pytest.raises(ValueError, match=r"autocorrelation in \[0, 1\) per day or unit of time; got 1.0 for site 'a'"):
        trajectories(np.ones((3, 2)), persistence=Persistence(table, 0.5), site="a", time=[1, 2], **QUIET)
    with pytest.raises(ValueError, match="wanted one row a site-day"):
        trajectories(np.ones((3, 2)), persistence=0.5, site="a", time=[1, 1], **QUIET)


def test_from_a_fit_to_the_probability_of_a_drought():
    """Draws, PIT and distribution of a fit need no labels again; 4,000 draws: a probability within .04, four errors."""
    rng = np.random.default_rng(7)
    days = pd.date_range("2020-01-01", periods=120)
    frame = pd.DataFrame(
        {"site": np.repeat(["y1", "y2"], 120), "time": np.tile(days, 2), "m": rng.normal(0.2, 0.05, 240)}
    )
    frame["y"] = frame["m"] + rng.normal(0, 0.03, 240)
    ens = be.Ensemble.from_frame(frame, members=["m"], observation="y", site="site", time="time")
    fit = be.fit(be.SingleMember(), ens, method="em")
    lasting = persistence(be.score(fit, ens)["pit"])
    assert (lasting.table["rho"] < 0.3).all()  # errors of independent days: a standard error of .09
    drawn = trajectories(be.draw(fit, ens, size=4000, random_seed=1), persistence=lasting, random_seed=2, **QUIET)
    found = find_events(drawn, 0.15, **QUIET)
    assert list(found.probability().index) == ["y1", "y2"]
    exact = probability_below(distribution(fit, ens), np.full(240, 0.15))
    np.testing.assert_allclose((drawn < 0.15).mean("sample"), exact, atol=0.04)
    np.testing.assert_allclose(probability_below(drawn, 0.15), (drawn < 0.15).mean("sample"))
