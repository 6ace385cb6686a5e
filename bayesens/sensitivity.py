"""What a result rests on: members, stations, priors, and rows that tell less than their number.

The functions live in files of one idea each and are found here under one name: ``be.sensitivity.members_left_out``.
"""

from __future__ import annotations

from bayesens.clustered import clustered_weights, effective_rows, weights_table
from bayesens.member_subsets import left_out_words, members_left_out, shapley
from bayesens.power_scaling import power_scaling, power_words, scaled_draws
from bayesens.prior_grid import grid_table, grid_words, prior_grid, usual_grid
from bayesens.prior_predictive import prior_predictive, prior_table, prior_words
from bayesens.reduction import fewer_stations
from bayesens.reduction_curves import power_law, reduction_table, reduction_words

__all__ = [
    "clustered_weights",
    "effective_rows",
    "fewer_stations",
    "grid_table",
    "grid_words",
    "left_out_words",
    "members_left_out",
    "power_law",
    "power_scaling",
    "power_words",
    "prior_grid",
    "prior_predictive",
    "prior_table",
    "prior_words",
    "reduction_table",
    "reduction_words",
    "scaled_draws",
    "shapley",
    "usual_grid",
    "weights_table",
]
