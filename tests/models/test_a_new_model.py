"""One file, one line: a model that is new is known to commands, studies, reports, fits and comparisons."""

import subprocess
import sys

import pytest

from bayesens import models

TOY = '''"""A model of a test."""
from dataclasses import dataclass
from typing import ClassVar
from bayesens.models.climatology import Climatology

@dataclass(frozen=True)
class Toy(Climatology):
    """The distribution of the observations, under another name."""

    spelled: ClassVar[tuple[str, str]] = ("toy", "a thing to play with")
    assumes: ClassVar[str] = "plays with the observations."
    meaning: ClassVar[str] = "what children play with"
    baseline: ClassVar[bool] = False
'''
STUDY = """
[data]
table = "t.csv"
observation = "y"
[members]
columns = ["a", "b"]
[models.Toy]
model = "toy"
[models.Climatology]
model = "climatology"
[evaluation]
method = "em"
estimands = ["row"]
replicates = 50
"""
CODE = """
import json, sys
import numpy as np, pandas as pd
from bayesens import models
models.__path__.append(sys.argv[1])
models._HOME["Toy"] = ("toy", "toy")  # the line of its own
models.KINDS["toy"] = "Toy"
import bayesens as be
from bayesens.app.cli.main import app
rng = np.random.default_rng(1)
y = rng.normal(size=60)
pd.DataFrame({"a": y + rng.normal(size=60), "b": y + rng.normal(size=60), "y": y}).to_csv("t.csv", index=False)
app(["fit", "t.csv", "--members", "a,b", "--observation", "y", "--model", "toy", "--method", "em", "--out", "fit.nc"],
    standalone_mode=False)
told = be.summary(be.read_fit("fit.nc")).facts["model"]
app(["run", "study.toml", "--out", "results", "--no-progress"], standalone_mode=False)
page = open("results/report.html").read()
print(json.dumps({"model": told, "called": str(be.models.Toy()), "report": [text in page for text in (
    "plays with the observations", "what children play with")]}))
"""


@pytest.mark.slow
def test_a_model_in_a_file_of_its_own_is_known_everywhere(tmp_path):
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "study.toml").write_text(STUDY)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.splitlines()[-1]
    assert '"model": "Toy, written by bayesens' in found
    assert '"called": "Toy(' in found
    assert '"report": [true, true]' in found


@pytest.mark.parametrize("name", models.KINDS.values())
def test_every_model_says_what_the_protocol_lists(name):
    cls = getattr(models, name)
    assert cls.spelled[0] and cls.spelled[1]  # noqa: PT018
    assert cls.assumes.endswith(".")
    assert isinstance(cls.meaning, str)
    assert (type(cls.baseline), type(cls.joint)) == (bool, bool)
    methods = [method for method, value in vars(models.Model).items() if callable(value) and not method.startswith("_")]
    assert {"build", "predictive", "resolve"} <= set(methods)
    assert all(callable(getattr(cls, method)) for method in methods)
    assert set(models.KINDS.values()) == set(models.__all__)
