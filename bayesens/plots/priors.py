"""Priors in figures: what grids of them do, what power-scaling does, and what they imply before the data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.plots.axes import COLOR, INK, bare_axes, name_rows, three_axes, with_legend
from bayesens.plots.given import check_fit, check_result, check_table

if TYPE_CHECKING:
    from arviz_plots import PlotCollection
    from matplotlib.axes import Axes

__all__ = ["power_scaled", "power_sensitivity", "prior_implied", "tornado"]

LABELS = {
    "crps_change": "Change of the CRPS held out [%]", "width90_change": "Change of the width of 90 % intervals [%]",
    "coverage90_change": "Change of the coverage of 90 % intervals", "log_score_change": "Change of the log score",
    "difference": "CRPS against {against} [%]", "difference_change": "Change of the difference from {against} [%]",
}  # fmt: skip


def tornado(table: pd.DataFrame, *, effect: str = "crps_change", ax: Axes | None = None) -> Axes:
    """Effect of every value of every option, options with the largest effects on top, with a line at the base.

    Parameters
    ----------
    table : DataFrame
        From `bayesens.sensitivity.grid_table`.
    effect : str, optional
        Which column: ``crps_change``, another ``..._change``, ``difference``, or ``weight[...]`` of a member. Intervals are
        drawn where the table has them.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    KeyError
        If the table has no such column.
    ValueError
        A grid of combinations, which has no options one at a time; no effect at all.

    Examples
    --------
    >>> table = pd.DataFrame({"point": ["base", "a = 1", "b = 2"], "option": ["", "a", "b"], "value": ["", "1", "2"],
    ...                       "crps_change": [0.0, 0.1, -2.0]})
    >>> ax = tornado(table)
    >>> ax.get_xlabel(), [text.get_text() for text in ax.get_yticklabels()]
    ('Change of the CRPS held out [%]', ['b', 'a'])
    """
    check_table(table, ["option", "value", effect], "be.sensitivity.grid_table(be.sensitivity.prior_grid(...))")
    if table["option"].str.contains(", ").any():
        raise ValueError("the table holds combinations of options; draw a grid that was made with full=False")
    base, others = float(table[effect].iloc[0]), table.iloc[1:].dropna(subset=[effect])
    if not len(others):
        raise ValueError(f"no point of the grid beside the base has a value of {effect!r}")
    reach = (others[effect] - base).abs().groupby(others["option"]).max().sort_values(ascending=False, kind="stable")
    options = [str(name) for name in reach.index]
    ax = bare_axes(ax, (6.2, 1.0 + 0.62 * len(options)))
    ax.axvline(base, color="0.5", lw=0.9, zorder=1)
    for row, option in enumerate(options):
        _bar(ax, row, others[others["option"] == option], effect, base)
    # The first series alone is named: markers stand for the side, values for the rest.
    ax.plot([], [], "o", color=COLOR[0], ms=6, label="higher than the base")
    ax.plot([], [], "s", mfc="white", mec=COLOR[4], ms=6, label="lower or equal")
    ax.set_xlabel(_label(effect, table))
    ax.margins(x=0.12)
    return with_legend(name_rows(ax, options))


def _bar(ax: Axes, row: int, own: pd.DataFrame, effect: str, base: float) -> None:
    """All values of an option on one row, spread a little so that their names keep apart."""
    value = own[effect].to_numpy(float)
    y = row + 0.17 * (np.arange(len(own)) - (len(own) - 1) / 2) if len(own) > 1 else np.array([float(row)])
    low, high = min(base, float(value.min())), max(base, float(value.max()))
    ax.barh(row, high - low, left=low, height=0.86, color="0.92", lw=0, zorder=0)
    if {f"{effect}_low", f"{effect}_high"} <= set(own):
        left, right = (own[f"{effect}_{end}"].to_numpy(float) for end in ("low", "high"))
        ax.hlines(y, left, right, color="0.45", lw=0.9, zorder=2)
    for at, x, text in zip(y, value, own["value"], strict=True):
        up = x > base
        edge = COLOR[0] if up else COLOR[4]
        ax.plot(x, at, "o" if up else "s", ms=5, mfc=edge if up else "white", mec=edge, zorder=3)
        ax.annotate(_short(str(text)), (x, at), (6 if up else -6, 0), textcoords="offset points", fontsize=6.5, color=INK,
                    ha="left" if up else "right", va="center", zorder=4,
                    bbox={"fc": "white", "alpha": 0.85, "lw": 0, "pad": 0.4})  # fmt: skip


def _short(text: str) -> str:
    """What differs between the values of an option: the numbers of its prior."""
    family, bracket, rest = text.partition("(")
    return rest.removesuffix(")") if bracket else family


def _label(effect: str, table: pd.DataFrame) -> str:
    if effect.startswith("weight["):
        return f"Posterior mean weight of {effect.removeprefix('weight[').removesuffix(']')}"
    return LABELS.get(effect, effect).format(against=table.attrs.get("against") or "the other model")


def power_scaled(tree: xr.DataTree, *, var_names: Sequence[str] | None = None, **kwargs: Any) -> PlotCollection:
    """Mean and sd of posterior quantities as the priors, or the likelihood that was fitted, are raised to powers of .8 to 1.25.

    Parameters
    ----------
    tree : DataTree
        A fit by Laplace or NUTS. Its likelihood is `sample_stats/log_joint`, for HBM that of observation and members.
    var_names : sequence of str, optional
        Variables of the posterior. None: weights, or linear weights.
    **kwargs
        Of ``arviz_plots.plot_psense_quantities``, which draws it.

    Returns
    -------
    arviz_plots.PlotCollection

    Raises
    ------
    ValueError
        As `bayesens.sensitivity.power.power_scaling`; no weights, and nothing else asked for.

    Notes
    -----
    The dashed lines are two Monte Carlo standard errors about the unscaled value: changes within them are none.
    """
    check_fit(tree)
    from arviz_plots import plot_psense_quantities

    from bayesens.sensitivity.power import scaled_draws

    for component in ("prior", "likelihood"):
        for power in kwargs.get("alphas") or (0.8, 1.25):
            scaled_draws(tree, component=component, power=power)  # refuses weights that cannot be trusted
    posterior = tree["posterior"].to_dataset()
    names = list(var_names or [name for name in ("weight", "linear_weight") if name in posterior][:1])
    if not names:
        raise ValueError(f"the posterior has no weights; name variables of {list(posterior.data_vars)}")
    stats = tree["sample_stats"].to_dataset()[["log_joint"]]
    kept = dict.fromkeys([*names, *list(posterior.data_vars)[:2]])  # ArviZ stumbles over a posterior of one variable
    made = xr.DataTree.from_dict({
        "posterior": posterior[list(kept)], "log_prior": tree["log_prior"].to_dataset(),
        "log_likelihood": stats.assign_coords({dim: posterior[dim].values for dim in ("chain", "draw")}),
    })  # fmt: skip
    if kwargs.get("backend") in (None, "matplotlib") and "plot_collection" not in kwargs:
        rows = sum(int(np.prod(posterior[name].shape[2:])) for name in names)
        size = {"layout": "constrained", "figsize": (8.0, 0.8 + 1.9 * rows)}  # or titles cover the axes above
        kwargs["figure_kwargs"] = size | kwargs.get("figure_kwargs", {})
    return plot_psense_quantities(made, var_names=names, **kwargs)


def power_sensitivity(table: pd.DataFrame | xr.DataTree, *, ax: Axes | None = None) -> Axes:
    """Sensitivity of every quantity to the priors and to the likelihood, with the threshold.

    Parameters
    ----------
    table : DataFrame or DataTree
        From `bayesens.sensitivity.power_scaling`, or the fit that it takes.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, KeyError
        What is no such table and no fit, or a table that lacks a column.

    Examples
    --------
    >>> table = pd.DataFrame({"variable": ["weight[rf]"], "prior": [0.02], "likelihood": [0.1], "diagnosis": ["-"]})
    >>> [text.get_text() for text in power_sensitivity(table).get_yticklabels()]
    ['weight[rf]']
    """
    if isinstance(table, xr.DataTree):
        from bayesens.sensitivity.power import power_scaling

        table = power_scaling(table)
    check_table(table, ["variable", "prior", "likelihood"], "be.sensitivity.power_scaling(fit)")
    y = np.arange(len(table), dtype=float)
    ax = bare_axes(ax, (5.0, 0.9 + 0.27 * len(table)))
    threshold = float(table.attrs.get("threshold", 0.05))
    ax.axvspan(0.0, threshold, color="0.92", lw=0, zorder=0, label=f"below {threshold:g}")
    prior, likelihood = (table[name].to_numpy(float) for name in ("prior", "likelihood"))
    ax.hlines(y, np.fmin(prior, likelihood), np.fmax(prior, likelihood), color="0.7", lw=1.0, zorder=1)
    ax.plot(prior, y, "s", color=COLOR[4], ms=6, mec="white", mew=0.6, label="priors", zorder=3)
    ax.plot(likelihood, y, "o", mfc="white", mec=COLOR[0], mew=1.4, ms=6, label="likelihood", zorder=3)
    ax.set_xlim(left=0.0)
    ax.set_xlabel("Sensitivity: distance per doubling of the power")
    return with_legend(name_rows(ax, [str(name) for name in table["variable"]]))


def prior_implied(result: xr.Dataset, *, axes: Sequence[Axes] | None = None) -> NDArray[np.object_]:
    """What the priors imply: effective members or error correlations, sd of predictions, widths of intervals.

    Parameters
    ----------
    result : Dataset
        From `bayesens.sensitivity.implied.prior_predictive`.
    axes : sequence of three Axes, optional
        Where to draw.

    Returns
    -------
    array (3) of Axes

    Raises
    ------
    TypeError
        What is no such Dataset.
    ValueError
        Other than three axes.

    Examples
    --------
    >>> result = xr.Dataset({"relative_sd": ("draw", [0.5, 1.0]), "relative_width": ("obs", [1.0, 2.0]), "coverage90": 0.9})
    >>> [ax.get_xlabel() for ax in prior_implied(result)][1]
    'sd of p(y | f) / sd of the observations'
    """
    check_result(result, ["relative_sd", "relative_width"], "be.sensitivity.prior_predictive(model, ensemble)")
    found = three_axes(axes, "of weights or errors, of the sd, of widths", (10.4, 3.2))
    first, second, third = (bare_axes(ax, (0, 0)) for ax in found)
    _structure(result, first)
    _histogram(second, result["relative_sd"].values, "sd of p(y | f) / sd of the observations")
    _histogram(third, result["relative_width"].values, "Width of 90 % intervals / climatology's")
    third.set_title(f"{100 * float(result['coverage90']):.0f} % of observations inside", fontsize=9, loc="left")
    for ax in (second, third):
        ax.axvline(1.0, color=INK, lw=1.0, ls=(0, (4, 3)), zorder=3)
    return np.array([first, second, third], dtype=object)


def _structure(result: xr.Dataset, ax: Axes) -> None:
    if "error_corr" in result:
        _histogram(ax, result["error_corr"].values, "Mean correlation of errors f - y")
        ax.axvline(0.0, color=INK, lw=1.0, ls=(0, (4, 3)), zorder=3)
    elif "effective_members" in result:
        _histogram(ax, result["effective_members"].values, "Effective number of members")
        if members := len(json.loads(result.attrs.get("members", "[]"))):
            ax.axvline(members, color=INK, lw=1.0, ls=(0, (4, 3)), zorder=3)
    else:
        text = "no weights, no error correlations"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", fontsize=9, color="0.4")
        ax.set_axis_off()


def _histogram(ax: Axes, values: NDArray[np.float64], label: str) -> None:
    """Histogram up to the 99.5 % quantile, with the median and the central 90 %."""
    low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95])
    shown = values[values <= np.nanquantile(values, 0.995)]
    ax.hist(shown, bins=30, color="0.8", lw=0, zorder=1)
    top = ax.get_ylim()[1]
    ax.hlines(1.04 * top, low, high, color=COLOR[0], lw=2.0, zorder=2)
    ax.plot(middle, 1.04 * top, "o", color=COLOR[0], ms=6, mec="white", mew=0.8, zorder=3)
    ax.set_ylim(0, 1.12 * top)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(label)
