"""What every test leaves behind for the next one: no figure."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if (
        "matplotlib.pyplot" in sys.modules
    ):  # examples in docstrings open figures too, and beyond 20 of them there is a warning
        sys.modules["matplotlib.pyplot"].close("all")
