"""Figures from results: posteriors, predictions, maps, calibration, scores, stations and covariates.

Every function draws into ``ax``, or into a figure of its own, and returns the axes. Series differ in colour (the
Okabe-Ito palette), lightness, marker and line, so that they stay apart in grey print and for colour-blind readers.
"""

from __future__ import annotations

from bayesens.plots.calibration import coverage, coverage_by_class, pit, quantile_reliability, reliability
from bayesens.plots.distances import error_profile, fold_distances
from bayesens.plots.error_correlations import dependence
from bayesens.plots.ladder_effects import ladder
from bayesens.plots.leave_one_out import loo_differences, loo_pit
from bayesens.plots.maps.distance_errors import error_by_distance
from bayesens.plots.maps.mean_and_width import map  # noqa: A004
from bayesens.plots.maps.multiples import maps_by_time, variance_parts
from bayesens.plots.maps.one_map import map_of
from bayesens.plots.maps.pixel import pixel_series
from bayesens.plots.maps.probabilities import probability_map
from bayesens.plots.maps.value_suppressing import vsup
from bayesens.plots.maps.variability import variability
from bayesens.plots.matrices import correlations
from bayesens.plots.posterior import biases, source_biases, weights
from bayesens.plots.predictions import event_probability, intervals, intervals_by_station
from bayesens.plots.priors import power_scaled, power_sensitivity, prior_implied, tornado
from bayesens.plots.station_maps import representativeness, stations
from bayesens.plots.subsets import learning_curve, left_out, shapley
from bayesens.plots.tables import band_curve, differences, importance, scores, scores_by_group

__all__ = [
    "band_curve",
    "biases",
    "correlations",
    "coverage",
    "coverage_by_class",
    "dependence",
    "differences",
    "error_by_distance",
    "error_profile",
    "event_probability",
    "fold_distances",
    "importance",
    "intervals",
    "intervals_by_station",
    "ladder",
    "learning_curve",
    "left_out",
    "loo_differences",
    "loo_pit",
    "map",
    "map_of",
    "maps_by_time",
    "pit",
    "pixel_series",
    "power_scaled",
    "power_sensitivity",
    "prior_implied",
    "probability_map",
    "quantile_reliability",
    "reliability",
    "representativeness",
    "scores",
    "scores_by_group",
    "shapley",
    "source_biases",
    "stations",
    "tornado",
    "variability",
    "variance_parts",
    "vsup",
    "weights",
]
