"""Sufficient statistics of rows under a Gaussian multilevel model: counts, means and scatter by site and missing columns.

Those of chunks merge into those of the whole, so that no more than a chunk need ever be in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import xarray as xr

__all__ = ["Root", "Statistics", "Tally", "factorized", "residual_share", "statistics"]

WELL = 1e-5  # least eigenvalue of a correlation matrix whose Cholesky root has the digits that a QR would have
Coded = tuple[np.ndarray, np.ndarray]  # labels, and the code of each row among them


@dataclass(frozen=True)
class Statistics:
    """What a Gaussian multilevel likelihood needs of the rows: one cell per site and pattern of missing columns.

    Attributes
    ----------
    pattern : bool array (pattern, column)
        Which columns of ``z = (y, members)`` a pattern has.
    scatter : array (pattern, column, column)
        Sum over cells of the products of deviations from the cell's mean.
    n, mean : array (cell), (cell, column)
        Number of rows and means; 0 where a column is missing.
    cell_pattern, cell_site : int array (cell)
        Cells are sorted by site.
    site_group : int array (site)
        Sites are sorted by group.
    """

    pattern: np.ndarray
    scatter: np.ndarray
    n: np.ndarray
    mean: np.ndarray
    cell_pattern: np.ndarray
    cell_site: np.ndarray
    site_group: np.ndarray
    n_groups: int

    def packed(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all numbers as the kernels read them.

        Returns
        -------
        data : array
            ``scatter``, ``n`` and ``mean`` end to end.
        index : int array
            Numbers of columns, patterns, cells, sites, groups and short sites; then ``pattern``, ``cell_pattern``,
            ``cell_site``, ``site_group``; for each site its place among those that are not short (-1: it is short); the
            cells of the short ones, group by group; and where each group begins among them.

        Notes
        -----
        A site is short if it has one cell and that all columns: a count and a mean say all about it.
        """
        complete = np.bincount(self.cell_site, 2 - self.pattern.all(axis=1)[self.cell_pattern], len(self.site_group))
        short = complete == 1
        place = np.where(short, -1, np.cumsum(~short) - 1)
        cells = np.flatnonzero(short[self.cell_site])
        cells = cells[np.argsort(self.site_group[self.cell_site[cells]], kind="stable")]
        start = np.append(0, np.cumsum(np.bincount(self.site_group[short], minlength=self.n_groups)))
        head = [self.pattern.shape[1], len(self.pattern), len(self.n), len(self.site_group), self.n_groups, len(cells)]
        parts = [
            np.array(head),
            np.ravel(self.pattern),
            self.cell_pattern,
            self.cell_site,
            self.site_group,
            place,
            cells,
            start,
        ]
        data = np.concatenate([np.ravel(self.scatter), self.n, np.ravel(self.mean)])
        return data.astype(float), np.concatenate(parts).astype(np.int64)

    def to_dataset(self) -> xr.Dataset:
        """Return the arrays under their names, for a file; :meth:`from_dataset` reads them."""
        return xr.Dataset({
            "present": (("pattern", "column"), self.pattern.astype(np.int8)),
            "scatter": (("pattern", "column", "column_"), self.scatter),
            "n": ("cell", self.n), "mean": (("cell", "column"), self.mean),
            "cell_pattern": ("cell", self.cell_pattern), "cell_site": ("cell", self.cell_site),
            "site_group": ("unit", self.site_group),
        }, attrs={"n_groups": self.n_groups})  # fmt: skip

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> Statistics:
        """Read what :meth:`to_dataset` wrote."""
        arrays = {name: dataset[name].values for name in dataset.data_vars}
        return cls(
            arrays["present"].astype(bool), arrays["scatter"], arrays["n"], arrays["mean"], arrays["cell_pattern"],
            arrays["cell_site"], arrays["site_group"], int(dataset.attrs["n_groups"]),
        )  # fmt: skip


def residual_share(data: Statistics) -> np.ndarray:
    """Share of each member's variance that a linear function of the observation leaves, over the rows that have it.

    Examples
    --------
    >>> z = np.array([[1.0, 3.0, 2.0], [2.0, 5.0, 2.0], [3.0, 7.0, 5.0]])
    >>> residual_share(statistics(z, np.zeros(3, dtype=int), np.zeros(1, dtype=int))).round(6).tolist()
    [0.0, 0.25]
    """
    out = np.ones(data.pattern.shape[1] - 1)
    for k in range(len(out)):
        columns = [0, 1 + k]
        cells = data.pattern[data.cell_pattern][:, columns].all(axis=1)
        if not cells.any():
            continue
        deviation = data.mean[cells][:, columns] - np.average(
            data.mean[cells][:, columns], axis=0, weights=data.n[cells]
        )
        inside = data.scatter[data.pattern[:, columns].all(axis=1)].sum(axis=0)[np.ix_(columns, columns)]
        (yy, yf), (_, ff) = inside + deviation.T @ (deviation * data.n[cells][:, None])
        if yy > 0.0 and ff > 0.0:
            out[k] = 1.0 - yf**2 / (yy * ff)
    return out


