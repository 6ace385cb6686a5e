"""Correlations, effective numbers and redundancy of members from sums by station, with intervals over stations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import t as student_t

from bayesens.comparison.bootstrap import CLUSTERS_FOR_PERCENTILES, MIN_CLUSTERS, Clusters, cluster_interval, pigeonhole
from bayesens.comparison.errors.station_sums import StationSums, standardised

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KINDS", "MIN_SITES", "described", "effective", "inverse", "unit_diagonal"]

Array = NDArray[np.float64]
KINDS = ("mean correlation", "least variance over mean member", "least variance over best member", "entropy",
         "participation")  # fmt: skip
BEST = 2  # the kind without an interval: which member is the best is itself drawn
MIN_SITES = 10  # for effective numbers that rest on sites, and for intervals of the others
SINGULAR = 1e-10  # smallest eigenvalue of a correlation matrix that is still inverted


def described(
    errors: StationSums,
    both: StationSums,
    parts: tuple[str, ...],
    *,
    replicates: int,
    level: float,
    seed: int | None,
    sites: bool,
) -> xr.Dataset:
    """All statistics of one set of rows, with intervals."""
    stations = len(errors.count)
    clusters = Clusters(stations)
    count = replicates if stations >= CLUSTERS_FOR_PERCENTILES else 0
    drawn = pigeonhole(np.arange(stations), np.zeros(stations, np.intp), replicates=count, random_seed=seed).station
    weight = np.concatenate([drawn, 1.0 - np.eye(stations)], axis=1) if stations >= MIN_CLUSTERS else drawn
    rows: dict[str, list[Any]] = {}
    for part in parts:
        for name, (dims, values, scale, fitted) in _statistics(errors, both, part, weight).items():
            value, (low, high) = values[0].copy(), _ends(values, scale, clusters, level, count)
            if stations >= MIN_CLUSTERS and fitted is not None:
                value[fitted], low[fitted], high[fitted] = _corrected(
                    values[0, fitted], values[1 + count :, fitted], scale, level
                )
            if name == "k_eff":
                value, low, high = _bounded(value, low, high, errors.count.shape[-1])
                if stations < MIN_SITES:
                    value, low, high = _of_few(values[0], part, errors.count.shape[-1])
                low[BEST], high[BEST] = np.nan, np.nan
            for suffix, each in (("", value), ("_low", low), ("_high", high)):
                rows.setdefault(name + suffix, [dims]).append(each)
    out = xr.Dataset({name: (("part", *dims), np.stack(each)) for name, (dims, *each) in rows.items()})
    out["count"] = ("member", "member_"), errors.count.sum(axis=0)
    out["stations"] = (), stations if sites else 0
    out["how"] = (), clusters.how if sites else "none: no stations given"
    return out


def _bounded(value: Array, low: Array, high: Array, k: int) -> tuple[Array, ...]:
    """K members are worth one at least, and K at most: what goes beyond is noise, or difference in skill."""
    return tuple(np.clip(each, 1.0, k) for each in (value, low, high))


def _of_few(sample: Array, part: str, k: int) -> tuple[Array, Array, Array]:
    """From few sites: none between them, elsewhere the number of these very rows, without interval or correction."""
    none = np.full_like(sample, np.nan)
    return (none if part == "between" else np.clip(sample, 1.0, k)), none.copy(), none.copy()


def _statistics(
    errors: StationSums, both: StationSums, part: str, weight: Array
) -> dict[str, tuple[tuple[str, ...], Array, str, slice | None]]:
    """Dimensions, values (replicate, ...), the scale of t intervals, and which values are to be corrected for bias."""
    covariance, variance = errors.covariance(part, weight)
    r = unit_diagonal(standardised(covariance, variance))
    joint = standardised(*both.covariance(part, weight))
    sd = np.sqrt(np.diagonal(variance, axis1=1, axis2=2))
    k = r.shape[-1]
    precision = inverse(r)
    mean = (r.sum(axis=(1, 2)) - k) / (k * (k - 1))
    pair = ("member", "member_")
    return {
        "error_correlation": (pair, r, "z", None),
        "output_correlation": (pair, unit_diagonal(joint[:, :-1, :-1]), "z", None),
        "partial_correlation": (pair, _partial(precision), "z", None),
        "mean_correlation": ((), mean, "z", None),
        "error_sd": (("member",), sd, "log", None),
        "eigenvalue": (("rank",), _shares(r), "", slice(None)),
        "k_eff": (("kind",), _k_eff(mean, _shares(np.maximum(r, 0.0)), precision, sd), "log", slice(1, None)),
        "vif": (("member",), np.diagonal(precision, axis1=1, axis2=2), "log", slice(None)),
        "information": (("member",), _information(joint), "", slice(None)),
    }


def _shares(r: Array) -> Array:
    """Eigenvalues as shares of their sum (replicate, rank), the largest first; none below zero."""
    values = np.clip(np.linalg.eigvalsh(_filled(r))[:, ::-1], 0.0, None)
    return np.where(_whole(r)[:, None], values / values.sum(axis=1, keepdims=True), np.nan)


def effective(mean: Array, k: int) -> Array:
    """K / (1 + (K - 1) r) of a mean correlation; below zero it counts as zero, so that K is the most.

    Examples
    --------
    >>> effective(np.array([0.5, 0.0, -0.2]), 4).tolist()
    [1.6, 4.0, 4.0]
    """
    return k / (1.0 + (k - 1) * np.maximum(mean, 0.0))


def _k_eff(mean: Array, share: Array, precision: Array, sd: Array) -> Array:
    """All kinds (replicate, kind); the spectrum is that of correlations without those below zero, whose sign it cannot see."""
    by_mean = effective(mean, share.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        gained = np.einsum("rjk,rj,rk->r", precision, 1.0 / sd, 1.0 / sd)
        entropy = np.exp(-np.sum(np.where(share > 0, share * np.log(share), share), axis=1))
    least = [gained * np.mean(sd**2, axis=1), gained * np.min(sd**2, axis=1)]
    return np.column_stack([by_mean, *least, entropy, 1.0 / np.sum(share**2, axis=1)])


def _information(joint: Array) -> Array:
    """Conditional mutual information of the last column with each other one, given the rest (replicate, member) [nats]."""
    last = _partial(inverse(unit_diagonal(joint)))[:, :-1, -1]
    return -0.5 * np.log1p(-np.minimum(last**2, 1.0 - 1e-15))


def _partial(precision: Array) -> Array:
    """Partial correlations (replicate, column, column), 1 on the diagonal."""
    root = np.sqrt(np.diagonal(precision, axis1=1, axis2=2))
    return unit_diagonal(-precision / (root[:, :, None] * root[:, None, :]))


def unit_diagonal(r: Array) -> Array:
    """The diagonal is 1 where the column has any variance."""
    out = r.copy()
    i = np.arange(r.shape[-1])
    out[:, i, i] = np.where(np.isfinite(out[:, i, i]), 1.0, np.nan)
    return out


def _whole(r: Array) -> NDArray[np.bool_]:
    return np.isfinite(r).all(axis=(1, 2))


def _filled(r: Array) -> Array:
    """LAPACK takes no NaN: an identity stands in."""
    return np.where(_whole(r)[:, None, None], r, np.eye(r.shape[-1]))


def inverse(r: Array) -> Array:
    """Inverses, NaN where a matrix is not positive definite."""
    good = _whole(r)
    good[good] = np.linalg.eigvalsh(r[good])[:, 0] > SINGULAR
    out = np.full_like(r, np.nan)
    out[good] = np.linalg.inv(r[good])
    return out


_SCALES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "z": (lambda v: np.arctanh(np.clip(v, -1 + 1e-15, 1 - 1e-15)), np.tanh),
    "log": (lambda v: np.log(np.maximum(v, 1e-300)), np.exp),
    "": (lambda v: v, lambda v: v),
}


def _ends(values: Array, scale: str, clusters: Clusters, level: float, replicates: int) -> tuple[Array, Array]:
    """Ends by `cluster_interval`, of all columns at once where it would take percentiles."""
    to, back = _SCALES[scale]
    flat = values.reshape(len(values), -1)
    out = np.full((2, flat.shape[1]), np.nan)
    if clusters.least >= MIN_CLUSTERS:
        known = to(flat)
        usual = np.isfinite(known).all(axis=0) if replicates else np.zeros(flat.shape[1], bool)
        tail = 0.5 - 0.5 * level
        if usual.any():
            out[:, usual] = np.quantile(known[1 : 1 + replicates, usual], [tail, 1.0 - tail], axis=0)
        for i in np.flatnonzero(~usual):
            out[:, i] = cluster_interval(
                known[:, i], level, clusters, replicates=replicates, stations=clusters.stations
            )
        out = back(out)
    exact = np.ptp(flat, axis=0) == 0.0  # the diagonal
    out[:, exact] = np.where(np.isfinite(out[:, exact]), flat[0, exact], np.nan)
    return out[0].reshape(values.shape[1:]), out[1].reshape(values.shape[1:])


def _corrected(whole: Array, apart: Array, scale: str, level: float) -> tuple[Array, Array, Array]:
    """Value less its bias, and a t interval about it, from leaving out one station at a time.

    Inverses and eigenvalues fit the sample: the bias is of the order of their spread, and percentiles would have it twice.
    """
    to, back = _SCALES[scale]
    n = len(apart)
    each = n * to(whole) - (n - 1) * to(apart)
    center = each.mean(axis=0)
    half = student_t.ppf(0.5 + 0.5 * level, n - 1) * each.std(axis=0, ddof=1) / np.sqrt(n)
    return back(center), back(center - half), back(center + half)
