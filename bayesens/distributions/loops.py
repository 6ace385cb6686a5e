"""Loops over rows that numpy would do slowly or with much memory, compiled by numba at first use.

Kept apart because importing numba takes longer than most of what is asked of a distribution.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from bayesens.arithmetic import LOG_2PI
from bayesens.c_functions import BARE, INNER, ONCE, kernel
from bayesens.distributions.cell_components import _exp
from bayesens.distributions.law import DIFFERENCE, EXPONENTIAL, SQUARE
from bayesens.distributions.special import log_ndtr, ndtr

__all__ = ["log_densities", "log_means", "mixture_quantile", "mixture_values", "over_pairs"]

ROOT_HALF = math.sqrt(0.5)
ROOT_2PI = math.sqrt(2.0 * math.pi)
ROWS = 256  # at a time: a few arrays of them fit into the first cache
FAR = 80.0  # a square, from which on the density of two normals there is less than 1e-17
# Gauss-Legendre on [0, 1]: Owen's integrand is smooth there, and twelve are exact to the last digit (ten to 1e-14).
NODES, SHARES = (
    0.5 * (part + shift) for part, shift in zip(np.polynomial.legendre.leggauss(12), (1.0, 0.0), strict=True)
)


@numba.njit(cache=True, nogil=True)
def _tail(sign, x, weight, mu, sigma):  # type: ignore[no-untyped-def]
    """Probability on the left of x (sign 1) or on its right (sign -1), and the density there."""
    mass, density = 0.0, 0.0
    for k in range(weight.size):
        if weight[k] > 0.0:
            t = (x - mu[k]) / sigma[k]
            mass += weight[k] * math.erfc(-sign * t * ROOT_HALF)
            density += weight[k] * math.exp(-0.5 * t * t) / sigma[k]
    return 0.5 * mass, density / ROOT_2PI


@numba.njit(cache=True, nogil=True)
def _root(left, right, floor, z, weight, mu, sigma):  # type: ignore[no-untyped-def]
    """One quantile. A mixture's quantile lies between the least and the greatest of its components' quantiles."""
    low, high, least_sigma, mean, square = np.inf, -np.inf, np.inf, 0.0, 0.0
    for k in range(weight.size):
        if weight[k] > 0.0:
            low, high = min(low, mu[k] + z * sigma[k]), max(high, mu[k] + z * sigma[k])
            least_sigma = min(least_sigma, sigma[k])
            mean += weight[k] * mu[k]
    for k in range(weight.size):
        if weight[k] > 0.0:
            square += weight[k] * ((mu[k] - mean) ** 2 + sigma[k] ** 2)
    if not high > low:
        return max(low, floor)
    x = min(max(mean + z * math.sqrt(square), low), high)
    # Room for rounding: a root that touches the bracket must not send Newton's steps into bisection.
    room = 1e-9 * least_sigma + 1e-15 * max(abs(low), abs(high))
    low, high = low - room, high + room
    sign, target = (1.0, left) if left <= right else (-1.0, right)
    step = high - low
    for _ in range(200):
        mass, density = _tail(sign, x, weight, mu, sigma)
        # The logarithm of the smaller tail is nearly linear where the tail itself is nearly flat.
        excess = sign * math.log(mass / target) if mass > 0.0 else -sign * np.inf
        if excess < 0.0:
            low = x
        else:
            high = x
        newton = x - excess * mass / density if density > 0.0 and mass > 0.0 else np.nan
        # Bisect where Newton leaves the bracket or does not at least halve its step: at worst 2 x 50 passes.
        if low <= newton <= high and abs(newton - x) <= 0.5 * abs(step):
            step = newton - x
            done = 1e-8 * least_sigma  # the next error is of the order of the square of this one
            x = newton
        else:
            middle = 0.5 * (low + high)
            step = high - low
            done = 1e-13 * least_sigma
            x = middle
        if abs(step) <= done + 4e-16 * abs(x):
            break
    return max(x, floor)


@numba.njit(cache=True, nogil=True)
def mixture_quantile(weight, mu, sigma, left, right, z, out):  # type: ignore[no-untyped-def]
    """Quantiles of normal mixtures, row by row, by safeguarded Newton steps on the logarithm of the smaller tail.

    Parameters
    ----------
    weight, mu, sigma : float array (row, component)
        Components of zero weight are skipped; a NaN weight makes the row NaN.
    left, right, z : float array (p)
        Increasing probabilities, their complements, and the quantiles of the standard normal at them.
    out : float array (row, p)
        Filled; not decreasing along ``p``, because each root is the floor of the next.
    """
    for i in range(weight.shape[0]):
        floor = -np.inf
        for j in range(left.size):
            if np.isnan(weight[i, 0]):
                out[i, j] = np.nan
            else:
                floor = _root(left[j], right[j], floor, z[j], weight[i], mu[i], sigma[i])
                out[i, j] = floor


@numba.njit(cache=True, nogil=True)
def mixture_values(score, weight, mu, sigma, out):  # type: ignore[no-untyped-def]
    """The value of each row's normal mixture at its own normal score.

    Parameters
    ----------
    score : float array (row)
    weight, mu, sigma : float array (row, component)
    out : float array (row)
        Filled.
    """
    for i in range(len(score)):
        left, right = 0.5 * math.erfc(-score[i] * ROOT_HALF), 0.5 * math.erfc(score[i] * ROOT_HALF)
        out[i] = _root(left, right, -np.inf, score[i], weight[i], mu[i], sigma[i])


@numba.njit(cache=True, nogil=True)
def log_densities(z, below, x, log_weight, coefficient, variance, out):  # type: ignore[no-untyped-def]
    """Log densities of rows under normal mixtures whose means are linear in the rows' values, or their log mass below zero.

    Parameters
    ----------
    z : float array (row)
        Where the density is taken.
    below : bool array (row)
        Rows whose log probability of values below zero is wanted instead.
    x : float array (row, column)
    log_weight, variance : float array (draw, component)
    coefficient : float array (draw, component, column)
    out : float array (row, draw)
        Filled.
    """
    draws, components, columns = coefficient.shape
    term = np.empty(components)
    constant, precision = np.empty((draws, components)), np.empty((draws, components))
    for s in range(draws):
        for c in range(components):
            precision[s, c] = 1.0 / variance[s, c]
            constant[s, c] = log_weight[s, c] - 0.5 * (LOG_2PI + math.log(variance[s, c]))
    for i in range(len(z)):
        for s in range(draws):
            top = -np.inf
            for c in range(components):
                mean = 0.0
                for j in range(columns):
                    mean += coefficient[s, c, j] * x[i, j]
                if below[i]:
                    term[c] = log_weight[s, c] + log_ndtr(-mean * math.sqrt(precision[s, c]))
                else:
                    term[c] = constant[s, c] - 0.5 * precision[s, c] * (z[i] - mean) ** 2
                top = max(top, term[c])
            if components == 1 or top == -np.inf:
                out[i, s] = top
                continue
            mass = 0.0
            for c in range(components):
                mass += math.exp(term[c] - top)
            out[i, s] = top + math.log(mass)


@numba.njit(cache=True, nogil=True)
def log_means(values, out):  # type: ignore[no-untyped-def]
    """Log of the mean of exponentials of each row, (row, draw) to (row)."""
    for i in range(values.shape[0]):
        top = -np.inf
        for s in range(values.shape[1]):
            top = max(top, values[i, s])
        mean = 0.0
        for s in range(values.shape[1]):
            mean += math.exp(values[i, s] - top)
        out[i] = top + math.log(mean / values.shape[1]) if top > -np.inf else top


# ------------------------------------------------------------------------------------------- the greater of two normals
@numba.njit(**BARE, fastmath={"contract"})
def _corner(z, v, large, small, out):  # type: ignore[no-untyped-def]
    """Owen's integral from zero to the smaller of two numbers over the larger one, its sign that of their product."""
    nearest = np.inf
    for i in range(len(z)):
        a, b = z[i] * z[i], v[i] * v[i]
        large[i], small[i], out[i] = max(a, b, 1e-300), min(a, b), 0.0
        nearest = min(nearest, large[i])
    if nearest < FAR:
        for n in range(len(NODES)):
            square, share = NODES[n] * NODES[n], SHARES[n]
            for i in range(len(z)):
                d = large[i] + small[i] * square
                out[i] += share * _exp(-0.5 * d) / d
    for i in range(len(z)):
        out[i] *= z[i] * v[i] / (2.0 * math.pi)


