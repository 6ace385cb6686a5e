"""What stations say of their cell: variance components, temporal stability, upscaled truth, triple collocation.

Several stations in one cell see one truth, each with an offset of its own that stays and an error that comes and goes. How large
these are says how far one station, or the mean of several, may be taken for the cell. A learning curve that is flat says
nothing of it: the stations that validate carry the same error.

References
----------
Patterson & Thompson (1971), Biometrika 58, 545: REML. Vachaud et al. (1985), Soil Sci. Soc. Am. J. 49, 822: temporal stability.
McColl et al. (2014), Geophys. Res. Lett. 41, 6229: extended triple collocation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import chi2, norm

from bayesens.checks import check_columns, check_known, warn
from bayesens.columns import labels, listed, numbers, times
from bayesens.ensemble import Ensemble
from bayesens.resample import interval as central_interval
from bayesens.resample import pigeonhole, time_blocks

__all__ = [
    "Components", "cell_means", "check_origins", "rmse_to_truth", "temporal_stability", "triple_collocation",
    "variance_components",
]  # fmt: skip

Array = NDArray[np.float64]
NAMES = ("offset", "residual", "total")
HIGHEST = 0.999  # autocorrelation; at one, residuals would be offsets
CORRELATED = 0.2  # autocorrelation beyond which taking residuals for independent is worth a warning
LARGEST = 30.0  # logit of a share that is 0 or 1 to thirteen digits


# Variance components -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Components:
    """Variance components of stations within a cell, from `variance_components`.

    Attributes
    ----------
    table : pandas.DataFrame (offset, residual, total)
        ``variance``, its interval ``low`` and ``high`` (squared units of the values), and ``sd`` (their units). The offset is
        the part of a station's deviation that stays, the residual that which comes and goes; total is their sum.
    at_zero : tuple of str
        Components whose estimate is zero, the edge of what is possible.
    autocorrelation : float
        Of a station's residual from one time step to the next, less its bias.
    n_cells, n_stations, n_times, n_obs : int
        Cells, stations, cell-times and rows with two stations or more: those that say anything.
    level : float
        Of the intervals.
    """

    table: pd.DataFrame
    at_zero: tuple[str, ...]
    autocorrelation: float
    n_cells: int
    n_stations: int
    n_times: int
    n_obs: int
    level: float

    @property
    def offset(self) -> float:
        """Variance of a station's stable offset."""
        return self._of("offset", "variance")

    @property
    def residual(self) -> float:
        """Variance of a station's time-varying residual."""
        return self._of("residual", "variance")

    @property
    def total(self) -> float:
        """Variance of one station's value on one day about the cell."""
        return self._of("total", "variance")

    def _of(self, name: str, column: str) -> float:
        return float(self.table[column].to_numpy()[NAMES.index(name)])

    def upscaled(self, stations: int | Iterable[int]) -> pd.DataFrame:
        """Error of the mean of several stations, taken for the cell.

        Parameters
        ----------
        stations : int or iterable of int
            How many; placed at random within the cell.

        Returns
        -------
        pandas.DataFrame (stations)
            ``variance`` at one time, ``sd`` with its interval ``sd_low``, ``sd_high``, and ``lasting_sd``, the part that no
            averaging over time removes.

        Raises
        ------
        ValueError
            A number below one.

        Examples
        --------
        >>> table = pd.DataFrame({"variance": [3.0, 1.0, 4.0], "low": [2.0, 1.0, 4.0], "high": [9.0, 1.0, 9.0]}, index=NAMES)
        >>> Components(table, (), 0.0, 1, 5, 9, 45, 0.9).upscaled([1, 4])
                  variance   sd  sd_low  sd_high  lasting_sd
        stations
        1              4.0  2.0     2.0      3.0        1.73
        4              1.0  1.0     1.0      1.5        0.87
        """
        n = np.atleast_1d(np.asarray(stations if np.isscalar(stations) else list(stations), dtype=np.float64))
        if n.size == 0 or not np.all((n >= 1) & (n % 1 == 0)):
            raise ValueError(f"the number of stations is {stations!r}; wanted whole numbers from 1, such as [1, 2, 5]")
        low, high = (self._of("total", name) for name in ("low", "high"))
        columns = {
            "variance": self.total / n,
            "sd": np.sqrt(self.total / n),
            "sd_low": np.sqrt(low / n),
            "sd_high": np.sqrt(high / n),
            "lasting_sd": np.sqrt(self.offset / n),
        }
        return pd.DataFrame(columns, index=pd.Index(n.astype(np.int64), name="stations"))

    def stations_needed(self, error: float | Iterable[float], *, level: float = 0.95) -> pd.DataFrame:
        """Stations needed for their mean to be within an error of the cell's value at one time.

        ``n = z^2 total / error^2``, rounded up, for errors close to normal.

        Parameters
        ----------
        error : float or iterable of float
            Absolute error, in the units of the values.
        level : float
            Probability of staying within it, inside (0, 1).

        Returns
        -------
        pandas.DataFrame (error)
            ``stations`` and its range ``low``, ``high`` from the interval of the total variance (infinite where the
            variance has no upper limit).

        Raises
        ------
        ValueError
            An error that is not positive, or a level outside (0, 1).

        Examples
        --------
        >>> table = pd.DataFrame({"variance": [3.0, 1.0, 4.0], "low": [2.0, 1.0, 4.0], "high": [9.0, 1.0, 9.0]}, index=NAMES)
        >>> Components(table, (), 0.0, 1, 5, 9, 45, 0.9).stations_needed([1.0, 2.0])  # 1.96^2 * 4 = 15.4
               stations  low  high
        error
        1.0        16.0 16.0  35.0
        2.0         4.0  4.0   9.0
        """
        _check_level(level)
        wanted = np.atleast_1d(np.asarray(error if np.isscalar(error) else list(error), dtype=np.float64))
        if wanted.size == 0 or not np.all(wanted > 0):
            raise ValueError(f"the error is {error!r}; wanted positive numbers in the units of the values")
        z2 = norm.ppf(0.5 + 0.5 * level) ** 2
        rows = {
            name: np.maximum(np.ceil(z2 * self._of("total", column) / wanted**2), 1.0)
            for name, column in (("stations", "variance"), ("low", "low"), ("high", "high"))
        }
        return pd.DataFrame(rows, index=pd.Index(wanted, name="error"))


