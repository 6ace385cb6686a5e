"""Pareto smoothed importance sampling against ArviZ's, edge cases of the smoothing, and the search in it."""

import numpy as np
import pytest
from arviz_stats.base import array_stats
from scipy.special import logsumexp
from scipy.stats import genpareto

from bayesens.inference.sampling.psis import _pareto, _select, leave_one_out, tail_length


def left_out(loglik, tail):
    out = np.empty((len(loglik), 3))
    leave_one_out(np.ascontiguousarray(loglik), tail, out)
    return out.T


@pytest.mark.parametrize("r_eff", [1.0, 0.3, 1.7])
@pytest.mark.parametrize("draws", [30, 100, 1000])
def test_smoothing_is_that_of_arviz(draws, r_eff):
    """Weights of bounded, light, heavy and very heavy tails, and log densities of any size and order."""
    rng = np.random.default_rng(draws)
    tails = [rng.uniform(size=(20, draws)), rng.normal(size=(20, draws)), 1e-3 * rng.normal(size=(20, draws)),
             5.0 * rng.standard_t(3, size=(20, draws)), 20.0 * rng.standard_t(3, size=(20, draws))]  # fmt: skip
    loglik = np.sort(np.concatenate(tails)) - rng.choice([0.0, 1000.0], size=(100, 1))
    loglik[::2] = rng.permuted(loglik[::2], axis=1)
    elpd, k, lpd = left_out(loglik, tail_length(draws, r_eff))
    with np.errstate(all="ignore"):
        wanted, wanted_k, wanted_p = array_stats.loo(loglik[:, None, :], r_eff=r_eff)
    np.testing.assert_allclose(k, wanted_k, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(elpd, wanted, rtol=1e-13, atol=1e-10)
    np.testing.assert_allclose(lpd - elpd, wanted_p, rtol=1e-10, atol=1e-10)
    assert np.median(wanted_k[60:]) > 0.7  # so the heavy ones are heavy


def test_tied_draws_are_those_of_arviz():
    """Draws that repeat each other: in the tail, across its edge, and so many that it has no Pareto form (k is NaN)."""
    rng = np.random.default_rng(1)
    tail = tail_length(400, 1.0)
    few, many = np.repeat(rng.normal(size=(30, 200)), 2, axis=1), np.repeat(rng.normal(size=(30, 10)), 40, axis=1)
    loglik = np.concatenate([few, many])
    elpd, k, _ = left_out(loglik, tail)
    wanted, wanted_k, _ = array_stats.loo(loglik[:, None, :])
    np.testing.assert_allclose(elpd, wanted, atol=1e-10)
    np.testing.assert_allclose(k, wanted_k, atol=1e-10)
    assert np.isfinite(k[:30]).all()
    assert np.isnan(k).sum() > 10


def test_smoothing_where_arviz_has_no_answer():
    """Equal weights, a tail of equal weights, draws of density zero, and no value."""
    rng = np.random.default_rng(2)
    loglik = np.tile(rng.normal(size=100), (5, 1))
    loglik[0] = -3.25
    loglik[1] = np.where(np.arange(100) < 50, -2.0, loglik[1] ** 2)
    loglik[2, 17] = -np.inf
    loglik[3] = -np.inf
    loglik[4, 3] = np.nan
    elpd, k, lpd = left_out(loglik, tail_length(100, 1.0))
    assert (elpd[0], k[0], lpd[0]) == (-3.25, -np.inf, -3.25)
    # Nothing to smooth: the harmonic mean of the densities.
    assert (elpd[1], k[1]) == (pytest.approx(-logsumexp(-loglik[1], b=0.01), abs=1e-12), np.inf)
    assert (elpd[2], k[2], lpd[2]) == (-np.inf, np.inf, pytest.approx(logsumexp(loglik[2], b=0.01), abs=1e-12))
    assert elpd[3] == lpd[3] == -np.inf
    assert np.isnan([elpd[4], k[4], lpd[4]]).all()


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.8])
def test_fit_of_a_pareto_tail_finds_its_shape(k):
    """20,000 exact quantiles: the grid and the prior move the shape by less than .02."""
    x = genpareto.ppf((np.arange(20_000) + 0.5) / 20_000, k, scale=2.0)
    assert _pareto(x) == pytest.approx((k, 2.0), abs=0.02)


def test_selection_parts_the_values():
    rng = np.random.default_rng(3)
    for size in (1, 2, 3, 10, 101):
        for _ in range(30):
            a = rng.integers(0, rng.integers(1, 20), size).astype(float)
            k = int(rng.integers(size))
            b = a.copy()
            _select(b, k)
            assert b[k] == np.sort(a)[k]
            assert (b[:k] <= b[k]).all()
            assert (b[k:] >= b[k]).all()
            np.testing.assert_array_equal(np.sort(b), np.sort(a))
