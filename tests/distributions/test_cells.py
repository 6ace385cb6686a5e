"""Laws of cells by coefficients: the functions behind them, polynomials, and quantiles by brute force where members disagree."""

from dataclasses import replace

import numba
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr, ndtri
from scipy.stats import norm

from bayesens.distributions.cell_components import BACK, moments_back
from bayesens.distributions.cell_lanes import CELLS, forms, functions
from bayesens.distributions.cell_loops import law_of_cells, patterns
from bayesens.distributions.cell_moments import SLOTS, WITHIN, within
from bayesens.distributions.cells import CellClass, Polynomial, Reads, _basis
from bayesens.distributions.matching import Bins, Match


@numba.njit
def variance_within(x, parent, factor, coefficient, horner, out):
    power, s = np.empty(len(coefficient) * CELLS), np.empty(SLOTS * CELLS)
    within(x, parent, factor, coefficient, horner, power, s)
    out[:] = s[WITHIN * CELLS : (WITHIN + 1) * CELLS]


def test_exponential_logarithm_and_normal_probability():
    x = np.concatenate([np.linspace(-37.0, 37.0, 20_001), [0.0, 1e-300, -1e-12]])
    out = np.empty((3, len(x)))
    functions(x, out)
    np.testing.assert_allclose(out[0], np.exp(x), rtol=1e-10)
    there = x != 0.0
    np.testing.assert_allclose(out[1][there], np.log(np.abs(x[there])), rtol=1e-9)
    np.testing.assert_allclose(out[2], ndtr(x), rtol=1e-9)


def test_a_polynomial_follows_a_smooth_function_or_says_that_it_does_not():
    low, high = np.array([-2.0, 0.0]), np.array([3.0, 0.0])

    def smooth(x):
        return np.log(np.exp(0.4 * x[:, 0]) + np.exp(-0.3 * x[:, 0] + x[:, 1]))

    found = Polynomial.through(smooth, low, high)
    points = np.column_stack([np.linspace(-2.0, 3.0, 101), np.zeros(101)])
    np.testing.assert_allclose(found.at(points), smooth(points), atol=2e-7)
    assert Polynomial.through(lambda x: np.sign(x[:, 0]), low, high) is None


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6, 9, 11])
def test_quadratic_forms_of_any_size(size):
    rng = np.random.default_rng(size)
    root = rng.normal(size=(size, size))
    form = root @ root.T
    u = rng.normal(size=(size, CELLS))
    u[0] = 1.0
    out = np.empty((2, CELLS))
    forms(u.ravel(), form, out)
    wanted = np.einsum("pi,pq,qi->i", u, form, u)
    np.testing.assert_allclose(out, np.stack([wanted, wanted]), rtol=1e-10)


