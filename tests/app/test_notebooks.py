"""The notebooks run from top to bottom, say what they say in the repository, and agree with the study files beside them."""

import re
from copy import deepcopy
from decimal import Decimal
from functools import partial
from pathlib import Path

import nbformat
import pandas as pd
import pytest

import bayesens as be
from bayesens.app.study.file import read_study
from bayesens.app.study.run import run_study
from shared_data import shared_data
from studies import undrawn

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST = 2_000_000  # bytes of a notebook
LEFT_OUT = {"timing", "chains"}
SHARE = 0.05  # by which a number may differ from that in the repository: other processors, other versions
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
PLACE = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|usr|Users|opt)\b|\b[A-Z]:\\|0x[0-9a-f]{6,}")
DATA = {"datasets.oznet": ("oznet", "raw"), "datasets.atlanta": ("atlanta",)}


QUICK = {"00_quickstart"}  # the others take some minutes each


def mark_of(name):
    return pytest.mark.slow if name in QUICK else pytest.mark.nightly


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def executed(path):
    return any(cell.get("outputs") for cell in code_cells(read(path)))


RUN = [path for path in NOTEBOOKS if executed(path)]
named = pytest.mark.parametrize("path", RUN, ids=lambda p: p.stem)


def tags(cell):
    return cell.metadata.get("tags", [])


def text_of(cell):
    """What a cell has printed and returned, as text; of a table in colours, whose text is an address, the words of its HTML."""
    out = []
    for one in cell.get("outputs", []):
        data = one.get("data", {})
        said = one.get("text", data.get("text/plain", ""))
        if " at 0x" in said and "text/html" in data:
            said = re.sub(r"<style.*?</style>|<[^>]+>", " ", data["text/html"], flags=re.DOTALL)
        out.append(said)
    return "\n".join(out)


def numbers(text):
    return [Decimal(found.replace(",", "").replace("−", "-")) for found in NUMBER.findall(text)]


def tolerance(cell, value):
    """5 % and a step of the last digit that is printed, or more if a tag such as "absolute 0.5" of the cell says so."""
    step = Decimal(1).scaleb(int(value.as_tuple().exponent))
    given = [float(tag.split()[1]) for tag in tags(cell) if tag.startswith("absolute ")]
    whole = step == 1 and "." not in str(value)
    return max([SHARE * abs(float(value)) + (0.0 if whole else 1.001 * float(step)), *given])


def changes(stored, fresh):
    """Where outputs of two runs differ by more than chance, in words; not in cells tagged "timing" or "chains" (few draws)."""
    out = []
    for k, (old, new) in enumerate(zip(code_cells(stored), code_cells(fresh), strict=True), start=1):
        if LEFT_OUT & set(tags(old)):
            continue
        before, after = numbers(text_of(old)), numbers(text_of(new))
        if len(before) != len(after):
            out.append(f"cell {k} has {len(after)} numbers, stored are {len(before)}")
        out += [
            f"cell {k} says {b}, stored is {a}"
            for a, b in zip(before, after, strict=False)
            if abs(float(a - b)) > tolerance(old, a)
        ]
    return out


def with_data(notebook, monkeypatch):
    """Show the notebook the folder of the data that it reads, or skip."""
    source = "\n".join(cell.source for cell in code_cells(notebook))
    for call, parts in DATA.items():
        if call in source:
            monkeypatch.setenv("BAYESENS_DATA", str(shared_data(*parts).parents[len(parts) - 1]))


# ---------------------------------------------------------------------------------------------------------- as they are stored
@named
def test_a_notebook_is_small_and_imports_public_names_alone(path):
    assert path.stat().st_size < MOST
    lines = [line.strip() for cell in code_cells(read(path)) for line in cell.source.splitlines()]
    asked = {line for line in lines if re.match(r"(import|from) bayesens\b", line)}
    assert asked <= {"import bayesens as be", "from bayesens import plots"}
    assert not any(re.search(r"\bbe\.(\w+\.)?_\w", line) for line in lines)


