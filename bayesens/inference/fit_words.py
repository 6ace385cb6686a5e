"""What a fit is, in words and tables of text. It loads neither xarray nor pandas, nor the models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesens.inference.convergence import DIVERGING, ESS, IMPORTANCE_ESS, PARETO_K, RHAT
from bayesens.inference.fit_contents import Contents

__all__ = ["Columns", "facts", "parameter_tables"]

Columns = dict[str, list[str]]

TILTED = "Weights where a covariate is one standard deviation below and above its mean, the others at theirs"
FIRST = ("weight", "linear_weight", "bias", "slope", "sigma", "error_sd")


def facts(fit: Contents) -> dict[str, str]:
    """Say in words what a fit is: model, options, data, what ran and whether it converged.

    Parameters
    ----------
    fit : Contents

    Returns
    -------
    dict of str to str

    Examples
    --------
    >>> import bayesens as be, pandas as pd
    >>> from bayesens.inference.fit_contents import contents_of
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> fit = be.fit(be.SingleMember(bias="none", center=3.0, unit=1.0), ens, method="em")
    >>> facts(contents_of(fit))["data"]
    '5 observed rows'
    """
    attrs = fit.attrs
    lines = {
        "model": f"{attrs['bayesens_model']}, written by bayesens {attrs['bayesens_version']}",
        "options": _changed(attrs),
        "data": f"{attrs['n_obs']} observed rows" + (f", in {attrs['units']}" if attrs["units"] else ""),
        "members": ", ".join(json.loads(attrs["bayesens_members"])),
        "own sd": _own_sds(attrs),
        "columns": ", ".join(f"{role} {name}" for role, name in json.loads(attrs["columns"]).items()),
        "method": _method(attrs),
        "converged": _converged(fit),
        "optima": _several(attrs),
        "left out": _left_out(attrs),
        "seconds": f"{attrs['seconds']:.1f}",
    }
    return {name: text for name, text in lines.items() if text}


def _own_sds(attrs: Mapping[Any, Any]) -> str:
    """How much of the variance of members' errors follows standard deviations of their own."""
    options, members = json.loads(attrs["bayesens_options"]), json.loads(attrs["bayesens_members"])
    share = dict(zip(members, attrs.get("own_share", ()), strict=False))
    return ", ".join(
        f"{100 * share[member]:.0f} % of the variance of {member} follows {column}"
        for member, column in options.get("own_sd") or () if member in share
    )  # fmt: skip


def _left_out(attrs: Mapping[Any, Any]) -> str:
    """A note on log likelihoods that a large fit does not hold; nothing else is lost by it."""
    said = str(attrs.get("no_log_likelihood", ""))
    return f"log likelihoods of the rows: {said[0].lower()}{said[1:].partition('. ')[0].rstrip('.')}" if said else ""


def _changed(attrs: Mapping[Any, Any]) -> str:
    """Options that differ from the model's defaults, among them those that the data set."""
    if (told := attrs.get("options_changed")) is not None:
        return str(told)
    from bayesens import models  # a fit of a version that did not say it
    from bayesens.likelihoods.options import changed_words

    return changed_words(getattr(models, attrs["bayesens_model"], None), json.loads(attrs["bayesens_options"]))


def _method(attrs: Mapping[Any, Any]) -> str:
    asked, ran = str(attrs["method_asked"]), str(attrs["method"])
    why = "asked for" if asked == ran else f"chosen by {asked}: {attrs['reason']}"
    seed = "" if attrs["random_seed"] == "none" else f", seed {attrs['random_seed']}"
    return f"{ran}, {why}{seed}"


def _converged(fit: Contents) -> str:
    """Diagnostics of whatever ran, with a verdict."""
    attrs, total = fit.attrs, fit.chains * fit.draws
    drawn = f"{fit.chains} chains of {fit.draws} draws"
    if attrs["method"] == "nuts":
        enough = min(ESS, 0.5 * total)
        diverged = attrs["divergences"] > DIVERGING * total
        good = (
            "modes_apart" not in attrs and not attrs["rhat_max"] > RHAT and attrs["ess_min"] >= enough and not diverged
        )
        text = f"R-hat at most {attrs['rhat_max']:.3f}, ESS at least {attrs['ess_min']:.0f}, "
        return f"{'yes' if good else 'NO'}: {text}{attrs['divergences']} divergences; {drawn}"
    if attrs["method"] in ("laplace", "importance"):
        good = attrs["pareto_k"] < PARETO_K and attrs["importance_ess"] >= IMPORTANCE_ESS
        text = f"Pareto k {attrs['pareto_k']:.2f}, importance ESS {attrs['importance_ess']:.0f}"
        return f"{'yes' if good else 'NOT TO BE TRUSTED'}: {text}; {drawn}"
    if np.isnan(attrs["loglik"]):
        return "yes: exact, in closed form"
    return f"a point estimate after {attrs['iterations']} passes, log likelihood {attrs['loglik']:.2f}"


