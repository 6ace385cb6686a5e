"""Ensemble model output statistics: a normal around a regression on the members, wider where they disagree.

For row i with members k = 1..K, a common centre c, and s_i^2 the members' sample variance (divisor K - 1),

    y_i ~ Normal(m_i, (sigma^2 + spread^2 s_i^2) exp(2 scale_slope' x_i))
    m_i = c + intercept + sum_k linear_weight_k (f_ik - c)

    intercept       ~ Normal(0, .3 h)           h = sd(y): priors scale with the data
    linear_weight_k ~ Normal(1 / K, .5)
    sd              ~ s0 LogNormal(0, .5)       s0: residual sd of the best member
    spread_share    ~ Beta(1, 1)
    scale_slope     ~ Normal(0, .3)

where x_i, which ``scale`` names, has mean zero and standard deviation one over the training rows: by default the mean of the
members, in logarithms where no observation is negative, because large values of a skewed quantity have large errors. It is
standardised, and kept within its range, as the widths of :mod:`bayesens.models.bma` are, but for that it is the mean of the
members as they come. With ``scale=()`` the last factor is one. At x_i = 0, sd^2 = sigma^2 + spread^2 v is the variance at the
mean spread v of the training rows, and the part of it that spread^2 v makes up is

    spread_share / (1 + r^2 / sd^2)

with r, the sd of the observations' rounding and at least a thousandth of s0: sigma is r, not zero, at a share of one, because
rows whose members agree exactly need some variance. With a share of zero and ``scale=()`` this is the linear pool with free
weights. Under ``transform="sqrt"`` the normal is censored at zero: an observed zero has the probability of all that lies below.

Where a row lacks members they are taken as jointly normal with those that it has, with the moments of the training rows (see
:mod:`bayesens.likelihoods.missing_members`): f_i is then what is expected of them, s_i^2 the expected sample variance, and with
C_i the covariance that is left open, zero but for missing members,

    y_i ~ Normal(m_i, (sigma^2 + linear_weight' C_i linear_weight + spread^2 s_i^2) exp(2 scale_slope' x_i))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from bayesens.distributions.posterior_mixture import PosteriorMixture
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import prediction_rows
from bayesens.likelihoods.corrected.widths import width_names
from bayesens.likelihoods.em import Optimum
from bayesens.likelihoods.known_priors import KnownPriors
from bayesens.likelihoods.missing_members import fill_in
from bayesens.likelihoods.options import ModelValue
from bayesens.likelihoods.priors import Prior
from bayesens.likelihoods.spread import training
from bayesens.likelihoods.spread.optimum import spread_optimum
from bayesens.likelihoods.spread.predictive import spread_mixture
from bayesens.likelihoods.training_checks import at_zero, check_residuals, refuse_exact, warn_copies, warn_incomplete
from bayesens.models import presets

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["EMOS"]


@dataclass(frozen=True)
class EMOS(presets.Presets, KnownPriors, ModelValue):
    """Normal distribution with a regression mean and a variance that is linear in the variance of the members.

    A row that lacks some members counts with what those that it has say of them, and with the variance that this leaves open.
    Standard deviations that members bring of their own count where ``scale`` names their columns.

    Parameters
    ----------
    scale : tuple of str
        What the standard deviation follows beside the members' spread: "mean" (of the members), "season", or columns of the
        table; () for none. A row that lacks the value of a column is taken as typical in it.
    transform : {"identity", "sqrt", "log"}
        Applied to the observation and to all members; predictions come back in the observation's units.
    center, unit, sigma_scale, spread_scale, sigma_floor : float, optional
        Origin of the intercept, unit of the priors, prior median of ``sd``, root of the mean spread, and what sigma is at
        least, on the transformed scale; None takes the mean and the standard deviation of the observations, the residual
        standard deviation of the best member, the root of the mean sample variance of the members, and the standard
        deviation of the observations' rounding or a thousandth of ``sigma_scale``, whichever is more.
    widths : tuple of tuples, optional
        How what ``scale`` names is standardised: (name, start of the logarithm or None, mean, standard deviation, least and
        greatest value) of each column; None takes them from the training rows.
    member_moments : tuple of tuples, optional
        By which missing members are filled in: of each member its mean, and its covariances with all, on the transformed
        scale. None takes them from the training rows; () fills in nothing, refuses training rows that lack a member, and
        predicts none.
    intercept_prior, coefficient_prior, sd_prior, spread_share_prior, scale_slope_prior : Prior
        Priors. That of the intercept is in units of ``unit``, that of ``sd`` of ``sigma_scale``; that of the coefficients
        is about one over the number of members; that of the widths' coefficients, a standard deviation of their covariates.

    References
    ----------
    Gneiting, Raftery, Westveld and Goldman (2005), Monthly Weather Review 133, 1098-1118.

    Examples
    --------
    >>> EMOS(transform="sqrt", scale=("mean", "season")).scale
    ('mean', 'season')
    """

    scale: tuple[str, ...] = ("mean",)
    transform: str = "identity"
    center: float | None = None
    unit: float | None = None
    sigma_scale: float | None = None
    spread_scale: float | None = None
    sigma_floor: float | None = None
    widths: tuple[tuple[Any, ...], ...] | None = None
    member_moments: tuple[tuple[float, ...], ...] | None = None
    intercept_prior: Prior = Prior("Normal", mu=0, sigma=0.3)  # members are about right on average
    coefficient_prior: Prior = Prior("Normal", mu=0, sigma=0.5)  # members may count for nothing, or against the others
    sd_prior: Prior = Prior("LogNormal", mu=0, sigma=0.5)  # a third to three times the errors of the best member
    spread_share_prior: Prior = Prior("Beta", alpha=1, beta=1)  # the variance may follow the spread or not
    scale_slope_prior: Prior = Prior("Normal", mu=0, sigma=0.3)  # widths that double between rows two sd apart

    sets: ClassVar[presets.Sets] = presets.EMOS
    spelled: ClassVar[tuple[str, str]] = ("EMOS", "ensemble model output statistics")
    assumes: ClassVar[str] = (
        "regresses the observation on the members, with a normal error that is wider where they differ more, and "
        "as wide as what its option scale names would have it: by default, as the members' mean."
    )
    meaning: ClassVar[str] = (
        "ensemble model output statistics: a regression of the observation on the members, with a width of its own"
    )
    baseline: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"transform": ("identity", "sqrt", "log")}
    needs_member: ClassVar[bool] = True
    before: ClassVar[dict[str, Any]] = {"scale": (), "widths": (), "member_moments": ()}  # of older fits

    def __post_init__(self) -> None:
        training.check_spread_options(self)

    @property
    def needs_all_members(self) -> bool:
        """Whether a row counts only with all of its members."""
        return self.member_moments == ()

    # --------------------------------------------------------------------------------------------------------- the model
    def build(self, ensemble: Ensemble, likelihood: str = "fused") -> pm.Model:
        """Return the PyMC model of the rows that have an observation.

        ``likelihood="rows"`` is the plain regression with observed ``y``; ``"fused"`` is the same density in one pass.
        """
        import pymc as pm
        import pytensor
        import pytensor.tensor as pt

        if likelihood not in ("fused", "rows"):
            raise ValueError(f"likelihood is 'fused' or 'rows'; got {likelihood!r}.")
        model: Any = self.resolve(ensemble)
        rows, k = training.spread_rows(model, ensemble), ensemble.n_members
        filled = fill_in(model, rows)
        y, f, s2 = rows.y, filled.f, filled.spread
        x, low = training.width_covariates(model, rows, filled, ensemble), at_zero(rows, self.transform)
        # Shared variables: a constant would be compiled anew for every table.
        known = (model.center, model.spread_scale, model.sigma_floor)
        c, scale, floor = (pytensor.shared(np.float64(value)) for value in known)
        with pm.Model(coords=_labels(model, ensemble)) as pymc_model:
            intercept = self.intercept_prior.create("intercept", scale=model.unit)
            linear = self.coefficient_prior.create("linear_weight", shift=1.0 / k, dims="member")
            sd = self.sd_prior.create("sd", scale=model.sigma_scale)
            share = self.spread_share_prior.create("spread_share")
            slope = self.scale_slope_prior.create("scale_slope", dims="scale_covariate") if self.scale else ()
            share = share * sd**2 / (sd**2 + floor**2)  # with a share of one, sigma is the floor
            sigma = pm.Deterministic("sigma", sd * pt.sqrt(1.0 - share))
            spread = pm.Deterministic("spread", sd * pt.sqrt(share) / scale)

            def law(f: Any, s2: Any, x: Any, some: np.ndarray) -> tuple[Any, Any]:
                """Mean and standard deviation of some rows."""
                variance = sigma**2 + spread**2 * s2
                if not filled.complete[some].all():
                    opened = (filled.open * linear[:, None] * linear[None, :]).sum(axis=(1, 2))
                    variance = variance + opened[filled.pattern[some]]
                wider = pt.exp((x * slope).sum(axis=1)) if self.scale else 1.0
                return c + intercept + (linear * (f - c)).sum(axis=1), pt.sqrt(variance) * wider

            if likelihood == "rows":
                mean, width = law(f, s2, x, np.ones(len(y), dtype=bool))
                if low.any():
                    pm.Censored("y", pm.Normal.dist(mean, width), lower=0.0, upper=None, observed=y)
                else:
                    pm.Normal("y", mean, width, observed=y)
                return pymc_model

            from bayesens.likelihoods.ops import log_below_zero, log_normal
            from bayesens.likelihoods.spread.regression import spread_loglik

            parameters = [intercept, *(linear[j] for j in range(k)), pt.log(sd), share]
            parameters += [slope[j] for j in range(x.shape[1])]
            plain, gaps = filled.complete & ~low, ~filled.complete & ~low
            apart, excess = f[plain] - model.center, s2[plain] / model.spread_scale**2 - 1.0
            loglik = spread_loglik(pt.stack(parameters), y=y[plain] - model.center, f=apart, excess=excess, x=x[plain])

            def shared(some: np.ndarray) -> tuple[Any, Any]:
                values = [pytensor.shared(v[some]) for v in (f, s2, x)]
                return law(values[0], values[1], values[2], some)

            if gaps.any():
                loglik = loglik + log_normal(pytensor.shared(y[gaps]), *shared(gaps)).sum()
            if low.any():
                loglik = loglik + log_below_zero(*shared(low)).sum()
            pm.Potential("loglik", loglik)
        return pymc_model

    # ------------------------------------------------------------------------------------------------ what the data set
    def resolve(self, ensemble: Ensemble) -> EMOS:
        """Return the model with ``center``, the scales and ``widths`` filled in from the training rows."""
        return training.resolved(self, ensemble)

    def check(self, ensemble: Ensemble) -> None:
        """Refuse or warn of members that tie with the observations, have seen them, are far off, or copy each other."""
        rows, model = training.spread_rows(self, ensemble), self.resolve(ensemble)
        refuse_exact(rows, ensemble.members)
        warn_copies(ensemble, rows)
        x = training.width_covariates(model, rows, fill_in(model, rows), ensemble)
        check_residuals(rows, ensemble.members, "linear", self.transform, x)

    def n_parameters(self, ensemble: Ensemble) -> int:
        """Number of parameters."""
        return ensemble.n_members + 3 + len(width_names(self.scale))

    # ------------------------------------------------------------------------------------------- optimum and prediction
    def em(
        self, ensemble: Ensemble, *, starts: int = 12, seed: int = 0, tolerance: float = 1e-10
    ) -> tuple[xr.Dataset, list[Optimum]]:
        """Maximum likelihood: weighted least squares at each share of the spread, and a search for the best share.

        With zeros under the square root the regression at each share is that of the censored normal. Where rows lack members
        a search over all parameters follows, because what these leave open follows the coefficients. The widths' coefficients
        have their prior, without which a row that the regression can meet alone leaves the likelihood without bound: its
        family is that of the default, and another is left out with a warning.

        ``tolerance`` is that of the share; ``starts`` and ``seed`` are not used: the likelihood is tried at 21 shares first.
        """
        model, rows = self.resolve(ensemble), training.spread_rows(self, ensemble)
        filled, low = fill_in(model, rows), at_zero(rows, self.transform)
        x = training.width_covariates(model, rows, filled, ensemble)
        data, optimum = spread_optimum(model, rows.y, filled, x, low, tolerance=tolerance)
        return xr.Dataset(data, coords=_labels(model, ensemble)), [optimum]

    def predictive(self, posterior: xr.Dataset, ensemble: Ensemble) -> PosteriorMixture:
        """Return p(y | f) for every row that has a member, on the transformed scale; the model is resolved."""
        assert self.center is not None
        rows = prediction_rows(ensemble, self.transform)
        if self.needs_all_members:
            warn_incomplete(rows, ensemble)
        filled = fill_in(self, rows)
        known = filled.complete if self.needs_all_members else rows.available.any(axis=1)
        x = training.width_covariates(self, rows, filled, ensemble)
        return spread_mixture(posterior, filled, known, x, self.center, self.unit or 1.0)


def _labels(model: EMOS, ensemble: Ensemble) -> dict[str, list[str]]:
    """Labels of the parameters' dimensions."""
    names = list(width_names(model.scale))
    return {"member": list(ensemble.members)} | ({"scale_covariate": names} if names else {})
