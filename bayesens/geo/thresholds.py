"""Thresholds from a climatology, and the probability of being below one.

A threshold is a percentile of a site's climatology at that time of the year. Where it is taken from decides what an event
is. The percentile of the *product's own draws* forgives a constant bias of the product, and makes its mean probability equal
to the percentile over the rows that it was taken from; the observed event is then an observation below the percentile of the
*observations*. One threshold for both, from observations, asks for more: a biased product has too many events or too few.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.distributions.mixtures import probability_below
from bayesens.geo.site_series import SiteSeries, site_series
from bayesens.messages import check_known, listed, warn

__all__ = ["limits_of_rows", "probability_below", "threshold_at", "thresholds"]

Array = NDArray[np.float64]
SEASONS = ("DJF", "MAM", "JJA", "SON")
PERIODS = {"dayofyear": np.arange(1, 366), "month": np.arange(1, 13), "season": np.array(SEASONS), "all": None}


def thresholds(
    values: ArrayLike | xr.DataArray,
    *,
    percentile: float = 0.2,
    by: str = "dayofyear",
    site: ArrayLike | None = None,
    time: ArrayLike | None = None,
    half_window: int = 15,
    min_count: int = 30,
) -> xr.DataArray:
    """Percentile of each site's climatology at each time of the year.

    Parameters
    ----------
    values : array (obs) or (sample, obs)
        Observations, or draws of the product's predictive distribution (``be.draw``), all draws of a row counted. Do not give
        predictive means: they vary less than what they predict. NaN is left out.
    percentile : float
        Inside (0, 1).
    by : {"dayofyear", "month", "season", "all"}
        Times of the year that have a threshold each: every day with the days around it, months, seasons (DJF, MAM, JJA, SON),
        or the whole year.
    site, time : array (obs), optional
        Labels and datetimes, where ``values`` has no such coordinates; times may be numbers if ``by="all"``.
    half_window : int
        Days before and after a day that belong to its climatology, for ``by="dayofyear"``; the year is a circle of 365 days,
        with 29 February on the 28th.
    min_count : int
        Rows (not draws) that a threshold needs; those with fewer are NaN.

    Returns
    -------
    DataArray (site, dayofyear | month | season), or (site) for "all"
        In the units of ``values``, linearly interpolated between order statistics; with a coordinate ``count`` of rows.

    Warns
    -----
    UserWarning
        Says how many thresholds have too few rows.

    Raises
    ------
    ValueError
        Options out of range, numeric times with a time of the year, repeated site-days.

    Examples
    --------
    >>> table = thresholds([1.0, 2.0, 3.0, 7.0, 8.0, 9.0], percentile=0.5, by="all", site=list("aaabbb"),
    ...                    time=[1, 2, 3, 1, 2, 3], min_count=3)
    >>> table.to_series().to_dict()
    {'a': 2.0, 'b': 8.0}
    """
    if not 0.0 < percentile < 1.0:
        raise ValueError(f"percentile lies inside (0, 1), such as 0.2 for the driest fifth; got {percentile!r}")
    if half_window < 0 or half_window > 182 or min_count < 1:
        raise ValueError(
            f"half_window lies in 0 to 182 days and min_count is at least 1; got {half_window!r}, {min_count!r}"
        )
    y = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if y.ndim != 2:
        raise ValueError(f"values have shape {y.shape}; wanted (obs) or (sample, obs)")
    series = site_series(values, site, time)
    period, known = _period(series, by), PERIODS.get(by)
    shape = (len(series.sites), 1 if known is None else len(known))
    out, count = np.full(shape, np.nan), np.zeros(shape, dtype=np.int64)
    reach = half_window if by == "dayofyear" else 0
    for s in range(shape[0]):
        rows = series.rows(s)
        rows = rows[~np.isnan(y[:, rows]).all(axis=0)]
        _percentiles(y[:, rows], period[rows], percentile, reach, min_count, out[s], count[s])
    if (few := int((count < min_count).sum())) > 0:
        warn(f"{few} of {out.size} thresholds (site by {by}) have fewer than {min_count} rows and are NaN: give more years, "
             "a wider window or season, or a smaller min_count.")  # fmt: skip
    dims = ("site",) if known is None else ("site", by)
    coords: dict[str, Any] = {"site": series.sites} | ({} if known is None else {by: known})
    coords |= {"count": (dims, count.reshape(shape[: len(dims)])), "percentile": percentile}
    attrs = {"units": values.attrs["units"]} if isinstance(values, xr.DataArray) and "units" in values.attrs else {}
    return xr.DataArray(out.reshape(shape[: len(dims)]), coords, dims, name="threshold", attrs=attrs)


def _period(series: SiteSeries, by: str) -> NDArray[np.intp]:
    """Number of every row's time of the year, from 0."""
    if by not in PERIODS:
        raise ValueError(f"by is one of {', '.join(map(repr, PERIODS))}; got {by!r}")
    if by == "all":
        return np.zeros(len(series.time), dtype=np.intp)
    if not series.dated:
        raise ValueError(f"by={by!r} needs datetimes and the times are numbers; convert them, or take by='all'")
    date = pd.DatetimeIndex(series.time)
    month = date.month.to_numpy()
    if by == "month":
        return month - 1
    if by == "season":
        return month % 12 // 3
    late = date.is_leap_year & (date.day_of_year.to_numpy() > 59)
    return date.day_of_year.to_numpy() - 1 - late


