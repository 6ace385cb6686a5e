"""Neighbours on the command line: a fit that keeps them, new rows that are told the day, and tables of observations."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesens.app.cli.reading import Reading
from bayesens.app.cli.shared import names_in, say

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from bayesens.ensemble.ensemble import Ensemble
    from bayesens.members.day.fitted import FittedNeighbours

__all__ = ["Neighbours", "Observations", "check_names", "given_places", "neighbours_of", "told_the_day", "with_places"]

Neighbours = Annotated[
    bool,
    typer.Option(
        "--neighbours",
        help="One more member: what the other stations observed at the same time, interpolated. Needs --site and --time, and "
        "coordinates, for without them the mean of each day is all that it tells.",
    ),
]
Observations = Annotated[
    Path | None,
    typer.Option(
        metavar="TABLE",
        help="Observations of stations at the times of the rows, with the column names of the fit, for a fit with --neighbours; "
        "left out: those that the fit was made from. A row is predicted without its own station.",
    ),
]


def with_places(reading: Reading, places: str | None) -> Reading:
    """How a table is read, with the columns of planar coordinates kept beside its covariates."""
    from dataclasses import replace

    if places is None:
        return reading
    names = dict.fromkeys([*names_in(reading.covariates or ""), *names_in(places)])
    return replace(reading, covariates=",".join(f'"{name}"' if "," in name else name for name in names))


def given_places(ensemble: Ensemble, places: str | None) -> dict[str, Any] | None:
    """The columns of --places, as the ensemble has kept them."""
    if places is None:
        return None
    kept = ensemble.dataset["covariate"]
    return {name: kept.sel(covariate_name=name).values for name in names_in(places)}


def neighbours_of(
    tree: xr.DataTree, observations: Path | None, reading: Reading, given: dict[str, Any]
) -> FittedNeighbours | None:
    """The neighbours that a fit keeps, with the observations of a table where one is named.

    `given`: columns by role that options name, in place of those of the fit.
    """
    from bayesens.members.day.kept import kept_in, with_observations

    found = kept_in(tree)
    if observations is None:
        return found
    if found is None:
        raise ValueError(
            "--observations is for a fit that keeps neighbours, and this one has none; fit with: bayesens fit TABLE --neighbours"
        )
    return with_observations(found, **_observed(tree, observations, reading, found, given))


def _observed(
    tree: xr.DataTree, path: Path, reading: Reading, fitted: FittedNeighbours, given: dict[str, Any]
) -> dict[str, Any]:
    """Observations, stations, times and places of a table, checked as a table of training rows is."""
    from bayesens.ensemble.places import row_places
    from bayesens.members.training_table import check_rows
    from bayesens.messages import listed
    from bayesens.tables.reading import as_table, read_table

    names = () if fitted.table.places is None else fitted.table.places.names
    columns: dict[str, str] = json.loads(tree.attrs["columns"])
    columns |= {role: name for role, name in given.items() if role in ("site", "time", "lon", "lat")}
    wanted = {role: columns.get(role, role) for role in ("observation", "site", "time", *names)}
    frame = as_table(read_table(path, text=[wanted["site"]], **reading.of_file), None)
    if lacking := {role: name for role, name in wanted.items() if name not in frame}:
        raise ValueError(
            f"{path} has no column {listed(lacking.values())}, {' and '.join(lacking)} of the fit; wanted observations of "
            "stations, with their times and places: call the columns as those of the fit"
        )
    roles = {role: wanted[role] for role in ("site", "time", *(name for name in names if name in ("lon", "lat")))}
    rest = [name for name in names if name not in roles]
    keep = [*roles.values(), *rest, wanted["observation"]]
    codes, no_roles = reading.codes.get("missing"), dict.fromkeys(("group", "lon", "lat"))
    with warnings.catch_warnings():  # neighbours learn from no covariate, and such a table needs one
        warnings.filterwarnings("ignore", message="covariate", category=UserWarning)
        checked = check_rows(
            frame[keep[:-1]].assign(neighbours=1.0), frame[keep[-1]], {**no_roles, **roles}, by=None, products=None, units="",
            missing=codes, time_format=reading.time_format,
        )  # fmt: skip
    planar = {name: checked.X[name].to_numpy() for name in rest} or None
    places = row_places(planar, len(frame), lon=checked.lon, lat=checked.lat) if names else None
    y = _in_the_unit_of_the_fit(tree, checked.y, wanted["observation"])
    return {"y": y, "site": checked.site, "time": checked.time, "places": places}


def _in_the_unit_of_the_fit(tree: xr.DataTree, y: Any, column: str) -> Any:
    """Observations, converted as those that the fit was made from."""
    from bayesens.tables.conversion import convert

    a, b = json.loads(tree.attrs.get("converted", "{}")).get(column, (1.0, 0.0))
    values = {column: y}
    convert(values, {column: a}, {column: b})
    return values[column]


def check_names(there: set[str], path: Path) -> None:
    """Refuse columns that have the names of what neighbours will add."""
    from bayesens.members.day.chain import BESIDE
    from bayesens.messages import listed

    if both := sorted(there & set(BESIDE)):
        raise ValueError(f"{path} has {listed(both)}, which neighbours add, and not 'neighbours' itself; rename them")


def told_the_day(
    fitted: FittedNeighbours, rows: Ensemble, data: pd.DataFrame | xr.Dataset, path: Path
) -> tuple[Ensemble, pd.DataFrame | xr.Dataset]:
    """Rows with what neighbours say of them, and their table with the same columns."""
    import numpy as np
    import pandas as pd

    from bayesens.members.day.chain import BESIDE, NAME
    from bayesens.members.day.kept import neighbours_at, places_in
    from bayesens.messages import warn

    names = () if fitted.table.places is None else fitted.table.places.names
    for role in ("time", *(name for name in names if name in ("lon", "lat"))):
        if role not in rows.dataset.coords:
            raise ValueError(
                f"neighbours need the {role} of every row, as their stations have it, and no column of {path} is known to hold "
                f"it; name it: --{role}"
            )
    told = neighbours_at(fitted, rows, places_in(fitted, rows))
    member = told.select(members=[NAME]).prediction.ravel()
    site = rows.labels("site")
    if own := 0 if site is None else int(np.isin(site, fitted.table.site).sum()):
        say(
            f"{own} of {len(rows)} rows are of stations that have observations: each is predicted without its own station"
        )
    lacking = int(np.isnan(member).sum())
    if 0 < lacking < len(rows):
        warn(
            f"at the times of {lacking} of {len(rows)} rows no other station has an observation: neighbours are missing there, "
            "and what is left of a mixture is no fit of its own; give observations of these times, --observations TABLE, or "
            "predict these rows by a fit without neighbours"
        )
    if lacking == len(rows):
        raise ValueError(
            f"no other station has an observation at the time of any of the {len(rows)} rows of {path}: neighbours tell "
            "nothing, and what is left of a mixture is no fit of its own; give observations of these times, --observations "
            "TABLE, or take a fit without neighbours"
        )
    if isinstance(data, pd.DataFrame):
        kept = {name: told.dataset["covariate"].sel(covariate_name=name).values for name in BESIDE}
        data = data.assign(**{NAME: member}, **kept)
    return told, data
