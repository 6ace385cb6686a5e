"""What is held out: every observed row once, and nothing of what is new in it among the rows learnt from."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayesens.comparison.folds.held_out_rows import ESTIMANDS, splits


def columns(n_sites=8, n_times=12, seed=1, share=0.9):
    rng = np.random.default_rng(seed)
    site = np.repeat([f"s{i}" for i in range(n_sites)], n_times)
    group = np.repeat([f"g{i % 3}" for i in range(n_sites)], n_times)
    time = np.tile(pd.date_range("2020-01-01", periods=n_times, freq="D").to_numpy(), n_sites)
    return {"site": site, "group": group, "time": time, "observed": rng.random(len(site)) < share}


@pytest.mark.parametrize("estimand", ESTIMANDS)
@given(st.integers(0, 1000), st.integers(2, 4))
def test_every_row_is_held_out_once_and_what_is_new_is_new(estimand, seed, folds):
    rows = columns(seed=seed)
    parts = splits(estimand, folds=min(folds, 3) if estimand == "group" else folds, random_seed=seed, **rows)
    assert (np.sum([part.test for part in parts], axis=0) == 1).all()
    for part in parts:
        for name in () if estimand == "row" else estimand.split("-"):
            assert not set(rows[name][part.train]) & set(rows[name][part.test])


def test_a_new_site_may_have_known_times_and_the_other_way_round():
    rows = columns()
    first = splits("site", folds=4, **rows)[0]
    assert set(rows["time"][first.train]) == set(rows["time"][first.test])
    first = splits("time", folds=4, **rows)[0]
    assert set(rows["site"][first.train]) == set(rows["site"][first.test])


def test_a_gap_keeps_neighbouring_days_away():
    rows = columns()
    for estimand in ("time", "site-time"):
        for part in splits(estimand, folds=3, gap="2D", **rows):
            test, train = rows["time"][part.test], rows["time"][part.train]
            outside = np.maximum(test.min() - train, train - test.max())
            assert outside.min() > np.timedelta64(2, "D")


def test_groups_are_held_out_one_by_one_unless_folds_are_fewer():
    rows = columns()
    assert len(splits("group", **rows)) == 3
    assert len(splits("group", folds=2, **rows)) == 2


@pytest.mark.parametrize(
    ("change", "options", "text"),
    [
        ({}, {"estimand": "sites"}, "no estimand 'sites'.*did you mean 'site'"),
        ({"time": None}, {"estimand": "time"}, "'time' needs a time in every row, and no row has one"),
        ({"site": None}, {"estimand": "site-time"}, "needs a site in every row"),
        ({}, {"estimand": "group", "folds": 4}, "4 folds of 3 groups.*folds=3"),
        ({}, {"estimand": "site", "folds": 9}, "9 folds of 8 sites with observations"),
        ({}, {"estimand": "site", "gap": 1.0}, "gap=1.0 goes with the estimands 'time' and 'site-time'"),
        ({}, {"estimand": "time", "folds": 2, "gap": "30D"}, "fold 1 of 2 .* leaves no observed row to learn from"),
    ],
)
def test_bad_input(change, options, text):
    with pytest.raises((ValueError, KeyError), match=text):
        splits(**(columns() | change | options))


def test_one_group_and_rows_without_a_label():
    rows = columns()
    with pytest.raises(ValueError, match=r"needs two groups with observations, and there is .g.*estimand 'site'"):
        splits("group", **(rows | {"group": np.full(len(rows["site"]), "g")}))
    lacking = rows["site"].copy()
    lacking[:5] = ""
    with pytest.raises(ValueError, match="5 rows have none"):
        splits("site", **(rows | {"site": lacking}))
