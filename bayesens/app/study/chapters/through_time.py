"""Predictive intervals through time at some stations."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesens import plots
from bayesens.app.report.parts import Section
from bayesens.app.study.chapters.chapter import drawing, figure, named
from bayesens.app.study.results import StudyResults
from bayesens.messages import check_known
from bayesens.tables.atomic import file_name

__all__ = ["chosen_stations", "through_time"]

MOST, WINDOW = 550, 365  # rows of a panel beyond which nobody can read it; days, and rows at most, shown in their place
WHOLE = ""  # stands for all rows of a table without stations


def chosen_stations(results: StudyResults) -> list[str]:
    """Stations asked for, else those that the reference predicts best, middling and worst; one empty name without stations."""
    asked = list(results.study.report.stations)
    if results.study.data.site is None:
        return [WHOLE]
    held = results.held[results.estimand]
    if asked:
        check_known(asked, held.members.levels("site"), kind="station", where="the table (report.stations)")
        return asked
    model = results.reference if results.reference in held.predictions else next(iter(held.predictions))
    crps = held.rows["crps"].sel(model=model).groupby("site").mean().to_series().sort_values()
    picked = [0, len(crps) // 2, len(crps) - 1]
    return list(dict.fromkeys(str(crps.index[i]) for i in picked))


def through_time(results: StudyResults) -> Section:
    """Predictive intervals of the first two models at the chosen stations."""
    stations = chosen_stations(results)
    names = [name for name in results.models if name in results.held[results.estimand].predictions]
    shown = names[:2]
    how = f"{'Each station was' if results.estimand == 'site' else 'The rows were'} held out while these models were fitted."
    if not results.study.report.stations and stations != [WHOLE]:
        how += (
            f" The stations are those that {results.reference} predicts best, middling and worst: they were not picked for "
            "their looks."
        )
    parts: list[Any] = [how]
    for station in stations:
        order, at = _window(results, station), f" at {station}" if station else ""
        parts.append(drawing(
            f"through_time_{file_name(station or 'all')}", partial(_drawn, results, order, shown),
            f"{' and '.join(shown)}{at}: median, 50 and 90 % intervals, and observations{_said(results, station, order)}.",
            f"Predictive intervals through time{f' at station {station}' if station else ''}.", wide=True,
        ))  # fmt: skip
    return Section("Through time", tuple(parts), "time")


def _of_station(results: StudyResults, station: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a station, or of a table without stations, in the order of time, and their times."""
    members = results.held[results.estimand].members
    site = members.labels("site")
    rows = np.arange(len(members)) if site is None else np.flatnonzero(site == station)
    time = members.dataset["time"].values[rows]
    order = np.argsort(time, kind="stable")
    return rows[order], time[order]


def _window(results: StudyResults, station: str) -> np.ndarray:
    """Rows that are drawn: of a long series the year, or so many rows, with most observations, the first of equals."""
    rows, time = _of_station(results, station)
    if len(rows) <= MOST:
        return rows
    first = np.arange(len(rows))
    last = np.minimum(first + WINDOW, len(rows))
    if np.issubdtype(time.dtype, np.datetime64):  # of a series of single seasons so many rows would span years
        last = np.minimum(last, np.searchsorted(time, time + np.timedelta64(WINDOW, "D")))
    seen = np.cumsum(np.r_[0, results.held[results.estimand].members.observed[rows]])
    best = int(np.argmax(seen[last] - seen[first]))
    return rows[first[best] : last[best]]


def _said(results: StudyResults, station: str, drawn: np.ndarray) -> str:
    """Which part of the series is drawn, where not all of it is."""
    rows, time = _of_station(results, station)
    if len(drawn) == len(rows):
        return ""
    shown = results.held[results.estimand].members.dataset["time"].values[drawn[[0, -1]]]
    first, last, begin, end = (_day(each) for each in (*shown, time[0], time[-1]))
    return f"; of the series from {begin} to {end} the part with most observations, {first} to {last}"


def _day(time: Any) -> str:
    return str(pd.Timestamp(time).date()) if np.issubdtype(np.asarray(time).dtype, np.datetime64) else f"{time:g}"


def _drawn(results: StudyResults, order: np.ndarray, names: list[str]) -> Any:
    held = results.held[results.estimand]
    made, axes = figure(7.2, 1.9 * len(names), len(names), 1, sharex=True, sharey=True, squeeze=False)
    for ax, name in zip(axes[:, 0], names, strict=True):
        one = held.predictions[name].sel(obs=order)["quantile_value"].sel(quantile=[0.05, 0.25, 0.5, 0.75, 0.95])
        plots.intervals(one, held.members.require_observation()[order], held.members.dataset["time"].values[order],
                        units=results.units, ax=ax)  # fmt: skip
        named(ax, name, legend=ax is axes[0, 0])
    return made
