"""Figures from results: posterior weights and biases, predictive intervals, calibration and scores.

Every function draws into ``ax``, or into a figure of its own, and returns the axes. Series differ in colour (the
Okabe-Ito palette), lightness, marker and line, so that they stay apart in grey print and for colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, ordered so that neighbours differ in lightness too; their yellow is too faint for lines.
COLOR = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKER = ("o", "s", "^", "D", "v", "P", "X")
LINE = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
INK = "0.15"


def weights(posterior: xr.Dataset | Mapping[str, xr.Dataset], *, ax: Axes | None = None) -> Axes:
    """Forest of the posterior weight by member: median, 50 % interval (thick) and 90 % interval (thin).

    Parameters
    ----------
    posterior : Dataset or mapping of str to Dataset
        ``weight (chain, draw, member)``; where there is none, ``linear_weight``, which may be negative. A mapping draws
        several models side by side under its names.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If a posterior has neither variable, or members with dimensions other than chain and draw.

    Examples
    --------
    >>> draws = np.random.default_rng(1).dirichlet([5, 3, 2], size=(4, 100))
    >>> posterior = xr.Dataset({"weight": (("chain", "draw", "member"), draws)}, {"member": ["rf", "mlr", "svr"]})
    >>> ax = weights(posterior)
    >>> ax.get_xlabel(), [label.get_text() for label in ax.get_yticklabels()]
    ('Weight', ['rf', 'mlr', 'svr'])
    """
    series = {}
    for label, draws in _named(posterior).items():
        linear = "weight" not in draws
        series[f"{label} (linear weight)" if linear and label else label] = _draws(
            draws, "linear_weight" if linear else "weight"
        )
    return _forest(series, "Weight", ax)


def biases(posterior: xr.Dataset | Mapping[str, xr.Dataset], *, units: str = "", ax: Axes | None = None) -> Axes:
    """Forest of the posterior bias by member: median, 50 % interval (thick) and 90 % interval (thin).

    Parameters
    ----------
    posterior : Dataset or mapping of str to Dataset
        ``bias (chain, draw, member)``, member minus observation. A mapping draws several models side by side, or
        several groups: ``{g: Dataset({"bias": post.bias + post.bias_group.sel(group=g)}) for g in ...}``.
    units : str, optional
        Units of the bias; without them those in ``posterior["bias"].attrs``.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If a posterior has no ``bias``, or one with dimensions other than chain, draw and member.

    Examples
    --------
    >>> draws = np.random.default_rng(1).normal([0.01, -0.02], 0.005, size=(4, 100, 2))
    >>> posterior = xr.Dataset({"bias": (("chain", "draw", "member"), draws)}, {"member": ["rf", "mlr"]})
    >>> biases(posterior, units="m3 m-3").get_xlabel()
    'Bias, member minus observation [m³ m⁻³]'
    """
    series = {label: _draws(draws, "bias") for label, draws in _named(posterior).items()}
    units = units or next((str(bias.attrs["units"]) for bias in series.values() if "units" in bias.attrs), "")
    return _forest(series, _labelled("Bias, member minus observation", units), ax)


def intervals(
    prediction: xr.Dataset | xr.DataArray,
    observation: ArrayLike | None = None,
    time: ArrayLike | None = None,
    *,
    label: str = "Prediction",
    units: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Predictive median and central intervals through time at one station, with its observations.

    Parameters
    ----------
    prediction : Dataset or DataArray
        Quantiles with a coordinate ``quantile`` and one more dimension (row); of a Dataset, the variable that has a
        ``quantile`` dimension. Every pair of levels p and 1 - p makes a band, and 0.5 the line.
    observation : array (row), optional
        Observations [units of the prediction]; NaN leaves a gap.
    time : array (row), optional
        Times; without them the coordinate ``time`` of the prediction, or the row's number.
    label : str, optional
        Name of the predicted quantity.
    units : str, optional
        Its units; without them those in the attributes of the quantiles.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there are no quantiles, more than one row dimension, or no pair of levels and no median.

    Examples
    --------
    >>> quantile = xr.DataArray(
    ...     [[0.1, 0.2, 0.3], [0.2, 0.3, 0.4]], dims=("obs", "quantile"), coords={"quantile": [0.05, 0.5, 0.95]}
    ... )
    >>> ax = intervals(quantile, [0.15, 0.45], label="Soil moisture", units="m3 m-3")
    >>> ax.get_ylabel(), [entry.get_text() for entry in ax.get_legend().get_texts()]
    ('Soil moisture [m³ m⁻³]', ['median', '90 % interval', 'observation'])
    """
    quantile = _quantiles(prediction)
    if time is None:
        time = quantile["time"].to_numpy() if "time" in quantile.coords else np.arange(len(quantile))
    time = np.asarray(time)
    order = np.argsort(time, kind="stable")
    level = np.round(quantile["quantile"].to_numpy(), 10)
    value = dict(zip(level.tolist(), quantile.to_numpy()[order].T))
    lower = [p for p in sorted(value) if p < 0.5 and round(1 - p, 10) in value]
    if not lower and 0.5 not in value:
        raise ValueError(f"quantiles {level.tolist()} hold no pair p and 1 - p and no 0.5; predict (0.05, 0.5, 0.95)")

    ax, x = _axes(ax, (6.5, 3.0)), time[order]
    if 0.5 in value:
        ax.plot(x, value[0.5], color=COLOR[0], lw=1.4, label="median", zorder=3)
    for i, p in enumerate(lower):
        # Steps of lightness, the narrowest darkest, in one hue: grey print keeps their order.
        alpha = 0.18 + 0.25 * i / max(len(lower) - 1, 1)
        name = f"{100 * (1 - 2 * p):.4g} % interval"
        ax.fill_between(x, value[p], value[round(1 - p, 10)], color=COLOR[0], alpha=alpha, lw=0, label=name, zorder=1)
    if observation is not None:
        y = np.asarray(observation, float)[order]
        ax.plot(x, y, "o", ms=3.6, mfc="white", mec=INK, mew=0.9, label="observation", zorder=4)
    ax.set_ylabel(_labelled(label, units or str(quantile.attrs.get("units", ""))))
    if np.issubdtype(time.dtype, np.datetime64):
        _concise_dates(ax)
    else:
        ax.set_xlabel("Time")
    ax.margins(x=0.01)
    return _legend(ax)


