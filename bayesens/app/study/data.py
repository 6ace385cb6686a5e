"""The table of a study: read, cut to what the file asks for, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayesens import models as families
from bayesens.app.option_text import option_value
from bayesens.app.study.file import Study
from bayesens.comparison.common_rows import season
from bayesens.ensemble.doors.own_sd import scaled_with_members
from bayesens.ensemble.ensemble import Ensemble
from bayesens.likelihoods.corrected.widths import columns_asked
from bayesens.members.day.chain import BESIDE
from bayesens.members.estimators import default_estimators
from bayesens.members.members import Members
from bayesens.messages import listed
from bayesens.tables.columns import numbers, times
from bayesens.tables.conversion import convert
from bayesens.tables.long_tables import model_and_value, widened
from bayesens.tables.missing_codes import NONE, OTHERS, Counts, Missing, check_codes, clear_codes
from bayesens.tables.reading import as_table, read_table

__all__ = ["StudyData", "plain_values", "study_data", "study_models"]

_SERIES = "series of the row"  # a column of this name is put beside those of the table for a moment


@dataclass(frozen=True, eq=False)
class StudyData:
    """What a study works on.

    Attributes
    ----------
    frame : pandas.DataFrame (obs)
        The rows that are used, with sums that were asked for.
    source : Ensemble or Members
        Members where some are trained.
    products : dict of name to numpy.ndarray (obs)
        What is compared with, and no model uses.
    labels : dict of name to numpy.ndarray (obs)
        Labels beside site and group.
    by : tuple of str
        All labels that tables have groups of.
    codes : dict of column to dict of code to count
        Codes that were read as missing.
    """

    frame: pd.DataFrame
    source: Ensemble | Members
    products: dict[str, NDArray[np.float64]]
    labels: dict[str, NDArray[Any]]
    by: tuple[str, ...]
    codes: Counts


def study_data(study: Study) -> StudyData:
    """Read and check the table of a study.

    Raises
    ------
    OSError
        No such table.
    ValueError
        Columns that are not there (all of them, and the keys that name them), no rows left, and what `Members` and
        `Ensemble` refuse.
    """
    frame = _read(study)
    _check_columns(study, frame)
    frame, codes = _plain(study, frame)
    frame = _cut(study, _with_sums(study, frame))
    data, wanted = study.data, study.members
    roles = {role: getattr(data, role) for role in ("site", "group", "time", "lon", "lat")}
    given: dict[str, Any] = {role: frame[name] for role, name in roles.items() if name is not None}
    given.setdefault("site", None)
    # Models look at these; members that are trained learn from them, too, and name them among their own.
    beside = data.covariates if wanted.neighbours and not wanted.train else ()
    # Tables of predictions pass the same door: a station in two places is wrong there as well.
    members = Members(
        _estimators(study), frame[[*wanted.covariates, *wanted.summed, *beside]], frame[data.observation], **given,
        by=None if wanted.by is None else frame[wanted.by], blend=wanted.blend, min_rows=wanted.min_rows,
        min_sites=wanted.min_sites, products=frame[list(wanted.columns)], units=data.units or None,
        keep=data.covariates if wanted.train else beside, missing=NONE, neighbours=wanted.neighbours,
        neighbour_features=wanted.neighbour_features,
        places=None if study.evaluation.places is None else frame[list(study.evaluation.places)],
    )  # fmt: skip
    columns = {role: name for role, name in roles.items() if name is not None} | {"observation": data.observation}
    source: Any = members
    if not wanted.train and not wanted.neighbours:
        source = Ensemble.from_frame(
            frame,
            members=wanted.columns,
            covariates=data.covariates,
            spread=data.spread or None,
            units=data.units or None,
            missing=NONE,
            **columns,
        )
    products = {
        name: frame[column].to_numpy(dtype=np.float64, na_value=np.nan) for name, column in study.products.items()
    }
    return StudyData(frame, source, products, *_labels(study, frame), codes)


def study_models(study: Study) -> dict[str, Any]:
    """Make the models of a study, by name.

    Raises
    ------
    ValueError
        An option that the model does not have, a value of another kind, or a column that ``data.covariates`` lacks.
    """
    known = {
        *study.data.covariates,
        *study.data.spread.values(),
        *(BESIDE if study.members.neighbours else ()),
        *(role for role in ("lon", "lat") if getattr(study.data, role) is not None),
    }
    made = {
        name: _made(f"models.{name}", families.KINDS[asked.model], asked.options, known)
        for name, asked in study.models.items()
    }
    if study.ladder is not None and study.ladder.weight_covariates:  # found before anything runs
        followed = study.ladder.weight_covariates
        _made("ladder", "BMA", {"weights": "covariates", "weight_covariates": followed}, known)
    return made


def _made(part: str, kind: str, options: dict[str, Any], known: set[str]) -> Any:
    """A model with the options of one part of the file, which looks at no column but those known."""
    cls = getattr(families, kind)
    try:
        model = cls(**{key: option_value(cls, key, value) for key, value in options.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"[{part}]: {error}") from error
    if lacking := [column for column in columns_asked(model) if column not in known]:
        raise ValueError(f"[{part}] looks at {listed(lacking)}; name its column: data.covariates = [...], "
                         "or data.lon and data.lat for 'lon' and 'lat'")  # fmt: skip
    return model


def _read(study: Study) -> pd.DataFrame:
    data = study.data
    if data.dataset == "oznet":
        from bayesens.datasets import oznet

        return oznet()
    if data.dataset == "region":
        from bayesens.simulate import region

        return region(random_seed=study.study.random_seed).frame
    return _read_file(study, study.folder / Path(str(data.table)))


def _read_file(study: Study, path: Path) -> pd.DataFrame:
    """The table as one row a case, its times as dates."""
    data = study.data
    text = [name for name in (data.site, data.group) if name]
    text += [model_and_value(data.long)[0]] if data.long is not None else []
    found = read_table(path, text=text, decimal=data.decimal, separator=data.separator, sheet=data.sheet)
    if data.long is not None and not isinstance(found, pd.DataFrame):
        raise ValueError(f"data.long is {data.long!r}, and {path} is a dataset; wanted a table: leave it out")
    frame = as_table(found, None if data.time_format is not None else data.time)
    if data.long is not None:
        model, value = model_and_value(data.long)
        keys = [name for name in (data.site, data.time) if name is not None]
        frame, names = widened(frame, model=model, value=value, by=keys)
        if odd := [name for name in study.members.columns if name not in names]:
            raise ValueError(
                f"members.columns has {listed(odd)}; the column {model!r} of the long table has {listed(names)}"
            )
    if data.time is not None and data.time in frame:
        frame = frame.assign(**{data.time: times(frame[data.time], data.time_format)})
    return frame


def _check_columns(study: Study, frame: pd.DataFrame) -> None:
    have = [str(name) for name in frame.columns]
    lines = []
    for key, name in _named(study):
        if name not in have:
            near = get_close_matches(name, have, n=1)
            lines.append(f"  {key} names {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    if lines:
        what = study.data.dataset or study.data.table
        raise ValueError("\n".join([f"{what} ({len(frame)} rows) lacks columns that the study names:", *lines,
                                    f"  it has {listed(have, limit=40)}"]))  # fmt: skip


def _named(study: Study) -> Iterator[tuple[str, str]]:
    """Every column that the file names, with the key that does."""
    for role in ("observation", "site", "group", "time", "lon", "lat"):
        if (name := getattr(study.data, role)) is not None:
            yield f"data.{role}", name
    yield from (("data.drop", name) for name in study.data.drop)
    yield from (("data.spread", name) for name in study.data.spread.values())
    named = study.data.missing if isinstance(study.data.missing, dict) else {}
    yield from (("data.missing", name) for name in named if name != OTHERS)
    yield from ((f"data.{key}", name) for key in ("scale", "offset") for name in getattr(study.data, key))
    summed = study.members.summed
    yield from (("data.covariates", name) for name in study.data.covariates if name not in summed)
    for key in ("columns", "covariates", "sums"):
        yield from ((f"members.{key}", name) for name in getattr(study.members, key))
    if study.members.by is not None:
        yield "members.by", study.members.by
    yield from ((f"products.{name}", column) for name, column in study.products.items())
    yield from (("evaluation.by", name) for name in study.evaluation.by if name not in ("site", "group", "season"))
    yield from (("evaluation.places", name) for name in study.evaluation.places or ())
    if study.representativeness is not None:
        yield "representativeness.cell", study.representativeness.cell


def _plain(study: Study, frame: pd.DataFrame) -> tuple[pd.DataFrame, Counts]:
    """The table without codes for missing values, and in one unit."""
    data, wanted = study.data, study.members
    asked = (*wanted.covariates, *wanted.sums, *data.covariates, *data.spread.values())
    read = [name for name in asked if name not in wanted.summed]
    kinds = dict.fromkeys(read, "covariate")
    kinds |= {name: role for role in ("lon", "lat") if (name := getattr(data, role)) is not None}
    kinds |= dict.fromkeys(study.evaluation.places or (), "covariate")
    kinds |= dict.fromkeys([*wanted.columns, *study.products.values(), data.observation], "measured")
    columns = {name: numbers(frame[name]) for name in kinds}
    codes = plain_values(study, columns, kinds)
    return frame.assign(**columns), codes


def plain_values(study: Study, columns: dict[str, NDArray[np.float64]], kinds: dict[str, str]) -> Counts:
    """Do to columns, in place, what the study says of codes for missing values and of units; `kinds` as `check_codes` takes them.

    Returns
    -------
    dict of column to dict of code to count
        Codes that were read as missing.

    Raises
    ------
    ValueError
        Values that look like codes, which the study does not name.
    """
    data = study.data
    missing: Missing = data.missing if data.missing != () else None
    if isinstance(missing, dict):
        missing = {name: code for name, code in missing.items() if name in columns or name == OTHERS}
    codes = clear_codes(columns, missing)
    try:
        check_codes(columns, kinds, missing)
    except ValueError as error:
        raise ValueError(f"{error}; in a study: data.missing") from error
    measured = {name: values for name, values in columns.items() if kinds[name] == "measured"}
    scale, offset = ({k: v for k, v in each.items() if k in measured} for each in (data.scale, data.offset))
    convert(measured, scale, offset)
    scaled_with_members({k: v for k, v in data.spread.items() if v in columns}, columns, scale)
    return codes


def _with_sums(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    """Add sums over the days before, from all rows of the table: those before the start of the study count as well."""
    if not study.members.sums:
        return frame
    time = str(study.data.time)
    day = pd.Series(times(frame[time]), index=frame.index)
    site = pd.Series("", index=frame.index) if study.data.site is None else frame[study.data.site]  # one series without
    if absent := max(int(day.isna().sum()), int(site.isna().sum())):
        raise ValueError(
            f"members.sums needs a time and a station in every row; {absent} rows have none: complete or drop them"
        )
    table = frame.assign(**{time: day, _SERIES: site}).sort_values([_SERIES, time], kind="stable")
    for name, spans in study.members.sums.items():
        for days in spans:
            rolled = table.set_index(time).groupby(_SERIES, sort=False)[name].rolling(f"{days}D", min_periods=1).sum()
            table[f"{name}_{days}d"] = rolled.to_numpy()
    return table.drop(columns=_SERIES).sort_index()


def _cut(study: Study, frame: pd.DataFrame) -> pd.DataFrame:
    keep, data = np.ones(len(frame), dtype=bool), study.data
    for column, values in study.data.drop.items():
        given = times(pd.Series(values), data.time_format) if column == data.time else values
        found = frame[column].isin(given)
        if not found.any():
            raise ValueError(f"data.drop: no row has {column} = {listed(values)}; correct the values, or leave it out")
        keep &= ~found.to_numpy()
    if study.data.time is not None and (study.data.start or study.data.end):
        day = pd.Series(times(frame[study.data.time]))
        if study.data.start:
            keep &= (day >= pd.Timestamp(study.data.start)).to_numpy()
        if study.data.end:
            keep &= (day < pd.Timestamp(study.data.end) + pd.Timedelta(days=1)).to_numpy()
    if not keep.any():
        raise ValueError(f"data.start, end and drop leave zero of {len(frame)} rows; correct them")
    return frame[keep].reset_index(drop=True)


def _estimators(study: Study) -> dict[str, Any]:
    wanted = study.members
    every = default_estimators()
    try:
        return {name: every[name].set_params(**wanted.settings.get(name, {})) for name in wanted.train}
    except ValueError as error:
        raise ValueError(f"members.settings: {str(error).splitlines()[0]}") from error


def _labels(study: Study, frame: pd.DataFrame) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """Labels beside site and group, and all of them in the order asked for; "group" without a column is left out."""
    labels: dict[str, NDArray[Any]] = {}
    by = [name for name in study.evaluation.by if name != "group" or study.data.group is not None]
    for name in by:
        if name == "season":
            if study.data.time is None:
                raise ValueError("evaluation.by has 'season', which needs data.time: name the column")
            labels[name] = season(times(frame[study.data.time]))
        elif name not in ("site", "group"):
            labels[name] = frame[name].to_numpy()
    return labels, tuple(by)
