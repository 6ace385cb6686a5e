"""The mixture over posterior draws: exact moments and densities, and quantiles of the matched mixture within 1 %."""

import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp, ndtr
from scipy.stats import kstest, norm

from bayesens import BMA, HBM
from bayesens.distributions.posterior_mixture import Block, PosteriorMixture, row_classes
from bayesens.ensemble.ensemble import Ensemble

DRAWS = 1000


# -------------------------------------------------------------------------------------------------------- brute force
def components(mixture, row):
    """Weights, means and standard deviations of one row, (draw, component)."""
    for block in mixture.blocks():
        if row in block.rows:
            mean = block.coefficient[:, :, 0] + block.coefficient[:, :, 1:] @ mixture.f[row]
            return block.weight, mean, np.sqrt(block.variance)
    raise AssertionError(f"row {row} is in no block")


def cdf(mixture, row, x):
    """Average of the draws' distribution functions."""
    weight, mean, sd = components(mixture, row)
    return np.sum(weight * ndtr((np.asarray(x)[..., None, None] - mean) / sd), axis=(-1, -2)) / len(weight)


def quantiles(mixture, row, p):
    """Quantiles of the full mixture by bisection."""
    _, mean, sd = components(mixture, row)
    low, high = np.full(len(p), (mean - 9 * sd).min()), np.full(len(p), (mean + 9 * sd).max())
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = cdf(mixture, row, middle) < p
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return 0.5 * (low + high)


@pytest.fixture
def mixture():
    """Rows with two and with three components, and a last one in no block."""
    rng = np.random.default_rng(1)
    f = rng.normal(size=(7, 2))

    def block(rows, count):
        coefficient = rng.normal(size=(1, count, 3)) + 0.2 * rng.normal(size=(300, count, 3))
        variance = np.exp(rng.normal(-1.0, 0.4, size=(300, count)))
        return Block(np.array(rows), rng.dirichlet(np.full(count, 4.0), size=300), coefficient, variance)

    blocks = [block([0, 3, 4], 3), block([1, 2, 5], 2)]
    return PosteriorMixture(f, lambda: iter(blocks))


def test_moments_are_those_of_the_full_mixture(mixture):
    m = mixture.moments()
    for row in range(6):
        weight, mean, sd = components(mixture, row)
        line = np.sum(weight * mean, axis=1)
        parts = (
            line.mean(),
            np.mean(np.sum(weight * sd**2, axis=1)),
            np.mean(np.sum(weight * (mean - line[:, None]) ** 2, axis=1)),
            line.var(),
        )
        got = (m.mean[row], m.within[row], m.between[row], m.parameter[row])
        np.testing.assert_allclose(got, parts, rtol=1e-10)
        second = np.sum(weight * (mean**2 + sd**2)) / len(weight)
        assert m.variance[row] == pytest.approx(second - line.mean() ** 2, rel=1e-10)
    assert np.isnan([m.mean[6], m.variance[6]]).all()


def test_log_density_is_the_log_of_the_mean_density_over_draws(mixture):
    z = np.linspace(-3.0, 3.0, 7)
    each, averaged = mixture.log_likelihood(z), mixture.log_density(z)
    for row in range(6):
        weight, mean, sd = components(mixture, row)
        expected = logsumexp(np.log(weight) + norm.logpdf(z[row], mean, sd), axis=1)
        np.testing.assert_allclose(each[:, row], expected, rtol=1e-12, atol=1e-12)
        assert averaged[row] == pytest.approx(logsumexp(expected) - np.log(len(expected)), rel=1e-12)
    assert np.isnan(each[:, 6]).all()
    assert np.isnan(averaged[6])


def test_log_density_far_out_does_not_underflow(mixture):
    z = np.full(7, 300.0)
    assert np.all(mixture.log_density(z)[:6] < -1000.0)
    assert np.all(np.isfinite(mixture.log_density(z)[:6]))


