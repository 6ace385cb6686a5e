"""Calibration: whether probabilities are frequencies on rows that no fit has seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bayesens.app.study.chapters.chapter import Chapter, Drawing, Sheet, figure, finding, named
from bayesens.app.study.results import StudyResults

__all__ = ["calibration", "levels_table"]

ACROSS = 3  # panels in a row of a figure


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
        f"If a model is calibrated, its 90 % intervals hold nine observations in ten, and its probability integral "
        f"transforms (PIT, "
        "the probability that it gave to values below the observation) are spread evenly. Here are the same rows as in all "
        f"chapters, {results.said_rows()}."
        + (" The quartiles of stations show how far this holds at one station." if sited else ""),
        *(finding(text) if (text := _words(table, results)) else []),
        Drawing("coverage", lambda: _coverage(table, results.estimand), "Share of observations inside central "
                                                                        "intervals, less the "
                "share that was promised: above zero intervals are wider than they need be, below zero too narrow.",
                "Observed minus nominal coverage, by model and level."),
        Drawing("pit", lambda: _pit(rows, names), "Probability integral transforms on rows held out: flat where calibrated, "
                "heaped at both ends where intervals are too narrow, in the middle where they are too wide. The band "
                "takes rows as independent" + (", and rows of one station are not." if sited else "."),
                f"Histograms of the PIT of {', '.join(names)}.", wide=True),
        Sheet("calibration", table if sited else table.drop(columns=["q25", "q75"]),
              "Coverage and mean width of central intervals on rows held out.", f"Of {results.said_rows()}."
              + (" q25 and q75 in the file: quartiles over stations of their own coverage." if sited else ""),
              shown=_shown(table, results.estimand, f"[{results.units}]" if results.units else ""),
              digits={"inside intervals of [%]": 1}, heads=1),
    ]  # fmt: skip
    return Chapter("Calibration", tuple(parts), "calibration")


def levels_table(results: StudyResults) -> pd.DataFrame:
    """Coverage and mean width by estimand, model and level, with quartiles over stations.

    Parameters
    ----------
    results : StudyResults

    Returns
    -------
    DataFrame
        ``model``, ``estimand``, ``level``, ``n`` rows, ``coverage``, ``q25``, ``q75`` (NaN without stations), ``width``.
    """
    lines = []
    for estimand, held in results.held.items():
        where = held.rows["obs"].values
        site = held.members.labels("site")
        for model in held.rows["model"].values[~held.rows["point"].values]:
            one = held.predictions[str(model)].sel(obs=where)
            for level in one["level"].values:
                inside = pd.Series(one["covered"].sel(level=level).values)
                by_site = pd.Series(dtype=float) if site is None else inside.groupby(site[where]).mean()
                lines.append({"model": str(model), "estimand": estimand, "level": float(level), "n": len(where),
                              "coverage": inside.mean(), "q25": by_site.quantile(0.25), "q75": by_site.quantile(0.75),
                              "width": float(one["width"].sel(level=level).mean())})  # fmt: skip
    return pd.DataFrame(lines)


def _shown(table: pd.DataFrame, estimand: str, units: str) -> pd.DataFrame:
    lines = table[table["estimand"] == estimand].assign(coverage=lambda t: 100 * t["coverage"])
    wide = lines.pivot(index="model", columns="level", values=["coverage", "width"]).loc[lines["model"].unique()]
    levels = [f"{100 * level:.0f} %" for level in wide.columns.get_level_values(1)]
    heads = {"coverage": "inside intervals of [%]", "width": f"mean width {units}".strip()}
    wide.columns = pd.MultiIndex.from_arrays([wide.columns.get_level_values(0).map(heads), levels])
    return wide.reset_index()


def _words(table: pd.DataFrame, results: StudyResults) -> str:
    """The model of the headline: over all rows, and at the middle half of stations."""
    one = results.headline or table["model"].iloc[0]
    lines = table[(table["estimand"] == results.estimand) & np.isclose(table["level"], 0.9) & (table["model"] == one)]
    return "".join(f"The 90 % intervals of {line['model']} hold {100 * line['coverage']:.1f} % of {line['n']:,} observations"
                   + (f", and {100 * line['q25']:.0f} to {100 * line['q75']:.0f} % at the middle half of stations."
                      if np.isfinite(line["q25"]) else ".")
                   for line in lines.to_dict("records"))  # fmt: skip


def _coverage(table: pd.DataFrame, estimand: str) -> Any:
    from bayesens import plots

    lines = table[table["estimand"] == estimand]
    made, ax = figure(5.6, 3.4)
    observed = {str(model): part["coverage"].to_numpy() for model, part in lines.groupby("model", sort=False)}
    plots.coverage(np.sort(lines["level"].unique()), observed, difference=True, ax=ax)
    return made


def _pit(rows: Any, names: list[str]) -> Any:
    from bayesens import plots

    down = -(-len(names) // ACROSS)
    across = -(-len(names) // down)
    made, axes = figure(2.5 * max(across, 2), 0.4 + 2.1 * down, down, across, sharex=True, sharey=True, squeeze=False)
    for k, (ax, name) in enumerate(zip(axes.flat, names, strict=False)):
        plots.pit(rows["pit"].sel(model=name).values, ax=ax)
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.set(xlabel="", ylabel="")
        named(ax, name, legend=False)
        ax.tick_params(labelbottom=k + across >= len(names))  # a column may end above the last row
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    made.supxlabel("PIT", fontsize=10)
    made.supylabel("Share of observations", fontsize=10)
    return made
