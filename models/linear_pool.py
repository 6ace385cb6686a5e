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

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows, flat
from bayesens.likelihoods.corrected.own_correction import CorrectedTable
from bayesens.likelihoods.corrected.posterior import point_correction
from bayesens.likelihoods.em import Optimum
from bayesens.likelihoods.options import check_options
from bayesens.likelihoods.priors import Prior
from bayesens.likelihoods.simplex_regression import Pool
from bayesens.likelihoods.training_checks import (
    best_residual,
    check_residuals,
    complete_rows,
    refuse_exact,
    warn_copies,
)
from bayesens.models import joint_pool
from bayesens.models.corrected import RATIO, CorrectedMembers, Data, spare

if TYPE_CHECKING:
    import pymc as pm

    from bayesens.likelihoods.corrected.pool import PooledRows, PoolPenalty
    from bayesens.likelihoods.corrected.predictive import CorrectedMixture

__all__ = ["LinearPool"]

_PRESETS = {
    "weak": {},
    "vague": {
        "level_prior": Prior("Normal", mu=0, sigma=10), "gain_prior": Prior("Normal", mu=0.7, sigma=2),
        "site_ratio_prior": Prior("HalfStudentT", nu=3, sigma=3), "group_ratio_prior": Prior("HalfStudentT", nu=3, sigma=3),
        "scale_slope_prior": Prior("Normal", mu=0, sigma=1), "stretch_prior": Prior("Normal", mu=1, sigma=2),
        "bias_prior": Prior("Normal", mu=0, sigma=1), "slope_prior": Prior("Normal", mu=1, sigma=1),
        "intercept_prior": Prior("Normal", mu=0, sigma=1), "coefficient_prior": Prior("Normal", mu=0, sigma=2),
        "sigma_prior": Prior("LogNormal", mu=0, sigma=1),
    },
    "sceptical": {
        "weight_prior": Prior("Dirichlet", a=5), "gain_prior": Prior("Normal", mu=0.7, sigma=0.2),
        "site_ratio_prior": Prior("HalfNormal", sigma=0.3), "group_ratio_prior": Prior("HalfNormal", sigma=0.3),
        "scale_slope_prior": Prior("Normal", mu=0, sigma=0.1), "stretch_prior": Prior("Normal", mu=1, sigma=0.2),
        "bias_prior": Prior("Normal", mu=0, sigma=0.1),
        "slope_prior": Prior("Normal", mu=1, sigma=0.1), "intercept_prior": Prior("Normal", mu=0, sigma=0.1),
        "coefficient_prior": Prior("Normal", mu=0, sigma=0.1),
    },
}  # fmt: skip
# Options that only corrections of each member have, with what is left of them where there are none.
OF_CORRECTIONS = {"scale": (), "bias_covariates": (), "group": False, "site": False}