def test_a_component_of_weight_zero_counts_for_nothing():
    coefficient = np.array([[[0.0], [50.0]]])
    one = PosteriorMixture(
        np.empty((1, 0)),
        lambda: iter([Block(np.array([0]), np.array([[1.0, 0.0]]), coefficient, np.ones((1, 2)))]),
    )
    assert one.log_density(np.zeros(1))[0] == pytest.approx(norm.logpdf(0.0))
    assert one.moments().variance[0] == pytest.approx(1.0)
    assert one.matched().quantile(0.975)[0] == pytest.approx(norm.ppf(0.975))
    assert np.abs(one.sample(1000, np.random.default_rng(1))).max() < 10.0


@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_parts_hold_every_row_once_and_say_what_the_whole_says(mixture, size):
    whole, seen = mixture.matched(), []
    for rows, part in mixture.matched_parts(size):
        seen += rows.tolist()
        assert len(rows) < 2 * size or len(rows) == 7
        np.testing.assert_allclose(part.quantile([0.1, 0.9]), whole.quantile([0.1, 0.9])[rows], rtol=1e-12)
        np.testing.assert_allclose(part.crps(np.ones(len(rows))), whole.crps(np.ones(7))[rows], rtol=1e-12)
    assert sorted(seen) == list(range(7))


def test_mass_below_zero_is_that_of_the_components(mixture):
    got = mixture.log_likelihood(np.zeros(7), below=np.ones(7, dtype=bool))
    for row in range(6):
        weight, mean, sd = components(mixture, row)
        np.testing.assert_allclose(got[:, row], np.log(np.sum(weight * ndtr(-mean / sd), axis=1)), atol=1e-10)


def test_samples_follow_the_full_mixture(mixture):
    # Kolmogorov-Smirnov at a level of 1e-4 for each of six rows, the seed is fixed.
    sample = mixture.sample(6000, np.random.default_rng(2))
    for row in range(6):
        assert kstest(sample[:, row], lambda x, row=row: cdf(mixture, row, x)).pvalue > 1e-4
    assert np.isnan(sample[:, 6]).all()


def test_one_sample_of_each_draw_follows_that_draw(mixture):
    rng = np.random.default_rng(3)
    each = np.stack([mixture.sample_each(rng) for _ in range(40)])
    for row in range(6):
        weight, mean, sd = components(mixture, row)
        standardised = np.sum(weight * ndtr((each[:, :, row, None] - mean) / sd), axis=-1)
        assert kstest(standardised.ravel(), "uniform").pvalue > 1e-4


def test_a_sample_uses_one_posterior_draw_for_all_rows():
    """Draws far apart and kernels narrow: both rows of a sample then lie at the same draw's mean."""
    coefficient = 100.0 * np.arange(5.0).reshape(5, 1, 1)
    parts = [Block(np.array([i]), np.ones((5, 1)), coefficient, np.ones((5, 1))) for i in range(2)]
    sample = PosteriorMixture(np.empty((2, 0)), lambda: iter(parts)).sample(50, np.random.default_rng(4))
    assert np.abs(sample[:, 0] - sample[:, 1]).max() < 20.0
    assert np.bincount(np.round(sample[:, 0] / 100.0).astype(int)).tolist() == [10] * 5


def test_matched_mixture_keeps_mean_and_variance(mixture):
    matched, m = mixture.matched(), mixture.moments()
    np.testing.assert_allclose(matched.mean(), m.mean, rtol=1e-10)
    np.testing.assert_allclose(matched.variance(), m.variance, rtol=1e-10)


def test_rows_do_not_depend_on_the_rows_beside_them(mixture):
    z = np.linspace(-1.0, 1.0, 7)
    everything = mixture.log_density(z), mixture.matched().quantile([0.1, 0.9]), mixture.moments().variance

    def alone(row):
        for block in mixture.blocks():
            if row in block.rows:
                yield Block(np.array([0]), block.weight, block.coefficient, block.variance)

    for row in range(6):
        one = PosteriorMixture(mixture.f[row : row + 1], lambda row=row: alone(row))
        np.testing.assert_allclose(one.log_density(z[row : row + 1])[0], everything[0][row], rtol=1e-13)
        np.testing.assert_allclose(one.matched().quantile([0.1, 0.9])[0], everything[1][row], rtol=1e-11)
        np.testing.assert_allclose(one.moments().variance[0], everything[2][row], rtol=1e-12)


