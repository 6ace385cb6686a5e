"""Attribution: in worlds whose truth is known, does the ladder name the change that matters, and nothing where nothing does?

Each of 40 pairs of a world (`bayesens.worlds`) and a seed is a comparison of the rungs on rows held out, and a table of
effects. The largest effect whose interval leaves out zero must be what is right in the world, and help or hurt as it does there;
in the exchangeable world no interval may lie beyond the region of equivalence, 1 % of the CRPS on either side. 36 of 40 must be
right.

What counts. An effect is what one change of a model does. "HBM or BMA" changes the mixture, the joint density, the levels
and the dependence at once: it is the sum of whatever stands between its rungs and can name none of them, so it is kept in
the record and does not take part. In the world of offsets two effects are right, "effects" and "levels": both give a model
random effects of stations, one BMA and one HBM.

The size. 24 stations and 30 times; the right effect is 20 % of the CRPS or more and its rivals are far smaller, so that a
pair goes wrong by a fault and not by chance (`margin` is the right effect over the largest other one). In the exchangeable
world the members' 2 % of the variance can be worth .6 %, and intervals are about 1 % wide on either side.

The broken twin has the rungs permuted: their names pass on by one before effects are computed.

`python tests/calibration/attribution.py --work FILE` keeps every finished pair in FILE and goes on from there, unless the
code has changed.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Console
from rich.progress import track

import bayesens as be
from bayesens.comparison.ladder import ladder, ladder_effects
from bayesens.tables.atomic import write_atomically
from bayesens.worlds import WORLDS, world

RUNGS = (
    "Equal weights", "BMA", "BMA without effects", "Linear pool", "HBM without levels", "HBM independent", "HBM",
)  # fmt: skip
HEADLINE = "HBM or BMA"
HELPS = {
    "effects": True,
    "levels": True,
    "dependence": True,
    "mixture": False,
}  # to give the mixture up hurts where there is one
ROPE = 1.0  # percent
SEEDS, WANTED = 10, 36
SITES, TIMES, FOLDS, DRAWS = 24, 30, 3, 250
RESULT = Path(__file__).with_name("attribution.json")
WORK = Path(__file__).parents[2] / ".cache" / "attribution.jsonl"

Effects = dict[str, list[float]]  # difference, low and high [% of the CRPS]


def pair(name: str, seed: int, *, sites: int = SITES, times: int = TIMES, folds: int = FOLDS) -> dict[str, Any]:
    """Compare the rungs in one world, and read the effects off."""
    begin = time.perf_counter()
    frame = world(name, sites=sites, times=times, random_seed=seed).frame
    ensemble = be.Ensemble.from_frame(
        frame, members=list(frame.filter(like="m").columns.drop("time")), observation="y", site="site", time="time"
    )
    rungs = {rung: model for rung, model in ladder(group=False).items() if rung in RUNGS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few draws; what they were is kept below
        rows = be.compare(rungs, ensemble, estimand=WORLDS[name].estimand, folds=folds, draws=DRAWS, random_seed=seed,
                          progressbar=False)  # fmt: skip
    crps = rows["crps"].mean("obs").to_series()
    return {
        "world": name, "seed": seed, "effects": effects_of(rows, seed), "twin": effects_of(permuted(rows), seed),
        "crps": {rung: float(f"{value:.4g}") for rung, value in crps.items()}, "failed": json.loads(rows.attrs["failed"]),
        "warned": sorted(json.loads(rows.attrs["warned"])), "seconds": round(time.perf_counter() - begin, 1),
    }  # fmt: skip


def permuted(rows: xr.Dataset) -> xr.Dataset:
    """The broken twin: every rung under the name of the next."""
    return rows.assign_coords(model=np.roll(rows["model"].values, -1))


def effects_of(rows: xr.Dataset, seed: int) -> Effects:
    """Differences with their intervals."""
    table: pd.DataFrame = ladder_effects(rows, random_seed=seed).set_index("effect")[["difference", "low", "high"]]
    return {str(effect): [float(f"{v:.4g}") for v in values] for effect, values in zip(table.index, table.to_numpy())}


def largest(effects: Effects) -> str:
    """Name of the largest change whose interval leaves out zero; none of them: nothing."""
    clear = {name: abs(e[0]) for name, e in effects.items() if name != HEADLINE and (e[1] > 0 or e[2] < 0)}
    return max(clear, key=clear.__getitem__, default="")


def right(name: str, effects: Effects) -> bool:
    """Whether the effects say what the world is."""
    if WORLDS[name].effects:
        found = largest(effects)
        return found in WORLDS[name].effects and (effects[found][0] < 0) == HELPS[found]
    return not any(low > ROPE or high < -ROPE for effect, (_, low, high) in effects.items() if effect != HEADLINE)


def margin(name: str, effects: Effects) -> float:
    """The largest right effect over the largest other one, by size; where none is right, the largest of all in percent."""
    size = {effect: abs(e[0]) for effect, e in effects.items() if effect != HEADLINE}
    of = [value for effect, value in size.items() if effect in WORLDS[name].effects]
    rest = max(value for effect, value in size.items() if effect not in WORLDS[name].effects)
    return round(max(of, default=0.0) / rest if WORLDS[name].effects else rest, 2)


@cache
def code_digest() -> str:
    """Digest of the library's source and of this file."""
    files = [*Path(be.__file__).parent.rglob("*.py"), *Path(be.models.__file__).parent.glob("*.py"), Path(__file__)]
    return sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()[:16]


