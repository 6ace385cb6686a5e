"""Models, fits and rows in the wrong place: one sentence with the right call."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import xarray as xr

from bayesens import models
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.streaming import SufficientStatistics

__all__ = ["check_fit_call", "check_fitted_call", "models_by_name"]


def check_fit_call(model: Any, rows: Any, call: str = "be.fit({}, ensemble)") -> None:
    """Refuse what is no model where `fit` takes one, and the two arguments in the wrong order.

    Parameters
    ----------
    model, rows : Any
        As they were given.
    call : str
        How a model is given, with {} in its place.

    Raises
    ------
    TypeError

    Examples
    --------
    >>> check_fit_call("bma", None)
    Traceback (most recent call last):
    ...
    TypeError: got the text 'bma' in place of a model; write be.fit(be.BMA(), ensemble)
    """
    if _is_model(model):
        return
    if isinstance(model, type):
        raise TypeError(
            f"wanted a model, got the class {model.__name__}; write {model.__name__}(), with its options in brackets"
        )
    if _is_model(rows):
        raise TypeError(
            f"be.fit takes the model first and the rows second, and got {_what(model)} first; write be.fit({_call(rows)}, "
            "ensemble)"
        )
    _check_no_neighbours(model)
    right = call.format(f"be.{_kind(model)}()")
    raise TypeError(f"got {_what(model)} in place of a model; write {right}")


def check_fitted_call(call: str, tree: Any, rows: Any = None) -> None:
    """Refuse what is no fit where a function takes one, and its arguments in the wrong order.

    Parameters
    ----------
    call : str
        Name of the function.
    tree, rows : Any
        As they were given.

    Raises
    ------
    TypeError

    Examples
    --------
    >>> check_fitted_call("predict", "fit.nc")
    Traceback (most recent call last):
    ...
    TypeError: got the text 'fit.nc' in place of a fit; write be.predict(be.read_fit('fit.nc'), ensemble)
    """
    if isinstance(tree, xr.DataTree):
        return
    wanted = "fit" if call == "summary" else "fit, ensemble"
    if isinstance(rows, xr.DataTree):
        raise TypeError(
            f"be.{call} takes the fit first and the rows second, and got {_what(tree)} first; write be.{call}({wanted})"
        )
    if isinstance(tree, str | os.PathLike):
        file = wanted.replace("fit", f"be.read_fit({str(tree)!r})")
        raise TypeError(f"got {_what(tree)} in place of a fit; write be.{call}({file})")
    if _is_model(tree) or isinstance(tree, type):
        name = _call(tree) if _is_model(tree) else f"be.{_kind(tree.__name__)}()"
        raise TypeError(
            f"got {_what(tree)} in place of a fit; write fit = be.fit({name}, ensemble), and then be.{call}({wanted})"
        )
    raise TypeError(
        f"got {_what(tree)} in place of a fit; wanted what be.fit returns: write fit = be.fit(be.BMA(), ensemble), and then "
        f"be.{call}({wanted})"
    )


def models_by_name(models: Any, rows: Any = None) -> dict[str, Any]:
    """Models by their names; those of a list are named by their kinds.

    Parameters
    ----------
    models : mapping of str to model, or sequence of models
    rows : Any, optional
        What was given as the rows.

    Returns
    -------
    dict of str to model

    Raises
    ------
    TypeError, ValueError
        No models, several of one kind without names, something else in place of a model.

    Examples
    --------
    >>> from bayesens.models import BMA, Climatology
    >>> list(models_by_name([BMA(), Climatology()]))
    ['BMA', 'Climatology']
    """
    wanted = 'be.compare({"BMA": be.BMA(), "HBM": be.HBM()}, ensemble, ...)'
    if _holds_rows(models) and not _holds_rows(rows) and rows is not None:
        raise TypeError(
            f"be.compare takes the models first and the rows second, and got {_what(models)} first; write {wanted}"
        )
    if isinstance(models, str | type) or _is_model(models) or not isinstance(models, Iterable) or _holds_rows(models):
        raise TypeError(f"got {_what(models)} in place of models by their names; write {wanted}")
    named = dict(models) if isinstance(models, Mapping) else _named_by_kind(list(models), wanted)
    if not named:
        raise ValueError(f"got no model; wanted at least one: write {wanted}")
    for name, model in named.items():
        own = getattr(model, "model", model)  # of OnMembers
        if isinstance(own, type):
            check_fit_call(own, None)
        if not _is_model(own):
            _check_no_neighbours(own)
            raise TypeError(f"got {_what(own)} under the name {name!r} in place of a model; write {wanted}")
    return named


def _named_by_kind(models: list[Any], wanted: str) -> dict[str, Any]:
    names = [
        model.__name__ if isinstance(model, type) else type(getattr(model, "model", model)).__name__ for model in models
    ]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(
            f"the list holds {Counter(names)[twice[0]]} models of the kind {twice[0]}, and names must differ; give names: "
            f"{wanted}"
        )
    return dict(zip(names, models, strict=True))


def _check_no_neighbours(given: Any) -> None:
    """Refuse neighbours in place of a model that is fitted: they are a member."""
    from bayesens.models.neighbours import Neighbours

    if not isinstance(given, Neighbours):
        return
    options = "" if given == Neighbours() else ", neighbours"  # a variable of theirs, for their options may be long
    raise TypeError(
        "Neighbours interpolate observations: they are a member, and no model that combines members. Write "
        f"day = be.neighbours(ensemble{options}), and fit to that: be.fit(be.BMA(), day), or to them alone: "
        'be.fit(be.BMA(), day.select(members=["neighbours"])). For be.compare and for new rows take '
        f"be.Members(..., products=[...], neighbours={options[2:] or 'True'})"
    )


def _is_model(given: Any) -> bool:
    """Whether something is a model, of the library or of the user."""
    return not isinstance(given, type) and hasattr(given, "resolve") and hasattr(given, "predictive")


def _holds_rows(given: Any) -> bool:
    return isinstance(given, Ensemble | SufficientStatistics | pd.DataFrame | xr.Dataset | xr.DataTree) or (
        type(given).__name__ in ("Members", "FittedMembers")
    )


def _kind(given: Any) -> str:
    """The model that a text means, or the one to begin with."""
    same = [
        name
        for name in models.KINDS.values()
        if isinstance(given, str) and name.lower() == given.lower().replace("_", "")
    ]
    return same[0] if same else "BMA"


def _call(model: Any) -> str:
    """How a model is written, its options aside."""
    name = type(model).__name__
    return f"be.{name}()" if name in models.KINDS.values() else "model"


def _what(given: Any) -> str:
    """What was given, in words."""
    if isinstance(given, str | os.PathLike):
        return f"the text {str(given)!r}"
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return f"the model {type(given).__name__}" if _is_model(given) else f"{_article(type(given).__name__)}"


def _article(name: str) -> str:
    if name == "NoneType":
        return "None"
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"
