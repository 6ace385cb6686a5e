"""How commands read a table and hold rows out: options that several of them have, as values, and the way to an ensemble."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from bayesens.app.cli.shared import Method, names_in, numbers_in, say, those_given

if TYPE_CHECKING:
    from bayesens.ensemble.ensemble import Ensemble

__all__ = ["HeldOut", "Reading", "ensemble_from", "say_codes", "with_options"]

Members = Annotated[str | None, typer.Option(help="Columns of predictions, separated by commas.")]
Site = Annotated[str | None, typer.Option(help="Column of site labels (stations, gauges).")]
Group = Annotated[str | None, typer.Option(help="Column of group labels (networks, basins).")]
Time = Annotated[str | None, typer.Option(help="Column of times.")]
Lon = Annotated[str | None, typer.Option(help="Column of longitudes.")]
Lat = Annotated[str | None, typer.Option(help="Column of latitudes.")]
Covariates = Annotated[
    str | None,
    typer.Option(
        help="Columns that the model looks at beside the members (bias_covariates, scale), separated by commas."
    ),
]
Spread = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MEMBER=COLUMN",
        help="A member's own standard deviation of every row, such as krig=krig_sd, for BMA; repeat as needed. Of a long table "
        "its one column of them: COLUMN.",
    ),
]
Units = Annotated[str | None, typer.Option(help="Units of members and observations.")]
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


Estimand = Annotated[
    Literal["time", "site", "site-time", "group", "row"] | None,
    typer.Option(
        help="What is new in the rows held out: times at known sites, sites, both (a map), groups, or row (one by one). "
        "Left out: site; without --site time; without --time row."
    ),
]
Folds = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER|KIND",
        help="Left out: 5, or one for each group. Sites by their places: knndm (as far from training as the map is from its "
        "stations: --map), blocks (clusters), or with a number: 'knndm 10'.",
    ),
]
Places = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y", help="Columns of planar coordinates, for --folds and --buffer; left out: --lon and --lat."
    ),
]
Buffer = Annotated[
    float | None,
    typer.Option(
        help="Rows of sites nearer than this to a site held out are not learnt from [km, or units of x and y]."
    ),
]
MapGrid = Annotated[
    Path | None,
    typer.Option(
        "--map", metavar="GRID", help="The map: a grid or table with lon and lat, or x and y, for --folds knndm."
    ),
]
Draws = Annotated[int, typer.Option(help="Draws of each of four chains.")]
Seed = Annotated[int, typer.Option(help="Of folds, draws and bootstrap: equal seeds, equal results.")]
Workers = Annotated[int, typer.Option(help="Processes that share folds and models.")]
Cache = Annotated[Path | None, typer.Option(help="Folder that keeps finished folds: a run that was stopped goes on.")]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What columns are, and how a table is read, as the command line says it."""

    members: Members = None
    site: Site = None
    group: Group = None
    time: Time = None
    lon: Lon = None
    lat: Lat = None
    covariates: Covariates = None
    spread: Spread = None
    units: Units = None
    time_format: TimeFormat = None
    decimal: Decimal = None
    separator: Separator = None
    sheet: Sheet = None
    long: Long = None
    missing: Missing = None
    scale: Scale = None
    offset: Offset = None

    @property
    def roles(self) -> dict[str, Any]:
        """Columns that are named, and units."""
        return those_given(
            site=self.site, group=self.group, time=self.time, lon=self.lon, lat=self.lat, units=self.units
        )

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


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """How rows are held out, as the command line says it."""

    estimand: Estimand = None
    folds: Folds = None
    places: Places = None
    buffer: Buffer = None
    map_grid: MapGrid = None
    method: Method = "auto"
    draws: Draws = 1000
    seed: Seed = 1
    workers: Workers = 1
    cache: Cache = None

    def arguments(self, ensemble: Ensemble) -> dict[str, Any]:
        """As `bayesens.compare` takes them, with the estimand that a table allows where none is asked for."""
        from bayesens.comparison.folds.held_out_rows import usual_estimand

        usual = usual_estimand(site=ensemble.labels("site") is not None, time="time" in ensemble.dataset.coords)
        return {"estimand": self.estimand or usual, "folds": _folds_in(self.folds), "buffer": self.buffer,
                "map_points": self._map(), "places": self._places(ensemble), "method": self.method,
                "draws": self.draws, "random_seed": self.seed, "workers": self.workers, "cache": self.cache}  # fmt: skip

    def keeping_places(self, reading: Reading) -> Reading:
        """How the table is read, with the columns of planar coordinates kept beside the members."""
        return reading if self.places is None else replace(reading, covariates=self.places)

    def _places(self, ensemble: Ensemble) -> dict[str, Any] | None:
        """The columns of --places, as the ensemble has kept them."""
        if self.places is None:
            return None
        kept = ensemble.dataset["covariate"]
        return {name: kept.sel(covariate_name=name).values for name in names_in(self.places)}

    def _map(self) -> Any:
        """The cells of the map, as they are in the file."""
        from bayesens.tables.reading import read_table

        return None if self.map_grid is None else read_table(self.map_grid)


