"""Neighbours in the chain of the members: fitted to the rows that may be learnt from, asked for those and for others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesens.ensemble.collinear import constant
from bayesens.ensemble.places import RowPlaces
from bayesens.likelihoods.day.table import day_table
from bayesens.members.day.fitted import FittedNeighbours, Said
from bayesens.models.neighbours import Neighbours

__all__ = ["BESIDE", "BESIDE_MEMBERS", "FEATURES", "NAME", "apart", "distance_classes", "fitted_neighbours"]

NAME = "neighbours"  # the member
BESIDE = (f"{NAME}_sd", f"{NAME}_distance")
FEATURES = (f"{NAME}_mean", *BESIDE)
BESIDE_MEMBERS = f"cross-fitted, {NAME} without the row's station"  # how the members of `bayesens.neighbours` were made


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
    standard = _standard(trend[inside & np.isfinite(rows.y)])
    table = day_table(
        np.where(inside, rows.y, np.nan), site=rows.site, time=rows.time, unit=label, places=places, trend=trend
    )
    fitted = FittedNeighbours.of(model, table, standard)
    return fitted, fitted.of_rows(rows.site, rows.time, label, places, trend)


def _standard(trend: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean and standard deviation (2, covariate) of the columns of a trend; one that does not vary has no unit."""
    middle, spread = np.zeros((2, trend.shape[1]))
    for k, column in enumerate(trend.T):
        # Of a constant one rounding would be the unit, of 1e-16, in which another value elsewhere is enormous.
        none = constant(column) or np.isnan(column).all()
        middle[k], spread[k] = (0.0, np.inf) if none else (np.nanmean(column), np.nanstd(column))
    return np.array([middle, spread])
