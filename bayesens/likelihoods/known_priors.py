"""Priors that an optimum or a closed form knows by their families alone."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from bayesens.likelihoods.priors import Prior
from bayesens.messages import warn

__all__ = ["KnownPriors", "normal_numbers"]


class KnownPriors:
    """Methods of a model whose optimum knows the families of the default priors alone."""

    def known_prior(self, option: str) -> dict[str, Any]:
        """Parameters of a prior as the optimum takes them; those of the default where the prior has another family."""
        prior, default = getattr(self, option), _default(self, option)
        return dict((prior if prior.family == default.family else default).parameters)

    def tell_of_other_priors(self, options: list[str]) -> None:
        """Warn of priors that the optimum leaves out, because it does not know their families."""
        odd = [f"{o}={getattr(self, o)!r}" for o in options if not _same_family(getattr(self, o), _default(self, o))]
        if odd:
            warn(f"method='em' of {type(self).__name__} knows the families of the default priors alone, and takes the default in "
                 f"place of {', '.join(odd)}. Use method='auto' for these priors.")  # fmt: skip


def _default(model: Any, option: str) -> Any:
    return next(field.default for field in fields(model) if field.name == option)


def _same_family(prior: Any, default: Any) -> bool:
    if not isinstance(prior, Prior) or not isinstance(default, Prior):
        return isinstance(prior, Prior) == isinstance(default, Prior)
    return prior.family == default.family


def normal_numbers(model: Any, option: str) -> tuple[float, float]:
    """Mean and standard deviation of a prior that must be normal."""
    prior = getattr(model, option)
    parameters = dict(prior.parameters)
    mu, sigma = parameters.get("mu", 0.0), parameters.get("sigma", 1.0)
    if prior.family != "Normal" or not (isinstance(mu, float) and isinstance(sigma, float)):
        raise ValueError(
            f"{type(model).__name__}({option}=...) is a Normal prior with numbers mu and sigma, because the correction is "
            f"integrated in closed form; got {prior!r}. correction='joint' takes any prior of bias and slope."
        )
    return mu, sigma
