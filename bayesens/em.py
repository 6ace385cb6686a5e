"""Raftery's fit of a normal mixture around fixed kernel means: expectation-maximisation for weights and sigma.

With missing members the usual step, the mean responsibility, rewards presence: of two equally good members the one that
is more often there takes all the weight. The exact step divides the responsibilities of a member by the sum, over the
rows that have it, of one over the weight present there; it maximises a minorant of the log likelihood and so never
lowers it. Raftery et al. (2005) give the fit, Fraley, Raftery and Gneiting (2010) the renormalised likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

__all__ = ["Optimum", "em", "em_starts", "least_squares"]


@dataclass(frozen=True)
class Optimum:
    """Where EM ended.

    Attributes
    ----------
    weight, sigma : array (member)
    loglik : float
    iterations : int
    converged : bool
    start : str
        Which start led here.
    """

    weight: np.ndarray
    sigma: np.ndarray
    loglik: float
    iterations: int
    converged: bool
    start: str


def least_squares(y: np.ndarray, f: np.ndarray, available: np.ndarray, *, bias: str,
                  cluster: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Bias correction of each member, ``a_k + b_k f_k``, by least squares over the rows that have it.

    Parameters
    ----------
    y : array (row)
    f, available : array (row, member)
    bias : {"linear", "additive", "none"}
    cluster : int array (member)
        Members of one cluster are exchangeable and share one regression.

    Returns
    -------
    intercept, slope : array (member)

    Examples
    --------
    >>> f = np.array([[1.0], [2.0], [3.0]])
    >>> a, b = least_squares(np.array([3.0, 5.0, 7.0]), f, np.isfinite(f), bias="linear", cluster=np.array([0]))
    >>> a.round(6).tolist(), b.round(6).tolist()
    ([1.0], [2.0])
    """
    intercept, slope = np.zeros(f.shape[1]), np.ones(f.shape[1])
    for c in np.unique(cluster) if bias != "none" else ():
        members = np.nonzero(cluster == c)[0]
        use = available[:, members]
        x, target = f[:, members][use], np.broadcast_to(y[:, None], use.shape)[use]
        if bias == "linear":
            slope[members] = np.sum((x - x.mean()) * (target - target.mean())) / np.sum((x - x.mean()) ** 2)
        intercept[members] = target.mean() - slope[members] * x.mean()
    return intercept, slope


@numba.njit(cache=True, nogil=True)
def _pass(squares, available, weight, variance, shares, scaled, presence):  # type: ignore[no-untyped-def]
    """One pass over the rows: sums of responsibilities, of them times squares, of 1/weight present; log likelihood."""
    n, k = squares.shape
    term = np.empty(k)
    log_w = np.log(np.maximum(weight, 1e-300)) - 0.5 * np.log(2.0 * np.pi * variance)
    half = 0.5 / variance
    shares[:], scaled[:], presence[:] = 0.0, 0.0, 0.0
    loglik = 0.0
    for i in range(n):
        top, present = -np.inf, 0.0
        for j in range(k):
            if available[i, j]:
                present += weight[j]
                term[j] = log_w[j] - half[j] * squares[i, j]
                top = max(top, term[j])
        mass = 0.0
        for j in range(k):
            if available[i, j]:
                term[j] = np.exp(term[j] - top)
                mass += term[j]
        # A row whose members all have weight zero says nothing about the weights: its density is left at their floor.
        present = max(present, 1e-300)
        loglik += top + np.log(mass) - np.log(present)
        for j in range(k):
            if available[i, j]:
                share = term[j] / mass
                shares[j] += share
                scaled[j] += share * squares[i, j]
                presence[j] += 1.0 / present
    return loglik


@numba.njit(cache=True, nogil=True)
def _em(squares, available, weight, variance, cluster, shared, fixed_weight, tolerance, max_iterations):  # type: ignore[no-untyped-def]
    k = len(weight)
    clusters = cluster.max() + 1
    shares, scaled, presence = np.empty(k), np.empty(k), np.empty(k)
    loglik = _pass(squares, available, weight, variance, shares, scaled, presence)
    for iteration in range(1, max_iterations + 1):
        sum_share, sum_scaled, sum_presence = np.zeros(clusters), np.zeros(clusters), np.zeros(clusters)
        for j in range(k):
            sum_share[cluster[j]] += shares[j]
            sum_scaled[cluster[j]] += scaled[j]
            sum_presence[cluster[j]] += presence[j]
        for j in range(k):
            c = cluster[j]
            if not fixed_weight:
                weight[j] = sum_share[c] / sum_presence[c]
            if shared:
                variance[j] = sum_scaled.sum() / sum_share.sum()
            elif sum_share[c] > 1e-12:
                variance[j] = sum_scaled[c] / sum_share[c]
        if not fixed_weight:
            weight /= weight.sum()
        if not variance.min() > 0.0:
            return np.inf, iteration, False
        previous = loglik
        loglik = _pass(squares, available, weight, variance, shares, scaled, presence)
        if abs(loglik - previous) <= tolerance * abs(loglik):
            return loglik, iteration, True
    return loglik, max_iterations, False


