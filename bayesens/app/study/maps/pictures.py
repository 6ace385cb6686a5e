"""Pictures of a study's maps: mean and width with stations, the dates, one draw, and how the values are spread."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens import plots
from bayesens.app.report.parts import Note
from bayesens.app.study.chapters.chapter import drawing, sheet
from bayesens.app.study.maps.draws import MapDraws, first_model, stations_on
from bayesens.app.study.maps.grid import StudyGrid, place_names
from bayesens.app.study.maps.mapping import WIDTH, Maps
from bayesens.app.study.results import StudyResults
from bayesens.plots.maps.layers import said
from bayesens.tables.atomic import file_name

__all__ = ["map_pictures", "one_map", "varies"]

MOST_DAYS = 36  # small maps in one figure
KNOWN = ("mean", "quantile_value")


def map_pictures(results: StudyResults) -> Iterator[Any]:
    """Of every model mean and width, and of the one that is drawn the dates, a draw and the spread."""
    found = results.maps
    assert found is not None
    several = found.grid.time is not None
    over = f" Means over {found.grid.data.sizes[found.grid.time]} {_steps(found.grid)}." if several else ""
    for name, one in found.models.items():
        if varies(one["mean"]):
            yield drawing(f"map_{file_name(name)}", partial(_mean_and_width, results, name), f"{name}: mean, and width of the "
                          f"90 % interval.{over}{_dots(results)}", f"Two maps, mean and width of the interval by {name}.",
                          wide=True)  # fmt: skip
    first = first_model(results.models, found)
    if first is None:
        return
    one = found.models[first]
    if several:
        yield drawing("map_days", partial(_days, results, one), f"{first}: the mean, one map a {_steps(found.grid)[:-1]}.",
                      "Small maps of the mean, one a date.", wide=True)  # fmt: skip
    yield drawing("map_variability", partial(_variability, results, first), f"{first}: the mean in all cells, one draw, and all "
                  "observations of the stations, with their coefficients of variation.",
                  "Histograms of a map, of a draw and of stations.", size=(4.8, 3.2))  # fmt: skip
    if (drawn := results.map_draws) is not None:
        yield from _draws(results, found, drawn)


def one_map(grid: StudyGrid, field: Any) -> Any:
    """A map of one time as it is; of several, the mean over them."""
    if grid.time is None or grid.time not in field.dims:
        return field
    return field.mean(grid.time, keep_attrs=True)


def varies(field: xr.DataArray) -> bool:
    """Whether a map is more than one number, but for rounding; maps have single precision, and so have their means over days."""
    values = field.values[np.isfinite(field.values)].astype(np.float64)
    return len(values) > 0 and float(np.ptp(values)) > 1e-6 * float(np.abs(values).mean())


def _steps(grid: StudyGrid) -> str:
    """What the grid has several of."""
    return "dates" if grid.times is not None and grid.data[grid.times].dtype.kind == "M" else "steps"


def _dots(results: StudyResults) -> str:
    stations = _stations(results)
    if stations is None:
        return ""
    return " Dots: stations, in the colours of the map where they were observed" + (
        " on these dates." if results.maps is not None and results.maps.grid.times is not None else "."
    )


def _stations(results: StudyResults) -> pd.DataFrame | None:
    """Stations with places in the grid's coordinates, and their means on its days."""
    found = results.maps
    assert found is not None
    names = place_names(results.study)
    if names is None or any(name not in found.grid.data.variables for name in names):
        return None
    days = None if found.grid.times is None else np.ravel(found.grid.data[found.grid.times].values)
    return stations_on(results.study, results.data, days)


def _shown(results: StudyResults, one: xr.Dataset) -> xr.Dataset:
    """A map with rows and columns that say so."""
    found = results.maps
    assert found is not None
    asked = results.study.map
    if asked is None or asked.dims is None:
        return one
    return one.rename({old: new for old, new in zip(found.grid.dims, ("row", "col"), strict=True) if old != new})


