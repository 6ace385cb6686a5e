"""The figures of the demo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw"]


def draw(
    *,
    fits: Mapping[str, xr.DataTree],
    scores: Mapping[str, xr.Dataset],
    table: pd.DataFrame,
    predictions: Mapping[str, xr.Dataset],
    observation: np.ndarray,
    recovered: pd.DataFrame,
    units: str,
) -> dict[str, Figure]:
    """Draw all figures.

    Parameters
    ----------
    fits, predictions : mapping of model to DataTree, Dataset
        Of the models in the foreground; ``"HBM"`` is one of them.
    scores : mapping of model to Dataset
        Pointwise scores of all models.
    table : DataFrame
        Their means, a line for each model.
    observation : array (obs)
        Of the rows predicted [units].
    recovered : DataFrame
        True values and HBM's estimates.
    units : str
        Of observations and predictions.

    Returns
    -------
    dict of str to Figure
    """
    return {
        "intervals": _intervals(predictions, observation, scores["HBM"], units),
        "scores": _scores(table, units),
        "coverage": _coverage(scores),
        "pit": _pit({name: scores[name] for name in fits}),
        "weights": _weights(fits),
        "recovered": _recovered(fits["HBM"], recovered, units),
        "biases": _biases(fits["HBM"], recovered, units),
    }


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure that no window system needs to know of."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def _intervals(
    predictions: Mapping[str, xr.Dataset], observation: np.ndarray, scores: xr.Dataset, units: str
) -> Figure:
    """Two stations held out, the best and the worst predicted, by each model."""
    mean = scores["crps"].groupby("site").mean()
    stations = {"best": str(mean.idxmin("site").item()), "worst": str(mean.idxmax("site").item())}
    figure, axes = _figure(11, 6.2, len(stations), len(predictions), sharey="row", sharex=True)
    for (rank, station), line in zip(stations.items(), axes, strict=True):
        for (name, prediction), ax in zip(predictions.items(), line, strict=True):
            rows = prediction["site"].values == station
            plots.intervals(prediction.isel(obs=rows), observation[rows], label="Soil moisture", units=units, ax=ax)
            ax.set_title(f"{name}, station {station} ({rank} predicted)", fontsize=10, loc="left", pad=22)
    return _tidied(figure)


def _scores(table: pd.DataFrame, units: str) -> Figure:
    figure, ax = _figure(4.8, 2.5)
    plots.scores(table, units=units, label="Mean CRPS at stations held out", ax=ax)
    return figure


def _coverage(scores: Mapping[str, xr.Dataset]) -> Figure:
    figure, ax = _figure(5.6, 5.0)
    level = next(iter(scores.values()))["level"].values
    plots.coverage(level, {name: each["covered"].mean("obs").values for name, each in scores.items()}, ax=ax)
    return figure


def _pit(scores: Mapping[str, xr.Dataset]) -> Figure:
    figure, axes = _figure(7.2, 3.2, 1, len(scores), sharey=True)
    for (name, each), ax in zip(scores.items(), axes, strict=True):
        plots.pit(each["pit"].values, ax=ax)
        ax.set_title(name, fontsize=10, loc="left", pad=22)
    bars = [bar.get_height() for ax in axes for bar in ax.patches]
    axes[0].set_ylim(0, 1.05 * max(bars))  # the last panel would have set the limit for all
    return _tidied(figure)


def _weights(fits: Mapping[str, xr.DataTree]) -> Figure:
    figure, ax = _figure(5.2, 3.2)
    plots.weights({name: tree["posterior"].to_dataset() for name, tree in fits.items()}, ax=ax)
    return figure


def _recovered(tree: xr.DataTree, recovered: pd.DataFrame, units: str) -> Figure:
    """Bias, slope and error correlation: the posterior beside the truth."""
    posterior = tree["posterior"].to_dataset()
    figure, axes = _figure(11, 3.4, 1, 3)
    pairs = [str(name).split(", ") for name in recovered.query("parameter == 'error_corr'")["member"]]
    correlation = xr.concat(
        [posterior["residual_corr"].sel(member=one, member_=other, drop=True) for one, other in pairs], "member"
    )
    correlation = correlation.assign_coords(member=[", ".join(pair) for pair in pairs])
    panels = {"bias": posterior["bias"], "slope": posterior["slope"], "error_corr": correlation}
    labels = {"slope": "Slope of the member on the observation", "error_corr": "Correlation of errors"}
    for (name, draws), ax in zip(panels.items(), axes, strict=True):
        known = recovered.query("parameter == @name").set_index("member")["true"]
        _beside_truth({"HBM": draws}, known, ax, units)
        if name in labels:
            ax.set_xlabel(labels[name])
            low, high = float(min(draws.min(), known.min())), float(max(draws.max(), known.max()))
            ax.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))  # zero is no mark of these
    return figure


def _biases(tree: xr.DataTree, recovered: pd.DataFrame, units: str) -> Figure:
    """HBM's bias in each network beside the true one."""
    posterior = tree["posterior"].to_dataset()
    networks = [str(name) for name in posterior["group"].values]
    figure, axes = _figure(11, 3.4, 1, len(networks), sharex=True, sharey=True)
    for network, ax in zip(networks, axes, strict=True):
        draws = posterior["bias"] + posterior["bias_group"].sel(group=network, drop=True)
        known = recovered.query("parameter == 'bias_network' and network == @network").set_index("member")["true"]
        _beside_truth({"HBM": draws}, known, ax, units)
        ax.set_title(network, fontsize=10, loc="left", pad=22)
    return _tidied(figure)


def _tidied(figure: Figure) -> Figure:
    """Leave what panels share to the outer ones: one legend, labels at the edge."""
    for i, ax in enumerate(figure.axes):
        ax.label_outer()
        if i and (legend := ax.get_legend()) is not None:
            legend.remove()
    return figure


def _beside_truth(series: Mapping[str, xr.DataArray], known: pd.Series, ax: Any, units: str) -> None:
    """Intervals of each series, and the true values as one more without a width."""
    truth = xr.DataArray(known.to_numpy(float)[None, None], dims=("chain", "draw", "member"),
                         coords={"member": known.index.to_numpy(str)})  # fmt: skip
    named = {
        label: xr.Dataset({"bias": draws.drop_vars("member_", errors="ignore")}) for label, draws in series.items()
    }
    plots.biases(named | {"true value": xr.Dataset({"bias": truth})}, units=units, ax=ax)
