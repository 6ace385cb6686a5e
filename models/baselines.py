"""Baselines beside climatology that every comparison needs: one dressed member, equal weights.

SingleMember  y_i ~ Normal(c - bias + slope (f_i - c), sigma), one member
EqualWeights  BMA whose weights are one over the number of members
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from bayesens.ensemble.ensemble import Ensemble
from bayesens.likelihoods.corrected.own_correction import CorrectedTable
from bayesens.likelihoods.em import Optimum, residual_sds
from bayesens.models.bma import BMA
from bayesens.models.corrected import Data

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["EqualWeights", "SingleMember"]


@dataclass(frozen=True)
class EqualWeights(BMA):
    """BMA with all weights equal: members are corrected and dressed, but none is preferred.

    Parameters are those of :class:`BMA`.

    Examples
    --------
    >>> EqualWeights(sigma="shared").weights
    'equal'
    """

    weights: str = "equal"

    spelled: ClassVar[tuple[str, str]] = ("equal weights", "equal weights")
    assumes: ClassVar[str] = "gives every member the same weight, after bias correction."
    meaning: ClassVar[str] = ""
    baseline: ClassVar[bool] = True
    joint: ClassVar[bool] = False
    choices: ClassVar[dict[str, tuple[str, ...]]] = BMA.choices | {"weights": ("equal",)}


@dataclass(frozen=True)
class SingleMember(BMA):
    """One member, bias-corrected and dressed with a normal kernel.

    Parameters
    ----------
    member : str, optional
        Which one; None takes the member with the smallest residual standard deviation over the training rows.
    **options
        Those of :class:`BMA`.

    Examples
    --------
    >>> SingleMember(member="rf").member
    'rf'
    """

    weights: str = "equal"
    member: str | None = None

    spelled: ClassVar[tuple[str, str]] = ("single member", "single member")
    assumes: ClassVar[str] = "dresses one member, the best of the training rows unless named, with a normal error."
    meaning: ClassVar[str] = ""
    baseline: ClassVar[bool] = True
    joint: ClassVar[bool] = False
    choices: ClassVar[dict[str, tuple[str, ...]]] = BMA.choices | {"weights": ("equal",)}

    def resolve(self, data: Data) -> SingleMember:
        """Return the model with the member and the scales filled in from the training rows."""
        if isinstance(data, CorrectedTable):
            return super().resolve(data)  # type: ignore[return-value]
        chosen = self
        if self.member is None:
            rows = self.rows(data)
            residual = residual_sds(
                rows.y, rows.f, rows.available, bias=self.bias, cluster=np.arange(len(data.members))
            )
            chosen = replace(self, member=data.members[int(np.argmin(residual))])
        resolved = super(SingleMember, chosen).resolve(chosen._one(data))
        assert isinstance(resolved, SingleMember)
        return resolved

    def prepare(self, data: Data) -> Any:
        """Return the training rows of the chosen member, corrected; see :meth:`BMA.prepare`."""
        if isinstance(data, CorrectedTable):
            return data
        model = self.resolve(data)
        return super(SingleMember, model).prepare(model._one(data))

    def n_parameters(self, data: Data) -> int:
        """Number of parameters, effects aside."""
        if isinstance(data, CorrectedTable):
            return super().n_parameters(data)
        return super().n_parameters(data.select(members=[self.member or data.members[0]]))

    def build(self, data: Data, likelihood: str = "fused") -> pm.Model:
        """Return the PyMC model of the chosen member; see :meth:`BMA.build`."""
        model = self.resolve(data)
        return super(SingleMember, model).build(model._one(data), likelihood)

    def em(
        self, data: Data, *, starts: int = 12, seed: int = 0, tolerance: float = 1e-10
    ) -> tuple[xr.Dataset, list[Optimum]]:
        """Correction and the residual standard deviation; see :meth:`BMA.em`."""
        model = self.resolve(data)
        return super(SingleMember, model).em(model._one(data), starts=starts, seed=seed, tolerance=tolerance)

    def predictive(self, posterior: xr.Dataset, ensemble: Ensemble, history: xr.Dataset | None = None) -> Any:
        """Return p(y | f); see :meth:`BMA.predictive`."""
        return super().predictive(posterior, self._one(ensemble), history)

    def training(self, posterior: xr.Dataset, ensemble: Ensemble, history: xr.Dataset | None = None) -> Any:
        """Return the density of training rows; see :meth:`BMA.training`."""
        return super().training(posterior, self._one(ensemble), history)

    def _one(self, data: Any) -> Any:
        if isinstance(data, CorrectedTable) or data.members == (self.member,):
            return data
        return data.select(members=[str(self.member)])
