"""Regressions of the observation on the members, row by row, at places that a fit has seen and at new ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby

import numpy as np
import xarray as xr

from bayesens.distributions.posterior_mixture import Block, row_classes
from bayesens.ensemble.rows import Rows
from bayesens.likelihoods.multilevel.known_sites import KnownSites, Line, regression
from bayesens.likelihoods.multilevel.new_site import given_members, inside, root

__all__ = ["Places", "blocks"]

Columns = tuple[int, ...]  # of the members that rows have; the first member is 1


class Places:
    """Regressions at groups and sites, known ones by their number and new ones as -1, for each posterior draw.

    Parameters
    ----------
    moments : dict of array
        ``mean (draw, column)``, and ``within``, ``site``, ``group`` ``(draw, column, column)``, of ``z = (y, f)``.
    draw : dict of array (draw, ...)
        Posterior draws by name, with the effects.
    history : Dataset, optional
        Of the training rows: known effects are integrated out given it. None takes those that were drawn.
    """

    def __init__(self, moments: dict[str, np.ndarray], draw: dict[str, np.ndarray], history: xr.Dataset | None) -> None:
        self.moments, self.draw = moments, draw
        self.known = None if history is None else _known(moments, history)
        self.number = None if history is None else history["place"].values  # of a site among the statistics
        # What places of which the effects are drawn share, all but their mean; and what new sites share: the rows' law
        # inside, by pattern, and what is open of a site, by group.
        self._slopes = lru_cache(maxsize=64)(self._regression)
        self._inside = lru_cache(maxsize=64)(lambda columns: inside(moments["within"], np.array(columns, dtype=int)))
        self._open_root = lru_cache(maxsize=1)(lambda group: root(self.before(group, -1)[1]))

    def before(self, group: int, site: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean at a place and covariance of its effect, before members are seen."""
        m = self.moments
        mean, covariance = self._drawn(group, site) if self.known is None else self._given_rows(self.known, group)
        return m["mean"] + mean, covariance + (site < 0) * m["site"] + (group < 0) * m["group"]

    def _drawn(self, group: int, site: int) -> tuple[np.ndarray, np.ndarray]:
        """The effects that the posterior holds: known, once drawn."""
        p = self.draw["bias"].shape[1] + 1
        total = np.zeros((len(self.draw["bias"]), p))
        for level, code in (("group", group), ("site", site)):
            if code >= 0:
                truth = self.draw[f"truth_{level}"][:, code, None]
                total[:, :1] += truth
                total[:, 1:] += self.draw[f"bias_{level}"][:, code] + truth * self.draw[f"slope_{level}"]
        return total, np.zeros((p, p))

    @staticmethod
    def _given_rows(known: KnownSites, group: int) -> tuple[np.ndarray, np.ndarray]:
        """A group's effect given the training rows; nothing is known of a new one, or where groups are none."""
        if group >= 0:
            return known.group_mean[:, group], known.group_cov[:, group]
        p = known.mean.shape[1]
        return np.zeros((1, p)), np.zeros((p, p))

    def _regression(self, group: int, site: int, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
        covariance = self.moments["within"] + self.before(group, site)[1]
        return regression(covariance, np.array(columns, dtype=int))

    def line(self, group: int, site: int, columns: Columns) -> Line:
        """Regression of y on a row's own members."""
        if self.known is not None and self.number is not None and site >= 0:
            return self.known.line(int(self.number[site]), columns)
        slope, variance = self._slopes(group if self.known is not None else min(group, 0), min(site, 0), columns)
        return _through(self.before(group, site)[0], columns, slope, variance)

    def series(self, group: int, cells: Sequence[tuple[Columns, np.ndarray]]) -> Iterator[Line]:
        """Regressions at a new site given the members of all its rows, for each set of members that rows of it have.

        Parameters
        ----------
        group : int
        cells : sequence of (columns, members of the rows that have these)
        """
        told = [(self._inside(columns).precision, len(f), np.append(0.0, f.mean(axis=0))) for columns, f in cells]
        mean, covariance = given_members(self.before(group, -1)[0], self._open_root(group), told)
        for columns, _ in cells:  # the row's own members have told of the site already
            rows = self._inside(columns)
            yield _through(mean, columns, rows.linear, rows.open_at(covariance))


def _through(mean: np.ndarray, columns: Columns, slope: np.ndarray, variance: np.ndarray) -> Line:
    """The line through a mean (draw, column)."""
    return Line(mean[:, 0] - np.sum(slope * mean[:, list(columns)], axis=1), slope, variance)


def _known(m: dict[str, np.ndarray], history: xr.Dataset) -> KnownSites:
    """The sites of a fit, with the groups' effects given the training rows."""
    from bayesens.ensemble.sufficient import Statistics
    from bayesens.likelihoods.multilevel.effects import group_moments

    data = Statistics.from_dataset(history.drop_vars("place"))
    groups = group_moments(m["mean"], m["within"], m["site"], m["group"], data=data)
    return KnownSites(m["mean"], m["within"], m["site"], *groups, data=data)


def blocks(places: Places, rows: Rows, group: np.ndarray, site: np.ndarray, new: np.ndarray) -> Iterator[Block]:
    """Give the laws of all rows, one block for rows that share group, site and members.

    Parameters
    ----------
    places : Places
    rows : Rows
    group, site : int array (row)
        Codes among those of the fit; -1 for others.
    new : int array (row)
        Number of the new site that is predicted from the members of all its rows; -1 in other rows.
    """
    patterns, pattern = np.unique(rows.available, axis=0, return_inverse=True)
    having = [tuple(1 + np.nonzero(present)[0]) for present in patterns]
    for (g, s, series), classes in groupby(
        row_classes(group, site, new, pattern.ravel()), key=lambda item: item[1][:-1]
    ):
        cells = [(having[at[-1]], index) for index, at in classes]
        if series >= 0:
            lines = places.series(g, [(columns, rows.f[index]) for columns, index in cells])
        else:
            lines = (places.line(g, s, columns) for columns, _ in cells)
        for (columns, index), line in zip(cells, lines, strict=True):
            coefficient = np.zeros((len(line.variance), 1, 1 + rows.f.shape[1]))
            coefficient[:, 0, 0], coefficient[:, 0, list(columns)] = line.intercept, line.slope
            yield Block(index, np.ones((len(line.variance), 1)), coefficient, line.variance[:, None])
