"""predict, score, draw and add: what a fit says of the rows of a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from bayesens.arithmetic import plain_arithmetic
from bayesens.distributions import scores
from bayesens.distributions.law import Distribution
from bayesens.distributions.mixtures import NormalMixture, transformed
from bayesens.distributions.posterior_mixture import Block, PosteriorMixture
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.transforms import transform
from bayesens.inference.arguments import check_fitted_call
from bayesens.inference.fit_tree import (
    check_given,
    check_power_one,
    check_training_rows,
    history_of,
    log_likelihood_of,
    model_of,
    on_model_scale,
    training_mixture,
)
from bayesens.likelihoods.corrected.widths import column_of
from bayesens.messages import listed, warn
from bayesens.tables.unit_checks import empty_words, warn_ranges

__all__ = ["add", "distribution", "draw", "predict", "score"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PARTS_DRAWS = 256


_OfRows = Callable[[Distribution, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Prepared:
    """A fit's model, and a table brought to its members."""

    model: Any
    posterior: xr.Dataset
    ensemble: Ensemble
    mixture: Any


@plain_arithmetic
def predict(
    tree: xr.DataTree, new: Ensemble, *, quantiles: Sequence[float] = QUANTILES, model: Any = None
) -> xr.Dataset:
    """Predictive mean, standard deviation and quantiles of every row.

    Parameters
    ----------
    tree : DataTree
        A fit.
    new : Ensemble
        Rows to predict, with or without observations. A member of the fit that it lacks is missing in every row.
    quantiles : sequence of float
        Levels in (0, 1).
    model : optional
        The model object, if it is one of your own.

    Returns
    -------
    Dataset
        ``mean``, ``sd`` (obs), and the parts whose squares add up to that of ``sd``: ``sd_within`` the kernels,
        ``sd_between`` the members, ``sd_parameter`` what the posterior leaves open; ``quantile_value (obs, quantile)``; in
        the units of the observations. NaN where a model needs a member and a row has none, or needs a covariate
        (``bias_covariates``) that is missing there.

    Warns
    -----
    UserWarning
        For members that the table lacks, that are empty, or far outside of the range that the fit has seen; rows without any
        or without a covariate, and sites or groups that the fit has not seen.

    Examples
    --------
    >>> import pandas as pd
    >>> import bayesens as be
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> tree = be.fit(be.SingleMember(bias="none"), ens, method="em")
    >>> be.predict(tree, ens, quantiles=[0.5])["quantile_value"].values.ravel().round(6).tolist()
    [1.0, 2.0, 3.0, 4.0, 5.0]
    """
    check_fitted_call("predict", tree, new)
    levels = _levels(quantiles, "quantiles")
    prepared = _prepare(tree, new, model)
    of_rows: dict[str, _OfRows] = {"quantile": lambda matched, _: matched.quantile(levels)}
    if prepared.model.transform != "identity":
        of_rows |= {"mean": lambda matched, _: matched.mean(), "variance": lambda matched, _: matched.variance()}
    if prepared.model.transform == "sqrt":
        of_rows["mass_at_zero"] = lambda matched, _: matched.mass_at_zero()
    matched = _by_parts(prepared, of_rows)
    out = _rows(prepared.ensemble)
    for name, (values, long_name) in _parts(prepared, matched).items():
        out[name] = ("obs", values, {"units": tree.attrs["units"], "long_name": long_name})
    out = out.assign_coords(quantile=levels)
    out["quantile_value"] = (("obs", "quantile"), matched["quantile"], {"units": tree.attrs["units"]})
    if prepared.model.transform == "sqrt":
        out["mass_at_zero"] = ("obs", matched["mass_at_zero"], {"long_name": "probability of exactly zero"})
    out.attrs = {"bayesens_model": tree.attrs["bayesens_model"], "units": tree.attrs["units"]}
    return out


