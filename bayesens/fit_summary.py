"""What a fit, its predictions and its scores come to, as tables to print or to write. No PyMC."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens import models
from bayesens.ensemble import Ensemble
from bayesens.inference import DIVERGING, ESS, RHAT
from bayesens.options import options_from_json
from bayesens.sampling import IMPORTANCE_ESS, PARETO_K

__all__ = ["facts", "mean_scores", "parameter_tables", "prediction_table"]

FIRST = ("weight", "linear_weight", "bias", "slope", "sigma", "error_sd")


def mean_scores(scores: xr.Dataset, *, by: str | None = None) -> pd.DataFrame:
    """Mean scores over all rows, and over those of each group or site.

    Parameters
    ----------
    scores : Dataset
        What ``score`` returned.
    by : {"group", "site"}, optional
        Labels that get a line each, below that of all rows.

    Returns
    -------
    DataFrame
        Columns: the label, if asked; ``rows`` that have a prediction; ``crps``, ``rmse``, ``bias`` (mean minus
        observation) in units of the observations; ``log_score`` (mean of -log p(y | f)); and for each level the share
        ``coverage_90`` of observations inside the central interval, and its mean ``width_90``.

    Raises
    ------
    ValueError
        If the scored rows have no such labels.

    Examples
    --------
    >>> scores = xr.Dataset({name: ("obs", [1.0, 3.0]) for name in ("crps", "log_score", "error")})
    >>> scores = scores.assign(covered=(("level", "obs"), [[0, 1]]), width=(("level", "obs"), [[2.0, 4.0]]))
    >>> mean_scores(scores.assign_coords(level=[0.9])).round(3).to_dict("records")[0]
    {'rows': 2, 'crps': 2.0, 'log_score': 2.0, 'rmse': 2.236, 'bias': 2.0, 'coverage_90': 0.5, 'width_90': 3.0}
    """
    if by is None:
        return pd.DataFrame([_means(scores)])
    if by not in scores.coords:
        raise ValueError(f"the scored rows have no {by} labels; name their column with {by}=...")
    labels = scores[by].values
    lines = [{by: "all", **_means(scores)}]
    lines += [{by: str(label), **_means(scores.isel(obs=labels == label))} for label in np.unique(labels)]
    return pd.DataFrame(lines)


def _means(scores: xr.Dataset) -> dict[str, float]:
    out: dict[str, float] = {"rows": int(scores["crps"].count())}
    out |= {name: float(scores[name].mean()) for name in ("crps", "log_score")}
    out |= {"rmse": float(np.sqrt((scores["error"] ** 2).mean())), "bias": float(scores["error"].mean())}
    for level in scores["level"].values:
        at = scores.sel(level=level)
        out |= {_percent("coverage_", level): float(at["covered"].mean())}
        out |= {_percent("width_", level): float(at["width"].mean())}
    return out


def _percent(head: str, level: float) -> str:
    """Name of a level: q05, q50, q97.5."""
    whole, point, rest = f"{100 * float(level):.6g}".partition(".")
    return f"{head}{whole:0>2}{point}{rest}"


def prediction_table(prediction: xr.Dataset, ensemble: Ensemble) -> pd.DataFrame:
    """One line a row: what identifies it, under the user's own column names, then its prediction.

    Parameters
    ----------
    prediction : Dataset
        What ``predict`` returned.
    ensemble : Ensemble
        The rows that were predicted.

    Returns
    -------
    DataFrame
        Site, group, time, lon, lat (those given); ``mean``, ``sd`` and its parts; a column for each quantile: ``q05``.

    Examples
    --------
    >>> rows = Ensemble.from_frame(pd.DataFrame({"rf": [1.0], "station": ["a"]}), members=["rf"], site="station")
    >>> prediction = xr.Dataset({"mean": ("obs", [2.0]), "q": (("obs", "quantile"), [[1.5]])}, {"quantile": [0.05]})
    >>> prediction_table(prediction, rows).to_dict("records")
    [{'station': 'a', 'mean': 2.0, 'q05': 1.5}]
    """
    frame = ensemble.to_frame()[[name for role, name in ensemble.columns.items() if role != "observation"]]
    for name, values in prediction.data_vars.items():
        if values.dims == ("obs",):
            frame[str(name)] = values.values
        elif "quantile" in values.dims:
            for level in prediction["quantile"].values:
                frame[_percent("q", level)] = values.sel(quantile=level).values
    return frame


# ---------------------------------------------------------------------------------------------------- what a fit holds
def facts(tree: xr.DataTree) -> dict[str, str]:
    """Say in words what a fit is: model, options, data, what ran and whether it converged.

    Parameters
    ----------
    tree : DataTree
        A fit.

    Returns
    -------
    dict of str to str

    Examples
    --------
    >>> import bayesens as be
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> facts(be.fit(be.SingleMember(bias="none", center=3.0, unit=1.0), ens, method="em"))["data"]
    '5 observed rows'
    """
    attrs = tree.attrs
    lines = {
        "model": f"{attrs['bayesens_model']}, written by bayesens {attrs['bayesens_version']}",
        "options": _changed(attrs["bayesens_model"], json.loads(attrs["bayesens_options"])),
        "data": f"{attrs['n_obs']} observed rows" + (f", in {attrs['units']}" if attrs["units"] else ""),
        "members": ", ".join(json.loads(attrs["bayesens_members"])),
        "columns": ", ".join(f"{role} {name}" for role, name in json.loads(attrs["columns"]).items()),
        "method": _method(attrs),
        "converged": _converged(tree),
        "optima": _several(tree),
        "left out": _left_out(attrs),
        "seconds": f"{attrs['seconds']:.1f}",
    }
    return {name: text for name, text in lines.items() if text}


def _left_out(attrs: Mapping[Any, Any]) -> str:
    """A note on log likelihoods that a large fit does not hold; nothing else is lost by it."""
    said = str(attrs.get("no_log_likelihood", ""))
    return f"log likelihoods of the rows: {said[0].lower()}{said[1:].partition('. ')[0].rstrip('.')}" if said else ""


def _changed(name: str, options: dict[str, Any]) -> str:
    """Options that differ from the model's defaults, among them those that the data set."""
    if name not in models.__all__:
        return f"{json.dumps(options)} (a model of your own)"
    cls = getattr(models, name)
    fitted, default = options_from_json(cls, options), cls()
    changed = {key: getattr(fitted, key) for key in options if getattr(fitted, key) != getattr(default, key)}
    changed.pop("widths", None)  # how scale's columns are standardised: six numbers each
    return ", ".join(f"{key}={v:.4g}" if isinstance(v, float) else f"{key}={v!r}" for key, v in changed.items())


