"""What stations are worth: models learnt from fewer of them, or without one group, and scored at the same others."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.atomic import file_name
from bayesens.checks import check_known, warn
from bayesens.columns import listed
from bayesens.comparison import FAILURES, UNSEEN, versions
from bayesens.ensemble import Ensemble
from bayesens.inference import check_given, fit
from bayesens.member_fits import MemberError, entropy
from bayesens.members import Members
from bayesens.options import options_to_json
from bayesens.parallel import in_processes
from bayesens.prediction import score
from bayesens.resample import Clusters, Replicates, cluster_interval, interval, leave_out, pigeonhole
from bayesens.sphere import great_circle
from bayesens.steps import Steps

__all__ = ["fewer_stations", "power_law", "reduction_table", "reduction_words"]

Array = NDArray[np.float64]
PARTS = {"crps": "crps", "rmse": "square", "coverage90": "coverage90"}  # of what mean of the rows each score is made
LEAST_REMOVALS = 5  # for the spread over them
STEEPEST, FLATTEST = 10.0, 0.01  # exponents that are tried


def fewer_stations(
    models: Mapping[str, Any],
    data: Ensemble | Members,
    *,
    by: str = "station",
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4),
    replicates: int = 20,
    validation: float | Sequence[str] = 0.25,
    metric: str = "crps",
    method: str | Mapping[str, str] = "auto",
    draws: int = 1000,
    inner_folds: int = 5,
    random_seed: int | None = None,
    n_jobs: int = 1,
    workers: int = 1,
    cache: str | Path | None = None,
    progressbar: bool = True,
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
    method : str or mapping of model name to str
        Of `fit`.
    draws : int
        Of each of four chains.
    inner_folds : int
        Folds of stations of the cross-fitting.
    random_seed : int, optional
        Of the validation stations and orders, and of every fit.
    n_jobs : int
        Threads that train members.
    workers : int
        Processes that share the cells (replicates and shares); 1: this process. The result is the same.
    cache : path, optional
        Folder that keeps the scores of every fit, so that a run that was stopped goes on from there.
    progressbar : bool

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
    """  # fmt: skip
    check_known([metric], PARTS, kind="metric", where="what is scored")
    check_known([by], ["station", "group"], kind="value of by", where="what can be removed")
    table = _table(data)
    for model in models.values():
        check_given(table, model)
    seed = entropy(random_seed)
    plan = _planned(table, by, shares, replicates, validation, seed, inner_folds if isinstance(data, Members) else 1)
    methods = {name: method if isinstance(method, str) else method.get(name, "auto") for name in models}
    jobs = {name: _Job(model, methods[name], draws, seed) for name, model in models.items()}
    if workers != int(workers) or workers < 1:
        raise ValueError(f"workers is the number of processes, 1 for this one alone; got {workers!r}")
    steps = Steps(Path(cache) if cache is not None else None, versions())
    work = _Work(data, plan, jobs, steps, inner_folds, seed, n_jobs)
    with _progress(len(plan.cells), progressbar) as advance:
        if workers == 1:
            made = {cell: work.cell(cell, advance) for cell in plan.cells}
        else:
            calls = ((cell, work.cell, (cell,)) for cell in plan.cells)
            made = dict(in_processes(int(workers), calls, lambda _: advance()))
    return _joined(made, plan, list(models), table, metric, seed, isinstance(data, Members))


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task("fewer stations", total=total)
        yield lambda: bar.advance(task)


# ------------------------------------------------------------------------------------------------- which stations go
@dataclass(frozen=True, eq=False)
class _Plan:
    """Stations and who learns from which.

    Attributes
    ----------
    site : array (obs)
    validation, training : array of station labels
    kept : bool array (level, replicate, training station)
    by : str
    levels : list of float or str
        Shares or groups removed, the first of them nothing.
    """

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


