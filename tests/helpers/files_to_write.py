"""A table and a fit for tests that write and read files, and the suffixes of files of tables."""

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.inference.fit_tree import FORMAT

SUFFIXES = [".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".nc", ".zarr"]


def table():
    rng = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "station": ["007", "008", "007", None],
            "date": pd.date_range("2020-01-01", periods=4),
            "sm": [0.1, np.nan, 0.3, 0.2],
            "rf": rng.random(4),
            "mlr": rng.random(4),
        }
    )


def fit(**attrs):
    posterior = xr.Dataset(
        {"weight": (("chain", "draw", "member"), np.random.default_rng(1).random((2, 5, 3)))},
        {"member": ["rf", "mlr", "süß"], "chain": [0, 1]},
    )
    texts = {"bayesens_options": "{}", "bayesens_members": '["rf", "mlr", "süß"]', "columns": "{}", "units": ""}
    root = xr.Dataset(attrs={"bayesens_format": FORMAT, "bayesens_model": "BMA", **texts, **attrs})
    return xr.DataTree.from_dict({"/": root, "/posterior": posterior})
