"""Models compared on rows that none of them has seen: the same folds, members and rows for all."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from bayesens.arithmetic import plain_arithmetic
from bayesens.comparison.bands import band_limits, threshold_crps
from bayesens.comparison.common_rows import common_rows
from bayesens.comparison.folds.distances import warn_if_nearer_than_the_map
from bayesens.comparison.folds.held_out_rows import ESTIMANDS, ROW, Split, hang_together, splits
from bayesens.comparison.folds.news import News, convergence_warning, not_converged, seen_members
from bayesens.comparison.folds.runs import Found, Given, OnMembers, Run, source_of
from bayesens.comparison.options import CompareOptions, HeldOutOptions, methods_by_name, takes, whole_workers
from bayesens.comparison.products import checked_column, checked_products, dressed_products, warn_other_units
from bayesens.comparison.steps import Steps
from bayesens.console import progress
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.places import site_places
from bayesens.inference.arguments import models_by_name
from bayesens.inference.fit_tree import check_given
from bayesens.members.day.chain import BESIDE, NAME, distance_classes
from bayesens.members.members import Members
from bayesens.members.spatial_folds.dealing import fold_kind
from bayesens.members.spatial_folds.map_points import map_places
from bayesens.messages import check_known, warn
from bayesens.tables.atomic import file_name

DISTANCE = "distance"  # a label of rows: in which fifth of distances to the nearest station
__all__ = ["HeldOut", "check_folds", "compare", "held_out", "source_of", "splits_of", "versions"]

PER_ROW = ("sd", "pit", "covered", "quantile_value", "twcrps", "probability_below")
COORDS = ("site", "group", "time", "lon", "lat")


@takes(CompareOptions)
def compare(
    models: Mapping[str, Any] | Sequence[Any],
    data: Ensemble | Members,
    *,
    estimand: str,
    **options: Unpack[CompareOptions],
) -> xr.Dataset:
    """Fit every model without some rows, and score p(y | f) there, fold after fold.

    Parameters
    ----------
    models : mapping of str to model, or sequence of models
        Such as ``{"BMA": be.BMA(), "HBM": be.HBM()}``; `OnMembers` gives a model some of the members only.
        Models of a list, of different kinds, are named by their kinds.
    data : Ensemble or Members
        Members that are trained are given as `Members`: they are cross-fitted within the training rows of every fold, and
        the rows held out are predicted by fits to all training rows. An ensemble is taken as it is: its members must not
        have seen the observations.
    estimand : {"time", "site", "site-time", "group", "row"}
        What is new in the rows held out: times at known sites, sites, both (what a map is), or groups. ``"row"`` deals rows out
        one by one, for tables whose rows are cases of their own; where they hang together its scores are too optimistic.
    folds : int or str, optional
        None: 5, or one for each group. For ``"site"`` and ``"site-time"`` also whole sites by their places: ``"knndm"``, five
        folds as far from their training sites as the map is from its stations (see `fold_distances`), at random where
        stations are spread like the map; ``"blocks"``, five clusters of sites by k-means; ``"knndm 10"``, ten folds.
    blocks : int
        Blocks of time of ``"site-time"``.
    gap : timedelta, str or float, optional
        Of ``"time"`` and ``"site-time"``: rows so close to the block that is held out are not learnt from.
    buffer : float, optional
        Of ``"site"``, ``"site-time"`` and ``"group"``: rows of sites nearer than this to a site that is held out are not learnt
        from [km for lon and lat, else the units of the coordinates].
    map_points : Dataset, DataArray, DataFrame or mapping, optional
        The cells of the map, of ``"knndm"``: see `fold_distances`. With any folds of sites, a warning says where the map is
        much further from its stations than held-out sites are from training sites.
    places : mapping of name to array_like (obs) or DataFrame, optional
        Two columns of coordinates, such as ``{"x": frame["x"], "y": frame["y"]}``. None: ``lon`` and ``lat`` of the table,
        degrees on the sphere, else covariates ``x`` and ``y``, lengths in a plane.
    method : str or mapping of model name to str
        Of `fit`.
    draws : int
        Of each of four chains.
    likelihood_power : float
        Of `fit`, for models that are not fitted by EM.
    band : str or (float, float)
        Quantile levels of the observations between which the threshold-weighted CRPS counts.
    below : array_like (obs), optional
        Thresholds, for the probability of being below each (a drought).
    products : mapping of name to array_like (obs), optional
        Point predictions to set beside the models, as they are, and once more corrected and dressed with a normal error, as
        ``"NAME, corrected"``: a `SingleMember` of the product, fitted by EM in every fold, as the models are.
    missing : optional
        Codes for missing values in the products, as in `Ensemble.from_frame`.
    labels : mapping of name to array_like (obs), optional
        Further labels to make groups by.
    inner_folds : int or str
        Of the cross-fitting within the training rows; by sites, or by times or rows where the estimand is ``"time"`` or
        ``"row"``. As `folds`, ``"knndm"`` too: take what `cross_fit` is to be given for the map.
    random_seed : int, optional
        The same seed gives the same folds, members and draws.
    n_jobs : int
        Threads that train members.
    workers : int
        Processes that share the folds and models; 1: this process. Each takes some seconds to start, so that they pay for
        long fits. The result is the same.
    cache : path, optional
        Folder that keeps each fold of each model, so that a run that was stopped goes on from there.
    part : str
        Name of this comparison among several that share a cache: they share the trained members, and nothing else.
    progressbar : bool

    Returns
    -------
    xarray.Dataset
        As `common_rows` gives it: ``prediction``, ``crps``, ``log_score``, ``coverage90``, ``width90`` on ``(model, obs)``,
        with ``twcrps`` and, for the models, ``sd``, ``pit``, ``covered (level)``, ``quantile_value (quantile)`` and
        ``probability_below``; ``fold (obs)``; ``member_prediction (obs, member)``, which the models were given there.
        ``attrs`` say the estimand, what was left out and why (``failed``), what the fits warned of (``warned``) and the folds
        in which models have not converged (``not_converged``), the last three as JSON, and as JSON the models that are told
        what other stations observed on the day (``day_of``), whose rows have a label ``distance``, to the nearest of them;
        ``folds`` and ``buffer``, where sites were held out by their places.

    Raises
    ------
    ValueError
        An ensemble that was cross-fitted or trained in-sample, folds that cannot be made, or no model that could be fitted.
    MemberError
        A member failed in a fold.

    Warns
    -----
    UserWarning
        For models that failed in a fold: they are left out, and the others go on. Once for all fits that have not converged,
        with their models and folds, and once for members that look as if they had seen the rows. Of the estimand ``"row"``, what
        its scores do not show. Of `map_points`, that the median distance of held-out sites to training sites is less than half
        of that of the map to its stations.

    References
    ----------
    Linnenbrink et al. (2024), Geosci. Model Dev. 17, 5897, doi:10.5194/gmd-17-5897-2024, of ``"knndm"``.

    Examples
    --------
    >>> import bayesens as be
    >>> y = np.array([0.1, 0.4, 0.2, 0.5, 0.3, 0.6])
    >>> frame = pd.DataFrame({"rf": y + [0.01, -0.01, 0.02, 0.0, -0.02, 0.01], "sm": y, "station": list("aabbcc")})
    >>> ensemble = be.Ensemble.from_frame(frame, members=["rf"], observation="sm", site="station")
    >>> models = {"RF": be.SingleMember(), "Climatology": be.Climatology()}
    >>> rows = compare(models, ensemble, estimand="site", folds=3, method="em", progressbar=False)
    >>> rows["fold"].values.tolist(), bool(rows["crps"].mean("obs")[0] < rows["crps"].mean("obs")[1])
    ([0, 0, 1, 1, 2, 2], True)
    """
    return held_out(models, data, estimand=estimand, **options).rows


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What models said of rows that they had not seen.

    Attributes
    ----------
    rows : xarray.Dataset
        Observed rows that all models and products have, but for those that are set apart; see `compare`.
    predictions : dict of str to xarray.Dataset
        Of every model and row, observed or not: what `predict` gave, and the scores. Of the best member (`SingleMember`
        without a name) ``used_member`` says which one predicted the row: the best of those that are not missing there.
    members : Ensemble
        Every row, with the member predictions that the models were given there.
    apart : dict of str to xarray.Dataset
        For each model or product that was set apart, its rows that those of `rows` have as well.
    """

    rows: xr.Dataset
    predictions: dict[str, xr.Dataset]
    members: Ensemble
    apart: dict[str, xr.Dataset] = field(default_factory=dict)


