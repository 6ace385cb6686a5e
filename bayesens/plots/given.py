"""What callers hold: fits, scores, predictions and rows of a comparison, brought to what a figure draws."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.messages import check_known

__all__ = [
    "by_name",
    "check_fit",
    "check_result",
    "check_table",
    "dataset_of",
    "is_rows",
    "numbers_of",
    "one_model",
    "posterior_of",
]


def posterior_of(given: Any, where: str = "") -> xr.Dataset:
    """The posterior of a fit, of a fitted regressor, or as it is.

    Examples
    --------
    >>> posterior_of(xr.DataTree.from_dict({"posterior": xr.Dataset({"sigma": 1.0})})).data_vars
    Data variables:
        sigma    float64 8B 1.0
    """
    if hasattr(given, "fit_"):  # an EnsembleRegressor
        given = given.fit_
        if given is None:
            raise TypeError(f"the regressor{where} has no fit: a plain rule stands in for its model, as it warned")
    if isinstance(given, xr.DataTree):
        given = given["posterior"] if "posterior" in given.children else given
        return given.to_dataset()
    if not isinstance(given, xr.Dataset) or "obs" in given.dims:  # scores and predictions are on rows
        raise TypeError(
            f"got {_what(given)}{where}; wanted a fit, its posterior, or a mapping of names to these: {{'BMA': fit}}"
        )
    return given


def by_name(given: Any) -> dict[str, Any]:
    """Several of a kind by their names; one alone has none. A Dataset is itself a mapping, of its variables."""
    several = isinstance(given, Mapping) and not isinstance(given, xr.Dataset | xr.DataTree)
    return {str(name): one for name, one in given.items()} if several else {"": given}


def is_rows(given: Any) -> TypeGuard[xr.Dataset]:
    """Whether it is the rows that `compare` and `common_rows` return."""
    return isinstance(given, xr.Dataset) and {"model", "obs"} <= set(given.dims) and "crps" in given


def one_model(rows: xr.Dataset, model: str) -> xr.Dataset:
    """The rows of one model of a comparison; its name, where there are several."""
    names = [str(name) for name in rows["model"].values]
    if not model and len(names) > 1:
        raise ValueError(
            f"the rows hold the models {', '.join(map(repr, names))}, and one is drawn; name it: model={names[0]!r}"
        )
    check_known([model] if model else [], names, kind="model", where="the rows")
    return rows.sel(model=model or names[0])


def check_table(table: Any, columns: Sequence[str], made_by: str, where: str = "the table") -> pd.DataFrame:
    """Refuse what is no table of these columns, and say what makes one.

    Examples
    --------
    >>> check_table({"a": 1}, ["a"], "be.score_table(rows)")
    Traceback (most recent call last):
    ...
    TypeError: got a dict; wanted the table that be.score_table(rows) returns
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"got {_what(table)}; wanted the table that {made_by} returns")
    check_known(columns, table.columns, kind="column", where=where)
    return table


def check_result(result: Any, names: Sequence[Hashable], made_by: str) -> None:
    """Refuse what is no Dataset with these variables or coordinates, and say what makes one."""
    if not isinstance(result, xr.Dataset) or not {*names} <= {*result.variables}:
        raise TypeError(f"got {_what(result)}; wanted the Dataset that {made_by} returns")


def dataset_of(given: Any, variable: str, made_by: str, where: str = "") -> xr.Dataset:
    """Refuse what is no Dataset with a variable, and say what makes one."""
    if not isinstance(given, xr.Dataset) or variable not in given:
        raise TypeError(f"got {_what(given)}{where}; wanted what {made_by} returns")
    return given


def numbers_of(values: Any, wanted: str) -> NDArray[np.float64]:
    """Values as an array of numbers.

    Examples
    --------
    >>> numbers_of("0.5", "probabilities")
    Traceback (most recent call last):
    ...
    TypeError: got a str; wanted probabilities
    """
    try:
        if isinstance(values, str | xr.Dataset | xr.DataTree):
            raise TypeError
        return np.asarray(values, float)
    except (TypeError, ValueError):
        raise TypeError(f"got {_what(values)}; wanted {wanted}") from None


def check_fit(tree: Any) -> None:
    """Refuse what is no fit."""
    if not isinstance(tree, xr.DataTree):
        raise TypeError(f"got {_what(tree)}; wanted a fit, as be.fit returns it")


def _what(given: Any) -> str:
    """What was given, in words."""
    if isinstance(given, xr.DataTree):
        return "a fit" if "posterior" in given.children else "a DataTree"
    if is_rows(given):
        return "the rows of a comparison"
    if isinstance(given, xr.Dataset):
        return f"a Dataset of {', '.join(map(repr, list(given.data_vars)[:5])) or 'nothing'}"
    name = type(given).__name__
    return "None" if given is None else f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"
