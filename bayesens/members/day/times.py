"""Times of rows and grids among those of the stations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens.messages import warn
from bayesens.tables.columns import times

__all__ = ["day_of", "tell_strange_times", "written"]


def day_of(known: NDArray[Any], given: Any) -> NDArray[np.int64]:
    """Position of times among those that are known, -1 where they are not; whatever their resolution.

    Numbers such as 20210730 are dates where dates are known, as they are in a table.

    Examples
    --------
    >>> known = np.array(["2021-07-30", "2021-08-01"], dtype="datetime64[ns]")
    >>> day_of(known, np.array([20210801, 20210731])).tolist()
    [1, -1]
    """
    flat = np.asarray(given).ravel()
    if flat.dtype.kind in "iuf" and known.dtype.kind == "M":
        flat = times(pd.Series(flat, name="time"))
    return np.asarray(pd.Index(known).get_indexer(pd.Index(flat)), dtype=np.int64)


def tell_strange_times(known: NDArray[Any], given: Any, whose: str) -> None:
    """Say where none of some times is one of the stations'."""
    flat = np.asarray(given).ravel()
    flat = flat[~pd.isna(flat)]
    if not flat.size or (day_of(known, flat) >= 0).any():
        return
    ours, theirs = (f"{written(some.min())} to {written(some.max())}" for some in (known, flat))
    warn(f"no station has an observation at any of the times of {whose}, {theirs} (those of the stations: {ours}): neighbours "
         "are missing there; where clock, time zone or kind of number differ, bring both to the same "
         "(in pandas: frame['time'].dt.floor('D'))")  # fmt: skip


def written(time: Any) -> str:
    """A time for a message."""
    return str(pd.Timestamp(time)) if isinstance(time, np.datetime64) else str(time)
