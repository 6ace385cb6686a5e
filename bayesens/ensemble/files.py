"""Tables on disk: read as an ensemble, and written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pandas.api import types

from bayesens.ensemble.ensemble import Ensemble
from bayesens.messages import listed
from bayesens.tables.atomic import write_atomically
from bayesens.tables.columns import labels, times
from bayesens.tables.long_tables import model_and_value
from bayesens.tables.reading import read_table, table_suffix

__all__ = ["read_ensemble", "write_netcdf", "write_table"]

# Reading -------------------------------------------------------------------------------------------------------------


def read_ensemble(
    path: str | os.PathLike[str],
    *,
    separator: str | None = None,
    decimal: str | None = None,
    sheet: str | None = None,
    long: str | None = None,
    **columns: Any,
) -> Ensemble:
    r"""Read a file as an `Ensemble`.

    Parameters
    ----------
    path : str or path
        As in `read_table`.
    separator, decimal, sheet : str, optional
        As in `read_table`.
    long : str, optional
        ``"model:value"``: the columns of a long table, one row a model and case, that hold the models' names and predictions,
        as in `Ensemble.from_long`.
    **columns
        As in `Ensemble.from_frame` for a table, `Ensemble.from_dataset` for a dataset: ``members=``,
        ``observation=``, ``site=`` and so on. Sites and groups of a text file are kept as written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "table.csv"
    ...     _ = path.write_text("station,rf,sm\n007,0.25,0.3\n")
    ...     read_ensemble(path, members=["rf"], observation="sm", site="station").labels("site").tolist()
    ['007']
    """
    text = [columns[role] for role in ("site", "group") if isinstance(columns.get(role), str)]
    text += [model_and_value(long)[0]] if long is not None else []
    table = read_table(path, text=text, separator=separator, decimal=decimal, sheet=sheet)
    if isinstance(table, xr.Dataset):
        if long is not None:
            raise ValueError(f"long is {long!r}, and {path} is a dataset; wanted a table: leave it out")
        return Ensemble.from_dataset(table, **columns)
    if long is not None:
        model, value = model_and_value(long)
        return Ensemble.from_long(table, model=model, value=value, **columns)
    return Ensemble.from_frame(table, **columns)


# Writing -------------------------------------------------------------------------------------------------------------


def write_table(data: pd.DataFrame | xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write a table or dataset whole or not at all; the suffix says as what.

    A dataset written as a table has one row for each combination of the dimensions that all its variables share; what
    has a further dimension becomes a column for each of its values (``quantile_0.05``). A table written as a dataset
    has one dimension ``obs``.

    Parameters
    ----------
    data : pandas.DataFrame or xarray.Dataset
        A named index is written as columns, another one is not written.
    path : str or path
        A suffix as in `read_table`.

    Examples
    --------
    >>> import tempfile
    >>> band = xr.Dataset({"mean": ("obs", [1.0, 2.0])}, {"level": [0.05, 0.95]})
    >>> band["quantile"] = ("obs", "level"), [[0.5, 1.5], [1.5, 2.5]]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_table(band, Path(folder) / "prediction.csv")
    ...     print((Path(folder) / "prediction.csv").read_text())
    mean,quantile_0.05,quantile_0.95
    1.0,0.5,1.5
    2.0,1.5,2.5
    <BLANKLINE>
    """
    suffix = table_suffix(Path(path))
    if suffix in (".nc", ".zarr"):
        dataset = data if isinstance(data, xr.Dataset) else _as_dataset(data)
        with write_atomically(path) as aside:
            if suffix == ".nc":
                write_netcdf(dataset, aside)
            else:
                dataset.to_zarr(aside, consolidated=False)
        return
    frame = _as_frame(data) if isinstance(data, xr.Dataset) else data
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    with write_atomically(path) as aside:
        if suffix == ".parquet":
            frame.to_parquet(aside, index=False)
        else:
            frame.to_csv(aside, sep="\t" if suffix.startswith(".tsv") else ",", index=False)


def write_netcdf(data: xr.Dataset | xr.DataTree, path: Path) -> None:
    """By way of memory: on a full disk HDF5 itself does not raise an error, it takes the process down."""
    memory = BytesIO()
    data.to_netcdf(memory, engine="h5netcdf")
    path.write_bytes(memory.getvalue())


def _as_frame(dataset: xr.Dataset) -> pd.DataFrame:
    arrays = list(dataset.data_vars.values())
    rows = [dim for dim in (arrays[0].dims if arrays else ()) if all(dim in array.dims for array in arrays)]
    if not rows:
        shapes = listed(f"{array.name}{tuple(array.dims)}" for array in arrays)
        raise ValueError(
            f"the variables share no dimension ({shapes or 'there are none'}), so they make no table; write .nc"
        )
    columns: dict[Hashable, xr.Variable] = {
        name: coord.variable for name, coord in dataset.coords.items() if coord.dims and set(coord.dims) <= set(rows)
    }
    for array in arrays:
        columns |= _spread(array, rows)
    sizes = {dim: dataset.sizes[dim] for dim in rows}
    cells = {str(name): column.set_dims(sizes) for name, column in columns.items()}
    return pd.DataFrame({name: column.values.reshape(-1) for name, column in cells.items()})


def _spread(array: xr.DataArray, rows: Sequence[Hashable]) -> dict[Hashable, xr.Variable]:
    """One column, or one for each value along the dimensions that are not rows."""
    extra = [dim for dim in array.dims if dim not in rows]
    columns: dict[Hashable, xr.Variable] = {}
    for place in np.ndindex(*(array.sizes[dim] for dim in extra)):
        part = array.isel(dict(zip(extra, place, strict=True)))
        names = [array.get_index(dim)[i] for dim, i in zip(extra, place, strict=True)]
        columns["_".join(map(str, [array.name, *names]))] = part.variable
    return columns


def _as_dataset(frame: pd.DataFrame) -> xr.Dataset:
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    return xr.Dataset({str(name): (("obs",), _plain(column)) for name, column in frame.items()})


def _plain(column: pd.Series) -> NDArray[Any]:
    """Numbers, times or unicode: what NetCDF and Zarr hold."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column.to_numpy()
    if types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return times(column) if types.is_datetime64_any_dtype(column.dtype) else labels(column)
