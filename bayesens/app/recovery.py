"""What HBM estimates of a simulated region, beside the values that the region was made of."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from bayesens import simulate

__all__ = ["recovery"]


def recovery(tree: xr.DataTree, region: simulate.Simulation) -> pd.DataFrame:
    """Compare what a fit of HBM estimates with what the simulated region was made of.

    HBM describes the members given the observation, and the region those given the truth behind it. The sensor's error
    lowers slopes by the reliability r of the observations within stations, and adds slope slope' Var(truth) (1 - r) to
    the covariance of the errors; the true values here include both. A bias is taken at the centre of the fit.

    Returns
    -------
    DataFrame
        ``parameter``, ``member``, ``network`` (of biases by network), ``true``, posterior ``median``, ``q05``, ``q95``,
        and whether the interval holds the true value (``inside``).
    """
    truth, posterior = region.truth, tree["posterior"].to_dataset()
    center = json.loads(tree.attrs["bayesens_options"])["center"]
    within = float(region.frame.groupby("station")["truth"].var().mean())
    reliability = within / (within + truth["observation_sd"] ** 2)
    bias = truth["bias"] + (truth["slope"] - 1) * (center - truth["center"])
    spread = np.diag(truth["error_sd"])
    slope = truth["slope"].to_numpy()
    covariance = spread @ truth["error_corr"].to_numpy() @ spread
    covariance = covariance + np.outer(slope, slope) * within * (1 - reliability)
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(sd, sd)
    lines = []
    for k, member in enumerate(simulate.REGION_MEMBER):
        own = posterior.sel(member=member)
        lines += [
            _compared("bias", member, bias[member], own["bias"]),
            _compared("slope", member, reliability * slope[k], own["slope"]),
            _compared("error_sd", member, sd[k], own["error_sd"]),
        ]
        for network, shift in truth["bias_group"][member].items():
            draws = own["bias"] + own["bias_group"].sel(group=network)
            lines.append(_compared("bias_network", member, bias[member] + shift, draws, network=str(network)))
        for j, other in enumerate(simulate.REGION_MEMBER[:k]):
            draws = own["residual_corr"].sel(member_=other)
            lines.append(_compared("error_corr", f"{other}, {member}", correlation[k, j], draws))
    return pd.DataFrame(lines).sort_values("parameter", kind="stable", ignore_index=True)


def _compared(parameter: str, member: str, true: float, draws: xr.DataArray, network: str = "") -> dict[str, Any]:
    low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95])
    return {"parameter": parameter, "member": member, "network": network, "true": true, "median": middle, "q05": low,
            "q95": high, "inside": bool(low <= true <= high)}  # fmt: skip
