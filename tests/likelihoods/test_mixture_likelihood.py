"""The fused mixture likelihood against row-by-row sums, finite differences and PyTensor's own gradient."""

import numba
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from pytensor.graph.replace import vectorize_graph
from pytensor.tensor.special import log_softmax
from scipy.special import logsumexp
from scipy.stats import norm

from bayesens.inference.compiled import lean
from bayesens.likelihoods.mixture import BLOCK, _exp, mixture_values, pack
from bayesens.likelihoods.ops import MixtureLogLik, mixture_loglik

PLAIN = Mode(linker="py", optimizer=None)
OFFSETS = [(0, 1), (12, 1), (12, 3)]


def mixture_input(offset=(0, 1), seed=21, n=12, present=0.7):
    """Parameters and rows of three members, some of them missing."""
    rng = np.random.default_rng(seed)
    available = rng.random((n, 3)) < present
    available[~available.any(axis=1), 1] = True
    data = rng.normal(size=n), np.where(available, rng.normal(size=(n, 3)), 0.0), available
    log_weight, (intercept, slope) = np.log(rng.dirichlet(np.ones(3))), rng.normal(size=(2, 3))
    return (log_weight, intercept, slope, 0.3 * rng.normal(size=3), rng.normal(size=offset)), data


def _mixture(*inputs):
    """Value and the gradient by parameter."""
    *parameters, y, f, available = inputs
    theta = np.concatenate([parameters[-1].shape, *(np.ravel(p) for p in parameters)]).astype(float)
    (out,) = MixtureLogLik().at_many(theta[None], *pack(y, f, available), 2, gradients=True)
    parts = np.split(out[1:], np.cumsum([p.size for p in parameters])[:-1])
    return out[0], *(part.reshape(p.shape) for part, p in zip(parts, parameters))


def row_by_row(log_weight, intercept, slope, log_sigma, offset, y, f, available):
    """The same, one row after the other."""
    total = 0.0
    for i, row in enumerate(available):
        a = np.nonzero(row)[0]
        shift = offset[i, a if offset.shape[1] > 1 else 0] if len(offset) else 0.0
        each = norm.logpdf(y[i], intercept[a] + slope[a] * f[i, a] + shift, np.exp(log_sigma[a]))
        total += logsumexp(log_weight[a] - logsumexp(log_weight[a]) + each)
    return total


@pytest.mark.parametrize("offset", OFFSETS)
def test_mixture_is_the_sum_of_its_rows_with_weights_renormalised_over_members_present(offset):
    for seed in range(5):
        parameters, data = mixture_input(offset, seed)
        assert _mixture(*parameters, *data)[0] == pytest.approx(row_by_row(*parameters, *data), abs=1e-11)


