"""From a fit to the coefficients of the law of cells: what its law says of a few probe rows decides all cells of their class.

Given which members a cell has, its group and its site, the law of most models is linear in the members and in the columns that
corrections regress on. So a row at the origin and one more for each number give the coefficients exactly, whatever the model is
made of; one more row, anywhere, tells whether the law is linear indeed. Where it is not, cells are predicted as rows of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from bayesens.distributions.cells import ByDraw, CellClass, Polynomial, Reads, Spread
from bayesens.distributions.heavy_tails import normal_rule
from bayesens.distributions.matching import Bins, Match
from bayesens.distributions.posterior_mixture import Block, PosteriorMixture, quadratic_moments
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.transforms import transform
from bayesens.inference.prediction import thinned
from bayesens.likelihoods.corrected.matched import component_match, nodes, width_covariance
from bayesens.likelihoods.corrected.predictive import CorrectedDraws, CorrectedMixture
from bayesens.likelihoods.corrected.widths import Widths
from bayesens.likelihoods.spread.predictive import SpreadMixture

__all__ = ["Key", "Probed", "Probes", "probed", "reads_of", "widths_of"]

DEFAULT = ("mean", "spread")
LINEAR = 1e-9  # relative error of a design that counts as linear
Key = tuple[int, str, str]  # members as bits, and the labels of site and group


@dataclass(frozen=True, eq=False)
class Probes:
    """Where a fit is probed: an origin, and a step of every number.

    Attributes
    ----------
    origin, step : array (member)
        On the model's scale.
    columns : tuple of str
        Of the grid, that corrections regress on.
    transform : {"identity", "sqrt", "log"}
        To the model's scale.
    """

    origin: np.ndarray
    step: np.ndarray
    columns: tuple[str, ...]
    transform: str = "identity"

    @classmethod
    def of(
        cls,
        members: Sequence[str],
        ranges: Mapping[str, Sequence[float]],
        columns: tuple[str, ...],
        name: str = "identity",
    ) -> Probes:
        """In the middle of the values that the fit has seen; fits of before did not keep these."""
        ends = np.array([ranges.get(member, (np.nan, np.nan)) for member in members], dtype=float).reshape(-1, 2)
        with np.errstate(invalid="ignore", divide="ignore"):  # a member that the model does not look at has any values
            ends = transform(name).forward(ends)
        ends = np.where(np.isfinite(ends).all(axis=1, keepdims=True), ends, [0.0, 1.0])
        wide = ends[:, 1] - ends[:, 0]
        return cls(ends.mean(axis=1), np.where(wide > 0.0, wide, 1.0), columns, name)

    def rows(self, pattern: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Members and columns of the rows of one pattern, and which numbers they move: the origin, each number, and all."""
        k, c = len(self.origin), len(self.columns)
        have = np.array([bool(pattern >> j & 1) for j in range(k)])
        moved = np.concatenate([np.flatnonzero(have), k + np.arange(c)]).astype(int)
        step = np.zeros((len(moved) + 2, k + c))
        step[1 + np.arange(len(moved)), moved] = 1.0
        step[-1, moved] = 0.3 + 0.4 / (1.0 + np.arange(len(moved)))
        members = np.where(have, self.origin + step[:, :k] * self.step, np.nan)
        return np.asarray(transform(self.transform).inverse(members)), step[:, k:], moved


def reads_of(model: Any, posterior: Any, history: Any, probes: Probes, raw: Sequence[str]) -> Reads | None:
    """How cells are read; None for models whose cells are predicted as rows of a table.

    Parameters
    ----------
    model : model
    posterior, history : Dataset
    probes : Probes
    raw : sequence of str
        Columns that widths follow, in the order in which cells have them.
    """
    if len(probes.origin) > 60 or not hasattr(model, "predictive") or getattr(model, "weight_covariates", ()) != ():
        return None
    if getattr(model, "own_sd", None):  # kernels that follow a cell each by itself: no class of cells has coefficients
        return None
    widths = widths_of(model, history)
    kind = [DEFAULT.index(name) if name in DEFAULT else 2 + list(raw).index(name) for name in widths.names]
    scale = np.column_stack([widths.start, widths.center, widths.size, widths.low, widths.high])
    origin = np.ascontiguousarray(probes.origin)
    return Reads(origin, np.zeros(len(probes.columns)), np.array(kind, dtype=np.int64), scale, model.transform)


