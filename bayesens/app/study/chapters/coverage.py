"""Coverage by class: whether intervals hold what they promise for low and for high values, and in every season."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pandas as pd
import xarray as xr

from bayesens import plots
from bayesens.app.report.parts import Section
from bayesens.app.report.tables import with_interval
from bayesens.app.study.chapters.chapter import drawing, finding, panels, sheet
from bayesens.app.study.results import StudyResults
from bayesens.app.study.verdicts import options
from bayesens.comparison.compare import DISTANCE
from bayesens.comparison.coverage import coverage_table, coverage_words, has_seasons
from bayesens.comparison.folds.held_out_rows import ESTIMANDS

__all__ = ["coverage"]

CLASSES = {"predicted": "fifth of the predicted value", "season": "season", DISTANCE: "distance to the nearest station"}


def coverage(results: StudyResults) -> Section:
    """Coverage in fifths of the predicted value, and in seasons, of the models and of the rungs of the ladder."""
    held = {estimand: one.rows for estimand, one in results.held.items()}
    seasons = any(has_seasons(rows) for rows in held.values())
    parts: list[Any] = [
        "Intervals may hold nine observations in ten over all rows, and too many of the low ones with too few of the high ones: "
        "so it is with one width for all rows where the spread grows with the value. Here every model is looked at in fifths "
        "of its own predicted mean"
        + (", and in every season" if seasons else "")
        + f". The rows are those of all chapters, {results.said_rows()}. Classes are made by what was predicted, not by "
        "what was observed: rows chosen by their observation make even the "
        "true distribution look bad. Classes of fewer than 20 rows have no value.",
        *_of_rows(results, held, "coverage_by"),
    ]
    if results.ladder:
        parts += ["The same for the rungs of the ladder.", *_of_rows(results, results.ladder, "ladder_coverage_by")]
    return Section(f"Coverage by predicted value{' and season' if seasons else ''}", tuple(parts), "coverage-by-class")


def _of_rows(results: StudyResults, held: Mapping[str, xr.Dataset], stem: str) -> Iterator[Any]:
    """Finding, figure and table for each way of making classes: all estimands in the file, the first one in the report."""
    units = f" [{results.units}]" if results.units else ""
    for by, words in CLASSES.items():
        there = {"season": has_seasons, DISTANCE: lambda rows: DISTANCE in rows.coords}.get(by, lambda _: True)
        some = {estimand: rows for estimand, rows in held.items() if there(rows)}
        if not some:
            continue
        tables = [coverage_table(rows, by=by, **options(results)) for rows in some.values()]
        first, shown = next(iter(some)), _with_rows(tables[0][tables[0]["by"] == by])
        about = f"by {words}: {ESTIMANDS[first]}."
        yield from finding(coverage_words(shown, by))
        yield drawing(
            f"{stem}_{by}", partial(_drawn, shown, by), "Share of observations inside intervals, less the share that was "
            f"promised, {about} Above zero intervals are wider than they need be, below zero too narrow; bars: 90 % "
            "intervals, where there are clusters enough.",
            f"Observed minus nominal coverage of central intervals by {words}, one panel a model.", wide=True,
        )  # fmt: skip
        # Whole percents where there is no interval to say more.
        digits = {f"inside {100 * level:g} % [%]": 0 for level in shown["level"].unique()}
        yield sheet(
            f"{stem}_{by}", pd.concat(tables, ignore_index=True), f"Coverage and mean width{units} of intervals {about}",
            "Brackets hold 90 % intervals, over what the column interval of the file says.", shown=_shown(shown),
            digits=digits, heads=2,
        )  # fmt: skip


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """One line a model and class, with coverage [%] and width of every level beside each other."""
    lines = table.copy()
    shares = [name for name in ("coverage", "coverage_low", "coverage_high") if name in lines]
    lines[shares] *= 100
    if "coverage_low" in table:
        lines = with_interval(lines, "coverage", digits=0)
    keys = ["model", "group"]
    out = lines.drop_duplicates(keys)[[*keys, "n"]].set_index(keys)
    for name, head in (("coverage", "inside {:g} % [%]"), ("width", "width of {:g} %")):
        for level, part in lines.groupby("level"):
            out[head.format(100 * float(str(level)))] = part.set_index(keys)[name]
    return out.reset_index().rename(columns={"group": "class", "n": "rows"})


def _with_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Without classes in which no model has a row, as seasons beyond the data."""
    return table[table.groupby("group")["n"].transform("max") > 0]


def _drawn(table: pd.DataFrame, by: str) -> Any:
    def draw(model: str, ax: Any) -> None:
        plots.coverage_by_class(table, by=by, model=model, difference=True, ax=ax)
        ax.tick_params(axis="x", rotation=30)

    made = panels(list(dict.fromkeys(table["model"])), draw, 2.1, 2.0, 0.7)
    handles = {label: one for ax in made.axes for one, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    made.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3, frameon=False, fontsize=8.5)
    return made
