"""The mixture of regressions that Bayesian model averaging is when everything is fitted at once.

    p(y_i | f_i) = sum_{k in A_i} w_k / (sum_{j in A_i} w_j)  Normal(y_i; m_ik, sigma_k^2)
    m_ik         = c - bias_k + slope_k (f_ik - c) + offset_group[g_i] + offset_site[s_i]

    w            ~ Dirichlet(1)
    bias_k       ~ Normal(0, .3 h)              h = sd(y): priors scale with the data
    slope_k      ~ Normal(1, .25)
    sigma_k      ~ LogNormal(log sigma_mean, .3)
    sigma_mean   ~ s0 LogNormal(0, .5)          s0: residual sd of the best member
    offset_group ~ Normal(0, offset_group_sd)   offset_group_sd ~ HalfNormal(.5 h); offset_site alike

A kernel that the mixture does not need may have any bias and slope, and one that it needs may stand for a part of the rows only:
the parameters are no properties of members, and with correlated members the posterior has many modes. Where it converges it
predicts well, because regressions that differ imitate widths that grow with the value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesens.distributions.posterior_mixture import Block, PosteriorMixture, row_classes
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import codes, effect_variance, flat, level_rows, prediction_rows
from bayesens.likelihoods.em import Optimum, em_starts, least_squares
from bayesens.models.weights import groups_of, shares, weight_classes, weight_variables

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["build", "em", "predictive"]


def build(asked: Any, ensemble: Ensemble, likelihood: str) -> pm.Model:
    """Return the PyMC model; see `BMA.build`."""
    import pymc as pm
    import pytensor
    import pytensor.tensor as pt

    model, rows = asked.resolve(ensemble), asked.rows(ensemble)
    groups = groups_of(model, ensemble, rows)
    coords = model.coords(ensemble, groups, {})
    codes_of: dict[str, np.ndarray] = {}
    for level in model.effect_levels:
        coords[level], codes_of[level] = level_rows(ensemble, level, rows.index)
    k = len(ensemble.members)
    with pm.Model(coords=coords) as pymc_model:
        weight, log_weight = weight_variables(model, ensemble.members, groups)
        bias, slope = pt.zeros(k), pt.ones(k)
        if model.bias != "none":
            bias = model.by_member(ensemble.members, "bias",
                                   lambda n, d: model.bias_prior.create(n, scale=model.unit, dims=d))  # fmt: skip
        if model.bias == "linear":
            slope = model.by_member(ensemble.members, "slope", lambda n, d: model.slope_prior.create(n, dims=d))
        sigma = model.sigma_variables(ensemble.members)
        offset = _offset(model, codes_of)
        c = pytensor.shared(np.float64(model.center))  # a constant would be compiled anew for every table
        if likelihood == "rows":
            mean = c - bias + slope * (rows.f - c)
            share = shares(weight if groups is None else weight[groups[1]], rows.available)
            pm.NormalMixture("y", w=share, mu=mean + offset if codes_of else mean, sigma=sigma, observed=rows.y)
        else:
            from bayesens.likelihoods.ops import mixture_loglik

            alike: list[Any] = [slice(None)]  # rows of the same weights
            if groups is not None:
                alike = [np.flatnonzero(groups[1] == g) for g in range(len(groups[0]))]
            parts = [
                mixture_loglik(
                    log_weight if groups is None else log_weight[g], c * (1.0 - slope) - bias, slope, pt.log(sigma),
                    offset[some] if codes_of else offset, y=rows.y[some], f=rows.f[some], available=rows.available[some],
                )
                for g, some in enumerate(alike)
            ]  # fmt: skip
            pm.Potential("loglik", sum(parts[1:], parts[0]))
    return pymc_model


def _offset(model: Any, codes_of: dict[str, np.ndarray]) -> Any:
    """Shift of the kernels' means by effects, (row, 1) or (row, member); empty without any."""
    import pymc as pm
    import pytensor.tensor as pt

    from bayesens.likelihoods.parametrisation import EffectCoordinates

    offset: Any = pt.zeros((0, 1))
    for level, code in codes_of.items():
        dims = (level, "member") if model.effects == "source" else (level,)
        sd = getattr(model, f"{level}_sd_prior").create(f"offset_{level}_sd", scale=model.unit)
        known = effect_variance(codes_of, level, model.sigma_scale)
        own = EffectCoordinates(known[:, None] if model.effects == "source" else known)
        effect = pm.Normal(f"offset_{level}", mu=0.0, sigma=sd, dims=dims, default_transform=own)
        shift = effect[code] if model.effects == "source" else effect[code][:, None]
        offset = shift if offset.type.shape[0] == 0 else offset + shift
    return offset


