"""Predictive intervals through time, and whether probabilities are frequencies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from bayesens.plots.axes import COLOR, INK, LINE, MARKER, bare_axes, concise_dates, labelled, with_legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["coverage", "intervals", "pit", "reliability"]

MANY = 150  # observations in a panel


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

    ax, x = bare_axes(ax, (6.5, 3.0)), time[order]
    if 0.5 in value:
        ax.plot(x, value[0.5], color=COLOR[0], lw=1.4, label="median", zorder=3)
    for i, p in enumerate(lower):
        # Steps of lightness, the narrowest darkest, in one hue: grey print keeps their order.
        alpha = 0.18 + 0.25 * i / max(len(lower) - 1, 1)
        name = f"{100 * (1 - 2 * p):.4g} % interval"
        ax.fill_between(x, value[p], value[round(1 - p, 10)], color=COLOR[0], alpha=alpha, lw=0, label=name, zorder=1)
    if observation is not None:
        y = np.asarray(observation, float)[order]
        # Open circles leave the median to be seen; of daily values through years only dots do.
        style: dict[str, Any] = {"ms": 3.6, "mfc": "white", "mew": 0.9} if np.isfinite(y).sum() <= MANY else {"ms": 1.2}
        ax.plot(x, y, "o", mec=INK, color=INK, **style, label="observation", zorder=4)
    ax.set_ylabel(labelled(label, units or str(quantile.attrs.get("units", ""))))
    if np.issubdtype(time.dtype, np.datetime64):
        concise_dates(ax)
    else:
        ax.set_xlabel("Time")
    ax.margins(x=0.01)
    return with_legend(ax)


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
    ax = bare_axes(ax, (3.6, 3.4))
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
    return with_legend(ax)


def reliability(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Reliability curve of the probability of an event: how often it happened where a probability was forecast.

    Parameters
    ----------
    table : DataFrame
        From `bayesens.binary_scores.reliability`: ``forecast``, ``frequency``, ``n``, ``low``, ``high``.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        The histogram of the forecasts stands at the bottom, its tallest bar a fifth of the height.

    Raises
    ------
    KeyError
        If the table lacks a column.

    Examples
    --------
    >>> table = pd.DataFrame({"forecast": [0.1, 0.9], "frequency": [0.2, 0.8], "n": [5, 5], "low": [0, 0.5], "high": [0.4, 1]})
    >>> reliability(table).get_xlabel()
    'Forecast probability'
    """
    ax = bare_axes(ax, (3.4, 3.4))
    x, y = (table[name].to_numpy(float) for name in ("forecast", "frequency"))
    share, edges = np.histogram(x, np.linspace(0, 1, 21), weights=table["n"].to_numpy(float))
    ax.bar(edges[:-1], 0.2 * share / share.max(), width=0.05, align="edge", color="0.85", lw=0, zorder=0)
    ax.plot([0, 1], [0, 1], color=INK, lw=0.8, ls=(0, (4, 3)), zorder=2)
    if table["low"].notna().any():
        ax.fill_between(
            x, table["low"].to_numpy(float), table["high"].to_numpy(float), color=COLOR[0], alpha=0.2, lw=0, zorder=1
        )
    ax.plot(x, y, color=COLOR[0], lw=1.5, zorder=3)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="Forecast probability", ylabel="Observed frequency")
    ax.set_aspect("equal")
    return ax


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
