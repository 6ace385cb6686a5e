"""What folds that are as far away as the map is change in the scores of BMA at the stations of OzNet.

``BAYESENS_DATA=... python tests/reference/folds_by_place.py`` writes ``folds_by_place.json``, from which the site has its
figures. Members are trained anew in every fold.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bayesens as be
from bayesens.app.study.data import study_data
from bayesens.app.study.file import read_study

HERE = Path(__file__).parent
RESULT = HERE / "folds_by_place.json"
SEED = 1


def members(folder: Path, *, covariates: Sequence[str] = ()) -> be.Members:
    """Members of the demo, without its map; their table keeps columns that models ask for."""
    text = (HERE.parents[1] / "bayesens" / "app" / "demo_oznet.toml").read_text(encoding="utf-8")
    text = text.partition("[map]")[0].replace("[data]\n", f"[data]\ncovariates = {json.dumps(covariates)}\n")
    (folder / "study.toml").write_text(text, encoding="utf-8")
    source = study_data(read_study(folder / "study.toml")).source
    assert isinstance(source, be.Members)
    return source


def scores(source: be.Members, folds: str | None) -> dict[str, Any]:
    """Scores of BMA with folds of a kind, and how far away these are."""
    grid = be.datasets.oznet_grid()
    rows = be.compare(
        {"BMA": be.BMA(site=False, group=False)},
        source,
        estimand="site",
        folds=folds,
        map_points=grid,
        random_seed=SEED,
    )
    line = be.score_table(rows, replicates=2000, random_seed=SEED).iloc[0]
    return {str(name): line[name] for name in line.index if name.startswith(("crps", "coverage90"))}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        source = members(Path(folder))
        found = {kind or "random": scores(source, kind) for kind in (None, "knndm")}
    found |= {"seed": SEED, "versions": {name: version(name) for name in ("bayesens", "scikit-learn", "xgboost")}}
    RESULT.write_text(json.dumps(found, indent=1, default=float) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1, default=float))
