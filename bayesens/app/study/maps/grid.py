"""The grid of a study: its files as one, named as the table's columns are, checked before any work."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from bayesens.app.study.data import StudyData, plain_values
from bayesens.app.study.file import Study
from bayesens.ensemble.places import LON_LAT, Places, row_places, site_places
from bayesens.geo.stores.axes import find_axes
from bayesens.geo.stores.read import read_grid
from bayesens.likelihoods.corrected.widths import columns_asked
from bayesens.members.members import Members
from bayesens.members.spatial_folds.dealing import fold_kind
from bayesens.members.spatial_folds.map_points import map_places
from bayesens.messages import check_known, listed
from bayesens.tables.grids import same_elsewhere

__all__ = ["StudyGrid", "check_grid", "map_points_of", "place_names", "study_grid"]


OF_CELL = 8  # numbers of a cell by a model: mean, four standard deviations, two quantiles of the report, and flags
TWICE = 2  # measured: what is predicted and drawn takes as much again
COPIES = 3  # of what is read: as it is in the files, without codes, and by member


@dataclass(frozen=True, eq=False)
class StudyGrid:
    """A grid as members and models take it.

    Attributes
    ----------
    data : Dataset
        In memory: variables named as columns of the table, with rows and columns as their last dimensions.
    dims : (str, str)
        Rows and columns.
    time : str, optional
        The dimension of times, where there is one.
    times : str, optional
        The variable of times, which a grid of one time may have as well.
    """

    data: xr.Dataset
    dims: tuple[str, str]
    time: str | None = None
    times: str | None = None


def place_names(study: Study) -> tuple[str, str] | None:
    """Columns that say where sites lie, and coordinates that say where cells do."""
    data = study.data
    if study.evaluation.places is not None:
        return study.evaluation.places[0], study.evaluation.places[1]
    return None if data.lon is None or data.lat is None else (data.lon, data.lat)


def check_grid(study: Study, table: StudyData, models: Mapping[str, Any]) -> None:
    """Refuse a grid that cannot be mapped or written, or one without the places that biases or widths follow, before the work."""
    asked = study.map
    assert asked is not None
    places = {"lon": study.data.lon, "lat": study.data.lat}
    wanted = [places[name] for model in models.values() for name in columns_asked(model) if name in places]
    also = [name for name in wanted if name is not None]
    _check_memory(study, table, _lazy_grid(study, table, also).data, len(models))
    grid = study_grid(study, table, also)
    if asked.out == "tif" and find_axes(grid.data, grid.dims, grid.dims).transform is None:
        raise ValueError(
            f"map.out is 'tif', and the cells of {asked.named} are not even rows and columns with coordinates, which a GeoTIFF "
            "has: take 'nc' or 'zarr'"
        )


def map_points_of(study: Study, table: StudyData) -> Places | None:
    """The cells of ``[map]`` in the coordinates of the sites, for folds and for what they say of the map.

    None without a map, or where no folds ask for it and it lacks the coordinates or lies elsewhere.
    """
    names = place_names(study)
    if study.map is None or study.data.site is None or names is None:
        return None
    grid = _read(study)
    if study.evaluation.places is None:  # a grid may call them as the table does
        own = dict(zip(names, LON_LAT, strict=True))
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


def study_grid(study: Study, table: StudyData, also: Sequence[str] = ()) -> StudyGrid:
    """Read the grid of ``[map]``: the variables that are needed, without codes for missing values, in the table's units.

    Raises
    ------
    OSError, KeyError, ValueError
        No such grid, variables that it lacks, dimensions that are neither rows and columns nor time.
    """
    lazy = _lazy_grid(study, table, also)
    return replace(lazy, data=_plain(study, table, lazy.data.load()))


def _lazy_grid(study: Study, table: StudyData, also: Sequence[str]) -> StudyGrid:
    """The variables that are needed, as they are in the files."""
    asked = study.map
    assert asked is not None
    source = _read(study)
    needed = [*_of_members(study, table), *also]
    needed += [
        name
        for name in (asked.group, *asked.products, *study.data.covariates, *study.data.spread.values())
        if name is not None
    ]
    check_known(needed, source.variables, kind="variable", where=f"the grid {asked.named}")
    times = _times(study, source)
    beside = [name for name in (*(place_names(study) or ()), times) if name is not None and name in source.variables]
    names = list(dict.fromkeys([*needed, *beside]))
    grid = source[names]
    grid = grid.assign({name: source[name] for name in needed if name not in grid.data_vars and name in source.dims})
    sizes = dict(grid.sizes)
    y, x = _rows_and_columns(asked.dims, grid, tuple(map(str, sizes)))
    others = [dim for dim in map(str, sizes) if dim not in (y, x)]
    dated = [dim for dim in others if dim == times or (times is not None and source[times].dims == (dim,))]
    if others != dated or len(others) > 1:
        raise ValueError(
            f"the grid {asked.named} has the dimensions {listed(map(str, sizes))}; wanted rows and columns, and at most one of "
            "times: name it in map.time, or take one of each of the others"
        )
    return StudyGrid(grid.transpose(*others, y, x), (y, x), others[0] if others else None, times)


def _check_memory(study: Study, table: StudyData, grid: xr.Dataset, models: int) -> None:
    """Refuse a grid whose maps this machine cannot hold, as a study does for its report."""
    asked = study.map
    assert asked is not None
    cells = math.prod(grid.sizes.values())
    numbers = OF_CELL + len(asked.below) + len({*asked.quantiles})
    each = sum(one.dtype.itemsize * one.size / cells for one in grid.data_vars.values())
    size = 4 if all(one.dtype == np.float32 for one in grid.data_vars.values()) else 8
    names = table.source.estimators if isinstance(table.source, Members) else table.source.members
    needed = TWICE * cells * (COPIES * each + size * (len(names) + models * numbers + asked.draws))
    if needed > (there := _memory()):
        raise ValueError(
            f"map.grid: the maps of {cells:,} cells by {models} models take about {needed / 1e9:,.1f} GB, and this machine has "
            f"{there / 1e9:,.1f} GB: a study holds its maps in memory. Name a grid of a part of it for the report, and write all "
            "of it tile by tile by the command bayesens map."
        )


def _memory() -> float:
    """Bytes of this machine, where the system says it."""
    known = getattr(os, "sysconf_names", {})
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in known else math.inf


def _read(study: Study) -> xr.Dataset:
    """All files of the grid as one, lazy, with the names that the table has."""
    asked = study.map
    assert asked is not None
    parts = []
    for path in asked.grid:
        try:
            parts.append(read_grid(study.folder / path))
        except ValueError as error:
            raise ValueError(f"map.grid: {error}") from error
    try:
        grid = parts[0] if len(parts) == 1 else xr.merge(parts, join="exact", compat="no_conflicts")
    except (ValueError, xr.MergeError) as error:
        known = (same_elsewhere(one, parts[0]) for one in parts[1:])
        text = next(filter(None, known), str(error).splitlines()[0])
        raise ValueError(
            f"map.grid names {len(parts)} files that do not lie on the same cells ({text}); bring them to one grid"
        ) from error
    names = {variable: column for column, variable in asked.covariates.items()}
    if asked.places is not None and (own := place_names(study)) is not None:
        names |= dict(zip(asked.places, own, strict=True))
    given = [*names, *([asked.time] if asked.time else [])]
    check_known(given, grid.variables, kind="variable", where=f"the grid {asked.named}")
    names = {variable: column for variable, column in names.items() if variable != column}
    return grid.drop_vars([name for name in names.values() if name in grid.variables]).rename(names)


def _times(study: Study, grid: xr.Dataset) -> str | None:
    asked = study.map
    assert asked is not None
    some = [asked.time] if asked.time is not None else [study.data.time, "time"]
    return next((name for name in some if name is not None and name in grid.variables), None)


def _rows_and_columns(asked: tuple[str, str] | None, grid: xr.Dataset, dims: tuple[str, ...]) -> tuple[str, str]:
    """By their names, or else the last two."""
    try:
        axes = find_axes(grid, dims, asked)
    except ValueError as error:
        if asked is not None:
            raise ValueError(f"map.{error}") from error
        if len(dims) < 2:
            raise ValueError(
                f"the grid has the dimensions {listed(dims) or 'none'}; wanted rows and columns"
            ) from error
        return dims[-2], dims[-1]
    return axes.y, axes.x


def _plain(study: Study, table: StudyData, grid: xr.Dataset) -> xr.Dataset:
    """The grid without codes for missing values, and in the units of the table."""
    source = table.source
    measured = source.rows.products if isinstance(source, Members) else source.members
    beside = source.rows.X.columns if isinstance(source, Members) else ()
    kinds = dict.fromkeys([*beside, *study.data.covariates, *study.data.spread.values()], "covariate")
    kinds |= dict.fromkeys([*measured, *study.map.products], "measured")  # type: ignore[union-attr]
    kinds = {str(name): kind for name, kind in kinds.items() if name in grid.data_vars}
    columns = {name: np.array(grid[name].values, dtype=np.float64).reshape(-1) for name in kinds}
    plain_values(study, columns, kinds)
    units = study.data.units
    found = {}
    for name, values in columns.items():
        attrs = dict(grid[name].attrs)
        if units and name in (*study.data.scale, *study.data.offset):
            attrs["units"] = units  # converted above, as in the table
        kind = np.float32 if grid[name].dtype == np.float32 else np.float64
        found[name] = (grid[name].dims, values.reshape(grid[name].shape).astype(kind), attrs)
    return grid.assign(found)


def _of_members(study: Study, table: StudyData) -> list[str]:
    """Variables that the members are made of."""
    if not isinstance(table.source, Members):
        return list(table.source.members)
    needed = list(table.source.rows.X.columns) + list(table.source.rows.products)
    needed += [study.members.by] if study.members.by and not study.members.blend else []
    return needed + ([str(study.data.lon), str(study.data.lat)] if study.members.blend else [])
