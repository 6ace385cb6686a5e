"""Several optima of a posterior: what each is worth, one proposal for all of them, and chains that begin at each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesens.arithmetic import LOG_2PI
from bayesens.inference.log_density import Target
from bayesens.inference.sampling.laplace import (
    BATCH,
    JITTER,
    Laplace,
    Mode,
    curvature,
    distinct,
    find_modes,
    laplace,
    weighted,
    worth_more,
)
from bayesens.inference.sampling.skewed import SkewMap, skew_map

__all__ = ["Peak", "apart", "find_peaks", "nearest", "nuts_from", "of_standing", "sample_around", "stays"]

STANDING = 0.001  # share of the evidence from which an optimum has draws of the proposal, as those near the best have
WORTH = 0.01  # share of the evidence from which a sampler that does not reach an optimum is told of
MUCH = 0.2  # of one chain at an optimum where another was never, for the chains to be apart
LEAST = 0.05  # share of the proposals that each optimum of standing has, whatever its evidence: it may be a poor guess
MATTERS = 0.05  # share of the probability from which chains at an optimum must have seen the same of it
STAY = 0.1  # of a chain's draws, from which it has been at an optimum for long enough to be compared with others there
NEAR = 8.0  # in log density below the best, within which another optimum counts, and makes the search go on
CLIMBS = 6  # starts for every optimum near the best, where there are several; at most four times those asked for


@dataclass(frozen=True)
class Peak:
    """A maximum of the log density, and how much probability lies around it.

    Attributes
    ----------
    x : array (parameter)
    logp : float
    root : array (parameter, parameter)
        Root of the covariance that the curvature implies.
    evidence : float
        Share of the probability of all peaks, by the normal approximation at each: its density times its volume.
    """

    x: np.ndarray
    logp: float
    root: np.ndarray
    evidence: float


def find_peaks(
    target: Target, *, start: np.ndarray, starts: int, rng: np.random.Generator, near: bool = False,
    others: np.ndarray | None = None,
) -> list[Peak]:  # fmt: skip
    """Search for the maxima of a log density, and go on where it has several, or where the search ended on a saddle.

    Two members that are alike can change places, which gives two maxima of one height and between them a saddle, near the
    standard start.

    Parameters
    ----------
    target : Target
    start : array (parameter)
    starts : int
        Number of starts beside it; with 0 the search ends after the first.
    rng : numpy.random.Generator
    near, others
        As of `find_modes`.

    Returns
    -------
    list of Peak
        Distinct, those of standing first, in order of their evidence; points where the log density is not concave are none,
        however high.
    """
    modes = find_modes(target, start=start, starts=starts, rng=rng, near=near, others=others)
    peaks = _peaks(target, modes)
    done = 1 + starts
    while starts and done < (wanted := min(_climbs(peaks, modes), 4 * (1 + starts))):
        jitter = rng.normal(scale=JITTER, size=(wanted - done, len(start)))
        more = [mode for x in start + jitter for mode in find_modes(target, start=x, starts=0, rng=rng)]
        done, modes = wanted, distinct(target, [*modes, *more])
        peaks = _peaks(target, modes)
    return peaks


def _climbs(peaks: list[Peak], modes: list[Mode]) -> int:
    """How many starts the search is to have, given what it has found."""
    best = max((peak.logp for peak in peaks), default=0.0)
    near = sum(best - peak.logp < NEAR for peak in peaks)
    saddle = 0 < len(peaks) < len(modes)
    return CLIMBS * max(near, 2) if near > 1 or saddle else 0


def _peaks(target: Target, modes: Sequence[Mode]) -> list[Peak]:
    """Those of the points where the log density is concave, with their shares of the evidence."""
    found = [(mode, root) for mode in modes if (root := curvature(target, mode.x)) is not None]
    evidence = np.array([mode.logp + np.linalg.slogdet(root)[1] for mode, root in found])
    share = np.exp(evidence - np.logaddexp.reduce(evidence)) if found else evidence
    peaks = [Peak(mode.x, mode.logp, root, float(w)) for (mode, root), w in zip(found, share, strict=True)]
    counting = {id(peak) for peak in of_standing(peaks)}
    return sorted(peaks, key=lambda peak: (id(peak) not in counting, -peak.evidence))


def of_standing(peaks: Sequence[Peak]) -> list[Peak]:
    """Peaks with a thousandth of the evidence or more, or nearly as high as the best: the evidence may be a poor guess."""
    best = max((peak.logp for peak in peaks), default=0.0)
    return [peak for peak in peaks if peak.evidence >= STANDING or best - peak.logp < NEAR]


# ----------------------------------------------------------------------------------------------------------- proposals
def sample_around(
    target: Target, peaks: Sequence[Peak], *, ess: float, pareto_k: float, rng: np.random.Generator
) -> Laplace:
    """Sample approximations around all peaks as one proposal, and weight the draws by the density (PSIS).

    Every peak has its share of draws, and their weights are the density over that of the mixture of all approximations, not
    of the one that a draw came from: peaks may overlap, and shares need not be right.

    Parameters
    ----------
    target : Target
    peaks : sequence of Peak
    ess, pareto_k : float
        As of `laplace`, which this is for one peak.
    rng : numpy.random.Generator

    Returns
    -------
    Laplace

    References
    ----------
    Owen and Zhou (2000), JASA 95, 135-143: the mixture's density in the denominator.
    Vehtari, Simpson, Gelman, Yao and Gabry (2024), JMLR 25(72).
    """
    if len(peaks) == 1:
        only = peaks[0]
        return laplace(target, Mode(only.x, only.logp), only.root, ess=ess, pareto_k=pareto_k, rng=rng)
    counts = _counts(peaks)
    normals = [_Normal(peak.x, peak.root) for peak in peaks]
    normal = _Mixture(normals, counts, rng)
    first = weighted(target, normal.sample, "normal", ess=ess, pareto_k=pareto_k, batches=1)
    if not worth_more(first, ess=ess, pareto_k=pareto_k):
        return first
    maps = [skew_map(target, peak.x, peak.root, rng=rng) for peak in peaks]
    if all(one is None for one in maps):
        return first
    skewed = _Mixture([n if s is None else _Skewed(s) for s, n in zip(maps, normals, strict=True)], counts, rng)
    return weighted(target, skewed.sample, "skewed", ess=ess, pareto_k=pareto_k, batches=4)


def _counts(peaks: Sequence[Peak]) -> np.ndarray:
    """Draws of a batch at each peak: in proportion to the evidence, with a least share."""
    share = np.maximum([peak.evidence for peak in peaks], LEAST)
    ends = np.round(np.cumsum(share) / share.sum() * BATCH).astype(int)
    return np.diff(ends, prepend=0)


class _Normal:
    """The normal distribution of a curvature."""

    def __init__(self, x: np.ndarray, root: np.ndarray) -> None:
        self.x, self.root = x, root
        self.constant = -0.5 * len(x) * LOG_2PI - np.linalg.slogdet(root)[1]

    def sample(self, size: int, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(self.x + rng.standard_normal((size, len(self.x))) @ self.root.T)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        z = np.linalg.solve(self.root, (x - self.x).T)
        return np.asarray(self.constant - 0.5 * np.sum(z**2, axis=0))


class _Skewed:
    """The distribution that follows the skewness, with its constant."""

    def __init__(self, skewed: SkewMap) -> None:
        self.skewed, self.constant = skewed, -np.linalg.slogdet(skewed.basis)[1]

    def sample(self, size: int, rng: np.random.Generator) -> np.ndarray:
        return self.skewed.sample(size, rng)[0]

    def log_density(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.constant + self.skewed.log_density(x))


class _Mixture:
    """Approximations with a fixed number of draws each, which for the weights is a mixture with these shares."""

    def __init__(self, parts: Sequence[Any], counts: np.ndarray, rng: np.random.Generator) -> None:
        self.parts, self.counts, self.rng = parts, counts, rng

    def sample(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        x = np.concatenate([part.sample(int(n), self.rng) for part, n in zip(self.parts, self.counts, strict=True)])
        each = [np.log(n / size) + part.log_density(x) for part, n in zip(self.parts, self.counts, strict=True)]
        return x, np.asarray(np.logaddexp.reduce(each, axis=0))


# -------------------------------------------------------------------------------------------------------------- chains
def nuts_from(
    target: Target, peaks: Sequence[Peak], *, chains: int, rng: np.random.Generator, **options: Any
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Run chains of NUTS that begin at the peaks, each in the coordinates of the curvature there.

    Parameters
    ----------
    target : Target
    peaks : sequence of Peak
        None leaves the start to the target.
    chains : int
        In all: each peak has a number in proportion to its evidence, as near as whole numbers come.
    rng : numpy.random.Generator
    **options
        Of `nuts`.

    Returns
    -------
    x : array (chain, draw, parameter)
    stats : dict of array (chain, draw)
    """
    # Loading nutpie and ArviZ takes a second, and most fits need no chains.
    from bayesens.inference.sampling.nuts import nuts

    if not peaks:
        return nuts(target, target.start, None, chains=chains, rng=rng, **options)
    runs = [
        nuts(target, peak.x, peak.root, chains=int(count), rng=rng, **options)
        for peak, count in zip(peaks, _chains(peaks, chains), strict=True) if count
    ]  # fmt: skip
    return np.concatenate([x for x, _ in runs]), {
        name: np.concatenate([stats[name] for _, stats in runs]) for name in runs[0][1]
    }


