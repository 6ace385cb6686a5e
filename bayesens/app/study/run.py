"""A whole study from its file: members, fits, scores, tables, figures and the report; a run that was stopped goes on."""

from __future__ import annotations

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens import __version__
from bayesens.app.result_tables import prediction_table
from bayesens.app.study.chapters import Chapter
from bayesens.app.study.chapters.assumptions import assumptions
from bayesens.app.study.chapters.calibration import calibration
from bayesens.app.study.chapters.coverage import coverage
from bayesens.app.study.chapters.data import data as data_chapter
from bayesens.app.study.chapters.data import data_line
from bayesens.app.study.chapters.drivers import drivers
from bayesens.app.study.chapters.droughts import droughts
from bayesens.app.study.chapters.headline import headline
from bayesens.app.study.chapters.ladder import ladder as ladder_chapter
from bayesens.app.study.chapters.maps import maps as maps_chapter
from bayesens.app.study.chapters.members import members as members_chapter
from bayesens.app.study.chapters.posterior import posterior
from bayesens.app.study.chapters.scale import scale
from bayesens.app.study.chapters.scores import all_differences, all_scores, scores
from bayesens.app.study.chapters.sensitivity import sensitivity
from bayesens.app.study.chapters.through_time import through_time
from bayesens.app.study.data import StudyData, study_data, study_models
from bayesens.app.study.file import Study, read_study
from bayesens.app.study.glossary import glossary
from bayesens.app.study.maps import check_grid, study_maps
from bayesens.app.study.results import StudyResults
from bayesens.app.study.sensitivity import study_sensitivity
from bayesens.comparison.compare import HeldOut, held_out, versions
from bayesens.comparison.folds.held_out_rows import usual_estimand
from bayesens.comparison.ladder import EM_RUNG, ladder
from bayesens.comparison.steps import Steps
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.files import write_table
from bayesens.geo.thresholds import threshold_at, thresholds
from bayesens.inference.fit import fit
from bayesens.inference.fit_tree import write_fit
from bayesens.likelihoods.options import options_to_json
from bayesens.members.correlations import covariate_correlations, inflation_factors
from bayesens.members.cross_fitting import cross_fit
from bayesens.members.fitted import FittedMembers
from bayesens.members.members import Members
from bayesens.messages import listed
from bayesens.sensitivity.covariates import permutation_importance
from bayesens.tables.atomic import check_writable, file_name, link, move, remove, write_atomically
from bayesens.tables.missing_codes import missing_words

__all__ = ["Finished", "begin_folder", "run_study"]

STEPS = ".steps"
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


def run_study(
    study: Study | str | Path, out: str | Path, *, say: Callable[[str], None] = print, progressbar: bool | None = None
) -> Finished:
    """Do a study and write its results.

    Parameters
    ----------
    study : Study or path
        As `read_study` reads it, or the file.
    out : path
        Folder of the results: a new or empty one, or that of a former run, whose finished steps are taken over where
        nothing that they depend on has changed.
    say : callable
        Gets a line of text at each step.
    progressbar : bool, optional
        None: in a terminal.

    Returns
    -------
    Finished

    Raises
    ------
    OSError
        A folder that cannot be written, or holds other files.
    ValueError
        A study or table that does not allow the run.
    MemberError
        A member failed: the text names member, fold and region. Finished steps are kept.
    """
    asked = study if isinstance(study, Study) else read_study(study)
    shown = sys.stderr.isatty() if progressbar is None else progressbar
    _check_folder(Path(out))
    table, models = study_data(asked), study_models(asked)
    if table.codes:
        say(f"Read as missing: {missing_words(table.codes)}")
    if asked.map is not None:
        check_grid(asked, table, models)
    folder = begin_folder(out)
    results = _results(asked, table, models, Steps(folder / STEPS, versions()), say, shown)
    say("Writing tables, figures and the report ...")
    return _written(results, folder, say)


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
    _check_folder(folder)
    folder.mkdir(exist_ok=True)
    if not (folder / MANIFEST).exists():
        _write_manifest(folder, [])
    return folder


