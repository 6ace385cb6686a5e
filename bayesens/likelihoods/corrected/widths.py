"""What the width of a kernel, or a weight, may follow: the predicted mean, the members' spread, the season, a column.

Every covariate is standardised over the training rows and kept within the range that it has there, so that a width is never
carried on beyond what was seen. Mean and spread are taken of the corrected members that a row has, on a logarithmic scale that
starts at a quarter of their median: a width that is proportional to the mean ends where the mean is nearly zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.ensemble.ensemble import Ensemble
from bayesens.messages import listed

__all__ = ["SEASON", "Widths", "check_varies", "column_of", "columns_asked", "season", "width_names"]

DEFAULT = ("mean", "spread")
START = 0.25  # of the median, at which the logarithm starts
SAME = 1e-10  # of its size: what rounding leaves of a computed column, as the sd of neighbours without coordinates
SEASON = ("season_sin", "season_cos")
NUMBERS = ("start", "center", "size", "low", "high")
DIMENSION = {"width": "scale_covariate", "weight": "weight_covariate"}


def width_names(scale: Sequence[str]) -> tuple[str, ...]:
    """Names of the covariates' columns: the season has two.

    Examples
    --------
    >>> width_names(("mean", "season"))
    ('mean', 'season_sin', 'season_cos')
    """
    out: list[str] = []
    for name in scale:
        out += SEASON if name == "season" else [name]
    return tuple(out)


def columns_asked(model: object) -> tuple[str, ...]:
    """Columns of the table that a model's biases, widths, weights and own standard deviations follow; lon and lat among them.

    Examples
    --------
    >>> from bayesens.models import BMA, HBM
    >>> columns_asked(BMA(bias_covariates=("elevation",), scale=("mean", "season", "elevation", "lat")))
    ('elevation', 'lat')
    >>> columns_asked(HBM())
    ()
    """
    widths, weights = getattr(model, "scale", None), getattr(model, "weight_covariates", ())
    both = (*(widths if isinstance(widths, tuple) else ()), *weights)
    named = [name for name in both if name not in (*DEFAULT, "season")]
    own = [column for _, column in getattr(model, "own_sd", None) or ()]
    return tuple(dict.fromkeys([*getattr(model, "bias_covariates", ()), *named, *own]))


def column_of(ensemble: Ensemble, name: str) -> np.ndarray:
    """A column of the table that a model asks for, (obs), NaN where it is missing.

    Raises
    ------
    ValueError
        If the table has no such column.
    """
    if name in ("lon", "lat") and name in ensemble.dataset.coords:
        return np.asarray(ensemble.dataset[name].values, dtype=float)
    if name in ensemble.covariates:
        return np.asarray(ensemble.dataset["covariate"].values[:, ensemble.covariates.index(name)], dtype=float)
    known = ensemble.covariates
    how = f"{name}=..." if name in ("lon", "lat") else f"covariates=[{name!r}, ...]"
    raise ValueError(f"The model asks for the column {name!r}, and the table has {listed(known) if known else 'no covariates'}; "
                     f"name it with Ensemble.from_frame(..., {how}).")  # fmt: skip


def check_varies(values: np.ndarray, name: str, option: str) -> None:
    """Refuse a column that says nothing of the training rows: there is no telling what its next value would do."""
    n, present = len(values), values[~np.isnan(values)]
    if not present.size or np.ptp(present) <= SAME * np.abs(present).max():
        how = f"{present[0]:g} in all" if present.size else "missing in all"
        raise ValueError(f"Covariate {name!r} is {how} {n} training rows; wanted values that vary: leave it out of {option}, or "
                         "fit rows in which it does.")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Widths:
    """How the covariates of widths, or of weights, are made of corrected members and columns.

    Attributes
    ----------
    names : tuple of str
    start : array (covariate)
        Where the logarithm starts; NaN where the value itself is taken.
    center, size, low, high : array (covariate)
        Mean and standard deviation before, least and greatest value after standardising.
    """

    names: tuple[str, ...]
    start: np.ndarray
    center: np.ndarray
    size: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, names: tuple[str, ...], corrected: np.ndarray, available: np.ndarray, ensemble: Ensemble,
           index: np.ndarray, *, positive: bool, option: str = "scale") -> Widths:  # fmt: skip
        """Take the scales from the training rows.

        Parameters
        ----------
        names : tuple of str
        corrected, available : array (row, member)
        ensemble : Ensemble
            The table, for columns.
        index : int array (row)
            Its rows that are used.
        positive : bool
            Whether the quantity has no values below zero, so that widths may be proportional to it.
        option : str
            Of the model, that names them.
        """
        raw = _raw(names, corrected, available, ensemble, index)
        for j, name in enumerate(names):
            if name not in (*DEFAULT, *SEASON):
                check_varies(raw[:, j], name, option)
        start = np.full(len(names), np.nan)
        for j, name in enumerate(names):
            if name == "spread" or (name == "mean" and positive):
                above = raw[np.isfinite(raw[:, j]) & (raw[:, j] > 0.0), j]
                start[j] = START * np.median(above) if len(above) else np.nan
        values = _logarithms(raw, start)
        known = [column[np.isfinite(column)] for column in values.T]
        center = np.array([column.mean() if len(column) else 0.0 for column in known])
        size = np.array([column.std() if len(column) else 0.0 for column in known])
        size = np.where(size > 1e-12 * np.maximum(1.0, np.abs(center)), size, 1.0)
        ends = [((c - m) / s) for c, m, s in zip(known, center, size, strict=True)]
        low, high = (np.array([f(e) if len(e) else 0.0 for e in ends]) for f in (np.min, np.max))
        return cls(names, start, center, size, low, high)

    def at(self, corrected: np.ndarray, available: np.ndarray, ensemble: Ensemble, index: np.ndarray) -> np.ndarray:
        """Covariates of rows, (row, covariate); zero, which is typical, where one is not known."""
        raw = _raw(self.names, corrected, available, ensemble, index)
        values = (_logarithms(raw, self.start) - self.center) / self.size
        return np.where(np.isfinite(values), np.clip(values, self.low, self.high), 0.0)

    def to_dataset(self, of: str = "width") -> xr.Dataset:
        """As part of a fit's history: what widths follow, or weights."""
        named = {f"{of}_{name}": (DIMENSION[of], getattr(self, name)) for name in NUMBERS}
        return xr.Dataset(named, {DIMENSION[of]: np.array(self.names, dtype=np.str_)})

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset, of: str = "width") -> Widths:
        """Take it from a fit's history."""
        names = tuple(str(n) for n in dataset[DIMENSION[of]].values)
        return cls(names, *(dataset[f"{of}_{name}"].values for name in NUMBERS))

    def to_tuples(self) -> tuple[tuple[str, float | None, float, float, float, float], ...]:
        """As an option of a model: name, start, center, size, low and high of each covariate; None for no logarithm."""
        start = [None if np.isnan(value) else float(value) for value in self.start]
        numbers = [getattr(self, name).astype(float).tolist() for name in NUMBERS[1:]]
        return tuple(zip(self.names, start, *numbers, strict=True))

    @classmethod
    def from_tuples(cls, tuples: Sequence[tuple[str, float | None, float, float, float, float]]) -> Widths:
        """Take it from the option of a model.

        Examples
        --------
        >>> Widths.from_tuples((("mean", None, 2.0, 0.5, -1.0, 1.0),)).center.tolist()
        [2.0]
        """
        names = tuple(line[0] for line in tuples)
        values = np.array([[np.nan if v is None else v for v in line[1:]] for line in tuples], dtype=float)
        return cls(names, *values.reshape(len(names), 5).T)


