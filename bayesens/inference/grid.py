"""What a fit says of the cells of a grid: the law of a table's rows, some cells at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.arithmetic import plain_arithmetic
from bayesens.distributions.mixtures import probability_below
from bayesens.distributions.posterior_mixture import PART_ROWS
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.from_table import COVARIATE, COVARIATE_NAME
from bayesens.inference.fit_tree import history_of, model_of
from bayesens.inference.prediction import QUANTILES, Prediction, check_levels
from bayesens.likelihoods.corrected.widths import columns_asked
from bayesens.messages import check_keywords, check_known, listed, warn
from bayesens.tables.columns import labels, numbers, times
from bayesens.tables.missing_codes import Missing, check_codes, clear_codes
from bayesens.tables.unit_checks import empty_words, warn_ranges

__all__ = ["GridOptions", "predict_grid"]

ROLES = ("site", "group", "time", "lon", "lat")
PARTS = {
    "mean": "predictive mean",
    "sd": "predictive standard deviation",
    "sd_within": "standard deviation within kernels",
    "sd_between": "standard deviation between members",
    "sd_parameter": "standard deviation left open by the posterior",
}
BLOCK = PART_ROWS  # cells that are predicted at a time: their law is kept between quantiles and thresholds
MEMBER = "member"
Place = str | xr.DataArray | None
Threshold = float | xr.DataArray


class GridOptions(TypedDict, total=False):
    """Keywords that `predict` has for grids.

    Attributes
    ----------
    below : float, DataArray or sequence of these
        Thresholds, each a number or a map, of which the probability of lying below is wanted.
    site, group, time, lon, lat : str or DataArray
        Variables of the grid, or arrays on some of its dimensions. Covariates are found by their names.
    where : bool DataArray
        Cells that are wanted; all others are NaN.
    missing : number, list of numbers, mapping of member to these, or "none"
        Codes for missing values, as in `Ensemble.from_frame`.
    """

    below: Threshold | Sequence[Threshold]
    site: Place
    group: Place
    time: Place
    lon: Place
    lat: Place
    where: xr.DataArray | None
    missing: Missing


@dataclass(frozen=True, eq=False)
class _Law:
    """A fit, and what is asked of every block of cells."""

    model: Any
    posterior: xr.Dataset
    history: xr.Dataset | None
    attrs: dict[str, Any]
    members: tuple[str, ...]
    levels: NDArray[np.float64]
    beside: tuple[str, ...]  # names of the arrays beside the members: roles and covariates
    thresholds: int

    @property
    def size(self) -> int:
        """How many numbers a cell gets."""
        return len(PARTS) + len(self.levels) + self.mass + self.thresholds

    @property
    def mass(self) -> bool:
        """Whether zero has a probability of its own."""
        return bool(self.model.transform == "sqrt")

    @plain_arithmetic  # lazy grids are computed after predict_grid has returned
    def of_cells(self, values: NDArray[Any], *others: NDArray[Any]) -> NDArray[Any]:
        """Predict cells (..., member) with what stands beside them (...), as (..., number)."""
        shape = values.shape[:-1]
        flat = values.reshape(-1, values.shape[-1])
        columns = [np.broadcast_to(one, shape).reshape(-1) for one in others]
        out = np.full((len(flat), self.size), np.nan, dtype=values.dtype)
        some = np.arange(len(flat))
        if getattr(self.model, "needs_member", False):  # oceans take no time
            some = np.flatnonzero(~np.isnan(flat).all(axis=1))
        for start in range(0, len(some), BLOCK):
            rows = some[start : start + BLOCK]
            out[rows] = self._of_rows(flat[rows].astype(np.float64), [column[rows] for column in columns])
        return out.reshape(*shape, self.size)

    def _of_rows(self, values: NDArray[np.float64], columns: list[NDArray[Any]]) -> NDArray[np.float64]:
        given = dict(zip(self.beside, columns[: len(self.beside)], strict=True))
        table = _table(values, self.members, given, str(self.attrs["units"]))
        history = () if self.history is None else (self.history,)
        mixture = self.model.predictive(self.posterior, table, *history)
        found = Prediction(self.model, table, np.arange(len(values)), mixture, self.attrs)
        summary = found.summary(self.levels.tolist())
        parts = [summary[name].values for name in PARTS]
        parts += list(summary["quantile_value"].values.T)
        parts += [summary["mass_at_zero"].values] if self.mass else []
        limits = [np.asarray(limit, dtype=np.float64) for limit in columns[len(self.beside) :]]
        parts += [probability_below(found.law, limit).values for limit in limits]
        return np.stack(parts, axis=1)


@plain_arithmetic
def predict_grid(
    tree: xr.DataTree,
    grid: xr.Dataset | xr.DataArray,
    *,
    quantiles: Sequence[float] = QUANTILES,
    model: Any = None,
    **options: Any,
) -> xr.Dataset:
    """Predict every cell of a grid; see `bayesens.predict`.

    Parameters
    ----------
    tree : DataTree
        A fit.
    grid : DataArray or Dataset
        An array with a dimension ``member``, a dataset with such an array ``prediction``, or one with a variable a member; with
        any other dimensions, in memory or of dask. Members are found by their names.
    quantiles : sequence of float
        Levels in (0, 1).
    model : optional
        The model object, if it is one of your own.
    **options
        `GridOptions`.

    Returns
    -------
    Dataset
        Lazy where the grid is of dask; in the grid's precision.
    """
    check_keywords(options, GridOptions.__annotations__, "predict")
    fitted, levels = model_of(tree, model), check_levels(quantiles, "quantiles")
    members, units = tuple(json.loads(tree.attrs["bayesens_members"])), str(tree.attrs["units"])
    source = _decoded(grid.to_dataset(name="prediction") if isinstance(grid, xr.DataArray) else grid)
    array = _by_member(source, members, units)
    beside = _beside(fitted, source, options)
    thresholds = _thresholds(options.get("below", ()))
    where = options.get("where")
    named = beside | {f"below[{n}]": one for n, one in enumerate(thresholds)}
    for name, one in (named if where is None else named | {"where": where}).items():
        _check_dims(name, one, array)
    missing = options.get("missing")
    _warn_labels(tree, beside)
    if array.chunks is None:
        array = _looked_through(array, missing)
        _warn_members(tree, fitted, array)
    else:
        array = _rechunked(array)
        array = xr.apply_ufunc(_cleared, array, kwargs={"members": members, "missing": missing}, dask="parallelized",
                               output_dtypes=[array.dtype], keep_attrs=True)  # fmt: skip
    attrs = {name: tree.attrs[name] for name in ("bayesens_model", "units")}
    law = _Law(fitted, tree["posterior"].to_dataset(), history_of(tree), attrs, members, levels, tuple(beside),
               len(thresholds))  # fmt: skip
    inputs = [*beside.values(), *thresholds]
    values = xr.apply_ufunc(
        law.of_cells, array, *inputs, input_core_dims=[[MEMBER]] + [[]] * len(inputs), output_core_dims=[["number"]],
        dask="parallelized", output_dtypes=[array.dtype], dask_gufunc_kwargs={"output_sizes": {"number": law.size}},
    )  # fmt: skip
    if where is not None:
        values = values.where(where)
    return _labelled(law, values, array, thresholds)


# ------------------------------------------------------------------------------------------------------------- the inputs
def _decoded(source: xr.Dataset) -> xr.Dataset:
    """The grid with packed numbers and fill values decoded, where the file was read without that; lazily."""
    packed = ("scale_factor", "add_offset", "_FillValue", "missing_value")
    if not any(key in variable.attrs for variable in source.variables.values() for key in packed):
        return source
    return xr.decode_cf(source, decode_times=False, decode_coords=False)


def _by_member(source: xr.Dataset, members: tuple[str, ...], units: str) -> xr.DataArray:
    """The members of the fit in its order, (..., member); those that the grid lacks are missing."""
    if "prediction" in source and MEMBER in source["prediction"].dims:
        array = source["prediction"]
        if len(array.chunksizes.get(MEMBER, (0,))) > 1:
            warn("The grid is cut into chunks along 'member', and a cell needs all of its members: they are put "
                 "together, which takes time and memory. Write the grid with all members in one chunk.")  # fmt: skip
        if MEMBER not in array.coords:
            raise ValueError(f"the grid's dimension 'member' has {array.sizes[MEMBER]} members without names; wanted "
                             f"{listed(members)}: assign_coords(member=[...])")  # fmt: skip
        found = {str(name): array.isel({MEMBER: k}, drop=True) for k, name in enumerate(array[MEMBER].values)}
        own_units = {str(array.attrs["units"])} if "units" in array.attrs else set()
    else:
        found = {str(name): one for name, one in source.data_vars.items() if name in members}
        own_units = {str(one.attrs["units"]) for one in found.values() if "units" in one.attrs}
    lacking = [name for name in members if name not in found]
    if len(lacking) == len(members):
        raise ValueError(f"The grid has none of the members of the fit, {listed(members)}; it has "
                         f"{listed(found or source.data_vars) or 'no variable'}. An array of predictions has a dimension "
                         "'member' with their names.")  # fmt: skip
    if units and (others := sorted(own_units - {units})):
        raise ValueError(f"The grid is in {listed(others)} and the fit in {units!r}; convert the grid to {units!r}.")
    if lacking:
        warn(f"The grid lacks {listed(lacking)}: predictions treat {'it' if len(lacking) == 1 else 'them'} as missing in "
             "all cells.")  # fmt: skip
    first = next(iter(found.values()))
    arrays = [found[name] if name in found else xr.full_like(first, np.nan, dtype=first.dtype) for name in members]
    whole = xr.concat(arrays, pd.Index(members, name=MEMBER), coords="minimal", compat="override", join="exact")
    single = whole.dtype == np.float32
    return whole.transpose(..., MEMBER).astype(np.float32 if single else np.float64)


def _beside(model: Any, source: xr.Dataset, options: Mapping[str, Any]) -> dict[str, xr.DataArray]:
    """Labels, times and covariates that the model looks at."""
    where = f"the grid ({', '.join(f'{dim}: {size}' for dim, size in source.sizes.items())})"
    named = {role: options[role] for role in ROLES if options.get(role) is not None}
    check_known([one for one in named.values() if isinstance(one, str)], source.variables, kind="variable", where=where)
    found = {role: source[one] if isinstance(one, str) else one for role, one in named.items()}
    for role, one in found.items():
        if not isinstance(one, xr.DataArray):
            raise TypeError(f"{role}= is the name of a variable or a DataArray; got {type(one).__name__}.")
    if "site" in found and getattr(model, "series", False):
        raise ValueError("HBM(series=True) predicts a site from all of its rows at once, which blocks of a grid do not have: "
                         "leave site out, or predict a table of these rows.")  # fmt: skip
    if getattr(model, "group", False) and "group" not in found:
        warn("The model has effects of groups and the grid is given none: every cell is predicted as in a new group. Name "
             "them with group=...")  # fmt: skip
    needed = [name for name in columns_asked(model) if name not in found]
    lacking = [name for name in needed if name in ROLES and name not in source.variables]
    if lacking:
        raise ValueError(
            f"The model looks at {listed(lacking)}, which the grid lacks; name {lacking[0]}=... of its variables."
        )
    check_known(needed, source.variables, kind="covariate", where=where)
    return found | {name: source[name] for name in needed}


def _thresholds(below: Any) -> list[xr.DataArray]:
    many = below if isinstance(below, Sequence) and not isinstance(below, str) else [below]
    return [one if isinstance(one, xr.DataArray) else xr.DataArray(float(one)) for one in many]


def _check_dims(name: str, one: xr.DataArray, array: xr.DataArray) -> None:
    if extra := [dim for dim in one.dims if dim not in array.dims or dim == MEMBER]:
        dims = [dim for dim in array.dims if dim != MEMBER]
        raise ValueError(
            f"{name!r} has the dimension {listed(extra)}; wanted some of those of the grid, {listed(dims)}"
        )
    try:
        xr.align(array, one, join="exact")
    except ValueError as error:
        raise ValueError(f"{name!r} has other coordinates than the grid; bring it to the grid first (xarray's interp_like, or "
                         "assign_coords where they differ by rounding)") from error  # fmt: skip


def _rechunked(array: xr.DataArray) -> xr.DataArray:
    """All members of a cell in one chunk."""
    return array if len(array.chunksizes[MEMBER]) == 1 else array.chunk({MEMBER: -1})


def _looked_through(array: xr.DataArray, missing: Missing) -> xr.DataArray:
    cleared = _cleared(array.values, members=tuple(array[MEMBER].values.tolist()), missing=missing)
    return array.copy(data=cleared)


def _cleared(values: NDArray[Any], *, members: tuple[str, ...], missing: Missing) -> NDArray[Any]:
    """Cells with codes for missing values set to NaN where they are named, and refused otherwise."""
    columns = {name: values[..., k].reshape(-1).astype(np.float64) for k, name in enumerate(members)}
    clear_codes(columns, missing)
    check_codes(columns, dict.fromkeys(members, "measured"), missing, what="member")
    return np.stack(list(columns.values()), axis=-1).reshape(values.shape).astype(values.dtype)


def _warn_members(tree: xr.DataTree, model: Any, array: xr.DataArray) -> None:
    """Warn of members that are empty, or far outside of what the fit has seen; of a grid in memory alone."""
    if not getattr(model, "uses_members", True):
        return
    one = getattr(model, "member", None)
    used = [name for name in array[MEMBER].values.tolist() if one in (None, name)]
    values = array.sel({MEMBER: used}).values.reshape(-1, len(used))
    empty = np.isnan(values).all(axis=0)
    if empty.any() and not empty.all():
        warn(empty_words([name for name, void in zip(used, empty, strict=True) if void], len(values)))
    warn_ranges(values.astype(np.float64), used, json.loads(tree.attrs.get("member_range", "{}")))


def _warn_labels(tree: xr.DataTree, beside: Mapping[str, xr.DataArray]) -> None:
    """Warn of groups and sites that the fit has not seen; of labels in memory alone."""
    known = tree["posterior"].coords
    for level in ("group", "site"):
        if level not in beside or level not in known or beside[level].chunks is not None:
            continue
        found = labels(pd.Series(pd.unique(beside[level].values.ravel())))
        if new := sorted(set(found.tolist()) - set(known[level].values.tolist())):
            shown = listed([name or "(none)" for name in new], limit=3)
            warn(f"{len(new)} of {len(found)} labels of a {level} are of one that the fit has not seen ({shown}): their cells "
                 f"are predicted as in a new {level}.")  # fmt: skip


def _table(
    values: NDArray[np.float64], members: tuple[str, ...], given: Mapping[str, NDArray[Any]], units: str
) -> Ensemble:
    """Cells as the rows of a table."""
    read = {"site": labels, "group": labels, "time": times}
    columns = {name: read.get(name, numbers)(pd.Series(column, name=name)) for name, column in given.items()}
    coords: dict[str, Any] = {role: ("obs", columns.pop(role)) for role in ROLES if role in columns}
    data: dict[str, Any] = {
        "prediction": (("obs", MEMBER), np.ascontiguousarray(values), {"units": units} if units else {})
    }
    if columns:
        coords[COVARIATE_NAME] = np.array(list(columns), dtype=np.str_)
        data[COVARIATE] = (("obs", COVARIATE_NAME), np.column_stack(list(columns.values())))
    return Ensemble(xr.Dataset(data, coords | {MEMBER: np.array(members, dtype=np.str_)}))


# ------------------------------------------------------------------------------------------------------------ the outputs
def _labelled(law: _Law, values: xr.DataArray, array: xr.DataArray, thresholds: list[xr.DataArray]) -> xr.Dataset:
    """Numbers of every cell as variables with names, units and the coordinates of the grid."""
    units, at = {"units": law.attrs["units"]}, len(PARTS)
    mapping = {key: array.attrs[key] for key in ("grid_mapping",) if key in array.attrs}
    coords = {name: one for name, one in array.coords.items() if MEMBER not in one.dims and name != MEMBER}
    out = xr.Dataset(coords=coords)
    for k, (name, text) in enumerate(PARTS.items()):
        out[name] = values.isel(number=k).assign_attrs(units | {"long_name": text} | mapping)
    out["mean"].attrs["ancillary_variables"] = "sd sd_within sd_between sd_parameter"
    levels = values.isel(number=slice(at, at + len(law.levels))).rename(number="quantile").transpose("quantile", ...)
    out["quantile_value"] = levels.assign_coords(quantile=law.levels).assign_attrs(
        units | {"long_name": "predictive quantile"} | mapping
    )
    at += len(law.levels)
    if law.mass:
        out["mass_at_zero"] = values.isel(number=at).assign_attrs(
            {"long_name": "probability of exactly zero"} | mapping
        )
        at += 1
    if thresholds:
        names = [float(one) if one.ndim == 0 else str(one.name or k) for k, one in enumerate(thresholds)]
        below = values.isel(number=slice(at, None)).rename(number="threshold").transpose("threshold", ...)
        out["probability_below"] = below.assign_coords(threshold=np.array(names)).assign_attrs(
            {"long_name": "probability below the threshold"} | mapping
        )
    return out.assign_attrs(law.attrs)
