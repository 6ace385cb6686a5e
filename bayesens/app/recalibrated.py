"""Recalibration as commands and studies have it: what it changes at other stations, in a table and in words, and its maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.comparison.bootstrap import why_none
from bayesens.comparison.folds.held_out_rows import ROW
from bayesens.comparison.folds.news import unmarked
from bayesens.comparison.group_metrics import POOLED
from bayesens.comparison.recalibration import (
    AFTER,
    before_and_after,
    models_with_pits,
    recalibrate,
    recalibrated_rows,
)
from bayesens.comparison.tables import paired_differences
from bayesens.distributions.levels.recalibration import Recalibration
from bayesens.ensemble.ensemble import Ensemble

__all__ = ["Recalibrated", "check_recalibration", "recalibrated", "recalibration_words"]

LEAST = 3  # stations: each is recalibrated by the others, and a map needs two


@dataclass(frozen=True, eq=False)
class Recalibrated:
    """What recalibration does to models, and the maps that do it.

    Attributes
    ----------
    table : DataFrame
        That of `recalibration_table`, with the change of the CRPS [percent] and its 90 % interval: ``crps_change``, ``low``,
        ``high``, ``verdict``, ``interval``.
    maps : dict of model to Recalibration
        From all rows held out.
    """

    table: pd.DataFrame
    maps: dict[str, Recalibration]


def check_recalibration(rows: Ensemble, estimand: str) -> None:
    """Refuse, before anything is fitted, a table whose rows held out will not tell a map of levels."""
    role = "group" if estimand == "group" else "site"
    labels = rows.labels(role)
    if labels is None:
        if estimand == ROW:
            return
        raise ValueError(
            f"recalibration learns from some {role}s and is tried at others, and the table has no {role}: name the column: "
            f"{role}=..., or leave recalibration out"
        )
    if (number := len(set(labels[rows.observed].tolist()) - {""})) < LEAST:
        raise ValueError(
            f"recalibration learns from some {role}s and is tried at others, and {number} of them have observations; wanted "
            f"{LEAST} at least, and twenty before much changes: leave recalibration out"
        )


def recalibrated(
    rows: xr.Dataset, *, method: str, prior: float = 20.0, by: Sequence[str] = (), replicates: int = 2000,
    block: float | None = 30.0, random_seed: int | None = None,
) -> Recalibrated:  # fmt: skip
    """Recalibrate every model of rows held out that has a distribution.

    Parameters
    ----------
    rows : Dataset
        From `compare`.
    method, prior
        As in `recalibrate`.
    by : sequence of str
        Labels of the rows whose groups get lines of the table, too.
    replicates, block, random_seed
        As in `paired_differences`.
    """
    names = models_with_pits(rows)
    both = recalibrated_rows(rows, method=method, prior=prior, random_seed=random_seed)
    table = before_and_after(rows, both, by=by)
    changes = []
    for name in names:
        pair = both.sel(model=[name, name + AFTER])
        found = paired_differences(pair, name, by=by, replicates=replicates, block=block, random_seed=random_seed)
        changes.append(found[found["metric"] == "crps"].assign(model=name))
    kept = pd.concat(changes)[["model", "by", "group", "difference", "low", "high", "verdict", "interval"]]
    kept = kept.rename(columns={"difference": "crps_change"})
    made = table.merge(kept, on=["model", "by", "group"], how="left", validate="one_to_one")
    return Recalibrated(made, {name: recalibrate(rows, name, method=method, prior=prior) for name in names})


def recalibration_words(table: pd.DataFrame, model: str) -> str:
    """Say of one model what recalibration changes at other stations, and whether that is more than chance.

    Examples
    --------
    >>> line = {"model": "BMA", "estimand": "site", "by": "", "group": "all", "coverage90_before": 0.78, "coverage90_after": 0.88,
    ...         "width90_before": 0.2, "width90_after": 0.25, "crps_change": -2.1, "low": -3.0, "high": -1.2, "verdict": "better",
    ...         "interval": "station"}
    >>> print(recalibration_words(pd.DataFrame([line]), "BMA"))
    Recalibrated by other stations, the 90 % intervals of BMA hold 88.0 % of the observations in place of 78.0 %, their width
    changes by +25.0 %, and the CRPS by -2.1 % (90 % interval -3.0 to -1.2 %): it helps.
    """
    line: dict[Any, Any] = table[(table["model"] == model) & (table["group"] == POOLED)].iloc[0].to_dict()
    if line["crps_change"] == 0.0 and line["width90_after"] == line["width90_before"]:
        return f"{model} stays as it is: as far as these rows tell, its intervals hold what they promise."
    wider = 100.0 * (line["width90_after"] / line["width90_before"] - 1.0)
    others = {"group": "groups", ROW: "rows"}.get(line["estimand"], "stations")
    verdict = {
        "better": "it helps",
        "worse": "it hurts, so leave it out",
        "equivalent": "nothing for practical purposes, so leave it out",
        "not told apart": "not told apart from no change, so there is no reason to take it",
    }.get(unmarked(line["verdict"]), "")
    told = f"(90 % interval {line['low']:+.1f} to {line['high']:+.1f} %): {verdict}"
    if not (np.isfinite(line["low"]) and verdict):
        told = f"(no interval: {why_none(str(line['interval'])) or 'the replicates have no value'})"
    return (
        f"Recalibrated by other {others}, the 90 % intervals of {model} hold {100 * line['coverage90_after']:.1f} % of the "
        f"observations in place of {100 * line['coverage90_before']:.1f} %, their width changes by {wider:+.1f} %, and the CRPS "
        f"by {line['crps_change']:+.1f} % {told}."
    )
