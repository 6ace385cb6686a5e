"""Steps before and after an estimator: gaps filled in, columns scaled, and the scale of the target put back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Filled", "Line", "Scaled", "Target"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Filled:
    """`SimpleImputer`: missing numbers become those of their columns; some columns get one more that says where they were.

    Attributes
    ----------
    value : numpy.ndarray (column)
    told : numpy.ndarray (told column), int
        Columns whose gaps are told.
    """

    value: Array
    told: NDArray[np.int64]

    def predict(self, x: Array) -> Array:
        """Rows (row, column) without gaps (row, column + told column)."""
        missing = np.isnan(x)
        out = np.empty((len(x), x.shape[1] + len(self.told)))
        out[:, : x.shape[1]] = np.where(missing, self.value, x) if missing.any() else x
        out[:, x.shape[1] :] = missing[:, self.told]
        return out


@dataclass(frozen=True, eq=False)
class Scaled:
    """`StandardScaler`.

    Attributes
    ----------
    center, scale : numpy.ndarray (column)
    """

    center: Array
    scale: Array

    def predict(self, x: Array) -> Array:
        """Rows (row, column), each column about its centre and in its scale."""
        out = x - self.center
        out /= self.scale
        return out


@dataclass(frozen=True, eq=False)
class Target:
    """The target as it was, before a `StandardScaler`."""

    center: float
    scale: float

    def predict(self, y: Array) -> Array:
        """Predictions (row) in the units of the target."""
        return y * self.scale + self.center


@dataclass(frozen=True, eq=False)
class Line:
    """A linear model.

    Attributes
    ----------
    slope : numpy.ndarray (column)
    intercept : float
    """

    slope: Array
    intercept: float

    def predict(self, x: Array) -> Array:
        """Predict rows (row, column)."""
        # Row by row, in the same order wherever a row stands: products of matrices depend on what is beside it.
        return np.einsum("ij,j->i", x, self.slope) + self.intercept
