"""The optimum of a posterior, its curvature, and importance sampling from approximations around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg, optimize

from bayesens.inference.log_density import Target
from bayesens.inference.sampling.skewed import skew_map

__all__ = ["Laplace", "Mode", "curvature", "distinct", "find_modes", "laplace", "starts_of", "weighted", "worth_more"]

BATCH = 2000  # proposals at a time
MOST = (
    36  # parameters, as of BMA with nine members, up to which the skewed proposal is tried: its axes get ill-determined
)
LONGER = 8  # batches of the normal proposal where the skewed one is not tried
HOPELESS = 0.002  # share of a batch that its weights must be worth for a better proposal to be tried
JITTER = 0.7  # of the starts, in every coordinate
MIRROR = 20.0  # in log density below the best optimum, up to which the point on the other side of the start is tried
HEIGHT, PLACE = (
    0.05,
    1.0,
)  # in log density, and in standard deviations of the curvature: two optima nearer in both are one
GRADIENT = 1e-4  # of the whitened log density, whose optimum is then less than 1e-7 away


@dataclass(frozen=True)
class Mode:
    """A maximum of the log density on the unconstrained space."""

    x: np.ndarray
    logp: float


@dataclass(frozen=True)
class Laplace:
    """Draws from the normal approximation with smoothed importance weights.

    Attributes
    ----------
    x : array (proposal, parameter)
    loglik : array (proposal)
        Log likelihood.
    log_weight : array (proposal)
        Pareto-smoothed, normalised.
    pareto_k, ess : float
        Shape of the tail of the weights, and their effective sample size.
    proposal : str
        ``"normal"`` or ``"skewed"``.
    """

    x: np.ndarray
    loglik: np.ndarray
    log_weight: np.ndarray
    pareto_k: float
    ess: float
    proposal: str

    def resample(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Indices of proposals that are draws of equal weight, by systematic resampling in random order."""
        edges = np.cumsum(np.exp(self.log_weight))
        points = (np.arange(size) + rng.random()) / size * edges[-1]
        index = np.minimum(np.searchsorted(edges, points), len(edges) - 1)
        return rng.permutation(index)


def find_modes(
    target: Target, *, start: np.ndarray, starts: int, rng: np.random.Generator, near: bool = False,
    others: np.ndarray | None = None,
) -> list[Mode]:  # fmt: skip
    """Maximise the log density from the given start and from others: those that are given, and jittered ones.

    Where parameters can change places, as those of two members that are alike, the start is near the middle between two
    optima of one height: the point on its other side from the best optimum is tried too, if the density there is not far
    lower.

    Parameters
    ----------
    target : Target
    start : array (parameter)
    starts : int
        Number of starts beside it.
    rng : numpy.random.Generator
    near : bool
        Whether jittered ones are spread about the first optimum, twice as far as its curvature says, and not about the start:
        far in the directions that the data leave open, and a few steps from an optimum where there are hundreds of parameters.
    others : array (point, parameter), optional
        Starts that come before jittered ones, as `starts_of` a model; as many as `starts` says.

    Returns
    -------
    list of Mode
        Distinct maxima, best first: they differ by .05 in log density, or lie a standard deviation apart.
    """
    found: list[Mode] = [] if (mode := _climb(target, start)) is None else [mode]
    root = curvature(target, found[0].x) if near and found else None
    # A number for each start, whether it is taken or not: what follows the search draws the same.
    points = [start + JITTER * z if root is None else found[0].x + 2.0 * root @ z
              for z in rng.normal(size=(starts, len(start)))]  # fmt: skip
    given = [] if others is None else list(others[:starts])
    found += [mode for x in (given + points)[:starts] if (mode := _climb(target, x)) is not None]
    if starts and found:
        best = max(found, key=lambda mode: mode.logp)
        other_side = 2.0 * start - best.x
        if best.logp - float(target.logp(other_side[None])[0]) < MIRROR:
            mode = _climb(target, other_side)
            found += [mode] if mode is not None else []
    return distinct(target, found)


