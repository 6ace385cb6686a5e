"""Checks of a training table do not depend on where zero lies, nor on the unit."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import bayesens as be
from bayesens.ensemble.collinear import EXACT, _affine, affine_copies, constant
from bayesens.ensemble.streaming import sufficient_statistics
from bayesens.likelihoods.training_checks import check_residuals, refuse_exact, warn_copies
from bayesens.members.correlations import inflation_factors

MEMBERS = ["a", "b", "c"]
N = 60
rng = np.random.default_rng(1)
TRUTH = rng.normal(size=N)
ERRORS = 0.4 * rng.normal(size=N)[:, None] + np.array([0.5, 0.6, 0.7]) * rng.normal(size=(N, 3))

shifts = st.sampled_from([0.0, 1e8, -1e8]) | st.floats(-1e8, 1e8)
scales = st.floats(-6.0, 6.0).map(lambda power: 10.0**power)
anywhere = settings(max_examples=60, deadline=None)


def table(shift, scale, f):
    frame = pd.DataFrame(shift + scale * f, columns=MEMBERS).assign(y=shift + scale * TRUTH)
    return be.Ensemble.from_frame(frame, members=MEMBERS, observation="y")


def rows_of(ensemble):
    from bayesens.ensemble.rows import training_rows

    return training_rows(ensemble, "identity", need_member=True)


@given(shifts, scales)
@example(1e8, 1e-6)
@example(1e8, 4.0)
@example(-1e8, 1e6)
@anywhere
def test_honest_members_pass_wherever_zero_lies(shift, scale):
    ensemble = table(shift, scale, TRUTH[:, None] + ERRORS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ensemble.check_training(n_parameters=5)
        assert affine_copies(ensemble) == []
        assert sufficient_statistics(ensemble, "identity").dependent_members() == []
        rows = rows_of(ensemble)
        refuse_exact(rows, ensemble.members)
        warn_copies(ensemble, rows)
        check_residuals(rows, ensemble.members, "linear", "identity")


@given(shifts, scales, st.booleans())
@example(1e8, 1e-6, True)
@example(1e8, 4.0, False)
@anywhere
def test_copies_of_the_observation_are_refused_wherever_zero_lies(shift, scale, single):
    """As it is, or through a file of single precision."""
    f = TRUTH[:, None] + ERRORS
    ensemble = table(shift, scale, f)
    y = ensemble.observation.astype(np.float32).astype(float) if single else ensemble.observation
    if np.ptp(y) <= 1e-12 * np.abs(y).max():  # single precision has left nothing that varies
        return
    frame = pd.DataFrame(ensemble.prediction, columns=MEMBERS).assign(b=y, y=ensemble.observation)
    with pytest.raises(ValueError, match=r"member 'b' is equal to the observation 'y'|'b' is constant"):
        be.Ensemble.from_frame(frame, members=MEMBERS, observation="y").check_training()


@given(shifts, scales)
@example(1e8, 1e-3)
@example(1e8, 1.0)
@anywhere
def test_exact_dependence_is_found_wherever_zero_lies(shift, scale):
    assume(abs(shift) < 1e13 * scale)  # else rounding is a hundredth of the values' own spread, and nothing is exact
    f = table(shift, scale, TRUTH[:, None] + ERRORS).prediction
    y = shift + scale * TRUTH

    def ensemble(values):
        frame = pd.DataFrame(values, columns=MEMBERS).assign(y=y)
        return be.Ensemble.from_frame(frame, members=MEMBERS, observation="y")

    copied = ensemble(np.column_stack([f[:, 0], f[:, 1], 2.0 * f[:, 0] + 3.0 * scale]))
    assert affine_copies(copied) == [("a", "c")]
    assert sufficient_statistics(copied, "identity").dependent_members() == ["a", "c"]
    meant = ensemble(np.column_stack([f[:, 0], f[:, 1], 0.5 * (f[:, 0] + f[:, 1])]))
    assert sufficient_statistics(meant, "identity").dependent_members() == MEMBERS
    leaked = rows_of(ensemble(np.column_stack([f[:, 0], 2.0 * y + 3.0 * scale, f[:, 2]])))
    with pytest.raises(ValueError, match="member 'b' reproduces the observation exactly"):
        refuse_exact(leaked, tuple(MEMBERS))


def test_errors_of_a_few_units_at_a_hundred_million_are_errors():
    """Single precision has steps of 8 there, and errors of 4 were taken for its rounding."""
    y = 1e8 + 20.0 * TRUTH
    f = y[:, None] + 4.0 * ERRORS / ERRORS.std(axis=0)
    frame = pd.DataFrame(f, columns=MEMBERS).assign(y=y)
    ensemble = be.Ensemble.from_frame(frame, members=MEMBERS, observation="y")
    for model in (be.LinearPool(), be.EMOS()):
        tree = be.fit(model, ensemble, method="em")
        assert 2.0 < float(tree["posterior"]["sigma"].squeeze()) < 5.0


@pytest.mark.parametrize("where", [1.0, 293.15, 1e8, 1e-9])
def test_constants_are_told_from_small_changes(where):
    flat = np.full(1000, where)
    assert constant(flat)
    assert constant(flat * 1.1 / 1.1)
    assert constant(np.array([np.full(n, 1.1 * where).sum() / n for n in range(1, 500)]))
    assert not constant(where * (1.0 + 1e-13 * np.random.default_rng(2).normal(size=1000)))


def test_covariates_far_from_zero_are_not_constant():
    """Inflation factors by numpy: the diagonal of the inverse correlation matrix."""
    x = np.random.default_rng(3).normal(size=(200, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    expected = np.diag(np.linalg.inv(np.corrcoef(x.T)))
    found = inflation_factors(pd.DataFrame(1e8 + 1e-4 * x))
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("seed", range(20))
def test_copies_among_many_members_are_those_of_all_pairs_one_by_one(seed):
    rng = np.random.default_rng(seed)
    n, origin = int(rng.integers(4, 60)), float(rng.choice([0.0, 1e4, 1e8]))
    base = rng.normal(size=(n, 3))
    columns = [base[:, 0], base[:, 1], 3.0 - 2.0 * base[:, 0], base[:, 0] + 1e-5 * base[:, 1], base[:, 2],
               base[:, 2] + 1e-12 * base[:, 1], np.full(n, 2.0), 0.5 * base[:, 1]]  # fmt: skip
    values = origin + np.column_stack(columns)
    values[rng.random(values.shape) < rng.choice([0.0, 0.4])] = np.nan
    names = [f"m{k}" for k in range(values.shape[1])]
    ensemble = be.Ensemble.from_frame(pd.DataFrame(values, columns=names), members=names)
    there = ensemble.prediction
    slowly = [
        (names[i], names[j])
        for i in range(len(names))
        for j in range(i + 1, len(names))
        if _affine(there[:, [i, j]], EXACT)
    ]
    assert affine_copies(ensemble) == slowly
