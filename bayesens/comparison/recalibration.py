"""Recalibration of the predictive distributions of held-out rows, and what it changes at stations that it has not seen.

A map of levels always fits the rows that it was made from. What it is worth shows at other stations: these are dealt into folds,
and the rows of each are scored under the map of the others. Quantiles, CRPS and means of the recalibrated distributions come from
the quantiles that rows keep, as `QuantileLines`; the CRPS and the mean are those that the rows have, plus the change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.common_rows import LEVEL
from bayesens.comparison.folds.held_out_rows import ROW
from bayesens.comparison.group_metrics import POOLED
from bayesens.distributions.levels.quantile_lines import QuantileLines
from bayesens.distributions.levels.recalibration import METHODS, Recalibration, recalibration_of
from bayesens.members.folds import site_folds
from bayesens.messages import check_known, listed, warn
from bayesens.tables.columns import labels

__all__ = [
    "AFTER",
    "before_and_after",
    "models_with_pits",
    "recalibrate",
    "recalibrated_rows",
    "recalibration_table",
]

Array = NDArray[np.float64]
AFTER = ", recalibrated"  # ends the name of a model in `recalibrated_rows`
PRIOR = 20.0  # uniform PITs that are mixed in
LEVELS = (0.5, 0.9)  # of the intervals in the table


def recalibrate(
    rows: xr.Dataset | ArrayLike, model: str | None = None, *, method: str = "beta", prior: float = PRIOR,
    site: ArrayLike | None = None,
) -> Recalibration:  # fmt: skip
    """Estimate the map that makes predictive distributions calibrated, from the PITs of rows that were held out.

    Parameters
    ----------
    rows : Dataset, or array (obs)
        From `compare`, or from `score` at rows that the fit has not seen; or PITs, their ``pit`` or your own.
    model : str, optional
        Whose PITs, where the rows have several models.
    method : {"beta", "isotonic"}
        "beta": the PITs follow a beta distribution, whose two shapes mend a wrong width and a bias. "isotonic": their own
        distribution function at 29 levels, which bends where it likes and asks for more stations.
    prior : float
        So many uniform PITs are mixed in, which change nothing; at least 1. With few stations the map stays near to the identity.
    site : array_like (obs), optional
        Labels of stations, which weigh equally. None: ``site`` of the rows, ``group`` where whole groups were held out, or rows
        one by one where the estimand is "row" and there are no stations.

    Returns
    -------
    Recalibration
        Of `predict`.

    Raises
    ------
    KeyError, TypeError, ValueError
        An unknown method or model; PITs that are missing or outside [0, 1]; no stations, or one alone.

    Notes
    -----
    Where the rows of a station err alike, they count as few. "beta" changes little where PITs differ from uniform ones by no more
    than chance. Look at `recalibration_table` before a map is used: where distributions are calibrated it can only add noise, and
    one map for all rows cannot mend a model that is too narrow in one group and too wide in another (see `coverage_table`).

    In simulations with 10, 30 and 100 stations, whose own biases make a quarter of the variance, and 40 rows each, the CRPS at
    other stations changes on average by +.2, +.1 and +.0 % ("isotonic": +.9, +.5, +.2) for calibrated normal distributions, and
    by -2.1, -3.0 and -3.2 % (-1.7, -2.7, -3.0) where errors are 1.5 times as wide as predicted; 90 % intervals then hold 83, 88
    and 90 % (84, 89, 90) in place of 73 %.

    Examples
    --------
    Forecasts whose standard deviation is half of what it should be:

    >>> from scipy.special import ndtr, ndtri
    >>> pit = ndtr(2.0 * np.random.default_rng(1).normal(size=4000))
    >>> made = recalibrate(pit, site=np.arange(4000) % 40)
    >>> ndtri(made.quantile([0.05, 0.25, 0.75, 0.95])).round(1)  # twice the normal quantiles are 3.3 and 1.3
    array([-3.2, -1.4,  1.4,  3.2])
    """
    check_known([method], METHODS, kind="method", where="recalibrate")
    if not 1.0 <= prior < np.inf:
        raise ValueError(
            f"prior is the number of uniform PITs that are mixed in, at least 1, such as 20; got {prior!r}"
        )
    name, found = _pits_of(rows, model)
    pit = np.asarray(found, dtype=np.float64)
    if pit.ndim != 1:
        raise ValueError(
            f"got PITs of shape {pit.shape}; wanted one a row: recalibrate(rows, model='BMA'), or an array (obs)"
        )
    _check_pits(pit)
    estimand = str(rows.attrs.get("estimand", "")) if isinstance(rows, xr.Dataset) else ""
    station = _stations(found, site, estimand)
    return recalibration_of(
        pit,
        np.unique(station, return_inverse=True)[1],
        method=method,
        prior=float(prior),
        model=name,
        estimand=estimand,
    )


def recalibrated_rows(
    rows: xr.Dataset, *, method: str = "beta", prior: float = PRIOR, folds: int = 5, random_seed: int | None = None
) -> xr.Dataset:
    """Rows with every model once more, recalibrated by other stations than those of the row.

    Parameters
    ----------
    rows : Dataset
        From `compare`.
    method, prior
        As in `recalibrate`.
    folds : int
        Of stations, or of groups where whole groups were held out: the rows of each are recalibrated by those of the others.
        Fewer where there are fewer stations.
    random_seed : int, optional
        Of the deal of stations into folds; None: one deal, always the same.

    Returns
    -------
    Dataset
        On ``(model, obs)``, with models called such as "BMA, recalibrated" after the others: every table of rows takes them,
        `score_table`, `paired_differences` and `coverage_table` among them. Their ``sd`` and ``twcrps`` are NaN.

    Raises
    ------
    KeyError, TypeError, ValueError
        As `recalibrate`; rows without quantiles, or that are recalibrated already.

    Notes
    -----
    Between the nine quantiles that rows keep, distributions are taken as straight on the scale of normal scores. CRPS and mean
    are exact before, and their change is that of the lines.

    Examples
    --------
    >>> rng, level = np.random.default_rng(1), np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    >>> from scipy.special import ndtr, ndtri
    >>> y, there = 2.0 * rng.normal(size=2000), ("model", "obs")
    >>> values = {"pit": (there, [ndtr(y)]), "crps": (there, [np.abs(y)]), "log_score": (there, [y**2 / 2]),
    ...           "prediction": (there, [0.0 * y]), "quantile_value": ((*there, "quantile"), [np.tile(ndtri(level), (2000, 1))])}
    >>> site = np.arange(2000).astype(str)
    >>> rows = xr.Dataset(values, {"model": ["BMA"], "site": ("obs", site), "quantile": level, "point": ("model", [False])})
    >>> after = recalibrated_rows(rows)
    >>> after["model"].values.tolist(), float(after["coverage90"].sel(model="BMA, recalibrated").mean().round(2))
    (['BMA', 'BMA, recalibrated'], 0.9)
    """
    names = models_with_pits(rows)
    estimand = str(rows.attrs.get("estimand", ""))
    station = _stations(rows, None, estimand)
    if (number := len(np.unique(station))) < 3:
        kind = "groups" if estimand == "group" else "sites"
        raise ValueError(f"the rows are of {number} {kind}; wanted three or more, for each is recalibrated by the others, and a "
                         "map needs two: see be.recalibrate for a map of all")  # fmt: skip
    fold = site_folds(station, folds=min(folds, number), random_seed=random_seed)
    make = partial(recalibrate, method=method, prior=prior)
    others = [_one(rows.sel(model=[name]), name, fold, make) for name in names]
    out = xr.concat([rows, *others], "model", data_vars="minimal", coords="minimal", compat="override", join="outer")
    return out.assign_coords(model=np.array([*rows["model"].values.tolist(), *(name + AFTER for name in names)]))


def recalibration_table(
    rows: xr.Dataset, *, by: str | Sequence[str] | None = None, method: str = "beta", prior: float = PRIOR, folds: int = 5,
    random_seed: int | None = None,
) -> pd.DataFrame:  # fmt: skip
    """What recalibration changes at stations that it has not seen.

    Parameters
    ----------
    rows : Dataset
        From `compare`.
    by : str or sequence of str, optional
        Labels of the rows, such as "group", whose groups get lines too.
    method, prior, folds, random_seed
        As in `recalibrated_rows`.

    Returns
    -------
    DataFrame
        One line a model and group, all rows first: ``model``, ``estimand``, ``by``, ``group``, ``n`` rows, ``stations``;
        ``coverage50``, ``width50`` [units], ``coverage90``, ``width90`` [units] and ``crps`` [units], each ``..._before`` and
        ``..._after``, means over rows.

    Raises
    ------
    KeyError, TypeError, ValueError
        As `recalibrated_rows`, and an unknown label.

    Notes
    -----
    Whether a change is more than chance: ``paired_differences(recalibrated_rows(rows), ...)`` resamples stations.

    Examples
    --------
    >>> import bayesens as be
    >>> rng = np.random.default_rng(1)
    >>> y = rng.normal(size=240)
    >>> frame = pd.DataFrame({"rf": y + rng.normal(size=240), "y": y, "station": np.arange(240) % 12})
    >>> ensemble = be.Ensemble.from_frame(frame, members=["rf"], observation="y", site="station")
    >>> rows = be.compare([be.SingleMember()], ensemble, estimand="site", method="em", progressbar=False)
    >>> recalibration_table(rows)[["group", "n", "stations", "coverage90_before", "coverage90_after"]].round(1)
      group    n  stations  coverage90_before  coverage90_after
    0   all  240        12                0.9               0.9
    """
    both = recalibrated_rows(rows, method=method, prior=prior, folds=folds, random_seed=random_seed)
    return before_and_after(rows, both, by=by)


def before_and_after(rows: xr.Dataset, both: xr.Dataset, *, by: str | Sequence[str] | None = None) -> pd.DataFrame:
    """Return the lines of `recalibration_table`, from rows and from what `recalibrated_rows` made of them."""
    asked = [by] if isinstance(by, str) else list(by or ())
    known = [str(name) for name, v in rows.coords.items() if v.dims == ("obs",) and v.dtype.kind == "U"]
    check_known(asked, known, kind="label", where="the rows")
    station = np.unique(_stations(rows, None, ""), return_inverse=True)[1] if "site" in rows.coords else None
    lines = []
    for name in models_with_pits(rows):
        halves = {"before": _means(both.sel(model=name)), "after": _means(both.sel(model=name + AFTER))}
        values = {f"{key}_{when}": half[key] for key in halves["before"] for when, half in halves.items()}
        for label, group, where in _groups(rows, asked):
            key = {
                "model": name,
                "estimand": str(rows.attrs.get("estimand", "")),
                "by": label,
                "group": group,
                "n": len(where),
            }
            stations = {"stations": 0 if station is None else len(np.unique(station[where]))}
            lines.append(key | stations | {each: value[where].mean() for each, value in values.items()})
    return pd.DataFrame(lines)


# ------------------------------------------------------------------------------------------------------------------ the door
def _pits_of(rows: Any, model: str | None) -> tuple[str, Any]:
    """The name of a model, and its PITs (obs)."""
    if not isinstance(rows, xr.Dataset):
        if model is not None:
            raise TypeError(f"model={model!r} names a model of rows, and got {type(rows).__name__}; leave it out")
        return "", rows
    if "model" not in rows.dims:
        if "pit" not in rows:
            raise ValueError(
                f"the rows have {listed(map(str, rows.data_vars))}, and no pit; give those of be.compare or be.score"
            )
        return model or "", rows["pit"]
    names = models_with_pits(rows)
    if model is None and len(names) > 1:
        raise ValueError(f"the rows have PITs of {listed(names)}; name one: recalibrate(rows, {names[0]!r})")
    name = names[0] if model is None else model
    check_known([name], names, kind="model with PITs", where="the rows")
    return name, rows["pit"].sel(model=name)


def models_with_pits(rows: Any) -> list[str]:
    """Names of the models that have PITs; products have none."""
    if not isinstance(rows, xr.Dataset) or "pit" not in rows or "model" not in rows.dims:
        raise ValueError("got rows without the PITs of models; wanted rows of be.compare (common_rows keeps none)")
    names = [str(name) for name in rows["model"].values if bool(rows["pit"].sel(model=name).notnull().any())]
    if not names:
        raise ValueError(f"{listed(map(str, rows['model'].values))} are point predictions, which have no PIT; give rows of "
                         "be.compare with a model among them")  # fmt: skip
    return names


def _check_pits(pit: Array) -> None:
    if missing := int(np.isnan(pit).sum()):
        raise ValueError(
            f"{missing} of {pit.size} PITs are missing (NaN); leave them out: rows.sel(obs=rows['pit'].notnull())"
        )
    outside = (pit < 0.0) | (pit > 1.0)
    if outside.any():
        raise ValueError(f"{int(outside.sum())} of {pit.size} PITs lie outside [0, 1] (first: {pit[outside][0]:g}); wanted F(y), "
                         "the predictive probability of lying below the observation: the pit of be.score")  # fmt: skip


def _stations(rows: Any, site: ArrayLike | None, estimand: str) -> NDArray[np.str_]:
    """What errs alike and is held out: the labels given, the groups that were held out, the stations, or rows one by one."""
    name = "group" if estimand == "group" else "site"
    given = site if site is not None else rows.coords.get(name) if isinstance(rows, xr.Dataset | xr.DataArray) else None
    size = rows.sizes["obs"] if isinstance(rows, xr.Dataset | xr.DataArray) else np.size(rows)
    if given is None and estimand == ROW:
        return np.arange(size).astype(np.str_)
    if given is None:
        raise ValueError(f"the PITs have no {name}, and those of one station err alike; give site=..., one label a row, or rows "
                         f"of an ensemble that has {name}=...")  # fmt: skip
    found = labels(pd.Series(np.asarray(given).reshape(-1), name=name))
    if len(found) != size:
        raise ValueError(f"{name} has {len(found)} labels; wanted one for each of {size} rows")
    if missing := int((found == "").sum()):
        raise ValueError(f"{missing} of {size} rows have no {name}, and would count as one; leave them out")
    if len(only := np.unique(found)) < 2:
        raise ValueError(f"all {size} PITs are of one {name} ({str(only[0])!r}), which tells nothing of others; wanted two or "
                         "more, and twenty before much changes")  # fmt: skip
    return found


# ------------------------------------------------------------------------------------------------------------------ the rows
def _one(mine: xr.Dataset, name: str, fold: NDArray[np.int64], make: Any) -> xr.Dataset:
    """One model's rows (model, obs), each under the map of the other folds."""
    if "quantile_value" not in mine:
        raise ValueError("the rows have no quantiles; wanted rows of be.compare, which keeps nine of each row")
    if name.endswith(AFTER):
        raise ValueError(f"{name!r} is recalibrated already; give the rows without it")
    parts = []
    for k in range(int(fold.max()) + 1):
        some, rest = mine.isel(obs=fold == k), mine.isel(obs=fold != k)
        parts.append(_recalibrated(some, make(rest, name)))
    order = np.argsort(np.concatenate([np.flatnonzero(fold == k) for k in range(int(fold.max()) + 1)]))
    made = xr.concat(parts, "obs", data_vars="minimal", coords="minimal", compat="override").isel(obs=order)
    return made.assign_coords({key: v for key, v in mine.coords.items() if v.dims == ("obs",)})


