"""Rows as the models take them: who stays, on which scale, and under which code."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import codes, flat, level_rows, prediction_rows, training_rows

FRAME = pd.DataFrame({
    "a": [1.0, 4.0, np.nan, 9.0, np.nan, 16.0], "b": [4.0, np.nan, np.nan, 1.0, 4.0, 9.0],
    "y": [1.0, 4.0, 9.0, np.nan, 16.0, 25.0], "s": ["z", "a", "z", "z", "a", "m"],
})  # fmt: skip


def ensemble(frame=FRAME, **options):
    return Ensemble.from_frame(frame, members=["a", "b"], observation="y", **options)


@pytest.fixture
def rows():
    with pytest.warns(UserWarning, match="missing in 1 of 6 rows"):
        return ensemble(site="s")


def test_training_rows_have_an_observation_and_where_needed_a_member(rows):
    np.testing.assert_array_equal(training_rows(rows, "identity", need_member=True).index, [0, 1, 4, 5])
    np.testing.assert_array_equal(training_rows(rows, "identity", need_member=False).index, [0, 1, 2, 4, 5])
    np.testing.assert_array_equal(prediction_rows(rows, "identity").index, np.arange(6))


@pytest.mark.parametrize(("name", "forward"), [("identity", lambda x: x), ("sqrt", np.sqrt), ("log", np.log)])
def test_one_transform_applies_to_observation_and_members_alike(rows, name, forward):
    out = training_rows(rows, name, need_member=True)
    np.testing.assert_allclose(out.y, forward(np.array([1.0, 4.0, 16.0, 25.0])))
    f = FRAME[["a", "b"]].to_numpy()[[0, 1, 4, 5]]
    np.testing.assert_array_equal(out.available, np.isfinite(f))
    np.testing.assert_allclose(out.f, np.where(np.isfinite(f), forward(f), 0.0))
    assert np.all(np.isfinite(out.f))
    np.testing.assert_allclose(out.z, np.column_stack([out.y, forward(f)]))


def test_rows_without_an_observation_column_are_predicted():
    out = prediction_rows(Ensemble.from_frame(FRAME.loc[[0, 1]], members=["a", "b"]), "sqrt")
    assert np.isnan(out.y).all()
    np.testing.assert_allclose(out.f[:, 0], [1.0, 2.0])


def test_values_outside_the_domain_of_a_transform_are_an_error_that_names_column_and_rows():
    frame = FRAME.dropna(ignore_index=True)
    with pytest.raises(ValueError, match=r"Column 'b' has 1 of 2 values below 0, which transform='sqrt' .*row 1"):
        training_rows(ensemble(frame.assign(b=[4.0, -1.0])), "sqrt", need_member=True)
    with pytest.raises(ValueError, match=r"Column 'y' has 1 of 2 values not above 0, which transform='log' .*row 0"):
        training_rows(ensemble(frame.assign(y=[0.0, 1.0])), "log", need_member=True)


def test_too_few_rows_are_an_error_that_counts_them():
    few = FRAME.assign(y=[np.nan, np.nan, 9.0, np.nan, 16.0, np.nan])
    with pytest.warns(UserWarning, match="missing in 1 of 6 rows"):
        table = ensemble(few)
    with pytest.raises(ValueError, match="Only 1 of 6 rows have an observation and a member; a fit needs at least two"):
        training_rows(table, "identity", need_member=True)
    assert len(training_rows(table, "identity", need_member=False).y) == 2


def test_levels_are_those_of_the_rows_in_use_sorted(rows):
    names, code = level_rows(rows, "site", np.array([0, 1, 4]))
    assert names.tolist() == ["a", "z"]
    assert code.tolist() == [1, 0, 0]


def test_levels_that_are_not_there_are_errors_that_say_what_to_do(rows):
    with pytest.raises(
        ValueError, match=r"has group effects but the ensemble has no group column.*group=\.\.\..*group=False"
    ):
        level_rows(rows, "group", np.arange(6))
    with pytest.warns(UserWarning, match="missing in 1 of 6 rows"):
        blank = ensemble(FRAME.assign(s=["z", None, "z", None, "a", "m"]), site="s")
    with pytest.raises(
        ValueError, match=r"1 of 3 training rows have no site label.*label these rows, drop them, or set site=False"
    ):
        level_rows(blank, "site", np.array([0, 1, 2]))
    assert level_rows(blank, "site", np.array([0, 2]))[0].tolist() == ["z"]


def test_codes_are_positions_among_the_levels_of_the_fit():
    labels = np.array(["b", "", "zz", "a", "b"])
    assert codes(labels, np.array(["a", "b"]), 5).tolist() == [1, -1, -1, 0, 1]
    assert codes(None, ["a"], 3).tolist() == [-1, -1, -1]
    assert codes(labels, [], 5).tolist() == [-1] * 5


def test_flat_puts_chains_and_draws_in_front_in_their_order():
    values = np.arange(24).reshape(3, 2, 4)
    array = xr.DataArray(values, dims=("member", "chain", "draw"))
    assert flat(array).shape == (8, 3)
    np.testing.assert_array_equal(flat(array)[5], values[:, 1, 1])
