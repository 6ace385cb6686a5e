"""Training rows that no density can describe, and members that have seen them.

Rounded values, point masses and gross errors are ordinary in observations, and a continuous density takes none of them: it
has no bound where a member and the observation agree exactly. These checks look at the residuals of members, most often
after their correction, and say which member, in how many rows, and what to do.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesens.ensemble.collinear import rounding
from bayesens.messages import warn

__all__ = ["check_ties", "evened", "resolution", "tied", "warn_memorised", "warn_outliers", "within_widths"]

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
EXACT = 1e-9  # of the observations' standard deviation: what residuals below it show is rounding
FEWEST = 5  # rows, below which ties are called by chance, or a row that stands twice
REPEATED = 3  # values that occur more than once where observations are rounded: two may be the limits of a sensor
DECIMALS = 5  # after the first of the standard deviation, in which a last one is looked for
SPIKE = 1e-3  # of the standard deviation, below which no sigma is told where rows tie and no digit ends
# Share of ties above which to tell: of 600 rows and three members, EM from its standard start ends at a sigma of zero where
# one member ties in .3 of the rows, and never where it does in .2, in each of ten tables.
TOLD = 0.05
MOST = 0.5  # share of ties at which the median error is zero: no scale of the errors is left
ONE_VALUE = 0.8  # share of the ties at one value of the observation that makes it a point mass
OUTLYING = 20.0  # median absolute deviations; of a normal one row in 10^40, of Student's t with four df one in 8,000


def resolution(y: Array) -> float:
    """Step in which observations are rounded, in their units.

    It is the smallest distance between two values where three values or more occur more than once, and otherwise the last
    decimal that all of them show; zero where no rounding shows.

    Examples
    --------
    >>> round(resolution(np.array([0.0, 0.0, 0.25, 0.25, 0.75, 0.75, 2.5])), 6)
    0.25
    >>> resolution(np.array([0.0, 0.0, 2.5, 1.1])), resolution(np.array([0.0, 0.0, 2.0**0.5, 3.0**0.5]))
    (0.1, 0.0)
    """
    gaps = np.diff(np.sort(y))
    apart = gaps > _noise(y)  # .1 + .2 and .3 are one value
    totals = np.diff(np.flatnonzero(np.r_[True, apart, True]))
    if np.count_nonzero(totals > 1) >= REPEATED:
        return float(gaps[apart].min())
    spread = float(np.std(y))
    if not spread > 0.0:
        return 0.0
    first = int(np.floor(np.log10(spread)))
    for step in 10.0 ** np.arange(first, first - DECIMALS, -1.0):
        if bool((np.abs(y - step * np.rint(y / step)) <= max(1e-6 * step, _noise(y))).all()):
            return float(step) if step > 100.0 * _noise(y) else 0.0
    return 0.0


def check_ties(y: Array, corrected: Array, available: Flags, members: Sequence[str]) -> float:
    """Refuse or warn of members that agree with the observation exactly in many rows, and say how small sigma may be.

    Counted is the largest set of rows of one residual, whatever its value: a tie is a tie before and after a shift. Two
    residuals are one within half a step of rounded observations, or where a billionth of the observations' standard
    deviation lies between them. Observations and members that are rounded alike tie by chance: as many rows as have the
    residuals one step off are expected to.

    Parameters
    ----------
    y : array (row)
        Observations, on the model's scale.
    corrected, available : array (row, member)
        Members after their correction, and whether each is there. Where a likelihood is censored, leave out the rows at
        the bound: it has a place for them.
    members : sequence of str

    Returns
    -------
    float
        A floor for sigma, above zero: the standard deviation of rounding; a thousandth of that of the observations where
        rows tie and no rounding shows; and a billionth of it elsewhere.

    Raises
    ------
    ValueError
        If a member ties in more than half of its rows and these are a point mass, or no rounding explains them.

    Warns
    -----
    UserWarning
        If a member ties in one row in twenty or more, and in more than rounding explains.

    References
    ----------
    Kiefer and Wolfowitz (1956), Annals of Mathematical Statistics 27, 887-906: a normal mixture's likelihood has no bound.

    Examples
    --------
    >>> y = np.array([0.13, 1.24, 2.51, 3.18, 4.42])
    >>> f = y[:, None] + np.array([0.11, -0.23, 0.08, -0.14, 0.32])[:, None]
    >>> round(float(check_ties(y, f, np.isfinite(f), ["rf"])), 6)  # the observations show hundredths: .01 / 12^.5
    0.002887
    """
    scale, (exact, step) = float(np.std(y)), _tolerances(y)
    found = _ties(y, corrected, available, exact, step)
    for refused in (True, False):
        for massed in (True, False):
            alike = [
                (name, tie.share)
                for name, tie in zip(members, found, strict=True)
                if tie.told and tie.massed == massed and tie.refused == refused
            ]
            if alike and refused:
                raise ValueError(f"{_said(alike, massed)}: more than half of the errors are zero, and no density describes "
                                 f"them. {_advice(massed, step)}")  # fmt: skip
            if alike:
                warn(f"{_said(alike, massed)}: a normal density has no place for them. {_advice(massed, step)}")
    spiked = any(tie.spiked for tie in found)
    return max(step / np.sqrt(12.0) if step > 0.0 else SPIKE * scale if spiked else 0.0, exact)


def tied(y: Array, corrected: Array, available: Flags) -> bool:
    """Whether so many residuals of a member are one that a kernel could collapse onto them; see `check_ties`.

    Examples
    --------
    >>> y = np.array([0.0, 0.0, 0.0, 0.7, 1.3, 2.9])
    >>> tied(y, np.array([0.0, 0.0, 0.0, 0.6, 1.5, 2.0])[:, None], np.ones((6, 1), dtype=bool))
    True
    """
    return any(tie.told or tie.spiked for tie in _ties(y, corrected, available, *_tolerances(y)))


def evened(residual: Array, available: Flags, x: Array) -> Array:
    """Residuals divided by what a regression of their logarithms makes of the widths' covariates ``x``, (row, member).

    A residual is zero where the row lacks the member.
    """
    size = np.sqrt(np.sum(residual**2, axis=1) / np.maximum(available.sum(axis=1), 1))
    log_size = np.log(np.maximum(size, 1e-12 * np.max(size, initial=1e-300)))
    design = np.column_stack([np.ones(len(size)), x])
    found = np.linalg.lstsq(design, log_size, rcond=None)[0]
    return np.asarray(residual * np.exp(-(design[:, 1:] @ found[1:]))[:, None])


def within_widths(residual: Array, available: Flags, x: Array) -> Flags:
    """Residuals that are nothing out of the way in units of their row's own width, (row, member); see `evened`."""
    alike = evened(residual, available, x)
    size = np.abs(alike - np.nanmedian(np.where(available, alike, np.nan), axis=0))
    return np.asarray(size <= OUTLYING * np.nanmedian(np.where(available, size, np.nan), axis=0))