@numba.njit(**BARE, fastmath={"contract"})
def _owens_t(z, v, below_z, below_v, corner):  # type: ignore[no-untyped-def]
    """T(z, v / z), from its integral up to one; by the normal distribution functions at both where v is the larger one."""
    if abs(v) <= abs(z):
        return corner
    # At the size of z, and at v with the sign of z.
    p, q = (1.0 - below_z, 1.0 - below_v) if z < 0.0 else (below_z, below_v)
    return 0.5 * (p + q) - p * q - (0.5 if (v < 0.0) != (z < 0.0) else 0.0) - corner


@INNER
def _first(z, v, h, q, below, scratch, out):  # type: ignore[no-untyped-def]
    """P(Z < x, Z' < Z), with x at z and v in the units of Z and Z', and the normal distribution function at all four numbers.

    h is the difference of the means over the root r of the sum of variances, and q the mean over r of z and v by the other sigma.
    """
    m = len(out)
    large, small, of_z, of_h = scratch[0][:m], scratch[1][:m], scratch[2][:m], scratch[3][:m]
    below_z, below_v, below_h, below_q = below
    _corner(z, v, large, small, of_z)
    _corner(h, q, large, small, of_h)
    for i in range(m):
        angle = _owens_t(z[i], v[i], below_z[i], below_v[i], of_z[i]) + _owens_t(
            h[i], q[i], below_h[i], below_q[i], of_h[i]
        )
        out[i] = 0.5 * (below_z[i] + below_h[i] - (1.0 if (z[i] < 0.0) != (h[i] < 0.0) else 0.0)) - angle


