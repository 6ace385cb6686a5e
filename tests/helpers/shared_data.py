"""Where the data for development lie, and a plain reason to skip where they do not."""

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("BAYESENS_DATA") or Path(__file__).parents[3] / "shared" / "data")


def shared_data(*parts):
    """Return the path of a file of the shared data, or skip the test."""
    path = ROOT.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the development data have no {'/'.join(parts)} here; set BAYESENS_DATA to their folder")
    return path
