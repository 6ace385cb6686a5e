"""Student's t as few normals, against scipy and scoringrules."""

import numpy as np
import pytest
import scoringrules as sr
from scipy import stats
from scipy.integrate import quad

from bayesens.distributions.heavy_tails import log_below, mean_rule, normal_rule, scale_gain, t_variables
from bayesens.distributions.mixtures import NormalMixture

Y = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 20.0])


@pytest.mark.parametrize(
    ("nu", "crps", "cdf"),
    [(2.2, 2e-3, 3e-3), (3.0, 3e-4, 2e-3), (5.0, 2e-4, 2e-4), (10.0, 2e-5, 2e-5), (500.0, 1e-6, 1e-6)],
)
def test_a_t_is_four_normals(nu, crps, cdf):
    weight, variance = normal_rule(np.array([nu]))
    law = NormalMixture(np.broadcast_to(weight, (len(Y), 4)), 0.0, np.sqrt(variance))
    np.testing.assert_allclose(law.crps(Y), sr.crps_t(Y, nu, 0.0, 1.0), rtol=crps)
    np.testing.assert_allclose(law.cdf(Y), stats.t(nu).cdf(Y), atol=cdf)
    if nu >= 5.0:
        np.testing.assert_allclose((weight * variance).sum(), nu / (nu - 2.0), rtol=1e-3)


def test_the_mean_of_many_t_distributions_is_four_normals_too():
    nu = 2.0 + np.random.default_rng(0).gamma(3.0, 2.0, size=1000)
    weight, variance = mean_rule(nu)
    law = NormalMixture(np.broadcast_to(weight, (len(Y), 4)), 0.0, np.sqrt(variance))
    np.testing.assert_allclose(law.cdf(Y), stats.t(nu[:, None]).cdf(Y).mean(axis=0), atol=1.5e-3)


def test_probabilities_below_and_variables():
    nu, z = np.array([3.0, 8.0]), np.array([[-1.0, 2.0], [0.5, 0.1]])
    log_weight = np.log([[0.3, 0.6], [0.7, 0.4]])
    exact = np.log((np.exp(log_weight) * stats.t(nu).cdf(z)).sum(axis=0))
    np.testing.assert_allclose(log_below(log_weight, z, nu), exact, rtol=1e-12)
    drawn = t_variables(np.full(4000, 4.0), np.random.default_rng(0))
    assert stats.kstest(drawn, stats.t(4.0).cdf).pvalue > 0.005


@pytest.mark.parametrize("nu", [2.5, 4.0, 10.0])
@pytest.mark.parametrize("sd", [0.2, 0.5])
def test_a_t_that_is_widened_for_another_error_keeps_its_share_of_their_sum(nu, sd):
    law = stats.t(nu)

    def inside(gain):
        limit = law.ppf(0.95) * np.sqrt(1.0 + gain * sd**2)
        return quad(
            lambda u: stats.norm.pdf(u, scale=sd) * (law.cdf(limit - u) - law.cdf(-limit - u)), -9 * sd, 9 * sd
        )[0]

    assert inside(scale_gain(np.array([nu]))[0]) == pytest.approx(0.9, abs=5e-4)
    assert inside((nu - 2.0) / nu) < 0.9 - 1e-5 / nu  # what keeps the variance is too little
