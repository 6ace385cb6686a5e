"""Whether probabilities are frequencies: PIT, coverage, reliability of quantiles and of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from bayesens.comparison.coverage import coverage_table
from bayesens.ensemble.ensemble import Ensemble
from bayesens.messages import check_known
from bayesens.plots.axes import COLOR, INK, bare_axes, curve, look, quantile_rows, with_legend
from bayesens.plots.given import by_name, check_table, dataset_of, is_rows, numbers_of, one_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["coverage", "coverage_by_class", "pit", "quantile_reliability", "reliability"]


def pit(
    values: ArrayLike | xr.Dataset, *, bins: int = 10, level: float = 0.95, model: str = "", ax: Axes | None = None
) -> Axes:
    """Histogram of the probability integral transform, with the band that a calibrated forecast keeps to.

    Parameters
    ----------
    values : array or Dataset
        PIT values in [0, 1]; NaN is left out. Of a Dataset, such as the scores of `bayesens.score` or the rows of
        `bayesens.compare`, its ``pit``.
    bins : int, optional
        Number of bins.
    level : float, optional
        Probability of the band, binomial in each bin: it takes rows as independent.
    model : str, optional
        Of the rows of several models, the one that is drawn.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, KeyError
        What has no PIT values, an unknown model.
    ValueError
        If there is no value, or one outside [0, 1]; rows of several models and no name.

    Examples
    --------
    >>> ax = pit(np.linspace(0, 1, 200), bins=4)
    >>> [float(bar.get_height()) for bar in ax.patches[:4]]
    [0.25, 0.25, 0.25, 0.25]
    """
    from scipy.stats import binom

    if is_rows(values):
        values = one_model(values, model)
    if isinstance(values, xr.Dataset):
        values = dataset_of(values, "pit", "be.score(fit, ensemble)")["pit"]
    u = numbers_of(values, "PIT values, or what be.score(fit, ensemble) returns").ravel()
    u = u[~np.isnan(u)]
    if not len(u) or u.min() < 0 or u.max() > 1:
        span = f"from {u.min():.3g} to {u.max():.3g}" if len(u) else "none"
        raise ValueError(f"PIT values must lie between 0 and 1, and there must be some; these are {span}")
    ax = bare_axes(ax, (3.6, 3.0))
    edges = np.linspace(0, 1, bins + 1)
    share = np.histogram(u, edges)[0] / len(u)
    ax.bar(edges[:-1], share, width=1 / bins, align="edge", color=COLOR[5], edgecolor="white", lw=0.8, zorder=2)
    low, high = binom.ppf([(1 - level) / 2, (1 + level) / 2], len(u), 1 / bins) / len(u)
    name = f"calibrated, {100 * level:.4g} % band"
    # Behind the bars, whose colour it would change; its edges stand before them.
    ax.axhspan(low, high, color="0.2", alpha=0.22, lw=0, zorder=1, label=name)
    for edge in (low, high):
        ax.axhline(edge, color="0.35", lw=0.8, zorder=3)
    ax.axhline(1 / bins, color=INK, lw=1, ls="--", zorder=3)
    ax.set(xlim=(0, 1), xlabel="Probability integral transform", ylabel="Share of observations")
    ax.set_ylim(0, 1.05 * max(share.max(), high))
    return with_legend(ax)


def coverage(
    nominal: ArrayLike | xr.Dataset | Mapping[str, xr.Dataset],
    observed: ArrayLike | Mapping[str, ArrayLike] | None = None,
    *,
    n: int | None = None,
    level: float = 0.95,
    difference: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Share of observations inside central intervals against the share that was promised, or less that share.

    Parameters
    ----------
    nominal : array (level) or Dataset, or mapping of str to Dataset
        Nominal coverage, as fractions. A Dataset holds both: the scores of `bayesens.score`, a mapping of names to scores, or
        the rows of `bayesens.compare`.
    observed : array (level) or mapping of str to array (level), optional
        Observed coverage, as fractions; a mapping draws several models under its names.
    n : int, optional
        Number of observations: draws the binomial band of a calibrated forecast, which takes rows as independent.
    level : float, optional
        Probability of that band.
    difference : bool, optional
        Draw observed minus nominal coverage in percentage points: good models differ by a few of them, which no eye finds
        beside a diagonal.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        Nominal coverage without the observed one, what is no scores.
    ValueError
        If a series and ``nominal`` differ in length.

    Examples
    --------
    >>> ax = coverage([0.5, 0.9], {"BMA": [0.48, 0.91], "HBM": [0.52, 0.88]}, n=100)
    >>> [entry.get_text() for entry in ax.get_legend().get_texts()]
    ['BMA', 'HBM', 'calibrated', '95 % band, n = 100']
    """
    if observed is None:
        nominal, observed = _covered(nominal)
    x = np.asarray(nominal, float)
    several = observed if isinstance(observed, Mapping) else {"": observed}
    series = {name: np.asarray(share, float) for name, share in several.items()}
    wrong = {label: y.shape for label, y in series.items() if y.shape != x.shape}
    if wrong:
        raise ValueError(f"observed coverage has shapes {wrong} for {x.size} nominal levels; give one value a level")
    order = np.argsort(x)
    ax = bare_axes(ax, (4.2, 3.0) if difference else (3.6, 3.4))
    for i, (label, y) in enumerate(series.items()):
        curve(ax, i, 100 * x[order], 100 * (y - x * difference)[order], label)
    ax.plot([0, 100], [0, 0 if difference else 100], color=INK, lw=0.8, ls=(0, (4, 3)), label="calibrated", zorder=2)
    if n is not None:
        from scipy.stats import binom

        p = np.linspace(0.001, 0.999, 199)
        low, high = binom.ppf([[(1 - level) / 2], [(1 + level) / 2]], n, p) / n - p * difference
        name = f"{100 * level:.4g} % band, n = {n}"
        ax.fill_between(100 * p, 100 * low, 100 * high, color="0.85", lw=0, label=name, zorder=1)
    if difference:
        ax.set(xlabel="Nominal coverage [%]", ylabel="Observed minus nominal [points]")
        ax.set_xlim(min(40.0, 100 * x.min() - 5), 100)
        return with_legend(_about_zero(ax, 5.0))
    ax.set(xlabel="Nominal coverage [%]", ylabel="Observed coverage [%]", xlim=(0, 100), ylim=(0, 100))
    ax.set_aspect("equal")
    return with_legend(ax)


