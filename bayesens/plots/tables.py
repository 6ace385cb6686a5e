"""Figures of tables: scores of models, differences between them, importance of covariates, statistics by band."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.comparison.tables import paired_differences, score_table
from bayesens.messages import check_known
from bayesens.plots.axes import COLOR, INK, axes_width, bare_axes, beside, dots, labelled, look, name_rows, with_legend
from bayesens.plots.given import by_name, check_table, dataset_of, is_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["band_curve", "differences", "importance", "scores", "scores_by_group"]

# Of the columns of `bayesens.score_table`: how the axis calls them.
NAMES = {
    "crps": "CRPS", "twcrps": "Threshold-weighted CRPS", "log_score": "Log score", "rmse": "RMSE", "ubrmse": "ubRMSE",
    "mae": "MAE", "bias": "Bias", "r": "R", "coverage90": "Coverage of 90 % intervals", "kge": "KGE",
    "width90": "Width of 90 % intervals", "r_temporal": "R over time", "r_spatial": "R over stations",
}  # fmt: skip
IN_UNITS = ("crps", "twcrps", "rmse", "ubrmse", "mae", "bias", "width90")
SUMMARY = ("all", "macro")  # its groups that are none
AIM = {"bias": 0.0, "coverage90": 0.9}


def scores(
    table: pd.DataFrame | xr.Dataset | Mapping[str, xr.Dataset],
    *,
    score: str = "crps",
    label: str = "",
    units: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Dot plot of a mean score by model, with its interval where the table has one; the lowest is marked by a line.

    Parameters
    ----------
    table : DataFrame or Dataset, or mapping of str to Dataset
        One row per model, drawn from top to bottom: the rows of `bayesens.compare`, scores of `bayesens.score` by the names of
        their models, or a table with a column of the score, optionally with ``lower`` and ``upper``, and with the models in
        its index or, as `bayesens.score_table` has them, in a column.
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
    TypeError
        What is no table, no rows and no scores.
    KeyError
        If the table has no such column.
    ValueError
        Several lines of a model.

    Examples
    --------
    >>> table = pd.DataFrame({"crps": [0.016, 0.021]}, index=["HBM", "equal weights"])
    >>> ax = scores(table, units="m3 m-3")
    >>> ax.get_xlabel(), [tick.get_text() for tick in ax.get_yticklabels()]
    ('Mean CRPS [m³ m⁻³]', ['HBM', 'equal weights'])
    """
    table = _one_line_a_model(table, score)
    check_known([score], table.columns, kind="column", where="the table")
    value, y = table[score].to_numpy(float), np.arange(len(table))
    ax = bare_axes(ax, (4.6, 0.8 + 0.32 * len(table)))
    if {"lower", "upper"} <= set(table):
        ax.hlines(y, table["lower"].to_numpy(float), table["upper"].to_numpy(float), color=COLOR[0], lw=1.2, zorder=2)
    ax.plot(value, y, "o", color=COLOR[0], ms=6, mec="white", mew=0.6, zorder=3)
    ax.axvline(float(np.nanmin(value)), color="0.5", lw=0.8, ls=(0, (4, 3)), zorder=1)
    ax.locator_params(axis="x", nbins=5)  # small numbers have long labels
    ax.set_xlabel(labelled(label or f"Mean {NAMES.get(score, score)}", units))
    return name_rows(ax, [str(name) for name in table.index])


def _one_line_a_model(given: pd.DataFrame | xr.Dataset | Mapping[str, xr.Dataset], score: str) -> pd.DataFrame:
    """A table with the models in its index."""
    if is_rows(given):
        given = score_table(given)
    elif not isinstance(given, pd.DataFrame):
        each = {name: dataset_of(one, "crps", "be.score(fit, ensemble)") for name, one in by_name(given).items()}
        return pd.DataFrame({name: _means(one) for name, one in each.items()}).T
    if "model" not in given:
        return given
    lines = given[given["group"].astype(str) == SUMMARY[0]] if "group" in given else given
    if (twice := lines["model"].duplicated()).any():
        name = lines["model"][twice].iloc[0]
        raise ValueError(f"the table has several lines of the model {name!r}; select one estimand, or one line a model")
    ends = {f"{score}_low": "lower", f"{score}_high": "upper"}
    return lines.set_index("model").rename(columns=ends)


def _means(scored: xr.Dataset) -> dict[str, float]:
    """Mean scores of the rows that one model was scored on."""
    out = {str(name): float(values.mean()) for name, values in scored.data_vars.items() if values.dims == ("obs",)}
    if "error" in scored:
        out |= {"rmse": float(np.sqrt((scored["error"] ** 2).mean())), "bias": out["error"]}
    return out