@numba.njit(**BARE, error_model="numpy", fastmath={"contract"})
def _hypot(s, t):  # type: ignore[no-untyped-def]
    """Root of the sum of two squares that may be too small or too large for numbers."""
    ratio = min(s, t) / max(s, t)
    return max(s, t) * math.sqrt(1.0 + ratio * ratio)


@INNER
def _below(x, below, exponential):  # type: ignore[no-untyped-def]
    """The normal distribution function at some numbers, and exp(-x^2 / 2)."""
    for i in range(len(x)):
        exponential[i] = _exp(-0.5 * x[i] * x[i])
        below[i] = ndtr(x[i], exponential[i])


@INNER
def _between(by, one, other, scratch, out):  # type: ignore[no-untyped-def]
    """E|Y - Y'| of two components of normals or their exponentials, as `over_pairs` has them."""
    (mu, s, mean, _, _), (nu, t, mean_, _, _) = one, other
    m = len(out)
    h, below, density = scratch[0][:m], scratch[1][:m], scratch[2][:m]
    turned, below_turned = scratch[3][:m], scratch[4][:m]
    if by == EXPONENTIAL:
        # E max(Y, Y') = E Y P(Z > Z') + E Y' P(Z' > Z), each P with its own Z moved up by its variance.
        for i in range(m):
            root = _hypot(s[i], t[i])
            h[i], turned[i] = (mu[i] - nu[i] + s[i] * s[i]) / root, (nu[i] - mu[i] + t[i] * t[i]) / root
        _below(h, below, density)
        _below(turned, below_turned, density)
        for i in range(m):
            out[i] = mean[i] * (2.0 * below[i] - 1.0) + mean_[i] * (2.0 * below_turned[i] - 1.0)
    else:
        for i in range(m):
            h[i] = (mu[i] - nu[i]) / _hypot(s[i], t[i])
        _below(h, below, density)
        for i in range(m):
            root = _hypot(s[i], t[i])
            out[i] = 2.0 * root * density[i] / ROOT_2PI + (mu[i] - nu[i]) * (2.0 * below[i] - 1.0)


