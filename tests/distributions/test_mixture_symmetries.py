"""Mixtures against themselves: with absent components, in other units, in another order, and on the scale of a transform."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from random_mixtures import P, every_class, mixture, parameters, repeatable

from bayesens.distributions.mixtures import (
    LogNormalMixture,
    NormalMixture,
    SquaredNormalMixture,
    concatenate,
    transformed,
)


# ------------------------------------------------------------------------------------------------------ missing members
def everything(dist, y):
    return [
        dist.pdf(y), dist.logpdf(y), dist.cdf(y), dist.sf(y), dist.pit(y), dist.crps(y), dist.mean(), dist.variance(),
        dist.sd(), dist.variance_between(), dist.variance_within(), dist.quantile(0.05), dist.quantile(0.9),
        dist.mass_at_zero(),
    ]  # fmt: skip


@every_class
@pytest.mark.parametrize("absent", [0.0, np.nan])
def test_a_missing_component_counts_for_nothing(cls, absent):
    full = mixture(cls, 4)
    weight, mu, sigma = (np.insert(x, 1, np.nan, axis=1) for x in (full.weight, full.mu, full.sigma))
    weight[:, 1] = absent
    holed = cls(weight, mu, sigma)
    for with_hole, without in zip(everything(holed, 1.3), everything(full, 1.3), strict=True):
        assert_allclose(with_hole, without, rtol=1e-13)
    assert np.all(np.isfinite(holed.sample(500, np.random.default_rng(1))))


@every_class
def test_rows_without_a_component_are_nan_and_leave_the_others_alone(cls):
    full = mixture(cls, 6)
    weight, mu = full.weight.copy(), full.mu.copy()
    weight[1] = 0.0
    weight[2] = np.nan
    mu[3, 0] = np.nan  # a component that counts
    dist = cls(weight, mu, full.sigma)
    for value in [*everything(dist, 0.7), dist.sample(3, np.random.default_rng(1))[0]]:
        assert_array_equal(np.isnan(value), [False, True, True, True])
    for value, expected in zip(everything(dist[0], 0.7), everything(full[0], 0.7), strict=True):
        assert_array_equal(value, expected)


def test_joining_fills_up_with_absent_components():
    one, three = mixture(NormalMixture, components=1), mixture(NormalMixture, components=3)
    both = concatenate([one, three])
    assert both.shape == (8,)
    for value, a, b in zip(everything(both, 0.2), everything(one, 0.2), everything(three, 0.2), strict=True):
        assert_allclose(value, np.concatenate([a, b]), rtol=1e-13, atol=1e-15)
    with pytest.raises(TypeError, match="got LogNormalMixture, NormalMixture"):
        concatenate([one, mixture(LogNormalMixture)])
    with pytest.raises(TypeError, match="got none"):
        concatenate([])


# ---------------------------------------------------------------------------------------------------------- symmetries
@repeatable
@given(parameters(rows=2), st.floats(-50, 50), st.floats(0.01, 100))
def test_normal_mixture_moves_with_its_units(par, shift, scale):
    weight, mu, sigma = par
    one, other = NormalMixture(*par), NormalMixture(weight, shift + scale * mu, scale * sigma)
    y = np.array([0.3, -2.0])
    moved = shift + scale * y
    room = 1e-10 * scale * (1 + abs(shift / scale))
    assert_allclose(other.quantile(P), shift + scale * one.quantile(P), rtol=1e-10, atol=room)
    assert_allclose(other.crps(moved), scale * one.crps(y), rtol=1e-9, atol=room)
    assert_allclose(other.cdf(moved), one.cdf(y), rtol=1e-7)
    assert_allclose(other.logpdf(moved), one.logpdf(y) - np.log(scale), rtol=1e-7, atol=1e-7)
    assert_allclose(other.sd(), scale * one.sd(), rtol=1e-9)


@repeatable
@given(parameters(rows=2, largest_mean=3.0), st.floats(0.1, 10))
def test_transformed_mixtures_move_with_their_units(par, scale):
    weight, mu, sigma = par
    y = np.array([0.3, 2.0])
    for one, other in [
        (SquaredNormalMixture(*par), SquaredNormalMixture(weight, np.sqrt(scale) * mu, np.sqrt(scale) * sigma)),
        (LogNormalMixture(weight, mu, sigma / 10), LogNormalMixture(weight, mu + np.log(scale), sigma / 10)),
    ]:
        assert_allclose(other.quantile(P), scale * one.quantile(P), rtol=1e-8, atol=1e-12)
        assert_allclose(other.crps(scale * y), scale * one.crps(y), rtol=1e-8, atol=1e-12 * scale)
        assert_allclose(other.mean(), scale * one.mean(), rtol=1e-9)
        assert_allclose(other.logpdf(scale * y), one.logpdf(y) - np.log(scale), rtol=1e-8, atol=1e-10)


@every_class
def test_order_of_components_and_splitting_one_change_nothing(cls):
    dist = mixture(cls, 8)
    turned = cls(dist.weight[:, ::-1], dist.mu[:, ::-1], dist.sigma[:, ::-1])
    weight, mu, sigma = (np.concatenate([x, x[:, :1]], axis=1) for x in (dist.weight, dist.mu, dist.sigma))
    weight[:, 0], weight[:, -1] = 0.25 * dist.weight[:, 0], 0.75 * dist.weight[:, 0]
    for other in (turned, cls(weight, mu, sigma)):
        for value, expected in zip(everything(other, 0.9), everything(dist, 0.9), strict=True):
            assert_allclose(value, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "inverse"), [("identity", lambda z: z), ("sqrt", lambda z: max(z, 0.0) ** 2), ("log", np.exp)]
)
def test_transformed_is_the_law_of_the_inverse(name, inverse):
    latent = mixture(NormalMixture, 9)
    dist = transformed(latent, name)
    assert dist.transform.name == name
    assert_allclose(dist.quantile(P), np.vectorize(inverse)(latent.quantile(P)), rtol=1e-13)
    with pytest.raises(ValueError, match="Unknown transform 'cube'; use one of 'identity', 'sqrt', 'log'"):
        transformed(latent, "cube")
