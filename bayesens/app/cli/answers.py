"""Commands that answer questions: which model is better, whether members are independent, what a result rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bayesens.app.cli import shared
from bayesens.app.cli.day import Neighbours
from bayesens.app.cli.reading import HeldOut, Reading, Seed, ensemble_from, with_options
from bayesens.app.cli.shared import MODELS, names_in, talk, tell, watched
from bayesens.tables.atomic import full_suffix

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from bayesens.ensemble.ensemble import Ensemble

__all__ = ["compare", "dependence", "sensitivity"]

TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
FIGURES = (".png", ".svg", ".pdf")
Observation = Annotated[str, typer.Option(help="Column of observations; rows without one are left out.")]
Figure = Annotated[Path | None, typer.Option(help="Draw it: .png, .svg or .pdf.")]


@partial(with_options, without=("covariates",))
def compare(
    table: shared.TablePath,
    observation: Observation,
    *,
    reading: Reading,
    models: Annotated[
        str, typer.Option(help=f"Kinds, separated by commas, the first one the reference: {', '.join(MODELS)}.")
    ] = "bma,hbm,equal",
    ladder: Annotated[
        bool,
        typer.Option(
            "--ladder", help="The ladder from equal weights to HBM in place of --models: what each change does."
        ),
    ] = False,
    weight_covariates: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMNS",
            help="With --ladder: a rung more, BMA whose weights follow these columns (or lon, lat, season), separated by commas.",
        ),
    ] = None,
    transform: shared.Transform = None,
    option: shared.OptionWords = None,
    neighbours: Neighbours = False,
    recalibrate: Annotated[
        Literal["beta", "isotonic"] | None,
        typer.Option(
            help="Say what recalibration changes at other stations; with --out a table of it (TABLE-recalibration.csv) and a map "
            "of levels for each model (TABLE-bma.json, ...), for bayesens predict --recalibration."
        ),
    ] = None,
    held: HeldOut,
    out: Annotated[Path | None, typer.Option(help="Write the table of differences: .csv, .tsv or .parquet.")] = None,
    rows: Annotated[Path | None, typer.Option(help="Write every row's scores (.nc).")] = None,
    figure: Figure = None,
    progress: shared.Progress = True,
) -> None:
    """Fit models without some rows and score them there, such as HBM against BMA.

    Members must be predictions that have not seen the observations; to train members, use a study (`bayesens init`). With
    --neighbours every model stands there twice, as it is and "of the day", told what the training stations observed that day.

    Example: bayesens compare table.csv --members rf,svr,xgb --observation sm --site station --time date --ladder
    """
    _check_outputs(table, (out, TABLES), (rows, (".nc",)), (figure, FIGURES))
    if recalibrate is not None and out is not None:
        _check_outputs(table, (_beside(out, f"recalibration{full_suffix(out)}"), TABLES))
    _goes_on(held.cache)
    followed = names_in(weight_covariates or "")
    if followed and not ladder:
        raise ValueError("--weight-covariates is about a rung of the ladder; add --ladder, or leave it out")
    if neighbours and reading.spread:
        raise ValueError(
            "--spread is for members that are columns of the table, all of them; leave it out, or --neighbours"
        )
    ensemble = ensemble_from(table, _keeping(held.keeping_places(reading), followed), observation)
    from bayesens.app.cli.twice import models_told, of_the_day
    from bayesens.comparison.compare import compare as run
    from bayesens.comparison.folds.news import ALL_CONVERGED
    from bayesens.comparison.ladder import ladder_effects, ladder_words
    from bayesens.comparison.tables import paired_differences, score_table
    from bayesens.ensemble.files import write_table

    options = held.arguments(ensemble)
    if recalibrate is not None:
        from bayesens.app.recalibrated import check_recalibration

        check_recalibration(ensemble, options["estimand"])
    if ladder and option:
        raise ValueError(
            f"--option {option[0]} is for --models, and rungs of the ladder have options of their own; leave it out"
        )
    source: Any = of_the_day(ensemble, options["places"]) if neighbours else ensemble
    names = source.names if neighbours else ensemble.members
    chosen = _rungs(ensemble, names, followed, transform) if ladder else _models(models, transform, option)
    if neighbours and not ladder:
        chosen = models_told(chosen, ensemble.members)
    found = run(chosen, source, **options, progressbar=watched(progress))
    console = shared.new_console()
    shown = ["model", "n", "stations", "crps", "log_score", "rmse", "coverage90", "width90"]
    scores = score_table(found)
    shown = shown if ensemble.labels("site") is not None else [name for name in shown if name != "stations"]
    shown += ["not_converged"] if (scores["not_converged"] != ALL_CONVERGED).any() else []
    shared.show(console, f"Scores on rows held out ({options['estimand']})", scores[shown])
    if ladder:
        differences = ladder_effects(found, random_seed=held.seed)
        shared.show(console, "What each change does", _short(differences, ["effect", "before", "after"]))
        typer.echo(ladder_words(differences))
    else:
        reference = str(found["model"].values[0])
        differences = paired_differences(found, reference, random_seed=held.seed)
        differences = differences[differences["metric"] == "crps"].reset_index(drop=True)
        shared.show(console, f"Against {reference}", _short(differences, ["model", "metric"]))
    for path, what in ((out, differences), (rows, found)):
        if path is not None:
            write_table(what, path)
            tell(f"{path}: written")
    if recalibrate is not None:
        _recalibrated(found, recalibrate, held.seed, out, ensemble, console)
    if figure is not None:
        from bayesens import plots

        _drawn(plots.ladder(differences) if ladder else plots.differences(differences), figure)


def _check_outputs(table: Path, *outputs: tuple[Path | None, tuple[str, ...]]) -> None:
    for path, suffixes in outputs:
        if path is not None:
            shared.check_out(path, [table], suffixes)


def _goes_on(cache: Path | None) -> None:
    """With a cache an interrupted command is not lost."""
    if cache is not None:
        talk.interrupted = f"finished folds are kept in {cache}; the same command goes on where it stopped."


def _models(text: str, transform: str | None, options: list[str] | None) -> dict[str, Any]:
    """Models by their names, with the options that they have: one that none of them has is refused."""
    from dataclasses import fields

    from bayesens import models
    from bayesens.app.option_text import option_from_words
    from bayesens.messages import check_known

    names = names_in(text)
    check_known(names, MODELS, kind="model", where="--models")
    classes = {MODELS[name]: getattr(models, MODELS[name]) for name in names}
    values: dict[str, dict[str, Any]] = {name: shared.those_given(transform=transform) for name in classes}
    for words in options or []:
        asked = words.partition("=")[0]
        takers = [name for name, cls in classes.items() if asked in {one.name for one in fields(cls)}]
        for name in takers or list(classes)[:1]:  # of one that has it not, it says what there is
            key, value = option_from_words(classes[name], words)
            values[name][key] = value
    return {name: cls(**values[name]) for name, cls in classes.items()}


def _keeping(reading: Reading, followed: list[str]) -> Reading:
    """How the table is read, with the columns that weights follow kept beside the members."""
    if not followed:
        return reading
    from bayesens.likelihoods.corrected.widths import columns_asked
    from bayesens.models import BMA

    asked = columns_asked(BMA(weights="covariates", weight_covariates=tuple(followed)))
    columns = [name for name in asked if name not in ("lon", "lat") or getattr(reading, name) is None]
    kept = dict.fromkeys([*names_in(reading.covariates or ""), *columns])
    return replace(reading, covariates=",".join(f'"{name}"' for name in kept)) if kept else reading


def _rungs(ensemble: Ensemble, members: Sequence[str], followed: list[str], transform: str | None) -> dict[str, Any]:
    """The rungs that the table's labels allow."""
    from bayesens.comparison.ladder import ladder

    options = shared.those_given(transform=transform)
    labels = {name: ensemble.labels(name) is not None for name in ("group", "site")}
    return ladder(**labels, members=members, weight_covariates=followed, **options)


