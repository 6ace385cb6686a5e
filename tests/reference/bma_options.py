"""What options of BMA are worth on two data sets: a fit at once, one width, weights that follow rows, a member's own sd.

``BAYESENS_DATA=... python tests/reference/bma_options.py [CACHE]`` writes ``bma_options.json``, from which the site has its
figures; finished folds are kept in the cache. Members are trained anew in every fold, at stations held out.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from folds_by_place import members as members_of_oznet
from the_day import DRAWS, INNER, SEED, members_of, records

import bayesens as be

RESULT = Path(__file__).with_name("bma_options.json")
FOLLOWED = {"oznet": ("dem", "rain"), "atlanta": ("elevation", "forestcover")}
PLAIN: dict[str, Any] = {"site": False, "group": False}


def by(*names: str) -> be.BMA:
    """BMA whose weights follow columns."""
    return be.BMA(**PLAIN, weights="covariates", weight_covariates=names)


def models_of(name: str) -> dict[str, Any]:
    """BMA, and what is added to it one at a time; Atlanta's own standard deviation is that of the day's neighbours."""
    found: dict[str, Any] = {
        "BMA": be.BMA(**PLAIN), "fitted at once": be.BMA(**PLAIN, correction="joint"), "one width": be.BMA(**PLAIN, scale=()),
    }  # fmt: skip
    found |= {f"weights by {one}": by(one) for one in FOLLOWED[name]}
    found["weights by coordinates"] = by("lon", "lat")
    if name == "oznet":
        return found
    untold = ("rf", "mlr", "svr", "xgb", "ctm")
    told = {"BMA of the day": be.BMA(**PLAIN), "own sd": be.BMA(**PLAIN, own_sd={"neighbours": "neighbours_sd"})}
    return {label: be.OnMembers(model, untold) for label, model in found.items()} | told


def main(cache: Path) -> None:
    """Run all of it."""
    result: dict[str, Any] = {
        "seed": SEED, "draws": DRAWS,
        "versions": {name: version(name) for name in ("bayesens", "numpy", "pymc", "scikit-learn", "xgboost")},
    }  # fmt: skip
    for name in ("oznet", "atlanta"):
        with tempfile.TemporaryDirectory() as folder:
            there = Path(folder)
            members = members_of_oznet(there, covariates=FOLLOWED[name]) if name == "oznet" else members_of(
                name, there, covariates=FOLLOWED[name])  # fmt: skip
        rows = be.compare(models_of(name), members, estimand="site", inner_folds=INNER[name], draws=DRAWS, random_seed=SEED,
                          cache=cache / name)  # fmt: skip
        references = ("BMA", "BMA of the day") if name == "atlanta" else ("BMA",)
        result[name] = {"scores": records(be.score_table(rows, replicates=2000, random_seed=SEED))} | {
            f"against {one}": records(be.paired_differences(rows, one, random_seed=SEED).query("metric == 'crps'"))
            for one in references
        }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
