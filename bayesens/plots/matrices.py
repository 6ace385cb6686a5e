"""Heat maps of correlation matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.plots.axes import bare_axes
from bayesens.plots.given import posterior_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["correlations"]


def correlations(
    matrix: pd.DataFrame | xr.DataArray | xr.DataTree | xr.Dataset,
    *,
    low: pd.DataFrame | xr.DataArray | None = None,
    high: pd.DataFrame | xr.DataArray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Lower triangle of a correlation matrix, the numbers in the cells.

    Parameters
    ----------
    matrix : DataFrame (name, name), DataArray ``(name, name_)``, or DataTree
        Of a fit of HBM, the posterior median of ``error_corr`` with its 90 % interval. A table is symmetric, within -1
        and 1. NaN is left blank; a name that has no correlation at all is left out, and named below.
    low, high : DataFrame or DataArray, optional
        Ends of intervals, in small print below the numbers.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        A table that is not square or not symmetric, values beyond 1, no correlation, or intervals of other names or with one
        end.

    Examples
    --------
    >>> matrix = pd.DataFrame([[1.0, 0.8], [0.8, 1.0]], ["rf", "mlr"], ["rf", "mlr"])
    >>> [text.get_text() for text in correlations(matrix).texts]
    ['0.80']
    """
    if not isinstance(matrix, pd.DataFrame | xr.DataArray):
        middle, *ends_of_fit = _of_fit(matrix)
        matrix, low, high = (middle, *ends_of_fit) if low is None and high is None else (middle, low, high)
    if (low is None) != (high is None):
        raise ValueError("an interval has two ends; give both low and high, or neither")
    table = _square(matrix)
    ends = [_square(end).reindex(index=table.index, columns=table.columns) for end in (low, high) if end is not None]
    if any(end.isna().to_numpy()[table.notna().to_numpy()].any() for end in ends):
        raise ValueError(f"low and high lack values that the matrix has; wanted both for the same names, {list(table)}")
    off = table.where(~np.eye(len(table), dtype=bool))
    kept = off.notna().any().to_numpy()
    if not kept.any():
        raise ValueError(f"there is no correlation between any two of {list(table)}; is every column constant?")
    names = [str(name) for name in table.index[kept]]
    n = len(names)
    shown = np.where(np.tri(n, k=-1, dtype=bool), table.to_numpy()[np.ix_(kept, kept)], np.nan)[1:, :-1]
    between = [end.to_numpy()[np.ix_(kept, kept)][1:, :-1] for end in ends]
    side = 0.45 if not ends else 0.62
    ax = bare_axes(ax, (1.2 + side * n, 1.0 + side * n))
    # Light in the middle, dark at both ends: in grey print the size of a correlation stays, and its sign is in the cell.
    cells = ax.imshow(shown, cmap="RdBu_r", vmin=-1.25, vmax=1.25, aspect="equal")
    for i, j in zip(*np.nonzero(np.isfinite(shown)), strict=True):
        style: dict[str, Any] = {"ha": "center", "color": _ink_on(cells.to_rgba(shown[i, j]))}
        if not ends:
            ax.text(j, i, _short(shown[i, j]), va="center", fontsize=8, **style)
            continue
        text = " to ".join(_short(end[i, j]) for end in between)
        ax.annotate(_short(shown[i, j]), (j, i), (0, -1), textcoords="offset points", va="bottom", fontsize=8, **style)
        ax.annotate(text, (j, i), (0, -2), textcoords="offset points", va="top", fontsize=5.5, **style)
    ax.set_xticks(range(n - 1), names[:-1], rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(n - 1), names[1:])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    if not kept.all():
        ax.set_xlabel(f"No correlation: {', '.join(str(name) for name in table.index[~kept])}", fontsize=8, loc="right")
    return ax


def _ink_on(color: Any) -> str:
    """Black or white, whichever has more contrast with a colour; it is 4.5 at least (WCAG 2.2, relative luminance)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3])
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"


def _of_fit(given: xr.DataTree | xr.Dataset) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Median and 90 % interval of the correlation of errors that a fit implies."""
    posterior = posterior_of(given)
    if "error_corr" not in posterior:
        raise ValueError(
            f"the posterior has no 'error_corr', only {list(posterior.data_vars)}; wanted a fit of HBM, or a matrix such as "
            "be.dependence(ensemble)['error_correlation'].sel(group='all', part='total')"
        )
    draws = posterior["error_corr"].transpose("chain", "draw", "member", "member_")
    low, middle, high = (draws.quantile(q, ("chain", "draw")) for q in (0.05, 0.5, 0.95))
    return middle, low, high


def _short(value: float) -> str:
    """Two decimals as all tables have them: a zero before the point, a true minus, and never a zero with a sign."""
    return f"{value:z.2f}".replace("-", "\N{MINUS SIGN}")


def _square(matrix: pd.DataFrame | xr.DataArray) -> pd.DataFrame:
    """The matrix with the same names on both sides."""
    if isinstance(matrix, xr.DataArray):
        if matrix.ndim != 2:
            raise ValueError(f"the matrix has dimensions {matrix.dims}; select down to two, as its median over draws")
        first = matrix.dims[0]
        names = matrix[first].values if first in matrix.coords else np.arange(len(matrix))
        other = matrix[matrix.dims[1]].values if matrix.dims[1] in matrix.coords else names
        matrix = pd.DataFrame(matrix.values, names, other)
    values = matrix.to_numpy(float)
    if values.shape[0] != values.shape[1] or list(matrix.index) != list(matrix.columns) or len(matrix) < 2:
        raise ValueError(
            f"got a table of shape {values.shape}; wanted a square one of two rows or more, rows named as columns"
        )
    if np.isfinite(values).any() and np.nanmax(np.abs(values)) > 1 + 1e-9:
        raise ValueError(f"correlations lie within -1 and 1; the largest is {np.nanmax(np.abs(values)):.3g}")
    if not np.allclose(values, values.T, atol=1e-6, equal_nan=True):
        raise ValueError("the matrix is not symmetric, and only its lower triangle would be seen; wanted correlations")
    return pd.DataFrame(values, matrix.index, matrix.columns)
