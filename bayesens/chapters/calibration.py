"""Calibration: whether probabilities are frequencies on rows that no fit has seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bayesens.chapters.chapter import Chapter, Drawing, Remark, Sheet, figure, named
from bayesens.study_results import StudyResults

__all__ = ["calibration", "levels_table"]


def calibration(results: StudyResults) -> Chapter:
    """Write the chapter.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    Chapter
    """
    table = levels_table(results)
    rows = results.held[results.estimand].rows
    names = [name for name in results.models if name in rows["model"].values]
    sited = results.study.data.site is not None
    parts: list[Any] = [
        "If a model is calibrated, its 90 % intervals hold nine observations in ten, and its probability integral "
        "transforms (PIT) are spread evenly."
        + (" The middle half of stations beside it shows how far this holds at one station." if sited else ""),
        Sheet("calibration", table, "Coverage and mean width of central intervals on rows held out.",
              "q25 and q75: quartiles over stations of their own coverage." if sited else "",
              shown=_shown(table, results.estimand), digits=3, heads=1),
        Drawing("coverage", lambda: _coverage(table, results.estimand), "Share of observations inside central intervals, "
                "against the share that was promised.", "Observed coverage against nominal coverage, by model."),
        Drawing("pit", lambda: _pit(rows, names), "Probability integral transforms on rows held out, flat where calibrated. "
                "The band takes rows as independent" + (", and rows of one station are not." if sited else "."),
                f"Histograms of the PIT of {', '.join(names)}.", wide=True),
    ]  # fmt: skip
    parts.append(Remark(" ".join(_words(table, results.estimand)[:2])))
    return Chapter("Calibration", tuple(parts), "calibration")


def levels_table(results: StudyResults) -> pd.DataFrame:
    """Coverage and mean width by estimand, model and level, with quartiles over stations.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    DataFrame
        ``model``, ``estimand``, ``level``, ``coverage``, ``q25``, ``q75`` (NaN without stations), ``width``.
    """
    lines = []
    for estimand, held in results.held.items():
        site = held.members.labels("site")
        for model, one in held.predictions.items():
            seen = one["covered"].notnull().values.all(axis=0)
            for level in one["level"].values:
                inside = pd.Series(one["covered"].sel(level=level).values[seen])
                by_site = pd.Series(dtype=float) if site is None else inside.groupby(site[seen]).mean()
                lines.append({"model": model, "estimand": estimand, "level": float(level), "coverage": inside.mean(),
                              "q25": by_site.quantile(0.25), "q75": by_site.quantile(0.75),
                              "width": float(one["width"].sel(level=level).mean())})  # fmt: skip
    return pd.DataFrame(lines)


def _shown(table: pd.DataFrame, estimand: str) -> pd.DataFrame:
    lines = table[table["estimand"] == estimand]
    wide = lines.pivot(index="model", columns="level", values=["coverage", "width"]).loc[lines["model"].unique()]
    levels = [f"{100 * level:.0f} %" for level in wide.columns.get_level_values(1)]
    wide.columns = pd.MultiIndex.from_arrays([wide.columns.get_level_values(0), levels])
    return wide.reset_index()


def _words(table: pd.DataFrame, estimand: str) -> list[str]:
    lines = table[(table["estimand"] == estimand) & np.isclose(table["level"], 0.9)]
    return [f"The 90 % intervals of {line['model']} hold {100 * line['coverage']:.1f} % of the observations"
            + (f"; at the middle half of stations {100 * line['q25']:.0f} to {100 * line['q75']:.0f} %."
               if np.isfinite(line["q25"]) else ".") for line in lines.to_dict("records")]  # fmt: skip


def _coverage(table: pd.DataFrame, estimand: str) -> Any:
    from bayesens import plots

    lines = table[table["estimand"] == estimand]
    made, ax = figure(4.8, 4.2)
    observed = {str(model): part["coverage"].to_numpy() for model, part in lines.groupby("model", sort=False)}
    plots.coverage(np.sort(lines["level"].unique()), observed, ax=ax)
    return made


def _pit(rows: Any, names: list[str]) -> Any:
    from bayesens import plots

    made, axes = figure(2.2 * max(len(names), 2), 2.6, 1, len(names), sharey=True, squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        plots.pit(rows["pit"].sel(model=name).values, ax=ax)
        ax.set_xlabel("PIT")
        named(ax, name, legend=False)
    return made
