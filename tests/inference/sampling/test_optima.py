"""Several optima: found by place and height, weighed as one proposal, and told where chains do not join them."""

import json
import warnings

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy.special import gammaln

import bayesens as be
from bayesens.inference.log_density import compile_target
from bayesens.inference.sampling.laplace import find_modes
from bayesens.inference.sampling.optima import (
    Peak,
    _chains,
    apart,
    find_peaks,
    nearest,
    nuts_from,
    of_standing,
    sample_around,
)

MEANS = np.array([[-4.0, 1.0], [4.0, -1.0]])
SDS = np.array([[1.0, 0.5], [0.6, 1.2]])


def two_normals(share=(0.7, 0.3), means=MEANS, sds=SDS):
    """A mixture of two normals, many standard deviations apart: each optimum has the probability of its part."""
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)
        each = [
            np.log(w) + pt.sum(-0.5 * ((x - m) / s) ** 2 - np.log(s)) for w, m, s in zip(share, means, sds, strict=True)
        ]
        pm.Potential("density", pt.logaddexp(each[0], each[1]))
    return compile_target(model)


def three_normals():
    """Equal parts at the corners of a triangle, seen from its middle."""
    corners = 3.0 * np.array([[0.0, 1.0], [-0.866, -0.5], [0.866, -0.5]])
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)
        pm.Potential("density", pt.logsumexp(pt.stack([-0.5 * pt.sum((x - corner) ** 2) for corner in corners])))
    return compile_target(model)


def log_gammas(share=0.6, shape=2.0, away=6.0):
    """Two parts of log-gamma variables, skewed to either side: no normal proposal follows them."""
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)

        def part(u):
            return pt.sum(shape * u - pt.exp(u) - gammaln(shape))

        pm.Potential("density", pt.logaddexp(np.log(share) + part(x + away), np.log(1.0 - share) + part(away - x)))
    return compile_target(model)


def peaks_of(target, start=(0.0, 0.0), starts=3, seed=1):
    return find_peaks(target, start=np.array(start), starts=starts, rng=np.random.default_rng(seed))


# ------------------------------------------------------------------------------------------------------------- the search
def test_optima_of_one_height_at_two_places_are_two():
    """Mirror images: heights alone cannot tell them apart."""
    target = two_normals(share=(0.5, 0.5), means=[[-3.0, 0.0], [3.0, 0.0]], sds=[[1.0, 1.0], [1.0, 1.0]])
    for seed in range(5):
        modes = find_modes(target, start=np.array([0.05, 0.0]), starts=3, rng=np.random.default_rng(seed))
        assert len(modes) == 2
        assert modes[0].logp == pytest.approx(modes[1].logp, abs=1e-6)
        assert sorted(round(float(mode.x[0]), 3) for mode in modes) == [-3.0, 3.0]


def test_one_optimum_found_from_many_starts_is_one():
    target = two_normals(means=[[0.0, 0.0], [0.0, 0.0]], sds=[[1.0, 30.0], [1.0, 30.0]])
    modes = find_modes(target, start=np.array([1.0, 1.0]), starts=8, rng=np.random.default_rng(1))
    assert len(modes) == 1
    assert len(peaks_of(target, start=(1.0, 1.0))) == 1


def test_a_saddle_at_the_start_makes_the_search_go_on():
    """From a symmetric start the climb ends on the saddle, which is no optimum, and all jittered starts may go one way."""
    target = two_normals(share=(0.5, 0.5), means=[[-3.0, 0.0], [3.0, 0.0]], sds=[[1.0, 1.0], [1.0, 1.0]])
    for seed in range(5):
        assert [round(peak.evidence, 3) for peak in peaks_of(target, seed=seed)] == [0.5, 0.5]


def test_where_there_are_several_the_search_goes_on_until_it_has_all():
    """16 starts miss one of three with a chance of 3 (2/3)^15, below 1 %; the four asked for with one of a half or so."""
    found = [len(peaks_of(three_normals(), seed=seed)) for seed in range(6)]
    assert found == [3] * 6


