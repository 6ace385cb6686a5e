"""What a member's rows tell its correction: sums over rows and sites, and columns smoothed at every place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["Places", "Sums", "of_groups", "places"]


@dataclass(frozen=True)
class Sums:
    """What the correction takes from the rows of a member; columns are those of the design, and y last.

    Attributes
    ----------
    gram : array (column, column)
        Weighted sums of products over all rows.
    site : array (site, column)
        Weighted sums of each site.
    count : array (site)
        Sums of weights.
    group : int array (site)
        Number of each site's group.
    groups : int
    n : float
        Rows.
    """

    gram: np.ndarray
    site: np.ndarray
    count: np.ndarray
    group: np.ndarray
    groups: int
    n: float

    @classmethod
    def of(cls, z: np.ndarray, weight: np.ndarray, site: np.ndarray, group: np.ndarray, groups: int,
           n: float | None = None) -> Sums:  # fmt: skip
        """Sum rows.

        Parameters
        ----------
        z : array (row, column)
        weight : array (row)
        site : int array (row)
        group : int array (site)
        groups : int
        n : float, optional
            Rows that they stand for; None takes their number.

        Examples
        --------
        >>> z, one = np.array([[1.0, 2.0], [1.0, 4.0], [1.0, 9.0]]), np.ones(3)
        >>> sums = Sums.of(z, one, np.array([0, 0, 1]), np.array([0, 0]), 1)
        >>> sums.site.tolist(), sums.count.tolist(), sums.gram[0].tolist()
        ([[2.0, 6.0], [1.0, 9.0]], [2.0, 1.0], [3.0, 15.0])
        """
        weighted = weight[:, None] * z
        by_site = [np.bincount(site, column, minlength=len(group)) for column in weighted.T]
        count = np.bincount(site, weight, minlength=len(group))
        return cls(z.T @ weighted, np.stack(by_site, axis=1), count, group, groups, float(len(z) if n is None else n))

    def merge(self, other: Sums) -> Sums:
        """Sums of the rows of both, which have the same sites and groups."""
        return replace(self, gram=self.gram + other.gram, site=self.site + other.site, count=self.count + other.count,
                       n=self.n + other.n)  # fmt: skip

    def by_group(self, values: np.ndarray) -> np.ndarray:
        """Sum over the sites of each group, (..., site, column) to (..., group, column)."""
        order = np.argsort(self.group, kind="stable")
        starts = np.searchsorted(self.group[order], np.arange(self.groups))
        return np.asarray(np.add.reduceat(values[..., order, :], starts, axis=-2))


def of_groups(sums: Sums, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """B (pair, group, column) and D (pair, group)."""
    b = sums.by_group(sums.site[None] / inner[:, :, None])
    d = sums.by_group((sums.count / inner)[:, :, None])[:, :, 0]
    return b, d


@dataclass(frozen=True)
class Places:
    """Smoothed columns and open variance of the effects, at each known site, in each known group, and elsewhere.

    Attributes
    ----------
    site : array (site + 1, column)
        Smoothed columns, y last, at every site; zeros in the last line.
    group : array (group + 1, column)
        At a new site of every group; zeros in the last line, a new group's.
    site_open : array (site + 1)
        Variance that the data leave of the effects, in units of tau^2; what a new site or group adds is not in it.
    group_open : array (group + 1)
    """

    site: np.ndarray
    group: np.ndarray
    site_open: np.ndarray
    group_open: np.ndarray


def places(sums: Sums, site: float, group: float) -> Places:
    """Smooth at one pair of ratios.

    Parameters
    ----------
    sums : Sums
    site, group : float

    Returns
    -------
    Places
        What a new site, or a new group, adds of its own is left out: ``(site tau)^2`` and ``(group tau)^2``.

    Examples
    --------
    Two rows with mean 3 at one site, and a ratio of one: two thirds of the mean, and a third of the variance is left.

    >>> z = np.array([[2.0], [4.0]])
    >>> found = places(Sums.of(z, np.ones(2), np.zeros(2, dtype=int), np.zeros(1, dtype=int), 1), 1.0, 0.0)
    >>> found.site[0].round(9).tolist(), found.site_open.round(6).tolist()
    ([2.0], [0.333333, 0.0])
    """
    u, v = site**2, group**2
    inner = 1.0 + u * sums.count
    b, d = of_groups(sums, inner[None])
    of_group, open_group = v * b[0] / (1.0 + v * d[0])[:, None], v / (1.0 + v * d[0])
    at_site = (u * sums.site + of_group[sums.group]) / inner[:, None]
    open_site = u / inner + open_group[sums.group] / inner**2
    nothing = np.zeros((1, sums.gram.shape[0]))
    return Places(np.concatenate([at_site, nothing]), np.concatenate([of_group, nothing]), np.append(open_site, 0.0),
                  np.append(open_group, 0.0))  # fmt: skip