def em(asked: Any, ensemble: Ensemble, *, starts: int, seed: int, tolerance: float) -> tuple[xr.Dataset, list[Optimum]]:
    """Least-squares correction of each member, then EM for weights and sigma; see `BMA.em`."""
    model, rows = asked.resolve(ensemble), asked.rows(ensemble)
    if model.effect_levels:
        raise ValueError(f"method='em' has no {' or '.join(model.effect_levels)} effects in a joint fit; use method='auto' or "
                         "'nuts', or correction='own'.")  # fmt: skip
    cluster = model.cluster(ensemble.members)
    intercept, slope = least_squares(rows.y, rows.f, rows.available, bias=model.bias, cluster=cluster)
    squares = np.where(rows.available, (rows.y[:, None] - intercept - slope * rows.f) ** 2, 0.0)
    optima = em_starts(squares, rows.available, cluster=cluster, shared=model.sigma == "shared", starts=starts, seed=seed,
                       tolerance=tolerance, fixed_weight=model.weights == "equal")  # fmt: skip
    bias = model.center * (1.0 - slope) - intercept
    return xr.Dataset({"bias": ("member", bias), "slope": ("member", slope)}), optima


def predictive(model: Any, posterior: xr.Dataset, ensemble: Ensemble) -> PosteriorMixture:
    """Return p(y | f) for every row; see `BMA.predictive`."""
    rows = prediction_rows(ensemble, model.transform)
    k, c = len(ensemble.members), model.center
    draw = {str(n): flat(v) for n, v in posterior.data_vars.items()}
    draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    bias = draw.get("bias", np.zeros((draws, k)))
    slope = draw.get("slope", np.ones((draws, k)))
    variance = draw["sigma"] ** 2
    level_codes = {
        level: codes(ensemble.labels(level), posterior[level].values, len(rows.y)) for level in model.effect_levels
    }
    own, group = weight_classes(posterior, ensemble)
    patterns, pattern = np.unique(rows.available, axis=0, return_inverse=True)

    def blocks() -> Iterator[Block]:
        for index, key in row_classes(pattern.ravel(), group, *level_codes.values()):
            present = np.nonzero(patterns[key[0]])[0]
            if len(present) == 0:
                continue
            share = own[:, key[1], present]
            share = share / share.sum(axis=1, keepdims=True)
            intercept = c * (1.0 - slope[:, present]) - bias[:, present]
            spread = variance[:, present]
            for level, code in zip(level_codes, key[2:], strict=True):
                if code < 0:
                    spread = spread + draw[f"offset_{level}_sd"][:, None] ** 2
                else:
                    effect = draw[f"offset_{level}"][:, code]
                    intercept = intercept + (effect[:, present] if effect.ndim == 2 else effect[:, None])
            coefficient = np.zeros((draws, len(present), 1 + k))
            coefficient[:, :, 0] = intercept
            coefficient[:, np.arange(len(present)), 1 + present] = slope[:, present]
            yield Block(index, share, coefficient, spread)

    return PosteriorMixture(rows.f, blocks, model.center or 0.0, model.unit or 1.0)
