"""Kernels of members that bring a standard deviation of their own: how far it is believed, learnt from the member's own errors.

The error of member k at row i, whose own standard deviation is s_ik, has the variance

    tau_k^2 h_ik        h_ik = 1 - a_k + a_k v_ik / m_k        v_ik = s_ik^2 exp(-2 x_i' c_k)        m_k = mean of v_ik

so that a_k is the share of the variance that follows the member's word: none where it says nothing of the error (a = 0), all
where the error is in proportion to it, whatever the factor (a = 1), and between where part of the error is not in it. tau_k
remains the error of a typical row. All kernels are wider by exp(x_i' width) already, so that s is taken relative to what a
regression of its logarithm makes of x, without the members' spread: errors in proportion to the value, which both a kernel's
width and s tell, count once. Of the residuals of each row by all others, whose variance is tau^2 (h + q) with q what is open of
the correction, and which are evened out for x likewise, the share has the posterior

    a ~ Beta(1/2, 1)        p(a | r) ~ p(a) prod (h_i + q_i)^-1/2 (sum r_i^2 / (h_i + q_i))^-n/2

on a grid. The variance is linear in a, so that the mean of a gives the mean variance. Like the corrections it is a cut: the
mixture takes h as given. Learnt in the mixture itself, a was no better in simulations (members whose word is right, half of
right, part of it or nothing, 100 and 1,000 rows: -.5 to +.2 % of the CRPS against one width, where the cut has -.6 to +.1), and a
kernel variance sigma^2 + s^2 without a share cost 1.5 % where the word says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.transforms import transform as transform_of
from bayesens.likelihoods.corrected.widths import SAME, column_of
from bayesens.likelihoods.row_checks import evened

__all__ = ["OwnSds", "learnt", "own_squares", "share_of"]

GRID = np.square((np.arange(200) + 0.5) / 200)  # even under the share's prior
LEAST = 0.05  # of their median, which standard deviations have at least where their logarithms are taken


@dataclass(frozen=True, eq=False)
class OwnSds:
    """How members' own standard deviations enter their kernels.

    Attributes
    ----------
    share : array (member)
        a, zero of members that bring none.
    size : array (member)
        Root of m, on the model's scale; one of members that bring none.
    slope : array (member, covariate)
        c, of the widths' covariates.
    """

    share: np.ndarray
    size: np.ndarray
    slope: np.ndarray

    @classmethod
    def none(cls, members: int, covariates: int) -> OwnSds:
        """Of a table without any."""
        return cls(np.zeros(members), np.ones(members), np.zeros((members, covariates)))

    def at(self, squares: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The variances h (row, member) of squares of own standard deviations, at covariates of the widths (row, covariate).

        They are one where a square is NaN.

        Examples
        --------
        >>> own = OwnSds(np.array([0.5, 0.0]), np.array([2.0, 1.0]), np.zeros((2, 0)))
        >>> own.at(np.array([[4.0, np.nan], [12.0, np.nan]]), np.zeros((2, 0))).tolist()
        [[1.0, 1.0], [2.0, 1.0]]
        """
        ratio = squares * np.exp(-2.0 * (x @ self.slope.T)) / self.size**2
        return 1.0 + self.share * (np.where(np.isnan(ratio), 1.0, ratio) - 1.0)

    def to_dataset(self) -> xr.Dataset:
        """As part of a fit's history."""
        parts = {"own_share": ("member", self.share), "own_size": ("member", self.size)}
        return xr.Dataset(parts | {"own_slope": (("member", "scale_covariate"), self.slope)})

    @classmethod
    def from_dataset(cls, dataset: xr.Dataset) -> OwnSds:
        """Take it from a fit's history; fits of before have none."""
        if "own_share" not in dataset:
            return cls.none(dataset.sizes["member"], dataset.sizes["scale_covariate"])
        return cls(*(dataset[f"own_{name}"].values for name in ("share", "size", "slope")))