def variance_components(
    table: pd.DataFrame,
    *,
    value: str,
    station: str,
    time: str,
    cell: str | None = None,
    errors: str = "ar1",
    level: float = 0.9,
) -> Components:
    """Variance of stations about their cell: an offset that stays and a residual that varies, by REML.

    The model is ``y[s, t] = truth[c, t] + offset[s] + residual[s, t]`` for the stations s of cell c. The truth of every cell
    and time is free, so nothing is assumed of it; stations and days may be missing, and cells may have different numbers of
    stations. Cells are pooled. The likelihood reduces to one number a station, so the cost grows with the rows only once.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a station and time; rows without a value are passed over.
    value, station, time : str
        Columns.
    cell : str, optional
        Column of the cell that a station lies in. None: one cell.
    errors : {"ar1", "independent"}
        What residuals of one station are over time. ``"independent"`` is plain REML, as mixed-model programs have it: where
        residuals last for days, part of them is taken for offset, and the intervals are far too short. ``"ar1"`` puts both
        right, to first order, for residuals whose correlation falls off as a power of the time between them.
    level : float
        Of the intervals, which are profile likelihood; inside (0, 1).

    Returns
    -------
    Components

    Raises
    ------
    ValueError
        No cell with two stations at a time, too few rows, a station in two cells or twice at one time, stations that agree to
        rounding.

    Notes
    -----
    Both variances are taken to be the same everywhere and always. Under ``"ar1"`` the autocorrelation comes from the residuals,
    less the bias that their station means bring; the contrasts between stations then have their exact variances, their
    small correlations are left out, and the remaining squares are a scaled chi-square of as many degrees of freedom as
    they are worth. The autocorrelation is held at its estimate.

    Examples
    --------
    The differences of two stations are 4, 2, 6: their variance is 4, so the residual has 4 / 2; the offset has
    (mean^2 - 4 / 3) / 2.

    >>> table = pd.DataFrame({"station": list("aaabbb"), "day": [1, 2, 3] * 2, "sm": [5.0, 3.0, 8.0, 1.0, 1.0, 2.0]})
    >>> found = variance_components(table, value="sm", station="station", time="day", errors="independent")
    >>> round(found.residual, 4), round(found.offset, 4)
    (2.0, 7.3333)
    """
    _check_level(level)
    if errors not in ("ar1", "independent"):
        raise ValueError(f"errors={errors!r}; wanted 'ar1' or 'independent'")
    cells = [part for part in (each.paired() for each in _cells(table, value, station, time, cell)) if part is not None]
    if not cells:
        raise ValueError(
            f"no cell has two stations at the same time ({len(table)} rows); wanted replicate stations: name the column of cells "
            "that hold several, cell=..."
        )
    swept = [_sweep(part.y) for part in cells]
    reduced = _Reduced.of(swept)
    reduced.check()
    _warn_copies(cells)
    phi = _autocorrelation(cells, swept)
    if errors == "ar1":
        reduced = reduced.lasting(*_inflation(cells, swept, phi))
    elif phi > CORRELATED:
        warn(
            f"residuals one time step apart have a correlation of {phi:.2f}; taken for independent, part of them counts as "
            "offset and the intervals are too short: errors='ar1' takes it into account"
        )
    estimate = reduced.fit()
    variance = [*estimate, sum(estimate)]
    limits = [reduced.limits(which, variance[which], estimate, chi2.ppf(level, 1)) for which in range(3)]
    low, high = np.transpose(limits)
    at_zero = tuple(name for name, one in zip(NAMES, estimate, strict=False) if one == 0.0)
    if at_zero:
        warn(
            "the variance of the offset is estimated as zero: stations differ no more than their residuals explain; its upper "
            f"limit is {high[0]:.3g}"
        )
    found = pd.DataFrame({"variance": variance, "low": low, "high": high, "sd": np.sqrt(variance)}, index=list(NAMES))
    n_stations, n_times = (sum(part.y.shape[axis] for part in cells) for axis in (1, 0))
    n_obs = int(sum(np.isfinite(part.y).sum() for part in cells))
    return Components(found, at_zero, phi, len(cells), n_stations, n_times, n_obs, level)


