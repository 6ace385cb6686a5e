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

A site that the fit has not seen has a new effect of each member. All kernels are wider there by the variance that these add to
the error of the members' weighted mean, less half of that by which they set the members apart: by all of the effects' variance
where members have the same effects, and by little where independent ones average out
(:mod:`bayesens.likelihoods.corrected.predictive`).

The two steps are a cut: what the mixture finds does not reach back into the corrections. So each keeps its meaning: ``bias`` is
the member's own bias. Fitted at once (``correction="joint"``, :mod:`bayesens.models.joint_mixture`) the same formula is a mixture
of regressions, in which a kernel that is not needed may stand anywhere.

With ``kernel="student_t"`` these kernels are Student's t with nu degrees of freedom, of which sigma_ik is the scale,

    nu - 2 ~ Gamma(2, .1)

so that their variance, sigma_ik^2 nu / (nu - 2), is finite.

With ``weights="group"`` row i has the weights w_g of its group g, drawn towards those of a typical group,

    w            = softmax(mu)                  mu      ~ ZeroSumNormal(1)
    w_g          = softmax(mu + delta_g)        delta_g ~ ZeroSumNormal(weight_spread)   weight_spread ~ HalfNormal(.5)

A ZeroSumNormal of the logits, which sums to zero over members, prefers no member and no order of them: its softmax is that
of as many independent normals. A group that the fit has not seen has new draws of delta, one a posterior draw.

Weights are parameters of this mixture, estimated by its likelihood; they are no probabilities that a member is true.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from bayesens.ensemble.checks import degenerate
from bayesens.ensemble.ensemble import Ensemble, affine_copies
from bayesens.ensemble.rows import Rows, codes, flat, level_rows
from bayesens.likelihoods.corrected.em import Penalty, corrected_em_starts
from bayesens.likelihoods.corrected.own_correction import CorrectedTable, point_correction
from bayesens.likelihoods.em import Optimum, least_squares
from bayesens.likelihoods.options import check_options
from bayesens.likelihoods.priors import Prior
from bayesens.likelihoods.row_checks import check_ties, tied
from bayesens.messages import warn
from bayesens.models import joint_mixture
from bayesens.models.corrected import RATIO, CorrectedMembers, Data, spare

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["BMA"]

SPREAD = 0.3  # of log sigmas about their mean

_PRESETS = {
    "weak": {},
    "vague": {
        "level_prior": Prior("Normal", mu=0, sigma=10), "gain_prior": Prior("Normal", mu=0.7, sigma=2),
        "site_ratio_prior": Prior("HalfStudentT", nu=3, sigma=3), "group_ratio_prior": Prior("HalfStudentT", nu=3, sigma=3),
        "scale_slope_prior": Prior("Normal", mu=0, sigma=1),
        "bias_prior": Prior("Normal", mu=0, sigma=1), "slope_prior": Prior("Normal", mu=1, sigma=1),
        "sigma_prior": Prior("LogNormal", mu=0, sigma=1), "sigma_spread": 1.0,
        "group_sd_prior": Prior("HalfNormal", sigma=1), "site_sd_prior": Prior("HalfNormal", sigma=1),
        "weight_logit_prior": Prior("ZeroSumNormal", sigma=1.5), "weight_spread_prior": Prior("HalfNormal", sigma=1.5),
    },
    "sceptical": {
        "weight_prior": Prior("Dirichlet", a=5), "gain_prior": Prior("Normal", mu=0.7, sigma=0.2),
        "site_ratio_prior": Prior("HalfNormal", sigma=0.3), "group_ratio_prior": Prior("HalfNormal", sigma=0.3),
        "scale_slope_prior": Prior("Normal", mu=0, sigma=0.1),
        "bias_prior": Prior("Normal", mu=0, sigma=0.1),
        "slope_prior": Prior("Normal", mu=1, sigma=0.1), "sigma_spread": 0.1,
        "group_sd_prior": Prior("HalfNormal", sigma=0.2), "site_sd_prior": Prior("HalfNormal", sigma=0.2),
        "weight_logit_prior": Prior("ZeroSumNormal", sigma=0.5), "weight_spread_prior": Prior("HalfNormal", sigma=0.2),
    },
}  # fmt: skip


