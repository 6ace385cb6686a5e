"""Where stations do not reach: area of applicability, coverage of covariates, scores weighted to the domain.

References
----------
Meyer & Pebesma (2021), Methods Ecol. Evol. 12, 1620: dissimilarity index and area of applicability. Sugiyama, Suzuki & Kanamori
(2012), Density ratio estimation in machine learning, Cambridge: weights by a classifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pandas.api import types

from bayesens.checks import check_columns, check_known, warn
from bayesens.columns import labels, listed, numbers

__all__ = ["Applicability", "DomainWeights", "applicability", "covariate_coverage", "domain_weights", "weighted_scores"]

Array = NDArray[np.float64]
BLOCK = 2048  # rows of a block of distances: 32 MB a block
FEW = 10.0  # effective stations or rows below which a weighted mean hangs on a few of them
APART = 0.95  # AUC beyond which stations and domain hardly overlap, and an effective number says nothing
CONSTANT = 1e-12  # sd over the largest value below which a covariate does not vary beyond rounding


# Area of applicability -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Applicability:
    """What is needed to say how far a new point lies from the training data, from `applicability`.

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
    _tree: Any = field(repr=False, compare=False)

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
        x = _matrix(table, list(self.covariates))
        index = self._index(*x.T)
        return pd.DataFrame({"dissimilarity": index, "inside": self._inside(index)}, index=table.index)

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
            ``dissimilarity`` and ``inside``, as in `table`, on all dimensions; lazy where the covariates are.

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
            raise TypeError(f"{listed(odd)} hold(s) no numbers; {ADVICE}")
        index = xr.apply_ufunc(self._index, *arrays, dask="parallelized", output_dtypes=[np.float64], keep_attrs=False)
        # All dimensions in the order of the covariate that has most of them, not in that of first mention.
        order = [*max(arrays, key=lambda array: array.ndim).dims]
        index = index.transpose(*order, ...)
        inside = xr.where(index <= self.threshold, 1.0, 0.0).where(index.notnull())
        index.attrs = {"long_name": "dissimilarity index", "units": "1", "threshold": self.threshold}
        inside.attrs = {"long_name": "inside the area of applicability", "units": "1"}
        return xr.Dataset({"dissimilarity": index, "inside": inside})

    def _index(self, *covariate: Array) -> Array:
        """Kernel: covariates of one shape (...) in, index (...) out."""
        x = np.stack([np.asarray(one, dtype=np.float64) for one in np.broadcast_arrays(*covariate)], axis=-1)
        out = np.full(x.shape[:-1], np.nan)
        known = np.isfinite(x).all(axis=-1)
        if known.any():
            out[known] = self._tree.query((x[known] - self.center) * self.scale)[0] / self.mean_distance
        return out

    def _inside(self, index: Array) -> Array:
        return np.where(np.isnan(index), np.nan, index <= self.threshold)


ADVICE = (
    "distances are between numbers: leave a categorical covariate out, or give indicator columns (pandas.get_dummies) with an "
    "importance of their own"
)


