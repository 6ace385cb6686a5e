"""What no model can be fitted to is refused or found: leaks, constants, too few rows, and members that are made of others."""

import numpy as np
import pandas as pd
import pytest
from door_tables import door, quiet, table
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesens.ensemble.collinear import affine_copies
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.streaming import sufficient_statistics

# Training


def test_good_training_table(ensemble):
    assert ensemble.check_training(n_parameters=6) is None


@pytest.mark.parametrize(
    ("change", "n_parameters", "text"),
    [
        ({"sm": np.nan}, 0, r"observation column 'sm' is missing in all 6 rows; wanted .*check the column"),
        ({"sm": [1, np.nan, 1, 1, 1, 1]}, 0, r"observation column 'sm' is constant \(1\) in the 5 observed rows"),
        ({"rf": np.nan}, 0, r"member 'rf' is missing in all of the 6 observed rows .*leave it out"),
        (
            {"rf": [9, *[np.nan] * 5], "sm": [np.nan, 1, 2, 3, 4, 5]},
            0,
            r"'rf' is missing in all of the 5 observed rows \(of 6\)",
        ),
        ({"rf": 0.3, "svr": 0.2}, 0, r"members 'rf', 'svr' are constant in the 6 observed rows .*leave it out"),
        (
            {"rf": [9, *[0.1] * 5], "sm": [np.nan, 1, 2, 3, 4, 5]},
            0,
            r"'rf' is constant in the 5 observed rows \(of 6\)",
        ),
        (
            {},
            7,
            r"6 of 6 rows have an observation \('sm'\) and at least one member, but the model has 7 parameters; .*add rows",
        ),
        ({"sm": [np.nan, 1, 2, 3, 4, 5]}, 6, r"5 of 6 rows"),
        (
            {"mlr": table()["sm"]},
            0,
            r"member 'mlr' is equal to the observation 'sm' in all of the 6 observed rows.*leaked.*leave it out",
        ),
        ({"mlr": table()["sm"].astype("float32")}, 0, r"'mlr' is equal to the observation"),
        ({"mlr": table()["sm"].where([True, True, True, False, False, True])}, 0, r"'mlr' is equal to the observation"),
    ],
)
def test_training_refusals(change, n_parameters, text):
    with pytest.raises(ValueError, match=text):
        door(table().assign(**change)).check_training(n_parameters=n_parameters)


def test_training_needs_observations():
    with pytest.raises(ValueError, match="no observation column"):
        Ensemble.from_frame(table(), members=["rf"]).check_training()


def test_nearly_wrong_is_right():
    near = table()["sm"].copy()
    near.iloc[2] += 1e-4
    door(table().assign(mlr=near)).check_training(n_parameters=6)
    flat = np.full(6, 0.3)
    flat[3] += 1e-6
    door(table().assign(rf=flat)).check_training()


# Exact dependence


def members(**columns):
    return quiet(pd.DataFrame(columns), list(columns))


def random(seed, n=30):
    return np.random.default_rng(seed).normal(280, 5, n)


def test_affine_copies():
    a, b = random(1), random(2)
    assert affine_copies(members(a=a, b=b, c=1.8 * a - 459.67, d=-b)) == [("a", "c"), ("b", "d")]
    assert affine_copies(members(a=a, b=a + 1e-6 * b)) == []
    assert affine_copies(members(a=a, flat=np.full(30, 3.0), flat2=np.full(30, 4.0))) == []
    assert affine_copies(members(a=a)) == []


def test_affine_copies_where_both_exist():
    a = random(1)
    gaps = np.where(np.arange(30) % 3 == 0, np.nan, 2 * a)
    assert affine_copies(members(a=a, gaps=gaps)) == [("a", "gaps")]
    # Two rows always lie on a line, and no row is no evidence.
    assert affine_copies(members(a=a, two=np.where(np.arange(30) < 2, random(2), np.nan))) == []
    even = np.arange(30) % 2 == 0
    assert affine_copies(members(a=np.where(even, a, np.nan), b=np.where(even, np.nan, a))) == []


def linear_dependence(ensemble):
    frame = ensemble.to_frame().assign(y=np.arange(ensemble.n_obs))
    observed = Ensemble.from_frame(frame, members=ensemble.members, observation="y")
    return sufficient_statistics(observed, "identity").dependent_members()


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-1e4, 1e4), st.sampled_from([-1, 1]), st.integers(0, 99))
def test_any_affine_copy_is_found(slope, offset, sign, seed):
    a = np.random.default_rng(seed).normal(size=40)
    pair = members(a=a, b=offset + sign * slope * a)
    # Adding a large offset to a small copy rounds it: that rounding, not 1e-10, is then what is left.
    if abs(offset) * 1e-16 < 1e-11 * slope:
        assert affine_copies(pair) == [("a", "b")]
        assert linear_dependence(pair) == ["a", "b"]


def test_linear_dependence():
    a, b, c, d = (random(seed) for seed in range(4))
    assert linear_dependence(members(a=a, b=b, c=c, d=d)) == []
    assert linear_dependence(members(a=a, b=b, mean=(a + b) / 2, d=d)) == ["a", "b", "mean"]
    assert linear_dependence(members(a=a, b=b, c=3 - 0.2 * a, d=d + 0.3, e=a + b - d)) == ["a", "b", "c", "d", "e"]
    assert linear_dependence(members(a=a, b=b, c=(a + b) / 2 + 1e-6 * c)) == []
    assert linear_dependence(members(a=a, flat=np.full(30, 2.0))) == ["flat"]


def test_linear_dependence_on_complete_rows():
    a, b = random(1), random(2)
    mean = np.where(np.arange(30) < 10, np.nan, (a + b) / 2)
    assert linear_dependence(members(a=a, b=b, mean=mean)) == ["a", "b", "mean"]
    few = np.where(np.arange(30) < 26, np.nan, random(3))
    assert linear_dependence(members(a=a, b=b, few=few)) == []
    assert linear_dependence(members(a=a, b=np.full(30, np.nan))) == []
