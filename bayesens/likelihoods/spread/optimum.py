"""Maximum likelihood of a regression whose variance is linear in a row's spread and log-linear in its covariates.

Given the share of the spread and the coefficients of the widths the variances are known up to a factor, and the rest is weighted
least squares. So the search is one over share and widths alone, whose gradient is that of the log likelihood at the best rest.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import scipy

from bayesens.likelihoods.em import Optimum
from bayesens.likelihoods.missing_members import Filled
from bayesens.likelihoods.priors import location_scale
from bayesens.likelihoods.simplex_regression import normal_loglik, regression
from bayesens.likelihoods.spread.open_regression import LONGEST, Found, OpenRegression
from bayesens.messages import warn

__all__ = ["Profile", "spread_optimum"]

LARGEST_SHARE = 1.0 - 1e-6  # a row whose members agree needs some variance
SHARES = np.linspace(0.0, 1.0, 21) ** 2 * LARGEST_SHARE  # where the likelihood is tried before the search
ROUNDS = 5  # of trying shares and of searching
GRADIENT = 1e-6  # of the log density a row, below which the search has converged
GAIN = 1e-9  # of the log likelihood a row, below which another share is no better
LOG_2PI = float(np.log(2.0 * np.pi))


def spread_optimum(
    model: Any, y: np.ndarray, filled: Filled, x: np.ndarray, low: np.ndarray, *, tolerance: float
) -> tuple[dict[str, Any], Optimum]:
    """Parameters of EMOS where its likelihood, with the prior of the widths' coefficients, is highest.

    ``y`` (row) are the observations, ``x`` (row, covariate) is what the widths follow, and ``low`` are rows that only say that
    the observation is below zero. The share is found to ``tolerance``.
    """
    floor = model.sigma_floor**2
    design, prior = np.column_stack([np.ones(len(y)), filled.f - model.center]), _prior_of_widths(model)
    profile = Profile(design, y - model.center, filled.spread / model.spread_scale**2 - 1.0, x, low, floor)
    found = profile.best(*prior, tolerance=tolerance)
    if not filled.complete.all():
        found = _with_open(profile, filled, found, *prior)
    square, share = found.square, found.share
    data: dict[str, Any] = {
        "intercept": ((), found.coefficient[0]), "linear_weight": ("member", found.coefficient[1:]),
        "sd": ((), np.sqrt(square)), "spread_share": ((), share * (1.0 + floor / square)),
        "sigma": ((), np.sqrt(square * (1.0 - share))), "spread": ((), np.sqrt(square * share) / model.spread_scale),
    }  # fmt: skip
    if x.shape[1]:
        data["scale_slope"] = ("scale_covariate", found.slope)
    none = np.ones(0)  # everything stands in the parameters
    return data, Optimum(none, none, found.loglik, found.passes, found.converged, "least squares")


def _with_open(profile: Profile, filled: Filled, known: Best, mean: float, sd: float) -> Best:
    """Search on, with the variance that missing members leave open."""
    parts = {item.name: getattr(profile, item.name) for item in fields(profile)}
    most = known.square / (known.square + profile.floor)
    start = Found(known.coefficient, known.square, min(known.share / most, 1.0), known.slope)
    found = OpenRegression(**parts, pattern=filled.pattern, open=filled.open).search(start, mean, sd)
    share = found.share * found.square / (found.square + profile.floor)
    return Best(found.coefficient, found.square, share, found.slope, found.loglik, known.passes + found.passes,
                found.converged)  # fmt: skip


def _prior_of_widths(model: Any) -> tuple[float, float]:
    """Mean and standard deviation of the widths' coefficients; those of the default for another family."""
    prior = model.scale_slope_prior
    if model.scale and prior.family != "Normal":
        warn(f"method='em' of EMOS knows Normal priors of the widths' coefficients alone, and takes the default in place of "
             f"scale_slope_prior={prior!r}. Use method='auto' for this prior.")  # fmt: skip
    return location_scale(model.known_prior("scale_slope_prior"))


@dataclass(frozen=True, eq=False)
class Best:
    """Where the likelihood, with the prior of the widths, is highest."""

    coefficient: np.ndarray
    square: float
    share: float
    slope: np.ndarray
    loglik: float
    passes: int
    converged: bool


