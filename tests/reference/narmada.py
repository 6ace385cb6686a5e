"""Every model on the Narmada streamflow forecasts: fitted to 2003-2014, scored on 2015-2018, raw and with a square root.

``python tests/reference/narmada.py [DATA]`` writes ``narmada.json``, from which the site has its tables, in some minutes.
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import pandas as pd

import bayesens as be

MEMBERS = [f"VIC_{lead}d" for lead in range(1, 6)]


def models(transform: str) -> dict[str, object]:
    """Every model and baseline, with and without effects of the gauge."""
    return {
        "Climatology": be.Climatology(transform=transform),
        "Climatology by gauge": be.Climatology(group=True, transform=transform),
        "SingleMember": be.SingleMember(group=False, transform=transform),
        "EqualWeights": be.EqualWeights(group=False, transform=transform),
        "BMA": be.BMA(group=False, transform=transform),
        "BMA with gauge effects": be.BMA(group=True, transform=transform),
        "BMA fitted at once": be.BMA(correction="joint", group=False, transform=transform),
        "HBM independent": be.HBM(errors="independent", transform=transform),
        "HBM factor": be.HBM(errors="factor", transform=transform),
    }


def split(folder: Path) -> tuple[be.Ensemble, be.Ensemble]:
    """Rows of 2003-2014 and of 2015-2018."""
    frame = pd.read_csv(folder / "narmada" / "nrb_long.csv.gz", parse_dates=["date"])
    early = frame["date"].dt.year <= 2014
    columns = {"members": MEMBERS, "observation": "obs", "group": "gauge", "time": "date", "units": "10^3 m3 s-1"}
    return be.Ensemble.from_frame(frame[early], **columns), be.Ensemble.from_frame(frame[~early], **columns)


def table(folder: Path, transform: str, names: list[str] | None = None, draws: int = 500) -> pd.DataFrame:
    """Mean scores of each model on the later rows."""
    train, test = split(folder)
    rows = {}
    for name, model in models(transform).items():
        if names is not None and name not in names:
            continue
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="log_likelihood is left out")
            tree = be.fit(model, train, draws=draws, random_seed=1, progressbar=False, log_likelihood=False)
        scores = be.score(tree, test, levels=[0.9])
        rows[name] = {
            "crps": float(scores["crps"].mean()), "log_score": float(scores["log_score"].mean()),
            "rmse": float((scores["error"] ** 2).mean()) ** 0.5, "coverage90": float(scores["covered"].mean()),
            "width90": float(scores["width"].mean()), "method": tree.attrs["method"], "seconds": tree.attrs["seconds"],
            "rhat": tree.attrs.get("rhat_max", float("nan")), "divergences": tree.attrs.get("divergences", 0),
        }  # fmt: skip
    return pd.DataFrame(rows).T


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[3] / "shared" / "data"
    names = ("bayesens", "pymc", "nutpie", "numpy")
    result: dict[str, object] = {"seed": 1, "draws": 500, "versions": {name: version(name) for name in names}}
    pd.set_option("display.width", 200)
    for transform in ("identity", "sqrt"):
        scores = table(folder, transform)
        print(transform, scores.to_string(float_format=lambda v: f"{v:.4f}"), sep="\n", flush=True)
        result[transform] = json.loads(
            scores.drop(columns="seconds").rename_axis("model").reset_index().to_json(orient="records")
        )
    Path(__file__).with_name("narmada.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
