"""What drives the members: the rise of the loss at held-out stations when a covariate is shuffled, or left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.common_rows import season
from bayesens.members.fitted import entropy, run, seed_of
from bayesens.members.folds import custom_folds, site_folds
from bayesens.members.members import Members
from bayesens.members.training_table import TrainingTable
from bayesens.messages import check_known, listed, warn
from bayesens.sensitivity.losses import Combiner, Fold, Loss, Measure, fitted_members, plan_of, rise_table, usable_rows

__all__ = ["drop_importance", "permutation_importance"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
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
        ``percent``, ``_low``, ``_high``      the rise in percent of the loss
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
    columns = _door(members, sets, n_repeats, combiners, level, replicates)
    rows, seed = members.rows, entropy(random_seed)
    fold = _folds(members, folds, seed if random_seed is not None else None)
    plan = plan_of(members, fold, _never_bare(rows, columns))
    strata = _strata(rows, within)
    if within is not None:
        _warn_unmoved(plan, columns, strata, rows)
    fits = fitted_members(plan, seed, n_jobs, progressbar)
    measure = Measure(rows, _loss(loss), dict(combiners or {}))
    base = [measure(fold, fold.predicted(own, fold.X())) for fold, own in zip(plan, fits)]

    def shuffled(fold: Fold, own: dict[str, Any], name: str) -> Array:
        seeds = [seed_of(seed, name, f"{fold.name}, {r}") for r in range(n_repeats)]
        tables = (_shuffled(fold, columns[name], strata, one) for one in seeds)
        return np.stack([measure(fold, fold.predicted(own, X)) for X in tables], axis=2)

    jobs = [partial(shuffled, fold, own, name) for name in columns for fold, own in zip(plan, fits)]
    done = iter(run(jobs, "Shuffling covariates", n_jobs, progressbar))
    changed = {name: [next(done) for _ in plan] for name in columns}
    found = rise_table(plan, measure, base, changed, level=level, replicates=replicates, seed=seed)
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
    columns = _door(members, sets, 1, combiners, level, replicates)
    rows, seed = members.rows, entropy(random_seed)
    everything = [name for name, used in columns.items() if set(used) == set(rows.X)]
    if everything:
        raise ValueError(f"without {listed(everything)} there is no covariate left; wanted one at least to learn from")
    counted = usable_rows(rows)
    for used in columns.values():
        counted &= rows.X.drop(columns=used).notna().any(axis=1).to_numpy()
    fold = _folds(members, folds, seed if random_seed is not None else None)
    plans = [plan_of(members, fold, counted, used, warned=bool(used)) for used in ([], *columns.values())]
    jobs = [partial(one.refitted, name, seed) for plan in plans for one in plan for name in members.estimators]
    values = iter(run(jobs, "Leaving covariates out", n_jobs, progressbar))
    measure = Measure(rows, _loss(loss), dict(combiners or {}))
    found = [[measure(one, {name: next(values) for name in members.estimators}) for one in plan] for plan in plans]
    changed = {name: [each[:, :, None] for each in one] for name, one in zip(columns, found[1:], strict=True)}
    table = rise_table(plans[0], measure, found[0], changed, level=level, replicates=replicates, seed=seed)
    table.attrs = {"level": level, "units": rows.units}
    return table.drop(columns=["rise_sd_repeat", "r2_fall_sd_repeat"])


def _door(
    members: Members,
    sets: Mapping[str, Iterable[str]] | None,
    n_repeats: int,
    combiners: Mapping[str, Combiner] | None,
    level: float,
    replicates: int,
) -> dict[str, list[str]]:
    """Covariates of every set, single ones after them."""
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
    return columns | {column: [column] for column in single}


def _never_bare(rows: TrainingTable, columns: dict[str, list[str]]) -> NDArray[np.bool_]:
    """Usable rows, without those that would lose their only covariates to a row that lacks them."""
    usable, there = usable_rows(rows), rows.X.notna()
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


def _folds(members: Members, folds: int | ArrayLike, seed: int | None) -> Index:
    rows = members.rows
    if np.ndim(folds) > 0:
        return custom_folds(_given(folds, len(rows), "folds"))
    return site_folds(rows.site, folds=folds, weight=usable_rows(rows), group=rows.group, random_seed=seed)  # type: ignore[arg-type]


def _given(labels: ArrayLike, n_rows: int, name: str) -> NDArray[Any]:
    given = np.asarray(labels)
    if given.shape != (n_rows,):
        raise ValueError(f"{name} has the shape {given.shape}; wanted one label for each of the {n_rows} rows")
    if missing := int((np.asarray(pd.isna(given)) | (given == "")).sum()):
        raise ValueError(f"{name} has no label in {missing} of {n_rows} rows; wanted one in every row")
    return given.astype(str) if given.dtype == object else given


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


def _shuffled(fold: Fold, columns: list[str], strata: NDArray[np.intp] | None, seed: int) -> pd.DataFrame:
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
    plan: list[Fold], columns: dict[str, list[str]], strata: NDArray[np.intp] | None, rows: TrainingTable
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
