"""Neighbours beside members that need no training: `bayesens.neighbours`."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.from_table import COVARIATE, COVARIATE_NAME
from bayesens.members.day.chain import BESIDE, NAME, fitted_neighbours
from bayesens.members.day.door import check_neighbours, places_of
from bayesens.models.neighbours import Neighbours
from bayesens.tables.grids import MEMBER

__all__ = ["neighbours"]


def neighbours(
    ensemble: Ensemble,
    model: Neighbours | None = None,
    *,
    places: Mapping[str, ArrayLike] | pd.DataFrame | None = None,
) -> Ensemble:
    """Return an ensemble with one more member: what other stations observed at the same time, interpolated.

    Every row is predicted by all other stations; of rows that repeat a station and time the mean is taken. So the ensemble may
    be fitted to, and scores of its rows that a fold holds out would be too good; for these, `Members` takes products and
    neighbours, and `compare` trains in every fold anew:
    ``Members({}, frame, "obs", site=..., time=..., products=[...], neighbours=True)``. Of large tables the covariance is fitted
    to a part, as `Neighbours` says; 150 stations on 800 days take about a minute.

    Parameters
    ----------
    ensemble : Ensemble
        With observations, sites and times.
    model : Neighbours, optional
        None: its defaults.
    places : mapping of name to array_like (obs) or DataFrame, optional
        Two columns of coordinates; None: ``lon`` and ``lat``, else covariates ``x`` and ``y``, else the day's mean is all
        that neighbours tell.

    Returns
    -------
    Ensemble
        With the member ``neighbours`` and the covariates ``neighbours_sd`` and ``neighbours_distance``; marked
        ``"cross-fitted"``.

    Raises
    ------
    KeyError, TypeError, ValueError
        No sites or times, one station alone, observations that do not vary, a column of the trend that is not there, a
        station in two places or in none.

    Warns
    -----
    UserWarning
        Without coordinates, where no two stations have an observation at the same time, and of columns of a trend that are
        constant or missing at stations.

    Examples
    --------
    >>> frame = pd.DataFrame({"day": [1, 1, 1, 2, 2, 2], "station": list("abc") * 2, "rf": [1.0, 2.0, 3.0, 3.0, 4.0, 5.0]})
    >>> frame["sm"] = [1.1, 1.9, 3.2, 2.8, 4.1, 5.2]
    >>> ens = Ensemble.from_frame(frame, members=["rf"], observation="sm", site="station", time="day")
    >>> neighbours(ens, places={"x": [0.0, 3.0, 6.0] * 2, "y": [0.0, 4.0, 0.0] * 2}).members
    ('rf', 'neighbours')
    """
    data, model = ensemble.dataset, model or Neighbours()
    covariates = {name: data[COVARIATE].sel({COVARIATE_NAME: name}).values for name in ensemble.covariates}
    kept = pd.DataFrame(covariates, index=range(len(ensemble)))
    roles = {
        role: data[role].values if role in data.coords else None for role in ("site", "group", "time", "lon", "lat")
    }
    columns = {role: role for role, column in roles.items() if column is not None}
    rows = SimpleNamespace(X=kept, y=ensemble.require_observation(), columns=columns, **roles)
    at = places_of(places, rows)
    check_neighbours(model, False, rows, ensemble.members, at)
    said = fitted_neighbours(model, rows, at, np.ones(len(ensemble), dtype=bool))[1]
    old = data["prediction"]
    prediction = np.column_stack([old.values, said.mean])
    beside = np.column_stack([*covariates.values(), *said.columns[1:]])
    rest = data.drop_vars(
        [name for name in ("prediction", MEMBER, COVARIATE, COVARIATE_NAME) if name in data.variables]
    )
    attrs = old.attrs | {"trained": f"cross-fitted, {NAME} without the row's station"}
    coords: dict[str, Any] = {MEMBER: np.array([*ensemble.members, NAME], dtype=np.str_),
                              COVARIATE_NAME: np.array([*ensemble.covariates, *BESIDE], dtype=np.str_)}  # fmt: skip
    arrays: dict[str, Any] = {"prediction": (("obs", MEMBER), prediction, attrs),
                              COVARIATE: (("obs", COVARIATE_NAME), beside)}  # fmt: skip
    return Ensemble(rest.assign(arrays).assign_coords(coords))
