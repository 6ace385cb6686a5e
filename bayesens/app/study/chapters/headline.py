"""The first page of the report: who is best, what combining gains, which model, and whether intervals can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bayesens import plots
from bayesens.app.recalibrated import check_recalibration
from bayesens.app.report.parts import Figure, Table
from bayesens.app.report.tables import with_interval
from bayesens.app.study.chapters.chapter import drawing, sheet
from bayesens.app.study.results import StudyResults
from bayesens.app.study.verdicts import (
    EQUIVALENT,
    INSIDE,
    by_method,
    crps_of_all,
    doubt,
    equal,
    interval,
    listed_plain,
    mean_score,
    options,
    percent,
    spelled,
    why_no_interval,
)
from bayesens.comparison.folds.held_out_rows import ESTIMANDS
from bayesens.comparison.tables import paired_differences
from bayesens.models import Climatology, EqualWeights, SingleMember

__all__ = ["Headline", "headline"]

ERROR = "CRPS (continuous ranked probability score, the error of a whole predictive distribution: lower is better)"
LABELS = ("Best member", "Combining", "Which model", "Intervals")
FAR = 4.0  # times the largest difference of a model beyond which a product is not drawn
NEAR = (0.84, 0.96)  # coverage of 90 % intervals that may be trusted


@dataclass(frozen=True, eq=False)
class Headline:
    """The first page.

    Attributes
    ----------
    findings : list of str
        One sentence each.
    labels : list of str
        What each of them answers.
    parts : tuple
        A figure, a table and what is not told apart.
    """

    findings: list[str]
    labels: list[str]
    parts: tuple[Any, ...]


def headline(results: StudyResults, table: pd.DataFrame, differences: pd.DataFrame) -> Headline:
    """The first page, from the tables of `all_scores` and `all_differences`."""
    said, parts = _findings(results, table, differences), _parts(results, table, differences)
    return Headline([text for _, text in said], [label for label, _ in said], tuple(parts))


def _findings(results: StudyResults, table: pd.DataFrame, differences: pd.DataFrame) -> list[tuple[str, str]]:
    """Four sentences on the first estimand, and two on each of the others."""
    findings: list[tuple[str, str]] = []
    for estimand in results.held:
        pooled = table[(table["estimand"] == estimand) & (table["group"] == "all")].set_index("model")
        gain, trust = _gain(results, _gains(results, estimand)), _trust(results, pooled)
        if estimand == results.estimand:
            which = _which(results, differences, estimand)
            findings += zip(LABELS, (_best(results, estimand, pooled), gain, which, trust), strict=True)
        else:
            words = ESTIMANDS[estimand]
            head = f"{'For' if words.startswith('sites') else 'At'} {words}: "
            findings += [(label, f"{head}{text[0].lower()}{text[1:]}" if text else "")
                         for label, text in ((LABELS[1], gain), (LABELS[3], trust))]  # fmt: skip
    return [(label, text) for label, text in findings if text]


# ------------------------------------------------------------------------------------------------------- the four answers
def _best(results: StudyResults, estimand: str, pooled: pd.DataFrame) -> str:
    """Which member is the best alone."""
    single = _single(results, estimand)
    if single is None:
        return _best_as_it_is(results, estimand)
    held = results.held[estimand]
    used = pd.Series(held.predictions[single]["used_member"].sel(obs=held.rows["obs"].values).values).value_counts()
    share = 100 * used.iloc[0] / used.sum()
    rest = f" (in {share:.0f} % of the rows; {listed_plain(list(used.index[1:]))} in the rest)" if len(used) > 1 else ""
    score = mean_score(float(_line(pooled, single)["crps"]), results.units)
    return (
        f"The best single member, bias-corrected, is {used.index[0]}{rest}, with a mean {ERROR} of {score} at "
        f"{ESTIMANDS[estimand]}."
    )


def _single(results: StudyResults, estimand: str) -> str | None:
    """The best member of the training rows, as a model of the study."""
    held = results.held[estimand]
    there = [name for name in results.of_kind(SingleMember) if name in held.rows["model"].values]
    return next((name for name in there if "used_member" in held.predictions[name]), None)


def _best_as_it_is(results: StudyResults, estimand: str) -> str:
    rows = results.held[estimand].rows
    wrong = np.abs(rows["member_prediction"].values - rows["observation"].values[:, None])
    there = np.isfinite(wrong).all(axis=1)
    if not there.any():
        return ""
    mean, names = wrong[there].mean(axis=0), rows["member"].values
    best, score = int(mean.argmin()), mean_score(float(mean.min()), results.units)
    return f"The best single member, as it is, is {names[best]}, with a mean absolute error of {score} in {there.sum():,} rows."


def _gains(results: StudyResults, estimand: str) -> pd.DataFrame:
    """CRPS of the models against that of the best member, from the same replicates."""
    single, model = _single(results, estimand), results.headline
    rows = results.held[estimand].rows
    if single is None or model is None:
        return pd.DataFrame()
    names = [name for name in (single, model, *_rivals(results)) if name in rows["model"].values]
    found = paired_differences(rows.sel(model=names), single, **options(results, least=1))
    return found[(found["metric"] == "crps") & (found["group"] == "all")].set_index("model", drop=False)


def _line(table: pd.DataFrame, model: str) -> dict[str, Any]:
    """The line of a model, of a table with one line a model."""
    return {str(name): value for name, value in table.loc[[model]].iloc[0].items()}


def _gain(results: StudyResults, gains: pd.DataFrame) -> str:
    """What combining is worth, and how sure that is."""
    model = results.headline
    if model is None:
        return ""
    if model not in gains.index:
        return (
            "What combining gains over the best single member this study does not say, for it has no such model: add one of "
            'kind "single" to the study file.'
        )
    line = _line(gains, model)
    first = line["estimand"] == results.estimand  # letters are spelled out where they first stand
    head = f"Combining the members by {spelled(results, model) if first else model}"
    rest = doubt(results, line) + _also(results, gains)
    if line["clear"] and not equal(line):
        return f"{head} {_moved(line)}{rest}."
    head += f" changes the CRPS of the best member by {percent(line['difference'])}"
    if not np.isfinite(line["low"]):
        return f"{head}, without an interval ({why_no_interval(line)}), so that nobody can say whether it helps{rest}."
    if equal(line):
        return f"{head} ({interval(line)}), which is nothing for practical purposes{rest}."
    return f"{head} ({interval(line)}), so that these rows do not tell whether it helps{rest}."


def _moved(line: Mapping[Any, Any]) -> str:
    """A change whose interval leaves out zero."""
    verb = "lowers" if line["difference"] < 0 else "raises"
    return f"{verb} the CRPS of the best member by {abs(line['difference']):.1f} % ({interval(line, size=True)})"


def _also(results: StudyResults, gains: pd.DataFrame) -> str:
    """What the other model of the table gains, where that is clear."""
    lines = [_line(gains, name) for name in _rivals(results) if name in gains.index and name in results.combining]
    return "".join(f"; {line['model']} {_moved(line)}" for line in lines if line["clear"] and not equal(line))


def _which(results: StudyResults, differences: pd.DataFrame, estimand: str) -> str:
    """Which of the other models differ from the one of the headline."""
    one, single = results.headline, _single(results, estimand)
    found = crps_of_all(differences, estimand)
    if one is None or one != results.reference or not len(found):
        return ""
    found = found[[name in results.models and name != single and name not in results.of_kind(Climatology)
                   for name in found["model"]]]  # fmt: skip
    kinds: dict[str, list[str]] = {"better": [], "worse": [], "equivalent": [], "not told apart": [], "no interval": []}
    for line in found.to_dict("records"):
        kinds[_kind(line)].append(str(line["model"]) + by_method(results, line["model"]))
    said = [f"{listed_plain(names)} {'is' if len(names) == 1 else 'are'} {verb}" for kind, verb in (
        ("worse", "worse"), ("equivalent", "equal to it for practical purposes"), ("not told apart", "not told apart from it"),
        ("no interval", "without an interval")) if (names := kinds[kind])]  # fmt: skip
    if not len(found):
        return ""
    if kinds["better"]:
        return f"Better than {one} here: {'; '.join([listed_plain(kinds['better']), *said])}."
    return f"No other model is shown to be better than {one}: {'; '.join(said)}."


def _kind(line: Mapping[Any, Any]) -> str:
    if not np.isfinite(line["low"]):
        return "no interval"
    if equal(line):
        return "equivalent"
    return "not told apart" if not line["clear"] else "better" if line["difference"] < 0 else "worse"


def _trust(results: StudyResults, pooled: pd.DataFrame) -> str:
    """Whether the intervals of the headline's model hold what they promise."""
    one = results.headline
    if one is None or one not in pooled.index or not np.isfinite((line := _line(pooled, one))["coverage90"]):
        return ""
    low, high = (float(line.get(f"coverage90_{end}", np.nan)) for end in ("low", "high"))
    text = f"The 90 % intervals of {one} hold {100 * line['coverage90']:.1f} % of {line['n']:,} observations that it had not seen"
    if not np.isfinite(low):
        return f"{text}; how sure that is, so few clusters of rows do not say."
    ends = f"(90 % interval {100 * low:.0f} to {100 * min(high, 1.0):.0f} %)"
    if high < 0.9:
        return f"{text} {ends}: they are too narrow{_remedy(results)}"
    if low > 0.9:
        return f"{text} {ends}: they are wider than they need be{_remedy(results)}"
    if NEAR[0] <= low and high <= NEAR[1]:
        return f"{text} {ends}: on average over these rows they can be trusted."
    return f"{text} {ends}, which these rows do not tell apart from the 90 % that they promise."