@dataclass(frozen=True)
class _Cell:
    """One cell: values (time, station), NaN where missing."""

    name: str
    station: NDArray[Any]
    time: NDArray[Any]
    y: Array

    def paired(self) -> _Cell | None:
        """The times at which two stations report, and the stations that report then; None if there are none."""
        rows = np.isfinite(self.y).sum(axis=1) >= 2
        y = self.y[rows]
        kept = np.isfinite(y).any(axis=0)
        return _Cell(self.name, self.station[kept], self.time[rows], y[:, kept]) if rows.any() else None


def _cells(table: pd.DataFrame, value: str, station: str, time: str, cell: str | None) -> list[_Cell]:
    """The door: a dense array for every cell, times in order."""
    columns = {"value": value, "station": station, "time": time} | ({"cell": cell} if cell else {})
    check_columns(table, [], columns)
    y = numbers(table[value])
    rows = pd.DataFrame({"station": labels(table[station]), "time": times(table[time]), "y": y})
    rows["cell"] = labels(table[cell]) if cell else "all"
    rows = rows[np.isfinite(y)]
    unnamed = int(((rows["station"] == "") | (rows["cell"] == "") | rows["time"].isna()).sum())
    if unnamed:
        raise ValueError(f"{unnamed} row(s) with a value have no station, time or cell; fill these in or drop the rows")
    pairs = rows[["station", "cell"]].drop_duplicates()
    twice = pairs["station"][pairs["station"].duplicated()]
    if len(twice):
        raise ValueError(f"station(s) {listed(twice.unique())} lie in two cells; wanted one: correct {cell!r}")
    repeated = int(rows.duplicated(["station", "time"]).sum())
    if repeated:
        raise ValueError(f"{repeated} of {len(rows)} rows repeat a station and time; average or drop them first")
    return [_dense(str(name), part) for name, part in rows.groupby("cell", sort=True)]


def _dense(name: str, rows: pd.DataFrame) -> _Cell:
    station, s = np.unique(rows["station"].to_numpy(dtype=np.str_), return_inverse=True)
    time, t = np.unique(rows["time"].to_numpy(), return_inverse=True)
    y = np.full((len(time), len(station)), np.nan)
    y[t, s] = rows["y"]
    return _Cell(name, station, time, y)


@dataclass(frozen=True)
class _Swept:
    """A cell with the truth of every time taken out: ``contrast.T @ (sums by station)`` are independent numbers.

    With M the projection that takes out the means of every time and Z the stations, ``Z' M Z = V diag(eigenvalue) V'`` and
    ``contrast = V / sqrt(eigenvalue)``, the numbers have variance ``residual + eigenvalue * offset``.
    """

    seen: NDArray[np.bool_]
    eigenvalue: Array
    contrast: Array
    z: Array
    square: float


