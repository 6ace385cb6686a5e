"""What models around corrected members have in common; fitted at once (``correction="joint"``) they use no corrections."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows, prediction_rows, training_rows
from bayesens.ensemble.transforms import transform
from bayesens.likelihoods.corrected.own_correction import CorrectedTable, Recipe, corrected_table
from bayesens.likelihoods.corrected.posterior import drawn_correction, history
from bayesens.likelihoods.corrected.widths import DEFAULT
from bayesens.likelihoods.known_priors import KnownPriors, normal_numbers
from bayesens.likelihoods.options import ModelValue
from bayesens.likelihoods.priors import Prior, log_density
from bayesens.likelihoods.row_checks import check_ties, warn_memorised, warn_outliers
from bayesens.models.weights import spare, weight_classes

if TYPE_CHECKING:
    import pymc as pm

    from bayesens.likelihoods.corrected.predictive import CorrectedMixture

__all__ = ["RATIO", "CorrectedMembers", "Data", "spare"]

RATIO = Prior("HalfStudentT", nu=3, sigma=1)
MAX_EFFECTS = 20_000_000  # draws of effects, 160 MB: what a fit stores
Data = Ensemble | CorrectedTable


class CorrectedMembers(KnownPriors, ModelValue):
    """Methods of a model whose members are corrected first; its fields are the options that are named here."""

    correction: str | None
    bias: str
    bias_covariates: tuple[str, ...]
    scale: tuple[str, ...] | None
    own_sd: tuple[tuple[str, str], ...] | None = ()
    group: bool | None
    site: bool | None
    effects: str | None = "source"
    transform: str
    center: float | None
    unit: float | None
    sigma_scale: float | None
    level_prior: Prior
    gain_prior: Prior
    covariate_prior: Prior
    kernel: str
    nu_prior: Prior
    site_ratio_prior: Prior
    group_ratio_prior: Prior

    baseline: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    levels: ClassVar[tuple[str, ...]] = ("group", "site")
    needs_member: ClassVar[bool] = True
    second_step: ClassVar[str] = "mixture"
    at_once: ClassVar[Any]  # the module of the joint fit

    if TYPE_CHECKING:

        def resolve(self, data: Data) -> Any:
            """Return the model with everything filled in that the training rows say."""

    def prepare(self, data: Data) -> Any:
        """Return the training rows with their members corrected; of a joint fit, the ensemble as it is.

        Every method that takes data takes either; a table that is corrected already is returned as it is.
        """
        if self.correction == "joint" or isinstance(data, CorrectedTable):
            return data
        model, rows = self.resolve(data), self.rows(data)
        return corrected_table(model, model.recipe(data.members), data, rows, self.censored(rows))

    def rows(self, ensemble: Ensemble) -> Rows:
        """Rows with an observation and a member, on the scale of the transform."""
        return training_rows(ensemble, self.transform, need_member=True)

    def censored(self, rows: Rows) -> np.ndarray:
        """Rows whose observation stands for all values below."""
        return np.asarray(rows.y <= 0.0 if self.transform == "sqrt" else np.zeros(len(rows.y), dtype=bool))

    def cluster(self, members: tuple[str, ...]) -> np.ndarray:
        """Index of each member's exchangeable set."""
        return np.arange(len(members))

    def recipe(self, members: tuple[str, ...]) -> Recipe:
        """What the resolved model asks of the corrections."""
        assert self.center is not None and self.unit is not None
        assert self.sigma_scale is not None and self.scale is not None
        return Recipe(
            self.bias, self.bias_covariates, self.scale, self.effects == "common", self.cluster(members),
            self.center, self.unit, self.sigma_scale, level=normal_numbers(self, "level_prior"),
            gain=normal_numbers(self, "gain_prior"), covariate=normal_numbers(self, "covariate_prior"),
            site=log_density(self.site_ratio_prior) if self.site else None, field=getattr(self, "weights", "") == "space",
            group=log_density(self.group_ratio_prior) if self.group else None, weights=getattr(self, "weight_covariates", ()),
            own=self.own_sd or (), transform=self.transform,
        )  # fmt: skip

    def levels_of(self, data: Ensemble, rows: Rows) -> dict[str, Any]:
        """Levels that are asked for; where nothing is said, those with at least two labels."""
        found: dict[str, Any] = {}
        for level in self.levels:
            labels, asked = data.labels(level), getattr(self, level)
            found[level] = labels is not None and len(np.unique(labels[rows.index])) > 1 if asked is None else asked
        return found

    def widths_of(self, members: tuple[str, ...]) -> tuple[str, ...]:
        """What the widths follow; where nothing is said, mean and spread, and one width of a joint fit."""
        if self.scale is not None:
            return self.scale
        return () if self.correction == "joint" else DEFAULT if len(members) > 1 else DEFAULT[:1]

    def check_corrected(self, table: CorrectedTable) -> None:
        """Refuse or warn of rows that the kernels cannot describe, and of members that have seen the rows."""
        rows, use = table.rows, ~table.mixture.censored
        there = rows.available[use].any(axis=0)
        names = [name for name, some in zip(table.members, there, strict=True) if some]
        y, available = rows.y[use], rows.available[use][:, there]
        check_ties(y, rows.f[use][:, there], available, names)
        warn_memorised(y, table.corrected[use][:, there], available, names)
        if self.kernel == "normal":  # in units of each row's own width: large errors of large values are no outliers
            alike = (table.even / np.sqrt(table.own_variance))[use][:, there]
            warn_outliers(np.zeros(len(alike)), alike, available, names)
        elif not use.all():
            raise ValueError(f"{type(self).__name__}(kernel='student_t', transform='sqrt') has no density of observations of "
                             f"zero, and {int((~use).sum())} of {len(rows.y)} training rows are zero. Use "
                             "kernel='normal'.")  # fmt: skip

    def tail_variable(self) -> Any:
        """Degrees of freedom of t kernels; None for normal ones."""
        import pymc as pm

        if self.kernel == "normal":
            return None
        return pm.Deterministic("nu", 2.0 + self.nu_prior.create("nu_above_two"))

    @property
    def n_own(self) -> int:
        """Parameters of one member's correction, its variance and its part of the rest: each has its own rows."""
        return {"linear": 2, "additive": 1, "none": 0}[self.bias] + len(self.bias_covariates) + 2

    @property
    def effect_levels(self) -> tuple[str, ...]:
        """Levels that the resolved model has effects of."""
        return tuple(level for level in self.levels if getattr(self, level))

    def build_correction(self, data: Data, member: str) -> pm.Model:
        """Return the PyMC model of one member's correction: a plain mixed model of its rows.

        Parameters
        ----------
        data : Ensemble or CorrectedTable
        member : str
            Its name; of an exchangeable set, any.

        Returns
        -------
        pymc.Model
            With ``level``, ``gain`` and ``covariate_slope`` in standard units, ``bias`` and ``slope`` in those of the data,
            ``residual_sd``, and the effects ``offset_group`` and ``offset_site`` with their standard deviations.
        """
        from bayesens.models.correction import build_correction

        return build_correction(self.prepare(data), member)

    @property
    def loo_note(self) -> str:
        """What leave-one-out of this model conditions on."""
        if self.correction == "joint":
            return ""
        return ("Each row is left out of its members' corrections, in closed form at the typical ratios of their variances, and "
                f"of the {self.second_step} by importance sampling.")  # fmt: skip

    @property
    def needs_history(self) -> bool:
        """Whether predictions need what the training rows tell of known sites."""
        return self.correction == "own"

    def history(self, data: Data) -> xr.Dataset:
        """What predictions take from the training rows."""
        table = self.prepare(data)
        return history(table, table.model.recipe(table.members))

    def coordinates(self, data: Data) -> dict[str, tuple[str, np.ndarray]]:
        """Labels of the corrections' dimensions."""
        if self.correction == "joint":
            return {}
        table = self.prepare(data)
        out = {level: (level, names) for level, names in table.levels.items()}
        out |= {"bias_covariate": ("bias_covariate", np.array(self.bias_covariates))} if self.bias_covariates else {}
        return out | {"scale_covariate": ("scale_covariate", np.array(table.widths.names, dtype=np.str_))}

    def with_corrections(self, posterior: xr.Dataset, data: Data, rng: np.random.Generator) -> xr.Dataset:
        """Add draws of the corrections, which are independent of the others."""
        chains, draws, table = posterior.sizes["chain"], posterior.sizes["draw"], self.prepare(data)
        effects = chains * draws * len(table.site_group) * table.n_members <= MAX_EFFECTS
        drawn = drawn_correction(table, self.recipe(table.members), chains, draws, rng, effects=effects)
        return posterior.assign(drawn).assign_coords(self.coordinates(table))

    def predictive(self, posterior: xr.Dataset, ensemble: Ensemble, history: xr.Dataset | None = None) -> Any:
        """Return p(y | f) for every row, on the transformed scale; rows that lack what the model needs have none.

        Parameters
        ----------
        posterior : Dataset
            Draws with the dimensions ``chain`` and ``draw``; the model must be resolved.
        ensemble : Ensemble
            With the members of the fit, in its order. Sites and groups that the fit has not seen have new draws of their
            effects, and such groups new draws of their weights.
        history : Dataset, optional
            Of the training rows, from :meth:`history`; a joint fit has none.

        Returns
        -------
        CorrectedMixture or PosteriorMixture
        """
        if self.correction == "joint":
            return self.at_once.predictive(self, posterior, ensemble)
        from bayesens.likelihoods.corrected.rows import predicted_rows

        assert history is not None
        rows, recipe = prediction_rows(ensemble, self.transform), self.recipe(ensemble.members)
        weight, kind = weight_classes(posterior, ensemble)
        return self.law(predicted_rows(recipe, posterior, history, ensemble, rows, weight, kind), posterior, history)

    def training(self, posterior: xr.Dataset, ensemble: Ensemble, history: xr.Dataset | None = None) -> Any:
        """Return the density of training rows under each draw, given their corrections by all other rows.

        Parameters
        ----------
        posterior, history : Dataset
        ensemble : Ensemble
            Training rows, all or some, with an observation and a member.

        Returns
        -------
        CorrectedMixture or PosteriorMixture
        """
        if self.correction == "joint":
            return self.at_once.predictive(self, posterior, ensemble)
        from bayesens.likelihoods.corrected.rows import training_rows_of

        assert history is not None
        y = np.asarray(transform(self.transform).forward(ensemble.require_observation()))
        seen, recipe = replace(prediction_rows(ensemble, self.transform), y=y), self.recipe(ensemble.members)
        weight, kind = weight_classes(posterior, ensemble)
        found = training_rows_of(recipe, posterior, history, ensemble, seen, self.censored(seen), weight, kind)
        return self.law(found, posterior, history)

    def law(self, found: CorrectedMixture, posterior: xr.Dataset, history: xr.Dataset) -> CorrectedMixture:
        """The model's own distribution, made of the mixture of kernels around the members."""
        return found
