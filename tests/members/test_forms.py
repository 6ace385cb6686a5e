"""Compiled forms of estimators: the leaves that scikit-learn finds, its sums to 1e-5 of the spread, its own predict elsewhere."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVR, NuSVR
from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor
from sklearn.utils import get_tags
from xgboost import XGBRegressor

import bayesens as be
from bayesens.members.estimators import EarlyStoppedXGB, RowCap
from bayesens.members.fast.forms import form_of, quick
from shared_data import shared_data

COLUMNS = ["a", "b", "c", "d", "e"]


def table(n, seed=1, gaps=0.1, whole=False):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(COLUMNS))) * [1.0, 10.0, 1e-3, 1e6, 1.0]
    x[:, 4] = rng.integers(0, 4, n)
    if whole:
        x = np.round(x * [3.0, 0.3, 3e3, 3e-6, 1.0])
    x[rng.random(x.shape) < gaps] = np.nan
    return pd.DataFrame(x, columns=COLUMNS)


def target(X, seed=1):
    z = X.fillna(0.0).to_numpy() / [1.0, 10.0, 1e-3, 1e6, 1.0]
    return 3.0 + z[:, 0] + np.sin(z[:, 1]) + z[:, 4] * z[:, 2] + np.random.default_rng(seed).normal(0, 0.3, len(z))


def check(estimator, X, new, *, exact=False, says="compiled"):
    """Fit, and compare what the form says with what the estimator does, whole and row by row."""
    y = target(X)
    fitted = estimator.fit(X, y)
    form = form_of(fitted, X.shape[1])
    assert form.text.startswith(says), form.text
    wanted, found = fitted.predict(new), form.predict(new)
    if exact:
        np.testing.assert_array_equal(found, wanted)
    else:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * y.std())
    some = pd.concat([new.iloc[3:4], new.iloc[7:16]])  # other rows beside a row change nothing
    np.testing.assert_allclose(form.predict(some), found[[3, *range(7, 16)]], rtol=1e-13)
    return form


TREES = [
    RandomForestRegressor(20, min_samples_leaf=3, random_state=1),
    RandomForestRegressor(5, max_features=1 / 3, criterion="absolute_error", min_samples_leaf=20, random_state=1),
    ExtraTreesRegressor(10, random_state=1),
    DecisionTreeRegressor(random_state=1),
    ExtraTreeRegressor(random_state=1),
    GradientBoostingRegressor(n_estimators=30, random_state=1),
    GradientBoostingRegressor(
        n_estimators=8, loss="huber", init="zero", max_depth=6, learning_rate=0.3, random_state=1
    ),
]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("estimator", TREES, ids=lambda one: type(one).__name__)
def test_trees_find_the_same_leaves(estimator, gaps, whole):
    """Whole numbers tie with each other; thresholds lie half way between two values, where rounding decides."""
    if gaps and not get_tags(estimator).input_tags.allow_nan:
        gaps = 0.0  # scikit-learn takes none there
    X = table(700, gaps=gaps, whole=whole)
    new = pd.concat([table(1500, seed=2, gaps=gaps, whole=whole), X])
    check(estimator, X, new, exact=True)


@pytest.mark.parametrize("estimator", TREES[:1] + TREES[2:3], ids=lambda one: type(one).__name__)
def test_rows_on_the_thresholds_and_beside_them(estimator):
    """scikit-learn compares single numbers with double thresholds: x at, just below and just above each of them."""
    X = table(300, gaps=0.1)
    fitted = estimator.fit(X, target(X))
    cuts = [[] for _ in COLUMNS]
    for one in fitted.estimators_:
        for column, threshold in zip(one.tree_.feature, one.tree_.threshold, strict=True):
            if column >= 0 and np.isfinite(threshold):
                cuts[column].append(threshold)
    rng = np.random.default_rng(3)
    at = np.column_stack([rng.choice(each, 4000) for each in cuts])
    single = at.astype(np.float32)
    up, down = np.nextafter(single, np.float32(np.inf)), np.nextafter(single, np.float32(-np.inf))
    new = np.select([rng.random(at.shape) < p for p in (0.25, 0.33, 0.5)], [at, up, down], single)
    new = pd.DataFrame(new.astype(np.float64), columns=COLUMNS)
    np.testing.assert_array_equal(form_of(fitted, 5).predict(new), fitted.predict(new))


def test_gaps_that_training_has_not_seen_go_where_scikit_learn_sends_them():
    X = table(400, gaps=0.0)
    check(RandomForestRegressor(10, random_state=1), X, table(500, seed=2, gaps=0.3), exact=True)
    only = X.assign(a=X["a"].where(X["b"] > 0))  # splits that tell missing from known alone
    check(RandomForestRegressor(10, random_state=1), only, table(500, seed=2, gaps=0.3), exact=True)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), leaf=st.integers(1, 30), n=st.integers(2, 60), columns=st.integers(1, 5))
def test_trees_of_any_size(seed, leaf, n, columns):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.integers(-3, 4, (n, columns)).astype(float))
    X = X.mask(rng.random(X.shape) < 0.2)
    X.columns = X.columns.astype(str)
    fitted = RandomForestRegressor(3, min_samples_leaf=leaf, random_state=seed).fit(X, rng.normal(size=n))
    new = pd.DataFrame(rng.integers(-4, 5, (37, columns)) / 2.0, columns=X.columns)
    np.testing.assert_array_equal(form_of(fitted, columns).predict(new), fitted.predict(new))


@pytest.mark.parametrize("name", ["rf", "mlr", "svr", "xgb"])
def test_default_members(name):
    X = table(900, gaps=0.1)
    new = table(3000, seed=2, gaps=0.2)
    new.iloc[:50] *= 30.0  # far away from all training rows
    form = check(be.default_estimators(random_seed=1)[name], X, new)
    assert form.gaps


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(SimpleImputer(), LinearRegression()),
        make_pipeline(
            SimpleImputer(strategy="most_frequent", add_indicator=True), StandardScaler(with_mean=False), Ridge()
        ),
        make_pipeline(SimpleImputer(strategy="constant", fill_value=0.5), StandardScaler(with_std=False), Lasso(0.01)),
        make_pipeline(StandardScaler(), SimpleImputer(), "passthrough", ElasticNet(0.01)),
        make_pipeline(SimpleImputer(), StandardScaler(), NuSVR(nu=0.3)),
        make_pipeline(SimpleImputer(), RandomForestRegressor(5, random_state=1)),
        TransformedTargetRegressor(make_pipeline(SimpleImputer(), Ridge()), transformer=StandardScaler()),
        GridSearchCV(make_pipeline(SimpleImputer(), StandardScaler(), SVR()), {"svr__C": [0.1, 1.0]}, cv=2),
        XGBRegressor(n_estimators=20, max_depth=3, random_state=1),
        EarlyStoppedXGB(n_estimators=30, random_state=1),
    ],
    ids=range(10),
)
def test_pipelines_and_others(estimator):
    check(estimator, table(500), table(1300, seed=2, gaps=0.2))


def test_precision_of_support_vectors_is_what_their_weights_need():
    X = table(500, gaps=0.0)
    new = table(1200, seed=2, gaps=0.0)
    for cost, word in ((0.3, "single"), (300.0, "double")):
        form = check(make_pipeline(StandardScaler(), SVR(C=cost)), X, new)
        assert form.text.endswith(f"support vectors in {word} precision")


def test_sums_that_are_not_close_enough_are_left_to_the_estimator(monkeypatch):
    monkeypatch.setattr("bayesens.members.fast.forms.SAME", 0.0)
    X = table(300, gaps=0.0)
    fitted = make_pipeline(StandardScaler(), SVR()).fit(X, target(X))
    form = form_of(fitted, 5)
    assert form.text == "its own predict: its weights are too large for sums in another order"
    np.testing.assert_array_equal(form.predict(X), fitted.predict(X))


class OfOnesOwn(RandomForestRegressor):
    """Predicts something else than a forest."""

    def predict(self, X):
        return -super().predict(X)


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (OfOnesOwn(3), "OfOnesOwn has no other form"),
        (KNeighborsRegressor(2), "KNeighborsRegressor has no other form"),
        (make_pipeline(MinMaxScaler(), LinearRegression()), "MinMaxScaler has no other form"),
        (make_pipeline(PCA(2), LinearRegression()), "PCA has no other form"),
        (make_pipeline(StandardScaler(), SVR(kernel="linear")), "its kernel is 'linear'"),
        (TransformedTargetRegressor(LinearRegression(), func=np.log, inverse_func=np.exp), "transformed by FunctionTransformer"),
        (TransformedTargetRegressor(OfOnesOwn(3), transformer=StandardScaler()), "OfOnesOwn has no other form"),
        (make_pipeline(SimpleImputer(missing_values=-1.0), LinearRegression()), "fills other values than NaN"),
        (XGBRegressor(n_estimators=3, missing=0.0), "beyond plain trees"),
        (GradientBoostingRegressor(n_estimators=3, init=LinearRegression()), "begins with another estimator"),
        (RowCap(KNeighborsRegressor(2)), "KNeighborsRegressor has no other form"),
    ],
    ids=range(11),
)  # fmt: skip
def test_others_keep_their_own_predict_and_say_why(estimator, reason):
    X = table(200, gaps=0.0)
    y = np.abs(target(X)) + 1.0
    fitted = estimator.fit(X, y)
    form = form_of(fitted, 5)
    assert form.text.startswith("its own predict: ")
    assert reason in form.text
    np.testing.assert_array_equal(form.predict(X), fitted.predict(X))


def test_an_imputer_that_drops_a_column_keeps_its_own_predict():
    X = table(200).assign(c=np.nan)
    with pytest.warns(UserWarning, match="without any observed values"):
        fitted = make_pipeline(SimpleImputer(), LinearRegression()).fit(X, target(X))
    assert "drops columns that are empty" in form_of(fitted, 5).text


def test_an_estimator_of_other_columns_keeps_its_own_predict():
    X = table(200, gaps=0.0)
    assert "other columns" in form_of(LinearRegression().fit(X, target(X)), 4).text


def test_numbers_that_are_too_large_are_refused_in_the_estimators_words():
    X = table(200, gaps=0.0)
    fitted = RandomForestRegressor(3).fit(X, target(X))
    with pytest.raises(ValueError, match="too large for dtype"), np.errstate(over="ignore"):
        form_of(fitted, 5).predict(X.assign(a=1e39))


@pytest.mark.slow
def test_four_members_of_real_data_on_a_real_grid():
    """Air pollution around Atlanta: 11,099 days at monitors, and a month of 2,400 cells, most of them without aerosol."""
    table = pd.read_csv(shared_data("atlanta", "atlanta_daily.csv.gz"))
    with xr.open_dataset(shared_data("atlanta", "grid_200406.nc")) as month:
        grid = month.isel(time=slice(None, None, 5)).load()
    names = [str(name) for name in grid.data_vars]
    members = be.Members(
        be.default_estimators(random_seed=1), table[[*names, "monitor"]], table["pm25"], site="monitor"
    )
    fitted = members.fit(random_seed=1, progressbar=False)
    assert all(text.startswith("compiled") for text in fitted.ways().values())
    cells = grid[names].astype(np.float64)
    found = fitted.predict(cells)
    rows = cells.to_dataframe(dim_order=["time", "row", "col"])
    wanted = fitted.predict(rows[names]).to_numpy().reshape(found.shape)
    np.testing.assert_array_equal(found.sel(member=["rf", "xgb"]), wanted[..., [0, 3]])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * wanted.std(axis=(0, 1, 2)).min())


def test_members_say_how_they_predict():
    X = table(300)
    estimators = {**be.default_estimators(random_seed=1), "knn": make_pipeline(SimpleImputer(), KNeighborsRegressor(2))}
    fitted = be.Members(estimators, X, target(X), site=np.arange(300) % 20).fit(random_seed=1, progressbar=False)
    said = fitted.ways()
    assert said["rf"] == "compiled: 200 trees"
    assert said["knn"] == "its own predict: KNeighborsRegressor has no other form"
    assert repr(fitted) == (
        "<FittedMembers: rf (compiled), mlr (compiled), svr (compiled), xgb (compiled), knn (its own predict); 5 covariates>"
    )


@pytest.mark.parametrize("cost", [0.3, 300.0])
def test_many_rows_are_predicted_sooner_and_nearly_to_the_last_digit(cost):
    X, new = table(500), table(1500, seed=2, gaps=0.2)
    fitted = RowCap(
        TransformedTargetRegressor(
            make_pipeline(SimpleImputer(add_indicator=True), StandardScaler(), SVR(C=cost)),
            transformer=StandardScaler(),
        )
    ).fit(X, target(X))
    assert quick(fitted, X.shape[1], 999) is fitted
    found = quick(fitted, X.shape[1], 1000)
    assert found.text.endswith("support vectors in double precision")
    assert quick(found, X.shape[1], 1000) is found
    wanted = fitted.predict(new)
    np.testing.assert_allclose(found.predict(new), wanted, atol=1e-10 * wanted.std(), rtol=0)
    forest = make_pipeline(SimpleImputer(), RandomForestRegressor(3)).fit(X, target(X))
    assert quick(forest, X.shape[1], 5000) is forest


def test_cross_fitting_takes_what_is_quick():
    X = table(4000, gaps=0.0)
    y, site = target(X), np.arange(4000) % 8
    members = be.Members({"svr": make_pipeline(StandardScaler(), SVR(C=0.3))}, X, y, site=site)
    found = be.cross_fit(members, folds=4, random_seed=1, progressbar=False)
    fold = found.dataset["fold"].values
    for k in np.unique(fold):
        fitted = make_pipeline(StandardScaler(), SVR(C=0.3)).fit(X[fold != k], y[fold != k])
        np.testing.assert_allclose(found.prediction[fold == k, 0], fitted.predict(X[fold == k]), rtol=1e-10, atol=1e-12)
