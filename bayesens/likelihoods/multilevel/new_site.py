"""What the members of all rows of a site say of its effect, before any of its observations is known.

Rows of one site are ``z_i = (y_i, f_i) = m + h + v_i`` with ``h ~ Normal(0, B)`` common to them and ``v_i ~ Normal(0, W)``. The
members alone of ``n_q`` rows that have the columns ``q``, with the averages ``fbar_q``, give

    A = sum_q n_q W_qq^-1        b = sum_q n_q W_qq^-1 (fbar_q - m_q)        (zero in the columns outside q)
    h | f ~ Normal(C b, C)       C = (B^-1 + A)^-1 = L (I + L' A L)^-1 L'    with B = L L', which may be singular

and of a row, whose own members are among these, y_i = m_y + h_y + c' (f_i - m_f - h_f) + noise with c = W_ff^-1 W_fy, the
noise W_yy - W_yf c, and what h leaves open, (1, -c)' C (1, -c).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

__all__ = ["Inside", "given_members", "inside", "new_sites", "root"]

Cell = tuple[
    np.ndarray, int, np.ndarray
]  # precision of one pattern of missing members, its number of rows, their averages


def new_sites(labels: np.ndarray | None, site: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the sites that a fit has not seen, and give all rows of such a site one group.

    Parameters
    ----------
    labels : str array (row), optional
        Labels of the sites, ``""`` where missing; None where the table has none.
    site, group : int array (row)
        Codes among the sites and groups of the fit, -1 for those that it has not seen.

    Returns
    -------
    new : int array (row)
        Number of the new site; -1 in rows of known sites and in rows without a label.
    group : int array (row)
        A row at a new site takes the group that any row of the site is known to have.

    Examples
    --------
    >>> labels, group = np.array(["x", "a", "x", ""]), np.array([1, 0, -1, 0])
    >>> [codes.tolist() for codes in new_sites(labels, np.array([-1, 0, -1, -1]), group)]
    [[0, -1, 0, -1], [1, 0, 1, 0]]
    """
    new = np.full(len(site), -1)
    if labels is None:
        return new, group
    rows = (site < 0) & (labels != "")
    names, code = np.unique(labels[rows], return_inverse=True)
    new[rows] = code.ravel()
    best = np.full(len(names), -1)
    np.maximum.at(best, new[rows], group[rows])
    group = group.copy()
    group[rows] = best[new[rows]]
    return new, group


@dataclass(frozen=True)
class Inside:
    """Rows about their site's mean that have the same members.

    Attributes
    ----------
    columns : int array (present)
        Of the members in ``z``: 1 is the first.
    linear : array (draw, present)
        Coefficients of y on the members.
    variance : array (draw)
        Of y, that they leave.
    precision : array (draw, column, column)
        Inverse of the members' covariance; zero in the columns of y and of missing members.
    """

    columns: np.ndarray
    linear: np.ndarray
    variance: np.ndarray
    precision: np.ndarray

    def open_at(self, covariance: np.ndarray) -> np.ndarray:
        """Variance (draw) of y, with what a covariance of the site's effect, given these rows' members too, leaves open."""
        contrast = np.zeros(covariance.shape[:2])
        contrast[:, 0] = 1.0
        contrast[:, self.columns] = -self.linear
        added: np.ndarray = np.sum(contrast * np.einsum("sij,sj->si", covariance, contrast), axis=1)
        return self.variance + added


def inside(within: np.ndarray, columns: np.ndarray) -> Inside:
    """Return what is the same for all rows with some members, at whatever site.

    Parameters
    ----------
    within : array (draw, column, column)
        Covariance of the rows about their site's mean; that of the members must be regular.
    columns : int array (present)
        Of the members in ``z``.

    Examples
    --------
    >>> found = inside(np.array([[[1.0, 1.0], [1.0, 2.0]]]), np.array([1]))
    >>> found.linear.tolist(), found.variance.tolist(), found.precision.tolist()
    ([[0.5]], [0.5], [[[0.0, 0.0], [0.0, 0.5]]])
    """
    block = np.ix_(np.arange(len(within)), columns, columns)
    inverse, cross = np.linalg.inv(within[block]), within[:, columns, 0]
    precision = np.zeros_like(within)
    precision[block] = inverse
    linear = np.einsum("sij,sj->si", inverse, cross)
    return Inside(columns, linear, within[:, 0, 0] - np.sum(linear * cross, axis=1), precision)


def root(covariance: np.ndarray) -> np.ndarray:
    """L with L L' = covariance, which a Cholesky root would need to be regular.

    Parameters
    ----------
    covariance : array (draw, column, column)
        Positive semi-definite.

    Examples
    --------
    >>> one = root(np.ones((1, 2, 2)))
    >>> (one @ one.swapaxes(1, 2)).round(9).tolist()
    [[[1.0, 1.0], [1.0, 1.0]]]
    """
    value, vector = np.linalg.eigh(covariance)
    out: np.ndarray = vector * np.sqrt(np.maximum(value, 0.0))[:, None, :]
    return out


def given_members(mean: np.ndarray, prior_root: np.ndarray, cells: Iterable[Cell]) -> tuple[np.ndarray, np.ndarray]:
    """Mean of ``z = (y, f)`` at a site and the covariance of the site's effect, given the members of its rows.

    Parameters
    ----------
    mean : array (draw, column)
        Before the members are seen.
    prior_root : array (draw, column, column)
        A :func:`root` of the covariance of the site's effect before the members are seen.
    cells : iterable of (precision, n, average)
        For each pattern of missing members the precision from :func:`inside`, the number of rows, and their averages
        (column); those of missing members, and of y, may be anything finite.

    Returns
    -------
    array (draw, column), array (draw, column, column)

    Examples
    --------
    One member with y = h + v, f = h + v + e, all of variance one, seen in two rows: their average 3 has the variance
    1 + (1 + 1) / 2 = 2, and half of it is the site's.

    >>> one = np.ones((1, 2, 2))
    >>> rows = inside(one + np.diag([0.0, 1.0]), np.array([1]))
    >>> mean, covariance = given_members(np.zeros((1, 2)), root(one), [(rows.precision, 2, np.array([0.0, 3.0]))])
    >>> mean.round(9).tolist(), covariance.round(9).tolist()
    ([[1.5, 1.5]], [[[0.5, 0.5], [0.5, 0.5]]])

    Within its site a row's own member leaves half of y, and a quarter of the site's half comes on top:

    >>> rows.open_at(covariance).round(9).tolist()
    [0.625]
    """
    total, information = np.zeros_like(prior_root), np.zeros_like(mean)
    for precision, n, average in cells:
        total += n * precision
        information += n * np.einsum("sij,sj->si", precision, average - mean)
    across = prior_root.swapaxes(1, 2)
    inner = np.eye(prior_root.shape[-1]) + across @ total @ prior_root
    covariance = prior_root @ np.linalg.solve(inner, across)
    return mean + np.einsum("sij,sj->si", covariance, information), covariance
