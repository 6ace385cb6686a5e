"""Isotonic distributional regression beside scikit-learn, the max-min formula and scoringrules, and all that a fit does."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scoringrules
import xarray as xr
from scipy import optimize
from sklearn.isotonic import IsotonicRegression

import bayesens as be
from bayesens import IDR
from bayesens.comparison.bands import threshold_crps
from bayesens.distributions.mixtures import probability_below
from bayesens.inference.fit_tree import read_fit, write_fit
from bayesens.inference.predict import distribution
from bayesens.likelihoods import isotonic
from bayesens.likelihoods.isotonic import isotonic_cdf

MEMBERS = ["a", "b"]


def world(n, seed, ties=True):
    """Two members whose mean tells more of small values than of large ones, with ties in both and gaps."""
    rng = np.random.default_rng(seed)
    truth = rng.gamma(2.0, 2.0, size=n)
    f = truth[:, None] + rng.normal(size=(n, 2))
    y = truth + 0.3 * truth * rng.normal(size=n)
    if ties:
        f, y = np.round(f), np.round(y)
    f[rng.random(n) < 0.2, 1] = np.nan
    return f, y


def ensemble(f, y):
    return be.Ensemble.from_frame(
        pd.DataFrame(f, columns=MEMBERS).assign(y=y), members=MEMBERS, observation="y", units="mm"
    )


def fitted(f, y, model=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return be.fit(model or IDR(), ensemble(f, y), progressbar=False, **options)


def by_scikit_learn(x, y, new):
    """Thresholds, and the distribution function of every new row, each threshold an isotonic regression of its own."""
    threshold = np.unique(y)
    columns = [IsotonicRegression(increasing=False, out_of_bounds="clip").fit(x, (y <= t).astype(float)).predict(new)
               for t in threshold]  # fmt: skip
    return threshold, np.stack(columns, axis=1)


def by_max_min(x, y):
    """Distribution functions at the values of x: at each, the least over those below of the largest mean that begins there."""
    knot, threshold = np.unique(x), np.unique(y)
    out = np.empty((len(knot), len(threshold)))
    for j, t in enumerate(threshold):
        sums, count = (np.array([np.sum(v[x == k]) for k in knot]) for v in ((y <= t).astype(float), np.ones(len(y))))
        for k in range(len(knot)):
            out[k, j] = min(max(sums[i : m + 1].sum() / count[i : m + 1].sum() for m in range(k, len(knot)))
                            for i in range(k + 1))  # fmt: skip
    return out


# ------------------------------------------------------------------------------------------------- the distributions
@pytest.mark.filterwarnings("ignore:member .* is far outside of the range")
@pytest.mark.parametrize(("n", "ties"), [(2, False), (5, False), (120, False), (150, True)])
def test_every_threshold_is_an_isotonic_regression_between_the_training_values_and_beyond(n, ties):
    f, y = world(n, 1, ties)
    new = np.random.default_rng(2).uniform(-3.0, 18.0, size=(40, 2))
    law = distribution(fitted(f, y), ensemble(new, np.full(40, np.nan)))
    threshold, cdf = by_scikit_learn(np.nanmean(f, axis=1), y, new.mean(axis=1))
    for j, t in enumerate(threshold):
        np.testing.assert_allclose(law.cdf(t), cdf[:, j], atol=1e-12)
        np.testing.assert_allclose(law.cdf_below(t), cdf[:, j - 1] if j else 0.0, atol=1e-12)
    np.testing.assert_array_equal(law.cdf(threshold[0] - 1.0), 0.0)


def test_scores_moments_and_quantiles_are_those_of_a_sample_with_weights():
    f, y = world(90, 3)
    new, seen = world(60, 4)
    tree = fitted(f, y)
    threshold, cdf = by_scikit_learn(np.nanmean(f, axis=1), y, np.nanmean(new, axis=1))
    mass = np.diff(cdf, axis=1, prepend=0.0)
    scored, found = (
        be.score(tree, ensemble(new, seen)),
        be.predict(tree, ensemble(new, seen), quantiles=[0.1, 0.5, 0.95]),
    )
    values = np.broadcast_to(threshold, mass.shape)
    expected = scoringrules.crps_ensemble(seen, values, ens_w=mass, estimator="nrg")
    np.testing.assert_allclose(scored["crps"], expected, atol=1e-10)
    for low, high in ((2.0, 6.0), (-np.inf, 3.3), (1.7, np.inf), (20.0, 30.0), (-9.0, -1.0)):
        inside = scoringrules.crps_ensemble(
            np.clip(seen, low, high), np.clip(values, low, high), ens_w=mass, estimator="nrg"
        )
        law = distribution(tree, ensemble(new, seen))
        np.testing.assert_allclose(threshold_crps(law, seen, lower=low, upper=high), inside, atol=1e-10)
    mean = mass @ threshold
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(found["sd"], np.sqrt(mass @ threshold**2 - mean**2), rtol=1e-7, atol=1e-7)
    for q, p in enumerate([0.1, 0.5, 0.95]):
        np.testing.assert_array_equal(found["quantile_value"][:, q], threshold[(cdf >= p - 1e-12).argmax(axis=1)])
    np.testing.assert_allclose(scored["error"], mean - seen, rtol=1e-10, atol=1e-12)


def test_no_other_law_that_rises_with_the_mean_has_a_lower_crps_on_the_training_rows():
    """A search over all of them, by the probabilities of four thresholds at five values."""
    rng = np.random.default_rng(5)
    x, y = np.repeat(np.arange(5.0), 4), rng.integers(0, 5, size=20).astype(float)
    knot, threshold, cdf = isotonic_cdf(x, y, 100)

    def crps(at):
        return np.mean([np.sum((at[int(i)] - (v <= threshold[:-1])) ** 2) for i, v in zip(x, y, strict=True)])

    assert len(threshold) == 5
    assert len(knot) == 5
    falls = {"type": "ineq", "fun": lambda u: -np.diff(u.reshape(5, 4), axis=0).ravel()}
    best = optimize.minimize(lambda u: crps(u.reshape(5, 4)), np.full(20, 0.5), method="SLSQP", bounds=[(0.0, 1.0)] * 20,
                             constraints=falls, options={"ftol": 1e-12, "maxiter": 500})  # fmt: skip
    assert crps(cdf[:, :-1]) == pytest.approx(best.fun, abs=1e-6)
    np.testing.assert_allclose(cdf[:, :-1].ravel(), best.x, atol=1e-3)


def are_those_of_the_max_min_formula(ties):
    f, y = world(40, 19, ties)
    x = np.nanmean(f, axis=1)
    np.testing.assert_allclose(isotonic_cdf(x, y, 1000)[2], by_max_min(x, y), atol=1e-12)


@pytest.mark.parametrize("ties", [True, False])
def test_distributions_are_those_of_the_max_min_formula(ties):
    are_those_of_the_max_min_formula(ties)


def test_a_twin_that_takes_shares_as_they_are_is_told_apart(monkeypatch):
    def shares(y, weights, increasing):
        return SimpleNamespace(x=y)

    monkeypatch.setattr(isotonic, "scipy", SimpleNamespace(optimize=SimpleNamespace(isotonic_regression=shares)))
    with pytest.raises(AssertionError):
        are_those_of_the_max_min_formula(False)


def test_distributions_rise_with_the_mean_and_are_distributions():
    f, y = world(300, 6, ties=False)
    _, _, cdf = isotonic_cdf(np.nanmean(f, axis=1), y, 1000)
    assert np.all(np.diff(cdf, axis=0) <= 1e-12)
    assert np.all(np.diff(cdf, axis=1) >= 0.0)
    np.testing.assert_array_equal(cdf[:, -1], 1.0)


@pytest.mark.slow
def test_more_rows_than_knots_stand_together_and_hardly_change_the_law():
    f, y = world(3000, 7, ties=False)
    new = ensemble(*world(400, 8, ties=False))
    exact, few = (be.score(fitted(f, y, IDR(knots=k)), new) for k in (3000, 150))
    assert float(few["crps"].mean()) == pytest.approx(float(exact["crps"].mean()), rel=0.01)
    _, threshold, cdf = isotonic_cdf(np.nanmean(f, axis=1), y, 150)
    assert cdf.shape == (150, 150)
    assert threshold.mean() == pytest.approx(y.mean(), rel=1e-12)  # groups of the same size


# ----------------------------------------------------------------------------------------------- what is done with a fit
def test_probabilities_below_a_threshold_leave_out_the_threshold():
    f, y = world(80, 9)
    law = distribution(fitted(f, y), ensemble(f, y))
    assert np.isnan(probability_below(law, np.full(80, np.nan))).all()
    for t in (3.0, 0.0):
        np.testing.assert_allclose(probability_below(law, t), law.cdf(t) - (law.cdf(t) - law.cdf(t - 1e-9)), atol=1e-12)


def test_pit_is_uniform_within_its_steps_and_intervals_hold_what_they_say():
    f, y = world(800, 10)
    scored = be.score(fitted(f, y), ensemble(*world(800, 11)), levels=[0.9], random_seed=1)
    count = np.histogram(scored["pit"], bins=5, range=(0.0, 1.0))[0]
    assert abs(count - 160).max() < 60
    assert 0.85 < float(scored["covered"].mean()) < 1.0
    assert np.isnan(scored["log_score"]).all()
    assert (
        scored["log_score"].attrs["long_name"]
        == "negative log predictive density (NaN: a step function has no density)"
    )


@pytest.mark.parametrize("method", ["auto", "nuts", "laplace", "em"])
def test_every_method_is_the_exact_fit(method, tmp_path):
    f, y = world(60, 12)
    tree = fitted(f, y, method=method, random_seed=1)
    facts = be.summary(tree)
    assert "exact, in closed form" in str(facts)
    write_fit(tree, tmp_path / "fit.nc")
    again = read_fit(tmp_path / "fit.nc")
    xr.testing.assert_identical(*(be.predict(one, ensemble(f, y)) for one in (tree, again)))


def test_rows_without_a_member_have_no_prediction():
    f, y = world(60, 13)
    f[3] = np.nan
    tree = fitted(f, y)
    with pytest.warns(UserWarning, match="1 of 60 rows have no member at all: their predictions are NaN"):
        found = be.predict(tree, ensemble(f, y))
    for name in ("mean", "sd", "quantile_value"):
        np.testing.assert_array_equal(np.isnan(found[name].values.reshape(60, -1)).all(axis=1), np.arange(60) == 3)


def test_draws_are_those_of_the_law():
    f, y = world(100, 14)
    tree, new = fitted(f, y), ensemble(f[:3], y[:3])
    draws, law = be.draw(tree, new, size=20_000, random_seed=1), distribution(tree, new)
    np.testing.assert_allclose(draws.mean("sample"), law.mean(), atol=0.06)
    np.testing.assert_allclose((draws <= 4.0).mean("sample"), law.cdf(4.0), atol=0.02)
    assert np.isin(draws, np.unique(y)).all()


def test_grids_have_the_law_of_tables():
    f, y = world(100, 15)
    tree = fitted(f, y)
    new = world(24, 16)[0]
    grid = xr.DataArray(new.reshape(4, 6, 2), dims=("y", "x", "member"), coords={"member": MEMBERS})
    found, table = (
        be.predict(tree, grid, quantiles=[0.5], below=4.0),
        be.predict(tree, ensemble(new, np.full(24, np.nan)), quantiles=[0.5]),
    )
    for name in ("mean", "sd"):
        np.testing.assert_allclose(found[name].values.ravel(), table[name], rtol=1e-12)
    law = distribution(tree, ensemble(new, np.full(24, np.nan)))
    name = next(name for name in found.data_vars if "below" in str(name))
    np.testing.assert_allclose(found[name].values.ravel(), law.cdf_below(4.0), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:The estimand .row. holds out")
def test_comparisons_have_it_beside_others_and_no_log_score_of_it():
    f, y = world(150, 17, ties=False)
    rows = be.compare(
        {"IDR": IDR(), "BMA": be.BMA()}, ensemble(f, y), estimand="row", folds=3, draws=200, random_seed=1
    )
    assert rows.sizes["obs"] == 150
    table = be.score_table(rows, replicates=0).set_index("model")
    assert np.isfinite(table["crps"]).all()
    np.testing.assert_array_equal(np.isnan(table["log_score"]), [True, False])
    assert set(be.paired_differences(rows, "BMA", replicates=50)["metric"]) >= {"crps"}


def test_what_needs_a_posterior_says_that_there_is_none():
    f, y = world(150, 18, ties=False)
    tree = fitted(f, y)
    with pytest.raises(ValueError, match="point"):
        be.loo(tree, ensemble(f, y))
    with pytest.raises(ValueError, match="IDR has neither parameters nor a density, and so no PyMC model"):
        be.sensitivity.prior_predictive(IDR(), ensemble(f, y), random_seed=1)


# ------------------------------------------------------------------------------------------------------------ bad input
@pytest.mark.parametrize("knots", [1, 2.5, True, "many"])
def test_knots_are_a_whole_number_of_at_least_two(knots):
    with pytest.raises(ValueError, match=r"IDR\(knots=...\) is a whole number of at least 2; got"):
        IDR(knots=knots)