def run(todo: Iterable[tuple[str, int]], work: Path | None = None) -> list[dict[str, Any]]:
    """Make the pairs that the work file does not have; it is written whole after each."""
    records, asked = {}, list(todo)
    if work and work.exists():
        found = [r for r in map(json.loads, work.read_text().splitlines()) if r["code"] == code_digest()]
        records = {(r["world"], r["seed"]): r for r in found}
    for one in track([one for one in asked if one not in records], "pairs", console=Console(stderr=True)):
        records[one] = pair(*one) | {"code": code_digest()}
        if work:
            with write_atomically(work) as path:
                path.write_text("".join(json.dumps(r) + "\n" for r in records.values()))
    return [records[one] for one in asked]


def count(records: list[dict[str, Any]], which: str = "effects") -> dict[str, int]:
    """Right pairs by world, and in all."""
    out = {name: sum(right(name, r[which]) for r in records if r["world"] == name) for name in WORLDS}
    return out | {"all": sum(out.values())}


def main(seeds: int = SEEDS, work: Path = WORK, result: Path = RESULT) -> None:
    """Run the long form and write its result."""
    work.parent.mkdir(exist_ok=True)
    records = run([(name, seed) for seed in range(seeds) for name in WORLDS], work)
    keep = ("world", "seed", "effects", "twin", "crps", "failed", "warned", "seconds")
    out = {
        "wanted": WANTED, "pairs": len(records), "sites": SITES, "times": TIMES, "folds": FOLDS, "draws": DRAWS,
        "right": count(records), "twin": count(records, "twin"), "seconds": round(sum(r["seconds"] for r in records)),
        "versions": {name: version(name) for name in ("bayesens", "pymc", "pytensor", "nutpie", "numba", "numpy")},
        "python": platform.python_version(), "code": code_digest(),
    }  # fmt: skip
    each = ",\n".join(
        json.dumps({key: r[key] for key in keep} | {
            "largest": largest(r["effects"]), "right": right(r["world"], r["effects"]),
            "margin": margin(r["world"], r["effects"]),
        })
        for r in records
    )  # fmt: skip
    with write_atomically(result) as path:
        path.write_text(json.dumps(out, indent=1)[:-2] + ',\n "records": [\n' + each + "\n]\n}\n")
    work.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each world")
    parser.add_argument(
        "--work", type=Path, default=WORK, help="where finished pairs are kept; remove it to begin anew"
    )
    parser.add_argument("--result", type=Path, default=RESULT)
    main(**vars(parser.parse_args()))
