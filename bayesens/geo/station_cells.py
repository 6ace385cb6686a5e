"""Stations that lie in one cell: the values of every cell as an array (time, station)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens.ensemble.checks import check_columns
from bayesens.messages import listed, warn
from bayesens.tables.columns import labels, numbers, times

__all__ = ["Cell", "paired_cells", "station_cells", "warn_copies"]


@dataclass(frozen=True)
class Cell:
    """One cell: values (time, station), NaN where missing."""

    name: str
    station: NDArray[Any]
    time: NDArray[Any]
    y: NDArray[np.float64]

    def paired(self) -> Cell | None:
        """The times at which two stations report, and the stations that report then; None if there are none."""
        rows = np.isfinite(self.y).sum(axis=1) >= 2
        y = self.y[rows]
        kept = np.isfinite(y).any(axis=0)
        return Cell(self.name, self.station[kept], self.time[rows], y[:, kept]) if rows.any() else None


def station_cells(table: pd.DataFrame, value: str, station: str, time: str, cell: str | None) -> list[Cell]:
    """A dense array for every cell, times in order; the door of all that compares stations of a cell.

    Examples
    --------
    >>> table = pd.DataFrame({"station": ["a", "b", "b"], "day": [1, 1, 2], "sm": [0.1, 0.3, 0.2]})
    >>> station_cells(table, "sm", "station", "day", None)[0].y.tolist()
    [[0.1, 0.3], [nan, 0.2]]
    """
    columns = {"value": value, "station": station, "time": time} | ({"cell": cell} if cell else {})
    check_columns(table, [], columns)
    y = numbers(table[value])
    rows = pd.DataFrame({"station": labels(table[station]), "time": times(table[time]), "y": y})
    rows["cell"] = labels(table[cell]) if cell else "all"
    rows = rows[np.isfinite(y)]
    unnamed = int(((rows["station"] == "") | (rows["cell"] == "") | rows["time"].isna()).sum())
    if unnamed:
        raise ValueError(f"{unnamed} row(s) with a value have no station, time or cell; fill these in or drop the rows")
    pairs = rows[["station", "cell"]].drop_duplicates()
    twice = pairs["station"][pairs["station"].duplicated()]
    if len(twice):
        raise ValueError(f"station(s) {listed(twice.unique())} lie in two cells; wanted one: correct {cell!r}")
    repeated = int(rows.duplicated(["station", "time"]).sum())
    if repeated:
        raise ValueError(f"{repeated} of {len(rows)} rows repeat a station and time; average or drop them first")
    return [_dense(str(name), part) for name, part in rows.groupby("cell", sort=True)]


def _dense(name: str, rows: pd.DataFrame) -> Cell:
    station, s = np.unique(rows["station"].to_numpy(dtype=np.str_), return_inverse=True)
    time, t = np.unique(rows["time"].to_numpy(), return_inverse=True)
    y = np.full((len(time), len(station)), np.nan)
    y[t, s] = rows["y"]
    return Cell(name, station, time, y)


def paired_cells(table: pd.DataFrame, value: str, station: str, time: str, cell: str | None) -> list[Cell]:
    """The cells with two stations or more at a time, at those times only; an error where there are none.

    Examples
    --------
    >>> table = pd.DataFrame({"station": ["a", "b", "b"], "day": [1, 1, 2], "sm": [0.1, 0.3, 0.2]})
    >>> paired_cells(table, "sm", "station", "day", None)[0].y.tolist()
    [[0.1, 0.3]]
    """
    cells = [
        part
        for part in (each.paired() for each in station_cells(table, value, station, time, cell))
        if part is not None
    ]
    if not cells:
        raise ValueError(
            f"no cell has two stations at the same time ({len(table)} rows); wanted replicate stations: name the column of cells "
            "that hold several, cell=..."
        )
    return cells


def warn_copies(cells: Sequence[Cell]) -> None:
    """Warn of series that are equal wherever they are: one is a copy of the other."""
    for part in cells:
        seen: dict[bytes, str] = {}
        for name, series in zip(part.station, part.y.T, strict=True):
            first = seen.setdefault(np.ascontiguousarray(series).tobytes(), str(name))
            if first != str(name):
                warn(
                    f"stations {first!r} and {str(name)!r} have the same values throughout; leave one out if it is a copy"
                )
