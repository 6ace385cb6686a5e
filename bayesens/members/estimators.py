"""The default members: random forest, linear regression, support vectors and boosted trees, as scikit-learn regressors."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["EarlyStoppedXGB", "RowCap", "default_estimators", "named_pairs", "seeded"]


def default_estimators(*, random_seed: int | None = None) -> dict[str, Any]:
    """Return the four default members, not yet fitted.

    Their settings are fixed here: small trees and strong smoothing, because new stations differ from the training
    stations by more than days do. Random forest and boosted trees take missing covariates; the other two fill them
    with training medians and are told which were missing.

    Parameters
    ----------
    random_seed : int, optional
        Of the forest, the boosted trees and the rows that the support vectors see. None: `cross_fit` seeds them.

    Returns
    -------
    dict of str to regressor
        ``rf`` (forest of 200 trees), ``mlr`` (least squares), ``svr`` (radial kernel on at most 4,000 rows, the scale
        of the target removed), ``xgb`` (boosted trees that stop early on held-out stations).

    Examples
    --------
    >>> list(default_estimators(random_seed=1))
    ['rf', 'mlr', 'svr', 'xgb']
    """
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    # Without a scaled target, epsilon and C would mean something else for every unit.
    svr = TransformedTargetRegressor(_scaled(SVR(C=0.3, epsilon=0.2)), transformer=StandardScaler())
    return {
        "rf": RandomForestRegressor(200, min_samples_leaf=10, max_features=1 / 3, random_state=random_seed),
        "mlr": _scaled(LinearRegression()),
        "svr": RowCap(svr, max_rows=4000, random_state=random_seed),
        "xgb": EarlyStoppedXGB(random_state=random_seed),
    }


def _scaled(last: Any) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # A column that is empty in one fold must not vanish: the next fold would have another number of columns.
    filled = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    return make_pipeline(filled, StandardScaler(), last)


# Fields are the parameters of scikit-learn: it reads them from the signature, shows, compares and copies estimators itself.
@dataclass(eq=False, repr=False)
class RowCap(MetaEstimatorMixin, RegressorMixin, BaseEstimator):
    """Fit an estimator to at most `max_rows` rows, for those whose cost grows with the square of the rows.

    The rows, sorted by group and otherwise as they come, are cut into `max_rows` runs of equal length, and one row is
    drawn from each: every station and, where rows come in order of time, every season keeps its share.

    Parameters
    ----------
    estimator : scikit-learn regressor
    max_rows : int
        With fewer rows all are used.
    random_state : int, RandomState or None

    Attributes
    ----------
    estimator_ : regressor
        The one fitted.
    rows_ : numpy.ndarray (used row), int
        Positions of the rows used.

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression
    >>> X = np.arange(1000.0)[:, None]
    >>> capped = RowCap(LinearRegression(), max_rows=10, random_state=1).fit(X, 2 * X[:, 0])
    >>> len(capped.rows_), float(capped.predict([[3.0]])[0])
    (10, 6.0)
    """

    estimator: Any = None
    _: KW_ONLY
    max_rows: int = 4000
    random_state: Any = None

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Fit to at most `max_rows` rows; `groups` are stations."""
        table, target = validate_data(self, X, y, ensure_all_finite="allow-nan", y_numeric=True)
        self.rows_ = self._chosen(len(target), groups)
        self.estimator_ = clone(self.estimator).fit(table[self.rows_], target[self.rows_])
        return self

    def _chosen(self, n_rows: int, groups: ArrayLike | None) -> NDArray[np.int64]:
        if n_rows <= self.max_rows:
            return np.arange(n_rows)
        order = np.arange(n_rows) if groups is None else np.argsort(np.asarray(groups), kind="stable")
        edges = np.linspace(0, n_rows, self.max_rows + 1).astype(np.int64)
        draw = check_random_state(self.random_state).uniform(size=self.max_rows)
        return np.sort(order[edges[:-1] + (draw * np.diff(edges)).astype(np.int64)])

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict by the fitted estimator."""
        check_is_fitted(self, "estimator_")
        return self.estimator_.predict(validate_data(self, X, reset=False, ensure_all_finite="allow-nan"))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Rows are only chosen here: whether gaps are allowed is the inner estimator's business.
        tags.input_tags.allow_nan = self.estimator is not None and get_tags(self.estimator).input_tags.allow_nan
        return tags


@dataclass(eq=False, repr=False, kw_only=True)
class EarlyStoppedXGB(RegressorMixin, BaseEstimator):
    """Boosted trees whose number is chosen on held-out groups, then fitted to all rows with that number.

    A part of the groups (stations) is held out, never single rows of a group: rows of one station resemble each other,
    and a row-wise split would let the trees learn stations by heart. Missing covariates are allowed.

    Parameters
    ----------
    n_estimators : int
        Largest number of trees.
    learning_rate, max_depth, min_child_weight, subsample, colsample_bytree, reg_lambda
        As in xgboost.
    early_stopping_rounds : int
        Trees without a gain on the held-out groups after which boosting stops.
    validation_fraction : float
        Share of the groups that is held out, at least one of them. Without `groups` every row is a group; with one
        group only there is nothing to hold out, and `n_estimators` trees are fitted.
    random_state : int, RandomState or None

    Attributes
    ----------
    booster_ : bytes
        The trees, in xgboost's own format (UBJSON).
    n_trees_ : int
        Their number.
    validation_groups_ : numpy.ndarray (held-out group)

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> X, station = rng.normal(size=(200, 2)), np.repeat(np.arange(10), 20)
    >>> model = EarlyStoppedXGB(random_state=1).fit(X, X[:, 0], groups=station)
    >>> len(model.validation_groups_), model.predict(X).shape
    (2, (200,))
    """

    n_estimators: int = 1000
    learning_rate: float = 0.05
    max_depth: int = 4
    min_child_weight: float = 10.0
    subsample: float = 0.7
    colsample_bytree: float = 0.7
    reg_lambda: float = 5.0
    early_stopping_rounds: int = 50
    validation_fraction: float = 0.2
    random_state: Any = None

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Choose the number of trees on held-out groups, and fit that many to all rows; `groups` are stations."""
        import xgboost as xgb

        table, target = validate_data(self, X, y, ensure_all_finite="allow-nan", y_numeric=True)
        rng = check_random_state(self.random_state)
        group = np.arange(len(target)) if groups is None else np.asarray(groups)
        held = self._held_out(group, rng)
        settings = self._settings(int(rng.randint(2**31 - 1)))
        self.n_trees_ = self.n_estimators
        if held.any():
            train = xgb.QuantileDMatrix(table[~held], target[~held], nthread=1)
            check = xgb.QuantileDMatrix(table[held], target[held], ref=train, nthread=1)
            tried = xgb.train(settings, train, self.n_estimators, evals=[(check, "held_out")], verbose_eval=False,
                              early_stopping_rounds=self.early_stopping_rounds)  # fmt: skip
            self.n_trees_ = int(tried.best_iteration) + 1
        every = xgb.QuantileDMatrix(table, target, nthread=1)
        self.booster_ = bytes(xgb.train(settings, every, self.n_trees_).save_raw("ubj"))
        return self

    def _held_out(self, group: NDArray[Any], rng: np.random.RandomState) -> NDArray[np.bool_]:
        unique = np.unique(group)
        number = min(max(round(self.validation_fraction * len(unique)), 1), len(unique) - 1)
        self.validation_groups_ = np.sort(rng.permutation(unique)[:number])
        return np.isin(group, self.validation_groups_)

    def _settings(self, seed: int) -> dict[str, Any]:
        # One thread: sums of many threads differ in the last bit, and the members already run beside each other.
        names = ("learning_rate", "max_depth", "min_child_weight", "subsample", "colsample_bytree", "reg_lambda")
        return {name: getattr(self, name) for name in names} | {"seed": seed, "nthread": 1, "tree_method": "hist"}

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict by the trees."""
        import xgboost as xgb

        check_is_fitted(self, "booster_")
        table = validate_data(self, X, reset=False, ensure_all_finite="allow-nan")
        booster = xgb.Booster({"nthread": 1}, model_file=bytearray(self.booster_))
        return booster.inplace_predict(table).astype(np.float64)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = self.random_state is None
        return tags


def seeded(estimator: Any, seed: int) -> Any:
    """Return an unfitted copy in which every ``random_state`` that is None is drawn from a seed."""
    made = clone(estimator)
    names = sorted(name for name, value in made.get_params().items()
                   if value is None and (name == "random_state" or name.endswith("__random_state")))  # fmt: skip
    drawn = np.random.default_rng(seed).integers(2**31 - 1, size=len(names))
    return made.set_params(**{name: int(value) for name, value in zip(names, drawn)})


def named_pairs(given: Any) -> list[tuple[str, Any]]:
    """Names and regressors, of a list or a dict; none where None stands for the default members, which are made later."""
    if given is None:
        return []
    pairs = list(given.items()) if isinstance(given, dict) else given
    wanted = (
        "wanted names with regressors: estimators={'mlr': LinearRegression()}, or a list [('mlr', LinearRegression())]"
    )
    if not isinstance(pairs, list | tuple):
        raise TypeError(f"estimators is of type {type(given).__name__}; {wanted}")
    for i, pair in enumerate(pairs):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise TypeError(f"estimators holds {_shortly(pair)} at place {i}, which is no pair of a name and a regressor; "
                            f"{wanted}")  # fmt: skip
        name, one = pair
        if isinstance(one, type) or (one != "drop" and not hasattr(one, "fit")):
            raise TypeError(
                f"estimators holds {_shortly(one)} under the name {name!r} in place of a regressor; {wanted}"
            )
    return [(name, one) for name, one in pairs]


def _shortly(given: Any) -> str:
    """What was given in place of a regressor."""
    return f"the class {given.__name__}" if isinstance(given, type) else f"{given!r:.60}"