@pytest.mark.parametrize(("name", "back"), [("sqrt", lambda z: np.maximum(z, 0.0) ** 2), ("log", np.exp)])
def test_moments_of_normals_turned_back_are_those_of_numerical_integration(name, back):
    rng = np.random.default_rng(6)
    mu, sd = rng.uniform(-3.0, 3.0, CELLS), np.exp(rng.uniform(-5.0, 0.5, CELLS))
    mu[:8] = sd[:8] * [-2.0, -1.0, 0.0, 1.0, 5.0, 8.9, 9.1, 30.0]
    mu = np.maximum(mu, -2.0 * sd)
    out = np.empty((2, CELLS))
    moments_back(BACK[name], mu, sd, out)
    for k in range(24):
        kink = np.clip(-mu[k] / sd[k], -39.0, 39.0) if name == "sqrt" else 0.0

        def moment(function, k=k, kink=kink):
            def weighted(t):
                return function(back(mu[k] + sd[k] * t)) * norm.pdf(t)

            return sum(
                quad(weighted, *ends, epsabs=0.0, epsrel=1e-11, limit=200)[0] for ends in ((-39, kink), (kink, 39))
            )

        mean = moment(lambda y: y)
        np.testing.assert_allclose(out[0, k], mean, rtol=1e-6)
        np.testing.assert_allclose(out[1, k], moment(lambda y, mean=mean: (y - mean) ** 2), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("variables", [1, 2, 3])
@pytest.mark.parametrize("degree", [1, 3, 4, 6, 7])
def test_the_variance_within_kernels_is_the_exponential_of_a_polynomial_of_any_size(variables, degree):
    rng = np.random.default_rng(degree)
    basis = _basis((-1.0,) * variables, (1.0,) * variables, degree)[0]
    found = replace(basis, coefficient=0.1 * rng.normal(size=len(basis.parent)))
    x = rng.uniform(-1.0, 1.0, (max(2, variables), CELLS))
    assert (len(found.horner) > 0) == (variables < 3 and degree < 7)
    out = np.empty(CELLS)
    variance_within(x.ravel(), found.parent, found.factor, found.coefficient, found.horner, out)
    np.testing.assert_allclose(out, np.exp(found.at(x[:variables].T)), rtol=1e-9)


def one_class(weight, mean, sd):
    """A class whose normals are the same in all cells, but for their means, which follow a member each."""
    k = len(weight)
    matches = []
    for c in range(k):
        centre = np.zeros((1, k + 1))
        centre[0, 0], centre[0, c + 1] = mean[c], 1.0
        none = np.zeros((1, 1, 0)), np.zeros((1, 1, 0, 0))
        spread = np.zeros((1, k + 1, k + 1))
        bins = Bins(np.array([weight[c]]), centre, spread, np.array([[sd[c] ** 2]]), *none)
        matches.append(Match(np.zeros((0, k + 1)), (bins,)))
    lines = np.array([one.bins[0].centre[0] for one in matches])
    line = np.asarray(weight) @ lines
    between = np.einsum("c,ci,cj->ij", weight, lines - line, lines - line)
    one = [np.ones(1)] * k
    return CellClass(line, between, np.zeros((k + 1, k + 1)), Polynomial.constant(float(np.log(np.dot(weight, np.square(sd))))),
                     np.zeros((0, k + 1)), matches, np.zeros(k), one, one, np.zeros((0, 0)), True)  # fmt: skip


def predicted(found, f, levels, limits=(), scores=(), index=()):
    k, n = f.shape
    nothing = np.zeros((0, n))
    reads = Reads(np.zeros(k), np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros((0, 5)))
    out = np.full((2 + len(levels) + len(limits) + len(scores), n), np.nan)
    address = np.array([row.ctypes.data for row in f], dtype=np.int64)
    cells = (0, len(index) or n, np.array(index, dtype=np.int64))
    members, limits = (address, np.full(k, f.strides[1] // 8), False), np.array(limits).reshape(len(limits), n)
    levels, scores = ndtri(np.array(levels)), np.array(scores).reshape(len(scores), n)
    found.predict(
        reads, members, nothing, nothing, cells, levels=levels, limits=limits, scores=scores, parts=1, out=out
    )
    return out


@pytest.mark.parametrize("apart", [0.0, 1.0, 10.0, 200.0])
def test_quantiles_solve_the_mixture_where_members_agree_and_where_they_are_many_sd_apart(apart):
    rng = np.random.default_rng(4)
    levels = [0.001, 0.05, 0.3, 0.5, 0.95, 0.9999]
    weight, sd, n = np.array([0.5, 0.3, 0.15, 0.05]), np.array([1.0, 0.6, 2.0, 0.2]), 3 * CELLS + 7
    f = rng.normal(size=(4, n)) * apart
    out = predicted(one_class(weight, np.zeros(4), sd), f, levels, [np.full(n, 0.5)])
    for q, level in enumerate(levels):
        left = weight @ norm.cdf((out[2 + q] - f) / sd[:, None])
        right = weight @ norm.sf((out[2 + q] - f) / sd[:, None])
        smaller = left if level <= 0.5 else right
        # The probability is that of the level wherever the density is not nearly zero.
        density = weight @ (norm.pdf((out[2 + q] - f) / sd[:, None]) / sd[:, None])
        assert (
            np.max(np.abs(smaller - min(level, 1 - level)) / np.maximum(density, 1e-3 * min(level, 1 - level))) < 1e-5
        )
    assert np.all(np.diff(out[2:-1], axis=0) >= 0.0)
    mean = weight @ f
    np.testing.assert_allclose(out[0], mean, atol=1e-12 * (1 + apart))
    np.testing.assert_allclose(out[1] ** 2, weight @ (sd[:, None] ** 2 + (f - mean) ** 2), rtol=1e-10)
    np.testing.assert_allclose(out[-1], weight @ norm.cdf((0.5 - f) / sd[:, None]), atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_a_cell_gets_the_same_whatever_stands_beside_it_and_however_it_is_read(k):
    rng = np.random.default_rng(1)
    found = one_class(np.full(k, 1.0 / k), np.zeros(k), np.linspace(1.0, 0.1, k))
    f = rng.normal(size=(k, 300)) * 10.0
    whole = predicted(found, f, [0.05, 0.5])
    for start, stop in ((0, 1), (17, 200), (299, 300)):
        some = np.ascontiguousarray(f[:, start:stop])
        np.testing.assert_array_equal(predicted(found, some, [0.05, 0.5]), whole[:, start:stop])
    np.testing.assert_array_equal(predicted(found, np.ascontiguousarray(f.T).T, [0.05, 0.5]), whole)
    index = rng.permutation(300)[:200]
    np.testing.assert_array_equal(predicted(found, f, [0.05, 0.5], index=index)[:, index], whole[:, index])


def test_values_at_normal_scores_are_quantiles():
    rng = np.random.default_rng(2)
    found, f = one_class(np.array([0.7, 0.3]), np.zeros(2), np.array([1.0, 0.3])), rng.normal(size=(2, 50)) * 3.0
    score = np.linspace(-4.0, 4.0, 50)
    out = predicted(found, f, ndtr(score).tolist(), scores=[score])
    np.testing.assert_allclose(out[-1], np.diag(out[2:-1]), atol=1e-7)


def test_patterns_are_bits_of_the_members_that_are_there():
    f = np.array([[1.0, np.nan, 2.0], [np.nan, np.nan, 3.0]])
    out = np.empty(3, dtype=np.int64)
    address, stride = np.array([row.ctypes.data for row in f], dtype=np.int64), np.ones(2, dtype=np.int64)
    assert not patterns(address, stride, False, 0, out)
    assert out.tolist() == [1, 0, 3]
    f[0, 0] = -np.inf
    assert patterns(address, stride, False, 0, out)


def test_there_is_one_compiled_form():
    law_of_cells.disable_compile()  # single and double precision, classes of any size: by the same code
    predicted(one_class(np.ones(1), np.zeros(1), np.ones(1)), np.zeros((1, 5)), [0.5])
