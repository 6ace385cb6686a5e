"""Bootstrap by station and time block: how often each replicate takes each station and each block.

Rows of one station, and rows of one month, share their errors; an interval from resampling rows one by one would be far too
short. Here stations and blocks are drawn with replacement, independently of each other, and a row counts as often as its
station times as often as its block: the pigeonhole bootstrap, which errs on the long side where it errs.

References
----------
Owen (2007), Ann. Appl. Stat. 1, 386: the pigeonhole bootstrap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student_t

from bayesens.tables.dates import from_numbers, number_form

__all__ = [
    "Clusters",
    "Replicates",
    "block_words",
    "cluster_interval",
    "cluster_probability",
    "interval",
    "leave_out",
    "pigeonhole",
    "time_blocks",
    "why_none",
]

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
CLUSTERS_FOR_PERCENTILES = 20  # stations or blocks that percentiles of the bootstrap take
MIN_CLUSTERS = 5  # stations or blocks that any interval takes
MOST_UNDEFINED = 0.05  # share of replicates without a value beyond which an interval would be one of the others only


@dataclass(frozen=True)
class Replicates:
    """How often each replicate takes each station and block, (station, replicate) and (block, replicate).

    Whole numbers; the first replicate is the sample itself, 1 throughout.
    """

    station: Array
    block: Array


def time_blocks(time: ArrayLike, length: float) -> Codes:
    """Cut time into blocks of equal length, counted from the first one: their numbers (obs), from 0 without gaps.

    The length is in days for datetimes, otherwise in the units of the numbers.

    Examples
    --------
    >>> time_blocks(np.array(["2021-01-01", "2021-01-30", "2021-01-31", "2021-04-09"], dtype="datetime64[D]"), 30)
    array([0, 0, 1, 2])
    """
    if not length > 0:
        raise ValueError(f"a time block needs a length above 0 (days, or units of numeric times); got {length!r}")
    values = np.asarray(time)
    missing = int(pd.isna(values).sum())
    if missing:
        raise ValueError(
            f"{missing} of {len(values)} rows have no time, so no time block; drop them, or give block=None"
        )
    if values.dtype.kind in "iu" and (form := number_form(values, least=8)):
        values = from_numbers(values, form, "time")  # 20040131: the next day is no step of one
    since = values - values.min()
    days = since / np.timedelta64(1, "D") if values.dtype.kind == "M" else since.astype(np.float64)
    return np.unique(np.floor(days / length).astype(np.int64), return_inverse=True)[1]


def block_words(time: ArrayLike, length: float) -> str:
    """Name a time block by its length, as `Clusters` counts it.

    Examples
    --------
    >>> block_words(np.array(["2021-01-01"], dtype="datetime64[D]"), 30.0), block_words(np.array([1990, 1991]), 5)
    ('block of 30 days', 'block of 5 time steps')
    >>> Clusters(20, 37, kinds=("station", block_words(np.array([20210730]), 30))).how
    'bootstrap over 20 stations and 37 blocks of 30 days'
    """
    values = np.asarray(time)
    dates = values.dtype.kind == "M" or (values.dtype.kind in "iu" and number_form(values, least=8) != "")
    return f"block of {length:g} {'day' if dates else 'time step'}{'s' * (length != 1)}"


def pigeonhole(
    stations: Codes, blocks: Codes, *, replicates: int, random_seed: int | None, strata: ArrayLike | None = None
) -> Replicates:
    """Draw stations and blocks with replacement, independently of each other.

    Parameters
    ----------
    stations, blocks : int array (obs)
        Numbers of every row's station and block, from 0 without gaps.
    replicates : int
        How many, besides the sample itself; 0 for it alone.
    random_seed : int, optional
    strata : array (obs), optional
        A label of every row. Where stations have one label each they are drawn label by label, so that every group keeps
        its number of stations; the same for blocks.

    Examples
    --------
    >>> drawn = pigeonhole(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), replicates=500, random_seed=1)
    >>> drawn.station.shape, drawn.block.shape, drawn.station[:, 0].tolist()
    ((3, 501), (2, 501), [1.0, 1.0, 1.0])
    >>> bool((drawn.station.sum(axis=0) == 3).all()), bool((drawn.block.sum(axis=0) == 2).all())
    (True, True)
    """
    rng = np.random.default_rng(random_seed)
    labels = np.zeros(len(stations), dtype=np.intp) if strata is None else pd.factorize(np.asarray(strata))[0]
    return Replicates(*(_drawn(_stratum(codes, labels), replicates, rng) for codes in (stations, blocks)))


def _stratum(codes: Codes, labels: Codes) -> Codes:
    """Label of every level, or one for all where a level has several."""
    pairs = np.unique(np.column_stack([codes, labels]), axis=0)
    levels = int(codes.max()) + 1
    return pairs[:, 1] if len(pairs) == levels else np.zeros(levels, dtype=np.intp)


def _drawn(stratum: Codes, replicates: int, rng: np.random.Generator) -> Array:
    out = np.ones((len(stratum), 1 + replicates))
    for label in np.unique(stratum):
        where = np.flatnonzero(stratum == label)
        out[where, 1:] = rng.multinomial(len(where), np.full(len(where), 1.0 / len(where)), size=replicates).T
    return out


def interval(values: Array, level: float) -> tuple[Array, Array]:
    """Central interval of the replicates along the last axis, without the sample itself: low and high.

    NaN where more than 5 % of the replicates have no value (or there are none).

    Examples
    --------
    >>> low, high = interval(np.arange(101.0), 0.9)
    >>> float(low), float(high)
    (5.0, 95.0)
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level of an interval lies inside (0, 1), such as 0.9; got {level!r}")
    flat = values.reshape(math.prod(values.shape[:-1]), values.shape[-1])  # -1 is not defined for 0 replicates
    out = np.full((len(flat), 2), np.nan)
    finite = np.isfinite(flat)
    for i in np.flatnonzero(finite.sum(axis=1) > (1.0 - MOST_UNDEFINED) * flat.shape[1]):
        out[i] = np.quantile(flat[i, finite[i]], [0.5 - 0.5 * level, 0.5 + 0.5 * level])
    low, high = out.T.reshape(2, *values.shape[:-1])
    return low, high


