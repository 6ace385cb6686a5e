"""A report as a value, and as one HTML file that needs nothing else: figures inside, no script, nothing fetched."""

from __future__ import annotations

import base64
import datetime as dt
import os
import re
import struct
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain, count
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from bayesens.app.report.parts import NOTES, Figure, Listing, Note, Paragraph, Report, Section, Table, literal
from bayesens.app.report.tables import Grid, lay_out, with_interval
from bayesens.messages import listed
from bayesens.tables.atomic import check_writable, write_atomically

__all__ = [
    "Figure",
    "Listing",
    "Note",
    "Paragraph",
    "Report",
    "Section",
    "Table",
    "literal",
    "render",
    "with_interval",
    "write",
]

ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
TAKEN = ("summary", "contents", "main")  # anchors of the page itself
MARK = re.compile(
    r"\\([\\*`\[])|`([^`\n]+)`|(?<![\w*])\*(?=\S)([^*\n]*[^*\s])\*(?![\w*])|\[#([A-Za-z][A-Za-z0-9_-]*)\]"
)
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # HTML and UTF-8 take none of these
TYPE, UPRIGHT, TURNED = 8.0, 505.0, 750.0  # points: type of a table, and width of A4 between its margins
INCH = 96.0  # CSS pixels
PHONE = 44  # characters of a table that a phone shows without scrolling
UNITS = {"": 1.0, "px": 1.0, "pt": INCH / 72, "pc": INCH / 6, "in": INCH, "cm": INCH / 2.54, "mm": INCH / 25.4}