def _remedy(results: StudyResults) -> str:
    """The end of a sentence about intervals that do not hold: the next move, where the table allows one."""
    learnt = "intervals whose levels are learnt from rows held out"
    if results.recalibrated:
        return f"; the chapter Recalibration has {learnt}."
    try:
        check_recalibration(results.ensemble, results.estimand)
    except ValueError:
        return "."
    return f"; add [recalibration] to the study file for {learnt}."


# ------------------------------------------------------------------------------------------------- figure, table, the rest
def _rivals(results: StudyResults) -> list[str]:
    """The other model of the table: the best of those that combine, or equal weights."""
    rows = results.held[results.estimand].rows
    mean = {name: float(rows["crps"].sel(model=name).mean()) for name in results.combining if name != results.headline}
    if mean:
        return [min(mean, key=mean.__getitem__)]
    there = [name for name in results.of_kind(EqualWeights) if name in rows["model"].values]
    return [name for name in there if name != results.headline][:1]


def _parts(results: StudyResults, table: pd.DataFrame, differences: pd.DataFrame) -> list[Any]:
    found = crps_of_all(differences, results.estimand)
    shown = found[~found["model"].isin(_off_the_figure(results, found))] if len(found) else found
    parts: list[Any] = [_forest(results, shown, found)] if len(shown) else []
    parts.append(_three(results, table))
    if text := _not_told_apart(results, found):
        parts.append(text)
    return parts


