"""fit: from a model and an ensemble to a posterior that describes itself."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import xarray as xr

from bayesens import models
from bayesens.arithmetic import plain_arithmetic
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import flat
from bayesens.ensemble.streaming import SufficientStatistics
from bayesens.inference.arguments import check_fit_call
from bayesens.inference.convergence import DIVERGING, ESS, RHAT
from bayesens.inference.fit_tree import (
    FORMAT,
    check_given,
    history_of,
    log_likelihood_of,
    no_log_likelihood,
    optimum,
)
from bayesens.inference.sampling.draws import sample
from bayesens.likelihoods.em import Optimum
from bayesens.likelihoods.options import changed_words, options_to_json
from bayesens.messages import listed, warn
from bayesens.tables.unit_checks import member_ranges, warn_units
from bayesens.threads import one_blas_thread

__all__ = [
    "MAX_LOG_LIKELIHOOD",
    "fit",
]

METHODS = ("auto", "nuts", "laplace", "em")
MAX_LOG_LIKELIHOOD = 20_000_000  # values, 160 MB: what a fit stores without being asked


@plain_arithmetic
def fit(
    model: Any,
    ensemble: Ensemble | SufficientStatistics,
    *,
    method: str = "auto",
    draws: int = 1000,
    tune: int = 500,
    chains: int = 4,
    random_seed: int | None = None,
    target_accept: float = 0.9,
    starts: int = 3,
    select: str = "standard",
    likelihood_power: float = 1.0,
    prior_power: float = 1.0,
    warm: xr.DataTree | Mapping[str, Sequence[float]] | None = None,
    log_likelihood: bool | None = None,
    allow_insample: bool = False,
    progressbar: bool = True,
) -> xr.DataTree:
    """Fit a model to an ensemble with observations.

    Parameters
    ----------
    model : BMA, HBM, LinearPool, EMOS, IDR, Climatology, SingleMember, EqualWeights or a model of your own
    ensemble : Ensemble or SufficientStatistics
        Rows without an observation are left out. Statistics of a table that does not fit in memory are enough for HBM.
    method : {"auto", "nuts", "laplace", "em"}
        ``"auto"`` maximises the posterior, samples an approximation around the optimum (normal, or following the
        posterior's skewness) with importance weights, keeps that where Pareto k < .7 and the importance ESS is at least
        400, and runs NUTS otherwise, started and scaled from the optimum. Where there are several optima, the approximations
        around all of them are one proposal, and chains of NUTS are shared out to them; where more than .2 % of their transitions
        diverge they are run again with smaller steps (``fit.attrs["target_accept"]``). Chains that mix slowly, of at most 36
        parameters, are covered by a mixture of t distributions, of which importance weights make the posterior by the same
        limits (``fit.attrs["method"]`` is then "importance"), and run five times longer otherwise. ``"laplace"`` keeps the
        approximation whatever it is worth, with a warning. ``"em"`` is Raftery's two-stage fit: one point, no posterior.
    draws, tune, chains : int
        Draws kept and thrown away per chain, and chains.
    random_seed : int, optional
        The same seed gives the same draws on the same machine and versions.
    target_accept : float
        Of NUTS, in (0, 1).
    starts : int
        Starts of the optimiser, or of EM (four times as many), beside the standard one: with one wider kernel, then at random.
    select : {"standard", "best"}
        Which optimum ``method="em"`` returns where the starts find several.
    likelihood_power, prior_power : float
        Powers above zero that the likelihood, and the top-level priors, are raised to. A likelihood power below one says that
        rows which share their errors tell less than their number: `bayesens.sensitivity.effective_rows` finds it. Other
        powers serve to see what a posterior rests on. Effects that HBM integrates out are drawn back, and known sites
        predicted, by the likelihood as it is. Not for ``method="em"``. With a power of the likelihood no ``log_likelihood``
        is stored, as `arviz.loo` would take a row out at a power of one that went in at another: `loo` does it right.
    warm : DataTree, or mapping of variable to values, optional
        A fit of the same kind of model to similar rows, such as another fold, or what `optimum` gives of it: the search for
        the optimum begins there, without other starts. The posterior that is sampled is the same.
    log_likelihood : bool, optional
        Store log p(y_i | f_i, draw). None stores it up to 2e7 values; beyond, ``attrs["no_log_likelihood"]`` says so. Not
        possible for statistics, which have no rows, and with ``likelihood_power``.
    allow_insample : bool
        Take members that were trained on these very rows (`Members.insample`). Weights then go to the member that
        memorises best, and intervals are too short: for demonstrations only.
    progressbar : bool
        Show the sampler's progress.

    Returns
    -------
    xarray.DataTree
        Groups ``posterior``, ``sample_stats``, ``observed_data``, ``constant_data``, ``log_prior``, ``log_likelihood``
        (variable ``y``), and ``history`` where predictions at known sites need it; ``attrs`` hold the model, its options,
        data digest, and what ran. Of statistics, there are no ``observed_data``, ``constant_data`` and ``log_likelihood``.

    Raises
    ------
    ValueError
        If the data do not allow the fit, or if an option is unknown.

    Warns
    -----
    UserWarning
        If the fit has not converged, also where chains stay at one of several optima; if an approximation should not be
        trusted; if a member looks as if it were in another unit than the observation.

    Notes
    -----
    ``attrs["modes"]`` is a JSON list of the optima that were found, those of standing first: log density ``logp``, log
    likelihood ``loglik``, ``evidence``, the share of the probability of all by the normal approximation at each, and the
    members' ``weight``. Where there are several of standing (a thousandth of the evidence, or 8 below the best log density)
    there are also their ``share`` of the draws and ``sample_stats["mode"]``, the number of the one that each draw belongs to.

    ArviZ takes the tree as it is: `arviz.summary`, `arviz.loo`, `arviz.plot_forest`. What checks predictions against the
    observations, such as `arviz.loo_pit`, `arviz.plot_loo_pit` and `arviz.plot_ppc_dist`, needs draws of every row beside:
    ``be.add(tree, ensemble, "posterior_predictive")`` returns the tree with them. A fit by EM has one draw, and nothing for
    `arviz.loo`.

    Examples
    --------
    >>> import pandas as pd
    >>> import bayesens as be
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> tree = be.fit(be.SingleMember(bias="none"), ens, method="em")
    >>> round(float(tree["posterior"]["sigma"].squeeze()), 3)
    0.616
    """
    check_fit_call(model, ensemble)
    _check_arguments(method, select, draws, tune, chains, target_accept)
    asked, method = method, method if getattr(model, "sampled", True) else "em"
    powers = _checked_powers(method, likelihood_power, prior_power, log_likelihood)
    begin = time.perf_counter()
    _check_data(model, ensemble, log_likelihood)
    _check_origin(ensemble, allow_insample)
    ensemble.check_training()
    if isinstance(ensemble, Ensemble) and getattr(model, "uses_members", True):
        warn_units(
            ensemble.prediction, ensemble.require_observation(), ensemble.members, ensemble.columns["observation"]
        )
    data = _prepared(model, ensemble)
    face = data if hasattr(data, "check_training") else ensemble
    face.check_training(n_parameters=model.n_parameters(data))
    if hasattr(model, "check"):
        model.check(data)
    resolved = model.resolve(data)
    rng = np.random.default_rng(random_seed)
    with one_blas_thread():
        if method == "em":
            posterior, attrs, stats = _fit_em(resolved, data, starts=4 * starts, select=select)
            attrs["reason"] = "asked for" if asked == method else "it has no parameters to sample"
            groups = {"posterior": posterior, "sample_stats": stats}
        else:
            groups, attrs = _fit_posterior(
                resolved, data, powers=powers, warm=_warm_start(warm, resolved), method=method, draws=draws, tune=tune,
                chains=chains, rng=rng, target_accept=target_accept, starts=starts, progressbar=progressbar,
            )  # fmt: skip
    attrs["seconds"] = time.perf_counter() - begin
    if getattr(resolved, "needs_history", False):
        groups["history"] = resolved.history(data)
    if isinstance(ensemble, Ensemble):
        groups |= _data_groups(resolved, ensemble)
    tree = xr.DataTree.from_dict(dict(groups))
    tree.attrs = _describe(resolved, ensemble) | {"method_asked": asked, "random_seed": _text(random_seed)} | attrs
    if isinstance(ensemble, Ensemble):
        return _with_log_likelihood(tree, resolved, ensemble, log_likelihood)
    if log_likelihood is None:
        tree.attrs["no_log_likelihood"] = (
            f"Sufficient statistics no longer hold the {ensemble.n_observed} rows. Use be.score on an Ensemble of some rows."
        )
    return tree


def _prepared(model: Any, ensemble: Any) -> Any:
    """What a model takes from the rows, which are gone through once: statistics, corrected members, or the rows themselves."""
    if hasattr(model, "summarise"):
        return model.summarise(ensemble)
    return model.prepare(ensemble) if hasattr(model, "prepare") else ensemble


def _check_data(model: Any, data: Any, log_likelihood: bool | None) -> None:
    """Take statistics where a model needs no more, and an ensemble everywhere."""
    if not isinstance(data, SufficientStatistics) or isinstance(model, type):
        check_given(data, model)
    elif not hasattr(model, "summarise"):
        name = type(model).__name__
        raise TypeError(
            f"{name} needs the rows, and sufficient statistics no longer hold them; use HBM, or an Ensemble."
        )
    elif log_likelihood:
        raise ValueError("log_likelihood=True needs the rows, and sufficient statistics no longer hold them; leave it out, "
                         "and score an Ensemble of some rows with be.score.")  # fmt: skip


def _check_origin(data: Any, allow_insample: bool) -> None:
    """Refuse members that have seen the observations of these rows."""
    if isinstance(data, Ensemble) and data.origin == "in-sample" and not allow_insample:
        raise ValueError(
            f"The members {listed(data.members)} were trained on these very rows, so their errors here say little of their "
            "errors elsewhere; fit to be.cross_fit(...) of the same members, or pass allow_insample=True to see what goes wrong."
        )


# ------------------------------------------------------------------------------------------------------------- methods
def _fit_posterior(model: Any, ensemble: Any, *, powers: tuple[float, float], warm: Mapping[str, Sequence[float]] | None,
                   method: str, draws: int, tune: int, chains: int, rng: np.random.Generator, target_accept: float, starts: int,
                   progressbar: bool) -> tuple[dict[str, xr.Dataset], dict[str, Any]]:  # fmt: skip
    from bayesens.inference.compiled import lean
    from bayesens.inference.log_density import compile_target
    from bayesens.inference.sampling.laplace import starts_of

    with lean():
        built = model.build(ensemble)
    target = compile_target(built, likelihood_power=powers[0], prior_power=powers[1])
    starts, others = starts_of(model, target, starts if warm is None else 0)
    sampled = sample(target, start=target.start if warm is None else target.begin(warm), method=method, draws=draws, tune=tune,
                     chains=chains, rng=rng, target_accept=target_accept, starts=starts, others=others, progressbar=progressbar,
                     near=getattr(model, "starts_near", False), no_optimum=getattr(model, "no_optimum", ""))  # fmt: skip
    sampled.attrs["warm"] = int(warm is not None)
    if powers != (1.0, 1.0):
        sampled.attrs.update(likelihood_power=powers[0], prior_power=powers[1])
    posterior, log_prior = target.expand(sampled.x)
    if sampled.attrs["method"] == "nuts":
        told = "modes_apart" in sampled.attrs
        sampled.attrs.update(_convergence(posterior, sampled.stats, tune=tune, draws=draws, told=told))
    if hasattr(model, "coordinates"):
        posterior = posterior.assign_coords(model.coordinates(ensemble))
    if hasattr(model, "complete"):
        posterior = model.complete(posterior, ensemble, rng)
    dims = ("chain", "draw")
    stats = xr.Dataset(
        {name: (dims, values) for name, values in (sampled.stats | {"log_joint": sampled.loglik}).items()}
    )
    return {"posterior": posterior, "sample_stats": stats, "log_prior": log_prior}, sampled.attrs


def posterior_of(
    model: Any, data: Any, *, method: str = "auto", draws: int = 500, random_seed: int | None = None
) -> xr.Dataset:
    """Return the posterior of a model whose data are no ensemble, such as the days of `Neighbours`.

    Parameters
    ----------
    model : model
    data : what its ``resolve`` and ``build`` take
    method, draws, random_seed
        As in `fit`; draws of each of four chains.

    Returns
    -------
    Dataset (chain, draw, ...)
    """
    rng = np.random.default_rng(random_seed)
    with one_blas_thread():
        return _fit_posterior(model.resolve(data), data, powers=(1.0, 1.0), warm=None, method=method, draws=draws, tune=500,
                              chains=4, rng=rng, target_accept=0.9, starts=0, progressbar=False)[0]["posterior"]  # fmt: skip


def _warm_start(
    warm: xr.DataTree | Mapping[str, Sequence[float]] | None, model: Any
) -> Mapping[str, Sequence[float]] | None:
    if not isinstance(warm, xr.DataTree):
        return warm
    found = optimum(warm)
    if (name := str(warm.attrs["bayesens_model"])) != type(model).__name__:
        raise ValueError(
            f"warm is a fit of {name}, and the model is {type(model).__name__}; pass a fit of the same kind."
        )
    return found


def _convergence(
    posterior: xr.Dataset, stats: dict[str, np.ndarray], *, tune: int, draws: int, told: bool = False
) -> dict[str, Any]:
    """Rank-normalised R-hat, bulk and tail ESS of every quantity; one plain sentence where they fail and none is said yet.

    Variables that only serve the parametrisation of a correlation matrix are left out: the data tell the matrix, not how
    it is made up of a common factor and a rest.
    """
    from arviz_stats.base import array_stats

    series: dict[tuple[str, int], np.ndarray] = {}
    for name, variable in posterior.data_vars.items():
        values = flat(variable).reshape(posterior.sizes["chain"], posterior.sizes["draw"], -1)
        if not str(name).endswith(("_common", "_rest")):
            series |= {(str(name), j): values[:, :, j] for j in range(values.shape[2]) if np.ptp(values[:, :, j]) > 0}
    names = [name for name, _ in series]
    several = posterior.sizes["chain"] > 1
    rhat = np.array([float(array_stats.rhat(a)) if several else np.nan for a in series.values()])
    ess = np.array([
        min(float(array_stats.ess(a, method="bulk")), float(array_stats.ess(a, method="tail", prob=0.1)))
        for a in series.values()
    ])  # fmt: skip
    divergences = int(stats["diverging"].sum())
    attrs = {"rhat_max": float(np.max(rhat)), "ess_min": float(ess.min()), "divergences": divergences}
    problems = []
    if several and attrs["rhat_max"] > RHAT:
        problems.append(f"R-hat is {attrs['rhat_max']:.3f} for {names[int(np.argmax(rhat))]} (wanted at most {RHAT})")
    if attrs["ess_min"] < min(ESS, 0.4 * posterior.sizes["chain"] * posterior.sizes["draw"]):
        problems.append(
            f"the effective sample size is {attrs['ess_min']:.0f} for {names[int(np.argmin(ess))]} (wanted {ESS:.0f})"
        )
    if divergences > DIVERGING * stats["diverging"].size or (divergences and problems):
        problems.append(f"{divergences} of {stats['diverging'].size} transitions diverged")
    if problems and not told:
        warn("The fit has not converged: " + "; ".join(problems)
             + f". Raise tune={tune} and draws={draws}, or target_accept, or use tighter priors.")  # fmt: skip
    return attrs


def _fit_em(model: Any, ensemble: Any, *, starts: int, select: str) -> tuple[xr.Dataset, dict[str, Any], xr.Dataset]:
    """The two-stage fit as a posterior of one draw."""
    if not hasattr(model, "em"):
        raise ValueError(f"{type(model).__name__} has no fit by EM; use method='auto' or 'nuts'.")
    bias, optima = model.em(ensemble, starts=starts)
    best = max(optima, key=lambda o: o.loglik)
    chosen: Optimum = optima[0] if select == "standard" else best
    if best is not chosen:
        warn(f"EM found {len(optima)} optima; the standard start's has log likelihood {chosen.loglik:.2f}, the best "
             f"{best.loglik:.2f} (attrs['optima']). Member sigmas far apart often stand for heavy tails: use "
             "sigma='shared', or select='best' to take it.")  # fmt: skip
    if not chosen.converged:
        warn(f"EM stopped after {chosen.iterations} passes before it converged; members may be near copies.")
    dataset = bias
    if len(chosen.weight):
        names = list(ensemble.members) if len(chosen.weight) == ensemble.n_members else [model.member]
        dataset = bias.assign_coords(member=np.array(names))
        dataset = dataset.assign(weight=("member", chosen.weight), sigma=("member", chosen.sigma))
        if chosen.width is not None and len(chosen.width):
            dataset = dataset.assign(scale_slope=("scale_covariate", chosen.width))
        if chosen.nu is not None:
            dataset = dataset.assign(nu=((), chosen.nu))
    dataset = dataset.expand_dims(chain=[0], draw=[0])
    table = [
        {"start": o.start, "loglik": o.loglik, "weight": o.weight.tolist(), "sigma": o.sigma.tolist(),
         "iterations": o.iterations}
        for o in optima
    ]  # fmt: skip
    attrs = {"method": "em", "point_estimate": 1, "loglik": chosen.loglik, "optima": json.dumps(table),
             "iterations": chosen.iterations}  # fmt: skip
    stats = xr.Dataset({"log_joint": (("chain", "draw"), np.array([[chosen.loglik]]))})
    return dataset, attrs, stats


# -------------------------------------------------------------------------------------------------------------- result
def _describe(model: Any, ensemble: Ensemble | SufficientStatistics) -> dict[str, Any]:
    from bayesens import __version__

    options, name = json.dumps(options_to_json(model)), type(model).__name__
    changed = changed_words(getattr(models, name, None), json.loads(options))
    return {
        "bayesens_format": FORMAT, "bayesens_version": __version__, "bayesens_model": name,
        "bayesens_options": options, "options_changed": changed, "bayesens_members": json.dumps(list(ensemble.members)),
        "model_digest": sha256(f"{name}{options}".encode()).hexdigest(),
        "data_digest": ensemble.digest, "units": ensemble.units, "point_estimate": 0,
        "n_obs": ensemble.n_observed, "columns": json.dumps(ensemble.columns), "member_range": json.dumps(_ranges(ensemble)),
        "converted": json.dumps(ensemble.converted if isinstance(ensemble, Ensemble) else {}),
    }  # fmt: skip


def _ranges(ensemble: Ensemble | SufficientStatistics) -> dict[str, list[float]]:
    """Lowest and highest value of each member in the observed rows, for warnings of predictions."""
    if isinstance(ensemble, SufficientStatistics):
        return member_ranges(list(ensemble.facts.low[1:]), list(ensemble.facts.high[1:]), ensemble.members)
    columns = ensemble.prediction[ensemble.observed].T
    low, high = ([float(end(column, initial=start)) for column in columns] for end, start in
                 ((np.fmin.reduce, np.inf), (np.fmax.reduce, -np.inf)))  # fmt: skip
    return member_ranges(low, high, ensemble.members)


def _data_groups(model: Any, ensemble: Ensemble) -> dict[str, xr.Dataset]:
    """Observations and inputs of the rows that were used."""
    index = np.nonzero(ensemble.observed)[0]
    used = ensemble.select(rows=index).dataset
    coords: dict[str, Any] = {"obs": index}
    inputs = xr.Dataset({"prediction": (("obs", "member"), used["prediction"].values, used["prediction"].attrs)},
                        coords=coords | {"member": used["member"].values})  # fmt: skip
    labels = {
        name: ("obs", used[name].values) for name in ("site", "group", "time", "lon", "lat") if name in used.coords
    }
    observed = xr.Dataset({"y": ("obs", used["observation"].values, used["observation"].attrs)}, coords=coords)
    beside = used[["covariate"]].drop_vars(list(labels)) if ensemble.covariates else xr.Dataset()
    return {"observed_data": observed, "constant_data": inputs.assign(labels).merge(beside)}


def _with_log_likelihood(tree: xr.DataTree, model: Any, ensemble: Ensemble, wanted: bool | None) -> xr.DataTree:
    if int(tree.attrs["point_estimate"]) or wanted is False:
        return tree
    if (power := float(tree.attrs.get("likelihood_power", 1.0))) != 1.0:
        tree.attrs["no_log_likelihood"] = no_log_likelihood(power)
        return tree
    posterior = tree["posterior"].to_dataset()
    size = posterior.sizes["chain"] * posterior.sizes["draw"] * int(ensemble.observed.sum())
    if wanted is None and size > MAX_LOG_LIKELIHOOD:
        # Nothing is lost, so this is a note in the fit and no warning.
        tree.attrs["no_log_likelihood"] = (f"It would hold {size:.3g} values. be.loo(tree, ensemble) does without it; "
                                           "be.add(tree, ensemble, 'log_likelihood') gives it to you.")  # fmt: skip
        return tree
    tree["log_likelihood"] = xr.DataTree(log_likelihood_of(model, posterior, ensemble, history_of(tree)).to_dataset())
    return tree


def _text(value: Any) -> str:
    return "none" if value is None else str(value)


def _checked_powers(
    method: str, likelihood: float, prior: float, log_likelihood: bool | None = None
) -> tuple[float, float]:
    for name, power in (("likelihood_power", likelihood), ("prior_power", prior)):
        if not (np.isfinite(power) and power > 0.0):
            raise ValueError(f"{name} is a power above zero, 1 for none; got {power!r}.")
        if method == "em" and power != 1.0:
            raise ValueError(f"method='em' maximises the likelihood, and {name}={power!r} changes posteriors only; use "
                             "method='auto' or 'nuts'.")  # fmt: skip
    if log_likelihood and likelihood != 1.0:
        raise ValueError(f"{no_log_likelihood(likelihood)} Leave log_likelihood=True out.")
    return float(likelihood), float(prior)


def _check_arguments(method: str, select: str, draws: int, tune: int, chains: int, target_accept: float) -> None:
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(map(repr, METHODS))}; got {method!r}.")
    if select not in ("standard", "best"):
        raise ValueError(f"select is 'standard' or 'best'; got {select!r}.")
    for name, value, least in (("draws", draws, 4), ("tune", tune, 1), ("chains", chains, 1)):
        if value < least or int(value) != value:
            raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}.")
    if not 0 < target_accept < 1:
        raise ValueError(f"target_accept lies between 0 and 1; got {target_accept!r}.")
