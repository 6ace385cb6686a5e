"""Weights of members: as variables of a model, of groups that a fit has not seen, and by classes of rows.

Weights of a group are drawn towards those of a typical one, as Yao, Pirs, Vehtari and Gelman (2022), Bayesian Analysis 17,
1043-1071, pool weights in stacking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows, codes, flat, level_rows
from bayesens.likelihoods.priors import Prior

if TYPE_CHECKING:
    from bayesens.models.kernel_mixture import KernelMixture

__all__ = ["Groups", "groups_of", "new_weights", "shares", "spare", "weight_classes", "weight_variables"]

FEW = 8  # members up to which each has the concentration of the weights' prior; more share that of so many
Groups = tuple[np.ndarray, np.ndarray]  # labels of groups with weights of their own, and each row's code


def spare(members: int) -> float:
    """By how much the concentration of many members' weights is less than that of a few, so that all count no more together."""
    return min(1.0, FEW / members)


def weight_variables(model: Any, members: tuple[str, ...], groups: Groups | None) -> tuple[Any, Any]:
    """Weights and their logarithms, (member), or (group, member) where groups have their own."""
    import pymc as pm
    import pytensor.tensor as pt

    cluster = model.cluster(members)
    if groups is not None:
        return _group_weights(model, cluster, len(groups[0]))
    size = np.bincount(cluster)
    if model.weights == "equal" or len(size) == 1:
        equal = pm.Deterministic("weight", pt.as_tensor(np.full(len(cluster), 1.0 / len(cluster))), dims="member")
        return equal, pt.log(equal)
    prior = model.weight_prior
    if prior.family == "Dirichlet" and isinstance(concentration := dict(prior.parameters)["a"], float):
        share = spare(len(size)) if model.correction == "own" else 1.0
        prior = Prior("Dirichlet", a=np.full(len(size), concentration * share))
    if len(size) == len(cluster):
        weight = prior.create("weight", dims="member")
    else:  # a set of exchangeable members shares the weight that the prior gives to the set as a whole
        total = prior.create("weight_exchangeable", dims="exchangeable")
        weight = pm.Deterministic("weight", (total / size)[cluster], dims="member")
    return weight, pt.log(weight)


def _group_weights(model: KernelMixture, cluster: np.ndarray, groups: int) -> tuple[Any, Any]:
    """Weights of each group and their logarithms, (group, member); that of a typical group beside."""
    import pymc as pm
    import pytensor.tensor as pt
    from pymc.distributions.transforms import Chain, ZeroSumTransform
    from pymc.logprob.transforms import ScaleTransform
    from pytensor.tensor.special import log_softmax

    size = np.bincount(cluster)
    logit = model.weight_logit_prior.create("weight_logit", shape=len(size))
    spread = model.weight_spread_prior.create("weight_spread")
    # Sampled in units of the spread (not centred): where it is small, so are the departures.
    unit = Chain([ZeroSumTransform([-1]), ScaleTransform(lambda *inputs: 1.0 / inputs[2])])
    own = pm.ZeroSumNormal("weight_logit_group", sigma=spread, shape=(groups, len(size)), default_transform=unit)

    def shared_out(logits: Any) -> Any:
        """Log weights of members, which share those of their sets."""
        return (log_softmax(logits, axis=-1) - np.log(size))[..., cluster]

    if len(size) < len(cluster):
        pm.Deterministic("weight_exchangeable", pt.exp(log_softmax(logit, axis=-1)), dims="exchangeable")
    pm.Deterministic("weight", pt.exp(shared_out(logit)), dims="member")
    log_weight = shared_out(logit + own)
    return pm.Deterministic("weight_group", pt.exp(log_weight), dims=("group", "member")), log_weight


def shares(weight: Any, available: np.ndarray) -> Any:
    """Weights of the members that each row has, (row, member), as a tensor that sums to one."""
    import pytensor.tensor as pt

    present = pt.switch(available, weight, 0.0)
    # A weight of exactly zero has a gradient of nan * 0; the smallest weight that a double holds has none.
    return pt.switch(available, weight / present.sum(axis=1, keepdims=True), 1e-300)


def groups_of(model: KernelMixture, ensemble: Ensemble, rows: Rows) -> Groups | None:
    """Labels of groups and each row's code where groups have weights of their own."""
    if model.weights != "group" or len(np.unique(model.cluster(ensemble.members))) == 1:
        return None
    labels = ensemble.labels("group")
    if labels is None:
        raise ValueError("weights='group' needs the rows' groups and the ensemble has no group column; name one with "
                         "Ensemble.from_frame(..., group=...) or use weights='global'.")  # fmt: skip
    if blank := int(np.sum(labels[rows.index] == "")):
        raise ValueError(f"{blank} of {len(rows.index)} training rows have no group label, and weights='group' needs one; "
                         "label these rows, drop them, or use weights='global'.")  # fmt: skip
    return level_rows(ensemble, "group", rows.index)


def new_weights(posterior: xr.Dataset, cluster: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Weights of a group that the fit has not seen, once a posterior draw, so that predictions are the same each time."""
    chain, draw, sets = posterior.sizes["chain"], posterior.sizes["draw"], int(cluster.max()) + 1
    # Independent normals stand for zero-sum ones: a shift common to all members changes no weight.
    apart = flat(posterior["weight_spread"])[:, None] * rng.standard_normal((chain * draw, sets))
    odds = flat(posterior["weight"]) * np.exp(apart - apart.max(axis=1, keepdims=True))[:, cluster]
    return np.asarray((odds / odds.sum(axis=1, keepdims=True)).reshape(chain, draw, -1))


def weight_classes(posterior: xr.Dataset, ensemble: Ensemble) -> tuple[np.ndarray, np.ndarray]:
    """Weights (draw, class, member), and each row's class: groups, and last what the fit has not seen."""
    k, n = len(ensemble.members), ensemble.n_obs
    draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    weight = flat(posterior["weight"]) if "weight" in posterior else np.full((draws, k), 1.0 / k)
    if "weight_group" not in posterior:
        return weight[:, None], np.zeros(n, dtype=int)
    own = np.concatenate([flat(posterior["weight_group"]), flat(posterior["weight_new"])[:, None]], axis=1)
    return own, codes(ensemble.labels("group"), posterior["group"].values, n)
