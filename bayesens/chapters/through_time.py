"""Predictive intervals through time at some stations."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesens.atomic import file_name
from bayesens.chapters.chapter import Chapter, Drawing, figure, named
from bayesens.checks import check_known
from bayesens.study_results import StudyResults

__all__ = ["chosen_stations", "through_time"]


WHOLE = ""  # stands for all rows of a table without stations


def chosen_stations(results: StudyResults) -> list[str]:
    """Stations asked for; otherwise those that the reference predicts best, middling and worst.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    list of str
        One empty name for all rows where the table has no stations.
    """
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


def through_time(results: StudyResults) -> Chapter:
    """Write the chapter.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    Chapter
    """
    stations = chosen_stations(results)
    names = [name for name in results.models if name in results.held[results.estimand].predictions]
    shown = names[:2]
    how = "" if results.study.report.stations or stations == [WHOLE] else (
        f" The stations are those that {results.reference} predicts best, middling and worst: they were not picked for "
        f"their looks."
    )  # fmt: skip
    parts: list[Any] = [f"Each station was held out while these models were fitted.{how}" if results.estimand == "site" else
                        f"The rows were held out while these models were fitted.{how}"]  # fmt: skip
    parts += [Drawing(f"through_time_{file_name(station or 'all')}", partial(_drawn, results, station, shown),
                      f"{', '.join(shown)}{f' at {station}' if station else ''}: median, 50 and 90 % intervals, and "
                      "observations.",
                      f"Predictive intervals through time{f' at station {station}' if station else ''}.", wide=True)
              for station in stations]  # fmt: skip
    return Chapter("Through time", tuple(parts), "time")


def _drawn(results: StudyResults, station: str, names: list[str]) -> Any:
    from bayesens import plots

    held = results.held[results.estimand]
    site = held.members.labels("site")
    rows = np.arange(len(held.members)) if site is None else np.flatnonzero(site == station)
    time = pd.Series(held.members.dataset["time"].values[rows])
    order = rows[np.argsort(time.to_numpy(), kind="stable")]
    made, axes = figure(7.2, 1.9 * len(names), len(names), 1, sharex=True, sharey=True, squeeze=False)
    for ax, name in zip(axes[:, 0], names, strict=True):
        one = held.predictions[name].sel(obs=order)["quantile_value"].sel(quantile=[0.05, 0.25, 0.5, 0.75, 0.95])
        plots.intervals(one, held.members.require_observation()[order], held.members.dataset["time"].values[order],
                        units=results.units, ax=ax)  # fmt: skip
        named(ax, name, legend=ax is axes[0, 0])
    return made
