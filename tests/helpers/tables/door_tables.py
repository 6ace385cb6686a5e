"""A small table without anything wrong, and ensembles of it and of others."""

import warnings

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from bayesens.ensemble.ensemble import Ensemble

ROLES = {"site": "station", "group": "network", "time": "date", "lon": "x", "lat": "y"}
label = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=4)


def table(n=6):
    """A small table without anything wrong: 6 rows, 3 members, 3 stations in 2 networks."""
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "date": pd.date_range("2020-03-01", periods=n, freq="D"),
            "station": [f"s{i % 3}" for i in range(n)],
            "network": [("north", "north", "south")[i % 3] for i in range(n)],
            "x": rng.uniform(-10, 10, n),
            "y": rng.uniform(40, 50, n),
            "sm": rng.uniform(0, 0.5, n),
            "rf": rng.uniform(0, 0.5, n),
            "mlr": rng.uniform(0, 0.5, n),
            "svr": rng.uniform(0, 0.5, n),
        }
    )


def door(frame, members=("rf", "mlr", "svr"), **columns):
    return Ensemble.from_frame(frame, members=members, **{"observation": "sm", **columns})


def quiet(frame, members, **columns):
    """Drawn values are true ones, also where they are -99999."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Ensemble.from_frame(frame, members=members, missing="none", **columns)
