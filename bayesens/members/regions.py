"""Which region's fit predicts where: by label, by a table of memberships, or blended by the distance to stations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayesens.ensemble.sphere import arc, on_sphere

__all__ = ["Regions"]

# Below this share of the nearest region's weight a region has no say, so that far regions need not be predicted.
FLOOR = 1e-3


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions that have fits of their own, and the weight of each in any row; the rest goes to the pooled fit.

    Attributes
    ----------
    names : tuple of str
        Regions with fits of their own.
    length : float
        Blending length [km]; 0 where regions are taken by label or membership.
    lon, lat : numpy.ndarray (station), degrees
    region : numpy.ndarray (station), unicode
        Training stations, thin regions included; empty without blending.

    Examples
    --------
    >>> Regions(("north", "south")).weight(3, label=np.array(["south", "east", "north"])).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    names: tuple[str, ...] = ()
    length: float = 0.0
    lon: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    lat: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    region: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, dtype=np.str_))

    @classmethod
    def of_training(cls, table: pd.DataFrame, *, min_rows: int, min_sites: int, length: float = 0.0) -> Self:
        """Find the regions that have enough training rows and stations.

        `table` has ``region`` and ``site`` of the training rows, and with a blending `length` [km] ``lon`` and ``lat`` as
        well. A region with fewer rows or stations is left to the pooled fit.
        """
        known = table[table["region"] != ""]
        size = known.groupby("region")["site"].agg(["size", "nunique"])
        names = tuple(size.index[(size["size"] >= min_rows) & (size["nunique"] >= min_sites)])
        if not length:
            return cls(names)
        station = known.drop_duplicates(["site", "region"])
        lon, lat = station["lon"].to_numpy(), station["lat"].to_numpy()
        return cls(names, length, lon, lat, station["region"].to_numpy(dtype=np.str_))

    def weight(
        self,
        n_rows: int,
        *,
        label: ArrayLike | None = None,
        membership: pd.DataFrame | None = None,
        lon: ArrayLike | None = None,
        lat: ArrayLike | None = None,
    ) -> NDArray[np.float64]:
        """Return the weight of every region's fit, and of the pooled fit, in every row.

        Of an unknown label all weight goes to the pooled fit, the last column; `lon` and `lat` are wanted where regions are
        blended. Rows of a membership, and those of the result (row, region + 1), sum to one.
        """
        if not self.names:
            return np.ones((n_rows, 1))
        if self.length:
            own = self._by_distance(np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64))
        elif membership is not None:
            own = membership.reindex(columns=list(self.names), fill_value=0.0).to_numpy(dtype=np.float64)
        else:
            own = (np.asarray(label)[:, None] == np.array(self.names)).astype(np.float64)
        rest = np.clip(1 - own.sum(axis=1, keepdims=True), 0, None)
        return np.hstack([own, np.where(rest < 1e-9, 0.0, rest)])

    def _by_distance(self, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights that fall off with the distance to a region's nearest station: continuous in place, one at no border."""
        from scipy.spatial import cKDTree

        everywhere = np.unique(self.region)
        place = np.column_stack([lon, lat])
        seen = np.isfinite(place).all(axis=1)
        weight = np.zeros((len(lon), len(everywhere)))
        here = on_sphere(lon[seen], lat[seen])
        station = on_sphere(self.lon, self.lat)
        away = np.column_stack([cKDTree(station[self.region == name]).query(here)[0] for name in everywhere])
        distance = arc(away)
        share = np.exp(-(distance - distance.min(axis=1, keepdims=True)) / self.length)
        share = np.clip(share - FLOOR, 0, None)  # taken off, not cut off: the weight reaches zero without a step
        weight[seen] = share / share.sum(axis=1, keepdims=True)
        return weight[:, np.isin(everywhere, self.names)]

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        stations = {"lon": self.lon.tolist(), "lat": self.lat.tolist(), "region": self.region.tolist()}
        return {"names": list(self.names), "length": self.length} | stations

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """Return the value that `to_json` wrote."""
        lon, lat = (np.array(facts[name], dtype=np.float64) for name in ("lon", "lat"))
        return cls(tuple(facts["names"]), facts["length"], lon, lat, np.array(facts["region"], dtype=np.str_))