def applicability(
    train: pd.DataFrame,
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
    train : pandas.DataFrame (obs)
        The rows that the models were trained on; those with a missing covariate are left out, with a warning.
    fold : str or array_like (obs)
        The folds of the cross-validation, by stations or blocks: a column or labels. With folds of single rows, the next day
        of a station would be its nearest neighbour, and the threshold far too strict.
    covariates : iterable of str, optional
        Columns. None: those that ``importance`` names, or else all but the folds.
    importance : mapping of covariate to float, optional
        Such as permutation importances; only their ratios matter. Those below zero count as zero. None: all equal.
    progressbar : bool
        Show one for the distances of all pairs, which grow with the square of the rows.

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

    >>> train = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0, 19.0]})
    >>> area = applicability(train, fold=[0, 1, 0, 1, 0], progressbar=False)
    >>> area.train_index.round(3).tolist(), round(area.threshold, 3)
    ([0.125, 0.125, 0.125, 0.125, 2.0], 0.125)
    """
    labels_of_fold = _folds(train, fold)
    names = _covariates(train, covariates, importance, fold)
    x, weight = _matrix(train, names), _importance(names, importance)
    known = np.isfinite(x).all(axis=1)
    if not known.all():
        warn(f"{int((~known).sum())} of {len(x)} training rows have a missing covariate and are left out")
    x, labels_of_fold = x[known], labels_of_fold[known]
    if len(np.unique(labels_of_fold)) < 2:
        raise ValueError(f"the {len(x)} complete training rows lie in one fold; wanted two or more: fold=...")
    sd = x.std(axis=0, ddof=1)
    varies = sd > CONSTANT * np.abs(x).max(axis=0)
    if not varies.all():
        dead = [name for name, alive in zip(names, varies, strict=True) if not alive]
        warn(
            f"covariate(s) {listed(dead)} are constant in the training data and left out: other values are not noticed"
        )
    used = varies & (weight > 0.0)
    if not used.any():
        raise ValueError(
            f"no covariate of {listed(names)} both varies and has an importance above zero; wanted one at least"
        )
    center, scale = x[:, used].mean(axis=0), weight[used] / sd[used]
    points = np.ascontiguousarray((x[:, used] - center) * scale)
    mean = _mean_distance(points, progressbar)
    index = _distance_to_other_folds(points, labels_of_fold) / mean
    kept = tuple(name for name, one in zip(names, used, strict=True) if one)
    series = pd.Series(index, index=train.index[known], name="dissimilarity")
    return Applicability(kept, center, scale, points, mean, series, whisker(index), _tree(points))


def whisker(values: ArrayLike) -> float:
    """Return the upper whisker of a box plot: the largest value that is at most ``Q3 + 1.5 (Q3 - Q1)``, by Tukey's hinges.

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
    from rich.console import Console
    from rich.progress import Progress
    from scipy.spatial.distance import cdist, pdist

    starts, total, n = range(0, len(points), BLOCK), 0.0, len(points)
    with Progress(console=Console(stderr=True), transient=True, disable=not progressbar or n <= BLOCK) as bar:
        task = bar.add_task("Distances of training rows", total=len(starts) ** 2)
        for i in starts:
            one = points[i : i + BLOCK]
            total += float(pdist(one).sum())
            for j in range(i + BLOCK, n, BLOCK):
                total += float(cdist(one, points[j : j + BLOCK]).sum())
                bar.advance(task, 2)
            bar.advance(task)
    return total / (n * (n - 1) / 2)


def _distance_to_other_folds(points: Array, fold: NDArray[np.intp]) -> Array:
    out = np.empty(len(points))
    for one in np.unique(fold):
        held = fold == one
        out[held] = _tree(points[~held]).query(points[held])[0]
    return out


def _folds(train: pd.DataFrame, fold: str | ArrayLike) -> NDArray[np.intp]:
    if isinstance(fold, str):
        check_columns(train, [], {"fold": fold})
        column = train[fold]
    else:
        column = pd.Series(np.asarray(fold))
    if len(column) != len(train):
        raise ValueError(f"fold has {len(column)} labels; wanted one for each of the {len(train)} training rows")
    codes = np.asarray(pd.factorize(column)[0])
    if (codes < 0).any():
        raise ValueError(f"{int((codes < 0).sum())} of {len(codes)} training rows have no fold; wanted a label in each")
    return codes


def _covariates(
    train: pd.DataFrame, covariates: Iterable[str] | None, importance: Mapping[str, float] | pd.Series | None, fold: Any
) -> list[str]:
    if isinstance(covariates, str):
        raise TypeError(f"covariates is the text {covariates!r}; wanted a list of columns: covariates=[{covariates!r}]")
    if covariates is not None:
        return list(covariates)
    if importance is not None:
        return [str(name) for name in importance.keys()]  # noqa: SIM118 - iterating a Series gives its values
    return [str(name) for name in train.columns if not (isinstance(fold, str) and name == fold)]


