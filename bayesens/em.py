"""Raftery's fit of a normal mixture around fixed kernel means: expectation-maximisation for weights and sigma.

With missing members the usual step, the mean responsibility, rewards presence: of two equally good members the one that
is more often there takes all the weight. The exact step divides the responsibilities of a member by the sum, over the
rows that have it, of one over the weight present there; it maximises a minorant of the log likelihood and so never
lowers it. Raftery et al. (2005) give the fit, Fraley, Raftery and Gneiting (2010) the renormalised likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesens.mixture import em_pass
from bayesens.threads import share_out

__all__ = ["Optimum", "em", "em_starts", "least_squares"]

TINY = 1e-300
PARTS, ROWS_FOR_THREADS = 8, 20_000


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


class _Steps:
    """EM steps on given squares, member by member; rows are shared out to threads in a fixed number of parts."""

    def __init__(self, squares: np.ndarray, available: np.ndarray, cluster: np.ndarray, *, shared: bool,
                 fixed_weight: bool) -> None:  # fmt: skip
        self.squares = np.ascontiguousarray(squares.T)
        self.pattern, self.count = available[:1], np.array([len(available)])
        self.available = np.zeros((0, 0))
        if not available.all():
            self.pattern, self.count = np.unique(available, axis=0, return_counts=True)
            self.available = np.ascontiguousarray(available.T, dtype=float)
        self.of_cluster = np.equal.outer(np.arange(cluster.max() + 1), cluster).astype(float)
        self.cluster, self.shared, self.fixed_weight = cluster, shared, fixed_weight
        self.parts = PARTS if len(squares) >= ROWS_FOR_THREADS else 1

    def __call__(self, weight: np.ndarray, variance: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Log likelihood here, and the weights and variances of the next step."""
        k = len(weight)
        constant = np.log(np.maximum(weight, TINY)) - 0.5 * np.log(2.0 * np.pi * variance)

        def run(part: slice) -> np.ndarray:
            out = np.empty(1 + 2 * k)
            em_pass(self.squares, self.available, constant, 0.5 / variance, part.start, part.stop, out)
            return out

        total = np.sum(share_out(run, self.squares.shape[1], self.parts), axis=0)
        # A row whose members all have weight zero says nothing about the weights: its density is left at their floor.
        there = np.maximum(self.pattern @ weight, TINY)
        loglik = float(total[0] - self.count @ np.log(there))
        shares, scaled = self.of_cluster @ total[1 : 1 + k], self.of_cluster @ total[1 + k :]
        presence = self.of_cluster @ (self.pattern.T @ (self.count / there))
        if not self.fixed_weight:
            weight = (shares / presence)[self.cluster]
            weight = weight / weight.sum()
        if self.shared:
            variance = np.full(k, scaled.sum() / shares.sum())
        else:
            some = shares > 1e-12
            variance = np.where(some, scaled / np.where(some, shares, 1.0), self.of_cluster @ variance /
                                self.of_cluster.sum(axis=1))[self.cluster]  # fmt: skip
        return loglik, weight, variance


def _climb(step: _Steps, weight: np.ndarray, variance: np.ndarray, tolerance: float,
           max_iterations: int) -> tuple[np.ndarray, np.ndarray, float, int, bool]:  # fmt: skip
    """EM until the log likelihood's relative change is within the tolerance."""
    loglik, *there = step(weight, variance)
    for iteration in range(1, max_iterations + 1):
        weight, variance = there
        if not np.min(variance) > 0.0:
            return weight, variance, np.inf, iteration, False
        previous = loglik
        loglik, *there = step(weight, variance)
        if abs(loglik - previous) <= tolerance * abs(loglik):
            return weight, variance, loglik, iteration, True
    return weight, variance, loglik, max_iterations, False


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
    step = _Steps(squares / unit, available, np.asarray(cluster), shared=shared, fixed_weight=fixed_weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        w, variance, loglik, iterations, converged = _climb(
            step, np.array(weight, dtype=float), np.array(sigma, dtype=float) ** 2 / unit, tolerance, max_iterations
        )
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
