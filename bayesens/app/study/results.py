"""What the steps of a study have found, before it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayesens.app.recalibrated import Recalibrated
from bayesens.app.study.attempts import Attempts
from bayesens.app.study.data import StudyData
from bayesens.app.study.file import Study
from bayesens.app.study.maps.draws import MapDraws
from bayesens.app.study.maps.errors import MapErrors
from bayesens.app.study.maps.mapping import Maps
from bayesens.app.study.sensitivity import Sensitivities
from bayesens.comparison.compare import HeldOut
from bayesens.ensemble.ensemble import Ensemble
from bayesens.models import EqualWeights
from bayesens.plots.axes import raised

__all__ = ["StudyResults"]


@dataclass(frozen=True, eq=False)
class StudyResults:
    """Everything that chapters of the report are written from.

    Attributes
    ----------
    study : Study
    data : StudyData
    models : dict of name to model
    held : dict of estimand to HeldOut
        The first one is the headline.
    ensemble : Ensemble
        All rows, with members that have not seen them: what the fits were made to.
    fits : dict of name to DataTree
        Of every model, to all rows.
    warned : dict of name to list of str
        What these fits warned of.
    kept_fits : dict of name to Path
        Files that these fits are kept in, for the folder of fits to name as well.
    final_members : Path, optional
        Folder of the members fitted to all rows, where some are trained.
    recalibrated : dict of estimand to Recalibrated
        Empty where it was not asked for.
    importance : DataFrame, optional
    correlations : DataFrame, optional
        Of covariates.
    inflation : Series, optional
        Variance inflation factors of covariates.
    drought_threshold : array (obs), optional
        Of every row of the table [units].
    maps : Maps, optional
    map_errors : MapErrors, optional
    map_draws : MapDraws, optional
    ladder : dict of estimand to Dataset
        Rows held out as the rungs of the ladder predict them; empty where it was not asked for.
    sensitivity : Sensitivities
        Empty where it was not asked for.
    attempts : Attempts
        What was asked for and failed.
    """

    study: Study
    data: StudyData
    models: Mapping[str, Any]
    held: Mapping[str, HeldOut]
    ensemble: Ensemble
    fits: Mapping[str, xr.DataTree]
    warned: Mapping[str, list[str]]
    kept_fits: Mapping[str, Path | None] = field(default_factory=dict)
    final_members: Path | None = None
    recalibrated: Mapping[str, Recalibrated] = field(default_factory=dict)
    importance: pd.DataFrame | None = None
    correlations: pd.DataFrame | None = None
    inflation: pd.Series | None = None
    drought_threshold: NDArray[np.float64] | None = None
    maps: Maps | None = None
    map_errors: MapErrors | None = None
    map_draws: MapDraws | None = None
    ladder: Mapping[str, xr.Dataset] = field(default_factory=dict)
    sensitivity: Sensitivities = field(default_factory=Sensitivities)
    attempts: Attempts = field(default_factory=Attempts)

    @property
    def units(self) -> str:
        """Of observations and predictions, as they are printed."""
        return raised(self.ensemble.units)

    @property
    def estimand(self) -> str:
        """The estimand of the headline."""
        return next(iter(self.held))

    @property
    def combining(self) -> list[str]:
        """Models that weigh or relate the members, in their order; baselines are none."""
        there = self.held[self.estimand].rows["model"].values.tolist()
        return [name for name, model in self.models.items() if name in there and not model.baseline]

    @property
    def headline(self) -> str | None:
        """The model that the first page is about: the reference, or else the first one that combines the members."""
        some = self.combining or [
            name for name in self.of_kind(EqualWeights) if name in self.held[self.estimand].predictions
        ]
        return self.reference if self.reference in some else next(iter(some), None)

    def of_kind(self, kind: type) -> list[str]:
        """Names of the models of a kind."""
        return [name for name, model in self.models.items() if type(model) is kind]

    def said_rows(self, estimand: str | None = None) -> str:
        """The rows that all scores of an estimand rest on, in words: the same number wherever one is given."""
        rows = self.held[estimand or self.estimand].rows
        text = f"{rows.sizes['obs']:,} observations"
        return text + (f" at {len(np.unique(rows['site'].values))} stations" if "site" in rows.coords else "")

    @property
    def reference(self) -> str:
        """The model or product that others are compared with."""
        there = [str(name) for name in self.held[self.estimand].rows["model"].values]
        asked = self.study.evaluation.reference
        return asked if asked in there else there[0]