def _matrix(table: pd.DataFrame, names: list[str]) -> Array:
    """Covariates (obs, covariate) as numbers, NaN where missing."""
    check_columns(table, names, {})
    if not names:
        raise ValueError("there are no covariates; wanted one at least: covariates=[...]")
    odd = [name for name in names if not types.is_numeric_dtype(table[name]) or types.is_bool_dtype(table[name])]
    if odd:
        raise TypeError(f"covariate(s) {listed(odd)} hold no numbers; {ADVICE}")
    return np.column_stack([numbers(table[name]) for name in names])


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


# Coverage of covariates ----------------------------------------------------------------------------------------------


def covariate_coverage(
    stations: pd.DataFrame, domain: pd.DataFrame, *, covariates: Iterable[str] | None = None
) -> pd.DataFrame:
    """How far the conditions at stations differ from those of the domain, covariate by covariate.

    Parameters
    ----------
    stations, domain : pandas.DataFrame
        Covariates at the stations' cells and at all cells (of a grid: ``dataset.to_dataframe()``); missing values are passed
        over.
    covariates : iterable of str, optional
        Columns. None: all of ``stations``.

    Returns
    -------
    pandas.DataFrame (covariate)
        ``ks``, the largest difference of the two distribution functions (0 to 1); ``wasserstein``, the mean distance that values
        would have to move (units of the covariate); ``wasserstein_sd``, the same in sd of the domain; ``outside``, the share
        of the domain beyond the stations' range.

    Raises
    ------
    KeyError, TypeError, ValueError
        Covariates that are not there, categorical, or missing throughout.

    Examples
    --------
    >>> covariate_coverage(pd.DataFrame({"dem": [0.0, 1.0]}), pd.DataFrame({"dem": [0.0, 1.0, 2.0, 3.0]}))
                ks wasserstein wasserstein_sd outside
    covariate
    dem        0.5         1.0           0.89     0.5
    """
    names = _covariates(stations, covariates, None, None)
    at, everywhere = _matrix(stations, names), _matrix(domain, names)
    rows = [_coverage(name, at[:, i], everywhere[:, i]) for i, name in enumerate(names)]
    return pd.DataFrame(rows, index=pd.Index(names, name="covariate"))


def _coverage(name: str, stations: Array, domain: Array) -> dict[str, float]:
    from scipy.stats import wasserstein_distance

    a, b = (np.sort(x[~np.isnan(x)]) for x in (stations, domain))
    if not len(a) or not len(b):
        where = "at the stations" if not len(a) else "in the domain"
        raise ValueError(f"covariate {name!r} is missing {where} throughout; leave it out: covariates=[...]")
    every = np.concatenate([a, b])
    apart = np.searchsorted(a, every, side="right") / len(a) - np.searchsorted(b, every, side="right") / len(b)
    distance, sd = float(wasserstein_distance(a, b)), float(b.std())
    return {
        "ks": float(np.abs(apart).max()),
        "wasserstein": distance,
        "wasserstein_sd": distance / sd if sd > 0.0 else (0.0 if distance == 0.0 else np.inf),
        "outside": float(np.mean((b < a[0]) | (b > a[-1]))),
    }


# Scores weighted to the domain ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DomainWeights:
    """Density ratios of domain to stations, from `domain_weights`.

    Attributes
    ----------
    weight : pandas.Series (obs)
        Of every station row, of mean 1; NaN where a covariate is missing.
    site : numpy.ndarray (obs) or None
        The station of every row, if given.
    ess : float
        Effective number of stations (of rows, without stations): ``(sum w)^2 / sum w^2`` of their summed weights.
    n : int
        Stations (rows) with a weight.
    auc : float
        How well the classifier tells stations from the domain on rows that it has not seen: .5 not at all, 1 completely.
    """

    weight: pd.Series
    site: NDArray[np.str_] | None
    ess: float
    n: int
    auc: float


