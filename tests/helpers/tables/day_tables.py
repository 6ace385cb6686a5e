"""Stations in a plane that neighbours are asked of."""

from __future__ import annotations

import numpy as np
import pandas as pd

import bayesens as be

IDENTITY = be.Neighbours(transform="identity")


def table(seed=1, stations=5, days=12):
    """Stations in a plane on the same days."""
    rng = np.random.default_rng(seed)
    xy, day = rng.uniform(0.0, 100.0, (stations, 2)), rng.normal(size=days)
    y = day[:, None] + 0.3 * rng.normal(size=stations) + 0.4 * rng.normal(size=(days, stations))
    return pd.DataFrame({
        "site": np.tile([f"s{k}" for k in range(stations)], days), "x": np.tile(xy[:, 0], days), "y": np.tile(xy[:, 1], days),
        "time": np.repeat(pd.date_range("2020-01-01", periods=days), stations), "obs": y.ravel(),
        "rf": (y + rng.normal(size=y.shape)).ravel(),
    })  # fmt: skip


def ensemble(frame, covariates=("x", "y"), **options):
    roles = {"members": ["rf"], "observation": "obs", "site": "site", "time": "time", "covariates": list(covariates)}
    return be.Ensemble.from_frame(frame, **roles | options)


def members(frame, covariates=("x", "y"), neighbours=IDENTITY, **options):
    return be.Members({}, frame[["rf", *covariates]], frame["obs"], site=frame["site"], time=frame["time"], products=["rf"],
                      neighbours=neighbours, **options)  # fmt: skip


def said(frame, model=IDENTITY, **options):
    """The member, its standard deviation and the distance, in columns."""
    made = be.neighbours(ensemble(frame, **options), model).dataset
    beside = made["covariate"].sel(covariate_name=["neighbours_sd", "neighbours_distance"])
    return np.column_stack([made["prediction"].sel(member="neighbours").values, beside.values])
