"""The power that makes a likelihood honest where rows share their errors: how many independent rows a table is worth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.fit_tree import check_given, on_model_scale
from bayesens.sensitivity.clusters import Array, Codes, cluster_codes, find_optima, refuse_effects, used_rows

__all__ = ["EffectiveRows", "effective_rows"]

STEP = 0.01  # of differences, in standard deviations of the posterior
AT_ONCE = 20_000_000  # densities of rows


@dataclass(frozen=True)
class EffectiveRows:
    """How many independent rows a table is worth to a model's parameters.

    Attributes
    ----------
    rows, clusters : int
        Training rows, and clusters of them.
    parameters : float
        Number of parameters that the likelihood determines: those that only the prior does count less than one.
    design_effect : float
        How many times larger the variance of the parameters is than if rows were independent, on average over parameters.
    power : float
        What the likelihood is raised to for a posterior as wide as the estimate is uncertain, on average over
        parameters: ``be.fit(model, ensemble, likelihood_power=power)``. Beside clusters it takes account of errors that
        are not distributed as the model has it.
    """

    rows: int
    clusters: int
    parameters: float
    design_effect: float
    power: float

    @property
    def effective(self) -> float:
        """Rows over the design effect.

        Examples
        --------
        >>> EffectiveRows(rows=1000, clusters=30, parameters=5.0, design_effect=8.0, power=0.12).effective
        125.0
        """
        return self.rows / self.design_effect


def effective_rows(
    model: Any,
    ensemble: Ensemble,
    *,
    cluster: str | ArrayLike = "site",
    block: float = 30.0,
    random_seed: int | None = None,
) -> EffectiveRows:
    """Find the power of the likelihood that makes up for rows which share their errors.

    Parameters
    ----------
    model : BMA, LinearPool, EMOS, Climatology, SingleMember, EqualWeights or a model of your own
        Without effects and without weights by group: with those, clusters are in the model already.
    ensemble : Ensemble
        Training rows.
    cluster : {"site", "group", "time"} or array_like (obs)
        What shares its errors.
    block : float
        Length of a time block [days; the units of numeric times].
    random_seed : int, optional
        For the starts of the search for the optimum.

    Returns
    -------
    EffectiveRows

    Raises
    ------
    ValueError
        Fewer than five clusters, effects, or a density that is not concave at its optimum.

    Notes
    -----
    At the optimum of the posterior let H be minus its Hessian, A the part of the log likelihood in it, and J the covariance
    of the sum of scores, C / (C - 1) sum_c (sum_{i in c} (s_i - sbar)) (...)', in the unconstrained parameters (another
    smooth parametrisation gives the same). Then ``parameters`` is tr(H⁻¹ A), and ``power`` is tr(H⁻¹ A) / tr(H⁻¹ J). Where
    priors are flat this is p / tr(A⁻¹ J), the magnitude adjustment of Ribatet et al.; with them, directions that the
    likelihood does not determine (a prior's own parameters) drop out of both traces. ``design_effect`` is tr(H⁻¹ J) over
    the same with every row a cluster of its own.

    One power serves all parameters, though rows may share more of one error than of another: weights can need more of it
    than sigma. `clustered_weights` shows each on its own. Scores are exact to about 1e-6; a weight at zero, whose score
    does not vanish at the maximum of the likelihood, makes the power a little too large.

    References
    ----------
    Ribatet, Cooley and Davison (2012), Statistica Sinica 22, 813-845.
    Varin, Reid and Firth (2011), Statistica Sinica 21, 5-42: composite likelihoods.

    Examples
    --------
    >>> import pandas as pd
    >>> import bayesens as be
    >>> from scipy.stats import norm
    >>> y = np.repeat(norm.ppf((np.arange(50) + 0.5) / 50), 4)  # every row four times
    >>> frame = pd.DataFrame({"a": 0.1 * np.arange(200) % 1, "y": y, "site": np.repeat(np.arange(50), 4)})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y", site="site")
    >>> found = effective_rows(be.Climatology(), ens)
    >>> round(found.design_effect, 2), round(found.effective), round(found.parameters, 1)  # 4 (50 / 49) / (200 / 199)
    (4.06, 49, 2.0)
    """
    from bayesens.inference.sampling.laplace import curvature

    check_given(ensemble, model)
    if hasattr(model, "summarise"):
        raise ValueError(f"{type(model).__name__} is a joint model of observation and members in which sites and groups are "
                         "levels: their clusters are in the model already. For others, see "
                         "clustered_weights(..., method='optimum').")  # fmt: skip
    refuse_effects(model, "clusters of that kind are in the model already")
    used = used_rows(model, ensemble)
    codes, _ = cluster_codes(ensemble, cluster, block, used)
    rows = ensemble.select(rows=used)
    rows.check_training(n_parameters=model.n_parameters(rows))
    resolved = model.resolve(rows)
    target, modes, data = find_optima(resolved, rows, None, random_seed)
    root = curvature(target, modes[0].x)
    if root is None:
        raise ValueError(f"the posterior of {type(model).__name__} is not concave at its optimum, so it has no curvature to "
                         "measure scores by; use clustered_weights, or narrower priors.")  # fmt: skip
    # In units of the posterior's standard deviations H is 1, and both traces are sums over its directions.
    step = STEP * root.T
    loglik = target.logp_and_loglik(np.concatenate([modes[0].x[None], modes[0].x + step, modes[0].x - step]))[1]
    p = len(step)
    information = float(np.sum(2.0 * loglik[0] - loglik[1 : 1 + p] - loglik[1 + p :]) / STEP**2)
    posterior, _ = target.expand(np.concatenate([modes[0].x + step, modes[0].x - step])[None])
    each = _scores(resolved, posterior, rows, data)
    together = _score_trace(each, codes)
    return EffectiveRows(
        len(rows), int(codes.max()) + 1, information, together / _score_trace(each, np.arange(len(rows))),
        information / together,
    )  # fmt: skip


def _scores(model: Any, posterior: xr.Dataset, rows: Ensemble, data: Any) -> Array:
    """Derivative of the log density of every row in the directions of the draws, (row, direction)."""
    points = posterior.sizes["draw"]
    out = np.empty((len(rows), points // 2))
    many = max(AT_ONCE // points, 1)
    history = None
    if getattr(model, "needs_history", False):  # rows are found at their sites by the labels of the corrections
        history, posterior = model.history(data), posterior.assign_coords(model.coordinates(data))
    law = partial(model.training, history=history) if hasattr(model, "training") else model.predictive
    for begin in range(0, len(rows), many):
        some = rows.select(rows=slice(begin, begin + many))
        z, below, _ = on_model_scale(model, some.require_observation())
        values = law(posterior, some).log_likelihood(z, below)
        out[begin : begin + many] = (values[: points // 2] - values[points // 2 :]).T / (2.0 * STEP)
    return out


def _score_trace(each: Array, codes: Codes) -> float:
    """Trace of the covariance of the sum of scores, from the sums of clusters."""
    sums = np.zeros((int(codes.max()) + 1, each.shape[1]))
    np.add.at(sums, codes, each - each.mean(axis=0))
    return float(len(sums) / (len(sums) - 1) * np.sum(sums**2))
