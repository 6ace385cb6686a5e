"""What stations are worth: models learnt from fewer of them, or without one group, and scored at the same others."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.comparison.compare import versions
from bayesens.comparison.folds.runs import FAILURES, UNSEEN
from bayesens.comparison.options import FitOptions, methods_by_name, takes, whole_workers
from bayesens.comparison.steps import Steps
from bayesens.console import progress
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.sphere import great_circle
from bayesens.inference.fit import fit
from bayesens.inference.fit_tree import check_given
from bayesens.inference.predict import score
from bayesens.likelihoods.options import options_to_json
from bayesens.members.fitted import MemberError, entropy
from bayesens.members.members import Members
from bayesens.messages import check_known, listed, warn
from bayesens.parallel import in_processes
from bayesens.tables.atomic import file_name
from bayesens.threads import one_blas_thread

__all__ = ["PARTS", "fewer_stations"]

Array = NDArray[np.float64]
PARTS = {"crps": "crps", "rmse": "square", "coverage90": "coverage90"}  # of what mean of the rows each score is made


@takes(FitOptions)
def fewer_stations(
    models: Mapping[str, Any],
    data: Ensemble | Members,
    *,
    by: str = "station",
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4),
    replicates: int = 20,
    validation: float | Sequence[str] = 0.25,
    metric: str = "crps",
    **options: Unpack[FitOptions],
) -> xr.Dataset:
    """Score models at fixed stations, learnt from ever fewer of the other stations.

    Whole stations go, never rows. Within a replicate the stations removed are nested: those of the smallest share are among
    those of the next. Every group loses about its share. Members of `Members` are trained anew on what is left, cross-fitted
    within it for the combination, which is fitted anew too; those of an `Ensemble` stay as they are.

    Parameters
    ----------
    models : mapping of str to model
    data : Ensemble or Members
        With stations. The members of an ensemble must not have seen the observations.
    by : {"station", "group"}
        "group" removes whole groups in place of shares, one at a time; the stations of that group in the validation stay.
    shares : sequence of float
        Of the stations that are not held out for validation, inside (0, 1). None removed is always there too.
    replicates : int
        Random orders in which stations go; 20 or more to publish.
    validation : float or sequence of str
        Share of the stations to score at, drawn once, from every group about its share; or their labels.
    metric : {"crps", "rmse", "coverage90"}
        What `reduction_table`, `power_law`, `reduction_words` and the figure are about unless told otherwise.
    **options
        ``method``, ``draws``, ``inner_folds`` (of stations), ``random_seed`` (also of the validation stations and orders),
        ``n_jobs``, ``workers`` (which share replicates and shares), ``cache`` and ``progressbar``, as in `compare`.

    Returns
    -------
    xarray.Dataset
        ``crps`` and ``rmse`` [units], ``coverage90`` on ``(model, share, replicate)``, means over all validation rows, NaN
        where a fit failed; with ``by="group"`` on ``(model, removed, replicate)``, "" for nothing removed, one replicate.
        ``station_crps``, ``station_square``, ``station_coverage90`` are the means at each validation ``station``, of ``rows``
        rows. ``kept (share, replicate, train_station)`` says which stations were learnt from, ``n_stations`` how many,
        ``n_rows`` their observed rows, and where there are coordinates ``nearest`` [km] the distance of a validation station
        from the nearest one learnt from (median). ``attrs["failed"]`` and ``["warned"]`` are JSON.

    Raises
    ------
    KeyError, ValueError
        No stations or rows without, unknown validation stations, shares outside (0, 1) or that remove equally many
        stations, too few stations left, members that have seen the observations, or no fit that succeeded.
    MemberError
        A member failed.

    Warns
    -----
    UserWarning
        For fits that failed; the others go on.

    Notes
    -----
    What a small loss does not show: see `reduction_words`.

    Examples
    --------
    >>> import bayesens as be
    >>> frame = pd.DataFrame({"station": list("aabbccddee"), "sm": np.arange(10.0), "rf": np.arange(10.0) % 3})
    >>> ensemble = be.Ensemble.from_frame(frame, members=["rf"], observation="sm", site="station")
    >>> found = fewer_stations({"Climatology": be.Climatology()}, ensemble, shares=[0.25, 0.5], replicates=2,
    ...                        validation=["c"], method="em", progressbar=False)
    >>> found["n_stations"].sel(replicate=0).values.tolist(), found["crps"].shape
    ([4, 3, 2], (1, 3, 2))
    """
    check_known([metric], PARTS, kind="metric", where="what is scored")
    check_known([by], ["station", "group"], kind="value of by", where="what can be removed")
    table = _table(data)
    for model in models.values():
        check_given(table, model)
    seed, inner_folds, cache = entropy(options["random_seed"]), _number_of(options["inner_folds"]), options["cache"]
    plan = _planned(table, by, shares, replicates, validation, seed, inner_folds if isinstance(data, Members) else 1)
    methods = methods_by_name(models, options["method"])
    jobs = {name: _Job(model, methods[name], options["draws"], seed) for name, model in models.items()}
    workers = whole_workers(options["workers"])
    steps = Steps(Path(cache) if cache is not None else None, versions())
    work = _Work(data, plan, jobs, steps, inner_folds, seed, options["n_jobs"])
    with progress(len(plan.cells), "fewer stations", options["progressbar"]) as advance:
        if workers == 1:
            made = {cell: work.cell(cell, advance) for cell in plan.cells}
        else:
            calls = ((cell, work.cell, (cell,)) for cell in plan.cells)
            made = dict(in_processes(workers, calls, lambda _: advance()))
    return _joined(made, plan, list(models), table, metric, seed, isinstance(data, Members))


# ------------------------------------------------------------------------------------------------- which stations go
@dataclass(frozen=True, eq=False)
class _Plan:
    """Stations, and who learns from which: kept is (level, replicate, training station), the first level removes nothing."""

    site: NDArray[np.str_]
    validation: NDArray[np.str_]
    training: NDArray[np.str_]
    kept: NDArray[np.bool_]
    by: str
    levels: list[Any]
    test: NDArray[np.bool_]

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Nothing removed is the same in every replicate, and is fitted once."""
        return [(0, 0)] + [(i, r) for r in range(self.kept.shape[1]) for i in range(1, len(self.levels))]

    def named(self, cell: tuple[int, int]) -> str:
        level = self.levels[cell[0]]
        if not cell[0]:
            return "nothing removed"
        return (
            f"{100 * level:g} % removed, replicate {cell[1] + 1}"
            if self.by == "station"
            else f"without group {level!r}"
        )


