"""What a fit holds: its model, its history, the rows it was made from; read from disk and written there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesens import models
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.files import write_netcdf
from bayesens.ensemble.streaming import SufficientStatistics
from bayesens.ensemble.transforms import transform
from bayesens.inference.fit_contents import ATTRIBUTES, FORMAT
from bayesens.likelihoods.options import options_from_json, options_to_json
from bayesens.messages import listed
from bayesens.tables.atomic import write_atomically
from bayesens.tables.reading import HDF5, check_there, first_bytes, unreadable

__all__ = [
    "check_fit_tree",
    "check_given",
    "check_power_one",
    "check_training_rows",
    "history_of",
    "log_likelihood_of",
    "model_of",
    "no_log_likelihood",
    "on_model_scale",
    "optimum",
    "read_fit",
    "training_mixture",
    "write_fit",
]


def read_fit(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a fit into memory; the file is closed again.

    Parameters
    ----------
    path : str or path
        A NetCDF file written by `write_fit` or by ``fit.to_netcdf``.

    Returns
    -------
    xarray.DataTree

    Raises
    ------
    FileNotFoundError, IsADirectoryError
    ValueError
        Not a NetCDF file, a truncated one, one that is no bayesens fit, one of a newer format.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "fit.nc"
    ...     _ = path.write_text("weight,0.5")
    ...     read_fit(path)
    Traceback (most recent call last):
    ...
    ValueError: ...fit.nc (10 bytes) is not a NetCDF-4 file: it starts with b'weight,0'; wanted a fit written by ...
    """
    path = Path(path)
    check_there(path, folder=False)
    start = first_bytes(path)
    if start != HDF5:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is not a NetCDF-4 file: it starts with {start!r}; wanted a fit "
            "written by bayesens"
        )
    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            tree.load()
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # As in read_table.
        raise unreadable(path, "a fit (NetCDF-4)", error) from error
    try:
        check_fit_tree(tree)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return tree


def check_fit_tree(tree: xr.DataTree) -> None:
    """Refuse a tree that is no bayesens fit, or one of a newer format.

    Parameters
    ----------
    tree : xarray.DataTree
        With the group ``posterior`` and the attributes that predictions are made from at its root: the integer
        ``bayesens_format`` and the texts ``bayesens_model``, ``bayesens_options``, ``bayesens_members``, ``columns`` and
        ``units``.

    Raises
    ------
    TypeError
        Not a tree.
    ValueError

    Examples
    --------
    >>> check_fit_tree(xr.DataTree())
    Traceback (most recent call last):
    ...
    ValueError: this is no bayesens fit: its root has no attributes 'bayesens_format', 'bayesens_model'; ...
    """
    came: object = tree
    if not isinstance(came, xr.DataTree):
        raise TypeError(f"got {type(came).__name__}; wanted a fit, the xarray.DataTree that fit returns")
    lacking = [name for name in ("bayesens_format", "bayesens_model") if name not in tree.attrs]
    if lacking:
        raise ValueError(
            f"this is no bayesens fit: its root has no attributes {listed(lacking)}; wanted what fit returns"
        )
    version = np.asarray(tree.attrs["bayesens_format"])
    if version.size != 1 or version.dtype.kind not in "iu" or version.item() < 1:
        raise ValueError(
            f"this is no bayesens fit: its attribute 'bayesens_format' is {tree.attrs['bayesens_format']!r}; wanted a "
            f"whole number from 1 to {FORMAT}"
        )
    if version.item() < FORMAT:
        raise ValueError(
            f"this fit has format {version.item()}, of a bayesens whose models had other options, and this one reads format "
            f"{FORMAT}: fit again"
        )
    if version.item() > FORMAT:
        raise ValueError(
            f"this fit has format {version.item()}, and this bayesens reads formats up to {FORMAT}: upgrade bayesens, "
            "or fit again with this one"
        )
    lost = [name for name in ATTRIBUTES if name not in tree.attrs]
    lost += [] if "posterior" in tree.children else ["posterior"]
    if lost:
        raise ValueError(
            f"this fit ({tree.attrs['bayesens_model']}) has lost {listed(lost)}; wanted all that fit "
            "returned: take the file as it was first written, or fit again"
        )


def write_fit(tree: xr.DataTree, path: str | os.PathLike[str]) -> None:
    """Write a fit to a NetCDF file, whole or not at all.

    Parameters
    ----------
    tree : xarray.DataTree
        What ``fit`` returned.
    path : str or path
        With the suffix ``.nc``.

    Raises
    ------
    OSError
        As in `check_writable`.
    TypeError, ValueError
        Another suffix, or a tree that is no fit (it could not be read back).

    Examples
    --------
    >>> import tempfile
    >>> tree = xr.DataTree.from_dict({"/posterior": xr.Dataset({"sigma": 1.0})})
    >>> texts = {"bayesens_options": "{}", "bayesens_members": "[]", "columns": "{}", "units": ""}
    >>> tree.attrs = {"bayesens_format": 2, "bayesens_model": "BMA"} | texts
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_fit(tree, Path(folder) / "fit.nc")
    ...     read_fit(Path(folder) / "fit.nc").attrs["bayesens_model"]
    'BMA'
    """
    check_fit_tree(tree)
    if Path(path).suffix.lower() != ".nc":
        raise ValueError(f"{path} has the suffix {Path(path).suffix!r}; a fit is a NetCDF file: name it with .nc")
    with write_atomically(path) as aside:
        write_netcdf(tree, aside)


