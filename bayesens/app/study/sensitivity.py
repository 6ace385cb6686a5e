"""What the results of a study rest on: its members, its stations, its priors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pandas as pd
import xarray as xr

from bayesens.app.study.attempts import Attempts
from bayesens.app.study.data import StudyData
from bayesens.app.study.file import Study
from bayesens.comparison.steps import Steps
from bayesens.ensemble.ensemble import Ensemble
from bayesens.likelihoods.options import options_to_json
from bayesens.members.spatial_folds.dealing import fold_number
from bayesens.sensitivity import (
    clustered_weights,
    fewer_stations,
    members_left_out,
    power_scaling,
    prior_predictive,
    shapley,
    weights_table,
)
from bayesens.tables.atomic import file_name

__all__ = ["Sensitivities", "study_sensitivity"]


@dataclass(frozen=True, eq=False)
class Sensitivities:
    """What was found for each model that was asked for.

    Attributes
    ----------
    left_out : dict of name to DataFrame
        From `members_left_out`, with a column ``by``: member or cluster.
    shapley : dict of name to DataFrame
    reduction : Dataset, optional
        From `fewer_stations`, of all these models.
    power : dict of name to DataFrame
        From `power_scaling`, of models that have a posterior.
    prior : dict of name to Dataset
        From `prior_predictive`.
    weights : dict of name to DataFrame
        From `weights_table`, of models without effects that have weights and a fit by EM.
    """

    left_out: dict[str, pd.DataFrame] = field(default_factory=dict)
    shapley: dict[str, pd.DataFrame] = field(default_factory=dict)
    reduction: xr.Dataset | None = None
    power: dict[str, pd.DataFrame] = field(default_factory=dict)
    prior: dict[str, xr.Dataset] = field(default_factory=dict)
    weights: dict[str, pd.DataFrame] = field(default_factory=dict)


def study_sensitivity(
    study: Study,
    table: StudyData,
    models: Mapping[str, Any],
    fits: Mapping[str, xr.DataTree],
    ensemble: Ensemble,
    folds: Mapping[str, Any],
    steps: Steps,
    say: Callable[[str], None],
    attempts: Attempts,
) -> Sensitivities:
    """Do what the table ``[sensitivity]`` asks for.

    `fits` are to the rows of `ensemble`, of models that have not failed; `folds` says how rows are held out, as for `compare`.
    """
    asked = study.sensitivity
    assert asked is not None
    names = [name for name in asked.models or list(models)[:1] if name in fits]
    out = Sensitivities()

    def attempt(
        kept: dict[str, Any], name: str, what: str, make: Callable[..., Any], *args: Any, **options: Any
    ) -> None:
        if (made := attempts("sensitivity", what, partial(make, *args, **options))) is not None:
            kept[name] = made

    for name in names:
        method = study.methods[name]
        options: dict[str, Any] = dict(folds) | _intervals(study) | {"method": method}
        if ensemble.n_members > 1 and (by := list(_possible(asked.members, ensemble))):
            say(f"Leaving members out of {name} ...")
            attempt(out.left_out, name, f"Leaving members out of {name}", _left_out, models[name], table, by, options)
        if asked.shapley and ensemble.n_members > 1:
            say(f"Fitting {name} to all subsets of the members ...")
            what = f"Fitting {name} to all subsets of the members"
            attempt(out.shapley, name, what, shapley, models[name], table.source, **options)
        if asked.priors and not int(fits[name].attrs["point_estimate"]):
            seed = study.study.random_seed
            attempt(out.power, name, f"Power-scaling of {name}", power_scaling, fits[name])
            attempt(out.prior, name, f"Drawing from the priors of {name}", prior_predictive, models[name], ensemble,
                    random_seed=seed)  # fmt: skip
        attempt(out.weights, name, f"Drawing stations anew for the weights of {name}", _weights, name, models[name],
                fits[name], ensemble, study, steps, say)  # fmt: skip
    if not asked.stations or not names:
        return out
    say(f"Removing stations, {asked.replicates} times ...")
    reduction = attempts("sensitivity", "Removing stations", partial(
        fewer_stations, {name: models[name] for name in names}, table.source, shares=asked.stations,
        replicates=asked.replicates, validation=asked.validation, method={name: study.methods[name] for name in names},
        inner_folds=fold_number(folds["inner_folds"]),  # stations are removed at random
        **{key: folds[key] for key in ("draws", "random_seed", "n_jobs", "cache", "progressbar")},
    ))  # fmt: skip
    return replace(out, reduction=reduction)


def _left_out(model: Any, table: StudyData, by: Sequence[str], options: Mapping[str, Any]) -> pd.DataFrame:
    return pd.concat(
        [members_left_out(model, table.source, by=one, **options).assign(by=one) for one in by], ignore_index=True
    )


def _intervals(study: Study) -> dict[str, Any]:
    block = study.evaluation.block if study.data.time is not None else None
    return {"replicates": max(study.evaluation.replicates, 1), "block": block}


def _possible(asked: tuple[str, ...], ensemble: Ensemble) -> Iterator[str]:
    """Clusters need two of them, and one with several members, to say more than single members do."""
    from bayesens.comparison.errors.dependence import dependence

    for by in asked:
        clusters = 0 if by == "member" else len(set(dependence(ensemble, replicates=0)["cluster"].values.tolist()))
        if by == "member" or 1 < clusters < ensemble.n_members:
            yield by


def _weights(
    name: str, model: Any, tree: xr.DataTree, ensemble: Ensemble, study: Study, steps: Steps, say: Callable[[str], None]
) -> pd.DataFrame | None:
    """Weights with the spread that stations give them, where the model has weights and a fit by EM."""
    effects = (getattr(model, "effect_levels", ()) and model.correction == "joint") or getattr(
        model, "weights", ""
    ) == "group"
    has = {"weight", "linear_weight"} & set(tree["posterior"].data_vars)
    if not hasattr(model, "em") or effects or not has or int(tree.attrs["point_estimate"]) or ensemble.n_members < 2:
        return None
    site = ensemble.labels("site")
    if site is None or len(set(site[ensemble.observed].tolist())) < 5:
        return None
    say(f"Drawing stations anew for the weights of {name} ...")
    seed = study.study.random_seed
    key = {"model": type(model).__name__, "options": options_to_json(model), "data": ensemble.digest, "seed": seed}

    def make() -> xr.Dataset:
        return clustered_weights(model, ensemble, cluster="site", random_seed=seed, progressbar=False)

    return weights_table(tree, steps.dataset(f"clustered-{file_name(name)}", key, make))