def _method(attrs: Mapping[Any, Any]) -> str:
    asked, ran = str(attrs["method_asked"]), str(attrs["method"])
    why = "asked for" if asked == ran else f"chosen by {asked}: {attrs['reason']}"
    seed = "" if attrs["random_seed"] == "none" else f", seed {attrs['random_seed']}"
    return f"{ran}, {why}{seed}"


def _converged(tree: xr.DataTree) -> str:
    """Diagnostics of whatever ran, with a verdict."""
    attrs, sizes = tree.attrs, tree["posterior"].sizes
    drawn = f"{sizes['chain']} chains of {sizes['draw']} draws"
    if attrs["method"] == "nuts":
        enough = min(ESS, 0.5 * sizes["chain"] * sizes["draw"])
        diverged = attrs["divergences"] > DIVERGING * sizes["chain"] * sizes["draw"]
        good = (
            "modes_apart" not in attrs and not attrs["rhat_max"] > RHAT and attrs["ess_min"] >= enough and not diverged
        )
        text = f"R-hat at most {attrs['rhat_max']:.3f}, ESS at least {attrs['ess_min']:.0f}, "
        return f"{'yes' if good else 'NO'}: {text}{attrs['divergences']} divergences; {drawn}"
    if attrs["method"] == "laplace":
        good = attrs["pareto_k"] < PARETO_K and attrs["importance_ess"] >= IMPORTANCE_ESS
        text = f"Pareto k {attrs['pareto_k']:.2f}, importance ESS {attrs['importance_ess']:.0f}"
        return f"{'yes' if good else 'NOT TO BE TRUSTED'}: {text}; {drawn}"
    return f"a point estimate after {attrs['iterations']} passes, log likelihood {attrs['loglik']:.2f}"


def _counting(tree: xr.DataTree) -> list[dict[str, Any]]:
    """The optima of standing of a posterior, where it has several."""
    return [one for one in json.loads(tree.attrs.get("modes", "[]")) if one.get("share") is not None]


def _several(tree: xr.DataTree) -> str:
    """How many optima of standing the posterior has, if more than one, and whether the draws join them."""
    if len(found := _counting(tree)) < 2:
        return ""
    if "modes_apart" in tree.attrs:
        said = "chains do NOT go from one to the other: the draws give each the share of its chains"
    else:
        said = "the draws give each its share"
    return f"{len(found)} of standing; {said}"