def _chains(peaks: Sequence[Peak], chains: int) -> np.ndarray:
    """Whole numbers in proportion to the evidence, by the largest remainders."""
    exact = np.array([peak.evidence for peak in peaks])
    exact = chains * exact / exact.sum()
    count = np.floor(exact).astype(int)
    count[np.argsort(count - exact, kind="stable")[: chains - count.sum()]] += 1
    return count


def nearest(peaks: Sequence[Peak], x: np.ndarray) -> np.ndarray:
    """Number of the peak that draws (chain, draw, parameter) belong to, by the normal approximations: int (chain, draw)."""
    points = x.reshape(-1, x.shape[-1])
    each = [np.log(peak.evidence) + _Normal(peak.x, peak.root).log_density(points) for peak in peaks]
    return np.asarray(np.argmax(each, axis=0).reshape(x.shape[:2]))


def stays(peaks: Sequence[Peak], x: np.ndarray, share: np.ndarray) -> list[np.ndarray]:
    """The draws of chains at each peak that has a twentieth of the probability or more.

    Parameters
    ----------
    peaks : sequence of Peak
    x : array (chain, draw, parameter)
    share : array (peak)
        Of the probability.

    Returns
    -------
    list of array (chain, draw, parameter)
        Of chains that were there for a tenth of their draws or more, and as many of each as of the one with fewest. At a peak
        where no chain was as long, all draws of all chains.
    """
    where, found = nearest(peaks, x), []
    for i in np.flatnonzero(share >= MATTERS):
        there = [chain[at] for chain, at in zip(x, where == i, strict=True) if at.mean() >= STAY]
        few = min(map(len, there), default=0)
        found.append(np.stack([chain[:few] for chain in there]) if there else x)
    return found


def apart(peaks: Sequence[Peak], where: np.ndarray) -> list[int]:
    """Peaks that matter and that chains do not reach, by number.

    Parameters
    ----------
    peaks : sequence of Peak
    where : int array (chain, draw)
        From `nearest`.

    Returns
    -------
    list of int
        Those that no chain was at, or one chain never and another for a fifth of its draws.
    """
    share = np.stack([(where == i).mean(axis=1) for i in range(len(peaks))])
    missed = (share.max(axis=1) == 0.0) | ((share.min(axis=1) == 0.0) & (share.max(axis=1) >= MUCH))
    return [i for i, peak in enumerate(peaks) if peak.evidence >= WORTH and missed[i]]
