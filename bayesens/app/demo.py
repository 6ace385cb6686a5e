"""The whole job on example data: a study file that is written and run."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from bayesens import datasets, simulate
from bayesens.app.demo_grid import region_grid
from bayesens.app.recovery import recovery
from bayesens.app.study.run import Finished, begin_folder, run_study
from bayesens.ensemble.files import write_table
from bayesens.inference.fit_tree import read_fit
from bayesens.tables.atomic import write_atomically

__all__ = ["DEMOS", "run_demo"]

DEMOS = {
    "region": "a simulated soil-moisture region whose truth is known",
    "atlanta": "fine particles around Atlanta, mapped for the days of a month",
    "oznet": "28 soil-moisture stations of OzNet",
}
TABLE, GRID = "{}.csv", "{}_grid.nc"


def run_demo(
    out: str | Path,
    *,
    name: str = "region",
    random_seed: int = 1,
    say: Callable[[str], None] = print,
    progressbar: bool | None = None,
) -> Finished:
    """Write a study of example data to a folder, new or of a former study, and run it there.

    Parameters
    ----------
    out : path
    name : {"region", "atlanta", "oznet"}
        A simulated region: 28 stations in 3 networks, and four members with correlated errors. Daily PM2.5
        at 37 monitors around Atlanta, with maps of 30 days (`bayesens.datasets.atlanta`). Or daily soil moisture of
        OzNet 2016 to 2019, with four members trained on covariates (`bayesens.datasets.oznet`).
    random_seed : int
        Of the region, the folds, the members and the draws.
    say, progressbar
        As in `run_study`, which says what is returned and raised.

    Examples
    --------
    >>> run_demo("new", name="mars")
    Traceback (most recent call last):
    ...
    ValueError: there is no demo 'mars'; wanted region or atlanta or oznet
    """
    if name not in DEMOS:
        raise ValueError(f"there is no demo {name!r}; wanted {' or '.join(DEMOS)}")
    begun = (
        {"table": datasets.atlanta(), "grid": datasets.atlanta_grid()} if name == "atlanta" else {}
    )  # or none of the work
    folder = begin_folder(out)
    region = simulate.region(random_seed=random_seed) if name == "region" else None
    if region is not None:
        begun = {"table": region.frame.drop(columns="truth"), "grid": region_grid(region, random_seed=random_seed)}
    for kind, file in (("table", TABLE), ("grid", GRID)):
        if kind in begun:
            write_table(begun[kind], folder / file.format(name))
    text = files("bayesens.app").joinpath(f"demo_{name}.toml").read_text(encoding="utf-8")
    with write_atomically(folder / "study.toml") as aside:
        aside.write_text(text.replace("random_seed = 1\n", f"random_seed = {random_seed}\n"), encoding="utf-8")
    done = run_study(folder / "study.toml", folder, say=say, progressbar=progressbar)
    if region is not None:
        write_table(recovery(read_fit(folder / "fits" / "hbm.nc"), region), folder / "tables" / "recovered.csv")
    return done