def test_many_rows_are_the_few_rows_again():
    """More rows than are taken in one go."""
    rng = np.random.default_rng(5)
    weight, variance = rng.dirichlet([2.0, 2.0], size=2000), np.exp(rng.normal(size=(2000, 2)))
    coefficient = rng.normal(size=(2000, 2, 2))
    f = np.tile(rng.normal(size=(3, 1)), (1500, 1))
    whole = PosteriorMixture(f, lambda: iter([Block(np.arange(4500), weight, coefficient, variance)]))
    few = PosteriorMixture(f[:3], lambda: iter([Block(np.arange(3), weight, coefficient, variance)]))
    z = np.tile([-1.0, 0.3, 2.0], 1500)
    np.testing.assert_allclose(whole.log_density(z), np.tile(few.log_density(z[:3]), 1500), rtol=1e-13)


def test_row_classes_are_a_partition_by_equal_codes():
    rng = np.random.default_rng(6)
    codes = rng.integers(-1, 3, size=(3, 60))
    seen = []
    for rows, key in row_classes(*codes):
        assert all((codes[:, r] == key).all() for r in rows)
        seen.extend(rows.tolist())
    assert sorted(seen) == list(range(60))
    assert len(list(row_classes(*codes))) == len(np.unique(codes.T, axis=0))


# -------------------------------------------------------------------------------------- quantiles of matched mixtures
P = np.array([0.005, 0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975, 0.995])
TRUTH_BIAS, TRUTH_SLOPE, TRUTH_SIGMA = [0.2, -0.1, 0.05, 0.3], [0.8, 0.9, 1.0, 0.7], [0.3, 0.4, 0.5, 0.8]


def dataset(variables, **coords):
    """Draws as a posterior of one chain."""
    dims = {1: (), 2: ("member",), 3: ("member", "member_")}
    return xr.Dataset({n: (("chain", "draw", *dims[v.ndim]), v[None]) for n, v in variables.items()}, coords=coords)


def group_sd(rng, effects, prior_sd, tail):
    """Draws of a standard deviation given the effects of three groups, under a half-normal or half-Student prior."""
    grid = np.geomspace(0.003, 30.0, 4000)
    log_prior = -0.5 * (grid / prior_sd) ** 2 if tail == "normal" else -2.0 * np.log1p((grid / prior_sd) ** 2 / 3.0)
    log_density = log_prior - len(effects) * np.log(grid) - 0.5 * np.sum(np.square(effects)) / grid**2 + np.log(grid)
    mass = np.exp(log_density - log_density.max())
    return rng.choice(grid, size=DRAWS, p=mass / mass.sum())


def bma_case(name):
    """A model and a posterior such as rows of about 1000 (narrow) or 50 (wide) leave."""
    rng = np.random.default_rng(7)
    wide = name != "narrow"
    size = 0.12 if wide else 0.02
    draws = {
        "weight": rng.dirichlet(np.array([0.4, 0.3, 0.2, 0.1]) * (15 if wide else 400), size=DRAWS),
        "bias": TRUTH_BIAS + size * rng.normal(size=(DRAWS, 4)),
        "slope": TRUTH_SLOPE + size * rng.normal(size=(DRAWS, 4)),
        "sigma": TRUTH_SIGMA * np.exp(1.5 * size * rng.normal(size=(DRAWS, 4))),
    }
    coords, options = {}, {}
    if name.startswith("new site"):
        draws["offset_site_sd"] = 0.3 * np.exp(0.3 * rng.normal(size=DRAWS))
        coords["site"], options["site"] = ["s1"], True
    if name.startswith("new group"):
        draws["offset_group_sd"] = group_sd(rng, [0.3, -0.2, 0.1], 0.5, "normal" if name == "new group" else "heavy")
        coords["group"], options["group"] = ["g1"], True
    return BMA(correction="joint", center=1.0, unit=1.0, sigma_scale=0.3, **options), dataset(draws, **coords)


