"""Quantiles of mixtures of normals, of many cells side by side: values at normal scores."""

from __future__ import annotations

import numpy as np

from bayesens.distributions.cell_lanes import CELLS, LANES, exponential, logarithm, normal_below, row_of

__all__ = ["SLOTS", "mass_below", "quantile"]

ROOT_2PI = float(np.sqrt(2.0 * np.pi))
ENOUGH = 2e-3  # least sigmas of a last step, after which the error is of the order of its third power
MOST = 80  # steps, of which every second halves the bracket at least
# Numbers of the cells in the scratch array, and where those stand whose loops write several.
MEAN, WHOLE, VALUE, LOW, HIGH, LEAST, MASS, DENSITY, STEP, SCORE, SIDE, TARGET, CURVE = range(13)
SLOTS = 13
AT_VALUE, AT_LOW, AT_HIGH, AT_LEAST, AT_MASS, AT_DENSITY, AT_STEP, AT_SCORE, AT_SIDE, AT_TARGET, AT_CURVE = (
    n * CELLS for n in range(2, 13)
)


@LANES
def _bracket(weight, mean, sd, s):  # type: ignore[no-untyped-def]
    """A mixture's quantile lies between the least and the greatest of its components' quantiles."""
    for i in range(CELLS):
        s[AT_LOW + i] = np.inf
        s[AT_HIGH + i] = -np.inf
        s[AT_LEAST + i] = np.inf
    for c in range(len(mean) // CELLS):
        w, m, d = row_of(weight, c), row_of(mean, c), row_of(sd, c)
        for i in range(CELLS):
            there, value = w[i] > 0.0, m[i] + s[AT_SCORE + i] * d[i]
            s[AT_LOW + i] = min(s[AT_LOW + i], value if there else np.inf)
            s[AT_HIGH + i] = max(s[AT_HIGH + i], value if there else -np.inf)
            s[AT_LEAST + i] = min(s[AT_LEAST + i], d[i] if there else np.inf)
    for i in range(CELLS):
        room = 1e-9 * s[AT_LEAST + i] + 1e-15 * max(abs(s[AT_LOW + i]), abs(s[AT_HIGH + i]))
        s[AT_LOW + i] -= room
        s[AT_HIGH + i] += room


@LANES
def mass_below(weight, mean, inverse, s):  # type: ignore[no-untyped-def]
    """Probability on the left of a value (side 1) or on its right (-1), and its derivatives times the root of 2 pi."""
    for i in range(CELLS):
        s[AT_MASS + i] = 0.0
        s[AT_DENSITY + i] = 0.0
        s[AT_CURVE + i] = 0.0
    for c in range(len(mean) // CELLS):
        w, m, v = row_of(weight, c), row_of(mean, c), row_of(inverse, c)
        for i in range(CELLS):
            t = s[AT_SIDE + i] * (s[AT_VALUE + i] - m[i]) * v[i]
            bell = exponential(-0.5 * t * t)
            s[AT_MASS + i] += w[i] * normal_below(t, bell)
            slope = w[i] * v[i] * bell
            s[AT_DENSITY + i] += slope
            s[AT_CURVE + i] -= slope * v[i] * t


@LANES
def _start(s):  # type: ignore[no-untyped-def]
    """Begin at the quantile of the normal with the mixture's moments; and what the scores ask for."""
    middle, whole = row_of(s, MEAN), row_of(s, WHOLE)
    for i in range(CELLS):
        s[AT_STEP + i] = middle[i] + s[AT_SCORE + i] * whole[i]
    for i in range(CELLS):
        z = s[AT_SCORE + i]
        bell = exponential(-0.5 * z * z)
        tail = normal_below(-abs(z), bell)
        s[AT_SIDE + i] = 1.0 if z <= 0.0 else -1.0
        s[AT_TARGET + i] = 1.0 / tail
        s[AT_VALUE + i] = min(max(s[AT_STEP + i], s[AT_LOW + i]), s[AT_HIGH + i])
        s[AT_STEP + i] = max(s[AT_HIGH + i] - s[AT_LOW + i], 1e-300)


@LANES
def quantile(weight, mean, sd, inverse, s):  # type: ignore[no-untyped-def]
    """The value at every cell's normal score, by safeguarded steps of third order (Chebyshev) on the log of the smaller tail."""
    if len(mean) == CELLS:  # one normal
        for i in range(CELLS):
            s[AT_VALUE + i] = mean[i] + s[AT_SCORE + i] * sd[i]
        return
    _bracket(weight, mean, sd, s)
    _start(s)
    for _ in range(MOST):
        mass_below(weight, mean, inverse, s)
        rest = 0.0
        for i in range(CELLS):
            value, before, side = s[AT_VALUE + i], s[AT_STEP + i], s[AT_SIDE + i]
            excess = logarithm(max(s[AT_MASS + i], 1e-300) * s[AT_TARGET + i])
            up = side * excess < 0.0
            low = value if up else s[AT_LOW + i]
            high = s[AT_HIGH + i] if up else value
            step = s[AT_MASS + i] * ROOT_2PI / s[AT_DENSITY + i]
            bend = 0.5 * excess * (1.0 - s[AT_CURVE + i] * step / s[AT_DENSITY + i])
            newton = value - side * excess * step * (1.0 - min(max(bend, -0.5), 0.5))
            size = abs(newton - value)
            good = (low <= newton) & (newton <= high) & (size <= 0.5 * before)
            new = newton if good else 0.5 * (low + high)
            size = size if good else high - low
            done = (ENOUGH if good else 1e-9) * s[AT_LEAST + i] + 4e-16 * abs(new)
            size = 0.0 if size <= done else size
            closed = before == 0.0  # what a cell gets does not depend on those beside it
            s[AT_VALUE + i] = value if closed else new
            s[AT_STEP + i] = 0.0 if closed else size
            s[AT_LOW + i] = low
            s[AT_HIGH + i] = high
        for i in range(CELLS):
            rest = max(rest, s[AT_STEP + i])
        if rest == 0.0:
            break
