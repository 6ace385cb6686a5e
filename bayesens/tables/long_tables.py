"""Long tables, one row a model and case, made wide: one row a case and one column a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from bayesens.messages import check_known, listed, warn
from bayesens.tables.columns import coded_labels, numbers

__all__ = ["long_columns", "model_and_value", "tell_lacking", "widened"]

# Names that a column of models, and one of their predictions, usually has.
MODELS = ("model", "member", "source", "product", "method", "algorithm", "estimator", "learner", "forecaster", "system")
VALUES = ("value", "prediction", "predicted", "pred", "forecast", "estimate", "simulated", "simulation", "sim", "yhat", "y_hat",
          "y_pred", "modelled", "modeled")  # fmt: skip
MOST_MODELS = 200


def model_and_value(text: str) -> tuple[str, str]:
    """Split ``model:value``, the columns of a long table.

    Examples
    --------
    >>> model_and_value("model:value")
    ('model', 'value')
    """
    model, _, value = text.partition(":")
    if not model.strip() or not value.strip():
        raise ValueError(
            f"long is {text!r}; wanted the column of models and that of their predictions, such as model:value (--long)"
        )
    return model.strip(), value.strip()


def long_columns(frame: pd.DataFrame) -> tuple[str, str] | None:
    """Find the columns of models and predictions in a table that looks long, by their names and by models that repeat.

    Examples
    --------
    >>> long_columns(pd.DataFrame({"model": ["rf", "svr"] * 2, "value": [1.0, 2, 3, 4], "day": [1, 1, 2, 2]}))
    ('model', 'value')
    """
    have = {str(name).lower(): str(name) for name in frame.columns}
    model = next((have[name] for name in MODELS if name in have), None)
    value = next((have[name] for name in VALUES if name in have), None)
    if model is None or value is None or types.is_float_dtype(frame[model].dtype):
        return None
    kinds = frame[model].nunique()
    return (model, value) if 1 < kinds <= MOST_MODELS and len(frame) >= 2 * kinds else None


def widened(
    frame: pd.DataFrame,
    *,
    model: str,
    value: str,
    by: Sequence[str],
    keep: Iterable[str] | None = None,
    tell: bool = True,
) -> tuple[pd.DataFrame, list[str]]:
    """Make a long table wide, and refuse what has no one answer.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row a model and case.
    model, value : str
        Columns of the models' names and of their predictions.
    by : sequence of str
        Columns that tell cases apart, such as station and time.
    keep : iterable of str, optional
        Further columns; they have one value a case (missing in some of its rows is no other value). None: all that do.
    tell : bool
        Whether a warning counts the cases in which a model has no row.

    Returns
    -------
    frame : pandas.DataFrame
        One row a case, in the order of the first table: `by`, what is kept, and a column for each model, missing where it has
        no row, which a warning counts.
    models : list of str

    Examples
    --------
    >>> table = pd.DataFrame({"day": [1, 1, 2], "model": ["rf", "svr", "rf"], "value": [0.1, 0.2, 0.3], "sm": [0.15, 0.15, 0.25]})
    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     widened(table, model="model", value="value", by=["day"])[0].values.tolist()
    [[1.0, 0.15, 0.1, 0.2], [2.0, 0.25, 0.3, nan]]
    """
    keys, named = list(dict.fromkeys(by)), None if keep is None else list(dict.fromkeys(keep))
    check_known(
        [model, value, *keys, *(named or [])], frame.columns, kind="column", where=f"the table ({len(frame)} rows)"
    )
    if not keys:
        raise ValueError(
            f"nothing tells the cases of the long table ({len(frame)} rows) apart; name the columns that do: by=['station', "
            "'date'], or site and time (--site, --time)"
        )
    if both := {model, value} & {*keys, *(named or [])}:
        raise ValueError(f"column {listed(sorted(both))} is one of model and value; name another for the cases")
    names, kind = _models(frame, model)
    case, first = _cases(frame, keys)
    prediction = _prediction(frame, value, names, kind, case, len(first), keys, tell=tell)
    rest = [str(name) for name in frame.columns if name not in {model, value, *keys}] if named is None else named
    wide = frame.iloc[first][keys].reset_index(drop=True)
    left_out = []
    for name in [name for name in rest if name not in keys]:
        column, differs = _one_value(frame[name], case, len(first))
        if differs is None:
            wide[name] = column
        elif named is None:
            left_out.append(name)
        else:
            raise ValueError(_differing(frame, name, case, differs, keys))
    if left_out:
        warn(f"columns {listed(left_out)} differ between the models' rows of one case; the wide table leaves them out")
    if taken := [name for name in names if name in wide]:
        raise ValueError(f"the models {listed(taken)} are called as columns of the table are; rename the columns")
    return pd.concat([wide, pd.DataFrame(prediction, columns=names)], axis=1), names


def _models(frame: pd.DataFrame, model: str) -> tuple[list[str], NDArray[np.int64]]:
    names, code, _ = coded_labels(frame[model])
    if missing := int((names[code] == "").sum()):
        raise ValueError(
            f"column {model!r} names no model in {missing} of {len(frame)} rows; name them, or drop those rows"
        )
    return names[:-1].tolist(), code


def _cases(frame: pd.DataFrame, keys: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The number of every row's case, in order of appearance, and each case's first row."""
    if missing := int(frame[list(keys)].isna().any(axis=1).sum()):
        raise ValueError(
            f"{missing} of {len(frame)} rows lack one of {listed(keys)}, so their case is not known; drop those rows"
        )
    case: NDArray[np.intp] = frame.groupby(list(keys), sort=False, observed=True).ngroup().to_numpy().astype(np.intp)
    first = np.unique(case, return_index=True)[1]
    return case, first