def _table(data: Any) -> Ensemble:
    if isinstance(data, Members):
        return data.untrained()
    check_given(data)
    if data.origin:
        raise ValueError(
            f"the members {listed(data.members)} are {data.origin}: they have learnt from the stations that would be removed "
            "or scored; wanted be.Members(estimators, X, y, ...), whose members are trained anew on what is left, or "
            "predictions that were made without these observations"
        )
    return data


def _number_of(folds: int | str) -> int:
    """Inner folds as a number: shares of stations are removed by it, and folds by place go with a map."""
    if isinstance(folds, str):
        raise ValueError(f"inner_folds is {folds!r}; wanted a number here, such as 5: stations are removed at random")
    return folds


def _planned(
    table: Ensemble, by: str, shares: Sequence[float], replicates: int, validation: Any, seed: int, least: int
) -> _Plan:
    table.require_observation()
    site, group = table.labels("site"), table.labels("group")
    if site is None or (site == "").any():
        lacking = "no row has one" if site is None else f"{int((site == '').sum())} of {len(site)} rows have none"
        raise ValueError(
            f"stations are removed whole, and need a label in every row: {lacking}; give site=..., or drop them"
        )
    if by == "group" and group is None:
        raise ValueError("there are no groups to remove; give the data group=..., or remove stations: by='station'")
    stations, first = np.unique(site[table.observed], return_index=True)
    if len(stations) < 4:
        raise ValueError(f"there are {len(stations)} stations with observations, and some are to be removed, some to be scored "
                         "at and some to be learnt from; wanted 4 at least, and 20 or more for an answer")  # fmt: skip
    of = np.full(len(stations), "") if group is None else group[table.observed][first]
    chosen = np.isin(stations, _validation(stations, of, validation, seed))
    training, of_training = stations[~chosen], of[~chosen]
    if by == "group":
        levels: list[Any] = ["", *np.unique(of_training[of_training != ""]).tolist()]
        kept = np.stack([(of_training != level) | (level == "") for level in levels])[:, None]
    else:
        levels, count = _counts(shares, replicates, len(training))
        kept = np.ones((len(levels), replicates, len(training)), dtype=bool)
        for r in range(replicates):
            order = _dealt(of_training, np.random.default_rng([seed, 1 + r]))
            for i, removed in enumerate(count):
                kept[i, r, order[:removed]] = False
    if (left := int(kept.sum(axis=2).min())) < max(least, 2):
        raise ValueError(
            f"{left} of {len(training)} stations would be left to learn from; wanted at least {max(least, 2)}"
            + (" (inner_folds)" if least > 2 else "") + ": remove fewer, or hold out fewer for validation"
        )  # fmt: skip
    test = table.observed & np.isin(site, stations[chosen])
    return _Plan(site, stations[chosen], training, kept, by, levels, test)


