"""All members of a table corrected, each by its own mixed model, and the rows that a mixture around them takes.

Members of one family share a correction's effects and variances: those of an exchangeable set, which share the coefficients
too, or all members where the effects are common to them. A row has one line in a family for each member that it has, and these
lines together count as one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows, level_rows
from bayesens.likelihoods.corrected.correction import (
    Coefficients,
    Correction,
    LogPrior,
    Sums,
    correct,
    given_ratios,
    places,
)
from bayesens.likelihoods.corrected.row_weights.fields import weight_columns
from bayesens.likelihoods.corrected.widths import Widths, check_varies, column_of, width_names
from bayesens.likelihoods.row_checks import evened
from bayesens.likelihoods.spread.own_sds import OwnSds, learnt, own_squares

if TYPE_CHECKING:
    from bayesens.likelihoods.corrected.mixture import CorrectedRows

__all__ = ["CorrectedTable", "Family", "Recipe", "corrected_table", "covariate_columns", "design_of", "places_of"]

CENSORED_STEPS = 40  # of expectation-maximisation for observations that are only known to lie below a value


@dataclass(frozen=True)
class Recipe:
    """What a model asks of the correction.

    Attributes
    ----------
    bias : {"linear", "additive", "none"}
    covariates : tuple of str
        Columns of the regressions beside the member.
    scale : tuple of str
        What the widths follow.
    common : bool
        Whether effects are common to all members.
    cluster : int array (member)
        Exchangeable set of each member.
    center, unit, size : float
        Origin and standard deviation of the observations, residual standard deviation of the best member.
    level, gain, covariate : tuple of float
        Mean and standard deviation of the priors of level, slope and covariates' coefficients, in standard units.
    site, group : callable or None
        Log prior densities of the ratios; None where there are no such effects.
    own : tuple of (str, str)
        Members that bring a standard deviation of their own, and its column.
    transform : str
        To the model's scale.
    weights : tuple of str
        What the weights follow.
    field : bool
        Whether that are two coordinates of a smooth field.
    """

    bias: str
    covariates: tuple[str, ...]
    scale: tuple[str, ...]
    common: bool
    cluster: np.ndarray
    center: float
    unit: float
    size: float
    level: tuple[float, float]
    gain: tuple[float, float]
    covariate: tuple[float, float]
    site: LogPrior | None
    group: LogPrior | None
    own: tuple[tuple[str, str], ...] = ()
    transform: str = "identity"
    weights: tuple[str, ...] = ()
    field: bool = False

    @property
    def columns(self) -> int:
        """Columns of one member's design."""
        return {"linear": 2, "additive": 1, "none": 0}[self.bias] + len(self.covariates)


@dataclass(frozen=True, eq=False)
class Family:
    """Members that share a correction.

    Attributes
    ----------
    members : int array (member of the family)
    block : int array (member of the family)
        Which coefficients are its own.
    correction : Correction
    """

    members: np.ndarray
    block: np.ndarray
    correction: Correction


@dataclass(frozen=True, eq=False)
class CorrectedTable:
    """Training rows with their members corrected by fits to all other rows.

    Attributes
    ----------
    model : model
        Resolved.
    ensemble : Ensemble
    rows : Rows
    families : list of Family
    member_center, member_size : array (member)
        Mean and standard deviation of each member.
    covariate_center, covariate_size : array (column)
    levels : dict of str to str array
        Labels of the levels in use.
    site_group : int array (site)
    mixture : CorrectedRows
    widths : Widths
    own : OwnSds
        How far members' own standard deviations are believed.
    tilts : Widths
        What the weights follow.
    """

    model: Any
    ensemble: Ensemble
    rows: Rows
    families: list[Family]
    member_center: np.ndarray
    member_size: np.ndarray
    covariate_center: np.ndarray
    covariate_size: np.ndarray
    levels: dict[str, np.ndarray]
    site_group: np.ndarray
    mixture: CorrectedRows
    widths: Widths
    own: OwnSds
    tilts: Widths

    @property
    def members(self) -> tuple[str, ...]:
        """Names."""
        return self.ensemble.members

    @property
    def n_members(self) -> int:
        """Number of members."""
        return self.ensemble.n_members

    @property
    def corrected(self) -> np.ndarray:
        """Members corrected by the fit to all other rows, (row, member)."""
        return self.rows.y[:, None] - self.mixture.residual

    @property
    def even(self) -> np.ndarray:
        """Residuals divided by what a regression of their logarithms makes of the widths' covariates, (row, member)."""
        return evened(self.mixture.residual, self.mixture.available, self.mixture.x)

    @property
    def own_variance(self) -> np.ndarray:
        """Variance of the members' errors by their own standard deviations, in units of a typical row's, (row, member)."""
        return self.own.at(own_squares(self.model.own_sd or (), self.model.transform, self.ensemble, self.rows.index),
                           self.mixture.x)  # fmt: skip

    @property
    def even_sd(self) -> np.ndarray:
        """Standard deviation of each member's errors in a row of typical width."""
        squares = np.where(self.mixture.available, self.even**2 / (1.0 + self.mixture.excess), 0.0)
        return np.asarray(np.sqrt(squares.sum(axis=0) / self.mixture.available.sum(axis=0)))


