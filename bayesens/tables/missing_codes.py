"""Codes for missing values in columns of numbers: made missing where they are named, refused where they are not.

Files write -9999, 1e20 or 9.96921e36 where nothing was measured or computed. Taken for a value, a code in a tenth of the rows
of the best member moves all of the weight to another one. A value is taken for a code if it is a known one and lies outside
of the other values of its column, or if it repeats and is ten times their range away from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesens.messages import check_known, listed

__all__ = ["NONE", "OTHERS", "Counts", "Missing", "check_codes", "clear_codes", "missing_words", "shown"]

Array = NDArray[np.float64]
Missing = float | str | Iterable[float] | Mapping[str, Any] | None
Counts = dict[str, dict[float, int]]  # of every column: how often each code stood there

NONE = "none"  # all values are true: nothing is looked for
OTHERS = "*"  # in a mapping: all columns that it does not name
MEASURED, COVARIATE, LON, LAT = "measured", "covariate", "lon", "lat"

NINES = [10.0**k - 1.0 for k in range(3, 8)] + [999.9, 9999.9, 99999.9, 999.99, 9999.99]
FILLS = [1e15, 1e20, 1e30, 1e34, 1e35, 1e36, 9.969209968386869e36, 3.4028234663852886e38, 1.7976931348623157e308]
WRITTEN = [9.96921e36, 3.40282e38, 3.4028235e38, 3.402823e38, 1.79769e308, 1.797693e308]  # the same with fewer digits
WHOLE = [32767.0, 2147483647.0, 9223372036854775807.0]
NEGATIVE = [99.0, 99.9, 99.99, 7777.0, 8888.0, 6999.0, 32768.0, 2147483648.0]
BOTH = [*NINES, *FILLS, *WRITTEN, *WHOLE]
KNOWN = np.unique(np.array([*BOTH, 65535.0, *(-v for v in [*BOTH, *NEGATIVE])]))
with np.errstate(over="ignore"):
    ROUNDED = KNOWN.astype(np.float32).astype(np.float64)  # as a file of single precision has them
SPELLED = np.unique(np.concatenate([KNOWN, ROUNDED[np.isfinite(ROUNDED)]]))
SINGLE = 1e-7  # relative: what single precision leaves of a number
SMALLEST = 98.0  # no known code is nearer to zero

OUTSIDE = 0.5  # of the range of the other values, beyond which a known code is one
HIGH_OUTSIDE = 3.0  # the same for 999 and the like, which counts and elevations reach
FAR = 10.0  # times the range of the other values, beyond which any value that repeats is a code
SIDE = 10.0  # times as far below zero as any other value: a negative code among flows, however large these are
FEWEST = 5  # different values that say what a column's range is
PEELS = ((2, 2), (2, 1), (1, 2), (2, 0), (0, 2), (1, 1), (1, 0), (0, 1))  # values taken from the low and the high end
SOME = 1_000  # rows that show how wide a column is
PLACE = {LON: 360.0, LAT: 90.0}  # degrees that no place exceeds; nothing else in coordinates is taken for a code


@dataclass(frozen=True)
class _Column:
    """The different values of a column, sorted, and how often each stands there."""

    kind: str
    size: int
    values: Array
    count: NDArray[np.int64]
    known: NDArray[np.bool_]


# Named by the user ---------------------------------------------------------------------------------------------------


def clear_codes(columns: Mapping[str, Array], missing: Missing, *, declared: Mapping[str, Any] | None = None) -> Counts:
    """Set the codes that were named to NaN, in place, and say how often each stood in which column.

    `missing` is what the user said, `declared` what a file's attributes say, unless the user says "none".

    Examples
    --------
    >>> rf = np.array([0.1, -9999.0, 0.3])
    >>> clear_codes({"rf": rf}, -9999)
    {'rf': {-9999.0: 1}}
    >>> rf.tolist()
    [0.1, nan, 0.3]
    """
    asked = _by_column(missing, columns)
    found: Counts = {}
    for name, values in columns.items():
        codes = asked[name] or ()
        if declared and name in declared and asked[name] != ():
            codes = (*codes, *_numbers(declared[name], "_FillValue"))
        for code in codes:
            rows = _equal(values, code)
            if rows.any():
                found.setdefault(name, {})[code] = int(rows.sum())
                values[rows] = np.nan
    return found


def _by_column(missing: Missing, columns: Iterable[str]) -> dict[str, tuple[float, ...] | None]:
    """Codes of each column: None where the user said nothing, an empty tuple where all values are true."""
    if not isinstance(missing, Mapping):
        return dict.fromkeys(columns, None if missing is None else _numbers(missing, "missing"))
    names = list(columns)
    check_known(
        [name for name in missing if name != OTHERS],
        names,
        kind="column",
        where="the members, the observation, the covariates and the coordinates",
    )
    own = {name: None if codes is None else _numbers(codes, f"missing[{name!r}]") for name, codes in missing.items()}
    return {name: own.get(name, own.get(OTHERS)) for name in names}


def _numbers(given: Any, what: str) -> tuple[float, ...]:
    if isinstance(given, str):
        if given.strip().lower() == NONE:
            return ()
        raise TypeError(f"{what} is the text {given!r}; wanted a number or a list of numbers, such as {what}=-9999, or "
                        f"'{NONE}' where all values are true")  # fmt: skip
    every: list[Any] = [given] if isinstance(given, Real) else list(given)
    odd = [one for one in every if isinstance(one, bool | np.bool_) or not isinstance(one, Real)]
    if odd:
        raise TypeError(f"{what} has {listed(odd)}; wanted numbers, such as {what}=[-9999, 1e20]")
    return tuple(dict.fromkeys(float(one) for one in every if not np.isnan(float(one))))


def _equal(values: Array, code: float) -> NDArray[np.bool_]:
    """Which values are the code, also after a file of single precision."""
    with np.errstate(over="ignore", invalid="ignore"):
        near = values.astype(np.float32) == np.float32(code)
        return (values == code) | (near & np.isfinite(np.float32(code)))


def missing_words(counts: Counts) -> str:
    """Say which codes were read as missing, and how often; empty if none was.

    Examples
    --------
    >>> missing_words({"rf": {-9999.0: 24}, "sm": {-9999.0: 2, 1e20: 1}})
    "-9999 in 24 rows of 'rf', -9999 in 2 rows of 'sm', 1e+20 in 1 row of 'sm'"
    """
    return ", ".join(
        f"{shown(code)} in {n} row{'s' * (n != 1)} of {name!r}" for name, each in counts.items() for code, n in each.items()
    )  # fmt: skip


def shown(value: float) -> str:
    """Write a number as one would type it.

    Examples
    --------
    >>> shown(-9999.0), shown(9.969209968386869e36), shown(-99.9000015258789)
    ('-9999', '9.96921e+36', '-99.9')
    """
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e11 else f"{value:.6g}"


# Not named -----------------------------------------------------------------------------------------------------------


def check_codes(
    columns: Mapping[str, Array], kinds: Mapping[str, str], missing: Missing = None, *, what: str = "column"
) -> None:
    """Refuse columns with values that look like codes for missing ones.

    `kinds` has "measured", "covariate", "lon" or "lat" of each column. Members and observations are measured: they are
    compared with each other where a column has no value but a code. A value that repeats is no sign in the others, where
    all rows of a station have the same one. `missing` is what the user said: nothing is looked for in columns whose values
    are "none" codes.

    Examples
    --------
    >>> check_codes({"rf": np.array([0.1, 0.4, -9999.0])}, {"rf": "measured"})
    Traceback (most recent call last):
    ...
    ValueError: column 'rf' holds -9999 in 1 of 3 rows (its other values: 0.1 to 0.4): it looks like a code for missing ...
    """
    with np.errstate(over="ignore"):  # the largest number of all is a code, too
        _check(columns, kinds, _by_column(missing, columns), what)


def _check(
    columns: Mapping[str, Array], kinds: Mapping[str, str], asked: Mapping[str, tuple[float, ...] | None], what: str
) -> None:
    tables = {
        name: _different(values, kinds[name])
        for name, values in columns.items()
        if asked[name] != () and _may_hold(values, kinds[name])
    }
    if not tables:
        return
    found = {name: _codes(one, _range_of_others(name, columns, kinds, tables)) for name, one in tables.items()}
    alike = _alike(tables)
    found = {name: flags | np.isin(tables[name].values, alike.get(name, [])) for name, flags in found.items()}
    found = {name: flags for name, flags in found.items() if flags.any()}
    if found:
        raise ValueError(_refusal(tables, found, what))


def _may_hold(values: Array, kind: str) -> bool:
    """Whether it is worth while to sort the values: most columns show at a glance that they hold no code."""
    low, high = np.fmin.reduce(values, initial=np.inf), np.fmax.reduce(values, initial=-np.inf)
    if low > high:
        return False
    if (low <= -SMALLEST or high >= SMALLEST) and _known_at_an_end(values, low, high):
        return True
    ends = [float(end) for end in (low, high) if end != 0.0]
    often = any(end.is_integer() or np.count_nonzero(values == end) > 1 for end in ends)
    return kind == MEASURED and often and _wide(values, high - low)


def _known_at_an_end(values: Array, low: float, high: float) -> bool:
    """Whether a known code is there with nothing but codes beyond it."""
    near = KNOWN[(low - SINGLE * abs(low) <= KNOWN) & (high + SINGLE * abs(high) >= KNOWN)]
    single, codes = values.astype(np.float32), near.astype(np.float32)
    flags = [(code, single == code) for code in codes]
    there = [(float(code), rows) for code, rows in flags if rows.any()]
    if not there:
        return False
    rest = values[~np.logical_or.reduce([rows for _, rows in there])]
    least, most = np.fmin.reduce(rest, initial=np.inf), np.fmax.reduce(rest, initial=-np.inf)
    return least > most or any(code < least or code > most for code, _ in there)


def _wide(values: Array, width: float) -> bool:
    """Whether a few values, without the two lowest and highest, span much less than all do."""
    some = np.unique(values[:: max(1, len(values) // SOME)])
    some = some[~np.isnan(some)]
    return len(some) < 2 * FEWEST or width > FAR * (some[-3] - some[2])


def _different(values: Array, kind: str) -> _Column:
    unique, count = np.unique(values[~np.isnan(values)], return_counts=True)
    known = np.zeros(len(unique), dtype=bool)
    large = np.abs(unique) >= PLACE.get(kind, SMALLEST)
    known[large] = np.isin(unique[large], SPELLED)
    return _Column(kind, len(values), unique, count, known)


def _codes(column: _Column, others: Array) -> NDArray[np.bool_]:
    """Which of the different values are codes."""
    far = np.zeros(len(column.values), dtype=bool)
    if column.kind == MEASURED:
        far = _repeated_far_off(column)
    rest = column.values[~(column.known | far)]
    return far | (column.known & _outside(column, rest if len(rest) else others))


def _outside(column: _Column, rest: Array) -> NDArray[np.bool_]:
    """Which values lie so far outside of the rest that a known code is one there."""
    v = column.values
    if not len(rest):  # nothing to compare with: codes that no quantity has
        return (np.abs(v) > 1e10) | ((v < 0) & (np.abs(v) >= (10 * SMALLEST if column.kind == COVARIATE else SMALLEST)))
    low, high = rest[0], rest[-1]
    cut = int(0.01 * (len(rest) - 1))
    spread = rest[-1 - cut] - rest[cut]
    if len(rest) < FEWEST:
        spread = max(spread, abs(low), abs(high))
    gap = np.maximum(low - v, v - high)
    counts_reach = (v > 0) & (v < (1e5 if column.kind == COVARIATE else 1e3))
    beyond = gap > np.where(counts_reach, HIGH_OUTSIDE, OUTSIDE) * spread
    # Depths and temperatures reach -99: among covariates that is a code where no other value is below zero.
    large = np.abs(v) >= (10 * SMALLEST if column.kind == COVARIATE and low < 0 else 0)
    other_side = (v < 0) & (-v > SIDE * max(0.0, -low)) & large
    return (gap > 0) & (beyond | other_side)


def _repeated_far_off(column: _Column) -> NDArray[np.bool_]:
    """Up to two values at either end that repeat and are ten times the range of the rest away from it; never zero."""
    flags = np.zeros(len(column.values), dtype=bool)
    index = np.flatnonzero(~column.known)
    v, n = column.values[index], column.count[index]
    often = (v != 0.0) & ((n > 2) | ((n == 2) & (v == np.rint(v))))
    for low, high in PEELS:
        if _apart(v, low, high) and often[:low].all() and often[len(v) - high :].all():
            flags[index[:low]] = True
            flags[index[len(v) - high :]] = True
            break
    return flags


def _apart(v: Array, low: int, high: int) -> bool:
    """Whether so many values at the low and the high end are far from all others."""
    rest = v[low : len(v) - high]
    if len(rest) < FEWEST:
        return False
    reach = FAR * (rest[-1] - rest[0])
    return bool((not low or rest[0] - v[low - 1] > reach) and (not high or v[len(v) - high] - rest[-1] > reach))


def _alike(tables: Mapping[str, _Column]) -> dict[str, list[float]]:
    """Whole numbers far outside of several members or the observation, though each of these has it once."""
    ends: dict[float, list[str]] = {}
    for name, column in tables.items():
        v = column.values[~column.known]
        if column.kind != MEASURED or len(v) <= FEWEST:
            continue
        for end, peel in ((v[0], (1, 0)), (v[-1], (0, 1))):
            if end != 0.0 and end == np.rint(end) and _apart(v, *peel):
                ends.setdefault(float(end), []).append(name)
    out: dict[str, list[float]] = {}
    for value, names in ends.items():
        if len(names) > 1:
            for name in names:
                out.setdefault(name, []).append(value)
    return out


def _range_of_others(
    name: str, columns: Mapping[str, Array], kinds: Mapping[str, str], tables: Mapping[str, _Column]
) -> Array:
    """Ends of what the other members and the observation hold beside codes; nothing for other kinds of columns."""
    if kinds[name] != MEASURED or not tables[name].known.all():
        return np.empty(0)
    ends = [np.empty(0)]
    for other, values in columns.items():
        if other != name and kinds[other] == MEASURED:
            own = tables[other].values[~tables[other].known] if other in tables else values[~np.isnan(values)]
            ends.append(np.array([own.min(), own.max()]) if len(own) else np.empty(0))
    return np.sort(np.concatenate(ends))


def _refusal(tables: Mapping[str, _Column], found: Mapping[str, NDArray[np.bool_]], what: str) -> str:
    codes = list(dict.fromkeys(shown(v) for name, flags in found.items() for v in tables[name].values[flags]))
    parts = [f"{what} {name!r} holds {_held(tables[name], flags)}" for name, flags in found.items()]
    listing = "; ".join(parts[:3]) + (f"; and so {len(parts) - 3} more" if len(parts) > 3 else "")
    looks, it = ("it looks like a code", "it") if len(codes) == 1 else ("they look like codes", "them")
    call = codes[0] if len(codes) == 1 else f"[{', '.join(codes)}]"
    options = " ".join(f"--missing {code}" for code in codes)
    names = list(found)
    true = (
        f"{{{names[0]!r}: {NONE!r}}} (--missing {names[0]}={NONE})"
        if len(names) == 1
        else f"{NONE!r} (--missing {NONE})"
    )
    return (
        f"{listing}: {looks} for missing values; read {it} as missing by missing={call} ({options}), or, if the values are true, "
        f"say so by missing={true}"
    )


def _held(column: _Column, flags: NDArray[np.bool_]) -> str:
    counts = " and ".join(f"{shown(v)} in {n}" for v, n in zip(column.values[flags], column.count[flags], strict=True))
    rest = column.values[~flags]
    others = f"its other values: {rest[0]:.4g} to {rest[-1]:.4g}" if len(rest) else "it has no other values"
    return f"{counts} of {column.size} rows ({others})"