def _validation(stations: NDArray[np.str_], group: NDArray[np.str_], given: Any, seed: int) -> Any:
    if isinstance(given, str):
        raise TypeError(
            f"validation is the text {given!r}; wanted a share such as 0.25, or a list of labels: [{given!r}]"
        )
    if not isinstance(given, int | float):
        check_known(names := [str(name) for name in given], stations, kind="station", where="the observed rows")
        return names
    if not 0.0 < given < 1.0:
        raise ValueError(f"validation is {given!r}; wanted a share of the stations inside (0, 1), or their labels")
    return stations[_dealt(group, np.random.default_rng([seed, 0]))[: max(int(given * len(stations) + 0.5), 1)]]


def _counts(shares: Sequence[float], replicates: int, stations: int) -> tuple[list[Any], list[int]]:
    values = sorted({float(share) for share in shares} - {0.0})
    if not values or not all(0.0 < share < 1.0 for share in values):
        raise ValueError(
            f"shares are {list(shares)!r}; wanted shares of the stations to remove inside (0, 1), such as 0.1, 0.2"
        )
    if replicates < 1:
        raise ValueError(f"replicates is {replicates!r}; wanted at least 1, and 20 or more to publish")
    count = [0, *(int(share * stations + 0.5) for share in values)]
    if len(set(count)) < len(count):
        raise ValueError(f"the shares {listed(values, limit=9)} remove {listed(count[1:], limit=9)} of {stations} stations; "
                         "wanted different numbers above 0: give fewer or larger shares")  # fmt: skip
    return [0.0, *values], count


def _dealt(group: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.intp]:
    """A random order of stations, every beginning of which holds about each group's share."""
    place = np.empty(len(group))
    for name in np.unique(group):
        of = np.flatnonzero(group == name)
        place[of] = (rng.permutation(len(of)) + rng.uniform()) / len(of)
    return np.argsort(place, kind="stable")


# --------------------------------------------------------------------------------------------------------- one fit
@dataclass(frozen=True, eq=False)
class _Work:
    """All that the cells of the plan share."""

    data: Ensemble | Members
    plan: _Plan
    jobs: dict[str, _Job]
    steps: Steps
    inner_folds: int
    seed: int
    n_jobs: int

    @one_blas_thread()  # as in a process of several
    def cell(self, cell: tuple[int, int], done: Callable[[], None] | None = None) -> dict[str, xr.Dataset | str]:
        """Scores of every model learnt from the stations of one cell, or why it failed: the others go on."""
        train = np.isin(self.plan.site, self.plan.training[self.plan.kept[cell]])
        inner = self.inner_folds if isinstance(self.data, Members) else 0
        key = {"data": self.data.digest, "train": _digest(train), "test": _digest(self.plan.test), "inner": inner}
        made: list[tuple[Ensemble, Ensemble]] = []  # trained only if a result is not kept, and once for all models

        def make(job: _Job) -> xr.Dataset:
            if not made:
                made.append(self._halves(train))
            return job.run(*made[0], self.plan.validation)

        out: dict[str, xr.Dataset | str] = {}
        for name, job in self.jobs.items():
            step = f"fewer-{self.plan.by}-{cell[0]}-{cell[1]}-{file_name(name)}"
            try:
                out[name] = self.steps.dataset(step, key | job.key(), partial(make, job))
            except FAILURES as error:
                if isinstance(error, MemberError):
                    raise
                out[name] = str(error)
        if done is not None:
            done()
        return out

    def _halves(self, train: NDArray[np.bool_]) -> tuple[Ensemble, Ensemble]:
        if isinstance(self.data, Members):
            return self.data.split(train, self.plan.test, folds=self.inner_folds, random_seed=self.seed, n_jobs=self.n_jobs,
                                   progressbar=False)  # fmt: skip
        return self.data.select(rows=train), self.data.select(rows=self.plan.test)


@dataclass(frozen=True)
class _Job:
    """One model, fitted to what is left and scored at the validation stations."""

    model: Any
    method: str
    draws: int
    seed: int

    def key(self) -> dict[str, Any]:
        return {"model": type(self.model).__name__, "options": options_to_json(self.model), "method": self.method,
                "draws": self.draws, "seed": self.seed}  # fmt: skip

    def run(self, train: Ensemble, test: Ensemble, validation: NDArray[np.str_]) -> xr.Dataset:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            tree = fit(self.model, train, method=self.method, draws=self.draws, random_seed=self.seed,
                       log_likelihood=False, progressbar=False)  # fmt: skip
            rows = test.select(rows=test.available.any(axis=1))
            found = score(tree, rows, levels=(0.9,), random_seed=self.seed)
        if lacking := int(found["crps"].isnull().sum()):
            raise ValueError(f"no prediction in {lacking} of {len(rows)} validation rows that other models may have (its "
                             "member is missing there); drop these rows")  # fmt: skip
        parts = {"crps": found["crps"], "square": found["error"] ** 2, "coverage90": found["covered"].isel(level=0)}
        frame = pd.DataFrame({name: part.values for name, part in parts.items()}).groupby(rows.labels("site"))
        out = frame.mean().reindex(validation)
        count = frame.size().reindex(validation, fill_value=0)
        texts = {str(one.message) for one in caught if issubclass(one.category, UserWarning)}
        attrs = {"warned": json.dumps(sorted(text for text in texts if UNSEEN not in text))}
        columns = {name: ("station", out[name].to_numpy(np.float64)) for name in parts}
        return xr.Dataset(columns | {"rows": ("station", count.to_numpy(np.int64))}, attrs=attrs)


