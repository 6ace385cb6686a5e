"""The points of a grid of priors: which values are worth trying, and whether a model can take them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from bayesens.likelihoods.priors import Prior
from bayesens.messages import check_known

__all__ = ["BASE", "Point", "points_of", "usual_grid"]

BASE = "base"
FACTORS = (0.25, 0.5, 2.0, 4.0)  # of standard deviations of effects
# Priors that are worth trying whatever the model's own: their family and its parameters.
USUAL: dict[str, tuple[str, list[dict[str, float]]]] = {
    "weight_prior": ("Dirichlet", [{"a": a} for a in (0.1, 0.5, 1.0, 2.0, 10.0)]),
    "correlation_prior": ("LKJCorr", [{"eta": eta} for eta in (1.0, 2.0, 4.0, 20.0)]),
    "common_prior": ("Beta", [{"alpha": a, "beta": a} for a in (1.0, 2.0, 5.0)]),
    "nu_prior": ("Gamma", [{"alpha": 2, "beta": beta} for beta in (0.03, 0.1, 0.3)]),
}


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
        if name in USUAL:
            family, parameters = USUAL[name]
            grid[name] = [Prior(family, **each) for each in parameters]
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
        "weight_spread_prior": getattr(model, "weights", "") in ("group", "covariates", "space"),
        "weight_length_prior": getattr(model, "weights", "") == "space",
        "common_prior": getattr(model, "errors", "factor") == "factor",
        "correlation_prior": getattr(model, "errors", "factor") != "independent",
    }  # fmt: skip
    level = next((level for level in ("group", "site") if f"{level}_" in name), None)
    return part.get(name, True) and (level is None or getattr(model, level, True) is not False)


@dataclass(frozen=True)
class Point:
    """A model with some of its priors changed, and how it is called."""

    label: str
    option: str
    value: str
    model: Any
    changes: Mapping[str, Any]


def points_of(model: Any, grid: Mapping[str, Sequence[Any]], members: int, *, full: bool) -> list[Point]:
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
    points = {BASE: Point(BASE, "", "", model, {})}
    for some in combinations:
        changes = {option: value for option, value in some.items() if value != getattr(model, option)}
        texts = [f"{option} = {_text(value)}" for option, value in changes.items()]
        if changes:
            label = ", ".join(texts)
            own = ", ".join(changes), ", ".join(_text(value) for value in changes.values())
            points[label] = Point(label, *own, replace(model, **changes), changes)
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
