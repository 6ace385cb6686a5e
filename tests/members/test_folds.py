"""Folds: sites stay whole, folds are even, groups are spread, and the order of the rows does not matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesens.members.folds import custom_folds, given_labels, site_folds, time_folds


@st.composite
def tables(draw):
    sizes = draw(st.lists(st.integers(1, 30), min_size=2, max_size=20))
    site = np.repeat([f"s{i}" for i in range(len(sizes))], sizes)
    groups = draw(st.lists(st.sampled_from("abc"), min_size=len(sizes), max_size=len(sizes)))
    return site, np.repeat(groups, sizes), sizes


@settings(max_examples=100, deadline=None)
@given(tables(), st.integers(2, 8), st.one_of(st.none(), st.integers(0, 100)))
def test_site_folds_keep_sites_whole_and_even(table, folds, seed):
    site, _, sizes = table
    folds = min(folds, len(sizes))
    fold = site_folds(site, folds=folds, random_seed=seed)
    assert all(len(set(fold[site == name])) == 1 for name in set(site))
    load = np.bincount(fold, minlength=folds)
    assert (load > 0).all()
    assert load.max() - load.min() <= max(sizes)  # Graham's bound for a deal to the lightest


@settings(max_examples=100, deadline=None)
@given(tables(), st.integers(2, 6), st.integers(0, 100))
def test_site_folds_spread_groups_and_leave_no_fold_empty(table, folds, seed):
    site, group, sizes = table
    folds = min(folds, len(sizes))
    fold = site_folds(site, folds=folds, group=group, random_seed=seed)
    assert set(fold) == set(range(folds))
    for name in set(group):
        sites = np.unique(site[group == name])
        count = np.bincount([fold[site == one][0] for one in sites], minlength=folds)
        assert count.max() - count.min() <= 1


@settings(max_examples=50, deadline=None)
@given(tables(), st.integers(0, 100))
def test_site_folds_do_not_depend_on_the_order_of_rows(table, seed):
    site, group, _ = table
    order = np.random.default_rng(seed).permutation(len(site))
    fold = site_folds(site, folds=2, group=group, random_seed=seed)
    assert (site_folds(site[order], folds=2, group=group[order], random_seed=seed) == fold[order]).all()


def test_rows_without_weight_do_not_count_but_sites_with_weight_fill_every_fold():
    site = np.repeat(["a", "b", "c", "d"], [100, 5, 5, 5])
    weight = (site != "a").astype(float)
    fold = site_folds(site, folds=3, weight=weight)
    assert np.bincount(fold, weight).tolist() == [5, 5, 5]


def test_seeds_give_other_folds_and_each_the_same_again():
    site = np.repeat(np.arange(12), np.arange(20, 32))
    found = {tuple(site_folds(site, folds=4, random_seed=seed)) for seed in range(20)}
    assert len(found) > 10
    assert (site_folds(site, folds=4, random_seed=3) == site_folds(site, folds=4, random_seed=3)).all()


def test_too_few_sites_or_folds_are_refused():
    with pytest.raises(ValueError, match="5 folds of 2 sites with observations; wanted at most as many folds: folds=2"):
        site_folds(["a", "b", "b"])
    with pytest.raises(ValueError, match="folds is 1; wanted a whole number of at least 2"):
        site_folds(["a", "b"], folds=1)
    with pytest.raises(ValueError, match="3 folds of 2 times"):
        time_folds([1, 1, 2], folds=3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 15), min_size=2, max_size=60), st.integers(2, 8), st.integers(0, 2**32))
def test_time_folds_are_contiguous_and_none_is_empty(times, folds, seed):
    time = np.array(times)
    rng = np.random.default_rng(seed)
    weight = rng.choice([0.0, 1.0, 2.0, 50.0], len(time))
    heavy = len(np.unique(time[weight > 0]))
    if heavy < 2:
        return
    folds = min(folds, heavy)
    fold = time_folds(time, folds=folds, weight=weight)
    assert set(fold[weight > 0]) == set(range(folds))
    order = np.argsort(time, kind="stable")
    assert (np.diff(fold[order]) >= 0).all()
    assert all(len(set(fold[time == one])) == 1 for one in time)


def test_a_heavy_day_leaves_no_block_empty():
    """The third day alone is more than three quarters of all rows."""
    assert time_folds(np.arange(5), folds=4, weight=[1, 1, 20, 1, 1]).tolist() == [0, 0, 1, 2, 3]


def test_time_folds_of_equal_days_are_equal():
    assert np.bincount(time_folds(np.arange(100), folds=5)).tolist() == [20] * 5


def test_custom_folds_want_a_label_in_every_row():
    with pytest.raises(ValueError, match="has no fold in 1 of 2 rows"):
        given_labels(["a", None], 2)
    with pytest.raises(ValueError, match=r"has shape \(1,\)"):
        given_labels(["a"], 2)
    with pytest.raises(ValueError, match="one fold only"):
        custom_folds([1, 1])
