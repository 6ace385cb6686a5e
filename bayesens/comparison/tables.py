"""Tables of skill: models and products on the same rows, by group, with intervals over stations and time blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.comparison.bands import BANDS, band_shares, in_band, warn_dilemma
from bayesens.comparison.bootstrap import MIN_CLUSTERS, Clusters
from bayesens.comparison.common_rows import Predictive, add_threshold_crps
from bayesens.comparison.folds.news import ALL_CONVERGED, MARK, without_convergence
from bayesens.comparison.group_metrics import EXTRA, FIRST, MACRO, POOLED, RowGroup, row_groups
from bayesens.comparison.row_resampling import GROUP
from bayesens.messages import check_known, listed

__all__ = ["paired_differences", "product_table", "score_table"]

Array = NDArray[np.float64]
LOWER = ("crps", "log_score", "rmse", "ubrmse", "mae", "twcrps")  # better the lower they are
HIGHER = ("r", "kge", "r_temporal", "r_temporal_z", "r_spatial")
RATIO = ("crps", "rmse", "ubrmse", "mae", "width90", "twcrps")  # positive quantities in units of y: percent make sense


def score_table(
    rows: xr.Dataset,
    *,
    by: str | Sequence[str] = (),
    replicates: int = 0,
    block: float | None = 30.0,
    level: float = 0.9,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """Metrics of every model and product: over all rows, in every group, and their mean over groups.

    Parameters
    ----------
    rows : Dataset
        From `common_rows`, or a part of it (`select_band`).
    by : str or sequence of str
        Labels of the rows to make groups by: "group", "site", or one that was given.
    replicates : int
        Of the bootstrap over stations and time blocks, for an interval of every metric; 0 for none, 2000 to publish. Rows
        whose estimand is "group" are resampled by whole groups in place of stations; those of the estimand "row" that have
        neither stations nor times one by one (beyond 1,000 in so many parts made at random).
    block : float, optional
        Length of a time block: days, or units of numeric times; longer than errors remember. None, or rows without times:
        stations alone are resampled, as if the times were the only ones of interest.
    level : float
        Of the intervals.
    random_seed : int, optional
        The same seed gives the same intervals.

    Returns
    -------
    DataFrame
        One line a group, model after model. ``model``, ``estimand``, ``group`` ("all" for the pooled line, "macro" for the
        mean over groups), ``n`` rows, ``stations``; means of ``crps``, ``log_score``; ``rmse``, ``ubrmse``, ``mae``,
        ``bias`` (prediction minus observation), ``r`` over all rows, ``coverage90``, ``width90``; ``kge``; ``r_temporal``
        (median over stations of the correlation over time, stations of 10 rows or more) and ``r_temporal_z`` (their mean
        after Fisher's z); ``r_spatial`` (of the means of stations, three or more); ``twcrps`` where `add_threshold_crps`
        gave it; ``by``, the label that made the group; and ``..._low``, ``..._high`` of each metric, with ``interval``, how
        they were made or why there are none; ``observations``, where some model was told what other stations observed on the
        day itself: "day of" for those; ``not_converged``, in how many folds of `compare` the fit has not converged
        ("none"). The prediction of a model is its predictive mean.

    Raises
    ------
    KeyError, ValueError
        For unknown labels, labels called "all" or "macro", or intervals without stations (groups, where these were held out)
        or with missing times.

    Warns
    -----
    UserWarning
        With the number of rows whose label is missing: they count in "all" alone.

    Notes
    -----
    A correlation is NaN where either side is constant or a single row is left, and so is the mean over groups unless the
    group is such for every model; then the group is left out of the mean for all. With 20 stations
    and blocks of time or more, intervals are percentiles of the bootstrap (NaN where more than 5 % of the replicates have no
    value); with fewer they would be too short, and are t intervals from leaving out one station, and one block, at a time;
    with fewer than five there are none. Where groups were held out they are the clusters, always with t intervals below 100:
    stations of one group share what is particular to it, and a line of a single group has none; their mean has one. With one
    station or none, and an estimand that asks for no new place ("time"), blocks of time alone are resampled.
    ``r`` mixes what ``r_temporal`` and ``r_spatial`` keep apart. Differences of models: `paired_differences`.

    References
    ----------
    Owen (2007), Ann. Appl. Stat. 1, 386.

    Examples
    --------
    >>> from bayesens import Ensemble
    >>> from bayesens.comparison.common_rows import common_rows
    >>> frame = pd.DataFrame({"rf": [1.0, 2.0, 4.0, 3.0], "sm": [1.5, 2.5, 3.0, 3.0], "net": ["a", "a", "b", "b"]})
    >>> ensemble = Ensemble.from_frame(frame, members=["rf"], observation="sm", group="net")
    >>> rows = common_rows({}, ensemble, estimand="site", products={"RF": frame["rf"]})
    >>> score_table(rows, by="group")[["model", "group", "n", "mae", "bias"]]
      model  group  n  mae  bias
    0    RF    all  4  0.5   0.0
    1    RF      a  2  0.5  -0.5
    2    RF      b  2  0.5   0.5
    3    RF  macro  4  0.5   0.0
    """
    lines, metric, unsure = [], [], without_convergence(rows)
    day_of = json.loads(rows.attrs.get("day_of", "[]"))
    for one in row_groups(rows, by, replicates, block, random_seed):
        for model, values in one.values.items():
            key = {"model": model, "estimand": rows.attrs.get("estimand", ""), "group": one.name, "n": one.n,
                   "stations": one.stations}  # fmt: skip
            metric = list(values)
            lines.append(key | {name: each[0] for name, each in values.items()}
                         | {"by": one.by, "not_converged": unsure.get(model, ALL_CONVERGED)}
                         | ({"observations": "day of" if model in day_of else ""} if day_of else {})
                         | (_ends(one, values, level) if replicates else {}))  # fmt: skip
    rest = [name for name in metric if name not in FIRST]
    ends = [f"{name}_{end}" for name in (*FIRST, *rest) for end in ("low", "high")] if replicates else []
    last = [*(["interval"] if replicates else []), *(["observations"] if day_of else []), "not_converged"]
    table = pd.DataFrame(lines)[["model", "estimand", "group", "n", "stations", *FIRST, *rest, "by", *ends, *last]]
    order = {name: i for i, name in enumerate(rows["model"].values.tolist())}
    return table.sort_values("model", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def _ends(one: RowGroup, values: Mapping[str, Array], level: float) -> dict[str, Any]:
    out: dict[str, Any] = {"interval": one.clusters.how}
    for name, each in values.items():
        low, high = one.ends(each, level)
        out |= {f"{name}_low": low, f"{name}_high": high}
    return out


def paired_differences(
    rows: xr.Dataset,
    reference: str,
    *,
    by: str | Sequence[str] = (),
    replicates: int = 2000,
    block: float | None = 30.0,
    level: float = 0.9,
    equivalent: float = 1.0,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """Differences of all others from one model or product, with intervals from the same resampled rows.

    Parameters
    ----------
    rows : Dataset
        From `common_rows`.
    reference : str
        The model or product to compare with, such as the coarse input.
    by, replicates, block, level, random_seed
        As in `score_table`.
    equivalent : float
        Percent on either side of zero within which a difference is of no practical importance.

    Returns
    -------
    DataFrame
        One line a model, group and metric: ``model``, ``reference``, ``estimand``, ``group``, ``by``, ``n`` rows, ``metric``,
        ``value`` and ``reference_value``; ``difference``, ``low``, ``high`` and their ``unit``: "percent" of the reference for
        CRPS, RMSE, ubRMSE, MAE and interval width, and the plain difference ("absolute") for all others: a percentage of a
        correlation means nothing. ``clear`` says whether the interval leaves out zero; ``p_better`` is the probability
        that the model is better than the reference (NaN for bias, coverage and width, of which neither more nor less is
        better), and ``equivalent`` whether the whole interval lies within the range of no importance (differences in
        percent only). ``verdict`` is the word that the interval allows: "better", "worse", "equivalent", "not told apart",
        "no interval" ("lower" and "higher" where none is better), of fewer than five groups held out with their number; it
        ends in "(not converged)" where fits of the two have not, and ``not_converged`` says which and in how many folds
        ("none"). ``shrunk`` is the difference of a group
        drawn towards the mean of all groups, as far as its variance over replicates asks for: of three groups or more,
        look at these before naming the best one.

    Raises
    ------
    KeyError, ValueError
        As `score_table`, and for an unknown reference or one that stands alone.

    References
    ----------
    DerSimonian & Laird (1986), Control. Clin. Trials 7, 177: the variance between groups.

    Examples
    --------
    >>> from bayesens import Ensemble
    >>> from bayesens.comparison.common_rows import common_rows
    >>> frame = pd.DataFrame({"rf": [1.0, 2.0], "cci": [2.0, 4.0], "sm": [2.0, 3.0], "station": ["a", "b"]})
    >>> ensemble = Ensemble.from_frame(frame, members=["rf"], observation="sm", site="station")
    >>> rows = common_rows({}, ensemble, estimand="site", products={"RF": frame["rf"], "CCI": frame["cci"]})
    >>> table = paired_differences(rows, "CCI", replicates=100, random_seed=1).set_index("metric")
    >>> print(*table.loc["mae", ["value", "reference_value", "difference", "unit"]])
    1.0 0.5 100.0 percent
    """
    check_known([reference], rows["model"].values.tolist(), kind="model or product", where="the rows")
    if not equivalent >= 0.0:
        raise ValueError(f"equivalent is a number of percent, such as 1; got {equivalent!r}")
    if rows.sizes["model"] < 2:
        raise ValueError(f"there is nothing to compare with {reference!r}; give common_rows another model or product")
    lines, unsure = [], without_convergence(rows)
    for one in row_groups(rows, by, replicates, block, random_seed):
        base = one.values[reference]
        for model, values in one.values.items():
            for name in (*FIRST, *(key for key in values if key not in FIRST)) if model != reference else ():
                change = _change(name, values[name], base[name])
                low, high = one.ends(change, level)
                equal = name in RATIO and low > -equivalent and high < equivalent
                several = one.name not in (POOLED, MACRO) and one.clusters.least > 1
                boot = change[1 : 1 + one.design.replicates]
                boot = boot[np.isfinite(boot)]
                doubt = "; ".join(f"{each} in {unsure[each]}" for each in (reference, model) if each in unsure)
                lines.append({
                    "model": model, "reference": reference, "estimand": rows.attrs.get("estimand", ""), "group": one.name,
                    "by": one.by, "n": one.n, "metric": name, "value": values[name][0], "reference_value": base[name][0],
                    "difference": change[0], "low": low, "high": high,
                    "unit": "percent" if name in RATIO else "absolute", "clear": bool(low > 0.0 or high < 0.0),
                    "p_better": _better(one, name, change), "equivalent": bool(equal),
                    "verdict": _verdict(name, low, high, equal, one.clusters) + MARK * bool(doubt),
                    "shrunk": np.var(boot) if several and len(boot) else np.nan, "interval": one.clusters.how,
                    "not_converged": doubt or ALL_CONVERGED,
                })  # fmt: skip
    table = pd.DataFrame(lines)
    for _, part in table.groupby(["model", "by", "metric"]):  # the column still holds variances here
        table.loc[part.index, "shrunk"] = _shrunk(part["difference"].to_numpy(), part["shrunk"].to_numpy())
    return table


def _better(one: RowGroup, name: str, change: Array) -> float:
    if name not in (*LOWER, *HIGHER):
        return np.nan
    return one.probability(change, high=0.0) if name in LOWER else one.probability(change, low=0.0)


def _verdict(name: str, low: float, high: float, equal: bool, clusters: Clusters) -> str:
    if not np.isfinite(low):
        if clusters.kinds[0] == GROUP and clusters.stations < MIN_CLUSTERS:
            return f"no interval: {clusters.said} {'is' if clusters.stations == 1 else 'are'} too few"
        return "no interval"
    if equal:
        return "equivalent"
    if low <= 0.0 <= high:
        return "not told apart"
    if name not in (*LOWER, *HIGHER):
        return "lower" if high < 0.0 else "higher"
    return "better" if (high < 0.0) == (name in LOWER) else "worse"


def _shrunk(difference: Array, variance: Array) -> Array:
    """Empirical Bayes estimates of groups, with the variance between them by DerSimonian and Laird; NaN for others."""
    out, there = np.full(len(difference), np.nan), variance > 0.0
    d, v = difference[there], variance[there]
    if len(d) < 3:
        return out
    w = 1.0 / v
    spread = np.sum(w * (d - np.average(d, weights=w)) ** 2) - (len(d) - 1)
    between = max(spread / (w.sum() - np.sum(w**2) / w.sum()), 0.0)
    mean = np.average(d, weights=1.0 / (v + between))
    out[there] = mean + between / (between + v) * (d - mean)
    return out


def _change(name: str, value: Array, base: Array) -> Array:
    if name not in RATIO:
        return np.where(np.isfinite(value) & np.isfinite(base), value, np.nan) - np.where(
            np.isfinite(base), base, np.nan
        )
    return 100.0 * (value / np.where(base > 0.0, base, np.nan) - 1.0)


def product_table(
    rows: xr.Dataset,
    *,
    by: str | None = "group",
    metrics: Sequence[str] = ("r", "rmse", "mae"),
    bands: Sequence[str] | Mapping[str, tuple[float, float]] = ("all", "mid"),
    band_by: str = "observation",
    predictive: Predictive | None = None,
    replicates: int = 2000,
    block: float | None = 30.0,
    level: float = 0.9,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """Lay out products side by side: a line a metric and network, columns for every product and band of values.

    Parameters
    ----------
    rows : Dataset
        From `common_rows`.
    by : str or None
        Label that makes the networks; None for the pooled line alone.
    metrics : sequence of str
        Columns of `score_table`.
    bands : sequence of {"all", "low", "mid", "high"}, or mapping of name to (float, float)
        Parts of the range of values: mid is 15 to 85 %; or two quantile levels each, under names of your own.
    band_by : str
        What decides the band of a row, as in `select_band`. The limits stay as they are in every replicate.
    predictive : mapping of model name to Distribution (row) or array (draw, row), optional
        As in `add_threshold_crps`: adds the metric ``twcrps``, over all rows, with the quantiles of the observations as
        thresholds, whatever ``band_by`` is.
    replicates, block, level, random_seed
        As in `score_table`.

    Returns
    -------
    DataFrame
        Index ``(metric, group)``: the networks, then "all" (pooled) and "macro" (their mean). Columns ``(model, band,
        part)``: first ``("number", band, "rows" or "stations")``, then ``estimate``, ``low`` and ``high`` of each product
        (NaN without replicates).

    Raises
    ------
    KeyError, ValueError
        For unknown metrics, bands or labels, and as `score_table`.

    Warns
    -----
    UserWarning
        Once, of the forecaster's dilemma, for bands by observation.

    Examples
    --------
    >>> from bayesens import Ensemble
    >>> from bayesens.comparison.common_rows import common_rows
    >>> frame = pd.DataFrame({"rf": [1.0, 2.0, 4.0, 3.0], "sm": [1.5, 2.5, 3.0, 3.0], "net": ["a", "a", "b", "b"]})
    >>> ensemble = Ensemble.from_frame(frame, members=["rf"], observation="sm", group="net")
    >>> rows = common_rows({}, ensemble, estimand="site", products={"RF": frame["rf"]})
    >>> table = product_table(rows, bands=["all"], metrics=["mae"], replicates=0)
    >>> table["number"]["all"]["rows"].tolist(), table["RF"]["all"]["estimate"].tolist()
    ([2, 2, 4, 4], [0.5, 0.5, 0.5, 0.5])
    """
    shares = {str(name): band_shares(bands[name] if isinstance(bands, Mapping) else name) for name in bands}
    masks = {name: in_band(rows, share, by=band_by) for name, share in shares.items()}
    check_known(list(metrics), [*FIRST, *EXTRA], kind="metric", where="a score table")
    if empty := [band for band, mask in masks.items() if not mask.any()]:
        raise ValueError(
            f"none of {rows.sizes['obs']} rows lies in {listed(empty)} by {band_by!r}; choose a wider band"
        )
    if band_by == "observation" and any(share != BANDS["all"] for share in shares.values()):
        warn_dilemma()
    options: dict[str, Any] = {"by": by or (), "replicates": replicates, "block": block, "level": level,
                               "random_seed": random_seed}  # fmt: skip
    cells: dict[tuple[str, str], dict[tuple[str, str, str], float]] = {}
    for band, mask in masks.items():
        _lay_out(cells, score_table(rows.isel(obs=np.flatnonzero(mask)), **options), metrics, band)
        if predictive is not None:
            weighted = add_threshold_crps(rows, predictive, band=shares[band])
            _lay_out(cells, score_table(weighted, **options), ["twcrps"], band)
    return _framed(cells, ["number", *rows["model"].values.tolist()], list(shares))


def _lay_out(cells: dict[Any, Any], table: pd.DataFrame, metrics: Sequence[str], band: str) -> None:
    for line in table.to_dict("records"):
        for name in metrics:
            cell = cells.setdefault((name, line["group"]), {})
            cell |= {("number", band, "rows"): line["n"], ("number", band, "stations"): line["stations"]}
            cell[line["model"], band, "estimate"] = line[name]
            cell |= {(line["model"], band, end): line.get(f"{name}_{end}", np.nan) for end in ("low", "high")}


def _framed(cells: Mapping[tuple[str, str], Mapping[Any, float]], models: list[str], bands: list[str]) -> pd.DataFrame:
    last = {POOLED: 1, MACRO: 2}
    metrics = list(dict.fromkeys(metric for metric, _ in cells))
    index = sorted(cells, key=lambda key: (metrics.index(key[0]), last.get(key[1], 0)))
    columns = [(model, band, part) for model in models for band in bands
               for part in (("rows", "stations") if model == "number" else ("estimate", "low", "high"))]  # fmt: skip
    out = pd.DataFrame(
        [[cells[key].get(column, np.nan) for column in columns] for key in index],
        index=pd.MultiIndex.from_tuples(index, names=["metric", "group"]),
        columns=pd.MultiIndex.from_tuples(columns, names=["model", "band", "part"]),
    )
    counts = [column for column in columns if column[0] == "number"]
    # A network without rows in a band has none, rather than an unknown number.
    return out.fillna(dict.fromkeys(counts, 0)).astype(dict.fromkeys(counts, int))
