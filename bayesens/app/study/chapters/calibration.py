"""Calibration: whether probabilities are frequencies on rows that no fit has seen, and what recalibration would change."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesens import plots
from bayesens.app.recalibrated import recalibration_words
from bayesens.app.report.parts import Listing, Section
from bayesens.app.report.tables import with_interval
from bayesens.app.study.chapters.chapter import drawing, finding, panels, sheet
from bayesens.app.study.results import StudyResults
from bayesens.comparison.folds.held_out_rows import ESTIMANDS
from bayesens.comparison.group_metrics import POOLED
from bayesens.tables.atomic import file_name

__all__ = ["calibration", "levels_table", "recalibration"]


def calibration(results: StudyResults) -> Section:
    """Coverage of central intervals, and probability integral transforms."""
    table, rows = levels_table(results), results.held[results.estimand].rows
    names = [name for name in results.models if name in rows["model"].values]
    sited = results.study.data.site is not None
    own = table[table["estimand"] == results.estimand]
    share = {str(model): part["coverage"].to_numpy() for model, part in own.groupby("model", sort=False)}
    parts: list[Any] = [
        "If a model is calibrated, its 90 % intervals hold nine observations in ten, and its probability integral "
        "transforms (PIT, the probability that it gave to values below the observation) are spread evenly. Here are the same "
        f"rows as in all chapters, {results.said_rows()}."
        + (" The quartiles of stations show how far this holds at one station." if sited else ""),
        *(finding(text) if (text := _words(own, results)) else []),
        drawing("coverage", partial(plots.coverage, np.sort(own["level"].unique()), share, difference=True),
                "Share of observations inside central intervals, less the share that was promised: above zero intervals are "
                "wider than they need be, below zero too narrow.",
                "Observed minus nominal coverage, by model and level.", size=(5.6, 3.4)),
        drawing("pit", partial(_pit, rows, names), "Probability integral transforms on rows held out: flat where calibrated, "
                "heaped at both ends where intervals are too narrow, in the middle where they are too wide. The band "
                "takes rows as independent" + (", and rows of one station are not." if sited else "."),
                f"Histograms of the PIT of {', '.join(names)}.", wide=True),
        sheet("calibration", table if sited else table.drop(columns=["q25", "q75"]),
              "Coverage and mean width of central intervals on rows held out.", f"Of {results.said_rows()}."
              + (" q25 and q75 in the file: quartiles over stations of their own coverage." if sited else ""),
              shown=_shown(own, f"[{results.units}]" if results.units else ""), digits={"inside intervals of [%]": 1}),
    ]  # fmt: skip
    return Section("Calibration", tuple(parts), "calibration")


def recalibration(results: StudyResults) -> Section:
    """What maps of levels change at stations that they were not made from: a table of all models, and the maps as files."""
    asked = results.study.recalibration
    assert asked is not None
    found = results.recalibrated[results.estimand]
    whole = pd.concat([one.table for one in results.recalibrated.values()], ignore_index=True)
    name = results.headline if results.headline in found.maps else next(iter(found.maps))
    others = {"group": "groups", "row": "rows"}.get(results.estimand, "stations")
    rest = [one for one in found.maps if one != name]
    kept = f"fits/{file_name(name)}.json"
    digits: dict[Any, int | str] = {"inside 90 % [%]": 1, _width(results.units): "#.3g"}
    parts: list[Any] = [
        "A map of levels makes intervals hold what they promise on the rows that it was made from: it moves every level to "
        f"where observations have been ({asked.method}). What it is worth shows at other {others}, so the rows of each fold of "
        f"{others} are scored under the map of the others. The files beside the fits, such as {kept}, hold the maps of "
        f"all rows held out ({ESTIMANDS[results.estimand]}); bayesens predict takes them: --recalibration. Predictions, scores "
        "and maps elsewhere in this report are not recalibrated.",
        *finding(recalibration_words(found.table, name)),
        *([Listing(tuple(recalibration_words(found.table, one) for one in rest))] if rest else []),
        sheet("recalibration", whole, f"Intervals and CRPS before and after recalibration by other {others}.",
              f"Of {results.said_rows()}. The file has groups, too. Brackets hold 90 % intervals.",
              shown=_before_and_after(found.table, results.units), digits=digits, heads=1),
    ]  # fmt: skip
    return Section("Recalibration", tuple(parts), "recalibration")


def _width(units: str) -> str:
    return f"width of 90 % [{units}]" if units else "width of 90 %"


def _before_and_after(table: pd.DataFrame, units: str) -> pd.DataFrame:
    """One line a model, over all rows."""
    lines = table[table["group"] == POOLED].reset_index(drop=True)
    lines = with_interval(
        lines.rename(columns={"low": "crps_change_low", "high": "crps_change_high"}), "crps_change", digits=1
    )
    width = _width(units)
    columns = {
        ("model", ""): lines["model"],
        ("inside 90 % [%]", "before"): 100 * lines["coverage90_before"],
        ("inside 90 % [%]", "after"): 100 * lines["coverage90_after"],
        (width, "before"): lines["width90_before"],
        (width, "after"): lines["width90_after"],
        ("change of the CRPS [%]", ""): lines["crps_change"],
        ("verdict", ""): lines["verdict"],
    }
    return pd.DataFrame(columns)


def levels_table(results: StudyResults) -> pd.DataFrame:
    """Coverage and mean width by model, estimand and level, with quartiles over stations (NaN without)."""
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


def _shown(table: pd.DataFrame, units: str) -> pd.DataFrame:
    lines = table.assign(coverage=100 * table["coverage"])
    wide = lines.pivot(index="model", columns="level", values=["coverage", "width"]).loc[lines["model"].unique()]
    levels = [f"{100 * level:.0f} %" for level in wide.columns.get_level_values(1)]
    heads = {"coverage": "inside intervals of [%]", "width": f"mean width {units}".strip()}
    wide.columns = pd.MultiIndex.from_arrays([wide.columns.get_level_values(0).map(heads), levels])
    return wide.reset_index()


def _words(table: pd.DataFrame, results: StudyResults) -> str:
    """The model of the headline: over all rows, and at the middle half of stations."""
    one = results.headline or table["model"].iloc[0]
    said = []
    for line in table[np.isclose(table["level"], 0.9) & (table["model"] == one)].to_dict("records"):
        text = f"The 90 % intervals of {one} hold {100 * line['coverage']:.1f} % of {line['n']:,} observations"
        half = f", and {100 * line['q25']:.0f} to {100 * line['q75']:.0f} % at the middle half of stations"
        said.append(text + (half if np.isfinite(line["q25"]) else "") + ".")
    return "".join(said)


def _pit(rows: Any, names: list[str]) -> Any:
    def draw(name: str, ax: Any) -> None:
        plots.pit(rows["pit"].sel(model=name).values, ax=ax)
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.set_xlabel("PIT")

    return panels(names, draw, 2.5, 2.1, 0.4)
