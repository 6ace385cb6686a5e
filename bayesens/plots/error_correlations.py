"""How far the errors of the members are one, in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.plots.axes import bare_axes, labelled, look, name_rows, three_axes, with_legend
from bayesens.plots.given import check_result
from bayesens.plots.matrices import correlations

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["dependence"]


def dependence(result: xr.Dataset, *, group: str = "all", axes: Sequence[Axes] | None = None) -> NDArray[np.object_]:
    """Error correlations over all rows, effective numbers of members by part, and an assumed observation error.

    Parameters
    ----------
    result : Dataset
        From `bayesens.dependence`.
    group : str
        Whose rows: "all", or a label of its `by`. The observation error is always that of all rows.
    axes : sequence of three Axes, optional
        Where to draw.

    Returns
    -------
    array (3) of Axes

    Raises
    ------
    TypeError, ValueError
        What is no such Dataset; a group that the result does not have, other than three axes, or no correlation.

    Examples
    --------
    >>> from bayesens import Ensemble
    >>> from bayesens.comparison.errors.dependence import dependence as describe
    >>> frame = {"a": [1.0, 2.0, 4.0], "b": [3.0, 1.0, 1.0], "y": [0.0, 0.0, 2.0]}
    >>> import pandas as pd
    >>> found = describe(Ensemble.from_frame(pd.DataFrame(frame), members=["a", "b"], observation="y"))
    >>> [text.get_text() for text in dependence(found)[0].texts]
    ['−0.87']
    """
    check_result(result, ["group", "error_correlation", "k_eff"], "be.dependence(ensemble)")
    known = result["group"].values.tolist()
    if group not in known:
        raise ValueError(f"the result has no group {group!r}; wanted one of {known}")
    wanted = "the matrix, effective members, the assumed error"
    first, second, third = three_axes(axes, wanted, (10.4, 3.6), width_ratios=(1.1, 1, 1))
    one = result.sel(group=group)
    ends = [one[f"error_correlation_{end}"].sel(part="total") for end in ("low", "high")]
    seen = one["error_correlation"].sel(part="total")
    given = all(np.isfinite(end.values[np.isfinite(seen.values)]).all() for end in ends) and seen.sizes["member"] <= 5
    correlations(seen, **(dict(zip(("low", "high"), ends, strict=True)) if given else {}), ax=first)
    first.set_title("Error correlation, all rows", fontsize=10)
    _effective(one, bare_axes(second, (0, 0)))
    _assumed(result, bare_axes(third, (0, 0)))
    return np.array([first, second, third], dtype=object)


def _effective(one: xr.Dataset, ax: Axes) -> None:
    """Kinds of K_eff as rows, parts side by side."""
    kinds = [str(kind) for kind in one["kind"].values]
    parts = [str(part) for part in one["part"].values]
    for i, part in enumerate(parts):
        color, marker, line = look(i)
        value, low, high = (one[f"k_eff{end}"].sel(part=part).values for end in ("", "_low", "_high"))
        y = np.arange(len(kinds)) + 0.22 * (i - (len(parts) - 1) / 2)
        ax.hlines(y, low, high, color=color, lw=1.4, ls=line)
        ax.plot(value, y, marker, color=color, ms=6.5, mec="white", mew=0.8, label=part)
    ax.axvline(1, color="0.6", lw=0.8, zorder=0)
    ax.axvline(one.sizes["member"], color="0.6", lw=0.8, ls=":", zorder=0)
    ax.set_xlabel("Effective number of members")
    with_legend(name_rows(ax, [kind.replace(" over ", "\nover ") for kind in kinds]))


def _assumed(result: xr.Dataset, ax: Axes) -> None:
    """Pairs of members in grey, their mean in colour, up to the largest error possible."""
    x = result["observation_error"].values
    r = result["assumed_correlation"].values
    one, other = np.triu_indices(result.sizes["member"], 1)
    style = {"marker": "."} if len(x) < 3 else {}
    ax.plot(x, r[:, one, other], color="0.7", lw=0.8, **style)  # type: ignore[arg-type]
    ax.plot(x, r[:, one, other].mean(axis=1), color=look(0).color, lw=2, **style)  # type: ignore[arg-type]
    if np.isfinite(bound := float(result["observation_error_bound"])):
        ax.axvline(bound, color="0.4", lw=0.8, ls="--")
    ax.set_xlabel(labelled("Assumed observation error,\nstandard deviation", result.attrs["units"]))
    ax.set_ylabel("Error correlation")
