"""A table of predictions as the dataset of an ensemble, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble import checks
from bayesens.ensemble.doors.own_sd import SPREAD, check_own_sds, own_sds, scaled_with_members
from bayesens.messages import check_keywords
from bayesens.tables.columns import labels, numbers, times
from bayesens.tables.conversion import Conversion, convert, factors
from bayesens.tables.missing_codes import Counts, Missing, check_codes, clear_codes

__all__ = ["TableOptions", "own_columns", "row_positions", "split_roles", "table_dataset", "table_frame"]

LABELS = ("site", "group")
COORDINATES = ("site", "group", "time", "lon", "lat")
ROLES = ("observation", *COORDINATES)
# The attribute that keeps the user's own column names: one JSON string, because NetCDF holds no mapping.
COLUMNS = "bayesens_columns"
# The same for codes that were read as missing, with their counts, and for columns that were converted.
CODES, CONVERTED = "bayesens_missing", "bayesens_converted"
MADE_OF = "bayesens_made_of"  # and for members that were made of quantiles or samples
# The array of an ensemble's dataset that holds its covariates, and the dimension of their names.
COVARIATE, COVARIATE_NAME = "covariate", "covariate_name"
DECLARED = "declared_missing"  # in the attributes of a table: what those of a dataset's arrays say of missing values


class TableOptions(TypedDict, total=False):
    """Keywords that all doors of an ensemble have; `Ensemble.from_frame` says what they mean."""

    observation: str | None
    site: str | None
    group: str | None
    time: str | None
    lon: str | None
    lat: str | None
    covariates: Iterable[str] | None
    spread: Mapping[str, str] | str | None  # the one column of a long table, else a column of each member
    units: str | Mapping[str, str] | None
    time_format: str | None
    missing: Missing
    scale: Conversion
    offset: Conversion


def split_roles(function: str, options: Mapping[str, Any], *own: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the columns that are named, by role, and the other options; the function has keywords of its `own` besides.

    Examples
    --------
    >>> split_roles("from_long", {"site": "station", "time": None, "units": "mm"})
    ({'site': 'station'}, {'units': 'mm'})
    """
    check_keywords(options, [*own, *TableOptions.__annotations__], function)
    named = {role: options[role] for role in ROLES if options.get(role) is not None}
    return named, {name: value for name, value in options.items() if name not in ROLES}


def table_dataset(
    frame: pd.DataFrame,
    members: Iterable[str],
    columns: Mapping[str, str],
    covariates: Iterable[str],
    spread: Mapping[str, str] | None,
    units: str | Mapping[str, str] | None,
    time_format: str | None,
    missing: Missing,
    scale: Conversion,
    offset: Conversion,
) -> xr.Dataset:
    """Check a table and return the dataset of its ensemble; the arguments are those of `Ensemble.from_frame`."""
    names, beside = checks.member_names(members), checks.covariate_names(covariates)
    own = own_sds(spread, names)
    beside += checks.covariate_names([column for column in own.values() if column not in beside], "spread")
    checks.check_columns(frame, names, columns, beside)
    observation = columns.get("observation")
    measured = [*names, *([observation] if observation else [])]
    unit = checks.common_units(_attrs_units(frame, measured) if units is None else units, measured, len(frame))
    arrays = {role: _convert(role, frame[name], time_format) for role, name in columns.items()}
    predicted = {name: numbers(frame[name]) for name in names}
    looked_at = {name: numbers(frame[name]) for name in beside}
    measured_arrays = predicted | ({observation: arrays["observation"]} if observation else {})
    codes = _without_codes(frame, measured_arrays, looked_at, arrays, columns, missing)
    convert(measured_arrays, scale, offset)
    scaled_with_members(own, looked_at, scale)
    check_own_sds(own, predicted, looked_at)
    prediction = np.column_stack(list(predicted.values()))
    if "site" in arrays and "group" in arrays:
        checks.check_groups(arrays["site"], arrays["group"], columns)
    checks.warn_rows(prediction, arrays.get("site"), arrays.get("time"), names, columns)
    made = _dataset(prediction, names, arrays, unit, columns)
    if looked_at:
        values = ("obs", COVARIATE_NAME), np.column_stack(list(looked_at.values()))
        made = made.assign({COVARIATE: values}).assign_coords({COVARIATE_NAME: np.array(beside, dtype=np.str_)})
    # What was done to the values and what they are, as JSON.
    if own:
        made.attrs[SPREAD] = json.dumps(own)
    if codes:
        made.attrs[CODES] = json.dumps({name: list(each.items()) for name, each in codes.items()})
    if converted := factors(scale, offset, measured_arrays):
        made.attrs[CONVERTED] = json.dumps(converted)
    return made


