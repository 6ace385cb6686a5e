"""The predictive law of cells that share its coefficients, some cells side by side: moments, quantiles, probabilities.

What differs between cells stands in the last dimension of small arrays, so that every loop is one over neighbours in memory,
without branches inside: the compiler turns these into vector operations.
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

from bayesens.c_functions import BARE, KERNEL, pointer_at

__all__ = ["CELLS", "law_of_cells", "log_lanes", "patterns", "tail_lanes"]

CELLS = 128  # side by side; their components stay in the second cache
LOG2E = 1.4426950408889634074
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
ROUND = 6755399441055744.0  # 1.5 * 2**52: adding it leaves the nearest whole number in the last bits
ROOT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
ROOT_2PI = float(np.sqrt(2.0 * np.pi))
INFINITE = np.inf
# Half of (1 + 2 x) erfcx(x) as a polynomial of (x - MIDDLE) / (x + MIDDLE), fitted at Chebyshev nodes: relative error below 1e-9.
MIDDLE = 2.75
TAIL = (
    0.6294018126075507, -0.06523124014179005, -0.03565307592085269, 0.07245312255857589, -0.057247032474883615,
    0.026160166090618057, -0.005247522921453448, -0.0013123857830709138, 0.0009588827731899662, 2.198755159216201e-05,
    -0.0001315128702614467, 3.141634515046338e-06, 1.3240816706071997e-05,
)  # fmt: skip
LANES = numba.njit(**BARE, error_model="numpy", fastmath={"contract"})
ENOUGH = 1e-4  # least sigmas of a last step, after which the error is of the order of its square
MOST = 80  # steps, of which every second halves the bracket at least


@intrinsic
def _bits_of(typingctx, x):  # type: ignore[no-untyped-def]
    """A float's bits as a whole number."""
    return types.int64(types.float64), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.IntType(64)
    )


@intrinsic
def _float_of(typingctx, bits):  # type: ignore[no-untyped-def]
    """The float that has these bits."""
    return types.float64(types.int64), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.DoubleType()
    )


# --------------------------------------------------------------------------------------------------- functions of many cells
@LANES
def exp_lanes(x, out):  # type: ignore[no-untyped-def]
    """Exponential, to the last bit or two."""
    for i in range(len(out)):
        value = min(max(x[i], -700.0), 700.0)
        scale = value * LOG2E + ROUND
        whole = scale - ROUND
        r = (value - whole * LN2_HIGH) - whole * LN2_LOW
        p = r / 6227020800.0 + 1.0 / 479001600.0
        p = p * r + 1.0 / 39916800.0
        p = p * r + 1.0 / 3628800.0
        p = p * r + 1.0 / 362880.0
        p = p * r + 1.0 / 40320.0
        p = p * r + 1.0 / 5040.0
        p = p * r + 1.0 / 720.0
        p = p * r + 1.0 / 120.0
        p = p * r + 1.0 / 24.0
        p = p * r + 1.0 / 6.0
        p = p * r + 0.5
        p = p * r + 1.0
        p = p * r + 1.0
        out[i] = p * _float_of((_bits_of(scale) + np.int64(1023)) << np.int64(52))


@LANES
def log_lanes(x, out):  # type: ignore[no-untyped-def]
    """Logarithm of positive numbers."""
    for i in range(len(out)):
        bits = _bits_of(x[i])
        power = (bits - ROOT_HALF_BITS) >> np.int64(52)
        m = _float_of(bits - (power << np.int64(52)))
        s = (m - 1.0) / (m + 1.0)
        z = s * s
        p = z / 19.0 + 1.0 / 17.0
        p = p * z + 1.0 / 15.0
        p = p * z + 1.0 / 13.0
        p = p * z + 1.0 / 11.0
        p = p * z + 1.0 / 9.0
        p = p * z + 1.0 / 7.0
        p = p * z + 1.0 / 5.0
        p = p * z + 1.0 / 3.0
        p = p * z + 1.0
        out[i] = power * LN2_HIGH + (2.0 * s * p + power * LN2_LOW)