# ------------------------------------------------------------------------------------------------- tables and curves
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
    Low and high resample validation stations and removals, independently of each other (`bayesens.resample`). Both come from
    the stations that there are: that another network would have other training stations is not in them.

    Examples
    --------
    >>> import bayesens as be
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
        with np.errstate(divide="ignore", invalid="ignore"):
            return 100.0 * (self.score / self.score[0] - 1.0) if self.unit == "percent" else self.score - self.score[0]

    def clusters(self, i: int) -> Clusters:
        return Clusters(self.stations, int(self.removals[i]))

    def ends(self, values: Array, i: int) -> tuple[float, float]:
        if not self.replicates:
            return np.nan, np.nan
        return cluster_interval(
            values, self.level, self.clusters(i), replicates=self.replicates, stations=self.stations
        )

    def how(self, i: int) -> str:
        """How the interval is made, in the words of what is resampled here."""
        removals = int(self.removals[i])
        text = f"{self.stations} validation station{'s' * (self.stations != 1)}"
        text += f" and {removals} removals" if removals > 1 else ""
        return self.clusters(i).how.partition(f"{self.stations} stations")[0] + text


def _curves(
    result: xr.Dataset, metric: str | None, replicates: int, level: float, random_seed: int | None
) -> list[_Curve]:
    metric = metric or str(result.attrs["metric"])
    check_known([metric], PARTS, kind="metric", where="the result")
    part = result[f"station_{PARTS[metric]}"].values
    rows = result["rows"].values
    by_group = result.attrs["by"] == "group"
    levels = result["removed" if by_group else "share"].values.tolist()
    group = result["group"].values if "group" in result.coords else np.full(len(rows), "")
    out = []
    for m, model in enumerate(result["model"].values.tolist()):
        for scored in ("all", "own", "others") if by_group else ("all",):
            for some in [list(range(len(levels)))] if scored == "all" else [[0, i] for i in range(1, len(levels))]:
                inside = (rows > 0) & ((scored == "all") | ((group == levels[some[-1]]) == (scored == "own")))
                if inside.any():
                    out.append(_curve(result, part[m][some][..., inside], rows[inside], str(model), scored, metric,
                                      [levels[i] for i in some], some, replicates, level, random_seed))  # fmt: skip
    return out


def _curve(
    result: xr.Dataset, part: Array, rows: NDArray[np.int64], model: str, scored: str, metric: str, levels: list[Any],
    some: list[int], replicates: int, level: float, random_seed: int | None,
) -> _Curve:  # fmt: skip
    stations, removals = part.shape[2], part.shape[1]
    drawn = _drawn(stations, removals, replicates, random_seed)
    weight = rows[:, None] * drawn.station
    total = weight.sum(axis=0)
    mean = part @ (weight / np.where(total > 0, total, np.nan))
    mean = np.sqrt(mean) if metric == "rmse" else mean
    there = np.isfinite(part).all(axis=2)
    count = there.astype(np.float64) @ drawn.block
    score = np.einsum("lrb,rb->lb", np.where(there[:, :, None], mean, 0.0), drawn.block) / np.where(
        count > 0, count, np.nan
    )
    one = mean[:, :, 0]
    of_removals = 100.0 * (one / one[0] - 1.0) if metric != "coverage90" else one - one[0]
    return _Curve(model, scored, metric, levels, result["n_stations"].values.mean(axis=1)[some], stations,
                  there.sum(axis=1), score, of_removals, replicates, level)  # fmt: skip


def _drawn(stations: int, removals: int, replicates: int, random_seed: int | None) -> Replicates:
    grid = np.repeat(np.arange(stations), removals), np.tile(np.arange(removals), stations)
    return leave_out(pigeonhole(*grid, replicates=replicates, random_seed=random_seed))


def _spread(change: Array, level: float) -> tuple[float, float]:
    known = change[np.isfinite(change)]
    if len(known) < LEAST_REMOVALS:
        return np.nan, np.nan
    low, high = interval(known, level)
    return float(low), float(high)
