"""What members are worth: models fitted anew without some of them, and Shapley values over all subsets."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import factorial
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy.sparse import csr_array

from bayesens.comparison.bootstrap import why_none
from bayesens.comparison.compare import compare, splits_of
from bayesens.comparison.errors.dependence import dependence
from bayesens.comparison.folds.news import ALL_CONVERGED
from bayesens.comparison.folds.runs import OnMembers, source_of
from bayesens.comparison.options import HeldOutOptions, takes
from bayesens.comparison.row_resampling import Resampling, resampling
from bayesens.comparison.tables import paired_differences
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.fit_tree import check_given
from bayesens.members.fitted import entropy
from bayesens.members.members import Members
from bayesens.messages import check_known, listed
from bayesens.models import Climatology
from bayesens.tables.missing_codes import NONE

__all__ = ["left_out_words", "members_held_out", "members_left_out", "shapley"]

Array = NDArray[np.float64]
FULL, EMPTY = "all members", "no members"
MAX_MEMBERS = 8  # members of which all subsets are fitted
MEAN = "mean correlation"
CHUNK = 256  # replicates at a time
KEPT = ("value", "reference_value", "difference", "low", "high", "unit", "clear", "p_better", "equivalent", "interval",
        "not_converged")  # fmt: skip
MEANS = ("crps", "log_score", "mae", "rmse", "twcrps")  # scores of which a mean over rows is made
SAID = {"crps": "CRPS", "log_score": "log score", "mae": "MAE", "rmse": "RMSE", "twcrps": "threshold-weighted CRPS",
        "ubrmse": "ubRMSE", "r": "correlation", "width90": "width of 90 % intervals"}  # fmt: skip


@takes(HeldOutOptions)
def members_left_out(
    model: Any,
    data: Ensemble | Members,
    *,
    estimand: str,
    by: str | Sequence[Sequence[str]] = "member",
    metric: str = "crps",
    replicates: int = 2000,
    block: float | None = 30.0,
    level: float = 0.9,
    **options: Unpack[HeldOutOptions],
) -> pd.DataFrame:
    """Fit a model anew without each member, and score it on the same rows held out.

    A loss is what the others cannot make up for. It is no measure of dependence: a member whose errors are those of the others
    costs little, and so does one that is poor or has no weight; one that costs much may still err together with the others. So
    the correlation of errors stands beside (`left_out_words` says it in words).

    Parameters
    ----------
    model : model
        Such as ``be.BMA()``.
    data : Ensemble or Members
        As in `compare`; trained members are trained once a fold for all.
    estimand : {"time", "site", "site-time", "group", "row"}
    by : {"member", "cluster"} or sequence of sequences of str
        One member at a time; clusters of members whose errors are nearly one (``cluster`` of `dependence`, of members as the
        folds predict them); or the members to leave out together.
    metric : str
        A column of `score_table`.
    replicates, block, level
        Of the intervals, as in `paired_differences`.
    **options
        ``folds``, ``blocks``, ``gap``, ``buffer``, ``map_points``, ``places``, ``method``, ``draws``, ``inner_folds``,
        ``random_seed``, ``n_jobs``, ``workers``, ``cache`` and ``progressbar``, as in `compare`.

    Returns
    -------
    pandas.DataFrame
        One line for what was ``left_out``: ``members`` that are left, ``n_left``; ``score`` without and ``full_score`` with all;
        ``difference`` [``unit``: percent or absolute], ``low``, ``high``, ``clear``, ``p_better`` (of being better without),
        ``equivalent``, ``interval``, as `paired_differences` gives them (a failed fit: NaN, and why). ``error_correlation``:
        mean correlation of the errors of what is left out with those of what is left, over the rows scored; ``k_eff``:
        effective number of all members, of `dependence` (mean correlation). ``metric``, ``estimand``, ``level``;
        ``not_converged``, folds in which the fits with all members or without these have not converged.

    Raises
    ------
    KeyError, TypeError, ValueError
        One member, members that are not there, nothing or everything left out, an unknown metric, a failed fit of all
        members, and as `compare`.

    Examples
    --------
    >>> import bayesens as be
    >>> rng = np.random.default_rng(1)
    >>> frame = pd.DataFrame({"site": list("abcdef") * 20, "y": rng.normal(size=120)})
    >>> frame = frame.assign(good=frame.y + 0.1 * rng.normal(size=120), poor=frame.y + rng.normal(size=120))
    >>> ensemble = be.Ensemble.from_frame(frame, members=["good", "poor"], observation="y", site="site")
    >>> table = members_left_out(be.BMA(), ensemble, estimand="site", folds=3, method="em", replicates=50, random_seed=1,
    ...                          progressbar=False)
    >>> table[["left_out", "members", "n_left", "clear"]].values.tolist()
    [['good', 'poor', 1, True], ['poor', 'good', 1, False]]
    """
    names = _members(data)
    random_seed = options["random_seed"]
    options["random_seed"] = entropy(random_seed)
    with tempfile.TemporaryDirectory() as aside:
        if by == "cluster" and options["cache"] is None and isinstance(data, Members):
            options["cache"] = aside  # the members of the folds, to see their clusters, are those of the comparison
        run = partial(compare, data=data, estimand=estimand, part=f"members of {type(model).__name__}", **options)
        sets = _sets(by, names, lambda: _clusters(_scored(run({FULL: model})) if isinstance(data, Members) else data))
        left = [tuple(name for name in names if name not in one) for one in sets]
        labels = _labels(sets)
        some = {label: OnMembers(model, kept) for label, kept in zip(labels, left, strict=True)}
        models: dict[str, Any] = {FULL: model} | some
        rows = run(models)
    failed = json.loads(rows.attrs["failed"])
    if FULL in failed:
        raise ValueError(f"the model of all members failed, and there is nothing to compare with: {failed[FULL]}")
    if len(failed) == len(sets):
        raise ValueError(f"all fits without members failed; the first: {failed[labels[0]]}")
    found = paired_differences(rows, FULL, replicates=replicates, block=block, level=level, random_seed=random_seed)
    check_known([metric], found["metric"].unique(), kind="metric", where="the differences")
    found = found[found["metric"] == metric].set_index("model")
    r, k_eff = _dependence(rows)
    lines = []
    for one, kept, label in zip(sets, left, labels, strict=True):
        line: dict[str, Any] = (
            {key: found.at[label, key] for key in KEPT} if label in found.index else _failed(failed[label])
        )
        score, full = line.pop("value"), line.pop("reference_value")
        how, doubt = line.pop("interval"), line.pop("not_converged")
        lines.append({
            "left_out": ", ".join(one), "members": ", ".join(kept), "n_left": len(kept), "score": score,
            "full_score": full, **line, "error_correlation": float(r.loc[list(one), list(kept)].to_numpy().mean()),
            "k_eff": k_eff, "interval": how, "metric": metric, "estimand": estimand, "level": level,
            "not_converged": doubt.replace(label, "without").replace(FULL, "with all"),
        })  # fmt: skip
    return pd.DataFrame(lines)


def _failed(text: str) -> dict[str, Any]:
    line: dict[str, Any] = dict.fromkeys(KEPT, np.nan)
    return line | {"unit": "", "clear": False, "equivalent": False, "interval": f"none: the fit failed, {text}",
                   "not_converged": ALL_CONVERGED}  # fmt: skip


def _labels(sets: Sequence[Sequence[str]]) -> list[str]:
    """What the models without members are called; numbers tell apart what would be cut, or reads alike."""
    texts = [f"without {', '.join(one)}" for one in sets]
    return [one if len(one) <= 80 and texts.count(one) == 1 else f"{i}: {one}"[:80] for i, one in enumerate(texts, 1)]


def _members(data: Any) -> tuple[str, ...]:
    if not isinstance(data, Members):
        check_given(data)
    names = tuple(data.names if isinstance(data, Members) else data.members)
    if len(names) < 2:
        raise ValueError(f"there is one member, {names[0]!r}, and none would be left; wanted two or more")
    return names


def _sets(by: Any, names: tuple[str, ...], clusters: Callable[[], list[tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """What to leave out, one set after another."""
    if by == "member":
        return [(name,) for name in names]
    if by == "cluster":
        sets = clusters()
        if len(sets) == 1:
            raise ValueError(f"all {len(names)} members are one cluster (their errors correlate by more than 0.9), and "
                             "none would be left; leave out one at a time, by='member', or sets of your own")  # fmt: skip
        return sets
    if isinstance(by, str) or not isinstance(by, Iterable) or any(isinstance(one, str) for one in by):
        raise TypeError(
            f"by is {by!r}; wanted 'member', 'cluster', or sequences of members: [['{names[0]}'], ['{names[-1]}']]"
        )
    sets = [tuple(dict.fromkeys(one)) for one in by]
    for one in sets:
        check_known(one, names, kind="member", where="the data")
        if not 0 < len(one) < len(names):
            raise ValueError(
                f"by leaves out {'all' if one else 'none'} of {len(names)} members; wanted some to be left out, and some left"
            )
    if not sets or len({frozenset(one) for one in sets}) < len(sets):
        raise ValueError(f"by is {by!r}; wanted one set of members or more, each once")
    return sets


def _clusters(table: Ensemble) -> list[tuple[str, ...]]:
    """Members by cluster of their errors."""
    found = dependence(table, replicates=0)["cluster"]
    names, number = found["member"].values, found.values
    return [tuple(names[number == k].tolist()) for k in dict.fromkeys(number.tolist())]


def members_held_out(rows: xr.Dataset, labels: Sequence[str], table: Ensemble | None = None) -> Ensemble:
    """The rows scored, with the members that the models were given there and some labels; covariates and units of a table."""
    names = [name for name in labels if name in rows.coords]
    made = xr.Dataset({"prediction": rows["member_prediction"], "observation": rows["observation"]})
    made = made.drop_vars([name for name in made.coords if name != "member"]).assign_coords(
        {name: rows[name] for name in names}
    )
    more: dict[str, Any] = {name: name for name in ("observation", *names)}
    if table is not None:
        more |= {"covariates": table.covariates, "spread": table.spread or None, "units": table.units or None}
        if table.covariates:
            made["covariate"] = table.dataset["covariate"][rows["obs"].values].drop_vars(names)
    return Ensemble.from_dataset(made, missing=NONE, **more)


def _scored(rows: xr.Dataset) -> Ensemble:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the door has said it of the table itself
        return members_held_out(rows, ["site"])


def _dependence(rows: xr.Dataset) -> tuple[pd.DataFrame, float]:
    """Error correlations of members over all rows scored, and their effective number."""
    one = dependence(_scored(rows), replicates=0).sel(group="all", part="total")
    names = one["member"].values.tolist()
    return pd.DataFrame(one["error_correlation"].values, names, names), float(one["k_eff"].sel(kind=MEAN))


def left_out_words(table: pd.DataFrame) -> str:
    """Say what leaving out members did to the score, and what that does not show.

    Parameters
    ----------
    table : DataFrame
        From `members_left_out`.

    Returns
    -------
    str

    Examples
    --------
    >>> table = pd.DataFrame({"left_out": ["rf"], "n_left": [3], "difference": [4.3], "low": [1.2], "high": [7.4],
    ...     "unit": ["percent"], "clear": [True], "error_correlation": [0.7], "k_eff": [1.3], "metric": ["crps"],
    ...     "level": [0.9], "interval": ["bootstrap over 30 stations"]})
    >>> print(left_out_words(table)[:75])
    Without rf the CRPS changes by +4.3 % (90 % interval +1.2 to +7.4 %); error
    """
    said = [_said(line) for line in table.to_dict("records")]
    return " ".join([*said, *_limits(table)])


def _said(line: dict[Any, Any]) -> str:
    percent = line["unit"] == "percent"
    form, unit = ("+z.1f", " %") if percent else ("+z.3f", "")
    name = SAID.get(line["metric"], line["metric"])
    if not np.isfinite(line["difference"]):
        return f"Without {line['left_out']} the {name} is not known ({line['interval'].removeprefix('none: ')})."
    text = f"Without {line['left_out']} the {name} changes by {line['difference']:{form}}{unit}"
    if np.isfinite(line["low"]):
        text += f" ({100 * line['level']:g} % interval {line['low']:{form}} to {line['high']:{form}}{unit})"
    else:
        text += f" (no interval: {why_none(line['interval']) or 'the replicates have no value'})"
    if line.get("not_converged", ALL_CONVERGED) != ALL_CONVERGED:
        text += f" (fits that have not converged: {line['not_converged']})"
    if np.isfinite(line["error_correlation"]):
        text += f"; errors correlate with those of the others by {line['error_correlation']:.2f}"
    return text + "."


def _limits(table: pd.DataFrame) -> list[str]:
    """What no such table shows, with the numbers of this one."""
    out = ["A small loss does not show that a member is independent or not needed, nor a large one that it depends on no other: "
           "the loss is what the others cannot make up for, and mixes skill, dependence and weight."]  # fmt: skip
    k = float(table["k_eff"].iloc[0])
    if np.isfinite(k):
        out.append("Dependence is in the correlation of errors (member minus observation): an average of all members is worth "
                   f"{k:.2f} with independent errors. Part of it may be the observations' own error, common to all.")  # fmt: skip
    return out


# ----------------------------------------------------------------------------------------------------- Shapley values
@takes(HeldOutOptions)
def shapley(
    model: Any,
    data: Ensemble | Members,
    *,
    estimand: str,
    metric: str = "crps",
    replicates: int = 2000,
    block: float | None = 30.0,
    level: float = 0.9,
    **options: Unpack[HeldOutOptions],
) -> pd.DataFrame:
    """Share out to the members what all of them gain over climatology: Shapley values over all subsets.

    The value of a member is the fall of the score when it joins, averaged over all orders in which members can join. Members
    that stand in for each other share what they bring, where leaving out either alone costs nothing. No member at all means
    `Climatology`: the distribution of the observations learnt from. K members take 2**K - 1 fits of the model and one of
    climatology in every fold; the number is said on stderr before work begins, with the progress bar.

    Parameters
    ----------
    model : model
    data : Ensemble or Members
        Two to eight members. Trained members are trained once a fold for all subsets.
    estimand : {"time", "site", "site-time", "group", "row"}
    metric : {"crps", "log_score", "mae", "rmse", "twcrps"}
        All of them are lower the better.
    replicates, block, level
        Of the intervals, as in `paired_differences`: a mean score of each subset in each replicate, from the same resampled
        rows, and Shapley values of these.
    **options
        ``folds``, ``blocks``, ``gap``, ``buffer``, ``map_points``, ``places``, ``method``, ``draws``, ``inner_folds``,
        ``random_seed``, ``n_jobs``, ``workers``, ``cache`` and ``progressbar``, as in `compare`.

    Returns
    -------
    pandas.DataFrame
        One line a ``member``: its ``value`` [that of the score], above zero for a gain, ``low``, ``high``, ``clear``;
        ``share`` of the gain of all [percent]; ``alone``, its gain over climatology by itself; ``last``, what leaving it out
        of all costs; ``empty_score`` (climatology) and ``full_score`` (all members), whose difference is the sum of the
        values; ``interval``; ``metric``, ``estimand``, ``level``, ``units``, ``fits``.

    Raises
    ------
    ValueError
        One member, more than eight, a fit that failed, rows without stations (give ``replicates=0``), and as `compare`.
    KeyError
        An unknown metric.

    References
    ----------
    Shapley (1953), A value for n-person games, Contributions to the Theory of Games 2, 307.

    Examples
    --------
    >>> import bayesens as be
    >>> rng = np.random.default_rng(1)
    >>> frame = pd.DataFrame({"site": list("abcdef") * 20, "y": rng.normal(size=120)})
    >>> frame = frame.assign(good=frame.y + 0.1 * rng.normal(size=120), poor=frame.y + rng.normal(size=120))
    >>> ensemble = be.Ensemble.from_frame(frame, members=["good", "poor"], observation="y", site="site")
    >>> table = shapley(be.BMA(), ensemble, estimand="site", folds=3, method="em", replicates=50, random_seed=1,
    ...                 progressbar=False)
    >>> bool(table["value"][0] > table["value"][1] > 0), bool(table["alone"][1] > table["value"][1])
    (True, True)
    """
    names = _members(data)
    check_known([metric], MEANS, kind="metric", where="what Shapley values are made of")
    parts = len(splits_of(source_of(data), estimand, options))
    fits = 2 ** len(names) * parts
    if len(names) > MAX_MEMBERS:
        raise ValueError(f"{len(names)} members have {2 ** len(names) - 1} subsets, {fits} fits in {parts} folds; wanted at most "
                         f"{MAX_MEMBERS} members: leave out some, or use members_left_out "
                         f"({len(names) + 1} fits a fold)")  # fmt: skip
    if options["progressbar"]:
        from rich.console import Console

        Console(stderr=True).print(
            f"Shapley values of {len(names)} members: {2 ** len(names)} models in {parts} folds, {fits} fits"
        )
    models: dict[str, Any] = {EMPTY: Climatology()}
    for mask in range(1, 2 ** len(names)):
        models[f"subset {mask}"] = OnMembers(model, _subset(names, mask))
    rows = compare(models, data, estimand=estimand, part=f"subsets of {type(model).__name__}", **options)
    for name, text in json.loads(rows.attrs["failed"]).items():
        whose = "climatology" if name == EMPTY else listed(_subset(names, int(name.split()[1])), limit=MAX_MEMBERS)
        raise ValueError(
            f"the fit of {whose} failed ({text}), and Shapley values take all subsets; leave out the member that fails"
        )
    score, how = _replicated(rows, metric, replicates, block, options["random_seed"])
    return _shapley_table(names, score, how, level, {
        "metric": metric, "estimand": estimand, "level": level, "units": "" if metric == "log_score" else rows.attrs["units"],
        "fits": fits,
    })  # fmt: skip


def _subset(names: tuple[str, ...], mask: int) -> tuple[str, ...]:
    return tuple(name for k, name in enumerate(names) if mask >> k & 1)


def _replicated(
    rows: xr.Dataset, metric: str, replicates: int, block: float | None, random_seed: int | None
) -> tuple[Array, Resampling]:
    """Mean score of every subset (subset, replicate): the sample, the bootstrap, each cluster and each block left out."""
    how = resampling(rows, replicates=replicates, block=block)
    drawn = how.drawn(random_seed)
    both, cell = np.unique(np.column_stack([how.station, how.block]), axis=0, return_inverse=True)
    size = rows.sizes["obs"]
    gather = csr_array((np.ones(size), (cell.ravel(), np.arange(size))))
    total = (gather @ _of_rows(rows, metric).T).T  # (subset, station and block)
    count = gather @ np.ones(size)
    out = []
    for start in range(0, drawn.station.shape[1], CHUNK):
        some = slice(start, start + CHUNK)
        weight = drawn.station[both[:, 0], some] * drawn.block[both[:, 1], some]
        rows_of = count @ weight
        out.append(total @ weight / np.where(rows_of > 0, rows_of, np.nan))
    mean = np.concatenate(out, axis=1)
    return np.sqrt(mean) if metric == "rmse" else mean, how


def _of_rows(rows: xr.Dataset, metric: str) -> Array:
    """What the score is a mean of (subset, row), subsets in the order of their numbers."""
    rows = rows.sel(model=[EMPTY, *(f"subset {mask}" for mask in range(1, rows.sizes["model"]))])
    error = (rows["prediction"] - rows["observation"]).transpose("model", "obs").values
    if metric in ("mae", "rmse"):
        return np.abs(error) if metric == "mae" else error**2
    return rows[metric].transpose("model", "obs").values


def _shapley_table(
    names: tuple[str, ...], score: Array, how: Resampling, level: float, labels: dict[str, Any]
) -> pd.DataFrame:
    """Shapley values of mean scores (subset, replicate)."""
    clusters = how.clusters()
    full, total, lines = 2 ** len(names) - 1, score[0] - score[-1], []
    for k, (name, values) in enumerate(zip(names, _shapley_weights(len(names)) @ score, strict=True)):
        low, high = how.ends(values, level, clusters)
        lines.append({
            "member": name, "value": values[0], "low": low, "high": high, "clear": bool(low > 0.0 or high < 0.0),
            "share": 100.0 * values[0] / total[0] if total[0] > 0 else np.nan,
            "alone": score[0, 0] - score[1 << k, 0], "last": score[full & ~(1 << k), 0] - score[full, 0],
            "empty_score": score[0, 0], "full_score": score[full, 0],
            "interval": clusters.how if how.replicates else "none: no replicates", **labels,
        })  # fmt: skip
    return pd.DataFrame(lines)


def _shapley_weights(size: int) -> Array:
    """Weight of every subset's score in each member's value (member, subset): how many orders have it just before or after.

    Examples
    --------
    >>> _shapley_weights(2).tolist()  # no member, the first, the second, both
    [[0.5, -0.5, 0.5, -0.5], [0.5, 0.5, -0.5, -0.5]]
    """
    out = np.empty((size, 2**size))
    for mask in range(2**size):
        count = mask.bit_count()
        for k in range(size):
            before = count - (mask >> k & 1)  # members that came before k
            weight = factorial(before) * factorial(size - before - 1) / factorial(size)
            out[k, mask] = -weight if mask >> k & 1 else weight
    return out
