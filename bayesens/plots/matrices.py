"""Heat maps of correlation matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayesens.plots.axes import INK, bare_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["correlations"]


def correlations(matrix: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Lower triangle of a correlation matrix, the numbers in the cells.

    Parameters
    ----------
    matrix : DataFrame (name, name)
        Symmetric, within -1 and 1; NaN is left blank.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        A table that is not square, or values beyond 1.

    Examples
    --------
    >>> matrix = pd.DataFrame([[1.0, 0.8], [0.8, 1.0]], ["rf", "mlr"], ["rf", "mlr"])
    >>> [text.get_text() for text in correlations(matrix).texts]
    ['.80']
    """
    values = matrix.to_numpy(float)
    if values.shape[0] != values.shape[1] or list(matrix.index) != list(matrix.columns) or len(matrix) < 2:
        raise ValueError(
            f"got a table of shape {values.shape}; wanted a square one of two rows or more, rows named as columns"
        )
    if np.nanmax(np.abs(values)) > 1 + 1e-9:
        raise ValueError(f"correlations lie within -1 and 1; the largest is {np.nanmax(np.abs(values)):.3g}")
    names, n = [str(name) for name in matrix.index], len(matrix)
    shown = np.where(np.tri(n, k=-1, dtype=bool), values, np.nan)[1:, :-1]
    ax = bare_axes(ax, (1.2 + 0.5 * n, 1.0 + 0.45 * n))
    # Light in the middle, dark at both ends: in grey print the size of a correlation stays, and its sign is in the cell.
    ax.imshow(shown, cmap="RdBu_r", vmin=-1.25, vmax=1.25, aspect="equal")
    for i, j in zip(*np.nonzero(np.isfinite(shown)), strict=True):
        text = f"{shown[i, j]:.2f}".replace("0.", ".", 1)
        ax.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if abs(shown[i, j]) > 0.75 else INK)
    ax.set_xticks(range(n - 1), names[:-1], rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(n - 1), names[1:])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax
