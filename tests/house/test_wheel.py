"""The wheel: it holds all files of the package, those behind the symlink too, and works without the source tree."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import sys, bayesens, bayesens.models as models
assert bayesens.__file__.startswith(sys.argv[1]), bayesens.__file__
print(*sorted(models.__all__))
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Build a wheel, and unpack it where an installation would."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("there is no uv to build the wheel with")
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [uv, "build", "--wheel", "--out-dir", folder, ROOT], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run_beside(unpacked, folder, *arguments):
    """Run Python in an empty folder, with the wheel before all other places that it imports from."""
    paths = os.pathsep.join([str(unpacked), str(ROOT / "tests" / "helpers")])
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=folder,
                          env=os.environ | {"PYTHONPATH": paths})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(unpacked):
    """Models lie behind a symlink in the source tree; an installation must have them as files."""
    sources = (ROOT / "bayesens", ROOT / "bayesens" / "models")  # a walk does not follow the link
    wanted = {
        path.relative_to(ROOT) for folder in sources for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }  # fmt: skip
    held = {path.relative_to(unpacked) for path in (unpacked / "bayesens").rglob("*") if path.is_file()}
    assert Path("bayesens/models/bma.py") in wanted
    assert held == wanted
    assert not any(path.is_symlink() for path in (unpacked / "bayesens").rglob("*"))


@pytest.mark.slow
def test_contracts_are_kept_by_the_wheel(unpacked, tmp_path):
    """Tests of a model, copied from the source tree and run where nothing else of it is found."""
    from bayesens import models

    assert run_beside(unpacked, tmp_path, "-P", "-c", PROBE, str(unpacked)).split() == sorted(models.__all__)
    shutil.copytree(ROOT / "tests" / "contract", tmp_path / "contract", ignore=shutil.ignore_patterns("__pycache__"))
    said = run_beside(unpacked, tmp_path, "-m", "pytest", "contract", "-q", "-k", "Climatology",
                      "-p", "no:cacheprovider")  # fmt: skip
    assert " passed" in said
    assert "failed" not in said
