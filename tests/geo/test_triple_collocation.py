"""Triple collocation against known errors, the textbook formula and rows that are really copied."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from bayesens import Ensemble
from bayesens.geo.triple_collocation import _moments, check_origins, triple_collocation

SOURCES = ["probe", "radar", "model"]
ORIGIN = {"probe": "probe", "radar": {"ascat"}, "model": "gldas+weather"}
TRUE = pd.DataFrame({"scale": [1.0, 2.0, -0.5], "error": [0.5, 1.0, 0.3]}, index=SOURCES)


def collocated(rng, days, stations):
    """AR(1) truth, three sources with offsets of their own at every station."""
    truth = np.empty((days, stations))
    truth[0] = rng.normal(size=stations)
    for t in range(1, days):
        truth[t] = 0.9 * truth[t - 1] + np.sqrt(1 - 0.81) * rng.normal(size=stations)
    t, s = np.indices(truth.shape)
    table = pd.DataFrame({"station": [f"s{i}" for i in s.ravel()], "day": t.ravel()})
    for name, (scale, error) in TRUE.iterrows():
        y = scale * truth + rng.normal(0.0, 3.0, stations) + rng.normal(0.0, error, truth.shape)
        table[name] = y.ravel()
    return table


def collocate(table, **options):
    return triple_collocation(
        table, **{"sources": SOURCES, "origin": ORIGIN, "station": "station", "time": "day"} | options
    )


def test_error_variances_are_recovered():
    """60 stations x 1,500 days: within 5 %, which is 5 standard deviations (measured over 40 seeds) or more of every estimate."""
    found = collocate(collocated(np.random.default_rng(1), 1500, 60), replicates=0)
    assert_allclose(found["error_var"], TRUE["error"] ** 2, rtol=0.05)
    signal = TRUE["scale"] ** 2
    r2 = signal / (signal + TRUE["error"] ** 2)
    assert_allclose(found["r2"], r2, rtol=0.02)
    assert_allclose(found["correlation"], np.sqrt(r2) * np.sign(TRUE["scale"]), rtol=0.02)
    assert_allclose(found["snr_db"], 10 * np.log10(signal / TRUE["error"] ** 2), atol=0.3)
    assert_allclose(found["scaling"], TRUE["scale"], rtol=0.05)
    assert found["valid"].all()


def test_one_station_is_the_textbook_formula_on_its_covariance():
    table = collocated(np.random.default_rng(2), 200, 3)
    found = collocate(table, by="station", replicates=0)
    c = np.cov(table.loc[table["station"] == "s1", SOURCES].to_numpy().T)
    expected = [
        c[0, 0] - c[0, 1] * c[0, 2] / c[1, 2],
        c[1, 1] - c[0, 1] * c[1, 2] / c[0, 2],
        c[2, 2] - c[0, 2] * c[1, 2] / c[0, 1],
    ]
    assert_allclose(found.loc["s1", "error_var"], expected, rtol=1e-10)
    assert found.index.names == ["station", "source"]
    assert (found["n"] == 200).all()


def test_bootstrap_replicates_are_those_of_copied_rows():
    """Moments of a replicate against covariances of a table in which the rows are really repeated."""
    rng = np.random.default_rng(3)
    x, codes, blocks = rng.normal(size=(40, 3)), np.repeat([0, 1], 20), np.tile(np.repeat([0, 1, 2, 3], 5), 2)
    drawn = np.array([[1.0, 2.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    square, dof = _moments(x, codes, blocks, 2, drawn)
    for r in range(2):
        for s in range(2):
            times = np.repeat(np.arange(40), (drawn[blocks, r] * (codes == s)).astype(int))
            assert_allclose(square[s, r] / dof[s, r], np.cov(x[times].T), atol=1e-12)


@pytest.mark.calibration
def test_bootstrap_intervals_cover():
    """200 simulations: a coverage of .9 falls below .83 with a chance of about 1e-3. The pigeonhole bootstrap errs on the long
    side (.98 and more here, where errors are independent from day to day)."""
    hits = np.zeros(3)
    for seed in range(200):
        found = collocate(collocated(np.random.default_rng(seed), 240, 12), replicates=200, random_seed=seed)
        hits += (
            (found["error_var_low"] <= TRUE["error"] ** 2) & (TRUE["error"] ** 2 <= found["error_var_high"])
        ).to_numpy()
    assert (hits / 200 > 0.83).all(), hits / 200


def test_intervals_hold_the_estimate_and_are_repeatable():
    table = collocated(np.random.default_rng(3), 120, 8)
    found, again = (collocate(table, replicates=100, random_seed=7) for _ in range(2))
    pd.testing.assert_frame_equal(found, again)
    assert (found["error_var_low"] < found["error_var"]).all()
    assert (found["error_var"] < found["error_var_high"]).all()
    alone = collocate(table, by="station", replicates=100, random_seed=7)
    assert (alone["error_var_low"] < alone["error_var_high"]).all()


def test_a_negative_error_variance_is_reported():
    """Errors of radar and model that are one: what they share is taken for truth, and the probe's for error."""
    rng = np.random.default_rng(1)
    truth, common = rng.normal(size=(2, 400))
    table = pd.DataFrame({"probe": truth + 0.01 * common, "radar": truth + common, "model": truth - 0.5 * common})
    table = table.assign(station="s", day=np.arange(400))
    with pytest.warns(UserWarning, match="1 of 3 estimates are not possible.*'probe'"):
        found = collocate(table, replicates=0)
    assert found.loc["probe", "error_var"] < 0.0
    assert not found.loc["probe", "valid"]
    assert found.loc["probe", ["error_sd", "correlation", "snr_db"]].isna().all()


