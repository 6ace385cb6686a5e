"""Fitted members as a folder of files: skops for the estimators, JSON for the rest, and never pickle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from bayesens.ensemble.files import write_netcdf
from bayesens.messages import listed, warn

__all__ = ["TRUSTED", "read_members", "write_members"]

INDEX, DAY = "members.json", "neighbours.nc"
# What a file may make besides what skops trusts by itself (scikit-learn's public estimators, numpy's and scipy's types).
TRUSTED = (
    "bayesens.estimators.EarlyStoppedXGB",  # as members were written before these moved
    "bayesens.estimators.RowCap",
    "bayesens.members.estimators.EarlyStoppedXGB",
    "bayesens.members.estimators.RowCap",
    "numpy.dtype",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Matern",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.Sum",
    "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.MinkowskiDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBRFRegressor",
    "xgboost.sklearn.XGBRegressor",
)


def write_members(
    folder: str | Path,
    fits: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
    day: xr.Dataset | None = None,
    *,
    trusted: Iterable[str] = (),
) -> None:
    """Write fitted estimators and what belongs to them into a new or empty folder.

    Parameters
    ----------
    facts : mapping
        Anything that JSON holds.
    day : Dataset, optional
        Of neighbours.
    trusted : iterable of str
        Types beyond `TRUSTED` that the reader will allow too.
    """
    from zipfile import ZIP_DEFLATED

    import sklearn
    import skops.io

    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} exists and is not an empty folder; wanted a new one: name another, or remove it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, str]] = {}
    for member, by_region in fits.items():
        for region, estimator in by_region.items():
            name = f"{sum(map(len, files.values())):03d}.skops"
            try:
                skops.io.dump(estimator, folder / name, compression=ZIP_DEFLATED, compresslevel=1)
            except Exception as error:
                raise TypeError(
                    f"member {member!r} cannot be written by skops ({error}); keep it out of the file"
                ) from error
            _check_types(folder / name, member, trusted)
            files.setdefault(member, {})[region] = name
    if day is not None:
        write_netcdf(day, folder / DAY)
    index = {"format": 1, "scikit_learn": sklearn.__version__, "files": files, "facts": dict(facts)}
    # The index comes last: a folder without it is one whose writing did not end.
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def read_members(
    folder: str | Path, *, trusted: Iterable[str] = ()
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], xr.Dataset | None]:
    """Read what `write_members` wrote.

    Returns
    -------
    fits : dict of member to dict of region to estimator
    facts : dict
    day : Dataset or None
        Of neighbours.
    """
    import sklearn
    import skops.io

    folder = Path(folder)
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"{folder} has no {INDEX}; wanted a folder that FittedMembers.save wrote to its end")
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    if index["scikit_learn"] != sklearn.__version__:
        warn(f"the members in {folder} were fitted by scikit-learn {index['scikit_learn']} and this is "
             f"{sklearn.__version__}: predictions may differ; fit them again, or install that version")  # fmt: skip
    fits: dict[str, dict[str, Any]] = {}
    for member, files in index["files"].items():
        for region, name in files.items():
            path = folder / Path(name).name
            allowed = _check_types(path, member, trusted)
            fits.setdefault(member, {})[region] = skops.io.load(path, trusted=allowed)
    day = xr.load_dataset(folder / DAY, engine="h5netcdf") if (folder / DAY).is_file() else None
    return fits, index["facts"], day


def _check_types(path: Path, member: str, trusted: Iterable[str]) -> list[str]:
    """Return the types of a file that skops does not trust by itself, all of which we or the user do."""
    import skops.io

    allowed = {*TRUSTED, *([trusted] if isinstance(trusted, str) else trusted)}
    found = skops.io.get_untrusted_types(file=path)
    strange = sorted(set(found) - allowed)
    if strange:
        raise TypeError(
            f"member {member!r} ({path.name}) holds {listed(strange)}, not a type of scikit-learn or xgboost that is known "
            f"to be safe; if it is yours and you trust the file, say so: trusted={strange[:5]!r}"
        )
    return list(found)