def _joined(
    made: Mapping[tuple[int, int], Mapping[str, xr.Dataset | str]],
    plan: _Plan,
    models: list[str],
    table: Ensemble,
    metric: str,
    seed: int,
    trained: bool,
) -> xr.Dataset:
    shape = (len(models), *plan.kept.shape[:2], len(plan.validation))
    part = {name: np.full(shape, np.nan) for name in PARTS.values()}
    failed: dict[str, list[str]] = {}
    warned: dict[str, list[str]] = {}
    rows = np.zeros(len(plan.validation), dtype=np.int64)
    for cell in plan.cells:
        for m, name in enumerate(models):
            one = made[cell][name]
            if isinstance(one, str):
                failed.setdefault(name, []).append(f"{plan.named(cell)}: {one}")
                continue
            rows = one["rows"].values.astype(np.int64)
            for key, values in part.items():
                values[m, cell[0], slice(None) if cell[0] == 0 else cell[1]] = one[key].values
            for text in json.loads(one.attrs["warned"]):
                warned.setdefault(f"{name}: {text}", []).append(plan.named(cell))
    for name, texts in failed.items():
        warn(f"{name} failed in {len(texts)} of {len(plan.cells)} fits, which are missing; {texts[0]}")
    if not rows.any():
        raise ValueError("no model could be fitted; " + "; ".join(f"{k}: {v[0]}" for k, v in failed.items()))
    over = ("model", "share" if plan.by == "station" else "removed", "replicate")
    mean = {name: _mean(values, rows) for name, values in part.items()}
    units = {"units": table.units} if table.units else {}
    at = np.searchsorted(plan.training, plan.site).clip(max=len(plan.training) - 1)
    of_row = (plan.training[at] == plan.site) & table.observed
    count = np.bincount(at[of_row], minlength=len(plan.training))
    out = xr.Dataset({
        "crps": (over, mean["crps"], units), "rmse": (over, np.sqrt(mean["square"]), units),
        "coverage90": (over, mean["coverage90"]),
        **{f"station_{name}": ((*over, "station"), values) for name, values in part.items()},
        "rows": ("station", rows), "kept": ((*over[1:], "train_station"), plan.kept),
        "n_stations": (over[1:], plan.kept.sum(axis=2)), "n_rows": (over[1:], plan.kept @ count),
    }, {"model": np.array(models), over[1]: np.array(plan.levels), "replicate": np.arange(shape[2]),
        "station": plan.validation, "train_station": plan.training})  # fmt: skip
    if {"lon", "lat"} <= set(table.dataset.coords):
        out["nearest"] = over[1:], _nearest(plan, table), {"units": "km"}
    if (group := table.labels("group")) is not None:
        first = [int(np.flatnonzero(plan.site == name)[0]) for name in plan.validation]
        out = out.assign_coords(group=("station", group[first]))
    out.attrs = {"by": plan.by, "metric": metric, "units": table.units, "random_seed": seed, "trained": int(trained),
                 "failed": json.dumps(failed), "warned": json.dumps(warned)}  # fmt: skip
    return out


def _mean(values: Array, rows: NDArray[np.int64]) -> Array:
    """Mean over the rows of all stations (last axis); NaN where a fit failed."""
    there = rows > 0
    return values[..., there] @ rows[there] / rows.sum()


def _nearest(plan: _Plan, table: Ensemble) -> Array:
    """Median over validation stations of the distance from the nearest station learnt from."""
    place = pd.DataFrame({name: table.dataset[name].values for name in ("lon", "lat")}).groupby(plan.site).median()
    one, other = (place.loc[list(names)].to_numpy().T for names in (plan.validation, plan.training))
    distance = great_circle(*one[:, :, None], *other[:, None, :])
    return np.array([[np.median(distance[:, kept].min(axis=1)) for kept in level] for level in plan.kept])


def _digest(values: NDArray[Any]) -> str:
    return sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
