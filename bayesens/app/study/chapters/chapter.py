"""What a chapter of the report is made of: words, tables and drawings, each with a name for its file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Chapter", "Drawing", "Points", "Remark", "Sheet", "figure", "finding", "named"]

# The end of a sentence: not that of an abbreviation of two letters, as in St. Ives.
ENDS = re.compile(r"(?:(?<=[a-z0-9%)\]'][a-z0-9%)\]'][.?])|(?<=\w\w\w[.?])|(?<= %[.?])) (?=[A-Z0-9])")


@dataclass(frozen=True)
class Remark:
    """A finding or a caution, set apart from the text."""

    text: str
    kind: str = "finding"


@dataclass(frozen=True)
class Points:
    """Sentences, one a line."""

    items: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Sheet:
    """A table: written whole to ``tables/NAME.csv``, shown in the report as `shown` (None: as it is).

    Attributes
    ----------
    name : str
    frame : pandas.DataFrame
    caption, note : str
    shown : pandas.DataFrame, optional
        What the report shows in its place: fewer columns, intervals in brackets. An empty one shows nothing.
    digits : int or mapping of column to int, optional
        None: three significant digits of the median.
    heads : int
        Leading columns that say what a row is.
    highlight : mapping of column to {"min", "max", "zero"}, optional
        Whose best value is printed in bold.
    first : bool
        It stays where it is, however wide; other wide or long tables stand in the appendix.
    """

    name: str
    frame: pd.DataFrame
    caption: str
    note: str = ""
    shown: pd.DataFrame | None = None
    digits: int | Mapping[str, int] | None = None
    heads: int = 1
    highlight: Mapping[str, str] | None = None
    first: bool = False


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure: drawn when it is written, to ``figures/NAME.png`` and ``.svg``."""

    name: str
    draw: Callable[[], Figure]
    caption: str
    alt: str
    wide: bool = False


@dataclass(frozen=True, eq=False)
class Chapter:
    """One chapter: text, remarks, tables and drawings in the order in which they are read."""

    title: str
    parts: tuple[str | Remark | Points | Sheet | Drawing, ...]
    key: str = field(default="")

    def sheets(self) -> Iterator[Sheet]:
        """Tables of the chapter."""
        return (part for part in self.parts if isinstance(part, Sheet))

    def drawings(self) -> Iterator[Drawing]:
        """Figures of the chapter."""
        return (part for part in self.parts if isinstance(part, Drawing))


def finding(text: str, kind: str = "finding") -> list[str | Remark]:
    """Take the first sentence of a text as a finding, and leave the others to the text below it.

    Examples
    --------
    >>> finding("BMA holds 94 %. HBM holds 90.5 % at St. Ives. Both do well.")
    [Remark(text='BMA holds 94 %.', kind='finding'), 'HBM holds 90.5 % at St. Ives. Both do well.']
    """
    head, *rest = ENDS.split(text, maxsplit=1)
    return [Remark(head, kind), *rest]


def named(ax: Axes, name: str, *, legend: bool) -> Axes:
    """Name a panel at its right end, where a legend at its left does not meet it; keep that legend or not."""
    ax.set_title(name, loc="right", fontsize=10)
    if not legend and (found := ax.get_legend()) is not None:
        found.remove()
    ax.label_outer()
    return ax


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a figure [inches] that no window system needs to know of, and its axes."""
    from matplotlib.figure import Figure as Made

    made = Made(figsize=(width, height), layout="constrained")
    return made, made.subplots(rows, columns, **options)
