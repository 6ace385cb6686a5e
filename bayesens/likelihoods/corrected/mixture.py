"""Log likelihood of a mixture of kernels around corrected members, whose widths follow the rows, and its gradient.

    p(y_i) = sum_k w_k / W_i  Normal(y_i; c_ik, sigma_k^2 exp(2 x_i' width) (1 + q_ik))        W_i = sum of the weights present

The corrected members c are given, and so is the share q by which what is open of the correction widens a kernel. A row enters
by its squares (y_i - c_ik)^2 / (1 + q_ik). An observation that is only known to lie at zero or below (a square root's zero)
has the probability of that in place of the density.

Kernels are normal, or Student's t with ``nu`` degrees of freedom, whose scale is then the product that is a normal's standard
deviation. Parameters stand end to end: 1 for t kernels or else 0, slopes of the weights where these follow the rows
(:mod:`bayesens.likelihoods.corrected.row_weights.tilted`), log weights, log sigmas, coefficients of the widths, and nu.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np

from bayesens.c_functions import BARE, INNER, kernel
from bayesens.distributions.special import digamma, log_ndtr, log_t_constant
from bayesens.ensemble.rows import alike
from bayesens.likelihoods.corrected.row_weights.tilted import add_slopes, log_total, profile_of, tilt, tilt_gradient
from bayesens.likelihoods.mixture import BLOCK, FAST, LOG_2PI, _exp, _mixed, _renormalisation
from bayesens.threads import share_out

__all__ = ["CorrectedRows", "by_parts", "corrected_packed", "corrected_values"]

STEEP = 600.0  # the largest exponent: beyond it a width is no number


@dataclass(frozen=True, eq=False)
class CorrectedRows:
    """What the mixture takes from its training rows.

    Attributes
    ----------
    residual : array (row, member)
        ``y - c``; finite where a member is missing too.
    excess : array (row, member)
        q, the share by which the open correction widens a kernel.
    x : array (row, covariate)
        Of the widths, standardised.
    available : bool array (row, member)
    censored : bool array (row)
        Observations that stand for all values below them.
    z : array (row, covariate), optional
        Of the weights, standardised.
    """

    residual: np.ndarray
    excess: np.ndarray
    x: np.ndarray
    available: np.ndarray
    censored: np.ndarray
    z: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> CorrectedRows:
        """Some of the rows."""
        return CorrectedRows(self.residual[rows], self.excess[rows], self.x[rows], self.available[rows],
                             self.censored[rows], None if self.z is None else self.z[rows])  # fmt: skip

    @cached_property
    def profile(self) -> np.ndarray:
        """Rows of one profile share their weights: they have the same covariates and members, (row); censored ones come first."""
        if self.z is None:
            return (~self.censored).astype(int)
        return alike(np.column_stack([~self.censored, self.available, self.z]))

    @cached_property
    def order(self) -> np.ndarray:
        """Rows by profile, and so the censored ones first."""
        return np.argsort(self.profile, kind="stable")

    @cached_property
    def packed(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and counts for the kernel: squares, covariates, log widenings and presence by column, then those of profiles.

        Rows that are censored come first, and have a signed distance in the place of their square. Of profiles there are the
        weights' covariates, presence, and where the rows of each end.
        """
        rows, censored = self.order, int(self.censored.sum())
        distance = (self.residual / np.sqrt(1.0 + self.excess))[rows]
        squares = np.square(distance)
        squares[:censored] = distance[:censored]
        widened = bool(np.any(self.excess[self.available] != 0.0))
        parts = [squares, self.x[rows]]
        parts += [-0.5 * np.log1p(self.excess[rows])] if widened else []
        patterns, count = np.zeros((0, 0), dtype=int), np.zeros(0, dtype=int)
        if not self.available.all():
            patterns, count = np.unique(self.available, axis=0, return_counts=True)
            parts.append(self.available[rows])
        ends = np.zeros(0, dtype=int)
        if self.z is not None:
            ends = np.cumsum(np.bincount(self.profile))
            one = rows[ends - 1]  # a row of each profile
            parts += [self.z[one], *([self.available[one]] if len(patterns) else [])]
        n, k = self.residual.shape
        data = np.concatenate([np.ravel(part.T) for part in parts]).astype(float)
        tail = [self.x.shape[1], widened, censored, 0 if self.z is None else self.z.shape[1], len(ends)]
        index = np.concatenate([[n, k, len(patterns)], np.ravel(patterns), count, tail, ends])
        return data, index.astype(np.int64)


