"""Training rows that no density can describe, and members that have seen them.

Rounded values, point masses and gross errors are ordinary in observations, and a continuous density takes none of them: it
has no bound where a member and the observation agree exactly. These checks look at the residuals of members, most often
after their correction, and say which member, in how many rows, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bayesens.checks import warn

__all__ = ["check_ties", "resolution", "warn_memorised", "warn_outliers"]

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
EPS = float(np.finfo(float).eps)
EXACT = 1e-9  # of the observations' standard deviation: what residuals below it show is rounding
FEWEST = 5  # rows, below which ties are called by chance, or a row that stands twice
REPEATED = (
    3  # values that occur more than once, from which on observations count as rounded: two may be limits of a sensor
)
SPIKE = 1e-3  # of the standard deviation, below which no sigma is told where rows tie and no digit ends
TOLD = 0.05  # share of ties above which they pull a sigma to themselves: one row in twenty
MOST = 0.5  # share of ties at which the median error is zero: no scale of the errors is left
ONE_VALUE = 0.8  # share of the ties at one value of the observation that makes it a point mass
OUTLYING = 20.0  # median absolute deviations; of a normal one row in 10^40, of Student's t with four df one in 8,000


def resolution(y: Array) -> float:
    """Step in which observations are rounded, in their units: the smallest distance between two values.

    Parameters
    ----------
    y : array (row)

    Returns
    -------
    float
        Zero where fewer than three values occur more than once, so that no rounding shows.

    Examples
    --------
    >>> round(resolution(np.array([0.0, 0.0, 0.1, 0.1, 0.3, 0.3, 2.4])), 6)
    0.1
    >>> resolution(np.array([0.0, 0.0, 0.0, 0.137, 2.46, 1.12]))
    0.0
    """
    values, count = np.unique(y, return_counts=True)
    gaps = np.diff(values)
    apart = gaps > _noise(y)  # .1 + .2 and .3 are one value
    totals = np.add.reduceat(count, np.flatnonzero(np.r_[True, apart]))
    return float(gaps[apart].min()) if np.count_nonzero(totals > 1) >= REPEATED else 0.0


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
    >>> y = np.array([0.137, 1.24, 2.51, 3.18, 4.42])
    >>> f = y[:, None] + np.array([0.11, -0.23, 0.08, -0.14, 0.32])[:, None]
    >>> check_ties(y, f, np.isfinite(f), ["rf"]) < 1e-8
    True
    """
    scale, step = float(np.std(y)), resolution(y)
    exact = max(EXACT * scale, 8.0 * _noise(y))
    found, refused, tied = [], [], False
    for k, name in enumerate(members):
        there = available[:, k]
        target, residual = y[there], (y - corrected[:, k])[there]
        if len(residual) < FEWEST:
            continue
        certain = _largest(residual, exact)
        tied |= len(certain[0]) > max(2.0, 1e-3 * len(residual))  # of many rows some pairs meet by chance
        rows, beside = _largest(residual, max(exact, 0.5 * step))
        share, by_chance = len(rows) / len(residual), beside / len(residual)
        if len(rows) < FEWEST or share - 2.0 * by_chance <= max(TOLD, 3.0 * np.sqrt(by_chance / len(residual))):
            continue
        massed = _is_point_mass(target[rows])
        found.append((name, share, massed))
        if len(certain[0]) > MOST * len(residual) and (massed or step == 0.0):
            refused.append((name, share, massed))
    for massed in (True, False):
        if alike := [(name, share) for name, share, is_mass in refused if is_mass == massed]:
            raise ValueError(f"{_ties(alike, massed)}: more than half of the errors are zero, and no density describes them. "
                             + _advice(massed))  # fmt: skip
    floor = step / np.sqrt(12.0) if step > 0.0 else SPIKE * scale if tied else EXACT * scale
    floor = max(floor, exact)
    for massed in (True, False):
        if alike := [(name, share) for name, share, is_mass in found if is_mass == massed]:
            warn(f"{_ties(alike, massed)}: a normal density has no place for them. {_advice(massed)}")
    return floor


def warn_outliers(y: Array, corrected: Array, available: Flags, members: Sequence[str]) -> None:
    """Warn of residuals that are far outside what normal kernels allow: more than 20 median absolute deviations.

    Parameters
    ----------
    y, corrected, available, members
        As `check_ties` takes them.

    Warns
    -----
    UserWarning
        One sentence: how many rows, which members, the largest residual, and what to do.

    Examples
    --------
    >>> y = np.arange(40.0)
    >>> warn_outliers(y, y[:, None] + np.where(y % 2, 0.1, -0.1)[:, None], np.ones((40, 1), bool), ["rf"])
    """
    outside = np.zeros(len(y), dtype=bool)
    named, largest = [], (0.0, "")
    tied = max(EXACT * float(np.std(y)), 8.0 * _noise(y), 0.5 * resolution(y))
    for k, name in enumerate(members):
        residual = np.abs(_centred_residual(y, corrected[:, k], available[:, k]))
        deviation = float(np.nanmedian(residual)) if available[:, k].any() else 0.0
        if deviation <= tied:  # of which another check speaks
            continue
        far = residual > OUTLYING * deviation
        if far.any():
            outside |= far
            named.append(f"{name!r} in {int(far.sum())}")
            largest = max(largest, (float(np.nanmax(residual)) / deviation, name))
    if named:
        warn(
            f"{int(outside.sum())} of {len(y)} training rows lie more than {OUTLYING:.0f} median absolute deviations from "
            f"their members after the correction ({', '.join(named)}; the largest residual is {largest[0]:.3g} of them, of "
            f"{largest[1]!r}): such rows widen the normal kernels of all others. Check these rows; if they are "
            "right, use a transform where errors grow with the values, or BMA(kernel='student_t')."
        )


