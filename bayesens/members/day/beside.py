"""Neighbours beside members that need no training: `bayesens.neighbours`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.from_table import COVARIATE, COVARIATE_NAME
from bayesens.members.day.chain import BESIDE, BESIDE_MEMBERS, NAME, fitted_neighbours
from bayesens.members.day.door import check_neighbours, places_of
from bayesens.members.day.fitted import FittedNeighbours
from bayesens.members.members import Members
from bayesens.models.neighbours import Neighbours
from bayesens.tables.grids import MEMBER
from bayesens.tables.missing_codes import NONE

__all__ = ["as_members", "neighbours", "with_member", "with_neighbours_of_its_own"]

ROLES = ("site", "group", "time", "lon", "lat")


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
    return with_neighbours_of_its_own(ensemble, model, places=places)[1]


def with_neighbours_of_its_own(
    ensemble: Ensemble, model: Neighbours | None = None, *, places: Any = None
) -> tuple[FittedNeighbours, Ensemble]:
    """Return the neighbours of an ensemble, for rows that are yet to come, and the ensemble with what they say of it."""
    model, rows = model or Neighbours(), _rows_of(ensemble)
    at = places_of(places, rows)
    check_neighbours(model, False, rows, ensemble.members, at)
    fitted, said = fitted_neighbours(model, rows, at, np.ones(len(ensemble), dtype=bool))
    return fitted, with_member(ensemble, said.columns, BESIDE_MEMBERS)


def as_members(ensemble: Ensemble, model: Neighbours | None = None, *, places: Any = None) -> Members:
    """Return the members of an ensemble as products beside neighbours that `compare` makes anew in every fold."""
    rows = _rows_of(ensemble)
    roles: dict[str, Any] = {role: getattr(rows, role) for role in ROLES}
    plain = rows.time is not None and rows.time.dtype.kind in "iuf"
    members = pd.DataFrame(ensemble.prediction, columns=list(ensemble.members))
    return Members(
        {}, pd.concat([members, rows.X], axis=1), rows.y, **roles, products=list(ensemble.members), keep=ensemble.covariates,
        units=ensemble.units or None, missing=NONE, time_format="number" if plain else None, places=places,
        neighbours=model or True,
    )  # fmt: skip


def _rows_of(ensemble: Ensemble) -> Any:
    """What neighbours look at in a table of members, as they look at it in one that members are trained on."""
    data = ensemble.dataset
    covariates = {name: data[COVARIATE].sel({COVARIATE_NAME: name}).values for name in ensemble.covariates}
    kept = pd.DataFrame(covariates, index=range(len(ensemble)))
    roles = {role: data[role].values if role in data.coords else None for role in ROLES}
    columns = {role: role for role, column in roles.items() if column is not None}
    return SimpleNamespace(X=kept, y=ensemble.require_observation(), columns=columns, **roles)


def with_member(ensemble: Ensemble, said: Sequence[NDArray[np.float64]], trained: str) -> Ensemble:
    """Return an ensemble with one more member and two more covariates: mean, standard deviation and distance (obs)."""
    data = ensemble.dataset
    old = data["prediction"]
    prediction = np.column_stack([old.transpose("obs", MEMBER).values, said[0]])
    covariates = [data[COVARIATE].sel({COVARIATE_NAME: name}).values for name in ensemble.covariates]
    rest = data.drop_vars(
        [name for name in ("prediction", MEMBER, COVARIATE, COVARIATE_NAME) if name in data.variables]
    )
    attrs = old.attrs | ({"trained": trained} if trained else {})
    coords: dict[str, Any] = {MEMBER: np.array([*ensemble.members, NAME], dtype=np.str_),
                              COVARIATE_NAME: np.array([*ensemble.covariates, *BESIDE], dtype=np.str_)}  # fmt: skip
    arrays: dict[str, Any] = {"prediction": (("obs", MEMBER), prediction, attrs),
                              COVARIATE: (("obs", COVARIATE_NAME), np.column_stack([*covariates, *said[1:]]))}  # fmt: skip
    return Ensemble(rest.assign(arrays).assign_coords(coords))
