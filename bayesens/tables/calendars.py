"""Times of other calendars: NetCDF files of climate models know years of 365 or of 360 days.

A file is read whatever calendar its times have, since they may not be asked for. Where they are, days of noleap keep their
dates, and days of 360_day their place in the year.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.messages import warn

__all__ = ["decoded", "decoded_each", "standard_times"]

# Every date of these is one of the standard calendar.
SUBSETS = ("standard", "gregorian", "proleptic_gregorian", "noleap", "365_day")
STANDARD = ("standard", "gregorian", "proleptic_gregorian")


def decoded(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """Decode the times of one variable, if they are numbers with units such as "days since 2000-01-01".

    What is no number or has no such units is left as it is.

    Examples
    --------
    >>> data = xr.Dataset({"time": ("time", [0, 31], {"units": "days since 2000-01-01"})})
    >>> decoded(data, "time")["time"].values.astype("datetime64[D]").tolist()
    [datetime.date(2000, 1, 1), datetime.date(2000, 2, 1)]
    """
    if name not in dataset.variables or not _encoded(dataset[name]):
        return dataset
    attrs = dataset[name].attrs
    calendar = str(attrs.get("calendar", "standard"))
    try:
        return _with(dataset, name)
    except Exception as error:  # xarray wraps what pandas, numpy and cftime raise
        if calendar.lower() not in STANDARD and importlib.util.find_spec("cftime") is None:
            raise ImportError(
                f"variable {name!r} has times of the calendar {calendar!r}, which takes cftime, and that is not installed: "
                "pip install 'bayesens[calendars]'"
            ) from error
        raise ValueError(
            f"variable {name!r} ({dataset[name].size} values) has the units {attrs['units']!r} in the calendar {calendar!r}, "
            "which make no dates; write its times as days since a date, or read it as numbers: time_format='number'"
        ) from error


def decoded_each(dataset: xr.Dataset) -> xr.Dataset:
    """Decode what can be decoded of a dataset that was opened without decoding times; leave the rest as numbers.

    Examples
    --------
    >>> odd = {"units": "months since 2000-01-01"}
    >>> data = xr.Dataset({"time": ("time", [0, 31], {"units": "days since 2000-01-01"}), "odd": ("time", [0, 1], odd)})
    >>> [str(decoded_each(data)[name].dtype)[:3] for name in ("time", "odd")]
    ['dat', 'int']
    """
    for name in [name for name, variable in dataset.variables.items() if _encoded(variable)]:
        try:
            dataset = _with(dataset, str(name))
        except Exception:
            continue
    return dataset


def _encoded(variable: Any) -> bool:
    return variable.dtype.kind in "iuf" and " since " in str(variable.attrs.get("units", ""))


def _with(dataset: xr.Dataset, name: str) -> xr.Dataset:
    """The dataset with this one variable decoded."""
    alone = xr.Dataset({"t": dataset[name].variable.to_base_variable()})
    times = xr.decode_cf(alone)["t"].variable.load()
    if name in dataset.coords:
        return dataset.assign_coords({name: (times.dims, times.values, times.attrs)})
    return dataset.assign({name: (times.dims, times.values, times.attrs)})


def standard_times(column: pd.Series) -> NDArray[np.datetime64]:
    """Turn dates of another calendar (cftime) into datetime64.

    Of noleap the same dates. Of 360_day, which has a 30 February, days at the same place in the year; a warning says so.
    """
    name, missing = column.name, column.isna().to_numpy()
    given = column[~missing]
    calendar = str(given.iloc[0].calendar)
    out = np.full(len(column), np.datetime64("NaT", "ns"))
    if calendar not in (*SUBSETS, "360_day"):
        raise TypeError(
            f"column {name!r} ({len(column)} rows) holds dates of the calendar {calendar!r}; wanted dates of the standard "
            "calendar: dataset.convert_calendar('standard')"
        )
    years = [date.year for date in given]
    if min(years) < 1678 or max(years) > 2261:
        raise ValueError(
            f"column {name!r} ({len(column)} rows) has years from {min(years)} to {max(years)}; wanted 1678 to 2261, the range "
            "of datetime64[ns]: give years as numbers instead"
        )
    if calendar == "360_day":
        warn(
            f"column {name!r} has dates of the calendar 360_day ({given.iloc[0]} to {given.iloc[-1]}); each is given the same "
            "place in a year of 365 or 366 days"
        )
    out[~missing] = [_stretched(date) if calendar == "360_day" else _same(date) for date in given]
    return out


def _same(date: Any) -> np.datetime64:
    day = np.datetime64(f"{date.year:04d}-{date.month:02d}-{date.day:02d}", "ns")
    return day + _of_day(date)


def _stretched(date: Any) -> np.datetime64:
    start = np.datetime64(f"{date.year:04d}-01-01", "ns")
    days = 366 if pd.Timestamp(start).is_leap_year else 365
    of_year = (date.month - 1) * 30 + date.day - 1
    return start + np.timedelta64(of_year * days // 360, "D") + _of_day(date)


def _of_day(date: Any) -> np.timedelta64:
    seconds = (date.hour * 60 + date.minute) * 60 + date.second
    return np.timedelta64(seconds, "s") + np.timedelta64(date.microsecond, "us")
