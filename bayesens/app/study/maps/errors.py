"""How far the scores of a study speak for its map: distances of folds and cells, and the error to expect of every cell."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from bayesens.app.study.data import StudyData
from bayesens.app.study.maps.mapping import Maps
from bayesens.comparison.compare import HeldOut
from bayesens.comparison.folds.distances import fold_distances
from bayesens.members.error_profile import ErrorProfile, error_profile
from bayesens.members.members import Members

__all__ = ["MapErrors", "map_errors"]

MOST_REPLICATES = 500  # of the band of the profile
OF_SITES = ("site", "site-time", "group")


@dataclass(frozen=True, eq=False)
class MapErrors:
    """What is known of errors where no station stands.

    Attributes
    ----------
    distances : Dataset, optional
        As `fold_distances` gives it, of the first estimand that holds sites out; none where the grid has no coordinates of the
        sites.
    profile : ErrorProfile, optional
        Of the CRPS of the first model at new sites, where members are trained on covariates.
    expected : Dataset, optional
        What it predicts for every cell.
    model : str
        Whose errors these are.
    """

    distances: xr.Dataset | None = None
    profile: ErrorProfile | None = None
    expected: xr.Dataset | None = None
    model: str = ""


def map_errors(
    table: StudyData,
    held: Mapping[str, HeldOut],
    maps: Maps,
    ways: Mapping[str, Mapping[str, Any]],
    replicates: int,
) -> MapErrors:
    """Find both from the rows held out; `ways` says how they were, by estimand."""
    return MapErrors(_distances(table, ways), *_profile(table, held, maps, ways, replicates))


def _distances(table: StudyData, ways: Mapping[str, Mapping[str, Any]]) -> xr.Dataset | None:
    asked = next((name for name in ways if name in OF_SITES), None)
    if asked is None or ways[asked]["map_points"] is None:
        return None
    names = ("estimand", "folds", "blocks", "buffer", "places", "map_points", "random_seed")
    with warnings.catch_warnings():  # the comparison has told it
        warnings.filterwarnings("ignore", message="held-out sites are much nearer", category=UserWarning)
        return fold_distances(table.source, **{name: ways[asked][name] for name in names})


def _profile(
    table: StudyData,
    held: Mapping[str, HeldOut],
    maps: Maps,
    ways: Mapping[str, Mapping[str, Any]],
    replicates: int,
) -> tuple[ErrorProfile | None, xr.Dataset | None, str]:
    """The profile of the first model, and its map; at new sites alone a row's training rows are those of the other folds."""
    members = table.source
    if not isinstance(members, Members) or maps.area is None or "site" not in held or not maps.models:
        return None, None, ""
    rows = held["site"].rows
    model = next(str(name) for name in rows["model"].values if name in maps.models)
    where = rows["obs"].values
    X, fold = members.rows.X.iloc[where], rows["fold"].values
    more: dict[str, Any] = {}
    if (buffer := ways["site"]["buffer"]) is not None:
        places = members.places(ways["site"]["places"])
        assert places is not None
        more = {"buffer": buffer, "site": rows["site"].values, "places": places.take(where)}
    index = pd.Series(maps.area.held_out(X, fold=fold, **more).to_numpy(), index=where)
    seed = ways["site"]["random_seed"]
    drawn = min(replicates, MOST_REPLICATES)
    profile = error_profile(rows, index, measure="crps", model=model, replicates=drawn, random_seed=seed)
    assert maps.applicability is not None
    cells = maps.applicability["dissimilarity"]
    return profile, profile.predict(cells), model
