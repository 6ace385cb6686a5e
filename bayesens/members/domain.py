"""Stations beside the domain that they stand for: coverage of its conditions, and scores weighted to it.

References
----------
Sugiyama, Suzuki & Kanamori (2012), Density ratio estimation in machine learning, Cambridge: weights by a classifier.
Ionides (2008), J. Comput. Graph. Stat. 17, 295: truncation of weights at the root of their number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.ensemble.checks import check_columns
from bayesens.members.applicability import covariate_matrix, covariate_names
from bayesens.messages import check_known, listed, warn
from bayesens.tables.columns import labels

__all__ = ["DomainWeights", "covariate_coverage", "domain_weights", "weighted_scores"]

Array = NDArray[np.float64]
FEW = 10.0  # effective stations or rows below which a weighted mean hangs on a few of them
APART = 0.95  # AUC beyond which stations and domain hardly overlap, and an effective number says nothing
ALL = "all"  # the row of all covariates together


# Coverage of conditions ----------------------------------------------------------------------------------------------


def covariate_coverage(
    stations: pd.DataFrame, domain: pd.DataFrame | xr.Dataset, *, covariates: Iterable[str] | None = None
) -> pd.DataFrame:
    """How far the conditions at stations are those of the domain: covariate by covariate, and all together.

    Parameters
    ----------
    stations : pandas.DataFrame
        Covariates at the stations' cells; missing values are passed over.
    domain : pandas.DataFrame or xarray.Dataset
        Covariates at all cells, as rows or as a grid; missing values are passed over.
    covariates : iterable of str, optional
        Columns. None: all of ``stations``.

    Returns
    -------
    pandas.DataFrame (covariate)
        ``within``, the share of the domain's cells inside the stations' range; ``ks``, the largest difference of the two
        distribution functions (0 to 1); ``wasserstein``, the mean distance that values would have to move (units of the
        covariate); ``wasserstein_sd``, the same in sd of the domain. In the last row, ``all``, ``within`` is the share of the
        complete cells inside the range of every covariate, and the rest is NaN.

    Raises
    ------
    KeyError, TypeError, ValueError
        Covariates that are not there, categorical, missing throughout, or called ``all``.

    Notes
    -----
    A cell inside the range of every covariate may still be a combination that no station has seen: that is the question of
    `bayesens.members.applicability`.

    Examples
    --------
    >>> covariate_coverage(pd.DataFrame({"dem": [0.0, 1.0]}), pd.DataFrame({"dem": [0.0, 1.0, 2.0, 3.0]}))
              within   ks wasserstein wasserstein_sd
    covariate
    dem          0.5  0.5         1.0           0.89
    all          0.5  NaN         NaN            NaN
    """
    names = covariate_names(stations, covariates)
    if ALL in names:
        raise ValueError(f"a covariate is called {ALL!r}, which names the row of all together; rename it")
    at, everywhere = covariate_matrix(stations, names), _domain_matrix(domain, names)
    for where, x in (("at the stations", at), ("in the domain", everywhere)):
        empty = [name for name, column in zip(names, x.T, strict=True) if np.isnan(column).all()]
        if empty:
            raise ValueError(
                f"covariate(s) {listed(empty)} are missing {where} throughout; leave them out: covariates=[...]"
            )
    inside = (everywhere >= np.nanmin(at, axis=0)) & (everywhere <= np.nanmax(at, axis=0))
    known = ~np.isnan(everywhere)
    complete = known.all(axis=1)
    rows = [
        {"within": float(inside[known[:, i], i].mean())} | _differences(at[:, i], everywhere[:, i])
        for i in range(len(names))
    ]
    together = float(inside[complete].all(axis=1).mean()) if complete.any() else np.nan
    return pd.DataFrame([*rows, {"within": together}], index=pd.Index([*names, ALL], name="covariate"))


def _domain_matrix(domain: pd.DataFrame | xr.Dataset, names: list[str]) -> Array:
    """Covariates (cell, covariate) of a table, or of a grid whose covariates may have different dimensions."""
    if isinstance(domain, xr.Dataset):
        check_known(names, map(str, domain.variables), kind="covariate", where="the dataset of the domain")
        arrays = xr.broadcast(*(domain[name].compute() for name in names))
        domain = pd.DataFrame({name: array.values.ravel() for name, array in zip(names, arrays, strict=True)})
    return covariate_matrix(domain, names)


def _differences(stations: Array, domain: Array) -> dict[str, float]:
    from scipy.stats import wasserstein_distance

    a, b = (np.sort(x[~np.isnan(x)]) for x in (stations, domain))
    every = np.concatenate([a, b])
    apart = np.searchsorted(a, every, side="right") / len(a) - np.searchsorted(b, every, side="right") / len(b)
    distance, sd = float(wasserstein_distance(a, b)), float(b.std())
    in_sd = distance / sd if sd > 0.0 else (0.0 if distance == 0.0 else np.inf)
    return {"ks": float(np.abs(apart).max()), "wasserstein": distance, "wasserstein_sd": in_sd}


# Scores weighted to the domain ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
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
    n_clipped : int
        Rows whose weight was held at the largest allowed.
    """

    weight: pd.Series
    site: NDArray[np.str_] | None
    ess: float
    n: int
    auc: float
    n_clipped: int = 0


