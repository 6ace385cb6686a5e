"""Commands that answer questions: which model is better, whether members are independent, what a result rests on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bayesens.app.cli.reading import PLAIN, Reading, ensemble_from, reads_tables
from bayesens.app.cli.shared import (
    METHOD,
    MODELS,
    OPTION,
    Covariates,
    Group,
    Lat,
    Lon,
    ModelName,
    Site,
    TablePath,
    Time,
    Units,
    check_out,
    model_from_words,
    names_in,
    new_console,
    numbers_in,
    say,
    show,
    talk,
    tell,
    watched,
)

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from bayesens.ensemble.ensemble import Ensemble

__all__ = ["compare", "dependence", "sensitivity"]

TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
FIGURES = (".png", ".svg", ".pdf")
Observation = Annotated[str, typer.Option(help="Column of observations; rows without one are left out.")]
Members = Annotated[str | None, typer.Option(help="Columns of predictions, separated by commas.")]
Estimand = Annotated[
    Literal["time", "site", "site-time", "group", "row"] | None,
    typer.Option(
        help="What is new in the rows held out: times at known sites, sites, both (a map), groups, or row (one by one). "
        "Left out: site; without --site time; without --time row."
    ),
]
Folds = Annotated[int | None, typer.Option(help="Left out: 5, or one for each group.")]
Transform = Annotated[
    Literal["identity", "sqrt", "log"] | None, typer.Option(help="Of observations and members alike.")
]
Method = Annotated[Literal["auto", "nuts", "laplace", "em"], typer.Option(help=METHOD)]
Draws = Annotated[int, typer.Option(help="Draws of each of four chains.")]
Seed = Annotated[int, typer.Option(help="Of folds, draws and bootstrap: equal seeds, equal results.")]
Workers = Annotated[int, typer.Option(help="Processes that share folds and models.")]
Cache = Annotated[Path | None, typer.Option(help="Folder that keeps finished folds: a run that was stopped goes on.")]
Progress = Annotated[bool, typer.Option(help="Show progress, in a terminal.")]
Figure = Annotated[Path | None, typer.Option(help="Draw it: .png, .svg or .pdf.")]


@reads_tables
def compare(
    table: TablePath,
    observation: Observation,
    members: Members = None,
    site: Site = None,
    group: Group = None,
    time: Time = None,
    lon: Lon = None,
    lat: Lat = None,
    units: Units = None,
    reading: Reading = PLAIN,
    models: Annotated[
        str, typer.Option(help=f"Kinds, separated by commas, the first one the reference: {', '.join(MODELS)}.")
    ] = "bma,hbm,equal",
    ladder: Annotated[
        bool,
        typer.Option(
            "--ladder", help="The ladder from equal weights to HBM in place of --models: what each change does."
        ),
    ] = False,
    transform: Transform = None,
    estimand: Estimand = None,
    folds: Folds = None,
    method: Method = "auto",
    draws: Draws = 1000,
    seed: Seed = 1,
    workers: Workers = 1,
    cache: Cache = None,
    out: Annotated[Path | None, typer.Option(help="Write the table of differences: .csv, .tsv or .parquet.")] = None,
    rows: Annotated[Path | None, typer.Option(help="Write every row's scores (.nc).")] = None,
    figure: Figure = None,
    progress: Progress = True,
) -> None:
    """Fit models without some rows and score them there, such as HBM against BMA.

    Members must be predictions that have not seen the observations; to train members, use a study (`bayesens init`).

    Example: bayesens compare table.csv --members rf,svr,xgb --observation sm --site station --time date --ladder
    """
    for path, suffixes in ((out, TABLES), (rows, (".nc",)), (figure, FIGURES)):
        if path is not None:
            check_out(path, [table], suffixes)
    _goes_on(cache)
    ensemble = ensemble_from(table, members, reading, observation=observation, site=site, group=group, time=time, lon=lon,
                             lat=lat, units=units)  # fmt: skip
    from bayesens.comparison.compare import compare as run
    from bayesens.comparison.folds.news import ALL_CONVERGED
    from bayesens.comparison.tables import score_table
    from bayesens.ensemble.files import write_table

    new = estimand or _usual(ensemble)
    chosen = _rungs(ensemble, transform) if ladder else _models(models, transform)
    found = run(chosen, ensemble, estimand=new, folds=folds, method=method, draws=draws, random_seed=seed, workers=workers,
                cache=cache, progressbar=watched(progress))  # fmt: skip
    console = new_console()
    shown = ["model", "n", "stations", "crps", "log_score", "rmse", "coverage90", "width90"]
    scores = score_table(found)
    shown = shown if ensemble.labels("site") is not None else [name for name in shown if name != "stations"]
    shown += ["not_converged"] if (scores["not_converged"] != ALL_CONVERGED).any() else []
    show(console, f"Scores on rows held out ({new})", scores[shown])
    differences = _effects(found, seed) if ladder else _differences(found, seed)
    show(console, "What each change does" if ladder else f"Against {found['model'].values[0]}", _short(differences))
    if ladder:
        from bayesens.comparison.ladder import ladder_words

        typer.echo(ladder_words(differences))
    for path, what in ((out, differences), (rows, found)):
        if path is not None:
            write_table(what, path)
            tell(f"{path}: written")
    if figure is not None:
        from bayesens import plots

        _drawn(plots.ladder(differences) if ladder else plots.differences(differences), figure)


def _goes_on(cache: Path | None) -> None:
    """With a cache an interrupted command is not lost."""
    if cache is not None:
        talk.interrupted = f"finished folds are kept in {cache}; the same command goes on where it stopped."


def _usual(ensemble: Ensemble) -> str:
    """The estimand of a table that does not ask for one."""
    from bayesens.comparison.folds.held_out_rows import usual_estimand

    return usual_estimand(site=ensemble.labels("site") is not None, time="time" in ensemble.dataset.coords)


def _models(text: str, transform: str | None) -> dict[str, Any]:
    from bayesens import models
    from bayesens.messages import check_known

    names = names_in(text)
    check_known(names, MODELS, kind="model", where="--models")
    options = {} if transform is None else {"transform": transform}
    return {MODELS[name]: getattr(models, MODELS[name])(**options) for name in names}


def _rungs(ensemble: Ensemble, transform: str | None) -> dict[str, Any]:
    """The rungs that the table's labels allow."""
    from bayesens.comparison.ladder import ladder

    options = {} if transform is None else {"transform": transform}
    return ladder(group=ensemble.labels("group") is not None, site=ensemble.labels("site") is not None, **options)


