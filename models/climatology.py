"""Climatology: the distribution of the observations, whatever the members say.

y_i ~ Normal(mean + offset_group[g_i] + offset_site[s_i], sd)

mean ~ Normal(c, h)     sd ~ HalfNormal(2 h)     c, h: mean and sd of the observations
offset_group ~ Normal(0, offset_group_sd)        offset_group_sd ~ HalfNormal(h); offset_site alike
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from bayesens.distributions.posterior_mixture import Block, PosteriorMixture, row_classes
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import codes, effect_variance, flat, level_rows, prediction_rows, training_rows
from bayesens.likelihoods.em import Optimum
from bayesens.likelihoods.options import ModelValue, check_options
from bayesens.likelihoods.priors import Prior

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["Climatology"]


@dataclass(frozen=True)
class Climatology(ModelValue):
    """The distribution of the observations themselves, of each group and site if asked.

    Parameters
    ----------
    group, site : bool
        Random effects of group and site in the mean.
    transform : {"identity", "sqrt", "log"}
        Applied to the observation.
    center, unit : float, optional
        Origin and unit of the priors; None takes mean and standard deviation of the observations.
    mean_prior, sd_prior, group_sd_prior, site_sd_prior : Prior
        In units of ``unit``; that of the mean about ``center``.

    Examples
    --------
    >>> Climatology(group=True).group
    True
    """

    group: bool = False
    site: bool = False
    transform: str = "identity"
    center: float | None = None
    unit: float | None = None
    mean_prior: Prior = Prior("Normal", mu=0, sigma=1)
    sd_prior: Prior = Prior("HalfNormal", sigma=2)
    group_sd_prior: Prior = Prior("HalfNormal", sigma=1)
    site_sd_prior: Prior = Prior("HalfNormal", sigma=1)

    spelled: ClassVar[tuple[str, str]] = ("climatology", "climatology")
    assumes: ClassVar[str] = "knows the distribution of the observations, and no member."
    meaning: ClassVar[str] = "the distribution of the observations themselves; it knows no member"
    baseline: ClassVar[bool] = True
    joint: ClassVar[bool] = False
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"transform": ("identity", "sqrt", "log")}
    levels: ClassVar[tuple[str, ...]] = ("group", "site")
    uses_members: ClassVar[bool] = False  # what is wrong with them is no matter here

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def _effects(self) -> tuple[str, ...]:
        return tuple(level for level in self.levels if getattr(self, level))

    def resolve(self, ensemble: Ensemble) -> Climatology:
        """Return the model with ``center`` and ``unit`` filled in from the training rows."""
        y = training_rows(ensemble, self.transform, need_member=False).y
        return replace(
            self,
            center=float(np.mean(y)) if self.center is None else self.center,
            unit=float(np.std(y)) if self.unit is None else self.unit,
        )

    def n_parameters(self, ensemble: Ensemble) -> int:
        """Number of parameters, effects aside."""
        return 2 + len(self._effects)

    def build(self, ensemble: Ensemble, likelihood: str = "fused") -> pm.Model:
        """Return the PyMC model; see :meth:`BMA.build`."""
        import pymc as pm
        import pytensor.tensor as pt

        from bayesens.likelihoods.parametrisation import EffectCoordinates

        if likelihood not in ("fused", "rows"):
            raise ValueError(f"likelihood is 'fused' or 'rows'; got {likelihood!r}.")
        model = self.resolve(ensemble)
        assert model.center is not None and model.unit is not None
        rows = training_rows(ensemble, self.transform, need_member=False)
        levels = {level: level_rows(ensemble, level, rows.index) for level in self._effects}
        with pm.Model(coords={level: names for level, (names, _) in levels.items()}) as pymc_model:
            mean = self.mean_prior.create("mean", scale=model.unit, shift=model.center)
            sd = self.sd_prior.create("sd", scale=model.unit)
            location: Any = pt.zeros(1)
            for level, (_, code) in levels.items():
                effect_sd = getattr(self, f"{level}_sd_prior").create(f"offset_{level}_sd", scale=model.unit)
                known = effect_variance({level: code for level, (_, code) in levels.items()}, level, model.unit)
                effect = pm.Normal(
                    f"offset_{level}", 0.0, effect_sd, dims=level, default_transform=EffectCoordinates(known)
                )
                location = location + effect[code]
            if likelihood == "rows":
                pm.Normal("y", mean + location, sd, observed=rows.y)
            else:
                from bayesens.likelihoods.ops import mixture_loglik

                offset = location[:, None] if levels else pt.zeros((0, 1))
                pm.Potential("loglik", mixture_loglik(
                    pt.zeros(1), mean[None], pt.zeros(1), pt.log(sd)[None], offset,
                    y=rows.y, f=np.zeros((len(rows.y), 1)), available=np.ones((len(rows.y), 1), dtype=bool),
                ))  # fmt: skip
        return pymc_model

    def em(
        self, ensemble: Ensemble, *, starts: int = 0, seed: int = 0, tolerance: float = 0.0
    ) -> tuple[xr.Dataset, list[Optimum]]:
        """Mean and standard deviation of the observations, which maximise the likelihood in closed form."""
        if self._effects:
            raise ValueError(f"method='em' has no {' or '.join(self._effects)} effects; use method='auto' or 'nuts'.")
        y = training_rows(ensemble, self.transform, need_member=False).y
        loglik = -0.5 * len(y) * (np.log(2.0 * np.pi * np.var(y)) + 1.0)
        optimum = Optimum(np.ones(0), np.ones(0), float(loglik), 0, True, "closed form")
        return xr.Dataset({"mean": ((), np.mean(y)), "sd": ((), np.std(y))}), [optimum]

    def predictive(self, posterior: xr.Dataset, ensemble: Ensemble) -> PosteriorMixture:
        """Return p(y) for every row, on the transformed scale."""
        rows = prediction_rows(ensemble, self.transform)
        draw = {str(n): flat(v) for n, v in posterior.data_vars.items()}
        level_codes = [codes(ensemble.labels(level), posterior[level].values, len(rows.y)) for level in self._effects]
        first = np.zeros(len(rows.y), dtype=int)

        def blocks() -> Iterator[Block]:
            for index, (_, *key) in row_classes(first, *level_codes):
                mean, variance = draw["mean"], draw["sd"] ** 2
                for level, code in zip(self._effects, key, strict=True):
                    if code < 0:
                        variance = variance + draw[f"offset_{level}_sd"] ** 2
                    else:
                        mean = mean + draw[f"offset_{level}"][:, code]
                coefficient = np.zeros((len(mean), 1, 1 + rows.f.shape[1]))
                coefficient[:, 0, 0] = mean
                yield Block(index, np.ones((len(mean), 1)), coefficient, variance[:, None])

        return PosteriorMixture(rows.f, blocks, self.center or 0.0, self.unit or 1.0)
