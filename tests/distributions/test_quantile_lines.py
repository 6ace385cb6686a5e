"""Lines through quantiles against closed forms of normals, and against numerical integration of a skewed mixture."""

import numpy as np
import pytest
import scoringrules
from numpy.testing import assert_allclose
from scipy.special import ndtr, ndtri

from bayesens.distributions.levels.quantile_lines import QuantileLines
from bayesens.distributions.levels.recalibration import Recalibration
from bayesens.distributions.mixtures import NormalMixture

LEVEL = np.array([0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975])
MU, SD = np.array([0.0, 3.0, -1.0]), np.array([1.0, 2.0, 0.1])
NORMAL = QuantileLines(LEVEL, MU[:, None] + SD[:, None] * ndtri(LEVEL))


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.5, 0.0), (2.0, 0.7), (1.0, -1.0)])
def test_normals_are_exact(scale, shift):
    """Levels under which a normal becomes another: its standardised value z has the level Phi((z - shift) / scale)."""

    def law(u):
        return ndtr((ndtri(u) - shift) / scale)

    y = MU + SD * np.array([-2.5, 0.3, 1.4])
    change = scoringrules.crps_normal(y, MU + shift * SD, scale * SD) - scoringrules.crps_normal(y, MU, SD)
    assert_allclose(NORMAL.crps_change(law, ndtr((y - MU) / SD)), change, atol=1e-5)
    assert_allclose(NORMAL.mean_change(law), shift * SD, atol=2e-4)  # levels beyond a normal score of 8 do not count
    level = np.array([0.001, 0.3, 0.975, 0.9999])
    assert_allclose(NORMAL.quantiles(level), MU[:, None] + SD[:, None] * ndtri(level), rtol=1e-9, atol=1e-12)


def test_the_known_quantiles_are_kept():
    value = np.cumsum(np.random.default_rng(1).gamma(1.0, size=(5, 9)), axis=1)
    assert_allclose(QuantileLines(LEVEL, value).quantiles(LEVEL), value, rtol=1e-12)


@pytest.mark.parametrize("made", [Recalibration("beta", (0.6, 0.8)), Recalibration("beta", (2.0, 1.6))])
def test_a_skewed_mixture_is_near_to_its_integral(made):
    """CRPS = int (G(F(x)) - 1[x >= y])^2 dx, of the mixture itself: within 1 % of the score."""
    y = np.array([-1.0, 0.2, 1.0, 3.0, 6.0])
    law = NormalMixture([0.7, 0.3], np.tile([0.0, 2.5], (5, 1)), [0.8, 1.6])
    x = np.linspace(-15.0, 20.0, 70_001)
    below = law[0].cdf(x)
    exact, before = (
        np.array([np.trapezoid((level - (x >= one)) ** 2, x) for one in y]) for level in (made.cdf(below), below)
    )
    assert_allclose(before, law.crps(y), rtol=1e-3)
    lines = QuantileLines(LEVEL, law.quantile(LEVEL))
    assert_allclose(law.crps(y) + lines.crps_change(made.cdf, law.cdf(y)), exact, atol=0.01 * exact.mean())
    assert_allclose(lines.mean_change(made.cdf), np.trapezoid(below - made.cdf(below), x), atol=0.02)
