"""Grids of priors: what other priors do to weights, to predictions held out, and to the difference from another model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr

from bayesens.comparison.compare import compare
from bayesens.comparison.folds.runs import FAILURES
from bayesens.comparison.options import HeldOutOptions, takes
from bayesens.comparison.tables import paired_differences
from bayesens.console import progress
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.convergence import IMPORTANCE_ESS, RHAT
from bayesens.inference.fit import fit
from bayesens.inference.fit_tree import check_given
from bayesens.inference.sampling.psis import good_k
from bayesens.members.members import Members
from bayesens.sensitivity.importance_weights import importance_weights, smoothed_log_weights, weighted_moments
from bayesens.sensitivity.members import members_held_out
from bayesens.sensitivity.prior_points import BASE, Point, points_of, usual_grid
from bayesens.sensitivity.prior_ratios import log_prior_ratio

__all__ = ["prior_grid"]

AGAINST = "against"
ENDS = {"": "difference", "_low": "low", "_high": "high"}  # of `paired_differences`
SCORES = ("crps", "log_score", "coverage90", "width90")


@takes(HeldOutOptions)
def prior_grid(
    model: Any,
    data: Ensemble | Members,
    grid: Mapping[str, Sequence[Any]] | None = None,
    *,
    estimand: str | None = None,
    against: Any = None,
    full: bool = False,
    reweight: bool = True,
    likelihood_power: float = 1.0,
    replicates: int = 2000,
    block: float | None = 30.0,
    level: float = 0.9,
    **options: Unpack[HeldOutOptions],
) -> xr.Dataset:
    """Fit a model under other priors, and say what changes: its weights, its predictions, its difference from another model.

    The whole grid is checked before anything is fitted. The posterior given all rows is that of a fit, or the base fit with
    its draws weighted by the ratio of the two priors' densities where Pareto k and the effective number of draws allow it;
    predictions held out always come from fits.

    Parameters
    ----------
    model : BMA, HBM or another model
        The base: its priors are those that the others are compared with.
    data : Ensemble or Members
        With observations; as `compare` takes it where there is an estimand.
    grid : mapping of option to sequence of value, optional
        Such as ``{"weight_prior": [Prior("Dirichlet", a=a) for a in (0.1, 0.5, 2, 10)]}``; any option of the model. None
        takes `usual_grid`.
    estimand : {"time", "site", "site-time", "group", "row"}, optional
        Of the rows held out, as in `compare`. None: the posterior alone, without scores.
    against : model, optional
        Another model, such as `HBM()` beside `BMA()`, whose difference from the first is followed through the grid.
    full : bool
        All combinations of values. False changes one option at a time.
    reweight : bool
        Let the draws of the base stand for the posterior given all rows where their weights allow it. They know nothing of
        another optimum that these draws never visit, as a mixture may have under tighter priors; False fits every point.
    likelihood_power : float
        Below one where rows share their errors and tell less than their number: priors matter more then.
    replicates, block, level
        Of the intervals, as in `paired_differences`.
    **options
        ``folds``, ``blocks``, ``gap``, ``buffer``, ``map_points``, ``places``, ``method``, ``draws``, ``inner_folds``,
        ``random_seed``, ``n_jobs``, ``workers``, ``cache`` and ``progressbar``, as in `compare`.

    Returns
    -------
    Dataset
        On ``point``, the base first: ``option`` and ``value`` (text); ``how`` the posterior came about: "base", "reweighted",
        "refit" or "failed", with ``pareto_k`` of the weights that were tried, ``failed``, why, and ``warned``. ``weight_mean``
        and ``weight_sd (point, member)`` of the weights, or linear weights, given all rows. With an estimand: mean ``crps``,
        ``log_score``, ``coverage90``, ``width90`` of the rows held out; ``crps_change``, ``log_score_change``,
        ``coverage90_change`` and ``width90_change`` from the base, in percent for CRPS and width, with ``..._low`` and
        ``..._high``. With ``against``: ``difference`` of CRPS from that model in percent, with its interval, and
        ``difference_change`` from the base's; its interval is that of the change of CRPS, on the scale of the difference.

    Raises
    ------
    ValueError, TypeError, KeyError
        Before anything runs, for an option that the model does not have or a value that it cannot take, naming both.

    Examples
    --------
    >>> import bayesens as be
    >>> y = np.array([0.1, 0.4, 0.2, 0.5, 0.3, 0.6])
    >>> frame = pd.DataFrame({"rf": y + [0.01, -0.01, 0.02, 0.0, -0.02, 0.01], "sm": y})
    >>> ensemble = be.Ensemble.from_frame(frame, members=["rf"], observation="sm")
    >>> prior_grid(be.SingleMember(), ensemble, {"bias_prior": [be.Prior("HalfNormal", sigma=-1)]})
    Traceback (most recent call last):
    ...
    ValueError: SingleMember(bias_prior=Prior("HalfNormal", sigma=-1.0)): sigma is -1, and must be above zero
    """
    table = data.untrained() if isinstance(data, Members) else data
    check_given(table, model)
    if isinstance(data, Members) and estimand is None:
        raise ValueError(
            "members that are trained need an estimand, whose folds cross-fit them; or pass be.cross_fit(...)"
        )
    if against is not None and estimand is None:
        raise ValueError("against follows a difference on rows held out; give the estimand, such as estimand='site'")
    points = points_of(model, usual_grid(model) if grid is None else grid, table.n_members, full=full)
    out = xr.Dataset({name: ("point", [getattr(one, name) for one in points]) for name in ("option", "value")},
                     {"point": [one.label for one in points]})  # fmt: skip
    held_out = None
    if estimand is not None:
        models = {one.label: one.model for one in points} | ({AGAINST: against} if against is not None else {})
        held_out = compare(models, data, estimand=estimand, part="priors", likelihood_power=likelihood_power, **options)
        seed = options["random_seed"]
        paired: dict[str, Any] = {"replicates": replicates, "block": block, "level": level, "random_seed": seed}
        out = out.assign(_scores(held_out, out["point"].values.tolist(), paired))
    rows = table
    if held_out is not None and isinstance(data, Members):
        rows = members_held_out(held_out, ["site", "group", "time", "lon", "lat"], table)
    fits: dict[str, Any] = {name: options[name] for name in ("method", "draws", "random_seed")}
    fits["likelihood_power"] = likelihood_power
    out = out.assign(_posteriors(points, rows, fits, reweight, options["progressbar"]))
    failed = json.loads(held_out.attrs["failed"]) if held_out is not None else {}
    own = zip(out["point"].values.tolist(), out["failed"].values.tolist(), strict=True)
    out["failed"] = "point", np.array([failed.get(label) or text for label, text in own])
    out.attrs |= {"model": type(model).__name__, "against": "" if against is None else type(against).__name__,
                  "estimand": estimand or "", "level": level, "likelihood_power": likelihood_power,
                  "full": int(full)}  # fmt: skip
    return out


# ------------------------------------------------------------------------------------------------------ rows held out
def _scores(rows: xr.Dataset, labels: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """Mean scores of every point, their changes from the base, and the difference from the other model."""
    there = rows["model"].values.tolist()
    if BASE not in there:
        why = json.loads(rows.attrs["failed"]).get(BASE, "")
        raise ValueError(f"the base of the grid failed, and nothing can be compared with it: {why}")
    if "site" not in rows.coords:
        options = options | {"replicates": 0}
    points = [label for label in there if label != AGAINST]
    means = {name: rows[name].mean("obs").to_series() for name in SCORES}
    out: dict[str, Any] = {name: ("point", means[name].reindex(labels).to_numpy()) for name in SCORES}
    changes = _paired(rows.sel(model=points), BASE, options) if len(points) > 1 else pd.DataFrame()
    for name, (end, column) in product(SCORES, ENDS.items()):
        own = changes[changes["metric"] == name].set_index("model")[column] if len(changes) else pd.Series(dtype=float)
        out[f"{name}_change{end}"] = "point", own.reindex(labels).fillna({BASE: 0.0}).to_numpy(float)
    out["interval"] = (), str(changes["interval"].iloc[0]) if len(changes) else "none: no other point"
    if AGAINST in there:
        other = _paired(rows, AGAINST, options)
        crps = other[other["metric"] == "crps"].set_index("model").reindex(labels)
        ratio = means["crps"][BASE] / means["crps"][AGAINST]
        for end, column in ENDS.items():
            out[f"difference{end}"] = "point", crps[column].to_numpy(float)
            out[f"difference_change{end}"] = "point", ratio * out[f"crps_change{end}"][1]
    return out


def _paired(rows: xr.Dataset, reference: str, options: dict[str, Any]) -> pd.DataFrame:
    table = paired_differences(rows, reference, **options)
    return table[table["group"] == "all"]


# ------------------------------------------------------------------------------------------ the posterior given all rows
def _posteriors(
    points: list[Point], rows: Ensemble, fits: dict[str, Any], reweight: bool, progressbar: bool
) -> dict[str, Any]:
    base: xr.DataTree | None = None
    lines: list[dict[str, Any]] = []
    with progress(len(points), "Posteriors given all rows", progressbar) as advance:
        for point in points:
            line: dict[str, Any] = {"how": "failed", "pareto_k": np.nan, "failed": "", "warned": "", "moments": None}
            try:
                moments = None
                if base is not None and reweight and _converged(base):
                    moments, line["pareto_k"] = _reweighted(base, point)
                if moments is not None:
                    line |= {"how": "reweighted", "moments": moments}
                else:
                    tree, line["warned"] = _heard_fit(point.model, rows, fits)
                    base = tree if base is None else base
                    line |= {"how": BASE if point.label == BASE else "refit", "moments": _moments(tree, None)}
            except FAILURES as error:
                if point.label == BASE:
                    raise
                line["failed"] = str(error)
            lines.append(line)
            advance()
    out: dict[str, Any] = {
        name: ("point", np.array([line[name] for line in lines])) for name in ("how", "pareto_k", "failed", "warned")
    }
    first = lines[0]["moments"]
    if first is None:
        return out
    for name in ("mean", "sd"):
        empty = np.full(first.sizes["member"], np.nan)
        values = [empty if (m := line["moments"]) is None else m.sel(statistic=name).values for line in lines]
        out[f"weight_{name}"] = xr.DataArray(np.stack(values), {"member": first["member"].values}, ("point", "member"))
    return out


def _heard_fit(model: Any, rows: Ensemble, fits: dict[str, Any]) -> tuple[xr.DataTree, str]:
    """A fit, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        tree = fit(model, rows, log_likelihood=False, progressbar=False, **fits)
    return tree, " ".join(dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning)))


