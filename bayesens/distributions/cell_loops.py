"""The predictive law of cells that share its coefficients: read, moments, components, quantiles, and put back."""

from __future__ import annotations

import numba
import numpy as np

from bayesens.c_functions import BARE, kernel, pointer_at
from bayesens.distributions.cell_lanes import CELLS, LANES, exponential, linear, logarithm, quadratic, row_of
from bayesens.distributions.cell_quantiles import MASS, MEAN, SCORE, SIDE, VALUE, WHOLE, mass_below, quantile
from bayesens.distributions.cell_quantiles import SLOTS as TAKEN

__all__ = ["complete", "law_of_cells", "patterns"]

INFINITE = np.inf
SUMS = numba.njit(**BARE, error_model="numpy", fastmath={"reassoc", "contract"})  # in any order: vector operations
# Numbers of the cells in the scratch array, beside those of quantiles.
WITHIN, ACROSS, OPEN, FLOOR, FORM, WIDTH, BEST, CHOICE, SUM, FACTOR = range(TAKEN, TAKEN + 10)
SLOTS = FACTOR + 8  # a factor for each node of a width


@kernel
def complete(address, stride, single, start, count):  # type: ignore[no-untyped-def]
    """Whether cells have all members, and finite ones; arguments as in `patterns`."""
    for k in range(len(address)):
        here, step = pointer_at(address[k]), stride[k]
        if single:
            odd = _odd(numba.carray(here, 1 << 60, np.float32), step, start, count)
        else:
            odd = _odd(numba.carray(here, 1 << 60, np.float64), step, start, count)
        if odd:
            return False
    return True


@SUMS
def _odd(f, step, start, count):  # type: ignore[no-untyped-def]
    """Whether some value is missing or infinite: its difference with itself is not zero."""
    total = f[start * step] - f[start * step]
    if step == 1:
        some = f[start : start + count]
        for i in range(count):
            total += some[i] - some[i]
    else:
        for i in range(count):
            total += f[(start + i) * step] - f[(start + i) * step]
    return total != 0.0


@kernel
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
def _load(address, stride, single, first, index, origin, u):  # type: ignore[no-untyped-def]
    """Members of some cells less their origin; zero where one is missing."""
    one = row_of(u, 0)
    for i in range(CELLS):
        one[i] = 1.0
    for k in range(len(address)):
        here = pointer_at(address[k])
        if single:
            _values(numba.carray(here, 1 << 60, np.float32), stride[k], first, index, origin[k], row_of(u, 1 + k))
        else:
            _values(numba.carray(here, 1 << 60, np.float64), stride[k], first, index, origin[k], row_of(u, 1 + k))


@LANES
def _values(f, step, first, index, about, row):  # type: ignore[no-untyped-def]
    if len(index):
        for i in range(CELLS):
            value = f[index[i] * step] - about
            row[i] = value if value == value else 0.0
    elif step == 1:
        some = f[first : first + CELLS]
        for i in range(CELLS):
            value = some[i] - about
            row[i] = value if value == value else 0.0
    else:
        for i in range(CELLS):
            value = f[(first + i) * step] - about
            row[i] = value if value == value else 0.0


@LANES
def _columns(columns, first, index, origin, u, number):  # type: ignore[no-untyped-def]
    """Other numbers of the cells, from a number of ``u`` on."""
    for c in range(len(columns)):
        row, about = row_of(u, number + c), origin[c]
        _read(columns[c], first, index, row)
        for i in range(CELLS):
            row[i] -= about


@LANES
def _read(values, first, index, row):  # type: ignore[no-untyped-def]
    for i in range(CELLS):
        row[i] = values[index[i] if len(index) else first + i]


@LANES
def _covariates(u, mean, spread, raw, kind, scale, x, s):  # type: ignore[no-untyped-def]
    """Covariates of the widths; zero where one is not known, and for the spread of one member."""
    for c in range(len(kind)):
        start, center, size, low, high, row = (
            scale[c, 0],
            scale[c, 1],
            scale[c, 2],
            scale[c, 3],
            scale[c, 4],
            row_of(x, c),
        )
        known = True
        if kind[c] == 0:
            linear(u, mean, row)
        elif kind[c] == 1:
            known = len(spread) > 0
            _square_root(u, spread, x, c, s)
        else:
            other = row_of(raw, kind[c] - 2)
            for i in range(CELLS):
                row[i] = other[i]
        if start == start:
            for i in range(CELLS):
                row[i] = logarithm(max(row[i], 0.0) + start)
        if not known:
            low, high = 0.0, 0.0
        inverse = 1.0 / size
        for i in range(CELLS):
            value = (row[i] - center) * inverse
            row[i] = min(max(value, low), high) if value == value else 0.0


@LANES
def _square_root(u, form, x, c, s):  # type: ignore[no-untyped-def]
    """Root of a quadratic form."""
    quadratic(u, form, True, row_of(s, WIDTH))
    row, square = row_of(x, c), row_of(s, WIDTH)
    for i in range(CELLS):
        row[i] = np.sqrt(square[i])


