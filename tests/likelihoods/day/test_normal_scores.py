"""Normal scores of the day's observations: moments by integration, scikit-learn's transform, ties, and the whole chain."""

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import ndtri
from scipy.stats import norm
from sklearn.preprocessing import QuantileTransformer

import bayesens as be
from bayesens.likelihoods.day.scales import NormalScores, score_quantiles

RNG = np.random.default_rng(7)
SKEWED = np.exp(RNG.normal(size=4000))
DRY = np.where(RNG.uniform(size=4000) < 0.4, 0.0, SKEWED)  # two rows of five without rain


def inverse(scores: NormalScores, z: float) -> float:
    """Observation of a score, by the forward line alone."""
    y, known = scores.knots
    low, high = (y[0] - 1.0, known[0]), (y[-1] + 1.0, known[-1])
    first, last = (y[1] - y[0]) / (known[1] - known[0]), (y[-1] - y[-2]) / (known[-1] - known[-2])
    value = np.interp(z, known, y)
    value = y[0] + first * (z - low[1]) if z < known[0] else y[-1] + last * (z - high[1]) if z > known[-1] else value
    return float(max(value, 0.0)) if y[0] >= 0.0 else float(value)


@pytest.mark.parametrize("y", [SKEWED, DRY, SKEWED - 5.0], ids=["skewed", "zeros", "below zero"])
@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (-2.5, 0.7), (1.3, 1e-3), (3.5, 0.4), (-6.0, 2.0)])
def test_moments_are_those_of_integration(y, mean, sd):
    scores = NormalScores(score_quantiles(y))
    ends = [float(e) for e in scores.lines[0][1:-1] if mean - 9 * sd < e < mean + 9 * sd]

    def expected(power: int, about: float) -> float:
        return quad(
            lambda z: (inverse(scores, z) - about) ** power * norm.pdf(z, mean, sd), mean - 9 * sd, mean + 9 * sd,
            points=ends or None, limit=400, epsabs=1e-13,
        )[0]  # fmt: skip

    found = scores.moments(np.array([mean]), np.array([sd**2]))
    assert found[0][0] == pytest.approx(expected(1, 0.0), rel=1e-6, abs=1e-9)
    assert found[1][0] == pytest.approx(np.sqrt(expected(2, found[0][0])), rel=1e-6, abs=1e-9)


def test_scores_are_near_those_of_scikit_learn():
    other = QuantileTransformer(n_quantiles=4000, output_distribution="normal").fit(SKEWED[:, None])
    y = np.quantile(SKEWED, np.linspace(0.01, 0.99, 50))
    assert np.abs(NormalScores(score_quantiles(SKEWED)).forward(y) - other.transform(y[:, None])[:, 0]).max() < 0.05


@pytest.mark.parametrize("y", [SKEWED, SKEWED - 5.0, -SKEWED], ids=["skewed", "below zero", "mirrored"])
def test_a_score_that_is_certain_is_its_observation(y):
    scores = NormalScores(score_quantiles(y))
    some = np.sort(y)[::40]
    z = scores.forward(some)
    assert (np.diff(z) > 0.0).all()
    mean, sd = scores.moments(z, np.full(len(z), 1e-16))
    assert mean == pytest.approx(some, rel=1e-6, abs=1e-6)
    assert (sd < 1e-6 * np.ptp(y)).all()


def test_tied_observations_have_the_mean_score_of_their_range():
    scores = NormalScores(score_quantiles(DRY))
    share = np.mean(DRY == 0.0)
    expected = -norm.pdf(ndtri(share)) / share  # of a normal below that quantile
    assert scores.forward(np.array([0.0]))[0] == pytest.approx(expected, abs=0.15)  # quantiles are a quarter apart
    assert scores.moments(np.array([-4.0]), np.array([0.01]))[0] == pytest.approx(0.0, abs=1e-6)


def test_too_few_different_observations_are_refused():
    with pytest.raises(
        ValueError, match=r"3 different quantiles, too few for normal scores; wanted 5 or more: take transform="
    ):
        score_quantiles(np.array([0.0] * 50 + [1.0] * 50))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Skewed observations of 12 stations on 60 days that the day moves up and down together."""
    rng = np.random.default_rng(3)
    day, station = np.repeat(np.arange(60), 12), np.tile(np.arange(12), 60)
    z = rng.normal(size=60)[day] + 0.3 * rng.normal(size=12)[station] + 0.4 * rng.normal(size=720)
    y = np.expm1(np.exp(0.6 * z))  # more skewed than a logarithm mends
    rf = np.exp(0.6 * z + 0.5 * rng.normal(size=720))
    return pd.DataFrame(
        {"rf": rf, "y": y, "site": station.astype(str), "day": day, "lon": 0.1 * station, "lat": 0.0 * y}
    )


def said(frame: pd.DataFrame, transform: str) -> np.ndarray:
    columns = {"members": ["rf"], "observation": "y", "site": "site", "time": "day", "lon": "lon", "lat": "lat"}
    made = be.neighbours(be.Ensemble.from_frame(frame, **columns), be.Neighbours(transform=transform)).dataset
    return made["prediction"].sel(member="neighbours").values


def test_neighbours_on_normal_scores_beat_the_identity(frame):
    scores = said(frame, "normal_scores")
    assert (scores >= 0.0).all()
    error = [np.median(np.abs(values - frame["y"])) for values in (scores, said(frame, "identity"))]
    assert error[0] < 0.8 * error[1]


def test_another_unit_changes_nothing_but_the_unit(frame):
    grams = frame.assign(y=1000.0 * frame["y"], rf=1000.0 * frame["rf"])
    assert said(grams, "normal_scores") == pytest.approx(1000.0 * said(frame, "normal_scores"), rel=1e-6)