def parameter_tables(tree: xr.DataTree) -> dict[str, pd.DataFrame]:
    """Posterior medians and 90 % intervals, as text: by member, in common, correlations; and the optima, if several.

    Parameters
    ----------
    tree : DataTree
        A fit.

    Returns
    -------
    dict of str to DataFrame
        Tables by their titles.

    Examples
    --------
    >>> import bayesens as be
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> tree = be.fit(be.SingleMember(bias="none"), ens, method="em")
    >>> parameter_tables(tree)["By member: point estimate"]["sigma"].tolist()
    ['0.616']
    """
    posterior = tree["posterior"].to_dataset().stack(sample=("chain", "draw"))
    kind = "point estimate" if int(tree.attrs["point_estimate"]) else "posterior median [90 % interval]"
    first, rest = _by_member(posterior)
    tables = {f"By member: {kind}": first, "By member, of groups and sites": rest, "In common": _in_common(posterior)}
    if "error_corr" in posterior:
        tables["Correlation of the members' errors f - y: posterior median"] = _matrix(posterior["error_corr"])
    if len(optima := json.loads(tree.attrs.get("optima", "[]"))) > 1:
        tables["Optima that EM found, the standard start's first"] = _optima(optima)
    if len(found := _counting(tree)) > 1:
        tables["Optima of the posterior"] = _modes(found, json.loads(tree.attrs["bayesens_members"]))
    return {title: table for title, table in tables.items() if len(table)}


def _by_member(posterior: xr.Dataset) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What every user asks for first, and the rest: a terminal is not wide enough for all."""
    found = {str(name): v for name, v in posterior.data_vars.items() if set(v.dims) == {"sample", "member"}}
    first: list[str] = [name for name in FIRST if name in found]
    return _members(found, first), _members(found, sorted(set(found) - set(first)))


def _members(found: dict[str, xr.DataArray], names: list[str]) -> pd.DataFrame:
    if not names:
        return pd.DataFrame()
    cells = {name: [_interval(draws) for draws in found[name].transpose("member", "sample").values] for name in names}
    return pd.DataFrame({"member": found[names[0]]["member"].values} | cells)


def _in_common(posterior: xr.Dataset) -> pd.DataFrame:
    own = {str(name): v for name, v in posterior.data_vars.items() if v.dims == ("sample",)}
    found = {name: _interval(v.values) for name, v in own.items() if name != "nu_above_two"}  # nu says it
    if "scale_slope" in posterior:
        slope = posterior["scale_slope"].transpose("scale_covariate", "sample")
        labels = slope["scale_covariate"].values
        found |= {f"scale_slope of {name}": _interval(draws) for name, draws in zip(labels, slope.values, strict=True)}
    return pd.DataFrame({"parameter": list(found), "value": list(found.values())})


def _interval(draws: NDArray[Any]) -> str:
    low, middle, high = (f"{q:.3g}" for q in np.quantile(draws, [0.05, 0.5, 0.95]))
    return middle if draws.size == 1 else f"{middle} [{low}, {high}]"


def _matrix(correlation: xr.DataArray) -> pd.DataFrame:
    middle = correlation.median("sample").transpose("member", "member_")
    columns = {str(name): [f"{v:.2f}" for v in row] for name, row in zip(middle["member"].values, middle.values.T)}
    return pd.DataFrame({"member": middle["member"].values} | columns)


def _optima(optima: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "start": [o["start"] for o in optima],
            "log likelihood": [f"{o['loglik']:.2f}" for o in optima],
            "weight": ["  ".join(f"{v:.3f}" for v in o["weight"]) for o in optima],
            "sigma": ["  ".join(f"{v:.3g}" for v in o["sigma"]) for o in optima],
        }
    )


def _modes(found: list[dict[str, Any]], members: list[str]) -> pd.DataFrame:
    """A line an optimum: its height, what it is worth, and the members' weights there."""
    table = pd.DataFrame({
        "log density": [f"{one['logp']:.2f}" for one in found],
        "probability, approximate": [f"{one['evidence']:.3f}" for one in found],
        "share of the draws": [f"{one['share']:.3f}" for one in found],
    })  # fmt: skip
    each = np.array([one.get("weight", []) for one in found], dtype=float)
    if each.shape[1:] != (len(members),):
        return table
    return table.assign(**{f"weight {name}": [f"{v:.3f}" for v in each[:, k]] for k, name in enumerate(members)})