@LANES
def _polynomial(x, parent, factor, coefficient, power, s):  # type: ignore[no-untyped-def]
    """Exponential of a polynomial, each of whose monomials is another one times a variable."""
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
    if len(coefficient) == 1:
        constant = np.exp(constant)
        for i in range(CELLS):
            out[i] = constant
        return
    for i in range(CELLS):
        out[i] = exponential(out[i])


# ----------------------------------------------------------------------------------------------------------- the components
@LANES
def _factors(x, unsure, node, share, fixed, s):  # type: ignore[no-untyped-def]
    """Factors of a component's variance at the nodes of its widths."""
    nodes, total, width = len(node), row_of(s, SUM), row_of(s, WIDTH)
    if fixed or nodes == 1:
        for j in range(nodes):
            value, row = node[j] if fixed else 1.0, row_of(s, FACTOR + j)
            for i in range(CELLS):
                row[i] = value
        return
    quadratic(x, unsure, False, row_of(s, WIDTH))
    for i in range(CELLS):
        total[i] = 0.0
    for i in range(CELLS):
        width[i] = 2.0 * np.sqrt(width[i])
    for j in range(nodes):
        value, part, row = node[j], share[j], row_of(s, FACTOR + j)
        for i in range(CELLS):
            row[i] = exponential(value * width[i])
        for i in range(CELLS):
            total[i] += part * row[i]
    for j in range(nodes):
        row = row_of(s, FACTOR + j)
        for i in range(CELLS):
            row[i] /= total[i]


@LANES
def _variance(x, size, tilt, tilt_spread, s):  # type: ignore[no-untyped-def]
    """Mean variance of the kernels in one bin."""
    total, width = row_of(s, SUM), row_of(s, WIDTH)
    for i in range(CELLS):
        total[i] = 0.0
    for t in range(len(size)):
        whole = size[t]
        if whole == 0.0:
            continue
        if tilt.shape[1] == 0:
            for i in range(CELLS):
                total[i] += whole
            continue
        quadratic(x, tilt_spread[t], False, row_of(s, WIDTH))
        for c in range(tilt.shape[1]):
            value, row = tilt[t, c], row_of(x, c)
            for i in range(CELLS):
                width[i] += value * row[i]
        for i in range(CELLS):
            total[i] += whole * exponential(2.0 * width[i])


@LANES
def _choose(u, forms, ways, s):  # type: ignore[no-untyped-def]
    """Number of the form that is largest at each cell."""
    choice, best, form = row_of(s, CHOICE), row_of(s, BEST), row_of(s, FORM)
    for i in range(CELLS):
        choice[i] = 0.0
        best[i] = -1.0
    for j in range(ways):
        linear(u, forms[j], row_of(s, FORM))
        for i in range(CELLS):
            form[i] *= form[i]
        for i in range(CELLS):
            choice[i] = j if form[i] > best[i] else choice[i]
        for i in range(CELLS):
            best[i] = max(form[i], best[i])


@LANES
def _put(value, choice, j, out):  # type: ignore[no-untyped-def]
    """Values where the choice is ``j``."""
    for i in range(CELLS):
        out[i] = value[i] if choice[i] == j else out[i]


@LANES
def _components(u, x, law, s, weight, mean, sd):  # type: ignore[no-untyped-def]
    """Weights, means and standard deviations of all normals."""
    forms, ways, bins, weights, centre, spread, size, tilt, tilt_spread, nodes, share, node, unsure, fixed = law
    choice, form, width, total, open_ = (
        row_of(s, CHOICE),
        row_of(s, FORM),
        row_of(s, WIDTH),
        row_of(s, SUM),
        row_of(s, BEST),
    )
    at = 0
    for c in range(len(bins)):
        _factors(x, unsure, node[c, : nodes[c]], share[c], fixed, s)
        _choose(u, forms[c], ways[c], s)
        for j in range(max(ways[c], 1)):
            here = 0.0
            for i in range(CELLS):
                here += choice[i] == j
            if here == 0.0:
                continue
            for b in range(bins[c]):
                linear(u, centre[c, j, b], row_of(s, FORM))
                _variance(x, size[c, j, b], tilt[c, j, b], tilt_spread[c, j, b], s)
                quadratic(u, spread[c, j, b], True, row_of(s, BEST))
                for n in range(nodes[c]):
                    factor, row = row_of(s, FACTOR + n), at + b * nodes[c] + n
                    for i in range(CELLS):
                        width[i] = np.sqrt(total[i] * factor[i] + open_[i])
                    _put(width, choice, j, row_of(sd, row))
                    _put(form, choice, j, row_of(mean, row))
                    own = weights[c, j, b] * share[c, n]
                    for i in range(CELLS):
                        width[i] = own
                    _put(width, choice, j, row_of(weight, row))
        at += bins[c] * nodes[c]


