"""How the errors of a prediction hang together in space and time, and fields of normal scores that hang together likewise.

The normal scores of held-out observations' PIT (probability integral transforms) at stations s and times t have the correlation

    ((1 - nugget) M(|s - s'|) + nugget [s = s']) persistence ** |t - t'|        M(d) = (1 + a) exp(-a),  a = sqrt(3) d / range,

M the Matern correlation of smoothness 3/2. Range and nugget maximise the likelihood of each day's stations, days taken as
repeats; the persistence is that of `persistence`. A field of scores is a sum of waves whose frequencies are drawn from the
spectral density of M, anew for every draw: its value at a cell follows from the cell's own place, whatever other cells there
are, in a plane and on the sphere (with distances through the Earth, which are those along its surface at the scale of errors).
Given its frequencies a field is exactly normal, and over draws it has exactly the correlation above.

References
----------
Rahimi and Recht (2007), Advances in Neural Information Processing Systems 20: waves of random frequency.
Stein (1999), Interpolation of Spatial Data, section 2.7: the Matern class and its spectral density.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit, ndtri

from bayesens.ensemble.sphere import EARTH_RADIUS, on_sphere
from bayesens.geo.site_series import site_series
from bayesens.geo.trajectory import FURTHEST, persistence
from bayesens.messages import listed

__all__ = ["ResidualField", "residual_field"]

Array = NDArray[np.float64]
SMOOTHNESS = 1.5
WAVES = 512
PLACES = 8_192  # at a time, whose waves take 70 MB
MOST_DAYS = 400  # that the likelihood looks at, spread evenly over all
FEWEST_SITES = 5
TINY = 1e-9  # added to the diagonal: two stations may share a place
GOLDEN, MIX, MORE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class ResidualField:
    """Correlation of a prediction's errors in space and time, from `residual_field` or by hand.

    Attributes
    ----------
    range : float
        Of the Matern correlation, in kilometres for ``places=("lon", "lat")`` and in units of the places otherwise; at this
        distance it is .48.
    nugget : float
        Share of the variance that a place has to itself, in [0, 1].
    persistence : float
        Correlation per day (per unit of numeric times), in [0, 1).
    places : (str, str)
        Names of the coordinates that say where a cell lies; ("lon", "lat") are degrees, any others lengths in a plane.

    Examples
    --------
    >>> field = ResidualField(range=50.0, nugget=0.2, persistence=0.5)
    >>> field.correlation([0.0, 50.0], gap=1.0).round(3)
    array([0.5  , 0.193])
    """

    range: float
    nugget: float = 0.0
    persistence: float = 0.0
    places: tuple[str, str] = ("lon", "lat")

    def __post_init__(self) -> None:
        if not self.range > 0.0 or not 0.0 <= self.nugget <= 1.0 or not 0.0 <= self.persistence < 1.0:
            raise ValueError(
                f"got range={self.range!r}, nugget={self.nugget!r} and persistence={self.persistence!r}; wanted a positive "
                "range, a nugget in [0, 1] and a persistence in [0, 1)"
            )

    def correlation(self, distance: ArrayLike, gap: ArrayLike = 0.0) -> Array:
        """Correlation of two errors; that of one place with itself at distance zero.

        Parameters
        ----------
        distance : array (...)
            In the units of ``range``.
        gap : array (...)
            Days, or units of numeric times.

        Returns
        -------
        array (...)
        """
        d, apart = np.asarray(distance, dtype=float), np.abs(np.asarray(gap, dtype=float))
        space = (1.0 - self.nugget) * _matern(d, self.range) + self.nugget * (d == 0.0)
        return np.asarray(space * self.persistence**apart)

    def scores(
        self, first: ArrayLike, second: ArrayLike, time: ArrayLike = (0.0,), *, random_seed: Any = None,
        keep: ArrayLike | None = None,
    ) -> Array:  # fmt: skip
        """One field of standard normal scores.

        Parameters
        ----------
        first, second : array (place)
            Coordinates, as `places` names them.
        time : array (time)
            Datetimes or numbers, in any order.
        random_seed : int or sequence of int, optional
            The same seed and times give a place the same scores, whatever other places there are.
        keep : int array (kept), optional
            Positions of the times whose scores are wanted; all where nothing is said.

        Returns
        -------
        array (place, time), or (place, kept)
        """
        x, y = (np.asarray(one, dtype=np.float64).reshape(-1) for one in (first, second))
        days, back = np.unique(_days(time), return_inverse=True)
        rng = np.random.default_rng(random_seed)
        points = _points(x, y, self.places)
        # A Student's t with 3 degrees of freedom in every direction is the spectral density of smoothness 3/2.
        frequency = rng.standard_normal((WAVES, 3)) * np.sqrt(
            2 * SMOOTHNESS / rng.chisquare(2 * SMOOTHNESS, (WAVES, 1))
        )
        frequency = frequency[:, : points.shape[1]].T / self.range
        size = self._through_time(rng.standard_normal((2 * WAVES, len(days))), days)
        key = rng.integers(0, 2**63, dtype=np.uint64)
        own = self._through_time(_noise(x, y, days, key), days) if self.nugget > 0.0 else np.zeros((len(x), 0))
        wanted = back if keep is None else back[np.asarray(keep)]
        height = np.sqrt((1.0 - self.nugget) / WAVES) * size[:, wanted]
        field = np.empty((len(x), len(wanted)))
        for start in range(0, len(x), PLACES):
            angle = points[start : start + PLACES] @ frequency
            field[start : start + PLACES] = np.cos(angle) @ height[:WAVES] + np.sin(angle) @ height[WAVES:]
        return np.asarray(field if self.nugget == 0.0 else field + np.sqrt(self.nugget) * own[:, wanted])

    def _through_time(self, z: Array, days: Array) -> Array:
        """Innovations (..., time) to stationary autoregressions of unit variance."""
        for t in range(1, len(days)):
            phi = self.persistence ** (days[t] - days[t - 1])
            z[:, t] = phi * z[:, t - 1] + np.sqrt(1.0 - phi**2) * z[:, t]
        return z


def residual_field(
    pit: ArrayLike | xr.DataArray, *, site: ArrayLike | None = None, time: ArrayLike | None = None,
    lon: ArrayLike | None = None, lat: ArrayLike | None = None, x: ArrayLike | None = None, y: ArrayLike | None = None,
) -> ResidualField:  # fmt: skip
    """Estimate how the errors of a prediction hang together in space and time.

    Parameters
    ----------
    pit : array (obs)
        PIT of observations that the prediction had not seen, such as those of ``be.score`` at held-out stations, whose
        coordinates are then known. NaN is left out. Values nearer to 0 or 1 than 1e-6 count as that far out.
    site, time : array (obs), optional
        Labels, and datetimes or numbers.
    lon, lat : array (obs), optional
        Degrees; or
    x, y : array (obs), optional
        lengths in a plane, such as kilometres.

    Returns
    -------
    ResidualField

    Raises
    ------
    ValueError
        Without places, with fewer than five sites, or if no time has two of them.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> truth = ResidualField(range=30.0, persistence=0.6, places=("x", "y"))
    >>> x, y = rng.uniform(0.0, 100.0, (2, 20))
    >>> z = truth.scores(x, y, np.arange(60.0), random_seed=2)  # (place, time)
    >>> s, t = np.meshgrid(np.arange(20), np.arange(60.0), indexing="ij")
    >>> pit, site = scipy.special.ndtr(z).ravel(), s.ravel().astype(str)
    >>> found = residual_field(pit, site=site, time=t.ravel(), x=x[s].ravel(), y=y[s].ravel())
    >>> 20.0 < found.range < 45.0, 0.5 < found.persistence < 0.7
    (True, True)
    """
    places, coordinates = _places(pit, {"lon": lon, "lat": lat, "x": x, "y": y})
    u = np.asarray(pit, dtype=np.float64)
    series = site_series(pit, site, time)
    seen = ~np.isnan(u)
    z = ndtri(np.clip(u[seen], FURTHEST, 1.0 - FURTHEST))
    code = series.code[seen]
    sites, first = np.unique(code, return_index=True)
    if len(sites) < FEWEST_SITES:
        raise ValueError(f"got PIT values of {len(sites)} sites; wanted at least {FEWEST_SITES}, which tell how errors of "
                         "different places go together. A field may also be written by hand, from its range.")  # fmt: skip
    at = np.stack(coordinates, axis=1)[seen]
    _check_still(at, code, series.sites)
    points = _points(at[first, 0], at[first, 1], places)
    table = pd.DataFrame({"time": series.elapsed()[seen], "site": np.searchsorted(sites, code), "z": z})
    days = list(_by_stations(table))
    if not any(len(stations) > 1 for stations, _ in days):
        raise ValueError("no time has PIT values of two sites, so nothing tells how errors go together in space")
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    length, nugget = _most_likely(distance, days)
    repeated = table["time"].nunique() > 1 and table["site"].duplicated().any()
    held = persistence(pit, site=site, time=time).pooled if repeated else 0.0
    return ResidualField(length, nugget, held, places)


# --------------------------------------------------------------------------------------------------------------- estimation
def _places(pit: Any, given: dict[str, Any]) -> tuple[tuple[str, str], list[Array]]:
    n = np.shape(pit)[-1]
    for names in (("x", "y"), ("lon", "lat")):
        found = [given[name] if given[name] is not None else pit.coords.get(name) if isinstance(pit, xr.DataArray) else None
                 for name in names]  # fmt: skip
        if all(one is not None for one in found):
            values = [np.asarray(one, dtype=np.float64) for one in found]
            if wrong := [
                name for name, one in zip(names, values, strict=True) if one.shape != (n,) or not np.isfinite(one).all()
            ]:
                raise ValueError(f"{listed(wrong)} must be one finite number for each of {n} rows")
            return names, values
    raise ValueError("the rows have no places; pass lon= and lat= in degrees, or x= and y= of a plane, one entry a row")


def _check_still(at: Array, code: NDArray[np.intp], names: NDArray[np.str_]) -> None:
    order = np.argsort(code, kind="stable")
    moved = (code[order][1:] == code[order][:-1]) & np.any(at[order][1:] != at[order][:-1], axis=1)
    if moved.any():
        which = sorted({str(names[c]) for c in code[order][1:][moved]})
        raise ValueError(f"sites {listed(which, limit=3)} have several places; wanted one place a site")


def _by_stations(table: pd.DataFrame) -> Iterator[tuple[NDArray[np.intp], Array]]:
    """Days by the stations that they have: (stations), scores (station, day)."""
    days = np.sort(table["time"].unique())
    some = days[np.unique(np.linspace(0, len(days) - 1, min(len(days), MOST_DAYS)).round().astype(int))]
    wide = table[table["time"].isin(some)].pivot(index="time", columns="site", values="z")
    there = wide.notna().to_numpy()
    patterns, number = np.unique(there, axis=0, return_inverse=True)
    for p, pattern in enumerate(patterns):
        yield wide.columns.to_numpy()[pattern], wide.to_numpy()[number.ravel() == p][:, pattern].T


def _most_likely(distance: Array, days: list[tuple[NDArray[np.intp], Array]]) -> tuple[float, float]:
    """Range and nugget of the greatest likelihood, whatever the scores' variance is."""
    apart = distance[np.triu_indices(len(distance), 1)]
    low, high = np.log(max(apart[apart > 0.0].min() / 3.0, 1e-6)), np.log(3.0 * apart.max())
    n = sum(z.size for _, z in days)

    def loss(theta: Array) -> float:
        length, nugget = np.exp(np.clip(theta[0], low, high)), expit(np.clip(theta[1], -12.0, 12.0))
        matrix = (1.0 - nugget) * _matern(distance, length) + (nugget + TINY) * np.eye(len(distance))
        square, log_determinant = 0.0, 0.0
        for stations, z in days:
            root = np.linalg.cholesky(matrix[np.ix_(stations, stations)])
            square += float(np.sum(scipy.linalg.solve_triangular(root, z, lower=True) ** 2))
            log_determinant += 2.0 * z.shape[1] * float(np.log(np.diag(root)).sum())
        outside = np.sum(np.maximum(np.abs(theta - np.clip(theta, [low, -12.0], [high, 12.0])), 0.0))
        return n * np.log(square) + log_determinant + outside

    starts = [np.array([a, logit(b)]) for a in np.linspace(low, high, 6)[1:-1] for b in (0.1, 0.6)]
    best = minimize(loss, min(starts, key=loss), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-4}).x
    nugget = float(expit(np.clip(best[1], -12.0, 12.0)))
    return float(np.exp(np.clip(best[0], low, high))), nugget if nugget > 1e-4 else 0.0


