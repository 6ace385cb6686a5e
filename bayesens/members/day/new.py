"""What neighbours say of new rows and grids, beside what members predict there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.ensemble.places import LON_LAT
from bayesens.members.covariates import taken
from bayesens.members.day.chain import BESIDE, FEATURES, NAME
from bayesens.members.day.fitted import FittedNeighbours
from bayesens.members.day.grid import neighbours_on_grid
from bayesens.members.day.places import new_places
from bayesens.members.day.times import tell_strange_times
from bayesens.tables.columns import labels, numbers, times
from bayesens.tables.grids import decoded

__all__ = ["with_neighbours"]


def with_neighbours(fitted: FittedNeighbours | None, covariates: Sequence[str], X: Any, **columns: Any) -> Any:
    """Return rows or a grid with what neighbours say; :meth:`FittedMembers.with_neighbours` tells of the arguments."""
    if fitted is None:
        raise ValueError("these members have no neighbours; wanted fitted members that were made with neighbours=True")
    found: dict[str, Any]
    if isinstance(X, xr.Dataset):
        columns.pop("site")
        said = neighbours_on_grid(fitted, decoded(X), names=(NAME, *BESIDE), **columns)
        found = {str(name): one for name, one in said.data_vars.items()}
    else:
        if not isinstance(X, pd.DataFrame):
            raise TypeError(f"X is a {type(X).__name__}; wanted a pandas.DataFrame, or an xarray.Dataset of a grid")
        found = dict(zip((NAME, *BESIDE), _of_table(fitted, X, **columns), strict=True))
    if FEATURES[0] in covariates:
        found[FEATURES[0]] = found[NAME]
    return X.assign(**found)


def _of_table(fitted: FittedNeighbours, X: pd.DataFrame, *, site: Any, time: Any, lon: Any, lat: Any) -> Any:
    table = fitted.table
    given = {"time": time, "lon": lon, "lat": lat}

    def column(name: str) -> pd.Series:
        asked = name if given.get(name) is None else given[name]
        if isinstance(asked, str) and asked not in X:
            how = f"name it: {name}=..., or " if name in ("time", *LON_LAT) else ""
            raise KeyError(
                f"neighbours need the {name} of every row, as their stations have it, and X has no column {asked!r}; {how}add "
                "the column"
            )
        return taken(X, asked, name)

    # A row without a label is a place of its own, and no station is called so.
    own = np.array([f"\0{k}" for k in range(len(X))], dtype=np.str_)
    told = np.full(len(X), "") if site is None else labels(taken(X, site, "site"))
    own = np.where(told == "", own, told)
    names = () if table.places is None else table.places.names
    places = new_places(table, [numbers(column(name)) for name in names], own, told != "")
    at = times(column("time"))
    tell_strange_times(table.time, at, "X")
    trend = np.column_stack([numbers(column(name)) for name in fitted.model.trend] or [np.zeros((len(X), 0))])
    unit = np.where(
        np.isin(own, table.site), table.unit[table.site.searchsorted(own).clip(max=len(table.site) - 1)], own
    )
    return fitted.of_rows(own, at, unit, places, trend).columns
