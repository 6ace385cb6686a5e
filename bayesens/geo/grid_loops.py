"""Loops over the cells of a grid and their neighbours, compiled by numba at first use.

Kept apart because importing numba takes longer than most of what is asked of a grid.
"""

from __future__ import annotations

import numpy as np

from bayesens.c_functions import kernel

__all__ = ["lag_sums", "rook_degrees", "rook_sums"]


@kernel
def rook_degrees(x, inside, degree):  # type: ignore[no-untyped-def]
    """Count the neighbours of the cells of a set, and take the set's size, mean, least and greatest value.

    Parameters
    ----------
    x : float array (y, x)
    inside : bool array (y, x)
        The set.
    degree : int8 array (y, x)
        Filled: how many of the four neighbours are in the set; -1 outside it.
    """
    rows, columns = x.shape
    n, total, low, high = 0, 0.0, np.inf, -np.inf
    for i in range(rows):
        row = 0.0  # sums of sums lose less to rounding than one long sum
        for j in range(columns):
            if not inside[i, j]:
                degree[i, j] = -1
                continue
            count = 0
            if i > 0 and inside[i - 1, j]:
                count += 1
            if i + 1 < rows and inside[i + 1, j]:
                count += 1
            if j > 0 and inside[i, j - 1]:
                count += 1
            if j + 1 < columns and inside[i, j + 1]:
                count += 1
            degree[i, j] = count
            n += 1
            row += x[i, j]
            low, high = min(low, x[i, j]), max(high, x[i, j])
        total += row
    return n, total / max(n, 1), low, high


@kernel
def rook_sums(x, center, scale, degree, share, side, block, total):  # type: ignore[no-untyped-def]
    """Sums of which Moran's I, its moments and its values without each block are made.

    The neighbour j of the cell i weighs ``w_ij = share[degree_i]``, and z is (x - center) scale.

    Parameters
    ----------
    x : float array (y, x)
    center, scale : float
    degree : int8 array (y, x)
        From `rook_degrees`.
    share : float array (5)
        Weight of each neighbour, by the number of neighbours.
    side : int
        Blocks have so many rows and columns, and are counted row by row.
    block : float array (block, 6)
        Zeros, added to, over the block's cells i: their number, the sums of z_i and z_i^2, and over all their neighbours j
        the sums of w_ij, w_ij z_i z_j and w_ij (z_i + z_j).
    total : float array (3)
        Zeros, added to: the sum over pairs of ``(w_ij + w_ji)^2``, that over cells of ``(sum_j w_ij + w_ji)^2``, and that of
        z^4.
    """
    rows, columns = x.shape
    across = (columns + side - 1) // side
    for i in range(rows):
        for j in range(columns):
            if degree[i, j] < 0:
                continue
            z, own = (x[i, j] - center) * scale, share[degree[i, j]]
            near, strength = 0.0, 0.0
            for step in range(4):  # up, left, right, down
                k = i + (step == 3) - (step == 0)
                m = j + (step == 2) - (step == 1)
                if 0 <= k < rows and 0 <= m < columns and degree[k, m] >= 0:
                    both = own + share[degree[k, m]]
                    near += (x[k, m] - center) * scale
                    strength += both
                    if step >= 2:  # each pair once
                        total[0] += both * both
            total[1] += strength * strength
            total[2] += z * z * z * z
            b = (i // side) * across + j // side
            block[b, 0] += 1.0
            block[b, 1] += z
            block[b, 2] += z * z
            block[b, 3] += own * degree[i, j]
            block[b, 4] += own * z * near
            block[b, 5] += own * (degree[i, j] * z + near)


@kernel
def lag_sums(x, robust, out):  # type: ignore[no-untyped-def]
    """Sums over pairs of cells that lie so many rows, or columns, apart.

    Parameters
    ----------
    x : float array (y, x)
        NaN where there is no value.
    robust : bool
        Sum the root of the absolute difference, otherwise its square.
    out : float array (2, lag, 2)
        Zeros, added to: along rows' order and columns' order, at lags of one cell and more, the sum and the number of pairs.
    """
    rows, columns = x.shape
    for way in range(2):
        for h in range(1, out.shape[1] + 1):
            down, right = (h, 0) if way == 0 else (0, h)
            for i in range(rows - down):
                row, count = 0.0, 0
                for j in range(columns - right):
                    d = x[i + down, j + right] - x[i, j]
                    if not np.isnan(d):
                        row += np.sqrt(abs(d)) if robust else d * d
                        count += 1
                out[way, h - 1, 0] += row
                out[way, h - 1, 1] += count
