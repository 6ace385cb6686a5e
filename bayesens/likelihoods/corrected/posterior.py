"""Posterior of the corrections of all members: its draws, its point, and what predictions take from the training rows."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bayesens.likelihoods.corrected.correction import Coefficients, Correction, Sums, correct
from bayesens.likelihoods.corrected.own_correction import (
    CorrectedTable,
    Recipe,
    covariate_columns,
    design_of,
    places_of,
)

__all__ = ["drawn_correction", "history", "point_correction"]


def drawn_correction(table: CorrectedTable, recipe: Recipe, chains: int, draws: int, rng: np.random.Generator, *,
                     effects: bool) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:  # fmt: skip
    """Draw every correction; as variables of a posterior.

    Parameters
    ----------
    table : CorrectedTable
    recipe : Recipe
    chains, draws : int
    rng : numpy.random.Generator
    effects : bool
        Whether the effects of known sites and groups are drawn too.
    """
    size, k = chains * draws, table.n_members
    out: dict[str, np.ndarray] = {
        "residual_sd": np.empty((size, k)),
        "coefficient": np.zeros((size, k, recipe.columns)),
    }
    for level in table.levels:
        out[f"offset_{level}_sd"] = np.empty((size, k))
        if effects:
            out[f"offset_{level}"] = np.empty((size, len(table.levels[level]), k))
    for family in table.families:
        found = family.correction.draws(size, rng)
        drawn = dict(zip(("site", "group"), family.correction.effects(found, rng), strict=True)) if effects else {}
        for member, block in zip(family.members, family.block, strict=True):
            out["residual_sd"][:, member] = found.tau
            columns = slice(block * recipe.columns, (block + 1) * recipe.columns)
            out["coefficient"][:, member] = found.coefficient[:, columns]
            for level in table.levels:
                out[f"offset_{level}_sd"][:, member] = getattr(found, level) * found.tau
                if effects:
                    out[f"offset_{level}"][:, :, member] = drawn[level]
    return named_correction(table, recipe, out, (chains, draws))


def point_correction(table: CorrectedTable, recipe: Recipe) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """The same at the posterior means given the typical ratios, as one draw."""
    k = table.n_members
    out: dict[str, np.ndarray] = {"residual_sd": np.empty((1, k)), "coefficient": np.zeros((1, k, recipe.columns))}
    for level in table.levels:
        out[f"offset_{level}_sd"] = np.empty((1, k))
        out[f"offset_{level}"] = np.empty((1, len(table.levels[level]), k))
    for family in table.families:
        c = family.correction
        tau = np.sqrt(c.tau2)
        contrast = np.append(-c.coefficient, 1.0)
        at_group, at_site = c.places.group[:-1] @ contrast, c.places.site[:-1] @ contrast
        effect = {"group": at_group, "site": at_site - at_group[table.site_group]}
        for member, block in zip(family.members, family.block, strict=True):
            out["residual_sd"][:, member] = tau
            out["coefficient"][:, member] = c.coefficient[block * recipe.columns : (block + 1) * recipe.columns]
            for level, ratio in zip(("site", "group"), c.at, strict=True):
                if level in table.levels:
                    out[f"offset_{level}_sd"][:, member] = ratio * tau
                    out[f"offset_{level}"][:, :, member] = effect[level]
    return named_correction(table, recipe, out, (1, 1))


def named_correction(
    table: CorrectedTable, recipe: Recipe, out: dict[str, np.ndarray], shape: tuple[int, int]
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Bias and slope about the common centre, in the units of the data."""
    coefficient, c = out.pop("coefficient"), recipe.center
    columns = list(coefficient.transpose(2, 0, 1))
    level = columns.pop(0) if recipe.bias != "none" else np.zeros(coefficient.shape[:2])
    own = {}
    if recipe.bias == "linear":
        slope = columns.pop(0)
        own = {"bias": -level - slope * (c - table.member_center), "slope": slope}
    elif recipe.bias == "additive":
        own = {"bias": -level}
    if columns:
        out["covariate_slope"] = np.stack(columns, axis=-1) / table.covariate_size
    out |= own
    dims = {"offset_site": ("site", "member"), "offset_group": ("group", "member"),
            "covariate_slope": ("member", "bias_covariate")}  # fmt: skip
    return {name: (("chain", "draw", *dims.get(name, ("member",))), values.reshape(*shape, *values.shape[1:]))
            for name, values in out.items()}  # fmt: skip


def _width_covariance(table: CorrectedTable) -> np.ndarray:
    """Covariance of (log sigma, widths' coefficients) that the rows leave open, by their expected information."""
    x = np.column_stack([np.ones(len(table.mixture.x)), table.mixture.x])
    information = 2.0 * x.T @ x + np.diag(np.r_[0.0, np.full(x.shape[1] - 1, 10.0)])
    return np.asarray(np.linalg.inv(information))