def widths_of(model: Any, history: Any) -> Widths:
    """What widths follow: as the history of a fit has it, or an option of its model."""
    if history is not None and "width_start" in history:
        return Widths.from_dataset(history)
    given = getattr(model, "widths", None)
    return Widths.from_tuples(given) if given else Widths((), *(np.zeros(0) for _ in range(5)))


@dataclass(frozen=True, eq=False)
class Probed:
    """The law of the probe rows of one key.

    Attributes
    ----------
    mixture : PosteriorMixture or CorrectedMixture
        Over all posterior draws, of the rows of several keys.
    rows : int array (row)
        Those of this key.
    moved : int array (number)
        Numbers that the rows move.
    widths : Widths
        What widths follow.
    """

    mixture: Any
    rows: np.ndarray
    moved: np.ndarray
    widths: Widths

    def coefficients(self, probes: Probes, draw: int | None = None) -> CellClass | None:
        """Coefficients of the law over all draws, or under one of them; None where it is not linear."""
        mixture = self.mixture if draw is None else _under(self.mixture, draw)
        if type(mixture) is CorrectedMixture:
            return _of_corrected(mixture, probes, self.rows, self.moved)
        if type(mixture) is PosteriorMixture:
            return _of_block(mixture, list(mixture.blocks()), probes, self.rows, self.moved)
        if type(mixture) is SpreadMixture:
            return _of_spread(mixture, probes, self.rows, self.moved, self.widths)
        return None


def probed(
    predictive: Callable[[Ensemble], Any], table: Callable[[np.ndarray, np.ndarray, list[Key]], Ensemble], probes: Probes,
    keys: Sequence[Key], widths: Widths,
) -> list[Probed]:  # fmt: skip
    """Probe the law of keys.

    Parameters
    ----------
    predictive : callable
        The law of a table's rows.
    table : callable
        Makes a table of members (row, member), columns (row, column), and each row's key.
    probes : Probes
    keys : sequence of (pattern, site, group)
    widths : Widths
        What widths follow.
    """
    made = [probes.rows(pattern) for pattern, _, _ in keys]
    count = [len(members) for members, _, _ in made]
    rows = [np.arange(start, stop) for start, stop in pairwise(np.cumsum([0, *count]))]
    members, columns = (np.concatenate([one[n] for one in made]) for n in range(2))
    mixture = predictive(
        table(members, columns, [key for key, size in zip(keys, count, strict=True) for _ in range(size)])
    )
    if type(mixture) is PosteriorMixture:
        blocks = list(mixture.blocks())  # found once, whatever is asked of them
        mixture = replace(mixture, blocks=lambda: iter(blocks))
    return [Probed(mixture, some, one[2], widths) for some, one in zip(rows, made, strict=True)]


def _under(mixture: Any, draw: int) -> Any:
    """A mixture of one posterior draw."""
    one = slice(draw, draw + 1)
    if isinstance(mixture, SpreadMixture):
        mixture = mixture.of_draws(np.array([draw]))
    if isinstance(mixture, PosteriorMixture):
        blocks = [replace(block, weight=block.weight[one], coefficient=block.coefficient[one], variance=block.variance[one])
                  for block in mixture.blocks()]  # fmt: skip
        return replace(mixture, blocks=lambda: iter(blocks))
    draws = mixture.draws
    parts = {name: getattr(draws, name)[one] for name in ("weight", "sigma", "width", "coefficient", "new")}
    return replace(mixture, draws=replace(draws, **parts, nu=None if draws.nu is None else draws.nu[one]))