def _check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, or that holds what no study wrote."""
    target = Path(os.path.realpath(folder))
    if target == Path.cwd() or target in Path.cwd().parents:
        raise ValueError(f"{folder} is the folder that you are in, or above it; name a new one, such as results")
    if not target.exists():
        check_writable(target)
    elif not target.is_dir():
        raise NotADirectoryError(f"{folder} is a file; a study writes a folder: name a new one")
    elif not (target / MANIFEST).exists() and (foreign := sorted(path.name for path in target.iterdir())):
        raise FileExistsError(f"{folder} holds {len(foreign)} files that no study wrote, {listed(foreign, limit=3)}; "
                              "name a new folder, or move them away")  # fmt: skip


def _write_manifest(folder: Path, files: list[str]) -> None:
    with write_atomically(folder / MANIFEST) as aside:
        aside.write_text(json.dumps({"bayesens": __version__, "files": files}, indent=1), encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------- the work
def _results(
    study: Study, table: StudyData, models: Mapping[str, Any], steps: Steps, say: Callable[[str], None], shown: bool
) -> StudyResults:
    seed, asked = study.study.random_seed, study.evaluation
    methods = study.methods
    below = _thresholds(study, table)
    held: dict[str, HeldOut] = {}
    for estimand in asked.estimands:
        say(f"Scoring {listed(models)} on rows held out: {estimand} ...")
        held[estimand] = held_out(
            models, table.source, method=methods, products=table.products, below=below, labels=table.labels, apart=True,
            **_folds(study, table, estimand, steps, shown),
        )  # fmt: skip
    ensemble = _whole(study, table, steps, say, shown)
    fits, kept, warned = _fits(models, held, methods, ensemble, steps, seed, asked.draws, say)
    more: dict[str, Any] = {"drought_threshold": below, "ladder": _ladder(study, table, steps, say, shown)}
    if study.importance is not None:
        say("Shuffling covariates in rows held out ...")
        more |= _drivers(study, table, steps, shown)
    if study.sensitivity is not None:
        way = _folds(study, table, asked.estimands[0], steps, shown)
        more["sensitivity"] = study_sensitivity(study, table, models, fits, ensemble, way, steps, say)
    members = _final_members(study, table, steps, say, shown)
    if study.map is not None:
        say("Predicting the grid ...")
        folds = ensemble.dataset["fold"].values if "fold" in ensemble.dataset else None
        final = None if members is None else FittedMembers.load(members)
        more["maps"] = study_maps(study, table, fits, final, folds, more.get("importance"))
    return StudyResults(
        study, table, models, held, ensemble, fits, warned, kept_fits=kept, final_members=members, **more
    )


def _folds(study: Study, table: StudyData, estimand: str, steps: Steps, shown: bool) -> dict[str, Any]:
    """How rows are held out, the same for every comparison of the study."""
    asked = study.evaluation
    gap = _gap(table, asked.gap) if "time" in estimand else None
    return {"estimand": estimand, "folds": asked.folds, "blocks": asked.blocks, "gap": gap, "draws": asked.draws,
            "inner_folds": study.members.folds, "random_seed": study.study.random_seed, "n_jobs": study.study.jobs,
            "cache": steps.folder, "progressbar": shown}  # fmt: skip


def _ladder(
    study: Study, table: StudyData, steps: Steps, say: Callable[[str], None], shown: bool
) -> dict[str, xr.Dataset]:
    """Rows held out as the rungs of the ladder predict them, by estimand."""
    if study.ladder is None:
        return {}
    rungs = ladder(
        group=study.data.group is not None, site=study.data.site is not None, transform=study.ladder.transform
    )
    methods = dict.fromkeys(rungs, study.evaluation.method)
    if study.ladder.em:
        rungs[EM_RUNG], methods[EM_RUNG] = rungs["BMA"], "em"
    out: dict[str, xr.Dataset] = {}
    for estimand in study.ladder.estimands or study.evaluation.estimands:
        say(f"Climbing the ladder of {len(rungs)} models on rows held out: {estimand} ...")
        held = held_out(
            rungs, table.source, part="ladder", method=methods, **_folds(study, table, estimand, steps, shown)
        )
        out[estimand] = held.rows
    return out


def _final_members(
    study: Study, table: StudyData, steps: Steps, say: Callable[[str], None], shown: bool
) -> Path | None:
    """The folder of the members fitted to all rows: for maps, and for places that are yet to come."""
    members, seed = table.source, study.study.random_seed
    if not isinstance(members, Members):
        return None

    def write(folder: Path) -> None:
        say("Fitting the members to all rows ...")
        members.fit(random_seed=seed, n_jobs=study.study.jobs, progressbar=shown).save(folder)

    return steps.place("final-members", {"members": members.digest, "seed": seed}, write)


def _drivers(study: Study, table: StudyData, steps: Steps, shown: bool) -> dict[str, Any]:
    """Importance of the covariates, and their correlations."""
    asked, members = study.importance, table.source
    assert asked is not None
    assert isinstance(members, Members)
    options: dict[str, Any] = {
        "sets": asked.sets, "within": asked.within, "n_repeats": asked.repeats, "folds": study.members.folds,
        "random_seed": study.study.random_seed,
    }  # fmt: skip

    def make() -> pd.DataFrame:
        return permutation_importance(members, **options, n_jobs=study.study.jobs, progressbar=shown)

    importance = steps.frame("importance", {"members": members.digest} | options, make)
    rows = members.rows
    beside = pd.DataFrame({study.data.observation: rows.y} | table.products | dict(rows.products))
    return {
        "importance": importance,
        "correlations": covariate_correlations(rows.X, site=rows.site, products=beside),
        "inflation": inflation_factors(rows.X),
    }


def _thresholds(study: Study, table: StudyData) -> NDArray[np.float64] | None:
    """The threshold of drought of every row, from all observations of its station."""
    asked = study.drought
    if asked is None:
        return None
    rows = table.source.untrained() if isinstance(table.source, Members) else table.source
    site, time = rows.labels("site"), rows.dataset["time"].values
    found = thresholds(rows.require_observation(), percentile=asked.percentile, by=asked.by, min_count=asked.min_count,
                       site=site, time=time)  # fmt: skip
    return threshold_at(found, site=site, time=time).values


def _gap(table: StudyData, days: float | None) -> Any:
    """Days, or the unit of times that are numbers."""
    if days is None:
        return None
    source = table.source.untrained() if isinstance(table.source, Members) else table.source
    return pd.Timedelta(days=days) if source.dataset["time"].dtype.kind == "M" else days


def _whole(study: Study, table: StudyData, steps: Steps, say: Callable[[str], None], shown: bool) -> Ensemble:
    """All rows, with members that have not seen them."""
    if not isinstance(table.source, Members):
        return table.source
    members, folds, seed = table.source, study.members.folds, study.study.random_seed
    scheme = usual_estimand(site=study.data.site is not None, time=study.data.time is not None)
    of = {"site": "stations", "time": "times", "row": "rows"}[scheme]
    say(f"Training {listed(members.estimators)} out of {folds} folds of {of} ...")

    def make() -> xr.Dataset:
        made = cross_fit(
            members, folds=folds, scheme=scheme, random_seed=seed, n_jobs=study.study.jobs, progressbar=shown
        )
        return made.dataset

    key = {"members": members.digest, "folds": folds, "seed": seed} | ({} if scheme == "site" else {"scheme": scheme})
    return Ensemble.from_dataset(steps.dataset("members", key, make))


def _fits(
    models: Mapping[str, Any], held: Mapping[str, HeldOut], methods: Mapping[str, str], ensemble: Ensemble, steps: Steps,
    seed: int, draws: int, say: Callable[[str], None],
) -> tuple[dict[str, xr.DataTree], dict[str, Path | None], dict[str, list[str]]]:  # fmt: skip
    """Every model fitted to all rows, the files that keep the fits, and what the fits warned of."""
    fits, warned, kept = {}, {}, {}
    for name, model in models.items():
        if any(name not in one.predictions for one in held.values()):
            continue  # it failed in a fold, and stands in no table
        say(f"Fitting {name} to {ensemble.n_observed:,} rows ...")
        key = {"model": type(model).__name__, "options": options_to_json(model), "method": methods[name], "seed": seed,
               "draws": draws, "data": ensemble.digest}  # fmt: skip

        def make(name: str = name, model: Any = model) -> xr.DataTree:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                tree = fit(model, ensemble, method=methods[name], draws=draws, random_seed=seed, log_likelihood=False,
                           progressbar=False)  # fmt: skip
            tree.attrs["warned"] = json.dumps(
                sorted({str(one.message) for one in caught if one.category is UserWarning})
            )
            return tree

        fits[name] = steps.fit(f"fit-{file_name(name)}", key, make)
        kept[name] = steps.file(f"fit-{file_name(name)}", key)
        warned[name] = json.loads(fits[name].attrs["warned"])
    return fits, kept, {name: texts for name, texts in warned.items() if texts}


# ------------------------------------------------------------------------------------------------------------- the files
def _written(results: StudyResults, folder: Path, say: Callable[[str], None]) -> Finished:
    from bayesens.app.study.report import write_report

    table, differences = all_scores(results), all_differences(results)
    page = headline(results, table, differences)
    findings = page.findings
    chapters = _chapters(results, table, differences)
    chapters.append(glossary(results, chapters, findings))
    files: list[str] = []
    for sub in ("fits", "predictions", "tables", "figures"):
        (folder / sub).mkdir(exist_ok=True)
    for name, tree in results.fits.items():
        files.append(f"fits/{file_name(name)}.nc")
        if (kept := results.kept_fits.get(name)) is None:
            write_fit(tree, folder / files[-1])
        else:
            with write_atomically(folder / files[-1]) as aside:
                link(kept, aside)
    if results.final_members is not None:
        files += _copied(results.final_members, folder / "members")
    if results.maps is not None:
        (folder / "maps").mkdir(exist_ok=True)
        for name, one in results.maps.models.items():
            files.append(f"maps/{file_name(name)}.nc")
            write_table(one, folder / files[-1])
        if results.maps.applicability is not None:
            files.append("maps/applicability.nc")
            write_table(results.maps.applicability, folder / files[-1])
    for estimand, held in results.held.items():
        for name, one in held.predictions.items():
            files.append(f"predictions/{file_name(name)}-{estimand}.parquet")
            write_table(_predicted(held, one), folder / files[-1])
    for chapter in (Chapter("First page", page.parts), *chapters):
        for sheet in chapter.sheets():
            files.append(f"tables/{sheet.name}.csv")
            write_table(sheet.frame, folder / files[-1])
        for drawing in chapter.drawings():
            files += _drawn(drawing, folder)
    files.append("report.html")
    write_report(results, chapters, page, data_line(results), folder)
    _tidy(folder, files)
    say(f"{folder}: {len(files)} files; open {folder / 'report.html'}")
    return Finished(folder, table, findings, tuple(files))


def _chapters(results: StudyResults, table: pd.DataFrame, differences: pd.DataFrame) -> list[Chapter]:
    chapters = [
        data_chapter(results),
        members_chapter(results),
        scores(results, table, differences),
        calibration(results),
        coverage(results),
    ]
    if results.ladder:
        chapters.append(ladder_chapter(results))
    if results.study.data.time is not None:
        chapters.append(through_time(results))
    chapters.append(posterior(results))
    if results.study.sensitivity is not None:
        chapters.append(sensitivity(results))
    if results.drought_threshold is not None:
        chapters.append(droughts(results))
    if results.importance is not None:
        chapters.append(drivers(results))
    if results.study.representativeness is not None:
        chapters.append(scale(results))
    if results.maps is not None:
        chapters.append(maps_chapter(results))
    return [*chapters, assumptions(results)]


def _predicted(held: Any, one: xr.Dataset) -> pd.DataFrame:
    """One line a row: what identifies it, the observation, the fold, the prediction and its scores."""
    pointwise = one[[name for name, values in one.data_vars.items() if set(values.dims) <= {"obs", "quantile"}]]
    frame = prediction_table(pointwise, held.members)
    observed = held.members.columns["observation"]
    place = list(frame).index("mean")
    frame.insert(place, observed, held.members.observation)
    frame.insert(place + 1, "fold", held.members.dataset["fold"].values)
    return frame


def _drawn(drawing: Any, folder: Path) -> list[str]:
    """Write a figure as PNG and SVG."""
    made = drawing.draw()
    files = []
    for suffix in ("png", "svg"):
        files.append(f"figures/{drawing.name}.{suffix}")
        with write_atomically(folder / files[-1]) as aside:
            made.savefig(aside, dpi=200, metadata={"Date": None} if suffix == "svg" else None)
    return files


def _copied(source: Path, target: Path) -> list[str]:
    aside = target.with_name(f".{target.name}")
    remove(aside)
    shutil.copytree(source, aside, copy_function=link)
    move(aside, target)
    return [f"{target.name}/{path.name}" for path in sorted(target.iterdir())]


def _tidy(folder: Path, files: list[str]) -> None:
    """Take away what a former run wrote and this one did not."""
    former = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    for name in sorted(set(former) - set(files)):
        remove(folder / name)
    _write_manifest(folder, sorted(files))
