"""Ensemble model output statistics: a normal around a regression on the members, wider where they disagree.

For row i with members k = 1..K, all of them present, a common centre c, and s_i^2 the members' sample variance (divisor K - 1),

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
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy
import xarray as xr

from bayesens.distributions.posterior_mixture import MEMORY, SD_BINS, SPREAD_FOR_BINS, Block, Moments, PosteriorMixture
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows, flat, prediction_rows, training_rows
from bayesens.likelihoods.corrected.widths import Widths, width_names
from bayesens.likelihoods.em import Optimum
from bayesens.likelihoods.options import ModelValue, check_options
from bayesens.likelihoods.priors import Prior
from bayesens.likelihoods.row_checks import resolution
from bayesens.likelihoods.spread.optimum import Profile
from bayesens.likelihoods.training_checks import (
    at_zero,
    best_residual,
    check_residuals,
    complete_rows,
    refuse_exact,
    warn_copies,
    warn_incomplete,
)
from bayesens.messages import warn
from bayesens.models.joint_pool import log_below_zero
from bayesens.threads import share_out

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["EMOS"]

_PRESETS = {
    "weak": {},
    "vague": {
        "intercept_prior": Prior("Normal", mu=0, sigma=1), "coefficient_prior": Prior("Normal", mu=0, sigma=2),
        "sd_prior": Prior("LogNormal", mu=0, sigma=1), "scale_slope_prior": Prior("Normal", mu=0, sigma=1),
    },
    "sceptical": {
        "intercept_prior": Prior("Normal", mu=0, sigma=0.1), "coefficient_prior": Prior("Normal", mu=0, sigma=0.1),
        "spread_share_prior": Prior("Beta", alpha=1, beta=5), "scale_slope_prior": Prior("Normal", mu=0, sigma=0.1),
    },
}  # fmt: skip
FLOOR = 1e-3  # of the best member's residuals: what sigma is at least
BLOCKS = 64
FEWEST = 200  # draws, below which a row's are not cut by its standard deviation
CACHE = 4e6  # bytes of arrays at a time, which come and go faster if they stay near


@dataclass(frozen=True)
class EMOS(ModelValue):
    """Normal distribution with a regression mean and a variance that is linear in the variance of the members.

    Training rows must have all members; rows to predict that lack some have no prediction.

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
    intercept_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.3))
    coefficient_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.5))
    sd_prior: Prior = field(default=Prior("LogNormal", mu=0, sigma=0.5))
    spread_share_prior: Prior = field(default=Prior("Beta", alpha=1, beta=1))
    scale_slope_prior: Prior = field(default=Prior("Normal", mu=0, sigma=0.3))

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
    needs_all_members: ClassVar[bool] = True
    before: ClassVar[dict[str, Any]] = {
        "scale": (),
        "widths": (),
    }  # what fits are that were saved without these options

    def __post_init__(self) -> None:
        check_options(self)
        scale: Any = self.scale
        if scale is None:
            raise TypeError("EMOS(scale=...) is a sequence of names, such as ('mean', 'season'); got None. Write () for a width "
                            "that follows the members' spread alone.")  # fmt: skip
        if "spread" in scale:
            raise ValueError(f"EMOS(scale=...) names 'mean', 'season' or columns of the table; got {scale!r}. Leave 'spread' "
                             "out: the variance has it already, by spread^2 s_i^2.")  # fmt: skip
        if self.widths is not None and (have := [line[0] for line in self.widths]) != list(width_names(self.scale)):
            raise ValueError(f"EMOS(widths=...) standardises {have}, and scale={self.scale!r} has the columns "
                             f"{list(width_names(self.scale))}; leave widths out, and the training rows give it.")  # fmt: skip
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
        if None not in (self.center, self.unit, self.sigma_scale, self.spread_scale, self.sigma_floor, self.widths):
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
            widths=self._widths_of(rows, ensemble).to_tuples() if self.widths is None else self.widths,
        )  # fmt: skip

    def _widths_of(self, rows: Rows, ensemble: Ensemble) -> Widths:
        names, positive = width_names(self.scale), bool(np.all(rows.y >= 0.0))
        return Widths.of(names, rows.f, rows.available, ensemble, rows.index, positive=positive)

    def _covariates(self, rows: Rows, ensemble: Ensemble) -> np.ndarray:
        """What the widths follow, of the rows of a resolved model, (row, covariate)."""
        assert self.widths is not None or not self.scale
        return Widths.from_tuples(self.widths or ()).at(rows.f, rows.available, ensemble, rows.index)

    def check(self, ensemble: Ensemble) -> None:
        """Refuse or warn of members that tie with the observations, have seen them, are far off, or copy each other."""
        rows = self._rows(ensemble)
        refuse_exact(rows, ensemble.members)
        warn_copies(ensemble, rows)
        x = self.resolve(ensemble)._covariates(rows, ensemble)
        check_residuals(rows, ensemble.members, "linear", self.transform, x)

    def n_parameters(self, ensemble: Ensemble) -> int:
        """Number of parameters."""
        return ensemble.n_members + 3 + len(width_names(self.scale))

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
        k, names, x = ensemble.n_members, width_names(self.scale), model._covariates(rows, ensemble)
        coords = {"member": list(ensemble.members)} | ({"scale_covariate": list(names)} if names else {})
        with pm.Model(coords=coords) as pymc_model:
            intercept = self.intercept_prior.create("intercept", scale=model.unit)
            linear = self.coefficient_prior.create("linear_weight", shift=1.0 / k, dims="member")
            sd = self.sd_prior.create("sd", scale=model.sigma_scale)
            share = self.spread_share_prior.create("spread_share")
            slope: Any = self.scale_slope_prior.create("scale_slope", dims="scale_covariate") if names else None
            scale = pytensor.shared(np.float64(model.spread_scale))
            floor = pytensor.shared(np.float64(model.sigma_floor))
            share = share * sd**2 / (sd**2 + floor**2)  # with a share of one, sigma is the floor
            sigma = pm.Deterministic("sigma", sd * pt.sqrt(1.0 - share))
            spread = pm.Deterministic("spread", sd * pt.sqrt(share) / scale)
            if likelihood == "rows":
                c = pytensor.shared(np.float64(model.center))
                mean = c + intercept + (linear * (rows.f - c)).sum(axis=1)
                width = pt.sqrt(sigma**2 + spread**2 * _spread(rows))
                width = width * pt.exp((x * slope).sum(axis=1)) if names else width
                if low.any():
                    pm.Censored("y", pm.Normal.dist(mean, width), lower=0.0, upper=None, observed=rows.y)
                else:
                    pm.Normal("y", mean, width, observed=rows.y)
            else:
                from bayesens.likelihoods.spread.regression import spread_loglik

                parameters = pt.stack([
                    intercept, *(linear[j] for j in range(k)), pt.log(sd), share, *(slope[j] for j in range(len(names)))
                ])  # fmt: skip
                apart = rows.f - model.center
                loglik = spread_loglik(
                    parameters, y=rows.y[~low] - model.center, f=apart[~low],
                    excess=_spread(rows)[~low] / model.spread_scale**2 - 1.0, x=x[~low],
                )  # fmt: skip
                if low.any():
                    below, wide = pytensor.shared(apart[low]), pytensor.shared(_spread(rows)[low])
                    mean = model.center + intercept + (linear * below).sum(axis=1)
                    width = pt.sqrt(sigma**2 + spread**2 * wide)
                    width = width * pt.exp((pytensor.shared(x[low]) * slope).sum(axis=1)) if names else width
                    loglik = loglik + log_below_zero(mean, width).sum()
                pm.Potential("loglik", loglik)
        return pymc_model

    # ---------------------------------------------------------------------------------------------- maximum likelihood
    def em(
        self, ensemble: Ensemble, *, starts: int = 12, seed: int = 0, tolerance: float = 1e-10
    ) -> tuple[xr.Dataset, list[Optimum]]:
        """Maximum likelihood: weighted least squares at each share of the spread, and a search for the best share.

        With zeros under the square root the regression at each share is that of the censored normal. The widths' coefficients
        have their prior, without which a row that the regression can meet alone leaves the likelihood without bound: its
        family is that of the default, and another is left out with a warning.

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
        floor, x = model.sigma_floor**2, model._covariates(rows, ensemble)
        profile = Profile(
            np.column_stack([np.ones(len(rows.y)), rows.f - model.center]), rows.y - model.center,
            _spread(rows) / model.spread_scale**2 - 1.0, x, at_zero(rows, self.transform), floor,
        )  # fmt: skip
        found = profile.best(*self._prior_of_widths(), tolerance=tolerance)
        square, share = found.square, found.share
        data = {
            "intercept": ((), found.coefficient[0]), "linear_weight": ("member", found.coefficient[1:]),
            "sd": ((), np.sqrt(square)), "spread_share": ((), share * (1.0 + floor / square)),
            "sigma": ((), np.sqrt(square * (1.0 - share))), "spread": ((), np.sqrt(square * share) / model.spread_scale),
        }  # fmt: skip
        coords = {"member": np.array(ensemble.members)}
        if x.shape[1]:
            data["scale_slope"] = ("scale_covariate", found.slope)
            coords["scale_covariate"] = np.array(width_names(self.scale), dtype=np.str_)
        none = np.ones(0)  # everything stands in the parameters
        optimum = Optimum(none, none, found.loglik, found.passes, found.converged, "least squares")
        return xr.Dataset(data, coords=coords), [optimum]

    def _prior_of_widths(self) -> tuple[float, float]:
        """Mean and standard deviation of the widths' coefficients; those of the default for another family."""
        prior, default = self.scale_slope_prior, EMOS.scale_slope_prior
        if self.scale and prior.family != default.family:
            warn(f"method='em' of EMOS knows Normal priors of the widths' coefficients alone, and takes the default in place of "
                 f"scale_slope_prior={prior!r}. Use method='auto' for this prior.")  # fmt: skip
        known = dict((prior if prior.family == default.family else default).parameters)
        return float(np.mean(known.get("mu", 0.0))), float(np.mean(known.get("sigma", 1.0)))

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
        spread, x = _spread(rows), self._covariates(rows, ensemble)
        slope = np.ascontiguousarray(draw.get("scale_slope", np.zeros((len(sigma), 0))))
        complete = np.flatnonzero(rows.available.all(axis=1))
        typical = (sigma.mean() + factor.mean() * spread) * np.exp(2.0 * x @ slope.mean(axis=0))
        order = complete[np.argsort(typical[complete], kind="stable")]

        def blocks() -> Iterator[Block]:
            """Rows of about the same variance."""
            for index in np.array_split(order, min(BLOCKS, len(order))) if len(order) else ():
                variance = sigma + factor * spread[index].mean()
                variance = variance * np.exp(2.0 * slope @ x[index].mean(axis=0))
                yield Block(np.sort(index), np.ones((len(sigma), 1)), coefficient, variance[:, None])

        return _SpreadMixture(rows.f, blocks, self.center, self.unit or 1.0, spread=spread, sigma=sigma, factor=factor,
                              x=x, slope=slope)  # fmt: skip


