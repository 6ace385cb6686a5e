"""One component of a predictive mixture over draws, matched by few normals that have its moments in bins of the draws.

The draws of a component whose standard deviation varies by more than 4 % are cut into four bins of it, and each bin into three
of the mean. What makes the mean vary depends on the row, so there is a cut for every principal direction of the coefficients,
and a row takes that of the direction that moves it most. In each bin the mean is linear in the row's design, and the variance
is a quadratic form in it beside the mean variance of the kernels: rows of a table and cells of a grid take both from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["MEAN_BINS", "SD_BINS", "SPREAD_FOR_BINS", "Bins", "Match", "match", "sd_bins"]

# Finer in the tails, which decide outer quantiles.
SD_BINS = np.array([0.0, 0.5, 0.85, 0.975, 1.0])
MEAN_BINS = np.array([0.0, 0.1, 0.9, 1.0])
SPREAD_FOR_BINS = 0.04


@dataclass(frozen=True, eq=False)
class Bins:
    """A normal for each of some sets of draws.

    Attributes
    ----------
    weight : array (bin)
        Share of the draws, times the component's mean weight in them.
    centre : array (bin, column)
        Mean coefficients.
    spread : array (bin, column, column)
        Their covariance.
    size : array (term, bin)
        Mean of the terms of the kernels' variance at a typical row.
    tilt, tilt_spread : array (term, bin, covariate), array (term, bin, covariate, covariate)
        Mean and covariance of the widths' coefficients under the draws weighted by the term: the widths are close to normal, and
        the mean of their exponential follows from these.
    """

    weight: np.ndarray
    centre: np.ndarray
    spread: np.ndarray
    size: np.ndarray
    tilt: np.ndarray
    tilt_spread: np.ndarray

    @classmethod
    def of(
        cls, subsets: Sequence[np.ndarray], share: np.ndarray, coefficient: np.ndarray, terms: Sequence[np.ndarray],
        width: np.ndarray,
    ) -> Bins:  # fmt: skip
        """Moments of sets of draws, weighted by the component's share."""
        weight, parts = np.empty(len(subsets)), []
        for b, subset in enumerate(subsets):
            total = share[subset].sum()
            w = share[subset] / total if total > 0.0 else np.full(len(subset), 1.0 / len(subset))
            weight[b] = total / len(share)
            tilted = [w * term[subset] for term in terms]
            sizes = np.array([one.sum() for one in tilted])
            tilts = [_mean_and_covariance(one / one.sum(), width[subset]) for one in tilted]
            parts.append(
                (*_mean_and_covariance(w, coefficient[subset]), sizes, *map(np.stack, zip(*tilts, strict=True)))
            )
        centre, spread, size, tilt, tilt_spread = (np.stack(arrays) for arrays in zip(*parts, strict=True))
        return cls(weight, centre, spread, size.T, tilt.swapaxes(0, 1), tilt_spread.swapaxes(0, 1))

    def through(self, design: np.ndarray) -> Bins:
        """The same of numbers that the design (column, number) makes columns of."""
        spread = np.einsum("ci,bcd,dj->bij", design, self.spread, design)
        return replace(self, centre=self.centre @ design, spread=spread)

    def at(
        self, x: np.ndarray, covariate: np.ndarray, scale: Sequence[np.ndarray | float]
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Mean, mean variance of the kernels and variance of the mean of rows, (row), bin by bin."""
        for b in range(len(self.weight)):
            variance: np.ndarray | float = 0.0
            for t, factor in enumerate(scale):
                exponent = 2.0 * covariate @ self.tilt[t, b] + 2.0 * _quadratic(covariate, self.tilt_spread[t, b])
                variance = variance + factor * self.size[t, b] * np.exp(exponent)
            yield x @ self.centre[b], np.asarray(variance), np.maximum(_quadratic(x, self.spread[b]), 0.0)


@dataclass(frozen=True, eq=False)
class Match:
    """Few normals that match a component.

    Attributes
    ----------
    forms : array (form, column)
        A row takes the bins of the linear form that is largest at its design; none where the draws are not cut.
    bins : tuple of Bins
        One a form, or one for all rows.
    """

    forms: np.ndarray
    bins: tuple[Bins, ...]

    def through(self, design: np.ndarray) -> Match:
        """The same of numbers (number) that the design (column, number) makes columns of."""
        return Match(self.forms @ design, tuple(one.through(design) for one in self.bins))

    def at(
        self,
        x: np.ndarray,
        covariate: np.ndarray,
        scale: Sequence[np.ndarray | float],
        factor: np.ndarray,
        shares: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights, means and standard deviations of rows, (row, bin and node).

        Parameters
        ----------
        x : array (row, column)
            Design.
        covariate : array (row, covariate)
            Of the widths.
        scale : sequence of float or array (row)
            Factors of the variance's terms.
        factor : array (row, node) or (1, node)
            Every bin has so many widths, whose mean variance these share out.
        shares : array (node)
        """
        choice = np.argmax((x @ self.forms.T) ** 2, axis=1) if len(self.forms) else np.zeros(len(x), dtype=int)
        nodes = len(shares)
        out = [np.empty((len(x), len(self.bins[0].weight) * nodes)) for _ in range(3)]
        for j in np.unique(choice):
            rows = choice == j
            some = slice(None) if rows.all() else rows
            scales = [one[some] if isinstance(one, np.ndarray) else one for one in scale]
            split = factor if len(factor) == 1 else factor[some]
            for b, (mean, variance, parameter) in enumerate(self.bins[j].at(x[some], covariate[some], scales)):
                columns = slice(b * nodes, (b + 1) * nodes)
                out[0][some, columns] = self.bins[j].weight[b] * shares
                out[1][some, columns] = mean[:, None]
                out[2][some, columns] = np.sqrt(variance[..., None] * split + parameter[:, None])
        return out[0], out[1], out[2]


def match(
    share: np.ndarray, coefficient: np.ndarray, terms: Sequence[np.ndarray], width: np.ndarray, *, root: np.ndarray,
    inverse: np.ndarray, variance: np.ndarray, least: float = 0.0,
) -> Match:  # fmt: skip
    """Match a component by normals.

    Parameters
    ----------
    share : array (draw)
        Its weight.
    coefficient : array (draw, column)
    terms : sequence of array (draw)
        Of the kernel's variance.
    width : array (draw, covariate)
    root, inverse : array (column, column)
        Units in which directions of the coefficients are compared: coefficients times the root, the inverse times designs.
    variance : array (draw)
        Of a typical row, by which draws are cut.
    least : float
        A component with a mean weight of this or below is one normal.
    """
    # Products are rounded by how matrices lie in memory, which is another way in fits from files.
    share, coefficient, width = (np.ascontiguousarray(one) for one in (share, coefficient, width))
    by_sd = sd_bins(share, variance, least=least)
    if len(by_sd) == 1:
        return Match(np.zeros((0, coefficient.shape[1])), (Bins.of(by_sd, share, coefficient, terms, width),))
    apart = (coefficient - share @ coefficient / share.sum()) @ root
    direction = _upright(np.linalg.eigh((apart * share[:, None]).T @ apart)[1])
    score = apart @ direction
    forms = direction.T @ inverse * np.sqrt(share @ score**2)[:, None]
    cuts = ([t for subset in by_sd for t in _cut(subset[np.argsort(score[subset, j], kind="stable")], MEAN_BINS)]
            for j in range(len(forms)))  # fmt: skip
    return Match(forms, tuple(Bins.of(subsets, share, coefficient, terms, width) for subsets in cuts))


def _upright(direction: np.ndarray) -> np.ndarray:
    """Columns with a sign: the first entry that is no small one is positive; otherwise bins would hang on the last digits."""
    size = np.abs(direction)
    first = np.argmax(size > 0.1 * size.max(axis=0), axis=0)
    return np.where(np.take_along_axis(direction, first[None], axis=0) < 0.0, -direction, direction)


def sd_bins(weight: np.ndarray, variance: np.ndarray, *, least: float = 0.0) -> list[np.ndarray]:
    """Draws cut by a component's standard deviation where that varies enough to give the mixture heavier tails.

    A component with a mean weight of `least` or below is not cut.
    """
    everything = np.arange(len(variance))
    total = weight.sum()
    if len(variance) < 20 * len(SD_BINS) * len(MEAN_BINS) or total <= least * len(variance):
        return [everything]
    sd = np.sqrt(variance)
    mean = weight @ sd / total
    if np.sqrt(weight @ (sd - mean) ** 2 / total) <= SPREAD_FOR_BINS * mean:
        return [everything]
    return _cut(np.argsort(sd, kind="stable"), SD_BINS)


def _cut(order: np.ndarray, edges: np.ndarray) -> list[np.ndarray]:
    """Split an ordered set at quantiles."""
    return np.split(order, np.round(edges[1:-1] * len(order)).astype(int))


def _mean_and_covariance(w: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centre = w @ values
    apart = values - centre
    return centre, (apart * w[:, None]).T @ apart


def _quadratic(x: np.ndarray, form: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("ri,ij,rj->r", x, form, x, optimize=True))