def starts_of(model: Any, target: Target, starts: int) -> tuple[int, np.ndarray]:
    """How many starts a search has in all, and those that the model knows of, (point, parameter), the highest density first.

    These take the place of starts at random, or stand beside them where the model asks for both.
    """
    named = model.other_starts(target.named(target.start)) if starts and hasattr(model, "other_starts") else []
    points = np.array([target.begin(one) for one in named]).reshape(len(named), len(target.start))
    points = points[np.argsort(-target.logp(points), kind="stable")] if len(points) else points
    return starts + (len(points) if getattr(model, "starts_beside", False) else 0), points


def distinct(target: Target, found: list[Mode]) -> list[Mode]:
    """One of each group of maxima that are the same in height and in place, best first."""
    out: list[Mode] = []
    for mode in sorted(found, key=lambda mode: -mode.logp):
        if not any(other.logp - mode.logp < HEIGHT and _distance(target, other.x, mode.x) < PLACE for other in out):
            out.append(mode)
    return out


def _distance(target: Target, x: np.ndarray, other: np.ndarray) -> float:
    """From a maximum to another point, in standard deviations of the maximum's curvature along the way."""
    away = other - x
    if not (size := np.abs(away).max()) > 0.0:
        return 0.0
    step = 1e-5 / size
    ahead, behind = target.logp_and_gradient(np.stack([x + step * away, x - step * away]))[1] @ away
    squared = (behind - ahead) / (2.0 * step)
    return float(np.sqrt(max(squared, 0.0)))


def _climb(target: Target, x: np.ndarray) -> Mode | None:
    """Maximise by L-BFGS in coordinates whitened by the curvature where it stands, anew every 25 steps."""
    logp = -np.inf
    for _ in range(40):
        with np.errstate(invalid="ignore"):
            precision = _precision(target, x)
        root = _whitening(precision)
        centre = x

        def negative(u: np.ndarray, centre: np.ndarray = centre, root: np.ndarray = root) -> tuple[float, np.ndarray]:
            value, gradient = target.logp_and_gradient((centre + root @ u)[None])
            if not np.isfinite(value[0]) or not np.all(np.isfinite(gradient)):
                return 1e300, np.zeros_like(u)
            return -float(value[0]), -(root.T @ gradient[0])

        result = optimize.minimize(negative, np.zeros(len(x)), jac=True, method="L-BFGS-B",
                                   options={"maxiter": 25, "maxcor": 30, "ftol": 0.0, "gtol": GRADIENT})  # fmt: skip
        if not result.fun < 1e299:
            return None
        x, gained, logp = centre + root @ result.x, -result.fun - logp, -float(result.fun)
        if np.max(np.abs(result.jac)) <= GRADIENT or gained < 1e-9 * max(1.0, abs(logp)):
            break
    return Mode(x, logp)


def _precision(target: Target, x: np.ndarray) -> np.ndarray:
    """Minus the Hessian of the log density, by central differences of the gradient."""
    step = np.diag(1e-5 * np.maximum(1.0, np.abs(x)))
    gradient = target.logp_and_gradient(np.concatenate([x + step, x - step]))[1]
    hessian = (gradient[: len(x)] - gradient[len(x) :]) / (2.0 * np.diag(step)[:, None])
    return -(hessian + hessian.T) / 2.0


def _whitening(precision: np.ndarray) -> np.ndarray:
    """Root of the inverse of a precision; directions in which it is not concave count by their absolute curvature."""
    if not np.all(np.isfinite(precision)):
        return np.eye(len(precision))
    values, vectors = linalg.eigh(precision)
    size = np.maximum(np.abs(values), 1e-8 * max(np.abs(values).max(), 1e-300))
    return np.asarray(vectors / np.sqrt(size))


