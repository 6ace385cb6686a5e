"""The ladder from equal weights to HBM: what each change does, and the fair comparison of HBM and BMA."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from bayesens import plots
from bayesens.app.report.parts import Section
from bayesens.app.study.chapters.chapter import drawing, failures, finding, sheet
from bayesens.app.study.results import StudyResults
from bayesens.app.study.verdicts import options
from bayesens.comparison.folds.held_out_rows import ESTIMANDS
from bayesens.comparison.folds.news import ALL_CONVERGED
from bayesens.comparison.ladder import ladder_effects, ladder_words
from bayesens.comparison.tables import score_table

__all__ = ["ladder"]

SHOWN = ["model", "held out", "crps", "log_score", "rmse", "coverage90", "width90"]


def ladder(results: StudyResults) -> Section:
    """What each step of the ladder does to the CRPS, and the scores of its rungs."""
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
        drawing("ladder", partial(plots.ladder, effects), "What each step of the ladder does to the CRPS, with 90 % intervals; "
                "the band is ±1 %, within which nobody would change a model.", "Forest of the effects of the ladder's steps.",
                size=(7.0, 1.2 + (0.22 + 0.16 * len(effects)) * max(len(table) for table in effects.values()))),
        sheet("ladder", whole, "Change of the CRPS by each step of the ladder [%]; below zero it helps.",
              "Brackets hold 90 % intervals, over what the column interval of the file says.", shown=_shown(whole), heads=3),
        sheet("ladder_scores", scores, "Scores of the rungs.", shown=_rungs(scores), heads=2),
        *failures(results.ladder),
    ]  # fmt: skip
    return Section("From equal weights to HBM", tuple(parts), "ladder")


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    change = [
        f"{line['difference']:+.1f} ({line['low']:+.1f} to {line['high']:+.1f})"
        if line["low"] == line["low"]
        else f"{line['difference']:+.1f} (none)"
        for line in table.to_dict("records")
    ]
    return pd.DataFrame({
        "held out": table["estimand"], "from": table["before"], "to": table["after"], "change": table["change"],
        "CRPS [%]": change, "verdict": table["verdict"],
    })  # fmt: skip


def _rungs(scores: pd.DataFrame) -> pd.DataFrame:
    doubt = ["not converged"] if (scores["not_converged"] != ALL_CONVERGED).any() else []
    return scores.rename(columns={"estimand": "held out", "not_converged": "not converged"})[[*SHOWN, *doubt]]
