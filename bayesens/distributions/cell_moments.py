"""Mean and variance of the law of cells, and what they are read from: the passes that every cell takes, over 128 at a time.

Sizes that most cells have are known when these loops are compiled, so that inner loops are written out, coefficients stay in
registers, and a form takes one pass. Larger ones add up row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bayesens.c_functions import ONCE, bring, numbers_at
from bayesens.distributions.cell_lanes import CELLS, HERE, LANES, exponential, linear, logarithm, quadratic, row_of
from bayesens.distributions.cell_quantiles import MEAN, WHOLE
from bayesens.distributions.cell_quantiles import SLOTS as TAKEN

__all__ = ["ACROSS", "DEGREES", "NUMBERS", "OPEN", "SLOTS", "WITHIN", "covariates", "feature", "load", "moments", "places",
           "read", "root", "roots", "store", "within"]  # fmt: skip

AHEAD = 65_536  # cells that come to the caches while others are predicted
NUMBERS = 5  # one and up to four others: forms of one pass
DEGREES = 3, 6  # of polynomials of up to two variables that take one pass
WITHIN, ACROSS, OPEN = range(TAKEN, TAKEN + 3)  # numbers of the cells in the scratch array
SLOTS = TAKEN + 3
AT_MEAN, AT_WHOLE, AT_WITHIN = MEAN * CELLS, WHOLE * CELLS, WITHIN * CELLS


# ------------------------------------------------------------------------------------------------- read, and put back
@HERE
def places(first, begin, count, index, place):  # type: ignore[no-untyped-def]
    """Note where some cells stand, and say whether they are not all there one after the other.

    The last cell stands for those that a block lacks: all go through the same loops, and get the same in any company.
    """
    if len(index) == 0 and begin + CELLS <= count:
        return False
    for i in range(CELLS):
        last = min(begin + i, count - 1)
        place[i] = index[last] if len(index) else first + last
    return True


@HERE
def _bring(address, size):  # type: ignore[no-untyped-def]
    for n in range(0, size, 64):
        bring(address + n)


@HERE
def load(address, stride, single, first, apart, place, origin, u):  # type: ignore[no-untyped-def]
    """Members of some cells less their origin; zero where one is missing."""
    for k in range(len(address)):
        _bring(address[k] + (first + AHEAD) * (4 if single else 8), CELLS * (4 if single else 8))
        if single:
            _values(numbers_at(address[k], np.float32), stride[k], first, apart, place, row_of(u, 1 + k), origin[k])
        else:
            _values(numbers_at(address[k], np.float64), stride[k], first, apart, place, row_of(u, 1 + k), origin[k])


@HERE
def _values(f, step, first, apart, place, row, about):  # type: ignore[no-untyped-def]
    if apart:
        for i in range(CELLS):
            row[i] = _known(f[place[i] * step] - about)
    elif step == 1:
        for i in range(CELLS):
            row[i] = _known(f[first + i] - about)
    else:
        for i in range(CELLS):
            row[i] = _known(f[(first + i) * step] - about)


@ONCE
def _known(value):  # type: ignore[no-untyped-def]
    return value if value == value else 0.0


@HERE
def read(values, first, apart, place, row):  # type: ignore[no-untyped-def]
    """Read another number of the cells."""
    if apart:
        for i in range(CELLS):
            row[i] = values[place[i]]
    else:
        some = values[first : first + CELLS]
        for i in range(CELLS):
            row[i] = some[i]


@HERE
def feature(values, first, apart, place, about, row):  # type: ignore[no-untyped-def]
    """Read a column of the cells, less its origin."""
    read(values, first, apart, place, row)
    for i in range(CELLS):
        row[i] -= about


@HERE
def store(values, first, apart, place, number, out, single):  # type: ignore[no-untyped-def]
    """Put a number of the cells in its place, in whichever array has them."""
    if len(single):
        _put_back(values, first, apart, place, single[number])
    else:
        _put_back(values, first, apart, place, out[number])


@HERE
def _put_back(values, first, apart, place, row):  # type: ignore[no-untyped-def]
    if apart:
        for i in range(CELLS):
            row[place[i]] = values[i]
    else:
        some = row[first : first + CELLS]
        for i in range(CELLS):
            some[i] = values[i]


# -------------------------------------------------------------------------------------------------------------- forms
@ONCE
def _square(u, form, i):  # type: ignore[no-untyped-def]
    """A quadratic form of few numbers of a cell, at least zero."""
    out = form[0, 0]
    for p in range(1, NUMBERS):
        own = 2.0 * form[p, 0] + form[p, p] * u[p * CELLS + i]
        for q in range(1, p):
            own += 2.0 * form[p, q] * u[q * CELLS + i]
        out += own * u[p * CELLS + i]
    return max(out, 0.0)


@HERE
def roots(row):  # type: ignore[no-untyped-def]
    """Roots of a row."""
    for i in range(CELLS):
        row[i] = np.sqrt(row[i])


@HERE
def _root_of_few(u, form, out):  # type: ignore[no-untyped-def]
    for i in range(CELLS):
        out[i] = np.sqrt(_square(u, form, i))


@HERE
def root(u, form, out):  # type: ignore[no-untyped-def]
    """Root of a quadratic form of the numbers ``u``."""
    if len(form) == NUMBERS:
        _root_of_few(u, form, out)
    else:
        quadratic(u, form, True, out)
        roots(out)


@ONCE
def _line(u, form, i):  # type: ignore[no-untyped-def]
    """A linear form of few numbers of a cell."""
    out = form[0]
    for p in range(1, NUMBERS):
        out += form[p] * u[p * CELLS + i]
    return out


@HERE
def _mean(u, form, out):  # type: ignore[no-untyped-def]
    if len(form) == NUMBERS:
        for i in range(CELLS):
            out[i] = _line(u, form, i)
    else:
        linear(u, form, out)


@HERE
def _moments_of_few(u, line, form, s):  # type: ignore[no-untyped-def]
    for i in range(CELLS):
        s[AT_MEAN + i] = _line(u, line, i)
        s[AT_WHOLE + i] = np.sqrt(s[AT_WITHIN + i] + _square(u, form, i))


@HERE
def moments(u, line, form, s):  # type: ignore[no-untyped-def]
    """Mean and standard deviation, from the variance within kernels and a form of what else varies."""
    if len(line) == NUMBERS:
        _moments_of_few(u, line, form, s)
        return
    linear(u, line, row_of(s, MEAN))
    quadratic(u, form, True, row_of(s, ACROSS))
    within, across, whole = row_of(s, WITHIN), row_of(s, ACROSS), row_of(s, WHOLE)
    for i in range(CELLS):
        whole[i] = np.sqrt(within[i] + across[i])


# ------------------------------------------------------------------------------------------------------------- widths
@HERE
def covariates(u, mean, spread, raw, kind, scale, x):  # type: ignore[no-untyped-def]
    """Covariates of the widths; zero where one is not known, and for the spread of one member."""
    for c in range(len(kind)):
        start, low, high, row = scale[c, 0], scale[c, 3], scale[c, 4], row_of(x, c)
        factor = 1.0 / scale[c, 2]
        shift = -scale[c, 1] * factor
        if kind[c] == 0:
            _mean(u, mean, row)
        elif kind[c] > 1:
            read(row_of(raw, kind[c] - 2), 0, False, kind, row)
        elif len(spread):
            root(u, spread, row)
        else:
            low, high = 0.0, 0.0
        if start == start:
            for i in range(CELLS):
                row[i] = min(max(logarithm(max(row[i], 0.0) + start) * factor + shift, low), high)
        else:
            for i in range(CELLS):
                row[i] = min(max(row[i] * factor + shift, low), high)
        if kind[c] > 1:
            given = row_of(raw, kind[c] - 2)
            for i in range(CELLS):
                row[i] = row[i] if given[i] == given[i] else 0.0


def _of_two(degree: int) -> Callable[..., Any]:
    """Make a function of a polynomial of two variables, by Horner's rule in both."""

    @LANES
    def polynomial(x, coefficient, out):  # type: ignore[no-untyped-def]
        for i in range(CELLS):
            value = 0.0
            for j in range(degree + 1):
                own = 0.0
                for k in range(j + 1):
                    own = own * x[i] + coefficient[j * (j + 1) // 2 + k]
                value = value * x[CELLS + i] + own
            out[i] = value

    return polynomial


_cubic, _sextic = map(_of_two, DEGREES)
CUBIC, SEXTIC = ((degree + 1) * (degree + 2) // 2 for degree in DEGREES)


@LANES
def _monomials(x, parent, factor, coefficient, power, s):  # type: ignore[no-untyped-def]
    """Any polynomial, each of whose monomials is another one times a variable."""
    constant, one, out = coefficient[0], row_of(power, 0), row_of(s, WITHIN)
    for i in range(CELLS):
        one[i] = 1.0
        out[i] = constant
    for j in range(1, len(coefficient)):
        before, variable, row, value = row_of(power, parent[j]), row_of(x, factor[j]), row_of(power, j), coefficient[j]
        for i in range(CELLS):
            power_ = before[i] * variable[i]
            row[i] = power_
            out[i] += value * power_


@HERE
def _exponentials(row):  # type: ignore[no-untyped-def]
    for i in range(CELLS):
        row[i] = exponential(row[i])


@HERE
def within(x, parent, factor, coefficient, horner, power, s):  # type: ignore[no-untyped-def]
    """Variance within kernels: the exponential of a polynomial of the covariates."""
    out = row_of(s, WITHIN)
    if len(coefficient) == 1:
        value = np.exp(coefficient[0])
        for i in range(CELLS):
            out[i] = value
        return
    if len(horner) == CUBIC:
        _cubic(x, horner, out)
    elif len(horner) == SEXTIC:
        _sextic(x, horner, out)
    else:
        _monomials(x, parent, factor, coefficient, power, s)
    _exponentials(out)
