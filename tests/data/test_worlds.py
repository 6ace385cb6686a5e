"""Worlds with known truth: the law that each states is the law of its rows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bayesens.comparison.ladder import EFFECTS
from bayesens.worlds import WORLDS, world


def large(name, seed=1):
    """50,000 rows: means are known to .5 % of an sd, correlations to .005."""
    simulated = world(name, sites=2500, times=20, random_seed=seed)
    frame, truth = simulated.frame, simulated.truth
    members = list(truth["bias_site"].columns)
    f = frame[members].to_numpy() - truth["bias_site"].loc[frame["site"]].to_numpy()
    return f, frame["y"].to_numpy(), truth


@pytest.mark.parametrize("name", ["dependence", "offsets", "exchangeable"])
def test_the_law_is_that_of_a_regression_on_many_rows(name):
    """Errors of 4.5 standard errors; a correct program has a chance below .1 % to leave these limits."""
    f, y, truth = large(name)
    design = np.column_stack([np.ones(len(y)), f])
    found, _, _, _ = np.linalg.lstsq(design, y)
    residual = y - design @ found
    error = 4.5 * np.sqrt(np.diag(np.linalg.inv(design.T @ design))) * residual.std()
    assert (np.abs(found - [0.0, *truth["linear_weight"]]) < error).all()
    assert residual.std() == pytest.approx(truth["sd"], rel=4.5 / np.sqrt(2 * len(y)))
    assert_allclose(np.corrcoef((f - y[:, None]).T), truth["error_corr"], atol=0.02)


def test_one_member_of_the_mixture_is_right():
    """The one that is right lies within the kernel's sd of y: half of the rows each, and as many between as a normal has."""
    f, y, truth = large("mixture")
    distance = np.abs(f - y[:, None])
    nearest = distance.argmin(axis=1)
    assert_allclose(np.bincount(nearest) / len(y), truth["weight"], atol=4.5 * 0.5 / np.sqrt(len(y)))
    apart = np.abs(f[:, 0] - f[:, 1]) > 10 * truth["sigma"].iloc[0]  # where there is no doubt which one it is
    inside = distance.min(axis=1)[apart] < truth["sigma"].iloc[0]
    assert inside.mean() == pytest.approx(0.6827, abs=4.5 * 0.47 / np.sqrt(apart.sum()))


def test_what_the_worlds_are_about():
    """Facts that make the right effect the largest one, in closed form."""
    weight = world("dependence", sites=1, times=1, random_seed=1).truth["linear_weight"]
    assert weight.min() < -0.3
    assert weight.sum() == pytest.approx(1, abs=0.05)
    offset = world("offsets", random_seed=1).truth["bias_site"]
    assert (offset.nunique(axis=1) == 1).all()
    assert offset["m1"].std() > 0.6  # of 1, with 24 stations: four standard errors
    even = world("exchangeable", sites=1, times=1, random_seed=1).truth
    assert np.ptp(even["linear_weight"]) < 1e-12
    assert even["sd"] / 1.5 > 0.99  # nothing that the members say is worth 1 % of the CRPS
    assert {effect for one in WORLDS.values() for effect in one.effects} <= {effect for effect, *_ in EFFECTS}


def test_known_stations_at_new_times():
    first = world("offsets", sites=4, times=3, random_seed=1)
    again = world("offsets", times=2000, offset=first.truth["bias_site"].iloc[:2], random_seed=2)
    assert again.frame["site"].unique().tolist() == ["s01", "s02"]
    bias = (again.frame["m2"] - again.frame["y"]).groupby(again.frame["site"]).mean()
    assert_allclose(bias, first.truth["bias_site"]["m2"].iloc[:2], atol=4.5 * 0.5 / np.sqrt(2000))
    assert world("offsets", random_seed=3).frame.equals(world("offsets", random_seed=3).frame)


def test_bad_input():
    with pytest.raises(KeyError, match=r"no world 'mixtur'.*did you mean 'mixture'"):
        world("mixtur", random_seed=1)
    with pytest.raises(
        ValueError, match=r"a world of 0 stations and 30 times has no rows; ask for at least one of each"
    ):
        world("mixture", sites=0, random_seed=1)
    with pytest.raises(
        ValueError, match=r"offset has the members \['m1', 'm2'\], and the world 'offsets' \['m1', 'm2', 'm3'\]"
    ):
        world("offsets", offset=world("mixture", random_seed=1).truth["bias_site"], random_seed=1)
