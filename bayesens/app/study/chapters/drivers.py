"""What drives the trained members: importance of covariates at stations held out, and how the covariates hang together."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesens import plots
from bayesens.app.report.parts import Note, Section
from bayesens.app.study.chapters.chapter import drawing, sheet, with_labels
from bayesens.app.study.results import StudyResults
from bayesens.messages import listed

__all__ = ["drivers"]


def drivers(results: StudyResults) -> Section:
    """Importance of the covariates, their correlations and inflation."""
    assert results.importance is not None
    importance = results.importance
    mean = importance.groupby("covariate", sort=False)["percent"].mean().sort_values(ascending=False)
    held = "stations" if results.study.data.site else "rows"
    parts: list[Any] = [
        f"Each covariate was shuffled among {'the rows of ' if held == 'stations' else ''}{held} held out, and the rise "
        "of the squared error was noted. It is the importance to these members, not to nature: where two covariates tell the "
        "same, each seems to matter less than both.",
        Note(f"Shuffling {mean.index[0]} costs most: the squared error of the members rises by {mean.iloc[0]:.0f} % on "
             f"average; {mean.index[-1]} costs least ({mean.iloc[-1]:+.0f} %)."),
        sheet("importance", importance, "Rise of the squared error when a covariate is shuffled, in percent, by member.",
              f"The whole table has sds over shuffles and folds, and intervals over {held}.",
              shown=_by_member(importance), digits=1),
        drawing("importance", partial(plots.importance, importance), f"Permutation importance, {held} held out: mean and "
                "standard deviation over folds.", "Importance of each covariate to each member.",
                size=(6.2, 1.0 + 0.3 * importance["covariate"].nunique())),
    ]  # fmt: skip
    if results.correlations is not None and len(results.correlations):
        parts += _correlations(results)
    return Section("What drives the members", tuple(parts), "drivers")


def _by_member(importance: pd.DataFrame) -> pd.DataFrame:
    wide = importance.pivot(index="covariate", columns="member", values="percent")
    shown = wide.loc[importance["covariate"].unique(), importance["member"].unique()]
    return with_labels(shown.loc[shown.mean(axis=1).sort_values(ascending=False).index], "member")


def _correlations(results: StudyResults) -> list[Any]:
    pairs = results.correlations
    assert pairs is not None
    matrix = _matrix(pairs[pairs["within"].notna()], "within")
    still = sorted({*pairs["first"], *pairs["second"]} - set(matrix))
    without = f" Without {listed(still)}, which do not vary there." if still else ""
    if len(matrix) < 2:
        return []
    side = 1.6 + 0.42 * len(matrix)
    parts: list[Any] = [
        sheet("covariate_correlations", pairs, "Correlations of covariates, observation and products.", shown=pd.DataFrame()),
        drawing("covariate_correlations", partial(plots.correlations, matrix), "Correlations of the covariates, and with the "
                f"observation and products, over time at a station: means over stations.{without}",
                f"Matrix of correlations of {len(matrix)} columns.", size=(side, side)),
    ]  # fmt: skip
    if results.inflation is not None:
        factors = results.inflation.rename("factor").rename_axis("covariate").reset_index()
        parts.append(sheet("inflation", factors, "Variance inflation factors of the covariates.",
                           "Above about 10, a linear member cannot tell a covariate from the others.", digits=1))  # fmt: skip
    return parts


def _matrix(pairs: pd.DataFrame, column: str) -> pd.DataFrame:
    names = list(dict.fromkeys([*pairs["first"], *pairs["second"]]))
    matrix = pd.DataFrame(np.eye(len(names)), names, names)
    for one, other, value in zip(pairs["first"], pairs["second"], pairs[column], strict=True):
        matrix.loc[one, other] = matrix.loc[other, one] = value
    return matrix