def _effects(found: xr.Dataset, seed: int) -> pd.DataFrame:
    from bayesens.comparison.ladder import ladder_effects

    return ladder_effects(found, random_seed=seed)


def _differences(found: xr.Dataset, seed: int) -> pd.DataFrame:
    from bayesens.comparison.tables import paired_differences

    table = paired_differences(found, str(found["model"].values[0]), random_seed=seed)
    return table[table["metric"] == "crps"].reset_index(drop=True)


def _short(table: pd.DataFrame) -> pd.DataFrame:
    heads = ["effect", "before", "after"] if "effect" in table else ["model", "metric"]
    return table[[*heads, "difference", "low", "high", "unit", "p_better", "verdict"]]


@reads_tables
def dependence(
    table: TablePath,
    observation: Observation,
    members: Members = None,
    site: Site = None,
    group: Group = None,
    time: Time = None,
    units: Units = None,
    reading: Reading = PLAIN,
    seed: Seed = 1,
    out: Annotated[Path | None, typer.Option(help="Write all of it as a table: .csv, .tsv or .parquet.")] = None,
    figure: Figure = None,
) -> None:
    """Say how far the members' errors are one, and what that means.

    Example: bayesens dependence table.csv --members rf,svr,xgb --observation sm --site station
    """
    for path, suffixes in ((out, TABLES), (figure, FIGURES)):
        if path is not None:
            check_out(path, [table], suffixes)
    ensemble = ensemble_from(table, members, reading, observation=observation, site=site, group=group, time=time,
                             units=units)  # fmt: skip

    from bayesens.comparison.errors.dependence import dependence as run
    from bayesens.comparison.errors.words import dependence_table, dependence_words

    found = run(ensemble, random_seed=seed)
    whole = dependence_table(found)
    some = whole[
        (whole["group"] == "all") & whole["measure"].isin(["error_correlation", "output_correlation", "k_eff"])
    ]
    console = new_console()
    for measure, lines in some.groupby("measure", sort=False):
        shown = lines[
            [name for name in ("part", "member", "other", "kind", "value", "low", "high") if (lines[name] != "").any()]
        ]
        show(console, str(measure).replace("_", " ").capitalize(), shown)
    typer.echo(dependence_words(found))
    if out is not None:
        from bayesens.ensemble.files import write_table

        write_table(whole, out)
        tell(f"{out}: {len(whole)} numbers")
    if figure is not None:
        from bayesens import plots

        _drawn(plots.dependence(found)[0], figure)


