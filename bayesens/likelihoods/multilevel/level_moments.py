"""Mean and covariances of a multilevel model by moments: where a search for its optimum begins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesens.ensemble.sufficient import Statistics

__all__ = ["ANYWHERE", "LevelMoments", "level_moments", "split_correlation", "start_values"]

ANYWHERE = (  # families whose variables may have any value, or any positive one, or any between 0 and 1, or correlations
    "Normal", "StudentT", "Laplace", "Cauchy", "Logistic", "HalfNormal", "HalfStudentT", "HalfCauchy", "LogNormal", "Gamma",
    "InverseGamma", "Exponential", "Weibull", "ChiSquared", "Beta", "LKJCorr",
)  # fmt: skip
LEAST = 0.02  # eigenvalue of a covariance whose columns are in units of the rows' standard deviations


@dataclass(frozen=True)
class LevelMoments:
    """Mean (column) and covariances (column, column) of rows within sites, of sites within groups, and of groups."""

    mean: np.ndarray
    within: np.ndarray
    site: np.ndarray
    group: np.ndarray


def level_moments(data: Statistics) -> LevelMoments:
    """Estimate mean and covariances from sums of products, pair by pair where columns are missing.

    What is left of the means' spread once that of the level below is taken off need be no covariance: its eigenvalues are
    raised to a small share of the rows', and correlations are shrunk the more, the fewer units tell them.

    Parameters
    ----------
    data : Statistics

    Returns
    -------
    LevelMoments

    Examples
    --------
    >>> from bayesens.ensemble.sufficient import statistics
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.standard_normal((400, 9, 1)) + 2.0 * rng.standard_normal((400, 1, 1))
    >>> data = statistics(rows.reshape(-1, 1), np.repeat(np.arange(400), 9), np.zeros(400, dtype=int))
    >>> found = level_moments(data)
    >>> found.within.round(1).tolist(), found.site.round(0).tolist()
    ([[1.0]], [[4.0]])
    """
    sites = len(data.site_group)
    present = data.pattern[data.cell_pattern].astype(float)
    site_n, site_mean = _pooled(data.n[:, None] * present, data.mean, data.cell_site, sites)
    group_n, group_mean = _pooled((site_n > 0).astype(float), site_mean, data.site_group, data.n_groups)
    mean = _pooled((group_n > 0).astype(float), group_mean, np.zeros(data.n_groups, dtype=int), 1)[1][0]
    within = _within(data, present)
    size = np.sqrt(np.diag(within))
    of_mean = within * _left(site_n)  # what a site's rows leave open of its mean
    site = _between(site_mean, site_n, group_mean[data.site_group], data.n_groups) - of_mean
    site = _proper(site, size, sites)
    group = _between(group_mean, group_n, mean, 1) - (site + of_mean) * _left(group_n)
    return LevelMoments(mean, _proper(within, size, int(data.n.sum())), site, _proper(group, size, data.n_groups))


def split_correlation(correlation: np.ndarray) -> tuple[float, np.ndarray]:
    """Split a correlation matrix R in a common factor r and a rest R0, ``R = r + (1 - r) R0``; r is half of the largest possible.

    Examples
    --------
    >>> r, rest = split_correlation(np.array([[1.0, 0.6], [0.6, 1.0]]))
    >>> round(r, 3), rest.round(3).tolist()
    (0.4, [[1.0, 0.333], [0.333, 1.0]])
    """
    r = float(np.clip(0.5 / np.linalg.inv(correlation).sum(), 1e-3, 0.999))
    return r, (correlation - r) / (1.0 - r)


def start_values(
    moments: LevelMoments, center: float, levels: Iterable[str], *, common_factor: bool
) -> dict[str, np.ndarray]:
    """Values by moments of the variables of :class:`bayesens.models.HBM`.

    Parameters
    ----------
    moments : LevelMoments
    center : float
        Where biases are measured.
    levels : iterable of {"group", "site"}
        That the model has effects of.
    common_factor : bool
        Whether correlations are those of a factor common to all members plus a rest.

    Examples
    --------
    >>> within = np.array([[1.0, 0.5], [0.5, 0.5]])  # an error of variance .25 about half of y
    >>> found = start_values(LevelMoments(np.array([2.0, 3.0]), within, within, within), 0.0, (), common_factor=False)
    >>> [np.round(found[name], 9).tolist() for name in ("truth_mean", "truth_sd", "slope", "error_sd", "bias")]
    [2.0, 1.0, [0.5], [0.5], [2.0]]
    """
    values: dict[str, Any] = {"truth_mean": moments.mean[0]}

    def level(covariance: np.ndarray, truth: str, slope: str, error: str, sd: str) -> None:
        values[truth] = np.sqrt(covariance[0, 0])
        values[slope] = covariance[0, 1:] / covariance[0, 0]
        rest = covariance[1:, 1:] - covariance[0, 0] * np.outer(values[slope], values[slope])
        values[sd] = np.sqrt(np.diag(rest))
        correlation = rest / values[sd] / values[sd][:, None]
        if common_factor:
            values[f"{error}_common"], correlation = split_correlation(correlation)
        values[f"{error}_rest"] = np.linalg.cholesky(correlation)

    level(moments.within, "truth_sd", "slope", "residual", "error_sd")
    for name in levels:
        level(getattr(moments, name), f"truth_{name}_sd", f"slope_{name}", f"bias_{name}", f"bias_{name}_sd")
    slope, sd = values["slope"], values["error_sd"]
    values["slope_mean"], values["error_sd_mean"] = slope.mean(), np.exp(np.log(sd).mean())
    values["slope_rest"] = slope - values["slope_mean"]
    values["error_sd_rest"] = np.log(sd / values["error_sd_mean"])
    values["bias"] = moments.mean[1:] - center - slope * (moments.mean[0] - center)
    return {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}


def _pooled(weight: np.ndarray, mean: np.ndarray, unit: np.ndarray, units: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (unit, column) and weighted means (unit, column); a mean without weight is zero."""
    total, product = np.zeros((units, mean.shape[1])), np.zeros((units, mean.shape[1]))
    np.add.at(total, unit, weight)
    np.add.at(product, unit, weight * mean)
    return total, np.divide(product, total, out=np.zeros_like(product), where=total > 0)


