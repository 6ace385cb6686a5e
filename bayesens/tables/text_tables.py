"""Tables written as text: what separates cells, how decimals are written, and whether header and rows agree.

A reader that guesses puts columns under their neighbours' names, and takes a station called NA for a gap. Here the lines are
counted before they are read, and what cannot be is refused by name.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from bayesens.messages import listed, warn

__all__ = ["MISSING", "BadTable", "check_header", "check_summary_rows", "read_text_table", "tidy_labels"]

# What stands for a gap among numbers and dates; in a column of labels it is a label.
MISSING = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
BLANKS = r"\s+"
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", BLANKS: "blanks"}
SUMMARIES = {
    "mean", "average", "avg", "total", "totals", "sum", "median", "std", "stdev", "sd", "min", "max", "minimum", "maximum",
    "count", "grand total", "overall", "summary",
}  # fmt: skip
DECIMAL_COMMA = r"[-+]?(?:\d{1,3}(?:\.\d{3})+|\d*),\d+(?:[eE][-+]?\d+)?"
WHOLE = r"[-+]?\d+"
SAMPLE = 1 << 16  # bytes that the separator is looked for in
CHUNK = 1 << 24  # bytes that are counted at a time


class BadTable(ValueError):
    """A reason with its next move: nothing is to be added to it."""


class Lines(NamedTuple):
    """Fields of every line that is not blank, and where it starts."""

    fields: NDArray[np.int64]
    start: NDArray[np.int64]


def read_text_table(
    path: Path,
    *,
    tabs: bool = False,
    text: Sequence[str] = (),
    separator: str | None = None,
    decimal: str | None = None,
) -> pd.DataFrame:
    """Read a table that is written as text, packed (.gz) or not.

    `tabs` says whether tabs are tried first; the others are those of `bayesens.tables.reading.read_table`.
    """
    raw = _content(path)
    sample = raw[:SAMPLE].decode("utf-8", errors="replace")
    apart = separator or _separator(sample, "\t" if tabs else ",")
    names = _names(sample, apart)
    check_header(names)
    surplus = _check_lines(raw, names, apart)
    labels = [name for name in text if name in names]
    frame = pd.read_csv(
        io.BytesIO(raw), sep=apart, names=[*names, *surplus], header=0, index_col=False, skipinitialspace=apart != BLANKS,
        dtype=dict.fromkeys(labels, str), decimal=decimal or ".", keep_default_na=False,
        na_values={name: [""] if name in labels else list(MISSING) for name in [*names, *surplus]},
    )  # fmt: skip
    frame = frame.drop(columns=surplus)
    if decimal is None:
        _check_decimals(frame, labels, apart)
    for name, column in frame.items():
        if not types.is_numeric_dtype(column.dtype):
            frame[name] = tidy_labels(column)
    _warn_missing_labels(frame[labels], raw, apart)
    check_summary_rows(frame)
    return frame


def _content(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix.lower() == ".gz":
        try:
            raw = gzip.decompress(raw)
        except EOFError as error:
            raise BadTable(
                "the packed file ends before its content does, so it is truncated; copy or write it again"
            ) from error
        except (OSError, zlib.error) as error:
            raise BadTable(f"it is no gzip file ({error}); unpack it, or take .gz off its name") from error
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raw = raw.decode("utf-16").encode()
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    if not raw.strip():
        raise BadTable("No columns to parse: the file is empty; write it again")
    if b"\r" in raw and b"\n" not in raw:
        raw = raw.replace(b"\r", b"\n")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadTable(
            f"line {line} is not text in utf-8 (byte {raw[error.start]:#04x}); save the file as UTF-8"
        ) from error
    return raw


# Separator and header ------------------------------------------------------------------------------------------------


def _records(sample: str, separator: str, most: int = 50) -> list[list[str]]:
    """The first lines as cells; the last line of the sample may be cut."""
    if separator == BLANKS:
        lines = [line.split() for line in sample.splitlines()]
    else:
        try:
            lines = list(csv.reader(io.StringIO(sample), delimiter=separator, skipinitialspace=True))
        except csv.Error:
            return []
    lines = [line for line in (lines[:-1] if len(sample) >= SAMPLE else lines) if any(cell.strip() for cell in line)]
    return lines[:most]


def _separator(sample: str, usual: str) -> str:
    """The usual one, unless its header is one field and another one divides all lines alike."""
    found = _records(sample, usual)
    if found and len(found[0]) > 1 and not _better(sample, found, usual):
        return usual
    fits = {sep: len(rows[0]) for sep in SEPARATORS if (rows := _records(sample, sep)) and _alike(rows)}
    return max(fits, key=lambda sep: fits[sep]) if fits else usual


def _alike(rows: list[list[str]]) -> bool:
    """Whether nearly all lines have the header's two fields or more, give or take the last one."""
    width = len(rows[0])
    return width > 1 and sum(width <= len(row) <= width + 1 for row in rows[1:]) >= 0.8 * (len(rows) - 1)