def _of_block(
    mixture: PosteriorMixture, blocks: Sequence[Block], probes: Probes, rows: np.ndarray, moved: np.ndarray
) -> CellClass | None:
    block = next((one for one in blocks if rows[0] in one.rows), None)
    if block is None or not np.isin(rows, block.rows).all():
        return None
    design = _members(probes, moved[moved < len(probes.origin)])
    variance = np.log(np.mean(np.sum(block.weight * block.variance, axis=1)))
    one, in_numbers = [np.ones(1)] * block.weight.shape[1], block.coefficient @ design
    by_draw = None if probes.transform == "identity" else _by_draw(block.weight, in_numbers, block.variance)
    return _class(block.weight, in_numbers, [m.through(design) for m in mixture.matches(block)],
                  within=Polynomial.constant(float(variance)), point=np.zeros((0, design.shape[1])), left=np.zeros(len(one)),
                  shares=one, nodes=one, unsure=np.zeros((0, 0)), fixed=True, by_draw=by_draw)  # fmt: skip


def _members(probes: Probes, here: np.ndarray) -> np.ndarray:
    """One and the members that are there, (1 + member, number)."""
    design = np.zeros((1 + len(probes.origin), 1 + len(probes.origin) + len(probes.columns)))
    design[0, 0] = 1.0
    design[1 + here, 0], design[1 + here, 1 + here] = probes.origin[here], 1.0
    return design


def _of_spread(
    mixture: SpreadMixture, probes: Probes, rows: np.ndarray, moved: np.ndarray, widths: Widths
) -> CellClass | None:
    """EMOS: its variance is linear in a quadratic form of the members; under one draw all of its law follows from that."""
    blocks = list(mixture.blocks())
    if not any(rows[0] in block.rows for block in blocks):
        return None
    design, least, p = _members(probes, moved), mixture.least(rows[0]), mixture.slope.shape[1]
    lacking = np.setdiff1d(np.arange(len(probes.origin)), moved)
    if len(lacking):  # filled in from the others
        filled = _linear(mixture.f[rows][:, lacking], probes.step, moved)
        if filled is None:
            return None
        design[1 + lacking] = filled
    apart = design[1:] - design[1:].mean(axis=0)
    form = apart.T @ apart / (len(apart) - 1)
    if len(lacking):  # what is left open is the same in all cells
        form[0, 0] = mixture.spread[rows[0]]
    in_numbers, spread, opening = blocks[0].coefficient @ design, None, None
    if len(mixture.sigma) == 1:
        opening = (mixture.factor[0] * form)[None]
        opening[0, 0, 0] += least[0]
    elif probes.transform != "identity" or (spread := _spread(mixture, least, form, widths)) is None:
        return None
    tilt, size, none = np.zeros((2, 1, p)), np.array([[0.0], [1.0]]), np.zeros((1, *form.shape))
    tilt[1] = mixture.slope.mean(axis=0)
    bins, one = Bins(np.ones(1), in_numbers[0], none, size, tilt, np.zeros((2, 1, p, p))), [np.ones(1)]
    return _class(blocks[0].weight, in_numbers, [Match(none[:, 0][:0], (bins,))], within=Polynomial.constant(0.0),
                  point=design[1:], left=one[0], shares=one, nodes=one, unsure=np.zeros((p, p)), fixed=True,
                  by_draw=ByDraw.none(), opening=opening, spread=spread)  # fmt: skip


