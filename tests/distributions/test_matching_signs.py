"""Bins of a component's draws hang on the draws alone, and not on how a library turns eigenvectors."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bayesens.distributions.matching import match


@pytest.mark.parametrize("seed", range(4))
def test_eigenvectors_of_another_sign_give_the_same_normals(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    share, variance = rng.uniform(0.2, 0.8, 500), rng.lognormal(0.0, 0.3, 500)
    coefficient, width = rng.normal(size=(500, 3)) * [1.0, 0.5, 0.2], rng.normal(size=(500, 1))
    x, covariate = rng.normal(size=(20, 3)), rng.normal(size=(20, 1))

    def normals():
        found = match(share, coefficient, (variance,), width, root=np.eye(3), inverse=np.eye(3), variance=variance)
        return found.at(x, covariate, (1.0,), np.ones((1, 1)), np.ones(1))

    first, eigh = normals(), np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda a: (eigh(a)[0], -eigh(a)[1]))
    for one, other in zip(first, normals(), strict=True):
        assert_array_equal(one, other)
