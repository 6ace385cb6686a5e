"""Members that are trained beside each other leave each other the cores."""

import json
import os
import subprocess
import sys

import pytest

# In a process of its own: a thread begins with the number that the process was started with, and the tests' have one.
CODE = """
import json, sys
from sklearn.ensemble import HistGradientBoostingRegressor  # brings OpenMP
from threadpoolctl import threadpool_info
from bayesens.members.fitted import run

def threads():
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "openmp"]

print(json.dumps([threads(), *run([threads] * 3, "", int(sys.argv[1]), False), threads()]))
"""


@pytest.mark.parametrize(("n_jobs", "expected"), [(1, 2), (2, 1)])
def test_openmp_has_one_thread_beside_others_and_what_it_had_alone(n_jobs, expected):
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(n_jobs)], env=environment, capture_output=True, text=True, check=True
    )
    before, *inside, after = json.loads(done.stdout)
    assert set(before) == {2}
    assert [set(one) for one in inside] == [{expected}] * 3
    assert after == before
