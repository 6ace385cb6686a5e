"""Members that a row lacks, in EMOS and in a pool of free weights: filled in by the others, with what this leaves open."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import optimize
from scipy.stats import multivariate_normal, norm

import bayesens as be
from bayesens import EMOS, LinearPool, Prior
from bayesens.ensemble.rows import Rows
from bayesens.inference.log_density import compile_target
from bayesens.likelihoods.missing_members import JointMembers
from bayesens.likelihoods.options import options_from_json, options_to_json

MEMBERS = ["a", "b", "c", "d"]
FREE = LinearPool(weights="free")
MODELS = [EMOS(), EMOS(scale=()), FREE]


def world(n, seed, rate=0.25):
    """Members with errors in common, an observation, and gaps by chance."""
    rng = np.random.default_rng(seed)
    truth, shared = rng.normal(size=n), rng.normal(size=n)
    f = 5.0 + 0.9 * truth[:, None] + 0.5 * shared[:, None] + np.array([0.4, 0.6, 0.8, 1.0]) * rng.normal(size=(n, 4))
    y = 5.0 + truth + 0.2 * rng.normal(size=n)
    whole = f.copy()
    gone = rng.random(f.shape) < rate
    gone[gone.all(axis=1), 3] = False
    f[gone] = np.nan
    return f, y, whole


def ensemble(f, y):
    return be.Ensemble.from_frame(pd.DataFrame(f, columns=MEMBERS).assign(y=y), members=MEMBERS, observation="y")


def quiet(model, rows, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return be.fit(model, rows, progressbar=False, random_seed=1, **kwargs)


def rows_of(f):
    there = np.isfinite(f)
    return Rows(np.zeros(len(f)), np.where(there, f, 0.0), there, np.arange(len(f)))


def point(tree):
    """Parameters of a fit of one point."""
    return {str(name): v.values for name, v in tree["posterior"].to_dataset().squeeze(drop=True).data_vars.items()}


# --------------------------------------------------------------------------------------------------- moments of members
def test_moments_of_complete_rows_are_theirs_and_one_row_of_members_without_correlation():
    whole = world(50, 1)[2]
    found, covariance = JointMembers.of(rows_of(whole)), np.cov(whole.T, ddof=0)
    np.testing.assert_allclose(found.mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, (50 * covariance + np.diag(np.diag(covariance))) / 51, rtol=1e-11)


def test_moments_of_rows_with_gaps_are_where_the_density_of_what_is_there_is_highest():
    """Its derivatives, of rows one by one and the prior's row, are zero in all directions."""
    f = world(60, 2)[0]
    found = JointMembers.of(rows_of(f))
    own, root = np.diag(np.nanvar(f, axis=0)), np.linalg.cholesky(found.covariance)
    lower = np.tril_indices(4)

    def log_density(u):
        mean, factor = u[:4], np.zeros((4, 4))
        factor[lower] = u[4:]
        covariance = factor @ factor.T
        out = -0.5 * (np.linalg.slogdet(covariance)[1] + np.trace(np.linalg.solve(covariance, own)))
        for row in f:
            there = np.isfinite(row)
            out += multivariate_normal(mean[there], covariance[np.ix_(there, there)]).logpdf(row[there])
        return out

    gradient = optimize.approx_fprime(np.append(found.mean, root[lower]), log_density, 1e-6)
    np.testing.assert_allclose(gradient, 0.0, atol=2e-3)
    off = optimize.approx_fprime(np.append(found.mean + 0.05, root[lower]), log_density, 1e-6)
    assert np.abs(off).max() > 1.0


def test_members_that_are_copies_or_never_there_together_have_moments():
    f = world(40, 3, rate=0.0)[0]
    f[:, 1] = 2.0 * f[:, 0]
    f[:20, 2], f[20:, 3] = np.nan, np.nan
    found = JointMembers.of(rows_of(f))
    assert np.linalg.eigvalsh(found.covariance).min() > 0.0
    level, gain, left = found.given(np.array([[True, False, False, False]]))
    assert gain[0, 1, 0] == pytest.approx(2.0, rel=0.05)
    assert level[0, 1] == pytest.approx(0.0, abs=0.5)
    assert 0.0 < left[0, 1, 1] < 0.1 * np.var(f[:, 1])