def _sweep(y: Array) -> _Swept:
    seen = np.isfinite(y)
    known = seen.astype(np.float64)
    count = known.sum(axis=1, keepdims=True)
    value, vector = np.linalg.eigh(np.diag(known.sum(axis=0)) - known.T @ (known / count))
    # As many zeros as sets of stations that no time joins: only differences within a set are known.
    kept = value > 1e-9 * value[-1]
    contrast = vector[:, kept] / np.sqrt(value[kept])
    rest = _centred(np.where(seen, y, 0.0), known, count)
    return _Swept(seen, value[kept], contrast, contrast.T @ rest.sum(axis=0), float(np.square(rest).sum()))


def _centred(y: Array, known: Array, count: Array) -> Array:
    """Values (time, station, ...) less the mean of their time; zero where missing, before and after."""
    return (y - y.sum(axis=1, keepdims=True) / count) * known


@dataclass(frozen=True)
class _Reduced:
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
    def of(cls, swept: Sequence[_Swept]) -> _Reduced:
        z2 = np.concatenate([np.square(part.z) for part in swept])
        dof = sum(int(part.seen.sum()) - len(part.seen) for part in swept) - len(z2)
        rest = sum(part.square for part in swept) - z2.sum()
        return cls(np.concatenate([part.eigenvalue for part in swept]), np.ones(len(z2)), z2, float(rest), dof)

    def lasting(self, inflation: Array, repeated: float) -> _Reduced:
        """The same for residuals that last: contrasts vary more, and what they take is missing from the rest."""
        expected = self.rest_dof + len(self.z2) - inflation.sum()
        if not expected > repeated:
            raise ValueError(
                "the residuals last as long as the record, so that they cannot be told from offsets; wanted a longer one "
                "(errors='independent' would call them offsets)"
            )
        dof = expected / repeated
        return _Reduced(self.eigenvalue, inflation, self.z2, self.rest * dof / expected, dof)

    def check(self) -> None:
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
        """Least deviance with one of `NAMES` held."""
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


def _carried(cells: Sequence[_Cell], phi: float) -> list[Array]:
    """Correlation (time - 1) of a residual with that of the row before, for every cell; phi is that of the usual step."""
    apart = [_steps(part) for part in cells]
    return [phi ** (steps / _usual(apart)) for steps in apart]


def _steps(part: _Cell) -> Array:
    """Time between one row and the next, in days or the units of the numbers."""
    apart = np.diff(part.time)
    return apart / np.timedelta64(1, "D") if apart.dtype.kind == "m" else apart.astype(np.float64)


def _usual(apart: Sequence[Array]) -> float:
    step, count = np.unique(np.concatenate(apart), return_counts=True)
    return float(step[count.argmax()]) if len(step) else 1.0


def _autocorrelation(cells: Sequence[_Cell], swept: Sequence[_Swept]) -> float:
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
        before, v = phi, float((_inflation(cells, swept, phi)[0] / eigenvalue).mean())
        phi = float(np.clip(seen + v * (1.0 - seen), 0.0, HIGHEST))
        if abs(phi - before) < 1e-4 * (1.0 - phi):
            break
    return phi


def _inflation(cells: Sequence[_Cell], swept: Sequence[_Swept], phi: float) -> tuple[Array, float]:
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


def _warn_copies(cells: Sequence[_Cell]) -> None:
    """Warn of series that are equal wherever they are: one is a copy of the other."""
    for part in cells:
        seen: dict[bytes, str] = {}
        for name, series in zip(part.station, part.y.T, strict=True):
            first = seen.setdefault(np.ascontiguousarray(series).tobytes(), str(name))
            if first != str(name):
                warn(
                    f"stations {first!r} and {str(name)!r} have the same values throughout; leave one out if it is a copy"
                )


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level lies inside (0, 1), such as 0.9; got {level!r}")


# Temporal stability and upscaled truth -------------------------------------------------------------------------------


