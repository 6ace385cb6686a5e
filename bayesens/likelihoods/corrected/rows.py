"""Rows of a table brought to a fit's corrections: what its mixture says of them.

From the fit come the draws and, from the training rows, its history: the smoothed columns at every known site and group, with
which a row's fit is linear in the coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows, codes, flat
from bayesens.likelihoods.corrected.own_correction import Recipe, covariate_columns, design_of, hidden_mean
from bayesens.likelihoods.corrected.pool import open_shares
from bayesens.likelihoods.corrected.predictive import CorrectedDraws, CorrectedMixture
from bayesens.likelihoods.corrected.row_weights.fields import weight_columns
from bayesens.likelihoods.corrected.row_weights.mixture import weighted_by_row
from bayesens.likelihoods.corrected.widths import Widths
from bayesens.likelihoods.spread.own_sds import OwnSds, own_squares

TINY = 1e-300
__all__ = ["pooled", "predicted_rows", "training_rows_of"]


@dataclass(frozen=True, eq=False)
class _Placed:
    """Rows with the design of every member about its place's smoothed columns.

    Attributes
    ----------
    design : array (row, member, column)
    offset, left : array (row, member)
    new : bool array (row, level)
    """

    design: np.ndarray
    offset: np.ndarray
    left: np.ndarray
    new: np.ndarray


def predicted_rows(
    recipe: Recipe, posterior: xr.Dataset, history: xr.Dataset, ensemble: Ensemble, rows: Rows, weight: np.ndarray,
    kind: np.ndarray,
) -> CorrectedMixture:  # fmt: skip
    """Predictive distribution of rows, known sites by their smoothed values and new ones by draws.

    Parameters
    ----------
    recipe : Recipe
    posterior : Dataset
    history : Dataset
        Of the fit, from `posterior.history`.
    ensemble : Ensemble
    rows : Rows
        All of its rows, on the scale of the transform.
    weight : array (draw, class, member)
    kind : int array (row)
        Class of each row's weights.

    Returns
    -------
    CorrectedMixture
    """
    levels = [level for level in ("site", "group") if getattr(recipe, level) is not None]
    placed = _placed(recipe, history, ensemble, rows, posterior, levels)
    draw = {
        str(n): flat(posterior[n]) for n in posterior.data_vars if not str(n).endswith(("offset_site", "offset_group"))
    }
    # In units of the residual, which of rows of all widths is another one than in a row of typical width.
    sd = [draw[f"offset_{level}_sd"] / draw["residual_sd"] * history["even_sd"].values for level in levels]
    new = np.stack(sd, axis=2) if sd else np.zeros((*draw["residual_sd"].shape, 0))
    alike = history["effects_alike"].values[[("site", "group").index(level) for level in levels]]
    coefficient = _coefficients(recipe, draw, history)
    point = placed.offset + np.einsum("rkc,kc->rk", placed.design, history["point"].values)
    spread, unsure = None, None
    available = rows.available & np.isfinite(placed.design).all(axis=2)
    widths = Widths.from_dataset(history)
    x = widths.at(point, available, ensemble, rows.index)
    left = placed.left + _own_widening(recipe, history, ensemble, rows, x)
    if len(coefficient) == 1:
        # A fit at one point has no draws: what is open of coefficients and widths widens the kernels.
        unsure, root = history["width_covariance"].values, history["root"].values

        def spread(some: Any) -> np.ndarray:
            return np.einsum("rkc,kcd->rkd", placed.design[some], root)

        design = np.column_stack([np.ones(len(x)), x])
        wide = np.exp(2.0 * np.einsum("ri,ij,rj->r", design, unsure, design))
        left = (1.0 + left + np.square(spread(slice(None))).sum(axis=2)) * wide[:, None] - 1.0
    width = draw.get("scale_slope", np.zeros((len(weight), 0)))
    draws = CorrectedDraws(weight, draw["sigma"], width, coefficient, new, alike, draw.get("nu"))
    found = CorrectedMixture(draws, placed.design, placed.offset, left, placed.new, x, available, kind,
                             np.where(available, point, np.nan), widths, spread, unsure)  # fmt: skip
    return _with_weights(found, posterior, history, recipe, (point, available, ensemble, rows.index))


def training_rows_of(
    recipe: Recipe, posterior: xr.Dataset, history: xr.Dataset, ensemble: Ensemble, rows: Rows, censored: np.ndarray,
    weight: np.ndarray, kind: np.ndarray,
) -> CorrectedMixture:  # fmt: skip
    """Distribution of training rows under each draw of the mixture, given their corrections by all other rows.

    Parameters
    ----------
    recipe, posterior, history, ensemble, rows, weight, kind
        As in `predicted_rows`; these rows have been fitted.
    censored : bool array (row)
        Observations that stand for all values below them.

    Returns
    -------
    CorrectedMixture
    """
    levels = [level for level in ("site", "group") if getattr(recipe, level) is not None]
    placed = _placed(recipe, history, ensemble, rows, posterior, levels)
    fit = placed.offset + np.einsum("rkc,kc->rk", placed.design, history["point"].values)
    spread = np.einsum("rkc,kcd->rkd", placed.design, history["root"].values)
    variance = placed.left + np.square(spread).sum(axis=2)
    family = np.equal.outer(history["family"].values, history["family"].values).astype(float)
    there = rows.available.astype(float)
    count = np.maximum(there @ family, 1.0)
    leverage = np.minimum((there * variance) @ family / count, 1.0 - 1e-9)
    seen = np.broadcast_to(rows.y[:, None], fit.shape).copy()
    seen[censored] = hidden_mean(seen[censored], fit[censored], np.sqrt(history["tau2"].values))[0]
    corrected = seen - (seen - fit) / (1.0 - leverage)
    x = Widths.from_dataset(history).at(corrected, rows.available, ensemble, rows.index)
    draw = {name: flat(posterior[name]) for name in ("sigma", "scale_slope", "nu") if name in posterior}
    size, k = len(draw["sigma"]), rows.f.shape[1]
    left = leverage / (1.0 - leverage) + _own_widening(recipe, history, ensemble, rows, x)
    draws = CorrectedDraws(weight, draw["sigma"], draw.get("scale_slope", np.zeros((size, 0))), np.zeros((size, k, 0)),
                           np.zeros((size, k, 0)), np.ones((0, k, k)), draw.get("nu"))  # fmt: skip
    n = len(rows.y)
    found = CorrectedMixture(draws, np.zeros((n, k, 0)), corrected, left, np.zeros((n, 0), dtype=bool),
                             x, rows.available, kind)  # fmt: skip
    return _with_weights(found, posterior, history, recipe, (corrected, rows.available, ensemble, rows.index))


def _with_weights(
    mixture: CorrectedMixture, posterior: xr.Dataset, history: xr.Dataset, recipe: Recipe, seen: tuple[Any, ...]
) -> CorrectedMixture:
    """The mixture with the weights that rows have by their covariates, where they follow any."""
    if "weight_slope" not in posterior:
        return mixture
    z = weight_columns(Widths.from_dataset(history, "weight"), recipe.field, seen)
    return weighted_by_row(mixture, posterior, z)


def pooled(mixture: CorrectedMixture, standing: np.ndarray, stretch: np.ndarray, center: float) -> CorrectedMixture:
    """One kernel a draw around the weighted mean of the members, in place of a mixture of kernels around each.

    Its coefficients are those of the members times their weights. These depend on which members a row has, and so every
    pattern of members is a component here, of which a row has one.

    Parameters
    ----------
    mixture : CorrectedMixture
        With one sigma a draw, (draw), and one class of weights.
    standing : array (member)
        Weights of the members' open shares.
    stretch : array (draw)
        Of the weighted mean about ``center``.
    center : float

    Returns
    -------
    CorrectedMixture
    """
    draws, available = mixture.draws, mixture.available
    n, size = len(available), len(draws)
    patterns, pattern = np.unique(available, axis=0, return_inverse=True)
    share = np.maximum(np.ascontiguousarray(draws.weight), TINY) * patterns  # (draw, pattern, member)
    share = share / np.maximum(share.sum(axis=2, keepdims=True), TINY)
    near = np.where(available, mixture.offset, 0.0).sum(axis=1) / np.maximum(available.sum(axis=1), 1)
    design = np.concatenate([mixture.design, (mixture.offset - near[:, None])[:, :, None]], axis=2)
    design = np.where(available[:, :, None], design, 0.0).reshape(n, -1)
    design = np.column_stack([design, near - center])  # which the last coefficient stretches by what is more than one
    coefficient = np.concatenate([draws.coefficient, np.ones((*draws.coefficient.shape[:2], 1))], axis=2)
    whole = ((stretch[:, None, None] * share)[:, :, :, None] * coefficient[:, None]).reshape(size, len(patterns), -1)
    more = np.broadcast_to((stretch - 1.0)[:, None, None], (*whole.shape[:2], 1))
    whole = np.concatenate([whole, more], axis=2)
    weighted = share[:, :, :, None] * draws.new[:, None]
    together = np.einsum("spkl,lkj,spjl->spl", weighted, draws.alike, weighted, optimize=True)
    new = stretch[:, None, None] * np.sqrt(np.maximum(together, 0.0))
    sigma = np.broadcast_to(draws.sigma[:, None], (size, len(patterns)))
    one = np.ones((new.shape[2], len(patterns), len(patterns)))
    own = CorrectedDraws(np.ones((size, 1, len(patterns))), sigma, draws.width, whole, new, one, draws.nu)
    left = open_shares(mixture.left, available, standing)

    def alike(values: np.ndarray) -> np.ndarray:
        return np.broadcast_to(values[:, None], (n, len(patterns), *values.shape[1:]))

    def spread(some: Any) -> np.ndarray:
        assert mixture.spread is not None
        weight = np.where(available[some], standing, 0.0)
        root = np.sqrt(weight / np.maximum(weight.sum(axis=1, keepdims=True), TINY))
        own = np.where(available[some][:, :, None], mixture.spread(some), 0.0) * root[:, :, None]
        return np.broadcast_to(own.reshape(len(own), 1, -1), (len(own), len(patterns), own[0].size))

    there = np.equal.outer(pattern.ravel(), np.arange(len(patterns))) & available.any(axis=1)[:, None]
    return CorrectedMixture(
        own,
        alike(design),
        alike(near),
        alike(left),
        mixture.new,
        mixture.x,
        there,
        mixture.kind,
        mixture.point,
        mixture.widths,
        None if mixture.spread is None else spread,
        mixture.unsure,
    )


def _placed(
    recipe: Recipe, history: xr.Dataset, ensemble: Ensemble, rows: Rows, posterior: xr.Dataset, levels: list[str]
) -> _Placed:
    n, k = rows.f.shape
    code = {}
    for level in levels:
        labels = ensemble.labels(level)
        code[level] = codes(None if labels is None else labels[rows.index], posterior[level].values, n)
    place = code.get("site", code.get("group", np.zeros(n, dtype=int)))
    group = np.full(n, -1)
    if "group" in code:
        group = np.where(place >= 0, history["site_group"].values[place], code["group"])
    known = place >= 0
    smooth = np.where(known[:, None, None], history["smooth_site"].values[place], history["smooth_group"].values[group])
    left = np.where(known[:, None], history["open_site"].values[place], history["open_group"].values[group])
    new = np.stack([code[level] < 0 if level == "site" else group < 0 for level in levels], axis=1) if levels else np.zeros(
        (n, 0), dtype=bool)  # fmt: skip
    x = covariate_columns(recipe.covariates, ensemble, rows.index)
    x = (x - history["covariate_center"].values) / history["covariate_size"].values
    center, block = history["member_center"].values, history["block"].values
    design = np.zeros((n, k, history.sizes["design"]))
    offset = np.empty((n, k))
    for j in range(k):
        narrow = design_of(recipe, rows.f[:, j] - center[j], x)
        design[:, j, block[j] * narrow.shape[1] : (block[j] + 1) * narrow.shape[1]] = narrow
        offset[:, j] = recipe.center if recipe.bias == "linear" else rows.f[:, j]
    return _Placed(design - smooth[:, :, :-1], offset + smooth[:, :, -1], left, new)


def _own_widening(recipe: Recipe, history: xr.Dataset, ensemble: Ensemble, rows: Rows, x: np.ndarray) -> np.ndarray:
    """What own standard deviations add to members' variances, in units of that of a typical row, (row, member)."""
    squares = own_squares(recipe.own, recipe.transform, ensemble, rows.index)
    return OwnSds.from_dataset(history).at(squares, x) - 1.0


def _coefficients(recipe: Recipe, draw: dict[str, np.ndarray], history: xr.Dataset) -> np.ndarray:
    """Coefficients of each member's design, which has those of its whole family, (draw, member, column)."""
    center, c = history["member_center"].values, recipe.center
    size, k = draw["residual_sd"].shape
    own: list[np.ndarray] = []
    if recipe.bias == "linear":
        own = [-draw["bias"] - draw["slope"] * (c - center), draw["slope"]]
    elif recipe.bias == "additive":
        own = [-draw["bias"]]
    if recipe.covariates:
        own += list(np.moveaxis(draw["covariate_slope"] * history["covariate_size"].values, 2, 0))
    narrow = np.stack(own, axis=2) if own else np.zeros((size, k, 0))
    block, family = history["block"].values, history["family"].values
    out = np.zeros((size, k, history.sizes["design"]))
    for j in range(k):
        for other in np.flatnonzero(family == family[j]):
            columns = slice(block[other] * narrow.shape[2], (block[other] + 1) * narrow.shape[2])
            out[:, j, columns] = narrow[:, other]
    return out
