"""Predictions through time: intervals with observations, and probabilities of an event with those that happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble.ensemble import Ensemble
from bayesens.messages import check_known
from bayesens.plots.axes import (
    COLOR,
    INK,
    bare_axes,
    blank_gaps,
    concise_dates,
    gaps,
    labelled,
    legend_columns,
    quantile_rows,
    with_legend,
)
from bayesens.plots.given import numbers_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["event_probability", "intervals", "intervals_by_station"]

MANY = 150  # observations in a panel
PANELS = 12  # stations of a figure, where none are named


def intervals(
    prediction: xr.Dataset | xr.DataArray,
    observation: ArrayLike | Ensemble | None = None,
    time: ArrayLike | None = None,
    *,
    label: str = "Prediction",
    units: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Predictive median and central intervals through time at one station, with its observations.

    Where more than ten usual time steps have no row, nothing is drawn; a row between two such gaps is a bar.

    Parameters
    ----------
    prediction : Dataset or DataArray
        Quantiles with a coordinate ``quantile`` and one more dimension (row); of a Dataset, the variable that has a
        ``quantile`` dimension. Every pair of levels p and 1 - p makes a band, and 0.5 the line.
    observation : array (row) or Ensemble, optional
        Observations [units of the prediction]; NaN leaves a gap. An ensemble of the same rows has the times as well.
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
    quantile = quantile_rows(prediction)
    if isinstance(observation, Ensemble):
        observation, time = _observed(observation, quantile, time)
    if time is None:
        time = quantile["time"].to_numpy() if "time" in quantile.coords else np.arange(len(quantile))
    time = np.asarray(time)
    order = np.argsort(time, kind="stable")
    level = np.round(quantile["quantile"].to_numpy(), 10).tolist()
    lower = [p for p in sorted(level) if p < 0.5 and round(1 - p, 10) in level]
    if not lower and 0.5 not in level:
        raise ValueError(f"quantiles {level} hold no pair p and 1 - p and no 0.5; predict (0.05, 0.5, 0.95)")

    ax, when, rows = bare_axes(ax, (6.5, 3.0)), time[order], quantile.to_numpy().astype(float)[order]
    x, *columns = blank_gaps(when, *rows.T)
    value, single = dict(zip(level, columns, strict=True)), _alone(when)
    of_single = dict(zip(level, rows[single].T, strict=True))
    if 0.5 in value:
        ax.plot(x, value[0.5], color=COLOR[0], lw=1.4, label="median", zorder=3)
        if len(single):
            ax.plot(when[single], of_single[0.5], "_", color=COLOR[0], ms=4, mew=1.4, zorder=3)
    for i, p in enumerate(lower):
        # Steps of lightness, the narrowest darkest, in one hue: grey print keeps their order.
        look: dict[str, Any] = {"color": COLOR[0], "alpha": 0.18 + 0.25 * i / max(len(lower) - 1, 1), "zorder": 1}
        name, upper = f"{100 * (1 - 2 * p):.4g} % interval", round(1 - p, 10)
        ax.fill_between(x, value[p], value[upper], lw=0, label=name, **look)
        if len(single):
            ax.vlines(when[single], of_single[p], of_single[upper], lw=3, **look)
    if observation is not None:
        y = np.asarray(observation, float)[order]
        # Open circles leave the median to be seen; of daily values through years only dots do.
        style: dict[str, Any] = {"ms": 3.6, "mfc": "white", "mew": 0.9} if np.isfinite(y).sum() <= MANY else {"ms": 1.2}
        ax.plot(when, y, "o", mec=INK, color=INK, **style, label="observation", zorder=4)
    ax.set_ylabel(labelled(label, units or str(quantile.attrs.get("units", ""))))
    _dated(ax, time)
    return with_legend(ax)


def _observed(ensemble: Ensemble, quantile: xr.DataArray, time: ArrayLike | None) -> tuple[Any, ArrayLike | None]:
    """Observations and times of the rows of a prediction; of one station, as those of several would lie over each other."""
    _check_rows(quantile, ensemble)
    site = ensemble.labels("site")
    if site is not None and len(stations := np.unique(site)) > 1:
        raise ValueError(
            f"the ensemble has {len(stations)} stations, and one panel shows one; draw them by "
            "be.plots.intervals_by_station(prediction, ensemble)"
        )
    if time is None and "time" in ensemble.dataset.coords:
        time = ensemble.dataset["time"].to_numpy()
    return ensemble.observation, time


def _check_rows(quantile: xr.DataArray, ensemble: Ensemble) -> None:
    rows, others = len(quantile), ensemble.n_obs
    if rows != others:
        raise ValueError(f"the prediction has {rows} rows and the ensemble {others}; wanted the same rows")


def intervals_by_station(
    prediction: xr.Dataset | xr.DataArray,
    ensemble: Ensemble,
    stations: Sequence[str] | None = None,
    *,
    columns: int = 1,
    label: str = "Prediction",
    figure: Figure | None = None,
) -> NDArray[Any]:
    """Predictive intervals through time at several stations: one panel each, the axes and one legend in common.

    Parameters
    ----------
    prediction : Dataset or DataArray
        Of the rows of `ensemble`; quantiles as in `intervals`.
    ensemble : Ensemble
        With sites and times; its observations are drawn where it has any.
    stations : sequence of str, optional
        Sites, from the first panel to the last; None takes all, up to 12.
    columns : int, optional
        Panels side by side.
    label : str, optional
        Name of the predicted quantity; its units are those of the ensemble.
    figure : Figure, optional
        An empty one to draw in.

    Returns
    -------
    array of Axes (station)

    Raises
    ------
    KeyError, ValueError
        An unknown station, none at all, a prediction of other rows, an ensemble without sites or times.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"rf": [1.0, 2.0, 3.0, 4.0], "sm": [1.5, 2.5, 2.0, 4.5], "station": list("aabb"),
    ...                       "date": pd.to_datetime(["2020-01-01", "2020-01-02"] * 2)})
    >>> ensemble = Ensemble.from_frame(frame, members=["rf"], observation="sm", site="station", time="date")
    >>> quantile = xr.DataArray(frame["rf"].to_numpy()[:, None] + [-1.0, 0.0, 1.0], dims=("obs", "quantile"))
    >>> panels = intervals_by_station(quantile.assign_coords(quantile=[0.05, 0.5, 0.95]), ensemble, ["b", "a"])
    >>> [panel.get_title(loc="left") for panel in panels]
    ['b', 'a']
    """
    quantile, site = quantile_rows(prediction), ensemble.labels("site")
    if site is None or "time" not in ensemble.dataset.coords:
        raise ValueError("the ensemble has no sites or no times; give site= and time= to Ensemble.from_frame")
    _check_rows(quantile, ensemble)
    if stations is None:
        stations = _few(ensemble.levels("site"))
    if isinstance(stations, str) or not len(stations):
        raise ValueError(f"stations is {stations!r}; wanted a list of one station or more")
    check_known(stations, ensemble.levels("site"), kind="station", where="the ensemble")
    rows = -(-len(stations) // columns)
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure(figsize=(6.9, 0.6 + 1.35 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    time = ensemble.dataset["time"].to_numpy()
    for ax, station in zip(panels, stations, strict=False):
        own = np.flatnonzero(site == str(station))
        observed = None if ensemble.observation is None else ensemble.observation[own]
        intervals(quantile[own], observed, time[own], ax=ax)
        ax.get_legend().remove()
        ax.set_ylabel("")
        ax.set_title(str(station), loc="left", fontsize=9)
        ax.label_outer()
    for ax in panels[len(stations) :]:
        ax.remove()
    for ax in panels[max(len(stations) - columns, 0) : len(stations)]:
        ax.tick_params(labelbottom=True)  # the last of a column whose lowest place is empty
    units = ensemble.units or str(quantile.attrs.get("units", ""))
    figure.supylabel(labelled(label, units), fontsize=10)
    if figure.get_layout_engine() is None:
        figure.set_layout_engine("constrained")  # what is common to all panels stands outside of them
    handles, labels = panels[0].get_legend_handles_labels()
    ncols = legend_columns(labels, 72 * figure.get_size_inches()[0])
    figure.legend(handles, labels, loc="outside upper left", ncols=ncols, frameon=False, fontsize=8.5, handlelength=1.8,
                  columnspacing=1.2)  # fmt: skip
    return panels[: len(stations)]


def _few(stations: NDArray[np.str_]) -> list[str]:
    if len(stations) > PANELS:
        raise ValueError(
            f"the ensemble has {len(stations)} stations, and a figure shows up to {PANELS} unless they are named; name some: "
            f"stations={[str(name) for name in stations[:2]]}"
        )
    return [str(name) for name in stations]


def event_probability(
    probability: ArrayLike | xr.DataArray,
    event: ArrayLike | None = None,
    time: ArrayLike | None = None,
    *,
    label: str = "Probability of drought",
    ax: Axes | None = None,
) -> Axes:
    """Probability of an event through time at one station, with the events that were observed as a strip below it.

    Parameters
    ----------
    probability : array (row) or DataArray (row)
        As `bayesens.geo.thresholds.probability_below` gives it for the rows of a station; NaN leaves a gap.
    event : array (row), optional
        Whether it happened: 0 or 1, True or False; NaN where nobody knows, which leaves the strip blank.
    time : array (row), optional
        Times; without them the coordinate ``time`` of the probability, or the row's number.
    label : str, optional
        Of the axis.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        What holds no probabilities.
    ValueError
        Numbers outside [0, 1] or none at all, events that are neither 0 nor 1, lengths that do not fit.

    Examples
    --------
    >>> ax = event_probability([0.1, 0.8, 0.9, 0.2], [0, 1, 1, 0])
    >>> [entry.get_text() for entry in ax.get_legend().get_texts()]
    ['probability', 'event observed', 'none observed']
    """
    if time is None and isinstance(probability, xr.DataArray) and "time" in probability.coords:
        time = probability["time"].to_numpy()
    wanted = "probabilities, as be.thresholds.probability_below gives them, or rows['probability_below'].sel(model=...)"
    p = numbers_of(probability, wanted)
    time = np.arange(p.size) if time is None else np.asarray(time)
    happened = np.full(p.shape, np.nan) if event is None else np.asarray(event, float)
    if p.ndim != 1 or p.shape != happened.shape or p.shape != time.shape:
        raise ValueError(
            f"probability, event and time have shapes {p.shape}, {happened.shape} and {time.shape}; wanted one length"
        )
    if not np.isfinite(p).any() or np.nanmin(p) < 0 or np.nanmax(p) > 1:
        raise ValueError(f"probabilities lie between 0 and 1, and there must be some; the first are {p[:3].tolist()}")
    if odd := sorted(set(happened[~np.isnan(happened)]) - {0.0, 1.0}):
        raise ValueError(f"event has the value {odd[0]:.3g}; wanted 0 or 1, True or False")
    order = np.argsort(time, kind="stable")
    ax, when, happened = bare_axes(ax, (6.5, 2.2)), time[order], happened[order]
    x, area = blank_gaps(when, p[order])
    ax.fill_between(x, 0, area, color=COLOR[0], alpha=0.3, lw=0, zorder=1)
    ax.plot(x, area, color=COLOR[0], lw=1.1, label="probability", zorder=2)
    single = _alone(when)
    ax.vlines(when[single], 0, p[order][single], color=COLOR[0], lw=1.1, zorder=2)
    if event is not None:
        for state, color, name in ((1.0, INK, "event observed"), (0.0, "0.85", "none observed")):
            left, right = _spans(when, happened == state)
            ax.barh(np.full(len(left), -0.06), right - left, height=0.05, left=left, color=color, lw=0, label=name)
    ax.set(ylim=(-0.1 if event is not None else 0, 1.02), yticks=[0, 0.25, 0.5, 0.75, 1], ylabel=label)
    _dated(ax, time)
    return with_legend(ax)


def _dated(ax: Axes, time: NDArray[Any]) -> None:
    if np.issubdtype(time.dtype, np.datetime64):
        concise_dates(ax)
    else:
        ax.set_xlabel("Time")
    ax.margins(x=0.01)


def _alone(time: NDArray[Any]) -> NDArray[np.intp]:
    """Rows with a gap before and after: a line through one point is not to be seen."""
    at = gaps(time)
    return np.intersect1d(np.append(0, at), np.append(at, len(time)) - 1)


def _spans(time: NDArray[Any], chosen: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Begin and end of runs of chosen rows: half way to the neighbours, and half a usual step beside a gap."""
    broken = np.zeros(len(time) + 1, bool)
    broken[[0, *gaps(time), -1]] = True
    step = np.diff(time)
    usual = np.median(step) if len(step) else time.dtype.type(1) if time.dtype.kind != "M" else np.timedelta64(1, "D")
    step = np.concatenate([[usual], step, [usual]])
    half = np.where(broken, usual, step) / 2
    inside = np.concatenate([[False], chosen, [False]])
    begin = chosen & (broken[:-1] | ~inside[:-2])
    end = chosen & (broken[1:] | ~inside[2:])
    return time[begin] - half[:-1][begin], time[end] + half[1:][end]