def _beside(out: Path, name: str) -> Path:
    """A file beside the table of differences."""
    return out.with_name(f"{out.name.removesuffix(full_suffix(out))}-{name}")


def _recalibrated(
    found: xr.Dataset, method: str, seed: int, out: Path | None, ensemble: Ensemble, console: Any
) -> None:
    """Print what recalibration changes at other stations, and write it with the maps of levels that do it."""
    from bayesens.app.recalibrated import recalibrated, recalibration_words
    from bayesens.ensemble.files import write_table
    from bayesens.tables.atomic import file_name

    by = ("group",) if ensemble.labels("group") is not None else ()
    made = recalibrated(found, method=method, by=by, random_seed=seed)
    shown = [
        "model",
        "n",
        "coverage90_before",
        "coverage90_after",
        "width90_before",
        "width90_after",
        "crps_change",
        "low",
        "high",
    ]
    shared.show(
        console,
        f"Recalibrated ({method}) by others than the row's own",
        made.table.loc[made.table["group"] == "all", shown],
    )
    for name in made.maps:
        typer.echo(recalibration_words(made.table, name))
    if out is None:
        return
    write_table(made.table, _beside(out, f"recalibration{full_suffix(out)}"))
    tell(f"{_beside(out, f'recalibration{full_suffix(out)}')}: written")
    for name, law in made.maps.items():
        path = _beside(out, f"{file_name(name)}.json")
        law.save(path)
        tell(f"{path}: map of levels; use it by: bayesens predict FIT TABLE --recalibration {path}")