def _spread(mixture: SpreadMixture, least: np.ndarray, form: np.ndarray, widths: Widths) -> Spread | None:
    """The mean variance over draws."""

    def through(size: np.ndarray) -> Polynomial | None:
        if not mixture.slope.shape[1]:
            return Polynomial.constant(float(np.log(size.mean())))
        low, high = np.minimum(widths.low, 0.0), np.maximum(widths.high, 0.0)
        return Polynomial.through(lambda x: np.log(np.exp(2.0 * x @ mixture.slope.T) @ size / len(size)), low, high)

    base, factor = through(least), through(mixture.factor)
    return None if base is None or factor is None else Spread(form, base, factor)


def _by_draw(
    weight: np.ndarray,
    coefficient: np.ndarray,
    size: np.ndarray,
    width: np.ndarray | None = None,
    nu: np.ndarray | None = None,
) -> ByDraw:
    """Components under some draws, those that parts of a table's rows are taken from; none of a single one."""
    if len(weight) == 1:
        return ByDraw.none()
    some = thinned(len(weight))
    width = np.zeros((len(weight), 0)) if width is None else width
    rule = (np.ones((len(some), 1)),) * 2 if nu is None else normal_rule(nu[some])
    return ByDraw(weight[some], coefficient[some], size[some], width[some], *rule)


def _class(weight: np.ndarray, coefficient: np.ndarray, matches: list[Match], **rest: Any) -> CellClass:
    line, between, parameter = quadratic_moments(weight, coefficient)
    return CellClass(line, between, parameter, matches=matches, **rest)


def _of_corrected(mixture: CorrectedMixture, probes: Probes, rows: np.ndarray, moved: np.ndarray) -> CellClass | None:
    found = [piece for piece in mixture.pieces() if np.isin(rows, piece[0]).all()]
    if not found or mixture.widths is None or mixture.point is None:
        return None
    (_, (present, kind, new)), draws, widths = found[0], mixture.draws, mixture.widths
    whole = np.concatenate([mixture.design[rows], mixture.offset[rows][:, :, None]], axis=2)[:, present]
    step = np.concatenate([probes.step, np.ones(len(probes.columns))])
    designs = [_linear(whole[:, c], step, moved) for c in range(len(present))]
    points = _linear(mixture.point[rows][:, np.isfinite(mixture.point[rows[0]])], step, moved)
    if points is None or any(one is None for one in designs):
        return None
    left, opening = mixture.left[rows[0], present], None
    if mixture.spread is not None:
        opening, left = _opening(mixture, present, rows, step, moved), np.ones(len(present))
    elif not np.allclose(mixture.left[rows][:, present], left, rtol=1e-12, atol=0.0):
        return None
    share, widening = mixture.share(present, kind), mixture.widening(present, kind, new)
    coefficient = np.concatenate([draws.coefficient[:, present], np.ones((len(draws), len(present), 1))], axis=2)
    matches, split = [], []
    in_numbers = np.empty((*share.shape, len(step) + 1))
    for c, (member, design) in enumerate(zip(present, designs, strict=True)):
        assert design is not None
        base = draws.sigma[:, member] ** 2
        matches.append(
            component_match(share[:, c], coefficient[:, c], base, widening[:, c], draws.width).through(design)
        )
        in_numbers[:, c] = coefficient[:, c] @ design
        split.append(nodes(share[:, c], draws.width, draws.normals))
    by_draw = None
    if mixture.spread is not None:
        if opening is None:
            return None
        matches, by_draw = [_at_a_point(m, mixture.unsure) for m in matches], ByDraw.none()
    elif probes.transform != "identity":
        size = draws.sigma[:, present] ** 2 * (widening + left)
        by_draw = _by_draw(share, in_numbers, size, draws.width, draws.nu)
    exact = by_draw is None  # otherwise all moments follow from the components
    within = _within(mixture, widths, rows[0], (present, kind, new)) if exact else Polynomial.constant(0.0)
    if within is None:
        return None
    return _class(share, in_numbers, matches, within=within, point=points, left=left, shares=[one[0] for one in split],
                  nodes=[one[1] for one in split], unsure=width_covariance(draws.width),
                  fixed=draws.normals is not None, by_draw=by_draw, opening=opening,
                  gain=_gain(draws) if probes.transform == "identity" else 1.0)  # fmt: skip


