"""What the stations of a day say of a place: of a station that is left out, or of any other.

For a place with covariances r of the day and a of the static part with the stations, stations D set aside, and Q_p the inverse of
R_p without them, the observations of a day move the prediction by w = Q_p r,

    mean = a' (h - B m) + w' (z_t - m_p)
    variance = r0 - r' w + a0 - a' (B - B C B) a - 2 w' x + w' C w,     x = (I - C B) a

with B, h, C and m as in :mod:`bayesens.likelihoods.day.likelihood`, of all rows of the other stations. A station that is left out
is predicted as a new one is: nothing of its own series, of this day or another, is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bayesens.c_functions import INNER, kernel
from bayesens.likelihoods.day.likelihood import informed
from bayesens.likelihoods.day.table import DayTable
from bayesens.threads import share_out

__all__ = ["DayLaw", "Targets"]

Array = NDArray[np.float64]


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
    def _packed(self) -> tuple[Array, ...]:
        """Inverse covariances of the patterns, one after the other."""
        patterns = self.table.patterns
        inverses = [np.linalg.inv(self.day[np.ix_(some, some)]) for some in
                    (patterns.of_pattern(p)[0] for p in range(len(patterns)))]  # fmt: skip
        flat = np.concatenate([one.ravel() for one in inverses]) if inverses else np.zeros(0)
        sizes = np.diff(patterns.start)
        return flat, np.append(0, np.cumsum(sizes * sizes)).astype(np.int64)

    @cached_property
    def information(self) -> tuple[Array, Array]:
        """What all rows say of the static part: matrix and vector over the stations."""
        patterns, s = self.table.patterns, len(self.static)
        b, h = np.zeros((s, s)), np.zeros(s)
        for p in range(len(patterns)):
            here, days = patterns.of_pattern(p)
            q = np.linalg.inv(self.day[np.ix_(here, here)])
            b[np.ix_(here, here)] += len(days) * q
            h[here] += q @ self.z[np.ix_(days, here)].sum(axis=0)
        return b, h

    @cached_property
    def informed(self) -> tuple[Array, Array]:
        """Covariance and mean of the static part at the stations, given all rows."""
        b, h = self.information
        root = np.linalg.cholesky(self.static)
        c = root @ np.linalg.solve(np.eye(len(b)) + root.T @ b @ root, root.T)
        c = 0.5 * (c + c.T)
        return c, c @ h

    @cached_property
    def static_forms(self) -> tuple[Array, Array]:
        """Linear form of the static part's mean elsewhere, and quadratic form of what its variance loses."""
        (b, h), (c, m) = self.information, self.informed
        return h - b @ m, b - b @ c @ b

    def at(self, targets: Targets) -> tuple[Array, Array]:
        """Mean and variance of an observation at places on every day of the table, (day, place)."""
        days, places = self.z.shape[0], len(targets.day)
        mean, variance = np.empty((days, places)), np.empty((days, places))
        patterns = self.table.patterns
        z = np.where(np.isfinite(self.z), self.z, 0.0)
        ways, which = np.unique(targets.aside, axis=0, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        starts = np.append(0, np.cumsum(np.bincount(which.ravel(), minlength=len(ways))))
        given = (targets.day, targets.static, targets.day_variance, targets.static_variance)

        def some(part: slice) -> None:
            for k in range(part.start, part.stop):
                index = order[starts[k] : starts[k + 1]]
                own = tuple(np.ascontiguousarray(one[index]) for one in given)
                out = np.empty((2, days, len(index)))
                days_at(z, self.static, (patterns.start, patterns.station, patterns.first, patterns.day), self._packed,
                        np.flatnonzero(ways[k]), own, out)  # fmt: skip
                mean[:, index], variance[:, index] = out

        share_out(some, len(ways))
        return mean, variance


@INNER
def _static(a, a0, b, c, rest, x):  # type: ignore[no-untyped-def]
    """Mean and variance of the static part at a place; its covariance with the stations' into ``x``."""
    s = len(a)
    mean, variance = 0.0, a0
    for i in range(s):
        x[i] = a[i]
        mean += a[i] * rest[i]
    ba = np.zeros(s)
    for i in range(s):
        for j in range(s):
            ba[i] += b[i, j] * a[j]
    for i in range(s):
        variance -= a[i] * ba[i]
        value = 0.0
        for j in range(s):
            value += c[i, j] * ba[j]
        x[i] -= value
        variance += ba[i] * value
    return mean, variance


@INNER
def _set_aside(q, here, left_out):  # type: ignore[no-untyped-def]
    """Turn the inverse of a covariance into that of the stations that are not left out; zero in the rows of these."""
    n = len(here)
    for k in range(n):
        if not left_out[here[k]]:
            continue
        # One after the other: each step conditions on one row less.
        pivot = 1.0 / q[k, k]
        for i in range(n):
            factor = q[i, k] * pivot
            if i != k:
                for j in range(n):
                    q[i, j] -= factor * q[k, j]
        for j in range(n):
            q[k, j] = 0.0
            q[j, k] = 0.0


@kernel
def days_at(z, static, patterns, inverses, aside, targets, out):  # type: ignore[no-untyped-def]
    """Means and variances (2, day, place) of places that leave out the same stations."""
    start, station, first, day = patterns
    flat, at = inverses
    r, a, r0, a0 = targets
    s, places = len(static), len(r)
    left_out = np.zeros(s, np.bool_)
    for k in aside:
        left_out[k] = True
    b, h, weights = np.zeros((s, s)), np.zeros(s), np.empty((places, len(station)))
    alone = np.empty((places, len(start) - 1))
    for p in range(len(start) - 1):
        here = station[start[p] : start[p + 1]]
        n = len(here)
        q = flat[at[p] : at[p + 1]].copy().reshape((n, n))
        _set_aside(q, here, left_out)
        for j in range(n):
            for i in range(n):
                b[here[i], here[j]] += (first[p + 1] - first[p]) * q[i, j]
        for d in day[first[p] : first[p + 1]]:
            for i in range(n):
                value = 0.0
                for j in range(n):
                    value += q[i, j] * z[d, here[j]]
                h[here[i]] += value
        for t in range(places):
            open_ = r0[t]
            for i in range(n):
                value = 0.0
                for j in range(n):
                    value += q[i, j] * r[t, here[j]]
                weights[t, start[p] + i] = value
                open_ -= value * r[t, here[i]]
            alone[t, p] = open_
    root, c, m, work = np.empty((s, s)), np.empty((s, s)), np.empty(s), np.empty((s, s))
    informed(static, b, h, root, c, m, work)
    x, rest = np.empty(s), np.empty(s)
    for i in range(s):
        rest[i] = h[i]
        for k in range(s):
            rest[i] -= b[i, k] * m[k]
    for t in range(places):
        middle, variance = _static(a[t], a0[t], b, c, rest, x)
        for d in range(len(z)):
            out[0, d, t], out[1, d, t] = middle, variance + r0[t]
        for p in range(len(start) - 1):
            here, w = station[start[p] : start[p + 1]], weights[t, start[p] : start[p + 1]]
            level, whole = middle, variance + alone[t, p]
            for i in range(len(here)):
                level -= w[i] * m[here[i]]
                value = -2.0 * x[here[i]]
                for j in range(len(here)):
                    value += c[here[i], here[j]] * w[j]
                whole += w[i] * value
            for d in day[first[p] : first[p + 1]]:
                value = level
                for i in range(len(here)):
                    value += w[i] * z[d, here[i]]
                out[0, d, t], out[1, d, t] = value, whole