def with_options(command: Callable[..., None], *, without: tuple[str, ...] = ()) -> Callable[..., None]:
    """Give a command the options that `Reading` and `HeldOut` have, in the place of its parameters of these kinds.

    `without`: options of these kinds that it has no use for.
    """
    parameters, values = [], {}
    for own in inspect.signature(command, eval_str=True).parameters.values():
        if own.annotation not in (Reading, HeldOut):
            parameters.append(own.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        hints = get_type_hints(own.annotation, include_extras=True)
        values[own.name] = own.annotation, [each for each in fields(own.annotation) if each.name not in without]
        parameters += [
            inspect.Parameter(each.name, own.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
            for each in values[own.name][1]
        ]

    @wraps(command)
    def called(**given: Any) -> None:
        for name, (kind, options) in values.items():
            given[name] = kind(**{each.name: given.pop(each.name) for each in options})
        command(**given)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    return called


def ensemble_from(table: Path, reading: Reading, observation: str) -> Ensemble:
    """Read a table with the columns that options name; a dataset may have a dimension of members."""
    from bayesens.ensemble.files import read_ensemble

    named: dict[str, Any] = {"observation": observation} | reading.roles | reading.of_columns
    if reading.members is not None:
        named["members"] = names_in(reading.members)
    elif table.suffix not in (".nc", ".zarr") and reading.long is None:
        raise ValueError("--members is missing; name the columns of predictions, such as --members rf,svr,xgb")
    if reading.covariates is not None:
        named["covariates"] = names_in(reading.covariates)
    if reading.spread:
        named["spread"] = _spread_in(reading.spread, long=reading.long is not None)
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


def _folds_in(text: str | None) -> int | str | None:
    """What --folds says: a number, or a kind with a number."""
    return int(text) if text is not None and text.strip().isdecimal() else text


def _missing_in(words: list[str] | None) -> dict[str, Any]:
    """What --missing says, as the argument of an ensemble; nothing where it was not given."""
    out: dict[str, Any] = {}
    for text in words or []:
        column, _, values = text.rpartition("=")
        codes = out.setdefault(column or "*", [])
        if values.strip().lower() != "none":
            codes += numbers_in(values, "--missing")
    return {} if not out else {"missing": out}


def _spread_in(words: list[str], *, long: bool) -> dict[str, str] | str:
    """What --spread says, as the argument of an ensemble: a column of each member, or the one of a long table."""
    pairs = [text.partition("=") for text in words]
    if long and len(pairs) == 1 and not pairs[0][1]:
        return words[0]
    if long or not all(member and column for member, _, column in pairs):
        wanted = "one COLUMN of the long table" if long else "MEMBER=COLUMN, such as --spread krig=krig_sd"
        raise ValueError(f"--spread got {' '.join(words)!r}; wanted {wanted}")
    return {member: column for member, _, column in pairs}


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
