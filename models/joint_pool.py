"""The linear pool fitted at once, and the regression that it is with free weights.

For row i, with members k = 1..K present in the set A_i and a common centre c,

    y_i ~ Normal(m_i, sigma^2)
    m_i = sum_{k in A_i} w_k / (sum_{j in A_i} w_j)  (c - bias_k + slope (f_ik - c))

    w           ~ Dirichlet(1)
    bias_k      = bias_pool + d_k - sum_j w_j d_j,  d_k = slope (fbar_k - c) - (ybar_k - c)
    bias_pool   ~ Normal(0, .3 h)               h = sd(y): priors scale with the data
    slope       ~ Normal(1, .25)
    sigma       ~ s0 LogNormal(0, .5)           s0: residual sd of the best member

where fbar_k and ybar_k are the means of member and observation over the training rows that have the member. The data tell
only the bias of the pool, the weighted mean of the members' biases: how these differ is taken from the members one by one, d_k
being the bias with which a member is right on average, so that a row that lacks some member is not shifted.

With ``weights="free"`` the mean is a regression on all members, with coefficients that may be negative,

    m_i = c + intercept + sum_k linear_weight_k (f_ik - c)

    intercept       ~ Normal(0, .3 h)
    linear_weight_k ~ Normal(1 / K, .5)

in which f_i is filled in where members are missing, as :mod:`bayesens.likelihoods.missing_members` has it, and sigma^2 has
linear_weight' C_i linear_weight beside it, C_i being the covariance that this leaves open.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesens.distributions.posterior_mixture import Block, PosteriorMixture, row_classes
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows, flat, prediction_rows
from bayesens.likelihoods.em import Optimum
from bayesens.likelihoods.missing_members import Filled, fill_in
from bayesens.likelihoods.simplex_regression import regression, row_means, search_pool, triangles
from bayesens.likelihoods.spread.open_regression import Found, OpenRegression
from bayesens.likelihoods.training_checks import at_zero, warn_incomplete
from bayesens.models.weights import weight_variables

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["OF_CORRECTIONS", "build", "em", "predictive", "refuse_options"]

TINY = 1e-300
# Options that only corrections of each member have, with what is left of them where there are none.
OF_CORRECTIONS: dict[str, Any] = {"scale": (), "bias_covariates": (), "group": False, "site": False}


def refuse_options(model: Any) -> None:
    """Refuse options of a pool that free weights, or a joint fit, cannot have."""
    free = model.weights == "free"
    if free and model.correction == "own":
        raise ValueError("LinearPool(weights='free') is a regression on the members as they are; got correction='own'. Leave "
                         "correction out, or use weights='simplex'.")  # fmt: skip
    if free and model.bias != "linear":
        raise ValueError(f"LinearPool(weights='free') has an intercept and coefficients, which leave no bias to correct; "
                         f"got bias={model.bias!r}. Leave bias out, or use weights='simplex'.")  # fmt: skip
    if model.member_moments and not free:
        raise ValueError(f"LinearPool(weights='simplex') renormalises its weights over the members that a row has, and fills in "
                         f"none; got member_moments={model.member_moments!r}. Leave it out, or use weights='free'.")  # fmt: skip
    if model.correction == "own":
        return
    for name in OF_CORRECTIONS:
        if value := getattr(model, name):
            asked = "weights='free'" if free else "correction='joint'"
            raise ValueError(f"LinearPool({asked}) has one width and no covariates or effects; got {name}={value!r}. Leave "
                             f"{name} out, or use correction='own' with simplex weights.")  # fmt: skip
    if model.kernel != "normal":
        raise ValueError(
            "LinearPool(correction='joint'), and free weights, have a normal kernel; got "
            f"kernel={model.kernel!r}. Leave kernel out, or use correction='own' and simplex weights."
        )


def build(asked: Any, ensemble: Ensemble, likelihood: str) -> pm.Model:
    """Return the PyMC model; the fused one takes the sums of squares and products of all rows. See `LinearPool.build`."""
    import pymc as pm
    import pytensor
    import pytensor.tensor as pt

    model, rows = asked.resolve(ensemble), asked.rows(ensemble)
    assert model.center is not None and model.unit is not None and model.sigma_scale is not None
    c, low = pytensor.shared(np.float64(model.center)), at_zero(rows, asked.transform)
    patterns, code = np.unique(rows.available, axis=0, return_inverse=True)
    code = code.ravel()
    with pm.Model(coords={"member": list(ensemble.members)}) as pymc_model:
        sigma = asked.sigma_prior.create("sigma", scale=model.sigma_scale)
        width: Any = sigma
        if asked.weights == "free":
            level = asked.intercept_prior.create("intercept", scale=model.unit)[None]
            share = asked.coefficient_prior.create("linear_weight", shift=1.0 / ensemble.n_members, dims="member")[None]
            if not patterns.all():
                whole = fill_in(model, rows)
                square = share[0][:, None] * share[0][None, :]
                width = pt.sqrt(sigma**2 + (whole.open * square).sum(axis=(1, 2)))  # (pattern)
                level = level + (share * _about(whole, model.center)).sum(axis=1)
                share = (share[0][None, :, None] * whole.gain).sum(axis=1)
        else:
            weight, _ = weight_variables(asked, ensemble.members, None)
            bias, slope = _correction(asked, weight, rows, model.center, model.unit)
            share = weight * patterns / (weight * patterns).sum(axis=1, keepdims=True)
            level = -(share * bias).sum(axis=1)
            share = slope * share
            pm.Deterministic("linear_weight", slope * weight, dims="member")

        def mean_of(f: Any, code: Any) -> Any:
            return c + level[code] + (share[code] * (f - c)).sum(axis=1)

        if likelihood == "rows":
            mean = mean_of(rows.f, code)
            sd = width[code] if width.ndim else width
            if low.any():
                pm.Censored("y", pm.Normal.dist(mean, sd), lower=0.0, upper=None, observed=rows.y)
            else:
                pm.Normal("y", mean, sd, observed=rows.y)
            return pymc_model

        from bayesens.likelihoods.ops import log_below_zero

        known = Rows(rows.y[~low], rows.f[~low], rows.available[~low], rows.index[~low])
        factors = triangles(known, model.center, patterns, code[~low])
        triangle = pytensor.shared(factors, shape=factors.shape)  # the number of members belongs to the graph
        contrast = pt.concatenate([pt.ones((len(patterns), 1)), -level[:, None], -share], axis=1)
        residual = (triangle * contrast[:, None, :]).sum(axis=2)
        if width.ndim:
            n, squares = np.bincount(code[~low], minlength=len(patterns)).astype(float), (residual**2).sum(axis=1)
        else:
            n, squares = pytensor.shared(np.float64(len(known.y))), (residual**2).sum()
        loglik = (-n * (pt.log(width) + 0.5 * np.log(2.0 * np.pi)) - 0.5 * squares / width**2).sum()
        if low.any():
            at = pytensor.shared(code[low])
            below = mean_of(pytensor.shared(rows.f[low]), at)
            loglik = loglik + log_below_zero(below, width[at] if width.ndim else width).sum()
        pm.Potential("loglik", loglik)
    return pymc_model


def _about(whole: Filled, center: float) -> np.ndarray:
    """What members that are filled in are from the centre where those that are there are at it, (pattern, member)."""
    return whole.level + (whole.gain.sum(axis=2) - 1.0) * center


def _correction(model: Any, weight: Any, rows: Rows, center: float, unit: float) -> tuple[Any, Any]:
    """Biases (member) and slope."""
    import pymc as pm
    import pytensor
    import pytensor.tensor as pt

    slope: Any = pt.ones(())
    if model.bias == "none":
        return pt.zeros(rows.f.shape[1]), slope
    pool = model.bias_prior.create("bias_pool", scale=unit)
    if model.bias == "linear":
        slope = model.slope_prior.create("slope")
    f_mean, y_mean = (pytensor.shared(mean - center) for mean in row_means(rows))
    own = slope * f_mean - y_mean
    return pm.Deterministic("bias", pool + own - (weight * own).sum(), dims="member"), slope


def em(asked: Any, ensemble: Ensemble, *, starts: int, seed: int, tolerance: float) -> tuple[xr.Dataset, list[Optimum]]:
    """Maximum likelihood: least squares, under constraints for simplex weights.

    With zeros under the square root it is that of the censored normal: in closed steps for free weights, and by
    expectation-maximisation around least squares for simplex weights. With complete rows the optimum is unique.
    """
    model, rows = asked.resolve(ensemble), asked.rows(ensemble)
    assert model.center is not None
    low = at_zero(rows, asked.transform)
    if asked.weights == "free":
        whole = fill_in(model, rows)
        design, y = np.column_stack([np.ones(len(rows.y)), whole.f - model.center]), rows.y - model.center
        found, square, loglik, iterations, converged = regression(design, y, low)
        if not whole.complete.all():
            none, start = np.zeros((len(y), 0)), Found(found, square, 0.0, np.zeros(0))
            best = OpenRegression(design, y, np.zeros(len(y)), none, low, 0.0, whole.pattern, whole.open).search(
                start, spread=False
            )
            found, square, loglik, iterations, converged = (
                best.coefficient, best.square, best.loglik, best.passes, best.converged
            )  # fmt: skip
        data = {"intercept": ((), found[0]), "linear_weight": ("member", found[1:])}
    else:
        pool, weight, square, loglik, iterations, converged = search_pool(
            rows, model.center, asked.bias, low, starts=starts, seed=seed, tolerance=tolerance
        )
        bias, slope = pool.biases(weight, rows, model.center)
        data = {"weight": ("member", weight), "linear_weight": ("member", slope * weight)}
        if asked.bias != "none":
            data |= {"bias_pool": ((), weight @ bias), "bias": ("member", bias)}
        if asked.bias == "linear":
            data["slope"] = ((), slope)
    dataset = xr.Dataset(data | {"sigma": ((), np.sqrt(square))}, coords={"member": np.array(ensemble.members)})
    return dataset, [Optimum(np.ones(0), np.ones(0), float(loglik), iterations, converged, "least squares")]


def predictive(model: Any, posterior: xr.Dataset, ensemble: Ensemble) -> PosteriorMixture:
    """Return p(y | f) for every row; see `LinearPool.predictive`."""
    assert model.center is not None
    rows, c = prediction_rows(ensemble, model.transform), model.center
    k = len(ensemble.members)
    draw = {str(n): flat(v) for n, v in posterior.data_vars.items()}
    variance = draw["sigma"][:, None] ** 2
    draws = len(variance)
    one = np.ones((draws, 1))
    patterns, pattern = np.unique(rows.available, axis=0, return_inverse=True)
    whole = fill_in(model, rows)
    if model.needs_all_members:
        warn_incomplete(rows, ensemble)

    def linear(q: int, present: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
        """Mean where all members are at the centre, less the centre, coefficients (draw, member), and what is left open."""
        if model.weights == "free":
            w = draw["linear_weight"]
            if present.all():
                return draw["intercept"], w, 0.0
            open_ = np.einsum("di,ij,dj->d", w, whole.open[q], w, optimize=True)[:, None]
            return draw["intercept"] + w @ _about(whole, c)[q], w @ whole.gain[q], open_
        share = np.maximum(draw["weight"], TINY) * present
        share = share / share.sum(axis=1, keepdims=True)
        level = -np.sum(share * draw["bias"], axis=1) if "bias" in draw else np.zeros(draws)
        return level, share * draw.get("slope", one.ravel())[:, None], 0.0

    def blocks() -> Iterator[Block]:
        for index, (q,) in row_classes(pattern.ravel()):
            if not (patterns[q].all() if model.needs_all_members else patterns[q].any()):
                continue
            level, coefficient, open_ = linear(q, patterns[q])
            line = np.empty((draws, 1, 1 + k))
            line[:, 0, 0] = c + level - c * coefficient.sum(axis=1)
            line[:, 0, 1:] = coefficient
            yield Block(index, one, line, variance + open_)

    return PosteriorMixture(rows.f, blocks, c, model.unit or 1.0)