# Few stations or blocks -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clusters:
    """What an interval rests on.

    Attributes
    ----------
    stations, blocks : int
        Stations (or what `kinds` names in their place) and time blocks that have rows; one block stands for times that are
        not resampled.
    kinds : (str, str)
        What they are called, in the singular.
    only_blocks : bool
        Blocks alone are resampled: there is one station or none.
    enough : int
        How many of each the percentiles of the bootstrap take; a t interval serves fewer.
    rows : int
        How many rows are shared out to the stations where these are but parts of the table, made at random; 0: they are not.

    Examples
    --------
    >>> Clusters(3, kinds=("group", "time block")).how, Clusters(1, 40, only_blocks=True).how
    ('none: 3 groups', 'bootstrap over 40 time blocks')
    >>> Clusters(1000, kinds=("random part", "time block"), rows=20_000).how
    'bootstrap over 1000 random parts of 20000 rows'
    """

    stations: int
    blocks: int = 1
    kinds: tuple[str, str] = ("station", "time block")
    only_blocks: bool = False
    enough: int = CLUSTERS_FOR_PERCENTILES
    rows: int = 0

    @property
    def least(self) -> int:
        """The number in the direction that has fewer."""
        if self.only_blocks:
            return self.blocks
        return min(self.stations, self.blocks) if self.blocks > 1 else self.stations

    @property
    def said(self) -> str:
        """How many stations, or what stands in their place, with their name."""
        return _counted(self.stations, self.kinds[0]) + (f" of {self.rows} rows" if self.rows else "")

    @property
    def how(self) -> str:
        """How the interval is made, or why there is none."""
        said = [] if self.only_blocks else [self.said]
        said += [_counted(self.blocks, self.kinds[1])] if self.only_blocks or self.blocks > 1 else []
        text = " and ".join(said)
        if self.least >= self.enough:
            return f"bootstrap over {text}"
        return f"t with {self.least - 1} degrees of freedom, {text}" if self.least >= MIN_CLUSTERS else f"none: {text}"


def _counted(number: int, kind: str) -> str:
    head, of, length = kind.partition(" of ")
    return f"{number} {head}{'s' * (number != 1)}{of}{length}"


def why_none(how: str) -> str:
    """Say in a plain clause why there is no interval, from `Clusters.how`; empty where there is one.

    Examples
    --------
    >>> why_none(Clusters(3, kinds=("group", "time block")).how)
    '3 groups are too few: an interval takes five or more'
    >>> why_none(Clusters(3, 40, kinds=("group", "time block")).how)
    '3 groups are too few: an interval takes five or more'
    """
    if not how.startswith("none: "):
        return ""
    text = how.removeprefix("none: ")
    few = [
        part for part in text.split(" and ") if part.partition(" ")[0].isdigit() and int(part.split()[0]) < MIN_CLUSTERS
    ]
    if not few:
        return text  # no number of clusters, but words of their own
    verb = "is" if few[0].startswith("1 ") and len(few) == 1 else "are"
    return f"{' and '.join(few)} {verb} too few: an interval takes five or more{' of each' * (len(few) > 1)}"