@dataclass(frozen=True)
class LinearPool(CorrectedMembers):
    """One kernel around a weighted mean of the members.

    Parameters
    ----------
    weights : {"simplex", "free"}
        Weights that are positive and sum to one, renormalised over the members that a row has; or a regression on all
        members, whose coefficients may be negative. The latter refuses training rows that lack a member, and predicts
        none; it corrects nothing itself and has one width.
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
        Of a joint fit, in its place; that of the bias is in units of ``unit``.
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
    level_prior: Prior = field(default=Prior("Normal", mu=0, sigma=3))
    gain_prior: Prior = field(default=Prior("Normal", mu=0.7, sigma=0.5))
    covariate_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.5))
    site_ratio_prior: Prior = field(default=RATIO)
    group_ratio_prior: Prior = field(default=RATIO)
    scale_slope_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.3))
    nu_prior: Prior = field(default=Prior("Gamma", alpha=2, beta=0.1))
    weight_prior: Prior = field(default=Prior("Dirichlet", a=1))
    stretch_prior: Prior = field(default=Prior("Normal", mu=1, sigma=0.5))
    sigma_prior: Prior = field(default=Prior("LogNormal", mu=0, sigma=0.5))
    bias_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.3))
    slope_prior: Prior = field(default=Prior("Normal", mu=1, sigma=0.25))
    intercept_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.3))
    coefficient_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.5))

    spelled: ClassVar[tuple[str, str]] = ("linear pool", "one density around a weighted mean")
    assumes: ClassVar[str] = (
        "puts one normal error around a weighted mean of the members. Given the parameters, rows are independent."
    )
    meaning: ClassVar[str] = ""
    baseline: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "weights": ("simplex", "free"), "correction": ("own", "joint"), "bias": ("linear", "additive", "none"),
        "kernel": ("normal", "student_t"), "transform": ("identity", "sqrt", "log"),
    }  # fmt: skip
    second_step: ClassVar[str] = "pool"
    at_once: ClassVar[Any] = joint_pool

    def __post_init__(self) -> None:
        if self.correction is None:
            object.__setattr__(self, "correction", "joint" if self.weights == "free" else "own")
        check_options(self)
        if self.weights == "free" and self.correction == "own":
            raise ValueError("LinearPool(weights='free') is a regression on the members as they are; got correction='own'. Leave "
                             "correction out, or use weights='simplex'.")  # fmt: skip
        if self.weights == "free" and self.bias != "linear":
            raise ValueError(f"LinearPool(weights='free') has an intercept and coefficients, which leave no bias to correct; "
                             f"got bias={self.bias!r}. Leave bias out, or use weights='simplex'.")  # fmt: skip
        if self.correction == "joint":
            self._refuse_options_of_corrections()

    def _refuse_options_of_corrections(self) -> None:
        for name in OF_CORRECTIONS:
            if value := getattr(self, name):
                asked = "weights='free'" if self.weights == "free" else "correction='joint'"
                raise ValueError(f"LinearPool({asked}) has one width and no covariates or effects; got {name}={value!r}. Leave "
                                 f"{name} out, or use correction='own' with simplex weights.")  # fmt: skip
        if self.kernel != "normal":
            raise ValueError(
                "LinearPool(correction='joint'), and free weights, have a normal kernel; got "
                f"kernel={self.kernel!r}. Leave kernel out, or use correction='own' and simplex weights."
            )

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

    def resolve(self, data: Data) -> LinearPool:
        """Return the model with levels, widths, ``center``, ``unit`` and ``sigma_scale`` filled in from the training rows."""
        if isinstance(data, CorrectedTable):
            return data.model if data.model.correction == self.correction else self
        if None not in (self.group, self.site, self.scale, self.center, self.unit, self.sigma_scale):
            return self
        rows = self.rows(data)
        own = self.levels_of(data, rows) | {"scale": self.widths_of(data.members)}
        return replace(
            self, **(own if self.correction == "own" else OF_CORRECTIONS),
            center=float(np.mean(rows.y)) if self.center is None else self.center,
            unit=float(np.std(rows.y)) if self.unit is None else self.unit,
            sigma_scale=best_residual(rows, data.members, self.bias) if self.sigma_scale is None else self.sigma_scale,
        )  # fmt: skip

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
        if self.weights == "free":
            return len(data.members) + 2
        return len(data.members) + {"linear": 2, "additive": 1, "none": 0}[self.bias]

    def rows(self, ensemble: Ensemble) -> Rows:
        """Rows with an observation and a member, on the scale of the transform; for free weights, with all members."""
        rows = super().rows(ensemble)
        return complete_rows(rows, ensemble, "LinearPool(weights='free')") if self.needs_all_members else rows

    # ---------------------------------------------------------------------------------------------------- the posterior
    def build(self, data: Data, likelihood: str = "fused") -> pm.Model:
        """Return the PyMC model; that of a member's correction is :meth:`build_correction`.

        Parameters
        ----------
        data : Ensemble or CorrectedTable
            Rows without an observation or without any member are left out.
        likelihood : {"fused", "rows"}
            ``"rows"`` is the plain model with observed ``y``; ``"fused"`` is the same density in one pass.

        Returns
        -------
        pymc.Model
        """
        import pymc as pm
        import pytensor.tensor as pt

        if likelihood not in ("fused", "rows"):
            raise ValueError(f"likelihood is 'fused' or 'rows'; got {likelihood!r}.")
        if self.correction == "joint":
            return joint_pool.build(self, self.prepare(data), likelihood)
        table = self.prepare(data)
        model: LinearPool = table.model
        assert model.sigma_scale is not None
        names = table.widths.names
        coords = {"member": list(table.members)} | ({"scale_covariate": list(names)} if names else {})
        with pm.Model(coords=coords) as pymc_model:
            weight = model.weight_variable(table.n_members)
            sigma = model.sigma_prior.create("sigma", scale=model.sigma_scale)
            stretch: Any = model.stretch_prior.create("stretch") if model.bias == "linear" else pt.ones(())
            width: Any = model.scale_slope_prior.create("scale_slope", dims="scale_covariate") if names else pt.zeros(0)
            nu = model.tail_variable()
            if likelihood == "rows":
                observe_rows(table, weight, stretch, sigma, width, nu)
            else:
                from bayesens.likelihoods.ops import pooled_loglik

                scale = pt.stack([pt.log(sigma), stretch] + ([] if nu is None else [nu]))
                pm.Potential("loglik", pooled_loglik(pt.log(weight), width, scale, rows=pooled_rows(table)))
        return pymc_model

    def weight_variable(self, k: int) -> Any:
        """Weights (member)."""
        import pymc as pm
        import pytensor.tensor as pt

        if k == 1:
            return pm.Deterministic("weight", pt.ones(1), dims="member")
        prior = self.weight_prior
        if prior.family == "Dirichlet" and isinstance(concentration := dict(prior.parameters)["a"], float):
            prior = Prior("Dirichlet", a=np.full(k, concentration * (spare(k) if self.correction == "own" else 1.0)))
        return prior.create("weight", dims="member")

    # ------------------------------------------------------------------------------------------------------ the optimum
    def em(
        self, data: Data, *, starts: int = 12, seed: int = 0, tolerance: float = 1e-15
    ) -> tuple[xr.Dataset, list[Optimum]]:
        """The two steps at their optimum: corrections at their posterior means, then weights, sigma and widths.

        The optimum is that of the posterior in the coordinates in which it is sampled; it knows the families of the default
        priors, and warns where another prior is left out. A joint fit, and free weights, have maximum likelihood.

        Parameters
        ----------
        data : Ensemble or CorrectedTable
        starts : int
            Starts beside equal weights where members are missing.
        seed : int
        tolerance : float
            Change of half the logarithm of the mean square at which the search of a joint fit ends.

        Returns
        -------
        parameters : Dataset
            All that the posterior has.
        optima : list of Optimum
            The best one.
        """
        if self.correction == "joint":
            return joint_pool.em(self, self.prepare(data), starts=starts, seed=seed, tolerance=tolerance)
        from bayesens.likelihoods.corrected.pool import best_pool  # loads numba: nothing that only reads a fit should

        table = self.prepare(data)
        model: LinearPool = table.model
        model.tell_of_other_priors(["weight_prior", "sigma_prior", *(["stretch_prior"] if model.bias == "linear" else []),
                                    *(["scale_slope_prior"] if model.scale else []),
                                    *(["nu_prior"] if model.kernel == "student_t" else [])])  # fmt: skip
        best = best_pool(pooled_rows(table), model.penalty(table), starts=starts, seed=seed)
        assert best.width is not None
        found = xr.Dataset({name: (dims[2:], values[0, 0]) for name, (dims, values) in
                            point_correction(table, model.recipe(table.members)).items()})  # fmt: skip
        found = found.assign(weight=("member", best.weight), sigma=((), best.sigma[0]))
        if model.bias == "linear":
            found = found.assign(stretch=((), best.sigma[1]))
        if len(best.width):
            found = found.assign(scale_slope=("scale_covariate", best.width))
        if best.nu is not None:
            found = found.assign(nu=((), best.nu))
        found = found.assign_coords(model.coordinates(table) | {"member": ("member", np.array(table.members))})
        none = np.ones(0)  # everything stands in the parameters
        return with_linear_weight(found), [replace(best, weight=none, sigma=none, width=None, nu=None)]

    def penalty(self, table: CorrectedTable) -> PoolPenalty:
        """Log prior densities, for the optimum."""
        from bayesens.likelihoods.corrected.pool import PoolPenalty

        assert self.sigma_scale is not None
        k, p = table.n_members, len(table.widths.names)
        a = self.known_prior("weight_prior")["a"]
        sigma, stretch, width = (
            _two(self.known_prior(name)) for name in ("sigma_prior", "stretch_prior", "scale_slope_prior")
        )
        if self.bias != "linear":
            stretch = 1.0, 0.0
        mean = np.r_[np.full(p, width[0]), np.log(self.sigma_scale) + sigma[0], stretch[0]]
        tail = self.known_prior("nu_prior") if self.kernel == "student_t" else None
        concentration = np.broadcast_to(np.asarray(a) * (spare(k) if isinstance(a, float) else 1.0), k)
        return PoolPenalty(concentration, mean, np.r_[np.full(p, width[1]), sigma[1], stretch[1]],
                           None if tail is None else (float(np.mean(tail["alpha"])), float(np.mean(tail["beta"]))))  # fmt: skip

    # ------------------------------------------------------------------------------------------------------- prediction
    def history(self, data: Data) -> xr.Dataset:
        """What predictions take from the training rows."""
        table = self.prepare(data)
        return super().history(table).assign(standing=("member", standing(table)))

    def complete(self, posterior: xr.Dataset, data: Data, rng: np.random.Generator) -> xr.Dataset:
        """Add draws of the corrections, which are independent of the pool's.

        Parameters
        ----------
        posterior : Dataset
            Draws of the pool.
        data : Ensemble or CorrectedTable
            The training rows.
        rng : numpy.random.Generator

        Returns
        -------
        Dataset
        """
        if self.correction == "joint":
            return posterior
        return with_linear_weight(self.with_corrections(posterior, data, rng))

    def law(self, found: CorrectedMixture, posterior: xr.Dataset, history: xr.Dataset) -> CorrectedMixture:
        """One kernel a draw, around the mean of the members, in place of their mixture."""
        from bayesens.likelihoods.corrected.rows import pooled

        assert self.center is not None
        stretch = flat(posterior["stretch"]) if "stretch" in posterior else np.ones(len(found.draws))
        return pooled(found, history["standing"].values, stretch, self.center)


def observe_rows(table: CorrectedTable, weight: Any, stretch: Any, sigma: Any, width: Any, nu: Any) -> None:
    """The likelihood as a statistician would write it."""
    import pymc as pm
    import pytensor.tensor as pt

    available, rows, c = table.rows.available, pooled_rows(table), table.model.center
    present = weight * available
    share = present / present.sum(axis=1, keepdims=True)
    mean = c + stretch * (share * np.where(available, table.corrected - c, 0.0)).sum(axis=1)
    sd = sigma * pt.exp(pt.dot(rows.x, width)) * np.sqrt(1.0 + rows.open)
    if nu is not None:
        pm.StudentT("y", nu=nu, mu=mean, sigma=sd, observed=table.rows.y)
    elif rows.censored.any():
        pm.Censored("y", pm.Normal.dist(mean, sd), lower=0.0, upper=None, observed=table.rows.y)
    else:
        pm.Normal("y", mean, sd, observed=table.rows.y)


def pooled_rows(table: CorrectedTable) -> PooledRows:
    """What the likelihood takes from the corrected members."""
    from bayesens.likelihoods.corrected.pool import PooledRows

    return PooledRows.of(table.mixture, table.rows.y, table.model.center, standing(table))


def standing(table: CorrectedTable) -> np.ndarray:
    """Weights of least squares around the corrected members, by which their open shares are averaged, (member)."""
    seen = ~table.mixture.censored
    if table.n_members == 1 or not seen.any():
        return np.full(table.n_members, 1.0 / table.n_members)
    rows = table.rows
    known = Rows(rows.y[seen], table.corrected[seen], rows.available[seen], rows.index[seen])
    bias = "linear" if table.model.bias == "linear" else "none"  # with a slope, as the pool has its stretch
    return Pool.of(known, table.model.center, bias).search(starts=0, seed=0, tolerance=1e-12)[0]


def with_linear_weight(posterior: xr.Dataset) -> xr.Dataset:
    """Add what a unit of each member moves the mean by."""
    stretch = posterior.get("stretch", 1.0)
    return posterior.assign(linear_weight=stretch * posterior["weight"] * posterior.get("slope", 1.0))


def _two(parameters: dict[str, Any]) -> tuple[float, float]:
    """Location and scale of a normal prior, be it of the logarithm."""
    return float(np.mean(parameters.get("mu", 0.0))), float(np.mean(parameters.get("sigma", 1.0)))
