"""Ensemble model output statistics: a normal around a regression on the members, wider where they disagree.

For row i with members k = 1..K, all of them present, a common centre c, and s_i^2 the members' sample variance (divisor K - 1),

    y_i ~ Normal(m_i, sigma^2 + spread^2 s_i^2)
    m_i = c + intercept + sum_k linear_weight_k (f_ik - c)

    intercept       ~ Normal(0, .3 h)           h = sd(y): priors scale with the data
    linear_weight_k ~ Normal(1 / K, .5)
    sd              ~ s0 LogNormal(0, .5)       s0: residual sd of the best member
    spread_share    ~ Beta(1, 1)

where sd^2 = sigma^2 + spread^2 v is the variance at the mean spread v of the training rows, and the part of it that
spread^2 v makes up is

    spread_share / (1 + r^2 / sd^2)

with r, the sd of the observations' rounding and at least a thousandth of s0: sigma is r, not zero, at a share of one, because
rows whose members agree exactly need some variance. With a share of zero this is the linear pool with free weights. Under
``transform="sqrt"`` the normal is censored at zero: an observed zero has the probability of all that lies below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr
from scipy import optimize
from scipy.special import log_ndtr

from bayesens.ensemble import Ensemble
from bayesens.likelihoods.em import Optimum
from bayesens.models.joint_pool import log_below_zero
from bayesens.options import check_options
from bayesens.pooling import normal_loglik, regression
from bayesens.predictive import MEMORY, SD_BINS, SPREAD_FOR_BINS, Block, Moments, PosteriorMixture
from bayesens.priors import Prior
from bayesens.row_checks import resolution
from bayesens.rows import Rows, flat, prediction_rows, training_rows
from bayesens.threads import share_out
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

__all__ = ["EMOS"]

_PRESETS = {
    "weak": {},
    "vague": {
        "intercept_prior": Prior("Normal", mu=0, sigma=1), "coefficient_prior": Prior("Normal", mu=0, sigma=2),
        "sd_prior": Prior("LogNormal", mu=0, sigma=1),
    },
    "sceptical": {
        "intercept_prior": Prior("Normal", mu=0, sigma=0.1), "coefficient_prior": Prior("Normal", mu=0, sigma=0.1),
        "spread_share_prior": Prior("Beta", alpha=1, beta=5),
    },
}  # fmt: skip
FLOOR = 1e-3  # of the best member's residuals: what sigma is at least
LARGEST_SHARE = 1.0 - 1e-6  # of maximum likelihood: a row whose members agree needs some variance
SHARES = np.linspace(0.0, 1.0, 21) ** 2 * LARGEST_SHARE  # where the likelihood is tried before the search
BLOCKS = 64
CACHE = 4e6  # bytes of arrays at a time, which come and go faster if they stay near


@dataclass(frozen=True)
class EMOS:
    """Normal distribution with a regression mean and a variance that is linear in the variance of the members.

    Training rows must have all members; rows to predict that lack some have no prediction.

    Parameters
    ----------
    transform : {"identity", "sqrt", "log"}
        Applied to the observation and to all members; predictions come back in the observation's units.
    center, unit, sigma_scale, spread_scale, sigma_floor : float, optional
        Origin of the intercept, unit of the priors, prior median of ``sd``, root of the mean spread, and what sigma is at
        least, on the transformed scale; None takes the mean and the standard deviation of the observations, the residual
        standard deviation of the best member, the root of the mean sample variance of the members, and the standard
        deviation of the observations' rounding or a thousandth of ``sigma_scale``, whichever is more.
    intercept_prior, coefficient_prior, sd_prior, spread_share_prior : Prior
        Priors. That of the intercept is in units of ``unit``, that of ``sd`` of ``sigma_scale``; that of the coefficients
        is about one over the number of members.

    References
    ----------
    Gneiting, Raftery, Westveld and Goldman (2005), Monthly Weather Review 133, 1098-1118.

    Examples
    --------
    >>> EMOS(transform="sqrt").transform
    'sqrt'
    """

    transform: str = "identity"
    center: float | None = None
    unit: float | None = None
    sigma_scale: float | None = None
    spread_scale: float | None = None
    sigma_floor: float | None = None
    intercept_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.3))
    coefficient_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.5))
    sd_prior: Prior = field(default=Prior("LogNormal", mu=0, sigma=0.5))
    spread_share_prior: Prior = field(default=Prior("Beta", alpha=1, beta=1))

    choices: ClassVar[dict[str, tuple[str, ...]]] = {"transform": ("identity", "sqrt", "log")}
    needs_member: ClassVar[bool] = True
    needs_all_members: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self)
        for name in ("spread_scale", "sigma_floor"):
            if (value := getattr(self, name)) is not None and not (np.isfinite(value) and value > 0):
                raise ValueError(f"EMOS({name}=...) must be positive; got {value!r}.")

    @classmethod
    def preset(cls, name: str, **options: Any) -> EMOS:
        """Return the model with a named set of priors: ``"weak"`` (the default), ``"vague"`` or ``"sceptical"``.

        Examples
        --------
        >>> EMOS.preset("sceptical").spread_share_prior
        Prior("Beta", alpha=1.0, beta=5.0)
        """
        if name not in _PRESETS:
            raise ValueError(f"EMOS has the presets {', '.join(_PRESETS)}; got {name!r}.")
        return cls(**{**_PRESETS[name], **options})

    # ------------------------------------------------------------------------------------------------ what the data set
    def resolve(self, ensemble: Ensemble) -> EMOS:
        """Return the model with ``center`` and the scales filled in from the training rows."""
        if None not in (self.center, self.unit, self.sigma_scale, self.spread_scale, self.sigma_floor):
            return self
        rows = self._rows(ensemble)
        spread = self.spread_scale or float(np.sqrt(np.mean(_spread(rows))))
        if not spread > 1e-10 * np.std(rows.y):
            raise ValueError(
                f"The members agree in all {len(rows.y)} training rows, and EMOS takes its variance from how they differ; "
                "use SingleMember or LinearPool."
            )
        best = best_residual(rows, ensemble.members, "linear") if self.sigma_scale is None else self.sigma_scale
        return replace(
            self,
            center=float(np.mean(rows.y)) if self.center is None else self.center,
            unit=float(np.std(rows.y)) if self.unit is None else self.unit,
            sigma_scale=best,
            spread_scale=spread,
            sigma_floor=max(resolution(rows.y) / np.sqrt(12.0), FLOOR * best) if self.sigma_floor is None
            else self.sigma_floor,
        )  # fmt: skip

    def check(self, ensemble: Ensemble) -> None:
        """Refuse or warn of members that tie with the observations, have seen them, are far off, or copy each other."""
        rows = self._rows(ensemble)
        refuse_exact(rows, ensemble.members)
        warn_copies(ensemble, rows)
        check_residuals(rows, ensemble.members, "linear", self.transform)

    def n_parameters(self, ensemble: Ensemble) -> int:
        """Number of parameters."""
        return ensemble.n_members + 3

    def _rows(self, ensemble: Ensemble) -> Rows:
        if ensemble.n_members < 2:
            raise ValueError(f"EMOS takes its variance from how the members differ, and the ensemble has only "
                             f"{ensemble.members[0]!r}; use SingleMember.")  # fmt: skip
        return complete_rows(training_rows(ensemble, self.transform, need_member=True), ensemble, "EMOS")

    # ---------------------------------------------------------------------------------------------------- the posterior
    def build(self, ensemble: Ensemble, likelihood: str = "fused") -> pm.Model:
        """Return the PyMC model.

        Parameters
        ----------
        ensemble : Ensemble
            Rows without an observation or without any member are left out.
        likelihood : {"fused", "rows"}
            ``"rows"`` is the plain regression with observed ``y``; ``"fused"`` is the same density in one pass.

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
        assert model.center is not None and model.unit is not None
        assert model.sigma_scale is not None and model.spread_scale is not None and model.sigma_floor is not None
        low = at_zero(rows, self.transform)
        k = ensemble.n_members
        with pm.Model(coords={"member": list(ensemble.members)}) as pymc_model:
            intercept = self.intercept_prior.create("intercept", scale=model.unit)
            linear = self.coefficient_prior.create("linear_weight", shift=1.0 / k, dims="member")
            sd = self.sd_prior.create("sd", scale=model.sigma_scale)
            share = self.spread_share_prior.create("spread_share")
            scale = pytensor.shared(np.float64(model.spread_scale))
            floor = pytensor.shared(np.float64(model.sigma_floor))
            share = share * sd**2 / (sd**2 + floor**2)  # with a share of one, sigma is the floor
            sigma = pm.Deterministic("sigma", sd * pt.sqrt(1.0 - share))
            spread = pm.Deterministic("spread", sd * pt.sqrt(share) / scale)
            if likelihood == "rows":
                c = pytensor.shared(np.float64(model.center))
                mean = c + intercept + (linear * (rows.f - c)).sum(axis=1)
                width = pt.sqrt(sigma**2 + spread**2 * _spread(rows))
                if low.any():
                    pm.Censored("y", pm.Normal.dist(mean, width), lower=0.0, upper=None, observed=rows.y)
                else:
                    pm.Normal("y", mean, width, observed=rows.y)
            else:
                from bayesens.spread import spread_loglik

                parameters = pt.stack([intercept, *(linear[j] for j in range(k)), pt.log(sd), share])
                apart = rows.f - model.center
                loglik = spread_loglik(
                    parameters, y=rows.y[~low] - model.center, f=apart[~low],
                    excess=_spread(rows)[~low] / model.spread_scale**2 - 1.0,
                )  # fmt: skip
                if low.any():
                    below, wide = pytensor.shared(apart[low]), pytensor.shared(_spread(rows)[low])
                    mean = model.center + intercept + (linear * below).sum(axis=1)
                    width = pt.sqrt(sigma**2 + spread**2 * wide)
                    loglik = loglik + log_below_zero(mean, width).sum()
                pm.Potential("loglik", loglik)
        return pymc_model

    # ---------------------------------------------------------------------------------------------- maximum likelihood
    def em(
        self, ensemble: Ensemble, *, starts: int = 12, seed: int = 0, tolerance: float = 1e-10
    ) -> tuple[xr.Dataset, list[Optimum]]:
        """Maximum likelihood: weighted least squares at each share of the spread, and a search for the best share.

        With zeros under the square root the regression at each share is that of the censored normal.

        Parameters
        ----------
        ensemble : Ensemble
        starts, seed : int
            Not used: the likelihood is tried at 21 shares first.
        tolerance : float
            Of the share, at which the search ends.

        Returns
        -------
        parameters : Dataset
            All that the posterior has.
        optima : list of Optimum
            The best one.
        """
        model, rows = self.resolve(ensemble), self._rows(ensemble)
        assert model.center is not None and model.spread_scale is not None and model.sigma_floor is not None
        zero, floor = at_zero(rows, self.transform), model.sigma_floor**2
        design = np.column_stack([np.ones(len(rows.y)), rows.f - model.center])
        y, excess = rows.y - model.center, _spread(rows) / model.spread_scale**2 - 1.0

        def at(share: float) -> tuple[float, np.ndarray, float]:
            """Minus the mean log likelihood, coefficients and variance that are best for a share."""
            root = np.sqrt(1.0 + share * excess)
            found, square, loglik, _, _ = regression(design / root[:, None], y / root, zero)
            if square * (1.0 - share) < floor * share:
                square = floor * share / (1.0 - share)
                loglik = normal_loglik((y - design @ found) / root, np.sqrt(square), zero)
            return float(np.log(root[~zero]).sum() - loglik) / len(y), found, square

        values = [at(share)[0] for share in SHARES]
        best = int(np.argmin(values))
        low, high = SHARES[max(best - 1, 0)], SHARES[min(best + 1, len(SHARES) - 1)]
        result = optimize.minimize_scalar(lambda s: at(s)[0], bounds=(low, high), method="bounded",
                                          options={"xatol": tolerance})  # fmt: skip
        share = float(result.x) if result.fun < values[best] else float(SHARES[best])
        value, found, square = at(share)
        data = {
            "intercept": ((), found[0]), "linear_weight": ("member", found[1:]), "sd": ((), np.sqrt(square)),
            "spread_share": ((), share * (1.0 + floor / square)), "sigma": ((), np.sqrt(square * (1.0 - share))),
            "spread": ((), np.sqrt(square * share) / model.spread_scale),
        }  # fmt: skip
        dataset = xr.Dataset(data, coords={"member": np.array(ensemble.members)})
        passes = len(SHARES) + int(result.nfev)
        return dataset, [
            Optimum(np.ones(0), np.ones(0), -len(y) * value, passes, bool(result.success), "least squares")
        ]

    # ------------------------------------------------------------------------------------------------------- prediction
    def predictive(self, posterior: xr.Dataset, ensemble: Ensemble) -> PosteriorMixture:
        """Return p(y | f) for every row, on the transformed scale; rows that lack a member have none.

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
            For rows that lack some member.
        """
        assert self.center is not None
        rows = prediction_rows(ensemble, self.transform)
        warn_incomplete(rows, ensemble)
        draw = {str(n): flat(v) for n, v in posterior.data_vars.items()}
        linear, sigma, factor = np.ascontiguousarray(draw["linear_weight"]), draw["sigma"] ** 2, draw["spread"] ** 2
        level = self.center + draw["intercept"] - self.center * linear.sum(axis=1)
        coefficient = np.column_stack([level, linear])[:, None, :]
        spread = _spread(rows)
        complete = np.flatnonzero(rows.available.all(axis=1))
        order = complete[np.argsort(spread[complete], kind="stable")]

        def blocks() -> Iterator[Block]:
            """Rows of about the same spread."""
            for index in np.array_split(order, min(BLOCKS, len(order))) if len(order) else ():
                variance = sigma + factor * spread[index].mean()
                yield Block(np.sort(index), np.ones((len(sigma), 1)), coefficient, variance[:, None])

        return _SpreadMixture(rows.f, blocks, self.center, self.unit or 1.0, spread=spread, sigma=sigma, factor=factor)


