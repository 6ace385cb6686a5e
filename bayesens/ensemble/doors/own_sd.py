"""Members that bring a standard deviation of their own with every row, such as kriging: which columns these are, and checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.messages import check_known, listed

__all__ = ["SPREAD", "check_own_sds", "own_columns_of", "own_sds", "scaled_with_members"]

# The attribute of an ensemble's dataset that says which covariate is the standard deviation of which member: JSON.
SPREAD = "bayesens_spread"
SHOWN = 5


def own_sds(spread: object, members: Sequence[str]) -> dict[str, str]:
    """Return the column of each member that has one, in the order of the members, checked.

    Examples
    --------
    >>> own_sds({"krig": "krig_sd"}, ["rf", "krig"])
    {'krig': 'krig_sd'}
    """
    if spread is None:
        return {}
    if not isinstance(spread, Mapping) or not all(isinstance(name, str) for name in (*spread, *spread.values())):
        raise TypeError(
            f"spread is {spread!r}; wanted a mapping of member to the column of its standard deviation: "
            "spread={'krig': 'krig_sd'}"
        )
    check_known(spread, members, kind="member", where=f"the members of spread, which are {listed(members, limit=20)}")
    if len({*spread.values()}) < len(spread):
        raise ValueError(
            f"spread gives one column to two members: {dict(spread)}; wanted a column of each: copy it under another name"
        )
    return {name: spread[name] for name in members if name in spread}


def own_columns_of(dataset: Any) -> dict[str, str]:
    """Read back which column belongs to which member of a dataset; members that were left out have none.

    Examples
    --------
    >>> made = xr.Dataset(coords={"member": ["rf", "krig"]}, attrs={SPREAD: '{"krig": "krig_sd"}'})
    >>> own_columns_of(made), own_columns_of(made.isel(member=[0]))
    ({'krig': 'krig_sd'}, {})
    """
    if not isinstance(dataset, xr.Dataset) or "member" not in dataset.coords:
        return {}
    members = set(np.atleast_1d(dataset["member"].values).tolist())
    kept: dict[str, str] = json.loads(dataset.attrs.get(SPREAD, "{}"))
    return {name: column for name, column in kept.items() if name in members}


def scaled_with_members(
    own: Mapping[str, str], columns: Mapping[str, NDArray[np.float64]], scale: Mapping[str, float] | None
) -> None:
    """Convert standard deviations with their members, in place: by their scale, and by no offset.

    Examples
    --------
    >>> sd = np.array([5.0, 10.0])
    >>> scaled_with_members({"krig": "krig_sd"}, {"krig_sd": sd}, {"krig": -0.01})
    >>> sd.tolist()
    [0.05, 0.1]
    """
    for member, column in own.items():
        if member in (scale or {}):
            columns[column][:] *= abs(float((scale or {})[member]))


def check_own_sds(
    own: Mapping[str, str],
    predicted: Mapping[str, NDArray[np.float64]],
    columns: Mapping[str, NDArray[np.float64]],
) -> None:
    """Refuse standard deviations below zero, and members that have a value where their standard deviation is missing.

    Examples
    --------
    >>> f, sd = np.array([1.0, 2.0, np.nan]), np.array([0.1, np.nan, np.nan])
    >>> check_own_sds({"krig": "krig_sd"}, {"krig": f}, {"krig_sd": sd})
    Traceback (most recent call last):
    ...
    ValueError: column 'krig_sd', the standard deviation of member 'krig', is missing in 1 of 3 rows (row 1, counted ...
    """
    for member, column in own.items():
        sd, what = columns[column], f"column {column!r}, the standard deviation of member {member!r},"
        if (below := sd < 0.0).any():
            raise ValueError(
                f"{what} is below zero in {_rows(below)}, the least is {sd[below].min():g}; wanted zero or more: correct it, "
                f"name codes that stand for missing values (missing={{{column!r}: ...}}), or leave {member!r} out of spread"
            )
        if (lacks := np.isnan(sd) & ~np.isnan(predicted[member])).any():
            raise ValueError(
                f"{what} is missing in {_rows(lacks)} in which {member!r} has a value; wanted both or none: set the member "
                f"to missing there, complete the column, or leave {member!r} out of spread"
            )


def _rows(where: NDArray[np.bool_]) -> str:
    found = np.flatnonzero(where)
    shown = ", ".join(map(str, found[:SHOWN])) + (", ..." if len(found) > SHOWN else "")
    return f"{len(found)} of {len(where)} rows (row {shown}, counted from 0)"