def own_squares(own: tuple[tuple[str, str], ...], transform: str, ensemble: Ensemble, index: np.ndarray) -> np.ndarray:
    """Squares of members' own standard deviations on the model's scale, (row, member); NaN where there is none.

    A standard deviation s of a prediction f becomes g(f + s) - g(f), which is the delta method's for a small one, and finite at
    the zero of a square root.

    Raises
    ------
    ValueError
        If a column of theirs is not there, or has values below zero.
    """
    out = np.full((len(index), ensemble.n_members), np.nan)
    forward = transform_of(transform).forward
    for member, column in own:
        if member not in ensemble.members:
            continue
        k = ensemble.members.index(member)
        sd, f = column_of(ensemble, column)[index], ensemble.prediction[index, k]
        if (sd < 0.0).any():
            raise ValueError(f"Column {column!r}, the standard deviation of member {member!r}, is below zero in "
                             f"{int((sd < 0.0).sum())} of {len(sd)} rows; wanted zero or more: correct it.")  # fmt: skip
        out[:, k] = np.square(sd if transform == "identity" else forward(f + sd) - forward(f))
    return out


def learnt(
    squares: np.ndarray, residual: np.ndarray, excess: np.ndarray, use: np.ndarray, cluster: np.ndarray,
    members: Sequence[str], names: Sequence[str], x: np.ndarray,
) -> OwnSds:  # fmt: skip
    """Learn the shares of all members from training rows.

    Parameters
    ----------
    squares : array (row, member)
        Of own standard deviations, NaN where there is none.
    residual, excess : array (row, member)
        By the fit to all other rows, and the open share of variance q.
    use : bool array (row, member)
        Rows that have the member, and an observation that is no limit.
    cluster : int array (member)
        Exchangeable sets, whose members share one law.
    members : sequence of str
    names : sequence of str
        Of the widths' covariates.
    x : array (row, covariate)

    Raises
    ------
    ValueError
        If some members of an exchangeable set have standard deviations and others none.
    """
    out = OwnSds.none(len(members), len(names))
    kept = [j for j, name in enumerate(names) if name != "spread"]  # which an error of the member itself makes wide
    even = evened(residual, use, x[:, kept])
    told = (use & ~np.isnan(squares)).any(axis=0)
    for c in np.unique(cluster[told]):
        some = cluster == c
        if not told[some].all():
            one, other = (members[int(np.flatnonzero(some & part)[0])] for part in (told, ~told))
            raise ValueError(f"Members {one!r} and {other!r} are exchangeable, and {other!r} has no standard deviation of its "
                             "own: name one for each in spread, or leave own_sd=() to use none.")  # fmt: skip
        rows = use[:, some] & ~np.isnan(squares[:, some])
        known, along = squares[:, some][rows], x[np.nonzero(rows)[0]][:, kept]
        if np.ptp(known) <= SAME * known.max():  # one that never changes says nothing of any row
            continue
        slope = _slope(known, along)
        relative = known * np.exp(-2.0 * (along @ slope))
        out.slope[np.ix_(some, kept)] = slope
        out.size[some] = np.sqrt(relative.mean())
        out.share[some] = share_of(even[:, some][rows], relative / relative.mean(), excess[:, some][rows])
    return out


def _slope(squares: np.ndarray, x: np.ndarray) -> np.ndarray:
    """How the logarithm of standard deviations follows covariates, (covariate), by least squares."""
    sd = np.sqrt(squares)
    design = np.column_stack([np.ones(len(sd)), x])
    return np.linalg.lstsq(design, np.log(np.maximum(sd, LEAST * np.median(sd[sd > 0.0]))), rcond=None)[0][1:]


def share_of(residual: np.ndarray, ratio: np.ndarray, excess: np.ndarray) -> float:
    """Posterior mean of the share a, of residuals whose variance is in proportion to 1 - a + a ratio + excess.

    Examples
    --------
    Errors in proportion to what the member says, and errors that have nothing to do with it:

    >>> rng = np.random.default_rng(1)
    >>> sd, noise = np.exp(0.6 * rng.standard_normal(2000)), rng.standard_normal(2000)
    >>> ratio, none = sd**2 / np.mean(sd**2), np.zeros(2000)
    >>> round(share_of(3.0 * sd * noise, ratio, none), 1), round(share_of(noise, ratio, none), 1)
    (1.0, 0.0)
    """
    if not np.any(residual):
        return 0.0
    variance = 1.0 + GRID[:, None] * (ratio - 1.0) + excess  # (grid, row)
    value = -0.5 * np.log(variance).sum(axis=1) - 0.5 * len(residual) * np.log((residual**2 / variance).sum(axis=1))
    weight = np.exp(value - value.max())
    return float(weight @ GRID / weight.sum())
