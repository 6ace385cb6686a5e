"""A table in chunks: read from Parquet or from a dask dataframe, and merged in a tree."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bayesens.messages import check_known

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["dask_merged", "merged", "parquet_frames"]

FAN_IN = 8  # partial results that one task of a tree merges


def merged[T](parts: Iterable[T | None], merge: Callable[..., T]) -> T | None:
    """Merge parts as they come, always two of the same size, as a binary counter carries.

    A part then takes part in log2(n) merges, and no more than so many are held.

    Parameters
    ----------
    parts : iterable
        None is passed over.
    merge : callable
        Of one part or more.

    Returns
    -------
    part or None
        None if there was no part.

    Examples
    --------
    >>> merged("abcde", lambda *parts: f"({''.join(parts)})")
    '(((ab)(cd))e)'
    """
    stack: list[tuple[int, T]] = []
    for part in parts:
        if part is None:
            continue
        size, total = 1, part
        while stack and stack[-1][0] == size:
            total = merge(stack.pop()[1], total)
            size *= 2
        stack.append((size, total))
    return merge(*(total for _, total in stack)) if stack else None


# Parquet -------------------------------------------------------------------------------------------------------------


def parquet_frames(
    path: str | os.PathLike[str], columns: Sequence[str], labels: Sequence[str], *, batch_rows: int, progressbar: bool
) -> Iterator[pd.DataFrame]:
    """Read a Parquet file, or a folder of them, some rows at a time.

    Every file is read by its own schema: a column without values in one file, or of whole numbers, need not have the type
    that it has in the others.

    Parameters
    ----------
    path : str or path
    columns, labels : sequence of str
        Columns of numbers, and of labels, which come as categories.
    batch_rows : int
    progressbar : bool

    Yields
    ------
    pandas.DataFrame
        With ``units`` in ``attrs`` where the file has them.

    Raises
    ------
    FileNotFoundError, UnknownName, ValueError
    """
    from pyarrow.parquet import ParquetFile

    if batch_rows < 1 or int(batch_rows) != batch_rows:
        raise ValueError(f"batch_rows must be a whole number of at least 1; got {batch_rows!r}.")
    files = [(name, _open(name, columns, labels, keys), keys) for name, keys in _files(Path(path))]
    total = sum(n_rows for _, n_rows, _ in files)
    with _progress(f"Reading {Path(path).name}", total, shown=progressbar) as advance:
        for name, _, keys in files:
            stored = [column for column in dict.fromkeys([*columns, *labels]) if column not in keys]
            with ParquetFile(name) as file:
                attrs = _attrs(file.schema_arrow)
                for batch in file.iter_batches(batch_size=int(batch_rows), columns=stored):
                    frame = pd.DataFrame({column: _series(batch[column], column in labels) for column in stored})
                    yield _with_attrs(frame.assign(**{k: v for k, v in keys.items() if k in labels}), attrs)
                    advance(len(frame))


def _files(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Files of a table, and the values of the hive partitions (``year=2020/``) that each stands in."""
    import pyarrow.dataset as ds

    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}; check the name")
    found = ds.dataset(str(path), format="parquet", partitioning="hive").get_fragments()
    files = [(each.path, ds.get_partition_keys(each.partition_expression)) for each in found]
    if not files:
        raise ValueError(f"the folder {path} has no Parquet files; wanted at least one: check the name")
    return files


def _open(name: str, columns: Sequence[str], labels: Sequence[str], keys: dict[str, Any]) -> int:
    """Check that a file has the columns, and return its number of rows."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(name) as file:
            known, n_rows = file.schema_arrow.names, int(file.metadata.num_rows)
    except (ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"cannot read {name} as Parquet: {reason}; copy or write it again") from error
    check_known(columns, known, kind="column", where=f"{name} ({n_rows} rows)")
    check_known(labels, [*known, *keys], kind="column", where=f"{name} ({n_rows} rows)")
    return n_rows


def _attrs(schema: pa.Schema) -> dict[str, Any]:
    """Attributes that pandas has written."""
    return dict(json.loads((schema.metadata or {}).get(b"PANDAS_ATTRS", b"{}")))


def _with_attrs(frame: pd.DataFrame, attrs: dict[str, Any]) -> pd.DataFrame:
    frame.attrs.update(attrs)
    return frame


def _series(column: pa.Array, label: bool) -> pd.Series:
    """One column; labels that pandas would make objects of are numbered by Arrow first, which is far faster."""
    from pyarrow import types

    slow = (types.is_string, types.is_large_string, types.is_date, types.is_decimal, types.is_binary)
    if label and any(is_kind(column.type) for is_kind in slow):
        column = column.dictionary_encode()
    return column.to_pandas()


@contextmanager
def _progress(text: str, total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar, and give what advances it by some rows."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    parts = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*parts, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(f"{text} (rows)", total=total)
        yield lambda rows: bar.advance(task, rows)


# dask ----------------------------------------------------------------------------------------------------------------


def dask_merged[T](
    frame: Any, columns: Sequence[str], make: Callable[[int, pd.DataFrame], T | None], merge: Callable[..., T]
) -> T | None:
    """Make a part of every partition of a dask dataframe, and merge them in a tree, where the partitions are.

    Raises
    ------
    ImportError, TypeError, UnknownName
    """
    try:
        import dask
        import dask.dataframe as dd
    except ImportError as error:
        raise ImportError("from_dask needs dask, which is not installed; run: pip install 'bayesens[dask]'") from error
    if not isinstance(frame, dd.DataFrame):
        raise TypeError(
            f"got {type(frame).__name__}; wanted a dask.dataframe (a pandas.DataFrame goes to from_frames([frame]))"
        )
    check_known(columns, frame.columns, kind="column", where="the dask dataframe")
    partitions = frame[list(dict.fromkeys(columns))].to_delayed()
    tasks = [dask.delayed(make)(i, partition) for i, partition in enumerate(partitions)]
    while len(tasks) > 1:
        tasks = [dask.delayed(_merged_list)(tasks[i : i + FAN_IN], merge) for i in range(0, len(tasks), FAN_IN)]
    return dask.compute(*tasks)[0] if tasks else None


def _merged_list(parts: list[Any], merge: Callable[..., Any]) -> Any:
    return merged(parts, merge)