def _logarithms(raw: np.ndarray, start: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isnan(start), raw, np.log(np.maximum(raw, 0.0) + start))


def _raw(
    names: tuple[str, ...], corrected: np.ndarray, available: np.ndarray, ensemble: Ensemble, index: np.ndarray
) -> np.ndarray:
    """Values before any scale, (row, covariate); NaN where a row has none."""
    count = available.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(available, corrected, 0.0).sum(axis=1) / count
        apart = np.where(available, corrected - mean[:, None], 0.0)
        spread = np.where(count > 1, np.sqrt(np.square(apart).sum(axis=1) / (count - 1)), np.nan)
    out = np.empty((len(index), len(names)))
    for j, name in enumerate(names):
        if name == "mean":
            out[:, j] = mean
        elif name == "spread":
            out[:, j] = spread
        elif name in SEASON:
            out[:, j] = _season(ensemble, index)[SEASON.index(name)]
        else:
            out[:, j] = column_of(ensemble, name)[index]
    return out


def _season(ensemble: Ensemble, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    time = ensemble.dataset.coords.get("time")
    if time is None or time.dtype.kind != "M":
        raise ValueError("'season' needs the dates of the rows; name their column with Ensemble.from_frame(..., time=...), or "
                         "leave 'season' out.")  # fmt: skip
    return season(time.to_series().iloc[index])


def season(moments: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of the day of the year of dates."""
    day = moments.dt.day_of_year.to_numpy() * (2.0 * np.pi / 365.25)
    return np.sin(day), np.cos(day)
