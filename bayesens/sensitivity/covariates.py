"""What drives the members: the rise of the loss at held-out stations when a covariate is shuffled, or left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.bootstrap import interval, pigeonhole
from bayesens.comparison.common_rows import season
from bayesens.members.fitted import Job, blended, entropy, run, seed_of
from bayesens.members.folds import custom_folds, site_folds
from bayesens.members.members import Members
from bayesens.members.regions import Regions
from bayesens.members.training_table import TrainingTable
from bayesens.messages import check_known, listed, warn

__all__ = ["drop_importance", "permutation_importance"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Loss = Callable[[Array, Array], ArrayLike]
Combiner = Callable[[dict[str, Array]], ArrayLike]
LOSSES: dict[str, Loss] = {"squared": lambda y, mean: (mean - y) ** 2, "absolute": lambda y, mean: np.abs(mean - y)}


def permutation_importance(
    members: Members,
    *,
    sets: Mapping[str, Iterable[str]] | None = None,
    within: str | ArrayLike | None = None,
    n_repeats: int = 20,
    folds: int | ArrayLike = 5,
    loss: str | Loss = "squared",
    combiners: Mapping[str, Combiner] | None = None,
    level: float = 0.9,
    replicates: int = 2000,
    random_seed: int | None = None,
    n_jobs: int = 1,
    progressbar: bool = True,
) -> pd.DataFrame:
    """Rise of the loss when a covariate is shuffled among held-out rows, for every member and combination of members.

    Each fold's members are fitted to the other folds as they are; only the rows held out are shuffled. Shuffling
    without `within` makes combinations of covariates that never occur, such as summer heat with winter radiation, and
    judges the members there; within stations and seasons it asks what the covariate adds to what those say already.
    Either way it is the importance to these members, not to nature: one of two like covariates stands in for the other,
    so shuffle them as one of the `sets`.

    Parameters
    ----------
    members : Members
        Estimators, covariates, observations and stations.
    sets : mapping of str to iterable of str, optional
        Covariates that are shuffled together, as whole rows, for example ``{"texture": ["clay", "silt", "sand"]}``. A
        covariate of no set is shuffled by itself.
    within : {"site", "season", "site-season"} or array_like (obs), optional
        Shuffle within stations, within seasons (December to February and so on; needs the members' time), within both,
        or within labels of your own. None: among all rows of the fold.
    n_repeats : int
        Shuffles of every fold and set.
    folds : int or array_like (obs)
        Folds of whole stations, those of `bayesens.cross_fit` with the same seed; or your own fold labels.
    loss : {"squared", "absolute"} or callable
        A callable takes observations and predictions (obs) and returns the loss of every row.
    combiners : mapping of str to callable, optional
        Each takes a dict of member to predictions (obs), held out, and returns a prediction (obs).
    level : float
        Share of the station bootstrap that the intervals hold.
    replicates : int
        Of the station bootstrap; 0 for no intervals.
    random_seed : int, optional
        Of folds, estimators, shuffles and bootstrap. None: other shuffles at every call.
    n_jobs : int
        Threads; the result does not depend on it.
    progressbar : bool

    Returns
    -------
    pandas.DataFrame (member and set)
        One row for every member or combiner and every covariate or set:

        ==================================== ===================================================================
        ``member``, ``covariate``            names
        ``n``, ``stations``, ``folds``       rows with an observation, and what they come from
        ``loss``                             mean loss over the rows as they are
        ``rise``                             of the mean loss by shuffling, averaged over the repeats
        ``rise_sd_repeat``                   its sd over repeats: the noise of shuffling, which more repeats average out
        ``rise_sd_fold``                     sd over folds of the fold's own rise
        ``rise_low``, ``rise_high``          interval by bootstrap of stations: what other stations might have shown
        ``percent``, ``..._low``, ``..._high``     the rise in percent of the loss
        ``r2``                               1 minus the sum of squared errors over that about the mean observation
        ``r2_fall``, and so on               its fall, with the same sds and interval
        ==================================== ===================================================================

        Sds of one repeat or fold, and intervals of one station, are NaN. The fits are not repeated in the bootstrap.
        Rows that shuffling could leave without any covariate are passed over.

    Raises
    ------
    KeyError, TypeError, ValueError
        Unknown covariates or names, folds that cannot be made, losses and combiners that return another shape.
    MemberError
        An estimator failed.

    References
    ----------
    Fisher, Rudin & Dominici (2019), J. Mach. Learn. Res. 20, 177; Hooker, Mentch & Zhou (2021), Stat. Comput. 31, 82.

    Examples
    --------
    Where ``y = x`` is learnt exactly, two held-out rows that differ by 2 are swapped in half of the shuffles, which
    costs each of them 2 squared; ``noise`` is worth nothing.

    >>> from sklearn.linear_model import LinearRegression
    >>> X = pd.DataFrame({"x": [0.0, 2, 0, 2], "noise": [1.0, 1, 0, 0]})
    >>> members = Members({"mlr": LinearRegression()}, X, X["x"], site=list("aabb"))
    >>> found = permutation_importance(members, folds=2, n_repeats=100, random_seed=1, progressbar=False)
    >>> found[["covariate", "rise"]].round(0)
      covariate  rise
    0         x   2.0
    1     noise   0.0
    """
    columns, names = _door(members, sets, n_repeats, combiners, level, replicates)
    rows, seed = members.rows, entropy(random_seed)
    fold = _folds(members, folds, seed if random_seed is not None else None)
    plan = _plan(members, fold, _never_bare(rows, columns))
    strata = _strata(rows, within)
    if within is not None:
        _warn_unmoved(plan, columns, strata, rows)
    fits = _fitted(plan, seed, n_jobs, progressbar)
    measure = _Measure(rows, _stations(rows), _loss(loss), dict(combiners or {}))
    base = [measure(fold, fold.predicted(own, fold.X())) for fold, own in zip(plan, fits)]

    def shuffled(fold: _Fold, own: dict[str, Any], name: str) -> Array:
        seeds = [seed_of(seed, name, f"{fold.name}, {r}") for r in range(n_repeats)]
        tables = (_shuffled(fold, columns[name], strata, one) for one in seeds)
        return np.stack([measure(fold, fold.predicted(own, X)) for X in tables], axis=2)

    jobs = [partial(shuffled, fold, own, name) for fold, own in zip(plan, fits) for name in columns]
    done = run(jobs, "Shuffling covariates", n_jobs, progressbar)
    cells = _cells(plan, rows, base, done, len(columns))
    found = _table(cells, names, list(columns), level, replicates, seed)
    found.attrs = {"n_repeats": n_repeats, "level": level, "units": rows.units}
    return found


def drop_importance(
    members: Members,
    *,
    sets: Mapping[str, Iterable[str]] | None = None,
    folds: int | ArrayLike = 5,
    loss: str | Loss = "squared",
    combiners: Mapping[str, Combiner] | None = None,
    level: float = 0.9,
    replicates: int = 2000,
    random_seed: int | None = None,
    n_jobs: int = 1,
    progressbar: bool = True,
) -> pd.DataFrame:
    """Rise of the loss at held-out stations when the members are fitted anew without a covariate.

    What the other covariates can stand in for is not counted, and a fall is possible: a covariate that tells stations
    apart without telling of soil moisture is better left out.

    Parameters
    ----------
    members, sets, folds, loss, combiners, level, replicates, random_seed, n_jobs, progressbar
        As in `permutation_importance`; the sets are left out instead of shuffled. An estimator's random numbers are the
        same with and without a covariate.

    Returns
    -------
    pandas.DataFrame (member and set)
        As in `permutation_importance`, without sds over repeats. Rows that have nothing but covariates of one set are
        passed over.

    Raises
    ------
    KeyError, TypeError, ValueError, MemberError
        As there; and for a set that leaves no covariate.

    References
    ----------
    Lei, G'Sell, Rinaldo, Tibshirani & Wasserman (2018), J. Am. Stat. Assoc. 113, 1094, section 6.

    Examples
    --------
    ``y = x`` is learnt exactly; without ``x`` each half predicts the other by its mean, 1.

    >>> from sklearn.linear_model import LinearRegression
    >>> X = pd.DataFrame({"x": [0.0, 2, 0, 2], "noise": [1.0, 1, 0, 0]})
    >>> members = Members({"mlr": LinearRegression()}, X, X["x"], site=list("aabb"))
    >>> drop_importance(members, folds=2, progressbar=False)[["covariate", "rise"]].round(1)
      covariate  rise
    0         x   1.0
    1     noise   0.0
    """
    columns, names = _door(members, sets, 1, combiners, level, replicates)
    rows, seed = members.rows, entropy(random_seed)
    everything = [name for name, used in columns.items() if set(used) == set(rows.X)]
    if everything:
        raise ValueError(f"without {listed(everything)} there is no covariate left; wanted one at least to learn from")
    counted = _usable(rows)
    for used in columns.values():
        counted &= rows.X.drop(columns=used).notna().any(axis=1).to_numpy()
    fold = _folds(members, folds, seed if random_seed is not None else None)
    plans = [_plan(members, fold, counted, used, warned=bool(used)) for used in ([], *columns.values())]
    jobs = [partial(one.refitted, name, seed) for plan in plans for one in plan for name in members.estimators]
    values = iter(run(jobs, "Leaving covariates out", n_jobs, progressbar))
    measure = _Measure(rows, _stations(rows), _loss(loss), dict(combiners or {}))
    found = [[measure(one, {name: next(values) for name in members.estimators}) for one in plan] for plan in plans]
    changed = [found[1 + s][k][:, :, None] for k in range(len(plans[0])) for s in range(len(columns))]
    cells = _cells(plans[0], rows, found[0], changed, len(columns))
    table = _table(cells, names, list(columns), level, replicates, seed)
    table.attrs = {"level": level, "units": rows.units}
    return table.drop(columns=["rise_sd_repeat", "r2_fall_sd_repeat"])


# Inside ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Fold:
    """Rows to learn from and rows held out, with the weights that regions have there."""

    members: Members
    rows: TrainingTable
    name: str
    train: Index
    test: Index
    regions: Regions

    @cached_property
    def weight(self) -> Array:
        return self.regions.weight(len(self.test), **self.rows.where(self.test))

    def X(self) -> pd.DataFrame:
        return self.rows.X.iloc[self.test]

    def job(self, name: str, seed: int) -> Job:
        estimator = self.members.estimators[name]
        return Job(estimator, self.rows, name, self.train, self.regions, self.name, seed_of(seed, name, self.name))

    def fitted(self, name: str, seed: int) -> dict[str, Any]:
        return self.job(name, seed).fitted(np.flatnonzero((self.weight > 0).any(axis=0)))

    def refitted(self, name: str, seed: int) -> Array:
        return self.job(name, seed).predicted(self.test)

    def predicted(self, own: Mapping[str, dict[str, Any]], X: pd.DataFrame) -> dict[str, Array]:
        weight = self.weight
        return {name: blended(fits, name, X, weight, self.regions.names, self.name) for name, fits in own.items()}


@dataclass(frozen=True, eq=False)
class _Measure:
    """Loss and squared error of every member and combination, summed by station."""

    rows: TrainingTable
    station: Index
    loss: Loss
    combiners: dict[str, Combiner]

    def __call__(self, fold: _Fold, predicted: dict[str, Array]) -> Array:
        """Sums (loss of each, then squared error of each; station)."""
        y, where = self.rows.y[fold.test], self.station[fold.test]
        every = predicted | {name: values[fold.test] for name, values in self.rows.products.items()}
        outputs = [*predicted.values(), *(self._combined(name, every, len(y)) for name in self.combiners)]
        lost = [self._lost(y, mean) for mean in outputs] + [(mean - y) ** 2 for mean in outputs]
        return np.stack([np.bincount(where, each, int(self.station.max()) + 1) for each in lost])

    def _combined(self, name: str, every: dict[str, Array], n: int) -> Array:
        mean = np.asarray(self.combiners[name](every), dtype=np.float64)
        if mean.shape != (n,):
            raise ValueError(f"combiner {name!r} returned the shape {mean.shape}; wanted one prediction a row, ({n},)")
        if missing := int((~np.isfinite(mean)).sum()):
            raise ValueError(
                f"combiner {name!r} returned {missing} of {n} predictions that are not finite; wanted a number in every "
                "row, also where a product is missing (np.nanmean)"
            )
        return mean

    def _lost(self, y: Array, mean: Array) -> Array:
        lost = np.asarray(self.loss(y, mean), dtype=np.float64)
        if lost.shape != y.shape:
            raise ValueError(f"loss returned the shape {lost.shape}; wanted the loss of every row, {y.shape}: no mean")
        if missing := int((~np.isfinite(lost)).sum()):
            raise ValueError(f"loss returned {missing} of {len(y)} values that are not finite; wanted numbers")
        return lost


@dataclass(frozen=True, eq=False)
class _Cells:
    """Sums by station as they are and changed, and by fold; what all numbers of the table are made of."""

    base: Array  # (quantity, station)
    changed: Array  # (set, quantity, station, repeat)
    fold_rise: Array  # (fold, set, quantity): mean rise of the fold's rows
    y: Array  # (3, station): rows, sum and sum of squares of the observations


def _door(
    members: Members,
    sets: Mapping[str, Iterable[str]] | None,
    n_repeats: int,
    combiners: Mapping[str, Combiner] | None,
    level: float,
    replicates: int,
) -> tuple[dict[str, list[str]], list[str]]:
    """Covariates of every set, single ones after them, and the names of members and combiners."""
    if not members.estimators:
        raise ValueError(
            f"no member is trained ({listed(members.names)} are given); there are no covariates to look at"
        )
    if n_repeats < 1 or n_repeats != int(n_repeats):
        raise ValueError(f"n_repeats is {n_repeats!r}; wanted a whole number of at least 1")
    if replicates < 0 or replicates != int(replicates):
        raise ValueError(f"replicates is {replicates!r}; wanted a whole number, 0 for no intervals")
    if not 0 < level < 1:
        raise ValueError(f"level is {level!r}; wanted a share inside (0, 1), such as 0.9")
    if both := set(combiners or {}) & set(members.names):
        raise ValueError(f"combiners {listed(sorted(both))} have names of members; give them others")
    known = [str(name) for name in members.rows.X]
    if texts := [name for name, used in (sets or {}).items() if isinstance(used, str)]:
        raise TypeError(f"set {texts[0]!r} is a text; wanted a list of covariates: [{sets[texts[0]]!r}]")  # type: ignore[index]
    columns = {str(name): list(dict.fromkeys(used)) for name, used in (sets or {}).items()}
    for name, used in columns.items():
        check_known(used, known, kind="covariate", where=f"the members (set {name!r})")
        if not used:
            raise ValueError(f"set {name!r} has no covariates; name some")
    taken = [column for used in columns.values() for column in used]
    if twice := sorted({column for column in taken if taken.count(column) > 1}):
        raise ValueError(f"covariates {listed(twice)} stand in two sets; wanted each in one at most")
    single = [name for name in known if name not in taken]
    if clash := [name for name in single if name in columns]:
        raise ValueError(f"set {clash[0]!r} has the name of a covariate outside it; give it another")
    return columns | {column: [column] for column in single}, [*members.estimators, *(combiners or {})]


def _usable(rows: TrainingTable) -> NDArray[np.bool_]:
    return np.isfinite(rows.y) & ~rows.bare


def _never_bare(rows: TrainingTable, columns: dict[str, list[str]]) -> NDArray[np.bool_]:
    """Usable rows, without those that would lose their only covariates to a row that lacks them."""
    usable, there = _usable(rows), rows.X.notna()
    counted = usable.copy()
    for used in columns.values():
        if (usable & ~there[used].any(axis=1).to_numpy()).any():
            counted &= there.drop(columns=used).any(axis=1).to_numpy()
    return counted


def _loss(loss: str | Loss) -> Loss:
    if callable(loss):
        return loss
    check_known([loss], LOSSES, kind="loss", where="what is known by name")
    return LOSSES[loss]


def _stations(rows: TrainingTable) -> NDArray[np.intp]:
    return np.unique(rows.site, return_inverse=True)[1]


def _folds(members: Members, folds: int | ArrayLike, seed: int | None) -> Index:
    rows = members.rows
    if np.ndim(folds) > 0:
        return custom_folds(_given(folds, len(rows), "folds"))
    return site_folds(rows.site, folds=folds, weight=_usable(rows), group=rows.group, random_seed=seed)  # type: ignore[arg-type]


def _given(labels: ArrayLike, n_rows: int, name: str) -> NDArray[Any]:
    given = np.asarray(labels)
    if given.shape != (n_rows,):
        raise ValueError(f"{name} has the shape {given.shape}; wanted one label for each of the {n_rows} rows")
    if missing := int((np.asarray(pd.isna(given)) | (given == "")).sum()):
        raise ValueError(f"{name} has no label in {missing} of {n_rows} rows; wanted one in every row")
    return given.astype(str) if given.dtype == object else given


def _plan(
    members: Members, fold: Index, counted: NDArray[np.bool_], without: Iterable[str] = (), *, warned: bool = False
) -> list[_Fold]:
    """Folds with the rows that count, their covariates without some."""
    X = members.rows.X.drop(columns=list(without))
    rows = replace(members.rows, X=X, bare=X.isna().to_numpy().all(axis=1))
    usable, number = _usable(rows), int(fold.max()) + 1
    plan = []
    for k in range(number):
        train = rows.order[(usable & (fold != k))[rows.order]]
        if not len(train):
            raise ValueError(f"fold {k + 1} of {number} leaves no row to learn from; wanted other folds")
        regions = members._regions(train)
        plan.append(
            _Fold(members, rows, f"fold {k + 1} of {number}", train, np.flatnonzero(counted & (fold == k)), regions)
        )
    if not warned:
        members._warn_thin([one.regions for one in plan])
    plan = [one for one in plan if len(one.test)]
    if not plan:
        raise ValueError(
            f"none of {len(members.rows)} rows can be held out: every row has no observation, or covariates of one set only"
        )
    return plan


def _fitted(plan: list[_Fold], seed: int, n_jobs: int, progressbar: bool) -> list[dict[str, dict[str, Any]]]:
    names = list(plan[0].members.estimators)
    jobs: list[Callable[[], dict[str, Any]]] = [partial(fold.fitted, name, seed) for fold in plan for name in names]
    done = iter(run(jobs, "Fitting members", n_jobs, progressbar))
    return [{name: next(done) for name in names} for _ in plan]


def _strata(rows: TrainingTable, within: str | ArrayLike | None) -> NDArray[np.intp] | None:
    """A number for every stratum; None for one of all rows."""
    if within is None:
        return None
    if not isinstance(within, str):
        return np.unique(_given(within, len(rows), "within"), return_inverse=True)[1]
    check_known([within], ("site", "season", "site-season"), kind="stratum", where="what is known by name")
    parts = []
    for part in within.split("-"):
        if part == "season" and (rows.time is None or rows.time.dtype.kind != "M"):
            raise ValueError(
                f"within={within!r} needs the members' time as dates; give Members time=..., or labels of your own"
            )
        parts.append(rows.site if part == "site" else season(rows.time))  # type: ignore[arg-type]
    return pd.MultiIndex.from_arrays(parts).factorize()[0]


def _shuffled(fold: _Fold, columns: list[str], strata: NDArray[np.intp] | None, seed: int) -> pd.DataFrame:
    """The covariates of the rows held out, some of them shuffled as whole rows within strata."""
    X = fold.X().copy()
    code = np.zeros(len(X), dtype=np.intp) if strata is None else strata[fold.test]
    # Rows of a stratum in their own order, and in a random one.
    place, source = np.argsort(code, kind="stable"), np.lexsort((np.random.default_rng(seed).random(len(X)), code))
    values = X[columns].to_numpy()
    moved = np.empty_like(values)
    moved[place] = values[source]
    X[columns] = moved
    return X


def _warn_unmoved(
    plan: list[_Fold], columns: dict[str, list[str]], strata: NDArray[np.intp] | None, rows: TrainingTable
) -> None:
    """Name the covariates that shuffling within strata cannot change."""
    if strata is None:
        return
    still = []
    for name, used in columns.items():
        parts = [rows.X.iloc[fold.test][used].groupby(strata[fold.test]).nunique(dropna=False) for fold in plan]
        if all(int(part.to_numpy().max()) <= 1 for part in parts):
            still.append(name)
    if still:
        warn(f"{listed(still)} do not vary within the strata: shuffling there changes nothing, and their importance is 0 by "
             "construction")  # fmt: skip


def _cells(plan: list[_Fold], rows: TrainingTable, base: list[Array], done: list[Array], n_sets: int) -> _Cells:
    n = [len(fold.test) for fold in plan]
    by_fold = [np.stack(done[k * n_sets : (k + 1) * n_sets]) for k in range(len(plan))]
    rise = [(each.mean(axis=3) - one).sum(axis=2) / count for each, one, count in zip(by_fold, base, n, strict=True)]
    counted = np.concatenate([fold.test for fold in plan])
    station = _stations(rows)
    where, size = station[counted], int(station.max()) + 1
    y = rows.y[counted] - rows.y[counted].mean()  # sums of squares keep their digits where the mean is large
    sums = np.stack([np.bincount(where, values, size) for values in (np.ones(len(y)), y, y**2)])
    return _Cells(sum(base), sum(by_fold), np.stack(rise), sums)  # type: ignore[arg-type]


def _table(cells: _Cells, names: list[str], sets: list[str], level: float, replicates: int, seed: int) -> pd.DataFrame:
    there = cells.y[0] > 0
    stations = np.arange(int(there.sum()))
    drawn = pigeonhole(stations, np.zeros_like(stations), replicates=replicates, random_seed=seed).station
    base, changed, (n, y, squares) = cells.base[:, there], cells.changed[:, :, there], cells.y[:, there]
    rows, spread = n @ drawn, squares @ drawn - (y @ drawn) ** 2 / (n @ drawn)
    several = len(stations) > 1 and replicates > 0

    def ends(values: Array) -> tuple[float, float]:
        low, high = interval(values[1:] if several else np.full(1, np.nan), level)
        return float(low), float(high)

    lines = []
    for k, name in enumerate(names):
        loss, squared = base[k], base[len(names) + k]
        for s, label in enumerate(sets):
            line: dict[str, Any] = {"member": name, "covariate": label, "n": int(n.sum()), "stations": len(stations),
                                    "folds": len(cells.fold_rise), "loss": loss.sum() / n.sum()}  # fmt: skip
            parts = (
                ("rise", k, loss, rows),
                ("percent", k, loss, loss @ drawn / 100),
                ("r2_fall", len(names) + k, squared, spread),
            )
            for what, quantity, before, unit in parts:
                own = changed[s, quantity] - before[:, None]
                with np.errstate(divide="ignore", invalid="ignore"):
                    value = own.mean(axis=1) @ drawn / unit
                    repeat, fold = own.sum(axis=0) / unit[0], cells.fold_rise[:, s, quantity] * n.sum() / unit[0]
                if what == "r2_fall":
                    line["r2"] = 1 - squared.sum() / spread[0] if spread[0] > 0 else np.nan
                line[what] = value[0]
                if what != "percent":
                    line[f"{what}_sd_repeat"] = repeat.std(ddof=1) if len(repeat) > 1 else np.nan
                    line[f"{what}_sd_fold"] = fold.std(ddof=1) if len(fold) > 1 else np.nan
                line[f"{what}_low"], line[f"{what}_high"] = ends(value)
            lines.append(line)
    return pd.DataFrame(lines)
