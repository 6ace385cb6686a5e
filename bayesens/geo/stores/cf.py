"""Attributes of the conventions for climate and forecast data (CF 1.11) for maps, their coordinates and the file."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

from bayesens import __version__
from bayesens.geo.stores.axes import Axes
from bayesens.geo.stores.crs import GRID_MAPPING, grid_mapping_attributes
from bayesens.geo.stores.packing import MOST, Packing
from bayesens.geo.stores.quality import FLAGS, QUALITY

__all__ = ["described", "file_attributes", "fit_digest", "moment"]

CONVENTIONS = "CF-1.11"
BESIDE = ("sd", "sd_within", "sd_between", "sd_parameter", QUALITY)  # what is told of the mean
PROBABILITY = {"units": "1", "valid_range": [0.0, 1.0]}
VARIABLES: dict[str, dict[str, Any]] = {"probability_below": PROBABILITY, "mass_at_zero": PROBABILITY}
COORDINATES = {
    "quantile": {"long_name": "level of the quantile", "units": "1"},
    "threshold": {"long_name": "threshold"},
}
TIME = {"standard_name": "time", "axis": "T", "units_metadata": "leap_seconds: unknown"}
VERSIONS = ("numpy", "xarray", "zarr")


def moment() -> str:
    """Now, in UTC; or the moment that SOURCE_DATE_EPOCH names, where outputs are to be the same on any day.

    https://reproducible-builds.org/specs/source-date-epoch
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.now(UTC) if epoch is None else datetime.fromtimestamp(int(epoch), UTC)
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def fit_digest(fit: xr.DataTree) -> str:
    """SHA-256 of what predictions are made from: model, options, members, and every draw.

    Examples
    --------
    >>> fit = xr.DataTree.from_dict({"/posterior": xr.Dataset({"sigma": ("draw", [1.0, 2.0])})})
    >>> other = xr.DataTree.from_dict({"/posterior": xr.Dataset({"sigma": ("draw", [1.0, 2.1])})})
    >>> fit_digest(fit) == fit_digest(other), len(fit_digest(fit))
    (False, 64)
    """
    digest = hashlib.sha256()
    for key in ("bayesens_model", "bayesens_options", "bayesens_members", "data_digest", "units"):
        digest.update(f"{key}={fit.attrs.get(key, '')}\n".encode())
    for group in ("posterior", "history"):
        if group in fit.children:
            for name, one in sorted(fit[group].to_dataset().variables.items(), key=lambda pair: str(pair[0])):
                digest.update(f"{group}/{name}{one.dims}{one.shape}{one.dtype.str}\n".encode())
                digest.update(np.ascontiguousarray(one.values).tobytes())
    return digest.hexdigest()


def file_attributes(maps: xr.Dataset, fit: xr.DataTree | None, begun: str) -> dict[str, Any]:
    """Attributes of the file: conventions, where it comes from, and what was done.

    Parameters
    ----------
    maps : Dataset
    fit : DataTree, optional
    begun : str
        The moment of writing, from `moment`.
    """
    model = str(maps.attrs.get("bayesens_model", fit.attrs["bayesens_model"] if fit is not None else ""))
    software = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    source = f"bayesens {__version__} ({software}, Python {platform.python_version()})"
    attrs = {str(key): value for key, value in maps.attrs.items() if ":" not in str(key) and key != "zarr_conventions"}
    attrs["Conventions"] = CONVENTIONS
    attrs.setdefault("title", f"Maps predicted by {model}" if model else "Predicted maps")
    attrs["history"] = f"{begun} bayesens {__version__}: write_map\n{maps.attrs.get('history', '')}".strip()
    if fit is not None:
        digest = fit_digest(fit)
        source = f"{model}, fit {digest[:16]}, data {str(fit.attrs.get('data_digest', ''))[:16]}; {source}"
        attrs |= {"bayesens_fit_digest": digest, "bayesens_options": str(fit.attrs.get("bayesens_options", ""))}
    attrs["source"] = source
    return {key: _plain(value) for key, value in attrs.items() if value is not None}


def _plain(value: Any) -> Any:
    """An attribute as every format takes it."""
    if isinstance(value, bool | np.bool_):
        return int(value)
    return json.dumps(value) if isinstance(value, dict) else value


