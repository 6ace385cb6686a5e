"""The study file: a TOML file that names data, members, models and what to find out, checked before anything runs."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from bayesens.comparison.folds.held_out_rows import usual_estimand
from bayesens.models import KINDS
from bayesens.tables.atomic import file_name

__all__ = ["Study", "read_study", "study_from_text"]

Label = Literal["rf", "mlr", "svr", "xgb"]
Estimand = Literal["time", "site", "site-time", "group", "row"]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
# TOML arrays are lists, and one value is easily written without its brackets.
Words = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Code = float | tuple[float, ...] | Literal["none"]
Codes = Annotated[Code | dict[str, Code], Field(union_mode="left_to_right")]
if TYPE_CHECKING:
    Kind = str
else:  # as many as there are
    Kind = Literal[tuple(KINDS)]


class Part(BaseModel):
    """A table of the study file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class About(Part):
    """What the study is, and what makes it repeatable."""

    title: str = Field("Combining model predictions", description="Title of the report.")
    text: str = Field("", description="A paragraph for the report: question, region, data.")
    random_seed: int = Field(1, ge=0, description="Of folds, members, draws and bootstrap: equal seeds, equal results.")
    jobs: Positive = Field(2, description="Threads that train members.")


class Data(Part):
    """The table of observations, one row a case (such as a station and time), and which column is what."""

    table: Path | None = Field(
        None, description="Path from this file: .csv, .tsv or .txt (also .gz), .xlsx, .parquet, .nc or .zarr."
    )
    dataset: Literal["oznet", "region"] | None = Field(
        None, description="In place of a table: example data of bayesens."
    )
    observation: str = Field(description="Column of observations; empty where nothing was measured.")
    site: str | None = Field(None, description="Column of station labels; left out where rows have no place.")
    group: str | None = Field(None, description="Column of networks, basins or clusters of stations.")
    time: str | None = Field(None, description="Column of times.")
    lon: str | None = Field(None, description="Column of longitudes [degrees], for the map of stations.")
    lat: str | None = Field(None, description="Column of latitudes [degrees].")
    covariates: Words = Field(
        (),
        description='Columns that models look at beside the members: bias_covariates = ["dem"], scale = ["mean", "dem"].',
    )
    time_format: str | None = Field(
        None,
        description='How times are written, where it is asked for: "%d/%m/%Y", "YYYYMMDD", "epoch", "excel", "number".',
    )
    decimal: Literal[".", ","] | None = Field(
        None, description="How decimals are written in a text file; left out: points."
    )
    separator: str | None = Field(
        None, description='What stands between the cells of a text file, such as ";"; left out: looked for.'
    )
    sheet: str | None = Field(None, description="Of an .xlsx table; left out: the first one.")
    long: str | None = Field(
        None,
        description='Of a table with one row a model and case: columns of their names and predictions, "model:value".',
    )
    units: str = Field("", description="Of observations, members and products alike, such as m3 m-3.")
    missing: Codes = Field(
        (),
        description='Codes for missing values, such as [-9999], or {rf = [-9999], dem = "none"}: "none" where all are true.',
    )
    scale: dict[str, float] = Field(
        default_factory=dict,
        description="Columns in other units become value * scale + offset: {rf = 0.01} for percent.",
    )
    offset: dict[str, float] = Field(default_factory=dict, description="Likewise: {era5 = -273.15} for kelvin.")
    start: dt.date | None = Field(None, description="First day that is used, such as 2016-01-01.")
    end: dt.date | None = Field(None, description="Last day that is used.")
    drop: dict[str, list[Any]] = Field(
        default_factory=dict, description='Rows to leave out, by values of a column: {station = ["y8", "y9"]}.'
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.table is None) == (self.dataset is None):
            raise ValueError("give either table, a path, or dataset, an example")
        return self


