"""Weights of members: as variables of a model, of groups that a fit has not seen, and by classes of rows.

Weights of a group are drawn towards those of a typical one, and weights that follow covariates towards those of all rows, as Yao,
Pirs, Vehtari and Gelman (2022), Bayesian Analysis 17, 1043-1071, pool weights in stacking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows, codes, flat, level_rows
from bayesens.likelihoods.corrected.row_weights.fields import names_of, wave_numbers
from bayesens.likelihoods.priors import Prior
from bayesens.messages import warn

if TYPE_CHECKING:
    from bayesens.likelihoods.corrected.own_correction import CorrectedTable
    from bayesens.models.kernel_mixture import KernelMixture

__all__ = [
    "NOT_BY_EM", "Groups", "check_weights", "groups_of", "new_weights", "observe_fused", "of_rows", "shares", "slope_names",
    "slopes_of", "spare", "warn_few_values", "weight_classes", "weight_variables",
]  # fmt: skip

KNOWN_LABELS = 10.0  # by how much less a row tells of weights than it would if it said which member it came from, about
FEW_VALUES, ROWS_A_VALUE = (
    50,
    20,
)  # of a covariate, and rows of each on average: where a fit knows less than its rows say
FEW = 8  # members up to which each has the concentration of the weights' prior; more share that of so many
NOT_BY_EM = {"group": "by group", "covariates": "that follow covariates", "space": "by place"}
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


def slopes_of(model: Any, table: CorrectedTable) -> Any:
    """Slopes of the log weights, (weight covariate, member); None where all rows have the same weights."""
    import pymc as pm
    import pytensor.tensor as pt
    from pymc.distributions.transforms import Chain, ZeroSumTransform
    from pymc.logprob.transforms import ScaleTransform

    if table.mixture.z is None:
        return None
    cluster = model.cluster(table.members)
    sets = int(cluster.max()) + 1
    if model.weights == "space":  # the spectral density of a squared exponential correlation at the waves' frequencies
        length = model.weight_length_prior.create("weight_length")
        density = 2.0 * np.pi * length**2 * pt.exp(-0.5 * length**2 * wave_numbers(table.tilts))
        spread = (model.weight_spread_prior.create("weight_spread") * pt.sqrt(density))[:, None]
    else:
        spread = model.weight_spread_prior.create("weight_spread", dims="weight_covariate")[:, None]
    # In units of what prior and rows together leave open: of the spread where rows say little, and constant where they say much.
    known = KNOWN_LABELS * sets / np.square(table.mixture.z).sum(axis=0)[:, None]
    unit = Chain([ZeroSumTransform([-1]), ScaleTransform(lambda *inputs: pt.sqrt(1.0 / inputs[2] ** 2 + 1.0 / known))])
    whole = sets == len(cluster)
    name, dim = ("weight_slope", "member") if whole else ("weight_slope_exchangeable", "exchangeable")
    slope = pm.ZeroSumNormal(name, sigma=spread, dims=("weight_covariate", dim), default_transform=unit)
    return slope if whole else pm.Deterministic("weight_slope", slope[:, cluster], dims=("weight_covariate", "member"))


def slope_names(model: KernelMixture, table: CorrectedTable) -> dict[str, tuple[str, ...]]:
    """Names of what the log widths and the log weights have slopes by."""
    followed = names_of(table.tilts) if model.weights == "space" else table.tilts.names
    return {"scale_covariate": table.widths.names, "weight_covariate": followed}


def warn_few_values(model: KernelMixture, table: CorrectedTable) -> None:
    """Warn of weights that follow what many rows have alike, such as an elevation of few stations."""
    z = table.mixture.z
    if z is None:
        return
    parts = [("their places", z)] if model.weights == "space" else [
        (repr(name), z[:, [j]]) for j, name in enumerate(table.tilts.names)]  # fmt: skip
    for name, values in parts:
        distinct = len(np.unique(values, axis=0))
        if distinct < FEW_VALUES and len(z) >= ROWS_A_VALUE * distinct:
            warn(f"Weights follow {name}, of which {len(z)} training rows have only {distinct}: rows that share one often err "
                 "alike, and the fit takes them as independent. Score it beside weights='global' at held-out sites.")  # fmt: skip


def of_rows(weight: Any, groups: Groups | None, covariates: np.ndarray | None, slope: Any) -> Any:
    """Weights of rows up to a factor: those of all, of each row's group, or as its covariates (row, covariate) have them."""
    import pytensor.tensor as pt

    if slope is not None:
        return weight * pt.exp(pt.dot(covariates, slope))  # (row, member)
    return weight if groups is None else weight[groups[1]]


def observe_fused(
    table: CorrectedTable, log_weight: Any, sigma: Any, width: Any, nu: Any, groups: Groups | None, slope: Any
) -> None:
    """Add the density of the rows in one pass, group by group where these have weights of their own."""
    import pymc as pm
    import pytensor.tensor as pt

    from bayesens.likelihoods.ops import corrected_loglik

    tail = pt.zeros(0) if nu is None else nu[None]
    if groups is None:
        parts = [corrected_loglik(log_weight, pt.log(sigma), width, tail, rows=table.mixture, slope=slope)]
    else:
        some = [table.mixture.select(np.flatnonzero(groups[1] == g)) for g in range(len(groups[0]))]
        parts = [corrected_loglik(log_weight[g], pt.log(sigma), width, tail, rows=rows) for g, rows in enumerate(some)]
    pm.Potential("loglik", sum(parts[1:], parts[0]))


def shares(weight: Any, available: np.ndarray) -> Any:
    """Weights of the members that each row has, (row, member), as a tensor that sums to one."""
    import pytensor.tensor as pt

    present = pt.switch(available, weight, 0.0)
    # A weight of exactly zero has a gradient of nan * 0; the smallest weight that a double holds has none.
    return pt.switch(available, weight / present.sum(axis=1, keepdims=True), 1e-300)


def check_weights(model: Any) -> None:
    """Refuse covariates of weights that follow none, weights that follow nothing, and a joint fit of either."""
    if model.weights == "space" and not model.weight_covariates:
        object.__setattr__(model, "weight_covariates", ("lon", "lat"))
    name, asked = type(model).__name__, model.weight_covariates
    if model.weights == "space" and len(asked) != 2:
        raise ValueError(f"{name}(weights='space') is a field over two coordinates; got weight_covariates={asked!r}. Leave them "
                         "out for lon and lat, or name two columns, such as ('x', 'y').")  # fmt: skip
    if asked and model.weights not in ("covariates", "space"):
        raise ValueError(
            f"{name}(weight_covariates={asked!r}) needs weights='covariates'; got weights={model.weights!r}."
        )
    if model.weights == "covariates" and not asked:
        raise ValueError(f"{name}(weights='covariates') got no weight_covariates; name what the weights follow, such as "
                         "weight_covariates=('elevation',), or use weights='global'.")  # fmt: skip
    if asked and model.correction == "joint":
        raise ValueError(f"{name}(correction='joint') has weights of all rows or of groups; got weights={model.weights!r}. Use "
                         "correction='own', or weights='global'.")  # fmt: skip


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
