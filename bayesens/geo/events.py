"""Droughts and other events: runs below a threshold, in one series or in many trajectories.

References
----------
Yevjevich (1967), Hydrology Paper 23, Colorado State University: runs below a level.
Tallaksen, Madsen & Clausen (1997), Hydrol. Sci. J. 42, 15: pooling of dependent droughts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.console import progress
from bayesens.geo.site_series import SiteSeries, site_series
from bayesens.geo.thresholds import limits_of_rows

__all__ = ["Events", "area_below", "find_events", "runs"]

QUANTILES = (0.05, 0.5, 0.95)
SPARSEST = 100  # steps a row, beyond which the step is taken for a mistake
COLUMNS = ("site", "sample", "onset", "end", "duration", "severity", "open_start", "open_end")


def runs(deficit: ArrayLike, *, min_duration: int = 1, pool: int = 0, bridge: int = 0) -> pd.DataFrame:
    """Runs below the threshold in many trajectories at once.

    Two runs are one event if the steps between them hold at most ``pool`` at or above the threshold and at most ``bridge``
    without a value. So by default any step that is not below, and any missing step, ends a run.

    Parameters
    ----------
    deficit : array (..., step)
        Threshold minus value: positive below the threshold, NaN where missing. Of True and False the severity is the number of
        steps.
    min_duration : int
        Steps that an event needs, after pooling.
    pool, bridge : int
        Steps, see above.

    Returns
    -------
    pandas.DataFrame (event)
        ``trajectory`` (number of the leading axes, flattened), ``onset`` and ``end`` (first and last step below),
        ``duration`` (steps from onset to end, with those pooled or bridged), ``severity`` (sum of the positive deficits),
        ``open_start`` and ``open_end``: True where the record begins or ends there or a value is missing, so that the
        duration is a lower bound.

    Raises
    ------
    ValueError
        Options out of range, one number in place of a series.

    Examples
    --------
    >>> runs([0.0, 2.0, 1.0, -1.0, 3.0, float("nan")])
       trajectory  onset  end  duration  severity  open_start  open_end
    0           0      1    2         2       3.0       False     False
    1           0      4    4         1       3.0       False      True
    >>> runs([0.0, 2.0, 1.0, -1.0, 3.0, float("nan")], pool=1)[["onset", "end", "duration", "severity"]]
       onset  end  duration  severity
    0      1    4         4       6.0
    """
    for name, value, least in (("min_duration", min_duration, 1), ("pool", pool, 0), ("bridge", bridge, 0)):
        if not value >= least or int(value) != value:
            raise ValueError(f"{name} is a whole number of steps, at least {least}; got {value!r}")
    x = np.asarray(deficit, dtype=np.float64)
    if x.ndim == 0:
        raise ValueError(f"deficit is the number {x}; wanted an array (..., step)")
    x = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])  # -1 is not defined for 0 steps
    width = x.shape[1] + 2
    # A missing step before and after every trajectory: runs then never touch, and all lie inside one flat array.
    flat = np.pad(x, ((0, 0), (1, 1)), constant_values=np.nan).ravel()
    missing, below = np.isnan(flat), flat > 0.0
    change = np.flatnonzero(below[1:] != below[:-1])
    start, end = change[::2] + 1, change[1::2]
    lost, above = np.cumsum(missing), np.cumsum(~missing & ~below)
    apart = start[1:] // width != end[:-1] // width
    apart |= above[start[1:]] - above[end[:-1]] > pool
    apart |= lost[start[1:]] - lost[end[:-1]] > bridge
    start, end = start[np.append(True, apart)[: len(start)]], end[np.append(apart, True)[: len(end)]]
    long = end - start + 1 >= min_duration
    start, end = start[long], end[long]
    bounds = np.column_stack([start, end + 1]).ravel()
    severity = np.add.reduceat(np.where(below, flat, 0.0), bounds)[::2] if len(start) else np.empty(0)
    return pd.DataFrame({
        "trajectory": start // width, "onset": start % width - 1, "end": end % width - 1, "duration": end - start + 1,
        "severity": severity, "open_start": missing[start - 1], "open_end": missing[end + 1],
    })  # fmt: skip


# Events ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Events:
    """Events of sites, from `find_events`.

    Attributes
    ----------
    table : pandas.DataFrame (event)
        ``site``, ``sample`` (0 for a single series), ``onset``, ``end`` (times of the first and last step below),
        ``duration`` (days, or units of numeric times: number of steps times the step), ``severity`` (units of the values
        times the units of duration), ``open_start``, ``open_end`` (the duration is a lower bound).
    sites : tuple of str
        All sites, with and without an event.
    samples : int
        Trajectories of each site.
    """

    table: pd.DataFrame
    sites: tuple[str, ...]
    samples: int

    def probability(self, *, duration: float = 0.0, severity: float = 0.0) -> pd.Series:
        """Share of trajectories with an event at least so long and, the same one, at least so severe.

        Parameters
        ----------
        duration, severity : float
            In the units of the table.

        Returns
        -------
        pandas.Series (site)

        Examples
        --------
        >>> below = [[3.0, 1.0, 1.0, 3.0], [3.0, 1.0, 3.0, 3.0]]
        >>> found = find_events(below, 2.0, site="y1", time=[1, 2, 3, 4])
        >>> found.probability().item(), found.probability(duration=2).item()
        (1.0, 0.5)
        """
        hit = self.table[(self.table["duration"] >= duration) & (self.table["severity"] >= severity)]
        samples = hit.drop_duplicates(["site", "sample"]).groupby("site").size()
        out = samples.reindex(pd.Index(self.sites, name="site"), fill_value=0) / self.samples
        return out.rename("probability")

    def summary(self, quantiles: Sequence[float] = QUANTILES) -> xr.Dataset:
        """Distribution over trajectories of each site's events.

        Parameters
        ----------
        quantiles : sequence of float
            Levels inside (0, 1); a quantile is a value that occurred.

        Returns
        -------
        Dataset (site, quantile)
            ``probability (site)`` of any event, ``number (site)`` of events expected; and over the trajectories that have an
            event, ``onset`` of the first one, ``duration`` of the longest and ``severity`` of the most severe; NaN or NaT
            where none has.

        Examples
        --------
        >>> found = find_events([[3.0, 1.0, 1.0], [3.0, 3.0, 1.0]], 2.0, site="y1", time=[1, 2, 3])
        >>> found.summary([0.5, 0.9])["duration"].values.tolist()
        [[1.0, 2.0]]
        """
        level = np.atleast_1d(np.asarray(quantiles, dtype=np.float64))
        if not np.all((level > 0.0) & (level < 1.0)):
            raise ValueError(f"quantiles are numbers inside (0, 1); got {quantiles!r}")
        each = self.table.groupby(["site", "sample"]).agg({"onset": "min", "duration": "max", "severity": "max"})
        of_site = each.reset_index().groupby("site")
        parts: dict[str, Any] = {"probability": ("site", self.probability().to_numpy())}
        number = self.table.groupby("site").size().reindex(list(self.sites), fill_value=0) / self.samples
        parts["number"] = ("site", number.to_numpy(np.float64))
        for name in ("onset", "duration", "severity"):
            nothing = np.datetime64("NaT", "ns") if self.table[name].dtype.kind == "M" else np.nan
            values = np.full((len(self.sites), len(level)), nothing)
            for site, found in of_site[name]:
                ordered = np.sort(found.to_numpy())
                values[self.sites.index(site)] = ordered[np.ceil(level * len(ordered) - 1e-9).astype(int) - 1]
            parts[name] = (("site", "quantile"), values)
        return xr.Dataset(parts, {"site": np.array(self.sites, dtype=np.str_), "quantile": level})


def find_events(
    values: ArrayLike | xr.DataArray,
    threshold: float | ArrayLike | xr.DataArray,
    *,
    site: ArrayLike | None = None,
    time: ArrayLike | None = None,
    step: float = 1,
    min_duration: int = 1,
    pool: int = 0,
    bridge: int = 0,
    progressbar: bool = True,
) -> Events:
    """Find the events of every site, in one series each or in many trajectories.

    Parameters
    ----------
    values : array (obs) or (sample, obs)
        Observations, or trajectories such as `bayesens.geo.trajectory.trajectories` draws; independent draws of each day would
        break long events apart. NaN, and steps without a row, are missing.
    threshold : float, array (obs), or DataArray with a dimension ``site``
        Of all rows, of each row, or the table of `thresholds`. NaN makes the row missing.
    site, time : array (obs), optional
        Labels, and datetimes or numbers in any order, where ``values`` has no such coordinates.
    step : float
        Time between rows: days, or units of numeric times.
    min_duration, pool, bridge : int
        In steps, as in `runs`: the steps that an event needs, and how many steps at or above the threshold, and how many
        missing ones, may stand between two runs of one event. By default a missing day ends an event.
    progressbar : bool
        Show one while at work on many sites.

    Returns
    -------
    Events

    Raises
    ------
    UnknownName
        A site without thresholds.
    ValueError
        Times that are not on the grid of steps, repeated site-days, shapes that do not fit.

    Examples
    --------
    >>> days = np.arange("2021-07-01", "2021-07-06", dtype="datetime64[D]")
    >>> found = find_events([0.3, 0.1, 0.15, 0.3, 0.1], 0.2, site="y1", time=days)
    >>> found.table[["onset", "duration", "severity", "open_end"]]
           onset  duration  severity  open_end
    0 2021-07-02       2.0      0.15     False
    1 2021-07-05       1.0      0.10      True
    """
    if not step > 0:
        raise ValueError(f"step is the time between rows, above 0 (days, or units of numeric times); got {step!r}")
    series = site_series(values, site, time)
    y = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if y.ndim != 2:
        raise ValueError(f"values have shape {y.shape}; wanted (obs) or (sample, obs)")
    limit = limits_of_rows(threshold, series)
    parts = []
    with progress(len(series.sites), "Events", progressbar and y.size > 10_000_000) as advance:
        for s, site_name in enumerate(series.sites):
            rows = series.rows(s)
            place = _places(series, rows, step, str(site_name))
            deficit = np.full((len(y), place[-1] + 1), np.nan)
            deficit[:, place] = limit[rows] - y[:, rows]
            found = runs(deficit, min_duration=min_duration, pool=pool, bridge=bridge)
            when = np.empty(place[-1] + 1, dtype=series.time.dtype)
            when[place] = series.time[rows]  # an event begins and ends on a row, never on a missing step
            found["onset"], found["end"] = (when[found[name].to_numpy()] for name in ("onset", "end"))
            parts.append(found.assign(site=str(site_name)))
            advance()
    table = pd.concat(parts, ignore_index=True).rename(columns={"trajectory": "sample"})[list(COLUMNS)]
    table[["duration", "severity"]] = table[["duration", "severity"]].astype(np.float64) * step
    return Events(table, tuple(series.sites.tolist()), len(y))


def _places(series: SiteSeries, rows: NDArray[np.intp], step: float, site: str) -> NDArray[np.intp]:
    """Steps of a site's rows since its first one."""
    exact = (series.elapsed()[rows] - series.elapsed()[rows[0]]) / step
    place = np.rint(exact).astype(np.intp)
    off = np.abs(exact - place) > 1e-6
    unit = "days" if series.dated else "units of time"
    if off.any():
        raise ValueError(f"site {site!r}: {int(off.sum())} of {len(rows)} rows (first: {series.time[rows][off][0]}) are not "
                         f"whole steps of {step:g} {unit} after its first; give step=..., or round the times")  # fmt: skip
    if place[-1] > SPARSEST * (len(rows) + 10):
        raise ValueError(f"site {site!r} has {len(rows)} rows in {place[-1] + 1} steps of {step:g} {unit}: nearly all are "
                         "missing; give the step between rows, step=...")  # fmt: skip
    return place