def hbm_case(name):
    """A posterior of three groups and many sites, to predict a new group."""
    rng = np.random.default_rng(8)
    tail = "heavy" if "heavy" in name else "normal"
    correlation = np.full((4, 4), 0.6) + 0.4 * np.eye(4)
    draws = {
        "truth_mean": 1.0 + 0.2 * rng.normal(size=DRAWS),
        "truth_sd": 0.8 * np.exp(0.02 * rng.normal(size=DRAWS)),
        "bias": TRUTH_BIAS + 0.15 * rng.normal(size=(DRAWS, 4)),
        "slope": TRUTH_SLOPE + 0.03 * rng.normal(size=(DRAWS, 4)),
        "error_sd": TRUTH_SIGMA * np.exp(0.02 * rng.normal(size=(DRAWS, 4))),
        "residual_corr": np.broadcast_to(correlation, (DRAWS, 4, 4)).copy(),
        "truth_site_sd": 0.4 * np.exp(0.15 * rng.normal(size=DRAWS)),
        "slope_site": TRUTH_SLOPE + 0.15 * rng.normal(size=(DRAWS, 4)),
        "bias_site_sd": 0.2 * np.exp(0.15 * rng.normal(size=(DRAWS, 4))),
        "bias_site_corr": np.broadcast_to(correlation, (DRAWS, 4, 4)).copy(),
        "truth_group_sd": group_sd(rng, [0.4, -0.3, 0.1], 0.5, tail),
        "slope_group": 0.7 + 0.35 * rng.normal(size=(DRAWS, 4)),
        "bias_group_sd": np.stack([group_sd(rng, [0.2, -0.1, 0.1], 0.3, tail) for _ in range(4)], axis=1),
        "bias_group_corr": np.broadcast_to(correlation, (DRAWS, 4, 4)).copy(),
    }
    return HBM(center=1.0, unit=1.0, group=True, site=True), dataset(draws, group=["g1"], site=["s1"])


def rows(missing):
    """Twelve rows, from usual to far from the mean, at a site and group never seen."""
    rng = np.random.default_rng(9)
    f = (1.0 + 1.2 * rng.normal(size=12))[:, None] + 0.4 * rng.normal(size=(12, 4))
    f[:3] = [[4.0] * 4, [-2.0] * 4, [3.0, 1.0, -1.0, 2.0]]
    if missing:
        f[4:, 1] = np.nan
        f[8:, 2:] = np.nan
    label = ("obs", np.full(12, "new"))
    return Ensemble(xr.Dataset({"prediction": (("obs", "member"), f)},
                               {"member": ["a", "b", "c", "d"], "site": label, "group": label}))  # fmt: skip


QUANTILE_CASES = [
    *(("BMA", name) for name in ("narrow", "wide", "new site", "new group", "new group, heavy tail")),
    *(("HBM", name) for name in ("new group", "new group, heavy tail")),
]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("kind", "name"), QUANTILE_CASES)
def test_matched_quantiles_err_by_at_most_one_percent_of_the_90_percent_width(kind, name, missing):
    model, posterior = (bma_case if kind == "BMA" else hbm_case)(name)
    mixture = model.predictive(posterior, rows(missing))
    got = mixture.matched().quantile(P)
    for row in range(12):
        full = quantiles(mixture, row, P)
        error = np.abs(got[row] - full) / (full[6] - full[2])
        assert error.max() <= 0.01, f"row {row}: {error.round(4)}"


@pytest.mark.parametrize(("kind", "name"), QUANTILE_CASES)
def test_moments_of_models_are_exact(kind, name):
    model, posterior = (bma_case if kind == "BMA" else hbm_case)(name)
    mixture = model.predictive(posterior, rows(missing=True))
    m = mixture.moments()
    for row in range(12):
        weight, mean, sd = components(mixture, row)
        average = np.sum(weight * mean) / DRAWS
        assert m.mean[row] == pytest.approx(average, rel=1e-10)
        assert m.variance[row] == pytest.approx(np.sum(weight * (sd**2 + (mean - average) ** 2)) / DRAWS, rel=1e-10)