def warn_outliers(
    y: Array, corrected: Array, available: Flags, members: Sequence[str], *, explained: Flags | None = None
) -> None:
    """Warn of residuals that are far outside what normal kernels allow: more than 20 median absolute deviations.

    The arrays are those of `check_ties`. Residuals that are ``explained`` (row, member), as large as their row's width lets one
    expect, are not told of. It says how many rows, which members, the largest residual, and what to do.

    Examples
    --------
    >>> y = np.arange(40.0)
    >>> warn_outliers(y, y[:, None] + np.where(y % 2, 0.1, -0.1)[:, None], np.ones((40, 1), bool), ["rf"])
    """
    outside = np.zeros(len(y), dtype=bool)
    named, largest = [], (0.0, "")
    exact, step = _tolerances(y)
    for k, name in enumerate(members):
        there = np.flatnonzero(available[:, k])
        residual = y[there] - corrected[there, k]
        if not len(residual):
            continue
        rest = np.delete(residual, _tied_rows(residual, exact, step))  # ties are told of elsewhere
        if not len(rest):
            continue
        size = np.abs(residual - np.median(rest))
        deviation = float(np.median(np.abs(rest - np.median(rest))))
        if deviation <= exact:
            continue
        deviation = max(deviation, 0.5 * step)
        far = size > OUTLYING * deviation
        if explained is not None:
            far &= ~explained[there, k]
        if far.any():
            outside[there[far]] = True
            named.append(f"{name!r} in {int(far.sum())}")
            largest = max(largest, (float(size[far].max()) / deviation, name))
    if named:
        warn(
            f"{int(outside.sum())} of {len(y)} training rows lie more than {OUTLYING:.0f} median absolute deviations from "
            f"their members after the correction ({', '.join(named)}; the largest residual is {largest[0]:.3g} of them, of "
            f"{largest[1]!r}): such rows widen the normal kernels of all others. Check these rows; if they are right, use "
            "kernel='student_t' (BMA, EqualWeights, SingleMember, LinearPool), or a transform where errors grow with the values."
        )