# ------------------------------------------------------------------------------------------------------ the law of a row
def drawn(model, p, row, seed, size=400_000):
    """Draws of y where the missing members are drawn first, given the others, and the row is then complete."""
    rng, there = np.random.default_rng(seed), np.isfinite(row)
    moments = np.array(model.member_moments)
    mean, covariance = moments[:, 0], moments[:, 1:]
    slope = np.linalg.solve(covariance[np.ix_(there, there)], covariance[np.ix_(there, ~there)]).T
    left = covariance[np.ix_(~there, ~there)] - slope @ covariance[np.ix_(there, ~there)]
    f = np.tile(row, (size, 1))
    f[:, ~there] = rng.multivariate_normal(mean[~there] + slope @ (row[there] - mean[there]), left, size=size)
    variance = p["sigma"] ** 2 + p.get("spread", 0.0) ** 2 * f.var(axis=1, ddof=1)
    centre = model.center + p["intercept"] + (f - model.center) @ p["linear_weight"]
    return centre + np.sqrt(variance) * rng.normal(size=size)


def moments_are_those_of_draws(model):
    """Mean and standard deviation of rows that lack one member, two, and three, beside simulation."""
    f, y, _ = world(300, 4)
    table = ensemble(f, y)
    tree = quiet(model, table, method="em")
    rows = np.array([[5.5, np.nan, 4.0, 6.0], [np.nan, 6.0, np.nan, 7.0], [np.nan, np.nan, 3.0, np.nan]])
    got = be.predict(tree, ensemble(rows, np.full(3, np.nan)))
    resolved = model.resolve(table)
    for i, row in enumerate(rows):
        y = drawn(resolved, point(tree), row, seed=i)
        assert got["mean"].values[i] == pytest.approx(y.mean(), abs=5 * y.std() / np.sqrt(len(y)))
        assert got["sd"].values[i] == pytest.approx(y.std(), rel=0.005)


@pytest.mark.parametrize("model", [EMOS(scale=()), FREE])
def test_mean_and_variance_are_those_of_missing_members_that_are_drawn(model):
    moments_are_those_of_draws(model)


@pytest.mark.parametrize("model", [EMOS(scale=()), FREE])
@pytest.mark.parametrize("lost", ["open", "gain"])
def test_a_twin_that_forgets_what_is_open_or_that_members_hang_together_is_told_apart(monkeypatch, model, lost):
    given = JointMembers.given

    def twin(self, present):
        if lost == "gain":
            return given(JointMembers(self.mean, np.diag(np.diag(self.covariance))), present)
        level, gain, left = given(self, present)
        return level, gain, np.zeros_like(left)

    monkeypatch.setattr(JointMembers, "given", twin)
    with pytest.raises(AssertionError):
        moments_are_those_of_draws(model)


# ------------------------------------------------------------------------------------------------------------- the fit
@pytest.mark.parametrize("model", MODELS)
def test_complete_rows_have_the_numbers_that_they_have_where_nothing_is_filled_in(model):
    """Fits, predictions, and predictions beside rows with gaps, bit by bit."""
    _, y, whole = world(80, 5)
    plain = options_from_json(type(model), options_to_json(model) | {"member_moments": ()})
    for method in ("em", "auto"):
        one, other = (quiet(m, ensemble(whole, y), method=method) for m in (model, plain))
        xr.testing.assert_identical(one["posterior"].to_dataset(), other["posterior"].to_dataset())
        gaps = np.concatenate([world(20, 6)[0], whole])
        got = be.predict(one, ensemble(gaps, np.full(100, np.nan))).isel(obs=slice(20, None))
        wanted = be.predict(other, ensemble(whole, np.full(80, np.nan)))
        for name in ("mean", "sd", "quantile_value"):
            np.testing.assert_allclose(got[name], wanted[name], rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [True, False])
