"""Simulation-based calibration: the committed long run, a small run, twins that must fail, and the band's own tests."""

import importlib.util
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from arviz_stats.ecdf_utils import simulate_confidence_bands
from scipy import integrate, stats

from bayesens.likelihoods.corrected.correction import Correction

FILE = Path(__file__).parent / "sbc.py"
RESULT = FILE.with_name("sbc.json")


@pytest.fixture(scope="module")
def sbc():
    spec = importlib.util.spec_from_file_location("sbc", FILE)
    module = sys.modules["sbc"] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# -------------------------------------------------------------------------------------------------------- the band
def test_p_value_is_the_share_of_all_tables_of_ranks(sbc, monkeypatch):
    """Three ranks of five values: all 125 tables, each as likely as the next."""
    monkeypatch.setattr(sbc, "RANKS", 5)
    sbc._tails.cache_clear()
    try:
        smallest = {}
        for ranks in itertools.product(range(5), repeat=3):
            below = [sum(r < i for r in ranks) for i in range(1, 5)]
            smallest[ranks] = min(
                min(stats.binom.cdf(b, 3, i / 5), stats.binom.sf(b - 1, 3, i / 5)) for i, b in enumerate(below, 1)
            )
        values = np.array(list(smallest.values()))
        for ranks, own in smallest.items():
            assert sbc.p_value(np.array(ranks)) == pytest.approx(np.mean(values <= own * (1 + 1e-9)), abs=1e-12)
    finally:
        sbc._tails.cache_clear()


def test_band_is_that_of_arviz(sbc):
    """ArviZ simulates the pointwise level of a 95 % band: 20,000 tables give it to about 2 % of what it cuts off."""
    pointwise = simulate_confidence_bands(200, 1, np.arange(1, 100) / 100, 0.95, 20_000, np.random.default_rng(0))
    lower, upper, tail = sbc.band(200)
    assert 2 * tail == pytest.approx(1 - pointwise, rel=0.1)
    middle = stats.binom.ppf([tail, 1 - tail], 200, 0.5)
    assert [lower[49], upper[49]] == pytest.approx(middle, abs=1)


@pytest.mark.parametrize("n", [20, 200])
def test_band_covers_uniform_ranks_and_agrees_with_the_p_value(sbc, n):
    """Of 2,000 tables 95 % lie inside, give or take .5 %: more than 97.2 or less than 93 % has a chance below .01 %."""
    lower, upper, _ = sbc.band(n)
    rng, inside = np.random.default_rng(1), []
    for i in range(2000):
        ranks = rng.integers(0, 100, n)
        below = np.searchsorted(np.sort(ranks), np.arange(1, 100))
        inside.append(bool(np.all((lower <= below) & (below <= upper))))
        if i < 50:
            assert inside[-1] == (sbc.p_value(ranks) > 0.05)
    assert 0.93 <= np.mean(inside) <= 0.972


def test_ranks_off_by_their_mean_or_their_spread_fail(sbc):
    """200 ranks of a posterior twice too wide, and of one shifted by half its sd."""
    truth = stats.norm.ppf((np.arange(200) + 0.5) / 200)
    for wrong in (truth / 2, truth + 0.5):
        assert sbc.p_value((100 * stats.norm.cdf(wrong)).astype(int)) < 1e-4
    assert sbc.p_value((100 * stats.norm.cdf(truth)).astype(int)) > 0.99


# ------------------------------------------------------------------------------------- the likelihoods of the simulations
def test_likelihoods_are_those_of_the_tables(sbc):
    """Average log density under the truth minus its expectation, by integration: the table comes from the likelihood."""
    rng = np.random.default_rng(3)
    truth = sbc.joint_truth(rng)
    frame = sbc.mixture_table(truth, 0, rng).iloc[:1]
    one = {name: value[None] for name, value in truth.items()}
    total, _ = integrate.quad(lambda y: np.exp(sbc.mixture_loglik(one, frame.assign(y=y))[0]), -15, 15, points=[0.0])
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["correction", "mixture", "joint", "hbm", "hbm_group"])
def test_truth_is_the_best_parameter_for_its_tables(sbc, name):
    """The gradient of the log likelihood at the truth has mean zero over tables, in every direction that is tried.

    400 tables; each mean is within 5 of its standard errors but for a chance below 1e-5 in all.
    """
    rng = np.random.default_rng(5)
    kind = sbc.KINDS[name]
    truth = kind.truth(rng)
    names = [n for n in truth if not n.endswith("_corr") and n not in ("weight", "sigma_mean") and "_site" not in n
             and "_group" not in n]  # fmt: skip
    gradient = []
    for _ in range(400):
        frame = kind.table(truth, 0, rng)
        step = 1e-4
        points = [truth] + [truth | {n: truth[n] + s * step} for n in names for s in (1, -1)]
        drawn = {n: np.stack([point[n] for point in points]) for n in truth}
        value = kind.loglik(drawn, frame)[1:].reshape(-1, 2)
        gradient.append((value[:, 0] - value[:, 1]) / (2 * step))
    gradient = np.array(gradient)
    z = gradient.mean(axis=0) / (gradient.std(axis=0) / np.sqrt(400))
    assert np.all(np.abs(z) < 5), dict(zip(names, z))


