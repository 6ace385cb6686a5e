"""The predictive law of cells that share its coefficients: what a kernel needs of them, and the call.

A class of cells shares its members, weights and effects. Under every posterior draw the means of its components are linear in the
cell's numbers ``u``: one, the members that it has, and columns that corrections regress on, each about an origin. So mean and
variance over all draws are a linear and a quadratic form in ``u``, and the mean variance of the kernels is the exponential of a
smooth function of the widths' covariates, which a polynomial follows to 1e-7. Quantiles and probabilities are those of the
matched normals (:mod:`bayesens.distributions.matching`), the same as a table's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations_with_replacement, product
from math import comb
from typing import Any

import numpy as np

from bayesens.distributions.matching import Bins, Match

__all__ = ["ByDraw", "CellClass", "Polynomial", "Reads", "Spread"]

NEAR = 1e-7  # of the logarithm of a variance, twice that of a standard deviation
MOST_TERMS, MOST_DEGREE, SEED = 400, 14, 20


@dataclass(frozen=True, eq=False)
class Polynomial:
    """A polynomial in some variables: every monomial is another one (``parent``) times a variable (``factor``)."""

    parent: np.ndarray
    factor: np.ndarray
    coefficient: np.ndarray

    @classmethod
    def constant(cls, value: float) -> Polynomial:
        """Return a polynomial without variables."""
        return cls(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), np.array([value]))

    @classmethod
    def through(
        cls, function: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray, *, near: float = NEAR
    ) -> Polynomial | None:
        """Follow a smooth function of points (point, variable) in a box, by least squares at random Chebyshev points.

        None if even many terms do not follow it as nearly as is asked, which other points of the box decide.

        Examples
        --------
        >>> found = Polynomial.through(lambda x: np.exp(0.1 * x[:, 0]), np.array([-2.0]), np.array([3.0]))
        >>> float(found.at(np.array([[1.0]]))[0].round(6))
        1.105171
        """
        box = tuple(low.tolist()), tuple(high.tolist())
        check = _points(*box, 200)
        wanted = function(check)
        for degree in range(1, MOST_DEGREE + 1):
            if comb(len(low) + degree, degree) > MOST_TERMS:
                break
            basis, points, inverse = _basis(*box, degree)
            found = replace(basis, coefficient=inverse @ function(points))
            if np.abs(found.at(check) - wanted).max() <= near:
                return found
        return None

    @property
    def horner(self) -> np.ndarray:
        """Coefficients for Horner's rule in two variables, of the next degree that the kernels have; none of others."""
        from bayesens.distributions.cell_moments import DEGREES

        powers = np.zeros((len(self.coefficient), max(2, 1 + int(self.factor.max()))), dtype=np.int64)
        for n in range(1, len(powers)):
            powers[n] = powers[self.parent[n]]
            powers[n, self.factor[n]] += 1
        degree = next((d for d in DEGREES if d >= powers.sum(axis=1).max()), 0)
        if powers.shape[1] > 2 or not degree:
            return np.zeros(0)
        row = degree - powers[:, 1]
        out = np.zeros((degree + 1) * (degree + 2) // 2)
        out[row * (row + 1) // 2 + row - powers[:, 0]] = self.coefficient
        return out

    def _monomials(self, x: np.ndarray) -> np.ndarray:
        out = np.ones((len(x), len(self.coefficient)))
        for n in range(1, len(self.coefficient)):
            out[:, n] = out[:, self.parent[n]] * x[:, self.factor[n]]
        return out

    def at(self, x: np.ndarray) -> np.ndarray:
        """Values at points (point, variable)."""
        return np.asarray(self._monomials(x) @ self.coefficient)


Box = tuple[float, ...]


def _points(low: Box, high: Box, size: int) -> np.ndarray:
    """Random points of a box, denser at its sides, and its corners."""
    rng, (low_, high_) = np.random.default_rng([SEED, size]), np.array([low, high])
    inside = low_ + (high_ - low_) * (0.5 + 0.5 * np.cos(np.pi * rng.random((size, len(low)))))
    corners = np.array(list(product(*zip(low, high, strict=True)))) if len(low) < 8 else inside[:0]
    return np.concatenate([inside, corners])


@lru_cache(maxsize=64)  # the classes of a fit have the same box
def _basis(low: Box, high: Box, degree: int) -> tuple[Polynomial, np.ndarray, np.ndarray]:
    """All monomials up to a degree, points of a box, and what makes coefficients of a function's values there."""
    terms = [t for d in range(degree + 1) for t in combinations_with_replacement(range(len(low)), d)]
    place = {term: n for n, term in enumerate(terms)}
    parent = np.array([0] + [place[term[:-1]] for term in terms[1:]], dtype=np.int64)
    factor = np.array([0] + [term[-1] for term in terms[1:]], dtype=np.int64)
    basis, points = Polynomial(parent, factor, np.zeros(len(terms))), _points(low, high, 4 * len(terms))
    # Columns in units of their own size: powers of numbers beyond one grow fast.
    columns = basis._monomials(points)
    size = np.sqrt(np.mean(columns**2, axis=0))
    size[size == 0.0] = 1.0  # a variable that does not vary
    return basis, points, np.linalg.pinv(columns / size, rcond=1e-14) / size[:, None]


@dataclass(frozen=True, eq=False)
class Reads:
    """How cells are read: what all classes of a fit have in common.

    Attributes
    ----------
    origin : array (member)
        Which members are about, on the model's scale.
    column_origin : array (column)
        The same of columns that corrections regress on.
    kind : int array (covariate)
        What a width follows: 0 the mean, 1 the spread, 2 and more a column of the cells.
    scale : array (covariate, 5)
        Start of the logarithm, NaN for none; center, size, low and high.
    transform : {"identity", "sqrt", "log"}
        From the cells to the model's scale.
    """

    origin: np.ndarray
    column_origin: np.ndarray
    kind: np.ndarray
    scale: np.ndarray
    transform: str = "identity"


@dataclass(frozen=True, eq=False)
class ByDraw:
    """Components under some posterior draws, from which the parts of the variance on another scale are taken.

    Attributes
    ----------
    weight : array (draw, component)
    coefficient : array (draw, component, number)
        Of the means.
    size : array (draw, component)
        Variances of typical width.
    width : array (draw, covariate)
    share, node : array (draw, node)
        Normals that make up a kernel: weights, and factors of the variance.
    """

    weight: np.ndarray
    coefficient: np.ndarray
    size: np.ndarray
    width: np.ndarray
    share: np.ndarray
    node: np.ndarray

    @classmethod
    def none(cls) -> ByDraw:
        """Of no draw: the parts are those of the components."""
        flat, deep = np.zeros((0, 0)), np.zeros((0, 0, 0))
        return cls(flat, deep, flat, flat, flat, flat)

    @cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Arrays for the kernel."""
        parts = self.weight, self.coefficient, self.size, self.width, self.share, self.node
        return tuple(_packed(one) for one in parts)


@dataclass(frozen=True, eq=False)
class Spread:
    """A mean variance of kernels that is linear in a quadratic form of the members.

    Attributes
    ----------
    form : array (number, number)
    base, factor : Polynomial
        Logarithms of what it is without the form and of what it has for each unit of it, in the covariates of the widths.
    """

    form: np.ndarray
    base: Polynomial
    factor: Polynomial

    @property
    def arrays(self) -> tuple[Any, ...]:
        """Arrays for the kernel."""
        parts = [(one.parent, one.factor, _packed(one.coefficient), one.horner) for one in (self.base, self.factor)]
        return _packed(self.form), *parts


NO_SPREAD = Spread(np.zeros((0, 0)), *[Polynomial.constant(0.0)] * 2)


@dataclass(frozen=True, eq=False)
class CellClass:
    """Coefficients of the law of a class of cells.

    Attributes
    ----------
    line : array (number)
        Of the mean.
    between, parameter : array (number, number)
        Of the variances between components and of the parameters.
    within : Polynomial
        Logarithm of the kernels' mean variance, in the covariates of the widths.
    point : array (member present, number)
        Members as the covariates of the widths take them.
    matches : sequence of Match
        One a component, whose design is ``u``.
    left : array (component)
        What is open of known effects: the factor of the second term of its variance.
    shares, nodes : sequence of array (node)
        Of each component's widths.
    unsure : array (covariate, covariate)
        Covariance of the widths' coefficients over draws.
    fixed : bool
        Whether nodes are variances themselves, as those of t kernels.
    by_draw : ByDraw, optional
        Of a model on another scale, and of a fit at one point: their moments follow from their components.
    opening : array (component, number, number), optional
        Of a fit at one point: quadratic forms of one and what it leaves open, factors of the second term of the variances.
    gain : float
        Of the variance within kernels over that of the normals that make them up.
    spread : Spread, optional
        Of a law of which nothing else than mean and variance is known here.
    """

    line: np.ndarray
    between: np.ndarray
    parameter: np.ndarray
    within: Polynomial
    point: np.ndarray
    matches: Sequence[Match]
    left: np.ndarray
    shares: Sequence[np.ndarray]
    nodes: Sequence[np.ndarray]
    unsure: np.ndarray
    fixed: bool
    by_draw: ByDraw | None = None
    opening: np.ndarray | None = None
    gain: float = 1.0
    spread: Spread | None = None

    @property
    def normals(self) -> int:
        """How many normals a cell has."""
        return sum(len(m.bins[0].weight) * len(s) for m, s in zip(self.matches, self.shares, strict=True))

    @cached_property
    def moments(self) -> tuple[np.ndarray, ...]:
        """Arrays for the kernel."""
        poly = self.within
        forms = map(_whole, (self.line, self.between, self.parameter, self.between + self.parameter))
        return (*forms, poly.parent, poly.factor, _packed(poly.coefficient), poly.horner)

    @cached_property
    def of_members(self) -> tuple[np.ndarray, np.ndarray]:
        """Linear form of the members' mean, and quadratic form of their sample variance; none of one member."""
        if len(self.point) == 0:
            return _whole(np.zeros(len(self.line))), np.zeros((0, 0))
        mean = self.point.mean(axis=0)
        apart = self.point - mean
        return _whole(mean), _whole(apart.T @ apart / (len(apart) - 1)) if len(apart) > 1 else np.zeros((0, 0))

    @cached_property
    def law(self) -> tuple[Any, ...]:
        """Arrays for the kernel, padded to the largest component."""
        matches, c = self.matches, len(self.matches)
        ways = max(len(m.bins) for m in matches)
        bins = max(len(m.bins[0].weight) for m in matches)
        numbers, nodes = len(self.line), max(map(len, self.nodes))
        forms, weight = np.zeros((c, ways, numbers)), np.zeros((c, ways, bins))
        first: Bins = matches[0].bins[0]
        shape = (c, ways, bins)
        centre, spread = np.zeros((*shape, numbers)), np.zeros((*shape, numbers, numbers))
        terms, covariates = first.tilt.shape[0], first.tilt.shape[2]
        size, tilt = np.zeros((*shape, terms)), np.zeros((*shape, terms, covariates))
        tilt_spread = np.zeros((*shape, terms, covariates, covariates))
        share, node = np.zeros((c, nodes)), np.zeros((c, nodes))
        for k, m in enumerate(matches):
            forms[k, : len(m.forms)] = m.forms
            share[k, : len(self.shares[k])], node[k, : len(self.nodes[k])] = self.shares[k], self.nodes[k]
            for j, one in enumerate(m.bins):
                b = slice(0, len(one.weight))
                weight[k, j, b], centre[k, j, b], spread[k, j, b] = one.weight, one.centre, one.spread
                size[k, j, b] = one.size.T * np.array([1.0, self.left[k]])[:terms]
                tilt[k, j, b], tilt_spread[k, j, b] = one.tilt.swapaxes(0, 1), one.tilt_spread.swapaxes(0, 1)
        counts = [np.array([count(m) for m in matches], dtype=np.int64)
                  for count in (lambda m: len(m.forms), lambda m: len(m.bins[0].weight))]  # fmt: skip
        n_nodes = np.array([len(one) for one in self.nodes], dtype=np.int64)
        return (forms, *counts, weight, centre, spread, size, tilt, tilt_spread, n_nodes, share, node, _packed(self.unsure),
                self.fixed)  # fmt: skip

    def predict(
        self, reads: Reads, members: tuple[np.ndarray, np.ndarray, bool], columns: np.ndarray, raw: np.ndarray,
        cells: tuple[int, int, np.ndarray], *, levels: np.ndarray, limits: np.ndarray, scores: np.ndarray, parts: int,
        out: np.ndarray,
    ) -> None:  # fmt: skip
        """Fill numbers of cells.

        Parameters
        ----------
        reads : Reads
        members : (address, stride, four_bytes)
            Of the members' arrays, see :func:`bayesens.distributions.cell_loops.patterns`.
        columns, raw : array (column, cell)
            That corrections regress on, and that widths follow.
        cells : (first, count, index)
            Cells one after the other where the index is empty.
        levels : array (level, 3)
            From :func:`levels_of`.
        limits : array (limit, cell)
            parts : {0, 1, 2}
            Whether mean and standard deviation, and the parts of the latter, are wanted.
        out : array (number, cell)
            Mean, standard deviation, its parts, quantiles, probabilities, values; in single or double precision.
        """
        from bayesens.distributions.cell_loops import law_of_cells

        address, stride, four_bytes = members
        none64, none32 = np.empty((0, 0)), np.empty((0, 0), dtype=np.float32)
        both = (none64, out) if out.dtype == np.float32 else (out, none32)
        read = (address, stride, four_bytes, reads.origin), (columns, raw, reads.column_origin)
        widths = (*self.of_members, reads.kind, _packed(reads.scale))
        if self.by_draw is not None:
            from bayesens.distributions.cell_components import BACK, law_by_components

            opening = np.zeros((0, 0, 0)) if self.opening is None else self.opening
            direct = (self.moments[0], self.moments[2], *(self.spread or NO_SPREAD).arrays)
            other = BACK[reads.transform], float(self.gain), _packed(opening), self.by_draw.arrays, direct
            law_by_components(cells, *read, widths, self.law, other, (levels, limits, scores, parts), *both)
            return
        law_of_cells(cells, *read, widths, self.moments, self.law, (levels, limits, scores, parts), *both)


def _packed(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float64)


def _whole(form: np.ndarray) -> np.ndarray:
    """A form of as many numbers at least as a pass takes."""
    from bayesens.distributions.cell_moments import NUMBERS

    return _packed(np.pad(form, (0, max(0, NUMBERS - len(form)))))
