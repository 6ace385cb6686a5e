"""Members and their combination on a grid, in one pass: `bayesens.map`."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product as combinations
from typing import Any, Unpack

import numpy as np
import xarray as xr

from bayesens.console import progress
from bayesens.inference.arguments import check_fitted_call
from bayesens.inference.fit_tree import model_of
from bayesens.inference.grid import GridOptions, predict_grid
from bayesens.inference.grid_law import Kept
from bayesens.inference.prediction import QUANTILES
from bayesens.likelihoods.corrected.widths import columns_asked
from bayesens.members.day.chain import FEATURES, NAME
from bayesens.members.day.grid import UNOBSERVED, check_without, observed_days, tell_unobserved
from bayesens.members.fitted import FittedMembers
from bayesens.members.grids.inputs import Inputs, Place, check_units, grid_inputs
from bayesens.members.grids.predict import predict_cells
from bayesens.members.grids.products import Product, check_product
from bayesens.messages import check_keywords, check_known, listed, warn
from bayesens.tables.grid_columns import looked_through
from bayesens.tables.grids import decoded
from bayesens.tables.missing_codes import NONE, OTHERS, Missing

__all__ = ["map"]

BLOCK = 2**18  # cells of a grid in memory that go through members and combination at a time
Cells = dict[str, Any]  # slices or positions


def map(  # noqa: A001  # as a map is made: be.map
    members: FittedMembers,
    fit: xr.DataTree,
    covariates: xr.Dataset,
    *,
    products: Mapping[str, xr.DataArray] | xr.Dataset | None = None,
    interpolate: str = "nearest",
    region: Place = None,
    membership: xr.DataArray | None = None,
    quantiles: Sequence[float] = QUANTILES,
    model: Any = None,
    without: xr.DataTree | None = None,
    progressbar: bool = True,
    **options: Unpack[GridOptions],
) -> xr.Dataset:
    """Predict a grid by members and combine them, some cells at a time: the maps of ``predict(fit, members.predict(grid))``.

    Predictions of the members are never held for the whole grid: of a grid in memory some hundred thousand cells at a time go
    through both, and one of dask is lazy and goes through chunk by chunk.

    Parameters
    ----------
    members : FittedMembers
        Fitted to all training rows: ``Members(...).fit()``.
    fit : DataTree
        What combines them, fitted to predictions of rows that the members had not seen (`cross_fit`).
    covariates : Dataset
        The grid, as in `FittedMembers.predict`, with all else that the fit looks at.
    products : mapping of member to DataArray, or Dataset, optional
        Members that are not trained and lie on grids of their own. Those with other coordinates are brought to the cells by
        xarray's ``interp``, NaN beyond their first and last coordinates. Products that lie on the grid may also be variables
        of it.
    interpolate : {"nearest", "linear"}
        How.
    region, membership
        As in `FittedMembers.predict`.
    quantiles, model
        As in `predict`.
    without : DataTree, optional
        Where neighbours are a member of the fit: another of the other members, for days that no station has observed.
    progressbar : bool
        Show one, of a grid in memory.
    **options
        ``below``, ``site``, ``group``, ``time``, ``lon``, ``lat``, ``where`` as in `predict`; time, lon and lat are the members'
        too. ``missing``: codes for missing values in covariates and products.

    Returns
    -------
    Dataset
        What `predict` gives. ``attrs["products"]`` says how products were brought to the grid; where neighbours are a member,
        ``day_observed`` says on which days some station has an observation.

    Raises
    ------
    KeyError, TypeError, ValueError
        As in `FittedMembers.predict` and `predict`; products that are no members of the fit, or have other dimensions than the
        grid.
    MemberError

    Warns
    -----
    UserWarning
        As `predict` does, once for each sentence, with the number of blocks of cells that it was said of. For days that no
        station has observed, unless another fit is there for them.

    Examples
    --------
    >>> import pandas as pd
    >>> import bayesens as be
    >>> from sklearn.linear_model import LinearRegression
    >>> X = pd.DataFrame({"rain": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]})
    >>> members = be.Members({"mlr": LinearRegression()}, X, [0.1, 0.9, 2.1, 2.9, 4.2, 4.8], site=list("abcdef"))
    >>> tree = be.fit(be.SingleMember(bias="none"), be.cross_fit(members, progressbar=False), method="em")
    >>> grid = xr.Dataset({"rain": (("y", "x"), [[2.0, 2.5]])})
    >>> found = be.map(members.fit(progressbar=False), tree, grid, progressbar=False)
    >>> found["mean"].values.round(3).tolist()
    [[2.011, 2.5]]
    """
    check_keywords(options, GridOptions.__annotations__, "map")
    _check_call(members, fit, covariates)
    source = decoded(covariates)
    given: dict[str, Any] = {"products": products, "interpolate": interpolate, "region": region, "membership": membership,
                             "quantiles": quantiles, "model": model, "progressbar": progressbar}  # fmt: skip
    days = observed_days(members.neighbours, fit, source, options.get("time"))
    if days is None:
        return _mapped(members, fit, source, given, dict(options))
    lacking = np.flatnonzero(~np.atleast_1d(days.values))
    if len(lacking) and without is None:
        warn(UNOBSERVED.format(len(lacking), days.size))
    elif len(lacking) == days.size:
        tell_unobserved(members.neighbours, source, options.get("time"))
    if not len(lacking) or without is None:
        return _mapped(members, fit, source, given, dict(options)).assign(day_observed=days)
    check_without(without, members)
    parts, order = [], []
    for tree, some in ((fit, np.flatnonzero(np.atleast_1d(days.values))), (without, lacking)):
        if len(some):
            cells: Cells = {str(dim): some for dim in days.dims}
            cut = {name: _cut(one, cells) for name, one in given.items() if name != "products"} | {"products": products}
            own = {name: _cut(one, cells) for name, one in options.items()}
            parts.append(_mapped(members, tree, source.isel(cells), cut, own))
            order.append(some)
    whole = (
        xr.concat(parts, days.dims[0]).isel({days.dims[0]: np.argsort(np.concatenate(order))})
        if days.dims
        else parts[0]
    )
    return whole.assign(day_observed=days)


def _mapped(
    members: FittedMembers, fit: xr.DataTree, source: xr.Dataset, given: Mapping[str, Any], options: dict[str, Any]
) -> xr.Dataset:
    """The map of one fit."""
    roles: dict[str, Any] = {name: options.get(name) for name in ("time", "lon", "lat")}
    names, progressbar = tuple(json.loads(fit.attrs["bayesens_members"])), given["progressbar"]
    if members.neighbours is not None and NAME not in source and {NAME, *FEATURES} & {*names, *members.covariates}:
        source = members.with_neighbours(source, **roles)
    missing: Any = options.pop("missing", None)
    elsewhere = _elsewhere(given["products"], names, members, source, given["interpolate"], missing)
    whole = _with_products(members, names, source, elsewhere)
    inputs = grid_inputs(
        source, replace(whole, products=tuple(name for name in whole.products if name not in elsewhere)),
        where=options.get("where"), missing=_without(missing, elsewhere), region=given["region"],
        membership=given["membership"], **roles,
    )  # fmt: skip
    columns = columns_asked(model_of(fit, given["model"]))
    fixed = {"quantiles": given["quantiles"], "model": given["model"], "missing": _of_fit(missing, names, columns)}
    run = _Map(whole, members.forms, fit, source, inputs, elsewhere, fixed, options)
    lazy = inputs.lazy or any(one.chunks is not None for one in run.arrays)
    found = run.of_cells({}) if lazy else _by_blocks(run, progressbar)
    stated = "; ".join(f"{name}: {one.words}" for name, one in elsewhere.items())
    return found.assign_attrs({"products": stated} if stated else {})


@dataclass(frozen=True, eq=False)
class _Map:
    """Members and what combines them, for any part of a grid."""

    members: FittedMembers
    forms: Mapping[str, Mapping[str, Any]]
    fit: xr.DataTree
    source: xr.Dataset
    inputs: Inputs
    elsewhere: Mapping[str, Product]
    fixed: Mapping[str, Any]
    options: Mapping[str, Any]
    kept: Kept = field(default_factory=Kept)

    @property
    def arrays(self) -> list[xr.DataArray]:
        """Arrays among the options, and the products on other grids."""
        below = self.options.get("below", ())
        every = [*self.options.values(), *(below if isinstance(below, Sequence) else ())]
        return [one for one in every if isinstance(one, xr.DataArray)] + [one.array for one in self.elsewhere.values()]

    @property
    def sizes(self) -> dict[str, int]:
        """Of the dimensions of the result, in their order."""
        extra = [str(dim) for one in self.elsewhere.values() for dim in one.array.dims]
        return {dim: self.source.sizes[dim] for dim in dict.fromkeys([*self.inputs.dims, *extra])}

    def of_cells(self, cells: Cells) -> xr.Dataset:
        """Predict some cells; all of them where no dimension is cut."""
        grid = self.source.isel(cells, missing_dims="ignore")
        inputs = self.inputs.isel(cells)
        products = inputs.products | {name: one.at(grid, cells) for name, one in self.elsewhere.items()}
        inputs = replace(inputs, products={name: products[name] for name in self.members.products})
        array = predict_cells(inputs, self.forms, self.members.regions, self.members.units)
        options = {name: _cut(one, cells) for name, one in self.options.items()}
        return predict_grid(self.fit, grid.assign(prediction=array), kept=self.kept, **options, **self.fixed)


def _cut(one: Any, cells: Cells) -> Any:
    """An option for some cells."""
    if isinstance(one, xr.DataArray):
        return one.isel(cells, missing_dims="ignore")
    return [_cut(each, cells) for each in one] if isinstance(one, list | tuple) else one


# ------------------------------------------------------------------------------------------------------------------- the door
def _check_call(members: Any, fit: Any, covariates: Any) -> None:
    if isinstance(members, xr.DataTree):
        raise TypeError("be.map takes the members first and the fit second; write be.map(members, fit, covariates)")
    if not isinstance(members, FittedMembers):
        how = ": members.fit()" if type(members).__name__ == "Members" else ": be.Members(...).fit()"
        raise TypeError(f"members is {type(members).__name__}; wanted FittedMembers, fitted to all training rows{how}")
    check_fitted_call("map", fit, covariates)
    if not isinstance(covariates, xr.Dataset):
        raise TypeError(f"covariates is {type(covariates).__name__}; wanted an xarray.Dataset with one variable a covariate (of "
                        "a table: be.predict(fit, ...) with an Ensemble of members.predict(table))")  # fmt: skip


def _elsewhere(
    products: Any, names: tuple[str, ...], members: FittedMembers, source: xr.Dataset, method: str, missing: Missing
) -> dict[str, Product]:
    """Products that were given beside the grid, without codes for missing values."""
    if not isinstance(products, Mapping | None):  # a Dataset is a mapping
        raise TypeError(
            f"products is {type(products).__name__}; wanted arrays by the names of members: products={{'gldas': array}}"
        )
    given = {str(name): one for name, one in (products or {}).items()}
    check_known(given, names, kind="member", where=f"the fit ({len(names)} members)")
    if trained := [name for name in given if name in members.fits]:
        raise ValueError(f"products= has {listed(trained)}, which the members were trained to predict; wanted others")
    found = {name: check_product(name, one, source, method) for name, one in given.items()}
    check_units(
        {name: one.array for name, one in found.items()}, dict.fromkeys(found, members.units), "product", "the members"
    )
    return {name: replace(one, array=looked_through(one.array, "measured", missing)) for name, one in found.items()}


def _without(missing: Missing, names: Mapping[str, Product]) -> Any:
    return (
        {name: code for name, code in missing.items() if name not in names} if isinstance(missing, Mapping) else missing
    )


def _of_fit(missing: Missing, members: tuple[str, ...], columns: tuple[str, ...]) -> Any:
    """Codes in columns that the fit looks at beside the members, whose predictions hold none."""
    given = missing if isinstance(missing, Mapping) else {OTHERS: missing}
    return {name: code for name, code in given.items() if name in (*columns, OTHERS)} | dict.fromkeys(members, NONE)


def _with_products(
    members: FittedMembers, names: tuple[str, ...], source: xr.Dataset, elsewhere: Mapping[str, Product]
) -> FittedMembers:
    """The members with all others of the fit that the grid has, or that were given, as products."""
    own = {*members.fits, *members.products}
    others = [name for name in names if name not in own and (name in elsewhere or name in source.data_vars)]
    return replace(members, products=(*members.products, *others)) if others else members


# ----------------------------------------------------------------------------------------------------------- grids in memory
def _by_blocks(run: _Map, progressbar: bool) -> xr.Dataset:
    """Predict a grid in memory block by block, into arrays of its size."""
    sizes = run.sizes
    blocks = list(_blocks(sizes))
    said = _Said(len(blocks))
    out: dict[str, Any] = {}
    with progress(len(blocks), "Map", progressbar and len(blocks) > 1) as advance:
        for cells in blocks:
            with said.by_a_block():
                found = run.of_cells(cells)
            for name, one in found.data_vars.items():
                if name not in out:
                    shape = tuple(sizes.get(str(dim), size) for dim, size in one.sizes.items())
                    out[str(name)] = np.full(shape, np.nan, dtype=one.dtype)
                out[str(name)][tuple(cells.get(str(dim), slice(None)) for dim in one.dims)] = one.values
            advance()
    said.told()
    own = {name: one for name, one in found.coords.items() if not {*one.dims} & {*sizes}}
    data = {name: (found[name].dims, values, found[name].attrs) for name, values in out.items()}
    return xr.Dataset(data, {**run.inputs.coords, **own}, found.attrs)


def _blocks(sizes: Mapping[str, int]) -> Iterator[Cells]:
    """Parts of a grid with so many cells at most: whole along the last dimensions, cut along the first ones."""
    length, left = dict(sizes), BLOCK
    for dim in reversed(list(sizes)):
        length[dim] = max(1, min(sizes[dim], left))
        left //= length[dim]
    cuts = [[slice(i, min(i + length[dim], size)) for i in range(0, size, length[dim])] for dim, size in sizes.items()]
    for part in combinations(*cuts):
        yield dict(zip(sizes, part, strict=True))


@dataclass(frozen=True)
class _Said:
    """Warnings of many blocks, each sentence once, whatever its numbers are."""

    blocks: int
    texts: dict[str, list[Any]] = field(default_factory=dict)

    @contextmanager
    def by_a_block(self) -> Iterator[None]:
        """Note what is warned of."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for one in caught:
            key = re.sub(r"[\d.,]+", "0", f"{one.category.__name__} {one.message}")
            self.texts.setdefault(key, [one, 0])[1] += 1

    def told(self) -> None:
        """Warn once of each."""
        for one, times in self.texts.values():
            if not issubclass(one.category, UserWarning):
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
            elif self.blocks == 1:
                warn(str(one.message))
            else:
                warn(f"In {times} of {self.blocks} blocks of cells (numbers are those of the first): {one.message}")