def temporal_stability(
    table: pd.DataFrame, *, value: str, station: str, time: str, cell: str | None = None
) -> pd.DataFrame:
    """How each station stands to the mean of its cell, and how steadily.

    The relative difference of a station at one time is ``(y - mean) / mean``, over the stations of its cell at that time.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a station and time; rows without a value, and times with one station only, are passed over.
    value, station, time : str
        Columns; values are positive on average, such as soil moisture.
    cell : str, optional
        Column of the cell. None: one cell.

    Returns
    -------
    pandas.DataFrame (cell, station)
        ``mean`` and ``sd`` of the relative difference over time (sd with n - 1), ``index = sqrt(mean^2 + sd^2)``, ``rank``
        within the cell (1: the smallest index, the station that represents the cell best), ``order`` of the means (1: the
        driest) and ``times``.

    Raises
    ------
    ValueError
        As in `variance_components`; a cell whose mean is not positive at some time.

    References
    ----------
    Vachaud et al. (1985), Soil Sci. Soc. Am. J. 49, 822. Jacobs et al. (2004), Remote Sens. Environ. 92, 436 (the index).

    Examples
    --------
    >>> table = pd.DataFrame({"station": list("aabb"), "day": [1, 2, 1, 2], "sm": [1.0, 3.0, 3.0, 5.0]})
    >>> temporal_stability(table, value="sm", station="station", time="day")[["mean", "index", "times"]]
                   mean index times
    cell station
    all  a       -0.375 0.414     2
         b        0.375 0.414     2
    """
    parts = [part for part in (each.paired() for each in _cells(table, value, station, time, cell)) if part is not None]
    if not parts:
        raise ValueError(f"no cell has two stations at the same time ({len(table)} rows); wanted replicate stations")
    frames = []
    for part in parts:
        mean = np.nanmean(part.y, axis=1, keepdims=True)
        low = int((mean <= 0.0).sum())
        if low:
            raise ValueError(
                f"the mean of cell {part.name!r} is not positive at {low} of {len(mean)} times; a relative difference needs "
                "positive values: drop those times, or use another unit"
            )
        apart = pd.DataFrame(part.y / mean - 1.0, columns=pd.Index(part.station, name="station"))
        found = pd.DataFrame({"mean": apart.mean(), "sd": apart.std()})
        found["index"] = np.sqrt(found["mean"] ** 2 + found["sd"] ** 2)
        found["rank"] = found["index"].rank(method="min").astype("Int64")
        found["order"] = found["mean"].rank(method="min").astype(np.int64)
        frames.append(found.assign(times=apart.count()))
    return pd.concat(frames, keys=[part.name for part in parts], names=["cell"])


def cell_means(
    table: pd.DataFrame, components: Components, *, value: str, station: str, time: str, cell: str | None = None
) -> pd.DataFrame:
    """Mean of the stations of every cell and time, with the variance of its error.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a station and time; rows without a value are passed over.
    components : Components
        From `variance_components`.
    value, station, time, cell : str
        Columns, as there.

    Returns
    -------
    pandas.DataFrame
        ``cell``, ``time``, ``mean``, ``stations`` (how many) and ``variance = total / stations``.

    Raises
    ------
    ValueError
        As in `variance_components`.

    Examples
    --------
    >>> found = pd.DataFrame({"variance": [3.0, 1.0, 4.0], "low": [2.0, 1.0, 4.0], "high": [9.0, 1.0, 9.0]}, index=NAMES)
    >>> components = Components(found, (), 0.0, 1, 5, 9, 45, 0.9)
    >>> table = pd.DataFrame({"station": ["a", "a", "b"], "day": [1, 2, 1], "sm": [1.0, 3.0, 3.0]})
    >>> cell_means(table, components, value="sm", station="station", time="day")
      cell time mean stations variance
    0  all    1  2.0        2      2.0
    1  all    2  3.0        1      4.0
    """
    frames = []
    for part in _cells(table, value, station, time, cell):
        n = np.isfinite(part.y).sum(axis=1)
        mean = np.nansum(part.y, axis=1) / n
        columns = {"cell": part.name, "time": part.time, "mean": mean, "stations": n, "variance": components.total / n}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def rmse_to_truth(prediction: ArrayLike, *, reference: ArrayLike, variance: ArrayLike) -> pd.Series:
    """RMSE of predictions to the truth, from that to an uncertain reference: ``rmse_truth^2 = rmse^2 - mean(variance)``.

    The errors of the two must be independent: predictions of a model that was trained on the same stations are too close to
    them, and the result too small. With few cells the offsets in the reference are few draws, and the subtraction is right
    on average only.

    Parameters
    ----------
    prediction, reference : array_like (obs)
        Rows where one is missing are passed over.
    variance : array_like (obs) or float
        Of the reference's error, such as ``variance`` of `cell_means`.

    Returns
    -------
    pandas.Series
        ``rmse`` (to the reference), ``rmse_truth``, ``reference_sd`` (root of the mean variance) and ``n``.

    Raises
    ------
    ValueError
        No rows; negative variances; a reference whose error is larger than the whole difference.

    Examples
    --------
    >>> rmse_to_truth([5.0, -5.0], reference=[0.0, 0.0], variance=9.0).tolist()  # 25 - 9 = 16
    [5.0, 4.0, 3.0, 2.0]
    """
    try:
        arrays = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (prediction, reference, variance)))
    except ValueError as error:
        shapes = [np.shape(x) for x in (prediction, reference, variance)]
        raise ValueError(f"prediction, reference and variance have shapes {shapes}; wanted one length") from error
    f, y, v = arrays
    known = np.isfinite(f) & np.isfinite(y)
    if not known.any():
        raise ValueError(f"no row has both a prediction and a reference ({f.size} rows); do their times match?")
    if not np.all(v[known] >= 0.0):
        raise ValueError("the variance of the reference is negative or missing in some rows; wanted zero or more")
    square, noise = float(np.mean((f - y)[known] ** 2)), float(v[known].mean())
    if noise > square:
        raise ValueError(
            f"the mean square difference {square:.4g} is smaller than the variance of the reference's error {noise:.4g}: "
            "either the predictions were trained on these stations, or the variance does not hold for them; there is no RMSE to "
            "the truth then"
        )
    names = ["rmse", "rmse_truth", "reference_sd", "n"]
    return pd.Series([np.sqrt(square), np.sqrt(square - noise), np.sqrt(noise), float(known.sum())], index=names)


