"""The proposal that follows skewness: its density, densities that it meets exactly, and what it is for."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy.special import gammaln

from bayesens.inference.log_density import compile_target
from bayesens.inference.sampling.laplace import curvature, find_modes, laplace
from bayesens.inference.sampling.skewed import skew_map

SHAPE = np.array([1.0, 1.5, 4.0, 30.0])
MIXED = np.array([[1.0, 0.4, -0.3, 0.2], [0.0, 1.0, 0.5, -0.4], [0.3, 0.0, 1.0, 0.6], [-0.2, 0.3, 0.0, 1.0]])


def log_gammas(mixed=MIXED):
    """Logarithms of independent gamma variables, in other coordinates."""
    with pm.Model() as model:
        x = pm.Flat("x", shape=4)
        u = pt.dot(mixed, x)
        pm.Potential("density", pt.sum(SHAPE * u - pt.exp(u)))
    return compile_target(model)


def funnel():
    """A location that is known the less the smaller its scale's weight, as a member's with little weight is."""
    with pm.Model() as model:
        x = pm.Flat("x", shape=3)
        size = pt.exp(-0.35 * x[0])
        pm.Potential("density", -0.5 * x[0] ** 2 - 0.5 * pt.sum((x[1:] / size) ** 2) - 2.0 * pt.log(size))
    return compile_target(model)


def around(target, seed=1):
    rng = np.random.default_rng(seed)
    mode = find_modes(target, start=target.start + 0.1, starts=0, rng=rng)[0]
    return mode, curvature(target, mode.x), rng


@pytest.mark.parametrize("build", [log_gammas, funnel])
def test_density_is_that_of_the_change_of_variables(build):
    target = build()
    mode, root, rng = around(target)
    skewed = skew_map(target, mode.x, root, rng=rng)
    f = rng.normal(scale=0.7, size=(20, len(mode.x)))
    z, log_determinant = skewed._push(f)
    step = 1e-6
    for i, point in enumerate(f):
        columns = [(skewed._push((point + s)[None])[0] - skewed._push((point - s)[None])[0])[0] / (2 * step)
                   for s in step * np.eye(len(point))]  # fmt: skip
        assert np.linalg.slogdet(np.array(columns))[1] == pytest.approx(log_determinant[i], abs=1e-7)
    np.testing.assert_allclose(
        skewed.basis @ np.linalg.inv(root @ root.T) @ skewed.basis.T, np.eye(len(mode.x)), atol=1e-9
    )
    assert np.all(np.isfinite(z))


@pytest.mark.parametrize("build", [log_gammas, funnel])
def test_density_of_points_is_that_of_the_draws_that_they_were(build):
    target = build()
    mode, root, rng = around(target)
    skewed = skew_map(target, mode.x, root, rng=rng)
    x, log_density = skewed.sample(300, rng)
    np.testing.assert_allclose(skewed.log_density(x), log_density, atol=1e-8)
    far = skewed.log_density(mode.x + 300.0 * np.eye(len(mode.x)))
    assert np.all(far < -30.0)  # and not NaN, however far


def test_log_gamma_variables_are_met_exactly_but_for_the_step_of_the_differences():
    """Weights of the proposals are nearly constant; those of the normal approximation are not.

    Differences with a step of one standard deviation overstate a skewness by some percent, no more.
    """
    target = log_gammas()
    mode, root, rng = around(target)
    x, log_q = skew_map(target, mode.x, root, rng=rng).sample(4000, rng)
    weight = np.exp(target.logp(x) - log_q - np.max(target.logp(x) - log_q))
    assert weight.sum() ** 2 / np.sum(weight**2) > 0.8 * 4000
    z = rng.standard_normal((4000, 4))
    ratio = target.logp(mode.x + z @ root.T) + 0.5 * np.sum(z**2, axis=1)
    normal = np.exp(ratio - ratio.max())
    assert normal.sum() ** 2 / np.sum(normal**2) < 0.4 * 4000


def test_density_is_normalised():
    """The mean weight is the integral of the density over that of the proposal.

    4,000 draws whose weights have a relative standard deviation below .5: six standard errors are 5 %.
    """
    target = log_gammas()
    mode, root, rng = around(target)
    skewed = skew_map(target, mode.x, root, rng=rng)
    x, log_q = skewed.sample(4000, rng)
    log_q -= np.linalg.slogdet(skewed.basis)[1]
    exact = np.sum(gammaln(SHAPE)) - np.linalg.slogdet(MIXED)[1]
    estimate = np.log(np.mean(np.exp(target.logp(x) - log_q - exact)))
    assert abs(estimate) < 0.05


def test_a_funnel_is_followed_where_the_normal_is_not_enough():
    target = funnel()
    mode, root, rng = around(target)
    found = laplace(target, mode, root, ess=1900.0, pareto_k=0.7, rng=rng)  # the normal's 2,000 are worth less
    assert found.proposal == "skewed"
    assert found.pareto_k < 0.7
    assert found.ess / len(found.x) > 0.5
    plain = laplace(target, mode, root, ess=100.0, pareto_k=0.7, rng=rng)
    assert plain.proposal == "normal"
    assert plain.ess / len(plain.x) < found.ess / len(found.x)


def test_a_density_that_ends_near_its_optimum_has_no_map():
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)
        pm.Potential(
            "density", pt.switch(pt.all(pt.abs(x) < 0.5), -0.5 * pt.sum(x**2), -np.inf) + pt.sum(pt.sqrt(0.5 - x))
        )
    target = compile_target(model)
    assert skew_map(target, np.zeros(2), np.eye(2), rng=np.random.default_rng(1)) is None
