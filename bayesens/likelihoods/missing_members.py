"""Members that a row lacks, by regression on those that it has: the members are taken as jointly normal.

With mean m and covariance S of the members, A those that a row has and M those that it lacks,

    E[f_M | f_A]   = m_M + S_MA S_AA^-1 (f_A - m_A)
    Var[f_M | f_A] = S_MM - S_MA S_AA^-1 S_AM

m and S are those of the training rows by expectation-maximisation, in which no observation has a part: that values are missing
may depend on the members that are there, and on nothing else. One more row of members that have nothing to do with each other,
of the members' own variances, keeps S from being singular where rows are few, or members copies of each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bayesens.ensemble.rows import Rows

__all__ = ["Filled", "JointMembers", "check_moments", "fill_in"]

PASSES, STILL = 5000, 1e-12  # of expectation-maximisation: the most, and the change of standardised moments at its end


@dataclass(frozen=True, eq=False)
class Filled:
    """Rows whose members are all there, as they are or as the others predict them.

    Attributes
    ----------
    f : array (row, member)
    pattern : int array (row)
        Number of each row's pattern of missing members.
    present : bool array (pattern, member)
    gain : array (pattern, member, member)
        What a unit of each member that is there moves the members by.
    level : array (pattern, member)
        ``f = level + gain @ f``, where missing members are zero.
    open : array (pattern, member, member)
        Covariance of the members given those that are there; zero for a complete row.
    """

    f: np.ndarray
    pattern: np.ndarray
    present: np.ndarray
    gain: np.ndarray
    level: np.ndarray
    open: np.ndarray

    @property
    def complete(self) -> np.ndarray:
        """Rows that lack nothing, bool (row)."""
        return np.asarray(self.present.all(axis=1)[self.pattern])

    @property
    def everywhere(self) -> np.ndarray:
        """Where there is a value now, bool (row, member)."""
        return np.ones(self.f.shape, dtype=bool)

    @property
    def spread(self) -> np.ndarray:
        """Expected sample variance of the members of each row, (row)."""
        members = self.f.shape[1]
        unknown = np.trace(self.open, axis1=1, axis2=2) - self.open.sum(axis=(1, 2)) / members
        return np.asarray(np.var(self.f, axis=1, ddof=1) + (unknown / (members - 1))[self.pattern])


@dataclass(frozen=True, eq=False)
class JointMembers:
    """Mean (member) and covariance (member, member) of the members.

    Examples
    --------
    >>> JointMembers(np.zeros(2), np.array([[1.0, 0.5], [0.5, 1.0]])).given(np.array([[True, False]]))[2][0, 1, 1]
    np.float64(0.75)
    """

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, rows: Rows) -> JointMembers:
        """Moments of the members of training rows, each of which has one at least."""
        there, n = rows.available, len(rows.y)
        count = np.maximum(there.sum(axis=0), 1)
        center = (rows.f * there).sum(axis=0) / count
        size = np.sqrt((np.square(rows.f - center) * there).sum(axis=0) / count)
        size = np.where(size > 0.0, size, 1.0)
        z = np.where(there, (rows.f - center) / size, 0.0)
        present, pattern = np.unique(there, axis=0, return_inverse=True)
        each = np.bincount(pattern.ravel())
        first = np.stack([z[pattern.ravel() == q].sum(axis=0) for q in range(len(each))])
        second = np.stack([z[some].T @ z[some] for some in (pattern.ravel() == q for q in range(len(each)))])
        found = cls(np.zeros(len(size)), np.eye(len(size)))
        for _ in range(PASSES):
            last, found = found, found._again(present, each, first, second, n)
            change = max(np.abs(found.mean - last.mean).max(), np.abs(found.covariance - last.covariance).max())
            if change <= STILL:
                break
        return cls(center + size * found.mean, size[:, None] * found.covariance * size)

    def _again(
        self, present: np.ndarray, each: np.ndarray, first: np.ndarray, second: np.ndarray, n: int
    ) -> JointMembers:
        """One pass of expectation-maximisation over sums by pattern, in standard units."""
        level, gain, unknown = self.given(present)
        known = np.einsum("qij,qj->qi", gain, first)
        mean = (each @ level + known.sum(axis=0)) / n
        square = np.einsum("qij,qjk,qlk->il", gain, second, gain, optimize=True)
        square += np.einsum("q,qij->ij", each, unknown) + np.einsum("q,qi,qj->ij", each, level, level)
        cross = np.einsum("qi,qj->ij", level, known)
        return JointMembers(mean, (square + cross + cross.T - n * np.outer(mean, mean) + np.eye(len(mean))) / (n + 1))

    def given(self, present: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Level, gain and open covariance, as `Filled` has them, of patterns (pattern, member)."""
        both = present[:, :, None] & present[:, None, :]
        inverse = np.where(both, np.linalg.inv(np.where(both, self.covariance, np.eye(len(self.mean)))), 0.0)
        gain = np.where(present[:, :, None], np.eye(len(self.mean)), self.covariance @ inverse)
        lacking = ~present[:, :, None] & ~present[:, None, :]
        unknown = np.where(lacking, self.covariance - gain @ self.covariance, 0.0)
        return np.where(present, 0.0, self.mean - gain @ self.mean), gain, unknown

    def fill(self, rows: Rows) -> Filled:
        """Fill in what rows lack; those that have no member have the mean."""
        present, pattern = np.unique(rows.available, axis=0, return_inverse=True)
        pattern = pattern.ravel()
        level, gain, unknown = self.given(present)
        f = np.array(rows.f)
        for q in np.flatnonzero(~present.all(axis=1)):
            some = pattern == q
            f[some] = np.where(present[q], f[some], level[q] + f[some] @ gain[q].T)
        return Filled(f, pattern, present, gain, level, unknown)

    def to_tuples(self) -> tuple[tuple[float, ...], ...]:
        """As an option of a model: of each member its mean, and its covariances with all."""
        return tuple((float(m), *line.tolist()) for m, line in zip(self.mean, self.covariance, strict=True))

    @classmethod
    def from_tuples(cls, lines: tuple[tuple[float, ...], ...]) -> JointMembers:
        """Take it from the option of a model.

        Examples
        --------
        >>> JointMembers.from_tuples(((1.0, 4.0),)).covariance.tolist()
        [[4.0]]
        """
        values = np.array(lines, dtype=float)
        return cls(values[:, 0], values[:, 1:])


def check_moments(model: Any) -> None:
    """Refuse moments that are not of as many members as they have lines."""
    lines = model.member_moments or ()
    if any(len(line) != 1 + len(lines) for line in lines):
        raise ValueError(f"{type(model).__name__}(member_moments=...) has of each member its mean and its covariances with all "
                         f"{len(lines)}; got {lines!r}. Leave it out, and the training rows give it.")  # fmt: skip


def fill_in(model: Any, rows: Rows) -> Filled:
    """Fill in what rows lack by a resolved model's ``member_moments``; without these, by nothing that has a meaning."""
    lines, k = model.member_moments, rows.f.shape[1]
    return (JointMembers.from_tuples(lines) if lines else JointMembers(np.zeros(k), np.eye(k))).fill(rows)
