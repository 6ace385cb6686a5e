"""Models of a comparison with neighbours: each as it is, and told the day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from bayesens.comparison.folds.runs import OnMembers
from bayesens.ensemble.ensemble import Ensemble
from bayesens.members.day.beside import as_members
from bayesens.members.day.chain import BESIDE, NAME
from bayesens.members.members import Members

__all__ = ["OF_THE_DAY", "models_told", "of_the_day"]

OF_THE_DAY = " of the day"  # ends the name of a model that is told it


def of_the_day(ensemble: Ensemble, places: Mapping[str, Any] | None) -> Members:
    """The members of a table beside neighbours, which every fold makes anew of its training stations."""
    return as_members(ensemble, places=places)


def models_told(models: Mapping[str, Any], members: Sequence[str]) -> dict[str, Any]:
    """Every model on the members of the table, and "of the day": with neighbours among them.

    Examples
    --------
    >>> from bayesens.models import BMA, Climatology
    >>> told = models_told({"BMA": BMA(scale=("mean", "neighbours_sd")), "Climatology": Climatology()}, ["rf"])
    >>> list(told), told["BMA"].model.scale
    (['BMA', 'Climatology', 'BMA of the day'], ('mean',))
    """
    plain = {name: OnMembers(_not_told(model), tuple(members)) for name, model in models.items()}
    return plain | {
        f"{name}{OF_THE_DAY}": model for name, model in models.items() if getattr(model, "uses_members", True)
    }


def _not_told(model: Any) -> Any:
    """The model without the columns that neighbours add."""
    changed = {}
    for each in fields(model):
        value = getattr(model, each.name)
        if isinstance(value, tuple):
            rest = tuple(one for one in value if one not in BESIDE and not (isinstance(one, tuple) and one[0] == NAME))
            if rest != value:
                changed[each.name] = rest
    return replace(model, **changed) if changed else model
