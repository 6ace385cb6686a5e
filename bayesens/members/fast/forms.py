"""The form that an estimator's predict takes over many rows, chosen by its exact type and settings; else its own predict.

A subclass may predict otherwise, and so may a setting that is not looked at here: both keep the estimator's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens.members.estimators import EarlyStoppedXGB, RowCap
from bayesens.members.fast.radial import Radial, radial_of
from bayesens.members.fast.steps import Filled, Line, Scaled, Target
from bayesens.members.fast.trees import COLUMNS, NODES, forest_of
from bayesens.threads import CORES, share_out

__all__ = ["Form", "form_of", "quick"]

Array = NDArray[np.float64]
FEWEST = 1024  # rows that are worth a thread
SHOWN, CLOSE = (
    1000,
    5e-6,
)  # support vectors at which single precision is compared with double; of the predictions' spread there
OWN, SAME = (
    200,
    2e-7,
)  # support vectors at which double precision is compared with the estimator's own predict, as above
MANY = 1000  # rows from which a second form of an estimator is worth making
LARGEST = float(np.finfo(np.float32).max)


class Other(Exception):
    """An estimator without another form, and why."""


@dataclass(frozen=True, eq=False)
class Form:
    """How one fitted estimator predicts.

    Attributes
    ----------
    estimator : regressor
    steps : tuple
        What a table goes through, each with ``predict``; empty for the estimator's own.
    text : str
        What they are, or why there are none.
    gaps : bool
        Whether the steps take missing covariates.
    """

    estimator: Any
    steps: tuple[Any, ...]
    text: str
    gaps: bool = False

    def predict(self, X: pd.DataFrame) -> Array:
        """Predict a table (row, covariate)."""
        if not self.steps:
            found: Array = self.estimator.predict(X)
            return found
        x = np.ascontiguousarray(X.to_numpy(dtype=np.float64))
        if (np.abs(x) > LARGEST).any() or not (self.gaps or not np.isnan(x).any()):
            return np.asarray(self.estimator.predict(X))  # which refuses such numbers, in its own words
        parts = share_out(lambda rows: self._of_rows(x[rows]), len(x), min(CORES, len(x) // FEWEST))
        return np.concatenate(parts)

    def _of_rows(self, x: Array) -> Array:
        for step in self.steps:
            x = step.predict(x)
        return x


@dataclass(frozen=True, eq=False)
class _Boosted:
    """Trees of xgboost: its own predict on plain arrays, by one thread for each part of the rows."""

    booster: Any

    def predict(self, x: Array) -> Array:
        found: Array = self.booster.inplace_predict(x).astype(np.float64)
        return found


def form_of(estimator: Any, n_columns: int, *, single: bool = True) -> Form:
    """Return how an estimator that was fitted to so many columns predicts tables of them.

    Parameters
    ----------
    estimator : regressor
    n_columns : int
    single : bool
        Whether support vectors are in single precision, where that is within 1e-5 of the predictions' standard deviation.

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression
    >>> from sklearn.neighbors import KNeighborsRegressor
    >>> x, y = [[0.0], [1.0], [2.0]], [1.0, 2.0, 3.0]
    >>> form_of(LinearRegression().fit(x, y), 1).text
    'compiled: linear'
    >>> form_of(KNeighborsRegressor(1).fit(x, y), 1).text
    'its own predict: KNeighborsRegressor has no other form'
    """
    try:
        if getattr(estimator, "n_features_in_", None) != n_columns:
            raise Other("it was fitted to other columns")
        steps, words, gaps = _steps(estimator)
    except Other as reason:
        return Form(estimator, (), f"its own predict: {reason}")
    for k, step in enumerate(steps):
        if single and isinstance(step, Radial):
            steps[k] = _in_single(step)
            words = [word.replace("double", steps[k].precision) for word in words]
    return Form(estimator, tuple(steps), f"compiled: {', '.join(words)}", gaps)


def quick(estimator: Any, n_columns: int, n_rows: int) -> Any:
    """Return what predicts many rows sooner, equal to 1e-9 of their standard deviation: support vectors by compiled sums.

    Examples
    --------
    >>> from sklearn.svm import SVR
    >>> x = np.linspace(0.0, 1.0, 2000)[:, None]
    >>> fitted = SVR().fit(x[::40], x[::40, 0] ** 2)
    >>> found = quick(fitted, 1, len(x))
    >>> found.text
    'compiled: 4 support vectors in double precision'
    >>> bool(np.abs(found.predict(pd.DataFrame(x)) - fitted.predict(x)).max() < 1e-12)
    True
    """
    if n_rows < MANY or isinstance(estimator, Form) or not _has_support_vectors(estimator):
        return estimator
    form = form_of(estimator, n_columns, single=False)
    return form if form.steps else estimator


def _has_support_vectors(estimator: Any) -> bool:
    """Whether the last step of an estimator is a support vector machine."""
    from sklearn.svm import SVR, NuSVR

    for name in ("estimator_", "best_estimator_", "regressor_"):
        if hasattr(estimator, name):
            return _has_support_vectors(getattr(estimator, name))
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    return isinstance(last, (SVR, NuSVR)) if last is estimator else _has_support_vectors(last)


Found = tuple[list[Any], list[str], bool]


def _steps(estimator: Any) -> Found:
    """Steps, their names, and whether they take gaps."""
    for kinds, how in _forms():
        if type(estimator) in kinds:
            return how(estimator)
    raise Other(f"{type(estimator).__name__} has no other form")


def _forms() -> Sequence[tuple[tuple[type, ...], Callable[[Any], Found]]]:
    """Functions by the exact types that they know."""
    from sklearn import compose, ensemble, impute, linear_model, model_selection, pipeline, preprocessing, svm, tree
    from xgboost import XGBRegressor

    forests = ensemble.RandomForestRegressor, ensemble.ExtraTreesRegressor
    lines = linear_model.LinearRegression, linear_model.Ridge, linear_model.Lasso, linear_model.ElasticNet
    return (
        ((RowCap,), lambda one: _steps(one.estimator_)),
        ((model_selection.GridSearchCV, model_selection.RandomizedSearchCV), lambda one: _steps(one.best_estimator_)),
        ((pipeline.Pipeline,), _pipeline),
        ((compose.TransformedTargetRegressor,), _target),
        ((impute.SimpleImputer,), _filled),
        ((preprocessing.StandardScaler,), _scaled),
        (lines, _line),
        ((svm.SVR, svm.NuSVR), _radial),
        (forests, lambda one: _forest(one, [each.tree_ for each in one.estimators_])),
        ((ensemble.GradientBoostingRegressor,), _gradient),
        ((tree.DecisionTreeRegressor, tree.ExtraTreeRegressor), lambda one: _forest(one, [one.tree_])),
        ((EarlyStoppedXGB,), lambda one: _boosted(one.booster_)),
        ((XGBRegressor,), _xgb),
    )


def _pipeline(one: Any) -> Found:
    steps: list[Any] = []
    words: list[str] = []
    gaps = True
    for _, each in one.steps:
        if each is None or each == "passthrough":
            continue
        own, said, takes = _steps(each)
        # A step after the imputer meets no gaps.
        gaps = gaps and (takes or any(isinstance(step, Filled) for step in steps))
        steps, words = steps + own, words + said
    return steps, words, gaps


def _target(one: Any) -> Found:
    from sklearn.preprocessing import StandardScaler

    scaler = one.transformer_
    if type(scaler) is not StandardScaler or one._training_dim != 1:
        raise Other(f"its target is transformed by {type(scaler).__name__}")
    steps, words, gaps = _steps(one.regressor_)
    center = 0.0 if scaler.mean_ is None else float(scaler.mean_[0])
    return [*steps, Target(center, 1.0 if scaler.scale_ is None else float(scaler.scale_[0]))], words, gaps


def _filled(one: Any) -> Found:
    told, gap = one.indicator_, one.missing_values
    if not (isinstance(gap, float) and np.isnan(gap)) or isinstance(one.fill_value, str):
        raise Other("its imputer fills other values than NaN")
    values = np.asarray(one.statistics_, dtype=np.float64)
    if np.isnan(values).any():
        raise Other("its imputer drops columns that are empty")
    return [Filled(values, np.empty(0, dtype=np.int64) if told is None else told.features_)], [], True


def _scaled(one: Any) -> Found:
    n = one.n_features_in_
    center = np.zeros(n) if one.mean_ is None or not one.with_mean else one.mean_
    return [Scaled(center, np.ones(n) if one.scale_ is None or not one.with_std else one.scale_)], [], True


def _line(one: Any) -> Found:
    slope, intercept = np.asarray(one.coef_), np.asarray(one.intercept_)
    if slope.ndim != 1 or intercept.ndim:
        raise Other("it has several targets")
    return [Line(slope.astype(np.float64), float(intercept))], ["linear"], False


def _radial(one: Any) -> Found:
    if one.kernel != "rbf" or not isinstance(one.support_vectors_, np.ndarray) or not len(one.support_vectors_):
        raise Other(f"its kernel is {one.kernel!r}")
    vectors = one.support_vectors_
    made = radial_of(vectors, one.dual_coef_[0], one._gamma, one.intercept_[0], np.float64)
    some = vectors[:: -(-len(vectors) // OWN)]
    wanted = one.predict(some)
    if np.abs(made.predict(some) - wanted).max() <= SAME * wanted.std():
        return [made], [f"{len(vectors)} support vectors in double precision"], False
    raise Other("its weights are too large for sums in another order")


def _in_single(step: Radial) -> Radial:
    """Support vectors in single precision, where that makes no difference, or as they are."""
    made, some = step.in_single(), step.vectors(SHOWN)
    wanted = step.predict(some)
    return made if np.abs(made.predict(some) - wanted).max() <= CLOSE * wanted.std() else step


def _forest(one: Any, trees: list[Any], **options: Any) -> Found:
    from sklearn.utils import get_tags

    if getattr(one, "n_outputs_", 1) != 1:
        raise Other("it has several targets")
    if one.n_features_in_ > COLUMNS or max(tree.node_count for tree in trees) > NODES:
        raise Other(f"its trees have more than {COLUMNS} columns or {NODES} nodes")
    gaps = bool(get_tags(one).input_tags.allow_nan)
    made = forest_of(trees, one.n_features_in_, **options)
    return [made], [f"{len(trees)} tree{'s' * (len(trees) != 1)}"], gaps


def _gradient(one: Any) -> Found:
    if one.init not in (None, "zero"):
        raise Other("it begins with another estimator")
    first = 0.0 if one.init == "zero" else float(np.ravel(one.init_.constant_)[0])
    return _forest(one, [each.tree_ for each in one.estimators_[:, 0]], first=first, rate=one.learning_rate)


def _xgb(one: Any) -> Found:
    booster = one.get_booster()
    known = one.booster in (None, "gbtree") and isinstance(one.missing, float) and np.isnan(one.missing)
    if not known or booster.attr("best_iteration") is not None or "c" in (booster.feature_types or ()):
        raise Other("it has settings of XGBRegressor beyond plain trees")
    return _boosted(bytes(booster.save_raw("ubj")))


def _boosted(raw: bytes) -> Found:
    import xgboost as xgb

    # One thread of its own: many small calls by two of xgboost's threads took ten times as long.
    booster = xgb.Booster({"nthread": 1}, model_file=bytearray(raw))
    return [_Boosted(booster)], [f"{booster.num_boosted_rounds()} boosted trees by xgboost"], True
