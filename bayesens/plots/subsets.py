"""Figures of what members and stations are worth: losses without members, Shapley values, curves of fewer stations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.plots.axes import bare_axes, dots, labelled, look, name_rows, with_legend
from bayesens.plots.given import check_result, check_table
from bayesens.plots.tables import NAMES
from bayesens.sensitivity.station_curves import power_law, reduction_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["learning_curve", "left_out", "shapley"]


def left_out(table: pd.DataFrame, *, equivalent: float = 1.0, ax: Axes | None = None) -> Axes:
    """Dot plot of the change of a score without each member or cluster, with its interval.

    Parameters
    ----------
    table : DataFrame
        From `bayesens.sensitivity.members_left_out`: one row of the figure a line, with the correlation of errors beside the
        name.
    equivalent : float, optional
        Half the width of the region [percent] within which two models are equal for practical purposes; drawn for
        differences in percent.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, KeyError
        What is no table of `members_left_out`, or one that lacks a column.

    Examples
    --------
    >>> table = pd.DataFrame({"left_out": ["rf"], "metric": ["crps"], "unit": ["percent"], "difference": [2.0], "low": [0.5],
    ...                       "high": [3.5], "error_correlation": [0.7]})
    >>> ax = left_out(table)
    >>> ax.get_xlabel(), [text.get_text() for text in ax.get_yticklabels()]
    ('CRPS, change when left out [%]', ['rf (r = .70)'])
    """
    needed = ["left_out", "metric", "unit", "difference", "low", "high", "error_correlation"]
    check_table(table, needed, "be.sensitivity.members_left_out(...)")
    ax = bare_axes(ax, (5.0, 1.0 + 0.34 * len(table)))
    percent = "percent" in set(table["unit"])
    if percent:
        ax.axvspan(-equivalent, equivalent, color="0.88", lw=0, zorder=0, label=f"within {equivalent:g} %")
    names = [str(line["left_out"]) + _said(line["error_correlation"]) for line in table.to_dict("records")]
    name_rows(ax, names)
    dots(ax, *(table[name].to_numpy(float) for name in ("difference", "low", "high")))
    ax.locator_params(axis="x", nbins=5)  # small numbers have long labels
    ax.set_xlabel(labelled(f"{_metric(table)}, change when left out", "%" if percent else ""))
    return with_legend(ax)


def _metric(table: pd.DataFrame) -> str:
    name = str(table["metric"].iloc[0])
    return NAMES.get(name, name)


def _said(r: float) -> str:
    """The error correlation beside a name, without the zero that it always begins with."""
    return f" (r = {r:.2f})".replace("= 0.", "= .").replace("= -0.", "= -.") if np.isfinite(r) else ""


def shapley(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Dot plot of Shapley values with intervals, and beside them what each member gains alone and costs when left out.

    Parameters
    ----------
    table : DataFrame
        From `bayesens.sensitivity.shapley`.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, KeyError
        What is no table of `shapley`, or one that lacks a column.

    Examples
    --------
    >>> table = pd.DataFrame({"member": ["rf", "mlr"], "value": [0.02, 0.01], "low": [0.01, -0.01], "high": [0.03, 0.03],
    ...                       "alone": [0.025, 0.02], "last": [0.01, 0.0], "metric": "crps", "units": "m3 m-3"})
    >>> ax = shapley(table)
    >>> ax.get_xlabel(), [text.get_text() for text in ax.get_yticklabels()]
    ('CRPS, fall when a member joins [m³ m⁻³]', ['rf', 'mlr'])
    """
    needed = ["member", "value", "low", "high", "alone", "last", "metric", "units"]
    check_table(table, needed, "be.sensitivity.shapley(...)")
    ax = bare_axes(ax, (5.0, 1.2 + 0.36 * len(table)))
    name_rows(ax, [str(name) for name in table["member"]])
    y = np.arange(len(table))
    for column, marker, label in (("alone", "|", "alone"), ("last", "x", "when left out of all")):
        ax.plot(table[column].to_numpy(float), y, marker, color="0.35", ms=7.5, mew=1.4, label=label, zorder=2.5)
    dots(ax, *(table[name].to_numpy(float) for name in ("value", "low", "high")))
    ax.locator_params(axis="x", nbins=5)  # small numbers have long labels
    ax.set_xlabel(labelled(f"{_metric(table)}, fall when a member joins", str(table["units"].iloc[0])))
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
        handle.set_label(label.replace("interval", "Shapley value, interval"))
    return with_legend(ax)


