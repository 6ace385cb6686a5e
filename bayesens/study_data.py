"""The table of a study: read, cut to what the file asks for, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens import models as families
from bayesens.columns import listed, times
from bayesens.ensemble import Ensemble
from bayesens.estimators import default_estimators
from bayesens.files import read_table
from bayesens.likelihoods.widths import columns_asked
from bayesens.members import Members
from bayesens.scored_rows import season
from bayesens.study_file import Study
from bayesens.words import option_value

__all__ = ["StudyData", "study_data", "study_models"]

FAMILY = {
    "bma": "BMA", "hbm": "HBM", "linear_pool": "LinearPool", "emos": "EMOS", "equal": "EqualWeights",
    "single": "SingleMember", "climatology": "Climatology",
}  # fmt: skip

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
    """

    frame: pd.DataFrame
    source: Ensemble | Members
    products: dict[str, NDArray[np.float64]]
    labels: dict[str, NDArray[Any]]
    by: tuple[str, ...]


def study_data(study: Study) -> StudyData:
    """Read and check the table of a study.

    Parameters
    ----------
    study : Study

    Returns
    -------
    StudyData

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
    frame = _cut(study, _with_sums(study, frame))
    data, wanted = study.data, study.members
    roles = {role: getattr(data, role) for role in ("site", "group", "time", "lon", "lat")}
    given: dict[str, Any] = {role: frame[name] for role, name in roles.items() if name is not None}
    given.setdefault("site", None)
    sums = [f"{name}_{days}d" for name, spans in wanted.sums.items() for days in spans]
    # Tables of predictions pass the same door: a station in two places is wrong there as well.
    members = Members(
        _estimators(study), frame[[*wanted.covariates, *sums]], frame[data.observation], **given,
        by=None if wanted.by is None else frame[wanted.by], blend=wanted.blend, min_rows=wanted.min_rows,
        min_sites=wanted.min_sites, products=frame[list(wanted.columns)], units=data.units or None,
        keep=data.covariates if wanted.train else (),
    )  # fmt: skip
    columns = {role: name for role, name in roles.items() if name is not None} | {"observation": data.observation}
    source: Any = members
    if not wanted.train:
        source = Ensemble.from_frame(
            frame, members=wanted.columns, covariates=data.covariates, units=data.units or None, **columns
        )
    products = {
        name: frame[column].to_numpy(dtype=np.float64, na_value=np.nan) for name, column in study.products.items()
    }
    return StudyData(frame, source, products, *_labels(study, frame))


def study_models(study: Study) -> dict[str, Any]:
    """Make the models of a study.

    Parameters
    ----------
    study : Study

    Returns
    -------
    dict of name to model

    Raises
    ------
    ValueError
        An option that the model does not have, a value of another kind, or a column that ``data.covariates`` lacks.
    """
    known = {*study.data.covariates, *(role for role in ("lon", "lat") if getattr(study.data, role) is not None)}
    made = {}
    for name, asked in study.models.items():
        cls = getattr(families, FAMILY[asked.model])
        try:
            made[name] = cls(**{key: option_value(cls, key, value) for key, value in asked.options.items()})
        except (TypeError, ValueError) as error:
            raise ValueError(f"[models.{name}]: {error}") from error
        if lacking := [column for column in columns_asked(made[name]) if column not in known]:
            raise ValueError(f"[models.{name}] looks at {listed(lacking)}; name its column: data.covariates = [...], "
                             "or data.lon and data.lat for 'lon' and 'lat'")  # fmt: skip
    return made


def _read(study: Study) -> pd.DataFrame:
    data = study.data
    if data.dataset == "oznet":
        from bayesens.datasets import oznet

        return oznet()
    if data.dataset == "region":
        from bayesens.simulate import region

        return region(random_seed=study.study.random_seed).frame
    path = study.folder / Path(str(data.table))
    table = read_table(path, text=[name for name in (data.site, data.group) if name])
    if isinstance(table, xr.Dataset):
        table = table.to_dataframe().reset_index()
    return table


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
    sums = {f"{name}_{days}d" for name, spans in study.members.sums.items() for days in spans}
    yield from (("data.covariates", name) for name in study.data.covariates if name not in sums)
    for key in ("columns", "covariates", "sums"):
        yield from ((f"members.{key}", name) for name in getattr(study.members, key))
    if study.members.by is not None:
        yield "members.by", study.members.by
    yield from ((f"products.{name}", column) for name, column in study.products.items())
    yield from (("evaluation.by", name) for name in study.evaluation.by if name not in ("site", "group", "season"))
    if study.representativeness is not None:
        yield "representativeness.cell", study.representativeness.cell


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
    keep = np.ones(len(frame), dtype=bool)
    for column, values in study.data.drop.items():
        found = frame[column].isin(values)
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