def _better(sample: str, found: list[list[str]], usual: str) -> bool:
    """A comma in a name of a table with semicolons: the usual separator divides no line as it divides the header."""
    if len(found) < 2 or any(len(row) >= len(found[0]) for row in found[1:]):
        return False
    return any((rows := _records(sample, sep)) and _alike(rows) for sep in SEPARATORS if sep != usual)


def _names(sample: str, separator: str) -> list[str]:
    header = (_records(sample, separator, 1) or [[sample.splitlines()[0]]])[0]
    return [name.strip() or f"Unnamed: {place}" for place, name in enumerate(header)]


def check_header(names: Sequence[str]) -> None:
    """Refuse a header that names two columns alike, or that holds numbers alone.

    Examples
    --------
    >>> check_header(["rf", "svr", "rf"])
    Traceback (most recent call last):
    ...
    bayesens.tables.text_tables.BadTable: its header names 'rf' more than once (columns 1, 3); wanted one of each: ...
    """
    counts = Counter(names)
    if twice := [name for name, count in counts.items() if count > 1]:
        places = ", ".join(str(place + 1) for place, name in enumerate(names) if name == twice[0])
        raise BadTable(
            f"its header names {listed(twice)} more than once (columns {places}); wanted one of each: rename or drop the others"
        )
    counted = list(names) == [str(place) for place in range(len(names))]  # what pandas calls columns without names
    if not counted and all(re.fullmatch(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?", name) for name in names):
        raise BadTable(
            f"its first line holds numbers alone ({listed(names)}); wanted a header: put a line of names above it"
        )


# Lines ---------------------------------------------------------------------------------------------------------------


def _check_lines(raw: bytes, names: Sequence[str], separator: str) -> list[str]:
    """Refuse lines that are longer than the header, or cut; return names for fields after a separator at the lines' ends."""
    lines, width = _lines(raw, separator), len(names)
    fields = lines.fields[1:]
    if (fields == width).all():
        return []
    if len(fields) and (fields == width + 1).all() and _end_in(raw, separator, lines):
        return ["field after the last separator"]
    shown = f"its header, {listed(names)}"
    longer, shorter = np.flatnonzero(fields > width), np.flatnonzero(fields < width)
    if 2 * len(longer) > len(fields):
        raise BadTable(
            f"its rows have more fields than {shown} ({fields[longer[0]]} and {width}), so that columns would slide under "
            "their neighbours' names; name every column, also one of row numbers"
        )
    if len(longer):
        raise BadTable(
            f"line {_line(raw, lines, longer[0])} has {fields[longer[0]]} fields and {shown}, has {width} ({len(longer)} such of "
            f"{len(fields)} rows); write a cell with {SEPARATORS.get(separator, repr(separator))} in it in double quotes"
        )
    cut = len(shorter) and shorter[-1] == len(fields) - 1 and not raw.endswith(b"\n")
    if cut:
        raise BadTable(
            f"its last line has {fields[-1]} of {width} fields and no end, so the file may be truncated; copy or write it again"
        )
    first = _line(raw, lines, shorter[0])
    if separator == BLANKS:
        raise BadTable(
            f"line {first} has {fields[shorter[0]]} fields and {shown}, has {width} ({len(shorter)} such of {len(fields)} rows); "
            "with blanks as separators a gap must be written, such as NA"
        )
    warn(
        f"{len(shorter)} of {len(fields)} rows have fewer fields than the header's {width} (first: line {first}); the cells that "
        "they lack at their ends are read as missing"
    )
    return []


def _line(raw: bytes, lines: Lines, row: int) -> int:
    """Number of the line in the file, from 1, blank ones included."""
    return raw.count(b"\n", 0, int(lines.start[row + 1])) + 1


def _end_in(raw: bytes, separator: str, lines: Lines) -> bool:
    """Whether every line ends with a separator: an empty field that nobody meant."""
    rows = raw.splitlines() if separator != BLANKS else []
    full = [row for row in rows if row.strip()]
    return len(full) == len(lines.fields) and all(row.rstrip(b"\r").endswith(separator.encode()) for row in full[1:])


def _lines(raw: bytes, separator: str) -> Lines:
    """Fields and starts of the lines that are not blank."""
    if separator == BLANKS:
        return _lines_of_words(raw)
    if len(separator) != 1:
        return _counted(raw, (len(re.split(separator, row.strip())) for row in raw.decode("utf-8").splitlines()))
    found = _fast_lines(raw, ord(separator))
    if b'"' not in raw or (found.fields == found.fields[0]).all():
        return found
    # A quote within a cell (5" of rain) makes the fast count wrong: count as the reader does.
    starts = np.flatnonzero(np.frombuffer(raw, np.uint8) == 10) + 1
    reader = csv.reader(io.StringIO(raw.decode("utf-8"), newline=""), delimiter=separator, skipinitialspace=True)
    fields, at = [], [0]
    for row in reader:
        fields.append(len(row))
        at.append(reader.line_num)
    every = np.concatenate([[0], starts])
    start = every[np.minimum(at[:-1], len(every) - 1)]
    kept = np.array(fields) > 0
    return Lines(np.array(fields)[kept], start[kept])


def _counted(raw: bytes, fields: Iterable[int]) -> Lines:
    """Lines of a file without quotes."""
    rows = raw.decode("utf-8").splitlines(keepends=True)
    start = np.concatenate([[0], np.cumsum([len(row.encode()) for row in rows])])[:-1].astype(np.int64)
    kept = np.array([bool(row.strip()) for row in rows])
    return Lines(np.fromiter(fields, np.int64)[kept], start[kept])


def _lines_of_words(raw: bytes) -> Lines:
    """Count words between ends of lines: each begins after a blank or an end."""
    whole = np.frombuffer(raw, np.uint8)
    gap = (whole == 32) | (whole == 9) | (whole == 10) | (whole == 13)
    begins = np.flatnonzero(~gap & np.append(True, gap[:-1]))
    stop = np.flatnonzero(whole == 10)
    stop = stop if raw.endswith(b"\n") else np.append(stop, len(whole))
    fields = np.diff(np.searchsorted(begins, stop), prepend=0)
    start = np.append(0, stop[:-1] + 1)
    return Lines(fields[fields > 0], start[fields > 0])


def _fast_lines(raw: bytes, separator: int) -> Lines:
    """Count separators between ends of lines, neither of them inside quotes."""
    whole = np.frombuffer(raw, np.uint8)
    quoted = b'"' in raw
    ends, apart, open_ = [], [], 0
    for low in range(0, len(whole), CHUNK):
        part = whole[low : low + CHUNK]
        end, sep = part == 10, part == separator
        if quoted:
            # Sums wrap at 256, an even number: their last bit says whether a quote is open.
            inside = (np.cumsum(part == 34, dtype=np.uint8) + np.uint8(open_)) & 1
            open_ = int(inside[-1])
            end, sep = end & (inside == 0), sep & (inside == 0)
        ends.append(np.flatnonzero(end) + low)
        apart.append(np.flatnonzero(sep) + low)
    stop = np.concatenate(ends)
    if not raw.endswith(b"\n"):
        stop = np.append(stop, len(whole))
    start = np.concatenate([[0], stop[:-1] + 1])
    fields: NDArray[np.int64] = np.diff(np.searchsorted(np.concatenate(apart), stop), prepend=0) + 1
    length = stop - start
    blank = length == 0
    short = np.flatnonzero((length > 0) & (fields == 1))
    blank[short] = (
        [not raw[start[i] : stop[i]].strip() for i in short] if len(short) < len(stop) or len(stop) < 1000 else False
    )
    return Lines(fields[~blank], start[~blank])


# Cells ---------------------------------------------------------------------------------------------------------------


def _check_decimals(frame: pd.DataFrame, labels: Sequence[str], separator: str) -> None:
    """Refuse columns of numbers with decimal commas, which pandas takes for text."""
    found: dict[str, str] = {}
    for name in frame.columns.difference(list(labels), sort=False):
        column = frame[name]
        if types.is_numeric_dtype(column.dtype) or (known := column.first_valid_index()) is None:
            continue
        first = str(column[known]).strip()
        if not re.fullmatch(f"{DECIMAL_COMMA}|{WHOLE}", first):
            continue
        unique = pd.Series(column.dropna().unique(), dtype=object).astype(str).str.strip()
        comma = unique.str.fullmatch(DECIMAL_COMMA)
        if comma.any() and (comma | unique.str.fullmatch(WHOLE)).all():
            found[str(name)] = str(unique[comma].iloc[0])
    if found:
        name, cell = next(iter(found.items()))
        raise BadTable(
            f"of its columns, separated by {SEPARATORS.get(separator, repr(separator))}, {listed(found)} have decimal commas "
            f"({cell!r} in {name!r}): say decimal=',' (--decimal ,); if these are no decimals, decimal='.' (--decimal .)"
        )


def tidy_labels(column: pd.Series) -> pd.Series:
    """Cut blanks at the ends of labels, and warn where two labels become one.

    Examples
    --------
    >>> tidy_labels(pd.Series(["S1 ", None, "S2 "], name="site")).tolist()
    ['S1', nan, 'S2']
    """
    unique = [value for value in column.dropna().unique() if isinstance(value, str)]
    cut = {value: value.strip() for value in unique if value != value.strip()}
    if not cut:
        return column
    if both := sorted(set(cut.values()) & ({*unique} - {*cut})):
        rows = int(column.isin([value for value, short in cut.items() if short in both]).sum())
        warn(
            f"column {column.name!r} has labels with blanks at their ends in {rows} of {len(column)} rows; they are read as "
            f"{listed(both)}, as the others are"
        )
    out = column.map(lambda value: cut.get(value, value), na_action="ignore")
    return out.where(out != "")


def _warn_missing_labels(labels: pd.DataFrame, raw: bytes, separator: str) -> None:
    """A label such as NA is kept; where other columns have gaps written so, it may have been one."""
    for word in sorted({word for _, column in labels.items() for word in column.dropna().unique() if word in MISSING}):
        here = {name: int((column == word).sum()) for name, column in labels.items()}
        apart = rb"\s" if separator == BLANKS else re.escape(separator.encode())
        cell = rb"(?:^|(?<=" + apart + rb"|\n))" + re.escape(word.encode()) + rb"(?=" + apart + rb"|\r|\n|$)"
        if len(re.findall(cell, raw)) > sum(here.values()):
            name = max(here, key=lambda name: here[name])
            warn(
                f"column {name!r} has the label {word!r} in {here[name]} of {len(labels)} rows, kept as written, and {word!r} "
                "stands for gaps elsewhere in the file; leave those cells empty if these labels are gaps as well"
            )


def check_summary_rows(frame: pd.DataFrame) -> None:
    """Refuse a last row that sums the others up, such as one called Mean or Total.

    Examples
    --------
    >>> check_summary_rows(pd.DataFrame({"site": ["a", "b", "Mean"], "sm": [1.0, 3.0, 2.0]}))
    Traceback (most recent call last):
    ...
    bayesens.tables.text_tables.BadTable: its last row has 'Mean' in column 'site', so it sums the others up; take it out, or ...
    """
    for name in frame.columns:
        column = frame[name]
        if types.is_numeric_dtype(column.dtype) or types.is_datetime64_any_dtype(column.dtype) or len(frame) < 3:
            continue
        ends = [str(value).strip().rstrip(":").lower() in SUMMARIES for value in column.iloc[-4:]]
        count = _trailing(ends)
        if count and not column.iloc[:-count].isin(column.iloc[-count:]).any():
            rows = "last row has" if count == 1 else f"last {count} rows have"
            it = "it sums" if count == 1 else "they sum"
            raise BadTable(
                f"its {rows} {listed(column.iloc[-count:])} in column {name!r}, so {it} the others up; take "
                f"{'it' if count == 1 else 'them'} out, or rename the label if it is none of a summary"
            )


def _trailing(flags: Sequence[bool]) -> int:
    """How many of the last flags are up."""
    count = 0
    for flag in reversed(flags):
        if not flag:
            break
        count += 1
    return count
