"""Folds of rows: whole sites, blocks of time, or rows one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.messages import listed

__all__ = [
    "check_number",
    "custom_folds",
    "given_labels",
    "near",
    "plain_folds",
    "row_folds",
    "site_folds",
    "time_folds",
]


def site_folds(
    site: ArrayLike,
    *,
    folds: int = 5,
    weight: ArrayLike | None = None,
    group: ArrayLike | None = None,
    random_seed: int | None = None,
) -> NDArray[np.int64]:
    """Deal whole sites into folds of about equally many rows, the sites of each group spread over the folds.

    Sites go, the heaviest first, to the lightest fold (among those that have fewest sites of their group). Without
    groups two folds therefore never differ by more than the heaviest site; with groups the numbers of a group's sites
    in two folds never differ by more than one.

    Parameters
    ----------
    site : array_like (obs)
        Labels.
    folds : int
        At least 2, at most the number of sites.
    weight : array_like (obs), optional
        What is to be balanced, for example 1 in rows with an observation and 0 elsewhere. None: rows.
    group : array_like (obs), optional
        Labels.
    random_seed : int, optional
        Other seeds give other folds. None: one deal, always the same.

    Returns
    -------
    numpy.ndarray (obs), int
        0 to folds - 1. It depends on the labels and weights, not on the order of the rows.

    References
    ----------
    Graham, R. L. (1969). Bounds on multiprocessing timing anomalies. SIAM Journal on Applied Mathematics 17, 416-429.

    Examples
    --------
    >>> site_folds(["a", "a", "a", "b", "b", "c"], folds=2).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    site = np.asarray(site)
    rows = pd.DataFrame({"site": site, "weight": 1.0 if weight is None else np.asarray(weight, dtype=np.float64)})
    rows["group"] = "" if group is None else np.asarray(group)
    table = rows.groupby("site", sort=True).agg(weight=("weight", "sum"), group=("group", "max"))
    check_number(folds, int((table["weight"] > 0).sum()), "sites with observations")
    load, n_of_group = np.zeros(folds), {name: np.zeros(folds) for name in table["group"].unique()}
    fold: dict[Any, int] = {}
    for name in _heaviest_first(table, random_seed):
        weight_of, group_of = table.at[name, "weight"], table.at[name, "group"]
        spread = n_of_group[group_of] if group is not None else np.zeros(folds)
        fold[name] = int(np.lexsort((load, spread))[0])
        load[fold[name]] += weight_of
        n_of_group[group_of][fold[name]] += 1
    return np.array([fold[name] for name in site], dtype=np.int64)


def _heaviest_first(table: pd.DataFrame, random_seed: int | None) -> list[Any]:
    """Sites in the order in which they are dealt: large groups first, then heavy sites; a seed shakes the order."""
    # Any order keeps the bounds; a mild shake gives other folds and leaves them nearly as even.
    shake = 1.0 if random_seed is None else np.random.default_rng(random_seed).uniform(0.6, 1.4, len(table))
    in_group = table.groupby("group")["weight"].transform("sum")
    order = table.assign(key=table["weight"] * shake, in_group=in_group)
    return order.sort_values(["in_group", "group", "key"], ascending=[False, True, False], kind="stable").index.tolist()


def time_folds(time: ArrayLike, *, folds: int = 5, weight: ArrayLike | None = None) -> NDArray[np.int64]:
    """Cut time into contiguous blocks of about equally many rows; one time never falls into two blocks.

    `time` has no gaps. `weight` (obs) is what is to be balanced; None: rows. Fold 0 is the earliest block.

    Examples
    --------
    >>> time_folds([2001, 2004, 2003, 2002], folds=2).tolist()
    [0, 1, 1, 0]
    """
    unique, position = np.unique(np.asarray(time), return_inverse=True)
    load = np.bincount(position, None if weight is None else np.asarray(weight, dtype=np.float64), len(unique))
    heavy = np.flatnonzero(load)
    check_number(folds, len(heavy), "times with observations")
    edges = np.cumsum(load[heavy]) - load[heavy] / 2  # the middle of each time's share
    ideal = np.minimum((edges * folds / load.sum()).astype(np.int64), folds - 1)
    # A very heavy time may leap over a block: then the neighbours give way, so that no block is empty.
    steps = np.arange(len(heavy))
    block = np.maximum.accumulate(np.clip(ideal, folds - len(heavy) + steps, steps))
    for i in range(1, len(block)):
        block[i] = min(block[i], block[i - 1] + 1)
    block = np.maximum(block, folds - len(heavy) + steps)
    return block[np.clip(np.searchsorted(heavy, np.arange(len(unique)), side="right") - 1, 0, None)][position]