def scores_by_group(
    table: pd.DataFrame | xr.Dataset,
    *,
    score: str = "crps",
    by: str = "",
    label: str = "",
    units: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Dot plot of a score by group, models side by side, with intervals where the table has them.

    Parameters
    ----------
    table : DataFrame or Dataset
        The rows of `bayesens.compare`, or of `bayesens.score_table` with ``by``: ``model``, ``group``, the score, and
        optionally its ``..._low`` and ``..._high``, and ``stations``, whose number stands beside the name of the group.
        Groups and models are drawn in the order of the table; "all" (all rows) and "macro" (mean over groups) stand
        below a line.
    score : str, optional
        Column to draw.
    by : str, optional
        Of rows, the label that makes the groups; None takes "group". Of a table with groups by several labels, the label
        whose groups are drawn.
    label : str, optional
        Of the axis.
    units : str, optional
        Of the values; not drawn for scores without units.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    KeyError
        If the table lacks a column.
    ValueError
        Several lines of a model and group, as of two estimands; no group of that label.

    Examples
    --------
    >>> table = pd.DataFrame({"model": ["BMA"] * 3, "group": ["all", "a", "b"], "crps": [0.03, 0.02, 0.04]})
    >>> ax = scores_by_group(table, units="m3 m-3")
    >>> ax.get_xlabel(), [tick.get_text() for tick in ax.get_yticklabels()]
    ('CRPS [m³ m⁻³]', ['a', 'b', 'all'])
    """
    if is_rows(table):
        table, by = score_table(table, by=by or "group"), ""
    table = check_table(table, ["model", "group", score, *(["by"] if by else [])], "be.score_table(rows, by=...)")
    if by:
        table = table[(table["by"] == by) | (table["group"] == SUMMARY[0])]
        if set(table["group"]) <= {SUMMARY[0]}:
            raise ValueError(f"the table has no groups by {by!r}; make it with by={by!r}")
    if (twice := table.duplicated(["model", "group"])).any():
        line = table[twice].iloc[0]
        raise ValueError(
            f"model {line['model']!r} has several lines of group {line['group']!r}; select one estimand, and give by= one label"
        )
    named = list(dict.fromkeys(table["group"].astype(str)))
    groups = [name for name in named if name not in SUMMARY] + [name for name in SUMMARY if name in named]
    models = list(dict.fromkeys(table["model"].astype(str)))
    ax = bare_axes(ax, (5.0, 0.9 + (0.16 + 0.14 * len(models)) * len(groups)))
    for i, model in enumerate(models):
        own, (color, marker, line) = table[table["model"].astype(str) == model], look(i)
        y = np.array([groups.index(str(name)) for name in own["group"]]) + beside(i, len(models), 0.16)
        if {f"{score}_low", f"{score}_high"} <= set(table):
            low, high = (own[f"{score}_{end}"].to_numpy(float) for end in ("low", "high"))
            ax.hlines(y, low, high, color=color, lw=1.1, ls=line, zorder=2)
        ax.plot(own[score].to_numpy(float), y, marker, color=color, ms=5.5, mec="white", mew=0.6, label=model, zorder=3)
    if len(single := [name for name in groups if name not in SUMMARY]) < len(groups) and single:
        ax.axhline(len(single) - 0.5, color="0.7", lw=0.8, zorder=1)
    if score in AIM:
        ax.axvline(AIM[score], color="0.5", lw=0.8, ls=(0, (4, 3)), zorder=1)
    ax.locator_params(axis="x", nbins=5)  # small numbers have long labels
    ax.set_xlabel(labelled(label or NAMES.get(score, score), units if score in IN_UNITS or score not in NAMES else ""))
    stations = table.set_index(table["group"].astype(str))["stations"] if "stations" in table else pd.Series(dtype=int)
    count = stations.groupby(level=0).max()
    return with_legend(name_rows(ax, [f"{name} ({n})" if (n := count.get(name, 0)) else name for name in groups]))


def differences(
    table: pd.DataFrame | xr.Dataset,
    *,
    metric: str = "crps",
    equivalent: float = 1.0,
    reference: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Forest of differences of a score from a reference in percent, with the region of practical equivalence.

    Parameters
    ----------
    table : DataFrame or Dataset
        The rows of `bayesens.compare`, or from `bayesens.paired_differences`: ``model``, ``reference``, ``estimand``,
        ``metric``, ``difference``, ``low``, ``high``, ``unit``, and perhaps ``group``; one line a row of the figure,
        from top to bottom.
    metric : str, optional
        Which metric, if the table has several.
    equivalent : float, optional
        Half the width of the region [percent] within which two models are equal for practical purposes.
    reference : str, optional
        Of rows, the model that the others are held against, with ``random_seed=1``; None takes the first.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, KeyError
        What is no such table and no rows, a table that lacks a column, rows that lack the reference.
    ValueError
        If the table has no difference of that metric in percent.

    Examples
    --------
    >>> table = pd.DataFrame({"model": ["HBM"], "reference": ["BMA"], "estimand": ["site"], "metric": ["crps"],
    ...                       "unit": ["percent"], "difference": [-2.0], "low": [-5.0], "high": [0.5]})
    >>> ax = differences(table)
    >>> ax.get_xlabel(), [text.get_text() for text in ax.get_yticklabels()]
    ('CRPS against BMA [%], lower is better', ['HBM'])
    """
    if is_rows(table):
        table = paired_differences(table, reference or str(table["model"].values[0]), random_seed=1)
    needed = ["model", "reference", "metric", "unit", "difference", "low", "high"]
    table = check_table(table, needed, "be.paired_differences(rows, reference)")
    lines = table[(table["metric"] == metric) & (table["unit"] == "percent")]
    if not len(lines):
        raise ValueError(
            f"the table has no differences of {metric!r} in percent; it has {sorted(set(table['metric']))}"
        )
    # What differs between lines, beside the model, is named.
    told = [name for name in ("estimand", "group") if name in lines and lines[name].nunique() > 1]
    names = [str(line["model"]) + (f" ({', '.join(str(line[name]) for name in told)})" if told else "")
             for line in lines.to_dict("records")]  # fmt: skip
    ax = bare_axes(ax, (5.0, 0.9 + 0.32 * len(lines)))
    ax.axvspan(-equivalent, equivalent, color="0.88", lw=0, zorder=0, label=f"within {equivalent:g} %")
    dots(ax, *(lines[name].to_numpy(float) for name in ("difference", "low", "high")))
    reference = " and ".join(dict.fromkeys(lines["reference"].astype(str)))
    name_rows(ax, names)
    text = f"{metric.upper()} against {reference} [%], "
    ax.set_xlabel(text + ("lower is better" if 5.2 * len(text) + 80 < axes_width(ax) else "\nlower is better"))
    return with_legend(ax)


def importance(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Dot plot of permutation importance by covariate: mean rise of the loss in percent, and its sd over folds.

    Parameters
    ----------
    table : DataFrame
        From `bayesens.sensitivity.covariates.permutation_importance`: ``member``, ``covariate``, ``percent``, ``loss``,
        ``rise_sd_fold``. Covariates are drawn in the order of their mean over members, the most important on top.
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
    """
    needed = ["member", "covariate", "percent", "loss", "rise_sd_fold"]
    check_table(table, needed, "be.importance.permutation_importance(...)")
    mean = table.groupby("covariate", sort=False)["percent"].mean().sort_values(ascending=False)
    names, members = [str(name) for name in mean.index], list(dict.fromkeys(table["member"]))
    ax = bare_axes(ax, (5.4, 0.9 + (0.14 + 0.07 * len(members)) * len(names)))
    for i, member in enumerate(members):
        own = table[table["member"] == member]
        y = np.array([names.index(str(name)) for name in own["covariate"]]) + beside(i, len(members), 0.2)
        value, sd = own["percent"].to_numpy(float), (100 * own["rise_sd_fold"] / own["loss"]).to_numpy(float)
        color, marker, line = look(i)
        ax.hlines(y, value - sd, value + sd, color=color, lw=1.1, ls=line, zorder=2)
        ax.plot(value, y, marker, color=color, ms=5.5, mec="white", mew=0.6, label=str(member), zorder=3)
    ax.axvline(0, color="0.6", lw=0.8, zorder=1)
    ax.set_xlabel("Rise of the squared error [%]")
    return with_legend(name_rows(ax, names))


def band_curve(table: pd.DataFrame, *, statistic: str = "Moran's I", ax: Axes | None = None) -> Axes:
    """Moran's I of maps by band of values, with intervals; or another statistic of theirs, without.

    Parameters
    ----------
    table : DataFrame (statistic and band, product)
        From `bayesens.geo.spatial.map_table`.
    statistic : str, optional
        Which of its statistics; the table has intervals for Moran's I alone.
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
    check_table(table, [], "be.spatial.map_table(...)")
    known = list(dict.fromkeys(table.index.get_level_values(0)))
    check_known([statistic], known, kind="statistic", where="the table")
    value = table.loc[statistic]
    bands = [str(band) for band in value.index]
    ax = bare_axes(ax, (5.0, 3.0))
    for i, name in enumerate(value.columns):
        x = np.arange(len(bands)) + beside(i, value.shape[1], 0.12, 0.6)
        color, marker, line = look(i)
        if statistic == "Moran's I" and {"low", "high"} <= set(known):
            low, high = (table.loc[end].loc[value.index, name].to_numpy(float) for end in ("low", "high"))
            ax.vlines(x, low, high, color=color, lw=1.1, ls=line, zorder=2)
        y = value[name].to_numpy(float)
        ax.plot(x, y, marker, color=color, ms=6, mec="white", mew=0.6, label=str(name), zorder=3)
    ax.axhline(0, color=INK, lw=0.6, zorder=1)
    ax.set_xticks(range(len(bands)), bands)
    ax.set_xlim(-0.6, len(bands) - 0.4)
    ax.set_ylabel(statistic)
    return with_legend(ax)
