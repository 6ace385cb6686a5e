"""A dataset's cells as the rows of a table, so that grids pass the same door as tables."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.ensemble.checks import covariate_names, member_names
from bayesens.ensemble.doors.own_sd import own_columns_of, own_sds
from bayesens.ensemble.from_table import (
    CODES,
    COLUMNS,
    CONVERTED,
    COVARIATE,
    COVARIATE_NAME,
    DECLARED,
    MADE_OF,
    own_columns,
    split_roles,
)
from bayesens.messages import UnknownName, check_known, listed
from bayesens.tables.calendars import decoded
from bayesens.tables.columns import labels
from bayesens.tables.missing_codes import NONE

__all__ = ["cells_table", "dataset_table", "keep_marks"]

FOLD = "fold"


def cells_table(
    dataset: xr.Dataset, members: Iterable[str] | None, prediction: str, options: Mapping[str, Any]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the table of a dataset's cells, and the keywords with which `Ensemble.from_frame` takes it."""
    given, options = split_roles("from_dataset", options, "members", "prediction")
    own = own_columns(dataset)
    named = {role: role for role in own if role in dataset.variables} | given
    columns = {role: own.get(role, name) if name == role else name for role, name in named.items()}
    variables = {columns[role]: name for role, name in named.items()}
    if "time" in named and options.get("time_format") is None and isinstance(dataset, xr.Dataset):
        dataset = decoded(dataset, named["time"])
    if (covariates := options.get("covariates")) is None:
        covariates = (
            dataset[COVARIATE_NAME].values.tolist()
            if COLUMNS in getattr(dataset, "attrs", {}) and COVARIATE in dataset
            else []
        )
    members = None if members is None else member_names(members)
    if (spread := options.get("spread")) is None:
        spread = {k: v for k, v in own_columns_of(dataset).items() if members is None or k in members}
    beside = covariate_names(covariates)
    beside += [column for column in own_sds(spread, members or list(spread)).values() if column not in beside]
    seen = columns.get("observation")
    frame, names, units = dataset_table(dataset, members, prediction, variables, seen, beside)
    found = {**options, **columns, "members": names, "covariates": beside, "spread": spread}
    if options.get("units") is None:
        found["units"] = units
    if options.get("missing") is None and COLUMNS in dataset.attrs:
        found["missing"] = NONE  # that of another ensemble has been looked through
    return frame, found


def keep_marks(made: xr.Dataset, given: xr.Dataset, prediction: str) -> None:
    """Keep what cross-fitting noted of the rows: which fold held them out, and how the members were trained."""
    trained = given[prediction].attrs.get("trained") if prediction in given else None
    if trained:
        made["prediction"].attrs["trained"] = str(trained)
    if FOLD in given and given[FOLD].dims == ("obs",):
        made[FOLD] = ("obs", given[FOLD].values.astype(np.int64), given[FOLD].attrs)
    for key in (CODES, CONVERTED, MADE_OF):
        if COLUMNS in given.attrs and key in given.attrs:
            made.attrs.setdefault(key, given.attrs[key])


def dataset_table(
    dataset: xr.Dataset,
    members: Iterable[str] | None,
    prediction: str,
    columns: Mapping[str, str],
    observation: str | None = None,
    covariates: Sequence[str] = (),
) -> tuple[pd.DataFrame, list[str], dict[str, str]]:
    """Stack a dataset into a table: one column a member and one a role, one row a cell.

    `columns` are further columns of the table, each with the variable or coordinate that it comes from; the one that is the
    `observation` must span all dimensions. Returned are the table (members first, then `columns`, then `covariates`), the
    members' names, and the units of members and observation where they have any.

    Examples
    --------
    >>> grid = xr.Dataset({"rf": (("y", "x"), [[1.0, 2.0]]), "mlr": (("y", "x"), [[3.0, 4.0]])}, {"y": [50.0]})
    >>> dataset_table(grid, ["rf", "mlr"], "prediction", {"y": "y"})[0].values.tolist()
    [[1.0, 3.0, 50.0], [2.0, 4.0, 50.0]]
    """
    came: object = dataset
    if not isinstance(came, xr.Dataset):
        raise TypeError(f"got {type(came).__name__}; wanted an xarray.Dataset (a table goes to from_frame)")
    arrays = _member_arrays(dataset, members, prediction)
    first = next(iter(arrays.values()))
    sizes = {dim: first.sizes[dim] for dim in first.dims}
    where = f"the dataset ({', '.join(f'{dim}: {size}' for dim, size in dataset.sizes.items())})"
    check_known(columns.values(), dataset.variables, kind="variable", where=where)
    stacked = {}
    for name, array in arrays.items():
        _check_dims(name, array, sizes, whole=True)
        stacked[name] = _column(array, sizes)
    measured = dict(arrays)
    for name, variable in columns.items():
        if name in stacked:  # A second role for one name, which check_columns refuses.
            continue
        array = dataset[variable]
        _check_dims(variable, array, sizes, whole=name == observation)
        stacked[name] = _column(array, sizes)
        if name == observation:
            measured[name] = array
    beside = _stacked_covariates(dataset)
    check_known(covariates, [*dataset.variables, *beside], kind="variable", where=where)
    for name in covariates:
        if name not in stacked:
            array = beside[name] if name in beside else dataset[name]
            _check_dims(name, array, sizes, whole=False)
            stacked[name] = _column(array, sizes)
    units = {name: str(array.attrs["units"]) for name, array in measured.items() if "units" in array.attrs}
    frame = pd.DataFrame(stacked, index=_row_index(dataset, sizes))
    every = arrays | {name: dataset[variable] for name, variable in columns.items()}
    every |= {name: beside[name] if name in beside else dataset[name] for name in covariates}
    frame.attrs[DECLARED] = {name: codes for name, array in every.items() if (codes := _declared(name, array))}
    return frame, list(arrays), units


