"""A linear pool: one kernel around a weighted mean of members that are corrected first.

Every member is corrected by its own mixed model, with effects of site and group, as :mod:`bayesens.models.bma` has it. Then, with
c_ik what the other rows make of member k at row i, and q_ik the share of variance that this leaves open,

    y_i         ~ Normal(c + stretch (m_i - c), sigma_i^2 (1 + q_i))
    m_i         = sum_{k in A_i} w_k / (sum_{j in A_i} w_j)  c_ik
    log sigma_i = log sigma + scale_slope' x_i     x: logarithms of predicted mean and spread of the members, standardised
    q_i         = mean of q_ik over the members A_i that the row has, by the weights of least squares

    w           ~ Dirichlet(1)
    stretch     ~ Normal(1, .5)                    only with bias = "linear"
    sigma       ~ s0 LogNormal(0, .5)              s0: residual sd of the best member
    scale_slope ~ Normal(0, .3)

A member that is corrected by a slope stays as near to the mean c of the observations as its own errors make it; the mean of
several members has smaller errors, and may go further: that is the stretch. A site that the fit has not seen has a new effect,
whose variance is to sigma_i^2 as the members' are to their residuals', on average by the weights; where members' offsets hang
together less than their errors do, that is more than it should be. Under ``transform="sqrt"`` the normal is censored at zero:
an observed zero has the probability of all that lies below. With ``kernel="student_t"`` the normal is a Student's t of nu degrees
of freedom and of that scale, with nu - 2 ~ Gamma(2, .1). BMA with the same corrections is a mixture of kernels; here the
members are averaged before one kernel is put around them.

With ``correction="joint"`` biases, a common slope, weights and sigma are fitted at once, without effects and with one width, and
``weights="free"`` is a regression on the members: both stand in :mod:`bayesens.models.joint_pool`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bayesens.likelihoods.corrected.own_correction import CorrectedTable
from bayesens.likelihoods.missing_members import JointMembers, check_moments
from bayesens.likelihoods.options import check_options, filled
from bayesens.likelihoods.priors import Prior
from bayesens.likelihoods.training_checks import best_residual
from bayesens.models import joint_pool, presets
from bayesens.models.corrected import Data
from bayesens.models.pooled import PooledMembers
from bayesens.models.weights import weight_variables

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["LinearPool"]


@dataclass(frozen=True)
class LinearPool(presets.Presets, PooledMembers):
    """One kernel around a weighted mean of the members.

    Standard deviations that members bring of their own (`Ensemble.from_frame`, ``spread``) are covariates here, which ``scale``
    may name; by default they are not used.

    Parameters
    ----------
    weights : {"simplex", "free"}
        Weights that are positive and sum to one, renormalised over the members that a row has; or a regression on all
        members, whose coefficients may be negative. The latter fills in members that a row lacks from those that it has,
        and widens the kernel by what this leaves open; it corrects nothing itself and has one width otherwise.
    correction : {"own", "joint"}, optional
        Each member corrected by its own mixed model and then averaged, or everything at once. None takes the former, and the
        latter for free weights, which have no other.
    bias : {"linear", "additive", "none"}
        Correction of the members before simplex weights: intercept and slope (one slope for all members in a joint fit),
        intercept only, or none.
    bias_covariates : tuple of str
        Columns that each correction regresses on beside its member, such as an elevation; "own" only.
    scale : tuple of str, optional
        What the width of the kernel follows: "mean", "spread", "season", or columns of the table; () is one width for all
        rows. None takes mean and spread, and one width for a joint fit.
    kernel : {"normal", "student_t"}
        A normal, or a t for errors that are far larger than most now and then, with degrees of freedom above two that are
        estimated; "own" only.
    group, site : bool, optional
        Effects of group and site in the corrections; None takes those that the ensemble has with at least two labels, and
        none for a joint fit.
    transform : {"identity", "sqrt", "log"}
        Applied to the observation and to all members; predictions come back in the observation's units.
    center, unit, sigma_scale : float, optional
        Origin of the biases, unit of the priors, and prior median of sigma, on the transformed scale; None takes the mean
        and the standard deviation of the observations and the residual standard deviation of the best member.
    member_moments : tuple of tuples, optional
        By which free weights fill in missing members: of each member its mean, and its covariances with all, on the
        transformed scale. None takes them from the training rows; () fills in nothing, refuses training rows that lack a
        member, and predicts none.
    level_prior, gain_prior, covariate_prior : Prior
        Normal priors of a correction's level, slope and covariates' coefficients, all in standard units.
    site_ratio_prior, group_ratio_prior : Prior
        Of the effects' standard deviations over that of the residual.
    scale_slope_prior : Prior
        Of the width's coefficients, a standard deviation of their covariates.
    nu_prior : Prior
        Of a t kernel's degrees of freedom less two.
    weight_prior, stretch_prior, sigma_prior : Prior
        That of the stretch has no part in a joint fit, that of sigma is in units of ``sigma_scale``. A Dirichlet prior with
        one number has that concentration for each of up to eight members; more members share what eight have.
    bias_prior, slope_prior : Prior
        Of a joint fit, in their place; that of the bias is in units of ``unit``.
    intercept_prior, coefficient_prior : Prior
        Of free weights. That of the intercept is in units of ``unit``; that of the coefficients is about one over the number
        of members.

    References
    ----------
    Granger and Ramanathan (1984), Journal of Forecasting 3, 197-204: combinations by regression, free or constrained.

    Examples
    --------
    >>> LinearPool().correction, LinearPool(weights="free").correction
    ('own', 'joint')
    """

    weights: str = "simplex"
    correction: str | None = None  # filled in as soon as the weights are known
    bias: str = "linear"
    bias_covariates: tuple[str, ...] = ()
    scale: tuple[str, ...] | None = None
    kernel: str = "normal"
    group: bool | None = None
    site: bool | None = None
    transform: str = "identity"
    center: float | None = None
    unit: float | None = None
    sigma_scale: float | None = None
    member_moments: tuple[tuple[float, ...], ...] | None = None
    # Of the corrections, in standard units.
    level_prior: Prior = Prior("Normal", mu=0, sigma=3)  # an offset of a member costs nothing
    gain_prior: Prior = Prior("Normal", mu=0.7, sigma=0.5)  # what a correlation of .7 gives; another unit costs nothing
    covariate_prior: Prior = Prior("Normal", mu=0, sigma=0.5)  # half a sd of the observations for one of the covariate
    site_ratio_prior: Prior = Prior("HalfStudentT", nu=3, sigma=1)  # effects about as large as the residual, or larger
    group_ratio_prior: Prior = Prior("HalfStudentT", nu=3, sigma=1)
    # Of the pool.
    scale_slope_prior: Prior = Prior("Normal", mu=0, sigma=0.3)  # widths that double between rows two sd apart
    nu_prior: Prior = Prior("Gamma", alpha=2, beta=0.1)  # 10 to 40 for most: light tails unless the rows say so
    weight_prior: Prior = Prior("Dirichlet", a=1)  # all weights that sum to one are alike
    stretch_prior: Prior = Prior("Normal", mu=1, sigma=0.5)  # the mean of several may go further than each, not far
    sigma_prior: Prior = Prior("LogNormal", mu=0, sigma=0.5)  # a third to three times the errors of the best member
    # Of joint fits and free weights.
    bias_prior: Prior = Prior("Normal", mu=0, sigma=0.3)
    slope_prior: Prior = Prior("Normal", mu=1, sigma=0.25)
    intercept_prior: Prior = Prior("Normal", mu=0, sigma=0.3)
    coefficient_prior: Prior = Prior("Normal", mu=0, sigma=0.5)  # members may count for nothing, or against the others

    sets: ClassVar[presets.Sets] = presets.LINEAR_POOL
    spelled: ClassVar[tuple[str, str]] = ("linear pool", "one density around a weighted mean")
    assumes: ClassVar[str] = (
        "puts one normal error around a weighted mean of the members. Given the parameters, rows are independent."
    )
    meaning: ClassVar[str] = ""
    before: ClassVar[dict[str, Any]] = {"member_moments": ()}  # of fits that were saved without it
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "weights": ("simplex", "free"), "correction": ("own", "joint"), "bias": ("linear", "additive", "none"),
        "kernel": ("normal", "student_t"), "transform": ("identity", "sqrt", "log"),
    }  # fmt: skip

    def __post_init__(self) -> None:
        if self.correction is None:
            object.__setattr__(self, "correction", "joint" if self.weights == "free" else "own")
        check_options(self)
        check_moments(self)
        joint_pool.refuse_options(self)

    # --------------------------------------------------------------------------------------------------------- the model
    def build(self, data: Data, likelihood: str = "fused") -> pm.Model:
        """Return the PyMC model of the rows that have an observation and a member; see also :meth:`build_correction`.

        ``likelihood="rows"`` is the plain model with observed ``y``; ``"fused"`` is the same density in one pass.
        """
        import pymc as pm
        import pytensor.tensor as pt

        if likelihood not in ("fused", "rows"):
            raise ValueError(f"likelihood is 'fused' or 'rows'; got {likelihood!r}.")
        if self.correction == "joint":
            return joint_pool.build(self, self.prepare(data), likelihood)
        from bayesens.likelihoods.corrected.pool import PooledRows

        table = self.prepare(data)  # every member corrected, and every row left out of its own correction
        model, members, names = table.model, list(table.members), list(table.widths.names)
        pool = PooledRows.of(table)
        y, f, available, x, c = table.rows.y, table.corrected, pool.rows.available, pool.rows.x, model.center
        with pm.Model(coords={"member": members} | ({"scale_covariate": names} if names else {})) as pymc_model:
            weight, log_weight = weight_variables(model, table.members, None)  # (member)
            sigma = model.sigma_prior.create("sigma", scale=model.sigma_scale)
            stretch = model.stretch_prior.create("stretch") if model.bias == "linear" else pt.ones(())
            width = model.scale_slope_prior.create("scale_slope", dims="scale_covariate") if names else pt.zeros(0)
            nu = model.tail_variable()
            if likelihood == "rows":
                share = weight * available / (weight * available).sum(axis=1, keepdims=True)  # (row, member)
                mean = c + stretch * (share * np.where(available, f - c, 0.0)).sum(axis=1)
                sd = sigma * pt.exp(pt.dot(x, width)) * np.sqrt(1.0 + pool.open)
                if nu is not None:
                    pm.StudentT("y", nu=nu, mu=mean, sigma=sd, observed=y)
                elif pool.rows.censored.any():
                    pm.Censored("y", pm.Normal.dist(mean, sd), lower=0.0, upper=None, observed=y)
                else:
                    pm.Normal("y", mean, sd, observed=y)
            else:
                from bayesens.likelihoods.ops import pooled_loglik

                scale = pt.stack([pt.log(sigma), stretch] + ([] if nu is None else [nu]))
                pm.Potential("loglik", pooled_loglik(log_weight, width, scale, rows=pool))
        return pymc_model

    def resolve(self, data: Data) -> LinearPool:
        """Return the model with levels, widths, ``center``, ``unit`` and ``sigma_scale`` filled in from the training rows."""
        if isinstance(data, CorrectedTable):
            return data.model if data.model.correction == self.correction else self
        given = self.group, self.site, self.scale, self.center, self.unit, self.sigma_scale, self.member_moments
        if None not in given:
            return self
        rows, own = self.rows(data), joint_pool.OF_CORRECTIONS
        if self.correction == "own":
            own = self.levels_of(data, rows) | {"scale": self.widths_of(data.members)}
        return filled(
            replace(self, **own),
            center=lambda: float(np.mean(rows.y)),
            unit=lambda: float(np.std(rows.y)),
            sigma_scale=lambda: best_residual(rows, data.members, self.bias),
            member_moments=lambda: JointMembers.of(rows).to_tuples() if self.weights == "free" else (),
        )
