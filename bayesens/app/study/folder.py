"""The folder of a study: what is written into it, and what no other program's folder it may be."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from bayesens import __version__
from bayesens.app.report.parts import Figure, Note, Section, Table
from bayesens.app.result_tables import prediction_table
from bayesens.app.study.chapters.assumptions import assumptions
from bayesens.app.study.chapters.calibration import calibration, recalibration
from bayesens.app.study.chapters.coverage import coverage
from bayesens.app.study.chapters.data import data, data_line
from bayesens.app.study.chapters.drivers import drivers
from bayesens.app.study.chapters.droughts import droughts
from bayesens.app.study.chapters.headline import headline
from bayesens.app.study.chapters.ladder import ladder
from bayesens.app.study.chapters.maps import maps
from bayesens.app.study.chapters.members import members
from bayesens.app.study.chapters.posterior import posterior
from bayesens.app.study.chapters.scale import scale
from bayesens.app.study.chapters.scores import all_differences, all_scores, scores
from bayesens.app.study.chapters.sensitivity import sensitivity
from bayesens.app.study.chapters.through_time import through_time
from bayesens.app.study.glossary import glossary
from bayesens.app.study.report import write_report
from bayesens.app.study.results import StudyResults
from bayesens.comparison.folds.runs import FAILURES
from bayesens.ensemble.files import write_table
from bayesens.geo.stores.write import write_map
from bayesens.inference.fit_tree import write_fit
from bayesens.messages import listed, warn
from bayesens.tables.atomic import check_writable, file_name, link, move, remove, write_atomically

__all__ = ["Finished", "begin_folder", "check_folder", "write_results"]

MANIFEST = "study.json"


@dataclass(frozen=True, eq=False)
class Finished:
    """A study that has been run.

    Attributes
    ----------
    folder : Path
    scores : pandas.DataFrame
        What ``tables/scores.csv`` holds.
    findings : list of str
        The summary of the report, a sentence each.
    files : tuple of str
        Written, below the folder.
    """

    folder: Path
    scores: pd.DataFrame
    findings: list[str]
    files: tuple[str, ...]


def begin_folder(out: str | Path) -> Path:
    """Make the folder of a study, and mark it as one before anything else is in it.

    Parameters
    ----------
    out : path

    Returns
    -------
    Path

    Raises
    ------
    OSError, ValueError
        A folder that cannot be written, or holds what no study wrote.
    """
    folder = Path(out)
    check_folder(folder)
    folder.mkdir(exist_ok=True)
    if not (folder / MANIFEST).exists():
        _write_manifest(folder, [])
    return folder


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, or that holds what no study wrote."""
    target = Path(os.path.realpath(folder))
    if target == Path.cwd() or target in Path.cwd().parents:
        raise ValueError(f"{folder} is the folder that you are in, or above it; name a new one, such as results")
    if not target.exists():
        check_writable(target)
    elif not target.is_dir():
        raise NotADirectoryError(f"{folder} is a file; a study writes a folder: name a new one")
    elif not (target / MANIFEST).exists() and (foreign := sorted(path.name for path in target.iterdir())):
        raise FileExistsError(
            f"{folder} holds {len(foreign)} files that no study wrote, {listed(foreign, limit=3)}; "
            "name a new folder, or move them away"
        )


def _write_manifest(folder: Path, files: list[str]) -> None:
    with write_atomically(folder / MANIFEST) as aside:
        aside.write_text(json.dumps({"bayesens": __version__, "files": files}, indent=1), encoding="utf-8")


def write_results(results: StudyResults, folder: Path, say: Callable[[str], None]) -> Finished:
    """Write fits, predictions, tables, figures and the report, and take away what only a former run wrote."""
    table, differences = all_scores(results), all_differences(results)
    first = headline(results, table, differences)
    chapters = _chapters(results, table, differences)
    chapters.append(glossary(results, chapters, first.findings))
    for sub in ("fits", "predictions", "tables", "figures"):
        (folder / sub).mkdir(exist_ok=True)
    files = [*_fits(results, folder), *_maps(results, folder), *_predictions(results, folder)]
    first = replace(first, parts=_written(first.parts, folder, files))
    chapters = [replace(chapter, parts=_written(chapter.parts, folder, files)) for chapter in chapters]
    files.append("report.html")
    write_report(results, chapters, first, data_line(results), folder)
    _tidy(folder, files)
    say(f"{folder}: {len(files)} files; open {folder / 'report.html'}")
    return Finished(folder, table, first.findings, tuple(files))


def _chapters(results: StudyResults, table: pd.DataFrame, differences: pd.DataFrame) -> list[Section]:
    """Those that the study has results for, or reasons why there are none."""
    study = results.study
    asked: tuple[tuple[Callable[[StudyResults], Section], bool], ...] = (
        (data, True),
        (members, True),
        (partial(scores, table=table, differences=differences), True),
        (calibration, True),
        (coverage, True),
        (recalibration, bool(results.recalibrated)),
        (ladder, bool(results.ladder)),
        (through_time, study.data.time is not None),
        (posterior, True),
        (sensitivity, study.sensitivity is not None),
        (droughts, results.drought_threshold is not None),
        (drivers, results.importance is not None),
        (scale, study.representativeness is not None),
        (maps, results.maps is not None),
        (assumptions, True),
    )
    made = (_made(chapter, wanted, results) for chapter, wanted in asked)
    return [chapter for chapter in made if chapter is not None]