@LANES
def tail_lanes(t, bell, tail):  # type: ignore[no-untyped-def]
    """Exp of minus half of the square, and the standard normal's probability below."""
    for i in range(len(tail)):
        bell[i] = -0.5 * t[i] * t[i]
    exp_lanes(bell, bell)
    for i in range(len(tail)):
        x = abs(t[i]) * 0.7071067811865476
        inverse = 1.0 / ((x + MIDDLE) * (1.0 + 2.0 * x))
        y = (x - MIDDLE) * (1.0 + 2.0 * x) * inverse
        p = TAIL[12] * y + TAIL[11]
        p = p * y + TAIL[10]
        p = p * y + TAIL[9]
        p = p * y + TAIL[8]
        p = p * y + TAIL[7]
        p = p * y + TAIL[6]
        p = p * y + TAIL[5]
        p = p * y + TAIL[4]
        p = p * y + TAIL[3]
        p = p * y + TAIL[2]
        p = p * y + TAIL[1]
        p = p * y + TAIL[0]
        p = p * bell[i] * (x + MIDDLE) * inverse
        tail[i] = p if t[i] < 0.0 else 1.0 - p


@LANES
def _linear(u, form, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] = form[0]
    for p in range(1, len(u)):
        for i in range(len(out)):
            out[i] += form[p] * u[p, i]


@LANES
def _quadratic(u, form, line, out):  # type: ignore[no-untyped-def]
    """Quadratic form of ``u``, at least zero; ``line`` is scratch."""
    for i in range(len(out)):
        out[i] = 0.0
    for p in range(len(u)):
        for i in range(len(out)):
            line[i] = form[p, p] * u[p, i]
        for q in range(p + 1, len(u)):
            for i in range(len(out)):
                line[i] += 2.0 * form[p, q] * u[q, i]
        for i in range(len(out)):
            out[i] += line[i] * u[p, i]
    for i in range(len(out)):
        out[i] = max(out[i], 0.0)


# --------------------------------------------------------------------------------------------------------------- the cells
@KERNEL
def patterns(address, stride, single, start, out):  # type: ignore[no-untyped-def]
    """Which members cells have, as the bits of a number, and whether some value is infinite.

    Parameters
    ----------
    address, stride : int array (member)
        Of the members' first cells, and the number of values from one to the next.
    single : bool
        Whether values are of 4 bytes.
    start : int
        First cell.
    out : int array (cell)
        Filled.
    """
    strange = False
    for i in range(len(out)):
        out[i] = 0
    for k in range(len(address)):
        here, step = pointer_at(address[k]), stride[k]
        bit = np.int64(1) << np.int64(k)
        if single:
            f = numba.carray(here, (start + len(out)) * step, np.float32)
            for i in range(len(out)):
                value = f[(start + i) * step]
                out[i] |= bit if value == value else np.int64(0)
                strange |= abs(value) == INFINITE
        else:
            g = numba.carray(here, (start + len(out)) * step, np.float64)
            for i in range(len(out)):
                other = g[(start + i) * step]
                out[i] |= bit if other == other else np.int64(0)
                strange |= abs(other) == INFINITE
    return strange


@LANES
def _load(address, stride, single, first, index, origin, transform, u):  # type: ignore[no-untyped-def]
    """Members of some cells less their origin, on the model's scale; zero where one is missing."""
    m = u.shape[1]
    for i in range(m):
        u[0, i] = 1.0
    for k in range(len(address)):
        here, step, row = pointer_at(address[k]), stride[k], u[1 + k]
        if single:
            f = numba.carray(here, 1 << 60, np.float32)
            if len(index):
                for i in range(m):
                    row[i] = f[index[i] * step]
            elif step == 1:
                for i in range(m):
                    row[i] = f[first + i]
            else:
                for i in range(m):
                    row[i] = f[(first + i) * step]
        else:
            g = numba.carray(here, 1 << 60, np.float64)
            if len(index):
                for i in range(m):
                    row[i] = g[index[i] * step]
            else:
                for i in range(m):
                    row[i] = g[(first + i) * step]
        if transform == 1:
            for i in range(m):
                row[i] = np.sqrt(row[i])
        elif transform == 2:
            log_lanes(row, row)
        for i in range(m):
            value = row[i] - origin[k]
            row[i] = value if value == value else 0.0


@LANES
def _columns(columns, first, index, origin, at, u):  # type: ignore[no-untyped-def]
    """Other numbers of the cells, from row ``at`` of ``u`` on."""
    for c in range(len(columns)):
        row = u[at + c]
        if len(index):
            for i in range(len(row)):
                row[i] = columns[c, index[i]] - origin[c]
        else:
            for i in range(len(row)):
                row[i] = columns[c, first + i] - origin[c]


