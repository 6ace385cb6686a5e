"""Dependence: do 90 % intervals hold the members' error correlation, and the effective number that it means?

Four members at 24 stations and 20 times, whose errors correlate by rho: those of rows, and the offsets of stations, which are
half of the errors' variance. Every part of `dependence` (all rows, within stations, between them) then has the correlation
rho for every pair, and K_eff = K / (1 + (K - 1) rho).

The rule. Pairs and parts of one table hang together, so a share over 400 tables has a standard deviation of at most 1.5 %.
Each of five shares (rho, and correlation or K_eff) must lie in 85-95 %: a program that covers 90 % fails with a chance below
.6 % in all. The sixth, of K_eff where rho is 0, must lie in 90-100 %: K is then the truth and the most that K_eff can be, so that
the upper end always holds it and 95 % is promised. The broken twin takes every row for a station of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

import bayesens as be
from bayesens import simulate

K, SITES, TIMES = 4, 24, 20
ERROR_SD = 0.03  # half of the variance is an offset of the station
CORRELATIONS = (0.0, 0.5, 0.9)
PARTS = ("total", "within", "between")
SIMULATIONS, TWINS, REPLICATES, LEVEL = 400, 60, 500, 0.9
RESULT = Path(__file__).with_name("dependence.json")


def table(rho: float, seed: int) -> pd.DataFrame:
    """Rows of `simulate.hbm`, all of whose errors correlate by rho."""
    one = np.ones(K)
    half = 0.5 * ERROR_SD**2 * (rho + (1 - rho) * np.eye(K))
    return simulate.hbm(
        n_sites=SITES, n_groups=1, n_times=TIMES, truth_mean=0.2, truth_sd=0.05, truth_site_sd=0.04, truth_group_sd=0.0,
        center=0.2, bias=0.01 * np.arange(K), slope=one, slope_site=one, slope_group=one, error_cov=half,
        bias_site_cov=half, bias_group_cov=0 * half, random_seed=seed,
    ).frame  # fmt: skip


def ensemble(frame: pd.DataFrame) -> be.Ensemble:
    """The table as the library takes it."""
    members = [f"m{k + 1}" for k in range(K)]
    return be.Ensemble.from_frame(frame, members=members, observation="y", site="site")


def hits(rho: float, seed: int, *, twin: bool = False) -> dict[str, list[bool]]:
    """Which intervals hold the truth: of the correlation of every pair, and of K_eff by the mean correlation."""
    frame = table(rho, seed)
    if twin:
        frame = frame.assign(site=[f"r{i}" for i in range(len(frame))])
    found = be.dependence(ensemble(frame), replicates=REPLICATES, level=LEVEL, random_seed=seed).sel(group="all")
    found = found.sel(part=["total"] if twin else list(PARTS))  # rows of one row have nothing within
    pair = np.triu_indices(K, 1)
    low, high = (found[f"error_correlation_{end}"].values[:, *pair].ravel() for end in ("low", "high"))
    many = found.sel(kind="mean correlation")
    k_eff = K / (1 + (K - 1) * rho)
    return {
        "error_correlation": ((low <= rho) & (rho <= high)).tolist(),
        "k_eff": ((many["k_eff_low"] <= k_eff) & (k_eff <= many["k_eff_high"])).values.tolist(),
    }


def shares(seeds: range, *, twin: bool = False) -> dict[str, dict[str, float]]:
    """Share of intervals that hold the truth, by quantity and rho."""
    out: dict[str, dict[str, float]] = {"error_correlation": {}, "k_eff": {}}
    for rho in CORRELATIONS:
        every = [hits(rho, seed, twin=twin) for seed in track(seeds, f"rho {rho}", console=Console(stderr=True))]
        for name, of in out.items():
            of[str(rho)] = round(float(np.mean([hit for one in every for hit in one[name]])), 4)
    return out


def flat(found: dict[str, dict[str, float]]) -> list[float]:
    """All shares."""
    return [share for each in found.values() for share in each.values()]


def inner(found: dict[str, dict[str, float]]) -> list[float]:
    """Shares of truths that are not at the end of their range."""
    return [share for name, each in found.items() for rho, share in each.items() if (name, rho) != ("k_eff", "0.0")]


def main(simulations: int = SIMULATIONS, twins: int = TWINS, result: Path = RESULT) -> None:
    """Run the long form and write its result."""
    out: dict[str, Any] = {
        "simulations": simulations, "nominal": LEVEL, "sites": SITES, "times": TIMES, "members": K,
        "model": shares(range(simulations)), "twin": shares(range(twins), twin=True),
        "versions": {name: version(name) for name in ("bayesens", "numpy")}, "python": platform.python_version(),
    }  # fmt: skip
    result.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=SIMULATIONS, help="of each correlation")
    parser.add_argument("--twins", type=int, default=TWINS, help="simulations in which rows are taken for stations")
    parser.add_argument("--result", type=Path, default=RESULT)
    main(**vars(parser.parse_args()))
