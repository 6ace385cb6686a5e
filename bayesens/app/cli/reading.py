"""How commands read a table: options that every one of them has, as one value, and the way to an ensemble."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from bayesens.app.cli.shared import names_in, numbers_in, say, those_given

if TYPE_CHECKING:
    from bayesens.ensemble.ensemble import Ensemble

__all__ = ["PLAIN", "Reading", "ensemble_from", "reads_tables", "say_codes"]

TimeFormat = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT",
        help="How times are written, where it is asked for: %d/%m/%Y, YYYYMMDD, epoch, excel, number (plain steps), ...",
    ),
]
Decimal = Annotated[
    Literal[".", ","] | None, typer.Option(help="How decimals are written in a text file; left out: points.")
]
Separator = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="What stands between the cells of a text file; left out: looked for. tab: a tab."
    ),
]
Sheet = Annotated[str | None, typer.Option(metavar="NAME", help="Sheet of an .xlsx table; left out: the first one.")]
Long = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL:VALUE",
        help="Columns of a long table, one row a model and case: the models' names and their predictions.",
    ),
]
Missing = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VALUE",
        help="Code for missing values, such as -9999, or COLUMN=VALUE; repeat as needed. COLUMN=none, or none: all are true.",
    ),
]
Scale = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN=NUMBER", help="A column in another unit becomes value * scale + offset; repeat as needed."
    ),
]
Offset = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN=NUMBER", help="See --scale, such as --offset era5=-273.15.")
]


@dataclass(frozen=True)
class Reading:
    """Options of how a table is read, as the command line gives them; each is an option of every command that reads one."""

    time_format: TimeFormat = None
    decimal: Decimal = None
    separator: Separator = None
    sheet: Sheet = None
    long: Long = None
    missing: Missing = None
    scale: Scale = None
    offset: Offset = None

    @property
    def of_columns(self) -> dict[str, Any]:
        """Those of values in the columns, as arguments of an ensemble; nothing where they were not given."""
        return those_given(time_format=self.time_format) | self.codes | _conversion_in(self.scale, self.offset)

    @property
    def of_file(self) -> dict[str, Any]:
        """Those of the file itself, as `bayesens.tables.reading.read_table` takes them; nothing where they were not given."""
        separator = "\t" if self.separator in ("tab", "\\t") else self.separator
        return those_given(decimal=self.decimal, separator=separator, sheet=self.sheet)

    @property
    def codes(self) -> dict[str, Any]:
        """What --missing says, as the argument of an ensemble."""
        return _missing_in(self.missing)


PLAIN = Reading()


def reads_tables(command: Callable[..., None], *, without: tuple[str, ...] = ()) -> Callable[..., None]:
    """Give a command the options of `Reading`, which it takes as one value, in the place of its parameter ``reading``.

    Parameters
    ----------
    command : callable
        With a parameter ``reading``.
    without : tuple of str
        Options that it has no use for.
    """
    hints = get_type_hints(Reading, include_extras=True)
    names = [each.name for each in fields(Reading) if each.name not in without]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    options = [inspect.Parameter(name, kind, default=None, annotation=hints[name]) for name in names]
    parameters = [
        one
        for own in inspect.signature(command, eval_str=True).parameters.values()
        for one in (options if own.name == "reading" else [own])
    ]

    @wraps(command)
    def with_options(**given: Any) -> None:
        reading = Reading(**{name: given.pop(name) for name in names})
        command(reading=reading, **given)

    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options


def ensemble_from(
    table: Path,
    members: str | None,
    reading: Reading,
    covariates: str | None = None,
    **columns: str | None,
) -> Ensemble:
    """Read a table with the columns that options name; a dataset may have a dimension of members."""
    from bayesens.ensemble.files import read_ensemble

    named: dict[str, Any] = those_given(**columns) | reading.of_columns
    if members is not None:
        named["members"] = names_in(members)
    elif table.suffix not in (".nc", ".zarr") and reading.long is None:
        raise ValueError("--members is missing; name the columns of predictions, such as --members rf,svr,xgb")
    if covariates is not None:
        named["covariates"] = names_in(covariates)
    try:
        ensemble = read_ensemble(table, long=reading.long, **reading.of_file, **named)
    except KeyError as error:
        if hint := _comma_in_a_name(table, [*named.get("members", []), *named.get("covariates", [])], reading):
            raise ValueError(hint) from error
        raise
    say_codes(ensemble)
    return ensemble


def _comma_in_a_name(table: Path, names: list[str], reading: Reading) -> str:
    """Say how a column whose name has a comma is named, if that is why names were not found."""
    from bayesens.tables.reading import read_table

    columns = [str(name) for name in read_table(table, **reading.of_file)]
    for column in (column for column in columns if "," in column):
        if {part.strip() for part in column.split(",")} <= set(names) - set(columns):
            return (
                f"column {column!r} of {table} has a comma in its name; put it in double quotes among the others: "
                f"--members '\"{column}\",...'"
            )
    return ""


def say_codes(ensemble: Ensemble) -> None:
    """Say which codes were read as missing, and how many."""
    from bayesens.tables.missing_codes import missing_words

    if ensemble.codes:
        say(f"Read as missing: {missing_words(ensemble.codes)}")


def _missing_in(words: list[str] | None) -> dict[str, Any]:
    """What --missing says, as the argument of an ensemble; nothing where it was not given."""
    out: dict[str, Any] = {}
    for text in words or []:
        column, _, values = text.rpartition("=")
        codes = out.setdefault(column or "*", [])
        if values.strip().lower() != "none":
            codes += numbers_in(values, "--missing")
    return {} if not out else {"missing": out}


def _conversion_in(scale: list[str] | None, offset: list[str] | None) -> dict[str, dict[str, float]]:
    """What --scale and --offset say, as arguments of an ensemble."""
    out: dict[str, dict[str, float]] = {}
    for option, words in (("scale", scale), ("offset", offset)):
        for text in words or []:
            column, sign, value = text.rpartition("=")
            if not (sign and column):
                raise ValueError(f"--{option} got {text!r}; wanted COLUMN=NUMBER, such as --{option} rf=0.01")
            out.setdefault(option, {})[column] = numbers_in(value, f"--{option}")[0]
    return out
