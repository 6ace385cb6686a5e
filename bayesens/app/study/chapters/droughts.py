"""Droughts: the probability of being below a percentile of the station's climatology, and what it was worth."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesens import plots
from bayesens.app.report.parts import Note, Section
from bayesens.app.study.chapters.chapter import drawing, figure, named, sheet
from bayesens.app.study.results import StudyResults
from bayesens.geo.event_scores import brier, reliability, roc, warning_scores
from bayesens.geo.events import find_events

__all__ = ["droughts"]

SHOWN = [
    "model",
    "n",
    "rate",
    "brier",
    "skill",
    "miscalibration",
    "discrimination",
    "auc",
    "hit_rate",
    "false_alarm_ratio",
]


def droughts(results: StudyResults) -> Section:
    """Probabilities of drought beside what happened, and the droughts that were observed."""
    asked = results.study.drought
    assert asked is not None
    rows = results.held[results.estimand].rows
    assert results.drought_threshold is not None
    cut = results.drought_threshold[rows["obs"].values]
    event = np.where(np.isnan(cut), np.nan, rows["observation"].values < cut)
    names = [name for name in results.models if name in rows["model"].values]
    probability = {name: rows["probability_below"].sel(model=name).values for name in names}
    table = pd.DataFrame([_scored(name, p, event) for name, p in probability.items()])
    best = table.iloc[int(table["skill"].argmax())] if table["skill"].notna().any() else None
    known = int(np.isfinite(event).sum())
    parts: list[Any] = [
        f"Of {results.said_rows()}, {known:,} have a threshold. A drought is an observation below the "
        f"{100 * asked.percentile:.0f} % quantile of all observations of its station "
        f"at that time of the year (by {'day of the year' if asked.by == 'dayofyear' else asked.by}). The probability of "
        "being below is that of the predictive distribution of a model that had not seen the row. The threshold is the "
        "observations': a model with a bias at a station has too many droughts there, or too few.",
        sheet("droughts", table, "Probability of drought: Brier score, its parts, area under the ROC curve, and warnings at a "
              "probability of one half.", "Brier = miscalibration - discrimination + uncertainty; skill is against the constant "
              "share of droughts.", shown=table[SHOWN], digits=3, highlight={"brier": "min"}),
        drawing("drought_reliability", partial(_drawn, results, probability, event), "How often there was a drought where a "
                "probability was forecast, by isotonic regression, with 90 % intervals where there are stations and "
                "blocks of time enough.", f"Reliability curves of {', '.join(names)}.", wide=True),
    ]  # fmt: skip
    if best is not None:
        parts.insert(1, Note(_verdict(best)))
    events = _events(results)
    if len(events):
        parts.append(sheet("drought_events", events, "Observed droughts: onset, end, duration in days and severity (the sum "
                           "of what was lacking), with the mean probability of drought that was forecast while they lasted.",
                           "The twelve longest; all of them stand in the file. An open end is a missing value or the end of the "
                           "record.", shown=events.nlargest(12, "duration").reset_index(drop=True)))  # fmt: skip
    return Section("Droughts", tuple(parts), "droughts")


def _scored(name: str, probability: np.ndarray, event: np.ndarray) -> dict[Any, Any]:
    parts = brier(probability, event).to_dict() | warning_scores(probability, event).to_dict()
    return {"model": name, "auc": roc(probability, event).attrs["auc"]} | parts


def _verdict(best: pd.Series) -> str:
    if not best["skill"] > 0:
        return "No model forecasts droughts better than the constant share of droughts does."
    return (f"{best['model']} has the best Brier score, {best['brier']:.3f}: {100 * best['skill']:.0f} % better than "
            f"forecasting the share of droughts ({100 * best['rate']:.0f} %) every time; the area under its ROC curve is "
            f"{best['auc']:.2f}.")  # fmt: skip


def _drawn(results: StudyResults, probability: dict[str, np.ndarray], event: np.ndarray) -> Any:
    rows, asked = results.held[results.estimand].rows, results.study.evaluation
    # Stations of a group held out are no clusters of their own.
    cluster = "group" if results.estimand == "group" else "site"
    n = len(probability)
    made, axes = figure(2.4 * max(n, 2), 2.8, 1, n, sharex=True, sharey=True, squeeze=False)
    for ax, (name, p) in zip(axes[0], probability.items(), strict=True):
        curve = reliability(np.round(p, 2), event, site=rows[cluster].values, time=rows["time"].values, block=asked.block,
                            replicates=min(asked.replicates, 200), random_seed=results.study.study.random_seed)  # fmt: skip
        plots.reliability(curve, ax=ax)
        named(ax, name, legend=False)
    return made


def _events(results: StudyResults) -> pd.DataFrame:
    """Observed events, with the mean probability that each model gave while they lasted."""
    held = results.held[results.estimand]
    site, time = held.members.labels("site"), held.members.dataset["time"].values
    observed = held.members.require_observation()
    cut = results.drought_threshold
    assert cut is not None
    if time.dtype.kind != "M" or not np.isfinite(observed - cut).any():
        return pd.DataFrame()
    step = float(pd.Series(np.unique(time)).diff().min() / pd.Timedelta(days=1))
    found = find_events(observed, cut, site=site, time=time, step=step, progressbar=False).table.drop(columns="sample")
    for name, one in held.predictions.items():
        chance = one["probability_below"].values
        found[f"probability, {name}"] = [
            np.nanmean(chance[(site == line.site) & (time >= line.onset) & (time <= line.end)])
            for line in found.itertuples()
        ]
    return found.sort_values(["site", "onset"], ignore_index=True)
