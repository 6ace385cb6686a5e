"""Rows of sites and times as series: one a site, in order of time, without repeated site-days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.tables.columns import labels, times

__all__ = ["SiteSeries", "site_series"]

Array = NDArray[np.float64]
DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class SiteSeries:
    """Rows sorted into series.

    Attributes
    ----------
    sites : array (site), unicode
        Names, sorted.
    site, time : array (obs)
        Of every row, in the order of the rows.
    order : int array (obs)
        Rows by site, then by time.
    start : int array (site + 1)
        Where a site's rows begin in ``order``; the last entry is the number of rows.
    """

    sites: NDArray[np.str_]
    site: NDArray[np.str_]
    time: NDArray[Any]
    order: NDArray[np.intp]
    start: NDArray[np.intp]

    @property
    def dated(self) -> bool:
        """Whether times are datetimes; they are numbers otherwise."""
        return self.time.dtype.kind == "M"

    @property
    def code(self) -> NDArray[np.intp]:
        """Number of every row's site."""
        return np.searchsorted(self.sites, self.site)

    @property
    def coords(self) -> dict[str, Any]:
        """Coordinates of the rows for a DataArray with the dimension ``obs``."""
        return {"site": ("obs", self.site), "time": ("obs", self.time), "obs": np.arange(len(self.site))}

    def elapsed(self) -> Array:
        """Time since the first row of all, (obs): days where dated, otherwise in units of the times."""
        since = self.time - self.time.min()
        return since / DAY if self.dated else since.astype(np.float64)

    def rows(self, site: int) -> NDArray[np.intp]:
        """Rows of one site by its number, in order of time."""
        return self.order[self.start[site] : self.start[site + 1]]


def site_series(values: Any, site: ArrayLike | None, time: ArrayLike | None) -> SiteSeries:
    """Sort rows into series by site and time.

    A DataArray may bring coordinates ``site`` and ``time`` on ``obs``, which stand where the next two are None; one text is
    the site of all rows. Times are datetimes or numbers, in any order.

    Examples
    --------
    >>> series = site_series(np.array([5.0, 6.0, 7.0]), ["b", "a", "b"], [2, 1, 1])
    >>> series.sites.tolist(), series.order.tolist(), series.start.tolist()
    (['a', 'b'], [1, 2, 0], [0, 1, 3])
    """
    n = int(np.shape(values)[-1])
    if n == 0:
        raise ValueError("got zero rows; wanted at least one")
    names = labels(pd.Series(_column(values, "site", site, n), name="site"))
    when = times(pd.Series(_column(values, "time", time, n), name="time"))
    for label, missing in (("site", names == ""), ("time", pd.isna(when))):
        if missing.any():
            raise ValueError(f"{int(missing.sum())} of {n} rows have no {label}; drop them, they belong to no series")
    order = np.lexsort((when, names))
    same = (names[order][1:] == names[order][:-1]) & (when[order][1:] == when[order][:-1])
    if same.any():
        first = order[1:][same][0]
        raise ValueError(
            f"{int(same.sum())} of {n} rows repeat the site and time of another (first: site {str(names[first])!r}, time "
            f"{when[first]}); wanted one row a site-day: average them or drop the copies"
        )
    sites, start = np.unique(names[order], return_index=True)
    return SiteSeries(sites, names, when, order, np.append(start, n))


def _column(values: Any, name: str, given: ArrayLike | None, n: int) -> NDArray[Any]:
    """Values of a column, from what was given or from the coordinates of the rows."""
    if given is None:
        if not (isinstance(values, xr.DataArray) and name in values.coords):
            raise ValueError(
                f"the {n} rows have no {name}; pass {name}=..., or a DataArray with that coordinate on obs"
            )
        given = values[name]
    column = np.full(n, given) if isinstance(given, str) else np.asarray(given)
    if column.shape != (n,):
        raise ValueError(f"{name} has shape {column.shape} for {n} rows; wanted one entry a row{_hint(values)}")
    return column


def _hint(values: Any) -> str:
    """Draws laid out the wrong way round are the likeliest reason."""
    return f" (the rows are the last axis of values of shape {np.shape(values)})" if np.ndim(values) > 1 else ""
