"""predict, score, draw and add: what a fit says of the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import xarray as xr

from bayesens.arithmetic import plain_arithmetic
from bayesens.distributions.law import Distribution
from bayesens.distributions.levels.recalibration import Recalibration
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
    training_mixture,
)
from bayesens.inference.grid import GridOptions, predict_grid
from bayesens.inference.prediction import QUANTILES, check_levels, prediction
from bayesens.messages import check_keywords, listed

__all__ = ["add", "distribution", "draw", "predict", "score"]


@plain_arithmetic
def predict(
    tree: xr.DataTree, new: Ensemble | xr.Dataset | xr.DataArray, *, quantiles: Sequence[float] = QUANTILES,
    model: Any = None, recalibration: Recalibration | None = None, **grid: Unpack[GridOptions],
) -> xr.Dataset:  # fmt: skip
    """Predictive mean, standard deviation and quantiles of every row of a table, or of every cell of a grid.

    Parameters
    ----------
    tree : DataTree
        A fit.
    new : Ensemble, DataArray or Dataset
        Rows to predict, with or without observations. A member of the fit that it lacks is missing in every row. Or a grid:
        an array with a dimension ``member``, a dataset with such an array ``prediction``, or one with a variable a member, with
        any other dimensions, in memory or of dask.
    quantiles : sequence of float
        Levels in (0, 1).
    model : optional
        The model object, if it is one of your own.
    recalibration : Recalibration, optional
        Of tables alone, from `recalibrate`: quantiles are then those of the fit at other levels, and mean and sd those of the
        recalibrated distribution, without parts. None: the distribution as it is.
    **grid
        Of grids alone. ``below``: thresholds, each a number or a map, of which the probability of lying below is wanted.
        ``site``, ``group``, ``time``, ``lon``, ``lat``: variables of the grid, or arrays on some of its dimensions, that the
        model looks at; covariates are found by their names. ``where``: cells that are wanted. ``missing``: codes for missing
        values, as in `Ensemble.from_frame`. ``variables``: which of mean and standard deviations are wanted; fewer take less
        time, and ``quantiles=[]`` takes least.

    Returns
    -------
    Dataset
        ``mean``, ``sd`` (obs), and the parts whose squares add up to that of ``sd``: ``sd_within`` the kernels,
        ``sd_between`` the members, ``sd_parameter`` what the posterior leaves open; ``quantile_value (obs, quantile)``; in
        the units of the observations. NaN where a model needs a member and a row has none, or needs a covariate
        (``bias_covariates``) that is missing there. Of a grid on its dimensions, with ``quantile_value (quantile, ...)`` and
        ``probability_below (threshold, ...)``; lazy where the grid is, and in its precision.

    Warns
    -----
    UserWarning
        For members that the table lacks, that are empty, or far outside of the range that the fit has seen; rows without any
        or without a covariate, and sites or groups that the fit has not seen. A grid of dask is not looked through for these
        before it is computed; codes for missing values are refused there, chunk by chunk.

    Examples
    --------
    >>> import pandas as pd
    >>> import bayesens as be
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> tree = be.fit(be.SingleMember(bias="none"), ens, method="em")
    >>> be.predict(tree, ens, quantiles=[0.5])["quantile_value"].values.ravel().round(6).tolist()
    [1.0, 2.0, 3.0, 4.0, 5.0]
    >>> wider = be.Recalibration("beta", (0.5, 0.5))
    >>> be.predict(tree, ens, recalibration=wider)["quantile_value"][0, [0, -1]].values.round(2).tolist()
    [-0.64, 2.64]
    >>> grid = xr.DataArray([[[1.0], [2.5]]], {"member": ["a"]}, ("y", "x", "member"))
    >>> be.predict(tree, grid, quantiles=[0.5], below=2.0)["probability_below"].values.round(6).tolist()
    [[[0.936115, 0.22811]]]
    """
    check_fitted_call("predict", tree, new)
    if recalibration is not None:
        return _recalibrated(tree, new, recalibration, quantiles, model, grid)
    if isinstance(new, xr.Dataset | xr.DataArray):
        return predict_grid(tree, new, quantiles=quantiles, model=model, **grid)
    _check_no_grid_options(grid)
    return prediction(tree, new, model=model).summary(quantiles)


def _check_no_grid_options(grid: Mapping[str, Any]) -> None:
    check_keywords(grid, GridOptions.__annotations__, "predict")
    if grid:
        raise TypeError(
            f"predict has {listed(grid)} for grids alone, and got a table: its columns are named when it is made."
        )


def _recalibrated(
    tree: xr.DataTree, new: Any, recalibration: Any, quantiles: Sequence[float], model: Any, grid: Mapping[str, Any]
) -> xr.Dataset:
    """What `predict` says of a table under other levels."""
    if not isinstance(recalibration, Recalibration):
        raise TypeError(
            f"recalibration is a {type(recalibration).__name__}; wanted a be.Recalibration, which be.recalibrate makes"
        )
    if not isinstance(new, Ensemble):
        raise TypeError("recalibration is of tables, and got a grid. Quantiles of a grid are recalibrated by their levels: "
                        "predict(fit, grid, quantiles=recalibration.quantile([0.05, 0.5, 0.95])), and probabilities of lying "
                        "below by recalibration.cdf; mean and sd stay those of the fit")  # fmt: skip
    _check_no_grid_options(grid)
    return prediction(tree, new, model=model).recalibrated(recalibration, quantiles)


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
    check_levels(levels, "levels")
    check_given(new, model)
    column = new.columns.get("observation", "observation")
    values = new.require_observation()
    if not new.observed.any():
        raise ValueError(
            f"Column {column!r} has no value in any of the {new.n_obs} rows, so there is nothing to score."
        )
    transform(model_of(tree, model).transform).check(values, column=column)
    return prediction(tree, new, rows=new.observed, model=model).scores(levels, random_seed=random_seed)


@plain_arithmetic
def draw(
    tree: xr.DataTree, new: Ensemble | xr.Dataset | xr.DataArray, *, size: int = 1000, random_seed: int | None = None,
    model: Any = None, field: Any = None, **grid: Unpack[GridOptions],
) -> xr.DataArray:  # fmt: skip
    """Draw from the predictive distribution of every row of a table, or of every cell of a grid.

    Rows are independent given the parameters. The cells of a grid hang together in space and time, so that averages over areas
    and what a single draw looks like may be taken from them.

    Parameters
    ----------
    tree : DataTree
        A fit.
    new : Ensemble, DataArray or Dataset
        Rows or a grid, as in `predict`.
    size : int
        Number of draws.
    random_seed : int, optional
        The same seed gives the same draws; of a grid, a cell has the same whatever cells and chunks there are.
    model : optional
        The model object, if it is one of your own.
    field : ResidualField, optional
        Of grids, which need it: how errors hang together (`residual_field`). The grid has the coordinates that it names.
    **grid
        Of grids, as in `predict`, but for ``below`` and ``variables``; ``time`` where the grid's is called otherwise.

    Returns
    -------
    DataArray (sample, obs), or (sample, ...)
        In the units of the observations. Each sample uses one posterior draw for all rows or cells; effects of new sites are
        drawn row by row, also where ``HBM(series=True)`` has conditioned them on the site's members. A cell's value is that of
        its distribution under the posterior draw, at the probability that the field has there. Lazy where the grid is.

    Examples
    --------
    >>> import pandas as pd
    >>> import bayesens as be
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [1.5, 1.5, 3.5, 4.5, 4.0]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y")
    >>> tree = be.fit(be.SingleMember(bias="none"), ens, method="em")
    >>> be.draw(tree, ens, size=3, random_seed=1).shape
    (3, 5)
    >>> grid = xr.Dataset({"a": (("y", "x"), [[2.0, 3.0]])}, {"x": [0.0, 12.0], "y": [0.0]})  # km
    >>> field = be.ResidualField(range=40.0, places=("x", "y"))
    >>> be.draw(tree, grid, size=3, random_seed=1, field=field).sizes
    Frozen({'sample': 3, 'y': 1, 'x': 2})
    """
    if size < 1 or int(size) != size:
        raise ValueError(f"size must be a whole number of at least 1; got {size!r}.")
    if isinstance(new, xr.Dataset | xr.DataArray) and isinstance(tree, xr.DataTree):
        from bayesens.inference.grid_draws import draw_grid

        return draw_grid(tree, new, field=field, size=int(size), random_seed=random_seed, model=model, **grid)
    check_fitted_call("draw", tree, new)
    if field is not None:
        raise TypeError(
            "field is of grids; rows of a table that hang together through time are those of be.trajectories"
        )
    check_keywords(grid, GridOptions.__annotations__, "draw")
    if grid:
        raise TypeError(f"{listed(sorted(grid))} of be.draw are of grids; got a table")
    return prediction(tree, new, model=model).draw(int(size), random_seed=random_seed)


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
    return prediction(tree, new, rows=wanted, model=model).law


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
