"""The timed cases of `make bench` still run: one of them, on few rows, in its own process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from shared_data import shared_data

CASES = Path(__file__).parent / "cases.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["em_18k_one", "bma_auto_10k", "members_grid_mlr"])
def test_a_case_is_prepared_run_and_measured(name):
    if name.startswith("members"):
        shared_data("atlanta")
    done = subprocess.run(
        [sys.executable, str(CASES), name, "0.05"], input="run\nend\n", capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    ready, ran, measured = done.stdout.splitlines()
    assert (ready, ran) == ("ready", "done")
    found = json.loads(measured)
    assert found["peak_mib"] > 0.0
    assert ("sampling_seconds" in found) == (name == "bma_auto_10k")