def _short(table: pd.DataFrame, heads: list[str]) -> pd.DataFrame:
    return table[[*heads, "difference", "low", "high", "unit", "p_better", "verdict"]]


@partial(with_options, without=("lon", "lat", "covariates", "spread"))
def dependence(
    table: shared.TablePath,
    observation: Observation,
    *,
    reading: Reading,
    seed: Seed = 1,
    out: Annotated[Path | None, typer.Option(help="Write all of it as a table: .csv, .tsv or .parquet.")] = None,
    figure: Figure = None,
) -> None:
    """Say how far the members' errors are one, and what that means.

    Example: bayesens dependence table.csv --members rf,svr,xgb --observation sm --site station
    """
    _check_outputs(table, (out, TABLES), (figure, FIGURES))
    ensemble = ensemble_from(table, reading, observation)

    from bayesens.comparison.errors.dependence import dependence as run
    from bayesens.comparison.errors.words import dependence_table, dependence_words

    found = run(ensemble, random_seed=seed)
    whole = dependence_table(found)
    measures = ["error_correlation", "output_correlation", "k_eff"]
    some = whole[(whole["group"] == "all") & whole["measure"].isin(measures)]
    console, columns = shared.new_console(), ("part", "member", "other", "kind", "value", "low", "high")
    for measure, lines in some.groupby("measure", sort=False):
        shown = [name for name in columns if (lines[name] != "").any()]
        shared.show(console, str(measure).replace("_", " ").capitalize(), lines[shown])
    typer.echo(dependence_words(found))
    if out is not None:
        from bayesens.ensemble.files import write_table

        write_table(whole, out)
        tell(f"{out}: {len(whole)} numbers")
    if figure is not None:
        from bayesens import plots

        _drawn(plots.dependence(found)[0], figure)


PARTS = ("members", "clusters", "shapley", "stations", "priors", "weights")


@partial(with_options, without=("lon", "lat"))
def sensitivity(
    table: shared.TablePath,
    observation: Observation,
    *,
    reading: Reading,
    model: shared.ModelName = "bma",
    option: shared.OptionWords = None,
    transform: shared.Transform = None,
    what: Annotated[
        str,
        typer.Option(
            help="Separated by commas. members and clusters: left out, one after the other; shapley: all subsets; stations: "
            "removed before fitting; priors: scaled, and what they imply; weights: with the spread that stations give them."
        ),
    ] = "members,priors,weights",
    shares: Annotated[str, typer.Option(help="Of the stations to remove, separated by commas.")] = "0.1,0.2,0.3,0.4",
    held: HeldOut,
    out: Annotated[Path | None, typer.Option(help="Folder for the tables (.csv), new or empty.")] = None,
    progress: shared.Progress = True,
) -> None:
    """Say what a result rests on: members, stations, priors.

    Example: bayesens sensitivity table.csv --members rf,svr,xgb --observation sm --site station --what members,priors
    """
    from bayesens.messages import check_known

    _goes_on(held.cache)
    asked, removed = tuple(dict.fromkeys(names_in(what))), shared.numbers_in(shares, "--shares")
    check_known(asked, PARTS, kind="part", where="--what")
    chosen = shared.model_from_words(MODELS[model], transform, option)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"--out {out} is there already and not an empty folder; name a new one")
    ensemble = ensemble_from(table, held.keeping_places(reading), observation)
    from bayesens.app.cli.sensitivity import answers
    from bayesens.ensemble.files import write_table

    console, options = shared.new_console(), held.arguments(ensemble)
    for answer in answers(chosen, ensemble, asked, shares=removed, **options, progressbar=watched(progress)):
        shared.show(console, answer.title, answer.shown)
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
    shared.say(f"{path}: drawn")