@plain_arithmetic
def score(
    tree: xr.DataTree, new: Ensemble, *, levels: Sequence[float] = (0.5, 0.9), random_seed: int = 0, model: Any = None
) -> xr.Dataset:
    """Score p(y | f) at every row that has an observation.

    Parameters
    ----------
    tree : DataTree
        A fit.
    new : Ensemble
        Rows with observations; those without are left out, but for what their members say of a new site
        (``HBM(series=True)``).
    levels : sequence of float
        Central intervals whose coverage, width and interval score are given.
    random_seed : int
        For the randomised PIT of observations at a point mass (``transform="sqrt"``).
    model : optional
        The model object, if it is one of your own.

    Returns
    -------
    Dataset
        On ``obs``: ``crps`` [units], ``log_score`` (-log p(y | f), over all posterior draws), ``error`` (mean minus
        observation) [units], ``pit``; on ``(level, obs)``: ``covered`` (0 or 1), ``width`` [units], ``interval_score``
        [units]. Averages are taken with xarray: ``scores.mean("obs")``. NaN where there is no prediction.

    Raises
    ------
    ValueError
        If no row has an observation.

    References
    ----------
    Gneiting and Raftery (2007), JASA 102, 359-378.

    Examples
    --------
    >>> import pandas as pd
    >>> import bayesens as be
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> tree = be.fit(be.SingleMember(bias="none"), ens, method="em")
    >>> be.score(tree, ens)["error"].values.tolist()
    [-0.5, 0.5, -0.5, -0.5, 1.0]
    """
    check_fitted_call("score", tree, new)
    asked = _levels(levels, "levels")
    check_given(new, model)
    column = new.columns.get("observation", "observation")
    values = new.require_observation()
    if not new.observed.any():
        raise ValueError(
            f"Column {column!r} has no value in any of the {new.n_obs} rows, so there is nothing to score."
        )
    transform(model_of(tree, model).transform).check(values, column=column)
    prepared = _prepare(tree, new, model, new.observed)
    y = prepared.ensemble.require_observation()
    rng = np.random.default_rng(random_seed)
    sides = np.concatenate([0.5 - asked / 2.0, 0.5 + asked / 2.0])
    of_rows: dict[str, _OfRows] = {
        "crps": lambda matched, rows: matched.crps(y[rows]),
        "pit": lambda matched, rows: matched.pit(y[rows], rng),
        "quantile": lambda matched, _: matched.quantile(sides),
    }
    if prepared.model.transform != "identity":
        of_rows["mean"] = lambda matched, _: matched.mean()
    matched = _by_parts(prepared, of_rows)
    units = {"units": tree.attrs["units"]}
    mean = matched["mean"] if "mean" in matched else prepared.mixture.moments().mean
    out = _rows(prepared.ensemble).assign_coords(obs=np.nonzero(new.observed)[0])
    out["crps"] = ("obs", matched["crps"], units | {"long_name": "continuous ranked probability score"})
    out["log_score"] = ("obs", -_log_density(prepared, y), {"long_name": "negative log predictive density"})
    out["error"] = ("obs", mean - y, units | {"long_name": "predictive mean minus observation"})
    out["pit"] = ("obs", matched["pit"], {"long_name": "probability integral transform"})
    lower, upper = np.split(matched["quantile"].T, 2)
    dims = ("level", "obs")
    out = out.assign_coords(level=asked)
    out["covered"] = (dims, scores.covered(lower, upper, y), {"long_name": "whether the central interval holds y"})
    out["width"] = (dims, scores.width(lower, upper), units)
    out["interval_score"] = (
        dims,
        np.stack([scores.interval_score(a, b, y, float(p)) for a, b, p in zip(lower, upper, asked, strict=True)]),
        units,
    )
    out.attrs = {"bayesens_model": tree.attrs["bayesens_model"], **units}
    return out


@plain_arithmetic
def draw(
    tree: xr.DataTree, new: Ensemble, *, size: int = 1000, random_seed: int | None = None, model: Any = None
) -> xr.DataArray:
    """Draw from the predictive distribution of every row, independently given the parameters.

    Parameters
    ----------
    tree : DataTree
        A fit.
    new : Ensemble
        Rows to predict.
    size : int
        Number of draws.
    random_seed : int, optional
        The same seed gives the same draws.
    model : optional
        The model object, if it is one of your own.

    Returns
    -------
    DataArray (sample, obs)
        In the units of the observations. Each sample uses one posterior draw for all rows; effects of new sites are drawn
        row by row, also where ``HBM(series=True)`` has conditioned them on the site's members.

    Examples
    --------
    >>> import pandas as pd
    >>> import bayesens as be
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> tree = be.fit(be.SingleMember(bias="none"), ens, method="em")
    >>> be.draw(tree, ens, size=3, random_seed=1).shape
    (3, 5)
    """
    check_fitted_call("draw", tree, new)
    if size < 1 or int(size) != size:
        raise ValueError(f"size must be a whole number of at least 1; got {size!r}.")
    prepared = _prepare(tree, new, model)
    z = prepared.mixture.sample(int(size), np.random.default_rng(random_seed))
    values = transform(prepared.model.transform).inverse(z)
    out = _rows(prepared.ensemble)
    return xr.DataArray(
        values, dims=("sample", "obs"), coords=out.coords, name="y", attrs={"units": tree.attrs["units"]}
    )


