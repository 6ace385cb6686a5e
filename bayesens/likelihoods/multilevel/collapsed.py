"""The likelihood of a jointly normal model in a PyMC model, with its effects integrated out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pymc as pm
import pytensor.tensor as pt

from bayesens.ensemble.sufficient import Statistics
from bayesens.likelihoods.ops import collapsed_loglik

__all__ = ["collapsed_potential"]

Level = tuple[Any, Any, Any]  # sd of the truth, slopes of the members, covariance of their biases


def collapsed_potential(
    y_mean: Any, f_mean: Any, rows: Level, effects: Mapping[str, Level], *, data: Statistics
) -> None:
    """Add the potential ``loglik`` to the current PyMC model.

    Parameters
    ----------
    y_mean : tensor ()
    f_mean : tensor (member)
    rows : (tensor (), tensor (member), tensor (member, member))
        Standard deviation of the truth, slopes and errors' covariance of rows within a site.
    effects : mapping of {"group", "site"} to the same
        Of the levels that the model has effects of.
    data : Statistics
    """
    size = data.pattern.shape[1]
    none = pt.zeros((size, size))
    site, group = (_joint(*effects[level]) if level in effects else none for level in ("site", "group"))
    mean = pt.concatenate([y_mean[None], f_mean])
    pm.Potential("loglik", collapsed_loglik(mean, _joint(*rows), site, group, data=data))


def _joint(truth_sd: Any, slope: Any, errors: Any) -> Any:
    """Covariance of (y, f) of one level."""
    direction = pt.concatenate([pt.ones(1), slope])
    return pt.inc_subtensor((truth_sd**2 * pt.outer(direction, direction))[1:, 1:], errors)
