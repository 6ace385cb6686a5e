"""Raftery's fit of a normal mixture around fixed kernel means: expectation-maximisation for weights and sigma.

With missing members the usual step, the mean responsibility, rewards presence: of two equally good members the one that
is more often there takes all the weight. The exact step divides the responsibilities of a member by the sum, over the
rows that have it, of one over the weight present there; it maximises a minorant of the log likelihood and so never
lowers it. Raftery et al. (2005) give the fit, Fraley, Raftery and Gneiting (2010) the renormalised likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from bayesens.threads import share_out

__all__ = ["Optimum", "Steps", "climb", "distinct", "em", "em_starts", "least_squares", "newton", "residual_sds"]

TINY = 1e-300
PARTS, ROWS_FOR_THREADS = 8, 10_000
PATIENCE, PATIENCE_NEAR = (
    20,
    2,
)  # steps of EM before quasi-Newton steps are tried: from anywhere, and from close to the optimum
ROWS_FOR_STARTS, ROWS_OF_MEMBER = 5_000, 100
LARGEST_STEP = 4.0  # by how much these may change logarithms
CHANGE_AT_END = 1e-8  # change of weights, and of logarithms of variances times the weight, at which EM ends


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
    width : array (covariate), optional
        Coefficients of log widths, where they follow the rows.
    nu : float, optional
        Degrees of freedom of t kernels.
    """

    weight: np.ndarray
    sigma: np.ndarray
    loglik: float
    iterations: int
    converged: bool
    start: str
    width: np.ndarray | None = None
    nu: float | None = None


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


def residual_sds(y: np.ndarray, f: np.ndarray, available: np.ndarray, *, bias: str, cluster: np.ndarray) -> np.ndarray:
    """Root mean squares of what :func:`least_squares` leaves of the rows that each member has, (member)."""
    intercept, slope = least_squares(y, f, available, bias=bias, cluster=cluster)
    squares = np.where(available, (y[:, None] - intercept - slope * f) ** 2, 0.0)
    return np.asarray(np.sqrt(squares.sum(axis=0) / available.sum(axis=0)))


