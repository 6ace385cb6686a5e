"""Restricted likelihood of an offset and a residual variance, reduced to one number a station.

The truth of every cell and time is swept out, and what is left of the stations is turned into independent contrasts; residuals
that last from one time to the next change the variances of these contrasts.

References
----------
Patterson & Thompson (1971), Biometrika 58, 545: REML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize_scalar

from bayesens.geo.station_cells import Cell

__all__ = ["Reduced", "Swept", "autocorrelation", "inflation_of", "sweep"]

Array = NDArray[np.float64]
HIGHEST = 0.999  # autocorrelation; at one, residuals would be offsets
LARGEST = 30.0  # logit of a share that is 0 or 1 to thirteen digits


@dataclass(frozen=True)
class Swept:
    """A cell with the truth of every time taken out: ``contrast.T @ (sums by station)`` are independent numbers.

    With M the projection that takes out the means of every time and Z the stations, ``Z' M Z = V diag(eigenvalue) V'`` and
    ``contrast = V / sqrt(eigenvalue)``, the numbers have variance ``residual + eigenvalue * offset``.
    """

    seen: NDArray[np.bool_]
    eigenvalue: Array
    contrast: Array
    z: Array
    square: float


def sweep(y: Array) -> Swept:
    """Take the truth of every time out of values (time, station), NaN where missing.

    Examples
    --------
    Differences of two stations are 4, 2, 6. Half the sum of their squares is 28, of which their mean has 12^2 / 6.

    >>> found = sweep(np.array([[5.0, 1.0], [3.0, 1.0], [8.0, 2.0]]))
    >>> found.eigenvalue.round(9).tolist(), np.square(found.z).round(9).tolist(), found.square
    ([3.0], [24.0], 28.0)
    """
    seen = np.isfinite(y)
    known = seen.astype(np.float64)
    count = known.sum(axis=1, keepdims=True)
    value, vector = np.linalg.eigh(np.diag(known.sum(axis=0)) - known.T @ (known / count))
    # As many zeros as sets of stations that no time joins: only differences within a set are known.
    kept = value > 1e-9 * value[-1]
    contrast = vector[:, kept] / np.sqrt(value[kept])
    rest = _centred(np.where(seen, y, 0.0), known, count)
    return Swept(seen, value[kept], contrast, contrast.T @ rest.sum(axis=0), float(np.square(rest).sum()))


def _centred(y: Array, known: Array, count: Array) -> Array:
    """Values (time, station, ...) less the mean of their time; zero where missing, before and after."""
    return (y - y.sum(axis=1, keepdims=True) / count) * known


@dataclass(frozen=True)
class Reduced:
    """All that the restricted likelihood needs: squared contrasts and the rest of the squares.

    A contrast has the variance ``inflation * residual + eigenvalue * offset``; the rest over the residual variance is
    chi-square. Inflation is one for independent residuals.
    """

    eigenvalue: Array
    inflation: Array
    z2: Array
    rest: float
    rest_dof: float

    @classmethod
    def of(cls, swept: Sequence[Swept]) -> Reduced:
        """Of independent residuals, all cells together."""
        z2 = np.concatenate([np.square(part.z) for part in swept])
        dof = sum(int(part.seen.sum()) - len(part.seen) for part in swept) - len(z2)
        rest = sum(part.square for part in swept) - z2.sum()
        return cls(np.concatenate([part.eigenvalue for part in swept]), np.ones(len(z2)), z2, float(rest), dof)

    def lasting(self, inflation: Array, repeated: float) -> Reduced:
        """The same for residuals that last: contrasts vary more, and what they take is missing from the rest."""
        expected = self.rest_dof + len(self.z2) - inflation.sum()
        if not expected > repeated:
            raise ValueError(
                "the residuals last as long as the record, so that they cannot be told from offsets; wanted a longer one "
                "(errors='independent' would call them offsets)"
            )
        dof = expected / repeated
        return Reduced(self.eigenvalue, inflation, self.z2, self.rest * dof / expected, dof)

    def check(self) -> None:
        """Refuse data that cannot tell the two variances apart, or that have no residual."""
        if self.rest_dof < 1:
            raise ValueError(
                f"{len(self.z2) + self.rest_dof} difference(s) between stations cannot tell offset from residual; wanted more "
                "times at which two stations or more report"
            )
        if not self.rest > 1e-12 * (self.rest + self.z2.sum()):
            raise ValueError(
                "the stations of a cell agree to rounding, up to constant offsets: no residual variance is left; is one series "
                "a copy of another? Leave the copies out"
            )

    def deviance(self, offset: ArrayLike, residual: ArrayLike) -> Array:
        """Minus twice the restricted log-likelihood, up to a constant; arguments broadcast."""
        offset, residual = np.asarray(offset)[..., None], np.asarray(residual, dtype=np.float64)
        spread = residual[..., None] * self.inflation + offset * self.eigenvalue
        return (
            (np.log(spread) + self.z2 / spread).sum(axis=-1) + self.rest_dof * np.log(residual) + self.rest / residual
        )

    def fit(self) -> tuple[float, float]:
        """Offset and residual variance of least deviance, both at least zero: one-dimensional, in their ratio."""
        dof = self.rest_dof + len(self.z2)

        def profiled(ratio: Array) -> tuple[Array, Array, Array]:
            """Deviance, its slope in the ratio, and the residual variance."""
            spread = self.inflation + ratio[:, None] * self.eigenvalue
            square = self.rest + (self.z2 / spread).sum(axis=1)
            slope = (self.eigenvalue / spread).sum(axis=1) - dof * (self.z2 * self.eigenvalue / spread**2).sum(
                axis=1
            ) / square
            return dof * np.log(square) + np.log(spread).sum(axis=1), slope, square / dof

        # Beyond the last ratio even the largest contrast is smaller than its variance, so the deviance only rises.
        last = 10.0 * (1.0 + self.z2.max() / self.eigenvalue.min() * dof / self.rest)
        grid = np.concatenate([[0.0], np.geomspace(1e-6 / self.eigenvalue.max(), last, 200)])
        slope = profiled(grid)[1]
        turns = np.flatnonzero((slope[:-1] < 0.0) & (slope[1:] >= 0.0))

        def at(ratio: float) -> float:
            return float(profiled(np.array([ratio]))[1][0])

        roots = [brentq(at, grid[i], grid[i + 1], xtol=1e-300, rtol=1e-13) for i in turns]
        ratio = ([0.0] if slope[0] >= 0.0 else []) + roots
        deviance, _, residual = profiled(np.array(ratio))
        best = int(deviance.argmin())
        return float(ratio[best] * residual[best]), float(residual[best])

    def profile(self, which: int, value: float) -> float:
        """Least deviance with the offset (0), the residual (1) or their sum (2) held."""
        if which == 0 and value == 0.0:
            dof = self.rest_dof + len(self.z2)
            return float(self.deviance(0.0, (self.rest + (self.z2 / self.inflation).sum()) / dof))

        def along(logit: ArrayLike) -> Array:
            share = 1.0 / (1.0 + np.exp(-np.asarray(logit, dtype=np.float64)))
            other = np.exp(-np.asarray(logit, dtype=np.float64)) * share
            if which == 0:
                return self.deviance(np.full_like(share, value), value * other / share)
            if which == 1:
                return self.deviance(value * share / other, np.full_like(share, value))
            return self.deviance(value * share, value * other)

        grid = np.linspace(-LARGEST, LARGEST, 121)
        at = np.clip(int(along(grid).argmin()), 1, len(grid) - 2)
        found = minimize_scalar(along, bounds=(grid[at - 1], grid[at + 1]), method="bounded", options={"xatol": 1e-6})
        return float(found.fun)

    def limits(self, which: int, value: float, estimate: tuple[float, float], critical: float) -> tuple[float, float]:
        """Where the deviance rises by the critical value on either side; zero or infinity where it does not."""
        bound = float(self.deviance(*estimate)) + critical

        def excess(log: float) -> float:
            return self.profile(which, float(np.exp(log))) - bound

        start = np.log(value) if value > 0.0 else np.log(sum(estimate)) - LARGEST
        reach = start + np.array([-LARGEST, LARGEST])
        no_low = value == 0.0 or (which == 0 and self.profile(0, 0.0) <= bound) or excess(reach[0]) <= 0.0
        low = 0.0 if no_low else float(np.exp(brentq(excess, reach[0], start, xtol=1e-6)))
        if value == 0.0:
            reach[1] = np.log(sum(estimate)) + LARGEST
        high = np.inf if excess(reach[1]) <= 0.0 else float(np.exp(brentq(excess, start, reach[1], xtol=1e-6)))
        return low, high


def _carried(cells: Sequence[Cell], phi: float) -> list[Array]:
    """Correlation (time - 1) of a residual with that of the row before, for every cell; phi is that of the usual step."""
    apart = [_steps(part) for part in cells]
    return [phi ** (steps / _usual(apart)) for steps in apart]


def _steps(part: Cell) -> Array:
    """Time between one row and the next, in days or the units of the numbers."""
    apart = np.diff(part.time)
    return apart / np.timedelta64(1, "D") if apart.dtype.kind == "m" else apart.astype(np.float64)


def _usual(apart: Sequence[Array]) -> float:
    step, count = np.unique(np.concatenate(apart), return_counts=True)
    return float(step[count.argmax()]) if len(step) else 1.0


def autocorrelation(cells: Sequence[Cell], swept: Sequence[Swept]) -> float:
    """Correlation of residuals one usual time step apart.

    Of two times in turn, only the stations that report at both count, less their means: other sets would share less. Residuals
    from fitted offsets have means of zero, which takes the variance v of a mean out of their variance and covariance:
    ``seen = (phi - v) / (1 - v)``. As v depends on phi in turn, this is solved by repetition.
    """
    apart = [_steps(part) for part in cells]
    step, product, square = _usual(apart), 0.0, 0.0
    for part, one, steps in zip(cells, swept, apart, strict=True):
        e = np.where(one.seen, part.y - one.contrast @ one.z, 0.0)  # offsets by least squares
        both = (one.seen[1:] & one.seen[:-1] & np.isclose(steps, step)[:, None]).astype(np.float64)
        count = np.maximum(both.sum(axis=1, keepdims=True), 1.0)
        then, now = _centred(e[:-1] * both, both, count), _centred(e[1:] * both, both, count)
        product += float((then * now).sum())
        square += float((then**2 + now**2).sum()) / 2.0
    if not square > 0.0:
        return 0.0
    seen, phi = product / square, 0.0
    eigenvalue = np.concatenate([one.eigenvalue for one in swept])
    for _ in range(50):
        before, v = phi, float((inflation_of(cells, swept, phi)[0] / eigenvalue).mean())
        phi = float(np.clip(seen + v * (1.0 - seen), 0.0, HIGHEST))
        if abs(phi - before) < 1e-4 * (1.0 - phi):
            break
    return phi


def inflation_of(cells: Sequence[Cell], swept: Sequence[Swept], phi: float) -> tuple[Array, float]:
    """Variance of every contrast for AR(1) residuals of variance one, and how many rows are worth one in their squares."""
    found, squares, rows = [], 0.0, 0
    for one, carried in zip(swept, _carried(cells, phi), strict=True):
        known = one.seen.astype(np.float64)
        # The sums over pairs of times: what the past carries to now, times what stands here now.
        past, past2 = np.zeros_like(one.contrast), np.zeros(known.shape[1])
        variance = np.zeros(one.contrast.shape[1])
        for t, here in enumerate(known):
            now = here[:, None] * (one.contrast - here @ one.contrast / here.sum())
            if t:
                past, past2 = carried[t - 1] * past, carried[t - 1] ** 2 * past2
            variance += (now * (now + 2.0 * past)).sum(axis=0)
            squares += float(here @ (here + 2.0 * past2))
            past, past2 = past + now, past2 + here
        found.append(variance)
        rows += int(one.seen.sum())
    return np.concatenate(found), squares / rows
