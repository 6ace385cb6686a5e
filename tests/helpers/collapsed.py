"""The collapsed likelihood with its arguments unpacked, and tables that force its long route."""

from dataclasses import replace

import numpy as np

from bayesens.likelihoods.ops import CollapsedLogLik


def collapsed(mean, within, site, group, data):
    """Value and the derivative by each of the four parameters, under the given ``Statistics``."""
    parameters = [np.asarray(x, dtype=float) for x in (mean, within, site, group)]
    theta = np.concatenate([parameters[-1].shape, *map(np.ravel, parameters)])
    (out,) = CollapsedLogLik().at_many(theta[None], *data.packed(), 2, gradients=True)
    parts = np.split(out[1:], np.cumsum([x.size for x in parameters])[:-1])
    return out[0], *(part.reshape(x.shape) for part, x in zip(parts, parameters))


def split(data):
    """The same rows with every cell counted as two, of a third and two thirds of its rows: all sites take the long route."""
    twice = {name: np.repeat(getattr(data, name), 2, axis=0) for name in ("mean", "cell_pattern", "cell_site")}
    n = np.repeat(data.n, 2) * np.tile([1.0, 2.0], len(data.n)) / 3.0
    return replace(data, n=n, **twice)
