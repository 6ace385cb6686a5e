"""Log likelihood of one kernel around a weighted mean of corrected members, its gradient, and its optimum.

    y_i ~ Normal(c + stretch (sum_k w_k / W_i c_ik - c), sigma^2 exp(2 x_i' width) (1 + q_i))    W_i = sum of the weights present

The corrected members c_ik are given, and so is q_i, by which what is open of the corrections widens the kernel: a row enters by
its differences y_i - c_ik and y_i - c over sqrt(1 + q_i), of which its residual is a mean with a share of ``stretch``. An
observation that is only known to lie at zero or below (a square root's zero) has the probability of that in place of the density.

The kernel is normal, or a Student's t with ``nu`` degrees of freedom, whose scale is then what is a normal's standard deviation.
Parameters stand end to end: log weights, coefficients of the widths, log sigma, stretch, and nu of a t.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np
import xarray as xr
from scipy import optimize

from bayesens.c_functions import INNER, kernel
from bayesens.distributions.special import digamma, log_ndtr, log_t_constant
from bayesens.ensemble.rows import Rows
from bayesens.likelihoods.corrected.mixture import STEEP, CorrectedRows
from bayesens.likelihoods.corrected.own_correction import CorrectedTable
from bayesens.likelihoods.corrected.posterior import point_correction
from bayesens.likelihoods.em import Optimum, newton
from bayesens.likelihoods.mixture import LOG_2PI
from bayesens.likelihoods.priors import location_scale
from bayesens.likelihoods.simplex_regression import Pool

__all__ = ["PoolPenalty", "PooledRows", "best_pool", "open_shares", "pool_optimum", "pooled_packed", "standing"]

LONGEST = 30.0  # by how much a logarithm may leave its start
FIRST_TAIL = 8.0  # nu - 2 of a t kernel at the start
GRADIENT = 1e-6  # of the objective of a row, at which the search has converged


@dataclass(frozen=True, eq=False)
class PooledRows:
    """What the pool takes from its training rows.

    Attributes
    ----------
    distance : array (row, member)
        ``(y - c) / sqrt(1 + q)``; zero where a member is missing.
    apart : array (row)
        ``(y - center) / sqrt(1 + q)``.
    open : array (row)
        q, the share by which what is open of the corrections widens the kernel.
    rows : CorrectedRows
        The members one by one.
    """

    distance: np.ndarray
    apart: np.ndarray
    open: np.ndarray
    rows: CorrectedRows

    @classmethod
    def of(cls, table: CorrectedTable) -> PooledRows:
        """Take them from corrected members."""
        rows = table.mixture
        q = open_shares(rows.excess, rows.available, standing(table))
        root = np.sqrt(1.0 + q)
        distance = np.where(rows.available, rows.residual, 0.0) / root[:, None]
        return cls(distance, (table.rows.y - table.model.center) / root, q, rows)

    @cached_property
    def packed(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and counts for the kernel, censored rows first; last the constant of the log likelihood."""
        order, available, censored = self.rows.order, self.rows.available, self.rows.censored
        missing = not available.all()
        parts = [self.distance[order], self.rows.x[order], self.apart[order]] + ([available[order]] if missing else [])
        constant = -0.5 * float(np.sum(np.log1p(self.open[~censored]) + LOG_2PI))
        n, k = self.distance.shape
        data = np.concatenate([*(np.ravel(part) for part in parts), [constant]]).astype(float)
        return data, np.array([n, k, self.rows.x.shape[1], missing, censored.sum()], dtype=np.int64)


def standing(table: CorrectedTable) -> np.ndarray:
    """Weights of least squares around the corrected members, by which their open shares are averaged, (member)."""
    seen = ~table.mixture.censored
    if table.n_members == 1 or not seen.any():
        return np.full(table.n_members, 1.0 / table.n_members)
    rows = table.rows
    known = Rows(rows.y[seen], table.corrected[seen], rows.available[seen], rows.index[seen])
    bias = "linear" if table.model.bias == "linear" else "none"  # with a slope, as the pool has its stretch
    return Pool.of(known, table.model.center, bias).search(starts=0, seed=0, tolerance=1e-12)[0]


def open_shares(share: np.ndarray, available: np.ndarray, standing: np.ndarray) -> np.ndarray:
    """The members' open shares of each row averaged over those that it has, (row).

    Where sites stand to residuals in the same way for all members, each member's correction at a site is the same linear
    function of its residuals there, and so the pool's is that of its own: the share is then exact, however the members'
    errors hang together. ``standing`` is fixed and no parameter, so that no weight is paid for widening its kernel.
    """
    weight = np.where(available, standing, 0.0)
    total = weight.sum(axis=1)
    return np.asarray((weight * np.where(available, share, 0.0)).sum(axis=1) / np.where(total > 0.0, total, 1.0))