@dataclass(frozen=True)
class BMA(CorrectedMembers):
    """Bayesian model averaging with normal kernels around members that are corrected first.

    Parameters
    ----------
    correction : {"own", "joint"}
        Each member corrected by its own mixed model and then mixed, or everything at once: a mixture of regressions, whose
        biases and slopes are no properties of members and whose posterior may have many modes.
    bias : {"linear", "additive", "none"}
        Correction of each member: intercept and slope, intercept only, or none.
    bias_covariates : tuple of str
        Columns that each correction regresses on beside its member, such as an elevation; "own" only.
    scale : tuple of str, optional
        What the widths of all kernels follow: "mean", "spread", "season", or columns of the table; () is one width for all
        rows. None takes mean and spread, and one width for a joint fit.
    sigma : {"member", "shared"}, optional
        Kernel standard deviations: one a member, pooled by a hierarchical prior of their logarithms, or one for all. None
        takes the former for normal kernels and the latter for t kernels, whose tails do what a wide kernel beside narrow ones
        does otherwise.
    kernel : {"normal", "student_t"}
        Normal, or Student's t for errors with heavy tails, whose degrees of freedom ``nu`` are estimated; "own" only. The
        posterior's ``sigma`` is then the scale of the t.
    sigma_spread : float or Prior
        Standard deviation of the logarithms of the members' sigmas about their mean. A number fixes it: a few members
        hardly tell it, and the posterior stays close to normal. A Prior, such as ``Prior("HalfNormal", sigma=0.25)``,
        has it learned.
    weights : {"global", "equal", "group"}
        Estimated, fixed at one over the number of members, or estimated by group with partial pooling: ``weight`` is then
        that of a typical group, ``weight_group`` that of each, and ``weight_new`` a draw for groups that the fit has not
        seen. Independent of ``group``, which shifts the means.
    group, site : bool, optional
        Random effects of group and site; None takes those that the ensemble has with at least two labels.
    effects : {"source", "common"}, optional
        Whether every member has effects of its own or all share them; None takes the former, and the latter for a joint fit.
    exchangeable : tuple of tuples of str
        Sets of members that cannot be told apart; each shares weight, correction and sigma.
    transform : {"identity", "sqrt", "log"}
        Applied to the observation and to all members; predictions come back in the observation's units. Under the square
        root an observation of zero stands for all values below.
    center, unit, sigma_scale : float, optional
        Origin of the bias, unit of the priors, and prior median of sigma, on the transformed scale; None takes the mean
        and the standard deviation of the observations and the residual standard deviation of the best member.
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
    weight_logit_prior, weight_spread_prior : Prior
        Of ``weights="group"``, in place of ``weight_prior``: of the logits of a typical group's weights, and of the
        standard deviation of groups' logits about them. A spread of 1 is an odds ratio of 2.7.

    References
    ----------
    Raftery, Gneiting, Balabdaoui and Polakowski (2005), Monthly Weather Review 133, 1155-1174.
    Fraley, Raftery and Gneiting (2010), Monthly Weather Review 138, 190-202.
    Plummer (2015), Statistics and Computing 25, 37-43: posteriors with a cut.
    Yao, Pirs, Vehtari and Gelman (2022), Bayesian Analysis 17, 1043-1071, pool weights by group in stacking.

    Examples
    --------
    >>> BMA(sigma="shared", bias="additive").sigma
    'shared'
    """

    correction: str = "own"
    bias: str = "linear"
    bias_covariates: tuple[str, ...] = ()
    scale: tuple[str, ...] | None = None
    sigma: str | None = None  # filled in as soon as the kernel is known
    kernel: str = "normal"
    sigma_spread: float | Prior = SPREAD
    weights: str = "global"
    group: bool | None = None
    site: bool | None = None
    effects: str | None = None
    exchangeable: tuple[tuple[str, ...], ...] = ()
    transform: str = "identity"
    center: float | None = None
    unit: float | None = None
    sigma_scale: float | None = None
    sigma_floor: float | None = None
    level_prior: Prior = field(default=Prior("Normal", mu=0, sigma=3))
    gain_prior: Prior = field(default=Prior("Normal", mu=0.7, sigma=0.5))
    covariate_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.5))
    site_ratio_prior: Prior = field(default=RATIO)
    group_ratio_prior: Prior = field(default=RATIO)
    scale_slope_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.3))
    nu_prior: Prior = field(default=Prior("Gamma", alpha=2, beta=0.1))
    weight_prior: Prior = field(default=Prior("Dirichlet", a=1))
    sigma_prior: Prior = field(default=Prior("LogNormal", mu=0, sigma=0.5))
    bias_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.3))
    slope_prior: Prior = field(default=Prior("Normal", mu=1, sigma=0.25))
    group_sd_prior: Prior = field(default=Prior("HalfNormal", sigma=0.5))
    site_sd_prior: Prior = field(default=Prior("HalfNormal", sigma=0.5))
    weight_logit_prior: Prior = field(default=Prior("ZeroSumNormal", sigma=1))
    weight_spread_prior: Prior = field(default=Prior("HalfNormal", sigma=0.5))

    at_once: ClassVar[Any] = joint_mixture
    spelled: ClassVar[tuple[str, str]] = ("BMA", "Bayesian model averaging")
    assumes: ClassVar[str] = (
        "draws each observation from one member's kernel: a mixture around bias-corrected members. Given the "
        "parameters, rows are independent. Members may be dependent; nothing in the likelihood says otherwise."
    )
    meaning: ClassVar[str] = (
        "Bayesian model averaging: a mixture of densities, one around each bias-corrected member, with weights "
        "that sum to one"
    )
    baseline: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        "correction": ("own", "joint"), "bias": ("linear", "additive", "none"), "sigma": ("member", "shared"),
        "kernel": ("normal", "student_t"),
        "weights": ("global", "equal", "group"), "effects": ("source", "common", None),
        "transform": ("identity", "sqrt", "log"),
    }  # fmt: skip

    def __post_init__(self) -> None:
        if self.sigma is None:
            object.__setattr__(self, "sigma", "member" if self.kernel == "normal" else "shared")
        check_options(self)
        if self.correction == "joint" and self.scale:
            raise ValueError(f"{type(self).__name__}(correction='joint') has one width for all rows; got scale={self.scale!r}. "
                             "Leave scale out, or use correction='own'.")  # fmt: skip
        if self.correction == "joint" and self.kernel != "normal":
            raise ValueError(f"{type(self).__name__}(correction='joint') has normal kernels; got kernel={self.kernel!r}. "
                             "Leave kernel out, or use correction='own'.")  # fmt: skip
        if self.correction == "joint" and self.bias_covariates:
            raise ValueError(f"{type(self).__name__}(correction='joint') has no covariates of the bias; got "
                             f"bias_covariates={self.bias_covariates!r}. Leave them out, or use correction='own'.")  # fmt: skip

    @classmethod
    def preset(cls, name: str, **options: Any) -> BMA:
        """Return the model with a named set of priors: ``"weak"`` (the default), ``"vague"`` or ``"sceptical"``.

        Examples
        --------
        >>> BMA.preset("sceptical").weight_prior
        Prior("Dirichlet", a=5.0)
        """
        if name not in _PRESETS:
            raise ValueError(f"BMA has the presets {', '.join(_PRESETS)}; got {name!r}.")
        return cls(**{**_PRESETS[name], **options})

    # ------------------------------------------------------------------------------------------------------- the mixture
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
        table = self.prepare(data)
        model: BMA = table.model
        groups = model.weight_groups(table.ensemble, table.rows)
        with pm.Model(coords=model.coords(table.ensemble, groups, table.widths.names)) as pymc_model:
            weight, log_weight = model.weight_variables(table.members, groups)
            sigma = model.sigma_variables(table.members)
            width: Any = pt.zeros(0)
            if table.widths.names:
                width = model.scale_slope_prior.create("scale_slope", dims="scale_covariate")
            nu = model.tail_variable()
            if likelihood == "rows":
                observe_rows(table, weight if groups is None else weight[groups[1]], sigma, width, nu)
            else:
                observe_fused(table, log_weight, sigma, width, nu, groups)
        return pymc_model

    def coords(
        self, ensemble: Ensemble, groups: tuple[np.ndarray, np.ndarray] | None, widths: tuple[str, ...]
    ) -> dict[str, Any]:
        """Labels of the variables' dimensions."""
        cluster = self.cluster(ensemble.members)
        coords: dict[str, Any] = {"member": list(ensemble.members)}
        if cluster.max() + 1 < len(cluster):
            coords["exchangeable"] = [ensemble.members[int(np.argmax(cluster == c))] for c in range(cluster.max() + 1)]
        if groups is not None:
            coords["group"] = groups[0]
        return coords | ({"scale_covariate": list(widths)} if widths else {})

    def by_member(self, members: tuple[str, ...], name: str, make: Any) -> Any:
        """One variable a member, or one a set of exchangeable members, expanded."""
        import pymc as pm

        cluster = self.cluster(members)
        if cluster.max() + 1 == len(cluster):
            return make(name, "member")
        return pm.Deterministic(name, make(f"{name}_exchangeable", "exchangeable")[cluster], dims="member")

    def sigma_variables(self, members: tuple[str, ...]) -> Any:
        """Kernel standard deviations, (member)."""
        import pymc as pm
        import pytensor.tensor as pt

        assert self.sigma_scale is not None
        sigma_mean = self.sigma_prior.create("sigma_mean", scale=self.sigma_scale)
        if self.sigma == "shared" or len(np.unique(self.cluster(members))) == 1:
            return pm.Deterministic("sigma", self._floored(sigma_mean) * np.ones(len(members)), dims="member")
        if not isinstance(self.sigma_spread, Prior):
            name, spread = "sigma_free" if self.sigma_floor else "sigma", float(self.sigma_spread)
            free = self.by_member(
                members, name, lambda n, d: pm.LogNormal(n, mu=pt.log(sigma_mean), sigma=spread, dims=d)
            )
            return pm.Deterministic("sigma", self._floored(free), dims="member") if self.sigma_floor else free
        # With a spread that is learned, sigma itself as a variable would have a density without bound at spread zero.
        spread = self.sigma_spread.create("sigma_spread")
        unit = self.by_member(members, "sigma_unit", lambda n, d: pm.Normal(n, 0.0, 1.0, dims=d))
        return pm.Deterministic("sigma", self._floored(sigma_mean * pt.exp(spread * unit)), dims="member")

    def _floored(self, sigma: Any) -> Any:
        """Add the variance of rounding."""
        return (sigma**2 + self.sigma_floor**2) ** 0.5 if self.sigma_floor else sigma

    def weight_variables(
        self, members: tuple[str, ...], groups: tuple[np.ndarray, np.ndarray] | None
    ) -> tuple[Any, Any]:
        """Weights and their logarithms, (member), or (group, member) where groups have their own."""
        import pymc as pm
        import pytensor.tensor as pt

        cluster = self.cluster(members)
        if groups is not None:
            return self._group_weight(cluster)
        size = np.bincount(cluster)
        if self.weights == "equal" or len(size) == 1:
            equal = pm.Deterministic("weight", pt.as_tensor(np.full(len(cluster), 1.0 / len(cluster))), dims="member")
            return equal, pt.log(equal)
        prior = self.weight_prior
        if prior.family == "Dirichlet" and isinstance(concentration := dict(prior.parameters)["a"], float):
            share = spare(len(size)) if self.correction == "own" else 1.0
            prior = Prior("Dirichlet", a=np.full(len(size), concentration * share))
        if len(size) == len(cluster):
            weight = prior.create("weight", dims="member")
        else:  # a set of exchangeable members shares the weight that the prior gives to the set as a whole
            total = prior.create("weight_exchangeable", dims="exchangeable")
            weight = pm.Deterministic("weight", (total / size)[cluster], dims="member")
        return weight, pt.log(weight)

    def _group_weight(self, cluster: np.ndarray) -> tuple[Any, Any]:
        """Weights of each group and their logarithms, (group, member); that of a typical group beside."""
        import pymc as pm
        import pytensor.tensor as pt
        from pymc.distributions.transforms import Chain, ZeroSumTransform
        from pymc.logprob.transforms import ScaleTransform
        from pytensor.tensor.special import log_softmax

        size = np.bincount(cluster)
        logit = self.weight_logit_prior.create("weight_logit", shape=len(size))
        spread = self.weight_spread_prior.create("weight_spread")
        # Sampled in units of the spread (not centred): where it is small, so are the departures.
        unit = Chain([ZeroSumTransform([-1]), ScaleTransform(lambda *inputs: 1.0 / inputs[2])])
        groups = len(pm.modelcontext(None).coords["group"])
        own = pm.ZeroSumNormal("weight_logit_group", sigma=spread, shape=(groups, len(size)), default_transform=unit)

        def shared_out(logits: Any) -> Any:
            """Log weights of members, which share those of their sets."""
            return (log_softmax(logits, axis=-1) - np.log(size))[..., cluster]

        if len(size) < len(cluster):
            pm.Deterministic("weight_exchangeable", pt.exp(log_softmax(logit, axis=-1)), dims="exchangeable")
        pm.Deterministic("weight", pt.exp(shared_out(logit)), dims="member")
        log_weight = shared_out(logit + own)
        return pm.Deterministic("weight_group", pt.exp(log_weight), dims=("group", "member")), log_weight

    # -------------------------------------------------------------------------------------------- what the data set
    def resolve(self, data: Data) -> BMA:
        """Return the model with levels, widths, ``center``, ``unit`` and ``sigma_scale`` filled in from the training rows."""
        if isinstance(data, CorrectedTable):
            return data.model if data.model.correction == self.correction else self
        if None not in (self.group, self.site, self.effects, self.scale, self.center, self.unit, self.sigma_scale,
                        self.sigma_floor):  # fmt: skip
            return self
        joint, rows = self.correction == "joint", self.rows(data)
        return replace(
            self, **self.levels_of(data, rows), scale=self.widths_of(data.members),
            effects=("common" if joint else "source") if self.effects is None else self.effects,
            center=float(np.mean(rows.y)) if self.center is None else self.center,
            unit=float(np.std(rows.y)) if self.unit is None else self.unit,
            sigma_scale=self._best_residual(rows, data.members) if self.sigma_scale is None else self.sigma_scale,
            sigma_floor=self._floor(rows, data.members) if self.sigma_floor is None else self.sigma_floor,
        )  # fmt: skip

    def _best_residual(self, rows: Rows, members: tuple[str, ...]) -> float:
        cluster = self.cluster(members)
        intercept, slope = least_squares(rows.y, rows.f, rows.available, bias=self.bias, cluster=cluster)
        squares = np.where(rows.available, (rows.y[:, None] - intercept - slope * rows.f) ** 2, 0.0)
        residual = np.sqrt(squares.sum(axis=0) / rows.available.sum(axis=0))
        best = float(np.min(residual))
        if best <= 1e-10 * float(np.std(rows.y)):
            raise ValueError(degenerate(members[int(np.argmin(residual))], len(rows.y), "bias correction"))
        return best

    def _floor(self, rows: Rows, members: tuple[str, ...]) -> float:
        """Standard deviation of rounding where observations tie with members."""
        use = ~self.censored(rows)
        y, f, available = rows.y[use], rows.f[use], rows.available[use]
        if len(y) < 2 or not tied(y, f, available):
            return 0.0
        with warnings.catch_warnings():  # what there is to say of ties is said once, by check
            warnings.simplefilter("ignore")
            return check_ties(y, f, available, members)

    def check(self, data: Data) -> None:
        """Refuse or warn of rows that the mixture cannot describe, and of members that are copies or have seen the rows."""
        ensemble = data.ensemble if isinstance(data, CorrectedTable) else data
        if isinstance(data, CorrectedTable):
            self.check_corrected(data)
        if self.weights == "equal":
            return
        rows = self.rows(ensemble)
        values = np.where(rows.available, rows.f, np.nan)
        used = ensemble if len(rows.index) == ensemble.n_obs else ensemble.select(rows=rows.index)
        for one, other in affine_copies(used, values):
            pair = values[:, [ensemble.members.index(one), ensemble.members.index(other)]]
            if self.bias == "linear" or _shifted(pair, exactly=self.bias == "none"):
                warn(f"Members {one!r} and {other!r} are exact copies of each other up to the bias correction in the "
                     f"{len(rows.y)} training rows: only the sum of their weights is identified. Leave one out.")  # fmt: skip

    def n_parameters(self, data: Data) -> int:
        """Number of parameters, effects and the groups' own departures from the typical weights aside."""
        if (
            self.correction == "own"
        ):  # each correction has its own rows, and the mixture's priors keep its parameters apart
            return self.n_own
        clusters = int(self.cluster(data.members).max()) + 1
        per_cluster = {"linear": 2, "additive": 1, "none": 0}[self.bias] + (self.weights != "equal")
        return clusters * (per_cluster + (self.sigma == "member")) + (self.sigma == "shared")

    def weight_groups(self, ensemble: Ensemble, rows: Rows) -> tuple[np.ndarray, np.ndarray] | None:
        """Labels of groups and each row's code where groups have weights of their own."""
        if self.weights != "group" or len(np.unique(self.cluster(ensemble.members))) == 1:
            return None
        _check_groups(ensemble, rows.index)
        return level_rows(ensemble, "group", rows.index)

    def cluster(self, members: tuple[str, ...]) -> np.ndarray:
        """Index of each member's exchangeable set, numbered by first appearance."""
        named = [name for names in self.exchangeable for name in names]
        if unknown := [name for name in named if name not in members]:
            raise ValueError(f"exchangeable names {unknown}, which are not members; the members are {list(members)}.")
        if len(set(named)) < len(named):
            raise ValueError("A member stands in two exchangeable sets; name each once.")
        key = {name: names[0] for names in self.exchangeable for name in names}
        order: dict[str, int] = {}
        return np.array([order.setdefault(key.get(m, m), len(order)) for m in members])

    # ------------------------------------------------------------------------------------------------------------ by EM
    def em(
        self, data: Data, *, starts: int = 12, seed: int = 0, tolerance: float = 1e-10
    ) -> tuple[xr.Dataset, list[Optimum]]:
        """The two steps at their optimum: corrections at their posterior means, then EM for weights, sigmas and widths.

        The mixture's optimum is that of the posterior in the coordinates in which it is sampled, so that weights are never
        zero and no kernel collapses; it knows the families of the default
        priors, and warns where another prior is left out. A joint fit
        has Raftery's own: least squares, then maximum likelihood.

        Parameters
        ----------
        data : Ensemble or CorrectedTable
        starts : int
            Starts beside the standard one, in search of other optima.
        seed : int
        tolerance : float
            Relative change of the log likelihood at which EM ends.

        Returns
        -------
        correction : Dataset
            Parameters beside weights and sigmas, as the posterior has them.
        optima : list of Optimum
            That of the standard start first.

        Raises
        ------
        ValueError
            If the model has weights by group, or effects in a joint fit, which this fit does not know.
        """
        if self.weights == "group":
            raise ValueError("method='em' has no weights by group; use method='auto' or 'nuts', or weights='global'.")
        if self.correction == "joint":
            return joint_mixture.em(self, self.prepare(data), starts=starts, seed=seed, tolerance=tolerance)
        table = self.prepare(data)
        table.model.tell_of_other_priors(table.model._priors_of_the_optimum())
        cluster = self.cluster(table.members)
        optima = corrected_em_starts(table.mixture, cluster=cluster, shared=self.sigma == "shared", starts=starts, seed=seed,
                                     tolerance=tolerance, fixed_weight=self.weights == "equal",
                                     floor=table.model.sigma_floor, penalty=table.model.penalty(table.members),
                                     student=self.kernel == "student_t")  # fmt: skip
        found = xr.Dataset({name: (dims[2:], values[0, 0]) for name, (dims, values) in
                            point_correction(table, self.recipe(table.members)).items()})  # fmt: skip
        return found.assign_coords(self.coordinates(table)), optima

    def penalty(self, members: tuple[str, ...]) -> Penalty:
        """Log prior densities of the mixture, for its optimum."""
        assert self.sigma_scale is not None
        size = len(np.unique(self.cluster(members)))
        sigma, width, tail = (self.known_prior(name) for name in ("sigma_prior", "scale_slope_prior", "nu_prior"))
        concentration = np.full(size, spare(size)) * np.asarray(self.known_prior("weight_prior")["a"], dtype=float)
        spread = self.sigma_spread if isinstance(self.sigma_spread, float | int) else SPREAD
        return Penalty(concentration, float(np.log(self.sigma_scale)) + _number(sigma.get("mu", 0.0)),
                       _number(sigma.get("sigma", 1.0)), float(spread), _number(width.get("sigma", 1.0)),
                       (_number(tail["alpha"]), _number(tail["beta"])), _number(width.get("mu", 0.0)))  # fmt: skip

    def _priors_of_the_optimum(self) -> list[str]:
        """Options that are priors of what em finds."""
        own = ["sigma_spread"] if self.sigma == "member" else []
        own += ["weight_prior"] if self.weights == "global" else []
        own += ["nu_prior"] if self.kernel == "student_t" else []
        return [*own, "sigma_prior", *(["scale_slope_prior"] if self.scale else [])]

    # ------------------------------------------------------------------------------------------------------- prediction
    @property
    def no_optimum(self) -> str:
        """Why no approximation around an optimum stands for the posterior; an empty text where one may."""
        # A wide kernel beside narrow ones and heavier tails of all explain the same rows: a ridge that leads away from the
        # optimum, of which importance weights see little (the tenth percentile of log(nu - 2) was .25 too high at k = .5).
        if self.kernel == "student_t" and self.sigma == "member" and self.weights != "equal":
            return "t kernels with a sigma for each member have no single optimum"
        return ""

    def complete(self, posterior: xr.Dataset, data: Data, rng: np.random.Generator) -> xr.Dataset:
        """Add draws of the corrections, which are independent of the mixture's, and of a new group's weights.

        Parameters
        ----------
        posterior : Dataset
            Draws of the mixture.
        data : Ensemble or CorrectedTable
            The training rows.
        rng : numpy.random.Generator

        Returns
        -------
        Dataset
        """
        if "weight_group" in posterior:
            posterior = posterior.assign(
                weight_new=(("chain", "draw", "member"), self._new_weight(posterior, data, rng))
            )
        return posterior if self.correction == "joint" else self.with_corrections(posterior, data, rng)

    def _new_weight(self, posterior: xr.Dataset, data: Data, rng: np.random.Generator) -> np.ndarray:
        """Weights of a group that the fit has not seen, once a posterior draw, so that predictions are the same each time."""
        cluster = self.cluster(data.members)
        chain, draw, sets = posterior.sizes["chain"], posterior.sizes["draw"], int(cluster.max()) + 1
        # Independent normals stand for zero-sum ones: a shift common to all members changes no weight.
        apart = flat(posterior["weight_spread"])[:, None] * rng.standard_normal((chain * draw, sets))
        odds = flat(posterior["weight"]) * np.exp(apart - apart.max(axis=1, keepdims=True))[:, cluster]
        return np.asarray((odds / odds.sum(axis=1, keepdims=True)).reshape(chain, draw, -1))

    def weight_classes(self, posterior: xr.Dataset, ensemble: Ensemble) -> tuple[np.ndarray, np.ndarray]:
        """Weights (draw, class, member), and each row's class: groups, and last what the fit has not seen."""
        k, n = len(ensemble.members), ensemble.n_obs
        draws = posterior.sizes["chain"] * posterior.sizes["draw"]
        weight = flat(posterior["weight"]) if "weight" in posterior else np.full((draws, k), 1.0 / k)
        if "weight_group" not in posterior:
            return weight[:, None], np.zeros(n, dtype=int)
        own = np.concatenate([flat(posterior["weight_group"]), flat(posterior["weight_new"])[:, None]], axis=1)
        return own, codes(ensemble.labels("group"), posterior["group"].values, n)


