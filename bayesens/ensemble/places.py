"""Where sites and the cells of a map lie, on the sphere or in a plane, and how far each is from the nearest other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble.sphere import arc, on_sphere
from bayesens.messages import listed

__all__ = ["LON_LAT", "Places", "RowPlaces", "check_degrees", "row_places", "site_places"]

Array = NDArray[np.float64]
LON_LAT = ("lon", "lat")
SAME_PLACE = 1e-4  # of degrees (about 10 m), or of the extent of all sites in a plane: what rounding does to one place


@dataclass(frozen=True, eq=False)
class Places:
    """Places of sites or cells.

    Attributes
    ----------
    names : (str, str)
        ``("lon", "lat")``, degrees on the sphere; any others are lengths in a plane.
    values : numpy.ndarray (place, 2)
    """

    names: tuple[str, str]
    values: Array

    def __len__(self) -> int:
        return len(self.values)

    @property
    def on_sphere(self) -> bool:
        """Whether the places are degrees."""
        return self.names == LON_LAT

    @property
    def units(self) -> str:
        """Of distances."""
        return "km" if self.on_sphere else f"units of {self.names[0]} and {self.names[1]}"

    @cached_property
    def points(self) -> Array:
        """Unit vectors (place, 3), or the plane as it is (place, 2): straight lines between them order distances."""
        return on_sphere(*self.values.T) if self.on_sphere else np.ascontiguousarray(self.values)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of names and values."""
        return sha256(f"{self.names}".encode() + np.ascontiguousarray(self.values).tobytes()).hexdigest()

    def at(self, which: ArrayLike) -> Places:
        """Some of the places, by mask or positions."""
        return Places(self.names, self.values[np.asarray(which)])

    def to_nearest(self, other: Places) -> Array:
        """Distance of each place to the nearest of others, along the sphere [km] or in the plane."""
        return self._lengths(_tree(other.points).query(self.points)[0])

    def nearest_of(self, other: Places) -> NDArray[np.int64]:
        """Position of the place that is nearest to each of others."""
        return np.asarray(_tree(self.points).query(other.points)[1], dtype=np.int64)

    def to_nearest_other(self) -> Array:
        """Distance of each place to the nearest of the rest of them."""
        return self._lengths(_tree(self.points).query(self.points, k=2)[0][:, 1])

    def to_nearest_of_other_folds(self, fold: NDArray[np.int64]) -> Array:
        """Distance of each place to the nearest one that is in another fold."""
        out = np.empty(len(self))
        for k in np.unique(fold):
            held = fold == k
            out[held] = _tree(self.points[~held]).query(self.points[held])[0]
        return self._lengths(out)

    def _lengths(self, straight: Array) -> Array:
        return arc(straight) if self.on_sphere else straight