def _prediction(
    frame: pd.DataFrame, value: str, names: Sequence[str], kind: NDArray[np.int64], case: NDArray[np.intp], n: int,
    keys: Sequence[str], *, tell: bool,
) -> NDArray[np.float64]:  # fmt: skip
    pair = case * len(names) + kind
    twice = pd.Series(pair).duplicated().to_numpy()
    if twice.any():
        row = int(np.argmax(twice))
        raise ValueError(
            f"model {names[kind[row]]!r} has more than one row of {_case(frame, row, keys)} ({int(twice.sum())} such of "
            f"{len(frame)} rows); wanted one row a model and case: drop or average them, or name a further column that tells "
            "them apart: by=[...]"
        )
    out = np.full(n * len(names), np.nan)
    out[pair] = numbers(frame[value])
    if tell:
        tell_lacking(names, n - np.bincount(kind, minlength=len(names)), n)
    return out.reshape(n, len(names))


def tell_lacking(names: Sequence[str], lacks: NDArray[np.int64], n: int) -> None:
    """Warn of models that have no row in some of n cases."""
    if lacks.any():
        counted = [f"{name!r} {count}" for name, count in zip(names, lacks, strict=True) if count]
        shown = ", ".join(counted[:5]) + (f" and {len(counted) - 5} more" if len(counted) > 5 else "")
        warn(f"of {n} cases, models have no row in some, and are missing there: {shown}")


def _one_value(column: pd.Series, case: NDArray[np.intp], n: int) -> tuple[pd.Series, int | None]:
    """The value of every case, and a row that differs from it."""
    known = column.notna().to_numpy()
    rows = np.flatnonzero(known)
    first = np.full(n, -1)
    first[case[rows[::-1]]] = rows[::-1]  # the first row that has a value
    code = pd.factorize(column)[0]
    differs = known & (code != code[first[case]])
    made = column.take(np.maximum(first, 0)).reset_index(drop=True)
    made = made.where(pd.Series(first >= 0)) if (first < 0).any() else made
    return made, int(np.argmax(differs)) if differs.any() else None


def _differing(frame: pd.DataFrame, name: str, case: NDArray[np.intp], row: int, keys: Sequence[str]) -> str:
    values = frame[name][case == case[row]].dropna().unique()
    cases = frame[name].groupby(case).nunique()
    return (
        f"column {name!r} has {listed(values)} in the models' rows of {_case(frame, row, keys)} ({int((cases > 1).sum())} such "
        f"of {len(cases)} cases); wanted one value a case: correct them, or name a further column that tells them apart: by=[...]"
    )


def _case(frame: pd.DataFrame, row: int, keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {frame[key].iloc[row]!s}" for key in keys)
