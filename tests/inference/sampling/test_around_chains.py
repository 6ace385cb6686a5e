"""Importance weights around chains that mix slowly: what they give, and which chains they do not stand for."""

import warnings

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy.stats import norm

import bayesens as be
from bayesens.inference.convergence import DIVERGING, IMPORTANCE_ESS, PARETO_K
from bayesens.inference.log_density import compile_target
from bayesens.inference.sampling import draws as sampling
from bayesens.inference.sampling.around_chains import _Parts, sample_around_chains
from bayesens.inference.sampling.draws import sample
from bayesens.inference.sampling.optima import Peak, stays

SHARE = 0.8  # of the probability that is in the left lobe
MEANS = np.array([[-2.5, 0.0, 0.0], [2.5, 1.0, 0.0]])
SDS = np.array([[1.0, 0.5, 1.0], [0.5, 1.0, 1.0]])


@pytest.fixture(scope="module")
def lobes():
    """Two normals in three dimensions."""
    with pm.Model() as model:
        x = pm.Flat("x", shape=3)
        each = [
            np.log(w) + pt.sum(-0.5 * ((x - m) / s) ** 2 - np.log(s))
            for w, m, s in zip((SHARE, 1.0 - SHARE), MEANS, SDS, strict=True)
        ]
        pm.Potential("density", pt.logaddexp(each[0], each[1]))
    return compile_target(model)


def halves(draws=4000, seed=1):
    """Draws of which each lobe has half, as of chains that do not go from one to the other."""
    rng = np.random.default_rng(seed)
    which = np.arange(draws) % 2
    return MEANS[which] + SDS[which] * rng.standard_normal((draws, 3))


def around(target, x, seed=1, ess=1000.0):
    return sample_around_chains(target, x, ess=ess, pareto_k=PARETO_K, rng=np.random.default_rng(seed))


def test_the_proposal_is_a_density_that_is_normalised():
    """The integral of a normal density by 2,000 draws whose weights have an sd of .9 at most: off by .1 with a chance of 1e-6."""
    proposal = _Parts(halves(), np.random.default_rng(1))
    x, log_q = proposal.sample(2000)
    log_p = norm.logpdf(x).sum(axis=1)
    log_q = log_q - np.log(np.diag(proposal.root)).sum()  # the constant that it leaves out
    ratio = np.exp(log_p - log_q)
    assert ratio.std() < 5.0
    assert ratio.mean() == pytest.approx(1.0, abs=5.0 * ratio.std() / np.sqrt(2000))


def test_weights_give_each_lobe_its_probability(lobes):
    """With an ESS of 1,000 the share's sd is .013: a correct program is off by .06 with a chance below 1e-5; draws by .3."""
    result = around(lobes, halves())
    assert result.proposal == "chains"
    assert result.pareto_k < PARETO_K
    assert result.ess >= 1000
    weight = np.exp(result.log_weight)
    assert weight @ (result.x[:, 0] < 0.5) == pytest.approx(SHARE, abs=0.06)
    assert np.mean(result.x[:, 0] < 0.5) == pytest.approx(0.5, abs=0.06)  # without weights
    assert np.sqrt(weight @ result.x[:, 2] ** 2) == pytest.approx(1.0, abs=0.12)


def test_the_same_seed_gives_the_same_draws(lobes):
    one, other = around(lobes, halves()), around(lobes, halves())
    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_array_equal(one.log_weight, other.log_weight)
    assert not np.array_equal(one.x, around(lobes, halves(), seed=2).x)


def test_the_proposal_turns_and_stretches_with_the_draws():
    x = halves()
    matrix, shift = np.array([[100.0, 3.0, 0.0], [0.0, 1e-3, 0.0], [2.0, 0.0, 1.0]]), np.array([5.0, -1e-3, 0.0])
    plain = _Parts(x, np.random.default_rng(1))
    moved = _Parts(x @ matrix.T + shift, np.random.default_rng(1))
    assert len(plain.sample(500)[0]) == len(moved.sample(500)[0]) == 500
    z, log_q = plain.sample(2000)
    there, log_q_there = moved.sample(2000)
    # Whitened coordinates differ by a rotation, which k-means does not see but for ties of the start.
    for one, other in ((z @ matrix.T + shift, there), (log_q[:, None], log_q_there[:, None])):
        assert other.mean(axis=0) == pytest.approx(one.mean(axis=0), abs=0.15 * one.std(axis=0).max())


