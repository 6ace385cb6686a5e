"""The predictive law of cells whose moments follow from their components: on another scale, or around a single point.

Where members and observations are square roots or logarithms, mean and standard deviation are those of the components turned
back: a normal ``Z`` of mean m and variance v gives ``exp(Z)`` and ``max(Z, 0)^2`` moments in closed form, as
:mod:`bayesens.distributions.mixtures` has them. Quantiles are turned back, and thresholds the other way. The parts of the
variance are those of the components under each of some posterior draws, as shares of the whole.
"""

from __future__ import annotations

import numpy as np

from bayesens.c_functions import ONCE, kernel
from bayesens.distributions.cell_lanes import (
    CELLS,
    LANES,
    LOG2E,
    ROOT_HALF_BITS,
    ROUND,
    _bits_of,
    _float_of,
    exponential,
    linear,
    normal_below,
    quadratic,
    row_of,
)
from bayesens.distributions.cell_loops import SLOTS as TAKEN
from bayesens.distributions.cell_loops import SUM, _components, _variance
from bayesens.distributions.cell_moments import NUMBERS, covariates, feature, load, places, read, store, within
from bayesens.distributions.cell_moments import WITHIN as FOUND
from bayesens.distributions.cell_quantiles import MASS, MEAN, SCORE, SIDE, VALUE, WHOLE, mass_below, quantile

__all__ = ["BACK", "law_by_components", "moments_back"]

BACK = {"identity": 0, "sqrt": 1, "log": 2}
IDENTITY, SQRT, LOG = range(3)
LEAST, MOST = 1e-300, 1e300
ROOT_2PI = float(np.sqrt(2.0 * np.pi))
FAR = 9.0  # sigmas, beyond which nothing of a square is cut off
# Numbers of the cells in the scratch array: of one component, about a typical value; sums over components, and over draws.
FIRST, SECOND, ABOUT, TOTAL, SQUARE, INSIDE, LEVEL, TURNED, FORM, SIGMA, WIDE = range(TAKEN, TAKEN + 11)
CENTRE, SPREAD, WITHIN, BETWEEN, PARAMETER, GRAND = range(TAKEN + 11, TAKEN + 17)
SLOTS = TAKEN + 17


LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10


# -------------------------------------------------------------------------------------------------------------- two scales
@ONCE
def _exp(x):  # type: ignore[no-untyped-def]
    """Exponential, to the last bit or two: a value is its own error where the standard deviation is a thousandth of it."""
    value = min(max(x, -700.0), 700.0)
    scale = value * LOG2E + ROUND
    whole = scale - ROUND
    r = (value - whole * LN2_HIGH) - whole * LN2_LOW
    q = r * r  # cosh and sinh of the rest, whose chains of products are half as long
    even = 1 / 40320 + q * (1 / 3628800 + q / 479001600)
    even = 1.0 + q * (0.5 + q * (1 / 24 + q * (1 / 720 + q * even)))
    odd = 1 / 362880 + q * (1 / 39916800 + q / 6227020800)
    odd = r * (1.0 + q * (1 / 6 + q * (1 / 120 + q * (1 / 5040 + q * odd))))
    return (even + odd) * _float_of((_bits_of(scale) + np.int64(1023)) << np.int64(52))


@ONCE
def _log(x):  # type: ignore[no-untyped-def]
    """Logarithm of a positive number, to the last bit or two."""
    bits = _bits_of(x)
    power = (bits - ROOT_HALF_BITS) >> np.int64(52)
    m = _float_of(bits - (power << np.int64(52)))
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = 1 / 11 + z * (1 / 13 + z * (1 / 15 + z * (1 / 17 + z / 19)))
    p = 1.0 + z * (1 / 3 + z * (1 / 5 + z * (1 / 7 + z * (1 / 9 + z * p))))
    return power * LN2_HIGH + (2.0 * s * p + power * LN2_LOW)


@LANES
def _onto(u, origin, back):  # type: ignore[no-untyped-def]
    """Bring members to the model's scale, less their origin; what a missing one gives is finite, and counts for nothing."""
    for k in range(len(origin)):
        row, about = row_of(u, 1 + k), origin[k]
        if back == LOG:
            for i in range(CELLS):
                row[i] = _log(max(row[i], LEAST)) - about
        elif back == SQRT:
            for i in range(CELLS):
                row[i] = np.sqrt(max(row[i], 0.0)) - about
        else:
            for i in range(CELLS):
                row[i] -= about


@LANES
def _turned(row, back, out):  # type: ignore[no-untyped-def]
    """Values on the scale of the observations."""
    if back == LOG:
        for i in range(CELLS):
            out[i] = _exp(row[i])
    elif back == SQRT:
        for i in range(CELLS):
            out[i] = max(row[i], 0.0) ** 2
    else:
        for i in range(CELLS):
            out[i] = row[i]


