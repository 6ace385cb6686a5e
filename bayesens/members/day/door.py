"""What a table must have so that neighbours can be asked, and what it lacks without being refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bayesens.ensemble.collinear import constant
from bayesens.ensemble.places import RowPlaces, row_places, site_places
from bayesens.ensemble.transforms import TRANSFORMS, transform
from bayesens.likelihoods.day.table import distances
from bayesens.members.day.chain import FEATURES, NAME
from bayesens.members.day.times import written
from bayesens.messages import check_known, listed, warn
from bayesens.models.neighbours import Neighbours

__all__ = ["check_neighbours", "places_of"]


def places_of(given: Any, rows: Any) -> RowPlaces | None:
    """Coordinates of the rows of a table: those given, or ``lon`` and ``lat``, or covariates ``x`` and ``y``, or None."""
    covariates = {name: rows.X[name] for name in ("x", "y") if name in rows.X}
    return row_places(given, len(rows.y), lon=rows.lon, lat=rows.lat, covariates=covariates)


def check_neighbours(
    model: Neighbours | None, features: bool, rows: Any, keep: tuple[str, ...], places: RowPlaces | None
) -> None:
    """Refuse a table without what neighbours need, and names that are theirs; say what they will not tell.

    Parameters
    ----------
    model : Neighbours, optional
    features : bool
        Whether estimators learn from them.
    rows : TrainingTable, or what has its X, y, columns and roles
    keep : tuple of str
        Other names of members or covariates.
    places : RowPlaces, optional
    """
    if model is None:
        if features:
            raise ValueError("neighbour_features=True needs neighbours=True, or a Neighbours with its options")
        return
    if not isinstance(model, Neighbours):
        raise TypeError(f"neighbours is {model!r}; wanted True, or be.Neighbours(...) with its options")
    lacking = [role for role in ("site", "time") if role not in rows.columns]
    if lacking:
        raise ValueError(
            f"neighbours need the site and the time of every row, and the table has no {listed(lacking)}: give "
            f"{', '.join(f'{role}=...' for role in lacking)}, or leave neighbours out"
        )
    if model.leave_out == "group" and rows.group is None:
        raise ValueError(
            'Neighbours(leave_out="group") needs the group of every row: give group=..., or leave out sites'
        )
    check_known(list(model.trend), rows.X.columns, kind="column", where="the covariates, where the trend looks")
    if both := sorted({NAME, *FEATURES} & ({*rows.X.columns} | {*keep})):
        raise ValueError(f"column(s) {listed(both)} have a name that neighbours give to columns of theirs; rename them")
    if model.transform in TRANSFORMS:
        transform(model.transform).check(rows.y, column=rows.columns.get("observation", "observation"))
    _check_company(model, rows, places)
    _check_trend(model, rows)
    if places is None:
        warn("neighbours have no coordinates: the mean of each day is all that they tell, alike in every place; give lon=... and "
             "lat=..., or coordinates in a plane, places=...")  # fmt: skip


def _check_company(model: Neighbours, rows: Any, places: RowPlaces | None) -> None:
    """Refuse stations that have nobody to ask; say where no two of them ever meet."""
    seen = np.isfinite(rows.y) & ~pd.isna(rows.time)
    stations = np.unique(rows.site[seen])
    if len(stations) < 2:
        raise ValueError(
            f"{listed(stations.tolist()) or 'no station'} alone has observations, and neighbours tell a row of other stations; "
            "wanted two at least: leave neighbours out"
        )
    alone = _alone(model, rows, places, seen)
    if len(alone) == len(stations):
        how = f"buffer={model.buffer:g}" if model.buffer else 'leave_out="group"'
        raise ValueError(
            f"Neighbours({how}) sets aside all other stations for each of the {len(stations)}; wanted less of it, so that "
            "some are left"
        )
    if alone:
        warn(f"{len(alone)} of {len(stations)} stations have no other that may be asked: {listed(alone)}; neighbours tell them "
             "the mean of all times: a smaller buffer, or leaving sites out in place of groups, leaves them some")  # fmt: skip
    together = pd.DataFrame({"time": rows.time[seen], "site": rows.site[seen]}).groupby("time")["site"].nunique()
    if together.max() < 2:
        first = ", ".join(written(one) for one in np.unique(rows.time[seen])[:3])
        warn(f"no two of the {len(stations)} stations have an observation at the same time ({first}, ...): neighbours know "
             "nothing of any row's day; where clocks differ, bring the times to whole days or hours "
             "(in pandas: frame['time'].dt.floor('D'))")  # fmt: skip


def _alone(model: Neighbours, rows: Any, places: RowPlaces | None, seen: Any) -> list[str]:
    """Stations for which all others are set aside."""
    names, first = np.unique(rows.site[seen], return_index=True)
    unit = (rows.group if model.leave_out == "group" else rows.site)[seen][first]
    aside = unit[:, None] == unit
    if places is not None:
        every, at = site_places(places, rows.site, why="neighbours need")
        at = at.at(np.isin(every, names))
        aside |= distances(at, at) < model.buffer
    elif model.buffer:
        raise ValueError(
            f"Neighbours(buffer={model.buffer:g}) needs coordinates, and there are none; give lon=... and lat=..., or "
            "places=..., or no buffer"
        )
    return list(names[aside.all(axis=1)].tolist())


def _check_trend(model: Neighbours, rows: Any) -> None:
    """Refuse columns of a trend without numbers; say which do not vary, and where they are missing."""
    seen = np.isfinite(rows.y)
    for name in model.trend:
        column = rows.X[name].to_numpy(dtype=np.float64)[seen]
        known = np.isfinite(column)
        if not known.any():
            raise ValueError(
                f"column {name!r} of the trend is missing in all {len(column)} rows with an observation; leave it out"
            )
        if constant(column):
            warn(f"column {name!r} of the trend is {column[known][0]:g} wherever there is an observation: neighbours learn "
                 "nothing from it; leave it out")  # fmt: skip
        elif lacking := sorted({*rows.site[seen].tolist()} - {*rows.site[seen][known].tolist()}):
            warn(f"column {name!r} of the trend is missing at {len(lacking)} station(s): {listed(lacking)}; the mean of the "
                 "others stands in there: complete it")  # fmt: skip
