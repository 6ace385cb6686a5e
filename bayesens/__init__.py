"""bayesens: from the predictions of several models to one calibrated predictive distribution."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names resolve at first use: `import bayesens` loads nothing heavier than the standard library.
_HOME = {
    "Ensemble": "ensemble.ensemble",
    "EnsembleRegressor": "members.regressor",
    "BMA": "models",
    "HBM": "models",
    "IDR": "models",
    "Climatology": "models",
    "EqualWeights": "models",
    "SingleMember": "models",
    "EMOS": "models",
    "LinearPool": "models",
    "Neighbours": "models.neighbours",
    "Prior": "likelihoods.priors",
    "FittedMembers": "members.fitted",
    "Members": "members.members",
    "cross_fit": "members.cross_fitting",
    "neighbours": "members.day.beside",
    "default_estimators": "members.estimators",
    "common_rows": "comparison.common_rows",
    "paired_differences": "comparison.tables",
    "product_table": "comparison.tables",
    "score_table": "comparison.tables",
    "coverage_table": "comparison.coverage",
    "recalibrate": "comparison.recalibration",
    "recalibrated_rows": "comparison.recalibration",
    "recalibration_table": "comparison.recalibration",
    "Recalibration": "distributions.levels.recalibration",
    "SufficientStatistics": "ensemble.streaming",
    "OnMembers": "comparison.compare",
    "compare": "comparison.compare",
    "dependence": "comparison.errors.dependence",
    "dependence_words": "comparison.errors.words",
    "error_profile": "members.error_profile",
    "fit": "inference.fit",
    "fold_distances": "comparison.folds.distances",
    "ladder": "comparison.ladder",
    "ladder_effects": "comparison.ladder",
    "ladder_words": "comparison.ladder",
    "loo": "inference.loo",
    "loo_table": "comparison.loo_table",
    "loo_words": "comparison.loo_table",
    "map": "members.grids.mapping",
    "add": "inference.predict",
    "draw": "inference.predict",
    "predict": "inference.predict",
    "score": "inference.predict",
    "read_fit": "inference.fit_tree",
    "write_fit": "inference.fit_tree",
    "write_map": "geo.stores.write",
    "region_grid": "app.demo_grid",
    "ResidualField": "geo.residual_field",
    "residual_field": "geo.residual_field",
    "summary": "inference.summary",
}
# Files whose names are used as they stand: be.plots.weights, be.datasets.oznet.
_FACES = {
    "applicability": "members.applicability",
    "binary_scores": "geo.event_scores",
    "correlations": "members.correlations",
    "datasets": "datasets",
    "domain": "members.domain",
    "events": "geo.events",
    "importance": "sensitivity.covariates",
    "plots": "plots",
    "report": "app.report.page",
    "representativeness": "geo.representativeness",
    "sensitivity": "sensitivity",
    "simulate": "simulate",
    "spatial": "geo.spatial",
    "study": "app.study.run",
    "thresholds": "geo.thresholds",
    "trajectory": "geo.trajectory",
    "variogram": "geo.variogram",
    "worlds": "worlds",
}
__all__ = [
    "BMA",
    "EMOS",
    "HBM",
    "IDR",
    "Climatology",
    "Ensemble",
    "EnsembleRegressor",
    "EqualWeights",
    "FittedMembers",
    "LinearPool",
    "Members",
    "Neighbours",
    "OnMembers",
    "Prior",
    "Recalibration",
    "ResidualField",
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
    "error_profile",
    "fit",
    "fold_distances",
    "ladder",
    "ladder_effects",
    "ladder_words",
    "loo",
    "loo_table",
    "loo_words",
    "map",
    "neighbours",
    "paired_differences",
    "predict",
    "product_table",
    "read_fit",
    "recalibrate",
    "recalibrated_rows",
    "recalibration_table",
    "region_grid",
    "residual_field",
    "score",
    "score_table",
    "summary",
    "write_fit",
    "write_map",
]

if TYPE_CHECKING:
    from bayesens.app.demo_grid import region_grid
    from bayesens.comparison.common_rows import common_rows
    from bayesens.comparison.compare import compare
    from bayesens.comparison.coverage import coverage_table
    from bayesens.comparison.errors.dependence import dependence
    from bayesens.comparison.errors.words import dependence_words
    from bayesens.comparison.folds.distances import fold_distances
    from bayesens.comparison.folds.runs import OnMembers
    from bayesens.comparison.ladder import ladder, ladder_effects, ladder_words
    from bayesens.comparison.loo_table import loo_table, loo_words
    from bayesens.comparison.recalibration import recalibrate, recalibrated_rows, recalibration_table
    from bayesens.comparison.tables import paired_differences, product_table, score_table
    from bayesens.distributions.levels.recalibration import Recalibration
    from bayesens.ensemble.ensemble import Ensemble
    from bayesens.ensemble.streaming import SufficientStatistics
    from bayesens.geo.residual_field import ResidualField, residual_field
    from bayesens.geo.stores.write import write_map
    from bayesens.inference.fit import fit
    from bayesens.inference.fit_tree import read_fit, write_fit
    from bayesens.inference.loo import loo
    from bayesens.inference.predict import add, draw, predict, score
    from bayesens.inference.summary import summary
    from bayesens.likelihoods.priors import Prior
    from bayesens.members.cross_fitting import cross_fit
    from bayesens.members.day.beside import neighbours
    from bayesens.members.error_profile import error_profile
    from bayesens.members.estimators import default_estimators
    from bayesens.members.fitted import FittedMembers
    from bayesens.members.grids.mapping import map  # noqa: A004
    from bayesens.members.members import Members
    from bayesens.members.regressor import EnsembleRegressor
    from bayesens.models import BMA, EMOS, HBM, IDR, Climatology, EqualWeights, LinearPool, SingleMember
    from bayesens.models.neighbours import Neighbours


def __getattr__(name: str) -> Any:
    if name in _FACES:
        return import_module(f"bayesens.{_FACES[name]}")
    if name not in _HOME:
        raise AttributeError(f"module 'bayesens' has no attribute {name!r}")
    value = getattr(import_module(f"bayesens.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_FACES, "__version__"})