@dataclass(frozen=True, eq=False)
class RowPlaces:
    """Coordinates of the rows of a table: two names and two columns (obs)."""

    names: tuple[str, str]
    columns: tuple[Array, Array]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of names and columns."""
        return Places(self.names, np.column_stack(self.columns)).digest

    def take(self, rows: ArrayLike) -> RowPlaces:
        """Those of some rows, by mask or positions."""
        first, second = (column[np.asarray(rows)] for column in self.columns)
        return RowPlaces(self.names, (first, second))


def row_places(
    given: Mapping[str, ArrayLike] | pd.DataFrame | RowPlaces | None,
    n_rows: int,
    *,
    lon: ArrayLike | None = None,
    lat: ArrayLike | None = None,
    covariates: Mapping[str, ArrayLike] | None = None,
) -> RowPlaces | None:
    """Return the coordinates of the rows of a table.

    Parameters
    ----------
    given : mapping of name to array_like (obs), optional
        Two columns, such as ``{"x": frame["x"], "y": frame["y"]}``; ``lon`` and ``lat`` are degrees, all others lengths in
        a plane. None: `lon` and `lat` where the table has both, else covariates called ``x`` and ``y``, else nothing.
    n_rows : int
    lon, lat : array_like (obs), optional
    covariates : mapping of name to array_like (obs), optional

    Raises
    ------
    ValueError
        Not two columns, columns of another length.

    Examples
    --------
    >>> row_places(None, 2, covariates={"x": [0.0, 3.0], "y": [0.0, 4.0], "dem": [1.0, 2.0]}).names
    ('x', 'y')
    """
    if isinstance(given, RowPlaces):
        return given
    if given is None:
        known = covariates or {}
        if lon is not None and lat is not None:
            given = {"lon": lon, "lat": lat}
        elif "x" in known and "y" in known:
            given = {"x": known["x"], "y": known["y"]}
        else:
            return None
    names = [str(name) for name in given]
    if len(names) != 2:
        raise ValueError(f"places has {len(names)} columns ({listed(names)}); wanted two: {{'x': ..., 'y': ...}}")
    if set(names) == set(LON_LAT):
        names = list(LON_LAT)
    columns = [np.asarray(given[name], dtype=np.float64) for name in names]
    if any(column.shape != (n_rows,) for column in columns):
        shapes = listed([column.shape for column in columns])
        raise ValueError(f"places has columns of the shapes {shapes}; wanted one number for each of the {n_rows} rows")
    return RowPlaces((names[0], names[1]), (columns[0], columns[1]))


def site_places(
    rows: RowPlaces, site: NDArray[np.str_], *, why: str = "folds by distance need"
) -> tuple[NDArray[np.str_], Places]:
    """Return the sites, sorted, and the one place of each.

    A site may lack its place in some rows, not in all. ``why`` is said where one has none.

    Raises
    ------
    ValueError
        Sites without a place, sites that move, degrees that are none.

    Examples
    --------
    >>> rows = RowPlaces(("lon", "lat"), (np.array([1.0, np.nan, 2.0]), np.array([50.0, 50.0, 51.0])))
    >>> names, places = site_places(rows, np.array(["b", "b", "a"]))
    >>> names.tolist(), places.values.tolist()
    (['a', 'b'], [[2.0, 51.0], [1.0, 50.0]])
    """
    first, second = rows.names
    table = pd.DataFrame({"site": site, first: rows.columns[0], second: rows.columns[1]})
    table = table.replace([np.inf, -np.inf], np.nan)
    by_site = table.groupby("site", sort=True)
    place = by_site.median()
    lacking = place.index[place.isna().any(axis=1)].tolist()
    if lacking:
        raise ValueError(
            f"{len(lacking)} of {len(place)} sites have no {first} or {second} in any row: {listed(lacking)}; {why} "
            "the place of every site: complete the columns, or leave these sites out"
        )
    if rows.names == LON_LAT:
        check_degrees(place[first].to_numpy(), place[second].to_numpy(), "the table")
    spread = by_site.max() - by_site.min()
    extent = 1.0 if rows.names == LON_LAT else float(np.ptp(place.to_numpy(), axis=0).max())
    moved = spread.index[(spread > SAME_PLACE * extent).any(axis=1)].tolist()
    if moved:
        rows_of = table[table["site"] == moved[0]]
        name = max((first, second), key=lambda column: float(np.ptp(rows_of[column].dropna())))
        seen = sorted(set(rows_of[name].dropna()))
        raise ValueError(
            f"{len(moved)} of {len(place)} sites move: {listed(moved)} ({name} of {moved[0]!r} is {listed(seen, 3)}); {why} "
            "one place a site: give each place a site of its own, or hold out times instead"
        )
    return place.index.to_numpy(dtype=np.str_), Places(rows.names, place.to_numpy(dtype=np.float64))


def check_degrees(lon: Array, lat: Array, whose: str) -> None:
    """Refuse what is no longitude and latitude, and say what it looks like.

    Examples
    --------
    >>> check_degrees(np.array([-35.0]), np.array([146.0]), "the map")
    Traceback (most recent call last):
    ...
    ValueError: lat of the map is 146.0; wanted degrees from -90 to 90: lon and lat look swapped
    """
    for name, values, low, high in (("lat", lat, -90.0, 90.0), ("lon", lon, -360.0, 360.0)):
        odd = values[(values < low) | (values > high)]
        if odd.size:
            swapped = name == "lat" and np.abs(lon).max() <= 90.0 and np.abs(lat).max() <= 360.0
            hint = (
                "lon and lat look swapped"
                if swapped
                else "these look like lengths of a projection: call them x and y, for sites and map alike"
            )
            raise ValueError(f"{name} of {whose} is {float(odd[0])!r}; wanted degrees from {low:g} to {high:g}: {hint}")


def _tree(points: Array) -> Any:
    from scipy.spatial import cKDTree

    return cKDTree(points)
