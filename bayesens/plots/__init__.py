"""Figures from results: posteriors, predictions, calibration, scores, stations and covariates.

Every function draws into ``ax``, or into a figure of its own, and returns the axes. Series differ in colour (the
Okabe-Ito palette), lightness, marker and line, so that they stay apart in grey print and for colour-blind readers.
"""

from __future__ import annotations

from bayesens.plots.matrices import correlations
from bayesens.plots.posterior import biases, source_biases, weights
from bayesens.plots.predictions import coverage, intervals, pit, reliability
from bayesens.plots.stations import representativeness, stations
from bayesens.plots.tables import band_curve, differences, importance, scores

__all__ = [
    "band_curve",
    "biases",
    "correlations",
    "coverage",
    "differences",
    "importance",
    "intervals",
    "pit",
    "reliability",
    "representativeness",
    "scores",
    "source_biases",
    "stations",
    "weights",
]
