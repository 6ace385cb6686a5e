"""The whole job on example data: a study file that is written and run."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

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
FILES = {"table": "{}.csv", "grid": "{}_grid.nc"}
ONE_DAY = "one-day-map"  # folder of the map of OzNet


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
        A simulated region: 28 stations in 3 networks, and four members with correlated errors. Daily PM2.5 at 37
        monitors around Atlanta, with maps of 30 days (`bayesens.datasets.atlanta`). Or daily soil moisture of
        OzNet 2016 to 2019, with four members trained on covariates (`bayesens.datasets.oznet`), and in the folder
        ``one-day-map`` a map by members that learn from what its rasters have.
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
    example: dict[str, Any] = (
        {"table": datasets.atlanta(), "grid": datasets.atlanta_grid()} if name == "atlanta" else {}
    )
    folder = begin_folder(out)
    region = simulate.region(random_seed=random_seed) if name == "region" else None
    if region is not None:
        example = {"table": region.frame.drop(columns="truth"), "grid": region_grid(region, random_seed=random_seed)}
    for kind, one in example.items():
        write_table(one, folder / FILES[kind].format(name))
    _write_study(f"demo_{name}.toml", folder, random_seed)
    done = run_study(folder / "study.toml", folder, say=say, progressbar=progressbar)
    if region is not None:
        write_table(recovery(read_fit(folder / "fits" / "hbm.nc"), region), folder / "tables" / "recovered.csv")
    if name == "oznet":
        _map_of_oznet(folder / ONE_DAY, random_seed, say, progressbar)
    return done


def _write_study(file: str, folder: Path, random_seed: int) -> None:
    text = files("bayesens.app").joinpath(file).read_text(encoding="utf-8")
    with write_atomically(folder / "study.toml") as aside:
        aside.write_text(text.replace("random_seed = 1\n", f"random_seed = {random_seed}\n"), encoding="utf-8")


def _map_of_oznet(out: Path, random_seed: int, say: Callable[[str], None], progressbar: bool | None) -> None:
    """A study of its own: the rasters of the day have fewer covariates than the table, and scores are to speak of the map."""
    try:
        grid = datasets.oznet_grid()
    except FileNotFoundError as error:
        say(f"The map of one day is left out: {error}")
        return
    folder = begin_folder(out)
    write_table(grid.assign_coords(time=np.datetime64("2016-02-05", "ns")), folder / "grid.nc")
    _write_study("demo_oznet_map.toml", folder, random_seed)
    say(f"The map of one day, with members that learn from what its rasters have: {folder} ...")
    run_study(folder / "study.toml", folder, say=say, progressbar=progressbar)