def test_chains_that_stand_still_have_no_proposal(lobes):
    assert around(lobes, np.ones((100, 3))) is None


# ------------------------------------------------------------------------------------------------------------- in a fit
def slow_sample(target, monkeypatch, **options):
    """method="auto" without an approximation around the optimum, on chains that count as slow."""
    monkeypatch.setattr(sampling, "_slow", lambda x: True)
    held = {"method": "auto", "draws": 500, "tune": 300, "chains": 4, "target_accept": 0.9, "starts": 0,
            "rng": np.random.default_rng(1), "no_optimum": "asked for"}  # fmt: skip
    return sample(target, start=target.start, **(held | options))


def normals(size):
    with pm.Model() as model:
        x = pm.Normal("x", 0.0, 1.0, shape=size)
        pm.Potential("loglik", -0.5 * x[0] ** 2)
    return compile_target(model)


def test_slow_chains_are_weighted_and_the_fit_says_so(monkeypatch):
    found = slow_sample(normals(4), monkeypatch)
    assert found.attrs["method"] == "importance"
    assert found.attrs["proposal"] == "chains"
    assert found.attrs["reason"].startswith("asked for; chains of NUTS mix slowly (R-hat 1.0")
    assert found.attrs["importance_ess"] >= IMPORTANCE_ESS
    assert "thinned" not in found.attrs
    assert found.x.shape == (4, 500, 4)
    assert found.x[..., 0].std() == pytest.approx(np.sqrt(0.5), abs=0.06)
    assert found.x[..., 1].std() == pytest.approx(1.0, abs=0.09)
    np.testing.assert_allclose(found.loglik, -0.5 * found.x[..., 0] ** 2)


@pytest.mark.parametrize(
    "why", ["many parameters", "one chain", "asked for", "not at the same places", "diverging", "weights"]
)
def test_chains_that_weights_do_not_stand_for_are_run_longer(monkeypatch, why):
    target, options = normals(40 if why == "many parameters" else 3), {"draws": 100, "tune": 100}
    if why == "one chain":
        options["chains"] = 1
    if why == "asked for":
        options["method"] = "nuts"
    if why == "not at the same places":
        monkeypatch.setattr(sampling, "_rhat", lambda x: 1.06)
    if why == "diverging":
        import bayesens.inference.sampling.optima as optima

        chains = optima.nuts_from

        def diverging(*args, **kwargs):
            x, stats = chains(*args, **kwargs)
            return x, stats | {"diverging": np.arange(stats["diverging"].size).reshape(x.shape[:2]) % 200 == 0}

        monkeypatch.setattr(optima, "nuts_from", diverging)
    if why == "weights":
        monkeypatch.setattr(sampling, "PARETO_K", -1.0)
    found = slow_sample(target, monkeypatch, **options)
    assert found.attrs["method"] == "nuts"
    assert found.attrs["reason"] == "asked for"
    assert ("thinned" in found.attrs) == (why != "asked for")
    assert (np.mean(found.stats["diverging"]) > DIVERGING) == (why == "diverging")


def apart(share=SHARE, away=6.0):
    """Two normals between which no chain goes."""
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)
        each = [np.log(w) - 0.5 * pt.sum((x - m) ** 2) for w, m in ((share, -away), (1.0 - share, away))]
        pm.Potential("density", pt.logaddexp(each[0], each[1]))
    return compile_target(model)


def test_chains_that_stay_at_optima_are_weighted(monkeypatch):
    """Three chains at one and one at the other. With an ESS of 500 the share's sd is .018: off by .09 with a chance of 1e-6."""
    found = slow_sample(apart(), monkeypatch, starts=8)
    assert found.attrs["method"] == "importance"
    assert "within optima), so that a mixture around their draws is weighted" in found.attrs["reason"]
    assert "modes_apart" not in found.attrs
    assert np.mean(found.stats["mode"] == 0) == pytest.approx(SHARE, abs=0.09)
    assert np.mean(found.x[..., 0] < 0.0) == pytest.approx(SHARE, abs=0.09)


