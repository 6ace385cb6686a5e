"""Recovery of the neighbours' covariance: truths drawn from its prior, tables from the truths; do 90 % intervals hold them?

With truths from the prior that the model states, intervals of every parameter cover at their nominal level exactly. 200 tables
give 1,600 intervals; those of one table hang together, so that the pooled share has a standard deviation of about 1.2 %, and a
correct program leaves 85-95 % with a chance below .1 %. Of one parameter 200 intervals cover 82 % or less in .03 % of the cases.
Ranks of the truth among 100 draws, in 10 classes, are uniform: a chi-square above 33.7 (9 degrees) has a chance of .01 %, of
eight parameters .08 %. The broken twin (60 tables) is given each day's observations under the labels of other stations.
"""

from __future__ import annotations

import json
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np

from bayesens.ensemble.places import Places
from bayesens.inference.fit import posterior_of
from bayesens.likelihoods.day.table import DayTable
from bayesens.models.neighbours import PARTS, Neighbours

STATIONS, DAYS, DRAWS = 12, 40, 100
MODEL = Neighbours(transform="identity", center=0.0, unit=1.0, distance=0.5)
NAMES = ("sd", *PARTS, "range of field", "range of place")
RESULT = Path(__file__).with_name("neighbours.json")


def matern(u: np.ndarray, reach: float) -> np.ndarray:
    x = np.sqrt(3.0) * u / reach
    return (1.0 + x) * np.exp(-x)


def draw_truth(rng: np.random.Generator) -> np.ndarray:
    """Draw sd, shares and ranges from the priors of the model."""
    return np.concatenate([[rng.lognormal(0.0, 0.5)], rng.dirichlet(np.ones(5)), 0.5 * rng.lognormal(-1.1, 0.7, 2)])


def simulated(truth: np.ndarray, rng: np.random.Generator, *, twin: bool = False) -> DayTable:
    """Draw a table of 12 stations and 40 days, a fifth of the observations missing."""
    xy = rng.random((STATIONS, 2))
    u = np.linalg.norm(xy[:, None] - xy, axis=-1)
    day, field, place, nugget, own = truth[0] ** 2 * truth[1:6]
    one = np.eye(STATIONS)
    static = rng.multivariate_normal(np.zeros(STATIONS), 1.0 + place * matern(u, truth[7]) + nugget * one)
    y = static + rng.multivariate_normal(np.zeros(STATIONS), day + field * matern(u, truth[6]) + own * one, DAYS)
    y[rng.random(y.shape) < 0.2] = np.nan
    if twin:
        y = np.array([rng.permutation(row) for row in y])
    site = np.array([f"s{k:02d}" for k in range(STATIONS)])
    return DayTable(site, site, Places(("x", "y"), xy), np.zeros((STATIONS, 0)), np.arange(DAYS), y)


def ranks(seed: int, *, twin: bool = False) -> list[int]:
    """Fit one table, and say how many of 100 draws lie below the truth, by parameter."""
    rng = np.random.default_rng(seed)
    truth = draw_truth(rng)
    table = simulated(truth, rng, twin=twin)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        posterior = posterior_of(MODEL, table, draws=DRAWS, random_seed=seed)
    flat = [posterior[name].transpose("chain", "draw", ...).values for name in ("sd", "share", "range")]
    draws = np.column_stack([one.reshape(one.shape[0] * one.shape[1], -1) for one in flat])
    thin = draws[np.linspace(0, len(draws) - 1, DRAWS).astype(int)]
    return (thin < truth).sum(axis=0).tolist()


def summary(found: list[list[int]]) -> dict[str, dict[str, float]]:
    """Share of the 90 % intervals that hold the truth, and chi-square of the ranks in ten classes, by parameter."""
    every, out = np.array(found), {}
    for k, name in enumerate(NAMES):
        count = np.histogram(every[:, k], bins=np.linspace(-0.5, DRAWS + 0.5, 11))[0]
        expected = len(every) * np.diff(np.linspace(-0.5, DRAWS + 0.5, 11)) / (DRAWS + 1)
        inside = (every[:, k] >= 0.05 * DRAWS) & (every[:, k] <= 0.95 * DRAWS)
        out[name] = {"covered": float(inside.mean()), "chi_square": float(((count - expected) ** 2 / expected).sum())}
    return out


def pooled(result: dict[str, dict[str, float]]) -> float:
    """Share of all intervals that hold the truth."""
    return float(np.mean([one["covered"] for one in result.values()]))


def main(simulations: int = 200) -> None:
    """Run all of it, and write the result with versions and seeds."""
    seeds = range(simulations)
    result = {
        "model": summary([ranks(seed) for seed in seeds]), "twin": summary([ranks(seed, twin=True) for seed in seeds[:60]]),
        "simulations": simulations, "seeds": [0, simulations - 1], "python": platform.python_version(),
        "versions": {name: version(name) for name in ("bayesens", "numpy", "pymc", "pytensor", "scipy")},
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(int(one) for one in sys.argv[1:]))