@LANES
def _component(back, mu, sd, first, second):  # type: ignore[no-untyped-def]
    """Mean and variance of one component on the scale of the observations."""
    if back == LOG:
        for i in range(CELLS):
            v = sd[i] * sd[i]
            grown = _exp(v) - 1.0
            series = v * (1.0 + v * (0.5 + v * (1 / 6 + v * (1 / 24 + v / 120))))
            mean = _exp(mu[i] + 0.5 * v)
            first[i] = mean
            second[i] = mean * mean * (series if v < 1e-3 else grown)
    elif back == SQRT:
        for i in range(CELLS):
            m, d = mu[i], sd[i]
            z, m2, v = m / d, m * m, d * d
            bell = exponential(-0.5 * z * z)
            above, density = normal_below(z, bell), bell / ROOT_2PI
            mean = (m2 + v) * above + m * d * density
            square = (m2 * m2 + 6.0 * m2 * v + 3.0 * v * v) * above + m * d * (m2 + 5.0 * v) * density
            first[i] = mean
            second[i] = 4.0 * m2 * v + 2.0 * v * v if z > FAR else max(square - mean * mean, 0.0)
    else:
        for i in range(CELLS):
            first[i] = mu[i]
            second[i] = sd[i] * sd[i]


@kernel
def moments_back(back, mu, sd, out):  # type: ignore[no-untyped-def]
    """Mean and variance of normals turned back, (2, normal): for tests."""
    _component(back, mu, sd, out[0], out[1])


# --------------------------------------------------------------------------------------------------------------- components
@LANES
def _components_at_a_point(u, x, law, opening, s, weight, mu, sd):  # type: ignore[no-untyped-def]
    """Weights, means and standard deviations of all normals, of a fit without draws."""
    weights, centre, size, tilt, tilt_spread = law[3], law[4], law[6], law[7], law[8]
    nodes, share, node, fixed = law[9], law[10], law[11], law[13]
    base, open_, total = row_of(s, WIDE), row_of(s, FORM), row_of(s, SUM)
    at = 0
    for c in range(len(nodes)):
        one, lean, bent = size[c, 0, 0], tilt[c, 0, 0], tilt_spread[c, 0, 0]
        _variance(x, one[:1], lean[:1], bent[:1], s)
        for i in range(CELLS):
            base[i] = total[i]
        _variance(x, one[1:], lean[1:], bent[1:], s)
        quadratic(u, opening[c], True, row_of(s, FORM))
        for i in range(CELLS):
            base[i] += total[i] * open_[i]
        for n in range(nodes[c]):
            w, m, d = row_of(weight, at + n), row_of(mu, at + n), row_of(sd, at + n)
            own, factor = weights[c, 0, 0] * share[c, n], node[c, n] if fixed else 1.0
            linear(u, centre[c, 0, 0], m)
            for i in range(CELLS):
                w[i] = own
                d[i] = np.sqrt(base[i] * factor)
        at += nodes[c]


# ------------------------------------------------------------------------------------------------------------------ moments
@LANES
def _clear(s, first, last):  # type: ignore[no-untyped-def]
    for slot in range(first, last + 1):
        row = row_of(s, slot)
        for i in range(CELLS):
            row[i] = 0.0


