"""loo: leave-one-out cross-validation of a fit to any number of rows, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesens.arithmetic import plain_arithmetic
from bayesens.console import progress
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.arguments import check_fitted_call
from bayesens.inference.fit_tree import (
    check_given,
    check_training_rows,
    history_of,
    model_of,
    on_model_scale,
    training_mixture,
)
from bayesens.inference.sampling.psis import LEAST_TAIL, good_k, leave_one_out, tail_length
from bayesens.messages import warn

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData

__all__ = ["loo"]


@dataclass(frozen=True)
class _Fitted:
    """A model with its draws and the rows it was fitted to; `index` has their positions in the table."""

    model: Any
    history: xr.Dataset | None
    posterior: xr.Dataset
    rows: Ensemble
    index: np.ndarray
    power: float = 1.0  # that the likelihood of the posterior was raised to

    @property
    def draws(self) -> int:
        return int(self.posterior.sizes["chain"] * self.posterior.sizes["draw"])

    def mixture(self, posterior: xr.Dataset, rows: Ensemble) -> Any:
        """The density of training rows under each draw, its effects as they were drawn."""
        return training_mixture(self.model, posterior, rows, self.history)


@plain_arithmetic
def loo(
    tree: xr.DataTree,
    ensemble: Ensemble,
    *,
    memory: float = 256e6,
    subsample: int | None = None,
    random_seed: int | None = None,
    progressbar: bool = True,
    model: Any = None,
) -> ELPDData:
    """Estimate how well each row is predicted by a fit to all others, without fitting again (PSIS-LOO).

    The same numbers as :func:`arviz.loo` on a stored log likelihood, which needs an array (row, draw) several times over;
    here some rows at a time are computed from the posterior. Rows are treated as independent given the parameters and the
    drawn effects of sites and groups: what is estimated is the prediction of one more row at a known site, and where rows
    are repeats of each other, such as neighbouring days, the answer is too good and its standard error too small.

    Draws by importance weights (``fit.attrs["method"]`` is "laplace" or "importance") were resampled by them, so they are
    draws of the posterior and this is right for them; ``arviz.loo_approximate_posterior`` would apply these weights a second
    time. Where the weights were uneven some draws stand there many times, and Pareto k is too high, or NaN, in a few rows.

    Parameters
    ----------
    tree : DataTree
        A fit with a posterior.
    ensemble : Ensemble
        The training rows, the same as in the fit.
    memory : float
        Bytes that the arrays (row, draw) of all threads may take together; one row is the least.
        The table, the posterior and results of a few numbers a row come on top.
    subsample : int, optional
        Number of rows, drawn at random, to leave out. The sum over all rows is then their density at the posterior mean,
        corrected by the mean difference over the sample.
    random_seed : int, optional
        For the sample. Models are compared on the same rows if given the same seed.
    progressbar : bool
        Show the progress.
    model : optional
        The model object, if it is one of your own.

    Returns
    -------
    arviz_stats.ELPDDataLOO or ELPDDataLOOSubsample
        As ``arviz.compare`` and the plots take it: ``elpd``, its standard error ``se``, effective number of parameters
        ``p``; ``elpd_i``, ``p_loo_i`` and ``pareto_k`` (obs). The log score of leave-one-out predictions is ``-elpd_i``. A
        subsample has NaN outside the sample, and the standard error of having left out so few in ``subsampling_se``, which
        ``se``, that of having observed so few rows, does not hold. Importance weights are not kept. What a model has to say
        of its leave-one-out densities, its class attribute ``loo_note``, stands in ``elpd_i.attrs["note"]``.

    Raises
    ------
    ValueError
        If the ensemble is not that of the fit, if the fit has no posterior or fewer than 25 draws, or if it has a
        ``likelihood_power`` and effects that were integrated out: these are drawn by the likelihood as it is, and no
        weights of whole draws take a row out of both.

    Warns
    -----
    UserWarning
        If Pareto k is above the value up to which the estimate holds, with the number of rows; if rows have no member and
        the model, which has not used them, needs one: they are left out.

    References
    ----------
    Vehtari, Gelman and Gabry (2017), Statistics and Computing 27, 1413-1432.
    Vehtari, Simpson, Gelman, Yao and Gabry (2024), JMLR 25(72).
    Magnusson, Vehtari, Jonasson and Andersen (2020), AISTATS, PMLR 108, 341-351: the difference estimator.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> import bayesens as be
    >>> y = np.random.default_rng(1).normal(size=50)
    >>> ens = be.Ensemble.from_frame(pd.DataFrame({"a": 0.1 * np.arange(50) % 1, "y": y}), members=["a"], observation="y")
    >>> tree = be.fit(be.Climatology(), ens, random_seed=1, progressbar=False)
    >>> result = be.loo(tree, ens, progressbar=False)
    >>> bool(abs(result.elpd - float(result.elpd_i.sum())) < 1e-9), 1.0 < result.p < 3.0  # a mean and a variance
    (True, True)
    """
    check_fitted_call("loo", tree, ensemble)
    check_given(ensemble, model)
    fitted = _fitted(tree, ensemble, model)
    _check_arguments(memory, subsample, len(fitted.index))
    tail = tail_length(fitted.draws, _relative_efficiency(fitted.posterior))
    sample = np.arange(len(fitted.index))
    if subsample is not None:
        sample = np.random.default_rng(random_seed).choice(len(sample), size=int(subsample), replace=False)
    with progress(len(sample), "Leaving one out", progressbar) as advance:
        each = _left_out(fitted, sample, tail, memory, advance)
    _warn_k(each[:, 1], fitted.draws, str(tree.attrs["method"]))
    return _whole(fitted, each) if subsample is None else _estimated(fitted, each, sample)


def _fitted(tree: xr.DataTree, ensemble: Ensemble, model: Any) -> _Fitted:
    found, power = model_of(tree, model), float(tree.attrs.get("likelihood_power", 1.0))
    if int(tree.attrs.get("point_estimate", 0)):
        raise ValueError(
            f"The fit is one point (method={tree.attrs['method']!r}) and leave-one-out needs draws of a posterior; fit with "
            "method='auto', or score rows that were held out with be.score."
        )
    if power != 1.0 and getattr(found, "needs_history", False):
        raise ValueError(
            f"The fit has likelihood_power={power:g}, and effects of sites or groups that were drawn by the likelihood as it "
            f"is: no weights take a row out of both. Use be.compare(..., likelihood_power={power:g}), which fits again."
        )
    check_training_rows(tree, ensemble)
    keep = ensemble.observed
    if getattr(found, "needs_member", False):
        keep = keep & ensemble.available.any(axis=1)
        if empty := int((ensemble.observed & ~keep).sum()):
            warn(f"{empty} of {int(ensemble.observed.sum())} rows with an observation have no member at all: the fit has not "
                 "used them, and neither has its elpd. Leave them out of all fits that you compare.")  # fmt: skip
    index = np.nonzero(keep)[0]
    out = _Fitted(found, history_of(tree), tree["posterior"].to_dataset(), ensemble.select(rows=index), index, power)
    if out.draws // 5 < LEAST_TAIL:
        raise ValueError(
            f"The fit has {out.draws} draws, and leave-one-out needs at least {5 * LEAST_TAIL} (1000 are better); "
            "fit again with more."
        )
    return out


def _relative_efficiency(posterior: xr.Dataset) -> float:
    """Effective sample size of the parameters' means over the number of draws, as arviz.loo has it; 1 for one chain."""
    if posterior.sizes["chain"] == 1:
        return 1.0
    from arviz_stats.base import array_stats

    ess = [
        np.ravel(array_stats.ess(variable.transpose(..., "chain", "draw").values, method="mean"))
        for variable in posterior.data_vars.values()
    ]
    return float(np.mean(np.concatenate(ess))) / (posterior.sizes["chain"] * posterior.sizes["draw"])


