"""How a table of results is laid out for reading: merged headings, panels, digits, intervals, the best values marked."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from bayesens.messages import check_known

__all__ = ["Cell", "Grid", "Ranged", "lay_out", "with_interval"]

MISSING = "–"
BEST = {"min": lambda value: value, "max": lambda value: -value, "zero": abs}
WRITTEN = re.compile(r"[-−+±]?[\d.,]+( ?%)?( [(\[].*[)\]])?")  # a number as text, perhaps with something in brackets
PROSE = 28  # characters of text beyond which a cell has several lines
SIGNIFICANT = 3  # digits of a number, where the caller names none
Digits = int | str | Mapping[Any, int | str] | None


@dataclass(frozen=True)
class Cell:
    """One cell as it is read.

    Attributes
    ----------
    text : str
        Not yet escaped.
    rows, columns : int
        How many it covers.
    scope : {"", "row", "rowgroup", "col", "colgroup"}
        What it is the heading of; "" for a value.
    style : str
        Class names: ``number``, ``prose`` (long text), ``best``, ``missing``, ``stub`` (first column), ``panel``; of
        headings ``span`` and ``right`` (above numbers).
    more : str
        What stands in brackets after a number, and may go to a second line.
    """

    text: str
    rows: int = 1
    columns: int = 1
    scope: str = ""
    style: str = ""
    more: str = ""


@dataclass(frozen=True)
class Grid:
    """A table as it is read.

    Attributes
    ----------
    spans : tuple of int
        Columns of each group of columns.
    head : tuple of rows of Cell
    bodies : tuple of tuples of rows of Cell
        One for each panel.
    characters : int
        About how wide it is at least, in characters.
    """

    spans: tuple[int, ...]
    head: tuple[tuple[Cell, ...], ...]
    bodies: tuple[tuple[tuple[Cell, ...], ...], ...]
    characters: int


class Ranged(float):
    """A number that is shown with its interval, and compares as the number.

    Examples
    --------
    >>> value = Ranged(0.5, "0.5 (0.4 to 0.6)")
    >>> str(value), value < 0.6
    ('0.5 (0.4 to 0.6)', True)
    """

    text: str

    def __new__(cls, value: float, text: str) -> Ranged:
        """Keep the text beside the number."""
        made = super().__new__(cls, value)
        made.text = text
        return made

    def __str__(self) -> str:
        return self.text


def with_interval(
    frame: pd.DataFrame, value: str, low: str | None = None, high: str | None = None, *, digits: int | None = None
) -> pd.DataFrame:
    """Put a number and its interval into one column, shown as ``x (low to high)``.

    Parameters
    ----------
    frame : DataFrame
        With these columns; where columns have several levels, with these labels in the last one, under any number of
        others.
    value : str
        The column of the number.
    low, high : str, optional
        Those of its limits; None: ``{value}_low`` and ``{value}_high``.
    digits : int, optional
        Decimals; None: two digits of the interval's width.

    Returns
    -------
    DataFrame
        A column in place of the three. Its values are still numbers, so that the best one can be found.

    Raises
    ------
    KeyError
        If a column is not there.

    Examples
    --------
    >>> frame = pd.DataFrame({"model": ["BMA"], "crps": [0.0367], "crps_low": [0.0341], "crps_high": [0.0398]})
    >>> [str(value) for value in with_interval(frame, "crps")["crps"]]
    ['0.0367 (0.0341 to 0.0398)']
    """
    low, high = low or f"{value}_low", high or f"{value}_high"
    paths = [_path(column) for column in frame.columns]
    parents = [path[:-1] for path in paths if path[-1] == value]
    check_known([value], [path[-1] for path in paths], kind="column", where=f"the table ({len(frame)} rows)")
    for parent in parents:
        check_known([low, high], [path[-1] for path in paths if path[:-1] == parent], kind="column",
                    where=f"the table, beside {value!r}")  # fmt: skip
    ends = {path: frame.iloc[:, j].to_numpy(dtype=np.float64, na_value=np.nan) for j, path in enumerate(paths)
            if path[:-1] in parents and path[-1] in (value, low, high)}  # fmt: skip
    if digits is None:
        widths = np.concatenate([ends[(*parent, high)] - ends[(*parent, low)] for parent in parents])
        digits = _decimals(widths, 2)
    keys: list[Any] = []
    columns = []
    for j, path in enumerate(paths):
        parent = path[:-1]
        if path not in ends:
            keys.append(frame.columns[j])
            columns.append(frame.iloc[:, j])
        elif path[-1] == value:
            triple = zip(ends[path], ends[(*parent, low)], ends[(*parent, high)], strict=True)
            keys.append((*parent, "") if parent else frame.columns[j])
            columns.append(pd.Series([_ranged(*each, digits) for each in triple], index=frame.index, dtype=object))
    out = pd.concat(columns, axis=1)
    if not isinstance(frame.columns, pd.MultiIndex):
        return out.set_axis(pd.Index(keys, name=frame.columns.name), axis=1)
    named = pd.MultiIndex.from_tuples(keys, names=frame.columns.names)
    # A level that says nothing any more goes.
    return out.set_axis(named.droplevel(-1) if set(named.get_level_values(-1)) == {""} else named, axis=1)


def _ranged(value: float, low: float, high: float, digits: int) -> float:
    if math.isnan(value):
        return math.nan
    x, a, b = (_real(each, digits) for each in (value, low, high))
    return Ranged(value, x if math.isnan(low) or math.isnan(high) else f"{x} ({a} to {b})")


# ------------------------------------------------------------------------------------------------------------- the layout
@dataclass(frozen=True)
class _Column:
    """One column: its headings from top to bottom, its values, what they look like, and whether they read as numbers."""

    path: tuple[str, ...]
    values: list[Any]
    texts: list[str]
    numeric: bool

    @property
    def long(self) -> bool:
        """Whether it holds text that needs several lines."""
        return not self.numeric and max(map(len, self.texts), default=0) > PROSE


def lay_out(
    frame: pd.DataFrame, *, digits: Digits = None, highlight: Mapping[Any, str] | None = None, heads: int | None = None
) -> Grid:
    """Lay a table out; the fields of `bayesens.app.report.page.Table` say how, with ``head_columns`` for `heads`.

    Examples
    --------
    >>> grid = lay_out(pd.DataFrame({"model": ["BMA", "HBM"], "rmse": [0.05, 0.0481]}), highlight={"rmse": "min"})
    >>> [[(cell.text, cell.style) for cell in row] for row in grid.bodies[0]]
    [[('BMA', 'stub'), ('0.0500', 'number')], [('HBM', 'stub'), ('0.0481', 'number best')]]
    """
    columns, levels = _columns(frame, digits)
    if heads is None:
        heads = levels or _text_columns(columns)
    panels = _panels(columns, heads, len(frame))
    best = _best(columns, heads, panels, highlight or {})
    titled = heads > 1 and len(panels) * 2 <= len(frame)  # a panel of a single row is none
    shown = columns[1:] if titled else columns
    heads = heads - titled
    head = _head(shown, heads)
    bodies = []
    for start, stop in panels if titled else [(0, len(frame))]:
        body = list(_rows(shown, heads, start, stop, {(i, j - titled) for i, j in best}))
        if titled:
            body.insert(0, (Cell(columns[0].texts[start], columns=len(shown), scope="rowgroup", style="panel stub"),))
        bodies.append(tuple(body))
    groups = [(path[0], j if j < heads or len(path) == 1 else -1) for j, path in enumerate(c.path for c in shown)]
    spans = tuple(len(list(each)) for _, each in groupby(groups)) if len(shown[0].path if shown else ()) > 1 else ()
    return Grid(spans, head, tuple(bodies), sum(_characters(column) for column in shown))


def _characters(column: _Column) -> int:
    """Width of a column with its padding: headings and long text go over several lines, what is short does not."""
    words = [word for label in column.path for word in label.split()]
    texts = [part for text in column.texts for part in (_halves(text) if column.numeric else [text])]
    return 2 + max([0, *map(len, words), *(min(len(text), PROSE) for text in texts)])


def _halves(text: str) -> list[str]:
    """A number, and what stands in brackets after it."""
    number, _, more = text.partition(" ")
    return [number, more] if more.startswith(("(", "[")) else [text, ""]


def _path(column: Hashable) -> tuple[Any, ...]:
    return column if isinstance(column, tuple) else (column,)


def _columns(frame: pd.DataFrame, digits: Digits) -> tuple[list[_Column], int]:
    """All columns with the index's levels first, and how many these are."""
    index = frame.index
    counts = isinstance(index, pd.RangeIndex) and index.name is None
    keys: list[Hashable] = [] if counts else [name if name is not None else "" for name in index.names]
    series = [] if counts else [list(index.get_level_values(level)) for level in range(index.nlevels)]
    series += [list(frame.iloc[:, j]) for j in range(frame.shape[1])]
    depth = frame.columns.nlevels
    keys += list(frame.columns)
    alike: dict[str, list[float]] = {}
    for key, values in zip(keys, series, strict=True):
        alike.setdefault(_last(key), []).extend(float(v) for v in values if _is_number(v) and not _missing(v))
    out = []
    for key, values in zip(keys, series, strict=True):
        labels = tuple("" if _missing(label) else str(label) for label in _path(key))
        given = _given(digits, key)
        whole = 0 if given is None else given
        if given is None:
            given = digits if isinstance(digits, int | str) else _decimals(np.array(alike[_last(key)]), SIGNIFICANT)
        there = [value for value in values if not (_missing(value) or (isinstance(value, str) and not value))]
        numeric = bool(there) and all(_is_number(v) or (isinstance(v, str) and WRITTEN.fullmatch(v)) for v in there)
        texts = [_text(value, whole, given) for value in values]
        out.append(_Column(labels + ("",) * (depth - len(labels)), values, texts, numeric))
    return out, len(keys) - frame.shape[1]


