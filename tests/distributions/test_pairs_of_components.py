"""E|Y - Y'| of two components by compiled loops: against scipy, which they do without, and numerical integration."""

import itertools

import numba
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import erf, ndtr, owens_t

from bayesens.comparison.bands import threshold_crps
from bayesens.distributions.cell_components import _exp
from bayesens.distributions.mixtures import LogNormalMixture, NormalMixture, SquaredNormalMixture
from bayesens.distributions.special import ndtr as compiled_ndtr


def phi(x):
    return np.exp(-0.5 * x**2) / np.sqrt(2.0 * np.pi)


def greatest(mu, s, nu, t):
    """E max(Z, Z', 0)^2 by Clark's moment of the greater of two normals, cut off at zero."""
    z, v, root = mu / s, nu / t, np.hypot(s, t)
    h, q = (mu - nu) / root, (z * t + v * s) / root
    first = 0.5 * (ndtr(z) + ndtr(h) - ((z < 0.0) != (h < 0.0))) - owens_t(z, -v / z) - owens_t(h, q / h)
    out = (mu**2 + s**2) * first + (nu**2 + t**2) * (1.0 - ndtr(-z) * ndtr(-v) - first) + s * t * phi(z) * phi(v)
    return out + mu * s * phi(z) * ndtr(-v) + nu * t * phi(v) * ndtr(-z) + (mu + nu) * root * phi(h) * ndtr(q)


def spread(weight, mu, sigma, cls=SquaredNormalMixture):
    law = cls(weight, mu, sigma)
    return law._spread(np.moveaxis(law.weight, -1, 0), law._parts()), law


@pytest.mark.parametrize("size", [0.1, 1.0, 4.0, 30.0])
def test_two_components_are_those_of_owens_t(size):
    """One row, and more rows than are taken at a time."""
    rng = np.random.default_rng(int(10 * size))
    for rows in (1, 700):
        mu, sigma = size * rng.normal(size=(rows, 2)), np.exp(rng.normal(size=(rows, 2)))
        weight = rng.dirichlet(np.ones(2), rows)
        found, law = spread(weight, mu, sigma)
        expected, mean = np.zeros(rows), law._component_moments()[0]
        for k in range(2):
            for l in range(2):
                moved = mu[:, l] + (1e-9 if k == l else 0.0)  # scipy's has no value at h = 0
                pair = greatest(mu[:, k], sigma[:, k], moved, sigma[:, l])
                expected += weight[:, k] * weight[:, l] * (2.0 * pair - mean[:, k] - mean[:, l])
        assert_allclose(found, expected, rtol=1e-9, atol=1e-7 * max(1.0, size))


@pytest.mark.parametrize("mu", [[0.0, 0.0], [0.0, 1.0], [-2.0, 0.5], [3.0, 3.0], [6.0, -6.0], [-9.0, -8.0]])
@pytest.mark.parametrize("sigma", [[1.0, 1.0], [0.1, 2.0]])
def test_the_integral_of_both_tails(mu, sigma):
    """E|Y - Y'| is twice the integral of F (1 - F)."""
    (found,), law = spread([[0.3, 0.7]], [mu], [sigma])

    def both(a):  # y = a^2
        below = float(law.cdf(a * a)[0])
        return 4.0 * a * below * (1.0 - below)

    edges = np.unique(
        np.clip([m + c * s for m, s in zip(mu, sigma, strict=True) for c in np.linspace(-9, 9, 19)], 0.0, None)
    )
    whole = sum(quad(both, a, b, epsabs=1e-13, epsrel=1e-12)[0] for a, b in itertools.pairwise(edges))
    assert_allclose(found, whole, rtol=1e-10, atol=1e-12)


