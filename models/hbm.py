"""A hierarchical Bayesian model of the observation and all members: every source a level, with dependent errors.

For row i at site s in group g, with a common centre c and y_i = truth_mean + truth_group[g] + truth_site[s] + v_i,

    f_ik = c + bias_k + slope_k (truth_mean - c) + slope_group_k truth_group[g] + slope_site_k truth_site[s] + slope_k v_i
             + bias_group[g, k] + bias_site[s, k] + e_ik

    v_i         ~ Normal(0, truth_sd)            truth_site ~ Normal(0, truth_site_sd)   truth_group ~ Normal(0, truth_group_sd)
    e_i         ~ MvNormal(0, D R D)             D = diag(error_sd), R = error correlation of f given y
    bias_site   ~ MvNormal(0, likewise)          bias_group ~ MvNormal(0, likewise)
    bias_k      ~ Normal(0, .3 h)                slope_site_k, slope_group_k ~ Normal(.7, .4)
    slope_k     = common slope + a_k,  error_sd_k = common sd * exp(b_k),  a_k, b_k ~ StudentT(4, 0, .1)

That members are alike, unless the rows say otherwise, is what keeps many members and few rows honest. Where their errors
are nearly the same, any difference between slopes or sds cancels the error and leaves the truth: members that differ
independently of each other by prior would be believed to foretell the truth almost exactly, and the noise of each estimate
adds to it. (Ten alike members in 60 rows: slope' R^-1 slope came out 1.22 times its true value, and 90 % intervals held 86 %.)

With all slopes equal and no effects this reads f_k = c + bias_k + slope_k (y - c). The observation is its own truth here:
an observation error could only be bounded by such data, never estimated, and p(y | f) does not depend on the split.

Correlations are, at every level, those of a factor common to all members plus a rest, R = r 1 1' + (1 - r) R0 with
r ~ Beta(2, 2) and R0 ~ LKJ(4) (``errors="factor"``), LKJ alone (``"lkj"``), or none (``"independent"``). The factor is
where members that share their inputs usually stand, which LKJ alone, centred on independence, would deny.

The joint Gaussian makes p(y | f) a regression on the members with negative weights allowed, linear_weight = V_ff^-1 V_fy.
Effects are integrated out exactly for sampling and drawn back from their conditional distribution afterwards.

A site that the fit has not seen is predicted row by row, V = within + site (+ group), so that its rows never learn from each
other; with ``series=True`` the members of all its rows first tell what its effect is: their level enters by the covariance of
sites, their changes by that within them (:mod:`bayesens.likelihoods.multilevel.new_site`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bayesens.likelihoods.multilevel.joint_normal import Data, JointNormal, joint_covariance
from bayesens.likelihoods.multilevel.level_moments import ANYWHERE, level_moments, start_values
from bayesens.likelihoods.options import check_options
from bayesens.likelihoods.priors import Prior
from bayesens.models import presets

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["HBM"]

FEW = 50  # units of a level, below which the prior tells as much of its correlations as they do


@dataclass(frozen=True)
class HBM(presets.Presets, JointNormal):
    """Hierarchical Bayesian model with source-bias random effects and dependent errors.

    Standard deviations that members bring of their own (`Ensemble.from_frame`, ``spread``) are not used: rows have one error
    covariance, whose sums are all that the likelihood needs.

    Parameters
    ----------
    errors : {"factor", "lkj", "independent"}
        Correlation of the members' errors at every level.
    group, site : bool, optional
        Levels of the hierarchy; None takes those that the ensemble has with at least two labels.
    series : bool
        Whether a site that the fit has not seen is predicted from the members of all rows that are given of it at once, or
        row by row. It changes predictions alone, no fit. A site's rows then belong together in one table: what is said of
        a row depends on the others of its site, whether they have an observation or not.
    transform : {"identity", "sqrt", "log"}
        Applied to the observation and to all members; predictions come back in the observation's units. ``"sqrt"`` takes
        at most 2 % of observations that are exactly zero.
    center, unit : float, optional
        Origin and unit of the priors on the transformed scale; None takes mean and standard deviation of the observations.
    truth_mean_prior, ..., correlation_prior : Prior
        Priors in units of ``unit``; that of ``truth_mean`` about ``center``. ``slope_prior`` and ``error_sd_prior`` are those
        of what is common to the members, ``slope_rest_prior`` and ``error_sd_rest_prior`` of how each differs from it (a
        difference of slopes; the logarithm of a ratio of standard deviations); a single member has no rest.

    References
    ----------
    Marty, Fortin, Kuswanto, Favre and Parent (2015), JRSS C 64, 75-92, combine sources by such a hierarchy;
    Winkler (1981), Management Science 27, 479-488, treats dependent errors.

    Examples
    --------
    >>> HBM(errors="independent", site=False).errors
    'independent'
    """

    errors: str = "factor"
    group: bool | None = None
    site: bool | None = None
    series: bool = False
    transform: str = "identity"
    center: float | None = None
    unit: float | None = None
    truth_mean_prior: Prior = Prior("Normal", mu=0, sigma=1)  # the observations' mean tells it
    truth_sd_prior: Prior = Prior("HalfNormal", sigma=1)  # at most about that of the observations
    truth_site_sd_prior: Prior = Prior("HalfNormal", sigma=1)
    truth_group_sd_prior: Prior = Prior("HalfNormal", sigma=0.5)  # groups of sites differ less than sites
    bias_prior: Prior = Prior("Normal", mu=0, sigma=0.3)  # offsets beyond half a standard deviation are rare
    slope_prior: Prior = Prior("Normal", mu=0.7, sigma=0.3)  # members show part of the truth's changes
    slope_rest_prior: Prior = Prior("StudentT", nu=4, mu=0, sigma=0.1)  # alike unless the rows say otherwise
    slope_site_prior: Prior = Prior("Normal", mu=0.7, sigma=0.4)  # few sites tell it
    slope_group_prior: Prior = Prior("Normal", mu=0.7, sigma=0.4)  # fewer groups still
    error_sd_prior: Prior = Prior("LogNormal", mu=-0.7, sigma=0.5)  # half of the observations' own, about
    error_sd_rest_prior: Prior = Prior("StudentT", nu=4, mu=0, sigma=0.1)  # about a tenth, one may stand out
    bias_site_sd_prior: Prior = Prior("HalfNormal", sigma=0.5)
    bias_group_sd_prior: Prior = Prior("HalfNormal", sigma=0.3)  # as with the truth
    common_prior: Prior = Prior("Beta", alpha=2, beta=2)  # members share some of their errors
    correlation_prior: Prior = Prior("LKJCorr", eta=4)  # what is left leans to independence

    sets: ClassVar[presets.Sets] = presets.HBM
    spelled: ClassVar[tuple[str, str]] = ("HBM", "a hierarchical Bayesian model")
    assumes: ClassVar[str] = (
        "takes observation and members as jointly normal: every member has a bias, a slope and an error, biases "
        "vary by group and station, and errors of members are correlated through a common factor and the rest. "
        "Rows of one station share its effects; errors of successive days are taken as independent."
    )
    meaning: ClassVar[str] = (
        "hierarchical Bayesian model: observation and members jointly normal, with biases that vary by group and "
        "station"
    )
    baseline: ClassVar[bool] = False
    joint: ClassVar[bool] = True
    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "errors": ("factor", "lkj", "independent"), "transform": ("identity", "sqrt", "log"),
    }  # fmt: skip
    starts_near: ClassVar[bool] = True  # about the optimum that moments lead to

    def __post_init__(self) -> None:
        check_options(self)
        if not isinstance(self.series, bool):
            raise TypeError(f"HBM(series=...) is True or False; got {self.series!r}.")

    def build(self, data: Data, likelihood: str = "fused") -> pm.Model:
        """Return the PyMC model of the formula, or with the effects integrated out, which is the same posterior.

        Parameters
        ----------
        data : Ensemble or SufficientStatistics
            Rows without an observation are left out. ``"rows"`` needs an ensemble.
        likelihood : {"fused", "rows"}
            ``"rows"`` has the effects ``truth_group``, ``truth_site``, ``bias_group`` and ``bias_site`` as variables, and
            observed ``y`` and members; ``"fused"`` has them integrated out.

        Returns
        -------
        pymc.Model
        """
        import pymc as pm
        import pytensor
        import pytensor.tensor as pt

        from bayesens.likelihoods.multilevel.collapsed import collapsed_potential
        from bayesens.likelihoods.parametrisation import CholeskyCorr

        if likelihood not in ("fused", "rows"):
            raise ValueError(f"likelihood is 'fused' or 'rows'; got {likelihood!r}.")
        summary = self.summarise(data)
        m, k, n = self.resolve(summary), len(data.members), summary.n_observed
        assert m.center is not None and m.unit is not None
        h, c = m.unit, pytensor.shared(np.float64(m.center))  # a constant would be compiled anew for every table
        labels = {level: names for level, (_, names) in m.coordinates(summary).items()}
        starts = start_values(
            level_moments(m.statistics(summary)), m.center, labels, common_factor=m.errors == "factor"
        )

        def prior(name: str, option: str = "", **shape: Any) -> Any:
            chosen = getattr(m, f"{option or name}_prior")
            start = {"initval": pytensor.shared(starts[name])} if chosen.family in ANYWHERE else {}
            return chosen.create(name, **shape, **start)

        def pooled(
            name: str, scale: float = 1.0
        ) -> Any:  # slopes differ from a common one, standard deviations by a ratio
            if k == 1:
                return prior(name, scale=scale, dims="member")
            common, rest = prior(f"{name}_mean", name, scale=scale), prior(f"{name}_rest", shape=k)
            return pm.Deterministic(name, common + rest if name == "slope" else common * pt.exp(rest), dims="member")

        def covariance(name: str, sd: Any, units: int) -> Any:  # D R D
            if m.errors == "independent" or k == 1:
                return pt.diag(sd**2)
            root = prior(f"{name}_rest", "correlation", n=k, default_transform=CholeskyCorr(k))
            # Written as a sum: for so small a matrix the product itself is nothing, but compiling it takes ten seconds.
            correlation = (root[:, None, :] * root[None, :, :]).sum(axis=2)
            if m.errors == "factor":
                common = prior(f"{name}_common", "common")
                if units >= FEW:  # the data tell the whole and not its parts: sampled in coordinates of their own
                    common.tag.rest = root
                correlation = common + (1.0 - common) * correlation
            pm.Deterministic(f"{name}_corr", correlation, dims=("member", "member_"))
            return sd[:, None] * correlation * sd

        with pm.Model(coords={"member": list(data.members), "member_": list(data.members)} | labels) as model:
            truth_mean = prior("truth_mean", scale=h, shift=m.center)
            bias = prior("bias", scale=h, dims="member")
            truth_sd = prior("truth_sd", scale=h)
            slope = pooled("slope")
            errors = covariance("residual", pooled("error_sd", scale=h), n)
            effects = {}
            for level, names in labels.items():
                level_sd, level_slope = prior(f"truth_{level}_sd", scale=h), prior(f"slope_{level}", dims="member")
                bias_sd = prior(f"bias_{level}_sd", scale=h, dims="member")
                effects[level] = level_sd, level_slope, covariance(f"bias_{level}", bias_sd, len(names))
            y_mean, f_mean = truth_mean, c + bias + slope * (truth_mean - c)
            if likelihood == "fused":
                collapsed_potential(y_mean, f_mean, (truth_sd, slope, errors), effects, data=m.statistics(summary))
                return model

            rows, code = m.rows_of(data)
            for level, (level_sd, level_slope, biases) in effects.items():
                truth = pm.Normal(f"truth_{level}", 0.0, level_sd, dims=level)[code[level]]
                offset = pm.MvNormal(f"bias_{level}", np.zeros(k), cov=biases, dims=(level, "member"))[code[level]]
                y_mean, f_mean = y_mean + truth, f_mean + truth[:, None] * level_slope + offset
            pm.Normal("y", y_mean, truth_sd, observed=rows.y)
            f_mean = f_mean + slope * (rows.y - y_mean)[:, None]
            for there in np.unique(rows.available, axis=0):  # rows that have the same members
                i, j = np.nonzero((rows.available == there).all(axis=1))[0], np.nonzero(there)[0]
                if len(j):
                    name = "f" if there.all() else "f_" + "".join("x" if one else "o" for one in there)
                    pm.MvNormal(name, f_mean[i][:, j], cov=errors[j][:, j], observed=rows.f[i][:, j])
        return model

    def moments(self, draw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Mean and covariances of ``z = (y, f)`` under each draw.

        Parameters
        ----------
        draw : dict of array (draw, ...)
            Posterior draws by name.

        Returns
        -------
        dict
            ``mean (draw, column)``; ``within``, ``site``, ``group`` ``(draw, column, column)``, zero where a level is off.
        """
        assert self.center is not None
        c, truth_mean = self.center, draw["truth_mean"]
        base = c + draw["bias"] + draw["slope"] * (truth_mean - c)[:, None]
        out = {"mean": np.column_stack([truth_mean, base])}
        out["within"] = joint_covariance(draw["truth_sd"], draw["slope"], draw["error_sd"], draw.get("residual_corr"))
        for level in self.levels:
            out[level] = np.zeros_like(out["within"])
            if getattr(self, level):
                parts = draw[f"truth_{level}_sd"], draw[f"slope_{level}"], draw[f"bias_{level}_sd"]
                out[level] = joint_covariance(*parts, draw.get(f"bias_{level}_corr"))
        return out
