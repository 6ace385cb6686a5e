"""From the chapters of a study to the pages of its report."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bayesens import report
from bayesens.chapters import Chapter, Drawing, Remark, Sheet
from bayesens.study_results import StudyResults

__all__ = ["write_report"]

LONG = 30  # lines of a table beyond which it is folded away


def write_report(
    results: StudyResults, chapters: Sequence[Chapter], findings: Sequence[str], line: str, folder: Path
) -> None:
    """Write ``report.html`` from the chapters and the figures that lie in the folder.

    Parameters
    ----------
    results : StudyResults
    chapters : sequence of Chapter
    findings : sequence of str
        The summary.
    line : str
        The data in one line.
    folder : Path
        With ``figures/NAME.svg``.
    """
    about = results.study.study
    made = report.Report(
        title=about.title,
        subtitle=line,
        summary=tuple(_text(text) for text in findings),
        sections=tuple(report.Section(one.title, tuple(_parts(one, folder)), one.key or None) for one in chapters),
        facts={"Members": ", ".join(results.ensemble.members), "Models": ", ".join(results.models),
               "Held out": ", ".join(results.held), "Random seed": about.random_seed},
        date=dt.date.today(),
    )  # fmt: skip
    report.write(made, folder / "report.html")


def _text(text: str) -> str:
    """Text from data, its percent signs kept with their numbers."""
    return report.literal(text).replace(" %", "\u00a0%")


def _parts(chapter: Chapter, folder: Path) -> Iterator[Any]:
    for part in chapter.parts:
        if isinstance(part, str):
            yield report.Paragraph(_text(part))
        elif isinstance(part, Remark):
            yield report.Note(_text(part.text), part.kind)
        elif isinstance(part, Drawing):
            yield report.Figure(folder / "figures" / f"{part.name}.svg", _text(part.caption), part.alt, part.wide)
        elif (frame := part.frame if part.shown is None else part.shown).shape[1]:
            yield _table(part, frame)


def _table(sheet: Sheet, frame: Any) -> report.Table:
    return report.Table(
        frame, _text(sheet.caption), _text(sheet.note), digits=sheet.digits, highlight=sheet.highlight,
        head_columns=sheet.heads,
        fold=len(frame) > LONG, source=f"tables/{sheet.name}.csv",
    )  # fmt: skip