# -------------------------------------------------------------------------------------------------------------- of ties
def _noise(y: Array) -> float:
    """What the last bits of numbers of that size may differ by."""
    return 4.0 * EPS * float(np.max(np.abs(y), initial=0.0))


def _largest(residual: Array, tolerance: float) -> tuple[NDArray[np.intp], float]:
    """Rows of the largest set within ``tolerance`` of one value, and how many rows the sets beside it have on average."""
    order = np.argsort(residual, kind="stable")
    value = residual[order]
    last = np.searchsorted(value, value + 2.0 * tolerance, side="right")
    first = int(np.argmax(last - np.arange(len(value))))
    ends = value[first] + 2.0 * tolerance * np.array([-1.0, 2.0])
    low, high = np.searchsorted(value, ends[0], side="left"), np.searchsorted(value, ends[1], side="right")
    return order[first : last[first]], 0.5 * float(first - low + high - last[first])


def _is_point_mass(y: Array) -> bool:
    """Whether most of some observations have one value."""
    return bool(np.unique(y, return_counts=True)[1].max() >= ONE_VALUE * len(y))


def _ties(found: list[tuple[str, float]], massed: bool) -> str:
    names = ", ".join(f"{name!r} in {share:.0%}" for name, share in found)
    where = "nearly all of them at one value of the observation" if massed else "at many values of the observation"
    return (
        f"Members agree with the observation exactly, or up to one constant, in many training rows ({names}), {where}"
    )


def _advice(massed: bool) -> str:
    if massed:
        return (
            "A value that returns, as zero does on dry days, is a point mass: use transform='sqrt', which is censored at zero, "
            "if that is the least value, or fit the other rows alone."
        )
    return (
        "The truth may have leaked into them: predict each row by a model that has not seen it (scikit-learn's "
        "cross_val_predict), or leave them out."
    )


def _centred_residual(y: Array, corrected: Array, available: Flags) -> Array:
    """Residuals less their median, NaN where the member is missing."""
    residual = np.where(available, y - corrected, np.nan)
    return residual - np.nanmedian(residual) if available.any() else residual


# --------------------------------------------------------------------------------------------------- of seen observations
CLEAR = 4.0  # times smaller errors than those of every other member
CLEAR_OF_ONE = 8.0  # and of the only other one, which may be a poor one
HONEST = 2.5  # times better a good member may be; the ratio must be above it by three standard errors
FEW = 20  # rows


def warn_memorised(y: Array, corrected: Array, available: Flags, members: Sequence[str]) -> None:
    """Warn of members whose errors are so far below those of all others that they must have seen the observations.

    Members are compared row by row, because errors grow and shrink together over rows: the ratio of the sizes of two
    members' errors, by its median. Rows in which the other member ties with the observation say nothing. A member stands
    out whose errors are a quarter of those of every other one, or an eighth of those of the only other.

    Parameters
    ----------
    y, corrected, available, members
        As `check_ties` takes them.

    Warns
    -----
    UserWarning
        One sentence a member.

    Examples
    --------
    >>> y = np.arange(30.0)
    >>> warn_memorised(y, y[:, None] + np.where(y % 3, 0.1, -0.1)[:, None], np.ones((30, 1), bool), ["rf"])
    """
    if len(members) < 2:
        return
    exact = max(EXACT * float(np.std(y)), 8.0 * _noise(y))
    size = np.abs(
        np.column_stack([_centred_residual(y, corrected[:, k], available[:, k]) for k in range(len(members))])
    )
    ratio, error = _log_ratios(np.maximum(size, exact), max(exact, 0.5 * resolution(y)))
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


def _log_ratios(size: Array, tied: float) -> tuple[Array, Array]:
    """Median logarithm of how many times smaller a member's errors are than another's, and its standard error.

    NaN where two members have too few rows in common. The ratio of two independent normals is Cauchy's; the density of the
    logarithm of its size is 1 / pi at its median, whence the standard error.
    """
    k = size.shape[1]
    ratio, error = np.full((k, k), np.nan), np.full((k, k), np.inf)
    for one in range(k):
        for other in range(k):
            use = (size[:, other] > tied) & np.isfinite(size[:, one])
            if one != other and (n := np.count_nonzero(use)) >= FEW:
                ratio[one, other] = np.median(np.log(size[use, other] / size[use, one]))
                error[one, other] = 0.5 * np.pi / np.sqrt(n)
    return ratio, error


def _seen(member: str, nearest: str, times: float, rows: int) -> str:
    return (
        f"Member {member!r} looks as if it has seen the observations of these rows: its errors are {times:.2g} times smaller "
        f"than those of the next best, {nearest!r} ({rows} training rows). Weights and intervals then hold for no other rows. "
        "Predict each row by a model that has not seen it (be.cross_fit, or scikit-learn's cross_val_predict), or leave the "
        "member out; if it is that good, nothing is wrong."
    )