def _text_columns(columns: Sequence[_Column]) -> int:
    """Leading columns of text; the first one alone where there is nothing else."""
    leading = next((j for j, column in enumerate(columns) if column.numeric), len(columns))
    return leading if leading < len(columns) else min(1, leading)


def _panels(columns: Sequence[_Column], heads: int, size: int) -> list[tuple[int, int]]:
    """Runs of rows with the same first label, where there is more than one column of labels."""
    if heads < 2 or not size:
        return [(0, size)]
    edges = [i for i in range(size) if i == 0 or columns[0].texts[i] != columns[0].texts[i - 1]]
    return list(zip(edges, [*edges[1:], size], strict=True))


def _head(columns: Sequence[_Column], heads: int) -> tuple[tuple[Cell, ...], ...]:
    """Rows of headings: equal neighbours are one cell, and a label with nothing below reaches down."""
    paths = [column.path for column in columns]
    depth = len(paths[0]) if paths else 0
    rows = []
    for level in range(depth):
        # A label column, and a lowest heading, is never merged with its neighbour.
        own = [
            (path[: level + 1], j if j < heads or not any(path[level + 1 :]) else -1) for j, path in enumerate(paths)
        ]
        row, j = [], 0
        for (path, _), same in groupby(own):
            width = len(list(same))
            lowest = not any(paths[j][level + 1 :])
            if level == 0 or any(paths[j][level:]):  # else the heading above reaches down to here
                style = "span" if not lowest else "stub" if j == 0 and heads else "right" * columns[j].numeric
                scope = "" if not path[level] else "colgroup" if width > 1 else "col"
                row.append(Cell(path[level], depth - level if lowest else 1, width, scope, style))
            j += width
        rows.append(tuple(row))
    return tuple(rows)


