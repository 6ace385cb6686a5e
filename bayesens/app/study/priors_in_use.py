"""Which priors stand for parameters that a model has, as its options and the data make it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["has_part"]


def has_part(model: Any, option: str, posterior: set[str], members: int) -> bool:
    """Whether a prior, named without ``_prior``, stands for a parameter that the model has; `posterior`: variables of its fit.

    Examples
    --------
    >>> from bayesens.models import BMA
    >>> [has_part(BMA(), option, {"weight", "sigma", "bias", "slope"}, 4) for option in ("weight", "gain", "nu", "slope")]
    [True, True, False, False]
    """
    rule = _RULES.get(option)
    return option in posterior if rule is None else bool(rule(model, posterior, members))


def _corrects(model: Any) -> bool:
    """Whether members are corrected one by one, before they are combined."""
    return getattr(model, "correction", "") == "own" and getattr(model, "weights", "") != "free"


def _at_once(name: str) -> Callable[[Any, set[str], int], bool]:
    """A parameter of models that are fitted at once: HBM, and those with ``correction="joint"``."""
    return lambda model, posterior, _: name in posterior and getattr(model, "correction", "joint") == "joint"


_RULES: dict[str, Callable[[Any, set[str], int], bool]] = {
    "level": lambda model, *_: _corrects(model) and model.bias != "none",
    "gain": lambda model, *_: _corrects(model) and model.bias == "linear",
    "covariate": lambda model, *_: _corrects(model) and bool(model.bias_covariates),
    "site_ratio": lambda model, posterior, _: _corrects(model) and "offset_site_sd" in posterior,
    "group_ratio": lambda model, posterior, _: _corrects(model) and "offset_group_sd" in posterior,
    "stretch": lambda model, posterior, _: _corrects(model) and "stretch" in posterior,
    "bias": _at_once("bias"),
    "slope": _at_once("slope"),
    "site_sd": _at_once("offset_site_sd"),
    "group_sd": _at_once("offset_group_sd"),
    "weight": lambda model, posterior, members: (
        model.weights in ("global", "covariates", "space", "simplex") and members > 1
    ),
    "weight_logit": lambda model, *_: model.weights == "group",
    "weight_spread": lambda model, *_: model.weights in ("group", "covariates", "space"),
    "intercept": lambda model, *_: getattr(model, "weights", "free") == "free",
    "coefficient": lambda model, *_: getattr(model, "weights", "free") == "free",
    "slope_rest": lambda model, posterior, members: members > 1,
    "error_sd_rest": lambda model, posterior, members: members > 1,
    "common": lambda model, posterior, members: members > 1 and model.errors == "factor",
    "correlation": lambda model, posterior, members: members > 1 and model.errors != "independent",
}
