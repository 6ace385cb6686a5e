"""Isotonic distributional regression: distributions that move up with a number, and of which nothing else is assumed.

Of all families of distributions F_x that are stochastically increasing in x, the one whose mean CRPS over the training rows
is least. For every threshold t its F_x(t) is the isotonic regression, decreasing in x, of whether the observations are at most
t: the exact solution by the pool-adjacent-violators algorithm, one threshold at a time.

References
----------
Henzi, Ziegel and Gneiting (2021), J. R. Stat. Soc. B 83, 963-993.
"""

from __future__ import annotations

import numpy as np
import scipy

__all__ = ["grouped", "isotonic_cdf"]


def isotonic_cdf(x: np.ndarray, y: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distributions of y at values of x.

    Parameters
    ----------
    x, y : array (row)
    most : int
        Values of x, and thresholds, at the most: rows of neighbouring ranks stand together where there are more.

    Returns
    -------
    knot : array (knot)
        Values of x, increasing.
    threshold : array (threshold)
        Values of y, increasing.
    cdf : array (knot, threshold)

    Examples
    --------
    >>> isotonic_cdf(np.array([1.0, 2.0, 3.0]), np.array([5.0, 4.0, 6.0]), 9)[2].tolist()
    [[0.5, 1.0, 1.0], [0.5, 1.0, 1.0], [0.0, 0.0, 1.0]]
    """
    (knot, at), (threshold, level) = grouped(x, most), grouped(y, most)
    count = np.zeros((len(knot), len(threshold)))
    np.add.at(count, (at, level), 1.0)
    rows = count.sum(axis=1)
    share = count.cumsum(axis=1) / rows[:, None]
    cdf = np.ones_like(share)
    for j in range(len(threshold) - 1):
        cdf[:, j] = scipy.optimize.isotonic_regression(share[:, j], weights=rows, increasing=False).x
    return knot, threshold, np.maximum.accumulate(np.minimum(cdf, 1.0), axis=1)


def grouped(values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values with the number of each row's; where there are more than ``most``, means of groups of equal size.

    Examples
    --------
    >>> grouped(np.array([3.0, 1.0, 3.0]), 9)
    (array([1., 3.]), array([1, 0, 1]))
    >>> grouped(np.array([1.0, 2.0, 3.0, 7.0]), 2)
    (array([1.5, 5. ]), array([0, 0, 1, 1]))
    """
    distinct, at, count = np.unique(values, return_inverse=True, return_counts=True)
    if len(distinct) <= most:
        return distinct, at.ravel()
    before = np.cumsum(count) - count
    number = np.unique(before * most // len(values), return_inverse=True)[1].ravel()
    total = np.bincount(number, count)
    return np.bincount(number, count * distinct) / total, number[at.ravel()]
