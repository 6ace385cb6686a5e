"""Lines at known sites against conditioning of one long normal vector: all rows of the training table and a new one."""

import numpy as np
import pytest

from bayesens.ensemble.sufficient import statistics
from bayesens.likelihoods.multilevel.effects import group_moments
from bayesens.likelihoods.multilevel.known_sites import KnownSites

DRAWS, P = 3, 4


def covariances(rng, *, zero=False):
    root = rng.normal(size=(DRAWS, P, P + 1))
    return np.zeros((DRAWS, P, P)) if zero else root @ root.swapaxes(1, 2) / P


def problem(seed, *, grouped, missing):
    rng = np.random.default_rng(seed)
    site_group = np.array([0, 0, 0, 1, 1]) if grouped else np.zeros(5, dtype=int)
    site = np.repeat(np.arange(5), [1, 3, 3, 2, 6])
    z = rng.normal(1.0, 2.0, (len(site), P))
    if missing:
        z[np.isin(site, [1, 4])[:, None] & (rng.random(z.shape) < 0.3) & (np.arange(P) > 0)] = np.nan
    levels = covariances(rng), covariances(rng), covariances(rng, zero=not grouped)
    return rng.normal(size=(DRAWS, P)), *levels, z, site, site_group


def conditioned(draw, unit, columns, f, mean, within, site_cov, group_cov, z, site, site_group):
    """Mean and variance of y in a new row of a site, given its members and all rows, by the joint normal of all of them."""
    rows = np.vstack([z, np.full(P, np.nan)])
    rows[-1, 0], rows[-1, columns] = 0.0, f
    at = np.append(site, unit)
    row, column = np.nonzero(np.isfinite(rows))
    pick = np.ix_(column, column)
    same = np.equal.outer
    total = (same(row, row) * within[draw][pick] + same(at[row], at[row]) * site_cov[draw][pick]
             + same(site_group[at[row]], site_group[at[row]]) * group_cov[draw][pick])  # fmt: skip
    is_y = (row == len(z)) & (column == 0)
    others = np.linalg.solve(total[np.ix_(~is_y, ~is_y)], total[~is_y][:, is_y])[:, 0]
    away = rows[row, column][~is_y] - mean[draw][column[~is_y]]
    return mean[draw][0] + others @ away, total[is_y, is_y][0] - others @ total[~is_y, is_y]


@pytest.mark.parametrize("columns", [[1, 2, 3], [1, 3], [2], []])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_lines_are_those_of_the_joint_normal(grouped, missing, columns):
    for seed in range(2):
        mean, within, site_cov, group_cov, z, site, site_group = table = problem(seed, grouped=grouped, missing=missing)
        data = statistics(z, site, site_group)
        groups = group_moments(mean, within, site_cov, group_cov, data=data)
        known = KnownSites(mean, within, site_cov, *groups, data=data)
        f = np.random.default_rng(seed).normal(size=len(columns))
        for unit in range(5):
            line = known.line(unit, np.array(columns, dtype=int))
            for draw in range(DRAWS):
                wanted, variance = conditioned(draw, unit, columns, f, *table)
                assert line.intercept[draw] + line.slope[draw] @ f == pytest.approx(wanted, rel=1e-9)
                assert line.variance[draw] == pytest.approx(variance, rel=1e-9)


def test_an_effect_without_variance_is_no_obstacle():
    mean, within, site_cov, group_cov, z, site, site_group = problem(3, grouped=False, missing=False)
    site_cov[:, 1:, 1:] = site_cov[:, 1:, :1] * site_cov[:, :1, 1:] / site_cov[:, :1, :1]  # of rank one
    table = mean, within, site_cov, group_cov, z, site, site_group
    data = statistics(z, site, site_group)
    known = KnownSites(mean, within, site_cov, *group_moments(mean, within, site_cov, group_cov, data=data), data=data)
    line = known.line(4, np.array([1, 2, 3]))
    wanted, variance = conditioned(0, 4, [1, 2, 3], np.ones(3), *table)
    assert line.intercept[0] + line.slope[0].sum() == pytest.approx(wanted, rel=1e-9)
    assert line.variance[0] == pytest.approx(variance, rel=1e-9)
