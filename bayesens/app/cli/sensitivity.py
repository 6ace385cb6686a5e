"""What the command ``sensitivity`` prints: one answer after the other, as they are found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.fit import fit
from bayesens.sensitivity import (
    clustered_weights,
    fewer_stations,
    left_out_words,
    members_left_out,
    power_scaling,
    power_words,
    prior_predictive,
    prior_table,
    prior_words,
    reduction_table,
    reduction_words,
    shapley,
    weights_table,
)

__all__ = ["Answer", "answers"]

LEFT_OUT = ["left_out", "n_left", "score", "difference", "low", "high", "error_correlation", "interval"]
SHAPLEY = ["member", "value", "low", "high", "share", "alone", "last"]
FEWER = ["model", "removed", "n_stations", "score", "change", "low", "high", "unit"]


@dataclass(frozen=True, eq=False)
class Answer:
    """One table, the part of it that is shown, and what it says in words."""

    name: str
    title: str
    frame: pd.DataFrame
    shown: pd.DataFrame
    words: str = ""


def answers(
    model: Any, ensemble: Ensemble, asked: Sequence[str], *, shares: Sequence[float], **held: Any
) -> Iterator[Answer]:
    """Find what was asked for, one answer at a time; `shares` of the stations are removed, and `held` goes to `compare`."""
    of_folds = ("estimand", "folds", "buffer", "map_points", "places")
    run = {name: value for name, value in held.items() if name not in of_folds}
    seed, progressbar = held["random_seed"], held["progressbar"]
    for by, name in (("member", "members"), ("cluster", "clusters")):
        if name in asked:
            table = members_left_out(model, ensemble, by=by, **held)
            title = f"Left out, one {by} at a time ({held['estimand']}): change of the CRPS in percent"
            yield Answer(f"{name}_left_out", title, table, table[LEFT_OUT], left_out_words(table))
    if "shapley" in asked:
        table = shapley(model, ensemble, **held)
        yield Answer(
            "shapley", "What members bring over climatology (Shapley values of the CRPS)", table, table[SHAPLEY]
        )
    if "stations" in asked:
        found = fewer_stations({type(model).__name__: model}, ensemble, shares=shares, **run)
        table = reduction_table(found, random_seed=seed)
        yield Answer("fewer_stations", "Stations removed before fitting", table, table[FEWER],
                     reduction_words(found, random_seed=seed))  # fmt: skip
    if {"priors", "weights"} & set(asked):
        tree = fit(model, ensemble, method=held["method"], draws=held["draws"], random_seed=seed, log_likelihood=False,
                   progressbar=progressbar)  # fmt: skip
    if "priors" in asked:
        powers = power_scaling(tree)
        sensitive = powers[powers["diagnosis"] != "-"]
        yield Answer("power_scaling", "Quantities that are sensitive to priors", powers,
                     (sensitive if len(sensitive) else powers)[["variable", "prior", "likelihood", "diagnosis", "mean", "sd"]],
                     power_words(powers))  # fmt: skip
        implied = prior_predictive(model, ensemble, random_seed=seed)
        table = prior_table(implied)
        yield Answer("priors_imply", "What the priors imply before the data", table, table, prior_words(implied))
    if "weights" in asked:
        way = "em" if hasattr(model, "em") else "optimum"
        cluster, hang = _clusters(ensemble)
        drawn = clustered_weights(model, ensemble, cluster=cluster, method=way, random_seed=seed,
                                  progressbar=progressbar)  # fmt: skip
        table = weights_table(tree, drawn)
        yield Answer("weights", f"Weights: how sure the posterior is, and how sure {hang} let one be", table, table)


def _clusters(ensemble: Ensemble) -> tuple[Any, str]:
    """What hangs together in a table: stations, else blocks of time, else nothing but the row."""
    if ensemble.labels("site") is not None:
        return "site", "stations"
    if "time" in ensemble.dataset.coords:
        return "time", "blocks of time"
    return np.arange(len(ensemble)), "rows"
