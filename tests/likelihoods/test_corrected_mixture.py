"""The mixture around corrected members against sums written out, finite differences and a general optimiser."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import norm, t

from bayesens.c_functions import over_draws
from bayesens.likelihoods.corrected.em import corrected_em, corrected_em_starts
from bayesens.likelihoods.corrected.mixture import CorrectedRows, by_parts, corrected_values
from bayesens.likelihoods.ops import CorrectedLogLik

CASES = {
    "plain": (1300, 4, 2, False, False, False), "everything": (1300, 4, 2, True, True, True),
    "no widths": (700, 3, 0, True, False, True), "one member, censored": (600, 1, 1, False, True, False),
}  # fmt: skip


def problem(n, k, p, missing, censored, widened, seed=0):
    rng = np.random.default_rng(seed)
    available = rng.random((n, k)) >= 0.3 * missing
    available[~available.any(axis=1), 0] = True
    residual = rng.normal(size=(n, k)) * rng.uniform(0.5, 2.0, size=k)
    excess = rng.gamma(1.0, 0.2, size=(n, k)) * widened
    x = rng.normal(size=(n, p))
    below = (rng.random(n) < 0.2) & censored
    rows = CorrectedRows(np.where(available, residual, 0.0), np.where(available, excess, 0.0), x, available, below)
    theta = np.concatenate([np.log(rng.dirichlet(np.ones(k))), 0.3 * rng.normal(size=k), 0.3 * rng.normal(size=p)])
    return rows, theta


def loglik(rows, theta, slope=None):
    k, p = rows.residual.shape[1], rows.x.shape[1]
    log_weight = np.where(rows.available, theta[:k] + (0.0 if slope is None else rows.z @ slope), -np.inf)
    sd = np.exp(theta[k : 2 * k] + (rows.x @ theta[2 * k : 2 * k + p])[:, None]) * np.sqrt(1.0 + rows.excess)
    z = rows.residual / sd
    kernel = t(theta[-1]) if len(theta) > 2 * k + p else norm
    term = np.where(rows.censored[:, None], norm.logcdf(z), kernel.logpdf(z) - np.log(sd))
    return np.sum(logsumexp(log_weight + term, axis=1) - logsumexp(log_weight, axis=1))


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient(case):
    check_value_and_gradient(*problem(*CASES[case]))


@pytest.mark.parametrize("nu", [2.3, 7.0, 400.0])
@pytest.mark.parametrize(
    "case", [(1300, 4, 2, False, False, False), (1300, 4, 2, True, False, True), (600, 1, 0, False, False, True)]
)
def test_value_and_gradient_of_t_kernels(case, nu):
    rows, theta = problem(*case)
    check_value_and_gradient(rows, np.r_[theta, nu])


def check_value_and_gradient(rows, theta, slope=None):
    data, index = rows.packed
    student = len(theta) > 2 * rows.residual.shape[1] + rows.x.shape[1]
    slopes = np.zeros(0) if slope is None else slope.ravel()
    whole = np.r_[slopes, theta]
    head = np.r_[float(student), whole][None]
    value, *gradient = over_draws(CorrectedLogLik.address(), head, data, index, 1 + len(whole))[0]

    def by_hand(u):
        return loglik(rows, u[len(slopes) :], None if slope is None else u[: len(slopes)].reshape(slope.shape))

    assert value == pytest.approx(by_hand(whole), abs=1e-9)
    step = 1e-6 * np.maximum(1.0, np.abs(whole) ** 1.5)
    numeric = [(by_hand(whole + h) - by_hand(whole - h)) / (2.0 * h.sum()) for h in np.diag(step)]
    np.testing.assert_allclose(gradient, numeric, atol=2e-5)
    alone = np.empty((1, 1))
    corrected_values(head, data, index, alone)
    assert alone[0, 0] == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("nu", [None, 5.0])
@pytest.mark.parametrize(("q", "places"), [(1, None), (3, None), (3, 1), (2, 7), (1, 400)])
@pytest.mark.parametrize("case", ["plain", "everything", "no widths", "one member, censored"])
def test_value_and_gradient_of_weights_that_follow_the_rows(case, q, places, nu):
    """Every row with covariates of its own, and rows that share those of few or many places."""
    if nu is not None and CASES[case][4]:
        pytest.skip("t kernels have no censored rows")
    rows, theta = problem(*CASES[case])
    rng = np.random.default_rng(1)
    z = rng.normal(size=(places or len(rows.x), q))
    rows = replace(rows, z=z if places is None else z[rng.integers(places, size=len(rows.x))])
    slope = rng.normal(size=(q, rows.residual.shape[1]))
    check_value_and_gradient(rows, theta if nu is None else np.r_[theta, nu], slope)
    some = rows.select(np.arange(0, len(rows.x), 3))
    check_value_and_gradient(some, theta if nu is None else np.r_[theta, nu], 0.0 * slope)


def test_slopes_of_zero_are_weights_of_all_rows():
    rows, theta = problem(*CASES["everything"])
    tilted = replace(rows, z=np.random.default_rng(1).normal(size=(len(rows.x), 2)))
    assert loglik(tilted, theta, np.zeros((2, 4))) == pytest.approx(loglik(rows, theta), rel=1e-12)


def test_parts_add_up_to_the_whole():
    rows, theta = problem(1300, 4, 2, True, False, True)
    for flat in (np.r_[0.0, theta], np.r_[1.0, theta, 5.0]):
        np.testing.assert_allclose(by_parts(flat, rows, 1), by_parts(flat, rows, 7), rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("places", [2, 30, 1000])
def test_parts_that_begin_within_a_place_add_up(places):
    rows, theta = problem(*CASES["everything"])
    rng = np.random.default_rng(2)
    rows = replace(rows, z=rng.normal(size=(places, 3))[rng.integers(places, size=1300)])
    flat = np.r_[0.0, rng.normal(size=12), theta]
    np.testing.assert_allclose(by_parts(flat, rows, 1), by_parts(flat, rows, 11), rtol=1e-11, atol=1e-9)


def test_a_width_that_is_no_number_has_no_likelihood():
    rows, theta = problem(*CASES["plain"])
    data, index = rows.packed
    theta[-1] = 1e6
    out = over_draws(CorrectedLogLik.address(), np.r_[0.0, theta][None], data, index, 1 + len(theta))[0]
    assert out[0] == -np.inf or out[0] < -1e5
    assert np.all(np.isfinite(out[1:]))


def start(k):
    return {"weight": np.full(k, 1 / k), "sigma": np.ones(k), "cluster": np.arange(k)}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("case", ["plain", "everything"])
def test_em_never_lowers_the_likelihood_and_ends_where_a_general_optimiser_does(case, shared):
    rows, _ = problem(*CASES[case])
    path = [
        corrected_em(rows, **start(4), shared=shared, tolerance=0.0, max_iterations=i).loglik for i in (2, 4, 8, 16)
    ]
    assert np.all(np.diff(path) >= -1e-7)
    found = corrected_em(rows, **start(4), shared=shared, tolerance=1e-13)
    assert found.converged

    def negative(u):
        sigma = np.full(4, u[4]) if shared else u[4:8]
        return -loglik(rows, np.concatenate([u[:4], sigma, u[-2:]]))

    best = minimize(
        negative, np.zeros(7 if shared else 10), method="L-BFGS-B", options={"maxfun": 50_000, "ftol": 1e-13}
    )
    assert found.loglik >= -best.fun - 1e-3


def test_exchangeable_members_share_weight_and_sigma():
    rows, _ = problem(*CASES["plain"])
    found = corrected_em(rows, **start(4) | {"cluster": np.array([0, 1, 0, 1])}, shared=False)
    for values in (found.weight, found.sigma):
        assert values[0] == values[2] != values[1] == values[3]


def test_a_kernel_that_collapses_is_refused():
    rows, _ = problem(300, 3, 0, False, False, False)
    residual = rows.residual.copy()
    residual[:100, 1] = 0.0
    exact = CorrectedRows(residual, rows.excess, rows.x, rows.available, rows.censored)
    with pytest.raises(ValueError, match="reproduces observations exactly"):
        corrected_em(exact, **start(3), shared=False)


def test_starts_are_the_same_for_a_seed():
    rows, _ = problem(400, 3, 1, False, False, True)
    one, other = (corrected_em_starts(rows, cluster=np.arange(3), shared=False, starts=4, seed=1) for _ in range(2))
    assert [o.loglik for o in one] == [o.loglik for o in other]
    assert one[0].start == "standard"


def heavy(n, seed=0):
    """Rows around two members whose errors have tails of a t with four degrees of freedom."""
    rng = np.random.default_rng(seed)
    x, errors = rng.normal(size=(n, 1)), rng.standard_t(4.0, size=(n, 1))
    means, second = np.array([0.0, 6.0]), rng.random((n, 1)) < 0.3
    residual = np.where(second, means[1] + 2.0 * errors * np.exp(0.3 * x), errors * np.exp(0.3 * x)) - means
    return CorrectedRows(
        residual, np.zeros_like(residual), x, np.ones_like(residual, dtype=bool), np.zeros(n, dtype=bool)
    )


@pytest.mark.parametrize("shared", [True, False])
def test_em_of_t_kernels_ends_where_a_general_optimiser_does(shared):
    rows = heavy(4000)
    found = corrected_em(rows, **start(2), shared=shared, student=True, tolerance=1e-13)
    assert found.converged
    assert shared or abs(found.nu - 4.0) < 0.5  # one sigma for two is what heavy tails stand in for

    def negative(u):
        sigma = np.full(2, u[2]) if shared else u[2:4]
        return -loglik(rows, np.concatenate([u[:2], sigma, u[-2:-1], [2.0 + np.exp(u[-1])]]))

    best = minimize(
        negative, np.zeros(5 if shared else 6), method="L-BFGS-B", options={"maxfun": 50_000, "ftol": 1e-13}
    )
    assert found.loglik == pytest.approx(-best.fun, abs=1e-3)
    normal = corrected_em(rows, **start(2), shared=shared)
    assert normal.nu is None
    assert normal.loglik < found.loglik - 50.0