def curvature(target: Target, x: np.ndarray) -> np.ndarray | None:
    """Root of the covariance that the curvature at a point implies.

    Returns
    -------
    array (parameter, parameter) or None
        None where the log density is not concave at ``x``.
    """
    precision = _precision(target, x)
    if not np.all(np.isfinite(precision)):
        return None
    try:
        root = linalg.cholesky(precision, lower=True)
    except linalg.LinAlgError:
        return None
    return np.asarray(linalg.solve_triangular(root, np.eye(len(x)), lower=True).T)


def laplace(
    target: Target, mode: Mode, root: np.ndarray, *, ess: float, pareto_k: float, rng: np.random.Generator
) -> Laplace:
    """Sample an approximation around a mode and weight the draws by the density, smoothed by a Pareto tail (PSIS).

    The normal of the curvature comes first. Where its weights fall short, but not hopelessly, and there are at most 36
    parameters, a proposal that also follows the skewness takes its place; with more parameters there are more draws.

    Parameters
    ----------
    target : Target
    mode : Mode
    root : array (parameter, parameter)
        Root of the covariance.
    ess, pareto_k : float
        Importance ESS, and shape of the weights' tail below which it counts, at which proposals end; there are at most
        8,000, or 16,000 with more parameters.
    rng : numpy.random.Generator

    Returns
    -------
    Laplace

    References
    ----------
    Vehtari, Simpson, Gelman, Yao and Gabry (2024), JMLR 25(72), Pareto smoothed importance sampling.
    """

    def normal(size: int) -> tuple[np.ndarray, np.ndarray]:
        z = rng.standard_normal((size, len(mode.x)))
        return mode.x + z @ root.T, -0.5 * np.sum(z**2, axis=1)

    first = weighted(target, normal, "normal", ess=ess, pareto_k=pareto_k, batches=1)
    if len(mode.x) > MOST:  # more of the same, where that is all it takes
        longer = first.ess < ess and first.pareto_k < pareto_k and LONGER * first.ess >= ess
        return weighted(target, normal, "normal", ess=ess, pareto_k=pareto_k, batches=LONGER) if longer else first
    if not worth_more(first, ess=ess, pareto_k=pareto_k):
        return first
    proposal = skew_map(target, mode.x, root, rng=rng)
    if proposal is None:
        return first
    return weighted(target, lambda size: proposal.sample(size, rng), "skewed", ess=ess, pareto_k=pareto_k, batches=4)


def worth_more(first: Laplace, *, ess: float, pareto_k: float) -> bool:
    """Whether weights of normal proposals fall short, and not so far that proposals which follow the skewness would too."""
    enough = first.ess >= ess and first.pareto_k < pareto_k
    return not enough and first.ess >= HOPELESS * BATCH and first.x.shape[1] <= MOST


def weighted(
    target: Target, proposal: Callable[[int], tuple[np.ndarray, np.ndarray]], name: str, *, ess: float, pareto_k: float,
    batches: int,
) -> Laplace:  # fmt: skip
    """Draws of a proposal, a batch at a time until they are worth enough, with smoothed weights.

    Parameters
    ----------
    target : Target
    proposal : callable
        From a number of draws to points (draw, parameter) and their log density up to a constant.
    name : str
        Of the proposal.
    ess, pareto_k : float
        At which proposals end.
    batches : int
        Most batches.

    Returns
    -------
    Laplace
    """
    from arviz_stats.base import array_stats

    x, ratio, loglik = [], np.zeros(0), np.zeros(0)
    while True:
        points, log_q = proposal(BATCH)
        logp, batch = target.logp_and_loglik(points)
        x.append(points)
        ratio = np.concatenate([ratio, np.where(np.isfinite(logp), logp - log_q, -np.inf)])
        loglik = np.concatenate([loglik, batch])
        log_weight, k = array_stats.psislw(-(ratio - ratio.max()))
        log_weight = np.asarray(log_weight) - np.logaddexp.reduce(np.asarray(log_weight))
        worth = float(np.exp(-np.logaddexp.reduce(2.0 * log_weight)))
        if (worth >= ess and k < pareto_k) or len(ratio) >= batches * BATCH:
            return Laplace(np.concatenate(x), loglik, log_weight, float(k), worth, name)