# ------------------------------------------------------------------------------------------------------------ building blocks
def _matern(distance: Array, length: float) -> Array:
    a = np.sqrt(2.0 * SMOOTHNESS) * distance / length
    return np.asarray((1.0 + a) * np.exp(-a))


def _points(x: Array, y: Array, places: tuple[str, str]) -> Array:
    return EARTH_RADIUS * on_sphere(x, y) if places == ("lon", "lat") else np.stack([x, y], axis=1)


def _days(time: ArrayLike) -> Array:
    when = np.asarray(time)
    if when.dtype.kind == "M":
        return (when.astype("datetime64[ns]").astype(np.int64) / 86_400e9).astype(np.float64)
    return when.astype(np.float64)


def _noise(x: Array, y: Array, days: Array, key: np.uint64) -> Array:
    """Standard normal numbers (place, time) that follow from place, time and key alone, by mixing their bits."""
    with np.errstate(over="ignore"):
        place = _mixed(_mixed((x + 0.0).view(np.uint64) + key) ^ (y + 0.0).view(np.uint64))  # minus zero is zero
        bits = _mixed(place[:, None] + _mixed((days + 0.0).view(np.uint64) ^ key)[None])
    return np.asarray(ndtri(((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53))


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Whole numbers of 64 bits, each of which depends on all bits of one (the finaliser of SplitMix64)."""
    bits = bits + GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * MIX
    bits = (bits ^ (bits >> np.uint64(27))) * MORE
    return np.asarray(bits ^ (bits >> np.uint64(31)))