class Steps:
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
        self.rows, self.passes = len(squares), 0

    def expect(self, weight: np.ndarray, variance: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Log likelihood; and of each cluster the responsibilities, them times the squares, and how often it is there."""
        from bayesens.likelihoods.mixture import em_pass  # loads numba: nothing that only reads a fit should

        k = len(weight)
        constant = np.log(np.maximum(weight, TINY)) - 0.5 * np.log(2.0 * np.pi * variance)

        def run(part: slice) -> np.ndarray:
            out = np.empty(1 + 2 * k)
            em_pass(self.squares, self.available, constant, 0.5 / variance, part.start, part.stop, out)
            return out

        self.passes += 1
        total = np.sum(share_out(run, self.squares.shape[1], self.parts), axis=0)
        # A row whose members all have weight zero says nothing about the weights: its density is left at their floor.
        there = np.maximum(self.pattern @ weight, TINY)
        loglik = float(total[0] - self.count @ np.log(there))
        presence = self.pattern.T @ (self.count / there)
        return loglik, self.of_cluster @ total[1 : 1 + k], self.of_cluster @ total[1 + k :], presence

    def __call__(self, weight: np.ndarray, variance: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Log likelihood here, and the weights and variances of the next step."""
        loglik, shares, scaled, presence = self.expect(weight, variance)
        if not self.fixed_weight:
            weight = (shares / (self.of_cluster @ presence))[self.cluster]
            weight = weight / weight.sum()
        if self.shared:
            variance = np.full(len(variance), scaled.sum() / shares.sum())
        else:
            some = shares > 1e-12
            variance = np.where(some, scaled / np.where(some, shares, 1.0), self.of_cluster @ variance /
                                self.of_cluster.sum(axis=1))[self.cluster]  # fmt: skip
        return loglik, weight, variance

    def moved(self, before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]) -> float:
        """By how much a step changed weights, and logarithms of variances as far as their member counts."""
        scale = float(np.max(after[0] * np.abs(np.log(after[1] / before[1]))))
        return max(float(np.max(np.abs(after[0] - before[0]))), scale)

    def leap(self, weight: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Quasi-Newton steps from a point: EM's gradient is that of the likelihood, and costs the same pass."""
        first = np.argmax(self.of_cluster, axis=1)
        clusters = 0 if self.fixed_weight else len(first)
        base = np.log(np.maximum(weight[first], TINY)), np.log(variance[first])

        def point(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            w = np.exp((base[0] + u[:clusters])[self.cluster]) if clusters else weight
            return w / w.sum(), np.exp((base[1] + u[clusters:])[self.cluster])

        def negative(u: np.ndarray) -> tuple[float, np.ndarray]:
            w, v = point(u)
            loglik, shares, scaled, presence = self.expect(w, v)
            by_weight = shares - self.of_cluster @ (w * presence)
            by_variance = 0.5 * (scaled / v[first] - shares)
            if self.shared:
                by_variance = np.array([by_variance.sum()])
            return -loglik / self.rows, -np.concatenate([by_weight[:clusters], by_variance]) / self.rows

        size = clusters + (1 if self.shared else len(first))
        bounds = [(-LARGEST_STEP, LARGEST_STEP)] * size
        options = {"maxiter": 100, "maxcor": 20, "ftol": 0.0, "gtol": 1e-9}
        u = scipy.optimize.minimize(
            negative, np.zeros(size), jac=True, method="L-BFGS-B", bounds=bounds, options=options
        ).x
        return point(u + newton(lambda u: negative(u)[1], u))


def newton(gradient: Callable[[np.ndarray], np.ndarray], u: np.ndarray) -> np.ndarray:
    """Newton's step to where a gradient is zero, along directions that are curved; none where it would be long.

    Close to an optimum it leaves nothing but rounding, which makes two ways to one optimum end at the same numbers.
    """
    steps = 1e-4 * np.eye(len(u))
    hessian = np.array([gradient(u + h) - gradient(u - h) for h in steps]) / 2e-4
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2.0)
    curved = values > 1e-7 * max(values.max(), 0.0)
    along = vectors[:, curved]
    step = -along @ ((along.T @ gradient(u)) / values[curved])
    return step if np.max(np.abs(step), initial=0.0) < 1e-3 else np.zeros_like(step)


def climb(step: Steps, weight: np.ndarray, variance: np.ndarray, tolerance: float, max_iterations: int,
           patience: int) -> tuple[np.ndarray, np.ndarray, float, int, bool]:  # fmt: skip
    """EM until neither the log likelihood nor the weights and scales change; where it is slow, quasi-Newton steps between.

    A plateau on which EM creeps changes the log likelihood by less than any tolerance: weights and the logarithms of
    variances must stand still too, but for those of members whose weight is going to zero.
    """
    loglik, *there = step(weight, variance)
    slow, leap_at = 0, patience
    while step.passes <= max_iterations:
        before, (weight, variance), previous = (weight, variance), there, loglik
        if not np.min(variance) > 0.0:
            return weight, variance, np.inf, step.passes, False
        loglik, *there = step(weight, variance)
        moved = step.moved(before, (weight, variance))
        if abs(loglik - previous) <= tolerance * abs(loglik) and moved <= CHANGE_AT_END:
            return weight, variance, loglik, step.passes, True
        slow += 1
        if slow == leap_at:
            point = step.leap(weight, variance)
            after, *following = step(*point)
            if after >= loglik:  # a likelihood without bound pulls to its corner; EM's own path decides
                (weight, variance), loglik, there = point, after, following
            slow, leap_at = 0, min(2 * leap_at, 1000)
    return weight, variance, loglik, step.passes, False


def em(squares: np.ndarray, available: np.ndarray, *, weight: np.ndarray, sigma: np.ndarray, cluster: np.ndarray,
       shared: bool, fixed_weight: bool = False, tolerance: float = 1e-10, max_iterations: int = 500_000,
       patience: int = PATIENCE, start: str = "standard") -> Optimum:  # fmt: skip
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
        Relative change of the log likelihood at which the search ends, once weights and scales stand still too.
    max_iterations : int
        Passes over the rows.
    patience : int
        Steps of EM before quasi-Newton steps are tried, twice as many before each next time.
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
    step = Steps(squares / unit, available, np.asarray(cluster), shared=shared, fixed_weight=fixed_weight)
    with np.errstate(divide="ignore", invalid="ignore"):
        w, variance, loglik, iterations, converged = climb(
            step,
            np.array(weight, dtype=float),
            np.array(sigma, dtype=float) ** 2 / unit,
            tolerance,
            max_iterations,
            patience,
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
    others spread the sigmas over a factor of about thirty and the weights over the simplex. Of a large table they are tried
    on 5,000 rows, and those that lead elsewhere there go on with all rows; the standard start goes by way of these rows if
    there are ten times as many.

    Returns
    -------
    list of Optimum
        The standard start's first, then each other optimum, best first. Ends are taken as one optimum when their log
        likelihoods differ by less than .01.
    """
    k = squares.shape[1]
    best = np.sqrt(np.min(np.sum(squares * available, axis=0) / available.sum(axis=0)))
    equal = np.full(k, 1.0 / k)
    common: dict[str, Any] = {
        "cluster": cluster,
        "shared": shared,
        "fixed_weight": fixed_weight,
        "tolerance": tolerance,
    }
    rng = np.random.default_rng(seed)
    some = _some_rows(available, rng)
    standard = _standard(squares, available, some, equal, np.full(k, best), common)
    if (shared and bool(available.all())) or k == 1 or starts <= 0:
        # With one sigma for all, complete rows and known means the optimum in the weights is unique at any sigma.
        starts = 0 if k == 1 else min(starts, 2)
    points = []
    for _ in range(starts):
        spread = np.exp(rng.uniform(np.log(0.05), np.log(1.5), size=cluster.max() + 1))[cluster]
        weight = equal if fixed_weight else rng.dirichlet(np.ones(k))
        points.append((weight, best * (spread if not shared else spread[:1].repeat(k))))
    names = [f"random {i + 1}" for i in range(starts)]
    if some is not None and starts:
        points, names = _promising(squares[some], available[some], points, names, standard, common)
        common["patience"] = PATIENCE_NEAR
    found = distinct([standard], _from_points(squares, available, points, names, common))
    return [standard, *sorted(found[1:], key=lambda o: -o.loglik)]


def _some_rows(available: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Rows of a large table on which starts are tried; None if it is not large, or if they hardly have some member."""
    if len(available) <= ROWS_FOR_STARTS:
        return None
    some = np.sort(rng.choice(len(available), ROWS_FOR_STARTS, replace=False))
    return some if available[some].sum(axis=0).min() >= ROWS_OF_MEMBER else None


def _standard(squares: np.ndarray, available: np.ndarray, some: np.ndarray | None, weight: np.ndarray, sigma: np.ndarray,
              common: dict[str, Any]) -> Optimum:  # fmt: skip
    """The standard start's optimum; of a very large table, by way of that of some rows, from which it is not far."""
    patience = PATIENCE
    if some is not None and len(squares) >= 10 * len(some):
        try:
            near = em(squares[some], available[some], weight=weight, sigma=sigma, **common)
        except ValueError:  # without bound on these rows, which need not be so on all
            pass
        else:
            (weight, sigma), patience = _beside(near), PATIENCE_NEAR
    return em(squares, available, weight=weight, sigma=sigma, patience=patience, **common)


def _from_points(squares: np.ndarray, available: np.ndarray, points: list[tuple[np.ndarray, np.ndarray]], names: list[str],
                 common: dict[str, Any]) -> list[Optimum]:  # fmt: skip
    out = []
    for (weight, sigma), name in zip(points, names, strict=True):
        try:
            out.append(em(squares, available, weight=weight, sigma=sigma, start=name, **common))
        except ValueError:
            continue  # a start that runs into the unbounded corner is no optimum
    return out


def distinct(found: list[Optimum], others: list[Optimum]) -> list[Optimum]:
    """Add the optima that are none of those found before."""
    for optimum in sorted(others, key=lambda o: -o.loglik):
        if all(abs(optimum.loglik - o.loglik) >= 0.01 for o in found):
            found = [*found, optimum]
    return found


def _promising(squares: np.ndarray, available: np.ndarray, points: list[tuple[np.ndarray, np.ndarray]], names: list[str],
               standard: Optimum, common: dict[str, Any]) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[str]]:  # fmt: skip
    """Of the starts, those that lead elsewhere than the standard one on some of the rows; and where they lead there."""
    here = em(squares, available, weight=standard.weight, sigma=standard.sigma, **common)
    found = distinct([here], _from_points(squares, available, points, names, common))[1:]
    return [_beside(o) for o in found], [o.start for o in found]


def _beside(optimum: Optimum) -> tuple[np.ndarray, np.ndarray]:
    """A start beside an optimum of other rows: no weight is zero, which EM would keep."""
    return 0.99 * optimum.weight + 0.01 / len(optimum.weight), optimum.sigma
