"""Which rows to hold out, by what is new in them: times, sites, both, whole groups, or nothing but the row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens.ensemble.places import RowPlaces
from bayesens.members.folds import near, plain_folds, site_folds, time_folds
from bayesens.members.spatial_folds.dealing import buffered, check_buffer, fold_kind, place_folds, site_table
from bayesens.messages import check_known, listed

__all__ = ["ESTIMANDS", "ROW", "Split", "hang_together", "splits", "usual_estimand", "with_buffer"]

ROW = "row"

ESTIMANDS = {
    "time": "known sites at new times",
    "site": "new sites at times that were seen",
    "site-time": "new sites at new times",
    "group": "sites of a new group",
    ROW: "new rows like those that were seen",
}


@dataclass(frozen=True, eq=False)
class Split:
    """Rows to learn from and rows to be scored.

    Attributes
    ----------
    name : str
        For messages: ``"fold 2 of 5"``.
    train, test : numpy.ndarray (obs), bool
    """

    name: str
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]


def splits(
    estimand: str,
    *,
    site: NDArray[np.str_] | None,
    group: NDArray[np.str_] | None,
    time: NDArray[Any] | None,
    observed: NDArray[np.bool_],
    places: RowPlaces | None = None,
    folds: int | str | None = None,
    blocks: int = 2,
    gap: Any = None,
    buffer: float | None = None,
    map_points: Any = None,
    random_seed: int | None = None,
) -> list[Split]:
    """Split rows for an estimand.

    Parameters
    ----------
    estimand : {"time", "site", "site-time", "group", "row"}
        What is new in the rows held out: contiguous blocks of time; whole sites, spread over the groups; sites and blocks
        of time together, every pair once, each time without the rows that share either; whole groups; nothing but the row:
        rows are dealt out one by one, for tables without sites and times.
    site, group, time : numpy.ndarray (obs) or None
    observed : numpy.ndarray (obs), bool
        Folds have about equally many of these rows.
    places : RowPlaces, optional
        Of ``"knndm"``, ``"blocks"`` and `buffer`: the coordinates of the rows.
    folds : int or str, optional
        None: 5, or one for each group. ``"knndm"``, ``"blocks"``, ``"knndm 10"``: whole sites by their places, see `place_folds`.
    blocks : int
        Blocks of time of ``"site-time"``, for each of its folds of sites.
    gap : timedelta, str or float, optional
        Of ``"time"`` and ``"site-time"``: rows so close to the block that is held out are not learnt from.
    buffer : float, optional
        Of ``"site"``, ``"site-time"`` and ``"group"``: rows of sites nearer than this to one that is held out are not learnt
        from [km, or the units of x and y].
    map_points : grid, table or Places, optional
        Of ``"knndm"``: the map.
    random_seed : int, optional
        Of the deal of sites, or of rows; None: one deal, always the same.

    Returns
    -------
    list of Split

    Raises
    ------
    ValueError
        An unknown estimand, a column that it needs, more folds than sites, groups or times, nothing left to learn from, places
        that are missing or move, a map elsewhere.

    Examples
    --------
    >>> site = np.array(["a", "a", "b", "b"])
    >>> parts = splits("site", site=site, group=None, time=None, observed=np.full(4, True), folds=2)
    >>> [part.test.tolist() for part in parts]
    [[True, True, False, False], [False, False, True, True]]
    """
    check_known([estimand], list(ESTIMANDS), kind="estimand", where="what can be held out")
    for needed, values in {"site": site, "group": group, "time": time}.items():
        if needed in estimand.split("-") and (values is None or _missing(values).any()):
            lacking = "no row has one" if values is None else f"{int(_missing(values).sum())} rows have none"
            raise ValueError(
                f"the estimand {estimand!r} needs a {needed} in every row, and {lacking}; give the column "
                f"({needed}=...), leave out rows without, or choose another estimand"
            )
    if gap is not None and "time" not in estimand:
        raise ValueError(f"gap={gap!r} goes with the estimands 'time' and 'site-time'; leave it out for {estimand!r}")
    weight, (kind, number) = observed.astype(np.float64), fold_kind(folds)
    _check_by_place(estimand, kind, folds, buffer)
    if estimand == ROW:
        fold = plain_folds(weight, folds=number or 5, random_seed=random_seed)
        made = [(fold == k, fold != k) for k in range(fold.max() + 1)]
    elif estimand == "group":
        fold = _group_folds(group, number, weight, random_seed)  # type: ignore[arg-type]
        made = [(fold == k, fold != k) for k in range(fold.max() + 1)]
    elif estimand == "time":
        fold = time_folds(time, folds=number or 5, weight=weight)  # type: ignore[arg-type]
        made = [(fold == k, ~near(time, fold == k, _zero(gap, time))) for k in range(fold.max() + 1)]
    else:
        deal: dict[str, Any] = {"folds": number or 5, "weight": weight, "group": group, "random_seed": random_seed}
        if kind:
            sites = site_table(places, site, weight, why=f"folds={folds!r}")  # type: ignore[arg-type]
            fold = place_folds(kind, sites, map_points=map_points, **deal)
        else:
            fold = site_folds(site, **deal)  # type: ignore[arg-type]
        made = [(fold == k, fold != k) for k in range(fold.max() + 1)]
        if estimand == "site-time":
            block = time_folds(time, folds=blocks, weight=weight)  # type: ignore[arg-type]
            made = [(test & (block == b), train & ~near(time, block == b, _zero(gap, time)))
                    for test, train in made for b in range(blocks)]  # fmt: skip
            made = [(test, train) for test, train in made if test.any()]
    parts = [Split(f"fold {k} of {len(made)}", train, test) for k, (test, train) in enumerate(made, start=1)]
    for part in parts:
        if not (part.train & observed).any():
            raise ValueError(f"{part.name} of the estimand {estimand!r} leaves no observed row to learn from; wanted fewer "
                             "blocks, a shorter gap, or rows of more sites and times")  # fmt: skip
    return parts if buffer is None else with_buffer(parts, buffer, site=site, places=places, observed=observed)


def with_buffer(
    parts: list[Split],
    buffer: float,
    *,
    site: NDArray[np.str_] | None,
    places: RowPlaces | None,
    observed: NDArray[np.bool_],
) -> list[Split]:
    """Take out of the training rows those of sites nearer than a buffer to a site that is held out.

    Examples
    --------
    >>> places = RowPlaces(("x", "y"), (np.array([0.0, 1.0, 5.0]), np.zeros(3)))
    >>> parts = [Split("fold 1 of 1", np.array([False, True, True]), np.array([True, False, False]))]
    >>> site, observed = np.array(["a", "b", "c"]), np.full(3, True)
    >>> with_buffer(parts, 2.0, site=site, places=places, observed=observed)[0].train.tolist()
    [False, False, True]
    """
    if site is None or _missing(site).any():
        raise ValueError("a buffer lies around sites, and there are rows without one; give the column (site=...)")
    length, sites = (
        check_buffer(buffer),
        site_table(places, site, observed.astype(np.float64), why=f"buffer={buffer!r}"),
    )
    return [
        Split(p.name, buffered(sites, p.train, p.test, observed, buffer=length, name=p.name), p.test) for p in parts
    ]


def usual_estimand(*, site: bool, time: bool) -> str:
    """Return the estimand of a table that does not ask for one: new sites, else new times, else new rows.

    Examples
    --------
    >>> usual_estimand(site=True, time=True), usual_estimand(site=False, time=True), usual_estimand(site=False, time=False)
    ('site', 'time', 'row')
    """
    return "site" if site else "time" if time else ROW


def hang_together(*, site: NDArray[np.str_] | None, time: NDArray[Any] | None, rows: int) -> str:
    """Say what scores of rows that were held out one by one do not show.

    Parameters
    ----------
    site, time : numpy.ndarray (obs) or None
    rows : int
        How many are scored.

    Returns
    -------
    str
        One sentence, which names the labels that the table has.

    Examples
    --------
    >>> print(hang_together(site=None, time=None, rows=40))
    The estimand 'row' holds out 40 rows one by one: scores are too optimistic where rows hang together (one place, neighbouring
    days, copies); if a column says so, name it as site, group or time, and take the estimand 'site', 'group' or 'time'.
    """
    head = f"The estimand 'row' holds out {rows} rows one by one: scores are too optimistic"
    sites = 0 if site is None else len(set(site.tolist()) - {""})
    if 0 < sites < rows or time is not None:
        of, asked = (f"one of {sites} sites", "site") if 0 < sites < rows else ("neighbouring times", "time")
        return (f"{head} where rows of {of} share their errors; take the estimand {asked!r}, unless new rows will come from the "
                f"same {asked}s.")  # fmt: skip
    return (f"{head} where rows hang together (one place, neighbouring days, copies); if a column says so, name it as site, "
            "group or time, and take the estimand 'site', 'group' or 'time'.")  # fmt: skip


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(pd.isna(values)) | (values == "" if values.dtype.kind == "U" else False)


def _zero(gap: Any, time: NDArray[Any] | None) -> Any:
    """No gap is one of no length: the block itself is always left out."""
    if gap is not None:
        return gap
    return pd.Timedelta(0) if time is not None and time.dtype.kind == "M" else 0.0


def _check_by_place(estimand: str, kind: str, folds: int | str | None, buffer: float | None) -> None:
    """Refuse folds by place where no sites are dealt, and a buffer where no sites are held out."""
    if kind and "site" not in estimand.split("-"):
        raise ValueError(f"folds={folds!r} deals sites, for the estimands 'site' and 'site-time'; wanted a number of folds for "
                         f"{estimand!r}")  # fmt: skip
    if buffer is not None and estimand in ("time", ROW):
        raise ValueError(f"buffer={buffer!r} goes with the estimands 'site', 'site-time' and 'group'; leave it out for "
                         f"{estimand!r}, whose sites are known")  # fmt: skip


def _group_folds(
    group: NDArray[np.str_], folds: int | None, weight: NDArray[np.float64], random_seed: int | None
) -> NDArray[np.int64]:
    names = np.unique(group[weight > 0])
    if len(names) < 2:
        raise ValueError(f"the estimand 'group' needs two groups with observations, and there is {listed(names.tolist())}; "
                         "choose the estimand 'site' or 'time'")  # fmt: skip
    if folds is not None and folds > len(names):
        raise ValueError(f"{folds} folds of {len(names)} groups; wanted at most as many folds: folds={len(names)}")
    return site_folds(group, folds=folds or len(names), weight=weight, random_seed=random_seed)
