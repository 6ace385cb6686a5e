"""One column of a table as a plain array: numbers, labels, times, or one clear error.

Every message says what came (the column and how many rows), what was wanted, and what to do next.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from bayesens.messages import listed, warn
from bayesens.tables.calendars import standard_times
from bayesens.tables.dates import check_format, from_numbers, from_text, in_pandas, likely_form, number_form, written

__all__ = ["check_text", "coded_labels", "labels", "numbers", "times", "where_in"]


def where_in(column: pd.Series, rows: NDArray[np.bool_]) -> str:
    """Say in how many rows, and in which first ones, by the table's own row labels."""
    plain = isinstance(column.index, pd.RangeIndex) and column.index.start == 0 and column.index.step == 1
    counted = "; counted from 0" if plain else ""
    return f"{int(rows.sum())} of {len(column)} rows (first: row {listed(column.index[rows][:3])}{counted})"


def check_text(text: str, name: object) -> None:
    """Refuse NUL (numpy drops it at the end, so two labels could become one) and what UTF-8 cannot hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name!r} holds {text!r}, which is not valid Unicode; read the file with its encoding"
        ) from error
    if "\0" in text:
        raise ValueError(
            f"{name!r} holds {text!r} with a NUL character; remove it (in pandas: .str.replace('\\0', ''))"
        )


def numbers(column: pd.Series) -> NDArray[np.float64]:
    """Return a column of numbers as float64, NaN where it is missing.

    Examples
    --------
    >>> numbers(pd.Series([1, None, 3], dtype="Int64", name="rf")).tolist()
    [1.0, nan, 3.0]
    """
    name = column.name
    if column.dtype == object and _holds_numbers(column):
        column = column.where(column.notna(), np.nan).astype(np.float64)
    real = types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype)
    if not real or types.is_complex_dtype(column.dtype):
        raise TypeError(_not_numbers(column))
    values = column.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    infinite = np.isinf(values)
    if infinite.any():
        raise ValueError(
            f"column {name!r} is infinite in {where_in(column, infinite)}; wanted finite numbers: correct them, "
            f"drop those rows, or leave the cells empty (in pandas: frame[{name!r}].replace([np.inf, -np.inf], np.nan))"
        )
    return values


def _holds_numbers(column: pd.Series) -> bool:
    """An object column of numbers and None, which pandas makes of a column with gaps."""
    kind = types.infer_dtype(column, skipna=True)
    return kind in {"floating", "integer", "mixed-integer-float", "decimal", "empty"}


def _not_numbers(column: pd.Series) -> str:
    name = column.name
    head = f"column {name!r} ({len(column)} rows) has dtype {column.dtype}; wanted numbers"
    if not (column.dtype == object or isinstance(column.dtype, pd.StringDtype)):
        return f"{head}: convert it first (in pandas: frame[{name!r}].astype(float)), or name another column"
    text = (column.notna() & pd.to_numeric(column, errors="coerce").isna()).to_numpy()
    if not text.any():
        return f"{head}: they are written as text; turn them (in pandas: pd.to_numeric(frame[{name!r}]))"
    if column[text].astype(str).str.fullmatch(r"\s*[-+]?[\d.]*,\d+(?:[eE][-+]?\d+)?\s*").all():
        return (
            f"{head}: {column[text].iloc[0]!r} and the like in {where_in(column, text)} have decimal commas; read the file with "
            "decimal=',' (--decimal ,)"
        )
    return (
        f"{head}: {column[text].iloc[0]!r} and the like stand in {where_in(column, text)}; correct them, or leave the "
        f"cells empty (in pandas: pd.to_numeric(frame[{name!r}], errors='coerce'))"
    )


def labels(column: pd.Series) -> NDArray[np.str_]:
    """Return a column of labels as numpy unicode, ``""`` where it is missing.

    Text, categories, whole numbers, times or booleans. Whole numbers are written without a decimal point, so that station 7
    is ``"7"`` whether or not gaps made the column one of floats.

    Examples
    --------
    >>> labels(pd.Series([7, None, 9], name="station")).tolist()
    ['7', '', '9']
    """
    names, codes, _ = coded_labels(column)
    return names[codes]


def coded_labels(column: pd.Series) -> tuple[NDArray[np.str_], NDArray[np.int64], str]:
    """Return the labels of a column's different values, the code of every row, and what kind of values they were.

    The last label is ``""``, for missing values. The kind is "text", "numbers" or "times"; empty where the column is
    missing throughout, or holds another kind or several.

    Examples
    --------
    >>> names, code, kind = coded_labels(pd.Series([7.0, None, 9.0, 7.0], name="station"))
    >>> names.tolist(), code.tolist(), kind
    (['7', '9', ''], [0, 2, 1, 0], 'numbers')
    """
    try:
        codes, unique = pd.factorize(column)
    except TypeError as error:
        raise TypeError(
            f"column {column.name!r} ({len(column)} rows) holds values that cannot be labels ({error}); wanted text, "
            "categories, numbers or times"
        ) from error
    names = [_label(value) for value in unique]
    for name in names:
        check_text(name, column.name)
    if len(counts := Counter(name.strip() for name in names)) < len(names):
        both = [name for name, count in counts.items() if count > 1]
        warn(
            f"column {column.name!r} has labels that differ in blanks at their ends alone ({listed(both)}); they count as "
            f"different ones: cut the blanks if they are one (in pandas: frame[{column.name!r}].str.strip())"
        )
    kind = KINDS.get(types.infer_dtype(np.asarray(unique, dtype=object), skipna=True), "")
    # A missing value has code -1: the last entry.
    return np.array([*names, ""], dtype=np.str_), np.where(codes < 0, len(names), codes), kind


KINDS = {
    "string": "text", "integer": "numbers", "floating": "numbers", "mixed-integer-float": "numbers",
    "decimal": "numbers", "datetime64": "times", "datetime": "times", "date": "times",
}  # fmt: skip


def _label(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def times(column: pd.Series, time_format: str | None = None) -> NDArray[Any]:
    """Return a column of times as datetime64[ns] in UTC, or as numbers where it holds plain numbers.

    Numbers such as 20210730 and text such as 30/07/2021 are read where one reading alone is possible; a guess at 01/02/2021
    would be wrong for half of the world. Plain numbers are years or steps; of periods it is the start. `time_format` is
    that of `Ensemble.from_frame`.

    Examples
    --------
    >>> times(pd.Series(["2021-07-30", None], name="date")).astype("datetime64[D]").tolist()
    [datetime.date(2021, 7, 30), None]
    >>> times(pd.Series([2003, 2004], name="year")).tolist()
    [2003, 2004]
    >>> times(pd.Series([20210730], name="date")).astype("datetime64[D]").tolist()
    [datetime.date(2021, 7, 30)]
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if time_format is not None:
        column = _as_said(column, check_format(time_format))
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if _numeric(column):
        values = _plain_numbers(column)
        return values if time_format == "number" else _dates_in(values, column.name)
    if not types.is_datetime64_any_dtype(column.dtype):
        column = _parse(column)
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    try:
        return column.dt.as_unit("ns").to_numpy(dtype="datetime64[ns]")
    except pd.errors.OutOfBoundsDatetime as error:
        raise ValueError(
            f"column {column.name!r} ({len(column)} rows) has times from {column.min()} to {column.max()}; wanted "
            "1678 to 2262, the range of datetime64[ns]: give years as numbers instead"
        ) from error