def test_chains_at_one_optimum_that_have_not_seen_the_same_of_it_are_run_longer(monkeypatch):
    import bayesens.inference.sampling.optima as optima

    stays = optima.stays
    monkeypatch.setattr(optima, "stays", lambda *args: [x + np.arange(len(x))[:, None, None] for x in stays(*args)])
    with pytest.warns(UserWarning, match="does not go from one to the other"):
        found = slow_sample(apart(), monkeypatch, starts=8)
    assert found.attrs["method"] == "nuts"
    assert found.attrs["thinned"] == 5


def test_stays_are_those_of_chains_that_were_there_for_long():
    peaks = [Peak(np.full(2, place), 0.0, np.eye(2), 0.4) for place in (-6.0, 6.0, 0.0)]
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 100, 2)) + np.array([-6.0, -6.0, 6.0])[:, None, None]
    x[1, :30] += 12.0  # the second chain begins at the second optimum
    x[2, :5] -= 12.0  # and the third was at the first for too short a time
    first, second = stays(peaks, x, np.array([0.5, 0.46, 0.04]))
    np.testing.assert_array_equal(first, [x[0, :70], x[1, 30:]])
    np.testing.assert_array_equal(second, [x[1, :30], x[2, 5:35]])
    (everything,) = stays(peaks, x, np.array([0.0, 0.0, 1.0]))  # no chain was at the third
    np.testing.assert_array_equal(everything, x)


# ------------------------------------------------------------------------------------------------- the posterior of BMA
def members_that_err_alike(n, seed):
    """Members whose errors share a part with heavy tails, so that it is hard to tell which kernel rows came from."""
    rng = np.random.default_rng(seed)
    y, shared, own = rng.normal(size=n), rng.standard_t(4, size=n), rng.normal(size=(n, 4))
    error = np.array([0.4, 0.42, 0.8, 0.41]) * (np.sqrt(0.9) * shared[:, None] + np.sqrt(0.1) * own)
    frame = pd.DataFrame(y[:, None] + error, columns=["m1", "m2", "m3", "m4"]).assign(y=y)
    return be.Ensemble.from_frame(frame, members=["m1", "m2", "m3", "m4"], observation="y")


def fitted(ensemble, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return be.fit(be.BMA(), ensemble, progressbar=False, log_likelihood=False, **options)


@pytest.mark.slow
def test_the_weighted_posterior_is_that_of_chains_that_are_long(monkeypatch):
    """Means within .15 posterior sd, and sds within 12 %.

    With an ESS of 3,000 here and 1,500 there the difference of two means has a standard deviation of .03 sd, and the ratio of
    two sds one of 2.2 % (more where tails are heavy): a correct program fails one of the 20 comparisons with a chance below
    .1 %. Chains of a normal length, which mix slowly, have an ESS of 100 to 200.
    """
    ensemble = members_that_err_alike(1000, 2)
    long = fitted(ensemble, method="nuts", random_seed=2, draws=15_000)
    assert float(long.attrs["ess_min"]) > 1500
    monkeypatch.setattr(sampling, "_slow", lambda x: True)
    auto = fitted(ensemble, random_seed=1, draws=3000)
    assert auto.attrs["method"] == "importance"
    assert float(auto.attrs["importance_ess"]) > 3000
    told = be.summary(auto).facts
    assert told["converged"].startswith("yes: Pareto k 0.")
    assert told["method"].startswith("importance, chosen by auto: Pareto k ")
    for name in ("weight", "sigma", "scale_slope"):
        a, b = (tree["posterior"][name].stack(s=("chain", "draw")) for tree in (auto, long))
        assert float((np.abs(a.mean("s") - b.mean("s")) / b.std("s")).max()) < 0.15, name
        assert float(np.abs(a.std("s") / b.std("s") - 1.0).max()) < 0.12, name
