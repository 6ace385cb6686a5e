"""Bayesian model averaging: correct each member by its own mixed model, then mix normal kernels around them.

Raftery et al. (2005) take two steps, each at its optimum; here both are posteriors. First every member k, by itself, on the rows
that have it, at site s in group g, with covariates x about their means,

    y_i     = c - bias_k + slope_k (f_ik - c) + covariate_slope_k' x_i + offset_group[g, k] + offset_site[s, k] + e_ik
    e_ik    ~ Normal(0, residual_sd_k^2)          residual_sd_k^2 ~ InverseGamma(1/2, s0^2 / 2)
    offset_site[s, k] ~ Normal(0, offset_site_sd_k^2)     offset_site_sd_k / residual_sd_k ~ HalfStudentT(3, 1), groups alike

with priors in standard units, level ~ Normal(0, 3), slope sd(f_k) / sd(y) ~ Normal(.7, .5): an offset or another unit of a member
costs nothing. Then, with m_ik what the other rows make of member k at row i and q_ik the share of variance that this leaves open,

    p(y_i | f_i)  = sum_{k in A_i} w_k / (sum_{j in A_i} w_j)  Normal(y_i; m_ik, sigma_ik^2 (1 + q_ik))
    log sigma_ik  = log sigma_k + scale_slope' x_i      x: logarithms of predicted mean and spread of the members, standardised

    w          ~ Dirichlet(1)                     over the members A_i that a row has
    sigma_k    ~ LogNormal(log sigma_mean, .3)    sigma_mean ~ s0 LogNormal(0, .5)     s0: residual sd of the best member
    scale_slope ~ Normal(0, .3)

A member that brings a standard deviation s_ik of its own has h_ik + q_ik in place of 1 + q_ik, h_ik = 1 - a_k + a_k s_ik^2 / m_k,
with m_k the mean square and a_k the share of the variance that follows it, learnt from the member's own errors beside its
correction (:mod:`bayesens.likelihoods.spread.own_sds`).

A site that the fit has not seen has a new effect of each member. All kernels are wider there by what these add to the error of
the members' weighted mean: by all of the effects' variance where members have the same effects, and by little where independent
ones average out (:mod:`bayesens.likelihoods.corrected.predictive`).

The two steps are a cut: what the mixture finds does not reach back into the corrections, and ``bias`` is the member's own bias.
Fitted at once (:mod:`bayesens.models.joint_mixture`) the same formula is a mixture of regressions, in which a kernel that is not
needed may stand anywhere.

With ``kernel="student_t"`` these kernels are Student's t with nu degrees of freedom, of which sigma_ik is the scale; their
variance sigma_ik^2 nu / (nu - 2) is finite, because nu - 2 ~ Gamma(2, .1).

With ``weights="group"`` row i has the weights w_g of its group g, drawn towards those of a typical group,

    w            = softmax(mu)                  mu      ~ ZeroSumNormal(1)
    w_g          = softmax(mu + delta_g)        delta_g ~ ZeroSumNormal(weight_spread)   weight_spread ~ HalfNormal(.5)

A ZeroSumNormal of the logits prefers no member and no order of them. A group that the fit has not seen has new draws of delta.

With ``weights="covariates"`` the weights of row i follow its covariates z, standardised, such as an elevation or the season,

    w_ik ~ w_k exp(z_i' weight_slope_k)    weight_slope ~ ZeroSumNormal(weight_spread)     over members, by covariate
with one weight_spread ~ HalfNormal(.5) a covariate: at zero, all rows have the weights w of before. With ``weights="space"`` they
follow a smooth field of one weight_spread and weight_length (:mod:`bayesens.likelihoods.corrected.row_weights.fields`).
Weights are parameters of this mixture, estimated by its likelihood; they are no probabilities that a member is true.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bayesens.likelihoods.corrected.own_correction import CorrectedTable
from bayesens.likelihoods.options import check_options
from bayesens.likelihoods.priors import Prior
from bayesens.models import joint_mixture, presets
from bayesens.models.corrected import RATIO, Data
from bayesens.models.kernel_mixture import SPREAD, KernelMixture
from bayesens.models.weights import groups_of, observe_fused, of_rows, shares, slope_names, slopes_of, weight_variables

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["BMA"]


@dataclass(frozen=True)
class BMA(presets.Presets, KernelMixture):
    """Bayesian model averaging with normal kernels around members that are corrected first.

    Parameters
    ----------
    correction : {"own", "joint"}
        Each member corrected by its own mixed model and then mixed, or all at once (:mod:`bayesens.models.joint_mixture`).
    bias : {"linear", "additive", "none"}
        Correction of each member: intercept and slope, intercept only, or none.
    bias_covariates : tuple of str
        Columns that each correction regresses on beside its member, such as an elevation; "own" only.
    scale : tuple of str, optional
        What widths follow: "mean", "spread", "season", or columns of the table; () is one width for all rows, which None
        takes in a joint fit, and mean and spread otherwise.
    own_sd : tuple of (member, column), optional
        Members whose kernels follow a standard deviation of their own, and the column that has it
        (:mod:`bayesens.likelihoods.spread.own_sds`); "own" only. None: those of the table (`Ensemble.from_frame`, ``spread``);
        ``()`` for none.
    sigma : {"member", "shared"}, optional
        Kernel standard deviations: one a member, pooled by a hierarchical prior of their logarithms, or one for all. None
        takes the former for normal kernels and the latter for t kernels, whose tails stand for a wide kernel beside narrow ones.
    kernel : {"normal", "student_t"}
        Normal, or Student's t for errors with heavy tails, whose degrees of freedom ``nu`` are estimated; "own" only. The
        posterior's ``sigma`` is then the scale of the t.
    sigma_spread : float or Prior
        Standard deviation of the logarithms of the members' sigmas about their mean. A number fixes it, because a few members
        hardly tell it; a Prior, such as ``Prior("HalfNormal", sigma=0.25)``, has it learned.
    weights : {"global", "equal", "group", "covariates", "space"}
        Estimated, all equal, estimated by group with partial pooling, or by row as its covariates or place have them: ``weight``
        is then that of a typical group, at the covariates' means, or where the field is zero. The last two are for "own" only.
    weight_covariates : tuple of str
        What weights follow: columns, lon or lat, "season", "mean" or "spread"; of a field two coordinates, lon and lat unless
        named. Beyond the range of the training rows they stay as at its end, and a row that lacks one has a mean one.
    group, site : bool, optional
        Random effects of group and site; None takes those that the ensemble has with at least two labels.
    effects : {"source", "common"}, optional
        Whether every member has effects of its own or all share them; None takes the former, and the latter for a joint fit.
    exchangeable : tuple of tuples of str
        Sets of members that cannot be told apart; each shares weight, correction and sigma.
    transform : {"identity", "sqrt", "log"}
        Of observation and members. Under the square root an observation of zero stands for all values below.
    center, unit, sigma_scale : float, optional
        Origin of the bias, unit of the priors, and prior median of sigma, on the transformed scale; None takes mean and
        standard deviation of the observations, and the residual standard deviation of the best member.
    sigma_floor : float, optional
        What sigma is at least; None takes the rounding of the observations where some tie with members, and zero elsewhere.
    level_prior, gain_prior, covariate_prior : Prior
        Normal priors of a correction's level, slope and covariates' coefficients, all in standard units.
    site_ratio_prior, group_ratio_prior : Prior
        Of the effects' standard deviations over that of the residual.
    scale_slope_prior : Prior
        Of the widths' coefficients, a standard deviation of their covariates.
    nu_prior : Prior
        Of the degrees of freedom of t kernels, less two.
    weight_prior, sigma_prior : Prior
        That of sigma in units of ``sigma_scale``. A Dirichlet prior with one number has that concentration for each of up to
        eight members; more members share what eight have.
    bias_prior, slope_prior, group_sd_prior, site_sd_prior : Prior
        Of a joint fit, in its place; those of bias and of standard deviations are in units of ``unit``.
    weight_logit_prior, weight_spread_prior, weight_length_prior : Prior
        Of ``weights="group"``: of the logits of a typical group's weights, and of the standard deviation of groups' logits
        about them; with "covariates", of the slopes of logits, and of a field. A spread of 1 is an odds ratio of 2.7.
        A field's length is in halves of the wider side of the rows' area.

    References
    ----------
    Raftery, Gneiting, Balabdaoui and Polakowski (2005), Monthly Weather Review 133, 1155-1174.
    Fraley, Raftery and Gneiting (2010), Monthly Weather Review 138, 190-202. Plummer (2015), Statistics and Computing 25, 37-43.

    Examples
    --------
    >>> BMA(weights="covariates", weight_covariates=["elevation", "season"]).weight_covariates
    ('elevation', 'season')
    """

    correction: str = "own"
    bias: str = "linear"
    bias_covariates: tuple[str, ...] = ()
    scale: tuple[str, ...] | None = None
    own_sd: tuple[tuple[str, str], ...] | None = None
    sigma: str | None = None  # filled in as soon as the kernel is known
    kernel: str = "normal"
    sigma_spread: float | Prior = SPREAD
    weights: str = "global"
    weight_covariates: tuple[str, ...] = ()
    group: bool | None = None
    site: bool | None = None
    effects: str | None = None
    exchangeable: tuple[tuple[str, ...], ...] = ()
    transform: str = "identity"
    center: float | None = None
    unit: float | None = None
    sigma_scale: float | None = None
    sigma_floor: float | None = None
    level_prior: Prior = Prior("Normal", mu=0, sigma=3)  # an offset of a member costs nothing
    gain_prior: Prior = Prior("Normal", mu=0.7, sigma=0.5)  # what a correlation of .7 gives; another unit costs nothing
    covariate_prior: Prior = Prior("Normal", mu=0, sigma=0.5)  # half a sd of the observations for one of the covariate
    site_ratio_prior: Prior = RATIO  # effects about as large as the residual, much larger ones allowed
    group_ratio_prior: Prior = RATIO
    scale_slope_prior: Prior = Prior("Normal", mu=0, sigma=0.3)  # widths that double between rows two sd apart
    nu_prior: Prior = Prior("Gamma", alpha=2, beta=0.1)  # 10 to 40 for most: light tails unless the rows say so
    weight_prior: Prior = Prior("Dirichlet", a=1)  # all weights that sum to one are alike
    sigma_prior: Prior = Prior("LogNormal", mu=0, sigma=0.5)  # half to twice the best member's residual
    bias_prior: Prior = Prior("Normal", mu=0, sigma=0.3)
    slope_prior: Prior = Prior("Normal", mu=1, sigma=0.25)
    group_sd_prior: Prior = Prior("HalfNormal", sigma=0.5)
    site_sd_prior: Prior = Prior("HalfNormal", sigma=0.5)
    weight_logit_prior: Prior = Prior("ZeroSumNormal", sigma=1)
    weight_spread_prior: Prior = Prior("HalfNormal", sigma=0.5)
    weight_length_prior: Prior = Prior("InverseGamma", alpha=8, beta=6)  # 90 % in .45 to 1.5: regions, no single sites

    at_once: ClassVar[Any] = joint_mixture
    sets: ClassVar[presets.Sets] = presets.BMA
    spelled: ClassVar[tuple[str, str]] = ("BMA", "Bayesian model averaging")
    assumes: ClassVar[str] = (
        "draws each observation from one member's kernel: a mixture around bias-corrected members. Given the "
        "parameters, rows are independent. Members may be dependent; nothing in the likelihood says otherwise."
    )
    meaning: ClassVar[str] = (
        "Bayesian model averaging: a mixture of densities, one around each bias-corrected member, with weights that sum to one"
    )
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        "correction": ("own", "joint"), "bias": ("linear", "additive", "none"), "sigma": ("member", "shared"),
        "kernel": ("normal", "student_t"), "weights": ("global", "equal", "group", "covariates", "space"),
        "effects": ("source", "common", None), "transform": ("identity", "sqrt", "log"),
    }  # fmt: skip

    def __post_init__(self) -> None:
        if self.sigma is None:
            object.__setattr__(self, "sigma", "member" if self.kernel == "normal" else "shared")
        check_options(self)
        self.check_together()

    def build(self, data: Data, likelihood: str = "fused") -> pm.Model:
        """Return the PyMC model of the mixture; that of a member's correction is :meth:`build_correction`.

        Parameters
        ----------
        data : Ensemble or CorrectedTable
            Rows without an observation or without any member are left out.
        likelihood : {"fused", "rows"}
            ``"rows"`` is the plain mixture with observed ``y``; ``"fused"`` is the same density in one pass.

        Returns
        -------
        pymc.Model
        """
        import pymc as pm
        import pytensor.tensor as pt

        if likelihood not in ("fused", "rows"):
            raise ValueError(f"likelihood is 'fused' or 'rows'; got {likelihood!r}.")
        if self.correction == "joint":
            return joint_mixture.build(self, self.prepare(data), likelihood)
        table = self.prepare(data)  # every member corrected, and every row left out of its own correction
        model, rows, names = table.model, table.mixture, table.widths.names
        groups = groups_of(model, table.ensemble, table.rows)
        with pm.Model(coords=model.coords(table.ensemble, groups, slope_names(model, table))) as pymc_model:
            weight, log_weight = weight_variables(model, table.members, groups)  # (member) or (group, member)
            tilt = slopes_of(model, table)  # (weight covariate, member), where weights follow covariates
            sigma = model.sigma_variables(table.members)
            slope: Any = model.scale_slope_prior.create("scale_slope", dims="scale_covariate") if names else pt.zeros(0)
            nu = model.tail_variable()
            if likelihood == "fused":
                observe_fused(table, log_weight, sigma, slope, nu, groups, tilt)
                return pymc_model
            seen, below, y = ~rows.censored, rows.censored, table.rows.y
            share = shares(of_rows(weight, groups, rows.z, tilt), rows.available)  # (row, member)
            mean = np.where(rows.available, table.corrected, y[:, None])
            width = pt.exp(pt.dot(rows.x, slope)) if names else pt.ones(len(y))
            sd = sigma * width[:, None] * np.sqrt(1.0 + rows.excess)
            if nu is None:
                pm.NormalMixture("y", w=share[seen], mu=mean[seen], sigma=sd[seen], observed=y[seen])
            else:
                kernels = pm.StudentT.dist(nu=nu, mu=mean[seen], sigma=sd[seen])
                pm.Mixture("y", w=share[seen], comp_dists=kernels, observed=y[seen])
            if below.any():  # an observation of zero under the square root stands for all values below
                log_below = pm.logcdf(pm.Normal.dist(mean[below], sd[below]), y[below][:, None])
                pm.Potential("y_below", pt.logsumexp(pt.log(share[below]) + log_below, axis=1).sum())
        return pymc_model

    def resolve(self, data: Data) -> BMA:
        """Return the model with all that the training rows set: effects, widths, ``center``, ``unit``, ``sigma_scale``."""
        if isinstance(data, CorrectedTable):
            return data.model if data.model.correction == self.correction else self
        asked = (self.group, self.site, self.effects, self.scale, self.own_sd, self.center, self.unit, self.sigma_scale)
        if None not in (*asked, self.sigma_floor):
            return self
        return replace(self, **self.unset(data))