# Triple collocation --------------------------------------------------------------------------------------------------


def triple_collocation(
    table: pd.DataFrame | Ensemble,
    *,
    sources: Sequence[str],
    origin: Mapping[str, str | Iterable[str]],
    station: str,
    time: str,
    by: str = "pooled",
    min_rows: int = 30,
    block: float = 30.0,
    replicates: int = 500,
    level: float = 0.9,
    random_seed: int | None = None,
) -> pd.DataFrame:
    """Error of three independent sources without knowing the truth: extended triple collocation.

    Each source is ``a + b * truth + error``, with errors independent of the truth and of each other. The mean of every station
    is taken out first, so that lasting offsets do not count as errors.

    Parameters
    ----------
    table : pandas.DataFrame or Ensemble
        One row a station and time; rows where a source is missing are passed over. Of an ensemble, columns have the names
        of `Ensemble.to_frame`.
    sources : sequence of str
        Three columns. The first is the reference of ``scaling``.
    origin : mapping of source to str or iterable of str
        What each source is made of, e.g. ``{"rf": "era5+stations", "ascat": "ascat", "insitu": {"probes"}}``. Two sources that
        share anything are refused: their errors are not independent. Members trained on one table share that table.
    station, time : str
        Columns.
    by : {"pooled", "station"}
        One result over all stations, or one a station.
    min_rows : int
        Of a station; those with fewer are passed over, with a warning.
    block : float
        Length of the time blocks of the bootstrap: days, or units of numeric times.
    replicates : int
        Of the bootstrap by stations (when pooled) and time blocks; 0 for no intervals.
    level : float
        Of the intervals, inside (0, 1).
    random_seed : int, optional
        For the bootstrap.

    Returns
    -------
    pandas.DataFrame (source) or (station, source)
        ``error_var`` as estimated, which may be negative (squared units of the source), ``error_sd``, ``r2`` and ``correlation``
        with the truth, ``snr_db`` (ten times the log10 of signal to noise variance), ``scaling`` (its b over that of the first
        source), intervals ``error_var_low``, ``error_var_high``, ``r2_low``, ``r2_high``, ``valid`` (r2 inside [0, 1]) and ``n``
        rows. Where not valid, ``error_sd``, ``correlation`` and ``snr_db`` are NaN.

    Raises
    ------
    ValueError
        Sources that share an origin or have none, not three sources, no station with enough rows, a constant source.

    Examples
    --------
    A truth of 1, -1 in pairs, and errors that are orthogonal to it and to each other by design:

    >>> truth, x, y = (np.tile(np.repeat([1.0, -1.0], k), 32 // k) for k in (1, 2, 4))
    >>> table = pd.DataFrame({"probe": truth, "radar": 2 * truth + x, "model": truth + 0.5 * y, "station": "s", "day": range(64)})
    >>> origin = {"probe": "probe", "radar": "radar", "model": "weather"}
    >>> found = triple_collocation(table, sources=list(origin), origin=origin, station="station", time="day", replicates=0)
    >>> found[["r2", "scaling"]]
             r2 scaling
    source
    probe   1.0     1.0
    radar   0.8     2.0
    model   0.8     1.0
    """
    names = _check_triple(sources, by, replicates, level)
    frame, shared = _table_and_training(table)
    check_origins(names, origin, shared)
    x, stations, codes, when = _triple_rows(frame, names, station, time, min_rows)
    blocks = time_blocks(when, block) if replicates else np.zeros(len(x), dtype=np.intp)
    drawn = pigeonhole(codes, blocks, replicates=replicates, random_seed=random_seed)
    moments = _moments(x, codes, blocks, len(stations), drawn.block)
    if by == "pooled":
        weights: Array = drawn.station
        covariance = (
            np.einsum("sr,srij->rij", weights, moments[0])[None]
            / np.einsum("sr,sr->r", weights, moments[1])[:, None, None]
        )
    else:
        with np.errstate(invalid="ignore", divide="ignore"):  # a replicate may take no block of a station
            covariance = moments[0] / moments[1][..., None, None]
    found = _etc(covariance)
    index = pd.Index(names, name="source")
    if by == "station":
        index = pd.MultiIndex.from_product([stations, names], names=["station", "source"])
    rows = np.bincount(codes) if by == "station" else np.array([len(x)])
    return _report(found, index, np.repeat(rows, 3), level)