def _within(data: Statistics, present: np.ndarray) -> np.ndarray:
    """Covariance of rows about the mean of their cell, or half of that about the mean of all where cells have one row."""
    both = data.pattern[:, :, None] & data.pattern[:, None, :]
    inside = np.sum(both * data.scatter, axis=0)
    freedom = np.einsum("c,ci,cj->ij", np.maximum(data.n - 1.0, 0.0), present, present)
    pairs = np.einsum("c,ci,cj->ij", data.n, present, present)
    away = present * (data.mean - _pooled(data.n[:, None] * present, data.mean, np.zeros(len(data.n), dtype=int), 1)[1])
    whole = (inside + np.einsum("c,ci,cj->ij", data.n, away, away)) / np.maximum(pairs, 1.0)
    enough = freedom.min() > 2 * present.shape[1]
    return np.asarray(inside / freedom if enough else 0.5 * whole) + np.diag(1e-6 * np.diag(whole))


def _between(mean: np.ndarray, n: np.ndarray, about: np.ndarray, parents: int) -> np.ndarray:
    """Covariance of units' means about their parents'; those of ``n = 0`` are missing."""
    seen = (n > 0).astype(float)
    away = seen * (mean - about)
    return np.asarray(away.T @ away / np.maximum(seen.T @ seen - parents, 1.0))


def _left(n: np.ndarray) -> np.ndarray:
    """Share of a covariance that the mean of ``n (unit, column)`` things still has, on average over units."""
    root = np.sqrt(np.divide(1.0, n, out=np.zeros_like(n), where=n > 0))
    return np.asarray(root.T @ root / np.maximum((n > 0).astype(float).T @ (n > 0), 1.0))


def _proper(covariance: np.ndarray, size: np.ndarray, units: int) -> np.ndarray:
    """The nearest covariance with no eigenvalue below a small one, in units of the columns, towards independence."""
    scaled = covariance / size / size[:, None]
    share = len(size) / (len(size) + units)
    values, vectors = np.linalg.eigh((1.0 - share) * scaled + share * np.diag(np.maximum(np.diag(scaled), LEAST)))
    return np.asarray((vectors * np.maximum(values, LEAST)) @ vectors.T * size * size[:, None])
