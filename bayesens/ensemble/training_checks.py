"""What the checks of a training table need of its rows: counts and extremes, which merge from chunk to chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesens.ensemble.collinear import constant
from bayesens.messages import listed

__all__ = ["Facts", "check_training"]

ROUNDING = 16.0 * float(np.finfo(float).eps)  # of a number: what a few operations on it may change


@dataclass(frozen=True, eq=False)
class Facts:
    """Counts and extremes of rows, in the units of the data.

    Attributes
    ----------
    n_obs, n_observed, n_usable, n_empty : int
        Rows; those with an observation; those with an observation and a member; those without any member.
    low, high : array (column)
        Extremes of the observation and of each member over the observed rows; inf and -inf where there is no value.
    differs : bool array (member)
        Whether some observed row has a prediction that is not the observation.
    n_zero : int
        Observations that are exactly zero.
    """

    n_obs: int
    n_observed: int
    n_usable: int
    n_empty: int
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    differs: NDArray[np.bool_]
    n_zero: int

    @classmethod
    def of_rows(cls, prediction: NDArray[np.float64], observation: NDArray[np.float64]) -> Facts:
        """Gather the facts of predictions (obs, member) and observations (obs), NaN where missing.

        Examples
        --------
        >>> facts = Facts.of_rows(np.array([[1.0], [2.0], [np.nan]]), np.array([1.0, np.nan, 3.0]))
        >>> facts.n_observed, facts.n_usable, facts.n_empty, facts.high.tolist(), facts.differs.tolist()
        (2, 1, 1, [3.0, 1.0], [False])
        """
        observed = ~np.isnan(observation)
        whole = bool(observed.all())
        truth, predicted = (observation, prediction) if whole else (observation[observed], prediction[observed])
        has_member = ~np.isnan(prediction).all(axis=1)
        columns = [truth, *predicted.T]
        return cls(
            len(observation), len(truth), int((has_member & observed).sum()), int((~has_member).sum()),
            np.array([np.fmin.reduce(column, initial=np.inf) for column in columns]),
            np.array([np.fmax.reduce(column, initial=-np.inf) for column in columns]),
            np.array([_differs(column, truth) for column in predicted.T]),
            int((truth == 0.0).sum()),
        )  # fmt: skip

    def merge(self, *others: Facts) -> Facts:
        """Return the facts of the rows of all."""
        parts = (self, *others)
        return Facts(
            sum(part.n_obs for part in parts), sum(part.n_observed for part in parts),
            sum(part.n_usable for part in parts), sum(part.n_empty for part in parts),
            np.stack([part.low for part in parts]).min(axis=0), np.stack([part.high for part in parts]).max(axis=0),
            np.stack([part.differs for part in parts]).any(axis=0),
            sum(part.n_zero for part in parts),
        )  # fmt: skip


def _differs(column: NDArray[np.float64], truth: NDArray[np.float64]) -> bool:
    """Whether any value is not the observation; most often one of the first hundred tells."""
    return any(not _copied(column[part], truth[part]).all() for part in (slice(0, 100), slice(100, None)))


def _copied(column: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which values are the observation, but for the last bits; missing ones may be.

    A copy that went through a file of single precision is still the observation, and it is exactly the nearest number of
    that precision. A tolerance of that size would take errors of a few units for copies where values are about 1e8.
    """
    near = ~(np.abs(column - truth) > ROUNDING * np.abs(truth))
    with np.errstate(over="ignore"):
        return near | (column == truth.astype(np.float32)) | (truth == column.astype(np.float32))


def check_training(facts: Facts, members: Sequence[str], name: str, n_parameters: int) -> None:
    """Refuse what a table of predictions may have and a training table may not.

    `name` is the observation's column; `n_parameters` are the free ones of the model.

    Examples
    --------
    >>> facts = Facts.of_rows(np.array([[1.0], [2.0]]), np.array([1.1, 1.8]))
    >>> check_training(facts, ["rf"], "sm", n_parameters=3)
    Traceback (most recent call last):
    ...
    ValueError: 2 of 2 rows have an observation ('sm') and at least one member, but the model has 3 parameters; ...
    """
    if facts.n_observed == 0:
        raise ValueError(
            f"observation column {name!r} is missing in all {facts.n_obs} rows; wanted some observed rows to learn from: "
            "check the column, or the join that made it"
        )
    rows = f"the {facts.n_observed} observed rows (of {facts.n_obs})"
    present = facts.low[1:] <= facts.high[1:]
    _refuse(members, ~present, f"missing in all of {rows}; wanted predictions there: leave it out")
    if facts.n_usable < n_parameters:
        raise ValueError(
            f"{facts.n_usable} of {facts.n_obs} rows have an observation ({name!r}) and at least one member, but the "
            f"model has {n_parameters} parameters; wanted at least as many rows: add rows, or drop members or effects"
        )
    flat = np.array([constant(np.array(pair)) for pair in zip(facts.low, facts.high, strict=True)])
    if flat[0]:
        raise ValueError(
            f"observation column {name!r} is constant ({facts.low[0]:g}) in {rows}; wanted values that vary: check the "
            "column, or add rows"
        )
    _refuse(members, flat[1:], f"constant in {rows}; wanted values that vary: leave it out")
    _refuse(
        members,
        ~facts.differs,
        f"equal to the observation {name!r} in all of {rows} where both exist: the truth has leaked into it; leave it "
        "out, or predict each row by a model that has not seen it (scikit-learn's cross_val_predict)",
    )


def _refuse(members: Sequence[str], bad: NDArray[np.bool_], why: str) -> None:
    names = [name for name, wrong in zip(members, bad, strict=True) if wrong]
    if names:
        verb = "member {} is" if len(names) == 1 else "members {} are"
        raise ValueError(f"{verb.format(listed(names))} {why}")
