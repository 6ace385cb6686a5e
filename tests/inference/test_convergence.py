"""When a fit counts as not converged: a few divergences alone do not make it so, many do, and the number is kept."""

import warnings

import numpy as np
import pytest
import xarray as xr

from bayesens.inference.fit import _convergence


def checked(diverging, shift=0.0, draws=1000):
    """Independent draws of four chains, the first one shifted; what is kept, and what is said."""
    x = np.random.default_rng(1).normal(size=(4, draws))
    x[0] += shift
    stats = {"diverging": np.arange(4 * draws).reshape(4, draws) < diverging}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept = _convergence(xr.Dataset({"bias": (("chain", "draw"), x)}), stats, tune=500, draws=draws)
    return kept, [str(one.message) for one in caught]


@pytest.mark.parametrize("diverging", [0, 1, 2, 8])
def test_few_divergences_of_4000_do_not_make_a_fit_not_converged(diverging):
    kept, said = checked(diverging)
    assert said == []
    assert kept["divergences"] == diverging


@pytest.mark.parametrize("diverging", [9, 200])
def test_many_divergences_do(diverging):
    kept, said = checked(diverging)
    assert kept["divergences"] == diverging
    assert len(said) == 1
    assert said[0].startswith(f"The fit has not converged: {diverging} of 4000 transitions diverged. Raise tune=500")


def test_few_divergences_are_named_beside_chains_that_disagree():
    kept, said = checked(2, shift=1.0)
    assert kept["rhat_max"] > 1.01
    assert "R-hat is" in said[0]
    assert "2 of 4000 transitions diverged" in said[0]