def domain_weights(
    stations: pd.DataFrame,
    domain: pd.DataFrame,
    *,
    covariates: Iterable[str] | None = None,
    site: str | None = None,
    method: str = "logistic",
    folds: int = 5,
    random_seed: int | None = None,
) -> DomainWeights:
    """Weights that make station rows stand for the domain: ``p_domain(x) / p_stations(x)``, by a cross-fitted classifier.

    Parameters
    ----------
    stations, domain : pandas.DataFrame
        Covariates at the stations' rows and at a sample of the domain; rows with a missing covariate are passed over.
    covariates : iterable of str, optional
        Columns. None: all of ``stations`` but the site.
    site : str, optional
        Column of ``stations``; rows of a station then stay in one fold, and the effective number is one of stations.
    method : {"logistic", "boosting"}
        Logistic regression on covariates, their squares and products (exact for two normal distributions), or boosted trees.
    folds : int
        Two or more; a row's weight comes from a classifier that has not seen its fold.
    random_seed : int, optional
        For the folds and trees.

    Returns
    -------
    DomainWeights

    Raises
    ------
    KeyError, TypeError, ValueError
        Covariates that are not there or categorical, an unknown method, fewer stations (rows) than folds.

    Examples
    --------
    >>> stations, domain = (pd.DataFrame({"dem": np.linspace(0, 1, n)}) for n in (50, 200))
    >>> found = domain_weights(stations, domain, random_seed=1)  # the same conditions: all weights are about 1
    >>> bool(found.ess > 45), found.n
    (True, 50)
    """
    if method not in ("logistic", "boosting"):
        raise ValueError(f"method={method!r}; wanted 'logistic' or 'boosting'")
    names = [name for name in _covariates(stations, covariates, None, None) if covariates is not None or name != site]
    at, everywhere = _matrix(stations, names), _matrix(domain, names)
    known = np.isfinite(at).all(axis=1)
    everywhere = everywhere[np.isfinite(everywhere).all(axis=1)]
    of_row = None
    if site is not None:
        check_columns(stations, [], {"site": site})
        of_row = labels(stations[site])
    unit = np.arange(int(known.sum())) if of_row is None else np.unique(of_row[known], return_inverse=True)[1]
    what = "rows" if of_row is None else "stations"
    if folds < 2 or len(np.unique(unit)) < folds or len(everywhere) < folds:
        raise ValueError(
            f"{len(np.unique(unit))} {what} and {len(everywhere)} rows of the domain are complete, for folds={folds}; wanted 2 "
            "folds or more, and no fewer of each than folds"
        )
    weight = np.full(len(at), np.nan)
    ratio, auc = _density_ratio(at[known], everywhere, unit, method, folds, random_seed)
    weight[known] = ratio / ratio.mean()
    ess, n = _effective(weight, of_row)
    if auc > APART:
        warn(
            f"unseen rows of stations and domain are told apart nearly always (AUC {auc:.2f}): the stations do not reach into "
            "the domain, so that no weights make them stand for it; see covariate_coverage and applicability"
        )
    elif ess < max(FEW, 0.1 * n):
        warn(
            f"the weights leave an effective {ess:.1f} of {n} {what}: scores weighted by them hang on a few; the domain reaches "
            "beyond the stations, so look at covariate_coverage and applicability first"
        )
    return DomainWeights(pd.Series(weight, index=stations.index, name="weight"), of_row, ess, n, auc)


def _density_ratio(
    at: Array, domain: Array, unit: NDArray[np.intp], method: str, folds: int, random_seed: int | None
) -> tuple[Array, float]:
    """Ratio (obs) at the stations' rows, each from a classifier without its fold, and the AUC over all held-out rows."""
    from sklearn.metrics import roc_auc_score
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(random_seed)
    n_units = int(unit.max()) + 1
    fold_of_station = (rng.permutation(n_units) % folds)[unit]
    fold_of_domain = rng.permutation(len(domain)) % folds
    log_odds, elsewhere = np.empty(len(at)), np.empty(len(domain))
    for k in range(folds):
        station, other = fold_of_station != k, fold_of_domain != k
        model = _classifier(method, random_seed)
        with threadpool_limits(1):  # small trees: threads that wait for each other cost more than they save
            model.fit(np.vstack([at[station], domain[other]]), np.repeat([0, 1], [station.sum(), other.sum()]))
        prior = np.log(other.sum() / station.sum())
        log_odds[~station] = _log_odds(model, at[~station]) - prior
        elsewhere[~other] = _log_odds(model, domain[~other]) - prior
    auc = roc_auc_score(np.repeat([0, 1], [len(at), len(domain)]), np.concatenate([log_odds, elsewhere]))
    # Only ratios matter, so the largest is 1: nothing overflows where stations and domain are far apart.
    return np.exp(log_odds - log_odds.max()), float(auc)


