"""EnsembleRegressor: members, cross-fitting and fusion as one scikit-learn regressor with a predictive distribution."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri
from sklearn.base import RegressorMixin
from sklearn.model_selection import GroupKFold, check_cv
from sklearn.utils import Bunch, check_random_state, get_tags
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import check_consistent_length, check_is_fitted, has_fit_parameter, validate_data

from bayesens.ensemble.checks import member_names
from bayesens.ensemble.collinear import constant
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.arguments import check_fit_call
from bayesens.inference.fit import fit
from bayesens.inference.predict import draw, predict
from bayesens.members.estimators import default_estimators, named_pairs, seeded
from bayesens.members.feature_columns import check_columns, ensemble_beside, model_columns, plain_features
from bayesens.members.fitted import run, seed_of
from bayesens.messages import listed, warn
from bayesens.models import BMA

__all__ = ["EnsembleRegressor"]

EXACT = 1e-7  # a residual below this share of the target's standard deviation: the member is the target


@dataclass(eq=False, repr=False)  # scikit-learn shows, compares and copies estimators itself
class EnsembleRegressor(RegressorMixin, _BaseComposition):
    """Several regressors, combined by a Bayesian model into one predictive distribution.

    The members predict every row by fits that did not see its fold (nor its station, with `groups`); the model is
    fitted to these predictions; then the members are fitted to all rows, and predict new ones.

    Every row that is predicted counts as one of a new station, also where the station was among `groups`: effects of
    stations, in models that have them, are averaged over, and widen the distribution.

    A model that looks at covariates, such as ``BMA(bias_covariates=("elevation",), scale=("mean", "elevation"))``, takes them
    from the columns of `X` of these names, at fit and at predict: `X` is then a table. Members learn from these columns as from
    all others. A row that lacks a covariate of the biases has no prediction (NaN).

    Where a model cannot be fitted, a warning says why, and a plain rule stands in. A member whose held-out predictions
    are constant is left out. If a member reproduces the target exactly, if no member is left, if the target is constant,
    or if there are fewer rows than the model has parameters, the distribution is normal: about the mean of the exact
    members, or of all, with the root mean square of its held-out errors for standard deviation. `fit_` then is None.

    Parameters
    ----------
    estimators : list of (str, regressor), or dict of str to regressor, optional
        Members; ``"drop"`` in place of one leaves it out. Those whose ``fit`` takes ``groups`` are given the stations.
        None: `default_estimators`.
    model : BMA, HBM, ..., optional
        What combines the members. None: ``BMA()``.
    method : {"auto", "nuts", "laplace", "em"}
        As in `bayesens.fit`.
    cv : int, splitter or iterable
        Folds that hold every row out once. A number: contiguous blocks of rows, or folds of whole stations with `groups`.
    draws : int
        Posterior draws kept in each of four chains.
    missing : number, list of numbers, mapping of column to these, or "none", optional
        Codes for missing values in `X`, as in `Ensemble.from_frame`: they become NaN, for members that can do with gaps. Columns
        of an array are called ``"x0"``, ``"x1"`` and so on. None: values that look like codes are an error.
    n_jobs : int
        Threads of the members; the result does not depend on it.
    random_state : int, RandomState or None
        Of the model's draws and of every member whose own ``random_state`` is None.

    Attributes
    ----------
    estimators_ : list of regressor
        Fitted to all rows.
    named_estimators_ : Bunch of str to regressor
    fit_ : xarray.DataTree or None
        The fit of the model to the held-out predictions.
    weights_ : dict of str to float
        Posterior mean weight of each member, 0 where left out; only if the model has weights. Of weights that follow covariates
        those at the covariates' means.
    covariates_ : tuple of str
        Columns of `X` that the model looks at.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    References
    ----------
    Wolpert, D. H. (1992). Stacked generalization. Neural Networks 5, 241-259.

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression
    >>> from sklearn.neighbors import KNeighborsRegressor
    >>> rng = np.random.default_rng(1)
    >>> X = rng.normal(size=(100, 1))
    >>> y = 2 * X[:, 0] + rng.normal(size=100)
    >>> members = [("mlr", LinearRegression()), ("nearest", KNeighborsRegressor(1))]
    >>> model = EnsembleRegressor(members, method="em").fit(X, y)
    >>> model.weights_["mlr"] > 0.8, model.predict_interval(X[:3]).shape
    (True, (3, 2))
    """

    estimators: list[tuple[str, Any]] | dict[str, Any] | None = None
    model: Any = None
    _: KW_ONLY
    method: str = "auto"
    cv: Any = 5
    draws: int = 1000
    missing: Any = None
    n_jobs: int = 1
    random_state: Any = None

    # Parameters ------------------------------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, those of members as ``name`` and ``name__parameter``."""
        if not isinstance(self.estimators, dict):
            return self._get_params("estimators", deep=deep)
        found = super(_BaseComposition, self).get_params(deep=deep)
        for name, one in self.estimators.items() if deep else ():
            found[name] = one
            if hasattr(one, "get_params"):
                found |= {f"{name}__{key}": value for key, value in one.get_params(deep=True).items()}
        return found

    def set_params(self, **params: Any) -> Self:
        """Set parameters: ``set_params(rf__max_depth=3)``, or ``set_params(rf="drop")``."""
        if "estimators" in params:
            self.estimators = params.pop("estimators")
        if isinstance(self.estimators, dict):
            replaced = {name: params.pop(name) for name in self.estimators if name in params}
            self.estimators = (
                self.estimators | replaced
            )  # a new one: the caller's, and that of a clone, stay as they are
        self._set_params("estimators", **params)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        given = [one for _, one in named_pairs(self.estimators) if one != "drop"]
        # The default members fill gaps themselves.
        tags.input_tags.allow_nan = all(get_tags(one).input_tags.allow_nan for one in given)
        tags.non_deterministic = self.random_state is None and self.method != "em"
        return tags

    # Fit -------------------------------------------------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Cross-fit the members, fit the model to what they predict, and fit the members to all rows.

        Parameters
        ----------
        X : array_like or pandas.DataFrame (row, feature)
        y : array_like (row)
        groups : array_like (row), optional
            Stations: rows of one station are held out together, and are the sites of the model.

        Returns
        -------
        EnsembleRegressor

        Raises
        ------
        ValueError, TypeError
            Data that scikit-learn refuses, values that look like codes for missing ones, folds that do not hold every row out
            once, covariates of the model that are no columns of `X`, and what `bayesens.fit` refuses.

        Warns
        -----
        UserWarning
            Where the plain rule stands in for the model, and as `bayesens.fit` does.
        """
        members = self._members()
        asked = model_columns(self._model(), X, members)
        table, target = validate_data(self, X, y, dtype=_kind(X), ensure_all_finite="allow-nan", y_numeric=True,
                                      ensure_min_samples=2)  # fmt: skip
        target = np.array(target, dtype=np.float64)
        table = plain_features(X if isinstance(X, pd.DataFrame) else table, self.missing, target)
        self.covariates_ = asked
        site = None if groups is None else np.asarray(groups)
        check_consistent_length(target, site)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        folds = self._folds(table, target, site)
        held_out = self._cross_fit(members, table, target, site, folds, seed)
        jobs = [partial(_fitted, name, one, table, target, site, None, seed_of(seed, name, ""))
                for name, one in members.items()]  # fmt: skip
        self.estimators_ = run(jobs, "Fitting members", self.n_jobs, False)
        self.named_estimators_ = Bunch(**dict(zip(members, self.estimators_)))
        self._fuse(pd.DataFrame(held_out, columns=list(members)), table, target, site, seed)
        return self

    def _model(self) -> Any:
        model = BMA() if self.model is None else self.model
        check_fit_call(model, None, "be.EnsembleRegressor(estimators, model={})")
        return model

    def _members(self) -> dict[str, Any]:
        if self.estimators is None:
            return default_estimators()
        kept = [(name, one) for name, one in named_pairs(self.estimators) if one != "drop"]
        names = member_names([name for name, _ in kept]) if kept else []
        if not names:
            raise ValueError(
                "estimators holds no member; wanted at least one: estimators=[('rf', RandomForestRegressor())]"
            )
        self._validate_names(names)
        return dict(kept)

    def _folds(self, X: Any, y: NDArray[np.float64], site: Any) -> list[tuple[Any, Any]]:
        number = isinstance(self.cv, int) and not isinstance(self.cv, bool)
        splitter = GroupKFold(self.cv) if number and site is not None else check_cv(self.cv)
        folds = list(splitter.split(X, y, site))
        held = np.bincount(np.concatenate([test for _, test in folds]), minlength=len(y))
        if (held != 1).any():
            raise ValueError(f"cv={self.cv!r} holds {int((held != 1).sum())} of {len(y)} rows out not once; wanted every "
                             "row in one fold: a number of folds, KFold or GroupKFold")  # fmt: skip
        return folds

    def _cross_fit(
        self, members: dict[str, Any], X: Any, y: NDArray[np.float64], site: Any, folds: list[Any], seed: int
    ) -> NDArray[np.float64]:
        plan = [(k, j, name) for k in range(len(folds)) for j, name in enumerate(members)]
        jobs = [partial(_held_out, name, members[name], X, y, site, folds[k], seed_of(seed, name, str(k)))
                for k, _, name in plan]  # fmt: skip
        found = np.empty((len(y), len(members)))
        for (k, j, _), values in zip(plan, run(jobs, "Cross-fitting", self.n_jobs, False)):
            found[folds[k][1], j] = values
        return found

    def _fuse(self, held_out: pd.DataFrame, X: Any, y: NDArray[np.float64], site: Any, seed: int) -> None:
        """Fit the model to held-out predictions, or the plain rule where it cannot be."""
        names = [str(name) for name in held_out]
        self.fit_, self._sd = None, 0.0
        self.__dict__.pop("weights_", None)
        exact = [name for name in names if _is_target(held_out[name].to_numpy(), y)]
        kept = [name for name in names if not constant(held_out[name].to_numpy())]
        model = self._model()
        if constant(y):
            return self._plain(held_out, y, names, "the target is constant")
        if exact:
            return self._plain(held_out, y, exact, f"member(s) {listed(exact)} reproduce the target exactly")
        if not kept:
            return self._plain(held_out, y, names, "every member is constant in rows that it did not see")
        ensemble = ensemble_beside(held_out[kept], X, self.covariates_, observation=y, site=site)
        wanted = model.n_parameters(ensemble)
        if len(y) < wanted:
            return self._plain(held_out, y, kept, f"{len(y)} rows are fewer than the model's {wanted} parameters")
        if dropped := [name for name in names if name not in kept]:
            warn(f"member(s) {listed(dropped)} are constant in rows that they did not see, and are left out")
        self.fit_ = fit(model, ensemble, method=self.method, draws=self.draws, random_seed=seed,
                                  log_likelihood=False, progressbar=False)  # fmt: skip
        posterior = self.fit_["posterior"]
        if "weight" in posterior:
            mean = posterior["weight"].mean(("chain", "draw")).to_series()
            self.weights_ = {name: float(mean.get(name, 0.0)) for name in names}
        return None

    def _plain(self, held_out: pd.DataFrame, y: NDArray[np.float64], used: list[str], why: str) -> None:
        """Equal weights of some members, and the spread of their mean's held-out errors."""
        self.weights_ = {name: (name in used) / len(used) for name in map(str, held_out)}
        error = y - held_out[used].to_numpy().mean(axis=1)
        self._sd = float(np.sqrt(np.mean(error**2)))
        warn(f"{type(self._model()).__name__} is not fitted, because {why}: the distribution is normal about the mean "
             f"of {listed(used)}, with the standard deviation {self._sd:.3g} of its held-out errors")  # fmt: skip

    # Prediction ------------------------------------------------------------------------------------------------------

    def predict(
        self, X: ArrayLike, return_std: bool = False
    ) -> NDArray[np.float64] | tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predict the mean.

        Parameters
        ----------
        X : array_like or pandas.DataFrame (row, feature)
        return_std : bool
            Return the standard deviation of the predictive distribution as well.

        Returns
        -------
        numpy.ndarray (row), or two of them
        """
        found = self._predicted(X, (0.5,))
        mean = found["mean"].to_numpy()
        return (mean, found["sd"].to_numpy()) if return_std else mean

    def predict_interval(self, X: ArrayLike, level: float = 0.9) -> NDArray[np.float64]:
        """Predict central intervals.

        Parameters
        ----------
        X : array_like or pandas.DataFrame (row, feature)
        level : float
            Probability of the interval, in (0, 1).

        Returns
        -------
        numpy.ndarray (row, 2)
            Lower and upper ends.

        Raises
        ------
        ValueError
            A level that is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level is {level!r}; wanted a probability between 0 and 1, such as 0.9")
        return self.predict_quantiles(X, (0.5 - level / 2, 0.5 + level / 2))

    def predict_quantiles(self, X: ArrayLike, quantiles: Sequence[float]) -> NDArray[np.float64]:
        """Predict quantiles.

        Parameters
        ----------
        X : array_like or pandas.DataFrame (row, feature)
        quantiles : sequence of float
            Levels in (0, 1).

        Returns
        -------
        numpy.ndarray (row, quantile)
        """
        return self._predicted(X, quantiles)["quantile_value"].to_numpy()

    def sample_y(self, X: ArrayLike, n_samples: int = 1, random_state: Any = 0) -> NDArray[np.float64]:
        """Draw from the predictive distribution.

        Parameters
        ----------
        X : array_like or pandas.DataFrame (row, feature)
        n_samples : int
        random_state : int, RandomState or None

        Returns
        -------
        numpy.ndarray (row, sample)
        """
        members, table = self._member_predictions(X)
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        if self.fit_ is None:
            noise = np.random.default_rng(seed).standard_normal((len(members), n_samples))
            return self._plain_mean(members)[:, None] + self._sd * noise
        with _new_sites():
            drawn = draw(self.fit_, self._new(members, table), size=n_samples, random_seed=seed, model=self.model)
        return drawn.transpose("obs", "sample").to_numpy()

    def _predicted(self, X: ArrayLike, quantiles: Sequence[float]) -> xr.Dataset:
        members, table = self._member_predictions(X)
        if self.fit_ is not None:
            with _new_sites():
                return predict(self.fit_, self._new(members, table), quantiles=quantiles, model=self.model)
        levels = np.asarray(quantiles, dtype=np.float64)
        if levels.ndim != 1 or not ((levels > 0) & (levels < 1)).all():
            raise ValueError(f"quantiles is {quantiles!r}; wanted a list of levels between 0 and 1")
        mean = self._plain_mean(members)
        parts = {"mean": ("obs", mean), "sd": ("obs", np.full(len(mean), self._sd)),
                 "quantile_value": (("obs", "quantile"), mean[:, None] + self._sd * ndtri(levels))}  # fmt: skip
        return xr.Dataset(parts, {"quantile": levels})

    def _member_predictions(self, X: ArrayLike) -> tuple[pd.DataFrame, Any]:
        """What the members predict, and the features without codes."""
        check_is_fitted(self, "estimators_")
        check_columns(self.covariates_, X, self._model())
        checked = validate_data(self, X, dtype=_kind(X), ensure_all_finite="allow-nan", reset=False)
        table = plain_features(X if isinstance(X, pd.DataFrame) else checked, self.missing)
        return pd.DataFrame({name: one.predict(table) for name, one in self.named_estimators_.items()}), table

    def _new(self, members: pd.DataFrame, X: Any) -> Ensemble:
        assert self.fit_ is not None
        used = json.loads(self.fit_.attrs["bayesens_members"])
        return ensemble_beside(members[used], X, self.covariates_)

    def _plain_mean(self, members: pd.DataFrame) -> NDArray[np.float64]:
        return members.to_numpy() @ np.array([self.weights_[str(name)] for name in members])