def _recalibrated(mine: xr.Dataset, law: Recalibration) -> xr.Dataset:
    """One model's rows under a map of levels."""
    one = mine.isel(model=0)
    level, pit = one["quantile"].values, one["pit"].values
    lines = QuantileLines(level, one["quantile_value"].transpose("obs", "quantile").values)
    new = law.cdf(pit)
    found = {
        "prediction": one["prediction"] + lines.mean_change(law.cdf),
        "crps": np.maximum(one["crps"] + lines.crps_change(law.cdf, pit), 0.0),
        "log_score": one["log_score"] - law.logpdf(pit),
        "pit": ("obs", new),
        "quantile_value": (("obs", "quantile"), lines.quantiles(law.quantile(level))),
        "coverage90": ("obs", _inside(new, LEVEL)),
        "width90": ("obs", np.diff(lines.quantiles(law.quantile([0.5 - LEVEL / 2, 0.5 + LEVEL / 2])), axis=1)[:, 0]),
    }
    if "covered" in one:
        found["covered"] = (("level", "obs"), np.stack([_inside(new, each) for each in one["level"].values]))
    if "probability_below" in one:
        found["probability_below"] = ("obs", law.cdf(one["probability_below"].values))
    made = xr.Dataset(found, coords=one.coords).expand_dims("model")
    return made.assign({key: xr.full_like(mine[key], np.nan) for key in ("sd", "twcrps") if key in mine})


