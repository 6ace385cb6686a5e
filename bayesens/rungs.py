"""The ladder from equal weights to the hierarchical model: one change a rung, and what each is worth on rows held out."""

from __future__ import annotations

from typing import Any

import pandas as pd
import xarray as xr

from bayesens.checks import check_known
from bayesens.evaluation import paired_differences
from bayesens.models import BMA, HBM, EqualWeights, LinearPool

__all__ = ["EFFECTS", "ladder", "ladder_effects"]

# What changes from one rung to another, and nothing else does.
EFFECTS = (
    ("weights", "Equal weights", "BMA", "weights and widths learnt from the data"),
    ("mixture", "BMA", "Linear pool", "one kernel around a weighted mean in place of a mixture of kernels"),
    ("effects", "BMA", "BMA with effects", "group and site effects in the kernels' means"),
    ("joint", "Linear pool", "HBM without levels", "members and observation jointly normal, errors independent"),
    ("levels", "HBM without levels", "HBM independent", "biases of every source by group and site"),
    ("dependence", "HBM independent", "HBM", "errors of members correlated"),
    ("HBM or BMA", "BMA with effects", "HBM", "the fair comparison: both with group and site effects"),
)  # fmt: skip

KEPT = ("difference", "low", "high", "unit", "clear", "p_better", "equivalent", "verdict", "interval")


def ladder(*, group: bool = True, site: bool = True) -> dict[str, Any]:
    """Return the rungs, as `compare` takes them.

    Parameters
    ----------
    group, site : bool
        Whether rungs with effects have those of groups and of sites; False where the table has no such labels.

    Returns
    -------
    dict of str to model

    Examples
    --------
    >>> list(ladder())
    ['Equal weights', 'BMA', 'Linear pool', 'BMA with effects', 'HBM without levels', 'HBM independent', 'HBM']
    """
    return {
        "Equal weights": EqualWeights(),
        "BMA": BMA(),
        "Linear pool": LinearPool(),
        "BMA with effects": BMA(group=group, site=site),
        "HBM without levels": HBM(errors="independent", group=False, site=False),
        "HBM independent": HBM(errors="independent", group=group, site=site),
        "HBM": HBM(group=group, site=site),
    }


def ladder_effects(
    rows: xr.Dataset,
    *,
    metric: str = "crps",
    replicates: int = 2000,
    block: float | None = 30.0,
    level: float = 0.9,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """What each change of the ladder does to a score, with its interval.

    Parameters
    ----------
    rows : Dataset
        From `compare` of the models of `ladder`; effects between rungs that it lacks are left out.
    metric : str
        A column of `score_table`.
    replicates, block, level, random_seed
        As in `paired_differences`.

    Returns
    -------
    DataFrame
        One line an effect: ``effect``, ``change`` in words, ``before`` and ``after``, the rungs; ``difference`` of the second
        from the first, ``low``, ``high``, ``unit``; ``clear``, ``p_better``, ``equivalent`` and ``verdict`` as in
        `paired_differences`; ``interval``, how it was made. Below zero the change helps, where lower scores are better.

    Raises
    ------
    KeyError, ValueError
        No two rungs that an effect is between, or as `paired_differences`.

    Notes
    -----
    Effects are no shares of a whole: what a change is worth depends on the rung that it is made from.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesens import Ensemble, common_rows
    >>> frame = pd.DataFrame({"a": [1.0, 2.0], "b": [1.5, 2.5], "y": [1.5, 2.0], "site": ["s", "t"]})
    >>> ensemble = Ensemble.from_frame(frame, members=["a"], observation="y", site="site")
    >>> rungs = {"Equal weights": frame["a"], "BMA": frame["b"]}
    >>> rows = common_rows({}, ensemble, estimand="site", products=rungs)
    >>> ladder_effects(rows, replicates=10)[["effect", "difference"]].values.tolist()
    [['weights', 0.0]]
    """
    there = [str(name) for name in rows["model"].values]
    asked = [one for one in EFFECTS if {one[1], one[2]} <= set(there)]
    if not asked:
        check_known(["Equal weights", "BMA"], there, kind="rung", where="the rows")
    options: dict[str, Any] = {"replicates": replicates, "block": block, "level": level, "random_seed": random_seed}
    lines = []
    for effect, before, after, change in asked:
        found = paired_differences(rows.sel(model=[before, after]), before, **options)
        line = found[found["metric"] == metric]
        if not len(line):
            check_known([metric], found["metric"].unique(), kind="metric", where="the differences")
        kept = line.iloc[0][list(KEPT)].to_dict()
        lines.append({"effect": effect, "change": change, "before": before, "after": after} | kept)
    return pd.DataFrame(lines)
