"""Figures of README and site are those of committed results, and messages on the site are those of the sources."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

import bayesens as be

ROOT = Path(__file__).resolve().parents[2]


def module(name):
    """Return a script of the site as a module; other scripts beside it are found by it alone."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "docs" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


measured = module("measured")
PAGES = [
    page
    for page in measured.pages()
    if page in measured.SENTENCES or "<!-- numbers:" in (ROOT / page).read_text("utf-8")
]


@pytest.mark.parametrize("page", PAGES)
def test_writing_the_figures_anew_changes_nothing(page):
    assert measured.written_anew(page) == (ROOT / page).read_text(encoding="utf-8"), "run: python docs/measured.py"


def test_every_page_with_sentences_is_there_and_every_table_is_shown():
    shown = {
        name
        for page in PAGES
        for name in re.findall(r"^<!-- numbers: (\w+) -->$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    }
    assert set(measured.SENTENCES) <= set(PAGES)
    assert shown == set(measured.TABLES)


def test_a_figure_that_was_changed_by_hand_is_written_back(tmp_path, monkeypatch):
    good = (ROOT / "docs/decisions/sums.md").read_text(encoding="utf-8")
    (tmp_path / "docs" / "decisions").mkdir(parents=True)
    (tmp_path / "docs" / "decisions" / "sums.md").write_text(
        good.replace("takes 4.1 s", "takes 3.7 s"), encoding="utf-8"
    )
    found = measured.facts()  # before the pages lie elsewhere
    monkeypatch.setattr(measured, "facts", lambda: found)
    monkeypatch.setattr(measured, "ROOT", tmp_path)
    assert measured.written_anew("docs/decisions/sums.md") == good
    (tmp_path / "docs" / "decisions" / "sums.md").write_text("No figure.", encoding="utf-8")
    with pytest.raises(ValueError, match=r"has 0 times: .* wanted it once"):
        measured.written_anew("docs/decisions/sums.md")


def test_tables_say_what_the_results_say():
    """Read apart from the script: single cells by hand."""
    bench = json.loads((ROOT / "tests/benchmarks/results.json").read_text("utf-8"))["cases"]
    ratio = bench["bma_naive_10k"]["seconds"] / bench["bma_auto_10k"]["seconds"]
    assert f"| {ratio:.0f} times faster |" in measured.TABLES["speed"]()
    ladder = json.loads((ROOT / "tests/reference/ladders.json").read_text("utf-8"))["Narmada"]["time"]["effects"]
    last = next(line for line in ladder if line["effect"] == "weights")
    assert (
        measured.TABLES["ladder"]()
        .replace("\u00a0", " ")
        .splitlines()[2]
        .endswith(f"| **{last['difference']:.1f} ({last['low']:.1f} to {last['high']:.1f})** |")
    )


def test_a_message_is_on_the_page_of_messages():
    messages = module("messages").messages()
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    assert {door for line in re.findall(r"```{messages} (.*)", page) for door in line.split()} == set(messages)
    every = {text for door in messages.values() for text, _ in door}
    with pytest.raises(TypeError, match=r"HBM\(series=...\) is True or False; got 3"):
        be.HBM(series=3)
    assert "HBM(series=...) is True or False; got <series>." in every