def _inside(pit: Array, level: float) -> Array:
    """Whether the central interval holds the observation."""
    return (np.abs(pit - 0.5) <= level / 2.0).astype(np.float64)


# ----------------------------------------------------------------------------------------------------------------- the table
def _means(one: xr.Dataset) -> dict[str, Array]:
    """What the table has of one model, row by row, with intervals of the same quantiles before and after."""
    found = {}
    lines = QuantileLines(one["quantile"].values, one["quantile_value"].transpose("obs", "quantile").values)
    for level in LEVELS:
        ends = lines.quantiles([0.5 - level / 2, 0.5 + level / 2])
        found[f"coverage{100 * level:g}"] = _inside(one["pit"].values, level)
        found[f"width{100 * level:g}"] = ends[:, 1] - ends[:, 0]
    return found | {"crps": one["crps"].values}


def _groups(rows: xr.Dataset, by: Sequence[str]) -> Iterator[tuple[str, str, NDArray[np.intp]]]:
    """The label, the group and its rows; all of them first."""
    yield "", POOLED, np.arange(rows.sizes["obs"])
    for name in by:
        label = rows[name].values
        if missing := int((label == "").sum()):
            warn(f"{missing} of {len(label)} rows have no {name}: they count in '{POOLED}' alone")
        for group in sorted(set(label.tolist()) - {""}):
            yield name, group, np.flatnonzero(label == group)