def observe_rows(table: CorrectedTable, weight: Any, sigma: Any, width: Any, nu: Any) -> None:
    """The likelihood as a statistician would write it."""
    import pymc as pm
    import pytensor.tensor as pt

    data, available = table.mixture, table.rows.available
    present = pt.switch(available, weight, 0.0)
    # A weight of exactly zero has a gradient of nan * 0; the smallest weight that a double holds has none.
    share = pt.switch(available, weight / present.sum(axis=1, keepdims=True), 1e-300)
    mean = np.where(available, table.corrected, table.rows.y[:, None])
    wide = pt.exp(pt.dot(data.x, width)) if table.widths.names else pt.ones(len(mean))
    sd = sigma * wide[:, None] * np.sqrt(1.0 + data.excess)
    seen, below = ~data.censored, data.censored
    if below.any():
        log_below = pm.logcdf(pm.Normal.dist(mean[below], sd[below]), table.rows.y[below][:, None])
        pm.Potential("y_below", pt.logsumexp(pt.log(share[below]) + log_below, axis=1).sum())
    if nu is None:
        pm.NormalMixture("y", w=share[seen], mu=mean[seen], sigma=sd[seen], observed=table.rows.y[seen])
    else:
        pm.Mixture(
            "y",
            w=share[seen],
            comp_dists=pm.StudentT.dist(nu=nu, mu=mean[seen], sigma=sd[seen]),
            observed=table.rows.y[seen],
        )


