"""Models compared on rows that none of them has seen: the same folds, members and rows for all."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.arithmetic import plain_arithmetic
from bayesens.comparison.bands import band_limits, threshold_crps
from bayesens.comparison.common_rows import common_rows
from bayesens.comparison.fold_news import News, convergence_warning, not_converged, seen_members
from bayesens.comparison.held_out_rows import ESTIMANDS, ROW, Split, hang_together, splits
from bayesens.comparison.products import (
    Dressed,
    DressedHere,
    checked_column,
    checked_products,
    dressed_products,
    warn_other_units,
    with_member,
)
from bayesens.comparison.steps import Steps
from bayesens.distributions.mixtures import probability_below
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.arguments import models_by_name
from bayesens.inference.fit import check_given, fit, optimum
from bayesens.inference.predict import distribution, predict, score
from bayesens.likelihoods.options import options_to_json
from bayesens.members.members import Members
from bayesens.messages import check_known, listed, warn
from bayesens.models import SingleMember
from bayesens.parallel import as_in_a_process, in_processes
from bayesens.tables.atomic import file_name
from bayesens.tables.missing_codes import Missing

__all__ = ["HeldOut", "OnMembers", "compare", "held_out", "versions"]

LEVELS = (0.5, 0.8, 0.9, 0.95)
QUANTILES = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)
UNSEEN = "that the fit has not seen"  # what every fold is about, and no news
PER_ROW = ("sd", "pit", "covered", "quantile_value", "twcrps", "probability_below")
COORDS = ("site", "group", "time", "lon", "lat")
FAILURES = (ValueError, KeyError, RuntimeError, ArithmeticError, np.linalg.LinAlgError)


def compare(
    models: Mapping[str, Any] | Sequence[Any],
    data: Ensemble | Members,
    *,
    estimand: str,
    folds: int | None = None,
    blocks: int = 2,
    gap: Any = None,
    method: str | Mapping[str, str] = "auto",
    draws: int = 1000,
    likelihood_power: float = 1.0,
    band: str | tuple[float, float] = "mid",
    below: ArrayLike | None = None,
    products: Mapping[str, ArrayLike] | None = None,
    missing: Missing = None,
    labels: Mapping[str, ArrayLike] | None = None,
    inner_folds: int = 5,
    random_seed: int | None = None,
    n_jobs: int = 1,
    workers: int = 1,
    cache: str | Path | None = None,
    part: str = "",
    progressbar: bool = True,
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
    folds : int, optional
        None: 5, or one for each group.
    blocks : int
        Blocks of time of ``"site-time"``.
    gap : timedelta, str or float, optional
        Of ``"time"`` and ``"site-time"``: rows so close to the block that is held out are not learnt from.
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
    inner_folds : int
        Of the cross-fitting within the training rows; by sites, or by times or rows where the estimand is ``"time"`` or
        ``"row"``.
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
        in which models have not converged (``not_converged``), the last three as JSON.

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
        its scores do not show.

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
    return held_out(
        models, data, estimand=estimand, folds=folds, blocks=blocks, gap=gap, method=method, draws=draws,
        likelihood_power=likelihood_power, band=band, below=below, products=products, missing=missing, labels=labels,
        inner_folds=inner_folds, random_seed=random_seed, n_jobs=n_jobs,
        workers=workers, cache=cache, part=part, progressbar=progressbar,
    ).rows  # fmt: skip


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
def held_out(
    models: Mapping[str, Any] | Sequence[Any],
    data: Ensemble | Members,
    *,
    estimand: str,
    folds: int | None = None,
    blocks: int = 2,
    gap: Any = None,
    method: str | Mapping[str, str] = "auto",
    draws: int = 1000,
    likelihood_power: float = 1.0,
    band: str | tuple[float, float] = "mid",
    below: ArrayLike | None = None,
    products: Mapping[str, ArrayLike] | None = None,
    missing: Missing = None,
    labels: Mapping[str, ArrayLike] | None = None,
    inner_folds: int = 5,
    random_seed: int | None = None,
    n_jobs: int = 1,
    workers: int = 1,
    cache: str | Path | None = None,
    part: str = "",
    apart: bool = False,
    progressbar: bool = True,
) -> HeldOut:
    """Do what `compare` does, and return the predictions of all rows as well.

    Parameters
    ----------
    models, data, estimand, folds, blocks, gap, method, draws, likelihood_power, band, below, products, missing, labels
        As in `compare`.
    inner_folds, random_seed, n_jobs, workers, cache, part, progressbar
        As in `compare`.
    apart : bool
        Set apart models and products that lack some observed row that has a member, so that they take no row from the
        others: ``rows`` are then all rows that have a member, wherever one model or more predicts them all.

    Returns
    -------
    HeldOut

    Raises
    ------
    ValueError, MemberError
    """
    models = models_by_name(models, data)
    source = _source(data)
    for model in models.values():
        _check_model(source.table, model)
    points = checked_products(products or {}, source.table, missing)
    dressed = dressed_products(points, models)
    warn_other_units(source.table, points)
    if workers != int(workers) or workers < 1:
        raise ValueError(f"workers is the number of processes, 1 for this one alone; got {workers!r}")
    parts = splits(estimand, folds=folds, blocks=blocks, gap=gap, random_seed=random_seed, **source.columns())
    if estimand == ROW:
        columns = source.columns()
        warn(hang_together(site=columns["site"], time=columns["time"], rows=int(columns["observed"].sum())))
    limits = band_limits(source.observations(), band)
    run = _Run(
        source, parts, models | dressed, estimand, limits, Steps(Path(cache) if cache is not None else None, versions()),
        methods={name: method if isinstance(method, str) else method.get(name, "auto") for name in models}
        | dict.fromkeys(dressed, "em"),
        cut=None if below is None else checked_column(below, len(source.table), "below"),
        inner={"folds": inner_folds, "scheme": estimand if estimand in ("time", ROW) else "site"},
        seeds=[_seed(random_seed, estimand, k) for k in range(len(parts))], draws=draws, power=likelihood_power, n_jobs=n_jobs,
        part=f"{file_name(part)}-" if part else "",
    )  # fmt: skip
    with _progress(len(parts) * (len(run.models) + 1), ESTIMANDS[estimand], progressbar) as advance:
        found = run.here(advance) if workers == 1 else run.shared_out(int(workers), advance)
    return _joined(source, found, estimand, limits, points, labels, apart)


@dataclass(frozen=True)
class OnMembers:
    """A model that `compare` gives some of the members only.

    Parameters
    ----------
    model : model
    members : tuple of str
        Names.

    Examples
    --------
    >>> from bayesens import BMA
    >>> OnMembers(BMA(), ["mlr", "svr"]).members
    ('mlr', 'svr')
    """

    model: Any
    members: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))  # a list is taken as well


def _check_model(table: Ensemble, model: Any) -> None:
    if isinstance(model, OnMembers):
        check_known(model.members, table.members, kind="member", where=f"the ensemble ({len(table)} rows)")
        model = model.model
    check_given(table, model)


@dataclass(frozen=True, eq=False)
class _Run:
    """Everything that the folds and models of a comparison share."""

    source: _Given
    parts: list[Split]
    models: dict[str, Any]
    estimand: str
    limits: tuple[float, float]
    steps: Steps
    methods: dict[str, str]
    cut: NDArray[np.float64] | None
    inner: dict[str, Any]
    seeds: list[int]
    draws: int
    power: float
    n_jobs: int
    part: str

    def here(self, advance: Callable[[], None]) -> _Found:
        """Fold after fold, in this process."""
        found = _Found({name: [] for name in self.models}, [], {}, {})
        for k in range(len(self.parts)):
            train, test = self.split(k)
            found.add_members(self.parts[k], k, test)
            advance()
            for label in self.models:
                if label not in found.failed:
                    found.take(label, self.parts[k], _tried(self.job(label, k, found), train, test))
                advance()
        return found

    def shared_out(self, workers: int, advance: Callable[[], None]) -> _Found:
        """The same in several processes: the models of the first fold, and then all others, warm from there."""
        found = _Found({name: [] for name in self.models}, [], {}, {})
        folds = range(len(self.parts))
        halves = dict(in_processes(workers, ((k, self.split, (k,)) for k in folds), lambda _: advance()))
        for k in folds:
            found.add_members(self.parts[k], k, halves[k][1])
        for some in (folds[:1], folds[1:]):
            jobs = (
                ((k, label), _tried, (self.job(label, k, found), *halves[k]))
                for k in some for label in self.models if label not in found.failed
            )  # fmt: skip
            made = dict(in_processes(workers, jobs, lambda _: advance()))
            for k, label in sorted(made, key=lambda key: (key[0], list(self.models).index(key[1]))):
                found.take(label, self.parts[k], made[k, label])
        return found

    @as_in_a_process
    def split(self, k: int) -> tuple[Ensemble, Ensemble]:
        """Rows to learn from and rows held out."""
        name = f"{self.estimand}-{k + 1}"
        return self.source.split(self.parts[k], self.inner, self.seeds[k], self.n_jobs, self.steps, name)

    def job(self, label: str, k: int, found: _Found) -> _Job:
        """One model in one fold, begun where it ended in the first fold."""
        cut = None if self.cut is None else self.cut[self.parts[k].test]
        model = self.models[label]
        if isinstance(model, Dressed):
            model = model.at(self.parts[k])
        return _Job(model, self.methods[label], self.draws, self.power, self.seeds[k], self.limits, cut, self.steps,
                    f"{self.part}{self.estimand}-{k + 1}-{file_name(label)}", found.optimum(label))  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Found:
    """What the folds have given so far."""

    results: dict[str, list[xr.Dataset]]
    members: list[xr.Dataset]
    failed: dict[str, str]
    warned: dict[tuple[str, str], list[str]]

    def add_members(self, part: Split, k: int, test: Ensemble) -> None:
        self.members.append(_placed(test.dataset, part.test).assign(fold=("obs", np.full(len(test), k))))

    def take(self, label: str, part: Split, made: xr.Dataset | str) -> None:
        if isinstance(made, str):
            self.failed.setdefault(label, f"{part.name}: {made}")
            return
        self.results[label].append(_placed(made, part.test))
        for text in json.loads(made.attrs["warned"]):
            self.warned.setdefault((label, text), []).append(part.name)

    def optimum(self, label: str) -> dict[str, list[float]] | None:
        """Where the fit of the first fold ended, if that is a place to begin the others."""
        first = self.results[label]
        found: dict[str, list[float]] | None = json.loads(first[0].attrs["optimum"]) if first else None
        return found


@as_in_a_process
def _tried(job: _Job, train: Ensemble, test: Ensemble) -> xr.Dataset | str:
    """What a job gives, or why it failed: the other models go on."""
    try:
        return job.kept(train, test)
    except FAILURES as error:
        return str(error)


def _joined(
    source: _Given,
    found: _Found,
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
    lacking = _lacking(full, products, members) if apart else []
    told = {name: one for name, one in full.items() if name not in lacking}
    points = {name: values for name, values in products.items() if name not in lacking}
    lay = partial(
        _laid_out, source=source, members=members, estimand=estimand, limits=limits, labels=labels, found=found
    )
    rows = lay(told, points)
    others = {}
    for name in lacking:
        one = {name: full[name]} if name in full else {}
        with warnings.catch_warnings():  # who asks for them apart is given their number
            warnings.filterwarnings("ignore", message=".* observed rows are left out for all", category=UserWarning)
            others[name] = lay(told | one, points | ({} if one else {name: products[name]}))
    _tell(rows, {key: folds for key, folds in found.warned.items() if key[0] in full})
    unsure = not_converged({key: folds for key, folds in found.warned.items() if key[0] in full})
    for each in others.values():
        each.attrs["not_converged"] = json.dumps(unsure)
    return HeldOut(rows, full, members, others)


def _lacking(full: Mapping[str, xr.Dataset], products: Mapping[str, ArrayLike], members: Ensemble) -> list[str]:
    """Models and products that lack an observed row that has a member; none where every model does."""
    wanted = np.flatnonzero(members.observed & np.isfinite(members.prediction).any(axis=1))
    gaps = [name for name, one in full.items() if np.isnan(one["mean"].sel(obs=wanted).values).any()]
    if len(gaps) == len(full):
        return []
    return gaps + [name for name, v in products.items() if np.isnan(np.asarray(v, dtype=np.float64)[wanted]).any()]


def _laid_out(
    full: Mapping[str, xr.Dataset],
    products: Mapping[str, ArrayLike],
    *,
    source: _Given,
    members: Ensemble,
    estimand: str,
    limits: tuple[float, float],
    labels: Mapping[str, ArrayLike] | None,
    found: _Found,
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
    names_of = {"model": np.array(rows["model"].values.tolist()), "member": np.array(members.members)}
    rows = rows.assign_coords(names_of)  # NetCDF takes no other kind of text
    rows.attrs |= {
        "failed": json.dumps(found.failed),
        "trained": int(bool(members.origin)),
    }
    rows.attrs["warned"] = json.dumps({f"{label}: {text}": folds for (label, text), folds in found.warned.items()})
    return rows


def _tell(rows: xr.Dataset, news: News) -> None:
    """Say aloud, once, what changes the meaning of the result, and mark the rows."""
    unsure = not_converged(news)
    rows.attrs["not_converged"] = json.dumps(unsure)
    for text in (convergence_warning(unsure), seen_members(news)):
        if text:
            warn(text)


# ---------------------------------------------------------------------------------------------------------- the two sources
class _Given:
    """A table of members that need no training."""

    def __init__(self, ensemble: Ensemble) -> None:
        if ensemble.origin:
            raise ValueError(
                f"the members {listed(ensemble.members)} are {ensemble.origin}: they have learnt from rows that a fold would "
                "hold out; wanted be.Members(estimators, X, y, ...), whose members are trained anew inside each fold, or "
                "predictions that were made without these observations"
            )
        ensemble.require_observation()
        self.table = ensemble

    def columns(self) -> dict[str, Any]:
        dataset = self.table.dataset
        time = dataset["time"].values if "time" in dataset.coords else None
        labels = {name: self.table.labels(name) for name in ("site", "group")}
        return labels | {"time": time, "observed": self.table.observed}

    def observations(self) -> xr.Dataset:
        return xr.Dataset({"observation": ("obs", self.table.require_observation()[self.table.observed])})

    def split(
        self, part: Split, inner: Any, seed: int, n_jobs: int, steps: Steps, name: str
    ) -> tuple[Ensemble, Ensemble]:
        return self.table.select(rows=part.train), self.table.select(rows=part.test)


class _Trained(_Given):
    """Members that are trained in every fold."""

    def __init__(self, members: Members) -> None:
        self.members = members
        super().__init__(members.untrained())

    def split(
        self, part: Split, inner: Any, seed: int, n_jobs: int, steps: Steps, name: str
    ) -> tuple[Ensemble, Ensemble]:
        made: dict[str, Ensemble] = {}  # both halves come of one call; a kept one needs none
        key = {"members": self.members.digest, "inner": inner, "seed": seed,
               "train": _digest(part.train), "test": _digest(part.test)}  # fmt: skip

        def half(which: str) -> xr.Dataset:
            if not made:
                try:
                    train, test = self.members.split(part.train, part.test, **inner, random_seed=seed, n_jobs=n_jobs,
                                                     progressbar=False)  # fmt: skip
                except ValueError as error:
                    raise ValueError(f"{part.name}, cross-fitting the members within its training rows: {error} (of inner_folds, "
                                     "which a study calls members.folds)") from error  # fmt: skip
                made.update(train=train, test=test)
            return made[which].dataset

        kept = [steps.dataset(f"{name}-members-{which}", key, partial(half, which)) for which in ("train", "test")]
        train, test = (Ensemble.from_dataset(dataset) for dataset in kept)
        return train, test


def _source(data: Any) -> _Given:
    if isinstance(data, Members):
        return _Trained(data)
    check_given(data)
    return _Given(data)


# ------------------------------------------------------------------------------------------------------ a model in a fold
@dataclass(frozen=True)
class _Job:
    """One model, fitted to the training rows of a fold and scored in the others."""

    model: Any
    method: str
    draws: int
    power: float
    seed: int
    limits: tuple[float, float]
    below: NDArray[np.float64] | None
    steps: Steps
    name: str
    warm: Mapping[str, Sequence[float]] | None

    def kept(self, train: Ensemble, test: Ensemble) -> xr.Dataset:
        """The result as it was kept, or made now."""
        model = self.model
        if isinstance(model, OnMembers):
            members = list(model.members)
            model, train, test = model.model, train.select(members=members), test.select(members=members)
        elif isinstance(model, DressedHere):
            train, test = with_member(train, model.name, model.train), with_member(test, model.name, model.test)
            model = SingleMember()
        key = {
            "model": type(model).__name__, "options": options_to_json(model), "method": self.method, "draws": self.draws,
            "power": self.power, "seed": self.seed, "limits": self.limits, "train": train.digest, "test": test.digest,
            "below": None if self.below is None else _digest(self.below), "warm": self.warm,
        }  # fmt: skip
        make = self.best_of_those_there if _takes_the_best(model) else self.run
        return self.steps.dataset(self.name, key, partial(make, model, train, test))

    def best_of_those_there(self, model: Any, train: Ensemble, test: Ensemble) -> xr.Dataset:
        """The best member, and where it is missing the best of the others: a baseline decides no rows."""
        out = self.run(model, train, test)
        rest = [name for name in train.members if name != out.attrs["used_member"]]
        there = (
            np.isfinite(test.select(members=rest).prediction).any(axis=1) if rest else np.zeros(len(test), dtype=bool)
        )
        lacking = np.isnan(out["mean"].values) & there
        used = np.where(np.isnan(out["mean"].values), "", out.attrs["used_member"])
        out = out.assign(used_member=("obs", used.astype(np.str_)))
        if not lacking.any() or not np.isfinite(train.select(members=rest).prediction[train.observed]).any():
            return out
        below = None if self.below is None else self.below[lacking]
        next_best = replace(self, warm=None, below=below)
        more = next_best.best_of_those_there(model, train.select(members=rest), test.select(rows=lacking, members=rest))
        more = more.assign_coords(obs=out["obs"].values[lacking])
        joined = xr.concat([out.isel(obs=~lacking), more], "obs", combine_attrs="override").sortby("obs")
        texts = sorted({*json.loads(out.attrs["warned"]), *json.loads(more.attrs["warned"])})
        return joined.assign_attrs(out.attrs | {"warned": json.dumps(texts)})

    def run(self, model: Any, train: Ensemble, test: Ensemble) -> xr.Dataset:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            tree = fit(model, train, method=self.method, draws=self.draws, likelihood_power=self.power,
                       random_seed=self.seed, warm=self.warm, log_likelihood=False, progressbar=False)  # fmt: skip
            out = predict(tree, test, quantiles=QUANTILES)
            if test.observed.any():
                scores = self._scores(tree, test).drop_vars("interval_score")  # no table has it, and rows are many
                out = out.assign(scores.reindex(obs=out["obs"].values).data_vars)
            if self.below is not None:
                out["probability_below"] = "obs", probability_below(distribution(tree, test), self.below).values
        news = {str(one.message) for one in caught if issubclass(one.category, UserWarning)}
        texts = sorted(text for text in news if UNSEEN not in text)
        out.attrs |= {"warned": json.dumps(texts), "seconds": tree.attrs["seconds"], "method": tree.attrs["method"],
                      "optimum": json.dumps(optimum(tree))}  # fmt: skip
        if _takes_the_best(model):
            out.attrs["used_member"] = str(tree["posterior"].to_dataset()["member"].values[0])
        return out

    def _scores(self, tree: xr.DataTree, test: Ensemble) -> xr.Dataset:
        low, high = self.limits
        y = test.require_observation()[test.observed]
        weighted = threshold_crps(distribution(tree, test, rows=test.observed), y, lower=low, upper=high)
        return score(tree, test, levels=LEVELS, random_seed=self.seed).assign(twcrps=("obs", weighted))


def _takes_the_best(model: Any) -> bool:
    """Whether a model is the best member of the training rows, whichever that is."""
    return isinstance(model, SingleMember) and model.member is None


# ------------------------------------------------------------------------------------------------------------------ tools
def _placed(dataset: xr.Dataset, mask: NDArray[np.bool_]) -> xr.Dataset:
    """Rows numbered as in the whole table."""
    return dataset.assign_coords(obs=np.flatnonzero(mask))


def _seed(random_seed: int | None, estimand: str, fold: int) -> int:
    """One seed for each fold; None stays as random as it was."""
    entropy = np.random.SeedSequence(random_seed).entropy
    text = f"{entropy} {estimand} {fold}".encode()
    return int.from_bytes(sha256(text).digest()[:4], "big")


def _digest(values: NDArray[Any]) -> str:
    return sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def versions() -> str:
    """What a kept result depends on beside its inputs."""
    return " ".join(f"{name} {version(name)}" for name in ("bayesens", "numpy", "scikit-learn", "xgboost", "pymc"))


@contextmanager
def _progress(total: int, text: str, shown: bool) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task(text, total=total)
        yield lambda: bar.advance(task)