def test_evidence_is_the_probability_of_each_part():
    peaks = peaks_of(two_normals())
    assert [peak.evidence for peak in peaks] == pytest.approx([0.7, 0.3], abs=1e-3)
    np.testing.assert_allclose([peak.x for peak in peaks], MEANS, atol=1e-3)
    # The second part is the broader one: by heights alone the first would have .77.
    assert np.exp(peaks[0].logp) / sum(np.exp(p.logp) for p in peaks) == pytest.approx(
        0.7 / 0.5 / (1.4 + 0.3 / 0.72), abs=1e-3
    )


def test_a_low_and_narrow_optimum_is_not_of_standing():
    assert len(of_standing(peaks_of(two_normals(share=(1.0 - 1e-6, 1e-6))))) == 1
    assert len(of_standing(peaks_of(two_normals(share=(0.99, 0.01))))) == 2


# ---------------------------------------------------------------------------------------------------------- the proposal
def sampled(target, peaks, seed=2, ess=1000.0):
    return sample_around(target, peaks, ess=ess, pareto_k=0.7, rng=np.random.default_rng(seed))


@pytest.mark.parametrize(("guess", "least"), [((0.7, 0.3), 1900.0), ((0.2, 0.8), 800.0)])
def test_weights_give_each_part_its_probability_whatever_the_evidence_was(guess, least):
    """2,000 draws; with shares that are right weights are constant, and wrong ones are put right: the sd of a share is .011."""
    target = two_normals()
    peaks = [Peak(p.x, p.logp, p.root, e) for p, e in zip(peaks_of(target), guess, strict=True)]
    found = sampled(target, peaks, ess=least)
    weight = np.exp(found.log_weight)
    assert found.ess > least
    assert found.pareto_k < 0.7
    share = [weight[found.x[:, 0] < 0.0].sum(), weight[found.x[:, 0] > 0.0].sum()]
    assert share == pytest.approx([0.7, 0.3], abs=0.05)
    np.testing.assert_allclose(weight @ found.x, [0.7, 0.3] @ MEANS, atol=0.4)


def test_skewed_parts_are_followed_and_have_their_probability():
    """Normals fall short of log-gamma parts; the mixture of skewed ones is nearly exact, so a share is off by .01 at most."""
    target = log_gammas()
    peaks = peaks_of(target)
    assert len(peaks) == 2
    found = sampled(target, peaks, ess=1950.0)
    assert found.proposal == "skewed"
    assert found.ess > 1900.0
    share = np.exp(found.log_weight)[found.x.sum(axis=1) < 0.0].sum()
    assert share == pytest.approx(0.6, abs=0.05)


# ------------------------------------------------------------------------------------------------------------- the chains
def test_chains_are_shared_out_by_the_evidence():
    def shared(*evidence, chains=4):
        return _chains([Peak(np.zeros(1), 0.0, np.eye(1), e) for e in evidence], chains).tolist()

    assert shared(0.5, 0.5) == [2, 2]
    assert shared(0.75, 0.25) == [3, 1]
    assert shared(0.95, 0.05) == [4, 0]
    assert shared(0.4, 0.3, 0.3) == [2, 1, 1]
    assert shared(0.6, 0.4, chains=1) == [1, 0]


def test_chains_begin_at_their_peaks_and_stay_apart():
    target = two_normals(share=(0.5, 0.5))
    peaks = peaks_of(target)
    x, stats = nuts_from(target, peaks, chains=4, rng=np.random.default_rng(1), draws=100, tune=100, target_accept=0.9,
                         progressbar=False)  # fmt: skip
    assert x.shape == (4, 100, 2)
    assert stats["diverging"].shape == (4, 100)
    where = nearest(peaks, x)
    assert [np.unique(chain).tolist() for chain in where] == [[0], [0], [1], [1]]
    assert apart(peaks, where) == [0, 1]


def test_apart_names_what_chains_do_not_reach():
    peaks = [Peak(np.zeros(1), 0.0, np.eye(1), e) for e in (0.7, 0.297, 0.003)]
    both = np.array([[0, 1, 0, 0, 1, 0], [1, 0, 0, 1, 0, 0]])
    assert apart(peaks, both) == []  # the third has too little to matter
    assert apart(peaks, np.array([[0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]])) == [1]
    assert apart(peaks, np.zeros((1, 6), dtype=int)) == [1]  # one chain, which was never there


