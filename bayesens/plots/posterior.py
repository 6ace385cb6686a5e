"""Posterior weights and biases of the members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from bayesens.plots.axes import forest, labelled
from bayesens.plots.given import by_name, posterior_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["biases", "source_biases", "weights"]

Posterior = xr.DataTree | xr.Dataset


def weights(posterior: Posterior | Mapping[str, Posterior], *, ax: Axes | None = None) -> Axes:
    """Forest of the posterior weight by member: median, 50 % interval (thick) and 90 % interval (thin).

    Parameters
    ----------
    posterior : DataTree or Dataset, or mapping of str to these
        A fit, a fitted `EnsembleRegressor`, or a posterior with ``weight (chain, draw, member)``; where there is none,
        ``linear_weight``, which may be negative. Of weights by group they are those of a typical one, and of weights that follow
        covariates those at the covariates' means: `summary` says how far they move. A mapping draws several models side by side
        under its names.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        What is no fit and no posterior.
    ValueError
        If a posterior has neither variable, or members with dimensions other than chain and draw.

    Examples
    --------
    >>> import numpy as np
    >>> draws = np.random.default_rng(1).dirichlet([5, 3, 2], size=(4, 100))
    >>> posterior = xr.Dataset({"weight": (("chain", "draw", "member"), draws)}, {"member": ["rf", "mlr", "svr"]})
    >>> ax = weights(posterior)
    >>> ax.get_xlabel(), [label.get_text() for label in ax.get_yticklabels()]
    ('Weight', ['rf', 'mlr', 'svr'])
    """
    series = {}
    for label, draws in _named(posterior).items():
        _check_weights(draws, label)
        name = "weight" if "weight" in draws else "linear_weight"
        series[f"{label} (linear weight)" if name != "weight" and label else label] = _draws(draws, name)
    return forest(series, "Weight", ax)


def biases(posterior: Posterior | Mapping[str, Posterior], *, units: str = "", ax: Axes | None = None) -> Axes:
    """Forest of the posterior bias by member: median, 50 % interval (thick) and 90 % interval (thin).

    Parameters
    ----------
    posterior : DataTree or Dataset, or mapping of str to these
        A fit, or a posterior with ``bias (chain, draw, member)``, member minus observation. A mapping draws several
        models side by side, or several groups: ``{g: Dataset({"bias": post.bias + post.bias_group.sel(group=g)}) for g
        in ...}``.
    units : str, optional
        Units of the bias; without them those in ``posterior["bias"].attrs``.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        What is no fit and no posterior; one without ``bias``, or with other dimensions than chain, draw and member.

    Examples
    --------
    >>> import numpy as np
    >>> draws = np.random.default_rng(1).normal([0.01, -0.02], 0.005, size=(4, 100, 2))
    >>> posterior = xr.Dataset({"bias": (("chain", "draw", "member"), draws)}, {"member": ["rf", "mlr"]})
    >>> biases(posterior, units="m3 m-3").get_xlabel()
    'Bias, member minus observation [m³ m⁻³]'
    """
    series = {label: _draws(draws, "bias") for label, draws in _named(posterior).items()}
    units = units or next((str(bias.attrs["units"]) for bias in series.values() if "units" in bias.attrs), "")
    return forest(series, labelled("Bias, member minus observation", units), ax)


def source_biases(posterior: Posterior, *, units: str = "", ax: Axes | None = None) -> Axes:
    """Forest of the bias of every member in every group: median, 50 % interval (thick) and 90 % interval (thin).

    Parameters
    ----------
    posterior : DataTree or Dataset
        A fit of HBM, or its posterior: ``bias (chain, draw, member)`` and ``bias_group (chain, draw, group, member)``,
        member minus observation.
    units : str, optional
        Of the biases; without them those in ``posterior["bias"].attrs``.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        What is no fit and no posterior, or one without biases of groups.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> bias = ("chain", "draw", "member"), rng.normal(0.0, 0.01, (2, 50, 2))
    >>> shift = ("chain", "draw", "group", "member"), rng.normal(0.0, 0.01, (2, 50, 3, 2))
    >>> posterior = xr.Dataset({"bias": bias, "bias_group": shift}, {"member": ["rf", "mlr"], "group": ["a", "b", "c"]})
    >>> [text.get_text() for text in source_biases(posterior).get_legend().get_texts()]
    ['a', 'b', 'c']
    """
    posterior = posterior_of(posterior)
    if "bias_group" not in posterior:
        raise ValueError(
            f"the posterior has no 'bias_group', only {list(posterior.data_vars)}; wanted a fit of HBM with groups"
        )
    shifted = posterior["bias"] + posterior["bias_group"]
    units = units or str(posterior["bias"].attrs.get("units", ""))
    groups = {str(name): shifted.sel(group=name, drop=True) for name in posterior["group"].values}
    return biases({name: xr.Dataset({"bias": draws}) for name, draws in groups.items()}, units=units, ax=ax)


def _named(posterior: Any) -> dict[str, xr.Dataset]:
    """Posteriors by name."""
    found = by_name(posterior)
    return {name: posterior_of(one, f" under the name {name!r}" if name else "") for name, one in found.items()}


def _check_weights(posterior: xr.Dataset, label: str) -> None:
    if not {"weight", "linear_weight"} & {*posterior.data_vars}:
        raise ValueError(
            f"the posterior{f' of {label!r}' if label else ''} has neither 'weight' nor 'linear_weight', only "
            f"{list(posterior.data_vars)}; wanted a model that weights its members, such as BMA"
        )


def _draws(posterior: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable with its dimensions in the order chain, draw, member."""
    if name not in posterior:
        raise ValueError(
            f"the posterior has no {name!r}, only {list(posterior.data_vars)}; wanted a fit whose model has it"
        )
    if set(posterior[name].dims) != {"chain", "draw", "member"}:
        raise ValueError(f"{name!r} has dimensions {posterior[name].dims}; select down to chain, draw and member")
    return posterior[name].transpose("chain", "draw", "member")
