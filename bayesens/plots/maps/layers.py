"""One map out of what `bayesens.predict` gives of a grid: a variable, a quantile, a probability, at one time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.messages import check_known, listed
from bayesens.plots.given import dataset_of
from bayesens.plots.maps.cells import Cells, cells_of

__all__ = [
    "Moment",
    "at_time",
    "check_inside",
    "check_maps",
    "layer_of",
    "moment_of",
    "probability_of",
    "quantile_of",
    "said",
    "step_dim",
    "width_of",
]

MADE_BY = "be.predict(fit, grid)"
BY_TIME = "be.plots.maps_by_time(maps)"
BESIDE = ("quantile", "threshold")  # dimensions that are not the grid's


class Moment(NamedTuple):
    """What is drawn of maps: block means of their layers (row, column) and of the area of applicability, at one time."""

    values: dict[str, NDArray[np.float64]]
    inside: NDArray[np.float64] | None
    time: Any

    @property
    def title(self) -> str:
        """The time in words, empty where there is none."""
        return "" if self.time is None else said(self.time)


def moment_of(cells: Cells, time: Any, inside: Any, *, instead: str = BY_TIME, **layers: xr.DataArray) -> Moment:
    """Block means of layers at one time, computed together; see `at_time` and `check_inside` for what is refused."""
    first = next(iter(layers.values()))
    at = at_time(first, cells, time, instead=instead)
    area = check_inside(inside, first, cells)
    every = layers if area is None else layers | {"inside": area}
    found = cells.means(**{name: one.isel(at, missing_dims="ignore") for name, one in every.items()})
    now = next((first[dim].to_numpy()[step] for dim, step in at.items() if dim in first.coords), None)
    if not at and "time" in first.coords and not first["time"].ndim:  # selected before: maps.sel(time=...)
        now = first["time"].to_numpy()[()]
    return Moment({name: found[name] for name in layers}, found.get("inside"), now)


def check_maps(maps: Any, variable: str = "mean", *, most: int | None = None) -> tuple[xr.Dataset, Cells]:
    """Refuse what is no Dataset of maps with a variable, and find where its cells lie."""
    found = dataset_of(maps, variable, MADE_BY)
    if "obs" in found[variable].dims:
        raise TypeError(
            f"got a prediction of the rows of a table; wanted one of a grid: {MADE_BY}, of a Dataset with rows and "
            "columns"
        )
    one = found[[variable]].isel(dict.fromkeys([dim for dim in BESIDE if dim in found[variable].dims], 0))
    return found, cells_of(one) if most is None else cells_of(one, most=most)


def quantile_of(maps: xr.Dataset, levels: Sequence[float]) -> list[xr.DataArray]:
    """Maps of some quantiles."""
    have = maps["quantile"].to_numpy() if "quantile_value" in maps and "quantile" in maps.coords else np.empty(0)
    at = [np.flatnonzero(np.isclose(have, level, rtol=0, atol=1e-6)) for level in levels]
    if lacking := [level for level, where in zip(levels, at, strict=True) if not len(where)]:
        every = ", ".join(f"{level:g}" for level in sorted({*have.tolist(), *lacking}))
        raise ValueError(
            f"the maps have the quantiles {listed(have.tolist()) or 'none'}; wanted {listed(lacking)} too: "
            f"be.predict(fit, grid, quantiles=[{every}])"
        )
    return [maps["quantile_value"].isel(quantile=int(where[0])) for where in at]


def width_of(maps: xr.Dataset) -> xr.DataArray:
    """Width of the 90 % interval."""
    low, high = quantile_of(maps, (0.05, 0.95))
    return (high - low).assign_attrs(low.attrs | {"long_name": "width of the 90 % interval"})


def probability_of(maps: xr.Dataset, threshold: float | str | None) -> tuple[xr.DataArray, str]:
    """The probability of lying below a threshold, and the threshold in words; the only one where none is named."""
    if "threshold" not in maps["probability_below"].dims:
        return maps[
            "probability_below"
        ], f"{maps['threshold'].item()}" if "threshold" in maps.coords else "the threshold"
    have = maps["threshold"].to_numpy().tolist() if "threshold" in maps.coords else []
    if threshold is None:
        if len(have) != 1:
            raise ValueError(f"the maps have the thresholds {listed(have)}; wanted one: threshold={have[0]!r}")
        at = [0]
    else:
        number = isinstance(threshold, int | float)
        at = [
            i
            for i, one in enumerate(have)
            if one == threshold or (number and isinstance(one, float) and bool(np.isclose(one, threshold, rtol=1e-6)))
        ]
    if not at:
        raise ValueError(
            f"the maps have no threshold {threshold!r}, only {listed(have)}; predict it: "
            f"be.predict(fit, grid, below={threshold!r})"
        )
    one = have[at[0]]
    return maps["probability_below"].isel(threshold=at[0]), f"{one:g}" if isinstance(one, float) else str(one)


def layer_of(maps: xr.Dataset, variable: str) -> xr.DataArray:
    """A variable of maps, or "width": that of the 90 % interval."""
    if variable == "width":
        return width_of(maps)
    check_known([variable], [*maps.data_vars, "width"], kind="variable", where="the maps")
    field = maps[variable]
    if variable == "probability_below":
        return probability_of(maps, None)[0]
    if "quantile" in field.dims:
        raise ValueError(
            "quantile_value has several maps at a time; select one: variable='width', or "
            "maps.assign(median=maps['quantile_value'].sel(quantile=0.5)) and variable='median'"
        )
    return field


def step_dim(field: xr.DataArray, cells: Cells) -> str:
    """The dimension beside rows and columns, usually time; empty where there is none.

    Raises
    ------
    ValueError
        More than one.
    """
    others = [str(dim) for dim in field.dims if dim not in cells.dims]
    if len(others) > 1:
        first = next((dim for dim in others if dim != "time"), others[0])
        raise ValueError(
            f"the maps have the dimensions {listed(others)} beside rows and columns; wanted one at most: select one "
            f"of the others: maps.isel({first}=0)"
        )
    return others[0] if others else ""


def at_time(field: xr.DataArray, cells: Cells, time: Any, *, instead: str = BY_TIME) -> dict[str, int]:
    """Which step of the dimension beside rows and columns is drawn; empty where there is none.

    Raises
    ------
    ValueError
        Several and none named, or one that is not there.
    """
    dim = step_dim(field, cells)
    if not dim:
        if time is not None:
            raise ValueError(f"time is {time!r}, and the maps have no time; leave it out")
        return {}
    size = field.sizes[dim]
    steps = field[dim].to_numpy() if dim in field.coords else np.arange(size)
    if time is None:
        if size != 1:
            raise ValueError(
                f"the maps have {size} steps of {dim}; wanted one: time={said(steps[0])!r}, or draw all "
                f"of them by {instead}"
            )
        return {dim: 0}
    wanted = _as(time, steps)
    where = np.flatnonzero(steps == wanted) if wanted is not None else np.empty(0, np.intp)
    if not len(where):
        raise ValueError(
            f"no {dim} {time!r} in the maps, which have {size} from {said(steps[0])!r} to {said(steps[-1])!r}; name "
            "one of them"
        )
    return {dim: int(where[0])}


def _as(time: Any, steps: Any) -> Any:
    """What was named, as the maps have it; None where it cannot be."""
    if steps.dtype.kind != "M":
        return time
    try:
        return np.datetime64(pd.Timestamp(time)).astype(steps.dtype)
    except (TypeError, ValueError):
        return None


def said(step: Any) -> str:
    """A time in words: a date without hours where it is midnight.

    Examples
    --------
    >>> said(np.datetime64("2016-02-05T00:00")), said(np.datetime64("2016-02-05T06:30"))
    ('2016-02-05', '2016-02-05 06:30')
    """
    if not isinstance(step, np.datetime64):
        return str(step)
    stamp = pd.Timestamp(step)
    return f"{stamp:%Y-%m-%d}" if stamp == stamp.normalize() else f"{stamp:%Y-%m-%d %H:%M}"


def check_inside(inside: Any, field: xr.DataArray, cells: Cells) -> xr.DataArray | None:
    """The area of applicability on the cells of the maps.

    Raises
    ------
    TypeError, ValueError
        No map, or one of other cells.
    """
    if inside is None:
        return None
    given = inside["inside"] if isinstance(inside, xr.Dataset) and "inside" in inside else inside
    if not isinstance(given, xr.DataArray):
        raise TypeError(
            f"inside is a {type(inside).__name__}; wanted a map that is true inside the area of applicability: "
            "area.grid(covariates)['inside']"
        )
    sizes, wanted = dict(given.sizes), {dim: field.sizes[dim] for dim in cells.dims}
    beyond = [str(dim) for dim in given.dims if dim not in field.dims]
    if beyond or any(sizes.get(dim) != size for dim, size in wanted.items()):
        raise ValueError(f"inside has the sizes {sizes} and the maps {dict(field.sizes)}; wanted the cells of the maps")
    try:
        xr.align(given, field, join="exact")
    except ValueError:
        raise ValueError(
            "inside has other coordinates than the maps; wanted the cells of the maps, in the same order: "
            "inside.reindex_like(maps, method='nearest') where they differ by rounding"
        ) from None
    return given
