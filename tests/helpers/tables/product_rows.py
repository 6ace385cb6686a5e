"""Rows of a good and a bad product at stations in networks, and their metrics by hand."""

import numpy as np
import pandas as pd
from sklearn import metrics as sk

import bayesens as be
from bayesens.comparison.common_rows import common_rows


def table(seed=0, *, stations=8, days=40, networks=3):
    """Observations of stations in networks, with a good and a bad product, ragged in time."""
    rng = np.random.default_rng(seed)
    site, day = (a.ravel() for a in np.meshgrid(np.arange(stations), np.arange(days), indexing="ij"))
    keep = rng.random(site.size) < 0.8
    site, day = site[keep], day[keep]
    level, wave = rng.normal(0.25, 0.05, stations)[site], 0.05 * np.sin(day / 6.0)
    y = level + wave + rng.normal(0, 0.02, site.size)
    return pd.DataFrame({
        "sm": y,
        "good": 0.7 * y + 0.07 + rng.normal(0, 0.03, stations)[site] + rng.normal(0, 0.02, y.size),
        "bad": 0.3 * y + 0.2 + rng.normal(0, 0.05, y.size),
        "station": [f"s{s}" for s in site],
        "network": [f"n{s % networks}" for s in site],
        "date": pd.Timestamp("2020-01-01") + pd.to_timedelta(5 * day, unit="D"),
    })  # fmt: skip


def ensemble_of(frame, **roles):
    roles = {"site": "station", "group": "network", "time": "date"} | roles
    return be.Ensemble.from_frame(frame, members=["good", "bad"], observation="sm", **roles)


def point_rows(frame, **kwargs):
    products = {"good": frame["good"], "bad": frame["bad"]}
    return common_rows({}, ensemble_of(frame), estimand="site", products=products, **kwargs)


def by_hand(frame, name):
    """Metrics of a table of rows, one by one."""
    f, y = frame[name].to_numpy(), frame["sm"].to_numpy()
    r = np.corrcoef(f, y)[0, 1]
    out = {"rmse": np.sqrt(sk.mean_squared_error(y, f)), "mae": sk.mean_absolute_error(y, f), "bias": np.mean(f - y)}
    out |= {"ubrmse": np.std(f - y), "r": r}
    out["kge"] = 1 - np.sqrt((r - 1) ** 2 + (np.std(f) / np.std(y) - 1) ** 2 + (np.mean(f) / np.mean(y) - 1) ** 2)
    return out
