"""What the day's observations at other stations are worth, on two data sets with members trained anew in every fold.

``BAYESENS_DATA=... python tests/reference/the_day.py [CACHE]`` writes ``the_day.json``, from which the site has its table, in
about a quarter of an hour; finished folds are kept in the cache.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xarray as xr

import bayesens as be
from bayesens.app.study.data import study_data
from bayesens.app.study.file import read_study

HERE = Path(__file__).parent
RESULT = HERE / "the_day.json"
SEED, DRAWS = 1, 500
WIDE = ("mean", "spread", "neighbours_sd")
INNER = {"atlanta": 4, "oznet": 5}


def members_of(name: str, folder: Path, *, features: bool = False) -> be.Members:
    """Members as the demo has them, with neighbours; Atlanta's without the satellite, which lacks half of the rows."""
    text = (HERE.parents[1] / "bayesens" / "app" / f"demo_{name}.toml").read_text(encoding="utf-8")
    text = re.sub(r"\[map\].*", "", text, flags=re.DOTALL).replace('columns = ["ctm", "aod"]', 'columns = ["ctm"]')
    text = text.replace("scale = { aod = 30 }", "").replace("neighbours = true", "")
    text = re.sub(r"(\[members\])", rf"\1\nneighbours = true\nneighbour_features = {str(features).lower()}", text)
    if name == "atlanta":
        be.datasets.atlanta().to_csv(folder / "atlanta.csv", index=False)
    (folder / "study.toml").write_text(text, encoding="utf-8")
    source = study_data(read_study(folder / "study.toml")).source
    assert isinstance(source, be.Members)
    return source


def models_of(members: be.Members, *, features: bool = False) -> dict[str, Any]:
    """Models that are told the day, and the same without."""
    untold = tuple(one for one in members.names if one != "neighbours")
    model = be.BMA(site=False, group=False)
    wide = be.BMA(site=False, group=False, scale=WIDE)
    if features:
        return {"BMA, members learn from the day": be.OnMembers(model, untold), "BMA of the day, too": wide}
    alone = be.OnMembers(be.BMA(site=False, group=False, scale=("mean", "neighbours_sd")), ("neighbours",))
    every = {"BMA": model, "HBM": be.HBM(), "EMOS": be.EMOS()}
    return (
        {name: be.OnMembers(one, untold) for name, one in every.items()}
        | {f"{name} of the day": one for name, one in every.items()}
        | {"the same, widths by its sd": wide, "neighbours alone": alone}
    )


def summary(rows: xr.Dataset, reference: str) -> dict[str, Any]:
    """Scores, differences and coverage by season."""
    tables = {
        "scores": be.score_table(rows, replicates=2000, random_seed=SEED),
        "differences": be.paired_differences(rows, reference, random_seed=SEED).query("metric == 'crps'"),
        "coverage": be.coverage_table(rows, by=["season"]).query("level == 0.9"),
    }
    return {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}


def main(cache: Path) -> None:
    """Run all of it."""
    result: dict[str, Any] = {
        "seed": SEED, "draws": DRAWS,
        "versions": {name: version(name) for name in ("bayesens", "numpy", "pymc", "scikit-learn", "xgboost")},
    }  # fmt: skip
    for name in ("atlanta", "oznet"):
        for features in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                members = members_of(name, Path(folder), features=features)
            models = models_of(members, features=features)
            rows = be.compare(models, members, estimand="site", inner_folds=INNER[name], draws=DRAWS, random_seed=SEED,
                              cache=cache / f"{name}-{features}")  # fmt: skip
            result[f"{name}{', members learn from it' * features}"] = summary(rows, next(iter(models)))
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
