"""Figures of tables: scores of models, differences between them, importance of covariates, statistics by band."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayesens.plots.axes import COLOR, INK, LINE, MARKER, bare_axes, labelled, name_rows, with_legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["band_curve", "differences", "importance", "scores"]


def scores(
    table: pd.DataFrame, *, score: str = "crps", label: str = "Mean CRPS", units: str = "", ax: Axes | None = None
) -> Axes:
    """Dot plot of a mean score by model, with its interval where the table has one; the lowest is marked by a line.

    Parameters
    ----------
    table : DataFrame
        One row per model, drawn from top to bottom; a column of the score, and optionally ``lower`` and ``upper``.
    score : str, optional
        Column to draw; lower is better.
    label : str, optional
        Name of the score on the axis.
    units : str, optional
        Its units.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    KeyError
        If the table has no such column.

    Examples
    --------
    >>> table = pd.DataFrame({"crps": [0.016, 0.021]}, index=["HBM", "equal weights"])
    >>> ax = scores(table, units="m3 m-3")
    >>> ax.get_xlabel(), [tick.get_text() for tick in ax.get_yticklabels()]
    ('Mean CRPS [m³ m⁻³]', ['HBM', 'equal weights'])
    """
    if score not in table:
        raise KeyError(f"the table has no column {score!r}, only {list(table.columns)}; name one by score=")
    value, y = table[score].to_numpy(float), np.arange(len(table))
    ax = bare_axes(ax, (4.6, 0.8 + 0.32 * len(table)))
    if {"lower", "upper"} <= set(table):
        ax.hlines(y, table["lower"].to_numpy(float), table["upper"].to_numpy(float), color=COLOR[0], lw=1.2, zorder=2)
    ax.plot(value, y, "o", color=COLOR[0], ms=6, mec="white", mew=0.6, zorder=3)
    ax.axvline(float(np.nanmin(value)), color="0.5", lw=0.8, ls=(0, (4, 3)), zorder=1)
    ax.locator_params(axis="x", nbins=5)  # small numbers have long labels
    ax.set_xlabel(labelled(label, units))
    return name_rows(ax, [str(name) for name in table.index])


def differences(table: pd.DataFrame, *, metric: str = "crps", equivalent: float = 1.0, ax: Axes | None = None) -> Axes:
    """Forest of differences of a score from a reference in percent, with the region of practical equivalence.

    Parameters
    ----------
    table : DataFrame
        From `bayesens.paired_differences`: ``model``, ``reference``, ``estimand``, ``metric``, ``difference``, ``low``,
        ``high``, in percent; one line a row of the figure, from top to bottom.
    metric : str, optional
        Which metric, if the table has several.
    equivalent : float, optional
        Half the width of the region [percent] within which two models are equal for practical purposes.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the table has no difference of that metric in percent.

    Examples
    --------
    >>> table = pd.DataFrame({"model": ["HBM"], "reference": ["BMA"], "estimand": ["site"], "metric": ["crps"],
    ...                       "unit": ["percent"], "difference": [-2.0], "low": [-5.0], "high": [0.5]})
    >>> ax = differences(table)
    >>> ax.get_xlabel(), [text.get_text() for text in ax.get_yticklabels()]
    ('CRPS against BMA [%], lower is better', ['HBM'])
    """  # fmt: skip
    lines = table[(table["metric"] == metric) & (table["unit"] == "percent")]
    if not len(lines):
        raise ValueError(
            f"the table has no differences of {metric!r} in percent; it has {sorted(set(table['metric']))}"
        )
    several = lines["estimand"].nunique() > 1
    names = [f"{one.model} ({one.estimand})" if several else str(one.model) for one in lines.itertuples()]
    ax, y = bare_axes(ax, (5.0, 0.9 + 0.32 * len(lines))), np.arange(len(lines))
    ax.axvspan(-equivalent, equivalent, color="0.88", lw=0, zorder=0, label=f"within {equivalent:g} %")
    ax.axvline(0, color="0.5", lw=0.8, zorder=1)
    ax.hlines(y, lines["low"].to_numpy(float), lines["high"].to_numpy(float), color=COLOR[0], lw=1.4, zorder=2)
    clear = ((lines["low"] > 0) | (lines["high"] < 0)).to_numpy()
    for which, fill, label in ((clear, COLOR[0], "interval leaves out 0"), (~clear, "white", "interval holds 0")):
        if which.any():
            ax.plot(
                lines["difference"].to_numpy(float)[which],
                y[which],
                "o",
                ms=6.5,
                mfc=fill,
                mec=COLOR[0],
                label=label,
                zorder=3,
            )
    reference = " and ".join(dict.fromkeys(lines["reference"].astype(str)))
    ax.set_xlabel(f"{metric.upper()} against {reference} [%], lower is better")
    return with_legend(name_rows(ax, names))


def importance(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Dot plot of permutation importance by covariate: mean rise of the loss in percent, and its sd over folds.

    Parameters
    ----------
    table : DataFrame
        From `bayesens.importance.permutation_importance`: ``member``, ``covariate``, ``percent``, ``loss``, ``rise_sd_fold``.
        Covariates are drawn in the order of their mean over members, the most important on top.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    KeyError
        If the table lacks a column.

    Examples
    --------
    >>> table = pd.DataFrame({"member": ["rf", "rf"], "covariate": ["dem", "rain"], "percent": [5.0, 40.0],
    ...                       "loss": [1.0, 1.0], "rise_sd_fold": [0.02, 0.1]})
    >>> [text.get_text() for text in importance(table).get_yticklabels()]
    ['rain', 'dem']
    """  # fmt: skip
    mean = table.groupby("covariate", sort=False)["percent"].mean().sort_values(ascending=False)
    names, members = [str(name) for name in mean.index], list(dict.fromkeys(table["member"]))
    ax = bare_axes(ax, (5.4, 0.9 + 0.3 * len(names)))
    step = min(0.2, 0.7 / len(members))
    for i, member in enumerate(members):
        own = table[table["member"] == member]
        y = np.array([names.index(str(name)) for name in own["covariate"]]) + step * (i - (len(members) - 1) / 2)
        value, sd = own["percent"].to_numpy(float), (100 * own["rise_sd_fold"] / own["loss"]).to_numpy(float)
        ax.hlines(y, value - sd, value + sd, color=COLOR[i % 7], lw=1.1, ls=LINE[i % 7], zorder=2)
        ax.plot(value, y, MARKER[i % 7], color=COLOR[i % 7], ms=5.5, mec="white", mew=0.6, label=str(member), zorder=3)
    ax.axvline(0, color="0.6", lw=0.8, zorder=1)
    ax.set_xlabel("Rise of the squared error [%]")
    return with_legend(name_rows(ax, names))