@INNER
def _between_squares(one, other, scratch, out):  # type: ignore[no-untyped-def]
    """E|Y - Y'| of two components of max(Z, 0)^2: twice the greater less both, and the greater is max(Z, Z', 0)^2."""
    (mu, s, density, below, mean), (nu, t, density_, below_, mean_) = one, other
    m = len(out)
    z, v, h, q = scratch[4][:m], scratch[5][:m], scratch[6][:m], scratch[7][:m]
    below_h, below_q, density_h, density_q = scratch[8][:m], scratch[9][:m], scratch[10][:m], scratch[11][:m]
    for i in range(m):
        root = _hypot(s[i], t[i])
        z[i], v[i], h[i] = -mu[i] / s[i], -nu[i] / t[i], (mu[i] - nu[i]) / root
        q[i] = (z[i] * t[i] + v[i] * s[i]) / root
        h[i] = h[i] if h[i] != 0.0 else 1e-200  # T(h, q / h) has a limit at zero, and the limit is what is wanted
    _below(h, below_h, density_h)
    _below(q, below_q, density_q)
    _first(z, v, h, q, (below, below_, below_h, below_q), scratch, out)
    for i in range(m):
        first = below_h[i] - out[i]  # of being the greatest of the two and zero
        second = 1.0 - below[i] * below_[i] - first
        root = _hypot(s[i], t[i])
        greatest = (mu[i] * mu[i] + s[i] * s[i]) * first + (nu[i] * nu[i] + t[i] * t[i]) * second
        greatest += s[i] * t[i] * density[i] * density_[i] + mu[i] * s[i] * density[i] * below_[i]
        greatest += nu[i] * t[i] * density_[i] * below[i]
        greatest += (mu[i] + nu[i]) * root * density_h[i] / ROOT_2PI * (1.0 - below_q[i])
        out[i] = 2.0 * greatest - mean[i] - mean_[i]


@INNER
def _places(one, other, moved, z, v, h, q):  # type: ignore[no-untyped-def]
    """The four numbers of `_first` for a bound, where the first mean is moved up by its variance (1) or not (0)."""
    (mu, s, at, _, _), (nu, t, at_, _, _) = one, other
    for i in range(len(z)):
        root = _hypot(s[i], t[i])
        z[i], v[i] = at[i] - moved * s[i], at_[i]
        if max(abs(z[i]), abs(v[i])) < 1e-100:
            # Where the bound is both means, which of the two is greater hangs on their sigmas, as it does a little above.
            z[i], v[i] = 1e-100 / s[i], 1e-100 / t[i]
        h[i], q[i] = (mu[i] - nu[i] + moved * s[i] * s[i]) / root, (z[i] * t[i] + v[i] * s[i]) / root
        # T(h, q / h) has a limit at zero, and the limit is what is wanted.
        z[i], h[i] = z[i] if z[i] != 0.0 else 1e-200, h[i] if h[i] != 0.0 else 1e-200


@INNER
def _greater(by, one, other, scratch, out):  # type: ignore[no-untyped-def]
    """E[max(Z, Z'); max < x] of two components, or of the square, as `over_pairs` has them."""
    (mu, s, at, density, below), (nu, t, at_, density_, below_) = one, other
    m = len(out)
    z, v, h, q = scratch[4][:m], scratch[5][:m], scratch[6][:m], scratch[7][:m]
    below_h, below_q, density_h, density_q = scratch[8][:m], scratch[9][:m], scratch[10][:m], scratch[11][:m]
    _places(one, other, 0.0, z, v, h, q)
    _below(h, below_h, density_h)
    _below(q, below_q, density_q)
    _first(z, v, h, q, (below, below_, below_h, below_q), scratch, out)
    for i in range(m):
        first, second = out[i], below[i] * below_[i] - out[i]
        root = _hypot(s[i], t[i])
        here, there = s[i] * density[i] * below_[i], t[i] * density_[i] * below[i]
        middle = root * density_h[i] / ROOT_2PI
        if by == SQUARE:
            here, there = here * (2.0 * mu[i] + s[i] * at[i]), there * (2.0 * nu[i] + t[i] * at_[i])
            value = (mu[i] * mu[i] + s[i] * s[i]) * first + (nu[i] * nu[i] + t[i] * t[i]) * second
            both = s[i] * t[i] / root * density_q[i] / ROOT_2PI
            out[i] = value - here - there + middle * ((mu[i] + nu[i]) * below_q[i] - both)
        else:
            out[i] = mu[i] * first + nu[i] * second - here - there + middle * below_q[i]


