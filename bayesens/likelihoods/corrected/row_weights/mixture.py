"""The predictive distribution of rows whose weights follow their covariates; all else is as in `CorrectedMixture`.

Log densities, moments and draws have every row's weights under every draw. The matched mixture has the normals of the weights at
typical covariates, each with the mean that its member's weight has over the draws in the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace

import numpy as np
import xarray as xr

from bayesens.distributions.heavy_tails import scale_gain
from bayesens.distributions.posterior_mixture import Moments
from bayesens.ensemble.rows import alike, flat
from bayesens.likelihoods.corrected.predictive import GIVING_WAY, MEMORY, NARROWEST, CorrectedMixture
from bayesens.threads import share_out

__all__ = ["RowWeighted", "weighted_by_row"]

Piece = tuple[np.ndarray, int, np.ndarray]  # members present, class of weights, new levels


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

    def _ordered(self) -> Iterator[tuple[np.ndarray, np.ndarray, int, np.ndarray]]:
        """Classes of rows, as loops take them: those with the same covariates one after the other."""
        number = alike(self.z)
        for rows, present, kind, new in self._classes:
            yield rows[np.argsort(number[rows], kind="stable")], present, kind, new

    def _by_draw(self, present: np.ndarray, kind: int, new: np.ndarray) -> tuple[np.ndarray | float, ...]:
        """What loops take of weights and new levels, draws last."""
        with np.errstate(divide="ignore"):
            log_weight = np.log(self.share(present, kind))
        sd, alike = self.draws.new[:, present][:, :, new], self.draws.alike[new][:, present][:, :, present]
        products = np.einsum("skl,lkj,sjl->kjs", sd, alike, sd, optimize=True) if new.any() else np.zeros((0, 0, 0))
        size = self.draws.sigma[:, present].T ** 2
        size = size if self.draws.nu is None else size / scale_gain(self.draws.nu)
        parts = (log_weight.T, self.slope[:, :, present].transpose(1, 2, 0), (1.0 + GIVING_WAY) * products,
                 GIVING_WAY * np.square(sd).sum(axis=2).T, size)  # fmt: skip
        return *(np.ascontiguousarray(part) for part in parts), NARROWEST

    def _of_rows(self, rows: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray]:
        """A value near each row's mean, what loops take of the rows, and coefficients with draws last."""
        near, x, coefficient = self._lines(rows, present)
        of_rows = x, self.left[rows][:, present], self.x[rows], self.z[rows]
        return near, of_rows, np.ascontiguousarray(coefficient.transpose(1, 2, 0))

    def moments(self) -> Moments:
        """Exact mean and variance parts over all draws, (row); NaN for rows without a prediction."""
        from bayesens.likelihoods.corrected.row_weights.loops import row_moments

        out = np.full((4, len(self)), np.nan)
        for rows, present, kind, new in self._ordered():
            near, of_rows, coefficient = self._of_rows(rows, present)
            variance = self.draws.sigma[:, present].T ** 2
            if self.draws.nu is not None:  # the variance of a t
                variance = variance * (self.draws.nu / (self.draws.nu - 2.0))
            by_draw = *self._by_draw(present, kind, new), coefficient, np.ascontiguousarray(variance)

            def fill(part: slice, rows: np.ndarray = rows, of_rows: tuple[np.ndarray, ...] = of_rows,
                     by_draw: tuple[np.ndarray | float, ...] = by_draw) -> None:  # fmt: skip
                found = np.empty((4, len(rows[part])))
                some = (np.ascontiguousarray(a[part]) for a in of_rows)
                row_moments(*some, *by_draw, np.ascontiguousarray(self.draws.width.T), found)
                out[:, rows[part]] = found

            share_out(fill, len(rows))
            out[0, rows] += near
        return Moments(*out)

    def _match(self, rows: np.ndarray, piece: Piece) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from bayesens.likelihoods.corrected.row_weights.loops import mean_weights

        present, kind, new = piece
        one, number = np.unique(alike(self.z[rows]), return_index=True, return_inverse=True)[1:]
        z, by_draw = np.ascontiguousarray(self.z[rows][one]), self._by_draw(present, kind, new)
        mean, added = np.empty((len(one), len(present))), np.empty(len(one))
        share_out(lambda part: mean_weights(z[part], *by_draw, mean[part], added[part]), len(one))
        mean, added = mean[number], added[number]
        share, widening = self.share(present, kind), self.widening(present, kind, new)
        # All members have the same mean weight: one that hardly counts at typical covariates may be a row's best.
        even = share / (len(present) * share.mean(axis=0))
        return self.matched_by(rows, present, even, widening, len(present) * mean, added / widening.mean())

    def by_row(
        self,
        visit: Callable[[np.ndarray, np.ndarray], None],
        z: np.ndarray,
        *,
        below: np.ndarray | None = None,
        memory: float = MEMORY,
    ) -> None:
        """Show the log densities of rows under all draws to a function; see `PosteriorMixture.by_row`."""
        from bayesens.likelihoods.corrected.row_weights.loops import row_densities

        low = np.zeros(len(z), dtype=bool) if below is None else below
        nu = np.zeros(0) if self.draws.nu is None else np.ascontiguousarray(self.draws.nu)
        width, step = np.ascontiguousarray(self.draws.width.T), max(1, int(memory // (8 * len(self.draws))))
        for rows, present, kind, new in self._ordered():
            near, of_rows, coefficient = self._of_rows(rows, present)
            precision = np.ascontiguousarray(1.0 / self.draws.sigma[:, present].T ** 2)
            by_draw = *self._by_draw(present, kind, new), coefficient, precision, width, nu
            target = np.where(low[rows], 0.0, z[rows]) - near  # a value below zero is one below minus its reference
            for start in range(0, len(rows), step):
                some = slice(start, start + step)

                def show(part: slice, some: slice = some, rows: np.ndarray = rows, of_rows: tuple[np.ndarray, ...] = of_rows,
                         target: np.ndarray = target, by_draw: tuple[np.ndarray | float, ...] = by_draw) -> None:  # fmt: skip
                    pick = rows[some][part]
                    values = np.empty((len(pick), len(self.draws)))
                    these = (np.ascontiguousarray(a[some][part]) for a in of_rows)
                    row_densities(target[some][part], low[pick], *these, *by_draw, values)
                    for row in np.flatnonzero(low[pick]) if len(nu) else ():
                        values[row] = self._log_below(pick[row])
                    visit(pick, values)

                share_out(show, len(rows[some]))


def weighted_by_row(mixture: CorrectedMixture, posterior: xr.Dataset, z: np.ndarray) -> RowWeighted:
    """A mixture with the weights that covariates (row, covariate) give each row."""
    slope = flat(posterior["weight_slope"].transpose("chain", "draw", "weight_covariate", "member"))
    return RowWeighted(**{one.name: getattr(mixture, one.name) for one in fields(mixture)}, z=z, slope=slope)
