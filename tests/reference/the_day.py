"""What the day's observations at other stations are worth, on two data sets with members trained anew in every fold.

``BAYESENS_DATA=... python tests/reference/the_day.py [CACHE]`` writes ``the_day.json``, from which the site has its table;
finished folds are kept in the cache. Beside models that are told the day stand its rivals: the forest alone,
which learns from neighbours as from any covariate, and regression kriging (``regression_kriging.py``), a model in a file of its
own.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import bayesens as be
from bayesens import models
from bayesens.app.study.data import study_data
from bayesens.app.study.file import read_study

HERE = Path(__file__).parent
RESULT = HERE / "the_day.json"
SEED, DRAWS = 1, 500
WIDE = ("mean", "spread", "neighbours_sd")
INNER = {"atlanta": 4, "oznet": 5}
DEGREE = 111.2  # km
MIDDLE = (-84.4, 33.75)  # Atlanta, degrees
FOURTH = "the same, widths by its sd"
KRIGING = "regression kriging of the best member"
FOREST = "forest alone, learning from the day"


def make_known() -> None:
    """Let the library know the rival, as it knows its own models."""
    models.__path__.append(str(HERE))
    models._HOME["RegressionKriging"] = ("regression_kriging", "regression_kriging")
    models.KINDS["regression_kriging"] = "RegressionKriging"


def atlanta() -> pd.DataFrame:
    """The table with degrees, which regression kriging asks for: its kilometres about the middle of the city."""
    frame = be.datasets.atlanta()
    x, y = (frame[name] - frame[name].mean() for name in ("x", "y"))
    around = DEGREE * np.cos(np.deg2rad(MIDDLE[1]))
    return frame.assign(lon=MIDDLE[0] + x / around, lat=MIDDLE[1] + y / DEGREE)


def members_of(name: str, folder: Path, *, features: bool = False, covariates: Sequence[str] = ()) -> be.Members:
    """Members as the demo has them, with neighbours; Atlanta's without the satellite, which lacks half of the rows.

    Their table keeps covariates that models ask for.
    """
    text = (HERE.parents[1] / "bayesens" / "app" / f"demo_{name}.toml").read_text(encoding="utf-8")
    text = re.sub(r"\[map\].*", "", text, flags=re.DOTALL).replace('columns = ["ctm", "aod"]', 'columns = ["ctm"]')
    text = text.replace("scale = { aod = 30 }", "").replace("neighbours = true", "")
    text = re.sub(r"(\[members\])", rf"\1\nneighbours = true\nneighbour_features = {str(features).lower()}", text)
    kept = [f"covariates = {json.dumps(covariates)}"]
    if name == "atlanta":
        atlanta().to_csv(folder / "atlanta.csv", index=False)
        kept += ['lon = "lon"', 'lat = "lat"']
    text = text.replace("[data]\n", "\n".join(["[data]", *kept, ""]))
    (folder / "study.toml").write_text(text, encoding="utf-8")
    source = study_data(read_study(folder / "study.toml")).source
    assert isinstance(source, be.Members)
    return source


def models_of(members: be.Members, *, features: bool = False) -> dict[str, Any]:
    """Models that are told the day, the same without, and rivals."""
    untold = tuple(one for one in members.names if one != "neighbours")
    options: dict[str, Any] = {"site": False, "group": False}
    model, wide = be.BMA(**options), be.BMA(**options, scale=WIDE)
    if features:
        forest = be.SingleMember(member="rf", scale=("mean", "neighbours_sd"), **options)
        return {
            "BMA, members learn from the day": be.OnMembers(model, untold), "BMA of the day, too": wide,
            FOREST: be.OnMembers(forest, ("rf",)),
        }  # fmt: skip
    alone = be.OnMembers(be.BMA(**options, scale=("mean", "neighbours_sd")), ("neighbours",))
    every = {"BMA": model, "HBM": be.HBM(), "EMOS": be.EMOS()}
    return (
        {label: be.OnMembers(one, untold) for label, one in every.items()}
        | {f"{label} of the day": one for label, one in every.items()}
        | {FOURTH: wide, "neighbours alone": alone}
        | {KRIGING: be.OnMembers(models.RegressionKriging(), tuple(members.estimators))}
    )


def records(table: pd.DataFrame) -> Any:
    """A table as JSON has it."""
    return json.loads(table.to_json(orient="records"))


def summary(rows: xr.Dataset, reference: str) -> dict[str, Any]:
    """Scores, differences and coverage by season."""
    tables = {
        "scores": be.score_table(rows, replicates=2000, random_seed=SEED),
        "differences": be.paired_differences(rows, reference, random_seed=SEED).query("metric == 'crps'"),
        "coverage": be.coverage_table(rows, by=["season"]).query("level == 0.9"),
    }
    return {name: records(table) for name, table in tables.items()}


def coverage_apart(rows: xr.Dataset) -> Any:
    """Coverage of the fourth line's model by season and by the distance to the nearest training station, with intervals."""
    table = be.coverage_table(rows.sel(model=[FOURTH]), by=["distance", "season"], levels=[0.9], replicates=2000,
                              random_seed=SEED)  # fmt: skip
    return records(table)


def against_untold(plain: xr.Dataset, learnt: xr.Dataset) -> Any:
    """Models whose members learn from the day against the BMA that is not told, on the rows of both."""
    some = [rows.drop_vars("member_prediction").drop_dims("member", errors="ignore") for rows in (plain, learnt)]
    both = xr.concat([some[0].sel(model=["BMA"]), some[1]], "model", join="inner", data_vars="minimal", coords="minimal",
                     compat="override", combine_attrs="override")  # fmt: skip
    doubt = [json.loads(rows.attrs["not_converged"]) for rows in some]
    both.attrs["not_converged"] = json.dumps({**doubt[0], **doubt[1]})
    return records(be.paired_differences(both, "BMA", random_seed=SEED).query("metric == 'crps'"))


def main(cache: Path) -> None:
    """Run all of it."""
    make_known()
    result: dict[str, Any] = {
        "seed": SEED, "draws": DRAWS,
        "versions": {name: version(name) for name in ("bayesens", "numpy", "pymc", "scikit-learn", "xgboost")},
    }  # fmt: skip
    for name in ("atlanta", "oznet"):
        held = []
        for features in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                members = members_of(name, Path(folder), features=features)
            asked = models_of(members, features=features)
            rows = be.compare(asked, members, estimand="site", inner_folds=INNER[name], draws=DRAWS, random_seed=SEED,
                              cache=cache / f"{name}-{features}")  # fmt: skip
            key = f"{name}{', members learn from it' * features}"
            result[key] = summary(rows, next(iter(asked)))
            held.append(rows)
        result[name]["coverage of the fourth line"] = coverage_apart(held[0])
        result[f"{name}, members learn from it"]["against untold BMA"] = against_untold(*held)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
