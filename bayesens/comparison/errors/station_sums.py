"""Covariances of columns from sums by station: in total, within and between stations, for any weights of the stations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["PARTS", "StationSums", "standardised"]

Array = NDArray[np.float64]
PARTS = ("total", "within", "between")
ROUNDING = 1e-12  # share of a sum of squares below which what is left of it is rounding
MIN_STATIONS = 3  # station means of two stations always correlate by 1 or -1


@dataclass(frozen=True)
class StationSums:
    """Sums over the rows of a station that have both columns of a pair, each (station, column, column).

    Attributes
    ----------
    count, product : array
        Rows that have both, and their sum of products.
    first, square : array
        Sum, and sum of squares, of the first column of the pair; those of the second are the transpose.
    """

    count: Array
    first: Array
    square: Array
    product: Array

    @classmethod
    def of(cls, values: Array, station: NDArray[np.intp]) -> Self:
        """Sum a table (row, column), NaN where missing; the mean of each column is taken away first, for the sake of rounding.

        Stations are numbered from 0 without gaps.

        Examples
        --------
        >>> sums = StationSums.of(np.array([[1.0, 2.0], [2.0, np.nan], [4.0, 1.0]]), np.array([0, 0, 1]))
        >>> sums.count[:, 0, 1].tolist(), sums.count[:, 0, 0].tolist()
        ([1.0, 1.0], [2.0, 1.0])
        """
        known = np.isfinite(values)
        rows = known.sum(axis=0)
        mean = np.where(known, values, 0.0).sum(axis=0) / np.maximum(rows, 1)
        x = np.where(known, values - mean, 0.0)
        flat = np.ptp(np.where(known, values, mean), axis=0) <= ROUNDING * np.abs(mean)
        x[:, flat] = 0.0  # a constant column has no digit of its own left
        order = np.argsort(station, kind="stable")
        ends = np.cumsum(np.bincount(station))
        shape = (len(ends), values.shape[1], values.shape[1])
        out = [np.empty(shape) for _ in range(4)]
        for s, rows_of in enumerate(np.split(order, ends[:-1])):
            a, m = x[rows_of], known[rows_of].astype(np.float64)
            out[0][s], out[1][s], out[2][s], out[3][s] = m.T @ m, a.T @ m, (a * a).T @ m, a.T @ a
        return cls(*out)

    def covariance(self, part: str, weight: Array) -> tuple[Array, Array]:
        """Pairwise complete covariances of one part, and the variance of the first column over the rows of each pair.

        Total: of all rows; within: of rows about the mean of their station; between: of stations' means, each counted once. Both
        are (replicate, column, column), divided by the number of rows (of stations). A variance is NaN where nothing varies, or
        fewer than three stations have means. The weight (station, replicate) says how often each station counts.
        """
        if part == "total":
            n, mean, square, product = (
                _weighted(each, weight) for each in (self.count, self.first, self.square, self.product)
            )
            return _moments(n, mean, square, product, 1)
        some = self.count > 0
        n = np.where(some, self.count, 1.0)
        other = np.swapaxes(self.first, 1, 2)
        if part == "within":
            about, spread = self.product - self.first * other / n, self.square - self.first**2 / n
            spread = np.where(spread > ROUNDING * self.square, spread, 0.0)
            rows, about, spread = (_weighted(each, weight) for each in (self.count, about, spread))
            rows = np.where(rows > 0, rows, np.nan)
            return about / rows, np.where(spread > 0, spread / rows, np.nan)
        one, two = np.where(some, self.first / n, 0.0), np.where(some, other / n, 0.0)
        tables = (some.astype(np.float64), one, one**2, one * two)
        n, one, square, product = (_weighted(each, weight) for each in tables)
        return _moments(n, one, square, product, MIN_STATIONS)


def _weighted(values: Array, weight: Array) -> Array:
    """Sum over stations for every replicate (replicate, column, column), as one matrix product."""
    return (weight.T @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:])


def _moments(n: Array, first: Array, square: Array, product: Array, least: int) -> tuple[Array, Array]:
    n = np.where(n >= least, n, np.nan)
    variance = square - first**2 / n
    variance = np.where(variance > ROUNDING * square, variance / n, np.nan)
    return product / n - first * np.swapaxes(first, 1, 2) / n**2, variance


def standardised(covariance: Array, variance: Array) -> Array:
    """Correlations (..., column, column) of pairwise covariances and variances.

    Examples
    --------
    >>> standardised(np.array([[4.0, 3.0], [3.0, 9.0]]), np.array([[4.0, 4.0], [9.0, 9.0]])).tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    r = covariance / np.sqrt(variance * np.swapaxes(variance, -1, -2))
    return np.clip(r, -1.0, 1.0)
