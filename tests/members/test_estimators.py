"""The default members: they obey scikit-learn, hold out whole stations, and keep every station's share of rows."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from bayesens.members.estimators import EarlyStoppedXGB, RowCap, default_estimators, seeded


@parametrize_with_checks([EarlyStoppedXGB(n_estimators=50, min_child_weight=1.0), RowCap(Ridge())])
def test_scikit_learn_estimator_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def stations():
    """Ten stations of 40 rows, each with a level of its own that a covariate gives away."""
    rng = np.random.default_rng(1)
    station = np.repeat(np.arange(10), 40)
    level = rng.normal(size=10)[station]
    X = np.column_stack([rng.normal(size=400), level])
    return X, 0.5 * X[:, 0] + rng.normal(size=10)[station] + 0.1 * rng.normal(size=400), station


def test_boosting_stops_on_whole_stations_and_then_takes_all_rows(stations):
    import xgboost as xgb

    X, y, station = stations
    model = EarlyStoppedXGB(random_state=3).fit(X, y, groups=station)
    held = np.isin(station, model.validation_groups_)
    assert len(model.validation_groups_) == 2
    assert held.sum() == 80
    # The same by hand: early stopping with xgboost's own class, then so many trees on all rows.
    rng = np.random.RandomState(3)
    rng.permutation(np.unique(station))
    seed = int(rng.randint(2**31 - 1))
    names = ("learning_rate", "max_depth", "min_child_weight", "subsample", "colsample_bytree", "reg_lambda")
    common = {name: getattr(model, name) for name in names} | {"random_state": seed, "n_jobs": 1}
    tried = xgb.XGBRegressor(n_estimators=1000, early_stopping_rounds=50, **common)
    tried.fit(X[~held], y[~held], eval_set=[(X[held], y[held])], verbose=False)
    assert tried.best_iteration + 1 == model.n_trees_ < 1000
    again = xgb.XGBRegressor(n_estimators=model.n_trees_, **common).fit(X, y)
    np.testing.assert_allclose(model.predict(X), again.predict(X), rtol=1e-5, atol=1e-6)


def test_stations_stop_boosting_earlier_than_rows(stations):
    """The stations' levels cannot be learnt for new ones; a row-wise split would not notice."""
    X, y, station = stations
    by_station = EarlyStoppedXGB(random_state=3).fit(X, y, groups=station)
    by_row = EarlyStoppedXGB(random_state=3).fit(X, y)
    assert by_station.n_trees_ < by_row.n_trees_


def test_one_station_has_nothing_to_hold_out(stations):
    X, y, _ = stations
    model = EarlyStoppedXGB(n_estimators=7, random_state=1).fit(X, y, groups=np.zeros(400))
    assert model.n_trees_ == 7


def test_same_seed_same_bits_other_seed_other_trees(stations):
    X, y, station = stations
    one, two, other = (EarlyStoppedXGB(random_state=seed).fit(X, y, groups=station).predict(X) for seed in (1, 1, 2))
    assert (one == two).all()
    assert (one != other).any()


def test_row_cap_takes_every_stations_share_and_spreads_it_over_time():
    station = np.tile(np.arange(4), 250)
    X = np.arange(1000.0)[:, None]
    capped = RowCap(LinearRegression(), max_rows=100, random_state=1).fit(X, X[:, 0], groups=station)
    assert np.bincount(station[capped.rows_]).tolist() == [25] * 4
    for name in range(4):  # ten rows of a station are a run: one is drawn from each
        assert (np.flatnonzero(station == name).searchsorted(capped.rows_[station[capped.rows_] == name]) // 10
                == np.arange(25)).all()  # fmt: skip
    assert len(RowCap(LinearRegression(), max_rows=1000).fit(X, X[:, 0]).rows_) == 1000


def test_seeded_fills_only_what_is_open_and_by_name():
    made = seeded(RowCap(EarlyStoppedXGB(random_state=5), random_state=None), 1)
    assert made.estimator.random_state == 5
    assert isinstance(made.random_state, int)
    assert seeded(EarlyStoppedXGB(), 1).random_state == seeded(EarlyStoppedXGB(), 1).random_state
    assert seeded(EarlyStoppedXGB(), 1).random_state != seeded(EarlyStoppedXGB(), 2).random_state


def test_defaults_take_missing_covariates_and_units_do_not_matter(stations):
    X, y, station = stations
    X = np.where(np.random.default_rng(2).random(X.shape) < 0.1, np.nan, X)
    for name, estimator in default_estimators(random_seed=1).items():
        extra = {"groups": station} if name in ("svr", "xgb") else {}
        first = clone(estimator).fit(X, y, **extra).predict(X)
        assert np.isfinite(first).all()
        # In percent in place of fractions: the same predictions, 100 times as large.
        scaled = clone(estimator).fit(X, 100 * y, **extra).predict(X)
        np.testing.assert_allclose(scaled, 100 * first, rtol=2e-2, atol=2 * 100 * y.std() * 1e-2)
