"""Losses of members and of their combinations at held-out stations, as they are and changed, and the table of their rise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.bootstrap import interval, pigeonhole
from bayesens.members.fast.forms import quick
from bayesens.members.fitted import Job, blended, run, seed_of
from bayesens.members.members import Members
from bayesens.members.regions import Regions
from bayesens.members.training_table import TrainingTable

__all__ = ["Combiner", "Fold", "Loss", "Measure", "fitted_members", "plan_of", "rise_table", "usable_rows"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Loss = Callable[[Array, Array], ArrayLike]
Combiner = Callable[[dict[str, Array]], ArrayLike]


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows to learn from and rows held out, with the weights that regions have there."""

    members: Members
    rows: TrainingTable
    name: str
    train: Index
    test: Index
    regions: Regions

    @cached_property
    def weight(self) -> Array:
        """Of each region in the rows held out."""
        return self.regions.weight(len(self.test), **self.rows.where(self.test))

    def X(self) -> pd.DataFrame:
        """Covariates of the rows held out."""
        return self.rows.X.iloc[self.test]

    def _job(self, name: str, seed: int) -> Job:
        estimator = self.members.estimators[name]
        return Job(estimator, self.rows, name, self.train, self.regions, self.name, seed_of(seed, name, self.name))

    def fitted(self, name: str, seed: int) -> dict[str, Any]:
        """A member, in every region that has a weight here, to predict the rows held out many times."""
        fits = self._job(name, seed).fitted(np.flatnonzero((self.weight > 0).any(axis=0)))
        return {region: quick(fit, self.rows.X.shape[1], len(self.test)) for region, fit in fits.items()}

    def refitted(self, name: str, seed: int) -> Array:
        """What a member predicts once it is fitted."""
        return self._job(name, seed).predicted(self.test)

    def predicted(self, own: Mapping[str, dict[str, Any]], X: pd.DataFrame) -> dict[str, Array]:
        """What fitted members predict from covariates of the rows held out."""
        weight = self.weight
        return {name: blended(fits, name, X, weight, self.regions.names, self.name) for name, fits in own.items()}


def usable_rows(rows: TrainingTable) -> NDArray[np.bool_]:
    """Whether a row has an observation and some covariate."""
    return np.isfinite(rows.y) & ~rows.bare


def plan_of(
    members: Members, fold: Index, counted: NDArray[np.bool_], without: Iterable[str] = (), *, warned: bool = False
) -> list[Fold]:
    """Folds with the rows that count, their covariates without some."""
    X = members.rows.X.drop(columns=list(without))
    rows = replace(members.rows, X=X, bare=X.isna().to_numpy().all(axis=1))
    usable, number = usable_rows(rows), int(fold.max()) + 1
    plan = []
    for k in range(number):
        train = rows.order[(usable & (fold != k))[rows.order]]
        if not len(train):
            raise ValueError(f"fold {k + 1} of {number} leaves no row to learn from; wanted other folds")
        regions = members._regions(train)
        plan.append(
            Fold(members, rows, f"fold {k + 1} of {number}", train, np.flatnonzero(counted & (fold == k)), regions)
        )
    if not warned:
        members._warn_thin([one.regions for one in plan])
    plan = [one for one in plan if len(one.test)]
    if not plan:
        raise ValueError(
            f"none of {len(members.rows)} rows can be held out: every row has no observation, or covariates of one set only"
        )
    return plan


def fitted_members(plan: list[Fold], seed: int, n_jobs: int, progressbar: bool) -> list[dict[str, dict[str, Any]]]:
    """Every member of every fold."""
    names = list(plan[0].members.estimators)
    jobs: list[Callable[[], dict[str, Any]]] = [partial(fold.fitted, name, seed) for fold in plan for name in names]
    done = iter(run(jobs, "Fitting members", n_jobs, progressbar))
    return [{name: next(done) for name in names} for _ in plan]