def learning_curve(
    result: xr.Dataset | pd.DataFrame,
    *,
    metric: str | None = None,
    law: pd.DataFrame | None = None,
    level: float = 0.9,
    random_seed: int | None = None,
    units: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Score against the number of stations learnt from, with the interval of its change and the power law where one fits.

    Parameters
    ----------
    result : Dataset or DataFrame
        From `bayesens.sensitivity.fewer_stations` by stations, or its `reduction_table`.
    metric : str, optional
        Of a result: which score; None: its own.
    law : DataFrame, optional
        From `bayesens.sensitivity.power_law`; None fits it anew where a result with enough shares is given.
    level, random_seed
        Of the intervals of a result; those of a table are drawn as they are.
    units : str, optional
        Of the score; None: those of the result.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, KeyError
        What is no such table, or lacks a column.
    ValueError
        If groups were removed in place of shares.

    Notes
    -----
    Bars are the intervals of the *change* from all stations, drawn about the score with all: how far apart two points of a
    curve are. How well the score itself is known is another matter, and mostly of the validation stations.

    Examples
    --------
    >>> table = pd.DataFrame({"model": "BMA", "removed": [0.0, 0.4], "scored": "all", "n_stations": [20, 12], "metric": "crps",
    ...     "score": [0.02, 0.03], "change": [0.0, 50.0], "low": [0.0, 20.0], "high": [0.0, 80.0], "unit": "percent"})
    >>> ax = learning_curve(table, units="m3 m-3")
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('Stations learnt from', 'CRPS [m³ m⁻³]')
    """
    if isinstance(result, xr.Dataset):
        check_result(result, ["n_stations"], "be.sensitivity.fewer_stations(...)")
        units = units or str(result.attrs["units"])
        table = reduction_table(result, metric=metric, level=level, random_seed=random_seed)
        enough = len(np.unique(result["n_stations"].values)) > 3 and table["unit"].iloc[0] == "percent"
        if law is None and result.attrs["by"] == "station" and enough:
            law = power_law(result, metric=metric, level=level, random_seed=random_seed)
    else:
        table = result
    needed = ["model", "removed", "n_stations", "metric", "score", "low", "high", "unit"]
    check_table(table, needed, "be.sensitivity.fewer_stations(...)")
    if not pd.api.types.is_numeric_dtype(table["removed"]):
        raise ValueError("groups were removed, and there is no curve; wanted the result of by='station'")
    ax = bare_axes(ax, (5.0, 3.4))
    models = list(dict.fromkeys(table["model"].astype(str)))
    apart = 0.012 * np.ptp(table["n_stations"].to_numpy(float))
    for i, model in enumerate(models):
        own, (color, marker, line) = table[table["model"].astype(str) == model], look(i)
        n, score, low, high = (own[name].to_numpy(float) for name in ("n_stations", "score", "low", "high"))
        x = n + apart * (i - (len(models) - 1) / 2)  # bars of two models would cover each other
        base = score[0]
        low, high = (base * (1 + end / 100) if own["unit"].iloc[0] == "percent" else base + end for end in (low, high))
        ax.vlines(x, low, high, color=color, lw=1.2, zorder=2)
        fitted = None if law is None else _line(law, model, np.linspace(n.min(), n.max(), 60))
        path, style = ((x, score), ":") if fitted is None else (fitted, line)  # dots only lead from point to point
        ax.plot(*path, color=color, lw=1.2 if fitted else 0.8, ls=style, zorder=2)
        ax.plot(x, score, marker, color=color, ms=6, mec="white", mew=0.6, zorder=3)
        ax.plot([], [], color=color, marker=marker, ls=style, ms=6, mec="white", mew=0.6, label=model)
    ax.set_xlabel("Stations learnt from")
    ax.set_ylabel(labelled(_metric(table), units if table["metric"].iloc[0] != "coverage90" else ""))
    ax.locator_params(axis="x", integer=True)
    return with_legend(ax)


def _line(law: pd.DataFrame, model: str, n: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Fitted curve of a model, if one fits."""
    own = law[law["model"].astype(str) == model]
    if own.empty or np.isnan(own["c"].iloc[0]):
        return None
    a, b, c = own[["a", "b", "c"]].iloc[0]
    return n, a + b * n**-c