def _about_zero(ax: Axes, least: float) -> Axes:
    """The same distance above and below zero, so that too wide and too narrow look alike."""
    most = max(least, *(1.1 * abs(end) for end in ax.get_ylim()))
    ax.set_ylim(-most, most)
    return ax


def _covered(given: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Levels, and the share of rows inside the interval of each, by model."""
    if is_rows(given):
        dataset_of(given, "covered", "be.compare(models, ensemble, ...)")
        known = given["covered"].dropna("model", how="all")["model"].values
        given = {str(name): given.sel(model=name) for name in known}
    elif isinstance(given, xr.DataArray) or not isinstance(given, Mapping | xr.DataTree):
        raise TypeError(
            "got nominal coverage alone; give the observed one too, or what be.score(fit, ensemble) returns"
        )
    made_by = "be.score(fit, ensemble)"
    each = {name: dataset_of(one, "covered", made_by)["covered"].mean("obs") for name, one in by_name(given).items()}
    levels = {name: tuple(share["level"].values.tolist()) for name, share in each.items()}
    if len(set(levels.values())) > 1:
        raise ValueError(f"the scores have different levels, {levels}; score all models with the same levels=")
    return np.array(next(iter(levels.values()))), {name: share.values for name, share in each.items()}


def coverage_by_class(
    table: pd.DataFrame | xr.Dataset, *, by: str, model: str = "", difference: bool = False, ax: Axes | None = None
) -> Axes:
    """Share of observations inside the intervals of one model, class by class, with a line at what each level promises.

    Parameters
    ----------
    table : DataFrame or Dataset
        The rows of `bayesens.compare`, or from `bayesens.coverage_table`: ``model``, ``by``, ``group``, ``level``,
        ``coverage``, and optionally ``coverage_low`` and ``coverage_high``. Classes are drawn in the order of the
        table, one line a level.
    by : str
        Whose classes: "predicted", "season" or a label.
    model : str, optional
        Of a table of several models, the one that is drawn.
    difference : bool, optional
        Draw observed minus nominal coverage in percentage points, about one line at zero.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        A class without a value has a cross at the foot of the axes, and its line is broken there.

    Raises
    ------
    TypeError
        What is no such table and no rows.
    KeyError
        If the table lacks a column, the classes or the model.
    ValueError
        Several lines of a class and level, as of two models or estimands.

    Examples
    --------
    >>> table = pd.DataFrame({"model": "BMA", "by": "season", "group": ["DJF", "JJA"], "level": 0.9, "coverage": [0.95, 0.8]})
    >>> ax = coverage_by_class(table, by="season")
    >>> [text.get_text() for text in ax.get_xticklabels()], ax.lines[1].get_ydata().tolist()
    (['DJF', 'JJA'], [95.0, 80.0])
    """
    if is_rows(table):
        table = coverage_table(table, by=by)
    table = check_table(table, ["model", "by", "group", "level", "coverage"], "be.coverage_table(rows)")
    check_known([by], [name for name in table["by"].unique() if name], kind="classes by", where="the table")
    lines = table[table["by"] == by]
    if model:
        check_known([model], lines["model"].unique(), kind="model", where="the table")
        lines = lines[lines["model"] == model]
    if (twice := lines.duplicated(["group", "level"])).any():
        raise ValueError(f"the class {lines[twice].iloc[0]['group']!r} has several lines of one level; give model=..., and "
                         "select one estimand")  # fmt: skip
    classes, levels = list(dict.fromkeys(lines["group"])), sorted(lines["level"].unique(), reverse=True)
    ax = bare_axes(ax, (3.6, 3.0))
    for i, level in enumerate(levels):
        _class_line(ax, lines[lines["level"] == level].set_index("group").loc[classes], level, i, difference)
    nothing = lines.groupby("group", sort=False)["coverage"].count().loc[classes].to_numpy() == 0
    if nothing.any():
        foot = np.full(nothing.sum(), 0.0 if difference else 3.0)
        ax.plot(np.flatnonzero(nothing), foot, "x", color="0.5", ms=5, label="no value", zorder=3)
    ax.set_xticks(range(len(classes)), [str(name).removesuffix(" fifth") for name in classes])
    ax.set_xlim(-0.5, len(classes) - 0.5)
    if difference:
        ax.set_ylabel("Observed minus nominal [points]")
        _about_zero(ax, 5.0)
    else:
        ax.set(ylim=(0, 103), ylabel="Inside [%]")
    ax.set_xlabel("Fifth of the predicted value" if by == "predicted" else by.capitalize())
    return with_legend(ax)


def _class_line(ax: Axes, lines: pd.DataFrame, level: float, i: int, difference: bool) -> None:
    """Coverage of one level, class by class."""
    color = look(i).color
    promised = 100 * level * difference
    ax.axhline(0.0 if difference else 100 * level, color=INK if difference else color, lw=0.9, ls=(0, (4, 3)), zorder=1)
    x = np.arange(len(lines)) + (0.08 if i % 2 else -0.08)  # so that intervals of two levels do not cover each other
    if {"coverage_low", "coverage_high"} <= set(lines):
        low, high = (100 * lines[f"coverage_{end}"].to_numpy(float) - promised for end in ("low", "high"))
        ax.vlines(x, low, high, color=color, lw=1.2, zorder=2)
    curve(ax, i, x, 100 * lines["coverage"].to_numpy(float) - promised, f"{100 * level:g} % intervals")


def reliability(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Reliability curve of the probability of an event: how often it happened where a probability was forecast.

    Parameters
    ----------
    table : DataFrame
        From `bayesens.geo.event_scores.reliability`: ``forecast``, ``frequency``, ``n``, ``low``, ``high``.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        The histogram of the forecasts stands at the bottom, its tallest bar a fifth of the height.

    Raises
    ------
    TypeError, KeyError
        What is no such table, or lacks a column.

    Examples
    --------
    >>> table = pd.DataFrame({"forecast": [0.1, 0.9], "frequency": [0.2, 0.8], "n": [5, 5], "low": [0, 0.5], "high": [0.4, 1]})
    >>> reliability(table).get_xlabel()
    'Forecast probability'
    """
    needed = ["forecast", "frequency", "n", "low", "high"]
    check_table(table, needed, "be.binary_scores.reliability(probability, event)")
    ax = bare_axes(ax, (3.4, 3.4))
    x, y, n, low, high = (table[name].to_numpy(float) for name in needed)
    share, edges = np.histogram(x, np.linspace(0, 1, 21), weights=n)
    ax.bar(edges[:-1], 0.2 * share / share.max(), width=0.05, align="edge", color="0.85", lw=0, zorder=0)
    ax.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=(0, (4, 3)), zorder=2)
    if not np.isnan(low).all():
        ax.fill_between(x, low, high, color=COLOR[0], alpha=0.2, lw=0, zorder=1)
    ax.plot(x, y, color=COLOR[0], lw=1.5, zorder=3)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="Forecast probability", ylabel="Observed frequency")
    ax.set_aspect("equal")
    return ax


