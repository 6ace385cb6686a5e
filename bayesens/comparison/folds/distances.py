"""How far held-out sites are from training sites, beside how far the map is from its stations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.folds.held_out_rows import Split, splits, with_buffer
from bayesens.comparison.folds.runs import source_of
from bayesens.ensemble.ensemble import Ensemble
from bayesens.members.folds import custom_folds, given_labels
from bayesens.members.members import Members
from bayesens.members.spatial_folds.dealing import (
    SiteTable,
    fold_kind,
    held_out_distances,
    nearer_than_the_map,
    site_table,
)
from bayesens.members.spatial_folds.map_points import map_places
from bayesens.members.spatial_folds.matching import spread_like_the_map

__all__ = ["fold_distances", "warn_if_nearer_than_the_map"]

OF_STATIONS = ("station_to_station", "held_out_to_training")
MEANING = {
    "station_to_station": "distance of a station to the nearest other one",
    "held_out_to_training": "distance of a held-out station to the nearest training station",
    "map_to_station": "distance of a cell to the nearest station",
}


def fold_distances(
    data: Ensemble | Members,
    *,
    map_points: Any,
    folds: int | str | ArrayLike | None = None,
    estimand: str = "site",
    blocks: int = 2,
    buffer: float | None = None,
    places: Mapping[str, ArrayLike] | pd.DataFrame | None = None,
    random_seed: int | None = None,
) -> xr.Dataset:
    """Compare how far folds make scores look with how far the map has to look: three distributions of distances.

    Scores of held-out stations speak for the map where these are about as far from training stations as cells are from
    stations. With clustered stations and folds at random they are much nearer: scores are too optimistic for the map.

    Parameters
    ----------
    data : Ensemble or Members
        The table; only stations with observations count.
    map_points : xarray.Dataset, xarray.DataArray, pandas.DataFrame or mapping
        The map: a grid or table with ``lon`` and ``lat``, or with the names of the stations' planar coordinates. Of more than
        5,000 cells so many are drawn by `random_seed`. Cells without any value do not count.
    folds : int, str or array_like (obs), optional
        As in `compare`: a number, ``"knndm"``, ``"blocks"``, ``"knndm 10"``; or labels of folds, such as those of
        ``cross_fit(...).dataset["fold"]``.
    estimand, blocks, buffer, places, random_seed
        As in `compare`.

    Returns
    -------
    xarray.Dataset
        ``station_to_station (station)``, ``held_out_to_training (station)``, with ``fold (station)``, from 0, and
        ``map_to_station (cell)``: distances to the nearest [km on the sphere, else units of the coordinates]. Where a station
        is held out several times, the shortest. ``wasserstein (distances)``: Wasserstein-1 distance of the first two from the
        third, in the same units; ``attrs["p_value"]``: of the test that stations are as far from each other as the map is from
        them (one-sided, Kolmogorov-Smirnov), from 0.05 on ``"knndm"`` deals folds at random.

    Raises
    ------
    ValueError, TypeError
        As for the folds of `compare`.

    Warns
    -----
    UserWarning
        Where the median distance of held-out stations is less than half of that of the map.

    References
    ----------
    Linnenbrink et al. (2024), Geosci. Model Dev. 17, 5897. Milà et al. (2022), Methods Ecol. Evol. 13, 1304.

    Examples
    --------
    Pairs of stations, 20 apart; the map lies between them.

    >>> import bayesens as be
    >>> frame = pd.DataFrame({"x": [0.0, 2.0, 20.0, 22.0], "y": 0.0, "site": list("abcd"), "rf": 0.1, "sm": [0.1, 0.2, 0.1, 0.2]})
    >>> ensemble = be.Ensemble.from_frame(frame, members=["rf"], observation="sm", site="site", covariates=["x", "y"])
    >>> cells = pd.DataFrame({"x": np.linspace(-9.0, 31.0, 41), "y": 0.0})
    >>> found = be.fold_distances(ensemble, map_points=cells, folds="blocks 2")
    >>> found["held_out_to_training"].values, found["wasserstein"].values.round(1)
    (array([20., 18., 18., 20.]), array([ 2.9, 14.8]))
    """
    from scipy.stats import wasserstein_distance

    source = source_of(data)
    columns = source.columns() | {"places": source.places(places)}
    if folds is None or isinstance(folds, int | str):
        deal: dict[str, Any] = {
            "blocks": blocks,
            "buffer": buffer,
            "map_points": map_points,
            "random_seed": random_seed,
        }
        parts = splits(estimand, folds=folds, **deal, **columns)
    else:
        code = custom_folds(given_labels(folds, len(source.table)))
        names = [f"fold {k} of {code.max() + 1}" for k in range(1, code.max() + 2)]
        parts = [Split(name, code != k, code == k) for k, name in enumerate(names)]
        if buffer is not None:
            parts = with_buffer(parts, buffer, **{name: columns[name] for name in ("site", "places", "observed")})
    sites = _sites(columns, "fold_distances")
    away, held = _away_and_held(parts, sites, columns["observed"], map_points, random_seed)
    stations, units = sites.stations, sites.places.units
    nearer_than_the_map(held, away, units, matched=_is_matched(folds))
    fold = np.argmax([sites.of_sites(part.test & columns["observed"])[sites.counted] for part in parts], axis=0)
    values = {"station_to_station": stations.to_nearest_other(), "held_out_to_training": held, "map_to_station": away}
    out = xr.Dataset(
        {name: ("cell" if name == "map_to_station" else "station", one, {"long_name": MEANING[name], "units": units})
         for name, one in values.items()},
        {"station": sites.names[sites.counted], "distances": np.array(OF_STATIONS)},
    )  # fmt: skip
    out["fold"] = "station", fold, {"long_name": "first fold that held the station out, from 0"}
    far = [float(wasserstein_distance(values[name], away)) for name in OF_STATIONS]
    out["wasserstein"] = "distances", far, {"long_name": "Wasserstein-1 distance from map_to_station", "units": units}
    return out.assign_attrs(estimand=estimand, p_value=spread_like_the_map(stations, away))


def warn_if_nearer_than_the_map(
    parts: Sequence[Split], columns: Mapping[str, Any], map_points: Any, folds: Any, random_seed: int | None
) -> None:
    """Warn where sites held out are much nearer to training sites than the map is to its stations."""
    sites = _sites(columns, "map_points")
    away, held = _away_and_held(parts, sites, columns["observed"], map_points, random_seed)
    nearer_than_the_map(held, away, sites.places.units, matched=_is_matched(folds))


def _is_matched(folds: Any) -> bool:
    return isinstance(folds, str) and fold_kind(folds)[0] == "knndm"


def _sites(columns: Mapping[str, Any], why: str) -> SiteTable:
    if columns["site"] is None:
        raise ValueError(f"{why} is about distances of sites, and the table has none; give the column (site=...)")
    return site_table(columns["places"], columns["site"], columns["observed"].astype(np.float64), why=why)


def _away_and_held(
    parts: Sequence[Split], sites: SiteTable, observed: NDArray[np.bool_], map_points: Any, random_seed: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances of cells to stations, and of stations, where they are held out, to training stations."""
    away = map_places(map_points, sites.places, random_seed=random_seed).to_nearest(sites.stations)
    return away, held_out_distances([(part.train, part.test) for part in parts], sites, observed)
