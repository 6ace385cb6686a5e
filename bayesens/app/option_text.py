"""Options of models in words, as a command line has them: ``sigma=shared``, ``site=true``, a prior as JSON."""

from __future__ import annotations

import dataclasses
import json
from difflib import get_close_matches
from typing import Any

from bayesens.likelihoods.priors import Prior

__all__ = ["option_from_words", "option_value"]


def option_from_words(cls: type, text: str) -> tuple[str, Any]:
    """Return name and value of one option in words, ``NAME=VALUE``, checked against the fields of the model.

    Examples
    --------
    >>> from bayesens.models import BMA
    >>> option_from_words(BMA, "sigma=shared")
    ('sigma', 'shared')
    >>> option_from_words(BMA, 'bias_prior={"family": "Normal", "mu": 0, "sigma": 0.5}')
    ('bias_prior', Prior("Normal", mu=0.0, sigma=0.5))
    """
    name, equals, word = text.partition("=")
    if not equals:
        raise ValueError(
            f"--option got {text!r}; wanted NAME=VALUE with an option of {cls.__name__}, such as group=true"
        )
    try:
        value = json.loads(word)
    except json.JSONDecodeError:
        value = {"true": True, "false": False}.get(word.lower(), word)
    return name, option_value(cls, name, value)


def option_value(cls: type, name: str, value: Any) -> Any:
    """Return the value of an option as the model has it, from JSON or TOML: a list becomes a tuple, a ``family`` a prior.

    Raises
    ------
    ValueError
        No such option, or a value of another kind.

    Examples
    --------
    >>> from bayesens.models import BMA
    >>> option_value(BMA, "bias_prior", {"family": "Normal", "mu": 0, "sigma": 0.5})
    Prior("Normal", mu=0.0, sigma=0.5)
    """
    kinds = {item.name: str(item.type) for item in dataclasses.fields(cls)}
    if name not in kinds:
        near = get_close_matches(name, kinds, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(kinds)}"
        raise ValueError(f"{cls.__name__} has no option {name!r}; {hint}")
    made = _value(value)
    if not _suits(made, kinds[name]):
        listed = (
            f", written as a list: {name}={json.dumps([value])}"
            if "tuple" in kinds[name] and isinstance(value, str)
            else ""
        )
        raise ValueError(f"option {name} of {cls.__name__} got {value!r}; wanted a value of kind {kinds[name]}{listed}")
    return made


def _value(value: Any) -> Any:
    """JSON as models have it: tuples for lists, a prior for an object."""
    if isinstance(value, list):
        return tuple(_value(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "family" not in value:
        raise ValueError(f'a prior is an object such as {{"family": "Normal", "mu": 0, "sigma": 1}}; got {value}')
    parameters = {key: item for key, item in value.items() if key != "family"}
    return Prior(value["family"], **parameters.get("parameters", parameters))


def _suits(value: Any, kind: str) -> bool:
    """Whether a value has one of the types in an annotation such as ``float | Prior``."""
    names = [name.split("[")[0] for name in kind.split(" | ")]
    if isinstance(value, int) and not isinstance(value, bool):
        return "float" in names
    return type(value).__name__.replace("NoneType", "None") in names