def _converged(tree: xr.DataTree) -> bool:
    """Whether draws are worth reweighting; `fit` has warned where they are not."""
    return not float(tree.attrs.get("rhat_max", 1.0)) > RHAT and int(tree.attrs.get("divergences", 0)) == 0


def _moments(tree: xr.DataTree, weight: xr.DataArray | None) -> xr.DataArray | None:
    """Mean and sd of the weights, (statistic, member); None of a model without any."""
    posterior = tree["posterior"].to_dataset()
    name = next((name for name in ("weight", "linear_weight") if name in posterior), None)
    if name is None:
        return None
    if weight is None:
        weight = xr.full_like(posterior["chain"] * posterior["draw"], 1.0, dtype=float)
        weight = weight / weight.size
    return weighted_moments(posterior[[name]], weight)[name].transpose("statistic", "member")


def _reweighted(tree: xr.DataTree, point: Point) -> tuple[xr.DataArray | None, float]:
    """Moments by the draws of the base, and Pareto k; None where these do not bear them out, or the ratio is not known."""
    log_ratio = log_prior_ratio(tree, point.changes)
    if log_ratio is None or not np.isfinite(log_ratio.values).all():
        return None, np.nan
    k = smoothed_log_weights(log_ratio.values)[1]
    if not k <= good_k(log_ratio.size):
        return None, k
    weight = importance_weights(log_ratio)
    # Draws by importance weights are worth no more than the proposals that they were drawn from; a fit by NUTS tells what an
    # approximation was worth that it did not keep.
    proposals = np.inf if tree.attrs["method"] == "nuts" else float(tree.attrs.get("importance_ess", np.inf))
    worth = min(1.0, proposals / weight.size)
    if weight.attrs["ess"] * worth < IMPORTANCE_ESS:
        return None, k
    return _moments(tree, weight), k
