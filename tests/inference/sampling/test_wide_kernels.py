"""The search for optima of a mixture: some rows are far from all members, and each member's kernel may take them."""

import json
import warnings

import numpy as np
import pytest
from gross_errors import WEIGHTS, density_of, gross_errors
from numpy.testing import assert_allclose

import bayesens as be
from bayesens import BMA
from bayesens.inference.sampling.laplace import find_modes, starts_of
from bayesens.likelihoods.corrected.em import corrected_em
from bayesens.likelihoods.corrected.starts import wide_kernels
from bayesens.likelihoods.priors import Prior


def search(target, starts, seed, others=None):
    """The highest log density that a search comes to."""
    rng = np.random.default_rng(seed)
    return find_modes(target, start=target.start, starts=starts, rng=rng, others=others)[0].logp


@pytest.mark.parametrize("name", WEIGHTS)
def test_no_start_at_random_comes_higher(name):
    """Three starts with one wide kernel against 24 at random, of which one in three or four finds the highest optimum."""
    missed = 0
    for seed in range(2):
        model, target = density_of(WEIGHTS[name], gross_errors(seed))
        best = search(target, 3, 0, starts_of(model, target, 3)[1])
        assert best > search(target, 24, 1) - 0.1
        missed += sum(search(target, 3, s) < best - 5.0 for s in range(5))
    assert missed >= 1  # of 10: the search that this one takes the place of


@pytest.mark.parametrize("members", ["AB", "ABCDEFGH"])
def test_three_wide_kernels_are_enough_of_two_members_and_of_eight(members):
    for seed in range(2):
        model, target = density_of(WEIGHTS["weights of all rows"], gross_errors(seed, 0.03, members))
        starts, others = starts_of(model, target, 3)
        assert len(others) == len(members)
        assert search(target, starts, 0, others) > search(target, 20, 1) - 1.0


def test_fits_of_all_seeds_are_of_one_optimum():
    rows = gross_errors(1)
    fits = [be.fit(BMA(site=False, group=False), rows, random_seed=s, progressbar=False) for s in range(5)]
    at = np.array([json.loads(fit.attrs["optimum"])["sigma"] for fit in fits])
    assert_allclose(at, np.broadcast_to(at[0], at.shape), atol=1e-3)
    assert np.ptp(at[0]) > 1.0  # one kernel is far wider than the others


def test_em_finds_the_same_optimum_and_says_so():
    rows = gross_errors(1)
    with pytest.warns(UserWarning, match="EM found 3 optima"):
        fit = be.fit(BMA(site=False, group=False), rows, method="em", progressbar=False)
    found = json.loads(fit.attrs["optima"])
    assert [one["start"] for one in found] == ["standard", "one wide kernel 1", "one wide kernel 3"]
    model = BMA(site=False, group=False)
    data = model.prepare(rows)
    rng, best = np.random.default_rng(0), -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(40):
            sigma = 0.5 * np.exp(0.7 * rng.normal(size=4))
            best = max(best, corrected_em(data.mixture, weight=rng.dirichlet(np.ones(4)), sigma=sigma, cluster=np.arange(4),
                                          shared=False, penalty=data.model._penalty(data.members)).loglik)  # fmt: skip
    assert max(one["loglik"] for one in found) > best - 0.1


@pytest.mark.parametrize(
    ("options", "variable", "count"),
    [
        ({}, "sigma", 4), ({"sigma": "shared"}, None, 0), ({"sigma_floor": 0.1}, "sigma_free", 4),
        ({"exchangeable": (("a", "b"),)}, "sigma_exchangeable", 3),
        ({"sigma_spread": Prior("HalfNormal", sigma=0.25)}, "sigma_unit", 4),
        ({"correction": "joint"}, "sigma", 4), ({"kernel": "student_t"}, None, 0),
    ],
)  # fmt: skip
def test_every_kernel_of_its_own_is_the_wide_one_once(options, variable, count):
    model, target = density_of(BMA(site=False, group=False, **options), gross_errors(0))
    starts, points = starts_of(model, target, 3)
    assert starts == (7 if options == {"correction": "joint"} else 3)
    assert points.shape == (count, len(target.start))
    assert np.all(np.diff(target.logp(points)) <= 0.0) if count else True
    wider = np.array([target.named(x)[variable] for x in points]) if count else np.zeros((0, 0))
    moved = wider - np.array(target.named(target.start)[variable]) if count else wider
    assert sorted(np.flatnonzero(moved.ravel() > 0.5) % max(count, 1)) == list(range(count))
    assert np.count_nonzero(moved) == count
    assert wide_kernels({"mu": [0.0]}) == []


def test_a_warm_fit_begins_where_it_is_told():
    rows, model = gross_errors(1), BMA(site=False, group=False)
    cold = be.fit(model, rows, random_seed=1, progressbar=False)
    warm = be.fit(model, rows, random_seed=1, progressbar=False, warm=cold)
    assert_allclose(json.loads(warm.attrs["optimum"])["sigma"], json.loads(cold.attrs["optimum"])["sigma"], atol=1e-3)
