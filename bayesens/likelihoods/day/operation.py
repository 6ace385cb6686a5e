"""The log density of all days as an operation of PyTensor."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesens.likelihoods.day.likelihood import day_packed
from bayesens.likelihoods.day.table import DayTable
from bayesens.likelihoods.ops import Likelihood

__all__ = ["day_loglik"]


class DayLogLik(Likelihood):
    """Of `day_loglik`."""

    n_parameters = 1

    packed = staticmethod(day_packed)


def day_loglik(parameters: Any, table: DayTable, fixed: np.ndarray, z: np.ndarray) -> Any:
    """Log density of all days.

    Parameters
    ----------
    parameters : tensor (7)
        Variances of day, field, place, nugget and own error; ranges of field and place.
    table : DayTable
    fixed : array (station, station)
        Covariance of the static part that is known: of mean and trend.
    z : array (day, station)
        Less their origin; NaN where there is none.

    Returns
    -------
    tensor ()
    """
    patterns = table.patterns
    floats, stations, counts, days = [], [], [], []
    for p in range(len(patterns)):
        station, day = patterns.of_pattern(p)
        values = z[np.ix_(day, station)]
        floats += [values.sum(axis=0), (values.T @ values).ravel()]
        stations.append(station)
        counts.append(len(station))
        days.append(len(day))
    distance = np.where(np.isfinite(table.distance), table.distance, 1e300)
    data = np.concatenate([distance.ravel(), fixed.ravel(), *floats])
    index = np.concatenate([[len(table.site), len(patterns)], counts, days, *stations]).astype(np.int64)
    return DayLogLik().at(parameters, data=data, index=index)