@named
def test_a_notebook_was_run_from_top_to_bottom_without_warnings(path):
    cells = code_cells(read(path))
    assert [cell.get("execution_count") for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert not [one for one in cell["outputs"] if one.output_type == "error" or one.get("name") == "stderr"]
        assert not PLACE.search(text_of(cell))


@named
def test_a_notebook_says_what_not_to_conclude(path):
    words = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    assert words[-1].lstrip().startswith("## What not to conclude") or "\n## What not to conclude" in words[-1]
    assert words[0].startswith("# ")


# ----------------------------------------------------------------------------------------------------------------- run again
def a_notebook(text, *marks):
    cell = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text=text)])
    cell.metadata["tags"] = list(marks)
    return nbformat.v4.new_notebook(cells=[cell])


@pytest.mark.parametrize(
    ("stored", "fresh", "marks", "differ"),
    [
        ("CRPS 0.0178 of 1,680 rows", "CRPS 0.0178 of 1,680 rows", (), False),
        ("CRPS 0.0178", "CRPS 0.0185", (), False),  # 4 %
        ("CRPS 0.0178", "CRPS 0.0190", (), True),  # 7 %
        ("CRPS 0.0178", "RMSE 0.0178", (), False),  # numbers alone
        ("p 0.01", "p 0.02", (), False),  # a step of the last digit
        ("p 0.01", "p 0.03", (), True),
        ("better by −0.4 %", "better by +0.4 %", (), True),
        ("better by −0.4 %", "better by +0.4 %", ("absolute 1",), False),
        ("better by −0.4 %", "better by +0.8 %", ("absolute 1",), True),
        ("28 stations", "29 stations", (), False),
        ("3 folds", "4 folds", (), True),
        ("1 2", "1 2 3", (), True),
        ("9.1 s", "20.5 s", ("timing",), False),
        ("weight 0.31", "weight 0.38", ("chains",), False),
    ],
)
def test_numbers_may_differ_by_chance_and_no_more(stored, fresh, marks, differ):
    assert bool(changes(a_notebook(stored, *marks), a_notebook(fresh))) == differ


def moved(cell, found):
    """A number as it is written, moved by twice what chance may do."""
    value = numbers(found[0])[0]
    return str(value + Decimal(str(round(2 * tolerance(cell, value) + 1, 3))))


@named
def test_an_altered_number_is_seen_in_every_cell(path):
    stored, fresh = read(path), read(path)
    assert not changes(stored, fresh)
    altered = set()
    for k, cell in enumerate(code_cells(fresh), start=1):
        for data in [one.get("data", one) for one in cell["outputs"]]:
            key = "text/plain" if "text/plain" in data else "text"
            if not LEFT_OUT & set(tags(cell)) and " at 0x" not in data[key] and NUMBER.search(data[key]):
                data[key] = NUMBER.sub(partial(moved, cell), data[key], count=1)
                altered.add(k)
    assert {int(text.split()[1]) for text in changes(stored, fresh)} == altered != set()


