"""The door of a grid of covariates: variables found by their names, dates and places, units, and codes for missing values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import xarray as xr

from bayesens.members.regions import Regions
from bayesens.messages import check_known, listed
from bayesens.tables.grid_columns import looked_through
from bayesens.tables.grids import MEMBER, check_beside, decoded, turned
from bayesens.tables.missing_codes import OTHERS, Missing

if TYPE_CHECKING:
    from bayesens.members.fitted import FittedMembers

__all__ = ["FIELDS", "REGION", "Inputs", "OfGrid", "Place", "check_units", "grid_inputs"]

REGION = "region"  # the dimension of a membership
# What a date says, by the name that a covariate has.
FIELDS = {"year": "year", "month": "month", "hour": "hour"} | dict.fromkeys(
    ("dayofyear", "day_of_year", "doy"), "dayofyear"
)
TRAINED = "the members were trained on"
Place = str | xr.DataArray | None


class OfGrid(TypedDict, total=False):
    """Keywords of `FittedMembers.predict` for grids: names of variables, or arrays on some of the dimensions."""

    region: Place
    membership: xr.DataArray | None
    time: Place
    lon: Place
    lat: Place
    where: xr.DataArray | None
    missing: Missing


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the cells of a grid are predicted from.

    Attributes
    ----------
    covariates, products : dict of name to DataArray
        In the order of the fit, on some of the dimensions, without codes for missing values.
    places : dict of str to DataArray
        What `Regions.weight` wants to know: ``label``, ``membership`` (..., region), or ``lon`` and ``lat``.
    where : DataArray or None
        Cells that are wanted.
    dims : tuple of str
        Dimensions of the grid, in the order of the variable that has most of them.
    coords : dict of name to DataArray
        Coordinates of the grid.
    notes : dict of str to str
        Attributes that the predictions get.
    """

    covariates: dict[str, xr.DataArray]
    products: dict[str, xr.DataArray]
    places: dict[str, xr.DataArray]
    where: xr.DataArray | None
    dims: tuple[str, ...]
    coords: dict[str, xr.DataArray]
    notes: dict[str, str]

    @property
    def lazy(self) -> bool:
        """Whether anything is of dask."""
        every = [*self.covariates.values(), *self.products.values(), *self.places.values()]
        return any(one.chunks is not None for one in (every if self.where is None else [*every, self.where]))

    def isel(self, cells: Mapping[str, slice]) -> Inputs:
        """Some cells."""

        def cut(arrays: Mapping[str, xr.DataArray]) -> dict[str, xr.DataArray]:
            return {name: one.isel(cells, missing_dims="ignore") for name, one in arrays.items()}

        where = None if self.where is None else self.where.isel(cells, missing_dims="ignore")
        return replace(self, covariates=cut(self.covariates), products=cut(self.products), places=cut(self.places),
                       coords=cut(self.coords), where=where)  # fmt: skip

    @property
    def single(self) -> bool:
        """Whether all variables of real numbers are in single precision; coordinates are in double in most files."""
        kinds = {
            one.dtype
            for name, one in {**self.covariates, **self.products}.items()
            if one.dtype.kind == "f" and name not in self.coords
        }
        return kinds == {np.dtype(np.float32)}


def grid_inputs(
    grid: xr.Dataset, members: FittedMembers, *, where: xr.DataArray | None, missing: Missing, **places: Any
) -> Inputs:
    """Find what members are predicted from in a grid, and check it; `places` are those of `OfGrid`."""
    regions, seen = members.regions, members.covariate_ranges
    source = decoded(grid)
    shown = f"the grid ({', '.join(f'{dim}: {size}' for dim, size in source.sizes.items())})"
    named = _named(source, places, shown)
    found, notes = _covariates(source, list(members.covariates), named, shown)
    products = list(members.products)
    check_known(products, source.variables, kind="product", where=shown)
    own = {name: source[name] for name in products}
    dims = _dims({**found, **own})
    template = xr.Dataset(
        {name: one.variable for name, one in {**found, **own}.items() if name not in dims},
        {dim: source[dim].variable for dim in dims if dim in source.variables},
    )
    of_regions = _of_regions(source, regions, named)
    beside = of_regions | {role: one for role, one in named.items() if role in found}
    for name, one in (beside if where is None else beside | {"where": where}).items():
        check_beside(name, one.isel({REGION: 0}, drop=True) if name == "membership" else one, template)
    if where is not None and where.dtype != bool:
        raise TypeError(
            f"where= has dtype {where.dtype}; wanted True or False for each cell, such as grid['rain'].notnull()"
        )
    _check_kinds({**found, **own})
    check_units(found, members.covariate_units, "covariate", "the training table")
    check_units(own, dict.fromkeys(own, members.units), "product", "the members")
    _check_longitudes(found, seen)
    if isinstance(missing, Mapping):
        check_known([name for name in missing if name != OTHERS], [*found, *own], kind="variable", where=shown)
    found, own = (
        {name: looked_through(one.rename(name), kind, missing, seen.get(name), TRAINED) for name, one in arrays.items()}
        for arrays, kind in ((found, "covariate"), (own, "measured"))
    )
    mapping = [one.attrs["grid_mapping"] for one in {**found, **own}.values() if "grid_mapping" in one.attrs]
    notes |= {"grid_mapping": str(mapping[0])} if mapping else {}
    coords = {
        str(name): one for name, one in source.coords.items() if {*map(str, one.dims)} <= {*dims} and name != MEMBER
    }
    return Inputs(found, own, of_regions, where, dims, coords, notes)


