"""Metrics of groups of rows in every replicate: all rows, the groups that labels make, and the mean over these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesens.comparison.bootstrap import Clusters, Replicates
from bayesens.comparison.common_rows import SCORES, in_season_order
from bayesens.comparison.row_resampling import Resampling, resampling
from bayesens.comparison.skill import skill
from bayesens.messages import check_known, listed, warn

__all__ = ["EXTRA", "FIRST", "MACRO", "POOLED", "RowGroup", "row_groups"]

Array = NDArray[np.float64]
FIRST = ("crps", "log_score", "rmse", "ubrmse", "mae", "bias", "r", "coverage90", "width90")
EXTRA = ("kge", "r_temporal", "r_temporal_z", "r_spatial")
POOLED, MACRO = "all", "macro"


@dataclass(frozen=True)
class RowGroup:
    """Metrics of every model in one group of rows.

    Attributes
    ----------
    name, by : str
        The group, and the label that made it; "all" and "" for all rows, "macro" for the mean over groups.
    n, stations : int
        Rows and stations.
    clusters : Clusters
        What its intervals rest on.
    design : Resampling
        How rows are drawn.
    values : dict of model to dict of metric to array (replicate)
        The first replicate is the sample itself.
    """

    name: str
    by: str
    n: int
    stations: int
    clusters: Clusters
    design: Resampling
    values: dict[str, dict[str, Array]]

    def ends(self, values: Array, level: float) -> tuple[float, float]:
        """Interval of a function of the replicates."""
        return self.design.ends(values, level, self.clusters)

    def probability(self, values: Array, *, low: float = -np.inf, high: float = np.inf) -> float:
        """Probability that it lies between two values."""
        return self.design.probability(values, self.clusters, low=low, high=high)


def row_groups(
    rows: xr.Dataset, by: str | Sequence[str], replicates: int, block: float | None, random_seed: int | None
) -> Iterator[RowGroup]:
    """Metrics of all rows, then for each label those of its groups and of their mean.

    Parameters
    ----------
    rows : Dataset
        From `common_rows`.
    by : str or sequence of str
        Labels of the rows.
    replicates, block, random_seed
        As in `bayesens.score_table`.

    Yields
    ------
    RowGroup

    Raises
    ------
    KeyError, ValueError
        Unknown labels, or labels called "all" or "macro"; and as `bayesens.comparison.row_resampling.resampling`.

    Warns
    -----
    UserWarning
        With the number of rows whose label is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayesens import Ensemble, common_rows
    >>> frame = pd.DataFrame({"a": [1.0, 4.0], "y": [2.0, 2.0], "net": ["x", "z"]})
    >>> ensemble = Ensemble.from_frame(frame, members=["a"], observation="y", group="net")
    >>> rows = common_rows({}, ensemble, estimand="site", products={"A": frame["a"]})
    >>> [(one.name, float(one.values["A"]["mae"][0])) for one in row_groups(rows, "group", 0, None, None)]
    [('all', 1.5), ('x', 1.0), ('z', 2.0), ('macro', 1.5)]
    """
    names = [by] if isinstance(by, str) else list(by)
    own = [str(name) for name, v in rows.coords.items() if v.dims == ("obs",) and v.dtype.kind == "U"]
    check_known(names, own, kind="label", where="the rows")
    design = resampling(rows, replicates=replicates, block=block)
    yield _group(rows, np.arange(rows.sizes["obs"]), POOLED, "", design, design.drawn(random_seed))
    for name in names:
        label = rows[name].values
        levels = in_season_order([str(level) for level in np.unique(label) if level != ""])
        if taken := sorted({POOLED, MACRO} & set(levels)):
            raise ValueError(f"the labels of {name!r} hold {listed(taken)}, which the table uses itself; rename them")
        if missing := int((label == "").sum()):
            warn(f"{missing} of {len(label)} rows have no {name}: they count in '{POOLED}' alone")
        parts = [np.flatnonzero(label == level) for level in levels]
        whole, drawn = design.whole(parts), design.drawn_within(label, random_seed)
        groups = [_group(rows, where, level, name, design, drawn) for where, level in zip(parts, levels, strict=True)]
        yield from groups
        if groups:
            count = drawn.station[[design.station[where[0]] for where in parts]]
            yield _macro(
                groups, name, np.flatnonzero(label != ""), design, count if whole else np.ones_like(count), whole
            )


def _macro(
    groups: Sequence[RowGroup], name: str, where: NDArray[np.intp], design: Resampling, count: Array, whole: bool
) -> RowGroup:
    """The mean over groups, each counted (group, replicate) so often."""
    clusters = design.clusters(where)
    if not whole and min(one.clusters.least for one in groups) < 2:  # the mean is no surer than its worst part
        one_block = clusters.only_blocks
        clusters = replace(clusters, blocks=1) if one_block else replace(clusters, stations=min(clusters.stations, 1))
    size, stations = sum(one.n for one in groups), design.stations(where)
    return RowGroup(MACRO, name, size, stations, clusters, design, _mean_over(groups, count))


def _group(
    rows: xr.Dataset, where: NDArray[np.intp], name: str, by: str, design: Resampling, drawn: Replicates
) -> RowGroup:
    kept, station = np.unique(design.station[where], return_inverse=True)
    some = Replicates(drawn.station[kept], drawn.block)
    y, values = rows["observation"].values[where], {}
    for model in rows["model"].values.tolist():
        mine = rows.sel(model=model)
        means = {key: mine[key].values[where] for key in (*SCORES, "twcrps") if key in mine}
        there = {key: each for key, each in means.items() if not np.isnan(each).all()}
        found = skill(mine["prediction"].values[where], y, there, station, design.block[where], some)
        if not design.has_site:
            found |= {key: np.full_like(found["r"], np.nan) for key in found if key.startswith("r_")}
        nothing = np.full_like(found["r"], np.nan)
        values[model] = {
            key: found.get(key, nothing) for key in (*FIRST, *EXTRA, *(["twcrps"] if "twcrps" in mine else []))
        }
    return RowGroup(name, by, len(where), design.stations(where), design.clusters(where), design, values)


def _mean_over(groups: Sequence[RowGroup], count: Array) -> dict[str, dict[str, Array]]:
    """Mean over groups, each counted (group, replicate) so often.

    One whose metric is undefined for every model, as R of a single row, is left out for all.
    """
    models = groups[0].values
    out: dict[str, dict[str, Array]] = {model: {} for model in models}
    for name in next(iter(models.values())):
        stacked = {model: np.stack([one.values[model][name] for one in groups]) for model in models}
        defined = np.any([~np.isnan(each[:, 0]) for each in stacked.values()], axis=0)
        for model, each in stacked.items():
            weight = count[defined]
            total = np.where(weight > 0, weight * each[defined], 0.0).sum(axis=0)
            some = weight.sum(axis=0)
            out[model][name] = total / np.where(some > 0, some, np.nan)
    return out
