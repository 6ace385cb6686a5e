"""Products on grids of their own, brought to the cells of another grid by xarray's interpolation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayesens.messages import check_known, listed
from bayesens.tables.grids import MEMBER, decoded, turned

__all__ = ["METHODS", "Product", "check_product"]

METHODS = ("nearest", "linear")


@dataclass(frozen=True, eq=False)
class Product:
    """A product, and the dimensions along which it has other coordinates than the grid.

    Attributes
    ----------
    array : DataArray
        On some of the dimensions of the grid.
    along : tuple of str
        Dimensions along which it is interpolated.
    method : {"nearest", "linear"}
    """

    array: xr.DataArray
    along: tuple[str, ...]
    method: str

    def at(self, grid: xr.Dataset, cells: Mapping[str, slice]) -> xr.DataArray:
        """The product in some cells of the grid, which is cut to them already; lazy if the grid or the product is."""
        own = {dim: part for dim, part in cells.items() if dim in self.array.dims and dim not in self.along}
        part = self.array.isel(own)
        if self.along:
            lazy = {str(dim): size for dim, size in grid.chunksizes.items()}
            part = part.chunk() if lazy and part.chunks is None else part
            target = {dim: _chunked(grid[dim], lazy.get(dim)) for dim in self.along}
            part = part.interp(target, method=self.method).astype(self.array.dtype)  # type: ignore[arg-type]
        return part.drop_vars(list(part.coords)).assign_coords({d: grid[d] for d in part.dims if d in grid.coords})

    @property
    def words(self) -> str:
        """What was done."""
        return f"{self.method} along {', '.join(self.along)}" if self.along else "on the grid"


def _chunked(coordinate: xr.DataArray, chunks: tuple[int, ...] | None) -> xr.DataArray:
    """A coordinate without its index, in the chunks of the grid: interpolation is then lazy in these."""
    plain = xr.DataArray(coordinate.values, dims=coordinate.dims)
    return plain if chunks is None else plain.chunk({coordinate.dims[0]: chunks})


def check_product(name: str, product: xr.DataArray, grid: xr.Dataset, method: str) -> Product:
    """Find along which dimensions a product has other coordinates than the grid.

    Parameters
    ----------
    name : str
    product : DataArray
    grid : Dataset
    method : {"nearest", "linear"}

    Returns
    -------
    Product

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> coarse = xr.DataArray([1.0, 2.0], {"x": [0.0, 2.0]}, "x")
    >>> fine = xr.Dataset(coords={"x": [0.0, 0.5, 1.5]})
    >>> found = check_product("gldas", coarse, fine, "linear")
    >>> found.words, found.at(fine, {}).values.tolist()
    ('linear along x', [1.0, 1.25, 1.75])
    """
    if not isinstance(product, xr.DataArray):
        raise TypeError(f"product {name!r} is {type(product).__name__}; wanted an xarray.DataArray: dataset[{name!r}]")
    check_known([method], METHODS, kind="method", where="interpolate")
    array = decoded(product.to_dataset(name=name))[name]
    if array.dtype.kind not in "fiu":
        raise TypeError(f"product {name!r} has dtype {array.dtype}; wanted numbers")
    if extra := [str(dim) for dim in array.dims if dim not in grid.dims or dim == MEMBER]:
        raise ValueError(f"product {name!r} has the dimension {listed(extra)}; wanted some of those of the grid, "
                         f"{listed(map(str, grid.dims))}: rename them, or take one, isel({extra[0]}=0)")  # fmt: skip
    along = tuple(str(dim) for dim in array.dims if not _same(array, grid, str(dim), name))
    for dim in along:
        _check_reach(array, grid, dim, name)
    whole = array if array.dtype.kind == "f" or not along else array.astype(np.float64)
    return Product(whole, along, method)


def _same(array: xr.DataArray, grid: xr.Dataset, dim: str, name: str) -> bool:
    """Whether the product has the grid's coordinate along a dimension."""
    if dim in array.coords and dim in grid.coords:
        return array.indexes[dim].equals(grid.indexes[dim])
    if array.sizes[dim] != grid.sizes[dim]:
        raise ValueError(f"product {name!r} has {array.sizes[dim]} cells along {dim!r} and the grid {grid.sizes[dim]}, and one "
                         f"of them has no coordinate {dim!r} to go by; give it one: assign_coords({dim}=...)")  # fmt: skip
    return True


def _check_reach(array: xr.DataArray, grid: xr.Dataset, dim: str, name: str) -> None:
    """Refuse a product that would be missing where the grid lies: it lies elsewhere, or says so otherwise."""
    own, cells = array[dim].values, grid[dim].values
    if how := turned(dim, own, cells):
        raise ValueError(f"product {name!r} does not lie on the grid; {how}")
    if own.size and cells.size and (own.max() < cells.min() or cells.max() < own.min()):
        raise ValueError(f"product {name!r} has no cell of the grid: its {dim!r} are {own.min()} to {own.max()} and those of the "
                         f"grid {cells.min()} to {cells.max()}; give the part that covers the grid, or leave it out")  # fmt: skip
