"""Least squares under weights that are positive and sum to one, with members missing here and there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy

from bayesens.distributions.censored import censored_regression, expected_below
from bayesens.ensemble.rows import Rows

__all__ = ["LEAST_WEIGHT", "Pool", "normal_loglik", "regression", "row_means", "search_pool", "triangles"]

LEAST_WEIGHT = 1e-9  # of maximum likelihood: a row may have no member but those whose weight is best at zero
PASSES, STILL = 5000, 1e-10  # of expectation-maximisation around zeros: the most, and the least gain a row
NEAR = 0.01  # derivative of the log likelihood by the logarithm of a weight


def row_means(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Mean of each member, and of the observation, over the rows that have the member."""
    count = rows.available.sum(axis=0)
    return (rows.f * rows.available).sum(axis=0) / count, rows.y @ rows.available / count


def triangles(rows: Rows, center: float, patterns: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """For each pattern of missing members the triangular factor of its rows' ``(y - c, 1, f - c)``.

    It has the rows' sums of squares and products, and unlike these sums themselves loses no digits.
    """
    centred = np.where(rows.available, rows.f - center, 0.0)
    design = np.column_stack([rows.y - center, np.ones(len(rows.y)), centred])
    columns = design.shape[1]
    out = np.zeros((len(patterns), columns, columns))
    for q in range(len(patterns)):
        factor = np.linalg.qr(design[pattern == q], mode="r")
        out[q, : len(factor)] = factor
    return out


@dataclass(frozen=True)
class Pool:
    """The least-squares problem of simplex weights; slope and common bias follow from the weights.

    Attributes
    ----------
    present : bool array (pattern, member)
    target, member : array (pattern, row, member)
        Triangular factors of y less the members' mean observation, and of the members less their means.
    constant : array (pattern, row)
        That of one.
    n : int
        Training rows.
    bias : str
    """

    present: np.ndarray
    target: np.ndarray
    member: np.ndarray
    constant: np.ndarray
    n: int
    bias: str

    @classmethod
    def of(cls, rows: Rows, center: float, bias: str, y: np.ndarray | None = None) -> Pool:
        """Take the problem from training rows; ``bias`` is "linear", "additive" or "none", as `LinearPool` has it.

        Where ``y`` is given the weights are fitted to it, and the members' own biases are still those of the rows.
        """
        patterns, pattern = np.unique(rows.available, axis=0, return_inverse=True)
        triangle = triangles(rows if y is None else replace(rows, y=y), center, patterns, pattern.ravel())
        f_mean, y_mean = (mean - center if bias != "none" else np.zeros(rows.f.shape[1]) for mean in row_means(rows))
        constant = triangle[:, :, 1]
        target = triangle[:, :, :1] - constant[:, :, None] * y_mean
        return cls(patterns, target, triangle[:, :, 2:] - constant[:, :, None] * f_mean, constant, len(rows.y), bias)

    def _shares(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total = self.present @ weight
        return weight * self.present / total[:, None], total

    def _columns(self, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.einsum("prk,pk->pr", self.target, share), np.einsum("prk,pk->pr", self.member, share)

    def correction(self, weight: np.ndarray) -> tuple[float, float]:
        """The common bias and the slope that are best for given weights."""
        return self._correction(*self._columns(self._shares(weight)[0]))

    def biases(self, weight: np.ndarray, rows: Rows, center: float) -> tuple[np.ndarray, float]:
        """Bias of each member, and the slope, that are best for given weights."""
        common, slope = self.correction(weight)
        if self.bias == "none":
            return np.zeros(len(weight)), slope
        f_mean, y_mean = (mean - center for mean in row_means(rows))
        return common + slope * f_mean - y_mean, slope

    def _correction(self, target: np.ndarray, member: np.ndarray) -> tuple[float, float]:
        constant = self.constant.ravel()
        if self.bias == "none":
            return 0.0, 1.0
        if self.bias == "additive":
            return float(constant @ (member - target).ravel() / (constant @ constant)), 1.0
        design = np.column_stack([-constant, member.ravel()])
        common, slope = np.linalg.lstsq(design, target.ravel(), rcond=None)[0]
        return float(common), float(slope)

    def half_log_square(self, weight: np.ndarray) -> tuple[float, np.ndarray]:
        """Half the logarithm of the mean square under the best correction, and its gradient."""
        share, total = self._shares(weight)
        target, member = self._columns(share)
        common, slope = self._correction(target, member)
        residual = target + common * self.constant - slope * member
        square = float(np.sum(residual**2))
        by_share = np.einsum("pr,prk->pk", residual, self.target - slope * self.member) / square
        by_weight = self.present / total[:, None] * (by_share - np.sum(share * by_share, axis=1, keepdims=True))
        return 0.5 * float(np.log(square / self.n)), by_weight.sum(axis=0)

    def search(self, starts: int, seed: int, tolerance: float) -> tuple[np.ndarray, float, int, bool]:
        """Weights, mean square, iterations, and whether the best search converged."""
        k = self.present.shape[1]
        rng = np.random.default_rng(seed)
        more = 0 if self.present.all() else starts
        found = [
            scipy.optimize.minimize(
                self.half_log_square, point, jac=True, method="SLSQP", bounds=[(LEAST_WEIGHT, 1.0)] * k,
                constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like},
                options={"ftol": tolerance, "maxiter": 500},
            )
            for point in [np.full(k, 1.0 / k), *(rng.dirichlet(np.ones(k)) for _ in range(more))]
        ]  # fmt: skip
        best = min(found, key=lambda result: float(result.fun))
        weight = np.maximum(best.x, LEAST_WEIGHT)
        weight = weight / weight.sum()
        value, gradient = self.half_log_square(weight)
        # The search may end for rounding where no logarithm of a weight changes the log likelihood any more.
        converged = bool(best.success) or self.n * float(np.max(np.abs(weight * gradient))) <= NEAR
        return weight, float(np.exp(2.0 * value)), int(sum(result.nit for result in found)), converged


def search_pool(
    rows: Rows, center: float, bias: str, low: np.ndarray, *, starts: int, seed: int, tolerance: float
) -> tuple[Pool, np.ndarray, float, float, int, bool]:
    """Simplex weights of maximum likelihood, of rows some of which only say that the value is below zero.

    Where there are such, least squares is repeated with the values that these rows are expected to have, until the
    likelihood gains nothing: expectation-maximisation. Returned are the problem, which has the correction that belongs to the
    weights; weights, mean square, log likelihood, iterations, and whether they converged.
    """
    pool = Pool.of(rows, center, bias)
    weight, square, iterations, converged = pool.search(starts, seed, tolerance)
    if not low.any():
        return pool, weight, square, _at_best(square, len(rows.y)), iterations, converged
    y, loglik = rows.y.copy(), -np.inf
    for _ in range(PASSES):
        mean, sigma, previous = _mean(pool, weight, rows, center), float(np.sqrt(square)), loglik
        loglik = normal_loglik(rows.y - mean, sigma, low)
        if converged := loglik - previous <= STILL * len(y):
            break
        y[low], variance = expected_below(mean[low], sigma, 0.0)
        pool = Pool.of(rows, center, bias, y)
        weight, square, more, _ = pool.search(starts, seed, tolerance)
        square, iterations = square + float(variance.sum()) / len(y), iterations + more
    return pool, weight, square, loglik, iterations, converged


def _mean(pool: Pool, weight: np.ndarray, rows: Rows, center: float) -> np.ndarray:
    """The weighted mean of the corrected members in every row."""
    own, slope = pool.biases(weight, rows, center)
    share = weight * rows.available
    share = share / share.sum(axis=1, keepdims=True)
    return np.asarray(center + (share * (slope * (rows.f - center) - own)).sum(axis=1))


def regression(x: np.ndarray, y: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, float, float, int, bool]:
    """Coefficients, mean square, log likelihood, passes and whether they converged; by least squares if nothing is censored."""
    if low.any():
        found, sigma, loglik, converged = censored_regression(x, y, low)
        return found, sigma**2, loglik, 1, converged
    found = np.linalg.lstsq(x, y, rcond=None)[0]
    square = float(np.mean((y - x @ found) ** 2))
    return found, square, _at_best(square, len(y)), 1, True


def _at_best(square: float, n: int) -> float:
    return float(-0.5 * n * (np.log(2.0 * np.pi * square) + 1.0))


def normal_loglik(residual: np.ndarray, sigma: float, low: np.ndarray) -> float:
    """Log likelihood of residuals, or, where ``low``, of what lies below them."""
    # Written out: scipy.stats would take longer to load than the rest of a command that reads a fit.
    with np.errstate(divide="ignore", invalid="ignore"):  # residuals that are all zero have no sigma
        normal = -0.5 * np.square(residual[~low] / sigma) - np.log(sigma) - 0.5 * np.log(2.0 * np.pi)
    return float(normal.sum() + scipy.special.log_ndtr(residual[low] / sigma).sum())
