"""Scores on rows held out: by estimand, against the reference, by group, and in the layout of a table of products."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesens import plots
from bayesens.app.report.parts import Figure, Listing, Note, Section, Table
from bayesens.app.report.tables import with_interval
from bayesens.app.study.chapters.chapter import drawing, sheet, with_labels
from bayesens.app.study.results import StudyResults
from bayesens.app.study.verdicts import (
    INSIDE,
    crps_of_all,
    doubt,
    equal,
    interval,
    listed_plain,
    options,
    percent,
    why_no_interval,
)
from bayesens.comparison.common_rows import common_rows
from bayesens.comparison.compare import HeldOut
from bayesens.comparison.folds.held_out_rows import ESTIMANDS, ROW, hang_together
from bayesens.comparison.folds.news import ALL_CONVERGED, without_convergence
from bayesens.comparison.tables import paired_differences, product_table, score_table
from bayesens.members.spatial_folds.dealing import KINDS, fold_kind
from bayesens.messages import listed
from bayesens.models import Climatology
from bayesens.tables.atomic import file_name

__all__ = ["all_differences", "all_scores", "drawn", "scores", "verdicts"]

# What the report shows, under which name; the file has more.
SHOWN = {"crps": "CRPS", "log_score": "log score", "rmse": "RMSE", "bias": "bias", "r": "r", "coverage90": INSIDE,
         "width90": "width"}  # fmt: skip
WITH_INTERVAL = ("crps", "coverage90")  # with the intervals of all scores the table is too wide to read
MOST_GROUPS = 12  # in a figure


def all_scores(results: StudyResults) -> pd.DataFrame:
    """One line a model, estimand and group; models and products that lack rows come last, with the rows that they have."""
    parts = []
    for held in results.held.values():
        parts.append(score_table(held.rows, by=results.data.by, **options(results)))
        for name, rows in held.apart.items():
            parts.append(score_table(rows.sel(model=[name]), by=results.data.by, **options(results)))
    return pd.concat(parts, ignore_index=True)


def all_differences(results: StudyResults) -> pd.DataFrame:
    """Every model against the reference, on the rows that both have."""
    asked = options(results, least=1)
    parts = []
    for held in results.held.values():
        pairs = [held.rows] if held.rows.sizes["model"] > 1 else []
        pairs += [rows.sel(model=[results.reference, name]) for name, rows in held.apart.items()]
        parts += [paired_differences(rows, results.reference, by=results.data.by, **asked) for rows in pairs]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def verdicts(results: StudyResults, differences: pd.DataFrame) -> list[str]:
    """Say for each estimand what the CRPS of every model against the reference tells: one sentence a model."""
    lines = []
    for estimand in results.held:
        head = f"{ESTIMANDS[estimand].capitalize()}: " if len(results.held) > 1 else ""
        lines += [head + _verdict(results, line) for line in crps_of_all(differences, estimand).to_dict("records")]
    return lines


def _verdict(results: StudyResults, line: Mapping[Any, Any]) -> str:
    one, other, change = line["model"], line["reference"], line["difference"]
    rest = doubt(results, line)
    every = results.held[line["estimand"]].rows.sizes["obs"]
    rows = "" if line["n"] == every else f" in the {line['n']:,} rows that it has"
    if not np.isfinite(line["low"]):
        return (f"the CRPS of {one} differs from that of {other} by {percent(change)}{rows}, without an interval "
                f"({why_no_interval(line)}), so that these rows do not say which of the two is better{rest}.")  # fmt: skip
    head = (f"the CRPS of {one} is {abs(change):.1f} % {'lower' if change < 0 else 'higher'} than that of {other}{rows} "
            f"({interval(line)})")  # fmt: skip
    if equal(line):
        return f"{head}: for practical purposes the two are equal{rest}."
    if not line["clear"]:
        return f"{head}: these data do not tell the two apart{rest}."
    return f"{head}: {one if change < 0 else other} is better here{rest}."


def scores(results: StudyResults, table: pd.DataFrame, differences: pd.DataFrame) -> Section:
    """Scores on rows held out, from the tables of `all_scores` and `all_differences`."""
    parts: list[Any] = [
        f"All scores rest on one set of rows, {results.said_rows()}: those that have an observation and a member or more. Every "
        "model was fitted without the rows that it is scored on, fold after fold. CRPS, log score, RMSE and MAE are better the "
        "lower they are; 90 % intervals should hold 90 % of the observations; of two models whose intervals do, the one with the "
        f"narrower intervals knows more. Intervals of scores come from resampling {drawn(results)}" + _by_groups(results),
        sheet("scores", table, f"Scores on rows held out, all rows together{_in_units(results)}.", _note(results),
              shown=_pooled(results, table), digits=_digits(table), heads=1 if len(results.held) == 1 else 2,
              highlight={"CRPS": "min", "log score": "min", "RMSE": "min"}),
    ]  # fmt: skip
    if said := verdicts(results, differences):
        parts.append(Listing(tuple(text[0].upper() + text[1:] for text in said)))
    parts += _apart(results)
    cautions = (*_hanging(results), *_unsure(results), _unequal_effects(results), _unequal_methods(results))
    parts += [Note(text, "caution") for text in cautions if text]
    if len(differences):
        parts.append(sheet("differences", differences, "Differences from the reference.", shown=pd.DataFrame()))
    if len(results.data.by):
        parts += [*_by_group(results, table), *_group_figures(results, table)]
    parts += _products(results)
    return Section("Scores", tuple(parts), "scores")


def _apart(results: StudyResults) -> Iterator[Any]:
    """Models and products that lack rows, each with the reference on the same rows."""
    lines = []
    for estimand, held in results.held.items():
        for name, rows in held.apart.items():
            mean = rows["crps"].mean("obs")
            lines.append({"model": name, "held out": estimand, "rows": rows.sizes["obs"], "CRPS": float(mean.sel(model=name)),
                          f"CRPS of {results.reference} there": float(mean.sel(model=results.reference))})  # fmt: skip
    if lines:
        shown = pd.DataFrame(lines)
        names = listed_plain(list(dict.fromkeys(shown["model"])))
        yield (f"{names} {'lacks' if shown['model'].nunique() == 1 else 'lack'} some of these rows, and would have "
               "taken them from all others: each is compared with the reference on the rows that it has, and stands in no other "
               "chapter.")  # fmt: skip
        yield sheet("fewer_rows", shown, f"Models and products that lack rows{_in_units(results)}.")


def _unequal_methods(results: StudyResults) -> str:
    """Warn where models were fitted by different methods: what differs then is not the model alone."""
    methods = {name: method for name, method in results.study.methods.items() if name in results.fits}
    em, drawn = ([name for name, method in methods.items() if (method == "em") is wanted] for wanted in (True, False))
    if not em or not drawn:
        return ""
    return (f"{listed_plain(em)} {'was' if len(em) == 1 else 'were'} fitted by EM and {listed_plain(drawn)} by "
            f"{'its' if len(drawn) == 1 else 'their'} posterior: a difference between the two kinds is one of the method, too; "
            "leave out method in the study file to fit all alike.")  # fmt: skip


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
    # None is as much as the table has, and it has sites. Baselines are what they are.
    models = {name: model for name, model in results.models.items() if not model.baseline}
    knows = {name: getattr(model, "site", False) is not False for name, model in models.items()}
    if "time" not in results.held or len(set(knows.values())) < 2:
        return ""
    ones, others = ([name for name, has in knows.items() if has is wanted] for wanted in (True, False))
    same = [name for name in others if hasattr(results.models[name], "site")]
    advice = f" Give {listed(same)} the same effects (site = true) before comparing them." if same else ""
    return (f"Effects of each site are in {listed(ones)} and not in {listed(others)}: what they differ by at known sites is "
            f"knowledge of the sites, not the way in which members are combined.{advice}")  # fmt: skip


def _in_units(results: StudyResults) -> str:
    return f" [{results.units}]" if results.units else ""


def _note(results: StudyResults) -> str:
    count = {name: held.rows["fold"].values.max() + 1 for name, held in results.held.items()}
    folds = "; ".join(f"{name}: {ESTIMANDS[name]}, {n} folds{_by_place(results, name)}" for name, n in count.items())
    return f"{folds}. Brackets hold 90 % intervals. The file has more scores, among them the threshold-weighted CRPS (twcrps)."


def _by_place(results: StudyResults, estimand: str) -> str:
    """What the places of sites have to do with the folds of an estimand."""
    asked, units = (
        results.study.evaluation,
        "km" if results.study.evaluation.places is None else "units of the coordinates",
    )
    kind = fold_kind(asked.folds)[0] if estimand in ("site", "site-time") else ""
    parts = [KINDS[kind]] if kind else []
    if asked.buffer is not None and estimand in ("site", "site-time", "group"):
        parts.append(f"nothing learnt within {asked.buffer:g} {units} of a site held out")
    return f" ({', '.join(parts)})" if parts else ""


def _pooled(results: StudyResults, table: pd.DataFrame) -> pd.DataFrame:
    """Pooled lines of the common rows, each number with its interval in brackets."""
    apart = [(name, estimand) for estimand, held in results.held.items() for name in held.apart]
    lines = table.loc[table["group"] == "all"].rename(columns={"estimand": "held out", "n": "rows"})
    lines = lines[[pair not in apart for pair in zip(lines["model"], lines["held out"], strict=True)]]
    for name in ("coverage90", "coverage90_low", "coverage90_high"):
        if name in lines:
            lines[name] = 100 * lines[name].clip(upper=1.0)
    digits = {"crps": _decimals(lines["crps"]), "coverage90": 1}
    for name in WITH_INTERVAL:
        if f"{name}_low" in lines:
            lines = with_interval(lines, name, digits=digits[name])
    doubt = ["not_converged"] if (lines["not_converged"] != ALL_CONVERGED).any() else []
    first = ["model"] + (["held out"] if len(results.held) > 1 else [])
    shown = lines[[*first, "rows", *SHOWN, *doubt]].reset_index(drop=True)
    return shown.rename(columns=SHOWN | {"not_converged": "not converged"})


def _digits(table: pd.DataFrame) -> dict[str, int]:
    """Decimals of columns whose own size says nothing of their precision."""
    lines = table[table["group"] == "all"]
    size = _decimals(lines["rmse"])
    return {"CRPS": _decimals(lines["crps"]), "RMSE": size, "bias": size, "log score": 2, "r": 2, INSIDE: 1}


def _decimals(values: pd.Series) -> int:
    """As many as give the smallest value three digits."""
    size = values.abs()[values != 0].min()
    return int(np.clip(2 - np.floor(np.log10(size)), 0, 8)) if np.isfinite(size) else 2


def _by_group(results: StudyResults, table: pd.DataFrame) -> Iterator[Table]:
    """CRPS of every group, a column for each model, one table a label."""
    apart = list(results.held[results.estimand].apart)
    lines = table[(table["estimand"] == results.estimand) & (table["group"] != "all") & ~table["model"].isin(apart)]
    for by in results.data.by:
        mine = lines[lines["by"] == by]
        order = list(dict.fromkeys(mine["group"]))
        keys = ["group", "n", "stations"]
        wide = mine.pivot_table(index=keys, columns="model", values="crps", sort=False, dropna=False)
        wide = with_labels(wide.dropna(how="all")[list(dict.fromkeys(mine["model"]))], "model")
        wide = wide.sort_values("group", key=lambda name: name.map(order.index), kind="stable", ignore_index=True)
        wide = wide if results.study.data.site else wide.drop(columns="stations")
        yield sheet(f"scores_by_{file_name(by)}", mine, f"Mean CRPS by {by}{_in_units(results)} ({ESTIMANDS[results.estimand]}).",
                    "Of many groups one comes first by chance alone; macro is the mean over groups.",
                    shown=wide.rename(columns={"group": by, "n": "rows"}), heads=3)  # fmt: skip


def _group_figures(results: StudyResults, table: pd.DataFrame) -> Iterator[Figure]:
    lines = table[(table["estimand"] == results.estimand) & ~table["model"].isin(_left_out(results))]
    for by in results.data.by:
        n = lines.loc[lines["by"] == by, "group"].nunique()
        if 1 < n <= MOST_GROUPS:
            of = " (in brackets: stations)" if results.study.data.site else ""
            without = ", without climatology" if results.of_kind(Climatology) else ""
            draw = partial(plots.scores_by_group, lines, by=by, label="Mean CRPS", units=results.units)
            size = 6.2, 1.4 + 0.22 * (n + 1) * max(lines["model"].nunique() / 2, 1)
            yield drawing(f"crps_by_{file_name(by)}", draw, f"CRPS by {by}{of}, with 90 % intervals where there are clusters of "
                          f"rows enough{without}.", f"Mean CRPS of the models by {by}.", size=size)  # fmt: skip


def _left_out(results: StudyResults) -> list[str]:
    """What figures of scores leave out: climatology, beside which all others look alike, and what stands apart."""
    return [*results.of_kind(Climatology), *results.held[results.estimand].apart]


def _products(results: StudyResults) -> Iterator[Any]:
    """The layout of the table of products: networks down, products and bands across, members as they are among them."""
    asked = results.study.evaluation
    for estimand, held in results.held.items():
        how: dict[str, Any] = {"by": "group" if results.study.data.group else None, "bands": asked.bands,
                               "band_by": asked.band_by, **options(results)}  # fmt: skip
        with warnings.catch_warnings():  # of bands by observation the note below the table speaks
            warnings.filterwarnings("ignore", message="rows are selected by their observation", category=UserWarning)
            wide = pd.concat([_product_part(rows, how) for rows in _with_members(results, held, asked.band_by)], axis=1)
        wide = wide.loc[:, ~wide.columns.duplicated()]
        flat = wide.set_axis([" ".join(column) for column in wide.columns], axis=1).reset_index()
        suffix = "" if len(results.held) == 1 else f"_{estimand}"
        yield sheet(
            f"products{suffix}", flat, f"Correlation, RMSE and MAE of members, products and models ({ESTIMANDS[estimand]}).",
            f"Of {results.said_rows(estimand)}; what has a number of rows beside its name lacks the others. "
            + ("Bands by observation flatter forecasts that avoid extremes (the forecaster's dilemma): compare the "
               "threshold-weighted CRPS. " if asked.band_by == "observation" and set(asked.bands) != {"all"} else "")
            + "Intervals stand in the file.",
            shown=_estimates(wide), digits=3, heads=2,
        )  # fmt: skip


def _product_part(rows: Any, how: Mapping[str, Any]) -> pd.DataFrame:
    """Columns of what stands on the same rows; of what has fewer, with the number of rows in the name."""
    made = product_table(rows, **how)
    if not rows.attrs["fewer"]:
        return made
    made = made.loc[:, made.columns.get_level_values(0) == rows.attrs["fewer"]]
    return made.rename(columns=lambda name: f"{name} (n = {rows.sizes['obs']:,})", level=0)


def _with_members(results: StudyResults, held: HeldOut, band_by: str) -> Iterator[Any]:
    """Rows of models, members and products that have all rows of the report; then one each of those that have fewer."""
    where = held.rows["obs"].values
    scored = {name: one.sel(obs=where) for name, one in held.predictions.items() if name not in held.apart}
    taken = {*held.predictions, *results.data.products}
    points = {(name if name not in taken else f"{name} (member)"): held.members.prediction[:, k]
              for k, name in enumerate(held.members.members)} | dict(results.data.products)  # fmt: skip
    inside = np.isin(np.arange(len(held.members)), where)
    points = {name: np.where(inside, np.asarray(values, dtype=np.float64), np.nan) for name, values in points.items()}
    fewer = {name for name, values in points.items() if np.isnan(values[where]).any()}
    whole = {name: values for name, values in points.items() if name not in fewer}
    with warnings.catch_warnings():  # the table has the numbers of rows
        warnings.filterwarnings("ignore", message=".* observed rows are left out for all", category=UserWarning)
        some = partial(common_rows, ensemble=held.members, estimand=held.rows.attrs["estimand"])
        yield some(scored, products=whole).assign_attrs(fewer="")
        for name in points:
            if name in fewer and np.isfinite(points[name]).any():
                makes_bands = {band_by: scored[band_by]} if band_by in scored else {}
                yield some(makes_bands, products={name: points[name]}).assign_attrs(fewer=name)


def _estimates(wide: pd.DataFrame) -> pd.DataFrame:
    keys = wide.columns.to_frame(index=False)
    kept = (keys["model"] == "number") | (keys["part"] == "estimate")
    shown = wide.loc[:, kept.to_numpy()].copy()
    heads = [(f"{band} {part}", "") if model == "number" else (model, band)
             for model, band, part in keys[kept].itertuples(index=False)]  # fmt: skip
    shown.columns = pd.MultiIndex.from_tuples(heads)
    return shown.reset_index()