def quantile_reliability(
    prediction: xr.Dataset | xr.DataArray | Mapping[str, xr.Dataset | xr.DataArray],
    observation: ArrayLike | Ensemble | None = None,
    *,
    site: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Share of observations below each predictive quantile, over all rows and, as bars, at the middle half of stations.

    Parameters
    ----------
    prediction : Dataset or DataArray, or mapping of str to these
        Quantiles with a coordinate ``quantile`` and one more dimension (row), as in `intervals`; a mapping draws several
        models under its names. The rows of `bayesens.compare` hold several models, with observations and stations.
    observation : array (row) or Ensemble, optional
        In the units of the prediction. Rows without an observation or without quantiles are left out. An ensemble of the same
        rows has the stations as well.
    site : array (row), optional
        Stations: bars from the first to the third quartile of the shares of single stations.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        No observations.
    ValueError
        Lengths that do not fit, no quantiles, no row with both.

    Examples
    --------
    >>> quantile = xr.DataArray([[1.0, 2.0, 3.0]] * 4, dims=("obs", "quantile"), coords={"quantile": [0.25, 0.5, 0.75]})
    >>> ax = quantile_reliability(quantile, [0.0, 1.5, 2.5, 4.0])
    >>> ax.lines[0].get_ydata().tolist()
    [25.0, 50.0, 75.0]
    """
    if is_rows(prediction):
        rows = dataset_of(prediction, "quantile_value", "be.compare(models, ensemble, ...)")
        observation = rows["observation"].values
        site = rows["site"].values if "site" in rows.coords and site is None else site
        drawn = rows["quantile_value"].dropna("model", how="all")
        series = {str(name): drawn.sel(model=name) for name in drawn["model"].values}
    else:
        series = by_name(prediction)
    if isinstance(observation, Ensemble):
        site = observation.labels("site") if site is None else site
        observation = observation.require_observation()
    if observation is None:
        raise TypeError("observation is missing; give the ensemble of the predicted rows, or their observations")
    y = np.asarray(observation, float)
    shares = {label: _shares(quantile_rows(one), y, site, label) for label, one in series.items()}
    ax = bare_axes(ax, (3.6, 3.4))
    for i, (label, (level, share, low, high)) in enumerate(shares.items()):
        color = curve(ax, i, level, share, label)
        if site is not None:
            # Side by side: a percent to the right for every further model.
            ax.vlines(level + 1.2 * (i - (len(shares) - 1) / 2), low, high, color=color, lw=1.3, zorder=2)
    if site is not None:
        ax.plot([], [], color="0.4", lw=1.3, label="middle half of stations")
    ax.plot([0, 100], [0, 100], color=INK, lw=0.8, ls=(0, (4, 3)), label="calibrated", zorder=1)
    ax.set(xlabel="Level of the quantile [%]", ylabel="Observations below it [%]", xlim=(0, 100), ylim=(0, 100))
    ax.set_aspect("equal")
    return with_legend(ax)


def _shares(quantile: xr.DataArray, y: np.ndarray, site: ArrayLike | None, label: str) -> tuple[np.ndarray, ...]:
    """Sorted levels, share below each of them, and its quartiles over stations [%]."""
    of = f" of {label!r}" if label else ""
    if y.shape != (len(quantile),) or (site is not None and np.shape(site) != y.shape):
        sites = "" if site is None else f" and site {np.shape(site)}"
        rows = f"{len(quantile)} rows, observation shape {y.shape}{sites}"
        raise ValueError(f"the prediction{of} has {rows}; wanted one value a row")
    quantile = quantile.sortby("quantile")
    known = np.isfinite(y) & np.isfinite(quantile.values).all(axis=1)
    if not known.any():
        raise ValueError(f"none of {len(y)} rows has both an observation and quantiles{of}; do their rows match?")
    below = pd.DataFrame(100.0 * (y[known, None] < quantile.values[known]))
    each = below if site is None else below.groupby(np.asarray(site)[known]).mean()
    return 100 * quantile["quantile"].to_numpy(), below.mean().to_numpy(), *each.quantile([0.25, 0.75]).to_numpy()
