"""Bayesian model averaging: a mixture of normal kernels around bias-corrected members (Raftery et al. 2005).

For row i, with members k = 1..K present in the set A_i and a common centre c,

    p(y_i | f_i) = sum_{k in A_i} w_k / (sum_{j in A_i} w_j)  N(y_i; m_ik, sigma_k^2)
    m_ik         = c - bias_k + slope_k (f_ik - c) + offset_group[g_i] + offset_site[s_i]

    w            ~ Dirichlet(1)
    bias_k       ~ Normal(0, .3 h)              h = sd(y): priors scale with the data
    slope_k      ~ Normal(1, .25)
    sigma_k      ~ LogNormal(log sigma_mean, .3)
    sigma_mean   ~ s0 LogNormal(0, .5)          s0: residual sd of the best member
    offset_group ~ Normal(0, offset_group_sd)   offset_group_sd ~ HalfNormal(.5 h); offset_site alike

With ``weights="group"`` row i has the weights w_g of its group g, drawn towards those of a typical group,

    w            = softmax(mu)                  mu      ~ ZeroSumNormal(1)
    w_g          = softmax(mu + delta_g)        delta_g ~ ZeroSumNormal(weight_spread)   weight_spread ~ HalfNormal(.5)

A ZeroSumNormal of the logits, which sums to zero over members, prefers no member and no order of them: its softmax is that
of as many independent normals. Without spread the weights are pooled, with a large one every group has its own fit. A
group that the fit has not seen has new draws of delta, one a posterior draw.

Weights are parameters of this mixture, estimated by its likelihood; they are no probabilities that a member is true.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from bayesens.checks import degenerate, warn
from bayesens.em import Optimum, em_starts, least_squares
from bayesens.ensemble import Ensemble, affine_copies
from bayesens.options import check_options
from bayesens.predictive import Block, PosteriorMixture, row_classes
from bayesens.priors import Prior
from bayesens.rows import Rows, codes, effect_variance, flat, level_rows, prediction_rows, training_rows

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["BMA"]

_PRESETS = {
    "weak": {},
    "vague": {
        "bias_prior": Prior("Normal", mu=0, sigma=1), "slope_prior": Prior("Normal", mu=1, sigma=1),
        "sigma_prior": Prior("LogNormal", mu=0, sigma=1), "sigma_spread": 1.0,
        "group_sd_prior": Prior("HalfNormal", sigma=1), "site_sd_prior": Prior("HalfNormal", sigma=1),
        "weight_logit_prior": Prior("ZeroSumNormal", sigma=1.5), "weight_spread_prior": Prior("HalfNormal", sigma=1.5),
    },
    "sceptical": {
        "weight_prior": Prior("Dirichlet", a=5), "bias_prior": Prior("Normal", mu=0, sigma=0.1),
        "slope_prior": Prior("Normal", mu=1, sigma=0.1), "sigma_spread": 0.1,
        "group_sd_prior": Prior("HalfNormal", sigma=0.2), "site_sd_prior": Prior("HalfNormal", sigma=0.2),
        "weight_logit_prior": Prior("ZeroSumNormal", sigma=0.5), "weight_spread_prior": Prior("HalfNormal", sigma=0.2),
    },
}  # fmt: skip


@dataclass(frozen=True)
class BMA:
    """Bayesian model averaging with normal kernels.

    Parameters
    ----------
    bias : {"linear", "additive", "none"}
        Correction of each member: intercept and slope, intercept only, or none.
    sigma : {"member", "shared"}
        Kernel standard deviations: one a member, pooled by a hierarchical prior of their logarithms, or one for all.
    sigma_spread : float or Prior
        Standard deviation of the logarithms of the members' sigmas about their mean. A number fixes it: a few members
        hardly tell it, and the posterior stays close to normal. A Prior, such as ``Prior("HalfNormal", sigma=0.25)``,
        has it learned.
    weights : {"global", "equal", "group"}
        Estimated, fixed at one over the number of members, or estimated by group with partial pooling: ``weight`` is then
        that of a typical group, ``weight_group`` that of each, and ``weight_new`` a draw for groups that the fit has not
        seen. Independent of ``group``, which shifts the means.
    group, site : bool
        Random effects of group and site in the kernel means.
    effects : {"common", "source"}
        Whether these effects are shared by all kernels or each kernel has its own.
    exchangeable : tuple of tuples of str
        Sets of members that cannot be told apart; each shares weight, bias, slope and sigma.
    transform : {"identity", "sqrt", "log"}
        Applied to the observation and to all members; predictions come back in the observation's units.
    center, scale, sigma_scale : float, optional
        Origin of the bias, unit of the priors, and prior median of sigma, on the transformed scale; None takes the mean
        and the standard deviation of the observations and the residual standard deviation of the best member.
    weight_prior, bias_prior, slope_prior, sigma_prior, group_sd_prior, site_sd_prior : Prior
        Priors; those of bias and of standard deviations are in units of ``scale``, that of sigma of ``sigma_scale``.
    weight_logit_prior, weight_spread_prior : Prior
        Of ``weights="group"``, in place of ``weight_prior``: of the logits of a typical group's weights, and of the
        standard deviation of groups' logits about them. A spread of 1 is an odds ratio of 2.7.

    References
    ----------
    Yao, Pirs, Vehtari and Gelman (2022), Bayesian Analysis 17, 1043-1071, pool weights by group in stacking.
    Raftery, Gneiting, Balabdaoui and Polakowski (2005), Monthly Weather Review 133, 1155-1174.
    Fraley, Raftery and Gneiting (2010), Monthly Weather Review 138, 190-202.

    Examples
    --------
    >>> BMA(sigma="shared", bias="additive").sigma
    'shared'
    """

    bias: str = "linear"
    sigma: str = "member"
    sigma_spread: float | Prior = 0.3
    weights: str = "global"
    group: bool = False
    site: bool = False
    effects: str = "common"
    exchangeable: tuple[tuple[str, ...], ...] = ()
    transform: str = "identity"
    center: float | None = None
    scale: float | None = None
    sigma_scale: float | None = None
    weight_prior: Prior = field(default=Prior("Dirichlet", a=1))
    bias_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.3))
    slope_prior: Prior = field(default=Prior("Normal", mu=1, sigma=0.25))
    sigma_prior: Prior = field(default=Prior("LogNormal", mu=0, sigma=0.5))
    group_sd_prior: Prior = field(default=Prior("HalfNormal", sigma=0.5))
    site_sd_prior: Prior = field(default=Prior("HalfNormal", sigma=0.5))
    weight_logit_prior: Prior = field(default=Prior("ZeroSumNormal", sigma=1))
    weight_spread_prior: Prior = field(default=Prior("HalfNormal", sigma=0.5))

    choices: ClassVar[dict[str, tuple[str, ...]]] = {
        "bias": ("linear", "additive", "none"), "sigma": ("member", "shared"),
        "weights": ("global", "equal", "group"), "effects": ("common", "source"), "transform": ("identity", "sqrt", "log"),
    }  # fmt: skip
    levels: ClassVar[tuple[str, ...]] = ("group", "site")
    needs_member: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)

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

    # ------------------------------------------------------------------------------------------------ what the data set
    def resolve(self, ensemble: Ensemble) -> BMA:
        """Return the model with ``center``, ``scale`` and ``sigma_scale`` filled in from the training rows."""
        if None not in (self.center, self.scale, self.sigma_scale):
            return self
        rows = self._rows(ensemble)
        cluster = self._cluster(ensemble.members)
        intercept, slope = least_squares(rows.y, rows.f, rows.available, bias=self.bias, cluster=cluster)
        squares = np.where(rows.available, (rows.y[:, None] - intercept - slope * rows.f) ** 2, 0.0)
        residual = np.sqrt(squares.sum(axis=0) / rows.available.sum(axis=0))
        best = float(np.min(residual))
        if best <= 1e-10 * float(np.std(rows.y)):
            raise ValueError(degenerate(ensemble.members[int(np.argmin(residual))], len(rows.y), "bias correction"))
        return replace(
            self,
            center=float(np.mean(rows.y)) if self.center is None else self.center,
            scale=float(np.std(rows.y)) if self.scale is None else self.scale,
            sigma_scale=best if self.sigma_scale is None else self.sigma_scale,
        )

    def check(self, ensemble: Ensemble) -> None:
        """Warn of members that are exact copies of each other: only the sum of their weights is identified."""
        if self.weights == "equal":
            return
        rows = self._rows(ensemble)
        values = np.where(rows.available, rows.f, np.nan)
        used = ensemble if len(rows.index) == ensemble.n_obs else ensemble.select(rows=rows.index)
        for one, other in affine_copies(used, values):
            pair = values[:, [ensemble.members.index(one), ensemble.members.index(other)]]
            if self.bias == "linear" or _shifted(pair, exactly=self.bias == "none"):
                warn(f"Members {one!r} and {other!r} are exact copies of each other up to the bias correction in the "
                     f"{len(rows.y)} training rows: only the sum of their weights is identified. Leave one out.")  # fmt: skip

    def n_parameters(self, ensemble: Ensemble) -> int:
        """Number of parameters, effects and the groups' own departures from the typical weights aside."""
        clusters = int(self._cluster(ensemble.members).max()) + 1
        per_cluster = {"linear": 2, "additive": 1, "none": 0}[self.bias] + (self.weights != "equal")
        return clusters * (per_cluster + (self.sigma == "member")) + (self.sigma == "shared")

    def _rows(self, ensemble: Ensemble) -> Rows:
        return training_rows(ensemble, self.transform, need_member=True)

    def _cluster(self, members: tuple[str, ...]) -> np.ndarray:
        """Index of each member's exchangeable set, numbered by first appearance."""
        named = [name for names in self.exchangeable for name in names]
        if unknown := [name for name in named if name not in members]:
            raise ValueError(f"exchangeable names {unknown}, which are not members; the members are {list(members)}.")
        if len(set(named)) < len(named):
            raise ValueError("A member stands in two exchangeable sets; name each once.")
        key = {name: names[0] for names in self.exchangeable for name in names}
        order: dict[str, int] = {}
        return np.array([order.setdefault(key.get(m, m), len(order)) for m in members])

    # ---------------------------------------------------------------------------------------------------- the posterior
    def build(self, ensemble: Ensemble, likelihood: str = "fused") -> pm.Model:
        """Return the PyMC model.

        Parameters
        ----------
        ensemble : Ensemble
            Rows without an observation or without any member are left out.
        likelihood : {"fused", "rows"}
            ``"rows"`` is the plain mixture with observed ``y``; ``"fused"`` is the same density in one pass.

        Returns
        -------
        pymc.Model
        """
        import pymc as pm
        import pytensor
        import pytensor.tensor as pt

        from bayesens.coordinates import EffectCoordinates

        model, rows = self.resolve(ensemble), self._rows(ensemble)
        assert model.center is not None and model.scale is not None and model.sigma_scale is not None
        cluster = self._cluster(ensemble.members)
        coords: dict[str, Any] = {"member": list(ensemble.members)}
        first = [ensemble.members[int(np.argmax(cluster == c))] for c in range(cluster.max() + 1)]
        grouped = len(first) < len(cluster)
        if grouped:
            coords["exchangeable"] = first
        codes_of: dict[str, np.ndarray] = {}
        for level in self._effects:
            coords[level], codes_of[level] = level_rows(ensemble, level, rows.index)
        alike: list[Any] = [slice(None)]  # rows of the same weights
        by_group = self.weights == "group" and len(first) > 1
        if by_group:
            _check_groups(ensemble, rows.index)
            coords["group"], group = level_rows(ensemble, "group", rows.index)
            alike = [np.flatnonzero(group == g) for g in range(len(coords["group"]))]

        def by_member(name: str, make: Any) -> Any:
            """One variable a member, or one a set of exchangeable members, expanded."""
            if not grouped:
                return make(name, "member")
            return pm.Deterministic(name, make(f"{name}_exchangeable", "exchangeable")[cluster], dims="member")

        with pm.Model(coords=coords) as pymc_model:
            if by_group:
                weight, log_weight = self._group_weight(cluster)
            else:
                weight = self._weight(by_member, cluster)
                log_weight = pt.log(weight)
            bias, slope = pt.zeros(len(cluster)), pt.ones(len(cluster))
            if self.bias != "none":
                bias = by_member("bias", lambda n, d: self.bias_prior.create(n, scale=model.scale, dims=d))
            if self.bias == "linear":
                slope = by_member("slope", lambda n, d: self.slope_prior.create(n, dims=d))
            sigma_mean = self.sigma_prior.create("sigma_mean", scale=model.sigma_scale)
            if self.sigma == "member" and len(first) > 1:
                sigma = self._sigma(by_member, sigma_mean)
            else:
                sigma = pm.Deterministic("sigma", sigma_mean * np.ones(len(cluster)), dims="member")
            offset = pt.zeros((0, 1))
            for level, code in codes_of.items():
                dims = (level, "member") if self.effects == "source" else (level,)
                sd = getattr(self, f"{level}_sd_prior").create(f"offset_{level}_sd", scale=model.scale)
                known = effect_variance(codes_of, level, model.sigma_scale)
                own = EffectCoordinates(known[:, None] if self.effects == "source" else known)
                effect = pm.Normal(f"offset_{level}", mu=0.0, sigma=sd, dims=dims, default_transform=own)
                shift = effect[code] if self.effects == "source" else effect[code][:, None]
                offset = shift if offset.type.shape[0] == 0 else offset + shift
            c = pytensor.shared(np.float64(model.center))  # a constant would be compiled anew for every table
            if likelihood == "rows":
                weight = weight[group] if by_group else weight
                self._observe(rows, weight, c - bias + slope * (rows.f - c), sigma, offset if codes_of else None)
            elif likelihood == "fused":
                from bayesens.likelihoods import mixture_loglik

                parts = [
                    mixture_loglik(
                        log_weight[g] if by_group else log_weight, c * (1.0 - slope) - bias, slope, pt.log(sigma),
                        offset[some] if codes_of else offset, y=rows.y[some], f=rows.f[some], available=rows.available[some],
                    )
                    for g, some in enumerate(alike)
                ]  # fmt: skip
                pm.Potential("loglik", sum(parts[1:], parts[0]))
            else:
                raise ValueError(f"likelihood is 'fused' or 'rows'; got {likelihood!r}.")
        return pymc_model

    def _sigma(self, by_member: Any, sigma_mean: Any) -> Any:
        import pymc as pm
        import pytensor.tensor as pt

        if not isinstance(self.sigma_spread, Prior):
            spread = float(self.sigma_spread)
            return by_member("sigma", lambda n, d: pm.LogNormal(n, mu=pt.log(sigma_mean), sigma=spread, dims=d))
        # With a spread that is learned, sigma itself as a variable would have a density without bound at spread zero.
        spread = self.sigma_spread.create("sigma_spread")
        unit = by_member("sigma_unit", lambda n, d: pm.Normal(n, 0.0, 1.0, dims=d))
        return pm.Deterministic("sigma", sigma_mean * pt.exp(spread * unit), dims="member")

    def _weight(self, by_member: Any, cluster: np.ndarray) -> Any:
        import pytensor.tensor as pt

        size = np.bincount(cluster)
        if self.weights == "equal" or len(size) == 1:
            return pt.as_tensor(np.full(len(cluster), 1.0 / len(cluster)))
        prior = self.weight_prior
        if prior.family == "Dirichlet" and isinstance(concentration := dict(prior.parameters)["a"], float):
            prior = Prior("Dirichlet", a=np.full(len(size), concentration))
        if len(size) == len(cluster):
            return by_member("weight", lambda n, d: prior.create(n, dims=d))
        # A set of exchangeable members shares the weight that the prior gives to the set as a whole.
        import pymc as pm

        total = prior.create("weight_exchangeable", dims="exchangeable")
        return pm.Deterministic("weight", (total / size)[cluster], dims="member")

    def _group_weight(self, cluster: np.ndarray) -> tuple[Any, Any]:
        """Weights of the typical group and of each; returns the latter and their logarithms, (group, member)."""
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

    @staticmethod
    def _observe(rows: Rows, weight: Any, mean: Any, sigma: Any, offset: Any) -> None:
        import pymc as pm
        import pytensor.tensor as pt

        present = pt.switch(rows.available, weight, 0.0)
        # A weight of exactly zero has a gradient of nan * 0; the smallest weight that a double holds has none.
        share = pt.switch(rows.available, weight / present.sum(axis=1, keepdims=True), 1e-300)
        location = mean if offset is None else mean + offset
        pm.NormalMixture("y", w=share, mu=location, sigma=sigma, observed=rows.y)

    @property
    def _effects(self) -> tuple[str, ...]:
        return tuple(level for level in self.levels if getattr(self, level))

    # ------------------------------------------------------------------------------------------------------------ by EM
    def em(
        self, ensemble: Ensemble, *, starts: int = 12, seed: int = 0, tolerance: float = 1e-10
    ) -> tuple[xr.Dataset, list[Optimum]]:
        """Raftery's two-stage fit: least-squares bias correction, then EM for weights and sigma.

        Parameters
        ----------
        ensemble : Ensemble
        starts : int
            Starts beside the standard one, in search of other optima.
        seed : int
        tolerance : float
            Relative change of the log likelihood at which EM ends.

        Returns
        -------
        bias : Dataset
            ``bias`` and ``slope`` (member).
        optima : list of Optimum
            That of the standard start first.

        Raises
        ------
        ValueError
            If the model has effects or weights by group, which this fit does not know.
        """
        if self.weights == "group":
            raise ValueError("method='em' has no weights by group; use method='auto' or 'nuts', or weights='global'.")
        if self._effects:
            raise ValueError(f"method='em' has no {' or '.join(self._effects)} effects; use method='auto' or 'nuts'.")
        model, rows = self.resolve(ensemble), self._rows(ensemble)
        assert model.center is not None
        cluster = self._cluster(ensemble.members)
        intercept, slope = least_squares(rows.y, rows.f, rows.available, bias=self.bias, cluster=cluster)
        squares = np.where(rows.available, (rows.y[:, None] - intercept - slope * rows.f) ** 2, 0.0)
        optima = em_starts(squares, rows.available, cluster=cluster, shared=self.sigma == "shared", starts=starts, seed=seed,
                           tolerance=tolerance, fixed_weight=self.weights == "equal")  # fmt: skip
        bias = model.center * (1.0 - slope) - intercept
        return xr.Dataset({"bias": ("member", bias), "slope": ("member", slope)}), optima

    # ------------------------------------------------------------------------------------------------------- prediction
    def complete(self, posterior: xr.Dataset, ensemble: Ensemble, rng: np.random.Generator) -> xr.Dataset:
        """Draw weights of a group that the fit has not seen, once a posterior draw, so that predictions are the same each time.

        Parameters
        ----------
        posterior : Dataset
            Draws of the parameters.
        ensemble : Ensemble
            The training rows.
        rng : numpy.random.Generator

        Returns
        -------
        Dataset
            ``posterior`` with ``weight_new (member)`` where weights are by group.
        """
        if "weight_group" not in posterior:
            return posterior
        cluster = self._cluster(ensemble.members)
        chain, draw, sets = posterior.sizes["chain"], posterior.sizes["draw"], int(cluster.max()) + 1
        # Independent normals stand for zero-sum ones: a shift common to all members changes no weight.
        apart = flat(posterior["weight_spread"])[:, None] * rng.standard_normal((chain * draw, sets))
        odds = flat(posterior["weight"]) * np.exp(apart - apart.max(axis=1, keepdims=True))[:, cluster]
        new = (odds / odds.sum(axis=1, keepdims=True)).reshape(chain, draw, -1)
        return posterior.assign(weight_new=(("chain", "draw", "member"), new))

    def predictive(self, posterior: xr.Dataset, ensemble: Ensemble) -> PosteriorMixture:
        """Return p(y | f) for every row, on the transformed scale; rows without any member have none.

        Parameters
        ----------
        posterior : Dataset
            Draws with the dimensions ``chain`` and ``draw``; the model must be resolved.
        ensemble : Ensemble
            With the members of the fit, in its order. Sites and groups that the fit has not seen are new draws of
            their effect, and such groups have new draws of their weights.

        Returns
        -------
        PosteriorMixture
        """
        assert self.center is not None
        rows = prediction_rows(ensemble, self.transform)
        k, c = len(ensemble.members), self.center
        draw = {str(n): flat(v) for n, v in posterior.data_vars.items()}
        draws = posterior.sizes["chain"] * posterior.sizes["draw"]
        bias = draw.get("bias", np.zeros((draws, k)))
        slope = draw.get("slope", np.ones((draws, k)))
        weight = draw.get("weight", np.full((draws, k), 1.0 / k))
        variance = draw["sigma"] ** 2
        level_codes = {
            level: codes(ensemble.labels(level), posterior[level].values, len(rows.y)) for level in self._effects
        }
        own, group = weight[:, None], np.zeros(len(rows.y), dtype=int)
        if "weight_group" in draw:  # groups that the fit has not seen have the code -1: the last weights
            own = np.concatenate([draw["weight_group"], draw["weight_new"][:, None]], axis=1)
            group = codes(ensemble.labels("group"), posterior["group"].values, len(rows.y))
        patterns, pattern = np.unique(rows.available, axis=0, return_inverse=True)

        def blocks() -> Iterator[Block]:
            for index, key in row_classes(pattern.ravel(), group, *level_codes.values()):
                present = np.nonzero(patterns[key[0]])[0]
                if len(present) == 0:
                    continue
                share = own[:, key[1], present]
                share = share / share.sum(axis=1, keepdims=True)
                intercept = c * (1.0 - slope[:, present]) - bias[:, present]
                spread = variance[:, present]
                for level, code in zip(level_codes, key[2:], strict=True):
                    if code < 0:
                        spread = spread + draw[f"offset_{level}_sd"][:, None] ** 2
                    else:
                        effect = draw[f"offset_{level}"][:, code]
                        intercept = intercept + (effect[:, present] if effect.ndim == 2 else effect[:, None])
                coefficient = np.zeros((draws, len(present), 1 + k))
                coefficient[:, :, 0] = intercept
                coefficient[:, np.arange(len(present)), 1 + present] = slope[:, present]
                yield Block(index, share, coefficient, spread)

        return PosteriorMixture(rows.f, blocks, self.center or 0.0, self.scale or 1.0)


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
