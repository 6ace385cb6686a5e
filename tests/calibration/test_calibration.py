"""Recovery of HBM's parameters: the committed long run, a small run, and a twin that must fail."""

import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parent / "recovery.py"


@pytest.fixture(scope="module")
def recovery():
    spec = importlib.util.spec_from_file_location("recovery", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(
    not FILE.with_name("recovery.json").exists(), reason="`make calibration` has not written its result"
)
def test_long_run_covers():
    """40 simulations, nominal 90 %: see the chances in recovery.py."""
    result = json.loads(FILE.with_name("recovery.json").read_text())
    assert result["simulations"] >= 40
    assert 0.85 <= result["model"]["pooled"] <= 0.95
    assert min(result["model"].values()) >= 0.75
    assert min(result["twin"].values()) < 0.75


@pytest.mark.slow
def test_small_run_covers_and_the_twin_does_not(recovery):
    """4 simulations of about 25 intervals: 70 % is four standard deviations below 90 %, a chance below .1 %."""
    assert recovery.run(recovery.MODEL, range(100, 104))["pooled"] >= 0.70
    assert min(recovery.run(recovery.TWIN, range(100, 103)).values()) < 0.70


@pytest.mark.calibration
def test_long_run(recovery):
    recovery.main()
    test_long_run_covers()