@numba.njit(**BARE, fastmath=FAST)
def _widths(data, at, n, start, width, eta, inverse, bits, scale):  # type: ignore[no-untyped-def]
    """Log widths of a block's rows without the member's own, and one over their squares."""
    for i in range(len(eta)):
        eta[i] = 0.0
    for p in range(len(width)):
        x = data[at + p * n + start : at + p * n + start + len(eta)]
        for i in range(len(eta)):
            eta[i] += width[p] * x[i]
    for i in range(len(eta)):
        inverse[i] = min(max(-2.0 * eta[i], -STEEP), STEEP)
    _exp(inverse, bits, scale)


@numba.njit(**BARE, fastmath=FAST)
def _terms(squares, inverse, constant, half, z, term):  # type: ignore[no-untyped-def]
    """Standardised squares and log densities."""
    for i in range(len(squares)):
        z[i] = 2.0 * half * squares[i] * inverse[i]
        term[i] = constant - 0.5 * z[i]


@numba.njit(**BARE, fastmath=FAST)
def _heavy(nu, constant, z, term, by_nu):  # type: ignore[no-untyped-def]
    """Log densities of t kernels; squares times their weights (nu + 1) / (nu + z); and derivatives by nu."""
    for i in range(len(z)):
        far = np.log1p(z[i] / nu)
        term[i] = constant - 0.5 * (nu + 1.0) * far
        z[i] *= (nu + 1.0) / (nu + z[i])
        by_nu[i] = 0.5 * (z[i] / nu - far)


@numba.njit(**BARE, fastmath=FAST)
def _mean_by(term, inverse_mass, by_nu):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(term)):
        total += term[i] * inverse_mass[i] * by_nu[i]
    return total


@numba.njit(**BARE, fastmath=FAST)
def _shares(term, inverse_mass, z, pull):  # type: ignore[no-untyped-def]
    """A member's responsibilities, and them times standardised squares; adds the latter to each row's pull."""
    share, scaled = 0.0, 0.0
    for i in range(len(term)):
        each = term[i] * inverse_mass[i]
        share += each
        scaled += each * z[i]
        pull[i] += each * z[i]
    return share, scaled


@numba.njit(**BARE, fastmath=FAST)
def _product(x, pull):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(len(x)):
        total += x[i] * pull[i]
    return total


@INNER
def _below(theta, data, n, k, p, q, missing, at, ends, start, stop, out):  # type: ignore[no-untyped-def]
    """Log probability of censored rows around normal kernels, and its gradient."""
    slopes, theta, d_slope, out = theta[1 : 1 + q * k], theta[1 + q * k :], out[: q * k], out[q * k :]
    value, t, term, gain, weight, more = 0.0, np.empty(k), np.empty(k), np.zeros(k), np.zeros(k), np.zeros(k)
    z, u, total, end = at + k * n if missing else at, profile_of(ends, start) - 1, 0.0, start
    for i in range(start, stop):
        if q and i == end:
            u, more[:] = u + 1, 0.0
            end, total = min(ends[u], stop), log_total(slopes, theta, data, z, len(ends), k, missing, u, gain, weight)
        value -= total
        eta, top = 0.0, -np.inf
        for c in range(p):
            eta += theta[2 * k + c] * data[k * n + c * n + i]
        for j in range(k):
            # y - c is minus the kernel's mean at y = 0, and its distribution function there is that of t.
            t[j] = data[j * n + i] * np.exp(-theta[k + j] - eta)
            term[j] = theta[j] + gain[j] + log_ndtr(t[j])
            if missing and data[at + j * n + i] == 0.0:
                term[j] = -np.inf
            top = max(top, term[j])
        mass = 0.0
        for j in range(k):
            mass += np.exp(term[j] - top)
        value += top + np.log(mass)
        if len(out):
            for j in range(k):
                share = np.exp(term[j] - top) / mass
                more[j] += share - weight[j]
                out[j] -= weight[j]
                if share > 0.0:
                    slope = share * t[j] * np.exp(-0.5 * t[j] * t[j] - 0.5 * LOG_2PI - log_ndtr(t[j]))
                    out[j] += share
                    out[k + j] -= slope
                    for c in range(p):
                        out[2 * k + c] -= slope * data[k * n + c * n + i]
            if i + 1 == end:
                add_slopes(data, z, len(ends), k, u, more, d_slope)
    return value