def _left_out(
    fitted: _Fitted, sample: np.ndarray, tail: int, memory: float, advance: Callable[[int], None]
) -> np.ndarray:
    """Log density left out, Pareto k and log density under all draws, (row of the sample, 3)."""
    rows = fitted.rows.select(rows=sample)
    z, below, jacobian = on_model_scale(fitted.model, rows.require_observation())
    out = np.full((len(sample), 3), np.nan)

    def visit(some: np.ndarray, values: np.ndarray) -> None:
        part = np.empty((len(some), 3))
        leave_one_out(values, tail, part, fitted.power)
        out[some] = part
        advance(len(some))

    fitted.mixture(fitted.posterior, rows).by_row(visit, z, below=below, memory=memory)
    out[:, [0, 2]] += jacobian[:, None]
    return out


def _whole(fitted: _Fitted, each: np.ndarray) -> ELPDData:
    from arviz_stats.utils import ELPDDataLOO

    elpd_i, k, lpd = each.T
    return ELPDDataLOO(
        elpd=float(elpd_i.sum()), se=float(np.sqrt(len(elpd_i) * np.var(elpd_i, ddof=1))), p=float((lpd - elpd_i).sum()),
        elpd_i=_on_rows(fitted, elpd_i), p_loo_i=_on_rows(fitted, lpd - elpd_i), **_common(fitted, k, k),
    )  # fmt: skip


