"""Power-scaling: how a posterior moves when its priors, or its likelihood, count for a little more or less."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens import models
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.fit_tree import check_fit_tree, check_training_rows, history_of, log_likelihood_of, model_of
from bayesens.inference.sampling.psis import good_k
from bayesens.messages import check_known, listed
from bayesens.sensitivity.importance_weights import NO_TAIL, SAMPLE, importance_weights, smoothed_log_weights

__all__ = ["power_scaling", "power_words", "scaled_draws"]

COMPONENTS = ("prior", "likelihood")
ALPHAS = (0.99, 1.01)  # those of priorsense and ArviZ
MIN_DRAWS = 25  # draws: of fewer a Pareto tail cannot be fitted
CONFLICT, STRONG, FINE = "prior-data conflict", "strong prior or weak likelihood", "-"


def power_scaling(
    tree: xr.DataTree,
    ensemble: Ensemble | None = None,
    *,
    var_names: Sequence[str] | None = None,
    threshold: float = 0.05,
    joint: bool = True,
) -> pd.DataFrame:
    """How sensitive every quantity of a posterior is to its priors and to its likelihood, without fitting again.

    The draws of the fit are given weights as if the top-level priors, or the likelihood, were raised to the powers .99 and
    1.01, and the distance between the two distributions of each quantity is put in relation to the change (`arviz.psense`).
    Only the priors in the group ``log_prior`` are scaled: those of the effects of groups and sites given their standard
    deviations, and of BMA's sigmas given their mean, are part of the hierarchy and stay as they are.

    The likelihood that is scaled is the one that was fitted, ``sample_stats/log_joint``. For HBM this is the *joint*
    likelihood p(y, f | parameters) with the effects integrated out. ``arviz.psense(tree, group="likelihood")`` would scale
    ``log_likelihood/y``, which is p(y | f, parameters, effects) only: the members' part of the likelihood would then count
    among what does not change. ``joint=False`` does that, to compare.

    Parameters
    ----------
    tree : DataTree
        A fit by Laplace or NUTS. Where it was fitted with powers of its own, these are what is scaled.
    ensemble : Ensemble, optional
        The training rows; needed with ``joint=False`` alone, and if the fit has no ``log_likelihood``.
    var_names : sequence of str, optional
        Variables of the posterior. None takes all but effects of groups and sites and the parts of correlation matrices.
    threshold : float
        Sensitivity above which a quantity counts as sensitive.
    joint : bool
        Scale the likelihood that was fitted. False scales p(y | f), which differs for HBM.

    Returns
    -------
    DataFrame
        One line a quantity: ``variable`` with its labels, such as ``weight[rf]``; ``prior`` and ``likelihood``, the
        sensitivities (cumulative Jensen-Shannon distance per doubling of the power); ``diagnosis``: "prior-data conflict"
        (both above the threshold), "strong prior or weak likelihood" (the prior's alone), "-" (neither), or why there is
        none; ``mean`` and ``sd`` of the posterior; ``k_prior_low``, ``k_prior_high``, ``k_likelihood_low``,
        ``k_likelihood_high``, Pareto k of the four weightings (minus infinity: all weights equal). Where a k is above what
        the number of draws allows, the sensitivity is NaN. ``attrs`` name the model and the likelihood that was scaled.

    Raises
    ------
    ValueError
        A fit by EM, which has no draws; fewer than 25 draws; a fit without its log likelihood.
    KeyError
        An unknown variable.

    References
    ----------
    Kallioinen, Paananen, Buerkner and Vehtari (2024), Statistics and Computing 34, 57.

    Examples
    --------
    >>> import bayesens as be
    >>> y = np.array([0.1, 0.4, 0.2, 0.5, 0.3, 0.6])
    >>> frame = pd.DataFrame({"rf": y + [0.01, -0.01, 0.02, 0.0, -0.02, 0.01], "sm": y})
    >>> ensemble = be.Ensemble.from_frame(frame, members=["rf"], observation="sm")
    >>> tree = be.fit(be.SingleMember(correction="joint", bias="none"), ensemble, method="laplace", random_seed=1)
    >>> power_scaling(tree)[["variable", "diagnosis"]].values.tolist()
    [['sigma_mean', 'prior-data conflict'], ['sigma[rf]', 'prior-data conflict']]
    """
    import arviz as az

    _check(tree)
    quantity = _quantities(tree["posterior"].to_dataset(), var_names)
    log_density = {name: _log_density(tree, name, joint=joint, ensemble=ensemble) for name in COMPONENTS}
    made = xr.DataTree.from_dict({
        "posterior": quantity.to_dataset(name="quantity"),
        "log_prior": log_density["prior"].to_dataset(name="prior"),
        "log_likelihood": log_density["likelihood"].to_dataset(name="likelihood"),
    })  # fmt: skip
    table = pd.DataFrame({"variable": quantity["name"].values})
    best = good_k(quantity.sizes["chain"] * quantity.sizes["draw"])
    shapes: dict[str, float] = {}
    for name in COMPONENTS:
        k = [smoothed_log_weights((alpha - 1.0) * log_density[name].values)[1] for alpha in ALPHAS]
        shapes |= {f"k_{name}_low": k[0], f"k_{name}_high": k[1]}
        if max(k) == NO_TAIL:
            table[name] = 0.0  # flat: raised to any power it is the same
        elif max(k) > best:
            table[name] = np.nan
        else:
            table[name] = az.psense(made, group=name, alphas=ALPHAS)["quantity"].values
    table["diagnosis"] = _diagnoses(table, threshold, max(shapes.values()), best)
    table["mean"] = quantity.mean(SAMPLE).values
    table["sd"] = quantity.std(SAMPLE).values
    table = table.assign(**shapes)
    table.attrs = {"model": str(tree.attrs["bayesens_model"]), "threshold": threshold,
                   "likelihood": _scaled_likelihood(tree, joint)}  # fmt: skip
    return table


def _diagnoses(table: pd.DataFrame, threshold: float, k: float, best: float) -> list[str]:
    none = f"none: Pareto k {k:.2f} is above {best:.2f}"
    out = []
    for prior, likelihood in table[list(COMPONENTS)].itertuples(index=False):
        if np.isnan(prior) or np.isnan(likelihood):
            out.append(none)
        elif prior < threshold:
            out.append(FINE)
        else:
            out.append(CONFLICT if likelihood >= threshold else STRONG)
    return out


def _scaled_likelihood(tree: xr.DataTree, joint: bool) -> str:
    """What the likelihood is the density of."""
    if not joint:
        return "p(y | f)"
    return "p(y, f)" if _is_joint(tree.attrs["bayesens_model"]) else "p(y | f)"


def _is_joint(name: str) -> bool:
    """Whether a model of this name is fitted to observation and members jointly."""
    return bool(getattr(getattr(models, str(name), None), "joint", False))


def power_words(table: pd.DataFrame) -> str:
    """One paragraph that says what power-scaling found, and which likelihood was scaled.

    Parameters
    ----------
    table : DataFrame
        From `power_scaling`.

    Returns
    -------
    str

    Examples
    --------
    >>> table = pd.DataFrame({"variable": ["weight[rf]", "bias[rf]"], "prior": [0.01, 0.2], "likelihood": [0.1, 0.02],
    ...                       "diagnosis": ["-", "strong prior or weak likelihood"]})
    >>> table.attrs = {"model": "BMA", "likelihood": "p(y | f)", "threshold": 0.05}
    >>> print(power_words(table).split(". ")[0])
    1 of 2 quantities is sensitive to the priors (above 0.05): bias[rf] (0.200)
    """
    known = table[~table["diagnosis"].str.startswith("none")]
    unsure = len(table) - len(known)
    parts = []
    if len(known):
        parts.append(_prior_words(known, float(table.attrs.get("threshold", 0.05))))
    if unsure:
        why = table.loc[table["diagnosis"].str.startswith("none"), "diagnosis"].iloc[0]
        which = "Nothing" if unsure == len(table) else f"For {unsure} of {len(table)} quantities nothing"
        parts.append(
            f"{which} can be said without refits ({why}): fit again with prior_power=0.8 and 1.25, or take more draws."
        )
    parts.append(_likelihood_words(table))
    return " ".join(parts)


def _prior_words(table: pd.DataFrame, threshold: float) -> str:
    moved = table[table["diagnosis"].isin([CONFLICT, STRONG])].sort_values("prior", ascending=False)
    if not len(moved):
        top = table.iloc[int(table["prior"].argmax())]
        return (f"No quantity of {len(table)} is sensitive to the priors (above {threshold:g}); "
                f"the nearest is {top['variable']} ({top['prior']:.3f}).")  # fmt: skip
    verb = "is" if len(moved) == 1 else "are"
    told = [f"{one.variable} ({one.prior:.3f})" for one in moved.itertuples()]
    text = (
        f"{len(moved)} of {len(table)} quantities {verb} sensitive to the priors (above {threshold:g}): {_some(told)}."
    )
    for name, meaning in (
        (STRONG, "the priors say more there than the data do"),
        (CONFLICT, "priors and data pull there in different directions, or both are strong"),
    ):
        if some := list(moved.loc[moved["diagnosis"] == name, "variable"]):
            text += f" {name.capitalize()} ({meaning}): {_some(some)}."
    return text


def _some(names: Sequence[str], most: int = 5) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _likelihood_words(table: pd.DataFrame) -> str:
    likelihood = str(table.attrs.get("likelihood", "p(y | f)"))
    text = f"The likelihood that was scaled is {likelihood} given the parameters"
    if likelihood == "p(y, f)":
        return text + (", the joint one of observation and members that was fitted (sample_stats/log_joint); arviz.psense on "
                       "log_likelihood/y scales p(y | f) only, which answers another question.")  # fmt: skip
    if _is_joint(table.attrs.get("model", "")):
        return text + ", the conditional part only; what was fitted is the joint p(y, f)."
    return (
        text
        + "; rows count as independent in it, so where they share their errors the data seem stronger than they are."
    )


# ------------------------------------------------------------------------------------------------------- weights of draws
def scaled_draws(
    tree: xr.DataTree, ensemble: Ensemble | None = None, *, component: str, power: float, joint: bool = True
) -> xr.DataArray:
    """Weights that turn the draws of a fit into those of the posterior with its priors, or its likelihood, raised to a power.

    Parameters
    ----------
    tree : DataTree
        A fit by Laplace or NUTS.
    ensemble : Ensemble, optional
        The training rows; needed with ``joint=False`` alone, and if the fit has no ``log_likelihood``.
    component : {"prior", "likelihood"}
        Which one; see `power_scaling` for what that is.
    power : float
        Above zero. Of a fit with ``prior_power`` or ``likelihood_power`` it comes on top of these.
    joint : bool
        As in `power_scaling`.

    Returns
    -------
    DataArray (chain, draw)
        Smoothed weights that sum to one; ``attrs`` hold ``pareto_k``, ``ess`` (1 / sum of squares), ``component`` and
        ``power``.

    Raises
    ------
    ValueError
        If Pareto k says that the weights cannot be trusted, and as `power_scaling`.

    Examples
    --------
    >>> import bayesens as be
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ensemble = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> tree = be.fit(be.SingleMember(bias="none"), ensemble, method="laplace", random_seed=1)
    >>> weight = scaled_draws(tree, component="likelihood", power=1.0)
    >>> float(weight[0, 0] * weight.size)
    1.0
    """
    _check(tree)
    if not (np.isfinite(power) and power > 0.0):
        raise ValueError(f"power is above zero, and 1 for no change; got {power!r}")
    log_ratio = (power - 1.0) * _log_density(tree, component, joint=joint, ensemble=ensemble)
    keyword = f"{component}_power={power * _fitted_power(tree, component):g}"
    out = importance_weights(log_ratio, otherwise=f"fit again with {keyword}")
    out.attrs |= {"component": component, "power": float(power)}
    return out


# ------------------------------------------------------------------------------------------------------------- what is scaled
def _check(tree: xr.DataTree) -> None:
    check_fit_tree(tree)
    if int(tree.attrs["point_estimate"]):
        raise ValueError(
            "a fit by method='em' is one point and has no draws to weigh; fit with method='auto' or 'nuts'"
        )
    draws = tree["posterior"].sizes["chain"] * tree["posterior"].sizes["draw"]
    if draws < MIN_DRAWS:
        raise ValueError(f"the fit has {draws} draws, and a Pareto tail needs {MIN_DRAWS} or more; fit with more draws")


def _fitted_power(tree: xr.DataTree, component: str) -> float:
    return float(tree.attrs.get(f"{component}_power", 1.0))


def _log_density(tree: xr.DataTree, component: str, *, joint: bool, ensemble: Ensemble | None) -> xr.DataArray:
    """Log of the part of the posterior that is raised to a power, as it stands there, (chain, draw)."""
    check_known([component], COMPONENTS, kind="component", where="a posterior")
    if component == "prior":
        variables = tree["log_prior"].to_dataset().data_vars.values()
        each = [v.sum([dim for dim in v.dims if dim not in SAMPLE]) for v in variables]
        total = sum(each[1:], start=each[0])
    elif joint:
        total = tree["sample_stats"].to_dataset()["log_joint"]
    else:
        total = _conditional(tree, ensemble).sum("obs")
    values = total.transpose(*SAMPLE).values * _fitted_power(tree, component)
    posterior = tree["posterior"]
    return xr.DataArray(values, {dim: posterior[dim].values for dim in SAMPLE}, SAMPLE)


def _conditional(tree: xr.DataTree, ensemble: Ensemble | None) -> xr.DataArray:
    """Log p(y_i | f_i, draw), (chain, draw, obs)."""
    if "log_likelihood" in tree.children:
        return tree["log_likelihood"].to_dataset()["y"]
    if ensemble is None:
        raise ValueError("the fit has left out its log_likelihood, which joint=False scales; pass the training rows as "
                         "ensemble=")  # fmt: skip
    check_training_rows(tree, ensemble)
    return log_likelihood_of(model_of(tree), tree["posterior"].to_dataset(), ensemble, history_of(tree))


def _quantities(posterior: xr.Dataset, var_names: Sequence[str] | None) -> xr.DataArray:
    """The scalars of a posterior under their names, (chain, draw, name); those that do not vary are left out."""
    if var_names is None:
        var_names = [str(name) for name, v in posterior.data_vars.items() if _of_interest(str(name), v)]
    else:
        var_names = [var_names] if isinstance(var_names, str) else list(var_names)
        check_known(var_names, list(posterior.data_vars), kind="variable", where="the posterior")
    found = {label: draws for name in var_names for label, draws in _scalars(name, posterior[name])}
    found = {label: draws for label, draws in found.items() if np.ptp(draws) > 0.0}
    if not found:
        raise ValueError(f"{listed(var_names)} do not vary over the draws; name variables that do")
    return xr.DataArray(
        np.stack(list(found.values()), axis=-1),
        {dim: posterior[dim].values for dim in SAMPLE} | {"name": np.array(list(found))}, (*SAMPLE, "name"),
    )  # fmt: skip


def _of_interest(name: str, variable: xr.DataArray) -> bool:
    """Effects are many; the correlation matrix of f - y stands for the parts that the others are made of."""
    part = name.endswith("_common") or (name.endswith("_corr") and name != "error_corr")
    return not part and not {"site", "group"} & set(variable.dims)


def _scalars(name: str, variable: xr.DataArray) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Scalars of a variable with their labels; of a symmetric matrix those above the diagonal."""
    dims = [str(dim) for dim in variable.dims if dim not in SAMPLE]
    values = variable.transpose(*SAMPLE, *dims).values
    for index in np.ndindex(*values.shape[2:]):
        at = dict(zip(dims, index, strict=True))
        if {"member", "member_"} <= set(at) and at["member_"] <= at["member"]:
            continue
        labels = [str(variable[dim].values[i]) if dim in variable.coords else str(i) for dim, i in at.items()]
        yield (f"{name}[{', '.join(labels)}]" if labels else name), values[(slice(None), slice(None), *index)]
