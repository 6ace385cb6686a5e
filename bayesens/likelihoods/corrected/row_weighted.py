"""The predictive distribution of rows whose weights follow their covariates; see the mixture of :mod:`.predictive`.

Log densities, moments and draws have every row's weights under every draw. The matched mixture has the normals of the weights at
typical covariates, each with the mean that its member's weight has over the draws in the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace

import numpy as np
import xarray as xr
from scipy.special import gammaln, log_ndtr, logsumexp, stdtr

from bayesens.arithmetic import LOG_2PI
from bayesens.distributions.posterior_mixture import Moments
from bayesens.ensemble.rows import flat
from bayesens.likelihoods.corrected.predictive import MEMORY, CorrectedMixture
from bayesens.threads import share_out

__all__ = ["RowWeighted", "weighted_by_row"]


@dataclass(frozen=True, eq=False)
class RowWeighted(CorrectedMixture):
    """Predictive distribution of rows under all posterior draws.

    Attributes
    ----------
    z : array (row, covariate)
        Of the weights, standardised.
    slope : array (draw, covariate, member)
    """

    z: np.ndarray = field(kw_only=True)
    slope: np.ndarray = field(kw_only=True)

    def select(self, rows: np.ndarray) -> RowWeighted:
        """The same predictions, of some rows."""
        some = super().select(rows)
        assert isinstance(some, RowWeighted)
        return replace(some, z=self.z[rows])

    def weights(self, rows: np.ndarray, draw: np.ndarray, present: np.ndarray, kind: int) -> np.ndarray:
        """Weights of rows under some draws, (draw, row, present)."""
        gain = np.einsum("rc,sck->srk", self.z[rows], self.slope[draw][:, :, present], optimize=True)
        odds = self.share(present, kind)[draw][:, None] * np.exp(gain - gain.max(axis=2, keepdims=True))
        return np.asarray(odds / odds.sum(axis=2, keepdims=True))

    def _some(self, arrays: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows of one class, as many as arrays (draw, row, member) have room for, and all draws."""
        every = np.arange(len(self.draws))
        size = max(1, int(MEMORY // (8 * len(every) * self.offset.shape[1] * arrays)))
        yield from ((rows, every) for rows in self.parts(size))

    def moments(self) -> Moments:
        """Exact mean and variance parts over all draws, (row); NaN for rows without a prediction."""
        out = np.full((4, len(self)), np.nan)
        tail = 1.0 if self.draws.nu is None else (self.draws.nu / (self.draws.nu - 2.0))[:, None, None]
        for rows, draw in self._some(4):

            def fill(part: slice, rows: np.ndarray = rows, draw: np.ndarray = draw) -> None:
                weight, mean, scale = self._kernels(rows[part], draw)
                first = np.einsum("srk,srk->sr", weight, mean)
                within = np.einsum("srk,srk->r", weight, tail * scale**2) / len(draw)
                between = np.einsum("srk,srk->r", weight, (mean - first[:, :, None]) ** 2) / len(draw)
                out[:, rows[part]] = first.mean(axis=0), within, between, first.var(axis=0)

            share_out(fill, len(rows))
        return Moments(*out)

    def _match(
        self, rows: np.ndarray, piece: tuple[np.ndarray, int, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        present, kind, new = piece
        every, k = np.arange(len(self.draws)), len(present)
        mean, added = np.empty((len(rows), k)), np.empty(len(rows))
        step = max(1, int(MEMORY // (8 * len(every) * k * 2)))

        def fill(part: slice) -> None:
            for start in range(part.start, part.stop, step):
                some = slice(start, min(start + step, part.stop))
                weight = self.weights(rows[some], every, present, kind)
                mean[some], added[some] = weight.mean(axis=0), self.added(weight, present, new).mean(axis=0)

        share_out(fill, len(rows))
        share, widening = self.share(present, kind), self.widening(present, kind, new)
        # All members have the same mean weight: one that hardly counts at typical covariates may be a row's best.
        even = share / (k * share.mean(axis=0))
        return self.matched_by(rows, present, even, widening, k * mean, added / widening.mean())

    def by_row(
        self,
        visit: Callable[[np.ndarray, np.ndarray], None],
        z: np.ndarray,
        *,
        below: np.ndarray | None = None,
        memory: float = MEMORY,
    ) -> None:
        """Show the log densities of rows under all draws to a function; see `PosteriorMixture.by_row`."""
        low = np.zeros(len(z), dtype=bool) if below is None else below
        for rows, draw in self._some(4):

            def show(part: slice, rows: np.ndarray = rows, draw: np.ndarray = draw) -> None:
                for pick in (rows[part][~low[rows[part]]], rows[part][low[rows[part]]]):
                    if len(pick):
                        weight, mean, scale = self._kernels(pick, draw)
                        hidden = bool(low[pick[0]])
                        apart = (0.0 if hidden else z[pick][:, None]) - mean
                        visit(pick, logsumexp(self._log_kernel(apart / scale, scale, hidden), b=weight, axis=2).T)

            share_out(show, len(rows))

    def _log_kernel(self, u: np.ndarray, scale: np.ndarray, hidden: bool) -> np.ndarray:
        """Log densities at standardised distances, or log probabilities below, (draw, row, member)."""
        if self.draws.nu is None:
            return np.asarray(log_ndtr(u) if hidden else -0.5 * (u**2 + LOG_2PI) - np.log(scale))
        nu = self.draws.nu[:, None, None]
        if hidden:
            with np.errstate(divide="ignore"):
                return np.asarray(np.log(stdtr(nu, u)))
        height = gammaln(0.5 * (nu + 1.0)) - gammaln(0.5 * nu) - 0.5 * np.log(np.pi * nu)
        return np.asarray(height - 0.5 * (nu + 1.0) * np.log1p(u**2 / nu) - np.log(scale))


def weighted_by_row(mixture: CorrectedMixture, posterior: xr.Dataset, z: np.ndarray) -> RowWeighted:
    """A mixture with the weights that covariates (row, covariate) give each row."""
    slope = flat(posterior["weight_slope"].transpose("chain", "draw", "weight_covariate", "member"))
    return RowWeighted(**{one.name: getattr(mixture, one.name) for one in fields(mixture)}, z=z, slope=slope)