def _estimated(fitted: _Fitted, each: np.ndarray, sample: np.ndarray) -> ELPDData:
    """All rows from a sample, by the difference to a density that is known for all rows."""
    from arviz_stats.base import array_stats
    from arviz_stats.utils import ELPDDataLOOSubsample

    elpd_i, k, lpd = each.T
    near = _log_density_at_mean(fitted)
    elpd, subsampling_se, se = array_stats.diff_srs_estimator(elpd_i, near[sample], near, len(near))
    spread = [np.full(len(near), np.nan) for _ in range(3)]
    for array, values in zip(spread, (elpd_i, lpd - elpd_i, k), strict=True):
        array[sample] = values
    return ELPDDataLOOSubsample(
        elpd=float(elpd), se=float(se), p=float(len(near) * np.mean(lpd - elpd_i)), subsampling_se=float(subsampling_se),
        elpd_i=_on_rows(fitted, spread[0]), p_loo_i=_on_rows(fitted, spread[1]), subsample_size=len(sample),
        loo_subsample_observations=sample, elpd_loo_approx=_on_rows(fitted, near), **_common(fitted, k, spread[2]),
    )  # fmt: skip


def _log_density_at_mean(fitted: _Fitted) -> np.ndarray:
    """Log density of all rows at the posterior mean of the parameters and effects."""
    mean = fitted.posterior.mean(("chain", "draw")).expand_dims(chain=[0], draw=[0])
    z, below, jacobian = on_model_scale(fitted.model, fitted.rows.require_observation())
    return fitted.mixture(mean, fitted.rows).log_density(z, below) + jacobian


def _common(fitted: _Fitted, k: np.ndarray, k_of_rows: np.ndarray) -> dict[str, Any]:
    limit = good_k(fitted.draws)
    return {"n_samples": fitted.draws, "n_data_points": len(fitted.index), "scale": "log", "good_k": limit,
            "warning": bool(np.any(~(k <= limit))), "pareto_k": _on_rows(fitted, k_of_rows)}  # fmt: skip


def _on_rows(fitted: _Fitted, values: np.ndarray) -> xr.DataArray:
    note = getattr(fitted.model, "loo_note", "")
    attrs = {"note": note} if note else {}
    return xr.DataArray(values, dims="obs", coords={"obs": fitted.index}, name="y", attrs=attrs)


def _warn_k(k: np.ndarray, draws: int, method: str) -> None:
    limit = good_k(draws)
    if bad := int(np.sum(~(k <= limit))):
        warn(f"Pareto k is above {limit:.2f}, or cannot be fitted, in {bad} of {len(k)} rows: each of them moves the posterior "
             "so much that its density without it is not known, and elpd may be too high. Look at these rows in pareto_k; "
             "fit without them and score them with be.score, or compare models on rows that were held out."
             + (" Draws by importance weights that repeat each other do this too: see whether it stays with method='nuts'."
                if method in ("laplace", "importance") else ""))  # fmt: skip


def _check_arguments(memory: float, subsample: int | None, rows: int) -> None:
    if not memory > 0:
        raise ValueError(f"memory is a number of bytes above zero, such as 256e6; got {memory!r}.")
    if subsample is not None and not (subsample == int(subsample) and 2 <= subsample <= rows):
        raise ValueError(f"subsample is a whole number of rows from 2 to the {rows} of the fit; got {subsample!r}.")
