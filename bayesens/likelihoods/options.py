"""Options of models: checked when a model is made, written to JSON and read back."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesens.likelihoods.priors import Prior

__all__ = ["ModelValue", "changed_words", "check_options", "filled", "options_from_json", "options_to_json"]

NUMBERS = ("center", "scale", "unit", "sigma_scale", "sigma_spread", "spread_scale")  # options that are numbers
# What other libraries have as methods of a model, and how it is written here; {} is the model.
_CALLS = {
    "fit": "be.fit({}, ensemble)",
    "compare": "be.compare({{'{name}': {}}}, ensemble, ...)",
} | {
    name: f"fit = be.fit({{}}, ensemble), and then be.{name}(fit, ensemble)"
    for name in ("predict", "score", "draw", "loo", "add")
}


class ModelValue:
    """A model is a value: what is done with it are functions, and a method that it lacks says which one.

    Examples
    --------
    >>> from bayesens.models import BMA
    >>> BMA().fit
    Traceback (most recent call last):
    ...
    AttributeError: BMA is a value and has no method 'fit'; write be.fit(be.BMA(), ensemble)
    """

    if not TYPE_CHECKING:  # or no misspelt attribute would be found

        def __getattr__(self, name: str) -> Any:
            kind = type(self).__name__
            if name not in _CALLS:
                raise AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=self)
            call = _CALLS[name].format(f"be.{kind}()", name=kind)
            raise AttributeError(f"{kind} is a value and has no method {name!r}; write {call}")


def check_options(model: Any) -> None:
    """Check the fields of a model against its ``choices`` and their kinds.

    Raises
    ------
    ValueError, TypeError
        Naming the field, what came and what it can be.
    """
    name = type(model).__name__
    for option, known in model.choices.items():
        if (value := getattr(model, option)) not in known:
            close = difflib.get_close_matches(str(value), [text for text in known if isinstance(text, str)], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{name}({option}=...) is one of {', '.join(map(repr, known))}; got {value!r}.{hint}")
    for item in dataclasses.fields(model):
        value = getattr(model, item.name)
        if item.name.endswith("_prior") and not isinstance(value, Prior):
            raise TypeError(
                f'{name}({item.name}=...) is a Prior such as Prior("HalfNormal", sigma=0.3); got {value!r}.'
            )
        if item.name in NUMBERS and not _named(item) and not isinstance(value, Prior | None):
            _check_number(f"{name}({item.name}=...)", value, positive=item.name != "center")
        flags = (True, False, None) if item.default is None else (True, False)
        if item.name in ("group", "site") and value not in flags:
            raise TypeError(f"{name}({item.name}=...) is True or False; got {value!r}.")
        if item.name == "sigma_floor" and value is not None and value != 0.0:
            _check_number(f"{name}(sigma_floor=...)", value, positive=True)
        if item.name == "member" and not isinstance(value, str | None):
            raise TypeError(f"{name}(member=...) is the name of a member or None; got {value!r}.")
        if item.name.endswith("_covariates") or _named(item):
            object.__setattr__(model, item.name, _names(name, item.name, value))
        if item.name == "exchangeable":
            # Lists are taken as well, and kept as tuples so that the model stays a value.
            object.__setattr__(model, item.name, _sets(f"{name}(exchangeable=...)", value))
        if item.name == "own_sd" and value is not None:
            object.__setattr__(model, item.name, _pairs(f"{name}(own_sd=...)", value))


def _named(item: dataclasses.Field[Any]) -> bool:
    """Whether an option is the names that widths follow, which is ``scale`` of models that have a ``unit`` of priors."""
    return item.name == "scale" and "tuple" in str(item.type)


def _names(model: str, option: str, value: Any) -> tuple[str, ...] | None:
    """Names as a tuple; lists are taken as well."""
    if value is None:
        return None
    if isinstance(value, int | float):
        raise TypeError(f"{model}({option}=...) names what the widths follow, such as ('mean', 'spread'); got {value!r}. The "
                        "unit of the priors is unit=...")  # fmt: skip
    if isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{model}({option}=...) is a sequence of names, such as ('mean', 'spread'); got {value!r}.")
    if len(set(value)) < len(tuple(value)):
        raise ValueError(f"{model}({option}=...) names something twice: {value!r}. Name each once.")
    return tuple(value)


def _check_number(what: str, value: Any, *, positive: bool) -> None:
    number = isinstance(value, int | float | np.number) and value is not True and math.isfinite(value)
    if not number or (positive and not value > 0):
        raise ValueError(f"{what} must be {'positive' if positive else 'a finite number'}; got {value!r}.")


def _sets(what: str, value: Any) -> tuple[tuple[str, ...], ...]:
    if isinstance(value, str) or any(isinstance(v, str) or not all(isinstance(m, str) for m in v) for v in value):
        raise TypeError(f"{what} is a sequence of sequences of member names, such as (('a', 'b'),); got {value!r}.")
    return tuple(tuple(v) for v in value)


def _pairs(what: str, value: Any) -> tuple[tuple[str, str], ...]:
    """Members and columns; a mapping is taken as well."""
    pairs = list(value.items()) if isinstance(value, dict) else value
    if isinstance(pairs, str | bool) or any(
        isinstance(pair, str) or len(pair) != 2 or not all(isinstance(one, str) for one in pair) for pair in pairs
    ):
        raise TypeError(f"{what} has members with the column of their standard deviation, such as (('krig', 'krig_sd'),), or is "
                        f"() for none; got {value!r}.")  # fmt: skip
    return tuple((str(member), str(column)) for member, column in pairs)


def filled[M](model: M, **found: Callable[[], Any]) -> M:
    """Return a model with its options that are None as the training rows say; functions are called only where they are.

    Examples
    --------
    >>> from bayesens.models import BMA
    >>> model = filled(BMA(center=2.0), center=lambda: 1.0, unit=lambda: 0.5)
    >>> model.center, model.unit
    (2.0, 0.5)
    """
    missing = {name: value() for name, value in found.items() if getattr(model, name) is None}
    return dataclasses.replace(model, **missing)  # type: ignore[type-var]


def options_to_json(model: Any) -> dict[str, Any]:
    """Return the fields of a model as plain values.

    Examples
    --------
    >>> from bayesens.models import BMA
    >>> options_to_json(BMA())["slope_prior"]
    {'prior': {'family': 'Normal', 'parameters': {'mu': 1.0, 'sigma': 0.25}}}
    """
    out: dict[str, Any] = {}
    for item in dataclasses.fields(model):
        value = getattr(model, item.name)
        out[item.name] = {"prior": value.to_json()} if isinstance(value, Prior) else value
    return out


def options_from_json(cls: type, data: dict[str, Any]) -> Any:
    """Rebuild a model of the given class from :func:`options_to_json`, also after a trip through JSON text."""
    known = {item.name for item in dataclasses.fields(cls)}
    if "unit" in known and "unit" not in data:  # the name that the unit of the priors once had
        data = {"unit" if key == "scale" else key: value for key, value in data.items()}
    if unknown := sorted(set(data) - known):
        raise ValueError(
            f"{cls.__name__} has no option {', '.join(unknown)}: the fit comes from another version of bayesens."
        )
    # An option that a fit was saved without had no say in it, whatever its default is now.
    data = {key: value for key, value in getattr(cls, "before", {}).items() if key not in data} | data
    return cls(**{key: _value(value) for key, value in data.items()})


def _value(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"prior"}:
        return Prior.from_json(value["prior"])
    if isinstance(value, list):
        return tuple(_value(v) for v in value)
    return value


def changed_words(cls: type | None, options: dict[str, Any]) -> str:
    """Say which options differ from a model's defaults, among them those that the data set.

    Parameters
    ----------
    cls : type or None
        The model; None for one that is not of this package, whose options are shown as they are.
    options : dict of str to value
        From `options_to_json`.

    Examples
    --------
    >>> from bayesens.models import BMA
    >>> changed_words(BMA, options_to_json(BMA(sigma="shared", center=0.25)))
    "sigma='shared', center=0.25"
    """
    if cls is None:
        return f"{json.dumps(options)} (a model of your own)"
    fitted, default = options_from_json(cls, options), cls()
    changed = {key: getattr(fitted, key) for key in options if getattr(fitted, key) != getattr(default, key)}
    for name in ("widths", "member_moments"):  # many numbers each
        changed.pop(name, None)
    return ", ".join(f"{key}={v:.4g}" if isinstance(v, float) else f"{key}={v!r}" for key, v in changed.items())