class Members(Part):
    """The members: predictions that there are already, and estimators trained here without leakage."""

    columns: Words = Field((), description="Columns of predictions made elsewhere, without these observations.")
    train: tuple[Label, ...] = Field((), description="Members to train: rf, mlr, svr, xgb.")
    covariates: Words = Field((), description="Columns that the trained members learn from.")
    sums: dict[str, tuple[Positive, ...]] = Field(
        default_factory=dict,
        description="Covariates to add, sums over so many days up to the row's own: {rain = [3, 10, 30]} gives rain_3d, ...",
    )
    by: str | None = Field(None, description="Column of regions: one fit for each, beside the fit to all.")
    blend: float | None = Field(None, gt=0, description="Length [km] over which fits of neighbouring regions fade.")
    min_rows: Positive = Field(200, description="A region with fewer rows is left to the fit to all.")
    min_sites: Positive = Field(3, description="Likewise with fewer stations.")
    folds: Annotated[int, Field(ge=2)] = Field(5, description="Of cross-fitting within training rows.")
    settings: dict[Label, dict[str, Any]] = Field(
        default_factory=dict,
        description="Parameters of an estimator in place of the defaults: {rf = {n_estimators = 500}}.",
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.columns and not self.train:
            raise ValueError("there are no members: name columns, or train some from covariates")
        if self.train and not self.covariates:
            raise ValueError(f"covariates is empty; {', '.join(self.train)} learn from columns of the table: name them")
        if self.sums and not self.train:
            raise ValueError("sums makes covariates, and there is no member to train; name some, or leave sums out")
        if self.settings and (idle := set(self.settings) - set(self.train)):
            raise ValueError(f"settings has {', '.join(sorted(idle))}, which train does not name")
        return self


class Model(BaseModel):
    """A model: its kind, the method of inference, and any option or prior of the model."""

    model_config = ConfigDict(extra="allow", frozen=True)
    model: Kind = Field(description="Kind of model.")
    method: Literal["auto", "nuts", "laplace", "em"] | None = Field(
        None, description="Of inference; left out: that of [evaluation], the same for all."
    )

    @property
    def options(self) -> dict[str, Any]:
        """Options and priors of the model."""
        return dict(self.model_extra or {})


class Evaluation(Part):
    """How the models are scored on rows that they have not seen."""

    estimands: tuple[Estimand, ...] = Field(
        ("site",),
        min_length=1,
        description="What is new in the rows held out: time, site, site-time, group, or row (one by one). Left out: site; "
        "without data.site time; without data.time row.",
    )
    folds: Annotated[int, Field(ge=2)] | None = Field(None, description="Left out: 5, or one for each group.")
    blocks: Annotated[int, Field(ge=2)] = Field(2, description="Blocks of time of the estimand site-time.")
    gap: float | None = Field(
        None, ge=0, description="Days on either side of a block of time that are not learnt from."
    )
    by: Words = Field(("group",), description="Labels to make groups of rows by: group, site, season, or columns.")
    bands: tuple[Literal["all", "low", "mid", "high"], ...] = Field(
        ("all", "mid"), description="Bands of values of the table of products: mid is 15 to 85 %."
    )
    band_by: str = Field(
        "observation", description="What makes the bands: observation, climatology, or a model's name."
    )
    reference: str | None = Field(None, description="Model that the others are compared with; left out: the first one.")
    method: Literal["auto", "nuts", "laplace", "em"] = Field("auto", description="Of inference, for every model alike.")
    replicates: int = Field(
        2000,
        ge=0,
        description="Of the bootstrap over stations and blocks of time, or over rows where there are neither.",
    )
    block: float | None = Field(30.0, gt=0, description="Days of a block of time of the bootstrap.")
    draws: Positive = Field(1000, description="Draws of each of four chains.")


class Drought(Part):
    """Droughts: observations below a percentile of their station and time of the year."""

    percentile: Share = Field(0.2, description="Below this share of the station's climatology is a drought.")
    by: Literal["dayofyear", "month", "season", "all"] = Field("month", description="Time of the year.")
    min_count: Positive = Field(30, description="Observations that a threshold needs.")


class Importance(Part):
    """What drives the trained members."""

    repeats: Positive = Field(5, description="Permutations of every covariate.")
    within: Literal["season", "site"] | None = Field(None, description="Permute within seasons or stations only.")
    sets: dict[str, list[str]] = Field(
        default_factory=dict, description='Covariates to permute together: {texture = ["clay", "silt", "sand"]}.'
    )


class Ladder(Part):
    """The ladder from equal weights to HBM: one change a rung, and what each does on rows held out."""

    estimands: tuple[Estimand, ...] = Field((), description="Left out: those of [evaluation].")
    transform: Literal["identity", "sqrt", "log"] = Field("identity", description="Of observations and members alike.")
    em: bool = Field(False, description="A rung more, BMA by EM: the optimum in place of the posterior.")


class Sensitivity(Part):
    """What the results rest on: members, stations, priors."""

    models: Words = Field((), description="Names from [models]; left out: the first one.")
    members: tuple[Literal["member", "cluster"], ...] = Field(
        ("member",), description="Leave out each member, or each cluster of members whose errors are nearly one."
    )
    shapley: bool = Field(False, description="Share the gain out to the members, over all their subsets (8 at most).")
    stations: tuple[Share, ...] = Field(
        (), description="Shares of the stations to remove before training, such as [0.1, 0.2, 0.3, 0.4]."
    )
    replicates: Positive = Field(20, description="Random removals of stations.")
    validation: Share = Field(0.25, description="Share of the stations that all of them are scored at.")
    priors: bool = Field(True, description="Scale priors and likelihood, and say what the priors imply.")


class Representativeness(Part):
    """How far a station stands for its cell, from cells with several stations."""

    cell: str = Field(description="Column of cells; those with two stations or more count.")
    errors: tuple[float, ...] = Field(
        (), description="Errors of a cell's mean, in units, to find the stations needed for."
    )


class Map(Part):
    """Maps: a grid of covariates (for trained members) or of member predictions."""

    grid: Path = Field(description="NetCDF or Zarr; variables named as the covariates or member columns.")
    group: str | None = Field(None, description="Variable of groups.")
    products: Words = Field((), description="Further variables to set beside the maps, such as the coarse input.")
    bands: tuple[tuple[float, float] | Literal["all", "low", "mid", "high"], ...] = Field(
        ("low", "mid", "high", "all"), description="Quantile bands of Moran's I."
    )


class Report(Part):
    """What the report shows."""

    stations: Words = Field((), description="Stations whose predictions are drawn through time; left out: a choice.")
    priors: bool = Field(True, description="List the priors of every model.")


class Study(Part):
    """A whole study, as its file says.

    Attributes
    ----------
    study : About
    data : Data
    members : Members
    products : dict of name to column
        Predictions to compare with that no model uses, such as the coarse input.
    models : dict of name to Model
    evaluation : Evaluation
    drought, importance, ladder, sensitivity, representativeness, map : optional
        Parts that are done where the file has them.
    report : Report
    folder : Path
        That of the file: paths in it start there.
    """

    study: About = Field(default_factory=About)
    data: Data
    members: Members
    products: dict[str, str] = Field(
        default_factory=dict, description='Columns to compare with that no model uses: "ESA CCI" = "cci".'
    )
    models: dict[str, Model] = Field(description="Models by name, the first one the reference.", min_length=1)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    drought: Drought | None = None
    importance: Importance | None = None
    ladder: Ladder | None = None
    sensitivity: Sensitivity | None = None
    representativeness: Representativeness | None = None
    map: Map | None = None
    report: Report = Field(default_factory=Report)
    folder: Path = Field(Path(), exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _usual_estimand(cls, values: Any) -> Any:
        """An estimand that the table allows, where the file asks for none."""
        if not isinstance(values, dict) or not isinstance(data := values.get("data"), dict):
            return values
        asked = values.get("evaluation", {})
        if not isinstance(asked, dict) or "estimands" in asked:
            return values
        usual = usual_estimand(site=data.get("site") is not None, time=data.get("time") is not None)
        return values | {"evaluation": asked | {"estimands": [usual]}}

    @property
    def methods(self) -> dict[str, str]:
        """Method of inference of every model: that of the evaluation, where a model names none of its own."""
        return {name: one.method or self.evaluation.method for name, one in self.models.items()}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        reference = self.evaluation.reference
        if reference is not None and reference not in {*self.models, *self.products}:
            raise ValueError(
                f"evaluation.reference is {reference!r}; wanted one of {', '.join([*self.models, *self.products])}"
            )
        needs = {"time": self.data.time, "site": self.data.site, "group": self.data.group}
        asked = self.ladder.estimands if self.ladder is not None else ()
        for key, estimand in [("evaluation", e) for e in self.evaluation.estimands] + [("ladder", e) for e in asked]:
            if lacking := [part for part in estimand.split("-") if part != "row" and needs[part] is None]:
                raise ValueError(f"{key}.estimands has {estimand!r}, which needs data.{lacking[0]}: name the column")
        self._check_sites()
        if self.sensitivity is not None and (unknown := set(self.sensitivity.models) - set(self.models)):
            raise ValueError(
                f"sensitivity.models has {', '.join(sorted(unknown))}; wanted names of {', '.join(self.models)}"
            )
        learnt = {
            *self.members.covariates,
            *(f"{name}_{days}d" for name, all_ in self.members.sums.items() for days in all_),
        }
        if self.members.train and (lacking := [name for name in self.data.covariates if name not in learnt]):
            raise ValueError(
                f"data.covariates has {', '.join(lacking)}, which members.covariates lacks; members that are trained here learn "
                "from what the models look at: name it there, too"
            )
        if self.importance is not None and not self.members.train:
            raise ValueError("[importance] needs members.train: only members that are trained here have covariates")
        for part in ("drought", "members.sums"):
            there = self.drought if part == "drought" else self.members.sums
            if there and self.data.time is None:
                raise ValueError(f"[{part}] needs data.time: name the column")
        names = [file_name(name) for name in self.models]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two models have names that make the same file name ({', '.join(self.models)}); tell them apart"
            )
        if both := set(self.models) & set(self.products):
            raise ValueError(f"{', '.join(sorted(both))} is a model and a product; give one another name")
        return self

    def _check_sites(self) -> None:
        """Refuse parts that are about stations where the table has none."""
        if self.data.site is not None:
            return
        about_stations = {
            "drought": self.drought is not None, "representativeness": self.representativeness is not None,
            "sensitivity.stations": self.sensitivity is not None and bool(self.sensitivity.stations),
            "report.stations": bool(self.report.stations), "members.blend": self.members.blend is not None,
            "importance.within = 'site'": self.importance is not None and self.importance.within == "site",
            "evaluation.by = 'site'": "site" in self.evaluation.by,
            "evaluation.band_by = 'climatology'": self.evaluation.band_by == "climatology",
        }  # fmt: skip
        if asked := [name for name, there in about_stations.items() if there]:
            raise ValueError(f"{', '.join(asked)} needs data.site: name the column of station labels, or leave it out")


def read_study(path: str | Path) -> Study:
    """Read a study file and check every key of it.

    Parameters
    ----------
    path : path
        TOML.

    Returns
    -------
    Study

    Raises
    ------
    FileNotFoundError
    ValueError
        Not TOML, unknown keys (with the nearest known one), values of another kind, keys that are missing or do not fit
        together; all mistakes at once.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no study file {path}; make one by: bayesens init TABLE.csv --out {path}")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8; wanted a TOML file") from error
    return study_from_text(text, name=str(path), folder=file.parent)


def study_from_text(text: str, *, name: str = "study.toml", folder: str | Path = ".") -> Study:
    """Check the text of a study file.

    Parameters
    ----------
    text : str
        TOML.
    name : str
        For messages.
    folder : path
        Where paths in the text start.

    Returns
    -------
    Study

    Raises
    ------
    ValueError
        As in `read_study`.

    Examples
    --------
    >>> study_from_text("[models]", name="mine.toml")
    Traceback (most recent call last):
    ...
    ValueError: mine.toml: 3 mistakes
      data: is missing
      members: is missing
      models: Dictionary should have at least 1 item after validation, not 0
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name} is not TOML: {error}") from error
    try:
        # Where the file lies is no key of it: a key of that name is as unknown as any other.
        return Study(
            **{f"{key} " if key == "folder" else key: part for key, part in values.items()}, folder=Path(folder)
        )
    except ValidationError as error:
        lines = list(dict.fromkeys(_mistakes(error)))
        head = f"{name}: {len(lines)} mistakes" if len(lines) > 1 else f"{name}: a mistake"
        raise ValueError("\n".join([head, *(f"  {line}" for line in lines)])) from error


