"""A model of observation and members as jointly normal at every level: what follows from its mean and covariances."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import xarray as xr

from bayesens.distributions.posterior_mixture import PosteriorMixture
from bayesens.ensemble.checks import degenerate
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.rows import Rows, codes, flat, level_rows, prediction_rows, training_rows
from bayesens.ensemble.streaming import SufficientStatistics, sufficient_statistics
from bayesens.likelihoods.multilevel.new_site import new_sites
from bayesens.likelihoods.multilevel.places import Places, blocks
from bayesens.likelihoods.options import ModelValue
from bayesens.messages import listed

if TYPE_CHECKING:
    from bayesens.ensemble.sufficient import Statistics, Tally

__all__ = ["Data", "JointNormal", "error_correlation", "joint_covariance"]

Data = Ensemble | SufficientStatistics
MOST_ZEROS = 0.02  # share of the observations, under the square root


class JointNormal(ModelValue):
    """What a model of ``z = (y, f)`` has whose rows, sites and groups are normal; it adds priors and :meth:`moments`."""

    transform: str
    center: float | None
    unit: float | None
    group: bool | None
    site: bool | None
    series: bool
    levels: ClassVar[tuple[str, ...]] = ("group", "site")

    def moments(self, draw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Mean and covariances of ``z`` under each draw."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ what the data set
    def summarise(self, data: Data) -> SufficientStatistics:
        """Return all that the model takes from its training rows; statistics are returned as they are.

        Every method below takes either; the row-by-row form alone needs the rows.
        """
        return sufficient_statistics(data, self.transform)

    def resolve(self, data: Data) -> Self:
        """Return the model with ``center``, ``unit`` and the levels filled in from the training rows."""
        rows = self.summarise(data)
        found = {level: getattr(self, level) for level in self.levels}
        for level in self.levels:
            if found[level] is None:
                found[level] = len(np.unique(getattr(rows.tally, level))) > 1
        if self.series and not found["site"]:
            raise ValueError(
                f"{type(self).__name__}(series=True) predicts a new site from all its rows and needs the site level, which is "
                "off: site=False, or fewer than two site labels in the training rows. Set series=False."
            )
        center = rows.mean if self.center is None else self.center
        return replace(self, **found, center=center, unit=rows.sd if self.unit is None else self.unit)  # type: ignore[type-var]

    def check(self, data: Data) -> None:
        """Refuse members that are exact linear combinations of others, whose joint covariance is singular, and many zeros.

        Under the square root an observation of zero stands for all values below zero. Predictions say so, but joint normal
        statistics cannot: they would take the zeros for values like others.
        """
        from bayesens.ensemble.sufficient import residual_share

        rows, name = self.summarise(data), type(self).__name__
        zeros = rows.facts.n_zero
        if self.transform == "sqrt" and zeros > MOST_ZEROS * rows.n_observed:
            raise ValueError(
                f"{zeros} of {rows.n_observed} observations are exactly 0 ({100 * zeros / rows.n_observed:.1f} %); "
                f"{name}(transform='sqrt') takes them for values of a normal variable, so that predictions would hold too few "
                f"zeros; wanted at most {100 * MOST_ZEROS:.0f} %: use BMA(transform='sqrt'), which counts a zero as the "
                "probability of zero and below."
            )
        if dependent := rows.dependent_members():
            raise ValueError(
                f"Members {listed(dependent)} are exact copies or linear combinations of each other in the "
                f"{rows.n_observed} training rows; {name} models their joint distribution, which is then singular. "
                "Leave one of them out, or use BMA."
            )
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
        """Levels that the resolved model has effects of."""
        return tuple(level for level in self.levels if getattr(self, level))

    def statistics(self, data: Data) -> Statistics:
        """Return the sufficient statistics of the training rows; the model must be resolved."""
        return self._tally(data).statistics

    def _tally(self, data: Data) -> Tally:
        """Statistics by the levels in use, under their labels."""
        rows = self.summarise(data)
        for level in self._effects:
            rows.check_level(level)
        return rows.tally.keep(group=bool(self.group), site=bool(self.site))

    def coordinates(self, data: Data) -> dict[str, tuple[str, np.ndarray]]:
        """Labels of the levels in use."""
        tally = self._tally(data)
        return {level: (level, np.unique(getattr(tally, level))) for level in self._effects}

    def rows_of(self, data: Data) -> tuple[Rows, dict[str, np.ndarray]]:
        """Return the training rows one by one, with the codes of their levels; the model must be resolved."""
        if not isinstance(data, Ensemble):
            raise TypeError(
                "likelihood='rows' needs the rows, which sufficient statistics no longer hold; pass an Ensemble, or use "
                "likelihood='fused', which is the same density."
            )
        rows = training_rows(data, self.transform, need_member=False)
        return rows, {level: level_rows(data, level, rows.index)[1] for level in self._effects}

    # ---------------------------------------------------------------------------------------------- what follows from it
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
        from bayesens.likelihoods.multilevel.effects import effect_draws

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
        out["error_corr"] = ("member", "member_"), error_correlation(m["within"])
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
        places = Places(self.moments(draw), draw, history)
        at = code["group"], code["site"], new
        return PosteriorMixture(rows.f, lambda: blocks(places, rows, *at), self.center or 0.0, self.unit or 1.0)


def joint_covariance(
    truth_sd: np.ndarray, slope: np.ndarray, sd: np.ndarray, correlation: np.ndarray | None
) -> np.ndarray:
    """Covariance of (y, f) of one level, for each draw."""
    direction = np.column_stack([np.ones(len(slope)), slope])
    out = truth_sd[:, None, None] ** 2 * direction[:, :, None] * direction[:, None, :]
    shape = np.eye(slope.shape[1]) if correlation is None else correlation
    out[:, 1:, 1:] += sd[:, :, None] * sd[:, None, :] * shape
    return out


def error_correlation(covariance: np.ndarray) -> np.ndarray:
    """Correlation of f - y from the covariance of (y, f)."""
    contrast = np.column_stack([-np.ones(covariance.shape[1] - 1), np.eye(covariance.shape[1] - 1)])
    error = contrast @ covariance @ contrast.T
    sd = np.sqrt(np.einsum("sii->si", error))
    return error / (sd[:, :, None] * sd[:, None, :])
