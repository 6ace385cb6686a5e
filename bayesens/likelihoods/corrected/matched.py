"""One component of a predictive mixture around corrected members: its normals, and the nodes of their widths."""

from __future__ import annotations

import numpy as np

from bayesens.distributions.matching import Match, match

__all__ = ["component_match", "factors", "nodes", "width_covariance"]

# A row's width varies over draws with its covariates' coefficients: where its logarithm may vary by more than UNSURE,
# every bin is given three widths, the nodes of Gauss-Hermite quadrature, with the same mean variance.
UNSURE, NODES, SHARES = 0.03, np.sqrt(3.0) * np.array([-1.0, 0.0, 1.0]), np.array([1.0, 4.0, 1.0]) / 6.0
ROUNDING = 1e-13  # of a coefficient
LIGHT = 0.05  # mean weight below which a component is matched by one normal: its tails hardly count


def component_match(
    share: np.ndarray, coefficient: np.ndarray, base: np.ndarray, widening: np.ndarray, width: np.ndarray
) -> Match:
    """Normals of one component from its draws: of the variance ``base exp(2 x' width) (widening + left)``."""
    apart = coefficient - share @ coefficient / share.sum()
    # Each column in units of its own spread, so that what a row gets does not depend on the rows beside it.
    unit = np.sqrt(share @ apart**2 / share.sum())
    unit[unit <= ROUNDING * np.abs(coefficient).max(axis=0)] = 0.0  # a column that does not vary is no direction
    root, inverse = np.diag(1.0 / np.where(unit > 0.0, unit, 1.0)), np.diag(unit)
    terms = (base * widening, base)
    return match(share, coefficient, terms, width, root=root, inverse=inverse, variance=terms[0], least=LIGHT)


def nodes(
    share: np.ndarray, width: np.ndarray, normals: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Shares and nodes of a component's widths; what decides is a row whose covariates are two from typical.

    A t kernel's shares are those of its normals, beside whose widths that of draws hardly matters, and its nodes variances.
    """
    if normals is not None:
        return normals
    largest = np.linalg.eigvalsh(width_covariance(width))[-1] if width.shape[1] else 0.0
    if 2.0 * np.sqrt(max(largest, 0.0)) <= UNSURE or share.sum() <= LIGHT * len(share):
        return np.ones(1), np.zeros(1)
    return SHARES, NODES


def factors(
    covariate: np.ndarray, shares: np.ndarray, node: np.ndarray, width: np.ndarray, *, normals: bool
) -> np.ndarray:
    """Factors of the mean variance that the nodes have, (row, node)."""
    if normals:
        return node[None]
    variance = np.einsum("ri,ij,rj->r", covariate, width_covariance(width), covariate)
    factor = np.exp(2.0 * np.outer(np.sqrt(np.maximum(variance, 0.0)), node))
    return np.asarray(factor / (factor @ shares)[:, None])


def width_covariance(width: np.ndarray) -> np.ndarray:
    """Covariance over draws of the widths' coefficients."""
    apart = np.ascontiguousarray(
        width
    )  # products are rounded by how matrices lie in memory, otherwise in fits from files
    apart = apart - apart.mean(axis=0)
    return np.asarray(apart.T @ apart / len(width))
