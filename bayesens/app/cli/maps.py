"""The command that predicts a grid and writes maps, however large."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayesens.app.cli.day import Observations, neighbours_of
from bayesens.app.cli.shared import FitPath, Progress, names_in, numbers_in, say, talk, tell, those_given, watched

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["map_grid"]

ROLES = ("site", "group", "time", "lon", "lat")
RESUMES = "finished tiles are kept; the same command with --resume goes on where it stopped."


def map_grid(
    fit: FitPath,
    grid: Annotated[
        Path,
        typer.Argument(
            metavar="GRID",
            help="Members, or covariates: .zarr, .nc, .tif with named bands, or a folder of .tif, one a date or a variable.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Maps: .zarr, .nc, or a folder (no suffix) of Cloud-Optimised GeoTIFFs, one a time step."),
    ],
    *,
    members: Annotated[
        Path | None, typer.Option(help="Folder of trained members; GRID then holds the covariates that they look at.")
    ] = None,
    without: Annotated[
        Path | None,
        typer.Option(
            metavar="FIT", help="Fit of the members without neighbours, for days that no station has observed."
        ),
    ] = None,
    observations: Observations = None,
    quantiles: Annotated[str, typer.Option(help="Levels, separated by commas.")] = "0.05,0.5,0.95",
    below: Annotated[
        str | None,
        typer.Option(help="Probability of lying below: thresholds, or variables of the grid, separated by commas."),
    ] = None,
    site: Annotated[str | None, typer.Option(help="Variable of site labels.")] = None,
    group: Annotated[str | None, typer.Option(help="Variable of group labels.")] = None,
    time: Annotated[str | None, typer.Option(help="Variable of times.")] = None,
    lon: Annotated[str | None, typer.Option(help="Variable of longitudes.")] = None,
    lat: Annotated[str | None, typer.Option(help="Variable of latitudes.")] = None,
    region: Annotated[str | None, typer.Option(help="Variable of the regions that members were trained in.")] = None,
    where: Annotated[str | None, typer.Option(help="Variable that is not 0 where cells are wanted.")] = None,
    applicable: Annotated[
        str | None, typer.Option(help="Variable that is not 0 inside of the area of applicability; others are flagged.")
    ] = None,
    missing: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUE",
            help="Code for missing values, such as -9999, or MEMBER=VALUE; repeat as needed. none: all are true.",
        ),
    ] = None,
    crs: Annotated[
        str | None,
        typer.Option(help="Coordinate reference system, such as EPSG:4326, or unknown; left out: the grid's."),
    ] = None,
    dims: Annotated[
        str | None, typer.Option(metavar="ROWS,COLUMNS", help="Dimensions of the map, where names do not say it.")
    ] = None,
    standard_name: Annotated[
        str | None,
        typer.Option(help="Of the quantity in CF's table, such as volume_fraction_of_condensed_water_in_soil."),
    ] = None,
    trusted: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE", help="Full name of a type of yours among the members; repeat as needed."),
    ] = None,
    packed: Annotated[
        bool, typer.Option("--packed", help="Pack numbers into 16 bits, over the ranges that the fit has seen.")
    ] = False,
    memory: Annotated[str, typer.Option(help="What tiles in work may take together.")] = "2GB",
    scheduler: Annotated[
        str, typer.Option(help="threads, processes, or the address of a dask scheduler: tcp://host:port.")
    ] = "threads",
    workers: Annotated[int | None, typer.Option(help="Tiles side by side; left out: as many as cores.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with maps that were not finished.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over maps that are there already.")] = False,
    progress: Progress = True,
) -> None:
    """Predict the cells of a grid and write maps, tile by tile, in bounded memory.

    Example: bayesens map fit.nc members.zarr --below 0.12 --crs EPSG:4326 --out maps.zarr. While they are written they are in
    maps.zarr.unfinished; a run that was stopped or killed goes on by the same command with --resume.
    """
    talk.interrupted = RESUMES
    levels = numbers_in(quantiles, "--quantiles")

    from bayesens.geo.stores.outputs import check_place, form_of
    from bayesens.inference.fit_tree import read_fit

    check_place(out.absolute(), form_of(out), replace=overwrite or resume)
    if out.exists() and grid.exists() and out.samefile(grid):
        raise ValueError(f"--out {out} is an input of this command and would be replaced; name another file")
    tree = read_fit(fit)

    from bayesens.geo.stores.read import read_grid
    from bayesens.geo.stores.tiles import bytes_in
    from bayesens.geo.stores.write import write_map
    from bayesens.inference.predict import predict

    source = read_grid(grid, memory=bytes_in(memory))
    named = {"site": site, "group": group, "time": time, "lon": lon, "lat": lat}
    masks = {
        name: _mask(source, one, f"--{name}") for name, one in (("where", where), ("applicable", applicable)) if one
    }
    options = _roles(tree, source, those_given(**named)) | _codes(missing)
    asked = {"quantiles": levels, "below": _thresholds(source, below), "where": masks.get("where")} | options
    other = None if without is None else read_fit(without)
    if members is not None:
        if observations is not None:
            raise ValueError(
                "--observations is for neighbours that a fit keeps, and --members names others: leave one out"
            )
        maps = _by_members(members, tree, source, asked | those_given(region=region, without=other), trusted)
    else:
        by_the_day = _by_the_day(tree, source, asked | those_given(without=other), observations)
        maps = predict(tree, source, **asked) if by_the_day is None else by_the_day
    written = write_map(
        maps, out, fit=tree, crs=crs, packed=packed, members=None if members else source, standard_name=standard_name,
        dims=_dims(dims), overwrite=overwrite, resume=resume, memory=memory, scheduler=scheduler, workers=workers,
        progressbar=watched(progress), **masks,
    )  # fmt: skip
    if not written.tiles:
        say(f"{out} was finished before: nothing was computed")
        return
    kept = f", {written.kept} of {written.tiles} tiles of a former run" if written.kept else ""
    seconds = written.seconds["all"]
    tell(f"{out}: {written.cells:,} cells predicted by {tree.attrs['bayesens_model']} in {seconds:.1f} s{kept}")


def _by_members(
    folder: Path, tree: xr.DataTree, source: xr.Dataset, asked: dict[str, Any], trusted: list[str] | None
) -> xr.Dataset:
    """Maps from covariates: members and fit go through the grid together."""
    from bayesens.members.fitted import FittedMembers
    from bayesens.members.grids.mapping import map as mapped

    return mapped(FittedMembers.load(folder, trusted=trusted or ()), tree, source, **asked)


def _by_the_day(
    tree: xr.DataTree, source: xr.Dataset, asked: dict[str, Any], observations: Path | None
) -> xr.Dataset | None:
    """Maps from members that the grid has, and the neighbours that the fit keeps; None of a fit without, or of a grid with."""
    from bayesens.app.cli.reading import Reading
    from bayesens.members.day.chain import NAME
    from bayesens.members.fitted import FittedMembers
    from bayesens.members.grids.mapping import map as mapped
    from bayesens.members.regions import Regions

    day = neighbours_of(tree, observations, Reading(), {})
    if day is None or NAME in source:
        return None
    products = tuple(name for name in json.loads(tree.attrs["bayesens_members"]) if name != NAME)
    members = FittedMembers({}, (), products, Regions(), str(tree.attrs["units"]), neighbours=day)
    return mapped(members, tree, source, **asked)


def _roles(tree: xr.DataTree, source: xr.Dataset, given: dict[str, Any]) -> dict[str, Any]:
    """Variables of labels, times and places: those that are named, and else those of the fit's own names that are there."""
    of_fit = {role: name for role, name in json.loads(tree.attrs["columns"]).items() if role in ROLES}
    there = {role: name for role, name in of_fit.items() if name in source.variables}
    from bayesens.messages import check_known

    check_known(given.values(), source.variables, kind="variable", where="the grid")
    return there | given


def _codes(words: list[str] | None) -> dict[str, Any]:
    from bayesens.app.cli.reading import Reading

    return Reading(missing=words).codes


def _mask(source: xr.Dataset, name: str, option: str) -> xr.DataArray:
    from bayesens.messages import check_known

    check_known([name], source.variables, kind=f"variable ({option})", where="the grid")
    one = source[name]
    return one if one.dtype == bool else one.notnull() & (one != 0)


def _thresholds(source: xr.Dataset, text: str | None) -> list[Any]:
    """Numbers, and maps by name."""
    if text is None:
        return []
    words = names_in(text)
    return [source[word] if word in source.data_vars else numbers_in(word, "--below")[0] for word in words]


def _dims(text: str | None) -> Any:
    return None if text is None else tuple(names_in(text))
