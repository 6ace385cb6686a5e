"""How errors at held-out stations grow with the distance to the nearest training station."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.messages import listed
from bayesens.plots.axes import COLOR, bare_axes, labelled, with_legend
from bayesens.plots.given import dataset_of, is_rows, numbers_of, one_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["error_by_distance"]

Array = NDArray[np.float64]
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def error_by_distance(
    rows: xr.Dataset,
    distance: xr.Dataset | ArrayLike | None = None,
    *,
    model: str = "",
    bins: int = 8,
    units: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Absolute error against the distance to the nearest training station: median and bands, in bins of equal counts.

    Rows at one distance, as all of a station are, stay in one bin; bins are then of nearly equal counts. Bands are those of
    the rows, and no confidence intervals: a few stations make a bin.

    Parameters
    ----------
    rows : Dataset (model, obs) or (obs)
        Rows that were held out, from `bayesens.compare` or `bayesens.score`.
    distance : Dataset or array (obs)
        From `bayesens.fold_distances` of the same folds, which has the distance of each station; or the distance of each row.
    model : str, optional
        Which of several.
    bins : int
        At most.
    units : str, optional
        Of distances that are an array.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Numbers of rows stand above the bins, as far as there is room.

    Raises
    ------
    TypeError, KeyError, ValueError
        No rows, an unknown model, no distance or one that does not fit, sites without a distance.

    Examples
    --------
    >>> rows = xr.Dataset({"error": ("obs", [1.0, -1.0, 2.0, -4.0])}, attrs={"units": "mm"})
    >>> ax = error_by_distance(rows, [1.0, 2.0, 10.0, 11.0], bins=2, units="km")
    >>> ax.get_xlabel(), ax.lines[0].get_xydata().tolist()
    ('Distance to the nearest training station [km]', [[1.5, 1.0], [10.5, 3.0]])
    """
    if is_rows(rows):
        one = one_model(rows, model)
        error = (one["prediction"] - one["observation"]).to_numpy()
    else:
        one = dataset_of(rows, "error", "be.compare(...) or be.score(fit, held_out)")
        error = one["error"].to_numpy()
    far, units = _distances(one, distance, len(error), units)
    known = np.isfinite(error) & np.isfinite(far)
    if not known.any():
        raise ValueError("no row has both an error and a distance; wanted rows with observations")
    if bins < 1:
        raise ValueError(f"bins is {bins}; wanted one at least")
    error, far = np.abs(error[known]), far[known]
    code = _equal_counts(far, bins)
    middle = np.array([np.median(far[code == k]) for k in range(code.max() + 1)])
    values = np.array([np.quantile(error[code == k], LEVELS) for k in range(code.max() + 1)])
    ax = bare_axes(ax, (4.4, 3.2))
    for low, high, alpha, name in ((0, 4, 0.16, "90 % of rows"), (1, 3, 0.34, "50 % of rows")):
        ax.fill_between(
            middle, values[:, low], values[:, high], color=COLOR[0], alpha=alpha, lw=0, label=name, zorder=1
        )
    ax.plot(middle, values[:, 2], "o-", color=COLOR[0], ms=5, lw=1.4, mec="white", mew=0.6, label="median", zorder=3)
    top = 1.12 * float(values[:, 4].max()) or 1.0
    _counts(ax, middle, np.bincount(code), top)
    ax.set(xlabel=labelled("Distance to the nearest training station", units), ylim=(0, top))
    ax.set_ylabel(labelled("Absolute error", str(one.attrs.get("units", ""))))
    ax.margins(x=0.04)
    return with_legend(ax)


def _distances(rows: xr.Dataset, distance: Any, size: int, units: str) -> tuple[Array, str]:
    """Distance of each row, and its units."""
    wanted = "be.fold_distances(data, map_points=grid, folds=...), or the distance of each row"
    if distance is None:
        raise TypeError(f"distance is missing; wanted what says how far the stations were: {wanted}")
    if not isinstance(distance, xr.Dataset):
        far = numbers_of(distance, wanted)
        if far.shape != (size,):
            raise ValueError(f"distance has shape {far.shape} and the rows are {size}; wanted one number for each")
        return far, units
    held = dataset_of(distance, "held_out_to_training", "be.fold_distances(data, map_points=grid)")[
        "held_out_to_training"
    ]
    if "site" not in rows.coords:
        raise ValueError(
            "the rows have no sites to find their distances by; wanted distance= as an array, one number a row"
        )
    of_site = dict(zip(map(str, held["station"].to_numpy()), held.to_numpy().tolist(), strict=True))
    sites = [str(name) for name in rows["site"].to_numpy()]
    if lacking := sorted({*sites} - {*of_site}):
        raise ValueError(
            f"{listed(lacking)} of the rows' sites have no distance; give the distances of the same data and folds"
        )
    return np.array([of_site[name] for name in sites]), str(held.attrs.get("units", units))


def _equal_counts(far: Array, bins: int) -> NDArray[np.intp]:
    """Bin of each row: bins of equal counts, but that rows at one distance are in one."""
    ordered = np.sort(far)
    middle = np.searchsorted(ordered, far, side="left") + np.searchsorted(ordered, far, side="right") - 1
    return np.unique(middle * bins // (2 * len(far)), return_inverse=True)[1]


def _counts(ax: Axes, middle: Array, counts: NDArray[np.intp], top: float) -> None:
    """Numbers of rows above the bins, those left out that would stand on the one before."""
    room = 0.09 * float(np.ptp(middle) or 1.0)
    last = -np.inf
    for x, count in zip(middle, counts, strict=True):
        if x - last >= room:
            first = not np.isfinite(last)
            place: dict[str, Any] = {"ha": "left" if first else "center", "va": "top"}
            ax.text(x, 0.985 * top, f"n = {count}" if first else f"{count}", fontsize=7, color="0.35", **place)
            last = x + room * first
