"""What a mixture of kernels has beside its formula: exchangeable members, sigmas, checks of the rows, and the optimum."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from bayesens.ensemble.checks import degenerate
from bayesens.ensemble.collinear import affine_copies
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows
from bayesens.likelihoods.corrected.em import Penalty, corrected_em_starts
from bayesens.likelihoods.corrected.own_correction import CorrectedTable
from bayesens.likelihoods.corrected.posterior import point_correction
from bayesens.likelihoods.corrected.starts import wide_kernels
from bayesens.likelihoods.em import Optimum, residual_sds
from bayesens.likelihoods.priors import Prior
from bayesens.likelihoods.row_checks import check_ties, tied
from bayesens.messages import warn
from bayesens.models.corrected import CorrectedMembers, Data
from bayesens.models.weights import NOT_BY_EM, Groups, check_weights, new_weights, spare, warn_few_values

__all__ = ["SPREAD", "KernelMixture"]

SPREAD = 0.3  # of log sigmas about their mean
NOT_AT_ONCE = {  # options that a joint fit lacks: what it has instead, and what to leave out
    "scale": ("one width for all rows", "scale"),
    "kernel": ("normal kernels", "kernel"),
    "bias_covariates": ("no covariates of the bias", "them"),
    "own_sd": ("no standard deviations of members", "them"),
}


class KernelMixture(CorrectedMembers):
    """Methods of a mixture of one kernel a member."""

    sigma: str | None
    sigma_spread: float | Prior
    sigma_floor: float | None
    sigma_prior: Prior
    weights: str
    weight_prior: Prior
    exchangeable: tuple[tuple[str, ...], ...]
    weight_logit_prior: Prior
    weight_spread_prior: Prior
    other_starts = staticmethod(wide_kernels)
    starts_beside = property(lambda self: self.correction == "joint")  # a mixture of regressions has more optima

    def check_together(self) -> None:
        """Refuse options that a joint fit does not have, and weights without what they follow."""
        check_weights(self)
        for option, (has, leave) in NOT_AT_ONCE.items():
            value = getattr(self, option)
            if self.correction == "joint" and value and value != "normal":
                raise ValueError(f"{type(self).__name__}(correction='joint') has {has}; got {option}={value!r}. Leave {leave} "
                                 "out, or use correction='own'.")  # fmt: skip

    def coords(self, ensemble: Ensemble, groups: Groups | None, named: dict[str, tuple[str, ...]]) -> dict[str, Any]:
        """Labels of the variables' dimensions."""
        cluster = self.cluster(ensemble.members)
        coords: dict[str, Any] = {"member": list(ensemble.members)}
        if cluster.max() + 1 < len(cluster):
            coords["exchangeable"] = [ensemble.members[int(np.argmax(cluster == c))] for c in range(cluster.max() + 1)]
        named = named if groups is None else named | {"group": tuple(groups[0])}
        return coords | {dim: list(names) for dim, names in named.items() if names}

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

        def floored(sigma: Any) -> Any:  # the variance of rounding is added
            return (sigma**2 + self.sigma_floor**2) ** 0.5 if self.sigma_floor else sigma

        assert self.sigma_scale is not None
        sigma_mean = self.sigma_prior.create("sigma_mean", scale=self.sigma_scale)
        if self.sigma == "shared" or len(np.unique(self.cluster(members))) == 1:
            return pm.Deterministic("sigma", floored(sigma_mean) * np.ones(len(members)), dims="member")
        if isinstance(self.sigma_spread, Prior):
            # With a spread that is learned, sigma itself as a variable would have a density without bound at spread zero.
            spread = self.sigma_spread.create("sigma_spread")
            unit = self.by_member(members, "sigma_unit", lambda name, dims: pm.Normal(name, 0.0, 1.0, dims=dims))
            return pm.Deterministic("sigma", floored(sigma_mean * pt.exp(spread * unit)), dims="member")
        free = self.by_member(
            members, "sigma_free" if self.sigma_floor else "sigma",
            lambda name, dims: pm.LogNormal(name, mu=pt.log(sigma_mean), sigma=float(self.sigma_spread), dims=dims),
        )  # fmt: skip
        return pm.Deterministic("sigma", floored(free), dims="member") if self.sigma_floor else free

    def unset(self, data: Ensemble) -> dict[str, Any]:
        """What the training rows say of options that are None."""
        rows, members = self.rows(data), data.members
        found: dict[str, Callable[[], Any]] = {
            "scale": lambda: self.widths_of(members),
            "own_sd": lambda: tuple(data.spread.items()) if self.correction == "own" else (),
            "effects": lambda: "common" if self.correction == "joint" else "source",
            "center": lambda: float(np.mean(rows.y)),
            "unit": lambda: float(np.std(rows.y)),
            "sigma_scale": lambda: self.best_residual(rows, members),
            "sigma_floor": lambda: self.rounding(rows, members),
        }
        told = {name: value() for name, value in found.items() if getattr(self, name) is None}
        return self.levels_of(data, rows) | told

    def best_residual(self, rows: Rows, members: tuple[str, ...]) -> float:
        """Residual standard deviation of the best member, corrected by least squares."""
        residual = residual_sds(rows.y, rows.f, rows.available, bias=self.bias, cluster=self.cluster(members))
        best = float(np.min(residual))
        if best <= 1e-10 * float(np.std(rows.y)):
            raise ValueError(degenerate(members[int(np.argmin(residual))], len(rows.y), "bias correction"))
        return best

    def rounding(self, rows: Rows, members: tuple[str, ...]) -> float:
        """Standard deviation of rounding where observations tie with members, and zero elsewhere."""
        use = ~self.censored(rows)
        y, f, available = rows.y[use], rows.f[use], rows.available[use]
        if len(y) < 2 or not tied(y, f, available):
            return 0.0
        with warnings.catch_warnings():  # what there is to say of ties is said once, by check
            warnings.simplefilter("ignore")
            return check_ties(y, f, available, members)

    def check(self, data: Data) -> None:
        """Refuse or warn of rows that the mixture cannot describe, and of members that are copies or have seen the rows."""
        if isinstance(data, CorrectedTable):
            self.check_corrected(data)
            warn_few_values(self, data)
            data = data.ensemble
        if self.weights == "equal":
            return
        rows = self.rows(data)
        values = np.where(rows.available, rows.f, np.nan)
        used = data if len(rows.index) == data.n_obs else data.select(rows=rows.index)
        for one, other in affine_copies(used, values):
            pair = values[:, [data.members.index(one), data.members.index(other)]]
            if self.bias == "linear" or _shifted(pair, exactly=self.bias == "none"):
                warn(f"Members {one!r} and {other!r} are exact copies of each other up to the bias correction in the "
                     f"{len(rows.y)} training rows: only the sum of their weights is identified. Leave one out.")  # fmt: skip

    def n_parameters(self, data: Data) -> int:
        """Number of parameters, effects and the groups' own departures from the typical weights aside."""
        if self.correction == "own":  # each has its own rows, and the mixture's priors keep its parameters apart
            return self.n_own
        each = {"linear": 2, "additive": 1, "none": 0}[self.bias] + (self.weights != "equal") + (self.sigma == "member")
        return (int(self.cluster(data.members).max()) + 1) * each + (self.sigma == "shared")

    def em(
        self, data: Data, *, starts: int = 12, seed: int = 0, tolerance: float = 1e-10
    ) -> tuple[xr.Dataset, list[Optimum]]:
        """The two steps at their optimum: corrections at their posterior means, then EM for weights, sigmas and widths.

        The mixture's optimum is that of the posterior in the coordinates in which it is sampled, so that weights are never
        zero and no kernel collapses; it knows the families of the default priors, and warns where another prior is left out.
        A joint fit has Raftery's own: least squares, then maximum likelihood.

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
            If the model has weights of groups or covariates, or effects in a joint fit, which this fit does not know.
        """
        if self.weights in NOT_BY_EM:
            raise ValueError(f"method='em' has no weights {NOT_BY_EM[self.weights]}; use method='auto' or 'nuts', or "
                             "weights='global'.")  # fmt: skip
        if self.correction == "joint":
            return self.at_once.em(self, self.prepare(data), starts=starts, seed=seed, tolerance=tolerance)
        table = self.prepare(data)
        table.model.tell_of_other_priors(table.model._priors_of_the_optimum())
        optima = corrected_em_starts(
            table.mixture, cluster=self.cluster(table.members), shared=self.sigma == "shared",
            student=self.kernel == "student_t", fixed_weight=self.weights == "equal", floor=table.model.sigma_floor,
            penalty=table.model._penalty(table.members), starts=starts, seed=seed, tolerance=tolerance,
        )  # fmt: skip
        found = point_correction(table, self.recipe(table.members))
        point = xr.Dataset({name: (dims[2:], values[0, 0]) for name, (dims, values) in found.items()})
        return point.assign_coords(self.coordinates(table)), optima

    def _penalty(self, members: tuple[str, ...]) -> Penalty:
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
        """Options that are priors of what the optimum is one of."""
        asked = {"sigma_spread": self.sigma == "member", "weight_prior": self.weights == "global",
                 "nu_prior": self.kernel == "student_t", "sigma_prior": True, "scale_slope_prior": self.scale}  # fmt: skip
        return [option for option, used in asked.items() if used]

    @property
    def no_optimum(self) -> str:
        """Why no approximation around an optimum stands for the posterior; an empty text where one may."""
        # A wide kernel beside narrow ones and heavier tails of all explain the same rows: a ridge that leads away from the
        # optimum, of which importance weights see little (the tenth percentile of log(nu - 2) was .25 too high at k = .5).
        if self.kernel == "student_t" and self.sigma == "member" and self.weights != "equal":
            return "t kernels with a sigma for each member have no single optimum"
        return ""

    def complete(self, posterior: xr.Dataset, data: Data, rng: np.random.Generator) -> xr.Dataset:
        """Add draws of the corrections, which are independent of the mixture's, and of a new group's weights."""
        if "weight_group" in posterior:
            new = new_weights(posterior, self.cluster(data.members), rng)
            posterior = posterior.assign(weight_new=(("chain", "draw", "member"), new))
        return posterior if self.correction == "joint" else self.with_corrections(posterior, data, rng)


def _number(value: Any) -> float:
    return float(np.mean(value))


def _shifted(pair: np.ndarray, *, exactly: bool) -> bool:
    """Whether two members differ by a constant, or not at all."""
    first, second = pair[np.isfinite(pair).all(axis=1)].T
    difference = second - first
    size = float(np.abs(difference if exactly else difference - difference.mean()).max())
    return size <= 1e-10 * float(np.std(first))
