"""EMOS's predictive distribution: one normal a draw, whose variance is linear in the row's spread, log-linear in covariates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy
import xarray as xr

from bayesens.distributions.matching import SD_BINS, SPREAD_FOR_BINS
from bayesens.distributions.posterior_mixture import MEMORY, Block, Moments, PosteriorMixture, row_classes
from bayesens.ensemble.rows import flat
from bayesens.likelihoods.missing_members import Filled
from bayesens.threads import share_out

__all__ = ["SpreadMixture", "spread_mixture"]

STEP = 0.05  # of the logarithm of a row's typical variance, in which blocks go: no row's bins depend on those beside it
FEWEST = 200  # draws, below which a row's are not cut by its standard deviation
TINY = 1e-300
CACHE = 4e6  # bytes of arrays at a time, which come and go faster if they stay near


def spread_mixture(
    posterior: xr.Dataset, filled: Filled, known: np.ndarray, x: np.ndarray, center: float, unit: float
) -> SpreadMixture:
    """Return the law of rows from draws of EMOS's parameters.

    ``known`` (row) tells which have one, and ``x`` (row, covariate) is what the widths follow.
    """
    draw = {str(n): flat(v) for n, v in posterior.data_vars.items()}
    linear, sigma, factor = np.ascontiguousarray(draw["linear_weight"]), draw["sigma"] ** 2, draw["spread"] ** 2
    level = center + draw["intercept"] - center * linear.sum(axis=1)
    coefficient = np.column_stack([level, linear])[:, None, :]
    slope = np.ascontiguousarray(draw.get("scale_slope", np.zeros((len(sigma), 0))))
    some, spread = np.flatnonzero(known), filled.spread
    pattern, open_ = filled.pattern[some], np.einsum("di,qij,dj->qd", linear, filled.open, linear, optimize=True)
    width = np.exp(2.0 * x[some] @ slope.mean(axis=0))
    least = sigma.mean() + open_.mean(axis=1)
    number = np.round(np.log((least[pattern] + factor.mean() * spread[some]) * width) / STEP).astype(int)

    def blocks() -> Iterator[Block]:
        """Rows of about the same variance that lack the same members."""
        for index, (q, place) in row_classes(pattern, number) if len(some) else ():
            typical = np.maximum(np.exp(STEP * place) - least[q], 0.0) / max(factor.mean(), TINY)
            variance = sigma + open_[q] + factor * typical
            yield Block(some[index], np.ones((len(sigma), 1)), coefficient, variance[:, None])

    return SpreadMixture(filled.f, blocks, center, unit, spread=spread, sigma=sigma, factor=factor, x=x, slope=slope,
                         pattern=filled.pattern, open=open_)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SpreadMixture(PosteriorMixture):
    """One normal a draw, whose variance is linear in the row's spread and log-linear in its covariates.

    The variances of the blocks are those of a typical row without covariates; everything here takes every row's own.

    Attributes
    ----------
    spread : array (row)
    sigma, factor : array (draw)
    x : array (row, covariate)
    slope : array (draw, covariate)
        The variance is ``(sigma + open[pattern] + factor * spread) * exp(2 * x @ slope)``.
    pattern : int array (row)
        Of missing members, which are filled in; all rows of a block have the same.
    open : array (pattern, draw)
        Variance that what is filled in leaves open.
    """

    spread: np.ndarray
    sigma: np.ndarray
    factor: np.ndarray
    x: np.ndarray
    slope: np.ndarray
    pattern: np.ndarray
    open: np.ndarray

    def select(self, rows: np.ndarray) -> Self:
        """The same predictions, of some rows."""
        return replace(super().select(rows), spread=self.spread[rows], x=self.x[rows],
                       pattern=self.pattern[rows])  # fmt: skip

    def of_draws(self, draw: np.ndarray) -> SpreadMixture:
        """The same under some draws, but for its blocks."""
        return replace(self, sigma=self.sigma[draw], factor=self.factor[draw], slope=self.slope[draw],
                       open=self.open[:, draw])  # fmt: skip

    def least(self, row: int) -> np.ndarray:
        """Variance of a row but for its spread and covariates, (draw); the same in all of its block."""
        return np.asarray(self.sigma + self.open[self.pattern[row]])

    def moments(self) -> Moments:
        """Exact mean and variance parts over all draws."""
        moments = super().moments()
        own = np.full(len(self.spread), np.nan)
        for block in self.blocks():
            own[block.rows] = self._mean_variance(block.rows)
        return replace(moments, within=own)

    def _mean_variance(self, rows: np.ndarray) -> np.ndarray:
        """Mean over draws of the variances of a block's rows, (row)."""
        least = self.least(rows[0])
        if not self.slope.shape[1]:
            return np.asarray(least.mean() + self.factor.mean() * self.spread[rows])
        from bayesens.likelihoods.corrected.loops import mean_width

        x, spread, out = np.ascontiguousarray(self.x[rows]), self.spread[rows, None], np.empty(len(rows))
        width, factor = np.ascontiguousarray(self.slope.T), np.ascontiguousarray(self.factor[None])
        share_out(lambda part: mean_width(x[part], spread[part], width, least, factor, out[part]), len(out))
        return out

    def by_row(
        self,
        visit: Callable[[np.ndarray, np.ndarray], None],
        z: np.ndarray,
        *,
        below: np.ndarray | None = None,
        memory: float = MEMORY,
    ) -> None:
        """Show the log densities of rows under all draws to a function; see :meth:`PosteriorMixture.by_row`."""
        below = np.zeros(len(z), dtype=bool) if below is None else below
        for block in self.blocks():
            step = max(1, int(min(memory, CACHE) // (4 * 8 * len(self.sigma))))
            for start in range(0, len(block.rows), step):
                rows = block.rows[start : start + step]

                def show(part: slice, rows: np.ndarray = rows, block: Block = block) -> None:
                    some = rows[part]
                    mean, variance = self._mean_and_variance(replace(block, rows=some))
                    values = z[some, None] - mean
                    values *= values
                    values /= variance
                    values += np.log(2.0 * np.pi * variance)
                    values *= -0.5
                    if (low := below[some]).any():
                        values[low] = scipy.special.log_ndtr(-mean[low] / np.sqrt(variance[low]))
                    visit(some, values)

                share_out(show, len(rows))

    def _mean_and_variance(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Of every row under every draw, (row, draw)."""
        variance = self.least(block.rows[0]) + self.factor * self.spread[block.rows, None]
        if self.slope.shape[1]:
            variance *= np.exp(2.0 * (self.x[block.rows] @ self.slope.T))
        return self._design(block) @ block.coefficient[:, 0].T, variance

    def _under(self, block: Block, draw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same under some draws."""
        return self.of_draws(draw)._mean_and_variance(replace(block, coefficient=block.coefficient[draw]))

    def _matched_block(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One normal, or, where the standard deviation varies over draws, one a bin of it.

        Given the variances the coefficients' posterior is close to normal, so that their mean and covariance in each bin
        are enough.
        """
        x = self._design(block)
        if self.slope.shape[1] and len(self.sigma) >= FEWEST:
            return self._matched_rows(x, block)
        bins = [np.arange(len(self.sigma))] if self.slope.shape[1] else _bins(block.variance[:, 0])
        out = np.empty((3, len(x), len(bins)))
        for b, subset in enumerate(bins):
            coefficient = block.coefficient[subset, 0]
            apart = coefficient - coefficient.mean(axis=0)
            parameter = np.einsum("ri,ij,rj->r", x, apart.T @ apart / len(subset), x, optimize=True)
            variance = self.of_draws(subset)._mean_variance(block.rows)
            out[0, :, b] = len(subset) / len(self.sigma)
            out[1, :, b] = x @ coefficient.mean(axis=0)
            out[2, :, b] = np.sqrt(variance + parameter)
        return out[0], out[1], out[2]

    def _matched_rows(self, design: np.ndarray, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same where each row's draws are cut by its own standard deviation.

        Widths that follow covariates have another order of draws in every row: cut by that of a typical row, or with the
        logarithm of the standard deviation taken as normal, outer quantiles err by up to a tenth of an interval.
        """
        from bayesens.likelihoods.spread.loops import BINS, matched_rows

        coefficient = block.coefficient[:, 0]
        centre = coefficient.mean(axis=0)
        by_draw = (np.ascontiguousarray((coefficient - centre).T), self.least(block.rows[0]), self.factor,
                   np.ascontiguousarray(self.slope.T), BINS)  # fmt: skip
        x, spread = np.ascontiguousarray(self.x[block.rows]), self.spread[block.rows]
        weight, mean, sd = (np.empty((len(design), len(BINS) - 1)) for _ in range(3))
        share_out(lambda part: matched_rows(design[part], x[part], spread[part], *by_draw, weight[part], mean[part], sd[part]),
                  len(design))  # fmt: skip
        return weight, (design @ centre)[:, None] + mean, sd

    def variances(self, block: Block, draw: np.ndarray) -> np.ndarray:
        """Variances of a block's rows under some draws, (draw, row, 1); see :meth:`PosteriorMixture.variances`."""
        return self._under(block, draw)[1].T[:, :, None]

    def _sample_block(self, block: Block, draw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        mean, variance = self._under(block, draw)
        return np.asarray((mean + np.sqrt(variance) * rng.standard_normal(mean.shape)).T)


def _bins(variance: np.ndarray) -> list[np.ndarray]:
    """Draws cut by their standard deviation where it varies enough to give the mixture heavier tails."""
    sd = np.sqrt(variance)
    if len(sd) < 20 * len(SD_BINS) or np.std(sd) <= SPREAD_FOR_BINS * np.mean(sd):
        return [np.arange(len(sd))]
    order = np.argsort(sd, kind="stable")
    return np.split(order, np.round(SD_BINS[1:-1] * len(sd)).astype(int))