def test_maximum_likelihood_is_what_a_general_optimiser_finds(seed, spread):
    f, y, _ = world(120, seed)
    model = EMOS(scale=()) if spread else FREE
    table = ensemble(f, y)
    tree, resolved = quiet(model, table, method="em"), model.resolve(table)
    whole = JointMembers.from_tuples(resolved.member_moments).fill(rows_of(f))

    def negative(u):
        w = u[1:5]
        variance = (
            u[5] ** 2 + u[6] ** 2 * whole.spread * spread + np.array([w @ c @ w for c in whole.open])[whole.pattern]
        )
        return -norm.logpdf(y, u[0] + whole.f @ w, np.sqrt(variance)).sum()

    found = optimize.minimize(negative, [0.0, 0.3, 0.2, 0.2, 0.2, 0.3, 0.3], method="BFGS", options={"gtol": 1e-6})
    assert tree.attrs["loglik"] >= -found.fun - 1e-6
    assert tree.attrs["loglik"] == pytest.approx(-found.fun, abs=1e-3)
    np.testing.assert_allclose(point(tree)["linear_weight"], found.x[1:5], atol=2e-3)


@pytest.mark.parametrize("model", MODELS)
def test_the_density_of_rows_none_of_which_is_complete_is_that_of_each(model):
    f, y, _ = world(60, 7)
    f[np.arange(60), np.arange(60) % 3] = np.nan
    f[:, 3] = np.where(np.isfinite(f).any(axis=1), f[:, 3], 5.0)
    table = ensemble(f, y)
    assert not table.available.all(axis=1).any()
    fused, plain = (compile_target(model.resolve(table).build(table, kind)) for kind in ("fused", "rows"))
    x = fused.start + 0.2 * np.random.default_rng(8).normal(size=(4, len(fused.start)))
    np.testing.assert_allclose(fused.logp(x), plain.logp(x), rtol=1e-10)


def test_training_rows_with_gaps_bring_coefficients_closer_to_those_of_no_gaps():
    """Beside a refit on complete rows alone, over tables."""
    apart = []
    for seed in range(8):
        f, y, whole = world(150, 100 + seed, rate=0.2)
        some = np.isfinite(f).all(axis=1)
        best, gaps, few = (point(quiet(FREE, ensemble(*rows), method="em"))["linear_weight"]
                           for rows in ((whole, y), (f, y), (f[some], y[some])))  # fmt: skip
        apart.append([np.sum((one - best) ** 2) for one in (gaps, few)])
    gaps, few = np.mean(apart, axis=0)
    assert gaps < 0.8 * few


def test_where_the_best_member_is_missing_for_large_values_rows_with_gaps_keep_new_rows_right():
    """Complete rows are a choice of small values there: what they teach is wrong of the others."""
    f, y, _ = world(500, 9, rate=0.0)
    gone = np.random.default_rng(9).random(500) < 1.0 / (1.0 + np.exp(-3.0 * (y - 5.0)))
    f[gone, 0] = np.nan
    some = ~gone & (np.arange(500) < 300)
    new = ensemble(f[300:], y[300:])
    scores = [float(be.score(quiet(EMOS(scale=()), ensemble(*rows), method="em"), new)["crps"].mean())
              for rows in ((f[:300], y[:300]), (f[some], y[some]))]  # fmt: skip
    assert scores[0] < 0.97 * scores[1]


@pytest.mark.slow
@pytest.mark.parametrize("model", [EMOS(scale=()), FREE])
def test_sampling_and_the_approximation_agree(model):
    f, y, _ = world(200, 10)
    one, other = (quiet(model, ensemble(f, y), method=method) for method in ("auto", "nuts"))
    for name in ("linear_weight", "sigma"):
        a, b = (tree["posterior"][name] for tree in (one, other))
        sd = b.std(("chain", "draw"))
        assert np.all(abs(a.mean(("chain", "draw")) - b.mean(("chain", "draw"))) < 0.25 * sd)


# ----------------------------------------------------------------------------------------------- what is done with a fit
@pytest.mark.parametrize(("model", "method"), [(EMOS(), "em"), (EMOS(), "auto"), (EMOS(scale=()), "auto"), (FREE, "auto"),
                                               (EMOS(transform="sqrt"), "em")])  # fmt: skip