def _opening(
    mixture: CorrectedMixture, present: np.ndarray, rows: np.ndarray, step: np.ndarray, moved: np.ndarray
) -> np.ndarray | None:
    """Quadratic forms (component, number, number) of one and what a point leaves open; None if they are not."""
    assert mixture.spread is not None and mixture.unsure is not None
    spread, x = mixture.spread(rows)[:, present], np.column_stack([np.ones(len(rows)), mixture.x[rows]])
    wide = np.exp(2.0 * np.einsum("ri,ij,rj->r", x, mixture.unsure, x))
    rest = (1.0 + mixture.left[rows][:, present]) / wide[:, None] - np.square(spread).sum(axis=2)
    forms = [_linear(spread[:, c], step, moved) for c in range(len(present))]
    if not np.allclose(rest, rest[0], rtol=LINEAR, atol=0.0):
        return None
    out = []
    for form, constant in zip(forms, rest[0], strict=True):
        if form is None:
            return None
        out.append(form.T @ form)
        out[-1][0, 0] += constant
    return np.array(out)


def _at_a_point(found: Match, unsure: np.ndarray | None) -> Match:
    """A component whose second term is one and what a point leaves open: of its mean, by a form, and of its width, here."""
    assert unsure is not None
    (one,) = found.bins
    size, tilt, spread = (a.copy() for a in (one.size, one.tilt, one.tilt_spread))
    size[0] -= size[1]
    size[1] *= np.exp(2.0 * unsure[0, 0])
    tilt[1] += 2.0 * unsure[0, 1:]
    spread[1] += unsure[1:, 1:]
    return Match(found.forms, (replace(one, size=size, tilt=tilt, tilt_spread=spread),))


def _gain(draws: CorrectedDraws) -> float:
    """Variance of a t over that of the normals that make it up; of fits at one point."""
    if draws.nu is None or draws.normals is None:
        return 1.0
    share, variance = draws.normals
    return float((draws.nu / (draws.nu - 2.0)).mean() / (share @ variance))


def _within(mixture: CorrectedMixture, widths: Widths, row: int, piece: tuple[Any, ...]) -> Polynomial | None:
    """Logarithm of the kernels' mean variance as a polynomial of the widths' covariates."""

    def exact(x: np.ndarray) -> np.ndarray:
        return np.log(mixture.within(x, np.broadcast_to(mixture.left[row], (len(x), mixture.left.shape[1])), *piece))

    count = len(widths.names)
    if not count or len(mixture.draws) == 1:  # linear
        constant = exact(np.zeros((1, count)))
        order = np.arange(count, dtype=np.int64)
        slope = 2.0 * mixture.draws.width[0] if count else np.zeros(0)
        return Polynomial(np.zeros(1 + count, dtype=np.int64), np.append(0, order), np.append(constant, slope))
    low, high = np.minimum(widths.low, 0.0), np.maximum(widths.high, 0.0)  # zero where one is not known
    return Polynomial.through(exact, low, high)


def _linear(values: np.ndarray, step: np.ndarray, moved: np.ndarray) -> np.ndarray | None:
    """Coefficients (column, 1 + number) of columns that are linear in the numbers, from the probe rows; None if they are not."""
    out = np.zeros((values.shape[1], 1 + len(step)))
    out[:, 0] = values[0]
    out[:, 1 + moved] = ((values[1:-1] - values[0]) / step[moved][:, None]).T
    last = values[0] + (0.3 + 0.4 / (1.0 + np.arange(len(moved)))) @ (values[1:-1] - values[0])
    size = np.abs(values).max(initial=1.0)
    return out if np.allclose(last, values[-1], rtol=0.0, atol=LINEAR * size) else None