PARTS = ("members", "clusters", "shapley", "stations", "priors", "weights")


@reads_tables
def sensitivity(
    table: TablePath,
    observation: Observation,
    members: Members = None,
    site: Site = None,
    group: Group = None,
    time: Time = None,
    covariates: Covariates = None,
    units: Units = None,
    reading: Reading = PLAIN,
    model: Annotated[ModelName, typer.Option(help="Which model.")] = "bma",
    option: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help=OPTION)] = None,
    transform: Transform = None,
    what: Annotated[
        str,
        typer.Option(
            help="Separated by commas. members and clusters: left out, one after the other; shapley: all subsets; stations: "
            "removed before fitting; priors: scaled, and what they imply; weights: with the spread that stations give them."
        ),
    ] = "members,priors,weights",
    shares: Annotated[str, typer.Option(help="Of the stations to remove, separated by commas.")] = "0.1,0.2,0.3,0.4",
    estimand: Estimand = None,
    folds: Folds = None,
    method: Method = "auto",
    draws: Draws = 1000,
    seed: Seed = 1,
    workers: Workers = 1,
    cache: Cache = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables (.csv), new or empty.")] = None,
    progress: Progress = True,
) -> None:
    """Say what a result rests on: members, stations, priors.

    Example: bayesens sensitivity table.csv --members rf,svr,xgb --observation sm --site station --what members,priors
    """
    from bayesens.messages import check_known

    _goes_on(cache)
    asked, removed = tuple(dict.fromkeys(names_in(what))), numbers_in(shares, "--shares")
    check_known(asked, PARTS, kind="part", where="--what")
    chosen = model_from_words(MODELS[model], transform, option or [])
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"--out {out} is there already and not an empty folder; name a new one")
    ensemble = ensemble_from(table, members, reading, observation=observation, site=site, group=group, time=time,
                             covariates=covariates, units=units)  # fmt: skip
    from bayesens.app.cli.sensitivity import answers
    from bayesens.ensemble.files import write_table

    shown = watched(progress)
    new = estimand or _usual(ensemble)
    console = new_console()
    found = answers(
        chosen, ensemble, asked, shares=removed, estimand=new, folds=folds, method=method, draws=draws, random_seed=seed,
        workers=workers, cache=cache, progressbar=shown,
    )  # fmt: skip
    for answer in found:
        show(console, answer.title, answer.shown)
        if answer.words:
            typer.echo(answer.words)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_table(answer.frame, out / f"{answer.name}.csv")
            tell(f"{out / answer.name}.csv: written")


def _drawn(ax: Any, path: Path) -> None:
    from bayesens.tables.atomic import write_atomically

    with write_atomically(path) as aside:
        ax.get_figure(root=True).savefig(aside, dpi=200, format=path.suffix[1:])
    say(f"{path}: drawn")
