"""Coverage of predictive intervals in parts of the rows: fifths of the predicted value, seasons, labels of one's own.

A model whose 90 % intervals hold 90 % of all observations may still hold 97 % of the low ones and 75 % of the high ones: one
width for rows of unlike variance. Parts are made by what was predicted, never by what was observed: rows chosen by their
observation make even the true distribution look bad (the forecaster's dilemma).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.comparison.bootstrap import Replicates
from bayesens.comparison.common_rows import LEVEL, SEASONS, season
from bayesens.comparison.folds.news import ALL_CONVERGED, without_convergence
from bayesens.comparison.group_metrics import POOLED
from bayesens.comparison.row_resampling import Resampling, resampling
from bayesens.comparison.skill import replicate_means
from bayesens.messages import UnknownName, listed, warn

__all__ = ["FIFTHS", "coverage_table", "coverage_words", "has_seasons"]

Array = NDArray[np.float64]
PREDICTED, SEASON = "predicted", "season"
FIFTHS = ("lowest fifth", "2nd fifth", "3rd fifth", "4th fifth", "highest fifth")
MIN_ROWS = 20  # rows, below which a share says nothing: that of 19 rows has a standard error of 7 points at 90 %, and 11 at 50 %
TIE = 1e-9  # share of the greatest prediction within which two predictions are equal: their last digits are rounding


def coverage_table(
    rows: xr.Dataset,
    *,
    by: str | Sequence[str] = PREDICTED,
    levels: Sequence[float] = (0.5, 0.9),
    replicates: int = 0,
    block: float | None = 30.0,
    level: float = 0.9,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """Share of observations inside predictive intervals, and their mean width, in every class of rows.

    Parameters
    ----------
    rows : Dataset
        From `compare`, or from `common_rows` with its intervals of 90 % alone.
    by : str or sequence of str
        What makes the classes: "predicted", fifths of each model's own predictive means; "season", DJF, MAM, JJA and SON; or a
        label of the rows, such as "group" or one that was given. A label of the rows called "season" stands in place of these.
    levels : sequence of float
        Of the predictive intervals: some of those that the rows have, .5, .8, .9 and .95 from `compare`.
    replicates, block, level, random_seed
        As in `score_table`: intervals of coverage and width by resampled stations and blocks of time. The limits of the fifths
        stay as they are in every replicate.

    Returns
    -------
    DataFrame
        One line a model, class and level; products have no intervals and stand in no line. ``model``, ``estimand``, ``by``,
        ``group`` (the class; "all" for all rows, where ``by`` is ""), ``n`` rows, ``stations``, ``predicted`` (mean of the
        predictions there) [units], ``level``, ``coverage``, ``width`` (mean) [units]; ``..._low`` and ``..._high`` of both with
        ``interval``, how they were made, if there are replicates; ``note``, why a class has no value ("" where it has);
        ``not_converged`` as in `score_table`.

    Raises
    ------
    KeyError, TypeError, ValueError
        An unknown ``by`` or level; seasons of rows without dates or of one season; rows of products alone; and as `score_table`.

    Warns
    -----
    UserWarning
        With the number of rows whose label is missing: they count in "all" alone.

    Notes
    -----
    A class of fewer than 20 rows has no value. Equal predictions lie in one class, so that fifths of a model with ties
    differ in size, and a model that predicts the same everywhere has none. Where all observations of a class lie inside, or none
    does, resampling says nothing of how sure that is, and there is no interval.

    Examples
    --------
    >>> there, number = ("model", "obs"), np.arange(100.0)
    >>> rows = xr.Dataset({"prediction": (there, [number]), "coverage90": (there, [number < 80]),
    ...                    "width90": (there, [np.full(100, 2.0)])}, {"model": ["BMA"]})
    >>> coverage_table(rows, by="predicted", levels=[0.9])[["group", "n", "predicted", "coverage", "width"]]
               group    n  predicted  coverage  width
    0            all  100       49.5       0.8    2.0
    1   lowest fifth   20        9.5       1.0    2.0
    2      2nd fifth   20       29.5       1.0    2.0
    3      3rd fifth   20       49.5       1.0    2.0
    4      4th fifth   20       69.5       1.0    2.0
    5  highest fifth   20       89.5       0.0    2.0
    """
    names, values = _class_labels(rows, by), _interval_values(rows, levels)
    design, unsure = resampling(rows, replicates=replicates, block=block), without_convergence(rows)
    lines = []
    for name in ("", *names):
        own = name == PREDICTED and name not in _labels(rows)  # classes that every model has of its own
        shared = None if own else _classes(rows, name)
        drawn = design.drawn(random_seed) if shared is None else design.drawn_within(shared.label, random_seed)
        for model, scores in values.items():
            classes = _fifths(scores["predicted"]) if shared is None else shared
            key = {"model": model, "estimand": rows.attrs.get("estimand", ""), "by": name}
            doubt = {"not_converged": unsure.get(model, ALL_CONVERGED)}
            lines += [key | line | doubt for line in _lines(classes, scores, levels, design, drawn, level)]
    order = {name: i for i, name in enumerate(values)}
    return pd.DataFrame(lines).sort_values(
        "model", key=lambda column: column.map(order), kind="stable", ignore_index=True
    )


def coverage_words(table: pd.DataFrame, by: str) -> str:
    """Say where coverage is furthest from what intervals promise, and which classes have no value.

    Parameters
    ----------
    table : DataFrame
        From `coverage_table`, of one estimand.
    by : str
        Whose classes.

    Returns
    -------
    str
        A sentence, and a second one where classes have no value.

    Raises
    ------
    ValueError
        If the table has no classes by that name.

    Examples
    --------
    >>> table = pd.DataFrame({"model": "BMA", "by": "season", "group": ["DJF", "JJA"], "n": [50, 12], "level": 0.9, "note": ["",
    ...                       "12 rows, fewer than 20"], "coverage": [0.8, np.nan]})
    >>> print(coverage_words(table, "season"))
    By season, coverage is furthest from nominal for BMA in DJF: its 90 % intervals hold 80.0 % of 50 observations. There is
    no value for JJA (12 rows, fewer than 20).
    """
    lines = table[table["by"] == by]
    if not len(lines):
        raise ValueError(f"the table has no classes by {by!r}, but {listed(_made_by(table))}; make it with by={by!r}")
    known, lacking = lines[lines["coverage"].notna()], lines[lines["coverage"].isna()]
    return " ".join(text for text in (_furthest(known, by), _lacking(lacking, lines["model"].nunique())) if text)


def has_seasons(rows: xr.Dataset) -> bool:
    """Whether rows lie in more than one season, so that ``by="season"`` of `coverage_table` has something to tell.

    Examples
    --------
    >>> has_seasons(xr.Dataset(coords={"time": ("obs", np.array(["2021-01-01", "2021-07-01"], dtype="datetime64[ns]"))}))
    True
    """
    if SEASON not in _labels(rows) and ("time" not in rows.coords or rows["time"].dtype.kind != "M"):
        return False
    return len(set(_seasons(rows).tolist()) - {""}) > 1


# --------------------------------------------------------------------------------------------------------------- classes
@dataclass(frozen=True, eq=False)
class _Classes:
    """Which class each row lies in ("": none), their names in order, and why there are none."""

    label: NDArray[np.str_]
    names: tuple[str, ...]
    why_none: str = ""


def _class_labels(rows: xr.Dataset, by: Any) -> list[str]:
    """Names of what makes classes, each known."""
    own = _labels(rows)
    known = f"'predicted', 'season' or a label of the rows ({listed(own) if own else 'they have none'})"
    names = [by] if isinstance(by, str) else list(by) if isinstance(by, Iterable) else [by]
    if odd := [name for name in names if not isinstance(name, str)]:
        raise TypeError(f"by has {listed(odd)}, which is no text; wanted {known}: by='predicted'")
    if unknown := [name for name in names if name not in (PREDICTED, SEASON, *own)]:
        raise UnknownName(f"by has {listed(unknown)}; wanted {known}: take one of these, or give compare(..., "
                          f"labels={{{unknown[0]!r}: ...}}) one label a row")  # fmt: skip
    if SEASON in names and SEASON not in own:
        _check_seasons(rows)
    return names


def _check_seasons(rows: xr.Dataset) -> None:
    there = rows["time"].dtype if "time" in rows.coords else None
    if there is None or there.kind != "M":
        came = "the rows have no times" if there is None else f"their times are {there}"
        raise ValueError(f"by='season' needs dates, and {came}; give the ensemble time=... with datetimes, or take "
                         "by='predicted'")  # fmt: skip
    if not has_seasons(rows):
        only = listed(sorted(set(_seasons(rows).tolist()) - {""})) or "no season"
        raise ValueError(f"by='season' needs rows of more than one season, and all {rows.sizes['obs']} lie in {only}; "
                         "give rows of a whole year, or take by='predicted'")  # fmt: skip


def _labels(rows: xr.Dataset) -> list[str]:
    return [str(name) for name, v in rows.coords.items() if v.dims == ("obs",) and v.dtype.kind == "U"]


def _seasons(rows: xr.Dataset) -> NDArray[np.str_]:
    return np.asarray(rows[SEASON].values) if SEASON in _labels(rows) else season(rows["time"].values)


def _classes(rows: xr.Dataset, name: str) -> _Classes:
    """Classes that all models share; all rows in one where there is no name."""
    if not name:
        return _Classes(np.full(rows.sizes["obs"], POOLED), (POOLED,))
    label = _seasons(rows) if name == SEASON else rows[name].values
    if missing := int((label == "").sum()):
        warn(f"{missing} of {len(label)} rows have no {name}: they count in '{POOLED}' alone")
    found = set(label.tolist()) - {""}
    return _Classes(label, tuple(SEASONS) if name == SEASON and found <= set(SEASONS) else tuple(sorted(found)))


def _fifths(prediction: Array) -> _Classes:
    """Fifths of what a model predicts; equal predictions lie in one of them."""
    largest = float(np.abs(prediction).max())
    value = np.round(prediction / (TIE * largest if largest > 0.0 else 1.0))
    if value.min() == value.max():
        return _Classes(np.full(len(value), ""), FIFTHS, "its predictions are all equal")
    ends = np.quantile(value, np.arange(1, len(FIFTHS)) / len(FIFTHS))
    return _Classes(np.array(FIFTHS)[np.searchsorted(ends, value)], FIFTHS)


# ---------------------------------------------------------------------------------------------------------------- values
def _interval_values(rows: xr.Dataset, levels: Sequence[float]) -> dict[str, dict[str, Array]]:
    """What is averaged, by model, each (obs)."""
    models = [name for name in rows["model"].values.tolist() if rows["coverage90"].sel(model=name).notnull().any()]
    if not models:
        raise ValueError(f"{listed(rows['model'].values.tolist())} are point predictions, which have no intervals; give rows of "
                         "compare(), with a model among them")  # fmt: skip
    if not len(levels):
        raise ValueError("levels is empty; wanted levels of predictive intervals: levels=(0.5, 0.9)")
    found = {}
    for model in models:
        mine = rows.sel(model=model)
        found[model] = {"predicted": np.asarray(mine["prediction"].values, dtype=np.float64)}
        for each in levels:
            found[model] |= _of_level(mine, float(each))
    return found


def _of_level(mine: xr.Dataset, level: float) -> dict[str, Array]:
    """Coverage and width of one model's intervals of a level, (obs)."""
    if np.isclose(level, LEVEL):
        inside, width = mine["coverage90"], mine["width90"]
    elif "covered" in mine and np.isclose(mine["level"].values, level).any():
        inside = mine["covered"].sel(level=level, method="nearest")
        low, high = (mine["quantile_value"].sel(quantile=end, method="nearest")
                     for end in (0.5 - level / 2, 0.5 + level / 2))  # fmt: skip
        width = high - low
    else:
        known = mine["level"].values.tolist() if "covered" in mine else [LEVEL]
        raise ValueError(f"levels has {level:g}, and the rows have intervals of {listed(known)}; take some of these: "
                         f"levels=({known[0]:g},)")  # fmt: skip
    parts = {"coverage": inside, "width": width}
    return {f"{name} {level:g}": np.asarray(each.values, dtype=np.float64) for name, each in parts.items()}


