"""A linear pool: one normal kernel around a weighted mean of bias-corrected members.

For row i, with members k = 1..K present in the set A_i and a common centre c,

    y_i ~ Normal(m_i, sigma^2)
    m_i = sum_{k in A_i} w_k / (sum_{j in A_i} w_j)  (c - bias_k + slope (f_ik - c))

    w           ~ Dirichlet(1)
    bias_k      = bias_pool + d_k - sum_j w_j d_j,  d_k = slope (fbar_k - c) - (ybar_k - c)
    bias_pool   ~ Normal(0, .3 h)               h = sd(y): priors scale with the data
    slope       ~ Normal(1, .25)
    sigma       ~ s0 LogNormal(0, .5)           s0: residual sd of the best member

where fbar_k and ybar_k are the means of member and observation over the training rows that have the member. The data tell
only the bias of the pool, the weighted mean of the members' biases: how these differ is taken from the members one by one, d_k
being the bias with which a member is right on average, so that a row that lacks some member is not shifted.

Under ``transform="sqrt"`` the normal is censored at zero: an observed zero has the probability of all that lies below.

With ``weights="free"`` the mean is a regression on all members, with coefficients that may be negative,

    m_i = c + intercept + sum_k linear_weight_k (f_ik - c)

    intercept       ~ Normal(0, .3 h)
    linear_weight_k ~ Normal(1 / K, .5)

BMA with the same corrections is a mixture of kernels; here the members are averaged before one kernel is put around them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from bayesens.ensemble import Ensemble
from bayesens.likelihoods.em import Optimum
from bayesens.options import check_options
from bayesens.pooling import regression, row_means, search_pool, triangles
from bayesens.predictive import Block, PosteriorMixture, row_classes
from bayesens.priors import Prior
from bayesens.rows import Rows, flat, prediction_rows, training_rows
from bayesens.training_checks import (
    at_zero,
    best_residual,
    check_residuals,
    complete_rows,
    refuse_exact,
    warn_copies,
    warn_incomplete,
)

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["LinearPool", "log_below_zero"]

_PRESETS = {
    "weak": {},
    "vague": {
        "bias_prior": Prior("Normal", mu=0, sigma=1), "slope_prior": Prior("Normal", mu=1, sigma=1),
        "intercept_prior": Prior("Normal", mu=0, sigma=1), "coefficient_prior": Prior("Normal", mu=0, sigma=2),
        "sigma_prior": Prior("LogNormal", mu=0, sigma=1),
    },
    "sceptical": {
        "weight_prior": Prior("Dirichlet", a=5), "bias_prior": Prior("Normal", mu=0, sigma=0.1),
        "slope_prior": Prior("Normal", mu=1, sigma=0.1), "intercept_prior": Prior("Normal", mu=0, sigma=0.1),
        "coefficient_prior": Prior("Normal", mu=0, sigma=0.1),
    },
}  # fmt: skip
TINY = 1e-300


@dataclass(frozen=True)
class LinearPool:
    """One normal kernel around a weighted mean of the members.

    Parameters
    ----------
    weights : {"simplex", "free"}
        Weights that are positive and sum to one, renormalised over the members that a row has; or a regression on all
        members, whose coefficients may be negative. The latter refuses training rows that lack a member, and predicts
        none.
    bias : {"linear", "additive", "none"}
        Correction of the members before simplex weights: biases and a common slope, biases only, or none.
    transform : {"identity", "sqrt", "log"}
        Applied to the observation and to all members; predictions come back in the observation's units.
    center, scale, sigma_scale : float, optional
        Origin of the biases, unit of the priors, and prior median of sigma, on the transformed scale; None takes the mean
        and the standard deviation of the observations and the residual standard deviation of the best member.
    weight_prior, bias_prior, slope_prior, intercept_prior, coefficient_prior, sigma_prior : Prior
        Priors. Those of bias and intercept are in units of ``scale``, that of sigma of ``sigma_scale``; that of the
        coefficients is about one over the number of members.

    References
    ----------
    Granger and Ramanathan (1984), Journal of Forecasting 3, 197-204: combinations by regression, free or constrained.

    Examples
    --------
    >>> LinearPool(weights="free").weights
    'free'
    """

    weights: str = "simplex"
    bias: str = "linear"
    transform: str = "identity"
    center: float | None = None
    scale: float | None = None
    sigma_scale: float | None = None
    weight_prior: Prior = field(default=Prior("Dirichlet", a=1))
    bias_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.3))
    slope_prior: Prior = field(default=Prior("Normal", mu=1, sigma=0.25))
    intercept_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.3))
    coefficient_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.5))
    sigma_prior: Prior = field(default=Prior("LogNormal", mu=0, sigma=0.5))

    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "weights": ("simplex", "free"), "bias": ("linear", "additive", "none"), "transform": ("identity", "sqrt", "log"),
    }  # fmt: skip
    needs_member: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)
        if self.weights == "free" and self.bias != "linear":
            raise ValueError(f"LinearPool(weights='free') has an intercept and coefficients, which leave no bias to correct; "
                             f"got bias={self.bias!r}. Leave bias out, or use weights='simplex'.")  # fmt: skip

    @classmethod
    def preset(cls, name: str, **options: Any) -> LinearPool:
        """Return the model with a named set of priors: ``"weak"`` (the default), ``"vague"`` or ``"sceptical"``.

        Examples
        --------
        >>> LinearPool.preset("sceptical").coefficient_prior
        Prior("Normal", mu=0.0, sigma=0.1)
        """
        if name not in _PRESETS:
            raise ValueError(f"LinearPool has the presets {', '.join(_PRESETS)}; got {name!r}.")
        return cls(**{**_PRESETS[name], **options})

    # ------------------------------------------------------------------------------------------------ what the data set
    @property
    def needs_all_members(self) -> bool:
        """Whether a row counts only with all of its members."""
        return self.weights == "free"

    def resolve(self, ensemble: Ensemble) -> LinearPool:
        """Return the model with ``center``, ``scale`` and ``sigma_scale`` filled in from the training rows."""
        if None not in (self.center, self.scale, self.sigma_scale):
            return self
        rows = self._rows(ensemble)
        return replace(
            self,
            center=float(np.mean(rows.y)) if self.center is None else self.center,
            scale=float(np.std(rows.y)) if self.scale is None else self.scale,
            sigma_scale=best_residual(rows, ensemble.members, self.bias)
            if self.sigma_scale is None
            else self.sigma_scale,
        )

    def check(self, ensemble: Ensemble) -> None:
        """Refuse or warn of members that tie with the observations, have seen them, are far off, or copy each other."""
        rows = self._rows(ensemble)
        refuse_exact(rows, ensemble.members)
        warn_copies(ensemble, rows, self.bias)
        check_residuals(rows, ensemble.members, self.bias, self.transform)

    def n_parameters(self, ensemble: Ensemble) -> int:
        """Number of parameters."""
        if self.weights == "free":
            return ensemble.n_members + 2
        return ensemble.n_members + {"linear": 2, "additive": 1, "none": 0}[self.bias]

    def _rows(self, ensemble: Ensemble) -> Rows:
        rows = training_rows(ensemble, self.transform, need_member=True)
        return complete_rows(rows, ensemble, "LinearPool(weights='free')") if self.needs_all_members else rows

    # ---------------------------------------------------------------------------------------------------- the posterior
    def build(self, ensemble: Ensemble, likelihood: str = "fused") -> pm.Model:
        """Return the PyMC model.

        Parameters
        ----------
        ensemble : Ensemble
            Rows without an observation or without any member are left out.
        likelihood : {"fused", "rows"}
            ``"rows"`` is the plain regression with observed ``y``; ``"fused"`` is the same density from the sums of squares
            and products of all rows, so that its cost does not grow with them.

        Returns
        -------
        pymc.Model
        """
        import pymc as pm
        import pytensor
        import pytensor.tensor as pt

        if likelihood not in ("fused", "rows"):
            raise ValueError(f"likelihood is 'fused' or 'rows'; got {likelihood!r}.")
        model, rows = self.resolve(ensemble), self._rows(ensemble)
        assert model.center is not None and model.scale is not None and model.sigma_scale is not None
        with pm.Model(coords={"member": list(ensemble.members)}) as pymc_model:
            sigma = self.sigma_prior.create("sigma", scale=model.sigma_scale)
            patterns, pattern = np.unique(rows.available, axis=0, return_inverse=True)
            low = at_zero(rows, self.transform)
            if self.weights == "free":
                k = ensemble.n_members
                level = self.intercept_prior.create("intercept", scale=model.scale)[None]
                share = self.coefficient_prior.create("linear_weight", shift=1.0 / k, dims="member")[None]
            else:
                weight = self._weight(ensemble.n_members)
                bias, slope = self._correction(weight, rows, model.center, model.scale)
                share = weight * patterns / (weight * patterns).sum(axis=1, keepdims=True)
                level = -(share * bias).sum(axis=1)
                share = slope * share
                pm.Deterministic("linear_weight", slope * weight, dims="member")
            if likelihood == "rows":
                c = pytensor.shared(np.float64(model.center))
                code = pattern.ravel()
                mean = c + level[code] + (share[code] * (rows.f - c)).sum(axis=1)
                if low.any():
                    pm.Censored("y", pm.Normal.dist(mean, sigma), lower=0.0, upper=None, observed=rows.y)
                else:
                    pm.Normal("y", mean, sigma, observed=rows.y)
            else:
                known = Rows(rows.y[~low], rows.f[~low], rows.available[~low], rows.index[~low])
                factors = triangles(known, model.center, patterns, pattern.ravel()[~low])
                triangle = pytensor.shared(factors, shape=factors.shape)  # the number of members belongs to the graph
                contrast = pt.concatenate([pt.ones((len(patterns), 1)), -level[:, None], -share], axis=1)
                residual = (triangle * contrast[:, None, :]).sum(axis=2)
                n = pytensor.shared(np.float64(len(known.y)))
                loglik = -n * (pt.log(sigma) + 0.5 * np.log(2.0 * np.pi)) - 0.5 * (residual**2).sum() / sigma**2
                if low.any():
                    apart, code = (pytensor.shared(x) for x in (rows.f[low] - model.center, pattern.ravel()[low]))
                    mean = model.center + level[code] + (share[code] * apart).sum(axis=1)
                    loglik = loglik + log_below_zero(mean, sigma).sum()
                pm.Potential("loglik", loglik)
        return pymc_model

    def _weight(self, k: int) -> Any:
        import pymc as pm
        import pytensor.tensor as pt

        if k == 1:
            return pm.Deterministic("weight", pt.ones(1), dims="member")
        prior = self.weight_prior
        if prior.family == "Dirichlet" and isinstance(concentration := dict(prior.parameters)["a"], float):
            prior = Prior("Dirichlet", a=np.full(k, concentration))
        return prior.create("weight", dims="member")

    def _correction(self, weight: Any, rows: Rows, center: float, scale: float) -> tuple[Any, Any]:
        """Biases (member) and slope."""
        import pymc as pm
        import pytensor
        import pytensor.tensor as pt

        slope: Any = pt.ones(())
        if self.bias == "none":
            return pt.zeros(rows.f.shape[1]), slope
        pool = self.bias_prior.create("bias_pool", scale=scale)
        if self.bias == "linear":
            slope = self.slope_prior.create("slope")
        f_mean, y_mean = (pytensor.shared(mean - center) for mean in row_means(rows))
        own = slope * f_mean - y_mean
        return pm.Deterministic("bias", pool + own - (weight * own).sum(), dims="member"), slope

    # ---------------------------------------------------------------------------------------------- maximum likelihood
    def em(
        self, ensemble: Ensemble, *, starts: int = 12, seed: int = 0, tolerance: float = 1e-15
    ) -> tuple[xr.Dataset, list[Optimum]]:
        """Maximum likelihood: least squares, under constraints for simplex weights.

        With zeros under the square root it is that of the censored normal: in closed steps for free weights, and by
        expectation-maximisation around least squares for simplex weights.

        Parameters
        ----------
        ensemble : Ensemble
        starts : int
            Starts beside equal weights where members are missing; with complete rows the optimum is unique.
        seed : int
        tolerance : float
            Change of half the logarithm of the mean square at which the search ends.

        Returns
        -------
        parameters : Dataset
            All that the posterior has.
        optima : list of Optimum
            The best one.
        """
        model, rows = self.resolve(ensemble), self._rows(ensemble)
        assert model.center is not None
        low = at_zero(rows, self.transform)
        if self.weights == "free":
            design = np.column_stack([np.ones(len(rows.y)), rows.f - model.center])
            found, square, loglik, iterations, converged = regression(design, rows.y - model.center, low)
            data = {"intercept": ((), found[0]), "linear_weight": ("member", found[1:])}
        else:
            pool, weight, square, loglik, iterations, converged = search_pool(
                rows, model.center, self.bias, low, starts=starts, seed=seed, tolerance=tolerance
            )
            common, slope = pool.correction(weight)
            data = {"weight": ("member", weight), "linear_weight": ("member", slope * weight)}
            if self.bias != "none":
                f_mean, y_mean = (mean - model.center for mean in row_means(rows))
                bias = common + slope * f_mean - y_mean
                data |= {"bias_pool": ((), weight @ bias), "bias": ("member", bias)}
            if self.bias == "linear":
                data["slope"] = ((), slope)
        dataset = xr.Dataset(data | {"sigma": ((), np.sqrt(square))}, coords={"member": np.array(ensemble.members)})
        return dataset, [Optimum(np.ones(0), np.ones(0), float(loglik), iterations, converged, "least squares")]

    # ------------------------------------------------------------------------------------------------------- prediction
    def predictive(self, posterior: xr.Dataset, ensemble: Ensemble) -> PosteriorMixture:
        """Return p(y | f) for every row, on the transformed scale.

        Rows without any member have none; nor, with free weights, have rows that lack some.

        Parameters
        ----------
        posterior : Dataset
            Draws with the dimensions ``chain`` and ``draw``; the model must be resolved.
        ensemble : Ensemble
            With the members of the fit, in its order.

        Returns
        -------
        PosteriorMixture

        Warns
        -----
        UserWarning
            For rows that lack some member, with free weights.
        """
        assert self.center is not None
        rows, c = prediction_rows(ensemble, self.transform), self.center
        k = len(ensemble.members)
        draw = {str(n): flat(v) for n, v in posterior.data_vars.items()}
        variance = draw["sigma"][:, None] ** 2
        draws = len(variance)
        one = np.ones((draws, 1))
        patterns, pattern = np.unique(rows.available, axis=0, return_inverse=True)
        if self.needs_all_members:
            warn_incomplete(rows, ensemble)

        def linear(present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Mean where all members are at the centre, less the centre, and coefficients (draw, member)."""
            if self.weights == "free":
                return draw["intercept"], draw["linear_weight"]
            share = np.maximum(draw["weight"], TINY) * present
            share = share / share.sum(axis=1, keepdims=True)
            level = -np.sum(share * draw["bias"], axis=1) if "bias" in draw else np.zeros(draws)
            return level, share * draw.get("slope", one.ravel())[:, None]

        def blocks() -> Iterator[Block]:
            for index, (q,) in row_classes(pattern.ravel()):
                if not (patterns[q].all() if self.needs_all_members else patterns[q].any()):
                    continue
                level, coefficient = linear(patterns[q])
                whole = np.empty((draws, 1, 1 + k))
                whole[:, 0, 0] = c + level - c * coefficient.sum(axis=1)
                whole[:, 0, 1:] = coefficient
                yield Block(index, one, whole, variance)

        return PosteriorMixture(rows.f, blocks, c, self.scale or 1.0)


def log_below_zero(mean: Any, sigma: Any) -> Any:
    """Log probability that a normal is below zero; PyMC's has a root of two in single precision."""
    import pytensor.tensor as pt

    u = -mean / sigma
    t = -u * np.sqrt(0.5)
    return pt.switch(pt.lt(u, -1.0), pt.log(0.5 * pt.erfcx(t)) - t**2, pt.log1p(-0.5 * pt.erfc(-t)))