# ---------------------------------------------------------------------------------------------------- the simulations
def test_work_file_is_whole_and_taken_up_again(sbc, tmp_path, monkeypatch):
    made = []

    def simulate(name, seed, wrong):
        if seed == 2 and len(made) == 2:
            raise KeyboardInterrupt
        made.append(seed)
        return {"kind": name, "wrong": wrong, "seed": seed}

    monkeypatch.setattr(sbc, "simulate", simulate)
    todo = [("hbm", False, seed) for seed in range(4)]
    with pytest.raises(KeyboardInterrupt):
        sbc.run(todo, tmp_path / "work")
    assert len((tmp_path / "work").read_text().splitlines()) == 2
    made.append(None)
    assert [r["seed"] for r in sbc.run(todo, tmp_path / "work")] == [0, 1, 2, 3]
    assert made == [0, 1, None, 2, 3]
    monkeypatch.setattr(sbc, "code_digest", lambda: "other code")
    sbc.run(todo[:1], tmp_path / "work")
    assert made == [0, 1, None, 2, 3, 0]


@pytest.mark.skipif(not RESULT.exists(), reason="`make calibration` has not written its result")
def test_long_run_is_calibrated_and_its_twins_are_not(sbc):
    """1,000 simulations of the correction and of the mixture, and 200 of each other kind, nominal 95 % bands.

    A correct program fails with a chance below .5 %: see sbc.py.
    """
    result = json.loads(RESULT.read_text())
    p = {name: sbc.p_values(own["ranks"]) for name, own in result["model"].items()}
    assert list(p) == list(sbc.KINDS)
    for name, own in result["model"].items():
        assert own["simulations"] >= sbc.KINDS[name].simulations
        # Their draws stay a little correlated after thinning; one of 100 shifts a rank's distribution by less than .01.
        assert own["ess_below_99"] <= 0.01 * own["simulations"]
        assert own["p"] == pytest.approx(p[name], rel=0.01)
    assert sbc.passes(*p.values())
    assert not any(sbc.passes(sbc.p_values(own["ranks"])) for own in result["twin"].values())


def one_pair_of_ratios(self, size, rng, draws=Correction.draws):
    """A twin that takes the ratios of variances as known: their likeliest pair."""
    likeliest = np.where(np.arange(len(self.weight)) == np.argmax(self.weight), 1.0, 0.0)
    return draws(replace(self, weight=likeliest), size, rng)


@pytest.mark.slow
def test_small_run_of_a_correction_is_calibrated_and_its_twin_is_not(sbc, monkeypatch):
    """100 simulations, nominal 95 % bands; a correct program fails with a chance below .5 %."""
    todo = [("correction", False, seed) for seed in range(2000, 2100)]
    assert sbc.passes(sbc.p_values(sbc.ranks_of(sbc.run(todo), "correction")))
    monkeypatch.setattr(Correction, "draws", one_pair_of_ratios)
    assert not sbc.passes(sbc.p_values(sbc.ranks_of(sbc.run(todo), "correction")))


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute alone on two cores, and several on a busy machine
@pytest.mark.parametrize("name", ["mixture", "joint", "hbm"])
def test_small_run_is_calibrated_and_its_twin_is_not(sbc, name):
    """20 simulations, nominal 95 % bands; a correct program fails with a chance below .5 %.

    The twin's prior of widths, or of biases, is a fifth as wide as the one that the truths come from.
    """
    records = sbc.run([(name, False, seed) for seed in range(1000, 1020)])
    assert sbc.passes(sbc.p_values(sbc.ranks_of(records, name)))
    twin = sbc.run([(name, True, seed) for seed in range(1000, 1020)])
    assert not sbc.passes(sbc.p_values(sbc.ranks_of(twin, name, True)))


@pytest.mark.calibration
def test_long_run(sbc):
    sbc.main()
    test_long_run_is_calibrated_and_its_twins_are_not(sbc)
