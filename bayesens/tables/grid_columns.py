"""A column of numbers laid out on a grid: codes for missing values, infinite values and other units, chunk by chunk if lazy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.messages import warn_once
from bayesens.tables.missing_codes import NONE, OTHERS, Missing, check_codes, clear_codes
from bayesens.tables.unit_checks import of_grid, range_words

__all__ = ["looked_through"]

SOME = 10_000  # cells that show whether a covariate is in another unit


def looked_through(
    one: xr.DataArray, kind: str, missing: Missing, ends: Sequence[float] | None = None, seen: str = ""
) -> xr.DataArray:
    """Numbers with named codes for missing values as NaN; others and infinite ones are refused.

    Parameters
    ----------
    one : DataArray
        With a name.
    kind : {"covariate", "measured", "lon", "lat"}
    missing : optional
        Codes, as in `Ensemble.from_frame`.
    ends : (float, float), optional
        A range; values far outside of it are told.
    seen : str
        Whose range it is.

    Examples
    --------
    >>> rain = xr.DataArray([0.1, -9999.0, 0.3], dims="x", name="rain")
    >>> looked_through(rain, "covariate", -9999).values
    array([0.1, nan, 0.3])
    """
    own: Any = missing.get(str(one.name), missing.get(OTHERS)) if isinstance(missing, Mapping) else missing
    if one.dtype.kind != "f" and not (own is None or own == NONE):
        one = one.astype(np.float64)  # whole numbers know no NaN
    look = partial(_looked_through, str(one.name), kind, own, ends, seen, set())
    return xr.apply_ufunc(look, one, dask="parallelized", output_dtypes=[one.dtype], keep_attrs=True)


def _looked_through(
    name: str,
    kind: str,
    missing: Missing,
    ends: Sequence[float] | None,
    seen: str,
    said: set[str],
    values: NDArray[Any],
) -> NDArray[Any]:
    """Numbers of an array in memory, or of a chunk; the warnings of other chunks are in what was `said`."""
    column = np.array(values, dtype=np.float64).reshape(-1)
    if infinite := int(np.isinf(column).sum()):
        raise ValueError(f"{name!r} is infinite in {infinite} of {column.size} cells; wanted finite numbers: correct them, or "
                         f"leave the cells empty: grid[{name!r}].where(abs(grid[{name!r}]) < float('inf'))")  # fmt: skip
    counts = clear_codes({name: column}, missing)
    check_codes({name: column}, {name: kind}, missing)
    if ends:
        some = column[:: max(1, column.size // SOME)]
        warn_once(range_words(name, some, ends, what="covariate", seen=seen, of="", how=of_grid), said)
    return column.reshape(np.shape(values)).astype(values.dtype) if counts else values