def hidden_mean(y: np.ndarray, mean: np.ndarray, sd: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and share of variance of a normal below a limit."""
    limit = (y - mean) / sd
    hazard = np.exp(-0.5 * limit**2 - 0.5 * np.log(2.0 * np.pi) - scipy.special.log_ndtr(limit))
    return mean - sd * hazard, np.maximum(1.0 - limit * hazard - hazard**2, 0.0)


def design_of(recipe: Recipe, f: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """Columns of one member's regression beside its own value: level, deviation of the member, covariates."""
    first = {"linear": [np.ones_like(f), f], "additive": [np.ones_like(f)], "none": []}[recipe.bias]
    return np.column_stack([*first, covariates]) if first or covariates.shape[1] else np.zeros((len(f), 0))


def covariate_columns(names: tuple[str, ...], ensemble: Ensemble, index: np.ndarray) -> np.ndarray:
    """Columns of the table as they are, (row, column)."""
    return np.column_stack([column_of(ensemble, name)[index] for name in names]) if names else np.zeros((len(index), 0))


def corrected_table(model: Any, recipe: Recipe, ensemble: Ensemble, rows: Rows, censored: np.ndarray) -> CorrectedTable:
    """Correct all members, and leave each training row out of its own correction.

    Parameters
    ----------
    model : model
        Resolved.
    recipe : Recipe
    ensemble : Ensemble
    rows : Rows
        Its training rows.
    censored : bool array (row)
        Observations that stand for all values below them.

    Returns
    -------
    CorrectedTable
    """
    levels, site, site_group = places_of(recipe, ensemble, rows)
    present = rows.available.sum(axis=0)
    member_center = (rows.f * rows.available).sum(axis=0) / present
    apart = np.where(rows.available, rows.f - member_center, 0.0)
    member_size = np.sqrt(np.square(apart).sum(axis=0) / present)
    for c in np.unique(recipe.cluster):  # members of one set have one regression, and so one origin
        some = recipe.cluster == c
        member_center[some] = (present[some] @ member_center[some]) / present[some].sum()
        member_size[some] = np.sqrt(np.mean(member_size[some] ** 2))
    x = _checked(covariate_columns(recipe.covariates, ensemble, rows.index), recipe.covariates)
    covariate_center, covariate_size = x.mean(axis=0), np.where(x.std(axis=0) > 0.0, x.std(axis=0), 1.0)
    x = (x - covariate_center) / covariate_size
    corrected, excess, families = rows.f.copy(), np.zeros_like(rows.f), []
    sets = [np.arange(rows.f.shape[1])] if recipe.common else [np.flatnonzero(recipe.cluster == c)
                                                              for c in np.unique(recipe.cluster)]  # fmt: skip
    for members in sets:
        lines = _Lines.of(recipe, rows, members, x, member_center, site)
        prior = _prior(recipe, len(np.unique(lines.block)), member_size[members], lines.block_of)
        correction, seen = _fitted(lines, prior, recipe, site, site_group, censored)
        mean, widened = correction.left_out(lines.x, seen, lines.weight, site[lines.row], lines.row)
        corrected[lines.row, lines.member] = mean + lines.shift
        excess[lines.row, lines.member] = widened
        families.append(Family(members, lines.block_of, correction))
    from bayesens.likelihoods.corrected.mixture import CorrectedRows

    at, positive = (corrected, rows.available, ensemble, rows.index), bool(np.all(rows.y >= 0.0))
    widths = Widths.of(width_names(recipe.scale), *at, positive=positive)
    tilts = Widths.of(width_names(recipe.weights), *at, positive=positive, option="weight_covariates")
    residual = np.where(rows.available, rows.y[:, None] - corrected, 0.0)
    followed = weight_columns(tilts, recipe.field, at) if tilts.names and np.ptp(recipe.cluster) else None
    along, there = widths.at(*at), rows.available
    squares = own_squares(recipe.own, recipe.transform, ensemble, rows.index)
    own = learnt(
        squares, residual, excess, there & ~censored[:, None], recipe.cluster, ensemble.members, widths.names, along
    )
    excess = np.where(there, excess + (own.at(squares, along) - 1.0), 0.0)
    mixture = CorrectedRows(residual, excess, along, there, censored, followed)
    return CorrectedTable(model, ensemble, rows, families, member_center, member_size, covariate_center, covariate_size,
                          levels, site_group, mixture, widths, own, tilts)  # fmt: skip


def places_of(recipe: Recipe, ensemble: Ensemble, rows: Rows) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Labels of the levels in use, number of each row's site, and of each site's group.

    Without effects of sites the groups stand in their place, and without any effects there is one place.
    """
    levels: dict[str, np.ndarray] = {}
    code: dict[str, np.ndarray] = {}
    for level, prior in (("group", recipe.group), ("site", recipe.site)):
        if prior is not None:
            levels[level], code[level] = level_rows(ensemble, level, rows.index)
    if "site" in code:
        site_group = np.zeros(len(levels["site"]), dtype=int)
        if "group" in code:
            site_group[code["site"]] = code["group"]
        return levels, code["site"], site_group
    if "group" in code:
        return levels, code["group"], np.arange(len(levels["group"]))
    return levels, np.zeros(len(rows.y), dtype=int), np.zeros(1, dtype=int)


def _checked(x: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    for name, column in zip(names, x.T, strict=True):
        if missing := int((~np.isfinite(column)).sum()):
            raise ValueError(f"Covariate {name!r} is missing in {missing} of {len(column)} training rows, and the correction "
                             "regresses on it; fill it in, drop these rows, or leave it out of bias_covariates.")  # fmt: skip
        check_varies(column, name, "bias_covariates")
    return x


@dataclass(frozen=True, eq=False)
class _Lines:
    """The lines of a family: one for each member that a row has."""

    x: np.ndarray
    y: np.ndarray
    shift: np.ndarray
    weight: np.ndarray
    row: np.ndarray
    member: np.ndarray
    block: np.ndarray
    block_of: np.ndarray

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        rows: Rows,
        members: np.ndarray,
        covariates: np.ndarray,
        center: np.ndarray,
        site: np.ndarray,
    ) -> _Lines:
        row, position = np.nonzero(rows.available[:, members])
        member = members[position]
        own = np.unique(recipe.cluster[members], return_inverse=True)[1].ravel()
        f = rows.f[row, member] - center[member]
        narrow = design_of(recipe, f, covariates[row])
        block, blocks = own[position], int(own.max()) + 1
        x = np.zeros((len(row), blocks * narrow.shape[1]))
        columns = block[:, None] * narrow.shape[1] + np.arange(narrow.shape[1])
        np.put_along_axis(x, columns, narrow, axis=1)
        shift = recipe.center + (0.0 * f if recipe.bias == "linear" else f + center[member] - recipe.center)
        weight = 1.0 / np.bincount(row, minlength=len(rows.y))[row]
        return cls(x, rows.y[row] - shift, shift, weight, row, member, block, own)


def _prior(recipe: Recipe, blocks: int, size: np.ndarray, block_of: np.ndarray) -> Coefficients:
    """Priors of the coefficients in the units of the data."""
    mean: list[float] = []
    sd: list[float] = []
    for b in range(blocks):
        own = float(size[block_of == b][0])
        own = own if own > 0.0 else 1.0
        if recipe.bias != "none":
            mean, sd = [*mean, recipe.level[0] * recipe.unit], [*sd, recipe.level[1] * recipe.unit]
        if recipe.bias == "linear":
            mean, sd = [*mean, recipe.gain[0] * recipe.unit / own], [*sd, recipe.gain[1] * recipe.unit / own]
        mean += [recipe.covariate[0] * recipe.unit] * len(recipe.covariates)
        sd += [recipe.covariate[1] * recipe.unit] * len(recipe.covariates)
    return Coefficients(np.array(mean), np.array(sd), recipe.size)


def _fitted(lines: _Lines, prior: Coefficients, recipe: Recipe, site: np.ndarray, site_group: np.ndarray,
            censored: np.ndarray) -> tuple[Correction, np.ndarray]:  # fmt: skip
    """The correction, and the lines' observations, of which censored ones have their expected values.

    Expectation-maximisation: a censored observation is replaced by its mean below the limit, and what is open of it is added to
    the squares. The posterior that comes with it takes these as if they had been seen, and is a little too sharp.
    """
    hidden, at, n = censored[lines.row], site[lines.row], float(np.count_nonzero(np.bincount(lines.row)))
    groups = int(site_group.max()) + 1

    def summed(y: np.ndarray, open_squares: float) -> Sums:
        sums = Sums.of(np.column_stack([lines.x, y]), lines.weight, at, site_group, groups, n)
        sums.gram[-1, -1] += open_squares
        return sums

    found = correct(summed(lines.y, 0.0), prior, site=recipe.site, group=recipe.group)
    if not hidden.any():
        return found, lines.y
    y = lines.y.copy()
    for step in range(CENSORED_STEPS):
        smooth = found.places.site[at[hidden]]
        mean = found.fitted(lines.x[hidden], smooth, np.zeros(int(hidden.sum())))[0]
        y[hidden], left = hidden_mean(lines.y[hidden], mean, np.sqrt(found.tau2))
        sums = summed(y, found.tau2 * float(lines.weight[hidden] @ left))
        if step % 10 == 9:
            found = correct(sums, prior, site=recipe.site, group=recipe.group)
        else:
            given = given_ratios(sums, prior, np.array(found.at[:1]), np.array(found.at[1:]))
            found = replace(found, sums=sums, given=given, places=places(sums, *found.at))
    return found, y
