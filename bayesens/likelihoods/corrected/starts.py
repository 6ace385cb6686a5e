"""Where the search for optima of a mixture begins: with one kernel wider than the others, each in turn.

Some rows are far from all members, and a mixture explains them by one wide kernel. Each member's kernel may be that one: there is
an optimum for each, and they differ by ten and more in log density. Starts at random find the highest one seldom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["WIDER", "wide_kernels"]

WIDER = 2.0  # than the others
SPREAD_UNITS = 2.0  # the same where a sigma is in units of a spread that is learned
_LOGARITHMS = ("sigma", "sigma_free", "sigma_exchangeable", "sigma_free_exchangeable")
_IN_UNITS = ("sigma_unit", "sigma_unit_exchangeable")


def wide_kernels(start: Mapping[str, Sequence[float]]) -> list[dict[str, Sequence[float]]]:
    """Points that differ from the start by one kernel, which is twice as wide.

    Parameters
    ----------
    start : mapping of str to sequence of float
        Unconstrained values of the free variables, which are logarithms of sigmas.

    Returns
    -------
    list of dict
        One for each sigma of its own; none where all kernels share one.

    Examples
    --------
    >>> [np.round(point["sigma"], 2).tolist() for point in wide_kernels({"sigma": [0.0, 0.0], "nu": [1.0]})]
    [[0.69, 0.0], [0.0, 0.69]]
    """
    steps = dict.fromkeys(_LOGARITHMS, float(np.log(WIDER))) | dict.fromkeys(_IN_UNITS, SPREAD_UNITS)
    return [
        {**start, name: np.add(start[name], step * unit).tolist()}
        for name, step in steps.items() if name in start for unit in np.eye(len(start[name]))
    ]  # fmt: skip
