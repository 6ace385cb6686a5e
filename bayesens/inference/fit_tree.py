"""A fit on disk: read with clear errors, written whole or not at all, and refused where it is none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import xarray as xr

from bayesens.ensemble.files import write_netcdf
from bayesens.inference.fit_contents import ATTRIBUTES, FORMAT
from bayesens.messages import listed
from bayesens.tables.atomic import write_atomically
from bayesens.tables.reading import HDF5, check_there, first_bytes, unreadable

__all__ = ["check_fit_tree", "read_fit", "write_fit"]


def read_fit(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a fit into memory; the file is closed again.

    Parameters
    ----------
    path : str or path
        A NetCDF file written by `write_fit` or by ``fit.to_netcdf``.

    Returns
    -------
    xarray.DataTree

    Raises
    ------
    FileNotFoundError, IsADirectoryError
    ValueError
        Not a NetCDF file, a truncated one, one that is no bayesens fit, one of a newer format.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "fit.nc"
    ...     _ = path.write_text("weight,0.5")
    ...     read_fit(path)
    Traceback (most recent call last):
    ...
    ValueError: ...fit.nc (10 bytes) is not a NetCDF-4 file: it starts with b'weight,0'; wanted a fit written by ...
    """
    path = Path(path)
    check_there(path, folder=False)
    start = first_bytes(path)
    if start != HDF5:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is not a NetCDF-4 file: it starts with {start!r}; wanted a fit "
            "written by bayesens"
        )
    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            tree.load()
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # As in read_table.
        raise unreadable(path, "a fit (NetCDF-4)", error) from error
    try:
        check_fit_tree(tree)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return tree


def check_fit_tree(tree: xr.DataTree) -> None:
    """Refuse a tree that is no bayesens fit, or one of a newer format.

    Parameters
    ----------
    tree : xarray.DataTree
        With the group ``posterior`` and the attributes that predictions are made from at its root: the integer
        ``bayesens_format`` and the texts ``bayesens_model``, ``bayesens_options``, ``bayesens_members``, ``columns`` and
        ``units``.

    Raises
    ------
    TypeError
        Not a tree.
    ValueError

    Examples
    --------
    >>> check_fit_tree(xr.DataTree())
    Traceback (most recent call last):
    ...
    ValueError: this is no bayesens fit: its root has no attributes 'bayesens_format', 'bayesens_model'; ...
    """
    came: object = tree
    if not isinstance(came, xr.DataTree):
        raise TypeError(f"got {type(came).__name__}; wanted a fit, the xarray.DataTree that fit returns")
    lacking = [name for name in ("bayesens_format", "bayesens_model") if name not in tree.attrs]
    if lacking:
        raise ValueError(
            f"this is no bayesens fit: its root has no attributes {listed(lacking)}; wanted what fit returns"
        )
    version = np.asarray(tree.attrs["bayesens_format"])
    if version.size != 1 or version.dtype.kind not in "iu" or version.item() < 1:
        raise ValueError(
            f"this is no bayesens fit: its attribute 'bayesens_format' is {tree.attrs['bayesens_format']!r}; wanted a "
            f"whole number from 1 to {FORMAT}"
        )
    if version.item() < FORMAT:
        raise ValueError(
            f"this fit has format {version.item()}, of a bayesens whose models had other options, and this one reads format "
            f"{FORMAT}: fit again"
        )
    if version.item() > FORMAT:
        raise ValueError(
            f"this fit has format {version.item()}, and this bayesens reads formats up to {FORMAT}: upgrade bayesens, "
            "or fit again with this one"
        )
    lost = [name for name in ATTRIBUTES if name not in tree.attrs]
    lost += [] if "posterior" in tree.children else ["posterior"]
    if lost:
        raise ValueError(
            f"this fit ({tree.attrs['bayesens_model']}) has lost {listed(lost)}; wanted all that fit "
            "returned: take the file as it was first written, or fit again"
        )


def write_fit(tree: xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write a fit to a NetCDF file, whole or not at all.

    Parameters
    ----------
    tree : xarray.DataTree
        What ``fit`` returned.
    path : str or path
        With the suffix ``.nc``.

    Raises
    ------
    OSError
        As in `check_writable`.
    TypeError, ValueError
        Another suffix, or a tree that is no fit (it could not be read back).

    Examples
    --------
    >>> import tempfile
    >>> tree = xr.DataTree.from_dict({"/posterior": xr.Dataset({"sigma": 1.0})})
    >>> texts = {"bayesens_options": "{}", "bayesens_members": "[]", "columns": "{}", "units": ""}
    >>> tree.attrs = {"bayesens_format": 2, "bayesens_model": "BMA"} | texts
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_fit(tree, Path(folder) / "fit.nc")
    ...     read_fit(Path(folder) / "fit.nc").attrs["bayesens_model"]
    'BMA'
    """
    check_fit_tree(tree)
    if Path(path).suffix.lower() != ".nc":
        raise ValueError(f"{path} has the suffix {Path(path).suffix!r}; a fit is a NetCDF file: name it with .nc")
    with write_atomically(path) as aside:
        write_netcdf(tree, aside)