def test_absent_components_and_rows_without_any():
    weight, mu = [[0.4, 0.6, 0.0], [0.4, 0.6, 0.0], [np.nan] * 3], [[1.0, 2.0, 7.0], [1.0, 2.0, -5.0], [0.0] * 3]
    found, _ = spread(weight, mu, np.ones((3, 3)))
    assert found[0] == found[1] > 0.0
    assert np.isnan(found[2])
    (two,), _ = spread([[0.4, 0.6]], [[1.0, 2.0]], [[1.0, 1.0]])
    assert_allclose(found[0], two, rtol=1e-14)


def test_shapes_of_rows_are_kept():
    rng = np.random.default_rng(1)
    law = SquaredNormalMixture(np.full(3, 1 / 3), rng.normal(size=(4, 5, 3)), 1.0)
    y = rng.uniform(0.0, 3.0, (4, 5))
    flat = SquaredNormalMixture(np.full(3, 1 / 3), law.mu.reshape(20, 3), 1.0)
    assert_allclose(law.crps(y), flat.crps(y.ravel()).reshape(4, 5), rtol=1e-14)


@numba.njit
def below(x, out):
    for i in range(len(x)):
        out[i] = compiled_ndtr(x[i], _exp(-0.5 * x[i] * x[i]))


def test_the_normal_distribution_function_is_that_of_scipy_to_the_last_digits():
    x = np.concatenate(
        [np.linspace(-9.0, 9.0, 200_001), [0.0, -0.0, 1e-300, 40.0, -40.0, 1e200, np.inf, -np.inf, np.nan]]
    )
    found = np.empty_like(x)
    below(x, found)
    assert_allclose(found, ndtr(x), rtol=1e-14, atol=5e-16)


def modulus(mu, s):
    """E|X| of a normal."""
    return 2.0 * s * phi(mu / s) + mu * erf(mu / s / np.sqrt(2.0))


def of_exponentials(mu, s, nu, t):
    root = np.sqrt(2.0) * np.hypot(s, t)
    one, other = erf((mu - nu + s**2) / root), erf((nu - mu + t**2) / root)
    return np.exp(mu + 0.5 * s**2) * one + np.exp(nu + 0.5 * t**2) * other


@pytest.mark.parametrize("rows", [1, 3, 700, 3001])  # the last by several threads
@pytest.mark.parametrize(
    ("cls", "pair"),
    [(NormalMixture, lambda mu, s, nu, t: modulus(mu - nu, np.hypot(s, t))), (LogNormalMixture, of_exponentials)],
)
def test_normals_and_their_exponentials_are_those_of_scipy(cls, pair, rows):
    rng = np.random.default_rng(rows)
    mu, sigma = rng.normal(size=(rows, 5)), rng.choice([1e-8, 0.01, 1.0, 2.0], size=(rows, 5))
    mu[:, 1], weight = mu[:, 0], rng.dirichlet(np.ones(5), rows)
    found, law = spread(weight, mu, sigma, cls)
    expected = sum(
        law.weight[:, k] * law.weight[:, l] * pair(mu[:, k], sigma[:, k], mu[:, l], sigma[:, l])
        for k in range(5)
        for l in range(5)
    )
    assert_allclose(found, expected, rtol=1e-13, atol=1e-15)
    assert_allclose(found[-1], spread(weight[-1:], mu[-1:], sigma[-1:], cls)[0][0], rtol=1e-14)


@pytest.mark.parametrize("unit", [1e-200, 1e-150, 1e150])
def test_normals_of_any_unit_have_one_score(unit):
    """Squares of their standard deviations are no numbers."""
    mu, sigma, y = np.array([[1.0, 2.0, 2.0]]), np.array([[0.5, 1.0, 3.0]]), np.array([1.5])
    one, other = NormalMixture([0.2, 0.3, 0.5], mu, sigma), NormalMixture([0.2, 0.3, 0.5], unit * mu, unit * sigma)
    assert_allclose(other.crps(unit * y), unit * one.crps(y), rtol=1e-13)
    found = threshold_crps(other, unit * y, upper=unit * 2.5)
    assert_allclose(found, unit * threshold_crps(one, y, upper=2.5), rtol=1e-12)