def test_grids_have_the_law_of_tables(model, method):
    f, y, _ = world(200, 11)
    tree = quiet(model, ensemble(f, y), method=method)
    new = world(60, 12, rate=0.5)[0]
    new[0] = np.nan
    given = xr.DataArray(new.reshape(6, 10, 4), dims=("y", "x", "member"), coords={"member": MEMBERS})
    grid = be.predict(tree, given, quantiles=[0.1, 0.9])
    with pytest.warns(UserWarning, match="1 of 60 rows have no member at all: their predictions are NaN"):
        table = be.predict(
            tree, be.Ensemble.from_frame(pd.DataFrame(new, columns=MEMBERS), members=MEMBERS), quantiles=[0.1, 0.9]
        )
    assert np.isnan(table["mean"].values[0])
    assert np.isfinite(table["mean"].values[1:]).all()
    for name in ("mean", "sd"):
        np.testing.assert_allclose(grid[name].values.ravel(), table[name], rtol=1e-6)
    np.testing.assert_allclose(
        grid["quantile_value"].transpose("y", "x", "quantile").values.reshape(60, 2), table["quantile_value"], rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The estimand .row. holds out")
@pytest.mark.parametrize("model", [EMOS(), FREE])
def test_leave_one_out_and_comparisons_take_rows_with_gaps(model):
    f, y, _ = world(90, 13)
    table = ensemble(f, y)
    found = be.loo(quiet(model, table), table)
    assert np.isfinite(found.elpd)
    assert found.n_data_points == 90
    rows = be.compare({"it": model, "BMA": be.BMA()}, table, estimand="row", folds=3, draws=200, random_seed=1)
    assert np.isfinite(rows["crps"]).all()
    assert rows.sizes["obs"] == 90


def test_draws_of_rows_with_gaps_have_their_spread():
    f, y, _ = world(200, 14)
    tree = quiet(EMOS(scale=()), ensemble(f, y), method="em")
    rows = ensemble(np.array([[np.nan, 5.0, 6.0, 4.0], [5.0, 5.0, 6.0, 4.0]]), [np.nan, np.nan])
    wanted, draws = be.predict(tree, rows), be.draw(tree, rows, size=20_000, random_seed=2)[:, 0]
    assert float(draws.std()) == pytest.approx(float(wanted["sd"].values[0]), rel=0.03)
    assert float(draws.mean()) == pytest.approx(float(wanted["mean"].values[0]), abs=0.03)


# ------------------------------------------------------------------------------------------------------------ bad input
def test_moments_of_other_members_than_there_are_lines_are_refused():
    with pytest.raises(
        ValueError, match=r"EMOS\(member_moments=...\) has of each member its mean and its covariances with"
    ):
        EMOS(member_moments=((1.0, 2.0, 3.0),))
    with pytest.raises(ValueError, match=r"LinearPool\(weights='simplex'\) renormalises its weights over the members"):
        LinearPool(member_moments=((1.0, 2.0),))


def test_a_leak_that_complete_rows_show_is_refused_though_others_have_gaps():
    f, y, _ = world(60, 15, rate=0.1)
    f[:, 0] = y - 0.5 * f[:, 1]
    f[:2, 0], f[3:6, 2] = 5.0, np.nan
    whole = np.isfinite(f).all(axis=1)
    f[whole, 0] = y[whole] - 0.5 * f[whole, 1]
    with pytest.raises(ValueError, match=f"in all {whole.sum()} training rows that have all members"):
        be.fit(EMOS(), ensemble(f, y), method="em")


def test_a_fit_that_was_saved_before_fills_in_nothing():
    old = {name: value for name, value in options_to_json(EMOS()).items() if name != "member_moments"}
    assert options_from_json(EMOS, old).needs_all_members
    assert not EMOS().needs_all_members
    flat = {"coefficient_prior": Prior("Normal", mu=0, sigma=9)}
    assert LinearPool(weights="free", member_moments=(), **flat).needs_all_members
