"""What EMOS makes of its options and of its training rows: what they lack, what its widths follow, the scales of its priors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows, training_rows
from bayesens.likelihoods.corrected.widths import Widths, width_names
from bayesens.likelihoods.missing_members import Filled, JointMembers, check_moments, fill_in
from bayesens.likelihoods.options import check_options, filled
from bayesens.likelihoods.row_checks import resolution
from bayesens.likelihoods.training_checks import best_residual, complete_rows

__all__ = ["check_spread_options", "resolved", "spread_rows", "width_covariates"]

FLOOR = 1e-3  # of the best member's residuals: what sigma is at least


def check_spread_options(model: Any) -> None:
    """Refuse what the regression cannot have."""
    check_options(model)
    check_moments(model)
    scale = model.scale
    if scale is None:
        raise TypeError("EMOS(scale=...) is a sequence of names, such as ('mean', 'season'); got None. Write () for a width "
                        "that follows the members' spread alone.")  # fmt: skip
    if "spread" in scale:
        raise ValueError(f"EMOS(scale=...) names 'mean', 'season' or columns of the table; got {scale!r}. Leave 'spread' "
                         "out: the variance has it already, by spread^2 s_i^2.")  # fmt: skip
    if model.widths is not None and (have := [line[0] for line in model.widths]) != list(width_names(scale)):
        raise ValueError(f"EMOS(widths=...) standardises {have}, and scale={scale!r} has the columns "
                         f"{list(width_names(scale))}; leave widths out, and the training rows give it.")  # fmt: skip
    if model.sigma_floor == 0.0:  # which a mixture may have
        raise ValueError(f"EMOS(sigma_floor=...) must be positive; got {model.sigma_floor!r}.")


def spread_rows(model: Any, ensemble: Ensemble) -> Rows:
    """Return the training rows; where the model does not fill in what they lack they have all members."""
    if ensemble.n_members < 2:
        raise ValueError(f"EMOS takes its variance from how the members differ, and the ensemble has only "
                         f"{ensemble.members[0]!r}; use SingleMember.")  # fmt: skip
    rows = training_rows(ensemble, model.transform, need_member=True)
    return complete_rows(rows, ensemble, "EMOS") if model.needs_all_members else rows


def width_covariates(model: Any, rows: Rows, filled: Filled, ensemble: Ensemble) -> np.ndarray:
    """What the widths of a resolved model follow, (row, covariate): the mean is that of all members, as they are filled in."""
    assert model.widths is not None or not model.scale
    return Widths.from_tuples(model.widths or ()).at(filled.f, filled.everywhere, ensemble, rows.index)


def resolved(model: Any, ensemble: Ensemble) -> Any:
    """Return the model with its centre, scales and widths filled in from the training rows."""
    given = model.center, model.unit, model.sigma_scale, model.spread_scale, model.sigma_floor, model.widths
    if None not in (*given, model.member_moments):
        return model
    rows = spread_rows(model, ensemble)
    if model.member_moments is None:
        model = replace(model, member_moments=JointMembers.of(rows).to_tuples())
    whole = fill_in(model, rows)
    spread = model.spread_scale or float(np.sqrt(np.mean(whole.spread)))
    if not spread > 1e-10 * np.std(rows.y):
        raise ValueError(
            f"The members agree in all {len(rows.y)} training rows, and EMOS takes its variance from how they differ; "
            "use SingleMember or LinearPool."
        )
    best = model.sigma_scale or best_residual(rows, ensemble.members, "linear")

    def widths() -> tuple[tuple[Any, ...], ...]:
        names, positive = width_names(model.scale), bool(np.all(rows.y >= 0.0))
        return Widths.of(names, whole.f, whole.everywhere, ensemble, rows.index, positive=positive).to_tuples()

    return filled(
        model,
        center=lambda: float(np.mean(rows.y)),
        unit=lambda: float(np.std(rows.y)),
        sigma_scale=lambda: best,
        spread_scale=lambda: spread,
        sigma_floor=lambda: max(resolution(rows.y) / np.sqrt(12.0), FLOOR * best),
        widths=widths,
    )