def _rows(
    columns: Sequence[_Column], heads: int, start: int, stop: int, best: set[tuple[int, int]]
) -> Iterator[tuple[Cell, ...]]:
    """Rows of one body; a repeated label is one cell over its rows, but for those of the last label column."""
    labels = {i: tuple(column.texts[i] for column in columns[:heads]) for i in range(start, stop)}
    for i in range(start, stop):
        cells = []
        for j, column in enumerate(columns):
            if j < heads - 1 and i > start and labels[i][: j + 1] == labels[i - 1][: j + 1]:
                continue
            marks = {"stub": j == 0 and heads, "number": column.numeric, "best": (i, j) in best,
                     "missing": _missing(column.values[i]), "prose": column.long}  # fmt: skip
            style = " ".join(name for name, has in marks.items() if has)
            same = 1
            if j < heads - 1:
                same = next((k for k in range(i, stop) if labels[k][: j + 1] != labels[i][: j + 1]), stop) - i
            scope = "" if j >= heads else "rowgroup" if same > 1 else "row"
            text, more = _halves(column.texts[i]) if column.numeric else (column.texts[i], "")
            cells.append(Cell(text, same, 1, scope, style, more))
        yield tuple(cells)


def _best(
    columns: Sequence[_Column], heads: int, panels: Sequence[tuple[int, int]], highlight: Mapping[Any, str]
) -> set[tuple[int, int]]:
    """Rows and columns of the best values: down a column within each panel, or across the rows of a panel."""
    found: set[tuple[int, int]] = set()
    data = [j for j in range(heads, len(columns)) if columns[j].numeric]
    for key, kind in highlight.items():
        path = tuple(map(str, _path(key)))
        down = [j for j in data if columns[j].path == path or (len(path) == 1 and _last(columns[j].path) == path[0])]
        for j in down:
            for start, stop in panels:
                found |= _winners(columns, [(i, j) for i in range(start, stop)], kind)
        if down or not heads:
            continue
        for i in (i for i, text in enumerate(columns[0].texts) if (text,) == path):
            alike: dict[Any, list[tuple[int, int]]] = {}
            for j in data:
                alike.setdefault(columns[j].path[1:], []).append((i, j))
            for below, cells in alike.items():
                if any(below):  # a heading that stands alone, such as a number of rows, competes with none
                    found |= _winners(columns, cells, kind)
    return found


