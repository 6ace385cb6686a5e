"""Draws of a study's map: fields that vary from cell to cell as the truth does, beside its mean and its stations."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.app.study.data import StudyData
from bayesens.app.study.file import Study
from bayesens.app.study.maps.grid import StudyGrid, place_names
from bayesens.app.study.maps.mapping import Maps
from bayesens.comparison.compare import HeldOut
from bayesens.geo.residual_field import ResidualField, residual_field
from bayesens.inference.predict import draw
from bayesens.tables.columns import times
from bayesens.tables.missing_codes import NONE

__all__ = ["MapDraws", "first_model", "map_draws", "stations_on"]

FEWEST = 3  # stations of a day that have a coefficient of variation


@dataclass(frozen=True, eq=False)
class MapDraws:
    """Draws of one model.

    Attributes
    ----------
    model : str
    values : DataArray (sample, ...), optional
    field : ResidualField, optional
        How the errors at held-out stations hang together.
    spread : DataFrame
        Coefficients of variation between places: of stations, of the map of the mean, of a draw.
    why_none : str
        Why there are no draws.
    """

    model: str
    values: xr.DataArray | None
    field: ResidualField | None
    spread: pd.DataFrame
    why_none: str = ""


def map_draws(
    study: Study,
    table: StudyData,
    models: Mapping[str, Any],
    fits: Mapping[str, xr.DataTree],
    held: Mapping[str, HeldOut],
    maps: Maps,
) -> MapDraws | None:
    """Draw the map of the first model that combines the members; None where no draws are asked for."""
    asked = study.map
    assert asked is not None
    name = first_model(models, maps)
    if not asked.draws or name is None:
        return None
    field, why = _field(study, table, held, maps.grid, name)
    values = None
    if field is not None:
        own = dict(zip(field.places, place_names(study) or (), strict=True))
        at = {to: maps.predicted[name].variable for to, name in own.items() if to != name}
        roles: Any = maps.roles
        with warnings.catch_warnings():  # the map has said it
            warnings.simplefilter("ignore", UserWarning)
            values = draw(
                fits[name], maps.predicted.assign_coords(at), field=field, size=asked.draws, missing=NONE, where=maps.where,
                random_seed=study.study.random_seed, **roles,
            )  # fmt: skip
    return MapDraws(name, values, field, _spread(study, table, maps, name, values), why)


def first_model(models: Mapping[str, Any], maps: Maps) -> str | None:
    """The first model that combines the members, or else the first one."""
    return next((name for name in maps.models if not models[name].baseline), next(iter(maps.models), None))


def _field(
    study: Study, table: StudyData, held: Mapping[str, HeldOut], grid: StudyGrid, name: str
) -> tuple[ResidualField | None, str]:
    """How errors hang together, from the first estimand that holds sites out; or why that is not known."""
    estimand = next((one for one in held if one in ("site", "site-time", "group")), None)
    names = place_names(study)
    if estimand is None or name not in held[estimand].predictions:
        return None, "no stations were held out, whose errors would tell how those of cells go together"
    if names is None or any(one not in grid.data.variables for one in names):
        return (
            None,
            "the table or the grid has no places: name data.lon and data.lat, or evaluation.places, and map.places",
        )
    rows = held[estimand].rows
    frame = table.frame.iloc[rows["obs"].values]
    roles = ("x", "y") if study.evaluation.places is not None else ("lon", "lat")
    where = {role: frame[column].to_numpy(dtype=np.float64) for role, column in zip(roles, names, strict=True)}
    when = None if study.data.time is None else times(frame[study.data.time])
    pit = rows["pit"].sel(model=name).values
    try:
        return residual_field(pit, site=frame[study.data.site].astype(str).to_numpy(), time=when, **where), ""
    except ValueError as error:
        return None, str(error)


def stations_on(study: Study, table: StudyData, days: Any = None) -> pd.DataFrame | None:
    """One line a station: its place, and its mean observation on some days; None where sites have no places."""
    names = place_names(study)
    if names is None or study.data.site is None:
        return None
    frame = table.frame[[study.data.site, *names]].assign(observed=table.frame[study.data.observation])
    if days is not None and study.data.time is not None:
        frame["observed"] = frame["observed"].where(np.isin(_day(times(table.frame[study.data.time])), _day(days)))
    return frame.groupby(study.data.site, sort=False).mean()


def _day(values: Any) -> Any:
    given = np.asarray(values)
    return given.astype("datetime64[D]") if given.dtype.kind == "M" else given


def _spread(study: Study, table: StudyData, maps: Maps, name: str, values: xr.DataArray | None) -> pd.DataFrame:
    """Coefficients of variation between places, the mean over the days of the map."""
    lines = [("stations", *_of_stations(study, table, maps.grid))]
    every = {"map of the mean": maps.models[name]["mean"]} | ({} if values is None else {"one draw": values[0]})
    for what, field in every.items():
        each = field.std(maps.grid.dims, ddof=1) / field.mean(maps.grid.dims)
        lines.append(
            (
                what,
                float(each.mean()),
                int(field.notnull().any([d for d in field.dims if d not in maps.grid.dims]).sum()),
            )
        )
    return pd.DataFrame(lines, columns=["of", "cv", "places"])


def _of_stations(study: Study, table: StudyData, grid: StudyGrid) -> tuple[float, int]:
    """On the days of the map where stations have them, or else on all days."""
    data = study.data
    if data.site is None:
        return np.nan, 0
    frame = pd.DataFrame(
        {"y": table.frame[data.observation], "site": table.frame[data.site].astype(str), "day": 0}
    ).dropna()
    if data.time is not None:
        frame["day"] = _day(times(table.frame.loc[frame.index, data.time]))
        if grid.times is not None:
            now = frame[np.isin(frame["day"].to_numpy(), np.ravel(_day(grid.data[grid.times].values)))]
            frame = now if len(now) else frame
    by_day = frame.groupby("day")["y"]
    enough = by_day.count() >= FEWEST
    each = (by_day.std() / by_day.mean())[enough]
    return float(each.mean()), int(frame["site"].nunique())
