"""The fits of several regions as one prediction, weighted; what an estimator refuses is told with its member's name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["MemberError", "blended", "checked", "named"]


class MemberError(RuntimeError):
    """A member could not be fitted or predicted; the text names it, the fold and the region."""


def blended(
    fits: Mapping[str, Any],
    member: str,
    X: pd.DataFrame,
    weight: NDArray[np.float64],
    regions: tuple[str, ...],
    fold: str,
) -> NDArray[np.float64]:
    """Predictions of the regions' fits, weighted; NaN in rows without any covariate."""
    from bayesens.members.fast.forms import quick

    bare = X.isna().to_numpy().all(axis=1)
    found = np.where(bare, np.nan, 0.0)
    for k, region in enumerate([*regions, ""]):
        rows = np.flatnonzero((weight[:, k] > 0) & ~bare)
        if len(rows):
            some = X if len(rows) == len(X) else X.iloc[rows]
            with named(member, fold, region, X):
                found[rows] += weight[rows, k] * checked(
                    quick(fits[region], X.shape[1], len(rows)).predict(some), len(rows)
                )
    return found


def checked(values: Any, n_rows: int) -> NDArray[np.float64]:
    """Return what an estimator predicted as one finite number a row."""
    prediction = np.asarray(values, dtype=np.float64)
    if prediction.shape not in {(n_rows,), (n_rows, 1)}:
        raise ValueError(f"predict returned the shape {prediction.shape}; wanted ({n_rows},)")
    if not np.isfinite(prediction).all():
        raise ValueError(
            f"predict returned {int((~np.isfinite(prediction)).sum())} values of {n_rows} that are not finite"
        )
    return prediction.reshape(n_rows)


@contextmanager
def named(member: str, fold: str, region: str, X: pd.DataFrame) -> Iterator[None]:
    """Say of an estimator's error which member, fold and region it came from."""
    try:
        yield
    except Exception as error:
        where = ", ".join([fold or "the fit to all rows", *([f"region {region!r}"] if region else [])])
        hint = ""
        if isinstance(error, ValueError) and "NaN" in str(error) and X.isna().to_numpy().any():
            hint = (
                "; covariates are missing: put sklearn.impute.SimpleImputer(add_indicator=True) before it in a pipeline"
            )
        text = f"member {member!r} failed in {where} ({len(X)} rows): {type(error).__name__}: {error}{hint}"
        raise MemberError(text) from error