# ------------------------------------------------------------------------------------------------------------- whole fits
def exchangeable(n=150, jitter=0.0):
    """Two members that change places in the second half of the rows: E[weight] is 1/2, and no optimum has that."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=n)
    shared = 0.3 * rng.standard_t(2, size=n)
    a, b = truth + shared + 0.1 * rng.normal(size=n), truth + shared + 0.1 * rng.normal(size=n)
    frame = pd.DataFrame({"a": np.r_[a, b], "b": np.r_[b, a], "y": np.r_[truth, truth]})
    frame["a"] += jitter * rng.normal(size=2 * n)
    return be.Ensemble.from_frame(frame, members=["a", "b"], observation="y")


MODEL = be.BMA(bias="none")
MIRRORED = be.Ensemble.from_frame(pd.DataFrame({"a": [0.0, 2.0], "b": [2.0, 0.0]}), members=["a", "b"])


def test_exchangeable_members_have_equal_weights_and_mirrored_rows_mirrored_predictions():
    """The importance ESS is 1,000 at least and the weight's sd .37: a correct program is off by .06 with a chance below 1e-6."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = be.fit(MODEL, exchangeable(), random_seed=1, progressbar=False)
    assert tree.attrs["method"] == "laplace"
    assert tree.attrs["importance_ess"] >= 1000.0
    assert tree["posterior"]["weight"].mean(("chain", "draw")).values == pytest.approx([0.5, 0.5], abs=0.06)
    assert be.predict(tree, MIRRORED)["mean"].values == pytest.approx([1.0, 1.0], abs=0.12)
    optima = json.loads(tree.attrs["modes"])
    assert [one["evidence"] for one in optima] == pytest.approx([0.5, 0.5], abs=0.01)
    assert optima[0]["weight"] == pytest.approx(optima[1]["weight"][::-1], abs=1e-3)
    assert max(optima[0]["weight"]) > 0.8
    mode = tree["sample_stats"]["mode"]
    for i, one in enumerate(optima):
        assert one["share"] == pytest.approx(0.5, abs=0.06)
        assert float((mode == i).mean()) == one["share"]
        assert float(tree["posterior"]["weight"].where(mode == i).mean(("chain", "draw"))[0]) == pytest.approx(
            one["weight"][0], abs=0.05)  # fmt: skip


def test_chains_that_do_not_join_two_optima_are_told_of_once():
    with pytest.warns(UserWarning, match="has not converged") as caught:
        tree = be.fit(
            MODEL, exchangeable(jitter=0.003), method="nuts", draws=200, tune=200, random_seed=1, progressbar=False
        )
    assert len(caught) == 1
    assert "2 optima of standing, and the sampler does not go from one to the other" in str(caught[0].message)
    assert "shares of the draws 0.50, 0.50, which are those of the chains and no result" in str(caught[0].message)
    assert json.loads(tree.attrs["modes_apart"]) == [0, 1]
    assert be.predict(tree, MIRRORED)["mean"].values == pytest.approx([1.0, 1.0], abs=0.15)  # two chains at each
    told = be.summary(tree).facts
    assert (
        told["optima"]
        == "2 of standing; chains do NOT go from one to the other: the draws give each the share of its chains"
    )
    assert told["converged"].startswith("NO")
    table = be.summary(tree).tables["Optima of the posterior"]
    assert table["share of the draws"].tolist() == ["0.500", "0.500"]
    assert table["weight a"].astype(float).tolist() == pytest.approx([0.138, 0.862], abs=0.03)


def test_a_fit_with_one_optimum_speaks_of_none():
    rng = np.random.default_rng(2)
    y = rng.normal(size=200)
    frame = pd.DataFrame({"a": y + 0.3 * rng.normal(size=200), "b": y + 0.9 * rng.normal(size=200), "y": y})
    tree = be.fit(
        MODEL, be.Ensemble.from_frame(frame, members=["a", "b"], observation="y"), random_seed=1, progressbar=False
    )
    assert json.loads(tree.attrs["modes"])[0]["evidence"] == pytest.approx(1.0, abs=1e-3)
    assert "mode" not in tree["sample_stats"]
    assert "optima" not in be.summary(tree).facts
    assert "Optima of the posterior" not in be.summary(tree).tables
