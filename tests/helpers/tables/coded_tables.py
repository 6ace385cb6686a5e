"""A table of soil moisture, and codes for missing values written into it."""

import numpy as np
import pandas as pd

import bayesens as be

MEMBERS = ["rf", "svr", "xgb", "mlr"]


def table(n=240, seed=0):
    """Soil moisture at six stations, four members of different skill."""
    rng = np.random.default_rng(seed)
    y = 0.25 + 0.05 * rng.standard_normal(n)
    columns = {"station": np.repeat([f"s{i}" for i in range(6)], n // 6), "sm": y}
    for name, bias, sd in zip(MEMBERS, (0.0, 0.01, -0.01, 0.02), (0.02, 0.03, 0.03, 0.05), strict=True):
        columns[name] = y + bias + sd * rng.standard_normal(n)
    return pd.DataFrame(columns).round(6)


def door(frame, **options):
    return be.Ensemble.from_frame(frame, members=MEMBERS, observation="sm", site="station", **options)


def spoilt(columns, value, every=10, frame=None):
    frame = table() if frame is None else frame.copy()
    frame.loc[::every, columns] = value
    return frame
