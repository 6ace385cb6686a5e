"""HBM with many members and few rows, and what it refuses."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import stats

import bayesens as be
from bayesens.ensemble.sufficient import statistics
from bayesens.inference.log_density import compile_target
from bayesens.inference.sampling.laplace import find_modes
from bayesens.likelihoods.multilevel.level_moments import level_moments
from bayesens.likelihoods.priors import Prior


# ------------------------------------------------------------------------------------------------- zeros under the root
def zeros(n, zero, seed=1):
    rng = np.random.default_rng(seed)
    y = rng.gamma(2.0, size=n)
    y[:zero] = 0.0
    frame = pd.DataFrame({"a": y * rng.lognormal(sigma=0.3, size=n) + 0.1, "y": y})
    return be.Ensemble.from_frame(frame, members=["a"], observation="y")


def test_many_zeros_under_the_root_are_refused():
    model = be.HBM(transform="sqrt")
    with pytest.raises(ValueError, match=r"3 of 100 observations are exactly 0 \(3\.0 %\); .*BMA\(transform='sqrt'\)"):
        be.fit(model, zeros(100, 3), progressbar=False)
    halves = [model.summarise(zeros(50, 1, seed)) for seed in (1, 2)]
    assert model.check(halves[0].merge(halves[1])) is None  # two of a hundred
    with pytest.raises(ValueError, match="4 of 150"):
        model.check(halves[0].merge(halves[1], model.summarise(zeros(50, 2, 3))))
    assert be.HBM().check(zeros(100, 30)) is None  # a zero is a value like others where no root is taken


# -------------------------------------------------------------------------------------------------------- where it begins
def test_moments_find_the_covariances_of_all_levels():
    """About 2 % off with so many units: the chance that an entry is off by more than 15 % of its variances is below 1e-4."""
    rng = np.random.default_rng(3)
    within, site, group = (
        np.diag(s) @ (0.5 + 0.5 * np.eye(3)) @ np.diag(s) for s in ([1.0, 2, 3], [2, 1, 1.0], [1.5, 3, 2])
    )
    groups, sites, rows = 1500, 4, 5
    draw = lambda covariance, n: rng.standard_normal((n, 3)) @ np.linalg.cholesky(covariance).T  # noqa: E731
    site_group = np.repeat(np.arange(groups), sites)
    index = np.repeat(np.arange(len(site_group)), rows)
    z = 7.0 + draw(group, groups)[site_group][index] + draw(site, len(site_group))[index] + draw(within, len(index))
    z[rng.random(z.shape) < 0.1] = np.nan
    found = level_moments(statistics(z, index, site_group))
    for name, true in (("within", within), ("site", site), ("group", group)):
        size = np.sqrt(np.diag(true))
        np.testing.assert_allclose(getattr(found, name) / size / size[:, None], true / size / size[:, None], atol=0.15)
    np.testing.assert_allclose(found.mean, 7.0, atol=0.5)


def test_starts_near_the_first_optimum_reach_as_far_as_its_curvature_says():
    """Optima of a standard deviation of .1, four of them apart: a start two of its own away passes the middle in one of six.

    The chance that none of 60 does is below 1e-4. A prior a thousand times as wide has no part in it.
    """
    with pm.Model() as model:
        x = pm.Normal("x", 1000.0, 100.0)
        pm.Potential("two", pm.math.logaddexp(-0.5 * ((x - 999.8) / 0.1) ** 2, -0.5 * ((x - 1000.2) / 0.1) ** 2 - 1.0))
    target = compile_target(model)
    found = find_modes(target, start=np.array([999.75]), starts=60, rng=np.random.default_rng(1), near=True)
    np.testing.assert_allclose(sorted(mode.x[0] for mode in found), [999.8, 1000.2], atol=1e-3)


def test_coordinates_of_a_correlation_go_with_the_number_of_sites():
    """One structure otherwise, so that the graph of the one table must not serve the other."""
    for sites in (60, 10, 60):
        rng = np.random.default_rng(sites)
        frame = pd.DataFrame(rng.standard_normal((4 * sites, 3)), columns=["y", "a", "b"])
        frame = frame.assign(s=[f"s{i % sites:02d}" for i in range(len(frame))])
        model = be.HBM()
        data = model.summarise(be.Ensemble.from_frame(frame, members=["a", "b"], observation="y", site="s"))
        target = compile_target(model.build(data))
        names = [rv.name for rv in target.model.free_RVs]
        own = [getattr(rv.tag, "rest", None) is not None for rv in target.model.free_RVs]
        assert own[names.index("bias_site_common")] == (sites >= 50)
        # PyMC's own parameters, where a pair has no coordinates of its own.
        moved = target.unconstrained(target.start[None] + 0.1)[0][0] - (target.start + 0.1) * target.unit
        parts = dict(zip(names, np.split(moved, np.cumsum([len(v) for v in target.named(target.start).values()])[:-1])))
        assert bool(np.abs(parts["bias_site_common"]).max() > 1e-6) == (sites >= 50)
        del target  # whose graph is free for the next then


# --------------------------------------------------------------------------------------------------- many members, few rows
def alike(members, rows, seed):
    """Training rows and 1,000 new ones; errors correlated by .5 to .97, slopes and error sds alike but not equal."""
    rng = np.random.default_rng(seed)
    n, rho = rows + 1000, rng.uniform(0.5, 0.97)
    y, common = rng.standard_normal(n), rng.standard_normal((n, 1))
    slope = rng.uniform(0.6, 1.0, members)
    sd = rng.uniform(0.3, 0.8) * rng.uniform(0.8, 1.2, members)
    error = np.sqrt(rho) * common + np.sqrt(1.0 - rho) * rng.standard_normal((n, members))
    f = rng.normal(0.0, 0.2, members) + slope * y[:, None] + sd * error
    names = [f"m{k}" for k in range(members)]
    frame = pd.DataFrame(20.0 + 5.0 * f, columns=names).assign(y=20.0 + 5.0 * y)
    return [
        be.Ensemble.from_frame(part.reset_index(drop=True), members=names, observation="y")
        for part in (frame[:rows], frame[rows:])
    ]


def coverage(model, members, rows, simulations):
    """Share of new rows that 90 % intervals hold, and those of least squares, which hold 90 % exactly, (simulation)."""
    out = []
    for seed in range(simulations):
        train, new = alike(members, rows, seed)
        # "auto" would run chains that are so short five times longer, and the shares below are the same.
        options = {"method": "nuts", "tune": 250, "draws": 250, "chains": 2, "log_likelihood": False}
        tree = be.fit(model, train, **options, random_seed=seed, progressbar=False)
        low, high = be.predict(tree, new, quantiles=(0.05, 0.95))["quantile_value"].values.T
        y = new.require_observation()
        x, to = (np.column_stack([np.ones(e.n_obs), e.prediction]) for e in (train, new))
        line, (rest,), *_ = np.linalg.lstsq(x, train.require_observation())
        spread = np.einsum("ri,ij,rj->r", to, np.linalg.inv(x.T @ x), to)
        free = rows - members - 1
        exact = np.abs(y - to @ line) <= stats.t.ppf(0.95, free) * np.sqrt(rest / free * (1.0 + spread))
        out.append((np.mean((low <= y) & (y <= high)), np.mean(exact)))
    return np.array(out).T


INDEPENDENT = be.HBM(  # members that differ as if each had come from another world
    slope_rest_prior=Prior("Normal", mu=0, sigma=0.4), error_sd_rest_prior=Prior("Normal", mu=0, sigma=0.5),
)  # fmt: skip


@pytest.mark.parametrize(("members", "rows"), [(17, 200), (10, 60)])
def test_fewer_rows_than_parameters_are_enough(members, rows):
    train, _ = alike(members, rows, 0)
    for model in (be.HBM(), be.HBM(errors="lkj"), be.HBM(errors="independent")):
        train.check_training(n_parameters=model.n_parameters(train))
    few = train.select(rows=np.arange(1 + 3 * members))
    with pytest.raises(ValueError, match=f"{few.n_obs} of {few.n_obs} rows"):
        be.fit(be.HBM(), few, progressbar=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The fit has not converged")  # so few draws
@pytest.mark.parametrize(("members", "rows", "simulations"), [(10, 60, 40), (17, 200, 10)])
def test_intervals_of_many_members_cover_new_rows(members, rows, simulations):
    """90 % intervals hold between 88 and 92 % of new rows.

    Least squares, whose intervals hold 90 % exactly, meets the same luck in the same rows: the difference from it is what
    counts. Over 100 tables of 60 rows it was -.012 with a standard error of .0015, and over 20 of 200 rows -.009 with .0013:
    over 40 and 10 tables a correct program fails with a chance below .1 %. The twin's was -.030, with .004 over 20 tables: its
    test fails with a chance below 1 %.
    """
    found, exact = coverage(be.HBM(), members, rows, simulations)
    assert abs(np.mean(found - exact)) < 0.02
    if members == 10:  # the twin, which believes in differences that are noise, falls short
        found, exact = coverage(INDEPENDENT, members, rows, 20)
        assert np.mean(found - exact) < -0.02