def _plain_numbers(column: pd.Series) -> NDArray[Any]:
    whole = types.is_integer_dtype(column.dtype) and not column.isna().any()
    return column.to_numpy(dtype=np.int64) if whole else numbers(column)


def _dates_in(values: NDArray[Any], name: object) -> NDArray[Any]:
    """Numbers that can only be dates as these, plain numbers as they are."""
    if form := number_form(values):
        return from_numbers(values, form, name)
    if form := likely_form(values, name):
        low, high = np.nanmin(values), np.nanmax(values)
        first, last = (written(from_numbers(np.array([end]), form, name)[0]) for end in (low, high))
        raise ValueError(
            f"column {name!r} ({len(values)} rows) has numbers from {low:.15g} to {high:.15g}; if they are dates ({first} to "
            f"{last} as {form!r}), say time_format={form!r} (--time-format {form}) ({in_pandas(form, name)}), if plain "
            "numbers, time_format='number' (--time-format number)"
        )
    return values


def _as_said(column: pd.Series, time_format: str) -> pd.Series:
    """The column in the format that the user names; dates that are dates already pass."""
    if types.is_datetime64_any_dtype(column.dtype) or isinstance(column.dtype, pd.PeriodDtype):
        return column
    name, text = column.name, None
    if not _numeric(column):
        text = pd.to_numeric(column, errors="coerce")
        if time_format == "number" or "%" not in time_format:
            if (bad := (text.isna() & column.notna()).to_numpy()).any():
                raise ValueError(
                    f"column {name!r} holds {column[bad].iloc[0]!r} and the like in {where_in(column, bad)}; wanted numbers, "
                    f"as time_format={time_format!r} says: correct them, or name another time_format"
                )
            column = text
    if time_format == "number":
        return column
    if "%" not in time_format:
        return pd.Series(from_numbers(_plain_numbers(column), time_format, name), index=column.index, name=name)
    if text is None:  # a number that is a date has no decimal point when it is written
        column = column.astype("Int64").astype("string")
    read = pd.to_datetime(column, format=time_format, errors="coerce")
    if (bad := (read.isna() & column.notna()).to_numpy()).any():
        raise ValueError(
            f"column {name!r} holds {column[bad].iloc[0]!r} and the like in {where_in(column, bad)}; wanted times as "
            f"time_format={time_format!r} says: correct them, or name another time_format"
        )
    return pd.Series(read)


