"""Monotone transforms: the scale on which the models are linear and normal.

One transform ``g`` applies to the observations and to every member alike; predictions are turned back exactly by
:mod:`bayesens.distributions.mixtures`, never by transforming a mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["TRANSFORMS", "Transform", "transform"]

Array = NDArray[np.float64]
SHOWN_ROWS = 5


@dataclass(frozen=True)
class Transform:
    """An increasing function of the observations, its inverse and its Jacobian.

    Attributes
    ----------
    name : str
        Name in :data:`TRANSFORMS`.
    forward : callable
        ``z = g(y)``, elementwise.
    inverse : callable
        ``y = g^-1(z)``, elementwise; below the range of ``g`` it gives the least ``y``.
    log_jacobian : callable
        ``log |dg/dy|`` at ``y``, elementwise: the log density of ``y`` is that of ``g(y)`` plus this.
    lower : float
        Least ``y`` of the domain.
    has_lower : bool
        Whether ``lower`` itself may be transformed.

    Examples
    --------
    >>> sqrt = transform("sqrt")
    >>> sqrt.forward(np.array([0.0, 4.0, 9.0]))
    array([0., 2., 3.])
    >>> sqrt.inverse(np.array([-1.0, 2.0, 3.0]))
    array([0., 4., 9.])
    """

    name: str
    forward: Callable[[Any], Any]
    inverse: Callable[[Any], Any]
    log_jacobian: Callable[[Any], Any]
    lower: float = -math.inf
    has_lower: bool = False

    def check(self, values: ArrayLike, *, column: str) -> None:
        """Refuse values outside the domain; missing values pass.

        `values` are those of one column, in natural units; its name is for the message.

        Examples
        --------
        >>> transform("sqrt").check([0.0, 4.0, float("nan")], column="flow")
        >>> transform("log").check([3.0, 0.0, 2.0], column="flow")
        Traceback (most recent call last):
        ...
        ValueError: Column 'flow' has 1 of 3 values not above 0, which transform='log' cannot take: row 1 (counted
        from 0). Use transform='sqrt', which takes zeros, or set them to missing.
        """
        y = np.asarray(values, dtype=np.float64)
        outside = y < self.lower if self.has_lower else y <= self.lower
        rows = np.unique(np.nonzero(outside)[0]) if y.ndim else np.flatnonzero(outside)
        if math.isinf(self.lower) or rows.size == 0:
            return
        what = "below" if self.has_lower else "not above"
        shown = ", ".join(map(str, rows[:SHOWN_ROWS])) + (", ..." if rows.size > SHOWN_ROWS else "")
        if np.any(y < 0):
            move = "Set them to missing if they are errors, or use transform='identity'"
        else:
            move = "Use transform='sqrt', which takes zeros, or set them to missing"
        raise ValueError(
            f"Column {column!r} has {int(np.count_nonzero(outside))} of {y.size} values {what} {self.lower:g}, which "
            f"transform={self.name!r} cannot take: row{'s' * (rows.size > 1)} {shown} (counted from 0). {move}."
        )


def _identity(y: Any) -> Any:
    return y


def _zero(y: Any) -> Any:
    return np.zeros_like(y, dtype=np.float64)


def _square_of_positive(z: Any) -> Any:
    return np.maximum(z, 0.0) ** 2


TRANSFORMS: dict[str, Transform] = {
    t.name: t
    for t in (
        Transform("identity", _identity, _identity, _zero),
        Transform("sqrt", np.sqrt, _square_of_positive, lambda y: -math.log(2.0) - 0.5 * np.log(y), 0.0, True),
        Transform("log", np.log, np.exp, lambda y: -np.log(y), 0.0),
    )
}


def transform(name: str) -> Transform:
    """Return the transform of that name.

    Examples
    --------
    >>> transform("log").name
    'log'
    """
    if name not in TRANSFORMS:
        raise ValueError(f"Unknown transform {name!r}; use one of {', '.join(map(repr, TRANSFORMS))}.")
    return TRANSFORMS[name]
