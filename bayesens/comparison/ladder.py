"""The ladder from equal weights to the hierarchical model: one change a rung, and what each is worth on rows held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import xarray as xr

from bayesens.comparison.bootstrap import why_none
from bayesens.comparison.folds.news import ALL_CONVERGED, unmarked
from bayesens.comparison.folds.runs import OnMembers
from bayesens.comparison.tables import paired_differences
from bayesens.members.day.chain import BESIDE, NAME
from bayesens.messages import check_known
from bayesens.models import BMA, HBM, IDR, EqualWeights, LinearPool

__all__ = ["EFFECTS", "EM_RUNG", "ladder", "ladder_effects", "ladder_words"]

EM_RUNG = "BMA by EM"  # no rung of `ladder`: a study asks for it, for the method is no part of a model

# What changes from one rung to another, and nothing else does.
EFFECTS = (
    (
        "kernel",
        "Isotonic regression",
        "Equal weights",
        "corrections and kernels, in place of a law of which nothing is assumed but that it rises with the members' mean",
    ),
    ("weights", "Equal weights", "BMA", "weights learnt from the data"),
    ("sigmas", "BMA", "BMA with own sigmas", "a kernel width for each member in place of one for all"),
    ("widths", "BMA", "BMA with widths", "kernel widths that follow predicted mean and spread"),
    ("effects", "BMA without effects", "BMA", "effects of group and site in each member's correction"),
    (
        "correction",
        "BMA without effects",
        "BMA fitted at once",
        "corrections, weights and kernels fitted at once, a mixture of regressions",
    ),
    (
        "mixture",
        "BMA",
        "Linear pool",
        "one kernel around a weighted mean, with a slope of its own, in place of a mixture of kernels",
    ),
    ("group weights", "BMA", "BMA with group weights", "weights that vary with the group, partially pooled"),
    (
        "weights by covariates",
        "BMA",
        "BMA with weights by covariates",
        "weights that follow covariates of each row: who is better where",
    ),
    ("joint", "Linear pool", "HBM independent", "members and observation jointly normal, errors independent"),
    ("levels", "HBM without levels", "HBM independent", "biases of every source by group and site"),
    ("dependence", "HBM independent", "HBM", "errors of members correlated"),
    ("HBM or BMA", "BMA", "HBM", "the fair comparison: both with group and site effects"),
    ("whole series", "HBM", "HBM on whole series", "a new site predicted from the members of all its days at once"),
    ("day", "BMA", "BMA of the day", "what other stations observed on the day, as one more member"),
    (
        "widths by the day",
        "BMA of the day",
        "BMA of the day with widths",
        "kernel widths that follow the neighbours' sd, too",
    ),
    ("members", "Neighbours alone", "BMA of the day with widths", "the members, where the day is known"),
    ("HBM of the day", "HBM", "HBM of the day", "what other stations observed on the day, as one more member"),
)

METHOD = ("method", "BMA", EM_RUNG, "the optimum in place of the posterior")  # where a study asks for it
WIDTH = BESIDE[0]
KEPT = ("difference", "low", "high", "unit", "clear", "p_better", "equivalent", "verdict", "interval", "not_converged")


def ladder(
    *, group: bool = True, site: bool = True, members: Sequence[str] = (), weight_covariates: Sequence[str] = (), **options: Any
) -> dict[str, Any]:  # fmt: skip
    """Return the rungs, as `compare` takes them.

    Parameters
    ----------
    group, site : bool
        Whether rungs with effects have those of groups and of sites; False where the table has no such labels. Without
        groups there is no rung with weights by group.
    members : sequence of str
        Names of all members. If ``neighbours`` is one of them there are rungs of the day, and no other is told of it.
    weight_covariates : sequence of str
        What the weights of one rung more follow, as in `BMA`: columns, lon or lat, "season", "mean" or "spread". Without any
        there is no such rung; a column that the table lacks is found by who fits it.
    **options
        Of every rung but isotonic regression, which has none, such as ``transform="sqrt"``.

    Returns
    -------
    dict of str to model

    Notes
    -----
    Kernels of BMA have one width for all members and rows but on rungs of their own: widths that differ make a mixture a
    distribution of other tails, which is another change than a mixture in place of one kernel. Rungs have effects of group and
    site, as HBM has its levels, but for those that say so by name.

    All rungs predict row by row, but for the last: "HBM on whole series" learns the offset of a new site from the members of
    all rows that are given of it, which no other rung may use, so that it is a rung of its own and no part of the
    comparison with BMA.

    Examples
    --------
    >>> list(ladder())[:5]
    ['Isotonic regression', 'Equal weights', 'BMA', 'BMA with own sigmas', 'BMA with widths']
    >>> ladder(weight_covariates=("bmi",))["BMA with weights by covariates"].weight_covariates
    ('bmi',)
    """
    effects: dict[str, Any] = {"group": group, "site": site} | options
    flat: dict[str, Any] = {"group": False, "site": False, "sigma": "shared"} | options
    plain: dict[str, Any] = {"sigma": "shared", "scale": ()} | effects
    rungs: dict[str, Any] = {
        "Isotonic regression": IDR(), "Equal weights": EqualWeights(**plain), "BMA": BMA(**plain),
        "BMA with own sigmas": BMA(scale=(), **effects), "BMA with widths": BMA(sigma="shared", **effects),
        "BMA without effects": BMA(scale=(), **flat), "BMA fitted at once": BMA(correction="joint", **flat),
        "Linear pool": LinearPool(scale=(), **effects),
    }  # fmt: skip
    if group:
        rungs["BMA with group weights"] = BMA(weights="group", **plain)
    if weight_covariates:
        followed = plain | {"weights": "covariates", "weight_covariates": weight_covariates}
        rungs["BMA with weights by covariates"] = BMA(**followed)
    rungs["HBM without levels"] = HBM(errors="independent", group=False, site=False, **options)
    rungs |= {"HBM independent": HBM(errors="independent", **effects), "HBM": HBM(**effects)}
    rungs |= {"HBM on whole series": HBM(series=True, **effects)} if site else {}
    return _of_the_day(rungs, members, effects | {"sigma": "shared"}) if NAME in members else rungs


def _of_the_day(rungs: dict[str, Any], members: Sequence[str], shared: dict[str, Any]) -> dict[str, Any]:
    """The rungs without neighbours, and some of them with."""
    others = tuple(one for one in members if one != NAME)
    if not others:
        raise ValueError(
            f"the ladder has rungs with and without {NAME}, and there is no other member; wanted two members or more"
        )
    alone = BMA(**shared | {"scale": ("mean", WIDTH)})
    return {name: OnMembers(model, others) for name, model in rungs.items()} | {
        "Neighbours alone": OnMembers(alone, (NAME,)), "BMA of the day": rungs["BMA"],
        "BMA of the day with widths": BMA(**shared | {"scale": ("mean", "spread", WIDTH)}), "HBM of the day": rungs["HBM"],
    }  # fmt: skip


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
        `paired_differences`; ``interval``, how it was made; ``not_converged``, folds of the two rungs that have not
        converged. Below zero the change helps, where lower scores are better.

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
    asked = [one for one in (*EFFECTS, METHOD) if {one[1], one[2]} <= set(there)]
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


def ladder_words(effects: pd.DataFrame) -> str:
    """Say which changes of the ladder matter, and how HBM and BMA compare when both have the same effects.

    Parameters
    ----------
    effects : DataFrame
        From `ladder_effects`.

    Returns
    -------
    str

    Examples
    --------
    >>> table = pd.DataFrame({"effect": ["HBM or BMA"], "before": ["BMA"], "after": ["HBM"], "unit": ["percent"],
    ...                       "difference": [2.0], "low": [-1.0], "high": [5.0], "verdict": ["not told apart"]})
    >>> print(ladder_words(table))
    With the same group and site effects, HBM against BMA: +2.0 % (-1.0 to +5.0): not told apart. No change of the ladder is told
    apart from none.
    """
    lines = effects.to_dict("records")
    fair = [line for line in lines if line["effect"] == "HBM or BMA"]
    said = [f"With the same group and site effects, HBM against BMA: {_said(line)}." for line in fair]
    without = [line for line in lines if unmarked(line["verdict"]).startswith("no interval")]
    clear = [line for line in lines if unmarked(line["verdict"]) in ("better", "worse")]
    for verdict, head in (("better", "What helps"), ("worse", "What hurts")):
        some = sorted(
            (line for line in clear if unmarked(line["verdict"]) == verdict), key=lambda line: -abs(line["difference"])
        )
        named = [
            f"{line['effect']} ({line['before']} to {line['after']}, {_said(line, verdict=False)})" for line in some
        ]
        said += [f"{head}, the largest first: {'; '.join(named)}."] if named else []
    rest = [line["effect"] for line in lines if line not in clear and line not in without]
    if not clear and rest:
        said.append("No change of the ladder is told apart from none." if not without else
                    f"Not told apart from no change: {', '.join(rest)}.")  # fmt: skip
    elif rest:
        said.append(f"Not told apart from no change, or of no importance: {', '.join(rest)}.")
    return " ".join([*said, *_without(without, len(lines)), *_unsure(lines)])


def _without(lines: list[dict[Any, Any]], of: int) -> list[str]:
    """Say why there are no intervals, and that nothing is known without them."""
    if not lines:
        return []
    why = why_none(str(lines[0].get("interval", ""))) or "some scores are not defined in the replicates"
    which = "" if len(lines) == of else f" of {', '.join(line['effect'] for line in lines)}"
    return [
        f"There is no interval{which} ({why}). These rows do not say whether a change of the ladder helps or hurts."
    ]


def _unsure(lines: list[dict[Any, Any]]) -> list[str]:
    """Name the rungs whose fits have not converged."""
    each = [part for line in lines for part in str(line.get("not_converged", ALL_CONVERGED)).split("; ")]
    each = [part for part in each if part != ALL_CONVERGED]
    if not each:
        return []
    return [
        f"Not converged: {'; '.join(dict.fromkeys(each))}. What is said of these rungs may change with fits that have."
    ]


def _said(line: dict[Any, Any], *, verdict: bool = True) -> str:
    unit = " %" if line["unit"] == "percent" else ""
    digits = ".1f" if unit else ".3f"
    text = f"{line['difference']:+{digits}}{unit}"
    if line["low"] == line["low"]:
        text += f" ({line['low']:+{digits}} to {line['high']:+{digits}})"
    if verdict:
        return f"{text}: {line['verdict']}"
    return f"{text}, not converged" if unmarked(line["verdict"]) != line["verdict"] else text
