"""The fused likelihoods against brute force: multivariate normals, row-by-row mixtures and finite differences."""

import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from pytensor.graph.replace import vectorize_graph
from pytensor.tensor.special import log_softmax
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from bayesens.ensemble.sufficient import statistics
from bayesens.inference.compiled import lean
from bayesens.likelihoods.mixture import BLOCK, _exp, mixture_values, pack
from bayesens.likelihoods.multilevel.effects import effect_draws
from bayesens.likelihoods.ops import MixtureLogLik, collapsed_loglik, mixture_loglik
from collapsed import collapsed as _collapsed
from collapsed import split

ROOT = Path(__file__).parents[2]
PLAIN = Mode(linker="py", optimizer=None)
P = 4  # columns of z: the observation and three members
SITE_GROUP = np.array([0, 0, 0, 1, 1, 2])
SITE_SIZE = [1, 5, 2, 7, 1, 3]
LEVELS = ["site and group", "site", "group", "none", "singular"]


# ---------------------------------------------------------------------------------------------------- collapsed levels
def covariance(rng, size=0.7):
    root = rng.normal(size=(P, P + 1))
    return size * root @ root.T / P


def parameters(rng, levels):
    """Mean and covariances with some levels off, or of rank one."""
    within, site, group = covariance(rng, 1.0), covariance(rng), covariance(rng, 0.4)
    if levels == "singular":
        site, group = np.outer(site[0], site[0]), np.diag([0.0, 0.3, 0.0, 0.2])
    off = np.zeros((P, P))
    return rng.normal(size=P), within, site if levels != "group" else off, group if levels != "site" else off


@pytest.fixture
def table():
    """Rows of unequal sites with members missing here and there, member 2 absent from site 3, a row without members."""
    rng = np.random.default_rng(7)
    site = rng.permutation(np.repeat(np.arange(len(SITE_SIZE)), SITE_SIZE))
    z = rng.normal(2.0, 1.5, size=(len(site), P))
    z[:, 1:][rng.random((len(site), P - 1)) < 0.25] = np.nan
    z[site == 3, 2] = np.nan
    z[np.nonzero(site == 1)[0][0], 1:] = np.nan
    return z, site


def arguments(rng, levels):
    mean, within, site, group = parameters(rng, levels)
    return (mean, within, 0 * site, 0 * group) if levels == "none" else (mean, within, site, group)


def joint(z, site, mean, within, level_site, level_group):
    """Observed values stacked, their mean and covariance, and the covariance of (groups, sites) with them."""
    row, column = np.nonzero(np.isfinite(z))
    group = SITE_GROUP[site]
    pick = np.ix_(column, column)
    same = [np.equal.outer(a[row], a[row]) for a in (np.arange(len(z)), site, group)]
    total = same[0] * within[pick] + same[1] * level_site[pick] + same[2] * level_group[pick]
    cross = [
        (np.arange(count)[:, None, None] == code[row]) * level[:, column]
        for count, code, level in ((3, group, level_group), (6, site, level_site))
    ]
    return z[row, column], mean[column], total, np.concatenate([c.reshape(-1, len(row)) for c in cross])


@pytest.mark.parametrize("levels", LEVELS)
def test_collapsed_likelihood_is_the_multivariate_normal(table, levels):
    rng = np.random.default_rng(1)
    for _ in range(5):
        args = arguments(rng, levels)
        value = _collapsed(*args, statistics(*table, SITE_GROUP))[0]
        stacked, mean, total, _ = joint(*table, *args)
        assert value == pytest.approx(multivariate_normal(mean, total).logpdf(stacked), abs=1e-8)