@plain_arithmetic
@takes(CompareOptions)
def held_out(
    models: Mapping[str, Any] | Sequence[Any],
    data: Ensemble | Members,
    *,
    estimand: str,
    apart: bool = False,
    **options: Unpack[CompareOptions],
) -> HeldOut:
    """Do what `compare` does, and return the predictions of all rows as well.

    Parameters
    ----------
    models, data, estimand
        As in `compare`.
    apart : bool
        Set apart models and products that lack some observed row that has a member, so that they take no row from the
        others: ``rows`` are then all rows that have a member, wherever one model or more predicts them all.
    **options
        Every other argument of `compare`.

    Returns
    -------
    HeldOut

    Raises
    ------
    ValueError, MemberError
    """
    models = models_by_name(models, data)
    source = source_of(data).for_estimand(estimand)
    for model in models.values():
        _check_model(source.table, model)
    points = checked_products(options["products"] or {}, source.table, options["missing"])
    dressed = dressed_products(points, models)
    warn_other_units(source.table, points)
    workers = whole_workers(options["workers"])
    parts = splits_of(source, estimand, options)
    columns = source.columns() | {"places": source.places(options["places"])}
    if options["map_points"] is not None and estimand not in ("time", ROW):
        warn_if_nearer_than_the_map(parts, columns, options["map_points"], options["folds"], options["random_seed"])
    if estimand == ROW:
        warn(hang_together(site=columns["site"], time=columns["time"], rows=int(columns["observed"].sum())))
    limits = band_limits(source.observations(), options["band"])
    below, cache, part = options["below"], options["cache"], options["part"]
    run = Run(
        source, parts, models | dressed, estimand, limits, Steps(Path(cache) if cache is not None else None, versions()),
        methods=methods_by_name(models, options["method"]) | dict.fromkeys(dressed, "em"),
        cut=None if below is None else checked_column(below, len(source.table), "below"),
        inner=_inner(source, estimand, options),
        seeds=[_seed(options["random_seed"], estimand, k) for k in range(len(parts))], draws=options["draws"],
        power=options["likelihood_power"], n_jobs=options["n_jobs"], part=f"{file_name(part)}-" if part else "",
    )  # fmt: skip
    with progress(len(parts) * (len(run.models) + 1), ESTIMANDS[estimand], options["progressbar"]) as advance:
        found = run.here(advance) if workers == 1 else run.shared_out(workers, advance)
    result = _held_out_result(source, found, estimand, limits, points, options["labels"], apart)
    for rows in (result.rows, *result.apart.values()):
        rows.attrs |= _by_place(options) | {"day_of": json.dumps(_of_the_day(models, source.table.members))}
    return result