@LANES
def _sums(back, weight, mu, sd, s):  # type: ignore[no-untyped-def]
    """Sums over components: of their means about a typical value, of the squares of these, and of the variances."""
    _clear(s, TOTAL, INSIDE)
    first, second, about = row_of(s, FIRST), row_of(s, SECOND), row_of(s, ABOUT)
    total, square, inside = row_of(s, TOTAL), row_of(s, SQUARE), row_of(s, INSIDE)
    for c in range(len(mu) // CELLS):
        w = row_of(weight, c)
        _component(back, row_of(mu, c), row_of(sd, c), row_of(s, FIRST), row_of(s, SECOND))
        for i in range(CELLS):
            part = w[i] * (first[i] - about[i])
            total[i] += part
            square[i] += part * (first[i] - about[i])
            inside[i] += w[i] * second[i]


@LANES
def _moments(back, gain, weight, mu, sd, s):  # type: ignore[no-untyped-def]
    """Mean and standard deviation on both scales, and parts of the latter as if there were one posterior draw."""
    about, one, middle, whole = row_of(s, ABOUT), row_of(mu, 0), row_of(s, MEAN), row_of(s, WHOLE)
    for i in range(CELLS):
        about[i] = one[i]
    _sums(IDENTITY, weight, mu, sd, s)
    total, square, inside = row_of(s, TOTAL), row_of(s, SQUARE), row_of(s, INSIDE)
    for i in range(CELLS):
        middle[i] = about[i] + total[i]
        whole[i] = np.sqrt(inside[i] + max(square[i] - total[i] * total[i], 0.0))
    _turned(row_of(s, MEAN), back, row_of(s, ABOUT))
    _sums(back, weight, mu, sd, s)
    centre, spread = row_of(s, CENTRE), row_of(s, SPREAD)
    within, between, parameter = row_of(s, WITHIN), row_of(s, BETWEEN), row_of(s, PARAMETER)
    for i in range(CELLS):
        centre[i] = about[i] + total[i]
        within[i] = gain * inside[i]
        between[i] = max(square[i] - total[i] * total[i], 0.0)
        parameter[i] = 0.0
        spread[i] = np.sqrt(within[i] + between[i])


@LANES
def _linear_in_spread(u, x, direct, power, s):  # type: ignore[no-untyped-def]
    """Mean, standard deviation and its parts, of a variance that is linear in a form of the members."""
    line, open_form, form, base, factor = direct
    spread, parameter = row_of(s, SPREAD), row_of(s, PARAMETER)
    inside, between, found, apart = row_of(s, WITHIN), row_of(s, BETWEEN), row_of(s, FOUND), row_of(s, FORM)
    linear(u, line, row_of(s, CENTRE))
    quadratic(u, open_form, True, row_of(s, PARAMETER))
    quadratic(u, form, True, row_of(s, FORM))
    within(x, *base, power, s)
    for i in range(CELLS):
        inside[i] = found[i]
    within(x, *factor, power, s)
    for i in range(CELLS):
        inside[i] += apart[i] * found[i]
        between[i] = 0.0
        spread[i] = np.sqrt(inside[i] + parameter[i])


# -------------------------------------------------------------------------------------------------- parts, draw after draw
@LANES
def _width(x, width, s):  # type: ignore[no-untyped-def]
    """Factor of the standard deviations under one draw."""
    wide = row_of(s, WIDE)
    for i in range(CELLS):
        wide[i] = 0.0
    for p in range(len(width)):
        value, row = width[p], row_of(x, p)
        for i in range(CELLS):
            wide[i] += value * row[i]
    for i in range(CELLS):
        wide[i] = exponential(wide[i])


@LANES
def _of_draw(back, u, weight, coefficient, size, share, node, s):  # type: ignore[no-untyped-def]
    """Sums over the components under one draw."""
    _clear(s, TOTAL, INSIDE)
    first, second, about = row_of(s, FIRST), row_of(s, SECOND), row_of(s, ABOUT)
    total, square, inside = row_of(s, TOTAL), row_of(s, SQUARE), row_of(s, INSIDE)
    sigma, wide = row_of(s, SIGMA), row_of(s, WIDE)
    for c in range(len(weight)):
        linear(u, coefficient[c], row_of(s, FORM))
        for j in range(len(share)):
            w, own = weight[c] * share[j], np.sqrt(size[c] * node[j])
            for i in range(CELLS):
                sigma[i] = own * wide[i]
            _component(back, row_of(s, FORM), row_of(s, SIGMA), row_of(s, FIRST), row_of(s, SECOND))
            for i in range(CELLS):
                apart = first[i] - about[i]
                total[i] += w * apart
                square[i] += w * apart * apart
                inside[i] += w * second[i]


@LANES
def _parts(back, u, x, draws, s):  # type: ignore[no-untyped-def]
    """Parts of the variance: shares of the whole, from the components under each of some draws."""
    weight, coefficient, size, width, share, node = draws
    count = len(weight)
    _clear(s, WITHIN, GRAND)
    within, between, parameter, grand = row_of(s, WITHIN), row_of(s, BETWEEN), row_of(s, PARAMETER), row_of(s, GRAND)
    total, square, inside, spread = row_of(s, TOTAL), row_of(s, SQUARE), row_of(s, INSIDE), row_of(s, SPREAD)
    for d in range(count):
        _width(x, width[d], s)
        _of_draw(back, u, weight[d], coefficient[d], size[d], share[d], node[d], s)
        for i in range(CELLS):
            apart = total[i] * total[i]
            grand[i] += total[i]
            parameter[i] += apart
            within[i] += inside[i]
            between[i] += max(square[i] - apart, 0.0)
    for i in range(CELLS):
        left_open = max(parameter[i] - grand[i] * grand[i] / count, 0.0)
        unit = spread[i] * spread[i] / (within[i] + between[i] + left_open)
        within[i] *= unit
        between[i] *= unit
        parameter[i] = left_open * unit


# ---------------------------------------------------------------------------------------------------------------- the cells
@LANES
def _below(back, limits, here, apart, place, weight, mu, inverse, s):  # type: ignore[no-untyped-def]
    """Probability strictly below a threshold on the scale of the observations."""
    limit, value, side, mass = row_of(s, LEVEL), row_of(s, VALUE), row_of(s, SIDE), row_of(s, MASS)
    read(limits, here, apart, place, limit)
    for i in range(CELLS):
        side[i] = 1.0
        value[i] = min(max(limit[i], LEAST), MOST) if back != IDENTITY else limit[i]
    if back == LOG:
        for i in range(CELLS):
            value[i] = _log(value[i])
    elif back == SQRT:
        for i in range(CELLS):
            value[i] = np.sqrt(value[i])
    mass_below(weight, mu, inverse, s)
    for i in range(CELLS):
        found = min(mass[i], 1.0)
        found = 0.0 if back != IDENTITY and limit[i] <= 0.0 else found
        mass[i] = found if limit[i] == limit[i] else np.nan


@kernel
def law_by_components(cells, members, columns, widths, law, other, asked, out, single):  # type: ignore[no-untyped-def]
    """Predict cells of one class; :meth:`bayesens.distributions.cells.CellClass.predict` says what is handed over."""
    first, count, index = cells
    address, stride, four_bytes, origin = members
    features, raw, column_origin = columns
    point_mean, point_spread, kind, scale = widths
    back, gain, opening, draws, direct = other
    levels, limits, scores, parts = asked
    total = 0
    for c in range(len(law[2])):
        total += law[2][c] * law[9][c]
    u, nothing = np.zeros(max(1 + len(address) + len(features), NUMBERS) * CELLS), np.zeros(len(address))
    x, raws, place = np.zeros(max(len(kind), 2) * CELLS), np.empty(len(raw) * CELLS), np.empty(CELLS, np.int64)
    weight, mu, sd = np.zeros(total * CELLS), np.zeros(total * CELLS), np.ones(total * CELLS)
    inverse, s = np.empty(total * CELLS), np.zeros(SLOTS * CELLS)
    power = np.empty(max(len(direct[3][2]), len(direct[4][2])) * CELLS)
    level, score, value, side = row_of(s, LEVEL), row_of(s, SCORE), row_of(s, VALUE), row_of(s, SIDE)
    u[:CELLS] = 1.0
    for begin in range(0, count, CELLS):
        here, apart = first + begin, places(first, begin, count, index, place)
        load(address, stride, four_bytes, here, apart, place, nothing, u)
        _onto(u, origin, back)
        for c in range(len(features)):
            feature(features[c], here, apart, place, column_origin[c], row_of(u, 1 + len(address) + c))
        for c in range(len(raw)):
            feature(raw[c], here, apart, place, 0.0, row_of(raws, c))
        covariates(u, point_mean, point_spread, raws, kind, scale, x)
        if len(direct[2]):
            _linear_in_spread(u, x, direct, power, s)
        elif len(opening):
            _components_at_a_point(u, x, law, opening, s, weight, mu, sd)
        else:
            _components(u, x, law, s, weight, mu, sd)
        if not len(direct[2]):
            _moments(back, gain, weight, mu, sd, s)
        at = 0
        if parts > 0:
            store(row_of(s, CENTRE), here, apart, place, 0, out, single)
            store(row_of(s, SPREAD), here, apart, place, 1, out, single)
            at = 2
        if parts > 1:
            if len(draws[0]):
                _parts(back, u, x, draws, s)
            for n in range(3):
                one = row_of(s, WITHIN + n)
                for i in range(CELLS):
                    one[i] = np.sqrt(one[i])
                store(row_of(s, WITHIN + n), here, apart, place, at + n, out, single)
            at += 3
        for i in range(total * CELLS):
            inverse[i] = 1.0 / sd[i]
        for i in range(CELLS):
            level[i] = -np.inf
        for q in range(len(levels)):
            for i in range(CELLS):
                score[i] = levels[q]
            quantile(weight, mu, sd, inverse, s)
            for i in range(CELLS):
                level[i] = max(value[i], level[i])
            _turned(row_of(s, LEVEL), back, row_of(s, TURNED))
            store(row_of(s, TURNED), here, apart, place, at + q, out, single)
        at += len(levels)
        for n in range(len(limits)):
            _below(back, limits[n], here, apart, place, weight, mu, inverse, s)
            store(row_of(s, MASS), here, apart, place, at + n, out, single)
        at += len(limits)
        if parts > 0 and back == SQRT:
            for i in range(CELLS):
                side[i], value[i] = 1.0, 0.0
            mass_below(weight, mu, inverse, s)
            mass = row_of(s, MASS)
            for i in range(CELLS):
                mass[i] = min(mass[i], 1.0)
            store(row_of(s, MASS), here, apart, place, at, out, single)
            at += 1
        for n in range(len(scores)):
            read(scores[n], here, apart, place, score)
            quantile(weight, mu, sd, inverse, s)
            _turned(row_of(s, VALUE), back, row_of(s, TURNED))
            store(row_of(s, TURNED), here, apart, place, at + n, out, single)