# Parts ---------------------------------------------------------------------------------------------------------------


def _kind(X: Any) -> str | None:
    """A table goes to the members as it is: columns of text may be for their own encoders."""
    return None if isinstance(X, pd.DataFrame) else "numeric"


def _rows(X: Any, index: NDArray[np.int64]) -> Any:
    return X.iloc[index] if isinstance(X, pd.DataFrame) else X[index]


def _fitted(name: str, estimator: Any, X: Any, y: Any, site: Any, fold: Any, seed: int) -> Any:
    """Fit a member to all rows, or to those that train it in a fold."""
    index = np.arange(len(y)) if fold is None else fold[0]
    made = seeded(estimator, seed)
    groups = {"groups": site[index]} if site is not None and has_fit_parameter(made, "groups") else {}
    try:
        return made.fit(_rows(X, index), y[index], **groups)
    except Exception as error:
        error.add_note(f"member {name!r} failed in {'the fit to all rows' if fold is None else 'cross-fitting'}")
        raise


def _held_out(name: str, estimator: Any, X: Any, y: Any, site: Any, fold: Any, seed: int) -> NDArray[np.float64]:
    return np.asarray(_fitted(name, estimator, X, y, site, fold, seed).predict(_rows(X, fold[1])), dtype=np.float64)


def _is_target(prediction: NDArray[np.float64], y: NDArray[np.float64]) -> bool:
    """Whether a line through the predictions leaves nothing of the target."""
    if constant(prediction) or constant(y):
        return False
    f, centred = prediction - prediction.mean(), y - y.mean()
    residual = centred - f * (f @ centred) / (f @ f)
    return bool(np.std(residual) <= EXACT * np.std(y))


@contextmanager
def _new_sites() -> Iterator[None]:
    """Say nothing of stations that the fit has not seen: all rows are new, as the class says."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*rows are at a (site|group) that the fit has not seen", category=UserWarning
        )
        yield
