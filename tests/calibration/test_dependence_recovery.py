"""Recovery of the members' error correlation: the committed long run, a small run, a twin that must fail, and HBM's posterior."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import bayesens as be

FILE = Path(__file__).parent / "dependence.py"


@pytest.fixture(scope="module")
def calibration():
    spec = importlib.util.spec_from_file_location("dependence_calibration", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(
    not FILE.with_name("dependence.json").exists(), reason="`make calibration` has not written its result"
)
def test_long_run_covers(calibration):
    """400 simulations of each correlation, nominal 90 %: see the chances in dependence.py."""
    result = json.loads(FILE.with_name("dependence.json").read_text())
    assert result["simulations"] >= 400
    assert min(calibration.flat(result["model"])) >= 0.85
    assert max(calibration.inner(result["model"])) <= 0.95
    assert result["model"]["k_eff"]["0.0"] >= 0.9  # K_eff is K, the most that it can be
    assert min(calibration.flat(result["twin"])) < 0.85


@pytest.mark.slow
def test_small_run_covers_and_the_twin_does_not(calibration):
    """20 tables of each correlation: where nine of ten hold, a share below 60 % is 4.5 standard deviations away."""
    assert min(calibration.flat(calibration.shares(range(1000, 1020)))) >= 0.6
    assert min(calibration.flat(calibration.shares(range(1000, 1006), twin=True))) < 0.6


@pytest.mark.slow
def test_the_posterior_of_the_hierarchical_model_holds_it(calibration):
    """12 fits: 7 or fewer 90 % intervals of the mean correlation that hold it have a chance of .4 %."""
    pair, held, middle = np.triu_indices(calibration.K, 1), [], {}
    for rho in calibration.CORRELATIONS:
        for seed in range(4):
            fit = be.fit(be.HBM(errors="factor"), calibration.ensemble(calibration.table(rho, 2000 + seed)), draws=250,
                         random_seed=seed, log_likelihood=False, progressbar=False)  # fmt: skip
            mean = fit["posterior"]["error_corr"].values[..., pair[0], pair[1]].mean(axis=-1)
            low, half, high = np.quantile(mean, [0.05, 0.5, 0.95])
            held.append(low <= rho <= high)
            middle.setdefault(rho, []).append(half)
    assert sum(held) >= 8
    for rho, medians in middle.items():  # 480 rows within stations: a standard error of .03 for one table
        assert np.mean(medians) == pytest.approx(rho, abs=0.08)


@pytest.mark.calibration
def test_long_run(calibration):
    calibration.main()
    test_long_run_covers(calibration)
