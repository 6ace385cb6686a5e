"""The house itself: public names, what importing costs, the symlink, and no trace of the machine it was built on."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import bayesens

ROOT = Path(__file__).resolve().parents[2]
NAMES = (
    "BMA Climatology EMOS Ensemble EnsembleRegressor EqualWeights FittedMembers HBM IDR LinearPool Members Neighbours "
    "OnMembers Prior Recalibration ResidualField SingleMember SufficientStatistics add common_rows compare "
    "coverage_table cross_fit default_estimators dependence dependence_words draw error_profile fit fold_distances "
    "ladder ladder_effects ladder_words loo loo_table loo_words map neighbours paired_differences predict product_table "
    "read_fit recalibrate recalibrated_rows recalibration_table region_grid residual_field score score_table summary "
    "write_fit write_map"
)
PUBLIC = NAMES.split()
NUMERICAL = ("numpy", "pandas", "scipy", "xarray", "matplotlib", "arviz", "numba", "pytensor", "pymc")
SAMPLING = ("pytensor", "pymc", "nutpie")


def exists(module):
    return importlib.util.find_spec(module) is not None


WITHOUT_SAMPLER = (
    "app.cli.main app.demo plots inference.predict inference.fit_tree models.bma models.hbm ensemble.files ensemble.ensemble "
    "inference.loo simulate distributions.scores"
)
MODULES = WITHOUT_SAMPLER.split()
# One process does all of it, the lightest first, and says after each step what is loaded by then.
STEPS = {
    "import": "import time; t = time.perf_counter(); import bayesens; assert time.perf_counter() - t < 1, 'slow'",
    "help": """
import sys
from bayesens.app.cli.main import main
sys.argv = ['bayesens', '--help']
try: main()
except SystemExit as stop: assert not stop.code, stop.code
""",
    "plots": "import bayesens.plots",
    "names": "import bayesens as be; be.plots.weights; be.datasets.oznet; assert 'events' in dir(be)",
    **{module: f"import bayesens.{module}" for module in MODULES},
}


@pytest.fixture(scope="module")
def loaded():
    """Return which of the heavy packages a new process has loaded after each step."""
    code = f"import json, sys\nfor name, step in {STEPS!r}.items():\n    exec(step)\n"
    code += f"    print('LOADED', json.dumps([name, [x for x in {(*NUMERICAL, *SAMPLING)!r} if x in sys.modules]]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = [line.removeprefix("LOADED ") for line in done.stdout.splitlines() if line.startswith("LOADED ")]
    after = dict(json.loads(line) for line in said)
    assert list(after) == list(STEPS)
    return after


def test_public_names():
    assert sorted(bayesens.__all__) == PUBLIC


def test_files_are_found_by_their_names(loaded):
    assert "pymc" not in loaded["names"]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_resolves_is_documented_and_listed(name):
    assert getattr(bayesens, name).__doc__
    assert name in dir(bayesens)


def test_no_file_hides_the_function_of_its_name():
    """Python binds an imported submodule to its name in the package, where the function should be found."""
    assert not [name for name in PUBLIC if exists(f"bayesens.{name}")]


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonesuch"):
        bayesens.nonesuch  # noqa: B018


@pytest.mark.parametrize("step", ["import", "help"])
def test_import_and_help_are_light(loaded, step):
    assert loaded[step] == []


@pytest.mark.parametrize("module", MODULES)
def test_import_of_a_module_loads_no_sampler(loaded, module):
    """Describing, predicting and scoring a saved fit never import PyMC; models import it inside build."""
    assert not {*loaded[module]} & {*SAMPLING}


def test_plots_load_matplotlib_at_the_first_figure(loaded):
    assert "matplotlib" not in loaded["plots"]


def test_models_are_a_relative_symlink():
    link = ROOT / "bayesens" / "models"
    if not link.parent.is_dir():
        pytest.skip("the tests are not beside the source tree")
    assert link.is_symlink()
    assert os.readlink(link) == "../models"


@pytest.mark.parametrize(
    ("pattern", "most"), [("bayesens/**/*.py", 450), ("models/*.py", 260), ("tests/**/test_*.py", 450)]
)
def test_files_can_be_read_in_one_sitting(pattern, most):
    lines = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in ROOT.glob(pattern)}
    assert lines
    assert not {name: number for name, number in lines.items() if number > most}


def test_folders_can_be_seen_at_a_glance():
    modules = [
        path
        for top in ("bayesens", "models", "tests")
        for path in (ROOT / top).rglob("*.py")
        if path.name != "__init__.py"
    ]
    number = Counter(str(path.parent.relative_to(ROOT)) for path in modules)
    assert not {folder: n for folder, n in number.items() if n > 16}


def test_no_file_names_a_place_on_a_machine():
    place = re.compile(r"(?<![\w.])/(?:work|root|home|Users)/\w|[A-Z]:\\+Users\\")
    suffixes = {
        "",
        ".py",
        ".pyi",
        ".md",
        ".bib",
        ".toml",
        ".cff",
        ".yaml",
        ".yml",
        ".ipynb",
        ".json",
        ".cfg",
        ".txt",
        ".lock",
    }
    top = [path for path in ROOT.iterdir() if path.is_file()]
    folders = ("bayesens", "models", "tests", "notebooks", "docs", "paper", "conda", ".ci", ".github")
    below = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in top + below
        if path.is_file() and path.suffix in suffixes and path.name != ".coverage"
        if (match := place.search(path.read_text(encoding="utf-8")))
    ]
    assert not found
