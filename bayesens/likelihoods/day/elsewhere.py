"""What the stations of a day say of a place: of a station that is left out, or of any other.

For a place with covariances r of the day and a of the static part with the stations, stations D set aside, and Q_p the inverse of
R_p without them, the observations of a day move the prediction by w = Q_p r,

    mean = a' (h - B m) + w' (z_t - m_p)
    variance = r0 - r' w + a0 - a' (B - B C B) a - 2 w' x + w' C w,     x = (I - C B) a

with B, h, C and m as in :mod:`bayesens.likelihoods.day.likelihood`, of all rows of the other stations. A station that is left out
is predicted as a new one is: nothing of its own series, of this day or another, is used.

Matrices have a row for every station, zero where a pattern lacks it. Setting stations aside takes from an inverse what goes
through them: Q - V V' with V = Q_D L^-T and L L' = Q_DD, so that each pattern is inverted once for all places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayesens.likelihoods.day.table import DayTable
from bayesens.threads import share_out

__all__ = ["DayLaw", "Targets"]

Array = NDArray[np.float64]
Inverses = Callable[[], Iterator[tuple[slice, Array]]]
AT_ONCE = 16  # places whose products with the inverses are kept
MEMORY = 1_000_000_000  # bytes of inverses


@dataclass(frozen=True, eq=False)
class Targets:
    """Places to be predicted.

    Attributes
    ----------
    day, static : array (place, station)
        Their covariances with the stations.
    day_variance, static_variance : array (place)
        Their own, with the observation's error.
    aside : bool array (place, station)
        Stations that are not asked.
    """

    day: Array
    static: Array
    day_variance: Array
    static_variance: Array
    aside: NDArray[np.bool_]

    def at(self, places: NDArray[np.int64], stations: NDArray[np.int64] | slice = slice(None)) -> Targets:
        """Some of the places, with some of the stations."""
        day, static, aside = (
            self.day[places][:, stations],
            self.static[places][:, stations],
            self.aside[places][:, stations],
        )
        return Targets(day, static, self.day_variance[places], self.static_variance[places], aside)


class _Elsewhere(NamedTuple):
    """Mean of the static part at places (place), the part of its variance that is known, and x (place, station)."""

    mean: Array
    known: Array
    rest: Array


class _Static(NamedTuple):
    """What all rows say of the static part at the stations: information B and h, covariance C and mean m."""

    b: Array
    h: Array
    c: Array
    m: Array

    @property
    def forms(self) -> tuple[Array, Array]:
        """Linear form of the mean elsewhere, and quadratic form of what its variance loses."""
        return self.h - self.b @ self.m, self.b - self.b @ self.c @ self.b

    def elsewhere(self, a: Array) -> _Elsewhere:
        """What it is at places with covariances (place, station)."""
        ba = a @ self.b
        bac = ba @ self.c
        return _Elsewhere(a @ (self.h - self.b @ self.m), np.einsum("ts,ts->t", a - bac, ba), a - bac)


@dataclass(frozen=True, eq=False)
class DayLaw:
    """The law of all stations and days with known covariances.

    Attributes
    ----------
    table : DayTable
    z : array (day, station)
        Less their origin.
    day, static : array (station, station)
        Covariance of a day given the static part, and of that.
    """

    table: DayTable
    z: Array
    day: Array
    static: Array

    @cached_property
    def _root(self) -> Array:
        return np.asarray(np.linalg.cholesky(self.static))

    @cached_property
    def _sums(self) -> tuple[Array, Array]:
        """Days of each pattern, and sums of their observations (pattern, station)."""
        patterns = self.table.patterns
        seen, sums = np.nan_to_num(self.z)[patterns.day], np.zeros((0, self.z.shape[1]))
        if len(patterns):
            sums = np.add.reduceat(seen, patterns.first[:-1], axis=0)
        return np.diff(patterns.first).astype(float), sums

    @cached_property
    def _parts(self) -> list[slice]:
        """Patterns whose inverses are in memory together."""
        patterns, size = len(self.table.patterns), max(1, MEMORY // (8 * len(self.static) ** 2))
        return [slice(start, min(start + size, patterns)) for start in range(0, patterns, size)]

    def _inverses(self, part: slice) -> Array:
        """Inverse covariances of some patterns, (pattern, station, station)."""
        patterns, s = self.table.patterns, len(self.static)
        out = np.zeros((part.stop - part.start, s, s))

        def some(inner: slice) -> None:
            for k in range(inner.start, inner.stop):
                station = patterns.of_pattern(part.start + k)[0]
                here = np.ix_(station, station)
                out[k][here] = np.linalg.inv(self.day[here])

        share_out(some, len(out))
        return out

    def _information(self, inverses: Inverses) -> tuple[Array, Array]:
        days, sums = self._sums
        found = [
            (np.tensordot(days[part], inverse, 1), np.tensordot(sums[part], inverse, 2)) for part, inverse in inverses()
        ]
        return sum((b for b, _ in found), np.zeros_like(self.static)), sum(
            (h for _, h in found), np.zeros(len(self.static))
        )

    def _static(self, b: Array, h: Array) -> _Static:
        root = self._root
        c = root @ np.linalg.solve(np.eye(len(b)) + root.T @ b @ root, root.T)
        c = 0.5 * (c + c.T)
        return _Static(b, h, c, c @ h)

    @cached_property
    def informed(self) -> _Static:
        """What all rows say of the static part at the stations."""
        return self._static(*self._information(self._kept()))

    def _kept(self) -> Inverses:
        """Inverses of all patterns: made once if memory holds them, or each time that they are asked for."""
        if len(self._parts) > 1:
            return lambda: ((part, self._inverses(part)) for part in self._parts)
        kept = [(part, self._inverses(part)) for part in self._parts]
        return lambda: iter(kept)

    def at(self, targets: Targets) -> tuple[Array, Array]:
        """Mean and variance of an observation at places on every day of the table, (day, place)."""
        mean, variance = np.empty((2, len(self.z), len(targets.day)))
        inverses = self._kept()
        whole = self._information(inverses)
        # Places that leave out the same stations, one after the other.
        order = np.argsort(np.unique(targets.aside, axis=0, return_inverse=True)[1].ravel(), kind="stable")

        def some(part: slice) -> None:
            for start in range(part.start, part.stop, AT_ONCE):
                index = order[start : min(start + AT_ONCE, part.stop)]
                mean[:, index], variance[:, index] = self._few(targets.at(index), inverses, whole)

        share_out(some, len(order))
        return mean, variance

    def _few(self, targets: Targets, inverses: Inverses, whole: tuple[Array, Array]) -> tuple[Array, Array]:
        """Mean and variance (day, place) of a few places."""
        patterns, z = self.table.patterns, np.nan_to_num(self.z)
        ways, which = np.unique(targets.aside, axis=0, return_inverse=True)
        places = [np.flatnonzero(which.ravel() == k) for k in range(len(ways))]
        static = [self._static(*some) for some in self._without(ways, inverses, whole)]
        forms = [one.elsewhere(targets.static[some]) for one, some in zip(static, places, strict=True)]
        middle, open_ = np.empty((2, len(targets.day)))
        for form, some in zip(forms, places, strict=True):
            middle[some] = form.mean
            open_[some] = targets.static_variance[some] - form.known + targets.day_variance[some]
        mean, variance = (np.tile(one, (len(z), 1)) for one in (middle, open_))
        for part, inverse in inverses():
            weight = targets.day @ inverse  # (pattern, place, station)
            level, left = np.empty((2, len(inverse), len(targets.day)))
            for aside, some, one, form in zip(ways, places, static, forms, strict=True):
                r = targets.day[some]
                if aside.any():
                    through = _through(inverse, aside)
                    weight[:, some] -= r @ through.transpose(0, 2, 1) @ through
                w = weight[:, some]
                level[:, some] = form.mean - w @ one.m
                left[:, some] = np.einsum("pts,pts->pt", w @ one.c - r - 2.0 * form.rest, w)
            for k in range(len(inverse)):
                days = patterns.of_pattern(part.start + k)[1]
                mean[days], variance[days] = level[k] + z[days] @ weight[k].T, open_ + left[k]
        return mean, variance

    def _without(
        self, ways: NDArray[np.bool_], inverses: Inverses, whole: tuple[Array, Array]
    ) -> list[tuple[Array, Array]]:
        """Information of all rows but those of the stations that are set aside, for each set of these."""
        days, sums = self._sums
        out = [(whole[0].copy(), whole[1].copy()) for _ in ways]
        for part, inverse in inverses():
            for aside, (b, h) in zip(ways, out, strict=True):
                if aside.any():
                    through = _through(inverse, aside)
                    rows = (np.sqrt(days[part])[:, None, None] * through).reshape(-1, len(b))
                    b -= rows.T @ rows
                    h -= np.einsum("pds,pd->s", through, np.einsum("pds,ps->pd", through, sums[part]))
        return out


def _through(inverse: Array, aside: NDArray[np.bool_]) -> Array:
    """What goes through the stations that are set aside, (pattern, one of these, station): V' of Q - V V'."""
    columns = inverse[:, :, aside]
    own = columns[:, aside]
    missing = np.einsum("pdd->pd", own) == 0.0
    np.einsum("pdd->pd", own)[missing] = 1.0  # nothing goes through a station that a pattern lacks
    return np.asarray(np.linalg.solve(np.linalg.cholesky(own), columns.transpose(0, 2, 1)))
