"""Members that look as if they were in another unit than the observation, and rows far from what a fit has seen.

Models correct a member's bias and slope, so that kelvin among degrees Celsius are no error to them: only the prior, or the
centre that all members share, is far off, and nobody hears of it. These checks look at pairs of a member and the observation
and say which conversion would make them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesens.messages import listed, warn

__all__ = [
    "conversion_of",
    "empty_words",
    "member_ranges",
    "of_grid",
    "range_words",
    "unit_words",
    "warn_ranges",
    "warn_units",
]

Array = NDArray[np.float64]
ROWS = 5_000  # rows that are enough for a median
FEWEST = 8  # rows below which nothing is told
FACTOR = 10.0  # between medians or spreads, above which units are asked for
SAME_LEVEL = (0.5, 2.0)  # ratio of medians that tells of one unit, however wide the errors are
POOR = 3.0  # errors in standard deviations of the observation, above which a member in its unit is worse than none
CORRELATED, LINKED, STRONGLY = 0.3, 0.5, 0.9
ALIKE, NEARLY = (0.4, 2.5), (0.8, 1.25)  # ratios of medians and of spreads that a conversion must leave
CLOSE = 1.0  # spreads between the medians after a conversion
BEYOND_ALL = 3.0  # ranges outside of the range of the fit, for any row
BEYOND_MEDIAN = 0.5  # the same for the median of many rows
MANY = 30

# Scale and offset that bring a member to the observation's unit, and what it would be in.
CONVERSIONS = (
    (0.01, 0.0, "in percent, or in hundredths of the observation's unit"),
    (100.0, 0.0, "a fraction where the observation is in percent, or in hundreds of its unit"),
    (0.001, 0.0, "in thousandths of the observation's unit, as mm to m"),
    (1000.0, 0.0, "in thousands of the observation's unit, as m to mm"),
    (1.0, -273.15, "in kelvin, and the observation in degrees Celsius"),
    (1.0, 273.15, "in degrees Celsius, and the observation in kelvin"),
    (5 / 9, -160 / 9, "in degrees Fahrenheit, and the observation in degrees Celsius"),
    (1.8, 32.0, "in degrees Celsius, and the observation in degrees Fahrenheit"),
    (5 / 9, 255.372222, "in degrees Fahrenheit, and the observation in kelvin"),
    (1.8, -459.67, "in kelvin, and the observation in degrees Fahrenheit"),
    (1e-6, 0.0, "in millionths of the observation's unit"),
    (1e6, 0.0, "in millions of the observation's unit"),
    (0.0283168, 0.0, "in cubic feet, and the observation in cubic metres"),
    (35.3147, 0.0, "in cubic metres, and the observation in cubic feet"),
    (0.0393701, 0.0, "in mm, and the observation in inches"),
    (25.4, 0.0, "in inches, and the observation in mm"),
    (86400.0, 0.0, "a rate by second, and the observation one by day"),
    (1 / 86400.0, 0.0, "a rate by day, and the observation one by second"),
)


@dataclass(frozen=True)
class _Pair:
    """Medians, spreads and correlation of a member and the observation in the rows that have both."""

    f: Array
    y: Array

    @property
    def ratio_of_spreads(self) -> float:
        wide, usual = _spread(self.f), _spread(self.y)
        return wide / usual if usual > 0.0 else 1.0

    @property
    def ratio_of_medians(self) -> float:
        """NaN where the observation's median is too near to zero to tell of a unit."""
        f, y = float(np.median(self.f)), float(np.median(self.y))
        return f / y if abs(y) > 0.1 * _spread(self.y) else np.nan

    @property
    def shift(self) -> float:
        """Distance of the medians in spreads of the observation."""
        usual = _spread(self.y)
        return abs(float(np.median(self.f) - np.median(self.y))) / usual if usual > 0.0 else 0.0

    @property
    def correlation(self) -> float:
        flat = min(np.std(self.f), np.std(self.y)) == 0.0
        return 0.0 if flat else float(np.corrcoef(self.f, self.y)[0, 1])

    def error(self, scale: float = 1.0, offset: float = 0.0) -> float:
        """Median absolute error after a conversion, in those of the observations about their median."""
        usual = float(np.median(np.abs(self.y - np.median(self.y)))) or 0.6745 * float(np.std(self.y))
        return float(np.median(np.abs(self.y - scale * self.f - offset))) / usual if usual > 0.0 else 0.0


