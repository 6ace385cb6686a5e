"""Sufficient statistics of rows under a Gaussian multilevel model: counts, means and scatter by site and missing columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

__all__ = ["Statistics", "statistics"]


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

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Return the arrays in the order of the kernels."""
        count = np.zeros(1) + self.n_groups
        return (
            self.pattern,
            self.scatter,
            self.n,
            self.mean,
            self.cell_pattern,
            self.cell_site,
            self.site_group,
            count,
        )

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


def statistics(z: np.ndarray, site: np.ndarray, site_group: np.ndarray) -> Statistics:
    """Sum rows into :class:`Statistics`.

    Parameters
    ----------
    z : array (obs, column)
        Observation and members; NaN where missing.
    site : int array (obs)
        Index of each row's site.
    site_group : int array (site)
        Index of each site's group, non-decreasing.

    Returns
    -------
    Statistics

    Examples
    --------
    >>> s = statistics(np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([0, 0]), np.array([0]))
    >>> s.mean.tolist(), s.scatter[0].tolist()
    ([[2.0, 2.0]], [[2.0, 0.0], [0.0, 0.0]])
    """
    present = np.isfinite(z)
    pattern, code = np.unique(present, axis=0, return_inverse=True)
    key = site.astype(np.int64) * len(pattern) + code.ravel()
    cells, cell = np.unique(key, return_inverse=True)
    filled = np.where(present, z, 0.0)
    n = np.bincount(cell).astype(float)
    mean = np.stack([np.bincount(cell, filled[:, j]) for j in range(z.shape[1])], axis=1) / n[:, None]
    deviation = np.where(present, filled - mean[cell], 0.0)
    scatter = np.stack([deviation[code.ravel() == q].T @ deviation[code.ravel() == q] for q in range(len(pattern))])
    return Statistics(pattern, scatter, n, mean, cells % len(pattern), cells // len(pattern), site_group.astype(np.int64),
                      int(site_group.max()) + 1)  # fmt: skip