def domain_weights(
    stations: pd.DataFrame,
    domain: pd.DataFrame | xr.Dataset,
    *,
    covariates: Iterable[str] | None = None,
    site: str | None = None,
    method: str = "logistic",
    folds: int = 5,
    clip: float | None = None,
    random_seed: int | None = None,
) -> DomainWeights:
    """Weights that make station rows stand for the domain: ``p_domain(x) / p_stations(x)``, by a cross-fitted classifier.

    Parameters
    ----------
    stations : pandas.DataFrame (obs)
        Covariates at the stations' rows; those with a missing covariate get no weight.
    domain : pandas.DataFrame or xarray.Dataset
        Covariates at the domain's cells, or a sample of them; those with a missing covariate are passed over.
    covariates : iterable of str, optional
        Columns. None: all of ``stations`` but the site.
    site : str, optional
        Column of ``stations``; rows of a station then stay in one fold, and the effective number is one of stations.
    method : {"logistic", "boosting"}
        Logistic regression on covariates, their squares and products (exact for two normal distributions), or boosted trees.
    folds : int
        Two or more; a row's weight comes from a classifier that has not seen its fold.
    clip : float, optional
        Largest weight, in multiples of their mean before clipping: less variance for some bias, towards the plain mean. None:
        the square root of the number of stations (of rows, without stations). ``numpy.inf``: as they are.
    random_seed : int, optional
        For the folds and trees.

    Returns
    -------
    DomainWeights

    Raises
    ------
    KeyError, TypeError, ValueError
        Covariates that are not there or categorical, an unknown method, fewer stations (rows) than folds, a clip below 1.

    Examples
    --------
    >>> stations, domain = (pd.DataFrame({"dem": np.linspace(0, 1, n)}) for n in (50, 200))
    >>> found = domain_weights(stations, domain, random_seed=1)  # the same conditions: all weights are about 1
    >>> bool(found.ess > 45), found.n
    (True, 50)
    """
    if method not in ("logistic", "boosting"):
        raise ValueError(f"method={method!r}; wanted 'logistic' or 'boosting'")
    if clip is not None and not clip >= 1.0:
        raise ValueError(f"clip={clip!r}; wanted 1 or more, in multiples of the mean weight")
    names = covariate_names(stations, covariates, but=site)
    at, everywhere = covariate_matrix(stations, names), _domain_matrix(domain, names)
    known = np.isfinite(at).all(axis=1)
    everywhere = everywhere[np.isfinite(everywhere).all(axis=1)]
    of_row = None
    if site is not None:
        check_columns(stations, [], {"site": site})
        of_row = labels(stations[site])
        if (of_row == "").any():
            raise ValueError(
                f"{int((of_row == '').sum())} of {len(at)} rows have no station; fill {site!r} in or drop the rows"
            )
    unit = np.arange(int(known.sum())) if of_row is None else np.unique(of_row[known], return_inverse=True)[1]
    what = "rows" if of_row is None else "stations"
    if folds < 2 or len(np.unique(unit)) < folds or len(everywhere) < folds:
        raise ValueError(
            f"{len(np.unique(unit))} {what} and {len(everywhere)} rows of the domain are complete, for folds={folds}; wanted 2 "
            "folds or more, and no fewer of each than folds"
        )
    weight = np.full(len(at), np.nan)
    ratio, auc = _density_ratio(at[known], everywhere, unit, method, folds, random_seed)
    weight[known], n_clipped = _clipped(ratio, np.sqrt(unit.max() + 1) if clip is None else clip)
    ess, n = _effective(weight, of_row)
    if auc > APART:
        warn(
            f"unseen rows of stations and domain are told apart nearly always (AUC {auc:.2f}): the stations hardly ever see "
            f"the domain's conditions, so that no weights make them stand for it (an effective {ess:.1f} of {n} {what}, whatever "
            "that is worth here); see covariate_coverage and applicability"
        )
    elif ess < max(FEW, 0.1 * n):
        warn(
            f"the weights leave an effective {ess:.1f} of {n} {what}: scores weighted by them hang on a few; the domain reaches "
            "beyond the stations, so look at covariate_coverage and applicability first"
        )
    return DomainWeights(pd.Series(weight, index=stations.index, name="weight"), of_row, ess, n, auc, n_clipped)


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


def _clipped(ratio: Array, most: float) -> tuple[Array, int]:
    """Weights of mean 1, those beyond a multiple of their mean held there, and how many these are."""
    weight = ratio / ratio.mean()
    held = np.minimum(weight, most)
    return held / held.mean(), int((weight > most).sum())


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
    names, weight = covariate_names(scores), weights.weight.to_numpy()
    rows = []
    for name, value in zip(names, covariate_matrix(scores, names).T, strict=True):
        both = ~np.isnan(value) & ~np.isnan(weight)
        if not both.any() or weight[both].sum() <= 0.0:
            raise ValueError(f"no row has both a score {name!r} and a weight above zero; wanted one at least")
        ess, n = _effective(np.where(both, weight, np.nan), weights.site)
        weighted = float(weight[both] @ value[both] / weight[both].sum())
        rows.append(
            {"mean": float(value[both].mean()), "weighted": weighted, "n": int(both.sum()), "ess": ess, "units": n}
        )
    found = pd.DataFrame(rows, index=pd.Index(names, name="score"))
    few = found["ess"] < np.maximum(FEW, 0.1 * found["units"])
    if few.any():
        what = "rows" if weights.site is None else "stations"
        warn(
            f"the weighted mean(s) of {listed(found.index[few])} rest on an effective {found['ess'].min():.1f} {what}; take them "
            "for a rough hint"
        )
    return found.drop(columns="units")
