"""Coverage of intervals of differences: the committed long run, a small run, a twin that must fail, and the exact truth."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import bayesens as be
from bayesens.inference.predict import distribution

FILE = Path(__file__).parent / "interval_coverage.py"


@pytest.fixture(scope="module")
def coverage():
    spec = importlib.util.spec_from_file_location("coverage_calibration", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def drawn(coverage, seed=1, stations=32, spells=24):
    rng = np.random.default_rng(seed)
    seen = coverage.effects(rng, stations, spells)
    days = np.arange(spells * coverage.DAYS)
    station = np.repeat(np.arange(stations), len(days))
    return rng, seen, coverage.table(rng, station, np.tile(days, stations), seen)


@pytest.mark.slow
def test_the_truth_is_the_mean_score_of_many_fresh_rows(coverage):
    """100,000 rows: 4.5 standard errors each of nine, a chance below .01 % in all for a correct program."""
    rng, seen, ensemble = drawn(coverage)
    many = 100_000
    every, new = np.arange(many), coverage.effects(rng, many, many)
    day, seen_day = coverage.DAYS * every, coverage.DAYS * (every % 24)
    fresh = {
        "new": (coverage.laws("site-time", seen)["population"], coverage.table(rng, every, day, new)),
        "time": (coverage.laws("time", seen)["conditional"], coverage.table(rng, every % 32, day, (seen[0], new[1]))),
        "site": (
            coverage.laws("site", seen)["conditional"],
            coverage.table(rng, every, seen_day, (new[0], seen[1])),
        ),
    }
    for model in coverage.MODELS.values():
        components = coverage.Components.of(be.fit(model, ensemble, method="em", progressbar=False))
        tree = be.fit(model, ensemble, method="em", progressbar=False)
        for law, rows in fresh.values():
            crps = distribution(tree, rows).crps(rows.require_observation())
            assert abs(coverage.expected_crps(components, law) - crps.mean()) < 4.5 * crps.std() / np.sqrt(many)


def test_the_rows_are_those_of_compare(coverage):
    _, seen, ensemble = drawn(coverage, stations=8)
    rows, _ = coverage.scored(ensemble, "site", coverage.laws("site", seen))
    wanted = be.compare(
        coverage.MODELS, ensemble, estimand="site", folds=coverage.FOLDS, method="em", progressbar=False
    )
    assert_allclose(rows["crps"], wanted["crps"].sel(model=rows["model"]), rtol=1e-6)


@pytest.mark.skipif(
    not FILE.with_name("interval_coverage.json").exists(), reason="`make calibration` has not written its result"
)
def test_long_run_covers(coverage):
    """See the chances in coverage.py."""
    result = json.loads(FILE.with_name("interval_coverage.json").read_text())
    assert result["simulations"] >= 200
    assert coverage.passes(result["model"])
    assert not coverage.passes(result["twin"])


@pytest.mark.slow
def test_small_run_covers_and_the_twin_does_not(coverage):
    """12 simulations of the case with most, of which two models are compared: fewer than 15 of 24 would be a chance of .1 %."""
    records = [coverage.simulate("site-time", "many", seed) for seed in range(12)]
    assert coverage.shares(records)["site-time, many"] >= 0.62
    assert coverage.shares(records, "twin")["site-time, many"] < 0.8


@pytest.mark.calibration
def test_long_run(coverage):
    coverage.main()
    test_long_run_covers(coverage)
