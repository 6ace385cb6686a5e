"""The part of a large table that a covariance is fitted to.

One evaluation of the likelihood inverts a matrix for every set of stations that some day has: the cube of their numbers, summed
over the sets, is its work. A table of more than `WORK` is fitted by a part of it. Predictions are of all stations and days.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bayesens.likelihoods.day.table import DayTable

__all__ = ["WORK", "part_of"]

WORK = 2e8  # 400 days of 80 among 100 stations: about 20 seconds of a fit
STATIONS = 100  # more only where days are few


def part_of(table: DayTable, work: float = WORK) -> DayTable:
    """Return a table of stations spread over the domain, and of days spread over time; one of little work as it is.

    Stations are a hundred, or as many as the days allow. They are taken in pairs: the farthest from all before it, from the one
    with the most observations on, and the nearest to that one, so that long and short distances are there. Days are as many as
    the work allows, evenly spaced among those on which two or more of them have an observation.

    Examples
    --------
    >>> site = np.array(["a", "b", "c"])
    >>> table = DayTable(site, site, None, np.zeros((3, 0)), np.arange(5), np.where(np.eye(5, 3) > 0.0, np.nan, 1.0))
    >>> part_of(table).time.tolist(), part_of(table, work=35.0).time.tolist()
    ([0, 1, 2, 3, 4], [0, 4])
    """
    if np.sum(np.diff(table.patterns.start) ** 3.0) <= work:
        return table
    most = max(STATIONS, int(np.cbrt(work / len(table.time))))
    chosen = np.sort(_spread(table, most)) if len(table.site) > most else np.arange(len(table.site))
    count = np.isfinite(table.y[:, chosen]).sum(axis=1)
    days = np.flatnonzero(count >= min(2, count.max()))
    kept = max(1, int(work / np.mean(count[days] ** 3.0)))
    if len(days) > kept:
        days = days[np.round(np.linspace(0, len(days) - 1, kept)).astype(int)]
    seen = np.isfinite(table.y[np.ix_(days, chosen)]).any(axis=0)
    return table.some(chosen[seen], days)


def _spread(table: DayTable, n: int) -> NDArray[np.int64]:
    """Stations far from each other, and neighbours of theirs."""
    count = np.isfinite(table.y).sum(axis=0)
    if table.places is None:
        return np.argsort(-count, kind="stable")[:n]
    u = table.distance
    chosen = [int(np.argmax(count))]
    nearest = u[chosen[0]].copy()
    free = np.ones(len(u), dtype=bool)
    free[chosen] = False
    while len(chosen) < n:
        if len(chosen) % 2:
            one = int(np.argmin(np.where(free, u[chosen[-1]], np.inf)))
        else:
            one = int(np.argmax(np.where(free, nearest, -np.inf)))
        chosen.append(one)
        free[one] = False
        nearest = np.minimum(nearest, u[one])
    return np.array(chosen)
