"""Settings that all functions which hold rows out share: declared once, checked and filled in at their doors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, TypedDict

from numpy.typing import ArrayLike

from bayesens.messages import check_keywords
from bayesens.tables.missing_codes import Missing

__all__ = ["DEFAULTS", "CompareOptions", "FitOptions", "HeldOutOptions", "methods_by_name", "takes", "whole_workers"]


class FitOptions(TypedDict, total=False):
    """How models and members are fitted, and who does it; `compare` says what each setting means."""

    method: str | Mapping[str, str]
    draws: int
    inner_folds: int | str
    random_seed: int | None
    n_jobs: int
    workers: int
    cache: str | Path | None
    progressbar: bool


class HeldOutOptions(FitOptions, total=False):
    """Those, and which rows are held out; `compare` says what each setting means."""

    folds: int | str | None
    blocks: int
    gap: Any
    buffer: float | None
    map_points: Any
    places: Mapping[str, ArrayLike] | None


class CompareOptions(HeldOutOptions, total=False):
    """Those, and what `compare` alone can do; it says what each setting means."""

    likelihood_power: float
    band: str | tuple[float, float]
    below: ArrayLike | None
    products: Mapping[str, ArrayLike] | None
    missing: Missing
    labels: Mapping[str, ArrayLike] | None
    part: str


DEFAULTS: CompareOptions = {
    "folds": None, "blocks": 2, "gap": None, "buffer": None, "map_points": None, "places": None, "method": "auto",
    "draws": 1000, "likelihood_power": 1.0, "band": "mid", "below": None, "products": None, "missing": None, "labels": None,
    "inner_folds": 5, "random_seed": None, "n_jobs": 1, "workers": 1, "cache": None, "part": "", "progressbar": True,
}  # fmt: skip


def takes[**P, T](options: type) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Have a function that ends in ``**options`` refuse keywords it does not know, and get defaults of those not given.

    The keywords of the TypedDict, one of this file, stand with their defaults in the signature that `help` shows.

    Examples
    --------
    >>> @takes(HeldOutOptions)
    ... def held(estimand: str, **options: Any) -> Any:
    ...     return options["folds"], options["blocks"]
    >>> held("site", folds=3)
    (3, 2)
    >>> held("site", fold=3)
    Traceback (most recent call last):
    ...
    TypeError: held() got an unexpected keyword argument 'fold'. Did you mean 'folds'?
    """
    every: dict[str, Any] = dict(DEFAULTS)
    texts = {name: getattr(hint, "__forward_arg__", hint) for name, hint in options.__annotations__.items()}
    defaults = {name: value for name, value in every.items() if name in texts}

    def decorated(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)
        *own, _ = signature.parameters.values()
        kind = inspect.Parameter.KEYWORD_ONLY
        own += [
            inspect.Parameter(name, kind, default=value, annotation=texts[name]) for name, value in defaults.items()
        ]
        known = [each.name for each in own]

        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> T:
            check_keywords(kwargs, known, function.__name__)
            return function(*args, **(defaults | kwargs))

        called.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
        return called

    return decorated


def methods_by_name(models: Mapping[str, Any], method: str | Mapping[str, str]) -> dict[str, str]:
    """The method of fitting of each model, which may be one for all."""
    return {name: method if isinstance(method, str) else method.get(name, "auto") for name in models}


def whole_workers(workers: int) -> int:
    """The number of processes, if it is one."""
    if workers != int(workers) or workers < 1:
        raise ValueError(f"workers is the number of processes, 1 for this one alone; got {workers!r}")
    return int(workers)
