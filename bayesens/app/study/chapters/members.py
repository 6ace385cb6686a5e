"""The members on rows that they have not seen, and how far their errors are one."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesens.app.study.chapters.chapter import Chapter, Drawing, Sheet, finding
from bayesens.app.study.results import StudyResults
from bayesens.app.study.verdicts import options
from bayesens.comparison.common_rows import common_rows
from bayesens.comparison.errors.dependence import dependence
from bayesens.comparison.errors.words import dependence_table, dependence_words
from bayesens.comparison.folds.held_out_rows import ESTIMANDS
from bayesens.comparison.tables import score_table

__all__ = ["members", "members_table"]

HEADS = {"model": "member", "n": "rows", "stations": "stations", "rmse": "RMSE", "ubrmse": "ubRMSE", "mae": "MAE",
         "bias": "bias", "r": "r", "r_temporal": "r over time", "r_spatial": "r over stations"}  # fmt: skip
OF_STATIONS = ("stations", "r_temporal", "r_spatial")

EACH = ", each member in the rows that it has: numbers of members that lack rows are not of the same rows"


def members(results: StudyResults) -> Chapter:
    """Write the chapter.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    Chapter
    """
    table, sited = members_table(results), results.study.data.site is not None
    n = results.held[results.estimand].rows.sizes["obs"]
    heads = [name for name in HEADS if sited or name not in OF_STATIONS]
    pooled = table.loc[table["group"] == "all", heads].rename(columns=HEADS)
    fewer = (pooled["rows"] < n).any()
    parts: list[Any] = [
        Sheet("members", table, f"The members as they are, before any combination ({ESTIMANDS[results.estimand]}).",
              f"Of {results.said_rows()}{EACH if fewer else ''}. ubRMSE is the RMSE without the bias"
              + ("; r over time the median over stations of the correlation over time, r over stations the correlation of their "
                 "means." if sited else "."),
              shown=pooled.dropna(axis=1, how="all"), digits=None),
    ]  # fmt: skip
    if results.held[results.estimand].members.n_members > 1:
        parts += _dependence(results)
    return Chapter("The members", tuple(parts), "members")


def members_table(results: StudyResults) -> pd.DataFrame:
    """Scores of every member, as it is, in those rows of the report that it has.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    DataFrame
        As `score_table` gives it.
    """
    held = results.held[results.estimand]
    inside = np.isin(np.arange(len(held.members)), held.rows["obs"].values)
    point = {
        name: np.where(inside, held.members.prediction[:, k], np.nan) for k, name in enumerate(held.members.members)
    }
    whole = {name: v for name, v in point.items() if not np.isnan(v[inside]).any()}
    sets = ([whole] if whole else []) + [
        {name: v} for name, v in point.items() if name not in whole and np.isfinite(v).any()
    ]
    tables = []
    with warnings.catch_warnings():  # the table has the number of rows
        warnings.filterwarnings("ignore", message=".* observed rows are left out for all", category=UserWarning)
        for some in sets:
            rows = common_rows({}, held.members, estimand=results.estimand, products=some, labels=results.data.labels)
            tables.append(score_table(rows, by=results.data.by, **options(results)))
    order = list(held.members.members)
    table = pd.concat(tables, ignore_index=True)
    return table.sort_values("model", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def _dependence(results: StudyResults) -> list[Any]:
    held, asked = results.held[results.estimand].members, options(results)
    found = dependence(held, replicates=asked["replicates"], random_seed=asked["random_seed"])
    total = found["error_correlation"].sel(group="all", part="total").to_pandas()
    shown = total.round(2).rename_axis("member").reset_index().rename_axis(columns=None)

    return [
        *finding(_in_print(dependence_words(found), held.units, results.units)),
        Sheet("dependence", dependence_table(found), "Correlation of the members' errors, all rows.",
              "The file has all of it: parts, groups, intervals, effective numbers of members, redundancy.",
              shown=shown, digits=2),
        Drawing("dependence", partial(_drawn, found), _caption(found), f"Error correlations of {held.n_members} "
                                                                       f"members, in numbers "
                "and colour; effective numbers of members; correlation against an assumed error.", wide=True),
    ]  # fmt: skip


def _in_print(text: str, units: str, printed: str) -> str:
    """Units as they are printed everywhere, with their exponents raised."""
    return text.replace(units, printed) if units else text


def _caption(result: Any) -> str:
    """What the three panels are."""
    parts = [str(part) for part in result["part"].values]
    return ("Above: correlation of the members' errors on rows that they have not seen. Below left: how many members with "
            "independent errors an average of these is worth, "
            + (f"over all rows (total) and over those {' and '.join(p for p in parts if p != 'total')} stations"
               if len(parts) > 1 else "over all rows")
            + "; the lines are at one and at the number of members. Below right: the correlation that would be left of each pair "
            "(grey) and on average (blue), had the observations an error of their own of that size.")  # fmt: skip


def _drawn(result: Any) -> Any:
    """The matrix above, as large as its members need, and two panels below."""
    from matplotlib.figure import Figure

    from bayesens import plots

    above = 1.0 + 0.52 * max(result.sizes["member"] - 1, 2)
    made = Figure(figsize=(7.0, above + 2.9), layout="constrained")
    axes = made.subplot_mosaic([["matrix", "matrix"], ["number", "error"]], height_ratios=[above, 2.9])
    plots.dependence(result, axes=[axes[name] for name in ("matrix", "number", "error")])
    return made
