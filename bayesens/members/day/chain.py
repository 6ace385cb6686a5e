"""Neighbours in the chain of the members: fitted to the rows that may be learnt from, asked for those and for others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesens.ensemble.places import RowPlaces
from bayesens.likelihoods.day.table import day_table
from bayesens.members.day.fitted import FittedNeighbours, Said
from bayesens.messages import check_known, listed
from bayesens.models.neighbours import Neighbours

__all__ = ["BESIDE", "FEATURES", "NAME", "apart", "check_neighbours", "distance_classes", "fitted_neighbours"]

NAME = "neighbours"  # the member
BESIDE = (f"{NAME}_sd", f"{NAME}_distance")
FEATURES = (f"{NAME}_mean", *BESIDE)


def check_neighbours(model: Neighbours | None, features: bool, rows: Any, keep: tuple[str, ...]) -> None:
    """Refuse a table without what neighbours need, and names that are theirs."""
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
    if both := sorted({*FEATURES} & ({*rows.X.columns} | {*keep})):
        raise ValueError(f"column(s) {listed(both)} have a name that neighbours give to columns of theirs; rename them")


def apart(model: Neighbours, estimand: str) -> Neighbours:
    """Return neighbours that leave out, with every row, what an estimand holds out with it."""
    if "time" in estimand:
        raise ValueError(
            f"neighbours interpolate what stations observed on the day itself, and the estimand {estimand!r} asks for days "
            "that nobody has observed; wanted 'site' or 'group', or members without neighbours"
        )
    return replace(model, leave_out="group") if estimand == "group" else model


def distance_classes(distance: NDArray[np.float64]) -> NDArray[np.str_]:
    """Fifths of the distances to the nearest station, as labels of rows; "" where no distance is known.

    Examples
    --------
    >>> distance_classes(np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.nan])).tolist()
    ['1 (up to 1.8)', '2 (up to 2.6)', '3 (up to 3.4)', '4 (up to 4.2)', '5 (beyond 4.2)', '']
    """
    known = distance[np.isfinite(distance)]
    if not known.size:
        return np.full(len(distance), "")
    ends = np.unique(np.quantile(known, np.arange(1, 5) / 5))
    names = [f"{k + 1} (up to {end:.3g})" for k, end in enumerate(ends)] + [f"{len(ends) + 1} (beyond {ends[-1]:.3g})"]
    place = np.searchsorted(ends, np.where(np.isfinite(distance), distance, 0.0))
    return np.where(np.isfinite(distance), np.array(names)[place], "")


def fitted_neighbours(
    model: Neighbours, rows: Any, places: RowPlaces | None, inside: NDArray[np.bool_]
) -> tuple[FittedNeighbours, Said]:
    """Fit neighbours to the observations of some rows, and say what these say of all rows."""
    label = rows.group if model.leave_out == "group" else rows.site
    trend = rows.X[list(model.trend)].to_numpy(dtype=np.float64)
    used = trend[inside & np.isfinite(rows.y)]
    standard = np.array([np.nanmean(used, axis=0), np.nanstd(used, axis=0)]) if model.trend else np.zeros((2, 0))
    table = day_table(
        np.where(inside, rows.y, np.nan), site=rows.site, time=rows.time, unit=label, places=places, trend=trend
    )
    fitted = FittedNeighbours.of(model, table, standard)
    return fitted, fitted.of_rows(rows.site, rows.time, label, places, trend)
