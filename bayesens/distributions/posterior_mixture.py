"""The predictive distribution of rows: a mixture, over posterior draws, of normals whose means are linear in the members.

For every draw, BMA predicts a row by one normal per member and HBM by a single one; in both, the means are linear in
the members and the variances do not depend on them. Rows that share their pattern of missing members, their group and
their site also share these coefficients: a :class:`Block`. Hence mean and variance over all draws are a linear and a
quadratic form in the members, exact and without a loop over draws; log densities are summed over all draws; quantiles,
PIT and CRPS come from a matched mixture, which keeps every component's first two moments over draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from bayesens.distributions.matching import Match, match
from bayesens.distributions.mixtures import NormalMixture
from bayesens.threads import share_out

__all__ = ["Block", "Moments", "OverDraws", "PosteriorMixture", "quadratic_moments", "row_classes"]

PART_ROWS = 50_000  # matched mixtures of so many rows take about 60 MB for four members
MEMORY = 32e6  # bytes of log densities under all draws at a time
MEMBER_CORRELATION = 0.8  # of a typical row, only to weigh coefficients against each other


@dataclass(frozen=True)
class Block:
    """Rows that share their coefficients.

    Attributes
    ----------
    rows : int array (row)
    weight : array (draw, component)
    coefficient : array (draw, component, 1 + member)
        Intercept and slopes of the components' means.
    variance : array (draw, component)
    """

    rows: np.ndarray
    weight: np.ndarray
    coefficient: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class Moments:
    """Mean and parts of the variance of every row: within components, between them, and of the parameters."""

    mean: np.ndarray
    within: np.ndarray
    between: np.ndarray
    parameter: np.ndarray

    @property
    def variance(self) -> np.ndarray:
        """Sum of the parts, (row)."""
        return self.within + self.between + self.parameter


class OverDraws:
    """What predictive distributions of rows over posterior draws have in common: matched mixtures, and densities."""

    if TYPE_CHECKING:

        @property
        def n_draws(self) -> int:
            """Number of posterior draws."""

        def __len__(self) -> int: ...

        def pieces(self) -> Iterable[tuple[np.ndarray, Any]]:
            """Rows that have all but their members' values in common, and what they have."""

        def _match(self, rows: np.ndarray, piece: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            """Weights, means and standard deviations (row, component) of some rows of a piece."""

        def by_row(
            self, visit: Callable[[np.ndarray, np.ndarray], None], z: np.ndarray, *, below: np.ndarray | None = None
        ) -> None:
            """Show the log densities of rows under all draws to a function."""

    def matched(self) -> NormalMixture:
        """Mixture of few normals per row with the components' moments over draws.

        See :mod:`bayesens.distributions.matching`.

        Returns
        -------
        NormalMixture
            Shape (row); NaN for rows without a prediction.
        """
        return stacked([(rows, *self._match(rows, piece)) for rows, piece in self.pieces()], len(self))

    def matched_parts(self, size: int = PART_ROWS) -> Iterator[tuple[np.ndarray, NormalMixture]]:
        """Matched mixtures of some rows at a time, because those of all rows may take more memory than the table.

        Parameters
        ----------
        size : int
            Number of rows to begin a new part at; a part has less than twice as many.

        Yields
        ------
        rows : int array
            All rows stand in one part; those without a prediction in the last.
        NormalMixture
            Shape (rows).
        """
        if len(self) <= size:
            yield np.arange(len(self)), self.matched()
            return
        parts: list[_Matched] = []
        count, rest = 0, np.ones(len(self), dtype=bool)
        for rows, piece in self.pieces():
            rest[rows] = False
            for start in range(0, len(rows), size):
                some = rows[start : start + size]
                parts.append((some, *self._match(some, piece)))
                count += len(some)
                if count >= size:
                    yield joined(parts)
                    parts, count = [], 0
        if parts:
            yield joined(parts)
        if rest.any():
            yield np.nonzero(rest)[0], stacked([], int(rest.sum()))

    def log_likelihood(self, z: np.ndarray, below: np.ndarray | None = None) -> np.ndarray:
        """Log density of every row under every draw, NaN for rows without a prediction.

        Parameters
        ----------
        z : array (row)
        below : bool array (row), optional
            Rows whose log probability of values below zero is wanted instead.

        Returns
        -------
        array (draw, row)
        """
        out = np.full((self.n_draws, len(self)), np.nan)

        def keep(rows: np.ndarray, values: np.ndarray) -> None:
            out[:, rows] = values.T

        self.by_row(keep, z, below=below)
        return out

    def log_density(self, z: np.ndarray, below: np.ndarray | None = None) -> np.ndarray:
        """Log of the mean density over draws, NaN for rows without a prediction.

        Parameters
        ----------
        z : array (row)
        below : bool array (row), optional
            Rows whose log probability of values below zero is wanted instead.

        Returns
        -------
        array (row)
        """
        from bayesens.distributions.loops import log_means

        out = np.full(len(self), np.nan)

        def average(rows: np.ndarray, values: np.ndarray) -> None:
            mean = np.empty(len(rows))
            log_means(values, mean)
            out[rows] = mean

        self.by_row(average, z, below=below)
        return out


@dataclass(frozen=True)
class PosteriorMixture(OverDraws):
    """Predictive distribution of rows under all posterior draws.

    Attributes
    ----------
    f : array (row, member)
        Member predictions; missing ones may hold anything finite.
    blocks : callable
        Returns an iterator over the :class:`Block` objects; rows in none of them have no prediction.
    center, scale : float
        Of a typical member prediction.
    """

    f: np.ndarray
    blocks: Callable[[], Iterator[Block]]
    center: float = 0.0
    scale: float = 1.0

    def __len__(self) -> int:
        return len(self.f)

    @property
    def n_draws(self) -> int:
        """Number of posterior draws; 1 without any row."""
        return next((len(block.weight) for block in self.blocks()), 1)

    def select(self, rows: np.ndarray) -> Self:
        """The same predictions, of some rows."""
        place = np.full(len(self.f), -1)
        place[rows] = np.arange(len(rows))

        def blocks() -> Iterator[Block]:
            for block in self.blocks():
                kept = place[block.rows]
                if np.any(kept >= 0):
                    yield replace(block, rows=kept[kept >= 0])

        return replace(self, f=self.f[rows], blocks=blocks)

    def pieces(self) -> Iterator[tuple[np.ndarray, Block]]:
        """Rows of each block, and the block."""
        return ((block.rows, block) for block in self.blocks())

    def _match(self, rows: np.ndarray, piece: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._matched_block(replace(piece, rows=rows))

    def _design(self, block: Block) -> np.ndarray:
        return np.column_stack([np.ones(len(block.rows)), self.f[block.rows]])

    def moments(self) -> Moments:
        """Exact mean and variance parts over all draws.

        Returns
        -------
        Moments
            Arrays (row); NaN for rows without a prediction.
        """
        out = [np.full(len(self.f), np.nan) for _ in range(4)]
        for block in self.blocks():
            x = self._design(block)
            line, between, parameter = quadratic_moments(block.weight, block.coefficient)
            out[0][block.rows] = x @ line
            out[1][block.rows] = np.mean(np.sum(block.weight * block.variance, axis=1))
            out[2][block.rows] = np.einsum("ri,ij,rj->r", x, between, x, optimize=True)
            out[3][block.rows] = np.einsum("ri,ij,rj->r", x, parameter, x, optimize=True)
        return Moments(*out)

    def _matched_block(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = self._design(block)
        none, one = np.zeros((len(x), 0)), np.ones((1, 1))
        parts = [found.at(x, none, (1.0,), one, one[0]) for found in self.matches(block)]
        weight, mean, sd = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
        return weight / weight.sum(axis=1, keepdims=True), mean, sd

    def matches(self, block: Block) -> list[Match]:
        """Normals that match each component of a block."""
        root = _typical_root(self.f.shape[1], self.center, self.scale)
        inverse, none = np.linalg.inv(root), np.zeros((len(block.weight), 0))
        return [match(weight, coefficient, (variance,), none, root=root, inverse=inverse, variance=variance)
                for weight, coefficient, variance in zip(block.weight.T, block.coefficient.swapaxes(0, 1), block.variance.T,
                                                         strict=True)]  # fmt: skip

    def by_row(
        self,
        visit: Callable[[np.ndarray, np.ndarray], None],
        z: np.ndarray,
        *,
        below: np.ndarray | None = None,
        memory: float = MEMORY,
    ) -> None:
        """Show the log densities of rows under all draws to a function, some rows at a time, in several threads.

        Parameters
        ----------
        visit : callable
            Is given the indices of some rows and an array (row, draw), which it may write over. Each row with a prediction
            is shown once.
        z : array (row)
            Where the density is taken.
        below : bool array (row), optional
            Rows whose log probability of values below zero is wanted instead.
        memory : float
            Bytes that the arrays of all threads may take together; a row at a time is the least.
        """
        from bayesens.distributions.loops import log_densities  # loads numba: nothing that only reads a fit should

        below = np.zeros(len(z), dtype=bool) if below is None else below
        for block in self.blocks():
            with np.errstate(divide="ignore"):
                log_weight = np.log(block.weight)
            parameters = log_weight, np.ascontiguousarray(block.coefficient), np.ascontiguousarray(block.variance)
            step = max(1, int(memory // (8 * len(log_weight))))
            for start in range(0, len(block.rows), step):
                rows = block.rows[start : start + step]

                def show(part: slice, rows: np.ndarray = rows, parameters: Any = parameters) -> None:
                    some = rows[part]
                    values = np.empty((len(some), len(parameters[0])))
                    x = np.column_stack([np.ones(len(some)), self.f[some]])
                    log_densities(z[some], below[some], x, *parameters, values)
                    visit(some, values)

                share_out(show, len(rows))

    def sample(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Draw from the predictive distribution: a posterior draw, a component, then a normal.

        Parameters
        ----------
        size : int
            Number of draws; they pass through the posterior draws evenly.
        rng : numpy.random.Generator

        Returns
        -------
        array (size, row)
        """
        draw: np.ndarray | None = None
        out = np.full((size, len(self.f)), np.nan)
        for block in self.blocks():
            if draw is None:
                draw = rng.permutation(np.linspace(0, len(block.weight), size, endpoint=False).astype(int))
            out[:, block.rows] = self._sample_block(block, draw, rng)
        return out

    def sample_each(self, rng: np.random.Generator) -> np.ndarray:
        """Draw once from the predictive distribution of every row under every posterior draw, (draw, row)."""
        out: np.ndarray | None = None
        for block in self.blocks():
            if out is None:
                out = np.full((len(block.weight), len(self.f)), np.nan)
            out[:, block.rows] = self._sample_block(block, np.arange(len(block.weight)), rng)
        return out if out is not None else np.full((1, len(self.f)), np.nan)

    def variances(self, block: Block, draw: np.ndarray) -> np.ndarray:
        """Variances of the components of a block's rows under some draws, (draw, row, component)."""
        shape = len(draw), len(block.rows), block.variance.shape[1]
        return np.broadcast_to(block.variance[draw][:, None], shape)

    def _sample_block(self, block: Block, draw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        x = self._design(block)
        edges = np.cumsum(block.weight[draw], axis=1)
        pick = rng.random((len(draw), len(x))) * edges[:, -1:]
        component = np.minimum((pick[:, :, None] > edges[:, None, :]).sum(axis=2), edges.shape[1] - 1)
        means = np.einsum("scj,rj->src", block.coefficient[draw], x, optimize=True)
        mean = np.take_along_axis(means, component[:, :, None], axis=2)[:, :, 0]
        sd = np.sqrt(np.take_along_axis(block.variance[draw], component, axis=1))
        return mean + sd * rng.standard_normal(mean.shape)


def quadratic_moments(weight: np.ndarray, coefficient: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Linear form of the mean, and quadratic forms of the variances between components and over draws, of a design.

    Parameters
    ----------
    weight : array (draw, component)
    coefficient : array (draw, component, column)

    Returns
    -------
    line : array (column)
    between, parameter : array (column, column)
    """
    line = np.einsum("sc,scj->sj", weight, coefficient)
    apart = coefficient - line[:, None, :]
    between = np.einsum("sc,sci,scj->ij", weight, apart, apart, optimize=True) / len(line)
    centred = line - line.mean(axis=0)
    return line.mean(axis=0), between, centred.T @ centred / len(line)


_Matched = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # rows; weight, mean, sd (row, component)


def stacked(parts: list[_Matched], size: int) -> NormalMixture:
    """One mixture of rows from parts of different width, NaN in rows that stand in none of them."""
    width = max((weight.shape[1] for _, weight, _, _ in parts), default=1)
    weight = np.zeros((size, width))
    weight[:, 0] = np.nan
    mean, sd = np.full_like(weight, np.nan), np.full_like(weight, np.nan)
    for rows, w, m, s in parts:
        components = slice(0, w.shape[1])
        weight[rows] = 0.0
        weight[rows, components], mean[rows, components], sd[rows, components] = w, m, s
    return NormalMixture(weight, mean, sd)


def joined(parts: list[_Matched]) -> tuple[np.ndarray, NormalMixture]:
    """Rows one after the other, and their mixture."""
    rows = np.concatenate([part[0] for part in parts])
    place = np.split(np.arange(len(rows)), np.cumsum([len(part[0]) for part in parts])[:-1])
    return rows, stacked([(index, *part[1:]) for index, part in zip(place, parts, strict=True)], len(rows))


def row_classes(*codes: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
    """Group rows by equal codes.

    Parameters
    ----------
    *codes : int array (row)

    Yields
    ------
    rows : int array
    key : tuple of int

    Examples
    --------
    >>> [(rows.tolist(), key) for rows, key in row_classes(np.array([1, 0, 1]))]
    [([1], (0,)), ([0, 2], (1,))]
    """
    keys, inverse = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    for key, rows in zip(keys, np.split(order, np.cumsum(np.bincount(inverse.ravel()))[:-1]), strict=True):
        yield rows, tuple(int(k) for k in key)


def _typical_root(members: int, center: float, scale: float) -> np.ndarray:
    """Root of the second moments of (1, members) of a typical row."""
    typical = np.r_[1.0, np.full(members, center)]
    moments = np.outer(typical, typical)
    moments[1:, 1:] += scale**2 * (MEMBER_CORRELATION + (1.0 - MEMBER_CORRELATION) * np.eye(members))
    return np.linalg.cholesky(moments)
