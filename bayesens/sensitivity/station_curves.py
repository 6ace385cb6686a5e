"""What fewer stations cost: the change of a score with its interval, a power law, and what neither shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.comparison.bootstrap import Clusters, Replicates, cluster_interval, interval, leave_out, pigeonhole
from bayesens.messages import check_known
from bayesens.sensitivity.stations import PARTS

__all__ = ["power_law", "reduction_table", "reduction_words"]

Array = NDArray[np.float64]
MIN_REMOVALS = 5  # for the spread over them
STEEPEST, FLATTEST = 10.0, 0.01  # exponents that are tried


def reduction_table(
    result: xr.Dataset,
    *,
    metric: str | None = None,
    replicates: int = 2000,
    level: float = 0.9,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """Mean score by what was removed, and its change from nothing removed, with intervals.

    Parameters
    ----------
    result : Dataset
        From `fewer_stations`.
    metric : {"crps", "rmse", "coverage90"}, optional
        None: that of the result.
    replicates : int
        Of the bootstrap over validation stations and removals; 0 for none.
    level : float
        Of the intervals.
    random_seed : int, optional

    Returns
    -------
    DataFrame
        One line a model, what was `removed` (a share, or a group) and what was `scored`: "all" validation stations; for a
        group also its "own" and the "others". ``n_stations`` learnt from, ``validation`` stations and ``removals``
        (replicates that could be fitted); ``score``, the mean over them; ``change`` in percent of nothing removed (plain
        difference for the coverage: ``unit``), with ``low`` and ``high``; ``clear``, whether they leave out zero;
        ``removal_low``, ``removal_high``, between which the change of one removal lies: which stations went;
        ``interval``, how low and high were made. Below five validation stations, or removals of 2 to 4, there are none.

    Raises
    ------
    KeyError
        An unknown metric.

    Notes
    -----
    Low and high resample validation stations and removals, independently of each other (`bayesens.comparison.bootstrap`). Both
    come from the stations that there are: that another network would have other training stations is not in them.

    Examples
    --------
    >>> import bayesens as be
    >>> from bayesens.sensitivity.stations import fewer_stations
    >>> frame = pd.DataFrame({"station": list("aabbccddee"), "sm": np.arange(10.0), "rf": np.arange(10.0) % 3})
    >>> ensemble = be.Ensemble.from_frame(frame, members=["rf"], observation="sm", site="station")
    >>> found = fewer_stations({"Climatology": be.Climatology()}, ensemble, shares=[0.5], replicates=2, validation=["c"],
    ...                        method="em", progressbar=False)
    >>> reduction_table(found)[["removed", "n_stations", "validation", "removals", "interval"]].values.tolist()
    [[0.0, 4, 1, 2, 'none: 1 validation station and 2 removals'],
     [0.5, 2, 1, 2, 'none: 1 validation station and 2 removals']]
    """
    lines = []
    for one in _curves(result, metric, replicates, level, random_seed):
        for i, removed in enumerate(one.levels):
            low, high = one.ends(one.change[i], i)
            spread = _spread(one.of_removals[i], level)
            lines.append({
                "model": one.model, "removed": removed, "scored": one.scored, "n_stations": int(one.n_stations[i]),
                "validation": one.stations, "removals": int(one.removals[i]), "metric": one.metric,
                "score": one.score[i, 0], "change": one.change[i, 0], "low": low, "high": high, "unit": one.unit,
                "clear": bool(low > 0.0 or high < 0.0), "removal_low": spread[0], "removal_high": spread[1],
                "interval": one.how(i) if replicates else "none: no replicates",
            })  # fmt: skip
    return pd.DataFrame(lines)


def power_law(
    result: xr.Dataset,
    *,
    metric: str | None = None,
    replicates: int = 1000,
    level: float = 0.9,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """Fit ``score = a + b n**-c`` to the mean scores with n stations, a and b not below zero.

    Parameters
    ----------
    result : Dataset
        From `fewer_stations` by stations, with three shares or more.
    metric : {"crps", "rmse"}, optional
        None: that of the result.
    replicates, level, random_seed
        As in `reduction_table`; the curve is fitted anew in each replicate.

    Returns
    -------
    DataFrame
        One line a model: ``a`` (what is left with ever more stations, if the curve goes on so) and ``b`` in units of the
        score, ``c``, each with ``_low`` and ``_high``; ``unfitted``, the share of replicates that no curve fits; ``note``, why
        there is no fit or no interval. No fit: the change with the largest share removed has an interval that holds zero
        (a flat curve), the score does not fall with more stations, or the best c lies outside 0.01 to 10.

    Raises
    ------
    ValueError
        Fewer than four numbers of stations, groups removed in place of shares, or the coverage.

    Notes
    -----
    Numbers of stations that differ by less than a factor of two say little about c, and less about a: read the intervals, which
    are cut off at zero. Where a itself is zero, the scores fall ever on as far as they can say.

    References
    ----------
    Cortes et al. (1993), Learning curves: asymptotic values and rate of convergence, NIPS 6.

    Examples
    --------
    >>> _fitted(np.array([10.0, 20.0, 40.0, 80.0]), 2.0 + 3.0 / np.array([[10.0, 20.0, 40.0, 80.0]]).T).T.round(4).tolist()
    [[2.0, 3.0, 1.0]]
    """
    if result.attrs["by"] != "station":
        raise ValueError("groups were removed, and there is no curve to fit; wanted the result of by='station'")
    if (metric or result.attrs["metric"]) == "coverage90":
        raise ValueError("a coverage does not fall towards a limit; wanted metric='crps' or 'rmse'")
    if len(np.unique(result["n_stations"].values[:, 0])) < 4:
        raise ValueError(f"the scores are of {result.sizes['share']} numbers of stations, and the curve has 3 parameters; wanted "
                         "shares=... with three or more")  # fmt: skip
    lines = []
    for one in _curves(result, metric, replicates, level, random_seed):
        found = _fitted(one.n_stations, one.score)
        line: dict[str, Any] = {"model": one.model, "metric": one.metric}
        low, high = one.ends(one.change[-1], -1)
        flat = bool(low <= 0.0 <= high)
        missing = float(np.isnan(found[0, 1 : 1 + replicates]).mean()) if replicates else np.nan
        for name, values in zip("abc", found, strict=True):
            ends = (np.nan, np.nan) if flat else one.ends(values, -1)
            low_end, high_end = np.maximum(ends, 0.0)  # a t interval knows no bounds
            line |= {name: np.nan if flat else values[0], f"{name}_low": low_end, f"{name}_high": high_end}
        note = _note(one, found, flat, (low, high), missing, np.isfinite(line["c_low"]))
        lines.append(line | {"unfitted": missing, "note": note, "interval": one.how(-1)})
    return pd.DataFrame(lines)


def _note(one: _Curve, found: Array, flat: bool, change: tuple[float, float], missing: float, given: bool) -> str:
    first, last = one.n_stations[[0, -1]]
    if flat:
        return (f"no fit: the curve is flat, with {last:.0f} of {first:.0f} stations the score changes by {change[0]:+z.1f} to "
                f"{change[1]:+z.1f} %")  # fmt: skip
    if np.isnan(found[0, 0]) and one.score[-1, 0] > one.score[0, 0]:
        return (f"no fit: the best exponent lies outside {FLATTEST} to {STEEPEST:g}, so the scores do not say how the curve goes "
                "on")  # fmt: skip
    if np.isnan(found[0, 0]):
        return "no fit: the score does not fall with more stations"
    if given:
        return ""
    if (how := one.how(-1)).startswith("none"):
        return f"no interval: {how.removeprefix('none: ')}"
    return f"no interval: no curve fits in {100 * missing:.0f} % of the replicates"


def _fitted(n: Array, score: Array) -> Array:
    """Least squares of a + b n**-c to every column, as a, b, c (3, column); NaN where there is none inside the limits.

    For a given c the rest is linear; c is searched on a grid that closes in on the best one.
    """
    x, size = n / n.max(), score.shape[1]
    center, width = np.full(size, 0.5 * np.log(FLATTEST * STEEPEST)), np.full(size, 0.5 * np.log(STEEPEST / FLATTEST))
    for _ in range(9):
        log_c = np.clip(center + width * np.linspace(-1.0, 1.0, 41)[:, None], np.log(FLATTEST), np.log(STEEPEST))
        squares = _linear(x, score, np.exp(log_c))[2]
        center = np.take_along_axis(log_c, np.argmin(squares, axis=0)[None], axis=0)[0]
        width = width * 0.1
    c = np.exp(center)
    a, b, _ = (each[0] for each in _linear(x, score, c[None]))
    inside = (c > 1.001 * FLATTEST) & (c < STEEPEST / 1.001) & (b > 1e-9 * np.abs(score).max())
    return np.where(inside, np.stack([a, b * n.max() ** c, c]), np.nan)


def _linear(x: Array, score: Array, c: Array) -> tuple[Array, Array, Array]:
    """Best a and b, neither below zero, and the sum of squares, for every c (trial, column)."""
    power = x[:, None, None] ** -c
    y = score[:, None, :]
    mean_x, mean_y = power.mean(axis=0), y.mean(axis=0)
    b = ((power - mean_x) * (y - mean_y)).sum(axis=0) / np.square(power - mean_x).sum(axis=0)
    b = np.maximum(b, 0.0)
    a = mean_y - b * mean_x
    through = (power * y).sum(axis=0) / np.square(power).sum(axis=0)
    a, b = np.where(a < 0.0, 0.0, a), np.where(a < 0.0, through, b)
    return a, b, np.square(y - a - b * power).sum(axis=0)


def reduction_words(
    result: xr.Dataset,
    *,
    metric: str | None = None,
    replicates: int = 2000,
    level: float = 0.9,
    random_seed: int | None = None,
) -> str:
    """Say what removing stations did to the score, and what a small loss does not show.

    Parameters
    ----------
    result : Dataset
        From `fewer_stations`.
    metric, replicates, level, random_seed
        As in `reduction_table`.

    Returns
    -------
    str

    Examples
    --------
    >>> import bayesens as be
    >>> from bayesens.sensitivity.stations import fewer_stations
    >>> frame = pd.DataFrame({"station": list("aabbccddee"), "sm": np.arange(10.0), "rf": np.arange(10.0) % 3})
    >>> ensemble = be.Ensemble.from_frame(frame, members=["rf"], observation="sm", site="station")
    >>> found = fewer_stations({"Climatology": be.Climatology()}, ensemble, shares=[0.5], replicates=2, validation=["c"],
    ...                        method="em", progressbar=False)
    >>> reduction_words(found)[:84]
    'Learnt from 2 in place of 4 stations, the CRPS of Climatology at 1 validation statio'
    """
    options: dict[str, Any] = {"metric": metric, "level": level, "random_seed": random_seed}
    table = reduction_table(result, replicates=replicates, **options)
    lines = table[(table["scored"] == "all") & (table["removed"] != table["removed"].iloc[0])]
    by_group = result.attrs["by"] == "group"
    said = []
    for model, own in lines.groupby("model", sort=False):
        chosen = own if by_group else own.iloc[[-1]]
        said += [_said(line, level, table["n_stations"].iloc[0], by_group) for line in chosen.to_dict("records")]
        if not by_group and len(own) > 2 and own["unit"].iloc[0] == "percent":
            law = power_law(result.sel(model=[model]), replicates=replicates, **options).iloc[0]
            said.append(_said_of_law(law))
    return " ".join([*said, *_caveats(result, by_group)])


def _said(line: Mapping[Any, Any], level: float, full: int, by_group: bool) -> str:
    unit = " %" if line["unit"] == "percent" else ""
    form = "+z.1f" if unit else "+z.3f"
    left = f"without group {line['removed']!r}, from {line['n_stations']}" if by_group else f"from {line['n_stations']}"
    name = {"crps": "CRPS", "rmse": "RMSE", "coverage90": "coverage of 90 % intervals"}[line["metric"]]
    stations = f"{line['validation']} validation station{'s' * (line['validation'] != 1)}"
    text = f"Learnt {left} in place of {full} stations, the {name} of {line['model']} at {stations} "
    if not np.isfinite(line["change"]):
        return text + "is not known: no fit succeeded."
    text += f"changes by {line['change']:{form}}{unit}"
    if np.isfinite(line["low"]):
        text += f" ({100 * level:g} % interval {line['low']:{form}} to {line['high']:{form}}{unit})"
    else:
        text += f" (no interval, {line['interval'].removeprefix('none: ')})"
    if np.isfinite(line["removal_low"]) and not by_group:
        text += (f"; in {100 * level:g} % of the {line['removals']} removals, depending on which stations went, by "
                 f"{line['removal_low']:{form}} to {line['removal_high']:{form}}{unit}")  # fmt: skip
    return text + "."


def _said_of_law(law: pd.Series) -> str:
    if np.isnan(law["c"]):
        return f"Power law of {law['model']}: {law['note']}."
    text = f"Power law of {law['model']}: {law['a']:.3g} + {law['b']:.3g} n^-{law['c']:.2f}"
    if law["note"]:
        return f"{text} ({law['note']})."
    return (f"{text}, with the limit {law['a_low']:.3g} to {law['a_high']:.3g} and the exponent {law['c_low']:.2f} to "
            f"{law['c_high']:.2f}.")  # fmt: skip


def _caveats(result: xr.Dataset, by_group: bool) -> list[str]:
    out = ["A small loss does not show that the stations represent the region, nor that the error of scale (a station's point "
           "against a model's cell) is negligible: the validation stations come from the same network, and carry the same "
           "error."]  # fmt: skip
    if "nearest" in result:
        near = result["nearest"].values
        after = near[1:].max() if by_group else near[-1].mean()
        out.append(f"Half of the validation stations have a station to learn from within {near[0].mean():.3g} km, and within "
                   f"{after:.3g} km after the largest removal: neighbours stand in for what was removed.")  # fmt: skip
    else:
        out.append("Validation stations that are neighbours of removed ones may have others as near: without coordinates that is "
                   "not known here.")  # fmt: skip
    out.append(
        "It may also mean that these models cannot learn more from stations of this kind, whatever their number."
    )
    return out


# ------------------------------------------------------------------------------------------------------- replicates
@dataclass(frozen=True, eq=False)
class _Curve:
    """Scores (level, replicate) of one model over some validation stations; the first replicate is the sample itself."""

    model: str
    scored: str
    metric: str
    levels: list[Any]
    n_stations: Array
    stations: int
    removals: NDArray[np.int64]
    score: Array
    of_removals: Array
    replicates: int
    level: float

    @property
    def unit(self) -> str:
        return "percent" if self.metric != "coverage90" else "absolute"

    @property
    def change(self) -> Array:
        return _from_first(self.score, self.metric)

    def clusters(self, i: int) -> Clusters:
        return Clusters(self.stations, int(self.removals[i]), kinds=("validation station", "removal"))

    def ends(self, values: Array, i: int) -> tuple[float, float]:
        if not self.replicates:
            return np.nan, np.nan
        return cluster_interval(
            values, self.level, self.clusters(i), replicates=self.replicates, stations=self.stations
        )

    def how(self, i: int) -> str:
        """How the interval is made, in the words of what is resampled here."""
        return self.clusters(i).how


def _curves(
    result: xr.Dataset, metric: str | None, replicates: int, level: float, random_seed: int | None
) -> list[_Curve]:
    metric = metric or str(result.attrs["metric"])
    check_known([metric], PARTS, kind="metric", where="the result")
    part = result[f"station_{PARTS[metric]}"].values
    rows = result["rows"].values
    by_group = result.attrs["by"] == "group"
    levels = result["removed" if by_group else "share"].values.tolist()
    n_stations = result["n_stations"].values.mean(axis=1)
    group = result["group"].values if "group" in result.coords else np.full(len(rows), "")
    out = []
    for m, model in enumerate(result["model"].values.tolist()):
        for scored in ("all", "own", "others") if by_group else ("all",):
            for some in [list(range(len(levels)))] if scored == "all" else [[0, i] for i in range(1, len(levels))]:
                inside = (rows > 0) & ((scored == "all") | ((group == levels[some[-1]]) == (scored == "own")))
                if inside.any():
                    mean, score, fitted = _replicated(
                        part[m][some][..., inside], rows[inside], metric, replicates, random_seed
                    )
                    out.append(_Curve(
                        str(model), scored, metric, [levels[i] for i in some], n_stations[some], int(inside.sum()), fitted,
                        score, _from_first(mean, metric), replicates, level,
                    ))  # fmt: skip
    return out


def _replicated(
    part: Array, rows: NDArray[np.int64], metric: str, replicates: int, random_seed: int | None
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Means of each removal (level, removal), over removals in every replicate (level, replicate), and removals fitted."""
    drawn = _drawn(part.shape[2], part.shape[1], replicates, random_seed)
    weight = rows[:, None] * drawn.station
    total = weight.sum(axis=0)
    mean = part @ (weight / np.where(total > 0, total, np.nan))
    mean = np.sqrt(mean) if metric == "rmse" else mean
    there = np.isfinite(part).all(axis=2)
    count = there.astype(np.float64) @ drawn.block
    known = np.einsum("lrb,rb->lb", np.where(there[:, :, None], mean, 0.0), drawn.block)
    return mean[:, :, 0], known / np.where(count > 0, count, np.nan), there.sum(axis=1)


def _from_first(values: Array, metric: str) -> Array:
    """Change from nothing removed: in percent, but for the coverage."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100.0 * (values / values[0] - 1.0) if metric != "coverage90" else values - values[0]


def _drawn(stations: int, removals: int, replicates: int, random_seed: int | None) -> Replicates:
    grid = np.repeat(np.arange(stations), removals), np.tile(np.arange(removals), stations)
    return leave_out(pigeonhole(*grid, replicates=replicates, random_seed=random_seed))


def _spread(change: Array, level: float) -> tuple[float, float]:
    known = change[np.isfinite(change)]
    if len(known) < MIN_REMOVALS:
        return np.nan, np.nan
    low, high = interval(known, level)
    return float(low), float(high)