def _pair(f: Array, y: Array) -> _Pair | None:
    both = np.flatnonzero(~(np.isnan(f) | np.isnan(y)))
    if len(both) < FEWEST:
        return None
    some = both[:: max(1, len(both) // ROWS)]
    return _Pair(f[some], y[some])


def _spread(x: Array) -> float:
    """Width of the central nine tenths, or the standard deviation where most values are one."""
    low, high = np.quantile(x, [0.05, 0.95])
    return float(high - low) or float(np.std(x))


# Against the observation ---------------------------------------------------------------------------------------------


def warn_units(prediction: Array, observation: Array, members: Sequence[str], name: str) -> None:
    """Warn of members that look as if they were in another unit than the observation.

    One sentence for each: medians, standard deviations, and the conversion as one would write it.
    """
    for k, member in enumerate(members):
        if text := unit_words(prediction[:, k], observation, member, name):
            warn(text)


def unit_words(f: Array, y: Array, member: str, name: str, *, product: bool = False) -> str:
    """Say what tells that a member is in another unit than the observation; empty if nothing does.

    A product to compare with is converted where it is given.

    Examples
    --------
    >>> y = np.linspace(0.1, 0.4, 10)
    >>> unit_words(100 * y + 1, y, "rf", "sm")[-59:]
    "; if so, convert it by scale={'rf': 0.01} (--scale rf=0.01)"
    >>> unit_words(3 * y + 0.5, y, "rf", "sm")
    ''
    """
    pair = _pair(f, y)
    if pair is None:
        return ""
    seen = f"{'product' if product else 'member'} {member!r} (median {np.median(pair.f):.3g}, sd {np.std(pair.f):.3g})"
    truth = f"{name!r}: median {np.median(pair.y):.3g}, sd {np.std(pair.y):.3g}"
    if (found := _conversion(pair)) is not None:
        scale, offset, how = found
        call = _product_call(scale, offset) if product else _call(member, scale, offset)
        return f"{seen} looks as if it were {how} ({truth}); if so, convert it by {call}"
    if _differs(pair):
        call = "its values * scale + offset" if product else (
            f"scale={{{member!r}: ...}} or offset={{{member!r}: ...}} (--scale {member}=..., --offset {member}=...)"
        )  # fmt: skip
        return (f"{seen} and the observation ({truth}) differ by more than a factor of {FACTOR:g}, as if they were in different "
                f"units; wanted the observation's unit: if so, convert it by {call}")  # fmt: skip
    return ""


def conversion_of(f: Array, y: Array) -> tuple[float, float, str] | None:
    """Scale and offset that bring a column to the observation's unit, and the unit that it seems to be in, if it is in another.

    None where they are alike as they are, where no conversion makes them so, and where they do not vary together.

    Examples
    --------
    >>> y = np.linspace(0.1, 0.4, 10)
    >>> conversion_of(100 * y + 1, y)
    (0.01, 0.0, "in percent, or in hundredths of the observation's unit")
    """
    pair = _pair(f, y)
    return None if pair is None or not pair.correlation > LINKED else _conversion(pair)


def _conversion(pair: _Pair) -> tuple[float, float, str] | None:
    """The conversion that makes level and spread of the two alike, where they are not."""
    as_it_is = pair.error()
    if _one_level(pair) or not (as_it_is > POOR or _spreads_differ(pair)):
        return None
    found = [(pair.error(scale, offset), (scale, offset, how)) for scale, offset, how in CONVERSIONS
             if _alike(pair, scale, offset)]  # fmt: skip
    if not found:
        return None
    error, best = min(found)
    # About zero the level tells nothing, and a member that is drawn in, as by a strong penalty, has a small spread as well.
    told = as_it_is > POOR * error and not np.isnan(pair.ratio_of_medians)
    return best if told or pair.correlation > (CORRELATED if pair.ratio_of_spreads > FACTOR else STRONGLY) else None


def _alike(pair: _Pair, scale: float, offset: float) -> bool:
    """Whether level and spread agree after a conversion: roughly for powers of ten, closely for factors that bias can mimic."""
    moved = _Pair(scale * pair.f + offset, pair.y)
    power = offset == 0.0 and float(np.log10(scale)).is_integer()
    ratio = moved.ratio_of_medians
    low, high = ALIKE if (power or offset != 0.0) and not np.isnan(ratio) else NEARLY
    level = moved.shift < CLOSE and (np.isnan(ratio) or low < ratio < high)
    return level and low < moved.ratio_of_spreads < high


def _differs(pair: _Pair) -> bool:
    """Whether medians are more than ten times off, and spreads too, or spreads alone, and it is not the errors that are."""
    ratio, spreads = abs(pair.ratio_of_medians), _spreads_differ(pair)
    if np.isnan(ratio):
        return pair.ratio_of_spreads > FACTOR and pair.correlation > LINKED
    return (ratio > FACTOR or ratio < 1.0 / FACTOR) and (spreads or pair.shift > FACTOR)


def _spreads_differ(pair: _Pair) -> bool:
    return not 1.0 / FACTOR <= pair.ratio_of_spreads <= FACTOR


def _one_level(pair: _Pair) -> bool:
    low, high = SAME_LEVEL
    return bool(low < pair.ratio_of_medians < high) and pair.shift < POOR


def _call(member: str, scale: float, offset: float) -> str:
    parts = {"scale": scale} if scale != 1.0 else {}
    parts |= {"offset": offset} if offset != 0.0 else {}
    python = ", ".join(f"{key}={{{member!r}: {value:.6g}}}" for key, value in parts.items())
    return f"{python} ({' '.join(f'--{key} {member}={value:.6g}' for key, value in parts.items())})"


def _product_call(scale: float, offset: float) -> str:
    return "its values" + (f" * {scale:.6g}" if scale != 1.0 else "") + (f" + ({offset:.6g})" if offset else "")


# Against the rows of a fit -------------------------------------------------------------------------------------------


def member_ranges(low: Sequence[float], high: Sequence[float], members: Sequence[str]) -> dict[str, list[float]]:
    """Return the range of each member, as a fit keeps it.

    Examples
    --------
    >>> member_ranges([0.1], [0.5], ["rf"])
    {'rf': [0.1, 0.5]}
    """
    return {name: [float(a), float(b)] for name, a, b in zip(members, low, high, strict=True) if a <= b}


def warn_ranges(prediction: Array, members: Sequence[str], ranges: Mapping[str, Sequence[float]]) -> None:
    """Warn of members whose values lie far outside of what a fit has seen.

    `ranges` are from `member_ranges`; members that it lacks are passed over. One sentence for each: its values, those of
    the fit, and what to do.
    """
    for k, name in enumerate(members):
        if name in ranges and (words := range_words(name, prediction[:, k], ranges[name], how=_call)):
            warn(words)


def range_words(
    name: str,
    given: Array,
    ends: Sequence[float],
    *,
    what: str = "member",
    seen: str = "the fit has seen",
    of: str = "rows",
    how: Callable[[str, float, float], str],
) -> str:
    """Say of values that they lie far outside of a range, and what to do; nothing where they do not.

    Parameters
    ----------
    name : str
    given : array
    ends : (float, float)
    what, seen : str
        What the values are, and whose the range is.
    of : str
        What is counted; empty where the values are a part of all, of which numbers would say little.
    how : callable
        Takes the name, a scale and an offset, and says how one converts by them.

    Examples
    --------
    >>> range_words("dem", np.array([300.0, 400.0, np.nan]), (1.0, 9.0), of="cells", how=of_grid)
    "member 'dem' is far outside of the range that the fit has seen, 1 to 9, in 2 of 2 cells (here 300 to 400); if it is in ..."
    """
    values = given[~np.isnan(given)]
    if not len(values):
        return ""
    low, high = ends
    beyond = np.maximum(low - values, values - high) / (high - low if high > low else max(abs(high), 1.0))
    outside = int(np.count_nonzero(beyond > BEYOND_ALL))
    if not outside and (len(values) < MANY or float(np.median(beyond)) <= BEYOND_MEDIAN):
        return ""
    count = outside or int(np.count_nonzero(beyond > 0.0))
    here = f", in {count} of {len(values)} {of} (here {values.min():.4g} to {values.max():.4g})" if of else ""
    return (f"{what} {name!r} is far outside of the range that {seen}, {low:.4g} to {high:.4g}{here}; "
            f"{_advice(values, name, low, high, how)}")  # fmt: skip


def of_grid(name: str, scale: float, offset: float) -> str:
    """How a variable of a grid is converted.

    Examples
    --------
    >>> of_grid("rf", 0.01, 0.0), of_grid("tas", 1.0, -273.15)
    ("'rf' * 0.01", "'tas' - 273.15")
    """
    times = "" if scale == 1.0 else f" * {scale:.6g}"
    return f"{name!r}{times}" + (f" {'-+'[offset > 0]} {abs(offset):.6g}" if offset else "")


def _advice(values: Array, name: str, low: float, high: float, how: Callable[[str, float, float], str]) -> str:
    """A conversion that brings the values back into the range, or what else to look at."""
    wide = 0.5 * (high - low)
    ends = np.quantile(values, [0.05, 0.5, 0.95])
    most_inside = low <= ends[1] <= high  # a few rows are wrong, and not the unit
    for scale, offset, _ in () if most_inside else CONVERSIONS:
        moved = scale * ends + offset
        if low - wide <= moved[0] and moved[2] <= high + wide and low <= moved[1] <= high:
            return f"if it is in another unit here, convert it by {how(name, scale, offset)}"
    return "its values are extrapolated: check its unit and the file that it comes from"


def empty_words(names: Sequence[str], rows: int, of: str = "rows") -> str:
    """Say that members have a column and no value.

    Examples
    --------
    >>> empty_words(["c"], 5)
    "member 'c' is empty in all 5 rows: predictions treat it as missing"
    """
    if len(names) == 1:
        return f"member {listed(names)} is empty in all {rows} {of}: predictions treat it as missing"
    return f"members {listed(names)} are empty in all {rows} {of}: predictions treat them as missing"