@LANES
def _covariates(u, point, raw, kind, scale, x, mean, spread, work):  # type: ignore[no-untyped-def]
    """Covariates of the widths, from the members at the corrections' point; zero where one is not known."""
    m, k = x.shape[1], len(point)
    for i in range(m):
        mean[i] = 0.0
        spread[i] = 0.0
    for j in range(k):
        _linear(u, point[j], work[j])
        for i in range(m):
            mean[i] += work[j, i] / k
    for j in range(k):
        for i in range(m):
            spread[i] += (work[j, i] - mean[i]) * (work[j, i] - mean[i])
    for c in range(len(x)):
        start, center, size, low, high = scale[c, 0], scale[c, 1], scale[c, 2], scale[c, 3], scale[c, 4]
        row = x[c]
        if kind[c] == 0:
            for i in range(m):
                row[i] = mean[i]
        elif kind[c] == 1:
            for i in range(m):
                row[i] = np.sqrt(spread[i] / max(k - 1, 1))
        else:
            for i in range(m):
                row[i] = raw[kind[c] - 2, i]
        if start == start:
            for i in range(m):
                row[i] = max(row[i], 0.0) + start
            log_lanes(row, row)
        known = kind[c] != 1 or k > 1
        for i in range(m):
            value = (row[i] - center) / size
            row[i] = min(max(value, low), high) if known and value == value else 0.0


@LANES
def _polynomial(x, parent, factor, coefficient, power, out):  # type: ignore[no-untyped-def]
    """A polynomial, each of whose monomials is another one times a variable."""
    for i in range(len(out)):
        power[0, i] = 1.0
        out[i] = coefficient[0]
    for j in range(1, len(coefficient)):
        before, variable, row = power[parent[j]], x[factor[j]], power[j]
        for i in range(len(out)):
            row[i] = before[i] * variable[i]
            out[i] += coefficient[j] * row[i]


# ----------------------------------------------------------------------------------------------------------- the components
@LANES
def _factors(x, unsure, node, share, fixed, factor, work):  # type: ignore[no-untyped-def]
    """Factors of a component's variance at the nodes of its widths, (node, cell)."""
    m, nodes = factor.shape[1], len(node)
    if fixed or nodes == 1:
        for j in range(nodes):
            for i in range(m):
                factor[j, i] = node[j] if fixed else 1.0
        return
    _quadratic(x, unsure, work[0], work[1])
    for i in range(m):
        work[2, i] = 0.0
    for j in range(nodes):
        for i in range(m):
            factor[j, i] = 2.0 * np.sqrt(work[1, i]) * node[j]
        exp_lanes(factor[j], factor[j])
        for i in range(m):
            work[2, i] += share[j] * factor[j, i]
    for j in range(nodes):
        for i in range(m):
            factor[j, i] /= work[2, i]


@LANES
def _variance(x, size, tilt, tilt_spread, out, work):  # type: ignore[no-untyped-def]
    """Mean variance of the kernels in one bin."""
    m = len(out)
    for i in range(m):
        out[i] = 0.0
    for t in range(len(size)):
        if size[t] == 0.0:
            continue
        if len(x) == 0:
            for i in range(m):
                out[i] += size[t]
            continue
        _quadratic(x, tilt_spread[t], work[0], work[1])
        for c in range(len(x)):
            for i in range(m):
                work[1, i] += tilt[t, c] * x[c, i]
        for i in range(m):
            work[1, i] *= 2.0
        exp_lanes(work[1], work[1])
        for i in range(m):
            out[i] += size[t] * work[1, i]


@LANES
def _components(u, x, law, choice, factor, work, weight, mean, sd):  # type: ignore[no-untyped-def]
    """Weights, means and standard deviations of all normals, (component, cell); how many there are."""
    forms, ways, bins, weights, centre, spread, size, tilt, tilt_spread, nodes, share, node, unsure, fixed = law
    m, at = u.shape[1], 0
    for c in range(len(bins)):
        _factors(x, unsure, node[c, : nodes[c]], share[c], fixed, factor[: nodes[c]], work)
        for i in range(m):
            choice[i] = 0
            work[3, i] = -1.0
        for j in range(ways[c]):
            _linear(u, forms[c, j], work[0])
            work0, best = work[0], work[3]
            for i in range(m):
                moved = work0[i] * work0[i]
                choice[i] = j if moved > best[i] else choice[i]
                best[i] = max(moved, best[i])
        for j in range(max(ways[c], 1)):
            here = 0
            for i in range(m):
                here += choice[i] == j
            if here == 0:
                continue
            for b in range(bins[c]):
                _linear(u, centre[c, j, b], work[2])
                _variance(x, size[c, j, b], tilt[c, j, b], tilt_spread[c, j, b], work[3], work)
                _quadratic(u, spread[c, j, b], work[0], work[1])
                for n in range(nodes[c]):
                    row = at + b * nodes[c] + n
                    for i in range(m):
                        mine = choice[i] == j
                        value = np.sqrt(work[3, i] * factor[n, i] + work[1, i])
                        weight[row, i] = weights[c, j, b] * share[c, n] if mine else weight[row, i]
                        mean[row, i] = work[2, i] if mine else mean[row, i]
                        sd[row, i] = value if mine else sd[row, i]
        at += bins[c] * nodes[c]
    return at