@pytest.mark.parametrize("levels", LEVELS)
def test_collapsed_gradient_is_that_of_finite_differences(table, levels):
    rng = np.random.default_rng(2)
    args = arguments(rng, levels)
    data = statistics(*table, SITE_GROUP)
    gradient = _collapsed(*args, data)[1:]
    for i, argument in enumerate(args):
        direction = rng.normal(size=argument.shape)
        direction = direction + direction.T  # covariances move symmetrically
        up, down = (
            _collapsed(*(a + side * 1e-5 * direction if j == i else a for j, a in enumerate(args)), data)[0]
            for side in (1, -1)
        )
        assert np.sum(gradient[i] * direction) == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=1e-5)


@pytest.fixture(scope="module")
def collapsed_function():
    """Value and gradients through PyTensor with numba, of a covariance that depends on two numbers."""
    rng = np.random.default_rng(7)
    site = np.repeat(np.arange(len(SITE_SIZE)), SITE_SIZE)
    z = rng.normal(size=(len(site), P))
    z[rng.random(z.shape) < 0.1] = np.nan
    z[:, 0] = rng.normal(size=len(z))
    mean, level, sd = pt.dvector(), pt.dmatrix(), pt.dscalar()
    value = 2.0 * collapsed_loglik(
        mean, pt.exp(sd) * pt.eye(P), level, 0.5 * level, data=statistics(z, site, SITE_GROUP)
    )
    outputs = [value, *pt.grad(value, [mean, level, sd])]
    with lean():
        return pytensor.function([mean, level, sd], outputs, mode="NUMBA"), (z, site)


def test_collapsed_likelihood_and_chain_rule_through_pytensor(collapsed_function):
    function, rows = collapsed_function
    rng = np.random.default_rng(3)
    mean, level, sd = rng.normal(size=P), covariance(rng), 0.3
    value, *gradient = function(mean, level, sd)
    stacked, m, total, _ = joint(*rows, mean, np.exp(sd) * np.eye(P), level, 0.5 * level)
    assert value == pytest.approx(2.0 * multivariate_normal(m, total).logpdf(stacked), abs=1e-8)
    direction = [rng.normal(size=P), covariance(rng), 1.0]
    for i, part in enumerate(gradient):
        up, down = (
            function(*(a + side * 1e-6 * d * (i == j) for j, (a, d) in enumerate(zip((mean, level, sd), direction))))[0]
            for side in (1, -1)
        )
        assert np.sum(part * direction[i]) == pytest.approx((up - down) / 2e-6, rel=1e-6, abs=1e-5)


def test_python_and_numba_paths_of_the_operation_agree(collapsed_function):
    function, rows = collapsed_function
    rng = np.random.default_rng(4)
    mean, level = rng.normal(size=P), covariance(rng)
    value = 2.0 * collapsed_loglik(mean, np.eye(P), level, 0.5 * level, data=statistics(*rows, SITE_GROUP))
    plain = pytensor.function([], value, mode=Mode(linker="py", optimizer=None))()
    assert plain == pytest.approx(function(mean, level, 0.0)[0], rel=1e-13)


