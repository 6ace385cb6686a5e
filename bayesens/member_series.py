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

import numpy as np

__all__ = ["given_members", "left_open", "new_sites"]

Cell = tuple[np.ndarray, int, np.ndarray]  # columns of z, number of rows that have just these, and their averages


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


def given_members(
    mean: np.ndarray, prior: np.ndarray, within: np.ndarray, cells: Iterable[Cell]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of ``z = (y, f)`` at a site and the covariance of the site's effect, given the members of its rows.

    Parameters
    ----------
    mean : array (draw, column)
        Before the members are seen.
    prior : array (draw, column, column)
        Covariance of the site's effect before the members are seen; positive semi-definite.
    within : array (draw, column, column)
        Covariance of the rows about their site's mean; that of the members must be regular.
    cells : iterable of (columns, n, average)
        For each pattern of missing members the columns of ``z`` that are there (int array, 1 is the first member), the
        number of rows, and their averages (column).

    Returns
    -------
    array (draw, column), array (draw, column, column)

    Examples
    --------
    One member with y = h + v, f = h + v + e, all of variance one, seen in two rows: their average 3 has the variance
    1 + (1 + 1) / 2 = 2, and half of it is the site's.

    >>> one = np.ones((1, 2, 2))
    >>> rows = (np.array([1]), 2, np.array([3.0]))
    >>> mean, covariance = given_members(np.zeros((1, 2)), one, one + np.diag([0.0, 1.0]), [rows])
    >>> mean.round(9).tolist(), covariance.round(9).tolist()
    ([[1.5, 1.5]], [[[0.5, 0.5], [0.5, 0.5]]])
    """
    p = within.shape[-1]
    precision, information = np.zeros((len(within), p, p)), np.zeros((len(within), p))
    for columns, n, average in cells:
        block = np.ix_(np.arange(len(within)), columns, columns)
        inverse = np.linalg.inv(within[block])
        precision[block] += n * inverse
        information[:, columns] += n * np.einsum("sij,sj->si", inverse, average - mean[:, columns])
    root = _root(prior)
    across = root.swapaxes(1, 2)
    left = root @ np.linalg.solve(np.eye(p) + across @ precision @ root, across)
    return mean + np.einsum("sij,sj->si", left, information), left


def left_open(linear: np.ndarray, columns: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Variance that a site's effect adds to a row, whose own members its covariance is given.

    Parameters
    ----------
    linear : array (draw, present)
        Coefficients of y on the row's members within the site.
    columns : int array (present)
        Columns of ``z`` in which they stand.
    covariance : array (draw, column, column)
        Of the site's effect, from :func:`given_members`.

    Returns
    -------
    array (draw)

    Examples
    --------
    >>> left_open(np.array([[0.5]]), np.array([1]), np.array([[[0.5, 0.5], [0.5, 0.5]]])).tolist()
    [0.125]
    """
    contrast = np.zeros(covariance.shape[:2])
    contrast[:, 0] = 1.0
    contrast[:, columns] = -linear
    variance: np.ndarray = np.einsum("si,sij,sj->s", contrast, covariance, contrast, optimize=True)
    return variance


def _root(covariance: np.ndarray) -> np.ndarray:
    """L with L L' = covariance, which a Cholesky root would need to be regular."""
    value, vector = np.linalg.eigh(covariance)
    root: np.ndarray = vector * np.sqrt(np.maximum(value, 0.0))[:, None, :]
    return root
