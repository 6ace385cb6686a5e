"""When draws are trusted: limits that fits, their descriptions and grids of priors share."""

__all__ = ["DIVERGING", "ESS", "IMPORTANCE_ESS", "PARETO_K", "RHAT"]

RHAT, ESS = 1.01, 400.0
# A transition that diverges is one that met a place too curved for its steps; some is said of a fit where R-hat and ESS fail.
# Where these hold, a place that a share of .002 of the transitions misses moves a probability by about that: a fifth of
# the Monte Carlo error of a tail of 5 % with an ESS of 400, sqrt(.05 * .95 / 400) = .011. The number is kept in any case.
DIVERGING = 0.002
# Of importance weights around an optimum.
PARETO_K, IMPORTANCE_ESS = 0.7, 400.0
