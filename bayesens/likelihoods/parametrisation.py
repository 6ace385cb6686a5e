"""Coordinates in which what the data fix stands apart from what they leave open.

A correlation R = r 1 1' + (1 - r) R0 has one number more than the data can tell: with many rows R is sharp, and r and R0
lie on a long, thin and curved ridge along which samplers take tiny steps. The ridge is straight in the coordinates of R
and of the share u = r / r_max that r has of the largest factor that R allows, r_max = 1 / (1' R^-1 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.transforms import CholeskyCorrTransform
from pymc.logprob.transforms import Transform

__all__ = ["CholeskyCorr", "EffectCoordinates", "FactorCoordinates"]


class CholeskyCorr(CholeskyCorrTransform):
    """PyMC's transform of the Cholesky factor of a correlation, in the same order, by a few operations.

    PyMC pads and fills triangles by graphs of their own, which takes half a second to build for a hierarchy of three.
    Row i of the factor is (x_i, 1) / s_i with s_i^2 = 1 + x_i' x_i.
    """

    def _rows(self, x: Any) -> tuple[Any, Any]:
        """Rows (x_i, 1), and their squared lengths."""
        rows = pt.concatenate([x, np.array([0.0, 1.0])])[_places(self.n)]
        return rows, (rows**2).sum(axis=1)

    def backward(self, unconstrained_vector: Any, *inputs: Any) -> Any:
        """Cholesky factor (row, column) of parameters (pair)."""
        rows, square = self._rows(unconstrained_vector)
        return rows / pt.sqrt(square)[:, None]

    def forward(self, chol_corr_matrix: Any, *inputs: Any) -> Any:
        """Parameters (pair) of a Cholesky factor (row, column)."""
        rows = chol_corr_matrix / pt.diagonal(chol_corr_matrix)[:, None]
        return rows.ravel()[np.argsort(_places(self.n), axis=None)[: self.n * (self.n - 1) // 2]]

    def log_jac_det(self, unconstrained_vector: Any, *inputs: Any) -> Any:
        """Log determinant of the derivative of the factor's elements below the diagonal."""
        return -0.5 * pt.sum(np.arange(2, 2 + self.n) * pt.log(self._rows(unconstrained_vector)[1]))


@cache
def _places(n: int) -> np.ndarray:
    """Where the elements of the rows stand among the parameters, in PyMC's order, a zero and a one."""
    size = n * (n - 1) // 2
    order = np.concatenate([np.arange(size)[n - 1 :], np.arange(size)[::-1]]).reshape(n - 1, n - 1)
    place = np.full((n, n), size)
    place[1:, :-1] = np.where(np.tri(n - 1, dtype=bool), order, size)
    place[np.diag_indices(n)] = size + 1
    return place


class EffectCoordinates(Transform):
    """Normal effects in units of the standard deviation that they have given their own one and the data, about.

    Effects as they are (centred) have a density without bound where their standard deviation goes to zero, and samplers fall
    into that spike or get stuck above it; effects in units of it (not centred) mix badly where the data tell each of them
    well. With ``variance`` that the data alone would leave open, 1 / (1 / sd^2 + 1 / variance) is what prior and data leave:
    its root is sd where the data say little and constant where they say much, which is either of the two in its place.

    Parameters
    ----------
    variance : array (level, ...)
        What the rows of a level leave open of its effect, about; it broadcasts to the effects. The model is the same for
        any.

    References
    ----------
    Papaspiliopoulos, Roberts and Skold (2007), Statistical Science 22, 59-73.
    """

    name = "effect"

    def __init__(self, variance: np.ndarray) -> None:
        self.variance = np.asarray(variance, dtype=np.float64)

    def _size(self, value: Any, inputs: Any) -> Any:
        sd = inputs[3]  # of a Normal: generator, size, mean, sd
        return pt.broadcast_to(sd / pt.sqrt(1.0 + sd**2 / self.variance), value.shape)

    def backward(self, value: Any, *inputs: Any) -> Any:
        """Effects of their coordinates."""
        return value * self._size(value, inputs)

    def forward(self, value: Any, *inputs: Any) -> Any:
        """Coordinates of effects."""
        return value / self._size(value, inputs)

    def log_jac_det(self, value: Any, *inputs: Any) -> Any:
        """Logarithm of the derivative, element by element."""
        return pt.log(self._size(value, inputs))


@dataclass(frozen=True)
class FactorCoordinates:
    """Coordinates of R and u for a factor r and the Cholesky factor of R0, each with its transform and their inputs.

    Attributes
    ----------
    common, rest : pymc.logprob.transforms.Transform
        Transforms of r and of the Cholesky factor of R0.
    common_inputs, rest_inputs : sequence of tensor
        Parameters of the two variables, which a transform may need.
    """

    common: Any
    rest: Any
    common_inputs: Sequence[Any]
    rest_inputs: Sequence[Any]

    def forward(self, common: Any, rest: Any) -> tuple[Any, Any]:
        """Coordinates of the transformed values of r and R0."""
        r, root = self.common.backward(common, *self.common_inputs), self.rest.backward(rest, *self.rest_inputs)
        whole = pt.linalg.cholesky(r + (1.0 - r) * _square(root))
        u = r / _largest_factor(whole)
        return pt.log(u) - pt.log1p(-u), self.rest.forward(whole, *self.rest_inputs)

    def backward(self, share: Any, whole: Any) -> tuple[Any, Any, Any]:
        """Transformed values of r and R0, and the log determinant of their Jacobian."""
        root = self.rest.backward(whole, *self.rest_inputs)
        u, largest = pt.sigmoid(share), _largest_factor(root)
        r = u * largest
        root0 = pt.linalg.cholesky((_square(root) - r) / (1.0 - r))
        common = self.common.forward(r, *self.common_inputs)
        rest = self.rest.forward(root0, *self.rest_inputs)
        n = root.shape[0]
        jacobian = (
            self._to_correlation(whole, root) - self._to_correlation(rest, root0) - n * (n - 1) / 2 * pt.log1p(-r)
            + pt.log(largest) + pt.log(u) + pt.log1p(-u) - self.common.log_jac_det(common, *self.common_inputs)
        )  # fmt: skip
        return common, rest, jacobian

    def _to_correlation(self, value: Any, root: Any) -> Any:
        """Log determinant of the Jacobian from a transformed Cholesky factor to the correlations."""
        n = root.shape[0]
        return self.rest.log_jac_det(value, *self.rest_inputs) + pt.sum(pt.arange(n)[::-1] * pt.log(pt.diagonal(root)))


def _square(root: Any) -> Any:
    return (root[:, None, :] * root[None, :, :]).sum(axis=2)


def _largest_factor(root: Any) -> Any:
    """Largest r for which R - r 1 1' has no negative eigenvalue, from the Cholesky factor of R."""
    ones = pt.ones(root.shape[0])
    return 1.0 / pt.sum(pt.linalg.solve_triangular(root, ones, lower=True) ** 2)