@INNER
def _row(theta, data, i, n, k, p, missing, share):  # type: ignore[no-untyped-def]
    """Distance of the observation from the pool, log width, and the members' shares; ``theta`` begins with weights."""
    total, distance, eta = 0.0, 0.0, theta[k + p]
    for j in range(k):
        share[j] = theta[j]
        if missing:
            share[j] *= data[n * (k + p + 1) + i * k + j]
        total += share[j]
    for j in range(k):
        share[j] /= total
        distance += share[j] * data[i * k + j]
    for c in range(p):
        eta += theta[k + c] * data[n * k + i * p + c]
    return distance, min(max(eta, -STEEP), STEEP)


@INNER
def _one(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Log likelihood at ``theta``; its gradient goes into ``out``."""
    n, k, p, missing, censored = index[0], index[1], index[2], index[3] > 0, index[4]
    point, share, log_weight, stretch = theta.copy(), np.empty(k), -np.inf, theta[k + p + 1]
    student = len(theta) > k + p + 2
    nu = theta[k + p + 2] if student else np.inf
    height, by_height = 0.0, 0.0
    if student:
        height = log_t_constant(nu)
        by_height = 0.5 * (digamma(0.5 * (nu + 1.0)) - digamma(0.5 * nu) - 1.0 / nu)
    for j in range(k):
        log_weight = max(log_weight, theta[j])
    for j in range(k):  # a row may have none but members whose weight is next to nothing
        point[j] = np.exp(max(theta[j] - log_weight, -STEEP))
    out[:] = 0.0
    value = data[-1]
    for i in range(n):
        distance, eta = _row(point, data, i, n, k, p, missing, share)
        apart = data[n * (k + p) + i]
        t = (apart + stretch * (distance - apart)) * np.exp(-eta)
        if i < censored:
            log_mass = log_ndtr(t)
            value += log_mass
            pull = np.exp(-0.5 * t * t - 0.5 * LOG_2PI - log_mass)
            by_eta = -pull * t
        elif student:
            far, heavy = np.log1p(t * t / nu), (nu + 1.0) / (nu + t * t)
            value += height - eta - 0.5 * (nu + 1.0) * far
            pull, by_eta = -heavy * t, heavy * t * t - 1.0
            out[k + p + 2] += by_height + 0.5 * (heavy * t * t / nu - far)
        else:
            value -= eta + 0.5 * t * t
            pull, by_eta = -t, t * t - 1.0
        pull *= np.exp(-eta)
        for j in range(k):
            out[j] += pull * stretch * share[j] * (data[i * k + j] - distance)
        out[k + p] += by_eta
        out[k + p + 1] += pull * (distance - apart)
        for c in range(p):
            out[k + c] += by_eta * data[n * k + i * p + c]
    if np.isfinite(value):
        return value
    out[:] = 0.0
    return -np.inf


def pooled_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Value and gradient for a C function, from and into flat arrays: 3 for a t and else 2, then the parameters."""
    n, k, p = index[0], index[1], index[2]
    size = k + p + int(numba.carray(theta, 1)[0])
    out = numba.carray(out, 1 + size)
    columns = k + p + 1 + (k if index[3] > 0 else 0)
    out[0] = _one(
        numba.carray(theta, 1 + size)[1:], numba.carray(data, n * columns + 1), numba.carray(index, 5), out[1:]
    )


@kernel
def pooled_value(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Log likelihood; its gradient goes into ``out``."""
    return _one(theta, data, index, out)


# ---------------------------------------------------------------------------------------------------------- the optimum
@dataclass(frozen=True)
class PoolPenalty:
    """Log densities that are added: those of the priors in the coordinates in which a posterior is sampled.

    Attributes
    ----------
    concentration : array (member)
        Of the Dirichlet prior of the weights.
    mean, sd : array (covariate + 2)
        Of the normal priors of widths, log sigma and stretch; a standard deviation of zero keeps the mean.
    tail : tuple of float, optional
        Shape and rate of the Gamma prior of nu - 2; None for a normal kernel.
    """

    concentration: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    tail: tuple[float, float] | None = None

    @classmethod
    def of(cls, model: Any, k: int, p: int, spare: float) -> PoolPenalty:
        """Take it from the priors of a resolved model of k members whose widths have p covariates.

        A concentration that is one number is multiplied by ``spare``.
        """
        names = "scale_slope_prior", "sigma_prior", "stretch_prior", "nu_prior", "weight_prior"
        *normal, tail, weight = (model.known_prior(name) for name in names)
        width, sigma, stretch = (location_scale(known) for known in normal)
        if model.bias != "linear":
            stretch = 1.0, 0.0
        mean = np.r_[np.full(p, width[0]), np.log(model.sigma_scale) + sigma[0], stretch[0]]
        gamma = float(np.mean(tail["alpha"])), float(np.mean(tail["beta"]))
        a = weight["a"]
        concentration = np.broadcast_to(np.asarray(a) * (spare if isinstance(a, float) else 1.0), k)
        sd = np.r_[np.full(p, width[1]), sigma[1], stretch[1]]
        return cls(concentration, mean, sd, gamma if model.kernel == "student_t" else None)

    def add(self, weight: np.ndarray, rest: np.ndarray, gradient: np.ndarray) -> float:
        """Log density; its gradient by log weights (of sum one) and the rest, with log(nu - 2), is added to ``gradient``."""
        k, free = len(weight), self.sd > 0.0
        end = k + len(free)
        apart = np.where(free, rest[: len(free)] - self.mean, 0.0) / np.where(free, self.sd, 1.0)
        gradient[:k] += self.concentration - self.concentration.sum() * weight
        gradient[k:end] = np.where(free, gradient[k:end] - apart / np.where(free, self.sd, 1.0), 0.0)
        value = float(self.concentration @ np.log(weight) - 0.5 * apart @ apart)
        if self.tail is not None:
            shape, rate = self.tail
            gradient[end] += shape - rate * np.exp(rest[-1])
            value += float(shape * rest[-1] - rate * np.exp(rest[-1]))
        return value


def best_pool(
    rows: PooledRows, penalty: PoolPenalty, *, starts: int, seed: int
) -> tuple[np.ndarray, np.ndarray, Optimum]:
    """Maximise the posterior density in weights, sigma, stretch and widths.

    Where members are missing, ``starts`` are made beside equal weights; with complete rows of one width the optimum is unique.
    Returned are the weights, the other parameters end to end, and where the search ended, with the log likelihood alone.
    """
    (data, index), k = rows.packed, rows.distance.shape[1]
    n, passes = len(rows.distance), 0
    weighted, student = rows.distance @ np.full(k, 1.0 / k), penalty.tail is not None
    rest = np.r_[np.zeros(rows.rows.x.shape[1]), 0.5 * np.log(np.mean(weighted**2) + 1e-300), 1.0,
                 [np.log(FIRST_TAIL)] * student]  # fmt: skip
    begin = np.r_[np.zeros(k), rest]

    def natural(log_weight: np.ndarray, rest: np.ndarray) -> np.ndarray:
        return np.r_[log_weight, rest[:-1], 2.0 + np.exp(rest[-1])] if student else np.r_[log_weight, rest]

    def negative(u: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal passes
        passes += 1
        log_weight = u[:k] - u[:k].max()
        log_weight = np.maximum(log_weight - np.log(np.exp(log_weight).sum()), -STEEP)
        gradient = np.empty(len(u))
        value = pooled_value(natural(log_weight, u[k:]), data, index, gradient)
        if not np.isfinite(value):
            return 1e300, np.zeros_like(u)
        if student:
            gradient[-1] *= np.exp(u[-1])
        value += penalty.add(np.exp(log_weight), u[k:], gradient)
        return -value / n, -gradient / n

    rng = np.random.default_rng(seed)
    more = 0 if k == 1 or rows.rows.available.all() else starts
    points = [begin, *(np.r_[np.log(rng.dirichlet(np.ones(k))), rest] for _ in range(more))]
    bound = [(u - LONGEST, u + LONGEST) for u in begin]
    found = [optimize.minimize(negative, point, jac=True, method="L-BFGS-B", bounds=bound,
                               options={"maxiter": 1000, "maxcor": 20, "ftol": 0.0, "gtol": 1e-9})
             for point in points]  # fmt: skip
    u = min(found, key=lambda result: float(result.fun)).x
    u = u + newton(lambda v: negative(v)[1], u)
    converged = float(np.max(np.abs(negative(u)[1]))) <= GRADIENT
    weight = np.exp(u[:k] - u[:k].max())
    weight = weight / weight.sum()
    loglik = pooled_value(natural(np.log(weight), u[k:]), data, index, np.empty(len(u)))
    none = np.ones(0)  # everything stands in the parameters
    return weight, natural(u[:k], u[k:])[k:], Optimum(none, none, float(loglik), passes, converged, "standard")


def pool_optimum(table: CorrectedTable, spare: float, *, starts: int, seed: int) -> tuple[xr.Dataset, Optimum]:
    """Corrections at their posterior means, and the rest at its optimum, as the posterior has them; see `PoolPenalty.of`."""
    model, student, p = table.model, table.model.kernel == "student_t", len(table.widths.names)
    asked = {"weight_prior": True, "sigma_prior": True, "stretch_prior": model.bias == "linear",
             "scale_slope_prior": model.scale, "nu_prior": student}  # fmt: skip
    model.tell_of_other_priors([name for name, used in asked.items() if used])
    penalty = PoolPenalty.of(model, table.n_members, p, spare)
    weight, rest, optimum = best_pool(PooledRows.of(table), penalty, starts=starts, seed=seed)
    correction = point_correction(table, model.recipe(table.members))
    found: dict[str, Any] = {name: (dims[2:], values[0, 0]) for name, (dims, values) in correction.items()}
    found |= {"weight": ("member", weight), "sigma": ((), np.exp(rest[p]))}
    found |= {"stretch": ((), rest[p + 1])} if model.bias == "linear" else {}
    found |= {"scale_slope": ("scale_covariate", rest[:p])} if p else {}
    found |= {"nu": ((), rest[-1])} if student else {}
    coords = model.coordinates(table) | {"member": ("member", np.array(table.members))}
    return xr.Dataset(found, coords), optimum
