"""The predictive law of cells that share its coefficients: read, moments, components, quantiles, and put back."""

from __future__ import annotations

import numba
import numpy as np

from bayesens.c_functions import BARE, kernel, pointer_at
from bayesens.distributions.cell_lanes import CELLS, LANES, exponential, linear, quadratic, row_of
from bayesens.distributions.cell_moments import (
    ACROSS,
    NUMBERS,
    OPEN,
    WITHIN,
    covariates,
    feature,
    load,
    moments,
    places,
    read,
    root,
    roots,
    store,
    within,
)
from bayesens.distributions.cell_moments import SLOTS as TAKEN
from bayesens.distributions.cell_quantiles import MASS, MEAN, SCORE, SIDE, VALUE, WHOLE, mass_below, quantile

__all__ = ["complete", "law_of_cells", "patterns"]

INFINITE = np.inf
SUMS = numba.njit(**BARE, error_model="numpy", fastmath={"reassoc", "contract"})  # in any order: vector operations
# Numbers of the cells in the scratch array, beside those of quantiles.
FLOOR, FORM, WIDTH, BEST, CHOICE, SUM, FACTOR = range(TAKEN, TAKEN + 7)
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
def _quantile_of_one(score, s):  # type: ignore[no-untyped-def]
    middle, whole, value = row_of(s, MEAN), row_of(s, WHOLE), row_of(s, VALUE)
    for i in range(CELLS):
        value[i] = middle[i] + score * whole[i]


@LANES
def _mixed(rows, normals, one, here, apart, place, law, asked, at, out, single):  # type: ignore[no-untyped-def]
    """Quantiles, probabilities and values of some cells from all their normals."""
    levels, limits, scores, _ = asked
    u, x, s = rows[0], rows[1], rows[4]
    weight, mu, sd, inverse = normals
    floor, value, mass = row_of(s, FLOOR), row_of(s, VALUE), row_of(s, MASS)
    score, side, middle, whole = row_of(s, SCORE), row_of(s, SIDE), row_of(s, MEAN), row_of(s, WHOLE)
    if one:
        for i in range(CELLS):
            mu[i], sd[i], weight[i] = middle[i], whole[i], 1.0
    else:
        _components(u, x, law, s, weight, mu, sd)
    for i in range(len(sd)):
        inverse[i] = 1.0 / sd[i]
    for i in range(CELLS):
        floor[i] = -np.inf
    for q in range(len(levels)):
        for i in range(CELLS):
            score[i] = levels[q]
        quantile(weight, mu, sd, inverse, s)
        for i in range(CELLS):
            floor[i] = max(value[i], floor[i])
        store(floor, here, apart, place, at + q, out, single)
    at += len(levels)
    for n in range(len(limits)):
        read(limits[n], here, apart, place, value)
        for i in range(CELLS):
            side[i] = 1.0
        mass_below(weight, mu, inverse, s)
        for i in range(CELLS):
            mass[i] = min(mass[i], 1.0)
        store(mass, here, apart, place, at + n, out, single)
    at += len(limits)
    for n in range(len(scores)):
        read(scores[n], here, apart, place, score)
        quantile(weight, mu, sd, inverse, s)
        store(value, here, apart, place, at + n, out, single)


@LANES
def _blocks(cells, place, members, columns, rows, normals, widths, moment, law, asked, out, single):  # type: ignore[no-untyped-def]
    """Read cells and predict them, some at a time; one function, as what is handed over at each call takes time."""
    levels, limits, scores, parts = asked
    first, count, index = cells
    address, stride, four_bytes, origin = members
    features, raw, column_origin = columns
    u, x, raws, power, s = rows
    point_mean, point_spread, kind, scale = widths
    line, between, parameter, both, parent, factor, coefficient, horner = moment
    at = (0, 2, 5)[parts]  # numbers that come first
    one = len(normals[0]) == CELLS and len(kind) == 0  # one normal, whose moments are there
    for begin in range(0, count, CELLS):
        here, apart = first + begin, places(first, begin, count, index, place)
        load(address, stride, four_bytes, here, apart, place, origin, u)
        for c in range(len(features)):
            feature(features[c], here, apart, place, column_origin[c], row_of(u, 1 + len(address) + c))
        for c in range(len(raw)):
            feature(raw[c], here, apart, place, 0.0, row_of(raws, c))
        covariates(u, point_mean, point_spread, raws, kind, scale, x)
        within(x, parent, factor, coefficient, horner, power, s)
        moments(u, line, both, s)
        if parts > 1:
            roots(row_of(s, WITHIN))
            root(u, between, row_of(s, ACROSS))
            root(u, parameter, row_of(s, OPEN))
        for n in range(at):
            store(row_of(s, n if n < 2 else WITHIN + n - 2), here, apart, place, n, out, single)
        if one and len(limits) + len(scores) == 0:
            for q in range(len(levels)):
                _quantile_of_one(levels[q], s)
                store(row_of(s, VALUE), here, apart, place, at + q, out, single)
        elif len(levels) + len(limits) + len(scores):
            _mixed(rows, normals, one, here, apart, place, law, asked, at, out, single)


@kernel
def law_of_cells(cells, members, columns, widths, moment, law, asked, out, single):  # type: ignore[no-untyped-def]
    """Predict cells of one class; :meth:`bayesens.distributions.cells.CellClass.predict` says what is handed over."""
    numbers, total = 1 + len(members[0]) + len(columns[0]), 0
    for c in range(len(law[2])):
        total += law[2][c] * law[9][c]
    u, x = np.zeros(max(numbers, NUMBERS) * CELLS), np.zeros(max(len(widths[2]), 2) * CELLS)
    normals = np.zeros(total * CELLS), np.zeros(total * CELLS), np.ones(total * CELLS), np.empty(total * CELLS)
    raw, power, s = np.empty(len(columns[1]) * CELLS), np.empty(len(moment[6]) * CELLS), np.zeros(SLOTS * CELLS)
    rows, place = (u, x, raw, power, s), np.empty(CELLS, np.int64)
    u[:CELLS] = 1.0
    _blocks(cells, place, members, columns, rows, normals, widths, moment, law, asked, out, single)
