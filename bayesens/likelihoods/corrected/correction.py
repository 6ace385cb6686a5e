"""A member corrected by its own mixed model: closed form given the ratios of its variances.

For the rows i of one member f, at site s in group g, with their weights o_i (one, unless some rows tell more than others),

    y_i = level + slope (f_i - fbar) + x_i' gamma + v_g + u_s + e_i        e_i ~ Normal(0, tau^2 / o_i)

    u_s ~ Normal(0, (r_site tau)^2)        v_g ~ Normal(0, (r_group tau)^2)
    tau^2 ~ InverseGamma(1/2, s0^2 / 2)    coefficients ~ Normal(m, (tau / s0)^2 S^2), independent

The prior of the coefficients is in units of tau, as a conjugate prior must be: with s0 about the size of tau it is that of
means m and standard deviations S. Given the two ratios r the coefficients, tau and the effects have a normal-inverse-gamma
posterior, and the marginal likelihood of the ratios is known. It needs the rows' sums of squares and products as a whole and,
of each site, the sums alone. The ratios themselves are integrated over a grid of their logarithms.

Written with V = I / o + r_site^2 Z_s Z_s' + r_group^2 Z_g Z_g', what a site's rows z = (x, y) add to z' V^-1 z is
sum o z z' - r^2 / (1 + r^2 n) m m' with n = sum o and m = sum o z, and a group takes the same once more from its sites.

The smoothed value of a column z at a site, what its effects would be if z were the residual, is

    S(z) = r_site^2 m / (1 + r_site^2 n) + S_g(z) / (1 + r_site^2 n),   S_g(z) = B / (1 / r_group^2 + D)

with B = sum over the group's sites of m / (1 + r_site^2 n) and D likewise of n. A row's fit is then linear in the coefficients b,
S(y) + (x - S(x))' b, and what the effects leave open of it is known without drawing any.

References
----------
Searle, Casella and McCulloch (1992), Variance Components, chapters 7 and 9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bayesens.likelihoods.corrected.sums import Places, Sums, of_groups, places

__all__ = ["Coefficients", "Correction", "Drawn", "Given", "correct", "given_ratios"]

GRID = np.arange(-5.0, 5.01, 0.5)  # logarithms of a ratio where its posterior is looked for first
FINE = 25  # values of a ratio over the range in which its posterior lives
NEGLIGIBLE = 12.0  # log density below the highest beyond which a posterior is taken to end
NUMBERS = 4_000_000  # that arrays (pair, site, column) may hold at a time


@dataclass(frozen=True)
class Coefficients:
    """Prior of the coefficients and of tau.

    Attributes
    ----------
    mean, sd : array (column of the design)
    scale : float
        s0, the size of tau; the coefficients' prior standard deviation is ``sd tau / scale``.
    """

    mean: np.ndarray
    sd: np.ndarray
    scale: float

    @property
    def precision(self) -> np.ndarray:
        """Of the coefficients, in units of tau, (column)."""
        return np.asarray((self.scale / self.sd) ** 2)


@dataclass(frozen=True)
class Given:
    """Posterior of coefficients and tau, for each of several pairs of ratios.

    Attributes
    ----------
    mean : array (pair, column)
    root : array (pair, column, column)
        Lower triangular L with L L' the covariance of the coefficients in units of tau.
    shape : float
    rate : array (pair)
        tau^2 ~ InverseGamma(shape, rate).
    log_marginal : array (pair)
        Log marginal likelihood of the pair, up to a constant.
    """

    mean: np.ndarray
    root: np.ndarray
    shape: float
    rate: np.ndarray
    log_marginal: np.ndarray


def given_ratios(sums: Sums, prior: Coefficients, site: np.ndarray, group: np.ndarray) -> Given:
    """Condition on ratios of standard deviations.

    Parameters
    ----------
    sums : Sums
    prior : Coefficients
    site, group : array (pair)
        Standard deviations of the effects over tau; zero for a level without effects.

    Returns
    -------
    Given

    Examples
    --------
    Without effects and with a wide prior: least squares.

    >>> z = np.column_stack([np.ones(3), [-1.0, 0.0, 1.0], [1.0, 2.0, 6.0]])
    >>> sums = Sums.of(z, np.ones(3), np.zeros(3, dtype=int), np.zeros(1, dtype=int), 1)
    >>> wide = Coefficients(np.zeros(2), np.full(2, 1e6), 1.0)
    >>> given_ratios(sums, wide, np.zeros(1), np.zeros(1)).mean.round(6).tolist()
    [[3.0, 2.5]]
    """
    whole, log_volume = _reduced(sums, site, group)
    xx, xy, yy = whole[:, :-1, :-1], whole[:, :-1, -1], whole[:, -1, -1]
    precision = xx + np.diag(prior.precision)
    root = np.linalg.cholesky(precision)
    right = xy + prior.precision * prior.mean
    half = np.linalg.solve(root, right[:, :, None])[:, :, 0]
    squares = yy + prior.precision @ prior.mean**2 - np.sum(half**2, axis=1)
    inverse = np.linalg.inv(root)
    mean = np.einsum("pji,pj->pi", inverse, half)
    shape, rate = 0.5 * (1.0 + sums.n), 0.5 * (prior.scale**2 + np.maximum(squares, 0.0))
    log_det = 2.0 * np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    value = -0.5 * (log_det + log_volume) - shape * np.log(rate)
    return Given(mean, np.swapaxes(inverse, 1, 2), shape, rate, value)


def _reduced(sums: Sums, site: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``z' V^-1 z`` (pair, column, column) and the log determinant of V o (pair)."""
    columns = sums.gram.shape[0]
    u, v = np.square(site)[:, None], np.square(group)[:, None]
    inner = 1.0 + u * sums.count
    products = (sums.site[:, :, None] * sums.site[:, None, :]).reshape(len(sums.site), -1)
    out = sums.gram - ((u / inner) @ products).reshape(-1, columns, columns)
    log_volume = np.log(inner).sum(axis=1)
    if np.any(group > 0.0):
        b, d = of_groups(sums, inner)
        share = v / (1.0 + v * d)
        out = out - np.einsum("pg,pgi,pgj->pij", share, b, b, optimize=True)
        log_volume = log_volume + np.log1p(v * d).sum(axis=1)
    return out, log_volume


