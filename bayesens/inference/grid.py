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
from bayesens.ensemble.from_table import COVARIATE, COVARIATE_NAME
from bayesens.inference.fit_tree import history_of, model_of
from bayesens.inference.grid_law import PARTS, ROLES, GridLaw, Kept
from bayesens.inference.prediction import QUANTILES, check_levels
from bayesens.likelihoods.corrected.widths import columns_asked
from bayesens.messages import check_keywords, check_known, listed, warn, warn_once
from bayesens.tables.columns import labels
from bayesens.tables.grid_columns import looked_through
from bayesens.tables.grids import MEMBER, check_beside, decoded, turned
from bayesens.tables.missing_codes import LAT, LON, NONE, OTHERS, Missing, check_codes, clear_codes
from bayesens.tables.unit_checks import empty_words, of_grid, range_words

__all__ = ["GridInputs", "GridOptions", "predict_grid"]

SOME = 1_000  # cells of a chunk that show whether a member is in another unit
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
    variables : sequence of str
        Which of "mean", "sd", "sd_within", "sd_between" and "sd_parameter" are wanted beside quantiles and probabilities; all
        where nothing is said.
    """

    below: Threshold | Sequence[Threshold]
    site: Place
    group: Place
    time: Place
    lon: Place
    lat: Place
    where: xr.DataArray | None
    missing: Missing
    variables: Sequence[str]


@plain_arithmetic
def predict_grid(
    tree: xr.DataTree,
    grid: xr.Dataset | xr.DataArray,
    *,
    quantiles: Sequence[float] = QUANTILES,
    model: Any = None,
    kept: Kept | None = None,
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
    kept : Kept, optional
        What other grids, or parts of this one, have found of the same fit and model.
    **options
        `GridOptions`.

    Returns
    -------
    Dataset
        Lazy where the grid is of dask; in the grid's precision.
    """
    check_keywords(options, GridOptions.__annotations__, "predict")
    fitted, levels = model_of(tree, model), check_levels(quantiles, "quantiles") if len(quantiles) else np.zeros(0)
    parts = tuple(dict.fromkeys(options.get("variables", PARTS)))
    check_known(parts, PARTS, kind="variable", where="a prediction")
    inputs = GridInputs.of(tree, fitted, grid, options)
    first, thresholds, order = inputs.arrays[0], inputs.thresholds, np.argsort(levels, kind="stable")
    law = inputs.law(tree, fitted, history_of(tree), levels=levels[order], parts=parts, kept=kept or Kept())
    sizes = {"quantile": len(levels)} | ({"threshold": len(thresholds)} if thresholds else {})
    dims: list[list[str]] = [[]] * len(parts) + [["quantile"]] + [[]] * law.mass + [["threshold"]] * bool(thresholds)
    found = xr.apply_ufunc(law.of_cells, *inputs.arrays, *inputs.beside.values(), *thresholds, output_core_dims=dims,
                           dask="parallelized", output_dtypes=[first.dtype] * len(dims),
                           dask_gufunc_kwargs={"output_sizes": sizes})  # fmt: skip
    if inputs.where is not None:
        found = [one.where(inputs.where) for one in found]
    names = (*parts, "quantile_value", *["mass_at_zero"] * law.mass, *["probability_below"] * bool(thresholds))
    values = dict(zip(names, found, strict=True))
    values["quantile_value"] = values["quantile_value"].isel(quantile=np.argsort(order))
    return _labelled(law, values, first, levels, thresholds)