# ------------------------------------------------------------------------------------------------------- found by their names
def _named(source: xr.Dataset, places: Mapping[str, Any], shown: str) -> dict[str, xr.DataArray]:
    """Arrays by their role, of those that were named or given."""
    given = {role: one for role, one in places.items() if one is not None}
    check_known([one for one in given.values() if isinstance(one, str)], source.variables, kind="variable", where=shown)
    found = {role: source[one] if isinstance(one, str) else one for role, one in given.items()}
    for role, one in found.items():
        if not isinstance(one, xr.DataArray):
            raise TypeError(f"{role}= is the name of a variable or a DataArray; got {type(one).__name__}.")
    return found


def _covariates(
    source: xr.Dataset, names: list[str], named: Mapping[str, xr.DataArray], shown: str
) -> tuple[dict[str, xr.DataArray], dict[str, str]]:
    """Covariates by their names: those that were given, variables, coordinates, and what the dates say."""
    found: dict[str, xr.DataArray] = {}
    of_dates = []
    for name in names:
        if name in named and name in ("lon", "lat"):
            found[name] = named[name]
        elif name in source.variables:
            found[name] = source[name]
        elif name in FIELDS and (dates := _dates(source, named)) is not None:
            found[name] = getattr(dates.dt, FIELDS[name])
            of_dates.append(name)
    lacking = [name for name in names if name not in found]
    try:
        check_known(lacking, source.variables, kind="covariate", where=shown)
    except KeyError as error:
        if dated := [name for name in lacking if name in FIELDS]:
            error.add_note(f"{listed(dated)}: the grid has no dates that say it; name them: time=...")
        raise
    return found, {"from_dates": ", ".join(of_dates)} if of_dates else {}


def _dates(source: xr.Dataset, named: Mapping[str, xr.DataArray]) -> xr.DataArray | None:
    dates = named.get("time", source["time"] if "time" in source.variables else None)
    if dates is None:
        return None
    if not hasattr(getattr(dates, "dt", None), "dayofyear"):
        raise TypeError(
            f"{dates.name!r} has dtype {dates.dtype}; wanted dates: xarray.decode_cf(grid), or pandas.to_datetime"
        )
    return dates


def _dims(arrays: Mapping[str, xr.DataArray]) -> tuple[str, ...]:
    """All dimensions, in the order of the variable that has most of them."""
    if odd := [name for name, one in arrays.items() if MEMBER in one.dims]:
        raise ValueError(f"covariate(s) {listed(odd)} have the dimension 'member', which the predictions get; take one member, "
                         "isel(member=0), or make each a variable: array.to_dataset('member')")  # fmt: skip
    order = sorted(arrays.values(), key=lambda one: -one.ndim)
    return tuple(dict.fromkeys(str(dim) for one in order for dim in one.dims))


def _of_regions(source: xr.Dataset, regions: Regions, named: Mapping[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """What says which region's fit predicts a cell."""
    if not regions.names:
        return {}
    if regions.length:
        places = {role: named.get(role, source.get(role)) for role in ("lon", "lat")}
        if lacking := [role for role, one in places.items() if one is None]:
            raise ValueError(f"the fits of regions are blended by distance, and the grid has no {listed(lacking)}; wanted the "
                             "places of the cells: lon=..., lat=...")  # fmt: skip
        return {role: one for role, one in places.items() if one is not None}
    if "membership" in named:
        soft = named["membership"]
        if REGION not in soft.dims or REGION not in soft.coords:
            raise ValueError(f"membership has the dimensions {listed(map(str, soft.dims))}; wanted one more, 'region', with "
                             f"the names {listed(regions.names)} as its coordinate")  # fmt: skip
        return {"membership": soft.chunk({REGION: -1}) if soft.chunks is not None else soft}
    if "region" not in named:
        raise ValueError(f"the members have fits of {len(regions.names)} regions ({listed(regions.names)}); wanted region=... "
                         "for the cells (a label that is not among them takes the fit to all regions)")  # fmt: skip
    return {"label": named["region"]}


# ------------------------------------------------------------------------------------------------------------------ their values
def _check_kinds(arrays: Mapping[str, xr.DataArray]) -> None:
    for name, one in arrays.items():
        if one.dtype.kind not in "fiu":
            how = f"grid['{name}'].astype(float)" if one.dtype.kind in "bO" else "name another variable"
            raise TypeError(f"covariate {name!r} of the grid has dtype {one.dtype}; wanted numbers: {how}")


def check_units(arrays: Mapping[str, xr.DataArray], wanted: Mapping[str, str], what: str, where: str) -> None:
    """Refuse arrays that say of themselves that they are in other units than those that were learnt from."""
    for name, one in arrays.items():
        came, asked = str(one.attrs.get("units", "")), wanted.get(name, "")
        if came and asked and came != asked:
            raise ValueError(f"{what} {name!r} is in {came!r} and in {where} in {asked!r}; convert it, and "
                             f"say so: grid[{name!r}].attrs['units'] = {asked!r}")  # fmt: skip


def _check_longitudes(arrays: Mapping[str, xr.DataArray], seen: Mapping[str, Sequence[float]]) -> None:
    """Refuse longitudes that are counted in another way than those of the training rows; of arrays in memory alone."""
    for name, one in arrays.items():
        if name in seen and one.chunks is None and (how := turned(name, one.values, np.array(seen[name]))):
            raise ValueError(f"covariate {name!r} of the grid lies elsewhere than in the training table; {how}")
