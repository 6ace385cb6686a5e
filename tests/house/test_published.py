"""What goes out with a release agrees with itself: recipe, citation, paper and archive."""

import re
import tomllib
from pathlib import Path

import yaml

import bayesens

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ON_CONDA = {"matplotlib": "matplotlib-base", "pymc": "pymc-base"}


def recipe():
    return yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))


def test_there_is_one_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == bayesens.__version__ == str(cited["version"]) == recipe()["context"]["version"]


def test_the_recipe_has_the_dependencies_of_the_package():
    wanted = {ON_CONDA.get(name, name): bound for name, bound in (text.split(">=") for text in PROJECT["dependencies"])}
    run = dict(text.split(" >=") for text in recipe()["requirements"]["run"])
    assert run == {"python": PROJECT["requires-python"].removeprefix(">="), **wanted}


def test_the_paper_cites_what_its_bibliography_has():
    text = (ROOT / "paper" / "paper.md").read_text(encoding="utf-8")
    known = re.findall(r"^@\w+\{(\w+),", (ROOT / "paper" / "paper.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"@(\w+)", text)) == set(known)
    assert len(known) == len(set(known))
    assert len(re.sub(r"^---.*?^---", "", text, flags=re.DOTALL | re.MULTILINE).split()) < 1000  # the journal's limit


def test_forms_for_issues_can_be_read():
    forms = [*(ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")]
    assert len(forms) == 4
    for form in forms:
        found = yaml.safe_load(form.read_text(encoding="utf-8"))
        assert form.stem == "config" or {"name", "description", "body"} <= set(found)
