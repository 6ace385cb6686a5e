"""The optimum of a model as a posterior of one draw: of models with few parameters and many rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayesens.threads import one_blas_thread

__all__ = ["posterior_point"]


def posterior_point(model: Any, data: Any, *, random_seed: int = 0) -> xr.Dataset:
    """Return the variables of a model where its posterior density is highest on the unconstrained scale.

    Parameters
    ----------
    model : model
        Resolved.
    data : what its ``build`` takes
    random_seed : int
        Of the search, which begins at the priors' own start.

    Returns
    -------
    Dataset
        Without dimensions of chains and draws.

    Raises
    ------
    ValueError
        If the search ends nowhere.
    """
    from bayesens.inference.compiled import lean
    from bayesens.inference.log_density import compile_target
    from bayesens.inference.sampling.optima import find_peaks

    with one_blas_thread():
        with lean():
            built = model.build(data)
        target = compile_target(built)
        peaks = find_peaks(target, start=target.start, starts=0, rng=np.random.default_rng(random_seed))
        if not peaks:
            raise ValueError(
                f"{type(model).__name__} has no optimum on these rows: they are too few, or explained without any noise, as "
                "where one series is a copy of another; give more rows or tighter priors, or leave copies out"
            )
        return target.expand(peaks[0].x[None, None])[0].isel(chain=0, draw=0, drop=True)
