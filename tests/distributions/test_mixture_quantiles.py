"""Quantiles of mixtures: the cdf at them, exact values in far tails and between far components, and their order."""

import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal
from random_mixtures import P, every_class, mixture, parameters, repeatable
from scipy import stats

from bayesens.distributions.mixtures import (
    NormalMixture,
    SquaredNormalMixture,
)


@every_class
@repeatable
@given(par=parameters(rows=2, largest_mean=3.0))
def test_quantile_inverts_the_cdf(cls, par):
    dist = cls(*par)
    q = dist.quantile(P)
    assert np.all(np.diff(q, axis=1) >= 0.0)
    for j, p in enumerate(P):
        inside = q[:, j] > 0.0 if cls is SquaredNormalMixture else np.ones(2, dtype=bool)
        tail, target = (dist.cdf(q[:, j]), p) if p < 0.5 else (dist.sf(q[:, j]), 1.0 - p)
        assert_allclose(tail[inside], target, rtol=1e-8)
        assert np.all(dist.mass_at_zero()[~inside] >= p * (1 - 1e-12))


@repeatable
@given(parameters(rows=2))
def test_normal_quantile_is_exact_to_the_least_sigma(par):
    dist = NormalMixture(*par)
    q = dist.quantile(P)
    for j, p in enumerate(P):
        residual = dist.cdf(q[:, j]) - p if p < 0.5 else (1.0 - p) - dist.sf(q[:, j])
        # Where the cdf is flat (between far components), x is known no better than rounding of p allows.
        limit = 1e-12 * dist.sigma.min(axis=1) + 1e-15 * (min(p, 1 - p) / dist.pdf(q[:, j]) + np.abs(q[:, j]))
        assert np.all(np.abs(residual / dist.pdf(q[:, j])) <= limit)


@every_class
def test_quantile_returns_to_where_it_came_from(cls):
    dist = mixture(cls, 11, rows=200)
    y = dist.sample(1, np.random.default_rng(2))[0]
    y = np.where(y == 0.0, 0.01, y)
    back = np.array([dist[i].quantile(dist[i].cdf(y[i])) for i in range(200)])
    assert_allclose(back, y, rtol=1e-9)


def test_quantiles_in_far_tails_and_degenerate_mixtures():
    p = np.array([1e-300, 1e-12, 1e-6, 0.3, 1 - 1e-6, 1 - 1e-12])
    z = np.where(p < 0.5, stats.norm.ppf(p), stats.norm.isf(1 - p))
    nearly_equal = NormalMixture([0.3, 0.7], [[1.0, 1.0 + 1e-13]], [2.0, 2.0 * (1 + 1e-14)])
    assert_allclose(nearly_equal.quantile(p)[0], 1.0 + 2.0 * z, rtol=1e-11)
    equal = NormalMixture([0.3, 0.7], [[1.0, 1.0]], 2.0)
    assert_allclose(equal.quantile(p)[0], 1.0 + 2.0 * z, rtol=1e-13)
    apart = NormalMixture([0.5, 0.5], [[0.0, 100.0]], 1.0)  # the far component only halves the weight
    assert_allclose(apart.quantile(p[:3])[0], stats.norm.ppf(2 * p[:3]), rtol=1e-12)
    assert_allclose(apart.quantile(p[4:])[0], 100.0 + stats.norm.isf(2 * (1 - p[4:])), rtol=1e-12)
    # In units of the narrow component the quantile of the wide one's tail lies at 1e10.
    scales = NormalMixture([1 - 2.0**-20, 2.0**-20], [[0.0, 1e4]], [1e-6, 1e3])
    assert_allclose(scales.quantile(1 - 2.0**-23)[0], 1e4 + 1e3 * stats.norm.isf(0.125), rtol=1e-12)


def test_quantile_between_far_components_is_monotone():
    dist = NormalMixture([0.5, 0.5], [[0.0, 1000.0]], 1.0)  # F is 1/2 to the last digit from 9 to 991
    p = 0.5 + np.arange(-20, 21) * 2.0**-53
    q = dist.quantile(p)[0]
    assert np.all(np.diff(q) >= 0.0)
    assert 5.0 < q[20] < 995.0
    # And where neighbouring probabilities differ by less than the rounding of the cdf.
    many = mixture(NormalMixture, rows=300).quantile(0.3 + np.arange(20) * 2.0**-54)
    assert np.all(np.diff(many, axis=1) >= 0.0)


def test_quantile_takes_any_order_and_shape():
    dist = mixture(NormalMixture, rows=6)[np.arange(6).reshape(2, 3)]
    assert dist.shape == (2, 3)
    p = np.array([0.9, 0.1, 0.5, 0.9])
    q = dist.quantile(p)
    assert q.shape == (2, 3, 4)
    for j in range(4):
        assert_array_equal(q[..., j], dist.quantile(p[j]))
    assert dist.quantile([]).shape == (2, 3, 0)
    assert dist[0, 0].quantile(0.5).shape == ()
    assert dist[:0].quantile(p).shape == (0, 3, 4)
    lower, upper = dist.interval(0.8)
    assert_allclose(lower, dist.quantile(0.1))
    assert_allclose(upper, dist.quantile(0.9))


@pytest.mark.parametrize("p", [0.0, 1.0, -0.1, np.nan, [0.5, 2.0], [[0.5]]])
def test_quantile_refuses(p):
    with pytest.raises(ValueError, match=r"probability inside \(0, 1\), or a list of them; got"):
        mixture(NormalMixture).quantile(p)


@pytest.mark.parametrize("level", [0.0, 1.0, 90])
def test_interval_refuses(level):
    with pytest.raises(ValueError, match=f"inside \\(0, 1\\), such as 0.9; got {level}"):
        mixture(NormalMixture).interval(level)
