"""The maps of a study: members and models on a grid."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.app.study.data import StudyData
from bayesens.app.study.file import Study
from bayesens.app.study.maps.grid import StudyGrid, study_grid
from bayesens.inference.predict import predict
from bayesens.members.applicability import Applicability, applicability
from bayesens.members.day.chain import NAME
from bayesens.members.day.grid import observed_on
from bayesens.members.fitted import FittedMembers
from bayesens.members.members import Members
from bayesens.tables.grids import MEMBER
from bayesens.tables.missing_codes import NONE

__all__ = ["Maps", "study_maps"]

WIDTH = (0.05, 0.95)  # the interval that the report shows


@dataclass(frozen=True, eq=False)
class Maps:
    """What a study says of every cell of a grid.

    Attributes
    ----------
    models : dict of name to Dataset
        What `predict` gives, on the dimensions of the grid.
    points : dict of name to DataArray
        Members, and products to set beside the models.
    grid : StudyGrid
    predicted : Dataset
        The grid with ``prediction (..., member)``, as models take it.
    where : bool DataArray
        Cells that have a member at least; without any a model would repeat its climatology.
    roles : dict of str to str
        Variables of labels, times and places that models may look at.
    applicability : Dataset, optional
        ``dissimilarity`` and ``inside`` of every cell, where members are trained on covariates.
    area : Applicability, optional
        What these come from.
    """

    models: dict[str, xr.Dataset]
    points: dict[str, xr.DataArray]
    grid: StudyGrid
    predicted: xr.Dataset
    where: xr.DataArray
    roles: dict[str, str]
    applicability: xr.Dataset | None = None
    area: Applicability | None = None


def study_maps(
    study: Study,
    table: StudyData,
    fits: Mapping[str, xr.DataTree],
    members: FittedMembers | None,
    folds: NDArray[np.int64] | None = None,
    importance: pd.DataFrame | None = None,
) -> Maps:
    """Predict the grid of ``[map]`` by every model; the members go through it once for all of them.

    Parameters
    ----------
    study, table, fits
    members : FittedMembers, optional
        Of members that are trained, to all rows.
    folds : numpy.ndarray (obs), optional
        That held out the rows of the table when the members were cross-fitted.
    importance : DataFrame, optional
        Of the covariates, for the dissimilarity of cells from the training rows. None: all equal.

    Raises
    ------
    OSError, ValueError
        No such grid, variables that it lacks, dimensions that are neither rows and columns nor time.
    """
    asked = study.map
    assert asked is not None
    grid = study_grid(study, table)
    if members is not None and members.neighbours is not None:
        roles: Any = {"time": grid.times, "lon": study.data.lon, "lat": study.data.lat}
        grid = replace(grid, data=members.with_neighbours(grid.data, **roles))
        members = replace(members, products=(*members.products, NAME))
    prediction = _members(study, table, grid, members)
    order = [*([grid.time] if grid.time else []), *grid.dims]
    predicted = grid.data.assign(prediction=prediction.transpose(..., MEMBER))
    where = predicted["prediction"].notnull().any(MEMBER)
    roles = {"group": asked.group, "lon": study.data.lon, "lat": study.data.lat, "time": grid.times}
    named = {role: name for role, name in roles.items() if name is not None and name in grid.data.variables}
    levels = sorted({*asked.quantiles, *WIDTH})
    with warnings.catch_warnings():  # cells without covariates, and places that no fit has seen: what a map is about
        warnings.simplefilter("ignore", UserWarning)
        options: Any = {"quantiles": levels, "below": asked.below, "missing": NONE, "where": where, **named}
        models = {name: predict(tree, predicted, **options) for name, tree in fits.items()}
    if members is not None and members.neighbours is not None:
        models = _on_other_days(models, fits, observed_on(members.neighbours, grid.data, grid.times))
    points = {str(name): prediction.sel({MEMBER: name}, drop=True) for name in prediction[MEMBER].values}
    products = {name: grid.data[name].astype(float) for name in asked.products}
    area = _area(table, folds, importance)
    inside = None
    if area is not None:
        inside = area.grid(grid.data[list(table.source.rows.X)])  # type: ignore[union-attr]
        inside = inside.broadcast_like(where).transpose(*order)
    return Maps(models, points | products, grid, predicted, where, named, inside, area)


def _on_other_days(
    models: dict[str, xr.Dataset], fits: Mapping[str, xr.DataTree], days: xr.DataArray
) -> dict[str, xr.Dataset]:
    """On days without any observation, maps of a model of the same kind that is not told of neighbours, if there is one."""
    told = {name: NAME in json.loads(tree.attrs["bayesens_members"]) for name, tree in fits.items()}
    kind = {name: tree.attrs["bayesens_model"] for name, tree in fits.items()}
    out = {}
    for name, found in models.items():
        other = next((one for one in models if told[name] and not told[one] and kind[one] == kind[name]), None)
        out[name] = found if other is None else found.where(days, models[other])
        out[name] = out[name].assign(day_observed=days) if told[name] else out[name]
    return out


def _area(table: StudyData, folds: NDArray[np.int64] | None, importance: pd.DataFrame | None) -> Applicability | None:
    """Where the training rows speak for the grid."""
    if not isinstance(table.source, Members) or folds is None or not len(table.source.rows.X.columns):
        return None
    rows = table.source.rows
    seen = np.isfinite(rows.y)
    weight = None
    if importance is not None:
        mean = importance.groupby("covariate")["rise"].mean()
        known = mean.reindex(rows.X.columns).dropna().clip(lower=0)  # sets of covariates have one importance in common
        weight = known if len(known) == rows.X.shape[1] and known.max() > 0 else None
    return applicability(
        rows.X[seen], fold=folds[seen], covariates=list(rows.X.columns), importance=weight, progressbar=False
    )


def _members(study: Study, table: StudyData, grid: StudyGrid, fitted: FittedMembers | None) -> xr.DataArray:
    """Predictions of all members, on the dimensions of the grid and ``member``."""
    if fitted is None:
        names = list(table.source.members)  # type: ignore[union-attr]
        kind = np.result_type(np.float32, *(grid.data[name].dtype for name in names))
        every = xr.broadcast(*(grid.data[name].astype(kind) for name in names))
        order = [*([grid.time] if grid.time else []), *grid.dims]
        return xr.concat([one.reset_coords(drop=True) for one in every], pd.Index(names, name=MEMBER)).transpose(
            *order, MEMBER
        )
    where: dict[str, Any] = {}
    if study.members.blend:
        where = {"lon": study.data.lon, "lat": study.data.lat}
    elif study.members.by:
        where = {"region": study.members.by}
    return fitted.predict(grid.data, **where, time=grid.times, missing=NONE)