def _mean_and_width(results: StudyResults, name: str) -> Any:
    found = results.maps
    assert found is not None
    grid, one = found.grid, found.models[name]
    flat = one_map(grid, one[list(KNOWN)].sel(quantile=list(WIDTH)))
    if grid.times is not None and grid.times in flat.coords and grid.time is None:
        flat = flat.drop_vars(grid.times)
    inside = None if found.applicability is None else one_map(grid, found.applicability["inside"]) > 0.5
    if inside is not None:
        inside = inside.astype(float)
    stations = _stations(results)
    value = None if stations is None or stations["observed"].isna().all() else "observed"
    try:
        axes = plots.map(_shown(results, flat), stations=stations, value=value, inside=None if inside is None else
                         _shown(results, inside.to_dataset(name="inside"))["inside"], label="")  # fmt: skip
    except ValueError as error:
        if "stations is on the map" not in str(error):
            raise
        axes = plots.map(_shown(results, flat))
    return axes[0].get_figure(root=True)


def _days(results: StudyResults, one: xr.Dataset) -> Any:
    found = results.maps
    assert found is not None
    time = str(found.grid.time)
    size = one.sizes[time]
    some = np.unique(np.linspace(0, size - 1, min(size, MOST_DAYS)).round().astype(int))
    axes = plots.maps_by_time(_shown(results, one[list(KNOWN)].isel({time: some})), "mean")
    return np.ravel(axes)[0].get_figure(root=True)


def _variability(results: StudyResults, name: str, *, ax: Any) -> None:
    found, drawn = results.maps, results.map_draws
    assert found is not None
    values = None if drawn is None or drawn.values is None or drawn.model != name else drawn.values[0]
    observed = results.data.frame[results.study.data.observation].to_numpy(dtype=float)
    plots.variability(found.models[name]["mean"], values, observed, label=results.study.data.observation,
                      units=results.ensemble.units, ax=ax)  # fmt: skip


def _draws(results: StudyResults, found: Maps, drawn: MapDraws) -> Iterator[Any]:
    """One draw beside the mean of the same day, and how much stations, mean and draw vary between places."""
    if drawn.values is None:
        yield Note(f"No draw of the map is shown: {drawn.why_none}.", "caution")
    else:
        field = drawn.field
        assert field is not None
        unit = "km" if field.places == ("lon", "lat") else "units of the coordinates"
        caption = (
            f"{drawn.model}: one draw, {_which(found.grid)}beside the mean. Errors hang together over {field.range:.3g} {unit} "
            f"({100 * field.nugget:.0f} % of their variance belongs to single places), as the errors at held-out stations do."
        )
        yield drawing("map_draw", partial(_draw, results, drawn), caption, "Two maps on one scale, a mean and a draw.",
                      wide=True)  # fmt: skip
    yield sheet("map_variation", drawn.spread, "Coefficient of variation between places, the mean over the dates of the map.",
                "A map of the mean varies less than the truth; a draw should vary about as much as stations do, which stand for "
                "points and not for cells.")  # fmt: skip


def _middle(grid: StudyGrid) -> int:
    return 0 if grid.time is None else grid.data.sizes[grid.time] // 2


def _which(grid: StudyGrid) -> str:
    if grid.time is None:
        return ""
    at = grid.data[grid.time].values[_middle(grid)] if grid.time in grid.data.coords else _middle(grid)
    return f"{said(at)}, "


def _draw(results: StudyResults, drawn: MapDraws) -> Any:
    found = results.maps
    assert found is not None
    assert drawn.values is not None
    grid = found.grid
    at = {} if grid.time is None else {grid.time: _middle(grid)}
    mean = found.models[drawn.model]["mean"].isel(at)
    pair = xr.Dataset({"mean": mean.variable, "draw": drawn.values[0].isel(at).variable}, mean.coords).to_array("step")
    pair = pair.drop_vars([name for name in (grid.times,) if name in pair.coords])
    pair = pair.assign_coords(step=["mean", "one draw"]).assign_attrs(mean.attrs)
    axes = plots.maps_by_time(_shown(results, pair.to_dataset(name="mean")), "mean", columns=2)
    return np.ravel(axes)[0].get_figure(root=True)
