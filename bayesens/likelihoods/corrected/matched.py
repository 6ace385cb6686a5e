"""One component of a predictive mixture over draws, matched by few normals a row that have its moments."""

from __future__ import annotations

import numpy as np

from bayesens.distributions.posterior_mixture import MEAN_BINS, cut, sd_bins

__all__ = ["matched_component"]

# A row's width varies over draws with its covariates' coefficients: where its logarithm may vary by more than UNSURE,
# every bin is given three widths, the nodes of Gauss-Hermite quadrature, with the same mean variance.
UNSURE, NODES, SHARES = 0.03, np.sqrt(3.0) * np.array([-1.0, 0.0, 1.0]), np.array([1.0, 4.0, 1.0]) / 6.0
LIGHT = 0.05  # mean weight below which a component is matched by one normal: its tails hardly count


def matched_component(
    x: np.ndarray, share: np.ndarray, coefficient: np.ndarray, base: np.ndarray, widening: np.ndarray, left: np.ndarray,
    covariate: np.ndarray, width: np.ndarray, normals: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Weights, means and standard deviations (row, bin) of one component."""
    everything = [np.arange(len(share))]
    by_sd = sd_bins(share, base * widening, least=LIGHT)
    if len(by_sd) == 1:
        return _bins(x, everything, share, coefficient, base, widening, left, covariate, width, normals)
    total = share.sum()
    apart = coefficient - share @ coefficient / total
    # What makes the mean vary depends on the row: there is a cut for every principal direction of the coefficients, each in units
    # of its own spread, so that what a row gets does not depend on the rows beside it.
    unit = np.sqrt(share @ apart**2 / total)
    apart = apart / np.where(unit > 0.0, unit, 1.0)
    _, direction = np.linalg.eigh((apart * share[:, None]).T @ apart)
    score = apart @ direction
    moved = (x * unit @ direction) ** 2 * (share @ score**2)
    choice = np.argmax(moved, axis=1)
    columns = len(by_sd) * (len(MEAN_BINS) - 1) * len(_nodes(share, width, normals)[0])
    out = [np.empty((len(x), columns)) for _ in range(3)]
    for j in np.unique(choice):
        rows = choice == j
        subsets = [t for subset in by_sd for t in cut(subset[np.argsort(score[subset, j], kind="stable")], MEAN_BINS)]
        found = _bins(x[rows], subsets, share, coefficient, base, widening, left[rows], covariate[rows], width, normals)
        for array, part in zip(out, found, strict=True):
            array[rows] = part
    return out[0], out[1], out[2]


def _bins(
    x: np.ndarray, subsets: list[np.ndarray], share: np.ndarray, coefficient: np.ndarray, base: np.ndarray,
    widening: np.ndarray, left: np.ndarray, covariate: np.ndarray, width: np.ndarray,
    normals: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Share of each set of draws, and mean and standard deviation of the normal with the set's moments, (row, set)."""
    unsure = _unsure(covariate, width[np.concatenate(subsets)])
    shares, nodes = _nodes(share, width, normals)
    weights, means, sds = (np.empty((len(x), len(subsets) * len(nodes))) for _ in range(3))
    for b, subset in enumerate(subsets):
        columns = slice(b * len(nodes), (b + 1) * len(nodes))
        total = share[subset].sum()
        w = share[subset] / total if total > 0.0 else np.full(len(subset), 1.0 / len(subset))
        centre = w @ coefficient[subset]
        apart = coefficient[subset] - centre
        spread = (apart * w[:, None]).T @ apart
        variance = _mean_variance(w, base[subset], widening[subset], left, covariate, width[subset])
        if normals is None:
            factor = np.exp(2.0 * np.outer(unsure, nodes))
            factor /= (factor @ shares)[:, None]
        else:
            factor = nodes[None]
        parameter = np.maximum(np.einsum("ri,ij,rj->r", x, spread, x, optimize=True), 0.0)
        weights[:, columns] = total / len(share) * shares
        means[:, columns] = (x @ centre)[:, None]
        sds[:, columns] = np.sqrt(variance[:, None] * factor + parameter[:, None])
    return weights, means, sds


def _nodes(
    share: np.ndarray, width: np.ndarray, normals: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Shares and nodes of a component's widths; what decides is a row whose covariates are two from typical.

    A t kernel's shares are those of its normals, beside whose widths that of draws hardly matters, and its nodes variances.
    """
    if normals is not None:
        return normals
    largest = np.linalg.eigvalsh(np.cov(width.T, ddof=0).reshape(width.shape[1], -1))[-1] if width.shape[1] else 0.0
    if 2.0 * np.sqrt(max(largest, 0.0)) <= UNSURE or share.sum() <= LIGHT * len(share):
        return np.ones(1), np.zeros(1)
    return SHARES, NODES


def _unsure(covariate: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Standard deviation over draws of each row's log width, (row)."""
    apart = width - width.mean(axis=0)
    return np.asarray(
        np.sqrt(np.maximum(np.einsum("ri,ij,rj->r", covariate, apart.T @ apart / len(width), covariate), 0.0))
    )


def _mean_variance(
    w: np.ndarray, base: np.ndarray, widening: np.ndarray, left: np.ndarray, covariate: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Mean over draws of ``base exp(2 x' width) (widening + left)``, (row).

    Under the draws weighted by ``w base`` the widths are close to normal, and the mean of the exponential follows from their
    mean and covariance.
    """
    out: np.ndarray | float = 0.0
    for factor, scale in ((widening, 1.0), (np.ones_like(base), left)):
        tilted = w * base * factor
        size = tilted.sum()
        out = out + scale * size * _mean_exponential(tilted / size, covariate, width)
    return np.asarray(out)


def _mean_exponential(w: np.ndarray, covariate: np.ndarray, width: np.ndarray) -> np.ndarray:
    if width.shape[1] == 0:
        return np.ones(len(covariate))
    centre = w @ width
    apart = width - centre
    spread = (apart * w[:, None]).T @ apart
    exponent = 2.0 * covariate @ centre + 2.0 * np.einsum("ri,ij,rj->r", covariate, spread, covariate)
    return np.asarray(np.exp(exponent))
