"""The models, one a file. Each is a frozen value that builds a PyMC model and knows its predictive distribution.

A model speaks for itself: what it is called, what it assumes and what it needs are attributes of its class, as `Model` lists
them. A new one is a file here and a line in `_HOME`, and its name stands in the lists for readers of types; commands, studies
and reports know no model by its name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import xarray as xr

    from bayesens.ensemble.ensemble import Ensemble
    from bayesens.models.baselines import EqualWeights, SingleMember
    from bayesens.models.bma import BMA
    from bayesens.models.climatology import Climatology
    from bayesens.models.emos import EMOS
    from bayesens.models.hbm import HBM
    from bayesens.models.idr import IDR
    from bayesens.models.linear_pool import LinearPool

# Class: its file, and what commands and study files call it. A class is loaded when it is asked for.
_HOME = {
    "BMA": ("bma", "bma"),
    "HBM": ("hbm", "hbm"),
    "LinearPool": ("linear_pool", "linear_pool"),
    "EMOS": ("emos", "emos"),
    "EqualWeights": ("baselines", "equal"),
    "SingleMember": ("baselines", "single"),
    "Climatology": ("climatology", "climatology"),
    "IDR": ("idr", "idr"),
}
KINDS = {kind: name for name, (_, kind) in _HOME.items()}

__all__ = ["BMA", "EMOS", "HBM", "IDR", "Climatology", "EqualWeights", "LinearPool", "SingleMember"]


class Model(Protocol):
    """What every model has. Those of `bayesens` have it all; a model of one's own needs the methods.

    Attributes
    ----------
    spelled : tuple of str
        What it is called in a sentence, and in full; both the same where the name says all.
    assumes : str
        What it takes for granted, as the predicate of a sentence that begins with its name.
    meaning : str
        Its line of a glossary; empty where it needs none.
    baseline : bool
        Whether it combines nothing: others are measured against it.
    joint : bool
        Whether the density that is fitted is that of observation and members, p(y, f), in place of p(y | f).
    choices : dict of str to tuple
        Options that take one of a few values.
    """

    spelled: ClassVar[tuple[str, str]]
    assumes: ClassVar[str]
    meaning: ClassVar[str]
    baseline: ClassVar[bool]
    joint: ClassVar[bool]
    choices: ClassVar[dict[str, tuple[Any, ...]]]

    def resolve(self, data: Any) -> Any:
        """Return the model with options that the data set."""

    def build(self, data: Any, likelihood: str = ...) -> Any:
        """Return the PyMC model; with ``likelihood="rows"`` the plain one that a statistician would write.

        A class that has no parameters to sample says so, ``sampled = False``, refuses, and is fitted by ``em`` alone.
        """

    def predictive(self, posterior: xr.Dataset, ensemble: Ensemble) -> Any:
        """Return the law of new rows, a mixture over the draws of a posterior."""

    def n_parameters(self, data: Any) -> int:
        """Return how many numbers are fitted."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name][0]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