# ---------------------------------------------------------------------------------------------------------------- quantiles
@LANES
def _bracket(z, weight, mean, sd, low, high, least):  # type: ignore[no-untyped-def]
    """A mixture's quantile lies between the least and the greatest of its components' quantiles."""
    for i in range(len(low)):
        low[i], high[i], least[i] = np.inf, -np.inf, np.inf
    for c in range(len(mean)):
        for i in range(len(low)):
            there = weight[c, i] > 0.0
            value = mean[c, i] + z * sd[c, i]
            low[i] = min(low[i], value) if there else low[i]
            high[i] = max(high[i], value) if there else high[i]
            least[i] = min(least[i], sd[c, i]) if there else least[i]
    for i in range(len(low)):
        room = 1e-9 * least[i] + 1e-15 * max(abs(low[i]), abs(high[i]))
        low[i] -= room
        high[i] += room


@LANES
def _mass(sign, at, weight, mean, inverse, mass, density, work):  # type: ignore[no-untyped-def]
    """Probability on the left of a value (sign 1) or on its right (-1), and the density there times the root of 2 pi."""
    m = len(mass)
    for i in range(m):
        mass[i] = 0.0
        density[i] = 0.0
    t, bell, tail = work[0], work[1], work[2]
    for c in range(len(mean)):
        for i in range(m):
            t[i] = sign * (at[i] - mean[c, i]) * inverse[c, i]
        tail_lanes(t, bell, tail)
        for i in range(m):
            mass[i] += weight[c, i] * tail[i]
            density[i] += weight[c, i] * bell[i] * inverse[c, i]


@LANES
def _quantile(level, weight, mean, sd, inverse, start, floor, out, work):  # type: ignore[no-untyped-def]
    """One quantile of every cell, by safeguarded steps on the logarithm of the smaller tail, which a normal's curvature bends."""
    target, sign, z = level
    m = len(out)
    low, high, least, mass, density, step, ratio = work[0], work[1], work[2], work[3], work[4], work[5], work[6]
    _bracket(z, weight, mean, sd, low, high, least)
    for i in range(m):
        out[i] = min(max(start[i], low[i]), high[i])
        step[i] = max(high[i] - low[i], 1e-300)
    slope = np.exp(-0.5 * z * z) / (ROOT_2PI * target)
    bend = 0.5 * (slope - abs(z)) / slope
    for _ in range(MOST):
        _mass(sign, out, weight, mean, inverse, mass, density, work[7:])
        for i in range(m):
            ratio[i] = max(mass[i], 1e-300) / target
        log_lanes(ratio, ratio)
        rest = 0
        for i in range(m):
            excess = ratio[i]
            up = sign * excess < 0.0
            low[i] = out[i] if up else low[i]
            high[i] = high[i] if up else out[i]
            bent = excess * (1.0 - min(max(bend * excess, -0.5), 0.5))
            newton = out[i] - sign * bent * mass[i] * ROOT_2PI / density[i]
            good = (low[i] <= newton) & (newton <= high[i]) & (abs(newton - out[i]) <= 0.5 * step[i])
            value = newton if good else 0.5 * (low[i] + high[i])
            value = (
                out[i] if step[i] == 0.0 else value
            )  # done before: what a cell gets does not depend on those beside it
            size = abs(newton - out[i]) if good else high[i] - low[i]
            open_ = (step[i] != 0.0) & (not size <= (ENOUGH if good else 1e-9) * least[i] + 4e-16 * abs(value))
            step[i] = size if open_ else 0.0
            out[i] = value
            rest += open_
        if rest == 0:
            break
    for i in range(m):
        out[i] = max(out[i], floor[i])


