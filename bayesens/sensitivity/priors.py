"""Grids of priors: what other priors do to weights, to predictions held out, and to the difference from another model."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from bayesens.comparison.compare import compare
from bayesens.comparison.folds.runs import FAILURES
from bayesens.comparison.options import HeldOutOptions, takes
from bayesens.comparison.tables import paired_differences
from bayesens.console import progress
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.convergence import IMPORTANCE_ESS, RHAT
from bayesens.inference.fit import fit
from bayesens.inference.fit_tree import check_given, model_of
from bayesens.inference.sampling.psis import good_k
from bayesens.likelihoods.priors import Prior
from bayesens.members.members import Members
from bayesens.messages import check_known
from bayesens.sensitivity.power import importance_weights, smoothed_log_weights, weighted_moments
from bayesens.tables.missing_codes import NONE

__all__ = ["prior_grid", "usual_grid"]

BASE, AGAINST = "base", "against"
SCORES = ("crps", "log_score", "coverage90", "width90")
FACTORS = (0.25, 0.5, 2.0, 4.0)  # of standard deviations of effects


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
        ``folds``, ``blocks``, ``gap``, ``method``, ``draws``, ``inner_folds``, ``random_seed``, ``n_jobs``, ``workers``,
        ``cache`` and ``progressbar``, as in `compare`.

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
    points = _points(model, usual_grid(model) if grid is None else grid, table.n_members, full=full)
    out = xr.Dataset({name: ("point", [getattr(one, name) for one in points]) for name in ("option", "value")},
                     {"point": [one.label for one in points]})  # fmt: skip
    held_out = None
    if estimand is not None:
        models = {one.label: one.model for one in points} | ({AGAINST: against} if against is not None else {})
        held_out = compare(models, data, estimand=estimand, part="priors", likelihood_power=likelihood_power, **options)
        paired: dict[str, Any] = {"replicates": replicates, "block": block, "level": level,
                                  "random_seed": options["random_seed"]}  # fmt: skip
        out = out.assign(_scores(held_out, out["point"].values.tolist(), paired))
    rows = table if held_out is None or not isinstance(data, Members) else _rows(held_out, table)
    fits: dict[str, Any] = {name: options[name] for name in ("method", "draws", "random_seed")}
    fits["likelihood_power"] = likelihood_power
    out = out.assign(_posteriors(points, rows, fits, reweight, options["progressbar"]))
    failed = json.loads(held_out.attrs["failed"]) if held_out is not None else {}
    why = [
        failed.get(label) or own
        for label, own in zip(out["point"].values.tolist(), out["failed"].values.tolist(), strict=True)
    ]
    out["failed"] = "point", np.array(why)
    out.attrs |= {"model": type(model).__name__, "against": "" if against is None else type(against).__name__,
                  "estimand": estimand or "", "level": level, "likelihood_power": likelihood_power,
                  "full": int(full)}  # fmt: skip
    return out


def _rows(held_out: xr.Dataset, table: Ensemble) -> Ensemble:
    """Members as the models were given them on rows held out."""
    made = xr.Dataset({"prediction": held_out["member_prediction"], "observation": held_out["observation"]})
    labels = {name: held_out[name] for name in ("site", "group", "time", "lon", "lat") if name in held_out.coords}
    made = made.drop_vars([name for name in made.coords if name != "member"]).assign_coords(labels)
    roles: dict[str, Any] = {name: name for name in ("observation", *labels)}
    if table.covariates:
        made["covariate"] = table.dataset["covariate"][held_out["obs"].values].drop_vars(list(labels))
    return Ensemble.from_dataset(made, covariates=table.covariates, units=table.units or None, missing=NONE, **roles)


# -------------------------------------------------------------------------------------------------------------- the grid
@dataclass(frozen=True)
class _Point:
    label: str
    option: str
    value: str
    model: Any
    changes: Mapping[str, Any]


def usual_grid(model: Any) -> dict[str, list[Any]]:
    """The priors that are worth trying: concentrations of weights and correlations, scales of all standard deviations.

    Parameters
    ----------
    model : BMA, HBM or another model
        Options of levels that it does not have are left out.

    Returns
    -------
    dict of option to list of value

    Examples
    --------
    >>> from bayesens import BMA
    >>> list(usual_grid(BMA(bias="additive", sigma="shared")))
    ['level_prior', 'site_ratio_prior', 'group_ratio_prior', 'scale_slope_prior', 'weight_prior', 'sigma_prior']
    """
    grid: dict[str, list[Any]] = {}
    for item in dataclasses.fields(model):
        value, name = getattr(model, item.name), item.name
        if not _in_use(model, name):
            continue
        if name == "weight_prior":
            grid[name] = [Prior("Dirichlet", a=a) for a in (0.1, 0.5, 1.0, 2.0, 10.0)]
        elif name == "correlation_prior":
            grid[name] = [Prior("LKJCorr", eta=eta) for eta in (1.0, 2.0, 4.0, 20.0)]
        elif name == "common_prior":
            grid[name] = [Prior("Beta", alpha=a, beta=a) for a in (1.0, 2.0, 5.0)]
        elif name == "nu_prior":
            grid[name] = [Prior("Gamma", alpha=2, beta=beta) for beta in (0.03, 0.1, 0.3)]
        elif name == "sigma_spread" and isinstance(value, float | int):
            grid[name] = [value * factor for factor in FACTORS]
        elif isinstance(value, Prior) and "sigma" in dict(value.parameters):
            wide = name.endswith("_sd_prior") and name != "error_sd_prior"
            factors = FACTORS if wide or name == "sigma_spread" else (0.5, 2.0)
            grid[name] = [_widened(value, factor) for factor in factors]
    return {name: [v for v in values if v != getattr(model, name)] for name, values in grid.items()}


def _widened(prior: Prior, factor: float) -> Prior:
    parameters = dict(prior.parameters)
    return Prior(prior.family, **(parameters | {"sigma": factor * parameters["sigma"]}))  # type: ignore[operator]


def _in_use(model: Any, name: str) -> bool:
    """Whether an option has a part in the model as its other options stand."""
    own, free = getattr(model, "correction", "joint") == "own", getattr(model, "weights", "free") == "free"
    regression = hasattr(model, "weights") and free  # a linear pool that has a regression in place of weights
    part = {
        "weight_prior": getattr(model, "weights", "global") not in ("equal", "group", "free"),
        "bias_prior": getattr(model, "bias", "") != "none" and not own and not regression,
        "slope_prior": getattr(model, "bias", "linear") == "linear" and not own and not regression,
        "stretch_prior": getattr(model, "bias", "") == "linear" and own,
        "intercept_prior": free, "coefficient_prior": free,
        "level_prior": getattr(model, "bias", "") != "none" and own, "gain_prior": getattr(model, "bias", "") == "linear" and own,
        "covariate_prior": bool(getattr(model, "bias_covariates", ())) and own, "site_ratio_prior": own, "group_ratio_prior": own,
        "site_sd_prior": not own, "group_sd_prior": not own,
        "scale_slope_prior": getattr(model, "scale", ()) != () and (own or not hasattr(model, "correction")),
        "sigma_spread": getattr(model, "sigma", "member") == "member",
        "nu_prior": getattr(model, "kernel", "normal") == "student_t",
        "weight_logit_prior": getattr(model, "weights", "") == "group",
        "weight_spread_prior": getattr(model, "weights", "") == "group",
        "common_prior": getattr(model, "errors", "factor") == "factor",
        "correlation_prior": getattr(model, "errors", "factor") != "independent",
    }  # fmt: skip
    level = next((level for level in ("group", "site") if f"{level}_" in name), None)
    return part.get(name, True) and (level is None or getattr(model, level, True) is not False)


def _points(model: Any, grid: Mapping[str, Sequence[Any]], members: int, *, full: bool) -> list[_Point]:
    """The base and all other points, every value checked."""
    name = type(model).__name__
    known = [item.name for item in dataclasses.fields(model)]
    check_known(grid, known, kind="option", where=name)
    if not grid:
        raise ValueError("the grid is empty; wanted options and their values, such as {'sigma_spread': [0.1, 1.0]}")
    for option, values in grid.items():
        if isinstance(values, str | Prior) or not hasattr(values, "__iter__"):
            raise TypeError(f"grid[{option!r}] is {values!r}; wanted a list of values, even of one")
        for value in values:
            _check_value(model, option, value, members)
    combinations = (
        [dict(zip(grid, values, strict=True)) for values in product(*grid.values())] if full
        else [{option: value} for option, values in grid.items() for value in values]
    )  # fmt: skip
    points = {BASE: _Point(BASE, "", "", model, {})}
    for some in combinations:
        changes = {option: value for option, value in some.items() if value != getattr(model, option)}
        texts = [f"{option} = {_text(value)}" for option, value in changes.items()]
        if changes:
            label = ", ".join(texts)
            own = ", ".join(changes), ", ".join(_text(value) for value in changes.values())
            points[label] = _Point(label, *own, replace(model, **changes), changes)
    if len(points) == 1:
        raise ValueError("every value of the grid is the model's own; wanted others")
    return list(points.values())


def _text(value: Any) -> str:
    if isinstance(value, Prior):
        return f"{value.family}({', '.join(f'{key}={_text(number)}' for key, number in value.parameters)})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# What must hold of the parameters of PyMC's distributions, and where a variable with each of them can lie.
_FREE = {("Cauchy", "alpha"), ("SkewNormal", "alpha"), ("Gumbel", "mu"), ("Moyal", "mu")}
_ABOVE_ZERO = {"sigma", "tau", "nu", "b", "beta", "alpha", "lam", "a", "eta", "s", "kappa", "m"}
_SUPPORT = {
    "positive": {"HalfNormal", "HalfStudentT", "HalfCauchy", "LogNormal", "Gamma", "Exponential", "InverseGamma", "Weibull",
                 "ChiSquared", "Pareto", "Wald", "Rice"},
    "unit": {"Beta", "Kumaraswamy", "LogitNormal"}, "simplex": {"Dirichlet"}, "correlation": {"LKJCorr"},
    "real": {"Normal", "Laplace", "Logistic", "Cauchy", "StudentT", "Gumbel", "SkewNormal", "Moyal", "Flat"},
}  # fmt: skip
_WANTED = {"positive": ({"positive", "unit"}, "positive"), "unit": ({"unit"}, "between 0 and 1"),
           "simplex": ({"simplex"}, "on the simplex: a Dirichlet"), "correlation": ({"correlation"}, "a correlation: an LKJCorr"),
           "real": ({"real", "positive", "unit"}, "a number")}  # fmt: skip


def _check_value(model: Any, option: str, value: Any, members: int) -> None:
    """Refuse a value that the model cannot take, naming the option, the value and why."""
    what = f"{type(model).__name__}({option}={value!r})"
    try:
        replace(model, **{option: value})
    except (ValueError, TypeError) as error:
        raise type(error)(f"the grid holds an impossible value: {error}") from None
    if not isinstance(value, Prior):
        return
    for name, number in value.parameters:
        least = np.min(number)
        if name in _ABOVE_ZERO and (value.family, name) not in _FREE and not least > 0.0:
            raise ValueError(f"{what}: {name} is {least:g}, and must be above zero")
    given = dict(value.parameters)
    if "lower" in given and "upper" in given and not given["lower"] < given["upper"]:  # type: ignore[operator]
        raise ValueError(f"{what}: lower is {given['lower']:g}, and must be below upper, {given['upper']:g}")
    found = _support(value)
    wanted, words = _WANTED[_kind(option)]
    if found is not None and found not in wanted:
        raise ValueError(f"{what}: {option.removesuffix('_prior')} must be {words}, and {value.family} is not")
    count = np.size(given["a"]) if value.family == "Dirichlet" and "a" in given else 1
    if count not in (1, members):
        raise ValueError(f"{what}: a has {count} numbers, and there are {members} members")


def _support(prior: Prior) -> str | None:
    """Where a variable can lie; None of a family that this file does not know, which PyMC then judges."""
    if prior.family in ("Uniform", "TruncatedNormal"):
        given = {"lower": 0.0 if prior.family == "Uniform" else -math.inf} | dict(prior.parameters)
        return "positive" if given["lower"] >= 0.0 else "real"  # type: ignore[operator]
    return next((kind for kind, families in _SUPPORT.items() if prior.family in families), None)


def _kind(option: str) -> str:
    special = {"weight_prior": "simplex", "correlation_prior": "correlation", "common_prior": "unit"}
    if option in special:
        return special[option]
    return "positive" if option.endswith(("sd_prior", "sigma_prior", "spread", "spread_prior")) else "real"


# ------------------------------------------------------------------------------------------------------ rows held out
def _scores(rows: xr.Dataset, labels: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """Mean scores of every point, their changes from the base, and the difference from the other model."""
    there = rows["model"].values.tolist()
    if BASE not in there:
        why = json.loads(rows.attrs["failed"]).get(BASE, "")
        raise ValueError(f"the base of the grid failed, and nothing can be compared with it: {why}")
    if "site" not in rows.coords:
        options = options | {"replicates": 0}
    own = [label for label in there if label != AGAINST]
    means = {name: rows[name].mean("obs").to_series() for name in SCORES}
    out: dict[str, Any] = {name: ("point", means[name].reindex(labels).to_numpy()) for name in SCORES}
    changes = _paired(rows.sel(model=own), BASE, options) if len(own) > 1 else pd.DataFrame()
    for name in SCORES:
        for end, column in (("", "difference"), ("_low", "low"), ("_high", "high")):
            found = (
                changes[changes["metric"] == name].set_index("model")[column]
                if len(changes)
                else pd.Series(dtype=float)
            )
            out[f"{name}_change{end}"] = "point", found.reindex(labels).fillna({BASE: 0.0}).to_numpy(float)
    out["interval"] = (), str(changes["interval"].iloc[0]) if len(changes) else "none: no other point"
    if AGAINST in there:
        other = _paired(rows, AGAINST, options)
        crps = other[other["metric"] == "crps"].set_index("model").reindex(labels)
        for end, column in (("", "difference"), ("_low", "low"), ("_high", "high")):
            out[f"difference{end}"] = "point", crps[column].to_numpy(float)
            ratio = means["crps"][BASE] / means["crps"][AGAINST]
            out[f"difference_change{end}"] = "point", ratio * out[f"crps_change{end}"][1]
    return out


def _paired(rows: xr.Dataset, reference: str, options: dict[str, Any]) -> pd.DataFrame:
    table = paired_differences(rows, reference, **options)
    return table[table["group"] == "all"]


# ------------------------------------------------------------------------------------------ the posterior given all rows
def _posteriors(
    points: list[_Point], rows: Ensemble, fits: dict[str, Any], reweight: bool, progressbar: bool
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


def _reweighted(tree: xr.DataTree, point: _Point) -> tuple[xr.DataArray | None, float]:
    """Moments by the draws of the base, and Pareto k; None where these do not bear them out, or the ratio is not known."""
    log_ratio = _log_ratio(tree, point.changes)
    if log_ratio is None or not np.isfinite(log_ratio.values).all():
        return None, np.nan
    k = smoothed_log_weights(log_ratio.values)[1]
    if not k <= good_k(log_ratio.size):
        return None, k
    weight = importance_weights(log_ratio)
    # Draws of Laplace's method are worth no more than the proposals that they were drawn from.
    worth = min(1.0, float(tree.attrs.get("importance_ess", np.inf)) / weight.size)
    if weight.attrs["ess"] * worth < IMPORTANCE_ESS:
        return None, k
    return _moments(tree, weight), k


def _log_ratio(tree: xr.DataTree, changes: Mapping[str, Any]) -> xr.DataArray | None:
    """Log of the ratio of the new priors' densities to the base's at every draw, up to a constant; None if it is not known."""
    model, posterior = model_of(tree), tree["posterior"].to_dataset()
    total = xr.zeros_like(posterior["chain"] * posterior["draw"], dtype=float)
    for option, new in changes.items():
        parts = _variables(model, option, tree)
        old = getattr(model, option)
        if parts is None or not isinstance(new, Prior) or not isinstance(old, Prior):
            return None
        for values in parts:
            densities = [_log_density(prior, values.values) for prior in (new, old)]
            if densities[0] is None or densities[1] is None:
                return None
            total = total + _summed(values, densities[0] - densities[1])
    return total


def _summed(values: xr.DataArray, log_density: np.ndarray) -> xr.DataArray:
    axes = tuple(range(2, log_density.ndim))
    return xr.DataArray(log_density.sum(axis=axes), {d: values[d].values for d in ("chain", "draw")}, ("chain", "draw"))


def _variables(model: Any, option: str, tree: xr.DataTree) -> list[xr.DataArray] | None:
    """The variables that an option is the prior of, in its units; None where it is not known which, or there are none."""
    posterior, top = tree["posterior"].to_dataset(), tree["log_prior"].to_dataset()
    prefixes = ("residual", "bias_site", "bias_group")
    if option == "correlation_prior":
        found = [name for name in prefixes if f"{name}_rest" in top]
        return [_rest(posterior, name) for name in found] or None
    if option == "common_prior":
        names = [f"{name}_common" for name in prefixes]
    else:
        special = {"sigma_prior": "sigma_mean", "group_sd_prior": "offset_group_sd", "site_sd_prior": "offset_site_sd",
                   "nu_prior": "nu_above_two"}  # fmt: skip
        names = [special.get(option, option.removesuffix("_prior"))]
        names += (
            [f"{names[0]}_mean"] if hasattr(model, option.replace("_prior", "_rest_prior")) else []
        )  # common to members
    found = [name for name in names if name in top and name in posterior]
    if not found:
        return None
    unit = 1.0 if option.startswith(("slope", "scale_slope", "weight", "common", "nu")) else model.unit
    unit = model.sigma_scale if option == "sigma_prior" else unit
    shift = model.center if option in ("truth_mean_prior", "mean_prior") else 0.0
    return [(posterior[name].transpose("chain", "draw", ...) - shift) / unit for name in found]


def _rest(posterior: xr.Dataset, name: str) -> xr.DataArray:
    """The correlation matrix without its common factor."""
    whole = posterior[f"{name}_corr"].transpose("chain", "draw", ...)
    if f"{name}_common" not in posterior:
        return whole
    common = posterior[f"{name}_common"]
    return ((whole - common) / (1.0 - common)).transpose("chain", "draw", ...)


def _log_density(prior: Prior, x: np.ndarray) -> np.ndarray | None:
    """Log density of the priors that grids are made of, up to a constant, (chain, draw, ...); None of any other."""
    p = {key: np.asarray(value) for key, value in prior.parameters}
    known = {"Normal": {"mu", "sigma"}, "HalfNormal": {"sigma"}, "LogNormal": {"mu", "sigma"}, "Beta": {"alpha", "beta"},
             "Dirichlet": {"a"}, "LKJCorr": {"eta"}}  # fmt: skip
    if set(p) != known.get(prior.family):
        return None
    if prior.family == "Normal":
        return np.asarray(stats.norm.logpdf(x, p["mu"], p["sigma"]))
    if prior.family == "HalfNormal":
        return np.asarray(stats.halfnorm.logpdf(x, scale=p["sigma"]))
    if prior.family == "LogNormal":
        return np.asarray(stats.lognorm.logpdf(x, p["sigma"], scale=np.exp(p["mu"])))
    if prior.family == "Beta":
        return np.asarray(stats.beta.logpdf(x, p["alpha"], p["beta"]))
    if prior.family == "Dirichlet":
        return np.asarray((p["a"] - 1.0) * np.log(x))
    return np.asarray((p["eta"] - 1.0) * np.linalg.slogdet(x)[1])


# --------------------------------------------------------------------------------------------------------------- to read