def check_given(ensemble: Any, model: Any = None) -> None:
    """Refuse a table in place of an ensemble, and a class in place of a model."""
    if isinstance(model, type):
        raise TypeError(
            f"wanted a model, got the class {model.__name__}; write {model.__name__}(), with its options in brackets"
        )
    if not isinstance(ensemble, Ensemble):
        raise TypeError(f"wanted an Ensemble, got {type(ensemble).__name__}; make one with be.Ensemble.from_frame(frame, "
                        "members=[...], observation=...)")  # fmt: skip


def model_of(tree: xr.DataTree, model: Any = None) -> Any:
    """Rebuild the model of a fit, or check the given one against it.

    Parameters
    ----------
    tree : DataTree
        A fit.
    model : optional
        The model object, for models that bayesens does not have; its options must be those of the fit.

    Returns
    -------
    model
        Resolved: with the centre and the scales of the fit.

    Raises
    ------
    ValueError
        If the tree is no fit, if its model is unknown, or if another model is given.
    """
    check_fit_tree(tree)
    name, options = str(tree.attrs["bayesens_model"]), json.loads(tree.attrs["bayesens_options"])
    if model is not None:
        rebuilt = options_from_json(type(model), options)
        asked = options_to_json(model)
        fixed = {key: value for key, value in asked.items() if value is not None}
        found = options_to_json(rebuilt)
        different = [key for key, value in fixed.items() if json.dumps(found[key]) != json.dumps(value)]
        if type(model).__name__ != name or different:
            raise ValueError(
                f"The fit holds the model {name}; the model given is {type(model).__name__}"
                + (f" with other values of {', '.join(different)}" if different else "")
                + ". Pass the model that was fitted."
            )
        return rebuilt
    if name not in models.KINDS.values():
        raise ValueError(f"The fit holds the model {name!r}, which bayesens does not have; pass it as model=.")
    return options_from_json(getattr(models, name), options)


def history_of(tree: xr.DataTree) -> xr.Dataset | None:
    """What predictions of a fit take from its training rows, if anything."""
    return tree["history"].to_dataset() if "history" in tree.children else None


def training_mixture(model: Any, posterior: xr.Dataset, rows: Ensemble, history: xr.Dataset | None = None) -> Any:
    """Distribution of training rows under each draw, as a fit has it.

    Parameters
    ----------
    model : model
        Resolved.
    posterior : Dataset
    rows : Ensemble
        Training rows, all or some.
    history : Dataset, optional
        Of the fit, from `history_of`.
    """
    return model.training(posterior, rows, history) if hasattr(model, "training") else model.predictive(posterior, rows)


def log_likelihood_of(
    model: Any, posterior: xr.Dataset, ensemble: Ensemble, history: xr.Dataset | None = None
) -> xr.DataArray:
    """Log p(y_i | f_i, draw) in the observation's units, (chain, draw, obs), over rows with an observation."""
    index = np.nonzero(ensemble.observed)[0]
    rows = ensemble.select(rows=index)
    mixture = training_mixture(model, posterior, rows, history)
    z, below, jacobian = on_model_scale(model, rows.require_observation())
    values = mixture.log_likelihood(z, below)
    values += jacobian
    shape = posterior.sizes["chain"], posterior.sizes["draw"], len(index)
    return xr.DataArray(values.reshape(shape), dims=("chain", "draw", "obs"), name="y",
                        coords={"chain": posterior["chain"], "draw": posterior["draw"], "obs": index})  # fmt: skip


def on_model_scale(model: Any, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations on the scale of a model's transform, which of them are a point mass, and the log Jacobian.

    Under the square root an observation of zero stands for all values below zero: its density is their probability.
    """
    g = transform(model.transform)
    below = (y == 0.0) if model.transform == "sqrt" else np.zeros(len(y), dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        return g.forward(y), below, np.where(below, 0.0, g.log_jacobian(y))


def check_training_rows(tree: xr.DataTree, ensemble: Ensemble) -> None:
    """Refuse rows that are not those of the fit."""
    if tree.attrs["data_digest"] not in _digests(ensemble):
        raise ValueError(
            "This ensemble is not the one that was fitted (its digest differs); pass the training rows as they were."
        )


def _digests(ensemble: Ensemble) -> Iterator[str]:
    """Digest of a table as a fit may have it: of the table itself, or of its observed rows in whatever order."""
    yield ensemble.digest
    if ensemble.observed.any():
        yield SufficientStatistics.from_ensembles([ensemble]).digest


def optimum(tree: xr.DataTree) -> dict[str, list[float]] | None:
    """Where the posterior density of a fit is highest, for a warm start of another.

    Parameters
    ----------
    tree : DataTree
        A fit.

    Returns
    -------
    dict of variable to list of float, or None
        On the unconstrained scale. None where there was no search, or where it found several optima: all of them are to
        be looked for anew then.
    """
    check_fit_tree(tree)
    if "optimum" not in tree.attrs or len(json.loads(tree.attrs["modes"])) != 1:
        return None
    found: dict[str, list[float]] = json.loads(tree.attrs["optimum"])
    return found


def no_log_likelihood(power: float) -> str:
    """Why a posterior made with a power of the likelihood has none of what arviz.loo takes."""
    return (f"The posterior was made with likelihood_power={power:g}, and arviz.loo would take rows out of it at a power of "
            "one: it has no log_likelihood. Use be.loo(tree, ensemble), which knows the power.")  # fmt: skip


def check_power_one(tree: xr.DataTree) -> None:
    """Refuse a fit with a power of the likelihood where ArviZ would take its log likelihood for that of the posterior.

    Parameters
    ----------
    tree : DataTree
        A fit.

    Raises
    ------
    ValueError
        If it was made with a ``likelihood_power`` other than one.
    """
    if (power := float(tree.attrs.get("likelihood_power", 1.0))) != 1.0:
        raise ValueError(no_log_likelihood(power))
