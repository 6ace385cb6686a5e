"""The study file: a TOML file that names data, members, models and what to find out, checked before anything runs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from bayesens.app.study.keys import (
    About,
    Data,
    Drought,
    Evaluation,
    Importance,
    Ladder,
    Map,
    Members,
    Model,
    Part,
    Recalibration,
    Report,
    Representativeness,
    Sensitivity,
)
from bayesens.comparison.folds.held_out_rows import usual_estimand
from bayesens.members.spatial_folds.dealing import fold_kind
from bayesens.messages import check_known
from bayesens.tables.atomic import file_name

__all__ = ["Study", "class_of", "read_study", "study_from_text"]


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
    recalibration, drought, importance, ladder, sensitivity, representativeness, map : optional
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
    recalibration: Recalibration | None = None
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

    @property
    def not_told(self) -> tuple[str, ...]:
        """Models that are not told what neighbours say."""
        return tuple(name for name, one in self.models.items() if self.members.neighbours and not one.neighbours)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        evaluation, members, data = self.evaluation, self.members, self.data
        if members.neighbours and (lacking := [name for name in ("site", "time") if getattr(data, name) is None]):
            raise ValueError(f"members.neighbours needs data.{' and data.'.join(lacking)}: name the columns")
        rungs = self.ladder.estimands if self.ladder is not None else ()
        for part, asked in (("evaluation", evaluation.estimands), ("ladder", rungs)):
            if members.neighbours and (odd := [one for one in asked if "time" in one]):
                raise ValueError(f"{part}.estimands has {', '.join(odd)}, and neighbours know nothing of days that nobody has "
                                 "observed: take 'site' or 'group', or leave members.neighbours out")  # fmt: skip
        known = [*self.models, *self.products]
        if evaluation.reference is not None and evaluation.reference not in known:
            raise ValueError(f"evaluation.reference is {evaluation.reference!r}; wanted one of {', '.join(known)}")
        needs = {"time": data.time, "site": data.site, "group": data.group}
        for key, estimand in [("evaluation", e) for e in evaluation.estimands] + [("ladder", e) for e in rungs]:
            if lacking := [part for part in estimand.split("-") if part != "row" and needs[part] is None]:
                raise ValueError(f"{key}.estimands has {estimand!r}, which needs data.{lacking[0]}: name the column")
        self._check_sites()
        self._check_places()
        self._check_map()
        if self.sensitivity is not None and (unknown := set(self.sensitivity.models) - set(self.models)):
            text = f"sensitivity.models has {', '.join(sorted(unknown))}; wanted names of {', '.join(self.models)}"
            raise ValueError(text)
        learnt = {*members.covariates, *members.summed}
        if members.train and (lacking := [name for name in data.covariates if name not in learnt]):
            raise ValueError(
                f"data.covariates has {', '.join(lacking)}, which members.covariates lacks; members that are trained here learn "
                "from what the models look at: name it there, too"
            )
        if data.spread and (members.train or members.neighbours):
            raise ValueError("data.spread is about members that are columns of the table, all of them; leave it out, or "
                             "members.train and members.neighbours")  # fmt: skip
        if lacking := [name for name in data.spread if name not in members.columns]:
            raise ValueError(f"data.spread has {', '.join(lacking)}, which members.columns lacks: name it there, too")
        if self.importance is not None and not members.train:
            raise ValueError("[importance] needs members.train: only members that are trained here have covariates")
        over_time = {
            "drought": self.drought, "members.sums": members.sums, "representativeness": self.representativeness,
        }  # fmt: skip
        for part, there in over_time.items():
            if there and data.time is None:
                raise ValueError(f"[{part}] needs data.time: name the column")
        if len({file_name(name) for name in self.models}) < len(self.models):
            names = ", ".join(self.models)
            raise ValueError(f"two models have names that make the same file name ({names}); tell them apart")
        if both := set(self.models) & set(self.products):
            raise ValueError(f"{', '.join(sorted(both))} is a model and a product; give one another name")
        return self

    def _check_places(self) -> None:
        """Refuse folds by place without sites, places or a map."""
        asked, data = self.evaluation, self.data
        kinds = {"evaluation.folds": fold_kind(asked.folds)[0], "members.folds": fold_kind(self.members.folds)[0]}
        for key, there in {**kinds, "evaluation.buffer": asked.buffer is not None}.items():
            if there and data.site is None:
                raise ValueError(f"{key} is about sites and needs data.site: name the column of station labels")
            if there and asked.places is None and (data.lon is None or data.lat is None):
                raise ValueError(f"{key} needs the places of sites: name data.lon and data.lat, or evaluation.places")
        for key, kind in kinds.items():
            if kind == "knndm" and self.map is None:
                raise ValueError(
                    f"{key} = 'knndm' matches the distances of a map: name its grid in [map], or take 'blocks'"
                )

    def _check_map(self) -> None:
        """Refuse names of columns that no part of the study has, and coordinates for sites that have none."""
        if (asked := self.map) is None:
            return
        members, data = self.members, self.data
        columns = [*members.covariates, *members.summed, *members.columns, *data.covariates, *self.products.values()]
        columns += [name for name in (members.by, data.lon, data.lat) if name is not None]
        try:
            check_known(asked.covariates, columns, kind="column", where="the study, in map.covariates")
        except KeyError as error:
            raise ValueError(str(error.args[0])) from error
        if asked.places is not None and self.evaluation.places is None and (data.lon is None or data.lat is None):
            raise ValueError(
                "map.places says where cells lie, and no columns say where sites do: name data.lon and data.lat, or "
                "evaluation.places"
            )

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
    """Check the text of a study file, named so in messages; paths in it start at `folder`.

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
            came = "" if one["type"] == "too_short" else f"; got {one['input']!r}"
            yield f"{where}: {one['msg']}{came}"


def _hint(loc: tuple[int | str, ...]) -> str:
    """The nearest key of the same table, or all of them."""
    table = class_of(Study.model_fields[str(loc[0])]) if len(loc) > 1 else Study
    fields = [name for name in table.model_fields if name != "folder"]
    near = get_close_matches(str(loc[-1]), fields, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(fields)}"


def class_of(field: FieldInfo) -> type[BaseModel]:
    """The class of a table of the file, whether or not it may be left out."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
