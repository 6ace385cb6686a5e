"""README's table of what the day is worth says what the committed run found."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def in_words(line):
    """A difference with its interval, as README writes it."""
    value, low, high = (
        f"{line[name]:+.1f}".replace("+0.", "+.").replace("-0.", "-.") for name in ("difference", "low", "high")
    )
    return f"{value} % ({low} to {high})"


@pytest.mark.parametrize("name", ["atlanta", "oznet"])
def test_the_table_is_that_of_the_run(name):
    found = json.loads((HERE / "the_day.json").read_text(encoding="utf-8"))[name]
    readme = (HERE.parents[1] / "README.md").read_text(encoding="utf-8")
    for line in found["differences"]:
        if line["model"] not in ("HBM", "EMOS"):
            assert in_words(line) in readme, line["model"]
