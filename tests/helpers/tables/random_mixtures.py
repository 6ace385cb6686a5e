"""Mixtures of normals on three scales with random parameters, and how tests of them are run for all three."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from bayesens.distributions.law import Distribution
from bayesens.distributions.mixtures import (
    LogNormalMixture,
    NormalMixture,
    SquaredNormalMixture,
)

CLASSES = [NormalMixture, SquaredNormalMixture, LogNormalMixture]
# The first quantile compiles its kernel, so no deadline.
repeatable = settings(derandomize=True, deadline=None)
every_class = pytest.mark.parametrize("cls", CLASSES)
P = np.array([1e-6, 0.005, 0.05, 0.3, 0.5, 0.8, 0.95, 0.995, 1 - 1e-6])


@st.composite
def parameters(draw, rows=1, largest_mean=6.0):
    """Weights, means and standard deviations that differ by up to a factor of 100, some weights nearly zero."""
    components = draw(st.integers(1, 5))
    number = st.floats(-largest_mean, largest_mean).map(lambda x: round(x, 3))
    cells = rows * components
    shape = (rows, components)
    weight = np.array(draw(st.lists(st.floats(1e-4, 1.0), min_size=cells, max_size=cells))).reshape(shape)
    mu = np.array(draw(st.lists(number, min_size=cells, max_size=cells))).reshape(shape)
    sigma = 10 ** np.array(draw(st.lists(st.floats(-1.0, 1.0), min_size=cells, max_size=cells))).reshape(shape)
    return weight / weight.sum(axis=1, keepdims=True), mu, sigma


def mixture(cls, seed=0, rows=4, components=3, spread=1.5) -> Distribution:
    rng = np.random.default_rng(seed)
    weight = rng.dirichlet(np.ones(components), rows)
    return cls(weight, rng.normal(0.5, spread, (rows, components)), rng.uniform(0.2, 0.9, (rows, components)))