@plain_arithmetic
def distribution(
    tree: xr.DataTree, new: Ensemble, *, rows: np.ndarray | None = None, model: Any = None
) -> Distribution:
    """Return the predictive distribution of every row as one object with pdf, cdf, quantile, crps and sample.

    Parameters
    ----------
    tree : DataTree
        A fit.
    new : Ensemble
        Rows to predict.
    rows : bool array (obs), optional
        Rows that are wanted, such as ``new.observed``; None for all. Not the same as leaving the others out of ``new``
        where a model predicts a new site from all its rows, as ``HBM(series=True)`` does.
    model : optional
        The model object, if it is one of your own.

    Returns
    -------
    NormalMixture, SquaredNormalMixture or LogNormalMixture
        Few components that match the mixture over all posterior draws; shape (obs), of the rows that are wanted.

    Raises
    ------
    ValueError
        If ``rows`` are not one truth value for each row.

    Examples
    --------
    >>> import pandas as pd
    >>> import bayesens as be
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> tree = be.fit(be.SingleMember(bias="none"), ens, method="em")
    >>> distribution(tree, ens).cdf(frame["a"]).tolist()
    [0.5, 0.5, 0.5, 0.5, 0.5]
    """
    check_given(new, model)
    wanted = None if rows is None else np.asarray(rows)
    if wanted is not None and (wanted.dtype != bool or wanted.shape != (new.n_obs,)):
        raise ValueError(f"rows must be True or False for each of the {new.n_obs} rows, such as table.observed; got "
                         f"{wanted.dtype} values of shape {wanted.shape}.")  # fmt: skip
    prepared = _prepare(tree, new, model, wanted)
    return transformed(prepared.mixture.matched(), prepared.model.transform)


@plain_arithmetic
def add(
    tree: xr.DataTree, ensemble: Ensemble, group: str, *, random_seed: int | None = None, model: Any = None
) -> xr.DataTree:
    """Return the fit with a group that it left out.

    Parameters
    ----------
    tree : DataTree
        A fit; it is not changed.
    ensemble : Ensemble
        The training rows, the same as in the fit.
    group : {"log_likelihood", "posterior_predictive"}
        What to add.
    random_seed : int, optional
        For the posterior predictive draws.
    model : optional
        The model object, if it is one of your own.

    Returns
    -------
    DataTree
        With ``y (chain, draw, obs)`` in the new group.

    Raises
    ------
    ValueError
        If the ensemble is not that of the fit, the group is unknown, or ``log_likelihood`` is asked for a fit with a
        ``likelihood_power``, which `arviz.loo` would misread: `loo` takes such fits as they are.

    Examples
    --------
    >>> import pandas as pd
    >>> import bayesens as be
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> tree = be.fit(be.SingleMember(bias="none"), ens, method="em")
    >>> be.add(tree, ens, "posterior_predictive", random_seed=1)["posterior_predictive"]["y"].dims
    ('chain', 'draw', 'obs')
    """
    check_fitted_call("add", tree, ensemble)
    known = ("log_likelihood", "posterior_predictive")
    if group not in known:
        raise ValueError(f"group is one of {', '.join(map(repr, known))}; got {group!r}.")
    fitted = model_of(tree, model)
    check_training_rows(tree, ensemble)
    posterior = tree["posterior"].to_dataset()
    if group == "log_likelihood":
        check_power_one(tree)
        values = log_likelihood_of(fitted, posterior, ensemble, history_of(tree))
    else:
        chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
        rows = ensemble.select(rows=ensemble.observed)
        z = training_mixture(fitted, posterior, rows, history_of(tree)).sample_each(np.random.default_rng(random_seed))
        y = transform(fitted.transform).inverse(z).reshape(chains, draws, -1)
        values = xr.DataArray(y, dims=("chain", "draw", "obs"), name="y", coords={
            "chain": posterior["chain"], "draw": posterior["draw"], "obs": np.nonzero(ensemble.observed)[0]})  # fmt: skip
    out = tree.copy()
    out[group] = xr.DataTree(values.to_dataset(name="y"))
    return out


