"""Maps of levels against scipy, and their estimates from PITs whose law is known."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.integrate import quad
from scipy.special import ndtr, ndtri, polygamma

from bayesens.distributions.levels.recalibration import KNOTS, METHODS, Recalibration, recalibration_of

LEVELS = np.array([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])
BENT = Recalibration("isotonic", tuple(ndtr(1.5 * KNOTS - 0.3 + 0.2 * np.sin(KNOTS))))


def fitted(pit, stations, method="beta", prior=20.0):
    return recalibration_of(pit, np.arange(len(pit)) % stations, method=method, prior=prior)


def of_errors(z, stations, method="beta"):
    """Estimated from standardised errors of a normal predictive distribution."""
    return fitted(ndtr(z), stations, method)


# --------------------------------------------------------------------------------------------------------------- the map
@pytest.mark.parametrize(("a", "b"), [(0.4, 0.6), (1.0, 1.0), (3.0, 1.2)])
def test_beta_is_that_of_scipy(a, b):
    made, law = Recalibration("beta", (a, b)), stats.beta(a, b)
    assert_allclose(made.cdf(LEVELS), law.cdf(LEVELS), rtol=1e-12)
    assert_allclose(made.quantile(LEVELS), law.ppf(LEVELS), rtol=1e-10)
    assert_allclose(made.logpdf(LEVELS), law.logpdf(LEVELS), atol=1e-12)


@pytest.mark.parametrize("made", [Recalibration("beta", (0.4, 0.7)), BENT])
def test_a_map_is_a_distribution_function(made):
    u = np.linspace(0.0, 1.0, 5001)
    assert made.cdf([0.0, 1.0]).tolist() == [0.0, 1.0]
    assert np.all(np.diff(made.cdf(u)) > 0.0)
    assert_allclose(made.cdf(made.quantile(LEVELS)), LEVELS, rtol=1e-10)
    for low, high in [(0.001, 0.2), (0.2, 0.83), (0.83, 0.999)]:
        mass = quad(
            lambda x: np.exp(made.logpdf(x)), low, high, points=ndtr(KNOTS[(ndtr(KNOTS) > low) & (ndtr(KNOTS) < high)])
        )
        assert_allclose(mass[0], made.cdf(high) - made.cdf(low), rtol=1e-6)
    inside = made.quantile([0.0, 1.0])  # levels that a quantile may be asked at
    assert 0.0 < inside[0] < inside[1] < 1.0


def test_isotonic_is_straight_in_normal_scores_and_goes_on_beyond_its_knots():
    made = Recalibration("isotonic", tuple(ndtr(1.5 * KNOTS + 0.3)))
    z = np.array([-3.0, -0.4, 0.0, 1.1, 3.2])
    assert_allclose(ndtri(made.cdf(ndtr(z))), 1.5 * z + 0.3, rtol=1e-6)
    assert_allclose(ndtri(made.cdf(ndtr(-4.5))), 1.5 * -3.5 + 0.3 - 1.0, rtol=1e-9)


@pytest.mark.parametrize(
    "made", [Recalibration("beta", (0.1 + 0.2, 1 / 3), 40, 1000, 321.5, 33.25, "BMA", "site"), BENT]
)
def test_a_value_comes_back_from_its_text(made):
    assert Recalibration.from_json(made.to_json()) == made
    assert hash(Recalibration.from_json(made.to_json())) == hash(made)
    assert set(json.loads(made.to_json())) >= {"method", "parameters", "stations"}


@pytest.mark.parametrize("made", [Recalibration("beta", (0.4, 0.7), 12, 480, 71.9, 59.2, "BMA", "site"), BENT])
def test_a_value_comes_back_from_its_file(made, tmp_path):
    made.save(tmp_path / "levels.json")
    assert Recalibration.load(tmp_path / "levels.json") == made
    assert [path.name for path in tmp_path.iterdir()] == ["levels.json"]


@pytest.mark.parametrize(("text", "words"), [
    ("[1, 2]", "levels.json: it holds a list; wanted a map of levels, as Recalibration.save writes it"),
    ('{"method": "beta"', "levels.json: it is not JSON"),
    ('{"method": "beta"}', "it has no 'parameters'"),
    ('{"method": "beta", "parameters": [1, 1], "level": 3}', "it has 'level', which no map of levels has"),
    ('{"method": "beta", "parameters": [1, true]}', "its parameters is .1, True.; wanted"),
    ('{"method": "beta", "parameters": "one"}', "its parameters is 'one'; wanted"),
    ('{"method": "beta", "parameters": [1, 1], "rows": 2.5}', "its rows is 2.5; wanted"),
    ('{"method": "beta", "parameters": [1, -1]}', "levels.json: got parameters=.*the two positive shapes"),
    ('{"method": "betta", "parameters": [1, 1]}', "levels.json: .*did you mean 'beta'"),
])  # fmt: skip
def test_files_that_hold_no_map_are_refused(text, words, tmp_path):
    (tmp_path / "levels.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        Recalibration.load(tmp_path / "levels.json")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "levels.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"levels.json is no text; wanted a map of levels"):
        Recalibration.load(tmp_path / "levels.json")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Recalibration.load(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"a map of levels is a .json file: name it so"):
        Recalibration("beta", (1, 1)).save(tmp_path / "levels.txt")


@pytest.mark.parametrize(
    ("method", "parameters", "text"),
    [("beta", (1.0,), "two positive shapes"), ("beta", (1.0, 0.0), "two positive"), ("beta", (1.0, np.inf), "two positive"),
     ("isotonic", (0.1, 0.9), "2 parameters; wanted 29"), ("isotonic", (0.5,) * 29, "increase"),
     ("platt", (1.0, 1.0), "no method")],
)  # fmt: skip
def test_values_that_are_no_map_are_refused(method, parameters, text):
    with pytest.raises((ValueError, KeyError), match=text):
        Recalibration(method, parameters)


# ----------------------------------------------------------------------------------------------------------- the estimates
@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (3.0, 2.0), (0.7, 1.4)])
def test_shapes_of_beta_pits_are_recovered(a, b):
    n = 40_000
    found = fitted(np.random.default_rng(1).beta(a, b, n), 400, prior=1.0).parameters
    information = np.diag(polygamma(1, [a, b])) - polygamma(1, a + b)
    error = np.sqrt(np.diag(np.linalg.inv(information)) / n)  # of the likelihood's optimum
    assert np.all(np.abs(np.array(found) - [a, b]) < 4.0 * error + 2e-3 * np.array([a, b]))  # and the uniform PITs


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (3.0, 2.0)])
def test_isotonic_follows_the_law_of_the_pits(a, b):
    n = 40_000
    made = fitted(np.random.default_rng(1).beta(a, b, n), 400, "isotonic", prior=1.0)
    assert np.all(np.abs(made.cdf(LEVELS) - stats.beta(a, b).cdf(LEVELS)) < 4.0 * 0.5 / np.sqrt(n))


@pytest.mark.parametrize("method", METHODS)
def test_calibrated_distributions_stay_nearly_as_they_are(method):
    """The expected CRPS rises by int (G(F) - F)^2, the divergence of the score: by less than .5 % of it."""
    x = np.linspace(-6.0, 6.0, 2001)
    rises = []
    for seed in range(20):
        made = of_errors(np.random.default_rng(seed).normal(size=2000), 50, method)
        rises.append(np.trapezoid((made.cdf(ndtr(x)) - ndtr(x)) ** 2, x) * np.sqrt(np.pi))
    assert max(rises) < 0.005
    if method == "beta":
        assert np.mean(np.array(rises) == 0.0) > 0.3  # both means within one standard error: .68^2 of the time


@pytest.mark.parametrize(("method", "within"), [("beta", 0.12), ("isotonic", 0.04)])
@pytest.mark.parametrize("sd", [0.6, 1.0, 1.8])
def test_a_wrong_standard_deviation_is_mended(method, within, sd):
    made = of_errors(sd * np.random.default_rng(3).normal(size=40_000), 200, method)
    level = np.array([0.05, 0.25, 0.75, 0.95])
    assert_allclose(ndtri(made.quantile(level)), stats.norm(scale=sd).ppf(level), rtol=within)


@pytest.mark.parametrize("method", METHODS)
def test_a_common_bias_is_mended_where_the_spread_is_right(method):
    made = of_errors(0.8 + np.random.default_rng(4).normal(size=20_000), 200, method)
    assert_allclose(ndtri(made.quantile([0.05, 0.5, 0.95])), 0.8 + ndtri([0.05, 0.5, 0.95]), atol=0.12)


def test_stations_tell_the_spread_better_than_a_common_bias():
    rng = np.random.default_rng(5)
    station = np.arange(6000) % 30
    made = of_errors(0.7 * rng.normal(size=30)[station] + 1.5 * rng.normal(size=6000), 30)
    assert made.rows_for_spread > 2.0 * made.rows_for_bias
    # A station's mean of log u - log(1 - u) varies as 1.8^2 (.7 / 1.5)^2 = .2 of that of its rows, nearly: 30 / .2.
    assert 60.0 < made.rows_for_bias < 300.0
    assert made.cdf(0.05) > 0.08


def test_mirror_images_take_a_bias_that_few_stations_tell():
    """Six stations around .1 and four around .9: their spread is known, and that six are more than four is not."""
    rng = np.random.default_rng(8)
    station = np.arange(4000) % 10
    made = recalibration_of(
        np.where(station < 6, 0.1, 0.9) + rng.uniform(-0.05, 0.05, 4000), station, method="isotonic", prior=20.0
    )
    n_s, n_b = made.rows_for_spread, made.rows_for_bias
    assert n_b < 12.0 < 40.0 < n_s
    s, b = n_s / (n_s + 20.0), n_b / (n_b + 20.0)
    level = ndtr(KNOTS)
    observed, mirrored = (np.interp(level, [0.05, 0.15, 0.85, 0.95], [0.0, low, low, 1.0]) for low in (0.6, 0.4))
    expected = 0.5 * (s + b) * observed + 0.5 * (s - b) * mirrored + (1.0 - s) * level
    assert_allclose(made.parameters, expected, atol=0.02)


def test_copies_of_rows_tell_nothing_new_and_stations_weigh_equally():
    rng = np.random.default_rng(6)
    pit, station = rng.beta(0.5, 0.8, 3000), np.arange(3000) % 30
    more = np.concatenate([np.arange(3000)] + [np.flatnonzero(station == 3)] * 50)
    for method in METHODS:
        once, often = (recalibration_of(pit[i], station[i], method=method, prior=20.0) for i in (np.arange(3000), more))
        assert_allclose(often.parameters, once.parameters, rtol=1e-9)
        every = recalibration_of(np.repeat(pit, 3), np.repeat(station, 3), method=method, prior=20.0)
        assert_allclose(every.parameters, once.parameters, rtol=1e-9)


def test_few_stations_change_little():
    pit = np.random.default_rng(7).beta(0.3, 0.3, 10_000)
    two, many = fitted(pit, 2), fitted(pit, 100)
    assert two.rows_for_spread <= 3.0
    assert two.parameters[0] > 0.75
    assert many.parameters[0] < 0.35


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pit", [np.zeros(40), np.ones(40), np.full(40, 0.5), np.repeat([0.0, 1.0], 20)])
def test_pits_at_the_ends_and_all_alike_still_make_a_map(method, pit):
    made = fitted(pit, 10, method)
    assert np.all(np.isfinite(made.quantile(LEVELS)))
    assert np.all(np.diff(made.cdf(LEVELS)) >= 0.0)
