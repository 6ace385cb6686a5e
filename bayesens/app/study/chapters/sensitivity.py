"""What the results rest on: members left out, fewer stations, other priors, and how sure the weights are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesens import plots
from bayesens.app.report.parts import Note, Section
from bayesens.app.study.chapters.chapter import drawing, sheet
from bayesens.app.study.results import StudyResults
from bayesens.comparison.folds.held_out_rows import ESTIMANDS
from bayesens.sensitivity import (
    left_out_words,
    power_law,
    power_words,
    prior_table,
    prior_words,
    reduction_table,
    reduction_words,
)
from bayesens.tables.atomic import file_name

__all__ = ["sensitivity"]


def sensitivity(results: StudyResults) -> Section:
    """Members left out, fewer stations, other priors, and how sure the weights are."""
    parts: list[Any] = [
        "Every line here comes from fits of their own, scored on the same rows as all others "
        f"({ESTIMANDS[results.estimand]}), and not from a fit that was looked at again.",
        *_left_out(results), *_shapley(results), *_stations(results), *_weights(results), *_priors(results),
    ]  # fmt: skip
    return Section("What the results rest on", tuple(parts), "sensitivity")


def _left_out(results: StudyResults) -> Iterator[Any]:
    for name, table in results.sensitivity.left_out.items():
        yield Note(f"{name}: {left_out_words(table)}")
        yield drawing(f"left_out_{file_name(name)}", partial(plots.left_out, table), f"Change of the CRPS of {name} when a "
                      "member, or a cluster of them, is left out and all is fitted anew; 90 % intervals. In brackets, the "
                      "correlation of its errors with those of the others.",
                      f"Change of the CRPS of {name} without each member.", size=(6.2, 1.2 + 0.36 * len(table)))  # fmt: skip
        shown = table[["left_out", "n_left", "score", "difference", "low", "high", "error_correlation", "interval"]]
        yield sheet(f"left_out_{file_name(name)}", table, f"Members left out of {name}: change of the CRPS [%].", shown=shown,
                    digits=3)  # fmt: skip


def _shapley(results: StudyResults) -> Iterator[Any]:
    for name, table in results.sensitivity.shapley.items():
        yield drawing(f"shapley_{file_name(name)}", partial(plots.shapley, table), f"What the members bring {name} over "
                      "climatology, shared out over all orders in which they can join.",
                      f"Shapley values of the members of {name}.", size=(6.2, 1.4 + 0.36 * len(table)))  # fmt: skip
        yield sheet(f"shapley_{file_name(name)}", table, f"Shapley values of the members of {name}.",
                    shown=table[["member", "value", "low", "high", "share", "alone", "last"]], digits=3)  # fmt: skip


def _stations(results: StudyResults) -> Iterator[Any]:
    found = results.sensitivity.reduction
    if found is None:
        return
    seed = results.study.study.random_seed
    table = reduction_table(found, random_seed=seed)
    law = power_law(found, random_seed=seed) if found.sizes["share"] > 3 else None  # a curve of three parameters
    draw = partial(plots.learning_curve, table, law=law, units=results.ensemble.units)
    yield drawing("learning_curve", draw, "Score at the same validation stations, learnt from ever fewer of the others.",
                  "Score against the number of stations learnt from.", size=(6.2, 3.8))  # fmt: skip
    yield Note(reduction_words(found, random_seed=seed), "caution")
    yield sheet("fewer_stations", table, "Stations removed before training.", digits=3, heads=3)
    if law is not None:
        yield sheet("power_law", law, "Power law S(n) = a + b n^-c of the score over the number of stations.", digits=3)


def _weights(results: StudyResults) -> Iterator[Any]:
    for name, table in results.sensitivity.weights.items():
        ratio = float(np.nanmedian(table["clustered_sd"] / table["posterior_sd"]))
        yield sheet(f"weights_{file_name(name)}", table, f"Weights of {name}: how sure the posterior is, and how sure stations "
                    "let one be.", "The posterior takes rows as independent; clustered_sd draws whole stations anew and refits. "
                    f"Here it is {ratio:.1f} times the posterior's (median of the members).", digits=3)  # fmt: skip


def _priors(results: StudyResults) -> Iterator[Any]:
    for name, table in results.sensitivity.power.items():
        yield f"{name}: {power_words(table)}"
        sensitive = table[table["diagnosis"] != "-"][["variable", "prior", "likelihood", "diagnosis"]]
        yield sheet(f"power_scaling_{file_name(name)}", table, f"Quantities of {name} that are sensitive to its priors.",
                    "The file has all of them.", shown=sensitive if len(sensitive) else pd.DataFrame(), digits=3)  # fmt: skip
    for name, result in results.sensitivity.prior.items():
        yield f"{name}: {prior_words(result)}"
        caption = f"What the priors of {name} imply before the data."
        yield sheet(f"prior_{file_name(name)}", prior_table(result), caption, digits=3)
