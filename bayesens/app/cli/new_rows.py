"""Rows that `bayesens predict` and `bayesens score` read: under the column names of the fit, unless options say otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from bayesens.app.cli.day import check_names, neighbours_of, told_the_day
from bayesens.app.cli.reading import Reading, say_codes
from bayesens.app.cli.shared import say, those_given
from bayesens.ensemble.ensemble import Ensemble
from bayesens.inference.fit_tree import model_of
from bayesens.likelihoods.corrected.widths import columns_asked
from bayesens.members.day.chain import BESIDE, NAME
from bayesens.messages import check_known, listed, warn
from bayesens.tables.conversion import conversion_words
from bayesens.tables.long_tables import model_and_value, widened
from bayesens.tables.reading import read_table

__all__ = ["new_rows"]


def new_rows(
    tree: xr.DataTree, path: Path, reading: Reading, *, observation: str | None = None, observed: bool = False,
    observations: Path | None = None,
) -> tuple[Ensemble, pd.DataFrame | xr.Dataset]:  # fmt: skip
    """Rows to predict or score, under the column names of the fit unless others are given, and the table they come from.

    `observations`: a table of what stations observed at the times of the rows, for a fit that keeps neighbours.
    """
    given = those_given(observation=observation) | reading.roles | reading.of_columns
    named: dict[str, str] = json.loads(tree.attrs["columns"])
    members: list[str] = json.loads(tree.attrs["bayesens_members"])
    if not observed:  # nothing wrong with the observations should keep anyone from predicting
        named.pop("observation", None)
    labels = [given.get(role, named.get(role)) for role in ("site", "group")]
    data = read_table(path, text=[label for label in labels if label], **reading.of_file)
    if reading.long is not None:
        data = _wide(path, data, reading.long, [given.get(role, named.get(role)) for role in ("site", "time")])
    there = {str(name) for name in (data.variables if isinstance(data, xr.Dataset) else data.columns)}
    # The dataset of an ensemble names its variables by role, and is taken by these.
    by_role = set(json.loads(data.attrs.get("bayesens_columns", "{}")))
    for role in [role for role in named if role not in given and role not in by_role]:
        column = named[role]
        if column in there:
            given[role] = column
        elif role == "observation":
            raise ValueError(f"{path} has no column {column!r}, the observation of the fit; name it: --observation")
        elif role in ("site", "group"):
            warn(
                f"{path} has no column {column!r}, the {role} of the fit; if it is there by another name, use --{role}."
            )
    known = there
    if isinstance(data, xr.Dataset) and "member" in data.coords:
        known = {str(name) for name in data["member"].values}
    day = neighbours_of(tree, observations, reading, given)
    if NAME in known:
        if observations is not None:
            raise ValueError(
                f"{path} has the column {NAME!r} itself, and --observations would make it; leave one of them out"
            )
        day = None
    if day is not None:
        check_names(there, path)
    if not (found := [name for name in members if name in known]):
        raise ValueError(
            f"{path} has none of the members of the fit, {listed(members)}; it has {listed(sorted(known))}"
        )
    model = model_of(tree)
    kept = () if day is None or day.table.places is None else day.table.places.names
    told = () if day is None else BESIDE
    asked = [name for name in dict.fromkeys([*columns_asked(model), *kept]) if name not in told]
    if beside := [name for name in asked if name not in ("lon", "lat")]:
        own = {str(name) for name in data["covariate_name"].values} if "covariate_name" in data else set()
        check_known(beside, there | own, kind="covariate of the fit", where=str(path))
        given["covariates"] = beside
        given["spread"] = {member: column for member, column in getattr(model, "own_sd", None) or () if member in found}
    if not by_role and "scale" not in given and "offset" not in given:
        given |= _conversion_of(tree, [*found, given.get("observation")])
    make: Any = Ensemble.from_dataset if isinstance(data, xr.Dataset) else Ensemble.from_frame
    rows: Ensemble = make(data, members=found, **given)
    say_codes(rows)
    return (rows, data) if day is None else told_the_day(day, rows, data, path)


def _wide(path: Path, data: Any, long: str, keys: list[str | None]) -> Any:
    """A long table made wide, its cases told apart by the columns of site and time."""
    if not isinstance(data, pd.DataFrame):
        raise ValueError(f"--long got {long!r}, and {path} is a dataset; wanted a table: leave it out")
    model, value = model_and_value(long)
    return widened(data, model=model, value=value, by=[key for key in keys if key is not None and key in data])[0]


def _conversion_of(tree: xr.DataTree, columns: list[str | None]) -> dict[str, dict[str, float]]:
    """Scale and offset that the fit's table was read with: new tables come from where that came from."""
    kept = {k: v for k, v in json.loads(tree.attrs.get("converted", "{}")).items() if k in columns}
    if not kept:
        return {}
    say(f"As in the fit: {conversion_words(kept)}; for other units use --scale and --offset")
    return {"scale": {k: a for k, (a, _) in kept.items()}, "offset": {k: b for k, (_, b) in kept.items()}}