@LANES
def _store(s, slot, number, first, index, out, single):  # type: ignore[no-untyped-def]
    """Put the numbers of some cells in their places, in whichever array has them."""
    values = row_of(s, slot)
    if len(single):
        _put_back(values, first, index, single[number])
    else:
        _put_back(values, first, index, out[number])


@LANES
def _put_back(values, first, index, row):  # type: ignore[no-untyped-def]
    if len(index):
        for i in range(CELLS):
            row[index[i]] = values[i]
    else:
        some = row[first : first + CELLS]
        for i in range(CELLS):
            some[i] = values[i]


@kernel
def law_of_cells(cells, members, columns, widths, moments, law, levels, limits, scores, parts, out, single):  # type: ignore[no-untyped-def]
    """Predict cells of one class; :meth:`bayesens.distributions.cells.CellClass.predict` says what is handed over."""
    first, count, index = cells
    address, stride, four_bytes, origin = members
    features, raw, column_origin = columns
    point_mean, point_spread, kind, scale = widths
    line, between, parameter, both, parent, factor_of, coefficient = moments
    bins, nodes = law[2], law[9]
    total, numbers = 0, 1 + len(address) + len(features)
    for c in range(len(bins)):
        total += bins[c] * nodes[c]
    u, x, raws = np.empty(numbers * CELLS), np.empty(len(kind) * CELLS), np.empty(len(raw) * CELLS)
    weight, mu, sd, inverse = (
        np.zeros(total * CELLS),
        np.zeros(total * CELLS),
        np.ones(total * CELLS),
        np.empty(total * CELLS),
    )
    s, power, nothing, rest = (
        np.zeros(SLOTS * CELLS),
        np.empty(len(coefficient) * CELLS),
        np.zeros(len(raw)),
        np.empty(CELLS, np.int64),
    )
    middle, within, across, whole = row_of(s, MEAN), row_of(s, WITHIN), row_of(s, ACROSS), row_of(s, WHOLE)
    floor, value, mass = row_of(s, FLOOR), row_of(s, VALUE), row_of(s, MASS)
    score, side = row_of(s, SCORE), row_of(s, SIDE)
    for begin in range(0, count, CELLS):
        here, some = first + begin, index[begin : begin + CELLS]
        if begin + CELLS > count:  # the last cell stands for those that a block lacks
            for i in range(CELLS):
                last = min(begin + i, count - 1)
                rest[i] = index[last] if len(index) else first + last
            some = rest
        _load(address, stride, four_bytes, here, some, origin, u)
        _columns(features, here, some, column_origin, u, 1 + len(address))
        _columns(raw, here, some, nothing, raws, 0)
        _covariates(u, point_mean, point_spread, raws, kind, scale, x, s)
        linear(u, line, row_of(s, MEAN))
        _polynomial(x, parent, factor_of, coefficient, power, s)
        quadratic(u, both, True, row_of(s, ACROSS))
        for i in range(CELLS):
            whole[i] = np.sqrt(within[i] + across[i])
        at = 0
        if parts > 0:
            _store(s, MEAN, 0, here, some, out, single)
            _store(s, WHOLE, 1, here, some, out, single)
            at = 2
        if parts > 1:
            quadratic(u, between, True, row_of(s, ACROSS))
            quadratic(u, parameter, True, row_of(s, OPEN))
            for n in range(3):
                part = row_of(s, WITHIN + n)
                for i in range(CELLS):
                    part[i] = np.sqrt(part[i])
                _store(s, WITHIN + n, at + n, here, some, out, single)
            at += 3
        if len(levels) + len(limits) + len(scores) == 0:
            continue
        if total == 1 and len(kind) == 0:  # one normal, whose moments are there
            for i in range(CELLS):
                mu[i], sd[i], weight[i] = middle[i], whole[i], 1.0
        else:
            _components(u, x, law, s, weight, mu, sd)
        for i in range(total * CELLS):
            inverse[i] = 1.0 / sd[i]
        for i in range(CELLS):
            floor[i] = -np.inf
        for q in range(len(levels)):
            for i in range(CELLS):
                score[i] = levels[q]
            quantile(weight, mu, sd, inverse, s)
            for i in range(CELLS):
                floor[i] = max(value[i], floor[i])
            _store(s, FLOOR, at + q, here, some, out, single)
        at += len(levels)
        for n in range(len(limits)):
            _read(limits[n], here, some, value)
            for i in range(CELLS):
                side[i] = 1.0
            mass_below(weight, mu, inverse, s)
            for i in range(CELLS):
                mass[i] = min(mass[i], 1.0)
            _store(s, MASS, at + n, here, some, out, single)
        at += len(limits)
        for n in range(len(scores)):
            _read(scores[n], here, some, score)
            quantile(weight, mu, sd, inverse, s)
            _store(s, VALUE, at + n, here, some, out, single)
