"""Named sets of priors of the models: what each changes of the defaults, which are ``"weak"``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from bayesens.likelihoods.priors import Prior

__all__ = ["BMA", "EMOS", "HBM", "LINEAR_POOL", "Presets"]

Sets = Mapping[str, Mapping[str, Any]]

# What BMA and the linear pool have in common: their corrections, widths and sigmas.
_VAGUE = {
    "level_prior": Prior("Normal", mu=0, sigma=10),
    "gain_prior": Prior("Normal", mu=0.7, sigma=2),
    "site_ratio_prior": Prior("HalfStudentT", nu=3, sigma=3),
    "group_ratio_prior": Prior("HalfStudentT", nu=3, sigma=3),
    "scale_slope_prior": Prior("Normal", mu=0, sigma=1),
    "bias_prior": Prior("Normal", mu=0, sigma=1),
    "slope_prior": Prior("Normal", mu=1, sigma=1),
    "sigma_prior": Prior("LogNormal", mu=0, sigma=1),
}
_SCEPTICAL = {
    "weight_prior": Prior("Dirichlet", a=5),
    "gain_prior": Prior("Normal", mu=0.7, sigma=0.2),
    "site_ratio_prior": Prior("HalfNormal", sigma=0.3),
    "group_ratio_prior": Prior("HalfNormal", sigma=0.3),
    "scale_slope_prior": Prior("Normal", mu=0, sigma=0.1),
    "bias_prior": Prior("Normal", mu=0, sigma=0.1),
    "slope_prior": Prior("Normal", mu=1, sigma=0.1),
}

BMA: Sets = {
    "weak": {},
    "vague": {
        **_VAGUE,
        "sigma_spread": 1.0,
        "group_sd_prior": Prior("HalfNormal", sigma=1),
        "site_sd_prior": Prior("HalfNormal", sigma=1),
        "weight_logit_prior": Prior("ZeroSumNormal", sigma=1.5),
        "weight_spread_prior": Prior("HalfNormal", sigma=1.5),
    },
    "sceptical": {
        **_SCEPTICAL,
        "sigma_spread": 0.1,
        "group_sd_prior": Prior("HalfNormal", sigma=0.2),
        "site_sd_prior": Prior("HalfNormal", sigma=0.2),
        "weight_logit_prior": Prior("ZeroSumNormal", sigma=0.5),
        "weight_spread_prior": Prior("HalfNormal", sigma=0.2),
    },
}

HBM: Sets = {
    "weak": {},
    "vague": {
        "bias_prior": Prior("Normal", mu=0, sigma=1),
        "slope_prior": Prior("Normal", mu=0.7, sigma=1),
        "slope_rest_prior": Prior("StudentT", nu=4, mu=0, sigma=0.3),
        "error_sd_rest_prior": Prior("StudentT", nu=4, mu=0, sigma=0.3),
        "slope_site_prior": Prior("Normal", mu=0.7, sigma=1),
        "slope_group_prior": Prior("Normal", mu=0.7, sigma=1),
        "error_sd_prior": Prior("LogNormal", mu=-0.7, sigma=1),
        "correlation_prior": Prior("LKJCorr", eta=1),
        "bias_site_sd_prior": Prior("HalfNormal", sigma=1),
        "bias_group_sd_prior": Prior("HalfNormal", sigma=1),
        "common_prior": Prior("Beta", alpha=1, beta=1),
    },
    "sceptical": {
        "bias_prior": Prior("Normal", mu=0, sigma=0.1),
        "slope_prior": Prior("Normal", mu=0.7, sigma=0.15),
        "slope_site_prior": Prior("Normal", mu=0.7, sigma=0.15),
        "slope_group_prior": Prior("Normal", mu=0.7, sigma=0.15),
        "bias_site_sd_prior": Prior("HalfNormal", sigma=0.2),
        "bias_group_sd_prior": Prior("HalfNormal", sigma=0.1),
        "correlation_prior": Prior("LKJCorr", eta=20),
    },
}

LINEAR_POOL: Sets = {
    "weak": {},
    "vague": {
        **_VAGUE,
        "stretch_prior": Prior("Normal", mu=1, sigma=2),
        "intercept_prior": Prior("Normal", mu=0, sigma=1),
        "coefficient_prior": Prior("Normal", mu=0, sigma=2),
    },
    "sceptical": {
        **_SCEPTICAL,
        "stretch_prior": Prior("Normal", mu=1, sigma=0.2),
        "intercept_prior": Prior("Normal", mu=0, sigma=0.1),
        "coefficient_prior": Prior("Normal", mu=0, sigma=0.1),
    },
}

EMOS: Sets = {
    "weak": {},
    "vague": {
        "intercept_prior": Prior("Normal", mu=0, sigma=1),
        "coefficient_prior": Prior("Normal", mu=0, sigma=2),
        "sd_prior": Prior("LogNormal", mu=0, sigma=1),
        "scale_slope_prior": Prior("Normal", mu=0, sigma=1),
    },
    "sceptical": {
        "intercept_prior": Prior("Normal", mu=0, sigma=0.1),
        "coefficient_prior": Prior("Normal", mu=0, sigma=0.1),
        "spread_share_prior": Prior("Beta", alpha=1, beta=5),
        "scale_slope_prior": Prior("Normal", mu=0, sigma=0.1),
    },
}


class Presets:
    """A model with named sets of priors."""

    sets: ClassVar[Sets]

    @classmethod
    def preset(cls, name: str, **options: Any) -> Self:
        """Return the model with a named set of priors: ``"weak"`` (the default), ``"vague"`` or ``"sceptical"``.

        Options given besides stand before those of the set.

        Examples
        --------
        >>> from bayesens import LinearPool
        >>> LinearPool.preset("sceptical", kernel="student_t").coefficient_prior
        Prior("Normal", mu=0.0, sigma=0.1)
        """
        if name not in cls.sets:
            raise ValueError(f"{cls.__name__} has the presets {', '.join(cls.sets)}; got {name!r}.")
        return cls(**{**cls.sets[name], **options})