@INNER
def _block(theta, data, n, k, p, q, widened, missing, ends, start, m, scratch, bits, out):  # type: ignore[no-untyped-def]
    """Log likelihood of ``m`` rows before weights are renormalised; adds its gradient to ``out`` unless that is empty.

    Arrays are cut from one dimension only, which tells the compiler that their elements lie side by side.
    """
    student, slopes, theta = theta[0] > 0.0, theta[1 : 1 + q * k], theta[1 + q * k :]
    d_slope, out = out[: q * k], out[q * k :]
    nu = theta[2 * k + p] if student else np.inf
    height = log_t_constant(nu) if student else 0.0
    top, mass = scratch[2 * k][:m], scratch[2 * k + 1][:m]
    eta, inverse = scratch[2 * k + 2][:m], scratch[2 * k + 3][:m]
    value = 0.0
    if p:
        _widths(data, k * n, n, start, theta[2 * k : 2 * k + p], eta, inverse, bits[:m], bits.view(np.float64)[:m])
        for i in range(m):
            value -= eta[i]
    else:
        for i in range(m):
            inverse[i] = 1.0
    at = k * n + p * n
    there = at + k * n if widened else at
    for j in range(k):
        term = scratch[k + j][:m]
        _terms(data[j * n + start : j * n + start + m], inverse, theta[j] - theta[k + j], 0.5 * np.exp(-2.0 * theta[k + j]),
               scratch[j][:m], term)  # fmt: skip
        if student:
            _heavy(nu, theta[j] - theta[k + j] + height, scratch[j][:m], term, scratch[2 * k + 4 + j][:m])
        if widened:
            extra = data[at + j * n + start : at + j * n + start + m]
            for i in range(m):
                term[i] += extra[i]
    z, own = there + k * n if missing else there, scratch[3 * k + 4 :]
    if q:
        value -= tilt(slopes, theta, data, z, ends, k, missing, start, m, scratch, own, bits)
    value += _mixed(data, there, n, k, missing, start, m, scratch, bits, top, mass)
    if len(out):
        for i in range(m):
            mass[i] = 1.0 / mass[i]
            top[i] = -1.0
        for j in range(k):
            share, scaled = _shares(scratch[k + j][:m], mass, scratch[j][:m], top)
            out[j] += share
            out[k + j] += scaled - share
        if q:
            tilt_gradient(data, z, ends, k, start, m, scratch, mass, own, d_slope, out)
        if student:
            out[2 * k + p] += m * 0.5 * (digamma(0.5 * (nu + 1.0)) - digamma(0.5 * nu) - 1.0 / nu)
            for j in range(k):
                out[2 * k + p] += _mean_by(scratch[k + j][:m], mass, scratch[2 * k + 4 + j][:m])
        for c in range(p):
            out[2 * k + c] += _product(data[(k + c) * n + start : (k + c) * n + start + m], top)
    return value