def _member_arrays(dataset: xr.Dataset, members: Iterable[str] | None, prediction: str) -> dict[str, xr.DataArray]:
    sizes = ", ".join(f"{dim}: {size}" for dim, size in dataset.sizes.items())
    if prediction not in dataset.variables:
        if members is None:
            raise UnknownName(
                f"no variable {prediction!r} in the dataset ({sizes}); wanted an array with a dimension 'member', or "
                f"members=[...] to name one variable each. It has {listed(dataset.data_vars, limit=20) or 'none'}"
            )
        names = member_names(members)
        check_known(names, dataset.variables, kind="variable", where=f"the dataset ({sizes})")
        return {name: dataset[name] for name in names}
    array = dataset[prediction]
    if "member" not in array.dims:
        raise ValueError(
            f"variable {prediction!r} has dimensions {listed(array.dims)}, wanted one called 'member': "
            "dataset.rename({'...': 'member'}); for one variable a member pass members=[...] and another prediction="
        )
    if "member" not in array.coords:
        raise ValueError(
            f"the dimension 'member' of {prediction!r} (length {array.sizes['member']}) has no names: "
            "dataset.assign_coords(member=['rf', 'mlr', ...])"
        )
    have = member_names(labels(pd.Series(array["member"].values, name="member")).tolist())
    names = have if members is None else member_names(members)
    check_known(names, have, kind="member", where=f"variable {prediction!r} ({sizes})")
    return {name: array.isel(member=have.index(name)) for name in names}


def _declared(name: str, array: xr.DataArray) -> list[float]:
    """Codes that attributes name, where the file was read without decoding; packed numbers are refused."""
    if packed := [key for key in ("scale_factor", "add_offset") if key in array.attrs]:
        raise ValueError(
            f"variable {name!r} ({array.size} values) has the attribute {listed(packed)}, so its numbers are packed; wanted "
            "those that they stand for: xarray.decode_cf(dataset)"
        )
    given = [array.attrs[key] for key in ("_FillValue", "missing_value") if key in array.attrs]
    values = np.concatenate([np.atleast_1d(value) for value in given]) if given else np.empty(0)
    return [float(value) for value in values if np.issubdtype(values.dtype, np.number) and not np.isnan(value)]


def _stacked_covariates(dataset: xr.Dataset) -> dict[str, xr.DataArray]:
    """Covariates that stand in one array, as in the dataset of an ensemble."""
    if COVARIATE not in dataset or COVARIATE_NAME not in dataset[COVARIATE].coords:
        return {}
    array = dataset[COVARIATE]
    return {
        str(name): array.isel({COVARIATE_NAME: k}, drop=True) for k, name in enumerate(array[COVARIATE_NAME].values)
    }


def _check_dims(name: str, array: xr.DataArray, sizes: Mapping[Hashable, int], *, whole: bool) -> None:
    """Labels and coordinates may span some of the rows' dimensions; predictions and observations span all."""
    extra = set(array.dims) - set(sizes)
    lacking = set(sizes) - set(array.dims)
    if extra or (whole and lacking):
        what = f"the same as the first member, {listed(sizes)}" if whole else f"some of {listed(sizes)}"
        raise ValueError(
            f"variable {name!r} has dimensions {listed(array.dims) or 'none'}; wanted {what}: select along, or "
            f"broadcast_like, first ({int(np.prod(list(sizes.values())))} rows)"
        )


def _column(array: xr.DataArray, sizes: Mapping[Hashable, int]) -> Any:
    return array.variable.set_dims(sizes).values.reshape(-1)


def _row_index(dataset: xr.Dataset, sizes: Mapping[Hashable, int]) -> pd.Index:
    """Name each stacked row by its place in the dataset, so that an error can point at it."""
    indexes = [dataset.get_index(dim) for dim in sizes]
    if not indexes:
        return pd.RangeIndex(1)
    return indexes[0] if len(indexes) == 1 else pd.MultiIndex.from_product(indexes)