def statistics(z: np.ndarray, site: np.ndarray, site_group: np.ndarray) -> Statistics:
    """Sum rows into :class:`Statistics`.

    `z` is (obs, column), observation and members, NaN where missing; `site` numbers the site of each row, `site_group` the
    group of each site, non-decreasing.

    Examples
    --------
    >>> s = statistics(np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([0, 0]), np.array([0]))
    >>> s.mean.tolist(), s.scatter[0].tolist()
    ([[2.0, 2.0]], [[2.0, 0.0], [0.0, 0.0]])
    """
    pattern, code = _patterns(np.isfinite(z))
    key, cell = factorized(site.astype(np.int64) * len(pattern) + code)
    n, mean, _, scatter = _pool(np.nan_to_num(z), None, None, cell, code, len(pattern))
    return Statistics(pattern, scatter, n, mean, key % len(pattern), key // len(pattern), site_group.astype(np.int64),
                      int(site_group.max()) + 1)  # fmt: skip


# Chunks --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tally:
    """Statistics under the labels of their sites and groups: tallies of chunks merge into that of all their rows.

    Attributes
    ----------
    statistics : Statistics
    group, site : str array (unit)
        Labels of its sites, sorted by group, then by site; ``""`` where missing.
    rest : array (cell, column)
        What rounding took from the means: without it, each merge would lose digits where values are far from zero.
    """

    statistics: Statistics
    group: np.ndarray
    site: np.ndarray
    rest: np.ndarray

    @classmethod
    def of_rows(cls, z: np.ndarray, group: Coded, site: Coded) -> Tally:
        """Sum rows, given the labels of groups and sites and the code of each row among them.

        Examples
        --------
        >>> z, no_group = np.array([[1.0], [3.0], [5.0]]), (np.array([""]), np.zeros(3, dtype=int))
        >>> tally = Tally.of_rows(z, no_group, (np.array(["b", "a"]), np.array([1, 1, 0])))
        >>> tally.site.tolist(), tally.statistics.n.tolist(), tally.statistics.mean.tolist()
        (['a', 'b'], [2.0, 1.0], [[2.0], [5.0]])
        """
        present = ~np.isnan(z)
        pattern, code = _patterns(present)
        pair, unit = factorized(group[1].astype(np.int64) * len(site[0]) + site[1])
        zero = np.zeros((len(pattern), z.shape[1], z.shape[1]))
        groups, sites = group[0][pair // len(site[0])], site[0][pair % len(site[0])]
        return _tally(np.where(present, z, 0.0), None, None, pattern, code, zero, groups, sites, unit)

    def merge(self, *others: Tally) -> Tally:
        """Return the tally of the rows of all, exact up to rounding whatever the order.

        References
        ----------
        Chan, Golub and LeVeque (1983), The American Statistician 37, 242-247: the pairwise update of means and scatter.
        """
        parts = (self, *others)
        each = [part.statistics for part in parts]
        first_pattern = np.cumsum([0, *(len(s.pattern) for s in each)])
        first_unit = np.cumsum([0, *(len(s.site_group) for s in each)])
        return _tally(
            np.concatenate([s.mean for s in each]),
            np.concatenate([part.rest for part in parts]),
            np.concatenate([s.n for s in each]),
            np.concatenate([s.pattern for s in each]),
            np.concatenate([s.cell_pattern + at for s, at in zip(each, first_pattern[:-1])]),
            np.concatenate([s.scatter for s in each]),
            np.concatenate([part.group for part in parts]),
            np.concatenate([part.site for part in parts]),
            np.concatenate([s.cell_site + at for s, at in zip(each, first_unit[:-1])]),
        )

    def keep(self, *, group: bool, site: bool) -> Tally:
        """Return the tally with rows pooled over the levels that are not kept."""
        s = self.statistics
        labels = [x if kept else np.full(len(x), "") for x, kept in ((self.group, group), (self.site, site))]
        return _tally(s.mean, self.rest, s.n, s.pattern, s.cell_pattern, s.scatter, labels[0], labels[1], s.cell_site)


@dataclass(frozen=True, eq=False)
class Root:
    """Triangular root of the scatter of rows without gaps, which keeps the digits that the scatter itself squares away.

    Attributes
    ----------
    n : int
    mean : array (column)
    triangle : array (column, column)
        ``R`` with ``R' R`` the sum of products of deviations from the mean.
    """

    n: int
    mean: np.ndarray
    triangle: np.ndarray

    @classmethod
    def of_rows(cls, values: np.ndarray) -> Root:
        """Root of rows (row, column) without gaps."""
        size = values.shape[1]
        mean = np.array([column.mean() for column in values.T]) if len(values) else np.zeros(size)
        return cls(len(values), mean, _triangle(values - mean, size))

    def merge(self, *others: Root) -> Root:
        """Return the root for the rows of all: by QR of the roots and of the means' deviations."""
        parts = (self, *others)
        n = np.array([part.n for part in parts], dtype=float)
        means = np.stack([part.mean for part in parts])
        first = means[np.argmax(n)]
        mean = first + (n @ (means - first)) / max(n.sum(), 1.0)
        between = np.sqrt(n)[:, None] * (means - mean)
        return Root(int(n.sum()), mean, _triangle(np.vstack([*(p.triangle for p in parts), between]), len(mean)))


def factorized(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different values, sorted, and where each stands among them: ``numpy.unique`` by hashing, for long arrays.

    Examples
    --------
    >>> values, code = factorized(np.array([7, 3, 7]))
    >>> values.tolist(), code.tolist()
    ([3, 7], [1, 0, 1])
    """
    code, unique = pd.factorize(values, sort=True)
    return np.asarray(unique), np.asarray(code)


def _patterns(present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different rows of a boolean array in lexicographic order, and which of them each row is."""
    if present.all():
        return present[:1], np.zeros(len(present), dtype=np.int64)
    code = np.zeros(len(present), dtype=np.int64)
    for j in range(present.shape[1]):
        code = 2 * code + present[:, j]
        if j % 31 == 30:  # numbered anew, in the same order, before the bits run out
            code = factorized(code)[1]
    unique, code = factorized(code)
    return present[_first(code, len(unique))], code


def _first(code: np.ndarray, size: int) -> np.ndarray:
    """Where each code stands first."""
    first = np.empty(size, dtype=np.int64)
    first[code[::-1]] = np.arange(len(code))[::-1]
    return first


def _pool(
    mean: np.ndarray, rest: np.ndarray | None, n: np.ndarray | None, cell: np.ndarray, code: np.ndarray, n_patterns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pool cells that share a number: counts, means, their rests, and what their spread adds to each pattern's scatter.

    A row is a cell with one row in it, where `rest` and `n` are None. Means are 0 where a column is missing, and so are
    all deviations.
    """
    size = int(cell.max()) + 1 if len(cell) else 0
    count, first = np.bincount(cell, n, size).astype(float), _first(cell, size)
    pooled, left, away = np.empty((size, mean.shape[1])), np.empty((size, mean.shape[1])), np.empty(mean.T.shape)
    for j, column in enumerate(mean.T):
        origin = column[first]
        deviation = column - origin[cell]  # from a value of the cell itself: nothing large is summed
        if rest is not None:
            deviation += rest[:, j]
        shift = np.bincount(cell, deviation if n is None else n * deviation, size) / count
        pooled[:, j] = origin + shift
        taken = pooled[:, j] - origin  # Knuth's sum of two numbers, with what rounding leaves
        left[:, j] = (origin - (pooled[:, j] - taken)) + (shift - taken)
        away[j] = deviation - shift[cell]
        if n is not None:
            away[j] *= np.sqrt(n)
    ends = np.cumsum([0, *np.bincount(code, minlength=n_patterns)])
    if n_patterns > 1:
        code = code.astype(np.uint16) if n_patterns < 2**16 else code  # 16 bits: a radix sort
        away = away[:, np.argsort(code, kind="stable")]
    blocks = [away[:, start:stop] for start, stop in pairwise(ends)]
    scatter = np.stack([block @ block.T for block in blocks]) if blocks else np.zeros((0, *[mean.shape[1]] * 2))
    return count, pooled, left, scatter


def _tally(
    mean: np.ndarray,
    rest: np.ndarray | None,
    n: np.ndarray | None,
    pattern: np.ndarray,
    code: np.ndarray,
    scatter: np.ndarray,
    group: np.ndarray,
    site: np.ndarray,
    unit: np.ndarray,
) -> Tally:
    """Pool cells that have the same labels and pattern, and sort them: one form for the same rows."""
    patterns, renamed = np.unique(pattern, axis=0, return_inverse=True)
    code = renamed.ravel()[code]
    groups, g = np.unique(group, return_inverse=True)
    sites, s = np.unique(site, return_inverse=True)
    pairs, place = np.unique(g * len(sites) + s, return_inverse=True)
    key, cell = factorized(place[unit] * len(patterns) + code)
    count, pooled, left, spread = _pool(mean, rest, n, cell, code, len(patterns))
    for q, part in zip(renamed.ravel(), scatter):
        spread[q] += part
    site_group = pairs // len(sites) if len(sites) else pairs
    at = key % len(patterns), key // len(patterns)
    return Tally(
        Statistics(patterns, spread, count, pooled, *at, site_group, len(groups)),
        groups[site_group], sites[pairs % len(sites)], left,
    )  # fmt: skip


def _triangle(deviation: np.ndarray, size: int) -> np.ndarray:
    """Triangle of a QR factorisation, padded with zeros where there are fewer rows than columns.

    Where the columns are far from dependent, the Cholesky root of their products is as good, and several times as fast.
    """
    out = np.zeros((size, size))
    if len(deviation) > size:
        products = deviation.T @ deviation
        norm = np.sqrt(np.diag(products))
        if norm.all() and np.linalg.eigvalsh(products / norm / norm[:, None])[0] > WELL:
            return np.linalg.cholesky(products).T
    if len(deviation):
        triangle = np.linalg.qr(deviation, mode="r")
        out[: len(triangle)] = triangle
    return out
