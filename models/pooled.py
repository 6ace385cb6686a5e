"""What a pool of corrected members has beside its density: what it refuses, its optimum, and its law."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows, flat
from bayesens.likelihoods.corrected.own_correction import CorrectedTable
from bayesens.likelihoods.em import Optimum
from bayesens.likelihoods.training_checks import check_residuals, complete_rows, refuse_exact, warn_copies
from bayesens.models import joint_pool
from bayesens.models.corrected import CorrectedMembers, Data, spare

if TYPE_CHECKING:
    from bayesens.likelihoods.corrected.predictive import CorrectedMixture

__all__ = ["PooledMembers"]


class PooledMembers(CorrectedMembers):
    """Methods of a linear pool; a joint fit of it stands in `joint_pool`."""

    weights: str
    member_moments: tuple[tuple[float, ...], ...] | None

    second_step: ClassVar[str] = "pool"
    at_once: ClassVar[Any] = joint_pool

    @property
    def needs_all_members(self) -> bool:
        """Whether a row counts only with all of its members."""
        return self.weights == "free" and self.member_moments == ()

    def check(self, data: Data) -> None:
        """Refuse or warn of members that tie with the observations, have seen them, are far off, or copy each other."""
        ensemble = data.ensemble if isinstance(data, CorrectedTable) else data
        rows = self.rows(ensemble)
        refuse_exact(rows, ensemble.members)
        warn_copies(ensemble, rows, self.bias)
        if isinstance(data, CorrectedTable):
            self.check_corrected(data)
        else:
            check_residuals(rows, ensemble.members, self.bias, self.transform)

    def n_parameters(self, data: Data) -> int:
        """Number of parameters."""
        if self.correction == "own":
            return self.n_own
        return len(data.members) + {"linear": 2, "additive": 1, "none": 0}[self.bias]

    def rows(self, ensemble: Ensemble) -> Rows:
        """Rows with an observation and a member, on the scale of the transform; with all of them if those count alone."""
        rows = super().rows(ensemble)
        return complete_rows(rows, ensemble, "LinearPool(weights='free')") if self.needs_all_members else rows

    # ------------------------------------------------------------------------------------------- optimum and prediction
    def em(
        self, data: Data, *, starts: int = 12, seed: int = 0, tolerance: float = 1e-15
    ) -> tuple[xr.Dataset, list[Optimum]]:
        """The two steps at their optimum: corrections at their posterior means, then weights, sigma and widths.

        The optimum is that of the posterior in the coordinates in which it is sampled; it knows the families of the default
        priors, and warns where another prior is left out. A joint fit, and free weights, have maximum likelihood, whose search
        ends at a change of ``tolerance`` of half the logarithm of the mean square.

        Returns all parameters that the posterior has, and the best optimum of ``starts`` beside equal weights, which are made
        where members are missing.
        """
        if self.correction == "joint":
            return joint_pool.em(self, self.prepare(data), starts=starts, seed=seed, tolerance=tolerance)
        # Loads numba: nothing that only reads a fit should.
        from bayesens.likelihoods.corrected.pool import pool_optimum

        found, optimum = pool_optimum(self.prepare(data), spare(len(data.members)), starts=starts, seed=seed)
        return _with_linear_weight(found), [optimum]

    def history(self, data: Data) -> xr.Dataset:
        """What predictions take from the training rows."""
        from bayesens.likelihoods.corrected.pool import standing

        table = self.prepare(data)
        return super().history(table).assign(standing=("member", standing(table)))

    def complete(self, posterior: xr.Dataset, data: Data, rng: np.random.Generator) -> xr.Dataset:
        """Add draws of the corrections to those of the pool, of which they are independent."""
        if self.correction == "joint":
            return posterior
        return _with_linear_weight(self.with_corrections(posterior, data, rng))

    def law(self, found: CorrectedMixture, posterior: xr.Dataset, history: xr.Dataset) -> CorrectedMixture:
        """One kernel a draw, around the mean of the members, in place of their mixture."""
        from bayesens.likelihoods.corrected.rows import pooled

        assert self.center is not None
        stretch = flat(posterior["stretch"]) if "stretch" in posterior else np.ones(len(found.draws))
        return pooled(found, history["standing"].values, stretch, self.center)


def _with_linear_weight(posterior: xr.Dataset) -> xr.Dataset:
    """Add what a unit of each member moves the mean by."""
    stretch = posterior.get("stretch", 1.0)
    return posterior.assign(linear_weight=stretch * posterior["weight"] * posterior.get("slope", 1.0))
