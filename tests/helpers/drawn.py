"""What a figure shows, as numbers and words, and maps to draw."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.collections import QuadMesh
from scipy.stats import norm

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def maps_from(mean, sd, *, below=(0.15,), units="m3 m-3"):
    """Maps of a normal distribution, as `be.predict` lays them out."""
    parts = {"sd_within": 0.8 * sd, "sd_between": 0.6 * sd, "sd_parameter": 0.0 * sd}
    maps = xr.Dataset({"mean": mean, "sd": sd} | parts)
    quantiles = [mean + norm.ppf(level) * sd for level in LEVELS]
    maps["quantile_value"] = xr.concat(quantiles, "quantile").assign_coords(quantile=list(LEVELS))
    for name in maps.data_vars:
        maps[name].attrs = {"units": units}
    chances = [xr.apply_ufunc(norm.cdf, (one - mean) / sd, dask="allowed") for one in below]
    maps["probability_below"] = xr.concat(chances, "threshold").assign_coords(threshold=list(below))
    return maps.assign_attrs(units=units)


def degrees(rows=6, columns=8, days=0, seed=1):
    rng = np.random.default_rng(seed)
    coords = {"lat": -34.05 - 0.1 * np.arange(rows), "lon": 146.05 + 0.1 * np.arange(columns)}
    dims = ("lat", "lon")
    if days:
        coords, dims = {"time": pd.date_range("2016-02-05", periods=days)} | coords, ("time", *dims)
    mean = xr.DataArray(rng.uniform(0.1, 0.4, [len(coords[dim]) for dim in dims]), coords, dims)
    return maps_from(mean, 0.02 + 0.1 * mean)


def markers(ax):
    """Points drawn with a marker: one array (point, xy) per series."""
    return [line.get_xydata() for line in ax.lines if line.get_marker() not in ("None", None)]


def texts(labels):
    return [label.get_text() for label in labels]


def spans(lines):
    """Both ends of every line of a collection, along the one that differs."""
    segments = np.array(lines.get_segments())
    return segments[:, :, 0 if np.ptp(segments[0, :, 0]) > 0 else 1]


def mesh(ax):
    (one,) = [one for one in ax.collections if isinstance(one, QuadMesh)]
    return one


def said(ax):
    return [text.get_text() for text in ax.figure.legends[0].get_texts()]