def check_origins(
    sources: Sequence[str], origin: Mapping[str, str | Iterable[str]], trained: Iterable[str] = ()
) -> None:
    """Refuse sources that share an origin, naming them.

    Parameters
    ----------
    sources : sequence of str
        Their names.
    origin : mapping of source to str or iterable of str
        What each is made of; ``+`` separates several in one text. Case and blanks do not matter.
    trained : iterable of str
        Sources that are known to share one training table.

    Raises
    ------
    ValueError
        Two that share anything, or one without an origin.

    Examples
    --------
    >>> check_origins(["rf", "lsm"], {"rf": "era5+stations", "lsm": "ERA5"})
    Traceback (most recent call last):
    ...
    ValueError: 'rf' and 'lsm' share 'era5': their errors are not independent, ...
    """
    check_known(origin, sources, kind="source", where="sources")
    parts: dict[str, set[str]] = {}
    for name in sources:
        given = origin.get(name, ())
        texts = given.split("+") if isinstance(given, str) else [str(part) for part in given]
        parts[name] = {text.strip().lower() for text in texts if text.strip()}
        if not parts[name]:
            raise ValueError(
                f"{name!r} has no origin; wanted what it is made of: origin={{{name!r}: 'era5+stations', ...}}"
            )
    for name in set(trained) & set(sources):
        parts[name].add("one training table")
    found = [(a, b, sorted(parts[a] & parts[b])) for a, b in combinations(sources, 2) if parts[a] & parts[b]]
    if found:
        pairs = "; ".join(f"{a!r} and {b!r} share {listed(common)}" for a, b, common in found)
        raise ValueError(
            f"{pairs}: their errors are not independent, and triple collocation would call what they have in common truth; "
            "wanted three sources with nothing in common, such as probes, a radar product and a land-surface model"
        )


def _check_triple(sources: Sequence[str], by: str, replicates: int, level: float) -> list[str]:
    names = [sources] if isinstance(sources, str) else list(sources)
    if len(names) != 3 or len(set(names)) != 3:
        raise ValueError(f"sources={names!r}; wanted three different columns")
    if by not in ("pooled", "station"):
        raise ValueError(f"by={by!r}; wanted 'pooled' or 'station'")
    if replicates < 0 or 0 < replicates < 50:
        raise ValueError(f"replicates={replicates}; wanted 50 or more, or 0 for no intervals")
    _check_level(level)
    return names


def _table_and_training(table: pd.DataFrame | Ensemble) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The table, and the columns that were trained together: cross-fitted members, and the observation that they learned."""
    if not isinstance(table, Ensemble):
        return table, ()
    trained = bool(table.dataset["prediction"].attrs.get("trained"))
    observation = table.columns.get("observation")
    return table.to_frame(), (*table.members, *([observation] if observation else [])) if trained else ()


def _triple_rows(
    frame: pd.DataFrame, names: list[str], station: str, time: str, min_rows: int
) -> tuple[Array, list[str], NDArray[np.intp], NDArray[Any]]:
    """Values (obs, 3) of complete rows of stations that have enough, their stations' names and codes, and their times."""
    check_columns(frame, names, {"station": station, "time": time})
    x, site, when = (
        np.column_stack([numbers(frame[name]) for name in names]),
        labels(frame[station]),
        times(frame[time]),
    )
    kept = np.isfinite(x).all(axis=1) & (site != "") & ~pd.isna(when)
    found, codes, count = np.unique(site[kept], return_inverse=True, return_counts=True)
    few = [str(name) for name in found[count < max(min_rows, 2)]]
    if len(few) == len(found):
        raise ValueError(
            f"no station has {max(min_rows, 2)} rows with all of {listed(names)} ({len(frame)} rows, {len(found)} station(s)); "
            "wanted more rows, or a smaller min_rows"
        )
    if few:
        warn(
            f"{len(few)} of {len(found)} stations have fewer than {min_rows} complete rows and are left out: {listed(few)}"
        )
    enough = np.isin(codes, np.flatnonzero(count >= max(min_rows, 2)))
    x, site, when = x[kept][enough], site[kept][enough], when[kept][enough]
    constant = [name for name, values in zip(names, x.T, strict=True) if np.ptp(values) == 0.0]
    if constant:
        raise ValueError(f"source(s) {listed(constant)} are constant; wanted sources that vary with the truth")
    stations, codes = np.unique(site, return_inverse=True)
    return x - x.mean(axis=0), stations.tolist(), codes, when