# --------------------------------------------------------------------------------------------------- ratios integrated
LogPrior = Callable[[np.ndarray], np.ndarray]  # log density of a ratio


@dataclass(frozen=True)
class Drawn:
    """Draws of the posterior.

    Attributes
    ----------
    coefficient : array (draw, column of the design)
    tau, site, group : array (draw)
        Residual standard deviation, and the effects' ratios to it.
    pair : int array (draw)
        Which pair of ratios of the grid.
    """

    coefficient: np.ndarray
    tau: np.ndarray
    site: np.ndarray
    group: np.ndarray
    pair: np.ndarray


@dataclass(frozen=True)
class Correction:
    """Posterior of one member's correction.

    Attributes
    ----------
    sums : Sums
    prior : Coefficients
    site, group, weight : array (pair)
        Pairs of ratios and their posterior probabilities.
    at : tuple of float
        The typical pair, at the posterior mean of the logarithms: that at which effects are smoothed.
    given : Given
        There, of one pair.
    places : Places
        There.
    """

    sums: Sums
    prior: Coefficients
    site: np.ndarray
    group: np.ndarray
    weight: np.ndarray
    at: tuple[float, float]
    given: Given
    places: Places

    @property
    def tau2(self) -> float:
        """Posterior mean of tau^2 at the typical pair, or its mode where there is no mean."""
        shape = self.given.shape
        return float(self.given.rate[0] / (shape - 1.0 if shape > 1.5 else shape + 1.0))

    @property
    def effect_sd(self) -> tuple[float, float]:
        """Typical standard deviations of the effects of sites and of groups."""
        tau = float(np.sqrt(self.tau2))
        return self.at[0] * tau, self.at[1] * tau

    @property
    def coefficient(self) -> np.ndarray:
        """Posterior mean of the coefficients at the typical pair."""
        return np.asarray(self.given.mean[0])

    def fitted(self, x: np.ndarray, smooth: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean of rows' values, and their open variance in units of tau^2.

        Parameters
        ----------
        x : array (row, column of the design)
        smooth : array (row, column)
            Smoothed columns at the rows' places, y last.
        left : array (row)
            What is open of the effects there, in units of tau^2.
        """
        apart = x - smooth[:, :-1]
        spread = apart @ self.given.root[0]
        return smooth[:, -1] + apart @ self.coefficient, left + np.sum(spread**2, axis=1)

    def left_out(
        self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, site: np.ndarray, row: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Correction of every training row by the fit to all others, at the typical pair.

        Parameters
        ----------
        x : array (line, column of the design)
        y, weight : array (line)
        site, row : int array (line)
            A row has several lines where members share a correction: they are left out together.

        Returns
        -------
        mean : array (line)
            What the other rows predict of y.
        excess : array (line)
            Variance of y given the others over that of its error, less one.

        Notes
        -----
        With the leverage h of a row the residual is r / (1 - h) and the variance of the error grows by h / (1 - h), exactly
        for one line a row. Several lines of a row, which are alike, are taken to have the sum of their leverages.
        """
        fit, variance = self.fitted(x, self.places.site[site], self.places.site_open[site])
        leverage = np.bincount(row, weight * variance)[row]
        leverage = np.minimum(leverage, 1.0 - 1e-9)
        return y - (y - fit) / (1.0 - leverage), leverage / (1.0 - leverage)

    def draws(self, size: int, rng: np.random.Generator) -> Drawn:
        """Draw ratios, tau and coefficients."""
        pair = rng.choice(len(self.weight), size=size, p=self.weight)
        used, pick = np.unique(pair, return_inverse=True)
        given = _in_parts(self.sums, self.prior, self.site[used], self.group[used])
        tau = np.sqrt(given.rate[pick] / rng.gamma(given.shape, size=size))
        apart = np.einsum("dij,dj->di", given.root[pick], rng.standard_normal((size, len(self.prior.mean))))
        return Drawn(given.mean[pick] + tau[:, None] * apart, tau, self.site[pair], self.group[pair], pair)

    def effects(self, drawn: Drawn, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw the effects given the other draws: of sites (draw, site) and groups (draw, group)."""
        sums, size = self.sums, len(drawn.tau)
        site, group = np.zeros((size, len(sums.count))), np.zeros((size, sums.groups))
        for pair in np.unique(drawn.pair):
            d = np.flatnonzero(drawn.pair == pair)
            u, v = self.site[pair] ** 2, self.group[pair] ** 2
            found, inner, tau = (
                places(sums, self.site[pair], self.group[pair]),
                1.0 + u * sums.count,
                drawn.tau[d, None],
            )
            contrast = np.column_stack([-drawn.coefficient[d], np.ones(len(d))])
            if v > 0.0:
                noise = rng.standard_normal((len(d), sums.groups))
                group[d] = contrast @ found.group[:-1].T + tau * np.sqrt(found.group_open[:-1]) * noise
            if u > 0.0:
                total = contrast @ sums.site.T - sums.count * group[d][:, sums.group]
                site[d] = u / inner * total + tau * np.sqrt(u / inner) * rng.standard_normal(total.shape)
        return site, group


def correct(sums: Sums, prior: Coefficients, *, site: LogPrior | None, group: LogPrior | None) -> Correction:
    """Integrate the ratios over a grid of their logarithms.

    Parameters
    ----------
    sums : Sums
    prior : Coefficients
    site, group : callable, optional
        Log prior density of a ratio; None where there are no such effects.

    Returns
    -------
    Correction

    Examples
    --------
    >>> z = np.column_stack([np.ones(4), [-1.0, 1.0, -1.0, 1.0], [1.0, 3.0, 5.0, 7.0]])
    >>> sums = Sums.of(z, np.ones(4), np.array([0, 0, 1, 1]), np.zeros(2, dtype=int), 1)
    >>> found = correct(sums, Coefficients(np.zeros(2), np.full(2, 1e3), 1.0), site=lambda r: -np.log1p(r**2), group=None)
    >>> found.coefficient.round(3).tolist()
    [4.0, 1.0]
    """
    priors = (site, group)

    def evaluate(axes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        a, b = (mesh.ravel() for mesh in np.meshgrid(*axes, indexing="ij"))
        value = _in_parts(sums, prior, a, b).log_marginal
        for ratio, log_prior in zip((a, b), priors, strict=True):
            if log_prior is not None:
                value = value + log_prior(ratio) + np.log(ratio)  # the grid is even in the logarithm
        return a, b, value

    coarse = [np.exp(GRID) if p is not None else np.zeros(1) for p in priors]
    a, b, value = evaluate([_within(axis, *evaluate(coarse), which) for which, axis in enumerate(coarse)])
    weight = np.exp(value - value.max())
    weight /= weight.sum()
    at = tuple(float(np.exp(weight @ np.log(r))) if np.all(r > 0.0) else 0.0 for r in (a, b))
    there = given_ratios(sums, prior, np.array(at[:1]), np.array(at[1:]))
    return Correction(sums, prior, a, b, weight, (at[0], at[1]), there, places(sums, *at))


def _within(axis: np.ndarray, a: np.ndarray, b: np.ndarray, value: np.ndarray, which: int) -> np.ndarray:
    """A fine grid over the part of an axis in which the posterior lives."""
    if len(axis) == 1:
        return axis
    alive = (a, b)[which][value > value.max() - NEGLIGIBLE]
    step = GRID[1] - GRID[0]
    return np.exp(np.linspace(np.log(alive.min()) - step, np.log(alive.max()) + step, FINE))


def _in_parts(sums: Sums, prior: Coefficients, site: np.ndarray, group: np.ndarray) -> Given:
    """Condition on many pairs of ratios, some at a time."""
    step = max(1, NUMBERS // (len(sums.count) * sums.gram.shape[0]))
    parts = [given_ratios(sums, prior, site[i : i + step], group[i : i + step]) for i in range(0, len(site), step)]
    joined = [
        np.concatenate([getattr(part, name) for part in parts]) for name in ("mean", "root", "rate", "log_marginal")
    ]
    return Given(joined[0], joined[1], parts[0].shape, joined[2], joined[3])
