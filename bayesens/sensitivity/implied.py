"""What a model's priors imply before any data are seen: weights, error correlations, widths of intervals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.distributions.posterior_mixture import PosteriorMixture
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import flat
from bayesens.ensemble.transforms import transform
from bayesens.inference.fit_tree import check_given
from bayesens.likelihoods.priors import prior_draws

__all__ = ["prior_predictive", "prior_table", "prior_words"]

Array = NDArray[np.float64]
ROWS = 300  # that predictions are drawn for
WIDE, NARROW, RARE = 2.0, 0.5, 0.05  # times climatology; a probability
DEPENDENT = 0.5  # error correlation that members with the same inputs easily have
MEANING = {
    "effective_members": "effective number of members, exp of the weights' entropy",
    "error_corr": "mean correlation of the members' errors f - y",
    "residual_corr": "mean correlation of the members given y",
    "k_eff": "effective number of members by error correlation",
    "relative_sd": "sd of p(y | f) over that of the observations",
    "replicated_sd": "sd over rows of replicated observations over that of the observations",
    "relative_width": "width of 90 % intervals over climatology's, by row",
}


def prior_predictive(
    model: Any, ensemble: Ensemble, *, draws: int = 1000, random_seed: int | None = None
) -> xr.Dataset:
    """Draw parameters and observations from the priors, for the rows of an ensemble.

    Priors of this library scale with the data (``center``, ``unit`` and ``sigma_scale`` come from the observations), and
    members are given, never drawn; nothing else of the data counts here.

    Parameters
    ----------
    model : BMA, HBM, LinearPool, EMOS, Climatology, SingleMember, EqualWeights or a model of your own
    ensemble : Ensemble
        With observations. Predictions are drawn for 300 rows at most, evenly over the sorted observations.
    draws : int
        From the priors.
    random_seed : int, optional

    Returns
    -------
    Dataset
        On ``draw``, where the model has them: ``effective_members``, exp of the entropy of the weights; ``error_corr`` and
        ``residual_corr``, means over pairs of members of the correlation of f - y and of f given y within sites; ``k_eff``,
        K / (1 + (K - 1) error_corr); ``relative_sd``, root mean square over rows of the sd of p(y | f), and ``replicated_sd``,
        the sd over rows of replicated observations, both over the sd of the observations and on the model's scale.
        On ``obs``: ``width90``, of the central 90 % interval over all draws, in units of the observations, ``relative_width``,
        over the width of climatology's, and ``covered90``. Scalars: ``coverage90``, the share of covered observations, and
        ``climatology_width90``. Effects of groups and sites are drawn too, but for those of corrections, which have a posterior
        of their own: members enter as they are corrected.

    Raises
    ------
    TypeError, ValueError
        No ensemble, a class in place of a model, no observations, fewer than 100 draws.

    References
    ----------
    Gabry, Simpson, Vehtari, Betancourt and Gelman (2019), JRSS A 182, 389-402: prior predictive checks.

    Examples
    --------
    A Dirichlet prior with a large concentration has the weights equal, and K of K members count:

    >>> from bayesens import BMA, Prior
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 1.0, 4.0, 4.0], "y": [1.5, 1.5, 3.5, 4.5]})
    >>> ensemble = Ensemble.from_frame(frame, members=["a", "b"], observation="y")
    >>> result = prior_predictive(BMA(weight_prior=Prior("Dirichlet", a=1000)), ensemble, draws=200, random_seed=1)
    >>> round(float(result["effective_members"].mean()), 2)
    2.0
    """
    check_given(ensemble, model)
    ensemble.require_observation()
    if draws < 100:
        raise ValueError(f"draws is {draws}; wanted 100 or more, for the tails of 90 % intervals")
    rng = np.random.default_rng(random_seed)
    resolved = model.resolve(ensemble)
    data = resolved.prepare(ensemble) if hasattr(resolved, "prepare") else ensemble
    from bayesens.inference.compiled import lean

    with lean():
        prior = prior_draws(resolved.build(data), draws=draws, random_seed=int(rng.integers(2**31)))
    y = ensemble.require_observation()[ensemble.observed]
    rows = ensemble.select(rows=_typical(ensemble))
    prior, mixture = _law(resolved, prior, data, rows, rng)
    values = _weights(prior) | _correlations(resolved, prior) | _spread(mixture, resolved, rows)
    out = xr.Dataset({name: ("draw", value) for name, value in values.items()})
    out = out.assign(_intervals(mixture, resolved, rows, y, rng))
    out = out.assign_coords(draw=np.arange(draws), obs=_typical(ensemble))
    out.attrs = {"model": type(model).__name__, "units": ensemble.units, "members": json.dumps(list(ensemble.members))}
    for name in set(MEANING) & set(out.data_vars):
        out[name].attrs["long_name"] = MEANING[str(name)]
    return out


def _typical(ensemble: Ensemble) -> NDArray[np.intp]:
    """Rows with an observation and a member, evenly over the sorted observations."""
    there = np.flatnonzero(ensemble.observed & np.isfinite(ensemble.prediction).any(axis=1))
    order = there[np.argsort(ensemble.require_observation()[there], kind="stable")]
    if len(order) <= ROWS:
        return np.sort(order)
    return np.sort(order[np.linspace(0, len(order) - 1, ROWS).round().astype(int)])


def _law(model: Any, prior: xr.Dataset, data: Any, rows: Ensemble, rng: np.random.Generator) -> tuple[xr.Dataset, Any]:
    """The draws with what `predictive` asks for beside them, and the distribution of rows; corrections are the posterior's."""
    if not (hasattr(model, "training") and model.needs_history):
        prior = _with_levels(model, prior, rows, rng)
        return prior, model.predictive(prior, rows)
    prior = prior.assign_coords(model.coordinates(data))
    if "weight_group" in prior:
        prior = model.complete(prior, data, rng)
    return prior, model.training(prior, rows, model.history(data))


