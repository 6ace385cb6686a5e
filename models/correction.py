"""One member's correction as a plain PyMC model: what `bayesens.likelihoods.corrected.correction` integrates in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayesens.likelihoods.corrected.own_correction import CorrectedTable, covariate_columns

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["build_correction"]


def build_correction(table: CorrectedTable, member: str) -> pm.Model:
    """Return the mixed model of one member's rows.

    Parameters
    ----------
    table : CorrectedTable
    member : str

    Returns
    -------
    pymc.Model
    """
    import pymc as pm

    if member not in table.members:
        raise KeyError(f"no member {member!r}; the members are {list(table.members)}")
    model, k = table.model, table.members.index(member)
    if model.effects == "common" or np.sum(model.cluster(table.members) == model.cluster(table.members)[k]) > 1:
        raise ValueError(f"{member!r} shares its correction with other members; only corrections of single members have a "
                         "model of their own rows.")  # fmt: skip
    present = table.rows.available[:, k]
    y, f = table.rows.y[present], table.rows.f[present, k] - table.member_center[k]
    x = covariate_columns(model.bias_covariates, table.ensemble, table.rows.index[present])
    x = (x - table.covariate_center) / table.covariate_size
    c, h, s0 = model.center, model.unit, model.sigma_scale
    coords = dict(table.levels) | ({"bias_covariate": list(model.bias_covariates)} if model.bias_covariates else {})
    with pm.Model(coords=coords) as pymc_model:
        variance = pm.InverseGamma("residual_variance", alpha=0.5, beta=0.5 * s0**2)
        tau = pm.Deterministic("residual_sd", variance**0.5)
        mean = c if model.bias == "linear" else table.rows.f[present, k]
        if model.bias != "none":
            level = _standard(model.level_prior, "level", tau / s0)
            mean = mean + h * level
        if model.bias == "linear":
            gain = _standard(model.gain_prior, "gain", tau / s0)
            slope = pm.Deterministic("slope", gain * h / table.member_size[k])
            mean = mean + slope * f
            pm.Deterministic("bias", -h * level - slope * (c - table.member_center[k]))
        elif model.bias == "additive":
            pm.Deterministic("bias", -h * level)
        if model.bias_covariates:
            own = _standard(model.covariate_prior, "covariate_standard", tau / s0, dims="bias_covariate")
            pm.Deterministic("covariate_slope", h * own / table.covariate_size, dims="bias_covariate")
            mean = mean + h * (x @ own)
        for name, labels in table.levels.items():
            ratio = getattr(model, f"{name}_ratio_prior").create(f"{name}_ratio")
            sd = pm.Deterministic(f"offset_{name}_sd", ratio * tau)
            own_labels = table.ensemble.labels(name)
            assert own_labels is not None
            code = np.searchsorted(labels, own_labels[table.rows.index[present]])
            unit = pm.Normal(f"{name}_unit", 0.0, 1.0, dims=name)
            mean = mean + pm.Deterministic(f"offset_{name}", sd * unit, dims=name)[code]
        pm.Normal("y", mean, tau, observed=y)
    return pymc_model


def _standard(prior, name, size, **options):  # type: ignore[no-untyped-def]
    """A coefficient in standard units; its prior is in units of the residual, as a conjugate prior must be."""
    import pymc as pm

    parameters = dict(prior.parameters)
    return pm.Normal(name, parameters.get("mu", 0.0), parameters.get("sigma", 1.0) * size, **options)
