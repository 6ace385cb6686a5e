"""Fitted members on the cells of a grid: what a table's rows get, some cells at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.arithmetic import plain_arithmetic
from bayesens.members.blending import blended
from bayesens.members.covariates import check_membership
from bayesens.members.grids.inputs import REGION, Inputs
from bayesens.members.regions import Regions
from bayesens.tables.columns import labels, numbers
from bayesens.tables.grids import MEMBER

__all__ = ["predict_cells"]

BLOCK = 2**16  # cells of which a table is made at a time: 6 MB for a dozen covariates


@dataclass(frozen=True, eq=False)
class _Cells:
    """What predicts the cells of one chunk.

    Attributes
    ----------
    fits : dict of member to dict of region to what predicts a table
    order : tuple of str
        What each array is: ``covariate NAME``, ``product NAME``, ``where``, or what `Regions.weight` wants.
    covariates, products : tuple of str
    labels : tuple of str
        Regions of a membership.
    """

    fits: Mapping[str, Mapping[str, Any]]
    regions: Regions
    covariates: tuple[str, ...]
    products: tuple[str, ...]
    order: tuple[str, ...]
    labels: tuple[str, ...]
    dtype: type[np.floating[Any]]

    @property
    def members(self) -> tuple[str, ...]:
        return (*self.fits, *self.products)

    @plain_arithmetic  # lazy grids are computed after the call has returned
    def predict(self, *arrays: NDArray[Any]) -> NDArray[Any]:
        """Predict arrays that broadcast to one shape (...), as (..., member)."""
        given = dict(zip(self.order, arrays, strict=True))
        shape = np.broadcast_shapes(
            *(one.shape[:-1] if name == "membership" else one.shape for name, one in given.items())
        )
        out = np.full((int(np.prod(shape)), len(self.members)), np.nan, dtype=self.dtype)
        flat = {
            name: _flat(one, (*shape, one.shape[-1]) if name == "membership" else shape) for name, one in given.items()
        }
        for start in range(0, len(out), BLOCK):
            cells = slice(start, min(start + BLOCK, len(out)))
            given = {name: _part(one, cells, len(self.labels) * (name == "membership")) for name, one in flat.items()}
            self._block(given, out[cells])
        return out.reshape(*shape, len(self.members))

    def _block(self, given: dict[str, NDArray[Any]], out: NDArray[Any]) -> None:
        """Predict some cells, into rows of the result."""
        wanted = given.pop("where", np.ones(len(out), dtype=bool))
        for k, name in enumerate(self.products, start=len(self.fits)):
            out[wanted, k] = given[f"product {name}"][wanted]
        if not self.covariates:
            return
        x = np.column_stack([given[f"covariate {name}"].astype(np.float64, copy=False) for name in self.covariates])
        some = np.flatnonzero(wanted & ~np.isnan(x).all(axis=1))
        if not len(some):
            return
        table = pd.DataFrame(x if len(some) == len(x) else x[some], columns=list(self.covariates))
        weight = self.regions.weight(len(some), **self._places(given, some))
        for k, (member, fits) in enumerate(self.fits.items()):
            out[some, k] = blended(fits, member, table, weight, self.regions.names, "")

    def _places(self, given: Mapping[str, NDArray[Any]], some: NDArray[np.int64]) -> dict[str, Any]:
        if "membership" in given:
            soft = pd.DataFrame(given["membership"][some], columns=list(self.labels))
            return {"membership": check_membership(soft, soft, "membership")}
        read = {"label": labels, "lon": numbers, "lat": numbers}
        return {name: how(pd.Series(given[name][some], name=name)) for name, how in read.items() if name in given}


def _flat(one: NDArray[Any], shape: tuple[int, ...]) -> Any:
    """All cells in one row, without a copy of them."""
    whole = np.broadcast_to(one, shape)
    return whole.reshape(-1) if whole.flags.c_contiguous else whole.flat


def _part(flat: Any, cells: slice, regions: int) -> NDArray[Any]:
    """Some cells, with the memberships in so many regions."""
    if not regions:
        return np.asarray(flat[cells])
    return np.asarray(flat[cells.start * regions : cells.stop * regions]).reshape(-1, regions)


def predict_cells(inputs: Inputs, fits: Mapping[str, Mapping[str, Any]], regions: Regions, units: str) -> xr.DataArray:
    """Predict the cells of a grid by every member, on the dimensions of the grid and ``member``.

    Parameters
    ----------
    inputs : Inputs
    fits : mapping of member to mapping of region to what predicts a table
    regions : Regions
    units : str
        Of the predictions.

    Returns
    -------
    DataArray
        ``prediction (..., member)``; lazy where an input is.
    """
    arrays = {f"covariate {name}": one for name, one in inputs.covariates.items()}
    arrays |= {f"product {name}": one for name, one in inputs.products.items()} | inputs.places
    if inputs.where is not None:
        arrays["where"] = inputs.where
    # The dimensions of the result stand in the order of their first mention.
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].ndim))
    soft = tuple(map(str, inputs.places["membership"][REGION].values)) if "membership" in inputs.places else ()
    cells = _Cells(fits, regions, tuple(inputs.covariates), tuple(inputs.products), tuple(arrays), soft,
                   np.float32 if inputs.single else np.float64)  # fmt: skip
    found = xr.apply_ufunc(
        cells.predict, *arrays.values(), input_core_dims=[[REGION] if name == "membership" else [] for name in arrays],
        output_core_dims=[[MEMBER]], dask="parallelized", output_dtypes=[cells.dtype],
        dask_gufunc_kwargs={"output_sizes": {MEMBER: len(cells.members)}},
    ).transpose(*inputs.dims, MEMBER)  # fmt: skip
    coords: dict[str, Any] = {**inputs.coords, MEMBER: np.array(cells.members, dtype=np.str_)}
    attrs = {"long_name": "predictions of the members"} | ({"units": units} if units else {}) | inputs.notes
    return xr.DataArray(found.variable, coords, name="prediction", attrs=attrs)