def _with_levels(model: Any, prior: xr.Dataset, ensemble: Ensemble, rng: np.random.Generator) -> xr.Dataset:
    """What `predictive` asks of a posterior beside the drawn variables."""
    if "weight_group" in prior:
        prior = model.complete(prior, ensemble, rng)
    # Effects that the model has integrated out have no draws: without names, every site and group is a new one.
    new = [level for level in getattr(model, "levels", ()) if getattr(model, level, False) and level not in prior.dims]
    return prior.assign_coords({level: (level, np.array([], dtype="U1")) for level in new})


def _weights(prior: xr.Dataset) -> dict[str, Array]:
    if "weight" not in prior:
        return {}
    w = flat(prior["weight"])
    logs = np.log(np.where(w > 0.0, w, 1.0))
    return {"effective_members": np.exp(-np.sum(w * logs, axis=1))}


def _correlations(model: Any, prior: xr.Dataset) -> dict[str, Array]:
    """Of HBM's errors within sites: f - y, which the slopes have a part in, and f given y, which has a prior of its own."""
    if not {"error_sd", "truth_sd"} <= set(prior.data_vars) or prior.sizes["member"] < 2:
        return {}
    covariance = model.moments({str(name): flat(v) for name, v in prior.data_vars.items()})["within"]
    k = covariance.shape[1] - 1
    contrast = np.column_stack([-np.ones(k), np.eye(k)])
    r = _mean_correlation(contrast @ covariance @ contrast.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        k_eff = np.where(1.0 + (k - 1) * r > 0.0, k / (1.0 + (k - 1) * r), np.nan)
    out = {"error_corr": r, "k_eff": k_eff}
    if "residual_corr" in prior:
        out["residual_corr"] = _mean_correlation(flat(prior["residual_corr"]))
    return out


def _mean_correlation(covariance: Array) -> Array:
    sd = np.sqrt(np.einsum("sii->si", covariance))
    above = np.triu_indices(covariance.shape[1], 1)
    correlation = covariance / (sd[:, :, None] * sd[:, None, :])
    return np.asarray(correlation[:, above[0], above[1]].mean(axis=1))


def _spread(mixture: PosteriorMixture, model: Any, rows: Ensemble) -> dict[str, Array]:
    """Exact sd of p(y | f) under each draw, on the model's scale."""
    y = transform(model.transform).forward(rows.require_observation())
    total: Any = 0.0
    for weight, mean, variance in _components(mixture):
        centre = np.sum(weight * mean, axis=2, keepdims=True)
        total = total + np.sum(weight * ((mean - centre) ** 2 + variance), axis=(1, 2))
    return {"relative_sd": np.sqrt(total / len(y)) / np.std(y)}


def _components(mixture: Any) -> Iterator[tuple[Array, Array, Array]]:
    """Weights, means and variances of rows that share their components, (draw, row, component)."""
    if not isinstance(mixture, PosteriorMixture):
        draws = np.arange(len(mixture.draws))
        for rows in mixture.parts(200):
            weight, mean, sd = mixture.components(rows, draws)
            yield weight, mean, sd**2
        return
    for block in mixture.blocks():
        x = np.column_stack([np.ones(len(block.rows)), mixture.f[block.rows]])
        mean = np.einsum("scj,rj->src", block.coefficient, x, optimize=True)
        yield np.broadcast_to(block.weight[:, None], mean.shape), mean, block.variance[:, None]


def _intervals(
    mixture: PosteriorMixture, model: Any, rows: Ensemble, y: Array, rng: np.random.Generator
) -> dict[str, Any]:
    g, observed = transform(model.transform), rows.require_observation()
    drawn = mixture.sample_each(rng)
    low, high = (g.inverse(end) for end in np.quantile(drawn, [0.05, 0.95], axis=0))
    climatology = float(np.subtract(*np.quantile(y, [0.95, 0.05])))
    covered = (low <= observed) & (observed <= high)
    return {
        "replicated_sd": ("draw", np.std(drawn, axis=1) / np.std(g.forward(observed))),
        "width90": ("obs", high - low, {"units": rows.units}), "relative_width": ("obs", (high - low) / climatology),
        "covered90": ("obs", covered), "coverage90": ((), float(covered.mean())),
        "climatology_width90": ((), climatology, {"units": rows.units}),
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- to read
def prior_table(result: xr.Dataset) -> pd.DataFrame:
    """Quantiles of what the priors imply, one quantity a line.

    Parameters
    ----------
    result : Dataset
        From `prior_predictive`.

    Returns
    -------
    DataFrame
        ``quantity``, ``q05``, ``median``, ``q95`` over draws (of ``relative_width`` over rows), ``meaning``; ``coverage90``
        stands under ``median``.

    Examples
    --------
    >>> result = xr.Dataset({"effective_members": ("draw", [1.0, 2.0, 3.0]), "coverage90": 0.97})
    >>> prior_table(result)[["quantity", "median"]].values.tolist()
    [['effective_members', 2.0], ['coverage90', 0.97]]
    """
    lines = []
    for name, meaning in MEANING.items():
        if name in result:
            low, middle, high = np.nanquantile(result[name].values, [0.05, 0.5, 0.95])
            lines.append({"quantity": name, "q05": low, "median": middle, "q95": high, "meaning": meaning})
    share = float(result["coverage90"])
    lines.append({"quantity": "coverage90", "q05": np.nan, "median": share, "q95": np.nan,
                  "meaning": "share of observations inside the 90 % intervals"})  # fmt: skip
    return pd.DataFrame(lines)


def prior_words(result: xr.Dataset) -> str:
    """One paragraph on what the priors imply, and what of it is hard to believe.

    Parameters
    ----------
    result : Dataset
        From `prior_predictive`.

    Returns
    -------
    str

    Examples
    --------
    >>> result = xr.Dataset({"relative_width": ("obs", [3.0, 3.0]), "coverage90": 1.0, "relative_sd": ("draw", [1.0])})
    >>> print(prior_words(result).split(":")[0])
    Before the data, 90 % intervals are 3.0 times as wide as climatology's (median over rows) and hold 100 % of the observations
    """
    width, share = float(result["relative_width"].median()), float(result["coverage90"])
    text = (f"Before the data, 90 % intervals are {width:.1f} times as wide as climatology's (median over rows) and hold "
            f"{100 * share:.0f} % of the observations: {_judged(width, share)}.")  # fmt: skip
    return " ".join([text, *_weight_words(result), *_correlation_words(result)])


def _judged(width: float, share: float) -> str:
    if width > WIDE:
        return (
            "implausibly wide, as if nothing were known of the range of the observations; with many rows that does no harm, with "
            "few it leaves intervals too wide"
        )
    if width < NARROW:
        return "narrow: the priors already promise members far better than climatology"
    if share < 0.8:
        return "the observations stand where the priors do not expect them; look for a bias or a wrong unit"
    return "nothing implausible"


def _weight_words(result: xr.Dataset) -> list[str]:
    if "effective_members" not in result:
        return []
    low, middle, high = np.quantile(result["effective_members"].values, [0.05, 0.5, 0.95])
    members = len(json.loads(result.attrs["members"])) if "members" in result.attrs else 0
    of = f" of {members}" if members else ""
    text = f"The weights are worth {middle:.1f}{of} members (90 % of the draws: {low:.1f} to {high:.1f})"
    if members > 1 and low > 0.95 * members:
        return [text + ": the prior has them nearly equal whatever the data say."]
    if members > 1 and high < 1.5:
        return [text + ": the prior has one member take all."]
    return [text + "."]


def _correlation_words(result: xr.Dataset) -> list[str]:
    if "error_corr" not in result:
        return []
    r = result["error_corr"].values
    low, middle, high = np.quantile(r, [0.05, 0.5, 0.95])
    above = float(np.mean(r > DEPENDENT))
    text = (f"The mean correlation of the members' errors f - y is {middle:.2f} ({low:.2f} to {high:.2f}), which makes "
            f"{float(np.nanmedian(result['k_eff'].values)):.1f} effective members of them; above {DEPENDENT:g} it has the "
            f"probability {above:.2f}")  # fmt: skip
    if above < RARE:
        return [text + ": members that share inputs easily have such errors, and the prior all but rules them out."]
    return [text + "."]
