"""Places of new rows and cells beside those of the stations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesens.ensemble.places import LON_LAT, Places, RowPlaces, check_degrees, site_places
from bayesens.likelihoods.day.table import DayTable
from bayesens.messages import listed, warn

__all__ = ["new_places", "tell_far"]

FAR = 10.0  # extents of the stations: not a map of their region, rather kilometres beside metres


def new_places(
    table: DayTable, columns: Sequence[NDArray[np.float64]], site: NDArray[np.str_], labelled: NDArray[np.bool_]
) -> RowPlaces | None:
    """Return the places of rows of a new table; each has one, that of a station is the station's.

    Parameters
    ----------
    table : DayTable
        Of the stations.
    columns : sequence of array (row)
        Coordinates, two or none.
    site : str array (row)
    labelled : bool array (row)
        Whether the table says whose the row is.
    """
    if table.places is None:
        return None
    names, known = table.places.names, table.places.values
    lacking = ~np.isfinite(np.column_stack(columns)).all(axis=1) & ~np.isin(site, table.site)
    if lacking.any():
        raise ValueError(
            f"{int(lacking.sum())} of {len(site)} rows of X have no {' or '.join(names)} (first: row "
            f"{listed(np.flatnonzero(lacking)[:3].tolist())}; counted from 0); neighbours need the place of every row: complete "
            "the columns, or leave these rows out"
        )
    if names == LON_LAT:
        check_degrees(columns[0], columns[1], "X")
    else:
        tell_far(table.places, columns, "X")
    both = RowPlaces(names, (np.append(columns[0], known[:, 0]), np.append(columns[1], known[:, 1])))
    site_places(both, np.append(site, table.site), why="neighbours need")  # one place a site, those of stations too
    _tell_same_place(table.places, columns, ~labelled)
    return RowPlaces(names, (columns[0], columns[1]))


def tell_far(stations: Places, columns: Any, whose: str) -> None:
    """Say where all of some places lie so far from the stations that their lengths look like others; in a plane."""
    low, high = stations.values.min(axis=0), stations.values.max(axis=0)
    extent = float((high - low).max())
    values = [column[np.isfinite(column)] for column in columns]
    if extent == 0.0 or not all(one.size for one in values):
        return
    gap = [max(one.min() - top, end - one.max(), 0.0) for one, end, top in zip(values, low, high, strict=True)]
    if max(gap) > FAR * extent:
        k = int(np.argmax(gap))
        warn(f"{stations.names[k]} of {whose} goes from {values[k].min():g} to {values[k].max():g}, and that of the stations "
             f"from {low[k]:g} to {high[k]:g}: so far from all of them the mean of each day is all that neighbours tell; check "
             "the unit and the projection of both")  # fmt: skip


def _tell_same_place(stations: Places, columns: Any, rows: NDArray[np.bool_]) -> None:
    """Say which rows without a label lie where stations do."""
    where = {tuple(one) for one in stations.values.tolist()}
    same = [k for k in np.flatnonzero(rows).tolist() if (columns[0][k], columns[1][k]) in where]
    if same:
        warn(f"{len(same)} row(s) of X lie at the very place of a station (first: row {listed(same[:3])}; counted from 0), and "
             "are told of its observations, as a second instrument there would be; give site=... to leave a row's own station "
             "out")  # fmt: skip
