"""A grid for the simulated region of the demo: its members on some dates, and the truth that they see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.spatial import cKDTree

from bayesens.ensemble.sphere import EARTH_RADIUS, on_sphere
from bayesens.geo.residual_field import ResidualField
from bayesens.simulate import Simulation

__all__ = ["region_grid"]

DATES = 6
CELLS = (36, 56)  # rows and columns
MARGIN = 0.2  # degrees around the stations
REACH = 25.0  # km around stations: the networks, and not what lies between them
TRUTH_SD = 0.045  # of climates and weather together [m3 m-3]
# How truth and errors hang together: within networks, and by the memory of the simulated weather, 0.75 over six days.
OF_TRUTH = ResidualField(range=25.0, nugget=0.05, persistence=0.95)
OF_ERRORS = ResidualField(range=15.0, nugget=0.3, persistence=0.5)


def region_grid(region: Simulation, *, random_seed: int) -> xr.Dataset:
    """Simulate the members of a region between its stations, on its last dates, with the biases, slopes and errors that it has.

    The truth is a field of its own with the mean of the stations' truth on each date; it does not go through the stations.

    Parameters
    ----------
    region : Simulation
        From `bayesens.simulate.region`.
    random_seed : int

    Returns
    -------
    Dataset
        ``rf, mlr, svr, xgb, truth (date, lat, lon)`` [m3 m-3], within 25 km of a station; ``svr`` is missing in 5 % of the cells.

    Examples
    --------
    >>> import bayesens as be
    >>> made = be.region_grid(be.simulate.region(random_seed=1), random_seed=1)
    >>> made.sizes["date"], bool(made["truth"].min() >= 0.02)
    (6, True)
    """
    frame, true = region.frame, region.truth
    dates = pd.DatetimeIndex(np.sort(frame["date"].unique()))[-DATES:]
    lon, lat = (np.linspace(frame[name].min() - MARGIN, frame[name].max() + MARGIN, size)
                for name, size in zip(("lon", "lat"), CELLS[::-1], strict=True))  # fmt: skip
    x, y = np.meshgrid(lon, lat)
    shape = (*CELLS, len(dates))

    def field(law: ResidualField, *seed: int) -> Any:
        scores = law.scores(x.ravel(), y.ravel(), dates.to_numpy(), random_seed=[random_seed, *seed])
        return np.moveaxis(scores.reshape(shape), -1, 0)  # (date, lat, lon)

    level = frame[frame["date"].isin(dates)].groupby("date")["truth"].mean().to_numpy()
    truth = np.clip(level[:, None, None] + TRUTH_SD * field(OF_TRUTH, 0), 0.02, 0.5)
    share = float(np.asarray(true["error_corr"])[0, 1])
    common = field(OF_ERRORS, 1)
    found = {"truth": truth}
    for k, name in enumerate(true["bias"].index):
        error = np.sqrt(share) * common + np.sqrt(1 - share) * field(OF_ERRORS, 2, k)
        seen = true["center"] + true["bias"][name] + true["slope"][name] * (truth - true["center"])
        found[str(name)] = np.clip(seen + true["error_sd"][name] * error, 0.02, 0.5)
    gap = np.random.default_rng([random_seed, 3]).uniform(size=truth.shape) < 0.05
    found["svr"] = np.where(gap, np.nan, found["svr"])
    near = _distance(x, y, frame.drop_duplicates("station")) <= REACH
    found = {name: np.where(near, values, np.nan) for name, values in found.items()}
    dims, units = ("date", "lat", "lon"), {"units": "m3 m-3"}
    return xr.Dataset({name: (dims, values, units) for name, values in found.items()},
                      {"date": dates, "lat": lat, "lon": lon})  # fmt: skip


def _distance(lon: Any, lat: Any, stations: pd.DataFrame) -> Any:
    """Kilometres from cells to the nearest station."""
    points = on_sphere(np.append(lon.ravel(), stations["lon"]), np.append(lat.ravel(), stations["lat"]))
    cells, sites = points[: lon.size], points[lon.size :]
    return EARTH_RADIUS * cKDTree(sites).query(cells)[0].reshape(lon.shape)
