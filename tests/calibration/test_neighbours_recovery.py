"""Recovery of the neighbours' covariance: the committed long run, a small run, and a twin that must fail."""

import importlib.util
import json
from pathlib import Path

import pytest

FILE = Path(__file__).parent / "neighbours.py"


@pytest.fixture(scope="module")
def calibration():
    spec = importlib.util.spec_from_file_location("neighbours_calibration", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def right(calibration, result):
    """Within the bounds that neighbours.py tells the chances of."""
    each = result.values()
    return (0.85 <= calibration.pooled(result) <= 0.95 and min(one["covered"] for one in each) > 0.82
            and max(one["chi_square"] for one in each) < 33.7)  # fmt: skip


@pytest.mark.skipif(
    not FILE.with_name("neighbours.json").exists(), reason="`make calibration` has not written its result"
)
def test_long_run_covers(calibration):
    result = json.loads(FILE.with_name("neighbours.json").read_text())
    assert result["simulations"] >= 200
    assert right(calibration, result["model"])
    assert not right(calibration, result["twin"])


@pytest.mark.slow
def test_small_run_covers_and_the_twin_does_not(calibration):
    """8 tables, 64 intervals: shares of tables have a standard deviation of about .04 about .9; .7 is 5 of them away."""
    assert calibration.pooled(calibration.summary([calibration.ranks(seed) for seed in range(1000, 1008)])) > 0.7
    assert (
        calibration.pooled(calibration.summary([calibration.ranks(seed, twin=True) for seed in range(1000, 1008)]))
        < 0.7
    )


@pytest.mark.calibration
def test_long_run(calibration):
    calibration.main()
    test_long_run_covers(calibration)
