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

A site that the fit has not seen, with the mean m of z = (y, f) in its group and the covariances B of its effect h (with what
is open of the group's) and W within it, is predicted row by row, V = B + W, so that its rows never learn from each other:

    y_i | f_i ~ Normal(m_y + V_yf V_ff^-1 (f_i - m_f), V_yy - V_yf V_ff^-1 V_fy)

With ``series=True`` the members of all its rows, here J complete ones of mean fbar, first tell what h is: the members' level
enters by B, their changes by W, which one regression on a row cannot tell apart. With S = B_ff + W_ff / J and c = W_ff^-1 W_fy,

    h | fbar  ~ Normal(B_zf S^-1 (fbar - m_f), H),   H = B - B_zf S^-1 B_fz
    y_i | all f ~ Normal(m_y + E h_y + c' (f_i - m_f - E h_f), W_yy - W_yf c + (1, -c)' H (1, -c))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from bayesens.distributions.posterior_mixture import Block, PosteriorMixture, row_classes
from bayesens.ensemble.checks import degenerate
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows, codes, flat, level_rows, prediction_rows, training_rows
from bayesens.ensemble.streaming import SufficientStatistics, sufficient_statistics
from bayesens.likelihoods.multilevel.known_sites import KnownSites, Line, regression
from bayesens.likelihoods.multilevel.new_site import given_members, inside, left_open, new_sites, root
from bayesens.likelihoods.options import ModelValue, check_options
from bayesens.likelihoods.priors import Prior
from bayesens.messages import listed
from bayesens.models import presets

if TYPE_CHECKING:
    import pymc as pm

    from bayesens.ensemble.sufficient import Statistics, Tally

__all__ = ["HBM"]

Data = Ensemble | SufficientStatistics
Start = Callable[[str], dict[str, Any]]  # options of a variable, by its name
ANYWHERE = (  # families whose variables may have any value, or any positive one, or any between 0 and 1
    "Normal", "StudentT", "Laplace", "Cauchy", "Logistic", "HalfNormal", "HalfStudentT", "HalfCauchy", "LogNormal", "Gamma",
    "InverseGamma", "Exponential", "Weibull", "ChiSquared", "Beta",
)  # fmt: skip
FEW = 50  # units of a level, below which the prior tells as much of its correlations as they do
MOST_ZEROS = 0.02  # share of the observations, under the square root


@dataclass(frozen=True)
class HBM(ModelValue):
    """Hierarchical Bayesian model with source-bias random effects and dependent errors.

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
    truth_mean_prior: Prior = field(default=Prior("Normal", mu=0, sigma=1))
    truth_sd_prior: Prior = field(default=Prior("HalfNormal", sigma=1))
    truth_site_sd_prior: Prior = field(default=Prior("HalfNormal", sigma=1))
    truth_group_sd_prior: Prior = field(default=Prior("HalfNormal", sigma=0.5))
    bias_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.3))
    slope_prior: Prior = field(default=Prior("Normal", mu=0.7, sigma=0.3))
    slope_rest_prior: Prior = field(default=Prior("StudentT", nu=4, mu=0, sigma=0.1))
    slope_site_prior: Prior = field(default=Prior("Normal", mu=0.7, sigma=0.4))
    slope_group_prior: Prior = field(default=Prior("Normal", mu=0.7, sigma=0.4))
    error_sd_prior: Prior = field(default=Prior("LogNormal", mu=-0.7, sigma=0.5))
    error_sd_rest_prior: Prior = field(default=Prior("StudentT", nu=4, mu=0, sigma=0.1))
    bias_site_sd_prior: Prior = field(default=Prior("HalfNormal", sigma=0.5))
    bias_group_sd_prior: Prior = field(default=Prior("HalfNormal", sigma=0.3))
    common_prior: Prior = field(default=Prior("Beta", alpha=2, beta=2))
    correlation_prior: Prior = field(default=Prior("LKJCorr", eta=4))

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
    levels: ClassVar[tuple[str, ...]] = ("group", "site")
    starts_near: ClassVar[bool] = True  # about the optimum that moments lead to

    def __post_init__(self) -> None:
        check_options(self)
        if not isinstance(self.series, bool):
            raise TypeError(f"HBM(series=...) is True or False; got {self.series!r}.")

    @classmethod
    def preset(cls, name: str, **options: Any) -> HBM:
        """Return the model with a named set of priors: ``"weak"`` (the default), ``"vague"`` or ``"sceptical"``.

        Examples
        --------
        >>> HBM.preset("sceptical").correlation_prior
        Prior("LKJCorr", eta=20.0)
        """
        return presets.preset(cls, presets.HBM, name, options)

    # ------------------------------------------------------------------------------------------------ what the data set
    def summarise(self, data: Data) -> SufficientStatistics:
        """Return all that the model takes from its training rows; statistics are returned as they are.

        Every method below takes either; the row-by-row form alone needs the rows.
        """
        return sufficient_statistics(data, self.transform)

    def resolve(self, data: Data) -> HBM:
        """Return the model with ``center``, ``unit`` and the levels filled in from the training rows."""
        rows = self.summarise(data)
        found = {level: getattr(self, level) for level in self.levels}
        for level in self.levels:
            if found[level] is None:
                found[level] = len(np.unique(getattr(rows.tally, level))) > 1
        if self.series and not found["site"]:
            raise ValueError("HBM(series=True) predicts a new site from all its rows and needs the site level, which is off: "
                             "site=False, or fewer than two site labels in the training rows. Set series=False.")  # fmt: skip
        return replace(
            self, **found,
            center=rows.mean if self.center is None else self.center,
            unit=rows.sd if self.unit is None else self.unit,
        )  # fmt: skip

    def check(self, data: Data) -> None:
        """Refuse members that are exact linear combinations of others, whose joint covariance is singular, and many zeros.

        Under the square root an observation of zero stands for all values below zero. Predictions say so, but joint normal
        statistics cannot: they would take the zeros for values like others.
        """
        rows = self.summarise(data)
        zeros = rows.facts.n_zero
        if self.transform == "sqrt" and zeros > MOST_ZEROS * rows.n_observed:
            raise ValueError(
                f"{zeros} of {rows.n_observed} observations are exactly 0 ({100 * zeros / rows.n_observed:.1f} %); "
                "HBM(transform='sqrt') takes them for values of a normal variable, so that predictions would hold too few "
                f"zeros; wanted at most {100 * MOST_ZEROS:.0f} %: use BMA(transform='sqrt'), which counts a zero as the "
                "probability of zero and below."
            )
        if dependent := rows.dependent_members():
            raise ValueError(
                f"Members {listed(dependent)} are exact copies or linear combinations of each other in the "
                f"{rows.n_observed} training rows; HBM models their joint distribution, which is then singular. "
                "Leave one of them out, or use BMA."
            )
        from bayesens.ensemble.sufficient import residual_share

        left = residual_share(rows.tally.statistics)
        if np.min(left) <= 1e-12:  # of a variance: sums of squares hold no more digits
            raise ValueError(degenerate(rows.members[int(np.argmin(left))], rows.n_observed, "linear function"))

    def n_parameters(self, data: Data) -> int:
        """Number of parameters that the rows themselves must tell: means, slopes and standard deviations within a site.

        Correlations, and what belongs to sites and groups, have priors that stand where rows are few: 60 rows are enough for
        ten members, 200 for seventeen.
        """
        return 2 + 3 * len(data.members)

    @property
    def _effects(self) -> tuple[str, ...]:
        return tuple(level for level in self.levels if getattr(self, level))

    # ---------------------------------------------------------------------------------------------------- the posterior
    def build(self, data: Data, likelihood: str = "fused") -> pm.Model:
        """Return the PyMC model.

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

        if likelihood not in ("fused", "rows"):
            raise ValueError(f"likelihood is 'fused' or 'rows'; got {likelihood!r}.")
        summary = self.summarise(data)
        model, k = self.resolve(summary), len(data.members)
        assert model.center is not None and model.unit is not None
        h, start = model.unit, model._start(summary)
        coords: dict[str, Any] = {"member": list(data.members), "member_": list(data.members)}
        coords |= {level: names for level, (_, names) in model.coordinates(summary).items()}
        with pm.Model(coords=coords) as pymc_model:
            truth_mean = self.truth_mean_prior.create("truth_mean", scale=h, shift=model.center, **start("truth_mean"))
            bias = self.bias_prior.create("bias", scale=h, dims="member", **start("bias"))
            truth_sd = self.truth_sd_prior.create("truth_sd", scale=h, **start("truth_sd"))
            slope = self._pooled("slope", k, start)
            sd = self._pooled("error_sd", k, start, scale=h)
            errors = self._error_covariance("residual", sd, k, start, summary.n_observed)
            truth: dict[str, tuple[Any, Any, Any]] = {}
            for level in model._effects:
                truth_level_sd = getattr(self, f"truth_{level}_sd_prior").create(
                    f"truth_{level}_sd", scale=h, **start(f"truth_{level}_sd")
                )
                slope_level = getattr(self, f"slope_{level}_prior").create(
                    f"slope_{level}", dims="member", **start(f"slope_{level}")
                )
                sd = getattr(self, f"bias_{level}_sd_prior").create(
                    f"bias_{level}_sd", scale=h, dims="member", **start(f"bias_{level}_sd")
                )
                truth[level] = (
                    truth_level_sd,
                    slope_level,
                    self._error_covariance(f"bias_{level}", sd, k, start, len(coords[level])),
                )
            c = pytensor.shared(np.float64(model.center))  # a constant would be compiled anew for every table
            base = c + bias + slope * (truth_mean - c)
            if likelihood == "rows":
                if not isinstance(data, Ensemble):
                    raise TypeError("likelihood='rows' needs the rows, which sufficient statistics no longer hold; pass an "
                                    "Ensemble, or use likelihood='fused', which is the same density.")  # fmt: skip
                rows = training_rows(data, self.transform, need_member=False)
                levels = {level: level_rows(data, level, rows.index) for level in model._effects}
                self._observe(rows, levels, truth_mean, base, truth_sd, slope, errors, truth)
            else:
                from bayesens.likelihoods.ops import collapsed_loglik

                size = k + 1
                covariance = {level: _joint_covariance(*parts) for level, parts in truth.items()}
                pm.Potential("loglik", collapsed_loglik(
                    pt.concatenate([truth_mean[None], base]), _joint_covariance(truth_sd, slope, errors),
                    covariance.get("site", pt.zeros((size, size))), covariance.get("group", pt.zeros((size, size))),
                    data=model.statistics(summary),
                ))  # fmt: skip
        return pymc_model

    def _start(self, data: SufficientStatistics) -> Start:
        """Where the search for the optimum begins: values by moments, for the variables whose priors allow any value."""
        import pytensor

        from bayesens.likelihoods.multilevel.level_moments import level_moments, split_correlation

        assert self.center is not None
        m = level_moments(self.statistics(data))
        values: dict[str, Any] = {"truth_mean": m.mean[0]}

        def level(covariance: np.ndarray, truth: str, slope: str, error: str, sd: str) -> None:
            values[truth] = np.sqrt(covariance[0, 0])
            values[slope] = covariance[0, 1:] / covariance[0, 0]
            rest = covariance[1:, 1:] - covariance[0, 0] * np.outer(values[slope], values[slope])
            values[sd] = np.sqrt(np.diag(rest))
            correlation = rest / values[sd] / values[sd][:, None]
            if self.errors == "factor":
                values[f"{error}_common"], correlation = split_correlation(correlation)
            values[f"{error}_rest"] = np.linalg.cholesky(correlation)

        level(m.within, "truth_sd", "slope", "residual", "error_sd")
        for name in self._effects:
            level(getattr(m, name), f"truth_{name}_sd", f"slope_{name}", f"bias_{name}", f"bias_{name}_sd")
        values["slope_mean"], values["error_sd_mean"] = (
            values["slope"].mean(),
            np.exp(np.log(values["error_sd"]).mean()),
        )
        values["slope_rest"] = values["slope"] - values["slope_mean"]
        values["error_sd_rest"] = np.log(values["error_sd"] / values["error_sd_mean"])
        values["bias"] = m.mean[1:] - self.center - values["slope"] * (m.mean[0] - self.center)

        def start(name: str) -> dict[str, Any]:
            prior = self._prior_of(name)
            free = prior is None or prior.family in ANYWHERE
            return {"initval": pytensor.shared(np.asarray(values[name], dtype=np.float64))} if free else {}

        return start

    def _prior_of(self, name: str) -> Prior | None:
        """The prior of a variable; None of a correlation's rest, whose values are all allowed."""
        if name.endswith("_rest") and hasattr(self, f"{name}_prior") is False:
            return None
        option = "common_prior" if name.endswith("_common") else f"{name.removesuffix('_mean')}_prior"
        return getattr(self, "truth_mean_prior" if name == "truth_mean" else option)

    def _pooled(self, name: str, members: int, start: Start, *, scale: float = 1.0) -> Any:
        """A value for each member, about a common one: slopes differ from it, standard deviations are ratios to it."""
        import pymc as pm
        import pytensor.tensor as pt

        prior = getattr(self, f"{name}_prior")
        if members == 1:
            return prior.create(name, scale=scale, dims="member", **start(name))
        common = prior.create(f"{name}_mean", scale=scale, **start(f"{name}_mean"))
        rest = getattr(self, f"{name}_rest_prior").create(f"{name}_rest", shape=members, **start(f"{name}_rest"))
        return pm.Deterministic(name, common + rest if name == "slope" else common * pt.exp(rest), dims="member")

    def _error_covariance(self, name: str, sd: Any, k: int, start: Start, units: int) -> Any:
        """Covariance with the given standard deviations and this model's kind of correlation."""
        import pymc as pm
        import pytensor.tensor as pt

        from bayesens.likelihoods.parametrisation import CholeskyCorr

        if self.errors == "independent" or k == 1:
            return pt.diag(sd**2)
        factor = self.correlation_prior.create(
            f"{name}_rest", n=k, default_transform=CholeskyCorr(k), **start(f"{name}_rest")
        )
        # Written as a sum: for so small a matrix the product itself is nothing, but compiling it takes ten seconds.
        correlation = (factor[:, None, :] * factor[None, :, :]).sum(axis=2)
        if self.errors == "factor":
            common = self.common_prior.create(f"{name}_common", **start(f"{name}_common"))
            if units >= FEW:  # the data tell the whole and not its parts: the pair is sampled in coordinates of its own
                common.tag.rest = factor
            correlation = common + (1.0 - common) * correlation
        pm.Deterministic(f"{name}_corr", correlation, dims=("member", "member_"))
        return sd[:, None] * correlation * sd

    @staticmethod
    def _observe(
        rows: Rows, levels: Any, truth_mean: Any, base: Any, truth_sd: Any, slope: Any, errors: Any, truth: Any
    ) -> None:
        """The model row by row, as it stands at the top of this file."""
        import pymc as pm
        import pytensor.tensor as pt

        level_mean: Any = truth_mean
        member_mean: Any = base
        for level, (sd, slope_level, covariance) in truth.items():
            code = levels[level][1]
            effect = pm.Normal(f"truth_{level}", 0.0, sd, dims=level)
            bias = pm.MvNormal(f"bias_{level}", mu=np.zeros(rows.f.shape[1]), cov=covariance, dims=(level, "member"))
            level_mean = level_mean + effect[code]
            member_mean = member_mean + effect[code][:, None] * slope_level + bias[code]
        mean = pt.broadcast_to(level_mean, rows.y.shape)
        pm.Normal("y", mean, truth_sd, observed=rows.y)
        member_mean = pt.broadcast_to(member_mean, rows.f.shape) + (rows.y - mean)[:, None] * slope
        patterns, pattern = np.unique(rows.available, axis=0, return_inverse=True)
        for q, present in enumerate(patterns):
            index, columns = np.nonzero(pattern.ravel() == q)[0], np.nonzero(present)[0]
            if len(columns):
                name = "f" if present.all() else "f_" + "".join("x" if p else "o" for p in present)
                pm.MvNormal(name, mu=member_mean[index][:, columns], cov=errors[columns][:, columns],
                            observed=rows.f[np.ix_(index, columns)])  # fmt: skip

    def statistics(self, data: Data) -> Statistics:
        """Return the sufficient statistics of the training rows; the model must be resolved."""
        return self._tally(data).statistics

    def _tally(self, data: Data) -> Tally:
        """Statistics by the levels in use, under their labels."""
        rows = self.summarise(data)
        for level in self._effects:
            rows.check_level(level)
        return rows.tally.keep(group=bool(self.group), site=bool(self.site))

    # ---------------------------------------------------------------------------------------------- what follows from it
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
        out["within"] = _covariance(draw["truth_sd"], draw["slope"], draw["error_sd"], draw.get("residual_corr"))
        for level in self.levels:
            out[level] = np.zeros_like(out["within"])
            if getattr(self, level):
                out[level] = _covariance(draw[f"truth_{level}_sd"], draw[f"slope_{level}"], draw[f"bias_{level}_sd"],
                                         draw.get(f"bias_{level}_corr"))  # fmt: skip
        return out

    def complete(self, posterior: xr.Dataset, data: Data, rng: np.random.Generator) -> xr.Dataset:
        """Draw the effects back, and add what the parameters imply.

        Parameters
        ----------
        posterior : Dataset
            Draws of the parameters; the model must be resolved.
        data : Ensemble or SufficientStatistics
            The training rows.
        rng : numpy.random.Generator

        Returns
        -------
        Dataset
            ``posterior`` with ``truth_group``, ``truth_site``, ``bias_group``, ``bias_site`` for the levels in use,
            ``linear_weight (member)``: V_ff^-1 V_fy at a new site of a known group; and ``error_corr (member, member_)``:
            correlation of f - y within a site.
        """
        from bayesens.likelihoods.multilevel.multilevel import effect_draws

        draw = {str(n): flat(v) for n, v in posterior.data_vars.items()}
        m = self.moments(draw)
        out: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        if self._effects:
            tally = self._tally(data)
            g, s, _ = effect_draws(m["mean"], m["within"], m["site"], m["group"], data=tally.statistics, rng=rng)
            s = s[:, np.argsort(tally.site, kind="stable")]  # from the order of groups to that of labels
            for level, effect in (("group", g), ("site", s)):
                if getattr(self, level):
                    out[f"truth_{level}"] = (level,), effect[:, :, 0]
                    source = effect[:, :, 1:] - effect[:, :, :1] * draw[f"slope_{level}"][:, None, :]
                    out[f"bias_{level}"] = (level, "member"), source
        total = m["within"] + m["site"]
        out["linear_weight"] = ("member",), np.linalg.solve(total[:, 1:, 1:], total[:, 1:, :1])[:, :, 0]
        out["error_corr"] = ("member", "member_"), _error_correlation(m["within"])
        chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
        return posterior.assign({
            name: (("chain", "draw", *dims), values.reshape(chains, draws, *values.shape[1:]))
            for name, (dims, values) in out.items()
        })  # fmt: skip

    # ------------------------------------------------------------------------------------------------------- prediction
    @property
    def needs_history(self) -> bool:
        """Whether predictions at known sites or groups need :meth:`history`; the model must be resolved."""
        return bool(self._effects)

    def history(self, data: Data) -> xr.Dataset:
        """What predictions at known sites and groups need of the training rows; the model must be resolved.

        Parameters
        ----------
        data : Ensemble or SufficientStatistics
            The training rows.

        Returns
        -------
        Dataset
            Sufficient statistics by site, on the transformed scale, with ``place``: where each site of the posterior stands
            among them.
        """
        tally = self._tally(data)
        return tally.statistics.to_dataset().assign(place=("unit", np.argsort(tally.site, kind="stable")))

    def predictive(
        self, posterior: xr.Dataset, ensemble: Ensemble, history: xr.Dataset | None = None
    ) -> PosteriorMixture:
        """Return p(y | f) for every row, on the transformed scale.

        A row at a site of the fit is conditioned on that site's history, a row of a known group on the group's; rows of
        sites and groups that the fit has not seen are predicted as new ones. Missing members are integrated out; a row
        without any has the climatology of its level.

        With ``series=True`` a row at a new site with a label is conditioned on the members of all rows of that label; new
        rows' observations are never used. All these rows are of one group, the known one that any of them has. Each site
        is taken alone: several new sites of a group would say more of the group together.

        Parameters
        ----------
        posterior : Dataset
            Draws with the dimensions ``chain`` and ``draw``; the model must be resolved.
        ensemble : Ensemble
            With the members of the fit, in its order.
        history : Dataset, optional
            Of the training rows, from :meth:`history`: the known effects are integrated out given the history *and* the
            row's own members, which is how to predict rows that the fit has not seen. None conditions on the drawn effects,
            p(y | f, draw): the density of training rows under each draw.

        Returns
        -------
        PosteriorMixture
        """
        rows = prediction_rows(ensemble, self.transform)
        draw = {str(n): flat(v) for n, v in posterior.data_vars.items()}
        m = self.moments(draw)
        code = {
            level: codes(ensemble.labels(level), posterior[level].values, len(rows.y))
            if getattr(self, level) else np.full(len(rows.y), -1)
            for level in self.levels
        }  # fmt: skip
        if history is not None and self.group and self.site:  # a known site keeps its group whatever the table says
            its_group = history["site_group"].values[history["place"].values]
            code["group"] = np.where(code["site"] >= 0, its_group[code["site"]], code["group"])
        new = np.full(len(rows.y), -1)
        if self.series:
            new, code["group"] = new_sites(ensemble.labels("site"), code["site"], code["group"])
        patterns, pattern = np.unique(rows.available, axis=0, return_inverse=True)
        known = None if history is None else _known(m, history)
        effect = _drawn_effects(draw) if known is None else _group_effects(known)
        place = None if history is None or not self.site else history["place"].values

        def before(g: int, s: int) -> tuple[np.ndarray, np.ndarray]:
            """Mean at a place and covariance of its effect, before members are seen."""
            mean, covariance = effect(g, s)
            return m["mean"] + mean, covariance + (s < 0) * m["site"] + (g < 0) * m["group"]

        def columns(q: int) -> np.ndarray:
            return 1 + np.nonzero(patterns[q])[0]

        # What new sites share: the rows' law inside, by pattern, and what is open of a site, by group. What places share of
        # which the effects are drawn: all but their mean.
        common = lru_cache(maxsize=64)(lambda q: inside(m["within"], columns(q)))
        open_root = lru_cache(maxsize=1)(lambda g: root(before(g, -1)[1]))
        slopes = lru_cache(maxsize=64)(lambda g, s, q: regression(m["within"] + before(g, s)[1], columns(q)))

        def line(g: int, s: int, q: int) -> Line:
            """Regression of y on the row's own members at a place."""
            if known is not None and place is not None and s >= 0:
                return known.line(int(place[s]), columns(q))
            slope, variance = slopes(g if known is not None else min(g, 0), min(s, 0), q)
            mean = before(g, s)[0]
            return Line(mean[:, 0] - np.sum(slope * mean[:, columns(q)], axis=1), slope, variance)

        def blocks() -> Iterator[Block]:
            for (g, s, series), members in _by_effect(row_classes(code["group"], code["site"], new, pattern.ravel())):
                if series >= 0:
                    cells = [(common(q).precision, len(index), np.append(0.0, rows.f[index].mean(axis=0)))
                             for q, index in members]  # fmt: skip
                    mean, covariance = given_members(before(g, s)[0], open_root(g), cells)
                for q, index in members:
                    present = columns(q)
                    if series >= 0:  # the row's own members have told of the site already
                        slope = common(q).linear
                        variance = common(q).variance + left_open(slope, present, covariance)
                        one = Line(mean[:, 0] - np.sum(slope * mean[:, present], axis=1), slope, variance)
                    else:
                        one = line(g, s, q)
                    coefficient = np.zeros((len(one.variance), 1, m["mean"].shape[1]))
                    coefficient[:, 0, 0], coefficient[:, 0, present] = one.intercept, one.slope
                    yield Block(index, np.ones((len(one.variance), 1)), coefficient, one.variance[:, None])

        return PosteriorMixture(rows.f, blocks, self.center or 0.0, self.unit or 1.0)

    def coordinates(self, data: Data) -> dict[str, tuple[str, np.ndarray]]:
        """Labels of the levels in use."""
        tally = self._tally(data)
        return {level: (level, np.unique(getattr(tally, level))) for level in self._effects}


def _joint_covariance(truth_sd: Any, slope: Any, errors: Any) -> Any:
    """Covariance of (y, f) of one level, as a tensor."""
    import pytensor.tensor as pt

    direction = pt.concatenate([pt.ones(1), slope])
    return pt.inc_subtensor((truth_sd**2 * pt.outer(direction, direction))[1:, 1:], errors)


def _covariance(truth_sd: np.ndarray, slope: np.ndarray, sd: np.ndarray, correlation: np.ndarray | None) -> np.ndarray:
    """Covariance of (y, f) of one level, for each draw."""
    direction = np.column_stack([np.ones(len(slope)), slope])
    out = truth_sd[:, None, None] ** 2 * direction[:, :, None] * direction[:, None, :]
    shape = np.eye(slope.shape[1]) if correlation is None else correlation
    out[:, 1:, 1:] += sd[:, :, None] * sd[:, None, :] * shape
    return out


Effect = Callable[[int, int], tuple[np.ndarray, np.ndarray]]  # mean and covariance, per draw, at a group and a site


def _drawn_effects(draw: dict[str, np.ndarray]) -> Effect:
    """The effects that the posterior holds: known, once drawn."""

    def effect(g: int, s: int) -> tuple[np.ndarray, np.ndarray]:
        p = draw["bias"].shape[1] + 1
        total = np.zeros((len(draw["bias"]), p))
        for level, code in (("group", g), ("site", s)):
            if code >= 0:
                truth = draw[f"truth_{level}"][:, code, None]
                total[:, :1] += truth
                total[:, 1:] += draw[f"bias_{level}"][:, code] + truth * draw[f"slope_{level}"]
        return total, np.zeros((p, p))

    return effect


def _known(m: dict[str, np.ndarray], history: xr.Dataset) -> KnownSites:
    """The sites of a fit, with the groups' effects given the training rows."""
    from bayesens.ensemble.sufficient import Statistics
    from bayesens.likelihoods.multilevel.multilevel import group_moments

    data = Statistics.from_dataset(history.drop_vars("place"))
    groups = group_moments(m["mean"], m["within"], m["site"], m["group"], data=data)
    return KnownSites(m["mean"], m["within"], m["site"], *groups, data=data)


def _group_effects(known: KnownSites) -> Effect:
    """The groups' effects given the training rows; nothing is known of a new group, or where groups are none."""

    def effect(g: int, s: int) -> tuple[np.ndarray, np.ndarray]:
        p = known.mean.shape[1]
        return (known.group_mean[:, g], known.group_cov[:, g]) if g >= 0 else (np.zeros((1, p)), np.zeros((p, p)))

    return effect


def _by_effect(
    classes: Iterable[tuple[np.ndarray, tuple[int, ...]]],
) -> Iterator[tuple[tuple[int, ...], list[tuple[int, np.ndarray]]]]:
    """Gather classes of rows, sorted by (group, site, new site, pattern), that share their effects."""
    for key, members in groupby(classes, key=lambda item: item[1][:-1]):
        yield key, [(at[-1], index) for index, at in members]


def _error_correlation(covariance: np.ndarray) -> np.ndarray:
    """Correlation of f - y from the covariance of (y, f)."""
    contrast = np.column_stack([-np.ones(covariance.shape[1] - 1), np.eye(covariance.shape[1] - 1)])
    error = contrast @ covariance @ contrast.T
    sd = np.sqrt(np.einsum("sii->si", error))
    return error / (sd[:, :, None] * sd[:, None, :])
