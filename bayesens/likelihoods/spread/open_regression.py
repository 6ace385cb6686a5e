"""Maximum likelihood of a regression in which some rows lack members: what these leave open follows the coefficients.

No part of the parameters is known given the rest, as it is where rows are complete; so the search is one over all of them, from
where they are best if what was filled in is taken for known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from bayesens.arithmetic import LOG_2PI

__all__ = ["LONGEST", "Found", "OpenRegression"]

LONGEST = 3.0  # of a width's coefficient; widths then differ by a factor of 400 between two typical rows
GRADIENT = 1e-6  # of the log density a row, below which the search has converged
EXACT = 1e-10  # of the largest, below which a direction of the columns is that of copies: coefficients stay there
SHARES = (0.05, 0.5)  # of the spread, from which it is searched beside the one that is given


@dataclass(frozen=True, eq=False)
class Found:
    """Parameters: coefficients, mean square, share of the spread over the most that it can be, and widths."""

    coefficient: np.ndarray
    square: float
    share: float
    slope: np.ndarray
    loglik: float = -np.inf
    passes: int = 0
    converged: bool = False


@dataclass(frozen=True, eq=False)
class OpenRegression:
    """``y_i ~ Normal(design_i c, (square (1 + part excess_i) + c' open_i c) exp(2 x_i slope))``.

    The part of the spread is a share of ``square / (square + floor)``, the most that it can be.

    Attributes
    ----------
    design : array (row, 1 + member)
        The first column is one.
    y, excess : array (row)
    x : array (row, covariate)
    low : bool array (row)
        Rows that only say that the value is below ``y``.
    floor : float
    pattern : int array (row)
    open : array (pattern, member, member)
    """

    design: np.ndarray
    y: np.ndarray
    excess: np.ndarray
    x: np.ndarray
    low: np.ndarray
    floor: float
    pattern: np.ndarray
    open: np.ndarray

    def loglik(self, c: np.ndarray, log_sd: float, share: float, slope: np.ndarray) -> tuple[float, np.ndarray]:
        """Log likelihood, and its derivatives by the parameters in their order."""
        square, move = np.exp(2.0 * log_sd), self.open @ c[1:]
        most = square / (square + self.floor)
        rest = 1.0 + share * most * self.excess
        inner = square * rest + (move @ c[1:])[self.pattern]
        sd = np.sqrt(inner) * np.exp(self.x @ slope)
        z = (self.y - self.design @ c) / sd
        value, by_mean, by_log_sd = -0.5 * z**2 - np.log(sd) - 0.5 * LOG_2PI, z / sd, z**2 - 1.0
        u, low = z[self.low], self.low
        value[low] = scipy.special.log_ndtr(u)
        hazard = np.exp(-0.5 * u**2 - 0.5 * LOG_2PI - value[low])
        by_mean[low], by_log_sd[low] = -hazard / sd[low], -u * hazard
        by_inner = 0.5 * by_log_sd / inner
        gradient = self.design.T @ by_mean
        gradient[1:] += 2.0 * np.bincount(self.pattern, by_inner, len(self.open)) @ move
        by_share = square * most * float(by_inner @ self.excess)
        by_size = 2.0 * square * float(by_inner @ rest) + 2.0 * share * (1.0 - most) * by_share
        return float(value.sum()), np.concatenate([gradient, [by_size, by_share], self.x.T @ by_log_sd])

    def search(self, start: Found, mean: float = 0.0, sd: float = np.inf, *, spread: bool = True) -> Found:
        """Find the best parameters under a normal prior of the widths; without ``spread`` its share stays at zero."""
        shares = (start.share, *SHARES) if spread else (0.0,)
        tried = [self._from(start, share, mean, sd, 1.0 if spread else 0.0) for share in shares]
        return max(tried, key=lambda one: one.loglik - _penalty(one.slope, mean, sd))

    def _from(self, start: Found, share: float, mean: float, sd: float, most: float) -> Found:
        n, k = self.design.shape
        _, size, right = np.linalg.svd(self.design, full_matrices=False)
        apart = size > EXACT * size[0]  # in orthogonal columns of one size all directions are alike
        back = right[apart].T / size[apart] * np.sqrt(n * start.square)
        j = back.shape[1]

        def parameters(u: np.ndarray) -> tuple[np.ndarray, float, float, np.ndarray]:
            return start.coefficient + back @ u[:j], u[j], u[j + 1], u[j + 2 :]

        def negative(u: np.ndarray) -> tuple[float, np.ndarray]:
            *_, slope = given = parameters(u)
            value, gradient = self.loglik(*given)
            gradient = np.concatenate([back.T @ gradient[:k], gradient[k:]])
            gradient[j + 2 :] -= (slope - mean) / sd**2
            return (_penalty(slope, mean, sd) - value) / n, -gradient / n

        first = np.concatenate([np.zeros(j), [0.5 * np.log(start.square), share], start.slope])
        bounds = [(None, None)] * (j + 1) + [(0.0, most)] + [(mean - LONGEST, mean + LONGEST)] * len(start.slope)
        result = scipy.optimize.minimize(negative, first, jac=True, method="L-BFGS-B", bounds=bounds,
                                   options={"maxiter": 1000, "ftol": 0.0, "gtol": 1e-10})  # fmt: skip
        low, high = np.array(bounds, dtype=float).T
        left = np.fmin(np.fmax(result.x - result.jac, low), high) - result.x
        c, log_sd, share, slope = parameters(result.x)
        loglik = self.loglik(c, log_sd, share, slope)[0]
        return Found(c, float(np.exp(2.0 * log_sd)), float(share), slope, loglik, int(result.nfev),
                     bool(np.max(np.abs(left)) <= GRADIENT))  # fmt: skip


def _penalty(slope: np.ndarray, mean: float, sd: float) -> float:
    """Minus the log density of the prior of the widths, up to a constant."""
    return float(0.5 * np.sum(((slope - mean) / sd) ** 2))