def test_sources_that_share_an_origin_are_refused_by_name():
    table = collocated(np.random.default_rng(1), 60, 2)
    with pytest.raises(ValueError, match="'probe' and 'model' share 'stations': their errors are not independent"):
        collocate(table, origin=ORIGIN | {"probe": "Stations ", "model": ["gldas", "stations"]})
    with pytest.raises(ValueError, match="'radar' has no origin"):
        collocate(table, origin={"probe": "a", "model": "b"})
    with pytest.raises(KeyError, match="no source 'rador'"):
        collocate(table, origin=ORIGIN | {"rador": "b"})
    with pytest.raises(ValueError, match="'a' and 'b' share 'one training table'"):
        check_origins(["a", "b", "c"], {"a": "x", "b": "y", "c": "z"}, trained=["a", "b"])


def test_members_trained_on_one_table_are_refused_whatever_is_declared():
    table = collocated(np.random.default_rng(1), 60, 2)
    ensemble = Ensemble.from_frame(table, members=["radar", "model"], observation="probe", site="station", time="day")
    assert collocate(ensemble, replicates=0)["valid"].all()
    ensemble.dataset["prediction"].attrs["trained"] = "cross-fitted, 2 folds"
    with pytest.raises(ValueError, match="'radar' and 'model' share 'one training table'"):
        collocate(ensemble)


def test_bad_triples_are_refused():
    table = collocated(np.random.default_rng(1), 60, 2)
    with pytest.raises(ValueError, match="wanted three different columns"):
        collocate(table, sources=["probe", "radar", "probe"])
    with pytest.raises(ValueError, match="by='cell'; wanted 'pooled' or 'station'"):
        collocate(table, by="cell")
    with pytest.raises(ValueError, match="no station has 100 rows with all of"):
        collocate(table, min_rows=100)
    with pytest.raises(ValueError, match="'radar' are constant"):
        collocate(table.assign(radar=1.0))
    with pytest.raises(ValueError, match="replicates=3; wanted 50 or more"):
        collocate(table, replicates=3)
    table.loc[(table["station"] == "s1") & (table["day"] > 20), "radar"] = np.nan
    with pytest.warns(UserWarning, match="1 of 2 stations have fewer than 30 complete rows.*'s1'"):
        found = collocate(table, replicates=0)
    assert (found["n"] == 60).all()
