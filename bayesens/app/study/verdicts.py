"""What may be said of two models: numbers, intervals and methods in words, the same in all chapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bayesens.app.study.results import StudyResults
from bayesens.comparison.bootstrap import why_none
from bayesens.comparison.folds.news import ALL_CONVERGED

__all__ = [
    "EQUIVALENT",
    "INSIDE",
    "by_method",
    "crps_of_all",
    "doubt",
    "equal",
    "interval",
    "listed_plain",
    "mean_score",
    "options",
    "percent",
    "spelled",
    "why_no_interval",
]

INSIDE = "inside 90 % intervals [%]"
EQUIVALENT = 1.0  # percent of CRPS: nobody would change a model for less


def options(results: StudyResults, *, least: int = 0) -> dict[str, Any]:
    """How intervals are resampled."""
    asked = results.study.evaluation
    block = asked.block if results.study.data.time is not None else None
    return {"replicates": max(asked.replicates, least), "block": block, "random_seed": results.study.study.random_seed}


def percent(value: float) -> str:
    """A change in percent, with its sign.

    Examples
    --------
    >>> percent(-2.34), percent(0.01)
    ('-2.3 %', '0.0 %')
    """
    return f"{value:+.1f} %" if abs(value) >= 0.05 else "0.0 %"


def interval(line: Mapping[Any, Any], *, size: bool = False) -> str:
    """The interval of a change in words; of its size, where all of it lies on one side of zero.

    Examples
    --------
    >>> interval({"low": -4.1, "high": -0.9}, size=True), interval({"low": -4.1, "high": 0.9})
    ('90 % interval 0.9 to 4.1 %', '90 % interval -4.1 to +0.9 %')
    """
    low, high = line["low"], line["high"]
    if size:
        low, high = sorted((abs(low), abs(high)))
        return f"90 % interval {low:.1f} to {high:.1f} %"
    return f"90 % interval {low:+.1f} to {high:+.1f} %"


def mean_score(value: float, units: str) -> str:
    """Three significant digits and their units.

    Examples
    --------
    >>> mean_score(0.037153, "m³ m⁻³"), mean_score(12.0, "")
    ('0.0372 m³ m⁻³', '12.0')
    """
    digits = int(np.clip(2 - np.floor(np.log10(abs(value))), 0, 8)) if value else 0
    return f"{value:.{digits}f} {units}".strip()


def spelled(results: StudyResults, name: str) -> str:
    """A model's name, with what its letters stand for."""
    letters, words = results.models[name].spelled
    if letters == words:
        return name
    return f"{name} ({words})" if letters.lower() in name.lower() else f"{name} ({letters}, {words})"


def by_method(results: StudyResults, name: str) -> str:
    """How a model was fitted, where the headline's model was fitted otherwise."""
    methods, one = results.study.methods, results.headline or results.reference
    if name not in methods or one not in methods or (methods[name] == "em") == (methods[one] == "em"):
        return ""
    return " (by EM)" if methods[name] == "em" else " (by its posterior)"


def doubt(results: StudyResults, line: Mapping[Any, Any]) -> str:
    """Clauses on two models that were fitted by different methods, which may be the difference, and on fits to be doubted."""
    methods, one, other = results.study.methods, line["model"], line["reference"]
    unsure = "" if line["not_converged"] == ALL_CONVERGED else f" (not converged: {line['not_converged']})"
    if one not in methods or other not in methods or (methods[one] == "em") == (methods[other] == "em"):
        return unsure
    em, drawn = (one, other) if methods[one] == "em" else (other, one)
    return f"; {em} was fitted by EM and {drawn} by its posterior, which may be the difference{unsure}"


def equal(line: Mapping[Any, Any]) -> bool:
    """Whether two models are so for practical purposes: all of the interval lies where nobody would change a model."""
    return bool(line["low"] > -EQUIVALENT and line["high"] < EQUIVALENT)


def crps_of_all(differences: pd.DataFrame, estimand: str) -> pd.DataFrame:
    """Differences of the CRPS over all rows of an estimand."""
    if not len(differences):
        return differences
    of_all = (differences["metric"] == "crps") & (differences["group"] == "all")
    return differences[of_all & (differences["estimand"] == estimand)]


def listed_plain(names: list[str]) -> str:
    """Names in a row, and ``and`` before the last."""
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]


def why_no_interval(line: Mapping[Any, Any]) -> str:
    """The reason in a plain clause."""
    return why_none(str(line["interval"])) or "the replicates have no value"