def _effects_alike(table: CorrectedTable, recipe: Recipe) -> np.ndarray:
    """Correlations of members' effects of a site, and of a group, (level, member, member).

    Members of one family have the same effects, and all pairs of others one correlation. It follows from the standard deviation
    of the effects that the members' plain mean has, whose correction is that of any member.
    """
    family = np.empty(table.n_members, dtype=int)
    for number, own in enumerate(table.families):
        family[own.members] = number
    same = np.equal.outer(family, family)
    out = np.ones((2, *same.shape))
    if same.all() or not table.levels:
        return out
    found = _correction_of_mean(table, recipe)
    for level in range(2):
        sd = np.array([table.families[f].correction.effect_sd[level] for f in family]) / table.n_members
        products = np.outer(sd, sd)
        apart = products[~same].sum()
        rest = found.effect_sd[level] ** 2 - products[same].sum()
        out[level][~same] = np.clip(rest / apart, 0.0, 1.0) if apart > 0.0 else 1.0
    return out


def _correction_of_mean(table: CorrectedTable, recipe: Recipe) -> Correction:
    """Mixed model of what the mean of all members, each at its own coefficients and without effects, leaves of the rows."""
    _, site, site_group = places_of(recipe, table.ensemble, table.rows)
    there, fit = table.rows.available, np.zeros_like(table.rows.f)
    x = covariate_columns(recipe.covariates, table.ensemble, table.rows.index)
    x = (x - table.covariate_center) / table.covariate_size
    for own in table.families:
        for member, block in zip(own.members, own.block, strict=True):
            f = table.rows.f[:, member]
            design = design_of(recipe, f - table.member_center[member], x)
            some = own.correction.coefficient[block * recipe.columns : (block + 1) * recipe.columns]
            fit[:, member] = design @ some + (recipe.center if recipe.bias == "linear" else f)
    rest = table.rows.y - np.where(there, fit, 0.0).sum(axis=1) / there.sum(axis=1)
    sums = Sums.of(np.column_stack([np.ones_like(rest), rest]), np.ones_like(rest), site, site_group,
                   int(site_group.max()) + 1)  # fmt: skip
    level = Coefficients(np.zeros(1), np.array([recipe.level[1] * recipe.unit]), recipe.size)
    return correct(sums, level, site=recipe.site, group=recipe.group)


def history(table: CorrectedTable, recipe: Recipe) -> xr.Dataset:
    """What predictions take from the training rows: smoothed columns at every place, and the widths' scales."""
    k = table.n_members
    width = max(f.correction.sums.gram.shape[0] for f in table.families)
    sites, groups = len(table.site_group) + 1, table.families[0].correction.sums.groups + 1
    smooth_site, smooth_group = np.zeros((sites, k, width)), np.zeros((groups, k, width))
    open_site, open_group = np.zeros((sites, k)), np.zeros((groups, k))
    point, root = np.zeros((k, width - 1)), np.zeros((k, width - 1, width - 1))
    block, tau2, share = np.zeros(k, dtype=int), np.zeros(k), np.zeros(k, dtype=int)
    for number, family in enumerate(table.families):
        c = family.correction
        for member, own in zip(family.members, family.block, strict=True):
            p = len(c.coefficient)
            smooth_site[:, member, :p], smooth_site[:, member, -1] = c.places.site[:, :-1], c.places.site[:, -1]
            smooth_group[:, member, :p], smooth_group[:, member, -1] = c.places.group[:, :-1], c.places.group[:, -1]
            open_site[:, member], open_group[:, member] = c.places.site_open, c.places.group_open
            point[member, :p], root[member, :p, :p] = c.coefficient, c.given.root[0]
            block[member], tau2[member], share[member] = own, c.tau2, number
    out = xr.Dataset(
        {
            "smooth_site": (("place", "member", "column"), smooth_site),
            "smooth_group": (("place_group", "member", "column"), smooth_group),
            "open_site": (("place", "member"), open_site), "open_group": (("place_group", "member"), open_group),
            "point": (("member", "design"), point), "root": (("member", "design", "design_"), root),
            "block": ("member", block), "family": ("member", share), "tau2": ("member", tau2),
            "even_sd": ("member", table.even_sd),
            "effects_alike": (("effect_level", "member", "member_"), _effects_alike(table, recipe)),
            "member_center": ("member", table.member_center),
            "covariate_center": ("bias_covariate", table.covariate_center),
            "covariate_size": ("bias_covariate", table.covariate_size),
            "site_group": ("known_place", table.site_group),
            "width_covariance": (("width_design", "width_design_"), _width_covariance(table)),
        },
        {"member": np.array(table.members)},
    )  # fmt: skip
    tilts = table.tilts.to_dataset("weight") if table.tilts.names else xr.Dataset()
    return out.merge(table.widths.to_dataset()).merge(table.own.to_dataset()).merge(tilts)
