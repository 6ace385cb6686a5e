"""Transforms: inverses, Jacobians and what they refuse."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bayesens.ensemble.transforms import TRANSFORMS, transform

every = pytest.mark.parametrize("name", list(TRANSFORMS))


def test_names():
    assert list(TRANSFORMS) == ["identity", "sqrt", "log"]
    assert transform("sqrt") is TRANSFORMS["sqrt"]
    with pytest.raises(ValueError, match="Unknown transform 'cbrt'; use one of 'identity', 'sqrt', 'log'"):
        transform("cbrt")


@every
def test_inverse_turns_back(name):
    g = transform(name)
    y = np.array([1e-8, 0.3, 1.0, 250.0])
    assert_allclose(g.inverse(g.forward(y)), y, rtol=1e-14)


@every
def test_jacobian_is_the_derivative(name):
    g = transform(name)
    y = np.array([0.02, 0.3, 1.0, 250.0])
    h = 1e-5 * y
    assert_allclose(np.exp(g.log_jacobian(y)), (g.forward(y + h) - g.forward(y - h)) / (2 * h), rtol=1e-8)


def test_root_of_what_lies_below_zero_is_zero():
    assert_array_equal(transform("sqrt").inverse(np.array([-3.0, 0.0])), 0.0)


def test_domains():
    y = np.array([3.0, 0.0, np.nan, -1.0])
    transform("identity").check(y, column="flow")
    transform("sqrt").check(y[:3], column="flow")
    transform("log").check(y[[0, 2]], column="flow")
    transform("log").check([], column="flow")


@pytest.mark.parametrize(
    ("name", "y", "message"),
    [
        ("log", [3.0, 0.0, 2.0, 0.0], "Column 'flow' has 2 of 4 values not above 0, which transform='log' cannot take: "
         r"rows 1, 3 \(counted from 0\)\. Use transform='sqrt', which takes zeros, or set them to missing\."),
        ("log", [3.0, 0.0, -2.0], r"rows 1, 2 \(counted from 0\)\. .*transform='identity'"),
        ("sqrt", [0.0, -2.0], "Column 'flow' has 1 of 2 values below 0, .* row 1 .* transform='identity'"),
        ("sqrt", -np.arange(1.0, 10.0), r"9 of 9 values .* rows 0, 1, 2, 3, 4, \.\.\."),
        ("sqrt", [[1.0, 1.0], [-1.0, -1.0]], "2 of 4 values .* row 1 "),
    ],
)  # fmt: skip
def test_values_outside_the_domain(name, y, message):
    with pytest.raises(ValueError, match=message):
        transform(name).check(y, column="flow")
