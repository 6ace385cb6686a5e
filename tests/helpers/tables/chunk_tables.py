"""Rows of sites in groups, with gaps, their chunks, and what is made of either: ensembles and sufficient statistics."""

import numpy as np
import pandas as pd

import bayesens as be

MEMBERS = ["a", "b", "c"]
COLUMNS = {"members": MEMBERS, "observation": "y", "site": "s", "group": "g"}


def table(n=600, seed=1):
    """Positive rows at twelve sites in three groups, with gaps everywhere but in the labels."""
    rng = np.random.default_rng(seed)
    site = rng.integers(0, 12, n)
    y = 5.0 + 0.5 * rng.normal(size=12)[site] + 0.6 * rng.normal(size=n)
    frame = pd.DataFrame({"y": y, "s": [f"s{i:02d}" for i in site], "g": [f"g{i % 3}" for i in site]})
    for k, name in enumerate(MEMBERS):
        frame[name] = 0.3 * k + 0.8 * y + (0.2 + 0.1 * k) * rng.normal(size=n)
        frame.loc[rng.random(n) < 0.1, name] = np.nan
    frame.loc[frame[MEMBERS].isna().all(axis=1), "c"] = 4.0
    frame.loc[::17, "y"] = np.nan
    return frame


def pieces(frame, size):
    return [frame[i : i + size] for i in range(0, len(frame), size)]


def streamed(frame, size=50, **options):
    return be.SufficientStatistics.from_frames(pieces(frame, size), **COLUMNS | options)


def ensemble(frame, **options):
    return be.Ensemble.from_frame(frame, **COLUMNS | options)