def observe_fused(
    table: CorrectedTable,
    log_weight: Any,
    sigma: Any,
    width: Any,
    nu: Any,
    groups: tuple[np.ndarray, np.ndarray] | None,
) -> None:
    """The same density in one pass over the rows, group by group where these have weights of their own."""
    import pymc as pm
    import pytensor.tensor as pt

    from bayesens.likelihoods.ops import corrected_loglik

    tail = pt.zeros(0) if nu is None else nu[None]
    if groups is None:
        parts = [corrected_loglik(log_weight, pt.log(sigma), width, tail, rows=table.mixture)]
    else:
        some = [table.mixture.select(np.flatnonzero(groups[1] == g)) for g in range(len(groups[0]))]
        parts = [corrected_loglik(log_weight[g], pt.log(sigma), width, tail, rows=rows) for g, rows in enumerate(some)]
    pm.Potential("loglik", sum(parts[1:], parts[0]))


def _number(value: Any) -> float:
    return float(np.mean(value))


def _check_groups(ensemble: Ensemble, index: np.ndarray) -> None:
    """Refuse weights by group without labels."""
    labels = ensemble.labels("group")
    if labels is None:
        raise ValueError("weights='group' needs the rows' groups and the ensemble has no group column; name one with "
                         "Ensemble.from_frame(..., group=...) or use weights='global'.")  # fmt: skip
    if blank := int(np.sum(labels[index] == "")):
        raise ValueError(f"{blank} of {len(index)} training rows have no group label, and weights='group' needs one; "
                         "label these rows, drop them, or use weights='global'.")  # fmt: skip


def _shifted(pair: np.ndarray, *, exactly: bool) -> bool:
    """Whether two members differ by a constant, or not at all."""
    first, second = pair[np.isfinite(pair).all(axis=1)].T
    difference = second - first
    size = float(np.abs(difference if exactly else difference - difference.mean()).max())
    return size <= 1e-10 * float(np.std(first))
