"""Leave-one-out comparisons of fits with honest standard errors, and in words what they do and do not estimate."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.bootstrap import MIN_CLUSTERS
from bayesens.comparison.row_clusters import row_clusters
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.fit_tree import check_given
from bayesens.inference.loo import loo
from bayesens.inference.sampling.psis import good_k
from bayesens.messages import listed, warn

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData

__all__ = ["clustered_error", "loo_table", "loo_words"]

Array = NDArray[np.float64]
STACKING_GAP = 0.1  # nats of the total log score by which stacking's weights may fall short of the best ones


def loo_table(
    fits: Mapping[str, xr.DataTree],
    ensemble: Ensemble,
    *,
    cluster: str | ArrayLike = "site",
    block: float = 30.0,
    memory: float = 256e6,
    progressbar: bool = True,
) -> pd.DataFrame:
    """Compare fits to the same rows by leaving out one row at a time, with standard errors that know of clusters.

    Rows of one site, or of one month, share their errors. A standard error that takes them as independent is then far too
    small: elpd differences that look certain are not. Beside it stands one from the sums over clusters. Nothing here is
    random.

    Parameters
    ----------
    fits : mapping of str to DataTree
        Fits by Laplace or NUTS, by name.
    ensemble : Ensemble
        The training rows, the same for all fits.
    cluster : {"site", "group", "time"} or array_like (obs)
        What shares its errors: rows of one site or group, rows of one time block, or of one label of your own.
    block : float
        Length of a time block [days; the units of numeric times].
    memory : float
        Bytes, see :func:`bayesens.loo`.
    progressbar : bool
        Show the progress of each fit.

    Returns
    -------
    DataFrame
        One line a fit, the best first: ``model``; ``elpd``, expected log density of rows left out, summed; its standard
        errors ``se`` (rows independent) and ``se_clustered``; ``p``, effective number of parameters; ``difference`` to the
        best fit's elpd with ``difference_se`` and ``difference_se_clustered``; ``weight``, of ArviZ's stacking; ``bad_k``,
        rows whose Pareto k is too high for the estimate; ``n`` rows, ``clusters``, and ``clustered_by``, which says what
        the clustered errors rest on or, below five clusters where they are NaN, why there are none. ``attrs["notes"]`` has
        by name what models say of their leave-one-out densities (their ``loo_note``), if any does.

    Raises
    ------
    ValueError
        No fit, fits of other rows or points without a posterior, clusters that the rows have no labels of.

    Warns
    -----
    UserWarning
        What :func:`bayesens.loo` warns of, with the fit's name; if stacking stopped short of the best weights.

    Notes
    -----
    With d_i the difference of a row, dbar its mean and C clusters, the clustered standard error of the sum is
    sqrt(C / (C - 1) sum_c (sum_{i in c} (d_i - dbar))²); with one cluster a row it is the usual one, with the variance
    over n - 1 as in ``arviz.loo`` (``arviz.compare`` divides that of differences by n).

    Stacking maximises sum_i log sum_k w_k p_ik and is given every row's densities relative to the best of them, which
    changes no weight: a row that all fits find all but impossible would underflow otherwise, and its weights be lost.

    References
    ----------
    Vehtari, Gelman and Gabry (2017), Statistics and Computing 27, 1413-1432.
    Yao, Vehtari, Simpson and Gelman (2018), Bayesian Analysis 13, 917-1007: stacking.
    Sivula, Magnusson, Matamoros and Vehtari (2025), Bayesian Analysis: uncertainty of such comparisons.

    Examples
    --------
    >>> import bayesens as be
    >>> y = np.random.default_rng(1).normal(size=60)
    >>> frame = pd.DataFrame({"a": y + 0.3 * np.sin(np.arange(60)), "y": y, "site": np.arange(60) // 10})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y", site="site")
    >>> fits = {"member": be.fit(be.SingleMember(), ens, random_seed=1, progressbar=False),
    ...         "climatology": be.fit(be.Climatology(), ens, random_seed=1, progressbar=False)}
    >>> table = loo_table(fits, ens, progressbar=False)
    >>> table["model"].tolist(), table["clustered_by"].tolist(), table["difference"].iloc[0]
    (['member', 'climatology'], ['6 sites', '6 sites'], np.float64(0.0))
    """
    check_given(ensemble)
    if not fits:
        raise ValueError("fits is empty; wanted a mapping of names to fits, such as {'BMA': fit}.")
    found = {str(name): _loo_of(str(name), tree, ensemble, memory, progressbar) for name, tree in fits.items()}
    rows = _same_rows(found)
    codes, kind = row_clusters(ensemble, cluster, block, rows)
    clusters = int(codes.max()) + 1
    enough = clusters >= MIN_CLUSTERS
    said = f"{clusters} {kind}" if enough else f"none: {clusters} {kind}, wanted {MIN_CLUSTERS}"
    best = max(found, key=lambda name: float(found[name].elpd))
    weight = _stacking(found)
    lines = []
    for name, one in found.items():
        each = one.elpd_i.values
        apart = each - found[best].elpd_i.values
        lines.append({
            "model": name, "elpd": float(one.elpd), "se": float(one.se),
            "se_clustered": clustered_error(each, codes) if enough else np.nan, "p": float(one.p),
            "difference": float(one.elpd) - float(found[best].elpd),
            "difference_se": float(np.sqrt(len(rows)) * np.std(apart, ddof=1)),
            "difference_se_clustered": clustered_error(apart, codes) if enough else np.nan, "weight": weight[name],
            "bad_k": int(np.sum(~(one.pareto_k.values <= good_k(one.n_samples)))), "n": len(rows), "clusters": clusters,
            "clustered_by": said,
        })  # fmt: skip
    table = pd.DataFrame(lines).sort_values("elpd", ascending=False, kind="stable", ignore_index=True)
    if notes := {name: str(one.elpd_i.attrs["note"]) for name, one in found.items() if "note" in one.elpd_i.attrs}:
        table.attrs["notes"] = notes
    return table


def clustered_error(values: ArrayLike, codes: ArrayLike) -> float:
    """Standard error of the sum of values whose clusters, given by number, are independent and whose rows are not; NaN for one.

    Examples
    --------
    >>> clustered_error([1.0, 1.0, 3.0, 3.0], [0, 0, 1, 1])  # sums about the mean: -2 and 2; sqrt(2 / 1 * 8)
    4.0
    """
    d = np.asarray(values, dtype=np.float64)
    sums = np.bincount(np.unique(codes, return_inverse=True)[1], weights=d - d.mean())
    return float(np.sqrt(len(sums) / (len(sums) - 1) * np.sum(sums**2))) if len(sums) > 1 else float("nan")


def loo_words(table: pd.DataFrame) -> str:
    """Say what the differences of a leave-one-out table mean, and how sure they are.

    Parameters
    ----------
    table : DataFrame
        From `loo_table`.

    Returns
    -------
    str
        Plain sentences.

    Raises
    ------
    ValueError
        If the table is another one.

    Examples
    --------
    >>> table = pd.DataFrame({"model": ["a", "b"], "difference": [0.0, -9.0], "difference_se": [0.0, 2.0],
    ...                       "difference_se_clustered": [0.0, 6.0], "clustered_by": "30 sites"})
    >>> print(loo_words(table).split(". ")[2])
    Standard errors of the differences that know of the 30 sites are 3.0 times those that take rows as independent
    """
    needed = ("model", "difference", "difference_se", "difference_se_clustered", "clustered_by")
    if lacking := [name for name in needed if name not in table]:
        raise ValueError(f"the table lacks the columns {lacking}; pass the table of loo_table.")
    text = (
        "Leaving out one row at a time estimates how well each model predicts one more row at a site that it knows, with "
        "the site's effects known and the neighbouring days among its training rows. It is too good for new sites, and "
        "for any time apart where rows repeat their neighbours; for these use "
        "be.compare(..., estimand='site', 'time' or 'site-time'), which holds out whole sites or periods. "
    )
    others = table[table["difference_se"] > 0]
    by = str(table["clustered_by"].iloc[0])
    if by.startswith("none"):
        return text + f"Clustered standard errors: {by}; those in the table take rows as independent and are too small."
    if others.empty:
        return text + "There is one model, or all predict alike: no difference to judge."
    ratio = (others["difference_se_clustered"] / others["difference_se"]).to_numpy(float)
    low, high = (f"{value:.1f}" for value in (ratio.min(), ratio.max()))
    said = low if low == high else f"{low} to {high}"
    text += f"Standard errors of the differences that know of the {by} are {said} times those that take rows as independent. "
    clear = others["difference"].abs() > 2.0 * others["difference_se_clustered"]
    first = str(table["model"].iloc[0])
    behind = [str(name) for name in others.loc[clear, "model"]]
    close = [str(name) for name in others.loc[~clear, "model"]]
    ahead = f"is ahead of {listed(behind)} by more than twice that error" if behind else ""
    equal = f"is not distinguishable from {listed(close)}" if close else ""
    return text + f"{first} " + " and ".join(part for part in (ahead, equal) if part) + "."


# ------------------------------------------------------------------------------------------------------------ the parts
def _loo_of(name: str, tree: xr.DataTree, ensemble: Ensemble, memory: float, progressbar: bool) -> ELPDData:
    """Leave-one-out of one fit; what it warns of is said again with the fit's name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            result = loo(tree, ensemble, memory=memory, progressbar=progressbar)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    for text in dict.fromkeys(str(one.message) for one in caught):
        warn(f"{name}: {text}")
    return result


def _same_rows(found: Mapping[str, ELPDData]) -> NDArray[np.int64]:
    """Positions of the rows in the table, the same for all."""
    first, *others = found
    rows: NDArray[np.int64] = found[first].elpd_i["obs"].values
    for name in others:
        own = found[name].elpd_i["obs"].values
        if not np.array_equal(own, rows):
            raise ValueError(
                f"{first} has used {len(rows)} rows and {name} {len(own)}, and only densities of the same rows compare; leave "
                "the rows that some model cannot use out of the ensemble, and fit all models to what is left."
            )
    return rows


def _stacking(found: Mapping[str, ELPDData]) -> dict[str, float]:
    """Weights of ArviZ's stacking, of densities relative to the best in every row."""
    if len(found) == 1:
        return dict.fromkeys(found, 1.0)
    from arviz_stats import compare

    each = np.stack([one.elpd_i.values for one in found.values()])
    apart = each - each.max(axis=0)
    shifted = {
        name: replace(one, elpd_i=one.elpd_i.copy(data=values))
        for (name, one), values in zip(found.items(), apart, strict=True)
    }
    weight = compare(shifted, method="stacking", round_to="none")["weight"].reindex(list(found)).to_numpy(float)
    density = np.exp(apart)
    gain = density @ (1.0 / (weight @ density)) - density.shape[1]  # above zero where more weight would be better
    if not gain.max() < STACKING_GAP:
        warn(f"ArviZ's stacking stopped short of the best weights, by up to {gain.max():.2g} in the sum of log scores; read "
             "the column weight with care.")  # fmt: skip
    return dict(zip(found, (float(value) for value in weight), strict=True))
