"""Forests: the leaves that scikit-learn finds, eight rows abreast, one tree after the other over rows that stay in the cache.

A node is one number of 64 bits: threshold (32), first child (22), column (10). The second child is beside the first one, so that
a step is ``first + (x > threshold)`` and needs no branch; a leaf leads to itself. Rows are compared in single precision, as
scikit-learn does: its thresholds are in double precision, and each is replaced by the largest single number that is not above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

__all__ = ["COLUMNS", "NODES", "Forest", "forest_of"]

ROWS = 240  # that go through all trees together: with their columns, and a tree, they stay in the cache
ABREAST = 8  # rows whose steps do not wait for each other
COLUMN_BITS, CHILD_BITS = 10, 22
COLUMNS, NODES = (
    2 ** (COLUMN_BITS - 1),
    2**CHILD_BITS,
)  # columns of a table, and nodes of a tree, that a node has bits for
COLUMN, CHILD = np.uint64(32), np.uint64(32 + COLUMN_BITS)
LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True, eq=False)
class Forest:
    """The trees of a forest, one after the other.

    Attributes
    ----------
    node : numpy.ndarray (node), uint64
    value : numpy.ndarray (node)
        What a leaf predicts.
    start : numpy.ndarray (tree + 1)
        Where each tree begins.
    first, share : float
        What the sum of the trees begins with, and what it is divided by.
    """

    node: NDArray[np.uint64]
    value: NDArray[np.float64]
    start: NDArray[np.int64]
    first: float
    share: float

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predict rows (row, column); NaN is missing."""
        out = np.full(-(-len(x) // ABREAST) * ABREAST, self.first)
        _add_trees(x, self.node, self.value, self.start, out)
        return out[: len(x)] / self.share


def forest_of(trees: list[Any], n_columns: int, *, first: float = 0.0, rate: float | None = None) -> Forest:
    """Lay out trees of scikit-learn (``estimator.tree_``).

    Parameters
    ----------
    trees : list
    n_columns : int
    first : float
        What the trees are added to.
    rate : float, optional
        What each of them is multiplied by; None: their mean is taken.

    Examples
    --------
    >>> from sklearn.tree import DecisionTreeRegressor
    >>> tree = DecisionTreeRegressor().fit([[0.0], [1.0], [2.0]], [5.0, 6.0, 8.0]).tree_
    >>> forest_of([tree], 1).predict(np.array([[0.4], [0.5], [1.6]])).tolist()
    [5.0, 5.0, 8.0]
    """
    parts = [_laid_out(tree, n_columns) for tree in trees]
    sizes = [len(value) for _, value in parts]
    value = np.concatenate([value for _, value in parts])
    return Forest(
        node=np.concatenate([node for node, _ in parts]),
        value=value if rate is None else rate * value,
        start=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        first=first,
        share=float(len(trees)) if rate is None else 1.0,
    )


def _laid_out(tree: Any, n_columns: int) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Nodes and values of one tree, level by level, so that the two children of a node are neighbours."""
    left, right = tree.children_left, tree.children_right
    levels = [np.zeros(1, dtype=np.int64)]
    while len(inner := levels[-1][left[levels[-1]] >= 0]):
        levels.append(np.column_stack([left[inner], right[inner]]).reshape(-1))
    order = np.concatenate(levels)
    place = np.empty(len(left), dtype=np.uint64)
    place[order] = np.arange(len(order))
    leaf = left[order] < 0
    child = np.where(leaf, place[order], place[left[order]])
    # Missing values that go left stand as minus infinity in a second set of columns, in the first as infinity: no threshold
    # of a split is beyond all numbers, and that of a leaf is infinite.
    column = np.where(leaf, 0, tree.feature[order] + n_columns * tree.missing_go_to_left[order].astype(np.int64))
    threshold = np.where(leaf, np.float32(np.inf), np.minimum(_single_below(tree.threshold[order]), LARGEST))
    bits = threshold.astype(np.float32).view(np.uint32).astype(np.uint64)
    node = bits | (column.astype(np.uint64) << COLUMN) | (child.astype(np.uint64) << CHILD)
    return node, np.ascontiguousarray(tree.value[order, 0, 0])


def _single_below(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """Largest number of single precision that is not above another one."""
    with np.errstate(over="ignore"):
        near = x.astype(np.float32)
    below: NDArray[np.float32] = np.where(near > x, np.nextafter(near, np.float32(-np.inf)), near)
    return below


@intrinsic
def _as_single(typingctx, bits):  # type: ignore[no-untyped-def]
    """Number of single precision with these bits."""

    def codegen(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return builder.bitcast(values[0], ir.FloatType())

    return types.float32(types.uint32), codegen


@numba.njit(nogil=True)
def _step(x, node, i, row):  # type: ignore[no-untyped-def]
    """Next node of a row that begins at a place of x; a leaf is its own."""
    own = node[i]
    column = (own >> np.uint64(32)) & np.uint64(1023)
    return (own >> np.uint64(42)) + np.uint64(x[row + column] > _as_single(np.uint32(own)))


@numba.njit(nogil=True)
def _two_sets(x, first, last, out):  # type: ignore[no-untyped-def]
    """Rows in single precision, twice: missing numbers, and rows after the last, are above and below all thresholds."""
    width = x.shape[1]
    for r in range(first, last):
        at = 2 * width * (r - first)
        for j in range(width):
            known = r < len(x) and not np.isnan(x[r, j])
            value = np.float32(x[r, j]) if known else np.float32(np.inf)
            out[at + j] = value
            out[at + width + j] = value if known else -value


@numba.njit(cache=True, nogil=True)
def _add_trees(x, node, value, start, out):  # type: ignore[no-untyped-def]
    """Add what every tree says of rows x (row, column) to out (row), whose length is the next multiple of ABREAST."""
    width = np.uint64(2 * x.shape[1])
    rows = np.empty(ROWS * 2 * x.shape[1], dtype=np.float32)
    for first in range(0, len(out), ROWS):
        last = min(first + ROWS, len(out))
        _two_sets(x, first, last, rows)
        for t in range(len(start) - 1):
            own, leaf = node[start[t] : start[t + 1]], value[start[t] : start[t + 1]]
            for r in range(first, last, ABREAST):
                r0 = np.uint64(r - first) * width
                r1, r2, r3 = r0 + width, r0 + np.uint64(2) * width, r0 + np.uint64(3) * width
                r4, r5 = r0 + np.uint64(4) * width, r0 + np.uint64(5) * width
                r6, r7 = r0 + np.uint64(6) * width, r0 + np.uint64(7) * width
                i0 = i1 = i2 = i3 = i4 = i5 = i6 = i7 = np.uint64(0)
                moved = True
                while moved:
                    j0, j1 = _step(rows, own, i0, r0), _step(rows, own, i1, r1)
                    j2, j3 = _step(rows, own, i2, r2), _step(rows, own, i3, r3)
                    j4, j5 = _step(rows, own, i4, r4), _step(rows, own, i5, r5)
                    j6, j7 = _step(rows, own, i6, r6), _step(rows, own, i7, r7)
                    far = (i0 ^ j0) | (i1 ^ j1) | (i2 ^ j2) | (i3 ^ j3) | (i4 ^ j4) | (i5 ^ j5) | (i6 ^ j6) | (i7 ^ j7)
                    moved = far != np.uint64(0)
                    i0, i1, i2, i3, i4, i5, i6, i7 = j0, j1, j2, j3, j4, j5, j6, j7
                out[r] += leaf[i0]
                out[r + 1] += leaf[i1]
                out[r + 2] += leaf[i2]
                out[r + 3] += leaf[i3]
                out[r + 4] += leaf[i4]
                out[r + 5] += leaf[i5]
                out[r + 6] += leaf[i6]
                out[r + 7] += leaf[i7]
