"""What all that computes shares: a constant of the normal density, and what numpy does at overflow and division by zero."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

import numpy as np

__all__ = ["LOG_2PI", "plain_arithmetic"]

LOG_2PI = math.log(2.0 * math.pi)


def plain_arithmetic[**P, T](function: Callable[P, T]) -> Callable[P, T]:
    """Have a function compute under numpy's own settings of floating-point errors, as it was written for.

    A density far out in a tail underflows to zero, as it should: where a caller has set ``np.seterr(all="raise")``, this would
    end the computation.

    Parameters
    ----------
    function : callable

    Returns
    -------
    callable
        The settings of the caller stand again after each call.

    Examples
    --------
    >>> with np.errstate(all="raise"):
    ...     float(plain_arithmetic(np.exp)(-1000.0))
    0.0
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        with np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"):
            return function(*args, **kwargs)

    return called
