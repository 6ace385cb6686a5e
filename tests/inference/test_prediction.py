"""A prediction made once says what the verbs say, of all rows and of some."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayesens as be
from bayesens.inference.predict import distribution
from bayesens.inference.prediction import prediction


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(3)
    y = rng.gamma(9.0, 0.03, 60)
    frame = pd.DataFrame({"a": y + rng.normal(0, 0.02, 60), "b": y + rng.normal(0, 0.03, 60), "y": y}).abs()
    frame.loc[::5, "y"] = np.nan
    table = be.Ensemble.from_frame(frame, members=["a", "b"], observation="y")
    return be.fit(be.BMA(group=False, site=False, transform="sqrt"), table, method="em"), table


def test_one_prediction_serves_all_verbs(fitted):
    tree, table = fitted
    made = prediction(tree, table)
    xr.testing.assert_identical(made.summary(), be.predict(tree, table))
    xr.testing.assert_identical(made.of(table.observed).scores(), be.score(tree, table))
    xr.testing.assert_identical(made.draw(3, random_seed=1), be.draw(tree, table, size=3, random_seed=1))
    np.testing.assert_array_equal(made.law.quantile(0.9), distribution(tree, table).quantile(0.9))


def test_the_law_is_matched_once_and_all_rows_are_no_new_prediction(fitted):
    tree, table = fitted
    made = prediction(tree, table)
    assert made.of(np.full(60, True)) is made
    law = made.law
    made.summary()
    assert made.law is law
    assert made.of(table.observed).number.tolist() == np.flatnonzero(table.observed).tolist()