@dataclass(frozen=True, eq=False)
class GridInputs:
    """A grid brought to a fit.

    Attributes
    ----------
    source : Dataset
        The grid, decoded.
    arrays : list of DataArray
        The members of the fit, in its order.
    beside : dict of DataArray
        Labels, times and covariates that the model looks at.
    thresholds : list of DataArray
    where : bool DataArray, optional
        Cells that are wanted.
    """

    source: xr.Dataset
    arrays: list[xr.DataArray]
    beside: dict[str, xr.DataArray]
    thresholds: list[xr.DataArray]
    where: xr.DataArray | None

    @classmethod
    def of(
        cls, tree: xr.DataTree, model: Any, grid: xr.Dataset | xr.DataArray, options: Mapping[str, Any]
    ) -> GridInputs:
        """Find what the fit needs in a grid; refuse or warn of what does not fit."""
        members, units = tuple(json.loads(tree.attrs["bayesens_members"])), str(tree.attrs["units"])
        source = decoded(grid.to_dataset(name="prediction") if isinstance(grid, xr.DataArray) else grid)
        arrays = _by_member(source, members, units)
        beside, thresholds = _beside(model, source, options), _thresholds(options.get("below", ()), units)
        where = options.get("where")
        named = beside | {f"below[{n}]": one for n, one in enumerate(thresholds)}
        for name, one in (named if where is None else named | {"where": where}).items():
            check_beside(name, one, arrays[0])
        columns = columns_asked(model)
        of_members, of_columns = _codes(options.get("missing"), members, columns)
        beside |= {name: _column_looked_through(tree, beside[name].rename(name), of_columns) for name in columns}
        _warn_labels(tree, beside)
        lazy = any(one.chunks is not None for one in arrays)
        ranges = _ranges_of_used(tree, model) if lazy else {}
        arrays = _looked_through(arrays, members, of_members, ranges)
        beside |= _labels_looked_through(tree, beside)
        if not lazy:
            _warn_members(tree, model, dict(zip(members, arrays, strict=True)))
        return cls(source, arrays, beside, thresholds, where)

    def law(self, tree: xr.DataTree, model: Any, history: xr.Dataset | None, **asked: Any) -> GridLaw:
        """The law of the grid's cells; `asked` are levels and parts."""
        attrs = {name: tree.attrs[name] for name in ("bayesens_model", "units")}
        ranges = json.loads(tree.attrs.get("member_range", "{}"))  # fits of before have none
        members = tuple(json.loads(tree.attrs["bayesens_members"]))
        return GridLaw(model, tree["posterior"].to_dataset(), history, attrs, members, ranges, tuple(self.beside),
                       len(self.thresholds), **asked)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- the inputs
def _by_member(source: xr.Dataset, members: tuple[str, ...], units: str) -> list[xr.DataArray]:
    """The members of the fit in its order, with the same dimensions; those that the grid lacks are missing."""
    found, own_units = _named_members(source, members)
    lacking = [name for name in members if name not in found]
    others = [name for name in found if name not in members]
    if len(lacking) == len(members):
        raise ValueError(f"The grid has none of the members of the fit, {listed(members)}; it has "
                         f"{listed(found or source.data_vars) or 'no variable'}. {_how_to_name(source, members)}")  # fmt: skip
    if units and (odd := sorted(own_units - {units})):
        raise ValueError(f"The grid is in {listed(odd)} and the fit in {units!r}; convert the grid to {units!r}, and say "
                         "so in its attribute 'units'.")  # fmt: skip
    if lacking:
        beside = f" It has {listed(others)}, which the fit does not know: rename what is meant." if others else ""
        warn(f"The grid lacks {listed(lacking)}: predictions treat {'it' if len(lacking) == 1 else 'them'} as missing in "
             f"all cells.{beside}")  # fmt: skip
    found = {name: one for name, one in found.items() if name in members}
    widest = max(found.values(), key=lambda one: one.ndim)
    single = all(one.dtype == np.float32 for one in found.values())
    widest = widest.astype(np.float32 if single else np.float64, copy=False)
    empty = xr.full_like(widest, np.nan)
    arrays = [found[name].astype(widest.dtype, copy=False) if name in found else empty for name in members]
    arrays = [one if one.dims == widest.dims else one.broadcast_like(widest).transpose(*widest.dims) for one in arrays]
    return list(xr.align(*arrays, join="exact"))


def _named_members(source: xr.Dataset, members: tuple[str, ...]) -> tuple[dict[str, xr.DataArray], set[str]]:
    """Arrays by the names of members, and the units that they say."""
    if "prediction" not in source or MEMBER not in source["prediction"].dims:
        near = {name for known in members for name in map(str, source.data_vars) if name.lower() == known.lower()}
        found = {str(name): one for name, one in source.data_vars.items() if str(name) in {*members, *near}}
        return found, {
            str(found[name].attrs["units"]) for name in members if "units" in getattr(found.get(name), "attrs", {})
        }
    array = source["prediction"]
    if MEMBER not in array.coords:
        raise ValueError(f"the grid's dimension 'member' has {array.sizes[MEMBER]} members without names; wanted "
                         f"{listed(members)}: assign_coords(member=[...])")  # fmt: skip
    names = [str(name) for name in array[MEMBER].values]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the grid's dimension 'member' has {listed(twice)} more than once, among {listed(names)}; wanted each "
                         "once: drop or rename the others, assign_coords(member=[...])")  # fmt: skip
    found = {name: array.isel({MEMBER: k}, drop=True) for k, name in enumerate(names)}
    return found, {str(array.attrs["units"])} if "units" in array.attrs else set()