def _moments(x: Array, codes: NDArray[np.intp], blocks: NDArray[np.intp], n: int, drawn: Array) -> tuple[Array, Array]:
    """Centred squares (station, replicate, 3, 3) and degrees of freedom (station, replicate) of every bootstrap replicate."""
    terms = np.column_stack([np.ones(len(x)), x, (x[:, :, None] * x[:, None, :]).reshape(-1, 9)])
    cell = codes * len(drawn) + blocks
    sums = np.column_stack([np.bincount(cell, term, minlength=n * len(drawn)) for term in terms.T])
    sums = np.einsum("sbm,br->srm", sums.reshape(n, len(drawn), 13), drawn, optimize=True)
    count, first, second = sums[..., 0], sums[..., 1:4], sums[..., 4:].reshape(*sums.shape[:2], 3, 3)
    mean = first / np.maximum(count, 1.0)[..., None]
    return second - mean[..., :, None] * first[..., None, :], np.maximum(count - 1.0, 0.0)


def _etc(covariance: Array) -> dict[str, Array]:
    """Estimates (set, replicate, source) from covariances (set, replicate, 3, 3)."""
    c = covariance
    shared, scale = np.empty(c.shape[:-1]), np.ones(c.shape[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):  # a covariance of zero leaves no estimate: NaN or infinite
        for i, (j, k) in enumerate(((1, 2), (0, 2), (0, 1))):
            shared[..., i] = c[..., i, j] * c[..., i, k] / c[..., j, k]
        scale[..., 1] = c[..., 1, 2] / c[..., 0, 2]
        scale[..., 2] = c[..., 1, 2] / c[..., 0, 1]
        own = np.diagonal(c, axis1=-2, axis2=-1)
        return {"error_var": own - shared, "r2": shared / own, "scaling": scale, "snr": shared / (own - shared)}


def _report(found: Mapping[str, Array], index: pd.Index, n: NDArray[np.int64], level: float) -> pd.DataFrame:
    """The table: the sample itself is replicate 0, intervals come from the others."""
    point = {name: values[:, 0].reshape(-1) for name, values in found.items()}
    # Rounding leaves a source without error at a hair beyond 1.
    valid = (point["r2"] >= 0.0) & (point["r2"] <= 1.0 + 1e-12)
    root = {name: np.sqrt(np.where(valid, np.maximum(point[name], 0.0), np.nan)) for name in ("error_var", "r2")}
    with np.errstate(divide="ignore", invalid="ignore"):
        db = 10.0 * np.log10(np.where(valid, np.abs(point["snr"]), np.nan))
    columns: dict[str, Any] = {
        "error_var": point["error_var"], "error_sd": root["error_var"], "r2": point["r2"],
        "correlation": root["r2"] * np.sign(point["scaling"]), "snr_db": db, "scaling": point["scaling"],
    }  # fmt: skip
    for name in ("error_var", "r2"):
        drawn = np.moveaxis(found[name], 1, -1)[..., 1:]
        none = np.full(drawn.shape[:-1], np.nan)
        low, high = central_interval(drawn, level) if drawn.shape[-1] else (none, none)
        columns |= {f"{name}_low": low.reshape(-1), f"{name}_high": high.reshape(-1)}
    if not valid.all():
        warn(
            f"{int((~valid).sum())} of {len(valid)} estimates are not possible (a negative error variance, or correlations of "
            f"different signs): {listed(index[~valid])}; errors may depend on each other, or the sample is too small"
        )
    return pd.DataFrame(columns | {"valid": valid, "n": n}, index=index)
