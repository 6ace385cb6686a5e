"""The optimum of a mixture around corrected members, whose widths follow the rows, by expectation-maximisation.

Weights and sigmas have the steps of :mod:`bayesens.likelihoods.em`, with squares in units of each row's width; the
coefficients of the log widths take a scoring step, whose information matrix is 2 X'X whatever the responsibilities are, and so
does log(nu - 2) of t kernels, whose information is that of a t with known location and scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from bayesens.likelihoods.corrected.starts import WIDER
from bayesens.likelihoods.em import (
    LARGEST_STEP,
    PARTS,
    PATIENCE,
    ROWS_FOR_THREADS,
    TINY,
    Optimum,
    Steps,
    climb,
    distinct,
    newton,
)

if TYPE_CHECKING:
    from bayesens.likelihoods.corrected.mixture import CorrectedRows

__all__ = ["Penalty", "corrected_em", "corrected_em_starts"]

STEP = 0.5  # by how much a scoring step may change a coefficient of the widths, or a logarithm of sigma
LARGEST_SLOPE = 30.0  # of such a coefficient
FIRST_TAIL = 8.0  # nu - 2 of t kernels at the start
PARAMETERS_FOR_NEWTON = 60  # parameters: the Hessian costs two passes a parameter
ROWS_FOR_STARTS, MEMBERS_FOR_ONE_START = (
    3_000,
    20,
)  # members, with which the standard start is enough: their kernels hardly differ


@dataclass(frozen=True)
class Penalty:
    """Log densities that are added to the likelihood: those of the priors in the coordinates in which a posterior is sampled.

    The optimum is then the point around which `method="auto"` approximates the posterior: logarithms of weights and sigmas.

    Attributes
    ----------
    concentration : array (cluster)
        Of the Dirichlet prior of the clusters' weights.
    center, between, spread : float
        log sigma_mean ~ Normal(center, between), log sigma ~ Normal(log sigma_mean, spread).
    width, width_mean : float
        Standard deviation and mean of the widths' coefficients.
    tail : tuple of float
        Shape and rate of the Gamma prior of nu - 2, where kernels are t.
    """

    concentration: np.ndarray
    center: float
    between: float
    spread: float
    width: float
    tail: tuple[float, float] = (2.0, 0.1)
    width_mean: float = 0.0

    def sigma(self, log_sigma: np.ndarray, *, shared: bool) -> tuple[float, np.ndarray, float]:
        """Log density of log sigmas with their mean at its best, its gradient, and the curvature of one."""
        if shared:
            apart = log_sigma[:1] - self.center
            return -0.5 * float(apart @ apart) / self.between**2, -apart / self.between**2, 1.0 / self.between**2
        within, outside = len(log_sigma) / self.spread**2, 1.0 / self.between**2
        mean = (log_sigma.sum() / self.spread**2 + self.center * outside) / (within + outside)
        apart = log_sigma - mean
        value = -0.5 * float(apart @ apart) / self.spread**2 - 0.5 * (mean - self.center) ** 2 * outside
        return value, -apart / self.spread**2, 1.0 / self.spread**2


class WidthSteps(Steps):
    """EM steps; behind the variances stand the exponentials of twice the widths' coefficients, and of twice log(nu - 2)."""

    def __init__(
        self, rows: CorrectedRows, cluster: np.ndarray, *, shared: bool, fixed_weight: bool, penalty: Penalty | None,
        student: bool = False,
    ) -> None:  # fmt: skip
        available = rows.available
        self.data, self.penalty = rows, penalty
        self.pattern, self.count = available[:1], np.array([len(available)])
        if not available.all():
            self.pattern, self.count = np.unique(available, axis=0, return_counts=True)
        self.of_cluster = np.equal.outer(np.arange(cluster.max() + 1), cluster).astype(float)
        self.first = np.argmax(self.of_cluster, axis=1)
        self.cluster, self.shared, self.fixed_weight, self.student = cluster, shared, fixed_weight, student
        self.parts = PARTS if len(available) >= ROWS_FOR_THREADS else 1
        self.rows, self.passes, self.members = len(available), 0, available.shape[1]
        information = 2.0 * rows.x.T @ rows.x
        if penalty is not None:
            information = information + np.eye(len(information)) / penalty.width**2
        self.information = np.linalg.pinv(information) if len(information) else information
        size = len(self.of_cluster)
        self.concentration = np.zeros(size) if penalty is None or fixed_weight else penalty.concentration

    def evaluate(
        self, weight: np.ndarray, scales: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Objective; responsibilities, presence and gradient by log sigma of each cluster; gradient by widths and log(nu - 2).

        Responsibilities have the prior's counts with them, and presence their sum.
        """
        from bayesens.likelihoods.corrected.mixture import by_parts  # loads numba: nothing that only reads a fit should

        k = self.members
        logs = 0.5 * np.log(scales)
        above = np.exp(logs[-1:] if self.student else logs[:0])
        widths = logs[k : len(logs) - len(above)]
        theta = np.concatenate([[self.student], np.log(np.maximum(weight, TINY)), logs[:k], widths, 2.0 + above])
        self.passes += 1
        total = by_parts(theta, self.data, self.parts)
        there = np.maximum(self.pattern @ weight, TINY)
        value = float(total[0] - self.count @ np.log(there))
        presence = self.pattern.T @ (self.count / there) + self.concentration.sum()
        shares = self.of_cluster @ total[1 : 1 + k]
        by_sigma, by_width = self.of_cluster @ total[1 + k : 1 + 2 * k], total[1 + 2 * k :]
        if self.student:
            by_width[-1] *= above[0]
        if self.shared:
            by_sigma = by_sigma.sum(keepdims=True)
        if self.penalty is not None:
            own = self.of_cluster @ weight
            value += float(self.concentration @ np.log(np.maximum(own, TINY)))
            prior, gradient, _ = self.penalty.sigma(logs[:k][self.first], shared=self.shared)
            apart = widths - self.penalty.width_mean
            value += prior - 0.5 * float(apart @ apart) / self.penalty.width**2
            by_sigma = by_sigma + gradient
            by_width[: len(widths)] -= apart / self.penalty.width**2
            if self.student:
                shape, rate = self.penalty.tail
                value += float(shape * logs[-1] - rate * above[0])
                by_width[-1] += shape - rate * above[0]
        return value, shares, presence, by_sigma, by_width

    def __call__(self, weight: np.ndarray, scales: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Objective here, and the weights and scales of the next step."""
        value, shares, presence, by_sigma, by_width = self.evaluate(weight, scales)
        if not self.fixed_weight:
            weight = ((shares + self.concentration) / (self.of_cluster @ presence))[self.cluster]
            weight = weight / weight.sum()
        counts = shares.sum(keepdims=True) if self.shared else shares
        if self.penalty is not None:
            counts = counts + 0.5 * self.penalty.sigma(np.zeros(len(counts)), shared=self.shared)[2]
        some = counts > 1e-12
        # Of uncensored rows without a prior this factor is that of EM: the mean of the squares, weighted by responsibilities.
        factor = np.maximum(np.where(some, 1.0 + by_sigma / np.where(some, counts, 1.0), 1.0), 0.0)
        if self.penalty is not None:
            factor = np.clip(factor, np.exp(-2.0 * STEP), np.exp(2.0 * STEP))
        step = self.information @ by_width[: len(self.information)]
        if self.student:
            step = np.append(step, by_width[-1] / self.tail_information(np.sqrt(scales[-1])))
        step = np.clip(step, -STEP, STEP)
        own = factor[0] * np.ones(self.members) if self.shared else factor[self.cluster]
        return value, weight, np.concatenate([scales[: self.members] * own,
                                              scales[self.members :] * np.exp(2.0 * step)])  # fmt: skip

    def tail_information(self, above: float) -> float:
        """Of log(nu - 2): that of the rows, were their kernels known, and the prior's."""
        nu = 2.0 + above
        one = 0.25 * (scipy.special.polygamma(1, 0.5 * nu) - scipy.special.polygamma(1, 0.5 * (nu + 1.0)))
        one -= (nu + 5.0) / (2.0 * nu * (nu + 1.0) * (nu + 3.0))
        prior = 1e-8 * self.rows if self.penalty is None else self.penalty.tail[1] * above
        return float(self.rows * max(one, 0.0) * above**2 + prior)

    def moved(self, before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]) -> float:
        """By how much a step changed weights, logarithms of variances as far as their member counts, and widths."""
        share = np.concatenate([after[0], np.ones(len(after[1]) - self.members)])
        scale = float(np.max(share * np.abs(np.log(after[1] / before[1]))))
        return max(float(np.max(np.abs(after[0] - before[0]))), scale)

    def leap(self, weight: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Quasi-Newton steps from a point."""
        first = self.first
        clusters = 0 if self.fixed_weight else len(first)
        sigmas = 1 if self.shared else len(first)
        log_weight, log_scale = np.log(np.maximum(weight[first], TINY)), np.log(scales)

        def point(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            w = np.exp((log_weight + u[:clusters])[self.cluster]) if clusters else weight
            own = (log_scale[: self.members][first] + u[clusters : clusters + sigmas])[self.cluster]
            widths = log_scale[self.members :] + u[clusters + sigmas :]
            return w / w.sum(), np.exp(np.concatenate([own, np.clip(widths, -LARGEST_SLOPE, LARGEST_SLOPE)]))

        def negative(u: np.ndarray) -> tuple[float, np.ndarray]:
            w, s = point(u)
            value, shares, presence, by_sigma, by_width = self.evaluate(w, s)
            if not np.isfinite(value):
                return 1e300, np.zeros_like(u)
            by_weight = shares + self.concentration - self.of_cluster @ (w * presence)
            return -value / self.rows, -np.concatenate(
                [by_weight[:clusters], 0.5 * by_sigma, 0.5 * by_width]
            ) / self.rows

        size = clusters + sigmas + len(scales) - self.members
        options = {"maxiter": 200, "maxcor": 20, "ftol": 0.0, "gtol": 1e-9}
        u = scipy.optimize.minimize(
            negative,
            np.zeros(size),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-LARGEST_STEP, LARGEST_STEP)] * size,
            options=options,
        ).x
        return point(u + newton(lambda v: negative(v)[1], u) if size <= PARAMETERS_FOR_NEWTON else u)


def corrected_em(
    rows: CorrectedRows, *, weight: np.ndarray, sigma: np.ndarray, cluster: np.ndarray, shared: bool,
    fixed_weight: bool = False, floor: float = 0.0, penalty: Penalty | None = None, student: bool = False,
    tolerance: float = 1e-10, max_iterations: int = 100_000, patience: int = PATIENCE, start: str = "standard",
) -> Optimum:  # fmt: skip
    """Maximise the likelihood, or the posterior density, from one start.

    Parameters
    ----------
    rows : CorrectedRows
    weight, sigma : array (member)
        The start; that of the widths is none.
    cluster : int array (member)
        Members of one cluster share weight and sigma.
    shared, fixed_weight : bool
        Whether all members share sigma; whether the weights stay where they are.
    floor : float
        Standard deviation of rounding, where observations tie with members: sigma ends at about that or above.
    penalty : Penalty, optional
        Log densities that are added; None for maximum likelihood.
    student : bool
        Whether kernels are t, with degrees of freedom that are estimated too.
    tolerance : float
        Relative change of the objective at which the search ends, once weights, scales and widths stand still too.
    max_iterations : int
        Passes over the rows.
    patience : int
        Steps of EM before quasi-Newton steps are tried.
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
    if floor > 0.0:  # rounding adds its variance to every square, which bounds the likelihood
        away = np.hypot(rows.residual, floor * np.sqrt(1.0 + rows.excess))
        rows = replace(rows, residual=np.where(rows.censored[:, None], rows.residual, away))
    step = WidthSteps(
        rows, np.asarray(cluster), shared=shared, fixed_weight=fixed_weight, penalty=penalty, student=student
    )
    tail = [FIRST_TAIL**2] if student else []
    begin = np.concatenate([np.asarray(sigma, dtype=float) ** 2, np.ones(rows.x.shape[1]), tail])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        w, scales, loglik, iterations, converged = climb(
            step, np.array(weight, dtype=float), begin, tolerance, max_iterations, patience
        )
    found, width = np.sqrt(scales[: len(w)]), 0.5 * np.log(scales[len(w) : len(w) + rows.x.shape[1]])
    if not np.isfinite(loglik) or not np.all(found > 0.0):
        raise ValueError(
            "The likelihood has no maximum: a member reproduces observations exactly and its sigma goes to zero. "
            "Use sigma='shared', or method='nuts', whose prior bounds sigma."
        )
    plain = WidthSteps(
        rows, np.asarray(cluster), shared=shared, fixed_weight=fixed_weight, penalty=None, student=student
    )
    nu = 2.0 + float(np.sqrt(scales[-1])) if student else None
    return Optimum(w, found, plain.evaluate(w, scales)[0], int(iterations), bool(converged), start, width, nu)


def corrected_em_starts(
    rows: CorrectedRows, *, cluster: np.ndarray, shared: bool, fixed_weight: bool = False, floor: float = 0.0,
    penalty: Penalty | None = None, student: bool = False, starts: int = 12, seed: int = 0, tolerance: float = 1e-10,
) -> list[Optimum]:  # fmt: skip
    """Run EM from the standard start, and where sigmas differ from a few others: with one wide kernel, then at random.

    A quarter of the starts asked for is tried, and none with more than 20 members.

    Returns
    -------
    list of Optimum
        The standard start's first, then each other optimum, best first.
    """
    k = rows.residual.shape[1]
    squares = np.where(rows.available, rows.residual**2 / (1.0 + rows.excess), 0.0)
    best = np.sqrt(np.min(squares.sum(axis=0) / rows.available.sum(axis=0)))
    equal = np.full(k, 1.0 / k)
    common: dict[str, Any] = {"cluster": cluster, "shared": shared, "fixed_weight": fixed_weight,
               "floor": floor, "penalty": penalty, "student": student, "tolerance": tolerance}  # fmt: skip
    standard = corrected_em(rows, weight=equal, sigma=np.full(k, best), **common)
    # With one sigma for all, and complete rows, the log likelihood is concave in the weights at any sigma and width.
    more = 0 if k == 1 or k > MEMBERS_FOR_ONE_START or shared or fixed_weight else -(-starts // 4)
    rng, found = np.random.default_rng(seed), [standard]
    some = _some(rows, rng)
    wide = _wide(some, best, np.asarray(cluster)) if more else []
    for i in range(more):
        sigma = best * np.exp(rng.uniform(np.log(0.05), np.log(1.5), size=cluster.max() + 1))[cluster]
        point: dict[str, Any] = {"weight": rng.dirichlet(np.ones(k)), "sigma": sigma, "start": f"random {i + 1}"}
        if i < len(wide):
            point = {"weight": equal, "sigma": wide[i], "start": f"one wide kernel {i + 1}"}
        try:
            tried = corrected_em(some, **point, **common)
            if some is not rows:
                point |= {"weight": 0.99 * tried.weight + 0.01 / k, "sigma": tried.sigma}
                tried = corrected_em(rows, **point, **common)
        except ValueError:
            continue  # a start that runs into the unbounded corner is no optimum
        found = distinct(found, [tried])
    return [standard, *sorted(found[1:], key=lambda o: -o.loglik)]


def _wide(rows: CorrectedRows, sigma: float, cluster: np.ndarray) -> list[np.ndarray]:
    """Sigmas of which one is wider, (member), those with the highest likelihood first; normal kernels tell them apart."""
    found = [np.where(cluster == c, WIDER, 1.0) * sigma for c in range(cluster.max() + 1)]
    squares = np.where(rows.available, rows.residual**2 / (1.0 + rows.excess), np.inf)
    loglik = [scipy.special.logsumexp(-0.5 * squares / s**2 - np.log(s), axis=1).sum() for s in found]
    return [found[i] for i in np.argsort(loglik)[::-1]]


def _some(rows: CorrectedRows, rng: np.random.Generator) -> CorrectedRows:
    """Rows of a large table on which other starts begin."""
    if len(rows.residual) <= ROWS_FOR_STARTS:
        return rows
    pick = np.sort(rng.choice(len(rows.residual), ROWS_FOR_STARTS, replace=False))
    return rows.select(pick)
