"""Stations on a line, and members to be trained on them."""

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from bayesens.members.members import Members

QUIET = {"progressbar": False}


def table(n_sites=9, n_days=12, seed=1, n_groups=3):
    """Stations on a line, with a covariate that matters, one that gives the station away, and a level of its own."""
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(n_sites), n_days)
    rain = rng.gamma(2.0, size=len(number))
    level = rng.normal(size=n_sites)[number]
    return pd.DataFrame(
        {
            "rain": rain,
            "heat": rng.normal(size=len(number)),
            "station_id": number.astype(float),
            "station": [f"s{i}" for i in number],
            "network": [f"n{i % n_groups}" for i in number],
            "region": np.where(number < n_sites // 2, "west", "east"),
            "date": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.tile(np.arange(n_days), n_sites), unit="D"),
            "lon": 100 + number * 0.5,
            "lat": 40.0 + 0 * rain,
            "sm": 0.1 * rain + level + 0.05 * rng.normal(size=len(number)),
        }
    )


def members(frame, estimators=None, covariates=("rain", "heat"), **options):
    columns = {"site": "station", "group": "network", "time": "date"} | options
    named = [value for value in columns.values() if isinstance(value, str) and value in frame]
    X = frame[list(dict.fromkeys([*covariates, *named]))]
    return Members(estimators or {"mlr": LinearRegression()}, X, frame["sm"], **columns)