def band_curve(table: pd.DataFrame, *, statistic: str = "Moran's I", ax: Axes | None = None) -> Axes:
    """Moran's I of maps by band of values, with intervals.

    Parameters
    ----------
    table : DataFrame (statistic and band, product)
        From `bayesens.spatial.map_table`.
    statistic : str, optional
        Which of its statistics.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    KeyError
        If the table has no such statistic.

    Examples
    --------
    >>> index = pd.MultiIndex.from_product([["Moran's I", "low", "high"], ["0-50 %", "50-100 %"]])
    >>> table = pd.DataFrame({"BMA": [0.9, 0.8, 0.85, 0.75, 0.95, 0.85]}, index=index)
    >>> [text.get_text() for text in band_curve(table).get_xticklabels()]
    ['0-50 %', '50-100 %']
    """
    value = table.loc[statistic]
    bands = [str(band) for band in value.index]
    ax = bare_axes(ax, (5.0, 3.0))
    step = min(0.12, 0.6 / max(value.shape[1], 1))
    for i, name in enumerate(value.columns):
        x = np.arange(len(bands)) + step * (i - (value.shape[1] - 1) / 2)
        if {"low", "high"} <= set(table.index.get_level_values(0)):
            low, high = (table.loc[end].loc[value.index, name].to_numpy(float) for end in ("low", "high"))
            ax.vlines(x, low, high, color=COLOR[i % 7], lw=1.1, ls=LINE[i % 7], zorder=2)
        ax.plot(x, value[name].to_numpy(float), MARKER[i % 7], color=COLOR[i % 7], ms=6, mec="white", mew=0.6,
                label=str(name), zorder=3)  # fmt: skip
    ax.axhline(0, color=INK, lw=0.6, zorder=1)
    ax.set_xticks(range(len(bands)), bands)
    ax.set_ylabel(statistic)
    return with_legend(ax)
