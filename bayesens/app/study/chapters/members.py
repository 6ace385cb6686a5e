"""The members on rows that they have not seen, and how far their errors are one."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesens import plots
from bayesens.app.report.parts import Section
from bayesens.app.study.chapters.chapter import drawing, finding, sheet, with_labels
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


def members(results: StudyResults) -> Section:
    """The members one by one, as they are, and how far their errors are one."""
    table, sited = members_table(results), results.study.data.site is not None
    n = results.held[results.estimand].rows.sizes["obs"]
    heads = [name for name in HEADS if sited or name not in OF_STATIONS]
    pooled = table.loc[table["group"] == "all", heads].rename(columns=HEADS)
    fewer = (pooled["rows"] < n).any()
    parts: list[Any] = [
        sheet("members", table, f"The members as they are, before any combination ({ESTIMANDS[results.estimand]}).",
              f"Of {results.said_rows()}{EACH if fewer else ''}. ubRMSE is the RMSE without the bias"
              + ("; r over time the median over stations of the correlation over time, r over stations the correlation of their "
                 "means." if sited else "."),
              shown=pooled.dropna(axis=1, how="all")),
    ]  # fmt: skip
    if results.held[results.estimand].members.n_members > 1:
        parts += _dependence(results)
    return Section("The members", tuple(parts), "members")


def members_table(results: StudyResults) -> pd.DataFrame:
    """Scores of every member, as it is, in those rows of the report that it has; as `score_table` gives them."""
    held = results.held[results.estimand]
    inside = np.isin(np.arange(len(held.members)), held.rows["obs"].values)
    masked = np.where(inside[:, None], held.members.prediction, np.nan)
    point = dict(zip(held.members.members, masked.T, strict=True))
    whole = {name: v for name, v in point.items() if not np.isnan(v[inside]).any()}
    fewer = [{name: v} for name, v in point.items() if name not in whole and np.isfinite(v).any()]
    tables = []
    with warnings.catch_warnings():  # the table has the number of rows
        warnings.filterwarnings("ignore", message=".* observed rows are left out for all", category=UserWarning)
        for some in [whole, *fewer] if whole else fewer:
            rows = common_rows({}, held.members, estimand=results.estimand, products=some, labels=results.data.labels)
            tables.append(score_table(rows, by=results.data.by, **options(results)))
    order = list(held.members.members)
    table = pd.concat(tables, ignore_index=True)
    return table.sort_values("model", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def _dependence(results: StudyResults) -> list[Any]:
    held, asked = results.held[results.estimand].members, options(results)
    found = dependence(held, replicates=asked["replicates"], random_seed=asked["random_seed"])
    total: Any = found["error_correlation"].sel(group="all", part="total").to_pandas()
    shown = with_labels(total.round(2).rename_axis("member"), "member")
    words = dependence_words(found)
    if held.units:  # with raised exponents, as everywhere
        words = words.replace(held.units, results.units)
    return [
        *finding(words),
        sheet("dependence", dependence_table(found), "Correlation of the members' errors, all rows.",
              "The file has all of it: parts, groups, intervals, effective numbers of members, redundancy.",
              shown=shown, digits=2),
        drawing("dependence", partial(_drawn, found), _caption(found), f"Error correlations of {held.n_members} members, in "
                "numbers and colour; effective numbers of members; correlation against an assumed error.", wide=True),
    ]  # fmt: skip


def _caption(result: Any) -> str:
    """What the three panels are."""
    parts = [str(part) for part in result["part"].values if part != "total"]
    which = f" (total) and over those {' and '.join(parts)} stations" if parts else ""
    return (
        "Above: correlation of the members' errors on rows that they have not seen. Below left: how many members with "
        f"independent errors an average of these is worth, over all rows{which}; the lines are at one and at the number of "
        "members. Below right: the correlation that would be left of each pair (grey) and on average (blue), had the "
        "observations an error of their own of that size."
    )


def _drawn(result: Any) -> Any:
    """The matrix above, as large as its members need, and two panels below."""
    from matplotlib.figure import Figure

    above = 1.0 + 0.52 * max(result.sizes["member"] - 1, 2)
    made = Figure(figsize=(7.0, above + 2.9), layout="constrained")
    axes = made.subplot_mosaic([["matrix", "matrix"], ["number", "error"]], height_ratios=[above, 2.9])
    plots.dependence(result, axes=[axes[name] for name in ("matrix", "number", "error")])
    return made
