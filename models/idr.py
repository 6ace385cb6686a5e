"""Isotonic distributional regression on the mean of the members: what a law that rises with it can do, and nothing assumed.

With x_i the mean of the members that row i has, equal weights, and for every threshold t

    F_x(t) = P(y <= t | x),  decreasing in x:  the isotonic regression of 1{y_i <= t} on x_i

There is no kernel, no correction and no parameter: the distribution at a value of x is a step function whose steps are
observations, linear in between two values of x, and at either end that of the outermost. It minimises the mean CRPS of the
training rows among all that rise with x. What another model gains beyond it is worth its assumptions and the weights of its
members; where it is better, an assumption costs. It never goes beyond the observations that it has seen, and needs many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np
import xarray as xr

from bayesens.distributions.steps import Steps
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows, prediction_rows, training_rows
from bayesens.likelihoods.em import Optimum
from bayesens.likelihoods.isotonic import isotonic_cdf
from bayesens.likelihoods.options import ModelValue

__all__ = ["IDR"]


@dataclass(frozen=True)
class IDR(ModelValue):
    """The distribution of the observation as a step function that rises with the members' mean.

    Fitted exactly, whatever ``method`` says: it has no parameters, no posterior and no density, so that log scores are NaN and
    the CRPS is exact.

    Parameters
    ----------
    knots : int
        Values of the mean, and steps, at the most. It is exact for tables of no more distinct values; of larger ones, rows of
        neighbouring ranks stand together, in groups of equal size. Memory and time go with its square.

    References
    ----------
    Henzi, Ziegel and Gneiting (2021), Journal of the Royal Statistical Society B 83, 963-993.

    Examples
    --------
    >>> IDR().knots
    1000
    """

    knots: int = 1000

    spelled: ClassVar[tuple[str, str]] = ("IDR", "isotonic distributional regression")
    assumes: ClassVar[str] = (
        "assumes that the observation's distribution rises with the equal-weights mean of the members, and nothing else."
    )
    meaning: ClassVar[str] = (
        "isotonic distributional regression: the distribution of the observation as a step function that rises with the mean "
        "of the members"
    )
    baseline: ClassVar[bool] = True
    joint: ClassVar[bool] = False
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {}
    transform: ClassVar[str] = "identity"
    needs_member: ClassVar[bool] = True
    needs_history: ClassVar[bool] = True
    sampled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        given: Any = self.knots
        if given is True or not isinstance(given, int) or given < 2:
            raise ValueError(f"IDR(knots=...) is a whole number of at least 2; got {self.knots!r}.")

    def resolve(self, ensemble: Ensemble) -> IDR:
        """Return the model: nothing is left to the data."""
        return self

    def build(self, ensemble: Ensemble, likelihood: str = "fused") -> NoReturn:
        """Refuse: there is nothing to sample."""
        raise ValueError(
            "IDR has neither parameters nor a density, and so no PyMC model, no priors and no posterior: it is fitted exactly; "
            "use EMOS or BMA where a posterior is wanted."
        )

    def n_parameters(self, ensemble: Ensemble) -> int:
        """None."""
        return 0

    def em(
        self, ensemble: Ensemble, *, starts: int = 0, seed: int = 0, tolerance: float = 0.0
    ) -> tuple[xr.Dataset, list[Optimum]]:
        """The mean CRPS of the training rows, than which no other law that rises with the mean has a lower one."""
        rows = training_rows(ensemble, "identity", need_member=True)
        crps = self._law(self.history(ensemble), rows).crps(rows.y).mean()
        none = np.ones(0)
        return xr.Dataset({"training_crps": ((), crps)}), [Optimum(none, none, np.nan, 0, True, "closed form")]

    def history(self, ensemble: Ensemble) -> xr.Dataset:
        """The distribution functions at the values of the members' mean."""
        rows = training_rows(ensemble, "identity", need_member=True)
        knot, threshold, cdf = isotonic_cdf(_mean(rows), rows.y, self.knots)
        return xr.Dataset(
            {"cdf": (("knot", "threshold"), cdf), "members_mean": ("knot", knot), "value": ("threshold", threshold)}
        )

    def predictive(self, posterior: xr.Dataset, ensemble: Ensemble, history: xr.Dataset) -> Steps:
        """Return the law of every row that has a member."""
        return self._law(history, prediction_rows(ensemble, "identity"))

    def training(self, posterior: xr.Dataset, ensemble: Ensemble, history: xr.Dataset) -> Steps:
        """Return the law of training rows, which is that of any."""
        return self.predictive(posterior, ensemble, history)

    def _law(self, history: xr.Dataset, rows: Rows) -> Steps:
        knot, x = history["members_mean"].values, _mean(rows)
        left = np.clip(np.searchsorted(knot, x, side="right") - 1, 0, max(len(knot) - 2, 0))
        right = np.minimum(left + 1, len(knot) - 1)
        gap = np.where(right > left, knot[right] - knot[left], 1.0)
        return Steps(history["value"].values, history["cdf"].values, left, np.clip((x - knot[left]) / gap, 0.0, 1.0))


def _mean(rows: Rows) -> np.ndarray:
    """Mean of the members that a row has; NaN without any."""
    with np.errstate(invalid="ignore"):
        return np.asarray((rows.f * rows.available).sum(axis=1) / rows.available.sum(axis=1))
