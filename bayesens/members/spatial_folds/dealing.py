"""Rows dealt into folds by the places of their sites, and rows within a buffer left out, for all who hold sites out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesens.ensemble.places import Places, RowPlaces, site_places
from bayesens.members.folds import check_number, row_folds, site_folds
from bayesens.members.spatial_folds.map_points import map_places
from bayesens.members.spatial_folds.matching import (
    ALIKE,
    block_folds,
    matched_folds,
    outside_buffer,
    spread_like_the_map,
)
from bayesens.messages import check_known, warn

__all__ = [
    "KINDS",
    "ByPlace",
    "SiteTable",
    "buffered",
    "check_buffer",
    "fold_kind",
    "fold_number",
    "held_out_distances",
    "nearer_than_the_map",
    "place_folds",
    "site_table",
]

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]
KINDS = {"knndm": "distances matched to the map", "blocks": "blocks of sites"}
FOLDS = 5
MUCH_NEARER = 0.5  # of the map's median distance; below it held-out rows are too easy a test of the map


@dataclass(frozen=True, eq=False)
class SiteTable:
    """Sites, sorted by name, with their places, and the site of each row.

    Attributes
    ----------
    names : numpy.ndarray (site)
    places : Places
    code : numpy.ndarray (obs), int
        Position of each row's site.
    counted : numpy.ndarray (site), bool
        Sites with observations.
    """

    names: NDArray[np.str_]
    places: Places
    code: Index
    counted: Mask

    @property
    def stations(self) -> Places:
        """Places of the sites with observations."""
        return self.places.at(self.counted)

    def of_sites(self, rows: Mask) -> Mask:
        """Whether a site has one of some rows (obs)."""
        return np.bincount(self.code[rows], minlength=len(self.names)) > 0


@dataclass(frozen=True, eq=False)
class ByPlace:
    """What folds by place need: coordinates of the rows, the map, and how far training rows are to stay away.

    `warns`: whether to say where folds are much nearer to training rows than the map is to its stations.
    """

    places: RowPlaces | None = None
    map_points: Any = None
    buffer: float | None = None
    warns: bool = False

    def row_folds(
        self,
        folds: int | str,
        scheme: str | NDArray[Any],
        site: NDArray[np.str_],
        group: NDArray[np.str_] | None,
        time: NDArray[Any] | None,
        *,
        weight: NDArray[np.float64],
        gap: Any,
        random_seed: int | None,
    ) -> tuple[Index, str]:
        """Return folds of rows (obs), as `bayesens.members.folds.row_folds` does, or by place where `folds` says so."""
        kind, number = fold_kind(folds)
        if kind and not (isinstance(scheme, str) and scheme == "site"):
            raise ValueError(f"folds={folds!r} goes with scheme='site' only; leave one of them out")
        if isinstance(scheme, str) and scheme in ("time", "row"):
            for name, asked in {"buffer": self.buffer, "map_points": self.map_points if self.warns else None}.items():
                if asked is not None:
                    raise ValueError(
                        f"{name} is about sites that are held out, and scheme={scheme!r} holds out none; leave one of them out"
                    )
        if not kind:
            return row_folds(
                scheme, site, group, time, folds=number or FOLDS, weight=weight, gap=gap, random_seed=random_seed
            )
        if gap is not None:
            raise ValueError(f"gap={gap!r} goes with scheme='time' only; leave it out")
        sites = site_table(self.places, site, weight, why=f"folds={folds!r}")
        deal: dict[str, Any] = {"weight": weight, "group": group, "random_seed": random_seed}
        fold = place_folds(kind, sites, folds=number or FOLDS, map_points=self.map_points, **deal)
        return fold, f"by site, {KINDS[kind]}"

    def outside(self, train: Mask, test: Mask, usable: Mask, site: NDArray[np.str_], name: str) -> Mask:
        """Return the training rows (obs) that are not within the buffer."""
        if self.buffer is None:
            return train
        sites = site_table(self.places, site, usable.astype(np.float64), why=f"buffer={self.buffer!r}")
        return buffered(sites, train, test, usable, buffer=check_buffer(self.buffer), name=name)

    def tell(
        self,
        parts: Iterable[tuple[Mask, Mask]],
        usable: Mask,
        site: NDArray[np.str_],
        *,
        matched: bool,
        random_seed: int | None,
    ) -> None:
        """Warn where rows held out are much nearer to training rows than the map; `parts` are training and test rows (obs)."""
        if not self.warns or self.map_points is None:
            return
        sites = site_table(self.places, site, usable.astype(np.float64), why="map_points")
        away = map_places(self.map_points, sites.places, random_seed=random_seed).to_nearest(sites.stations)
        nearer_than_the_map(held_out_distances(parts, sites, usable), away, sites.places.units, matched=matched)


def fold_kind(folds: int | str | None) -> tuple[str, int | None]:
    """Take what `folds` says apart: the kind of folds, ``""`` for the usual ones, and their number, if there is one.

    Examples
    --------
    >>> fold_kind("knndm"), fold_kind("blocks 10"), fold_kind(4), fold_kind(None)
    (('knndm', 5), ('blocks', 10), ('', 4), ('', None))
    >>> fold_kind("nndm")
    Traceback (most recent call last):
    ...
    bayesens.messages.UnknownName: no kind of folds 'nndm' in folds='nndm'; did you mean 'knndm'? It has 'knndm', 'blocks'
    """
    if not isinstance(folds, str):
        return "", folds
    kind, *number = folds.split()
    check_known([kind], KINDS, kind="kind of folds", where=f"folds={folds!r}")
    if not number:
        return kind, FOLDS
    if len(number) > 1 or not number[0].isdecimal():
        raise ValueError(f"folds is {folds!r}; wanted a kind and a number, such as '{kind} 10'")
    return kind, int(number[0])


def fold_number(folds: int | str) -> int:
    """How many folds `folds` asks for, whatever their kind.

    Examples
    --------
    >>> fold_number(4), fold_number("knndm")
    (4, 5)
    """
    number = fold_kind(folds)[1]
    return FOLDS if number is None else number


def site_table(rows: RowPlaces | None, site: NDArray[np.str_], weight: NDArray[np.float64], *, why: str) -> SiteTable:
    """Return the sites of a table with their places.

    Parameters
    ----------
    rows : RowPlaces or None
    site : numpy.ndarray (obs)
    weight : numpy.ndarray (obs)
        Above zero in rows that count.
    why : str
        What needs the places, for messages: ``"folds='knndm'"``.

    Raises
    ------
    ValueError
        No places, or what `site_places` refuses.
    """
    if rows is None:
        raise ValueError(f"{why} needs the place of every site, and the table has none; name its columns lon and lat "
                         "(lon=..., lat=...), keep x and y as covariates, or pass places={'x': ..., 'y': ...}")  # fmt: skip
    names, places = site_places(rows, site)
    code = np.searchsorted(names, site)
    return SiteTable(names, places, code, np.bincount(code, weight > 0, len(names)) > 0)


def place_folds(
    kind: str,
    sites: SiteTable,
    *,
    folds: int,
    map_points: Any = None,
    weight: NDArray[np.float64],
    group: NDArray[np.str_] | None = None,
    random_seed: int | None = None,
) -> Index:
    """Deal whole sites into folds by their places.

    Parameters
    ----------
    kind : {"knndm", "blocks"}
        See `matched_folds` and `block_folds`. Where stations are spread like the map (`spread_like_the_map`), ``"knndm"``
        deals them as `site_folds` does.
    sites : SiteTable
    folds : int
    map_points : grid, table or Places
        Of ``"knndm"``: see `map_places`.
    weight, group : numpy.ndarray (obs)
        Of `site_folds`.
    random_seed : int, optional

    Returns
    -------
    numpy.ndarray (obs), int
        0 to folds - 1. A site without observations goes where the nearest one with observations goes.

    Raises
    ------
    ValueError
        Fewer sites with observations, or fewer places of them, than folds; no map.
    """
    stations = sites.stations
    check_number(folds, len(stations), "sites with observations")
    different = len(np.unique(stations.values, axis=0))
    if different < folds:
        raise ValueError(f"{folds} folds of {len(stations)} sites in {different} different places; wanted at most as many folds "
                         "as places")  # fmt: skip
    if kind == "blocks":
        fold = block_folds(stations, folds=folds, random_seed=random_seed)
    else:
        if map_points is None:
            raise ValueError(
                "folds='knndm' matches the distances of the map to its stations, and no map is given; pass its cells, "
                "map_points=grid, or choose folds='blocks'"
            )
        away = map_places(map_points, sites.places, random_seed=random_seed).to_nearest(stations)
        if spread_like_the_map(stations, away) >= ALIKE:
            return site_folds(sites.names[sites.code], folds=folds, weight=weight, group=group, random_seed=random_seed)
        fold = matched_folds(stations, away, folds=folds, random_seed=random_seed).fold
    of_site = np.empty(len(sites.names), dtype=np.int64)
    of_site[sites.counted] = fold
    if not sites.counted.all():
        rest = sites.places.at(~sites.counted)
        of_site[~sites.counted] = fold[stations.nearest_of(rest)]
    return of_site[sites.code]


def check_buffer(buffer: Any) -> float:
    """Return the buffer as a number, refusing what is no length."""
    ok = isinstance(buffer, int | float | np.number) and not isinstance(buffer, bool) and 0 < buffer < np.inf
    if not ok:
        raise ValueError(f"buffer is {buffer!r}; wanted a length above zero, in km (lon and lat) or in the units of x and y; "
                         "leave it out for none")  # fmt: skip
    return float(buffer)


def buffered(sites: SiteTable, train: Mask, test: Mask, observed: Mask, *, buffer: float, name: str) -> Mask:
    """Return the training rows (obs) whose sites are not nearer than the buffer to any site held out.

    Raises
    ------
    ValueError
        No observed row is left; names the fold, and the buffer that leaves one.
    """
    held = sites.of_sites(test)
    left = train & outside_buffer(sites.places, held, buffer)[sites.code]
    if not (left & observed).any():
        others = sites.of_sites(train & observed) & ~held
        most = float(sites.places.at(others).to_nearest(sites.places.at(held)).max()) if others.any() else 0.0
        raise ValueError(
            f"{name}: buffer={buffer:g} leaves no observed row to learn from; {int(others.sum())} sites are not held out, and "
            f"the one furthest from those held out is {most:.4g} {sites.places.units} away: wanted a smaller buffer, or other "
            "folds"
        )
    return left


def held_out_distances(parts: Iterable[tuple[Mask, Mask]], sites: SiteTable, observed: Mask) -> NDArray[np.float64]:
    """Distance of each site with observations, where it is held out, to the nearest that is learnt from; the shortest of several.

    Parameters
    ----------
    parts : iterable of (numpy.ndarray (obs), numpy.ndarray (obs)), bool
        Training and test rows.
    sites : SiteTable
    observed : numpy.ndarray (obs), bool
    """
    out = np.full(len(sites.names), np.inf)
    for train, test in parts:
        held, learnt = sites.of_sites(test & observed), sites.of_sites(train & observed)
        if held.any():
            out[held] = np.minimum(out[held], sites.places.at(held).to_nearest(sites.places.at(learnt)))
    return out[sites.counted]


def nearer_than_the_map(
    held_out: NDArray[np.float64], map_distance: NDArray[np.float64], units: str, *, matched: bool
) -> None:
    """Warn where held-out sites are much nearer to training sites than the map is to its stations: their medians.

    Parameters
    ----------
    held_out : numpy.ndarray (site)
        Distance to the nearest training site of its fold.
    map_distance : numpy.ndarray (cell)
        Distance to the nearest station.
    units : str
    matched : bool
        Whether the folds are those of ``"knndm"`` already.

    Warns
    -----
    UserWarning
        Where the median of the first is less than half of that of the second.
    """
    near, far = float(np.median(held_out)), float(np.median(map_distance))
    ways = "fewer folds or a buffer" if matched else "folds='knndm', fewer folds or a buffer"
    if near < MUCH_NEARER * far:
        warn(f"held-out sites are much nearer to training sites than the map is to its stations: median {near:.3g} against "
             f"{far:.3g} {units}, less than {MUCH_NEARER:g} of it; scores are too optimistic for the map. Try {ways}, "
             "and say for which part of the map the scores speak")  # fmt: skip