def _counting(attrs: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """The optima of standing of a posterior, where it has several."""
    return [one for one in json.loads(attrs.get("modes", "[]")) if one.get("share") is not None]


def _several(attrs: Mapping[Any, Any]) -> str:
    """How many optima of standing the posterior has, if more than one, and whether the draws join them."""
    if len(found := _counting(attrs)) < 2:
        return ""
    if "modes_apart" in attrs:
        said = "chains do NOT go from one to the other: the draws give each the share of its chains"
    else:
        said = "the draws give each its share"
    return f"{len(found)} of standing; {said}"


def parameter_tables(fit: Contents) -> dict[str, Columns]:
    """Posterior medians and 90 % intervals, as text: by member, in common, correlations; and the optima, if several.

    Parameters
    ----------
    fit : Contents

    Returns
    -------
    dict of title to dict of column to list of str

    Examples
    --------
    >>> import bayesens as be, pandas as pd
    >>> from bayesens.inference.fit_contents import contents_of
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> fit = be.fit(be.SingleMember(bias="none"), ens, method="em")
    >>> parameter_tables(contents_of(fit))["By member: point estimate"]["sigma"]
    ['0.616']
    """
    attrs = fit.attrs
    kind = "point estimate" if int(attrs["point_estimate"]) else "posterior median [90 % interval]"
    first, rest = _by_member(fit)
    tables = {f"By member: {kind}": first, "By member, of groups and sites": rest, f"{TILTED}: {kind}": _tilted(fit),
              "In common": _in_common(fit)}  # fmt: skip
    if "error_corr" in fit.values:
        tables["Correlation of the members' errors f - y: posterior median"] = _matrix(fit)
    if len(optima := json.loads(attrs.get("optima", "[]"))) > 1:
        tables["Optima that EM found, the standard start's first"] = _optima(optima)
    if len(found := _counting(attrs)) > 1:
        tables["Optima of the posterior"] = _modes(found, json.loads(attrs["bayesens_members"]))
    return {title: table for title, table in tables.items() if any(table.values())}


def _by_member(fit: Contents) -> tuple[Columns, Columns]:
    """What every user asks for first, and the rest: a terminal is not wide enough for all."""
    found = {name: values for name, (dims, values) in fit.values.items() if dims == ("member",)}
    first = [name for name in FIRST if name in found]
    return _members(fit, found, first), _members(fit, found, sorted(set(found) - set(first)))


def _members(fit: Contents, found: dict[str, NDArray[Any]], names: list[str]) -> Columns:
    if not names:
        return {}
    cells = {name: [_interval(draws) for draws in found[name].T] for name in names}
    return {"member": [str(name) for name in fit.labels["member"]]} | cells


def _tilted(fit: Contents) -> Columns:
    """Weights that follow covariates: how far they move; at all means they are ``weight``."""
    if "weight_slope" not in fit.values or "weight_length" in fit.values:  # a single wave of a field says nothing
        return {}
    dims, slope = fit.values["weight_slope"]
    slope = slope if dims[-1] == "member" else slope.swapaxes(1, 2)
    columns = {"member": [str(name) for name in fit.labels["member"]]}
    for c, name in enumerate(fit.labels["weight_covariate"]):
        for sign, word in ((-1.0, "low"), (1.0, "high")):
            odds = fit.values["weight"][1] * np.exp(sign * slope[:, c])
            columns[f"{name} {word}"] = [_interval(draws) for draws in (odds / odds.sum(axis=1, keepdims=True)).T]
    return columns


def _in_common(fit: Contents) -> Columns:
    own = {name: values for name, (dims, values) in fit.values.items() if dims == ()}
    found = {name: _interval(draws) for name, draws in own.items() if name != "nu_above_two"}  # nu says it
    for name, (dims, values) in fit.values.items():
        if dims in (("scale_covariate",), ("weight_covariate",)):
            found |= {
                f"{name} of {label}": _interval(draws)
                for label, draws in zip(fit.labels[dims[0]], values.T, strict=True)
            }
    return {"parameter": list(found), "value": list(found.values())}


def _interval(draws: NDArray[Any]) -> str:
    low, middle, high = (f"{q:.3g}" for q in np.quantile(draws, [0.05, 0.5, 0.95]))
    return middle if draws.size == 1 else f"{middle} [{low}, {high}]"


def _matrix(fit: Contents) -> Columns:
    dims, draws = fit.values["error_corr"]
    middle = np.median(draws, axis=0)
    middle = middle if dims == ("member", "member_") else middle.T
    names = [str(name) for name in fit.labels["member"]]
    return {"member": names} | {name: [f"{v:.2f}" for v in row] for name, row in zip(names, middle.T, strict=True)}


def _optima(optima: list[dict[str, Any]]) -> Columns:
    return {
        "start": [str(o["start"]) for o in optima],
        "log likelihood": [f"{o['loglik']:.2f}" for o in optima],
        "weight": ["  ".join(f"{v:.3f}" for v in o["weight"]) for o in optima],
        "sigma": ["  ".join(f"{v:.3g}" for v in o["sigma"]) for o in optima],
    }


def _modes(found: list[dict[str, Any]], members: list[str]) -> Columns:
    """A line an optimum: its height, what it is worth, and the members' weights there."""
    table = {
        "log density": [f"{one['logp']:.2f}" for one in found],
        "probability, approximate": [f"{one['evidence']:.3f}" for one in found],
        "share of the draws": [f"{one['share']:.3f}" for one in found],
    }
    each = np.array([one.get("weight", []) for one in found], dtype=float)
    if each.shape[1:] != (len(members),):
        return table
    return table | {f"weight {name}": [f"{v:.3f}" for v in each[:, k]] for k, name in enumerate(members)}
