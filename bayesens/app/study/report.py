"""From the chapters of a study to the pages of its report."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bayesens.app.report import page as report
from bayesens.app.report.tables import lay_out
from bayesens.app.study.chapters import Chapter, Drawing, Points, Remark, Sheet
from bayesens.app.study.chapters.headline import Headline
from bayesens.app.study.results import StudyResults

__all__ = ["write_report"]

LONG, WIDE = 30, 100  # lines, and characters, of a table beyond which it stands in the appendix


def write_report(results: StudyResults, chapters: Sequence[Chapter], page: Headline, line: str, folder: Path) -> None:
    """Write ``report.html`` from the chapters and the figures that lie in the folder.

    Parameters
    ----------
    results : StudyResults
    chapters : sequence of Chapter
    page : Headline
        The first page.
    line : str
        The data in one line.
    folder : Path
        With ``figures/NAME.svg``.
    """
    about, methods = results.study.study, sorted(set(results.study.methods.values()))
    last: list[report.Table] = []
    sections = [report.Section(one.title, tuple(_parts(one.parts, folder, last)), one.key or None) for one in chapters]
    if last:
        sections.append(report.Section("Appendix: wide and long tables", tuple(last), "appendix"))
    made = report.Report(
        title=about.title,
        subtitle=_text(line),
        summary=(_answers(page), *_parts(page.parts, folder, [])),
        sections=tuple(sections),
        facts={"Members": ", ".join(results.ensemble.members), "Models": ", ".join(results.models),
               "Method of inference": ", ".join(methods), "Held out": ", ".join(results.held),
               "Random seed": about.random_seed},
        date=dt.date.today(),
    )  # fmt: skip
    report.write(made, folder / "report.html")


def _answers(page: Headline) -> report.Listing:
    """The findings of the first page, each behind what it answers."""
    return report.Listing(
        tuple(f"*{label}.* {_text(text)}" for label, text in zip(page.labels, page.findings, strict=True))
    )


def _text(text: str) -> str:
    """Text from data in one typography: numbers keep their percent signs and units, and have a true minus."""
    text = re.sub(r"(?<![\w.)\]])-(?=\.?\d)", "\N{MINUS SIGN}", report.literal(text))
    text = re.sub(r"(?<![\d.,])(\d),(\d{3})(?![\d,])", r"\1\2", text)  # commas from five digits on, as in tables
    return re.sub(r"(?<=\d) (?=%|[a-z]*m[³²]|m⁻)", "\N{NO-BREAK SPACE}", text)


def _parts(parts: Sequence[Any], folder: Path, last: list[report.Table]) -> Iterator[Any]:
    """Parts as the report has them; wide and long tables go to the appendix, and a link stands in their place."""
    for part in parts:
        if isinstance(part, str):
            yield report.Paragraph(_text(part))
        elif isinstance(part, Remark):
            yield report.Note(_text(part.text), part.kind)
        elif isinstance(part, Points):
            yield report.Listing(tuple(_text(item) for item in part.items))
        elif isinstance(part, Drawing):
            yield report.Figure(folder / "figures" / f"{part.name}.svg", _text(part.caption), part.alt, part.wide)
        elif (frame := part.frame if part.shown is None else part.shown).shape[1]:
            if part.first or not _is_large(part, frame):
                yield _table(part, frame)
            else:
                name = f"appendix-{len(last) + 1}"
                last.append(_table(part, frame, name))
                yield report.Paragraph(f"[#{name}] in the appendix: {_text(part.caption)}")


def _is_large(sheet: Sheet, frame: Any) -> bool:
    """Whether a table would break the text: wider than a page, or longer than a screen."""
    return len(frame) > LONG or lay_out(frame, digits=sheet.digits, heads=sheet.heads).characters > WIDE


def _table(sheet: Sheet, frame: Any, name: str | None = None) -> report.Table:
    return report.Table(
        frame, _text(sheet.caption), _text(sheet.note), digits=sheet.digits, highlight=sheet.highlight,
        head_columns=sheet.heads,
        fold=len(frame) > LONG, source=f"tables/{sheet.name}.csv", id=name,
    )  # fmt: skip
