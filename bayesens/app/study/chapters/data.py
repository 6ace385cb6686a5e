"""The data of a study: stations (or rows, where there are none), networks, years, and what was left out."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesens import plots
from bayesens.app.report.parts import Section
from bayesens.app.study.chapters.chapter import drawing, sheet
from bayesens.app.study.results import StudyResults
from bayesens.comparison.folds.held_out_rows import ESTIMANDS, usual_estimand
from bayesens.ensemble.ensemble import Ensemble
from bayesens.tables.missing_codes import missing_words

__all__ = ["data", "data_line", "unseen"]


def data_line(results: StudyResults) -> str:
    """The data in one line."""
    ensemble = results.ensemble
    text = f"{ensemble.n_observed:,} observations"
    if len(sites := ensemble.levels("site")):
        text += f" at {len(sites)} stations"
    if len(groups := ensemble.levels("group")):
        text += f" in {len(groups)} groups"
    first, last = _span(ensemble)
    return text + (f", {first} to {last}" if first else "")


def data(results: StudyResults) -> Section:
    """The rows of the study, where the members come from, and what was left out."""
    ensemble = results.ensemble
    parts: list[Any] = []
    if results.study.study.text:
        parts.append(results.study.study.text)
    trained = results.study.members.train
    made = "The members' predictions were made elsewhere, and are taken to have been made without these observations."
    if trained:
        made = (
            f"The members {', '.join(trained)} were trained on {len(results.study.members.covariates)} columns"
            + (" and sums over the days before" if results.study.members.sums else "")
            + "; every prediction of theirs that a model was fitted to, or scored on, comes from fits that had not seen that "
            f"{unseen(results)}."
        )
    parts.append(f"{data_line(results)}. {_scored(results)}{made}")
    if results.data.codes:
        parts.append(f"Read as missing: {missing_words(results.data.codes)}.")
    sited = ensemble.labels("site") is not None
    table = _stations(ensemble) if sited else _rows(ensemble)
    if sited:
        parts.append(sheet("stations", table, "Stations and observations by group.", shown=_by_group(table), digits=3))
    else:
        parts.append(sheet("rows", table, "Rows and observations by group; the table has no stations.", digits=3))
    if sited and {"lon", "lat"} <= set(ensemble.dataset.coords):
        parts.append(
            drawing("stations", partial(plots.stations, table, group="group" if "group" in table else None), "The stations.",
                    f"Map of {len(table)} stations by longitude and latitude.", size=(5.6, 4.4))
        )  # fmt: skip
    return Section("Data", tuple(parts), "data")


def _scored(results: StudyResults) -> str:
    """How many of the observations are scored, and why others are not."""
    seen = results.ensemble.n_observed
    count = {ESTIMANDS[estimand]: held.rows.sizes["obs"] for estimand, held in results.held.items()}
    if set(count.values()) == {seen}:
        return f"All {seen:,} are scored. "
    if len(set(count.values())) == 1:
        text = f"{next(iter(count.values())):,} of them are scored"
    else:
        text = "Scored are " + "; ".join(f"{n:,} of them ({words})" for words, n in count.items())
    return f"{text}: the others have no member, or a prediction of no model. "


def unseen(results: StudyResults) -> str:
    """What members that are trained have not seen of a row that they predict: its station, its time, or the row itself."""
    data = results.study.data
    return {"site": "station", "time": "block of time", "row": "row"}[
        usual_estimand(site=data.site is not None, time=data.time is not None)
    ]


def _span(ensemble: Ensemble) -> tuple[str, str]:
    if "time" not in ensemble.dataset.coords:
        return "", ""
    time = pd.Series(ensemble.dataset["time"].values[ensemble.observed])
    return tuple(str(end).removesuffix(" 00:00:00") for end in (time.min(), time.max()))  # type: ignore[return-value]


def _stations(ensemble: Ensemble) -> pd.DataFrame:
    """One line a station: place, group, rows, and the mean and sd of its observations."""
    dataset = ensemble.dataset
    columns = {name: dataset[name].values for name in ("site", "group", "lon", "lat") if name in dataset.coords}
    frame = pd.DataFrame(columns | {"observation": ensemble.observation})
    grouped = frame.groupby("site", sort=True)
    kept = [name for name in ("group", "lon", "lat") if name in columns]
    described = grouped["observation"].agg(n="count", mean="mean", sd="std")
    return pd.concat([grouped[kept].first(), described], axis=1).reset_index()


def _rows(ensemble: Ensemble) -> pd.DataFrame:
    """One line a group, and one for all: rows, observations, their mean and sd."""
    frame = pd.DataFrame(
        {"group": ensemble.labels("group"), "observation": ensemble.observation}, index=range(len(ensemble))
    )
    parts = [(str(name), part) for name, part in frame.groupby("group")] + [("all", frame)]
    lines = [{"group": name, "rows": len(part), "observations": int(part["observation"].count()),
              "mean": part["observation"].mean(), "sd": part["observation"].std()} for name, part in parts]  # fmt: skip
    return pd.DataFrame(lines)


def _by_group(table: pd.DataFrame) -> pd.DataFrame:
    parts = list(table.groupby("group")) if "group" in table else []
    return pd.DataFrame([_line(str(name), part) for name, part in [*parts, ("all", table)]])


def _line(name: str, part: pd.DataFrame) -> dict[str, Any]:
    observed = part[part["n"] > 0]
    mean = float(np.average(observed["mean"], weights=observed["n"])) if len(observed) else np.nan
    return {"group": name, "stations": len(part), "observations": int(part["n"].sum()), "mean": mean,
            "sd of station means": observed["mean"].std(ddof=1) if len(observed) > 1 else np.nan}  # fmt: skip