def _spread(rows: Rows) -> np.ndarray:
    """Sample variance of the members of each row; of rows that lack some it means nothing."""
    return np.asarray(np.var(rows.f, axis=1, ddof=1))


@dataclass(frozen=True, kw_only=True)
class _SpreadMixture(PosteriorMixture):
    """One normal a draw, whose variance is linear in the row's spread and log-linear in its covariates.

    The variances of the blocks are those at the means of each; everything here takes every row's own.

    Attributes
    ----------
    spread : array (row)
    sigma, factor : array (draw)
    x : array (row, covariate)
    slope : array (draw, covariate)
        The variance is ``(sigma + factor * spread) * exp(2 * x @ slope)``.
    """

    spread: np.ndarray
    sigma: np.ndarray
    factor: np.ndarray
    x: np.ndarray
    slope: np.ndarray

    def moments(self) -> Moments:
        """Exact mean and variance parts over all draws."""
        moments = super().moments()
        own = self._mean_variance(np.arange(len(self.spread)))
        return replace(moments, within=np.where(np.isnan(moments.mean), np.nan, own))

    def _mean_variance(self, rows: np.ndarray) -> np.ndarray:
        """Mean over draws of rows' variances, (row)."""
        if not self.slope.shape[1]:
            return np.asarray(self.sigma.mean() + self.factor.mean() * self.spread[rows])
        from bayesens.likelihoods.corrected.loops import mean_width

        x, spread, out = np.ascontiguousarray(self.x[rows]), self.spread[rows, None], np.empty(len(rows))
        width, factor = np.ascontiguousarray(self.slope.T), np.ascontiguousarray(self.factor[None])
        share_out(lambda part: mean_width(x[part], spread[part], width, self.sigma, factor, out[part]), len(out))
        return out

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
                        values[low] = scipy.special.log_ndtr(-mean[low] / np.sqrt(variance[low]))
                    visit(some, values)

                share_out(show, len(rows))

    def _mean_and_variance(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Of every row under every draw, (row, draw)."""
        variance = self.sigma + self.factor * self.spread[block.rows, None]
        if self.slope.shape[1]:
            variance *= np.exp(2.0 * (self.x[block.rows] @ self.slope.T))
        return self._design(block) @ block.coefficient[:, 0].T, variance

    def _matched_block(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One normal, or, where the standard deviation varies over draws, one a bin of it.

        Given the variances the coefficients' posterior is close to normal, so that their mean and covariance in each bin
        are enough.
        """
        x = self._design(block)
        if self.slope.shape[1] and len(self.sigma) >= FEWEST:
            return self._matched_rows(x, block)
        bins = [np.arange(len(self.sigma))] if self.slope.shape[1] else _bins(block.variance[:, 0])
        out = np.empty((3, len(x), len(bins)))
        for b, subset in enumerate(bins):
            coefficient = block.coefficient[subset, 0]
            apart = coefficient - coefficient.mean(axis=0)
            parameter = np.einsum("ri,ij,rj->r", x, apart.T @ apart / len(subset), x, optimize=True)
            some = replace(self, sigma=self.sigma[subset], factor=self.factor[subset], slope=self.slope[subset])
            variance = some._mean_variance(block.rows)
            out[0, :, b] = len(subset) / len(self.sigma)
            out[1, :, b] = x @ coefficient.mean(axis=0)
            out[2, :, b] = np.sqrt(variance + parameter)
        return out[0], out[1], out[2]

    def _matched_rows(self, design: np.ndarray, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same where each row's draws are cut by its own standard deviation.

        Widths that follow covariates have another order of draws in every row: cut by that of a typical row, or with the
        logarithm of the standard deviation taken as normal, outer quantiles err by up to a tenth of an interval.
        """
        from bayesens.likelihoods.spread.loops import BINS, matched_rows

        coefficient = block.coefficient[:, 0]
        centre = coefficient.mean(axis=0)
        by_draw = (np.ascontiguousarray((coefficient - centre).T), self.sigma, self.factor,
                   np.ascontiguousarray(self.slope.T), BINS)  # fmt: skip
        x, spread = np.ascontiguousarray(self.x[block.rows]), self.spread[block.rows]
        weight, mean, sd = (np.empty((len(design), len(BINS) - 1)) for _ in range(3))
        share_out(lambda part: matched_rows(design[part], x[part], spread[part], *by_draw, weight[part], mean[part], sd[part]),
                  len(design))  # fmt: skip
        return weight, (design @ centre)[:, None] + mean, sd

    def variances(self, block: Block, draw: np.ndarray) -> np.ndarray:
        """Variances of a block's rows under some draws, (draw, row, 1); see :meth:`PosteriorMixture.variances`."""
        if not self.slope.shape[1]:
            return super().variances(block, draw)
        one = replace(self, sigma=self.sigma[draw], factor=self.factor[draw], slope=self.slope[draw])
        return one._mean_and_variance(replace(block, coefficient=block.coefficient[draw]))[1].T[:, :, None]

    def _sample_block(self, block: Block, draw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        picked = replace(self, sigma=self.sigma[draw], factor=self.factor[draw], slope=self.slope[draw])
        mean, variance = picked._mean_and_variance(replace(block, coefficient=block.coefficient[draw]))
        return np.asarray((mean + np.sqrt(variance) * rng.standard_normal(mean.shape)).T)


def _bins(variance: np.ndarray) -> list[np.ndarray]:
    """Draws cut by their standard deviation where it varies enough to give the mixture heavier tails."""
    sd = np.sqrt(variance)
    if len(sd) < 20 * len(SD_BINS) or np.std(sd) <= SPREAD_FOR_BINS * np.mean(sd):
        return [np.arange(len(sd))]
    order = np.argsort(sd, kind="stable")
    return np.split(order, np.round(SD_BINS[1:-1] * len(sd)).astype(int))