def area_below(
    draws: ArrayLike | xr.DataArray,
    threshold: float | ArrayLike | xr.DataArray,
    *,
    site: ArrayLike | None = None,
    time: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    quantiles: Sequence[float] = QUANTILES,
) -> xr.Dataset:
    """Share of the sites, or of the area that they stand for, that is below the threshold, through time.

    Parameters
    ----------
    draws : array (sample, obs)
        *Joint* draws: where a sample's sites are independent of each other although the truth is not, the interval is too
        narrow; the mean is right either way.
    threshold : float, array (obs), or DataArray with a dimension ``site``
        As in `find_events`.
    site, time : array (obs), optional
        Labels and times, where ``draws`` has no such coordinates.
    weight : array (obs), optional
        Area of each row's site; equal if not given.
    quantiles : sequence of float
        Levels inside (0, 1).

    Returns
    -------
    Dataset (time, quantile)
        ``mean (time)``, ``fraction (time, quantile)`` and ``sites (time)``, the number with a value; NaN at times without.

    Raises
    ------
    ValueError
        Shapes that do not fit, negative weights, repeated site-days.

    Examples
    --------
    >>> found = area_below([[1.0, 1.0], [1.0, 3.0]], 2.0, site=["a", "b"], time=[7, 7], weight=[1.0, 3.0])
    >>> found["mean"].item(), found["fraction"].sel(quantile=0.5).item()
    (0.625, 0.625)
    """
    y = np.asarray(draws, dtype=np.float64)
    if y.ndim != 2:
        raise ValueError(f"draws have shape {y.shape}; wanted (sample, obs)")
    series = site_series(draws, site, time)
    area = np.ones(y.shape[1]) if weight is None else np.asarray(weight, dtype=np.float64)
    if area.shape != y.shape[1:] or not np.all(area >= 0.0):
        raise ValueError(
            f"weight has shape {area.shape} for {y.shape[1]} rows; wanted areas (obs), none negative or missing"
        )
    deficit = limits_of_rows(threshold, series) - y
    order = np.argsort(series.time, kind="stable")
    when, first = np.unique(series.time[order], return_index=True)
    known = ~np.isnan(deficit)[:, order]
    total = np.add.reduceat(known * area[order], first, axis=1)
    below = np.add.reduceat((deficit[:, order] > 0.0) * area[order], first, axis=1)
    share = np.divide(below, total, out=np.full_like(total, np.nan), where=total > 0.0)
    return xr.Dataset(
        {
            "mean": ("time", share.mean(axis=0)),
            "fraction": (("time", "quantile"), np.quantile(share, quantiles, axis=0).T),
            "sites": ("time", np.add.reduceat(known.any(axis=0).astype(np.int64), first)),
        },
        {"time": when, "quantile": np.asarray(quantiles, dtype=np.float64)},
    )
