"""What models that combine members by regression refuse in their training rows, or warn of."""

from __future__ import annotations

import numpy as np

from bayesens.ensemble.checks import degenerate
from bayesens.ensemble.collinear import affine_copies, rounding
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows
from bayesens.likelihoods.em import least_squares, residual_sds
from bayesens.likelihoods.row_checks import check_ties, warn_memorised, warn_outliers, within_widths
from bayesens.messages import listed, warn

__all__ = [
    "at_zero",
    "best_residual",
    "check_residuals",
    "complete_rows",
    "refuse_exact",
    "warn_copies",
    "warn_incomplete",
]


def complete_rows(rows: Rows, ensemble: Ensemble, model: str) -> Rows:
    """Return training rows, all of which have all members; refuse others in the name of a model."""
    if rows.available.all():
        return rows
    counts = (~rows.available).sum(axis=0)
    named = [f"{name!r} in {count}" for name, count in zip(ensemble.members, counts, strict=True) if count]
    raise ValueError(
        f"{model} regresses on all members, and {int((~rows.available).any(axis=1).sum())} of {len(rows.y)} training rows "
        f"lack some: {', '.join(named)}. Leave out member_moments=(), and missing members are filled in; or leave out these "
        "rows or members with ensemble.select(...)."
    )


def warn_incomplete(rows: Rows, ensemble: Ensemble) -> None:
    """Warn of rows that have some members but not all, and no prediction from a model that regresses on all of them."""
    some = rows.available.any(axis=1) & ~rows.available.all(axis=1)
    if some.any():
        names = [name for name, missing in zip(ensemble.members, ~rows.available[some].all(axis=0)) if missing]
        warn(f"{int(some.sum())} of {len(some)} rows lack some member ({listed(names)}), and the model regresses on all of "
             "them: their predictions are NaN. Fit again without member_moments=(), and they are filled in.")  # fmt: skip


def warn_copies(ensemble: Ensemble, rows: Rows, bias: str = "linear") -> None:
    """Warn of members that are exact copies of each other up to the bias correction in the training rows."""
    values = np.where(rows.available, rows.f, np.nan)
    used = ensemble if len(rows.index) == ensemble.n_obs else ensemble.select(rows=rows.index)
    for one, other in affine_copies(used, values):
        difference = values[:, ensemble.members.index(one)] - values[:, ensemble.members.index(other)]
        apart = np.nanmax(np.abs(difference - (np.nanmean(difference) if bias == "additive" else 0.0)))
        if bias == "linear" or apart <= _nothing(rows):
            warn(f"Members {one!r} and {other!r} are exact copies of each other up to the bias correction in the "
                 f"{len(rows.y)} training rows: only the prior tells their weights apart. Leave one out.")  # fmt: skip


def best_residual(rows: Rows, members: tuple[str, ...], bias: str) -> float:
    """Residual standard deviation of the best member after its bias correction; none may be zero."""
    residual = residual_sds(rows.y, rows.f, rows.available, bias=bias, cluster=np.arange(len(members)))
    best = int(np.argmin(residual))
    if residual[best] <= _nothing(rows):
        raise ValueError(degenerate(members[best], int(rows.available[:, best].sum()), "bias correction"))
    return float(residual[best])


def _nothing(rows: Rows) -> float:
    """Size of residuals that are rounding and nothing else, be the values near zero or far from it."""
    return float(1e-10 * np.std(rows.y) + rounding(rows.y[:, None])[0] + np.max(rounding(rows.f)))


def refuse_exact(rows: Rows, members: tuple[str, ...]) -> None:
    """Refuse members of which one, or all together, reproduce the observation: sigma would have no lower bound."""
    best_residual(rows, members, "linear")
    whole = rows.available.all(axis=1)
    if whole.sum() > len(members) + 1:
        y, f = rows.y[whole] - rows.y[whole].mean(), rows.f[whole] - rows.f[whole].mean(axis=0)
        design = np.column_stack([np.ones(len(y)), f])
        residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        if np.std(residual) <= _nothing(rows):
            rest = "" if whole.all() else " that have all members"
            raise ValueError(f"A linear combination of the members reproduces the observation exactly in all {len(y)} training "
                             f"rows{rest}: the truth has leaked into them; predict each row by a model that has not seen it "
                             "(scikit-learn's cross_val_predict).")  # fmt: skip


def at_zero(rows: Rows, transform: str) -> np.ndarray:
    """Rows whose observation stands for all that lies below: zeros under the square root."""
    return rows.y == 0.0 if transform == "sqrt" else np.zeros(len(rows.y), dtype=bool)


def check_residuals(
    rows: Rows, members: tuple[str, ...], bias: str, transform: str, x: np.ndarray | None = None
) -> None:
    """Refuse or warn of ties with the observations, of members that have seen these, and of residuals that are far out.

    Ties are counted before the correction, which is fitted together with sigma and can bring ties about; rows at which the
    likelihood is censored are left out. Where widths follow covariates ``x`` (row, covariate), residuals that are far out only
    because those of their row's width are, large errors of large values, are not told of.
    """
    use = ~at_zero(rows, transform)
    y, f, available = rows.y[use], rows.f[use], rows.available[use]
    check_ties(y, f, available, members)
    some = available.any(axis=0)
    names = [name for name, there in zip(members, some, strict=True) if there]
    f, available = f[:, some], available[:, some]
    intercept, slope = least_squares(y, f, available, bias=bias, cluster=np.arange(len(names)))
    corrected = intercept + slope * f
    explained = None
    if x is not None and x.shape[1] and len(names):
        explained = within_widths(np.where(available, y[:, None] - corrected, 0.0), available, x[use])
    warn_outliers(y, corrected, available, names, explained=explained)
    warn_memorised(y, corrected, available, names)