def _spread(rows: Rows) -> np.ndarray:
    """Sample variance of the members of each row; of rows that lack some it means nothing."""
    return np.asarray(np.var(rows.f, axis=1, ddof=1))


@dataclass(frozen=True, kw_only=True)
class _SpreadMixture(PosteriorMixture):
    """One normal a draw, whose variance is linear in the row's spread.

    The variances of the blocks are those at the mean spread of each; everything here takes every row's own.

    Attributes
    ----------
    spread : array (row)
    sigma, factor : array (draw)
        The variance is ``sigma + factor * spread``.
    """

    spread: np.ndarray
    sigma: np.ndarray
    factor: np.ndarray

    def moments(self) -> Moments:
        """Exact mean and variance parts over all draws."""
        moments = super().moments()
        own = self.sigma.mean() + self.factor.mean() * self.spread
        return replace(moments, within=np.where(np.isnan(moments.mean), np.nan, own))

    def by_row(
        self,
        visit: Callable[[np.ndarray, np.ndarray], None],
        z: np.ndarray,
        *,
        below: np.ndarray | None = None,
        memory: float = MEMORY,
    ) -> None:
        """Show the log densities of rows under all draws to a function; see :meth:`PosteriorMixture.by_row`."""
        below = np.zeros(len(z), dtype=bool) if below is None else below
        for block in self.blocks():
            step = max(1, int(min(memory, CACHE) // (4 * 8 * len(self.sigma))))
            for start in range(0, len(block.rows), step):
                rows = block.rows[start : start + step]

                def show(part: slice, rows: np.ndarray = rows, block: Block = block) -> None:
                    some = rows[part]
                    mean, variance = self._mean_and_variance(replace(block, rows=some))
                    values = z[some, None] - mean
                    values *= values
                    values /= variance
                    values += np.log(2.0 * np.pi * variance)
                    values *= -0.5
                    if (low := below[some]).any():
                        values[low] = log_ndtr(-mean[low] / np.sqrt(variance[low]))
                    visit(some, values)

                share_out(show, len(rows))

    def _mean_and_variance(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Of every row under every draw, (row, draw)."""
        return self._design(block) @ block.coefficient[:, 0].T, self.sigma + self.factor * self.spread[block.rows, None]

    def _matched_block(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One normal, or, where the standard deviation varies over draws, one a bin of it.

        Given the variances the coefficients' posterior is close to normal, so that their mean and covariance in each bin
        are enough.
        """
        x, spread = self._design(block), self.spread[block.rows]
        bins = _bins(block.variance[:, 0])
        out = np.empty((3, len(x), len(bins)))
        for b, subset in enumerate(bins):
            coefficient = block.coefficient[subset, 0]
            apart = coefficient - coefficient.mean(axis=0)
            parameter = np.einsum("ri,ij,rj->r", x, apart.T @ apart / len(subset), x, optimize=True)
            variance = self.sigma[subset].mean() + self.factor[subset].mean() * spread
            out[0, :, b] = len(subset) / len(self.sigma)
            out[1, :, b] = x @ coefficient.mean(axis=0)
            out[2, :, b] = np.sqrt(variance + parameter)
        return out[0], out[1], out[2]

    def _sample_block(self, block: Block, draw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        picked = replace(self, sigma=self.sigma[draw], factor=self.factor[draw])
        mean, variance = picked._mean_and_variance(replace(block, coefficient=block.coefficient[draw]))
        return np.asarray((mean + np.sqrt(variance) * rng.standard_normal(mean.shape)).T)


def _bins(variance: np.ndarray) -> list[np.ndarray]:
    """Draws cut by their standard deviation where it varies enough to give the mixture heavier tails."""
    sd = np.sqrt(variance)
    if len(sd) < 20 * len(SD_BINS) or np.std(sd) <= SPREAD_FOR_BINS * np.mean(sd):
        return [np.arange(len(sd))]
    order = np.argsort(sd, kind="stable")
    return np.split(order, np.round(SD_BINS[1:-1] * len(sd)).astype(int))