def random_levels(rng, p, rank, size):
    a = rng.normal(size=(p, rank))
    return size * a @ a.T


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize(
    ("p", "sites", "groups", "rows", "missing", "ranks"),
    [
        (5, 60, 6, 400, 0.0, (5, 5)),
        (4, 30, 3, 200, 0.1, (4, 1)),  # sites with gaps beside sites without
        (3, 12, 2, 12, 0.0, (1, 3)),  # one row a site
        (2, 1, 1, 9, 0.0, (2, 0)),
        (6, 20, 4, 90, 0.05, (0, 6)),
    ],
)
def test_sites_of_complete_rows_have_the_value_and_gradient_of_the_general_route(
    p, sites, groups, rows, missing, ranks, size
):
    """Diagonal coordinates against the factorisation site by site, also where a level is singular or missing."""
    rng = np.random.default_rng(p * sites)
    z = np.sqrt(size) * rng.normal(size=(rows, p))
    z[rng.random((rows, p)) < missing] = np.nan
    z[:, 0] = np.sqrt(size) * rng.normal(size=rows)
    site = np.r_[np.arange(sites), rng.integers(0, sites, rows - sites)]
    site_group = np.sort(np.r_[np.arange(groups), rng.integers(0, groups, sites - groups)])
    rows = statistics(z, site, site_group)
    data, long = rows, split(rows)
    mean, within = 0.3 * np.sqrt(size) * rng.normal(size=p), random_levels(rng, p, p + 2, size)
    levels = [random_levels(rng, p, rank, size) for rank in ranks]

    def general(*args):
        return _collapsed(*args, long)[0]

    args = (mean, within, *levels)
    value, *gradient = _collapsed(*args, data)
    assert value == pytest.approx(general(*args), rel=1e-11)
    for i, slope in enumerate(gradient):
        direction = rng.normal(size=np.shape(args[i]))
        direction = direction if i == 0 else direction @ direction.T  # a level may only grow where it is singular
        direction *= (np.sqrt(size) if i == 0 else size) / np.abs(direction).max()
        up, more = (general(*(a + h * direction if j == i else a for j, a in enumerate(args))) for h in (1e-5, 2e-5))
        numeric = (4.0 * up - more - 3.0 * value) / 2e-5
        assert np.sum(slope * direction) == pytest.approx(numeric, rel=1e-4, abs=1e-4 * max(1.0, abs(value)) * 1e-2)


@pytest.mark.parametrize("within", [-np.eye(P), np.ones((P, P)), np.full((P, P), np.nan), np.zeros((P, P))])
def test_collapsed_likelihood_of_a_covariance_that_is_not_positive_definite_is_minus_infinity(table, within):
    level = np.eye(P)
    value, *gradient = _collapsed(np.zeros(P), within, level, level, statistics(*table, SITE_GROUP))
    assert value == -np.inf
    assert all(np.all(np.isfinite(g)) for g in gradient)


def test_statistics_are_sums_over_site_and_pattern(table):
    z, site = table
    out = statistics(z, site, SITE_GROUP)
    assert np.all(np.diff(out.cell_site) >= 0)
    assert out.n.sum() == len(z)
    present = np.isfinite(z)
    scatter = np.zeros_like(out.scatter)
    for n, mean, q, s in zip(out.n, out.mean, out.cell_pattern, out.cell_site):
        rows = z[(site == s) & (present == out.pattern[q]).all(axis=1)]
        assert n == len(rows)
        np.testing.assert_allclose(mean, np.where(out.pattern[q], rows.mean(axis=0), 0.0), rtol=1e-13)
        centred = np.where(out.pattern[q], rows - rows.mean(axis=0), 0.0)
        scatter[q] += centred.T @ centred
    np.testing.assert_allclose(out.scatter, scatter, atol=1e-12)


def test_statistics_do_not_depend_on_row_order_and_keep_their_digits_far_from_zero(table):
    z, site = table
    order = np.random.default_rng(5).permutation(len(z))
    args = arguments(np.random.default_rng(6), "site and group")
    value = _collapsed(*args, statistics(z, site, SITE_GROUP))[0]
    assert _collapsed(*args, statistics(z[order], site[order], SITE_GROUP))[0] == pytest.approx(value, abs=1e-11)
    far = _collapsed(args[0] + 1e6, *args[1:], statistics(z + 1e6, site, SITE_GROUP))[0]
    assert far == pytest.approx(value, abs=1e-6)


# -------------------------------------------------------------------------------------------------------------- effects
def conditional(z, site, args):
    """Mean and covariance of all effects, groups first, given the rows."""
    stacked, mean, total, cross = joint(z, site, *args)
    prior = np.zeros((9 * P, 9 * P))
    for i in range(9):
        prior[i * P : (i + 1) * P, i * P : (i + 1) * P] = args[3] if i < 3 else args[2]
    gain = np.linalg.solve(total, cross.T).T
    return gain @ (stacked - mean), prior - gain @ cross.T


