"""From the chapters of a study to the page of its report."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bayesens.app.report import page as report
from bayesens.app.report.tables import lay_out
from bayesens.app.study.chapters.headline import Headline
from bayesens.app.study.results import StudyResults

__all__ = ["write_report"]

LONG, WIDE = 30, 100  # lines, and characters, of a table beyond which it stands in the appendix
STAYS = "tables/scores.csv"  # what readers look for first stands in the text, however wide


def write_report(
    results: StudyResults, chapters: Sequence[report.Section], first: Headline, line: str, folder: Path
) -> None:
    """Write ``report.html`` from the first page, the data in one line, the chapters, and ``figures/NAME.svg`` in the folder."""
    about, methods = results.study.study, sorted(set(results.study.methods.values()))
    last: list[report.Table] = []
    sections = [replace(one, parts=tuple(_parts(one.parts, folder, last))) for one in chapters]
    if last:
        sections.append(report.Section("Appendix: wide and long tables", tuple(last), "appendix"))
    answers = (f"*{label}.* {_text(text)}" for label, text in zip(first.labels, first.findings, strict=True))
    made = report.Report(
        title=about.title,
        subtitle=_text(line),
        summary=(report.Listing(tuple(answers)), *(_printed(part, folder) for part in first.parts)),
        sections=tuple(sections),
        facts={"Members": ", ".join(results.ensemble.members), "Models": ", ".join(results.models),
               "Method of inference": ", ".join(methods), "Held out": ", ".join(results.held),
               "Random seed": about.random_seed},
        date=dt.date.today(),
    )  # fmt: skip
    report.write(made, folder / "report.html")


def _parts(parts: Sequence[Any], folder: Path, last: list[report.Table]) -> Iterator[Any]:
    """Parts as they are printed; wide and long tables go to the appendix, and a link stands in their place."""
    for part in parts:
        printed = _printed(part, folder)
        if isinstance(part, report.Table) and not part.frame.shape[1]:
            continue  # the file is all there is of it
        if isinstance(part, report.Table) and part.source != STAYS and _is_large(part):
            last.append(replace(printed, id=f"appendix-{len(last) + 1}"))
            printed = f"[#{last[-1].id}] in the appendix: {last[-1].caption}"
        yield printed


def _printed(part: Any, folder: Path) -> Any:
    """A part in one typography, with the figure that lies in the folder."""
    match part:
        case str():
            return _text(part)
        case report.Note():
            return replace(part, text=_text(part.text))
        case report.Listing():
            return replace(part, items=tuple(map(_text, part.items)))
        case report.Figure():
            return replace(part, path=folder / part.path, caption=_text(part.caption))
        case report.Table():
            fold = len(part.frame) > LONG
            return replace(part, caption=_text(part.caption), note=_text(part.note), fold=fold)
        case _:
            raise AssertionError(part)


def _text(text: str) -> str:
    """Text from data in one typography: numbers keep their percent signs and units, and have a true minus."""
    text = re.sub(r"(?<![\w.)\]])-(?=\.?\d)", "\N{MINUS SIGN}", report.literal(text))
    text = re.sub(r"(?<![\d.,])(\d),(\d{3})(?![\d,])", r"\1\2", text)  # commas from five digits on, as in tables
    return re.sub(r"(?<=\d) (?=%|[a-z]*m[³²]|m⁻)", "\N{NO-BREAK SPACE}", text)


def _is_large(table: report.Table) -> bool:
    """Whether a table would break the text: wider than a page, or longer than a screen."""
    laid_out = lay_out(table.frame, digits=table.digits, heads=table.head_columns)
    return len(table.frame) > LONG or laid_out.characters > WIDE
