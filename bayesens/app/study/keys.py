"""The keys of a study file, table by table, each with its default and what it says in a template."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from bayesens.members.spatial_folds.dealing import fold_kind
from bayesens.models import KINDS

__all__ = [
    "About",
    "Data",
    "Drought",
    "Evaluation",
    "Importance",
    "Ladder",
    "Map",
    "Members",
    "Model",
    "Part",
    "Recalibration",
    "Report",
    "Representativeness",
    "Sensitivity",
]

Label = Literal["rf", "mlr", "svr", "xgb"]
Estimand = Literal["time", "site", "site-time", "group", "row"]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
# TOML arrays are lists, and one value is easily written without its brackets.
Words = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str | Path) else value)]
Numbers = Annotated[
    tuple[float, ...], BeforeValidator(lambda value: (value,) if isinstance(value, int | float) else value)
]
Pair = tuple[str, str]
Code = float | tuple[float, ...] | Literal["none"]
Codes = Annotated[Code | dict[str, Code], Field(union_mode="left_to_right")]
if TYPE_CHECKING:
    Kind = str
else:  # as many as there are
    Kind = Literal[tuple(KINDS)]


def _folds(value: int | str) -> int | str:
    """A number of folds, or a kind that there is."""
    if isinstance(value, str):
        try:
            fold_kind(value)
        except KeyError as error:
            raise ValueError(str(error)) from error
    elif value < 2:
        raise ValueError(f"should be greater than or equal to 2; got {value}")
    return value


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
    spread: dict[str, str] = Field(
        default_factory=dict,
        description='Members with a standard deviation of their own, and its column, for BMA: {krig = "krig_sd"}.',
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
    folds: Annotated[int | str, AfterValidator(_folds)] = Field(
        5,
        description='Of cross-fitting within training rows; of sites also "knndm" or "blocks", as in [evaluation] (importance '
        "and the removal of stations take their number alone).",
    )
    neighbours: bool = Field(
        False,
        description="One more member: what the other stations observed on the day, interpolated. For new places on days that "
        "stations have observed (site, group); a model with neighbours = false is not told.",
    )
    neighbour_features: bool = Field(False, description="Whether the trained members learn from it, too.")
    settings: dict[Label, dict[str, Any]] = Field(
        default_factory=dict,
        description="Parameters of an estimator in place of the defaults: {rf = {n_estimators = 500}}.",
    )

    @property
    def summed(self) -> list[str]:
        """Names of the covariates that `sums` adds."""
        return [f"{name}_{days}d" for name, spans in self.sums.items() for days in spans]

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.neighbour_features and not (self.neighbours and self.train):
            raise ValueError("neighbour_features needs neighbours = true, and members to train")
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
    neighbours: bool = Field(
        True, description="Whether it is told what neighbours say, where members.neighbours is true."
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
    folds: Annotated[int | str, AfterValidator(_folds)] | None = Field(
        None,
        description='Left out: 5, or one for each group. Sites by their places: "knndm" (as far from training as [map] is from '
        'its stations), "blocks" (clusters), or "knndm 10".',
    )
    blocks: Annotated[int, Field(ge=2)] = Field(2, description="Blocks of time of the estimand site-time.")
    gap: float | None = Field(
        None, ge=0, description="Days on either side of a block of time that are not learnt from."
    )
    buffer: float | None = Field(
        None,
        gt=0,
        description="Rows of sites nearer than this to one held out are not learnt from [km, or units of places].",
    )
    places: Annotated[tuple[str, ...], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description='Columns of planar coordinates, ["x", "y"], named so in [map] too; left out: data.lon and data.lat.',
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


class Recalibration(Part):
    """Recalibration: maps of levels that make intervals hold what they promise, and what they change at other stations."""

    method: Literal["beta", "isotonic"] = Field(
        "beta",
        description="beta mends a wrong width and a bias; isotonic bends where it likes, and asks for more stations.",
    )
    prior: float = Field(
        20.0, ge=1, description="So many observations that lie as promised are mixed in: more of them change less."
    )


class Ladder(Part):
    """The ladder from equal weights to HBM: one change a rung, and what each does on rows held out."""

    estimands: tuple[Estimand, ...] = Field((), description="Left out: those of [evaluation].")
    transform: Literal["identity", "sqrt", "log"] = Field("identity", description="Of observations and members alike.")
    em: bool = Field(False, description="A rung more, BMA by EM: the optimum in place of the posterior.")
    weight_covariates: Words = Field(
        (),
        description='A rung more, BMA whose weights follow these: columns of data.covariates, "lon", "lat", "season".',
    )


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
    """Maps: a grid of covariates (for trained members) or of member predictions, of one time or several."""

    grid: Paths = Field(
        description="NetCDF, Zarr or GeoTIFF (also a folder of them), or several on the same cells; variables named as the "
        "covariates or member columns.",
        min_length=1,
    )
    covariates: dict[str, str] = Field(
        default_factory=dict,
        description='Variables of the grid that are called otherwise than the columns: {lst_1km = "lst"}.',
    )
    group: str | None = Field(None, description="Variable of groups.")
    time: str | None = Field(None, description="Variable of times; left out: called as data.time, or time.")
    places: Pair | None = Field(
        None,
        description="Coordinates of the cells, in the order of evaluation.places or of data.lon and data.lat; left out: called "
        "as these.",
    )
    dims: Pair | None = Field(None, description="Dimensions of rows and columns, where their names do not say it.")
    crs: str | None = Field(
        None, description='Reference system, such as "EPSG:4326"; left out: that of the grid, or unknown.'
    )
    out: Literal["nc", "zarr", "tif"] = Field(
        "nc", description="Form of the maps, one a model: NetCDF, Zarr, or a folder of Cloud-Optimised GeoTIFFs."
    )
    quantiles: tuple[Share, ...] = Field((0.05, 0.5, 0.95), description="Levels; 0.05 and 0.95 are always there.")
    below: Numbers = Field((), description="Thresholds [units] of which maps give the probability of lying below.")
    draws: int = Field(
        1, ge=0, description="Maps drawn from the first model, which vary from cell to cell as the truth does."
    )
    products: Words = Field((), description="Further variables to set beside the maps, such as the coarse input.")
    bands: tuple[tuple[float, float] | Literal["all", "low", "mid", "high"], ...] = Field(
        ("low", "mid", "high", "all"), description="Quantile bands of Moran's I."
    )

    @property
    def named(self) -> str:
        """The grid, in messages."""
        return ", ".join(str(path) for path in self.grid)


class Report(Part):
    """What the report shows."""

    stations: Words = Field((), description="Stations whose predictions are drawn through time; left out: a choice.")
    priors: bool = Field(True, description="List the priors of every model.")