@INNER
def _rows(theta, data, index, begin, end, scratch, bits, out):  # type: ignore[no-untyped-def]
    """Log likelihood of rows from ``begin`` to ``end`` before weights are renormalised; adds its gradient to ``out``."""
    n, k, patterns = index[0], index[1], index[2]
    tail = 3 + patterns * (k + 1)
    p, widened, censored, q = index[tail], index[tail + 1] > 0, index[tail + 2], index[tail + 3]
    ends = index[tail + 5 : tail + 5 + index[tail + 4]]
    at = (2 * k + p) * n if widened else (k + p) * n
    value = 0.0
    if begin < censored:
        value += _below(theta, data, n, k, p, q, patterns > 0, at, ends, begin, min(end, censored), out)
    first = max(begin, censored)
    for start in range(first, end, BLOCK):
        m = min(BLOCK, end - start)
        value += _block(theta, data, n, k, p, q, widened, patterns > 0, ends, start, m, scratch, bits, out)
        value -= 0.5 * m * LOG_2PI
    return value


@INNER
def _scratch(theta, index):  # type: ignore[no-untyped-def]
    """Room for a block's rows, and how many slopes of weights there are."""
    k, q = index[1], index[6 + index[2] * (index[1] + 1)]
    size = 5 * k + 6 if q else 3 * k + 4 if theta[0] > 0.0 else 2 * k + 4
    return np.empty((size, BLOCK)), np.empty(BLOCK, dtype=np.int64), q * k


@INNER
def _totals(theta, index, slopes, out):  # type: ignore[no-untyped-def]
    """Minus the rows' log total weights where these are alike, and their gradient; elsewhere blocks have it."""
    return 0.0 if slopes else _renormalisation(theta[1:], index, out)


@INNER
def _one(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Log likelihood of all rows; its gradient goes into ``out`` unless that is empty."""
    scratch, bits, slopes = _scratch(theta, index)
    for i in range(len(out)):
        out[i] = 0.0
    value = _totals(theta, index, slopes, out) + _rows(theta, data, index, 0, index[0], scratch, bits, out)
    if np.isfinite(value):
        return value
    for i in range(len(out)):
        out[i] = 0.0
    return -np.inf


def corrected_packed(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Value and gradient for a C function, from and into flat arrays."""
    n, k, patterns = index[0], index[1], index[2]
    tail = 3 + patterns * (k + 1)
    index = numba.carray(index, tail + 5 + index[tail + 4])
    q, u = index[tail + 3], index[tail + 4]
    size = q * k + 2 * k + index[tail] + (1 if numba.carray(theta, 1)[0] > 0.0 else 0)
    columns, missing = k + index[tail] + (k if index[tail + 1] else 0), k if patterns else 0
    out = numba.carray(out, 1 + size)
    data = numba.carray(data, n * (columns + missing) + u * (q + missing))
    out[0] = _one(numba.carray(theta, 1 + size), data, index, out[1:])


@kernel
def corrected_values(theta, data, index, out):  # type: ignore[no-untyped-def]
    """Values alone, for many sets of parameters ``theta (draw, 1 + parameter)``; each block is read once. Into ``out``."""
    n, none = index[0], np.empty(0)
    scratch, bits, slopes = _scratch(theta[0], index)
    for d in range(len(theta)):
        out[d, 0] = _totals(theta[d], index, slopes, none)
    for start in range(0, n, BLOCK):
        for d in range(len(theta)):
            out[d, 0] += _rows(theta[d], data, index, start, min(start + BLOCK, n), scratch, bits, none)
    for d in range(len(theta)):
        if not np.isfinite(out[d, 0]):
            out[d, 0] = -np.inf


@kernel
def corrected_part(theta, data, index, begin, end, out):  # type: ignore[no-untyped-def]
    """Log likelihood of some rows before weights are renormalised, then its gradient."""
    scratch, bits, _ = _scratch(theta, index)
    out[:] = 0.0
    out[0] = _rows(theta, data, index, begin, end, scratch, bits, out[1:])


def by_parts(theta: np.ndarray, rows: CorrectedRows, parts: int) -> np.ndarray:
    """Value and gradient before weights are renormalised, rows shared out to threads in a fixed number of parts."""
    data, index = rows.packed

    def run(part: slice) -> np.ndarray:
        out = np.empty(len(theta))
        corrected_part(theta, data, index, part.start, part.stop, out)
        return out

    return np.asarray(np.sum(share_out(run, int(index[0]), parts), axis=0))
