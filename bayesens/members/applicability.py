"""Area of applicability: the conditions as like the training data as held-out training data are to the rest.

References
----------
Meyer & Pebesma (2021), Methods Ecol. Evol. 12, 1620. The threshold is that of the authors' R package CAST.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pandas.api import types

from bayesens.console import progress
from bayesens.ensemble.checks import check_columns
from bayesens.ensemble.collinear import constant
from bayesens.ensemble.places import row_places
from bayesens.members.covariates import taken
from bayesens.members.spatial_folds.dealing import ByPlace
from bayesens.messages import check_known, listed, warn
from bayesens.tables.columns import labels, numbers

__all__ = ["Applicability", "applicability", "covariate_matrix", "covariate_names", "whisker"]

Array = NDArray[np.float64]
BLOCK = 2048  # rows of a block of distances: 32 MB a block
ADVICE = (
    "distances are between numbers: leave a categorical covariate out, or give indicator columns (pandas.get_dummies) "
    "with an importance of their own"
)


@dataclass(frozen=True, eq=False)
class Applicability:
    """What is needed to say how far new conditions lie from the training data, from `applicability`.

    Attributes
    ----------
    covariates : tuple of str
        Those that count: neither constant nor without importance.
    center, scale : numpy.ndarray (covariate)
        A covariate enters as ``(x - center) * scale``: standardised, times its importance.
    points : numpy.ndarray (obs, covariate)
        Training data in that space.
    mean_distance : float
        Of all pairs of training points.
    train_index : pandas.Series (obs)
        Dissimilarity index of the training rows to those of other folds.
    threshold : float
        Largest of these that is no outlier.
    """

    covariates: tuple[str, ...]
    center: Array
    scale: Array
    points: Array
    mean_distance: float
    train_index: pd.Series
    threshold: float

    def table(self, table: pd.DataFrame) -> pd.DataFrame:
        """Dissimilarity index of the rows of a table.

        Parameters
        ----------
        table : pandas.DataFrame (obs)
            With the covariates.

        Returns
        -------
        pandas.DataFrame (obs)
            ``dissimilarity`` (0: as a training point; 1: as far from the nearest as training points are from each other) and
            ``inside`` the area of applicability (1 or 0); NaN where a covariate is missing. Index of the table.

        Raises
        ------
        KeyError, TypeError, ValueError
            A covariate that is not there, is no number, or is infinite.

        Examples
        --------
        >>> train = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})  # sd 1.29; mean distance of pairs 5/3
        >>> area = applicability(train, fold=[0, 1, 0, 1], progressbar=False)
        >>> area.table(pd.DataFrame({"x": [1.0, 3.5, 5.0, None]}))
           dissimilarity inside
        0            0.0    1.0
        1            0.3    1.0
        2            1.2    0.0
        3            NaN    NaN
        """
        index = self._index(*covariate_matrix(table, list(self.covariates)).T)
        inside = np.where(np.isnan(index), np.nan, index <= self.threshold)
        return pd.DataFrame({"dissimilarity": index, "inside": inside}, index=table.index)

    def held_out(
        self,
        table: pd.DataFrame,
        *,
        fold: str | ArrayLike,
        buffer: float | None = None,
        site: str | ArrayLike | None = None,
        places: Mapping[str, ArrayLike] | pd.DataFrame | None = None,
    ) -> pd.Series:
        """Dissimilarity index of rows held out: to the training rows of their own fold, not to all of them.

        Parameters
        ----------
        table : pandas.DataFrame (obs)
            Every row, with the covariates.
        fold : str or array_like (obs)
            The fold that held each row out: a column or labels.
        buffer : float, optional
            As the folds had it: rows of stations nearer than this to one of the fold were not learnt from.
        site : str or array_like (obs), optional
        places : mapping of name to array_like (obs) or DataFrame, optional
            Of the buffer: stations and two columns of coordinates, ``lon`` and ``lat`` (the buffer is in km) or planar ones.

        Returns
        -------
        pandas.Series (obs)
            NaN where a covariate is missing. Without a buffer it is ``train_index``.

        Raises
        ------
        KeyError, TypeError, ValueError
            A covariate that is not there, one fold, a buffer without stations and places or that leaves no row.

        Examples
        --------
        >>> train = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
        >>> area = applicability(train, fold=[0, 1, 0, 1], progressbar=False)
        >>> places = {"x": [0.0, 10.0, 20.0, 30.0], "y": [0.0] * 4}
        >>> area.held_out(train, fold=[0, 1, 2, 3], buffer=15, site=list("abcd"), places=places).tolist()
        [1.2, 1.2, 1.2, 1.2]
        """
        x, code = covariate_matrix(table, list(self.covariates)), _fold_codes(table, fold)
        known = np.isfinite(x).all(axis=1)
        points, out = (x - self.center) * self.scale, np.full(len(x), np.nan)
        apart = _apart(table, known, buffer, site, places)
        names = np.unique(code[known])
        if len(names) < 2:
            raise ValueError(
                f"the {int(known.sum())} complete rows lie in one fold or none; wanted two folds or more: fold=..."
            )
        for k, one in enumerate(names, start=1):
            held = known & (code == one)
            train = apart(known & (code != one), held, f"fold {k} of {len(names)}")
            out[held] = _tree(points[train]).query(points[held])[0] / self.mean_distance
        return pd.Series(out, index=table.index, name="dissimilarity")

    def grid(self, dataset: xr.Dataset) -> xr.Dataset:
        """Dissimilarity index of the cells of a grid.

        Parameters
        ----------
        dataset : xarray.Dataset
            One variable a covariate, numpy- or dask-backed; they may have different dimensions, as ``dem (y, x)`` beside
            ``rain (time, y, x)``.

        Returns
        -------
        xarray.Dataset
            ``dissimilarity`` and ``inside``, as in `table`, on all dimensions; lazy where the covariates are. An infinite
            covariate counts as missing.

        Raises
        ------
        KeyError, TypeError
            A covariate that is not there, or is no number.

        Examples
        --------
        >>> area = applicability(pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]}), fold=[0, 1, 0, 1], progressbar=False)
        >>> area.grid(xr.Dataset({"x": ("cell", [1.0, 5.0, np.nan])}))["inside"].values
        array([ 1.,  0., nan])
        """
        check_known(self.covariates, map(str, dataset.variables), kind="covariate", where="the dataset")
        arrays = [dataset[name] for name in self.covariates]
        odd = [str(array.name) for array in arrays if array.dtype.kind not in "fiu"]
        if odd:
            raise TypeError(f"covariate(s) {listed(odd)} hold no numbers; {ADVICE}")
        index = xr.apply_ufunc(self._index, *arrays, dask="parallelized", output_dtypes=[np.float64], keep_attrs=False)
        # All dimensions in the order of the covariate that has most of them, not in that of first mention.
        index = index.transpose(*max(arrays, key=lambda array: array.ndim).dims, ...)
        inside = (index <= self.threshold).astype(np.float64).where(index.notnull())
        index.attrs = {"long_name": "dissimilarity index", "units": "1", "threshold": self.threshold}
        inside.attrs = {"long_name": "inside the area of applicability", "units": "1"}
        return xr.Dataset({"dissimilarity": index, "inside": inside})

    def _index(self, *covariate: Array) -> Array:
        """Kernel: covariates that broadcast to one shape (...) in, index (...) out."""
        x = np.stack([np.asarray(one, dtype=np.float64) for one in np.broadcast_arrays(*covariate)], axis=-1)
        known = np.isfinite(x).all(axis=-1)
        out = np.full(x.shape[:-1], np.nan)
        out[known] = self._tree.query((x[known] - self.center) * self.scale)[0] / self.mean_distance
        return out

    @cached_property
    def _tree(self) -> Any:
        return _tree(self.points)


def applicability(
    X: pd.DataFrame,
    *,
    fold: str | ArrayLike,
    covariates: Iterable[str] | None = None,
    importance: Mapping[str, float] | pd.Series | None = None,
    progressbar: bool = True,
) -> Applicability:
    """Learn the area of applicability of models from their training data.

    The dissimilarity index of a point is the distance to the nearest training point, in the space of standardised covariates
    times their importance, divided by the mean distance of all pairs of training points. The threshold is the largest index
    that training rows have to rows of other folds, once outliers above the upper whisker (``Q3 + 1.5 (Q3 - Q1)``, Tukey's
    hinges) are taken out: within it, a cross-validated score speaks for the point.

    Parameters
    ----------
    X : pandas.DataFrame (obs)
        The rows that the models were trained on; those with a missing covariate are left out, with a warning.
    fold : str or array_like (obs)
        The folds of the cross-validation, by stations or blocks: a column or labels. With folds of single rows, the next day
        of a station would be its nearest neighbour, and the threshold far too strict.
    covariates : iterable of str, optional
        Columns. None: those that ``importance`` names, or else all but the folds.
    importance : mapping of covariate to float, optional
        Such as permutation importances; only their ratios matter. Those below zero count as zero, with a warning. None: all
        equal.
    progressbar : bool
        Show one for the distances of all pairs, which take time as the square of the rows.

    Returns
    -------
    Applicability

    Raises
    ------
    KeyError, TypeError, ValueError
        Covariates that are not there, categorical or infinite; importances that do not fit; nothing that varies; one fold.

    Examples
    --------
    Pairs are 8 apart on average; the last point, 16 from the next in another fold, is an outlier.

    >>> X = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0, 19.0]})
    >>> area = applicability(X, fold=[0, 1, 0, 1, 0], progressbar=False)
    >>> area.train_index.round(3).tolist(), round(area.threshold, 3)
    ([0.125, 0.125, 0.125, 0.125, 2.0], 0.125)
    """
    if covariates is None and importance is not None:
        covariates = list(importance.keys())  # iterating a Series would give its values
    names = covariate_names(X, covariates, but=fold if isinstance(fold, str) else None)
    x, weight, code = covariate_matrix(X, names), _importance(names, importance), _fold_codes(X, fold)
    known = np.isfinite(x).all(axis=1)
    if not known.all():
        warn(f"{int((~known).sum())} of {len(x)} training rows have a missing covariate and are left out")
    x, code = x[known], code[known]
    if len(np.unique(code)) < 2:
        raise ValueError(
            f"the {len(x)} complete training rows lie in one fold or none; wanted two folds or more: fold=..."
        )
    used = ~_constant(x, names) & (weight > 0.0)
    if not used.any():
        raise ValueError(
            f"no covariate of {listed(names)} both varies and has an importance above zero; wanted one at least"
        )
    x, weight = x[:, used], weight[used]
    center, scale = x.mean(axis=0), weight / x.std(axis=0, ddof=1)
    points = np.ascontiguousarray((x - center) * scale)
    mean = _mean_distance(points, progressbar)
    index = pd.Series(_distance_to_other_folds(points, code) / mean, index=X.index[known], name="dissimilarity")
    kept = tuple(name for name, one in zip(names, used, strict=True) if one)
    return Applicability(kept, center, scale, points, mean, index, whisker(index))


def whisker(values: ArrayLike) -> float:
    """Return the upper whisker of a box plot: the largest value that is at most ``Q3 + 1.5 (Q3 - Q1)``, by Tukey's hinges.

    Parameters
    ----------
    values : array_like (obs)
        One at least, none missing.

    Examples
    --------
    >>> whisker([1.0, 2.0, 3.0, 4.0, 100.0])  # hinges 2 and 4, fence 7
    4.0
    """
    x = np.sort(np.asarray(values, dtype=np.float64))
    half = (len(x) + 1) // 2  # both halves hold the median of an odd number
    low, high = np.median(x[:half]), np.median(x[-half:])
    return float(x[x <= high + 1.5 * (high - low)].max())


def _tree(points: Array) -> Any:
    from scipy.spatial import cKDTree

    return cKDTree(points)


def _mean_distance(points: Array, progressbar: bool) -> float:
    """Mean of all pairs, in blocks of the upper triangle."""
    from scipy.spatial.distance import cdist, pdist

    starts, total, n = range(0, len(points), BLOCK), 0.0, len(points)
    with progress(len(starts) ** 2, "Distances of training rows", progressbar and n > BLOCK) as advance:
        for i in starts:
            one = points[i : i + BLOCK]
            total += float(pdist(one).sum())
            for j in range(i + BLOCK, n, BLOCK):
                total += float(cdist(one, points[j : j + BLOCK]).sum())
                advance(2)
            advance()
    return total / (n * (n - 1) / 2)


def _distance_to_other_folds(points: Array, code: NDArray[np.intp]) -> Array:
    out = np.empty(len(points))
    for one in np.unique(code):
        held = code == one
        out[held] = _tree(points[~held]).query(points[held])[0]
    return out


def _apart(
    table: pd.DataFrame, known: NDArray[np.bool_], buffer: float | None, site: Any, places: Any
) -> Callable[[NDArray[np.bool_], NDArray[np.bool_], str], NDArray[np.bool_]]:
    """Return a function that takes the rows within the buffer out of the training rows of a fold."""
    if buffer is None:
        return lambda train, held, name: train
    if site is None or places is None:
        raise ValueError(
            f"buffer={buffer!r} lies around stations; wanted site=... and places=..., as the folds had them"
        )
    station = labels(taken(table, site, "site"))
    by_place = ByPlace(row_places(places, len(table)), buffer=buffer)
    return lambda train, held, name: by_place.outside(train, held, known, station, name)


# The door ------------------------------------------------------------------------------------------------------------


def covariate_names(
    table: pd.DataFrame, covariates: Iterable[str] | None = None, *, but: str | None = None
) -> list[str]:
    """Return the covariates asked for, or else all columns but one.

    Examples
    --------
    >>> covariate_names(pd.DataFrame({"dem": [1.0], "site": ["a"]}), but="site")
    ['dem']
    """
    if isinstance(covariates, str):
        raise TypeError(f"covariates is the text {covariates!r}; wanted a list of columns: covariates=[{covariates!r}]")
    names: list[object] = [name for name in table.columns if name != but] if covariates is None else list(covariates)
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise TypeError(
            f"covariate(s) {listed(map(repr, odd))} have names that are no text; rename them: frame.rename(columns=str)"
        )
    if not names:
        raise ValueError("there are no covariates; wanted one at least: covariates=[...]")
    return [str(name) for name in names]


def covariate_matrix(table: pd.DataFrame, names: list[str]) -> Array:
    """Return covariates (obs, covariate) as numbers, NaN where missing.

    Examples
    --------
    >>> covariate_matrix(pd.DataFrame({"dem": [1, 2], "rain": [0.5, None]}), ["rain", "dem"]).tolist()
    [[0.5, 1.0], [nan, 2.0]]
    """
    check_columns(table, names, {})
    odd = [name for name in names if not types.is_numeric_dtype(table[name]) or types.is_bool_dtype(table[name])]
    if odd:
        raise TypeError(f"covariate(s) {listed(odd)} hold no numbers; {ADVICE}")
    return np.column_stack([numbers(table[name]) for name in names])


def _fold_codes(X: pd.DataFrame, fold: str | ArrayLike) -> NDArray[np.intp]:
    code = np.asarray(pd.factorize(taken(X, fold, "fold"))[0])
    if (code < 0).any():
        raise ValueError(f"{int((code < 0).sum())} of {len(code)} training rows have no fold; wanted a label in each")
    return code


def _importance(names: list[str], importance: Mapping[str, float] | pd.Series | None) -> Array:
    if importance is None:
        return np.ones(len(names))
    given = {str(name): float(value) for name, value in importance.items()}
    check_known(names, given, kind="importance of covariate", where="importance")
    weight = np.array([given[name] for name in names])
    if not np.isfinite(weight).all():
        raise ValueError(f"importance has missing or infinite values; wanted numbers for {listed(names)}")
    below = [name for name, value in zip(names, weight, strict=True) if value < 0.0]
    if below:
        warn(f"the importance of {listed(below)} is below zero and counts as zero")
    return np.maximum(weight, 0.0)


def _constant(x: Array, names: list[str]) -> NDArray[np.bool_]:
    flat = np.array([constant(column) for column in x.T])
    if flat.any():
        dead = [name for name, one in zip(names, flat, strict=True) if one]
        warn(
            f"covariate(s) {listed(dead)} are constant in the training data and left out: other values are not noticed"
        )
    return flat