@pytest.mark.timeout(2400)  # the longest takes ten minutes on two idle cores
@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem, marks=mark_of(path.stem)) for path in NOTEBOOKS])
def test_a_notebook_says_the_same_when_it_is_run_again(path, monkeypatch, tmp_path):
    from nbclient import NotebookClient

    stored = read(path)
    with_data(stored, monkeypatch)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a notebook draws in its cells, wherever the other tests draw
    fresh = deepcopy(stored)
    for cell in code_cells(fresh):
        cell["outputs"], cell["execution_count"] = [], None
    NotebookClient(
        fresh, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert all(cell.get("execution_count") for cell in code_cells(fresh))
    if executed(path):
        assert not changes(stored, fresh)


# ------------------------------------------------------------------------------------------------- the study files beside them
STUDIES = sorted(FOLDER.glob("*.toml"))


def shown_scores(path):
    """CRPS by model that a notebook shows in its cell tagged "scores", in text as it is stored."""
    cell = next(cell for cell in code_cells(read(path)) if "scores" in tags(cell))
    head, _, *lines = text_of(cell).rstrip().splitlines()
    columns = head.split()
    place = columns.index("crps") - len(columns)
    return {" ".join(line.split()[: -len(columns)]): line.split()[place] for line in lines}


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_a_study_is_beside_its_notebook_which_says_how_to_run_it(path):
    notebook = path.with_suffix(".ipynb")
    assert notebook in NOTEBOOKS
    assert f"bayesens run {path.name}" in "\n".join(cell.source for cell in read(notebook).cells)
    assert read_study(path).study.random_seed == 1


def without_map(text):
    """A study without its last part, whose maps take time and tell nothing of scores."""
    before, part, _ = text.partition("\n[map]\n")
    return before if part else text


@pytest.mark.timeout(1500)
@pytest.mark.filterwarnings("ignore")  # what fits say of these data stands in the notebook
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=mark_of(name)) for name in ("00_quickstart", "01_uncertainty_analysis", "04_maps")],
)
def test_a_study_has_the_scores_that_its_notebook_shows(name, tmp_path, monkeypatch):
    path = FOLDER / f"{name}.ipynb"
    with_data(read(path), monkeypatch)
    if name == "01_uncertainty_analysis":
        region = be.simulate.region(n_sites=28, n_groups=3, n_times=60, random_seed=3).frame
        region.to_csv(tmp_path / "region.csv", index=False)
    if name == "04_maps":
        be.datasets.atlanta().to_csv(tmp_path / "atlanta.csv", index=False)
    text = without_map((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    with undrawn():
        run_study(tmp_path / "study.toml", tmp_path / "out", say=lambda _: None, progressbar=False)
    table = pd.read_csv(tmp_path / "out" / "tables" / "scores.csv")
    found = table[(table["group"] == "all") & (table["estimand"] == "site")].set_index("model")["crps"]
    shown = shown_scores(path)
    assert set(shown) == set(found.index)
    # Equal seeds give equal folds, members and fits: what is printed may differ by a step of its last digit.
    for model, value in shown.items():
        assert abs(found[model] - float(value)) <= 1.001 * 10.0 ** -len(value.partition(".")[2]), model


@pytest.mark.nightly
@pytest.mark.timeout(2400)
@pytest.mark.filterwarnings("ignore")
def test_a_study_climbs_the_ladder_of_its_notebook(tmp_path, monkeypatch):
    """The study has the same members, folds and fits: differences that are told apart, and their intervals, to the last digit."""
    notebook = read(FOLDER / "03_bma_versus_hbm.ipynb")
    with_data(notebook, monkeypatch)
    prepared = code_cells(notebook)[0].source  # what makes the table
    space: dict[str, object] = {}
    exec(prepared, space)
    space["table"].to_csv(tmp_path / "oznet.csv", index=False)
    text, _, _ = (FOLDER / "03_bma_versus_hbm.toml").read_text(encoding="utf-8").partition("\n[sensitivity]\n")
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    with undrawn():
        run_study(tmp_path / "study.toml", tmp_path / "out", say=lambda _: None, progressbar=False)
    check_ladder(notebook, pd.read_csv(tmp_path / "out" / "tables" / "ladder.csv"))


def check_ladder(notebook, ladder):
    """Every change of which the notebook gives the number is the study's."""
    words = next(text for cell in code_cells(notebook) if (text := text_of(cell)).startswith("site: With the same"))
    site, time = re.split(r"\n+(?=time: )", words)
    for line in ladder[ladder["clear"] & (ladder["difference"].abs() >= 1.0)].itertuples():
        shown = f"{line.difference:+.1f} % ({line.low:+.1f} to {line.high:+.1f})"
        assert shown in (site if line.estimand == "site" else time), (line.estimand, line.effect, shown)
