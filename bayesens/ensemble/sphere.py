"""Points on the Earth taken as a sphere, and the distances between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["EARTH_RADIUS", "arc", "check_places", "great_circle", "on_sphere"]

Array = NDArray[np.float64]
EARTH_RADIUS = 6371.0088  # km, mean


def on_sphere(lon: ArrayLike, lat: ArrayLike) -> Array:
    """Points on the unit sphere.

    Degrees (...) to unit vectors (..., 3).

    Examples
    --------
    >>> on_sphere(90.0, 0.0).round(12).tolist()
    [0.0, 1.0, 0.0]
    """
    lam, phi = np.radians(np.asarray(lon, dtype=np.float64)), np.radians(np.asarray(lat, dtype=np.float64))
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def great_circle(lon: ArrayLike, lat: ArrayLike, other_lon: ArrayLike, other_lat: ArrayLike) -> Array:
    """Distance along the sphere; of degrees that broadcast, in kilometres.

    Examples
    --------
    A quarter of the way round:

    >>> great_circle(0.0, 0.0, 0.0, 90.0).round(2).tolist()
    10007.56
    """
    return arc(np.linalg.norm(on_sphere(lon, lat) - on_sphere(other_lon, other_lat), axis=-1))


def arc(chord: ArrayLike) -> Array:
    """Distance along the sphere [km] of points so far apart on a straight line, on the unit sphere."""
    return np.asarray(2.0 * EARTH_RADIUS * np.arcsin(np.minimum(0.5 * np.asarray(chord), 1.0)))


def check_places(lon: ArrayLike, lat: ArrayLike, size: int) -> tuple[Array, Array]:
    """Return the coordinates of stations as numbers, refusing what is no place.

    Examples
    --------
    >>> check_places([10.0], [95.0], 1)
    Traceback (most recent call last):
    ...
    ValueError: lat is 95.0 at station 0 (counted from 0); wanted degrees from -90 to 90
    """
    out = []
    for name, values, low, high in (("lon", lon, -360.0, 360.0), ("lat", lat, -90.0, 90.0)):
        degrees = np.asarray(values, dtype=np.float64)
        if degrees.shape != (size,):
            raise ValueError(f"{name} has shape {degrees.shape} for {size} stations; give one number a station")
        odd = np.flatnonzero(~((degrees >= low) & (degrees <= high)))
        if odd.size:
            raise ValueError(
                f"{name} is {degrees[odd[0]]} at station {odd[0]} (counted from 0); wanted degrees from {low:g} to {high:g}"
            )
        out.append(degrees)
    return out[0], out[1]