def _of_the_day(models: Mapping[str, Any], members: tuple[str, ...]) -> list[str]:
    """Names of the models that have neighbours among their members."""
    asked = {name: model.members if isinstance(model, OnMembers) else members for name, model in models.items()}
    return [name for name, its in asked.items() if NAME in its and getattr(models[name], "uses_members", True)]


def splits_of(source: Given, estimand: str, options: HeldOutOptions) -> list[Split]:
    """The folds that the options of a held-out run ask for."""
    names = ("folds", "blocks", "gap", "buffer", "map_points", "random_seed")
    given: Mapping[str, Any] = options
    asked = {name: given[name] for name in names}
    return splits(estimand, **asked, places=source.places(options["places"]), **source.columns())


@takes(CompareOptions)
def check_folds(data: Ensemble | Members, *, estimand: str, **options: Unpack[CompareOptions]) -> None:
    """Refuse what `compare` would refuse of the folds; who compares by several estimands asks before the first."""
    splits_of(source_of(data).for_estimand(estimand), estimand, options)


def _by_place(options: HeldOutOptions) -> dict[str, Any]:
    """What the folds have to do with the places of sites, for whoever holds the rows later."""
    kind, number = fold_kind(options["folds"])
    said: dict[str, Any] = {"folds": f"{kind} {number}"} if kind else {}
    return said if options["buffer"] is None else said | {"buffer": float(options["buffer"])}


def _inner(source: Given, estimand: str, options: HeldOutOptions) -> dict[str, Any]:
    """How members are cross-fitted within the training rows."""
    inner: dict[str, Any] = {
        "folds": options["inner_folds"],
        "scheme": estimand if estimand in ("time", ROW) else "site",
    }
    if not fold_kind(inner["folds"])[0]:
        return inner
    places, cells, site = source.places(options["places"]), options["map_points"], source.columns()["site"]
    if cells is not None and places is not None and site is not None:
        cells = map_places(cells, site_places(places, site)[1], random_seed=options["random_seed"])
    return inner | {"map_points": cells, "places": places}


def _check_model(table: Ensemble, model: Any) -> None:
    if isinstance(model, OnMembers):
        check_known(model.members, table.members, kind="member", where=f"the ensemble ({len(table)} rows)")
        model = model.model
    check_given(table, model)