# ------------------------------------------------------------------------------------------------------------ the parts
def _prepare(tree: xr.DataTree, new: Ensemble, model: Any, rows: np.ndarray | None = None) -> _Prepared:
    """Bring a table to a fit; of these rows alone, if they are given (bool)."""
    check_given(new, model)
    fitted = model_of(tree, model)
    if rows is not None and not getattr(fitted, "series", False):
        new, rows = new.select(rows=rows), None  # no row tells of another: the rest need not be looked at
    ensemble = _with_members(new, tuple(json.loads(tree.attrs["bayesens_members"])), str(tree.attrs["units"]))
    posterior = tree["posterior"].to_dataset()
    _warn_rows(fitted, posterior, ensemble)
    _warn_members(tree, fitted, ensemble, new)
    history = (tree["history"].to_dataset(),) if "history" in tree.children else ()
    if getattr(fitted, "needs_history", False) and not history:
        raise ValueError("The fit has no group 'history', which predictions at known sites and groups need: it was dropped "
                         "from the tree, or an older version wrote the file. Keep the whole tree, or fit again.")  # fmt: skip
    mixture = fitted.predictive(posterior, ensemble, *history)
    if rows is not None:
        ensemble, mixture = ensemble.select(rows=rows), _restricted(mixture, rows)
    return _Prepared(fitted, posterior, ensemble, mixture)


def _restricted(mixture: Any, rows: np.ndarray) -> Any:
    """The same predictions, of some rows."""
    if not isinstance(mixture, PosteriorMixture):
        return mixture.select(np.flatnonzero(rows))
    place = np.where(rows, np.cumsum(rows) - 1, -1)

    def blocks() -> Iterator[Block]:
        for block in mixture.blocks():
            kept = place[block.rows]
            if np.any(kept >= 0):
                yield replace(block, rows=kept[kept >= 0])

    return replace(mixture, f=mixture.f[rows], blocks=blocks)


def _with_members(new: Ensemble, members: tuple[str, ...], units: str) -> Ensemble:
    """Bring a table to the members of the fit, in their order; those that it lacks are missing."""
    if new.units and units and new.units != units:
        raise ValueError(f"The table is in {new.units!r} and the fit in {units!r}; convert the table to {units!r}.")
    if new.members == members:
        return new
    lacking = [name for name in members if name not in new.members]
    if len(lacking) == len(members):
        raise ValueError(
            f"The table has none of the members of the fit, {listed(members)}; it has {listed(new.members)}."
        )
    if lacking:
        warn(f"The table lacks {listed(lacking)}: predictions treat {'it' if len(lacking) == 1 else 'them'} as missing in "
             f"all {new.n_obs} rows.")  # fmt: skip
    return Ensemble(new.dataset.reindex(member=list(members)))


def _warn_rows(model: Any, posterior: xr.Dataset, ensemble: Ensemble) -> None:
    needs_member = getattr(model, "needs_member", False)
    if needs_member and (empty := int((~ensemble.available.any(axis=1)).sum())):
        warn(f"{empty} of {ensemble.n_obs} rows have no member at all: their predictions are NaN.")
    for name in getattr(model, "bias_covariates", ()):
        if missing := int(np.isnan(column_of(ensemble, name)).sum()):
            warn(f"{missing} of {ensemble.n_obs} rows have no value of {name!r}, which the members' corrections regress on: "
                 "their predictions are NaN.")  # fmt: skip
    for level in ("group", "site"):
        if not getattr(model, level, False):
            continue
        labels = ensemble.labels(level)
        new = np.ones(ensemble.n_obs, dtype=bool) if labels is None else ~np.isin(labels, posterior[level].values)
        if level == "group" and "site" in posterior.coords and (sites := ensemble.labels("site")) is not None:
            new &= ~np.isin(sites, posterior["site"].values)  # a known site brings its group along
        if new.any():
            shown = "" if labels is None else f" ({listed(sorted({str(s) for s in labels[new]}), limit=3)})"
            warn(f"{int(new.sum())} of {ensemble.n_obs} rows are at a {level} that the fit has not seen{shown}: "
                 f"they are predicted as a new {level}.")  # fmt: skip


def _warn_members(tree: xr.DataTree, model: Any, ensemble: Ensemble, new: Ensemble) -> None:
    """Warn of members without any value and of values that the fit knows nothing of, if the model looks at the member."""
    if not getattr(model, "uses_members", True):
        return
    one = getattr(model, "member", None)
    used = [name for name in ensemble.members if one is None or name == one]
    values = ensemble.prediction[:, [ensemble.members.index(name) for name in used]]
    empty = np.isnan(values).all(axis=0)
    if not empty.all() and (
        names := [name for name, void in zip(used, empty, strict=True) if void and name in new.members]
    ):
        warn(empty_words(names, ensemble.n_obs))
    warn_ranges(values, used, json.loads(tree.attrs.get("member_range", "{}")))  # fits of before have none


