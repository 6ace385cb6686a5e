"""The coordinate reference system of a map: found, asked for, and told in the words of CF and of GeoZarr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from bayesens.geo.stores.axes import Axes
from bayesens.messages import warn

if TYPE_CHECKING:
    from pyproj import CRS

__all__ = ["GRID_MAPPING", "crs_of", "geozarr_attributes", "grid_mapping_attributes"]

GRID_MAPPING = "spatial_ref"  # what rioxarray and GDAL call the variable
UNKNOWN = "unknown"
WKT = ("crs_wkt", "spatial_ref")
# Registered at https://github.com/zarr-conventions; a convention is known by its uuid.
PROJ = {
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/geo-proj/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/geo-proj/blob/v1/README.md",
    "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "name": "proj:",
    "description": "Coordinate reference system information for geospatial data",
}
SPATIAL = {
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/spatial/blob/v1/README.md",
    "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    "name": "spatial:",
    "description": "Spatial coordinate information",
}


def crs_of(maps: xr.Dataset, crs: Any, axes: Axes) -> CRS | None:
    """Make out the reference system of a map.

    Parameters
    ----------
    maps : Dataset
        May have a grid mapping: a variable without dimensions whose attributes say the system, as CF has it.
    crs : anything that pyproj takes, or None
        ``"EPSG:4326"``, 28355, well-known text, a ``pyproj.CRS``; ``"unknown"`` where nobody knows. None: that of the maps.
    axes : Axes

    Returns
    -------
    CRS or None
        None where it is not known; a warning says so, unless ``"unknown"`` was asked for.

    Raises
    ------
    ImportError
        If pyproj is not there.
    ValueError
        If pyproj does not know the system, or if the coordinates of the maps are in another unit than its axes.
    """
    if isinstance(crs, str) and crs.lower() == UNKNOWN:
        return None
    said = crs if crs is not None else _said(maps)
    if said is None:
        warn('The maps say no coordinate reference system and crs= was not given: it is written as unknown. Say which, such as '
             'crs="EPSG:4326" for longitudes and latitudes of WGS 84, or crs="unknown".')  # fmt: skip
        return None
    found = _read(said)
    _check_units(maps, axes, found)
    return found


def _said(maps: xr.Dataset) -> Any:
    """What the grid mapping of a map says, or None."""
    for one in maps.variables.values():
        if one.ndim:
            continue
        if text := next((one.attrs[key] for key in WKT if one.attrs.get(key)), None):
            return text
        if "grid_mapping_name" in one.attrs:
            return dict(one.attrs)
    return maps.attrs.get("proj:wkt2") or maps.attrs.get("proj:code") or maps.attrs.get("crs")


def _read(said: Any) -> CRS:
    try:
        from pyproj import CRS
        from pyproj.exceptions import CRSError
    except ImportError as error:
        raise ImportError("A coordinate reference system needs pyproj: pip install 'bayesens[geo]'; or write the maps with "
                          'crs="unknown".') from error  # fmt: skip
    try:
        return CRS.from_cf(said) if isinstance(said, dict) else CRS.from_user_input(said)
    except (CRSError, KeyError) as error:
        raise ValueError(f"crs is {said!r}, which pyproj does not know ({str(error).splitlines()[0]}); wanted such as "
                         '"EPSG:4326", 28355 or well-known text.') from error  # fmt: skip


def _check_units(maps: xr.Dataset, axes: Axes, crs: CRS) -> None:
    """Refuse coordinates in kilometres beside axes in metres: every program would put the map elsewhere."""
    wanted = {one["axis"]: str(one["units"]) for one in crs.cs_to_cf() if one.get("axis") in ("X", "Y")}
    for axis, dim in (("Y", axes.y), ("X", axes.x)):
        units = str(maps[dim].attrs.get("units", "")) if dim in maps.coords else ""
        if units and axis in wanted and not _same_unit(units, wanted[axis]):
            raise ValueError(f"The coordinate {dim!r} is in {units!r} and the axes of {crs.name} are in {wanted[axis]!r}; "
                             f"convert {dim!r} to {wanted[axis]!r}, or name the system that it belongs to by crs=.")  # fmt: skip


def _same_unit(one: str, other: str) -> bool:
    short = {"meter": "metre", "meters": "metre", "metres": "metre", "m": "metre"}
    plain = [short.get(unit.lower(), unit.lower()).split("_")[0].removesuffix("s") for unit in (one, other)]
    return plain[0] == plain[1]


def grid_mapping_attributes(crs: CRS | None, axes: Axes) -> dict[str, Any]:
    """Attributes of the grid mapping variable: CF's, and those by which GDAL and rioxarray know a map.

    Examples
    --------
    >>> import numpy as np
    >>> axes = Axes("lat", "lon", np.array([2.0, 1.0]), np.array([10.0, 10.5]), ())
    >>> grid_mapping_attributes(None, axes)
    {'long_name': 'coordinate reference system: unknown', 'GeoTransform': '9.75 0.5 0.0 2.5 0.0 -1.0'}
    """
    attrs: dict[str, Any] = {"long_name": f"coordinate reference system: {UNKNOWN if crs is None else crs.name}"}
    if crs is not None:
        attrs |= {key: value for key, value in crs.to_cf().items() if value is not None}
        attrs["spatial_ref"] = attrs["crs_wkt"]
    if (transform := axes.transform) is not None:
        a, b, c, d, e, f = transform
        attrs["GeoTransform"] = " ".join(repr(one) for one in (c, a, b, f, d, e))  # in GDAL's order
    return attrs


def geozarr_attributes(crs: CRS | None, axes: Axes, sizes: dict[str, int]) -> dict[str, Any]:
    """Attributes of a Zarr group in the conventions ``proj:`` and ``spatial:``.

    Examples
    --------
    >>> import numpy as np
    >>> axes = Axes("lat", "lon", np.array([2.0, 1.0]), np.array([10.0, 10.5]), ())
    >>> attrs = geozarr_attributes(None, axes, {"lat": 2, "lon": 2})
    >>> attrs["spatial:transform"], attrs["spatial:bbox"]
    ([0.5, 0.0, 9.75, 0.0, -1.0, 2.5], [9.75, 0.5, 10.75, 2.5])
    """
    attrs: dict[str, Any] = {"zarr_conventions": []}
    if crs is not None:
        attrs["zarr_conventions"].append(PROJ)
        if (authority := crs.to_authority()) is not None:
            attrs["proj:code"] = ":".join(authority)
        attrs["proj:wkt2"] = crs.to_wkt("WKT2_2019")
    if (transform := axes.transform) is not None:
        rows, columns = sizes[axes.y], sizes[axes.x]
        a, _, left, _, e, top = transform
        right, bottom = left + a * columns, top + e * rows
        attrs["zarr_conventions"].append(SPATIAL)
        attrs |= {
            "spatial:dimensions": [axes.y, axes.x],
            "spatial:transform_type": "affine",
            "spatial:transform": list(transform),
            "spatial:bbox": [min(left, right), min(bottom, top), max(left, right), max(bottom, top)],
            "spatial:shape": [rows, columns],
            "spatial:registration": "pixel",
        }
    return attrs if attrs["zarr_conventions"] else {}
