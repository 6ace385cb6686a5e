"""Maps with a pattern and gaps."""

import numpy as np
from scipy.ndimage import gaussian_filter


def rough(shape, seed, gaps=0.0):
    rng = np.random.default_rng(seed)
    x = gaussian_filter(rng.normal(size=shape), 1.0) + 0.2 * rng.normal(size=shape) + 3.0
    return np.where(rng.random(shape) < gaps, np.nan, x)
