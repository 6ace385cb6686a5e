"""A table in chunks: each through the door of an ensemble, from Parquet or a dask dataframe, and merged in a tree."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens.ensemble import checks
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.from_table import LABELS
from bayesens.ensemble.sufficient import Coded
from bayesens.ensemble.transforms import transform
from bayesens.messages import check_keywords, check_known
from bayesens.tables.columns import coded_labels, numbers
from bayesens.tables.conversion import Conversion, convert
from bayesens.tables.missing_codes import Missing, check_codes, clear_codes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Chunk",
    "ChunkOptions",
    "ChunkReader",
    "chunk_reader",
    "chunks_merged",
    "dask_merged",
    "ensemble_chunk",
    "merged",
    "parquet_frames",
]

FAN_IN = 8  # partial results that one task of a tree merges


def merged[T](parts: Iterable[T | None], merge: Callable[..., T]) -> T | None:
    """Merge parts as they come, always two of the same size, as a binary counter carries.

    A part then takes part in log2(n) merges, and no more than so many are held. None is passed over, and is the answer
    where there was no part.

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


# One chunk -----------------------------------------------------------------------------------------------------------


class ChunkOptions(TypedDict, total=False):
    """Keywords of all that reads a table in chunks; `Ensemble.from_frame` says what they mean, and models have a transform."""

    site: str | None
    group: str | None
    transform: str
    units: str | Mapping[str, str] | None
    missing: Missing
    scale: Conversion
    offset: Conversion


@dataclass(frozen=True, eq=False)
class Chunk:
    """Rows that have passed the door: predictions (obs, member), observations (obs), labels by role."""

    prediction: NDArray[np.float64]
    observation: NDArray[np.float64]
    labels: dict[str, Coded]
    kinds: dict[str, str]
    members: Sequence[str]
    columns: Mapping[str, str]
    units: str


@dataclass(frozen=True)
class ChunkReader:
    """What to take from every chunk; the same on every worker."""

    members: tuple[str, ...]
    columns: dict[str, str]
    transform: str = "identity"
    units: str | Mapping[str, str] | None = None
    missing: Missing = None
    scale: Conversion = None
    offset: Conversion = None

    def __call__(self, frame: Any) -> Chunk | None:
        """Check a table; None where it has no rows."""
        if isinstance(frame, pd.DataFrame) and len(frame) == 0:
            return None
        checks.check_columns(frame, self.members, self.columns)
        measured = [*self.members, self.columns["observation"]]
        units = frame.attrs.get("units") if self.units is None else self.units
        if isinstance(units, Mapping):
            units = {name: units[name] for name in measured if name in units}
        unit = checks.common_units(units, measured, len(frame))
        labels = {role: coded_labels(frame[self.columns[role]]) for role in LABELS if role in self.columns}
        values = {name: numbers(frame[name]) for name in measured}
        clear_codes(values, self.missing)
        check_codes(values, dict.fromkeys(values, "measured"), self.missing)
        convert(values, self.scale, self.offset)
        return Chunk(
            np.stack([values[name] for name in self.members]).T,
            values[self.columns["observation"]],
            {role: (names, code) for role, (names, code, _) in labels.items()},
            {role: kind for role, (*_, kind) in labels.items()},
            self.members,
            self.columns,
            unit,
        )


def chunk_reader(
    function: str, members: Iterable[str], observation: str, options: Mapping[str, Any], *own: str
) -> ChunkReader:
    """Return what reads the chunks, with the options of a function that are given."""
    check_keywords(options, ["members", "observation", *own, *ChunkOptions.__annotations__], function)
    transform(options.get("transform", "identity"))
    given = {"observation": observation} | {role: options.get(role) for role in LABELS}
    columns: Any = {role: name for role, name in given.items() if name is not None or role == "observation"}
    others = {name: value for name, value in options.items() if name not in LABELS}
    missing = others.get("missing")
    if not (missing is None or isinstance(missing, str | Mapping | float | int)):
        others["missing"] = list(missing)  # an iterator is read once
    return ChunkReader(tuple(checks.member_names(members)), columns, **others)


def ensemble_chunk(ensemble: Ensemble) -> Chunk:
    """Return the rows of an ensemble, which has passed the door, as a chunk."""
    if not isinstance(ensemble, Ensemble):
        raise TypeError(f"got {type(ensemble).__name__}; wanted an Ensemble (tables go to from_frames)")
    labels: dict[str, Coded] = {}
    for role in LABELS:
        if (values := ensemble.labels(role)) is not None:
            code, unique = pd.factorize(values.astype(object))
            labels[role] = np.asarray(unique, dtype=np.str_), code
    columns = {role: name for role, name in ensemble.columns.items() if role in ("observation", *LABELS)}
    return Chunk(
        ensemble.prediction, ensemble.require_observation(), labels, {}, ensemble.members, columns, ensemble.units
    )


def chunks_merged[T](
    chunks: Iterable[Any], what: str, make: Callable[[Any], T | None], merge: Callable[..., T]
) -> T | None:
    """Make a part of every chunk as they come, and merge them; an error names the chunk."""

    def parts() -> Iterator[T | None]:
        start = 0
        for i, chunk in enumerate(chunks):
            yield _named(f"{what} {i} (from row {start} of all)", make, chunk)
            start += len(chunk) if isinstance(chunk, (pd.DataFrame, Ensemble)) else 0

    return merged(parts(), merge)


def _named[T](name: str, make: Callable[[Any], T], chunk: Any) -> T:
    try:
        return make(chunk)
    except (KeyError, TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error.args[0] if error.args else ''}") from error


# Parquet -------------------------------------------------------------------------------------------------------------


def parquet_frames(
    path: str | os.PathLike[str], columns: Sequence[str], labels: Sequence[str], *, batch_rows: int, progressbar: bool
) -> Iterator[pd.DataFrame]:
    """Read a Parquet file, or a folder of them, some rows at a time.

    Every file is read by its own schema: a column without values in one file, or of whole numbers, need not have the type
    that it has in the others. Labels come as categories, and ``units`` in ``attrs`` where the file has them.
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
    frame: Any, columns: Sequence[str], make: Callable[[pd.DataFrame], T | None], merge: Callable[..., T]
) -> T | None:
    """Make a part of every partition of a dask dataframe, and merge them in a tree, where the partitions are."""
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
    tasks = [dask.delayed(_named)(f"partition {i}", make, each) for i, each in enumerate(partitions)]
    while len(tasks) > 1:
        tasks = [dask.delayed(_merged_list)(tasks[i : i + FAN_IN], merge) for i in range(0, len(tasks), FAN_IN)]
    return dask.compute(*tasks)[0] if tasks else None


def _merged_list(parts: list[Any], merge: Callable[..., Any]) -> Any:
    return merged(parts, merge)
