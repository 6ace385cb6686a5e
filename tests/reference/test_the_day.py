"""The site's table of what the day is worth says what the committed run found."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def in_words(line):
    """A difference with its interval, as the site writes it."""
    value, low, high = (
        f"{line[name]:+.1f}".replace("+0.", "+.").replace("-0.", "-.") for name in ("difference", "low", "high")
    )
    return f"{value} % ({low} to {high})"


@pytest.mark.parametrize("name", ["atlanta", "oznet"])
def test_the_table_is_that_of_the_run(name):
    found = json.loads((HERE / "the_day.json").read_text(encoding="utf-8"))[name]
    page = (HERE.parents[1] / "docs" / "evidence" / "day.md").read_text(encoding="utf-8").replace("\u00a0", " ")
    for line in found["differences"]:
        assert in_words(line) in page, line["model"]
