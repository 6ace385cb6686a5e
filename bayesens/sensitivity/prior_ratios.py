"""The ratio of a model's densities under other priors, at the draws of a fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from bayesens.inference.fit_tree import model_of
from bayesens.likelihoods.priors import Prior

__all__ = ["log_prior_ratio"]

# Of the priors that grids are made of: their parameters, and their log densities up to a constant.
DENSITIES: dict[str, tuple[set[str], Callable[..., Any]]] = {
    "Normal": ({"mu", "sigma"}, lambda x, mu, sigma: stats.norm.logpdf(x, mu, sigma)),
    "HalfNormal": ({"sigma"}, lambda x, sigma: stats.halfnorm.logpdf(x, scale=sigma)),
    "LogNormal": ({"mu", "sigma"}, lambda x, mu, sigma: stats.lognorm.logpdf(x, sigma, scale=np.exp(mu))),
    "Beta": ({"alpha", "beta"}, lambda x, alpha, beta: stats.beta.logpdf(x, alpha, beta)),
    "Dirichlet": ({"a"}, lambda x, a: (a - 1.0) * np.log(x)),
    "LKJCorr": ({"eta"}, lambda x, eta: (eta - 1.0) * np.linalg.slogdet(x)[1]),
}


def log_prior_ratio(tree: xr.DataTree, changes: Mapping[str, Any]) -> xr.DataArray | None:
    """Log of the ratio of the new priors' densities to the base's at every draw, up to a constant; None if it is not known."""
    model, posterior = model_of(tree), tree["posterior"].to_dataset()
    total = xr.zeros_like(posterior["chain"] * posterior["draw"], dtype=float)
    for option, new in changes.items():
        parts = _variables(model, option, tree)
        old = getattr(model, option)
        if parts is None or not isinstance(new, Prior) or not isinstance(old, Prior):
            return None
        for values in parts:
            densities = [_log_density(prior, values.values) for prior in (new, old)]
            if densities[0] is None or densities[1] is None:
                return None
            total = total + _summed(values, densities[0] - densities[1])
    return total


def _summed(values: xr.DataArray, log_density: np.ndarray) -> xr.DataArray:
    axes = tuple(range(2, log_density.ndim))
    return xr.DataArray(log_density.sum(axis=axes), {d: values[d].values for d in ("chain", "draw")}, ("chain", "draw"))


def _variables(model: Any, option: str, tree: xr.DataTree) -> list[xr.DataArray] | None:
    """The variables that an option is the prior of, in its units; None where it is not known which, or there are none."""
    posterior, top = tree["posterior"].to_dataset(), tree["log_prior"].to_dataset()
    prefixes = ("residual", "bias_site", "bias_group")
    if option == "correlation_prior":
        found = [name for name in prefixes if f"{name}_rest" in top]
        return [_rest(posterior, name) for name in found] or None
    if option == "common_prior":
        names = [f"{name}_common" for name in prefixes]
    else:
        special = {"sigma_prior": "sigma_mean", "group_sd_prior": "offset_group_sd", "site_sd_prior": "offset_site_sd",
                   "nu_prior": "nu_above_two"}  # fmt: skip
        names = [special.get(option, option.removesuffix("_prior"))]
        names += (
            [f"{names[0]}_mean"] if hasattr(model, option.replace("_prior", "_rest_prior")) else []
        )  # common to members
    found = [name for name in names if name in top and name in posterior]
    if not found:
        return None
    unit = 1.0 if option.startswith(("slope", "scale_slope", "weight", "common", "nu")) else model.unit
    unit = model.sigma_scale if option == "sigma_prior" else unit
    shift = model.center if option in ("truth_mean_prior", "mean_prior") else 0.0
    return [(posterior[name].transpose("chain", "draw", ...) - shift) / unit for name in found]


def _rest(posterior: xr.Dataset, name: str) -> xr.DataArray:
    """The correlation matrix without its common factor."""
    whole = posterior[f"{name}_corr"].transpose("chain", "draw", ...)
    if f"{name}_common" not in posterior:
        return whole
    common = posterior[f"{name}_common"]
    return ((whole - common) / (1.0 - common)).transpose("chain", "draw", ...)


def _log_density(prior: Prior, x: np.ndarray) -> np.ndarray | None:
    """Log density of a prior, up to a constant, (chain, draw, ...); None of one that is not known."""
    p = {key: np.asarray(value) for key, value in prior.parameters}
    wanted, density = DENSITIES.get(prior.family, (set(), None))
    return None if density is None or set(p) != wanted else np.asarray(density(x, **p))