# -------------------------------------------------------------------------------------------------------------- of ties
def _noise(y: Array) -> float:
    """What the last bits of the observations may differ by."""
    return float(rounding(y[:, None])[0])


def _tolerances(y: Array) -> tuple[float, float]:
    """Size of residuals that are rounding and nothing else, and the step of rounded observations."""
    return max(EXACT * float(np.std(y)), _noise(y)), resolution(y)


@dataclass(frozen=True)
class _Set:
    """The largest set of values within a tolerance of one: its ends, its size, and that of the sets beside it on average."""

    low: float
    high: float
    size: int
    beside: float

    def rows(self, residual: Array) -> NDArray[np.intp]:
        """Where the values of the set stand."""
        return np.flatnonzero((residual >= self.low) & (residual <= self.high))


def _largest(value: Array, tolerance: float) -> _Set:
    """The largest set of sorted values within ``tolerance`` of one value."""
    width = 1.98 * tolerance  # of rounded values one step, not the two ends of it
    last = np.searchsorted(value, value + width, side="right")
    first = int(np.argmax(last - np.arange(len(value))))
    low, high = float(value[first]), float(value[last[first] - 1])
    edges = np.searchsorted(value, 0.5 * (low + high) + tolerance * np.array([-3.0, -1.0, 1.0, 3.0]))
    beside = 0.5 * float(edges[1] - edges[0] + edges[3] - edges[2])
    return _Set(low, high, int(last[first]) - first, beside)


@dataclass(frozen=True)
class _Tie:
    """Ties of one member: their share of its rows, and what to make of them."""

    share: float = 0.0
    told: bool = False  # more than rounding explains
    massed: bool = False  # most of them at one value of the observation
    refused: bool = False
    spiked: bool = False  # more exact ones than chance makes


def _ties(y: Array, corrected: Array, available: Flags, exact: float, step: float) -> list[_Tie]:
    """Ties of each member."""
    return [_tie(y[use], (y - corrected[:, k])[use], exact, step) for k, use in enumerate(available.T)]


def _tie(y: Array, residual: Array, exact: float, step: float) -> _Tie:
    n = len(y)
    if n < FEWEST:
        return _Tie()
    value = np.sort(residual)
    certain = _largest(value, exact).size
    spiked = certain > max(2.0, 1e-3 * n)  # of many rows some pairs meet by chance
    rows = _tied_rows(residual, exact, step, value)
    if not len(rows):
        return _Tie(spiked=spiked)
    massed = bool(np.unique(y[rows], return_counts=True)[1].max() >= ONE_VALUE * len(rows))
    return _Tie(len(rows) / n, True, massed, certain > MOST * n and (massed or step == 0.0), spiked)


def _tied_rows(residual: Array, exact: float, step: float, value: Array | None = None) -> NDArray[np.intp]:
    """Rows of the largest set of ties, if it is one to tell of; ``value`` are the residuals in order, where they are known.

    Errors that have a density and are rounded have up to twice as many rows in their middle as a step beside it, where they
    are as large as a step; three standard errors are for chance.
    """
    found = _largest(np.sort(residual) if value is None else value, max(exact, 0.5 * step))
    excess, error = found.size - 2.0 * found.beside, np.sqrt(found.size + 2.0 * found.beside)
    least = max(TOLD * len(residual), 3.0 * error if step > 0.0 else FEWEST - 1)
    return found.rows(residual) if excess > least else np.zeros(0, dtype=np.intp)


def _said(found: list[tuple[str, float]], massed: bool) -> str:
    names = ", ".join(f"{name!r} in {share:.0%}" for name, share in found)
    where = "nearly all of them at one value" if massed else "at many values"
    return (f"Members agree with the observation exactly, or up to one constant, in many training rows ({names}), {where} of the "
            "observation")  # fmt: skip


