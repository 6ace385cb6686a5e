"""One model in one fold: members trained where they are to be, the fit, and its scores on the rows held out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.comparison.bands import threshold_crps
from bayesens.comparison.folds.held_out_rows import Split
from bayesens.comparison.products import Dressed, DressedHere, with_member
from bayesens.comparison.steps import Steps
from bayesens.distributions.mixtures import probability_below
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.places import Places, RowPlaces, row_places
from bayesens.inference.fit import fit
from bayesens.inference.fit_tree import check_given, optimum
from bayesens.inference.prediction import Prediction, prediction
from bayesens.likelihoods.options import options_to_json
from bayesens.members.day.chain import BESIDE_MEMBERS, NAME
from bayesens.members.members import Members
from bayesens.messages import listed
from bayesens.models import SingleMember
from bayesens.parallel import in_processes
from bayesens.tables.atomic import file_name
from bayesens.threads import one_blas_thread

__all__ = ["FAILURES", "Found", "Given", "OnMembers", "Run", "Trained", "source_of"]

LEVELS = (0.5, 0.8, 0.9, 0.95)


QUANTILES = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)


UNSEEN = "that the fit has not seen"  # what every fold is about, and no news


FAILURES = (ValueError, KeyError, RuntimeError, ArithmeticError, np.linalg.LinAlgError)


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


@dataclass(frozen=True, eq=False)
class Run:
    """Everything that the folds and models of a comparison share."""

    source: Given
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

    def here(self, advance: Callable[[], None]) -> Found:
        """Fold after fold, in this process."""
        found = Found({name: [] for name in self.models}, [], {}, {})
        for k in range(len(self.parts)):
            train, test = self.split(k)
            found.add_members(self.parts[k], k, test)
            advance()
            for label in self.models:
                if label not in found.failed:
                    found.take(label, self.parts[k], _tried(self.job(label, k, found), train, test))
                advance()
        return found

    def shared_out(self, workers: int, advance: Callable[[], None]) -> Found:
        """The same in several processes: the models of the first fold, and then all others, warm from there."""
        found = Found({name: [] for name in self.models}, [], {}, {})
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

    @one_blas_thread()  # as in a process of several
    def split(self, k: int) -> tuple[Ensemble, Ensemble]:
        """Rows to learn from and rows held out."""
        name = f"{self.estimand}-{k + 1}"
        return self.source.split(self.parts[k], self.inner, self.seeds[k], self.n_jobs, self.steps, name)

    def job(self, label: str, k: int, found: Found) -> _Job:
        """One model in one fold, begun where it ended in the first fold."""
        cut = None if self.cut is None else self.cut[self.parts[k].test]
        model = self.models[label]
        if isinstance(model, Dressed):
            model = model.at(self.parts[k])
        return _Job(model, self.methods[label], self.draws, self.power, self.seeds[k], self.limits, cut, self.steps,
                    f"{self.part}{self.estimand}-{k + 1}-{file_name(label)}", found.optimum(label))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Found:
    """What the folds have given so far."""

    results: dict[str, list[xr.Dataset]]
    members: list[xr.Dataset]
    failed: dict[str, str]
    warned: dict[tuple[str, str], list[str]]

    def add_members(self, part: Split, k: int, test: Ensemble) -> None:
        """Keep the members of the rows held out in one fold."""
        self.members.append(_placed(test.dataset, part.test).assign(fold=("obs", np.full(len(test), k))))

    def take(self, label: str, part: Split, made: xr.Dataset | str) -> None:
        """Keep the scores of a model in one fold, or why it failed."""
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


@one_blas_thread()  # as in a process of several
def _tried(job: _Job, train: Ensemble, test: Ensemble) -> xr.Dataset | str:
    """What a job gives, or why it failed: the other models go on."""
    try:
        return job.kept(train, test)
    except FAILURES as error:
        return str(error)


def source_of(data: Any) -> Given:
    """Where the members of a fold come from: the table as it is, or training."""
    if isinstance(data, Members):
        return Trained(data)
    check_given(data)
    return Given(data)


class Given:
    """A table of members that need no training."""

    def __init__(self, ensemble: Ensemble) -> None:
        if NAME in ensemble.members and ensemble.dataset["prediction"].attrs.get("trained") == BESIDE_MEMBERS:
            raise ValueError(
                f"the member {NAME!r} says of every row what all other stations observed, those among them that a fold would "
                "hold out; wanted be.Members({}, frame, y, ..., products=[...], neighbours=True), whose neighbours are training "
                "stations alone, anew inside each fold"
            )
        if ensemble.origin:
            raise ValueError(
                f"the members {listed(ensemble.members)} are {ensemble.origin}: they have learnt from rows that a fold would "
                "hold out; wanted be.Members(estimators, X, y, ...), whose members are trained anew inside each fold, or "
                "predictions that were made without these observations"
            )
        ensemble.require_observation()
        self.table = ensemble

    def for_estimand(self, estimand: str) -> Given:
        """Members as rows are to be held out."""
        return self

    def columns(self) -> dict[str, Any]:
        """Labels of the rows, their times, and which are observed."""
        dataset = self.table.dataset
        time = dataset["time"].values if "time" in dataset.coords else None
        labels = {name: self.table.labels(name) for name in ("site", "group")}
        return labels | {"time": time, "observed": self.table.observed}

    def places(self, given: Any) -> RowPlaces | None:
        """Coordinates of the rows: those given, or else those of the table, if it has any."""
        data, table = self.table.dataset, self.table
        kept = {name: data["covariate"].sel(covariate_name=name).values for name in table.covariates}
        lon, lat = (data[name].values if name in data.coords else None for name in ("lon", "lat"))
        return row_places(given, len(table), lon=lon, lat=lat, covariates=kept)

    def observations(self) -> xr.Dataset:
        """Observations, on observed rows."""
        return xr.Dataset({"observation": ("obs", self.table.require_observation()[self.table.observed])})

    def split(
        self, part: Split, inner: Any, seed: int, n_jobs: int, steps: Steps, name: str
    ) -> tuple[Ensemble, Ensemble]:
        """Training and test rows of one fold."""
        return self.table.select(rows=part.train), self.table.select(rows=part.test)


class Trained(Given):
    """Members that are trained in every fold."""

    def __init__(self, members: Members) -> None:
        self.members = members
        super().__init__(members.untrained())

    def for_estimand(self, estimand: str) -> Given:
        """Neighbours leave out what the estimand holds out; they know nothing of new times."""
        return Trained(self.members.held_out_by(estimand)) if self.members.neighbours else self

    def places(self, given: Any) -> RowPlaces | None:
        """Those given, or else those of the table; ``x`` and ``y`` may be covariates that only the members learn from."""
        return self.members.places(given)

    def split(
        self, part: Split, inner: Any, seed: int, n_jobs: int, steps: Steps, name: str
    ) -> tuple[Ensemble, Ensemble]:
        """Training and test rows of one fold."""
        made: dict[str, Ensemble] = {}  # both halves come of one call; a kept one needs none
        told = {name: value if isinstance(value, int | str) else _digest_of(value) for name, value in inner.items()}
        key = {"members": self.members.digest, "inner": told, "seed": seed,
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
            said = prediction(tree, test)
            out = said.summary(QUANTILES)
            if test.observed.any():
                scores = self._scores(said.of(test.observed)).drop_vars(
                    "interval_score"
                )  # no table has it, and rows are many
                out = out.assign(scores.reindex(obs=out["obs"].values).data_vars)
            if self.below is not None:
                out["probability_below"] = "obs", probability_below(said.law, self.below).values
        news = {str(one.message) for one in caught if issubclass(one.category, UserWarning)}
        texts = sorted(text for text in news if UNSEEN not in text)
        out.attrs |= {"warned": json.dumps(texts), "seconds": tree.attrs["seconds"], "method": tree.attrs["method"],
                      "optimum": json.dumps(optimum(tree))}  # fmt: skip
        if _takes_the_best(model):
            out.attrs["used_member"] = str(tree["posterior"].to_dataset()["member"].values[0])
        return out

    def _scores(self, said: Prediction) -> xr.Dataset:
        low, high = self.limits
        weighted = threshold_crps(said.law, said.table.require_observation(), lower=low, upper=high)
        return said.scores(LEVELS, random_seed=self.seed).assign(twcrps=("obs", weighted))


def _takes_the_best(model: Any) -> bool:
    """Whether a model is the best member of the training rows, whichever that is."""
    return isinstance(model, SingleMember) and model.member is None


def _placed(dataset: xr.Dataset, mask: NDArray[np.bool_]) -> xr.Dataset:
    """Rows numbered as in the whole table."""
    return dataset.assign_coords(obs=np.flatnonzero(mask))


def _digest(values: NDArray[Any]) -> str:
    return sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _digest_of(value: RowPlaces | Places | None) -> str | None:
    return None if value is None else value.digest