def _held_out_result(
    source: Given,
    found: Found,
    estimand: str,
    limits: tuple[float, float],
    products: Mapping[str, ArrayLike],
    labels: Mapping[str, ArrayLike] | None,
    apart: bool,
) -> HeldOut:
    for label, text in found.failed.items():
        warn(f"{label} failed and is left out: {text}")
    full = {name: xr.concat(each, "obs").sortby("obs") for name, each in found.results.items()
            if name not in found.failed}  # fmt: skip
    if not full:
        raise ValueError("no model could be fitted; " + "; ".join(f"{k}: {v}" for k, v in found.failed.items()))
    members = Ensemble.from_dataset(xr.concat(found.members, "obs").sortby("obs"))
    lacking = _with_gaps(full, products, members) if apart else []
    told = {name: one for name, one in full.items() if name not in lacking}
    points = {name: values for name, values in products.items() if name not in lacking}
    lay = partial(
        _on_common_rows, source=source, members=members, estimand=estimand, limits=limits, labels=labels, found=found
    )
    rows = lay(told, points)
    others = {}
    for name in lacking:
        one = {name: full[name]} if name in full else {}
        with warnings.catch_warnings():  # who asks for them apart is given their number
            warnings.filterwarnings("ignore", message=".* observed rows are left out for all", category=UserWarning)
            others[name] = lay(told | one, points | ({} if one else {name: products[name]}))
    _warn_and_mark(rows, {key: folds for key, folds in found.warned.items() if key[0] in full})
    unsure = not_converged({key: folds for key, folds in found.warned.items() if key[0] in full})
    for each in others.values():
        each.attrs["not_converged"] = json.dumps(unsure)
    return HeldOut(rows, full, members, others)


def _with_gaps(full: Mapping[str, xr.Dataset], products: Mapping[str, ArrayLike], members: Ensemble) -> list[str]:
    """Models and products that lack an observed row that has a member; none where every model does."""
    wanted = np.flatnonzero(members.observed & np.isfinite(members.prediction).any(axis=1))
    gaps = [name for name, one in full.items() if np.isnan(one["mean"].sel(obs=wanted).values).any()]
    if len(gaps) == len(full):
        return []
    return gaps + [name for name, v in products.items() if np.isnan(np.asarray(v, dtype=np.float64)[wanted]).any()]


def _on_common_rows(
    full: Mapping[str, xr.Dataset],
    products: Mapping[str, ArrayLike],
    *,
    source: Given,
    members: Ensemble,
    estimand: str,
    limits: tuple[float, float],
    labels: Mapping[str, ArrayLike] | None,
    found: Found,
) -> xr.Dataset:
    """Lay models and products on the rows that all of them have, with everything that tables ask for."""
    observed = np.flatnonzero(source.table.observed)
    rows = common_rows({name: one.sel(obs=observed) for name, one in full.items()}, source.table, estimand=estimand,
                       products=products, labels=labels)  # fmt: skip
    where = rows["obs"].values
    names = [name for name in PER_ROW if all(name in one for one in full.values())]
    more = xr.concat([one[names].sel(obs=where).drop_vars([c for c in COORDS if c in one.coords]) for one in full.values()],
                     pd.Index(list(full), name="model")).reindex(model=rows["model"].values)  # fmt: skip
    y = rows["observation"].values
    for name, values in products.items():
        point = np.asarray(values, dtype=np.float64)[where]
        more["twcrps"].loc[{"model": name}] = threshold_crps(point[None], y, lower=limits[0], upper=limits[1])
    rows = rows.assign(more.data_vars)
    rows["twcrps"].attrs = {"lower": limits[0], "upper": limits[1]}
    rows["fold"] = "obs", members.dataset["fold"].values[where]
    rows["member_prediction"] = ("obs", "member"), members.prediction[where]
    if BESIDE[1] in members.covariates and DISTANCE not in rows.coords:
        distance = members.dataset["covariate"].sel(covariate_name=BESIDE[1]).values[where]
        if np.isfinite(distance).any():
            rows = rows.assign_coords({DISTANCE: ("obs", distance_classes(distance))})
    names_of = {"model": np.array(rows["model"].values.tolist()), "member": np.array(members.members)}
    rows = rows.assign_coords(names_of)  # NetCDF takes no other kind of text
    warned = {f"{label}: {text}": folds for (label, text), folds in found.warned.items()}
    rows.attrs |= {
        "failed": json.dumps(found.failed),
        "trained": int(bool(members.origin)),
        "warned": json.dumps(warned),
    }
    return rows


def _warn_and_mark(rows: xr.Dataset, news: News) -> None:
    """Say aloud, once, what changes the meaning of the result, and mark the rows."""
    unsure = not_converged(news)
    rows.attrs["not_converged"] = json.dumps(unsure)
    for text in (convergence_warning(unsure), seen_members(news)):
        if text:
            warn(text)


def _seed(random_seed: int | None, estimand: str, fold: int) -> int:
    """One seed for each fold; None stays as random as it was."""
    entropy = np.random.SeedSequence(random_seed).entropy
    text = f"{entropy} {estimand} {fold}".encode()
    return int.from_bytes(sha256(text).digest()[:4], "big")


def versions() -> str:
    """What a kept result depends on beside its inputs."""
    return " ".join(f"{name} {version(name)}" for name in ("bayesens", "numpy", "scikit-learn", "xgboost", "pymc"))
