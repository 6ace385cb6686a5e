"""What tells tables apart: a digest of arrays as they stand, and a hash of rows that does not depend on their order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["dataset_digest", "row_hash"]


def dataset_digest(text: str, dataset: xr.Dataset, names: Iterable[str]) -> str:
    """SHA-256 (hex) of a text and of those of the named variables that are there, whatever their memory layout."""
    seal = sha256(text.encode())
    for name in names:
        if name in dataset.variables:
            values = _canonical(dataset[name].values)
            seal.update(f"|{name}|{values.dtype.str}|{values.shape}|".encode())
            seal.update(values.tobytes())
    return seal.hexdigest()


def _canonical(values: NDArray[Any]) -> NDArray[Any]:
    """One layout for equal contents: shortest unicode, little-endian, C order, one NaN, no negative zero."""
    if values.dtype.kind == "U":
        length = max(int(np.strings.str_len(values).max()), 1)
        return np.ascontiguousarray(values.astype(f"<U{length}"))
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.nan, values) + 0.0
    return np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<")))


def row_hash(values: NDArray[np.float64], labels: Sequence[tuple[NDArray[np.str_], NDArray[np.int64]]]) -> int:
    """Sum of a 64-bit hash of every row, modulo 2^64: the same whatever the order of rows.

    `values` (row, column) are NaN where missing: one NaN is as good as another, and -0 as 0. `labels` come with the code of
    each row among them.

    Examples
    --------
    >>> rows, label = np.array([[1.0, np.nan], [0.5, 2.0]]), (np.array(["a", "b"]), np.array([0, 1]))
    >>> total = row_hash(rows, [label])
    >>> total == (row_hash(rows[:1], [(label[0], label[1][:1])]) + row_hash(rows[1:], [(label[0], label[1][1:])])) % 2**64
    True
    >>> total == row_hash(rows, [(label[0], np.array([1, 0]))])
    False
    """
    total = np.zeros(len(values), dtype=np.uint64)
    for column in values.T:
        total = _mixed(total + (np.where(np.isnan(column), np.nan, column) + 0.0).view(np.uint64))
    for names, code in labels:
        each = [int.from_bytes(sha256(str(name).encode()).digest()[:8], "little") for name in names]
        total = _mixed(total + np.array(each, dtype=np.uint64)[code])
    return int(total.sum(dtype=np.uint64))


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64 bits that spreads each over all (Steele, Lea and Flood 2014, SplitMix)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x