def _off_the_figure(results: StudyResults, found: pd.DataFrame) -> list[str]:
    """Climatology, and products so far away that all models would look alike beside them."""
    away = set(results.of_kind(Climatology))
    models = found[found["model"].isin([name for name in results.models if name not in away])]
    if not len(models):
        return []  # climatology is all there is to see
    most = FAR * max(EQUIVALENT, float(np.nanmax(np.abs(models[["difference", "low", "high"]].to_numpy(float)))))
    far = found[found["model"].isin(list(results.data.products)) & (found["difference"].abs() > most)]
    return [*away, *far["model"]]


def _forest(results: StudyResults, shown: pd.DataFrame, found: pd.DataFrame) -> Figure:
    left = found[~found["model"].isin(shown["model"])]
    far = [f"{line['model']} ({percent(line['difference'])})" for line in left.to_dict("records")]
    without = f" Off the figure, for all others would look alike beside it: {listed_plain(far)}." if far else ""
    fewer = [f"{line['model']} {line['n']:,}" for line in shown.to_dict("records")
             if line["n"] != results.held[results.estimand].rows.sizes["obs"]]  # fmt: skip
    also = f" ({'; '.join(fewer)}, against {results.reference} on the same rows)" if fewer else ""
    changes = "; ".join(f"{line['model']} {percent(line['difference'])}" for line in shown.to_dict("records"))
    return drawing(
        "headline",
        partial(plots.differences, shown, equivalent=EQUIVALENT),
        f"CRPS of each model against {results.reference}, with 90 % intervals; n = {results.said_rows()}{also}. Within the grey "
        f"band of ±{EQUIVALENT:.0f} % nobody would change a model.{without}",
        f"Forest of differences of CRPS: {changes}.",
        size=(6.2, 1.1 + 0.3 * len(shown)),
    )