@pytest.mark.parametrize("present", [0.7, 1.1])
@pytest.mark.parametrize("n", [BLOCK, BLOCK + 1, 2 * BLOCK + 77])
@pytest.mark.parametrize("columns", [0, 1, 3])
def test_mixture_of_several_blocks_is_the_sum_of_its_rows(n, columns, present):
    parameters, data = mixture_input((n if columns else 0, max(columns, 1)), n=n, present=present)
    value, *gradient = _mixture(*parameters, *data)
    assert value == pytest.approx(row_by_row(*parameters, *data), rel=1e-13)
    parts = [_mixture(*parameters[:4], parameters[4][i : i + 1], *(x[i : i + 1] for x in data)) for i in range(n)]
    for j in range(4):
        np.testing.assert_allclose(gradient[j], np.sum([p[1 + j] for p in parts], axis=0), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(gradient[4], np.concatenate([p[5] for p in parts]), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("offset", OFFSETS)
def test_values_of_many_draws_are_those_of_each(offset):
    inputs = [mixture_input(offset, seed) for seed in range(5)]
    data = inputs[0][1]
    theta = np.array([np.concatenate([offset, *(np.ravel(p) for p in parameters)]) for parameters, _ in inputs])
    out = np.empty((5, 1))
    mixture_values(theta, *pack(*data), out)
    np.testing.assert_allclose(out[:, 0], [_mixture(*parameters, *data)[0] for parameters, _ in inputs], rtol=1e-14)


def test_many_draws_through_pytensor_are_one_by_one():
    """The graph that a PyMC model has, with a dimension of draws in front; values in one call, gradients too."""
    parameters, (y, f, available) = mixture_input((12, 1))
    x, many = pt.dvector(), pt.dmatrix()
    value = mixture_loglik(log_softmax(x), x**2, x, np.full(3, -0.5), parameters[4], y=y, f=f, available=available)
    outputs = [value, pt.grad(value, x)]
    one = pytensor.function([x], outputs, mode=PLAIN)
    all_draws = pytensor.function([many], vectorize_graph(outputs, {x: many}), mode=PLAIN)
    points = np.random.default_rng(2).normal(size=(7, 3))
    values, gradients = all_draws(points)
    for i, point in enumerate(points):
        expected, gradient = one(point)
        assert values[i] == pytest.approx(expected, rel=1e-13)
        np.testing.assert_allclose(gradients[i], gradient, rtol=1e-12)


@numba.njit
def exp(x, bits, scale):
    """The kernels' exponential, which Python cannot call itself."""
    _exp(x, bits, scale)


def test_exponential_is_exact_to_the_last_bits():
    x = -np.concatenate([[0.0, 1e-300, 1e-20, 699.9, 1e4, np.inf], np.random.default_rng(1).exponential(50.0, 500)])
    bits, got = np.empty(len(x), dtype=np.int64), x.copy()
    exp(got, bits, bits.view(np.float64))
    np.testing.assert_allclose(got, np.exp(np.maximum(x, -700.0)), rtol=4.5e-16)


@pytest.mark.parametrize("offset", OFFSETS)
def test_mixture_gradient_is_that_of_finite_differences(offset):
    parameters, data = mixture_input(offset)
    gradient = _mixture(*parameters, *data)[1:]
    for i, parameter in enumerate(parameters):
        for place in np.ndindex(parameter.shape):
            step = np.zeros_like(parameter)
            step[place] = 1e-6
            up, down = (
                _mixture(*(p + side * step if j == i else p for j, p in enumerate(parameters)), *data)[0]
                for side in (1, -1)
            )
            assert gradient[i][place] == pytest.approx((up - down) / 2e-6, rel=1e-6, abs=1e-7)


def test_mixture_gradient_follows_the_chain_rule_through_pytensor():
    (*_, offset), (y, f, available) = mixture_input((12, 1))
    x, effect = pt.dvector(), pt.dmatrix()
    value = 3.0 * mixture_loglik(log_softmax(x), x**2, x, 0.1 * x, effect, y=y, f=f, available=available)
    with lean():
        function = pytensor.function([x, effect], [value, *pt.grad(value, [x, effect])], mode="NUMBA")
    point = np.array([0.3, -0.8, 0.5])
    result, by_x, by_effect = function(point, offset)
    log_soft = point - logsumexp(point)
    assert result == pytest.approx(3.0 * row_by_row(log_soft, point**2, point, 0.1 * point, offset, y, f, available))
    for i in range(3):
        step = 1e-6 * np.eye(3)[i]
        slope_x = (function(point + step, offset)[0] - function(point - step, offset)[0]) / 2e-6
        assert by_x[i] == pytest.approx(slope_x, rel=1e-6, abs=1e-6)
    step = np.zeros_like(offset)
    step[4] = 1e-6
    slope_e = (function(point, offset + step)[0] - function(point, offset - step)[0]) / 2e-6
    assert by_effect[4, 0] == pytest.approx(slope_e, rel=1e-6, abs=1e-6)


def test_mixture_density_of_minus_eight_hundred_does_not_underflow():
    zero, available = np.zeros(2), np.ones((1, 2), dtype=bool)
    parameters = np.log([0.25, 0.75]), zero, np.ones(2), zero, np.zeros((0, 1))
    value, *gradient = _mixture(*parameters, np.array([40.0]), np.array([[0.0, 0.5]]), available)
    expected = logsumexp([np.log(0.25) - 800.0, np.log(0.75) - 0.5 * 39.5**2]) - 0.5 * np.log(2 * np.pi)
    assert value == pytest.approx(expected, rel=1e-14)
    assert np.sum(gradient[1]) == pytest.approx(39.5, rel=1e-3)


def test_mixture_does_not_change_with_a_constant_in_the_log_weights():
    (log_weight, *rest), data = mixture_input((12, 3))
    value, *gradient = _mixture(log_weight, *rest, *data)
    moved, *gradient_moved = _mixture(log_weight + 500.0, *rest, *data)
    assert moved == pytest.approx(value, abs=1e-9)
    for one, other in zip(gradient, gradient_moved):
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-10)
    assert gradient[0].sum() == pytest.approx(0.0, abs=1e-12)


def test_mixture_of_a_row_without_members_is_minus_infinity_with_a_finite_gradient():
    parameters, (y, f, available) = mixture_input()
    available[3] = False
    value, *gradient = _mixture(*parameters, y, f, available)
    assert value == -np.inf
    assert all(np.all(np.isfinite(g)) for g in gradient)
