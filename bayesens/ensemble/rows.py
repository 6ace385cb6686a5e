"""The numbers that a model takes from an ensemble: rows on the model's scale, with integer codes for their levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.transforms import transform

__all__ = [
    "Rows",
    "alike",
    "check_enough",
    "check_level",
    "codes",
    "effect_variance",
    "flat",
    "level_rows",
    "prediction_rows",
    "training_rows",
]


@dataclass(frozen=True)
class Rows:
    """Rows of an ensemble as arrays.

    Attributes
    ----------
    y : array (row)
        Observations on the model's scale; NaN where there is none.
    f : array (row, member)
        Member predictions on the model's scale; 0 where missing, so that arithmetic stays finite.
    available : bool array (row, member)
    index : int array (row)
        Position of each row in the ensemble.
    """

    y: np.ndarray
    f: np.ndarray
    available: np.ndarray
    index: np.ndarray

    @property
    def z(self) -> np.ndarray:
        """Observation and members side by side, (row, 1 + member), NaN where missing."""
        return np.column_stack([self.y, np.where(self.available, self.f, np.nan)])


def training_rows(ensemble: Ensemble, name: str, *, need_member: bool) -> Rows:
    """Rows with an observation, and with a member where the model needs one, on the scale of the named transform."""
    keep = ensemble.observed & (ensemble.available.any(axis=1) if need_member else True)
    rows = _rows(ensemble, name, np.nonzero(keep)[0], ensemble.observation)
    check_enough(len(rows.y), ensemble.n_obs, need_member=need_member)
    return rows


def check_enough(n_used: int, n_obs: int, *, need_member: bool) -> None:
    """Refuse fewer than two training rows."""
    if n_used < 2:
        raise ValueError(
            f"Only {n_used} of {n_obs} rows have an observation{' and a member' if need_member else ''}; "
            "a fit needs at least two. Check the observation and member columns."
        )


def prediction_rows(ensemble: Ensemble, name: str) -> Rows:
    """All rows of an ensemble on the scale of the named transform, without their observations."""
    return _rows(ensemble, name, np.arange(ensemble.n_obs), observation=None)


def _rows(ensemble: Ensemble, name: str, index: np.ndarray, observation: np.ndarray | None) -> Rows:
    g = transform(name)
    for j, member in enumerate(ensemble.members):
        g.check(ensemble.prediction[:, j], column=member)
    if observation is not None:
        g.check(observation, column=ensemble.columns["observation"])
    some = index if len(index) < ensemble.n_obs else slice(None)
    y = observation[some] if observation is not None else np.full(len(index), np.nan)
    f = ensemble.prediction[some]
    available = np.isfinite(f)
    if available.all():
        return Rows(g.forward(y), g.forward(f), available, index)
    return Rows(g.forward(y), np.where(available, g.forward(np.where(available, f, 1.0)), 0.0), available, index)


def level_rows(ensemble: Ensemble, level: str, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels and codes of the training rows.

    Returns
    -------
    levels : str array (level)
        Sorted.
    code : int array (row)
    """
    labels = ensemble.labels(level)
    used = np.zeros(0, dtype=np.str_) if labels is None else labels[index]
    check_level(level, given=labels is not None, blank=int(np.sum(used == "")), n=len(used))
    levels, code = np.unique(used, return_inverse=True)
    return levels, code.ravel()


def check_level(level: str, *, given: bool, blank: int, n: int) -> None:
    """Refuse a level without a column, and training rows without a label."""
    if not given:
        raise ValueError(
            f"The model has {level} effects but the ensemble has no {level} column; "
            f"name one with Ensemble.from_frame(..., {level}=...) or set {level}=False."
        )
    if blank > 0:
        raise ValueError(
            f"{blank} of {n} training rows have no {level} label, and the model has {level} effects; "
            f"label these rows, drop them, or set {level}=False."
        )


def effect_variance(code: Mapping[str, np.ndarray], level: str, sd: float) -> np.ndarray:
    """Return what the rows of each level leave open of its effect, about, for its coordinates.

    `code` has all levels that a model has effects of, `sd` is that of the residuals. Returned is the variance of a mean
    over the rows of each level; of a group whose sites have effects of their own, over its sites.

    Examples
    --------
    >>> code = {"group": np.array([0, 0, 0, 1]), "site": np.array([0, 0, 1, 2])}
    >>> effect_variance(code, "site", 2.0).tolist(), effect_variance(code, "group", 2.0).tolist()
    ([2.0, 4.0, 4.0], [2.0, 4.0])
    """
    own = code[level]
    if level == "group" and "site" in code:
        own = np.unique(np.column_stack([own, code["site"]]), axis=0)[:, 0]
    return np.asarray(sd**2 / np.bincount(own))


def codes(labels: np.ndarray | None, levels: Sequence[str] | np.ndarray, n: int) -> np.ndarray:
    """Position of each label among the levels of a fit; -1 for a label that the fit has not seen.

    Examples
    --------
    >>> codes(np.array(["b", "", "z"]), ["a", "b"], 3).tolist()
    [1, -1, -1]
    """
    if labels is None:
        return np.full(n, -1)
    position = {str(level): i for i, level in enumerate(levels)}
    unique, inverse = np.unique(labels, return_inverse=True)
    return np.array([position.get(str(label), -1) for label in unique], dtype=int)[inverse.ravel()]


def alike(values: np.ndarray) -> np.ndarray:
    """Numbers of rows, (row), the same where all their values (row, column) are; they rise with the first column from 0 to 1.

    Examples
    --------
    >>> alike(np.array([[1.0, 2.0], [0.0, 5.0], [1.0, 2.0]])).tolist()
    [1, 0, 1]
    """
    values = np.ascontiguousarray(values, dtype=float)
    if not values.size:
        return np.zeros(len(values), dtype=int)
    whole = values.view(f"V{values.shape[1] * values.itemsize}").ravel()  # a row is compared as one string of bytes
    return np.asarray(np.unique(whole, return_inverse=True)[1])


def flat(variable: xr.DataArray) -> np.ndarray:
    """Draws of one variable with chains and draws in one leading dimension."""
    values = variable.transpose("chain", "draw", ...).values
    return values.reshape(-1, *values.shape[2:])