def _advice(massed: bool, step: float) -> str:
    if massed:
        return (
            "A value that returns, as zero does on dry days, is a point mass: use transform='sqrt', which is censored at zero, "
            "if that is the least value, or fit the other rows alone."
        )
    coarse = (
        f"Observations in steps of {step:.3g} cannot tell smaller errors apart; if the members are not that good, the"
    )
    return (
        f"{coarse if step > 0.0 else 'The'} truth has leaked into them: predict each row by a model that has not seen it "
        "(scikit-learn's cross_val_predict), or leave them out."
    )


# --------------------------------------------------------------------------------------------------- of seen observations
CLEAR = 4.0  # times smaller errors than those of every other member
CLEAR_OF_ONE = 8.0  # and of the only other one, which may be a poor one
HONEST = 2.5  # times better a good member may be; the ratio must be above it by three standard errors
FEW = 20  # rows


def warn_memorised(y: Array, corrected: Array, available: Flags, members: Sequence[str]) -> None:
    """Warn of members whose errors are so far below those of all others that they must have seen the observations.

    Members are compared row by row, because errors grow and shrink together over rows: the ratio of the sizes of two
    members' errors, by its median. Rows in which the other member ties with the observation say nothing. A member stands
    out whose errors are a quarter of those of every other one, or an eighth of those of the only other. The arrays are those
    of `check_ties`.

    Examples
    --------
    >>> y = np.arange(30.0)
    >>> warn_memorised(y, y[:, None] + np.where(y % 3, 0.1, -0.1)[:, None], np.ones((30, 1), bool), ["rf"])
    """
    if len(members) < 2:
        return
    exact, step = _tolerances(y)
    size = np.full(corrected.shape, np.nan)
    tied = np.zeros(corrected.shape, dtype=bool)
    for k, use in enumerate(available.T):
        if use.any():
            there, residual = np.flatnonzero(use), (y - corrected[:, k])[use]
            size[there, k] = np.maximum(np.abs(residual - np.median(residual)), exact)
            tied[there[_tied_rows(residual, exact, step)], k] = True
    ratio, error = _log_ratios(size, tied | (size <= max(exact, 0.5 * step)))
    clear = np.log(CLEAR_OF_ONE if len(members) == 2 else CLEAR)
    stands_out = (ratio > clear) & (ratio - 3.0 * error > np.log(HONEST))
    order = np.argsort(-np.nanmean(np.where(np.eye(len(members), dtype=bool), 0.0, ratio), axis=1), kind="stable")
    for count in range(max((len(members) - 1) // 2, 1), 0, -1):
        seen, others = order[:count], order[count:]
        if stands_out[np.ix_(seen, others)].all():
            for k in sorted(seen):
                nearest = others[int(np.argmin(ratio[k, others]))]
                warn(_seen(members[k], members[nearest], float(np.exp(ratio[k, nearest])), int(available[:, k].sum())))
            return


def _log_ratios(size: Array, tied: Flags) -> tuple[Array, Array]:
    """Median logarithm of how many times smaller a member's errors are than another's, and its standard error.

    NaN where two members have too few rows in common. The ratio of two independent normals is Cauchy's; the density of the
    logarithm of its size is 1 / pi at its median, whence the standard error.
    """
    own = np.log(size)
    others = np.where(tied, np.nan, own)
    rows = np.isfinite(own).T.astype(float) @ np.isfinite(others)
    np.fill_diagonal(rows, 0.0)
    few, median = rows < FEW, np.nanmedian if np.isnan(others).any() else np.median
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of pairs without a row in common
        ratio = np.array([median((others - own[:, [one]]).T.copy(), axis=1) for one in range(len(rows))])
    return np.where(few, np.nan, ratio), np.where(few, np.inf, 0.5 * np.pi / np.sqrt(np.maximum(rows, 1.0)))


def _seen(member: str, nearest: str, times: float, rows: int) -> str:
    return (
        f"Member {member!r} looks as if it has seen the observations of these rows: its errors are {times:.2g} times smaller "
        f"than those of the next best, {nearest!r} ({rows} training rows). Weights and intervals then hold for no other rows. "
        "Predict each row by a model that has not seen it (be.cross_fit, or scikit-learn's cross_val_predict), or leave the "
        "member out; if it is that good, nothing is wrong."
    )
