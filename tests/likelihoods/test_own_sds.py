"""How far members' own standard deviations are believed: the share, its scale and its covariates."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats

import bayesens as be
from bayesens.likelihoods.spread import own_sds
from bayesens.likelihoods.spread.own_sds import OwnSds, learnt, own_squares, share_of


def errors(n, seed, *, share):
    """Errors of which a share of the variance follows a log-normal standard deviation, and that relative to its mean square."""
    rng = np.random.default_rng(seed)
    ratio = np.exp(1.2 * rng.normal(size=n))
    ratio /= ratio.mean()
    return np.sqrt(1.0 - share + share * ratio) * rng.normal(size=n), ratio


@pytest.mark.parametrize("n", [3, 20, 60])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_is_the_posterior_mean_by_numerical_integration(n, share):
    """A normal of unknown variance, p(tau^2) ~ 1 / tau^2 integrated numerically, too."""
    residual, ratio = errors(n, n, share=share)
    excess = np.random.default_rng(1).uniform(0.0, 0.3, n)

    def marginal(a):
        h = 1.0 - a + a * ratio + excess
        size = np.log(np.mean(residual**2 / h))

        def of_log_tau2(t):
            return np.exp(stats.norm.logpdf(residual, scale=np.exp(0.5 * t) * np.sqrt(h)).sum() - top)

        return integrate.quad(of_log_tau2, size - 12.0, size + 12.0, points=[size], limit=200)[0]

    top = 0.0
    top = np.log(max(marginal(a) for a in (0.05, 0.5, 0.95)))

    def moment(power):  # a = u^2 takes the prior's pole away: p(u) = 1
        return integrate.quad(lambda u: marginal(u**2) * u ** (2 * power), 0.0, 1.0, epsrel=1e-5)[0]

    assert share_of(residual, ratio, excess) == pytest.approx(moment(1) / moment(0), abs=4e-3)


def test_shares_are_found_and_units_do_not_matter():
    for share in (0.0, 0.3, 0.7, 1.0):
        residual, ratio = errors(20_000, 2, share=share)
        none = np.zeros(len(ratio))
        assert share_of(residual, ratio, none) == pytest.approx(share, abs=0.05)
        assert share_of(1e3 * residual, ratio, none) == pytest.approx(share_of(residual, ratio, none), abs=1e-9)


def of_table(residual, squares, x, names, cluster=None):
    k = residual.shape[1]
    return learnt(squares, residual, np.zeros_like(residual), np.ones(residual.shape, dtype=bool),
                  np.arange(k) if cluster is None else np.array(cluster), ["a", "b", "c"][:k], names, x)  # fmt: skip


def test_what_widths_follow_already_counts_once():
    """Errors and the member's word grow with the value, and the word says nothing more, or what it says more is right."""
    rng = np.random.default_rng(3)
    n, x = 8000, rng.normal(size=(8000, 1))
    own, noise = np.exp(0.6 * rng.normal(size=n)), rng.normal(size=n)
    value = np.exp(0.5 * x[:, 0])
    empty = own_of(value * noise, value * own, x)
    told = own_of(value * own * noise, value * own, x)
    assert empty.share[0] < 0.03
    assert told.share[0] > 0.9
    assert_allclose([empty.slope[0, 0], told.slope[0, 0]], 0.5, atol=0.1)
    h = told.at((value * own)[:, None] ** 2, x)
    assert_allclose(h.mean(), 1.0, atol=0.02)
    assert np.corrcoef(np.log(h[:, 0]), np.log(own))[0, 1] > 0.98


def own_of(residual, sd, x):
    return of_table(residual[:, None], np.square(sd)[:, None], x, ("mean",))


def test_the_members_spread_is_not_taken_away():
    """An error of the member makes the spread wide, so that taking it away would take the error."""
    residual, ratio = errors(5000, 4, share=1.0)
    wide = np.log(np.abs(residual) + 0.1)
    x = ((wide - wide.mean()) / wide.std())[:, None]
    assert of_table(residual[:, None], ratio[:, None], x, ("spread",)).share[0] > 0.9
    assert of_table(residual[:, None], ratio[:, None], x, ("elevation",)).share[0] < 0.5


def test_members_without_and_words_that_never_change_count_for_nothing():
    residual, ratio = errors(200, 5, share=1.0)
    both = np.column_stack([residual, residual, residual])
    squares = np.column_stack([ratio, np.full(200, np.nan), np.full(200, 0.3)])
    found = of_table(both, squares, np.zeros((200, 0)), ())
    assert found.share[0] > 0.5
    assert found.share[1:].tolist() == [0.0, 0.0]
    h = found.at(np.column_stack([ratio, ratio, 100.0 * ratio]), np.zeros((200, 0)))
    assert_allclose(h[:, 1:], 1.0)
    assert_allclose(found.at(np.full((2, 3), np.nan), np.zeros((2, 0))), 1.0)
    assert np.array_equal(OwnSds.from_dataset(found.to_dataset()).share, found.share)


def test_exchangeable_members_share_what_is_learnt():
    residual, ratio = errors(400, 6, share=0.6)
    both, squares = residual.reshape(200, 2), ratio.reshape(200, 2)
    found = of_table(both, squares, np.zeros((200, 0)), (), cluster=[0, 0])
    assert found.share[0] == found.share[1] == pytest.approx(share_of(residual, ratio / ratio.mean(), np.zeros(400)))
    squares[:, 1] = np.nan
    with pytest.raises(
        ValueError, match="'a' and 'b' are exchangeable, and 'b' has no standard deviation of its own: name one"
    ):
        of_table(both, squares, np.zeros((200, 0)), (), cluster=[0, 0])


@pytest.mark.parametrize("name", ["identity", "sqrt", "log"])
def test_scales_have_what_the_delta_method_gives_a_small_one(name):
    frame = pd.DataFrame({"a": [0.5, 1.0, 4.0], "b": [1.0, 2.0, 3.0], "sd": [1e-6, 2e-6, 1e-6]})
    ensemble = be.Ensemble.from_frame(frame, members=["a", "b"], spread={"a": "sd"})
    found = own_squares((("a", "sd"),), name, ensemble, np.arange(3))
    derivative = {"identity": np.ones(3), "sqrt": 0.5 / np.sqrt(frame["a"]), "log": 1.0 / frame["a"]}[name]
    assert_allclose(np.sqrt(found[:, 0]), frame["sd"] * derivative, rtol=1e-4)
    assert np.isnan(found[:, 1]).all()


def test_a_root_of_zero_has_a_finite_one():
    frame = pd.DataFrame({"a": [0.0, 1.0], "sd": [4.0, 0.0]})
    ensemble = be.Ensemble.from_frame(frame, members=["a"], spread={"a": "sd"})
    assert own_squares((("a", "sd"),), "sqrt", ensemble, np.arange(2))[:, 0].tolist() == [4.0, 0.0]


def test_a_share_without_its_prior_would_be_seen(monkeypatch):
    """The broken twin: the uniform prior costs .7 % of the CRPS where 60 rows of one member tell nothing, twice this one."""
    monkeypatch.setattr(own_sds, "GRID", np.sqrt(own_sds.GRID))
    with pytest.raises(AssertionError):
        test_the_share_is_the_posterior_mean_by_numerical_integration(20, 0.0)
