"""What was assumed: the models in words, their priors, the seeds and the versions."""

from __future__ import annotations

import dataclasses
import platform
from importlib.metadata import version
from typing import Any

import pandas as pd

from bayesens.app.report.parts import Section
from bayesens.app.study.chapters.chapter import failures, sheet
from bayesens.app.study.priors_in_use import has_part
from bayesens.app.study.results import StudyResults
from bayesens.likelihoods.priors import Prior

__all__ = ["assumptions", "priors_table"]

LIBRARIES = (
    "bayesens",
    "numpy",
    "scipy",
    "pandas",
    "xarray",
    "scikit-learn",
    "xgboost",
    "pymc",
    "pytensor",
    "nutpie",
    "arviz",
)


def assumptions(results: StudyResults) -> Section:
    """What was assumed, in words, priors and versions."""
    study = results.study
    parts: list[Any] = [f"{name} ({type(model).__name__}) {model.assumes}" for name, model in results.models.items()]
    by_group = " Rows of groups that were held out are resampled by whole groups." if "group" in results.held else ""
    parts += [
        f"{_resampled(results)} With fewer than 20 of either they are t intervals from leaving out one at a time; with fewer "
        f"than five there are none.{by_group}",
        "Observations are taken as the truth: the error of the sensors, and of a point standing for a cell, is "
        "part of every member's error and of the predictive intervals.",
    ]
    if study.report.priors and len(table := priors_table(results)):
        parts.append(
            sheet("priors", table, "Priors, on the scale of the model.", "The standard scale has the observations' mean and "
                  "standard deviation as its centre and unit.", shown=_shown(table), heads=2)
        )  # fmt: skip
    parts += failures({name: held.rows for name, held in results.held.items()})
    versions = {"Python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
    frame = pd.DataFrame({"name": list(versions), "version": list(versions.values())})
    parts.append(sheet("versions", frame, f"Versions. The random seed of everything is {study.study.random_seed}."))
    return Section("What was assumed", tuple(parts), "assumptions")


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """Priors as a paper writes them: Normal(mu 0, sigma 3)."""
    text = table["prior"].str.replace(r'Prior\("(\w+)"(?:, )?', r"\1(", regex=True).str.replace("=", " ")
    return table.assign(prior=text.str.replace(r"(\d)\.0(?=\D)", r"\1", regex=True))


def _resampled(results: StudyResults) -> str:
    """What intervals of scores rest on."""
    data, block = results.study.data, results.study.evaluation.block
    blocks = f"blocks of {block:g} days" if data.time and block else ""
    if data.site:
        said = f"stations and {blocks}" if blocks else "stations"
        return (
            f"Intervals of scores resample {said}, not rows: rows of one station and of one month share their errors."
        )
    if blocks:
        return f"Intervals of scores resample {blocks}, not rows: rows of one month share their errors."
    return (
        "Intervals of scores resample rows one by one, for the table names neither stations nor times: they are too short "
        "where rows hang together."
    )


def priors_table(results: StudyResults) -> pd.DataFrame:
    """Priors of every model, one line each, of those parameters alone that it has: ``model``, ``parameter``, ``prior``."""
    lines = []
    for name, model in results.models.items():
        if name not in results.fits:
            continue
        there = {str(one) for one in results.fits[name]["posterior"].data_vars}
        for item in dataclasses.fields(model):
            value, option = getattr(model, item.name), item.name.removesuffix("_prior")
            if isinstance(value, Prior) and has_part(model, option, there, results.ensemble.n_members):
                lines.append({"model": name, "parameter": option, "prior": str(value)})
    return pd.DataFrame(lines)
