"""Error profile: the error to expect by how unlike the training data a place is, learnt from rows held out.

References
----------
Meyer & Pebesma (2021), Methods Ecol. Evol. 12, 1620, and the function errorProfiles of the authors' R package CAST.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.messages import check_known, listed

__all__ = ["ErrorProfile", "error_profile"]

Array = NDArray[np.float64]
MEASURES = {
    "absolute": "expected absolute error",
    "squared": "expected root mean squared error",
    "crps": "expected CRPS",
}
ROWS_OF_A_BIN = 5  # at least, where rows are few


@dataclass(frozen=True, eq=False)
class ErrorProfile:
    """The expected error as a rising function of the dissimilarity index, from `error_profile`.

    Attributes
    ----------
    measure : {"absolute", "squared", "crps"}
    level : float
        Probability of the band.
    dissimilarity : numpy.ndarray (bin)
        Mean index of the rows of each bin, rising.
    observed : numpy.ndarray (bin)
        Their mean error (for ``"squared"`` its root), as it is.
    expected, low, high : numpy.ndarray (bin)
        The rising function there, and its band; NaN without replicates.
    highest : float
        Largest index of a row held out: beyond it nothing is known.
    rank_correlation : float
        Of errors and index over the rows (Spearman's): where it is not above zero, errors do not rise with the index, and the
        profile is flat because it may not fall.
    rows, sites : int
        That it was learnt from.
    units : str
        Of the errors.
    """

    measure: str
    level: float
    dissimilarity: Array
    observed: Array
    expected: Array
    low: Array
    high: Array
    highest: float
    rank_correlation: float
    rows: int
    sites: int
    units: str

    def predict(self, dissimilarity: xr.DataArray | xr.Dataset | pd.DataFrame | ArrayLike) -> xr.Dataset:
        """Map the expected error.

        Parameters
        ----------
        dissimilarity : DataArray, Dataset or DataFrame (...), or array_like (obs)
            Dissimilarity index, such as ``area.grid(cells)`` or ``area.table(rows)``; lazy arrays stay so.

        Returns
        -------
        xarray.Dataset
            ``expected_error``, ``low`` and ``high`` on the dimensions of the index, in the units of the errors: linear
            between the bins, level below the first and above the last of them, NaN where the index is missing or beyond that
            of every row held out. ``beyond``: 1 there, 0 within, NaN where it is missing; ``share_beyond``: of the cells with
            an index, how many are beyond.

        Raises
        ------
        TypeError
            No such table or grid.

        Examples
        --------
        >>> profile = error_profile([1.0, 1.0, 3.0, 3.0], [0.0, 0.2, 0.8, 1.0], bins=2, replicates=0)
        >>> found = profile.predict([0.0, 0.5, 1.0, 1.5])
        >>> found["expected_error"].values, found["share_beyond"].item()
        (array([ 1.,  2.,  3., nan]), 0.25)
        """
        index = _index(dissimilarity)
        made = {"expected_error": self.expected, "low": self.low, "high": self.high}
        out = xr.Dataset({name: self._at(index, values) for name, values in made.items()})
        beyond = (index > self.highest).astype(np.float64).where(index.notnull())
        out = out.assign(beyond=beyond, share_beyond=beyond.mean())
        out["expected_error"].attrs = {"long_name": MEASURES[self.measure], "units": self.units}
        for name, end in (("low", "lower"), ("high", "upper")):
            out[name].attrs = {"long_name": f"{end} end of the {100 * self.level:g} % band", "units": self.units}
        out["beyond"].attrs = {"long_name": "more unlike training rows than every row held out", "units": "1"}
        out["share_beyond"].attrs = {"long_name": "share of the cells that are beyond", "units": "1"}
        return out.assign_attrs(highest_dissimilarity=self.highest, measure=self.measure, level=self.level)

    def _at(self, index: xr.DataArray, values: Array) -> xr.DataArray:
        def kernel(x: Array) -> Array:
            return np.where(x <= self.highest, np.interp(x, self.dissimilarity, values), np.nan)

        return xr.apply_ufunc(kernel, index, dask="parallelized", output_dtypes=[np.float64])


def error_profile(
    error: ArrayLike | xr.Dataset,
    dissimilarity: ArrayLike | pd.Series,
    *,
    measure: str = "absolute",
    model: str | None = None,
    site: ArrayLike | None = None,
    bins: int = 20,
    replicates: int = 500,
    level: float = 0.9,
    random_seed: int | None = None,
) -> ErrorProfile:
    """Learn the error to expect from the errors of rows held out, by how unlike training rows these are.

    The rows are averaged in bins of equally many along the dissimilarity index (CAST has moving windows), so that no single row
    makes an end of the profile; isotonic regression of these means on those of the index, weighted by their rows, is the
    rising function that is nearest to them. The band holds the middle of the profiles of resampled stations, all rows of a
    station together.

    Parameters
    ----------
    error : array_like (obs) or Dataset
        Of rows held out: errors with or without sign, or the CRPS. Or the rows of `bayesens.compare`, whose stations are taken
        as well.
    dissimilarity : array_like (obs) or pandas.Series
        Index of each row to the training rows of its own fold, not to all of them (a row held out is its own nearest
        neighbour there): ``area.train_index``, or ``area.held_out(...)`` where folds have a buffer. A Series beside the rows of
        `compare` is looked up by the number of the row in the table.
    measure : {"absolute", "squared", "crps"}
        Which error. Of ``"squared"`` the profile is the root of the mean, in the units of the errors.
    model : str, optional
        Of the rows of several models, the one whose errors are taken.
    site : array_like (obs), optional
        Stations, for the band. None: rows are resampled one by one, and the band is too narrow where rows of a station share
        their errors.
    bins : int
        Fewer where they would have less than five rows.
    replicates : int
        Of the bootstrap; 0: no band.
    level : float
        Probability of the band. In simulations with 30 stations of very different errors bands of 90 % held the truth in 84 %.
    random_seed : int, optional
        Of the bootstrap. None: other stations at every call.

    Returns
    -------
    ErrorProfile

    Raises
    ------
    ValueError, TypeError, KeyError
        Lengths that differ, no row with both an error and an index, a negative CRPS or index, an unknown measure or model, one
        station.

    Examples
    --------
    >>> import bayesens as be
    >>> index = np.repeat([0.1, 0.2, 0.3], 10)
    >>> profile = be.error_profile(np.repeat([1.0, -3.0, 2.0], 10), index, bins=3, replicates=0)
    >>> profile.observed.tolist(), profile.expected.tolist()
    ([1.0, 3.0, 2.0], [1.0, 2.5, 2.5])
    """
    check_known([measure], MEASURES, kind="measure", where="error profiles")
    loss, index, station, units = _columns(error, dissimilarity, measure, model, site)
    if bins != int(bins) or bins < 1:
        raise ValueError(f"bins is {bins!r}; wanted a whole number, 1 or more")
    number = int(min(bins, max(len(loss) // ROWS_OF_A_BIN, 2), len(loss)))
    order = np.lexsort((loss, index))
    index, loss, station = index[order], loss[order], station[order]
    at, observed, count = _binned(index, loss, np.ones(len(loss)), number)
    expected = _rising(at, observed, count)
    low, high, names = np.full(len(at), np.nan), np.full(len(at), np.nan), np.unique(station)
    if replicates:
        if len(names) < 2:
            raise ValueError(
                f"the band is of resampled stations, and there is one, {listed(names.tolist())}; wanted two or more, "
                "or replicates=0"
            )
        drawn = _resampled(index, loss, station, at, number, replicates, random_seed)
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    root = np.sqrt if measure == "squared" else np.asarray
    observed, expected, low, high = (np.asarray(root(values)) for values in (observed, expected, low, high))
    rank = _rank_correlation(index, loss)
    ends = float(index.max()), rank, len(loss), len(names), units
    return ErrorProfile(measure, level, at, observed, expected, low, high, *ends)


# Inside --------------------------------------------------------------------------------------------------------------


def _binned(index: Array, loss: Array, weight: Array, bins: int) -> tuple[Array, Array, Array]:
    """Mean index, mean loss and weight of bins of about equal weight, of rows that rise with the index."""
    end = np.cumsum(weight)
    code = np.minimum(((end - weight / 2) * (bins / end[-1])).astype(np.int64), bins - 1)
    count = np.bincount(code, weight)
    full = count > 0
    at = (np.bincount(code, weight * index)[full] / count[full]).round(12)
    # The same index may fill several bins: what stands at one place has one mean.
    at, same = np.unique(at, return_inverse=True)
    total = np.bincount(same, np.bincount(code, weight * loss)[full])
    count = np.bincount(same, count[full])
    return at, total / count, count


def _rising(at: Array, mean: Array, count: Array) -> Array:
    from sklearn.isotonic import isotonic_regression

    out: Array = isotonic_regression(mean, sample_weight=count, increasing=True)
    return out


def _rank_correlation(index: Array, loss: Array) -> float:
    from scipy.stats import spearmanr

    if np.ptp(index) == 0.0 or np.ptp(loss) == 0.0:
        return 0.0
    return float(spearmanr(index, loss).statistic)


def _resampled(
    index: Array, loss: Array, station: NDArray[Any], at: Array, bins: int, replicates: int, random_seed: int | None
) -> Array:
    """Profiles (replicate, bin) of stations drawn with replacement, at the places of the bins."""
    rng = np.random.default_rng(random_seed)
    names, code = np.unique(station, return_inverse=True)
    out = np.empty((replicates, len(at)))
    for r in range(replicates):
        drawn = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        x, mean, count = _binned(index, loss, drawn[code].astype(np.float64), bins)
        out[r] = np.interp(at, x, _rising(x, mean, count))
    return out


# The door ------------------------------------------------------------------------------------------------------------


def _columns(
    error: Any, dissimilarity: Any, measure: str, model: str | None, site: Any
) -> tuple[Array, Array, NDArray[Any], str]:
    """Loss, index and station of the rows that have both, and the units of the errors."""
    units = ""
    if isinstance(error, xr.Dataset):
        one = _of_model(error, model)
        units = str(error.attrs.get("units", ""))
        if isinstance(dissimilarity, pd.Series):
            dissimilarity = dissimilarity.reindex(error["obs"].values)
        site = error["site"].values if site is None and "site" in error.coords else site
        error = one["crps"].values if measure == "crps" else (one["prediction"] - one["observation"]).values
    elif model is not None:
        raise TypeError(f"model={model!r} goes with the rows of be.compare; leave it out")
    values = np.asarray(error, dtype=np.float64)
    index = np.asarray(dissimilarity, dtype=np.float64)
    station = np.arange(len(values)) if site is None else np.asarray(site)
    if values.ndim != 1 or index.shape != values.shape or station.shape != values.shape:
        raise ValueError(
            f"error has shape {values.shape}, dissimilarity {index.shape} and site {station.shape}; wanted one of each "
            "a row; rows of a comparison are some of the table's, and their obs says which"
        )
    known = np.isfinite(values) & np.isfinite(index)
    if not known.any():
        raise ValueError(f"none of the {len(values)} rows has both an error and a dissimilarity index; wanted some")
    values, index, station = values[known], index[known], station[known]
    if index.min() < 0.0:
        raise ValueError(
            f"a dissimilarity index is {index.min():g}; wanted 0 or more: area.train_index, or area.held_out(...)"
        )
    if measure == "crps" and values.min() < 0.0:
        raise ValueError(f"a CRPS is {values.min():g}; wanted 0 or more: did you give errors? Then measure='absolute'")
    return (values**2 if measure == "squared" else np.abs(values)), index, station, units


def _of_model(rows: xr.Dataset, model: str | None) -> xr.Dataset:
    if "model" not in rows.dims or "crps" not in rows:
        raise TypeError(
            f"error is a Dataset with {listed(map(str, rows.data_vars))}; wanted the rows of be.compare, or an array"
        )
    names = [str(name) for name in rows["model"].values]
    if model is None and len(names) > 1:
        raise ValueError(
            f"the rows hold the models {listed(names)}, and one has a profile; name it: model={names[0]!r}"
        )
    check_known([] if model is None else [model], names, kind="model", where="the rows")
    return rows.sel(model=model or names[0])


def _index(given: Any) -> xr.DataArray:
    """The dissimilarity index of a grid, table or array."""
    if isinstance(given, xr.Dataset | pd.DataFrame):
        if "dissimilarity" not in given:
            raise TypeError(f"there is no 'dissimilarity' in the {type(given).__name__}; wanted what area.grid(cells) or "
                            "area.table(rows) returns")  # fmt: skip
        given = given["dissimilarity"]
    if isinstance(given, xr.DataArray):
        return given.astype(np.float64)
    values = np.asarray(given, dtype=np.float64)
    if values.ndim > 1:
        raise TypeError(
            f"dissimilarity has {values.ndim} dimensions without names; wanted a DataArray, or one of (obs)"
        )
    return xr.DataArray(np.atleast_1d(values), dims="obs")
