"""The maps of a study: members and models on a grid."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.app.study.data import StudyData, plain_values
from bayesens.app.study.file import Study
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.predict import predict
from bayesens.likelihoods.corrected.widths import columns_asked
from bayesens.members.applicability import Applicability, applicability
from bayesens.members.fitted import FittedMembers
from bayesens.members.members import Members
from bayesens.members.spatial_folds.dealing import fold_kind
from bayesens.members.spatial_folds.map_points import map_places
from bayesens.members.spatial_folds.places import LON_LAT, Places, row_places, site_places
from bayesens.messages import check_known
from bayesens.tables.missing_codes import NONE
from bayesens.tables.reading import read_table

__all__ = ["Maps", "check_grid", "map_points_of", "study_maps"]

QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, eq=False)
class Maps:
    """What a study says of every cell of a grid.

    Attributes
    ----------
    models : dict of name to Dataset
        What `predict` gives, on the dimensions of the grid.
    points : dict of name to DataArray
        Members, and products to set beside the models.
    cells : DataFrame
        Covariates or member columns of every cell, in the order of the grid.
    applicability : Dataset, optional
        ``dissimilarity`` and ``inside`` of every cell, where members are trained on covariates.
    area : Applicability, optional
        What these come from.
    """

    models: dict[str, xr.Dataset]
    points: dict[str, xr.DataArray]
    cells: pd.DataFrame
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
    """Predict the grid of ``[map]`` by every model.

    Parameters
    ----------
    study, table, fits
    members : FittedMembers, optional
        Of members that are trained.
    folds : numpy.ndarray (obs), optional
        That held out the rows of the table when the members were cross-fitted.
    importance : DataFrame, optional
        Of the covariates, for the dissimilarity of cells from the training rows. None: all equal.

    Raises
    ------
    OSError, ValueError
        No such grid, variables that it lacks, more than two dimensions.
    """
    asked = study.map
    assert asked is not None
    grid = _grid(study, table)
    cells = grid.to_dataframe().reset_index()
    prediction = _members(study, table, cells, members)
    roles = {"group": asked.group, "lon": study.data.lon, "lat": study.data.lat}
    named: dict[str, Any] = {role: name for role, name in roles.items() if name is not None and name in cells}
    beside = list(study.data.covariates)
    frame = prediction.assign(**{name: cells[name] for name in [*named.values(), *beside]})
    with warnings.catch_warnings():  # cells without covariates, and places that no fit has seen: what a map is about
        warnings.simplefilter("ignore", UserWarning)
        rows = Ensemble.from_frame(
            frame,
            members=[str(name) for name in prediction],
            covariates=beside,
            units=study.data.units or None,
            missing=NONE,
            **named,
        )
        found = {name: predict(tree, rows, quantiles=QUANTILES) for name, tree in fits.items()}

    def laid_out(values: np.ndarray) -> xr.DataArray:
        return xr.DataArray(values.reshape(tuple(grid.sizes.values())), grid.coords, tuple(grid.sizes))

    models = {name: _on_grid(one, grid) for name, one in found.items()}
    points = {str(name): laid_out(prediction[name].to_numpy()) for name in prediction}
    products = {name: grid[name].astype(float) for name in asked.products}
    area = _area(table, folds, importance)
    where = None if area is None else area.grid(grid[list(table.source.rows.X)])  # type: ignore[union-attr]
    return Maps(models, points | products, cells, where, area)


def _area(table: StudyData, folds: NDArray[np.int64] | None, importance: pd.DataFrame | None) -> Applicability | None:
    """Where the training rows speak for the grid."""
    if not isinstance(table.source, Members) or folds is None:
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


def check_grid(study: Study, table: StudyData, models: Mapping[str, Any]) -> None:
    """Refuse a grid that `study_maps` cannot use, or one without the places that biases or widths follow, before the work."""
    places = {"lon": study.data.lon, "lat": study.data.lat}
    asked = [places[name] for model in models.values() for name in columns_asked(model) if name in places]
    _grid(study, table, [name for name in asked if name is not None])


def map_points_of(study: Study, table: StudyData) -> Places | None:
    """The cells of ``[map]`` in the coordinates of the sites, for folds and for what they say of the map.

    None without a map, or where no folds ask for it and it lacks the coordinates or lies elsewhere.
    """
    names = study.evaluation.places or (study.data.lon, study.data.lat)
    if study.map is None or study.data.site is None or None in names:
        return None
    grid = read_table(study.folder / study.map.grid)
    if study.evaluation.places is None and isinstance(grid, xr.Dataset):  # a grid may call them as the table does
        own = dict(zip(map(str, names), LON_LAT, strict=True))
        grid = grid.rename(
            {name: to for name, to in own.items() if name in grid.variables and to not in grid.variables}
        )
    columns = study.evaluation.places or LON_LAT
    given = dict(zip(columns, (table.frame[str(name)] for name in names), strict=True))
    rows = row_places(given, len(table.frame))
    assert rows is not None
    site = table.frame[study.data.site].astype(str).to_numpy(dtype=np.str_)
    try:
        return map_places(grid, site_places(rows, site)[1], random_seed=study.study.random_seed)
    except ValueError:
        if "knndm" in (fold_kind(study.evaluation.folds)[0], fold_kind(study.members.folds)[0]):
            raise
        return None


def _grid(study: Study, table: StudyData, also: Sequence[str] = ()) -> xr.Dataset:
    """The variables that are needed, all on the same two dimensions."""
    asked = study.map
    assert asked is not None
    path = study.folder / asked.grid
    data = read_table(path)
    if not isinstance(data, xr.Dataset):
        raise ValueError(f"map.grid is the table {path}; wanted a grid: .nc or .zarr")
    needed = [*_of_members(study, table), *also]
    needed += [name for name in (asked.group, *asked.products, *study.data.covariates) if name is not None]
    check_known(needed, data.variables, kind="variable", where=f"the grid {asked.grid}")
    needed += [name for name in (study.data.lon, study.data.lat) if name is not None and name in data.variables]
    (grid,) = xr.broadcast(data[list(dict.fromkeys(needed))])
    if len(grid.sizes) != 2:
        raise ValueError(
            f"the grid {asked.grid} has the dimensions {tuple(grid.sizes)}; wanted two: take one time of it"
        )
    return _plain(study, table, grid)


def _plain(study: Study, table: StudyData, grid: xr.Dataset) -> xr.Dataset:
    """The grid without codes for missing values, and in the units of the table."""
    source = table.source
    measured = source.rows.products if isinstance(source, Members) else source.members
    beside = source.rows.X.columns if isinstance(source, Members) else ()
    kinds = dict.fromkeys([*beside, *study.data.covariates], "covariate")
    kinds |= dict.fromkeys([*measured, *study.map.products], "measured")  # type: ignore[union-attr]
    kinds = {str(name): kind for name, kind in kinds.items() if name in grid.data_vars}
    columns = {name: np.array(grid[name].values, dtype=np.float64).reshape(-1) for name in kinds}
    plain_values(study, columns, kinds)
    shape = tuple(grid.sizes.values())
    return grid.assign({name: (grid[name].dims, v.reshape(shape), grid[name].attrs) for name, v in columns.items()})


def _of_members(study: Study, table: StudyData) -> list[str]:
    """Variables that the members are made of."""
    if not isinstance(table.source, Members):
        return list(table.source.members)
    needed = list(table.source.rows.X.columns) + list(table.source.rows.products)
    needed += [study.members.by] if study.members.by and not study.members.blend else []
    return needed + ([str(study.data.lon), str(study.data.lat)] if study.members.blend else [])


def _members(study: Study, table: StudyData, cells: pd.DataFrame, fitted: FittedMembers | None) -> pd.DataFrame:
    if fitted is None:
        return cells[list(table.source.members)].astype(float)  # type: ignore[union-attr]
    if study.members.blend:
        return fitted.predict(cells, lon=cells[str(study.data.lon)], lat=cells[str(study.data.lat)], missing=NONE)
    return fitted.predict(cells, region=cells[study.members.by] if study.members.by else None, missing=NONE)


def _on_grid(prediction: xr.Dataset, grid: xr.Dataset) -> xr.Dataset:
    shape, dims = tuple(grid.sizes.values()), tuple(grid.sizes)
    out = xr.Dataset(
        coords={name: c for name, c in grid.coords.items() if set(c.dims) <= set(dims)}, attrs=prediction.attrs
    )
    for name, values in prediction.data_vars.items():
        if "quantile" in values.dims:
            level = values.transpose("quantile", "obs").values.reshape(-1, *shape)
            out = out.assign_coords(quantile=prediction["quantile"].values)
            out[name] = (("quantile", *dims), level, values.attrs)
        else:
            out[name] = (dims, values.values.reshape(shape), values.attrs)
    return out
