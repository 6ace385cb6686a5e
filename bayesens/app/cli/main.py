"""The command line: each command reads its files, calls the library and prints.

Importing numpy takes longer than ``--help`` may, so commands import what they need when they run. Results go to the
standard output; errors, warnings and progress to the standard error. What the library refuses is one message there and
exit status 1; a traceback only with ``--debug``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from bayesens import __version__
from bayesens.app.cli.answers import compare, dependence, sensitivity
from bayesens.app.cli.day import Neighbours, Observations, given_places, with_places
from bayesens.app.cli.maps import map_grid
from bayesens.app.cli.reading import Places, Reading, ensemble_from, with_options
from bayesens.app.cli.shared import (
    MODELS,
    FitPath,
    Method,
    ModelName,
    OptionWords,
    Progress,
    TablePath,
    Transform,
    check_out,
    model_from_words,
    names_in,
    new_console,
    numbers_in,
    say,
    show,
    talk,
    tell,
    those_given,
    watched,
)
from bayesens.app.cli.words import plain_words

__all__ = ["app", "main"]

QUIET = ("-q", "--quiet")
# An import that fails names the extra to install.
REFUSALS = (ValueError, KeyError, TypeError, IndexError, OSError, ImportError)
# What these warn of is for programmers; what a fit is worth, bayesens says itself.
RESUMES = "finished steps are kept; the same command goes on where it stopped."
OTHERS = r"(pytensor|pymc|nutpie|numba|arviz\w*|xarray|pandas|numpy|matplotlib)\b"


@contextmanager
def _plain(debug: bool) -> Iterator[None]:
    """Refusals and warnings of the library as one message each, without a traceback or a source line."""
    if debug:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=OTHERS)
        shown: set[str] = set()

        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            if (text := str(message)) not in shown:
                shown.add(text)
                say(plain_words(text, study=talk.study), "Warning:", "yellow")

        warnings.showwarning = show
        try:
            yield
        except KeyboardInterrupt:
            say(talk.interrupted, "Interrupted:", "red")
            raise typer.Exit(130) from None
        except BrokenPipeError:  # `bayesens describe fit.nc | head` is no mistake
            raise
        except MemoryError as error:
            say(_out_of_memory(error), "Error:", "red")
            raise typer.Exit(1) from None
        except REFUSALS as error:
            # A plain KeyError prints its text in quotes.
            text = error.args[0] if type(error) is KeyError and error.args else error
            say(plain_words(str(text), study=talk.study) or type(error).__name__, "Error:", "red")
            raise typer.Exit(1) from error


def _out_of_memory(error: MemoryError) -> str:
    """One line: numpy says how much was wanted, Python nothing."""
    what = f" ({str(error).rstrip('.')})" if str(error) else ""
    return f"memory ran out{what}; take fewer rows or --draws, or a machine with more of it"


class _Commands(TyperGroup):
    """All commands inside the one place that turns exceptions into messages."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take -q wherever it stands: behind the command as well as before it."""
        end = args.index("--") if "--" in args else len(args)
        rest = [word for word in args[:end] if word not in QUIET]
        return list(super().parse_args(ctx, [*(["--quiet"] if len(rest) < end else []), *rest, *args[end:]]))

    def invoke(self, ctx: Any) -> Any:
        with _plain(bool(ctx.params.get("debug"))):
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    help="Turn the predictions of several models into one calibrated predictive distribution.",
    epilog="Start with: bayesens demo. --quiet (-q) may also stand behind a command.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help answers in 0.15 s; a help page drawn by rich in 0.45 s
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command ``bayesens``."""
    app(prog_name="bayesens")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"bayesens {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="BAYESENS_DEBUG", help="Show tracebacks and every warning.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="No progress and no confirmations; results, warnings and errors remain."),
    ] = False,
) -> None:
    talk.reset(quiet=quiet)


# ------------------------------------------------------------------------------------------------------------ commands
@app.command()
@with_options
def fit(
    table: TablePath,
    observation: Annotated[str, typer.Option(help="Column of observations; rows without one are left out.")],
    out: Annotated[Path, typer.Option(help="Where the fit goes (.nc).")],
    *,
    reading: Reading,
    model: ModelName = "bma",
    transform: Transform = None,
    option: OptionWords = None,
    neighbours: Neighbours = False,
    places: Places = None,
    method: Method = "auto",
    draws: Annotated[int, typer.Option(help="Draws that each chain keeps.")] = 1000,
    tune: Annotated[int, typer.Option(help="Draws before these, thrown away.")] = 500,
    chains: Annotated[int, typer.Option(help="Chains.")] = 4,
    seed: Annotated[int | None, typer.Option(help="Equal seeds give equal draws.")] = None,
    progress: Annotated[bool, typer.Option(help="Show the sampler at work, in a terminal.")] = True,
) -> None:
    """Fit a model to member predictions and observations.

    Example: bayesens fit train.csv --members rf,svr,xgb --observation sm --site station --group network --model hbm
    --out fit.nc

    With --neighbours the fit keeps the observations, and `bayesens predict` and `bayesens map` interpolate them.
    """
    from bayesens.inference.fit_tree import write_fit

    check_out(out, [table], (".nc",))
    if places is not None and not neighbours:
        raise ValueError(f"--places {places} says where stations lie, which neighbours alone ask here: --neighbours")
    chosen = model_from_words(MODELS[model], transform, option)
    ensemble, day = ensemble_from(table, with_places(reading, places), observation), None
    if neighbours:
        from bayesens.members.day.beside import with_neighbours_of_its_own

        say("Interpolating what the other stations observed ...")
        day, ensemble = with_neighbours_of_its_own(ensemble, places=given_places(ensemble, places))

    from bayesens.inference.fit import fit as run

    steps = "" if method == "em" else "; it is compiled first, which takes longest the first time"
    say(f"Fitting {MODELS[model]} to {int(ensemble.observed.sum())} observed rows, method {method}{steps} ...")
    tree = run(
        chosen, ensemble, method=method, draws=draws, tune=tune, chains=chains, random_seed=seed,
        progressbar=watched(progress),
    )  # fmt: skip
    if day is not None:
        from bayesens.members.day.kept import keep_in

        tree = keep_in(tree, day)
    write_fit(tree, out)
    ran = f"{MODELS[model]} by {tree.attrs['method']} in {tree.attrs['seconds']:.1f} s"
    tell(f"{out}: {ran}; see it by: bayesens describe {out}")


@app.command()
@partial(with_options, without=("members", "covariates", "spread"))
def predict(
    fit: FitPath,
    table: TablePath,
    out: Annotated[Path, typer.Option(help="Predictions: .csv, .tsv or .parquet with a line a row; .nc or .zarr.")],
    quantiles: Annotated[str, typer.Option(help="Levels, separated by commas.")] = "0.05,0.25,0.5,0.75,0.95",
    observations: Observations = None,
    recalibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Recalibrate by a map of levels (.json) that `bayesens compare --recalibrate` or a study wrote.",
        ),
    ] = None,
    *,
    reading: Reading,
    force: Annotated[bool, typer.Option("--force", help="Write over an output that is there already.")] = False,
) -> None:
    """Predict mean, sd and quantiles for each row, beside the columns of the input.

    Columns have the names that they had in the fit, unless options say otherwise.
    """
    from bayesens.ensemble.files import write_table
    from bayesens.inference.fit_tree import read_fit

    check_out(out, [fit, table])
    if out.exists() and not force:
        raise FileExistsError(f"--out {out} is there already; name another file, or write over it: --force")
    levels = numbers_in(quantiles, "--quantiles")
    tree = read_fit(fit)

    from bayesens.app.cli.new_rows import new_rows
    from bayesens.app.cli.predict import recalibration_of, with_input
    from bayesens.inference.predict import predict as run

    law = None if recalibration is None else recalibration_of(recalibration, tree)
    rows, read = new_rows(tree, table, reading, observations=observations)
    prediction = run(tree, rows, quantiles=levels, recalibration=law)
    write_table(with_input(prediction, rows, read, dataset=out.suffix in (".nc", ".zarr")), out)
    tell(f"{out}: {len(rows)} rows predicted by {tree.attrs['bayesens_model']}")


@app.command()
@partial(with_options, without=("members", "covariates", "spread"))
def score(
    fit: FitPath,
    table: TablePath,
    by: Annotated[Literal["group", "site"] | None, typer.Option(help="A line for each of these, too.")] = None,
    levels: Annotated[str, typer.Option(help="Central intervals, separated by commas.")] = "0.5,0.9",
    out: Annotated[Path | None, typer.Option(help="Write the table, too: .csv, .tsv or .parquet.")] = None,
    observation: Annotated[str | None, typer.Option(help="Column of observations.")] = None,
    observations: Observations = None,
    *,
    reading: Reading,
) -> None:
    """Score a fit where there are observations.

    The rows should be ones that the fit has not seen; a warning says so where they are not. Columns have the names that
    they had in the fit, unless options say otherwise.
    """
    from bayesens.ensemble.files import write_table
    from bayesens.inference.fit_tree import read_fit

    if out is not None:
        check_out(out, [fit, table], (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet"))
    asked = numbers_in(levels, "--levels")
    tree = read_fit(fit)

    from bayesens.app.cli.new_rows import new_rows

    rows, _ = new_rows(tree, table, reading, observation=observation, observed=True, observations=observations)
    if by is not None and rows.labels(by) is None:
        raise ValueError(
            f"--by {by} needs {by} labels, and no column of {table} is known to hold them; name it: --{by}"
        )

    from bayesens.app.cli.predict import seen_words
    from bayesens.app.result_tables import mean_scores
    from bayesens.inference.predict import score as run
    from bayesens.messages import warn

    if seen := seen_words(tree, rows):
        warn(seen)

    means = mean_scores(run(tree, rows, levels=asked), by=by)
    if out is not None:
        write_table(means, out)
    units = f", in {tree.attrs['units']}" if tree.attrs["units"] else ""
    show(new_console(), f"{tree.attrs['bayesens_model']}: mean scores{units}", means)
    if out is not None:
        tell(f"{out}: this table")


@app.command()
def describe(fit: FitPath) -> None:
    """Say what a fit is and whether it converged.

    Model, options, data, what ran; weights, biases and other parameters with 90 % intervals.
    """
    from bayesens.inference.summary import summary_of_file

    told = summary_of_file(fit)
    console = new_console()
    console.print(str(fit), soft_wrap=True)
    told.print(console)


@app.command()
def demo(
    name: Annotated[Literal["region", "atlanta", "oznet"], typer.Argument(help="Which example.")] = "region",
    out: Annotated[Path, typer.Option(help="A new folder, or that of a former study.")] = Path("bayesens-demo"),
    seed: Annotated[int, typer.Option(help="Of the simulated region, folds, members and draws.")] = 1,
) -> None:
    """Do the whole job on example data: write a study file and run it.

    region: 28 simulated stations and 4 members with correlated errors, and maps of six dates, a minute or two. atlanta: fine
    particles at 37 monitors, and maps of 30 days, some minutes; read from the folder in BAYESENS_DATA. oznet: soil moisture of
    26 stations, whose members are trained here, ten minutes; it is downloaded, or read from that folder.
    """
    from bayesens.app.demo import run_demo

    talk.study, talk.interrupted = True, RESUMES
    _show_study(run_demo(out, name=name, random_seed=seed, say=say, progressbar=watched(True)))


@app.command()
@partial(with_options, without=("covariates", "spread", "units", "scale", "offset"))
def init(
    table: TablePath,
    out: Annotated[Path, typer.Option(help="The study file to write.")] = Path("study.toml"),
    observation: Annotated[str | None, typer.Option(help="Column of observations.")] = None,
    neighbours: Neighbours = False,
    *,
    reading: Reading,
) -> None:
    """Write a commented study file for a table, and show what each column was taken for.

    Columns that are not named are guessed from their names and values: check them before `bayesens run`.
    """
    from bayesens.app.cli.roles import held_out_words, neighbours_words, other_unit_words, show_roles
    from bayesens.app.study.template import study_roles, study_template
    from bayesens.tables.atomic import write_atomically
    from bayesens.tables.reading import as_table, read_table

    if out.exists():
        raise FileExistsError(f"{out} is there already; name another file: --out")
    given = those_given(observation=observation) | reading.roles
    if reading.members is not None:
        given["members"] = names_in(reading.members)
    given |= those_given(time_format=reading.time_format, long=reading.long) | reading.of_file
    frame = as_table(read_table(table, **reading.of_file))
    place = os.path.relpath(table.absolute(), out.absolute().parent)
    found = study_roles(frame, given=given, **reading.codes)
    text = study_template(frame, place, given=given, neighbours=neighbours, **reading.codes)
    with write_atomically(out) as aside:
        aside.write_text(text, encoding="utf-8")
    show_roles(new_console(), f"{table}: {len(frame)} rows", found)
    for text in other_unit_words(found):
        say(text)
    say(held_out_words(found))
    if neighbours:
        say(neighbours_words(found))
    tell(f"{out}: check the columns, then: bayesens run {out} --out results")


@app.command()
def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (.toml); `bayesens init` writes one.")],
    out: Annotated[Path, typer.Option(help="Folder of the results: new, or that of a former run, which goes on.")],
    progress: Progress = True,
) -> None:
    """Run a study: members, fits, scores on rows held out, tables, figures and the report.

    A run that was stopped goes on where it was; finished steps are done again only if what they depend on has changed.
    """
    from bayesens.app.study.run import run_study

    talk.study, talk.interrupted = True, RESUMES
    _show_study(run_study(study, out, say=say, progressbar=watched(progress)))


@app.command()
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Which shell.")],
) -> None:
    """Print a script that completes commands and options in a shell.

    Example: bayesens completion bash > ~/.bayesens-completion; then source that file in ~/.bashrc. fish: into
    ~/.config/fish/completions/bayesens.fish
    """
    from bayesens.app.cli.completion import completion_script

    typer.echo(completion_script(typer.main.get_command(app), shell))


for command in (compare, dependence, sensitivity):
    app.command()(command)
app.command("map")(map_grid)


def _show_study(done: Any) -> None:
    wanted = ["model", "estimand", "n", "stations", "crps", "log_score", "rmse", "coverage90", "width90"]
    table = done.scores.loc[done.scores["group"] == "all", wanted]
    if not table["stations"].any():
        table = table.drop(columns="stations")
    show(new_console(), "Scores on rows held out", table)
    for text in done.findings:
        typer.echo(f"- {text}")
    typer.echo(f"{done.folder / 'report.html'}: the report")
