"""The predictive distribution of rows around corrected members: kernels whose widths follow the row.

Under each posterior draw row r has a normal for every member k that it has, with

    mean      o_rk + d_rk' b_k                                    b_k the coefficients of the correction
    variance  sigma_k^2 exp(2 x_r' width) (1 + q_rk + t_r)

or a Student's t, of which that variance is the square of the scale.
The offset o and the design d of a row at a known site are relative to the site's smoothed values, q is what is open of its
effects, and t is what effects of a new site or group add. New effects of covariance C give the weighted mean of the members
an error of variance w'Cw more, and set the members apart by a variance of sum w_k C_kk - w'Cw, which widens the mixture already.
Kernels give way to half of that,

    t = (w'Cw - (sum w_k C_kk - w'Cw) / 2) / sum w_k sigma_k^2

With one member, or members whose effects are the same, t is the effects' variance. Were kernels to give way to all of it, the
mixture would have the variance of the error on average, but too little in rows whose members happen to agree: with four members
of independent effects 89 % of new rows were in 90 % intervals, where half of it gives 90 and kernels as wide as one member's
error would have them 93 (`tests/reference/decisions.py`). The scale of a t grows by less
(:func:`bayesens.distributions.heavy_tails.scale_gain`).

Mean and variance over all draws are sums over moments of the draws, without a loop over them but for the widths; log densities
are summed over all draws; quantiles, PIT and CRPS come from a matched mixture, in which a t is four normals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from bayesens.distributions.heavy_tails import log_below, mean_rule, normal_rule, scale_gain, t_variables
from bayesens.distributions.posterior_mixture import Moments, OverDraws, row_classes
from bayesens.likelihoods.corrected.matched import component_match, factors, nodes
from bayesens.likelihoods.corrected.widths import Widths
from bayesens.threads import share_out

__all__ = ["CorrectedDraws", "CorrectedMixture"]

MEMORY = 32e6  # bytes of log densities under all draws at a time
GIVING_WAY = 0.5  # share of the members' new spread for which kernels are narrower
NARROWEST = 0.25  # of their variance, which they keep at least


@dataclass(frozen=True, eq=False)
class CorrectedDraws:
    """Draws of the parameters.

    Attributes
    ----------
    weight : array (draw, class, member)
        Of each class of rows.
    sigma : array (draw, member)
    width : array (draw, covariate)
    coefficient : array (draw, member, column)
    new : array (draw, member, level)
        Standard deviations of the effects of new levels, in a row of typical width.
    alike : array (level, member, member)
        Correlations of such effects between members.
    nu : array (draw), optional
        Degrees of freedom of t kernels.
    """

    weight: np.ndarray
    sigma: np.ndarray
    width: np.ndarray
    coefficient: np.ndarray
    new: np.ndarray
    alike: np.ndarray
    nu: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.sigma)

    @cached_property
    def normals(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Weights and relative variances of the normals that make up a t kernel, on average over draws."""
        return None if self.nu is None else mean_rule(self.nu)


