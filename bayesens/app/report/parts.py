"""What a report is made of, as values: words, figures, tables, sections."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bayesens import __version__
from bayesens.app.report.tables import BEST
from bayesens.messages import listed

__all__ = ["NOTES", "Figure", "Listing", "Note", "Paragraph", "Report", "Section", "Table", "literal"]

NOTES = {"finding": "Finding", "caution": "Caution"}


@dataclass(frozen=True)
class Paragraph:
    r"""A paragraph; a plain string is the same.

    Attributes
    ----------
    text : str
        With ``*emphasis*``, ```code``` and ``[#id]``, which becomes a link such as "Table 3" to a part of that ``id``;
        a backslash takes the meaning from ``*``, a backtick, ``[`` and ``\``. Text from data goes through `literal`.
    """

    text: str


@dataclass(frozen=True)
class Listing:
    """A list with bullets.

    Attributes
    ----------
    items : tuple of str
        Marked up as a `Paragraph`.
    """

    items: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", _several(self.items, (str,), "a listing"))


@dataclass(frozen=True)
class Note:
    """A callout.

    Attributes
    ----------
    text : str
        Marked up as a `Paragraph`.
    kind : {"finding", "caution"}
    """

    text: str
    kind: str = "finding"

    def __post_init__(self) -> None:
        if self.kind not in NOTES:
            raise ValueError(f"a note is {' or '.join(map(repr, NOTES))}; got kind={self.kind!r}")


@dataclass(frozen=True)
class Figure:
    """A figure from a file.

    Attributes
    ----------
    path : path
        An ``.svg`` or ``.png`` file, read when the report is rendered. It is shown at its own size where there is room:
        one of 6.5 inches fills the column of text, one of 10 the page.
    caption : str
        Without a number; marked up as a `Paragraph`.
    alt : str
        What the figure shows, for those who cannot see it.
    wide : bool
        On a phone, scroll it sideways where it would otherwise be too small to read.
    id : str, optional
        To refer to it as ``[#id]``.
    draw : callable, optional
        Makes it, as a matplotlib figure, for whoever writes the file.
    """

    path: str | os.PathLike[str]
    caption: str
    alt: str
    wide: bool = False
    id: str | None = None
    draw: Callable[[], Any] | None = None

    def __post_init__(self) -> None:
        if Path(self.path).suffix.lower() not in (".svg", ".png"):
            raise ValueError(f"a figure is an .svg or .png file; got {os.fspath(self.path)!r}: save it as one of these")
        if not self.alt.strip():
            raise ValueError(f"figure {os.fspath(self.path)!r} has no alt text; say in a sentence what it shows")


@dataclass(frozen=True, eq=False)
class Table:
    """A table from a frame.

    Its index is shown unless it merely counts. Columns of several levels get merged headings. Where there are two or more
    label columns, and the first repeats itself, it becomes headings between panels of rows.

    Attributes
    ----------
    frame : DataFrame
        As it should stand there; missing values become a dash.
    caption, note : str
        Above and below it; marked up as a `Paragraph`.
    digits : int, str or mapping of column to int or str, optional
        Decimals of real numbers, or a format such as ``".0%"`` or ``"{:.1f} mm"``. The column is its name or, of several
        levels, all of them as a tuple or any one. Where nothing is said: three significant digits of the median.
    highlight : mapping of column to {"min", "max", "zero"}, optional
        Print the lowest, highest or nearest to zero in bold: down the column, within each panel. In place of a column, the
        label of a panel: along each of its rows, among columns that differ in their top heading alone. What the table lacks
        is passed over, so that one mapping serves many tables; the same holds for ``digits``.
    head_columns : int, optional
        How many of the first columns are labels, the index's levels among them. None: the index's levels, or the leading
        columns of text.
    fold : bool
        Show it on a click alone; paper always has it.
    source : str, optional
        The table as a file, relative to the report, such as ``"tables/scores.csv"``.
    id : str, optional
        To refer to it as ``[#id]``.
    whole : DataFrame, optional
        What that file holds, for whoever writes it; `frame` may then be without columns.
    """

    frame: pd.DataFrame
    caption: str
    note: str = ""
    digits: int | str | Mapping[Any, int | str] | None = None
    highlight: Mapping[Any, str] | None = None
    head_columns: int | None = None
    fold: bool = False
    source: str | None = None
    id: str | None = None
    whole: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        if odd := sorted(set((self.highlight or {}).values()) - set(BEST)):
            raise ValueError(f"highlight takes {listed(BEST)}; got {listed(odd)}")
        if self.source is not None and not _is_relative(self.source):
            raise ValueError(
                f"a table's source is a path below the report, such as 'tables/x.csv'; got {self.source!r}"
            )
        came: object = self.frame
        if not isinstance(came, pd.DataFrame):
            raise TypeError(f"a table is made from a pandas.DataFrame; got {type(came).__name__}")
        if not self.frame.shape[1] and self.whole is None:
            raise ValueError(
                f"the table {self.caption!r} has no columns; leave it out, or say in words what is missing"
            )
        most = self.frame.shape[1] + self.frame.index.nlevels
        if self.head_columns is not None and not 0 <= self.head_columns <= most:
            raise ValueError(f"head_columns is a number from 0 to {most} here; got {self.head_columns}")


@dataclass(frozen=True)
class Section:
    """A titled part of a report.

    Attributes
    ----------
    title : str
        Without a number.
    parts : tuple of str, Paragraph, Listing, Note, Figure, Table or Section
        In their order; sections in a section hold no further ones.
    id : str, optional
        The anchor, and to refer to it as ``[#id]``; None: from the title.
    """

    title: str
    parts: tuple[Any, ...]
    id: str | None = None

    def __post_init__(self) -> None:
        kinds = (str, Paragraph, Listing, Note, Figure, Table, Section)
        object.__setattr__(self, "parts", _several(self.parts, kinds, f"section {self.title!r}"))


SUMMARY = (str, Paragraph, Listing, Note, Figure, Table)


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes
    ----------
    title : str
    summary : tuple of str, Paragraph, Listing, Note, Figure or Table
        What was found, at the top: what comes before the first figure or table stands in a box.
    sections : tuple of Section
    facts : mapping of str to object
        Shown at the end: members, models, methods, seeds.
    version : str
        Of bayesens.
    subtitle : str
    date : datetime.date or str
        When it was made; text is shown as it is.
    """

    title: str
    summary: tuple[Any, ...] = ()
    sections: tuple[Section, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    version: str = __version__
    subtitle: str = ""
    date: dt.date | str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "summary", _several(self.summary, SUMMARY, "the summary"))
        object.__setattr__(self, "sections", _several(self.sections, (Section,), "the report"))


def literal(text: object) -> str:
    r"""Take the meaning from marks in text from data, such as the name of a station.

    Parameters
    ----------
    text : object
        Anything that prints.

    Returns
    -------
    str
        For a `Paragraph`, a caption or a note.

    Examples
    --------
    >>> print(literal("soil_*temp*"))
    soil_\*temp\*
    """
    return re.sub(r"([\\*`\[])", r"\\\1", str(text))


def _several(parts: Any, kinds: tuple[type, ...], where: str) -> tuple[Any, ...]:
    """One part or several as a tuple, refusing other kinds."""
    several = (parts,) if isinstance(parts, kinds) or not isinstance(parts, Iterable) else tuple(parts)
    if odd := [part for part in several if not isinstance(part, kinds)]:
        wanted = ", ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{where} holds {type(odd[0]).__name__} ({str(odd[0])[:60]!r}); wanted {wanted}")
    return several


def _is_relative(source: str) -> bool:
    """Whether a path leads below the report, on every system and in every browser."""
    parts = source.split("/")
    return bool(source) and not re.search(r"[\\:\x00-\x1f]", source) and not {"", ".", ".."} & set(parts)
