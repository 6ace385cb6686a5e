"""Members that are exactly redundant: constants, affine copies, linear combinations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bayesens.ensemble.ensemble import Ensemble

__all__ = ["ROUNDING", "affine_copies", "constant", "dependent_columns", "rounding"]

# Copies and linear combinations are exact: what is left is the rounding of a few operations.
EXACT = 1e-10
# Far from zero it is more, because numbers have their digits from the first one on: so many last bits of the largest value.
ROUNDING = 64.0 * float(np.finfo(float).eps)
FIRST = 1000


def rounding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a few operations on the values of each column may leave by rounding, (column).

    Examples
    --------
    >>> bool(rounding(np.array([[1e8], [3.0]]))[0] < 1e-7)
    True
    """
    largest = np.fmax.reduce(np.abs(values), axis=0, initial=0.0)
    return np.asarray(2.0 * float(np.finfo(float).eps) * largest)


def constant(values: NDArray[np.float64]) -> bool:
    """Whether all values present are the same, but for rounding."""
    present = values[~np.isnan(values)]
    return present.size > 0 and float(np.ptp(present)) <= ROUNDING * float(np.abs(present).max())


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre and scale columns without missing values; a constant one becomes zeros."""
    flat = np.array([constant(column) for column in values.T])
    centred = values - values[0]  # exact, where the mean of values far from zero is not
    centred = np.where(flat, 0.0, centred - centred.mean(axis=0))
    return centred / np.where(flat, 1.0, centred.std(axis=0))


def affine_copies(ensemble: Ensemble, values: NDArray[np.float64] | None = None) -> list[tuple[str, str]]:
    """Name the pairs of members of which one is exactly ``a + b`` times the other.

    Rows where both exist are compared, on the scale of `values` (obs, member) where it is given; fewer than three rows, or
    a constant member, say nothing.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayesens.ensemble.ensemble import Ensemble
    >>> frame = pd.DataFrame({"celsius": [1.0, 5.0, 3.0], "fahrenheit": [33.8, 41.0, 37.4], "other": [2.0, 4.0, 4.0]})
    >>> affine_copies(Ensemble.from_frame(frame, members=list(frame)))
    [('celsius', 'fahrenheit')]
    """
    values = ensemble.prediction if values is None else values
    # What is no copy in the first rows need not be compared in all.
    pairs = zip(*np.nonzero(np.triu(_alike(values[:FIRST], 1e4 * EXACT), 1)), strict=True)
    return [(ensemble.members[i], ensemble.members[j]) for i, j in pairs if _affine(values[:, [i, j]], EXACT)]


def _alike(values: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Pairs of columns that `_affine` may call copies, by their correlations where both exist, (column, column)."""
    there = np.isfinite(values)
    first = np.array([column[use][0] if use.any() else 0.0 for column, use in zip(values.T, there.T, strict=True)])
    x, a = np.where(there, values - first, 0.0), there.astype(float)  # exact differences, as in `_standardised`
    n = np.maximum(a.T @ a, 1.0)
    mean = x.T @ a / n  # of the row's column, in rows that have the other one too
    variance = (x**2).T @ a / n - mean**2
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = (x.T @ x / n - mean * mean.T) / np.sqrt(variance * variance.T)
        noise = rounding(values)[:, None] / np.sqrt(variance)
        distance = np.sqrt(2.0 * (1.0 - np.abs(correlation)) - 1e-9)  # root mean square of the standardised difference
        apart = distance > tolerance * np.sqrt(n) + noise + noise.T
    return np.asarray(~(apart & (n >= 3.0)))


def _affine(pair: NDArray[np.float64], tolerance: float) -> bool:
    """Whether one column is an affine function of the other; too few rows, or a constant column, do not make it one."""
    common = pair[~np.isnan(pair).any(axis=1)]
    if len(common) < 3:
        return False
    one, two = _standardised(common).T
    if not (one.any() and two.any()):
        return False
    noise = float(np.sum(rounding(common) / common.std(axis=0)))
    return bool(np.abs(one - np.sign(one @ two) * two).max() <= tolerance * np.abs(one).max() + noise)


def dependent_columns(triangle: NDArray[np.float64], noise: float, n_rows: int) -> NDArray[np.bool_]:
    """Which columns take part in an exact linear combination, from the triangle of their QR and the noise of rounding."""
    _, strength, directions = np.linalg.svd(triangle)
    null = directions[strength <= EXACT * max(strength[0], 1.0) + noise * np.sqrt(n_rows)]
    return np.asarray(np.linalg.norm(null, axis=0) > 1e-6 + 10.0 * noise)
