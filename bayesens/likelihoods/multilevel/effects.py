"""Effects of groups and sites given the rows, for many draws of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bayesens.c_functions import address_of, over_draws
from bayesens.ensemble.sufficient import Statistics
from bayesens.likelihoods.multilevel.multilevel import effects_packed, groups_packed

__all__ = ["effect_draws", "effects_address", "group_moments"]

NOISE = 4_000_000  # random numbers at a time: 32 MB


def effects_address() -> int:
    """Address of the C function that draws effects."""
    return address_of(effects_packed)


def effect_draws(mean: np.ndarray, within: np.ndarray, site: np.ndarray, group: np.ndarray, *, data: Statistics,
                 rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Draw the effects of groups and sites from their exact conditional distribution, one draw per set of parameters.

    Parameters
    ----------
    mean : array (draw, column)
    within, site, group : array (draw, column, column)
    data : Statistics
    rng : numpy.random.Generator or None
        None puts every effect at its conditional mean.

    Returns
    -------
    group : array (draw, group, column)
    site : array (draw, site, column)
    log_density : array (draw)
        Log density of the drawn effects given parameters and data, over the effects whose variance is not zero.
    """
    draws, p = mean.shape
    count = (data.n_groups + len(data.site_group)) * p
    out = np.empty((draws, 1 + count))
    step = max(1, NOISE // count)
    for part in (slice(i, i + step) for i in range(0, draws, step)):
        size = len(mean[part]), count
        noise = np.zeros(size) if rng is None else rng.standard_normal(size)
        out[part] = _over_draws(
            effects_packed, (mean[part], within[part], site[part], group[part], noise), data, 1 + count
        )
    effects = out[:, 1:].reshape(draws, -1, p)
    return effects[:, : data.n_groups], effects[:, data.n_groups :], out[:, 0]


def group_moments(mean: np.ndarray, within: np.ndarray, site: np.ndarray, group: np.ndarray, *,
                  data: Statistics) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Mean and covariance of the groups' effects given all rows, for each set of parameters.

    Parameters
    ----------
    mean : array (draw, column)
    within, site, group : array (draw, column, column)
    data : Statistics

    Returns
    -------
    array (draw, group, column), array (draw, group, column, column)
    """
    draws, p = mean.shape
    out = _over_draws(groups_packed, (mean, within, site, group), data, data.n_groups * (p + p * p))
    first = data.n_groups * p
    return out[:, :first].reshape(draws, -1, p), out[:, first:].reshape(draws, -1, p, p)


def _over_draws(
    packed: Callable[..., Any], parameters: Iterable[np.ndarray], data: Statistics, size: int
) -> np.ndarray:
    """Call a function for C with each draw's parameters, into (draw, size)."""
    flat = [np.reshape(x, (len(x), -1)) for x in parameters]
    p = data.pattern.shape[1]
    theta = np.concatenate([np.full((len(flat[0]), 2), float(p)), *flat], axis=1)
    return over_draws(address_of(packed), theta, *data.packed(), size)