def _mistakes(error: ValidationError) -> Iterator[str]:
    """One line a mistake: where, what came, what was wanted."""
    for one in error.errors():
        where = ".".join(str(part) for part in one["loc"])
        if one["type"] == "extra_forbidden":
            yield f"{where}: is no key{_hint(one['loc'])}"
        elif one["type"] == "missing":
            yield f"{where}: is missing"
        elif one["type"] == "value_error":
            text = one["msg"].removeprefix("Value error, ")
            yield f"{where}: {text}" if where else text
        else:
            yield (
                f"{where}: {one['msg']}; got {one['input']!r}"
                if one["type"] != "too_short"
                else f"{where}: {one['msg']}"
            )


def _hint(loc: tuple[int | str, ...]) -> str:
    """The nearest key of the same table, or all of them."""
    fields = _fields_at(loc[:-1])
    near = get_close_matches(str(loc[-1]), fields, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(fields)}"


def _fields_at(loc: tuple[int | str, ...]) -> Mapping[str, FieldInfo]:
    parts: dict[str, type[BaseModel]] = {
        "study": About, "data": Data, "members": Members, "evaluation": Evaluation, "drought": Drought,
        "importance": Importance, "representativeness": Representativeness, "map": Map, "report": Report,
    }  # fmt: skip
    fields = dict((parts[str(loc[0])] if loc else Study).model_fields)
    fields.pop("folder", None)
    return fields