def draw_effects(table, args, size, rng):
    repeated = [np.broadcast_to(a, (size, *a.shape)) for a in args]
    group, site, density = effect_draws(*repeated, data=statistics(*table, SITE_GROUP), rng=rng)
    return np.concatenate([group.reshape(size, -1), site.reshape(size, -1)], axis=1), density


@pytest.mark.parametrize("levels", LEVELS)
def test_effects_without_noise_are_at_their_conditional_mean(table, levels):
    args = arguments(np.random.default_rng(11), levels)
    effects, _ = draw_effects(table, args, 2, None)
    expected, _ = conditional(*table, args)
    np.testing.assert_allclose(effects, np.stack([expected, expected]), atol=1e-10)


@pytest.mark.parametrize("levels", LEVELS)
def test_drawn_effects_have_the_conditional_covariance(table, levels):
    # Five standard errors of each of 1,300 entries: a right draw fails with probability below 1e-3; the seed is fixed.
    args = arguments(np.random.default_rng(12), levels)
    size = 20_000
    effects, _ = draw_effects(table, args, size, np.random.default_rng(13))
    mean, expected = conditional(*table, args)
    apart = effects - mean
    variance = np.diag(expected).clip(0.0)
    error = np.sqrt((np.outer(variance, variance) + expected**2) / size)
    assert np.all(np.abs(apart.T @ apart / size - expected) <= 5.0 * error + 1e-12)
    assert np.all(np.abs(apart.mean(axis=0)) <= 5.0 * np.sqrt(variance / size) + 1e-12)


def test_joint_density_less_that_of_the_drawn_effects_is_the_collapsed_likelihood(table):
    args = arguments(np.random.default_rng(14), "site and group")
    z, site = table
    effects, density = draw_effects(table, args, 4, np.random.default_rng(15))
    collapsed = _collapsed(*args, statistics(z, site, SITE_GROUP))[0]
    mean, expected = conditional(z, site, args)
    stacked, m, _, _ = joint(z, site, *args)
    row, column = np.nonzero(np.isfinite(z))
    rows_only = joint(z, site, args[0], args[1], 0 * args[1], 0 * args[1])[2]
    for e, log_density in zip(effects, density):
        g, h = e[: 3 * P].reshape(3, P), e[3 * P :].reshape(6, P)
        prior = multivariate_normal(np.zeros(P), args[3]).logpdf(g).sum()
        prior += multivariate_normal(np.zeros(P), args[2]).logpdf(h).sum()
        given = multivariate_normal(m + (g[SITE_GROUP[site]] + h[site])[row, column], rows_only).logpdf(stacked)
        assert log_density == pytest.approx(multivariate_normal(mean, expected).logpdf(e), abs=1e-8)
        assert prior + given - log_density == pytest.approx(collapsed, abs=1e-8)


# -------------------------------------------------------------------------------------------------------------- mixture
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


EDITED = """
import sys
import numpy as np, pytensor
from bayesens.likelihoods.ops import collapsed_loglik
from bayesens.ensemble.sufficient import statistics
rng = np.random.default_rng(0)
data = statistics(rng.normal(size=(6, 2)), np.zeros(6, dtype=int), np.zeros(1, dtype=int))
value = collapsed_loglik(np.zeros(2), np.eye(2), np.eye(2), np.eye(2), data=data)
print(float(pytensor.function([], value, mode="NUMBA")()))
"""


@pytest.mark.slow
def test_an_edit_of_the_kernels_reaches_the_compiled_likelihood(tmp_path):
    """Compiled kernels are kept on disk; those of an older version of any file that they call into must not be used."""
    for name in ("bayesens", "models"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    kernels = tmp_path / "bayesens" / "likelihoods" / "multilevel" / "upward.py"
    text, wrong = kernels.read_text(), "value -= 7.5 * n[c]"
    edited = text.replace("value -= 0.5 * n[c]", wrong)
    assert wrong in edited

    def value():
        command = [sys.executable, "-c", EDITED]
        out = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        return float(out.split()[-1])

    before = value()
    kernels.write_text(edited)
    assert value() < before - 10.0
