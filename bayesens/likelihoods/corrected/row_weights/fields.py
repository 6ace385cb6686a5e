"""A smooth field over two coordinates as a sum of few waves: eigenfunctions of the Laplacian on a box, zero at its edge.

A Gaussian process with a squared exponential correlation of length l is about the sum of these waves with independent normal
coefficients, whose variances are its spectral density at their frequencies (Solin and Sarkka 2020, Statistics and Computing 30,
419-446). The box is that of the training rows and its wider half-width more on every side; lengths are in units of this
half-width. Thirty waves have the correlations of lengths between .4 and 1.2 to .04; longer ones vary less than they are asked to.
Longitudes count by the cosine of the mean latitude.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesens.likelihoods.corrected.widths import Widths

__all__ = ["columns", "names_of", "wave_numbers", "weight_columns"]

WAVES = 30  # the longest ones
MARGIN = 1.0


def _box(places: Widths) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Middle and unit of the standardised coordinates, half-widths of the box, and the waves' numbers (wave, coordinate)."""
    scale = places.size * np.array([np.cos(np.deg2rad(places.center[1])) if places.names[0] == "lon" else 1.0, 1.0])
    half = 0.5 * (places.high - places.low) * scale
    wide = half / half.max() + MARGIN
    both = np.array([(i, j) for i in range(1, WAVES + 1) for j in range(1, WAVES + 1)])
    order = np.argsort(np.square(both / wide).sum(axis=1), kind="stable")
    return 0.5 * (places.low + places.high), scale / half.max(), wide, both[order[:WAVES]]


def wave_numbers(places: Widths) -> np.ndarray:
    """Squared angular frequencies of the waves, (wave), in units of the half-width."""
    _, _, wide, number = _box(places)
    return np.asarray(np.square(0.5 * np.pi * number / wide).sum(axis=1))


def names_of(places: Widths) -> tuple[str, ...]:
    """Names of the waves: how many halves of a wave the box has along each coordinate."""
    return tuple(f"{i} by {j}" for i, j in _box(places)[3])


def columns(places: Widths, z: np.ndarray) -> np.ndarray:
    """The waves at standardised coordinates (row, coordinate), (row, wave).

    Examples
    --------
    Coefficients with the variances of the spectral density have about the correlation that is asked for.

    >>> two = np.ones(2)
    >>> places = Widths(("x", "y"), np.nan * two, 0.0 * two, two, -two, two)
    >>> length, at = 0.8, columns(places, np.array([[0.0, 0.0], [0.4, 0.0]]))
    >>> variance = 2.0 * np.pi * length**2 * np.exp(-0.5 * length**2 * wave_numbers(places))
    >>> np.round((at * variance) @ at.T, 2).tolist()
    [[1.0, 0.88], [0.88, 1.0]]
    """
    middle, unit, wide, number = _box(places)
    phase = 0.5 * np.pi * ((z - middle) * unit / wide + 1.0)
    return np.asarray(np.prod(np.sin(phase[:, None] * number) / np.sqrt(wide), axis=2))


def weight_columns(tilts: Widths, field: bool, seen: tuple[Any, ...]) -> np.ndarray:
    """What weights of rows follow: covariates, or waves at the rows' places; rows as `Widths.at` takes them."""
    z = tilts.at(*seen)
    return columns(tilts, z) if field else z
