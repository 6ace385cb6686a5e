"""Chains of which too many transitions diverge are run again with smaller steps, under method="auto" alone, and said so."""

import numpy as np
import pymc as pm
import pytest

from bayesens.inference.convergence import DIVERGING
from bayesens.inference.log_density import compile_target
from bayesens.inference.sampling.draws import sample


def funnel(*, low: float):
    """Standard deviations that fall to exp(low) in the neck of a funnel."""
    with pm.Model() as model:
        v = pm.Normal("v", 0.0, 1.0)
        pm.Normal("x", 0.0, pm.math.exp(low * pm.math.sigmoid(4.0 * v)), shape=5)
        pm.Potential("loglik", 0.0 * v)
    return compile_target(model)


def drawn(target, method, seed=1):
    return sample(target, start=target.start, method=method, draws=500, tune=500, chains=4, rng=np.random.default_rng(seed),
                  target_accept=0.8, starts=0, no_optimum="asked for")  # fmt: skip


@pytest.fixture(scope="module")
def narrow():
    return funnel(low=-4.0)


def test_diverging_chains_are_run_again_with_smaller_steps(narrow):
    plain, careful = drawn(narrow, "nuts"), drawn(narrow, "auto")
    assert plain.stats["diverging"].mean() > DIVERGING
    assert careful.attrs["target_accept"] == pytest.approx(0.96)
    assert careful.stats["diverging"].mean() < 0.5 * plain.stats["diverging"].mean()
    assert careful.stats["step_size"].mean() < plain.stats["step_size"].mean()
    assert "target_accept" not in plain.attrs  # who asks for NUTS has the steps that were asked for


def test_chains_that_do_not_diverge_stay_as_they_are():
    target = funnel(low=-0.1)
    plain, auto = drawn(target, "nuts"), drawn(target, "auto")
    assert not plain.stats["diverging"].any()
    assert "target_accept" not in auto.attrs
    np.testing.assert_array_equal(auto.x, plain.x)
