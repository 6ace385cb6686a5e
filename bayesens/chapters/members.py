"""The members on rows that they have not seen, and how far their errors are one."""

from __future__ import annotations

import warnings
from typing import Any

from bayesens.chapters.chapter import Chapter, Drawing, Remark, Sheet, figure
from bayesens.chapters.scores import options
from bayesens.dependence_text import dependence_table, dependence_words
from bayesens.evaluation import score_table
from bayesens.member_dependence import dependence
from bayesens.scored_rows import common_rows
from bayesens.splits import ESTIMANDS
from bayesens.study_results import StudyResults

__all__ = ["members"]


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
    with warnings.catch_warnings():  # the table has the number of rows
        warnings.filterwarnings("ignore", message=".* observed rows are left out for all", category=UserWarning)
        rows = common_rows({}, held, estimand=results.estimand, products=point, labels=results.data.labels)
    table = score_table(rows, by=results.data.by, **options(results))
    pooled = table.loc[table["group"] == "all", ["model", "n", "stations", "rmse", "ubrmse", "mae", "bias", "r", "r_temporal",
                                                 "r_spatial"]].rename(columns={"model": "member"})  # fmt: skip
    pooled = pooled if results.study.data.site else pooled.drop(columns="stations")
    parts: list[Any] = [
        Sheet("members", table, f"The members as they are, before any combination ({ESTIMANDS[results.estimand]}).",
              "r_temporal is the median over stations of the correlation over time, r_spatial that of station means."
              if results.study.data.site else "",
              shown=pooled.dropna(axis=1, how="all"), digits=3),
    ]  # fmt: skip
    if held.n_members > 1:
        parts += _dependence(results)
    return Chapter("The members", tuple(parts), "members")


def _dependence(results: StudyResults) -> list[Any]:
    held, asked = results.held[results.estimand].members, options(results)
    found = dependence(held, replicates=asked["replicates"], random_seed=asked["random_seed"])
    total = found["error_correlation"].sel(group="all", part="total").to_pandas()
    shown = total.round(2).rename_axis("member").reset_index().rename_axis(columns=None)

    def draw() -> Any:
        from bayesens import plots

        made, axes = figure(10.4, 3.6, 1, 3)
        plots.dependence(found, axes=axes)
        return made

    return [
        Remark(dependence_words(found)),
        Sheet("dependence", dependence_table(found), "Correlation of the members' errors, all rows.",
              "The file has all of it: parts, groups, intervals, effective numbers of members, redundancy.",
              shown=shown, digits=2),
        Drawing("dependence", draw, "Correlation of the members' errors on rows that they have not seen; effective numbers "
                "of members; and the correlation that would be left had the observations an error of their own.",
                f"Error correlations of {held.n_members} members, in numbers and colour.", wide=True),
    ]  # fmt: skip
