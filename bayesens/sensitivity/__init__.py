"""What a result rests on: members, stations, priors, and rows that tell less than their number.

The functions live in files of one idea each and are found here under one name: ``be.sensitivity.members_left_out``.
"""

from __future__ import annotations

from bayesens.sensitivity.clusters import clustered_weights, weights_table
from bayesens.sensitivity.implied import prior_predictive, prior_table, prior_words
from bayesens.sensitivity.likelihood_power import effective_rows
from bayesens.sensitivity.members import left_out_words, members_left_out, shapley
from bayesens.sensitivity.power import power_scaling, power_words, scaled_draws
from bayesens.sensitivity.prior_points import usual_grid
from bayesens.sensitivity.prior_tables import grid_table, grid_words
from bayesens.sensitivity.priors import prior_grid
from bayesens.sensitivity.station_curves import power_law, reduction_table, reduction_words
from bayesens.sensitivity.stations import fewer_stations

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
