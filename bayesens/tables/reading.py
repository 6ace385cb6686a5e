"""The one way from a file to a table or dataset: every command, study and function reads through it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.messages import listed, warn
from bayesens.tables.atomic import full_suffix
from bayesens.tables.calendars import decoded, decoded_each
from bayesens.tables.text_tables import (
    MISSING,
    BadTable,
    check_header,
    check_summary_rows,
    read_text_table,
    tidy_labels,
)

__all__ = [
    "HDF5",
    "READABLE",
    "TABLES",
    "as_table",
    "check_there",
    "first_bytes",
    "read_table",
    "table_suffix",
    "unreadable",
]

TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".nc", ".zarr")  # written as well
READABLE = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".dat", ".xlsx", ".parquet", ".nc", ".zarr")
HDF5 = b"\x89HDF\r\n\x1a\n"
# How files of a kind begin: one that does, and cannot be read, is cut; another is of another kind.
STARTS = {".nc": (HDF5, b"CDF"), ".parquet": (b"PAR1",), ".xlsx": (b"PK",), "a fit (NetCDF-4)": (HDF5,)}


def read_table(
    path: str | os.PathLike[str],
    *,
    text: Sequence[str] = (),
    separator: str | None = None,
    decimal: str | None = None,
    sheet: str | None = None,
) -> pd.DataFrame | xr.Dataset:
    r"""Read a table or dataset into memory; its suffix says what it is.

    Parameters
    ----------
    path : str or path
        ``.csv``, ``.tsv``, ``.txt`` (each also ``.gz``), ``.dat``, ``.xlsx`` or ``.parquet`` (a table), ``.nc`` or ``.zarr`` (a
        dataset).
    text : sequence of str
        Columns of labels, kept as written, so that station 007 does not become 7, nor a station NA a gap. Blanks at their
        ends are cut.
    separator : str, optional
        What stands between the cells of a text file. None: commas or tabs as the suffix says, or semicolons, tabs, bars or
        blanks where these divide header and rows alike.
    decimal : {".", ","}, optional
        How decimals are written in a text file. None: points; columns that have decimal commas are refused by name.
    sheet : str, optional
        Of an .xlsx file. None: the first one; a warning names others that hold something.

    Returns
    -------
    pandas.DataFrame or xarray.Dataset
        Times of a dataset whose calendar or units cannot be decoded are left as numbers.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "table.csv"
    ...     _ = path.write_text("station;rf\n007;0,25\nNA;0,5\n")
    ...     read_table(path, text=["station"], decimal=",").values.tolist()
    [['007', 0.25], ['NA', 0.5]]
    """
    path = Path(path)
    suffix = table_suffix(path, READABLE)
    check_there(path, folder=suffix == ".zarr")
    if decimal not in (None, ".", ","):
        raise ValueError(f"decimal is {decimal!r}; wanted '.' or ','")
    try:
        table = _read(path, suffix, text=text, separator=separator, decimal=decimal, sheet=sheet)
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # Each reader has exceptions of its own, and a broken file can raise any of them.
        raise unreadable(path, suffix, error) from error
    _check_filled(path, table)
    return table


def as_table(data: pd.DataFrame | xr.Dataset, time: str | None = None) -> pd.DataFrame:
    """A dataset as a table with one row a cell, its times decoded; a table as it is; `time` is the variable of times.

    Examples
    --------
    >>> as_table(xr.Dataset({"rf": ("obs", [0.1])}, {"site": ("obs", ["a"])})).columns.tolist()
    ['obs', 'rf', 'site']
    """
    if isinstance(data, pd.DataFrame):
        return data
    return (decoded(data, time) if time is not None else data).to_dataframe().reset_index()


def table_suffix(path: Path, known: Sequence[str] = TABLES) -> str:
    """The suffix of a table's file, or a refusal that lists the known ones."""
    suffix = full_suffix(path).lower()
    if suffix not in known:
        raise ValueError(
            f"{path} has the suffix {suffix!r}; wanted one of {listed(known, limit=11)}: convert or rename it"
        )
    return suffix


def check_there(path: Path, *, folder: bool) -> None:
    """Refuse a path without a file, with the names nearest to it."""
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, beside, n=3)
        hint = (
            f"did you mean {listed(near)}?"
            if near
            else f"check the name; the folder looked in is {path.absolute().parent}"
        )
        raise FileNotFoundError(f"there is no file {path}; {hint}")
    if path.is_dir() and not folder:
        raise IsADirectoryError(f"{path} is a folder; wanted one file: name the file in it")


def first_bytes(path: Path) -> bytes:
    """The first bytes of a file, which say what it is."""
    with path.open("rb") as file:
        return file.read(len(HDF5))


