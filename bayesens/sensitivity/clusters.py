"""How sure weights are when rows share their errors: bootstrap of clusters.

Ten thousand rows of thirty days are not ten thousand pieces of evidence. A posterior that takes them as independent has
weights with standard deviations several times too small, and a prior that seems not to matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesens.comparison.bootstrap import MIN_CLUSTERS, MOST_UNDEFINED
from bayesens.comparison.row_clusters import row_clusters
from bayesens.console import progress
from bayesens.ensemble.ensemble import Ensemble
from bayesens.ensemble.from_table import LABELS
from bayesens.inference.fit import fit
from bayesens.inference.fit_tree import check_fit_tree, check_given
from bayesens.messages import warn
from bayesens.threads import one_blas_thread

__all__ = ["cluster_codes", "clustered_weights", "find_optima", "refuse_effects", "used_rows", "weights_table"]

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
NAMES = ("weight", "linear_weight", "sigma", "bias", "slope")
FAILURES = (ValueError, RuntimeError, ArithmeticError, np.linalg.LinAlgError)
NEGLIGIBLE_WEIGHT = 0.01  # a weight below it counts as none


# ------------------------------------------------------------------------------------------------------- the bootstrap
@one_blas_thread()  # of matrices with a few rows: a quasi-Newton step waits for a second thread if another process has the core
def clustered_weights(
    model: Any,
    ensemble: Ensemble,
    *,
    cluster: str | ArrayLike = "site",
    block: float = 30.0,
    replicates: int = 200,
    method: str = "em",
    random_seed: int | None = None,
    progressbar: bool = True,
) -> xr.Dataset:
    """Fit a model to whole clusters drawn with replacement, again and again, and to rows drawn one by one beside it.

    The spread over replicates is the sampling uncertainty of weights and other parameters if clusters are independent of
    each other; that of rows drawn one by one is what one gets for taking rows as independent, as a posterior does.

    Parameters
    ----------
    model : BMA, HBM, LinearPool, EMOS, SingleMember, EqualWeights or a model of your own
    ensemble : Ensemble
        Training rows.
    cluster : {"site", "group", "time"} or array_like (obs)
        What is drawn: sites, groups, time blocks, or labels of your own.
    block : float
        Length of a time block [days; the units of numeric times].
    replicates : int
        Of each of the two bootstraps.
    method : {"em", "optimum"}
        ``"em"`` is the fit by maximum likelihood that models without effects have; ``"optimum"`` the highest posterior
        density on the unconstrained scale, which all models have whose effects, if any, are integrated out (HBM).
    random_seed : int, optional
        The same seed gives the same replicates.
    progressbar : bool
        Show the progress.

    Returns
    -------
    Dataset
        Of each of ``weight``, ``linear_weight``, ``sigma``, ``bias`` and ``slope`` that the model has, ``(member)`` or one
        for all: the replicates of clusters ``weight (replicate, member)``, and ``weight_estimate`` from all rows,
        ``weight_sd`` over clusters, ``weight_sd_rows`` over rows. Standard deviations are multiplied by sqrt(C / (C - 1)),
        C being what is drawn, without which those of few clusters are too small. ``attrs`` name the model, the clusters
        and how many refits failed.

    Raises
    ------
    ValueError
        Fewer than five clusters; effects as parameters, of which only a whole posterior tells; no parameter of the list;
        more than 5 % of the refits fail.

    Warns
    -----
    UserWarning
        If refits fail, with their number and the first reason; their replicates are NaN and do not count.

    Notes
    -----
    A site drawn twice stands for two sites: where each site (group) lies within one cluster, models with effects see its
    copies under different names. Sites that several time blocks share keep theirs.

    Examples
    --------
    >>> import bayesens as be
    >>> site = np.repeat(np.arange(30), 4)
    >>> error = np.where(site % 2, 0.5, -0.5)  # one for a whole site
    >>> frame = pd.DataFrame({"a": site + error, "y": 1.0 * site, "site": site})
    >>> ens = be.Ensemble.from_frame(frame, members=["a"], observation="y", site="site")
    >>> model = be.SingleMember(bias="additive", site=False)
    >>> found = clustered_weights(model, ens, replicates=50, random_seed=1, progressbar=False)
    >>> round(float((found["bias_sd"] / found["bias_sd_rows"]).squeeze()))  # a mean of 30, not of 120: sqrt(4)
    2
    """
    check_given(ensemble, model)
    if method not in ("em", "optimum"):
        raise ValueError(f"method is 'em' or 'optimum'; got {method!r}.")
    if int(replicates) != replicates or replicates < 10:
        raise ValueError(f"replicates is a whole number of at least 10 (200 are better); got {replicates!r}.")
    rows = ensemble.select(rows=used_rows(model, ensemble))
    codes, kind = cluster_codes(ensemble, cluster, block, used_rows(model, ensemble))
    resolved = model.resolve(rows)
    refit, whole = _refitter(resolved, rows, method)
    names = [name for name in NAMES if name in whole]
    if not names:
        raise ValueError(f"{type(model).__name__} has none of {', '.join(NAMES)}, whose uncertainty this is about.")
    draw = _Draw(rows, codes, apart=method == "optimum")
    with progress(2 * int(replicates), "Refitting", progressbar) as advance:
        seeds = np.random.SeedSequence(random_seed).spawn(2)
        made = {
            which: _replicates(lambda rows: refit(rows)[names], take, which, int(replicates), seed, advance)
            for which, take, seed in zip(("clusters", "rows"), (draw.clusters, draw.rows), seeds, strict=True)
        }
    out = xr.Dataset()
    for name in names:
        each = {which: xr.concat([one[name] for one in found], "replicate") for which, (found, _) in made.items()}
        out[name] = each["clusters"]
        out[f"{name}_estimate"] = whole[name]
        for end, which, count in (("sd", "clusters", draw.count), ("sd_rows", "rows", len(rows))):
            out[f"{name}_{end}"] = each[which].std("replicate", ddof=1) * np.sqrt(count / (count - 1))
    return out.assign_attrs(
        model=type(model).__name__, method=method, clusters=draw.count, rows=len(rows), clustered_by=kind,
        failed_clusters=made["clusters"][1], failed_rows=made["rows"][1],
    )  # fmt: skip


def weights_table(tree: xr.DataTree, clustered: xr.Dataset) -> pd.DataFrame:
    """Put the posterior standard deviation of weights beside the one that clusters give.

    Parameters
    ----------
    tree : DataTree
        A fit of the same model by Laplace or NUTS.
    clustered : Dataset
        From `clustered_weights`.

    Returns
    -------
    DataFrame
        One line a ``member``: ``mean`` and ``posterior_sd`` of the weight (of the linear weight where the model has no
        other); ``rows_sd`` and ``clustered_sd``, from the two bootstraps; ``ratio``, clustered over rows; and the
        probabilities ``below_1_percent``, of the posterior, and ``below_1_percent_clustered``, that a weight is less than
        .01. ``attrs["weight"]`` says which weight.

    Raises
    ------
    ValueError
        If the fit is a point or of another model, or there are no weights.

    Examples
    --------
    >>> from bayesens.inference.fit import _describe
    >>> import bayesens as be
    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 1.0, 4.0, 3.0], "y": [1.1, 2.2, 2.9, 4.1]})
    >>> ens = be.Ensemble.from_frame(frame, members=["a", "b"], observation="y")
    >>> draws = np.array([[[0.8, 0.2], [0.6, 0.4]]])
    >>> tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"weight": (("chain", "draw", "member"), draws)},
    ...                                                       {"member": ["a", "b"]})})
    >>> tree.attrs = _describe(be.BMA().resolve(ens), ens)
    >>> clustered = xr.Dataset({"weight": (("replicate", "member"), [[1.0, 0.0], [0.5, 0.5]]),
    ...                         "weight_sd": ("member", [0.4, 0.4]), "weight_sd_rows": ("member", [0.1, 0.1])},
    ...                        {"member": ["a", "b"]}, {"model": "BMA"})
    >>> weights_table(tree, clustered).round(2)[["member", "mean", "ratio", "below_1_percent_clustered"]]
      member  mean  ratio  below_1_percent_clustered
    0      a   0.7    4.0                        0.0
    1      b   0.3    4.0                        0.5
    """
    check_fit_tree(tree)
    fitted, given = str(tree.attrs["bayesens_model"]), str(clustered.attrs.get("model", "no model"))
    if fitted != given:
        raise ValueError(f"the fit is of {fitted} and the bootstrap of {given}; pass those of one model.")
    if int(tree.attrs["point_estimate"]):
        raise ValueError("the fit is one point and has no posterior sd; fit with method='auto'.")
    posterior = tree["posterior"].to_dataset()
    shared = [name for name in ("weight", "linear_weight") if name in posterior and name in clustered]
    if not shared:
        raise ValueError(f"neither weight nor linear_weight is in both: the fit has {list(posterior.data_vars)}.")
    name = shared[0]
    member = clustered["member"].values
    draws = posterior[name].sel(member=member)
    sd, rows_sd = clustered[f"{name}_sd"].values, clustered[f"{name}_sd_rows"].values
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = sd / rows_sd
    replicate = clustered[name].dropna("replicate")
    out = pd.DataFrame({
        "member": member.astype(str), "mean": draws.mean(("chain", "draw")).values,
        "posterior_sd": draws.std(("chain", "draw"), ddof=1).values, "rows_sd": rows_sd, "clustered_sd": sd, "ratio": ratio,
        "below_1_percent": (draws < NEGLIGIBLE_WEIGHT).mean(("chain", "draw")).values,
        "below_1_percent_clustered": (replicate < NEGLIGIBLE_WEIGHT).mean("replicate").values,
    })  # fmt: skip
    out.attrs["weight"] = name
    return out


@dataclass(frozen=True)
class _Draw:
    """Rows of an ensemble, drawn with replacement in clusters or one by one."""

    ensemble: Ensemble
    codes: Codes
    apart: bool

    @property
    def count(self) -> int:
        return int(self.codes.max()) + 1

    def rows(self, rng: np.random.Generator) -> Ensemble:
        return self.ensemble.select(rows=rng.integers(len(self.ensemble), size=len(self.ensemble)))

    def clusters(self, rng: np.random.Generator) -> Ensemble:
        order = np.argsort(self.codes, kind="stable")
        ends = np.cumsum(np.bincount(self.codes))
        drawn = rng.integers(self.count, size=self.count)
        parts = [order[ends[c - 1] if c else 0 : ends[c]] for c in drawn]
        out = self.ensemble.select(rows=np.concatenate(parts))
        if not self.apart:
            return out
        copy = np.repeat(_occurrence(drawn), [len(part) for part in parts])
        for level in LABELS:
            labels = self.ensemble.labels(level)
            if labels is not None and _within(labels, self.codes):
                own = out.dataset[level].values
                named = np.where(own == "", "", np.char.add(np.char.add(own, "#"), copy.astype(str)))
                out = Ensemble(out.dataset.assign_coords({level: ("obs", named)}))
        return out


def _occurrence(drawn: Codes) -> Codes:
    """How often each draw has come before.

    Examples
    --------
    >>> _occurrence(np.array([3, 1, 3, 3])).tolist()
    [0, 0, 1, 2]
    """
    return np.asarray(pd.Series(drawn).groupby(drawn).cumcount(), dtype=np.intp)


def _within(labels: NDArray[np.str_], codes: Codes) -> bool:
    """Whether all rows of one label are in one cluster."""
    pairs = pd.DataFrame({"label": labels, "code": codes})[labels != ""].drop_duplicates()
    return not pairs["label"].duplicated().any()


def _refitter(model: Any, rows: Ensemble, method: str) -> tuple[Callable[[Ensemble], xr.Dataset], xr.Dataset]:
    """How a table is fitted, and the fit to all rows."""
    if method == "em":
        if not hasattr(model, "em"):
            raise ValueError(f"{type(model).__name__} has no fit by EM; use method='optimum'.")
        tree = fit(model, rows, method="em")
        whole = tree["posterior"].to_dataset().isel(chain=0, draw=0, drop=True)
        return partial(_by_em, model, whole.coords), whole
    if not hasattr(model, "summarise"):
        refuse_effects(model, "the highest density over single effects is no estimate")
    target, modes, _ = find_optima(model, rows, None)
    if len(modes) > 1:
        warn(f"The posterior of {type(model).__name__} has {len(modes)} optima; every refit starts at the highest, and the "
             "spread does not tell how likely the others are.")  # fmt: skip
    by = partial(_by_optimum, model, target.named(modes[0].x))
    return by, by(rows)


def _by_em(model: Any, coords: Mapping[Any, Any], rows: Ensemble) -> xr.Dataset:
    """What `fit` does by EM from the standard start, without describing it."""
    rows.check_training(n_parameters=model.n_parameters(rows))
    found, optima = model.em(rows, starts=0)
    if not optima[0].converged:
        raise RuntimeError(f"EM stopped after {optima[0].iterations} passes before it converged.")
    found = found.drop_dims([level for level in LABELS if level in found.dims])  # each replicate has its own sites
    if len(optima[0].weight):
        found = found.assign(weight=("member", optima[0].weight), sigma=("member", optima[0].sigma))
    out: xr.Dataset = found.assign_coords({name: value for name, value in coords.items() if name not in LABELS})
    return out


def _by_optimum(model: Any, warm: Mapping[str, Any], rows: Ensemble) -> xr.Dataset:
    """Variables where the posterior density is highest, sought from another optimum."""
    target, modes, data = find_optima(model, rows, warm)
    posterior, _ = target.expand(modes[0].x[None, None])
    if hasattr(model, "coordinates"):
        posterior = posterior.assign_coords(model.coordinates(data))
    if hasattr(model, "complete"):
        posterior = model.complete(posterior, data, np.random.default_rng(0))
    return posterior.isel(chain=0, draw=0, drop=True)


def find_optima(
    model: Any, rows: Ensemble, warm: Mapping[str, Any] | None, seed: int | None = 0
) -> tuple[Any, Any, Any]:
    """The compiled posterior, its optima, and the data that it was made of."""
    from bayesens.inference.compiled import lean
    from bayesens.inference.log_density import compile_target
    from bayesens.inference.sampling.laplace import find_modes, starts_of

    data = _prepared(model, rows)
    with lean():
        built = model.build(data)
    target, rng = compile_target(built), np.random.default_rng(seed)
    start = target.start if warm is None else target.begin(warm)
    starts, others = starts_of(model, target, 3 if warm is None else 0)
    modes = find_modes(target, start=start, starts=starts, rng=rng, others=others)
    if not modes:
        raise RuntimeError(f"the search for the highest posterior density of {type(model).__name__} ended nowhere.")
    return target, modes, data


def _prepared(model: Any, rows: Ensemble) -> Any:
    """What a model takes from the rows: statistics, corrected members, or the rows themselves."""
    if hasattr(model, "summarise"):
        return model.summarise(rows)
    return model.prepare(rows) if hasattr(model, "prepare") else rows


def _replicates(
    refit: Callable[[Ensemble], xr.Dataset], take: Callable[[np.random.Generator], Ensemble], which: str, count: int,
    seed: np.random.SeedSequence, advance: Callable[[], None],
) -> tuple[list[xr.Dataset], int]:  # fmt: skip
    """Refits; NaN where one fails, of which there may be few."""
    made: list[xr.Dataset | None] = []
    reasons: list[str] = []
    for one in seed.spawn(count):
        try:
            made.append(refit(take(np.random.default_rng(one))))
        except FAILURES as error:
            made.append(None)
            reasons.append(str(error))
        advance()
    if len(reasons) > MOST_UNDEFINED * count:
        raise ValueError(f"{len(reasons)} of {count} refits to {which} drawn with replacement failed, the first with: "
                         f"{reasons[0]} Take larger clusters or fewer members.")  # fmt: skip
    good = next(one for one in made if one is not None)
    if reasons:
        warn(f"{len(reasons)} of {count} refits to {which} drawn with replacement failed and do not count; the first: "
             f"{reasons[0]}")  # fmt: skip
    return [xr.full_like(good, np.nan) if one is None else one for one in made], len(reasons)


# ------------------------------------------------------------------------------------------------------------ the parts
def refuse_effects(model: Any, why: str) -> None:
    """Refuse a model with parameters of single sites or groups."""
    own = getattr(model, "correction", "") == "own"  # whose effects stand in the corrections, which are integrated
    levels = [level for level in ("group", "site") if getattr(model, level, False) and not own]
    if levels or getattr(model, "weights", "") == "group":
        what = f"{' and '.join(levels)} effects" if levels else "weights by group"
        raise ValueError(f"{type(model).__name__} has {what}: {why}. Use the model without them, or HBM in "
                         "clustered_weights(..., method='optimum').")  # fmt: skip


def used_rows(model: Any, ensemble: Ensemble) -> NDArray[np.int64]:
    """Positions of the rows that a fit uses."""
    ensemble.require_observation()
    keep = ensemble.observed & (ensemble.available.any(axis=1) if getattr(model, "needs_member", False) else True)
    if not keep.any():
        raise ValueError(f"none of {ensemble.n_obs} rows has an observation and a member; wanted training rows.")
    return np.flatnonzero(keep)


def cluster_codes(
    ensemble: Ensemble, cluster: str | ArrayLike, block: float, rows: NDArray[np.int64]
) -> tuple[Codes, str]:
    """Number of each row's cluster, and what clusters are called; five at least."""
    codes, kind = row_clusters(ensemble, cluster, block, rows)
    if (count := int(codes.max()) + 1) < MIN_CLUSTERS:
        raise ValueError(f"there are {count} {kind}, and their differences tell of no uncertainty below {MIN_CLUSTERS}; give "
                         "smaller clusters, such as shorter time blocks, that are still independent of each other.")  # fmt: skip
    return codes, kind
