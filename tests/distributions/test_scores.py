"""Scores against scoringrules, hand calculation and each other."""

import numpy as np
import pytest
import scoringrules
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from bayesens.distributions.scores import covered, crps_sample, interval_score, width

number = st.floats(-100, 100)


@given(number, st.floats(0, 50), number, st.floats(0.01, 0.99))
@settings(derandomize=True)
def test_interval_score(lower, extent, y, level):
    expected = scoringrules.interval_score(y, lower, lower + extent, 1.0 - level)
    assert_allclose(interval_score(lower, lower + extent, y, level), expected, rtol=1e-9, atol=1e-9)


def test_interval_score_is_two_quantile_scores():
    lower, upper, y = np.array([0.0, 1.0, -1.0]), np.array([1.0, 4.0, 0.5]), np.array([3.0, 2.0, -4.0])
    two = scoringrules.quantile_score(y, lower, 0.05) + scoringrules.quantile_score(y, upper, 0.95)
    assert_allclose(interval_score(lower, upper, y, 0.9), 2.0 / 0.1 * two)


@pytest.mark.parametrize(("fair", "estimator"), [(False, "nrg"), (True, "fair")])
@pytest.mark.parametrize("size", [2, 7, 50])
def test_crps_sample(fair, estimator, size):
    rng = np.random.default_rng(size)
    draws, y = rng.normal(3.0, 2.0, (size, 4, 3)), rng.normal(3.0, 2.0, (4, 3))
    expected = scoringrules.crps_ensemble(y, draws, m_axis=0, estimator=estimator)
    assert_allclose(crps_sample(draws, y, fair=fair), expected, rtol=1e-10, atol=1e-14)


def test_crps_of_one_draw_is_the_absolute_error():
    assert_array_equal(crps_sample([[2.0, -1.0]], [5.0, 1.0]), [3.0, 2.0])
    with pytest.raises(ValueError, match="needs two draws at least; got 1"):
        crps_sample([[2.0]], [5.0], fair=True)
    with pytest.raises(ValueError, match="needs a draw at least; got 0"):
        crps_sample(np.empty((0, 1)), [5.0])


def test_crps_sample_of_many_quantiles_is_that_of_the_normal():
    draws = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)[:, None]
    assert_allclose(crps_sample(draws, [0.7]), scoringrules.crps_normal(0.7, 0.0, 1.0), atol=1e-4)


def test_crps_sample_with_a_missing_draw_or_observation():
    assert_array_equal(
        np.isnan(crps_sample([[0.0, 1.0, 1.0], [1.0, np.nan, 2.0]], [0.0, 0.0, np.nan])), [False, True, True]
    )


def test_covered():
    got = covered([0.0, 0.0, 0.0, 0.0, np.nan], 1.0, [0.0, 1.0, 1.1, np.nan, 0.5])
    assert_array_equal(got, [1.0, 1.0, 0.0, np.nan, np.nan])
    assert_array_equal(width([0.0, np.nan], [2.0, 1.0]), [2.0, np.nan])


@pytest.mark.parametrize("level", [0.0, 1.0, 90])
def test_levels_lie_inside_the_unit_interval(level):
    with pytest.raises(ValueError, match=f"level must lie inside .* got {level}"):
        interval_score(0.0, 1.0, 0.5, level)