@INNER
def _greater_exponential(one, other, scratch, out):  # type: ignore[no-untyped-def]
    """E[exp Z; Z' < Z < x] of two components as `over_pairs` has them: a probability with Z moved up by its variance."""
    (mu, s, _, moved, _), (_, _, _, _, below_) = one, other
    m = len(out)
    z, v, h, q = scratch[4][:m], scratch[5][:m], scratch[6][:m], scratch[7][:m]
    below_h, below_q, density = scratch[8][:m], scratch[9][:m], scratch[10][:m]
    _places(one, other, 1.0, z, v, h, q)
    _below(h, below_h, density)
    _below(q, below_q, density)
    _first(z, v, h, q, (moved, below_, below_h, below_q), scratch, out)
    for i in range(m):
        out[i] *= math.exp(mu[i] + 0.5 * s[i] * s[i])


@ONCE
def _cut(parts, components, n, k, start, m):  # type: ignore[no-untyped-def]
    """The five numbers of one component in some rows, none where there are fewer.

    Cut from one dimension, so that the compiler knows them side by side.
    """
    a, every = k * n + start, components * n
    b, c, d, e = a + every, a + 2 * every, a + 3 * every, a + 4 * every
    return parts[a : a + m], parts[b : b + m], parts[c : c + m], parts[d : d + m], parts[e : e + m]


@kernel
def over_pairs(what, by, weight, parts, out):  # type: ignore[no-untyped-def]
    """An expectation of two independent draws from mixtures of Y: normals Z, max(Z, 0)^2 or exp Z.

    It is a sum over all pairs of components. Of two squares the difference hangs on the greater of two normals, cut off at zero
    (Clark's moment). That one of two normals is the greater and both are below a bound is a quadrant of a bivariate normal law,
    by Owen's T.

    Parameters
    ----------
    what : int
        `DIFFERENCE`, E|Y - Y'|, or `GREATEST`, E[max(Y, Y'); max < x], where squares have their sign.
    by : int
        `ITSELF`, `SQUARE` or `EXPONENTIAL`.
    weight : float array (component, row)
    parts : float array (number, component and row)
        The numbers of each component end to end: mu and sigma, and for differences of exponentials the mean of Y, of squares the
        standard density at mu / sigma, the probability of Z below zero, and the mean of Y. For the greatest z, the bound in units
        of both; the standard density at z or, of exponentials, the probability below z less sigma; and the probability below z.
    out : float array (row)
        Filled.
    """
    components, n = weight.shape
    scratch, each, turned = np.empty((12, ROWS)), np.empty(ROWS), np.empty(ROWS)
    for start in range(0, n, ROWS):
        m = min(ROWS, n - start)
        out[start : start + m] = 0.0
        for k in range(components):
            one = _cut(parts, components, n, k, start, m)
            for l in range(k + 1):
                w, twice = weight[k, start : start + m] * weight[l, start : start + m], 1.0 if l == k else 2.0
                if not np.any(w != 0.0):
                    continue
                other = _cut(parts, components, n, l, start, m)
                if what == DIFFERENCE and by == SQUARE:
                    _between_squares(one, other, scratch, each[:m])
                elif what == DIFFERENCE:
                    _between(by, one, other, scratch, each[:m])
                elif by == EXPONENTIAL:
                    _greater_exponential(one, other, scratch, each[:m])
                    _greater_exponential(other, one, scratch, turned[:m])
                    for i in range(m):
                        each[i] += turned[i]
                else:
                    _greater(by, one, other, scratch, each[:m])
                for i in range(m):
                    out[start + i] += twice * w[i] * each[i]