@dataclass(frozen=True, eq=False)
class Profile:
    """Log likelihood of ``y_i ~ Normal(design_i coefficient, square (1 + share excess_i) exp(2 x_i slope))``.

    Attributes
    ----------
    design : array (row, column)
    y, excess : array (row)
    x : array (row, covariate)
        Of mean zero.
    low : bool array (row)
        Rows that only say that the value is below ``y``.
    floor : float
        What ``square (1 - share)`` is at least.
    """

    design: np.ndarray
    y: np.ndarray
    excess: np.ndarray
    x: np.ndarray
    low: np.ndarray
    floor: float

    def at(self, share: float, slope: np.ndarray) -> tuple[float, np.ndarray, float]:
        """Minus the mean log likelihood, coefficients and variance that are best for a share and widths."""
        root = self._root(share, slope)
        found, square, loglik, _, _ = regression(self.design / root[:, None], self.y / root, self.low)
        if square * (1.0 - share) < self.floor * share:
            square = self.floor * share / (1.0 - share)
            loglik = normal_loglik((self.y - self.design @ found) / root, np.sqrt(square), self.low)
        return float(np.log(root[~self.low]).sum() - loglik) / len(self.y), found, square

    def _root(self, share: float, slope: np.ndarray) -> np.ndarray:
        root = np.sqrt(1.0 + share * self.excess)
        return np.asarray(root * np.exp(self.x @ slope) if len(slope) else root)

    def gradient(self, share: float, slope: np.ndarray, coefficient: np.ndarray, square: float) -> np.ndarray:
        """Derivatives of the same by the share and the widths, at the best rest."""
        z = (self.y - self.design @ coefficient) / (self._root(share, slope) * np.sqrt(square))
        by_log_sd = z**2 - 1.0
        u = z[self.low]
        by_log_sd[self.low] = -u * np.exp(-0.5 * u**2 - 0.5 * LOG_2PI - scipy.special.log_ndtr(u))
        by_share = 0.5 * float(np.sum(by_log_sd * self.excess / (1.0 + share * self.excess)))
        # The variance is the best one, but where it is kept at the floor: there it moves with the share.
        if share > 0.0 and square * (1.0 - share) <= self.floor * share * (1.0 + 1e-12):
            by_share += 0.5 * float(by_log_sd.sum()) / (share * (1.0 - share))
        return -np.append(by_share, self.x.T @ by_log_sd) / len(self.y)

    def best(self, mean: float, sd: float, *, tolerance: float) -> Best:
        """Find the best share, and the best widths under normal priors of their coefficients, of this mean and ``sd``.

        Without widths the share is found to ``tolerance``.
        """
        none = np.full(self.x.shape[1], mean)
        share, passes, converged = self._share(none, tolerance)
        if not len(none):
            value, found, square = self.at(share, none)
            return Best(found, square, share, none, -len(self.y) * value, passes, converged)
        tried: list[Best] = []
        begin, slope = {share, 0.0}, none  # spread and mean may explain the same rows, each without the other
        for _ in range(ROUNDS):
            tried += [self._search(start, slope, mean, sd) for start in begin]
            best = max(tried, key=lambda one: one.loglik - _penalty(one.slope, mean, sd))
            again, more, _ = self._share(best.slope, tolerance)
            passes += more
            # With other widths another share may be best, far from where the search was.
            if self.at(best.share, best.slope)[0] - self.at(again, best.slope)[0] <= GAIN:
                break
            begin, slope = {again}, best.slope
        return replace(best, passes=passes + sum(one.passes for one in tried))

    def _share(self, slope: np.ndarray, tolerance: float) -> tuple[float, int, bool]:
        """The best share for given widths."""
        values = [self.at(share, slope)[0] for share in SHARES]
        best = int(np.argmin(values))
        low, high = SHARES[max(best - 1, 0)], SHARES[min(best + 1, len(SHARES) - 1)]
        result = scipy.optimize.minimize_scalar(lambda s: self.at(s, slope)[0], bounds=(low, high), method="bounded",
                                          options={"xatol": tolerance})  # fmt: skip
        share = float(result.x) if result.fun < values[best] else float(SHARES[best])
        return share, len(SHARES) + int(result.nfev), bool(result.success)

    def _search(self, share: float, slope: np.ndarray, mean: float, sd: float) -> Best:
        """Share and widths together, from where they are."""
        n = len(self.y)

        def negative(u: np.ndarray) -> tuple[float, np.ndarray]:
            value, found, square = self.at(u[0], u[1:])
            gradient = self.gradient(u[0], u[1:], found, square)
            gradient[1:] += (u[1:] - mean) / (sd**2 * n)
            return value + _penalty(u[1:], mean, sd) / n, gradient

        bounds = [(0.0, LARGEST_SHARE), *[(mean - LONGEST, mean + LONGEST)] * len(slope)]
        result = scipy.optimize.minimize(negative, np.append(share, slope), jac=True, method="L-BFGS-B", bounds=bounds,
                                   options={"maxiter": 500, "ftol": 0.0, "gtol": 1e-10})  # fmt: skip
        left = np.clip(result.x - result.jac, *np.transpose(bounds)) - result.x
        value, found, square = self.at(result.x[0], result.x[1:])
        converged = bool(np.max(np.abs(left)) <= GRADIENT)
        return Best(found, square, float(result.x[0]), result.x[1:], -n * value, int(result.nfev), converged)


def _penalty(slope: np.ndarray, mean: float, sd: float) -> float:
    """Minus the log density of the prior of the widths, up to a constant."""
    return float(0.5 * np.sum(((slope - mean) / sd) ** 2))
