"""Columns brought to the unit of the others where they are read: value * scale + offset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from bayesens.messages import check_known

__all__ = ["Conversion", "conversion_words", "convert", "factors"]

Array = NDArray[np.float64]
Conversion = Mapping[str, float] | None


def factors(scale: Conversion, offset: Conversion, columns: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return scale and offset of each column that has one, checked; `columns` are those that may be converted.

    Examples
    --------
    >>> factors({"rf": 0.01}, {"era5": -273.15}, ["rf", "era5", "sm"])
    {'rf': (0.01, 0.0), 'era5': (1.0, -273.15)}
    """
    known = list(columns)
    given = {"scale": scale or {}, "offset": offset or {}}
    for what, each in given.items():
        if not isinstance(each, Mapping):
            raise TypeError(f"{what} is {each!r}; wanted a mapping of column to number, such as {what}={{'rf': 0.01}}")
        check_known(each, known, kind="column", where="the members and the observation")
        every: Mapping[str, object] = each
        for name, value in every.items():
            if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
                raise TypeError(f"{what} of {name!r} is {value!r}; wanted a finite number")
            if what == "scale" and value == 0:
                raise ValueError(f"scale of {name!r} is 0, which would make all values alike; wanted another number")
    names = dict.fromkeys([*given["scale"], *given["offset"]])
    return {name: (float(given["scale"].get(name, 1.0)), float(given["offset"].get(name, 0.0))) for name in names}


def convert(columns: Mapping[str, Array], scale: Conversion, offset: Conversion) -> None:
    """Convert columns in place.

    A column becomes ``value * scale + offset``.

    Examples
    --------
    >>> era5 = np.array([283.15, 293.15])
    >>> convert({"era5": era5}, None, {"era5": -273.15})
    >>> era5.round(2).tolist()
    [10.0, 20.0]
    """
    for name, (a, b) in factors(scale, offset, columns).items():
        columns[name][:] = columns[name] * a + b


def conversion_words(converted: Mapping[str, tuple[float, float]]) -> str:
    """Write what was done to which column.

    Examples
    --------
    >>> conversion_words({"rf": (0.01, 0.0), "era5": (1.0, -273.15), "gfs": (0.5, 3.0)})
    'rf = 0.01 * rf, era5 = era5 - 273.15, gfs = 0.5 * gfs + 3'
    """
    return ", ".join(f"{name} = {_product(name, a)}{_sum(b)}" for name, (a, b) in converted.items())


def _product(name: str, a: float) -> str:
    return name if a == 1.0 else f"{a:.6g} * {name}"


def _sum(b: float) -> str:
    return "" if b == 0.0 else f" {'+' if b > 0 else '-'} {abs(b):.6g}"