def em(squares: np.ndarray, available: np.ndarray, *, weight: np.ndarray, sigma: np.ndarray, cluster: np.ndarray,
       shared: bool, fixed_weight: bool = False, tolerance: float = 1e-10, max_iterations: int = 500_000,
       start: str = "standard") -> Optimum:  # fmt: skip
    """Maximise the likelihood of a normal mixture with known means from one start.

    Parameters
    ----------
    squares : array (row, member)
        Squared distances of the observation from the kernel means; anything finite where a member is missing.
    available : bool array (row, member)
    weight, sigma : array (member)
        The start.
    cluster : int array (member)
        Members of one cluster share weight and sigma.
    shared : bool
        Whether all members share sigma.
    fixed_weight : bool
        Leave the weights where they are.
    tolerance : float
        Relative change of the log likelihood at which the search ends.
    max_iterations : int
    start : str
        A name for the start.

    Returns
    -------
    Optimum

    Raises
    ------
    ValueError
        If a kernel collapses onto rows that its member reproduces exactly.
    """
    # In units of the best member's residuals, so that a change of units does not change where the search ends.
    unit = float(np.min(np.sum(squares * available, axis=0) / available.sum(axis=0)))
    unit = unit if unit > 0.0 else 1.0
    w, variance = np.array(weight, dtype=float), np.array(sigma, dtype=float) ** 2 / unit
    loglik, iterations, converged = _em(np.ascontiguousarray(squares / unit), np.ascontiguousarray(available), w, variance,
                                        cluster.astype(np.int64), shared, fixed_weight, tolerance, max_iterations)  # fmt: skip
    if not np.isfinite(loglik):
        raise ValueError(
            "The likelihood has no maximum: a member reproduces observations exactly and its sigma goes to zero. "
            "Use sigma='shared', or method='nuts', whose prior bounds sigma."
        )
    loglik -= 0.5 * len(squares) * np.log(unit)
    return Optimum(w, np.sqrt(variance * unit), float(loglik), int(iterations), bool(converged), start)


def em_starts(squares: np.ndarray, available: np.ndarray, *, cluster: np.ndarray, shared: bool, fixed_weight: bool = False,
              starts: int = 12, seed: int = 0, tolerance: float = 1e-10) -> list[Optimum]:  # fmt: skip
    """Run EM from the standard start and from several others.

    The standard start has equal weights and, for sigma, the standard deviation of the best member's residuals. The
    others spread the sigmas over a factor of about thirty and the weights over the simplex; a few short runs pick them.

    Returns
    -------
    list of Optimum
        The standard start's first, then each other optimum, best first. Ends are taken as one optimum when their log
        likelihoods differ by less than .01.
    """
    k = squares.shape[1]
    best = np.sqrt(np.min(np.sum(squares * available, axis=0) / available.sum(axis=0)))
    equal = np.full(k, 1.0 / k)
    common: dict[str, Any] = {"cluster": cluster, "shared": shared, "fixed_weight": fixed_weight}
    found = [em(squares, available, weight=equal, sigma=np.full(k, best), tolerance=tolerance, **common)]
    if (shared and bool(available.all())) or k == 1 or starts <= 0:
        # With one sigma for all, complete rows and known means the optimum in the weights is unique at any sigma.
        starts = 0 if k == 1 else min(starts, 2)
    rng = np.random.default_rng(seed)
    others: list[Optimum] = []
    for s in range(starts):
        spread = np.exp(rng.uniform(np.log(0.05), np.log(1.5), size=cluster.max() + 1))[cluster]
        weight = equal if fixed_weight else rng.dirichlet(np.ones(k))
        try:
            others.append(em(squares, available, weight=weight, sigma=best * (spread if not shared else spread[:1].repeat(k)),
                             tolerance=tolerance, start=f"random {s + 1}", **common))  # fmt: skip
        except ValueError:
            continue  # a start that runs into the unbounded corner is no optimum
    for optimum in sorted(others, key=lambda o: -o.loglik):
        if all(abs(optimum.loglik - o.loglik) >= 0.01 for o in found):
            found.append(optimum)
    return found