def described(
    maps: xr.Dataset, axes: Axes, crs: Any, packed: dict[str, Packing], standard_name: str | None
) -> xr.Dataset:
    """Maps with the attributes of CF, with their grid mapping and the bounds of cells; values as they are.

    Parameters
    ----------
    maps : Dataset
    axes : Axes
    crs : pyproj.CRS or None
    packed : dict of str to Packing
    standard_name : str, optional
        Of the quantity that is predicted.
    """
    out = maps.copy()
    old = [name for name, one in out.variables.items() if not one.ndim and "grid_mapping_name" in one.attrs]
    out = out.drop_vars([name for name in {*old, GRID_MAPPING} if name in out.variables])
    for name in out.data_vars:
        out[name].attrs = _variable_attributes(out, str(name), packed.get(str(name)), standard_name)
        out[name].encoding = {"grid_mapping": GRID_MAPPING} if {axes.y, axes.x} <= set(map(str, out[name].dims)) else {}
    _describe_coordinates(out, axes, crs)
    for dim, bounds in axes.bounds.items():
        held = f"{dim}_bnds"
        if held not in out.variables:
            out[dim].attrs["bounds"] = held
            out[held] = xr.DataArray(bounds, dims=(dim, "bnds"))
    return out.assign_coords({GRID_MAPPING: xr.DataArray(np.int32(0), attrs=grid_mapping_attributes(crs, axes))})


def _variable_attributes(
    maps: xr.Dataset, name: str, packing: Packing | None, standard_name: str | None
) -> dict[str, Any]:
    attrs = {
        key: _plain(value)
        for key, value in maps[name].attrs.items()
        if key not in ("grid_mapping", "ancillary_variables")
    }
    attrs |= VARIABLES.get(name, {})
    attrs.setdefault("long_name", name.replace("_", " "))
    if "valid_range" in attrs:
        attrs["valid_range"] = np.asarray(attrs["valid_range"], dtype=maps[name].dtype)
    if attrs.get("units") == "":
        del attrs["units"]
    if standard_name and name == "mean":
        attrs["standard_name"] = standard_name
    if standard_name and name == "sd":
        attrs["standard_name"] = f"{standard_name} standard_error"
    beside = [one for one in BESIDE if one in maps or one == QUALITY] if name == "mean" else [QUALITY]
    if name != QUALITY and name in maps.data_vars:
        attrs["ancillary_variables"] = " ".join(beside)
    if packing is not None:
        attrs.pop("valid_range", None)
        attrs["packing_error"] = packing.scale / 2
        attrs["packing_limits"] = [float(f"{one:.12g}") for one in packing.limits]
        rule = f"value = number * {packing.scale:g} + {packing.offset:g}, numbers from {-MOST} to {MOST}"
        attrs["comment"] = (
            f"packed: {rule}; off by {packing.scale / 2:g} at most; values beyond are set to the limit and flagged"
        )
    return attrs


def quality_attributes() -> dict[str, Any]:
    """Attributes of the flags."""
    return {
        "long_name": "conditions of the prediction of a cell",
        "standard_name": "quality_flag",
        "flag_masks": np.array(list(FLAGS.values()), dtype=np.uint8),
        "flag_meanings": " ".join(FLAGS),
    }


def _describe_coordinates(maps: xr.Dataset, axes: Axes, crs: Any) -> None:
    told = {} if crs is None else {one["axis"]: one for one in crs.cs_to_cf() if one.get("axis") in ("X", "Y")}
    for axis, dim, held in (("Y", axes.y, axes.rows), ("X", axes.x, axes.columns)):
        if held is None:
            continue
        own = dict(maps[dim].attrs)
        maps[dim].attrs = {"axis": axis} | told.get(axis, {}) | own
    for name, attrs in COORDINATES.items():
        if name in maps.coords:
            units = (
                {"units": maps["mean"].attrs["units"]}
                if name == "threshold" and maps["mean"].attrs.get("units")
                else {}
            )
            numeric = maps[name].dtype.kind in "iuf"
            maps[name].attrs = attrs | (units if numeric else {}) | maps[name].attrs
    for one in maps.coords.values():
        if one.dtype.kind == "M" and one.ndim == 1:
            one.attrs = TIME | one.attrs
