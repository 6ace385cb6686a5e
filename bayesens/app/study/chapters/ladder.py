"""The ladder from equal weights to HBM: what each change does, and the fair comparison of HBM and BMA."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from bayesens.app.study.chapters.chapter import Chapter, Drawing, Remark, Sheet, figure, finding
from bayesens.app.study.results import StudyResults
from bayesens.app.study.verdicts import options
from bayesens.comparison.folds.held_out_rows import ESTIMANDS
from bayesens.comparison.folds.news import ALL_CONVERGED
from bayesens.comparison.ladder import ladder_effects, ladder_words
from bayesens.comparison.tables import score_table

__all__ = ["ladder"]

SHOWN = ["model", "held out", "crps", "log_score", "rmse", "coverage90", "width90"]


def ladder(results: StudyResults) -> Chapter:
    """Write the chapter.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    Chapter
    """
    asked = options(results)
    asked["replicates"] = max(asked["replicates"], 1)
    effects = {estimand: ladder_effects(rows, **asked) for estimand, rows in results.ladder.items()}
    whole = pd.concat([table.assign(estimand=name) for name, table in effects.items()], ignore_index=True)
    scores = pd.concat([score_table(rows) for rows in results.ladder.values()], ignore_index=True)
    said = [part for name, table in effects.items()
            for part in finding(f"{ESTIMANDS[name].capitalize()}: {ladder_words(table)}")]  # fmt: skip
    count = "; ".join(f"{ESTIMANDS[name]}: {rows.sizes['obs']:,} observations" for name, rows in results.ladder.items())
    parts: list[Any] = [
        "HBM and BMA differ in several things at once: a mixture or one density, effects of groups and stations, dependent "
        "errors. The ladder changes one of them a rung, on the same rows and folds, so that each is seen alone. An effect is "
        "worth what it is worth from its rung; effects are no shares of a whole, and they change with what is new in the rows "
        f"held out. Rows: {count}.",
        *said,
        _drawing(effects),
        Sheet("ladder", whole, "Change of the CRPS by each step of the ladder [%]; below zero it helps.",
              "Brackets hold 90 % intervals, over what the column interval of the file says.", shown=_shown(whole), heads=3),
        Sheet("ladder_scores", scores, "Scores of the rungs.", shown=_rungs(scores), heads=2),
    ]  # fmt: skip
    failed = {name: rows.attrs["failed"] for name, rows in results.ladder.items() if rows.attrs["failed"] != "{}"}
    parts += [Remark(f"Left out of {name}: {one}, which failed in {why}", "caution")
              for name, text in failed.items() for one, why in json.loads(text).items()]  # fmt: skip
    return Chapter("From equal weights to HBM", tuple(parts), "ladder")


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    ends = [
        f"{low:+.1f} to {high:+.1f}" if low == low else "none"
        for low, high in zip(table["low"], table["high"], strict=True)
    ]
    return pd.DataFrame({
        "held out": table["estimand"], "from": table["before"], "to": table["after"], "change": table["change"],
        "CRPS [%]": [f"{value:+.1f} ({each})" for value, each in zip(table["difference"], ends, strict=True)],
        "verdict": table["verdict"],
    })  # fmt: skip


def _rungs(scores: pd.DataFrame) -> pd.DataFrame:
    doubt = ["not converged"] if (scores["not_converged"] != ALL_CONVERGED).any() else []
    return scores.rename(columns={"estimand": "held out", "not_converged": "not converged"})[[*SHOWN, *doubt]]


def _drawing(effects: dict[str, pd.DataFrame]) -> Drawing:
    rows = max(len(table) for table in effects.values())

    def draw() -> Any:
        from bayesens import plots

        made, ax = figure(7.0, 1.2 + (0.22 + 0.16 * len(effects)) * rows)
        plots.ladder(effects, ax=ax)
        return made

    return Drawing("ladder", draw, "What each step of the ladder does to the CRPS, with 90 % intervals; the band is ±1 %, within "
                   "which nobody would change a model.", "Forest of the effects of the ladder's steps.")  # fmt: skip
