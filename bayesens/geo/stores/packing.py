"""Maps as whole numbers of 16 bits: a scale and an offset from a stated range, half a step of error, nothing that wraps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.messages import check_known

__all__ = ["FILL", "Packing", "packings"]

FILL = -32768  # no value
MOST = 32767  # the largest whole number that holds a value, and minus the smallest
PROBABILITIES = ("probability_below", "mass_at_zero")
SPREADS = ("sd", "sd_within", "sd_between", "sd_parameter")
BLOCK = 2**15  # numbers at a time: they stay in the cache between steps
WIDER = 1.0  # half widths that a range is widened by to each side: quantiles lie beyond what was observed
Packed = bool | Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Packing:
    """How a variable is packed: value = number * scale + offset.

    Attributes
    ----------
    scale, offset : float
    """

    scale: float
    offset: float

    @classmethod
    def over(cls, low: float, high: float) -> Packing:
        """Take the smallest step of 1, 2 or 5 times a power of ten that holds a range; zero is a whole number of steps.

        Parameters
        ----------
        low, high : float
            What values are expected between.

        Returns
        -------
        Packing

        Examples
        --------
        >>> Packing.over(0.0, 1.0)
        Packing(scale=2e-05, offset=0.5)
        """
        if not (math.isfinite(low) and math.isfinite(high)) or low > high:
            raise ValueError(f"the range to pack is {low} to {high}; wanted two finite numbers, the smaller one first")
        width = (high - low) or max(abs(high), 1.0)
        scale = _round_step(width / (2 * MOST))
        while True:
            steps = round((low + high) / 2 / scale)
            offset = float(f"{steps * scale:.12g}")
            if (high - offset) / scale <= MOST and (low - offset) / scale >= -MOST:
                return cls(scale, offset)
            scale = _round_step(scale * 1.5)

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest value that can be held."""
        return self.offset - MOST * self.scale, self.offset + MOST * self.scale

    def pack(self, values: NDArray[Any]) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
        """Pack values, and say which of them lay outside and were set to the nearest limit; NaN becomes the fill value.

        Parameters
        ----------
        values : array of float

        Returns
        -------
        numbers : array of int16
        clipped : array of bool

        Examples
        --------
        >>> Packing(0.5, 0.0).pack(np.array([1.2, np.nan, 1e9]))
        (array([     2, -32768,  32767], dtype=int16), array([False, False,  True]))
        """
        flat = np.ascontiguousarray(values).reshape(-1)
        numbers, clipped = np.empty(flat.shape, dtype=np.int16), np.empty(flat.shape, dtype=np.bool_)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(flat), BLOCK):
                part = slice(start, start + BLOCK)
                steps = np.subtract(flat[part], self.offset, dtype=np.float64)
                steps /= self.scale
                np.rint(steps, out=steps)
                np.greater(np.abs(steps), MOST, out=clipped[part])
                missing = np.isnan(steps)
                np.clip(steps, -MOST, MOST, out=steps)
                steps[missing] = FILL
                numbers[part] = steps
        return numbers.reshape(values.shape), clipped.reshape(values.shape)

    def unpack(self, numbers: NDArray[np.int16]) -> NDArray[np.float64]:
        """Values of packed numbers, NaN where there is none."""
        return np.where(numbers == FILL, np.nan, numbers * self.scale + self.offset)


def _round_step(least: float) -> float:
    """The next number upwards that is 1, 2 or 5 times a power of ten."""
    power = math.floor(math.log10(least))
    digits = least / 10.0**power
    first = next(one for one in (1, 2, 5, 10) if digits <= one * (1 + 1e-12))
    return float(f"{first}e{power}")


def packings(maps: xr.Dataset, names: list[str], packed: Packed, fit: xr.DataTree | None) -> dict[str, Packing]:
    """Choose how each variable is packed, without a pass over the maps.

    Parameters
    ----------
    maps : Dataset
    names : list of str
        Variables that can be packed.
    packed : bool or mapping of name to (scale, offset)
        True: all, over ranges that the fit states. A mapping: these variables as it says, and the others too where there is a
        `fit`.
    fit : DataTree, optional
        Its observations and the ranges of its members.

    Returns
    -------
    dict of str to Packing
        Empty where nothing is packed.

    Raises
    ------
    ValueError, TypeError, UnknownName
    """
    if packed is False:
        return {}
    given = {} if packed is True else dict(packed)
    check_known(given, names, kind="variable to pack", where="the maps")
    found = {name: _given(name, pair) for name, pair in given.items()}
    rest = [name for name in names if name not in found]
    located = [name for name in rest if name not in PROBABILITIES]
    reach = _reach(fit)
    if located and reach is None and packed is True:
        raise ValueError(f"packed=True takes the ranges of {located[0]!r} and others from the fit, and fit= was not given; give "
                         "it, or say packed={name: (scale, offset)}.")  # fmt: skip
    for name in rest:
        if name in PROBABILITIES:
            found[name] = Packing.over(0.0, 1.0)
        elif reach is not None:
            low, high = reach
            found[name] = Packing.over(0.0, high - low) if name in SPREADS else Packing.over(low, high)
    return {name: found[name] for name in names if name in found}


def _given(name: str, pair: Any) -> Packing:
    try:
        scale, offset = (float(one) for one in pair)
    except (TypeError, ValueError) as error:
        raise TypeError(f"packed[{name!r}] is {pair!r}; wanted (scale, offset), two numbers") from error
    if not (math.isfinite(scale) and math.isfinite(offset)) or scale <= 0:
        raise ValueError(f"packed[{name!r}] is {pair!r}; wanted (scale, offset) with a finite scale above zero")
    return Packing(scale, offset)


def _reach(fit: xr.DataTree | None) -> tuple[float, float] | None:
    """The range of what a fit has seen, observations and members, widened to both sides; None where it does not say."""
    if fit is None:
        return None
    ranges = [tuple(pair) for pair in json.loads(fit.attrs.get("member_range", "{}")).values()]
    if "observed_data" in fit.children:
        observed = np.asarray(fit["observed_data"].to_dataset()["y"].values)
        ranges.append((float(np.nanmin(observed)), float(np.nanmax(observed))))
    if not ranges:
        return None
    low, high = min(one for one, _ in ranges), max(one for _, one in ranges)
    wider = WIDER * (high - low) / 2
    return low - wider, high + wider