def unreadable(path: Path, suffix: str, error: Exception) -> ValueError:
    """One sentence on a file that could not be read; it may be cut only if it begins as such a file does."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    size = "a folder" if path.is_dir() else f"{path.stat().st_size} bytes"
    head = f"cannot read {path} ({size}) as {suffix}: {reason}"
    if isinstance(error, BadTable):
        return ValueError(head)
    if path.is_dir() or suffix not in STARTS:
        return ValueError(f"{head}; correct the file, or write it again")
    if first_bytes(path).startswith(STARTS[suffix]):
        return ValueError(f"{head}; it may be truncated or of another format: copy or write it again")
    return ValueError(f"{head}; it starts with {first_bytes(path)!r}, as no such file does: convert or rename it")


def _read(
    path: Path, suffix: str, *, text: Sequence[str], sheet: str | None, **options: Any
) -> pd.DataFrame | xr.Dataset:
    if suffix == ".parquet":
        frame = pd.read_parquet(path)
        return frame.reset_index() if any(name is not None for name in frame.index.names) else frame
    if suffix == ".zarr":
        return _dataset(path, engine="zarr", consolidated=False)
    if suffix == ".nc":
        # The classic NetCDF-3 format carries the same suffix and is no HDF5 file.
        return _dataset(path, engine="scipy" if first_bytes(path)[:3] == b"CDF" else "h5netcdf")
    if suffix == ".xlsx":
        return _read_sheet(path, text, sheet)
    return read_text_table(path, tabs=suffix.startswith(".tsv"), text=text, **options)


def _dataset(path: Path, **options: Any) -> xr.Dataset:
    """A dataset; where its times cannot be decoded all at once, those that can."""
    try:
        with xr.open_dataset(path, **options) as dataset:
            return dataset.load()
    except ValueError:
        with xr.open_dataset(path, decode_times=False, **options) as dataset:
            return decoded_each(dataset.load())


def _read_sheet(path: Path, text: Sequence[str], sheet: str | None) -> pd.DataFrame:
    if importlib.util.find_spec("openpyxl") is None:
        raise ImportError(
            f"{path} is a spreadsheet, which takes openpyxl, and that is not installed: pip install 'bayesens[excel]', or save "
            "the sheet as .csv"
        )
    with pd.ExcelFile(path, engine="openpyxl") as book:
        names = [str(name) for name in book.sheet_names]
        if sheet is not None and sheet not in names:
            raise BadTable(f"it has no sheet {sheet!r}; it has {listed(names)}")
        cells = {
            name: pd.read_excel(book, sheet_name=name, header=None, dtype=object, keep_default_na=False, na_values=[""])
            for name in (names if sheet is None else [sheet])
        }
    filled = [name for name, table in cells.items() if not table.empty]
    if not filled:
        raise BadTable("No columns to parse: it has no cell with something in it; write it again")
    if len(filled) > 1:
        warn(
            f"{path} has {len(filled)} sheets with cells in them ({listed(filled)}); the first one is read; say which: "
            f"sheet={filled[0]!r} (--sheet {quote(filled[0])})"
        )
    return _sheet_table(cells[filled[0]], text)


def _sheet_table(cells: pd.DataFrame, text: Sequence[str]) -> pd.DataFrame:
    cells = cells.dropna(how="all").dropna(how="all", axis=1)
    names = [f"Unnamed: {k}" if pd.isna(name) else str(name).strip() for k, name in enumerate(cells.iloc[0])]
    check_header(names)
    body = cells.iloc[1:].reset_index(drop=True)
    body.columns = pd.Index(names)
    frame = pd.DataFrame(
        {name: tidy_labels(body[name]) if name in text else _sheet_column(body[name]) for name in names}
    )
    check_summary_rows(frame)
    return frame


def _sheet_column(column: pd.Series) -> pd.Series:
    """Numbers, times or text, as the cells are."""
    return column.where(~column.isin(MISSING), np.nan).infer_objects()


def _check_filled(path: Path, table: pd.DataFrame | xr.Dataset) -> None:
    if isinstance(table, pd.DataFrame):
        if table.empty:
            raise ValueError(
                f"{path} has {len(table)} rows and columns {listed(table.columns) or 'none'}; wanted some rows"
            )
        return
    if not table.data_vars:
        fit = "bayesens_format" in table.attrs
        why = "it is a fit, not a table of predictions" if fit else "if they stand in a group, write that group alone"
        raise ValueError(f"{path} has no variables at its top level; wanted predictions of members: {why}")
    if 0 in table.sizes.values():
        sizes = ", ".join(f"{dim}: {size}" for dim, size in table.sizes.items())
        raise ValueError(f"{path} has zero rows ({sizes}); wanted at least one along every dimension")