@dataclass(frozen=True, eq=False)
class CorrectedMixture(OverDraws):
    """Predictive distribution of rows under all posterior draws.

    Attributes
    ----------
    draws : CorrectedDraws
    design : array (row, member, column)
    offset : array (row, member)
    left : array (row, member)
        What is open of known effects, in units of sigma^2.
    new : bool array (row, level)
    x : array (row, covariate)
        Of the widths.
    available : bool array (row, member)
        Rows without any member have no prediction.
    kind : int array (row)
        Class of the row's weights.
    point : array (row, member), optional
        Members at the corrections' point, of which `x` is made; NaN where a row lacks one.
    widths : Widths, optional
        How.
    spread : callable, optional
        Of a fit at one point: from some rows to what it leaves open of their means, (row, member, direction), the squares of
        which are part of `left`.
    unsure : array (1 + covariate, 1 + covariate), optional
        Of such a fit: covariance of log sigma and the widths' coefficients, which `left` has too.
    """

    draws: CorrectedDraws
    design: np.ndarray
    offset: np.ndarray
    left: np.ndarray
    new: np.ndarray
    x: np.ndarray
    available: np.ndarray
    kind: np.ndarray
    point: np.ndarray | None = None
    widths: Widths | None = None
    spread: Callable[[Any], np.ndarray] | None = None
    unsure: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def n_draws(self) -> int:
        """Number of posterior draws."""
        return len(self.draws)

    def select(self, rows: np.ndarray) -> CorrectedMixture:
        """The same predictions, of some rows."""
        names = ("design", "offset", "left", "new", "x", "available", "kind")
        point, spread = None if self.point is None else self.point[rows], self.spread
        of_some = None if spread is None else lambda some: spread(rows[some])
        return replace(self, point=point, spread=of_some, **{name: _some(getattr(self, name), rows) for name in names})

    # --------------------------------------------------------------------------------------------------------- classes
    @cached_property
    def _classes(self) -> list[tuple[np.ndarray, np.ndarray, int, np.ndarray]]:
        """Rows that share members, weights and new levels: (rows, members present, class of weights, new levels)."""
        patterns, pattern = np.unique(np.column_stack([self.available, self.new]), axis=0, return_inverse=True)
        k, out = self.available.shape[1], []
        for rows, (p, kind) in row_classes(pattern.ravel(), self.kind):
            present = np.flatnonzero(patterns[p][:k])
            if len(present):
                out.append((rows, present, kind, patterns[p][k:].astype(bool)))
        return out

    def share(self, present: np.ndarray, kind: int) -> np.ndarray:
        """Weights of the members present, (draw, present)."""
        share = self.draws.weight[:, kind][:, present]
        return np.asarray(share / share.sum(axis=1, keepdims=True))

    def widening(self, present: np.ndarray, kind: int, new: np.ndarray) -> np.ndarray:
        """One and what effects of new levels add to the kernels' variances, (draw, present)."""
        added = self.added(self.share(present, kind)[:, None], present, new)
        return np.repeat(added, len(present), axis=1)

    def added(
        self, share: np.ndarray, present: np.ndarray, new: np.ndarray, draw: np.ndarray | slice = slice(None)
    ) -> np.ndarray:
        """The same under weights (draw, row, present), (draw, row)."""
        sd = self.draws.new[draw][:, present][:, :, new]
        alike = self.draws.alike[new][:, present][:, :, present]
        products = np.einsum("skl,lkj,sjl->skj", sd, alike, sd, optimize=True)
        together = np.einsum("srk,skj,srj->sr", share, products, share, optimize=True)
        more = together - GIVING_WAY * (np.einsum("srk,skl->sr", share, sd**2, optimize=True) - together)
        size = np.einsum("srk,sk->sr", share, self.draws.sigma[draw][:, present] ** 2, optimize=True)
        if self.draws.nu is not None:
            size = size / scale_gain(self.draws.nu[draw])[:, None]
        return np.maximum(1.0 + more / size, NARROWEST)

    def _lines(self, rows: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A value near each row's mean; the design with the offset about it as a last column; and the coefficients."""
        offset, design = self.offset[rows[:, None], present], self.design[rows[:, None], present]
        coefficient = self.draws.coefficient[:, present]
        near = (offset + np.einsum("rkc,kc->rk", design, coefficient.mean(axis=0))).mean(axis=1)
        whole = np.concatenate([design, (offset - near[:, None])[:, :, None]], axis=2)
        return near, whole, np.concatenate([coefficient, np.ones((*coefficient.shape[:2], 1))], axis=2)

    # --------------------------------------------------------------------------------------------------------- moments
    def moments(self) -> Moments:
        """Exact mean and variance parts over all draws, (row); NaN for rows without a prediction."""
        out = [np.full(len(self), np.nan) for _ in range(4)]
        for rows, present, kind, new in self._classes:
            share = self.share(present, kind)
            near, x, coefficient = self._lines(rows, present)
            weighted = share[:, :, None] * coefficient
            mean = np.einsum("rkc,kc->r", x, weighted.mean(axis=0))
            second = np.einsum("skc,skd->kcd", weighted, coefficient, optimize=True) / len(share)
            flat, line = x.reshape(len(rows), -1), weighted.reshape(len(share), -1)
            square = np.einsum("ri,ij,rj->r", flat, line.T @ line / len(share), flat, optimize=True)
            out[0][rows] = near + mean
            out[1][rows] = self.within(self.x[rows], self.left[rows], present, kind, new)
            out[2][rows] = np.einsum("rkc,kcd,rkd->r", x, second, x, optimize=True) - square
            out[3][rows] = square - mean**2
        return Moments(out[0], out[1], np.maximum(out[2], 0.0), np.maximum(out[3], 0.0))

    def within(self, x: np.ndarray, left: np.ndarray, present: np.ndarray, kind: int, new: np.ndarray) -> np.ndarray:
        """Mean over draws of the kernels' mean variance, at covariates (row, covariate) and open shares (row, member)."""
        from bayesens.likelihoods.corrected.loops import mean_width

        share, widening = self.share(present, kind), self.widening(present, kind, new)
        base = share * self.draws.sigma[:, present] ** 2
        if self.draws.nu is not None:  # the variance of a t
            base = base * (self.draws.nu / (self.draws.nu - 2.0))[:, None]
        constant, slope = (base * widening).sum(axis=1), np.ascontiguousarray(base.T)
        left, x = np.ascontiguousarray(left[:, present]), np.ascontiguousarray(x)
        width = np.ascontiguousarray(self.draws.width.T)
        out = np.empty(len(x))
        share_out(lambda part: mean_width(x[part], left[part], width, constant, slope, out[part]), len(x))
        return out

    # --------------------------------------------------------------------------------------------------------- matched
    def pieces(self) -> list[tuple[np.ndarray, tuple[np.ndarray, int, np.ndarray]]]:
        """Rows that share members, weights and new levels, and what they share: (members, class of weights, new levels)."""
        return [(rows, tuple(rest)) for rows, *rest in self._classes]  # type: ignore[misc]

    def _match(
        self, rows: np.ndarray, piece: tuple[np.ndarray, int, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        present, kind, new = piece
        return self.matched_by(rows, present, self.share(present, kind), self.widening(present, kind, new))

    def matched_by(
        self, rows: np.ndarray, present: np.ndarray, share: np.ndarray, widening: np.ndarray,
        odds: np.ndarray | None = None, more: np.ndarray | float = 1.0,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        """Normals of rows: each member's, whose weight ``odds`` (row, present) multiply, and their widening ``more`` (row)."""
        near, x, coefficient = self._lines(rows, present)
        parts, covariate, width, normals = [], self.x[rows], self.draws.width, self.draws.normals
        for c, k in enumerate(present):
            shares, node = nodes(share[:, c], width, normals)
            factor = factors(covariate, shares, node, width, normals=normals is not None)
            found = component_match(share[:, c], coefficient[:, c], self.draws.sigma[:, k] ** 2, widening[:, c], width)
            part, *rest = found.at(x[:, c], covariate, (more, self.left[rows, k]), factor, shares)
            parts.append((part if odds is None else part * odds[:, c : c + 1], *rest))
        weight, mean, sd = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
        return weight / weight.sum(axis=1, keepdims=True), near[:, None] + mean, sd

    # ------------------------------------------------------------------------------------------------------- densities
    def by_row(
        self,
        visit: Callable[[np.ndarray, np.ndarray], None],
        z: np.ndarray,
        *,
        below: np.ndarray | None = None,
        memory: float = MEMORY,
    ) -> None:
        """Show the log densities of rows under all draws to a function; see `PosteriorMixture.by_row`."""
        from bayesens.likelihoods.corrected.loops import log_densities

        below = np.zeros(len(z), dtype=bool) if below is None else below
        nu = np.zeros(0) if self.draws.nu is None else np.ascontiguousarray(self.draws.nu)
        for rows, present, kind, new in self._classes:
            near, x, coefficient = self._lines(rows, present)
            with np.errstate(divide="ignore"):
                log_weight = np.log(self.share(present, kind)).T.copy()
            by_draw = (log_weight, np.ascontiguousarray(coefficient.transpose(1, 2, 0)),
                       np.ascontiguousarray(1.0 / self.draws.sigma[:, present].T**2),
                       np.ascontiguousarray(self.widening(present, kind, new).T),
                       np.ascontiguousarray(self.draws.width.T), nu)  # fmt: skip
            left, covariate = self.left[rows][:, present], self.x[rows]
            step = max(1, int(memory // (8 * len(self.draws))))
            for start in range(0, len(rows), step):
                some = slice(start, start + step)

                def show(part: slice, some: slice = some, rows: np.ndarray = rows, near: np.ndarray = near,
                         x: np.ndarray = x, left: np.ndarray = left, covariate: np.ndarray = covariate,
                         by_draw: tuple[np.ndarray, ...] = by_draw) -> None:  # fmt: skip
                    pick = rows[some][part]
                    values = np.empty((len(pick), len(self.draws)))
                    # A value below zero is one below minus the row's reference.
                    target = np.where(below[pick], 0.0, z[pick]) - near[some][part]
                    log_densities(target, below[pick], *(np.ascontiguousarray(a[some][part]) for a in (x, left, covariate)),
                                  *by_draw, values)  # fmt: skip
                    if len(nu):
                        for row in np.flatnonzero(below[pick]):
                            values[row] = self._log_below(pick[row])
                    visit(pick, values)

                share_out(show, len(rows[some]))

    def _log_below(self, row: int) -> np.ndarray:
        """Log probability of a row's values below zero under every draw, of t kernels."""
        assert self.draws.nu is not None
        weight, mean, scale = self._kernels(np.array([row]), np.arange(len(self.draws)))
        with np.errstate(divide="ignore"):
            return log_below(np.log(weight[:, 0]).T, (-mean / scale)[:, 0].T, self.draws.nu)

    # ----------------------------------------------------------------------------------------------------------- draws
    def components(self, rows: np.ndarray, draw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights, means and standard deviations of normals, of some rows of one class under some draws, (draw, row, normal)."""
        weight, mean, scale = self._kernels(rows, draw)
        if self.draws.nu is None:
            return weight, mean, scale
        part, variance = (a[:, None, None] for a in normal_rule(self.draws.nu[draw]))
        whole = [weight[..., None] * part, np.broadcast_to(mean[..., None], (*mean.shape, part.shape[-1]))]
        whole.append(scale[..., None] * np.sqrt(variance))
        return tuple(a.reshape(*mean.shape[:2], -1) for a in whole)

    def _kernels(self, rows: np.ndarray, draw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights, means and scales of kernels, (draw, row, present)."""
        ((_, present, kind, new),) = self.select(rows)._classes
        near, x, coefficient = self._lines(rows, present)
        mean = near[:, None] + np.einsum("skc,rkc->srk", coefficient[draw], x, optimize=True)
        width = np.exp(2.0 * self.draws.width[draw] @ self.x[rows].T)[:, :, None]
        weight = self.weights(rows, draw, present, kind)
        widening = self.added(weight, present, new, draw)[:, :, None] + self.left[rows][:, present]
        sd = np.sqrt(self.draws.sigma[draw][:, None, present] ** 2 * width * widening)
        return np.broadcast_to(weight, mean.shape), mean, sd

    def weights(self, rows: np.ndarray, draw: np.ndarray, present: np.ndarray, kind: int) -> np.ndarray:
        """Weights of rows under some draws, (draw, row, present); one row stands for rows of the same weights."""
        return self.share(present, kind)[draw][:, None]

    def parts(self, size: int) -> Iterator[np.ndarray]:
        """Rows of one class, some at a time."""
        for rows, *_ in self._classes:
            yield from (rows[start : start + size] for start in range(0, len(rows), size))

    def sample(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Draw from the predictive distribution, (size, row); draws pass through the posterior evenly."""
        draw = rng.permutation(np.linspace(0, len(self.draws), size, endpoint=False).astype(int))
        return self._sampled(draw, rng)

    def sample_each(self, rng: np.random.Generator) -> np.ndarray:
        """Draw once from every row under every posterior draw, (draw, row)."""
        return self._sampled(np.arange(len(self.draws)), rng)

    def _sampled(self, draw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        out = np.full((len(draw), len(self)), np.nan)
        for rows in self.parts(max(1, int(MEMORY // (8 * len(draw) * self.offset.shape[1])))):
            weight, mean, sd = self._kernels(rows, draw)
            edges = np.cumsum(weight, axis=2)
            pick = rng.random(mean.shape[:2]) * edges[:, :, -1]
            component = np.minimum((pick[:, :, None] > edges).sum(axis=2), edges.shape[2] - 1)[:, :, None]
            mean, sd = (np.take_along_axis(a, component, axis=2)[:, :, 0] for a in (mean, sd))
            nu = self.draws.nu
            unit = rng.standard_normal(mean.shape) if nu is None else t_variables(nu[draw][:, None] + 0.0 * mean, rng)
            out[:, rows] = mean + sd * unit
        return out


def _some(array: np.ndarray, rows: np.ndarray) -> Any:
    """Some rows; what is the same for all members stays one piece of memory."""
    if array.ndim > 1 and array.strides[1] == 0:
        one = array[:, :1][rows]
        return np.broadcast_to(one, (len(one), *array.shape[1:]))
    return array[rows]