def _log_odds(model: Any, x: Array) -> Array:
    return np.asarray(model.decision_function(x), dtype=np.float64)


def _classifier(method: str, random_seed: int | None) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    if method == "boosting":
        return HistGradientBoostingClassifier(
            max_iter=100, learning_rate=0.05, max_leaf_nodes=8, min_samples_leaf=50, random_state=random_seed
        )
    # The second scaling keeps squares and products on one footing before the penalty.
    return make_pipeline(
        StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), LogisticRegression(max_iter=1000)
    )


def _effective(weight: Array, site: NDArray[np.str_] | None) -> tuple[float, int]:
    """Effective number of stations, or of rows, and how many there are; NaN weights are passed over."""
    known = ~np.isnan(weight)
    sums = weight[known]
    if site is not None:
        sums = np.bincount(np.unique(site[known], return_inverse=True)[1], sums)
    return float(sums.sum() ** 2 / np.square(sums).sum()), len(sums)


def weighted_scores(scores: pd.DataFrame, weights: DomainWeights) -> pd.DataFrame:
    """Mean of each score column, as it is and weighted to the domain.

    Parameters
    ----------
    scores : pandas.DataFrame (obs)
        Scores that average over rows, such as CRPS, log score, squared error (the root is yours to take), coverage; missing
        values are passed over. Rows as those that the weights were made for.
    weights : DomainWeights
        From `domain_weights`.

    Returns
    -------
    pandas.DataFrame (score)
        ``mean``, ``weighted``, ``n`` rows, and ``ess``, the effective number of stations (or rows) behind ``weighted``.

    Raises
    ------
    TypeError, ValueError
        A column that is no number, other rows than those of the weights, or none with both a score and a weight.

    Examples
    --------
    >>> weights = DomainWeights(pd.Series([1.5, 0.5]), None, 1.6, 2, 0.6)
    >>> with __import__("warnings").catch_warnings(action="ignore"):  # two rows are few
    ...     weighted_scores(pd.DataFrame({"crps": [2.0, 4.0]}), weights)
           mean weighted  n  ess
    score
    crps    3.0      2.5  2  1.6
    """
    if not scores.index.equals(weights.weight.index):
        raise ValueError(
            f"scores have {len(scores)} rows and weights {len(weights.weight)}, or their indexes differ; wanted the same rows in "
            "the same order"
        )
    values, weight = _matrix(scores, [str(name) for name in scores.columns]), weights.weight.to_numpy()
    rows = []
    for name, value in zip(scores.columns, values.T, strict=True):
        both = ~np.isnan(value) & ~np.isnan(weight)
        if not both.any() or weight[both].sum() <= 0.0:
            raise ValueError(f"no row has both a score {name!r} and a weight above zero; wanted one at least")
        ess, n = _effective(np.where(both, weight, np.nan), weights.site)
        weighted = float(weight[both] @ value[both] / weight[both].sum())
        rows.append(
            {"mean": float(value[both].mean()), "weighted": weighted, "n": int(both.sum()), "ess": ess, "units": n}
        )
    found = pd.DataFrame(rows, index=pd.Index(map(str, scores.columns), name="score"))
    few = found["ess"] < np.maximum(FEW, 0.1 * found["units"])
    if few.any():
        what = "rows" if weights.site is None else "stations"
        warn(
            f"the weighted mean(s) of {listed(found.index[few])} rest on an effective {found['ess'].min():.1f} {what}; take them "
            "for a rough hint"
        )
    return found.drop(columns="units")
