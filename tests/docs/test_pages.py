"""The site names what exists: its code runs, its commands have the options that it gives them, and no public name is left out."""

import contextlib
import doctest
import inspect
import io
import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

import bayesens as be

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_names" not in path.parts)
PAGES = [ROOT / "README.md", *DOCS]
BLOCK = re.compile(r"^```(python|pycon)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
IDS = [path.relative_to(ROOT).with_suffix("").as_posix().removeprefix("docs/") for path in PAGES]
SLOW = {"README", "gallery", "howto/maps", "start"}  # some seconds each
RUN = [
    pytest.param(path, id=name, marks=[pytest.mark.slow] * (name in SLOW))
    for path, name in zip(PAGES, IDS)
    if BLOCK.search(path.read_text(encoding="utf-8"))
]


def run_page(path, folder):
    """Run the Python blocks of a page in one namespace, from top to bottom; what sessions print is compared."""
    text = path.read_text(encoding="utf-8")
    names = {"__name__": "page"}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        if block[1] == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile("\n" * line + block[2], str(path), "exec"), names)
            plt.close("all")
            if said := re.search(r"# CRPS ([\d.]+), 90 % intervals cover (\d+) %", block[2]):  # README says what comes
                scores = names["scores"]
                assert float(scores["crps"]) == pytest.approx(float(said[1]), abs=0.15)
                assert float(100 * scores["covered"].item()) == pytest.approx(float(said[2]), abs=1)
        else:
            test = doctest.DocTestParser().get_doctest(block[2], names, path.name, str(path), line)
            said = io.StringIO()
            runner = doctest.DocTestRunner(optionflags=FLAGS)
            runner.run(test, out=said.write, clear_globs=False)
            assert not runner.failures, said.getvalue()
            names.update(test.globs)


@pytest.mark.filterwarnings("ignore::UserWarning")  # what a page may show
@pytest.mark.parametrize("path", RUN)
def test_code_of_the_page_runs(path, tmp_path, monkeypatch):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    run_page(path, tmp_path)


def documented():
    """Return the names in the lists of the API pages, as they come."""
    pages = [path.read_text(encoding="utf-8") for path in PAGES if path.parent.name == "api"]
    return [name for page in pages for name in re.findall(r"^   bayesens\.([\w.]+)$", page, re.MULTILINE)]


def public():
    """Return the names that users reach: those of the package, and what each of its faces defines."""
    yield from be.__all__
    for face in be._FACES:
        module = getattr(be, face)
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value))
            if value.__module__ == module.__name__
        ]
        yield from (f"{face}.{name}" for name in names)


def test_every_public_name_is_documented_once():
    found = documented()
    assert len(found) == len(set(found))
    assert set(found) - set(public()) <= {"thresholds.probability_below", "worlds.WORLDS"}  # from elsewhere; a value
    assert not set(public()) - set(found)


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_tests_and_files_that_a_page_names_exist(path):
    text = path.read_text(encoding="utf-8")
    for file, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text):
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_names_in_the_text_of_a_page_exist(path):
    for words in re.findall(r"`be\.(?!NAME)([\w.]+)", BLOCK.sub("", path.read_text(encoding="utf-8"))):
        found = be
        for word in words.rstrip(".").split("."):
            assert hasattr(found, word), f"be.{words}"
            found = getattr(found, word)


@pytest.mark.parametrize("path", PAGES, ids=IDS)
def test_pages_to_which_a_page_links_exist(path):
    text = re.sub(r"`[^`\n]+`", "", BLOCK.sub("", path.read_text(encoding="utf-8")))
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (path.parent / target).is_file(), target


COMMANDS = [
    pytest.param(line.strip().removeprefix("$ "), id=f"{name}: {line.strip()[2:40]}")
    for path, name in zip(PAGES, IDS)
    for block in re.findall(r"^```console\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ bayesens ")
]


@pytest.mark.parametrize("line", COMMANDS)
def test_command_has_the_options_that_a_page_gives_it(line):
    from typer.main import get_command

    from bayesens.app.cli.main import app

    command, words = get_command(app), line.split()[1:]
    if not words[0].startswith("-"):
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