@dataclass(frozen=True, eq=False)
class Measure:
    """Loss and squared error of every member and combination, summed by station."""

    rows: TrainingTable
    loss: Loss
    combiners: dict[str, Combiner]

    @cached_property
    def station(self) -> Index:
        """Number of every row's station."""
        return np.unique(self.rows.site, return_inverse=True)[1]

    def by_station(self, rows: Index, values: Array) -> Array:
        """Sums of values of some rows."""
        return np.bincount(self.station[rows], values, int(self.station.max()) + 1)

    def __call__(self, fold: Fold, predicted: dict[str, Array]) -> Array:
        """Sums (loss of each, then squared error of each; station)."""
        y = self.rows.y[fold.test]
        every = predicted | {name: values[fold.test] for name, values in self.rows.products.items()}
        outputs = [*predicted.values(), *(self._combined(name, every, len(y)) for name in self.combiners)]
        lost = [self._lost(y, mean) for mean in outputs] + [(mean - y) ** 2 for mean in outputs]
        return np.stack([self.by_station(fold.test, each) for each in lost])

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


def _sums(
    plan: list[Fold], measure: Measure, base: list[Array], changed: list[list[Array]]
) -> tuple[Array, Array, Array, Array]:
    """What all numbers of the table are made of, by station.

    As they are (quantity, station), and changed (set, quantity, station, repeat); the mean rise of each fold's rows (fold, set,
    quantity); rows, sum and sum of squares of the observations (3, station).
    """
    n = [len(fold.test) for fold in plan]
    by_fold = [np.stack(sets) for sets in zip(*changed, strict=True)]
    rise = [(each.mean(axis=3) - one).sum(axis=2) / count for each, one, count in zip(by_fold, base, n, strict=True)]
    counted = np.concatenate([fold.test for fold in plan])
    y = measure.rows.y[counted]
    y = y - y.mean()  # sums of squares keep their digits where the mean is large
    sums = np.stack([measure.by_station(counted, values) for values in (np.ones(len(y)), y, y**2)])
    return sum(base), sum(by_fold), np.stack(rise), sums  # type: ignore[return-value]


def rise_table(
    plan: list[Fold],
    measure: Measure,
    base: list[Array],
    changed: dict[str, list[Array]],
    *,
    level: float,
    replicates: int,
    seed: int,
) -> pd.DataFrame:
    """The rise of the loss, in its units and in percent, and the fall of R2, with intervals by bootstrap of stations.

    From the losses of every fold as they are, and as they are with each set of covariates changed.
    """
    base_sums, changed_sums, fold_rise, sums = _sums(plan, measure, base, list(changed.values()))
    names = [*plan[0].members.estimators, *measure.combiners]
    there = sums[0] > 0
    stations = np.arange(int(there.sum()))
    drawn = pigeonhole(stations, np.zeros_like(stations), replicates=replicates, random_seed=seed).station
    each_base, each_changed, (n, y, squares) = base_sums[:, there], changed_sums[:, :, there], sums[:, there]
    rows, spread = n @ drawn, squares @ drawn - (y @ drawn) ** 2 / (n @ drawn)
    several = len(stations) > 1 and replicates > 0

    def ends(values: Array) -> tuple[float, float]:
        low, high = interval(values[1:] if several else np.full(1, np.nan), level)
        return float(low), float(high)

    lines = []
    for k, name in enumerate(names):
        loss, squared = each_base[k], each_base[len(names) + k]
        for s, label in enumerate(changed):
            line: dict[str, Any] = {"member": name, "covariate": label, "n": int(n.sum()), "stations": len(stations),
                                    "folds": len(fold_rise), "loss": loss.sum() / n.sum()}  # fmt: skip
            parts = (
                ("rise", k, loss, rows),
                ("percent", k, loss, loss @ drawn / 100),
                ("r2_fall", len(names) + k, squared, spread),
            )
            for what, quantity, before, unit in parts:
                own = each_changed[s, quantity] - before[:, None]
                with np.errstate(divide="ignore", invalid="ignore"):
                    value = own.mean(axis=1) @ drawn / unit
                    repeat, fold = own.sum(axis=0) / unit[0], fold_rise[:, s, quantity] * n.sum() / unit[0]
                if what == "r2_fall":
                    line["r2"] = 1 - squared.sum() / spread[0] if spread[0] > 0 else np.nan
                line[what] = value[0]
                if what != "percent":
                    line[f"{what}_sd_repeat"] = repeat.std(ddof=1) if len(repeat) > 1 else np.nan
                    line[f"{what}_sd_fold"] = fold.std(ddof=1) if len(fold) > 1 else np.nan
                line[f"{what}_low"], line[f"{what}_high"] = ends(value)
            lines.append(line)
    return pd.DataFrame(lines)
