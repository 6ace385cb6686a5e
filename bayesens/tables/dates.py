"""Dates that are written as numbers or as text: read where one reading alone is possible, asked for where several are.

20040131 is a date whatever its column is called, since few numbers have a month and a day where it has them. 1072915200 may be
seconds since 1970 or since another day, 37986 a day number of a spreadsheet or a count: these are asked for by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from shlex import quote
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens.messages import warn

__all__ = [
    "FORMATS",
    "check_format",
    "from_numbers",
    "from_text",
    "in_pandas",
    "likely_form",
    "number_form",
    "written",
]

Days = NDArray[np.datetime64]
# Numbers by their count of digits, and what the digits after the year are.
FORMS = {
    6: "YYYYMM", 7: "YYYYDDD", 8: "YYYYMMDD", 10: "YYYYMMDDHH", 12: "YYYYMMDDHHMM", 14: "YYYYMMDDHHMMSS",
}  # fmt: skip
EPOCHS = {"epoch": "s", "epoch_ms": "ms", "epoch_us": "us", "epoch_ns": "ns"}
# What a count of days has on 1970-01-01.
SERIALS = {"excel": 25569.0, "matlab": 719529.0, "mjd": 40587.0, "jd": 2440587.5}
COUNTS = "number"
FORMATS = (*FORMS.values(), *EPOCHS, *SERIALS, COUNTS)
FIRST_YEAR, LAST_YEAR = 1678, 2261  # of datetime64[ns]
# Seconds from 1973 to 2103: no table has so many steps. Shorter units likewise.
EPOCH_RANGE = (1e8, 4.2e9)
SERIAL_RANGES = {"excel": (18_000.0, 60_000.0), "matlab": (690_000.0, 770_000.0)}  # 1949 to 2064, 1889 to 2108
# Smaller numbers are day numbers only in a column that is called so: counts have such values as well.
CALLED_DATE = re.compile(r"date|datum|fecha|time|day|stamp", re.IGNORECASE)
SINCE = re.compile(r"(days|hours|minutes|seconds|milliseconds) since (.+)")
UNITS = {"days": "D", "hours": "h", "minutes": "m", "seconds": "s", "milliseconds": "ms"}

DMY = re.compile(r"(\d{1,4})([-/. ])(\d{1,2})\2(\d{2,4})(?!\d)(.*)")
TAILS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", "T%H:%M", "T%H:%M:%S", " %I:%M %p", " %I:%M:%S %p", " %H")
MONTH_NAMES = tuple(
    pattern.replace("%b", name).replace(" ", gap)
    for name in ("%b", "%B")
    for pattern, gaps in (
        ("%d %b %Y", " -"),
        ("%d %b %y", " -"),
        ("%b %d, %Y", " "),
        ("%b %d %Y", " "),
        ("%Y %b %d", " -"),
    )
    for gap in gaps
)


def written(day: Any) -> str:
    """A time as ISO text, without a midnight.

    Examples
    --------
    >>> written(np.datetime64("2004-01-31T00:00"))
    '2004-01-31'
    """
    return str(pd.Timestamp(day)).removesuffix(" 00:00:00")


# Numbers -------------------------------------------------------------------------------------------------------------


def number_form(values: NDArray[Any], *, least: int = 6) -> str:
    """Say which dates numbers are, such as YYYYMMDD, where they can be nothing else.

    They need `least` digits. The answer is a form of `FORMATS`, empty where numbers have no valid month, day or hour at its
    place. A few that have none among others of eight digits or more are left to `from_numbers`, which refuses them.

    Examples
    --------
    >>> number_form(np.array([20031231, 20040101])), number_form(np.array([20031231, 20031232])), number_form(np.arange(9))
    ('YYYYMMDD', '', '')
    """
    known = _known(values)
    if not len(known):
        return ""
    middle = float(np.median(known))
    digits = len(str(int(middle))) if 0 < middle < 1e15 else 0
    year = 10 ** (digits - 4) if digits in FORMS and digits >= least else 0
    if not year or not FIRST_YEAR * year <= middle < (LAST_YEAR + 1) * year:
        return ""
    share = _valid(pd.unique(known), digits).mean()
    # Of numbers with eight digits 1 in 27 is a date: where most are, the others are wrong dates. Six digits prove less.
    return FORMS[digits] if share == 1 or (digits >= 8 and share > 0.5) else ""


def likely_form(values: NDArray[Any], name: object) -> str:
    """Say which dates numbers may be although they could be others or counts.

    Day numbers are looked for in a column that is called a date or a time. The answer is a form of `FORMATS`, or empty.

    Examples
    --------
    >>> likely_form(np.array([1072915200, 1073001600]), "t"), likely_form(np.array([37987, 37988]), "date")
    ('epoch', 'excel')
    >>> likely_form(np.arange(1990, 2020), "date"), likely_form(np.array([37987, 37988]), "step")
    ('', '')
    """
    known = _known(values)
    if not len(known):
        return ""
    low, high = float(known.min()), float(known.max())
    for form, unit in EPOCHS.items():
        per = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
        if EPOCH_RANGE[0] * per <= low and high <= EPOCH_RANGE[1] * per:
            return form
    called = bool(CALLED_DATE.search(str(name)))
    return next((form for form, (a, b) in SERIAL_RANGES.items() if called and a <= low and high <= b), "")


def in_pandas(form: str, name: object) -> str:
    """How the user makes dates of such numbers.

    Examples
    --------
    >>> in_pandas("excel", "date")
    "in pandas: pd.to_datetime(frame['date'] - 25569, unit='D')"
    """
    unit, _, shift = _count_of(form)
    return f"in pandas: pd.to_datetime(frame[{name!r}]{f' - {shift:.15g}' if shift else ''}, unit={unit!r})"


def from_numbers(values: NDArray[Any], form: str, name: object) -> Days:
    """Turn numbers into times; NaN becomes NaT.

    `form` is one of `FORMATS`, or "days since 1900-01-01" and the like; `name` is that of the column.

    Examples
    --------
    >>> from_numbers(np.array([38017.5, np.nan]), "excel", "date").astype("datetime64[h]").tolist()
    [datetime.datetime(2004, 1, 31, 12, 0), None]
    """
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    out = np.full(len(values), np.datetime64("NaT", "ns"))
    known = values[~missing]
    if form in FORMS.values():
        if (bad := ~_valid(known, len(form))).any():
            raise ValueError(
                f"column {name!r} has {_plain(known[bad][0])}, which is no date {form} as others are, and {int(bad.sum())} such "
                f"of {len(values)} rows; correct them or leave them empty, or name another time_format (--time-format)"
            )
        out[~missing] = _from_digits(known.astype(np.int64), len(form))[0]
        return out
    unit: Any
    unit, origin, shift = _count_of(form)
    counted: Any = known - shift if shift else known
    kind: Any = unit
    try:
        # Whole numbers stay whole: nanoseconds since 1970 have more digits than a float.
        out[~missing] = pd.to_datetime(counted, unit=kind, origin=origin).as_unit("ns").to_numpy()
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"column {name!r} has numbers from {_plain(known.min())} to {_plain(known.max())}, which as {form!r} lie outside "
            f"{FIRST_YEAR} to {LAST_YEAR}; name another time_format"
        ) from error
    return out


def _valid(numbers: NDArray[Any], digits: int) -> NDArray[np.bool_]:
    """Which numbers are dates of so many digits."""
    fits = (numbers >= 10.0 ** (digits - 1)) & (numbers < 10.0**digits) & (numbers == np.floor(numbers))
    return fits & _from_digits(np.where(fits, numbers, 0).astype(np.int64), digits)[1]


def _known(values: NDArray[Any]) -> NDArray[Any]:
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


def _plain(number: Any) -> str:
    return str(int(number)) if float(number).is_integer() else str(number)


def _count_of(form: str) -> tuple[str, pd.Timestamp, float]:
    """Unit and first day of a count, and what it has there."""
    if form in EPOCHS:
        return EPOCHS[form], pd.Timestamp(0), 0.0
    if form in SERIALS:
        return "D", pd.Timestamp(0), SERIALS[form]
    found = SINCE.fullmatch(form)
    assert found is not None  # check_format has looked
    return UNITS[found[1]], pd.Timestamp(found[2]), 0.0


def _from_digits(numbers: NDArray[np.int64], digits: int) -> tuple[Days, NDArray[np.bool_]]:
    """Times, and which of them are valid."""
    rest = numbers.copy()
    second = minute = hour = np.zeros(len(rest), dtype=np.int64)
    if digits == 14:
        rest, second = np.divmod(rest, 100)
    if digits >= 12:
        rest, minute = np.divmod(rest, 100)
    if digits >= 10:
        rest, hour = np.divmod(rest, 100)
    if digits == 7:
        year, day = np.divmod(rest, 1000)
        month = np.ones_like(year)
    else:
        rest, day = np.divmod(rest, 100) if digits >= 8 else (rest, np.ones_like(rest))
        year, month = np.divmod(rest, 100)
    valid = (month >= 1) & (month <= 12) & (day >= 1) & (year >= FIRST_YEAR) & (year <= LAST_YEAR)
    start = (np.where(valid, (year - 1970) * 12 + month - 1, 0)).astype("datetime64[M]")
    date = start.astype("datetime64[D]") + np.where(valid, day - 1, 0)
    span = "datetime64[Y]" if digits == 7 else "datetime64[M]"
    valid &= date.astype(span) == start.astype(span)
    # Some count the hours of a day from 1 to 24.
    valid &= (hour < 24) | ((hour == 24) & (minute == 0) & (second == 0))
    valid &= (minute < 60) & (second < 60)
    return date.astype("datetime64[ns]") + (hour * 3600 + minute * 60 + second).astype("timedelta64[s]"), valid


# Text ----------------------------------------------------------------------------------------------------------------


def from_text(column: pd.Series) -> pd.Series | None:
    """Read dates as people write them, 31/01/2004 or 31 Jan 2004, if all rows have one format and no other reading.

    A warning says which format was taken; None where no known format fits all rows.

    Examples
    --------
    >>> from_text(pd.Series(["01/02/2004", "03/04/2004"], name="date"))
    Traceback (most recent call last):
    ...
    ValueError: column 'date' holds '01/02/2004', which is 2004-02-01 as '%d/%m/%Y' and 2004-01-02 as '%m/%d/%Y', ...
    """
    unique = pd.Series(column.dropna().unique(), dtype=object)
    texts = unique.astype(str).str.strip()
    fits = {form: read for form in _candidates(texts) if (read := _read_all(texts, form)) is not None}
    if not fits:
        return None
    (form, first), *others = fits.items()
    for other, read in others:
        if (differs := (read != first).to_numpy()).any():
            at = int(np.argmax(differs))
            raise ValueError(
                f"column {column.name!r} holds {texts.iloc[at]!r}, which is {written(first.iloc[at])} as {form!r} and "
                f"{written(read.iloc[at])} as {other!r}, and all {len(column)} rows fit both; say which it is: "
                f"time_format={form!r} or {other!r} (--time-format {quote(form)} or {quote(other)})"
            )
    if "%b" not in form and "%B" not in form:  # a month's name leaves no doubt
        others_too = f"; {others[0][0]!r} gives the same days" if others else ", the one format that fits"
        warn(
            f"column {column.name!r} ({len(column)} rows) is read as {form!r}{others_too} ({texts.iloc[-1]!r} is "
            f"{written(first.iloc[-1])}); confirm it by time_format={form!r} (--time-format {quote(form)})"
        )
    return column.map(dict(zip(unique, first, strict=True)))


def _candidates(texts: pd.Series) -> Iterator[str]:
    """Formats that the first text could have."""
    if not len(texts):
        return
    first = str(texts.iloc[0])
    if found := DMY.fullmatch(first):
        gap, year = found[2], "%Y" if len(found[4]) == 4 else "%y"
        heads = [f"%d{gap}%m{gap}{year}", f"%m{gap}%d{gap}{year}"]
        if len(found[1]) == 4:
            heads = [f"%Y{gap}%m{gap}%d"]
        elif len(found[4]) == 2:
            heads += [f"%y{gap}%m{gap}%d"] if gap == "-" else []
    elif re.search(r"[A-Za-z]{3}", first):
        heads = list(MONTH_NAMES)
    else:
        return
    for head in heads:
        for tail in TAILS:
            if _read_all(texts.iloc[:1], head + tail) is not None:
                yield head + tail
                break


def _read_all(texts: pd.Series, form: str) -> pd.Series | None:
    """All texts by one format, or None."""
    try:
        return pd.to_datetime(texts, format=form)
    except ValueError:
        return None


# Formats that the user names -----------------------------------------------------------------------------------------


def check_format(form: object) -> str:
    """Refuse a time format that is none.

    Examples
    --------
    >>> check_format("%d/%m/%Y"), check_format("excel"), check_format("days since 1900-01-01")
    ('%d/%m/%Y', 'excel', 'days since 1900-01-01')
    >>> check_format("dd/mm/yyyy")
    Traceback (most recent call last):
    ...
    ValueError: time_format is 'dd/mm/yyyy'; wanted a pattern such as '%d/%m/%Y', 'days since 1900-01-01', or one of YYYYMM, ...
    """
    if not isinstance(form, str):
        raise TypeError(f"time_format is {form!r}; wanted text, such as '%d/%m/%Y'")
    if form in FORMATS or "%" in form:
        return form
    if found := SINCE.fullmatch(form):
        try:
            pd.Timestamp(found[2])
        except ValueError as error:
            raise ValueError(f"time_format is {form!r}, and {found[2]!r} is no date; write it as 1900-01-01") from error
        return form
    raise ValueError(
        f"time_format is {form!r}; wanted a pattern such as '%d/%m/%Y', 'days since 1900-01-01', or one of {', '.join(FORMATS)}"
    )
