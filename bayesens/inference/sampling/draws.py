"""Draws of a posterior: by importance weights around its optima where that holds, by NUTS and around its draws otherwise."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesens.inference.convergence import DIVERGING, IMPORTANCE_ESS, PARETO_K
from bayesens.messages import warn

if TYPE_CHECKING:
    from bayesens.inference.log_density import Target
    from bayesens.inference.sampling.laplace import Laplace
    from bayesens.inference.sampling.optima import Peak

__all__ = ["Sampled", "sample"]

SLOW_RHAT, SLOW_ESS, LONGER = 1.01, 400.0, 5  # chains that mix more slowly are run so many times longer, and thinned
SAME_PLACES = 1.05  # R-hat of slow chains, or of those at one optimum, up to which weights around them are trusted
MOST = 36  # parameters up to which that is tried: beyond, a few thousand draws do not tell what their density is like
SMALLER = 5.0  # chains of which too many transitions diverge are run again, with steps that reject so many times less


@dataclass(frozen=True)
class Sampled:
    """Unconstrained draws (chain, draw, parameter), their log likelihood, how they came about, and statistics of each."""

    x: np.ndarray
    loglik: np.ndarray
    attrs: dict[str, Any]
    stats: dict[str, np.ndarray]


def sample(
    target: Target, *, start: np.ndarray, method: str, draws: int, tune: int, chains: int, rng: np.random.Generator,
    target_accept: float, starts: int, near: bool = False, others: np.ndarray | None = None, progressbar: bool = False,
    no_optimum: str = "",
) -> Sampled:  # fmt: skip
    """Laplace with importance weights where it holds, NUTS otherwise, or importance weights around chains that are slow.

    Parameters
    ----------
    target : Target
    start : array (parameter)
    method : {"auto", "laplace", "nuts"}
    draws, tune, chains : int
    rng : numpy.random.Generator
    target_accept : float
    starts : int
        Of the search for optima, beside ``start``.
    near, others
        Of the search, as of `find_modes`.
    progressbar : bool
    no_optimum : str
        Why "auto" tries no approximation around an optimum; an empty one lets it.

    Returns
    -------
    Sampled

    Raises
    ------
    ValueError
        If ``method="laplace"`` finds no point where the log density is concave.

    Warns
    -----
    UserWarning
        If the approximation is kept and should not be trusted, or if chains do not go from one optimum to another.
    """
    from bayesens.inference.sampling.optima import find_peaks, of_standing

    peaks = find_peaks(target, start=start, starts=starts, rng=rng, near=near, others=others)
    several = of_standing(peaks)
    attrs: dict[str, Any] = {"optimum": json.dumps(target.named(peaks[0].x))} if peaks else {}
    reason = "asked for"
    if method == "auto" and no_optimum:
        reason = no_optimum
    elif method in ("auto", "laplace"):
        if not peaks:
            reason = "the optimiser found no point where the log density is concave"
            if method == "laplace":
                raise ValueError(f"method='laplace' is not possible: {reason}. Use method='nuts'.")
        else:
            found, reason = _approximate(target, several, draws=draws, chains=chains, rng=rng, keep=method == "laplace")
            attrs |= found.attrs
            if found.x.size:
                return _told(target, peaks, replace(found, attrs=attrs | {"method": "laplace", "reason": reason}))
    found = _by_chains(target, several, again=method == "auto", draws=draws, tune=tune, chains=chains, rng=rng,
                       target_accept=target_accept, progressbar=progressbar)  # fmt: skip
    told = {"reason": "; ".join(filter(None, (reason, found.attrs.get("reason"))))}
    return _told(target, peaks, replace(found, attrs=attrs | found.attrs | told))


def _by_chains(
    target: Target, peaks: list[Peak], *, again: bool, draws: int, rng: np.random.Generator, **options: Any
) -> Sampled:
    """Chains of NUTS; where they diverge or mix slowly, and are to be run again, what the second look gives."""
    from bayesens.inference.sampling.optima import nuts_from

    attrs: dict[str, Any] = {"method": "nuts"}
    x, stats = nuts_from(target, peaks, draws=draws, rng=rng, **options)
    if again and np.mean(stats["diverging"]) > DIVERGING:
        options["target_accept"] = attrs["target_accept"] = 1.0 - (1.0 - options["target_accept"]) / SMALLER
        x, stats = nuts_from(target, peaks, draws=draws, rng=rng, **options)
    if again and _slow(x):
        if (found := _around_chains(target, peaks, x, stats, rng=rng)) is not None:
            return replace(found, attrs=attrs | found.attrs)
        attrs["thinned"] = LONGER  # thinned, a longer run takes no more room
        x, stats = nuts_from(target, peaks, draws=LONGER * draws, rng=rng, **options)
        x, stats = x[:, ::LONGER], {name: values[:, ::LONGER] for name, values in stats.items()}
    loglik = target.logp_and_loglik(x.reshape(-1, x.shape[-1]))[1].reshape(x.shape[:2])
    return Sampled(x, loglik, attrs, stats)


def _around_chains(
    target: Target, peaks: list[Peak], x: np.ndarray, stats: dict[str, np.ndarray], *, rng: np.random.Generator
) -> Sampled | None:
    """Draws by importance weights of a mixture around slow chains; None where chains or weights do not bear them out."""
    from bayesens.inference.sampling.around_chains import sample_around_chains
    from bayesens.inference.sampling.optima import stays

    chains, draws, size = x.shape
    rhat = _rhat(x)
    # Weights say what each place that chains have been at is worth, and nothing of places that they did not come to. Chains
    # that diverge, or are not at the same places, are no ground to weigh; between optima they need not go.
    if size > MOST or chains < 2 or np.mean(stats["diverging"]) > DIVERGING:
        return None
    if not rhat <= SAME_PLACES and len(peaks) < 2:
        return None
    result = sample_around_chains(target, x.reshape(-1, size), ess=_enough(draws * chains), pareto_k=PARETO_K, rng=rng)
    if result is None or not _trusted(result):
        return None
    told = f"chains of NUTS mix slowly (R-hat {rhat:.3f}"
    if not rhat <= SAME_PLACES:
        within = max(map(_rhat, stays(peaks, x, _shares(peaks, result))))
        if not within <= SAME_PLACES:
            return None
        told += f", {within:.3f} within optima"
    told += "), so that a mixture around their draws is weighted"
    index = result.resample(draws * chains, rng).reshape(chains, draws)
    attrs = {"method": "importance", "reason": told, "pareto_k": result.pareto_k, "importance_ess": result.ess,
             "proposal": result.proposal}  # fmt: skip
    return Sampled(result.x[index], result.loglik[index], attrs, {})


def _shares(peaks: list[Peak], result: Laplace) -> np.ndarray:
    """Probability of what is nearest to each optimum, by weights."""
    from bayesens.inference.sampling.optima import nearest

    return np.bincount(nearest(peaks, result.x[None])[0], np.exp(result.log_weight), minlength=len(peaks))


def _rhat(x: np.ndarray) -> float:
    """The largest rank-normalised R-hat of draws (chain, draw, parameter); of a single chain that of its halves, as two."""
    from arviz_stats.base import array_stats

    if len(x) == 1:
        x = x[:, : x.shape[1] // 2 * 2].reshape(2, -1, x.shape[2])
    return max((float(array_stats.rhat(x[:, :, j])) for j in range(x.shape[2])), default=1.0)


def _slow(x: np.ndarray) -> bool:
    """Whether chains (chain, draw, parameter) mix so slowly that a longer run is worth its time."""
    from arviz_stats.base import array_stats

    bulk = (array_stats.ess(x[:, :, j], method="bulk") for j in range(x.shape[2]))
    return (len(x) > 1 and not _rhat(x) <= SLOW_RHAT) or any(
        not ess >= min(SLOW_ESS, 0.25 * x[:, :, 0].size) for ess in bulk
    )


def _enough(draws: int) -> float:
    """Importance ESS at which proposals end."""
    return max(IMPORTANCE_ESS, 0.25 * draws)


def _trusted(result: Laplace) -> bool:
    return result.pareto_k < PARETO_K and result.ess >= IMPORTANCE_ESS


def _approximate(target: Target, peaks: list[Peak], *, draws: int, chains: int, rng: np.random.Generator,
                 keep: bool) -> tuple[Sampled, str]:  # fmt: skip
    """Draws by importance weights, none where these cannot be trusted unless they are kept whatever they are worth."""
    from bayesens.inference.sampling.optima import sample_around

    result = sample_around(target, peaks, ess=_enough(draws * chains), pareto_k=PARETO_K, rng=rng)
    trusted = _trusted(result)
    reason = f"Pareto k {result.pareto_k:.2f} and importance ESS {result.ess:.0f}" + (
        f", around {len(peaks)} optima" if len(peaks) > 1 else ""
    )
    if keep and not trusted:
        warn(f"The approximation around the optimum should not be trusted ({reason}; wanted k < {PARETO_K} and "
             f"an ESS of {IMPORTANCE_ESS:.0f}). Use method='nuts'.")  # fmt: skip
    index = np.zeros((0, 0), dtype=int)
    if trusted or keep:
        index = result.resample(draws * chains, rng).reshape(chains, draws)
    attrs = {"pareto_k": result.pareto_k, "importance_ess": result.ess, "proposal": result.proposal}
    return Sampled(result.x[index], result.loglik[index], attrs, {}), reason


def _told(target: Target, peaks: list[Peak], sampled: Sampled) -> Sampled:
    """The draws with what they say of the optima: which one each belongs to, and whether chains have been at all of them."""
    from bayesens.inference.sampling.optima import apart, nearest, of_standing

    optima, several = _optima(target, peaks), of_standing(peaks)
    stats, attrs = dict(sampled.stats), dict(sampled.attrs)
    if len(several) > 1:
        stats["mode"] = nearest(several, sampled.x)
        for i in range(len(several)):
            optima[i]["share"] = float(np.mean(stats["mode"] == i))
        if attrs["method"] == "nuts" and (missed := apart(several, stats["mode"])):
            attrs["modes_apart"] = json.dumps(missed)
            warn(_not_joined(optima[: len(several)], missed))
    return replace(sampled, attrs=attrs | {"modes": json.dumps(optima)}, stats=stats)


def _not_joined(optima: list[dict[str, Any]], missed: list[int]) -> str:
    """The sentence that a fit warns with where its chains do not go from one optimum to another."""
    logp, evidence, share = (", ".join(f"{one[name]:.2f}" for one in optima) for name in ("logp", "evidence", "share"))
    return (f"The fit has not converged: the posterior has {len(optima)} optima of standing, and the sampler does not go from "
            f"one to the other (not all chains came to number {', '.join(map(str, missed))}, counted from 0). Log densities "
            f"{logp}; shares of the probability, by normal approximation, {evidence}; shares of the draws {share}, which are "
            "those of the chains and no result. Read each optimum by itself (attrs['modes'], sample_stats['mode']), or leave "
            "one by narrower priors, fewer members or, of BMA, sigma='shared'.")  # fmt: skip


def _optima(target: Target, peaks: list[Peak]) -> list[dict[str, Any]]:
    """Log density, log likelihood, share of the evidence, and weights, for models that have them, at each optimum."""
    if not peaks:
        return []
    x = np.stack([peak.x for peak in peaks])
    logliks, variables = target.logp_and_loglik(x)[1], target.expand(x[None])[0]
    weights = variables["weight"].values[0].tolist() if "weight" in variables else []
    out = [
        {"logp": peak.logp, "loglik": float(loglik), "evidence": peak.evidence}
        for peak, loglik in zip(peaks, logliks, strict=True)
    ]
    return [one | {"weight": weight} for one, weight in zip(out, weights, strict=True)] if weights else out
