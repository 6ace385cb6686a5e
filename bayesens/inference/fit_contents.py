"""What a description of a fit reads: its attributes and its draws, from a tree, or from a file without xarray and pandas.

These two take longer to load than all else that `bayesens describe` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["ATTRIBUTES", "FORMAT", "Contents", "contents_of", "read_contents"]

# The layout of a fit file. It grows when an older bayesens could no longer read what a newer one writes.
FORMAT = 2
# What predictions, scores and descriptions read at the root of a fit.
ATTRIBUTES = ("bayesens_options", "bayesens_members", "columns", "units")
SAMPLE = ("chain", "draw")


@dataclass(frozen=True, eq=False)
class Contents:
    """Attributes and posterior draws of a fit.

    Attributes
    ----------
    attrs : mapping of str to value
    chains, draws : int
        How many chains, and draws in each.
    values : dict of name to (dims, array (sample, ...))
        Draws of each parameter, those of all chains one after the other; the dims are those after the first.
    labels : dict of dim to array
    """

    attrs: Mapping[str, Any]
    chains: int
    draws: int
    values: dict[str, tuple[tuple[str, ...], NDArray[Any]]]
    labels: dict[str, NDArray[Any]]


def contents_of(tree: xr.DataTree) -> Contents:
    """Take from a fit what its description reads.

    Parameters
    ----------
    tree : DataTree
        A fit.

    Returns
    -------
    Contents
    """
    posterior = tree["posterior"]
    variables = {str(name): (tuple(map(str, v.dims)), v.values) for name, v in posterior.variables.items()}
    rest = tree["history"].variables if "history" in tree.children else {}
    own = {"own_share": rest["own_share"].values.tolist()} if "own_share" in rest else {}
    return _contents({str(key): value for key, value in tree.attrs.items()} | own, variables)


def read_contents(path: Path) -> Contents | None:
    """Read from a file what the description of a fit reads.

    Parameters
    ----------
    path : path

    Returns
    -------
    Contents or None
        None for what is no fit of this format, or cannot be read: `bayesens.inference.fit_tree.read_fit` says why.
    """
    import h5netcdf  # type: ignore[import-untyped]

    try:
        with h5netcdf.File(path, "r") as file:
            attrs = {name: _plain(value) for name, value in file.attrs.items()}
            group, rest = file["posterior"], file.get("history", {})
            attrs |= {"own_share": rest["own_share"][...].tolist()} if "own_share" in rest else {}
            variables = {name: (tuple(v.dimensions), _text(v[...])) for name, v in group.variables.items()}
    except (OSError, KeyError, ValueError, TypeError):
        return None
    whole = attrs.get("bayesens_format") == FORMAT and all(name in attrs for name in ("bayesens_model", *ATTRIBUTES))
    return _contents(attrs, variables) if whole else None


def _contents(attrs: dict[str, Any], variables: dict[str, tuple[tuple[str, ...], NDArray[Any]]]) -> Contents:
    labels = {name: values for name, (dims, values) in variables.items() if dims == (name,)}
    drawn = {name: both for name, both in variables.items() if set(SAMPLE) <= set(both[0])}
    found = {}
    for name, (dims, values) in drawn.items():
        rest = tuple(dim for dim in dims if dim not in SAMPLE)
        ordered = np.transpose(values, [dims.index(dim) for dim in (*SAMPLE, *rest)])
        found[name] = rest, ordered.reshape(-1, *ordered.shape[2:])
    return Contents(attrs, len(labels["chain"]), len(labels["draw"]), found, labels)


def _plain(value: Any) -> Any:
    """An attribute as Python has it."""
    array = np.asarray(value)
    return array.item() if array.size == 1 and array.dtype.kind in "iufb" else value


def _text(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind != "O":
        return array
    return np.array([v.decode() if isinstance(v, bytes) else v for v in array.ravel()]).reshape(array.shape)