def _by_parts(prepared: _Prepared, functions: dict[str, _OfRows]) -> dict[str, np.ndarray]:
    """What functions of the predictive distribution say of every row, some rows at a time."""
    out: dict[str, np.ndarray] = {}
    for rows, mixture in prepared.mixture.matched_parts():
        matched = transformed(mixture, prepared.model.transform)
        for name, function in functions.items():
            values = np.asarray(function(matched, rows))
            if name not in out:
                out[name] = np.full((prepared.ensemble.n_obs, *values.shape[1:]), np.nan)
            out[name][rows] = values
    return out


def _parts(prepared: _Prepared, matched: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, str]]:
    """Mean, standard deviation and the parts of the variance; exact for untransformed models."""
    if prepared.model.transform == "identity":
        m = prepared.mixture.moments()
        mean, variance, parts = m.mean, m.variance, (m.within, m.between, m.parameter)
    else:
        mean, variance = matched["mean"], matched["variance"]
        parts = _transformed_parts(prepared, variance)
    names = ("within kernels", "between members", "left open by the posterior")
    out = {"mean": (mean, "predictive mean"), "sd": (np.sqrt(variance), "predictive standard deviation")}
    for key, part, text in zip(("within", "between", "parameter"), parts, names, strict=True):
        part = np.maximum(part, 0.0)  # members that are copies of each other leave a rounding error between them
        out[f"sd_{key}"] = (np.sqrt(part), f"standard deviation {text}")
    return out


def _transformed_parts(prepared: _Prepared, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parts of the variance after the inverse transform, from up to 256 evenly spaced draws, as shares of the variance."""
    parts = np.full((3, len(variance)), np.nan)
    for rows, weight, means, sd in _thinned(prepared.mixture):
        each = transformed(NormalMixture(weight, means, sd), prepared.model.transform)
        parts[:, rows] = np.stack([
            each.variance_within().mean(axis=0), each.variance_between().mean(axis=0), each.mean().var(axis=0)
        ])  # fmt: skip
    within, between, parameter = parts / parts.sum(axis=0) * variance
    return within, between, parameter


def _thinned(mixture: Any) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Some rows, and their components under some draws, (draw, row, component)."""
    if not isinstance(mixture, PosteriorMixture):
        size = len(mixture.draws)
        pick = np.unique(np.linspace(0, size - 1, min(size, PARTS_DRAWS)).astype(int))
        for rows in mixture.parts(max(1, 1_000_000 // (len(pick) * mixture.offset.shape[1]))):
            yield rows, *mixture.components(rows, pick)
        return
    for block in mixture.blocks():
        draws = len(block.weight)
        pick = np.unique(np.linspace(0, draws - 1, min(draws, PARTS_DRAWS)).astype(int))
        step = max(1, 1_000_000 // (len(pick) * block.weight.shape[1]))
        for start in range(0, len(block.rows), step):
            rows = block.rows[start : start + step]
            x = np.column_stack([np.ones(len(rows)), mixture.f[rows]])
            means = np.einsum("scj,rj->src", block.coefficient[pick], x)
            weight = np.broadcast_to(block.weight[pick][:, None], means.shape)
            yield rows, weight, means, np.sqrt(mixture.variances(replace(block, rows=rows), pick))


def _log_density(prepared: _Prepared, y: np.ndarray) -> np.ndarray:
    z, below, jacobian = on_model_scale(prepared.model, y)
    return prepared.mixture.log_density(z, below) + jacobian


def _rows(ensemble: Ensemble) -> xr.Dataset:
    """An empty dataset with the rows' coordinates."""
    data = ensemble.dataset
    names = [name for name in ("site", "group", "time", "lon", "lat") if name in data.coords]
    coords: dict[str, Any] = {name: ("obs", data[name].values, data[name].attrs) for name in names}
    return xr.Dataset(coords=coords | {"obs": np.arange(ensemble.n_obs)})


def _levels(values: Sequence[float], name: str) -> np.ndarray:
    levels = np.atleast_1d(np.asarray(values, dtype=float))
    if levels.ndim != 1 or len(levels) == 0 or not np.all((levels > 0) & (levels < 1)):
        raise ValueError(f"{name} must be numbers between 0 and 1; got {values!r}.")
    return levels
