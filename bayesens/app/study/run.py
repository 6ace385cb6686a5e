"""A whole study from its file: members, fits, scores, tables, figures and the report; a run that was stopped goes on."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.app.recalibrated import Recalibrated, check_recalibration, recalibrated
from bayesens.app.study.attempts import Attempts
from bayesens.app.study.data import StudyData, study_data, study_models
from bayesens.app.study.file import Study, read_study
from bayesens.app.study.folder import Finished, begin_folder, check_folder, write_results
from bayesens.app.study.maps.draws import map_draws
from bayesens.app.study.maps.errors import map_errors
from bayesens.app.study.maps.grid import check_grid, map_points_of
from bayesens.app.study.maps.mapping import study_maps
from bayesens.app.study.results import StudyResults
from bayesens.app.study.sensitivity import study_sensitivity
from bayesens.comparison.compare import HeldOut, OnMembers, check_folds, held_out, versions
from bayesens.comparison.folds.held_out_rows import usual_estimand
from bayesens.comparison.ladder import EM_RUNG, ladder
from bayesens.comparison.steps import Steps
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.places import Places
from bayesens.geo.station_cells import paired_cells
from bayesens.geo.thresholds import threshold_at, thresholds
from bayesens.inference.fit import fit
from bayesens.likelihoods.options import options_to_json
from bayesens.members.correlations import covariate_correlations, inflation_factors
from bayesens.members.cross_fitting import cross_fit
from bayesens.members.day.chain import NAME
from bayesens.members.fitted import FittedMembers
from bayesens.members.members import Members
from bayesens.members.spatial_folds.dealing import KINDS, fold_kind, fold_number
from bayesens.messages import listed
from bayesens.sensitivity.covariates import permutation_importance
from bayesens.tables.atomic import file_name
from bayesens.tables.missing_codes import missing_words

__all__ = ["Finished", "begin_folder", "run_study"]

PARTS_OF_THE_YEAR = {
    "dayofyear": "around a day of the year",
    "month": "in a month",
    "season": "in a season",
    "all": "at all",
}

STEPS = ".steps"


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
    check_folder(Path(out))
    table, models = study_data(asked), study_models(asked)
    if table.codes:
        say(f"Read as missing: {missing_words(table.codes)}")
    if asked.map is not None:
        check_grid(asked, table, models)
    cells = map_points_of(asked, table)
    folder = begin_folder(out)
    results = _Run(asked, table, models, Steps(folder / STEPS, versions()), say, shown, cells).results()
    say("Writing tables, figures and the report ...")
    return write_results(results, folder, say)


@dataclass(frozen=True, eq=False)
class _Run:
    """A study at work: its file, table and models, where finished steps are kept, and how it speaks."""

    study: Study
    table: StudyData
    models: Mapping[str, Any]
    steps: Steps
    say: Callable[[str], None]
    shown: bool
    map_points: Places | None

    @property
    def seed(self) -> int:
        return self.study.study.random_seed

    @property
    def rows(self) -> Ensemble:
        """All rows of the table, with the members that are columns of it."""
        source = self.table.source
        return source.untrained() if isinstance(source, Members) else source

    @property
    def compared(self) -> dict[str, Any]:
        """The models, each on the members that it is told."""
        source: Any = self.table.source
        some = {name: [one for one in source.names if one != NAME] for name in self.study.not_told}
        return {
            name: OnMembers(model, tuple(some[name])) if name in some else model for name, model in self.models.items()
        }

    def results(self) -> StudyResults:
        """All that was asked for, one step after the other."""
        study, table, source, rows = self.study, self.table, self.table.source, self.rows
        if study.recalibration is not None:
            for estimand in study.evaluation.estimands:
                check_recalibration(rows, estimand)
        below = _thresholds(study, rows)
        if (scale := study.representativeness) is not None:
            columns = study.data
            paired_cells(table.frame, columns.observation, str(columns.site), str(columns.time), scale.cell)
        for estimand in study.evaluation.estimands:
            check_folds(source, **self.way(estimand, rows))
        held: dict[str, HeldOut] = {}
        for estimand in study.evaluation.estimands:
            self.say(f"Scoring {listed(self.models)} on rows held out: {estimand} ...")
            held[estimand] = held_out(
                self.compared, source, method=study.methods, products=table.products, below=below, labels=table.labels,
                apart=True, **self.way(estimand, rows),
            )  # fmt: skip
        ensemble = self.cross_fitted()
        # A model that failed in a fold stands in no table.
        fits = {
            name: self.fitted(name, ensemble)
            for name in self.models
            if all(name in h.predictions for h in held.values())
        }
        attempts = Attempts()
        more: dict[str, Any] = {"drought_threshold": below, "attempts": attempts}
        if study.ladder is not None:
            more["ladder"] = attempts("ladder", "The ladder of models", lambda: self.ladder(rows)) or {}
        if study.recalibration is not None:
            more["recalibrated"] = attempts("recalibration", "Recalibrating", lambda: self.recalibrated(held)) or {}
        if study.importance is not None:
            self.say("Shuffling covariates in rows held out ...")
            more |= attempts("drivers", "Shuffling covariates", self.drivers) or {}
        trees = {name: tree for name, (tree, _) in fits.items()}
        if study.sensitivity is not None:
            way = self.way(study.evaluation.estimands[0], rows)
            more["sensitivity"] = study_sensitivity(
                study, table, self.models, trees, ensemble, way, self.steps, self.say, attempts
            )
        members = self.final_members()
        if study.map is not None:
            self.say("Predicting the grid ...")
            more |= self.mapped(held, ensemble, trees, members, more)
        warned = {name: texts for name, tree in trees.items() if (texts := json.loads(tree.attrs["warned"]))}
        kept = {name: file for name, (_, file) in fits.items()}
        return StudyResults(
            study, table, self.models, held, ensemble, trees, warned, kept_fits=kept, final_members=members, **more
        )

    def mapped(
        self,
        held: Mapping[str, HeldOut],
        ensemble: Ensemble,
        trees: Mapping[str, xr.DataTree],
        members: Path | None,
        found: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Maps of the fits, errors that are expected on them, and draws of fields."""
        study, table, attempts = self.study, self.table, found["attempts"]
        folds = ensemble.dataset["fold"].values if "fold" in ensemble.dataset else None
        final = None if members is None else FittedMembers.load(members)
        make = partial(study_maps, study, table, trees, final, folds, found.get("importance"))
        maps = attempts("maps", "Predicting the grid", make)
        if maps is None:
            return {}
        ways = {estimand: self.way(estimand, self.rows) for estimand in held}
        errors = partial(map_errors, table, held, maps, ways, study.evaluation.replicates)
        draws = partial(map_draws, study, table, self.models, trees, held, maps)
        return {
            "maps": maps,
            "map_errors": attempts("maps", "The table of distances and expected errors", errors),
            "map_draws": attempts("maps", "Drawing fields", draws),
        }

    def recalibrated(self, held: Mapping[str, HeldOut]) -> dict[str, Recalibrated]:
        """What maps of levels change at other stations, by estimand."""
        asked, evaluation = self.study.recalibration, self.study.evaluation
        assert asked is not None
        self.say("Recalibrating by other stations ...")
        block = evaluation.block if self.study.data.time is not None else None
        return {
            estimand: recalibrated(
                one.rows, method=asked.method, prior=asked.prior, by=self.table.by, replicates=evaluation.replicates,
                block=block, random_seed=self.seed,
            )
            for estimand, one in held.items()
        }  # fmt: skip

    def way(self, estimand: str, rows: Ensemble) -> dict[str, Any]:
        """How rows are held out, the same for every comparison of the study."""
        asked, gap = self.study.evaluation, None
        by_place: dict[str, Any] = {}
        if estimand in ("site", "site-time", "group"):
            by_place = {"buffer": asked.buffer, "places": self.places(), "map_points": self.map_points}
        of_sites = estimand in ("site", "site-time") or not isinstance(asked.folds, str)
        inner = self.study.members.folds if by_place else self.inner_folds
        if "time" in estimand and asked.gap is not None:  # days, or the unit of times that are numbers
            gap = pd.Timedelta(days=asked.gap) if rows.dataset["time"].dtype.kind == "M" else asked.gap
        return by_place | {"estimand": estimand, "folds": asked.folds if of_sites else None, "blocks": asked.blocks, "gap": gap,
                "draws": asked.draws,
                "inner_folds": inner, "random_seed": self.seed, "n_jobs": self.study.study.jobs,
                "cache": self.steps.folder, "progressbar": self.shown}  # fmt: skip

    @property
    def inner_folds(self) -> int:
        """Their number, where they are not made by place."""
        return fold_number(self.study.members.folds)

    def places(self) -> pd.DataFrame | None:
        """Planar coordinates of the rows, where the study names them."""
        names = self.study.evaluation.places
        return None if names is None else self.table.frame[list(names)]

    def ladder(self, rows: Ensemble) -> dict[str, xr.Dataset]:
        """Rows held out as the rungs of the ladder predict them, by estimand."""
        asked, data = self.study.ladder, self.study.data
        assert asked is not None
        labels = {"group": data.group is not None, "site": data.site is not None}
        source = self.table.source
        names = source.names if isinstance(source, Members) else source.members
        rungs = ladder(**labels, members=names, transform=asked.transform,
                       weight_covariates=asked.weight_covariates)  # fmt: skip
        methods = dict.fromkeys(rungs, self.study.evaluation.method)
        if asked.em:
            rungs[EM_RUNG], methods[EM_RUNG] = rungs["BMA"], "em"
        out: dict[str, xr.Dataset] = {}
        for estimand in asked.estimands or self.study.evaluation.estimands:
            self.say(f"Climbing the ladder of {len(rungs)} models on rows held out: {estimand} ...")
            way = self.way(estimand, rows)
            out[estimand] = held_out(rungs, source, part="ladder", method=methods, **way).rows
        return out

    def final_members(self) -> Path | None:
        """The folder of the members fitted to all rows: for maps, and for places that are yet to come."""
        members = self.table.source
        if not isinstance(members, Members):
            return None

        def write(folder: Path) -> None:
            self.say("Fitting the members to all rows ...")
            members.fit(random_seed=self.seed, n_jobs=self.study.study.jobs, progressbar=self.shown).save(folder)

        return self.steps.place("final-members", {"members": members.digest, "seed": self.seed}, write)

    def drivers(self) -> dict[str, Any]:
        """Importance of the covariates, and their correlations."""
        asked, members = self.study.importance, self.table.source
        assert asked is not None
        assert isinstance(members, Members)
        options: dict[str, Any] = {
            "sets": asked.sets, "within": asked.within, "n_repeats": asked.repeats, "folds": self.inner_folds,
            "random_seed": self.seed,
        }  # fmt: skip

        def make() -> pd.DataFrame:
            return permutation_importance(members, **options, n_jobs=self.study.study.jobs, progressbar=self.shown)

        importance = self.steps.frame("importance", {"members": members.digest} | options, make)
        rows = members.rows
        beside = pd.DataFrame({self.study.data.observation: rows.y} | self.table.products | dict(rows.products))
        return {
            "importance": importance,
            "correlations": covariate_correlations(rows.X, site=rows.site, products=beside),
            "inflation": inflation_factors(rows.X),
        }

    def cross_fitted(self) -> Ensemble:
        """All rows, with members that have not seen them."""
        members, data, folds = self.table.source, self.study.data, self.study.members.folds
        if not isinstance(members, Members):
            return members
        scheme = usual_estimand(site=data.site is not None, time=data.time is not None)
        of = {"site": "stations", "time": "times", "row": "rows"}[scheme]
        kind = fold_kind(folds)[0]
        made = f", {KINDS[kind]}" if kind else ""
        trained = f"Training {listed(members.estimators)} out of {self.inner_folds} folds of {of}{made}"
        self.say(f"{trained if members.estimators else 'Interpolating what the other stations observed'} ...")
        key = {"members": members.digest, "folds": folds, "seed": self.seed}
        key |= {} if scheme == "site" else {"scheme": scheme}
        by_place: dict[str, Any] = {}
        if kind:
            cells, places = self.map_points, members.places(self.places())
            by_place = {"map_points": cells, "places": places}
            key |= {name: one.digest for name, one in (("map", cells), ("places", places)) if one is not None}

        def make() -> xr.Dataset:
            options: dict[str, Any] = {"n_jobs": self.study.study.jobs, "progressbar": self.shown} | by_place
            return cross_fit(members, folds=folds, scheme=scheme, random_seed=self.seed, **options).dataset

        return Ensemble.from_dataset(self.steps.dataset("members", key, make))

    def fitted(self, name: str, ensemble: Ensemble) -> tuple[xr.DataTree, Path | None]:
        """A model fitted to all rows, with what the fit warned of in ``attrs["warned"]``, and the file that keeps it."""
        self.say(f"Fitting {name} to {ensemble.n_observed:,} rows ...")
        if name in self.study.not_told:
            ensemble = ensemble.select(members=[one for one in ensemble.members if one != NAME])
        model, method, draws = self.models[name], self.study.methods[name], self.study.evaluation.draws
        key = {"model": type(model).__name__, "options": options_to_json(model), "method": method, "seed": self.seed,
               "draws": draws, "data": ensemble.digest}  # fmt: skip

        def make() -> xr.DataTree:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                tree = fit(model, ensemble, method=method, draws=draws, random_seed=self.seed, log_likelihood=False,
                           progressbar=False)  # fmt: skip
            texts = {str(one.message) for one in caught if one.category is UserWarning}
            tree.attrs["warned"] = json.dumps(sorted(texts))
            return tree

        step = f"fit-{file_name(name)}"
        return self.steps.fit(step, key, make), self.steps.file(step, key)


def _thresholds(study: Study, rows: Ensemble) -> NDArray[np.float64] | None:
    """The threshold of drought of every row, from all observations of its station."""
    asked = study.drought
    if asked is None:
        return None
    site, time = rows.labels("site"), rows.dataset["time"].values
    found = thresholds(rows.require_observation(), percentile=asked.percentile, by=asked.by, min_count=asked.min_count,
                       site=site, time=time)  # fmt: skip
    cut: NDArray[np.float64] = threshold_at(found, site=site, time=time).values
    if not np.isfinite(cut[rows.observed]).any():
        raise ValueError(
            f"no station has {asked.min_count} observations {PARTS_OF_THE_YEAR[asked.by]}, which a threshold of drought needs "
            '(drought.min_count of the study); wanted a smaller number, or longer parts of the year: by = "season" or "all"'
        )
    return cut
