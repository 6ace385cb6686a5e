"""What all commands share: options, the way from words to values, and how tables and messages are printed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bayesens.console import new_console, show
from bayesens.models import KINDS as MODELS

__all__ = [
    "MODELS",
    "FitPath",
    "Method",
    "ModelName",
    "OptionWords",
    "Progress",
    "TablePath",
    "Transform",
    "check_out",
    "model_from_words",
    "names_in",
    "new_console",
    "numbers_in",
    "say",
    "show",
    "talk",
    "tell",
    "those_given",
    "watched",
]

TablePath = Annotated[
    Path,
    typer.Argument(metavar="TABLE", help="Rows: .csv, .tsv or .txt (also .gz), .xlsx, .parquet, .nc or .zarr."),
]
FitPath = Annotated[Path, typer.Argument(metavar="FIT", help="A file that `bayesens fit` wrote (.nc).")]
if TYPE_CHECKING:
    ModelName = str
else:  # as many as there are
    ModelName = Annotated[Literal[tuple(MODELS)], typer.Option(help="Which model.")]
Transform = Annotated[
    Literal["identity", "sqrt", "log"] | None, typer.Option(help="Of observations and members alike.")
]
OptionWords = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Any option or prior of the model; repeat as needed. VALUE is a word or JSON: sigma=shared, errors=lkj, site=true, "
        'level_prior={"family": "Normal", "mu": 0, "sigma": 5}.',
    ),
]
Method = Annotated[
    Literal["auto", "nuts", "laplace", "em"],
    typer.Option(help="auto takes Laplace where it can be trusted, and NUTS elsewhere; em gives point estimates."),
]
Progress = Annotated[bool, typer.Option(help="Show progress, in a terminal.")]


@dataclass
class _Talk:
    """How the command that runs now speaks.

    Attributes
    ----------
    quiet : bool
        No progress and no confirmations; results, warnings and errors remain.
    study : bool
        Messages name keys of the study file, and not options.
    interrupted : str
        What is said of the work when it is interrupted.
    """

    quiet: bool = False
    study: bool = False
    interrupted: str = ""

    def reset(self, *, quiet: bool = False) -> None:
        """Begin a command."""
        self.quiet, self.study, self.interrupted = quiet, False, "no output was written."


talk = _Talk()


def watched(progress: bool) -> bool:
    """Whether progress is drawn: in a terminal, unless it is not wanted."""
    return progress and not talk.quiet and sys.stderr.isatty()


def tell(text: str) -> None:
    """One line on the standard output that confirms what was done."""
    if not talk.quiet:
        typer.echo(text)


def say(text: str, head: str = "", color: str | None = None) -> None:
    """One line on the standard error: a warning or an error with its head, or how the work goes on."""
    if talk.quiet and not head:
        return
    if head:
        typer.secho(f"{head} ", err=True, fg=color, bold=True, nl=False)
    typer.echo(text, err=True)


# --------------------------------------------------------------------------------------------------------------- input
def names_in(text: str) -> list[str]:
    """Names that stand between commas; one with a comma in it stands in double quotes."""
    import csv

    return [name.strip() for row in csv.reader([text], skipinitialspace=True) for name in row if name.strip()]


def those_given(**options: Any) -> dict[str, Any]:
    """Options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def numbers_in(text: str, option: str) -> list[float]:
    """Numbers that stand between commas."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} got {text!r}; wanted numbers separated by commas, such as .05,.5,.95") from None


def check_out(out: Path, inputs: list[Path], suffixes: tuple[str, ...] = ()) -> None:
    """Refuse an output that could not be written, or that would replace an input, before the work."""
    from bayesens.tables.atomic import check_writable, full_suffix
    from bayesens.tables.reading import TABLES

    wanted = suffixes or TABLES
    if full_suffix(out).lower() not in wanted:
        raise ValueError(f"--out {out} has the suffix {full_suffix(out)!r}; wanted {' or '.join(wanted)}")
    check_writable(out)
    for path in inputs:
        if out.exists() and path.exists() and out.samefile(path):
            raise ValueError(f"--out {out} is an input of this command and would be replaced; name another file")


def model_from_words(name: str, transform: str | None, options: list[str] | None) -> Any:
    """Make a model from its class's name and ``NAME=VALUE`` options."""
    from bayesens import models
    from bayesens.app.option_text import option_from_words

    cls = getattr(models, name)
    values = dict(option_from_words(cls, text) for text in options or [])
    return cls(**values | those_given(transform=transform))