def _how_to_name(source: xr.Dataset, members: tuple[str, ...]) -> str:
    """What to do where no member is found: another dimension may have their names, or one member may have been taken."""
    for dim in map(str, source.dims):
        if dim in source.coords and {*members} & {str(name) for name in source[dim].values}:
            name = next((str(name) for name, one in source.data_vars.items() if dim in one.dims), "")
            renames = {old: new for old, new in ((dim, MEMBER), (name, "prediction")) if old != new}
            return f"Its dimension {dim!r} has their names: rename({renames})."
    if MEMBER in source.coords and not source[MEMBER].dims:
        return f"It was cut to the member {str(source[MEMBER].values)!r}: give all of them, along a dimension 'member'."
    return "An array of predictions has a dimension 'member' with their names."


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


def _codes(missing: Missing, members: tuple[str, ...], columns: tuple[str, ...]) -> tuple[Missing, Missing]:
    """Codes for missing values in members, and in the columns that the model looks at beside them."""
    if not isinstance(missing, Mapping):
        return missing, missing
    check_known(
        [name for name in missing if name != OTHERS], [*members, *columns], kind="member or covariate", where="the fit"
    )
    own, beside = (
        {name: code for name, code in missing.items() if name in (*names, OTHERS)} for names in (members, columns)
    )
    return own, beside


def _column_looked_through(tree: xr.DataTree, one: xr.DataArray, missing: Missing) -> xr.DataArray:
    """A column that the model looks at: without codes, and told where it lies far from that of the fit's rows."""
    name, rows = str(one.name), tree["constant_data"].to_dataset() if "constant_data" in tree.children else xr.Dataset()
    seen = rows.get(name)
    if seen is None and COVARIATE in rows and name in rows[COVARIATE_NAME].values:
        seen = rows[COVARIATE].sel({COVARIATE_NAME: name})
    if seen is not None and one.chunks is None and (how := turned(name, one.values, seen.values)):
        raise ValueError(f"The grid lies elsewhere than the rows of the fit; {how}")
    if one.dtype.kind not in "fiu":
        return one
    ends = None if seen is None else (float(seen.min()), float(seen.max()))
    kind = name if name in (LON, LAT) else "covariate"
    return looked_through(one, kind, missing, ends, "the rows of the fit have")


def _thresholds(below: Any, units: str) -> list[xr.DataArray]:
    many = below if isinstance(below, Sequence) and not isinstance(below, str) else [below]
    found = [one if isinstance(one, xr.DataArray) else xr.DataArray(float(one)) for one in many]
    if units and (odd := {str(one.attrs["units"]) for one in found if "units" in one.attrs} - {units}):
        raise ValueError(
            f"below= has a map in {listed(sorted(odd))} and the fit is in {units!r}; convert the map to {units!r}, and say so in "
            "its attribute 'units'."
        )
    return found


def _looked_through(
    arrays: list[xr.DataArray], members: tuple[str, ...], missing: Missing, ranges: Mapping[str, Sequence[float]]
) -> list[xr.DataArray]:
    """Members with their codes for missing values set to NaN where they are named, and refused otherwise.

    `ranges` are those that chunks are held against.
    """
    kwargs = {"members": members, "missing": missing, "ranges": ranges, "said": set()}
    out = xr.apply_ufunc(_cleared, *arrays, kwargs=kwargs, output_core_dims=[[]] * len(arrays), dask="parallelized",
                         output_dtypes=[arrays[0].dtype] * len(arrays), keep_attrs=True)  # fmt: skip
    return [out] if isinstance(out, xr.DataArray) else list(out)


