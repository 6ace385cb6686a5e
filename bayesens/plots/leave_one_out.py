"""Leave-one-out in figures: whether observations fall where fits to the other rows expect them, and which fit is ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.plots.axes import COLOR, INK, bare_axes, name_rows, with_legend
from bayesens.plots.given import check_fit, check_table

if TYPE_CHECKING:
    from arviz_plots import PlotCollection
    from matplotlib.axes import Axes

__all__ = ["loo_differences", "loo_pit"]

GROUPS = ("observed_data", "log_likelihood", "posterior_predictive")


def loo_pit(tree: xr.DataTree, *, coverage: bool = False, level: float = 0.95, **options: Any) -> PlotCollection:
    """Draw ArviZ's LOO-PIT: the distribution of the probabilities that fits without a row give to values up to its own.

    For a calibrated model these are uniform, and the line, the share of rows up to each probability less that
    probability, stays near zero. A line above zero on the left and below it on the right says that intervals are too
    short, the reverse that they are too long, one above (below) throughout that predictions are too high (low). Points that
    do most against uniformity are marked where the test rejects it.

    Rows are left out one at a time, so a site's other days tell of each: see `bayesens.compare` for new sites and times.

    Parameters
    ----------
    tree : DataTree
        A fit with ``log_likelihood`` and ``posterior_predictive``, as `bayesens.add` gives them.
    coverage : bool, optional
        Draw the coverage of central intervals instead: the share inside an interval less the share that it promises.
    level : float, optional
        One less the level of the test.
    **options
        Of :func:`arviz_plots.plot_ecdf_pit`; the backend is matplotlib unless you name another.

    Returns
    -------
    arviz_plots.PlotCollection
        ``collection.get_viz("plot")`` are the axes, ``collection.savefig`` writes a file.

    Raises
    ------
    TypeError
        What is no fit.
    ValueError
        If the fit lacks a group, or the level is not inside (0, 1).

    References
    ----------
    Säilynoja, Bürkner and Vehtari (2022), Statistics and Computing 32, 32: PIT by its distribution function.
    Vehtari, Gelman and Gabry (2017), Statistics and Computing 27, 1413-1432. The test is the one of ArviZ's "pot_c".

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> y = xr.DataArray(rng.normal(size=40), dims="obs", name="y")
    >>> sampled = xr.DataArray(rng.normal(size=(2, 50, 40)), dims=("chain", "draw", "obs"), name="y")
    >>> log_density = -0.5 * (y - 0.1 * sampled[..., 0]) ** 2
    >>> tree = xr.DataTree.from_dict({
    ...     "posterior": xr.Dataset({"a": sampled[..., 0]}), "observed_data": y.to_dataset(),
    ...     "posterior_predictive": sampled.to_dataset(), "log_likelihood": log_density.to_dataset(name="y")})
    >>> loo_pit(tree).get_viz("plot").get_xlabel()
    'LOO-PIT'
    """
    from arviz_plots import plot_ecdf_pit
    from arviz_stats import loo_pit as arviz_loo_pit

    check_fit(tree)
    if (power := float(tree.attrs.get("likelihood_power", 1.0))) != 1.0:
        raise ValueError(
            f"LOO-PIT takes rows out of a posterior at a power of one, and this one was made with likelihood_power={power:g}; "
            "score rows that were held out with be.score, and look at their pit."
        )
    if lacking := [name for name in GROUPS if name not in tree.children]:
        first = lacking[-1]
        how = "fit again" if first == "observed_data" else f"tree = be.add(tree, ensemble, {first!r})"
        raise ValueError(
            f"LOO-PIT needs the groups {', '.join(GROUPS)}, and the fit lacks {', '.join(lacking)}; {how}."
        )
    if not 0.0 < level < 1.0:
        raise ValueError(f"level lies inside (0, 1), such as 0.95; got {level!r}.")
    looks: dict[str, Any] = {
        "ecdf_lines": {"color": COLOR[0], "width": 1.6}, "title": False,
        "suspicious_points": {"color": COLOR[1], "marker": "D", "size": 18}, "p_value_text": {"size": 9},
        "xlabel": {"text": "Central interval [%]" if coverage else "LOO-PIT", "color": INK, "size": 10},
        "ylabel": {"text": "Observed less promised share", "color": INK, "size": 10},
    }  # fmt: skip
    looks |= options.pop("visuals", {})
    given: dict[str, Any] = {"backend": "matplotlib", "envelope_prob": level}
    options = given | options
    if "plot_collection" not in options:
        figure: dict[str, Any] = {"figsize": (4.8, 3.2), "figsize_units": "inches", "layout": "constrained"}
        options["figure_kwargs"] = figure | options.get("figure_kwargs", {})
    # What arviz_plots.plot_loo_pit does; that function has no say in how the marked points look.
    values = arviz_loo_pit(tree, var_names=["y"], pareto_pit=True)
    return plot_ecdf_pit(
        xr.DataTree.from_dict({"loo_pit": values}), group="loo_pit", sample_dims=list(values.dims), method="pot_c",
        coverage=coverage, visuals=looks, **options,
    )  # fmt: skip


def loo_differences(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Forest of elpd differences from the best fit, each with two standard errors either way: clustered, and of rows.

    Parameters
    ----------
    table : DataFrame
        From `bayesens.comparison.loo_table.loo_table`; one row a fit, the best on top.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, KeyError
        What is no table of `loo_table`, or one that lacks a column.

    Examples
    --------
    >>> table = pd.DataFrame({"model": ["HBM", "BMA"], "difference": [0.0, -9.0], "difference_se": [0.0, 2.0],
    ...                       "difference_se_clustered": [0.0, 6.0], "clustered_by": "30 sites"})
    >>> ax = loo_differences(table)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['rows independent', '30 sites independent']
    """
    needed = ["model", "difference", "difference_se", "difference_se_clustered", "clustered_by"]
    check_table(table, needed, "be.loo_table({'BMA': fit, ...}, ensemble)")
    value, y = table["difference"].to_numpy(float), np.arange(len(table))
    ax = bare_axes(ax, (5.0, 1.1 + 0.36 * len(table)))
    ax.axvline(0, color="0.5", lw=0.8, zorder=1)
    by = str(table["clustered_by"].iloc[0])
    rows, clustered = (2.0 * table[name].to_numpy(float) for name in needed[2:4])
    ax.hlines(y, value - rows, value + rows, color=COLOR[1], lw=5, zorder=2, label="rows independent")
    if np.isfinite(clustered).any():
        ax.hlines(y, value - clustered, value + clustered, color=COLOR[0], lw=1.3, zorder=3, label=f"{by} independent")
    else:
        ax.plot([], [], " ", label=f"clustered: {by}")
    ax.plot(value, y, "o", color=COLOR[0], ms=6.5, mec="white", mew=0.8, zorder=4)
    name_rows(ax, [str(name) for name in table["model"]])
    ax.locator_params(axis="x", nbins=6)
    ax.set_xlabel(f"elpd less that of {table['model'].iloc[0]} (lines: two standard errors)")
    return with_legend(ax)
