"""Models and products laid on the rows that all of them have, with the labels that tables group them by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.bands import band_limits, threshold_crps
from bayesens.distributions.law import Distribution
from bayesens.distributions.steps import Steps
from bayesens.ensemble.ensemble import Ensemble
from bayesens.messages import listed, warn
from bayesens.tables.columns import labels as as_labels

__all__ = ["SCORES", "Predictive", "add_threshold_crps", "common_rows", "in_season_order", "season"]

Array = NDArray[np.float64]
Predictive = Mapping[str, Distribution | Steps | ArrayLike]
LEVEL = 0.9  # of the predictive intervals whose coverage and width are kept
SCORES = ("crps", "log_score", "coverage90", "width90")
SEASONS = {"DJF": (12, 1, 2), "MAM": (3, 4, 5), "JJA": (6, 7, 8), "SON": (9, 10, 11)}
NORTH = {"winter": (12, 1, 2), "spring": (3, 4, 5), "summer": (6, 7, 8), "autumn": (9, 10, 11)}


def common_rows(
    scores: Mapping[str, xr.Dataset],
    ensemble: Ensemble,
    *,
    estimand: str,
    products: Mapping[str, ArrayLike] | None = None,
    labels: Mapping[str, ArrayLike] | None = None,
) -> xr.Dataset:
    """Lay models and products on the rows that all of them have.

    Parameters
    ----------
    scores : mapping of model name to Dataset
        What `score` gave for each, of rows of ``ensemble``: ``obs`` says which, counted from 0. Of several folds, joined by
        ``xarray.concat`` along ``obs``, once ``obs`` counts in ``ensemble`` again.
    ensemble : Ensemble
        The rows with their observations.
    estimand : str
        What the rows are to the models: "time", "site", "site-time" or "group" for what is new, or words of your own.
    products : mapping of name to array (row), optional
        Point predictions of every row of ``ensemble``, NaN where missing, such as ``{"ESA CCI": frame["cci"]}``.
    labels : mapping of name to array (row), optional
        Labels of every row of ``ensemble`` to make groups by, such as a region, a season or the land cover. ``site``,
        ``group`` and ``time`` come with the ensemble.

    Returns
    -------
    Dataset
        On ``(model, obs)``: ``prediction``, ``crps``, ``log_score``, ``coverage90``, ``width90``; on ``obs``:
        ``observation`` and the labels; ``point (model)`` marks products. The CRPS of a point prediction is its absolute
        error; its log score, coverage and width do not exist and are NaN. ``attrs`` hold ``estimand`` and the number
        ``rows_dropped``.

    Raises
    ------
    ValueError
        If there is nothing to compare, a name is given twice, rows of a model are not those of the ensemble, lengths
        differ, the 90 % interval was not scored, or no row is common to all.

    Warns
    -----
    UserWarning
        With the number of rows dropped because a model or product lacks them.

    Examples
    --------
    >>> frame = pd.DataFrame({"rf": [1.0, 2.0, 4.0], "sm": [1.5, 2.0, 3.0], "cci": [2.0, 2.0, 2.0]})
    >>> ensemble = Ensemble.from_frame(frame, members=["rf"], observation="sm")
    >>> rows = common_rows({}, ensemble, estimand="site", products={"CCI": frame["cci"], "RF": frame["rf"]})
    >>> rows["crps"].values.tolist()
    [[0.5, 0.0, 1.0], [0.5, 0.0, 1.0]]
    """
    products = dict(products or {})
    if not len(scores) + len(products):
        raise ValueError("there is nothing to compare; give scores={name: score(...)} or products={name: predictions}")
    if twice := sorted(set(scores) & set(products)):
        raise ValueError(f"{listed(twice)} stand both in scores and products; give each a name of its own")
    observation = ensemble.require_observation()
    parts = [_scored(str(name), each, ensemble, observation) for name, each in scores.items()]
    parts += [_point(str(name), values, observation) for name, values in products.items()]
    out = xr.concat(parts, dim=pd.Index([*map(str, scores), *map(str, products)], name="model"), join="exact")
    out = out.assign_coords(_coordinates(ensemble, labels or {})).assign(observation=("obs", observation))
    lacking = out["crps"].isnull() | out["prediction"].isnull()
    for name in SCORES[1:]:  # a model that has a score in some rows must have it in all that are kept
        lacking = lacking | (out[name].isnull() & out[name].notnull().any("obs"))
    observed = ~np.isnan(observation)
    keep = observed & ~lacking.any("model").values
    dropped = int(observed.sum() - keep.sum())
    count = (lacking.values & observed).sum(axis=1)
    by = ", ".join(f"{name!r} {n}" for name, n in zip(out["model"].values, count, strict=True) if n)
    if not keep.any():
        raise ValueError(
            f"no row is common to all: of {observed.sum()} observed rows, lacking are: {by}; leave one out"
        )
    if dropped:
        warn(f"{dropped} of {observed.sum()} observed rows are left out for all, because some lack them: {by}")
    out = out.assign_coords(obs=np.arange(ensemble.n_obs)).isel(obs=np.flatnonzero(keep))
    out = out.assign_coords(point=("model", np.repeat([False, True], [len(scores), len(products)])))
    out.attrs = {
        "estimand": estimand,
        "rows_dropped": dropped,
        "ensemble_rows": ensemble.n_obs,
        "units": ensemble.units,
    }
    return out


def _scored(name: str, scores: xr.Dataset, ensemble: Ensemble, observation: Array) -> xr.Dataset:
    where = _positions(name, scores, ensemble)
    level = scores["level"].values if "level" in scores.coords else np.array([])
    at = np.flatnonzero(np.isclose(level, LEVEL))
    if not at.size:
        raise ValueError(f"the scores of {name!r} are of the levels {listed(level.tolist())}; wanted 0.9 among them: "
                         "score(..., levels=(0.5, 0.9))")  # fmt: skip
    values = {"crps": scores["crps"].values, "log_score": scores["log_score"].values,
              "coverage90": scores["covered"].isel(level=at[0]).values, "width90": scores["width"].isel(level=at[0]).values,
              "prediction": scores["error"].values + observation[where]}  # fmt: skip
    out = {}
    for key, value in values.items():
        full = np.full(ensemble.n_obs, np.nan)
        full[where] = value
        out[key] = ("obs", full)
    return xr.Dataset(out)


def _positions(name: str, scores: xr.Dataset, ensemble: Ensemble) -> NDArray[np.intp]:
    """Which rows of the ensemble were scored; refuses scores of other rows."""
    where = np.asarray(scores["obs"].values, dtype=np.intp)
    head = f"the scores of {name!r} ({len(where)} rows) are not of this ensemble ({ensemble.n_obs} rows)"
    advice = "score every model on the same ensemble, or number obs by its rows"
    if len(where) and (where.min() < 0 or where.max() >= ensemble.n_obs):
        raise ValueError(f"{head}: obs goes from {where.min()} to {where.max()}; {advice}")
    if len(np.unique(where)) < len(where):
        raise ValueError(f"{head}: {len(where) - len(np.unique(where))} values of obs stand twice; {advice}")
    for key in ("site", "group", "time", "lon", "lat"):
        if (key in scores.coords) != (key in ensemble.dataset.coords):
            raise ValueError(f"{head}: only one of the two has a {key}; {advice}")
        if key in scores.coords:
            mine, theirs = scores[key].values, ensemble.dataset[key].values[where]
            differs = (mine != theirs) & ~(pd.isna(mine) & pd.isna(theirs))
            if differs.any():
                i = int(np.flatnonzero(differs)[0])
                raise ValueError(f"{head}: in {int(differs.sum())} rows the {key} differs (first: row {where[i]}, "
                                 f"{mine[i]!s} in the scores, {theirs[i]!s} in the ensemble); {advice}")  # fmt: skip
    return where


def _point(name: str, values: ArrayLike, observation: Array) -> xr.Dataset:
    prediction = _column(name, values, len(observation)).to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(prediction).any():
        raise ValueError(f"product {name!r} is infinite in {int(np.isinf(prediction).sum())} rows; set them to NaN")
    none = np.full(len(observation), np.nan)
    return xr.Dataset({"crps": ("obs", np.abs(prediction - observation)), "prediction": ("obs", prediction)}
                      | dict.fromkeys(SCORES[1:], ("obs", none)))  # fmt: skip


def _column(name: str, values: ArrayLike, rows: int) -> pd.Series:
    column = pd.Series(np.asarray(values), name=name)
    if len(column) != rows:
        raise ValueError(f"{name!r} has {len(column)} values; wanted one for each of the ensemble's {rows} rows")
    return column


def _coordinates(ensemble: Ensemble, labels: Mapping[str, ArrayLike]) -> dict[str, Any]:
    own = {str(key): ("obs", value.values) for key, value in ensemble.dataset.coords.items() if value.dims == ("obs",)}
    if taken := sorted(set(labels) & {*own, "obs", "model", "observation", "prediction", "twcrps", "point", *SCORES}):
        raise ValueError(f"the labels {listed(taken)} have names that the rows use themselves; choose others")
    named = {name: ("obs", as_labels(_column(name, values, ensemble.n_obs))) for name, values in labels.items()}
    return {key: value for key, value in own.items() if key != "obs"} | named


def season(
    time: ArrayLike, *, lat: ArrayLike | None = None, months: Mapping[str, Sequence[int]] | None = None
) -> NDArray[np.str_]:
    """Label times by season.

    Parameters
    ----------
    time : array (row)
        Datetimes.
    lat : array (row), optional
        Latitudes in degrees; the seasons are then winter, spring, summer and autumn, of either hemisphere.
    months : mapping of name to sequence of int, optional
        Your own seasons, such as ``{"wet": (6, 7, 8, 9)}``; without it DJF, MAM, JJA, SON.

    Returns
    -------
    array (row), unicode
        ``""`` where a time or latitude is missing, or a month is in no season.

    Raises
    ------
    ValueError
        For both ``lat`` and ``months``, a month that is none or in two seasons, or times that are no datetimes.

    Examples
    --------
    >>> days = np.array(["2021-01-15", "2021-07-15"], dtype="datetime64[D]")
    >>> season(days).tolist(), season(days, lat=[40.0, -35.0]).tolist()
    (['DJF', 'JJA'], ['winter', 'winter'])
    """
    if lat is not None and months is not None:
        raise ValueError("give either lat, for the seasons of a hemisphere, or months, for your own; not both")
    values = np.asarray(time)
    if values.dtype.kind != "M":
        raise ValueError(f"seasons need datetimes; got {values.dtype}: turn the column with pandas.to_datetime")
    chosen = months if months is not None else SEASONS if lat is None else NORTH
    every = [month for each in chosen.values() for month in each]
    if len(set(every)) < len(every) or not set(every) <= set(range(1, 13)):
        raise ValueError(f"a season is a set of months 1 to 12, each in one season at most; got {dict(chosen)!r}")
    names = np.array(["", *chosen])
    of_month = np.zeros(13, dtype=np.intp)
    for code, each in enumerate(chosen.values(), start=1):
        of_month[list(each)] = code
    month = pd.Series(values).dt.month.fillna(0).to_numpy(dtype=np.intp)
    if lat is not None:
        latitude = np.asarray(lat, dtype=np.float64)
        month = np.where(np.isnan(latitude), 0, np.where((latitude < 0) & (month > 0), (month + 5) % 12 + 1, month))
    return names[of_month[month]]


def in_season_order(names: Sequence[str]) -> list[str]:
    """Names of groups in the order of the year where all are seasons, and sorted where they are not.

    Parameters
    ----------
    names : sequence of str

    Returns
    -------
    list of str

    Examples
    --------
    >>> in_season_order(["SON", "JJA", "DJF"]), in_season_order(["net2", "net1"])
    (['DJF', 'JJA', 'SON'], ['net1', 'net2'])
    """
    for seasons in (SEASONS, NORTH):
        if set(names) <= set(seasons):
            return [name for name in seasons if name in names]
    return sorted(names)


def add_threshold_crps(
    rows: xr.Dataset, predictive: Predictive, *, band: str | tuple[float, float] = "mid"
) -> xr.Dataset:
    """Add the threshold-weighted CRPS of every row, with quantiles of the observations as thresholds.

    Parameters
    ----------
    rows : Dataset
        From `common_rows`.
    predictive : mapping of model name to Distribution (row) or array (draw, row)
        For every model, over all rows of its ensemble: ``distribution(fit, ensemble)`` or ``draw(fit, ensemble)``. A product
        needs none; its distance between the thresholds is its score.
    band : str or (float, float)
        As in `band_shares`.

    Returns
    -------
    Dataset
        ``rows`` with ``twcrps (model, obs)`` and the thresholds in its attributes.

    Raises
    ------
    ValueError
        If a model has none, or one of another length.

    Examples
    --------
    >>> frame = pd.DataFrame({"rf": [1.0, 9.0], "sm": [2.0, 4.0]})
    >>> ensemble = Ensemble.from_frame(frame, members=["rf"], observation="sm")
    >>> rows = common_rows({}, ensemble, estimand="site", products={"RF": frame["rf"]})
    >>> add_threshold_crps(rows, {}, band=(0.0, 0.5))["twcrps"].values.tolist()  # the median is 3: 1 to 2, and 3 to 3
    [[1.0, 0.0]]
    """
    names, point = rows["model"].values.tolist(), rows["point"].values
    if lacking := [name for name, p in zip(names, point, strict=True) if not p and name not in predictive]:
        raise ValueError(
            f"there is no predictive distribution of {listed(lacking)}; give distribution(fit, ensemble) of each"
        )
    low, high = band_limits(rows, band)
    y, where = rows["observation"].values, rows["obs"].values
    values = []
    for name in names:
        if name not in predictive:
            values.append(threshold_crps(rows["prediction"].sel(model=name).values[None], y, lower=low, upper=high))
            continue
        law = predictive[name]
        law = law if isinstance(law, Distribution | Steps) else np.asarray(law, dtype=np.float64)
        if law.shape[-1:] != (rows.attrs["ensemble_rows"],):
            raise ValueError(f"the predictive distribution of {name!r} has the shape {law.shape}; wanted one for each of the "
                             f"{rows.attrs['ensemble_rows']} rows of the ensemble (last axis)")  # fmt: skip
        values.append(threshold_crps(law[..., where], y, lower=low, upper=high))
    return rows.assign(twcrps=(("model", "obs"), np.stack(values), {"lower": low, "upper": high}))
