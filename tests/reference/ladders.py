"""The ladder on real data, two estimands each: soil moisture of OzNet with members trained here, streamflow of the Narmada.

``python tests/reference/ladders.py [DATA] [CACHE]`` writes ``ladders.json``, from which the site has its table; finished folds
are kept in the cache.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import pandas as pd

import bayesens as be
from bayesens.app.study.data import study_data
from bayesens.app.study.file import read_study

HERE = Path(__file__).parent
RESULT = HERE / "ladders.json"
SEED = 1
NARMADA = [f"VIC_{lead}d" for lead in range(1, 6)]
CASES = {
    "OzNet": {"site": {}, "time": {"gap": pd.Timedelta(days=30)}},
    "Narmada": {"site": {}, "time": {"gap": pd.Timedelta(days=30)}},
}


def oznet() -> be.Members:
    """Four members of daily soil moisture, 2016 to 2019, as the demo has them."""
    return study_data(read_study(HERE.parents[1] / "bayesens" / "app" / "demo_oznet.toml")).source


def narmada(folder: Path) -> be.Ensemble:
    """One hydrological model at lead times of one to five days, at five gauges."""
    frame = pd.read_csv(folder / "narmada" / "nrb_long.csv.gz", parse_dates=["date"])
    return be.Ensemble.from_frame(
        frame, members=NARMADA, observation="obs", site="gauge", time="date", units="10^3 m3 s-1"
    )


def effects(name: str, data: be.Ensemble | be.Members, estimand: str, cache: Path, draws: int, workers: int) -> dict:
    """Scores and effects of the rungs, and HBM against BMA as it is by default, with widths."""
    begin = time.perf_counter()
    rungs = be.ladder() if name == "OzNet" else be.ladder(group=False, transform="sqrt")
    if estimand == "time":  # no site is new there
        rungs.pop("HBM on whole series", None)
    rows = be.compare(rungs, data, estimand=estimand, folds=5, draws=draws, random_seed=SEED, n_jobs=2, workers=workers,
                      cache=cache / name, progressbar=False, **CASES[name][estimand])  # fmt: skip
    found = be.ladder_effects(rows, random_seed=SEED)
    beside = be.paired_differences(rows, "BMA with widths", random_seed=SEED).query("model == 'HBM'")
    scores = be.score_table(rows)[["model", "n", "stations", "crps", "log_score", "rmse", "coverage90", "width90"]]
    return {
        "seconds": time.perf_counter() - begin, "draws": draws, "workers": workers,
        "scores": json.loads(scores.to_json(orient="records")), "effects": json.loads(found.to_json(orient="records")),
        "HBM beside BMA with widths": json.loads(beside.to_json(orient="records")),
        "failed": json.loads(rows.attrs["failed"]), "warned": json.loads(rows.attrs["warned"]),
    }  # fmt: skip


def main(folder: Path, cache: Path, *, draws: int = 500, workers: int = 2) -> None:
    """Write the result, case by case."""
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name, estimands in CASES.items():
        data = oznet() if name == "OzNet" else narmada(folder)
        for estimand in estimands:
            result.setdefault(name, {})[estimand] = effects(name, data, estimand, cache, draws, workers)
            result["versions"] = {key: version(key) for key in ("bayesens", "pymc", "nutpie", "numpy", "scikit-learn")}
            RESULT.write_text(json.dumps(result, indent=1) + "\n")
            print(name, estimand, f"{result[name][estimand]['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    given = [Path(word) for word in sys.argv[1:]]
    default = HERE.parents[2] / "shared" / "data"
    main(given[0] if given else default, given[1] if len(given) > 1 else Path(".cache") / "ladders")