@LANES
def _store(values, number, first, index, out, single):  # type: ignore[no-untyped-def]
    """Put the numbers of some cells in their places, in whichever array has them."""
    if len(single):
        row = single[number]
        if len(index):
            for i in range(len(index)):
                row[index[i]] = values[i]
        else:
            for i in range(len(values)):
                row[first + i] = values[i]
    else:
        other = out[number]
        if len(index):
            for i in range(len(index)):
                other[index[i]] = values[i]
        else:
            for i in range(len(values)):
                other[first + i] = values[i]


@KERNEL
def law_of_cells(cells, members, columns, widths, moments, law, levels, limits, parts, out, single):  # type: ignore[no-untyped-def]
    """Predict cells of one class; :class:`bayesens.distributions.cells.CellClass` says what is handed over."""
    first, count, index = cells
    address, stride, four_bytes, origin, transform = members
    features, raw, column_origin = columns
    point, kind, scale = widths
    line, between, parameter, parent, factor_of, coefficient = moments
    bins, nodes = law[2], law[9]
    total, members_and_one = 0, 1 + len(address)
    for c in range(len(bins)):
        total += bins[c] * nodes[c]
    u = np.empty((members_and_one + len(features), CELLS))
    x, raws, work = np.empty((len(kind), CELLS)), np.empty((len(raw), CELLS)), np.empty((max(10, len(point)), CELLS))
    weight, mu, sd, inverse = (
        np.zeros((total, CELLS)), np.zeros((total, CELLS)), np.ones((total, CELLS)), np.empty((total, CELLS)))  # fmt: skip
    factor, power, choice = np.empty((8, CELLS)), np.empty((len(coefficient), CELLS)), np.zeros(CELLS, dtype=np.int64)
    mean, within, across, open_ = np.empty(CELLS), np.empty(CELLS), np.empty(CELLS), np.empty(CELLS)
    whole, floor, nothing, rest = np.empty(CELLS), np.empty(CELLS), np.zeros(len(raw)), np.empty(CELLS, dtype=np.int64)
    for begin in range(0, count, CELLS):
        here, some = first + begin, index[begin : begin + CELLS]
        if begin + CELLS > count:  # the last cell stands for those that a block lacks
            for i in range(CELLS):
                last = min(begin + i, count - 1)
                rest[i] = index[last] if len(index) else first + last
            some = rest
        _load(address, stride, four_bytes, here, some, origin, transform, u)
        _columns(features, here, some, column_origin, members_and_one, u)
        _columns(raw, here, some, nothing, 0, raws)
        if len(kind):
            _covariates(u, point, raws, kind, scale, x, mean, within, work)
        _linear(u, line, mean)
        _polynomial(x, parent, factor_of, coefficient, power, within)
        exp_lanes(within, within)
        _quadratic(u, between, work[0], across)
        _quadratic(u, parameter, work[0], open_)
        for i in range(CELLS):
            whole[i] = np.sqrt(within[i] + across[i] + open_[i])
        at = 0
        if parts[0]:
            _store(mean, 0, here, some, out, single)
            _store(whole, 1, here, some, out, single)
            at = 2
        if parts[1]:
            for i in range(CELLS):
                within[i], across[i], open_[i] = np.sqrt(within[i]), np.sqrt(across[i]), np.sqrt(open_[i])
            _store(within, at, here, some, out, single)
            _store(across, at + 1, here, some, out, single)
            _store(open_, at + 2, here, some, out, single)
            at += 3
        if len(levels) == 0 and len(limits) == 0 and not parts[2]:
            continue
        _components(u, x, law, choice, factor, work, weight, mu, sd)
        for c in range(total):
            for i in range(CELLS):
                inverse[c, i] = 1.0 / sd[c, i]
        if parts[2]:
            for c in range(total):
                _store(weight[c], at + c, here, some, out, single)
                _store(mu[c], at + total + c, here, some, out, single)
                _store(sd[c], at + 2 * total + c, here, some, out, single)
            at += 3 * total
        for i in range(CELLS):
            floor[i] = -np.inf
        for q in range(len(levels)):
            for i in range(CELLS):
                within[i] = mean[i] + levels[q, 2] * whole[i]
            _quantile((levels[q, 0], levels[q, 1], levels[q, 2]), weight, mu, sd, inverse, within, floor, across, work)
            for i in range(CELLS):
                floor[i] = across[i]
            _store(across, at + q, here, some, out, single)
        at += len(levels)
        for n in range(len(limits)):
            for i in range(CELLS):
                across[i] = limits[n, some[i] if len(some) else here + i]
            _mass(1.0, across, weight, mu, inverse, within, open_, work)
            for i in range(CELLS):
                within[i] = min(within[i], 1.0)
            _store(within, at + n, here, some, out, single)
