"""bayesens: from the predictions of several models to one calibrated predictive distribution."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names resolve at first use: `import bayesens` loads nothing heavier than the standard library.
_HOME = {
    "Ensemble": "ensemble", "EnsembleRegressor": "regressor",
    "BMA": "models", "HBM": "models", "Climatology": "models", "EqualWeights": "models", "SingleMember": "models",
    "EMOS": "models", "LinearPool": "models",
    "Prior": "priors",
    "FittedMembers": "member_fits", "Members": "members", "cross_fit": "members",
    "default_estimators": "estimators",
    "common_rows": "scored_rows", "paired_differences": "evaluation", "product_table": "evaluation",
    "score_table": "evaluation",
    "coverage_table": "coverage",
    "SufficientStatistics": "streaming",
    "OnMembers": "comparison", "compare": "comparison",
    "dependence": "member_dependence", "dependence_words": "dependence_text",
    "fit": "inference",
    "ladder": "rungs", "ladder_effects": "rungs", "ladder_words": "rungs",
    "loo": "leave_one_out", "loo_table": "loo_comparison",
    "add": "prediction", "draw": "prediction", "predict": "prediction", "score": "prediction",
    "read_fit": "fit_tree", "write_fit": "fit_tree",
    "summary": "description",
}  # fmt: skip
# Files whose names are used as they stand: be.plots.weights, be.datasets.oznet.
_FILES = (
    "applicability", "binary_scores", "correlations", "datasets", "domain", "events", "importance", "plots", "report",
    "representativeness", "sensitivity", "simulate", "spatial", "study", "thresholds", "trajectory", "variogram", "worlds",
)  # fmt: skip
__all__ = [
    "BMA",
    "EMOS",
    "HBM",
    "Climatology",
    "Ensemble",
    "EnsembleRegressor",
    "EqualWeights",
    "FittedMembers",
    "LinearPool",
    "Members",
    "OnMembers",
    "Prior",
    "SingleMember",
    "SufficientStatistics",
    "add",
    "common_rows",
    "compare",
    "coverage_table",
    "cross_fit",
    "default_estimators",
    "dependence",
    "dependence_words",
    "draw",
    "fit",
    "ladder",
    "ladder_effects",
    "ladder_words",
    "loo",
    "loo_table",
    "paired_differences",
    "predict",
    "product_table",
    "read_fit",
    "score",
    "score_table",
    "summary",
    "write_fit",
]

if TYPE_CHECKING:
    from bayesens.comparison import OnMembers, compare
    from bayesens.coverage import coverage_table
    from bayesens.dependence_text import dependence_words
    from bayesens.description import summary
    from bayesens.ensemble import Ensemble
    from bayesens.estimators import default_estimators
    from bayesens.evaluation import paired_differences, product_table, score_table
    from bayesens.fit_tree import read_fit, write_fit
    from bayesens.inference import fit
    from bayesens.leave_one_out import loo
    from bayesens.loo_comparison import loo_table
    from bayesens.member_dependence import dependence
    from bayesens.member_fits import FittedMembers
    from bayesens.members import Members, cross_fit
    from bayesens.models import BMA, EMOS, HBM, Climatology, EqualWeights, LinearPool, SingleMember
    from bayesens.prediction import add, draw, predict, score
    from bayesens.priors import Prior
    from bayesens.regressor import EnsembleRegressor
    from bayesens.rungs import ladder, ladder_effects, ladder_words
    from bayesens.scored_rows import common_rows
    from bayesens.streaming import SufficientStatistics


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return import_module(f"bayesens.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'bayesens' has no attribute {name!r}")
    value = getattr(import_module(f"bayesens.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_FILES, "__version__"})
