"""bayesens: from the predictions of several models to one calibrated predictive distribution."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names resolve at first use: `import bayesens` loads nothing heavier than the standard library.
_HOME = {
    "Ensemble": "ensemble",
    "BMA": "models", "HBM": "models", "Climatology": "models", "EqualWeights": "models", "SingleMember": "models",
    "Prior": "priors",
    "SufficientStatistics": "streaming",
    "fit": "inference",
    "loo": "leave_one_out",
    "add": "prediction", "draw": "prediction", "predict": "prediction", "score": "prediction",
    "read_fit": "files",
}  # fmt: skip
__all__ = ["BMA", "HBM", "Climatology", "Ensemble", "EqualWeights", "Prior", "SingleMember", "SufficientStatistics", "add",
           "draw", "fit", "loo", "predict", "read_fit", "score"]  # fmt: skip

if TYPE_CHECKING:
    from bayesens.ensemble import Ensemble
    from bayesens.files import read_fit
    from bayesens.inference import fit
    from bayesens.leave_one_out import loo
    from bayesens.models import BMA, HBM, Climatology, EqualWeights, SingleMember
    from bayesens.prediction import add, draw, predict, score
    from bayesens.priors import Prior
    from bayesens.streaming import SufficientStatistics


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bayesens' has no attribute {name!r}")
    value = getattr(import_module(f"bayesens.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
