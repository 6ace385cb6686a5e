"""Scores on rows held out: by estimand, against the reference, by group, and in the layout of a table of products."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bayesens.atomic import file_name
from bayesens.chapters.chapter import Chapter, Drawing, Remark, Sheet, figure
from bayesens.columns import listed
from bayesens.comparison import HeldOut
from bayesens.evaluation import paired_differences, product_table, score_table
from bayesens.fold_news import ALL_CONVERGED, without_convergence
from bayesens.resample import why_none
from bayesens.scored_rows import common_rows
from bayesens.splits import ESTIMANDS, ROW, hang_together
from bayesens.study_results import StudyResults

__all__ = ["all_differences", "all_scores", "drawn", "scores", "verdicts"]

# What the report shows, under which name, and whose size sets the number of decimals.
SHOWN = {
    "crps": ("CRPS", "crps"), "twcrps": ("CRPS 15-85 %", "crps"),
    "log_score": ("log score", "coverage90"), "rmse": ("RMSE", "rmse"), "bias": ("bias", "rmse"),
    "r": ("r", "coverage90"), "coverage90": ("coverage", "coverage90"), "width90": ("width", "width90"),
}  # fmt: skip
MOST_GROUPS = 12  # in a figure
EQUIVALENT = 1.0  # percent of CRPS: nobody would change a model for less


def options(results: StudyResults) -> dict[str, Any]:
    """How intervals are resampled."""
    asked = results.study.evaluation
    block = asked.block if results.study.data.time is not None else None
    return {"replicates": asked.replicates, "block": block, "random_seed": results.study.study.random_seed}


def all_scores(results: StudyResults) -> pd.DataFrame:
    """One line a model, estimand and group."""
    parts = [score_table(held.rows, by=results.data.by, **options(results)) for held in results.held.values()]
    return pd.concat(parts, ignore_index=True)


def all_differences(results: StudyResults) -> pd.DataFrame:
    """Every model against the reference, on the same rows."""
    if len(results.models) + len(results.data.products) < 2:
        return pd.DataFrame()
    parts = [paired_differences(held.rows, results.reference, by=results.data.by, **(options(results) | _enough(results)))
             for held in results.held.values()]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _enough(results: StudyResults) -> dict[str, int]:
    return {"replicates": max(results.study.evaluation.replicates, 1)}


def verdicts(results: StudyResults, differences: pd.DataFrame) -> list[str]:
    """Say, for each estimand, what the reference reaches and what the CRPS of the others against it tells, and no more."""
    lines = []
    for estimand, held in results.held.items():
        found = differences[(differences["estimand"] == estimand) & (differences["metric"] == "crps")
                            & (differences["group"] == "all")] if len(differences) else differences  # fmt: skip
        said = " ".join(_verdict(line) for line in found.to_dict("records"))
        lines.append(f"{ESTIMANDS[estimand].capitalize()}: {_reached(results, held)} {said}".strip())
    return lines


def _reached(results: StudyResults, held: HeldOut) -> str:
    one, rows = results.reference, held.rows.sel(model=results.reference)
    text = f"{one} has a mean CRPS of {float(rows['crps'].mean()):.3g} {results.units}".strip()
    if np.isnan(covered := float(rows["coverage90"].mean())):
        return f"{text}."
    return (f"{text}, and its 90 % intervals hold {100 * covered:.1f} % of {rows.sizes['obs']:,} observations that it had "
            "not seen.")  # fmt: skip


def _verdict(line: Mapping[Any, Any]) -> str:
    one, other, change = line["model"], line["reference"], line["difference"]
    unsure = line.get("not_converged", ALL_CONVERGED)
    doubt = "" if unsure == ALL_CONVERGED else f" Not converged: {unsure}."
    if not np.isfinite(line["low"]):
        why = why_none(str(line["interval"])) or "the replicates have no value"
        return (f"The CRPS of {one} differs from that of {other} by {change:+.1f} %, without an interval ({why}). These rows do "
                f"not say which of the two is better.{doubt}")  # fmt: skip
    head = (f"The CRPS of {one} is {abs(change):.1f} % {'lower' if change < 0 else 'higher'} than that of {other} "
            f"(90 % interval {line['low']:+.1f} to {line['high']:+.1f} %)")  # fmt: skip
    if line["low"] > -EQUIVALENT and line["high"] < EQUIVALENT:
        return f"{head}: for practical purposes the two are equal.{doubt}"
    if not line["clear"]:
        return f"{head}: these data do not tell the two apart.{doubt}"
    better = one if change < 0 else other
    return f"{head}: {better} is better here.{doubt}"


def scores(results: StudyResults, table: pd.DataFrame, differences: pd.DataFrame) -> Chapter:
    """Write the chapter.

    Parameters
    ----------
    results : StudyResults
    table, differences : DataFrame
        From `all_scores` and `all_differences`.

    Returns
    -------
    Chapter
    """
    first = next(iter(results.held.values())).rows
    parts: list[Any] = [
        "Every model was fitted without the rows that it is scored on, fold after fold, and all were scored on the same rows. "
        "CRPS, log score, RMSE and MAE are better the lower they are; coverage should be .90; of two models with that "
        f"coverage the one with the narrower intervals knows more. Intervals of 90 % come from resampling {drawn(results)}"
        + _by_groups(results),
        Sheet("scores", table, f"Scores on rows held out, all rows together{_in_units(results)}.", _note(results),
              shown=_pooled(table), digits=None, heads=2, highlight={"CRPS": "min", "log score": "min", "RMSE": "min"}),
    ]  # fmt: skip
    parts += [Remark(text, "caution") for text in (*_hanging(results), *_unsure(results))]
    if text := _unequal_effects(results):
        parts.append(Remark(text, "caution"))
    if len(differences):
        parts += [Sheet("differences", differences, "Differences from the reference.", shown=pd.DataFrame()),
                  _forest(results, differences)]  # fmt: skip
    if len(results.data.by):
        parts += [_by_group(results, table), *_group_figures(results, table)]
    parts += list(_products(results))
    if first.attrs["rows_dropped"]:
        parts.append(
            f"{first.attrs['rows_dropped']} observed rows are left out for all, because a model or product lacks them."
        )
    return Chapter("Scores", tuple(parts), "scores")


def _by_groups(results: StudyResults) -> str:
    """The end of the sentence on intervals: rows held out by group are drawn by group."""
    if "group" not in results.held:
        return "."
    return ("; where groups were held out, whole groups are resampled in place of stations, for the stations of a group share "
            "what is particular to it. Fewer than five groups give no interval.")  # fmt: skip


def drawn(results: StudyResults) -> str:
    """What intervals resample."""
    data = results.study.data
    said = [text for text, there in (("whole stations", data.site), ("blocks of time", data.time)) if there]
    return " and ".join(said) or "rows one by one, as if each were a case of its own"


def _hanging(results: StudyResults) -> Iterator[str]:
    """What scores of rows that were held out one by one do not show."""
    if ROW in results.held:
        members = results.held[ROW].members
        time = members.dataset["time"].values if "time" in members.dataset.coords else None
        yield hang_together(site=members.labels("site"), time=time, rows=members.n_observed)


def _unsure(results: StudyResults) -> Iterator[str]:
    """A sentence for each estimand in which fits have not converged."""
    for estimand, held in results.held.items():
        if found := without_convergence(held.rows):
            named = "; ".join(f"{name} in {text}" for name, text in found.items())
            yield (f"{ESTIMANDS[estimand].capitalize()}: fits have not converged ({named}). Their scores, and what is said of "
                   "differences from them, may change with fits that have.")  # fmt: skip


def _unequal_effects(results: StudyResults) -> str:
    """Warn where one model knows the sites and another does not: what differs then is not how members are combined."""
    if results.study.data.site is None:
        return ""
    known = [name for name in ("time", "site-time") if name in results.held]
    knows = {name: bool(getattr(results.models[name], "site", False) or type(results.models[name]).__name__ == "HBM")
             for name in results.models}  # fmt: skip
    if "time" not in known or len(set(knows.values())) < 2:
        return ""
    ones, others = ([name for name, has in knows.items() if has is wanted] for wanted in (True, False))
    return (f"At known sites {listed(ones)} has an effect of each site and {listed(others)} has not: what they differ by "
            "there is knowledge of the sites, not the way in which members are combined. Give BMA the same effects (site = "
            "true) before comparing the two.")  # fmt: skip


def _in_units(results: StudyResults) -> str:
    return f" [{results.units}]" if results.units else ""


def _note(results: StudyResults) -> str:
    folds = [
        f"{name}: {ESTIMANDS[name]}, {held.rows['fold'].values.max() + 1} folds" for name, held in results.held.items()
    ]
    return "; ".join(folds) + (". Brackets hold 90 % intervals. CRPS 15-85 % counts only the part of it between these quantiles "
                               "of the observations, whatever was observed.")  # fmt: skip


def _pooled(table: pd.DataFrame) -> pd.DataFrame:
    """Pooled lines, each number with its interval in brackets."""
    from bayesens.report_tables import with_interval

    lines = table.loc[table["group"] == "all"].rename(columns={"estimand": "held out"})
    ends = [f"{name}_{end}" for name in SHOWN for end in ("low", "high") if f"{name}_{end}" in lines]
    doubt = ["not_converged"] if (lines["not_converged"] != ALL_CONVERGED).any() else []
    shown = lines[["model", "held out", *SHOWN, *ends, *doubt]].reset_index(drop=True)
    for name, (_, like) in SHOWN.items():
        if f"{name}_low" in shown:
            shown = with_interval(shown, name, digits=_decimals(lines[like]))
    return shown.rename(columns={name: head for name, (head, _) in SHOWN.items()} | {"not_converged": "not converged"})


def _decimals(values: pd.Series) -> int:
    """As many as give the smallest value three digits."""
    size = values.abs()[values != 0].min()
    return int(np.clip(2 - np.floor(np.log10(size)), 0, 8)) if np.isfinite(size) else 2


def _forest(results: StudyResults, differences: pd.DataFrame) -> Drawing:
    found = differences[(differences["metric"] == "crps") & (differences["group"] == "all")]

    def draw() -> Any:
        from bayesens import plots

        made, ax = figure(6.2, 1.2 + 0.32 * len(found))
        plots.differences(found, ax=ax)
        return made

    return Drawing(
        "differences", draw, f"CRPS of each model against {results.reference}, in percent with 90 % intervals; the band is "
        f"±{EQUIVALENT:.0f} %, within which nobody would change a model.",
        f"Forest of differences of CRPS from {results.reference}: {_said(found)}.",
    )  # fmt: skip


def _said(found: pd.DataFrame) -> str:
    return "; ".join(
        f"{line['model']} ({line['estimand']}) {line['difference']:+.1f} %" for line in found.to_dict("records")
    )


def _by_group(results: StudyResults, table: pd.DataFrame) -> Sheet:
    """CRPS of every group, a column for each model."""
    lines = table[(table["estimand"] == results.estimand) & (table["group"] != "all")]
    lines = lines.sort_values("group", key=lambda name: name == "macro", kind="stable")
    wide = lines.pivot_table(
        index=["by", "group", "n", "stations"], columns="model", values="crps", sort=False, dropna=False
    )
    order = [name for name in lines["model"].unique() if name in wide]
    shown = wide.dropna(how="all")[order].reset_index()
    shown.columns.name = None
    return Sheet("scores_by_group", lines, f"Mean CRPS by group ({ESTIMANDS[results.estimand]}).",
                 "Of many groups one comes first by chance alone.", shown=shown, digits=4, heads=4)  # fmt: skip


def _group_figures(results: StudyResults, table: pd.DataFrame) -> Iterator[Drawing]:
    lines = table[(table["estimand"] == results.estimand) & ~table["model"].isin(["Climatology"])]
    for by in results.data.by:
        n = lines.loc[lines["by"] == by, "group"].nunique()
        if 1 < n <= MOST_GROUPS:

            def draw(by: str = by, n: int = n) -> Any:
                from bayesens import plots

                made, ax = figure(6.2, 1.4 + 0.22 * (n + 1) * max(lines["model"].nunique() / 2, 1))
                plots.scores_by_group(lines, by=by, label="Mean CRPS", units=results.units, ax=ax)
                return made

            yield Drawing(f"crps_by_{file_name(by)}", draw, f"CRPS by {by}, with 90 % intervals where there are stations enough.",
                          f"Mean CRPS of the models by {by}.")  # fmt: skip


def _products(results: StudyResults) -> Iterator[Any]:
    """The layout of the table of products: networks down, products and bands across, members as they are among them."""
    asked = results.study.evaluation
    for estimand, held in results.held.items():
        rows = _with_members(results, held)
        with warnings.catch_warnings():  # of bands by observation the note below the table speaks
            warnings.filterwarnings("ignore", message="rows are selected by their observation", category=UserWarning)
            wide = product_table(rows, by="group" if results.study.data.group else None, bands=asked.bands,
                                 band_by=asked.band_by, **options(results))  # fmt: skip
        flat = wide.set_axis([" ".join(column) for column in wide.columns], axis=1).reset_index()
        suffix = "" if len(results.held) == 1 else f"_{estimand}"
        yield Sheet(
            f"products{suffix}", flat, f"Correlation, RMSE and MAE of members, products and models ({ESTIMANDS[estimand]}).",
            f"Only rows that all of them have; {rows.attrs['rows_dropped']} lack one. "
            + ("Bands by observation flatter forecasts that avoid extremes (the forecaster's dilemma): compare the "
               "threshold-weighted CRPS. " if asked.band_by == "observation" and set(asked.bands) != {"all"} else "")
            + "Intervals stand in the file.",
            shown=_estimates(wide), digits=3, heads=2,
        )  # fmt: skip


def _with_members(results: StudyResults, held: HeldOut) -> Any:
    """Models, members and products on the rows that all have."""
    observed = np.flatnonzero(held.members.observed)
    scored = {name: one.sel(obs=observed) for name, one in held.predictions.items()}
    taken = {*scored, *results.data.products}
    members = {(name if name not in taken else f"{name} (member)"): held.members.prediction[:, k]
               for k, name in enumerate(held.members.members)}  # fmt: skip
    with warnings.catch_warnings():  # the note below the table has their number
        warnings.filterwarnings("ignore", message=".* observed rows are left out for all", category=UserWarning)
        return common_rows(
            scored, held.members, estimand=held.rows.attrs["estimand"], products=members | results.data.products
        )


def _estimates(wide: pd.DataFrame) -> pd.DataFrame:
    keys = wide.columns.to_frame(index=False)
    kept = (keys["model"] == "number") | (keys["part"] == "estimate")
    shown = wide.loc[:, kept.to_numpy()].copy()
    heads = [(f"{band} {part}", "") if model == "number" else (model, band)
             for model, band, part in keys[kept].itertuples(index=False)]  # fmt: skip
    shown.columns = pd.MultiIndex.from_tuples(heads)
    return shown.reset_index()