def table_frame(dataset: xr.Dataset) -> pd.DataFrame:
    """Return the table of an ensemble's dataset; see `Ensemble.to_frame`."""
    columns, table = own_columns(dataset), {}
    for role in (*COORDINATES, "observation"):
        if role in columns:
            values = pd.Series(dataset[role].values)
            table[columns[role]] = values.where(values != "") if role in LABELS else values
    table |= dict(zip(dataset["member"].values.tolist(), dataset["prediction"].values.T, strict=True))
    if COVARIATE in dataset:
        table |= dict(zip(dataset[COVARIATE_NAME].values.tolist(), dataset[COVARIATE].values.T, strict=True))
    frame = pd.DataFrame(table)
    if units := dataset["prediction"].attrs.get("units"):
        frame.attrs["units"] = str(units)
    return frame


def own_columns(dataset: xr.Dataset) -> dict[str, str]:
    """Read the user's column names back; empty for a dataset that no ensemble made."""
    return dict(json.loads(getattr(dataset, "attrs", {}).get(COLUMNS, "{}")))


def row_positions(rows: ArrayLike | slice, n_rows: int) -> NDArray[np.int64]:
    """Return the rows that a mask, positions or a slice choose, refusing none and those out of range."""
    if isinstance(rows, slice):
        wanted = np.arange(n_rows)[rows]
    else:
        index = np.atleast_1d(np.asarray(rows))
        if index.size and index.dtype.kind not in "biu":
            raise TypeError(f"rows has dtype {index.dtype}; wanted a boolean mask, integers or a slice ({n_rows} rows)")
        if index.dtype == bool and index.shape != (n_rows,):
            raise ValueError(f"the mask rows has shape {index.shape}; wanted ({n_rows},), one value a row")
        wanted = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
    if wanted.size == 0:
        raise ValueError(f"rows leaves zero of {n_rows} rows; wanted at least one")
    if wanted.min() < -n_rows or wanted.max() >= n_rows:
        raise IndexError(f"rows goes from {wanted.min()} to {wanted.max()}; wanted positions within {n_rows} rows")
    return wanted


# Inside --------------------------------------------------------------------------------------------------------------


def _without_codes(
    frame: pd.DataFrame,
    measured: Mapping[str, NDArray[np.float64]],
    covariates: Mapping[str, NDArray[np.float64]],
    arrays: Mapping[str, NDArray[Any]],
    given: Mapping[str, str],
    missing: Missing,
) -> Counts:
    """Set codes that were named to NaN, in place, and refuse others."""
    places = {given[role]: arrays[role] for role in ("lon", "lat") if role in given}
    columns = {**measured, **covariates, **places}
    kinds = dict.fromkeys(measured, "measured") | dict.fromkeys(covariates, "covariate")
    kinds |= {given[role]: role for role in ("lon", "lat") if role in given}
    counts = clear_codes(columns, missing, declared=frame.attrs.get(DECLARED))
    check_codes(columns, kinds, missing)
    return counts


def _attrs_units(frame: pd.DataFrame, measured: list[str]) -> str | dict[str, str] | None:
    """What the table itself says of its units; attributes of other columns, or of another kind, are passed over."""
    units = frame.attrs.get("units")
    if isinstance(units, Mapping):
        return {name: units[name] for name in measured if isinstance(units.get(name), str)}
    return units if isinstance(units, str) else None


def _convert(role: str, column: pd.Series, time_format: str | None) -> NDArray[Any]:
    if role in LABELS:
        return labels(column)
    return times(column, time_format) if role == "time" else numbers(column)


def _dataset(
    prediction: NDArray[np.float64],
    members: list[str],
    arrays: Mapping[str, NDArray[Any]],
    units: str,
    columns: Mapping[str, str],
) -> xr.Dataset:
    attrs = {"units": units} if units else {}
    variables: dict[str, Any] = {"prediction": (("obs", "member"), prediction, attrs)}
    if "observation" in arrays:
        variables["observation"] = (("obs",), arrays["observation"], attrs)
    coords = {role: (("obs",), arrays[role]) for role in COORDINATES if role in arrays}
    member = (("member",), np.array(members, dtype=np.str_))
    return xr.Dataset(variables, {"member": member, **coords}, {COLUMNS: json.dumps(dict(columns))})