def render(report: Report) -> str:
    """Return a report as HTML that shows the same without a network.

    Parameters
    ----------
    report : Report

    Returns
    -------
    str
        One page in HTML 5. Figures are inside it as images, where scripts of an SVG cannot run; the page itself holds no
        script, and its content security policy forbids to fetch anything.

    Raises
    ------
    FileNotFoundError
        A figure that is not there.
    ValueError
        A figure that is no SVG or PNG, two parts of one ``id``, a ``[#id]`` that leads nowhere, or sections three deep.

    Examples
    --------
    >>> import pandas as pd
    >>> scores = pd.DataFrame({"model": ["BMA", "HBM"], "crps": [0.0371, 0.0368]})
    >>> table = Table(scores, "Mean scores.", highlight={"crps": "min"}, id="scores")
    >>> page = render(Report("Soil moisture", ["HBM is best."], [Section("Skill", ["See [#scores].", table])]))
    >>> '<p>See <a href="#scores">Table 1</a>.</p>' in page, '<b>0.0368</b>' in page
    (True, True)
    """
    from jinja2 import Environment, StrictUndefined

    names = _names(report)
    pages = _Pages({name.id: name.label for name in names}, iter(names))
    summary = [pages.view(part) for part in report.summary]
    sections = [pages.view(section) for section in report.sections]
    plates = [k for k, part in enumerate(summary) if part["kind"] in ("figure", "table")]
    box = summary[: plates[0]] if plates else summary
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(
        files("bayesens.app.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    day = report.date
    date = f"{day.day} {day:%B %Y}" if isinstance(day, dt.date) else day
    page = template.render(report=report, summary=box, plates=summary[len(box) :], sections=sections, date=date)
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", page)


def write(report: Report, path: str | os.PathLike[str]) -> None:
    """Write a report as one HTML file, whole or not at all.

    Parameters
    ----------
    report : Report
    path : str or path
        Ends in ``.html``.

    Raises
    ------
    OSError
        The file cannot be written; what was there is kept.
    FileNotFoundError, ValueError
        As in `render`.
    """
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is an .html file; got {os.fspath(path)!r}")
    check_writable(path)
    page = render(report)
    with write_atomically(path) as aside:
        aside.write_text(page, encoding="utf-8", newline="\n")


# --------------------------------------------------------------------------------------------------- numbers and anchors
@dataclass(frozen=True)
class _Name:
    """What a section, figure or table is called."""

    id: str
    number: str
    label: str


def _names(report: Report) -> list[_Name]:
    """Name all sections, figures and tables in their order."""
    named: list[tuple[Any, str]] = [(part, "") for part in report.summary if isinstance(part, Figure | Table)]
    named += [each for k, section in enumerate(report.sections, 1) for each in _walk(section, str(k))]
    given = [part.id for part, _ in named if part.id is not None]
    for name in given:
        if not ID.fullmatch(name):
            raise ValueError(f"an id is a letter, then letters, digits, - and _; got {name!r}")
        if given.count(name) > 1 or name in TAKEN:
            raise ValueError(f"the id {name!r} is used more than once, or is the page's own; give each part another")
    taken, numbers, out = {*given, *TAKEN}, {Figure: count(1), Table: count(1)}, []
    for part, number in named:
        number = number or str(next(numbers[type(part)]))
        kind = type(part).__name__
        name = part.id or _free(_slug(part.title) if isinstance(part, Section) else f"{kind.lower()}-{number}", taken)
        taken.add(name)
        out.append(_Name(name, number, f"{kind} {number}"))
    return out


def _walk(section: Section, number: str) -> Iterator[tuple[Any, str]]:
    """Sections with their numbers, figures and tables without."""
    yield section, number
    inner = count(1)
    for part in section.parts:
        if isinstance(part, Section):
            if "." in number:
                raise ValueError(f"section {part.title!r} is three deep; wanted sections in sections at most")
            yield from _walk(part, f"{number}.{next(inner)}")
        elif isinstance(part, Figure | Table):
            yield part, ""


def _slug(title: str) -> str:
    """Return an anchor from a title.

    Examples
    --------
    >>> _slug("Où sont les stations?")
    'ou-sont-les-stations'
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"^(?![a-z])", "section-", re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")).strip("-")


def _free(name: str, taken: set[str]) -> str:
    return next(each for each in chain([name], (f"{name}-{k}" for k in count(2))) if each not in taken)


# ----------------------------------------------------------------------------------------------------- what a page shows
@dataclass(frozen=True)
class _Pages:
    """Turns parts into what the template shows."""

    labels: Mapping[str, str]
    names: Iterator[_Name]

    def view(self, part: Any) -> dict[str, Any]:
        """Return the fields of one part."""
        match part:
            case str() | Paragraph():
                return {"kind": "paragraph", "text": self.inline(part if isinstance(part, str) else part.text)}
            case Listing():
                return {"kind": "listing", "items": [self.inline(item) for item in part.items]}
            case Note():
                return {"kind": "note", "note": part.kind, "label": NOTES[part.kind], "text": self.inline(part.text)}
            case Section():
                name = next(self.names)
                parts = [self.view(each) for each in part.parts]
                return {"kind": "section", "name": name, "title": part.title, "parts": parts}
            case Figure():
                return {"kind": "figure", "name": next(self.names), "image": _image(Path(part.path)), "alt": part.alt,
                        "wide": part.wide, "caption": self.inline(part.caption)}  # fmt: skip
            case Table():
                return self._table(part)
            case _:
                raise AssertionError(part)

    def _table(self, part: Table) -> dict[str, Any]:
        grid = lay_out(part.frame, digits=part.digits, highlight=part.highlight, heads=part.head_columns)
        source = quote(part.source) if part.source else ""
        turned, size = _paper(grid)
        return {"kind": "table", "name": next(self.names), "grid": grid, "caption": self.inline(part.caption),
                "note": self.inline(part.note), "fold": part.fold, "rows": len(part.frame), "turned": turned, "size": size,
                "broad": grid.characters > PHONE,
                "best": any("best" in cell.style for body in grid.bodies for row in body for cell in row),
                "source": source, "file": part.source}  # fmt: skip

    def inline(self, text: str) -> Any:
        """Return text as HTML, all but the few marks escaped."""
        from markupsafe import Markup, escape

        out, last = Markup(), 0
        for found in MARK.finditer(text):
            out += escape(text[last : found.start()])
            last = found.end()
            plain, code, emphasis, name = found.groups()
            if name is not None and name not in self.labels:
                raise ValueError(
                    f"{found.group()!r} leads nowhere: the report has {listed(self.labels, limit=20)}; give the part that "
                    "id, or put text from data through literal()"
                )
            if plain is not None:
                out += escape(plain)
            elif code is not None:
                out += Markup("<code>{}</code>").format(code)
            elif emphasis is not None:
                out += Markup("<em>{}</em>").format(emphasis)
            else:
                out += Markup('<a href="#{}">{}</a>').format(name, self.labels[name])
        return out + escape(text[last:])


def _paper(grid: Grid) -> tuple[bool, float]:
    """Whether a table turns the page, and the size of its type there [points]."""
    upright, turned = (width / (0.62 * max(grid.characters, 1)) for width in (UPRIGHT, TURNED))
    turn = upright < 0.8 * TYPE
    return turn, round(min(TYPE, max(turned if turn else upright, TYPE / 2)), 1)


# --------------------------------------------------------------------------------------------------------------- figures
def _image(path: Path) -> dict[str, Any]:
    """A figure as a data URI, with its size in CSS pixels.

    An SVG is an image too, never part of the page: its ids then meet no other's, and its scripts never run.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"the figure {path} is not there; draw it first, or leave it out") from error
    kind = "svg+xml" if path.suffix.lower() == ".svg" else "png"
    try:
        width, height = _svg_size(content) if kind == "svg+xml" else _png_size(content)
    except (ElementTree.ParseError, struct.error, ValueError) as error:
        raise ValueError(f"the figure {path} is no {path.suffix[1:].upper()} file ({error}); draw it again") from error
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"uri": uri, "width": round(width), "height": round(height)}


def _svg_size(content: bytes) -> tuple[float, float]:
    """Width and height from the attributes of the outermost element."""
    parser: Any = ElementTree.XMLPullParser(["start"])
    parser.feed(content)  # errors beyond the first element show here too
    parser.close()
    root = next(parser.read_events())[1]
    if root.tag.rpartition("}")[2] != "svg":
        raise ValueError(f"its outermost element is <{root.tag}>")
    sizes = [re.fullmatch(r"([\d.]+)([a-z]*)", root.get(name, "").strip()) for name in ("width", "height")]
    if all(found and found[2] in UNITS for found in sizes):
        width, height = (float(found[1]) * UNITS[found[2]] for found in sizes if found)
    else:
        width, height = (float(number) for number in root.get("viewBox", "0 0 640 480").replace(",", " ").split()[2:])
    return width, height


def _png_size(content: bytes) -> tuple[float, float]:
    """Width and height from its pixels and their density, one pixel each where it says nothing of that."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("it does not begin as one")
    width, height = struct.unpack(">II", content[16:24])
    at = content.find(b"pHYs", 8, content.find(b"IDAT"))
    across, down, unit = struct.unpack(">IIB", content[at + 4 : at + 13]) if at > 0 else (0, 0, 0)
    if unit != 1 or not across or not down:
        return width, height
    return width * INCH / (across * 0.0254), height * INCH / (down * 0.0254)