def _winners(columns: Sequence[_Column], cells: Sequence[tuple[int, int]], kind: str) -> set[tuple[int, int]]:
    """The best of some cells and all that read the same; none where there is nothing to compare."""
    there = [(i, j) for i, j in cells if _is_number(columns[j].values[i]) and not _missing(columns[j].values[i])]
    if len(there) < 2:
        return set()
    i, j = min(there, key=lambda cell: BEST[kind](float(columns[cell[1]].values[cell[0]])))
    text = _halves(columns[j].texts[i])[0]
    return {(i, j) for i, j in there if _halves(columns[j].texts[i])[0] == text}


# --------------------------------------------------------------------------------------------------------------- the cells
def _last(key: Hashable) -> str:
    """The lowest label of a column that is not empty."""
    return next((str(label) for label in reversed(_path(key)) if not _missing(label) and str(label)), "")


def _given(digits: Digits, key: Hashable) -> int | str | None:
    """What the caller said of a column: under its whole name, or under one of its labels, the last one first."""
    if not isinstance(digits, Mapping):
        return None
    return next((digits[each] for each in (key, *reversed(_path(key))) if each in digits), None)


def _text(value: Any, whole: int | str, real: int | str) -> str:
    """What a value looks like, with so many decimals where it is a whole or a real number."""
    if _missing(value):
        return MISSING
    if isinstance(value, Ranged):
        return value.text
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if _is_number(value):
        return _real(value, whole if isinstance(value, Integral) else real)
    return _date(value) if isinstance(value, dt.date | np.datetime64) else str(value)


def _decimals(values: np.ndarray, significant: int) -> int:
    """Decimals that show the median with so many digits; none where all are whole."""
    size = np.abs(values[np.isfinite(values) & (values != 0)])
    if not size.size or bool((size == np.round(size)).all()):
        return 0
    return int(np.clip(significant - 1 - math.floor(math.log10(float(np.median(size)))), 0, 8))


def _real(value: Any, digits: int | str) -> str:
    """A number with a true minus, no negative zero, and commas from five digits on."""
    number = float(value)
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    if isinstance(digits, str):
        text = digits.format(value) if "{" in digits else format(value, digits)
    else:
        text = format(value, f"z{',' * (abs(number) >= 10_000)}.{digits}f")
    return "−" + text[1:] if text.startswith("-") else text


def _date(value: Any) -> str:
    stamp = pd.Timestamp(value)
    return stamp.strftime("%Y-%m-%d") if stamp == stamp.normalize() else stamp.strftime("%Y-%m-%d %H:%M")


def _missing(value: Any) -> bool:
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)
