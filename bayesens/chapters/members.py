"""The members on rows that they have not seen, and how far their errors are one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bayesens.chapters.chapter import Chapter, Drawing, Remark, Sheet, figure
from bayesens.chapters.scores import options
from bayesens.evaluation import score_table
from bayesens.scored_rows import common_rows
from bayesens.splits import ESTIMANDS
from bayesens.study_results import StudyResults

__all__ = ["error_correlation", "members"]


def members(results: StudyResults) -> Chapter:
    """Write the chapter.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    Chapter
    """
    held = results.held[results.estimand].members
    point = {name: held.prediction[:, k] for k, name in enumerate(held.members)}
    rows = common_rows({}, held, estimand=results.estimand, products=point, labels=results.data.labels)
    table = score_table(rows, by=results.data.by, **options(results))
    pooled = table.loc[table["group"] == "all", ["model", "n", "stations", "rmse", "ubrmse", "mae", "bias", "r", "r_temporal",
                                                 "r_spatial"]].rename(columns={"model": "member"})  # fmt: skip
    parts: list[Any] = [
        Sheet("members", table, f"The members as they are, before any combination ({ESTIMANDS[results.estimand]}).",
              "r_temporal is the median over stations of the correlation over time, r_spatial that of station means.",
              shown=pooled.dropna(axis=1, how="all"), digits=3),
    ]  # fmt: skip
    if held.n_members > 1:
        parts += _dependence(results)
    return Chapter("The members", tuple(parts), "members")


def _dependence(results: StudyResults) -> list[Any]:
    held = results.held[results.estimand].members
    total, within = error_correlation(held), error_correlation(held, within=True)
    upper = total.to_numpy()[np.triu_indices(len(total), 1)]
    lines = [{"part": part, "member": one, "other": other, "correlation": matrix.at[one, other]}
             for part, matrix in {"total": total, "within "
                                                  "stations": within}.items() for one in matrix for other in matrix]  # fmt: skip
    shown = total.round(2).rename_axis("member").reset_index()

    def draw() -> Any:
        from bayesens import plots

        made, axes = figure(7.2, 3.4, 1, 2)
        for ax, (title, matrix) in zip(axes, {"all rows": total, "within stations": within}.items(), strict=True):
            plots.correlations(matrix, ax=ax)
            ax.set_title(title)
        return made

    text = (f"The errors (member minus observation) of two members correlate by {upper.min():.2f} to {upper.max():.2f}. "
            "Correlated members do not break BMA: its likelihood has no assumption that they are independent. What "
            "dependence costs is information: members that err together count for less than their number, and weights of "
            "near twins are loose. Models that average linearly, as HBM, can use it; whether it helps is what the scores "
            "say.")  # fmt: skip
    return [
        Remark(text),
        Sheet("error_correlation", pd.DataFrame(lines), "Correlation of the members' errors, all rows.", shown=shown, digits=2),
        Drawing("error_correlation", draw, "Correlation of the members' errors on rows that they have not seen: over all "
                "rows, and within stations, the mean of each station taken away.",
                f"Two matrices of error correlations of {held.n_members} members.", wide=True),
    ]  # fmt: skip


def error_correlation(ensemble: Any, *, within: bool = False) -> pd.DataFrame:
    """Correlation of member minus observation, over rows that have all members.

    Parameters
    ----------
    ensemble : Ensemble
    within : bool
        Take the mean of each station away first.

    Returns
    -------
    DataFrame (member, member)

    Examples
    --------
    >>> from bayesens import Ensemble
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [3.0, 1.0, 1.0], "y": [0.0, 0.0, 2.0], "site": list("xxx")})
    >>> ensemble = Ensemble.from_frame(frame, members=["a", "b"], observation="y", site="site")
    >>> error_correlation(ensemble).round(2).to_numpy().tolist()  # errors 1, 2, 2 and 3, 1, -1
    [[1.0, -0.87], [-0.87, 1.0]]
    """
    error = pd.DataFrame(ensemble.prediction - ensemble.require_observation()[:, None], columns=list(ensemble.members))
    whole = error.notna().all(axis=1)
    error = error[whole]
    if within:
        error = error - error.groupby(ensemble.labels("site")[whole.to_numpy()]).transform("mean")
    return error.corr()