def _cleared(
    *arrays: NDArray[Any],
    members: tuple[str, ...],
    missing: Missing,
    ranges: Mapping[str, Sequence[float]],
    said: set[str],
) -> Any:
    named = missing is not None and missing != NONE
    columns = {name: one.astype(np.float64).reshape(-1) if named else one.reshape(-1)
               for name, one in zip(members, arrays, strict=True)}  # fmt: skip
    if named:
        clear_codes(columns, missing)
    check_codes(columns, dict.fromkeys(members, "measured"), missing, what="member")
    for name, ends in ranges.items():
        some = columns[name][:: max(1, columns[name].size // SOME)].astype(np.float64)
        warn_once(range_words(name, some, ends, of="", how=of_grid), said)
    if not named:
        return arrays if len(arrays) > 1 else arrays[0]
    out = tuple(columns[name].reshape(one.shape).astype(one.dtype) for name, one in zip(members, arrays, strict=True))
    return out if len(out) > 1 else out[0]


def _ranges_of_used(tree: xr.DataTree, model: Any) -> dict[str, list[float]]:
    """Of each member that the model uses, the range that the fit has seen; fits of before have none."""
    ranges: dict[str, list[float]] = json.loads(tree.attrs.get("member_range", "{}"))
    one = getattr(model, "member", None)
    used = getattr(model, "uses_members", True)
    return {name: ends for name, ends in ranges.items() if used and one in (None, name)}


def _warn_members(tree: xr.DataTree, model: Any, arrays: Mapping[str, xr.DataArray]) -> None:
    """Warn of members that are empty, or far outside of what the fit has seen; of a grid in memory alone."""
    if not getattr(model, "uses_members", True):
        return
    one = getattr(model, "member", None)
    used = {name: array.values.reshape(-1) for name, array in arrays.items() if one in (None, name)}
    empty = [name for name, values in used.items() if np.isnan(values).all()]
    if empty and len(empty) < len(used):
        warn(empty_words(empty, next(iter(used.values())).size, of="cells"))
    for name, ends in _ranges_of_used(tree, model).items():
        if words := range_words(name, used[name], ends, of="cells", how=of_grid):
            warn(words)


def _warn_labels(tree: xr.DataTree, beside: Mapping[str, xr.DataArray]) -> None:
    """Warn of groups and sites that the fit has not seen; of labels in memory alone."""
    for level, known in _known_labels(tree, beside).items():
        if beside[level].chunks is None and (new := _not_known(beside[level].values, known)):
            shown, total = (
                listed([name or "(none)" for name in new], limit=3),
                len(pd.unique(beside[level].values.ravel())),
            )
            warn(f"{len(new)} of {total} labels of a {level} are of one that the fit has not seen ({shown}): their cells "
                 f"are predicted as in a new {level}.")  # fmt: skip


def _labels_looked_through(tree: xr.DataTree, beside: Mapping[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """Labels of dask, whose chunks warn of what the fit has not seen."""
    return {
        level: xr.apply_ufunc(_labels_of_chunk, beside[level], kwargs={"level": level, "known": known, "said": set()},
                              dask="parallelized", output_dtypes=[beside[level].dtype], keep_attrs=True)
        for level, known in _known_labels(tree, beside).items() if beside[level].chunks is not None
    }  # fmt: skip


def _labels_of_chunk(values: NDArray[Any], *, level: str, known: frozenset[str], said: set[str]) -> NDArray[Any]:
    if _not_known(values, known):
        warn_once(
            f"Some labels of a {level} are of one that the fit has not seen: their cells are predicted as in a new {level}.",
            said,
        )
    return values


def _known_labels(tree: xr.DataTree, beside: Mapping[str, xr.DataArray]) -> dict[str, frozenset[str]]:
    coords = tree["posterior"].coords
    return {
        level: frozenset(coords[level].values.tolist())
        for level in ("group", "site")
        if level in beside and level in coords
    }


def _not_known(values: NDArray[Any], known: frozenset[str]) -> list[str]:
    """Labels that a fit has not seen."""
    return sorted({*labels(pd.Series(pd.unique(values.ravel()))).tolist()} - known)


# ------------------------------------------------------------------------------------------------------------ the outputs
def _labelled(
    law: GridLaw,
    values: dict[str, xr.DataArray],
    array: xr.DataArray,
    levels: NDArray[Any],
    thresholds: list[xr.DataArray],
) -> xr.Dataset:
    """Numbers of every cell as variables with names, units and the coordinates of the grid."""
    units = {"units": law.attrs["units"]}
    mapping = {key: array.attrs[key] for key in ("grid_mapping",) if key in array.attrs}
    coords = {name: one for name, one in array.coords.items() if MEMBER not in one.dims and name != MEMBER}
    out = xr.Dataset(coords=coords)
    for name in law.parts:
        out[name] = values[name].assign_attrs(units | {"long_name": PARTS[name]} | mapping)
    if "mean" in out and (others := [name for name in law.parts if name != "mean"]):
        out["mean"].attrs["ancillary_variables"] = " ".join(others)
    if len(levels):
        quantile = values["quantile_value"].transpose("quantile", ...).assign_coords(quantile=levels)
        out["quantile_value"] = quantile.assign_attrs(units | {"long_name": "predictive quantile"} | mapping)
    if law.mass:
        text = {"long_name": "probability of exactly zero"}
        out["mass_at_zero"] = values["mass_at_zero"].assign_attrs(text | mapping)
    if thresholds:
        names = [float(one) if one.ndim == 0 else str(one.name or k) for k, one in enumerate(thresholds)]
        below = values["probability_below"].transpose("threshold", ...).assign_coords(threshold=np.array(names))
        out["probability_below"] = below.assign_attrs({"long_name": "probability below the threshold"} | mapping)
    return out.assign_attrs(law.attrs)