def _percentiles(
    y: Array, period: NDArray[np.intp], p: float, reach: int, least: int, out: Array, count: NDArray[np.int64]
) -> None:
    """Fill in one site's percentiles and counts; ``y`` is (sample, row)."""
    order = np.argsort(period, kind="stable")
    period, y = period[order], y[:, order]
    if reach:  # the year before and the year after, so that every window is a slice
        period = np.concatenate([period - len(out), period, period + len(out)])
        y = np.concatenate([y, y, y], axis=1)
    columns = np.ascontiguousarray(y.T)
    place = np.arange(len(out))
    first = np.searchsorted(period, place - reach, side="left")
    last = np.searchsorted(period, place + reach, side="right")
    count[:] = last - first
    for i in np.flatnonzero(count >= least):
        window = columns[first[i] : last[i]].ravel()
        out[i] = np.quantile(window[~np.isnan(window)], p)


def threshold_at(
    threshold: xr.DataArray, *, site: ArrayLike | None = None, time: ArrayLike | None = None
) -> xr.DataArray:
    """Look up the threshold of rows.

    Parameters
    ----------
    threshold : DataArray (site, dayofyear | month | season), or (site)
        From `thresholds`, or laid out like it.
    site, time : array (obs)
        Labels, and times.

    Returns
    -------
    DataArray (obs)
        With coordinates ``site`` and ``time``.

    Raises
    ------
    UnknownName
        A site without thresholds.
    ValueError
        Dimensions other than those above, or a period that the table lacks.

    Examples
    --------
    >>> table = xr.DataArray([[0.1, 0.3]], {"site": ["y1"], "season": ["DJF", "JJA"]}, ("site", "season"))
    >>> threshold_at(table, site="y1", time=np.array(["2021-07-01", "2022-01-31"], dtype="datetime64[D]")).values
    array([0.3, 0.1])
    """
    n = len(np.atleast_1d(np.asarray(time)))
    return _looked_up(threshold, site_series(np.zeros(n), site, time))


def _looked_up(threshold: xr.DataArray, series: SiteSeries) -> xr.DataArray:
    extra = [str(dim) for dim in threshold.dims if dim != "site"]
    by = extra[0] if extra else "all"
    if "site" not in threshold.dims or len(extra) > 1 or by not in PERIODS:
        raise ValueError(f"threshold has dimensions {threshold.dims}; wanted ('site',) or ('site', 'dayofyear' | 'month' | "
                         "'season'), as thresholds() gives")  # fmt: skip
    known = threshold["site"].values.astype(str)
    check_known(
        series.sites.tolist(), known.tolist(), kind="threshold for site", where=f"the table ({len(known)} sites)"
    )
    values = threshold.transpose("site", ...).to_numpy().astype(np.float64)
    place = pd.Index(known).get_indexer(series.sites)[series.code]
    if by == "all":
        found = values[place]
    else:
        wanted = np.asarray(PERIODS[by])[_period(series, by)]
        column = pd.Index(threshold[by].values).get_indexer(wanted)
        if (column < 0).any():
            lacking = np.unique(wanted[column < 0]).tolist()
            raise ValueError(f"the thresholds lack {by} {listed(lacking)}, which {int((column < 0).sum())} rows need")
        found = values[place, column]
    attrs = {name: threshold.attrs[name] for name in ("units",) if name in threshold.attrs}
    return xr.DataArray(found, series.coords, ("obs",), name="threshold", attrs=attrs)


def limits_of_rows(threshold: float | ArrayLike | xr.DataArray, series: SiteSeries) -> Array:
    """Thresholds (obs) from one number, one a row, or the table of `thresholds`."""
    if isinstance(threshold, xr.DataArray) and "site" in threshold.dims:
        return _looked_up(threshold, series).to_numpy()
    limit, n = np.asarray(threshold, dtype=np.float64), len(series.site)
    if limit.shape not in ((), (n,)):
        raise ValueError(
            f"threshold has shape {limit.shape} for {n} rows; wanted one number, (obs), or thresholds() by site"
        )
    return np.broadcast_to(limit, n)