def plain_folds(weight: ArrayLike, *, folds: int = 5, random_seed: int | None = None) -> NDArray[np.int64]:
    """Deal rows into folds at random, one by one, whatever they have in common.

    `weight` is above zero in rows that count, such as those with an observation; these and the others are dealt evenly.
    Other seeds give other folds; None gives one deal, always the same.

    Examples
    --------
    >>> fold = plain_folds([1, 1, 1, 1, 0], folds=2, random_seed=1)
    >>> sorted(fold[:4].tolist()), fold.tolist() == plain_folds([1, 1, 1, 1, 0], folds=2, random_seed=1).tolist()
    ([0, 0, 1, 1], True)
    """
    counts = np.asarray(weight, dtype=np.float64) > 0
    check_number(folds, int(counts.sum()), "rows with observations")
    rng = np.random.default_rng(0 if random_seed is None else random_seed)
    fold = np.empty(len(counts), dtype=np.int64)
    for some in (counts, ~counts):
        fold[rng.permutation(np.flatnonzero(some))] = np.arange(int(some.sum())) % folds
    return fold


def given_labels(fold: ArrayLike, n_rows: int) -> NDArray[Any]:
    """Return the user's own fold labels as an array, refusing another length and missing ones."""
    given = np.asarray(fold)
    if given.shape != (n_rows,):
        raise ValueError(f"scheme has shape {given.shape}; wanted one fold label for each of the {n_rows} rows")
    missing = np.asarray(pd.isna(given)) | (given == "")
    if missing.any():
        raise ValueError(f"scheme has no fold in {int(missing.sum())} of {n_rows} rows; wanted a label in every row")
    return given.astype(str) if given.dtype == object else given


def custom_folds(fold: ArrayLike) -> NDArray[np.int64]:
    """Number the user's own fold labels from 0, in the order of the labels.

    Examples
    --------
    >>> custom_folds(["west", "east", "west"]).tolist()
    [1, 0, 1]
    """
    names, code = np.unique(np.asarray(fold), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"scheme has one fold only ({listed(names.tolist())}); wanted at least two")
    return code.astype(np.int64)


def row_folds(
    scheme: str | NDArray[Any],
    site: NDArray[np.str_],
    group: NDArray[np.str_] | None,
    time: NDArray[Any] | None,
    *,
    folds: int,
    weight: ArrayLike,
    gap: Any = None,
    random_seed: int | None = None,
) -> tuple[NDArray[np.int64], str]:
    """Return folds of rows by the name of a scheme, or by given labels, and a word for how they were made."""
    if gap is not None and not (isinstance(scheme, str) and scheme == "time"):
        raise ValueError(f"gap={gap!r} goes with scheme='time' only; leave it out")
    if not isinstance(scheme, str):
        return custom_folds(scheme), "given"
    if scheme == "row":
        return plain_folds(weight, folds=folds, random_seed=random_seed), "by row"
    if scheme == "site":
        return site_folds(site, folds=folds, weight=weight, group=group, random_seed=random_seed), "by site"
    if scheme != "time":
        raise ValueError(f"scheme is {scheme!r}; wanted 'site', 'time', 'row' or an array of fold labels")
    if time is None or pd.isna(time).any():
        raise ValueError("scheme='time' needs a time in every row; pass time=..., or drop the rows without")
    return time_folds(time, folds=folds, weight=weight), "by time"


def near(time: NDArray[Any] | None, test: NDArray[np.bool_], gap: Any) -> NDArray[np.bool_]:
    """Return the rows within a gap before or after a block of time, the block included.

    Examples
    --------
    >>> near(np.array([1, 2, 3, 4, 5]), np.array([False, False, True, False, False]), 1).tolist()
    [False, True, True, True, False]
    """
    if gap is None or time is None or not test.any():
        return np.zeros(len(test), dtype=bool)
    width = pd.Timedelta(gap).to_timedelta64() if time.dtype.kind == "M" else gap
    return (time >= time[test].min() - width) & (time <= time[test].max() + width)


def check_number(folds: int, available: int, what: str) -> None:
    """Refuse a number of folds that is none, or more than there are sites, times or rows."""
    if folds != int(folds) or folds < 2:
        raise ValueError(f"folds is {folds!r}; wanted a whole number of at least 2")
    if available < 2:
        raise ValueError(
            f"{folds} folds need two {what} at least, and there {'is one' if available else 'are none'}; choose another estimand "
            "or scheme, or give more rows"
        )
    if available < folds:
        raise ValueError(f"{folds} folds of {available} {what}; wanted at most as many folds: folds={available}")
