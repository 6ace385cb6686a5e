"""The fused likelihood of levels against multivariate normals and finite differences, and effects drawn given the rows."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.mode import Mode
from scipy.stats import multivariate_normal

from bayesens.ensemble.sufficient import statistics
from bayesens.inference.compiled import lean
from bayesens.likelihoods.multilevel.effects import effect_draws
from bayesens.likelihoods.ops import collapsed_loglik
from collapsed import collapsed as _collapsed
from collapsed import split

ROOT = Path(__file__).parents[2]
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