def pit(values: ArrayLike, *, bins: int = 10, level: float = 0.95, ax: Axes | None = None) -> Axes:
    """Histogram of the probability integral transform, with the band that a calibrated forecast keeps to.

    Parameters
    ----------
    values : array
        PIT values in [0, 1]; NaN is left out.
    bins : int, optional
        Number of bins.
    level : float, optional
        Probability of the band, binomial in each bin: it takes rows as independent.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there is no value, or one outside [0, 1].

    Examples
    --------
    >>> ax = pit(np.linspace(0, 1, 200), bins=4)
    >>> [float(bar.get_height()) for bar in ax.patches[:4]]
    [0.25, 0.25, 0.25, 0.25]
    """
    from scipy.stats import binom

    u = np.asarray(values, float).ravel()
    u = u[~np.isnan(u)]
    if not len(u) or u.min() < 0 or u.max() > 1:
        span = f"from {u.min():.3g} to {u.max():.3g}" if len(u) else "none"
        raise ValueError(f"PIT values must lie between 0 and 1, and there must be some; these are {span}")
    ax = _axes(ax, (3.6, 3.0))
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
    return _legend(ax)


def coverage(
    nominal: ArrayLike,
    observed: ArrayLike | Mapping[str, ArrayLike],
    *,
    n: int | None = None,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Share of observations inside central intervals against the share that was promised.

    Parameters
    ----------
    nominal : array (level)
        Nominal coverage, as fractions.
    observed : array (level) or mapping of str to array (level)
        Observed coverage, as fractions; a mapping draws several models under its names.
    n : int, optional
        Number of observations: draws the binomial band of a calibrated forecast, which takes rows as independent.
    level : float, optional
        Probability of that band.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If a series and ``nominal`` differ in length.

    Examples
    --------
    >>> ax = coverage([0.5, 0.9], {"BMA": [0.48, 0.91], "HBM": [0.52, 0.88]}, n=100)
    >>> [entry.get_text() for entry in ax.get_legend().get_texts()]
    ['BMA', 'HBM', 'calibrated', '95 % band, n = 100']
    """
    x = np.asarray(nominal, float)
    series = {
        k: np.asarray(v, float) for k, v in (observed if isinstance(observed, Mapping) else {"": observed}).items()
    }
    wrong = {label: y.shape for label, y in series.items() if y.shape != x.shape}
    if wrong:
        raise ValueError(f"observed coverage has shapes {wrong} for {x.size} nominal levels; give one value a level")
    order = np.argsort(x)
    ax = _axes(ax, (3.6, 3.4))
    for i, (label, y) in enumerate(series.items()):
        style: dict[str, Any] = {"color": COLOR[i % 7], "ls": LINE[i % 7], "marker": MARKER[i % 7]}
        ax.plot(
            100 * x[order], 100 * y[order], **style, ms=5, lw=1.4, mec="white", mew=0.6, label=label or "_", zorder=3
        )
    ax.plot([0, 100], [0, 100], color=INK, lw=0.8, ls=(0, (4, 3)), label="calibrated", zorder=2)
    if n is not None:
        from scipy.stats import binom

        p = np.linspace(0.001, 0.999, 199)
        low, high = binom.ppf([[(1 - level) / 2], [(1 + level) / 2]], n, p) / n
        name = f"{100 * level:.4g} % band, n = {n}"
        ax.fill_between(100 * p, 100 * low, 100 * high, color="0.85", lw=0, label=name, zorder=1)
    ax.set(xlabel="Nominal coverage [%]", ylabel="Observed coverage [%]", xlim=(0, 100), ylim=(0, 100))
    ax.set_aspect("equal")
    return _legend(ax)


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
    ax = _axes(ax, (4.6, 0.8 + 0.32 * len(table)))
    if {"lower", "upper"} <= set(table):
        ax.hlines(y, table["lower"].to_numpy(float), table["upper"].to_numpy(float), color=COLOR[0], lw=1.2, zorder=2)
    ax.plot(value, y, "o", color=COLOR[0], ms=6, mec="white", mew=0.6, zorder=3)
    ax.axvline(float(np.nanmin(value)), color="0.5", lw=0.8, ls=(0, (4, 3)), zorder=1)
    ax.locator_params(axis="x", nbins=5)  # small numbers have long labels
    ax.set_xlabel(_labelled(label, units))
    return _rows(ax, [str(name) for name in table.index])


def _forest(series: Mapping[str, xr.DataArray], xlabel: str, ax: Axes | None) -> Axes:
    """Medians with 50 and 90 % intervals (member rows, one offset per series), with a line at zero."""
    member = list(dict.fromkeys(str(name) for draws in series.values() for name in draws["member"].to_numpy()))
    ax = _axes(ax, (4.6, 0.9 + (0.18 + 0.2 * len(series)) * len(member)))
    ax.axvline(0, color="0.6", lw=0.8, zorder=1)
    step = min(0.26, 0.75 / len(series))
    for i, (label, draws) in enumerate(series.items()):
        y = np.array([member.index(str(name)) for name in draws["member"].to_numpy()], float)
        y += step * (i - (len(series) - 1) / 2)
        q05, q25, q50, q75, q95 = np.nanquantile(draws.to_numpy(), [0.05, 0.25, 0.5, 0.75, 0.95], axis=(0, 1))
        color = COLOR[i % 7]
        ax.hlines(y, q05, q95, color=color, lw=1.2, ls=LINE[i % 7], zorder=2)
        ax.hlines(y, q25, q75, color=color, lw=3.2, zorder=2)
        ax.plot(q50, y, MARKER[i % 7], color=color, ms=7.5, mec="white", mew=0.9, label=label or "_", zorder=3)
    ax.set_xlabel(xlabel)
    return _legend(_rows(ax, member))


def _named(posterior: xr.Dataset | Mapping[str, xr.Dataset]) -> Mapping[str, xr.Dataset]:
    """One posterior as a mapping without a name; a Dataset is itself a mapping, of its variables."""
    return {"": posterior} if isinstance(posterior, xr.Dataset | xr.DataTree) else posterior


def _draws(posterior: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable with its dimensions in the order chain, draw, member."""
    if name not in posterior:
        raise ValueError(f"the posterior has no {name!r}, only {list(posterior.data_vars)}; is it a fit's posterior?")
    if set(posterior[name].dims) != {"chain", "draw", "member"}:
        raise ValueError(f"{name!r} has dimensions {posterior[name].dims}; select down to chain, draw and member")
    return posterior[name].transpose("chain", "draw", "member")


def _quantiles(prediction: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Quantiles (row, quantile) of one station."""
    if isinstance(prediction, xr.Dataset):
        found = [v for v in prediction.data_vars.values() if "quantile" in v.dims]
        if not found:
            raise ValueError("the prediction has no quantiles; predict with quantiles=(0.05, 0.25, 0.5, 0.75, 0.95)")
        prediction = found[0]
    if "quantile" not in prediction.dims or prediction.ndim != 2:
        raise ValueError(
            f"quantiles have dimensions {prediction.dims}; select one station, so that one stands beside 'quantile'"
        )
    return prediction.transpose(..., "quantile")


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Bare axes, new ones of ``size`` [inches] where none are given."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=size, layout="constrained")[1]
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(direction="out", length=3, labelsize=9)
    ax.xaxis.label.set_fontsize(10)
    ax.yaxis.label.set_fontsize(10)
    return ax


def _rows(ax: Axes, names: list[str]) -> Axes:
    """Name the rows from top to bottom."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return ax


def _legend(ax: Axes) -> Axes:
    """Legend above the axes, where it covers nothing; none without names."""
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        ncols = min(len(labels), 2 if ax.get_window_extent().width < 330 else 4)
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.01), "borderaxespad": 0}
        ax.legend(
            handles, labels, **place, ncols=ncols, frameon=False, fontsize=8.5, handlelength=1.8, columnspacing=1.2
        )
    return ax


def _concise_dates(ax: Axes) -> None:
    """Dates without what the neighbouring tick already says."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(maxticks=8)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _labelled(name: str, units: str) -> str:
    """Axis label with units in brackets, exponents raised: "m3 m-3" becomes m³ m⁻³."""
    import re

    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    units = re.sub(r"(?<=[A-Za-z])-?\d+", lambda found: found.group().translate(raised), units)
    return f"{name} [{units}]" if units else name
