"""Draws of a grid that hang together: every draw is one posterior draw, and its residuals are a field in space and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.arithmetic import plain_arithmetic
from bayesens.distributions.posterior_mixture import PART_ROWS
from bayesens.ensemble.transforms import transform
from bayesens.inference.fit_tree import history_of, model_of
from bayesens.inference.grid import GridInputs, GridOptions
from bayesens.inference.grid_classes import Key
from bayesens.inference.grid_law import NO_SCORES, Cells, GridLaw, Where
from bayesens.inference.prediction import components
from bayesens.messages import check_keywords, listed, warn

__all__ = ["Field", "draw_grid"]

VALUES = 20_000_000  # scores in memory at a time: 160 MB
NOT_OF_DRAWS = ("below", "variables")


class Field(Protocol):
    """What gives cells their normal scores, such as `bayesens.geo.residual_field.ResidualField`."""

    @property
    def places(self) -> tuple[str, str]:
        """Names of the coordinates that say where a cell lies."""

    def scores(self, first: Any, second: Any, time: Any, *, random_seed: Any, keep: Any) -> NDArray[np.float64]:
        """Scores (place, kept time)."""


@dataclass(frozen=True, eq=False)
class _Draws:
    """A fit, a field, and the draws that are wanted."""

    law: GridLaw
    field: Field
    times: NDArray[Any]
    axis: int | None  # of time, counted from the last
    size: int
    seed: int

    @plain_arithmetic
    def of_cells(self, *arrays: NDArray[Any]) -> NDArray[Any]:
        """Draw cells (...): arrays as the law takes them, then the two coordinates and times; (..., sample)."""
        *given, first, second, time = arrays
        cells = self.law.cells(given)
        out = np.full((self.size, cells.size), np.nan, dtype=cells.dtype)
        step = max(1, VALUES // max(cells.size, 1))
        for start in range(0, self.size, step):
            some = np.arange(start, min(start + step, self.size))
            scores = np.stack([self._scores(int(j), first, second, time, cells.shape) for j in some])
            self._fill(out, cells, some, scores)
        return np.moveaxis(out.reshape(-1, *cells.shape), 0, -1)

    def _scores(
        self, sample: int, first: NDArray[Any], second: NDArray[Any], time: NDArray[Any], shape: tuple[int, ...]
    ) -> NDArray[np.float64]:
        one, other = (a.reshape((1,) * (len(shape) - a.ndim) + a.shape) for a in np.broadcast_arrays(first, second))
        keep = np.searchsorted(self.times, time.ravel())
        found = self.field.scores(one, other, self.times, random_seed=[self.seed, sample], keep=keep)
        if self.axis is None:
            laid = found[:, 0].reshape(one.shape)
        else:  # places have a length of one along the time
            laid = np.moveaxis(found.reshape(*np.squeeze(one, self.axis).shape, len(keep)), -1, self.axis)
        return np.broadcast_to(laid, shape).reshape(-1)

    def _fill(self, out: NDArray[Any], cells: Cells, some: NDArray[np.intp], scores: NDArray[np.float64]) -> None:
        posterior = self._posterior[some]
        back = transform(self.law.model.transform).inverse
        none = np.zeros(0)

        def by_coefficients(keys: list[Key], places: list[Where]) -> list[NDArray[np.int64]]:
            left = []
            for key, where in zip(keys, places, strict=True):
                for n, (sample, draw) in enumerate(zip(some, posterior, strict=True)):
                    (found,) = self.law.classes_of([key], int(draw))
                    if found is None:
                        left.append(where[2] if len(where[2]) else np.arange(where[0], where[0] + where[1]))
                        break
                    asked = {"levels": none, "limits": NO_SCORES, "scores": scores[n : n + 1], "parts": 0}
                    self.law.ask(found, cells, where, out[sample : sample + 1], **asked)
            return left

        def by_rows(index: NDArray[np.int64]) -> None:
            from bayesens.distributions.loops import mixture_values

            for part in np.split(index, range(PART_ROWS, len(index), PART_ROWS)):
                mixture = self.law.predictive(self.law.table(cells, part))
                for n, (sample, draw) in enumerate(zip(some, posterior, strict=True)):
                    for rows, *parts in components(mixture, [int(draw)]):
                        weight, mean, sd = (np.ascontiguousarray(one[0]) for one in parts)
                        values = np.empty(len(rows))
                        mixture_values(np.ascontiguousarray(scores[n, part[rows]]), weight, mean, sd, values)
                        out[sample, part[rows]] = back(values)

        self.law.visit(cells, out[some[0] : some[-1] + 1], by_coefficients, by_rows)

    @property
    def _posterior(self) -> NDArray[np.intp]:
        """The posterior draw of every sample: they pass through the posterior evenly."""
        sizes = self.law.posterior.sizes
        even = np.linspace(0, sizes["chain"] * sizes["draw"], self.size, endpoint=False).astype(np.intp)
        return np.random.default_rng(self.seed).permutation(even)


@plain_arithmetic
def draw_grid(
    tree: xr.DataTree, grid: xr.Dataset | xr.DataArray, *, field: Field | None, size: int, random_seed: int | None,
    model: Any = None, **options: Any,
) -> xr.DataArray:  # fmt: skip
    """Draw every cell of a grid; see `bayesens.draw`.

    Parameters
    ----------
    tree : DataTree
        A fit.
    grid : DataArray or Dataset
        As in `predict`, with the coordinates that the field names.
    field : ResidualField
    size : int
    random_seed : int, optional
    model : optional
        The model object, if it is one of your own.
    **options
        `GridOptions` but for ``below`` and ``variables``.

    Returns
    -------
    DataArray (sample, ...)
    """
    known = {name: None for name in GridOptions.__annotations__ if name not in NOT_OF_DRAWS}
    check_keywords(options, known, "draw")
    if field is None:
        raise TypeError("draws of a grid hang together in space and time, and need to be told how: field=be.residual_field(pit), "
                        "with the PIT of held-out observations, or field=be.ResidualField(range=...).")  # fmt: skip
    fitted = model_of(tree, model)
    inputs = GridInputs.of(tree, fitted, grid, options)
    first, when, axis = inputs.arrays[0], _times(inputs.arrays[0], options.get("time"), inputs.source), None
    places = [_place(inputs.source, first, name, when) for name in field.places]
    if when is not None:
        axis = first.dims.index(when.dims[0]) - first.ndim
        if first.chunks is not None and len(first.chunksizes[when.dims[0]]) > 1:
            warn("The grid is cut into chunks along its time; each is drawn by itself from one field of all times.")
    law = inputs.law(tree, fitted, history_of(tree))
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if random_seed is None else int(random_seed)
    times = np.zeros(1) if when is None else np.unique(when.values)
    draws = _Draws(law, field, times, axis, size, seed)
    arrays = [*inputs.arrays, *inputs.beside.values(), *places, xr.DataArray(0.0) if when is None else when]
    found = xr.apply_ufunc(draws.of_cells, *arrays, output_core_dims=[["sample"]], dask="parallelized",
                           output_dtypes=[first.dtype], dask_gufunc_kwargs={"output_sizes": {"sample": size}})  # fmt: skip
    found = found if inputs.where is None else found.where(inputs.where)
    coords = {name: one for name, one in first.coords.items() if name != "member"}
    mapping = {key: first.attrs[key] for key in ("grid_mapping",) if key in first.attrs}
    named = xr.DataArray(found.transpose("sample", ...).variable, coords=coords, name="y")
    return named.assign_attrs({"units": str(tree.attrs["units"]), "long_name": "draws"} | mapping)


def _times(array: xr.DataArray, named: Any, source: xr.Dataset) -> xr.DataArray | None:
    """The grid's times, one a step of a dimension; None for a grid of one time."""
    if named is None and "time" not in array.dims:
        return None
    name = named if isinstance(named, str) else "time"
    when: xr.DataArray | None = (
        named if isinstance(named, xr.DataArray) else source[name] if name in source.variables else None
    )
    if when is None:
        raise ValueError("the grid has a dimension 'time' without coordinates, and draws hang together through time: "
                         "assign_coords(time=...)")  # fmt: skip
    if when.ndim == 0:
        return None
    if when.ndim != 1:
        raise ValueError(f"the times have the dimensions {listed(when.dims)}; wanted one time a step")
    return when.load()


def _place(source: xr.Dataset, array: xr.DataArray, name: str, when: xr.DataArray | None) -> xr.DataArray:
    """A coordinate of the cells, laid beside the members."""
    if name not in source.variables:
        raise ValueError(f"the field is one of {name!r}, and the grid has no such coordinate; it has {listed(source.coords)}. "
                         "Rename the grid's, or give the field the places that it has.")  # fmt: skip
    one = source[name].astype(np.float64).load()
    if when is not None and when.dims[0] in one.dims:
        raise ValueError(f"{name!r} changes with the time; wanted cells that stay where they are")
    if extra := [dim for dim in one.dims if dim not in array.dims]:
        raise ValueError(f"{name!r} has the dimension {listed(extra)}, which the members lack")
    if not np.isfinite(one).all():
        raise ValueError(f"{name!r} is missing in {int((~np.isfinite(one)).sum())} of {one.size} places")
    return one