def leave_out(drawn: Replicates) -> Replicates:
    """Append replicates that leave out one station each, then one block each.

    Examples
    --------
    >>> drawn = leave_out(Replicates(np.ones((2, 1)), np.ones((2, 1))))
    >>> drawn.station.tolist(), drawn.block.tolist()
    ([[1.0, 0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0, 1.0]], [[1.0, 1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0, 0.0]])
    """
    stations, blocks = len(drawn.station), len(drawn.block)
    station = [drawn.station, 1.0 - np.eye(stations), np.ones((stations, blocks))]
    block = [drawn.block, np.ones((blocks, stations)), 1.0 - np.eye(blocks)]
    return Replicates(np.concatenate(station, axis=1), np.concatenate(block, axis=1))


def cluster_interval(
    values: Array, level: float, clusters: Clusters, *, replicates: int, stations: int
) -> tuple[float, float]:
    """Interval of a statistic whose replicates `leave_out` made: the sample, the bootstrap, the stations and the blocks left out.

    With 20 stations and blocks or more: percentiles of the bootstrap. With fewer they are too short (percentiles of three
    clusters hold the truth 75 % of the time, of five 84 %), and a t interval is given whose variance comes from leaving out
    one station, and one block, at a time, with one degree of freedom less than there are clusters in the direction that has
    fewer. With fewer than five there is none (NaN). ``clusters`` are those of these rows: others change nothing when they are
    left out; ``replicates`` and ``stations`` say how many columns are the bootstrap's, and the stations'.

    Examples
    --------
    >>> values = np.arange(6.0)
    >>> means = [values.mean(), *(np.delete(values, k).mean() for k in range(6)), values.mean()]
    >>> low, high = cluster_interval(np.array(means), 0.9, Clusters(6), replicates=0, stations=6)
    >>> round(low, 3), round(high, 3)  # 2.5 +- t(5 degrees of freedom) * sd / sqrt(6)
    (0.961, 4.039)
    """
    if clusters.least < MIN_CLUSTERS or not np.isfinite(values[0]):
        return np.nan, np.nan
    if clusters.least >= clusters.enough:
        low, high = interval(values[1 : 1 + replicates], level)
        return float(low), float(high)
    half = float(student_t.ppf(0.5 + 0.5 * level, clusters.least - 1)) * _leave_out_error(
        values, clusters, replicates, stations
    )
    return float(values[0] - half), float(values[0] + half)


def cluster_probability(
    values: Array, clusters: Clusters, *, low: float = -np.inf, high: float = np.inf, replicates: int, stations: int
) -> float:
    """Probability that a statistic lies between two values, from the replicates that `cluster_interval` takes.

    The share of the bootstrap's replicates, or with fewer than 20 stations or blocks the t distribution about the sample's
    value: what a flat prior makes of them. NaN where there is no interval.

    Examples
    --------
    >>> values = np.arange(6.0)
    >>> means = [values.mean(), *(np.delete(values, k).mean() for k in range(6)), values.mean()]
    >>> cluster_probability(np.array(means), Clusters(6), low=2.5, replicates=0, stations=6)
    0.5
    """
    if clusters.least < MIN_CLUSTERS or not np.isfinite(values[0]):
        return np.nan
    if clusters.least >= clusters.enough:
        boot = values[1 : 1 + replicates]
        boot = boot[np.isfinite(boot)]
        if len(boot) <= (1.0 - MOST_UNDEFINED) * replicates:
            return np.nan
        return float(np.mean((boot > low) & (boot < high)))
    error = _leave_out_error(values, clusters, replicates, stations)
    if error == 0.0:
        return float(low < values[0] < high)
    below = student_t.cdf((np.array([low, high]) - values[0]) / error, clusters.least - 1)
    return float(below[1] - below[0])


def _leave_out_error(values: Array, clusters: Clusters, replicates: int, stations: int) -> float:
    """Standard error from leaving out one station, and one block, at a time."""
    apart = values[1 + replicates :]
    parts = [] if clusters.only_blocks else [(apart[:stations], clusters.stations)]
    parts += [(apart[stations:], clusters.blocks)] if clusters.blocks > 1 else []
    return float(np.sqrt(sum((n - 1) / n * float(np.sum((each - values[0]) ** 2)) for each, n in parts)))