def _numeric(column: pd.Series) -> bool:
    plain = types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype)
    gaps = column.dtype == object and _holds_numbers(column) and bool(column.notna().any())
    return plain or gaps


def _parse(column: pd.Series) -> pd.Series:
    name, n = column.name, len(column)
    kind = types.infer_dtype(column, skipna=True)
    if kind not in {"string", "datetime", "datetime64", "date", "empty"}:
        first = column.dropna().iloc[0]
        if hasattr(first, "calendar"):
            return pd.Series(standard_times(column), index=column.index, name=name)
        raise TypeError(
            f"column {name!r} ({n} rows) holds {type(first).__name__} values ({first!r}); wanted dates, datetimes or numbers"
        )
    if kind == "string" and (form := _digits_form(column)):
        digits = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
        return pd.Series(from_numbers(digits, form, name), index=column.index, name=name)
    try:
        return pd.Series(pd.to_datetime(column, format="ISO8601"))
    except (ValueError, TypeError):
        pass
    if kind == "string" and (read := from_text(column)) is not None:
        return read
    # Tried again as instants: where that works, only the zones disagreed.
    bad = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce").isna() & column.notna()
    if not bad.any():
        raise ValueError(
            f"column {name!r} ({n} rows) mixes time zones; wanted one for all rows: write them so "
            f"(in pandas: pd.to_datetime(frame[{name!r}], utc=True))"
        )
    raise ValueError(
        f"column {name!r} holds {column[bad].iloc[0]!r} and the like in {where_in(column, bad.to_numpy())}; wanted "
        "times as 2021-07-30 or 2021-07-30T12:00, all in one format: correct them, or name the format, such as "
        "time_format='%d/%m/%Y' (--time-format %d/%m/%Y)"
    )


def _digits_form(column: pd.Series) -> str:
    """The form of dates written as digits alone, such as "2004013106"; empty for other text."""
    unique = pd.Series(column.dropna().unique(), dtype=object).astype(str)
    if not len(unique) or not unique.str.fullmatch(r"\d{6,14}").all():
        return ""
    return number_form(unique.astype(np.int64).to_numpy())
