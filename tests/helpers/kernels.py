"""Compile the kernels once, before the processes of the tests start: from a clean clone each of them would compile them all."""

import warnings

import numpy as np
import pandas as pd
import xarray as xr

import bayesens as be
from simulated import hierarchy, mixture

MODELS = [
    be.BMA(), be.BMA(correction="joint"), be.LinearPool(), be.LinearPool(correction="joint"), be.EMOS(),
    be.HBM(group=False),
]  # fmt: skip


def compile_kernels():
    """Small fits of every kind, and what is asked of a fit afterwards; the kernels are kept on disk."""
    for model in MODELS:
        ensemble = hierarchy() if isinstance(model, be.HBM) else mixture()
        grid = xr.Dataset({name: ("cell", np.full(3, 5.0)) for name in ensemble.members})
        if not isinstance(model, be.HBM):
            be.predict(be.fit(model, ensemble, method="em", random_seed=1, progressbar=False), grid)
        tree = be.fit(model, ensemble, method="laplace", draws=50, random_seed=1, progressbar=False)
        be.score(tree, ensemble)
        be.loo(tree, ensemble, progressbar=False)
        be.predict(tree, grid)
    be.neighbours(be.Ensemble.from_frame(two_stations(), members=["a"], observation="y", site="s", time="t"))


def two_stations():
    """Two stations and three days."""
    return pd.DataFrame(
        {"s": ["p", "q"] * 3, "t": [1, 1, 2, 2, 3, 3], "a": np.arange(6.0), "y": [0.1, 0.9, 2.2, 2.7, 4.1, 5.3]}
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    compile_kernels()