def _lines(
    classes: _Classes, scores: dict[str, Array], levels: Sequence[float], design: Resampling, drawn: Replicates, level: float
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """One line for each class and level."""
    for name in classes.names:
        where = np.flatnonzero(classes.label == name)
        few = len(where) < MIN_ROWS
        note = classes.why_none or _why_few(len(where))
        predicted = scores["predicted"][where].mean() if len(where) else np.nan
        means = {} if few else _means(scores, where, design, drawn)
        clusters = design.clusters(where)
        for each in levels:
            line: dict[str, Any] = {"group": name, "n": len(where), "stations": design.stations(where), "predicted": predicted,
                                    "level": float(each)}  # fmt: skip
            parts = {key: means.get(f"{key} {each:g}") for key in ("coverage", "width")}
            line |= {key: np.nan if part is None else part[0] for key, part in parts.items()}
            if design.replicates:
                for key, part in parts.items():
                    low, high = (np.nan, np.nan) if part is None else design.ends(part, level, clusters)
                    line |= dict(zip((f"{key}_low", f"{key}_high"), _as_shares(key, low, high, line[key]), strict=True))
                line["interval"] = "none: no value" if few else clusters.how
            yield line | {"note": note}


def _why_few(n: int) -> str:
    """Why a class of so many rows has no value; empty where it has."""
    if n >= MIN_ROWS:
        return ""
    return f"{n} row{'s' * (n != 1)}, fewer than {MIN_ROWS}" if n else "no rows"


def _as_shares(name: str, low: float, high: float, value: float) -> tuple[float, float]:
    """Ends of a share within 0 and 1; none where all rows agree, for resampled they agree as well."""
    if name != "coverage":
        return low, high
    return (np.nan, np.nan) if value in (0.0, 1.0) else (float(np.clip(low, 0.0, 1.0)), float(np.clip(high, 0.0, 1.0)))


def _means(
    scores: dict[str, Array], where: NDArray[np.intp], design: Resampling, drawn: Replicates
) -> dict[str, Array]:
    """Means over the rows of a class in every replicate."""
    kept, station = np.unique(design.station[where], return_inverse=True)
    some = Replicates(drawn.station[kept], drawn.block)
    return replicate_means({key: each[where] for key, each in scores.items()}, station, design.block[where], some)


# ----------------------------------------------------------------------------------------------------------------- words
def _furthest(lines: pd.DataFrame, by: str) -> str:
    """The class of the largest gap, and the model whose largest gap is the smallest."""
    if not len(lines):
        return ""
    gap = (lines["coverage"] - lines["level"]).abs()
    worst = lines.iloc[int(gap.argmax())]
    named = "predicted value" if by == PREDICTED else by
    text = (f"By {named}, coverage is furthest from nominal for {worst['model']} in {_class_name(worst, by)}: its "
            f"{100 * worst['level']:g} % intervals hold {100 * worst['coverage']:.1f} % of {worst['n']:,} "
            "observations")  # fmt: skip
    text += _how_sure(worst) if "coverage_low" in lines else ""
    largest = lines.loc[gap.groupby(lines["model"], sort=False).idxmax()]  # the worst class of every model
    if len(largest) > 1:
        gaps = (largest["coverage"] - largest["level"]).abs()
        nearest = largest.iloc[int(gaps.argmin())]
        text += (f"; {nearest['model']} stays nearest, with a largest gap of {100 * gaps.min():.1f} points, of its "
                 f"{100 * nearest['level']:g} % intervals in {_class_name(nearest, by)}")  # fmt: skip
    return f"{text}."


def _how_sure(line: Any) -> str:
    """The interval of a coverage, and whether it leaves out what was promised."""
    low, high, promised = line["coverage_low"], line["coverage_high"], line["level"]
    if not np.isfinite(low):
        return ""  # too few clusters, or all rows inside
    doubt = f", which does not tell it from {100 * promised:g} %" if low <= promised <= high else ""
    return f" ({100 * low:.0f} to {100 * high:.0f} % when resampled{doubt})"


def _class_name(line: Any, by: str) -> str:
    if by == PREDICTED:
        return f"the {line['group']} of its predictions"
    return str(line["group"]) if by == SEASON else f"{by} {line['group']}"


def _lacking(lines: pd.DataFrame, models: int) -> str:
    """Which classes have no value, those of all models once."""
    said: dict[tuple[str, str], list[str]] = {}
    for (group, note), part in lines.groupby(["group", "note"], sort=False):
        mine = list(dict.fromkeys(part["model"]))
        whose = "" if len(mine) == models else f" of {', '.join(mine)}"
        said.setdefault((str(note), whose), []).append(str(group))
    each = [f"{', '.join(groups)}{whose} ({note})" for (note, whose), groups in said.items()]
    return f"There is no value for {'; '.join(each)}." if each else ""


def _made_by(table: pd.DataFrame) -> list[str]:
    return [name for name in dict.fromkeys(table["by"]) if name]
