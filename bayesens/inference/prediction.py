"""What a fit says of the rows of a table, made once for all that is asked of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy
import xarray as xr

from bayesens.distributions import scores
from bayesens.distributions.law import Distribution
from bayesens.distributions.levels.recalibration import Recalibration
from bayesens.distributions.mixtures import NormalMixture, transformed
from bayesens.distributions.posterior_mixture import PART_ROWS, PosteriorMixture
from bayesens.distributions.steps import Steps
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.transforms import transform
from bayesens.inference.fit_tree import check_given, history_of, model_of, on_model_scale
from bayesens.likelihoods.corrected.widths import column_of
from bayesens.messages import listed, warn
from bayesens.tables.unit_checks import empty_words, warn_ranges

__all__ = ["QUANTILES", "Prediction", "check_levels", "components", "prediction", "thinned"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PARTS_DRAWS = 256
NODES = np.linspace(
    -7.0, 7.0, 113
)  # normal scores of the levels that moments of a recalibrated law are integrated over
_OfRows = Callable[[Distribution, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The predictive distribution of every row of a table under a fit.

    Attributes
    ----------
    model : model
        Resolved.
    table : Ensemble
        The rows, with the members of the fit.
    number : int array (obs)
        Of each row in the table that was given.
    mixture : PosteriorMixture or CorrectedMixture
        The distribution over all posterior draws, on the scale of the model's transform.
    attrs : dict
        The fit's ``bayesens_model`` and ``units``.
    """

    model: Any
    table: Ensemble
    number: np.ndarray
    mixture: Any
    attrs: dict[str, Any]

    def of(self, rows: np.ndarray) -> Prediction:
        """The same prediction, of some rows (bool)."""
        if rows.all():
            return self
        table, mixture = self.table.select(rows=rows), self.mixture.select(np.flatnonzero(rows))
        return replace(self, table=table, number=self.number[rows], mixture=mixture)

    @cached_property
    def law(self) -> Distribution:
        """Few components a row that match the mixture over all posterior draws."""
        return _as_observed(self.mixture.matched(), self.model.transform)

    def summary(self, quantiles: Sequence[float] = QUANTILES) -> xr.Dataset:
        """Mean, standard deviation with its parts, and quantiles of every row; see `bayesens.predict`."""
        levels = check_levels(quantiles, "quantiles")
        of_rows: dict[str, _OfRows] = {"quantile": lambda law, _: law.quantile(levels)}
        if self.model.transform != "identity":
            of_rows |= {"mean": lambda law, _: law.mean(), "variance": lambda law, _: law.variance()}
        if self.model.transform == "sqrt":
            of_rows["mass_at_zero"] = lambda law, _: law.mass_at_zero()
        found = self._by_parts(of_rows)
        units = {"units": self.attrs["units"]}
        out = self._rows().assign_coords(quantile=levels)
        for name, (values, long_name) in self._mean_and_parts(found).items():
            out[name] = ("obs", values, units | {"long_name": long_name})
        out["quantile_value"] = (("obs", "quantile"), found["quantile"], units)
        if self.model.transform == "sqrt":
            out["mass_at_zero"] = ("obs", found["mass_at_zero"], {"long_name": "probability of exactly zero"})
        return out.assign_attrs(self.attrs)

    def recalibrated(self, recalibration: Recalibration, quantiles: Sequence[float] = QUANTILES) -> xr.Dataset:
        """Mean, standard deviation and quantiles of every row under other levels; the first two by integration over them."""
        levels = check_levels(quantiles, "quantiles")
        at, nodes = recalibration.quantile(levels), recalibration.quantile(scipy.special.ndtr(NODES))
        weight = np.exp(-0.5 * NODES**2) / np.exp(-0.5 * NODES**2).sum()

        def moments(law: Distribution, _: np.ndarray) -> np.ndarray:
            values = law.quantile(nodes)
            mean = values @ weight
            return np.stack([mean, np.sqrt((values - mean[:, None]) ** 2 @ weight)], axis=1)

        of_rows: dict[str, _OfRows] = {"quantile": lambda law, _: law.quantile(at), "moments": moments}
        if self.model.transform == "sqrt":
            of_rows["mass_at_zero"] = lambda law, _: recalibration.cdf(law.mass_at_zero())
        found = self._by_parts(of_rows)
        units = {"units": self.attrs["units"]}
        out = self._rows().assign_coords(quantile=levels)
        for name, values, word in zip(("mean", "sd"), found["moments"].T, ("mean", "standard deviation"), strict=True):
            out[name] = ("obs", values, units | {"long_name": f"recalibrated predictive {word}"})
        out["quantile_value"] = (("obs", "quantile"), found["quantile"], units)
        if self.model.transform == "sqrt":
            out["mass_at_zero"] = ("obs", found["mass_at_zero"], {"long_name": "probability of exactly zero"})
        return out.assign_attrs(self.attrs | {"bayesens_recalibration": recalibration.to_json()})

    def scores(self, levels: Sequence[float] = (0.5, 0.9), *, random_seed: int = 0) -> xr.Dataset:
        """CRPS, log score, error, PIT, and intervals at rows that all have an observation; see `bayesens.score`."""
        asked = check_levels(levels, "levels")
        y, rng = self.table.require_observation(), np.random.default_rng(random_seed)
        sides = np.concatenate([0.5 - asked / 2.0, 0.5 + asked / 2.0])
        of_rows: dict[str, _OfRows] = {
            "crps": lambda law, rows: law.crps(y[rows]),
            "pit": lambda law, rows: law.pit(y[rows], rng),
            "quantile": lambda law, _: law.quantile(sides),
        }
        if self.model.transform != "identity":
            of_rows["mean"] = lambda law, _: law.mean()
        found = self._by_parts(of_rows)
        z, below, jacobian = on_model_scale(self.model, y)
        log_density = self.mixture.log_density(z, below) + jacobian
        mean = found["mean"] if "mean" in found else self.mixture.moments().mean
        lower, upper = np.split(found["quantile"].T, 2)
        interval_score = [scores.interval_score(a, b, y, float(p)) for a, b, p in zip(lower, upper, asked, strict=True)]
        units, dims = {"units": self.attrs["units"]}, ("level", "obs")
        out = self._rows().assign_coords(level=asked)
        out["crps"] = ("obs", found["crps"], units | {"long_name": "continuous ranked probability score"})
        none = f" (NaN: {text})" if (text := getattr(self.mixture, "no_density", "")) else ""
        out["log_score"] = ("obs", -log_density, {"long_name": f"negative log predictive density{none}"})
        out["error"] = ("obs", mean - y, units | {"long_name": "predictive mean minus observation"})
        out["pit"] = ("obs", found["pit"], {"long_name": "probability integral transform"})
        out["covered"] = (dims, scores.covered(lower, upper, y), {"long_name": "whether the central interval holds y"})
        out["width"] = (dims, scores.width(lower, upper), units)
        out["interval_score"] = (dims, np.stack(interval_score), units)
        return out.assign_attrs(self.attrs)

    def draw(self, size: int, *, random_seed: int | None = None) -> xr.DataArray:
        """Draws of every row, (sample, obs); see `bayesens.draw`."""
        z = self.mixture.sample(size, np.random.default_rng(random_seed))
        return xr.DataArray(transform(self.model.transform).inverse(z), dims=("sample", "obs"), name="y",
                            coords=self._rows().coords, attrs={"units": self.attrs["units"]})  # fmt: skip

    def _rows(self) -> xr.Dataset:
        """An empty dataset with the rows' coordinates."""
        data = self.table.dataset
        names = [name for name in ("site", "group", "time", "lon", "lat") if name in data.coords]
        coords: dict[str, Any] = {name: ("obs", data[name].values, data[name].attrs) for name in names}
        return xr.Dataset(coords=coords | {"obs": self.number})

    def _by_parts(self, functions: dict[str, _OfRows]) -> dict[str, np.ndarray]:
        """What functions of the predictive distribution say of every row, some rows at a time where there are many."""
        out: dict[str, np.ndarray] = {}
        for rows, law in self._laws():
            for name, function in functions.items():
                values = np.asarray(function(law, rows))
                if name not in out:
                    out[name] = np.full((self.table.n_obs, *values.shape[1:]), np.nan)
                out[name][rows] = values
        return out

    def _laws(self) -> Iterator[tuple[np.ndarray, Distribution]]:
        """The law of all rows, which is kept, or of some at a time, which may take more memory than the table."""
        if self.table.n_obs <= PART_ROWS:
            yield np.arange(self.table.n_obs), self.law
            return
        for rows, mixture in self.mixture.matched_parts():
            yield rows, _as_observed(mixture, self.model.transform)

    def _mean_and_parts(self, found: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, str]]:
        """Mean, standard deviation and the parts of the variance; exact for untransformed models."""
        if self.model.transform == "identity":
            m = self.mixture.moments()
            mean, variance, parts = m.mean, m.variance, (m.within, m.between, m.parameter)
        else:
            mean, variance = found["mean"], found["variance"]
            parts = self._transformed_parts(variance)
        names = ("within kernels", "between members", "left open by the posterior")
        out = {"mean": (mean, "predictive mean"), "sd": (np.sqrt(variance), "predictive standard deviation")}
        for key, part, text in zip(("within", "between", "parameter"), parts, names, strict=True):
            part = np.maximum(part, 0.0)  # members that are copies of each other leave a rounding error between them
            out[f"sd_{key}"] = (np.sqrt(part), f"standard deviation {text}")
        return out

    def _transformed_parts(self, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Parts of the variance after the inverse transform, from up to 256 evenly spaced draws, as shares of the variance."""
        parts = np.full((3, len(variance)), np.nan)
        for rows, weight, means, sd in components(self.mixture):
            each = transformed(NormalMixture(weight, means, sd), self.model.transform)
            within, between = each.variance_within().mean(axis=0), each.variance_between().mean(axis=0)
            parts[:, rows] = np.stack([within, between, each.mean().var(axis=0)])
        within, between, parameter = parts / parts.sum(axis=0) * variance
        return within, between, parameter


def _as_observed(law: Any, transform: str) -> Distribution:
    """The law of observations, of one on the scale of a transform; steps are observations as they are."""
    return law if isinstance(law, Steps) else transformed(law, transform)  # type: ignore[return-value]


def prediction(tree: xr.DataTree, new: Ensemble, *, rows: np.ndarray | None = None, model: Any = None) -> Prediction:
    """Bring a table to a fit; of some rows alone, if they are given (bool). Warns of what they lack or the fit has not seen."""
    check_given(new, model)
    fitted = model_of(tree, model)
    number = np.arange(new.n_obs)
    if rows is not None and not getattr(fitted, "series", False):
        new, number, rows = (
            new.select(rows=rows),
            number[rows],
            None,
        )  # no row tells of another: the rest is not looked at
    table = _with_members(new, tuple(json.loads(tree.attrs["bayesens_members"])), str(tree.attrs["units"]))
    posterior = tree["posterior"].to_dataset()
    _warn_rows(fitted, posterior, table)
    _warn_members(tree, fitted, table, new)
    history = () if (kept := history_of(tree)) is None else (kept,)
    if getattr(fitted, "needs_history", False) and not history:
        raise ValueError("The fit has no group 'history', which predictions at known sites and groups need: it was dropped "
                         "from the tree, or an older version wrote the file. Keep the whole tree, or fit again.")  # fmt: skip
    mixture = fitted.predictive(posterior, table, *history)
    attrs = {name: tree.attrs[name] for name in ("bayesens_model", "units")}
    made = Prediction(fitted, table, number, mixture, attrs)
    return made if rows is None else made.of(rows)


def _with_members(new: Ensemble, members: tuple[str, ...], units: str) -> Ensemble:
    """Bring a table to the members of the fit, in their order; those that it lacks are missing."""
    if new.units and units and new.units != units:
        raise ValueError(f"The table is in {new.units!r} and the fit in {units!r}; convert the table to {units!r}.")
    if new.members == members:
        return new
    lacking = [name for name in members if name not in new.members]
    if len(lacking) == len(members):
        raise ValueError(
            f"The table has none of the members of the fit, {listed(members)}; it has {listed(new.members)}."
        )
    if lacking:
        warn(f"The table lacks {listed(lacking)}: predictions treat {'it' if len(lacking) == 1 else 'them'} as missing in "
             f"all {new.n_obs} rows.")  # fmt: skip
    return Ensemble(new.dataset.reindex(member=list(members)))


def _warn_rows(model: Any, posterior: xr.Dataset, ensemble: Ensemble) -> None:
    needs_member = getattr(model, "needs_member", False)
    if needs_member and (empty := int((~ensemble.available.any(axis=1)).sum())):
        warn(f"{empty} of {ensemble.n_obs} rows have no member at all: their predictions are NaN.")
    for name in getattr(model, "bias_covariates", ()):
        if missing := int(np.isnan(column_of(ensemble, name)).sum()):
            warn(f"{missing} of {ensemble.n_obs} rows have no value of {name!r}, which the members' corrections regress on: "
                 "their predictions are NaN.")  # fmt: skip
    for member, name in getattr(model, "own_sd", None) or ():
        there = ensemble.available[:, ensemble.members.index(member)]
        if missing := int((there & np.isnan(column_of(ensemble, name))).sum()):
            warn(f"{missing} of {ensemble.n_obs} rows have {member!r} and no value of {name!r}, its standard deviation: they are "
                 "predicted as typical of it.")  # fmt: skip
    for level in ("group", "site"):
        if not getattr(model, level, False):
            continue
        labels = ensemble.labels(level)
        new = np.ones(ensemble.n_obs, dtype=bool) if labels is None else ~np.isin(labels, posterior[level].values)
        if level == "group" and "site" in posterior.coords and (sites := ensemble.labels("site")) is not None:
            new &= ~np.isin(sites, posterior["site"].values)  # a known site brings its group along
        if new.any():
            shown = "" if labels is None else f" ({listed(sorted({str(s) for s in labels[new]}), limit=3)})"
            warn(f"{int(new.sum())} of {ensemble.n_obs} rows are at a {level} that the fit has not seen{shown}: "
                 f"they are predicted as a new {level}.")  # fmt: skip


def _warn_members(tree: xr.DataTree, model: Any, ensemble: Ensemble, new: Ensemble) -> None:
    """Warn of members without any value and of values that the fit knows nothing of, if the model looks at the member."""
    if not getattr(model, "uses_members", True):
        return
    one = getattr(model, "member", None)
    used = [name for name in ensemble.members if one is None or name == one]
    values = ensemble.prediction[:, [ensemble.members.index(name) for name in used]]
    empty = np.isnan(values).all(axis=0)
    if not empty.all() and (
        names := [name for name, void in zip(used, empty, strict=True) if void and name in new.members]
    ):
        warn(empty_words(names, ensemble.n_obs))
    warn_ranges(values, used, json.loads(tree.attrs.get("member_range", "{}")))  # fits of before have none


def thinned(size: int) -> np.ndarray:
    """Numbers of up to 256 evenly spaced draws."""
    return np.unique(np.linspace(0, size - 1, min(size, PARTS_DRAWS)).astype(int))


def components(
    mixture: Any, draws: Sequence[int] | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Some rows, and their components under some draws, evenly spaced ones where none are named: (draw, row, component)."""
    if not isinstance(mixture, PosteriorMixture):
        some = thinned(len(mixture.draws)) if draws is None else np.asarray(draws)
        for rows in mixture.parts(max(1, 1_000_000 // (len(some) * mixture.offset.shape[1]))):
            yield rows, *mixture.components(rows, some)
        return
    for block in mixture.blocks():
        some = thinned(len(block.weight)) if draws is None else np.asarray(draws)
        step = max(1, 1_000_000 // (len(some) * block.weight.shape[1]))
        for start in range(0, len(block.rows), step):
            rows = block.rows[start : start + step]
            x = np.column_stack([np.ones(len(rows)), mixture.f[rows]])
            means = np.einsum("scj,rj->src", block.coefficient[some], x)
            weight = np.broadcast_to(block.weight[some][:, None], means.shape)
            yield rows, weight, means, np.sqrt(mixture.variances(replace(block, rows=rows), some))


def check_levels(values: Sequence[float], name: str) -> np.ndarray:
    """Numbers between 0 and 1 as an array; others are refused."""
    levels = np.atleast_1d(np.asarray(values, dtype=float))
    if levels.ndim != 1 or len(levels) == 0 or not np.all((levels > 0) & (levels < 1)):
        raise ValueError(f"{name} must be numbers between 0 and 1; got {values!r}.")
    return levels
