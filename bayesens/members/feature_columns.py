"""Columns of features that the model which combines members looks at: they go past the members into its ensemble."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble.checks import covariate_names
from bayesens.ensemble.ensemble import Ensemble
from bayesens.likelihoods.corrected.widths import columns_asked
from bayesens.members.covariates import without_codes
from bayesens.messages import listed
from bayesens.tables.columns import numbers
from bayesens.tables.missing_codes import NONE, Missing, missing_words

__all__ = ["check_columns", "ensemble_beside", "model_columns", "plain_features"]

PLACES = ("lon", "lat")  # columns that an ensemble has as places, and not as covariates


def model_columns(model: Any, X: Any, members: Iterable[str]) -> tuple[str, ...]:
    """Columns of features that a model looks at, each there and named as nothing else is.

    `members` are names that no such column may have.

    Examples
    --------
    >>> from bayesens.models import BMA
    >>> X = pd.DataFrame({"rain": [1.0, 2.0], "elevation": [10.0, 30.0]})
    >>> model_columns(BMA(bias_covariates=("elevation",), scale=("mean",)), X, ["rf"])
    ('elevation',)
    """
    asked, name = columns_asked(model), type(model).__name__
    widths = getattr(model, "scale", None)
    if isinstance(widths, tuple) and "season" in widths:
        raise ValueError(f"{name}(scale={widths!r}) asks for dates, and features have none; give X the sine and cosine of the "
                         "day of the year as two columns, and name these in scale=")  # fmt: skip
    covariate_names([each for each in asked if each not in PLACES], f"{name}'s covariates")
    if both := sorted(set(asked) & set(members)):
        raise ValueError(f"{name} asks for the column {listed(both)}, and a member has that name; rename the member")
    check_columns(asked, X, model)
    return asked


def check_columns(asked: Sequence[str], X: Any, model: Any) -> None:
    """Refuse features without the columns that a model looks at.

    Examples
    --------
    >>> from bayesens.models import BMA
    >>> check_columns(["elevation"], np.zeros((5, 2)), BMA(bias_covariates=("elevation",)))
    Traceback (most recent call last):
    ...
    ValueError: BMA asks for the column 'elevation', and X is ndarray without names of columns; give a pandas.DataFrame with ...
    """
    table = isinstance(X, pd.DataFrame)
    if lacking := [name for name in asked if not table or name not in X.columns]:
        came = f"X has {listed(X.columns)}" if table else f"X is {type(X).__name__} without names of columns"
        raise ValueError(f"{type(model).__name__} asks for the column {listed(lacking)}, and {came}; give a pandas.DataFrame "
                         "with it, to fit and to predict alike, or leave it out of the model")  # fmt: skip


def plain_features(X: Any, missing: Missing, y: NDArray[np.float64] | None = None) -> Any:
    """Features with the codes for missing values that were named set to NaN; others are refused, and so are those of a target.

    Columns of an array are called x0, x1 and so on, and the target y; those of text are passed over. `X` itself is returned
    where it has no code.

    Examples
    --------
    >>> plain_features(np.array([[0.5], [-9999.0], [0.7]]), -9999).ravel().tolist()
    [0.5, nan, 0.7]
    """
    table = X.select_dtypes("number") if isinstance(X, pd.DataFrame) else pd.DataFrame(X).add_prefix("x")
    inputs = {str(name): numbers(column) for name, column in table.items()}
    if y is None and isinstance(missing, Mapping) and "y" not in inputs:
        missing = {key: code for key, code in missing.items() if key != "y"}
    found = without_codes({"covariate": inputs} | ({} if y is None else {"measured": {"y": y}}), missing)
    if y is not None and np.isnan(y).any():
        raise ValueError(
            f"y is missing in {int(np.isnan(y).sum())} of {len(y)} rows ({missing_words({'y': found['y']})}); wanted a target in "
            "every row: leave these rows out of X and y"
        )
    if not found:
        return X
    if not isinstance(X, pd.DataFrame):
        return np.column_stack(list(inputs.values()))
    return X.assign(**{str(name): inputs[str(name)] for name in table if str(name) in found})


def ensemble_beside(members: pd.DataFrame, X: Any, asked: Sequence[str], **values: ArrayLike | None) -> Ensemble:
    """Put members, the model's covariates, and what else there is, into one table, under names that no other column has.

    Rows of `members` are counted from 0; `X` has the same rows under any index. Its columns `asked` go along, "lon" and
    "lat" as places. `values` (row) come by role, such as ``observation=y``; None for none.

    Examples
    --------
    >>> X = pd.DataFrame({"rain": [1.0, 2.0], "dem": [10.0, 30.0]}, index=[7, 8])
    >>> made = ensemble_beside(pd.DataFrame({"rf": [1.0, 2.0], "site": [1.5, 2.5]}), X, ["dem"], site=["a", "b"])
    >>> made.members, made.covariates, made.columns["site"]
    (('rf', 'site'), ('dem',), 'site_')
    """
    beside = X[list(asked)].reset_index(drop=True) if asked else pd.DataFrame()
    names, kept = [str(name) for name in members], [str(name) for name in beside]
    table = pd.concat([members, beside], axis=1)
    roles: dict[str, Any] = {name: name for name in PLACES if name in kept}
    for role, column in values.items():
        if column is not None:
            roles[role] = next(each for each in (role, f"{role}_", f"{role}__") if each not in (*names, *kept))
            table[roles[role]] = np.asarray(column)
    covariates = [name for name in kept if name not in PLACES]
    own = dict.fromkeys(names, NONE)  # what members predict holds no codes
    return Ensemble.from_frame(table, members=names, covariates=covariates, missing=own, **roles)
