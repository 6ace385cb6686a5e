"""What holds for every test: threads of BLAS, figures, and the order of slow tests."""

import os
import sys

import hypothesis
import pytest

# A machine that is busy is no fault of the code; time limits of tests are pytest's. Examples are the same in every run, so
# that a run says something about the code alone; `make properties` looks for new ones.
hypothesis.settings.register_profile("the same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("new", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("the same")
# Two processes share two cores, and threads of BLAS and of OpenMP (boosted trees) wait for each other by spinning: tests of small
# matrices took twice the processor time, one of boosted trees 18 s instead of 1 on a busy machine. It must stand here: processes
# of pytest-xdist, and those of tests, start with it and import numpy later.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def pytest_collection_modifyitems(items):
    """Slow tests that may take longer than others go first: at the end no process waits long for the other."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None or item.get_closest_marker("timeout") is None)


@pytest.fixture(autouse=True)
def _close_figures():
    """Leave no figure behind for the next test."""
    yield
    # Examples in docstrings open figures too, and beyond 20 of them there is a warning.
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
