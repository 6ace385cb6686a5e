"""What stations say of their cell: variance components, temporal stability, upscaled truth, triple collocation.

Several stations in one cell see one truth, each with an offset of its own that stays and an error that comes and goes. How large
these are says how far one station, or the mean of several, may be taken for the cell. A learning curve that is flat says
nothing of it: the stations that validate carry the same error.

The components stand here; `bayesens.geo.upscaling` and `bayesens.geo.triple_collocation` hold the rest.

References
----------
Patterson & Thompson (1971), Biometrika 58, 545: REML.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import chi2, norm

from bayesens.geo.reml import Reduced, autocorrelation, inflation_of, sweep
from bayesens.geo.station_cells import paired_cells, warn_copies
from bayesens.geo.triple_collocation import check_origins, triple_collocation
from bayesens.geo.upscaling import cell_means, rmse_to_truth, temporal_stability
from bayesens.messages import warn

__all__ = [
    "Components", "cell_means", "check_origins", "rmse_to_truth", "temporal_stability", "triple_collocation",
    "variance_components",
]  # fmt: skip

NAMES = ("offset", "residual", "total")
CORRELATED = 0.2  # autocorrelation beyond which taking residuals for independent is worth a warning


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
    cells = paired_cells(table, value, station, time, cell)
    swept = [sweep(part.y) for part in cells]
    reduced = Reduced.of(swept)
    reduced.check()
    warn_copies(cells)
    phi = autocorrelation(cells, swept)
    if errors == "ar1":
        reduced = reduced.lasting(*inflation_of(cells, swept, phi))
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


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level lies inside (0, 1), such as 0.9; got {level!r}")