def _made(chapter: Callable[[StudyResults], Section], wanted: bool, results: StudyResults) -> Section | None:
    """A chapter, below what failed for it; None: it was not asked for."""
    key = getattr(chapter, "func", chapter).__name__
    name = key.replace("_", " ").capitalize()
    made = results.attempts(key, f"The chapter {name!r}", partial(chapter, results)) if wanted else None
    failed = results.attempts.notes(key)
    if made is None:
        return Section(name, failed, key) if failed else None
    return replace(made, parts=(*failed, *made.parts))


def _fits(results: StudyResults, folder: Path) -> Iterator[str]:
    """Fits to all rows, and the members that they are of."""
    for name, tree in results.fits.items():
        file = f"fits/{file_name(name)}.nc"
        if (kept := results.kept_fits.get(name)) is None:
            write_fit(tree, folder / file)
        else:
            with write_atomically(folder / file) as aside:
                link(kept, aside)
        yield file
        maps = results.recalibrated[results.estimand].maps if results.recalibrated else {}
        if name in maps:
            file = f"fits/{file_name(name)}.json"
            maps[name].save(folder / file)
            yield file
    if results.final_members is not None:
        aside, target = folder / ".members", folder / "members"
        remove(aside)
        shutil.copytree(results.final_members, aside, copy_function=link)
        move(aside, target)
        yield from (f"members/{path.name}" for path in sorted(target.iterdir()))


def _maps(results: StudyResults, folder: Path) -> Iterator[str]:
    """Maps of all models in the form that the study asks for, and what belongs to them as NetCDF."""
    found, asked = results.maps, results.study.map
    if found is None or asked is None:
        return
    (folder / "maps").mkdir(exist_ok=True)
    suffix = "" if asked.out == "tif" else f".{asked.out}"
    for name, one in found.models.items():
        file = f"maps/{file_name(name)}{suffix}"
        with warnings.catch_warnings():  # where the study names no system, that of the grid is told, or none
            warnings.filterwarnings("ignore", message="The maps say no coordinate reference", category=UserWarning)
            write_map(
                one, folder / file, fit=results.fits[name], crs=asked.crs, dims=found.grid.dims, overwrite=True,
                applicable=None if found.applicability is None else found.applicability["inside"] == 1,
                members=found.predicted["prediction"], where=found.where, progressbar=False,
            )  # fmt: skip
        yield file
    beside: dict[str, xr.Dataset] = {}
    if found.applicability is not None:
        beside["applicability"] = found.applicability
    if results.map_errors is not None and results.map_errors.expected is not None:
        beside["expected_error"] = results.map_errors.expected
    if results.map_draws is not None and results.map_draws.values is not None:
        beside[f"draws-{file_name(results.map_draws.model)}"] = results.map_draws.values.to_dataset(name="draw")
    for name, one in beside.items():
        write_table(one, folder / "maps" / f"{name}.nc")
        yield f"maps/{name}.nc"


def _predictions(results: StudyResults, folder: Path) -> Iterator[str]:
    for estimand, held in results.held.items():
        for name, one in held.predictions.items():
            file = f"predictions/{file_name(name)}-{estimand}.parquet"
            write_table(_predicted(held, one), folder / file)
            yield file


def _predicted(held: Any, one: xr.Dataset) -> pd.DataFrame:
    """One line a row: what identifies it, the observation, the fold, the prediction and its scores."""
    pointwise = one[[name for name, values in one.data_vars.items() if set(values.dims) <= {"obs", "quantile"}]]
    frame = prediction_table(pointwise, held.members)
    place = list(frame).index("mean")
    frame.insert(place, held.members.columns["observation"], held.members.observation)
    frame.insert(place + 1, "fold", held.members.dataset["fold"].values)
    return frame


def _written(parts: Sequence[Any], folder: Path, files: list[str]) -> tuple[Any, ...]:
    """Write the tables and figures of a chapter, and name them; in the place of a figure that fails stands why."""
    return tuple(_file(part, folder, files) for part in parts)


def _file(part: Any, folder: Path, files: list[str]) -> Any:
    """A part whose table is written, or whose figure is, as PNG and SVG."""
    if isinstance(part, Table) and part.source is not None and part.whole is not None:
        write_table(part.whole, folder / part.source)
        files.append(part.source)
    if not isinstance(part, Figure) or part.draw is None:
        return part
    svg = Path(part.path)
    try:
        made = part.draw()
        for file, stamp in ((svg.with_suffix(".png"), None), (svg, {"Date": None})):
            with write_atomically(folder / file) as aside:
                made.savefig(aside, dpi=200, metadata=stamp)
            files.append(file.as_posix())
    except FAILURES as error:
        warn(f"the figure {svg.stem!r} could not be drawn, and the report goes without: {error}")
        return Note(f"The figure {svg.stem} could not be drawn: {error}", "caution")
    return part


def _tidy(folder: Path, files: list[str]) -> None:
    """Take away what a former run wrote and this one did not."""
    former = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    for name in sorted(set(former) - set(files)):
        remove(folder / name)
    _write_manifest(folder, sorted(files))
