"""Regression kriging, a rival of the combinations here: one member, and its errors interpolated over the day's stations.

With f_b the member whose predictions of the training rows, cross-fitted, have the least root mean square error,

    y_ts = f_b,ts + r_ts

and r a Gaussian process of space and day with the covariance of ``be.Neighbours`` on the identity scale, fitted to the errors of
the training rows. A row is predicted by the errors of the other stations on its day; the law is normal, with kriging's variance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np
import xarray as xr

from bayesens.distributions.mixtures import NormalMixture
from bayesens.distributions.posterior_mixture import Moments
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.places import RowPlaces
from bayesens.likelihoods.day.table import day_table
from bayesens.likelihoods.em import Optimum
from bayesens.likelihoods.options import ModelValue
from bayesens.members.day.fitted import FittedNeighbours
from bayesens.models.neighbours import Neighbours

__all__ = ["RegressionKriging"]


@dataclass(frozen=True)
class RegressionKriging(ModelValue):
    """The best member of the training rows, and its errors interpolated."""

    spelled: ClassVar[tuple[str, str]] = ("regression kriging", "regression kriging")
    assumes: ClassVar[str] = "adds to the best member its interpolated errors, normal ones."
    meaning: ClassVar[str] = ""
    baseline: ClassVar[bool] = True
    joint: ClassVar[bool] = False
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {}
    transform: ClassVar[str] = "identity"
    needs_member: ClassVar[bool] = True
    needs_history: ClassVar[bool] = True
    sampled: ClassVar[bool] = False

    def resolve(self, ensemble: Ensemble) -> RegressionKriging:
        """Return the model: nothing is left to the data."""
        return self

    def build(self, ensemble: Ensemble, likelihood: str = "fused") -> NoReturn:
        """Refuse: it is fitted at the optimum alone."""
        raise ValueError("regression kriging has no posterior here: it is fitted at the optimum of its covariance.")

    def n_parameters(self, ensemble: Ensemble) -> int:
        """Five variances and two ranges."""
        return 7

    def em(
        self, ensemble: Ensemble, *, starts: int = 0, seed: int = 0, tolerance: float = 0.0
    ) -> tuple[xr.Dataset, list[Optimum]]:
        """The error of the best member."""
        least = float(_rmse(ensemble).min())
        none = np.ones(0)
        return xr.Dataset({"rmse": ((), least)}), [Optimum(none, none, np.nan, 0, True, "closed form")]

    def history(self, ensemble: Ensemble) -> xr.Dataset:
        """The best member, and the covariance and the values of its errors."""
        best = int(np.argmin(_rmse(ensemble)))
        site, time, places = _where(ensemble)
        error = ensemble.require_observation() - ensemble.prediction[:, best]
        table = day_table(error, site=site, time=time, unit=site, places=places, trend=np.zeros((len(error), 0)))
        found = FittedNeighbours.of(Neighbours(transform="identity"), table).to_dataset()
        return found.assign_attrs(best=ensemble.members[best])

    def predictive(self, posterior: xr.Dataset, ensemble: Ensemble, history: xr.Dataset) -> Normals:
        """Return the law of every row, by the errors of the other stations on its day."""
        site, time, places = _where(ensemble)
        fitted = FittedNeighbours.from_dataset(history)
        said = fitted.of_rows(site, time, site, places, np.zeros((len(site), 0)))
        member = ensemble.prediction[:, ensemble.members.index(history.attrs["best"])]
        return Normals(member + said.mean, said.sd)

    def training(self, posterior: xr.Dataset, ensemble: Ensemble, history: xr.Dataset) -> Normals:
        """Return the law of training rows, each without its own station."""
        return self.predictive(posterior, ensemble, history)


def _rmse(ensemble: Ensemble) -> np.ndarray:
    """Of every member over the rows that have an observation, (member)."""
    error = ensemble.prediction - ensemble.require_observation()[:, None]
    return np.asarray(np.sqrt(np.nanmean(error**2, axis=0)))


def _where(ensemble: Ensemble) -> tuple[np.ndarray, np.ndarray, RowPlaces]:
    data = ensemble.dataset
    return data["site"].values, data["time"].values, RowPlaces(("lon", "lat"), (data["lon"].values, data["lat"].values))


@dataclass(frozen=True, eq=False)
class Normals:
    """One normal a row; a row without a prediction has a mean of NaN."""

    mean: np.ndarray
    sd: np.ndarray

    n_draws = 1

    def __len__(self) -> int:
        return len(self.mean)

    def select(self, rows: np.ndarray) -> Normals:
        """The same, of some rows."""
        return Normals(self.mean[rows], self.sd[rows])

    def matched(self) -> NormalMixture:
        """The law as a mixture of one component."""
        return NormalMixture(np.ones((len(self), 1)), self.mean[:, None], self.sd[:, None])

    def matched_parts(self, size: int = 0) -> Iterator[tuple[np.ndarray, NormalMixture]]:
        """All rows at once."""
        yield np.arange(len(self)), self.matched()

    def moments(self) -> Moments:
        """Mean and variance, all of it within the one kernel."""
        none = 0.0 * self.mean
        return Moments(self.mean, self.sd**2, none, none)

    def log_density(self, z: np.ndarray, below: np.ndarray | None = None) -> np.ndarray:
        """Log density of every row."""
        return self.matched().logpdf(z)
