"""Draws that hang together in time: a Gaussian copula of first order along each site's series.

Predictive draws of single days say how likely a dry day is, not how long dryness lasts. Here every row keeps its predictive
distribution, value by value, and the draws of a site are put in such an order that their normal scores form a stationary
autoregression: the correlation of two days is ``rho ** dt``, whatever days are missing between them. Its ``rho`` comes from
the observations' PIT in training rows, so it is the persistence of the prediction's *error*, not that of the variable.

References
----------
Schefzik, Thorarinsdottir & Gneiting (2013), Stat. Sci. 28, 616: draws reordered by the ranks of a dependence template.
Jones (1981), in Applied Time Series Analysis II, 651: the likelihood of an autoregression seen at uneven times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import ndtri

from bayesens.console import progress
from bayesens.geo.site_series import SiteSeries, site_series
from bayesens.tables.columns import labels

__all__ = ["Persistence", "persistence", "trajectories"]

Array = NDArray[np.float64]
SIZE = 1000
BATCH = 4_000_000  # latent values at a time: 32 MB
FURTHEST = 1e-6  # PIT values nearer to 0 or 1 count as this: one observation in a million
GRID = 40  # e-folding times tried before the best is refined


class Law(Protocol):
    """What a predictive distribution needs to have."""

    def quantile(self, p: Array) -> Array:
        """Return quantiles (obs, p)."""
        ...


# How long errors last -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Persistence:
    """Autocorrelation of prediction errors, from `persistence`.

    Attributes
    ----------
    table : pandas.DataFrame (site)
        ``rho`` per day (per unit of numeric times), ``pairs`` of successive rows, and ``own``: False where these were too
        few, so that ``rho`` is that of all sites together.
    pooled : float
        Of all sites together.
    """

    table: pd.DataFrame
    pooled: float

    def of(self, site: ArrayLike) -> Array:
        """Autocorrelation at each of some sites: the pooled one where a site is not in the table.

        Parameters
        ----------
        site : array (...)
            Labels.

        Returns
        -------
        array (...)

        Examples
        --------
        >>> table = pd.DataFrame({"rho": [0.5], "pairs": [90], "own": [True]}, index=pd.Index(["y1"], name="site"))
        >>> Persistence(table, pooled=0.8).of(["y1", "elsewhere"])
        array([0.5, 0.8])
        """
        return self.table["rho"].reindex(labels(pd.Series(np.asarray(site)))).fillna(self.pooled).to_numpy(np.float64)


def persistence(
    pit: ArrayLike | xr.DataArray, *, site: ArrayLike | None = None, time: ArrayLike | None = None, min_pairs: int = 50
) -> Persistence:
    """Estimate how the errors of a prediction persist, site by site.

    The normal scores of the PIT are taken for an autoregression of first order with mean zero (as they have where the
    prediction is calibrated) and seen at uneven times; ``rho`` is found by maximum likelihood, any variance allowed. What
    stays at a site for good counts as persistence too. Errors that alternate give ``rho = 0``.

    Parameters
    ----------
    pit : array (obs)
        PIT of the observations, such as ``be.score(fit, training)["pit"]``, whose sites and times are then known. NaN is left
        out. Values nearer to 0 or 1 than 1e-6 count as that far out.
    site, time : array (obs), optional
        Labels, and datetimes or numbers.
    min_pairs : int
        Sites with fewer pairs of successive rows are given the value of all sites together.

    Returns
    -------
    Persistence

    Raises
    ------
    ValueError
        PIT values outside [0, 1], or no site with two rows.

    Examples
    --------
    >>> alternating = persistence([0.9, 0.1, 0.9, 0.1], site="y1", time=[1, 2, 3, 4], min_pairs=3)
    >>> alternating.pooled, alternating.table["pairs"].tolist()
    (0.0, [3])
    """
    u = np.asarray(pit, dtype=np.float64)
    if u.ndim != 1 or (outside := int(((u < 0.0) | (u > 1.0)).sum())):
        raise ValueError(f"pit has shape {u.shape}" + (f" and {outside} values outside [0, 1]" if u.ndim == 1 else "")
                         + "; wanted (obs) in [0, 1]")  # fmt: skip
    series = site_series(pit, site, time)
    z = ndtri(np.clip(u, FURTHEST, 1.0 - FURTHEST))
    elapsed = series.elapsed()
    of_site = [(z[rows], np.diff(elapsed[rows])) for rows in _seen(series, ~np.isnan(u))]
    pairs = np.array([len(gap) for _, gap in of_site])
    if not pairs.any():
        raise ValueError(
            f"none of {len(pairs)} sites has two rows with a PIT, so nothing tells how errors persist; pass a number as "
            "persistence, such as 0.9"
        )
    pooled = _most_likely([one for one in of_site if len(one[1])])
    own = (pairs >= min_pairs) & (pairs > 0)
    rho = [_most_likely([one]) if enough else pooled for one, enough in zip(of_site, own, strict=True)]
    index = pd.Index(series.sites.astype(object), name="site")
    return Persistence(pd.DataFrame({"rho": rho, "pairs": pairs, "own": own}, index=index), pooled)


def _seen(series: SiteSeries, keep: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    for s in range(len(series.sites)):
        rows = series.rows(s)
        yield rows[keep[rows]]


def _most_likely(sites: list[tuple[Array, Array]]) -> float:
    """Maximum likelihood of ``rho`` over the e-folding time, on a grid and then within its best cell."""
    z = np.concatenate([each for each, _ in sites])
    gap = np.concatenate([np.append(np.inf, each) for _, each in sites])  # a first row follows nothing
    before = np.append(0.0, z[:-1])
    finite = gap[np.isfinite(gap)]

    def loss(log_tau: float) -> float:
        phi = np.exp(-gap / np.exp(log_tau))
        left = -np.expm1(-2.0 * gap / np.exp(log_tau))
        return float(len(z) * np.log(np.sum((z - phi * before) ** 2 / left)) + np.sum(np.log(left)))

    if not np.any(z):
        return 0.0  # every PIT is one half
    grid = np.linspace(np.log(finite.min() / 20.0), np.log(1e4 * finite.max()), GRID)
    best = int(np.argmin([loss(x) for x in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    tau = np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7}).x)
    return float(np.exp(-1.0 / tau)) if tau > finite.min() / 19.0 else 0.0


# Trajectories ---------------------------------------------------------------------------------------------------------


def trajectories(
    marginal: ArrayLike | xr.DataArray | Law,
    *,
    persistence: float | Persistence,
    site: ArrayLike | None = None,
    time: ArrayLike | None = None,
    size: int | None = None,
    random_seed: int | None = None,
    progressbar: bool = True,
) -> xr.DataArray:
    """Draw whole series: each row from its own predictive distribution, each site's rows dependent through time.

    Sites are independent of each other.

    Parameters
    ----------
    marginal : array (sample, obs), or a distribution of shape (obs)
        Draws, such as those of ``be.draw``, which are put in another order within each row; or an object with ``quantile(p)``,
        such as ``bayesens.inference.predict.distribution`` gives, of which each row takes the quantiles at
        ``(i + 1/2) / size``. Either way the values of a row are kept exactly; a row without a prediction (all NaN) has none.
    persistence : float or Persistence
        Autocorrelation of the errors' normal scores per day (per unit of numeric times), inside [0, 1); a `Persistence`
        gives each of its sites its own, and other sites the pooled one.
    site, time : array (obs), optional
        Labels, and datetimes or numbers, where ``marginal`` has no such coordinates.
    size : int, optional
        Number of trajectories, 1000 if not given; of draws there are as many as draws.
    random_seed : int, optional
        The same seed gives the same trajectories.
    progressbar : bool
        Show one while at work on a large table.

    Returns
    -------
    DataArray (sample, obs)
        In the units of ``marginal``, with coordinates ``site`` and ``time``.

    Raises
    ------
    ValueError
        An autocorrelation outside [0, 1), fewer than two draws, another ``size`` than there are draws, draws missing from
        part of a row, repeated site-days.

    Examples
    --------
    >>> draws = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    >>> joint = trajectories(draws, persistence=0.999999, site="y1", time=[0, 1], random_seed=1, progressbar=False)
    >>> np.sort(joint.values, axis=0).tolist() == draws.tolist()  # the values of each row, and in a persistent order
    True
    >>> (joint.values[:, 1] / joint.values[:, 0]).tolist()
    [10.0, 10.0, 10.0]
    """
    law = hasattr(marginal, "quantile") and not isinstance(marginal, xr.DataArray)
    if law:
        size = SIZE if size is None else size
        shape: tuple[int, ...] = (
            (size, *marginal.shape) if hasattr(marginal, "shape") else (size, len(np.asarray(time)))
        )
        like: Any = np.broadcast_to(0.0, shape)
    else:
        like = marginal if isinstance(marginal, xr.DataArray) else np.asarray(marginal, dtype=np.float64)
        shape = np.shape(like)
    if len(shape) != 2 or shape[0] < 2 or (size is not None and size != shape[0]):
        raise ValueError(f"got draws of shape {shape} and size={size}; wanted (sample, obs) with at least two samples, and "
                         "a size that is their number or is left out")  # fmt: skip
    series = site_series(like, site, time)
    rho = _checked(persistence, series)
    rng = np.random.default_rng(random_seed)
    level = (np.arange(shape[0]) + 0.5) / shape[0]

    def ordered(rows: NDArray[np.intp]) -> Array:
        """Sorted values (row, sample) of some rows."""
        if law:
            return np.asarray(marginal[rows].quantile(level))  # type: ignore[index, union-attr]
        found = np.sort(np.asarray(like[:, rows], dtype=np.float64), axis=0).T
        if partly := int((np.isnan(found[:, -1]) & ~np.isnan(found[:, 0])).sum()):  # NaN is sorted last
            raise ValueError(f"{partly} rows lack some of their draws; wanted all draws of a row, or none")
        return found

    out = np.empty(shape[::-1])
    for rows, start in _batches(series, shape[0], progressbar):
        latent = _latent(series.elapsed()[rows], rho[rows], start, shape[0], rng)
        values = np.empty_like(latent)
        np.put_along_axis(values, np.argsort(latent, axis=1), ordered(rows), axis=1)
        out[rows] = values
    attrs = like.attrs if isinstance(like, xr.DataArray) else {}
    return xr.DataArray(out.T, dims=("sample", "obs"), coords=series.coords, name="y", attrs=attrs)


def _checked(persistence: float | Persistence, series: SiteSeries) -> Array:
    if isinstance(persistence, Persistence):
        rho = persistence.of(series.sites)
    else:
        rho = np.full(len(series.sites), float(persistence))
    if (outside := ~((rho >= 0.0) & (rho < 1.0))).any():
        raise ValueError("persistence is an autocorrelation in [0, 1) per day or unit of time; got "
                         f"{float(rho[outside][0])!r} for site {str(series.sites[outside][0])!r}")  # fmt: skip
    return rho[series.code]


def _batches(series: SiteSeries, size: int, progressbar: bool) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows of some whole sites at a time, and where each site begins among them."""
    n = len(series.sites)
    small = len(series.site) * size <= BATCH
    with progress(n, "Trajectories", progressbar and not small) as advance:
        first = 0
        while first < n:
            room = series.start[first] + max(BATCH // size, 1)
            last = max(int(np.searchsorted(series.start, room, side="right")) - 1, first + 1)
            start = series.start[first : last + 1]
            yield series.order[start[0] : start[-1]], start - start[0]
            advance(last - first)
            first = last


def _latent(elapsed: Array, rho: Array, start: NDArray[np.intp], size: int, rng: np.random.Generator) -> Array:
    """Stationary autoregressions (row, sample) of unit variance, the series of all sites side by side."""
    z = rng.standard_normal((len(elapsed), size))
    gap = np.diff(elapsed, prepend=elapsed[0])
    gap[start[:-1]] = 0.0
    phi = rho**gap
    root = np.sqrt(1.0 - phi**2)
    length = np.diff(start)
    for step in range(1, int(length.max())):
        now = start[:-1][length > step] + step
        z[now] = phi[now, None] * z[now - 1] + root[now, None] * z[now]
    return z
