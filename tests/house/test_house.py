"""The house itself: public names, what importing costs, the symlink, and no trace of the machine it was built on."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bayesens

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = [
    "BMA",
    "Climatology",
    "EMOS",
    "Ensemble",
    "EnsembleRegressor",
    "EqualWeights",
    "FittedMembers",
    "HBM",
    "LinearPool",
    "Members",
    "OnMembers",
    "Prior",
    "SingleMember",
    "SufficientStatistics",
    "add",
    "common_rows",
    "compare",
    "coverage_table",
    "cross_fit",
    "default_estimators",
    "dependence",
    "dependence_words",
    "draw",
    "fit",
    "ladder",
    "ladder_effects",
    "ladder_words",
    "loo",
    "loo_table",
    "paired_differences",
    "predict",
    "product_table",
    "read_fit",
    "score",
    "score_table",
    "summary",
    "write_fit",
]
NUMERICAL = ("numpy", "pandas", "scipy", "xarray", "matplotlib", "arviz", "numba", "pytensor", "pymc")
SAMPLING = ("pytensor", "pymc", "nutpie")


def exists(module):
    return importlib.util.find_spec(module) is not None


def fresh(code, loaded):
    """Run code in a new process and return which of the packages it loaded."""
    code += f"\nimport sys; print('LOADED', *[name for name in {loaded!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.rsplit("LOADED", 1)[1].split()


def test_public_names():
    assert sorted(bayesens.__all__) == PUBLIC


def test_files_are_found_by_their_names():
    done = fresh("import bayesens as be; be.plots.weights; be.datasets.oznet; assert 'events' in dir(be)", ("pymc",))
    assert done == []


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


def test_import_is_light():
    code = "import time; t = time.perf_counter(); import bayesens; assert time.perf_counter() - t < 1, 'slow'"
    assert fresh(code, NUMERICAL) == []


@pytest.mark.skipif(not exists("bayesens.app.cli.main"), reason="there is no bayesens.app.cli.main")
def test_help_is_light():
    code = "\n".join(
        [
            "import sys; sys.argv = ['bayesens', '--help']",
            "from bayesens.app.cli.main import main",
            "try: main()",
            "except SystemExit as stop: assert not stop.code, stop.code",
        ]
    )
    assert fresh(code, NUMERICAL) == []


@pytest.mark.parametrize("module", [
    "app.cli.main", "app.demo", "plots", "inference.predict", "inference.fit_tree", "models.bma", "models.hbm", "ensemble.files",
    "ensemble.ensemble", "inference.loo", "simulate", "distributions.scores",
])  # fmt: skip
def test_import_of_a_module_loads_no_sampler(module):
    """Describing, predicting and scoring a saved fit never import PyMC; models import it inside build."""
    assert fresh(f"import bayesens.{module}", SAMPLING) == []


@pytest.mark.skipif(not exists("bayesens.plots"), reason="there is no bayesens.plots")
def test_plots_load_matplotlib_at_the_first_figure():
    assert fresh("import bayesens.plots", ("matplotlib",)) == []


def test_models_are_a_relative_symlink():
    link = ROOT / "bayesens" / "models"
    if not link.parent.is_dir():
        pytest.skip("the tests are not beside the source tree")
    assert link.is_symlink()
    assert os.readlink(link) == "../models"


def test_no_file_names_a_place_on_a_machine():
    place = re.compile(r"(?<![\w.])/(?:work|root|home|Users)/\w|[A-Z]:\\+Users\\")
    suffixes = {"", ".py", ".pyi", ".md", ".toml", ".cff", ".yaml", ".yml", ".ipynb", ".json", ".cfg", ".txt", ".lock"}
    top = [path for path in ROOT.iterdir() if path.is_file()]
    folders = ("bayesens", "models", "tests", "notebooks", ".ci")
    below = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in top + below
        if path.is_file() and path.suffix in suffixes and path.name != ".coverage"
        if (match := place.search(path.read_text(encoding="utf-8")))
    ]
    assert not found
