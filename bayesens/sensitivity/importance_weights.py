"""Weights that turn the draws of one posterior into those of another near it, with a smoothed tail."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.inference.sampling.psis import good_k

__all__ = ["NO_TAIL", "SAMPLE", "importance_weights", "smoothed_log_weights", "weighted_moments"]

SAMPLE = ("chain", "draw")
NO_TAIL = -np.inf  # Pareto k of weights that are all equal


def importance_weights(log_ratio: xr.DataArray, *, otherwise: str = "fit again") -> xr.DataArray:
    """Pareto-smoothed weights of draws from the log ratio of another density to the one they were drawn from, (chain, draw).

    Their sum is one; ``attrs`` hold ``pareto_k`` and ``ess``, the number of equal weights that these are worth. Where Pareto k is
    above the largest at which so many draws give a useful estimate (.7 for 2200 draws and more), or a ratio is not finite, a
    ValueError says so and what to do otherwise.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao and Gabry (2024), JMLR 25(72).

    Examples
    --------
    >>> weight = importance_weights(xr.DataArray(np.zeros((1, 40)), dims=("chain", "draw")))
    >>> float(weight.sum()), weight.attrs["ess"]
    (1.0, 40.0)
    """
    log_ratio = log_ratio.transpose(*SAMPLE)
    if not np.isfinite(log_ratio.values).all():
        raise ValueError(f"{int((~np.isfinite(log_ratio.values)).sum())} of {log_ratio.size} draws have no finite density under "
                         f"one of the two posteriors, so no weights can be given; {otherwise}")  # fmt: skip
    log_weight, k = smoothed_log_weights(log_ratio.values)
    if not k <= good_k(log_ratio.size):
        raise ValueError(f"the importance weights cannot be trusted: Pareto k is {k:.2f}, wanted at most "
                         f"{good_k(log_ratio.size):.2f} for {log_ratio.size} draws; {otherwise}")  # fmt: skip
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    out = log_ratio.copy(data=weight).rename("weight")
    out.attrs = {"pareto_k": float(k), "ess": float(1.0 / np.sum(weight**2))}
    return out


def weighted_moments(posterior: xr.Dataset, weight: xr.DataArray) -> xr.Dataset:
    """Mean and standard deviation of every variable under weighted draws, on a new first dimension ``statistic``.

    Examples
    --------
    >>> posterior = xr.Dataset({"x": (("chain", "draw"), [[1.0, 3.0]])})
    >>> weighted_moments(posterior, xr.DataArray([[0.25, 0.75]], dims=("chain", "draw")))["x"].values.round(3).tolist()
    [2.5, 0.866]
    """
    mean = (posterior * weight).sum(SAMPLE)
    variance = ((posterior - mean) ** 2 * weight).sum(SAMPLE)
    statistics: list[xr.Dataset] = [mean, variance**0.5]
    return xr.concat(statistics, pd.Index(["mean", "sd"], name="statistic"))


def smoothed_log_weights(log_ratio: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Smooth the tail of importance weights, whatever its shape: log weights, up to a constant, and Pareto k.

    Pareto k is minus infinity of equal weights, and infinity where the tail has no Pareto form.

    Examples
    --------
    >>> smoothed_log_weights(np.zeros((1, 40)))[1]
    -inf
    """
    from arviz_stats.base import array_stats

    if np.ptp(log_ratio) < 1e-12:
        return np.zeros_like(log_ratio), NO_TAIL
    try:
        smoothed, k = array_stats.psislw(-log_ratio, axis=(-2, -1))
    except ValueError:  # "All tail values are the same": a density without a tail has one in its weights all the more
        return log_ratio, np.inf
    return np.asarray(smoothed), np.inf if np.isnan(k) else float(k)  # NaN: no Pareto tail at all