def _three(results: StudyResults, table: pd.DataFrame) -> Table:
    """The best member, the model of the headline and the next: what a reader takes home."""
    single, gains = _single(results, results.estimand), _gains(results, results.estimand)
    pooled = table[(table["estimand"] == results.estimand) & (table["group"] == "all")].set_index("model", drop=False)
    names = [name for name in (single, results.headline, *_rivals(results)) if name in pooled.index]
    names = names or [str(name) for name in pooled.index[:3]]
    lines = pooled.loc[names, ["model", "n", "crps"]].reset_index(drop=True)
    if len(gains):
        change = gains.reindex(names)[["difference", "low", "high"]].reset_index(drop=True)
        change.columns = pd.Index(["change", "change_low", "change_high"])
        lines = with_interval(pd.concat([lines, change], axis=1), "change", digits=1)
    cover = pooled.loc[names, [name for name in ("coverage90", "coverage90_low", "coverage90_high") if name in pooled]]
    cover = 100 * cover.clip(upper=1.0)
    lines = pd.concat([lines, cover.reset_index(drop=True)], axis=1)
    if "coverage90_low" in lines:
        lines = with_interval(lines, "coverage90", digits=1)
    lines["width90"] = pooled.loc[names, "width90"].to_numpy()
    units = f" [{results.units}]".replace(" ", "\N{NO-BREAK SPACE}") if results.units else ""
    heads = {"n": "rows", "crps": f"CRPS {units.strip()}", "change": "against the best member [%]",
             "coverage90": INSIDE, "width90": f"mean width of 90 % intervals {units.strip()}"}  # fmt: skip
    return sheet(
        "headline", pooled.loc[names].reset_index(drop=True), f"In short ({ESTIMANDS[results.estimand]}).",
        "Brackets hold 90 % intervals. Of two models whose intervals hold 90 % the one with the narrower intervals knows more.",
        shown=lines.rename(columns=heads), digits={INSIDE: 1},
    )  # fmt: skip


def _not_told_apart(results: StudyResults, shown: pd.DataFrame) -> str:
    lines = shown.to_dict("records")
    some = [f"{line['model']} ({percent(line['difference'])}, {interval(line)})" for line in lines
            if _kind(line) == "not told apart"]  # fmt: skip
    none = [str(line["model"]) for line in lines if _kind(line) == "no interval"]
    text = f"Not told apart from {results.reference} by these rows: {'; '.join(some)}." if some else ""
    if none:
        text += f" No interval, and so no answer, for {listed_plain(none)} ({why_no_interval(lines[0])})."
    if not text and lines:
        text = f"Every model is told apart from {results.reference}, or equal to it within ±{EQUIVALENT:.0f} %."
    return text.strip()
